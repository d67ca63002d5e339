"""Samplers of tokens that correct themselves, and first hitting: what law each keeps."""

from itertools import pairwise, product

import numpy as np
import pytest
import torch

from textdiffusion.core.batch import Batch
from textdiffusion.core.errors import UserError
from textdiffusion.core.randomness import Rng
from textdiffusion.diffusion.absorbing import AbsorbingProcess
from textdiffusion.diffusion.alpha_schedules import CosineAlpha, Linear
from textdiffusion.diffusion.codecs import TokenCodec
from textdiffusion.samplers.ancestral import Ancestral
from textdiffusion.samplers.base import Request
from textdiffusion.samplers.correctors import Gibbs, PredictorCorrector
from textdiffusion.samplers.first_hitting import FirstHitting
from textdiffusion.samplers.remasking import Cap, Confidence, Loop, PathPlanning, ReMDM, Rescale

from .convergence import LANGUAGE
from .language import Language, WrongDenoiser, assemble, ideal_masked, ideal_uniform

DRAWS = 4000
MASKED = ideal_masked(LANGUAGE, CosineAlpha())
UNIFORM = ideal_uniform(LANGUAGE, Linear())


def _run(sampler, steps, model=MASKED, draws=DRAWS, batch=None):
    batch = Batch(torch.zeros(draws, LANGUAGE.length, dtype=torch.long)) if batch is None else batch
    with torch.no_grad():
        return list(sampler(model, Request(batch, steps), rng=Rng.of(1, draws)))


def _over_floor(steps):
    return LANGUAGE.distance(steps[-1].tokens) / LANGUAGE.floor(len(steps[-1].tokens))


REMASKING = [
    ReMDM(rule=Cap(), eta=0.3),
    ReMDM(rule=Rescale(), eta=0.3),
    ReMDM(rule=Loop(), eta=0.1),
    ReMDM(rule=Confidence(), eta=0.3),
]


@pytest.mark.parametrize(
    "sampler", [*REMASKING, PredictorCorrector(kappa=0.5)], ids=lambda s: s.rule.kind if isinstance(s, ReMDM) else "psi"
)
def test_the_share_of_masks_is_that_of_the_process_at_every_step(sampler):
    for step in _run(sampler, 9):
        share = float(MASKED.process.schedule.mask_prob(torch.tensor(step.t)))
        assert float((step.tokens == 3).float().mean()) == pytest.approx(
            share, abs=4 * (share / DRAWS / 3) ** 0.5 + 1e-6
        )


@pytest.mark.parametrize(
    ("model", "sampler"),
    [
        (MASKED, ReMDM(rule=Loop(), eta=0.02)),
        (UNIFORM, PredictorCorrector(kappa=0.98)),
    ],
    ids=["loop", "psi, uniform"],
)
def test_many_steps_reach_the_law_of_the_data(model, sampler):
    """But for what is drawn together: at 0.3, or kappa 0.3, they stay at 4 times the floor and more."""
    assert _over_floor(_run(sampler, 60, model)) < 2.0


def test_tokens_are_taken_back_and_calls_are_those_of_rows_that_changed():
    steps = _run(ReMDM(rule=Loop(), eta=0.1), 40)
    back = [bool(((a.tokens < 3) & (b.tokens == 3)).any()) for a, b in pairwise(steps)]
    held = [a.t == b.t for a, b in pairwise(steps)]
    assert back == held
    assert sum(held) == 20
    assert 3.0 < steps[-1].nfe < 12.0


def test_gibbs_keeps_the_law_of_the_process_and_finds_it():
    """From pure noise, 40 calls at a fixed t, against q(x_t) by enumeration."""
    t, process = torch.full((DRAWS,), 0.5), UNIFORM.process
    x = process.sample_prior(torch.zeros(DRAWS, 3, dtype=torch.long), rng=Rng.of(7, DRAWS))
    kernel = torch.stack(
        [process.log_likelihood(LANGUAGE.ids, ids.expand(27, 3), t[:27]).sum(-1).exp() for ids in LANGUAGE.ids]
    )
    noisy = Language(3, 3, LANGUAGE.ids, LANGUAGE.law @ kernel)
    batch = Batch(torch.zeros_like(x))
    for i in range(40):
        x = Gibbs().correct(process, UNIFORM.denoiser, x, t, batch=batch, rng=Rng.of(2, DRAWS).fork(i))
        if i == 0:
            assert noisy.distance(x) > 5.0 * noisy.floor(DRAWS)
    assert noisy.distance(x) < 1.5 * noisy.floor(DRAWS)


def test_gibbs_corrections_repair_what_few_steps_lose():
    plain, corrected = _run(Ancestral(), 6, UNIFORM), _run(Gibbs(corrections=6), 6, UNIFORM)
    assert _over_floor(corrected) < 0.75 * _over_floor(plain)
    assert corrected[-1].nfe == 6 + 5 * 6


def test_planning_keeps_as_many_as_the_process_and_takes_back_the_doubtful():
    for eta in (0.0, 1.0):
        steps = _run(PathPlanning(eta=eta), 12, draws=500)
        for step in steps:
            kept = round(3 * float(MASKED.process.schedule.alpha(torch.tensor(step.t))))
            assert bool(((step.tokens < 3).sum(-1) == kept).all())
        back = [bool(((a.tokens < 3) & (a.tokens != b.tokens)).any()) for a, b in pairwise(steps)]
        assert any(back) == (eta > 0.0)


def test_given_places_are_kept_and_take_no_part():
    given = torch.tensor([False, True, False]).expand(400, 3)
    batch = Batch(torch.full((400, 3), 2), condition_mask=given)
    samplers = (*REMASKING, PathPlanning(eta=2.0), PredictorCorrector(kappa=0.5), FirstHitting())
    for sampler, model in (*((s, MASKED) for s in samplers), (Gibbs(corrections=2, positions=2), UNIFORM)):
        for step in _run(sampler, 12, model, 400, batch):
            assert bool((step.tokens[:, 1] == 2).all())
            assert bool((step.confidence[:, 1] == 1.0).all())
        assert bool((step.tokens < 3).all())


def _first_hitting_law(language, process, denoiser):
    """Of two tokens, in one row: the first falls at share(t_1) = u^(1/2), the second at share(t_2) = share(t_1) v."""
    nodes, weights = np.polynomial.legendre.leggauss(24)
    nodes, weights = torch.tensor(nodes * 0.5 + 0.5).float(), torch.tensor(weights * 0.5).float()
    u, v = torch.meshgrid(nodes, nodes, indexing="ij")
    weight = (weights[:, None] * weights).flatten()
    share = u.flatten().sqrt()
    early, late = process.schedule.time(1.0 - share), process.schedule.time(1.0 - share * v.flatten())
    law = torch.zeros(len(language.ids))
    for first, token in product(range(2), range(language.vocab_size)):
        x = torch.full((len(weight), 2), process.mask)
        one = denoiser(x, early, batch=Batch(x)).probs[:, first, token]
        x = x.index_fill(1, torch.tensor(first), token)
        other = denoiser(x, late, batch=Batch(x)).probs[:, 1 - first]
        joint = 0.5 * (weight * one) @ other
        keep = language.ids[:, first] == token
        law = law.index_add(0, keep.nonzero()[:, 0], joint)
    return law


def test_first_hitting_in_a_batch_has_the_law_of_one_row():
    """Under a denoiser that is wrong and looks at the time, by quadrature over the two times."""
    language, draws = Language.random(3, 2), 40_000
    process, denoiser = AbsorbingProcess(3, CosineAlpha()), WrongDenoiser(language)
    model = assemble(TokenCodec(3), process, denoiser)
    law = _first_hitting_law(language, process, denoiser)
    assert float(law.sum()) == pytest.approx(1.0, abs=1e-4)
    expected = Language(3, 2, language.ids, law)
    request = Request.blank(draws, 2, 2)
    made = list(FirstHitting()(model, request, rng=Rng.of(0, draws)))
    assert expected.distance(made[-1].tokens) < 1.5 * expected.floor(draws)
    assert [int((step.tokens < 3).sum()) for step in made] == [0, draws, 2 * draws]
    alone = list(FirstHitting()(model, Request.blank(1, 2, 2), rng=Rng.of(0, torch.tensor([3]))))
    assert torch.equal(alone[-1].tokens[0], made[-1].tokens[3])


def test_first_hitting_is_exact_and_wants_a_step_per_token():
    assert _over_floor(_run(FirstHitting(), 3, draws=8000)) < 1.6
    with pytest.raises(UserError, match="2 steps for 3 tokens"):
        _run(FirstHitting(), 2)
