"""The answer to a search as a page: a single HTML file with the query and what was found, for any browser, without network."""
import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ..files import written_whole

STYLE = """
:root { color-scheme: light } body { font: 16px/1.4 system-ui, sans-serif; color: #1d2433; max-width: 70rem; margin: 1.5rem auto; padding: 0 1rem }
h1 { font-size: 1.4rem } p { color: #4a5568 }
ol { display: grid; grid-template-columns: repeat(auto-fill, minmax(10rem, 1fr)); gap: 1rem; padding: 0; list-style: none }
img { width: 100%; height: 11rem; object-fit: contain; background: #f1f3f6; border-radius: 4px; display: block }
.query { max-width: 14rem } small { color: #666e7b; overflow-wrap: anywhere; display: block }
"""


def write_page(page: Path, query: tuple[np.ndarray, str], found: Sequence[tuple[np.ndarray | None, str, str]], note: str) -> Path:
    """Write the page; returns its path.

    Args:
        query: its pixels (H, W, 3) uint8 and name.
        found: best first: pixels, or None for a picture that is gone, name, and score in words.
        note: how it was found.
    """
    items = "".join(
        f"<li>{_picture(pixels, name)}<b>{number}</b> {html.escape(score)}<small>{html.escape(name)}</small></li>"
        for number, (pixels, name, score) in enumerate(found, start=1))
    text = (f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
            f"<title>Pictures like {html.escape(query[1])}</title><style>{STYLE}</style></head><body><h1>Pictures like this one</h1>"
            f'<div class="query">{_picture(*query)}<small>{html.escape(query[1])}</small></div><p>{html.escape(note)}</p><ol>{items}</ol></body></html>')
    with written_whole(page) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return Path(page)


def _picture(pixels: np.ndarray | None, name: str) -> str:
    if pixels is None:
        return "<p>this picture has been moved or removed since it was indexed</p>"
    with io.BytesIO() as stream:
        Image.fromarray(pixels).save(stream, "JPEG", quality=85)
        data = base64.b64encode(stream.getvalue()).decode()
    return f'<img alt="{html.escape(name)}" src="data:image/jpeg;base64,{data}">'
