"""Few-shot episodes: a row a class, its supports and what its queries were taken for."""

from collections.abc import Sequence

from fieldmarks.show.picture import Picture, as_array, check_lengths
from fieldmarks.show.style import CENTRED, GAP, INK, MARGIN, MUTED, SMALL, WIDTH, wrap


def episode_board(supports, queries, chosen, names: Sequence[str], title: str = "") -> Picture:
    """An episode: each class with its supports, its queries and what wrong ones were taken for.
    ValueError where numbers do not fit.

    Args:
        supports: W rows of S images.  queries: W rows of Q images.  names: of W classes.
        chosen: (W, Q) the class, 0 .. W - 1, that each query was given.
    """
    chosen = as_array(chosen)
    check_lengths(supports=supports, queries=queries, chosen=chosen, names=names)
    ways, shots, count = len(names), len(supports[0]), len(queries[0])
    sizes = {len(row) for row in supports}, {len(row) for row in queries}
    if chosen.shape != (ways, count) or sizes != ({shots}, {count}):
        needed = f"{shots} supports and {count} queries with a choice each"
        raise ValueError(f"every class needs {needed}, got choices {chosen.shape}")
    if chosen.min() < 0 or chosen.max() >= ways:
        given = f"{chosen.min()} to {chosen.max()}"
        raise ValueError(f"choices must lie between 0 and {ways - 1}, got {given}")
    label, gutter, under, between = 1.25, 0.3, 0.17, 0.07
    side = min((WIDTH - 2 * MARGIN - label - gutter - (shots + count) * GAP) / (shots + count), 1.2)
    queries_left = MARGIN + label + shots * (side + GAP) + gutter
    head = 0.26 * bool(title) + 0.22
    figure = Picture(2 * MARGIN + head + ways * (side + under + between) - between + 0.26)
    figure.heading(title)
    right = chosen == [[row] for row in range(ways)]
    said = f"queries, {int(right.sum())} of {right.size} right"
    for left, text in ((MARGIN + label, "supports"), (queries_left, said)):
        figure.write(left, MARGIN + head - 0.2, text, color=MUTED, va="top")
    for row, name in enumerate(names):
        top = MARGIN + head + row * (side + under + between)
        name = wrap(name, label - 0.25, SMALL + 0.5, lines=3).replace("\n", "\n    ")
        figure.write(MARGIN, top + side / 2, f"{row + 1}  {name}", va="center", size=SMALL + 0.5)
        for place, image in enumerate(supports[row]):
            left = MARGIN + label + place * (side + GAP)
            figure.cell(image, left, top, side).mark(None)
        for place, image in enumerate(queries[row]):
            left = queries_left + place * (side + GAP)
            figure.cell(image, left, top, side).mark(bool(right[row, place]))
            if not right[row, place]:
                text = f"as {chosen[row, place] + 1}"
                figure.note(left + side / 2, top + side + 0.04, text, **CENTRED, color=INK)
    figure.key("its own class", "taken for another one, whose number stands below")
    return figure
