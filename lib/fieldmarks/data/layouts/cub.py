"""CUB-200-2011 as its authors publish it; Fieldguide, the generated birds, is written the same way.

Source: Wah et al., The Caltech-UCSD Birds-200-2011 Dataset, 2011."""

import os
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from fieldmarks.checks import one_of
from fieldmarks.data.imageset import ImageSet
from fieldmarks.data.layouts.reading import (
    Copy,
    check,
    number,
    once,
    read_rows,
    read_table,
    shown,
    to_int,
)

TREE = """  CUB_200_2011/
    images.txt  image_class_labels.txt  classes.txt  train_test_split.txt
    images/001.Black_footed_Albatross/*.jpg ...
    bounding_boxes.txt                                   (optional)
    parts/parts.txt  parts/part_locs.txt                 (optional)
    attributes/image_attribute_labels.txt                (optional)
    segmentations/001.Black_footed_Albatross/*.png       (optional)
    attributes.txt, also here or in attributes/          (names; optional)"""

IMAGE_ATTRIBUTES = "attributes/image_attribute_labels.txt"
CLASS_ATTRIBUTES = "attributes/class_attribute_labels_continuous.txt"
MOST_ATTRIBUTES = 10_000  # where there is no attributes.txt: one damaged number may ask for any
GUESSED = 2  # attributes/certainties.txt: 1 not visible, 2 guessing, 3 probably, 4 definitely


def load(root: Path, name: str = "cub", absent: bool = False) -> ImageSet:
    """Read the folder ``CUB_200_2011`` or one above it.

    Attributes are those of each image: 1 present, 0 absent, NaN where certainty is 1 ("not
    visible") or nothing is said. Where only the percentages of classes are there, each image gets
    those of its class as fractions, with a warning. The set bears `name`. Raises as `catalog.load`.
    """
    copy = Copy(name, TREE, root, ["images.txt"], absent)
    images, ids, class_ids = read_lists(copy, to_int)
    fields = _attributes(copy, ids, class_ids) | _parts(copy, ids)
    return replace(images, **fields, masks=_masks(copy, images))


def certain_attributes(images: ImageSet, at_least: int = 3) -> ImageSet:
    """The same images with only those attributes that the annotator was certain of; others are NaN.

    PAN learns from pairs of which both images have certainty 3 or more (Mishra et al., Effectively
    Leveraging Attributes for Visual Similarity, 2021); `load` keeps 2 and above. `images` are all
    or some of the images of `load`, in any order.

    Raises:
        FileNotFoundError: there are attributes of classes only, which bear no certainty.
        ValueError: at_least outside 1 .. 4, images that `load` has not made, or as `load`."""
    one_of("at_least", at_least, (1, 2, 3, 4))
    home = images.root
    if home is None or not (home / "images.txt").is_file():
        why = "and only CUB's layout says how certain people were"
        raise ValueError(f"{images.name}: its folder has no images.txt, {why}")
    copy = Copy(images.name, TREE, home)
    copy.require(file := copy.at(IMAGE_ATTRIBUTES))
    ids, paths = _image_list(copy, to_int)
    row_of = {path: row for row, path in enumerate(paths)}
    if foreign := [path for path in images.paths if path not in row_of]:
        raise ValueError(f"{images.name}: {foreign[0]} is not in {home / 'images.txt'}")
    values = _image_attributes(file, list(ids), _attribute_names(copy), at_least)
    return replace(images, attributes=values[[row_of[path] for path in images.paths]])


def read_lists(copy: Copy, key: Callable) -> tuple[ImageSet, list, list[int]]:
    """The images with split and boxes, their ids (key(place, text) makes one of its text), and
    their official class numbers. NABirds has these lists too."""
    home = copy.home
    lists = ("image_class_labels.txt", "classes.txt", "train_test_split.txt")
    copy.require(*(home / file for file in lists))
    ids, paths = _image_list(copy, key)
    copy.require_images(paths, list(ids.values()), home / "images.txt")
    classes = read_rows(home / "classes.txt", 2)
    names = dict(sorted((to_int(place, class_id), name) for place, (class_id, name) in classes))

    def class_of(place: str, text: str) -> int:
        if (class_id := to_int(place, text)) not in names:
            raise ValueError(f"{place}: class {shown(text)} is not in classes.txt")
        return class_id

    def part_of(place: str, flag: str) -> str:
        if flag not in ("0", "1"):
            raise ValueError(f"{place}: expected 1 (train) or 0 (test), found {shown(flag)}")
        return "train" if flag == "1" else "test"

    def per_image(file: str, fields: int, value_of: Callable) -> list:
        """value_of(place, fields) of the line of each image, in the order of images.txt."""
        lines = read_rows(home / file, fields)
        rows = [(p, key(p, image), value_of(p, *values)) for p, (image, *values) in lines]
        places = once(row[:2] for row in rows)
        if unknown := [image for image in places if image not in ids]:
            raise ValueError(f"{places[unknown[0]]}: {shown(str(unknown[0]))} is not in images.txt")
        if absent := [image for image in ids if image not in places]:
            first = f"first {shown(str(absent[0]))} of {ids[absent[0]]}"
            raise ValueError(f"{home / file}: {len(absent):,} entries are missing, {first}")
        values = {image: value for _, image, value in rows}
        return [values[image] for image in ids]

    class_ids = per_image("image_class_labels.txt", 2, class_of)
    split, boxes = per_image("train_test_split.txt", 2, part_of), None
    if (home / "bounding_boxes.txt").exists():
        box_of = lambda place, *box: [number(place, text) for text in box]  # x y width height
        boxes = torch.tensor(per_image("bounding_boxes.txt", 5, box_of), dtype=torch.float32)
    return copy.images(paths, class_ids, names, split=split, boxes=boxes), list(ids), class_ids


def _image_list(copy: Copy, key: Callable) -> tuple[dict, list[Path]]:
    """{id: place} and the image files, from lines "id file"; a file's name may hold spaces."""
    rows = read_rows(copy.home / "images.txt", 2)
    ids = once((place, key(place, image)) for place, (image, _) in rows)
    return ids, copy.paths([(place, file) for place, (_, file) in rows], "images")


def _attributes(copy: Copy, ids: list[int], class_ids: list[int]) -> dict:
    """The fields of an ImageSet; none where there are no attributes."""
    per_image, per_class = copy.at(IMAGE_ATTRIBUTES), copy.at(CLASS_ATTRIBUTES)
    names = _attribute_names(copy)
    if per_image.exists():
        values = _image_attributes(per_image, ids, names, GUESSED)
    elif per_class.exists():
        instead = f"each image gets the attributes of its class from {per_class.name}"
        warnings.warn(f"{copy.name}: {per_image} is missing; {instead}", stacklevel=4)
        classes = copy.home / "classes.txt"
        values = _class_attributes(per_class, classes, np.array(class_ids), names)
    else:
        return {}
    names = names or [f"attribute {column + 1}" for column in range(values.shape[1])]
    return {"attributes": values, "attribute_names": names}


def _attribute_names(copy: Copy) -> list[str] | None:
    """In the order of their numbers 1 .. A. The official archive has the file beside the folder."""
    file, beside = copy.at("attributes/attributes.txt", "attributes.txt"), copy.home.parent
    if not file.exists() and not (file := beside / "attributes.txt").exists():
        return None
    rows = read_rows(file, 2)
    for expected, (place, (text, _)) in enumerate(rows, start=1):
        if to_int(place, text) != expected:
            raise ValueError(f"{place}: expected attribute {expected}, found {shown(text)}")
    return [name for _, (_, name) in rows]


def _image_attributes(file: Path, ids: list[int], names: list[str] | None, at_least: int) -> Tensor:
    """(N, A) of 0, 1 and NaN (certainty below `at_least`, or no line) from lines "image attribute
    present certainty time", some of which have extra fields."""
    table = read_table(file, 4, np.int32)
    image, attribute, present, certainty = table.T
    count = MOST_ATTRIBUTES if names is None else len(names)
    rows = pd.Index(ids).get_indexer(image)
    check(file, rows < 0, "the image is not in images.txt")
    of = "that a list without attributes.txt may have" if names is None else "of attributes.txt"
    wrong = (attribute < 1) | (attribute > count)
    check(file, wrong, f"no such attribute among the {count} {of}")
    count = int(attribute.max(initial=0)) if names is None else count
    check(file, (present < 0) | (present > 1), "present must be 1 or 0")
    values = np.full((len(ids), count), np.nan, np.float32)
    values[rows, attribute - 1] = np.where(certainty < at_least, np.nan, present)
    return torch.from_numpy(values)


def _class_attributes(
    file: Path, classes: Path, class_ids: np.ndarray, names: list[str] | None
) -> Tensor:
    """(N, A) fractions from one line a class of A percentages; outside 0 .. 100 is unknown."""
    first = [line for _, (line,) in read_rows(file, 1)[:1]]
    table = read_table(file, len(names or " ".join(first).split()) or 1)
    listed = sorted(to_int(place, class_id) for place, (class_id, _) in read_rows(classes, 2))
    if len(table) == len(listed):
        rows = np.searchsorted(listed, class_ids)
    elif (
        len(table) >= class_ids.max() and class_ids.min() > 0
    ):  # a partial copy that kept the percentages of all classes
        rows = class_ids - 1
    else:
        raise ValueError(f"{file}: {len(table)} lines for the {len(listed)} classes of {classes}")
    percentages = np.where((table < 0) | (table > 100), np.nan, table)
    return torch.from_numpy((percentages[rows] / 100).astype(np.float32))


def _masks(copy: Copy, images: ImageSet) -> list[Path] | None:
    """Of the official segmentations, which are an archive of their own; None where there are none,
    or not one for each image."""
    folder = copy.at("segmentations")
    if not folder.is_dir():
        return None
    listing = cache(lambda top: set(os.listdir(top)) if os.path.isdir(top) else set())
    masks = [folder / path.parent.name / f"{path.stem}.png" for path in images.paths]
    lacking = [mask for mask in masks if mask.name not in listing(mask.parent)]
    if lacking:
        count = f"{len(lacking):,} of {len(masks):,} segmentations are missing, first {lacking[0]}"
        warnings.warn(f"{copy.name}: {count}; none are used", stacklevel=4)
    return None if lacking else masks


def _parts(copy: Copy, ids: list[int]) -> dict:
    """The fields of an ImageSet: (N, P, 3) x y visible from lines "image part x y visible"."""
    file, names_file = copy.at("parts/part_locs.txt"), copy.at("parts/parts.txt")
    if not file.exists():
        return {}
    copy.require(names_file)
    names = [name for _, (_, name) in read_rows(names_file, 2)]
    table = read_table(file, 5)
    rows, part = pd.Index(ids).get_indexer(table[:, 0]), table[:, 1].astype(np.int64)
    wrong = (rows < 0) | (part < 1) | (part > len(names)) | (part != table[:, 1])
    check(file, wrong, "no image of images.txt, or no part of parts.txt")
    values = np.zeros((len(ids), len(names), 3), np.float32)
    values[rows, part - 1] = table[:, 2:]
    return {"parts": torch.from_numpy(values), "part_names": names}
