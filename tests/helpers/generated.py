"""What the tests of drawn data share: digests, a strict reader of Polyvore's files, lettering."""

import hashlib
import json
import re
from itertools import combinations
from pathlib import Path

from PIL import ImageDraw


def digest(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


# ---- a strict reader of Polyvore's files


def read_outfits(folder: Path, split: str) -> dict[str, list[str]]:
    """set_id -> its item ids in order; every token "set_index" must be one of them."""
    outfits = {}
    for entry in json.loads((folder / f"{split}.json").read_text()):
        assert set(entry) == {"items", "set_id"} and isinstance(entry["set_id"], str)
        assert [item["index"] for item in entry["items"]] == list(range(1, len(entry["items"]) + 1))
        assert all(
            set(item) == {"item_id", "index"} and isinstance(item["item_id"], str)
            for item in entry["items"]
        )
        outfits[entry["set_id"]] = [item["item_id"] for item in entry["items"]]
    return outfits


def resolve(token: str, outfits: dict[str, list[str]]) -> str:
    set_id, index = re.fullmatch(r"(\d+)_([1-9]\d*)", token).groups()
    return outfits[set_id][int(index) - 1]


def read_lines(file: Path, outfits) -> list[tuple[int, list[str], list[str]]]:
    """(label, tokens, item ids) of a compatibility file."""
    entries = []
    for line in file.read_text().splitlines():
        label, *tokens = line.split()
        gap = " " if label == "1" or "harder" in file.name else "  "
        assert label in ("0", "1") and line == f"{label}{gap}{' '.join(tokens)}"
        entries.append((int(label), tokens, [resolve(token, outfits) for token in tokens]))
    return entries


def semantic_of(root: Path) -> dict[str, str]:
    return {
        item: entry["semantic_category"]
        for item, entry in json.loads((root / "polyvore_item_metadata.json").read_text()).items()
    }


# ---- lettering


def texts_drawn(monkeypatch) -> list[tuple[str, tuple[float, float, float, float]]]:
    """A list that each text drawn from now on joins, with its box: left, top, right, bottom."""
    texts, draw = [], ImageDraw.ImageDraw.text

    def noted(self, place, text, fill=None, font=None, anchor=None):
        texts.append((text, self.textbbox(place, text, font, anchor=anchor)))
        draw(self, place, text, fill, font, anchor)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", noted)
    return texts


def assert_legible(texts, picture) -> None:
    """All texts lie on the picture, and none on another."""
    height, width, _ = picture.shape
    for text, (left, top, right, bottom) in texts:
        assert 0 <= left and 0 <= top and right <= width and bottom <= height, text
    for (one, first), (other, second) in combinations(texts, 2):
        apart = first[2] <= second[0] or second[2] <= first[0]
        assert apart or first[3] <= second[1] or second[3] <= first[1], (one, other)
