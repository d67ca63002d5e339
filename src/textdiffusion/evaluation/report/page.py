"""A comparison of runs as one self-contained page, or as Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from pathlib import Path

from ...core.files import atomic
from ...scoring.protocol import NAMES, comparable
from ...views.html import colours, write_page
from ..compare import Comparison, FrontierPoint
from ..sample_report import REAL, piped
from . import figures
from .charts import STYLE
from .figures import cell, key, table, word


def write_report(found: Comparison, path: str | Path) -> None:
    """Write the page to `path`. Raises UserError if the file cannot be written."""
    runs = found.runs
    parts = {
        "TITLE": escape(f"{f'{len(runs)} runs' if len(runs) > 1 else runs[0].name} on {_title(found)}"),
        "STYLE": colours() + STYLE,
        "ABOUT": _facts(
            {
                "weights": _weights(found),
                "precision": found.protocol["dtype"],
                "measured on": f"{found.protocol['characters']:,} characters in {found.protocol['windows']:,} windows",
                "protocol": found.digest,
            }
        ),
        "BITS": _bits(found),
        "TEXTS": _texts(found),
        "TRAINING": figures.training(runs),
        "CURVES": figures.curves(runs),
        "FRONTIER": figures.frontier(found),
        "GALLERY": _gallery(found),
        "PROTOCOL": _facts({NAMES.get(k, k): v for k, v in comparable(found.protocol).items()}),
    }
    write_page("report.html", path, parts)


def write_frontier(name: str, spots: Sequence[FrontierPoint], path: str | Path) -> None:
    """Write the chart of a run's texts as an SVG file. Raises UserError if it cannot be written."""
    with atomic(path) as partial:
        partial.write_text(figures.panel(name, spots, style=colours() + STYLE), encoding="utf-8")


def markdown(found: Comparison) -> str:
    """The tables in Markdown."""
    head = "run, recipe, bits per character, error of draws, error over windows, solved, parameters, CPU-seconds"
    rows: list[list[str]] = [[*head.split(", ")]]
    for run in found.runs:
        it, cost = run.likelihood, f"{run.trained.cpu_seconds:.0f}" if run.trained else "-"
        solved = f"{run.answers.share:.1%} +- {run.answers.error:.1%}" if run.answers else "-"
        bits = f"{'' if it.exact else '<= '}{it.bits:.4f}"
        errors = f"{it.monte_carlo_error:.4f}", "-" if it.window_error is None else f"{it.window_error:.3f}"
        rows.append([run.name, run.recipe, bits, *errors, solved, f"{run.parameters:,}", cost])
    if found.ngram:
        rows.append([f"*{found.ngram.order}-gram*", "*Kneser-Ney*", f"{found.ngram.bits:.4f}", *[""] * 5])
    title = f"On {_title(found)}, {_weights(found)} weights, protocol {found.digest}"
    return "\n".join([title, "", *piped(rows), *(["", str(found.report)] if found.report else []), ""])


def _title(found: Comparison) -> str:
    """The text, without the folders that lead to its file."""
    return re.sub(r"(?<!\S)/\S*/", "", found.text)


def _weights(found: Comparison) -> str:
    return "averaged (EMA)" if found.protocol["weights"] == "ema" else "raw"


def _facts(facts: dict) -> str:
    shown = {name: f"{value:,}" if isinstance(value, int) else str(value) for name, value in facts.items()}
    return "".join(f"<div><dt>{escape(name)}</dt> <dd>{escape(value)}</dd></div>" for name, value in shown.items())


def _bits(found: Comparison) -> str:
    runs, tasks = found.runs, any(run.answers for run in found.runs)
    columns = [("run", ""), ("bits", "per character"), ("± draws", "bits"), ("± windows", "bits")]
    columns += [("solved", "questions"), ("±", "questions")] if tasks else []
    columns += [
        ("recipe", ""),
        ("parameters", "number"),
        ("training", "CPU-seconds"),
        ("steps", "number"),
        ("tokens", "seen"),
    ]
    rows = []
    for number, run in enumerate(runs):
        it, cost = run.likelihood, run.trained
        cells = [f'<th scope="row">{key(number, len(runs))} {escape(run.name)}</th>']
        cells.append(cell(it.bits, ".3f", "= " if it.exact else "≤ "))
        cells += [cell(each, ".3f") for each in (it.monte_carlo_error, it.window_error)]
        if tasks:
            solved = (run.answers.share, run.answers.error) if run.answers else (None, None)
            cells += [cell(each, ".1%") for each in solved]
        cells += [word(run.recipe), cell(run.parameters, ",")]
        spent = (cost.cpu_seconds, cost.steps, cost.tokens) if cost else (None, None, None)
        rows.append("".join([*cells, *(cell(each, ",.0f") for each in spent)]))
    apart = []
    if found.ngram:
        bits = cell(found.ngram.bits, ".3f", "= ")
        blank = (len(columns) - 7) * "<td></td>" + word("modified Kneser-Ney") + 4 * "<td></td>"
        apart.append(f'<th scope="row">{found.ngram.order}-gram</th>{bits}{blank}')
    return table("Bits per character and cost", columns, rows, apart)


def _texts(found: Comparison) -> str:
    report = found.report
    if report is None:
        return f"<p>{escape(found.unjudged)}</p>"
    columns = [("texts of", ""), *((line.name, f"{line.unit}, best: {line.best}") for line in report.lines)]
    numbers = {run.name: number for number, run in enumerate(found.runs)}
    rows: tuple[list[str], list[str]] = ([], [])
    for row in sorted(report.lines[0].values, key=lambda row: numbers.get(row, 99)):
        number = key(numbers[row], len(numbers)) + " " if row in numbers else ""
        cells = [f'<th scope="row">{number}{escape(row)}</th>']
        for line in report.lines:
            naive = ", ".join(line.beaten.get(row, ()))
            cells.append(cell(line.values[row], flag=f"{naive} would beat {row}" if naive else ""))
        rows[row not in numbers].append("".join(cells))
    warnings = "".join(f"<li>{escape(warning.removeprefix('! '))}</li>" for warning in report.warnings())
    why = f"<details><summary>Metrics that rank a naive row above a model (!)</summary><ul>{warnings}</ul></details>"
    meanings = "".join(
        f"<div><dt>{escape(line.name)}</dt> <dd>{escape(line.meaning)}</dd></div>" for line in report.lines
    )
    told = f"<details><summary>What each metric says</summary><dl class='long'>{meanings}</dl></details>"
    how = "".join(
        f"<li>{escape(run.name)}: {escape(str(run.texts[0].setting))}, {run.texts[0].nfe:g} network calls, "
        f"features in {run.texts[0].dtype}</li>"
        for run in found.runs
    )
    written = f"<ul>{how}</ul><dl>{_facts(report.protocol)}</dl>"
    facts = f"<details><summary>How the texts were written</summary>{written}</details>"
    return table("Metrics of texts", columns, *rows) + why + told + facts


def _gallery(found: Comparison) -> str:
    cards = [(f'<article class="apart"><h3>{REAL}</h3>', found.real)] if found.real else []
    for number, run in enumerate(found.runs):
        if run.texts:
            title = f"<article><h3>{key(number, len(found.runs))} {escape(run.name)}</h3>"
            cards.append(
                (f"{title}<p>{escape(str(run.texts[0].setting))}</p>", run.texts[0].texts[: len(found.real) or 3])
            )
    if not cards:
        return "<p>No texts were written.</p>"
    return "".join(
        head + "".join(f"<pre>{escape(text)}</pre>" for text in texts) + "</article>" for head, texts in cards
    )
