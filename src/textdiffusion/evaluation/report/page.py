"""A comparison of runs as one self-contained HTML page, or as Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from pathlib import Path

from ...core.files import write_text
from ...scoring.protocol import NAMES, comparable
from ...views.html import colours, write_page
from ..bench import RunResults
from ..compare import GALLERY_TEXTS, Comparison
from ..frontier import FrontierPoint
from ..sample_report import BETTER, REAL, escape_markdown, markdown_table
from . import figures
from .charts import STYLE
from .tables import details, key, number_cell, run_cell, table, text_cell


def write_report(comparison: Comparison, path: str | Path) -> None:
    """Write the page to `path`. Raises UserError if the file cannot be written."""
    runs, protocol = comparison.runs, comparison.protocol
    parts = {
        "TITLE": escape(f"{f'{len(runs)} runs' if len(runs) > 1 else runs[0].name} on {_title(comparison)}"),
        "STYLE": colours() + STYLE,
        "ABOUT": _facts(
            {
                "weights": _weights(comparison),
                "precision": protocol["dtype"],
                "measured on": f"{protocol['characters']:,} characters in {protocol['windows']:,} windows",
                "protocol": comparison.digest,
            }
        ),
        "BITS": _bits(comparison),
        "TEXTS": _texts(comparison),
        "TRAINING": figures.training(runs),
        "CURVES": figures.curves(runs),
        "FRONTIER": figures.frontier(comparison),
        "GALLERY": _gallery(comparison),
        "PROTOCOL": _facts({NAMES.get(k, k): v for k, v in comparable(protocol).items()}),
    }
    write_page("report.html", path, parts)


def write_frontier(name: str, points: Sequence[FrontierPoint], path: str | Path) -> None:
    """Write the frontier chart of one run as an SVG file. Raises UserError if it cannot be written."""
    write_text(path, figures.frontier_chart(name, points, style=colours() + STYLE))


def markdown(comparison: Comparison) -> str:
    """The tables in Markdown."""
    head = "run, recipe, bits per character, error of draws, error over windows, solved, parameters, CPU-seconds"
    order = comparison.order
    rows: list[list[str]] = [[*head.split(", "), *([f"bits revealed by {order}"] if order else [])]]
    for run in comparison.runs:
        likelihood, score = run.likelihood, run.task_score
        bits = f"{'' if likelihood.exact else '<= '}{likelihood.bits:.4f}"
        window_error = "-" if likelihood.window_error is None else f"{likelihood.window_error:.3f}"
        solved = f"{score.accuracy:.1%} +- {score.error:.1%}" if score else "-"
        seconds = f"{run.training.cpu_seconds:.0f}" if run.training else "-"
        errors = f"{likelihood.monte_carlo_error:.4f}", window_error
        rows.append(
            [
                escape_markdown(run.name),
                escape_markdown(run.recipe),
                bits,
                *errors,
                solved,
                f"{run.parameters:,}",
                seconds,
                *([_in_order(run)] if order else []),
            ]
        )
    if comparison.ngram:
        cells = [f"*{comparison.ngram.order}-gram*", "*Kneser-Ney*", f"{comparison.ngram.bits:.4f}"]
        rows.append(cells + [""] * (len(rows[0]) - len(cells)))
    title = f"On {escape_markdown(_title(comparison))}, {_weights(comparison)} weights, protocol {comparison.digest}"
    report = []
    if comparison.report:
        names = {name: escape_markdown(name) for name in comparison.report.text_sets}
        report = ["", str(comparison.report.select(names))]
    note = ["", _order_note(comparison)] if order else []
    return "\n".join([title, "", *markdown_table(rows), *note, *report, ""])


def _in_order(run: RunResults) -> str:
    """The bits of the order."""
    found = run.in_order
    return "-" if found is None else f"{'' if found.exact else '<= '}{found.bits:.4f}"


def _order_note(comparison: Comparison) -> str:
    """The protocol of the order, and why runs have no figure of it."""
    digests = {run.in_order.digest for run in comparison.runs if run.in_order}
    parts = [f"Revealed by {comparison.order}: protocol {', '.join(sorted(digests))}."] if digests else []
    if any(run.in_order is None for run in comparison.runs):
        parts.append("Only runs that can reveal masks in an order have a likelihood of it.")
    return " ".join(parts)


def _title(comparison: Comparison) -> str:
    """The name of the text, without the folders of its file."""
    return re.sub(r"(?<!\S)/\S*/", "", comparison.text)


def _weights(comparison: Comparison) -> str:
    return "averaged (EMA)" if comparison.protocol["weights"] == "ema" else "raw"


def _facts(facts: dict) -> str:
    shown = {name: f"{value:,}" if isinstance(value, int) else str(value) for name, value in facts.items()}
    return "".join(f"<div><dt>{escape(name)}</dt> <dd>{escape(value)}</dd></div>" for name, value in shown.items())


def _bits(comparison: Comparison) -> str:
    runs, is_task = comparison.runs, any(run.task_score for run in comparison.runs)
    columns = [("run", ""), ("bits", "per character"), ("± draws", "bits"), ("± windows", "bits")]
    columns += [(f"by {comparison.order}", "bits")] if comparison.order else []
    columns += [("solved", "% of questions"), ("±", "% of questions")] if is_task else []
    columns += [("recipe", ""), ("parameters", "number"), ("training", "CPU-seconds")]
    columns += [("training steps", "number"), ("training tokens", "number")]
    rows = []
    for number, run in enumerate(runs):
        likelihood, score, training = run.likelihood, run.task_score, run.training
        bits = number_cell(likelihood.bits, ".3f", "= " if likelihood.exact else "≤ ")
        cells = [run_cell(number, len(runs), run.name), bits]
        cells += [number_cell(error, ".3f") for error in (likelihood.monte_carlo_error, likelihood.window_error)]
        if comparison.order:
            found = run.in_order
            sign = "= " if found and found.exact else "≤ "
            cells.append(number_cell(found.bits if found else None, ".3f", sign))
        if is_task:
            solved = (score.accuracy, score.error) if score else (None, None)
            cells += [number_cell(value, ".1%") for value in solved]
        cells += [text_cell(run.recipe), number_cell(run.parameters, ",")]
        cost = (training.cpu_seconds, training.steps, training.tokens) if training else (None, None, None)
        rows.append("".join([*cells, *(number_cell(value, ",.0f") for value in cost)]))
    references = []
    if comparison.ngram:
        bits = number_cell(comparison.ngram.bits, ".3f", "= ")
        blank = (len(columns) - 7) * "<td></td>" + text_cell("modified Kneser-Ney") + 4 * "<td></td>"
        references.append(f'<th scope="row">{comparison.ngram.order}-gram</th>{bits}{blank}')
    note = f"<p>{escape(_order_note(comparison))}</p>" if comparison.order else ""
    return table("Bits per character and cost", columns, rows, references) + note


def _texts(comparison: Comparison) -> str:
    report = comparison.report
    if report is None:
        return f"<p>{escape(comparison.no_report_reason)}</p>"
    columns = [("texts of", ""), *((row.name, f"{row.unit}; better: {BETTER[row.best]}") for row in report.rows)]
    numbers = {run.name: number for number, run in enumerate(comparison.runs)}
    rows: tuple[list[str], list[str]] = ([], [])
    for name in sorted(report.text_sets, key=lambda name: numbers.get(name, len(numbers))):
        is_run = name in numbers
        plain = f'<th scope="row">{escape(name)}</th>'
        cells = [run_cell(numbers[name], len(numbers), name) if is_run else plain]
        for row in report.rows:
            baselines = ", ".join(row.beaten_by.get(name, ()))
            cells.append(number_cell(row.values[name], warning=f"{baselines} would beat {name}" if baselines else ""))
        rows[not is_run].append("".join(cells))
    warnings = "".join(f"<li>{escape(warning.removeprefix('! '))}</li>" for warning in report.warnings())
    meanings = _facts({row.name: row.meaning for row in report.rows})
    settings = "".join(
        f"<li>{escape(run.name)}: {escape(str(run.texts[0].setting))}, {run.texts[0].nfe:g} network calls per text, "
        f"features in {run.texts[0].dtype}</li>"
        for run in comparison.runs
    )
    return (
        table("Metrics of texts", columns, *rows)
        + details("Where a baseline beats a model or real text (!)", f"<ul>{warnings}</ul>")
        + details("What each metric measures", f'<dl class="long">{meanings}</dl>')
        + details("How the texts were generated", f"<ul>{settings}</ul><dl>{_facts(report.protocol)}</dl>")
    )


def _gallery(comparison: Comparison) -> str:
    excerpts, num_runs = comparison.real_excerpts, len(comparison.runs)
    cards = [(f'<article class="apart"><h3>{REAL}</h3>', excerpts)] if excerpts else []
    for number, run in enumerate(comparison.runs):
        if run.texts:
            first = run.texts[0]
            head = f"<article><h3>{key(number, num_runs)} {escape(run.name)}</h3><p>{escape(str(first.setting))}</p>"
            cards.append((head, first.texts[: len(excerpts) or GALLERY_TEXTS]))
    if not cards:
        return "<p>No texts were generated.</p>"
    return "".join(
        head + "".join(f"<pre>{escape(text)}</pre>" for text in texts) + "</article>" for head, texts in cards
    )
