"""Few-shot episodes: a row a class, its supports and what was taken for it.

As in `galleries`: plain arrays or tensors in, a matplotlib figure out, no pyplot.
"""

from collections.abc import Sequence

from fieldmarks.show.galleries import (
    GAP,
    INK,
    MARGIN,
    MUTED,
    NEUTRAL,
    RIGHT,
    SMALL,
    TEXT,
    WIDTH,
    WRONG,
    Picture,
    _array,
    _cell,
    _figure,
    _frame,
    _mark,
    _same_length,
    _text,
    _wrap,
)


def episode_board(
    supports: Sequence[Sequence],
    queries: Sequence[Sequence],
    chosen,
    names: Sequence[str],
    title: str = "",
) -> Picture:
    """An episode: for each class its supports, and beside them its queries, right or with the class that they were taken for.

    Args:
        supports: W rows of S images.  queries: W rows of Q images.
        chosen: (W, Q) the class, 0 .. W - 1, that each query was given.
        names: W names of classes.
        title: above it all.

    Raises:
        ValueError: numbers that do not fit.
    """
    chosen = _array(chosen)
    _same_length(supports=supports, queries=queries, chosen=chosen, names=names)
    shots, count = len(supports[0]), len(queries[0])
    if (
        chosen.shape != (len(names), count)
        or any(len(row) != shots for row in supports)
        or any(len(row) != count for row in queries)
    ):
        raise ValueError(
            f"every class needs {shots} supports and {count} queries with a choice each, got choices {chosen.shape}"
        )
    if chosen.min() < 0 or chosen.max() >= len(names):
        raise ValueError(
            f"choices must lie between 0 and {len(names) - 1}, got {chosen.min()} to {chosen.max()}"
        )
    label, gutter, under, between = 1.25, 0.3, 0.17, 0.07
    side = min((WIDTH - 2 * MARGIN - label - gutter - (shots + count) * GAP) / (shots + count), 1.2)
    queries_left = MARGIN + label + shots * (side + GAP) + gutter
    head = 0.26 * bool(title) + 0.22
    figure = _figure(2 * MARGIN + head + len(names) * (side + under + between) - between + 0.26)
    if title:
        _text(figure, MARGIN, MARGIN, title, weight="bold", va="top", size=TEXT + 1)
    right = chosen == [[row] for row in range(len(names))]
    _text(figure, MARGIN + label, MARGIN + head - 0.2, "supports", color=MUTED, va="top")
    _text(
        figure,
        queries_left,
        MARGIN + head - 0.2,
        f"queries, {int(right.sum())} of {right.size} right",
        color=MUTED,
        va="top",
    )
    for row, name in enumerate(names):
        top = MARGIN + head + row * (side + under + between)
        _text(
            figure,
            MARGIN,
            top + side / 2,
            f"{row + 1}  "
            + _wrap(name, label - 0.25, SMALL + 0.5, lines=3).replace("\n", "\n    "),
            va="center",
            size=SMALL + 0.5,
        )
        for place, image in enumerate(supports[row]):
            _frame(_cell(figure, image, MARGIN + label + place * (side + GAP), top, side), NEUTRAL)
        for place, image in enumerate(queries[row]):
            left = queries_left + place * (side + GAP)
            _mark(_cell(figure, image, left, top, side), bool(right[row, place]))
            if not right[row, place]:
                _text(
                    figure,
                    left + side / 2,
                    top + side + 0.04,
                    f"as {chosen[row, place] + 1}",
                    size=SMALL,
                    color=INK,
                    ha="center",
                    va="top",
                )
    y = figure.get_figheight() - MARGIN
    _text(figure, MARGIN, y, "\u2713 its own class", color=RIGHT, size=SMALL, weight="bold")
    _text(
        figure,
        MARGIN + 1.2,
        y,
        "\u2717 taken for another one, whose number stands below",
        color=WRONG,
        size=SMALL,
        weight="bold",
    )
    return figure
