"""Any folder of class folders.

birds/                          cars/
  robin/1.jpg 2.jpg ...           train/001/1.jpg ...
  wren/1.jpg ...                  unseen/099/1.jpg ...
"""

import os
import re
import warnings
from pathlib import Path

from fieldmarks.data.imageset import ImageSet
from fieldmarks.data.layouts.reading import Copy

IS_IMAGE = re.compile(r".+\.(bmp|gif|jpeg|jpg|png|ppm|tif|tiff|webp)", re.IGNORECASE).fullmatch

TREE = """  ROOT/
    CLASS/ *.jpg *.png ...            one folder a class
  or
    train/CLASS/ *.jpg ...            one folder a split, each with one folder a class
    test/CLASS/ *.jpg ..."""


def load(root: Path) -> ImageSet:
    """Read a folder of class folders, or of split folders that hold class folders.

    Classes are ordered by name, numbers by value ("2" before "10"); hidden files and files that are
    no images are left out. Of split folders, those named ``train*`` are "train" and all others
    "test"; a class of the same name in two of them is one class. Where no split folder is named
    ``train*`` there is no official split.

    Raises:
        FileNotFoundError: no such folder, or no images two or three levels down.
        ValueError: class folders and split folders side by side.
    """
    copy = Copy("folder", TREE, root)
    images_of: dict[tuple[str, ...], list[str]] = {}  # by class, or by split and class
    for place, folders, files in os.walk(copy.home, followlinks=True):
        key = Path(place).relative_to(copy.home).parts
        seen = (file for file in files if file[0] != "." and IS_IMAGE(file))
        images_of[key] = sorted(seen, key=natural)
        below = (name for name in folders if name[0] != "." and len(key) < 2)
        folders[:] = sorted(below, key=natural)
    flat = {key: images for key, images in images_of.items() if len(key) == 1}
    nested = {k: images for k, images in images_of.items() if len(k) == 2 and not flat[k[:1]]}
    chosen = flat if any(flat.values()) else nested
    if any(flat.values()) and any(nested.values()):
        kinds = (
            f"class folders ({min(filter(flat.get, flat))[0]}) and split folders ({min(nested)[0]})"
        )
        raise ValueError(f"folder: {copy.home} mixes {kinds}; it should hold only one kind")
    if not any(chosen.values()):
        where = f"under {copy.home}. Expected:\n{TREE}"
        raise FileNotFoundError(f"folder: no images in class folders {where}")
    if empty := [key for key, images in chosen.items() if not images]:
        first = f"{copy.home.joinpath(*empty[0])} first"
        left_out = f"{len(empty)} of {len(chosen)} class folders hold no images and are left out"
        warnings.warn(f"folder: {left_out}, {first}", stacklevel=3)
    keys = sorted(filter(chosen.get, chosen), key=lambda key: (natural(key[-1]), natural(key[0])))
    rows = [(key, image) for key in keys for image in chosen[key]]
    train = [len(key) == 2 and key[0].lower().startswith("train") for key, _ in rows]
    return copy.images(
        [copy.home.joinpath(*key, image) for key, image in rows],
        [key[-1] for key, _ in rows],
        {key[-1]: key[-1] for key in keys},
        split=["train" if yes else "test" for yes in train] if any(train) else None,
    )


def natural(name: str) -> tuple:
    """A sorting key: runs of digits by their value ("2" before "10"), equal ones by the text."""
    pieces = re.split(r"([0-9]+)", name.lower())
    keys = [(int(piece), "") if at % 2 else (-1, piece) for at, piece in enumerate(pieces)]
    return tuple(keys), name
