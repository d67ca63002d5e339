"""Whether prompts of a batch change each other's text: 100 of them, alone and in batches of 8, in several families.

    python benchmarks/prompts.py --num 100

The networks are small and random. Prompts have 0 to 28 characters. Prints how many texts are equal, token by token.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch

from textdiffusion import TextDiffusion, recipes
from textdiffusion.config.build import build_model
from textdiffusion.config.overrides import apply_overrides
from textdiffusion.data.prepare import prepare

LINES = ("text.layout=lines", "text.model_padding=true")
STREAM = ("text.layout=stream",)
SETTINGS = [
    ("mdlm", *STREAM),
    ("mdlm", *LINES),
    ("block_diffusion", *STREAM),
    ("block_diffusion", "text.layout=lines"),
    ("autoregressive", "text.layout=lines"),
    ("udlm", *STREAM),
    ("cdcd", *STREAM, "text.mask=mixed"),
    ("cdcd", *STREAM, "text.mask=none"),
    ("sedd", *STREAM),
]
WORDS = ["The", "red", "green", "ripe", "pear", "plum", "fig", "is", "fresh", "old", "sweet."]


def prompts(count: int) -> list[str]:
    texts = [" ".join(WORDS[(i * (j + 3) + j) % len(WORDS)] for j in range(1 + i % 6)) for i in range(count)]
    return [text[: i % 29] for i, text in enumerate(texts)]


def random_run(recipe: str, settings: tuple[str, ...], folder: Path) -> TextDiffusion:
    small = ["backbone.width=64", "backbone.depth=1", "text.length=32", f"text.data={folder}/corpus.txt"]
    config = recipes.get(recipe)()
    small += ["sampler.steps=6"] if config.sampler.steps else []
    config = apply_overrides(config, [*small, "text.tokenizer=characters", *settings])
    tokenizer = prepare(config.text, folder / "cache").tokenizer
    torch.manual_seed(0)
    model = build_model(config, tokenizer.vocab_size).eval().requires_grad_(False)
    for parameter in model.denoiser.parameters():
        parameter += 0.2 * torch.randn_like(parameter)
    return TextDiffusion(model, tokenizer, config)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num", type=int, default=100)
    given = parser.parse_args()
    texts = prompts(given.num)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sentences = (f"The {a} {b} is {c}.\n" for a in WORDS[1:4] for b in WORDS[4:7] for c in WORDS[8:])
        (folder / "corpus.txt").write_text("".join(sentences) * 8)
        for recipe, *settings in SETTINGS:
            run = random_run(recipe, tuple(settings), folder)
            for length in (None, 9):
                parts = [texts[i : i + 8] for i in range(0, len(texts), 8)]
                together = [text for part in parts for text in run.generate(prompt=part, length=length, seed=3)]
                alone = [run.generate(prompt=text, length=length, seed=3)[0] for text in texts]
                equal = sum(a == b for a, b in zip(together, alone, strict=True))
                print(f"{recipe} {' '.join(settings)}, length {length}: {equal} of {len(texts)} equal", flush=True)


if __name__ == "__main__":
    main()
