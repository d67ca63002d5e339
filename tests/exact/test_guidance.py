"""Guidance by an exact classifier: Bayes' rule at weight 1, more of it at a greater weight, the other way below 0."""

import pytest
import torch
import torch.nn.functional as F

from textdiffusion.core.batch import Batch
from textdiffusion.core.randomness import Rng
from textdiffusion.diffusion.absorbing import AbsorbingProcess
from textdiffusion.diffusion.alpha_schedules import CosineAlpha, Linear
from textdiffusion.guidance.classifier import ClassifierGradient, DiscreteClassifier, EnergyGradient, PlugAndPlay
from textdiffusion.samplers.ancestral import Ancestral
from textdiffusion.samplers.base import Request
from textdiffusion.samplers.ddim import DDIM

from .language import IdealDenoiser, Language, ideal_gaussian, ideal_masked, ideal_uniform, last, tables

LANGUAGE = Language.random(vocab_size=3, length=3)
CHANCE = torch.rand(len(LANGUAGE.ids), generator=torch.Generator().manual_seed(5)) ** 2  # p(label | text)
GIVEN_LABEL = Language(3, 3, LANGUAGE.ids, LANGUAGE.law * CHANCE / (LANGUAGE.law * CHANCE).sum())
CODEC = tables(3)["embeddings"]
MODELS = {
    "absorbing": ideal_masked(LANGUAGE, Linear()),
    "uniform": ideal_uniform(LANGUAGE, CosineAlpha()),
    "Gaussian": ideal_gaussian(LANGUAGE, CODEC),
}


def exact(model):
    """log p(label | x_t) by enumeration; of soft ids its multilinear continuation."""

    def judge(xt, t, batch):
        if model.denoiser.table is not None:
            likely = model.denoiser.evidence(xt, t)
        else:
            weights = F.one_hot(xt, 4).float() if xt.ndim == 2 else xt
            states = model.process.vocab_size + isinstance(model.process, AbsorbingProcess)
            each = [
                model.process.log_likelihood(
                    torch.full(weights.shape[:2], state), torch.full(weights.shape[:2], token), t
                )
                for state in range(states)
                for token in range(3)
            ]
            table = torch.stack(each, dim=-1).exp().unflatten(-1, (states, 3))
            likely = torch.einsum("bls,blsv->blv", weights[..., :states], table).clamp(min=1e-30).log()
        at = LANGUAGE.ids.T[None].expand(len(likely), -1, -1)
        joint = (likely.gather(-1, at).sum(1) + torch.log(LANGUAGE.law)).double()
        return ((joint + CHANCE.double().log()).logsumexp(-1) - joint.logsumexp(-1)).float()

    return judge


def reader(probs, batch):
    """log p(label | a text whose tokens are drawn independently)."""
    at = LANGUAGE.ids.T[None].expand(len(probs), -1, -1)
    return (probs.gather(-1, at).prod(1) @ CHANCE).clamp(min=1e-12).log()


GUIDES = {
    "gradient": ("Gaussian", lambda judge, process, w: ClassifierGradient(judge, process, w)),
    "energy": ("Gaussian", lambda judge, process, w: EnergyGradient(judge, process, 0.03 * w, CODEC.scale)),
    "tokens, absorbing": ("absorbing", lambda judge, process, w: DiscreteClassifier(judge, process, w, exact=3)),
    "tokens, uniform": ("uniform", lambda judge, process, w: DiscreteClassifier(judge, process, w, exact=3)),
    "first order, absorbing": ("absorbing", lambda judge, process, w: DiscreteClassifier(judge, process, w)),
    "first order, uniform": ("uniform", lambda judge, process, w: DiscreteClassifier(judge, process, w)),
    "prediction, absorbing": ("absorbing", lambda judge, process, w: PlugAndPlay(reader, process, w)),
    "prediction, Gaussian": ("Gaussian", lambda judge, process, w: PlugAndPlay(reader, process, w)),
}


def guide(name, weight):
    kind, made = GUIDES[name]
    model = MODELS[kind]
    return model, made(exact(model), model.process, weight)


@pytest.mark.parametrize("name", ["gradient", "tokens, absorbing", "tokens, uniform"])
def test_at_weight_one_the_prediction_is_bayes_rule(name):
    model, made = guide(name, 1.0)
    ids = LANGUAGE.ids[LANGUAGE.law > 0]
    rows = len(ids)
    batch = Batch(ids, row_ids=torch.arange(rows))
    t = torch.linspace(0.35 if name == "gradient" else 0.1, 0.9, rows)
    xt = model.process.add_noise(model.codec.encode(ids), t, rng=Rng.of(0, rows))
    with torch.no_grad():
        said = made.wrap(model.denoiser, Request(batch, 1))(xt, t, batch=batch)
        bayes = IdealDenoiser(GIVEN_LABEL, model.process, model.denoiser.table)(xt, t, batch=batch)
        plain = model.denoiser(xt, t, batch=batch)
    if name == "gradient":
        torch.testing.assert_close(said.mean, bayes.mean, atol=2e-3, rtol=0.0)
        assert float((plain.mean - bayes.mean).abs().max()) > 0.2
    else:
        where = model.process.is_noisy(xt)
        torch.testing.assert_close(said.probs[where], bayes.probs[where], atol=1e-4, rtol=0.0)
        assert float((plain.probs - bayes.probs)[where].abs().max()) > 0.1


def law(name, weight, draws=1000, steps=12):
    model, made = guide(name, weight)
    sampler = DDIM(eta=1.0) if GUIDES[name][0] == "Gaussian" else Ancestral()
    with torch.no_grad():
        return last(sampler(model, Request.blank(draws, 3, steps, (made,)), rng=Rng.of(1, draws))).tokens


@pytest.mark.parametrize("name", GUIDES)
def test_success_grows_with_the_weight(name):
    weights = (-1.0, 0.0, 1.0, 3.0)
    found = [CHANCE[LANGUAGE.number(law(name, weight))] for weight in weights]
    success, errors = [float(x.mean()) for x in found], [float(x.std()) / len(x) ** 0.5 for x in found]
    for i in range(3):
        assert success[i + 1] > success[i] - 2.0 * (errors[i] ** 2 + errors[i + 1] ** 2) ** 0.5, success
    assert success[0] < success[1] - 0.02
    assert success[-1] > success[1] + 0.05


@pytest.mark.parametrize("name", ["gradient", "tokens, absorbing", "tokens, uniform"])
def test_at_weight_one_texts_follow_the_law_given_the_label(name):
    ids = law(name, 1.0, draws=3000, steps=24)
    assert GIVEN_LABEL.distance(ids) < 0.05 + GIVEN_LABEL.floor(3000)
    assert LANGUAGE.distance(ids) > 0.15
