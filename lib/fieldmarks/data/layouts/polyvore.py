"""Polyvore Outfits: garments, the outfits made of them, and questions about what goes together.

Sources: Vasileva et al., Learning Type-Aware Embeddings for Fashion Compatibility, 2018 (outfits and questions); Plummer
et al., Why Do These Match? Explaining the Behavior of Image Similarity Models, 2020 (attributes); Mishra et al.,
Effectively Leveraging Attributes for Visual Similarity, 2021 (the resampled questions, "harder" in the names of files).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fieldmarks.data.layouts.outfit_questions import (
    read_blanks,
    read_compatibility,
    read_outfits,
    resolved,
)
from fieldmarks.data.layouts.reading import find_home, missing, read_json, read_words, require_files

TREE = """  polyvore_outfits/
    images/211990161.jpg ...
    nondisjoint/train.json  valid.json  test.json        (or disjoint/)
    nondisjoint/compatibility_train.txt  ..._valid.txt  ..._test.txt
    nondisjoint/fill_in_blank_train.json  ..._valid.json  ..._test.json
    nondisjoint/fashion_compatibility_harder_val.txt  ..._test.txt                      (resampled; optional)
    nondisjoint/fill_in_blank_valid_harder_new.json  fill_in_blank_test_harder_new.json (resampled; optional)
    polyvore_item_metadata.json  categories.csv          (categories; optional)
    polyvore_attributes.json  attribute_list.txt         (attributes; optional)"""

PARTS = ("train", "valid", "test")
COMPATIBILITY = {part: f"compatibility_{part}.txt" for part in PARTS} | {
    "valid resampled": "fashion_compatibility_harder_val.txt",
    "test resampled": "fashion_compatibility_harder_test.txt",
}
BLANKS = {part: f"fill_in_blank_{part}.json" for part in PARTS} | {
    f"{part} resampled": f"fill_in_blank_{part}_harder_new.json" for part in ("valid", "test")
}

OFFICIAL_OUTFITS = {
    "nondisjoint": {"train": 53_306, "valid": 5_000, "test": 10_000},
    "disjoint": {"train": 16_995, "valid": 3_000, "test": 15_145},
}
OFFICIAL_ATTRIBUTES = 205


class Parts(dict):
    """What there is, by part: "train" "valid" "test", and of questions "valid resampled" "test resampled" too."""

    def __missing__(self, part: str):
        raise ValueError(
            f"these outfits have no {part!r}, only {', '.join(self) or 'nothing at all'}; a file is missing"
        )


@dataclass(frozen=True, eq=False, repr=False)
class Outfits:
    """Items, outfits of them, and questions about them. Outfits and questions hold positions 0 .. I-1 of items.

    Attributes:
        name: the data set's name, for messages and provenance.
        item_ids: I official names of items.
        paths: I absolute image files.
        categories: I semantic categories ("tops"), None for an item without one; or None.
        attributes: float Tensor (I, A): 1 present, 0 absent, NaN in all of an item that nobody annotated; or None.
        attribute_names: A names, or None.
        outfits: for each part its outfits, lists of items.
        compatibility: for each part its `CompatibilityQuestion`s.
        blanks: for each part its `BlankQuestion`s.
        root: the folder ``polyvore_outfits``.

    Raises:
        ValueError: lengths that do not agree.
    """

    name: str
    item_ids: list[str]
    paths: list[Path]
    categories: list[str | None] | None
    attributes: Tensor | None
    attribute_names: list[str] | None
    outfits: Parts
    compatibility: Parts
    blanks: Parts
    root: Path

    def __post_init__(self) -> None:
        for field in ("paths", "categories", "attributes"):
            value = getattr(self, field)
            if value is not None and len(value) != len(self.item_ids):
                raise ValueError(
                    f"{self.name}: {len(self.item_ids)} items but {len(value)} {field}"
                )

    def __len__(self) -> int:
        """Items."""
        return len(self.item_ids)

    def __repr__(self) -> str:
        words = [
            f"{len(self):,} items",
            *(f"{len(outfits):,} {part} outfits" for part, outfits in self.outfits.items()),
        ]
        if self.attributes is not None:
            words.append(f"{self.attributes.shape[1]} attributes")
        return f"<Outfits {self.name}: {', '.join(words)}>"


def load(root: Path, split: str = "nondisjoint", name: str = "polyvore") -> Outfits:
    """Read the folder ``polyvore_outfits`` or its parent.

    What a copy lacks is left out, with a warning that names it: the outfits of a part, without which its questions cannot
    be understood and are left out too, or files of questions. The resampled questions are published for nondisjoint only.

    Args:
        root: the data set's folder or the one that holds it.
        split: "nondisjoint" (an item may be in several parts) or "disjoint".
        name: the name that the set and its messages bear.

    Raises:
        FileNotFoundError: no outfits at all, or an item without its image; the first is named, and the expected tree
            shown.
        ValueError: as the functions of ``outfit_questions``, or attributes of another release; the file is named.
    """
    if split not in OFFICIAL_OUTFITS:
        raise ValueError(
            f"{name}: there is no split {split!r}; it should be nondisjoint or disjoint"
        )
    home = find_home(
        root, name, TREE, [f"{split}/{part}.json" for part in PARTS], ["polyvore_outfits"]
    )
    folder = home / split
    listed = {
        part: read_outfits(folder / f"{part}.json")
        for part in PARTS
        if (folder / f"{part}.json").is_file()
    }
    row_of: dict[str, int] = {}
    outfits = Parts(
        {
            part: [
                [row_of.setdefault(item, len(row_of)) for item in outfit.values()]
                for outfit in sets.values()
            ]
            for part, sets in listed.items()
        }
    )
    items, images = list(row_of), home / "images"
    paths = [images / f"{item}.jpg" for item in items]
    require_files(name, TREE, paths)
    row_of_token = {
        part: {
            f"{outfit}_{index}": row_of[item]
            for outfit, content in sets.items()
            for index, item in content.items()
        }
        for part, sets in listed.items()
    }
    _say_what_is_missing(name, folder, outfits)
    attributes, attribute_names = _attributes(home, name, items)
    return Outfits(
        name=name,
        item_ids=items,
        paths=paths,
        categories=_categories(home, items),
        attributes=attributes,
        attribute_names=attribute_names,
        outfits=outfits,
        root=home,
        compatibility=_questions(folder, COMPATIBILITY, read_compatibility, row_of_token),
        blanks=_questions(folder, BLANKS, read_blanks, row_of_token),
    )


def _questions(
    folder: Path, files: dict[str, str], read, row_of_token: dict[str, dict[str, int]]
) -> Parts:
    found = Parts()
    for part, file in files.items():
        rows = row_of_token.get(part.split()[0])
        if rows is not None and (folder / file).is_file():
            found[part] = resolved(read(folder / file), rows, folder / file)
    return found


def _say_what_is_missing(name: str, folder: Path, outfits: Parts) -> None:
    wanted = [
        file for part in PARTS for file in (f"{part}.json", COMPATIBILITY[part], BLANKS[part])
    ]
    words = [f"no {file}" for file in wanted if not (folder / file).is_file()]
    if name == "polyvore":
        official = OFFICIAL_OUTFITS[folder.name]
        words += [
            f"{len(found):,} of {official[part]:,} {part} outfits"
            for part, found in outfits.items()
            if len(found) != official[part]
        ]
    if words:
        warnings.warn(f"{name}: a partial copy of {folder.name}: {', '.join(words)}", stacklevel=3)


# ---- what is said about items


def read_categories(file: Path) -> list[tuple[str, str, str]]:
    """The lines "id,fine category,semantic category" of ``categories.csv``, where most ids have several.

    Raises:
        ValueError: a line with fewer fields; the line is named.
    """
    rows = []
    for number, (line,) in read_words(file, 1):
        fields = [field.strip() for field in line.split(",")]
        if len(fields) < 3:
            raise ValueError(
                f"{file} line {number}: expected id,fine category,semantic category, found {line!r}"
            )
        rows.append((fields[0], ",".join(fields[1:-1]), fields[-1]))
    return rows


def _categories(home: Path, items: list[str]) -> list[str | None] | None:
    """Each item's semantic category: its own, or that of its category's id where all lines with this id agree."""
    metadata, by_id = home / "polyvore_item_metadata.json", home / "categories.csv"
    if not metadata.is_file():
        return None
    said: dict[str, set[str]] = {}
    for key, _, semantic in read_categories(by_id) if by_id.is_file() else []:
        said.setdefault(key, set()).add(semantic)
    agreed = {key: semantics.pop() for key, semantics in said.items() if len(semantics) == 1}
    of_item = read_json(metadata, dict)
    known = [of_item.get(item, {}) for item in items]
    return [
        (entry.get("semantic_category") or agreed.get(str(entry.get("category_id")), "")).strip()
        or None
        for entry in known
    ]


def require_attributes(outfits: Outfits) -> None:
    """Raise where there are no attributes to learn from.

    Raises:
        FileNotFoundError: the file is named, and the expected tree shown.
    """
    if outfits.attributes is None:
        raise missing(outfits.name, TREE, [outfits.root / "polyvore_attributes.json"])


def _attributes(home: Path, name: str, items: list[str]) -> tuple[Tensor | None, list[str] | None]:
    """(I, A) from {"annotations": {item: [numbers of its attributes, from 0]}, "attributes": [names]}."""
    file = home / "polyvore_attributes.json"
    if not file.is_file():
        return None, None
    content = read_json(file, dict)
    annotations, attributes = content.get("annotations"), content.get("attributes")
    if not isinstance(annotations, dict) or not isinstance(attributes, (list, dict)):
        raise ValueError(
            f"{file}: expected annotations (by item) and attributes, found {', '.join(content) or 'nothing'}"
        )
    names = _attribute_names(file, attributes, home / "attribute_list.txt")
    if name == "polyvore" and len(names) != OFFICIAL_ATTRIBUTES:
        warnings.warn(
            f"{name}: {file.name} has {len(names)} attributes, the published one {OFFICIAL_ATTRIBUTES}",
            stacklevel=3,
        )
    if annotations.keys().isdisjoint(items):
        raise ValueError(
            f"{file}: none of its {len(annotations):,} items is in an outfit; they are of another release"
        )
    values = np.full((len(items), len(names)), np.nan, np.float32)
    for row, item in enumerate(items):
        if item in annotations:
            present = annotations[item]
            if not isinstance(present, list) or not all(
                isinstance(number, int) and 0 <= number < len(names) for number in present
            ):
                raise ValueError(
                    f"{file} item {item}: expected numbers of 0 .. {len(names) - 1}, found {present}"
                )
            values[row] = 0
            values[row, present] = 1
    return torch.from_numpy(values), names


def _attribute_names(file: Path, attributes: list | dict, list_file: Path) -> list[str]:
    """The names in the order of their numbers: those of the annotations themselves, or where these are no plain list of
    names, those of ``attribute_list.txt``. Where both are there they must hold the same, in whichever order."""
    listed = [words[0] for _, words in read_words(list_file, 1)] if list_file.is_file() else None
    if listed is not None and len(listed) != len(attributes):
        raise ValueError(
            f"{file}: {len(attributes)} attributes, but {list_file} names {len(listed)}; the two are not of "
            f"one release"
        )
    if not isinstance(attributes, list) or not all(isinstance(each, str) for each in attributes):
        return listed or [f"attribute {number}" for number in range(1, len(attributes) + 1)]
    strangers = sorted(set(attributes).difference(listed or attributes))
    if strangers:
        raise ValueError(
            f"{file}: attribute {strangers[0]!r} is not in {list_file}; the two are not of one release"
        )
    return attributes
