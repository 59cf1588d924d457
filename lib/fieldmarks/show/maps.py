"""Maps and plots: response maps over photographs, training curves, a map of an embedding space.

Heat is drawn in inferno, whose lightness rises evenly; where there is little, the photograph shows
through.
"""

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from matplotlib.text import Text
from PIL import Image

from fieldmarks.show.picture import Picture, as_array, as_rgb, name_lines, plain_axes
from fieldmarks.show.style import COLOURS, HAIRLINE, MARGIN, MARKERS, SMALL, TEXT, WIDTH, line

HEAT = matplotlib.colormaps["inferno"]
NOT_LOSSES = ("epoch", "step", "seconds", "learning_rate", "lr", "images_per_second")
SHARE = "response, share of each map's maximum"
DISCRIMINATIVE = (0.79, 0.19, 0.12)  # red, as the frames of FCAENet's Fig. 8


def blend(image, response, strength: float = 0.7) -> np.ndarray:
    """A response map (h, w) in [0, 1] over its photograph: (H, W, 3) float32 in [0, 1]."""
    image, response = as_rgb(image), np.clip(as_array(response).astype(np.float32), 0, 1)
    if response.ndim != 2:
        raise ValueError(f"a response map must be (h, w), got {response.shape}")
    if not np.isfinite(response).all():
        raise ValueError("a response map must not hold NaN or infinity")
    size = image.shape[1], image.shape[0]
    resized = Image.fromarray(response).resize(size, Image.Resampling.BILINEAR)
    response = np.asarray(resized)[:, :, None]
    grey = image.mean(axis=2, keepdims=True)
    photograph = 0.6 * image + 0.4 * grey  # paler colours, so that heat is not taken for plumage
    alpha = strength * response**2  # broad maps must not hide what they lie on
    return ((1 - alpha) * photograph + alpha * HEAT(response[:, :, 0])[:, :, :3]).astype(np.float32)


def map_grid(rows: Sequence[tuple], titles=None, legend: str = SHARE) -> Picture:
    """Rows of photographs and response maps, under n column titles.

    A row is (label, images, maps): n images and (n, h, w) maps in [0, 1], or None for the images
    alone; a fourth item is n lists of boxes x1 y1 x2 y2 to frame in full images."""
    count = max((len(images) for _, images, *_ in rows), default=0)
    for label, images, maps, *_ in rows:
        if maps is not None and len(maps) != len(images):
            raise ValueError(f'row "{label}" has {len(images)} images but {len(maps)} maps')
    if count == 0 or (titles is not None and len(titles) != count):
        raise ValueError(f"rows hold up to {count} images, titles are {len(titles or ())}")
    label_width, bar, gap = 1.05, 0.75 if any(row[2] is not None for row in rows) else 0.0, 0.05
    side = min((WIDTH - 2 * MARGIN - label_width - bar - (count - 1) * gap) / count, 2.2)
    head = 0.0 if titles is None else 0.34
    height = len(rows) * (side + gap) - gap
    lefts = [MARGIN + label_width + place * (side + gap) for place in range(count)]
    figure = Picture(2 * MARGIN + head + height, lefts[-1] + side + bar + MARGIN)
    for left, title in zip(lefts, titles or (), strict=False):
        place = {"ha": "center", "va": "bottom", "size": SMALL, "room": side, "lines": 2}
        figure.write(left + side / 2, MARGIN + head - 0.06, title, **place)
    for row, (label, images, maps, *boxes) in enumerate(rows):
        top = MARGIN + head + row * (side + gap)
        place = {"ha": "right", "va": "center", "room": label_width - 0.1, "lines": 3}
        figure.write(lefts[0] - 0.1, top + side / 2, label, **place, weight="bold")
        for number, image in enumerate(images):
            shown = image if maps is None else blend(image, maps[number])
            cell = figure.cell(shown, lefts[number], top, side, crop=not boxes)
            for box in boxes[0][number] if boxes else ():
                cell.outline(box, DISCRIMINATIVE)
    if bar:
        _heat_bar(figure, lefts[-1] + side + 0.14, MARGIN + head, min(height, 3.0), legend)
    return figure


def hottest_boxes(heat, size: int, count: int) -> list[tuple[int, int, int, int]]:
    """Boxes x1 y1 x2 y2 of size x size with their upper left corner at the hottest pixel of (H, W)
    heat, then at the hottest that leaves them apart: boxes of all hot pixels would be one blob
    (FCAENet, Sec. 4.5.3)."""
    heat = as_array(heat).copy()
    height, width = heat.shape
    found = []
    while len(found) < count and heat.max() > 0:
        y, x = divmod(int(heat.argmax()), width)
        found.append((x, y, min(x + size, width), min(y + size, height)))
        heat[max(0, y - size + 1) : y + size, max(0, x - size + 1) : x + size] = 0
    return found


def curves(history: Sequence[Mapping], scores: Sequence[str] = ("recall@1",)) -> Picture:
    """Training curves: each loss term on the left, scores in per cent on the right.

    History: records such as {"epoch": 1, "attribute": 3.2, "recall@1": 0.31}, in which a value may
    be missing or None; without "epoch" they count from 1. Scores: names of fractions in [0, 1];
    every other name is a loss, but for times and rates."""
    names = list(dict.fromkeys(name for record in history for name in record))
    losses = [name for name in names if name not in scores and name not in NOT_LOSSES]
    shown = [name for name in scores if name in names]
    if not losses and not shown:
        raise ValueError("the history holds neither losses nor scores")
    figure = Picture(3.3, photographs=False)
    panels = [panel for panel in (("loss", losses, 1), ("score, %", shown, 100)) if panel[1]]
    width = (WIDTH - 2 * MARGIN) / len(panels)
    for number, (label, series, factor) in enumerate(panels):
        axes = figure.box(MARGIN + number * width + 0.6, MARGIN + 0.35, width - 0.8, 2.25)
        found = []
        for place, name in enumerate(series):
            known = [(e, row) for e, row in enumerate(history, 1) if row.get(name) is not None]
            epochs = [row.get("epoch", e) for e, row in known]
            values = [factor * row[name] for _, row in known]
            marks = {"marker": "o" if len(known) <= 25 else None, "ms": 3.5}
            axes.plot(epochs, values, **line(place), **marks, label=name.replace("_", " "))
            found += values
        plain_axes(axes, "epoch", label)
        first, last = axes.dataLim.intervalx
        axes.set_xlim(first - 0.3, last + 0.3)  # one epoch alone would take all of its axis
        largest, smallest = max(found, default=0.0), min(found, default=np.inf)
        if factor == 1 and smallest > 0 and largest / smallest > 30:
            axes.set_yscale("log")
            axes.set_ylabel("loss (logarithmic)", size=TEXT)
            axes.yaxis.set_major_formatter("{x:g}")
        elif factor == 1 and smallest >= 0:
            axes.set_ylim(0, 1.06 * largest)
        place = {"loc": "lower left", "bbox_to_anchor": (-0.02, 1.0), "borderaxespad": 0.2}
        name_lines(axes, **place, ncols=len(series), columnspacing=1.2, handlelength=1.8)
    return figure


def embedding_map(points, labels, thumbnails=None, names=None, title: str = "") -> Picture:
    """A flat map of an embedding space, such as `project` makes: classes by colour and marker.

    Args:
        points: (N, 2).  labels: (N,) integers.
        thumbnails: N images, or None; a few, spread over the map, replace their points.
        names: class names, indexed by label; without them the label itself is written.
    """
    points, labels = as_array(points).astype(float), as_array(labels)
    if points.ndim != 2 or points.shape[1] != 2 or labels.shape != points.shape[:1]:
        shapes = f"{points.shape} and {labels.shape}"
        raise ValueError(f"points must be (N, 2) and labels (N,), got {shapes}")
    if thumbnails is not None and len(thumbnails) != len(points):
        raise ValueError(f"{len(points)} points but {len(thumbnails)} thumbnails")
    head = 0.3 if title else 0.0
    figure = Picture(6.6 + head, photographs=thumbnails is not None)
    figure.heading(title)
    axes = figure.box(MARGIN, MARGIN + head, WIDTH - 2 * MARGIN, 6.6 - 2 * MARGIN - 0.2)
    low, high = points.min(axis=0), points.max(axis=0)
    room = 0.06 * np.maximum(high - low, 1e-9)
    xlim, ylim = zip(low - room, high + room, strict=True)
    axes.set(xlim=xlim, ylim=ylim, xticks=[], yticks=[])
    axes.spines[:].set_color(HAIRLINE)
    classes, place = np.unique(labels, return_inverse=True)
    colours = [COLOURS[number % len(COLOURS)] for number in range(len(classes))]
    middles = []
    for number, colour in enumerate(colours):
        mine = points[place == number]
        marker = MARKERS[number // len(COLOURS) % len(MARKERS)]
        axes.scatter(mine[:, 0], mine[:, 1], s=16, color=colour, marker=marker, lw=0, alpha=0.75)
        distance = ((mine - np.median(mine, axis=0)) ** 2).sum(axis=1)
        middles.append(mine[distance.argmin()])  # a point, not a gap between two
    boxes = []
    for index in _spread(points) if thumbnails is not None else ():
        image = as_rgb(thumbnails[index])
        small = OffsetImage(image, zoom=34 / max(image.shape[:2]))
        edge = {"ec": colours[place[index]], "lw": 1.4}
        boxes.append(AnnotationBbox(small, points[index], pad=0.12, zorder=3, bboxprops=edge))
        axes.add_artist(boxes[-1])
    titles = [str(label) if names is None else names[int(label)] for label in classes]
    _name_places(figure, axes, middles, titles, colours, boxes)
    figure.note(MARGIN, figure.get_figheight() - MARGIN, "near = similar; the axes have no unit")
    return figure


def project(embeddings, seed: int = 0, perplexity: float = 15) -> np.ndarray:
    """t-SNE (van der Maaten & Hinton 2008) to the plane by cosine: (N, D) -> (N, 2) float32, by the
    seed; `perplexity`, about as many neighbours as count, is at most N / 3."""
    from sklearn.manifold import TSNE  # takes seconds: only those who project wait for it

    embeddings = as_array(embeddings).astype(np.float32)
    if embeddings.ndim != 2 or len(embeddings) < 4:
        shape = embeddings.shape
        raise ValueError(f"a projection needs (N, D) embeddings with at least 4 rows, got {shape}")
    near = {"perplexity": min(perplexity, len(embeddings) / 3), "metric": "cosine"}
    init = "pca" if embeddings.std(axis=0).any() else "random"
    return TSNE(**near, init=init, random_state=seed, n_jobs=1).fit_transform(embeddings)


def _name_places(figure: Picture, axes, places, names, colours, pictures) -> None:
    """Names above places, but moved apart, off the pictures and into the axes, with a line between
    where there is room for all of that."""
    frame, points = axes.get_window_extent(), 72 / figure.dpi
    at = axes.transData.transform(places) * points  # in points, as all here
    texts, ground = [], {"fc": "white", "alpha": 0.75, "lw": 0, "pad": 1}
    for name, place, colour in zip(names, places, colours, strict=True):
        style = {"size": SMALL, "color": colour, "weight": "bold", "ha": "center", "va": "center"}
        rule = {"arrowstyle": "-", "color": colour, "lw": 0.8, "shrinkA": 0, "shrinkB": 0}
        ends = {"xytext": (0, 0), "textcoords": "offset points", "arrowprops": rule}
        texts.append(axes.annotate(name, place, **ends, **style, zorder=5, bbox=ground))
    sizes = [Text.get_window_extent(text).size * points + 3 for text in texts]
    wanted = at + (0, 6 + sizes[0][1] / 2)
    boxes = [picture.get_window_extent() for picture in pictures]
    taken = [((box.min + box.max) / 2 * points, box.size * points + 2) for box in boxes]
    moved = place_apart(wanted, sizes, frame.min * points, frame.max * points, taken)
    for text, offset in zip(texts, moved - at, strict=True):
        text.set_position(offset)


def place_apart(wanted, sizes, low, high, taken=()) -> np.ndarray:
    """Middles (n, 2) for boxes with these sizes, near the wanted middles (n, 2) and between `low`
    and `high`: each in turn goes to the nearest place tried where it meets none before it and none
    of `taken`, (middle, size) each; where there is no such place, to the one where it meets least.
    """
    steps = np.stack(np.meshgrid(np.arange(-6, 7) / 4, np.arange(-30, 31) / 2), axis=-1)
    there, placed = list(taken), []
    for middle, size in zip(np.asarray(wanted, float), np.asarray(sizes, float), strict=True):
        moves = steps.reshape(-1, 2) * size
        moves = moves[np.argsort(np.hypot(*moves.T), kind="stable")]
        tried = np.clip(middle + moves, low + size / 2, high - size / 2)
        shared = np.zeros(len(tried))
        for other, extent in there:
            shared += ((size + extent) / 2 - np.abs(tried - other)).clip(min=0).prod(axis=1)
        placed.append(tried[shared.argmin()])
        there.append((placed[-1], size))
    return np.array(placed)


def _spread(points: np.ndarray, columns: int = 14, rows: int = 10) -> list[int]:
    """One point for each other field of a chessboard over the map, the nearest to its middle."""
    low, high = points.min(axis=0), points.max(axis=0)
    place = (points - low) / np.maximum(high - low, 1e-9) * (columns, rows)
    field = np.minimum(place.astype(int), (columns - 1, rows - 1))
    order = np.argsort(((place - field - 0.5) ** 2).sum(axis=1), kind="stable")
    order = order[field[order].sum(axis=1) % 2 == 0]
    first = np.unique(field[order], axis=0, return_index=True)[1]
    return order[np.sort(first)].tolist()


def _heat_bar(figure: Picture, left: float, top: float, height: float, label: str) -> None:
    """The colours as they look over a middle grey photograph."""
    colours = blend(np.full((1, 256), 0.6, np.float32), np.linspace(0, 1, 256)[None, :])[0]
    heat = ScalarMappable(cmap=LinearSegmentedColormap.from_list("heat", colours))
    figure.colour_bar((left, top, 0.14, height), heat, label, ticks=(0, 0.5, 1))
