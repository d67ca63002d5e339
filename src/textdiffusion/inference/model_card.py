"""The model card: a run described in Markdown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..config.config import Config
from ..core.terminal import visible
from ..data.config import UNKNOWN
from ..objectives.distillation import Distillation
from ..recipes import description
from ..samplers.base import Sampler
from ..storage.metrics_log import history
from ..storage.packaged import Card


def model_card(
    name: str,
    config: Config,
    parameters: int,
    vocab_size: int,
    weights: str,
    folder: Path | None,
    card: Card | None = None,
) -> str:
    """The card of a run, or of the model of the package that `card` describes.

    Without a `card`, figures come from the run's `metrics.jsonl` where `folder` has one.
    """
    training, text, sampler = config.training, config.text, config.sampler
    records = history(folder)
    idea = description(config.recipe).partition("\n")[0]
    steps = sampler.steps or "one per token"
    is_task = text.mask == "question"
    condition = (', source="..."' if text.has_source else "") + (f', label="{text.labels[0]}"' if text.labels else "")
    use = [f"for text in model.generate(num=4, seed=0{condition}):", "    print(text)"]
    if is_task:
        use = ['print(model.answer("..."))  # a question of the task']
    address = "this repository's id, or a folder" if card is None else "a model of the package"
    if card:
        about = [f"| what | {card.what} |", f"| data | {card.data} |", f"| licence | {card.licence} |"]
        quality, trained = [], card.training
    else:
        about, quality = [], [f"| bits per character | {_bits(records, weights)} |"]
        trained = f"{_trained(records, training.steps)} steps of {training.batch_size} rows"
    rate = f", {training.optimizer}, learning rate {training.lr:g}"
    if text.data == UNKNOWN:
        trained, rate = "by the authors of the weights", ""
    objective = config.objective
    if isinstance(objective, Distillation):
        what = f"`{visible(objective.origin)}`" if objective.origin else "the run that it started from"
        quality = [*quality, f"| distilled from | {what}, to write in {objective.steps} steps |"]
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
        *about,
        f"| parameters | {parameters:,} ({'averaged' if weights == 'ema' else 'raw'} weights) |",
        f"| training text | {text.data} |",
        f"| tokenizer | {text.tokenizer}, {vocab_size:,} tokens |",
        f"| window | {text.length} tokens, layout {text.layout}, conditioning masks: {text.mask} |",
        f"| training | {trained}{rate} |",
        *quality,
        f"| intended sampler | {type(sampler).__name__}, steps: {steps}{_sharpened(sampler)} |",
        "",
        *(_figures(card) if card else []),
        "## Use",
        "",
        "```python",
        "from textdiffusion import TextDiffusion",
        "",
        f'model = TextDiffusion.from_pretrained("{name}")  # {address}',
        *use,
        "```",
        "",
        "The whole configuration is in `config.json`.",
        "",
    ]
    return "\n".join(lines)


def _sharpened(sampler: Sampler) -> str:
    """The temperature and top-p that the sampler asks for, if any."""
    parts = {"temperature": sampler.temperature, "top-p": sampler.top_p}
    return "".join(f", {name} {value:g}" for name, value in parts.items() if value != 1.0)


def _figures(card: Card) -> list[str]:
    """The table of measured figures, with the commands that print them."""
    lines = ["## Figures", "", "| figure | value | command |", "|---|---|---|"]
    for figure in card.figures:
        spread = "" if figure.error is None else f" +- {figure.error:.2g}"
        lines.append(f"| {figure.what} | {figure.value:.4g}{spread} | `{figure.command}` |")
    options = f" {card.sampler}" if card.sampler else ""
    return [*lines, "", f"Recommended: `textdiffusion sample {card.name}{options}`.", ""]


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
