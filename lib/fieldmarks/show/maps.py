"""Maps and plots: response maps over photographs, training curves, and a map of an embedding space.

As in `galleries`: plain arrays or tensors in, a matplotlib figure out, no pyplot. Heat is drawn in inferno, whose
lightness rises evenly; where there is little of it, the photograph shows through.
"""

import warnings
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

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
    _cell,
    _figure,
    _text,
    _wrap,
    as_rgb,
)

HEAT = matplotlib.colormaps["inferno"]
# Okabe & Ito's palette, without its yellow (too pale on white)
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LINES = ("-", "--", "-.", ":")
NOT_LOSSES = ("epoch", "step", "seconds", "learning_rate", "lr", "images_per_second")


def blend(image, response, strength: float = 0.7) -> np.ndarray:
    """A response map over its photograph: (H, W, 3) image, (h, w) map in [0, 1] -> (H, W, 3) float32 in [0, 1]."""
    image, response = as_rgb(image), np.clip(_array(response).astype(np.float32), 0, 1)
    if response.ndim != 2:
        raise ValueError(f"a response map must be (h, w), got {response.shape}")
    if not np.isfinite(response).all():
        raise ValueError("a response map must not hold NaN or infinity")
    response = _resize(response, image.shape[:2])[:, :, None]
    grey = image.mean(axis=2, keepdims=True)
    photograph = 0.6 * image + 0.4 * grey  # paler colours, so that heat is not taken for plumage
    alpha = strength * response**2  # broad maps must not hide what they lie on
    return ((1 - alpha) * photograph + alpha * HEAT(response[:, :, 0])[:, :, :3]).astype(np.float32)


def overlay(
    image, response, title: str = "", legend: str = "response, share of its maximum"
) -> Picture:
    """One photograph with its response map and a legend of the colours."""
    image = as_rgb(image)
    height = 4.0
    width = min(height * image.shape[1] / image.shape[0], WIDTH - 2)
    height = width * image.shape[0] / image.shape[1]
    title = _wrap(title, width + 0.9, TEXT + 1, lines=2)
    head = 0.3 + 0.15 * title.count("\n") if title else 0.0
    figure = _figure(height + head + 2 * MARGIN, width + 1.05 + 2 * MARGIN)
    if title:
        _text(figure, MARGIN, MARGIN, title, va="top", weight="bold", size=TEXT + 1)
    axes = _axes(figure, MARGIN, MARGIN + head, width, height)
    axes.imshow(blend(image, response), aspect="auto")
    axes.set_axis_off()
    _colour_bar(figure, MARGIN + width + 0.15, MARGIN + head, height, legend)
    return figure


def map_grid(
    rows: Sequence[tuple],
    titles: Sequence[str] | None = None,
    legend: str = "response, share of each map's maximum",
) -> Picture:
    """Rows of photographs and response maps.

    For the paper's Fig. 3: the photographs, the whole views with their maps, then a row per local view. For its
    Fig. 4: the photographs, then a row per method.

    Args:
        rows: (label, images, maps) each: n images and (n, h, w) maps in [0, 1], or None for the images alone.
        titles: n column titles.
    """
    count = max((len(images) for _, images, _ in rows), default=0)
    for label, images, maps in rows:
        if maps is not None and len(maps) != len(images):
            raise ValueError(f'row "{label}" has {len(images)} images but {len(maps)} maps')
    if count == 0 or (titles is not None and len(titles) != count):
        raise ValueError(
            f"rows hold up to {count} images, titles are {0 if titles is None else len(titles)}"
        )
    label_width, bar, gap = 1.05, 0.75 if any(maps is not None for *_, maps in rows) else 0.0, 0.05
    side = min((WIDTH - 2 * MARGIN - label_width - bar - (count - 1) * gap) / count, 2.2)
    head = 0.34 if titles is not None else 0.0
    figure = _figure(
        2 * MARGIN + head + len(rows) * (side + gap) - gap,
        2 * MARGIN + label_width + count * (side + gap) - gap + bar,
    )
    for place, title in enumerate(titles or ()):
        _text(
            figure,
            MARGIN + label_width + place * (side + gap) + side / 2,
            MARGIN + head - 0.06,
            _wrap(title, side, SMALL, lines=2),
            ha="center",
            va="bottom",
            size=SMALL,
        )
    for row, (label, images, maps) in enumerate(rows):
        top = MARGIN + head + row * (side + gap)
        _text(
            figure,
            MARGIN + label_width - 0.1,
            top + side / 2,
            _wrap(label, label_width - 0.1, TEXT, lines=3),
            ha="right",
            va="center",
            weight="bold",
        )
        for place, image in enumerate(images):
            shown = image if maps is None else blend(image, maps[place])
            _cell(figure, shown, MARGIN + label_width + place * (side + gap), top, side)
    if bar:
        height = min(len(rows) * (side + gap) - gap, 3.0)
        _colour_bar(
            figure, figure.get_figwidth() - MARGIN - bar + 0.14, MARGIN + head, height, legend
        )
    return figure


def curves(
    history: Sequence[Mapping[str, float]], scores: Sequence[str] = ("recall@1",)
) -> Picture:
    """Training curves: each loss term on the left, scores in per cent on the right.

    Args:
        history: one record per epoch, such as {"epoch": 1, "attribute": 3.2, "consistency": 0.4, "recall@1": 0.31}.
            A value may be missing or None, as a score is between evaluations; without "epoch" records count from 1.
        scores: names of fractions in [0, 1]; every other name is a loss, but for times and rates.
    """
    names = list(dict.fromkeys(name for record in history for name in record))
    losses = [name for name in names if name not in scores and name not in NOT_LOSSES]
    shown = [name for name in scores if name in names]
    if not losses and not shown:
        raise ValueError("the history holds neither losses nor scores")
    figure = _figure(3.3, photographs=False)
    panels = [panel for panel in (("loss", losses, 1), ("score, %", shown, 100)) if panel[1]]
    width = (WIDTH - 2 * MARGIN) / len(panels)
    for number, (label, series, factor) in enumerate(panels):
        axes = _axes(figure, MARGIN + number * width + 0.6, MARGIN + 0.35, width - 0.8, 2.25)
        largest, smallest = 0.0, np.inf
        for place, name in enumerate(series):
            points = [
                (record.get("epoch", index + 1), factor * record[name])
                for index, record in enumerate(history)
                if record.get(name) is not None
            ]
            epochs, values = zip(*points) if points else ((), ())
            axes.plot(
                epochs,
                values,
                color=COLOURS[place % len(COLOURS)],
                ls=LINES[place % len(LINES)],
                lw=1.8,
                marker="o" if len(points) <= 25 else None,
                ms=3.5,
                label=name.replace("_", " "),
            )
            largest, smallest = max(largest, *values, 0.0), min(smallest, *values, np.inf)
        _style(axes, "epoch", label)
        first, last = axes.dataLim.intervalx
        axes.set_xlim(
            first - 0.3, last + 0.3
        )  # one epoch alone would stretch its axis over fractions
        if factor == 1 and smallest > 0 and largest / smallest > 30:
            axes.set_yscale("log")
            axes.set_ylabel("loss (logarithmic)", size=TEXT)
            axes.yaxis.set_major_formatter("{x:g}")
        elif factor == 1 and smallest >= 0:
            axes.set_ylim(0, 1.06 * largest)
        axes.legend(
            frameon=False,
            fontsize=SMALL,
            labelcolor=INK,
            loc="lower left",
            bbox_to_anchor=(-0.02, 1.0),
            ncols=len(series),
            columnspacing=1.2,
            handlelength=1.8,
            borderaxespad=0.2,
        )
    return figure


def embedding_map(
    points,
    labels,
    thumbnails: Sequence | None = None,
    names: Sequence[str] | None = None,
    title: str = "",
) -> Picture:
    """A flat map of an embedding space, such as `project` makes: classes by colour and marker, named at their middle.

    Args:
        points: (N, 2). labels: (N,) integers.
        thumbnails: N images, or None; a few, spread over the map, are drawn in the place of their points.
        names: class names, indexed by label; without them the label itself is written.
    """
    points, labels = _array(points).astype(float), _array(labels)
    if points.ndim != 2 or points.shape[1] != 2 or labels.shape != points.shape[:1]:
        raise ValueError(
            f"points must be (N, 2) and labels (N,), got {points.shape} and {labels.shape}"
        )
    if thumbnails is not None and len(thumbnails) != len(points):
        raise ValueError(f"{len(points)} points but {len(thumbnails)} thumbnails")
    head = 0.3 if title else 0.0
    figure = _figure(6.6 + head, photographs=thumbnails is not None)
    if title:
        _text(figure, MARGIN, MARGIN, title, va="top", weight="bold", size=TEXT + 1)
    axes = _axes(figure, MARGIN, MARGIN + head, WIDTH - 2 * MARGIN, 6.6 - 2 * MARGIN - 0.2)
    above = 6 if thumbnails is None else 20  # points: names stand clear of what they name
    for place, label in enumerate(np.unique(labels)):
        mine = points[labels == label]
        colour = COLOURS[place % len(COLOURS)]
        marker = MARKERS[place // len(COLOURS) % len(MARKERS)]
        axes.scatter(*mine.T, s=16, color=colour, marker=marker, lw=0, alpha=0.75)
        middle = mine[
            np.argmin(((mine - np.median(mine, axis=0)) ** 2).sum(axis=1))
        ]  # a point, not a gap between two
        text = axes.annotate(
            str(label) if names is None else names[int(label)],
            middle,
            (0, above),
            size=SMALL,
            textcoords="offset points",
            color=colour,
            weight="bold",
            ha="center",
            zorder=5,
        )
        text.set_path_effects([withStroke(linewidth=2.5, foreground="white")])
    low, high = points.min(axis=0), points.max(axis=0)
    room = 0.06 * np.maximum(high - low, 1e-9)
    (left, bottom), (right, top) = low - room, high + room
    axes.set(xlim=(left, right), ylim=(bottom, top), xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_color(HAIRLINE)
    for index in _spread(points) if thumbnails is not None else ():
        image = as_rgb(thumbnails[index])
        colour = COLOURS[int(np.searchsorted(np.unique(labels), labels[index])) % len(COLOURS)]
        box = AnnotationBbox(
            OffsetImage(image, zoom=34 / max(image.shape[:2])),
            points[index],
            pad=0.12,
            zorder=3,
            bboxprops={"ec": colour, "lw": 1.4},
        )
        axes.add_artist(box)
    _text(
        figure,
        MARGIN,
        figure.get_figheight() - MARGIN,
        "near = similar; the axes have no unit",
        color=MUTED,
        size=SMALL,
    )
    return figure


def project(embeddings, seed: int = 0, neighbours: int = 15) -> np.ndarray:
    """UMAP (McInnes et al. 2018) to the plane by cosine, the same for the same seed: (N, D) -> (N, 2) float32."""
    from umap import UMAP  # imports numba, which takes seconds: only those who project wait for it

    embeddings = _array(embeddings).astype(np.float32)
    if embeddings.ndim != 2 or len(embeddings) < 4:
        raise ValueError(
            f"a projection needs (N, D) embeddings with at least 4 rows, got {embeddings.shape}"
        )
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message="n_jobs value"
        )  # a seed means one thread: known and wanted
        return UMAP(
            n_neighbors=min(neighbours, len(embeddings) - 1),
            metric="cosine",
            random_state=seed,
            init="random" if len(embeddings) < 16 else "spectral",
        ).fit_transform(embeddings)


def _spread(points: np.ndarray, columns: int = 14, rows: int = 10) -> list[int]:
    """One point for each other field of a chessboard over the map, the one nearest to the field's middle."""
    low, high = points.min(axis=0), points.max(axis=0)
    place = (points - low) / np.maximum(high - low, 1e-9) * (columns, rows)
    field = np.minimum(place.astype(int), (columns - 1, rows - 1))
    distance = ((place - field - 0.5) ** 2).sum(axis=1)
    chosen = {}
    for index in np.argsort(distance, kind="stable"):
        if field[index].sum() % 2 == 0:
            chosen.setdefault(tuple(field[index]), int(index))
    return list(chosen.values())


def _colour_bar(figure: Picture, left: float, top: float, height: float, label: str) -> None:
    """The colours as they look over a middle grey photograph."""
    steps = np.linspace(0, 1, 256)[None, :]
    colours = blend(np.full((1, 256), 0.6, np.float32), steps)[0]
    axes = _axes(figure, left, top, 0.14, height)
    bar = figure.colorbar(
        ScalarMappable(cmap=LinearSegmentedColormap.from_list("heat", colours)), cax=axes
    )
    bar.set_label(label, size=SMALL, color=MUTED)
    bar.set_ticks([0, 0.5, 1])
    bar.ax.tick_params(labelsize=SMALL, colors=MUTED, length=2)
    bar.outline.set_edgecolor(HAIRLINE)


def _style(axes, x: str, y: str) -> None:
    axes.set_xlabel(x, size=TEXT, color=INK)
    axes.set_ylabel(y, size=TEXT, color=INK)
    axes.tick_params(labelsize=SMALL, colors=MUTED, length=3)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y", color=HAIRLINE, lw=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(HAIRLINE)


def _resize(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bilinear, positions at pixel centres: (h, w) -> (H, W)."""
    for axis, length in enumerate(size):
        if values.shape[axis] == length:
            continue
        position = np.clip(
            (np.arange(length) + 0.5) * values.shape[axis] / length - 0.5, 0, values.shape[axis] - 1
        )
        low = position.astype(int)
        high = np.minimum(low + 1, values.shape[axis] - 1)
        share = (position - low).astype(np.float32)
        share = share[:, None] if axis == 0 else share
        values = np.take(values, low, axis) * (1 - share) + np.take(values, high, axis) * share
    return values
