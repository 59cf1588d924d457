"""A report as Markdown: tables, claims, where the numbers come from; figures as links."""

import os
import re
from pathlib import Path
from urllib.parse import quote

from fieldlab.cards.claims import Verdict
from fieldlab.cards.finished import FinishedRun
from fieldlab.report.report import Part, Report
from fieldlab.report.wording import (
    SIGNS,
    Cell,
    caption,
    cells,
    cells_not_run,
    compared,
    counted,
    heading,
    how_to_read,
    other_cells,
    outcome,
    provenance,
)

KEPT = ("seed", "folder", "executed notebook", "commit", "data", "packages")  # of the provenance


def as_markdown(report: Report, folder: Path) -> str:
    """The whole report; `folder` is where it will stand, for its links."""
    runs = f"{counted(len(report.runs), 'finished run')} below {report.folder.absolute().name}"
    parts = [part_as_markdown(part) + _runs(part, report, folder) for part in report.parts]
    units = "All figures in per cent; intervals are 95 %; *slanted*: as the paper prints it."
    return f"# Fieldmarks report\n\n{runs}. {units}\n\n" + "\n".join(parts)


def part_as_markdown(part: Part) -> str:
    """One table under its heading and its setting, and the claims."""
    setting, table = part.setting, part.table
    lines = [f"## {_text(heading(table))}", "", f"> **{_text(how_to_read(setting, table))}**"]
    for section, differences in setting.differences.items():
        values = "; ".join(f"{name} {here} (paper: {paper})" for name, here, paper in differences)
        lines.append(f"> - {_text(section)}: {_text(values)}")
    if setting.note:
        lines += [">", f"> The card on the paper's setting: {_text(setting.note)}"]
    lines += ["", *map(_text, setting.facts), "", *_grid(*cells(table))]
    for title, grid in (("Also measured", other_cells(table)), ("Not run", cells_not_run(table))):
        lines += ["", f"{title}:", "", *_grid(*grid)] if grid[1] else []
    return "\n".join([*lines, "", *map(_claim, part.verdicts), "", ""])


def _claim(verdict: Verdict) -> str:
    claim, basis = _text(verdict.claim.text), f"{compared(verdict)}: {outcome(verdict)}"
    return f"- {SIGNS[verdict.word]} **{verdict.word}**: {claim} ({_text(basis)})"


def _runs(part: Part, report: Report, folder: Path) -> str:
    lines = ["<details><summary>Runs</summary>", ""]
    for row in part.table.rows:
        lines += [f"- {_text(row.title)}: {_run(run, report, folder)}" for run in row.runs]
    return "\n".join([*lines, "", "</details>", ""])


def _run(run: FinishedRun, report: Report, folder: Path) -> str:
    facts = provenance(run, report.shown(run.folder))
    links = [
        f"[{caption(name)}]({quote(os.path.relpath(run.folder / name, folder))})"
        for name in run.result["figures"]
    ]
    return "; ".join([*(f"{name} {_text(facts[name])}" for name in KEPT), *links])


def _grid(heads: list[Cell], rows: list[list[Cell]]) -> list[str]:
    rule = "|---" + "|--:" * (len(heads) - 1) + "|"
    head, *lines = ("| " + " | ".join(map(_cell, row)) + " |" for row in (heads, *rows))
    return [head, rule, *lines]


def _cell(cell: Cell) -> str:
    text = _text(cell.text)
    return " ".join(
        filter(None, [f"*{text}*" if cell.printed and text else text, _text(cell.under)])
    )


def _text(text: str) -> str:
    """What Markdown or HTML would take for their own, and line ends, as text."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return " ".join(re.sub(r"([\\*`|])|(?<=\])(?=\()", r"\\\1", text).split())
