"""Samplers and guides on a device other than the CPU, and how often the host waits for it in a step."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.guide_examples import LETTERS, RUNS, VALUES, example, save_classifier
from textdiffusion import TextDiffusion, recipes
from textdiffusion.config.discovery import import_parts
from textdiffusion.core.errors import UserError
from textdiffusion.guidance.base import GuideConfig
from textdiffusion.samplers.base import Sampler
from textdiffusion.samplers.ddim import DDIM
from textdiffusion.samplers.heun import Heun
from textdiffusion.samplers.time_grids import Exponential, Karras
from textdiffusion.storage.weights import load_tensors

from .pretended import DEVICE, on_device, pretended_device
from .selection import slow_except

import_parts()
STEPS = 2
SYNCS_PER_STEP = {
    "ancestral": ("mdlm", 6),
    "autoregressive": ("autoregressive", 3),
    "block_ancestral": ("block_diffusion", 6),
    "block_unmasking": ("adapted", 8),
    "ddim": ("cdcd", 0),
    "dpm_solver": ("plaid", 0),
    "euler": ("sedd", 5),
    "first_hitting": ("mdlm", 4),
    "gibbs": ("udlm", 10),
    "heun": ("plaid", 0),
    "p2": ("mdlm", 8),
    "predictor_corrector": ("udlm", 8),
    "remdm": ("mdlm", 6),
    "tweedie": ("sedd", 5),
    "unmasking": ("mdlm", 8),
}
"""A recipe for every sampler, and how often the host waits at most in one step, apart from reading the step.

Samplers of tokens report the time of a step, count the rows that still need the network, and draw tokens only at the
positions of a mask, which the host must count. From left to right the cache compares the text with what it has read.
"""
SETTINGS = {
    "a grid of sigma": (DDIM(grid=Karras(), time_offset=0.5, eta=1.0), "plaid", 0),
    "churn": (Heun(grid=Exponential(), s_churn=3.0), "plaid", 0),
    "a discrete schedule": (DDIM(s_churn=3.0, churn_entropy=0.1), "diffusion_lm", 0),
    "clamped": (DDIM(clamp=0.5), "cdcd", 1),
    "with patience": (DDIM(patience=1), "cdcd", 1),
}


def _run(folder: Path) -> TextDiffusion:
    run = TextDiffusion.from_pretrained(folder, device="cpu")
    on_device(run.model)
    return run


def _waits(run: TextDiffusion, sampler: Sampler | str) -> list[int]:
    """How often the host waits before each step of two rows."""
    with pretended_device() as syncs:
        waits, before = [], Counter[str]()
        for step in run.stream(batch=run.empty_batch(2, STEPS), steps=STEPS, sampler=sampler):
            waits.append(sum((syncs - before).values()))
            assert step.tokens.device == step.state.device == step.confidence.device == DEVICE
            before = Counter(syncs)
    return waits


@pytest.mark.parametrize("sampler", Sampler.choices())
def test_every_sampler_runs_on_the_device_and_seldom_waits_for_it(sampler: str, tiny_run: Callable[..., Path]):
    recipe, allowed = SYNCS_PER_STEP[sampler]
    start, *steps = _waits(_run(tiny_run(recipe)), sampler)
    assert start <= 2
    assert max(steps) <= allowed


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_of_samplers_that_need_the_noise_levels_run_on_the_device(name: str, tiny_run: Callable[..., Path]):
    sampler, recipe, allowed = SETTINGS[name]
    start, *steps = _waits(_run(tiny_run(recipe)), sampler)
    assert start <= 2
    assert max(steps) <= allowed


@pytest.mark.parametrize("recipe", slow_except("analog_bits", "autoregressive", "block_diffusion", "plaid", "udlm"))
def test_the_sampler_of_every_recipe_writes_on_the_device_what_it_writes_on_the_cpu(
    recipe: str, tiny_run: Callable[..., Path], tmp_path: Path
):
    """And the run that is saved there is the one that was loaded."""
    folder = tiny_run(recipe)
    steps = STEPS if recipes.get(recipe)().sampler.steps else None
    options = {"num": 2, "length": 4, "steps": steps, "seed": 5}
    expected = TextDiffusion.from_pretrained(folder, device="cpu").generate(**options)
    run = _run(folder)
    with pretended_device():
        assert run.generate(**options) == expected
        saved = run.save_pretrained(tmp_path / "saved")
    old, new = (load_tensors(path / "model.safetensors") for path in (folder, saved))
    assert old.keys() == new.keys()
    assert all(torch.equal(old[name], new[name]) for name in old)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", recipes.names())
def test_every_sampler_drives_every_recipe_on_the_device(recipe: str, tiny_run: Callable[..., Path]):
    run = _run(tiny_run(recipe))
    for name in run.samplers():
        assert max(_waits(run, name)[1:]) <= 10


@pytest.mark.parametrize("name", GuideConfig.choices())
def test_every_guide_steers_on_the_device(name: str, tiny_run: Callable[..., Path], tmp_path: Path):
    """The texts are those of the CPU; the first run whose process and training suit the guide is taken."""
    for number, (recipe, *settings) in enumerate(RUNS):
        folder = tiny_run(recipe, *LETTERS, *settings)
        run = TextDiffusion.from_pretrained(folder, device="cpu")
        save_classifier(run, tmp_path / str(number))
        guide = example(GuideConfig.choices()[name], **VALUES, path=str(tmp_path / str(number)))
        options = {"num": 2, "steps": STEPS, "guides": [guide]}
        try:
            expected = run.infill("The [MASK:3] is", **options)
        except UserError:
            continue
        on_device(run.model)
        with pretended_device():
            assert run.infill("The [MASK:3] is", **options) == expected
        return
    raise AssertionError(f"No run accepts {name}.")


def test_texts_are_scored_on_the_device(tiny_run: Callable[..., Path]):
    folder = tiny_run("mdlm")
    expected = TextDiffusion.from_pretrained(folder, device="cpu").score(["The red fig"], draws=2)[0]
    with pretended_device():
        estimate = _run(folder).score(["The red fig"], draws=2)[0]
    assert estimate.bits == pytest.approx(expected.bits, rel=1e-6)


@pytest.mark.parametrize("select", ["random", "suspect"])
@pytest.mark.parametrize("recipe", ["autoregressive", "block_diffusion", "mdlm", "plaid", "udlm"])
def test_drafts_are_revised_on_the_device(recipe: str, select: str, tiny_run: Callable[..., Path]):
    folder = tiny_run(recipe, *LETTERS)
    steps = STEPS if recipe in ("mdlm", "plaid", "udlm") else None
    options = {"num": 2, "strength": 0.5, "select": select, "steps": steps, "keep": "red"}
    expected = TextDiffusion.from_pretrained(folder, device="cpu").revise("The red", **options)
    run = _run(folder)
    with pretended_device():
        assert run.revise("The red", **options) == expected
