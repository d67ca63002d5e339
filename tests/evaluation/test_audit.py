"""Losses beside the entropy: the package's bounds pass, and what is not a bound is found."""

import math
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from textdiffusion.config.discovery import import_parts
from textdiffusion.core.errors import UserError
from textdiffusion.diffusion.absorbing import AbsorbingProcess
from textdiffusion.evaluation.audit import LANGUAGES, Comparison, audit
from textdiffusion.evaluation.known_language import KnownLanguage
from textdiffusion.objectives.base import Likelihood, Objective
from textdiffusion.objectives.discrete import DiscreteELBO, Duality
from textdiffusion.objectives.embedding_losses import ScoreInterpolation
from textdiffusion.objectives.masked import MaskedELBO, MaskedLikelihood
from textdiffusion.samplers.order_likelihood import OrderLikelihood

import_parts()
BITS, CORRELATED = ({name: LANGUAGES[name]} for name in ("two equal bits", "correlated"))


@pytest.mark.parametrize("name", Likelihood.choices())
def test_every_likelihood_of_the_package_passes(name: str):
    result = audit(Likelihood.choices()[name](), languages=CORRELATED, rows=100)
    assert result.quantities == ["likelihood"]
    assert result.is_bound(), result.verdict("likelihood")
    assert result.verdict("likelihood") == f"{name} is nowhere below the entropy."


def test_the_likelihood_of_an_order_passes_and_is_the_entropy():
    result = audit(OrderLikelihood(order="entropy", per_step=1), languages=BITS, rows=20)
    assert result.is_bound()
    ideal = [each.excess for each in result.comparisons if each.denoiser == "ideal"]
    assert ideal == pytest.approx([0.0] * len(ideal), abs=1e-5)


@dataclass(frozen=True)
class SubTokens:
    """One token whose sub-tokens are masked one by one; `joint` sums what the masked ones cost together.

    With k of n masked the bound weighs the sum of the costs of each alone by n / k. MDM-Prime's likelihood has the
    cost of all together in its place.
    """

    joint: bool
    processes = (AbsorbingProcess,)

    def __call__(self, model, batch, *, rng):
        target, rows = batch.target_mask, torch.arange(len(batch.tokens))
        n = target.sum(-1)
        k = (rng.fork("k").uniform() * n).floor() + 1
        masked = rng.fork("order").random_subset(target, k[:, None])
        xt, t, nats = torch.where(masked, model.process.mask, batch.tokens), torch.full((len(rows),), 0.5), 0.0
        for i in range(target.shape[1]):
            log_probs = model.denoiser(xt, t, batch=batch).logits.log_softmax(-1)
            nats = nats - torch.where(masked[:, i], log_probs[rows, i, batch.tokens[:, i]], 0.0)
            if self.joint:  # the next ones are predicted with this one known
                xt = torch.where(torch.arange(target.shape[1]) == i, batch.tokens, xt)
        return nats * n / k


def test_sums_of_joints_of_sub_tokens_are_not_a_bound():
    """Two equal bits: half a bit where the entropy is one."""
    result = audit(SubTokens(joint=True), languages=BITS | CORRELATED, rows=100)
    assert not result.is_bound()
    worst = {each.language: each for each in result.comparisons if each.given == "nothing" and each.denoiser == "ideal"}
    equal = worst["two equal bits"]
    assert equal.entropy == pytest.approx(1.0)
    assert equal.loss == pytest.approx(0.5, abs=5 * equal.error)
    assert equal.error < 0.03
    assert not any(each.holds for each in worst.values())
    assert "is not a bound: it says" in result.verdict("likelihood")
    assert audit(SubTokens(joint=False), languages=BITS, rows=100).is_bound()


def test_an_objective_is_audited_with_its_part_bound():
    """Clipped weights make a loss that trains better and is not a bound; the part `bound` is not clipped."""
    clipped = audit(MaskedELBO(max_weight=3.0), languages=CORRELATED, rows=200)
    assert clipped.quantities == ["loss", "bound"]
    assert not clipped.is_bound("loss")
    assert clipped.is_bound("bound")
    assert clipped.worst().quantity == "loss"
    assert clipped.verdict("loss").startswith("The loss of masked_elbo is not a bound: it says")
    assert audit(MaskedELBO(max_weight=0.0), languages=BITS, rows=200).is_bound()


@pytest.mark.parametrize("objective", [DiscreteELBO(steps=4), Duality(steps=0)], ids=repr)
def test_discrete_bounds_pass(objective: Objective):
    assert audit(objective, languages=BITS, rows=100).is_bound()


def test_cross_entropy_averaged_over_noise_levels_is_not_a_bound():
    result = audit(ScoreInterpolation(), languages={"even": LANGUAGES["even"]}, rows=50)
    assert not result.is_bound()
    assert result.worst().process == "Gaussian"


def _nothing(model, batch, *, rng):
    return torch.zeros(len(batch.tokens))


def test_a_function_of_ones_own_is_audited_on_ones_own_language():
    language = KnownLanguage.of({(0, 1, 2): 3.0, (2, 1, 0): 1.0})
    result = audit(_nothing, processes=["uniform"], languages={"mine": language}, rows=10)
    entropy = 2.0 - 0.75 * math.log2(3)
    assert result.name == "_nothing"
    assert [(each.process, each.language) for each in result.comparisons] == [("uniform", "mine")] * 6
    assert result.worst().excess == pytest.approx(-entropy, abs=0.6)
    assert result.worst().entropy == pytest.approx(entropy, abs=1e-6)
    assert [each.holds for each in result.comparisons] == [False, True] * 3  # nothing is unknown after the first token


def test_nan_is_not_a_bound_and_infinity_is():
    assert not Comparison("likelihood", "masked", "even", "ideal", "nothing", 1.0, math.nan, 0.0).holds
    assert Comparison("likelihood", "masked", "even", "ideal", "nothing", 1.0, math.inf, 0.0).holds
    result = audit(lambda model, batch, rng: _nothing(model, batch, rng=rng) * torch.nan, processes=["masked"], rows=2)
    assert "not a number" in result.verdict("likelihood")


@pytest.mark.parametrize(
    ("loss", "options", "message"),
    [
        (_nothing, {}, "does not say which processes"),
        (_nothing, {"processes": ["gaussian"]}, "no process 'gaussian'; it can be masked"),
        (
            lambda model, batch, rng: torch.zeros(3, 2),
            {"processes": ["masked"]},
            r"shape \[3, 2\]; it must",
        ),
        (lambda model, batch, rng: 1.0, {"processes": ["masked"]}, "returned a float"),
        (MaskedLikelihood(), {"rows": 1}, "rows is 1"),
        (Duality(), {}, "'forward_soft', which ideal denoisers lack"),
    ],
)
def test_losses_that_cannot_be_audited_are_refused_in_a_sentence(loss, options, message):
    settings: dict[str, Any] = {"rows": 2, **options}
    with pytest.raises(UserError, match=message):
        audit(loss, **settings)


@pytest.mark.parametrize(
    ("probs", "message"),
    [
        ({(0,): 1.0, (0, 1): 1.0}, "one length"),
        ({(0, 1): 0.0}, "not all be 0"),
        ({(0, -1): 1.0}, "start at 0"),
        ({(9,) * 9: 1.0}, "may have 100,000"),
    ],
)
def test_languages_that_cannot_be_are_refused(probs, message):
    with pytest.raises(UserError, match=message):
        KnownLanguage.of(probs)
