"""A trained run as an object: the model, its tokenizer and its configuration, loaded from a folder or the hub."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch

from ..config.build import build_model
from ..config.compatibility import sampler_problem
from ..config.config import Config, dumps, loads
from ..core.batch import Batch
from ..core.devices import DeviceName, DtypeName, choose_device, choose_dtype
from ..core.errors import UserError
from ..core.randomness import seeded
from ..data import templates
from ..data.conditions import encode_source, strip_source, with_label
from ..data.normalisers import normalise
from ..data.tokenizers import loading
from ..data.tokenizers.base import Tokenizer
from ..data.tokenizers.losses import encode_charged
from ..diffusion.model import DiffusionModel
from ..samplers.base import Sampler, Step
from ..samplers.order_likelihood import OrderLikelihood
from ..samplers.time_grids import FILE as GRID
from ..samplers.time_grids import load_grid, save_grid
from ..storage.checkpoint import RAW, Checkpoints
from ..storage.hub import find_run, upload
from ..storage.weights import load_weights, save_tensors, tensors_of
from .model_card import model_card

Weights = Literal["ema", "raw"]
"""The averaged weights, or the optimizer's own."""

R = TypeVar("R", bound="Run")

_MAX_ROWS, _MAX_LOGITS = 64, 1 << 26  # of a chunk


@dataclass(frozen=True)
class Run:
    """A model with its tokenizer and configuration."""

    model: DiffusionModel
    tokenizer: Tokenizer
    config: Config
    weights: Weights = "ema"
    """Which of the run's weights the model has."""
    folder: Path | None = None
    """The folder that the run was loaded from (None: it was made in memory)."""

    @classmethod
    def from_pretrained(
        cls: type[R],
        source: str | Path,
        *,
        weights: Weights = "ema",
        device: DeviceName = "auto",
        dtype: DtypeName = "float32",
    ) -> R:
        """Loads the run in a folder, or on the hub by its repository id (`owner/name`).

        `weights` chooses the averaged weights (`ema`) or those of the optimizer (`raw`, from the latest checkpoint).
        Features are computed in `dtype`; `auto` is bfloat16 where the device has units for it. Raises UserError where
        there is no run, and where a file is missing, damaged or of another version.
        """
        target = choose_device(device)
        compute_dtype, _ = choose_dtype(dtype, target)
        folder = find_run(source)
        path = folder / "config.json"
        config = loads(_read(path), str(path))
        tokenizer = loading.load(folder / "tokenizer.json")
        with seeded(config.training.seed, torch.device("cpu")):  # as in training
            model = build_model(config, tokenizer.vocab_size)
        load_weights(model, folder / "model.safetensors" if weights == "ema" else _raw_weights(folder))
        model.denoiser.backbone.compute_dtype = compute_dtype
        model.tuned = load_grid(folder / GRID)
        return cls(model.eval().requires_grad_(False).to(target), tokenizer, config, weights, folder)

    @property
    def likelihood(self) -> Any:
        """The likelihood, or the bound of it, that texts are scored with."""
        return self.config.likelihood

    def order_likelihood(self, order: str, per_step: int = 1) -> OrderLikelihood:
        """The exact likelihood of texts revealed in an order, at most `per_step` positions at a time.

        It measures `adapt_model(likelihood, run.model, seed)`. Raises UserError for unknown orders and for runs that
        cannot reveal text in an order.
        """
        likelihood = OrderLikelihood(order=order, per_step=per_step)
        if problem := sampler_problem(likelihood, self.config, self.model.process):
            raise UserError(problem)
        return likelihood

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return next(self.model.parameters()).device

    @property
    def dtype(self) -> str:
        """The precision of the network's features."""
        return str(self.model.denoiser.backbone.compute_dtype).removeprefix("torch.")

    def samplers(self) -> dict[str, Sampler]:
        """The samplers that can drive this run, by name; the run's own keeps its settings.

        Samplers of masks also drive runs of vectors that were trained with given tokens (`samplers.masked_view`).
        """
        default = self.config.sampler
        choices = {name: default if type(default) is cls else cls() for name, cls in Sampler.choices().items()}
        return {
            name: sampler
            for name, sampler in choices.items()
            if not sampler_problem(sampler, self.config, self.model.process)
        }

    def empty_batch(
        self,
        num: int = 1,
        length: int | None = None,
        *,
        source: str | Sequence[str] | None = None,
        label: str | None = None,
    ) -> Batch:
        """`num` rows of `length` free tokens (None: as in training), after each of the sources in turn, if any.

        Raises UserError for numbers below 1, and for a source or label that the run does not take, or lacks.
        """
        text = self.config.text
        sources = [source] if source is None or isinstance(source, str) else source
        if not sources:
            raise UserError("The list of sources is empty; give one source per text.")
        check_count("num", num)
        if length is not None:
            check_count("length", length)
        prefixes = [encode_source(each, text, self.tokenizer) for each in sources]
        lengths = [text.length - len(ids) if length is None else length for ids in prefixes]
        rows = [templates.make_row(ids, size) for ids, size in zip(prefixes, lengths, strict=True)]
        batch = templates.collate(rows, self.tokenizer, num=num)
        return with_label(replace(batch, condition_mask=None) if source is None else batch, text, label)

    def template_batch(
        self, sized: Sequence[str], num: int = 1, *, source: str | None = None, label: str | None = None
    ) -> Batch:
        """`num` rows for each template, whose gaps must all have a length, with the text around the gaps given.

        Rows are numbered from 0 in each template. Raises UserError as `empty_batch` does, and for malformed templates.
        """
        text = self.config.text
        batch = templates.batch(
            list(sized),
            self.tokenizer,
            encode_source(source, text, self.tokenizer),
            num=num,
            ended=text.layout != "stream",
            padded_to=text.length if text.model_padding else 0,
            max_tokens=text.length,
            normaliser=text.normaliser,
        )
        return with_label(batch, text, label)

    def reading_note(self, template: str) -> str | None:
        """What the tokenizer loses of the given text of a template (None: nothing). The result has the text itself."""
        pieces = [each for each in templates.parse(template) if isinstance(each, str)]
        given = [normalise(self.config.text.normaliser, each) for each in pieces]
        losses = [loss for each in given if (loss := encode_charged(self.tokenizer, each).loss)]
        if not losses:
            return None
        original, decoded = losses[0].example
        return (
            f"This run's tokenizer loses {sum(loss.characters for loss in losses)} characters of the given text: the "
            f"model reads {original!r} as {decoded!r}. The result keeps your text."
        )

    def chunks(self, batch: Batch) -> Iterator[Batch]:
        """The rows in chunks that fit into memory; streamed one after the other, they give the same texts."""
        size = max(1, min(_MAX_ROWS, _MAX_LOGITS // (batch.tokens.shape[1] * self.tokenizer.vocab_size)))
        for rows in torch.arange(len(batch.tokens)).split(size):
            yield batch.select(rows)

    def decode(self, step: Step, batch: Batch | None = None) -> list[str]:
        """The texts of a finished step. `batch` is what was streamed, needed where it has padding or given text."""
        rows = list(step.tokens.cpu().numpy())
        if batch is not None and batch.valid_mask is not None:
            rows = [ids[valid] for ids, valid in zip(rows, batch.valid_mask.cpu().numpy(), strict=True)]
        texts = [strip_source(ids, self.config.text, self.tokenizer) for ids in rows]
        if batch is None or batch.template_ids is None:
            return [self.tokenizer.decode(ids) for ids in texts]
        given = [batch.given_texts[i] for i in batch.template_ids.tolist()]
        starts = [len(ids) - len(text) for ids, text in zip(rows, texts, strict=True)]
        return [
            templates.paste(ids.tolist(), each, self.tokenizer, start)
            for ids, each, start in zip(rows, given, starts, strict=True)
        ]

    def save_pretrained(self, folder: str | Path) -> Path:
        """Writes config.json, tokenizer.json, model.safetensors, a model card and, if tuned, the sampling grid.

        No other file of the folder changes. Returns the folder.
        """
        folder = Path(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"Cannot create {folder}: {error.strerror}.") from None
        (folder / "config.json").write_text(dumps(self.config), encoding="utf-8")
        self.tokenizer.save(folder / "tokenizer.json")
        tensors = {name: tensor.cpu() for name, tensor in tensors_of(self.model).items()}
        save_tensors(tensors, folder / "model.safetensors")
        if self.model.tuned is not None:
            save_grid(self.model.tuned, folder / GRID)
        (folder / "README.md").write_text(self.card(folder.name), encoding="utf-8")
        return folder

    def push_to_hub(self, repo_id: str, *, private: bool = False) -> str:
        """Uploads what `save_pretrained` writes, model card included, and returns the address of the repository.

        Needs the extra `hf` and a login (`hf auth login`). Raises UserError without them, or where the hub refuses.
        """
        return upload(self.save_pretrained, repo_id, private)

    def card(self, name: str) -> str:
        """The model card in Markdown: what the run is, how it was trained, how good it is, how to use it."""
        parameters = sum(p.numel() for p in self.model.parameters())
        return model_card(name, self.config, parameters, self.tokenizer.vocab_size, self.weights, self.folder)


def check_count(name: str, count: int) -> None:
    """Raises UserError for a count below 1."""
    if count < 1:
        raise UserError(f"{name} is {count}; it must be at least 1.")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"Cannot read {path}: {error}.") from None


def _raw_weights(folder: Path) -> Path:
    """The optimizer's weights in the latest checkpoint."""
    paths = Checkpoints(folder / "checkpoints", keep=1).paths()
    if not paths:
        raise UserError(f"{folder} has no checkpoint, so no raw weights; use the averaged ones (ema).")
    return paths[-1] / RAW
