"""FGVC-Aircraft, release 2013b, by variant.

Source: Maji et al., Fine-Grained Visual Classification of Aircraft, 2013.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fieldmarks.data.imageset import ImageSet
from fieldmarks.data.layouts.reading import (
    compact,
    find_home,
    read_numbers,
    read_words,
    require_files,
)

TREE = """  fgvc-aircraft-2013b/
    data/
      variants.txt  images_variant_train.txt  images_variant_val.txt  images_variant_test.txt
      images/0034309.jpg ...
      images_box.txt                                     (optional)"""

SPLITS = ("train", "val", "test")


def load(root: Path) -> ImageSet:
    """Read the folder ``fgvc-aircraft-2013b``, its ``data`` folder or its parent.

    All three parts of the split are pooled. The classes stand in the order of variants.txt: the paper that splits them
    in halves does not say which order it used, and the official list is the one that everybody has.

    Raises:
        FileNotFoundError: a list or an image is missing; the first is named, and the expected tree shown.
        ValueError: a variant that variants.txt does not list, or an image in two parts; the file and line are named.
    """
    home = find_home(root, "aircraft", TREE, "variants.txt", ["fgvc-aircraft-2013b/data", "data"])
    lists = {word: home / f"images_variant_{word}.txt" for word in SPLITS}
    require_files("aircraft", TREE, list(lists.values()))
    # A variant's name may hold spaces ("DHC-8-100", "Beechcraft 1900"), so that a whole line is one name.
    names = {words[0]: words[0] for _, words in read_words(home / "variants.txt", 1)}
    ids, variants, split = [], [], []
    seen: dict[str, Path] = {}
    for word, file in lists.items():
        for number, (image, variant) in read_words(file, 2):
            if variant not in names:
                raise ValueError(
                    f"{file} line {number}: variant {variant!r} is not in {home / 'variants.txt'}"
                )
            if image in seen:
                raise ValueError(
                    f"{file} line {number}: image {image} is listed already in {seen[image]}"
                )
            seen[image] = file
            ids.append(image)
            variants.append(variant)
            split.append(word)
    paths = [home / "images" / f"{image}.jpg" for image in ids]
    require_files("aircraft", TREE, paths)
    labels, class_names = compact(variants, names)
    return ImageSet(
        name="aircraft",
        paths=paths,
        labels=labels,
        class_names=class_names,
        split=split,
        boxes=_boxes(home / "images_box.txt", ids),
        root=home,
    )


def _boxes(file: Path, ids: list[str]) -> Tensor | None:
    """(N, 4) x y width height from "image xmin ymin xmax ymax" with inclusive corners counted from 1."""
    if not file.is_file():
        return None
    corners = read_numbers(file, 5)[:, 1:]
    listed = [
        words[0] for _, words in read_words(file, 5)
    ]  # again as text: image names keep their leading zeros
    absent = set(ids).difference(listed)
    if absent:
        raise ValueError(f"{file}: {len(absent):,} images have no box, first {min(absent)}")
    row_of = {image: row for row, image in enumerate(listed)}
    x1, y1, x2, y2 = corners[[row_of[image] for image in ids]].T
    return torch.from_numpy(np.stack([x1 - 1, y1 - 1, x2 - x1 + 1, y2 - y1 + 1], axis=1)).float()
