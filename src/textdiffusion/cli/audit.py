"""`textdiffusion audit OBJECTIVE`"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated

from tyro.conf import Positional, arg

from ..core.errors import UserError
from .output import print_json, print_table, status


@dataclass(frozen=True, kw_only=True)
class AuditLoss:
    """Check whether a loss is a bound: whether it is anywhere below the entropy of languages known completely.

    Shows for every process and language the case where the loss is furthest below the entropy or closest to it.
    """

    objective: Annotated[str, Positional, arg(metavar="OBJECTIVE")]
    """An objective or likelihood, with settings as in masked_elbo:max_weight=0."""
    rows: int = 1000
    """Number of texts per batch; more find smaller violations."""
    seed: int = 0
    """The same seed gives the same figures."""
    json: bool = False
    """Print all comparisons as JSON."""

    def execute(self) -> None:
        if self.rows < 2:
            raise UserError(f"--rows is {self.rows}; it must be at least 2.")
        from ..config.overrides import loss
        from ..evaluation.audit import Audit, audit

        part = loss(self.objective)
        with status("Comparing ..."):
            result = audit(part, name=self.objective, rows=self.rows, seed=self.seed)
        verdicts = {quantity: result.verdict(quantity) for quantity in result.quantities}
        if self.json:
            comparisons = [asdict(each) | {"holds": each.holds} for each in result.comparisons]
            print_json({"name": result.name, "verdicts": verdicts, "comparisons": comparisons})
            return
        groups: dict[tuple[str, str, str], Audit] = {}
        for each in result.comparisons:
            key = (each.quantity, each.process, each.language)
            groups[key] = Audit(result.name, (*(groups[key].comparisons if key in groups else ()), each))
        rows = []
        for key, group in groups.items():
            worst = group.worst()
            figures = (f"{worst.entropy:.4f}", f"{worst.loss:.4f}", f"{worst.error:.4f}")
            rows.append((*key, worst.denoiser, worst.given, *figures, "holds" if worst.holds else "below"))
        print_table(
            ("QUANTITY", "PROCESS", "LANGUAGE", "DENOISER", "GIVEN", "ENTROPY", "LOSS", "ERROR", "VERDICT"), rows
        )
        print("Bits per text.")
        for verdict in verdicts.values():
            print(verdict)
