"""Finished runs that can be explored, and the pictures that they are compared on.

A picture is named by its position in the gallery, or by the path of a file.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from torch import Tensor

from fieldlab.cards.finished import FinishedRun, find_results
from fieldlab.own_pictures import list_pictures
from fieldlab.report.tables import in_words, run_name
from fieldmarks.data.imageset import ImageSet
from fieldmarks.data.pixels import PixelCache
from fieldmarks.decoding import ImageError, UnreadableImages, decode
from fieldmarks.experiments import parameters as reading
from fieldmarks.experiments.experiment import experiment_class
from fieldmarks.experiments.fewshot import FewShot
from fieldmarks.experiments.hashing import SHALLOW
from fieldmarks.experiments.inshop import InShop
from fieldmarks.picture_kinds import sort_files
from fieldmarks.show.names import readable

UPLOAD_BYTES = 8_000_000
PAIRS = ("fewshot", "inshop")  # experiments whose methods compare pairs of pictures
ORDER = ("open_set", "hashing", *PAIRS)

Picture = int | Path


# ---- runs


def explorable(folder: Path) -> tuple[list[FinishedRun], list[FinishedRun]]:
    """The finished runs below a folder whose method reads any picture, latest first; the others.

    Raises:
        FileNotFoundError: there is no finished run.
        ValueError: none that can be explored, or a damaged one.
    """
    folder = Path(folder).expanduser().resolve()
    try:
        runs = find_results(folder)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"no finished run below '{folder}': make some with make demo or fieldmarks run"
        ) from None
    good = [run for run in runs if _reads_any_picture(run.result)]
    if not good:
        kinds = "VAPNet and its baselines, FCAENet and trained hashing, PAN on birds or in-shop"
        raise ValueError(
            f"none of the {len(runs)} finished runs below '{folder}' can read other pictures: "
            f"make some with make demo ({kinds})"
        )
    others = [run for run in runs if run not in good]
    return sorted(good, key=lambda run: run.result["finished"], reverse=True), others


def _reads_any_picture(result: dict) -> bool:
    kind, p = result.get("experiment"), result["parameters"]
    if kind in PAIRS:
        return p["method"].startswith("pan_") and not p.get("batch_statistics")
    return kind == "open_set" or (kind == "hashing" and p["method"] not in SHALLOW)


def first_choice(runs: list[FinishedRun]) -> list[FinishedRun]:
    """Runs to begin with: of the data of the latest run, the latest of each experiment and code
    length, by choice a paper's method."""

    def is_baseline(run: FinishedRun) -> bool:
        return not run.result["parameters"]["method"].startswith(("vapnet", "fcaenet", "pan_"))

    chosen = {}
    for run in sorted(runs, key=is_baseline):
        if source_of(run) == source_of(runs[0]):
            chosen.setdefault((run.result["experiment"], run.result["parameters"].get("bits")), run)
    place = lambda run: (ORDER.index(run.result["experiment"]), run_name(run.result))
    return sorted(chosen.values(), key=place)


def full_title(run: FinishedRun) -> str:
    """What tells a run from all others."""
    name = f"{run_name(run.result)}, seed {run.result['seed']}"
    return "   |   ".join((name, run.folder.name, source_of(run)))


def source_of(run: FinishedRun) -> str:
    """In words, the data that a run is of; equal for runs of the same."""
    p = run.result["parameters"]
    root = p["root"] and Path(p["root"]).expanduser().absolute()
    return f"{p['dataset']} ({root or in_words(p['generated'])})"


# ---- the gallery


@dataclass
class Gallery:
    """Pictures to search in.

    Attributes:
        name: in words.  paths: N files.
        labels: (N,) positions in `class_names`; None where nobody has said what pictures show.
        learned: the names of the classes that each run was trained on, by its folder.
        left_out: files that cannot be read, with the reason.
    """

    name: str
    paths: list[Path]
    labels: Tensor | None = None
    class_names: list[str] = field(default_factory=list)
    learned: dict[Path, set[str]] = field(default_factory=dict)
    left_out: dict[Path, str] = field(default_factory=dict)
    _pixels: dict[int, PixelCache] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.paths)

    def pixels(self, shorter_side: int) -> PixelCache:
        """The decoded pictures, from the cache."""
        if shorter_side not in self._pixels:
            self._pixels[shorter_side] = PixelCache.open(self.paths, shorter_side)
        return self._pixels[shorter_side]

    def decoded(self, picture: Picture, shorter_side: int) -> np.ndarray:
        """One picture: (H, W, 3) uint8."""
        if isinstance(picture, int):
            return self.pixels(shorter_side)[picture]
        return decode(picture, shorter_side)

    def title(self, position: int) -> str:
        """What a picture is called: its class, or its file's name."""
        known = self.labels is not None
        return readable(self.class_of(position)) if known else self.paths[position].name

    def class_of(self, position: int) -> str:
        return self.class_names[int(self.labels[position])]

    def is_right(self, position: int, query: Picture) -> bool | None:
        """Whether a picture is of the query's class; None where that is not known."""
        known = self.labels is not None and isinstance(query, int)
        return self.class_of(position) == self.class_of(query) if known else None

    def is_new_to(self, run: Path, query: Picture) -> bool | None:
        """Whether the run in a folder never saw the query's class; None where that is not known."""
        known = self.labels is not None and isinstance(query, int)
        return self.class_of(query) not in self.learned[run] if known else None


def common_gallery(runs: list[FinishedRun]) -> Gallery:
    """Of the data set that runs have in common, the pictures that none has learned from.

    Raises:
        ValueError: no run, runs of different data, or no picture is left; the data have changed.
        FileNotFoundError: the pictures are not where they were.
    """
    if not runs:
        raise ValueError("no run is picked: pick at least one")
    sources = {source_of(run): run_name(run.result) for run in reversed(runs)}
    if len(sources) > 1:
        names = "; ".join(f"{name} is of {of}" for of, name in reversed(sources.items()))
        raise ValueError(f"these runs are of different data, pick runs of one data set: {names}")
    images, seen, learned = None, set(), {}
    for run in runs:
        own, parts = _data_of(run)
        there = set(own.paths)
        images = images or own
        images = images.subset([row for row, path in enumerate(images.paths) if path in there])
        seen.update(path for part in parts for path in part.paths)
        learned[run.folder] = {part.class_names[i] for part in parts for i in part.labels.unique()}
    unseen = images.subset([row for row, path in enumerate(images.paths) if path not in seen])
    if len(unseen) < 2:
        raise ValueError(
            "together these runs have learned from all pictures of their data set: pick fewer"
        )
    name = f"{len(unseen):,} pictures of {images.name} that no picked run has learned from"
    return Gallery(name, unseen.paths, unseen.labels, unseen.class_names, learned)


def _data_of(run: FinishedRun) -> tuple[ImageSet, list[ImageSet]]:
    """At least all pictures that a run has not learned from, and the parts of the data it has."""
    kind = experiment_class(run.result["module"])
    experiment = kind.__new__(kind)  # for its data alone: no network, no pixels, no folder
    values = {**run.result["parameters"], "progress": "none"}
    experiment.parameters = reading.parse(kind.Parameters, values)
    images, parts = experiment.load_images(), experiment.split()
    if " ".join(part.fingerprint for part in parts) != run.result["data_fingerprint"]:
        raise ValueError(
            f"the pictures of {source_of(run)} have changed since '{run.folder}' was made: "
            "put them back, or make the run anew"
        )
    # Few-shot runs are chosen by the validation classes; in-shop ones are made for other items.
    return parts[1] if kind is InShop else images, list(parts[: 2 if kind is FewShot else 1])


def own_gallery(folder: Path, shorter_side: int = 128) -> Gallery:
    """All pictures below a folder, without labels; those that cannot be read are left out.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it holds no picture, or fewer than two that can be read.
    """
    folder = Path(folder).expanduser().absolute()
    paths, left_out = [folder / name for name, _, _ in list_pictures(folder)[0]], {}
    try:
        pixels = PixelCache.open(paths, shorter_side)
    except UnreadableImages as error:
        left_out = {fault.path: fault.reason for fault in error.faults}
        paths = [path for path in paths if path not in left_out]
        if len(paths) < 2:
            path, reason = next(iter(left_out.items()))
            raise ValueError(
                f"fewer than two pictures in '{folder}' can be read; {path.name}: {reason}"
            ) from None
        pixels = PixelCache.open(paths, shorter_side)
    name = f"{len(paths):,} pictures of {folder}"
    return Gallery(name, paths, left_out=left_out, _pixels={shorter_side: pixels})


def save_upload(name: str, content: bytes, folder: Path) -> Path:
    """Write an uploaded file into a folder, once it is known to be a picture that can be read.

    Raises:
        ValueError: one line: too large, no picture, too many pixels, or damaged.
    """
    name = Path(name).name or "picture"
    if len(content) > UPLOAD_BYTES:
        size, most = len(content) / 1e6, UPLOAD_BYTES / 1e6
        raise ValueError(f"{name} has {size:.1f} MB: upload at most {most:.0f} MB")
    path = Path(folder) / f"upload-{os.urandom(4).hex()}"
    path.write_bytes(content)
    try:
        if sort_files([path]).others:  # Pillow reads some of those by starting other programs
            raise ImageError(path, "not a picture; upload a JPEG, PNG, HEIC, WebP, TIFF or GIF")
        decode(path, 64)
    except ImageError as error:
        path.unlink()
        raise ValueError(f"{name} cannot be used: {error.reason}") from None
    return path
