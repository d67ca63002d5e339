"""The server as a command: it says where it listens, and SIGTERM lets running requests finish."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")


def test_a_request_that_runs_is_answered_after_sigterm(packaged_models: Path):
    command = [sys.executable, "-m", "textdiffusion", "serve", str(packaged_models / "shakespeare"), "--port", "0"]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    ) as server:
        assert server.stderr is not None
        try:
            started = re.search(r"serving shakespeare on (http://127.0.0.1:\d+)", server.stderr.readline())
            assert started is not None
            body = {"model": "shakespeare", "length": 64, "steps": 400, "sampler": "ancestral", "seed": 1}
            request = urllib.request.Request(
                f"{started[1]}/v1/stream", json.dumps(body).encode(), {"content-type": "application/json"}
            )
            with urllib.request.urlopen(request, timeout=60) as response:
                assert response.readline() == b"event: step\n"  # it is being written
                server.send_signal(signal.SIGTERM)
                events = response.read()
            assert b"event: done\n" in events
            assert server.wait(60) == -signal.SIGTERM  # only then does the signal end it
            with pytest.raises(urllib.error.URLError, match="refused"):
                urllib.request.urlopen(f"{started[1]}/health", timeout=60)
            log = server.stderr.read()
            assert "/v1/stream 200" in log
        finally:
            server.kill()
