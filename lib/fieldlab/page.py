"""The answer to a search as a page: one HTML file with the query and what was found, for any
browser, without network."""

import base64
import io
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from fieldmarks.files import atomic

BARS = """<p>Under each picture: how similar the two are, from 0 to 1, and the concepts that add
most to it. A bar is what a concept adds; all bars have one scale.</p>"""


def document(title: str, style: Path, body: str) -> str:
    """A page with its style sheet inside."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{style.read_text(encoding='utf-8')}</style></head>"
        f"<body>\n{body}</body></html>\n"
    )


def data_uri(image: Image.Image, kind: str = "jpeg", **options) -> str:
    """A picture as it stands in a page; options are Pillow's."""
    with io.BytesIO() as stream:
        image.save(stream, kind, **options)
        return f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode()}"


class Found(NamedTuple):
    """A picture that was found.

    Attributes:
        pixels: (H, W, 3) uint8; None for a picture that is gone.
        score: in words.
        reason: similarity, 0 .. 1, and the concepts that contribute most to it, (name,
            contribution); None without one.
    """

    pixels: np.ndarray | None
    name: str
    score: str
    reason: tuple[float, Sequence[tuple[str, float]]] | None = None


def write_page(
    page: Path,
    query: tuple[np.ndarray, str],
    results: Sequence[Found],
    stages: Sequence[tuple[str, float]],
) -> Path:
    """Write the page; returns its path.

    Args:
        query: its pixels (H, W, 3) uint8 and name.
        results: best first.
        stages: what was done, in words, and how many seconds it took.
    """
    reasons = [one.reason for one in results if one.reason]
    longest = max((value for _, concepts in reasons for _, value in concepts), default=1.0)
    items = "".join(
        f"<li>{_picture(one.pixels, one.name)}<b>{number}</b> {escape(one.score)}"
        f"<small>{escape(one.name)}</small>{_why(*one.reason, longest) if one.reason else ''}</li>"
        for number, one in enumerate(results, start=1)
    )
    rows = "".join(
        f"<tr><td>{1000 * seconds:.0f} ms</td><td>{escape(text)}</td></tr>"
        for text, seconds in stages
    )
    text = document(
        f"Pictures like {query[1]}",
        Path(__file__).with_suffix(".css"),
        f'<h1>Pictures like this one</h1><header><div class="query">{_picture(*query)}'
        f"<small>{escape(query[1])}</small></div><table>{rows}</table></header>"
        f"{BARS if reasons else ''}<ol>{items}</ol>",
    )
    with atomic(page) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return Path(page)


def _picture(pixels: np.ndarray | None, name: str) -> str:
    if pixels is None:
        return '<p class="gone">moved or removed since it was indexed</p>'
    source = data_uri(Image.fromarray(pixels), quality=85)
    return f'<img alt="{escape(name)}" src="{source}">'


def _why(similarity: float, concepts: Sequence[tuple[str, float]], longest: float) -> str:
    bars = "".join(
        f"<span><span>{escape(name)}</span>{value:.2f}</span>"
        f'<meter max="{longest:.4g}" value="{value:.4g}"></meter>'
        for name, value in concepts
        if value >= 0.005  # less is written as 0.00
    )
    return f'<div class="why">similarity {similarity:.2f}{bars}</div>'
