"""Every sampler and guide with its default settings: a new file in `samplers` or `guidance` joins by itself."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.guide_examples import LETTERS, RUNS, VALUES, example, save_classifier
from textdiffusion import TextDiffusion, recipes
from textdiffusion.config.discovery import import_parts
from textdiffusion.core.errors import UserError
from textdiffusion.core.randomness import Rng
from textdiffusion.core.registry import build
from textdiffusion.guidance.base import GuideConfig
from textdiffusion.samplers.base import Guide, Request, Sampler
from textdiffusion.samplers.unmasking import Unmasking

from .convergence import LANGUAGE, ideal_models
from .language import last

import_parts()
DRAWS, STEPS = 8000, 150
MODELS = ideal_models()
SAMPLERS = {name: sampler() for name, sampler in Sampler.choices().items()}
SAMPLERS["unmasking by entropy"] = Unmasking(order="entropy")  # what recipes of masks use
PAIRS = [
    (sampler, model)
    for sampler in SAMPLERS
    for model in MODELS
    if isinstance(MODELS[model].process, SAMPLERS[sampler].processes)
]


def _distance(sampler: Sampler, model_name: str) -> float:
    """Total variation between samples of many steps and the data distribution, relative to that of exact samples.

    A sampler that refuses so many steps takes one step per token.
    """
    for steps in (STEPS, LANGUAGE.length):
        request = Request.blank(DRAWS, LANGUAGE.length, steps)
        try:
            with torch.no_grad():
                tokens = last(sampler(MODELS[model_name], request, rng=Rng.of(1, DRAWS))).tokens
        except UserError:
            continue
        return LANGUAGE.distance(tokens) / LANGUAGE.floor(DRAWS)
    raise AssertionError(f"{type(sampler).__name__} samples neither in {STEPS} steps nor in one per token.")


@pytest.mark.parametrize(("sampler_name", "model_name"), PAIRS)
def test_samples_reach_the_data_distribution_unless_the_sampler_says_otherwise(sampler_name: str, model_name: str):
    sampler = SAMPLERS[sampler_name]
    if sampler.converges:
        # In a wave each position changes in a part of the time, so the same steps are coarser.
        assert _distance(sampler, model_name) < (2.0 if model_name == "wave" else 1.5)
    else:
        assert _distance(sampler, model_name) > 3.0
        assert "data distribution" in (type(sampler).__doc__ or ""), "the docstring says what it samples from"


def test_every_sampler_and_every_process_is_compared():
    assert {sampler for sampler, _ in PAIRS} == set(SAMPLERS)
    assert {model for _, model in PAIRS} == set(MODELS)


@pytest.mark.parametrize("name", recipes.names())
def test_the_process_of_every_recipe_has_an_ideal_model(name: str):
    processes = {type(model.process) for model in MODELS.values()}
    for variant in recipes.variants(name):
        config = recipes.get(name)(variant)
        codec = build(config.codec, vocab_size=10)
        assert type(build(config.process, vocab_size=10, codec=codec)) in processes


@pytest.mark.parametrize("name", GuideConfig.choices())
def test_every_guide_steers_a_run(name: str, tiny_run: Callable[..., Path], tmp_path: Path):
    """Infilling of one template; a run whose process or training does not suit the guide refuses it in a sentence."""
    texts, refusals = [], []
    for i, (recipe, *settings) in enumerate(RUNS):
        run = TextDiffusion.from_pretrained(tiny_run(recipe, *LETTERS, *settings), device="cpu")
        save_classifier(run, tmp_path / str(i))
        config = example(GuideConfig.choices()[name], **VALUES, path=str(tmp_path / str(i)))
        try:
            assert isinstance(config.bind(run), Guide)
            texts += run.infill("The [MASK:7] is [MASK:5].", num=2, guides=[config])
        except UserError as error:
            refusals.append(str(error))
    assert texts, refusals
    assert all(text.startswith("The ") and len(text) == 21 and text.endswith(".") for text in texts)
