"""Polyvore Outfits: garments, the outfits made of them, and questions about what goes together.

Sources: Vasileva et al., Learning Type-Aware Embeddings for Fashion Compatibility, 2018 (outfits
and questions); Plummer et al., Why Do These Match? Explaining the Behavior of Image Similarity
Models, 2020 (attributes); Mishra et al., Effectively Leveraging Attributes for Visual Similarity,
2021 (the resampled questions, "harder" in the names of files)."""

import hashlib
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fieldmarks.data.layouts.outfit_questions import read_blanks, read_compatibility, read_outfits
from fieldmarks.data.layouts.reading import Copy, read_json, read_rows

TREE = """  polyvore_outfits/
    images/211990161.jpg ...
    nondisjoint/train.json  valid.json  test.json        (or disjoint/)
    nondisjoint/compatibility_train.txt  ..._valid.txt  ..._test.txt
    nondisjoint/fill_in_blank_train.json  ..._valid.json  ..._test.json
    nondisjoint/*harder*.txt  *harder*.json              (resampled questions; optional)
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
    """What there is, by part: "train" "valid" "test"; of questions "valid resampled" too ..."""

    def __missing__(self, part: str):
        there = ", ".join(self) or "nothing at all"
        raise ValueError(f"these outfits have no {part!r}, only {there}; a file is missing")


@dataclass(frozen=True, eq=False, repr=False)
class Outfits:
    """Items, outfits of them, and questions about them, which hold positions 0 .. I-1 of items.

    Raises ValueError for lengths that do not agree."""

    name: str  # the data set's name, for messages and provenance
    item_ids: list[str]  # I official names of items
    paths: list[Path]  # I absolute image files
    categories: list[str | None] | None  # I semantic ones ("tops"), None for an item without one
    outfits: Parts  # for each part its outfits, lists of items
    compatibility: Parts  # for each part its questions, as `outfit_questions` has them
    blanks: Parts  # likewise
    root: Path  # the folder ``polyvore_outfits``
    # Float (I, A): 1 present, 0 absent, NaN in all of an item that nobody annotated.
    attributes: Tensor | None = None
    attribute_names: list[str] | None = None  # A

    def __post_init__(self) -> None:
        for field in ("paths", "categories", "attributes"):
            value = getattr(self, field)
            if value is not None and len(value) != len(self):
                raise ValueError(f"{self.name}: {len(self)} items but {len(value)} {field}")

    def __len__(self) -> int:
        return len(self.item_ids)

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits of the sha256 over items, outfits, questions and attributes."""
        digest = hashlib.sha256(f"{self.name} {self.item_ids} {self.attribute_names}".encode())
        for parts in (self.outfits, self.compatibility, self.blanks):
            digest.update(repr(dict(parts)).encode())
        if self.attributes is not None:
            digest.update(self.attributes.numpy().tobytes())
        return digest.hexdigest()[:16]

    def __repr__(self) -> str:
        counts = [f"{len(self):,} items"]
        counts += [f"{len(outfits):,} {part} outfits" for part, outfits in self.outfits.items()]
        if self.attributes is not None:
            counts.append(f"{self.attributes.shape[1]} attributes")
        return f"<Outfits {self.name}: {', '.join(counts)}>"


def load(root: Path, split: str = "nondisjoint", name: str = "polyvore") -> Outfits:
    """Read the folder ``polyvore_outfits`` or its parent.

    What a copy lacks is left out, with a warning that names it: the outfits of a part with all
    questions about them, or files of questions. In the split "nondisjoint" an item may be in
    several parts, in "disjoint" not; the resampled questions are published for the first only. The
    set and its messages bear `name`.

    Raises:
        FileNotFoundError: no outfits at all, or an item without its image; the first is named.
        ValueError: as `outfit_questions`, or attributes of another release; the file is named."""
    if split not in OFFICIAL_OUTFITS:
        known = " or ".join(OFFICIAL_OUTFITS)
        raise ValueError(f"{name}: there is no split {split!r}; it should be {known}")
    copy = Copy(name, TREE, root, [f"{split}/{part}.json" for part in PARTS], ["polyvore_outfits"])
    folder, row_of, rows_of_tokens, outfits = copy.home / split, {}, {}, Parts()
    for part in PARTS:
        if (folder / f"{part}.json").is_file():
            sets = read_outfits(folder / f"{part}.json")
            rows_of_tokens[part] = {
                f"{outfit}_{index}": row_of.setdefault(item, len(row_of))
                for outfit, items in sets.items()
                for index, item in items.items()
            }
            outfits[part] = [[row_of[item] for item in items.values()] for items in sets.values()]
    items = list(row_of)
    paths = [copy.home / "images" / f"{item}.jpg" for item in items]
    copy.require(paths)
    wanted = [file for p in PARTS for file in (f"{p}.json", COMPATIBILITY[p], BLANKS[p])]
    lacks = [f"no {file}" for file in wanted if not (folder / file).is_file()]
    for part, count in OFFICIAL_OUTFITS[split].items() if name == "polyvore" else ():
        if part in outfits and len(outfits[part]) != count:
            lacks.append(f"{len(outfits[part]):,} of {count:,} {part} outfits")
    if lacks:
        warnings.warn(f"{name}: a partial copy of {split}: {', '.join(lacks)}", stacklevel=2)

    def questions(names: dict[str, str], read) -> Parts:
        files = {part: folder / file for part, file in names.items() if part.split()[0] in outfits}
        rows = {part: rows_of_tokens[part.split()[0]] for part in files}
        return Parts((p, read(file, rows[p])) for p, file in files.items() if file.is_file())

    first = name, items, paths, _categories(copy.home, items)
    compatibility = questions(COMPATIBILITY, read_compatibility)
    parts = outfits, compatibility, questions(BLANKS, read_blanks)
    return Outfits(*first, *parts, copy.home, **_attributes(copy.home, name, items))


def require_attributes(outfits: Outfits) -> None:
    """Raise FileNotFoundError, naming the missing file, where there are no attributes."""
    if outfits.attributes is None:
        copy = Copy(outfits.name, TREE, outfits.root)
        copy.require([outfits.root / "polyvore_attributes.json"])


def read_categories(file: Path) -> list[tuple[str, str, str]]:
    """The lines "id,fine category,semantic category" of ``categories.csv``; most ids have several.
    Raises ValueError for a line with fewer fields."""
    rows = []
    for place, (line,) in read_rows(file, 1):
        key, *fine = (field.strip() for field in line.split(","))
        if len(fine) < 2:
            expected = "expected id,fine category,semantic category"
            raise ValueError(f"{place}: {expected}, found {line!r}")
        rows.append((key, ",".join(fine[:-1]), fine[-1]))
    return rows


def _categories(home: Path, items: list[str]) -> list[str | None] | None:
    """Each item's semantic category: its own, or that of its id where all lines agree."""
    metadata, by_id = home / "polyvore_item_metadata.json", home / "categories.csv"
    if not metadata.is_file():
        return None
    of_id: dict[str, set[str]] = {}
    for key, _, semantic in read_categories(by_id) if by_id.is_file() else []:
        of_id.setdefault(key, set()).add(semantic)
    agreed = {key: semantics.pop() for key, semantics in of_id.items() if len(semantics) == 1}
    of_item, categories = read_json(metadata, dict), []
    for entry in (of_item.get(item, {}) for item in items):
        own = entry.get("semantic_category") or agreed.get(str(entry.get("category_id")), "")
        categories.append(own.strip() or None)
    return categories


def _attributes(home: Path, name: str, items: list[str]) -> dict:
    """From {"annotations": {item: [numbers of its attributes, from 0]}, "attributes": [names]}."""
    file = home / "polyvore_attributes.json"
    if not file.is_file():
        return {}
    content = read_json(file, dict)
    annotations, attributes = content.get("annotations"), content.get("attributes")
    if not isinstance(annotations, dict) or not isinstance(attributes, (list, dict)):
        there = ", ".join(content) or "nothing"
        raise ValueError(f"{file}: expected annotations (by item) and attributes, found {there}")
    names = _attribute_names(file, attributes, home / "attribute_list.txt")
    if name == "polyvore" and len(names) != OFFICIAL_ATTRIBUTES:
        published = f"the published one {OFFICIAL_ATTRIBUTES}"
        warnings.warn(f"{name}: {file.name} has {len(names)} attributes, {published}", stacklevel=3)
    known = {row: annotations[item] for row, item in enumerate(items) if item in annotations}
    if not known:
        none = f"none of its {len(annotations):,} items is in an outfit"
        raise ValueError(f"{file}: {none}; they are of another release")
    values = np.full((len(items), len(names)), np.nan, np.float32)
    for row, present in known.items():
        integers = isinstance(present, list) and all(isinstance(number, int) for number in present)
        if not integers or not all(0 <= number < len(names) for number in present):
            expected = f"expected numbers of 0 .. {len(names) - 1}"
            raise ValueError(f"{file} item {items[row]}: {expected}, found {present}")
        values[row] = 0
        values[row, present] = 1
    return {"attributes": torch.from_numpy(values), "attribute_names": names}


def _attribute_names(file: Path, attributes: list | dict, list_file: Path) -> list[str]:
    """In the order of their numbers: the annotations' own names, or where these are no plain list,
    those of ``attribute_list.txt``; where both are there, they hold the same in whichever order."""
    listed = [name for _, (name,) in read_rows(list_file, 1)] if list_file.is_file() else None
    if listed is not None and len(listed) != len(attributes):
        counts = f"{len(attributes)} attributes, but {list_file} names {len(listed)}"
        raise ValueError(f"{file}: {counts}; the two are not of one release")
    if not isinstance(attributes, list) or not all(isinstance(each, str) for each in attributes):
        return listed or [f"attribute {number}" for number in range(1, len(attributes) + 1)]
    if unlisted := sorted(set(attributes).difference(listed or attributes)):
        not_in = f"attribute {unlisted[0]!r} is not in {list_file}"
        raise ValueError(f"{file}: {not_in}; the two are not of one release")
    return attributes
