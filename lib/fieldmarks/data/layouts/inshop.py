"""DeepFashion: In-shop Clothes Retrieval; Wardrobe, the generated garments, is written like it.

Source: Liu et al., DeepFashion: Powering Robust Clothes Recognition and Retrieval with Rich
Annotations, 2016."""

import os
import re
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fieldmarks.data.imageset import ImageSet
from fieldmarks.data.layouts.reading import Copy, number, read_rows, shown

TREE = """  In-shop Clothes Retrieval Benchmark/
    Eval/list_eval_partition.txt                         (or here, or in Anno/)
    Img/img/WOMEN/Dresses/id_00000002/*.jpg ...          (or img/WOMEN/... or Img/WOMEN/...)
    Anno/list_bbox_inshop.txt                            (optional)
    Anno/list_attr_cloth.txt  Anno/list_attr_items.txt   (here or in Anno/attributes/; optional)"""

PARTITION = [f"{folder}list_eval_partition.txt" for folder in ("Eval/", "", "Anno/")]
ATTRIBUTES = [f"{folder}list_attr_items.txt" for folder in ("Anno/", "Anno/attributes/", "")]
SPLITS = ("train", "query", "gallery")


def load(root: Path, name: str = "inshop", absent: bool = False) -> ImageSet:
    """Read the benchmark's folder or one above it. Labels are items.

    `open_split` is the official one (train items against the rest), and `query_gallery` of its
    second part gives the retrieval task. Attributes (463 in the official list) belong to items:
    each image gets its item's (0 absent, 1 present, NaN unknown, as all of an item without a line).
    Older releases hold none. The set and its messages bear `name`. Raises as `catalog.load`."""
    copy = Copy(name, TREE, root, PARTITION, absent)
    file = copy.at(*PARTITION)
    places, files, items, split = _partition(file)
    paths = _image_paths(copy, places, files)
    copy.require_images(paths, places, file)
    boxes = _boxes(copy.at("Anno/list_bbox_inshop.txt", "list_bbox_inshop.txt"), files)
    names, attributes = {item: item for item in sorted(items)}, _attributes(copy, file, items)
    return copy.images(paths, items, names, split=split, boxes=boxes, **attributes)


def require_attributes(images: ImageSet) -> None:
    """Raise FileNotFoundError, naming the missing file, where there are no attributes."""
    if images.attributes is None:
        file = Copy(images.name, TREE, images.root).at(*ATTRIBUTES)
        lacks = f"there are no attributes, for {file} is missing"
        newer = "older releases lack it, newer ones have it in Anno or Anno/attributes"
        raise FileNotFoundError(f"{images.name}: {lacks}; {newer}. Expected:\n{TREE}")


def _partition(file: Path) -> tuple[list[str], list[str], list[str], list[str]]:
    """Places in the list, files, items and parts of the split."""
    rows = _counted(file, 3)
    first: dict[str, tuple[bool, str]] = {}
    for place, (_, item, part) in rows:
        if part not in SPLITS:
            raise ValueError(f"{place}: expected train, query or gallery, found '{shown(part)}'")
        trains, earlier = first.setdefault(item, (part == "train", place))
        if trains != (part == "train"):
            other = f"{earlier} says otherwise; train and test items must differ"
            raise ValueError(f"{place}: item {shown(item)} is in {part}, but {other}")
    files, items, parts = ([values[column] for _, values in rows] for column in range(3))
    return [place for place, _ in rows], files, items, parts


def _counted(file: Path, fields: int) -> list[tuple[str, list[str]]]:
    """The lines below the two of the header: their count, and the names of the columns."""
    rows, place = read_rows(file, fields, skip=2), f"{file} line 1"
    with open(file, encoding="utf-8-sig", errors="surrogateescape") as lines:
        count = lines.readline().strip()
    if not re.fullmatch("[0-9]{1,9}", count):
        raise ValueError(f"{place}: expected the number of entries, found '{shown(count)}'")
    if int(count) != len(rows):
        raise ValueError(f"{place}: {int(count):,} entries are announced, but {len(rows):,} follow")
    return rows


def _image_paths(copy: Copy, places: list[str], files: list[str]) -> list[Path]:
    """Lists say img/WOMEN/...; the archive may have been unpacked into Img/, beside it, or have
    become Img/ itself."""
    listed = [(place, file.removeprefix("img/")) for place, file in zip(places, files, strict=True)]
    for folder in ("Img/img", "img", "Img"):
        paths = copy.paths(listed, folder)
        # WOMEN/Dresses, for items may be missing
        if any(os.path.isdir(kind) for kind in {path.parents[1] for path in paths}):
            return paths
    return [copy.home / "Img" / file for file in files]


def _attributes(copy: Copy, partition: Path, items: list[str]) -> dict:
    """The fields of an ImageSet; none where there are no attributes."""
    file = copy.at(*ATTRIBUTES)
    if not file.exists():
        return {}
    names_file = file.with_name("list_attr_cloth.txt")
    copy.require(names_file)
    names = [name for _, (name,) in _counted(names_file, 1)]
    signs: dict[str, list[np.ndarray]] = {}  # 1 present, -1 absent, 0 unknown; all lines of an item
    for place, (item, line) in _counted(file, 2):
        values = line.split()
        if len(values) != len(names):
            counts = f"{len(values)} values, but {names_file} names {len(names)} attributes"
            raise ValueError(f"{place}: {counts}; the two are not of one release")
        if wrong := set(values).difference(("1", "-1", "0")):
            raise ValueError(f"{place}: expected values of 1, -1 or 0, found '{shown(min(wrong))}'")
        signs.setdefault(item, []).append(np.array(values).astype(np.int8))
    if signs.keys().isdisjoint(items):
        none = f"none of its {len(signs):,} items is in {partition}"
        raise ValueError(f"{file}: {none}; the two are not of one release")
    # By the sum of the lowest and the highest sign, -2 .. 2: -1 stands last, and where two lines
    # contradict each other (0), nothing is known.
    meaning = np.array([np.nan, 1, 1, 0, 0], np.float32)
    of_item = {item: meaning[np.min(v, axis=0) + np.max(v, axis=0)] for item, v in signs.items()}
    unknown = np.full(len(names), np.nan, np.float32)
    values = np.stack([of_item.get(item, unknown) for item in items])
    return {"attributes": torch.from_numpy(values), "attribute_names": names}


def _boxes(file: Path, files: list[str]) -> Tensor | None:
    """(N, 4) x y width height from "image clothes_type pose_type x1 y1 x2 y2"; NaN for an image
    without a line."""
    if not file.exists():
        return None
    box_of = {}
    for place, (image, _, _, *corners) in _counted(file, 7):
        x1, y1, x2, y2 = (number(place, text) for text in corners)
        box_of[image] = (x1, y1, x2 - x1, y2 - y1)
    return torch.tensor([box_of.get(image, (np.nan,) * 4) for image in files], dtype=torch.float32)
