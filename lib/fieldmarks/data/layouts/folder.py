"""Any folder of class folders.

birds/                          cars/
  robin/1.jpg 2.jpg ...           train/001/1.jpg ...
  wren/1.jpg ...                  unseen/099/1.jpg ...
"""

from __future__ import annotations

import os
import re
import warnings
from pathlib import Path

import torch

from fieldmarks.data.imageset import ImageSet
from fieldmarks.data.layouts.reading import existing_folder

IMAGE_SUFFIXES = frozenset(
    {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)

TREE = """  ROOT/
    CLASS/ *.jpg *.png ...            one folder a class
  or
    train/CLASS/ *.jpg ...            one folder a split, each with one folder a class
    test/CLASS/ *.jpg ..."""


def load(root: Path) -> ImageSet:
    """Read a folder of class folders, or of split folders that hold class folders.

    Classes are ordered by name, numbers by value ("2" before "10"); hidden files and files that are no images are
    left out. Of split folders, those named ``train*`` are "train" and all others "test"; a class of the same name in
    two of them is one class. Where no split folder is named ``train*`` there is no official split.

    Raises:
        FileNotFoundError: no such folder, or no images two or three levels down.
        ValueError: class folders and split folders side by side.
    """
    root = existing_folder(root, "folder", TREE)
    tree = {top: _images_and_folders(root / top) for top in _images_and_folders(root)[1]}
    holds_images = {top for top, (images, _) in tree.items() if images}
    holds_folders = {top for top, (images, folders) in tree.items() if folders and not images}
    below = [root / top / inner for top in holds_folders for inner in tree[top][1]]
    if holds_images and any(_images_and_folders(folder)[0] for folder in below):
        raise ValueError(
            f"folder: {root} mixes class folders ({min(holds_images)}) and split folders "
            f"({min(holds_folders)}); it should hold only one kind"
        )
    if holds_images:
        found = [(None, name, root / name, tree[name][0]) for name in tree]
    else:
        found = [
            (top, name, root / top / name, _images_and_folders(root / top / name)[0])
            for top in tree
            for name in tree[top][1]
        ]
    return _assemble(root, found)


def _assemble(root: Path, found: list[tuple[str | None, str, Path, list[str]]]) -> ImageSet:
    empty = [folder for _, _, folder, images in found if not images]
    found = [entry for entry in found if entry[3]]
    found.sort(key=lambda entry: (natural(entry[1]), natural(entry[0] or "")))
    if not found:
        raise FileNotFoundError(
            f"folder: no images in class folders under {root}. Expected:\n{TREE}"
        )
    if empty:
        warnings.warn(
            f"folder: {len(empty)} of {len(found) + len(empty)} class folders hold no images and are left "
            f"out, {empty[0]} first",
            stacklevel=4,
        )
    class_names = sorted({name for _, name, _, _ in found}, key=natural)
    label_of = {name: label for label, name in enumerate(class_names)}
    paths, labels, split = [], [], []
    for top, name, folder, images in found:
        paths += [folder / image for image in images]
        labels += [label_of[name]] * len(images)
        split += ["train" if (top or "").lower().startswith("train") else "test"] * len(images)
    return ImageSet(
        name="folder",
        paths=paths,
        labels=torch.tensor(labels),
        class_names=class_names,
        split=split if "train" in split else None,
        root=root,
    )


def _images_and_folders(folder: Path) -> tuple[list[str], list[str]]:
    images, folders = [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                folders.append(entry.name)
            elif os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES:
                images.append(entry.name)
    return sorted(images, key=natural), sorted(folders, key=natural)


def natural(name: str) -> tuple:
    """A sorting key: runs of digits by their value, so that "2" comes before "10"; equal values by the text itself."""
    pieces = re.split(r"([0-9]+)", name.lower())
    return tuple(
        (int(piece), "") if at % 2 else (-1, piece) for at, piece in enumerate(pieces)
    ), name
