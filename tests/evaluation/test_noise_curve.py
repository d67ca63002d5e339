"""Cross-entropy against noise, of a language that is known exactly."""

import sys

import numpy as np
import pytest
import torch

from tests.exact.language import Language, ideal_gaussian, ideal_masked, ideal_uniform, tables
from textdiffusion.core.batch import Batch
from textdiffusion.core.errors import UserError
from textdiffusion.core.randomness import Rng
from textdiffusion.diffusion.alpha_schedules import LogLinear
from textdiffusion.diffusion.autoregressive import AutoregressiveProcess
from textdiffusion.diffusion.curve_densities import GumbelDensity
from textdiffusion.evaluation.noise_curve import noise_curve
from textdiffusion.evaluation.report.plots import new_figure, plot_noise_curve

LANGUAGE = Language.random(vocab_size=3, length=3)


class Drawn:
    """Windows drawn from the distribution."""

    def __len__(self):
        return 500

    def windows(self, rows):
        rows = torch.as_tensor(rows)
        drawn = LANGUAGE.ids[Rng.of(0, rows).categorical(LANGUAGE.law.expand(len(rows), -1))]
        return Batch(drawn, num_chars=torch.full((len(rows),), 3))


def _masked():
    model = ideal_masked(LANGUAGE, LogLinear(0.0))
    model.somewhere = torch.nn.Parameter(torch.zeros(()))  # says on what device the model is
    return model


def _unigram():
    """Entropy of a token without context, the mean over positions."""
    marginals = torch.stack([torch.bincount(column, LANGUAGE.law, 3) for column in LANGUAGE.ids.T])
    return float(torch.special.entr(marginals).sum(-1).mean())


def test_a_continuous_curve_rises_from_nothing_to_the_entropy_of_a_token():
    warp = GumbelDensity(0.33, 0.083, 1.1)
    curve = noise_curve(ideal_gaussian(LANGUAGE, tables(3)["bits"], density=warp), Drawn(), levels=25)
    assert curve.is_sigma
    assert len(curve.noise) == 25
    assert bool((np.diff(curve.noise) >= 0).all())
    assert curve.nats[0] < 0.01
    assert curve.nats[-1] == pytest.approx(_unigram(), abs=0.06)
    assert curve.nats.max() < _unigram() + 0.06
    assert curve.predicted_loss is not None
    assert bool((np.diff(curve.predicted_loss) >= 0).all())
    assert curve.predicted_loss[-1] == pytest.approx(1.1, abs=0.01)


def test_masked_tokens_are_what_is_counted():
    curve = noise_curve(_masked(), Drawn(), levels=10)
    assert not curve.is_sigma
    assert curve.predicted_loss is None
    assert curve.noise == pytest.approx((np.arange(10) + 0.5) / 10)
    assert curve.nats[-1] == pytest.approx(_unigram(), abs=0.12)
    assert bool((curve.nats < _unigram() + 0.12).all())
    assert curve.nats[0] < curve.nats[-1] - 0.1


class Letters:
    """Windows of one letter each, which come just as often as in the law of LETTERS."""

    def __len__(self):
        return 6000  # rare errors at low noise carry the average

    def windows(self, rows):
        return Batch(
            torch.tensor([0] * 6 + [1] * 3 + [2])[torch.as_tensor(rows) % 10, None],
            num_chars=torch.ones(len(rows)).long(),
        )


LETTERS = Language(3, 1, torch.arange(3)[:, None], torch.tensor([0.6, 0.3, 0.1]))


def _known(model, noise):
    """Remaining information in bits of a letter of LETTERS, by enumeration or quadrature."""
    law = LETTERS.law.double().numpy()
    if model.denoiser.table is not None:  # two bits a letter; a grid over both coordinates
        step, table = 0.2 * noise, model.denoiser.table.double().numpy()
        axis = np.arange(-1 - 7 * noise, 1 + 7 * noise, step)
        x = np.stack(np.meshgrid(axis, axis), axis=-1)[:, :, None]
        density = law * np.exp(-np.square(x - table).sum(-1) / (2 * noise**2)) * step**2 / (2 * np.pi * noise**2)
    elif model.process.is_noisy(torch.zeros(1, 1, dtype=torch.long)).any():  # drawn afresh
        density = law * ((1 - noise) * np.eye(3) + noise / 3)
    else:
        return noise * -(law * np.log2(law)).sum()
    return -(density * np.log2(np.maximum(density, 1e-300) / density.sum(-1, keepdims=True).clip(1e-300))).sum()


@pytest.mark.parametrize("make", [ideal_masked, ideal_uniform, ideal_gaussian])
def test_remaining_information_is_that_of_each_token_by_itself(make):
    """Without any context the ideal denoiser has just that cross-entropy; with context it has less."""
    args = (tables(3)["bits"],) if make is ideal_gaussian else (LogLinear(0.0),)
    model = make(LETTERS, *args)
    model.somewhere = torch.nn.Parameter(torch.zeros(()))
    curve = noise_curve(model, Letters(), levels=6)
    assert curve.bits == pytest.approx(curve.remaining, abs=1e-5)
    for noise, remaining, error in zip(curve.noise, curve.remaining, curve.errors, strict=True):
        assert remaining == pytest.approx(_known(model, noise), abs=4 * error + 1e-3)
    model = make(LANGUAGE, *args)
    model.somewhere = torch.nn.Parameter(torch.zeros(()))
    curve = noise_curve(model, Drawn(), levels=6)
    middle = (curve.remaining > 0.3 * curve.remaining[-1]) & (curve.remaining < 0.8 * curve.remaining[-1])
    assert middle.any()
    assert (curve.bits < curve.remaining - 2 * curve.errors)[middle].all()


def test_an_order_has_no_levels():
    model = _masked()
    model.process = AutoregressiveProcess(3)
    with pytest.raises(UserError, match="no noise levels"):
        noise_curve(model, Drawn())


def test_the_picture_and_what_is_missing_for_it(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib", reason="matplotlib (extra `plot`) is not installed")
    curve = noise_curve(_masked(), Drawn(), levels=4)
    plot_noise_curve(new_figure(), curve, "title", tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    for name in ("b.what", "no/such/folder.png"):
        with pytest.raises(UserError, match=r"cannot be written|Cannot write"):
            plot_noise_curve(new_figure(), curve, "title", tmp_path / name)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UserError, match=r"pip install 'textdiffusion\[plot\]'"):
        new_figure()
