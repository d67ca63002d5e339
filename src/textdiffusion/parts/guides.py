"""What sampling can be steered by. A `weight` of inf, where it may be, means always."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ..core.errors import UserError
from .base import GuidePart, check_bounds

if TYPE_CHECKING:
    from ..guidance.patterns import Node
    from ..samplers.base import Guide, Run


def _matching(node: Node, name: str, weight: float, run: Run, place: int = 0) -> Guide:
    """The guide towards texts that match."""
    from ..guidance.automata import Automaton
    from ..guidance.constraints import HardConstraint, SoftConstraint

    if math.isnan(weight) or weight == -math.inf:
        raise UserError(f"A weight of {weight} is not allowed; it is nats that a match is made likelier by, or inf.")
    begins = run.tokenizer.end_id if run.config.text.source else None
    automaton = Automaton.of(node, run.tokenizer, place, begins=begins)
    return (
        HardConstraint(automaton, run.model.process, name)
        if weight == math.inf
        else SoftConstraint(automaton, run.model.process, weight)
    )


@dataclass(frozen=True)
class Word(GuidePart):
    """A word, or several in a row, somewhere in the text; or `at` a place, counted in tokens from 0.

    A finite `weight` makes texts that have it likelier instead: by that many nats.
    """

    text: str
    position: int = -1
    weight: float = math.inf

    def __post_init__(self) -> None:
        check_bounds(self, position=(-1, None))
        if not self.text.strip():
            raise UserError("word.text is empty; write it as word:text=pear.")

    def bind(self, run: Run) -> Guide:
        from ..guidance import patterns

        if self.position < 0:
            return _matching(patterns.word(self.text), f"word {self.text!r}", self.weight, run)
        spaced = patterns.either([patterns.EMPTY, patterns.literal(" ")])
        node = patterns.cat(spaced, patterns.literal(self.text), patterns.ended(self.text))
        return _matching(node, f"word {self.text!r} at {self.position}", self.weight, run, self.position)


@dataclass(frozen=True)
class Without(GuidePart):
    """Never a word, or several in a row; with a finite `weight` fewer texts that have it."""

    text: str
    weight: float = math.inf

    def __post_init__(self) -> None:
        if not self.text.strip():
            raise UserError("without.text is empty; write it as without:text=pear.")

    def bind(self, run: Run) -> Guide:
        from ..guidance import patterns

        node = patterns.inverse(patterns.word(self.text))
        return _matching(node, f"without {self.text!r}", self.weight, run)


@dataclass(frozen=True)
class Regex(GuidePart):
    """All of the text matches a regular expression; with a finite `weight` more texts do."""

    pattern: str
    weight: float = math.inf

    def bind(self, run: Run) -> Guide:
        from ..guidance import regex as regexes

        return _matching(regexes.parse(self.pattern), f"regex '{self.pattern}'", self.weight, run)


@dataclass(frozen=True)
class Classifier(GuidePart):
    """Towards a label of the classifier in the folder `path` (`textdiffusion train-classifier`); below 0 away from it.

    `weight` is the power of the label's probability. `through` the prediction asks the classifier about the clean text
    that is predicted, through the state about the noisy one. `exact`, for states of token ids: texts with one of so
    many likeliest tokens at a place are judged themselves, and others by a gradient, which is faster and says less.
    """

    path: str
    label: str
    weight: float = 1.0
    through: Literal["prediction", "state"] = "prediction"
    exact: int = 0

    def __post_init__(self) -> None:
        check_bounds(self, exact=(0, None))

    def bind(self, run: Run) -> Guide:
        from ..guidance.classifier import ClassifierGradient, DiscreteClassifier, PlugAndPlay
        from ..guidance.trained_classifier import load

        classifier, process = load(self.path, run), run.model.process
        if self.exact and (self.through == "prediction" or isinstance(process, ClassifierGradient.processes)):
            raise UserError("classifier.exact is for states of token ids with through=state; leave it out here.")
        if self.through == "prediction":
            return PlugAndPlay(classifier.reader(self.label), process, self.weight)
        if run.model.unadapted is not run.model:
            raise UserError(
                "This classifier hears noise on vectors, not masks: use through=prediction, or a sampler of that noise."
            )
        judge = classifier.judge(self.label)
        if isinstance(process, ClassifierGradient.processes):
            return ClassifierGradient(judge, process, self.weight)
        return DiscreteClassifier(judge, process, self.weight, self.exact)


@dataclass(frozen=True)
class Energy(GuidePart):
    """Steps on the state towards a label, that stay near where the model goes (Diffusion-LM); Gaussian processes.

    `weight` is the size of a step in root mean squares of the state; `fluency` what moving away costs.
    """

    path: str
    label: str
    weight: float = 0.1
    fluency: float = 0.01
    updates: int = 3

    def __post_init__(self) -> None:
        check_bounds(self, fluency=(0.0, None), updates=(1, None))

    def bind(self, run: Run) -> Guide:
        from ..diffusion.codecs import TableCodec
        from ..guidance.classifier import Energy as Built
        from ..guidance.trained_classifier import load

        judge = load(self.path, run).judge(self.label)
        model = run.model
        if not isinstance(model.codec, TableCodec):
            raise UserError("energy moves states that are vectors; here they are token ids: use classifier instead.")
        return Built(judge, model.process, self.weight, model.codec.scale, self.fluency, self.updates)


@dataclass(frozen=True)
class Repaint(GuidePart):
    """For infilling with runs that were trained without conditioning masks: each step is followed by `jumps` rounds in
    which noise of `length` steps is put on again and taken off."""

    n_resample: int = 5
    jump_length: int = 1

    def __post_init__(self) -> None:
        check_bounds(self, n_resample=(1, None), jump_length=(1, None))

    def bind(self, run: Run) -> Guide:
        from ..guidance.replacement import Replacement

        return Replacement(run.model, self.n_resample, self.jump_length)


@dataclass(frozen=True)
class Cfg(GuidePart):
    """Guidance without a classifier, towards the label, the source or the given text: `weight` 0 is without it, 1 is
    the run as it is, above 1 is more of it."""

    weight: float = 2.0

    def __post_init__(self) -> None:
        check_bounds(self, weight=(0.0, None))

    def bind(self, run: Run) -> Guide:
        from ..diffusion.absorbing import AbsorbingProcess
        from ..guidance.cfg import ClassifierFree

        text, model = run.config.text, run.model
        if text.condition_dropout and model.unadapted is not model:
            raise UserError(
                "cfg of a run trained with text.condition_dropout needs a sampler of its own noise: without the "
                "condition it was shown nothing but that."
            )
        unseen = isinstance(model.process, AbsorbingProcess) and not (text.source or text.label)
        fits = isinstance(model.process, ClassifierFree.processes)  # what does not is refused as such
        if fits and not (text.condition_dropout or unseen):
            raise UserError(
                "The guide cfg needs a run that has also learned to do without the condition: train with "
                "text.condition_dropout=0.1."
            )
        return ClassifierFree(model, self.weight, run.tokenizer.pad_id if text.condition_dropout else None)
