"""The training loop: a generator of events, the same for every family of models."""

from __future__ import annotations

import math
import time
import zlib
from collections.abc import Callable, Generator, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from ..config.build import build_model
from ..config.config import Config
from ..core.batch import Batch
from ..core.devices import choose_dtype, seeded
from ..core.errors import UserError
from ..core.randomness import Rng
from ..data.conditions import condition_dropout
from ..data.masks import sample_condition_mask
from ..data.prepare import Corpus
from ..diffusion.table_codecs import Embeddings
from ..networks.bert import load_pretrained_embeddings
from ..storage.checkpoint import AVERAGED, OPTIMIZER, RAW, Best, TrainingState, read_tensors
from ..storage.weights import load_weights, tensors_of
from .compilation import compile_backbone, compile_skip_reason, force_eager
from .distributed import SingleProcess, TrainingStep
from .ema import EMA
from .events import Event, Finished, Logged, Sampled, Saved, StopSignal, Validated
from .optimizers import Optimizers, lr_scale
from .run_folder import RunFolder
from .validation import sample_texts, validate


class NonFiniteLoss(UserError):
    """Training has diverged."""


class Trainer:
    """A model in training: its weights, their average, the optimizers and the state of the run."""

    def __init__(
        self,
        config: Config,
        corpus: Corpus,
        folder: RunFolder,
        device: torch.device,
        world: SingleProcess,
        log: Callable[[str], None],
    ) -> None:
        self.config, self.training, self.corpus, self.folder = config, config.training, corpus, folder
        self.device, self.world, self.log = device, world, log
        if self.training.batch_size % (world.size * self.training.grad_accumulation):
            raise UserError(
                f"training.batch_size {self.training.batch_size} is not a multiple of {world.size} processes "
                f"times grad_accumulation {self.training.grad_accumulation}."
            )
        with seeded(self.training.seed, device):
            self.model = build_model(config, corpus.tokenizer.vocab_size).to(device)
        self.objective, self.likelihood = config.objective, config.likelihood
        dtype, reason = choose_dtype(self.training.dtype, device)
        self.model.denoiser.backbone.compute_dtype = dtype
        size = sum(p.numel() for p in self.model.parameters())
        log(f"{config.recipe}: {size:,} parameters on {device}, computing in {str(dtype)[6:]} ({reason}).")
        self.ema = EMA(self.model, self.training.ema)
        self.optimizers = Optimizers(self.model, self.training)
        self.state = TrainingState(text_sha256=corpus.train.shard.header.sha256)
        self._unread: list[Tensor] = []  # losses and gradient norms of recent steps, on the device
        self._loss_names: list[str] = []
        self._last_logged = (0, 0.0)  # tokens and wall seconds at the last log line
        self._process_start = time.process_time()

    def load_pretrained(self) -> None:
        """Loads pretrained weights into a new run, for parts whose settings name any."""
        config, model = self.config, self.model
        if isinstance(config.codec, Embeddings) and config.codec.pretrained:
            self.log(load_pretrained_embeddings(model.codec, Path(config.codec.pretrained), self.corpus.tokenizer))
        if note := config.backbone.load_pretrained(model.denoiser.backbone):
            self.log(note)
        self.ema.model.load_state_dict(model.state_dict())

    def load_initial_weights(self, weights: Path) -> None:
        """Starts a new run from the weights of another one; its step starts at 0."""
        for model in (self.model, self.ema.model):
            load_weights(model, weights, exclude="step")

    def restore(self, path: Path, state: TrainingState) -> None:
        """Continues from a checkpoint. Raises UserError if the training text has changed."""
        if state.text_sha256 != self.state.text_sha256:
            raise UserError(
                f"The training text has changed since {path} was written. Restore it, or use another folder."
            )
        self.state = state
        load_weights(self.model, path / RAW)
        load_weights(self.ema.model, path / AVERAGED)
        self.optimizers.load(read_tensors(path, OPTIMIZER))
        self._last_logged = (state.tokens, state.wall_seconds)
        self._process_start -= state.process_seconds
        if self._is_exported_step() and self.world.rank == 0:  # the process may have ended before it exported them
            self.folder.export(tensors_of(self.ema.model))

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
        """Trains to the end of the run, or until `stop`; what is due after a step is done before the next one.

        After a signal the run is saved first; what else is due is done at once if the run has ended, else when it is
        resumed. Raises NonFiniteLoss if the loss becomes NaN or infinite.
        """
        training, state, stopping = self.training, self.state, False
        if self.progress < 1.0:
            self._compile()
        else:
            self.log("This run is complete; with more training.steps, or a larger limit, it continues.")
        if state.validation_due or state.samples_due:
            yield from self._checks()
            yield self._save()
        step = self.world.wrap(TrainingStep(self.model, self.objective), self.device)
        while self.progress < 1.0 and not stopping:
            before = self.progress
            stopping = self._timed_step(step, stop)
            if self._is_due(training.log_every, before):
                yield self._log_losses()
            has_valid, sample_every = self.corpus.valid is not None, training.sample_every or training.eval_every
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
        losses = self._forward_backward(module)
        self.lr_scale = lr_scale(training, state.step, self.progress)
        norm = self.optimizers.step(self.lr_scale)
        self.model.after_step()
        self.ema.update(state.step)
        state.step += 1
        state.tokens += training.batch_size * self.corpus.train.length
        self._unread.append(torch.stack((*losses, norm)))
        # Reading waits for the device, which costs nothing on a single CPU.
        single_cpu = self.device.type == "cpu" and self.world.size == 1
        if single_cpu or not state.step % training.log_every:
            self._read_losses()

    def _forward_backward(self, module: nn.Module) -> list[Tensor]:
        """Gradients of the mean loss over this rank's rows; returns the loss and its parts."""
        training, step = self.training, self.state.step
        rank_size = training.batch_size // self.world.size
        size = rank_size // training.grad_accumulation
        sums: list[Tensor] = []
        for i in range(training.grad_accumulation):
            first_row = self.world.rank * rank_size + i * size
            rows = range(first_row, first_row + size)
            batch = self.corpus.train.batch(step, rows, batch_size=training.batch_size).to(self.device)
            assert batch.row_ids is not None
            rng = Rng.of(training.seed, batch.row_ids).fork("train").fork(step)
            batch = self._with_conditions(batch, rng)
            is_last = i == training.grad_accumulation - 1
            with (
                nullcontext() if is_last else self.world.no_sync(module),
                seeded(zlib.crc32(f"dropout {training.seed} {step} {first_row}".encode()), self.device),
            ):
                loss = module(batch, rng)
                (loss.total / training.grad_accumulation).backward()
            if self._loss_names != (names := ["loss", *loss.parts]):
                self._read_losses()  # earlier steps had other parts
                self._loss_names = names
            losses = [loss.total.detach(), *loss.parts.values()]
            sums = [a + b for a, b in zip(sums, losses, strict=True)] if sums else losses
        return [value / training.grad_accumulation for value in sums]

    def _with_conditions(self, batch: Batch, rng: Rng) -> Batch:
        """The batch with the condition mask of `text.mask`, and conditions dropped from a fraction of the rows."""
        text = self.config.text
        if text.mask not in ("none", "question"):
            mask = sample_condition_mask(text.mask, batch.target_mask, rng.fork("given"), batch.segment_ids)
            batch = replace(batch, condition_mask=mask if batch.condition_mask is None else mask | batch.condition_mask)
        if text.condition_dropout:
            pad = self.corpus.tokenizer.pad_id
            assert pad is not None
            batch = condition_dropout(batch, text.condition_dropout, pad, rng.fork("drop"))
        return batch

    def _compile(self) -> None:
        skip_reason = compile_skip_reason(self.config, self.model, self.device, self.state.compiled)
        if skip_reason is None:
            step = TrainingStep(self.model, self.objective)
            outcome = compile_backbone(self.model, lambda: self._forward_backward(step))
            self.optimizers.zero_grad()
            self.log(outcome)
            self.state.compiled = outcome.startswith("Compiled")
        else:
            self.log(f"Not compiled: {skip_reason}.")
            self.state.compiled = False

    def _read_losses(self) -> None:
        """Moves losses from the device to `state.unlogged`. Raises NonFiniteLoss."""
        if not self._unread:
            return
        values = self.world.sum(torch.stack(self._unread).cpu().double()) / self.world.size
        first_step = self.state.step - len(self._unread) + 1
        self._unread.clear()
        for step, row in enumerate(values.tolist(), first_step):
            loss, norm = row[0], row[-1]
            if not (math.isfinite(loss) and math.isfinite(norm)):
                raise NonFiniteLoss(self._divergence_message(step, loss, norm))
            for name, value in zip((*self._loss_names, "grad_norm"), row, strict=True):
                self.state.unlogged.setdefault(name, []).append(value)

    def _divergence_message(self, step: int, loss: float, norm: float) -> str:
        checkpoints = self.folder.checkpoints.paths()
        last = f"The last good checkpoint is {checkpoints[-1]}" if checkpoints else "There is no checkpoint yet"
        return (
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
        state, improved = self.state, False
        if state.validation_due:
            yield (validated := self._validate())
            improved = validated.best
        if state.samples_due and self.training.num_samples:
            is_first = self.world.rank == 0
            texts = sample_texts(self.ema.model, self.config, self.corpus, self.device, state.step) if is_first else []
            yield Sampled(state.step, texts)
        state.validation_due = state.samples_due = False
        return improved

    def _validate(self) -> Validated:
        self._read_losses()
        training, state, dataset = self.training, self.state, self.corpus.valid
        assert dataset is not None
        rows = max(1, training.batch_size // self.world.size // training.grad_accumulation)
        arguments = self.likelihood, dataset, training.eval_windows, rows, training.seed, self.world
        averaged = validate(self.ema.model, *arguments)
        with force_eager(self.model):
            raw = validate(self.model, *arguments)
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

    def _save(self) -> Saved:
        self._read_losses()
        state = self.state
        path = self.folder.checkpoints.path(state.step)
        if self.world.rank == 0:
            raw, averaged = tensors_of(self.model), tensors_of(self.ema.model)
            if not all(t.isfinite().all() for t in raw.values() if t.is_floating_point()):
                raise NonFiniteLoss(self._divergence_message(state.step, math.nan, math.nan))
            self.folder.checkpoints.save(state, {RAW: raw, AVERAGED: averaged, OPTIMIZER: self.optimizers.tensors()})
            if self._is_exported_step():
                self.folder.export(averaged)
        self.world.barrier()
        return Saved(state.step, path)

    def _is_exported_step(self) -> bool:
        """Whether this step's weights are the exported ones: the best, or the last if none was validated."""
        return self.state.best is None or self.state.best.step == self.state.step
