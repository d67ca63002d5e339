"""Every likelihood and objective with its default settings: a new file in `objectives` or `scoring` joins by itself."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from textdiffusion import recipes
from textdiffusion.config.build import build_model
from textdiffusion.config.config import Config
from textdiffusion.config.discovery import import_parts
from textdiffusion.config.overrides import apply_overrides
from textdiffusion.core.batch import Batch
from textdiffusion.core.errors import UserError
from textdiffusion.core.randomness import Rng
from textdiffusion.diffusion.gaussian import GaussianProcess
from textdiffusion.diffusion.prediction import Prediction
from textdiffusion.objectives.base import Likelihood, Objective
from textdiffusion.objectives.next_token import NextTokenLikelihood

from .convergence import ideal_models
from .texts import LAYOUTS, nats_of, on_average

import_parts()
MODELS = ideal_models()
LIKELIHOODS = {name: kind() for name, kind in Likelihood.choices().items()}
PAIRS = [
    (likelihood, model)
    for likelihood in LIKELIHOODS
    for model in MODELS
    if isinstance(MODELS[model].process, LIKELIHOODS[likelihood].processes)
]
CASES = [  # what predicts in one direction cannot use tokens that are given behind its own
    (likelihood, model, layout)
    for likelihood, model in PAIRS
    for layout in LAYOUTS
    if layout != "given ends"
    or (MODELS[model].process.bidirectional and not isinstance(LIKELIHOODS[likelihood], NextTokenLikelihood))
]
VOCAB, LENGTH, ROWS = 9, 10, 8


@pytest.mark.parametrize(("likelihood_name", "model_name", "layout"), CASES)
def test_with_the_ideal_denoiser_every_likelihood_is_the_truth(likelihood_name: str, model_name: str, layout: str):
    """Text by text; the prior of a Gaussian process leaves up to 0.002 nats a token."""
    likelihood = LIKELIHOODS[likelihood_name]
    mean, error, truth = nats_of(likelihood, MODELS[model_name], layout, repeats=1 if likelihood.exact else 1500)
    if likelihood.exact:
        torch.testing.assert_close(mean, truth, atol=1e-5, rtol=1e-5)
        return
    slack = 0.006 if isinstance(MODELS[model_name].process, GaussianProcess) else 1e-4
    # Errors are themselves estimated from ten batches, of a heavy tail at little noise.
    assert bool(((mean - truth).abs() < 8 * error + slack).all())
    average, spread = on_average(mean - truth, error)
    assert abs(average) < 4 * spread + slack
    assert spread < 0.03


class Doubting(nn.Module):
    """The ideal denoiser with the fourth roots of its probabilities: worse, and a function of the same inputs."""

    def __init__(self, ideal: Any) -> None:
        super().__init__()
        self.ideal: Any = ideal
        self.time_independent, self.self_conditioning = ideal.time_independent, ideal.self_conditioning

    def forward(self, xt, t, *, batch, self_cond=None) -> Prediction:
        prediction = self.ideal(xt, t, batch=batch, self_cond=self_cond)
        return Prediction(prediction.logits / 4, getattr(self.ideal, "table", None))

    def predict_next(self, xt, batch) -> Prediction:
        return Prediction(self.ideal.predict_next(xt, batch).logits / 4)


@pytest.mark.parametrize(("likelihood_name", "model_name", "layout"), CASES)
def test_of_a_worse_denoiser_every_likelihood_lies_above_the_truth(likelihood_name: str, model_name: str, layout: str):
    likelihood, model = LIKELIHOODS[likelihood_name], ideal_models()[model_name]
    model.denoiser = Doubting(model.denoiser)
    mean, error, truth = nats_of(likelihood, model, layout, repeats=1 if likelihood.exact else 400)
    average, spread = on_average(mean - truth, error)
    assert average > 4 * spread


def test_every_likelihood_and_every_process_is_compared():
    assert {likelihood for likelihood, _ in PAIRS} == set(LIKELIHOODS)
    assert {model for _, model in PAIRS} == set(MODELS)


def _config_with(objective: Objective) -> Config:
    """A recipe with this objective: one that has an objective of its kind, or else one that accepts it."""
    configs = [recipes.get(name)(variant) for name in recipes.names() for variant in recipes.variants(name)]
    for config in sorted(configs, key=lambda config: type(config.objective) is not type(objective)):
        try:
            return replace(config, objective=objective)
        except UserError:
            continue
    raise AssertionError(f"No recipe accepts {type(objective).__name__}.")


@pytest.mark.parametrize("name", Objective.choices())
def test_every_objective_trains_a_network(name: str):
    objective = Objective.choices()[name]()
    config = apply_overrides(_config_with(objective), ["backbone.width=64", "backbone.depth=1"])
    torch.manual_seed(0)
    model = build_model(config, VOCAB)
    batch = Batch(torch.randint(VOCAB, (ROWS, LENGTH)))
    loss = objective(model, batch, rng=Rng.of(0, ROWS))
    loss.total.backward()
    assert bool(loss.total.isfinite())
    assert loss.parts
    assert all(bool(part.isfinite()) and not part.requires_grad for part in loss.parts.values())
    gradients = [parameter.grad for parameter in model.parameters() if parameter.requires_grad]
    assert all(gradient is not None and bool(gradient.isfinite().all()) for gradient in gradients)
    assert any(bool((gradient != 0).any()) for gradient in gradients if gradient is not None)
