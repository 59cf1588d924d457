"""DeepFashion: In-shop Clothes Retrieval; Wardrobe, the generated garments, is written the same way.

Source: Liu et al., DeepFashion: Powering Robust Clothes Recognition and Retrieval with Rich Annotations, 2016.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fieldmarks.data.imageset import ImageSet
from fieldmarks.data.layouts.reading import compact, find_home, missing, read_words, require_files

TREE = """  In-shop Clothes Retrieval Benchmark/
    Eval/list_eval_partition.txt
    Img/img/WOMEN/Dresses/id_00000002/*.jpg ...          (or img/WOMEN/... or Img/WOMEN/...)
    Anno/list_bbox_inshop.txt                            (optional)
    Anno/list_attr_cloth.txt  Anno/list_attr_items.txt   (here or in Anno/attributes/; optional)"""

HEADER_LINES = 2  # every list begins with its count and the names of its columns
SPLITS = ("train", "query", "gallery")


def load(root: Path, name: str = "inshop") -> ImageSet:
    """Read the benchmark's folder or its parent. Labels are items; `split` says "train" "query" "gallery".

    `open_split` is the official one (train items against the rest), and `query_gallery` of its second part gives the
    retrieval task. Attributes (463 in the official list) belong to items: each image gets its item's (0 absent, 1
    present, NaN unknown, as all of an item without a line). Older releases hold none; then `attributes` is None, and
    `require_attributes` says what is missing.

    Args:
        root: the benchmark's folder or the one that holds it.
        name: the name that the set and its messages bear.

    Raises:
        FileNotFoundError: a list or an image is missing; the first is named, and the expected tree shown.
        ValueError: a count or a line that does not fit; the file and line are named.
    """
    below = ["In-shop Clothes Retrieval Benchmark", "inshop", "Inshop_Clothes", "In-shop"]
    home = find_home(root, name, TREE, "Eval/list_eval_partition.txt", below)
    files, items, split = _partition(home / "Eval" / "list_eval_partition.txt")
    paths = _image_paths(home, files)
    require_files(name, TREE, paths)
    labels, class_names = compact(items, {item: item for item in sorted(set(items))})
    attributes, attribute_names = _attributes(home, name, items)
    return ImageSet(
        name=name,
        paths=paths,
        labels=labels,
        class_names=class_names,
        attributes=attributes,
        attribute_names=attribute_names,
        boxes=_boxes(home / "Anno" / "list_bbox_inshop.txt", files),
        split=split,
        root=home,
    )


def _partition(file: Path) -> tuple[list[str], list[str], list[str]]:
    rows = _counted(file, 3)
    part_of: dict[str, tuple[bool, int]] = {}
    for number, (_, item, word) in rows:
        if word not in SPLITS:
            raise ValueError(
                f"{file} line {number}: expected train, query or gallery, found {word!r}"
            )
        in_train, first = part_of.setdefault(item, (word == "train", number))
        if in_train != (word == "train"):
            raise ValueError(
                f"{file} line {number}: item {item} is in {word}, but line {first} says otherwise; "
                f"train and test items must differ"
            )
    return tuple([words[column] for _, words in rows] for column in range(3))


def _counted(file: Path, fields: int) -> list[tuple[int, list[str]]]:
    """The lines below the two header lines, whose number the first must say."""
    rows = read_words(file, fields, skip=HEADER_LINES)
    with open(file, encoding="utf-8-sig") as lines:
        count = lines.readline().strip()
    if not count.isdigit():
        raise ValueError(f"{file} line 1: expected the number of entries, found {count!r}")
    if int(count) != len(rows):
        raise ValueError(
            f"{file} line 1: {int(count):,} entries are announced, but {len(rows):,} follow"
        )
    return rows


def _image_paths(home: Path, files: list[str]) -> list[Path]:
    """Lists say img/WOMEN/...; the archive may have been unpacked into Img/, beside it, or have become Img/ itself."""
    for folder, prefix in (
        (home / "Img", "img/"),
        (home, "img/"),
        (home / "Img", ""),
        (home / "img", ""),
    ):
        paths = [folder / (prefix + file.removeprefix("img/")) for file in files]
        if any(
            kind.is_dir() for kind in {path.parents[1] for path in paths}
        ):  # WOMEN/Dresses; items may be missing
            return paths
    return [home / "Img" / file for file in files]


def require_attributes(images: ImageSet) -> None:
    """Raise where there are no attributes to learn from.

    Raises:
        FileNotFoundError: the release has no attribute lists; the missing file is named, and the expected tree shown.
    """
    if images.attributes is None:
        raise FileNotFoundError(
            f"{images.name}: there are no attributes, for {_attribute_file(images.root)} is missing; older "
            f"releases lack it, newer ones have it in Anno or Anno/attributes. Expected:\n{TREE}"
        )


def _attribute_file(home: Path) -> Path:
    places = [
        home / "Anno" / "list_attr_items.txt",
        home / "Anno" / "attributes" / "list_attr_items.txt",
    ]
    return next((file for file in places if file.is_file()), places[0])


def _attributes(home: Path, name: str, items: list[str]) -> tuple[Tensor | None, list[str] | None]:
    file = _attribute_file(home)
    if not file.is_file():
        return None, None
    names_file = file.with_name("list_attr_cloth.txt")
    if not names_file.is_file():
        raise missing(name, TREE, [names_file])
    names = [words[0] for _, words in _counted(names_file, 1)]
    # The lowest and the highest of each item's lines: where an item has two that contradict each other, nothing is known.
    lowest: dict[str, np.ndarray] = {}
    highest: dict[str, np.ndarray] = {}
    for number, (item, line) in _counted(file, 2):
        values = _signs(file, number, line, names_file, len(names))
        lowest[item] = np.minimum(lowest.get(item, values), values)
        highest[item] = np.maximum(highest.get(item, values), values)
    if lowest.keys().isdisjoint(items):
        raise ValueError(
            f"{file}: none of its {len(lowest):,} items is in {home / 'Eval' / 'list_eval_partition.txt'}; "
            f"the two are not of one release"
        )
    meaning = np.array(
        [np.nan, 1, 1, 0, 0], np.float32
    )  # indexed by the sum, -2 .. 2, so that -1 stands last
    of_item = {item: meaning[values + highest[item]] for item, values in lowest.items()}
    unknown = np.full(len(names), np.nan, np.float32)
    return torch.from_numpy(np.stack([of_item.get(item, unknown) for item in items])), names


def _signs(file: Path, number: int, line: str, names_file: Path, count: int) -> np.ndarray:
    """(A,) of 1 present, -1 absent, 0 unknown."""
    words = line.split()
    if len(words) != count:
        raise ValueError(
            f"{file} line {number}: {len(words)} values, but {names_file} names {count} attributes; the two "
            f"are not of one release"
        )
    stranger = next((word for word in words if word not in ("1", "-1", "0")), None)
    if stranger is not None:
        raise ValueError(f"{file} line {number}: expected values of 1, -1 or 0, found {stranger!r}")
    return np.array([int(word) for word in words], np.int8)


def _boxes(file: Path, files: list[str]) -> Tensor | None:
    """(N, 4) x y width height from "image clothes_type pose_type x1 y1 x2 y2"; NaN for an image without a line."""
    if not file.is_file():
        return None
    box_of = {}
    for number, words in _counted(file, 7):
        try:
            x1, y1, x2, y2 = (float(word) for word in words[3:7])
        except ValueError:
            raise ValueError(
                f"{file} line {number}: expected four numbers, found {' '.join(words[3:])!r}"
            ) from None
        box_of[words[0]] = (x1, y1, x2 - x1, y2 - y1)
    return torch.tensor([box_of.get(image, (np.nan,) * 4) for image in files], dtype=torch.float32)
