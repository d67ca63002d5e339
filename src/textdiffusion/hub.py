"""Where runs are: in folders and on the hub, with the card that describes them there."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .config import Config
from .errors import UserError
from .published.settings import settings_in
from .training.folder import history

FILES = ("config.json", "tokenizer.json", "model.safetensors", "grid.json", "README.md")


def find_run(source: str | Path) -> Path:
    """The folder of a run: `source` itself, or a downloaded hub repository. Raises UserError where there is none."""
    folder = Path(source)
    if not folder.is_dir():
        if not isinstance(source, str) or source.count("/") != 1 or source.startswith((".", "/", "~")):
            raise UserError(
                f"There is no run at {source}: give the folder that `train --out` made, or a hub id (owner/name)."
            )
        folder = download(source)
    settings = settings_in(folder)
    if settings and settings.foreign:
        raise UserError(
            f"{folder} is no run but holds published weights; make one of them: "
            f"textdiffusion convert {folder} --out RUN"
        )
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder} is no run: it has no config.json.")
    return folder


def download(repo_id: str) -> Path:
    """The folder of a downloaded run. Raises UserError without the extra `hf`, or where the hub has no such run."""
    hub = _hub(f"{repo_id} is no folder here, and reading from the hub")
    try:
        folder = Path(hub.snapshot_download(repo_id, allow_patterns=list(FILES)))
    except Exception as error:  # the hub's own, and those of the connection
        raise UserError(f"{repo_id} is no folder here and cannot be had from the hub: {_first_line(error)}") from None
    if not (folder / "config.json").is_file():
        raise UserError(f"The hub's {repo_id} is no run of textdiffusion: it has no config.json.")
    return folder


def upload(save: Callable[[Path], Path], repo_id: str, private: bool) -> str:
    """Uploads what `save` writes into an empty folder, and returns the repository's address."""
    api = _hub("Uploading").HfApi()
    with tempfile.TemporaryDirectory() as temporary:
        folder = save(Path(temporary) / repo_id.rpartition("/")[2])
        try:
            address = api.create_repo(repo_id, private=private, exist_ok=True)
            api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message="Upload a textdiffusion run")
        except Exception as error:
            raise UserError(f"The hub refused {repo_id}: {_first_line(error)}") from None
    return str(address)


def model_card(name: str, config: Config, parameters: int, vocab_size: int, weights: str, folder: Path | None) -> str:
    """The card in Markdown; figures come from the run's `metrics.jsonl` where `folder` has one."""
    from .recipes import description

    training, text, sampler = config.training, config.text, config.sampler
    records = history(folder)
    what = description(config.recipe).partition("\n")[0]
    steps = sampler.steps or "one per token"
    told = (', source="..."' if text.source else "") + (f', label="{text.labels[0]}"' if text.labels else "")
    lines = [
        "---",
        "library_name: textdiffusion",
        "pipeline_tag: text-generation",
        f"tags: [textdiffusion, text-diffusion, {config.recipe}]",
        "---",
        "",
        f"# {name}",
        "",
        f"A text diffusion model of the recipe `{config.recipe}` (variant `{config.variant}`). {what}",
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
        f"for text in model.generate(num=4, seed=0{told}):",
        "    print(text)",
        "```",
        "",
        "The whole configuration is in `config.json`.",
        "",
    ]
    return "\n".join(lines)


def _trained(records: list[dict[str, Any]], planned: int) -> str:
    done = max((r["step"] for r in records if isinstance(r.get("step"), int)), default=None)
    return f"{planned:,} (planned)" if done is None else f"{done:,}"


def _bits(records: list[dict[str, Any]], weights: str) -> str:
    validated = [r for r in records if "raw_bits" in r and "bits" in r]
    if not validated:
        return "not measured"
    last, prefix = validated[-1], "" if weights == "ema" else "raw_"
    error = last[prefix + "error"]  # null for a single window
    spread = "" if error is None else f" +- {error:.3f}"
    return (
        f"{last[prefix + 'bits']:.3f}{spread} on {last['windows']} validation windows "
        f"at step {last['step']:,} (a bound unless the recipe's likelihood is exact)"
    )


def _hub(what: str) -> Any:
    try:
        import huggingface_hub
    except ImportError:
        raise UserError(f"{what} needs huggingface-hub: pip install 'textdiffusion[hf]'.") from None
    return huggingface_hub


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
