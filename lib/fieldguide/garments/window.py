"""A shop window: garments of each category side by side, as one picture."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fieldguide.garments.attributes import Garment, make_garments
from fieldguide.garments.shots import PAPER, photograph

INK, FADED_INK, RULE = (52, 48, 46), (146, 138, 130), (214, 208, 200)
DESIGN_WIDTH = 1500  # the measures below are pixels of a window this wide
MARGIN, HEADER, CAPTION, GAP = 40, 40, 52, 10
ROWS = {
    "tops": "Tops",
    "outerwear": "Outerwear",
    "all-body": "Dresses",
    "bottoms": "Bottoms",
    "shoes": "Shoes",
    "bags": "Bags",
}


def draw_window(
    items: int = 600,
    seed: int = 0,
    columns: int = 7,
    shots: int = 4,
    width: int = DESIGN_WIDTH,
    first: int = 0,
) -> np.ndarray:
    """(height, width, 3) uint8 RGB: a row for each category of that wardrobe, then garments in `shots` pictures each.

    first: how many garments of each category are passed over. Raises ValueError when a category has too few.
    """
    garments = make_garments(items, seed)
    scale = width / DESIGN_WIDTH
    cell = int((width - (2 * MARGIN - GAP) * scale) / columns)
    picture = cell - int(GAP * scale)
    row = picture + int(CAPTION * scale)
    pairs = max(1, columns // shots) if shots > 1 else 0
    last = picture + int(70 * scale) if pairs else 0
    height = int(HEADER * scale) + len(ROWS) * (row + int(34 * scale)) + last + int(20 * scale)
    page = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(page)
    top = int(HEADER * scale)
    shown: list[Garment] = []
    for semantic, title in ROWS.items():
        chosen = _variety([one for one in garments if one.semantic == semantic][first:], columns)
        if len(chosen) < columns:
            raise ValueError(
                f"the wardrobe has too few {title.lower()}, {len(chosen)} instead of {columns}: "
                "ask for fewer columns, or for more items"
            )
        shown.append(chosen[0])
        draw.text((MARGIN * scale, top), title, INK, _font("Serif", 21 * scale))
        line = top + 15 * scale
        draw.line(
            (
                MARGIN * scale + draw.textlength(title, _font("Serif", 21 * scale)) + 14 * scale,
                line,
                width - MARGIN * scale,
                line,
            ),
            RULE,
            max(1, round(scale)),
        )
        for column, one in enumerate(chosen):
            corner = (int(MARGIN * scale) + column * cell, top + int(34 * scale))
            page.paste(Image.fromarray(photograph(one, 0, picture).image), corner)
            _caption(draw, one, (corner[0] + picture / 2, corner[1] + picture + 2 * scale), scale)
        top += row + int(34 * scale)
    if pairs:
        draw.text(
            (MARGIN * scale, top),
            "The same garments in other pictures",
            INK,
            _font("Serif-Italic", 20 * scale),
        )
        views = [(one, shot) for one in shown for shot in range(1, shots)][:columns]
        for column, (one, shot) in enumerate(views):
            view = photograph(one, shot, picture).image
            page.paste(
                Image.fromarray(view), (int(MARGIN * scale) + column * cell, top + int(40 * scale))
            )
    return np.asarray(page)


def _variety(garments: list[Garment], count: int) -> list[Garment]:
    """The first of each kind and colour, then the others."""
    chosen: list[Garment] = []
    for mark in (lambda one: one.kind, lambda one: (one.kind, one.colour), lambda one: one.number):
        seen = {mark(one) for one in chosen}
        for one in garments:
            if len(chosen) < count and one not in chosen and mark(one) not in seen:
                chosen.append(one)
                seen.add(mark(one))
    return chosen


def _caption(draw, garment: Garment, place, scale: float) -> None:
    words = [
        garment.colour,
        garment.pattern if garment.pattern != "plain" else "",
        garment.material,
    ]
    first = " ".join(word for word in words if word)
    rest = [garment.kind, garment.style, *garment.details[:1]]
    draw.text(place, first, INK, _font("Serif", 13 * scale), anchor="ma")
    draw.text(
        (place[0], place[1] + 18 * scale),
        ", ".join(rest),
        FADED_INK,
        _font("Serif-Italic", 12 * scale),
        anchor="ma",
    )


@cache
def _font(style: str, size: float) -> ImageFont.FreeTypeFont:
    """matplotlib's own DejaVu fonts: they are there wherever matplotlib is."""
    fonts = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    return ImageFont.truetype(fonts / f"DejaVu{style}.ttf", max(6, round(size)))
