"""Any folder of class folders."""

import os
import re
import warnings
from pathlib import Path

from fieldmarks.data.imageset import ImageSet
from fieldmarks.data.layouts.reading import Copy

IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")

TREE = """  ROOT/
    CLASS/ *.jpg *.png ...            one folder a class
  or
    train/CLASS/ *.jpg ...            one folder a split, each with one folder a class
    test/CLASS/ *.jpg ..."""


def load(root: Path) -> ImageSet:
    """Read a folder of class folders, or of split folders that hold class folders.

    Classes are ordered by name, numbers by value ("2" before "10"); hidden files and files that are
    no images are left out. Of split folders, those named ``train*`` are "train" and all others
    "test", if there are such; a class of the same name in two of them is one class.

    Raises FileNotFoundError for no such folder or no images two or three levels down, ValueError
    for class folders and split folders side by side."""
    copy = Copy("folder", TREE, root)

    def contents(*key: str) -> tuple[list[str], list[str]]:  # names of images and of folders
        seen = [entry for entry in os.scandir(copy.home.joinpath(*key)) if entry.name[0] != "."]
        folders = sorted((entry.name for entry in seen if entry.is_dir()), key=natural)
        files = sorted((entry.name for entry in seen if not entry.is_dir()), key=natural)
        return [file for file in files if file.lower().endswith(IMAGE_SUFFIXES)], folders

    flat, nested = {}, {}  # images by class, and by split and class
    for top in contents()[1]:
        flat[top,], folders = contents(top)
        nested |= {(top, name): contents(top, name)[0] for name in folders if not flat[top,]}
    chosen = flat if any(flat.values()) else nested
    if any(flat.values()) and any(nested.values()):
        (a_class,), (a_split, _) = min(filter(flat.get, flat)), min(nested)
        kinds = f"class folders ({a_class}) and split folders ({a_split})"
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
    paths = [copy.home.joinpath(*key, image) for key, image in rows]
    class_ids, names = [key[-1] for key, _ in rows], {key[-1]: key[-1] for key in keys}
    split = ["train" if yes else "test" for yes in train] if any(train) else None
    return copy.images(paths, class_ids, names, split=split)


def natural(name: str) -> tuple:
    """A sorting key: runs of digits by their value ("2" before "10"), equal ones by the text."""
    pieces = re.split(r"([0-9]+)", name.lower())
    keys = [(int(piece), "") if at % 2 else (-1, piece) for at, piece in enumerate(pieces)]
    return tuple(keys), name
