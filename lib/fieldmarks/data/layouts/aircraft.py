"""FGVC-Aircraft, release 2013b, by variant.

Source: Maji et al., Fine-Grained Visual Classification of Aircraft, 2013."""

from pathlib import Path

import torch
from torch import Tensor

from fieldmarks.data.imageset import ImageSet
from fieldmarks.data.layouts.reading import Copy, number, once, read_rows, shown

TREE = """  fgvc-aircraft-2013b/
    data/
      variants.txt  images_variant_train.txt  images_variant_val.txt  images_variant_test.txt
      images/0034309.jpg ...
      images_box.txt                                     (optional)"""


def load(root: Path, absent: bool = False) -> ImageSet:
    """Read the folder ``fgvc-aircraft-2013b``, its ``data`` folder or one above; all three parts
    are pooled. The classes stand in the order of variants.txt: the paper that splits them in halves
    does not say which order it used. Raises as `catalog.load`."""
    copy = Copy("aircraft", TREE, root, ["variants.txt"], absent)
    lists = {part: copy.home / f"images_variant_{part}.txt" for part in ("train", "val", "test")}
    copy.require(*lists.values())
    # A name may hold spaces ("Beechcraft 1900"), so that a line is one name.
    names = {name: name for _, (name,) in read_rows(copy.home / "variants.txt", 1)}
    rows = [(part, *row) for part, file in lists.items() for row in read_rows(file, 2)]
    for _, place, (_, variant) in rows:
        if variant not in names:
            raise ValueError(f"{place}: variant '{shown(variant)}' is not in variants.txt")
    place_of = once((place, image) for _, place, (image, _) in rows)
    ids, places = list(place_of), list(place_of.values())
    paths = copy.paths(zip(places, ids, strict=True), "images", ".jpg")
    copy.require_images(paths, places, lists["train"])
    variants, split = [variant for *_, (_, variant) in rows], [part for part, *_ in rows]
    boxes = _boxes(copy.home / "images_box.txt", ids)
    return copy.images(paths, variants, names, split=split, boxes=boxes)


def _boxes(file: Path, ids: list[str]) -> Tensor | None:
    """(N, 4) x y width height from "image xmin ymin xmax ymax", inclusive and counted from 1."""
    if not file.is_file():
        return None
    box_of = {}
    for place, (image, *corners) in read_rows(file, 5):
        x1, y1, x2, y2 = (number(place, text) for text in corners)
        box_of[image] = (x1 - 1, y1 - 1, x2 - x1 + 1, y2 - y1 + 1)
    if absent := set(ids).difference(box_of):
        raise ValueError(f"{file}: {len(absent):,} images have no box, first {shown(min(absent))}")
    return torch.tensor([box_of[image] for image in ids], dtype=torch.float32)
