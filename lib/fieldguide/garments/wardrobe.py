"""Drawn garments and outfits in the layouts of Polyvore Outfits and DeepFashion's In-shop.

    make_wardrobe(folder, outfits=1000, items=600, shots=4, size=224, seed=0)

The same parameters and library versions give the same bytes. A picture comes from
(seed, item, shot) alone, so a larger wardrobe begins with the same pictures, and each thing in it
from a random stream of its own, so that one attribute can be exchanged alone (see twins.py). One
catalogue of garments is in both layouts:

    polyvore_outfits/    each garment laid flat, with attributes; outfits; compatibility and
                         fill-in-the-blank files, also with partly exchanged outfits and ten choices
                         ("harder")
    inshop/              every shot of each garment; half of the garments for training, the others'
                         shots are queries or gallery
    wardrobe.json        parameters and the catalogue
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fieldguide.checks import whole_numbers
from fieldguide.folders import write_atomically, write_lines
from fieldguide.garments.attributes import (
    ATTRIBUTE_NAMES,
    KINDS,
    VOCABULARY,
    Garment,
    make_garments,
)
from fieldguide.garments.outfits import Outfit, compatibility_lines, make_outfits, questions
from fieldguide.garments.shots import SHOTS, photograph
from fieldguide.pictures import SIZE, SMALLEST, jpeg

VERSION = 2  # raise it when the same parameters give other bytes
MANIFEST = "wardrobe.json"
LOWEST = {"outfits": 200, "items": 150, "shots": 2, "size": SMALLEST, "seed": 0}
SPLIT_SHARES = {"train": 0.60, "valid": 0.15, "test": 0.25}
CHOICES, HARDER_CHOICES = 4, 10
FIRST_ITEM, FIRST_OUTFIT = 100_000_001, 200_000_001
UNKNOWN_SHARE = 0.04  # of an in-shop item's attribute groups, which annotators left open
# As in the release: 1 upper body, 2 lower body, 3 full body.
CLOTHES_TYPE = {"tops": 1, "outerwear": 1, "bottoms": 2, "all-body": 3, "shoes": 2, "bags": 1}
# 1 frontal, 4 from afar, 5 from near, 6 by itself.
POSE_TYPE = {"front": 6, "worn": 1, "detail": 5, "styled": 4}


def make_wardrobe(
    folder: Path | str,
    *,
    outfits: int = 1000,
    items: int = 600,
    shots: int = 4,
    size: int = SIZE,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Draws a wardrobe into a folder and returns it: polyvore_outfits/ and inshop/.

    A folder that already holds this very wardrobe is returned as it is. The wardrobe is written
    beside the folder and moved there when complete, so nothing half-written is left behind.

    Args:
        folder: new or empty.
        outfits: in each of the two versions, disjoint and nondisjoint.
        items: garments.
        shots: pictures of each garment.
        size: pixels of a side.
        progress: called as progress(done, total), in pictures, after each garment.

    Raises:
        ValueError: for parameters out of range or a place that cannot be written.
        FileExistsError: when the folder holds something else.
    """
    parameters = {"outfits": outfits, "items": items, "shots": shots, "size": size, "seed": seed}
    parameters = whole_numbers(parameters, LOWEST)
    return write_atomically(
        folder,
        MANIFEST,
        "wardrobe",
        {"version": VERSION, **parameters},
        lambda root: _write(root, parameters, progress),
    )


def _write(root: Path, parameters: dict, progress) -> None:
    seed = parameters["seed"]
    garments = make_garments(parameters["items"], seed)
    polyvore, inshop = root / "polyvore_outfits", root / "inshop"
    for each in (polyvore / "images", inshop / "Eval", inshop / "Anno", inshop / "Img"):
        each.mkdir(parents=True)
    _write_outfits(polyvore, garments, parameters["outfits"], seed)
    _write_items(polyvore, garments)
    _write_images(polyvore, inshop, garments, parameters, progress)
    catalogue = [
        {
            "item_id": _item_id(one),
            "inshop": _inshop_id(one),
            "kind": one.kind,
            "second_colour": one.second,
            "attributes": one.attributes(),
        }
        for one in garments
    ]
    _write_json(root / MANIFEST, {"version": VERSION, "parameters": parameters, "items": catalogue})


def _write_json(path: Path, value) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n", newline="\n")


def _item_id(garment: Garment) -> str:
    return str(FIRST_ITEM + garment.number)


def _inshop_id(garment: Garment) -> str:
    return f"id_{garment.number + 1:08d}"


# ---- Polyvore Outfits ----------------------------------------------------------------------------


def _write_outfits(root: Path, garments: list[Garment], count: int, seed: int) -> None:
    titles = {}
    for version, name in enumerate(("nondisjoint", "disjoint")):
        rng = np.random.default_rng([seed, version, 0x0F17])
        splits = _splits(garments, name, count, FIRST_OUTFIT + version * count, rng)
        (root / name).mkdir()
        for split, outfits in splits.items():
            _write_split(root / name, split, outfits, garments, name == "nondisjoint", rng)
            for outfit in outfits:
                number = int(outfit.set_id) - FIRST_OUTFIT + 1
                titles[outfit.set_id] = {"url_name": f"look {number}", "title": f"Look {number}"}
    _write_json(root / "polyvore_outfit_titles.json", titles)


def _splits(
    garments: list[Garment], version: str, count: int, first_id: int, rng
) -> dict[str, list[Outfit]]:
    """Outfits by split. "disjoint": no item of a training outfit is in one of another split."""
    sizes = {split: round(share * count) for split, share in SPLIT_SHARES.items()}
    sizes["test"] = count - sizes["train"] - sizes["valid"]
    everyone = list(range(len(garments)))
    members = {split: everyone for split in sizes}
    if version == "disjoint":
        train: set[int] = set()
        for semantic in dict.fromkeys(one.semantic for one in garments):
            own = rng.permutation([one.number for one in garments if one.semantic == semantic])
            train.update(own[: round(SPLIT_SHARES["train"] * len(own))].tolist())
        rest = [number for number in everyone if number not in train]
        members = {"train": sorted(train), "valid": rest, "test": rest}
    splits = {}
    for split, size in sizes.items():
        splits[split] = make_outfits(garments, members[split], size, first_id, rng)
        first_id += size
    return splits


def _write_split(
    folder: Path, split: str, outfits: list[Outfit], garments: list[Garment], harder: bool, rng
) -> None:
    _write_json(
        folder / f"{split}.json",
        [
            {
                "items": [
                    {"item_id": _item_id(garments[item]), "index": index}
                    for index, item in enumerate(outfit.items, start=1)
                ],
                "set_id": outfit.set_id,
            }
            for outfit in outfits
        ],
    )
    write_lines(folder / f"compatibility_{split}.txt", compatibility_lines(garments, outfits, rng))
    _write_json(folder / f"fill_in_blank_{split}.json", questions(garments, outfits, rng, CHOICES))
    if harder and split != "train":  # the resampled files have these names
        short = {"valid": "val", "test": "test"}[split]
        write_lines(
            folder / f"fashion_compatibility_harder_{short}.txt",
            compatibility_lines(garments, outfits, rng, True),
        )
        _write_json(
            folder / f"fill_in_blank_{split}_harder_new.json",
            questions(garments, outfits, rng, HARDER_CHOICES),
        )


def _write_items(root: Path, garments: list[Garment]) -> None:
    metadata, annotations = {}, {}
    column = {name: number for number, name in enumerate(ATTRIBUTE_NAMES)}
    for one in garments:
        kind = KINDS[one.kind]
        title = _title(one)
        metadata[_item_id(one)] = {  # "catgeories" is spelt like that in the release
            "url_name": title.lower(),
            "description": "",
            "catgeories": [kind.semantic, one.kind],
            "title": title,
            "related": [],
            "category_id": str(kind.category),
            "semantic_category": kind.semantic,
        }
        annotations[_item_id(one)] = [column[name] for name in one.attributes()]
    _write_json(root / "polyvore_item_metadata.json", metadata)
    _write_json(
        root / "polyvore_attributes.json",
        {"annotations": annotations, "attributes": list(ATTRIBUTE_NAMES)},
    )
    write_lines(
        root / "categories.csv",
        [
            f"{kind.category},{name},{kind.semantic}"
            for name, kind in sorted(KINDS.items(), key=lambda each: each[1].category)
        ],
    )


def _title(garment: Garment) -> str:
    return f"{garment.cloth()} {garment.kind}".capitalize()


# ---- In-shop Clothes Retrieval -------------------------------------------------------------------


def _write_images(
    polyvore: Path, inshop: Path, garments: list[Garment], parameters: dict, progress
) -> None:
    shots, seed = parameters["shots"], parameters["seed"]
    train = np.random.default_rng([seed, 0x1405]).permutation(len(garments)) < len(garments) // 2
    partition, boxes, values = [], [], []
    for one in garments:
        rng = np.random.default_rng([seed, one.number, 0x1405])
        gallery = rng.permutation(shots) >= shots // 2
        folder = f"img/WOMEN/{KINDS[one.kind].folder}/{_inshop_id(one)}"
        (inshop / "Img" / folder).mkdir(parents=True)
        for shot in range(shots):
            picture = photograph(one, shot, parameters["size"])
            view = SHOTS[min(shot, len(SHOTS) - 1)]
            name = f"{folder}/{shot + 1:02d}_1_{view}.jpg"
            data = jpeg(picture.image)
            (inshop / "Img" / name).write_bytes(data)
            if shot == 0:
                (polyvore / "images" / f"{_item_id(one)}.jpg").write_bytes(data)
            status = "train" if train[one.number] else "gallery" if gallery[shot] else "query"
            partition.append(f"{name:<70} {_inshop_id(one)} {status}")
            boxes.append(
                f"{name} {CLOTHES_TYPE[one.semantic]} {POSE_TYPE[view]} "
                + " ".join(map(str, _corners(picture.mask)))
            )
        values.append(f"{_inshop_id(one)} " + " ".join(map(str, _annotation(one, rng))))
        if progress is not None:
            progress((one.number + 1) * shots, len(garments) * shots)
    _write_list(
        inshop / "Eval" / "list_eval_partition.txt",
        "image_name item_id evaluation_status",
        partition,
    )
    _write_list(
        inshop / "Anno" / "list_bbox_inshop.txt",
        "image_name clothes_type pose_type x_1 y_1 x_2 y_2",
        boxes,
    )
    _write_list(inshop / "Anno" / "list_attr_cloth.txt", "attribute_name", ATTRIBUTE_NAMES)
    _write_list(inshop / "Anno" / "list_attr_items.txt", "item_id attribute_labels", values)


def _write_list(path: Path, header: str, lines) -> None:
    write_lines(path, [str(len(lines)), header, *lines])


def _corners(mask: np.ndarray) -> tuple[int, int, int, int]:
    """x1, y1, x2, y2 of the tight box."""
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _annotation(garment: Garment, rng) -> list[int]:
    """1 present, -1 absent, 0 unknown, in the order of ATTRIBUTE_NAMES; a group is known or not."""
    own = set(garment.attributes())
    values: list[int] = []
    for names in VOCABULARY.values():
        known = rng.random() >= UNKNOWN_SHARE
        values += [(1 if name in own else -1) if known else 0 for name in names]
    return values
