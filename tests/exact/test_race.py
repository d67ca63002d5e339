"""Rare tokens survive many steps: the decision to unmask is drawn apart from the token.

In one float32 race over the tokens and the mask together (MDLM's sampler) uniforms are multiples of 2^-24, so a token
whose odds against the mask are r wins only x / (e^x - 1) of its due, x = 2^-24 / r.
"""

import math

import pytest
import torch
from torch import nn

from textdiffusion.core.randomness import Rng
from textdiffusion.diffusion.absorbing import AbsorbingProcess
from textdiffusion.diffusion.alpha_schedules import Linear
from textdiffusion.diffusion.codecs import TokenCodec
from textdiffusion.diffusion.prediction import Prediction
from textdiffusion.samplers.ancestral import Ancestral
from textdiffusion.samplers.base import Request

from .language import assemble, last

RARE = 1e-5
LAW = torch.tensor([0.6 - RARE, 0.4, RARE])


class Independent(nn.Module):
    """Every token follows the same law, whatever stands around it."""

    time_independent, self_conditioning = True, False

    def __init__(self, law):
        super().__init__()
        self.law = law

    def forward(self, xt, t, *, batch, self_cond=None):
        return Prediction(torch.log(self.law).expand(*xt.shape, -1))


def _model(law):
    return assemble(TokenCodec(len(law)), AbsorbingProcess(len(law), Linear()), Independent(law))


def _lost(bits, odds):
    """The share of its due that a token keeps in one race of uniforms of so many bits."""
    x = 2.0**-bits / odds
    return x / math.expm1(x) if x < 700 else 0.0


def test_a_rare_token_is_drawn_at_its_rate():
    rows, length = 2000, 1500
    with torch.no_grad():
        ids = last(Ancestral()(_model(LAW), Request.blank(rows, length, 1), rng=Rng.of(0, rows))).tokens
    expected = RARE * rows * length
    assert abs(int((ids == 2).sum()) - expected) < 4 * expected**0.5


@pytest.mark.parametrize("steps", [100, 10_000])
def test_the_number_of_steps_has_no_say_in_which_token_is_drawn(steps):
    """A position that a short step reveals gets the very token that a full step would have drawn there.

    So a rare token has the rate of the test above among the positions revealed, at any number of steps.
    """
    rows, length = 1000, 500
    process, rng = AbsorbingProcess(3, Linear()), Rng.of(1, rows)
    x, t = torch.full((rows, length), 3), torch.ones(rows)
    prediction = Prediction(torch.log(LAW).expand(rows, length, 3))
    full = process.reverse(x, prediction, t, 0.0 * t, rng=rng)
    short = process.reverse(x, prediction, t, (1.0 - 1.0 / steps) * t, rng=rng)
    revealed = short != 3
    assert torch.equal(short[revealed], full[revealed])
    due = x.numel() / steps
    assert abs(int(revealed.sum()) - due) < 4 * due**0.5
    # Which positions are revealed does not depend on the token that waits there.
    common = (full == 0).float().mean()
    assert abs(float((short[revealed] == 0).float().mean() - common)) < 4 * 0.5 / due**0.5


def test_one_race_would_lose_it():
    assert _lost(24, RARE / 128) == pytest.approx(0.667, abs=0.01)
    assert _lost(24, RARE / 1000) < 0.02
    assert _lost(24, RARE / 5000) < 1e-10


def test_the_race_loses_what_the_formula_says():
    """A race of 8-bit uniforms, small enough to count, beside our two draws at the same odds."""
    draws, share, rare = 1_000_000, 0.02, 0.16
    odds = share * rare / (1.0 - share)
    token = -torch.log((Rng.of(3, 10).random_uint32(draws // 10) >> 24) / 2.0**8)
    mask = -torch.log(Rng.of(5, 10).uniform(draws // 10))
    won = float((odds * mask > token).float().mean())
    assert won / odds == pytest.approx(_lost(8, odds), abs=0.05)
    assert _lost(8, odds) < 0.6
    process, rng = AbsorbingProcess(2, Linear()), Rng.of(4, 1000)
    logits = torch.log(torch.tensor([1.0 - rare, rare])).expand(1000, 1000, 2)
    t = torch.ones(1000)
    xs = process.reverse(torch.full((1000, 1000), 2), Prediction(logits), t, t - share, rng=rng)
    assert float((xs == 1).float().mean()) / (share * rare) == pytest.approx(1.0, abs=0.08)


def test_entropy_does_not_fall_as_steps_grow():
    law = torch.tensor([0.9] + [1e-3] * 100)
    entropies = []
    for steps in (1, 16, 128):
        with torch.no_grad():
            ids = last(Ancestral()(_model(law), Request.blank(50, 100, steps), rng=Rng.of(steps, 50))).tokens
        counts = torch.bincount(ids.flatten(), minlength=101).double()
        entropies.append(float(torch.special.entr(counts / counts.sum()).sum()))
    assert max(entropies) - min(entropies) < 0.06  # two standard deviations of a sample of 5,000
