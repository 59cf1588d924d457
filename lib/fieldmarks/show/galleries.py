"""Photographs in rows: retrieval galleries, before and after, boards of classes and of patches.

Every function takes plain arrays or tensors and returns a matplotlib figure, made without pyplot: nothing global is
touched, and a notebook shows the figure when it is the last value of a cell. Images are (H, W, 3) RGB, uint8 in 0..255
or float in [0, 1], of any size; (H, W) is shown as grey. Cells are square and show the middle of the image, as the
network sees it. Right and wrong differ by colour, by sign and by line, so that they survive grey print and any eye.
"""

import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from fieldmarks.files import atomic

INK, MUTED, HAIRLINE = "#1d2433", "#666e7b", "#d5d9e0"
RIGHT, WRONG, NEUTRAL, ACCENT = "#0f8a5f", "#c9311f", "#4a5568", "#ffb000"
WIDTH = 10.0  # inches: the width of a notebook
TEXT, SMALL = 8.5, 7.0  # points
COSINE = "cosine to the query"
GAP, MARGIN, LINE = (
    0.07,
    0.12,
    0.15,
)  # inches: between cells, around the figure, height of a line of small text


class Picture(Figure):
    """A figure that a notebook shows without a pyplot backend: photographs as JPEG, to keep the notebook small."""

    photographs = True

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, bytes]:
        kind = "jpeg" if self.photographs else "png"
        with io.BytesIO() as stream:
            self.savefig(stream, format=kind, dpi=110)
            return {f"image/{kind}": stream.getvalue()}


def gallery(
    query_images: Sequence,
    result_images: Sequence[Sequence],
    correct,
    scores=None,
    titles=None,
    score: str = COSINE,
) -> Picture:
    """Queries on the left, their nearest neighbours beside them, best first: (Q) and (Q, R) images.

    Args:
        query_images: Q images, framed in grey.
        result_images: for each query its R results, framed in green with a check or, dashed, in red with a cross.
        correct: (Q, R) bool, whether a result shares the query's class.
        scores: (Q, R) numbers, written under the results.
        titles: Q names, written under the queries.
        score: what the scores are.

    Raises:
        ValueError: numbers of queries or results that do not fit, or no query.
    """
    return _rows(query_images, {"": (result_images, correct, scores)}, titles, score)


def before_after(
    query_images: Sequence, methods: Mapping[str, tuple], titles=None, score: str = COSINE
) -> Picture:
    """The same queries under two or more methods, one row each.

    Args:
        query_images: Q images.
        methods: name -> (result_images, correct, scores) as in `gallery`; scores may be None.
        titles: Q names, written under the queries.
        score: what the scores are.
    """
    return _rows(query_images, methods, titles, score)


def class_board(
    images: Sequence[Sequence], names: Sequence[str], columns: int | None = None
) -> Picture:
    """Data at a glance: a strip of images per class with its name. images[i] are some images of class i."""
    _same_length(images=images, names=names)
    each = max(len(strip) for strip in images)
    columns = columns or max(1, min(len(images), round(10 / each)))
    gutter = 0.16
    strip_width = (WIDTH - 2 * MARGIN - (columns - 1) * gutter) / columns
    side = min((strip_width - (each - 1) * 0.03) / each, 1.6)
    names = [_wrap(name, each * (side + 0.03) + gutter / 2, SMALL, lines=2) for name in names]
    line = 0.1 + _height(names)
    rows = -(-len(images) // columns)
    figure = _figure(2 * MARGIN + rows * (side + line))
    for number, (strip, name) in enumerate(zip(images, names)):
        left = MARGIN + number % columns * (strip_width + gutter)
        top = MARGIN + number // columns * (side + line)
        for place, image in enumerate(strip):
            _cell(figure, image, left + place * (side + 0.03), top, side)
        _text(figure, left, top + side + 0.03, name, size=SMALL, va="top")
    return figure


def patch_board(images: Sequence[Sequence], boxes, scores, names: Sequence[str]) -> Picture:
    """The patches that fire each attribute dimension most: each patch enlarged, and below it where it comes from.

    Args:
        images: (d, n) whole images.
        boxes: (d, n, 4) x1 y1 x2 y2 in pixels of those images.
        scores: (d, n) responses, written under the patches.
        names: d names of dimensions.
    """
    boxes, scores = _array(boxes), _array(scores)
    _same_length(images=images, boxes=boxes, scores=scores, names=names)
    label, count = 1.0, max(len(row) for row in images)
    side = min((WIDTH - 2 * MARGIN - label - (count - 1) * GAP) / count, 1.25)
    height = 2 * side + 0.03 + LINE + 0.14
    figure = _figure(2 * MARGIN + len(images) * height - 0.14)
    for row, name in enumerate(names):
        top = MARGIN + row * height
        _text(
            figure,
            MARGIN,
            top + side / 2,
            _wrap(name, label - 0.1, TEXT, lines=3),
            va="center",
            weight="bold",
        )
        _text(
            figure, MARGIN, top + 1.5 * side, "where it lies", size=SMALL, color=MUTED, va="center"
        )
        for place, image in enumerate(images[row]):
            left = MARGIN + label + place * (side + GAP)
            image = as_rgb(image)
            x1, y1, x2, y2 = (round(float(edge)) for edge in boxes[row, place])
            _cell(
                figure,
                image[max(y1, 0) : max(y2, y1 + 1), max(x1, 0) : max(x2, x1 + 1)],
                left,
                top,
                side,
            )
            axes = _cell(figure, image, left, top + side + 0.03, side, crop=False)
            for colour, width in (("white", 3.0), (INK, 1.2)):
                axes.add_patch(
                    Rectangle(
                        (x1 - 0.5, y1 - 0.5), x2 - x1, y2 - y1, fill=False, ec=colour, lw=width
                    )
                )
            _text(
                figure,
                left + side / 2,
                top + 2 * side + 0.05,
                f"{scores[row, place]:.2f}",
                size=SMALL,
                color=MUTED,
                ha="center",
                va="top",
            )
    return figure


def save(figure: Figure, path: str | os.PathLike, dpi: int = 120) -> Path:
    """Write a PNG or JPEG, complete or not at all: a reader never sees half a file. At most 150 dpi.

    Raises:
        ValueError: another file type, or a resolution that would bloat a notebook. OSError: the disk refuses.
    """
    path = Path(path)
    if path.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise ValueError(f"figures are written as .png, .jpg or .jpeg, got {path.name}")
    if not 1 <= dpi <= 150:
        raise ValueError(f"dpi must lie between 1 and 150, got {dpi}")
    options = {} if path.suffix.lower() == ".png" else {"pil_kwargs": {"quality": 88}}
    with atomic(path) as unfinished, open(unfinished, "wb") as stream:
        figure.savefig(stream, format=path.suffix.lower()[1:], dpi=dpi, **options)
    return path


def as_rgb(image) -> np.ndarray:
    """(H, W, 3) or (H, W), uint8 or float in [0, 1] -> (H, W, 3) float32 in [0, 1]."""
    image = _array(image)
    if image.ndim == 2:
        image = np.repeat(image[:, :, None], 3, axis=2)
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError(f"an image must be (H, W, 3) or (H, W), got {image.shape}")
    if image.dtype == np.uint8:
        return image.astype(np.float32) / 255
    if not np.issubdtype(image.dtype, np.floating):
        raise ValueError(f"an image must be uint8 or float, got {image.dtype}")
    return np.clip(image, 0, 1).astype(np.float32)


# --- how a row is drawn -----------------------------------------------------------------------------------------------


def _rows(query_images, methods: Mapping[str, tuple], titles, score: str) -> Picture:
    """A block per query, a row per method in it."""
    if len(query_images) == 0 or len(methods) == 0:
        raise ValueError("there is nothing to show: give at least one query and one method")
    methods = {
        name: _checked(name, len(query_images), *results) for name, results in methods.items()
    }
    if titles is not None:
        _same_length(query_images=query_images, titles=titles)
    named = len(methods) > 1
    label = 0.95 if named else 0.2  # between the query and its results
    count = max(len(row) for images, _, _ in methods.values() for row in images)
    side = min((WIDTH - 2 * MARGIN - label - count * GAP) / (count + 1), 1.5)
    titles = [
        _wrap(title, side + (0.1 if not named else 0.25), SMALL, lines=2) for title in titles or ()
    ]
    scored = any(scores is not None for _, _, scores in methods.values())
    under = 0.05 + max(LINE if scored else 0, 0 if named else _height(titles))
    header, between, footer = 0.24, 0.16, 0.26
    block = len(methods) * (side + under)
    figure = _figure(2 * MARGIN + header + len(query_images) * (block + between) - between + footer)

    def left_of(place: int) -> float:
        return MARGIN + side + label + place * (side + GAP)

    _text(figure, MARGIN + side / 2, MARGIN, "query", ha="center", va="top", color=MUTED)
    for place in range(count):
        _text(
            figure,
            left_of(place) + side / 2,
            MARGIN,
            str(place + 1),
            ha="center",
            va="top",
            color=MUTED,
        )
    for number, query in enumerate(query_images):
        top = MARGIN + header + number * (block + between)
        if number:
            _rule(figure, top - between / 2)
        query_top = top + (block - side - under) / 2
        _frame(_cell(figure, query, MARGIN, query_top, side), NEUTRAL)
        if titles:
            _text(figure, MARGIN, query_top + side + 0.05, titles[number], size=SMALL, va="top")
        for row, (name, (images, correct, scores)) in enumerate(methods.items()):
            row_top = top + row * (side + under)
            if named:
                right = f"{int(correct[number].sum())} of {len(images[number])} right"
                _text(
                    figure,
                    left_of(0) - 0.1,
                    row_top + side / 2 - 0.02,
                    _wrap(name, label - 0.15, TEXT, lines=2),
                    ha="right",
                    va="bottom",
                    weight="bold",
                )
                _text(
                    figure,
                    left_of(0) - 0.1,
                    row_top + side / 2 + 0.02,
                    right,
                    size=SMALL,
                    ha="right",
                    va="top",
                    color=MUTED,
                )
            for place, image in enumerate(images[number]):
                axes = _cell(figure, image, left_of(place), row_top, side)
                _mark(axes, bool(correct[number, place]))
                if scores is not None:
                    _text(
                        figure,
                        left_of(place) + side / 2,
                        row_top + side + 0.05,
                        f"{scores[number, place]:{'d' if scores.dtype.kind in 'iu' else '.2f'}}",
                        size=SMALL,
                        color=MUTED,
                        ha="center",
                        va="top",
                    )
    _legend(figure, score if scored else "")
    return figure


def _checked(name: str, queries: int, images, correct, scores=None):
    prefix = f"{name}: " if name else ""
    correct = _array(correct).astype(bool)
    scores = None if scores is None else _array(scores)
    if len(images) != queries:
        raise ValueError(f"{prefix}{queries} queries but {len(images)} rows of results")
    shape = (queries, len(images[0]))
    if any(len(row) != shape[1] for row in images) or shape[1] == 0:
        raise ValueError(f"{prefix}every query needs the same number of results, at least one")
    for what, values in (("correct", correct), ("scores", scores)):
        if values is not None and values.shape != shape:
            raise ValueError(
                f"{prefix}{what} must have shape {shape} like the results, got {values.shape}"
            )
    return images, correct, scores


def _mark(axes, correct: bool) -> None:
    """Green, solid, with a check; or red, dashed, with a cross."""
    colour = RIGHT if correct else WRONG
    _frame(axes, colour, dashed=not correct)
    badge = {"boxstyle": "circle,pad=0.18", "fc": colour, "ec": "white", "lw": 0.6}
    axes.text(
        0.96,
        0.95,
        "\u2713" if correct else "\u2717",
        transform=axes.transAxes,
        ha="right",
        va="top",
        size=8,
        color="white",
        weight="bold",
        bbox=badge,
    )


def _frame(axes, colour: str, dashed: bool = False) -> None:
    if dashed:  # white below the dashes keeps them apart on a dark photograph
        axes.add_patch(
            Rectangle(
                (0, 0), 1, 1, transform=axes.transAxes, fill=False, ec="white", lw=3, clip_on=False
            )
        )
    axes.add_patch(
        Rectangle(
            (0, 0),
            1,
            1,
            transform=axes.transAxes,
            fill=False,
            ec=colour,
            lw=2.6,
            clip_on=False,
            ls=(0, (2.2, 0.9)) if dashed else "-",
        )
    )


def _legend(figure: Picture, score: str) -> None:
    y = figure.get_figheight() - MARGIN
    _text(
        figure, MARGIN, y, "\u2713 same class as the query", color=RIGHT, size=SMALL, weight="bold"
    )
    _text(figure, MARGIN + 1.75, y, "\u2717 another class", color=WRONG, size=SMALL, weight="bold")
    if score:
        _text(figure, MARGIN + 2.85, y, f"number under a result: {score}", color=MUTED, size=SMALL)


# --- figures in inches from the top left ------------------------------------------------------------------------------


def _figure(height: float, width: float = WIDTH, *, photographs: bool = True) -> Picture:
    figure = Picture(figsize=(width, height), facecolor="white")
    figure.photographs = photographs
    FigureCanvasAgg(figure)
    return figure


def _axes(figure: Picture, left: float, top: float, width: float, height: float):
    full_width, full_height = figure.get_size_inches()
    return figure.add_axes(
        (
            left / full_width,
            1 - (top + height) / full_height,
            width / full_width,
            height / full_height,
        )
    )


def _cell(figure: Picture, image, left: float, top: float, side: float, crop: bool = True):
    """One image in a square: its middle, or all of it on a pale ground."""
    image = as_rgb(image)
    if crop:
        height, width = image.shape[:2]
        short = min(height, width)
        y, x = (height - short) // 2, (width - short) // 2
        image = image[y : y + short, x : x + short]
    axes = _axes(figure, left, top, side, side)
    axes.set_facecolor("#f1f3f6")
    axes.imshow(image, interpolation="antialiased")
    long = max(image.shape[:2])
    axes.set_xlim((image.shape[1] - long) / 2 - 0.5, (image.shape[1] + long) / 2 - 0.5)
    axes.set_ylim((image.shape[0] + long) / 2 - 0.5, (image.shape[0] - long) / 2 - 0.5)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    return axes


def _text(
    figure: Picture,
    x: float,
    y: float,
    text: str,
    *,
    size: float = TEXT,
    color: str = INK,
    **options,
) -> None:
    width, height = figure.get_size_inches()
    if options.get("va") == "top":  # baselines at fixed heights, whatever letters a line holds
        for number, line in enumerate(text.split("\n")):
            baseline = y + (0.78 + 1.25 * number) * size / 72
            figure.text(
                x / width,
                1 - baseline / height,
                line,
                size=size,
                color=color,
                **options | {"va": "baseline"},
            )
        return
    figure.text(
        x / width, 1 - y / height, text, size=size, color=color, linespacing=1.15, **options
    )


def _rule(figure: Picture, y: float) -> None:
    width, height = figure.get_size_inches()
    figure.add_artist(
        Line2D((MARGIN / width, 1 - MARGIN / width), (1 - y / height,) * 2, color=HAIRLINE, lw=0.8)
    )


def _shorten(text: str, width: float, size: float) -> str:
    """Text that fits a width in inches, with an ellipsis where it is cut; DejaVu is about 0.6 em wide."""
    room = max(int(width * 72 / (0.6 * size)), 2)
    return text if len(text) <= room else text[: room - 1].rstrip() + "\u2026"


def _wrap(text: str, width: float, size: float, lines: int) -> str:
    """Text on at most `lines` lines of a width in inches."""
    wrapped: list[str] = []
    for word in text.split():
        if wrapped and _shorten(f"{wrapped[-1]} {word}", width, size) == f"{wrapped[-1]} {word}":
            wrapped[-1] += f" {word}"
        else:
            wrapped.append(word)
    if len(wrapped) > lines:
        wrapped[lines - 1 :] = [" ".join(wrapped[lines - 1 :])]
    return "\n".join(_shorten(line, width, size) for line in wrapped)


def _height(texts: Sequence[str]) -> float:
    """Inches that the tallest of some small texts takes."""
    return max((LINE + 0.12 * text.count("\n") for text in texts), default=0.0)


def _array(values) -> np.ndarray:
    if not hasattr(values, "detach"):
        return np.asarray(values)
    values = values.detach().cpu()
    return (
        values.float() if values.is_floating_point() else values
    ).numpy()  # numpy knows no bfloat16


def _same_length(**parts) -> None:
    lengths = {name: len(part) for name, part in parts.items()}
    if len(set(lengths.values())) != 1 or 0 in lengths.values():
        raise ValueError(
            "as many of each are needed, at least one, got "
            + ", ".join(f"{count} {name}" for name, count in lengths.items())
        )
