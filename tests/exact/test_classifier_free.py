"""Guidance without a classifier, with ideal denoisers: its predictions are those of the noisy law p(c | x)^w p(x)."""

from dataclasses import replace

import pytest
import torch

from textdiffusion.core.batch import Batch
from textdiffusion.core.randomness import Rng
from textdiffusion.diffusion.alpha_schedules import LogLinear
from textdiffusion.guidance.cfg import ClassifierFree
from textdiffusion.samplers.base import Request

from .language import IdealDenoiser, Language, ideal_gaussian, ideal_masked, ideal_uniform, tables

LANGUAGE = Language.random(vocab_size=3, length=3)
CHANCES = torch.rand(27, generator=torch.Generator().manual_seed(1)).round() * 0.9 + 0.05  # of the first of two labels
LABELLED = [
    LANGUAGE,
    *(replace(LANGUAGE, probs=LANGUAGE.law * p / (LANGUAGE.law * p).sum()) for p in (CHANCES, 1 - CHANCES)),
]
MODELS = {
    "absorbing": lambda: ideal_masked(LANGUAGE, LogLinear()),
    "uniform": lambda: ideal_uniform(LANGUAGE, LogLinear()),
    "gaussian": lambda: ideal_gaussian(LANGUAGE, tables(3)["bits"]),
}
WEIGHTS = (0.0, 0.5, 1.0, 2.0, 4.0)


class Told:
    """The ideal denoiser of the language that each row's label says."""

    def __init__(self, ideal: IdealDenoiser) -> None:
        self.ideals = [IdealDenoiser(part, ideal.process, ideal.table) for part in LABELLED]
        self.time_independent, self.self_conditioning = False, False

    def __call__(self, xt, t, *, batch, self_cond=None):
        assert batch.labels is not None
        (label,) = batch.labels.unique().tolist()
        return self.ideals[label](xt, t, batch=batch)


def _guided(kind: str, weight: float, t: float, label: int = 1):
    """The model, noisy states of the language, and what the guide makes of its denoiser there."""
    model = MODELS[kind]()
    clean = LANGUAGE.ids[LANGUAGE.law > 0].repeat(2, 1)
    at, batch = torch.full((len(clean),), t), Batch(clean, labels=torch.full((len(clean),), label))
    xt = model.process.add_noise(model.codec.encode(clean), at, rng=Rng.of(0, len(clean)))
    denoiser = ClassifierFree(model, weight, 0).wrap(Told(model.denoiser), Request(batch, 1))
    return model, xt, at, denoiser(xt, at, batch=batch)


def _log_law(model, xt, t, label: int):
    """log p_t of states under the language of a label, up to a constant."""
    ideal = IdealDenoiser(LABELLED[label], model.process, model.denoiser.table)
    likely = ideal.evidence(xt, t).double()
    own = likely.gather(-1, LANGUAGE.ids.T[None].expand(len(xt), -1, -1)).sum(1)
    return (own + torch.log(LABELLED[label].law.double())).logsumexp(-1)


def _log_guided(model, xt, t, weight: float):
    """log of p_t(c | x)^w p_t(x), up to a constant."""
    return weight * _log_law(model, xt, t, 1) + (1.0 - weight) * _log_law(model, xt, t, 0)


@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("kind", ["absorbing", "uniform"])
def test_ratios_of_tokens_are_those_of_the_guided_law(kind: str, weight: float):
    model, xt, t, said = _guided(kind, weight, 0.6)
    ratios = said.log_score(model.process.graph, xt, t[:, None].expand(xt.shape))
    here, found = _log_guided(model, xt, t, weight), 0
    for i in range(3):
        changing = model.process.is_noisy(xt)[:, i]
        for token in range(3):
            there = xt.clone()
            there[:, i] = token
            truth = (_log_guided(model, there, t, weight) - here)[changing].float()
            possible = truth > -20.0  # where a language cannot be, a weight above 1 takes the difference of infinities
            torch.testing.assert_close(ratios[changing, i, token][possible], truth[possible], rtol=1e-3, atol=1e-3)
            found += int(possible.sum())
    assert found > 50


@pytest.mark.parametrize("weight", WEIGHTS)
def test_the_mean_of_states_is_that_of_the_guided_score(weight: float):
    model, xt, t, said = _guided("gaussian", weight, 0.4)
    at = xt.clone().double().requires_grad_()
    (score,) = torch.autograd.grad(_log_guided(model, at, t, weight).sum(), at)
    sigma = model.process.sigma_over(t, xt).double()
    torch.testing.assert_close(said.mean.double(), xt.double() + sigma**2 * score, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", MODELS)
def test_tokens_follow_the_geometric_law_and_a_wrong_label_moves_them_the_other_way(kind: str):
    model, xt, _, bare = _guided(kind, 0.0, 0.6)
    (_, _, _, right), (_, _, _, wrong) = _guided(kind, 1.0, 0.6, 1), _guided(kind, 1.0, 0.6, 2)
    law = bare.logits.log_softmax(-1)
    at = model.process.is_noisy(xt) if kind != "gaussian" else torch.ones(xt.shape[:2], dtype=torch.bool)
    for towards, way in ((right, 1), (wrong, -1)):
        moved = []
        for weight in WEIGHTS:
            said = _guided(kind, weight, 0.6, 1 if way == 1 else 2)[3]
            if kind != "uniform":  # whose law of clean tokens is not that of its noisy ones
                geometric = weight * towards.logits.log_softmax(-1) + (1.0 - weight) * law
                geometric = torch.where(law == -torch.inf, law, geometric).softmax(-1)
                torch.testing.assert_close(said.probs[at], geometric[at], rtol=1e-4, atol=1e-5)
            # log p(c | a token) - log p(c), whose mean under the tilted law cannot fall with the weight
            gain = torch.where(law > -20.0, right.logits.log_softmax(-1) - law, 0.0).clamp(min=-20.0)
            moved.append(float((said.probs * gain).sum(-1)[at].mean()))
        assert moved == sorted(moved, reverse=way == -1)
        assert abs(moved[-1] - moved[0]) > 0.1
