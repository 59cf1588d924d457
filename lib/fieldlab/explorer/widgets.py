"""What can be clicked in a notebook: a grid of thumbnails, a map of pictures, a place to drop one,
a query to point at.

As in `galleries`, right and wrong differ by colour, sign and line. Everything can be reached by
keyboard, and has a name for those who do not see it. Pictures travel as data URIs of JPEG.
"""

import base64
from collections.abc import Callable
from html import escape
from pathlib import Path

import anywidget
import ipywidgets
import jscatter
import numpy as np
import pandas as pd
import torch
import traitlets
from matplotlib import font_manager
from PIL import Image
from torchvision.utils import draw_bounding_boxes

from fieldlab.explorer.places import Places, scaled
from fieldlab.page import data_uri
from fieldmarks.checks import one_of
from fieldmarks.show import maps, style
from fieldmarks.show.picture import Picture, as_array, as_rgb

HERE = Path(__file__).parent
MARKS = ("right", "wrong", "neutral")
NAMES = ("ink", "muted", "hairline", *MARKS, "accent")
COLOURS = " ".join(f"--{name}: {getattr(style, name.upper())};" for name in NAMES)
STYLE = f".fieldmarks {{ {COLOURS} }}\n" + (HERE / "widgets.css").read_text(encoding="utf-8")

ARROWS = (("←", "To the left", -1, 0), ("→", "To the right", 1, 0))
ARROWS += (("↑", "Upwards", 0, 1), ("↓", "Downwards", 0, -1))
ROOM, SIDE = (-0.05, 1.05), 0.012  # of a map, drawn on [0, 1]: what is seen, and half a sign
FRAME = ((-1.3, -1.3), (1.3, -1.3), (1.3, 1.3), (-1.3, 1.3), (-1.3, -1.3))
HOOK = ((-1, 0.1), (-0.2, -0.8), (1.2, 1))
CROSS = ((-1, -1), (1, 1)), ((-1, 1), (1, -1))
SIGNS = {  # lines of each, around a point, and their colours
    "query": ((FRAME, style.INK),),
    "right": ((HOOK, style.RIGHT),),
    "wrong": tuple((line, style.WRONG) for line in CROSS),
}


class ThumbnailGrid(anywidget.AnyWidget):
    """Pictures as buttons. Arrow keys, Home and End move; a click, Enter or space chooses.

    Attributes:
        label: what the pictures are, also for screen readers.  note: small print beside it.
        items: of each picture "source" (a data URI), "name" (for screen readers), "caption" (below
            it), and "mark", one of MARKS, for its frame.
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
            one_of("mark", item["mark"], MARKS)
        return proposal["value"]


class PictureMap(ipywidgets.VBox):
    """Pictures as points of a plane, drawn by jupyter-scatter. The one under the mouse, or that the
    arrow buttons lead to, is shown; a click, or the button below it, chooses it; a lasso, several.

    Args:
        card_of: called with a position, it gives "source" and "name" of its picture.
        chosen: called with the position of a point that is chosen.
        selected: called with the positions inside a lasso, none where it is taken back.
    """

    def __init__(
        self,
        card_of: Callable[[int], dict],
        chosen: Callable[[int], None],
        selected: Callable[[list[int]], None],
    ):
        self.card_of, self.chosen, self.selected = card_of, chosen, selected
        self.plane, self.at, self.scatter = np.zeros((0, 2)), -1, None
        self._told = True  # whether a change of the selection comes from the reader
        self._title, self._card = ipywidgets.HTML(), ipywidgets.HTML()
        search = ipywidgets.Button(description="Search with it", icon="search")
        search.on_click(lambda _: self.at >= 0 and chosen(self.at))
        arrows = [self._arrow(*each) for each in ARROWS]
        side = {"width": "180px", "flex": "0 0 auto", "padding": "0 0 0 12px"}
        steps = ipywidgets.HBox(arrows)
        self._side = ipywidgets.VBox([self._card, steps, search], layout=side)
        self._row = ipywidgets.HBox(layout={"width": "100%"})
        super().__init__([self._title, self._row], layout={"width": "98%"})

    def _arrow(self, sign: str, title: str, *direction: int) -> ipywidgets.Button:
        button = ipywidgets.Button(description=sign, layout={"width": "38px"}, tooltip=title)
        button.on_click(lambda _: self.step(*direction))
        return button

    def draw(self, plane, classes=None, label: str = "") -> None:
        """Show points (N, 2) of any scale, coloured by the names of their classes where these are
        known."""
        plane, self.at = as_array(plane).astype(np.float32), -1
        low, high = plane.min(axis=0), plane.max(axis=0)
        self.plane = (plane - low) / np.maximum(high - low, 1e-9)  # as drawn: (N, 2) in [0, 1]
        options = {
            "x_scale": ROOM,
            "y_scale": ROOM,
            "height": 460,
            "axes": False,
            "legend": False,
            "background_color": "white",
        }
        if classes is None:
            options["color"] = style.NEUTRAL
        else:
            options["color_by"] = pd.Series(pd.Categorical(classes))
        x, y = self.plane.T
        self.scatter = jscatter.Scatter(x=x, y=y, size=10 if len(x) <= 2_000 else 3, **options)
        drawn = self.scatter.show(["pan_zoom", "lasso", "full_screen", "reset"])
        drawn.layout = {"flex": "1 1 auto", "min_width": "0"}
        drawn.observe(lambda change: self.show(change["new"]), "hovering")
        drawn.observe(self._select, "selection")
        self._title.value = f"<b>{escape(label)}</b>"
        self._card.value = message("Point at a picture, or go to one with an arrow.")
        self._row.children = (drawn, self._side)

    def show(self, position: int | None) -> None:
        """The picture of a point; the last one stays where there is none."""
        if position is None or not 0 <= position < len(self.plane):
            return
        self.at, card = position, self.card_of(position)
        name = escape(card["name"])
        picture = f'<img alt="{name}" width="128" src="{card["source"]}"><br>'
        self._card.value = f'<div role="status" style="line-height: 1.4">{picture}{name}</div>'

    def step(self, right: int, up: int) -> None:
        """Go to the nearest point in a quarter of the plane around a direction."""
        if self.at < 0:
            position = 0
        else:
            position = neighbour(self.plane, self.at, right, up)
        self.scatter.widget.hovering = position  # circled on the map; and shown, as a point at it

    def mark(self, marks: dict[int, str]) -> None:
        """Select points and draw a sign at each: a frame ("query"), a hook ("right"), a cross
        ("wrong") or nothing ("neutral")."""
        self._told = False
        try:
            self.scatter.selection(list(marks))
        finally:
            self._told = True
        lines = []
        for position, mark in marks.items():
            for way, colour in SIGNS.get(mark, ()):
                vertices = (self.plane[position] + SIDE * np.array(way)).tolist()
                lines.append(jscatter.Line(vertices, line_color=colour, line_width=3))
        self.scatter.annotations(lines)

    def _select(self, change) -> None:
        if self._told:
            positions = [int(each) for each in change["new"] if each < len(self.plane)]
            if len(positions) == 1:
                self.show(positions[0])
                self.chosen(positions[0])
            else:
                self.selected(positions)


def neighbour(plane: np.ndarray, at: int, right: int, up: int) -> int:
    """The point of (N, 2) nearest to one of them, of those in the quarter of the plane around a
    direction; that one itself where there is none."""
    away = plane - plane[at]
    along = away @ (right, up)
    across = np.abs(away @ (up, right))
    far = np.where((along > 0) & (across <= along), along + across, np.inf)
    return int(far.argmin()) if np.isfinite(far).any() else at


class PlaceMaps(anywidget.AnyWidget):
    """A query and its results with maps, which change with the place of the query under the mouse,
    a finger or the keyboard's cursor. All of them are in the browser, so no kernel is waited for.

    Attributes:
        label: what is shown.  query: "source" and "name".  items: as of `ThumbnailGrid`.
        shape: [h, w, h', w'], places of the query and of a result.
        levels: (1 + h w, n, h', w') bytes, maps over n results: of all places together, of each.
        own: (h, w) bytes, a map over the query.
        carried: 1 + h w lists of what these places add to each of the n cosines.
        brightest: what level 255 stands for, of all places together and of single ones.
        colours: (256, 4) bytes, red, green, blue and opacity of each level.
    """

    _esm = HERE / "place_maps.js"
    _css = STYLE
    label = traitlets.Unicode().tag(sync=True)
    query = traitlets.Dict().tag(sync=True)
    items = traitlets.List(traitlets.Dict()).tag(sync=True)
    shape = traitlets.List().tag(sync=True)
    levels = traitlets.Bytes().tag(sync=True)
    own = traitlets.Bytes().tag(sync=True)
    carried = traitlets.List().tag(sync=True)
    brightest = traitlets.List().tag(sync=True)
    colours = traitlets.Bytes().tag(sync=True)

    def show(self, places: Places, query: dict, items: list[dict], label: str) -> None:
        """Where results show what a query shows; all of it reaches the browser at once."""
        carried = places.carried.flatten(1)  # (n, h w)
        together = places.pairs.sum((1, 2))
        with self.hold_sync():
            self.label, self.query, self.items = label, query, items
            self.shape = list(places.pairs.shape[1:])
            self.levels = _levels(places.heat)
            self.own = _levels(scaled(places.carried.mean(0)))
            self.carried = [places.cosines.tolist(), *carried.T.tolist()]
            self.brightest = [together.max().item(), places.pairs.max().item()]
            colours = maps.HEAT(np.linspace(0, 1, 256))
            colours[:, 3] = np.linspace(0, 0.85, 256)
            self.colours = _levels(colours)


class PictureUpload(anywidget.AnyWidget):
    """A button, and a place to drop a file. Too large files are refused before they travel.

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
        name, size = str(content.get("name", "")), float(content.get("size", 0)) / 1e6
        if buffers:
            self.received(name, bytes(buffers[0]))
        else:
            self.refused(f"{name} has {size:.1f} MB: upload at most {self.limit / 1e6:.0f} MB")


def thumbnail(image, side: int = 96) -> str:
    """The middle of a picture (H, W, 3), uint8 or float in [0, 1], small, as a data URI."""
    image = _pillow(image)
    short = min(image.size)
    left, top = (image.width - short) // 2, (image.height - short) // 2
    middle = (left, top, left + short, top + short)
    return data_uri(image.resize((side, side), Image.Resampling.BILINEAR, middle), quality=82)


def picture(image, name: str, width: int = 224) -> str:
    """A picture as HTML, `width` pixels wide; `name` says what is to be seen."""
    source = data_uri(_pillow(image), quality=90)
    size = f'width="{width}" style="border-radius: 3px"'
    return f'<img alt="{escape(name)}" {size} src="{source}">'


def framed(image, boxes, scale: int = 3) -> np.ndarray:
    """A picture enlarged, with numbered frames around boxes (M, 4), x1 y1 x2 y2 in its own pixels:
    uint8 (H, W, 3). Boxes that are there twice have one frame and both numbers."""
    image = _pillow(image)
    image = image.resize((scale * image.width, scale * image.height), Image.Resampling.BILINEAR)
    numbers: dict[tuple, list[str]] = {}
    for number, box in enumerate((scale * as_array(boxes)).tolist(), start=1):
        numbers.setdefault(tuple(box), []).append(str(number))
    places = torch.tensor(list(numbers))
    canvas = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)
    canvas = draw_bounding_boxes(canvas, places, colors="white", width=5)
    canvas = draw_bounding_boxes(
        canvas,
        places + torch.tensor([1, 1, -1, -1]),
        [", ".join(each) for each in numbers.values()],
        colors=style.INK,
        width=3,
        font=font_manager.findfont("DejaVu Sans"),
        font_size=max(image.size) // 18,
        label_colors="white",
        fill_labels=True,
    )
    return canvas.permute(1, 2, 0).numpy()


def figure_picture(figure: Picture, name: str) -> str:
    """A figure as HTML, as wide as there is room for."""
    ((kind, data),) = figure._repr_mimebundle_().items()
    source = f"data:{kind};base64,{base64.b64encode(data).decode()}"
    width = f"width: 99%; max-width: {round(100 * figure.get_figwidth())}px"
    return f'<img alt="{escape(name)}" style="{width}" src="{source}">'


def bits_table(first, second, names: tuple[str, str]) -> str:
    """Two codes (k,) of -1/+1, one above the other, as HTML; bits that differ stand out by frame,
    colour and a sign below them."""
    codes = [as_array(code) > 0 for code in (first, second)]
    if codes[0].shape != codes[1].shape or codes[0].ndim != 1:
        shapes = f"{codes[0].shape} and {codes[1].shape}"
        raise ValueError(f"two codes must be of one length, got {shapes}")
    differ = codes[0] != codes[1]
    kinds = [np.where(code, "on", "off") + np.where(differ, " differs", "") for code in codes]
    signs = np.where(differ, "≠", "")
    rows = pd.DataFrame([*(code.astype(int) for code in codes), signs], [*names, ""])
    classes = pd.DataFrame(kinds, list(names))
    table = rows.style.set_td_classes(classes).format_index(escape="html").hide(axis="columns")
    table = table.set_table_attributes('class="fieldmarks-bits"').to_html(cell_ids=False)
    which = ", ".join(map(str, differ.nonzero()[0] + 1)) or "none"
    return (
        f'<style>{STYLE}</style><div class="fieldmarks"><p><b>{differ.sum()} of {len(differ)} bits '
        f"differ</b> <small>({which})</small></p>{table}</div>"
    )


def message(text: str, problem: bool = False) -> str:
    """One line to the reader as HTML, which screen readers say at once."""
    if not text:
        return ""
    sign, role = ("⚠", "alert") if problem else ("", "status")
    colour = style.WRONG if problem else style.MUTED
    face = f'class="fieldmarks-message" style="color: {colour}; line-height: 1.4"'
    return f'<div role="{role}" {face}>{sign} {escape(text)}</div>'


def _levels(values) -> bytes:
    """Numbers in [0, 1] as 0 to 255."""
    return (as_array(values) * 255).round().astype(np.uint8).tobytes()


def _pillow(image) -> Image.Image:
    image = as_array(image)
    if image.dtype != np.uint8 or image.ndim != 3:
        image = (as_rgb(image) * 255).round().astype(np.uint8)
    return Image.fromarray(image)
