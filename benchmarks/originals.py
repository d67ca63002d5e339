"""The five reference systems' own runs: their tokenizer, corpus and CPU-seconds, our recipe. Resumable.

    python benchmarks/originals.py --data FOLDER --out FOLDER [--runs sedd analog_bits ...]

The corpus is mtd_simple ("The COLOUR PRODUCE is STATE."), the figure the fraction of 1,000 samples that are legal,
which in the reference systems was far from all. Prints a Markdown table; a row that exists is kept.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rows import Rows
from simple_sentences import measured

from textdiffusion.evaluation.sample_report import markdown_table


@dataclass(frozen=True)
class Run:
    """What a reference system was given, and the fraction of legal sentences that is to be reached."""

    tokens: str
    cpu_seconds: float
    goal: float
    settings: tuple[str, ...]
    sampler: str | None = None
    steps: int | None = None


COMMON = ("backbone.depth=2", "training.batch_size=64", "training.compile=on")
LETTERS = ("backbone.conv_radius=5", *COMMON)
# For samplers of masks: tokens given anywhere, pure noise seen often.
IN_MASKS = ("text.mask=random", "time_density.kind=uniform", "denoiser.self_conditioning=false")
SUREST_FIRST = "unmasking:order=entropy,refine_rounds=24,remask_fraction=0.8"
WORDS = ("text.tokenizer=words", "text.length=10", "text.mask=none", *COMMON)
RUNS = {
    "minimal_text_diffusion": Run("words", 120, 0.9, WORDS),
    "mini_cdcd": Run("words", 180, 0.9, WORDS),
    "simple_diffusion_lm": Run(
        "400 BPE pieces",
        240,
        0.9,
        ("text.tokenizer=bpe", "text.vocab_size=400", "text.length=20", *COMMON, *IN_MASKS),
        sampler=SUREST_FIRST,
        steps=240,
    ),
    "sedd": Run(
        "characters",
        360,
        0.9,
        (*LETTERS, "text.mask=none", "denoiser.ngram_rows=4096", "objective.max_weight=1.0"),
        sampler=SUREST_FIRST,
        steps=560,
    ),
    "analog_bits": Run(  # squared error would give no distribution to draw letters from
        "bytes",
        360,
        0.8,
        ("text.tokenizer=bytes", *LETTERS, *IN_MASKS, "objective.kind=score_interpolation"),
        sampler=SUREST_FIRST,
        steps=560,
    ),
}


def main() -> None:
    """All runs that are missing, then the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds corpora/")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--runs", nargs="*", choices=list(RUNS), default=list(RUNS))
    given = parser.parse_args()
    stored = Rows(given.out / "rows.jsonl")
    rows = [["recipe", "tokens", "CPU-s", "goal", "legal", "novel and legal", "steps", "sampler"]]
    for recipe in given.runs:
        run = RUNS[recipe]
        measure = partial(
            measured,
            recipe,
            given.data / "corpora" / "mtd_simple_train.txt",
            out=given.out / recipe,
            cpu_seconds=run.cpu_seconds,
            sampler=run.sampler,
            steps=run.steps,
            settings=run.settings,
        )
        made = {"set": list(run.settings), "sampler": run.sampler, "sampling_steps": run.steps}
        row = stored.row({"recipe": recipe, **made}, measure)
        fractions = [f"{run.goal:.0%}", f"{row['ema_legal']:.1%}", f"{row['ema_novel_and_legal']:.1%}"]
        how = [f"{row['steps']:,}", run.sampler or "its own"]
        rows.append([recipe, run.tokens, f"{run.cpu_seconds:.0f}", *fractions, *how])
    print("\n".join(markdown_table(rows)))


if __name__ == "__main__":
    main()
