"""What guides do to predictions and states."""

import pytest
import torch

from textdiffusion.batch import Batch
from textdiffusion.codecs.table import TableCodec, bits
from textdiffusion.errors import UserError
from textdiffusion.guides.infill import GivenTokens
from textdiffusion.guides.temperature import Temperature
from textdiffusion.guides.tokens import Without
from textdiffusion.prediction import Prediction
from textdiffusion.processes.gaussian import GaussianProcess
from textdiffusion.processes.schedules import LogSigma
from textdiffusion.randomness import Rng

B, L, V = 4, 3, 5
LOGITS = torch.randn(B, L, V, generator=torch.Generator().manual_seed(0))
CODEC = TableCodec(bits(V))
PROCESS = GaussianProcess(LogSigma(0.1, 10.0))


class Fixed:
    """A denoiser that always says the same."""

    time_free = True
    self_conditioning = False

    def __call__(self, xt, t, *, batch, self_cond=None):
        return Prediction(LOGITS, CODEC.table())


def _said(*guides):
    denoiser = Fixed()
    for guide in guides:
        denoiser = guide.wrap(denoiser)
    assert denoiser.time_free
    return denoiser(torch.zeros(B, L, 3), torch.ones(B), batch=Batch(torch.zeros(B, L, dtype=torch.long)))


def test_temperature_sharpens_below_one_and_flattens_above():
    plain = Prediction(LOGITS, CODEC.table())
    same = _said(Temperature(1.0))
    torch.testing.assert_close(same.probs, plain.probs)
    torch.testing.assert_close(same.mean, plain.mean)
    torch.testing.assert_close(_said(Temperature(0.5)).probs, (2 * LOGITS).softmax(-1))
    entropies = [float(torch.special.entr(_said(Temperature(t)).probs).sum()) for t in (0.1, 0.5, 1.0, 2.0, 10.0)]
    assert entropies == sorted(entropies)
    torch.testing.assert_close(_said(Temperature(0.5), Temperature(2.0)).probs, plain.probs)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_temperatures_that_mean_nothing_are_refused(temperature):
    with pytest.raises(UserError, match="must be above 0"):
        Temperature(temperature)


def test_barred_tokens_have_probability_zero_and_the_rest_keep_their_ratios():
    probs, plain = _said(Without([1, 4])).probs, LOGITS.softmax(-1)
    assert bool((probs[..., [1, 4]] == 0).all())
    kept = plain[..., [0, 2, 3]]
    torch.testing.assert_close(probs[..., [0, 2, 3]], kept / kept.sum(-1, keepdim=True))


def test_given_tokens_are_certain_and_carry_their_own_noise():
    ids = torch.randint(V, (B, L), generator=torch.Generator().manual_seed(1))
    given = torch.zeros(B, L, dtype=torch.bool)
    given[:, 1] = True
    guide = GivenTokens(ids, given, CODEC, PROCESS)
    said = _said(guide)
    torch.testing.assert_close(said.mean[:, 1], CODEC.encode(ids)[:, 1])
    torch.testing.assert_close(said.mean[:, [0, 2]], Prediction(LOGITS, CODEC.table()).mean[:, [0, 2]])
    s, xs, rng = torch.full((B,), 0.5), torch.randn(B, L, 3), Rng.of(0, B)
    after = guide.after(xs, s, batch=Batch(ids), rng=rng)
    assert torch.equal(after[:, [0, 2]], xs[:, [0, 2]])
    assert torch.equal(after[:, 1], PROCESS.corrupt(CODEC.encode(ids), s, rng=rng)[:, 1])
    # Certainty survives other guides.
    torch.testing.assert_close(_said(guide, Temperature(5.0)).mean[:, 1], CODEC.encode(ids)[:, 1])
