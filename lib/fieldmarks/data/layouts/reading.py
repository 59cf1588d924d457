"""What the layouts share: a data set's folder, its lists, errors that name the file and line."""

import json
import math
import os
from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import cache, partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from fieldmarks.data.imageset import ImageSet


class Copy:
    """A copy of a data set on disk, in its folder `home`: that is `root` or one of the places
    `below` it, whichever has one of the `markers` (files or folders). `name` and `tree`, the files
    that it should have, are for messages. Raises FileNotFoundError, with the tree, where there is
    no such folder or none with a marker."""

    def __init__(self, name: str, tree: str, root: Path, markers: Sequence = (), below=()):
        self.name, self.tree = name, tree
        root = Path(root).expanduser().absolute()
        if not root.is_dir():
            raise FileNotFoundError(f"{name}: there is no folder {root}. Expected:\n{tree}")
        places = [root, *(root / folder for folder in below)]
        for place in places:
            if not markers or any((place / marker).exists() for marker in markers):
                self.home = place
                return
        likeliest = next((place for place in places[1:] if place.is_dir()), root)
        raise self._missing(likeliest / markers[0])

    def require(self, files: Sequence[Path]) -> None:
        """Raise FileNotFoundError where one of `files` is missing, ValueError where there are none.
        Lists each folder once: asking file by file takes minutes on a network drive."""
        if not files:
            raise ValueError(f"{self.name}: the lists name no images")
        listing = cache(lambda top: set(os.listdir(top)) if os.path.isdir(top) else set())
        places = [(file, *os.path.split(file)) for file in files]
        if absent := [file for file, top, base in places if base not in listing(top)]:
            more = f" ({len(absent):,} of {len(files):,} files are missing)"
            raise self._missing(absent[0], more)

    def _missing(self, file: Path, more: str = "") -> FileNotFoundError:
        return FileNotFoundError(f"{self.name}: {file} is missing{more}. Expected:\n{self.tree}")

    def images(self, paths: list[Path], class_ids: list, names: dict, kind=ImageSet, **fields):
        """The set of these images, which must be there; the classes of `names` (id -> name) that
        have any are its classes, in that order."""
        self.require(paths)
        used = set(class_ids)
        label_of = {key: label for label, key in enumerate(key for key in names if key in used)}
        labels = torch.tensor([label_of[key] for key in class_ids], dtype=torch.long)
        class_names = [names[key] for key in label_of]
        return kind(self.name, paths, labels, class_names, root=self.home, **fields)


def read_rows(file: Path, fields: int, skip: int = 0) -> list[tuple[str, list[str]]]:
    """(place, fields) of each line that is not blank, after `skip` lines of header. `place` is
    "FILE line NUMBER"; the last field keeps its spaces. Raises ValueError for fewer fields."""
    rows, line_of = [], f"{file} line"
    with open(file, encoding="utf-8-sig", errors="surrogateescape") as lines:
        for number, line in enumerate(lines, start=1):
            values = line.strip().split(maxsplit=fields - 1)
            if not values or number <= skip:
                continue
            place = f"{line_of} {number}"
            if len(values) < fields:
                short = f"found {len(values)}: {line.strip()!r}"
                raise ValueError(f"{place}: expected {fields} fields, {short}")
            rows.append((place, values))
    return rows


def once(entries: Iterable[tuple[str, Hashable]]) -> dict[Hashable, str]:
    """{key: place} of (place, key). Raises ValueError where a key is listed twice."""
    places: dict[Hashable, str] = {}
    for place, key in entries:
        if key in places:
            raise ValueError(f"{place}: {key} is listed a second time, after {places[key]}")
        places[key] = place
    return places


def number(place: str, text: str, integer: bool = False) -> float:
    """A field as a finite number. Raises ValueError where it is none."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or (integer and not value.is_integer()):
        raise ValueError(f"{place}: expected a {'whole ' * integer}number, found {text!r}")
    return int(value) if integer else value


to_int: Callable[[str, str], int] = partial(number, integer=True)


def read_table(file: Path, columns: int, dtype=np.float64) -> np.ndarray:
    """A list of numbers, (rows, columns). Fields beyond `columns` are ignored: CUB's list of
    attributes has some. Raises ValueError for a line that is short or holds no numbers."""
    # usecols lets the C reader pass over extra fields, which it would refuse otherwise.
    options = {"names": range(columns), "usecols": range(columns), "index_col": False}
    try:
        frame = pd.read_csv(file, sep=r"\s+", dtype=dtype, encoding="utf-8-sig", **options)
        if np.isfinite(table := frame.to_numpy()).all():
            return table
    except (ValueError, OverflowError):  # line by line, to name the one at fault
        pass
    convert = partial(number, integer=np.issubdtype(dtype, np.integer))
    rows = []
    for place, values in read_rows(file, columns):
        rows.append([convert(place, text) for text in " ".join(values).split()[:columns]])
    return np.array(rows, np.float64).reshape(-1, columns).astype(dtype)


def check(file: Path, wrong: np.ndarray, reason: str) -> None:
    """Raise ValueError for the first row of a list of numbers where `wrong` (rows,) holds."""
    if wrong.any():
        place, (line,) = read_rows(file, 1)[int(wrong.argmax())]
        raise ValueError(f"{place}: {reason}: {line!r}")


def read_json(file: Path, kind: type):
    """The content of a JSON file. Raises ValueError for no JSON, or another outermost `kind`."""
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except ValueError as error:  # a UnicodeDecodeError is one too
        raise ValueError(f"{file}: not readable JSON ({error})") from None
    if not isinstance(content, kind):
        raise ValueError(f"{file}: expected a {kind.__name__}, found a {type(content).__name__}")
    return content
