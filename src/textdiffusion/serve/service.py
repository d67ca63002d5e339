"""What every route does with a request: admit it, hold its run, prepare it, have it written, within its deadline."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TypeVar

from ..core.cancellation import cancellable, check_cancelled
from ..inference.api import TextDiffusion
from .drafts import Alternatives
from .errors import CANCELLED, APIError, timed_out
from .jobs import Channel, DraftOf, Job, Written
from .limits import Limits
from .metrics import Metrics
from .shelf import Loaded, Shelf
from .worker import as_api_error
from .writing import Plan

T = TypeVar("T")
log = logging.getLogger("textdiffusion.serve")


class Place:
    """The place of an admitted request, and the time by which it must be done."""

    def __init__(self, service: Service, deadline: float) -> None:
        self.service, self.deadline = service, deadline
        self.is_over = False

    @property
    def remaining(self) -> float:
        """Seconds until the deadline, at least 0."""
        return max(0.0, self.deadline - time.monotonic())

    async def within_deadline(self, waiting: Awaitable[T]) -> T:
        """What is waited for. Raises APIError (408) when the time is up."""
        try:
            async with asyncio.timeout(self.remaining):  # `wait_for` of Python 3.11 can swallow a cancellation
                return await waiting
        except TimeoutError:
            raise timed_out(self.service.limits.deadline) from None
        except APIError as error:
            if error.status == CANCELLED and not self.remaining:  # the thread noticed first
                raise timed_out(self.service.limits.deadline) from None
            raise

    async def compute(self, function: Callable[[], T]) -> T:
        """The result of a function that runs in a thread for what is prepared and read, until the client leaves."""
        return await self._in_thread(self.service.pool, function)

    async def measure(self, function: Callable[[], T]) -> T:
        """As `compute`, in a thread for what may take long, behind which no other request waits to be prepared."""
        return await self._in_thread(self.service.measuring, function)

    async def _in_thread(self, pool: ThreadPoolExecutor, function: Callable[[], T]) -> T:
        def stoppable() -> T:
            with cancellable(lambda: self.is_over or time.monotonic() > self.deadline):
                try:
                    check_cancelled()
                    return function()
                except Exception as error:
                    raise as_api_error(error) from None

        return await self.within_deadline(asyncio.get_running_loop().run_in_executor(pool, stoppable))

    def cancel(self) -> None:
        """Stops what is computed for this request; harmless where it is done."""
        self.is_over = True


class Ticket(Place):
    """A place with the run that the request holds."""

    def __init__(self, service: Service, loaded: Loaded, deadline: float) -> None:
        super().__init__(service, deadline)
        self.loaded = loaded
        self.run: TextDiffusion = loaded.run
        self._jobs: list[Job] = []

    def start(self, plan: Plan, draft_of: DraftOf | None = None, alternatives: Alternatives | None = None) -> Job:
        """Hands rows to the run's worker. With `alternatives` they share no network calls."""
        generation, key = plan.generation, plan.key
        if alternatives is not None:
            generation, key = replace(generation, guides=(*generation.guides, alternatives)), None
        channel: Channel[Written] = Channel(self.service.limits.drafts)
        job = Job(plan.batch, generation, key, channel, self.deadline, draft_of)
        self._jobs.append(job)
        self.loaded.worker.submit(job)
        return job

    async def next_draft(self, job: Job) -> str | None:
        """The next draft; None once the rows are finished. Raises APIError when the time is up."""
        return await self.within_deadline(job.channel.next_draft())

    async def result(self, job: Job) -> Written:
        """The finished rows. Raises APIError where they fail, or the time is up."""
        return await self.within_deadline(job.channel.result())

    def cancel(self) -> None:
        """Stops what is computed for this request, within a step; harmless where it is done."""
        super().cancel()
        for job in self._jobs:
            job.cancelled = True


class Service:
    """The runs of a server, and how many requests they have."""

    def __init__(self, shelf: Shelf, limits: Limits) -> None:
        self.shelf, self.limits, self.metrics = shelf, limits, Metrics()
        self.pool, self.measuring = ThreadPoolExecutor(8, "prepare"), ThreadPoolExecutor(2, "measure")
        self.loading = ThreadPoolExecutor(1, "load")
        self.requests = 0
        self.is_ready = True
        self._seconds = 1.0  # a running mean of what a request takes

    @asynccontextmanager
    async def place(self) -> AsyncIterator[Place]:
        """A place among the server's requests as long as the block lasts. Raises APIError (429) if none is free."""
        if self.requests >= self.limits.requests:
            self.metrics.refused.inc()
            wait = max(1, min(60, round(self._seconds)))
            raise APIError("The server has too many requests; try again later.", 429, code="busy", retry_after=wait)
        self.requests += 1
        self.metrics.requests_now.set(self.requests)
        began = time.monotonic()
        place = Place(self, began + self.limits.deadline)
        try:
            yield place
            self._seconds += 0.1 * (time.monotonic() - began - self._seconds)
        finally:
            place.cancel()
            self.requests -= 1
            self.metrics.requests_now.set(self.requests)

    @asynccontextmanager
    async def admit(self, model: str) -> AsyncIterator[Ticket]:
        """A place with the run called `model`.

        Raises APIError (429) if no place is free, (404) for unknown names, and (408) where loading takes too long.
        """
        async with self.place() as place:
            try:
                loaded = await place.within_deadline(self.shelf.hold(model, self.loading))
            except APIError:
                raise
            except Exception as error:
                raise as_api_error(error) from None
            ticket = Ticket(self, loaded, place.deadline)
            try:
                yield ticket
            finally:
                ticket.cancel()
                self.shelf.release(loaded)

    def stop(self) -> None:
        """Ends the threads."""
        self.is_ready = False
        self.shelf.stop()
        for pool in (self.pool, self.measuring, self.loading):
            pool.shutdown(wait=False, cancel_futures=True)


def chosen_seed(seed: int | None) -> int:
    """The seed of a request, or a random one of 32 bits."""
    return secrets.randbits(32) if seed is None else seed
