"""The panels of notebooks/explore.ipynb: what is clicked there, and what then changes.

explorer = Explorer("../runs")
explorer.runs  # and choice, results, why, places, stages, erasing, views, map, in a cell each
"""

import tempfile
from collections.abc import Callable
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import ipywidgets
import numpy as np
import torch

from fieldlab.cascade import in_stages
from fieldlab.explorer import exploring, gallery, widgets
from fieldlab.explorer.controls import undisturbed
from fieldlab.explorer.exploring import CodeFinder, Erasing, Finder, PairFinder
from fieldlab.explorer.gallery import Gallery, Picture
from fieldlab.explorer.places import Places
from fieldmarks.decoding import ImageError
from fieldmarks.explain.trust import trust
from fieldmarks.random import seeded
from fieldmarks.show import maps
from fieldmarks.show.names import readable

PAGE = 24  # thumbnails to choose a query from, at a time
MOST = 20  # results in a row
REGIONS = 1_600  # at most, of the hottest pixels
GRIDS = (2, 4, 8, 16)
MARKS = {None: "neutral", True: "right", False: "wrong"}
SEEN = {True: "; a class it never saw", None: ""}
SEEN[False] = "; a class it learned, from other pictures"


class Explorer:
    """Finished runs side by side on the same pictures.

    Args:
        folder: of finished runs.
        own_pictures: a folder of pictures to search in; empty: those of the runs' data set that
            none of them has learned from.
        device: "auto", "cpu", "cuda".

    Whatever is wrong with runs, pictures or uploads is said in the panels, in one line.
    """

    def __init__(self, folder: Path, own_pictures: str = "", device: str = "auto"):
        self.folder, self.own_pictures, self.device = Path(folder), own_pictures, device
        self.gallery: Gallery | None = None
        self.finders: list[Finder] = []
        self.query: Picture | None = None
        self._uploads = tempfile.TemporaryDirectory(prefix="fieldmarks-")
        self._thumbnails: dict[int, str] = {}
        self._page = self._draw = 0
        self._shown: list[tuple[Finder, list[int]]] = []
        self._build()
        self._reopen()

    # ---- what there is to click

    def _build(self) -> None:
        self._runs_message, self._query_message, self.why = _message(), _message(), _message()
        options = {"rows": 4, "layout": {"width": "98%"}, "style": STYLE, "description": "Runs"}
        self._picker = ipywidgets.SelectMultiple(**options)
        self._picker.tooltip = "Finished runs; several with Ctrl or Shift"
        again = _button("Open these runs", self._reopen, "folder-open")
        self.runs = _column(self._picker, again, self._runs_message)

        classes = {"description": "Show", "options": [("all classes, mixed", -1)]}
        self._classes = _control(ipywidgets.Dropdown, lambda: self._turn(0), **classes)
        earlier = _button("← earlier", lambda: self._turn(self._page - 1), layout={"width": "auto"})
        later = _button("more →", lambda: self._turn(self._page + 1), layout={"width": "auto"})
        self._choice = widgets.ThumbnailGrid(label="Click a picture to search with it")
        self._choice.observe(self._chosen_in_grid, "chosen")
        refused = partial(self._query_message.say, problem=True)
        upload = widgets.PictureUpload(self._received, refused, limit=gallery.UPLOAD_BYTES)
        upload.label = "Or upload one of your own"
        row = _row(self._classes, earlier, later)
        self.choice = _column(row, self._choice, upload, self._query_message)

        self._k = _slider(10, 1, MOST, "K, results of each", self._search)
        lengths = {"description": "Code length", "options": [("all", 0)]}
        self._bits = _control(ipywidgets.ToggleButtons, self._update, **lengths)
        self._bits.style.button_width = "auto"
        self._query_picture = ipywidgets.HTML()
        self._rows: list[widgets.ThumbnailGrid] = []
        self._row_box = _column()
        controls = ipywidgets.VBox([self._k, self._bits])
        self.results = _column(_row(self._query_picture, controls), self._row_box)

        self._pointed = ipywidgets.Dropdown(description="As seen by", style=STYLE)
        self._place_maps = widgets.PlaceMaps()
        self._places_text, self._places_box = _message(), _column()
        row = _row(self._pointed, _button("Point at places", self.show_places, "crosshairs"))
        self.places = _column(row, self._places_text, self._places_box)

        self._staged = widgets.ThumbnailGrid(label="Found in stages", columns=10)
        self._stage_text, self._staged_box = _message(), _column()
        search = _button("Search in stages", self.search_in_stages, "filter")
        self.stages = _column(search, self._stage_text, self._staged_box)

        self._regions = _slider(400, 1, REGIONS, "n, regions", self._erase)
        self._region_size = _slider(32, 1, 224, "l, their side in pixels", self._erase)
        self._erased = _message()
        self.erasing = _column(self._regions, self._region_size, self._erased)

        self._drawn, redraw = _message(), lambda: self._draw_views(self._draw)
        options = {"indent": False, "layout": {"width": "80px"}}
        self._grids = [_control(ipywidgets.Checkbox, redraw, **options) for _ in GRIDS]
        for box, n in zip(self._grids, GRIDS, strict=True):
            box.value, box.description = n in (2, 4), f"{n} × {n}"
        self._views = _slider(4, 1, 8, "M, views", redraw)
        again = _button("Draw again", lambda: self._draw_views(self._draw + 1), "refresh")
        row = _row(ipywidgets.Label("Grids"), *self._grids, self._views, again)
        self.views = _column(row, self._drawn)

        self._of = ipywidgets.Dropdown(description="As seen by", style=STYLE)
        self._map = widgets.PictureMap(self._card, self._chosen_on_map, self._selected_on_map)
        self._lasso = widgets.ThumbnailGrid()
        self._lasso.observe(self._chosen_in_lasso, "chosen")
        self._map_message, self._map_box = _message(), _column()
        row = _row(self._of, _button("Draw the map", self.draw_map, "map"))
        self.map = _column(row, self._map_message, self._map_box)
        self._show_controls(False)

    def _show_controls(self, shown: bool) -> None:
        """Hide controls that do nothing: all before runs are open, and those of other methods."""
        always = self.choice, self.results, self.places, self.map, self.stages
        for panel in (*always, self.erasing, self.views):
            method = {self.erasing: "fcaenet", self.views: "vapnet"}.get(panel)
            there = shown and (method is None or self._first(method))
            for control in panel.children:
                if not isinstance(control, ipywidgets.HTML):
                    control.layout.display = None if there else "none"

    # ---- runs

    def _offer(self, runs: list, others: list) -> None:
        count = f"{len(others)} other finished run{'s' * (len(others) > 1)}"
        reason = "cannot read any picture (outfits, shallow hashing)"
        self._others = f"; {count} {reason}" if others else ""
        self._picker.rows = min(max(len(runs), 2), 8)
        self._picker.options = [(gallery.full_title(run), run) for run in runs]
        self._picker.value = gallery.first_choice(runs)

    def _reopen(self) -> None:
        with self._runs_message.errors():
            if not self._picker.options:
                self._offer(*gallery.explorable(self.folder))
            self.open()

    def open(self) -> None:
        """Open the runs that are picked: their models, and the pictures to compare them on."""
        picked = self._picker.value
        pictures, finders, baseline = exploring.open_runs(
            picked, self.own_pictures, self.device, self._runs_message.say
        )
        self.gallery, self.finders, self.baseline, self.query = pictures, finders, baseline, None
        self._thumbnails.clear()
        bad = [path.name for path in pictures.left_out]
        unread = f"; {len(bad)} files cannot be read, first {bad[0]}" if bad else ""
        self._runs_message.say(f"Searching {pictures.name}{unread}{self._others}.")
        lengths = sorted({finder.bits for finder in finders if finder.bits})
        self._bits.options = [*((f"{bits} bits", bits) for bits in lengths), ("all", 0)]
        self._bits.value = lengths[-1] if lengths else 0
        self._bits.layout.display = None if len(lengths) > 1 else "none"
        for networks in (self._of, self._pointed):
            networks.options = [(f.name, place) for place, f in enumerate([*finders, baseline])]
            networks.value = 0
        cosines = [finder.score == "cosine" for finder in (*finders, baseline)]
        self._pointed.value = cosines.index(True)  # others have no exact maps
        self._map_box.children = ()
        labels = [] if pictures.labels is None else pictures.labels.unique().tolist()
        names = [(readable(pictures.class_names[label]), label) for label in labels]
        self._classes.options = [("all, mixed", -1), *names]
        self._classes.value = -1
        self._turn(0)
        self._fit_controls()
        self._show_controls(True)
        self.search_with(int(self._order[0]))

    def _fit_controls(self) -> None:
        """Begin with what the runs were trained with."""
        if finder := self._first("fcaenet"):
            p = finder.model.result["parameters"]
            self._regions.max, self._region_size.max = min(REGIONS, p["size"] ** 2), p["size"]
            self._regions.value, self._region_size.value = p["regions"], p["region_size"]
        if finder := self._first("vapnet"):
            p = finder.model.result["parameters"]
            for box, n in zip(self._grids, GRIDS, strict=True):
                box.disabled, box.value = n > p["size"], n in p["grids"]
            self._views.value = p["views"]

    def _first(self, method: str) -> Finder | None:
        """The first open run of a method, of the code length that is shown."""
        runs = (f for f in self._visible() if f.model.result["parameters"]["method"] == method)
        return next(runs, None)

    def _visible(self) -> list[Finder]:
        bits = self._bits.value
        return [finder for finder in self.finders if not bits or finder.bits in (0, bits)]

    # ---- the query

    def _turn(self, page: int) -> None:
        """Another page of pictures to choose from."""
        if self.gallery is None:
            return
        wanted, self._order = self._classes.value, exploring.shuffled(self.gallery)
        if wanted is not None and wanted >= 0:
            self._order = (self.gallery.labels == wanted).nonzero().flatten()
        count = len(self._order)
        self._page = page % -(-count // PAGE)
        first = self._page * PAGE
        rows = self._order[first : first + PAGE].tolist()
        self._choice.chosen = -1
        self._choice.note = f"{first + 1:,} to {first + len(rows):,} of {count:,}"
        self._choice.items = [self._item(row, self.gallery.title(row)) for row in rows]

    def _item(self, position: int, caption: str, mark: str = "neutral") -> dict:
        return {**self._picture(position), "caption": caption, "mark": mark}

    def _results(self, positions: list[int], scores: list) -> list[dict]:
        captions = [f"{score:.2f}" if isinstance(score, float) else str(score) for score in scores]
        marks = map(self._mark, positions)
        return [self._item(*each) for each in zip(positions, captions, marks, strict=True)]

    def _mark(self, position: int) -> str:
        return MARKS[self.gallery.is_right(position, self.query)]

    def _picture(self, position: int) -> dict:
        if position not in self._thumbnails:
            try:
                pixels = self.gallery.decoded(position, self.finders[0].model.resize)
            except ImageError as error:  # of a gallery that is too large to be kept decoded
                text = "a picture has been moved or damaged since the gallery was opened"
                self._runs_message.say(f"{text}: {error}", problem=True)
                pixels = np.full((8, 8, 3), 200, np.uint8)
            self._thumbnails[position] = widgets.thumbnail(pixels)
        return {"source": self._thumbnails[position], "name": self.gallery.title(position)}

    def _chosen_in_grid(self, change) -> None:
        if change["new"] >= 0:
            self.search_with(int(self._order[self._page * PAGE + change["new"]]))

    def _received(self, name: str, content: bytes) -> None:
        with self._query_message.errors():
            if self.gallery is None:
                raise ValueError("there is nothing to search in yet: open some runs first")
            path = gallery.save_upload(name, content, Path(self._uploads.name))
            self._choice.chosen = -1
            self.search_with(path, name)

    def search_with(self, query: Picture, name: str = "") -> None:
        """Search with a picture of the gallery, or with a file."""
        with self._query_message.errors():
            self.query = query
            self._query_name = name or self.gallery.title(query)
            pixels = self.gallery.decoded(query, self.finders[0].model.resize)
            text = f"The query: {self._query_name}"
            picture = widgets.picture(pixels, text, 128)
            self._query_picture.value = _figure(picture, widgets.message(text))
            self._query_message.say(f"Searching with {self._query_name}.")
            self._update()

    def _update(self) -> None:
        """Everything that depends on the query and on which runs are shown."""
        self._search()
        self._stage_text.value, self._staged_box.children = "", ()
        self._places_text.value, self._places_box.children = "", ()
        self._erasing = None
        self._erase()
        self._draw_views(self._draw)

    # ---- results

    def _search(self) -> None:
        if self.query is None:
            return
        self.why.say("Click a result to see what makes it like the query.")
        finders = self._visible()
        news = [self.gallery.is_new_to(f.model.run, self.query) for f in finders]
        if any(new is not False for new in news):
            finders, news = [*finders, self.baseline], [*news, None]
        while len(self._rows) < len(finders):
            row = widgets.ThumbnailGrid()
            row.observe(partial(self._explain, len(self._rows)), "chosen")
            self._rows.append(row)
        self._shown = []
        for row, finder, new in zip(self._rows, finders, news, strict=False):
            results = finder.find(self.query, self._k.value)
            positions = results.index[0].tolist()
            items = self._results(positions, results.scores[0].tolist())
            marks = [item["mark"] for item in items]
            right = f"{marks.count('right')} of {len(marks)} right, " * ("neutral" not in marks)
            self._shown.append((finder, positions))
            frozen = ", the baseline: it learned nothing of this data" * (finder is self.baseline)
            with row.hold_sync():
                row.chosen, row.columns = -1, min(self._k.value, 10)
                row.label = finder.name + frozen
                row.note = f"{right}below each: {finder.score}{SEEN[new]}"
                row.items = items
        self._row_box.children = self._rows[: len(finders)]
        self._mark_map()

    def _explain(self, number: int, change) -> None:
        if change["new"] < 0:
            return
        for other in self._rows[:number] + self._rows[number + 1 :]:
            other.chosen = -1
        finder, positions = self._shown[number]
        with self.why.errors():
            self.why.value = self._reasons(finder, positions[change["new"]])

    def _reasons(self, finder: Finder, match: int) -> str:
        first, second = self._query_name, self.gallery.title(match)
        head = f"{finder.name}: the query ({first}) and result {second}"
        if isinstance(finder, PairFinder):
            pair = self.query, match, f"{first} and {second}"
            title = f"{head}: pictures, maps, and concepts by contribution"
            figure = widgets.figure_picture(exploring.concepts_of_pair(finder, *pair), title)
            shown = "Concepts by what they contribute; maps: for and against the similarity."
            return widgets.message(f"{head}. {shown}") + figure
        why, parts = exploring.why_alike(finder, self.query, match), []
        for name, image, heat in zip(("query", "result"), *why, strict=True):
            parts.append((image, f"the {name}"))
            parts.append((maps.blend(image, heat), f"what in the {name} makes it like the other"))
        shown = "Bright: what makes the one like the other (Grad-CAM)."
        text = widgets.message(f"{head}. {shown}") + _side_by_side(parts)
        text += widgets.message(trust(exploring.kind_of_maps(finder)))
        if isinstance(finder, CodeFinder):
            codes = finder.row(self.query), finder.rows[match]
            text += widgets.bits_table(*codes, ("query", "result"))
        return text

    def show_places(self) -> None:
        """What the query shows, found again in the results of a model; to be pointed at."""
        self._places_box.children = ()
        with self._places_text.errors():
            if self.query is None:
                raise ValueError("there is nothing to point at yet: open some runs first")
            finder = self._network(self._pointed)
            positions = finder.find(self.query, self._k.value).index[0].tolist()
            places = Places(finder, self.query, positions)
            first, *others = places.pictures
            grey = [widgets.thumbnail(image.mean(2), 224) for image in others]  # heat has colours
            items = self._results(positions, places.cosines.tolist())
            items = [{**item, "source": each} for item, each in zip(items, grey, strict=True)]
            query = {"source": widgets.thumbnail(first, 224), "name": f"Query: {self._query_name}."}
            self._place_maps.show(places, query, items, f"As seen by {finder.name}")
            far = f"{trust('place_map')} Measured for all places together."
            self._places_text.say(far)
            self._places_box.children = (self._place_maps,)

    def search_in_stages(self) -> None:
        """The query among all pictures by codes, then by embeddings, then explained; with times."""
        with self._stage_text.errors():
            first = {type(finder): finder for finder in reversed(self._visible())}
            codes, ranking, pairs = map(first.get, (CodeFinder, Finder, PairFinder))
            if codes is None or ranking is None:
                runs = "open a hashing run and one of VAPNet or a baseline, too"
                raise ValueError(f"a search in stages needs codes and embeddings: {runs}")
            answer = in_stages(self.query, codes, ranking, pairs, k=self._k.value)
            times = [f"{stage.words}: {1000 * stage.seconds:.0f} ms" for stage in answer.stages]
            whys = [", ".join(f"{n} {v:.2f}" for n, v in why.concepts) for why in answer.reasons]
            listed = "".join(f"<li>{widgets.message(why)}</li>" for why in whys)
            ordered = f"<ol>{listed}</ol>" * bool(listed)
            self._stage_text.value = "".join(map(widgets.message, times)) + ordered
            self._staged.items = self._results(*zip(*answer.hits, strict=True))
            self._staged_box.children = (self._staged,)

    # ---- SREM and patches

    def _erase(self) -> None:
        finder = self._needed("fcaenet", self._erased, "FCAENet above to see what SREM erases")
        if finder is None:
            return
        with self._erased.errors():
            shown = self._erasing = self._erasing or Erasing(finder, self.query)
            erased, share = shown.erased(self._regions.value, self._region_size.value)
            heated = maps.blend(shown.picture, shown.heat[0].clamp(max=1))
            parts = [(shown.picture, "as the network sees it"), (heated, "its attention")]
            self._erased.value = _side_by_side([*parts, (erased, f"erased: {share:.0%}")])

    def _draw_views(self, draw: int) -> None:
        self._draw = draw
        finder = self._needed("vapnet", self._drawn, "VAPNet above to see what its patches are")
        if finder is None:
            return
        with self._drawn.errors():
            grids = tuple(n for box, n in zip(self._grids, GRIDS, strict=True) if box.value)
            drawn = exploring.draw_views(finder, self.query, grids, self._views.value, draw)
            parts = [(widgets.framed(drawn.picture, drawn.boxes), "where the views lie")]
            for number, (view, n) in enumerate(zip(drawn.views, drawn.grids, strict=True), start=1):
                parts.append((view, f"view {number}, of {n} × {n}"))
            self._drawn.value = _side_by_side(parts)

    def _needed(self, method: str, place: "_Message", what: str) -> Finder | None:
        finder = self._first(method)
        if self.query is None or finder is None:
            place.say(f"Pick a run of {what}." if self.gallery else "")
            return None
        return finder

    # ---- the map

    def draw_map(self) -> None:
        """Project the gallery to the plane as the chosen model sees it, and show it."""
        with self._map_message.errors():
            if self.gallery is None:
                raise ValueError("there is nothing to draw yet: open some runs first")
            finder = self._network(self._of)
            self._on_map = exploring.on_the_map(self.gallery)
            pictures = f"{len(self._on_map):,} pictures"
            text = f"Laying out {pictures}, which takes some seconds ..."
            self._map_message.say(text)
            plane = finder.plane
            labels, classes = self.gallery.labels, None
            if labels is not None:
                names = [readable(name) for name in self.gallery.class_names]
                classes = [names[label] for label in labels[self._on_map].tolist()]
            axes = "t-SNE: near is similar, axes have no unit"
            if len(self._on_map) > exploring.LAID_OUT:
                axes += f"; of {exploring.LAID_OUT:,}, each other among the three most like it"
            self._map.draw(plane, classes, f"{pictures} by {finder.name} ({axes}).")
            self._map_box.children = (self._map,)
            self._map_message.value = ""
            self._mark_map()

    def _mark_map(self) -> None:
        """The query, and what the model that is mapped finds."""
        if not self._map_box.children:
            return
        marks = {}
        for finder, positions in self._shown:
            if finder is self._network(self._of):
                marks = {position: self._mark(position) for position in positions}
        marks[self.query] = "query"  # drawn last
        place = {position: number for number, position in enumerate(self._on_map.tolist())}
        there = {place[each]: mark for each, mark in marks.items() if each in place}
        self._map.mark(there)

    def _network(self, chosen: ipywidgets.Dropdown) -> Finder:
        return [*self.finders, self.baseline][chosen.value]

    def _card(self, number: int) -> dict:
        return self._picture(int(self._on_map[number]))

    def _chosen_on_map(self, number: int) -> None:
        self._choice.chosen = -1
        self.search_with(int(self._on_map[number]))

    def _selected_on_map(self, numbers: list[int]) -> None:
        """Pictures inside a lasso, below the map: the first of them in a random order."""
        self._in_lasso = self._on_map[numbers][
            torch.randperm(len(numbers), generator=seeded(0, 34))
        ]
        self._in_lasso = self._in_lasso[:PAGE].tolist()
        with self._lasso.hold_sync():
            self._lasso.chosen = -1
            self._lasso.label = (
                f"Click one of the {len(numbers):,} pictures in the lasso to search with it"
            )
            self._lasso.note = f"{PAGE} of them, drawn at random" * (len(numbers) > PAGE)
            self._lasso.items = [self._item(row, self.gallery.title(row)) for row in self._in_lasso]
        self._map_box.children = (self._map, self._lasso) if numbers else (self._map,)

    def _chosen_in_lasso(self, change) -> None:
        if change["new"] >= 0:
            self._choice.chosen = -1
            self.search_with(self._in_lasso[change["new"]])


class _Message(ipywidgets.HTML):
    """A place where something is said."""

    def say(self, text: str, problem: bool = False) -> None:
        self.value = widgets.message(text, problem)

    @contextmanager
    def errors(self):
        """What goes wrong inside is said here, in one line."""
        try:
            yield
        except (ValueError, OSError, RuntimeError) as error:
            self.say(str(error), problem=True)


# Layouts and styles are plain: each widget makes one of its own from it.
WIDE, STYLE = {"width": "100%"}, {"description_width": "initial"}


def _message() -> _Message:
    return _Message(layout=WIDE)


def _column(*parts) -> ipywidgets.VBox:
    return ipywidgets.VBox(parts, layout=WIDE)


def _row(*parts) -> ipywidgets.HBox:
    return ipywidgets.HBox(parts, layout={"flex_flow": "row wrap"})


def _button(text: str, clicked: Callable, icon: str = "", **options) -> ipywidgets.Button:
    button = ipywidgets.Button(description=text, icon=icon, **options)
    button.on_click(lambda _: clicked())
    return button


def _control(kind: type, changed: Callable, **options):
    control = kind(style=STYLE, **options)
    control.observe(undisturbed()(lambda _: changed()), "value")
    return control


def _slider(value: int, low: int, high: int, text: str, changed: Callable):
    options = {"value": value, "min": low, "max": high, "description": text}
    return _control(ipywidgets.IntSlider, changed, **options)


def _side_by_side(pictures: list[tuple]) -> str:
    """Pictures with captions, as HTML."""
    cells = "".join(_figure(widgets.picture(image, text, 150), text) for image, text in pictures)
    return f'<div style="display: flex; flex-wrap: wrap; gap: 10px">{cells}</div>'


def _figure(picture: str, caption: str) -> str:
    style = "font-size: 12px; line-height: 1.3; max-width: 150px"
    text = f'<figcaption style="{style}">{caption}</figcaption>'
    return f'<figure style="margin: 0 0 8px">{picture}{text}</figure>'
