"""Data sets by name, and the published counts."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from fieldmarks.checks import nearest_name
from fieldmarks.data.imageset import ImageSet
from fieldmarks.data.layouts import aircraft, cars, cub, folder, food101, inshop, nabirds, vegfru
from fieldmarks.files import cache_home

Progress = Callable[[int, int], None] | None  # called with (images done, images in all)

LAYOUTS: dict[str, Callable[..., ImageSet]] = {  # of (root, absent=False)
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
    "fieldguide": {"classes": 100, "images": 20, "size": 224, "seed": 0, "difficulty": "standard"},
    "wardrobe": {"items": 600, "outfits": 1000, "size": 224, "seed": 0},
}


@dataclass(frozen=True)
class Official:
    """What a published release holds."""

    classes: int
    split: dict[str, int]  # images of each part of the official split
    train: tuple[int | None, int]  # images (None: not published) and classes in the open split
    # Training images of the closed split, whose other part is "test"; None where there is none.
    closed: int | None = None

    @property
    def images(self) -> int:
        return sum(self.split.values())

    @property
    def test(self) -> tuple[int | None, int]:  # as `train`
        images, classes = self.train
        return images and self.images - images, self.classes - classes


# Counted in the official lists; several papers misprint them.
OFFICIAL = {
    "cub": Official(200, dict(train=5_994, test=5_794), (5_864, 100), 5_994),
    "cars": Official(196, dict(train=8_144, test=8_041), (8_054, 98), 8_144),
    "aircraft": Official(100, dict(train=3_334, val=3_333, test=3_333), (5_000, 50), 6_667),
    "inshop": Official(7_982, dict(train=25_882, query=14_218, gallery=12_612), (25_882, 3_997)),
    "nabirds": Official(555, dict(train=23_929, test=24_633), (22_800, 277), 23_929),
    "vegfru": Official(292, dict(train=29_200, val=14_600, test=116_931), (None, 146), 29_200),
    "food101": Official(101, dict(train=75_750, test=25_250), (50_000, 50), 75_750),
}


def load(
    name: str,
    root: Path | str = "",
    generated: Mapping | None = None,
    progress: Progress = None,
    absent: bool = False,
) -> ImageSet:
    """Load a data set from its official layout.

    Args:
        name: "cub", "wardrobe" (its in-shop part), "folder" (of class folders) or another layout.
        root: the data set's own folder, or one up to three levels above it. A copy with fewer
            images or classes than the official release loads with a warning. Empty: see `generate`.
        generated, progress: as `generate`.
        absent: keep the paths of listed images that are missing, as long as some are there.
    Raises:
        ValueError: an unknown name, no root, lists that disagree (the file and line are named), or
            two copies below the root, equally near.
        FileNotFoundError: a list or an image is missing: the first, with the expected tree."""
    read, official = layout(name), OFFICIAL.get(name)
    images = read(Path(root) if root else generate(name, generated, progress), absent=absent)
    count, classes = len(images), len(images.class_names)
    if official and (count, classes) != (official.images, official.classes):
        share = f"{classes:,} of {official.classes:,} classes, {count:,} of {official.images:,}"
        warnings.warn(f"{name}: a partial copy, {share} images", stacklevel=2)
    return images


def generate(name: str, generated: Mapping | None = None, progress: Progress = None) -> Path:
    """Draw "fieldguide" or "wardrobe" into the cache, unless it is there, and return its folder.
    Raises ValueError as `generated_parameters` or for options out of range, FileExistsError where
    the folder in the cache holds something else."""
    parameters = generated_parameters(name, generated)
    if name == "fieldguide":
        from fieldguide.birds.guide import VERSION
        from fieldguide.birds.guide import make_fieldguide as make
    else:
        from fieldguide.garments.wardrobe import VERSION
        from fieldguide.garments.wardrobe import make_wardrobe as make
    first, second, size, *others = parameters.values()  # fieldguide-100x20-224px-0-standard-v2
    words = (name, f"{first}x{second}", f"{size}px", *others, f"v{VERSION}")
    folder = "-".join(map(str, words))
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


def layout(name: str) -> Callable[..., ImageSet]:
    """What reads a folder as the data set `name`: load(root, absent=False). Raises ValueError for
    an unknown name."""
    if name not in LAYOUTS:
        raise ValueError(f"there is no data set '{name}'{nearest_name(str(name).lower(), LAYOUTS)}")
    return LAYOUTS[name]
