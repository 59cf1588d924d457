"""Polyvore Outfits: garments, the outfits made of them, and questions about what goes together.

Sources: Vasileva et al., Learning Type-Aware Embeddings for Fashion Compatibility, 2018 (outfits
and questions); Plummer et al., Why Do These Match? Explaining the Behavior of Image Similarity
Models, 2020 (attributes); Mishra et al., Effectively Leveraging Attributes for Visual Similarity,
2021 (the resampled questions, "harder" in the names of files)."""

import hashlib
import itertools
import reprlib
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fieldmarks.data.layouts.outfit_questions import read_blanks, read_compatibility, read_outfits
from fieldmarks.data.layouts.reading import Copy, read_json, read_rows, shown

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

    def without(self, rows: Iterable[int]) -> "Outfits":
        """Without the items at these positions (no photograph, say), and without every outfit and
        question that has one of them; the items that are left count from 0 again. Raises ValueError
        where a part is left without outfits or without questions that it had, or for a position of
        no item."""
        left_out = set(map(int, rows))
        if outside := [row for row in left_out if not 0 <= row < len(self)]:
            raise ValueError(f"{self.name}: there is no item {outside[0]} among {len(self):,}")
        kept = [row for row in range(len(self)) if row not in left_out]
        new = {row: position for position, row in enumerate(kept)}

        def renumbered(what: str, parts: Parts, lists: tuple[str, ...]) -> Parts:
            """`parts`, whose questions have lists in these fields; an outfit is itself a list."""
            result = Parts()
            for part, entries in parts.items():
                result[part] = []
                for entry in entries:
                    held = [getattr(entry, field) for field in lists] or [entry]
                    if left_out.isdisjoint(itertools.chain(*held)):
                        moved = [[new[row] for row in each] for each in held]
                        fields = dict(zip(lists, moved, strict=True)) if lists else {}
                        result[part].append(entry._replace(**fields) if lists else moved[0])
                if entries and not result[part]:
                    none = f"all {len(entries):,} {what} of {part} have one of the"
                    items = f"{len(left_out):,} items that are left out"
                    raise ValueError(f"{self.name}: {none} {items}; find their images")
            return result

        def at(values):
            return values and [values[row] for row in kept]

        return replace(
            self,
            item_ids=at(self.item_ids),
            paths=at(self.paths),
            categories=at(self.categories),
            outfits=renumbered("outfits", self.outfits, ()),
            compatibility=renumbered("compatibility questions", self.compatibility, ("items",)),
            blanks=renumbered("blank questions", self.blanks, ("question", "choices")),
            attributes=None if self.attributes is None else self.attributes[kept],
        )

    def __repr__(self) -> str:
        counts = [f"{len(self):,} items"]
        counts += [f"{len(outfits):,} {part} outfits" for part, outfits in self.outfits.items()]
        if self.attributes is not None:
            counts.append(f"{self.attributes.shape[1]} attributes")
        return f"<Outfits {self.name}: {', '.join(counts)}>"


def load(
    root: Path, split: str = "nondisjoint", name: str = "polyvore", absent: bool = False
) -> Outfits:
    """Read the folder ``polyvore_outfits`` or one above it.

    What a copy lacks is left out, with a warning that names it: the outfits of a part with all
    questions about them, or files of questions. In the split "nondisjoint" an item may be in
    several parts, in "disjoint" not; the resampled questions are published for the first only. The
    set and its messages bear `name`. With `absent`, items may be without their images, but not all.

    Raises:
        FileNotFoundError: no outfits at all, or an item without its image; the first is named.
        ValueError: as `outfit_questions`, or attributes of another release; the file is named."""
    if split not in OFFICIAL_OUTFITS:
        known = " or ".join(OFFICIAL_OUTFITS)
        raise ValueError(f"{name}: there is no split {split!r}; it should be {known}")
    copy = Copy(name, TREE, root, [f"{split}/{part}.json" for part in PARTS], absent)
    folder, row_of, rows_of_tokens, outfits = copy.at(split), {}, {}, Parts()
    places: list[str] = []  # the list that names an item first
    for part in PARTS:
        if (file := folder / f"{part}.json").exists():
            sets = read_outfits(file)
            rows_of_tokens[part] = {
                f"{outfit}_{index}": row_of.setdefault(item, len(row_of))
                for outfit, items in sets.items()
                for index, item in items.items()
            }
            outfits[part] = [[row_of[item] for item in items.values()] for items in sets.values()]
            places += [str(file)] * (len(row_of) - len(places))
    items = list(row_of)
    paths = copy.paths(zip(places, items, strict=True), "images", ".jpg")
    copy.require_images(paths, places, folder)
    wanted = [file for p in PARTS for file in (f"{p}.json", COMPATIBILITY[p], BLANKS[p])]
    lacks = [f"no {file}" for file in wanted if not (folder / file).exists()]
    for part, count in OFFICIAL_OUTFITS[split].items() if name == "polyvore" else ():
        if part in outfits and len(outfits[part]) != count:
            lacks.append(f"{len(outfits[part]):,} of {count:,} {part} outfits")
    if lacks:
        warnings.warn(f"{name}: a partial copy of {split}: {', '.join(lacks)}", stacklevel=2)

    def questions(names: dict[str, str], read) -> Parts:
        files = {part: folder / file for part, file in names.items() if part.split()[0] in outfits}
        rows = {part: rows_of_tokens[part.split()[0]] for part in files}
        return Parts(
            (part, read(file, rows[part], f"{part.split()[0]}.json"))
            for part, file in files.items()
            if file.exists()
        )

    first = name, items, paths, _categories(copy, items)
    compatibility = questions(COMPATIBILITY, read_compatibility)
    parts = outfits, compatibility, questions(BLANKS, read_blanks)
    return Outfits(*first, *parts, copy.home, **_attributes(copy, items))


def require_attributes(outfits: Outfits) -> None:
    """Raise FileNotFoundError, naming the missing file, where there are no attributes."""
    if outfits.attributes is None:
        copy = Copy(outfits.name, TREE, outfits.root)
        copy.require(copy.at("polyvore_attributes.json"))


def read_categories(file: Path) -> list[tuple[str, str, str]]:
    """The lines "id,fine category,semantic category" of ``categories.csv``; most ids have several.
    Raises ValueError for a line with fewer fields."""
    rows = []
    for place, (line,) in read_rows(file, 1):
        key, *fine = (field.strip() for field in line.split(","))
        if len(fine) < 2:
            expected = "expected id,fine category,semantic category"
            raise ValueError(f"{place}: {expected}, found '{shown(line)}'")
        rows.append((key, ",".join(fine[:-1]), fine[-1]))
    return rows


def _categories(copy: Copy, items: list[str]) -> list[str | None] | None:
    """Each item's semantic category: its own, or that of its id where all lines agree."""
    metadata, by_id = copy.at("polyvore_item_metadata.json"), copy.at("categories.csv")
    if not metadata.exists():
        return None
    of_id: dict[str, set[str]] = {}
    for key, _, semantic in read_categories(by_id) if by_id.exists() else []:
        of_id.setdefault(key, set()).add(semantic)
    agreed = {key: semantics.pop() for key, semantics in of_id.items() if len(semantics) == 1}
    of_item, categories = read_json(metadata, dict), []
    for item in items:
        entry = of_item.get(item, {})
        if not isinstance(entry, dict):
            raise ValueError(f"{metadata} item {shown(item)}: expected a dict of what is known")
        own, key = entry.get("semantic_category") or "", entry.get("category_id")
        if not isinstance(own, str) or not isinstance(key, (str, int, type(None))):
            raise ValueError(f"{metadata} item {shown(item)}: expected its category as text")
        categories.append((own or agreed.get(str(key), "")).strip() or None)
    return categories


def _attributes(copy: Copy, items: list[str]) -> dict:
    """From {"annotations": {item: [numbers of its attributes, from 0]}, "attributes": [names]}."""
    file = copy.at("polyvore_attributes.json")
    if not file.exists():
        return {}
    content = read_json(file, dict)
    annotations, attributes = content.get("annotations"), content.get("attributes")
    if not isinstance(annotations, dict) or not isinstance(attributes, (list, dict)):
        there = ", ".join(content) or "nothing"
        expected = "expected annotations (by item) and attributes"
        raise ValueError(f"{file}: {expected}, found {shown(there)}")
    names = _attribute_names(file, attributes, copy.at("attribute_list.txt"))
    if copy.name == "polyvore" and len(names) != OFFICIAL_ATTRIBUTES:
        published = f"the published one {OFFICIAL_ATTRIBUTES}"
        warnings.warn(
            f"{copy.name}: {file.name} has {len(names)} attributes, {published}", stacklevel=3
        )
    known = {row: annotations[item] for row, item in enumerate(items) if item in annotations}
    if not known:
        none = f"none of its {len(annotations):,} items is in an outfit"
        raise ValueError(f"{file}: {none}; they are of another release")
    values = np.full((len(items), len(names)), np.nan, np.float32)
    for row, present in known.items():
        integers = isinstance(present, list) and all(type(number) is int for number in present)
        if not integers or not all(0 <= number < len(names) for number in present):
            expected = f"expected numbers of 0 .. {len(names) - 1}"
            found = reprlib.repr(present)
            raise ValueError(f"{file} item {shown(items[row])}: {expected}, found {found}")
        values[row] = 0
        values[row, present] = 1
    return {"attributes": torch.from_numpy(values), "attribute_names": names}


def _attribute_names(file: Path, attributes: list | dict, list_file: Path) -> list[str]:
    """In the order of their numbers: the annotations' own names, or where these are no plain list,
    those of ``attribute_list.txt``; where both are there, they hold the same in whichever order."""
    listed = [name for _, (name,) in read_rows(list_file, 1)] if list_file.exists() else None
    if listed is not None and len(listed) != len(attributes):
        counts = f"{len(attributes)} attributes, but {list_file} names {len(listed)}"
        raise ValueError(f"{file}: {counts}; the two are not of one release")
    if not isinstance(attributes, list) or not all(isinstance(each, str) for each in attributes):
        return listed or [f"attribute {number}" for number in range(1, len(attributes) + 1)]
    if unlisted := sorted(set(attributes).difference(listed or attributes)):
        not_in = f"attribute '{shown(unlisted[0])}' is not in {list_file}"
        raise ValueError(f"{file}: {not_in}; the two are not of one release")
    return attributes
