"""`textdiffusion models`"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from ..core.errors import UserError
from .output import console, note, print_json, print_table

if TYPE_CHECKING:
    from ..storage.packaged import Card

COLUMNS = ("MODEL", "WHAT", "DATA", "LICENCE", "SIZE", "TRAINING", "FIGURES")


@dataclass(frozen=True)
class Models:
    """List the trained models that come with the package, which every command takes by name; or print one's card."""

    model: Annotated[str, Positional, arg(metavar="[MODEL]")] = ""
    """The model whose card to print."""
    json: bool = False
    """Print JSON."""

    def execute(self) -> None:
        from ..storage.packaged import names, read_card, root

        if self.model and self.model not in names():
            known = f"it can be {', '.join(names())}." if names() else "this installation has none."
            raise UserError(f"There is no model {self.model!r}; {known}")
        chosen = [self.model] if self.model else names()
        cards = [read_card(root() / name) for name in chosen]
        size = {card.name: (root() / card.name / "model.safetensors").stat().st_size for card in cards}
        if self.json:
            print_json([asdict(card) | {"bytes": size[card.name]} for card in cards])
        elif self.model:
            print((root() / self.model / "README.md").read_text(encoding="utf-8"), end="")
        elif not cards:
            note("This installation has no models; train your own: textdiffusion train --help")
        elif console().is_terminal:  # seven columns would be too narrow to read
            columns = zip(*(_row(card, size[card.name], "\n") for card in cards), strict=True)
            print_table(("", *chosen), [(title.lower(), *row) for title, row in zip(COLUMNS, columns, strict=True)][1:])
            card = min(cards, key=lambda card: len(card.sampler))  # the one that needs the fewest options
            command = f"textdiffusion sample {card.name} {card.sampler}".rstrip()
            print(f"\nNext: {command} --watch, or textdiffusion models {card.name}")
        else:
            print_table(COLUMNS, [_row(card, size[card.name], "; ") for card in cards])


def _row(card: Card, size: int, separator: str) -> tuple[str, ...]:
    figures = separator.join(f"{figure.what}: {figure.value:.4g}" for figure in card.figures)
    weights = f"{size / 1e6:.1f} MB, {card.parameters / 1e6:.1f} million parameters"
    return card.name, card.what, card.data, card.licence, weights, card.training, figures
