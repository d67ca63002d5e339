"""Random and malformed inputs for everything that reads what a user writes: python benchmarks/fuzz.py [--inputs 2000].

Templates, patterns, guides, samplers, settings, configurations, tables, command lines, JSON, tokenizers, shards and
weights, each with `--inputs` of them.
Every input is read, or refused with a UserError; anything else is printed and makes the exit status 1.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from textdiffusion import recipes
from textdiffusion.cli import COMMANDS, load
from textdiffusion.cli.parsing import parse
from textdiffusion.config import overrides
from textdiffusion.config.config import Config, dumps, loads
from textdiffusion.core.errors import UserError
from textdiffusion.core.reading import parse_json
from textdiffusion.data import templates
from textdiffusion.data.labels import read_labelled
from textdiffusion.data.shards import ShardWriter, open_shard, verify
from textdiffusion.data.tokenizers.base import Bytes, Characters
from textdiffusion.data.tokenizers.loading import load as load_tokenizer
from textdiffusion.data.tokenizers.subwords import train_bpe
from textdiffusion.guidance import patterns, regex
from textdiffusion.guidance.base import GuideConfig
from textdiffusion.samplers.base import Sampler
from textdiffusion.samplers.unmasking import Unmasking
from textdiffusion.storage.weights import load_tensors, save_tensors

NUMBERS = ["0", "1", "-1", "3", "1e3", "1e-45", "1e400", "nan", "inf", "-inf", "9" * 30, "9" * 5000, "0.5", ".", "true"]
ODD = ["", " ", "\n", "\0", "\ud800", "é", "漢", "\u202e", "\x1b[31m", "none", "null", "[]", "{}", '"', "'", "\\"]


def texts_of(*tokens: str) -> st.SearchStrategy[str]:
    """Texts made of `tokens`, numbers, odd characters and random text."""
    part = st.sampled_from([*tokens, *tokens, *NUMBERS, *ODD]) | st.text(max_size=4)
    return st.lists(part, max_size=12).map("".join)


@cache
def config() -> Config:
    return recipes.get("cdcd")()


@cache
def setting_names() -> list[str]:
    data: dict[str, Any] = json.loads(dumps(config()))
    return [f"{key}.{name}" for key, part in data.items() if isinstance(part, dict) for name in part]


def part_texts(choices: dict[str, Any]) -> st.SearchStrategy[str]:
    """Names of parts with settings: some as they should be, some not."""
    fields = sorted({name for part in choices.values() for name in getattr(part, "__dataclass_fields__", {})})
    setting = st.tuples(st.sampled_from(fields), texts_of("a", "red")).map("=".join)
    proper = st.tuples(st.sampled_from([*choices]), st.lists(setting, max_size=3).map(",".join)).map(":".join)
    return proper | texts_of(*choices, ":", ",", "=", *fields)


def damaged_configs() -> st.SearchStrategy[str]:
    """The JSON of a configuration with some values replaced, or with characters cut out and put in."""
    value = st.sampled_from([None, True, 0, -1, 1e300, 10**400, "", "x", [], {}, [None], {"kind": 1}, {"kind": "ddim"}])

    def replaced(path: str, new: Any) -> str:
        data = json.loads(dumps(config()))
        part, _, name = path.partition(".")
        data[part][name] = new
        return json.dumps(data)

    def cut(start: int, length: int, new: str) -> str:
        text = dumps(config())
        return text[:start] + new + text[start + length :]

    changed = st.builds(replaced, st.sampled_from(setting_names()), value)
    return changed | st.builds(cut, st.integers(0, 4000), st.integers(0, 40), texts_of("{", "}", "[", "]", ",", ":"))


def read_template(text: str) -> None:
    templates.encode(text, Bytes(), 8)


def read_pattern(text: str) -> None:
    patterns.automaton(regex.parse(text))


def read_guide(text: str) -> None:
    overrides.guide(text)


def read_sampler(text: str) -> None:
    overrides.sampler(text, Unmasking())


def read_setting(text: str) -> None:
    overrides.apply_overrides(config(), [text])


def read_config(text: str) -> None:
    loads(text)


def read_table(table: tuple[str, str]) -> None:
    suffix, text = table
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"table.{suffix}"
        path.write_text(text, encoding="utf-8", errors="surrogatepass")
        read_labelled(str(path))


def read_json(text: str) -> None:
    parse_json(text, "the input")


def read_file(read: Callable[[Path], Any], name: str) -> Callable[[bytes], None]:
    """Reads the input as the content of a file of this name."""

    def written(content: bytes) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / name
            path.write_bytes(content)
            read(path)

    return written


def read_tokenizer(path: Path) -> None:
    tokenizer = load_tokenizer(path)
    tokenizer.decode(tokenizer.encode("a red pear"))


def read_shard(path: Path) -> None:
    verify(path)
    shard = open_shard(path)
    shard.tokens[:].sum()


@cache
def saved_files() -> dict[str, list[bytes]]:
    """The content of intact files: two tokenizers, a shard and weights."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tokenizers = [Characters(sorted("abcder p\n")), train_bpe(["a red pear, a green fig\n"] * 9, 270, ())]
        for number, tokenizer in enumerate(tokenizers):
            tokenizer.save(folder / f"{number}.json")
        with ShardWriter(folder / "shard", 300, examples=True) as writer:
            for ids in ([1, 2, 3], [4, 250], [7] * 40):
                writer.write(np.array(ids), np.ones(len(ids), dtype=np.int64))
        save_tensors({"a": torch.ones(3, 2), "b": torch.zeros(1, dtype=torch.int64)}, folder / "weights")
        return {
            "tokenizers": [(folder / f"{number}.json").read_bytes() for number in range(2)],
            "shards": [(folder / "shard").read_bytes()],
            "weights": [(folder / "weights").read_bytes()],
        }


def damaged(kind: str) -> st.SearchStrategy[bytes]:
    """An intact file with some bytes replaced, cut out and put in."""
    odd = [text.encode("utf-8", "surrogatepass") for text in (*NUMBERS[:-1], *ODD, ",", ":", '"kind"')]
    piece = st.sampled_from(odd) | st.binary(max_size=6)

    def cut(content: bytes, edits: list[tuple[float, int, bytes]]) -> bytes:
        for fraction, length, new in edits:
            start = int(fraction * len(content))
            content = content[:start] + new + content[start + length :]
        return content

    edits = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 8), piece), min_size=1, max_size=3)
    return st.builds(cut, st.sampled_from(saved_files()[kind]), edits) | st.binary(max_size=64)


def read_words(line: tuple[str, list[str]]) -> None:
    command, words = line
    parse(load(command), words, command)


@dataclass
class Target:
    """Something that reads, and inputs for it."""

    name: str
    read: Callable[[Any], None]
    inputs: Callable[[], st.SearchStrategy[Any]]
    outcomes: Counter[str] = field(default_factory=Counter)
    failures: dict[str, str] = field(default_factory=dict)
    slowest: float = 0.0

    def run(self, count: int) -> None:
        """Reads `count` inputs. What fails is kept, one input for each place in the code."""
        quiet = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]

        @settings(
            max_examples=count, database=None, deadline=None, phases=[Phase.generate], suppress_health_check=quiet
        )
        @given(self.inputs())
        def each(value: Any) -> None:
            start = time.process_time()
            try:
                self.read(value)
                self.outcomes["read"] += 1
            except UserError:
                self.outcomes["refused"] += 1
            except Exception as error:
                self.outcomes["failed"] += 1
                place = traceback.extract_tb(error.__traceback__)[-1]
                key = f"{type(error).__name__} at {Path(place.filename).name}:{place.lineno}"
                self.failures.setdefault(key, f"{str(error)[:100]} for {str(value)[:200]!a}")
            self.slowest = max(self.slowest, time.process_time() - start)

        each()


def targets() -> list[Target]:
    """Everything that is tried."""
    flags = ["--num", "--seed", "--steps", "--set", "--temperature", "--guide", "--label", "--json", "--", "-h1"]
    words = st.lists(st.sampled_from([*flags, *NUMBERS, *ODD]) | st.text(max_size=4), max_size=6)
    row = st.sampled_from(
        ["a pear\tred\n", "text,label\n", "a pear,red\n", '{"text": "a", "label": "b"}\n', '{"text": 1}\n']
    )
    rows = st.lists(row, min_size=1, max_size=4).map("".join)
    odd_rows = st.tuples(rows, texts_of("\t", "\n", ",", '"', "text", "label", "{", "}", "red")).map("".join)
    cells = rows | odd_rows | texts_of("\t", "\n", ",", '"', "text", "label", "red")
    return [
        Target("templates", read_template, lambda: texts_of("[MASK", ":", "]", "[MASK]", "[MASK:3]", "\\[MASK", "a ")),
        Target("patterns", read_pattern, lambda: texts_of(*"()[]{}|*+?.,^$\\-abc", "\\d", "{2,5}", "(?:", "{3}", "[^")),
        Target("guides", read_guide, lambda: part_texts(GuideConfig.choices())),
        Target("samplers", read_sampler, lambda: part_texts(Sampler.choices())),
        Target(
            "settings",
            read_setting,
            lambda: (
                st.tuples(st.sampled_from(setting_names()), texts_of("ddim", ":", ",")).map("=".join)
                | texts_of(".", "=", "model", *setting_names())
            ),
        ),
        Target("configurations", read_config, damaged_configs),
        Target("tables", read_table, lambda: st.tuples(st.sampled_from(["tsv", "csv", "jsonl", "txt"]), cells)),
        Target("command lines", read_words, lambda: st.tuples(st.sampled_from([*COMMANDS]), words)),
        Target("JSON", read_json, lambda: texts_of(*'{}[],:"', '"a"', '{"a":', "[[[[", "]]]]", "\\u12", "1e9")),
        Target("tokenizers", read_file(read_tokenizer, "tokenizer.json"), lambda: damaged("tokenizers")),
        Target("shards", read_file(read_shard, "train.shard"), lambda: damaged("shards")),
        Target("weights", read_file(load_tensors, "model.safetensors"), lambda: damaged("weights")),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=2000, help="inputs for each target")
    parser.add_argument("--only", default="", help="one target")
    arguments = parser.parse_args()
    failed = 0
    for target in targets():
        if arguments.only not in ("", target.name):
            continue
        target.run(arguments.inputs)
        counts = ", ".join(f"{count:,} {outcome}" for outcome, count in sorted(target.outcomes.items()))
        print(f"{target.name}: {counts}; the slowest took {target.slowest:.2f} CPU-seconds", flush=True)
        for place, example in target.failures.items():
            print(f"  {place}: {example}")
        failed += target.outcomes["failed"]
    print(f"{failed} uncaught exceptions")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
