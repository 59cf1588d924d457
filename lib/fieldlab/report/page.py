"""A report as one HTML file that needs no other and no network: its pictures are inside."""

import hashlib
import io
from html import escape
from pathlib import Path

import pandas as pd
from PIL import Image

from fieldlab.cards.claims import Verdict
from fieldlab.cards.finished import FinishedRun
from fieldlab.page import data_uri, document
from fieldlab.report.report import Part, Report
from fieldlab.report.tables import Row
from fieldlab.report.wording import (
    SIGNS,
    Cell,
    Grid,
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
    tally,
)

PICTURES = 10 * 2**20  # bytes; what comes after that is named and stays in its folder
# WebP takes half of what JPEG does; charts, which are PNG, stay as they are to the pixel.
ENCODING = {".png": {"lossless": True}, ".jpg": {"quality": 80}, ".jpeg": {"quality": 80}}


def as_page(report: Report) -> str:
    """The whole page."""
    pictures, parts = Pictures(), list(enumerate(report.parts, start=1))
    runs = counted(len(report.runs), "finished run")
    above = f"{runs} below {escape(report.folder.absolute().name)}. All figures in per cent;"
    contents = "".join(
        f'<li><a href="#table-{number}">{escape(heading(part.table))}</a> '
        f"<small>{_summary(part)}</small></li>"
        for number, part in parts
    )
    sections = [_section(number, part, report, pictures) for number, part in parts]
    return document(
        "Fieldmarks report",
        Path(__file__).with_suffix(".css"),
        f'<h1>Fieldmarks report</h1><p class="soft">{above} intervals are 95 %.</p>'
        f"<nav><ul>{contents}</ul></nav>\n{''.join(sections)}",
    )


def _summary(part: Part) -> str:
    claims = f"; claims: {tally(part.verdicts)}" if part.verdicts else ""
    return counted(len(part.table.runs), "run") + claims


def _section(number: int, part: Part, report: Report, pictures: "Pictures") -> str:
    table = part.table
    others, not_run = other_cells(table), cells_not_run(table)
    folded = _folded(f"What else was measured: {len(others[0]) - 1}", others)
    folded += _folded(f"Rows of the paper that were not run: {len(not_run[1])}", not_run)
    if earlier := ", ".join(report.shown(run.folder) for run in table.superseded):
        why = "Not counted, for a later run has the same parameters and seed"
        folded += f'<p class="soft">{why}: {escape(earlier)}</p>'
    unit = "Per cent, with 95 % intervals. Grey: as the paper prints it."
    return (
        f'<section id="table-{number}"><h2>{escape(heading(table))}</h2>{_setting(part)}'
        f'<p class="soft unit">{unit}</p>{_grid(*cells(table))}{folded}{_claims(part.verdicts)}'
        f"<h3>Runs</h3>{''.join(_row(row, report, pictures) for row in table.rows)}</section>\n"
    )


def _setting(part: Part) -> str:
    setting = part.setting
    listed = "".join(
        f"<dt>{escape(section)}</dt><dd>{'; '.join(_differs(*each) for each in differences)}</dd>"
        for section, differences in setting.differences.items()
    )
    note = escape(f"The card on the paper's setting: {setting.note}")
    return (
        f'<div class="setting{" same" * setting.is_papers}">'
        f"<p><strong>{escape(how_to_read(setting, part.table))}</strong></p>"
        + f"<dl>{listed}</dl>" * bool(listed)
        + f'<p class="soft">{note}</p>' * bool(setting.note)
        + f"</div>{''.join(f'<p>{escape(fact)}</p>' for fact in setting.facts)}"
    )


def _differs(name: str, here: str, paper: str) -> str:
    return f"<b>{escape(name)}</b> {escape(here)} <i>(paper: {escape(paper)})</i>"


def _grid(heads: list[Cell], rows: list[list[Cell]]) -> str:
    name, *columns = map(_cell, heads)
    names, *values = zip(*(map(_cell, row) for row in rows), strict=True)
    frame = pd.DataFrame(dict(enumerate(values)), names)
    frame.columns = pd.Index(columns, name=name)
    with pd.option_context("display.max_colwidth", None):
        return f'<div class="wide" tabindex="0">{frame.to_html(escape=False, border=0)}</div>'


def _cell(cell: Cell) -> str:
    under = f"<small>{escape(cell.under)}</small>" if cell.under else ""
    text = escape(cell.text) + under
    return f'<span class="printed">{text}</span>' if cell.printed else text


def _folded(title: str, grid: Grid) -> str:
    table = _grid(*grid) if grid[1] else ""
    return f"<details><summary>{title}</summary>{table}</details>" if table else ""


# ---- claims


def _claims(verdicts: list[Verdict]) -> str:
    if not verdicts:
        return ""
    tested = [verdict for verdict in verdicts if verdict.interval]
    ends = [abs(end) for v in tested for end in (*v.interval, v.claim.within or 0)]
    lines = "".join(_claim(verdict, max(ends, default=0)) for verdict in verdicts)
    title = "What the paper claims, tested on these runs"
    return f'<h3>{title}</h3><ul class="claims">{lines}</ul>'


def _claim(verdict: Verdict, most: float) -> str:
    word, basis = verdict.word, f"{compared(verdict)}: {outcome(verdict)}"
    return (
        f'<li><span class="verdict {word.replace(" ", "-")}">{SIGNS[word]} {word}</span>'
        f"<div><p>{escape(verdict.claim.text)}</p><small>{escape(basis)}</small></div>"
        f"{_drawn(verdict, most) if verdict.interval else ''}</li>"
    )


def _drawn(verdict: Verdict, most: float) -> str:
    """The interval of a difference on an axis from -most to most, and the band "within"."""

    def x(value: float) -> float:
        return round(96 + 90 * value / (most or 1), 1)

    (low, high), within = map(x, verdict.interval), verdict.claim.within
    left, right = x(-(within or 0)), x(within or 0)
    return (
        f'<svg viewBox="0 0 192 24" aria-hidden="true" class="{verdict.word}">'
        f'<rect x="{left}" y="2" width="{right - left:.1f}" height="20" fill="#e3f1fa"/>'
        '<path d="M2 12H190" stroke="#d5dae4"/><path d="M96 2V22" stroke="#8b94a5"/>'
        f'<path d="M{low} 12H{high}M{low} 8V16M{high} 8V16" class="ends"/>'
        f'<circle cx="{x(verdict.difference)}" cy="12" r="4" fill="currentColor"/></svg>'
    )


# ---- runs and their figures


def _row(row: Row, report: Report, pictures: "Pictures") -> str:
    """The runs of a row: where their numbers come from, and the figures of the first."""
    if not row.runs:
        return ""
    figures = "".join(pictures.html(row.runs[0].folder / n) for n in row.runs[0].result["figures"])
    runs = "".join(_run(run, report, number > 0) for number, run in enumerate(row.runs))
    return f'<h4>{escape(row.title)}</h4>{runs}<div class="figures">{figures}</div>'


def _run(run: FinishedRun, report: Report, name_figures: bool) -> str:
    facts = provenance(run, report.shown(run.folder))
    if name_figures and run.result["figures"]:
        facts["figures, in the folder"] = ", ".join(run.result["figures"])
    listed = "".join(f"<dt>{escape(n)}</dt><dd>{escape(fact)}</dd>" for n, fact in facts.items())
    title = f"Seed {escape(str(run.seed))}: where its numbers come from"
    return f"<details><summary>{title}</summary><dl>{listed}</dl></details>"


class Pictures:
    """What is in the page already: each picture once, and no more than PICTURES bytes of all."""

    def __init__(self):
        self.there: set[str] = set()
        self.left = PICTURES

    def html(self, file: Path) -> str:
        """The picture, or a link to the same one further up, or its name and why it is absent."""
        title = escape(caption(file.name))
        try:
            content = file.read_bytes()
            name = "figure-" + hashlib.sha256(content).hexdigest()[:12]
            if name in self.there:
                return f'<p><a href="#{name}">{title}: the same picture as further up</a></p>'
            picture = Image.open(io.BytesIO(content))
            width, height = picture.size
            source = data_uri(picture, "webp", method=2, **ENCODING[file.suffix])
        except FileNotFoundError:
            return f"<p>{title}: {escape(file.name)}, which is no longer in the folder</p>"
        except (OSError, KeyError):  # damaged, or no picture
            return f"<p>{title}: {escape(file.name)}, in the folder</p>"
        if len(source) > self.left:
            return f"<p>{title}: {escape(file.name)}, in the folder; this page is full</p>"
        self.there.add(name)
        self.left -= len(source)
        size = f'width="{width}" height="{height}"'
        return (
            f'<figure id="{name}"><figcaption>{title}</figcaption>'
            f'<img alt="{title}" {size} loading="lazy" src="{source}"></figure>'
        )
