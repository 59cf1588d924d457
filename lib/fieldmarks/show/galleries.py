"""Photographs in rows: retrieval galleries, before and after, boards of classes and of patches."""

from collections.abc import Mapping, Sequence

import numpy as np

from fieldmarks.show.names import readable
from fieldmarks.show.picture import Picture, as_array, as_rgb, check_lengths
from fieldmarks.show.style import CENTRED, GAP, LINE, MARGIN, MUTED, SMALL, WIDTH, height_of, wrap


def before_after(
    query_images: Sequence, methods: Mapping[str, tuple], titles=None, score="cosine to the query"
) -> Picture:
    """The same queries under one or more methods, a row each; ValueError where counts do not fit.

    Args:
        query_images: Q images, framed in grey.  titles: Q names, written under them.
        methods: name -> (result_images, correct, scores): for each query its R results, framed as
            right or wrong; (Q, R) bool, whether one shares the query's class, None where nobody
            knows; (Q, R) numbers that stand below, or None.
        score: what these numbers are.
    """
    check_lengths(query_images=query_images, titles=query_images if titles is None else titles)
    check_lengths(methods=methods)
    methods = {n: _checked(n, len(query_images), *results) for n, results in methods.items()}
    named = len(methods) > 1
    label = 0.95 if named else 0.2  # between the query and its results
    count = max(len(row) for images, _, _ in methods.values() for row in images)
    side = min((WIDTH - 2 * MARGIN - label - count * GAP) / (count + 1), 1.5)
    room = side + (0.25 if named else 0.1)
    titles = [wrap(title, room, SMALL, lines=2) for title in titles or ()]
    scored = any(scores is not None for _, _, scores in methods.values())
    under = 0.05 + max(LINE if scored else 0, 0 if named else height_of(titles))
    header, between, footer = 0.24, 0.16, 0.26
    block = len(methods) * (side + under)
    figure = Picture(2 * MARGIN + header + len(query_images) * (block + between) - between + footer)
    lefts = [MARGIN + side + label + place * (side + GAP) for place in range(count)]
    figure.write(MARGIN + side / 2, MARGIN, "query", **CENTRED, color=MUTED)
    for place, left in enumerate(lefts, start=1):
        figure.write(left + side / 2, MARGIN, str(place), **CENTRED, color=MUTED)
    for number, query in enumerate(query_images):
        top = MARGIN + header + number * (block + between)
        if number:
            figure.rule(top - between / 2)
        query_top = top + (block - side - under) / 2
        figure.cell(query, MARGIN, query_top, side).mark(None)
        if titles:
            figure.write(MARGIN, query_top + side + 0.05, titles[number], size=SMALL, va="top")
        for row, (name, (images, correct, scores)) in enumerate(methods.items()):
            row_top = top + row * (side + under)
            if named:
                x, y = lefts[0] - 0.1, row_top + side / 2
                style = {"room": label - 0.15, "lines": 2, "weight": "bold"}
                figure.write(x, y - 0.02, name, **style, ha="right", va="bottom")
                if correct is not None:
                    right = f"{int(correct[number].sum())} of {len(images[number])} right"
                    figure.note(x, y + 0.02, right, ha="right", va="top")
            for place, (image, left) in enumerate(zip(images[number], lefts, strict=False)):
                known = None if correct is None else bool(correct[number, place])
                figure.cell(image, left, row_top, side).mark(known)
                if scores is not None:
                    kind = "d" if scores.dtype.kind in "iu" else ".2f"
                    value = f"{scores[number, place]:{kind}}"
                    figure.note(left + side / 2, row_top + side + 0.05, value, **CENTRED)
    note = f"number under a result: {score}" if scored and score else ""
    if any(correct is not None for _, correct, _ in methods.values()):
        figure.key("same class as the query", "another class", note)
    else:
        figure.note(MARGIN, figure.get_figheight() - MARGIN, note)
    return figure


def class_board(images: Sequence, names: Sequence[str], columns: int | None = None) -> Picture:
    """Data at a glance: a strip of images per class with its name; images[i] are of class i."""
    check_lengths(images=images, names=names)
    each = max(len(strip) for strip in images)
    columns = columns or max(1, min(len(images), round(10 / each)))
    gutter = 0.16
    strip_width = (WIDTH - 2 * MARGIN - (columns - 1) * gutter) / columns
    side = min((strip_width - (each - 1) * 0.03) / each, 1.6)
    names = [wrap(name, each * (side + 0.03) + gutter / 2, SMALL, lines=2) for name in names]
    line = 0.1 + height_of(names)
    rows = -(-len(images) // columns)
    figure = Picture(2 * MARGIN + rows * (side + line))
    for number, (strip, name) in enumerate(zip(images, names, strict=True)):
        left = MARGIN + number % columns * (strip_width + gutter)
        top = MARGIN + number // columns * (side + line)
        for place, image in enumerate(strip):
            figure.cell(image, left + place * (side + 0.03), top, side)
        figure.write(left, top + side + 0.03, name, size=SMALL, va="top")
    return figure


def classes_at_a_glance(
    pixels: Sequence, labels, class_names: Sequence[str], classes: int = 12, each: int = 4
) -> Picture:
    """`class_board` of the first images of classes spread evenly over all: `pixels` are N images by
    index, labels (N,) integers, class names indexed by label."""
    labels = as_array(labels)
    present = np.unique(labels)
    chosen = np.linspace(0, len(present) - 1, min(classes, len(present))).round().astype(int)
    members = [np.flatnonzero(labels == label)[:each].tolist() for label in present[chosen]]
    names = [readable(class_names[label]) for label in present[chosen]]
    return class_board([[pixels[i] for i in strip] for strip in members], names)


def patch_board(images: Sequence[Sequence], boxes, scores, names: Sequence[str]) -> Picture:
    """The patches that fire each attribute dimension most, enlarged, and below where each lies.

    Args:
        images: (d, n) full images.  boxes: (d, n, 4) x1 y1 x2 y2 in pixels of those images.
        scores: (d, n) responses, written under the patches.  names: of d dimensions.
    """
    boxes, scores = as_array(boxes), as_array(scores)
    check_lengths(images=images, boxes=boxes, scores=scores, names=names)
    label, count = 1.0, max(len(row) for row in images)
    side = min((WIDTH - 2 * MARGIN - label - (count - 1) * GAP) / count, 1.25)
    height = 2 * side + 0.03 + LINE + 0.14
    figure = Picture(2 * MARGIN + len(images) * height - 0.14)
    for row, name in enumerate(names):
        top = MARGIN + row * height
        style = {"room": label - 0.1, "lines": 3, "weight": "bold"}
        figure.write(MARGIN, top + side / 2, name, **style, va="center")
        figure.note(MARGIN, top + 1.5 * side, "where it lies", va="center")
        for place, image in enumerate(images[row]):
            left = MARGIN + label + place * (side + GAP)
            image = as_rgb(image)
            x1, y1, x2, y2 = (round(float(edge)) for edge in boxes[row, place])
            patch = image[max(y1, 0) : max(y2, y1 + 1), max(x1, 0) : max(x2, x1 + 1)]
            figure.cell(patch, left, top, side)
            whole = figure.cell(image, left, top + side + 0.03, side, crop=False)
            whole.outline((x1, y1, x2, y2))
            value = f"{scores[row, place]:.2f}"
            figure.note(left + side / 2, top + 2 * side + 0.05, value, **CENTRED)
    return figure


def _checked(name: str, queries: int, images, correct, scores=None) -> tuple:
    prefix = f"{name}: " if name else ""
    correct = None if correct is None else as_array(correct).astype(bool)
    scores = None if scores is None else as_array(scores)
    if len(images) != queries:
        raise ValueError(f"{prefix}{queries} queries but {len(images)} rows of results")
    shape = (queries, len(images[0]))
    if any(len(row) != shape[1] for row in images) or shape[1] == 0:
        raise ValueError(f"{prefix}every query needs the same number of results, at least one")
    for what, values in (("correct", correct), ("scores", scores)):
        if values is not None and values.shape != shape:
            needed = f"{what} must have shape {shape} like the results"
            raise ValueError(f"{prefix}{needed}, got {values.shape}")
    return images, correct, scores
