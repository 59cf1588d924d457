"""A report as Markdown, with figures as links into the runs' folders.

Where Markdown has no means of its own there are HTML elements, which its viewers show.
"""

import os
import re
from pathlib import Path
from urllib.parse import quote

from fieldlab.cards.claims import Verdict
from fieldlab.report import wording
from fieldlab.report.tables import Row
from fieldlab.report.wording import Cell, Grid, Part, Report


def as_markdown(report: Report, folder: Path) -> str:
    """The report; `folder` is where it will stand, for its links."""
    parts = [part_as_markdown(p) + runs_as_markdown(p, report, folder) for p in report.parts]
    return "\n".join([f"# Fieldmarks report\n\n{about(report)}\n", *parts])


def about(report: Report) -> str:
    runs, folder = wording.counted(len(report.runs), "finished run"), report.folder.absolute()
    units = "All figures in per cent; intervals are 95 %; *like this*: as the paper prints it."
    return f"{runs} below {_text(folder.name)}. {units}"


def part_as_markdown(part: Part) -> str:
    """One table under its heading and its setting, and the claims."""
    return "\n".join([table_as_markdown(part), *map(_claim, part.verdicts), "", ""])


def table_as_markdown(part: Part) -> str:
    setting, table = part.setting, part.table
    lines = [f"## {_text(wording.heading(table))}", ""]
    lines.append(f"> **{_text(wording.how_to_read(setting, table))}**")
    for section, differences in setting.differences.items():
        values = [f"**{_text(n)}** {_text(h)} *(paper: {_text(p)})*" for n, h, p in differences]
        lines.append(f"> - {_text(section)}: {'; '.join(values)}")
    if setting.note:
        lines += [">", f"> The card on the paper's setting: {_text(setting.note)}"]
    lines += ["", *map(_text, setting.facts), "", *_grid(wording.cells(table))]
    others, not_run = wording.other_cells(table), wording.cells_not_run(table)
    lines += _folded(f"What else was measured: {len(others[0]) - 1}", others)
    lines += _folded(f"Rows of the paper that were not run: {len(not_run[1])}", not_run)
    return "\n".join([*lines, ""])


def runs_as_markdown(part: Part, report: Report, folder: Path) -> str:
    """Where numbers come from, and the figures of the first run of each row."""
    rows = [_row(row, report, folder) for row in part.table.rows if row.runs]
    lines = [line for row in rows for line in row]
    if earlier := ", ".join(report.shown(run.folder) for run in part.table.superseded):
        why = "Not counted, for a later run has the same parameters and seed"
        lines += [f"{why}: {_text(earlier)}", ""]
    return "\n".join(["### Runs", "", *lines, ""])


def _claim(verdict: Verdict) -> str:
    claim, basis = _text(verdict.claim.text), _text(wording.basis(verdict))
    return f"- {wording.SIGNS[verdict.word]} **{verdict.word}**: {claim} ({basis})"


def _row(row: Row, report: Report, folder: Path) -> list[str]:
    lines, first = [f"#### {_text(row.title)}", ""], row.runs[0]
    for run in row.runs:
        facts = wording.provenance(run, report.shown(run.folder))
        if run is not first and run.result["figures"]:
            facts["figures, in the folder"] = ", ".join(run.result["figures"])
        listed = [f"- **{name}**: {_text(fact)}" for name, fact in facts.items()]
        lines += _details(f"Seed {run.seed}: where its numbers come from", listed)
    for name in first.result["figures"]:
        link = quote(os.path.relpath(first.folder / name, folder))
        lines.append(f"![{_text(wording.caption(name))}]({link})")
    return [*lines, ""]


def _grid(grid: Grid) -> list[str]:
    heads, rows = grid
    rule = "|---" + "|--:" * (len(heads) - 1) + "|"
    head, *lines = ("| " + " | ".join(map(_cell, row)) + " |" for row in (heads, *rows))
    return [head, rule, *lines]


def _cell(cell: Cell) -> str:
    text, under = _text(cell.text), f" <small>{_text(cell.under)}</small>" if cell.under else ""
    return (f"*{text}*" if cell.printed and text else text) + under


def _folded(title: str, grid: Grid) -> list[str]:
    return ["", *_details(title, _grid(grid))] if grid[1] else []


def _details(title: str, lines: list[str]) -> list[str]:
    return [f"<details><summary>{title}</summary>", "", *lines, "", "</details>", ""]


def _text(text: str) -> str:
    """What Markdown or HTML would take for their own, and line ends, as text."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return " ".join(re.sub(r"([\\*`|])|(?<=\])(?=\()", r"\\\1", text).split())
