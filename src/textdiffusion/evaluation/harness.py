"""Runs as models of EleutherAI's lm-evaluation-harness, called `textdiffusion` (extra `eval`).

python -m textdiffusion.evaluation.harness run --model textdiffusion --model_args pretrained=runs/mine --tasks ...

It takes the harness's own arguments. Arguments of the model: see `register`.
"""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, cast

import numpy as np

from ..core.batch import Batch
from ..core.devices import DeviceName, DtypeName
from ..core.errors import UserError
from ..data.chat import encode_rendered, parse_messages
from ..data.conditions import encode_source
from ..data.normalisers import normalise
from ..data.templates import collate, make_row
from ..inference.api import TextDiffusion
from ..inference.continuation import read_continuation
from ..inference.options import SamplingOptions
from ..inference.prompts import default_length, prompt_batch, sample_batches
from ..inference.run import Weights

GREEDY_TEMPERATURE = 1e-3


@dataclass(frozen=True)
class Preset:
    """Settings of generation that the authors of a family of models used."""

    sampler: str
    temperature: float
    top_p: float = 1.0


PRESETS = {
    # Nie et al. (2025): blocks of 32 tokens, the likeliest token of the surest position, one a step
    "llada": Preset("unmasking:order=confidence,block_size=32,spaced=false,steps=0", 0.0),
    # Ye et al. (2025): any position, the lowest entropy first, one a step
    "dream": Preset("unmasking:order=entropy,spaced=false,steps=0", 0.2, 0.95),
    # Wu et al. (2025): blocks of 32, all tokens above a probability of 0.9 at once
    "fast_dllm": Preset("unmasking:order=confidence,block_size=32,threshold=0.9,spaced=false,steps=0", 0.0),
}
"""For runs that do not have these settings of their own, as converted ones do."""


@dataclass(frozen=True)
class GenerationRequest:
    """A context to continue up to one of `stops`, by at most `max_tokens` (None: as many as a run writes by itself)."""

    context: str
    stops: tuple[str, ...] = ()
    max_tokens: int | None = None
    temperature: float = GREEDY_TEMPERATURE
    top_k: int = 0
    top_p: float = 1.0


@dataclass
class HarnessAdapter:
    """The requests of the harness, answered by a run. For a run trained with sources, contexts are sources.

    Log-likelihoods are in nats, and lower bounds unless the run's are exact. `errors` are their Monte-Carlo standard
    errors, one per request; `truncated_contexts` are the contexts of which the run saw only the end. `sampling` has the
    sampler and its steps; its temperature and top_p, unless they are None, replace those of the requests. With an
    `order` log-likelihoods are exact: those of revealing text in it, `per_step` tokens at a time. `chats`: contexts are
    what the chat template wrote (`apply_chat_template`).
    """

    model: TextDiffusion
    seed: int = 0
    target_error: float = 0.01
    draws: int | None = None
    greedy: bool = True
    sampling: SamplingOptions = field(default_factory=lambda: generation_settings())
    order: str = ""
    """Log-likelihoods are exact, those of revealing text in this order, `per_step` positions at a time."""
    per_step: int = 1
    chats: bool = False
    errors: list[float] = field(default_factory=list)
    truncated_contexts: set[str] = field(default_factory=set)

    def log_likelihood(self, text: str, context: str = "") -> float:
        """log p(text | context), in nats. A context that does not fit in the window loses its beginning.

        If the run's examples have ends, the text ends there too. An empty text has 0. A text that fills the window is
        cut into several windows: a prefix is then dropped, a source precedes each window and keeps half of it.
        """
        if not text:
            return 0.0
        options: dict[str, Any] = {"seed": self.seed, "target_error": self.target_error, "draws": self.draws}
        options |= {"order": self.order, "per_step": self.per_step}
        max_tokens, half = self._max_context_tokens(text), self.model.config.text.length // 2
        if self.model.config.text.has_source:
            options["source"] = self._truncate(context, (max_tokens if max_tokens > 1 else half) - 1)
        else:
            options["prefix"] = self._truncate(context, max_tokens)
        likelihood = self.model.score([text], **options)[0]
        self.errors.append(likelihood.monte_carlo_error * likelihood.characters * math.log(2.0))
        return -likelihood.total * math.log(2.0)

    def is_greedy(self, text: str, context: str = "") -> bool:
        """Whether the run's own sampler generates exactly this text after the context, at temperature 0.001.

        The sampler is given the number of tokens. The answer is exact for an autoregressive run. A diffusion model has
        no unique greedy text: this is the text that it generates in the order, or with the noise, of the seed.
        """
        if not self.greedy or not text:
            return False
        config, tokens = self.model.config.text, self.model.tokenizer.encode(self._normalise(text))
        if (max_tokens := self._max_context_tokens(text)) < config.has_source:
            return False
        context_ids = self._context_ids(context, max_tokens)
        row = make_row(context_ids, len(tokens))
        padded_to = config.length if config.model_padding else 0
        batch = collate([row], self.model.tokenizer, ended=[config.layout != "stream"], padded_to=padded_to)
        *_, step = self.model.stream(seed=self.seed, temperature=GREEDY_TEMPERATURE, batch=batch)
        return bool((step.tokens[0, len(context_ids) : len(row[0])].cpu().numpy() == tokens).all())

    def generate(self, requests: Sequence[GenerationRequest]) -> list[str]:
        """The continuations, each cut before the first of its stops. Contexts are continued in batches.

        A long context gets at least half of what the run reads, and the run generates the rest.
        """
        groups: dict[tuple[float, int, float], list[int]] = {}
        for i, request in enumerate(requests):
            groups.setdefault((request.temperature, request.top_k, request.top_p), []).append(i)
        texts = [""] * len(requests)
        for (temperature, top_k, top_p), chosen in groups.items():
            own = self.sampling
            sampling = replace(
                own,
                seed=self.seed,
                temperature=temperature if own.temperature is None else own.temperature,
                top_k=top_k,
                top_p=top_p if own.top_p is None else own.top_p,
            )
            for number, text in self._generate([requests[i] for i in chosen], sampling):
                texts[chosen[number]] = text
        return texts

    def _generate(self, requests: Sequence[GenerationRequest], sampling: SamplingOptions) -> Iterator[tuple[int, str]]:
        """The number of each request with its text, in the order in which they are written."""
        run = self.model
        batches = [self._batch(request) for request in requests]
        for owners, step, chunk in sample_batches(run, batches, sampling):
            assert chunk.text_starts is not None
            starts = chunk.text_starts.tolist()
            for number, start, tokens in zip(owners, starts, step.tokens.cpu().numpy(), strict=True):
                request, last = requests[number], int(batches[number].target_mask.sum()) + start
                stop = last if request.max_tokens is None else min(last, start + request.max_tokens)
                text = read_continuation(tokens[:stop], start, run.tokenizer, run.end_ids, run.turn_end.text)
                yield number, text.truncated([stop for stop in request.stops if stop]).text

    def _batch(self, request: GenerationRequest) -> Batch:
        """The row of a request. A run that models padding writes to the end of its window, as it learned to."""
        config, context = self.model.config.text, self.model.context_length
        wanted = min(context if request.max_tokens is None else request.max_tokens, context)
        ids = self._context_ids(request.context, max(context - wanted, context // 2))
        length = min(wanted, default_length(self.model, len(ids)) if request.max_tokens is None else wanted)
        if config.model_padding and context == config.length:
            length = context
        return prompt_batch(self.model, ids, length=min(length, context - len(ids)))

    def apply_chat_template(self, messages: Sequence[Mapping[str, str]], *, answer: bool = True) -> str:
        """The messages as a context, up to where the answer begins; without `answer`, the last is its beginning.

        Raises UserError for a run without a template, and for messages that it refuses.
        """
        template = self.model.chat_template
        if template is None:
            raise UserError("This run has no chat template; ask without one (apply_chat_template).")
        self.chats = True
        talk = parse_messages(messages, "The chat")
        start = "" if answer else talk[-1].content
        return template.render_guarded(talk if answer else talk[:-1], self.model.tokenizer) + start

    def _context_ids(self, context: str, max_tokens: int) -> np.ndarray:
        if self.chats:
            ids = encode_rendered(context, self.model.tokenizer)
            if len(ids) > max_tokens:
                self.truncated_contexts.add(context)
            return ids[max(len(ids) - max_tokens, 0) :]
        if self.model.config.text.has_source:
            return encode_source(self._truncate(context, max_tokens - 1), self.model.config.text, self.model.tokenizer)
        return self.model.tokenizer.encode(self._normalise(self._truncate(context, max_tokens)))

    def _truncate(self, context: str, max_tokens: int) -> str:
        """The end of a context, of at most `max_tokens` tokens."""
        ids = self.model.tokenizer.encode(self._normalise(context))
        if len(ids) <= (max_tokens := max(max_tokens, 0)):
            return context
        self.truncated_contexts.add(context)
        end = self.model.tokenizer.decode(ids[len(ids) - max_tokens :])
        while len(self.model.tokenizer.encode(self._normalise(end))) > max_tokens:  # a cut character can take more
            end = end[1:]
        return end

    def _max_context_tokens(self, text: str) -> int:
        """Tokens of a window that remain for the context beside a text and its end; negative where these do not fit."""
        config = self.model.config.text
        return config.length - len(self.model.tokenizer.encode(self._normalise(text))) - (config.layout != "stream")

    def _normalise(self, text: str) -> str:
        return normalise(self.model.config.text.normaliser, text)

    def model_info(self) -> dict[str, Any]:
        """Facts that the harness stores with its results."""
        exact, errors = bool(self.order or self.model.likelihood.exact), np.array(self.errors or [0.0])
        return {
            "recipe": self.model.config.recipe,
            "weights": self.model.weights,
            "sampler": str(self.sampling.sampler or self.model.config.sampler.kind),
            "steps": self.sampling.steps,
            "loglikelihoods": "exact" if exact else "lower bounds",
            **({"order": self.order, "per_step": self.per_step} if self.order else {}),
            "monte_carlo_error_nats": {"median": float(np.median(errors)), "largest": float(errors.max())},
            "contexts_truncated": len(self.truncated_contexts),
        }


@cache
def register() -> type:
    """Registers the model `textdiffusion` with the harness, and returns its class. Raises UserError without the extra.

    Its arguments (`--model_args`) are `pretrained`, a run's folder or hub id; `weights`, `dtype`, `seed`,
    `target_error`, `draws`, `order` and `per_step` as in `TextDiffusion.score`; `greedy`: false skips the test whether
    a continuation is the greedy one, which costs one sample per request, and reports false for all; and for generation
    `sampler` (settings after colons, as in unmasking:order=entropy:threshold=0.9), `steps`, `temperature` and `top_p`,
    which replace those of the run and of the task, or all of these by a `preset` (`PRESETS`).
    """
    try:
        base = importlib.import_module("lm_eval.api.model").LM
        registered = importlib.import_module("lm_eval.api.registry").register_model("textdiffusion")
    except ImportError:
        raise UserError("The lm-evaluation-harness is an optional extra: pip install 'textdiffusion[eval]'.") from None

    @registered
    class Harness(base):
        """A run behind the harness's interface."""

        def __init__(
            self,
            pretrained: str,
            weights: Weights = "ema",
            dtype: DtypeName = "float32",
            seed: int = 0,
            target_error: float = 0.01,
            draws: int | None = None,
            greedy: bool = True,
            order: str = "",
            per_step: int = 1,
            sampler: str | None = None,
            steps: int | None = None,
            temperature: float | None = None,
            top_p: float | None = None,
            preset: str = "",
            device: str | None = None,
            batch_size: int | str | None = None,
            max_batch_size: int | None = None,
        ) -> None:
            """The harness passes batch sizes to every model; here they are ignored, and memory decides."""
            super().__init__()
            run = TextDiffusion.from_pretrained(pretrained, weights=weights, device=_device(device), dtype=dtype)
            sampling = generation_settings(preset, sampler, steps, temperature, top_p)
            self.adapter = HarnessAdapter(run, seed, target_error, draws, greedy, sampling, order, per_step)
            self.pretrained = pretrained

        def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
            pairs = [(text, context) for context, text in (request.args for request in requests)]
            return [(self.adapter.log_likelihood(*pair), self.adapter.is_greedy(*pair)) for pair in pairs]

        def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
            return [self.adapter.log_likelihood(*request.args) for request in requests]

        def generate_until(self, requests: list[Any]) -> list[str]:
            return self.adapter.generate([_generation_request(*request.args) for request in requests])

        def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
            return self.adapter.apply_chat_template(chat_history, answer=add_generation_prompt)

        def chat_template(self, chat_template: bool | str = False) -> str:
            template = self.adapter.model.chat_template
            return template.source if template and chat_template else ""

        @property
        def tokenizer_name(self) -> str:
            return str(self.pretrained).replace("/", "__")

        def get_model_info(self) -> dict[str, Any]:
            if count := len(self.adapter.truncated_contexts):
                sys.stderr.write(f"{count} contexts did not fit in the window; the run saw only their ends.\n")
            return self.adapter.model_info()

    return Harness


def _device(name: str | None) -> DeviceName:
    """The device for a name of the harness, which says cuda:0 where nothing was asked for."""
    if name is None or name.startswith("cuda:"):
        return "auto"
    return cast(DeviceName, name)


def generation_settings(
    preset: str = "",
    sampler: str | None = None,
    steps: int | None = None,
    temperature: float | None = None,
    top_p: float | None = None,
) -> SamplingOptions:
    """The settings of a preset, if any, with those that are given in their place. Raises UserError for no preset."""
    if preset and preset not in PRESETS:
        raise UserError(f"There is no preset {preset!r}; it can be {', '.join(PRESETS)}.")
    own = PRESETS.get(preset)
    return SamplingOptions(
        sampler=own.sampler if own is not None and sampler is None else sampler,
        steps=steps,
        temperature=temperature if own is None or temperature is not None else own.temperature,
        top_p=top_p if own is None or top_p is not None else own.top_p,
    )


def _generation_request(context: str, options: dict[str, Any]) -> GenerationRequest:
    """The harness's options as a request. Raises UserError for options that runs do not support."""
    unknown = set(options) - {"until", "max_gen_toks", "do_sample", "temperature", "top_k", "top_p"}
    if unknown:
        raise UserError(f"The task sets {', '.join(sorted(unknown))}, which runs do not support.")
    stops = options.get("until") or ()
    sampled = options.get("do_sample", "temperature" in options)
    temperature = options.get("temperature", 1.0) if sampled else 0.0
    stops = (stops,) if isinstance(stops, str) else tuple(stops)
    top_k, top_p = options.get("top_k") or 0, options.get("top_p") or 1.0
    limit = options.get("max_gen_toks")
    return GenerationRequest(context, stops, limit, temperature or GREEDY_TEMPERATURE, top_k, top_p)


def main() -> None:
    """The harness's own command line, with the model `textdiffusion`."""
    try:
        register()
        importlib.import_module("lm_eval.__main__").cli_evaluate()
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(2)


if __name__ == "__main__":
    main()
