"""The server under load, on loopback: python benchmarks/serving.py [--run restaurants] [--requests 10000].

Throughput of 64 texts asked for one by one and by 16 clients at once, which must be the same texts; ten times more
requests than the server has places for, with the time that /health takes meanwhile; its memory over many requests.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

CLIENTS = 16
LOCAL = threading.local()


@contextmanager
def serving(run: str, *options: str) -> Iterator[tuple[int, int]]:
    """A server of a run in a process of its own: its port and the number of its process."""
    command = [sys.executable, "-m", "textdiffusion", "serve", run, "--port", "0", *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        line = process.stderr.readline()
        match = re.search(r"http://[^:]+:(\d+)", line)
        if match is None:
            sys.exit(f"The server did not start: {line}{process.stderr.read()}")
        threading.Thread(target=process.stderr.read, daemon=True).start()  # its log
        yield int(match[1]), process.pid
    finally:
        process.terminate()
        began = time.monotonic()
        process.wait(60)
        print(f"  SIGTERM: ended after {time.monotonic() - began:.1f} s")


def ask(port: int, path: str, body: Any = None) -> tuple[int, Any]:
    """Status and JSON of an answer; 0 where the connection broke. Each thread keeps its connection."""
    if getattr(LOCAL, "port", None) != port:
        LOCAL.port, LOCAL.connection = port, http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    connection: http.client.HTTPConnection = LOCAL.connection
    try:
        method = "GET" if body is None else "POST"
        data = None if body is None else json.dumps(body)
        connection.request(method, path, data, {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    except (OSError, http.client.HTTPException):
        connection.close()
        return 0, None


def text_of(answer: tuple[int, Any]) -> str:
    """The text of a completion."""
    status, body = answer
    if status != 200:
        sys.exit(f"status {status}: {body}")
    return body["choices"][0]["text"]


def measure_throughput(port: int, body: dict[str, Any], count: int) -> None:
    """Texts per second one by one and at once."""
    bodies = [body | {"seed": seed} for seed in range(count)]
    text_of(ask(port, "/v1/completions", body))
    began = time.monotonic()
    alone = [text_of(ask(port, "/v1/completions", each)) for each in bodies]
    one_by_one = count / (time.monotonic() - began)
    began = time.monotonic()
    with ThreadPoolExecutor(CLIENTS) as pool:
        together = [text_of(answer) for answer in pool.map(lambda each: ask(port, "/v1/completions", each), bodies)]
    at_once = count / (time.monotonic() - began)
    print(
        f"  one by one: {one_by_one:.2f} texts/s; {CLIENTS} at once: {at_once:.2f} texts/s, {at_once / one_by_one:.2f}x"
    )
    print(f"  texts that differ: {sum(a != b for a, b in zip(alone, together, strict=True))} of {count}")


def measure_overload(port: int, body: dict[str, Any], places: int) -> None:
    """What ten times more clients than places get, three requests each, and how fast /health is meanwhile."""
    statuses: Counter[int] = Counter()
    health: list[float] = []
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            began = time.monotonic()
            status, _ = ask(port, "/health")
            health.append(time.monotonic() - began if status == 200 else 9.0)
            time.sleep(0.01)

    def client(number: int) -> list[int]:
        return [ask(port, "/v1/completions", body | {"seed": number + i})[0] for i in range(3)]

    watcher = threading.Thread(target=watch)
    watcher.start()
    with ThreadPoolExecutor(10 * places) as pool:
        for found in pool.map(client, range(10 * places)):
            statuses.update(found)
    done.set()
    watcher.join()
    p50, p99 = np.percentile(health, [50, 99]) * 1000
    print(f"  {sum(statuses.values())} requests for {places} places: {dict(sorted(statuses.items()))} (0: no answer)")
    print(f"  /health: median {p50:.1f} ms, 99th percentile {p99:.1f} ms of {len(health)}")


def measure_memory(port: int, pid: int, body: dict[str, Any], count: int) -> None:
    """The resident memory of the server over many small requests, every fifth of which leaves before its answer."""

    def resident() -> float:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6

    def client(number: int) -> None:
        if number % 5:
            ask(port, "/v1/completions", body | {"seed": number})
            return
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("POST", "/v1/stream", json.dumps(body), {"Content-Type": "application/json"})
        connection.close()

    figures, part = [], max(1, count // 10)
    with ThreadPoolExecutor(CLIENTS) as pool:
        for start in range(0, count, part):
            list(pool.map(client, range(start, start + part)))
            figures.append(resident())
    print(f"  memory after each tenth of {count} requests, MB: {' '.join(f'{figure:.0f}' for figure in figures)}")
    print(f"  requests that still wait or run: {ask(port, '/ready')[1]}")


def main() -> None:
    """Runs all three measurements."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", default="restaurants")
    parser.add_argument("--texts", type=int, default=64)
    parser.add_argument("--places", type=int, default=16)
    parser.add_argument("--requests", type=int, default=10_000)
    args = parser.parse_args()
    small = {"model": Path(args.run).name, "max_tokens": 4, "steps": 1}
    print("throughput")
    with serving(args.run) as (port, _):
        measure_throughput(port, {"model": Path(args.run).name}, args.texts)
    print("overload")
    with serving(args.run, "--requests", str(args.places), "--deadline", "20") as (port, _):
        measure_overload(port, {"model": Path(args.run).name}, args.places)
    print("memory")
    with serving(args.run) as (port, pid):
        measure_memory(port, pid, small, args.requests)


if __name__ == "__main__":
    main()
