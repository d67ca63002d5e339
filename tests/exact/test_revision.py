"""Revising with an ideal denoiser: a text of the language stays in it, and leaves as the theory says."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from textdiffusion.core.batch import Batch
from textdiffusion.core.randomness import Rng
from textdiffusion.diffusion.absorbing import AbsorbingProcess
from textdiffusion.diffusion.model import DiffusionModel
from textdiffusion.inference.revision import Draft, random_positions
from textdiffusion.samplers.ancestral import Ancestral, Euler, Tweedie
from textdiffusion.samplers.autoregressive import Autoregressive
from textdiffusion.samplers.base import Request, Sampler
from textdiffusion.samplers.ddim import DDIM
from textdiffusion.samplers.dpm_solver import DPMSolver
from textdiffusion.scoring.leave_one_out import HIDES_EVERYWHERE, token_log_probs

from .convergence import LANGUAGE, ideal_models
from .language import last

DRAWS = 2000
MODELS = ideal_models()


def samplers(model: DiffusionModel) -> list[type[Sampler]]:
    return [kind for kind in Sampler.choices().values() if isinstance(model.process, kind.processes)]


MIDWAY = [
    pytest.param(model, kind, id=f"{name}, {kind.kind}")
    for name, model in MODELS.items()
    for kind in samplers(model)
    if kind.supports_t_start
]
GIVEN = [
    pytest.param(model, kind, id=f"{name}, {kind.kind}")
    for name, model in MODELS.items()
    if not isinstance(model.process, HIDES_EVERYWHERE)
    for kind in samplers(model)
    if kind.converges and not (kind is Autoregressive and model.process.bidirectional)  # it ignores what follows a gap
]


def texts_of_the_language(num: int) -> Tensor:
    return LANGUAGE.texts[Rng.of(7, num).categorical(LANGUAGE.probs.expand(num, -1))]


def revised_midway(model: DiffusionModel, sampler: Sampler, texts: Tensor, t: float, steps: int = 30) -> Tensor:
    request = Request(Batch(texts), steps, t_start=t)
    with torch.no_grad():
        steps_ = list(sampler(model, request, rng=Rng.of(0, len(texts))))
    assert steps_[0].t == pytest.approx(t)
    assert steps_[-1].t == 0.0
    assert all(a.t >= b.t for a, b in pairwise(steps_))
    return steps_[-1].tokens


def law_after(model: DiffusionModel, text: Tensor, t: float, copies: int = 4000) -> Tensor:
    """The distribution of texts drawn from p(x_0 | x_t), x_t from q(x_t | text): Bayes' rule, no sampler."""
    batch = Batch(text.expand(copies, -1))
    level = torch.full((copies,), t)
    noisy = model.process.add_noise(model.codec.encode(batch.tokens), level, rng=Rng.of(5, copies))
    return model.denoiser.joint(noisy, level, batch).mean(0)


def counted(ids: Tensor) -> Tensor:
    return torch.bincount(LANGUAGE.number(ids), minlength=len(LANGUAGE.probs)) / len(ids)


@pytest.mark.parametrize(("model", "kind"), MIDWAY)
def test_from_a_noise_level_texts_of_the_language_stay_in_it(model: DiffusionModel, kind: type[Sampler]):
    texts = texts_of_the_language(DRAWS)
    revised = revised_midway(model, kind(), texts, 0.5)
    assert LANGUAGE.distance(revised) < 0.05 + LANGUAGE.floor(DRAWS)
    assert 0.02 < float((revised != texts).any(-1).float().mean()) < 0.98


@pytest.mark.parametrize(
    ("name", "sampler"),
    [
        *(
            pytest.param(name, sampler)
            for name in ("masked", "uniform")
            for sampler in (Ancestral(), Euler(), Tweedie())
        ),
        *(pytest.param("Gaussian", sampler) for sampler in (DDIM(eta=1.0), DPMSolver(eta=1.0))),
    ],
    ids=str,
)
def test_from_a_noise_level_a_text_becomes_another_by_bayes_rule(name: str, sampler: Sampler):
    """Where the reverse process is that of the noise: others couple x_t and x_0 in ways of their own."""
    model, t = MODELS[name], 0.4
    text = LANGUAGE.texts[LANGUAGE.probs.masked_fill(LANGUAGE.probs == 0, 1.0).argmin()]  # rare: a wrong level shows
    revised = revised_midway(model, sampler, text.expand(DRAWS, -1), t)
    expected = law_after(model, text, t).float()
    floor = float(torch.sqrt(expected * (1 - expected) / DRAWS).sum() * 0.4)
    assert float((counted(revised) - expected).abs().sum() / 2) < 0.04 + floor


@pytest.mark.parametrize(("model", "kind"), GIVEN)
def test_with_random_positions_texts_of_the_language_stay_in_it(model: DiffusionModel, kind: type[Sampler]):
    texts = texts_of_the_language(DRAWS)
    draft = Draft(Batch(texts, row_ids=torch.arange(DRAWS)), ((),) * DRAWS)
    batch = draft.keeping(random_positions(model, draft.batch, 0.5, 3)).batch
    steps = 30 if kind().steps else LANGUAGE.length
    with torch.no_grad():
        revised = last(kind()(model, Request(batch, steps), rng=Rng.of(1, DRAWS))).tokens
    assert LANGUAGE.distance(revised) < 0.05 + LANGUAGE.floor(DRAWS)
    changed = float((revised != texts).any(-1).float().mean())
    assert 0.02 < changed < 0.98
    assert torch.equal(revised[batch.condition_mask], texts[batch.condition_mask])


@pytest.mark.parametrize("name", MODELS)
def test_leave_one_out_probabilities_are_those_of_the_language(name: str):
    """Exact under masks; under other noise the text is seen through the noise of the other positions."""
    model, texts = MODELS[name], LANGUAGE.texts[LANGUAGE.probs > 0]
    found = token_log_probs(model, Batch(texts, row_ids=torch.arange(len(texts))))
    positions = torch.arange(LANGUAGE.length)
    exact = torch.empty_like(found)
    for i in range(LANGUAGE.length):
        seen = positions != i if model.process.bidirectional else positions < i
        exact[:, i] = -LANGUAGE.nll(known=seen, seen=positions == i)[LANGUAGE.probs > 0].float()
    if isinstance(model.process, AbsorbingProcess) or name == "left to right":
        assert torch.allclose(found, exact, atol=1e-4)
    elif isinstance(model.process, HIDES_EVERYWHERE):
        assert torch.corrcoef(torch.stack((found.flatten(), exact.flatten())))[0, 1] > 0.7
