"""The masked bound and the left-to-right likelihood are at least the true one, and equal it with the ideal denoiser."""

import numpy as np
import pytest
import torch

from textdiffusion.core.batch import Batch
from textdiffusion.core.randomness import Rng
from textdiffusion.diffusion.alpha_schedules import CosineAlpha, Linear, LogLinear
from textdiffusion.diffusion.autoregressive import AutoregressiveProcess
from textdiffusion.diffusion.codecs import TokenCodec
from textdiffusion.objectives.masked import MaskedELBO, MaskedLikelihood
from textdiffusion.objectives.next_token import NextToken, NextTokenLikelihood

from .language import ChainDenoiser, WrongDenoiser, assemble, ideal_masked
from .texts import (
    LANGUAGE,
    LAW,
    LAYOUTS,
    POSSIBLE,
    TEXTS,
    Timeless,
    batch_of,
    by_orders,
    mask_of,
    nats_of,
    on_average,
)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_masked_likelihood_with_the_ideal_denoiser_is_the_truth(layout):
    mean, error, truth = nats_of(MaskedLikelihood(), ideal_masked(LANGUAGE, Linear()), layout)
    assert bool(((mean - truth).abs() < 5 * error + 1e-4).all())
    average, spread = on_average(mean - truth, error)
    assert abs(average) < 4 * spread + 1e-4
    assert spread < 0.01


@pytest.mark.parametrize("layout", LAYOUTS)
def test_masked_bounds_of_a_wrong_denoiser_lie_above_the_truth(layout):
    model = ideal_masked(LANGUAGE, CosineAlpha())
    model.denoiser = WrongDenoiser(LANGUAGE)
    mean, error, truth = nats_of(MaskedLikelihood(), model, layout, repeats=50)
    average, spread = on_average(mean - truth, error)
    assert average > 4 * spread


@pytest.mark.parametrize("schedule", [Linear(), LogLinear(1e-3), CosineAlpha()], ids=repr)
def test_masked_bound_does_not_depend_on_the_schedule(schedule):
    """Uncut it is the exact-k bound in expectation, for any denoiser; eps = 1e-3 leaves out a thousandth."""
    wrong = ideal_masked(LANGUAGE, schedule)
    wrong.denoiser = Timeless(LANGUAGE)
    exact = torch.tensor([by_orders(wrong, text, ~mask_of()) for text in TEXTS], dtype=torch.float64)
    truth = LANGUAGE.nll()[POSSIBLE]
    assert float(LAW @ (exact - truth)) > 0.1  # wrong indeed
    mean, error, _ = nats_of(MaskedLikelihood(), wrong)
    assert bool(((mean - exact).abs() < 5 * error).all())
    batch, _ = batch_of("plain", 4000)
    # The objective's mean over rows, with rows weighted by the law through a batch drawn from it.
    drawn = TEXTS[Rng.of(5, len(batch.tokens)).categorical(LAW.float().expand(len(batch.tokens), -1))]
    with torch.no_grad():
        loss = MaskedELBO(0.0)(wrong, Batch(drawn), rng=Rng.of(1, len(drawn)))
    assert float(loss.total) * 3 == pytest.approx(float(LAW @ exact), abs=0.03)
    assert float(loss.parts["bound"]) == float(loss.total)


def test_cutting_the_weight_changes_the_loss_and_not_the_reported_bound():
    model = ideal_masked(LANGUAGE, Linear())
    batch, _ = batch_of("plain", 200)
    free, cut = (MaskedELBO(w)(model, batch, rng=Rng.of(0, len(batch.tokens))) for w in (0.0, 3.0))
    assert float(free.parts["bound"]) == float(cut.parts["bound"]) == float(free.total)
    assert float(cut.total) < float(free.total)


def test_next_token_likelihood_is_exact():
    model = ideal_masked(LANGUAGE, Linear())
    model.denoiser = ChainDenoiser(LANGUAGE)
    for layout in ("plain", "given first", "padded", "given and padded"):
        batch, truth = batch_of(layout, 1)
        nats = NextTokenLikelihood()(model, batch, rng=Rng.of(0, len(batch.tokens)))
        torch.testing.assert_close(nats.double(), truth, atol=1e-5, rtol=1e-5)
    batch, truth = batch_of("plain", 1)
    loss = NextToken()(model, batch, rng=Rng.of(0, len(batch.tokens)))
    assert float(loss.total) == pytest.approx(float(truth.mean()) / 3, abs=1e-5)


@pytest.mark.parametrize("layout", ["given first", "given ends"])
def test_next_token_likelihood_given_tokens_is_that_of_a_law_of_the_others(layout):
    """Its total over what may stand in the gaps is 1, whatever is given."""
    model = assemble(TokenCodec(3), AutoregressiveProcess(3), WrongDenoiser(LANGUAGE, causal=True))
    given = LAYOUTS[layout][0]
    assert given is not None
    nats = NextTokenLikelihood()(
        model, Batch(LANGUAGE.ids, condition_mask=given.expand(LANGUAGE.ids.shape)), rng=Rng.of(0, len(LANGUAGE.ids))
    )
    total = torch.exp(-nats.double()).sum()
    assert float(total) == pytest.approx(3.0 ** int(given.sum()), abs=1e-5)


def test_exact_mask_counts_vary_less_than_drawn_masks():
    model = ideal_masked(LANGUAGE, Linear())
    batch, _ = batch_of("plain", 8)
    nats = []
    for seed in range(100):
        rng = Rng.of(seed, len(batch.tokens))
        exactly = float(MaskedLikelihood()(model, batch, rng=rng).mean())
        nats.append((exactly, 3 * float(MaskedELBO(0.0)(model, batch, rng=rng).parts["bound"])))
    exactly, drawn = np.array(nats).T
    assert exactly.mean() == pytest.approx(drawn.mean(), abs=4 * drawn.std() / 10)
    assert exactly.std() < 0.6 * drawn.std()


def test_next_token_likelihood_of_any_denoiser_is_normalised():
    """So by Gibbs' inequality it is above the truth on average."""
    model = assemble(TokenCodec(3), AutoregressiveProcess(3), WrongDenoiser(LANGUAGE, causal=True))
    nats = NextTokenLikelihood()(model, Batch(LANGUAGE.ids), rng=Rng.of(0, len(LANGUAGE.ids)))
    assert float(torch.exp(-nats.double()).sum()) == pytest.approx(1.0, abs=1e-5)
    assert float(LANGUAGE.law.double() @ nats.double()) > LANGUAGE.entropy
