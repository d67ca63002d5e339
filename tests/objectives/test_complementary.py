"""Complementary masks: every token is predicted once, and the bound is the same on average."""

import pytest
import torch

from tests.exact.language import assemble
from tests.exact.texts import LANGUAGE, TEXTS, Timeless, by_orders
from textdiffusion.core.batch import Batch
from textdiffusion.core.randomness import Rng
from textdiffusion.diffusion.absorbing import AbsorbingProcess
from textdiffusion.diffusion.alpha_schedules import CosineAlpha, Linear
from textdiffusion.diffusion.codecs import TokenCodec
from textdiffusion.objectives import MaskedELBO

ROWS = 4000


class Recording(Timeless):
    """Keeps what it was asked."""

    def forward(self, xt, t, *, batch, self_cond=None):
        self.asked = xt, t
        return super().forward(xt, t, batch=batch)


def _model(schedule):
    return assemble(TokenCodec(3), AbsorbingProcess(3, schedule), Recording(LANGUAGE))


@pytest.mark.parametrize("schedule", [Linear(), CosineAlpha()], ids=["linear", "cosine"])
def test_the_bound_is_that_of_all_orders(schedule):
    """Of one text, whatever the schedule."""
    model, text = _model(schedule), TEXTS[3]
    bounds = []
    for seed in range(12):
        batch = Batch(text.expand(ROWS, 3))
        loss = MaskedELBO(complementary=True)(model, batch, rng=Rng.of(seed, ROWS))
        bounds.append(float(loss.parts["bound"]) * 3)
    exact = by_orders(model, text, torch.ones(3, dtype=torch.bool))
    error = float(torch.tensor(bounds).std()) / len(bounds) ** 0.5
    assert float(torch.tensor(bounds).mean()) == pytest.approx(exact, abs=4 * error)
    assert error < 0.05 * exact


def test_every_target_is_masked_once_at_the_times_of_both():
    model, given = _model(CosineAlpha()), torch.tensor([True, False, False])
    batch = Batch(TEXTS[:6], condition_mask=given.expand(6, 3))
    MaskedELBO(complementary=True)(model, batch, rng=Rng.of(0, 6))
    xt, t = model.denoiser.asked
    masked = xt == 3
    assert torch.equal(masked[:6] ^ masked[6:], batch.target_mask)
    assert torch.equal(torch.where(masked, 0, xt), torch.where(masked, 0, TEXTS[:6].repeat(2, 1)))
    alpha = model.process.schedule.alpha(t)
    assert torch.allclose(alpha[:6] + alpha[6:], torch.ones(6), atol=1e-5)
