"""The training loop: a generator of events. It saves, validates, samples and stops."""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..core.errors import UserError
from ..core.shards import local
from ..storage.checkpoint import AVERAGED, OPTIMIZER, RAW, Best, TrainingState, read_tensors
from ..storage.weights import join_saving, load_into, tensors_of
from .compilation import compile_backbone, compile_skip_reason, force_eager
from .events import Event, Finished, Logged, Sampled, Saved, StopSignal, Validated
from .optimizers import lr_scale
from .run_folder import RunFolder
from .trainer import Trainer, TrainingStep
from .validation import sample_texts, validate


class NonFiniteLoss(UserError):
    """Training has diverged."""


class TrainingLoop:
    """The steps of a trainer, with the state of the run and its folder."""

    def __init__(self, trainer: Trainer, folder: RunFolder) -> None:
        self.trainer, self.folder = trainer, folder
        self.training, self.world, self.log = trainer.training, trainer.world, trainer.log
        self.state = TrainingState(text_sha256=trainer.corpus.train.shard.header.sha256, dtype=self._dtype)
        self.lr_scale = 0.0
        self._unread: list[Tensor] = []  # losses and gradient norms of recent steps, on the device
        self._loss_names: list[str] = []
        self._last_logged = (0, 0.0)  # tokens and wall seconds at the last log line
        self._process_start = time.process_time()

    def restore(self, path: Path, state: TrainingState) -> None:
        """Continues from a checkpoint. Raises UserError if the training text has changed, or it is of another run."""
        if state.text_sha256 != self.state.text_sha256:
            raise UserError(
                f"The training text has changed since {path} was written. Restore it, or use another folder."
            )
        self.folder.check_identity(state.identity, self.trainer.config, path)
        if state.dtype and state.dtype != self._dtype:
            self.log(
                f"This run computed in {state.dtype} until step {state.step} and now continues in {self._dtype}: its "
                "figures before and after differ slightly."
            )
        state.dtype = self._dtype
        self.state = state
        load_into(tensors_of(self.trainer.model), path / RAW)
        load_into(self.trainer.ema.tensors(), path / AVERAGED)
        self.trainer.optimizers.load(read_tensors(path, OPTIMIZER))
        self._last_logged = (state.tokens, state.wall_seconds)
        self._process_start -= state.process_seconds
        if self.world.rank == 0:
            self._restore_exported(path)

    @property
    def _dtype(self) -> str:
        """The precision of the network's features."""
        return str(self.trainer.model.denoiser.backbone.compute_dtype).removeprefix("torch.")

    def _restore_exported(self, path: Path) -> None:
        """Exports the weights again if the process ended before it did, or if they were damaged or replaced."""
        if self._is_exported_step():
            self._export(path)
        elif not self.folder.has_exported(self.trainer.config, self.trainer.ema.model):
            best = self.folder.checkpoints.best(self.state, self.log)
            self._export(best or path)
            step = self.state.step if best is None or self.state.best is None else self.state.best.step
            self.log(f"{self.folder.weights} was missing or damaged; it has the weights of step {step} again.")

    def _export(self, checkpoint: Path) -> None:
        """Writes the averaged weights of a checkpoint as those of the run."""
        tensors = read_tensors(checkpoint, AVERAGED)
        self.folder.export(tensors, self._identity())
        if self.folder.files is not None:
            self.folder.export_adapter(self.trainer.model.denoiser.backbone, tensors)

    def _identity(self) -> dict[str, Any]:
        return self.folder.identity(self.trainer.config, self.trainer.corpus.hashes)

    @property
    def progress(self) -> float:
        """The completed fraction of the run: of its steps, or of a time limit if that is more."""
        training, state = self.training, self.state
        fractions = [state.step / training.steps]
        if training.max_minutes:
            fractions.append(state.wall_seconds / (60.0 * training.max_minutes))
        if training.max_cpu_seconds:
            fractions.append(state.cpu_seconds / training.max_cpu_seconds)
        return min(1.0, max(fractions))

    def events(self, stop: StopSignal) -> Iterator[Event]:
        """Trains to the end of the run, or until `stop`; work due after a step runs before the next step.

        After a signal the run is saved first; what else is due is done at once if the run has ended, else when it is
        resumed. Raises NonFiniteLoss if the loss becomes NaN or infinite.
        """
        training, state, stopping = self.training, self.state, False
        if self.progress < 1.0:
            stopping = self._compile(stop)
            if stopping:
                yield self._save()
        else:
            self.log("This run is complete. Raise training.steps, or its time limit, to continue.")
        if state.validation_due or state.samples_due:
            yield from self._checks()
            yield self._save()
        module = self.trainer.distribute()
        while self.progress < 1.0 and not stopping:
            before = self.progress
            stopping = self._timed_step(module, stop)
            if self._is_due(training.log_every, before):
                yield self._log_losses()
            has_valid = self.trainer.corpus.valid is not None
            sample_every = training.sample_every or training.eval_every
            state.validation_due = has_valid and self._is_due(training.eval_every, before)
            state.samples_due = training.num_samples > 0 and self._is_due(sample_every, before)
            if stopping:  # there may be little time left
                yield self._save()
            if not stopping or self.progress >= 1.0:
                improved = yield from self._checks()
                if improved or self._is_due(training.checkpoint_every or training.eval_every, before):
                    yield self._save()
        complete = self.progress >= 1.0
        signal = None if complete else stop.signal or "a signal to another rank"
        yield Finished(state.step, complete, signal, state.best)

    def _is_due(self, every: int, before: float) -> bool:
        """Whether the step ends an interval of `every` steps, or of a tenth of the run if 0, or the run itself.

        `before` is the progress before the step.
        """
        if self.progress >= 1.0:
            return True
        return self.state.step % every == 0 if every else int(10 * self.progress) > int(10 * before)

    def _timed_step(self, module: nn.Module, stop: StopSignal) -> bool:
        """One training step with its clocks; whether a signal to any rank asks to stop."""
        wall, cpu = time.perf_counter(), time.process_time()
        self._step(module)
        spent = [float(stop.signal is not None), time.process_time() - cpu, time.perf_counter() - wall]
        stops, cpu, wall = self.world.sum(torch.tensor(spent, dtype=torch.float64)).tolist()
        self.state.cpu_seconds += cpu
        self.state.wall_seconds += wall / self.world.size
        self.state.process_seconds = time.process_time() - self._process_start
        return stops > 0

    def _step(self, module: nn.Module) -> None:
        state, training = self.state, self.training
        self.lr_scale = lr_scale(training, state.step, self.progress)
        losses = self.trainer.step(module, state.step, self.lr_scale)
        if self._loss_names != (names := list(losses)):
            self._read_losses()  # earlier steps had other parts
            self._loss_names = names
        state.step += 1
        state.tokens += training.batch_size * self.trainer.corpus.train.length
        self._unread.append(torch.stack(list(losses.values())))
        # Reading waits for the device, which costs nothing on a single CPU.
        single_cpu = self.trainer.device.type == "cpu" and self.world.size == 1
        if single_cpu or not state.step % training.log_every:
            self._read_losses()

    def _compile(self, stop: StopSignal) -> bool:
        """Compiles the backbone, or says why not. Returns whether a signal came meanwhile: it ends compilers too."""
        trainer, state = self.trainer, self.state
        skip_reason = compile_skip_reason(trainer.config, trainer.model, trainer.device, state.compiled)
        if self.world.shards:
            skip_reason = "the network is divided among processes"
        if skip_reason is None:
            self.log("Compiling (about a minute, once) ...")
            module = TrainingStep(trainer.model, trainer.objective)
            outcome = compile_backbone(trainer.model, lambda: trainer.forward_backward(module, state.step))
            trainer.optimizers.zero_grad()
            if stop.signal is not None and self.world.size == 1:  # several ranks stop together, after a step
                return True
            self.log(outcome)
            state.compiled = outcome.startswith("Compiled")
        else:
            self.log(f"Not compiled: {skip_reason}.")
            state.compiled = False
        return False

    def _read_losses(self) -> None:
        """Moves losses from the device to `state.unlogged`. Raises NonFiniteLoss."""
        if not self._unread:
            return
        values = self.world.sum(torch.stack(self._unread).cpu().double()) / self.world.size
        first_step = self.state.step - len(self._unread) + 1
        self._unread.clear()
        for step, row in enumerate(values.tolist(), first_step):
            losses = dict(zip(self._loss_names, row, strict=True))
            if not (math.isfinite(losses["loss"]) and math.isfinite(losses["grad_norm"])):
                raise self._divergence(step, losses["loss"], losses["grad_norm"])
            for name, value in losses.items():
                self.state.unlogged.setdefault(name, []).append(value)

    def _divergence(self, step: int, loss: float, norm: float) -> NonFiniteLoss:
        checkpoints = self.folder.checkpoints.paths()
        last = f"The last good checkpoint is {checkpoints[-1]}" if checkpoints else "There is no checkpoint yet"
        return NonFiniteLoss(
            f"Training diverged at step {step}: loss {loss:g}, gradient norm {norm:g}. {last}; see how loss and "
            f"grad_norm grew in {self.folder.metrics}, and try a smaller training.lr or training.grad_clip."
        )

    def _log_losses(self) -> Logged:
        self._read_losses()
        state = self.state
        means = {name: sum(values) / len(values) for name, values in state.unlogged.items()}
        state.unlogged = {}
        tokens, wall = state.tokens - self._last_logged[0], state.wall_seconds - self._last_logged[1]
        self._last_logged = (state.tokens, state.wall_seconds)
        return Logged(
            step=state.step,
            progress=self.progress,
            loss=means.pop("loss"),
            grad_norm=means.pop("grad_norm"),
            parts=means,
            lr_scale=self.lr_scale,
            tokens=state.tokens,
            tokens_per_second=tokens / max(wall, 1e-9),
            cpu_seconds=state.cpu_seconds,
            wall_seconds=state.wall_seconds,
            process_seconds=state.process_seconds,
        )

    def _checks(self) -> Generator[Event, None, bool]:
        """The validation and the samples that are due; whether the bound is the best so far."""
        state, trainer, improved = self.state, self.trainer, False
        if state.validation_due:
            yield (validated := self._validate())
            improved = validated.best
        if state.samples_due and self.training.num_samples:
            texts: list[str] = []
            arguments = trainer.config, trainer.corpus, trainer.device, state.step
            if self.world.rank == 0 or self.world.shards:
                with trainer.ema.applied() as model:
                    texts = self.world.call(sample_texts, model, *arguments)
            yield Sampled(state.step, texts)
        state.validation_due = state.samples_due = False
        return improved

    def _validate(self) -> Validated:
        self._read_losses()
        training, state, trainer = self.training, self.state, self.trainer
        dataset = trainer.corpus.valid
        assert dataset is not None
        rows = max(1, training.batch_size // self.world.size // training.grad_accumulation)
        arguments = trainer.config.likelihood, dataset, training.eval_windows, rows, training.seed, self.world
        with trainer.ema.applied() as model:
            averaged = self.world.call(validate, model, *arguments)
        with force_eager(trainer.model):
            raw = self.world.call(validate, trainer.model, *arguments)
        best = state.best is None or averaged.bits < state.best.bits or not trainer.config.objective.follows_bound
        if best:
            state.best = Best(state.step, averaged.bits)
        return Validated(
            step=state.step,
            bits=averaged.bits,
            error=averaged.error,
            raw_bits=raw.bits,
            raw_error=raw.error,
            windows=raw.windows,
            dtype=self._dtype,
            best=best,
            cpu_seconds=state.cpu_seconds,
        )

    def _save(self) -> Saved:
        self._read_losses()
        state = self.state
        path = self.folder.checkpoints.path(state.step)
        raw = tensors_of(self.trainer.model)
        diverged = not all(local(t).isfinite().all() for t in raw.values() if t.is_floating_point())
        if self.world.sum(torch.tensor(float(diverged))):
            raise self._divergence(state.step, math.nan, math.nan)
        tensors = {RAW: raw, AVERAGED: self.trainer.ema.tensors(), OPTIMIZER: self.trainer.optimizers.tensors()}
        if self.world.rank == 0:
            state.identity = self._identity()
            self.folder.save(state, tensors)
            if self._is_exported_step():
                self._export(path)
        elif self.world.shards:
            for content in tensors.values():
                join_saving(content)
        self.world.barrier()
        return Saved(state.step, path)

    def _is_exported_step(self) -> bool:
        """Whether this step's weights are the exported ones: the best, or the last if none was validated."""
        return self.state.best is None or self.state.best.step == self.state.step
