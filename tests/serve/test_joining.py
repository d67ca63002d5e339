"""Rows of several requests in one batch, each with the seed of its own."""

import asyncio
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from textdiffusion import TextDiffusion
from textdiffusion.core.batch import concatenate
from textdiffusion.core.randomness import Rng
from textdiffusion.inference.options import SamplingOptions
from textdiffusion.serve.jobs import Channel, Job
from textdiffusion.serve.worker import Flight, Worker


def test_a_key_per_row_draws_what_a_key_for_all_does():
    seeds, rows = [5, 2**63 + 1, 7], torch.tensor([0, 0, 4])
    together = Rng.of(seeds, rows).fork("a").fork(3)
    for i, seed in enumerate(seeds):
        alone = Rng.of(seed, rows[i : i + 1]).fork("a").fork(3)
        assert torch.equal(together.uniform(4)[i], alone.uniform(4)[0])
        assert torch.equal(together.select(torch.tensor([i])).normal(3)[0], alone.normal(3)[0])


@pytest.mark.parametrize("recipe", ["mdlm", "udlm", "cdcd", "block_diffusion", "autoregressive"])
def test_texts_are_the_same_alone_and_joined(recipe: str, tiny_run: Callable[..., Path]):
    """With every sampler of the family: two seeds, free rows; then templates with different text."""
    run = TextDiffusion.from_pretrained(tiny_run(recipe), device="cpu")
    seeds, free = [3, 11], [run.empty_batch(2, 8), run.empty_batch(1, 8)]
    filled = [run.infill_batch("The [MASK:4] pear"), run.infill_batch("A r[MASK:4] figs.")]
    assert filled[0].layout == filled[1].layout != free[0].layout
    for name, sampler in run.samplers().items():
        for batches in (free, filled) if name == run.config.sampler.kind else (free,):
            alone = list[str]()
            for seed, batch in zip(seeds, batches, strict=True):
                options = SamplingOptions(steps=3 if sampler.min_steps else None, seed=seed, sampler=name)
                generation = options.resolve(run, batch)
                *_, last = generation.run(batch)
                alone += run.decode(last, batch)
            if generation.model is not run.model:  # pyrefly: ignore[unbound-name]
                continue  # the noise behind its masks depends on the seed: such requests are not joined
            batch = concatenate(batches)
            *_, last = generation.run(
                batch, [seed for seed, each in zip(seeds, batches, strict=True) for _ in each.tokens]
            )
            assert run.decode(last, batch) == alone, name


def test_requests_whose_rows_have_ended_leave(tiny_run: Callable[..., Path]):
    """Before the others of their batch, with the texts that they get alone."""
    run = TextDiffusion.from_pretrained(tiny_run("autoregressive", "text.layout=lines"), device="cpu")

    async def leave() -> None:
        jobs = []
        for seed in range(8):
            batch = run.prompt_batch("The red", 1 + seed % 2, 24)
            generation = SamplingOptions(seed=seed).resolve(run, batch)
            jobs.append(Job(batch, generation, "same", Channel(1), math.inf))
        flight, left = Flight.of(jobs, run.device), dict[Job, int]()
        for step in flight.steps:
            for job, last in flight.ended(step).items():
                flight.live.remove(job)
                left[job] = step.index
                assert last.index == last.total
                seed = jobs.index(job)
                assert run.decode(last, job.batch) == run.generate(job.rows, 24, prompt="The red", seed=seed)
        assert len(set(left.values())) > 1
        assert 0 < len(flight.live) < len(jobs)  # the others have what the batch ends with

    asyncio.run(leave())


def test_the_last_one_that_is_live_leaves_before_those_that_nobody_waits_for(tiny_run: Callable[..., Path]):
    run = TextDiffusion.from_pretrained(tiny_run("autoregressive", "text.layout=lines"), device="cpu")

    async def leave() -> None:
        jobs = []
        for seed in range(8):
            batch = run.prompt_batch("The red", 1, 24)
            jobs.append(Job(batch, SamplingOptions(seed=seed).resolve(run, batch), "same", Channel(1), math.inf))
        ends = dict[Job, int]()
        flight = Flight.of(jobs, run.device)
        for step in flight.steps:
            for job in flight.ended(step):
                flight.live.remove(job)
                ends[job] = step.index
        first = min(ends, key=lambda job: ends[job])
        flight = Flight.of(jobs, run.device)
        flight.live[:] = [first]
        assert next(step.index for step in flight.steps if flight.ended(step)) == ends[first] < step.total

    asyncio.run(leave())


def test_rows_share_a_call_by_the_width_of_their_own_canvas(tiny_run: Callable[..., Path]):
    run = TextDiffusion.from_pretrained(tiny_run("mdlm"), device="cpu")
    worker = Worker("none", run.device, lambda length: 32 // length)

    async def groups() -> list[list[int]]:
        found = []
        for length in (8, 16, 64):
            batch = run.empty_batch(1, length)
            generation = SamplingOptions(steps=1).resolve(run, batch)
            worker._waiting.extend(Job(batch, generation, length, Channel(1), math.inf) for _ in range(5))
            sizes = list[int]()
            while jobs := worker._next_group():
                sizes.append(len(jobs))
            found.append(sizes)
        return found

    assert asyncio.run(groups()) == [[4, 1], [2, 2, 1], [1] * 5]
    worker.stop()
