"""Running the server: the socket, the log, and the end."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from typing import Any

from ..core.devices import DeviceName, DtypeName
from ..core.errors import UserError
from .app import create_app
from .limits import Limits
from .service import Service
from .shelf import Shelf

KEEP_ALIVE_SECONDS = 30
MAX_CONNECTIONS = 1000
BACKLOG = 2048
DEFAULT_LIMITS = Limits()


def serve(
    sources: Sequence[str],
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    api_key: str = "",
    limits: Limits = DEFAULT_LIMITS,
    device: DeviceName = "auto",
    dtype: DtypeName = "float32",
    quiet: bool = False,
    started: Callable[[str], None] = lambda address: None,
) -> None:
    """Serves runs until SIGTERM or Ctrl-C; then it takes no more requests, and ends once all are answered.

    `started` is called with the server's address once it listens.
    Raises UserError for runs that cannot be loaded, a port that is taken, and without the extra `serve`.
    """
    try:
        import uvicorn
    except ImportError:
        raise UserError("The server needs uvicorn: pip install 'textdiffusion[serve]'.") from None
    service = Service(Shelf(sources, limits, device, dtype), limits)
    config = uvicorn.Config(
        create_app(service, host=host, api_key=api_key, quiet=quiet),
        host=host,
        port=port,
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="off",
        limit_concurrency=MAX_CONNECTIONS,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=int(limits.deadline) + 1,
    )
    _log_to_stderr(quiet)
    server = _server(uvicorn, config, service, started)
    try:
        server.run()
    except SystemExit:
        raise UserError(f"Cannot listen on {host}:{port}; another program may use the port (--port).") from None
    finally:
        service.stop()


def _server(uvicorn: Any, config: Any, service: Service, started: Callable[[str], None]) -> Any:
    class Server(uvicorn.Server):
        """Says where it listens, and that it is not ready any more when it stops."""

        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            if self.started:
                names = ", ".join(service.shelf.entries)
                port = self.servers[0].sockets[0].getsockname()[1] if self.servers else config.port
                address = f"http://{config.host}:{port}"
                logging.getLogger("textdiffusion.serve").info("serving %s on %s", names, address)
                started(address)

        async def shutdown(self, sockets: Any = None) -> None:
            service.is_ready = False
            await super().shutdown(sockets)

    return Server(config)


def _log_to_stderr(quiet: bool) -> None:
    root = logging.getLogger("textdiffusion.serve")
    if not root.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        root.addHandler(handler)
    root.setLevel(logging.WARNING if quiet else logging.INFO)
