"""Runs as models of EleutherAI's lm-evaluation-harness, under the name `textdiffusion` (extra `eval`).

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

COLD = 1e-3  # the temperature that stands for greedy choices


@dataclass(frozen=True)
class Asked:
    """A context to be continued until one of `stops`, by at most `tokens` (None: as many as there is room for)."""

    context: str
    stops: tuple[str, ...] = ()
    tokens: int | None = None
    temperature: float = COLD
    top_k: int = 0
    top_p: float = 1.0


@dataclass
class Answers:
    """What the harness asks of a model. Log-likelihoods are in nats, and lower bounds unless the run's are exact.

    The contexts of a run that was trained with sources are sources.
    `errors` are their Monte-Carlo standard errors in the order of asking; `cut` are the contexts of which only the end
    was given.
    """

    model: TextDiffusion
    seed: int = 0
    target_error: float = 0.01
    draws: int | None = None
    greedy: bool = True
    errors: list[float] = field(default_factory=list)
    cut: set[str] = field(default_factory=set)

    def log_likelihood(self, text: str, context: str = "") -> float:
        """log p(text | context); a longer context than the window has room for loses its beginning.

        Where the run's examples end, so does the text. An empty text has 0. A text that fills the window is cut into
        several: a prefix is lost then, a source stands before each and keeps half of the window.
        """
        if not text:
            return 0.0
        asked: dict[str, Any] = {"seed": self.seed, "target_error": self.target_error, "draws": self.draws}
        room, half = self._room(text), self.model.config.text.length // 2
        if self.model.config.text.source:
            asked["source"] = self._fitting(context, (room if room > 1 else half) - 1)
        else:
            asked["prefix"] = self._fitting(context, room)
        found = self.model.score([text], **asked)[0]
        self.errors.append(found.monte_carlo_error * found.characters * math.log(2.0))
        return -found.total * math.log(2.0)

    def is_greedy(self, text: str, context: str = "") -> bool:
        """Whether the run's own sampler writes just this, cold, in so many tokens after the context.

        Exact for an autoregressive run. A diffusion model has no one greedy text: this is what it writes in the order
        (or with the noise) of the seed.
        """
        if not self.greedy or not text:
            return False
        config, own = self.model.config.text, self.model.tokenizer.encode(self._normal(text))
        if (room := self._room(text)) < bool(config.source):
            return False
        first = self._before(context, room)
        row = make_row(first, len(own))
        padded_to = config.length if config.model_padding else 0
        batch = collate([row], self.model.tokenizer, ended=[config.layout != "stream"], padded_to=padded_to)
        *_, last = self.model.stream(seed=self.seed, temperature=COLD, batch=batch)
        return bool((last.tokens[0, len(first) : len(row[0])].cpu().numpy() == own).all())

    def continued(self, asked: Sequence[Asked]) -> list[str]:
        """The continuations, each cut before the first of its stops.

        A context is given at least half of the window if it is that long, and the run writes the rest of it.
        """
        texts = [""] * len(asked)
        for how in {(one.temperature, one.top_k, one.top_p) for one in asked}:
            chosen = [i for i, one in enumerate(asked) if (one.temperature, one.top_k, one.top_p) == how]
            for number, text in zip(chosen, self._continued([asked[i] for i in chosen], *how), strict=True):
                texts[number] = text
        return texts

    def _continued(self, asked: Sequence[Asked], temperature: float, top_k: int, top_p: float) -> list[str]:
        length, modelled = self.model.config.text.length, self.model.config.text.model_padding
        rows, starts = [], []
        for one in asked:
            wanted = length if one.tokens is None else min(one.tokens, length)
            first = self._before(one.context, max(length - wanted, length // 2))
            rows.append(make_row(first, length - len(first) if modelled else min(wanted, length - len(first))))
            starts.append(len(first))
        whole = collate(rows, self.model.tokenizer, padded_to=length if modelled else 0)
        texts: list[str] = []
        for part in self.model.chunks(whole):
            how = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
            *_, last = self.model.stream(seed=self.seed, batch=part, **how)
            for ids in last.tokens.cpu().numpy():
                one, start, row = asked[len(texts)], starts[len(texts)], rows[len(texts)][0]
                stop = len(row) if one.tokens is None else min(len(row), start + one.tokens)
                texts.append(_stopped(self.model.tokenizer.decode(ids[start:stop]), one.stops))
        return texts

    def _before(self, context: str, room: int) -> np.ndarray:
        if self.model.config.text.source:
            return encode_source(self._fitting(context, room - 1), self.model.config.text, self.model.tokenizer)
        return self.model.tokenizer.encode(self._normal(self._fitting(context, room)))

    def _fitting(self, context: str, room: int) -> str:
        """As much of the end of a context as has so many tokens."""
        ids = self.model.tokenizer.encode(self._normal(context))
        if len(ids) <= (room := max(room, 0)):
            return context
        self.cut.add(context)
        end = self.model.tokenizer.decode(ids[len(ids) - room :])
        while len(self.model.tokenizer.encode(self._normal(end))) > room:  # half a character takes more than it had
            end = end[1:]
        return end

    def _room(self, text: str) -> int:
        """Tokens that a window has for what stands before a text and its end; below 0 where these do not fit."""
        config = self.model.config.text
        return config.length - len(self.model.tokenizer.encode(self._normal(text))) - (config.layout != "stream")

    def _normal(self, text: str) -> str:
        return normalise(self.model.config.text.normaliser, text)

    def about(self) -> dict[str, Any]:
        """What the harness keeps beside its results."""
        config, exact = self.model.config, bool(self.model.likelihood.exact)
        errors = np.array(self.errors or [0.0])
        return {
            "recipe": config.recipe,
            "weights": self.model.weights,
            "loglikelihoods": "exact" if exact else "lower bounds",
            "monte_carlo_error_nats": {"median": float(np.median(errors)), "largest": float(errors.max())},
            "contexts_cut": len(self.cut),
        }


def _stopped(text: str, stops: Sequence[str]) -> str:
    found = [at for stop in stops if stop and (at := text.find(stop)) >= 0]
    return text[: min(found, default=len(text))]


@cache
def register() -> type:
    """The class that the harness then knows as `textdiffusion`. Raises UserError without the extra.

    Its arguments (`--model_args`) are `pretrained`, a run's folder or hub id, and `weights`, `dtype`, `seed`,
    `target_error` and `draws` as in `TextDiffusion.score`, and `greedy`: false does without whether a continuation is
    the greedy one, which costs a sample each, and reports that none is.
    """
    try:
        base = importlib.import_module("lm_eval.api.model").LM
        registered = importlib.import_module("lm_eval.api.registry").register_model("textdiffusion")
    except ImportError:
        raise UserError("The lm-evaluation-harness is an extra: pip install 'textdiffusion[eval]'.") from None

    @registered
    class Harness(base):
        """A run, asked in the harness's words."""

        def __init__(
            self,
            pretrained: str,
            weights: Weights = "ema",
            dtype: DtypeName = "float32",
            seed: int = 0,
            target_error: float = 0.01,
            draws: int | None = None,
            greedy: bool = True,
            device: DeviceName | None = None,
            batch_size: int | str | None = None,
            max_batch_size: int | None = None,
        ) -> None:
            """The harness sends its batch sizes to every model; here memory decides on them."""
            super().__init__()
            run = TextDiffusion.from_pretrained(pretrained, weights=weights, device=device or "auto", dtype=dtype)
            self.answers = Answers(run, seed, target_error, draws, greedy)

        def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
            answers, pairs = self.answers, [request.args for request in requests]
            return [(answers.log_likelihood(text, before), answers.is_greedy(text, before)) for before, text in pairs]

        def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
            return [self.answers.log_likelihood(*request.args) for request in requests]

        def generate_until(self, requests: list[Any]) -> list[str]:
            return self.answers.continued([_asked(*request.args) for request in requests])

        def get_model_info(self) -> dict[str, Any]:
            if cut := len(self.answers.cut):
                sys.stderr.write(f"Of {cut} contexts, longer than there was room for, only the end was given.\n")
            return self.answers.about()

    return Harness


def _asked(context: str, options: dict[str, Any]) -> Asked:
    """A request to continue. Raises UserError for options that a run does not have."""
    unknown = set(options) - {"until", "max_gen_toks", "do_sample", "temperature", "top_k", "top_p"}
    if unknown:
        raise UserError(f"The task asks to generate with {', '.join(sorted(unknown))}, which runs do not have.")
    stops = options.get("until") or ()
    sampled = options.get("do_sample", "temperature" in options)
    temperature = options.get("temperature", 1.0) if sampled else 0.0
    stops = (stops,) if isinstance(stops, str) else tuple(stops)
    kept = options.get("top_k") or 0, options.get("top_p") or 1.0
    return Asked(context, stops, options.get("max_gen_toks"), temperature or COLD, *kept)


def main() -> None:
    """The harness's own command line, with runs among its models."""
    try:
        register()
        importlib.import_module("lm_eval.__main__").cli_evaluate()
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(2)


if __name__ == "__main__":
    main()
