"""DeepFashion: In-shop Clothes Retrieval; Wardrobe, the generated garments, is written like it.

Source: Liu et al., DeepFashion: Powering Robust Clothes Recognition and Retrieval with Rich
Annotations, 2016."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fieldmarks.data.imageset import ImageSet
from fieldmarks.data.layouts.reading import Copy, number, read_rows

TREE = """  In-shop Clothes Retrieval Benchmark/
    Eval/list_eval_partition.txt
    Img/img/WOMEN/Dresses/id_00000002/*.jpg ...          (or img/WOMEN/... or Img/WOMEN/...)
    Anno/list_bbox_inshop.txt                            (optional)
    Anno/list_attr_cloth.txt  Anno/list_attr_items.txt   (here or in Anno/attributes/; optional)"""

PARTITION = "Eval/list_eval_partition.txt"
SPLITS = ("train", "query", "gallery")


def load(root: Path, name: str = "inshop") -> ImageSet:
    """Read the benchmark's folder or its parent. Labels are items.

    `open_split` is the official one (train items against the rest), and `query_gallery` of its
    second part gives the retrieval task. Attributes (463 in the official list) belong to items:
    each image gets its item's (0 absent, 1 present, NaN unknown, as all of an item without a line).
    Older releases hold none. The set and its messages bear `name`. Raises as `catalog.load`."""
    below = ["In-shop Clothes Retrieval Benchmark", "inshop", "Inshop_Clothes", "In-shop"]
    copy = Copy(name, TREE, root, [PARTITION], below)
    files, items, split = _partition(copy.home / PARTITION)
    paths = _image_paths(copy.home, files)
    copy.require(paths)
    boxes = _boxes(copy.home / "Anno" / "list_bbox_inshop.txt", files)
    names, attributes = {item: item for item in sorted(items)}, _attributes(copy, items)
    return copy.images(paths, items, names, split=split, boxes=boxes, **attributes)


def require_attributes(images: ImageSet) -> None:
    """Raise FileNotFoundError, naming the missing file, where there are no attributes."""
    if images.attributes is None:
        lacks = f"there are no attributes, for {_attribute_file(images.root)} is missing"
        newer = "older releases lack it, newer ones have it in Anno or Anno/attributes"
        raise FileNotFoundError(f"{images.name}: {lacks}; {newer}. Expected:\n{TREE}")


def _partition(file: Path) -> tuple[list[str], list[str], list[str]]:
    """Files, items and parts of the split."""
    rows = _counted(file, 3)
    first: dict[str, tuple[bool, str]] = {}
    for place, (_, item, part) in rows:
        if part not in SPLITS:
            raise ValueError(f"{place}: expected train, query or gallery, found {part!r}")
        trains, earlier = first.setdefault(item, (part == "train", place))
        if trains != (part == "train"):
            other = f"{earlier} says otherwise; train and test items must differ"
            raise ValueError(f"{place}: item {item} is in {part}, but {other}")
    files, items, parts = ([values[column] for _, values in rows] for column in range(3))
    return files, items, parts


def _counted(file: Path, fields: int) -> list[tuple[str, list[str]]]:
    """The lines below the two of the header: their count, and the names of the columns."""
    rows, place = read_rows(file, fields, skip=2), f"{file} line 1"
    with open(file, encoding="utf-8-sig") as lines:
        count = lines.readline().strip()
    if not count.isdigit():
        raise ValueError(f"{place}: expected the number of entries, found {count!r}")
    if int(count) != len(rows):
        raise ValueError(f"{place}: {int(count):,} entries are announced, but {len(rows):,} follow")
    return rows


def _image_paths(home: Path, files: list[str]) -> list[Path]:
    """Lists say img/WOMEN/...; the archive may have been unpacked into Img/, beside it, or have
    become Img/ itself."""
    for folder in (home / "Img" / "img", home / "img", home / "Img"):
        paths = [folder / file.removeprefix("img/") for file in files]
        # WOMEN/Dresses, for items may be missing
        if any(kind.is_dir() for kind in {path.parents[1] for path in paths}):
            return paths
    return [home / "Img" / file for file in files]


def _attribute_file(home: Path) -> Path:
    places = [home / "Anno" / below / "list_attr_items.txt" for below in ("", "attributes")]
    return next((file for file in places if file.is_file()), places[0])


def _attributes(copy: Copy, items: list[str]) -> dict:
    """The fields of an ImageSet; none where there are no attributes."""
    file = _attribute_file(copy.home)
    if not file.is_file():
        return {}
    names_file = file.with_name("list_attr_cloth.txt")
    copy.require([names_file])
    names = [name for _, (name,) in _counted(names_file, 1)]
    signs: dict[str, list[np.ndarray]] = {}  # 1 present, -1 absent, 0 unknown; all lines of an item
    for place, (item, line) in _counted(file, 2):
        values = line.split()
        if len(values) != len(names):
            counts = f"{len(values)} values, but {names_file} names {len(names)} attributes"
            raise ValueError(f"{place}: {counts}; the two are not of one release")
        if wrong := set(values).difference(("1", "-1", "0")):
            raise ValueError(f"{place}: expected values of 1, -1 or 0, found {min(wrong)!r}")
        signs.setdefault(item, []).append(np.array(values).astype(np.int8))
    if signs.keys().isdisjoint(items):
        none = f"none of its {len(signs):,} items is in {copy.home / PARTITION}"
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
    if not file.is_file():
        return None
    box_of = {}
    for place, (image, _, _, *corners) in _counted(file, 7):
        x1, y1, x2, y2 = (number(place, text) for text in corners)
        box_of[image] = (x1, y1, x2 - x1, y2 - y1)
    return torch.tensor([box_of.get(image, (np.nan,) * 4) for image in files], dtype=torch.float32)
