"""Training steps, likelihoods and checkpoints on a device other than the CPU, and how often the host waits for it."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from tests.training.tiny import tiny
from textdiffusion import recipes
from textdiffusion.config.config import Config
from textdiffusion.core.randomness import Rng
from textdiffusion.data.prepare import Corpus, prepare
from textdiffusion.objectives.base import Likelihood
from textdiffusion.storage.checkpoint import AVERAGED, OPTIMIZER, RAW, Checkpoints, TrainingState, read_tensors
from textdiffusion.storage.weights import load_weights, tensors_of
from textdiffusion.training.distributed import SingleProcess
from textdiffusion.training.trainer import Trainer

from .pretended import DEVICE, pretended_device
from .selection import slow_except

SYNCS_PER_STEP = {
    "adapted": 1,
    "analog_bits": 1,
    "autoregressive": 1,
    "block_diffusion": 1,
    "cdcd": 2,
    "d3pm": 1,
    "difformer": 2,
    "diffusion_lm": 1,
    "dual": 2,
    "mdlm": 1,
    "mini_cdcd": 2,
    "minimal_text_diffusion": 1,
    "plaid": 2,
    "sedd": 1,
    "simple_diffusion_lm": 2,
    "ssd_lm": 2,
    "udlm": 1,
}
"""How often the host waits in one training step: logits are computed at the noised positions only, which it must count.

With self-conditioning it also counts the rows that see their own estimate.
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("devices")


def _trainer(config: Config, folder: Path, device: torch.device = DEVICE) -> Trainer:
    corpus: Corpus = prepare(config.text, folder / "cache", console=Console(quiet=True))
    return Trainer(replace(config, text=corpus.config), corpus, device, SingleProcess(), lambda text: None)


@pytest.mark.parametrize("recipe", recipes.names())
def test_a_training_step_runs_on_the_device_and_seldom_waits_for_it(recipe: str, folder: Path):
    config = tiny(recipe, folder)
    config = replace(config, training=replace(config.training, optimizer=recipes.get(recipe)().training.optimizer))
    with pretended_device() as syncs:
        trainer = _trainer(config, folder)
        module = trainer.distribute()
        before = Counter(syncs)
        losses = trainer.step(module, 0, 1.0)
        waits = sum((syncs - before).values())
        assert all(value.device == DEVICE and bool(value.isfinite()) for value in losses.values())
        assert {p.device for p in trainer.ema.model.parameters()} == {DEVICE}
    assert waits == SYNCS_PER_STEP[recipe]


def test_the_table_names_every_recipe():
    assert SYNCS_PER_STEP.keys() == set(recipes.names())


@pytest.mark.parametrize("mask", ["mixed", "spans"])
def test_a_step_with_given_tokens_runs_on_the_device(mask, folder: Path):
    with pretended_device():
        trainer = _trainer(tiny("cdcd", folder, mask), folder)
        assert bool(trainer.step(trainer.distribute(), 0, 1.0)["loss"].isfinite())


def test_a_step_on_the_device_is_that_on_the_cpu(folder: Path):
    config = tiny("mdlm", folder)
    on_cpu = _trainer(config, folder, torch.device("cpu"))
    expected = on_cpu.step(on_cpu.distribute(), 0, 1.0)
    with pretended_device():
        trainer = _trainer(config, folder)
        losses = trainer.step(trainer.distribute(), 0, 1.0)
        assert {name: float(value) for name, value in losses.items()} == {n: float(v) for n, v in expected.items()}


SYNCS_PER_LIKELIHOOD = {
    "discrete_likelihood": 1,
    "gaussian_likelihood": 1,
    "masked_likelihood": 1,
    "next_token_likelihood": 1,
    "score_entropy_likelihood": 1,
    "wave_likelihood": 1,
}


@pytest.mark.parametrize(
    "recipe", [*slow_except("autoregressive", "d3pm", "diffusion_lm", "mdlm", "plaid"), "sedd/uniform", "mdlm/wave"]
)
def test_the_likelihood_of_every_recipe_runs_on_the_device(recipe: str, folder: Path):
    config = tiny(recipe, folder)
    with pretended_device() as syncs, torch.no_grad():
        trainer = _trainer(config, folder)
        batch = trainer.corpus.train.batch(0, range(2), batch_size=2).to(DEVICE)
        before = Counter(syncs)
        nats = config.likelihood(trainer.model.eval(), batch, rng=Rng.of(0, 2, DEVICE))
        waits = sum((syncs - before).values())
        assert nats.device == DEVICE
        assert bool((nats > 0).all())
    assert waits <= SYNCS_PER_LIKELIHOOD[config.likelihood.kind]


def test_every_likelihood_has_been_run():
    configs = [recipes.get(name)() for name in recipes.names()] + [
        recipes.get("sedd")("uniform"),
        recipes.get("mdlm")("wave"),
    ]
    assert {config.likelihood.kind for config in configs} == set(SYNCS_PER_LIKELIHOOD) == set(Likelihood.choices())


@pytest.mark.parametrize("recipe", ["mdlm", "plaid"])
def test_a_checkpoint_of_the_device_continues_there_and_on_the_cpu(recipe: str, folder: Path, tmp_path: Path):
    """With Muon, moving averages and, in `plaid`, a learned schedule and density."""
    config = tiny(recipe, folder, optimizer="muon", codec_lr=0.02 if recipe == "plaid" else 0.0)
    with pretended_device():
        trainer = _trainer(config, folder)
        module = trainer.distribute()
        trainer.step(module, 0, 1.0)
        tensors = {RAW: tensors_of(trainer.model), AVERAGED: tensors_of(trainer.ema.model)}
        path = Checkpoints(tmp_path, keep=1).save(
            TrainingState(step=1), {**tensors, OPTIMIZER: trainer.optimizers.tensors()}
        )
        trainer.step(module, 1, 1.0)
        for device in (DEVICE, torch.device("cpu")):
            other = _trainer(config, folder, device)
            load_weights(other.model, path / RAW)
            load_weights(other.ema.model, path / AVERAGED)
            other.optimizers.load(read_tensors(path, OPTIMIZER))
            other.step(other.distribute(), 1, 1.0)
            for one, two in ((trainer.model, other.model), (trainer.ema.model, other.ema.model)):
                expected, found = tensors_of(one), tensors_of(two)
                assert {tensor.device.type for tensor in found.values()} == {device.type}
                for name, tensor in expected.items():
                    torch.testing.assert_close(found[name].cpu(), tensor.cpu(), rtol=1e-5, atol=1e-6)
