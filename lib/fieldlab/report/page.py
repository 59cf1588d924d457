"""A report as one HTML file that needs no other and no network: its pictures are inside.

The text is that of the report's Markdown, by nbconvert's own converter; claims have their intervals
drawn.
"""

import hashlib
import io
import re
from html import escape, unescape
from pathlib import Path
from urllib.parse import unquote

from mistune import create_markdown
from PIL import Image

from fieldlab.cards.claims import NOT_TESTED, Verdict
from fieldlab.page import data_uri, document
from fieldlab.report.markdown import (
    about,
    details_as_markdown,
    leading_as_markdown,
    table_as_markdown,
)
from fieldlab.report.wording import SIGNS, Part, Report, basis, counted, difference, heading, tally

PICTURES = 7 * 2**20  # bytes; what comes after that is named and stays in its folder
to_html = create_markdown(escape=False, plugins=["table"])
# WebP takes half of what JPEG does; charts, which are PNG, stay as they are to the pixel.
ENCODING = {".png": {"lossless": True}, ".jpg": {"quality": 80}, ".jpeg": {"quality": 80}}


def as_page(report: Report) -> str:
    """All of it."""
    pictures, contents, sections = Pictures(report.folder), "", []
    for number, part in enumerate(report.parts, start=1):
        title, summary = escape(heading(part.table)), counted(len(part.table.runs), "run")
        summary += f"; claims: {tally(part.verdicts)}" * bool(part.verdicts)
        contents += f'<li><a href="#table-{number}">{title}</a> <small>{summary}</small></li>'
        table = pictures.inside(_table(part, leading_as_markdown(part, report.folder)))
        sections.append(table + _claims(part.verdicts))
    for number, part in enumerate(report.parts):  # after all leading pictures, if there is room
        details = _wide(to_html(details_as_markdown(part, report, report.folder)))
        sections[number] += pictures.inside(details)
    text = "".join(
        f'<section id="table-{n}">{each}</section>\n' for n, each in enumerate(sections, 1)
    )
    title, nav = "Fieldmarks report", f"<nav><ul>{contents}</ul></nav>"
    body = f"<h1>{title}</h1>{to_html(about(report))}{nav}\n{text}"
    return document(title, Path(__file__).with_suffix(".css"), body)


def _table(part: Part, lead: str) -> str:
    text = to_html(table_as_markdown(part, lead))
    if part.setting.is_papers:
        text = text.replace("<blockquote>", '<blockquote class="same">', 1)
    return _wide(text)


def _wide(text: str) -> str:
    text = re.sub(r"(<tr>\s*)<td>(.*?)</td>", r'\1<th scope="row">\2</th>', text)
    text = text.replace("<table>", '<div class="wide" tabindex="0"><table>')
    return text.replace("</table>", "</table></div>")


def _claims(verdicts: list[Verdict]) -> str:
    if not verdicts:
        return ""
    drawn = [verdict for verdict in verdicts if verdict.interval]
    ends = [abs(end) for v in drawn for end in (*v.interval, v.claim.within or 0)]
    tested, others = (
        "".join(_claim(v, max(ends, default=0)) for v in verdicts if (v.word == NOT_TESTED) == way)
        for way in (False, True)
    )
    if others:
        title = counted(sum(v.word == NOT_TESTED for v in verdicts), "claim") + " not tested here"
        others = f'<details><summary>{title}</summary><ul class="claims">{others}</ul></details>'
    if tested:
        title = "What the paper claims, tested on these runs"
        tested = f'<h3>{title}</h3><ul class="claims">{tested}</ul>'
    return tested + others


def _claim(verdict: Verdict, most: float) -> str:
    word, found = verdict.word, difference(verdict)
    return (
        f'<li><span class="verdict {word.replace(" ", "-")}">{SIGNS[word]} {word}</span>'
        f"<details><summary>{escape(verdict.claim.text)} <small>{escape(found)}</small></summary>"
        f"<small>{escape(basis(verdict))}</small></details>"
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


class Pictures:
    """Puts pictures into a page, each once, and no more than PICTURES bytes of all.

    Args:
        folder: that their links are relative to.
    """

    def __init__(self, folder: Path):
        self.folder, self.left, self.there = folder, PICTURES, set()

    def inside(self, text: str) -> str:
        """HTML with a picture in place of each link to one."""
        text = re.sub(r"<p>((?:<img [^>]*>\s*)+)</p>", r'<div class="figures">\1</div>', text)
        return re.sub(r'<img src="([^"]*)" alt="([^"]*)" ?/>', self._figure, text)

    def _figure(self, link: re.Match) -> str:
        """A picture, or a link to the same one further up, or its name and why it is absent."""
        file, title = self.folder / unquote(unescape(link[1])), link[2]
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
