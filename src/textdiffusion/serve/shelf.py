"""The runs that a server offers, loaded when they are asked for, within a limit of memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..core.devices import DeviceName, DtypeName
from ..core.errors import UserError
from ..core.memory import size
from ..inference.api import TextDiffusion
from .errors import APIError
from .facts import facts
from .limits import Limits
from .worker import Worker


@dataclass(eq=False)
class Entry:
    """A run by its name: where it is, what it is, and, while it is loaded, the run with its worker."""

    name: str
    source: str
    facts: dict[str, Any] = field(default_factory=dict)
    num_bytes: int = 0
    run: TextDiffusion | None = None
    worker: Worker | None = None
    loading: asyncio.Future[None] | None = None
    users: int = 0
    """Requests that hold the run."""
    last_used: float = 0.0


@dataclass(frozen=True)
class Loaded:
    """A run that stays loaded while it is held."""

    entry: Entry
    run: TextDiffusion
    worker: Worker


class Shelf:
    """Loads runs on demand; the least recently used idle ones make room. Used from the event loop only.

    All runs are loaded once at the start, so that a damaged one stops the server before it listens.
    """

    def __init__(self, sources: Sequence[str], limits: Limits, device: DeviceName, dtype: DtypeName) -> None:
        names = [Path(source).name for source in sources]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise UserError(f"Two runs are called {twice!r}; give their folders different names.")
        if not sources:
            raise UserError("There is no run to serve; name at least one.")
        self.limits, self.device, self.dtype = limits, device, dtype
        self.entries = {name: Entry(name, source) for name, source in zip(names, sources, strict=True)}
        self._room = asyncio.Event()  # set when a run is let go, or loaded
        for entry in self.entries.values():
            self._load(entry)
            if entry.num_bytes > limits.memory_bytes:
                raise UserError(
                    f"The weights of {entry.name} take {size(entry.num_bytes)}; the limit is "
                    f"{size(limits.memory_bytes)} (--memory)."
                )
            while self._used_bytes() > limits.memory_bytes:
                self._unload(next(each for each in self.entries.values() if each.run is not None))

    def _load(self, entry: Entry) -> None:
        run = TextDiffusion.from_pretrained(entry.source, device=self.device, dtype=self.dtype)
        if not entry.facts:
            entry.facts = facts(run, self.limits)
            entry.num_bytes = sum(parameter.nbytes for parameter in run.model.parameters())
        entry.worker = Worker(entry.name, run.device, run.chunk_rows)
        entry.run = run

    def _unload(self, entry: Entry) -> None:
        if entry.worker is not None:
            entry.worker.stop()
        entry.run, entry.worker = None, None

    def _used_bytes(self) -> int:
        """Weights of the runs that are loaded, or about to be."""
        return sum(each.num_bytes for each in self.entries.values() if each.run is not None or each.loading is not None)

    async def hold(self, name: str, pool: Executor) -> Loaded:
        """The run called `name`, loaded; `release` lets it go. Waits while others that are busy fill the memory.

        Raises APIError for a name that the server does not have.
        """
        entry = self.entries.get(name)
        if entry is None:
            known = ", ".join(self.entries)
            shown = name if len(name) <= 100 else f"{name[:100]}..."
            raise APIError(
                f"There is no model {shown!r}; it can be {known}.", 404, param="model", code="model_not_found"
            )
        entry.users += 1
        try:
            while entry.run is None:
                if entry.loading is None and not self._begin_loading(entry, pool):
                    self._room.clear()
                    await self._room.wait()
                elif entry.loading is not None:  # others may wait for it too, or nobody any more
                    await asyncio.shield(entry.loading)
            assert entry.run is not None
            assert entry.worker is not None
            return Loaded(entry, entry.run, entry.worker)
        except BaseException:
            entry.users -= 1
            raise

    def _begin_loading(self, entry: Entry, pool: Executor) -> bool:
        """Begins to load a run if idle ones make enough room. Nothing else waits for it."""
        idle = [each for each in self.entries.values() if each.run is not None and not each.users]
        idle.sort(key=lambda each: each.last_used)
        while idle and self._used_bytes() + entry.num_bytes > self.limits.memory_bytes:
            self._unload(idle.pop(0))
        if self._used_bytes() + entry.num_bytes > self.limits.memory_bytes:
            return False

        def loaded(future: asyncio.Future[None]) -> None:
            entry.loading = None
            self._room.set()
            if not future.cancelled():
                future.exception()  # those who wait hear it; nobody may

        entry.loading = asyncio.get_running_loop().run_in_executor(pool, self._load, entry)
        entry.loading.add_done_callback(loaded)
        return True

    def release(self, loaded: Loaded) -> None:
        """Ends a hold."""
        entry = loaded.entry
        entry.users -= 1
        entry.last_used = time.monotonic()
        if not entry.users:
            self._room.set()

    def stop(self) -> None:
        """Unloads every run, once its requests are done."""
        for entry in self.entries.values():
            self._unload(entry)
