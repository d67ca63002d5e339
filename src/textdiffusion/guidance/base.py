"""The settings of guides."""

from __future__ import annotations

from abc import ABC, abstractmethod

from ..core.registry import Part
from ..samplers.base import Guide, Run


class GuideConfig(Part, ABC):
    """Settings of a guide that needs something of the run, such as its tokenizer.

    Given when sampling, not part of a run's configuration. Subclasses are frozen dataclasses; their names are what a
    user types.
    """

    @abstractmethod
    def bind(self, run: Run) -> Guide:
        """The guide for one run. Raises UserError if the run does not support it."""
