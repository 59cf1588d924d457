"""NABirds, 555 categories of North American birds.

Source: Van Horn et al., Building a Bird Recognition App and Large Scale Dataset with Citizen Scientists, 2015.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from fieldmarks.data.imageset import ImageSet
from fieldmarks.data.layouts.reading import (
    compact,
    find_home,
    read_values,
    read_words,
    require_files,
    rows_of,
    whole,
)

TREE = """  nabirds/
    images.txt  image_class_labels.txt  classes.txt  train_test_split.txt
    images/0817/0000139e21dc4d0cbfe14cae3c85c829.jpg ...
    bounding_boxes.txt                                   (optional)"""


def load(root: Path) -> ImageSet:
    """Read the folder ``nabirds`` or its parent.

    classes.txt numbers a whole tree of birds, orders and families too; the labels 0 .. C-1 are the classes that have
    images, in the order of their numbers (295 is 0 in a whole copy).

    Raises:
        FileNotFoundError: a list or an image is missing; the first is named, and the expected tree shown.
        ValueError: a list that disagrees with another, or a field that is no number; the file and line are named.
    """
    home = find_home(root, "nabirds", TREE, "images.txt", ["nabirds"])
    names = ("image_class_labels.txt", "classes.txt", "train_test_split.txt")
    require_files("nabirds", TREE, [home / name for name in names])
    images = home / "images.txt"
    ids, files = [
        list(column) for column in zip(*(words for _, words in read_words(images, 2)))
    ] or ([], [])
    rows_of(images, sorted(set(ids)), ids, images)  # an image listed twice
    paths = [home / "images" / file for file in files]
    require_files("nabirds", TREE, paths)
    labels, class_names = compact(*_classes(home, ids))
    return ImageSet(
        name="nabirds",
        paths=paths,
        labels=labels,
        class_names=class_names,
        split=_split(home, ids),
        boxes=_boxes(home, ids),
        root=home,
    )


def _classes(home: Path, ids: list[str]) -> tuple[list[int], dict[int, str]]:
    """The class number of each image, and all names by number, in order."""
    file = home / "classes.txt"
    names = dict(
        sorted((whole(file, number, words[0]), words[1]) for number, words in read_words(file, 2))
    )
    file, numbers = home / "image_class_labels.txt", []
    for line, word in read_values(file, ids, home / "images.txt"):
        numbers.append(whole(file, line, word))
        if numbers[-1] not in names:
            raise ValueError(f"{file} line {line}: class {word} is not in classes.txt")
    return numbers, names


def _split(home: Path, ids: list[str]) -> list[str]:
    file, split = home / "train_test_split.txt", []
    for line, word in read_values(file, ids, home / "images.txt"):
        if word not in ("0", "1"):
            raise ValueError(f"{file} line {line}: expected 1 (train) or 0 (test), found {word}")
        split.append("train" if word == "1" else "test")
    return split


def _boxes(home: Path, ids: list[str]) -> Tensor | None:
    """(N, 4) from lines "image x y width height"."""
    file, boxes = home / "bounding_boxes.txt", []
    if not file.is_file():
        return None
    for line, rest in read_values(file, ids, home / "images.txt"):
        words = rest.split()
        if len(words) != 4:
            raise ValueError(f"{file} line {line}: expected 5 fields, found {1 + len(words)}")
        boxes.append([whole(file, line, word) for word in words])
    return torch.tensor(boxes, dtype=torch.float32)
