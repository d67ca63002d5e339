"""Answers that notice when the client leaves: a stream of server-sent events, and a single JSON object."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import suppress
from functools import cache
from typing import Any

from .limits import Limits
from .worker import as_api_error

Scope = dict[str, Any]
Message = dict[str, Any]
Receive = Callable[[], Coroutine[Any, Any, Message]]
Send = Callable[[Message], Coroutine[Any, Any, None]]

KEEP_ALIVE_SECONDS = 15.0

EVENT_STREAM_HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-store",
    "x-accel-buffering": "no",  # nginx passes events on at once
}


def event(data: str, name: str = "") -> str:
    """A server-sent event; JSON has no line breaks of its own."""
    return f"event: {name}\ndata: {data}\n\n" if name else f"data: {data}\n\n"


def dumps(value: Any) -> str:
    """JSON in one line. Half characters, which no UTF-8 has, cannot occur: texts come from tokens or were checked."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


Work = Callable[[Send], Coroutine[Any, Any, None]]


@cache
def _answer_class() -> Any:
    """The class of answers, made at first use because Starlette belongs to an extra."""
    from starlette.responses import Response

    class Answer(Response):
        """An answer made by a coroutine, which is cancelled as soon as the client leaves."""

        def __init__(self, work: Work) -> None:
            super().__init__()
            self.work = work

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            working, leaving = (asyncio.ensure_future(each) for each in (self.work(send), _disconnect(receive)))
            try:
                await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
                if working.done():
                    working.result()
            finally:
                for task in (working, leaving):
                    task.cancel()
                with suppress(asyncio.CancelledError, Exception):
                    await working

    return Answer


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def json_answer(make: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """The JSON that a coroutine makes, or its error."""

    async def work(send: Send) -> None:
        try:
            status, body, headers = 200, await make(), dict[str, str]()
        except Exception as error:
            problem = as_api_error(error)
            status, body, headers = problem.status, problem.body, problem.headers
        await send_json(send, status, body, headers)

    return _answer_class()(work)


async def send_json(send: Send, status: int, body: Any, headers: dict[str, str]) -> None:
    """Sends a complete JSON answer."""
    raw = dumps(body).encode()
    headers = {"content-type": "application/json", "content-length": str(len(raw)), **headers}
    await send({"type": "http.response.start", "status": status, "headers": _raw(headers)})
    await send({"type": "http.response.body", "body": raw})


def stream_answer(events: Callable[[], AsyncIterator[str]], limits: Limits, error_event: str = "") -> Any:
    """The events of an iterator. An error before the first is an answer with its status, a later one is an event.

    A client that takes nothing for `write_timeout` seconds is left.
    """

    async def work(send: Send) -> None:
        iterator = aiter(events())
        started = False

        async def put(text: str) -> None:
            nonlocal started
            if not started:
                await send({"type": "http.response.start", "status": 200, "headers": _raw(EVENT_STREAM_HEADERS)})
                started = True
            body = {"type": "http.response.body", "body": text.encode(), "more_body": True}
            async with asyncio.timeout(limits.write_timeout):
                await send(body)

        upcoming = asyncio.ensure_future(anext(iterator))
        try:
            while True:
                done, _ = await asyncio.wait({upcoming}, timeout=KEEP_ALIVE_SECONDS if started else None)
                if not done:
                    await put(": still writing\n\n")
                    continue
                try:
                    text = upcoming.result()
                except StopAsyncIteration:
                    break
                await put(text)
                upcoming = asyncio.ensure_future(anext(iterator))
        except TimeoutError:
            return  # the connection is closed without an end, which tells the client that it missed something
        except Exception as error:
            problem = as_api_error(error)
            if not started:
                await send_json(send, problem.status, problem.body, problem.headers)
                return
            await put(event(dumps(problem.body), error_event))
        finally:
            upcoming.cancel()
            with suppress(asyncio.CancelledError, StopAsyncIteration, Exception):
                await upcoming
            await iterator.aclose()  # type: ignore[attr-defined]
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    return _answer_class()(work)


def _raw(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
