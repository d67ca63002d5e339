"""Revising a draft: noise is put on a text up to a level and taken off again."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from ..config.compatibility import sampler_problem
from ..core.batch import Batch, GivenText
from ..core.errors import UserError
from ..core.randomness import Rng
from ..core.types import Mask
from ..data import templates
from ..data.conditions import encode_source, with_label
from ..data.normalisers import normalise
from ..data.tokenizers.base import Tokenizer
from ..data.tokenizers.losses import encode_charged
from ..diffusion.model import DiffusionModel
from ..samplers.base import Step
from ..samplers.masked_view import adapt_model
from ..samplers.order_likelihood import OrderLikelihood
from ..scoring.leave_one_out import HIDES_EVERYWHERE, token_log_probs
from .options import Generation, SamplingOptions
from .run import Run, check_count

SELECT = ("random", "suspect")
"""What is written anew: tokens at random, or the words that the model finds least likely given all others."""


@dataclass(frozen=True)
class Draft:
    """Rows of texts to be revised: `num` copies of each text. The condition mask has what must be kept.

    `spans` are the text of the tokens of each row, as (first token, end, text), in order.
    """

    batch: Batch
    spans: tuple[tuple[GivenText, ...], ...]

    @classmethod
    def of(
        cls,
        run: Run,
        texts: Sequence[str],
        num: int = 1,
        *,
        keep: Sequence[str] = (),
        source: str | None = None,
        label: str | int | None = None,
    ) -> Draft:
        """The tokens of the texts, and which of them touch one of the words or phrases to `keep`.

        Raises UserError for an empty text, for a text to keep that is in no draft, and for a source or a label as
        `empty_batch` does.
        """
        text, tokenizer = run.config.text, run.tokenizer
        check_count("num", num)
        if not texts or not all(texts):
            raise UserError("The text to revise is empty.")
        drafts = [normalise(text.normaliser, each) for each in texts]
        phrases = [normalise(text.normaliser, phrase) for phrase in keep]
        for phrase, shown in zip(phrases, keep, strict=True):
            if not phrase or not any(phrase in each for each in drafts):
                raise UserError(f"The text to keep, {shown!r}, is not in the draft.")
        prefix = templates.make_row(encode_source(source, text, tokenizer), 0)
        rows: list[templates.Row] = []
        spans: list[tuple[GivenText, ...]] = []
        for each in drafts:
            tokens, pieces = _encoded(each, tokenizer, start=len(prefix.tokens))
            kept = np.zeros(len(tokens), dtype=bool)
            for piece, first, stop in _places(pieces):
                if any(first < end and start < stop for phrase in phrases for start, end in _occurrences(each, phrase)):
                    kept[piece.start - len(prefix.tokens) : piece.stop - len(prefix.tokens)] = True
            draft = templates.Row(tokens, kept, np.zeros(len(tokens), dtype=bool), given=())
            rows.append(templates.concatenate([prefix, draft]))
            spans.append(pieces)
        run.check_size(num * len(rows), max(len(row.tokens) for row in rows))
        batch = templates.collate(
            rows,
            tokenizer,
            num=num,
            ended=[text.layout != "stream"] * len(rows),
            padded_to=text.length if text.model_padding else 0,
        )
        copies = tuple(each for each in spans for _ in range(num))
        return cls(with_label(batch, text, label), copies).keeping(None)

    def keeping(self, revised: Mask | None) -> Draft:
        """The draft with everything given but the positions `revised` (None: as it is); given text stays verbatim."""
        batch = self.batch
        if revised is not None:
            batch = replace(batch, condition_mask=~(revised & batch.target_mask))
        assert batch.condition_mask is not None
        given = [
            tuple(span for span in row if all(mask[span.start : span.stop]))
            for row, mask in zip(self.spans, batch.condition_mask.tolist(), strict=True)
        ]
        rows = torch.arange(len(given), device=batch.tokens.device)
        return replace(self, batch=replace(batch, given_texts=tuple(given), template_ids=rows))


@dataclass(frozen=True)
class Revision:
    """The rows of a draft with what writes them anew."""

    generation: Generation
    batch: Batch

    @classmethod
    def of(
        cls,
        run: Run,
        draft: Draft,
        strength: float = 0.3,
        select: str = "random",
        options: SamplingOptions | None = None,
    ) -> Revision:
        """How a draft is revised with a strength from 0 (not at all) to 1 (everything is new but the length).

        Noise that shows where it is (masks) replaces that share of the tokens: random ones, or with `suspect` the
        words that the model finds least likely given all others. The rest is given. From left to right, and in blocks,
        random ones are the last, as in the process. Noise that is everywhere (uniform, vectors) is put on all tokens,
        up to t = strength; with `suspect` it replaces that share of the tokens instead, and the rest is given.

        With random positions and an ideal denoiser, a text of the data distribution becomes another one of it. Raises
        UserError as `SamplingOptions.resolve` does, and for a strength outside [0, 1].
        """
        if not 0.0 <= strength <= 1.0:
            raise UserError(f"strength is {strength:g}; it must be between 0 (the text itself) and 1 (all is new).")
        if select not in SELECT:
            raise UserError(f"select is {select!r}; it can be {' or '.join(SELECT)}.")
        options = options or SamplingOptions()
        generation = replace(options, guides=()).resolve(run, draft.batch)  # guides are bound once, below
        model, free = generation.model, draft.batch.target_mask
        if strength >= 1.0 or strength == 0.0:
            revised = free if strength else torch.zeros_like(free)
        elif select == "suspect":
            revised = suspects(run, draft, strength, generation.seed)
        elif isinstance(model.process, HIDES_EVERYWHERE):
            if not generation.sampler.supports_t_start:
                raise UserError(
                    f"{type(generation.sampler).__name__} cannot begin at a lower noise level; use select=suspect."
                )
            steps = generation.steps if options.steps else math.ceil(generation.steps * strength)
            return cls(replace(options.resolve(run, draft.batch), t_start=strength, steps=steps), draft.batch)
        else:
            revised = random_positions(model, draft.batch, strength, generation.seed)
        batch = draft.keeping(revised).batch
        return cls(options.resolve(run, batch), batch)  # what stays after a gap can decide the sampler

    def run(self) -> Iterator[Step]:
        """The steps from the noisy draft to the revised text, all rows at once."""
        return self.generation.run(self.batch.to(next(self.generation.model.parameters()).device))


def random_positions(model: DiffusionModel, batch: Batch, strength: float, seed: int) -> Mask:
    """The share `strength` of the free positions of each row, at least one; from left to right the last, if any."""
    assert batch.row_ids is not None
    rng, free = Rng.of(seed, batch.row_ids).fork("revise"), batch.target_mask
    if model.process.bidirectional:
        return rng.random_subset(free, _counts(batch, strength))
    t = torch.full((len(free),), strength)
    return free & model.process.is_noisy(model.process.add_noise(batch.tokens, t, rng=rng))


def suspects(run: Run, draft: Draft, strength: float, seed: int) -> Mask:
    """The words of each row with the lowest leave-one-out probabilities per token, up to a share of its tokens."""
    batch = draft.batch
    as_masks = OrderLikelihood(order="left")  # masks, or what can be seen as masks
    is_not_masks = sampler_problem(as_masks, run.config, run.model.process)
    model = run.model if is_not_masks else adapt_model(as_masks, run.model, seed)
    words = torch.stack([_words(row, batch.tokens.shape[1]) for row in draft.spans])
    chosen = torch.zeros_like(batch.target_mask)
    first_copies: dict[tuple[GivenText, ...], int] = {}
    for row, spans in enumerate(draft.spans):
        if (first := first_copies.setdefault(spans, row)) < row:
            chosen[row] = chosen[first]
            continue
        free = batch.target_mask[row]
        one = batch.select(torch.tensor([row])).to(run.device)
        log_probs = token_log_probs(model, one, words[[row]].to(run.device), seed=seed)[0].cpu()
        members = [free & (words[row] == word) for word in words[row][free].unique()]
        budget = _counts(batch.select(torch.tensor([row])), strength).item()
        for member in sorted(members, key=lambda member: float(log_probs[member].mean())):
            if chosen[row].any() and (chosen[row] | member).sum() > budget:
                break
            chosen[row] |= member
    return chosen


def _words(spans: Sequence[GivenText], length: int) -> torch.Tensor:
    """The number of the word [l] of each token: letters and digits, or signs, up to the next space."""
    numbers = torch.zeros(length, dtype=torch.long)
    number, kind = 0, ""
    for span in spans:
        text = span.text.strip()
        new_kind = "space" if not text else "word" if any(map(str.isalnum, text)) else "sign"
        number += new_kind != kind or span.text[:1].isspace()
        kind, numbers[span.start : span.stop] = new_kind, number
    return numbers


def _counts(batch: Batch, strength: float) -> torch.Tensor:
    """How many positions of each row [b, 1] are written anew."""
    return (batch.target_mask.sum(-1, keepdim=True) * strength).round().clamp(min=1)


def _encoded(text: str, tokenizer: Tokenizer, start: int) -> tuple[np.ndarray, tuple[GivenText, ...]]:
    """The tokens of a text, numbered from `start`, and the text of each group of them that is whole characters."""
    tokens = encode_charged(tokenizer, text)
    counts = np.ones_like(tokens.ids) if tokens.char_counts is None else tokens.char_counts
    firsts = np.unique(np.append(0, np.flatnonzero(counts > 0))).tolist()
    stops, ends = [*firsts[1:], len(counts)], np.cumsum(counts).tolist()
    return tokens.ids, tuple(
        GivenText(text[ends[first] - int(counts[first]) : ends[stop - 1]], start + first, start + stop)
        for first, stop in zip(firsts, stops, strict=True)
    )


def _places(pieces: Sequence[GivenText]) -> Iterator[tuple[GivenText, int, int]]:
    """Each piece with its place in the text: the first character, and the one after its last."""
    stop = 0
    for piece in pieces:
        first, stop = stop, stop + len(piece.text)
        yield piece, first, stop


def _occurrences(text: str, phrase: str) -> Iterator[tuple[int, int]]:
    """Where a phrase begins and ends in a text, each time."""
    start = text.find(phrase)
    while start >= 0:
        yield start, start + len(phrase)
        start = text.find(phrase, start + 1)
