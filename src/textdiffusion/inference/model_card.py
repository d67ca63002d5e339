"""The model card: a run described in Markdown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..config.config import Config
from ..recipes import description
from ..storage.metrics_log import history


def model_card(name: str, config: Config, parameters: int, vocab_size: int, weights: str, folder: Path | None) -> str:
    """The card; figures come from the run's `metrics.jsonl` where `folder` has one."""
    training, text, sampler = config.training, config.text, config.sampler
    records = history(folder)
    idea = description(config.recipe).partition("\n")[0]
    steps = sampler.steps or "one per token"
    condition = (', source="..."' if text.source else "") + (f', label="{text.labels[0]}"' if text.labels else "")
    lines = [
        "---",
        "library_name: textdiffusion",
        "pipeline_tag: text-generation",
        f"tags: [textdiffusion, text-diffusion, {config.recipe}]",
        "---",
        "",
        f"# {name}",
        "",
        f"A text diffusion model of the recipe `{config.recipe}` (variant `{config.variant}`). {idea}",
        "",
        "| | |",
        "|---|---|",
        f"| parameters | {parameters:,} ({'averaged' if weights == 'ema' else 'raw'} weights) |",
        f"| training text | {text.data} |",
        f"| tokenizer | {text.tokenizer}, {vocab_size:,} tokens |",
        f"| window | {text.length} tokens, layout {text.layout}, conditioning masks: {text.mask} |",
        f"| training | {_trained(records, training.steps)} steps of {training.batch_size} rows, "
        f"{training.optimizer}, learning rate {training.lr:g} |",
        f"| bits per character | {_bits(records, weights)} |",
        f"| intended sampler | {type(sampler).__name__}, steps: {steps} |",
        "",
        "## Use",
        "",
        "```python",
        "from textdiffusion import TextDiffusion",
        "",
        f'model = TextDiffusion.from_pretrained("{name}")  # this repository\'s id, or a folder',
        f"for text in model.generate(num=4, seed=0{condition}):",
        "    print(text)",
        "```",
        "",
        "The whole configuration is in `config.json`.",
        "",
    ]
    return "\n".join(lines)


def _trained(records: list[dict[str, Any]], planned: int) -> str:
    last = max((r["step"] for r in records), default=None)
    return f"{planned:,} (planned)" if last is None else f"{last:,}"


def _bits(records: list[dict[str, Any]], weights: str) -> str:
    validated = [r for r in records if r["event"] == "validated" and None not in (r["bits"], r["raw_bits"])]
    if not validated:
        return "not measured"
    last = validated[-1]
    prefix = "" if weights == "ema" else "raw_"
    error = last[prefix + "error"]  # null where there is a single window
    spread = "" if error is None else f" +- {error:.3f}"
    return (
        f"{last[prefix + 'bits']:.3f}{spread} on {last['windows']} validation windows "
        f"at step {last['step']:,} (a bound unless the recipe's likelihood is exact)"
    )
