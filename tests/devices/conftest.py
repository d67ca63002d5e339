"""The pretended device changes torch for a whole process, so these tests run in one of their own (test_devices.py)."""

import os

collect_ignore_glob = [] if os.environ.get("TEXTDIFFUSION_PRETENDED") else ["test_*.py"]
