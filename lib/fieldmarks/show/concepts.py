"""What a similarity by concepts (PAN) says: pairs with what makes their score, concepts by importance, filled blanks.

As in `galleries`: plain arrays or tensors in, a matplotlib figure out, no pyplot. The similarity of a pair is the sum over
concepts of relevance times concept score. So a concept is drawn as a bar as long as its relevance, filled up to what it
contributes: how much of the bar is filled is the concept's score.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fieldmarks.show.galleries import (
    GAP,
    HAIRLINE,
    INK,
    LINE,
    MARGIN,
    MUTED,
    RIGHT,
    SMALL,
    TEXT,
    WIDTH,
    WRONG,
    Picture,
    _array,
    _axes,
    _cell,
    _figure,
    _mark,
    _rule,
    _same_length,
    _shorten,
    _text,
)
from fieldmarks.show.maps import COLOURS, blend

NAME = 1.75  # inches: the column of concepts' names
BAR = 0.62  # of a bar's place


class Blank(NamedTuple):
    """A filled blank: an outfit without one item, what was offered, and what the model says of each."""

    outfit: Sequence  # images
    place: int  # where among them the blank stands, from 0
    choices: Sequence  # C images
    scores: Sequence[float]  # (C,)
    answer: int  # the right one


def concept_names(
    attributes: Sequence[str] = (), none_slot: bool = False, free: int = 0
) -> list[str]:
    """Names of M concepts in the order of `SimilarityHead`; free ones, which nobody has named, are "concept 1" and so on."""
    return [
        *attributes,
        *["none of these"] * none_slot,
        *(f"concept {number}" for number in range(1, free + 1)),
    ]


def pair_board(
    first: Sequence,
    second: Sequence,
    contributions,
    relevance,
    scores,
    names: Sequence[str],
    captions: Sequence[str],
    maps: Sequence[tuple] | None = None,
    top: int = 6,
) -> Picture:
    """Pairs of images with the concepts that make their similarity: each pair's `top` ones by contribution.

    Args:
        first, second: n images each.
        contributions, relevance, scores: (n, M), all in [0, 1]; contributions are relevance times concept score, and add up to
            the pair's similarity, which is written above its bars.
        names: M names of concepts.
        captions: n lines above the pairs, such as "one species".
        maps: columns of response maps beside the images, each (label, maps of first, maps of second): (n, h, w) in [0, 1], and
            one label or n of them.
        top: concepts to show.

    Raises:
        ValueError: numbers that do not fit, or contributions that are not relevance times score.
    """
    contributions, relevance, scores = (
        _array(values).astype(float) for values in (contributions, relevance, scores)
    )
    maps = [_checked_maps(len(first), *column) for column in maps or ()]
    _same_length(
        first=first,
        second=second,
        contributions=contributions,
        relevance=relevance,
        scores=scores,
        captions=captions,
    )
    if not contributions.shape == relevance.shape == scores.shape == (len(first), len(names)):
        raise ValueError(
            f"contributions, relevance and scores must be ({len(first)}, {len(names)}) for {len(names)} names, "
            f"got {contributions.shape}, {relevance.shape} and {scores.shape}"
        )
    if not np.allclose(contributions, relevance * scores, atol=1e-3):
        raise ValueError("contributions must be relevance times scores")
    top = min(top, len(names))
    columns, side = 1 + len(maps), 1.02
    head, foot, between = 0.26 + 0.2 * bool(maps), 0.5, 0.24
    row_height, longest = max((2 * side + 0.04 - foot) / top, 0.19), relevance.max()
    height = row_height * top
    block = head + height + foot
    figure = _figure(2 * MARGIN + len(first) * (block + between) - between + 0.24)
    bars_left = MARGIN + columns * (side + 0.04) + 0.15
    room = WIDTH - MARGIN - bars_left
    width = (room - NAME - 0.35) * 0.66, (room - NAME - 0.35) * 0.34
    for pair, caption in enumerate(captions):
        above = MARGIN + pair * (block + between)
        if pair:
            _rule(figure, above - between / 2)
        similarity = f"similarity {contributions[pair].sum():.2f}"
        _text(
            figure,
            MARGIN,
            above,
            _shorten(caption, bars_left + NAME - 0.3, TEXT),
            weight="bold",
            va="top",
        )
        for place, image in enumerate((first[pair], second[pair])):
            cell_top = above + head + place * (side + 0.04)
            _cell(figure, image, MARGIN, cell_top, side)
            for column, (labels, *sides) in enumerate(maps, start=1):
                left = MARGIN + column * (side + 0.04)
                _cell(figure, blend(image, sides[place][pair]), left, cell_top, side)
                if place == 0:
                    _text(
                        figure,
                        left + side / 2,
                        cell_top - 0.05,
                        _shorten(labels[pair], side + 0.1, SMALL),
                        size=SMALL,
                        color=MUTED,
                        ha="center",
                    )
        order = np.argsort(-contributions[pair], kind="stable")[:top]
        rest = contributions[pair].sum() - contributions[pair, order].sum()
        left, bars_top = bars_left + NAME, above + head
        _text(figure, left, above, similarity, weight="bold", va="top")
        axes = _concept_bars(
            figure,
            left,
            bars_top,
            width[0],
            height,
            relevance[pair, order],
            contributions[pair, order],
            [COLOURS[0]] * top,
            longest,
        )
        axes.set_xlabel("relevance; filled: contribution", size=SMALL, color=MUTED, labelpad=2)
        axes = _score_dots(
            figure, left + width[0] + 0.3, bars_top, width[1], height, scores[pair, order]
        )
        axes.set_xlabel("concept score", size=SMALL, color=MUTED, labelpad=2)
        for row, concept in enumerate(order):
            _text(
                figure,
                left - 0.08,
                bars_top + row_height * (row + 0.5),
                _shorten(names[concept], NAME - 0.1, SMALL + 0.5),
                ha="right",
                va="center_baseline",
                size=SMALL + 0.5,
            )
        if len(names) > top:
            others = len(names) - top
            _text(
                figure,
                left - 0.3,
                bars_top + height + 0.12,
                f"{others} other{'s' * (others > 1)}: {rest:.2f}",
                size=SMALL,
                color=MUTED,
                ha="right",
                va="center_baseline",
            )
    note = "similarity = sum of contributions; contribution = relevance x concept score, which is the filled share of a bar"
    _text(figure, MARGIN, figure.get_figheight() - MARGIN, note, size=SMALL, color=MUTED)
    return figure


def importance(
    names: Sequence[str],
    relevance_mean,
    contribution_mean,
    groups: Sequence[str] | None = None,
    top: int = 20,
) -> Picture:
    """Which concepts matter over many pairs, the most relevant first: mean relevance, filled up to the mean contribution.

    Args:
        names: M concepts.  relevance_mean, contribution_mean: (M,), the latter no larger.
        groups: M words such as "colour": concepts of one group share a colour, and the word stands at the bar.
        top: concepts to show.

    Raises:
        ValueError: numbers that do not fit.
    """
    relevance, contribution = (
        _array(values).astype(float) for values in (relevance_mean, contribution_mean)
    )
    _same_length(names=names, relevance_mean=relevance, contribution_mean=contribution)
    if groups is not None:
        _same_length(names=names, groups=groups)
    order = np.argsort(-relevance, kind="stable")[:top]
    rank = {group: number for number, group in enumerate(dict.fromkeys(groups or ("",)))}
    colours = [COLOURS[rank[groups[concept] if groups else ""] % len(COLOURS)] for concept in order]
    height, wide = 0.2 * len(order), WIDTH - 2 * MARGIN - NAME - 1.3
    figure = _figure(2 * MARGIN + 0.3 + height + 0.45, photographs=False)
    axes = _concept_bars(
        figure,
        MARGIN + NAME,
        MARGIN + 0.3,
        wide,
        height,
        relevance[order],
        contribution[order],
        colours,
        relevance.max(),
    )
    axes.set_xlabel(
        "mean relevance; filled: mean contribution to the similarity",
        size=TEXT,
        color=INK,
        labelpad=3,
    )
    for row, concept in enumerate(order):
        y = MARGIN + 0.3 + 0.2 * (row + 0.5)
        _text(
            figure,
            MARGIN + NAME - 0.08,
            y,
            _shorten(names[concept], NAME - 0.1, TEXT),
            ha="right",
            va="center_baseline",
        )
        if groups is not None:
            end = wide * relevance[concept] / axes.get_xlim()[1]
            _text(
                figure,
                MARGIN + NAME + end + 0.07,
                y,
                groups[concept],
                size=SMALL,
                color=MUTED,
                va="center_baseline",
            )
    shown, all_of_it = relevance[order].sum(), relevance.sum()
    words = f"the {len(order)} most relevant of {len(names)} concepts; they have {shown / all_of_it:.0%} of the relevance"
    _text(figure, MARGIN, MARGIN, words, size=SMALL + 0.5, color=MUTED, va="top")
    return figure


def question_rows(rows: Sequence[Blank], titles: Sequence[str] | None = None) -> Picture:
    """Fill-in-the-blank questions, one a row: the outfit with its blank, and the choices with their scores.

    The right answer has a green frame and a check; where the model chooses another, that has a red, dashed frame and a cross.
    What the model chooses is also said in words: the highest score, the first of equals.

    Args:
        rows: questions.  titles: one above each.

    Raises:
        ValueError: no question, one without items or choices, or scores, answer or place that do not fit.
    """
    if not rows:
        raise ValueError("there is nothing to show: give at least one question")
    for number, row in enumerate(rows):
        fits = 0 <= row.answer < len(row.choices) == len(row.scores) and 0 <= row.place <= len(
            row.outfit
        )
        if not fits or not len(row.outfit):
            raise ValueError(
                f"question {number} has {len(row.outfit)} items, place {row.place}, {len(row.choices)} choices, "
                f"{len(row.scores)} scores and answer {row.answer}, which do not fit"
            )
    if titles is not None:
        _same_length(rows=rows, titles=titles)
    items, choices = max(len(row.outfit) + 1 for row in rows), max(len(row.choices) for row in rows)
    gutter, head, under, between = 0.35, 0.2 if titles is not None else 0.0, 0.05 + 2 * LINE, 0.14
    side = min((WIDTH - 2 * MARGIN - gutter - (items + choices - 2) * GAP) / (items + choices), 1.2)
    header, footer = 0.24, 0.26
    block = head + side + under
    choices_left = MARGIN + items * (side + GAP) - GAP + gutter
    figure = _figure(2 * MARGIN + header + len(rows) * (block + between) - between + footer)
    _text(figure, MARGIN, MARGIN, "the outfit", color=MUTED, va="top")
    _text(figure, choices_left, MARGIN, "what fills the blank?", color=MUTED, va="top")
    for number, row in enumerate(rows):
        above = MARGIN + header + number * (block + between)
        if number:
            _rule(figure, above - between / 2)
        if titles is not None:
            _text(
                figure,
                MARGIN,
                above,
                _shorten(titles[number], WIDTH - 2 * MARGIN, SMALL + 0.5),
                size=SMALL + 0.5,
                va="top",
            )
        chosen = int(np.argmax(_array(row.scores)))
        outfit = list(row.outfit)
        outfit.insert(row.place, None)
        for place, image in enumerate(outfit):
            left = MARGIN + place * (side + GAP)
            if image is None:
                _blank(figure, left, above + head, side)
            else:
                _cell(figure, image, left, above + head, side)
        for place, (image, score) in enumerate(zip(row.choices, row.scores)):
            left, middle = (
                choices_left + place * (side + GAP),
                choices_left + place * (side + GAP) + side / 2,
            )
            axes = _cell(figure, image, left, above + head, side)
            if place in (row.answer, chosen):
                _mark(axes, place == row.answer)
            _text(
                figure,
                middle,
                above + head + side + 0.05,
                f"{float(score):.3f}",
                size=SMALL,
                ha="center",
                va="top",
                color=INK if place == chosen else MUTED,
            )
            if place == chosen:
                _text(
                    figure,
                    middle,
                    above + head + side + 0.05 + LINE,
                    "chosen",
                    size=SMALL,
                    ha="center",
                    va="top",
                    weight="bold",
                    color=RIGHT if chosen == row.answer else WRONG,
                )
    y = figure.get_figheight() - MARGIN
    _text(figure, MARGIN, y, "\u2713 the right answer", color=RIGHT, size=SMALL, weight="bold")
    _text(
        figure, MARGIN + 1.45, y, "\u2717 chosen, and wrong", color=WRONG, size=SMALL, weight="bold"
    )
    _text(
        figure,
        MARGIN + 3.1,
        y,
        "number: mean similarity to the items of the outfit",
        color=MUTED,
        size=SMALL,
    )
    return figure


# --- how it is drawn --------------------------------------------------------------------------------------------------


def _concept_bars(
    figure: Picture,
    left: float,
    top: float,
    width: float,
    height: float,
    lengths,
    filled,
    colours,
    longest,
):
    """Hollow bars, filled from the left, the first on top, on an axis for bars up to `longest`."""
    axes = _axes(figure, left, top, width, height)
    rows = np.arange(len(lengths))
    axes.barh(rows, filled, BAR, color=colours, lw=0)
    axes.barh(rows, lengths, BAR, fill=False, edgecolor=colours, lw=1.0)
    axes.set_xlim(0, max(1.08 * longest, 1e-6))
    _bare(axes, len(lengths))
    return axes


def _score_dots(figure: Picture, left: float, top: float, width: float, height: float, scores):
    axes = _axes(figure, left, top, width, height)
    rows = np.arange(len(scores))
    axes.hlines(rows, 0, scores, color=HAIRLINE, lw=1.2)
    axes.plot(scores, rows, ls="none", marker="o", ms=4.5, color=COLOURS[1], clip_on=False)
    axes.set_xlim(0, 1)
    axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    _bare(axes, len(scores))
    return axes


def _bare(axes, rows: int) -> None:
    axes.set_ylim(rows - 0.5, -0.5)
    axes.set_yticks([])
    axes.locator_params(axis="x", nbins=4)
    axes.tick_params(labelsize=SMALL, colors=MUTED, length=2, pad=2)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(HAIRLINE)


def _blank(figure: Picture, left: float, top: float, side: float) -> None:
    axes = _axes(figure, left, top, side, side)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set(linestyle=(0, (3, 2)), color=MUTED, linewidth=1.2)
    axes.text(
        0.5,
        0.5,
        "?",
        transform=axes.transAxes,
        ha="center",
        va="center",
        size=22 * side,
        color=MUTED,
    )


def _checked_maps(count: int, labels, first, second) -> tuple:
    labels = [labels] * count if isinstance(labels, str) else list(labels)
    if not len(labels) == len(first) == len(second) == count:
        raise ValueError(
            f"{count} pairs but {len(labels)} labels, {len(first)} and {len(second)} maps: "
            "give one of each for every pair, or one label for all"
        )
    return labels, first, second
