"""A denoising step as JSON: the tokens of every row, how sure the model is of them, and what else it considered."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from torch import Tensor

from ..core.batch import Batch
from ..data.conditions import strip_source
from ..data.tokenizers.base import Tokenizer
from ..diffusion.model import Denoiser
from ..diffusion.prediction import Prediction
from ..inference.run import Run
from ..samplers.base import LogitsGuide, Outermost, Request, Step, WrappedDenoiser
from ..views.frames import Cell, Framer, State, given_texts

MASK = "▒"
"""Stands for a masked position in the text of a draft."""

_NAMES = {State.UNDECIDED: "masked", State.DECIDED: "decided", State.CHANGED: "changed", State.GIVEN: "given"}


@dataclass(frozen=True, eq=False)
class Alternatives(Outermost, LogitsGuide):
    """Changes nothing: remembers the `count` likeliest tokens of the latest prediction at each position of each row.

    For requests that share their network calls with no other: rows are known by their numbers.
    """

    count: int
    found: dict[int, dict[int, list[tuple[int, float]]]] = field(default_factory=dict)
    """By row and position: tokens with their probabilities, likeliest first."""

    def wrap(self, denoiser: Denoiser, request: Request) -> Denoiser:
        def remember(prediction: Prediction, xt: Tensor, t: Tensor, batch: Batch) -> Prediction:
            probs = prediction.confidence_logits.softmax(-1)
            top = probs.topk(min(self.count, probs.shape[-1]), dim=-1)
            rows = range(len(probs)) if batch.row_ids is None else batch.row_ids.tolist()
            for row, ids, values in zip(rows, top.indices.tolist(), top.values.tolist(), strict=True):
                known = self.found.setdefault(row, {})
                for i, pair in enumerate(zip(ids, values, strict=True)):
                    known[request.offset + i] = list(zip(*pair, strict=True))
            return prediction

        return WrappedDenoiser(denoiser, remember)


class Drafter:
    """Turns the steps of one request into drafts."""

    def __init__(self, run: Run, batch: Batch, alternatives: Alternatives | None = None) -> None:
        tokenizer = run.tokenizer
        self.tokenizer, self.alternatives = tokenizer, alternatives
        text = run.config.text
        self._starts = [len(row) - len(strip_source(row, text, tokenizer)) for row in batch.tokens.cpu().numpy()]
        if batch.text_starts is not None:
            self._starts = batch.text_starts.tolist()
        length = batch.tokens.shape[1]
        valid = batch.valid_mask  # padding comes last
        self._stops = [length] * len(batch.tokens) if valid is None else valid.sum(-1).tolist()
        self._framer = Framer(tokenizer, batch.condition_mask, given_texts(batch))
        self._spell = lru_cache(maxsize=1 << 14)(lambda id: spelled(tokenizer, id))

    def full(self, step: Step) -> str:
        """Everything about a step, as JSON."""
        frame = self._framer.frame(step)
        rows = [
            {"start": start, "text": shown(cells[start:stop]), "tokens": self._tokens(number, ids, cells)}
            for number, (start, stop, ids, cells) in enumerate(
                zip(self._starts, self._stops, step.tokens.tolist(), frame.rows, strict=True)
            )
        ]
        head = {"step": step.index, "total": step.total, "t": round(float(step.t), 6), "calls": round(step.nfe, 4)}
        return json.dumps({**head, "rows": rows}, ensure_ascii=False)

    def texts(self, step: Step) -> list[str]:
        """The draft of each row; of prompts, of what continues them."""
        rows = self._framer.frame(step).rows
        ranges = zip(self._starts, self._stops, rows, strict=True)
        return [shown(cells[start:stop]) for start, stop, cells in ranges]

    def _tokens(self, number: int, ids: Sequence[int], cells: Sequence[Cell]) -> list[dict[str, Any]]:
        found = {} if self.alternatives is None else self.alternatives.found.get(number, {})
        tokens: list[dict[str, Any]] = []
        for i, (id, cell) in enumerate(zip(ids, cells, strict=True)):
            known = id < self.tokenizer.vocab_size
            token: dict[str, Any] = {
                "id": id if known else None,
                "text": cell.text,
                "state": _NAMES[cell.state],
                "confidence": cell.confidence,
            }
            if i in found:
                token["alternatives"] = [[self._spell(each), round(prob, 4), each] for each, prob in found[i]]
            tokens.append(token)
        return tokens


def shown(cells: Sequence[Cell]) -> str:
    """The text of a row, with a sign for each masked position."""
    return "".join(MASK if cell.state == State.UNDECIDED else cell.text for cell in cells)


def spelled(tokenizer: Tokenizer, id: int) -> str:
    """A token as it reads inside a text; special tokens by their names."""
    names = {tokenizer.end_id: "[end]", tokenizer.pad_id: "[padding]", tokenizer.unk_id: "[unknown]"}
    return names.get(id) or tokenizer.added_text([id], [id])
