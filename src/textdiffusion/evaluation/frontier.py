"""What sampling costs and buys: the texts of a run under every sampler, number of steps and temperature."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

from ..api import TextDiffusion
from ..errors import UserError
from ..overrides import sampler_name
from .heldout import HeldOut, texts_in, training_corpus
from .kept import Kept

MOST = 5_000_000  # tokens of a text that samples are compared with

Say = Callable[[str], None]
RealText = tuple[str | list[str], str | list[str]]
"""Training and held-out text: running text, or lists of examples."""


@dataclass(frozen=True)
class Setting:
    """How text is written."""

    sampler: str
    steps: int
    temperature: float

    def __str__(self) -> str:
        return f"{self.sampler}, {self.steps} steps, T = {self.temperature:g}"


@dataclass(frozen=True)
class Written:
    """Texts of a run, with the network calls that each took and the precision of the network's features."""

    setting: Setting
    texts: tuple[str, ...]
    calls: float
    dtype: str


def settings(
    model: TextDiffusion, samplers: Sequence[str] = (), steps: Sequence[int] = (), temperatures: Sequence[float] = ()
) -> list[Setting]:
    """All combinations, the run's own sampler and steps at temperature 1 first.

    `samplers` are names, with settings as in one_step:eta=1 (none: the run's own). Numbers of steps that a sampler
    cannot make (left to right takes one a token) are left out; where that leaves none, it makes its own number. Raises
    UserError for samplers that cannot drive the run.
    """
    own = sampler_name(model.config.sampler)
    found = [Setting(own, _made(model, own, None), 1.0)]
    for name in samplers or [own]:
        usual = _made(model, name, None)
        counts = [count for count in steps if _takes(model, name, count)] or [usual]
        found += [Setting(name, *pair) for pair in product(counts, temperatures or [1.0])]
    return list(dict.fromkeys(found))


def _made(model: TextDiffusion, sampler: str, steps: int | None) -> int:
    """How many steps a sampler makes; the first one asks no network."""
    return next(model.stream(1, steps=steps, sampler=sampler)).total


def _takes(model: TextDiffusion, sampler: str, steps: int) -> bool:
    try:
        return bool(_made(model, sampler, steps))
    except UserError:
        return False


def written(model: TextDiffusion, kept: Kept, setting: Setting, num: int, *, seed: int = 0, say: Say) -> Written:
    """`num` texts under a setting, from what was kept if it was written before."""

    def make() -> dict:
        texts: list[str] = []
        calls = 0.0
        batch = model.blank(num)
        for part in model.parts(batch):
            last = None
            for last in model.stream(
                steps=setting.steps,
                seed=seed,
                temperature=setting.temperature,
                sampler=setting.sampler,
                batch=part,
            ):
                say(f"{setting}: {len(texts)} of {num} texts, step {last.index} of {last.total}")
            assert last is not None
            texts += model.texts(last, part)
            calls += last.calls * len(part.ids) / num
        return {"texts": texts, "calls": calls}

    facts = {**asdict(setting), "num": num, "length": model.config.text.length, "seed": seed, "dtype": model.dtype}
    found = kept.get("texts", facts, make)
    return Written(setting, tuple(found["texts"]), found["calls"], model.dtype)


def references(model: TextDiffusion, text: HeldOut, cache: Path) -> RealText:
    """The run's training text and the held-out one, as `sample_report` takes them.

    Raises UserError where the training text is not at hand.
    """
    shards = training_corpus(model, cache).train.shard, text.dataset.shard
    parts = [texts_in(shard.tokens[:MOST], model.tokenizer) for shard in shards]
    if model.config.text.layout == "stream":
        return "\n".join(parts[0]), "\n".join(parts[1])
    return parts[0], parts[1]
