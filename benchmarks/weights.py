"""The models that come with the package: their definitions, their training, and their export.

    python benchmarks/weights.py train [NAME ...] [--data FOLDER] [--runs FOLDER] [--cpu-seconds N]
    python benchmarks/weights.py export RUN NAME [--texts FOLDER] [--windows N]

`train` trains the models (all of them without a NAME) in `--runs`, continues what was stopped, and exports each.
`export` makes a model of the package of any run: its parameters in bfloat16, a held-out excerpt, figures measured with
the exported weights, and the card, in `src/textdiffusion/models/NAME`. `--data` (default: TEXTDIFFUSION_DATA) is the
folder with the references of E2E (e2e_train_refs.txt, e2e_dev.csv, e2e_test_w_refs.csv), which only the training of
`restaurants` needs. `--texts` is the working directory in which a run was trained, from which its data is looked up.
"""

from __future__ import annotations

import argparse
import csv
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from restaurants import TEMPERATURE, measured, write_tables

from textdiffusion import TextDiffusion
from textdiffusion.cli import main as command_line
from textdiffusion.config.overrides import apply_overrides
from textdiffusion.data.config import TextConfig
from textdiffusion.data.prepare import default_cache, prepare
from textdiffusion.evaluation.bench import EvalOptions, RunEvaluator
from textdiffusion.evaluation.heldout import decode_texts, training_corpus
from textdiffusion.evaluation.ngram import kneser_ney
from textdiffusion.inference.model_card import model_card
from textdiffusion.storage.metrics_log import history
from textdiffusion.storage.packaged import Card, Excerpt, Figure, root, write_card

MAX_BYTES, MAX_TOTAL = 12_000_000, 30_000_000  # of the weights of one model, and of all
EXCERPT_CHARACTERS, EXCERPT_ROWS, EXCERPT_DRAWS = 16_000, 48, 4
COMMAND = "textdiffusion evaluate {name}{data} --num 0 --windows {windows}"


def nothing(data: Path, runs: Path) -> None:
    """The data is built in."""


def wishes_followed(model: TextDiffusion) -> tuple[Figure, ...]:
    """How well descriptions of restaurants follow what was asked, and how they read."""
    folder = Path(model.config.text.data).parent
    row = measured(model, folder, 300, TEMPERATURE)
    command = "python benchmarks/restaurants.py --out FOLDER --measure restaurants --num 300"
    return (
        Figure("attributes followed", row["followed"], None, command),
        Figure("texts that are not in the training data", row["novel"], None, command),
        Figure("bits per word under a word 4-gram", row["bits_per_word"], None, command),
        Figure("the same of the test texts", row["bits_per_word_of_test"], None, command),
    )


@dataclass(frozen=True)
class Definition:
    """A model of the package."""

    what: str
    data: str
    licence: str
    training: str
    """The options of `textdiffusion train`; paths are relative to the folder of the runs."""
    cpu_seconds: float
    options: str = ""
    """Recommended options of `sample` and `infill`."""
    settings: tuple[str, ...] = ()
    """Settings of the exported model that training did not have, such as how it samples."""
    tasks: tuple[tuple[str, str, int], ...] = ()
    """What a task's figures are called, the data that they are measured on, and the number of questions."""
    more: Callable[[TextDiffusion], tuple[Figure, ...]] = lambda model: ()
    """Other figures, measured in the folder of the runs."""
    prepare: Callable[[Path, Path], None] = nothing
    """Writes the training data into the folder of the runs."""


DEFINITIONS = {
    "shakespeare": Definition(
        what="dialogue of Shakespeare's plays, in subwords",
        data="34 plays by Shakespeare; two more for validation, two for the test",
        licence="weights MIT; the plays are in the public domain",
        training="""mdlm --data shakespeare --tokenizer bpe --length 128 --set text.vocab_size=2048 backbone.width=256
            backbone.depth=4 denoiser.ngram_dim=24 denoiser.ngram_rows=8192""",
        cpu_seconds=5700,
        options="--temperature 0.7",
    ),
    "restaurants": Definition(
        what="descriptions of restaurants, by food (label) and area, price and rating (source)",
        data="references of the E2E data set (Novikova et al. 2017), attributes read from the text",
        licence="CC BY-SA 4.0, as the data",
        training="""mdlm --data restaurants/train.csv --layout documents --tokenizer bpe --length 64
            --set text.test=restaurants/test.csv text.test_fraction=0 text.valid_fraction=0.02 text.field=text
            text.label=food text.source=wishes text.condition_dropout=0.1 text.model_padding=true text.too_long=drop
            text.vocab_size=1536 backbone.width=192 backbone.depth=4 denoiser.ngram_dim=24 denoiser.ngram_rows=8192""",
        cpu_seconds=1500,
        options='--label Italian --source "riverside, cheap" --temperature 0.7',
        more=wishes_followed,
        prepare=lambda data, runs: write_tables(data, runs / "restaurants"),
    ),
    "sudoku": Definition(
        what="sudokus with 24 to 28 givens, solved in any order",
        data="200,000 generated puzzles",
        licence="MIT",
        training="""mdlm --data sudoku:hard:200000 --set backbone.width=192 backbone.depth=6 backbone.conv_radius=0
            denoiser.ngram_dim=0 sampler.order=margin sampler.spaced=false""",
        cpu_seconds=3500,
        tasks=(
            ("hard puzzles solved", "sudoku:hard:1000:7", 100),
            ("medium puzzles solved", "sudoku:medium:1000:7", 60),
            ("easy puzzles solved", "sudoku:easy:1000:7", 60),
        ),
        settings=("sampler.greedy_below=1.0",),
    ),
}


def train(name: str, data: Path, runs: Path, cpu_seconds: float) -> Path:
    """Trains a model, or continues its training, with the package's own command; returns the run's folder."""
    definition = DEFINITIONS[name]
    definition.prepare(data, runs)
    out = runs / name
    limits = [f"training.max_cpu_seconds={cpu_seconds or definition.cpu_seconds}", "training.steps=100000"]
    limits += ["training.eval_every=1000", "training.checkpoint_every=500", "training.num_samples=1"]
    here = Path.cwd()
    os.chdir(runs)  # the paths of the data are in the configuration, where no path of this machine belongs
    try:
        command_line(["train", *definition.training.split(), *limits, "--out", name])
    finally:
        os.chdir(here)
    return out


def export(run: Path, name: str, windows: int, to: Path) -> Card:
    """Writes the model `name` of the package from a run; returns its card."""
    definition, cache = DEFINITIONS[name], default_cache()
    model = TextDiffusion.from_pretrained(run)
    if not model.text_sha256.keys() >= {*model.config.text.parts}:  # runs of earlier versions do not record all parts
        model = replace(model, text_sha256=prepare(model.config.text, cache, tokenizer=model.tokenizer).hashes)
    folder = to / name
    shutil.rmtree(folder, ignore_errors=True)
    config = apply_overrides(replace(model.config, text=portable(model.config.text)), definition.settings)
    replace(model, config=config).save_pretrained(folder, dtype="bfloat16")
    size = (folder / "model.safetensors").stat().st_size
    if size > MAX_BYTES:
        raise SystemExit(f"The weights of {name} have {size:,} bytes, more than {MAX_BYTES:,}.")
    data = write_excerpt(model, folder, definition)
    # The run's text, with the rounded weights and the exported settings.
    rounded = TextDiffusion.from_pretrained(folder)
    exported = replace(rounded, config=replace(config, text=model.config.text), text_sha256=model.text_sha256)
    figures, excerpt = measure(exported, name, definition, folder, data, windows, cache)
    figures += definition.more(exported)
    parameters = sum(p.numel() for p in model.model.parameters())
    cost = training_cost(run, config.training.batch_size)
    card = Card(
        name,
        definition.what,
        definition.data,
        definition.licence,
        config.recipe,
        parameters,
        cost,
        definition.options,
        figures,
        excerpt,
        {},
    )
    card = write_card(folder, card)
    text = model_card(name, config, parameters, model.tokenizer.vocab_size, "ema", folder, card)
    (folder / "README.md").write_text(text, encoding="utf-8")
    shutil.rmtree(folder / "measured", ignore_errors=True)
    (folder / "model.safetensors").chmod(0o644)
    total = sum(path.stat().st_size for path in to.glob("*/model.safetensors"))
    if total > MAX_TOTAL:
        raise SystemExit(f"The weights of all models have {total:,} bytes, more than {MAX_TOTAL:,}.")
    return card


def portable(text: TextConfig) -> TextConfig:
    """The settings with file names in the place of this machine's paths."""

    def name_of(path: str) -> str:
        return Path(path).name if is_path(path) else path

    return replace(text, data=name_of(text.data), valid=name_of(text.valid), test=name_of(text.test))


def write_excerpt(model: TextDiffusion, folder: Path, definition: Definition) -> str:
    """Writes held-out text into the folder and returns its name; of a task, the name of built-in data."""
    if definition.tasks:
        return definition.tasks[0][1]
    text = model.config.text
    if text.field:
        rows = held_out_records(text)
        with (folder / "heldout.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, [field for field in text.fields if field], extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows[:: max(1, len(rows) // EXCERPT_ROWS)][:EXCERPT_ROWS])
        return "heldout.csv"
    test = training_corpus(model, default_cache()).part("test")
    words = "\n".join(decode_texts(test.shard.tokens[:], model.tokenizer))
    start = words.index("\n\n", len(words) // 2) + 2  # a speech begins
    (folder / "heldout.txt").write_text(words[start : start + EXCERPT_CHARACTERS], encoding="utf-8")
    return "heldout.txt"


def held_out_records(text: TextConfig) -> list[dict[str, str]]:
    """The records of the test file, or of the last part of the data."""
    with Path(text.test or text.data).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return rows if text.test else rows[-max(1, int(len(rows) * text.test_fraction)) :]


def measure(
    model: TextDiffusion, name: str, definition: Definition, folder: Path, data: str, windows: int, cache: Path
) -> tuple[tuple[Figure, ...], Excerpt]:
    """The figures of the card, and those of the excerpt."""
    is_file = (folder / data).is_file()
    options = EvalOptions(data=str(folder / data) if is_file else data, num=0, draws=EXCERPT_DRAWS, windows=16)
    excerpt = RunEvaluator(model, options, cache, print)
    score = excerpt.likelihood()
    ngram = None
    if not definition.tasks:  # the cells of a puzzle have no order in which an n-gram could count
        ngram = kneser_ney(training_corpus(model, cache).train.shard, excerpt.heldout, model.tokenizer.vocab_size).bits
    answers = excerpt.task_score()
    figures: list[Figure] = []
    for what, questions, number in definition.tasks:
        solved = RunEvaluator(model, EvalOptions(data=questions, num=0, windows=number), cache, print).task_score()
        assert solved is not None
        command = COMMAND.format(name=name, data=f" --data {questions}", windows=number)
        figures.append(Figure(what, solved.accuracy, solved.error, command))
    if not definition.tasks:
        test = RunEvaluator(model, EvalOptions(num=0, windows=windows), cache, print)
        likelihood, baseline = test.likelihood(), test.ngram_baseline()
        assert baseline is not None
        command = COMMAND.format(name=name, data="", windows=windows)
        if is_path(model.config.text.data):
            command = f"python benchmarks/weights.py export RUN {name} --windows {windows}"
        figures.append(Figure("bits per character, test", likelihood.bits, likelihood.window_error, command))
        figures.append(Figure(f"the same of a {baseline.order}-gram", baseline.bits, None, command))
    return tuple(figures), Excerpt(
        data,
        options.windows,
        score.bits,
        score.monte_carlo_error,
        ngram,
        None if answers is None else answers.accuracy,
    )


def is_path(data: str) -> bool:
    """Whether data is a file, which others may not have."""
    return Path(data).is_file() or ("/" in data and not data.startswith("hf:"))


def training_cost(run: Path, batch_size: int) -> str:
    """Steps, tokens and CPU-seconds of a run."""
    logged = [record for record in history(run) if "tokens" in record]
    if not logged:
        return "unknown"
    last = logged[-1]
    return (
        f"{last['step']:,} steps of {batch_size} rows ({last['tokens'] / 1e6:.0f} million tokens) in "
        f"{last['cpu_seconds']:,.0f} CPU-seconds"
    )


def main() -> None:
    """Trains and exports."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    training, exporting = commands.add_parser("train"), commands.add_parser("export")
    training.add_argument("names", nargs="*", metavar="NAME", help=", ".join(DEFINITIONS))
    training.add_argument("--runs", type=Path, default=Path("runs/models"))
    training.add_argument("--cpu-seconds", type=float, default=0.0, help="of each training (0 = the definition's)")
    exporting.add_argument("run", type=Path)
    exporting.add_argument("name", choices=DEFINITIONS)
    exporting.add_argument("--texts", type=Path, help="the folder in which the run was trained (its own folder's)")
    training.add_argument("--data", type=Path, default=Path(os.environ.get("TEXTDIFFUSION_DATA", ".")))
    for each in (training, exporting):
        each.add_argument("--windows", type=int, default=256, help="of the test part")
        each.add_argument("--to", type=Path, default=root())
    given = parser.parse_args()
    to = given.to.absolute()
    if given.command == "export":
        run = given.run.absolute()
        os.chdir(given.texts or run.parent)  # where its data is
        print(export(run, given.name, given.windows, to))
        return
    if unknown := {*given.names} - {*DEFINITIONS}:
        parser.error(f"there is no model {', '.join(sorted(unknown))}; there are {', '.join(DEFINITIONS)}")
    runs = given.runs.absolute()
    runs.mkdir(parents=True, exist_ok=True)
    data = given.data.absolute()
    for name in given.names or DEFINITIONS:
        run = train(name, data, runs, given.cpu_seconds)
        os.chdir(runs)
        print(export(run, name, given.windows, to))


if __name__ == "__main__":
    main()
