"""Training from a configuration to a run folder."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Literal

from rich.console import Console

from ..config.compatibility import check_train
from ..config.config import Config
from ..core.errors import UserError
from ..data.labels import with_label_names
from ..data.prepare import default_cache, prepare
from ..data.tokenizers.loading import load
from ..storage.hub import find_run
from .distributed import SingleProcess, process_group
from .events import Finished, stop_on_signals
from .loggers import Logger, MetricsFile, ProgressDisplay, SampleFiles, tracker
from .run_folder import RunFolder
from .trainer import Trainer

Resume = Literal["auto", "never", "always"]


def train(
    config: Config,
    out: str | Path,
    *,
    resume: Resume = "auto",
    init: str | Path | None = None,
    device: str = "auto",
    track: tuple[str, ...] = (),
    cache: str | Path | None = None,
    console: Console | None = None,
) -> Finished:
    """Trains what `config` says in the folder `out`, and returns the last record.

    `resume`: `auto` continues a run that is there, `never` refuses it, `always` refuses its absence. `init` is another
    run's folder whose weights and tokenizer a new run starts from, in place of any `pretrained` ones. `track` names
    trackers (`tensorboard`) beside `metrics.jsonl`. `cache` keeps prepared text. Under torchrun the processes share the
    global batch; the first one alone writes. SIGINT and SIGTERM save and return. Raises UserError for a folder in use
    or of another configuration, text that cannot be used, a missing device, and a loss that is no number (the last good
    checkpoint is kept).
    """
    cache = Path(cache or default_cache())
    config = replace(config, text=with_label_names(config.text, cache))
    folder = RunFolder(Path(out), config.training.keep_checkpoints)
    ranks = process_group()
    first = ranks.rank == 0
    console = (console or Console()) if first else Console(quiet=True)
    with ExitStack() as stack:
        if first:
            folder.check(config)
            stack.enter_context(folder.locked())
        trainer = _trainer(config, folder, resume, init, device, cache, console, ranks)
        ranks.barrier()  # all have seen the folder as it was
        sinks: list[Logger] = []
        if first:
            folder.begin(config, trainer.corpus.tokenizer, trainer.state.step)
            sinks = [MetricsFile(folder), SampleFiles(folder), ProgressDisplay(config.training, console)]
            sinks += [tracker(name, folder) for name in track]
            for sink in sinks:
                stack.enter_context(sink)
        stop = stack.enter_context(stop_on_signals())
        for record in trainer.events(stop):
            for sink in sinks:
                sink(record)
    assert isinstance(record, Finished)
    return record


def _trainer(
    config: Config,
    folder: RunFolder,
    resume: Resume,
    init: str | Path | None,
    device: str,
    cache: Path,
    console: Console,
    ranks: SingleProcess,
) -> Trainer:
    """The trainer at the beginning of the run, or where its last whole checkpoint left off."""

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    chosen = ranks.device(device)
    found = folder.checkpoints.latest(say)
    if resume == "never" and folder.config.exists():
        raise UserError(f"{folder.path} holds a run already; continue it with resume=auto, or use another folder.")
    if resume == "always" and found is None:
        raise UserError(f"{folder.path} has no checkpoint to resume from.")
    if found is None:
        check_train(config)
    tokenizer = None
    if found is not None and not found[1].own_tokenizer:
        tokenizer = load(folder.tokenizer)
    elif found is None and init is not None:
        init = find_run(init)
        tokenizer = load(init / "tokenizer.json")
    corpus = prepare(config.text, cache, tokenizer=tokenizer, seed=config.training.seed)
    for note in corpus.notes:
        say(note)
    if found is not None:
        folder.check_tokenizer(corpus.tokenizer)
    trainer = Trainer(config, corpus, folder, chosen, ranks, say)
    trainer.state.own_tokenizer = tokenizer is None
    if found is not None:
        trainer.restore(*found)
        say(f"Continuing from step {found[1].step}.")
    elif init is not None:
        trainer.load_initial_weights(Path(init) / "model.safetensors")
    else:
        trainer.load_pretrained()
    return trainer
