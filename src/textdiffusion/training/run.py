"""Training from a configuration to a run folder."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

from rich.console import Console

from ..config.compatibility import check_train
from ..config.config import Config
from ..core.errors import UserError
from ..core.terminal import TextConsole
from ..data.chat import load_chat_template
from ..data.choices import choose
from ..data.documents import chat_template, with_copied_pipes
from ..data.labels import with_label_names
from ..data.prepare import default_cache, prepare
from ..data.tokenizers.loading import load
from ..objectives.distillation import Distillation
from ..storage.hub import find_run
from ..storage.weight_files import WeightFiles
from ..storage.weights import tensors_of
from .distributed import SingleProcess, process_group
from .events import Finished, stop_on_signals
from .initial import (
    is_language_model,
    keep_teacher,
    load_files,
    load_initial,
    references,
    weight_files_of,
    with_network_of,
    with_text_of,
)
from .loggers import Logger, MetricsFile, ProgressDisplay, SampleFiles, tracker
from .loop import TrainingLoop
from .run_folder import RunFolder
from .sharding import Sharded, must_shard
from .trainer import Trainer

Resume = Literal["auto", "never", "always"]


def train(
    config: Config,
    out: str | Path,
    *,
    resume: Resume = "auto",
    init: str | Path | None = None,
    init_network: bool = False,
    allow_changes: bool = False,
    device: str = "auto",
    track: tuple[str, ...] = (),
    cache: str | Path | None = None,
    console: Console | None = None,
) -> Finished:
    """Trains a model of `config` in the folder `out`, and returns the last event.

    `resume`: `auto` continues an existing run, `never` refuses one, `always` requires one. A run is continued with the
    settings it began with; with `allow_changes` learning rates, batch size and the like may differ. `init` is the
    folder of another run whose weights and tokenizer a new run starts from, instead of any `pretrained` ones;
    `init_network` takes the settings of its network too. `track` names trackers (`tensorboard`) in addition to
    `metrics.jsonl`. `cache` is the folder of prepared text. Under torchrun the processes share the global batch, and
    only the first one writes. SIGINT and SIGTERM save a checkpoint and return.

    Raises UserError if the folder is in use or holds another configuration, if the text cannot be used, if the device
    is missing, or if the loss becomes NaN or infinite (the last good checkpoint is kept).
    """
    cache = Path(cache or default_cache())
    if init_network and init is None:
        raise UserError("init_network takes the network of the run named by init, but init is missing.")
    is_new = not (Path(out) / "config.json").is_file()
    if init is not None and (is_new or init_network):
        init = find_run(init)  # once: a name may have to be fetched from the hub
    if init_network or (init is not None and is_new and is_language_model(config)):
        config = with_network_of(config, Path(str(init)))
    elif not is_new and is_language_model(config):
        config = with_network_of(config, Path(out))
    text = with_copied_pipes(config.text, cache)
    if not is_new:
        text = with_text_of(text, Path(out))
    elif init is not None:
        text = with_text_of(text, Path(init))
    text, chosen = choose(text, cache)
    config = replace(config, text=with_label_names(text, cache))
    folder = RunFolder(Path(out), config.training.keep_checkpoints)
    world = process_group()
    is_first = world.rank == 0
    console = (console or TextConsole()) if is_first else Console(quiet=True)
    if chosen:
        console.print(chosen, highlight=False, markup=False, soft_wrap=True)
    with ExitStack() as stack:
        if is_first:
            folder.check(config, allow_changes=allow_changes)
            stack.enter_context(folder.locked())
        loop = _make_loop(config, folder, resume, init, device, cache, console, world)
        world.barrier()  # no rank writes before all have read the folder
        loggers: list[Logger] = []
        if is_first:
            template = chat_template(config.text)
            if template is None and is_new and init is not None:
                template = load_chat_template(Path(init))
            if template is not None:
                folder.write_template(template)
            for note in folder.begin(config, loop.trainer.corpus.tokenizer, loop.state.step):
                console.print(note, highlight=False, markup=False, soft_wrap=True)
            if loop.trainer.teacher is not None and not loop.state.step:
                folder.save_teacher(tensors_of(loop.trainer.teacher))
            loggers = [MetricsFile(folder), SampleFiles(folder), ProgressDisplay(config.training, console)]
            loggers += [tracker(name, folder) for name in track]
            for logger in loggers:
                stack.enter_context(logger)
        stop = stack.enter_context(stop_on_signals())
        for event in loop.events(stop):
            for logger in loggers:
                logger(event)
    assert isinstance(event, Finished)
    return event


def _make_loop(
    config: Config,
    folder: RunFolder,
    resume: Resume,
    init: str | Path | None,
    device: str,
    cache: Path,
    console: Console,
    world: SingleProcess,
) -> TrainingLoop:
    """The loop at the start of a run, or at the latest intact checkpoint."""

    def log(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    rank_device = world.device(device)
    checkpoint = folder.checkpoints.latest(log)
    if resume == "never" and folder.config.exists():
        raise UserError(f"{folder.path} already holds a run; continue it with resume=auto, or use another folder.")
    if resume == "always" and checkpoint is None:
        raise UserError(f"{folder.path} has no checkpoint to resume from.")
    if checkpoint is None:
        folder.check_begin()
        check_train(config)
        if isinstance(config.objective, Distillation) and init is None:
            raise UserError(f"objective.kind={config.objective.kind} learns from another run: name it with --init.")
    tokenizer = None
    if checkpoint is not None and not checkpoint[1].learned_tokenizer:
        tokenizer = load(folder.tokenizer)
    elif checkpoint is None and init is not None:
        init = find_run(init)
        tokenizer = load(init / "tokenizer.json")
    corpus = prepare(config.text, cache, tokenizer=tokenizer, seed=config.training.seed)
    for note in corpus.notes:
        log(note)
    if checkpoint is not None:
        folder.check_tokenizer(corpus.tokenizer)
    if world.size > 1 and must_shard(config, corpus.tokenizer.vocab_size, rank_device):
        world = Sharded()
    begins_from = Path(init) if checkpoint is None and init is not None else None
    load_weights = partial(load_initial, config=config, run=begins_from, log=log) if begins_from else None
    if references(config):
        if begins_from is None and checkpoint is None:
            raise UserError("backbone.lora_rank adapts the weights of another run; name it with --init.")
        files = weight_files_of(begins_from) if begins_from else WeightFiles.read(folder.path)
        folder.files, load_weights = files, partial(load_files, files=files)
    trainer = Trainer(config, corpus, rank_device, world, log, load_weights)
    loop = TrainingLoop(trainer, folder)
    loop.state.learned_tokenizer = tokenizer is None
    if checkpoint is not None:
        loop.restore(*checkpoint)
        log(f"Continuing from step {checkpoint[1].step}.")
    elif load_weights is None:
        trainer.load_pretrained()
    keep_teacher(trainer, None if checkpoint is None else folder.teacher)
    return loop
