"""Runs as models of EleutherAI's lm-evaluation-harness, called `textdiffusion` (extra `eval`).

python -m textdiffusion.evaluation.harness run --model textdiffusion --model_args pretrained=runs/mine --tasks ...
"""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np

from ..core.devices import DeviceName, DtypeName
from ..core.errors import UserError
from ..data.conditions import encode_source
from ..data.normalisers import normalise
from ..data.templates import collate, make_row
from ..inference.api import TextDiffusion
from ..inference.run import Weights

GREEDY_TEMPERATURE = 1e-3


@dataclass(frozen=True)
class GenerationRequest:
    """A context to continue up to one of `stops`, by at most `max_tokens` (None: as many as fit)."""

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
    errors, one per request; `truncated_contexts` are the contexts of which the run saw only the end.
    """

    model: TextDiffusion
    seed: int = 0
    target_error: float = 0.01
    draws: int | None = None
    greedy: bool = True
    order: str = ""
    """Log-likelihoods are exact, those of revealing text in this order, `per_step` positions at a time."""
    per_step: int = 1
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
        if self.model.config.text.source:
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
        if (max_tokens := self._max_context_tokens(text)) < bool(config.source):
            return False
        context_ids = self._context_ids(context, max_tokens)
        row = make_row(context_ids, len(tokens))
        padded_to = config.length if config.model_padding else 0
        batch = collate([row], self.model.tokenizer, ended=[config.layout != "stream"], padded_to=padded_to)
        *_, step = self.model.stream(seed=self.seed, temperature=GREEDY_TEMPERATURE, batch=batch)
        return bool((step.tokens[0, len(context_ids) : len(row[0])].cpu().numpy() == tokens).all())

    def generate(self, requests: Sequence[GenerationRequest]) -> list[str]:
        """The continuations, each cut before the first of its stops.

        A long context gets at least half of the window, and the run generates the rest.
        """
        groups: dict[tuple[float, int, float], list[int]] = {}
        for i, request in enumerate(requests):
            groups.setdefault((request.temperature, request.top_k, request.top_p), []).append(i)
        texts: dict[int, str] = {}
        for options, chosen in groups.items():
            texts |= zip(chosen, self._generate([requests[i] for i in chosen], *options), strict=True)
        return [texts[i] for i in range(len(requests))]

    def _generate(
        self, requests: Sequence[GenerationRequest], temperature: float, top_k: int, top_p: float
    ) -> list[str]:
        length, modelled = self.model.config.text.length, self.model.config.text.model_padding
        rows, starts = [], []
        for request in requests:
            wanted = length if request.max_tokens is None else min(request.max_tokens, length)
            context_ids = self._context_ids(request.context, max(length - wanted, length // 2))
            available = length - len(context_ids)
            rows.append(make_row(context_ids, available if modelled else min(wanted, available)))
            starts.append(len(context_ids))
        batch = collate(rows, self.model.tokenizer, padded_to=length if modelled else 0)
        texts: list[str] = []
        for chunk in self.model.chunks(batch):
            *_, step = self.model.stream(seed=self.seed, batch=chunk, temperature=temperature, top_k=top_k, top_p=top_p)
            for ids in step.tokens.cpu().numpy():
                request, start, row = requests[len(texts)], starts[len(texts)], rows[len(texts)][0]
                stop = len(row) if request.max_tokens is None else min(len(row), start + request.max_tokens)
                texts.append(_cut_at_stop(self.model.tokenizer.decode(ids[start:stop]), request.stops))
        return texts

    def _context_ids(self, context: str, max_tokens: int) -> np.ndarray:
        if self.model.config.text.source:
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
            "loglikelihoods": "exact" if exact else "lower bounds",
            **({"order": self.order, "per_step": self.per_step} if self.order else {}),
            "monte_carlo_error_nats": {"median": float(np.median(errors)), "largest": float(errors.max())},
            "contexts_truncated": len(self.truncated_contexts),
        }


def _cut_at_stop(text: str, stops: Sequence[str]) -> str:
    positions = [position for stop in stops if stop and (position := text.find(stop)) >= 0]
    return text[: min(positions, default=len(text))]


@cache
def register() -> type:
    """Registers the model `textdiffusion` with the harness, and returns its class. Raises UserError without the extra.

    Its arguments (`--model_args`) are `pretrained`, a run's folder or hub id; `weights`, `dtype`, `seed`,
    `target_error`, `draws`, `order` and `per_step` as in `TextDiffusion.score`; and `greedy`: false skips the test
    whether a continuation is the greedy one, which costs one sample per request, and reports false for all.
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
            device: DeviceName | None = None,
            batch_size: int | str | None = None,
            max_batch_size: int | None = None,
        ) -> None:
            """The harness passes batch sizes to every model; here they are ignored, and memory decides."""
            super().__init__()
            run = TextDiffusion.from_pretrained(pretrained, weights=weights, device=device or "auto", dtype=dtype)
            self.adapter = HarnessAdapter(run, seed, target_error, draws, greedy, order, per_step)

        def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
            pairs = [(text, context) for context, text in (request.args for request in requests)]
            return [(self.adapter.log_likelihood(*pair), self.adapter.is_greedy(*pair)) for pair in pairs]

        def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
            return [self.adapter.log_likelihood(*request.args) for request in requests]

        def generate_until(self, requests: list[Any]) -> list[str]:
            return self.adapter.generate([_generation_request(*request.args) for request in requests])

        def get_model_info(self) -> dict[str, Any]:
            if count := len(self.adapter.truncated_contexts):
                sys.stderr.write(f"{count} contexts did not fit in the window; the run saw only their ends.\n")
            return self.adapter.model_info()

    return Harness


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
