"""A report as one HTML file that needs nothing else: no network, no scripts; pictures inside, each once."""

import base64
import hashlib
from html import escape
from pathlib import Path

from fieldlab.cards.claims import Verdict
from fieldlab.cards.finished import FinishedRun
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
    tally,
)

PICTURES = 16 * 2**20  # bytes; what comes after that is named and stays in its folder
TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg"}
STYLE = """
:root { color-scheme: light; --ink: #1d2433; --soft: #5a6478; --line: #e2e6ee; --mark: #c9a227 } * { box-sizing: border-box }
body { font: 16px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; color: var(--ink); background: #fff;
  max-width: 66rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.8rem; line-height: 1.2; margin: 0 0 .3rem } h2 { font-size: 1.3rem; line-height: 1.3; margin: 0 0 .6rem }
h3 { font-size: 1rem; margin: 1.4rem 0 .4rem } p { margin: .3rem 0 }
section { margin-top: 2.2rem; padding-top: 1.4rem; border-top: 2px solid var(--line) } nav ul { padding-left: 1.1rem }
nav small, .soft { color: var(--soft) } a { color: #1f5fa8 }
.setting { background: #fbf7e9; border-left: 4px solid var(--mark); padding: .6rem .9rem; margin: .8rem 0 1rem }
.setting.same { background: #eef4fb; border-color: #2f6db3 } .setting dl { margin: .4rem 0 0 }
.setting dd b { font-weight: 600; white-space: nowrap } .setting dd i { color: var(--soft); font-style: normal }
dl { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: .15rem .9rem; margin: .5rem 0 }
dt { color: var(--soft) } dd { margin: 0; overflow-wrap: anywhere } .wide { overflow-x: auto; margin: .6rem 0 }
table { border-collapse: separate; border-spacing: 0; font-variant-numeric: tabular-nums }
.unit { font-size: .87rem; margin: .9rem 0 0 } th:first-child { position: sticky; left: 0; background: #fff }
th, td { padding: .3rem .65rem; text-align: right; vertical-align: top; border-bottom: 1px solid var(--line);
  white-space: nowrap }
thead th { vertical-align: bottom; border-bottom: 2px solid var(--ink); font-weight: 600 } th:first-child { text-align: left }
tbody th { font-weight: 600; white-space: normal; min-width: 12rem; max-width: 18rem }
td small, th small { display: block; color: var(--soft); font-weight: 400; font-size: .8rem }
.printed, .printed small { color: #737c8c; font-weight: 400 } .claims { list-style: none; padding: 0; margin: .4rem 0 }
.claims li { display: grid; grid-template-columns: 9.6rem minmax(0, 1fr) 12rem; gap: .2rem .9rem; align-items: start;
  padding: .5rem 0; border-bottom: 1px solid var(--line) }
.claims p { margin: 0 } .claims small { color: var(--soft) } .claims svg { width: 12rem; height: 1.5rem }
.verdict { font-weight: 600; white-space: nowrap; border-radius: .3rem; padding: .05rem .5rem; justify-self: start;
  border: 1px solid }
.supported { color: #0b5c8f; background: #e3f1fa } .contradicted { color: #a33b00; background: #fdebdf }
.undecided { color: #4a5263; background: #f1f3f7 } .not-tested { color: #6b7385; background: #fff }
details { border-bottom: 1px solid var(--line); padding: .2rem 0 }
summary { cursor: pointer; padding: .3rem 0; font-weight: 600 } img { max-width: 100%; height: auto; display: block }
figure { margin: 1rem 0 } figcaption { font-weight: 600; margin-bottom: .3rem }
@media (max-width: 40rem) {
  body { margin-top: 1rem; font-size: 15px } .claims li { grid-template-columns: minmax(0, 1fr) } h1 { font-size: 1.5rem }
  th, td { padding: .3rem .5rem } tbody th { min-width: 6rem; max-width: 8.5rem }
  .setting dl, details dl { grid-template-columns: minmax(0, 1fr) } .setting dt { margin-top: .3rem }
  dd { margin-bottom: .2rem }
}

@media print {
  body { max-width: none; margin: 0; font-size: 10pt } .wide { overflow: visible } table { font-size: 8pt }
  th, td { white-space: normal; padding: .15rem .3rem } tbody th { min-width: 6rem } td small, th small { font-size: 7pt }
  tr, figure, .claims li, .setting { break-inside: avoid } h2, h3, summary { break-after: avoid }
  a { color: inherit; text-decoration: none } details::details-content { content-visibility: visible; block-size: auto }
  * { print-color-adjust: exact } img { max-height: 22cm; width: auto }
}
"""


def as_page(report: Report) -> str:
    """The whole page."""
    pictures = Pictures()
    body = "".join(
        _section(number, part, report, pictures)
        for number, part in enumerate(report.parts, start=1)
    )
    contents = "".join(
        f'<li><a href="#table-{number}">{escape(heading(part.table))}</a> <small>{_summary(part)}</small></li>'
        for number, part in enumerate(report.parts, start=1)
    )
    runs = f"{len(report.runs)} finished run{'s' * (len(report.runs) != 1)} below {escape(report.folder.absolute().name)}"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Fieldmarks report</title><style>{STYLE}</style></head><body>\n<h1>Fieldmarks report</h1>"
        f'<p class="soft">{runs}. All figures in per cent; intervals are 95 %.</p><nav><ul>{contents}</ul></nav>\n{body}</body></html>\n'
    )


def _summary(part: Part) -> str:
    words = f"{len(part.table.runs)} run{'s' * (len(part.table.runs) != 1)}"
    return words + (f"; claims: {tally(part.verdicts)}" if part.verdicts else "")


def _section(number: int, part: Part, report: Report, pictures: "Pictures") -> str:
    table = part.table
    runs = "".join(
        _run(run, row.title, report, pictures if place == 0 else None)
        for row in table.rows
        for place, run in enumerate(row.runs)
    )
    earlier = ", ".join(report.shown(run.folder) for run in table.superseded)
    if earlier:
        earlier = f'<p class="soft">Not counted, for a later run has the same parameters and seed: {escape(earlier)}</p>'
    return (
        f'<section id="table-{number}"><h2>{escape(heading(table))}</h2>{_setting(part)}{_table(table)}{earlier}'
        f"{_claims(part.verdicts)}<h3>Runs</h3>{runs}</section>\n"
    )


def _setting(part: Part) -> str:
    setting = part.setting
    facts = "".join(f"<p>{escape(fact)}</p>" for fact in setting.facts)
    note = (
        f'<p class="soft">The card on the paper\'s setting: {escape(setting.note)}</p>'
        if setting.note
        else ""
    )
    listed = "".join(
        f"<dt>{escape(section)}</dt><dd>{'; '.join(_difference(*each) for each in differences)}</dd>"
        for section, differences in setting.differences.items()
    )
    reading = f"<p><strong>{escape(how_to_read(setting, part.table))}</strong></p>"
    return (
        f'<div class="setting{" same" * setting.is_papers}">{reading}'
        f"{f'<dl>{listed}</dl>' if listed else ''}{note}</div>{facts}"
    )


def _difference(name: str, here: str, paper: str) -> str:
    return f"<b>{escape(name)}</b> {escape(here)} <i>(paper: {escape(paper)})</i>"


def _table(table: Table) -> str:
    others, not_run = other_cells(table), cells_not_run(table)
    folded = "".join(
        f"<details><summary>{words}: {count}</summary>{_grid(heads, rows)}</details>"
        for words, count, (heads, rows) in (
            ("What else was measured", len(others[0]) - 1, others),
            ("Rows of the paper that were not run", len(not_run[1]), not_run),
        )
        if rows
    )
    return f'<p class="soft unit">Per cent, with 95 % intervals. Grey: as the paper prints it.</p>{_grid(*cells(table))}{folded}'


def _grid(heads: list[Cell], rows: list[list[Cell]]) -> str:
    head = "".join(_cell("th", cell, ' scope="col"') for cell in heads)
    lines = "".join(
        f"<tr>{_cell('th', name, ' scope=row')}{''.join(_cell('td', cell) for cell in others)}</tr>"
        for name, *others in rows
    )
    return f'<div class="wide" tabindex="0"><table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table></div>'


def _cell(tag: str, cell: Cell, more: str = "") -> str:
    under = f"<small>{escape(cell.under)}</small>" if cell.under else ""
    return f"<{tag}{more}{' class=printed' * cell.printed}>{escape(cell.text)}{under}</{tag}>"


# ---- claims


def _claims(verdicts: list[Verdict]) -> str:
    if not verdicts:
        return ""
    ends = [
        abs(end)
        for verdict in verdicts
        if verdict.interval
        for end in (*verdict.interval, verdict.claim.within or 0)
    ]
    lines = "".join(_claim(verdict, max(ends, default=0)) for verdict in verdicts)
    return f'<h3>What the paper claims, tested on these runs</h3><ul class="claims">{lines}</ul>'


def _claim(verdict: Verdict, most: float) -> str:
    return (
        f'<li><span class="verdict {verdict.word.replace(" ", "-")}">{SIGNS[verdict.word]} {verdict.word}</span>'
        f"<div><p>{escape(verdict.claim.text)}</p><small>{escape(compared(verdict))}: {escape(outcome(verdict))}</small></div>"
        f"{_drawn(verdict, most) if verdict.interval else ''}</li>"
    )


def _drawn(verdict: Verdict, most: float) -> str:
    """The interval of a difference on an axis from -most to most, with zero, and the band that "within" allows."""

    def x(value: float) -> float:
        return round(96 + 90 * value / (most or 1), 1)

    (low, high), within = verdict.interval, verdict.claim.within
    band = (
        f'<rect x="{x(-within)}" y="2" width="{x(within) - x(-within):.1f}" height="20" fill="#e3f1fa"/>'
        if within
        else ""
    )
    return (
        f'<svg viewBox="0 0 192 24" aria-hidden="true" class="{verdict.word}" style="background:none">{band}'
        f'<path d="M2 12H190" stroke="#d5dae4"/><path d="M96 2V22" stroke="#8b94a5"/>'
        f'<path d="M{x(low)} 12H{x(high)}M{x(low)} 8V16M{x(high)} 8V16" stroke="currentColor" stroke-width="2" fill="none"/>'
        f'<circle cx="{x(verdict.difference)}" cy="12" r="4" fill="currentColor"/></svg>'
    )


# ---- runs and their figures


def _run(run: FinishedRun, row: str, report: Report, pictures: "Pictures | None") -> str:
    facts = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>"
        for name, value in provenance(run, report.shown(run.folder)).items()
    )
    figures = run.result["figures"]
    shown = (
        "".join(pictures.html(run.folder / name) for name in figures)
        if pictures
        else (f"<p>Figures, in the folder: {escape(', '.join(figures))}</p>" if figures else "")
    )
    count = f", {len(figures)} figure{'s' * (len(figures) != 1)}" if figures and pictures else ""
    return f"<details><summary>{escape(row)}, seed {escape(str(run.seed))}{count}</summary><dl>{facts}</dl>{shown}</details>"


class Pictures:
    """What is in the page already: each picture comes once, and no more than PICTURES bytes of all."""

    def __init__(self):
        self.there: dict[str, str] = {}
        self.left = PICTURES

    def html(self, file: Path) -> str:
        """The picture, or a link to the same one further up, or its name where there is no room for it, or no such file."""
        caption = escape(CAPTIONS.get(file.name, file.name))
        if not file.is_file() or file.suffix not in TYPES:
            where = "in the folder" if file.is_file() else "which is no longer in the folder"
            return f"<p>{caption}: {escape(file.name)}, {where}</p>"
        content = file.read_bytes()
        name = "figure-" + hashlib.sha256(content).hexdigest()[:12]
        if name in self.there:
            return f'<p><a href="#{name}">{caption}: the same picture as further up</a></p>'
        if len(content) > self.left:
            return f"<p>{caption}: {escape(file.name)}, in the folder; this page is full</p>"
        self.there[name], self.left = caption, self.left - len(content)
        data = base64.b64encode(content).decode()
        return (
            f'<figure id="{name}"><figcaption>{caption}</figcaption>'
            f'<img alt="{caption}" loading="lazy" src="data:{TYPES[file.suffix]};base64,{data}"></figure>'
        )
