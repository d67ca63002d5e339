"""Independent positions conditioned on a match of the whole text with an automaton, exactly.

Messages run backwards over positions and states, as in hidden Markov models: the probability of a match given the state
before a position. From them, marginals, samples and the likeliest text take one forward pass each.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from ..core.randomness import Rng
from ..core.types import Logits, Mask, PerRow, Tokens
from .automata import Automaton


class Lattice:
    """Log weights `logp` of the tokens at every position, with the states of an automaton.

    `skip` marks positions outside the text. A pass costs rows x positions x states x classes of tokens.
    """

    def __init__(self, automaton: Automaton, logp: Logits, skip: Mask) -> None:
        self.automaton, self.logp, self.skip = automaton, logp, skip
        index = automaton.token_classes.expand(logp.shape)
        empty = logp.new_full((*logp.shape[:2], automaton.transitions.shape[1]), -torch.inf)
        maximum = empty.scatter_reduce(-1, index, logp, "amax")
        ratio = (logp - maximum.gather(-1, index)).exp().nan_to_num(0.0)  # 0 where a class has no weight
        class_logp = torch.zeros_like(empty).scatter_add(-1, index, ratio).log() + maximum
        dtype = torch.float32 if logp.device.type == "mps" else torch.float64
        self.class_logp: Float[Tensor, "b l c"] = class_logp.to(dtype)

    @cached_property
    def messages(self) -> list[Float[Tensor, "b s"]]:
        """Log weight of all matching continuations given the state, before each position and at the end."""
        return self._backward(lambda terms: terms.logsumexp(-1))

    @property
    def log_prob(self) -> PerRow:
        """Log weight of all texts that match."""
        return self.messages[0][:, 0]

    @cached_property
    def marginals(self) -> Float[Tensor, "b l c"]:
        """log p(class of the token | match) at every position."""
        states = torch.zeros_like(self.messages[0])
        states[:, 0] = 1.0
        transitions, marginals = self.automaton.transitions, []
        for i in range(self.logp.shape[1]):
            conditional = self._terms(i, self.messages[i + 1]) - self.messages[i][:, :, None]
            joint = states[:, :, None] * conditional.exp().nan_to_num(0.0)  # nan at states that cannot match
            marginals.append(torch.where(self.skip[:, i, None], 0.0, joint.sum(1).log()))
            next_states = torch.zeros_like(states).index_add(1, transitions.flatten(), joint.flatten(1))
            states = torch.where(self.skip[:, i, None], states, next_states)
        return torch.stack(marginals, dim=1)

    def sample(self, rng: Rng) -> Tokens:
        """A text drawn given a match."""

        def choose(i: int, weights: Tensor) -> Tensor:
            return rng.fork(i).categorical((weights - weights.amax(-1, keepdim=True)).exp())

        return self._forward(self.messages, choose)

    def argmax(self) -> Tokens:
        """The likeliest text that matches."""
        messages = self._backward(lambda terms: terms.amax(-1))
        return self._forward(messages, lambda i, weights: weights.argmax(-1))

    def _terms(self, i: int, message: Float[Tensor, "b s"]) -> Float[Tensor, "b s c"]:
        return self.class_logp[:, i, None, :] + message[:, self.automaton.transitions]

    def _backward(self, reduce: Callable[[Tensor], Tensor]) -> list[Float[Tensor, "b s"]]:
        end = torch.where(self.automaton.accepting, 0.0, -torch.inf).to(self.class_logp.dtype)
        messages = [end.expand(len(self.logp), -1)]
        for i in reversed(range(self.logp.shape[1])):
            message = reduce(self._terms(i, messages[-1]))
            messages.append(torch.where(self.skip[:, i, None], messages[-1], message))
        return messages[::-1]

    def _forward(self, messages: list[Tensor], choose: Callable[[int, Tensor], Tensor]) -> Tokens:
        state = torch.zeros(len(self.logp), dtype=torch.long, device=self.logp.device)
        transitions, token_classes, tokens = self.automaton.transitions, self.automaton.token_classes, []
        for i in range(self.logp.shape[1]):
            class_message = messages[i + 1].gather(1, transitions[state])
            largest = class_message.amax(-1, keepdim=True).clamp(min=torch.finfo(class_message.dtype).min)
            class_message = (class_message - largest).to(self.logp.dtype)  # before it is as large as the vocabulary
            weights = torch.where(self.skip[:, i, None], 0.0, self.logp[:, i] + class_message[:, token_classes])
            tokens.append(choose(i, weights))
            state = torch.where(self.skip[:, i], state, transitions[state, token_classes[tokens[-1]]])
        return torch.stack(tokens, dim=1)
