"""Plots about hash codes: how far apart they lie, how they use their bits, what length buys."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes

from fieldmarks.show.picture import Picture, as_array, check_something, name_lines, plain_axes
from fieldmarks.show.style import COLOURS, HAIRLINE, INK, MARGIN, MARKERS, MUTED, WIDTH, line


def distance_histograms(methods: Mapping[str, tuple], bits: int) -> Picture:
    """How far queries lie from codes of their own class and of the nearest other; a panel a method.

    methods[name] is (own, other): (Q,) mean or smallest distances each, in 0 .. bits."""
    check_something(methods, "method")
    figure = Picture(2.9, photographs=False)
    width = (WIDTH - 2 * MARGIN) / len(methods)
    edges = np.arange(-0.5, bits + 1.5)
    tallest = 0.0
    for place, (name, (own, other)) in enumerate(methods.items()):
        left = MARGIN + place * width + 0.6
        axes = figure.box(left, MARGIN + 0.4, width - 0.8, 1.75)
        for number, label in enumerate(("own class", "nearest other class")):
            values = as_array((own, other)[number]).astype(float)
            shares = 100 * np.histogram(values, edges)[0] / len(values)
            axes.stairs(shares, edges, **line(number), label=f"{label}, mean {values.mean():.1f}")
            axes.stairs(shares, edges, color=COLOURS[number], fill=True, alpha=0.15)
            tallest = max(tallest, shares.max())
        plain_axes(axes, "Hamming distance from the query", "queries, %" if place == 0 else "")
        figure.heading(name, left)
        name_lines(axes, loc="upper right", handlelength=1.8)
        axes.set_xlim(-0.5, bits + 0.5)
    for axes in figure.axes:
        axes.set_ylim(0, 1.3 * tallest)
    return figure


def length_curves(methods: Mapping[str, Mapping[int, float]], label: str = "mAP, %") -> Picture:
    """A score by code length, a line a method: methods[name][bits] is a fraction in [0, 1]."""
    figure, axes = _one_plot(methods)
    lengths = sorted({bits for scores in methods.values() for bits in scores})
    for place, (name, scores) in enumerate(methods.items()):
        bits = sorted(scores)
        style = {**line(place), "marker": MARKERS[place % len(MARKERS)], "ms": 5, "label": name}
        axes.plot(bits, [100 * scores[b] for b in bits], **style)
    plain_axes(axes, "bits", label)
    room = max(1.0, 0.06 * (lengths[-1] - lengths[0]))
    highest = max(max(scores.values()) for scores in methods.values())
    axes.set(xlim=(lengths[0] - room, lengths[-1] + room), ylim=(0, 108 * highest), xticks=lengths)
    name_lines(axes, **BESIDE)
    return figure


def radius_curves(methods: Mapping[str, tuple]) -> Picture:
    """Precision against recall as the Hamming radius grows from 0, a line a method.

    methods[name] is (precision, recall): (k + 1,) fractions each."""
    figure, axes = _one_plot(methods)
    ring = {"marker": "o", "ms": 8, "mfc": "white", "mew": 1.6, "ls": "none"}
    for place, (name, (precision, recall)) in enumerate(methods.items()):
        precision, recall = 100 * as_array(precision), 100 * as_array(recall)
        axes.plot(recall, precision, **line(place), marker=".", ms=5, label=name)
        axes.plot(recall[2:3], precision[2:3], color=line(place)["color"], **ring)
    plain_axes(axes, "recall, %", "precision, %")
    axes.set(xlim=(-2, 102), ylim=(-2, 102))
    axes.plot([], [], color=MUTED, **ring, label="radius 2")
    name_lines(axes, **BESIDE)
    return figure


def usage_board(methods: Mapping[str, tuple], notes: Sequence[str]) -> Picture:
    """How codes use their bits, a column a method: the share of +1 in each, and their correlation.

    methods[name] is (balance (k,), correlation (k, k), NaN for a bit that never changes); notes are
    written under the names, such as the number of distinct codes."""
    if len(methods) != len(notes) or not methods:
        raise ValueError(f"{len(methods)} methods but {len(notes)} notes: give one of each")
    side, gutter, top = 2.2, 0.75, MARGIN + 1.35
    width = 2 * MARGIN + len(methods) * (side + gutter) + 0.75
    figure = Picture(top + MARGIN + side + 0.4, width, photographs=False)
    for place, (name, (balance, correlation)) in enumerate(methods.items()):
        balance, correlation = as_array(balance), np.ma.masked_invalid(as_array(correlation))
        left, bits = MARGIN + 0.5 + place * (side + gutter), len(balance)
        figure.heading(name, left)
        figure.note(left, MARGIN + 0.19, notes[place], va="top")
        bars = figure.box(left, MARGIN + 0.45, side, 0.8)
        bars.bar(np.arange(1, bits + 1), 100 * balance, width=0.75, color=COLOURS[0])
        bars.axhline(50, color=INK, lw=0.8, ls=":")
        plain_axes(bars, "", "+1, %" if place == 0 else "")
        bars.set(ylim=(0, 100), xlim=(0.4, bits + 0.6), xticks=[], yticks=[0, 50, 100])
        grid = figure.box(left, top, side, side)
        grid.set_facecolor(HAIRLINE)
        extent = (0.5, bits + 0.5, bits + 0.5, 0.5)
        image = grid.imshow(correlation, cmap="RdBu_r", vmin=-1, vmax=1, extent=extent)
        plain_axes(grid, "bit", "bit" if place == 0 else "")
        grid.grid(False)
    figure.colour_bar((width - MARGIN - 0.6, top, 0.12, side), image, "correlation")
    return figure


BESIDE = {"loc": "upper left", "bbox_to_anchor": (1.02, 1.0), "borderaxespad": 0}


def _one_plot(methods: Mapping) -> tuple[Picture, Axes]:
    check_something(methods, "method")
    figure = Picture(3.2, 6.0, photographs=False)
    return figure, figure.box(MARGIN + 0.6, MARGIN + 0.2, 3.7, 2.35)
