"""A report as Markdown: tables, claims and where the numbers come from; figures as links into the runs' folders."""

import os
import re
from pathlib import Path
from urllib.parse import quote

from fieldlab.cards.claims import Verdict
from fieldlab.cards.finished import FinishedRun
from fieldlab.cards.setting import Setting
from fieldlab.report.report import Part, Report
from fieldlab.report.tables import Table
from fieldlab.report.wording import (
    CAPTIONS,
    SIGNS,
    Cell,
    cells,
    cells_not_run,
    compared,
    heading,
    how_to_read,
    other_cells,
    outcome,
    provenance,
)


def as_markdown(report: Report, folder: Path) -> str:
    """The whole report; `folder` is where it will stand, for its links."""
    runs = f"{len(report.runs)} finished run{'s' * (len(report.runs) != 1)} below {report.folder.absolute().name}"
    parts = [
        part_as_markdown(part) + runs_as_markdown(part, report, folder) for part in report.parts
    ]
    units = "All figures in per cent; intervals are 95 %; *slanted*: as the paper prints it."
    return f"# Fieldmarks report\n\n{runs}. {units}\n\n" + "\n".join(parts)


def part_as_markdown(part: Part) -> str:
    """One table under its heading and its setting, and the claims."""
    blocks = [
        setting_as_markdown(part.setting, part.table),
        table_as_markdown(part.table),
        claims_as_markdown(part.verdicts),
    ]
    return "\n".join(
        [
            f"## {_text(heading(part.table))}",
            "",
            *(line for block in blocks for line in [*block, ""]),
            "",
        ]
    )


def setting_as_markdown(setting: Setting, table: Table) -> list[str]:
    lines = [f"> **{_text(how_to_read(setting, table))}**"]
    for section, differences in setting.differences.items():
        values = "; ".join(f"{name} {here} (paper: {paper})" for name, here, paper in differences)
        lines.append(f"> - {_text(section)}: {_text(values)}")
    if setting.note:
        lines += [">", f"> The card on the paper's setting: {_text(setting.note)}"]
    return [*lines, "", *map(_text, setting.facts)]


def table_as_markdown(table: Table) -> list[str]:
    lines = _grid(*cells(table))
    for words, (heads, rows) in (
        ("Also measured", other_cells(table)),
        ("Not run", cells_not_run(table)),
    ):
        lines += ["", f"{words}:", "", *_grid(heads, rows)] if rows else []
    return lines


def _grid(heads: list[Cell], rows: list[list[Cell]]) -> list[str]:
    return [_line(heads), "|---" + "|--:" * (len(heads) - 1) + "|", *map(_line, rows)]


def claims_as_markdown(verdicts: list[Verdict]) -> list[str]:
    return [
        f"- {SIGNS[verdict.word]} **{verdict.word}**: {_text(verdict.claim.text)} "
        f"({_text(compared(verdict))}: {_text(outcome(verdict))})"
        for verdict in verdicts
    ]


def runs_as_markdown(part: Part, report: Report, folder: Path) -> str:
    lines = ["<details><summary>Runs</summary>", ""]
    for row in part.table.rows:
        lines += [f"- {_text(row.title)}: {_run(run, report, folder)}" for run in row.runs]
    return "\n".join([*lines, "", "</details>", ""])


def _run(run: FinishedRun, report: Report, folder: Path) -> str:
    facts = provenance(run, report.shown(run.folder))
    kept = "; ".join(
        f"{name} {_text(facts[name])}"
        for name in ("seed", "folder", "executed notebook", "commit", "data", "packages")
    )
    links = (
        f"[{CAPTIONS.get(name, name)}]({quote(os.path.relpath(run.folder / name, folder))})"
        for name in run.result["figures"]
    )
    return "; ".join([kept, *links])


def _line(cells: list[Cell]) -> str:
    return "| " + " | ".join(map(_cell, cells)) + " |"


def _cell(cell: Cell) -> str:
    text = _text(cell.text)
    return " ".join(
        filter(None, [f"*{text}*" if cell.printed and text else text, _text(cell.under)])
    )


def _text(text: str) -> str:
    """What Markdown or HTML would take for their own, and line ends, as text."""
    text = re.sub(
        r"([\\*`|])|(?<=\])(?=\()",
        r"\\\1",
        text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;"),
    )
    return " ".join(text.split())
