"""Numbers as figures, to be saved beside the others: scores of methods, and where two ways of answering agree.

As in `galleries`: plain values in, a matplotlib figure out, no pyplot.
"""

from collections.abc import Mapping

from matplotlib.patches import Rectangle

from fieldmarks.show.galleries import (
    INK,
    MARGIN,
    MUTED,
    SMALL,
    TEXT,
    WIDTH,
    Picture,
    _array,
    _axes,
    _figure,
    _shorten,
    _text,
    _wrap,
)
from fieldmarks.show.maps import COLOURS


def score_table(
    methods: Mapping[str, Mapping[str, float]], this: str = "", title: str = ""
) -> Picture:
    """Rows of methods, columns of scores in per cent, the best of each column in bold: methods[name][score] is a fraction.

    Args:
        this: the row to stand out, such as the run at hand.  title: above it all.

    Raises:
        ValueError: no method, or methods without a score.
    """
    columns = list(dict.fromkeys(name for scores in methods.values() for name in scores))
    if not columns:
        raise ValueError("there is nothing to show: give at least one method with a score")
    label, line = 3.2, 0.24
    width = min((WIDTH - 2 * MARGIN - label) / len(columns), 1.15)
    head = 0.26 * bool(title) + 0.36
    figure = _figure(
        2 * MARGIN + head + line * len(methods),
        max(2 * MARGIN + label + width * len(columns), 5.0),
        photographs=False,
    )
    if title:
        _text(figure, MARGIN, MARGIN, title, weight="bold", va="top", size=TEXT + 1)
    for place, column in enumerate(columns):
        _text(
            figure,
            MARGIN + label + (place + 0.9) * width,
            MARGIN + head - 0.08,
            _wrap(column, width, SMALL + 0.5, lines=2),
            size=SMALL + 0.5,
            color=MUTED,
            ha="right",
            va="bottom",
        )
    best = {
        column: max(scores[column] for scores in methods.values() if column in scores)
        for column in columns
    }
    for row, (name, scores) in enumerate(methods.items()):
        y = MARGIN + head + (row + 0.5) * line
        if name == this:
            axes = _axes(figure, MARGIN / 2, y - line / 2, figure.get_figwidth() - MARGIN, line)
            axes.set_axis_off()
            axes.add_patch(Rectangle((0, 0), 1, 1, transform=axes.transAxes, color="#eef2f8", lw=0))
        _text(
            figure,
            MARGIN,
            y,
            _shorten(name, label, TEXT),
            va="center_baseline",
            weight="bold" if name == this else "normal",
        )
        for place, column in enumerate(columns):
            value = scores.get(column)
            text = "\u2013" if value is None else f"{100 * value:.1f}"
            _text(
                figure,
                MARGIN + label + (place + 0.9) * width,
                y,
                text,
                ha="right",
                va="center_baseline",
                weight="bold" if value == best[column] else "normal",
            )
    return figure


def agreement(panels: Mapping[str, tuple], first: str, second: str) -> Picture:
    """Questions by whether two ways of answering got them right: four fields a panel, the fuller the darker.

    Args:
        panels: title -> (right of the first, right of the second), (Q,) bool each.
        first, second: what the two ways are; the first makes the rows.

    Raises:
        ValueError: no panel, or two ways that have not answered the same questions.
    """
    if not panels:
        raise ValueError("there is nothing to show: give at least one panel")
    side, label, head = 0.85, 1.0, 0.75
    wide = label + 2 * side + 0.5
    figure = _figure(
        2 * MARGIN + head + 2 * side, 2 * MARGIN + len(panels) * wide, photographs=False
    )
    small = {"size": SMALL + 0.5}
    for number, (title, ways) in enumerate(panels.items()):
        rows, columns = (_array(way).astype(bool) for way in ways)
        if rows.shape != columns.shape or rows.ndim != 1 or len(rows) == 0:
            raise ValueError(
                f"{title}: both ways must have answered the same questions, got {rows.shape} and {columns.shape}"
            )
        left = MARGIN + number * wide
        _text(figure, left, MARGIN, title, weight="bold", va="top", size=TEXT + 1)
        _text(
            figure,
            left + label + side,
            MARGIN + 0.32,
            second,
            ha="center",
            va="top",
            color=MUTED,
            **small,
        )
        for place, word in enumerate(("right", "wrong")):
            _text(
                figure,
                left + label + (place + 0.5) * side,
                MARGIN + head - 0.08,
                word,
                ha="center",
                va="baseline",
                **small,
            )
            row = MARGIN + head + (place + 0.5) * side
            _text(
                figure,
                left + label - 0.08,
                row,
                f"{first}\n{word}",
                ha="right",
                va="center",
                **small,
            )
            for column in range(2):
                count = int(((rows == (place == 0)) & (columns == (column == 0))).sum())
                share = count / len(rows)
                axes = _axes(
                    figure,
                    left + label + column * side,
                    MARGIN + head + place * side,
                    side - 0.03,
                    side - 0.03,
                )
                axes.set_axis_off()
                axes.add_patch(
                    Rectangle((0, 0), 1, 1, color=COLOURS[0], alpha=0.08 + 0.8 * share, lw=0)
                )
                middle = {"ha": "center", "va": "center", "color": "white" if share > 0.55 else INK}
                axes.text(0.5, 0.56, f"{100 * share:.0f} %", size=TEXT + 2, weight="bold", **middle)
                axes.text(0.5, 0.27, f"{count:,}", size=SMALL, **middle)
    return figure
