"""Automata over tokens: which texts match a pattern, however they are split into tokens."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from ..core.batch import Batch
from ..core.errors import UserError
from ..core.memory import check_memory
from ..core.types import Mask
from ..data.tokenizers.base import Tokenizer
from . import patterns

_ENTRY_BYTES = 32  # of a state and a token: the next state, and the copies that `_minimize` sorts


@dataclass(frozen=True)
class Automaton:
    """A deterministic automaton, which starts in state 0. Tokens that no state distinguishes share a class.

    `transitions` is the state after a token of each class, `token_classes` the class of each token, `accepting` whether
    a text may end in a state. A text begins after the first `source_end_id`, which ends its source (None: at once).
    """

    transitions: Int[Tensor, "s c"]
    token_classes: Int[Tensor, " v"]
    accepting: Bool[Tensor, " s"]
    source_end_id: int | None = None

    @classmethod
    def from_pattern(
        cls, node: patterns.Node, tokenizer: Tokenizer, position: int = 0, *, source_end_id: int | None = None
    ) -> Automaton:
        """The automaton of texts that match `node` after their first `position` tokens.

        It reads what `tokenizer.decode` does: nothing after the first end token, and no padding. Raises UserError for a
        pattern with too many states, and for a tokenizer whose texts are not the concatenation of their tokens.
        """
        token_bytes = _token_bytes(tokenizer)
        byte_transitions, accepting = patterns.automaton(node)
        num_states = len(accepting)
        _check_table(num_states + position, tokenizer.vocab_size)
        ended, dead = num_states, num_states + 1
        table = np.full((num_states + 2, tokenizer.vocab_size), dead)
        for token, spelling in enumerate(token_bytes):
            if spelling:
                state = np.arange(num_states)
                for byte in spelling:
                    state = byte_transitions[state, byte]
                table[:num_states, token] = state
        table[ended] = ended
        if tokenizer.end_id is not None:
            table[:num_states, tokenizer.end_id] = np.where(accepting, ended, dead)
        accepting = np.append(accepting, [True, False])
        if position:  # states that count the tokens before come first
            table = np.concatenate([np.full((position, table.shape[1]), dead + position), table + position])
            spelled = np.array([bool(spelling) for spelling in token_bytes])
            table[:position] = np.where(spelled, np.arange(1, position + 1)[:, None], table[:position])
            accepting = np.concatenate([np.zeros(position, dtype=bool), accepting])
        if tokenizer.pad_id is not None:
            table[:, tokenizer.pad_id] = np.arange(len(table))
        return replace(_minimize(table, accepting), source_end_id=source_end_id)

    def intersection(self, other: Automaton) -> Automaton:
        """The automaton of texts that match both."""
        _check_table(len(self.transitions) * len(other.transitions), len(self.token_classes))
        table_a, table_b = (a.transitions[:, a.token_classes].cpu().numpy() for a in (self, other))
        table = (table_a[:, None] * len(table_b) + table_b[None]).reshape(-1, table_a.shape[1])
        accepting = (self.accepting.cpu()[:, None] & other.accepting.cpu()).flatten()
        return replace(_minimize(table, accepting.numpy()), source_end_id=self.source_end_id)

    def nearest_length(self, length: int) -> int | None:
        """The number of tokens nearest to `length`, at least 1, of a text that matches (None: no text matches)."""
        transitions, accepting = self.transitions.cpu(), self.accepting.cpu()
        if not bool(accepting[transitions.unique()].any()):  # every state can be reached, so these follow some token
            return None
        states, number, nearest = transitions[0].unique(), 1, None
        while nearest is None or number - length < length - nearest:
            if bool(accepting[states].any()):
                nearest = number
            states, number = transitions[states].unique(), number + 1
        return nearest

    def to(self, device: torch.device) -> Automaton:
        """The same automaton on another device."""
        tensors = self.transitions.to(device), self.token_classes.to(device), self.accepting.to(device)
        return Automaton(*tensors, self.source_end_id)

    def outside_text(self, batch: Batch) -> Mask:
        """The positions that are not part of the text: padding, a prompt, and a source with its end token."""
        outside = torch.zeros_like(batch.target_mask) if batch.valid_mask is None else ~batch.valid_mask
        if batch.text_starts is not None:
            positions = torch.arange(batch.tokens.shape[1], device=batch.tokens.device)
            return outside | (positions < batch.text_starts[:, None])
        if self.source_end_id is None:
            return outside
        is_end = batch.tokens == self.source_end_id
        return outside | (is_end.cumsum(1) - is_end.long() == 0)


def _check_table(num_states: int, vocab_size: int) -> None:
    """Raises UserError for a table of states and tokens that does not fit into the free memory."""
    remedy = "use shorter patterns, fewer of them or a smaller position"
    check_memory(num_states * vocab_size * _ENTRY_BYTES, f"A pattern of {num_states:,} states", remedy)


def _token_bytes(tokenizer: Tokenizer) -> list[bytes]:
    """The bytes that each token adds to a text; none for end, padding and unknown.

    Raises UserError if a sample of token pairs shows that texts are not the concatenation of their tokens.
    """
    special = {tokenizer.end_id, tokenizer.pad_id, tokenizer.unk_id}
    token_bytes = [b"" if i in special else tokenizer.token_bytes(i) for i in range(tokenizer.vocab_size)]
    tokens = [i for i, spelling in enumerate(token_bytes) if spelling]
    shift = len(tokens) // 3
    for first, second in zip(tokens, tokens[shift:] + tokens[:shift], strict=True):
        joined = (token_bytes[first] + token_bytes[second]).decode("utf-8", "replace")
        if "\ufffd" not in joined and (decoded := tokenizer.decode([first, second])) != joined:
            raise UserError(
                f"Words and patterns need a tokenizer whose texts are the concatenation of their tokens; this run's "
                f"({tokenizer.kind}) writes {joined!r} as {decoded!r}."
            )
    return token_bytes


def _minimize(table: np.ndarray, accepting: np.ndarray) -> Automaton:
    """The smallest automaton of a table [states, tokens]: reachable states, merged if equivalent (Moore 1956)."""
    columns, token_classes = np.unique(table, axis=1, return_inverse=True)
    reachable, frontier = {0}, [0]
    while frontier:
        frontier = [int(state) for state in np.unique(columns[frontier]) if int(state) not in reachable]
        reachable |= set(frontier)
    order = np.array(sorted(reachable))
    columns, accepting = np.searchsorted(order, columns[order]), accepting[order]
    partition = accepting.astype(np.int64)
    while True:
        signature = np.concatenate([partition[:, None], partition[columns]], axis=1)
        refined = np.unique(signature, axis=0, return_inverse=True)[1].reshape(-1)
        if refined.max() == partition.max():
            break
        partition = refined
    # Numbered by the first state of each set, so that the start state stays 0.
    _, first = np.unique(partition, return_index=True)
    rank = np.argsort(np.argsort(first))
    representatives = np.sort(first)
    merged, merged_classes = np.unique(rank[partition[columns[representatives]]], axis=1, return_inverse=True)
    token_classes = merged_classes.reshape(-1)[token_classes.reshape(-1)]
    tensors = [torch.from_numpy(array) for array in (merged, token_classes, accepting[representatives])]
    return Automaton(tensors[0], tensors[1], tensors[2])
