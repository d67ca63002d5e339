"""The thread that writes the texts of one run: it steps the samplers of several requests in turn."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from ..core.batch import Batch, concatenate
from ..core.cancellation import Cancelled
from ..core.errors import UserError
from ..inference.continuation import ended_rows, ended_step
from ..samplers.base import Step
from .errors import APIError, cancelled, internal
from .jobs import Job, Written

log = logging.getLogger("textdiffusion.serve")

FLIGHTS = 4
"""Groups of requests that are written at once, a step of each in turn."""
GATHER_SECONDS = 0.004
"""How long an idle worker waits for more requests to join the first."""


@dataclass(eq=False)
class Flight:
    """Requests that share network calls, and their steps so far. `live` are those that still want the result."""

    jobs: Sequence[Job]
    batch: Batch
    steps: Iterator[Step]
    live: list[Job]
    last: Step | None = None

    @property
    def key(self) -> object | None:
        """The key of all its requests."""
        return self.jobs[0].key

    @classmethod
    def of(cls, jobs: Sequence[Job], device: torch.device) -> Flight:
        """A flight of jobs with one key. Each row draws with the seed of its own request."""
        batch = concatenate([job.batch for job in jobs]).to(device)
        seeds = [job.generation.seed for job in jobs for _ in range(job.rows)]
        return cls(jobs, batch, jobs[0].generation.run(batch, seeds), list(jobs))

    def rows(self, job: Job) -> slice:
        """The rows of one request."""
        start = sum(other.rows for other in self.jobs[: self.jobs.index(job)])
        return slice(start, start + job.rows)

    def rows_of(self, job: Job, step: Step) -> Step:
        """A step of the rows of one request."""
        rows = self.rows(job)
        return replace(step, tokens=step.tokens[rows], confidence=step.confidence[rows], state=step.state[rows])

    def ended(self, step: Step) -> dict[Job, Step]:
        """The requests whose texts have all ended before those of others, with their last steps."""
        generation = self.jobs[0].generation
        if len(self.jobs) < 2 or self.batch.text_starts is None or not generation.sampler.keeps_tokens:
            return {}
        ends, vocab_size = generation.end_ids, generation.model.codec.vocab_size
        rows = ended_rows(step, self.batch, ends, vocab_size).tolist()
        found = {}
        for job in [job for job in self.live if all(rows[self.rows(job)])]:
            batch = job.batch.to(step.tokens.device)
            if last := ended_step(self.rows_of(job, step), batch, ends, vocab_size):
                found[job] = last
        return found


class Worker:
    """Writes the requests of one run, in a thread of its own.

    Requests with equal keys that wait together start together. A request's text depends on nothing but itself: each row
    draws with its own seed and number. At most `max_rows(length)` rows share a call.
    """

    def __init__(self, name: str, device: torch.device, max_rows: Callable[[int], int]) -> None:
        self.device, self.max_rows = device, max_rows
        self.steps_done, self.rows_stepped = 0, 0
        self._waiting: deque[Job] = deque()
        self._flights: list[Flight] = []
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._work, name=f"worker of {name}", daemon=True)
        self._thread.start()

    @property
    def is_idle(self) -> bool:
        """Whether no request waits or is being written."""
        with self._changed:
            return not self._waiting and not self._flights

    def submit(self, job: Job) -> None:
        """Adds a request, whose outcome comes through its channel."""
        with self._changed:
            self._waiting.append(job)
            self._changed.notify()

    def stop(self) -> None:
        """Ends the thread once everything is written."""
        with self._changed:
            self._stopping = True
            self._changed.notify()

    def _work(self) -> None:
        while self._wait():
            for flight in list(self._flights):
                self._advance(flight)

    def _wait(self) -> bool:
        """Waits for requests and starts those that may; False at the end."""
        with self._changed:
            was_idle = not self._flights and not self._waiting
            while not self._waiting and not self._flights:
                if self._stopping:
                    return False
                self._changed.wait()
        if was_idle:
            time.sleep(GATHER_SECONDS)
        with self._changed:
            over = [job for job in self._waiting if job.is_over]
            self._waiting = deque(job for job in self._waiting if job not in over)
            while len(self._flights) < FLIGHTS and (jobs := self._next_group()):
                self._start(jobs)
        for job in over:
            job.channel.finish(cancelled())
        return True

    def _start(self, jobs: Sequence[Job]) -> None:
        """Begins to write requests together; tells them if that fails."""
        try:
            self._flights.append(Flight.of(jobs, self.device))
        except Exception as error:
            for job in jobs:
                job.channel.finish(as_api_error(error))

    def _next_group(self) -> list[Job]:
        """The first waiting request whose key is not in flight, with all that may join it; empty if there is none."""
        busy = {flight.key for flight in self._flights if flight.key is not None}
        first = next((job for job in self._waiting if job.key is None or job.key not in busy), None)
        if first is None:
            return []
        group, rows, most = [first], first.rows, self.max_rows(first.batch.tokens.shape[1])
        for job in self._waiting:
            if job is not first and job.key is not None and job.key == first.key and rows + job.rows <= most:
                group.append(job)
                rows += job.rows
        taken = {id(job) for job in group}
        self._waiting = deque(job for job in self._waiting if id(job) not in taken)
        return group

    def _advance(self, flight: Flight) -> None:
        """One step of a flight, after those who have left or are late are taken off."""
        for job in list(flight.live):
            if job.is_over:
                flight.live.remove(job)
                job.channel.finish(cancelled())
        if not flight.live:
            self._land(flight)
            return
        try:
            step = next(flight.steps, None)
            if step is None:
                self._finish(flight)
            else:
                flight.last = step
                self.steps_done, self.rows_stepped = self.steps_done + 1, self.rows_stepped + len(step.tokens)
                ended = flight.ended(step)
                for job in flight.live:
                    if job.draft_of is not None:
                        job.take(ended.get(job) or flight.rows_of(job, step))
                for job, last in ended.items():
                    flight.live.remove(job)
                    job.channel.finish(written(job, last))
        except Exception as error:
            self._fail(flight, error)

    def _finish(self, flight: Flight) -> None:
        assert flight.last is not None
        for job in flight.live:
            job.channel.finish(written(job, flight.rows_of(job, flight.last)))
        self._land(flight)

    def _land(self, flight: Flight) -> None:
        with self._changed:
            self._flights.remove(flight)

    def _fail(self, flight: Flight, error: BaseException) -> None:
        """Tells the requests of a flight what went wrong; several are tried alone first, as it may concern one only."""
        if len(flight.jobs) > 1 and isinstance(error, UserError):
            with self._changed:
                self._flights.remove(flight)
                for job in flight.live:
                    self._start([job])
            return
        for job in flight.live:
            job.channel.finish(as_api_error(error))
        self._land(flight)


def written(job: Job, step: Step) -> Written:
    """The result of a request from the last step of its rows."""
    return Written(job.batch, replace(step, tokens=step.tokens.cpu(), confidence=step.confidence.cpu()))


def as_api_error(error: BaseException) -> APIError:
    """What a client hears about an error; what is not the client's fault goes to the log."""
    if isinstance(error, APIError):
        return error
    if isinstance(error, UserError):
        return APIError(str(error))
    if isinstance(error, Cancelled):
        return cancelled()
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate" in str(error):
        log.warning("out of memory: %s", error)
        return APIError("The server has too little memory for this request now; try a smaller one.", 503, retry_after=5)
    log.error("a request failed", exc_info=error)
    return internal()
