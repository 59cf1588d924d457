"""What can be clicked in a notebook: a grid of thumbnails, a map of pictures, and a place to drop a picture.

As in `galleries`, right and wrong differ by colour, by sign and by line. Everything can be reached by keyboard, and has a name
for those who do not see it. Pictures travel as data URIs of JPEG.
"""

import base64
import html
import io
from collections.abc import Callable
from pathlib import Path

import anywidget
import numpy as np
import traitlets
from fieldmarks.show.galleries import (
    ACCENT,
    HAIRLINE,
    INK,
    MUTED,
    NEUTRAL,
    RIGHT,
    WRONG,
    Picture,
    _array,
    as_rgb,
)
from PIL import Image, ImageDraw

HERE = Path(__file__).parent
MARKS = ("right", "wrong", "neutral")
COLOURS = {
    "ink": INK,
    "muted": MUTED,
    "hairline": HAIRLINE,
    "right": RIGHT,
    "wrong": WRONG,
    "neutral": NEUTRAL,
    "accent": ACCENT,
}
STYLE = (
    ".fieldmarks {"
    + "".join(f" --{name}: {colour};" for name, colour in COLOURS.items())
    + " }\n"
    + (HERE / "widgets.css").read_text(encoding="utf-8")
)


class ThumbnailGrid(anywidget.AnyWidget):
    """Pictures as buttons. Arrow keys, Home and End go from one to the next; a click, Enter or space chooses.

    Attributes:
        label: what the pictures are, shown above them and told to screen readers.  note: small print beside the label.
        items: of each picture "source" (a data URI), "name" (told to screen readers), "caption" (shown below it), and "mark",
            one of MARKS, for its frame.
        columns: pictures in a row; 0: as many as there is room for.
        chosen: position of the chosen picture, or -1.
    """

    _esm = HERE / "thumbnail_grid.js"
    _css = STYLE
    label = traitlets.Unicode().tag(sync=True)
    note = traitlets.Unicode().tag(sync=True)
    items = traitlets.List(traitlets.Dict()).tag(sync=True)
    columns = traitlets.Int(0).tag(sync=True)
    chosen = traitlets.Int(-1).tag(sync=True)

    @traitlets.validate("items")
    def _known_marks(self, proposal):
        for item in proposal["value"]:
            if item["mark"] not in MARKS:
                raise ValueError(f"mark is '{item['mark']}': it must be one of {', '.join(MARKS)}")
        return proposal["value"]


class PictureMap(anywidget.AnyWidget):
    """Pictures as points of a plane: the one under the mouse or the keyboard's cursor is shown, and chosen by click or Enter.

    Attributes:
        label: what the map shows.
        points: x, y of each picture, in [0, 1].
        special: "position" of a point and its "mark": "query", "right", "wrong" or "neutral".
        hovered: position of the point that is asked for, or -1.  card: "source" and "name" of its picture, once they are there.
        chosen: position of the chosen point, or -1.
        look: called with a position, it gives the card.
    """

    _esm = HERE / "picture_map.js"
    _css = STYLE
    label = traitlets.Unicode().tag(sync=True)
    points = traitlets.List().tag(sync=True)
    special = traitlets.List(traitlets.Dict()).tag(sync=True)
    hovered = traitlets.Int(-1).tag(sync=True)
    card = traitlets.Dict().tag(sync=True)
    chosen = traitlets.Int(-1).tag(sync=True)

    def __init__(self, look: Callable[[int], dict], **traits):
        super().__init__(**traits)
        self.look = look

    @traitlets.observe("hovered")
    def _show(self, change) -> None:
        self.card = (
            self.look(change["new"]) | {"position": change["new"]}
            if 0 <= change["new"] < len(self.points)
            else {}
        )


class PictureUpload(anywidget.AnyWidget):
    """A button, and a place to drop a file. Files that are too large are refused before they travel.

    Attributes:
        label: on the button.  limit: bytes.
        received: called with (name, bytes) of each file.
        refused: called with one line on a file that is too large.
    """

    _esm = HERE / "picture_upload.js"
    _css = STYLE
    label = traitlets.Unicode("Upload a picture").tag(sync=True)
    limit = traitlets.Int().tag(sync=True)

    def __init__(
        self, received: Callable[[str, bytes], None], refused: Callable[[str], None], **traits
    ):
        super().__init__(**traits)
        self.received, self.refused = received, refused
        self.on_msg(self._message)

    def _message(self, _, content: dict, buffers: list) -> None:
        name = str(content.get("name", ""))
        if buffers:
            self.received(name, bytes(buffers[0]))
        else:
            self.refused(
                f"{name} has {float(content.get('size', 0)) / 1e6:.1f} MB: upload at most {self.limit / 1e6:.0f} MB"
            )


def points_of(plane) -> list[list[float]]:
    """Points for `PictureMap`: (N, 2) of any scale -> x, y in [0, 1], each axis from its smallest to its largest."""
    plane = _array(plane).astype(float)
    low, high = plane.min(axis=0), plane.max(axis=0)
    return np.round((plane - low) / np.maximum(high - low, 1e-9), 4).tolist()


def thumbnail(image, side: int = 96) -> str:
    """The middle of a picture, small: a data URI for `ThumbnailGrid`. (H, W, 3), uint8 or float in [0, 1]."""
    image = _pillow(image)
    short = min(image.size)
    left, top = (image.width - short) // 2, (image.height - short) // 2
    return _data_uri(
        image.resize(
            (side, side), Image.Resampling.BILINEAR, box=(left, top, left + short, top + short)
        ),
        82,
    )


def picture(image, name: str, width: int = 224) -> str:
    """A picture as HTML, `width` pixels wide; `name` says what is to be seen. (H, W, 3), uint8 or float in [0, 1]."""
    return f'<img alt="{html.escape(name)}" width="{width}" style="border-radius: 3px" src="{_data_uri(_pillow(image), 90)}">'


def framed(image, boxes, scale: int = 3) -> np.ndarray:
    """A picture enlarged, with numbered frames around boxes (M, 4), x1 y1 x2 y2 in its own pixels: uint8 (H, W, 3)."""
    image = _pillow(image)
    image = image.resize((scale * image.width, scale * image.height), Image.Resampling.BILINEAR)
    pen, size = ImageDraw.Draw(image), max(image.size) // 18
    for number, (x1, y1, x2, y2) in enumerate((scale * _array(boxes)).tolist(), start=1):
        for colour, inset, width in (("white", 0, 5), (INK, 1, 3)):
            pen.rectangle(
                (x1 + inset, y1 + inset, x2 - 1 - inset, y2 - 1 - inset),
                outline=colour,
                width=width,
            )
        before = [other.tolist() for other in boxes[: number - 1]]
        step = 1.2 * size * before.count(boxes[number - 1].tolist())  # views may be drawn twice
        pen.rectangle((x1 + step, y1, x1 + step + 1.1 * size, y1 + 1.3 * size), fill=INK)
        pen.text(
            (x1 + step + 0.55 * size, y1 + 0.65 * size),
            str(number),
            fill="white",
            anchor="mm",
            font_size=size,
        )
    return np.asarray(image)


def figure_picture(figure: Picture, name: str) -> str:
    """A figure of this package as HTML, as wide as there is room for."""
    ((kind, data),) = figure._repr_mimebundle_().items()
    source = f"data:{kind};base64,{base64.b64encode(data).decode()}"
    return f'<img alt="{html.escape(name)}" style="width: 99%; max-width: {round(100 * figure.get_figwidth())}px" src="{source}">'


def bits_table(first, second, names: tuple[str, str]) -> str:
    """Two codes (k,) of -1/+1, one above the other, as HTML; bits that differ stand out by frame, colour and a sign below them."""
    first, second = (np.asarray(_array(code)) > 0 for code in (first, second))
    if first.shape != second.shape or first.ndim != 1:
        raise ValueError(f"two codes must be of one length, got {first.shape} and {second.shape}")
    differ = first != second
    count = int(differ.sum())

    def row(name: str, code) -> str:
        kinds = [
            ("on" if bit else "off") + " differs" * bool(other) for bit, other in zip(code, differ)
        ]
        cells = "".join(f'<td class="{kind}">{int(bit)}</td>' for kind, bit in zip(kinds, code))
        return f'<tr><th scope="row">{html.escape(name)}</th>{cells}</tr>'

    signs = "".join(f"<td>{'≠' if other else ''}</td>" for other in differ)
    words = ", ".join(str(bit) for bit in np.flatnonzero(differ) + 1) or "none"
    rows = (
        row(names[0], first)
        + row(names[1], second)
        + f'<tr aria-hidden="true"><th></th>{signs}</tr>'
    )
    return (
        f'<style>{STYLE}</style><div class="fieldmarks"><p><b>{count} of {len(differ)} bits differ</b> '
        f'<small>({words})</small></p><table class="fieldmarks-bits">{rows}</table></div>'
    )


def message(text: str, problem: bool = False) -> str:
    """One line to the reader as HTML, which screen readers say at once."""
    if not text:
        return ""
    sign, colour, role = ("⚠", WRONG, "alert") if problem else ("", MUTED, "status")
    style = f"color: {colour}; line-height: 1.4"
    return f'<div role="{role}" class="fieldmarks-message" style="{style}">{sign} {html.escape(text)}</div>'


def _pillow(image) -> Image.Image:
    image = _array(image)
    if image.dtype != np.uint8 or image.ndim != 3:
        image = (as_rgb(image) * 255).round().astype(np.uint8)
    return Image.fromarray(image)


def _data_uri(image: Image.Image, quality: int) -> str:
    with io.BytesIO() as stream:
        image.save(stream, "JPEG", quality=quality)
        return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()
