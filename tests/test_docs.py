"""What README and docs show is run: Python blocks as they stand, commands with a small network and few steps."""

import ast
import dataclasses
import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import get_type_hints
from xml.etree import ElementTree

import pytest
from safetensors.torch import save_file

from textdiffusion import recipes
from textdiffusion.cli import COMMANDS, main
from textdiffusion.config.config import Config
from textdiffusion.core.registry import Part
from textdiffusion.data.tokenizers.base import Bytes
from textdiffusion.evaluation.metrics.base import all_metrics
from textdiffusion.guidance.base import GuideConfig
from textdiffusion.samplers.base import Sampler

from .published.language_models import write_model
from .published.reference import random_reference

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src/textdiffusion"
FOLDERS = ("src", "tests", "docs", "examples", "benchmarks")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
SMALL = ["backbone.width=64", "backbone.depth=1", "text.length=32", "sampler.steps=2"]
SHORT = ["training.steps=2", "training.batch_size=4", "training.eval_windows=2"]


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a page in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def commands(page: Path) -> Iterator[list[str]]:
    """The words of every command shown on a page."""
    for block in blocks(page, "console"):
        for line in block.splitlines():
            assert line.startswith("$ "), f"{page.name} shows output, which nothing checks: {line}"
            yield shlex.split(line.removeprefix("$ "))


def published(folder: Path) -> None:
    """Small weights in SEDD's layout."""
    model = {"n_heads": 2, "length": 32, "scale_by_sigma": True}
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"graph": {"type": "absorb"}, "model": model}))
    save_file(random_reference(257).state_dict(), folder / "model.safetensors")


def named(pages: list[Path]) -> list:
    return [pytest.param(page, id=page.name) for page in pages]


@pytest.fixture
def workspace(tiny_run: Callable[..., Path], packaged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the run and the text that the pages speak of."""
    shutil.copytree(tiny_run("mdlm"), tmp_path / "runs/shakespeare")
    published(tmp_path / "sedd-small")
    write_model(tmp_path / "LLaDA-8B-Instruct", "llada")
    write_model(tmp_path / "Qwen3-0.6B", "causal")
    (tmp_path / "gpt2").mkdir()
    Bytes().save(tmp_path / "gpt2/tokenizer.json")
    (tmp_path / "my.txt").write_text("The red pear is fresh.\nThe old fig is sweet.\n" * 80)
    (tmp_path / "valid.txt").write_text("The red fig is fresh.\n" * 40)
    (tmp_path / "my.tsv").write_text("The red pear is fresh.\tred\nThe old fig is sweet.\told\n" * 10)
    (tmp_path / "colours.tsv").write_text(
        "colour\tsentence\n" + "red\tThe red pear is fresh.\ngreen\tThe old fig.\n" * 40
    )
    (tmp_path / "pairs.csv").write_text("mr,ref\n" + "name[Aromi],Go to Aromi.\nname[Zizzi],The Zizzi.\n" * 40)
    talk = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}]
    (tmp_path / "talks.jsonl").write_text((json.dumps({"messages": talk}) + "\n") * 40)
    (tmp_path / "talk.jsonl").write_text(json.dumps(talk[0]) + "\n")
    (tmp_path / "requests.jsonl").write_text(json.dumps({"messages": talk[:1]}) + '\n{"prompt": "y"}\n')
    monkeypatch.chdir(tmp_path)
    return tmp_path


RUNNABLE = [page for page in PAGES if blocks(page, "python") and page.name != "CONTRIBUTING.md"]


@pytest.mark.parametrize("page", named(RUNNABLE))
def test_python_blocks_run(page: Path, workspace: Path):
    for block in blocks(page, "python"):
        for words in commands(page):
            if words[:2] == ["textdiffusion", "train"] and f'"{words[words.index("--out") + 1]}"' in block:
                main([*words[1:], "--set", *SMALL, *SHORT])
        small = ", ".join(f'"{setting}"' for setting in SMALL + SHORT)
        exec(compile(re.sub(r'"training\.steps=\d+"', small, block), page.name, "exec"), {})


def test_worked_examples_of_new_parts_run():
    """In a separate process, because what they define is registered. Their imports are relative to their folder."""
    files = []
    for folder, code in zip(
        ("samplers", "diffusion", "evaluation.metrics", "recipes"),
        blocks(ROOT / "CONTRIBUTING.md", "python"),
        strict=True,
    ):
        parent = f"textdiffusion.{folder}".rpartition(".")[0]
        absolute = code.replace("from ..", f"from {parent}.").replace("from . ", f"from textdiffusion.{folder} ")
        files.append(absolute.replace("from .", f"from textdiffusion.{folder}."))
    use = """
import torch
from textdiffusion.core.randomness import Rng
from textdiffusion.config.build import build_model
config = mask_cosine.configs["default"]
model = build_model(config, 7).eval()
with torch.no_grad():
    *_, last = Sweep()(model, Request.blank(2, 5, steps=3), rng=Rng.of(0, 2))
assert last.index == 3 and bool((last.tokens < 7).all())
t = torch.linspace(0.01, 1.0, 9)
noise = Polynomial()
assert torch.allclose(noise.time(noise.alpha(t)), t, atol=1e-5)
slope = torch.autograd.functional.jvp(noise.alpha, t, torch.ones_like(t))[1]
assert torch.allclose(-slope / noise.mask_prob(t), noise.loss_weight(t), rtol=1e-4)
from textdiffusion.evaluation.metrics.base import all_metrics
assert "line length" in [metric.name for metric in all_metrics()]
lines = ReferenceTexts(["a"], ["a"], ["a"], str.splitlines)
assert line_length(TextSet(["a\\nbbb", "cc"]), lines) == 2
"""
    subprocess.run([sys.executable, "-c", "\n".join((*files, use))], check=True)


@pytest.mark.parametrize("page", named([page for page in PAGES if blocks(page, "console")]))
def test_commands_run(page: Path, workspace: Path, capsys: pytest.CaptureFixture[str]):
    for words in commands(page):
        if words[0] == "textdiffusion":
            if words[1] == "train-classifier":
                words += ["--steps", "2"]
            if words[1] == "distill":
                words += ["--set", *SHORT]
            if words[1] == "train":
                words += ["--set", *SMALL, *SHORT]
            main(words[1:])
            assert capsys.readouterr().out
        elif words[0] == "make":
            assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
        elif words[0] == "python":
            assert (ROOT / words[1]).exists()  # run by test_examples
        else:
            assert words[:2] == ["pip", "install"], words


def test_options_that_errors_name_exist(capsys: pytest.CaptureFixture[str]):
    for words in [["--help"], *([name, "--help"] for name in COMMANDS)]:
        with suppress(SystemExit):
            main(words)
    options = set(re.findall(r"--[a-z][-\w]*", capsys.readouterr().out))
    named: set[str] = set()
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "").endswith("Error"):
                named |= set(re.findall(r"(?<![-\w])--[a-z][-\w]*", ast.unparse(node)))
    assert len(named) > 10
    assert named <= options


def test_extras_that_are_named_exist():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    sources = (ROOT / "src").rglob("*.py")
    for page in [*PAGES, *sources]:
        for extra in re.findall(r"textdiffusion\[(\w+)\]", page.read_text(encoding="utf-8")):
            assert extra in {*extras, "EXTRA", "extra"}, f"{page.name}: {extra}"


@pytest.mark.parametrize("page", named(PAGES))
def test_links_and_paths_lead_somewhere(page: Path):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!http)([^)#]+)", text):
        assert (page.parent / target).exists(), target
    if page.name in ("CHANGELOG.md", "experiments.md"):  # they speak of the past
        return
    for path in re.findall(r"`((?:src|tests|docs|examples|benchmarks|[a-z]+)/[\w/.]*\w)`", text):
        if path.split("/")[0] in (*FOLDERS, *(folder.name for folder in PACKAGE.iterdir())):
            assert (ROOT / path).exists() or (PACKAGE / path).exists(), path


def test_every_recipe_is_on_the_page_of_families():
    text = (ROOT / "docs/families.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"^## (\w+): .*\n((?:(?!^## ).*\n)*)", text, re.MULTILINE))
    assert sorted(sections) == recipes.names()
    for name, section in sections.items():
        assert re.search(r"^    \S", section, re.MULTILINE), f"{name} has no equation"
        assert any(f"`{other}`" in section for other in {*recipes.names()} - {name}) or name == "autoregressive", name
        assert re.search(r"^Use it ", section, re.MULTILINE), f"{name} does not say when to use it"
    assert all(f"`{name}`" in (ROOT / "README.md").read_text(encoding="utf-8") for name in recipes.names())


def test_every_sampler_guide_and_metric_has_a_row():
    def missing(page: str, names: Iterable[str]) -> set[str]:
        text = (ROOT / "docs" / page).read_text(encoding="utf-8")
        rows = "\n".join(line for line in text.splitlines() if line.startswith("|"))
        return {name for name in names if not re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", rows)}

    assert not missing("samplers.md", Sampler.choices())
    assert not missing("guidance.md", {*GuideConfig.choices()} - {"repaint"})
    assert not missing("metrics.md", (metric.name for metric in all_metrics()))


def test_the_tour_names_files_and_their_length():
    text = (ROOT / "docs/tour.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([\w/]+\.py)` \| (\d+) \|", text, re.MULTILINE)
    assert len(rows) > 15
    for path, lines in rows:
        actual = len((PACKAGE / path).read_text(encoding="utf-8").splitlines())
        assert abs(int(lines) - actual) <= max(20, 0.25 * actual), f"{path} has {actual} lines"


def setting_paths(cls: type, prefix: str) -> Iterator[str]:
    """The paths of all settings below a dataclass, for every kind of each part."""
    hints = get_type_hints(cls)
    for field in dataclasses.fields(cls):
        path, hint = f"{prefix}{field.name}", hints[field.name]
        yield path
        if isinstance(hint, type) and issubclass(hint, Part):
            yield f"{path}.kind"
            for kind in hint.choices().values():
                yield from setting_paths(kind, f"{path}.")
        elif dataclasses.is_dataclass(hint):
            yield from setting_paths(hint, f"{path}.")


@pytest.mark.parametrize("page", named([page for page in PAGES if page.name not in ("CHANGELOG.md", "experiments.md")]))
def test_settings_that_pages_name_exist(page: Path):
    text = page.read_text(encoding="utf-8")
    paths = {*setting_paths(Config, "")}
    sections = "|".join(field.name for field in dataclasses.fields(Config))
    for path in re.findall(rf"(?<![\w./])((?:{sections})(?:\.[a-z]\w*)+)(?![\w(/]|\.\w)", text):
        assert path in paths or Path(path).suffix in (".md", ".py", ".csv"), path
    parts = Sampler.choices() | GuideConfig.choices()
    for name, keys in re.findall(rf"[`\" ]({'|'.join(parts)}):((?:[a-z][\w.]*=[^`\"\s]*))", text):
        settings = {*setting_paths(parts[name], "")}
        for key in re.findall(r"(?:^|,)([a-z][\w.]*)=", keys):
            assert key in settings, f"{name}:{key}"


def test_the_reference_has_every_part():
    modules = set(re.findall(r"^::: ([\w.]+)$", (ROOT / "docs/reference.md").read_text(encoding="utf-8"), re.MULTILINE))
    parts = {part for base in Part.__subclasses__() for part in base.choices().values()}
    for part in parts - {*GuideConfig.choices().values()}:  # guides are on a page of their own
        assert part.__module__ in modules or not part.__module__.startswith("textdiffusion."), part


def test_pictures_are_small_and_whole():
    assert ElementTree.parse(ROOT / "docs/flow.svg").getroot().tag.endswith("svg")
    gif = (ROOT / "docs/emerging.gif").read_bytes()
    assert gif.startswith(b"GIF89a")
    assert len(gif) < 1_500_000
