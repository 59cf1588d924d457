"""CUB-200-2011 as its authors publish it; Fieldguide, the generated birds, is written the same way.

Source: Wah et al., The Caltech-UCSD Birds-200-2011 Dataset, 2011.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fieldmarks.data.imageset import ImageSet
from fieldmarks.data.layouts.reading import (
    compact,
    find_home,
    line_of,
    missing,
    read_numbers,
    read_words,
    require_files,
    rows_of,
    whole,
)

TREE = """  CUB_200_2011/
    images.txt  image_class_labels.txt  classes.txt  train_test_split.txt
    images/001.Black_footed_Albatross/*.jpg ...
    bounding_boxes.txt                                   (optional)
    parts/parts.txt  parts/part_locs.txt                 (optional)
    attributes/image_attribute_labels.txt                (optional)
    attributes.txt, also here or in attributes/          (names; optional)"""

GUESSED = 2  # attributes/certainties.txt: 1 not visible, 2 guessing, 3 probably, 4 definitely


def load(root: Path, name: str = "cub") -> ImageSet:
    """Read the folder ``CUB_200_2011`` or its parent.

    Attributes are those of each image: 1 present, 0 absent, NaN where certainty is 1 ("not visible") or nothing is
    said; `certain_attributes` leaves guesses out too. Where only the class-level percentages are there, each image gets
    those of its class as fractions, with a warning.

    Args:
        root: the data set's folder or the one that holds it.
        name: the name that the set and its messages bear.

    Raises:
        FileNotFoundError: a list or an image is missing; the first is named, and the expected tree shown.
        ValueError: a list that disagrees with another, or a field that is no number; the file and line are named.
    """
    home = find_home(root, name, TREE, "images.txt", ["CUB_200_2011"])
    lists = [
        home / file for file in ("image_class_labels.txt", "classes.txt", "train_test_split.txt")
    ]
    require_files(name, TREE, lists)
    ids, files = _image_list(home / "images.txt")
    paths = [home / "images" / file for file in files]
    require_files(name, TREE, paths)
    known = _class_list(home)
    class_ids = _class_ids(home, ids, known)
    labels, class_names = compact(class_ids.tolist(), known)
    attributes, attribute_names = _attributes(home, name, ids, class_ids)
    boxes = (
        _per_image(home / "bounding_boxes.txt", ids, home, 5)
        if (home / "bounding_boxes.txt").is_file()
        else None
    )
    parts, part_names = _parts(home, name, ids)
    return ImageSet(
        name=name,
        paths=paths,
        labels=labels,
        class_names=class_names,
        attributes=attributes,
        attribute_names=attribute_names,
        boxes=None if boxes is None else torch.from_numpy(boxes).float(),
        parts=parts,
        part_names=part_names,
        split=_split(home, ids),
        root=home,
    )


def certain_attributes(images: ImageSet, at_least: int = 3) -> ImageSet:
    """The same images with only those attributes that the annotator was certain of; the others are NaN.

    PAN learns from pairs of which both images have certainty 3 or more (Mishra et al., Effectively Leveraging Attributes
    for Visual Similarity, 2021).

    Args:
        images: all or some of the images of `load`, in any order.
        at_least: 1 not visible, 2 guessing, 3 probably, 4 definitely. `load` itself keeps 2 and above.

    Raises:
        FileNotFoundError: there are no attributes of single images; those of classes bear no certainty.
        ValueError: at_least outside 1 .. 4, images that `load` has not made, or as `load`.
    """
    if at_least not in (1, 2, 3, 4):
        raise ValueError(
            f"certainty runs from 1 (not visible) to 4 (definitely), so at_least cannot be {at_least}"
        )
    home = images.root
    if home is None or not (home / "images.txt").is_file():
        raise ValueError(
            f"{images.name}: its folder has no images.txt, and only CUB's layout says how certain people were"
        )
    file = home / "attributes" / "image_attribute_labels.txt"
    if not file.is_file():
        raise missing(images.name, TREE, [file])
    ids, files = _image_list(home / "images.txt")
    values = _image_attributes(file, ids, home, _attribute_names(home), at_least)
    row_of = {home / "images" / name: row for row, name in enumerate(files)}
    stranger = next((path for path in images.paths if path not in row_of), None)
    if stranger is not None:
        raise ValueError(f"{images.name}: {stranger} is not in {home / 'images.txt'}")
    return replace(
        images, attributes=torch.from_numpy(values[[row_of[path] for path in images.paths]])
    )


def _image_list(file: Path) -> tuple[np.ndarray, list[str]]:
    rows = read_words(file, 2)
    ids = [whole(file, number, words[0]) for number, words in rows]
    if not ids:
        raise ValueError(f"{file}: the list is empty")
    rows_of(file, sorted(set(ids)), ids, file)  # an id listed twice
    return np.array(ids), [words[1] for _, words in rows]


def _per_image(
    file: Path, ids: np.ndarray, home: Path, columns: int, dtype=np.float64
) -> np.ndarray:
    """A list with one line an image, put in the order of images.txt: (N, columns - 1)."""
    table = read_numbers(file, columns, dtype)
    return table[rows_of(file, ids, table[:, 0].astype(np.int64), home / "images.txt")][:, 1:]


def _class_list(home: Path) -> dict[int, str]:
    file = home / "classes.txt"
    return dict(
        sorted((whole(file, number, words[0]), words[1]) for number, words in read_words(file, 2))
    )


def _class_ids(home: Path, ids: np.ndarray, known: dict[int, str]) -> np.ndarray:
    """(N,) the official class numbers, counted from 1."""
    file = home / "image_class_labels.txt"
    class_ids = _per_image(file, ids, home, 2, np.int64)[:, 0]
    strangers = np.flatnonzero(~np.isin(class_ids, list(known)))
    if len(strangers):
        table = read_numbers(file, 2, np.int64)
        row = int(np.flatnonzero(table[:, 0] == ids[strangers[0]])[0])
        raise ValueError(
            f"{file} line {line_of(file, row)}: class {class_ids[strangers[0]]} is not in classes.txt"
        )
    return class_ids


def _split(home: Path, ids: np.ndarray) -> list[str]:
    file = home / "train_test_split.txt"
    flags = _per_image(file, ids, home, 2, np.int64)[:, 0]
    if not np.isin(flags, (0, 1)).all():
        table = read_numbers(file, 2, np.int64)
        row = int(np.flatnonzero(~np.isin(table[:, 1], (0, 1)))[0])
        raise ValueError(
            f"{file} line {line_of(file, row)}: expected 1 (train) or 0 (test), found {table[row, 1]}"
        )
    return ["train" if flag else "test" for flag in flags]


# ---- attributes and parts


def _attributes(
    home: Path, name: str, ids: np.ndarray, class_ids: np.ndarray
) -> tuple[Tensor | None, list[str] | None]:
    per_image = home / "attributes" / "image_attribute_labels.txt"
    per_class = home / "attributes" / "class_attribute_labels_continuous.txt"
    names = _attribute_names(home)
    if per_image.is_file():
        values = _image_attributes(per_image, ids, home, names, GUESSED)
    elif per_class.is_file():
        warnings.warn(
            f"{name}: {per_image} is missing; each image gets the attributes of its class from "
            f"{per_class.name}",
            stacklevel=4,
        )
        values = _class_attributes(per_class, class_ids, home, names)
    else:
        return None, None
    return torch.from_numpy(values), names or [
        f"attribute {column + 1}" for column in range(values.shape[1])
    ]


def _attribute_names(home: Path) -> list[str] | None:
    """Names in the order of their numbers 1 .. A. The official archive unpacks attributes.txt beside the folder."""
    for file in (
        home / "attributes" / "attributes.txt",
        home / "attributes.txt",
        home.parent / "attributes.txt",
    ):
        if file.is_file():
            rows = read_words(file, 2)
            for expected, (number, words) in enumerate(rows, start=1):
                if whole(file, number, words[0]) != expected:
                    raise ValueError(
                        f"{file} line {number}: expected attribute {expected}, found {words[0]}"
                    )
            return [words[1] for _, words in rows]
    return None


def _image_attributes(
    file: Path, ids: np.ndarray, home: Path, names: list[str] | None, at_least: int
) -> np.ndarray:
    """(N, A) of 0, 1 and NaN (certainty below `at_least`, or no line) from lines "image attribute present certainty time",
    some of which have extra fields."""
    table = read_numbers(file, 4, np.int32)
    count = len(names) if names else int(table[:, 1].max(initial=0))
    # A table from id to row: the official list has 3.7 million lines, too many for a search each.
    row_of = np.full(int(max(ids.max(), table[:, 0].max(initial=0))) + 1, -1)
    row_of[ids] = np.arange(len(ids))
    faults = (
        (
            (table[:, 0] < 0) | (row_of[table[:, 0]] < 0),
            f"the image is not in {home / 'images.txt'}",
        ),
        (
            (table[:, 1] < 1) | (table[:, 1] > count),
            f"there is no such attribute among the {count}",
        ),
        ((table[:, 2] < 0) | (table[:, 2] > 1), "present must be 1 or 0"),
    )
    for fault, reason in faults:
        if fault.any():
            row = int(np.flatnonzero(fault)[0])
            raise ValueError(
                f"{file} line {line_of(file, row)}: {reason}: {' '.join(map(str, table[row]))!r}"
            )
    values = np.full((len(ids), count), np.nan, np.float32)
    values[row_of[table[:, 0]], table[:, 1] - 1] = np.where(
        table[:, 3] < at_least, np.nan, table[:, 2]
    )
    return values


def _class_attributes(
    file: Path, class_ids: np.ndarray, home: Path, names: list[str] | None
) -> np.ndarray:
    """(N, A) fractions from one line a class of A percentages; a value outside 0 .. 100 is unknown."""
    with open(file, encoding="utf-8") as lines:
        columns = len(names) if names else len(lines.readline().split())
    table = read_numbers(file, columns)
    listed = sorted(_class_list(home))
    if len(table) == len(listed):
        lines_of = np.searchsorted(listed, class_ids)
    elif len(table) >= class_ids.max():  # a partial copy that kept the percentages of all classes
        lines_of = class_ids - 1
    else:
        raise ValueError(
            f"{file}: {len(table)} lines for the {len(listed)} classes of {home / 'classes.txt'}"
        )
    percentages = np.where((table < 0) | (table > 100), np.nan, table)
    return (percentages[lines_of] / 100).astype(np.float32)


def _parts(home: Path, name: str, ids: np.ndarray) -> tuple[Tensor | None, list[str] | None]:
    """(N, P, 3) x y visible from lines "image part x y visible"."""
    file, names_file = home / "parts" / "part_locs.txt", home / "parts" / "parts.txt"
    if not file.is_file():
        return None, None
    if not names_file.is_file():
        raise missing(name, TREE, [names_file])
    names = [words[1] for _, words in read_words(names_file, 2)]
    table = read_numbers(file, 5)
    count = len(names)
    keys = table[:, 0].astype(np.int64) * count + table[:, 1].astype(np.int64) - 1
    wanted = (ids[:, None] * count + np.arange(count)).ravel()
    wrong = (table[:, 1] < 1) | (table[:, 1] > count) | ~np.isin(table[:, 0], ids)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise ValueError(
            f"{file} line {line_of(file, row)}: image {table[row, 0]:.0f} part {table[row, 1]:.0f} is not "
            f"in {home / 'images.txt'} and {names_file.name}"
        )
    values = np.zeros((len(wanted), 3), np.float32)
    order = np.argsort(wanted)
    values[order[np.searchsorted(wanted[order], keys)]] = table[:, 2:]
    return torch.from_numpy(values.reshape(len(ids), count, 3)), names
