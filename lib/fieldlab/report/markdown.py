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
    parts = []
    for part in report.parts:
        table = table_as_markdown(part, leading_as_markdown(part, folder))
        details = details_as_markdown(part, report, folder)
        parts.append("\n".join([table, claims_as_markdown(part), details]))
    return "\n".join([f"# Fieldmarks report\n\n{about(report)}\n", *parts])


def about(report: Report) -> str:
    runs, folder = wording.counted(len(report.runs), "finished run"), report.folder.absolute()
    units = "Scores in per cent; intervals are 95 %; *like this*: as the paper prints it."
    return f"{runs} below {_text(folder.name)}. {units}"


def part_as_markdown(part: Part) -> str:
    """One table under its heading, its claims, and the setting; without figures."""
    return "\n".join([table_as_markdown(part), claims_as_markdown(part), *_setting(part)])


def leading_as_markdown(part: Part, folder: Path) -> str:
    """What people look at first: two figures of the method."""
    if not part.leading:
        return ""
    said = f"*{_text(part.method.title)}*, seed {part.method.runs[0].seed}:"
    return "\n".join([said, "", *_figures(part.method, part.leading, folder), ""])


def table_as_markdown(part: Part, lead: str = "") -> str:
    """Under its heading, with how it may be read; `lead` comes first."""
    heading, read = wording.heading(part.table), wording.how_to_read(part.setting, part.table)
    lines = [f"## {_text(heading)}", "", *[lead, ""] * bool(lead), f"> **{_text(read)}**", ""]
    return "\n".join([*lines, *_grid(wording.cells(part.table)), ""])


def claims_as_markdown(part: Part) -> str:
    """Each in a line, and below, folded, what it rests on."""
    lines = [*map(_claim, part.verdicts), ""]
    rests = [f"- {_text(v.claim.text)}: {_text(wording.basis(v))}" for v in part.verdicts]
    return "\n".join(lines + _details("What these rest on", rests) * bool(rests))


def details_as_markdown(part: Part, report: Report, folder: Path) -> str:
    """The setting, and each run, folded."""
    rows = [line for row in part.table.rows if row.runs for line in _row(row, report, folder)]
    if earlier := ", ".join(report.shown(run.folder) for run in part.table.superseded):
        why = "Not counted, for a later run has the same parameters and seed"
        rows += [f"{why}: {_text(earlier)}", ""]
    figures = "All figures, and where the numbers come from"
    return "\n".join([*_setting(part), *_details(figures, rows)])


def _setting(part: Part) -> list[str]:
    setting, table, lines = part.setting, part.table, []
    for section, differences in setting.differences.items():
        values = [f"**{_text(n)}** {_text(h)} *(paper: {_text(p)})*" for n, h, p in differences]
        lines.append(f"- {_text(section)}: {'; '.join(values)}")
    if setting.note:
        lines += ["", f"The card on the paper's setting: {_text(setting.note)}"]
    lines += ["", *map(_text, setting.facts)]
    title = "The setting, and what differs from the paper's" if setting.known else "The setting"
    others, not_run = wording.other_cells(table), wording.cells_not_run(table)
    return [
        *_details(title, lines),
        *_folded(f"What else was measured: {len(others[0]) - 1}", others),
        *_folded(f"Rows of the paper that were not run: {len(not_run[1])}", not_run),
    ]


def _claim(verdict: Verdict) -> str:
    claim, found = _text(verdict.claim.text), _text(wording.difference(verdict) or verdict.basis)
    return f"- {wording.SIGNS[verdict.word]} **{verdict.word}**: {claim} ({found})"


def _figures(row: Row, names: list[str], folder: Path) -> list[str]:
    links = [quote(os.path.relpath(row.runs[0].folder / name, folder)) for name in names]
    captions = [_text(wording.caption(name)) for name in names]
    return [f"![{caption}]({link})" for caption, link in zip(captions, links, strict=True)]


def _row(row: Row, report: Report, folder: Path) -> list[str]:
    lines, first = [f"#### {_text(row.title)}", ""], row.runs[0]
    for run in row.runs:
        facts = wording.provenance(run, report.shown(run.folder))
        if run is not first and run.result["figures"]:
            facts["figures, in the folder"] = ", ".join(run.result["figures"])
        listed = [f"- **{name}**: {_text(fact)}" for name, fact in facts.items()]
        lines += _details(f"Seed {run.seed}: where its numbers come from", listed)
    return [*lines, *_figures(row, first.result["figures"], folder), ""]


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
