"""A run for `async` code: writing and scoring in a thread, stopped within a step when nobody waits any more."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, TypeVar

from ..core.cancellation import cancellable
from ..samplers.base import Step
from ..scoring.likelihood import LikelihoodEstimate
from .api import TextDiffusion

T = TypeVar("T")


class AsyncTextDiffusion:
    """`AsyncTextDiffusion(run)` has the methods of a run as coroutines, with the same arguments and errors.

    A cancelled task, or one past its `asyncio.timeout`, stops the computation before its next step. Calls at the same
    time share the machine, not their network calls; `textdiffusion serve` batches them.
    """

    def __init__(self, run: TextDiffusion) -> None:
        self.run = run

    async def generate(self, *args: Any, **options: Any) -> list[str]:
        """`TextDiffusion.generate`. `on_step` is called in another thread."""
        return await _in_thread(lambda: self.run.generate(*args, **options))

    async def infill(self, *args: Any, **options: Any) -> list[str]:
        """`TextDiffusion.infill`. `on_step` is called in another thread."""
        return await _in_thread(lambda: self.run.infill(*args, **options))

    async def revise(self, *args: Any, **options: Any) -> list[str]:
        """`TextDiffusion.revise`. `on_step` is called in another thread."""
        return await _in_thread(lambda: self.run.revise(*args, **options))

    async def score(self, texts: Sequence[str], **options: Any) -> list[LikelihoodEstimate]:
        """`TextDiffusion.score`."""
        return await _in_thread(lambda: self.run.score(texts, **options))

    async def stream(self, *args: Any, **options: Any) -> AsyncIterator[Step]:
        """The steps of `TextDiffusion.stream`; the next one is computed when it is asked for."""
        steps = await _in_thread(lambda: self.run.stream(*args, **options))
        while (step := await _in_thread(lambda: next(steps, None))) is not None:
            yield step


async def _in_thread(function: Callable[[], T]) -> T:
    """The result of a function in a thread, which is told to stop if this task is cancelled."""
    is_cancelled = threading.Event()

    def stoppable() -> T:
        with cancellable(is_cancelled.is_set):
            return function()

    try:
        return await asyncio.get_running_loop().run_in_executor(None, stoppable)
    except asyncio.CancelledError:
        is_cancelled.set()
        raise
