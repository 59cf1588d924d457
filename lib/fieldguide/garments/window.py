"""A shop window: garments of each category side by side, as one picture."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from fieldguide.checks import whole_numbers
from fieldguide.garments.attributes import Garment, make_garments
from fieldguide.garments.shots import PAPER, photograph
from fieldguide.pictures import SMALLEST, font

INK, FADED_INK, RULE = (52, 48, 46), (108, 100, 92), (214, 208, 200)
DESIGN_WIDTH, DESIGN_COLUMNS = 1500, 7  # the measures below are pixels of such a window
MARGIN, HEADER, CAPTION, GAP = 40, 40, 60, 10
HEADING, NAME, SMALL = 24, 17, 15  # sizes of letters
LOWEST = {"items": 1, "seed": 0, "columns": 1, "shots": 1, "width": 1, "first": 0}
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
    """A shop window of a wardrobe: (height, width, 3) uint8 RGB.

    A row of `columns` garments for each category of that wardrobe, then some of them in their other
    `shots`. first: how many garments of each category are passed over; width: pixels.

    Raises ValueError for parameters out of range, and when a category has too few garments.
    """
    whole_numbers(locals(), LOWEST)
    garments = make_garments(items, seed)
    scale = width / DESIGN_WIDTH * min(max(1.0, DESIGN_COLUMNS / columns), 2.5)
    cell = int((width - (2 * MARGIN - GAP) * scale) / columns)
    picture = cell - int(GAP * scale)
    if picture < SMALLEST:
        raise ValueError(
            f"a window {width} pixels wide has no room for {columns} columns: ask for a wider one, "
            "or for fewer columns"
        )
    left, heading, row = int(MARGIN * scale), int(34 * scale), picture + int(CAPTION * scale)
    last = picture + int(46 * scale) if shots > 1 else 0
    height = int(HEADER * scale) + len(ROWS) * (row + heading) + last + int(20 * scale)
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
        letters = font(HEADING * scale)
        draw.text((left, top + 20 * scale), title, INK, letters, anchor="ls")
        start, line = left + draw.textlength(title, letters) + 14 * scale, top + 13 * scale
        draw.line((start, line, width - left, line), RULE, max(1, round(scale)))
        for column, one in enumerate(chosen):
            corner = (left + column * cell, top + heading)
            page.paste(Image.fromarray(photograph(one, 0, picture).image), corner)
            _caption(draw, one, corner, picture, scale)
        top += row + heading
    if shots > 1:
        title = "The same garments in other pictures"
        draw.text((left, top + 20 * scale), title, INK, font(HEADING * scale), anchor="ls")
        views = [(one, shot) for one in shown for shot in range(1, shots)][:columns]
        for column, (one, shot) in enumerate(views):
            view = Image.fromarray(photograph(one, shot, picture).image)
            page.paste(view, (left + column * cell, top + int(36 * scale)))
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


def _caption(draw, garment: Garment, corner: tuple[int, int], picture: int, scale: float) -> None:
    """Two lines below a picture, without what does not fit in its width."""
    middle, below = corner[0] + picture / 2, corner[1] + picture
    for parts, separator, ink, size, down in (
        (garment.cloth().split(), " ", INK, NAME, 18),
        ([garment.kind, garment.style, *garment.details[:1]], ", ", FADED_INK, SMALL, 38),
    ):
        letters = font(size * scale)
        while len(parts) > 1 and draw.textlength(separator.join(parts), letters) > picture:
            parts = parts[:-1]
        place = (middle, below + down * scale)
        draw.text(place, separator.join(parts), ink, letters, anchor="ms")
