"""What stands before every route: the key, the size and pace of bodies, the log and the metrics."""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
from typing import Any
from urllib.parse import urlsplit

from .errors import CANCELLED, APIError
from .responses import Message, Receive, Scope, Send, send_json
from .service import Service
from .worker import as_api_error

log = logging.getLogger("textdiffusion.serve.access")

_ROUTES = {
    "/v1/models",
    "/v1/completions",
    "/v1/chat/completions",
    "/v1/stream",
    "/v1/infill",
    "/v1/score",
    "/v1/revise",
    "/v1/record",
}
_ROUTES |= {"/health", "/ready", "/metrics", "/openapi.json", "/"}

_LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
_DRAINED = 16  # a body of up to this many times the limit is read before it is refused


class Guards:
    """An ASGI application around another. Bodies are read completely, within their limits, before a route sees them.

    The log has the method, route, status, seconds and bytes of a request, never its text.
    """

    def __init__(self, app: Any, service: Service, host: str, api_key: str, quiet: bool) -> None:
        self.app, self.service, self.limits, self.quiet = app, service, service.limits, quiet
        self._key, self._hosts = api_key.encode(), {*_LOCAL_HOSTS, host.lower()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request, or refuses it."""
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1000})
                return
            await self.app(scope, receive, send)
            return
        began, status, sent = time.monotonic(), 0, 0

        async def counted(message: Message) -> None:
            nonlocal status, sent
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message.get("headers", []), (b"x-content-type-options", b"nosniff")]}
            sent += len(message.get("body", b""))
            await send(message)

        try:
            self._check_host(scope)
            self._check_key(scope)
            body = await self._body(scope, receive)
            await self.app(scope, _replayed(body, receive), counted)
        except APIError as problem:
            if not status:
                await send_json(counted, problem.status, problem.body, {**problem.headers, "connection": "close"})
        except _Left:
            status = CANCELLED
        except Exception as error:
            problem = as_api_error(error)
            if not status:
                await send_json(counted, problem.status, problem.body, problem.headers)
        finally:
            self._note(scope, status or CANCELLED, time.monotonic() - began, sent)

    def _check_host(self, scope: Scope) -> None:
        """Refuses requests by another name than this machine's, if there is no key.

        A page in a browser could otherwise let its own name point here, and read the answers (DNS rebinding).
        """
        host = next((value for name, value in scope["headers"] if name == b"host"), None)
        if self._key or host is None:  # every browser sends it
            return
        try:
            name = urlsplit(f"//{host.decode('latin-1')}").hostname
        except ValueError:
            name = None
        if name not in self._hosts:
            raise APIError(
                "The server is not known by this host name; use localhost, or give the server a key.",
                403,
                code="unknown_host",
            )

    def _check_key(self, scope: Scope) -> None:
        """Refuses requests without the server's key, if it has one. Health, readiness and the page need none."""
        path = scope["path"]
        if not self._key or not (path.startswith("/v1") or path in ("/metrics", "/openapi.json")):
            return
        given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        scheme, _, key = given.partition(b" ")
        if scheme.lower() != b"bearer" or not hmac.compare_digest(key.strip(), self._key):
            raise APIError(
                "The API key is missing or wrong; send it as Authorization: Bearer KEY.", 401, code="invalid_key"
            )

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        """The body. Raises APIError for a large one (413), and for one that comes too slowly (408)."""
        limit = self.limits.body_bytes
        too_large = APIError(f"The body has more than {limit:,} bytes.", 413, code="body_too_large")
        declared = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if declared.isdigit() and int(declared[:20]) > _DRAINED * limit:
            raise too_large
        chunks, count = list[bytes](), 0
        give_up = time.monotonic() + self.limits.write_timeout
        while True:
            try:
                async with asyncio.timeout(max(0.0, give_up - time.monotonic())):
                    message = await receive()
            except TimeoutError:
                raise APIError("The body came too slowly.", 408, code="slow_body") from None
            if message["type"] == "http.disconnect":
                raise _Left
            chunk = message.get("body", b"")
            count += len(chunk)
            if count <= limit:
                chunks.append(chunk)
            # A client hears the refusal only once it has sent its body, so a moderately large one is read and dropped.
            if count > _DRAINED * limit or (count > limit and not message.get("more_body", False)):
                raise too_large
            if not message.get("more_body", False):
                return b"".join(chunks)

    def _note(self, scope: Scope, status: int, seconds: float, sent: int) -> None:
        path = scope["path"]
        route = path if path in _ROUTES else "/v1/models/{model}" if path.startswith("/v1/models/") else "other"
        self.service.metrics.responses.labels(route, str(status)).inc()
        self.service.metrics.seconds.labels(route).observe(seconds)
        if not self.quiet:
            client = (scope.get("client") or ("-",))[0]
            log.info("%s %s %s %d %.3fs %d bytes", client, scope["method"], route, status, seconds, sent)


class _Left(Exception):
    """The client left before its request was complete."""


def _replayed(body: bytes, receive: Receive) -> Receive:
    """`receive` for an application: the body at once, then what the client does."""
    is_read = False

    async def replay() -> Message:
        nonlocal is_read
        if is_read:
            return await receive()
        is_read = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
