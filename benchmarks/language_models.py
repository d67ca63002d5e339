"""What works with language models, and what it costs; on tiny random networks, without any download.

    python benchmarks/language_models.py table
    python benchmarks/language_models.py rows --num 100
    python benchmarks/language_models.py pattern --num 1000
    python benchmarks/language_models.py memory

`table`: formats by operations. `rows`: how many of the texts written in batches of 8 are those written alone.
`pattern`: a regular expression over 30,000 subwords, and what it costs. `memory`: training a random Qwen3 of 0.1
billion parameters, whole and by an adapter.
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from tests.published.language_models import CONFIGS, SHAPE, write_model
from textdiffusion import TextDiffusion, recipes
from textdiffusion.config.build import build_model
from textdiffusion.config.overrides import apply_overrides
from textdiffusion.core.batch import Batch
from textdiffusion.core.randomness import Rng
from textdiffusion.data.tokenizers.subwords import Subwords
from textdiffusion.published.conversion import convert
from textdiffusion.training.run import train

WORDS = ["The", "red", "green", "ripe", "pear", "plum", "fig", "is", "fresh", "old", "sweet."]
BLOCKS = ("sdar", "fast_dllm_v2", "causal")
PATTERN = r"The (red|green|ripe) [a-z]+ is [a-z ]+\."


def table() -> None:
    """A row for each format: seconds of each operation, or what went wrong."""
    print("| format | " + " | ".join(operations("", Path())) + " |\n" + "|---" * 10 + "|")
    for name in CONFIGS:
        with tempfile.TemporaryDirectory() as folder:
            write_model(Path(folder) / "published", name)
            cells = [attempt(operation) for operation in operations(name, Path(folder)).values()]
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


def operations(name: str, folder: Path) -> dict[str, Callable[[], object]]:
    """What to do with the published weights in the folder, in turn."""

    def load(run: str) -> TextDiffusion:
        return TextDiffusion.from_pretrained(folder / run)

    def tune() -> None:
        (folder / "text.txt").write_text("A ripe pear. A red fig. " * 300)
        variant = "default" if name in BLOCKS else "full" if name == "dream" else "a2d"
        settings = [f"text.data={folder}/text.txt", "text.length=16", "training.steps=20", "training.batch_size=4"]
        settings += ["backbone.lora_rank=2", "training.lr=0.01", "training.num_samples=0", "training.compile=off"]
        settings += ["training.eval_every=1000", "training.eval_windows=1"]
        config = apply_overrides(recipes.get("adapted")(variant), settings)
        train(config, folder / "tuned", init=folder / "run", device="cpu", cache=folder / "cache")

    def merged_equals() -> None:
        merged = convert(folder / "tuned", folder / "merged")
        bits = [model.score(["A"], draws=2)[0].bits for model in (merged, load("tuned"))]
        assert abs(bits[0] - bits[1]) < 1e-3, bits

    return {
        "convert": lambda: convert(folder / "published", folder / "run"),
        "load strictly": lambda: load("run"),
        "sample": lambda: load("run").generate(1, length=8),
        "infill": lambda: load("run").infill("The [MASK:3] pear"),
        "score": lambda: load("run").score(["A"], draws=2),
        "LoRA, 20 steps": tune,
        "save": lambda: load("tuned").save_pretrained(folder / "saved"),
        "reload": lambda: load("saved").generate(1, length=8),
        "merge": merged_equals,
    }


def attempt(operation: Callable[[], object]) -> str:
    start = time.process_time()
    try:
        operation()
    except Exception as error:  # the table says what went wrong
        return f"{type(error).__name__}: {error}".replace("|", "/")
    return f"{time.process_time() - start:.1f}"


def rows(num: int) -> None:
    """Texts alone and in batches of 8."""
    prompts = [" ".join(WORDS[(i * (j + 3) + j) % len(WORDS)] for j in range(1 + i % 6))[: i % 29] for i in range(num)]
    for name in ("bert", "llada", "sdar", "fast_dllm_v2"):
        with tempfile.TemporaryDirectory() as folder:
            write_model(Path(folder) / "published", name)
            run = convert(Path(folder) / "published", Path(folder) / "run")
            parts = [prompts[i : i + 8] for i in range(0, num, 8)]
            options = {"length": 8, "seed": 3, "temperature": 1.0}
            together = [text for part in parts for text in run.generate(prompt=part, **options)]
            alone = [run.generate(prompt=prompt, **options)[0] for prompt in prompts]
        equal = sum(a == b for a, b in zip(together, alone, strict=True))
        print(f"{name}: {equal} of {num} equal", flush=True)


def subword_run(folder: Path, size: int) -> TextDiffusion:
    """A random masked model over `size` subwords: all words of these letters of up to four, as far as they go."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    engine = Tokenizer(models.BPE())
    engine.pre_tokenizer, engine.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    words = (f" {a}{b}{c}{d}" for a in letters for b in letters for c in letters for d in letters[:3])
    trainer = trainers.BpeTrainer(
        vocab_size=size, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    engine.train_from_iterator(words, trainer)
    tokenizer = Subwords("file", engine)
    network = {"model_type": "bert", "intermediate_size": 128}
    network |= {"num_attention_heads": 2, "vocab_size": tokenizer.vocab_size + 1}
    (folder / "tokenizer.json").write_text(engine.to_str())
    (folder / "text.txt").write_text("The pear is red.\n")
    settings = ["text.tokenizer=file", f"text.tokenizer_path={folder}/tokenizer.json", "text.length=16"]
    settings += ["backbone.width=128", "backbone.depth=4"]
    settings += [f"backbone.architecture={json.dumps(network)}", f"text.data={folder}/text.txt", "text.layout=stream"]
    config = apply_overrides(recipes.get("adapted")("a2d"), settings)
    torch.manual_seed(0)
    model = build_model(config, tokenizer.vocab_size).eval().requires_grad_(False)
    return TextDiffusion(model, tokenizer, config)


def pattern(num: int) -> None:
    """Texts of 16 tokens in 16 steps, with the pattern and without it."""
    with tempfile.TemporaryDirectory() as folder:
        run = subword_run(Path(folder), 30_000)
    print(f"{run.tokenizer.vocab_size:,} tokens, {sum(p.numel() for p in run.model.parameters()):,} parameters")
    for name, guides in (("without", []), ("with", [f"regex:pattern={PATTERN}"])):
        start = time.process_time()
        run.generate(1, 16, steps=1, guides=guides)
        first = time.process_time() - start
        start = time.process_time()
        texts = run.generate(num, 16, steps=16, guides=guides)
        spent = time.process_time() - start
        matched = sum(re.fullmatch(PATTERN, text) is not None for text in texts)
        print(f"{name}: {matched} of {num} match, {spent:.1f} CPU-s, {1e3 * spent / num / 16:.2f} ms a text and step; "
              f"first call {first:.2f} CPU-s; {texts[0]!r}", flush=True)  # fmt: skip


def memory() -> None:
    """One process for each setting, as memory is counted at its peak."""
    for rank, checkpointing in ((0, "false"), (0, "true"), (16, "false"), (16, "true")):
        subprocess.run([sys.executable, __file__, "one", str(rank), checkpointing], check=True)


def one(rank: int, checkpointing: str, steps: int = 2) -> None:
    """A few steps of training."""
    torch.set_num_threads(1)
    network = SHAPE | {"model_type": "qwen3", "hidden_size": 768, "intermediate_size": 2304, "num_hidden_layers": 12}
    network |= {"num_attention_heads": 12, "num_key_value_heads": 4, "head_dim": 64, "tie_word_embeddings": True}
    network |= {"vocab_size": 32_000, "max_position_embeddings": 1024}
    settings = [f"backbone.architecture={json.dumps(network)}", f"backbone.gradient_checkpointing={checkpointing}"]
    settings += ["text.length=64", "backbone.width=768", "backbone.depth=12", f"backbone.lora_rank={rank}"]
    model = build_model(apply_overrides(recipes.get("adapted")("full"), settings), 31_000).train()
    objective = recipes.get("adapted")("full").objective
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-5)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    start, batch = time.process_time(), Batch(torch.randint(0, 31_000, (2, 64)))
    for step in range(steps):
        optimizer.zero_grad()
        objective(model, batch, rng=Rng.of(step, 2)).total.backward()
        optimizer.step()
    speed = steps * batch.tokens.numel() / (time.process_time() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    count = sum(p.numel() for p in model.parameters())
    print(
        f"rank {rank}, checkpointing {checkpointing}: {count:,} parameters, {sum(p.numel() for p in trained):,} trained"
    )
    print(f"  {before:,.0f} MiB before, {peak:,.0f} at the peak, {speed:,.0f} tokens a CPU-second", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["table", "rows", "pattern", "memory", "one"])
    parser.add_argument("settings", nargs="*")
    parser.add_argument("--num", type=int, default=100)
    given = parser.parse_args()
    torch.set_num_threads(1)
    match given.what:
        case "table":
            table()
        case "rows":
            rows(given.num)
        case "pattern":
            pattern(given.num)
        case "memory":
            memory()
        case _:
            one(int(given.settings[0]), given.settings[1])


if __name__ == "__main__":
    main()
