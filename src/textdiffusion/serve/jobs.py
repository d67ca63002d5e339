"""A request on its way: what to write, and the channel through which its drafts and its result come back."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from ..core.batch import Batch
from ..inference.options import Generation
from ..samplers.base import Step

T = TypeVar("T")


class Channel(Generic[T]):
    """Drafts and one outcome, from a thread to the event loop that made the channel.

    A slow reader loses drafts, never the outcome: at most `capacity` drafts wait, then new ones are not taken.
    """

    def __init__(self, capacity: int) -> None:
        self._loop, self._changed = asyncio.get_running_loop(), asyncio.Event()
        self._drafts: deque[str] = deque()
        self._capacity, self._lock = capacity, threading.Lock()
        self._outcome: T | BaseException | None = None

    @property
    def has_room(self) -> bool:
        """Whether a draft would be taken."""
        return len(self._drafts) < self._capacity

    def draft(self, text: str) -> None:
        """Adds a draft."""
        self._drafts.append(text)
        self._wake()

    def finish(self, outcome: T | BaseException) -> None:
        """Sets the outcome; the first one counts."""
        with self._lock:
            if self._outcome is None:
                self._outcome = outcome
        self._wake()

    @property
    def is_finished(self) -> bool:
        """Whether there is an outcome."""
        return self._outcome is not None

    def _wake(self) -> None:
        with suppress(RuntimeError):  # the loop has ended, and the client with it
            self._loop.call_soon_threadsafe(self._changed.set)

    async def next_draft(self) -> str | None:
        """The next draft; None once there is an outcome and every draft before it has been read."""
        while not self._drafts:
            if self._outcome is not None:
                return None
            self._changed.clear()
            if not self._drafts and self._outcome is None:
                await self._changed.wait()
        return self._drafts.popleft()

    async def result(self) -> T:
        """The result. Raises the error if that is the outcome."""
        while self._outcome is None:
            self._changed.clear()
            if self._outcome is None:
                await self._changed.wait()
        if isinstance(self._outcome, BaseException):
            raise self._outcome
        return self._outcome


@dataclass(frozen=True)
class Written:
    """The last step of a request's rows, on the CPU."""

    batch: Batch
    step: Step


DraftOf = Callable[[Step], "str | None"]
"""The draft of a step as text to send (None: this step has none)."""


@dataclass(eq=False)
class Job:
    """Rows to write under a `Generation`. Jobs with equal keys may share network calls (None: never)."""

    batch: Batch
    generation: Generation
    key: object | None
    channel: Channel[Written]
    deadline: float
    """When the time is up, on the clock of `time.monotonic`."""
    draft_of: DraftOf | None = None
    cancelled: bool = False
    arrived: float = field(default_factory=time.monotonic)

    @property
    def rows(self) -> int:
        """The number of texts."""
        return len(self.batch.tokens)

    @property
    def is_over(self) -> bool:
        """Whether nobody waits for the text any more."""
        return self.cancelled or time.monotonic() > self.deadline

    def take(self, step: Step) -> None:
        """Sends the draft of a step, if the client wants drafts and is not behind."""
        is_last = step.index == step.total
        if self.draft_of is not None and (is_last or self.channel.has_room) and (draft := self.draft_of(step)):
            self.channel.draft(draft)
