"""Runs of tiny models, and what they left behind."""

import json
from pathlib import Path

import torch
from rich.console import Console

from textdiffusion.data.prepare import prepare
from textdiffusion.storage.weights import load_tensors
from textdiffusion.training.distributed import SingleProcess
from textdiffusion.training.loop import TrainingLoop
from textdiffusion.training.run import train
from textdiffusion.training.run_folder import RunFolder
from textdiffusion.training.trainer import Trainer

QUIET = Console(quiet=True)


CHILD = Path(__file__).with_name("tiny.py")


def run(config, out, folder, **options):
    return train(config, out, cache=folder / "cache", console=QUIET, device="cpu", **options)


def loop_of(config, out, folder) -> TrainingLoop:
    run_folder = RunFolder(out, config.training.keep_checkpoints)
    corpus = prepare(config.text, folder / "cache", seed=config.training.seed)
    out.mkdir(exist_ok=True)
    run_folder.begin(config, corpus.tokenizer, 0)
    trainer = Trainer(config, corpus, torch.device("cpu"), SingleProcess(), lambda text: None)
    return TrainingLoop(trainer, run_folder)


def metrics(out: Path, event: str) -> list[dict]:
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] == event]


def losses(out: Path) -> list[tuple]:
    return [(m["step"], m["loss"], m["grad_norm"], m["lr_scale"], *m["parts"].values()) for m in metrics(out, "logged")]


def assert_same_weights(one: Path, other: Path) -> None:
    for name in ("model.safetensors", "ema.safetensors", "optimizer.safetensors"):
        a, b = load_tensors(one / name), load_tensors(other / name)
        assert a.keys() == b.keys()
        assert all(torch.equal(a[key], b[key]) for key in a), name
