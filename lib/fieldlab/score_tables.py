"""Numbers as figures, to be saved beside the others: scores of methods, and whether two ways of
answering agree. As in `galleries`: plain values in, a figure out."""

from collections.abc import Mapping

from matplotlib.patches import Rectangle

from fieldmarks.show.picture import Picture, as_array, check_something
from fieldmarks.show.style import COLOURS, INK, MARGIN, MUTED, SMALL, TEXT, WIDTH

LABEL, ROW, COLUMN = 3.2, 0.24, 1.15  # inches: a row's name, its height, the widest column
SIDE, WAY, HEAD = 0.85, 1.0, 0.75  # inches: a field of `agreement`, the names beside and above
LETTERS = SMALL + 0.5
HEADING = {"va": "top", "weight": "bold", "size": TEXT + 1}


def score_table(
    methods: Mapping[str, Mapping[str, float]], this: str = "", title: str = ""
) -> Picture:
    """Rows of methods, columns of scores in per cent, the best of each column in bold.

    Args:
        methods: method -> score -> fraction.
        this: the row to stand out, such as the run at hand.  title: above it all.

    Raises:
        ValueError: no method, or methods without a score.
    """
    columns = list(dict.fromkeys(name for scores in methods.values() for name in scores))
    check_something(columns, "method with a score")
    width = min((WIDTH - 2 * MARGIN - LABEL) / len(columns), COLUMN)
    top = MARGIN + 0.26 * bool(title) + 0.36
    rights = [MARGIN + LABEL + (place + 0.9) * width for place in range(len(columns))]
    figure = Picture(
        top + MARGIN + ROW * len(methods),
        max(2 * MARGIN + LABEL + width * len(columns), 5.0),
        photographs=False,
    )
    if title:
        figure.write(MARGIN, MARGIN, title, **HEADING)
    head = {"size": LETTERS, "color": MUTED, "ha": "right", "va": "bottom"}
    for column, x in zip(columns, rights, strict=True):
        figure.write(x, top - 0.08, column, room=width, lines=2, **head)
    best = {c: max(scores[c] for scores in methods.values() if c in scores) for c in columns}
    for row, (name, scores) in enumerate(methods.items()):
        y = top + (row + 0.5) * ROW
        if name == this:
            axes = figure.box(MARGIN / 2, y - ROW / 2, figure.get_figwidth() - MARGIN, ROW)
            axes.set_axis_off()
            axes.add_patch(Rectangle((0, 0), 1, 1, transform=axes.transAxes, color="#eef2f8", lw=0))
        weight = "bold" if name == this else "normal"
        figure.write(MARGIN, y, name, room=LABEL, va="center_baseline", weight=weight)
        for column, x in zip(columns, rights, strict=True):
            value = scores.get(column)
            text = "\u2013" if value is None else f"{100 * value:.1f}"
            weight = "bold" if value == best[column] else "normal"
            figure.write(x, y, text, ha="right", va="center_baseline", weight=weight)
    return figure


def agreement(panels: Mapping[str, tuple], first: str, second: str) -> Picture:
    """Questions by whether two ways of answering got them right; the fuller a field, the darker.

    Args:
        panels: title -> (right of the first, right of the second), (Q,) bool each.
        first, second: what the two ways are; the first makes the rows.

    Raises:
        ValueError: no panel, or two ways that have not answered the same questions.
    """
    check_something(panels, "panel")
    wide = WAY + 2 * SIDE + 0.5
    size = 2 * MARGIN + HEAD + 2 * SIDE, 2 * MARGIN + len(panels) * wide
    figure = Picture(*size, photographs=False)
    for number, (title, ways) in enumerate(panels.items()):
        rows, columns = (as_array(way).astype(bool) for way in ways)
        if rows.shape != columns.shape or rows.ndim != 1 or len(rows) == 0:
            raise ValueError(
                f"{title}: both ways must have answered the same questions, "
                f"got {rows.shape} and {columns.shape}"
            )
        left = MARGIN + number * wide
        inside, top = left + WAY, MARGIN + HEAD
        figure.write(left, MARGIN, title, **HEADING)
        way = {"ha": "center", "va": "top", "size": LETTERS}
        figure.write(inside + SIDE, MARGIN + 0.32, second, color=MUTED, **way)
        for place, word in enumerate(("right", "wrong")):
            middle = (place + 0.5) * SIDE
            figure.write(inside + middle, top - 0.08, word, size=LETTERS, ha="center")
            beside = {"ha": "right", "va": "center", "size": LETTERS}
            figure.write(inside - 0.08, top + middle, f"{first}\n{word}", **beside)
            for other in range(2):
                count = int(((rows == (place == 0)) & (columns == (other == 0))).sum())
                corner = inside + other * SIDE, top + place * SIDE
                _field(figure, *corner, count, count / len(rows))
    return figure


def _field(figure: Picture, left: float, top: float, count: int, share: float) -> None:
    axes = figure.box(left, top, SIDE - 0.03, SIDE - 0.03)
    axes.set_axis_off()
    axes.add_patch(Rectangle((0, 0), 1, 1, color=COLOURS[0], alpha=0.08 + 0.8 * share, lw=0))
    middle = {"ha": "center", "va": "center", "color": "white" if share > 0.55 else INK}
    axes.text(0.5, 0.56, f"{100 * share:.0f} %", size=TEXT + 2, weight="bold", **middle)
    axes.text(0.5, 0.27, f"{count:,}", size=SMALL, **middle)
