"""What all figures are drawn with: a page measured in inches from its top left.

Figures are made of plain arrays or tensors, without pyplot, so nothing global is touched. Images
are (H, W, 3) RGB, uint8 in 0..255 or float in [0, 1], of any size; (H, W) is shown as grey. Right
and wrong differ by colour, sign and line, so that they survive grey print and any eye.
"""

import io
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import BboxImage
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Bbox, TransformedBbox

from fieldmarks.files import atomic
from fieldmarks.show.style import HAIRLINE, INK, MARGIN, MUTED, SIGNS, SMALL, TEXT, WIDTH, wrap


class Picture(Figure):
    """A figure that a notebook shows when it is the last value of a cell.

    Args:
        height, width: in inches.  photographs: shown as JPEG, to keep a notebook small.
    """

    def __init__(self, height: float, width: float = WIDTH, *, photographs: bool = True):
        super().__init__(figsize=(width, height), facecolor="white")
        self.photographs = photographs
        self.cells: list[Cell] = []
        FigureCanvasAgg(self)

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, bytes]:
        kind = "jpeg" if self.photographs else "png"
        options = {} if self.photographs else {"compress_level": 1}  # for a control's answer
        with io.BytesIO() as stream:
            self.savefig(stream, format=kind, dpi=110, pil_kwargs=options)
            return {f"image/{kind}": stream.getvalue()}

    def draw(self, renderer) -> None:
        """Letters are spaced as the font means them, and drawn faster, where none is fitted to
        whole pixels."""
        with rc_context({"text.hinting": "none"}):
            super().draw(renderer)

    def box(self, left: float, top: float, width: float, height: float) -> Axes:
        """Axes at a place in inches from the top left."""
        return self.add_axes(self.place(left, top, width, height).bounds)

    def place(self, left: float, top: float, width: float, height: float) -> Bbox:
        """A place in inches from the top left in shares of the figure."""
        w, h = self.get_size_inches()
        return Bbox.from_bounds(left / w, 1 - (top + height) / h, width / w, height / h)

    def cell(self, image, left: float, top: float, side: float, crop: bool = True) -> "Cell":
        """One image in a square: its middle, as the network sees it, or all on pale ground."""
        image = as_rgb(image)
        if crop:
            short = min(image.shape[:2])
            y, x = ((length - short) // 2 for length in image.shape[:2])
            image = image[y : y + short, x : x + short]
        self.cells.append(cell := Cell(self, image, left, top, side))
        return cell

    def write(self, x: float, y: float, text: str, *, room=0.0, lines: int = 1, **options) -> Text:
        """Text, with the options of `Figure.text`, cut to `lines` lines of `room` inches."""
        width, height = self.get_size_inches()
        options = {"size": TEXT, "color": INK, "linespacing": 1.15} | options
        text = wrap(text, room, options["size"], lines) if room else text
        if options.get("va") != "top":
            return self.text(x / width, 1 - y / height, text, **options)
        options["va"] = "baseline"  # at fixed heights, whatever letters a line holds
        for number, line in enumerate(text.split("\n")):
            baseline = y + (0.78 + 1.25 * number) * options["size"] / 72
            last = self.text(x / width, 1 - baseline / height, line, **options)
        return last

    def note(self, x: float, y: float, text: str, **options) -> Text:
        """Small grey text, as `write`."""
        return self.write(x, y, text, **{"size": SMALL, "color": MUTED} | options)

    def heading(self, text: str, x: float = MARGIN) -> None:
        """Large bold text at the top."""
        if text:
            self.write(x, MARGIN, text, va="top", weight="bold", size=TEXT + 1)

    def rule(self, y: float) -> None:
        """A hairline from margin to margin."""
        width, height = self.get_size_inches()
        ends = MARGIN / width, 1 - MARGIN / width
        self.add_artist(Line2D(ends, (1 - y / height,) * 2, color=HAIRLINE, lw=0.8))

    def colour_bar(self, place: Sequence[float], colours, label: str, ticks=None) -> None:
        """What colours stand for; the place is left, top, width, height in inches."""
        bar = self.colorbar(colours, cax=self.box(*place), ticks=ticks)
        bar.set_label(label, size=SMALL, color=MUTED)
        bar.ax.tick_params(labelsize=SMALL, colors=MUTED, length=2)
        bar.outline.set_edgecolor(HAIRLINE)

    def key(self, right: str, wrong: str, note: str = "") -> None:
        """What the signs of `mark` say, and a note, at the foot."""
        x, y = MARGIN, self.get_figheight() - MARGIN
        for text, (sign, colour) in zip((right, wrong), (SIGNS[True], SIGNS[False]), strict=True):
            written = self.note(x, y, f"{sign} {text}", color=colour, weight="bold")
            x = written.get_window_extent().x1 / self.dpi + 0.2
        self.note(x, y, note)


class Cell:
    """A square of a picture, in inches from its top left, with an image (H, W, 3) in its middle:
    without axes, which take ten times as long to make, and a gallery has hundreds.

    Attributes: `place`, in shares of the figure; `sign`, of its mark; `frames`, around it or in it.
    """

    def __init__(self, figure: Picture, image: np.ndarray, left: float, top: float, side: float):
        self.figure, self.image, self.left, self.top, self.side = figure, image, left, top, side
        self.place, self.sign = figure.place(left, top, side, side), ""
        self.frames: list[Rectangle] = []
        height, width = image.shape[:2]
        if height != width:
            self._rectangle(self.place, fc="#f1f3f6", zorder=-1)
        bounds = figure.place(*self.inches(0, 0, width, height))
        shown = BboxImage(TransformedBbox(bounds, figure.transFigure), interpolation="antialiased")
        shown.set_data(image)
        figure.add_artist(shown)

    def inches(self, x1: float, y1: float, x2: float, y2: float) -> tuple[float, ...]:
        """The left, top, width and height of a box in pixels of the image."""
        height, width = self.image.shape[:2]
        scale = self.side / max(height, width)
        left = self.left + (self.side - scale * width) / 2 + scale * x1
        top = self.top + (self.side - scale * height) / 2 + scale * y1
        return left, top, scale * (x2 - x1), scale * (y2 - y1)

    def mark(self, correct: bool | None) -> str:
        """Frame it in green, solid, with a check; in red, dashed, with a cross; or, for None, in
        grey alone. Returns the colour."""
        (self.sign, colour), wrong = SIGNS[correct], correct is not None and not correct
        if wrong:  # white below the dashes keeps them apart on a dark photograph
            self._frame(self.place, ec="white", lw=3)
        self._frame(self.place, ec=colour, lw=2.6, ls=(0, (2.2, 0.9)) if wrong else "-")
        if self.sign:
            x, y = self.place.p1 - 0.045 * self.place.size
            badge = {"boxstyle": "circle,pad=0.18", "fc": colour, "ec": "white", "lw": 0.6}
            style = {"ha": "right", "va": "top", "size": 8, "color": "white", "weight": "bold"}
            self.figure.text(x, y, self.sign, **style, bbox=badge)
        return colour

    def outline(self, box: Sequence[float], colour: str = INK, width: float = 1.2) -> None:
        """Frame a box x1 y1 x2 y2 in pixels of the image."""
        for edge, lw in (("white", width + 1.8), (colour, width)):
            self._frame(self.figure.place(*self.inches(*box)), ec=edge, lw=lw)

    def _frame(self, place: Bbox, **style) -> None:
        self.frames.append(self._rectangle(place, fill=False, **style))

    def _rectangle(self, place: Bbox, **style) -> Rectangle:
        style |= {"transform": self.figure.transFigure}
        patch = Rectangle(place.p0, place.width, place.height, **style)
        self.figure.add_artist(patch)
        return patch


def plain_axes(axes: Axes, x: str, y: str) -> None:
    """Labels, and as little ink as possible around a plot."""
    axes.set_xlabel(x, size=TEXT, color=INK)
    axes.set_ylabel(y, size=TEXT, color=INK)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y", color=HAIRLINE, lw=0.6)
    axes.set_axisbelow(True)
    _bare(axes, length=3)


def bar_axes(axes: Axes, rows: int, label: str) -> None:
    """Of horizontal bars or dots, the first on top."""
    axes.set(ylim=(rows - 0.5, -0.5), yticks=[])
    axes.set_xlabel(label, size=SMALL, color=MUTED, labelpad=2)
    axes.locator_params(axis="x", nbins=4)
    _bare(axes, length=2, pad=2)


def _bare(axes: Axes, **ticks) -> None:
    axes.tick_params(labelsize=SMALL, colors=MUTED, **ticks)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(HAIRLINE)


def name_lines(axes: Axes, **options) -> None:
    axes.legend(frameon=False, fontsize=SMALL, labelcolor=INK, **options)


def save(figure: Figure, path: str | os.PathLike, dpi: int = 120) -> Path:
    """Write a PNG or JPEG of at most 150 dpi, complete or not at all: ValueError for another
    file type or resolution, OSError where the disk refuses."""
    path = Path(path)
    kind = path.suffix.lower()[1:]
    if kind not in ("png", "jpg", "jpeg"):
        raise ValueError(f"figures are written as .png, .jpg or .jpeg, got {path.name}")
    if not 1 <= dpi <= 150:
        raise ValueError(f"dpi must lie between 1 and 150, got {dpi}")
    options = {} if kind == "png" else {"pil_kwargs": {"quality": 88}}
    content = io.BytesIO()  # Pillow, writing to a file itself, does not tell that the disk is full
    figure.savefig(content, format=kind, dpi=dpi, **options)
    with atomic(path) as unfinished:
        unfinished.write_bytes(content.getvalue())
    return path


def as_rgb(image) -> np.ndarray:
    """(H, W, 3) or (H, W), uint8 or float in [0, 1] -> (H, W, 3) float32 in [0, 1]."""
    image = as_array(image)
    if image.ndim == 2:
        image = np.repeat(image[:, :, None], 3, axis=2)
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError(f"an image must be (H, W, 3) or (H, W), got {image.shape}")
    if image.dtype == np.uint8:
        return image.astype(np.float32) / 255
    if not np.issubdtype(image.dtype, np.floating):
        raise ValueError(f"an image must be uint8 or float, got {image.dtype}")
    return np.clip(image, 0, 1).astype(np.float32)


def as_array(values) -> np.ndarray:
    if not hasattr(values, "detach"):
        return np.asarray(values)
    values = values.detach().cpu()
    return (values.float() if values.is_floating_point() else values).numpy()  # bfloat16 too


def check_something(values: Sequence, what: str) -> None:
    if not len(values):
        raise ValueError(f"there is nothing to show: give at least one {what}")


def check_lengths(**parts: Sequence) -> None:
    """As many of each, at least one."""
    lengths = {name: len(part) for name, part in parts.items()}
    check_something([name for name in lengths if lengths[name]], " and ".join(lengths))
    if len(set(lengths.values())) != 1:
        given = ", ".join(f"{count} {name}" for name, count in lengths.items())
        raise ValueError(f"as many of each are needed, at least one, got {given}")
