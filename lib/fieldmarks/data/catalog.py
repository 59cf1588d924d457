"""Data sets by name: load one, and hold it against the published counts."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from fieldmarks.data.decoding import unreadable
from fieldmarks.data.imageset import ImageSet
from fieldmarks.data.layouts import aircraft, cars, cub, folder, food101, inshop, nabirds, vegfru

LAYOUTS: dict[str, Callable[[Path], ImageSet]] = {
    "fieldguide": partial(cub.load, name="fieldguide"),
    "cub": cub.load,
    "cars": cars.load,
    "aircraft": aircraft.load,
    "inshop": inshop.load,
    "wardrobe": partial(inshop.load, name="wardrobe"),
    "nabirds": nabirds.load,
    "vegfru": vegfru.load,
    "food101": food101.load,
    "folder": folder.load,
}


@dataclass(frozen=True)
class Official:
    """What a published release holds: images and classes in all, images of each word of its split, (images, classes) of
    the open split's two parts, and images of the closed split's (None: there is no closed split)."""

    images: int
    classes: int
    split: dict[str, int]
    train: tuple[int | None, int]
    test: tuple[int | None, int]
    closed: tuple[int, int] | None


# Counted in the official lists; several papers misprint them.
OFFICIAL = {
    "cub": Official(
        11_788, 200, {"train": 5_994, "test": 5_794}, (5_864, 100), (5_924, 100), (5_994, 5_794)
    ),
    "cars": Official(
        16_185, 196, {"train": 8_144, "test": 8_041}, (8_054, 98), (8_131, 98), (8_144, 8_041)
    ),
    "aircraft": Official(
        10_000,
        100,
        {"train": 3_334, "val": 3_333, "test": 3_333},
        (5_000, 50),
        (5_000, 50),
        (6_667, 3_333),
    ),
    "inshop": Official(
        52_712,
        7_982,
        {"train": 25_882, "query": 14_218, "gallery": 12_612},
        (25_882, 3_997),
        (26_830, 3_985),
        None,
    ),
    "nabirds": Official(
        48_562,
        555,
        {"train": 23_929, "test": 24_633},
        (22_800, 277),
        (25_762, 278),
        (23_929, 24_633),
    ),
    # As published, which leaves out how many images each half of the classes has.
    "vegfru": Official(
        160_731,
        292,
        {"train": 29_200, "val": 14_600, "test": 116_931},
        (None, 146),
        (None, 146),
        (29_200, 116_931),
    ),
    "food101": Official(
        101_000,
        101,
        {"train": 75_750, "test": 25_250},
        (50_000, 50),
        (51_000, 51),
        (75_750, 25_250),
    ),
}


def load(name: str, root: Path) -> ImageSet:
    """Load a data set from its official layout.

    Args:
        name: "fieldguide" "cub" "cars" "aircraft" "inshop" "wardrobe" (its in-shop part) "nabirds" "vegfru" "food101" or
            "folder" (any folder of class folders).
        root: the data set's own folder, or the one that holds it. A copy with fewer images or classes than the official
            release loads with a warning that gives the numbers.

    Raises:
        ValueError: an unknown name, or lists that disagree (file and line named).
        FileNotFoundError: a list or an image is missing (the first named, and the expected tree shown).
    """
    images = _layout(name)(Path(root))
    official = OFFICIAL.get(name)
    if official and (len(images) != official.images or len(images.class_names) != official.classes):
        warnings.warn(
            f"{name}: a partial copy, {len(images.class_names):,} of {official.classes:,} classes, "
            f"{len(images):,} of {official.images:,} images",
            stacklevel=2,
        )
    return images


def _layout(name: str) -> Callable[[Path], ImageSet]:
    if name in LAYOUTS:
        return LAYOUTS[name]
    near = difflib.get_close_matches(str(name).lower(), LAYOUTS, n=1, cutoff=0.5)
    guess = f"; did you mean {near[0]!r}?" if near else "."
    raise ValueError(f"there is no data set {name!r}{guess} Known: {', '.join(LAYOUTS)}")


def check(name: str, root: Path) -> list[tuple[str, int | None, int, bool]]:
    """Hold a data set's lists against the published counts. Opens no image.

    Returns:
        Rows (what, expected, found, ok); expected is None, and ok true, where nothing is published (fieldguide,
        folder).

    Raises:
        As `load`; a copy that is merely partial raises nothing and shows in the rows.
    """
    images = _layout(name)(Path(root))
    official = OFFICIAL.get(name)
    words = images.split or []
    rows = [
        ("images", official and official.images, len(images)),
        ("classes", official and official.classes, len(images.class_names)),
    ]
    for word in official.split if official else dict.fromkeys(words):
        rows.append((f"split: {word}", official and official.split[word], words.count(word)))
    if len(images.class_names) >= 2:
        for part, half in zip(("train", "test"), images.open_split()):
            counts = getattr(official, part) if official else (None, None)
            rows += [
                (f"open split: {part}", counts[0], len(half)),
                (f"open split: {part} classes", counts[1], len(half.labels.unique())),
            ]
    if official and official.closed:
        for part, expected, found in zip(
            ("train", "test"), official.closed, _closed_counts(images)
        ):
            rows.append((f"closed split: {part}", expected, found))
    return [(what, expected, found, expected in (None, found)) for what, expected, found in rows]


def _closed_counts(images: ImageSet) -> tuple[int, int]:
    """Images of the closed split's two parts; 0 and 0 where a partial copy leaves no closed split."""
    try:
        train, test = images.closed_split()
    except ValueError:
        return 0, 0
    return len(train), len(test)


def check_images(
    name: str,
    root: Path,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[tuple[Path, str]]:
    """Decode every image in full and name those that cannot be read, as (path, reason).

    Args:
        workers: decoding threads; by default one a processor.
        progress: called with (images done, images in all).

    Raises:
        As `load`.
    """
    return [
        (fault.path, fault.reason)
        for fault in unreadable(_layout(name)(Path(root)).paths, workers, progress)
    ]
