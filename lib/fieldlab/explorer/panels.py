"""The panels of notebooks/explore.ipynb: what is clicked there, and what then changes. What it means is `exploring`'s business.

explorer = Explorer("../runs")
explorer.runs            # in a cell of its own each: runs, choice, results, why, erasing, views, map
"""

import tempfile
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import ipywidgets
import numpy as np
import torch
from fieldmarks.data.decoding import ImageError
from fieldmarks.random import seeded
from fieldmarks.show import maps

from fieldlab.explorer import exploring, widgets
from fieldlab.explorer.exploring import CodeFinder, Erasing, Finder, Gallery, PairFinder, Picture

PAGE = 24  # thumbnails to choose a query from, at a time
MOST = 20  # results in a row
ERRORS = (ValueError, OSError, RuntimeError)


class Explorer:
    """Finished runs side by side on the same pictures.

    Args:
        folder: of finished runs.
        own_pictures: a folder of pictures to search in; empty: those of the runs' data set that none of them has learnt from.
        device: "auto", "cpu", "cuda".

    Whatever is wrong with runs, pictures or uploads is said in the panels, in one line.
    """

    def __init__(self, folder: Path, own_pictures: str = "", device: str = "auto"):
        self.folder, self.own_pictures, self.device = Path(folder), own_pictures, device
        self.gallery: Gallery | None = None
        self.finders: list[Finder] = []
        self.baseline: Finder | None = None
        self.query: Picture | None = None
        self._uploads = tempfile.TemporaryDirectory(prefix="fieldmarks-")
        self._thumbnails: dict[int, str] = {}
        self._order = torch.empty(
            0, dtype=torch.int64
        )  # of the pictures that can be chosen as query
        self._page = 0
        self._draw = 0
        self._erasing: Erasing | None = None
        self._shown: list[tuple[Finder, list[int]]] = []
        self._on_map = torch.empty(0, dtype=torch.int64)
        self._build()
        with self._telling(self._runs_message):
            found, others = exploring.explorable(self.folder)
            self._offer(found, len(others))
            self.open()

    # ---- what there is to click

    def _build(self) -> None:
        wide, flow = (
            {"width": "100%"},
            {"flex_flow": "row wrap"},
        )  # plain: each widget makes a layout of its own from it
        label = {"description_width": "initial"}
        self._runs_message, self._query_message, self._why = (
            ipywidgets.HTML(layout=wide) for _ in range(3)
        )
        self._picker = ipywidgets.SelectMultiple(
            rows=4,
            layout=ipywidgets.Layout(width="98%"),
            description="Runs",
            style=label,
            tooltip="Finished runs; several with Ctrl or Shift",
        )
        button = ipywidgets.Button(description="Open these runs", icon="folder-open")
        button.on_click(lambda _: self._reopen())
        self.runs = ipywidgets.VBox([self._picker, button, self._runs_message], layout=wide)

        self._classes = ipywidgets.Dropdown(
            description="Show", options=[("all classes, mixed", -1)], style=label
        )
        self._classes.observe(lambda _: self._turn(0), "value")
        earlier, later = (
            ipywidgets.Button(description=text, layout={"width": "auto"})
            for text in ("← earlier", "more →")
        )
        earlier.on_click(lambda _: self._turn(self._page - 1))
        later.on_click(lambda _: self._turn(self._page + 1))
        self._choice = widgets.ThumbnailGrid(label="Click a picture to search with it")
        self._choice.observe(self._chosen_in_grid, "chosen")
        self._upload = widgets.PictureUpload(
            self._received,
            partial(self._tell, self._query_message),
            label="Or upload one of your own",
            limit=exploring.UPLOAD_BYTES,
        )
        self.choice = ipywidgets.VBox(
            [
                ipywidgets.HBox([self._classes, earlier, later], layout=flow),
                self._choice,
                self._upload,
                self._query_message,
            ],
            layout=wide,
        )

        self._k = ipywidgets.IntSlider(10, 1, MOST, description="K, results of each", style=label)
        self._bits = ipywidgets.ToggleButtons(
            options=[("all", 0)], description="Code length", style={"button_width": "auto", **label}
        )
        self._k.observe(lambda _: self._search(), "value")
        self._bits.observe(lambda _: self._renew(), "value")
        self._query_picture = ipywidgets.HTML()
        self._rows: list[widgets.ThumbnailGrid] = []
        self._row_box = ipywidgets.VBox(layout=wide)
        head = ipywidgets.HBox(
            [self._query_picture, ipywidgets.VBox([self._k, self._bits])], layout=flow
        )
        self.results = ipywidgets.VBox([head, self._row_box], layout=wide)
        self.why = self._why

        self._staged = widgets.ThumbnailGrid(label="Found in stages", columns=10)
        self._stage_words, self._staged_box = (
            ipywidgets.HTML(layout=wide),
            ipywidgets.VBox(layout=wide),
        )
        search = ipywidgets.Button(description="Search in stages", icon="filter")
        search.on_click(lambda _: self.search_in_stages())
        self.stages = ipywidgets.VBox([search, self._stage_words, self._staged_box], layout=wide)

        self._regions = ipywidgets.IntSlider(50, 1, 400, description="n, regions", style=label)
        self._region_size = ipywidgets.IntSlider(
            32, 1, 224, description="l, their side in pixels", style=label
        )
        for control in (self._regions, self._region_size):
            control.observe(lambda _: self._erase(), "value")
        self._erased = ipywidgets.HTML(layout=wide)
        self.erasing = ipywidgets.VBox(
            [self._regions, self._region_size, self._erased], layout=wide
        )

        self._grids = [
            ipywidgets.Checkbox(
                n in (2, 4),
                description=f"{n} × {n}",
                indent=False,
                layout=ipywidgets.Layout(width="80px"),
            )
            for n in (2, 4, 8, 16)
        ]
        self._views = ipywidgets.IntSlider(4, 1, 8, description="M, views", style=label)
        again = ipywidgets.Button(description="Draw again", icon="refresh")
        again.on_click(lambda _: self._draw_views(self._draw + 1))
        for control in (*self._grids, self._views):
            control.observe(lambda _: self._draw_views(self._draw), "value")
        self._drawn = ipywidgets.HTML(layout=wide)
        self.views = ipywidgets.VBox(
            [
                ipywidgets.HBox(
                    [ipywidgets.Label("Grids"), *self._grids, self._views, again], layout=flow
                ),
                self._drawn,
            ],
            layout=wide,
        )

        self._of = ipywidgets.Dropdown(description="As seen by", style=label)
        draw = ipywidgets.Button(description="Draw the map", icon="map")
        draw.on_click(lambda _: self.draw_map())
        self._map = widgets.PictureMap(self._card)
        self._map.observe(self._chosen_on_map, "chosen")
        self._map_message, self._map_box = (
            ipywidgets.HTML(layout=wide),
            ipywidgets.VBox(layout=wide),
        )
        self.map = ipywidgets.VBox(
            [ipywidgets.HBox([self._of, draw], layout=flow), self._map_message, self._map_box],
            layout=wide,
        )
        self._show_controls(False)

    def _show_controls(self, shown: bool) -> None:
        """Controls that do nothing are not there: before runs are open, and of methods that no open run has."""
        for panel, there in (
            (self.choice, shown),
            (self.results, shown),
            (self.map, shown),
            (self.stages, shown),
            (self.erasing, shown and self._first("fcaenet")),
            (self.views, shown and self._first("vapnet")),
        ):
            for control in panel.children:
                if not isinstance(control, ipywidgets.HTML):
                    control.layout.display = None if there else "none"

    # ---- runs

    def _offer(self, runs: list, others: int) -> None:
        self._all = runs
        word = f"; {others} other finished run{'s' * (others > 1)} cannot look at any picture (outfits, shallow hashing)"
        self._others = word if others else ""
        options = [
            (
                "   |   ".join(
                    (
                        f"{exploring.short_name(run)}, seed {run.result['seed']}",
                        run.folder.name,
                        exploring.source_of(run),
                    )
                ),
                place,
            )
            for place, run in enumerate(runs)
        ]
        first = [runs.index(run) for run in exploring.first_choice(runs)]
        self._picker.rows = min(max(len(runs), 2), 8)
        self._picker.options = options
        self._picker.value = first

    def _reopen(self) -> None:
        with self._telling(self._runs_message):
            if not self._picker.options:
                raise ValueError(
                    f"no finished run below '{self.folder.resolve()}': make some with make demo, then run all cells again"
                )
            self.open()

    def open(self) -> None:
        """Open the runs that are picked: their models, and the pictures that they are compared on."""
        picked = [self._all[place] for place in self._picker.value]
        gallery = (
            exploring.own_gallery(self.own_pictures)
            if self.own_pictures
            else exploring.common_gallery(picked)
        )
        finders = []
        for run in picked:
            word = f"{exploring.short_name(run)} looks at {gallery.name} (only once: what it sees is kept) ..."
            self._tell(self._runs_message, word, False)
            finders.append(exploring.open_finder(run, gallery, self.device))
        baseline = exploring.open_frozen(picked[0], gallery, self.device)
        names = [finder.name for finder in finders]
        for finder, run in zip(finders, picked):
            if names.count(finder.name) > 1:
                finder.name += f" ({run.folder.name})"
        self.gallery, self.finders, self.baseline = gallery, finders, baseline
        self._picked = {finder.name: run for finder, run in zip(finders, picked)}
        self.query = None
        self._thumbnails.clear()
        unread = ""
        if gallery.left_out:
            unread = f"; {len(gallery.left_out)} files cannot be read, first {next(iter(gallery.left_out)).name}"
        self._tell(self._runs_message, f"Searching {gallery.name}{unread}{self._others}.", False)
        labels = [] if gallery.labels is None else gallery.labels.unique().tolist()
        lengths = sorted(
            {finder.model.bits for finder in finders if isinstance(finder, CodeFinder)}
        )
        self._bits.options = [*((f"{bits} bits", bits) for bits in lengths), ("all", 0)]
        self._bits.value = lengths[-1] if lengths else 0
        self._bits.layout.display = None if len(lengths) > 1 else "none"
        self._of.options = [
            (finder.name, place) for place, finder in enumerate([*finders, baseline])
        ]
        self._of.value = 0
        self._map_box.children = ()
        names = [exploring.readable(gallery.class_names[label]) for label in labels]
        self._classes.options = [("all, mixed", -1), *zip(names, labels)]
        self._classes.value = -1
        self._turn(0)
        self._fit_controls()
        self._show_controls(True)
        self.ask(int(self._order[0]))

    def _fit_controls(self) -> None:
        """Begin with what the runs were trained with."""
        if finder := self._first("fcaenet"):
            p = finder.model.result["parameters"]
            self._regions.max, self._region_size.max = min(400, p["size"] ** 2), p["size"]
            self._regions.value, self._region_size.value = p["regions"], p["region_size"]
        if finder := self._first("vapnet"):
            p = finder.model.result["parameters"]
            for box, n in zip(self._grids, (2, 4, 8, 16)):
                box.disabled, box.value = n > p["size"], n in p["grids"]
            self._views.value = p["views"]

    def _first(self, method: str) -> Finder | None:
        """The first open run of a method, of the code length that is shown."""
        return next(
            (
                finder
                for finder in self._visible()
                if finder.model.result["parameters"]["method"] == method
            ),
            None,
        )

    def _visible(self) -> list[Finder]:
        bits = self._bits.value
        return [
            finder
            for finder in self.finders
            if not (bits and isinstance(finder, CodeFinder)) or finder.model.bits == bits
        ]

    # ---- the query

    def _turn(self, page: int) -> None:
        """Another page of pictures to choose from."""
        if self.gallery is None:
            return
        wanted = self._classes.value
        if wanted is None or wanted < 0:
            self._order = torch.randperm(len(self.gallery), generator=seeded(0, 33))
        else:
            self._order = (self.gallery.labels == wanted).nonzero().flatten()
        pages = -(-len(self._order) // PAGE)
        self._page = page % pages
        rows = self._order[self._page * PAGE : (self._page + 1) * PAGE].tolist()
        self._choice.chosen = -1
        self._choice.note = f"{self._page * PAGE + 1:,} to {self._page * PAGE + len(rows):,} of {len(self._order):,}"
        self._choice.items = [self._item(row, self.gallery.words(row)) for row in rows]

    def _item(self, position: int, caption: str, mark: str = "neutral") -> dict:
        return {
            "source": self._thumbnail(position),
            "name": self.gallery.words(position),
            "caption": caption,
            "mark": mark,
        }

    def _thumbnail(self, position: int) -> str:
        if position not in self._thumbnails:
            try:
                pixels = self.gallery.pixels(self.finders[0].model.resize)[position]
            except ImageError as error:  # of a gallery that is too large to be kept decoded
                self._tell(
                    self._runs_message,
                    f"a picture has been moved or damaged since the gallery was opened: {error}",
                )
                pixels = np.full((8, 8, 3), 200, np.uint8)
            self._thumbnails[position] = widgets.thumbnail(pixels)
        return self._thumbnails[position]

    def _chosen_in_grid(self, change) -> None:
        if change["new"] >= 0:
            self.ask(int(self._order[self._page * PAGE + change["new"]]))

    def _received(self, name: str, content: bytes) -> None:
        with self._telling(self._query_message):
            if self.gallery is None:
                raise ValueError("there is nothing to search in yet: open some runs first")
            path = exploring.save_upload(name, content, Path(self._uploads.name))
            self._choice.chosen = -1
            self.ask(path, name)

    def ask(self, query: Picture, name: str = "") -> None:
        """Search with a picture of the gallery, or with a file."""
        with self._telling(self._query_message):
            self.query = query
            self._query_name = name or self.gallery.words(query)
            pixels = exploring.pixels_of(self.gallery, query, self.finders[0].model.resize)
            word = f"The query: {self._query_name}"
            self._query_picture.value = (
                f'<figure style="margin: 0 0 8px">{widgets.picture(pixels, word, 128)}'
                f"<figcaption>{widgets.message(word)}</figcaption></figure>"
            )
            self._query_message.value = widgets.message(f"Searching with {self._query_name}.")
            self._renew()

    def _renew(self) -> None:
        """Everything that depends on the query and on which runs are shown."""
        self._search()
        self._stage_words.value, self._staged_box.children = "", ()
        self._erasing = None
        self._erase()
        self._draw_views(self._draw)

    # ---- results

    def _search(self) -> None:
        if self.query is None:
            return
        gallery, query = self.gallery, self.query
        self._why.value = widgets.message("Click a result to see what makes it like the query.")
        finders = self._visible()
        news = [gallery.is_new_to(self._picked[finder.name], query) for finder in finders]
        if any(new is not False for new in news):
            finders, news = [*finders, self.baseline], [*news, None]
        while len(self._rows) < len(finders):
            row = widgets.ThumbnailGrid()
            row.observe(partial(self._explain, len(self._rows)), "chosen")
            self._rows.append(row)
        self._shown = []
        for row, finder, new in zip(self._rows, finders, news):
            found = finder.find(
                finder.describe(query), self._k.value, query if isinstance(query, int) else None
            )
            right = [gallery.is_right(position, query) for position in found.positions]
            marks = ["neutral" if one is None else "right" if one else "wrong" for one in right]
            self._shown.append((finder, found.positions))
            note = (
                f"{right.count(True)} of {len(right)} right, " * (None not in right)
                + f"below each: {finder.score}"
            )
            note += (
                ""
                if new is None
                else "; a class it never saw"
                if new
                else "; a class it learnt, from other pictures"
            )
            with row.hold_sync():
                row.chosen, row.columns = -1, min(self._k.value, 10)
                row.label = finder.name + ", the baseline: it learnt nothing of this data" * (
                    finder is self.baseline
                )
                row.note = note
                row.items = [
                    self._item(
                        position, f"{score:.2f}" if isinstance(score, float) else str(score), mark
                    )
                    for position, score, mark in zip(found.positions, found.scores, marks)
                ]
        self._row_box.children = self._rows[: len(finders)]
        self._mark_map()

    def _explain(self, number: int, change) -> None:
        if change["new"] < 0:
            return
        for other in self._rows[:number] + self._rows[number + 1 :]:
            other.chosen = -1
        finder, positions = self._shown[number]
        match = positions[change["new"]]
        with self._telling(self._why):
            self._why.value = self._reasons(finder, match)

    def _reasons(self, finder: Finder, match: int) -> str:
        first, second = self._query_name, self.gallery.words(match)
        head = f"{finder.name}: the query ({first}) and result {second}"
        if isinstance(finder, PairFinder):
            figure = exploring.concepts_of_pair(finder, self.query, match, f"{first} and {second}")
            return widgets.message(
                f"{head}. Concepts by what they contribute; maps: for and against the similarity."
            ) + widgets.figure_picture(
                figure, f"{head}: pictures, maps, and concepts by contribution"
            )
        why = exploring.why_alike(finder, self.query, match)
        parts = []
        for word, image, heat in zip(("the query", "the result"), why.pictures, why.maps):
            parts += [
                (image, word),
                (maps.blend(image, heat), f"what in {word} makes it like the other"),
            ]
        text = widgets.message(
            f"{head}. Bright: what makes the one like the other (Grad-CAM)."
        ) + _side_by_side(parts)
        if isinstance(finder, CodeFinder):
            text += widgets.bits_table(
                finder.describe(self.query), finder.rows[match], ("query", "result")
            )
        return text

    def search_in_stages(self) -> None:
        """The query among all pictures by codes, then by embeddings, then explained, with the time of each."""
        with self._telling(self._stage_words):
            kinds = [
                next((finder for finder in self._visible() if type(finder) is kind), None)
                for kind in (CodeFinder, Finder, PairFinder)
            ]
            if kinds[0] is None or kinds[1] is None:
                raise ValueError(
                    "a search in stages needs codes and embeddings: open a hashing run and one of VAPNet or a baseline, too"
                )
            staged = exploring.in_stages(*kinds, self.query, self._k.value)
            lines = [f"{words}: {1000 * seconds:.0f} ms" for words, seconds in staged.stages]
            whys = [
                ", ".join(f"{name} {value:.2f}" for name, value in concepts)
                for concepts in staged.concepts
            ]
            listed = "".join(f"<li>{widgets.message(why)}</li>" for why in whys)
            self._stage_words.value = "".join(map(widgets.message, lines)) + (
                f"<ol>{listed}</ol>" if listed else ""
            )
            marks = {None: "neutral", True: "right", False: "wrong"}
            self._staged.items = [
                self._item(
                    position, f"{score:.2f}", marks[self.gallery.is_right(position, self.query)]
                )
                for position, score in zip(*staged.found)
            ]
            self._staged_box.children = (self._staged,)

    # ---- SREM and patches

    def _erase(self) -> None:
        finder = self._first("fcaenet")
        if self.query is None or finder is None:
            self._erased.value = widgets.message(
                "Pick an FCAENet run above to see what SREM erases." if self.gallery else ""
            )
            return
        with self._telling(self._erased):
            if self._erasing is None:
                self._erasing = Erasing(finder, self.query)
            erased, share = self._erasing.erased(self._regions.value, self._region_size.value)
            heated = maps.blend(self._erasing.picture, self._erasing.heat[0].clamp(max=1))
            self._erased.value = _side_by_side(
                [
                    (self._erasing.picture, "as the network sees it"),
                    (heated, "its attention"),
                    (erased, f"erased: {share:.0%}"),
                ]
            )

    def _draw_views(self, draw: int) -> None:
        self._draw, finder = draw, self._first("vapnet")
        if self.query is None or finder is None:
            self._drawn.value = widgets.message(
                "Pick a VAPNet run above to see what its patches are." if self.gallery else ""
            )
            return
        with self._telling(self._drawn):
            grids = tuple(n for box, n in zip(self._grids, (2, 4, 8, 16)) if box.value)
            drawn = exploring.draw_views(finder, self.query, grids, self._views.value, draw)
            views = [
                (view, f"view {number}, of {n} × {n}")
                for number, (view, n) in enumerate(zip(drawn.views, drawn.grids), start=1)
            ]
            self._drawn.value = _side_by_side(
                [(widgets.framed(drawn.whole, drawn.boxes), "where the views lie"), *views]
            )

    # ---- the map

    def draw_map(self) -> None:
        """Project the gallery to the plane as the chosen model sees it, and show it."""
        with self._telling(self._map_message):
            if self.gallery is None:
                raise ValueError("there is nothing to draw yet: open some runs first")
            finder = [*self.finders, self.baseline][self._of.value]
            self._on_map = exploring.on_the_map(self.gallery)
            self._tell(
                self._map_message,
                f"Laying out {len(self._on_map):,} pictures, which takes some seconds ...",
                False,
            )
            plane = maps.project(finder.rows[self._on_map.to(finder.rows.device)])
            with self._map.hold_sync():
                self._map.chosen, self._map.hovered, self._map.card = -1, -1, {}
                self._map.special = []
                self._map.points = widgets.points_of(plane)
                self._map.label = f"{len(self._on_map):,} pictures by {finder.name} (UMAP: near is similar, axes have no unit)."
            self._map_box.children = (self._map,)
            self._map_message.value = ""
            self._mark_map()

    def _mark_map(self) -> None:
        """The query, and what the model that is mapped finds."""
        if not self._map_box.children:
            return
        place = {position: number for number, position in enumerate(self._on_map.tolist())}
        special = []
        for finder, positions in self._shown:
            if finder is [*self.finders, self.baseline][self._of.value]:
                for position in positions:
                    right = self.gallery.is_right(position, self.query)
                    mark = "neutral" if right is None else "right" if right else "wrong"
                    special.append({"position": place.get(position), "mark": mark})
        if isinstance(self.query, int):
            special.append({"position": place.get(self.query), "mark": "query"})
        self._map.special = [one for one in special if one["position"] is not None]

    def _card(self, number: int) -> dict:
        position = int(self._on_map[number])
        return {"source": self._thumbnail(position), "name": self.gallery.words(position)}

    def _chosen_on_map(self, change) -> None:
        if change["new"] >= 0:
            self._choice.chosen = -1
            self.ask(int(self._on_map[change["new"]]))

    # ---- telling

    def _tell(self, place: ipywidgets.HTML, text: str, problem: bool = True) -> None:
        place.value = widgets.message(text, problem)

    @contextmanager
    def _telling(self, place: ipywidgets.HTML):
        """What goes wrong inside is said at a place, in one line."""
        try:
            yield
        except ERRORS as error:
            self._tell(place, str(error))


def _side_by_side(pictures: list[tuple]) -> str:
    """Pictures with captions, as HTML."""
    cells = "".join(
        f'<figure style="margin: 0; width: 150px">{widgets.picture(image, words, 150)}'
        f'<figcaption style="font-size: 12px; line-height: 1.3">{words}</figcaption></figure>'
        for image, words in pictures
    )
    return f'<div style="display: flex; flex-wrap: wrap; gap: 10px">{cells}</div>'
