"""The training loop: a generator of records, the same for every family of model."""

from __future__ import annotations

import math
import time
import zlib
from collections.abc import Callable, Generator, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..config.build import build_model
from ..config.config import Config, Training
from ..core.batch import Batch
from ..core.devices import choose_dtype, seeded
from ..core.errors import UserError
from ..core.randomness import Rng
from ..core.registry import runnable
from ..data.conditions import condition_dropout, strip_source
from ..data.masks import sample_condition_mask
from ..data.prepare import Corpus
from ..samplers.base import Request
from ..samplers.masked_view import adapt_model
from ..storage import checkpoint
from ..storage.checkpoint import AVERAGED, OPTIMIZER, RAW, Best, State
from ..storage.weights import load_weights, tensors_of
from .compilation import compile_backbone, compile_skip_reason, eagerly
from .distributed import SingleProcess, TrainingStep
from .ema import EMA
from .events import Event, Finished, Logged, Sampled, Saved, Stop, Validated
from .optimizers import Optimizers, lr_scale
from .run_folder import RunFolder
from .validation import validate


class NonFiniteLoss(UserError):
    """Training has diverged."""


class Trainer:
    """A model in training: its weights, their average, the optimizers and where the run stands."""

    def __init__(
        self,
        config: Config,
        corpus: Corpus,
        folder: RunFolder,
        device: torch.device,
        world: SingleProcess,
        say: Callable[[str], None],
    ) -> None:
        self.config, self.training, self.corpus, self.folder = config, config.training, corpus, folder
        self.device, self.world, self.say = device, world, say
        if self.training.batch_size % (world.size * self.training.grad_accumulation):
            raise UserError(
                f"training.batch_size {self.training.batch_size} is not a multiple of {world.size} processes "
                f"times accumulate {self.training.grad_accumulation}."
            )
        with seeded(self.training.seed, device):
            self.model = build_model(config, corpus.tokenizer.vocab_size).to(device)
        self.objective, self.likelihood = runnable(config.objective), runnable(config.likelihood)
        dtype, reason = choose_dtype(self.training.dtype, device)
        self.model.denoiser.backbone.compute_dtype = dtype
        size = sum(p.numel() for p in self.model.parameters())
        say(f"{config.recipe}: {size:,} parameters on {device}, computing in {str(dtype)[6:]} ({reason}).")
        self.average = EMA(self.model, self.training.ema)
        self.optimizers = Optimizers(self.model, self.training)
        self.state = State(data=corpus.train.shard.header.sha256)
        self._unread: list[Tensor] = []
        self._names: list[str] = []
        self._since = (0, 0.0)  # tokens and wall seconds at the last log line
        self._process_start = time.process_time()

    def restore(self, path: Path, state: State) -> None:
        """Continues from a checkpoint. Raises UserError where the text is not the one the run began with."""
        if state.data != self.state.data:
            raise UserError(
                f"The training text has changed since {path} was written. Restore it, or use another folder."
            )
        self.state = state
        load_weights(self.model, path / RAW)
        load_weights(self.average.model, path / AVERAGED)
        self.optimizers.load(checkpoint.read(path, OPTIMIZER))
        self._since = (state.tokens, state.wall_seconds)
        self._process_start -= state.process_seconds
        if self._is_for_use() and self.world.rank == 0:  # its process may have ended before it wrote these
            self.folder.export(tensors_of(self.average.model))

    def initialise(self, weights: Path) -> None:
        """Begins from the weights of a file instead of random ones; what an objective counts begins anew."""
        for model in (self.model, self.average.model):
            load_weights(model, weights, exclude="step")

    def begin(self) -> None:
        """Begins from random weights, and from pretrained ones where the parts' settings name any."""
        config, model = self.config, self.model
        for note in (
            config.codec.load_pretrained(model.codec, self.corpus.tokenizer),
            config.backbone.load_pretrained(model.denoiser.backbone),
        ):
            if note:
                self.say(note)
        self.average.model.load_state_dict(model.state_dict())

    @property
    def progress(self) -> float:
        """The share of the run that lies behind: of its steps, or of a time limit if that is more."""
        training, state = self.training, self.state
        shares = [state.step / training.steps]
        if training.max_minutes:
            shares.append(state.wall_seconds / (60.0 * training.max_minutes))
        if training.max_cpu_seconds:
            shares.append(state.cpu_seconds / training.max_cpu_seconds)
        return min(1.0, max(shares))

    def events(self, stop: Stop) -> Iterator[Event]:
        """Trains to the end, or until `stop` is set; what is due after a step is done before the next.

        After a signal it is saved first; what else is due is done at once if the run is at its end, else when it is
        resumed. Raises NonFiniteLoss where the loss is no number any more.
        """
        training, state, stopping = self.training, self.state, False
        if self.progress < 1.0:
            self._compile()
        else:
            self.say("This run is complete; with more training.steps, or a larger limit, it goes on.")
        if state.validation_due or state.samples_due:
            yield from self._checks()
            yield self._save()
        step = self.world.wrap(TrainingStep(self.model, self.objective), self.device)
        while self.progress < 1.0 and not stopping:
            before = self.progress
            stopping = self._timed_step(step, stop)
            after = self.progress
            ended = after >= 1.0
            tenth = ended or int(10 * after) > int(10 * before)
            due = {every: not state.step % every if every else tenth for every in _intervals(training)}
            if due[training.log_every] or ended:
                yield self._log()
            state.validation_due = (due[training.eval_every] or ended) and self.corpus.valid is not None
            state.samples_due = (
                due[training.sample_every or training.eval_every] or ended
            ) and training.num_samples > 0
            if stopping:  # there may be little time left
                yield self._save()
            if ended or not stopping:
                improved = yield from self._checks()
                if due[training.checkpoint_every or training.eval_every] or improved or ended:
                    yield self._save()
        complete = self.progress >= 1.0
        signal = None if complete else stop.signal or "a signal to another rank"
        yield Finished(state.step, complete, signal, state.best)

    def _checks(self) -> Generator[Event, None, bool]:
        """The validation and the samples that are due; whether the bound is the best so far."""
        state, improved = self.state, False
        if state.validation_due:
            yield (validated := self._validate())
            improved = validated.best
        if state.samples_due and self.training.num_samples:
            yield Sampled(state.step, self._sample())
        state.validation_due = state.samples_due = False
        return improved

    def _compile(self) -> None:
        against = compile_skip_reason(self.config, self.model, self.device, self.state.compiled)
        if against is None:
            self.say(
                outcome := compile_backbone(
                    self.model, lambda: self._forward_backward(TrainingStep(self.model, self.objective))
                )
            )
            self.optimizers.zero_grad()
            against = None if outcome.startswith("Compiled") else outcome
        else:
            self.say(f"Not compiled: {against}.")
        self.state.compiled = against is None

    def _timed_step(self, module: torch.nn.Module, stop: Stop) -> bool:
        """One training step with its clocks; whether a signal, on any rank, asks to stop."""
        wall, cpu = time.perf_counter(), time.process_time()
        self._step(module)
        spent = [float(stop.signal is not None), time.process_time() - cpu, time.perf_counter() - wall]
        stops, cpu, wall = self.world.sum(torch.tensor(spent, dtype=torch.float64)).tolist()
        self.state.cpu_seconds += cpu
        self.state.wall_seconds += wall / self.world.size
        self.state.process_seconds = time.process_time() - self._process_start
        return stops > 0

    def _step(self, module: torch.nn.Module) -> None:
        state, training = self.state, self.training
        losses = self._forward_backward(module)
        self.factor = lr_scale(training, state.step, self.progress)
        norm = self.optimizers.step(self.factor)
        self.model.after_step()
        self.average.update(state.step)
        state.step += 1
        state.tokens += training.batch_size * self.corpus.train.length
        self._unread.append(torch.stack((*losses, norm)))
        # Reading waits for the device, which costs nothing on a CPU alone.
        alone = self.device.type == "cpu" and self.world.size == 1
        if alone or not state.step % training.log_every:
            self._read()

    def _forward_backward(self, module: torch.nn.Module) -> list[Tensor]:
        """Gradients of the mean loss of this rank's rows; the loss and its parts."""
        training, step = self.training, self.state.step
        share = training.batch_size // self.world.size
        size = share // training.grad_accumulation
        sums: list[Tensor] = []
        for part in range(training.grad_accumulation):
            first = self.world.rank * share + part * size
            batch = self.corpus.train.batch(step, range(first, first + size), batch_size=training.batch_size)
            batch = batch.to(self.device)
            assert batch.row_ids is not None
            rng = Rng.of(training.seed, batch.row_ids).fork("train").fork(step)
            batch = self._conditioned(batch, rng)
            last = part == training.grad_accumulation - 1
            with (
                nullcontext() if last else self.world.unsynchronised(module),
                seeded(zlib.crc32(f"dropout {training.seed} {step} {first}".encode()), self.device),
            ):
                loss = module(batch, rng)
                (loss.total / training.grad_accumulation).backward()
            if self._names != (names := ["loss", *loss.parts]):
                self._read()  # the steps before had other parts
                self._names = names
            losses = [loss.total.detach(), *loss.parts.values()]
            sums = [a + b for a, b in zip(sums, losses, strict=True)] if sums else losses
        return [value / training.grad_accumulation for value in sums]

    def _conditioned(self, batch: Batch, rng: Rng) -> Batch:
        """The batch with what training gives of its text, in part of its rows hidden again."""
        text = self.config.text
        if text.mask not in ("none", "question"):
            given = sample_condition_mask(text.mask, batch.target_mask, rng.fork("given"), batch.segment_ids)
            batch = replace(
                batch, condition_mask=given if batch.condition_mask is None else given | batch.condition_mask
            )
        if text.condition_dropout:
            pad = self.corpus.tokenizer.pad_id
            assert pad is not None
            batch = condition_dropout(batch, text.condition_dropout, pad, rng.fork("drop"))
        return batch

    def _read(self) -> None:
        """Moves losses from the device to the window of the next log line. Raises NonFiniteLoss."""
        if not self._unread:
            return
        values = self.world.sum(torch.stack(self._unread).cpu().double()) / self.world.size
        first = self.state.step - len(self._unread) + 1
        self._unread.clear()
        for step, row in enumerate(values.tolist(), first):
            if not (math.isfinite(row[0]) and math.isfinite(row[-1])):
                raise NonFiniteLoss(self._diverged(step, row[0], row[-1]))
            for name, value in zip((*self._names, "grad_norm"), row, strict=True):
                self.state.window.setdefault(name, []).append(value)

    def _diverged(self, step: int, loss: float, norm: float) -> str:
        kept = self.folder.checkpoints.paths()
        left = f"The last good checkpoint is {kept[-1]}" if kept else "There is no checkpoint yet"
        return (
            f"Training diverged at step {step}: loss {loss:g}, gradient norm {norm:g}. {left}; see how loss and "
            f"grad_norm grew in {self.folder.metrics}, and try a smaller training.lr or training.grad_clip."
        )

    def _log(self) -> Logged:
        self._read()
        state = self.state
        means = {name: sum(values) / len(values) for name, values in state.window.items()}
        state.window = {}
        tokens, wall = state.tokens - self._since[0], state.wall_seconds - self._since[1]
        self._since = (state.tokens, state.wall_seconds)
        return Logged(
            step=state.step,
            progress=self.progress,
            loss=means.pop("loss"),
            grad_norm=means.pop("grad_norm"),
            parts=means,
            rate=self.factor,
            tokens=state.tokens,
            tokens_per_second=tokens / max(wall, 1e-9),
            cpu_seconds=state.cpu_seconds,
            wall_seconds=state.wall_seconds,
            process_seconds=state.process_seconds,
        )

    def _validate(self) -> Validated:
        self._read()
        training, state, dataset = self.training, self.state, self.corpus.valid
        assert dataset is not None
        rows = max(1, training.batch_size // self.world.size // training.grad_accumulation)
        arguments = dataset, training.eval_windows, rows, training.seed, self.world
        averaged = validate(self.average.model, self.likelihood, *arguments)
        with eagerly(self.model):
            raw = validate(self.model, self.likelihood, *arguments)
        best = state.best is None or averaged.bits < state.best.bits
        if best:
            state.best = Best(state.step, averaged.bits)
        return Validated(
            step=state.step,
            bits=averaged.bits,
            error=averaged.error,
            raw_bits=raw.bits,
            raw_error=raw.error,
            windows=raw.windows,
            dtype=str(self.model.denoiser.backbone.compute_dtype).removeprefix("torch."),
            best=best,
            cpu_seconds=state.cpu_seconds,
        )

    @torch.no_grad()
    def _sample(self) -> list[str]:
        """Samples of the averaged weights, drawn on the first rank, for sources and labels of the validation text."""
        if self.world.rank:
            return []
        model, text, corpus = self.average.model, self.config.text, self.corpus
        count, steps = self.training.num_samples, self.config.sampler.steps or text.length
        request = Request.blank(count, text.length, steps, device=str(self.device))
        if text.source or text.label:
            shown = (corpus.valid or corpus.train).windows(np.arange(count) % len(corpus.valid or corpus.train))
            request = replace(request, batch=replace(shown, valid_mask=None).to(self.device))
        rng = Rng.of(self.training.seed, count, self.device).fork("samples").fork(self.state.step)
        ids = None
        sampler = runnable(self.config.sampler)
        for step in sampler(adapt_model(sampler, model, self.training.seed), request, rng=rng):
            ids = step.tokens
        rows = [] if ids is None else list(ids.cpu().numpy())
        return [corpus.tokenizer.decode(strip_source(row, text, corpus.tokenizer)) for row in rows]

    def _save(self) -> Saved:
        self._read()
        state = self.state
        path = self.folder.checkpoints.path(state.step)
        if self.world.rank == 0:
            raw, averaged = tensors_of(self.model), tensors_of(self.average.model)
            if not all(t.isfinite().all() for t in raw.values() if t.is_floating_point()):
                raise NonFiniteLoss(self._diverged(state.step, math.nan, math.nan))
            self.folder.checkpoints.save(state, {RAW: raw, AVERAGED: averaged, OPTIMIZER: self.optimizers.tensors()})
            if self._is_for_use():
                self.folder.export(averaged)
        self.world.barrier()
        return Saved(state.step, path)

    def _is_for_use(self) -> bool:
        """Whether this step's weights are those to evaluate and sample: the best, or the last if none was validated."""
        return self.state.best is None or self.state.best.step == self.state.step


def _intervals(training: Training) -> set[int]:
    return {training.log_every, training.eval_every, training.sample_every, training.checkpoint_every}
