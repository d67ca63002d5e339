"""The public face: a trained run as an object."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from ..config import overrides
from ..config.build import build_model
from ..config.compatibility import sampler_problem
from ..config.config import Config, dumps, loads
from ..core.batch import Batch
from ..core.devices import DeviceName, DtypeName, choose_device, choose_dtype, seeded
from ..core.errors import UserError
from ..core.registry import runnable
from ..data import templates
from ..data.conditions import encode_source, strip_source, with_label
from ..data.tokenizers import loading
from ..data.tokenizers.base import Tokenizer
from ..diffusion.model import DiffusionModel
from ..parts import GuidePart, SamplerPart
from ..samplers.base import Guide, Step
from ..samplers.time_grids import FILE as GRID
from ..samplers.time_grids import load_grid, save_grid
from ..scoring.likelihood import Likelihood, bits_per_character
from ..scoring.protocol import COUNTED, Fact, sha256
from ..scoring.windows import Texts
from ..storage.checkpoint import RAW, Checkpoints
from ..storage.hub import find_run, upload
from ..storage.weights import load_weights, save_tensors, tensors_of
from .lengths import propose_lengths
from .model_card import model_card
from .options import SamplingOptions, replaces_given

Weights = Literal["ema", "raw"]

_ROWS, _LOGITS = 64, 1 << 26  # rows, and elements of logits, that are sampled at once


@dataclass(frozen=True)
class TextDiffusion:
    """A model with its tokenizer. `weights` says which of the run's weights these are, `folder` where it came from."""

    model: DiffusionModel
    tokenizer: Tokenizer
    config: Config
    weights: Weights = "ema"
    folder: Path | None = None

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        *,
        weights: Weights = "ema",
        device: DeviceName = "auto",
        dtype: DtypeName = "float32",
    ) -> TextDiffusion:
        """The run in a folder, or on the hub by its repository id (`owner/name`).

        `weights` chooses the averaged weights or those of the optimizer (from the run's latest checkpoint). Features
        are computed in `dtype`; `auto` is bfloat16 where the device has units for it. Raises UserError where there is
        no run, or a file of it is missing, damaged or of another version.
        """
        place = choose_device(device)
        compute_dtype, _ = choose_dtype(dtype, place)
        folder = find_run(source)
        path = folder / "config.json"
        config = loads(_read(path), str(path))
        tokenizer = loading.load(folder / "tokenizer.json")
        with seeded(config.training.seed, torch.device("cpu")):  # as in training
            model = build_model(config, tokenizer.vocab_size)
        load_weights(model, folder / "model.safetensors" if weights == "ema" else _raw(folder))
        model.denoiser.backbone.compute_dtype = compute_dtype
        model.tuned = load_grid(folder / GRID)
        return cls(model.eval().requires_grad_(False).to(place), tokenizer, config, weights, folder)

    @property
    def likelihood(self) -> Any:
        """What texts are scored with."""
        return runnable(self.config.likelihood)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    @property
    def dtype(self) -> str:
        """The precision that the network's features are computed in."""
        return str(self.model.denoiser.backbone.compute_dtype).removeprefix("torch.")

    def generate(
        self,
        num: int = 1,
        length: int | None = None,
        steps: int | None = None,
        seed: int = 0,
        temperature: float = 1.0,
        sampler: str | SamplerPart | None = None,
        guides: Sequence[str | GuidePart | Guide] = (),
        top_k: int = 0,
        top_p: float = 1.0,
        *,
        source: str | Sequence[str] | None = None,
        label: str | None = None,
    ) -> list[str]:
        """`num` texts of `length` tokens each (None: as in training), shorter where the model ends them.

        `steps` and `sampler` are the run's own unless given; a sampler is a name, `ddim:eta=1` with settings, or
        its settings as an object. So is each of `guides`, as in `without:text=pear`. Predictions are of their `top_k`
        likeliest tokens alone (0: all), and of the fewest that reach the probability `top_p`. Texts are numbered: the
        first 4 of 8 are those of `num=4` with the same seed. A conditional run is told a `source`, or each of several
        in turn, or a `label`. Raises UserError for values that are not allowed, for samplers and guides that the run's
        process does not allow, and for a source or a label that the run does not take, or lacks.
        """
        batch = self.empty_batch(num, length, source=source, label=label)
        return self._texts(batch, SamplingOptions(steps, seed, temperature, sampler, guides, top_k, top_p))

    def infill(
        self,
        template: str | Sequence[str],
        num: int = 1,
        steps: int | None = None,
        seed: int = 0,
        temperature: float = 1.0,
        sampler: str | SamplerPart | None = None,
        guides: Sequence[str | GuidePart | Guide] = (),
        top_k: int = 0,
        top_p: float = 1.0,
        *,
        source: str | None = None,
        label: str | None = None,
    ) -> list[str]:
        r"""`num` texts for a template such as "The [MASK:5] pear is [MASK:8].", or for each of several in turn.

        A gap is so many tokens, or as many as the model proposes ([MASK], see `lengths`); the text around it is kept
        exactly; `\\[MASK` is literal text. `infill_note` says how well this run is prepared for it. Raises UserError as
        `generate` does, for templates that are none, and for lengths that the run cannot propose.
        """
        batch = self.infill_batch(template, num, source=source, label=label, seed=seed)
        return self._texts(batch, SamplingOptions(steps, seed, temperature, sampler, guides, top_k, top_p))

    def stream(
        self,
        num: int = 1,
        length: int | None = None,
        steps: int | None = None,
        seed: int = 0,
        temperature: float = 1.0,
        sampler: str | SamplerPart | None = None,
        guides: Sequence[str | GuidePart | Guide] = (),
        top_k: int = 0,
        top_p: float = 1.0,
        *,
        batch: Batch | None = None,
    ) -> Iterator[Step]:
        """The steps of `generate` from noise to text, all rows at once; `texts` reads the last one.

        `batch` instead of `num` and `length` says what is given, as `filled` makes it from a template, `blank` from a
        source or a label.
        """
        rows = self.empty_batch(num, length) if batch is None else batch
        asked = SamplingOptions(steps, seed, temperature, sampler, guides, top_k, top_p)
        return asked.resolve(self, rows).run(rows.to(self.device))

    def score(
        self,
        texts: Sequence[str],
        *,
        prefix: str | Sequence[str] = "",
        given: str = "",
        source: str | None = None,
        label: str | None = None,
        seed: int = 0,
        target_error: float = 0.01,
        draws: int | None = None,
    ) -> list[Likelihood]:
        """Bits per character of each text: an upper bound with standard errors, or the exact value where there is one.

        `prefix`, one for all texts or one for each, is what stands before them; `given` is a template that they fill.
        Then only what is not given is measured, given the rest; `infill_note` says how well this run is prepared for
        that. `source` and `label` are what a conditional run is told. All texts are measured under the same draws, so
        they can be ranked by `bits`, or by `total`, with less noise than their errors say. Draws are made until the
        Monte-Carlo error is below `target_error`, or `draws` (>= 2) passes. Without a prefix a text longer than a
        window is cut. Raises UserError for an empty text, for characters the tokenizer lacks, for a text that a prefix
        leaves no room for or that does not fill the template, and for a source or a label as `generate` does.
        """
        if isinstance(texts, str):
            raise UserError('score takes a list of texts: score(["some text"]).')
        if draws is not None and draws < 2:
            raise UserError(f"draws is {draws}; an error can be told from 2 on, and None means as many as needed.")
        before = [prefix] * len(texts) if isinstance(prefix, str) else list(prefix)
        if len(before) != len(texts):
            raise UserError(
                f"There are {len(before)} prefixes for {len(texts)} texts; give one for all or one for each."
            )
        text, scores = self.config.text, []
        for own, earlier in zip(texts, before, strict=True):
            known = "\n".join(part for part in (source, label, given or earlier) if part)
            about: dict[str, Fact] = {
                "sha256": sha256(own),
                "counted": "what is not given" if known else COUNTED[text.layout],
                "given": sha256(known) if known else "nothing",
                "normaliser": text.normaliser,
                "tokenizer": self.tokenizer.kind,
                "layout": text.layout,
                "window": text.length,
                "stride": text.length,
                "weights": self.weights,
            }
            windows = Texts([own], self.tokenizer, text, prefix=earlier, given=given, source=source, label=label)
            scores.append(
                bits_per_character(
                    self.model, windows, self.likelihood, seed=seed, target_error=target_error, draws=draws, about=about
                )
            )
        return scores

    def empty_batch(
        self,
        num: int = 1,
        length: int | None = None,
        *,
        source: str | Sequence[str] | None = None,
        label: str | None = None,
    ) -> Batch:
        """Rows with nothing given but their source, if any: `num` for each of several sources in turn."""
        text = self.config.text
        several = [source] if source is None or isinstance(source, str) else source
        if not several:
            raise UserError("There are no sources; give one text for each.")
        if num < 1 or (length is not None and length < 1):
            raise UserError(f"{num} texts of {length} tokens cannot be made: both must be at least 1.")
        begun = [encode_source(one, text, self.tokenizer) for one in several]
        sizes = [text.length - len(ids) if length is None else length for ids in begun]
        rows = [templates.make_row(ids, size) for ids, size in zip(begun, sizes, strict=True)]
        batch = templates.collate(rows, self.tokenizer, num=num)
        return with_label(replace(batch, condition_mask=None) if source is None else batch, text, label)

    def infill_batch(
        self,
        template: str | Sequence[str],
        num: int = 1,
        *,
        source: str | None = None,
        label: str | None = None,
        seed: int = 0,
    ) -> Batch:
        """`num` rows for each template, with the text around its gaps given, and a source before it; `seed` draws the
        lengths that are proposed."""
        if num < 1:
            raise UserError(f"{num} texts cannot be made: it must be at least 1.")
        text, asked = self.config.text, [template] if isinstance(template, str) else list(template)
        open_ = [templates.OPEN in templates.parse(each)[:-1] for each in asked]
        if any(open_):  # then each row has lengths of its own
            each = zip(asked, open_, strict=True)
            asked = [
                row for t, o in each for row in (propose_lengths(self, t, num, seed, source, label) if o else [t] * num)
            ]
        batch = templates.batch(
            asked,
            self.tokenizer,
            encode_source(source, text, self.tokenizer),
            num=1 if any(open_) else num,
            ended=text.layout != "stream",
            padded_to=text.length if text.model_padding else 0,
            max_tokens=text.length,
        )
        return with_label(replace(batch, row_ids=torch.arange(len(batch.tokens)) % num), text, label)

    def chunks(self, batch: Batch) -> Iterator[Batch]:
        """The rows in parts that fit into memory; streamed one after the other, they give the texts of the whole."""
        size = max(1, min(_ROWS, _LOGITS // (batch.tokens.shape[1] * self.tokenizer.vocab_size)))
        for rows in torch.arange(len(batch.tokens)).split(size):
            yield batch.select(rows)

    def decode(self, step: Step, batch: Batch | None = None) -> list[str]:
        """The texts of a finished step. `batch` is what was streamed, if it has padding (several templates)."""
        rows = list(step.tokens.cpu().numpy())
        if batch is not None and batch.valid_mask is not None:
            rows = [ids[real] for ids, real in zip(rows, batch.valid_mask.cpu().numpy(), strict=True)]
        return [self.tokenizer.decode(strip_source(ids, self.config.text, self.tokenizer)) for ids in rows]

    @property
    def infill_warning(self) -> str | None:
        """What a user should know before infilling with this run (None: it is made for it)."""
        if not self.model.process.bidirectional:
            return (
                "This model writes from left to right: what it writes in a gap ignores the text after the gap (if it "
                "writes in blocks, the text after the block)."
            )
        if replaces_given(self.model):
            return (
                "This model was trained without conditioning masks: given tokens are put in place at every step, which "
                "fits less well than training with text.mask=mixed."
            )
        return None

    def samplers(self) -> dict[str, SamplerPart]:
        """The samplers that can drive this run, by name, the run's own with its settings.

        Samplers of masks drive runs of vectors too whose training gave tokens (`samplers.in_masks`).
        """
        own = self.config.sampler
        kinds = overrides.kinds_of(SamplerPart)
        parts = {name: own if type(own) is kind else kind() for name, kind in kinds.items()}
        return {
            name: part
            for name, part in parts.items()
            if not sampler_problem(runnable(part), self.config, self.model.process)
        }

    def save_pretrained(self, folder: str | Path) -> Path:
        """Writes config.json, tokenizer.json, model.safetensors, a model card and, if tuned, the sampling grid.

        No other file is touched.
        """
        folder = Path(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{folder} cannot be made: {error.strerror}.") from None
        (folder / "config.json").write_text(dumps(self.config), encoding="utf-8")
        self.tokenizer.save(folder / "tokenizer.json")
        save_tensors(
            {name: tensor.cpu() for name, tensor in tensors_of(self.model).items()}, folder / "model.safetensors"
        )
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

    def _texts(self, batch: Batch, asked: SamplingOptions) -> list[str]:
        settled = asked.resolve(self, batch)
        texts: list[str] = []
        for part in self.chunks(batch):
            *_, last = settled.run(part.to(self.device))
            texts += self.decode(last, part)
        return texts


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}.") from None


def _raw(folder: Path) -> Path:
    """The latest checkpoint's own weights."""
    found = Checkpoints(folder / "checkpoints", keep=1).paths()
    if not found:
        raise UserError(f"{folder} has no checkpoint with raw weights; it has the averaged ones (ema).")
    return found[-1] / RAW
