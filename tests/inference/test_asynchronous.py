"""Async methods, callbacks and cancellation."""

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from textdiffusion import TextDiffusion
from textdiffusion.core.cancellation import Cancelled, cancellable
from textdiffusion.inference.asynchronous import AsyncTextDiffusion


@pytest.fixture(scope="module")
def run(tiny_run: Callable[..., Path]) -> TextDiffusion:
    return TextDiffusion.from_pretrained(tiny_run("mdlm"), device="cpu")


def test_async_methods_give_what_the_others_do(run: TextDiffusion):
    model = AsyncTextDiffusion(run)

    async def all_of_them():
        template = "The [MASK:5] pear"
        written = await asyncio.gather(
            model.generate(2, 16, seed=3), model.infill(template, seed=3), model.revise("The pear")
        )
        scores = await model.score(["The red pear"], draws=2)
        steps = [step async for step in model.stream(1, 16, seed=3)]
        return written, scores, steps

    (texts, filled, revised), scores, steps = asyncio.run(all_of_them())
    assert texts == run.generate(2, 16, seed=3)
    assert revised == run.revise("The pear")
    assert filled == run.infill("The [MASK:5] pear", seed=3)
    assert scores[0].bits == run.score(["The red pear"], draws=2)[0].bits
    assert run.decode(steps[-1]) == texts[:1]


def test_the_search_for_suspects_stops_when_nobody_waits(run: TextDiffusion):
    with cancellable(lambda: True), pytest.raises(Cancelled):
        run.revision("The pear", select="suspect")


def test_a_callback_sees_every_step_and_can_end_the_writing(run: TextDiffusion):
    seen: list[int] = []
    run.generate(1, 16, steps=5, on_step=lambda step: seen.append(step.index))
    assert seen == [0, 1, 2, 3, 4, 5]

    def stop(step):
        seen.append(step.index)
        if step.index == 2:
            raise KeyError("enough")

    seen.clear()
    with pytest.raises(KeyError):
        run.infill("The [MASK:5] pear", steps=5, on_step=stop)
    assert seen == [0, 1, 2]


def test_a_cancelled_task_stops_within_a_step(run: TextDiffusion):
    steps: list[int] = []
    first, waits, ended = threading.Event(), threading.Event(), threading.Event()

    def on_step(step):
        steps.append(step.index)
        first.set()
        waits.wait(10)  # until the task has been cancelled
        if step.index:
            ended.set()

    async def cancel():
        task = asyncio.ensure_future(AsyncTextDiffusion(run).generate(1, 16, steps=16, on_step=on_step))
        await asyncio.to_thread(first.wait, 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        waits.set()

    asyncio.run(cancel())
    assert steps == [0]
    assert not ended.wait(0.05)


def test_scoring_can_be_stopped(run: TextDiffusion):
    with cancellable(lambda: True), pytest.raises(Cancelled):
        run.score(["The red pear"], draws=2)
    with cancellable(lambda: True), pytest.raises(Cancelled):
        run.score(["The red pear"], order="left")
