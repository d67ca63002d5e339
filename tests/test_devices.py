"""Everything runs on a pretended accelerator: the tests in tests/devices, in a process of their own.

The larger matrix: TEXTDIFFUSION_PRETENDED=1 python -m pytest tests/devices
"""

import os
import subprocess
import sys
from pathlib import Path


def test_everything_runs_on_a_pretended_device():
    folder = Path(__file__).with_name("devices")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow", str(folder)]
    done = subprocess.run(
        command, env={**os.environ, "TEXTDIFFUSION_PRETENDED": "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-6000:]
    assert "passed" in done.stdout
