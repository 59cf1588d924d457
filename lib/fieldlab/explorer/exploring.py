"""What finished runs find among pictures that none has learnt from, and why: notebooks/explore.ipynb without its widgets.

    runs, others = explorable("runs")
    gallery = common_gallery(runs)
    finders = [open_finder(run, gallery) for run in runs]
    found = finders[0].find(finders[0].rows[7], k=10, leave_out=7)

A picture is named by its position in the gallery, or by the path of a file.
"""

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import torch
import torch.nn.functional as F
from fieldmarks.backbones import create_backbone
from fieldmarks.data.augment import TestViews
from fieldmarks.data.decoding import ImageError, UnreadableImages, decode
from fieldmarks.data.imageset import ImageSet
from fieldmarks.data.pixels import PixelCache
from fieldmarks.experiments import fewshot, hashing, inshop, pair_figures
from fieldmarks.experiments import parameters as reading
from fieldmarks.experiments.common import load_images
from fieldmarks.experiments.common_figures import readable, shown
from fieldmarks.experiments.features import frozen_features
from fieldmarks.experiments.models import (
    PAIRS,
    SINGLE,
    Model,
    PairModel,
    load_model,
    load_pair_model,
)
from fieldmarks.explain.gradcam import pair_map
from fieldmarks.methods.fcaenet import attention, erase_mask
from fieldmarks.methods.hashing import to_codes
from fieldmarks.methods.method import Method
from fieldmarks.methods.vapnet import patch_boxes, sample_patch_index
from fieldmarks.random import seeded
from fieldmarks.resampling import crop_and_resize
from fieldmarks.training import choose_device, choose_precision
from PIL import Image
from torch import Tensor

from fieldlab.cards.finished import FinishedRun, find_results
from fieldlab.cascade import EXPLAINED, SHORTLIST, STRONGEST
from fieldlab.own_pictures import list_pictures

FORMATS = (
    "JPEG",
    "PNG",
    "WEBP",
    "BMP",
    "TIFF",
    "GIF",
)  # Pillow reads many more, some of them by starting other programs
UPLOAD_BYTES = 8_000_000
ON_THE_MAP = 2_000  # UMAP takes about 5 s for so many on one core

Picture = int | Path


# ---- runs


def explorable(folder: Path) -> tuple[list[FinishedRun], list[FinishedRun]]:
    """The finished runs below a folder whose model can look at any picture, the latest first, and the others.

    Raises:
        FileNotFoundError: there is no finished run.  ValueError: none that can be explored, or a damaged one.
    """
    folder = Path(folder).expanduser().resolve()
    try:
        runs = find_results(folder)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"no finished run below '{folder}': make some with make demo or fieldmarks run"
        ) from None
    good = [run for run in runs if _looks_at_any_picture(run.result)]
    if not good:
        raise ValueError(
            f"none of the {len(runs)} finished runs below '{folder}' can look at other pictures: make some with "
            "make demo (VAPNet and its baselines, FCAENet and trained hashing, PAN on birds or in-shop)"
        )
    others = [run for run in runs if run not in good]
    return sorted(good, key=lambda run: run.result["finished"], reverse=True), others


def _looks_at_any_picture(result: dict) -> bool:
    kind, p = result.get("experiment"), result["parameters"]
    if kind in PAIRS:
        return p["method"].startswith("pan_") and not p.get("batch_statistics")
    return kind == "open_set" or (kind == "hashing" and p["method"] not in hashing.SHALLOW)


def first_choice(runs: list[FinishedRun]) -> list[FinishedRun]:
    """Runs to begin with: of the data of the latest run, the latest of each experiment and code length, by choice a paper's method."""
    own = [run for run in runs if source_of(run) == source_of(runs[0])]
    chosen = {}
    for run in sorted(
        own,
        key=lambda run: (
            not run.result["parameters"]["method"].startswith(("vapnet", "fcaenet", "pan_"))
        ),
    ):
        chosen.setdefault((run.result["experiment"], run.result["parameters"].get("bits")), run)
    return sorted(
        chosen.values(),
        key=lambda run: (list(SINGLE | PAIRS).index(run.result["experiment"]), short_name(run)),
    )


def short_name(run: FinishedRun) -> str:
    """The method, with its code length."""
    bits = run.result["parameters"].get("bits")
    return run.result["method"] + (f", {bits} bits" if bits else "")


def source_of(run: FinishedRun) -> str:
    """In words, the data that a run is of; equal for runs of the same."""
    p = run.result["parameters"]
    generated = p.get("fieldguide") or p.get("wardrobe")
    return f"{p['dataset']} ({Path(p['root']).expanduser().absolute() if p['root'] else generated})"


# ---- the gallery


@dataclass
class Gallery:
    """Pictures to search in.

    Attributes:
        name: in words.  paths: N files.
        labels: (N,) positions in `class_names`, or None where nobody has said what the pictures show.
        learnt: the names of the classes that each run was trained on, by its folder.
        left_out: files that cannot be read, with the reason.
    """

    name: str
    paths: list[Path]
    labels: Tensor | None
    class_names: list[str]
    learnt: dict[Path, set[str]] = field(default_factory=dict)
    left_out: dict[Path, str] = field(default_factory=dict)
    _pixels: dict[int, PixelCache] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.paths)

    def pixels(self, shorter_side: int) -> PixelCache:
        """The decoded pictures, from the cache."""
        if shorter_side not in self._pixels:
            self._pixels[shorter_side] = PixelCache.open(self.paths, shorter_side)
        return self._pixels[shorter_side]

    def words(self, position: int) -> str:
        """What a picture is called: its class, or its file's name."""
        return (
            self.paths[position].name if self.labels is None else readable(self.class_of(position))
        )

    def class_of(self, position: int) -> str:
        return self.class_names[int(self.labels[position])]

    def is_right(self, position: int, query: Picture) -> bool | None:
        """Whether a picture is of the query's class; None where that is not known."""
        if self.labels is None or not isinstance(query, int):
            return None
        return bool(self.labels[position] == self.labels[query])

    def is_new_to(self, run: FinishedRun, query: Picture) -> bool | None:
        """Whether a run has never seen the query's class; None where the class is not known."""
        if self.labels is None or not isinstance(query, int):
            return None
        return self.class_of(query) not in self.learnt[run.folder]


def common_gallery(runs: list[FinishedRun]) -> Gallery:
    """Of the data set that runs have in common, the pictures that none of them was trained on or chosen by.

    Raises:
        ValueError: no run, runs of different data, or no picture is left; the data have changed since.
        FileNotFoundError: the pictures are not where they were.
    """
    if not runs:
        raise ValueError("no run is picked: pick at least one")
    sources = {source_of(run): short_name(run) for run in reversed(runs)}
    if len(sources) > 1:
        told = "; ".join(f"{name} is of {source}" for source, name in reversed(sources.items()))
        raise ValueError(f"these runs are of different data, pick runs of one data set: {told}")
    whole, seen, learnt = None, set(), {}
    for run in runs:
        images, parts = _data_of(run)
        there = set(images.paths)
        whole = (
            images
            if whole is None
            else whole.subset([row for row, path in enumerate(whole.paths) if path in there])
        )
        seen |= {path for part in parts for path in part.paths}
        learnt[run.folder] = {
            part.class_names[label] for part in parts for label in part.labels.unique().tolist()
        }
    unseen = whole.subset([row for row, path in enumerate(whole.paths) if path not in seen])
    if len(unseen) < 2:
        raise ValueError(
            "together these runs have learnt from all pictures of their data set: pick fewer of them"
        )
    return Gallery(
        f"{len(unseen):,} pictures of {whole.name} that no picked run has learnt from",
        unseen.paths,
        unseen.labels,
        unseen.class_names,
        learnt,
    )


def _data_of(run: FinishedRun) -> tuple[ImageSet, list[ImageSet]]:
    """At least all pictures that a run has not learnt from, and the parts of the data that it has."""
    kind = (SINGLE | PAIRS)[run.result["experiment"]]
    p = replace(reading.parse(kind.Parameters, run.result["parameters"]), progress="none")
    if kind is fewshot:
        whole = load_images(p)
        parts = list(fewshot.few_shot_split(whole).values())
        learnt = parts[:2]  # base and validation
    else:
        parts = kind.load_split(p)
        learnt = parts[:1]
        whole = parts[1] if kind is inshop else load_images(p)
    if " ".join(part.fingerprint for part in parts) != run.result["data_fingerprint"]:
        raise ValueError(
            f"the pictures of {source_of(run)} have changed since '{run.folder}' was made: put them back, or make "
            "the run anew"
        )
    return whole, list(learnt)


def own_gallery(folder: Path, shorter_side: int = 128) -> Gallery:
    """All pictures below a folder, without labels; those that cannot be read are left out.

    Raises:
        FileNotFoundError: there is no such folder.  ValueError: it holds no picture, or fewer than two that can be read.
    """
    folder = Path(folder).expanduser().absolute()
    paths = [folder / name for name, _, _ in list_pictures(folder)]
    try:
        left_out = {}
        pixels = PixelCache.open(paths, shorter_side)
    except UnreadableImages as error:
        left_out = {fault.path: fault.reason for fault in error.faults}
        paths = [path for path in paths if path not in left_out]
        if len(paths) < 2:
            first = error.faults[0]
            raise ValueError(
                f"fewer than two pictures in '{folder}' can be read; {first.path.name}: {first.reason}"
            ) from None
        pixels = PixelCache.open(paths, shorter_side)
    return Gallery(
        f"{len(paths):,} pictures of {folder}",
        paths,
        None,
        [],
        {},
        left_out,
        {shorter_side: pixels},
    )


def save_upload(name: str, content: bytes, folder: Path) -> Path:
    """Write an uploaded file into a folder, once it is known to be a picture that can be read.

    Raises:
        ValueError: one line: too large, no picture, too many pixels, or damaged.
    """
    name = Path(name).name or "picture"
    if len(content) > UPLOAD_BYTES:
        raise ValueError(
            f"{name} has {len(content) / 1e6:.1f} MB: upload at most {UPLOAD_BYTES / 1e6:.0f} MB"
        )
    path = Path(folder) / f"upload-{os.urandom(4).hex()}"
    path.write_bytes(content)
    try:
        try:
            Image.open(path, formats=FORMATS).close()
        except (OSError, SyntaxError, ValueError):
            raise ImageError(path, f"not a picture; upload one of {', '.join(FORMATS)}") from None
        except Image.DecompressionBombError:
            pass  # `decode` says how many pixels it claims
        decode(path, 64)
    except ImageError as error:
        path.unlink()
        raise ValueError(f"{name} cannot be used: {error.reason}") from None
    return path


class _OnePicture:
    """A single file, as `embed_all` reads pictures."""

    def __init__(self, path: Path, shorter_side: int):
        self.pixels = torch.from_numpy(decode(path, shorter_side)).permute(2, 0, 1)[None]

    def __len__(self) -> int:
        return 1

    def batch(self, index: Tensor) -> tuple[Tensor, Tensor]:
        return self.pixels, torch.tensor([self.pixels.shape[-2:]])


def pixels_of(gallery: Gallery, picture: Picture, shorter_side: int) -> Tensor:
    """One picture, decoded: (H, W, 3) uint8."""
    if isinstance(picture, int):
        return torch.from_numpy(gallery.pixels(shorter_side)[picture])
    return _OnePicture(picture, shorter_side).pixels[0].permute(1, 2, 0)


# ---- finding


class Found(NamedTuple):
    """Positions in the gallery, most alike first, and their scores: cosine, number of bits that differ, or PAN's similarity."""

    positions: list[int]
    scores: list[float]


@dataclass
class Finder:
    """A model, and what it makes of the pictures of a gallery.

    Attributes:
        rows: (N, D) embeddings, codes of -1/+1, or what PAN compares.
        score: what its scores are, in words.
    """

    name: str
    model: Model | PairModel
    gallery: Gallery
    rows: Tensor
    score: str
    _units: Tensor | None = field(default=None, repr=False)

    def describe(self, picture: Picture) -> Tensor:
        """The row of any picture: (D,)."""
        if isinstance(picture, int):
            return self.rows[picture]
        one = _OnePicture(picture, self.model.resize)
        return (
            self.model.encode(one)
            if isinstance(self.model, PairModel)
            else self.model.describe(one)
        )[0]

    def find(self, query: Tensor, k: int = 10, leave_out: int | None = None) -> Found:
        """The k pictures most like a row (D,), or all where there are fewer; never the one at `leave_out`."""
        scores, positions = self._nearest(query, min(k + (leave_out is not None), len(self.rows)))
        kept = [
            (position, score)
            for position, score in zip(positions.tolist(), scores.tolist())
            if position != leave_out
        ][:k]
        return Found(*(list(part) for part in zip(*kept)))

    def _nearest(self, query: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Scores and positions of the k best, best first; of equal ones the first in the gallery."""
        if (
            self._units is None
        ):  # once, rather than for every query: of 10,000 pictures that takes half a second
            self._units = F.normalize(self.rows, dim=1)
        scores, positions = (self._units @ F.normalize(query, dim=0)).sort(
            descending=True, stable=True
        )
        return scores[:k], positions[:k]


@dataclass
class CodeFinder(Finder):
    """By Hamming distance. Equal distances stand in a random order that is always the same: galleries are sorted by class."""

    def __post_init__(self):
        self._rank = torch.randperm(len(self.rows), generator=seeded(0, 30))

    def _nearest(self, query: Tensor, k: int) -> tuple[Tensor, Tensor]:
        distances = ((len(query) - self.rows @ query) / 2).round().long()
        positions = (distances * len(self.rows) + self._rank).topk(k, largest=False).indices
        return distances[positions], positions


@dataclass
class PairFinder(Finder):
    """By PAN's similarity of two pictures."""

    def _nearest(self, query: Tensor, k: int) -> tuple[Tensor, Tensor]:
        scores, positions = self.model.scores(query, self.rows).sort(descending=True, stable=True)
        return scores[:k].cpu(), positions[:k].cpu()


class Staged(NamedTuple):
    """What a search in stages finds, each stage's words and seconds, and of the first ten the concepts that count most, with what each
    contributes; none without an explanation."""

    found: Found
    stages: list[tuple[str, float]]
    concepts: list[list[tuple[str, float]]]


def in_stages(
    codes: CodeFinder,
    ranking: Finder,
    explanation: PairFinder | None,
    query: Picture,
    k: int = 10,
    shortlist: int = SHORTLIST,
) -> Staged:
    """Codes make a shortlist of all pictures, embeddings rank it, PAN says of the first ten why: as `cascade.search` does with indexes."""
    own, stages, began = query if isinstance(query, int) else None, [], perf_counter()

    def done(words: str) -> None:
        nonlocal began
        stages.append((words, perf_counter() - began))
        began = perf_counter()

    listed = torch.tensor(codes.find(codes.describe(query), shortlist, own).positions)
    done(f"shortlist of {len(listed):,} among {len(codes.rows):,} by {codes.name}")
    cosines = F.normalize(ranking.rows[listed], dim=1) @ F.normalize(ranking.describe(query), dim=0)
    best = cosines.argsort(descending=True, stable=True)[:k]
    found = Found(listed[best].tolist(), cosines[best].tolist())
    done(f"ranked by {ranking.name}")
    concepts = []
    if explanation:
        model, row = explanation.model, explanation.describe(query)
        first = explanation.rows[found.positions[:EXPLAINED]]
        scores, relevance = model.concepts(row.expand_as(first), first)
        values, places = (scores * relevance).topk(min(STRONGEST, len(model.names)), dim=1)
        concepts = [
            [(model.names[m], value) for m, value in zip(*pair)]
            for pair in zip(places.tolist(), values.tolist())
        ]
        done(f"the first {len(first)} explained by {explanation.name}")
    return Staged(found, stages, concepts)


def open_finder(run: FinishedRun, gallery: Gallery, device: str = "auto") -> Finder:
    """A run's model with the gallery described by it. What it says of the gallery is kept in the cache, for the next time.

    Raises:
        ValueError, OSError: the run cannot be used, one line.
    """
    if run.result["experiment"] in PAIRS:
        model = load_pair_model(run.folder, device)
        features = _features(model, model.embedder, gallery)
        with torch.no_grad():
            rows = model.network.encode(model.prepare(features.to(model.device)))
        return PairFinder(short_name(run), model, gallery, rows, "similarity")
    model = load_model(run.folder, device)
    outputs = _features(model, model.method, gallery)
    if model.bits:
        return CodeFinder(
            short_name(run), model, gallery, to_codes(outputs), f"bits of {model.bits} that differ"
        )
    return Finder(short_name(run), model, gallery, outputs, "cosine")


def open_frozen(run: FinishedRun, gallery: Gallery, device: str = "auto") -> Finder:
    """The baseline: the network of a run as it was before it learnt anything there."""
    if run.result["experiment"] in PAIRS:
        pair = load_pair_model(run.folder, device)
        method = Method(pair.backbone).eval()
        model = Model(
            pair.run, pair.result, method, pair.views, pair.device, pair.precision, 0, pair.resize
        )
    else:
        p = run.result["parameters"]
        torch.manual_seed(p["seed"])
        backbone = create_backbone(p["backbone"], p["weights"], p["size"])
        chosen = choose_device(device)
        method = Method(backbone).to(chosen, memory_format=torch.channels_last).eval()
        model = Model(
            run.folder,
            run.result,
            method,
            TestViews(p["size"], backbone.mean, backbone.std, p["resize"]),
            chosen,
            choose_precision(p["precision"], chosen, method),
            0,
            p["resize"],
        )
    return Finder(
        f"frozen {model.method.backbone.name}",
        model,
        gallery,
        _features(model, model.method, gallery),
        "cosine",
    )


def _features(model: Model | PairModel, method: Method, gallery: Gallery) -> Tensor:
    return frozen_features(
        gallery.pixels(model.resize),
        method,
        model.views,
        device=model.device,
        precision=model.precision,
    )


# ---- why


def views_of(finder: Finder, *pictures: Picture) -> Tensor:
    """Pictures as the finder's network sees them: (n, 3, size, size), normalised, on its device."""
    model, parts = finder.model, []
    for picture in pictures:
        pixels = pixels_of(finder.gallery, picture, model.resize).permute(2, 0, 1)[None]
        parts.append(model.views(pixels.to(model.device), torch.tensor([pixels.shape[-2:]])))
    return torch.cat(parts)


class Why(NamedTuple):
    """Two pictures as a network sees them, (H, W, 3), and maps (2, H, W) of what makes each like the other; all in [0, 1]."""

    pictures: list[Tensor]
    maps: Tensor


def why_alike(finder: Finder, query: Picture, match: Picture) -> Why:
    """Grad-CAM of a pair on both pictures: the target is the cosine to the other's embedding; of codes, to the other's code."""
    model, images = finder.model, views_of(finder, query, match)
    with torch.no_grad():
        reference = model.method.describe(images)
    if model.bits:
        reference = to_codes(reference)
    maps = pair_map(model.method.describe, model.method.backbone, images, reference.flip(0))
    return Why(shown(model.method.backbone, images), maps.cpu())


def concepts_of_pair(finder: PairFinder, query: Picture, match: Picture, caption: str):
    """PAN's figure of a pair: concepts by contribution, and Grad-CAM for and against the similarity."""
    model = finder.model
    images = views_of(finder, query, match)
    return pair_figures.pair_board(
        model.network,
        model.backbone,
        model.describe,
        images[:1],
        images[1:],
        model.names,
        [caption],
        model.backbone,
    )


# ---- what the methods do to a picture


class Erasing:
    """SREM on one picture: its attention is computed once, and masks are then drawn from it in milliseconds."""

    def __init__(self, finder: Finder, picture: Picture):
        self.backbone = finder.model.method.backbone
        self.images = views_of(finder, picture)
        with torch.no_grad():
            self.heat = attention(self.backbone(self.images), self.images.shape[-2:])  # (1, H, W)

    @property
    def picture(self) -> Tensor:
        """As the network sees it: (H, W, 3) in [0, 1]."""
        return shown(self.backbone, self.images)[0]

    def erased(self, regions: int, size: int) -> tuple[Tensor, float]:
        """The picture with the boxes of Algorithm 1 erased, (H, W, 3) in [0, 1], and the share of it that is gone."""
        mask = erase_mask(self.heat, regions, size)
        return shown(self.backbone, mask * self.images)[0], 1 - mask.mean().item()


class DrawnViews(NamedTuple):
    """The whole picture (H, W, 3) in [0, 1], M boxes x1 y1 x2 y2 in its pixels, the grid of each, and the views cut out there."""

    whole: Tensor
    boxes: Tensor
    grids: list[int]
    views: list[Tensor]


def draw_views(
    finder: Finder, picture: Picture, grids: tuple[int, ...], views: int, seed: int
) -> DrawnViews:
    """What VAPNet looks at in a training step (Sec. 3.2): M patches of a picture, from the cells of grids n x n.

    Raises:
        ValueError: no grid, or one finer than the picture has pixels.
    """
    if not grids:
        raise ValueError("no grid is chosen: choose at least one")
    images = views_of(finder, picture)
    size, backbone = images.shape[-1], finder.model.method.backbone
    boxes = patch_boxes(size, size, grids)
    chosen = sample_patch_index(1, views, grids, "grids", seeded(seed, 31))[0]
    owner = torch.tensor([n for n in grids for _ in range(n * n)])
    cut = crop_and_resize(images, boxes[chosen][None], size)[0]
    return DrawnViews(
        shown(backbone, images)[0], boxes[chosen], owner[chosen].tolist(), shown(backbone, cut)
    )


def on_the_map(gallery: Gallery) -> Tensor:
    """Positions of the pictures that a map shows: all, or ON_THE_MAP of them drawn at random."""
    if len(gallery) <= ON_THE_MAP:
        return torch.arange(len(gallery))
    return torch.randperm(len(gallery), generator=seeded(0, 32))[:ON_THE_MAP].sort().values
