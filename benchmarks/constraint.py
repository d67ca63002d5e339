"""What a regular expression costs, and how many sentences match it (all must).

    python benchmarks/constraint.py RUN --pattern "The (red|green) [a-z ]+ is \\w+\\." [--num 1000] [--length N]
        [--steps N]

Prints a JSON line: the share that matches, CPU-seconds with the pattern and without it, and the size of the automaton
over the run's tokens.
"""

from __future__ import annotations

import argparse
import json
import re
import time

import torch

from textdiffusion import TextDiffusion
from textdiffusion.guidance import regex as regexes
from textdiffusion.guidance.automata import Automaton


def main() -> None:
    """One line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--pattern", required=True)
    parser.add_argument("--num", type=int, default=1000)
    parser.add_argument("--length", type=int)
    parser.add_argument("--steps", type=int)
    given = parser.parse_args()
    torch.set_num_threads(1)
    run = TextDiffusion.from_pretrained(given.run, device="cpu")
    row = {"run": run.config.recipe, "tokenizer": run.tokenizer.kind, "num": given.num}
    start = time.process_time()
    automaton = Automaton.from_pattern(regexes.parse(given.pattern), run.tokenizer)
    row |= {
        "states": len(automaton.transitions),
        "classes": automaton.transitions.shape[1],
        "tokens": len(automaton.token_classes),
    }
    row["building"] = round(time.process_time() - start, 3)
    for name, guides in (("plain", []), ("matching", [f"regex:pattern={given.pattern}"])):
        start = time.process_time()
        texts = run.generate(given.num, given.length, steps=given.steps, guides=guides)
        row[f"{name}_cpu"] = round(time.process_time() - start, 1)
        matched = sum(re.fullmatch(given.pattern, text, re.ASCII) is not None for text in texts)
        row[f"{name}_share"] = matched / given.num
    print(json.dumps(row | {"length": given.length or run.config.text.length, "examples": texts[:3]}))


if __name__ == "__main__":
    main()
