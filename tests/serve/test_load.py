"""Many requests at once: the same texts, bounded queues, deadlines, clients that leave or read slowly."""

import asyncio
import http.client
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from textdiffusion import TextDiffusion
from textdiffusion.serve.jobs import Channel
from textdiffusion.serve.limits import Limits
from textdiffusion.serve.shelf import Entry, Shelf

from .conftest import Server, StartServer

RECORDING = {
    "format": "html",
    "title": "",
    "frames": [{"step": 1, "total": 1, "t": 0, "calls": 1, "tokens": [["a", 1, "given"]]}],
}


def wait_until(condition, seconds: float = 10.0) -> None:
    """Fails if a condition does not come true in time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def slow(model: str, **more) -> dict:
    """A request of a thousand steps."""
    return {"model": model, "length": 256, "steps": 4000, "sampler": "ancestral", "every": 4000} | more


def open_stream(server: Server, body: dict) -> socket.socket:
    """A connection on which a stream has been asked for."""
    address = urlsplit(server.url)
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 13)  # little waits for a slow reader
    connection.settimeout(10)
    connection.connect((address.hostname, address.port))
    data = json.dumps(body).encode()
    head = (
        "POST /v1/stream HTTP/1.1\r\nHost: localhost\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    )
    connection.sendall(head.encode() + data)
    return connection


def test_a_text_depends_on_nothing_but_its_request(server: Server):
    """Alone, at the same time as others, streamed; different seeds, numbers of texts and lengths."""
    bodies = [
        {
            "model": "shakespeare",
            "prompt": "The "[: i % 3],
            "max_tokens": 8 + i % 2,
            "n": 1 + i % 4 // 3,
            "seed": i % 50,
        }
        for i in range(20)
    ]

    def texts(body: dict) -> list[str]:
        status, answer = server.post("/v1/completions", body)
        assert status == 200, answer
        return [choice["text"] for choice in answer["choices"]]

    def streamed(body: dict) -> list[str]:
        status, answer = server.post("/v1/completions", body | {"stream": True})
        assert status == 200, answer
        found = [""] * body["n"]
        for line in answer.splitlines():
            if line.startswith("data: {"):
                for choice in json.loads(line.removeprefix("data: "))["choices"]:
                    found[choice["index"]] += choice["text"]
        return found

    alone = [texts(body) for body in bodies[:10]]
    worker = server.service.shelf.entries["shakespeare"].worker
    assert worker is not None
    steps, rows = worker.steps_done, worker.rows_stepped
    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(texts, bodies))
        in_streams = list(pool.map(streamed, bodies[:10]))
    assert together[:10] == alone
    assert in_streams == alone
    assert len({text for texts_of in together for text in texts_of}) > 10
    assert (worker.rows_stepped - rows) / (worker.steps_done - steps) > 2  # they did share calls


def test_more_requests_than_places_are_told_to_come_back(start_server: StartServer, packaged_models: Path):
    server = start_server([packaged_models / "shakespeare"], Limits(requests=2))
    connections = [open_stream(server, slow("shakespeare")) for _ in range(2)]
    wait_until(lambda: server.service.requests == 2)
    address = urlsplit(server.url)
    client = http.client.HTTPConnection(address.hostname or "", address.port, timeout=10)
    body = json.dumps({"model": "shakespeare", "template": "[MASK:1]"})
    client.request("POST", "/v1/infill", body, {"Content-Type": "application/json"})
    response = client.getresponse()
    assert (response.status, json.load(response)["error"]["type"]) == (429, "rate_limit_error")
    assert int(response.headers["Retry-After"]) >= 1
    assert server.get("/health")[0] == server.get("/ready")[0] == 200
    assert server.post("/v1/record", RECORDING)[0] == 429
    for connection in connections:
        connection.close()
    worker = server.service.shelf.entries["shakespeare"].worker
    assert worker is not None
    wait_until(lambda: server.service.requests == 0 and worker.is_idle)  # long before 4,000 steps
    assert server.post("/v1/infill", {"model": "shakespeare", "template": "[MASK:1]"})[0] == 200
    assert server.post("/v1/record", RECORDING)[0] == 200


def test_a_client_that_leaves_stops_what_it_asked_for(server: Server):
    worker = server.service.shelf.entries["shakespeare"].worker
    assert worker is not None
    for body in (slow("shakespeare"), slow("shakespeare", every=1, alternatives=3), slow("shakespeare", bits=True)):
        connection = open_stream(server, body)
        wait_until(lambda: not worker.is_idle)
        connection.close()
        wait_until(lambda: worker.is_idle and server.service.requests == 0, 5)


def test_a_request_past_its_deadline_gets_408(
    start_server: StartServer, packaged_models: Path, monkeypatch: pytest.MonkeyPatch
):
    server = start_server([packaged_models / "shakespeare"], Limits(deadline=0.3))
    body = {"model": "shakespeare", "max_tokens": 200, "steps": 4000, "sampler": "ancestral"}
    status, answer = server.post("/v1/completions", body)
    assert (status, answer["error"]["code"]) == (408, "deadline")
    monkeypatch.setattr("textdiffusion.serve.studio.recorded", lambda _: time.sleep(1))
    assert server.post("/v1/record", RECORDING)[0] == 408
    worker = server.service.shelf.entries["shakespeare"].worker
    assert worker is not None
    wait_until(lambda: worker.is_idle)


def test_a_slow_reader_delays_nobody_and_gets_its_result(start_server: StartServer, packaged_models: Path):
    server = start_server([packaged_models / "shakespeare"], Limits(drafts=2))
    body = {"model": "shakespeare", "length": 300, "steps": 60, "sampler": "ancestral", "alternatives": 10, "seed": 1}
    connection = open_stream(server, body)  # reads nothing yet
    assert server.post("/v1/infill", {"model": "shakespeare", "template": "[MASK:1]"})[0] == 200
    worker = server.service.shelf.entries["shakespeare"].worker
    assert worker is not None
    wait_until(lambda: worker.is_idle, 30)
    received, part = b"", b"-"
    while part and not received.endswith(b"0\r\n\r\n"):
        part = connection.recv(1 << 20)
        received += part
    connection.close()
    assert b"event: done" in received
    assert 1 < received.count(b"event: step") < 61  # drafts were dropped


def test_bodies_have_limits_of_size_and_pace(start_server: StartServer, packaged_models: Path):
    limits = Limits(body_bytes=1000, write_timeout=0.3)
    server = start_server([packaged_models / "shakespeare"], limits, api_key="sesame")
    assert server.post("/v1/infill", b"a" * 2000, key="sesame")[0] == 413
    assert server.post("/v1/infill", {}, key="wrong")[0] == 401
    assert server.post("/v1/infill", {})[1]["error"]["code"] == "invalid_key"
    assert server.get("/v1/models")[0] == server.get("/metrics")[0] == 401
    assert server.get("/health")[0] == 200
    assert server.post("/v1/infill", {"model": "shakespeare", "template": "[MASK:1]"}, key="sesame")[0] == 200
    address = urlsplit(server.url)
    with socket.create_connection((address.hostname, address.port), 10) as connection:
        head = b"POST /v1/infill HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n"
        head += b"Authorization: Bearer sesame\r\n\r\n{"
        connection.sendall(head)
        assert b" 408 " in connection.recv(100)
    with socket.create_connection((address.hostname, address.port), 10) as connection:
        chunked = head.replace(b"Content-Length: 99", b"Transfer-Encoding: chunked").removesuffix(b"{")
        connection.sendall(chunked + b"5000\r\n" + b"a" * 0x5000 + b"\r\n")
        assert b" 413 " in connection.recv(100)


def test_runs_make_room_for_each_other(server: Server, start_server: StartServer, packaged_models: Path):
    folders = [packaged_models / "shakespeare", packaged_models / "sudoku"]
    sizes = [server.service.shelf.entries[folder.name].num_bytes for folder in folders]
    server = start_server(folders, Limits(memory_bytes=max(sizes)))
    bodies = [
        {"model": name, "template": "[MASK:1]" if name == "shakespeare" else "." * 81}
        for name in ("sudoku", "shakespeare")
    ]
    for body in bodies * 2:
        assert server.post("/v1/infill", body | {"steps": 1})[0] == 200
        loaded = [entry.name for entry in server.service.shelf.entries.values() if entry.run is not None]
        assert loaded == [body["model"]]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda body: server.post("/v1/infill", body | {"steps": 1})[0], bodies * 4))
    assert answers == [200] * 8


def test_metrics_and_the_api_description(server: Server):
    server.post("/v1/infill", {"model": "shakespeare", "template": "[MASK:2]"})
    page = server.get("/metrics")[1]
    assert 'textdiffusion_responses_total{route="/v1/infill",status="200"}' in page
    assert 'textdiffusion_tokens_total{model="shakespeare"}' in page
    schema = server.get("/openapi.json")[1]
    assert {"/v1/completions", "/v1/stream", "/v1/infill", "/v1/score"} <= set(schema["paths"])


def test_drafts_are_dropped_and_results_are_not():
    async def read() -> None:
        channel: Channel[str] = Channel(2)
        channel.draft("a")
        assert channel.has_room
        channel.draft("b")
        assert not channel.has_room
        channel.finish("result")
        channel.finish(ValueError("too late"))
        assert [await channel.next_draft() for _ in range(3)] == ["a", "b", None]
        assert await channel.result() == "result"

    asyncio.run(read())
    with pytest.raises(RuntimeError):
        Channel(1)  # belongs to an event loop


def test_nothing_waits_while_another_run_is_loaded(
    server: Server, start_server: StartServer, packaged_models: Path, monkeypatch: pytest.MonkeyPatch
):
    """Neither the end of a request, nor a new one for a run that is loaded."""
    folders = [packaged_models / name for name in ("shakespeare", "sudoku", "restaurants")]
    sizes = [server.service.shelf.entries[folder.name].num_bytes for folder in folders]
    other = start_server(folders, Limits(memory_bytes=sum(sizes) - 1))
    shelf, may_load, load = other.service.shelf, threading.Event(), Shelf._load
    assert shelf.entries["shakespeare"].run is None  # it made room for the others

    def slow_load(self: Shelf, entry: Entry) -> None:
        assert may_load.wait(60)
        load(self, entry)

    monkeypatch.setattr(Shelf, "_load", slow_load)
    bodies = {"shakespeare": "[MASK:1]", "sudoku": "." * 81}

    def ask(name: str) -> int:
        return other.post("/v1/infill", {"model": name, "template": bodies[name], "steps": 1})[0]

    assert ask("sudoku") == 200  # so that the third run makes room
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(ask, "shakespeare") for _ in range(2)]  # both wait for one loading
        wait_until(lambda: shelf.entries["shakespeare"].loading is not None)
        try:
            assert [ask("sudoku") for _ in range(2)] == [200, 200]
            assert not any(each.done() for each in waiting)
        finally:
            may_load.set()
        assert [each.result() for each in waiting] == [200, 200]


def test_long_measurements_delay_no_text(server: Server, monkeypatch: pytest.MonkeyPatch):
    """More scores than there are threads for them, which take as long as the test wants."""
    may_score = threading.Event()
    monkeypatch.setattr(TextDiffusion, "score", lambda *_, **__: may_score.wait(60) and [])
    with ThreadPoolExecutor(4) as pool:
        bodies = [{"model": "shakespeare", "texts": ["The pear."], "seed": seed} for seed in range(4)]
        scores = [pool.submit(server.post, "/v1/score", body) for body in bodies]
        wait_until(lambda: server.service.requests == 4)
        try:
            assert server.post("/v1/infill", {"model": "shakespeare", "template": "[MASK:1]"})[0] == 200
            assert not any(each.done() for each in scores)
        finally:
            may_score.set()
        assert [each.result()[0] for each in scores] == [200] * 4
