"""What finished runs find in a gallery, and why: notebooks/explore.ipynb without its widgets.

runs, others = explorable("runs")
gallery = common_gallery(runs)
finders = [open_finder(run, gallery) for run in runs]
results = finders[0].find(7, k=10)
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fieldlab.cards.finished import FinishedRun
from fieldlab.cascade import Hit, Reason, strongest_concepts
from fieldlab.explorer.gallery import PAIRS, Gallery, Picture, common_gallery, own_gallery
from fieldlab.models import Model, PairModel, load_model, load_pair_model
from fieldlab.own_pictures import DecodedPictures
from fieldlab.report.tables import run_name
from fieldmarks.backbones import create_backbone
from fieldmarks.evaluation.results import RetrievalResults
from fieldmarks.experiments.features import frozen_features
from fieldmarks.explain.gradcam import pair_map
from fieldmarks.methods.fcaenet import attention, erase_mask
from fieldmarks.methods.hashing import to_codes
from fieldmarks.methods.method import Method
from fieldmarks.methods.vapnet import patch_boxes, sample_patch_index
from fieldmarks.random import seeded
from fieldmarks.resampling import crop_and_resize
from fieldmarks.show import maps
from fieldmarks.show.examples import shown
from fieldmarks.show.pairs import pair_board
from fieldmarks.training import choose_device

ON_THE_MAP = 50_000
LAID_OUT = 1_000  # of them: t-SNE takes about 5 s for so many on one core


@dataclass
class Finder:
    """A model, and what it makes of the pictures of a gallery.

    Attributes:
        rows: (N, D) embeddings, codes of -1/+1, or what PAN compares.
    """

    name: str
    model: Model | PairModel
    gallery: Gallery
    rows: Tensor

    bits = 0
    score = "cosine"

    @property
    def how(self) -> str:
        return f"{self.score} ({self.name})"

    def __len__(self) -> int:
        return len(self.rows)

    def row(self, picture: Picture) -> Tensor:
        """What the model makes of any picture: (D,)."""
        if isinstance(picture, int):
            return self.rows[picture]
        pixels = self.gallery.decoded(picture, self.model.resize)
        return self.model.embed(DecodedPictures([pixels]))[0]

    def find(self, query: Picture, k: int = 10) -> RetrievalResults:
        """The k pictures most like one, or all where there are fewer; never that one itself."""
        own = query if isinstance(query, int) else -1
        scores, index = self._nearest(self.row(query), min(k + (own >= 0), len(self)))
        kept = index != own
        results = scores[kept][None, :k], index[kept][None, :k]
        if own >= 0 and self.gallery.labels is not None:
            results += self.gallery.labels[own, None], self.gallery.labels
        return RetrievalResults(*results, score=self.score)

    def nearest(self, query: Picture, k: int) -> list[Hit]:
        """As `find`, for a search in stages."""
        results = self.find(query, k)
        pairs = zip(results.index[0].tolist(), results.scores[0].tolist(), strict=True)
        return [Hit(*pair) for pair in pairs]

    def cosines(self, query: Picture, positions: list[int]) -> np.ndarray:
        """Of the pictures at some positions to a query: (n,)."""
        rows = F.normalize(self.rows[positions], dim=1)
        return (rows @ F.normalize(self.row(query), dim=0)).numpy()

    @cached_property
    def _units(self) -> Tensor:
        """Once, not for every query: of 10,000 pictures that takes half a second."""
        return F.normalize(self.rows, dim=1)

    @cached_property
    def plane(self) -> np.ndarray:
        """Where the pictures `on_the_map` lie on it: (n, 2). LAID_OUT of them are projected, each
        other one lies among the three of those that are most like it."""
        rows = self.rows[on_the_map(self.gallery).to(self.rows.device)]
        first = torch.randperm(len(rows), generator=seeded(0, 35))[:LAID_OUT].sort().values
        laid_out = maps.project(rows[first.to(rows.device)])
        if len(first) == len(rows):
            return laid_out
        rows, laid_out = F.normalize(rows, dim=1), torch.from_numpy(laid_out)
        plane = [among(part, rows[first], laid_out) for part in rows.split(4096)]
        return torch.cat(plane).index_copy(0, first, laid_out).numpy()

    def _nearest(self, row: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Scores and positions of the k best, best first; of equal ones the lower position."""
        scores = self._units @ F.normalize(row, dim=0)
        scores, positions = scores.sort(descending=True, stable=True)
        return scores[:k], positions[:k]


@dataclass
class CodeFinder(Finder):
    """By Hamming distance; equal ones stand in one random order: galleries are sorted by class."""

    def __post_init__(self):
        self.bits = self.rows.shape[1]
        self.score = f"bits of {self.bits} that differ"
        self._rank = torch.randperm(len(self), generator=seeded(0, 30))

    def _nearest(self, row: Tensor, k: int) -> tuple[Tensor, Tensor]:
        distances = ((len(row) - self.rows @ row) / 2).round().long()
        positions = (distances * len(self) + self._rank).topk(k, largest=False).indices
        return distances[positions], positions


@dataclass
class PairFinder(Finder):
    """By PAN's similarity of two pictures."""

    score = "similarity"

    def __post_init__(self):
        self.rows = self.rows.to(self.model.device)

    def row(self, picture: Picture) -> Tensor:
        return super().row(picture).to(self.model.device)

    def _nearest(self, row: Tensor, k: int) -> tuple[Tensor, Tensor]:
        scores, positions = self.model.scores(row, self.rows).sort(descending=True, stable=True)
        return scores[:k].cpu(), positions[:k].cpu()

    def reasons(self, query: Picture, positions: list[int]) -> list[Reason]:
        """Why the pictures at some positions are like a query, for a search in stages."""
        return strongest_concepts(self.model, self.row(query), self.rows[positions])


def open_finder(run: FinishedRun, gallery: Gallery, device: str = "auto") -> Finder:
    """A run's model with what it makes of the gallery, which is kept in the cache.

    Raises:
        ValueError, OSError: the run cannot be used, one line.
    """
    compares = run.result["experiment"] in PAIRS
    model = (load_pair_model if compares else load_model)(run.folder, device)
    rows = _rows(model, gallery)
    name = run_name(run.result)
    if model.bits:
        return CodeFinder(name, model, gallery, to_codes(rows))
    return (PairFinder if compares else Finder)(name, model, gallery, rows)


def open_frozen(run: FinishedRun, gallery: Gallery, device: str = "auto") -> Finder:
    """The baseline: the network of a run as it was before it learned anything there."""
    if run.result["experiment"] in PAIRS:
        backbone = load_pair_model(run.folder, device).backbone
    else:
        p = run.result["parameters"]
        torch.manual_seed(p["seed"])
        backbone = create_backbone(p["backbone"], p["weights"], p["size"])
        backbone.resize = p["resize"]
        backbone.to(choose_device(device), memory_format=torch.channels_last)
    model = Model(run.folder, run.result, Method(backbone).eval())
    return Finder(f"frozen {backbone.name}", model, gallery, _rows(model, gallery))


class OpenRuns(NamedTuple):
    """Runs side by side: the pictures they are compared on, a finder of each, the baseline's."""

    gallery: Gallery
    finders: list[Finder]
    baseline: Finder


_kept: dict[tuple, OpenRuns] = {}


def open_runs(
    runs: Sequence[FinishedRun],
    own_pictures: str = "",
    device: str = "auto",
    say: Callable[[str], None] = lambda text: None,
) -> OpenRuns:
    """Open runs on a folder of pictures, or on those of their data that none has learned from.

    Args:
        say: told what takes time.
    Raises:
        ValueError, OSError: runs or pictures cannot be used, one line.
    """
    if opened := _kept.get(_key(runs, own_pictures, device)):
        return opened
    gallery = own_gallery(Path(own_pictures)) if own_pictures else common_gallery(list(runs))
    finders = []
    for run in runs:
        say(f"{run_name(run.result)} reads {gallery.name} (only once: this is kept) ...")
        finders.append(open_finder(run, gallery, device))
    names = [finder.name for finder in finders]
    for finder in finders:
        if names.count(finder.name) > 1:
            finder.name += f" ({finder.model.run.name})"
    return OpenRuns(gallery, finders, open_frozen(runs[0], gallery, device))


def keep(opened: OpenRuns, *arguments) -> None:
    """Let `open_runs` of the same arguments, in this process and those forked from it, return these
    as they are now."""
    _kept[_key(*arguments)] = opened


def _key(runs: Sequence[FinishedRun], *rest) -> tuple:
    """Runs by their place and by when they ended: another may be made at the same place."""
    return *((run.folder, run.result["finished"]) for run in runs), *rest


def _rows(model: Model, gallery: Gallery) -> Tensor:
    options = {"device": model.device, "precision": model.precision}
    return frozen_features(gallery.pixels(model.resize), model.method, model.views, **options)


# ---- why


def views_of(finder: Finder, *pictures: Picture) -> Tensor:
    """Pictures as the finder's network sees them: (n, 3, size, size), normalised, on its device."""
    model = finder.model
    pixels = [finder.gallery.decoded(picture, model.resize) for picture in pictures]
    parts = [DecodedPictures([each]).batch(torch.tensor([0])) for each in pixels]
    return torch.cat([model.views(canvas.to(model.device), sizes) for canvas, sizes in parts])


def why_alike(finder: Finder, query: Picture, match: Picture) -> tuple[list[Tensor], Tensor]:
    """Grad-CAM of a pair: pictures as a network sees them, (H, W, 3), and maps (2, H, W) of what
    makes each like the other, by the cosine to the other's embedding or code; all in [0, 1]."""
    method, images = finder.model.method, views_of(finder, query, match)
    with torch.no_grad():
        reference = method.representation(images)
    if finder.bits:
        reference = to_codes(reference)
    maps = pair_map(method.representation, method.backbone, images, reference.flip(0))
    return shown(method.backbone, images), maps.cpu()


def kind_of_maps(finder: Finder) -> str:
    """Which explainer `why_alike` draws; of plain averaged features Grad-CAM is the place map."""
    plain = type(finder.model.method).representation is Method.representation
    return "place_map" if plain else "grad_cam"


def concepts_of_pair(finder: PairFinder, query: Picture, match: Picture, caption: str):
    """PAN's figure of a pair: concepts by contribution, Grad-CAM for and against the similarity."""
    first, second = views_of(finder, query, match).split(1)
    return pair_board(finder.model.method, first, second, [caption])


# ---- what the methods do to a picture


class Erasing:
    """SREM on one picture: its attention is computed once, masks are drawn in milliseconds."""

    def __init__(self, finder: Finder, picture: Picture):
        self.backbone = finder.model.backbone
        self.images = views_of(finder, picture)
        with torch.no_grad():
            self.heat = attention(self.backbone(self.images), self.images.shape[-2:])  # (1, H, W)

    @property
    def picture(self) -> Tensor:
        """As the network sees it: (H, W, 3) in [0, 1]."""
        return shown(self.backbone, self.images)[0]

    def erased(self, regions: int, size: int) -> tuple[Tensor, float]:
        """The picture with the boxes of Algorithm 1 erased, (H, W, 3) in [0, 1], and what share of
        it is gone."""
        mask = erase_mask(self.heat, regions, size)
        return shown(self.backbone, mask * self.images)[0], 1 - mask.mean().item()


class DrawnViews(NamedTuple):
    """The full picture (H, W, 3) in [0, 1], M boxes x1 y1 x2 y2 in its pixels, the grid of each,
    and the views cut out there."""

    picture: Tensor
    boxes: Tensor
    grids: list[int]
    views: list[Tensor]


def draw_views(
    finder: Finder, picture: Picture, grids: tuple[int, ...], views: int, seed: int
) -> DrawnViews:
    """What VAPNet sees in a training step (Sec. 3.2): M patches of a picture, cells of n x n grids.

    Raises:
        ValueError: no grid, or one finer than the picture has pixels.
    """
    if not grids:
        raise ValueError("no grid is chosen: choose at least one")
    images = views_of(finder, picture)
    size, backbone = images.shape[-1], finder.model.backbone
    chosen = sample_patch_index(1, views, grids, "grids", seeded(seed, 31))[0]
    boxes = patch_boxes(size, size, grids)[chosen]
    owner = torch.tensor([n for n in grids for _ in range(n * n)])[chosen].tolist()
    cut = crop_and_resize(images, boxes[None], size)[0]
    return DrawnViews(shown(backbone, images)[0], boxes, owner, shown(backbone, cut))


def among(rows: Tensor, others: Tensor, plane: Tensor) -> Tensor:
    """Where rows (n, D) lie on a plane: among the three of others (m, D), at (m, 2), that are most
    like them, and nearer to the more alike. All of unit length. (n, 2)."""
    cosines, nearest = (part.cpu() for part in (rows @ others.T).topk(3, dim=1))
    return (cosines.div(0.02).softmax(dim=1)[:, :, None] * plane[nearest]).sum(1)


def on_the_map(gallery: Gallery) -> Tensor:
    """Positions of the pictures that a map shows: all, or ON_THE_MAP of them drawn at random."""
    return torch.randperm(len(gallery), generator=seeded(0, 32))[:ON_THE_MAP].sort().values


def shuffled(gallery: Gallery) -> Tensor:
    """All positions in a random order: galleries are sorted by class."""
    return torch.randperm(len(gallery), generator=seeded(0, 33))
