"""The core needs no extra, and the command line starts without torch."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]

# What each optional distribution is imported as.
MODULES = {
    "beartype": "beartype",
    "datasets": "datasets",
    "fastapi": "fastapi",
    "huggingface-hub": "huggingface_hub",
    "hypothesis": "hypothesis",
    "lm-eval": "lm_eval",
    "matplotlib": "matplotlib",
    "mkdocs": "mkdocs",
    "mkdocs-material": "material",
    "mkdocstrings": "mkdocstrings",
    "openai": "openai",
    "outlines-core": "outlines_core",
    "peft": "peft",
    "pillow": "PIL",
    "playwright": "playwright",
    "jsonschema": "jsonschema",
    "prometheus-client": "prometheus_client",
    "pyarrow": "pyarrow",
    "pyrefly": "pyrefly",
    "pytest": "pytest",
    "pytest-benchmark": "pytest_benchmark",
    "pytest-timeout": "pytest_timeout",
    "pytest-xdist": "xdist",
    "pyyaml": "yaml",
    "ruff": "ruff",
    "sentencepiece": "sentencepiece",
    "tensorboard": "tensorboard",
    "transformers": "transformers",
    "uvicorn": "uvicorn",
}

IMPORT_ALL = """
import importlib, pkgutil, sys

blocked = set(sys.argv[1:])

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ModuleNotFoundError(f"{name} is blocked", name=name)

sys.meta_path.insert(0, Blocker())
import textdiffusion

def fail(name):
    raise

count = 0
for module in pkgutil.walk_packages(textdiffusion.__path__, "textdiffusion.", onerror=fail):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
        count += 1
print(count)
"""


def python(code: str, *args: str) -> str:
    done = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def optional_distributions() -> set[str]:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    return {re.split(r"[\[<>=!~; ]", line, maxsplit=1)[0] for lines in extras.values() for line in lines}


def test_every_optional_distribution_is_blocked_below():
    assert optional_distributions() == set(MODULES)


def test_every_module_imports_without_any_extra():
    imported = int(python(IMPORT_ALL, *MODULES.values()))
    files = [path for path in (ROOT / "src/textdiffusion").rglob("*.py") if path.name != "__main__.py"]
    assert imported == len(files) - 1  # the package itself is not among its own modules


def test_the_command_line_starts_without_torch():
    python("import sys, textdiffusion, textdiffusion.cli; assert 'torch' not in sys.modules, 'torch was imported'")
