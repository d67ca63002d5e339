"""A small run learns to follow instructions: copy and reverse, as conversations; how many answers are right.

    python benchmarks/instructions.py --minutes 4

The conversations are made here, half of them of two turns. Answers are to words that training never saw. Prints the
fraction of exactly right answers of each kind, and of answers that end by themselves.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from pathlib import Path

from textdiffusion import TextDiffusion, recipes
from textdiffusion.config.overrides import apply_overrides, with_size
from textdiffusion.inference.options import SamplingOptions
from textdiffusion.inference.prompts import sample_prompts
from textdiffusion.training.run import train

TEMPLATE = "{% for m in messages %}{{ m.content }}{{ '=' if m.role == 'user' else eos_token }}{% endfor %}"
TASKS = {"copy": str, "reverse": lambda word: word[::-1]}
LETTERS = "abcdefgh"


def word(source: random.Random, shortest: int = 3, longest: int = 5) -> str:
    return "".join(source.choice(LETTERS) for _ in range(source.randint(shortest, longest)))


def conversation(source: random.Random, known: set[str]) -> list[dict[str, str]]:
    messages = []
    for _ in range(source.choice([1, 2])):
        task, asked = source.choice([*TASKS]), word(source)
        while asked in known:
            asked = word(source)
        messages += [
            {"role": "user", "content": f"{task} {asked}"},
            {"role": "assistant", "content": TASKS[task](asked)},
        ]
    return messages


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="mdlm")
    parser.add_argument("--minutes", type=float, default=4.0)
    parser.add_argument("--packing", action="store_true")
    parser.add_argument("--out", type=Path, help="keep the run in this folder")
    parser.add_argument("--num", type=int, default=200)
    given = parser.parse_args()
    source = random.Random(1)
    test = {word(source) for _ in range(given.num)}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        talks = [{"messages": conversation(source, test)} for _ in range(20_000)]
        (folder / "talks.jsonl").write_text("".join(json.dumps(talk) + "\n" for talk in talks))
        (folder / "template.jinja").write_text(TEMPLATE)
        settings = [f"text.data={folder}/talks.jsonl", "text.messages=messages", "text.tokenizer=characters"]
        settings += [f"text.chat_template={folder}/template.jinja", "text.layout=documents", "text.length=40"]
        settings += ["text.packing=true" if given.packing else "text.model_padding=true", "training.batch_size=64"]
        settings += [f"training.max_minutes={given.minutes}", "training.steps=1000000", "training.compile=off"]
        config = apply_overrides(with_size(recipes.get(given.recipe)(), "tiny"), settings)
        out = given.out or folder / "run"
        last = train(config, out, cache=folder / "cache")
        run = TextDiffusion.from_pretrained(out)
        print(f"{given.recipe}, packing={given.packing}: {last.step} steps in {given.minutes:g} minutes")
        for task, answer in TASKS.items():
            words = sorted(test)
            batches = [run.chat_batch(f"{task} {each}", length=8) for each in words]
            found = [one for (one,) in sample_prompts(run, batches, SamplingOptions(temperature=0.0))]
            right = sum(one.text == answer(each) for one, each in zip(found, words, strict=True))
            ended = sum(one.finish == "end" for one in found)
            print(f"{task}: {right} of {len(words)} right, {ended} ended by the model")


if __name__ == "__main__":
    main()
