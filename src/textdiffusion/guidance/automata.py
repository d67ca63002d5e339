"""Automata over tokens: which texts match, whatever tokens they are made of."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from ..core.batch import Batch
from ..core.errors import UserError
from ..data.tokenizers.base import Tokenizer
from . import patterns


@dataclass(frozen=True)
class Automaton:
    """States, of which 0 is the first. Tokens that no state tells apart are of one class.

    `after` is the state after a token of each class, `classes` the class of each token, `accepts` whether a text may
    end in a state. A text begins after the first token `begins`, which ends its source (None: at once).
    """

    after: Int[Tensor, "s c"]
    classes: Int[Tensor, " v"]
    accepts: Bool[Tensor, " s"]
    begins: int | None = None

    @classmethod
    def of(cls, node: patterns.Node, tokenizer: Tokenizer, place: int = 0, *, begins: int | None = None) -> Automaton:
        """Reads what `tokenizer.decode` does: nothing after the first end token, and no padding.

        `node` says how the text goes on after its first `place` tokens. Raises UserError for a pattern of too many
        states, and for a tokenizer whose texts are not its tokens put together.
        """
        pieces = _pieces(tokenizer)
        steps, accepts = patterns.automaton(node)
        states = len(accepts)
        done, dead = states, states + 1
        table = np.full((states + 2, tokenizer.vocab_size), dead)
        for token, piece in enumerate(pieces):
            if piece:
                state = np.arange(states)
                for byte in piece:
                    state = steps[state, byte]
                table[:states, token] = state
        table[done] = done
        if tokenizer.end_id is not None:
            table[:states, tokenizer.end_id] = np.where(accepts, done, dead)
        ends = np.append(accepts, [True, False])
        if place:  # states that count the tokens before come first
            table = np.concatenate([np.full((place, table.shape[1]), dead + place), table + place])
            spelled = np.array([bool(piece) for piece in pieces])
            table[:place] = np.where(spelled, np.arange(1, place + 1)[:, None], table[:place])
            ends = np.concatenate([np.zeros(place, dtype=bool), ends])
        if tokenizer.pad_id is not None:
            table[:, tokenizer.pad_id] = np.arange(len(table))
        return replace(_reduced(table, ends), begins=begins)

    def both(self, other: Automaton) -> Automaton:
        """Of the texts that match both."""
        mine, theirs = (a.after[:, a.classes].cpu().numpy() for a in (self, other))
        table = (mine[:, None] * len(theirs) + theirs[None]).reshape(-1, mine.shape[1])
        ends = (self.accepts.cpu()[:, None] & other.accepts.cpu()).flatten()
        return replace(_reduced(table, ends.numpy()), begins=self.begins)

    def nearest(self, length: int) -> int | None:
        """The number of tokens nearest to `length`, 1 or more, that a text which matches may have (None: no text)."""
        after, accepts = self.after.cpu(), self.accepts.cpu()
        if not bool(accepts[after.unique()].any()):  # all states after a token, since every state can be reached
            return None
        at, number, found = after[0].unique(), 1, None
        while found is None or number - length < length - found:
            if bool(accepts[at].any()):
                found = number
            at, number = after[at].unique(), number + 1
        return found

    def to(self, device: torch.device) -> Automaton:
        """The same on another device."""
        return Automaton(self.after.to(device), self.classes.to(device), self.accepts.to(device), self.begins)

    def outside(self, batch: Batch) -> Bool[Tensor, "b l"]:
        """The positions that are no part of the text: padding, and a source with its end."""
        outside = torch.zeros_like(batch.target_mask) if batch.valid_mask is None else ~batch.valid_mask
        if self.begins is None:
            return outside
        end = batch.tokens == self.begins
        return outside | (end.cumsum(1) - end.long() == 0)


def _pieces(tokenizer: Tokenizer) -> list[bytes]:
    """What each token adds to a text; nothing for end, padding and unknown."""
    special = {tokenizer.end_id, tokenizer.pad_id, tokenizer.unk_id}
    pieces = [b"" if i in special else tokenizer.token_bytes(i) for i in range(tokenizer.vocab_size)]
    some = [i for i, piece in enumerate(pieces) if piece]
    for first, second in zip(some, some[len(some) // 3 :] + some[: len(some) // 3], strict=True):
        joined = (pieces[first] + pieces[second]).decode("utf-8", "replace")
        if "\ufffd" not in joined and tokenizer.decode([first, second]) != joined:
            raise UserError(
                f"Texts of this run's tokenizer ({tokenizer.kind}) are more than its tokens put together "
                f"({joined!r} reads {tokenizer.decode([first, second])!r}), so patterns and words cannot be asked for."
            )
    return pieces


def _reduced(table: np.ndarray, ends: np.ndarray) -> Automaton:
    """The smallest automaton of a table [s, v]: states that can be reached, like ones merged (Moore), as are tokens."""
    columns, classes = np.unique(table, axis=1, return_inverse=True)
    reached, fresh = {0}, [0]
    while fresh:
        fresh = [int(state) for state in np.unique(columns[fresh]) if int(state) not in reached]
        reached |= set(fresh)
    order = np.array(sorted(reached))
    columns, ends = np.searchsorted(order, columns[order]), ends[order]
    block = ends.astype(np.int64)
    while True:
        told = np.concatenate([block[:, None], block[columns]], axis=1)
        finer = np.unique(told, axis=0, return_inverse=True)[1].reshape(-1)
        if finer.max() == block.max():
            break
        block = finer
    # Numbered by the first state of each, so that the first stays 0.
    _, first = np.unique(block, return_index=True)
    rank = np.argsort(np.argsort(first))
    kept = np.sort(first)
    merged, again = np.unique(rank[block[columns[kept]]], axis=1, return_inverse=True)
    classes = again.reshape(-1)[classes.reshape(-1)]
    return Automaton(torch.from_numpy(merged), torch.from_numpy(classes), torch.from_numpy(ends[kept]))
