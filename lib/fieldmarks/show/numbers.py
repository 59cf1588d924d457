"""Numbers as colours: attributes, codes, concepts, a row of them for each image or view."""

from collections.abc import Sequence

import numpy as np
from matplotlib.colors import Normalize

from fieldmarks.show.maps import HEAT
from fieldmarks.show.picture import Picture, as_array, check_something
from fieldmarks.show.style import HAIRLINE, INK, MARGIN, MUTED, SMALL, WIDTH

ROW, LABEL, BAR = 0.16, 1.9, 0.85  # inches: of a row, of names beside it, of the colour bar


def strips(
    panels: Sequence[tuple], legend: str = "", signed: bool = False, limits: tuple | None = None
) -> Picture:
    """Tables of numbers, one below the other, each number a coloured cell, in one scale of colours.

    A panel is (title, values (r, c), label): label says what its columns are; a fourth item is r
    names of its rows. signed: blue below 0, red above, white at 0. limits: what the scale runs from
    and to; None: from the smallest value to the largest. ValueError: nothing to show, or as many
    names as rows are not given."""
    check_something(panels, "table of numbers")
    tables = [as_array(values).astype(float) for _, values, *_ in panels]
    for (title, *_), table in zip(panels, tables, strict=True):
        if table.ndim != 2 or not table.size:
            raise ValueError(f'"{title}" must be a table (rows, columns), got {table.shape}')
    low, high = limits or (min(map(np.nanmin, tables)), max(map(np.nanmax, tables)))
    if signed:
        high = max(abs(low), abs(high)) or 1.0
        low = -high
    scale = Normalize(low, high if high > low else low + 1)
    heights = [max(ROW * len(table), 0.3) for table in tables]
    for place, (_, _, _, *names) in enumerate(panels):
        if not names:
            heights[place] = min(heights[place], 1.6)
    head, foot = 0.24, 0.34
    total = sum(heights) + len(tables) * (head + foot)
    figure = Picture(2 * MARGIN + total, photographs=False)
    top, width = MARGIN, WIDTH - 2 * MARGIN - LABEL - BAR
    for (title, _, label, *names), table, height in zip(panels, tables, heights, strict=True):
        rows, columns = table.shape
        figure.write(MARGIN + LABEL, top, title, va="top", weight="bold")
        top += head
        axes = figure.box(MARGIN + LABEL, top, width, height)
        axes.set_facecolor(HAIRLINE)  # of what is not known
        colours = axes.imshow(
            np.ma.masked_invalid(table), "RdBu_r" if signed else HEAT, scale,
            aspect="auto", interpolation="nearest", extent=(0.5, columns + 0.5, rows + 0.5, 0.5),
        )  # fmt: skip
        axes.set(yticks=[])
        axes.set_xlabel(label, size=SMALL, color=MUTED, labelpad=1)
        axes.tick_params(labelsize=SMALL, colors=MUTED, length=2, pad=1)
        axes.locator_params(axis="x", integer=True)
        axes.spines[:].set_color(HAIRLINE)
        if names and len(names[0]) != rows:
            raise ValueError(f'"{title}" has {rows} rows but {len(names[0])} names')
        for row, name in enumerate(names[0] if names else ()):
            place = {"ha": "right", "va": "center", "size": SMALL, "color": INK}
            y = top + (row + 0.5) * height / rows
            figure.write(MARGIN + LABEL - 0.08, y, name, **place, room=LABEL - 0.1)
        top += height + foot
    bar = (WIDTH - MARGIN - BAR + 0.15, MARGIN + head, 0.12, min(total - head - foot, 2.5))
    ends = np.unique([low, high])
    only_ends = all(np.isin(table[np.isfinite(table)], ends).all() for table in tables)
    figure.colour_bar(bar, colours, legend, ends if only_ends else None)
    return figure
