"""The answer to a search as a page: a single HTML file with the query and what was found, for any browser, without network."""

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from fieldmarks.files import atomic
from PIL import Image

STYLE = """
:root { color-scheme: light } body { font: 16px/1.4 system-ui, sans-serif; color: #1d2433; max-width: 70rem; margin: 1.5rem auto; padding: 0 1rem }
h1 { font-size: 1.4rem } p, small { color: #4a5568 } small { overflow-wrap: anywhere; display: block }
header { display: flex; flex-wrap: wrap; gap: 1rem 2rem; align-items: end } .query { width: 14rem }
table { border-collapse: collapse; font-size: .9rem } td { padding: .15rem .5rem .15rem 0; vertical-align: top }
td:first-child { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums }
ol { display: grid; grid-template-columns: repeat(auto-fill, minmax(12rem, 1fr)); gap: 1.4rem 1rem; padding: 0; list-style: none }
img, .gone { width: 100%; height: 11rem; object-fit: contain; background: #f1f3f6; border-radius: 4px; display: block }
.gone { display: grid; place-items: center; text-align: center; margin: 0 }
meter { width: 100%; height: .55rem; display: block } .why { font-size: .8rem; margin: .4rem 0 0 }
.why span { display: flex; justify-content: space-between; gap: .5rem }
"""


class Found(NamedTuple):
    """A picture that was found.

    Attributes:
        pixels: (H, W, 3) uint8; None for a picture that is gone.
        score: in words.
        reason: similarity, 0 .. 1, and the concepts that contribute most to it, (name, contribution); None without one.
    """

    pixels: np.ndarray | None
    name: str
    score: str
    reason: tuple[float, Sequence[tuple[str, float]]] | None = None


def write_page(
    page: Path,
    query: tuple[np.ndarray, str],
    found: Sequence[Found],
    stages: Sequence[tuple[str, float]],
) -> Path:
    """Write the page; returns its path.

    Args:
        query: its pixels (H, W, 3) uint8 and name.
        found: best first.
        stages: what was done, in words, and how many seconds it took.
    """
    longest = max((value for one in found if one.reason for _, value in one.reason[1]), default=1.0)
    items = "".join(
        f"<li>{_picture(one.pixels, one.name)}<b>{number}</b> {html.escape(one.score)}<small>{html.escape(one.name)}</small>"
        f"{_why(one.reason, longest)}</li>"
        for number, one in enumerate(found, start=1)
    )
    rows = "".join(
        f"<tr><td>{1000 * seconds:.0f} ms</td><td>{html.escape(words)}</td></tr>"
        for words, seconds in stages
    )
    note = ""
    if any(one.reason for one in found):
        note = (
            "<p>Under each picture: how similar the two are, from 0 to 1, and the concepts that add most to it. "
            "A bar is what a concept adds; all bars have one scale.</p>"
        )
    text = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>Pictures like {html.escape(query[1])}</title><style>{STYLE}</style></head><body><h1>Pictures like this one</h1>"
        f'<header><div class="query">{_picture(*query)}<small>{html.escape(query[1])}</small></div><table>{rows}</table></header>'
        f"{note}<ol>{items}</ol></body></html>"
    )
    with atomic(page) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return Path(page)


def _picture(pixels: np.ndarray | None, name: str) -> str:
    if pixels is None:
        return '<p class="gone">moved or removed since it was indexed</p>'
    with io.BytesIO() as stream:
        Image.fromarray(pixels).save(stream, "JPEG", quality=85)
        data = base64.b64encode(stream.getvalue()).decode()
    return f'<img alt="{html.escape(name)}" src="data:image/jpeg;base64,{data}">'


def _why(reason: tuple[float, Sequence[tuple[str, float]]] | None, longest: float) -> str:
    if reason is None:
        return ""
    similarity, concepts = reason
    bars = "".join(
        f'<span><span>{html.escape(name)}</span>{value:.2f}</span><meter max="{longest:.4g}" value="{value:.4g}"></meter>'
        for name, value in concepts
        if value >= 0.005
    )  # less is written as 0.00
    return f'<div class="why">similarity {similarity:.2f}{bars}</div>'
