"""Plots about hash codes: how far apart they lie, how they use their bits, what their length buys.

As in `galleries`: plain arrays or tensors in, a matplotlib figure out, no pyplot.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from fieldmarks.show.galleries import (
    HAIRLINE,
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
    _text,
)
from fieldmarks.show.maps import COLOURS, LINES, MARKERS, _style


def distance_histograms(methods: Mapping[str, tuple], bits: int) -> Picture:
    """How far queries lie from the database codes of their own class, and from those of the nearest other class; a panel a method.

    Args:
        methods: name -> (own, other), each (Q,) mean or smallest Hamming distances, 0 .. bits.
        bits: length of the codes.
    """
    if not methods:
        raise ValueError("there is nothing to show: give at least one method")
    figure = _figure(2.9, photographs=False)
    width = (WIDTH - 2 * MARGIN) / len(methods)
    edges = np.arange(-0.5, bits + 1.5)
    tallest, panels = 0.0, []
    for place, (name, (own, other)) in enumerate(methods.items()):
        axes = _axes(figure, MARGIN + place * width + 0.6, MARGIN + 0.4, width - 0.8, 1.75)
        for values, label, colour, style in (
            (own, "own class", COLOURS[0], "-"),
            (other, "nearest other class", COLOURS[1], "--"),
        ):
            values = _array(values).astype(float)
            shares = 100 * np.histogram(values, edges)[0] / len(values)
            axes.stairs(
                shares,
                edges,
                color=colour,
                ls=style,
                lw=1.8,
                label=f"{label}, mean {values.mean():.1f}",
            )
            axes.stairs(shares, edges, color=colour, fill=True, alpha=0.15)
            tallest = max(tallest, shares.max())
        _style(axes, "Hamming distance from the query", "queries, %" if place == 0 else "")
        _text(
            figure,
            MARGIN + place * width + 0.6,
            MARGIN,
            name,
            va="top",
            weight="bold",
            size=TEXT + 1,
        )
        axes.legend(
            frameon=False, fontsize=SMALL, labelcolor=INK, loc="upper right", handlelength=1.8
        )
        axes.set_xlim(-0.5, bits + 0.5)
        panels.append(axes)
    for axes in panels:
        axes.set_ylim(0, 1.3 * tallest)
    return figure


def length_curves(methods: Mapping[str, Mapping[int, float]], label: str = "mAP, %") -> Picture:
    """A score by code length, a line a method: methods[name][bits] is a fraction in [0, 1]."""
    if not methods:
        raise ValueError("there is nothing to show: give at least one method")
    figure = _figure(3.2, 6.0, photographs=False)
    axes = _axes(figure, MARGIN + 0.6, MARGIN + 0.2, 3.7, 2.35)
    lengths = sorted({bits for scores in methods.values() for bits in scores})
    for place, (name, scores) in enumerate(methods.items()):
        bits = sorted(scores)
        axes.plot(
            bits,
            [100 * scores[b] for b in bits],
            color=COLOURS[place % len(COLOURS)],
            ls=LINES[place % len(LINES)],
            marker=MARKERS[place % len(MARKERS)],
            ms=5,
            lw=1.8,
            label=name,
        )
    _style(axes, "bits", label)
    axes.set_xticks(lengths)
    room = max(1.0, 0.06 * (lengths[-1] - lengths[0]))
    axes.set_xlim(lengths[0] - room, lengths[-1] + room)
    axes.set_ylim(0, 108 * max(max(scores.values()) for scores in methods.values()))
    axes.legend(
        frameon=False,
        fontsize=SMALL,
        labelcolor=INK,
        loc="upper left",
        bbox_to_anchor=(1.02, 1.0),
        borderaxespad=0,
    )
    return figure


def radius_curves(methods: Mapping[str, tuple]) -> Picture:
    """Precision against recall as the Hamming radius grows from 0, a line a method: (precision (k + 1,), recall (k + 1,))."""
    if not methods:
        raise ValueError("there is nothing to show: give at least one method")
    figure = _figure(3.2, 6.0, photographs=False)
    axes = _axes(figure, MARGIN + 0.6, MARGIN + 0.2, 3.7, 2.35)
    for place, (name, (precision, recall)) in enumerate(methods.items()):
        precision, recall = 100 * _array(precision), 100 * _array(recall)
        colour = COLOURS[place % len(COLOURS)]
        axes.plot(
            recall,
            precision,
            color=colour,
            ls=LINES[place % len(LINES)],
            lw=1.8,
            marker=".",
            ms=5,
            label=name,
        )
        if len(recall) > 2:
            axes.plot(
                recall[2],
                precision[2],
                color=colour,
                marker="o",
                ms=8,
                mfc="white",
                mew=1.6,
                ls="none",
            )
    _style(axes, "recall, %", "precision, %")
    axes.set_xlim(-2, 102)
    axes.set_ylim(-2, 102)
    axes.plot(
        [], [], color=MUTED, marker="o", ms=8, mfc="white", mew=1.6, ls="none", label="radius 2"
    )
    axes.legend(
        frameon=False,
        fontsize=SMALL,
        labelcolor=INK,
        loc="upper left",
        bbox_to_anchor=(1.02, 1.0),
        borderaxespad=0,
    )
    return figure


def usage_board(
    methods: Mapping[str, tuple[Sequence[float], Sequence]], notes: Sequence[str]
) -> Picture:
    """How codes use their bits, a column a method: the share of +1 in each bit, and below it the correlation of bits.

    Args:
        methods: name -> (balance (k,), correlation (k, k) with NaN for a bit that never changes).
        notes: a line under each name, such as the number of distinct codes.
    """
    if len(methods) != len(notes) or not methods:
        raise ValueError(
            f"{len(methods)} methods but {len(notes)} notes: give one of each, at least one"
        )
    side, gutter = 2.2, 0.75
    figure = _figure(
        2 * MARGIN + 1.35 + side + 0.4,
        2 * MARGIN + len(methods) * (side + gutter) + 0.75,
        photographs=False,
    )
    for place, (name, (balance, correlation)) in enumerate(methods.items()):
        balance, correlation = _array(balance), np.ma.masked_invalid(_array(correlation))
        left, bits = MARGIN + 0.5 + place * (side + gutter), len(balance)
        _text(figure, left, MARGIN, name, va="top", weight="bold", size=TEXT + 1)
        _text(figure, left, MARGIN + 0.19, notes[place], va="top", size=SMALL, color=MUTED)
        bars = _axes(figure, left, MARGIN + 0.45, side, 0.8)
        bars.bar(np.arange(1, bits + 1), 100 * balance, width=0.75, color=COLOURS[0])
        bars.axhline(50, color=INK, lw=0.8, ls=":")
        _style(bars, "", "+1, %" if place == 0 else "")
        bars.set(ylim=(0, 100), xlim=(0.4, bits + 0.6), xticks=[], yticks=[0, 50, 100])
        grid = _axes(figure, left, MARGIN + 1.35, side, side)
        grid.set_facecolor(HAIRLINE)
        image = grid.imshow(
            correlation, cmap="RdBu_r", vmin=-1, vmax=1, extent=(0.5, bits + 0.5, bits + 0.5, 0.5)
        )
        _style(grid, "bit", "bit" if place == 0 else "")
        grid.grid(False)
    bar = _axes(figure, figure.get_figwidth() - MARGIN - 0.6, MARGIN + 1.35, 0.12, side)
    scale = figure.colorbar(image, cax=bar)
    scale.set_label("correlation", size=SMALL, color=MUTED)
    scale.ax.tick_params(labelsize=SMALL, colors=MUTED, length=2)
    scale.outline.set_edgecolor(HAIRLINE)
    return figure
