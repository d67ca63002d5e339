"""A real server on a free port of this machine, with tiny runs."""

import json
import shutil
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from textdiffusion.data.chat import PLAIN
from textdiffusion.serve.app import create_app
from textdiffusion.serve.limits import Limits
from textdiffusion.serve.service import Service
from textdiffusion.serve.shelf import Shelf

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")


@dataclass
class Server:
    """A running server."""

    url: str
    service: Service

    def post(self, path: str, body: Any, key: str = "", timeout: float = 60) -> tuple[int, Any]:
        """Status and JSON of an answer; the text of what is no JSON."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {})
        return self.fetch(urllib.request.Request(self.url + path, data, headers), timeout)

    def get(self, path: str) -> tuple[int, Any]:
        """Status and JSON of an answer; the text of what is no JSON."""
        return self.fetch(urllib.request.Request(self.url + path), 60)

    def fetch(self, request: urllib.request.Request, timeout: float) -> tuple[int, Any]:
        """Status and JSON of an answer; the text of what is no JSON."""
        try:
            with urllib.request.urlopen(request, timeout=timeout) as response:
                status, text = response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            status, text = error.code, error.read().decode()
        try:
            return status, json.loads(text)
        except ValueError:
            return status, text

    def events(self, body: Any) -> list[tuple[str, Any]]:
        """The names and JSON of the events of `/v1/stream`."""
        status, text = self.post("/v1/stream", body)
        assert status == 200, text
        pairs = (block.split("\n") for block in text.split("\n\n") if block and not block.startswith(":"))
        return [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in pairs]


StartServer = Callable[..., Server]


@pytest.fixture(scope="session")
def start_server() -> Iterator[StartServer]:
    """Starts servers in threads: `start_server([folder], Limits(requests=2), api_key="k")`."""
    import uvicorn

    started: list[tuple[Any, threading.Thread, Service]] = []

    def start(sources: list[Path], limits: Limits = Limits(), api_key: str = "") -> Server:  # noqa: B008
        service = Service(Shelf([str(source) for source in sources], limits, "cpu", "float32"), limits)
        config = uvicorn.Config(
            create_app(service, api_key=api_key, quiet=True), port=0, log_config=None, access_log=False, lifespan="off"
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        started.append((server, thread, service))
        port = server.servers[0].sockets[0].getsockname()[1]
        return Server(f"http://127.0.0.1:{port}", service)

    yield start
    for server, _, _ in started:
        server.should_exit = True
    for _, thread, service in started:
        thread.join(10)
        service.stop()


@pytest.fixture(scope="session")
def in_bytes(tiny_run: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two tiny runs that know every character: of a stream of text, and of lines, which end, with a chat template."""
    lines = tmp_path_factory.mktemp("chat") / "chat"
    shutil.copytree(tiny_run("mdlm", "text.tokenizer=bytes", "text.layout=lines", "text.length=64"), lines)
    (lines / "chat_template.jinja").write_text(PLAIN)
    return {"stream": tiny_run("mdlm", "text.tokenizer=bytes"), "lines": lines}


@pytest.fixture(scope="session")
def server(start_server: StartServer, packaged_models: Path, in_bytes: dict[str, Path]) -> Server:
    """A server of tiny runs: plain text, descriptions of restaurants (source and label), sudokus, `in_bytes`."""
    models = [packaged_models / name for name in ("shakespeare", "restaurants", "sudoku")]
    return start_server([*models, *in_bytes.values()])
