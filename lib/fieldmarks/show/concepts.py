"""What PAN says: pairs with the concepts that make their score, concepts by importance, blanks.

The similarity of a pair is the sum over concepts of relevance times concept score. So a concept is
drawn as a bar as long as its relevance, filled up to what it contributes: how much of the bar is
filled is the concept's score.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes

from fieldmarks.show.maps import blend
from fieldmarks.show.picture import Picture, as_array, bar_axes, check_lengths
from fieldmarks.show.style import CENTRED, COLOURS, GAP, HAIRLINE, LINE, MARGIN, MUTED, SMALL, WIDTH

NAME = 1.75  # inches: the column of concepts' names
BAR = 0.62  # of a bar's place
AT_BAR = {"ha": "right", "va": "center_baseline"}


class Blank(NamedTuple):
    """A question and its answer: an outfit without one item, and what could fill the blank."""

    outfit: Sequence  # images
    place: int  # where among them the blank stands, from 0
    choices: Sequence  # C images
    scores: Sequence[float]  # (C,)
    answer: int  # the right one


def pair_board(
    first, second, contributions, relevance, scores, names, captions, maps=None, top: int = 6
) -> Picture:
    """Pairs of images with the concepts that contribute most to their similarity. ValueError where
    numbers do not fit, or contributions are not relevance times score.

    Args:
        first, second: n images each.  names: of M concepts.  top: concepts to show.
        contributions, relevance, scores: (n, M), all in [0, 1]; contributions are relevance times
            concept score, and add up to the pair's similarity, which is written above its bars.
        captions: n lines above the pairs, such as "one species".
        maps: columns of response maps beside the images, each (label, maps of first, maps of
            second): (n, h, w) in [0, 1], and one label or n of them.
    """
    parts = contributions, relevance, scores
    contributions, relevance, scores = (as_array(part).astype(float) for part in parts)
    maps = [_checked_maps(len(first), *column) for column in maps or ()]
    numbers = {"contributions": contributions, "relevance": relevance, "scores": scores}
    check_lengths(first=first, second=second, **numbers, captions=captions)
    shape, (a, b, c) = (len(first), len(names)), (values.shape for values in numbers.values())
    if not a == b == c == shape:
        given = f"for {len(names)} names, got {a}, {b} and {c}"
        raise ValueError(f"contributions, relevance and scores must be {shape} {given}")
    if not np.allclose(contributions, relevance * scores, atol=1e-3):
        raise ValueError("contributions must be relevance times scores")
    top, side = min(top, len(names)), 1.02
    head, foot, between = 0.26 + 0.32 * bool(maps), 0.5, 0.24  # labels of maps: two lines
    row_height = max((2 * side + 0.04 - foot) / top, 0.19)
    height = row_height * top
    block = head + height + foot
    figure = Picture(2 * MARGIN + len(first) * (block + between) - between + 0.24)
    bars_left = MARGIN + (1 + len(maps)) * (side + 0.04) + 0.15 + NAME
    width = WIDTH - MARGIN - bars_left - 0.35
    for pair, caption in enumerate(captions):
        above = MARGIN + pair * (block + between)
        bars_top = above + head
        if pair:
            figure.rule(above - between / 2)
        bold = {"weight": "bold", "va": "top"}
        figure.write(MARGIN, above, caption, **bold, room=bars_left - 0.3)
        for place, image in enumerate((first[pair], second[pair])):
            cell_top = bars_top + place * (side + 0.04)
            figure.cell(image, MARGIN, cell_top, side)
            for column, (labels, *sides) in enumerate(maps, start=1):
                left = MARGIN + column * (side + 0.04)
                figure.cell(blend(image, sides[place][pair]), left, cell_top, side)
                if place == 0:
                    middle = {"ha": "center", "room": side + 0.1, "lines": 2, "va": "bottom"}
                    figure.note(left + side / 2, cell_top - 0.03, labels[pair], **middle)
        order = np.argsort(-contributions[pair], kind="stable")[:top]
        similarity = contributions[pair].sum()
        figure.write(bars_left, above, f"similarity {similarity:.2f}", **bold)
        axes = figure.box(bars_left, bars_top, 0.66 * width, height)
        style = [COLOURS[0]] * top, relevance.max(), "relevance; filled: contribution"
        _concept_bars(axes, relevance[pair, order], contributions[pair, order], *style)
        axes = figure.box(bars_left + 0.66 * width + 0.3, bars_top, 0.34 * width, height)
        rows, dots = np.arange(top), scores[pair, order]
        axes.hlines(rows, 0, dots, color=HAIRLINE, lw=1.2)
        axes.plot(dots, rows, ls="none", marker="o", ms=4.5, color=COLOURS[1], clip_on=False)
        axes.set(xlim=(0, 1), xticks=[0, 0.5, 1], xticklabels=["0", "0.5", "1"])
        bar_axes(axes, top, "concept score")
        for row, concept in enumerate(order):
            y, beside = bars_top + row_height * (row + 0.5), {"size": SMALL + 0.5, **AT_BAR}
            figure.write(bars_left - 0.08, y, names[concept], **beside, room=NAME - 0.1)
        if others := len(names) - top:
            rest = similarity - contributions[pair, order].sum()
            text = f"{others} other{'s' * (others > 1)}: {rest:.2f}"
            figure.note(bars_left - 0.3, bars_top + height + 0.12, text, **AT_BAR)
    text = "similarity = sum of contributions; contribution = relevance x concept score"
    foot = figure.get_figheight() - MARGIN
    figure.note(MARGIN, foot, f"{text}, which is the filled share of a bar")
    return figure


def importance(
    names: Sequence[str], relevance_mean, contribution_mean, groups=None, top: int = 20
) -> Picture:
    """Which concepts matter over many pairs: mean relevance, filled up to the mean contribution.
    ValueError where lengths differ.

    Args:
        names: M concepts.  relevance_mean, contribution_mean: (M,), the latter no larger.
        groups: M words such as "colour", written at the bars: a colour each.
        top: concepts to show, the most relevant first.
    """
    means = relevance_mean, contribution_mean
    relevance, contribution = (as_array(mean).astype(float) for mean in means)
    check_lengths(names=names, relevance_mean=relevance, contribution_mean=contribution)
    groups = [""] * len(names) if groups is None else groups
    check_lengths(names=names, groups=groups)
    order = np.argsort(-relevance, kind="stable")[:top]
    rank = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    colours = [COLOURS[rank[groups[concept]] % len(COLOURS)] for concept in order]
    height, width, left = 0.2 * len(order), WIDTH - 2 * MARGIN - NAME - 1.3, MARGIN + NAME
    figure = Picture(2 * MARGIN + 0.3 + height + 0.45, photographs=False)
    axes = figure.box(left, MARGIN + 0.3, width, height)
    style = colours, relevance.max(), "mean relevance; filled: mean contribution to the similarity"
    _concept_bars(axes, relevance[order], contribution[order], *style)
    for row, concept in enumerate(order):
        y = MARGIN + 0.3 + 0.2 * (row + 0.5)
        figure.write(left - 0.08, y, names[concept], **AT_BAR, room=NAME - 0.1)
        end = width * relevance[concept] / axes.get_xlim()[1]
        if groups[concept]:
            figure.note(left + end + 0.07, y, groups[concept], va="center_baseline")
    share = relevance[order].sum() / relevance.sum()
    text = f"the {len(order)} most relevant of {len(names)} concepts; they have {share:.0%}"
    figure.note(MARGIN, MARGIN, f"{text} of the relevance", size=SMALL + 0.5, va="top")
    return figure


def best_and_worst(
    names: Sequence[str], areas, scores, labels, pairs, pictures, *, count: int = 3, each: int = 3
) -> Picture:
    """The named concepts that rank pairs best and worst by the attribute they stand for, with the
    pairs for which they score highest and lowest, and whether these have the attribute.

    Of a concept no picture is shown twice, and no pair of which it is not known. ValueError where
    lengths differ, or no area is known.

    Args:
        names: M concepts.  areas: (M,) under their curves, NaN for unknown.
        scores, labels: (P, M) in [0, 1]; 1, 0 or NaN for unknown.
        pairs: (P, 2) positions in `pictures`, which gives an image for each.
        count: concepts of either kind.  each: pairs of either end.
    """
    areas, scores, labels = (as_array(part).astype(float) for part in (areas, scores, labels))
    pairs = as_array(pairs)
    check_lengths(names=names, areas=areas)
    check_lengths(pairs=pairs, scores=scores, labels=labels)
    order = [int(n) for n in np.argsort(-areas, kind="stable") if not np.isnan(areas[n])]
    if not order:
        raise ValueError("areas are all NaN: no concept is known well enough to be shown")
    best = order[: min(count, (len(order) + 1) // 2)]
    worst = order[max(len(best), len(order) - count) :]
    name, gutter, apart = 1.35, 0.22, 0.1
    room = WIDTH - 2 * MARGIN - name - gutter - (2 * each - 1) * apart
    side = min((room - 2 * each * 0.02) / (4 * each), 1.0)
    pair, header, row_height = 2 * side + 0.02, 0.26, side + 0.05 + LINE + 0.12
    lefts = [MARGIN + name + n * (pair + apart) + gutter * (n >= each) for n in range(2 * each)]
    titled = 0.24 * (1 + bool(worst))
    height = 2 * MARGIN + header + titled + (len(best) + len(worst)) * row_height + 0.2
    figure = Picture(height)
    for n, text in ((0, "scores highest"), (each, "scores lowest")):
        figure.write(lefts[n], MARGIN, text, color=MUTED, va="top")
    top = MARGIN + header
    for title, concepts in (("ranked best", best), ("ranked worst", worst)):
        if concepts:
            figure.write(MARGIN, top, title, weight="bold", va="top")
            top += 0.24
        for concept in concepts:
            words = {"room": name - 0.1, "lines": 3, "va": "top"}
            figure.write(MARGIN, top, names[concept], **words)
            figure.note(MARGIN, top + side + 0.05, f"AUC {areas[concept]:.2f}", va="top")
            ends = _ends(scores[:, concept], labels[:, concept], pairs, each)
            for high, rows in zip((True, False), ends, strict=True):
                for left, row in zip(lefts[0 if high else each :], rows, strict=False):
                    has = labels[row, concept] == 1
                    for place, position in enumerate(pairs[row].tolist()):
                        at = left + place * (side + 0.02)
                        figure.cell(pictures[position], at, top, side).mark(bool(has == high))
                    said = f"{scores[row, concept]:.2f}, {'has it' if has else 'has it not'}"
                    figure.note(left + pair / 2, top + side + 0.05, said, **CENTRED)
            top += row_height
    note = "AUC: the chance that a pair that has it scores above one that has it not; 0.50: nothing"
    figure.key("as its name says", "not so", note)
    return figure


def _ends(scores, labels, pairs, each: int) -> tuple[list[int], list[int]]:
    """Rows of the highest scores and of the lowest, with known labels; no picture comes twice."""
    order, seen, ends = np.argsort(-scores, kind="stable"), set(), ([], [])
    known = [int(row) for row in order if not np.isnan(labels[row])]
    for end, rows in zip(ends, (known, known[::-1]), strict=True):
        for row in rows:
            pictures = set(pairs[row].tolist())
            if len(end) < each and not pictures & seen:
                end.append(row)
                seen |= pictures
    return ends


def question_rows(rows: Sequence[Blank], titles: Sequence[str] | None = None) -> Picture:
    """Fill-in-the-blank questions, one a row: the outfit with its blank, the choices with scores.

    The right answer is marked; where the model chooses another, that is marked as wrong. What it
    chooses, the highest score, the first of equals, is also said in words. Titles stand above the
    rows. ValueError: nothing to show, or a question whose parts do not fit."""
    check_lengths(rows=rows, titles=rows if titles is None else titles)
    for number, row in enumerate(rows):
        items, choices, scores = len(row.outfit), len(row.choices), len(row.scores)
        if not (0 <= row.answer < choices == scores and 0 <= row.place <= items and items):
            got = f"{items} items, place {row.place}, {choices} choices, {scores} scores"
            raise ValueError(f"question {number} has {got}, answer {row.answer}, which do not fit")
    items, choices = max(len(row.outfit) + 1 for row in rows), max(len(row.choices) for row in rows)
    gutter, head, under, between = 0.35, 0.2 if titles is not None else 0.0, 0.05 + 2 * LINE, 0.14
    side = min((WIDTH - 2 * MARGIN - gutter - (items + choices - 2) * GAP) / (items + choices), 1.2)
    header, footer = 0.24, 0.26
    block = head + side + under
    choices_left = MARGIN + items * (side + GAP) - GAP + gutter
    figure = Picture(2 * MARGIN + header + len(rows) * (block + between) - between + footer)
    figure.write(MARGIN, MARGIN, "the outfit", color=MUTED, va="top")
    figure.write(choices_left, MARGIN, "what fills the blank?", color=MUTED, va="top")
    for number, row in enumerate(rows):
        above = MARGIN + header + number * (block + between)
        top = above + head
        if number:
            figure.rule(above - between / 2)
        if titles is not None:
            room = WIDTH - 2 * MARGIN
            figure.write(MARGIN, above, titles[number], size=SMALL + 0.5, va="top", room=room)
        chosen = int(np.argmax(as_array(row.scores)))
        outfit = [*row.outfit[: row.place], None, *row.outfit[row.place :]]
        for place, image in enumerate(outfit):
            left = MARGIN + place * (side + GAP)
            if image is None:
                _blank(figure.box(left, top, side, side), side)
            else:
                figure.cell(image, left, top, side)
        for place, (image, score) in enumerate(zip(row.choices, row.scores, strict=True)):
            left = choices_left + place * (side + GAP)
            cell, middle = figure.cell(image, left, top, side), left + side / 2
            if place in (row.answer, chosen):
                colour = cell.mark(place == row.answer)
            y, write = top + side + 0.05, figure.write if place == chosen else figure.note
            write(middle, y, f"{float(score):.3f}", **CENTRED, size=SMALL)
            if place == chosen:
                figure.note(middle, y + LINE, "chosen", **CENTRED, color=colour, weight="bold")
    note = "number: mean similarity to the items of the outfit"
    figure.key("the right answer", "chosen, and wrong", note)
    return figure


def _concept_bars(axes: Axes, lengths, filled, colours, longest: float, label: str) -> None:
    """Hollow bars, filled from the left, the first on top, on an axis for bars up to `longest`."""
    rows = np.arange(len(lengths))
    axes.barh(rows, filled, BAR, color=colours, lw=0)
    axes.barh(rows, lengths, BAR, fill=False, edgecolor=colours, lw=1.0)
    axes.set_xlim(0, max(1.08 * longest, 1e-6))
    bar_axes(axes, len(lengths), label)


def _blank(axes: Axes, side: float) -> None:
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(linestyle=(0, (3, 2)), color=MUTED, linewidth=1.2)
    place = {"transform": axes.transAxes, "ha": "center", "va": "center"}
    axes.text(0.5, 0.5, "?", **place, size=22 * side, color=MUTED)


def _checked_maps(count: int, labels, first, second) -> tuple:
    labels = [labels] * count if isinstance(labels, str) else list(labels)
    if not len(labels) == len(first) == len(second) == count:
        given = f"{len(labels)} labels, {len(first)} and {len(second)} maps"
        raise ValueError(f"{count} pairs but {given}: give one of each a pair, or one label")
    return labels, first, second
