"""A law of independent positions under the condition that the whole matches an automaton, exactly.

Messages run backwards over positions and states, as those of hidden Markov models do: the chance of a match given the
state before a position. With them marginals, draws and the likeliest text take one pass forwards each.
"""

from __future__ import annotations

from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..core.randomness import Rng
from .automata import Automaton


class Lattice:
    """`logp` are log weights of the tokens at every position; positions to `skip` are no part of the text.

    The cost of a pass is rows x positions x states x classes of tokens.
    """

    def __init__(self, automaton: Automaton, logp: Float[Tensor, "b l v"], skip: Bool[Tensor, "b l"]) -> None:
        self.automaton, self.logp, self.skip = automaton, logp, skip
        index = automaton.classes.expand(logp.shape)
        none = logp.new_full((*logp.shape[:2], automaton.after.shape[1]), -torch.inf)
        most = none.scatter_reduce(-1, index, logp, "amax")
        share = (logp - most.gather(-1, index)).exp().nan_to_num(0.0)  # where a class has no weight
        summed = torch.zeros_like(none).scatter_add(-1, index, share).log() + most
        self.by_class: Float[Tensor, "b l c"] = summed.to(torch.float32 if logp.device.type == "mps" else torch.float64)

    @cached_property
    def messages(self) -> list[Float[Tensor, "b s"]]:
        """log of the weight of all that matches from each position on, given the state before it, and at the end."""
        return self._backwards(lambda terms: terms.logsumexp(-1))

    @property
    def log_chance(self) -> Float[Tensor, " b"]:
        """log of the weight of all texts that match."""
        return self.messages[0][:, 0]

    @cached_property
    def marginals(self) -> Float[Tensor, "b l c"]:
        """log p(class of the token | a match) at every position."""
        states = torch.zeros_like(self.messages[0])
        states[:, 0] = 1.0
        after, rows = self.automaton.after, []
        for i in range(self.logp.shape[1]):
            moved = self._terms(i, self.messages[i + 1]) - self.messages[i][:, :, None]
            joint = states[:, :, None] * moved.exp().nan_to_num(0.0)  # states that match nothing have no chance anyway
            rows.append(torch.where(self.skip[:, i, None], 0.0, joint.sum(1).log()))
            then = torch.zeros_like(states).index_add(1, after.flatten(), joint.flatten(1))
            states = torch.where(self.skip[:, i, None], states, then)
        return torch.stack(rows, dim=1)

    def drawn(self, rng: Rng) -> Int[Tensor, "b l"]:
        """A text from the law given a match."""
        return self._forwards(
            self.messages, lambda i, weights: rng.fork(i).categorical((weights - weights.amax(-1, keepdim=True)).exp())
        )

    def best(self) -> Int[Tensor, "b l"]:
        """The likeliest text that matches."""
        return self._forwards(self._backwards(lambda terms: terms.amax(-1)), lambda i, weights: weights.argmax(-1))

    def _terms(self, i: int, later: Float[Tensor, "b s"]) -> Float[Tensor, "b s c"]:
        return self.by_class[:, i, None, :] + later[:, self.automaton.after]

    def _backwards(self, join) -> list[Float[Tensor, "b s"]]:
        end = torch.where(self.automaton.accepts, 0.0, -torch.inf).to(self.by_class.dtype)
        messages = [end.expand(len(self.logp), -1)]
        for i in reversed(range(self.logp.shape[1])):
            joined = join(self._terms(i, messages[-1]))
            messages.append(torch.where(self.skip[:, i, None], messages[-1], joined))
        return messages[::-1]

    def _forwards(self, messages: list[Tensor], choose) -> Int[Tensor, "b l"]:
        state = torch.zeros(len(self.logp), dtype=torch.long, device=self.logp.device)
        after, classes, chosen = self.automaton.after, self.automaton.classes, []
        for i in range(self.logp.shape[1]):
            later = messages[i + 1].gather(1, after[state])  # by class
            weights = torch.where(self.skip[:, i, None], 0.0, self.logp[:, i] + later[:, classes])
            chosen.append(choose(i, weights))
            state = torch.where(self.skip[:, i], state, after[state, classes[chosen[-1]]])
        return torch.stack(chosen, dim=1)
