"""A trained run as an object: the model, its tokenizer and its configuration, loaded from a folder or the hub."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch

from ..config.compatibility import sampler_problem
from ..config.config import Config, dumps
from ..config.identity import run_identity
from ..core.batch import Batch
from ..core.devices import DeviceName, DtypeName, choose_device, choose_dtype
from ..core.errors import UserError
from ..core.files import atomic, make_folder, write_text
from ..core.memory import check_memory
from ..core.reading import read_text
from ..data import templates
from ..data.builtin.tasks import TaskData, parse_task
from ..data.conditions import encode_source, strip_source, with_label
from ..data.normalisers import normalise
from ..data.tokenizers.base import Tokenizer, fingerprint
from ..data.tokenizers.losses import encode_charged
from ..diffusion.model import DiffusionModel
from ..networks.language_model import LanguageModel, LanguageModelConfig
from ..samplers.base import Sampler, Step
from ..samplers.order_likelihood import OrderLikelihood
from ..samplers.time_grids import FILE as GRID
from ..samplers.time_grids import load_grid, save_grid
from ..storage.hub import find_run, upload
from ..storage.packaged import is_packaged, read_card
from ..storage.weights import rounded, save_tensors
from .language_models import merge, save_beside
from .loading import Weights, load_run
from .model_card import model_card

SavedDtype = Literal["float32", "bfloat16"]
"""The precision of parameters on disk."""

R = TypeVar("R", bound="Run")

_MAX_ROWS, _MAX_LOGITS = 64, 1 << 26  # of a chunk
_BATCH_BYTES = 20  # of a token: two numbers and masks
_LOGIT_COPIES, _FEATURE_COPIES = 3, 4  # in memory at once, at the least


@dataclass(frozen=True, repr=False)
class Run:
    """A model with its tokenizer and configuration."""

    model: DiffusionModel
    tokenizer: Tokenizer
    config: Config
    weights: Weights = "ema"
    """Which of the run's weights the model has."""
    folder: Path | None = None
    """The folder that the run was loaded from (None: it was made in memory)."""
    text_sha256: Mapping[str, str] = field(default_factory=dict)
    """The hash of each part of its text in tokens: `train`, `valid` and `test`, as far as its files record them."""

    @classmethod
    def from_pretrained(
        cls: type[R],
        source: str | Path,
        *,
        weights: Weights = "ema",
        device: DeviceName = "auto",
        dtype: DtypeName = "float32",
    ) -> R:
        """Loads the run in a folder, a model of the package by its name, or one on the hub by its id (`owner/name`).

        A run in a folder of that name comes before a model of the package. Models are in `textdiffusion models`.

        `weights` chooses the averaged weights (`ema`) or those of the optimizer (`raw`, from the latest checkpoint).
        Features are computed in `dtype`; `auto` is bfloat16 where the device has units for it. Raises UserError where
        there is no run, and where a file is missing, damaged, of another version or of another run. Weights that were
        saved in bfloat16 are loaded as float32.
        """
        target = choose_device(device)
        compute_dtype, _ = choose_dtype(dtype, target)
        folder = find_run(source)
        run = load_run(folder, weights)
        run.model.denoiser.backbone.compute_dtype = compute_dtype
        run.model.tuned = load_grid(folder / GRID)
        model = run.model.eval().requires_grad_(False).to(target)
        return cls(model, run.tokenizer, run.config, weights, folder, run.text_sha256)

    def __repr__(self) -> str:
        """A short card: recipe, size, tokenizer, text, conditions, sampler, and where the run is from."""
        text, sampler = self.config.text, self.config.sampler
        parameters = sum(p.numel() for p in self.model.parameters())
        names = [f"label ({', '.join(text.labels)})"] * bool(text.label) + ["source"] * bool(text.source)
        lines = {
            "recipe": f"{self.config.recipe} ({self.config.variant})",
            "parameters": f"{parameters:,}, {'averaged' if self.weights == 'ema' else 'raw'} weights on {self.device}",
            "tokenizer": f"{text.tokenizer}, {self.tokenizer.vocab_size:,} tokens",
            "text": f"{text.data}, windows of {text.length} tokens ({text.layout})",
            "conditions": " and ".join(names),
            "sampler": f"{sampler.kind}, {sampler.steps or 'one step per token'}{' steps' if sampler.steps else ''}",
            "folder": str(self.folder or ""),
        }
        shown = "".join(f"\n  {name:<11} {value}" for name, value in lines.items() if value)
        return f"{type(self).__name__}{shown}"

    @property
    def likelihood(self) -> Any:
        """The likelihood, or the bound of it, that texts are scored with."""
        return self.config.likelihood

    @property
    def task(self) -> TaskData | None:
        """The task that the run was trained on, with the questions that it can answer (None: on other text)."""
        return parse_task(self.config.text.data) if self.config.text.mask == "question" else None

    def as_template(self, text: str) -> str:
        """A template unchanged, and the template of a bare question where the run was trained on a task.

        Raises UserError for what cannot be a question.
        """
        return text if self.task is None or templates.has_gap(text) else self.task.template(text)

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
        label: str | int | None = None,
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
        self.check_size(num * len(sources), text.length if length is None else length)
        prefixes = [encode_source(each, text, self.tokenizer) for each in sources]
        lengths = [text.length - len(ids) if length is None else length for ids in prefixes]
        rows = [templates.make_row(ids, size) for ids, size in zip(prefixes, lengths, strict=True)]
        batch = templates.collate(rows, self.tokenizer, num=num)
        return with_label(replace(batch, condition_mask=None) if not self.config.text.source else batch, text, label)

    def template_batch(
        self, sized: Sequence[str], num: int = 1, *, source: str | None = None, label: str | int | None = None
    ) -> Batch:
        """`num` rows for each template, whose gaps must all have a length, with the text around the gaps given.

        Rows are numbered from 0 in each template. Raises UserError as `empty_batch` does, and for malformed templates.
        """
        text = self.config.text
        self.check_size(num * len(sized), max(map(templates.gap_tokens, sized)))
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
        for rows in torch.arange(len(batch.tokens)).split(self._chunk_rows(batch.tokens.shape[1])):
            yield batch.select(rows)

    def _chunk_rows(self, length: int) -> int:
        return max(1, min(_MAX_ROWS, _MAX_LOGITS // (length * self.tokenizer.vocab_size)))

    def check_size(self, rows: int, length: int, *, at_once: bool = False) -> None:
        """Raises UserError for more rows of `length` tokens than fit into the free memory, sampled in chunks or not."""
        sampled = rows if at_once else min(rows, self._chunk_rows(length))
        logits = 4 * self.tokenizer.vocab_size * _LOGIT_COPIES
        features = 4 * self.config.backbone.width * _FEATURE_COPIES
        check_memory(
            rows * length * _BATCH_BYTES + sampled * length * (logits + features),
            f"Writing {rows:,} texts of {length:,} tokens",
            "lower num (--num, --best-of, --mbr) or length (--length, the gaps of a template)",
        )

    def decode(self, step: Step, batch: Batch | None = None) -> list[str]:
        """The texts of a finished step. `batch` is what was streamed, needed where it has padding or given text.

        Raises UserError if the network's probabilities were not finite, so that the texts mean nothing.
        """
        if not step.confidence.isfinite().all():
            raise UserError(
                f"The network's probabilities are NaN: the weights of {self.folder or 'this run'} are damaged."
            )
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

    def save_pretrained(self, folder: str | Path, *, dtype: SavedDtype = "float32", overwrite: bool = False) -> Path:
        """Writes config.json, tokenizer.json, model.safetensors, a model card and, if tuned, the sampling grid.

        `dtype` is that of the parameters in the file, unless theirs is shorter: bfloat16 takes half the space and is
        loaded as float32. The weights that an adapter changes are not copied but referred to (see `merged`). What a
        chat needs is copied from the run's folder. No other file of the folder changes. Returns the folder. Raises
        UserError where it holds another run or a training,
        unless `overwrite` is true, and where it cannot be written.
        """
        folder = make_folder(folder)
        if not overwrite:
            self._check_replaceable(folder)
        tensors = {name: tensor.cpu() for name, tensor in rounded(self.model, getattr(torch, dtype)).items()}
        identity = run_identity(self.config, fingerprint(self.tokenizer), self.text_sha256)
        with atomic(folder / "model.safetensors") as partial:
            save_tensors(tensors, partial, identity)
        if isinstance(self.model.denoiser.backbone, LanguageModel):
            save_beside(self.model.denoiser.backbone, self.folder, folder)
        self.tokenizer.save(folder / "tokenizer.json")
        if self.model.tuned is not None:
            save_grid(self.model.tuned, folder / GRID)
        write_text(folder / "README.md", self.card(folder.name))
        write_text(folder / "config.json", dumps(self.config))  # last: it makes the folder a run
        return folder

    def merged(self: R) -> R:
        """This run with its adapter in the weights that it adapts. Raises UserError for runs without an adapter."""
        backbone = self.config.backbone
        if not isinstance(backbone, LanguageModelConfig) or not backbone.lora_rank:
            raise UserError("This run has no adapter to merge; runs trained with backbone.lora_rank have one.")
        config = replace(self.config, backbone=replace(backbone, lora_rank=0, lora_alpha=0.0, lora_targets=()))
        model = merge(self.model, config, self.tokenizer.vocab_size)
        return replace(self, model=model.eval().requires_grad_(False).to(self.device), config=config)

    def _check_replaceable(self, folder: Path) -> None:
        path = folder / "config.json"
        if (folder / "checkpoints").exists() or (path.exists() and read_text(path) != dumps(self.config)):
            raise UserError(f"{folder} holds another run; choose another folder, or set overwrite=True.")

    def push_to_hub(self, repo_id: str, *, private: bool = False) -> str:
        """Uploads what `save_pretrained` writes, model card included, and returns the address of the repository.

        Needs the extra `hf` and a login (`hf auth login`). Raises UserError without them, or where the hub refuses.
        """
        return upload(self.save_pretrained, repo_id, private)

    def card(self, name: str) -> str:
        """The model card in Markdown: what the run is, how it was trained, how good it is, how to use it."""
        parameters = sum(p.numel() for p in self.model.parameters())
        card = read_card(self.folder) if self.folder and is_packaged(self.folder) else None
        return model_card(name, self.config, parameters, self.tokenizer.vocab_size, self.weights, self.folder, card)


def check_count(name: str, count: int) -> None:
    """Raises UserError for a count below 1."""
    if count < 1:
        raise UserError(f"{name} is {count}; it must be at least 1.")
