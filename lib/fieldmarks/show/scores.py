"""Scores with intervals, side by side."""

from collections.abc import Collection, Mapping, Sequence

from fieldmarks.show.picture import Picture, bar_axes
from fieldmarks.show.style import COLOURS, INK, MARGIN, MUTED, SMALL, TEXT, WIDTH

ROW, LABEL = 0.24, 1.9  # inches: of a row, and of the names beside it


def interval_dots(
    panels: Mapping[str, Mapping[str, Sequence[float]]],
    references: Collection[str] = (),
    against: str = "",
) -> Picture:
    """A dot and its interval for each name, best first by the first panel; a panel for each score.

    panels: title -> name -> (mean, low, high); a name may be absent from some.  references: names
    that stand below a line, in grey; against: one of them, whose mean is drawn through all rows."""
    names = list(dict.fromkeys(name for panel in panels.values() for name in panel))
    if not names:
        raise ValueError("there is no score to draw")
    first = next(iter(panels.values()))
    names.sort(key=lambda name: (name in references, -first[name][0] if name in first else 0))
    own = sum(name not in references for name in names)
    figure = Picture(2 * MARGIN + 0.75 + len(names) * ROW, photographs=False)
    top, width = MARGIN + 0.25, (WIDTH - 2 * MARGIN - LABEL) / len(panels)
    for row, name in enumerate(names):
        colour = MUTED if name in references else INK
        place = {"ha": "right", "va": "center", "color": colour, "room": LABEL - 0.1}
        figure.write(MARGIN + LABEL - 0.1, top + (row + 0.5) * ROW, name, **place)
    for number, (title, panel) in enumerate(panels.items()):
        left = MARGIN + LABEL + number * width + 0.1
        axes = figure.box(left, top, width - 0.3, len(names) * ROW)
        for row, name in enumerate(names):
            if name not in panel:
                axes.text(0.5, row, "none", size=SMALL, color=MUTED, va="center", ha="center",
                          transform=axes.get_yaxis_transform())  # fmt: skip
                continue
            mean, low, high = panel[name]
            colour = MUTED if name in references else COLOURS[0]
            axes.plot((low, high), (row, row), color=colour, lw=1.6, solid_capstyle="round")
            axes.plot(mean, row, marker="o", ms=4.5, color=colour)
        if against in panel:
            axes.axvline(panel[against][0], color=MUTED, lw=0.8, ls=(0, (3, 2)))
        if 0 < own < len(names):
            axes.axhline(own - 0.5, color=MUTED, lw=0.6)
        bar_axes(axes, len(names), "")
        middle = left + (width - 0.3) / 2
        figure.write(middle, top - 0.1, title, ha="center", va="center", weight="bold", size=TEXT)
    note = "mean and 95 % interval over pictures" + f"; dashed: {against}" * bool(against)
    figure.note(MARGIN + LABEL + 0.1, top + len(names) * ROW + 0.42, note, va="center")
    return figure
