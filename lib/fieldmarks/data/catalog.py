"""Data sets by name: load one, and compare it with the published counts."""

import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from fieldmarks.checks import nearest_name
from fieldmarks.data.imageset import ImageSet
from fieldmarks.data.layouts import aircraft, cars, cub, folder, food101, inshop, nabirds, vegfru
from fieldmarks.decoding import unreadable
from fieldmarks.files import cache_home

Progress = Callable[[int, int], None] | None  # called with (images done, images in all)

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
# The options of the generated sets, with their defaults.
GENERATED: dict[str, dict] = {
    "fieldguide": {"classes": 100, "images": 20, "size": 128, "seed": 0, "difficulty": "standard"},
    "wardrobe": {"items": 600, "outfits": 1000, "size": 128, "seed": 0},
}


@dataclass(frozen=True)
class Official:
    """What a published release holds."""

    classes: int
    split: dict[str, int]  # images of each part of the official split
    train: tuple[int | None, int]  # images (None: not published) and classes in the open split
    closed: tuple[int, int] | None  # images of the closed split's parts, where there is one

    @property
    def images(self) -> int:
        return sum(self.split.values())

    @property
    def test(self) -> tuple[int | None, int]:
        """As `train`."""
        images, classes = self.train
        return images and self.images - images, self.classes - classes


# Counted in the official lists; several papers misprint them.
OFFICIAL = {
    "cub": Official(200, {"train": 5_994, "test": 5_794}, (5_864, 100), (5_994, 5_794)),
    "cars": Official(196, {"train": 8_144, "test": 8_041}, (8_054, 98), (8_144, 8_041)),
    "aircraft": Official(
        100, {"train": 3_334, "val": 3_333, "test": 3_333}, (5_000, 50), (6_667, 3_333)
    ),
    "inshop": Official(
        7_982, {"train": 25_882, "query": 14_218, "gallery": 12_612}, (25_882, 3_997), None
    ),
    "nabirds": Official(555, {"train": 23_929, "test": 24_633}, (22_800, 277), (23_929, 24_633)),
    "vegfru": Official(
        292, {"train": 29_200, "val": 14_600, "test": 116_931}, (None, 146), (29_200, 116_931)
    ),
    "food101": Official(101, {"train": 75_750, "test": 25_250}, (50_000, 50), (75_750, 25_250)),
}


def load(
    name: str, root: Path | str = "", generated: Mapping | None = None, progress: Progress = None
) -> ImageSet:
    """Load a data set from its official layout.

    Args:
        name: "cub", "wardrobe" (its in-shop part), "folder" (of class folders) or another layout.
        root: the data set's own folder, or the one that holds it. A copy with fewer images or
            classes than the official release loads with a warning. Empty: see `generate`.
        generated, progress: as `generate`.
    Raises:
        ValueError: an unknown name, no root, or lists that disagree; the file and line are named.
        FileNotFoundError: a list or an image is missing: the first, with the expected tree.
    """
    layout, official = _layout(name), OFFICIAL.get(name)
    images = layout(Path(root) if root else generate(name, generated, progress))
    count, classes = len(images), len(images.class_names)
    if official and (count, classes) != (official.images, official.classes):
        share = f"{classes:,} of {official.classes:,} classes, {count:,} of {official.images:,}"
        warnings.warn(f"{name}: a partial copy, {share} images", stacklevel=2)
    return images


def generate(name: str, generated: Mapping | None = None, progress: Progress = None) -> Path:
    """Draw "fieldguide" or "wardrobe" into the cache, unless it is there, and return its folder.

    Raises:
        ValueError: as `generated_parameters`, or options out of range.
        FileExistsError: the folder in the cache holds something else.
    """
    parameters = generated_parameters(name, generated)
    if name == "fieldguide":
        from fieldguide.birds.guide import make_fieldguide as make
    else:
        from fieldguide.garments.wardrobe import make_wardrobe as make
    first, second, size, *others = parameters.values()  # fieldguide-100x20-128px-0-standard
    folder = "-".join(map(str, (name, f"{first}x{second}", f"{size}px", *others)))
    return make(cache_home() / folder, **parameters, progress=progress)


def generated_parameters(name: str, generated: Mapping | None = None) -> dict:
    """All options of a generated data set: those given, and defaults for the others. Raises
    ValueError for a set that is not generated, an unknown option or a value of another type."""
    if name not in GENERATED:
        only = f"only the generated {' and '.join(GENERATED)} need none"
        raise ValueError(f"root is empty: give the folder of {name} ({only})")
    defaults, given = GENERATED[name], generated or {}
    if not isinstance(given, Mapping):
        raise ValueError(f"generated is {given!r}: it must be options with values, as {defaults}")
    for option, value in given.items():
        if option not in defaults:
            known = nearest_name(str(option), defaults)
            raise ValueError(f"generated: {name} has no option '{option}'{known}")
        if type(value) is not type(defaults[option]):
            wanted = "text" if option == "difficulty" else "a whole number"
            raise ValueError(f"{option} is {value!r}: it must be {wanted}")
    return {**defaults, **given}


def _layout(name: str) -> Callable[[Path], ImageSet]:
    if name not in LAYOUTS:
        raise ValueError(f"there is no data set '{name}'{nearest_name(str(name).lower(), LAYOUTS)}")
    return LAYOUTS[name]


def check(name: str, root: Path) -> list[tuple[str, int | None, int, bool]]:
    """Compare a data set's lists with the published counts: rows (what, expected, found, ok), where
    expected is None, and ok true, if nothing is published. Opens no image; raises as `load`."""
    images, official = _layout(name)(Path(root)), OFFICIAL.get(name)
    split, parts = images.split or [], ("train", "test")
    rows: list[tuple] = [("images", official and official.images, len(images))]
    rows.append(("classes", official and official.classes, len(images.class_names)))
    for part in official.split if official else dict.fromkeys(split):
        rows.append((f"split: {part}", official and official.split[part], split.count(part)))
    if len(images.class_names) >= 2:
        for part, half in zip(parts, images.open_split(), strict=True):
            count, classes = getattr(official, part, (None, None))
            rows.append((f"open split: {part}", count, len(half)))
            rows.append((f"open split: {part} classes", classes, len(half.labels.unique())))
    if official and official.closed:
        halves = (), ()  # a partial copy may leave no closed split
        with suppress(ValueError):
            halves = images.closed_split()
        for part, count, half in zip(parts, official.closed, halves, strict=True):
            rows.append((f"closed split: {part}", count, len(half)))
    return [(what, expected, count, expected in (None, count)) for what, expected, count in rows]


def check_images(name: str, root: Path, workers=None, progress=None) -> list[tuple[Path, str]]:
    """Decode every image in full, and name those that cannot be read as (path, reason). Raises as
    `load`; `workers` and `progress` as `decoding.in_order`."""
    faults = unreadable(_layout(name)(Path(root)).paths, workers, progress)
    return [(fault.path, fault.reason) for fault in faults]
