"""Any folder of class folders."""

import os
import re
import warnings
from pathlib import Path

from fieldmarks.data.imageset import ImageSet
from fieldmarks.data.layouts.reading import Copy
from fieldmarks.picture_kinds import sort_files

TREE = """  ROOT/
    CLASS/ *.jpg *.png ...            one folder a class
  or
    train/CLASS/ *.jpg ...            one folder a split, each with one folder a class
    test/CLASS/ *.jpg ..."""


def load(root: Path, absent: bool = False) -> ImageSet:
    """Read a folder of class folders, or of split folders that hold class folders.

    Classes are ordered by name, numbers by value ("2" before "10"). What is an image is known by
    content; files that are none, or of a kind that cannot be read, are left out with a warning that
    counts them, hidden ones without. Of split folders, those named ``train*`` are "train" and all
    others "test", if there are such; a class of the same name in two of them is one class. Where
    all is in one folder more, as archives unpack, that is looked into.

    Raises FileNotFoundError for no such folder or no images two or three levels down, ValueError
    for class folders and split folders side by side."""
    copy = Copy("folder", TREE, root)
    shown = lambda name: name[0] != "." and name != "__MACOSX"
    unreadable, others = {}, []  # of all files

    def contents(*key: str) -> tuple[list[str], list[str]]:  # names of images and of folders
        folder = copy.home.joinpath(*key)
        seen = [each for each in os.scandir(folder) if shown(each.name)]
        folders = sorted((each.name for each in seen if each.is_dir()), key=natural)
        names = sorted((e.name for e in seen if e.is_file() or e.is_symlink()), key=natural)
        files = sort_files(folder / name for name in names if name not in folders)
        unreadable.update(files.unreadable)
        others.extend(files.others)
        return [path.name for path in files.pictures], folders

    flat, nested = {}, {}  # images by class, and by split and class
    for top in (tops := contents()[1]):
        flat[top,], folders = contents(top)
        nested |= {(top, name): contents(top, name)[0] for name in folders if not flat[top,]}
    chosen = flat if any(flat.values()) else nested
    if any(flat.values()) and any(nested.values()):
        (a_class,), (a_split, _) = min(filter(flat.get, flat)), min(nested)
        kinds = f"class folders ({a_class}) and split folders ({a_split})"
        raise ValueError(f"folder: {copy.home} mixes {kinds}; it should hold only one kind")
    if not any(chosen.values()) and len(tops) == 1 and contents(*tops)[1]:
        return load(copy.home / tops[0])
    if not any(chosen.values()):
        where = f"under {copy.home}. Expected:\n{TREE}"
        raise FileNotFoundError(f"folder: no images in class folders {where}")
    if empty := [key for key, images in chosen.items() if not images]:
        first = f"{copy.home.joinpath(*empty[0])} first"
        left_out = f"{len(empty)} of {len(chosen)} class folders hold no images and are left out"
        warnings.warn(f"folder: {left_out}, {first}", stacklevel=3)
    _tell(unreadable, others)
    keys = sorted(filter(chosen.get, chosen), key=lambda key: (natural(key[-1]), natural(key[0])))
    rows = [(key, image) for key in keys for image in chosen[key]]
    train = [len(key) == 2 and key[0].lower().startswith("train") for key, _ in rows]
    paths = [copy.home.joinpath(*key, image) for key, image in rows]
    class_ids, names = [key[-1] for key, _ in rows], {key[-1]: key[-1] for key in keys}
    split = ["train" if yes else "test" for yes in train] if any(train) else None
    return copy.images(paths, class_ids, names, split=split)


def _tell(unreadable: dict[Path, str], others: list[Path]) -> None:
    """Warn of files that are no part of the set."""
    if unreadable:
        path, reason = next(iter(unreadable.items()))
        count = f"{len(unreadable):,} picture{'s' * (len(unreadable) > 1)} of kinds that cannot"
        warnings.warn(f"folder: {count} be read left out, first {path}: {reason}", stacklevel=4)
    if others:
        count = f"{len(others):,} file{'s' * (len(others) > 1)}"
        warnings.warn(f"folder: {count} passed over, no pictures, first {others[0]}", stacklevel=4)


def natural(name: str) -> tuple:
    """A sorting key: runs of digits by their value ("2" before "10"), equal ones by the text."""
    pieces = re.split(r"([0-9]+)", name.lower())
    keys = [(int(piece), "") if at % 2 else (-1, piece) for at, piece in enumerate(pieces)]
    return tuple(keys), name
