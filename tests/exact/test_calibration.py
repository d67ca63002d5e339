"""Calibrated denoisers: found where they are wrong, left alone where they are right, and never below the truth."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from textdiffusion import TextDiffusion
from textdiffusion.core.batch import Batch
from textdiffusion.core.randomness import Rng
from textdiffusion.diffusion.alpha_schedules import Linear
from textdiffusion.diffusion.prediction import Prediction
from textdiffusion.evaluation.calibration import Calibration, calibrate
from textdiffusion.objectives.gaussian_elbo import GaussianLikelihood
from textdiffusion.objectives.masked import MaskedLikelihood
from textdiffusion.scoring.windows import Texts

from .language import WrongDenoiser, ideal_gaussian, ideal_masked, tables
from .texts import LANGUAGE, LAW, LAYOUTS, TEXTS, nats_of, on_average


class Sharper(nn.Module):
    """The ideal denoiser, too sure by a factor of its logits."""

    backbone = None

    def __init__(self, ideal, factor):
        super().__init__()
        self.ideal, self.factor = ideal, factor
        self.time_independent, self.self_conditioning = ideal.time_independent, ideal.self_conditioning

    def forward(self, xt, t, *, batch, self_cond=None):
        said = self.ideal(xt, t, batch=batch, self_cond=self_cond)
        return Prediction(said.logits * self.factor, said.table)


class Spoken:
    """2,000 texts of the language."""

    ids = TEXTS[Rng.of(9, 2000).categorical(LAW.float().expand(2000, -1))]

    def __len__(self):
        return len(self.ids)

    def windows(self, rows):
        rows = torch.as_tensor(np.asarray(rows))
        return Batch(self.ids[rows], row_ids=rows, num_chars=torch.full((len(rows),), 3))


def _model(kind):
    masked = kind == "masked"
    model: Any = ideal_masked(LANGUAGE, Linear()) if masked else ideal_gaussian(LANGUAGE, tables(3)[kind])
    model.likelihood = MaskedLikelihood() if masked else GaussianLikelihood()
    model.device_of = nn.Parameter(torch.zeros(()))
    return model


@pytest.mark.parametrize("kind", ["masked", "bits"])
def test_a_denoiser_that_is_too_sure_is_cooled_down(kind):
    model = _model(kind)
    model.denoiser = Sharper(model.denoiser, 1.4)
    found = calibrate(model, Spoken(), model.likelihood, buckets=2)
    assert found.gain > 0
    assert found.temperatures[0] == found.temperatures[-1] == 1.0
    assert max(found.temperatures) > 1.1
    assert min(found.temperatures) >= 1.0
    plain, error, truth = nats_of(model.likelihood, model, repeats=50)
    with found.apply(model):
        assert model.denoiser is not None
        cooled, _, _ = nats_of(model.likelihood, model, repeats=50)
    assert isinstance(model.denoiser, Sharper)
    assert on_average(plain - cooled, error)[0] > 0
    average, spread = on_average(cooled - truth, error)
    assert average > -3 * spread - 0.004


def test_a_denoiser_that_is_right_is_left_alone():
    assert set(calibrate(_model("masked"), Spoken(), _model("masked").likelihood, buckets=2).temperatures) == {1.0}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", ["masked", "bits"])
def test_the_bound_of_a_calibrated_wrong_denoiser_lies_above_the_truth(kind, layout):
    model = _model(kind)
    model.denoiser = WrongDenoiser(LANGUAGE, None if kind == "masked" else model.codec.table())
    with Calibration((0.0, 0.3, 0.7, 0.999), (1.0, 0.6, 1.7, 1.2, 1.0)).apply(model):
        mean, error, truth = nats_of(model.likelihood, model, layout, repeats=50)
    average, spread = on_average(mean - truth, error)
    assert average > 4 * spread


@pytest.mark.parametrize(
    "recipe", ["sedd", "udlm", "block_diffusion", "cdcd", "analog_bits", "plaid", "autoregressive"]
)
def test_every_family_can_be_calibrated_and_nothing_is_lost(tiny_run, recipe):
    model = TextDiffusion.from_pretrained(tiny_run(recipe), device="cpu")
    texts = Texts(["The red pear is old. " * 20], model.tokenizer, model.config.text)
    found = calibrate(model.model, texts, model.likelihood, buckets=2)
    before = model.model.denoiser
    with found.apply(model.model):
        assert model.model.denoiser is not before
    assert model.model.denoiser is before
    assert (found.gain > 0) == (set(found.temperatures) != {1.0})
    assert found.gain >= 0
