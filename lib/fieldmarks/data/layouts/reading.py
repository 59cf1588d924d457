"""What the layouts share: finding folders, reading lists, saying what is missing."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
import torch

# ---- what is there


def existing_folder(root: Path, name: str, tree: str) -> Path:
    """`root` as an absolute path. Raises FileNotFoundError, one line and the expected tree, where it is no folder."""
    root = Path(root).expanduser().absolute()
    if not root.is_dir():
        raise FileNotFoundError(f"{name}: there is no folder {root}. Expected:\n{tree}")
    return root


def find_home(
    root: Path, name: str, tree: str, marker: str | Sequence[str], below: Sequence[str]
) -> Path:
    """The folder that holds `marker`, or one of several: `root` itself, or one of the folders `below` it.

    Raises:
        FileNotFoundError: none does; the message names the file in the likeliest place and shows the expected tree.
    """
    root = existing_folder(root, name, tree)
    places = [root, *(root / folder for folder in below)]
    markers = [marker] if isinstance(marker, str) else marker
    for place in places:
        if any((place / file).is_file() for file in markers):
            return place
    likeliest = next((place for place in places[1:] if place.is_dir()), root)
    raise missing(name, tree, [likeliest / markers[0]])


def missing(
    name: str, tree: str, files: Sequence[Path], of: int | None = None
) -> FileNotFoundError:
    """The error for files that are not there: the first by name, how many, then the expected tree."""
    more = (
        ""
        if len(files) == 1 and of is None
        else f" ({len(files):,} of {of or len(files):,} files are missing)"
    )
    return FileNotFoundError(f"{name}: {files[0]} is missing{more}. Expected:\n{tree}")


def require_files(name: str, tree: str, files: Sequence[Path]) -> None:
    """Raise FileNotFoundError where any of `files` is missing, ValueError where there are none.

    Lists each folder once instead of asking file by file, which on a network drive takes minutes.
    """
    if not files:
        raise ValueError(f"{name}: the lists name no images")
    listed: dict[str, set[str]] = {}
    absent = []
    for file in files:
        folder, base = os.path.split(file)
        if folder not in listed:
            listed[folder] = set(os.listdir(folder)) if os.path.isdir(folder) else set()
        if base not in listed[folder]:
            absent.append(file)
    if absent:
        raise missing(name, tree, absent, of=len(files))


# ---- what the lists say


def read_words(file: Path, fields: int, skip: int = 0) -> list[tuple[int, list[str]]]:
    """Lines of `fields` words as (line number, words); the last word keeps its spaces. Blank lines are passed over.

    Raises:
        ValueError: a line with fewer words, with the file and the line number.
    """
    rows = []
    for number, line in _lines(file, skip):
        words = line.split(maxsplit=fields - 1)
        if len(words) < fields:
            raise ValueError(
                f"{file} line {number}: expected {fields} fields, found {len(words)}: {line!r}"
            )
        rows.append((number, words))
    return rows


def _lines(file: Path, skip: int = 0) -> Iterator[tuple[int, str]]:
    """(line number, line) of the lines that are not blank."""
    with open(file, encoding="utf-8-sig", errors="surrogateescape") as lines:
        for number, line in enumerate(lines, start=1):
            line = line.strip()
            if line and number > skip:
                yield number, line


def read_values(file: Path, keys: Sequence[str], listed_in: Path) -> list[tuple[int, str]]:
    """A list of lines "key value", one a key, as (line number, value) in the order of `keys`; a value keeps its spaces.

    Raises:
        ValueError: a line without a value, or as `rows_of`.
    """
    rows = read_words(file, 2)
    order = rows_of(file, keys, [words[0] for _, words in rows], listed_in)
    return [(rows[row][0], rows[row][1][1]) for row in order]


def whole(file: Path, number: int, word: str) -> int:
    """A word of a line as a whole number; ValueError, with the file and the line number, where it is none."""
    try:
        return int(word)
    except ValueError:
        raise ValueError(f"{file} line {number}: expected a whole number, found {word!r}") from None


def read_json(file: Path, kind: type):
    """The content of a JSON file, of which the outermost value must be a `kind` (list or dict).

    Raises:
        ValueError: no JSON, with the line, or another kind.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except ValueError as error:  # a UnicodeDecodeError is one too
        raise ValueError(f"{file}: not readable JSON ({error})") from None
    if not isinstance(content, kind):
        raise ValueError(f"{file}: expected a {kind.__name__}, found a {type(content).__name__}")
    return content


def read_numbers(file: Path, columns: int, dtype=np.float64) -> np.ndarray:
    """A list of numbers, (rows, columns); fields beyond `columns` are ignored, as CUB's attribute list needs.

    Raises:
        ValueError: a line that is short or holds something that is no number, with the file and the line number.
    """
    try:
        # usecols lets the C reader pass over extra fields, which it would refuse otherwise.
        table = pd.read_csv(
            file,
            sep=r"\s+",
            header=None,
            names=range(columns),
            usecols=range(columns),
            index_col=False,
            dtype=dtype,
            encoding="utf-8-sig",
            engine="c",
        ).to_numpy()
        if np.isfinite(table).all():
            return table
    except pd.errors.EmptyDataError:
        return np.empty((0, columns), dtype)
    except (ValueError, OverflowError):  # a ParserError is a ValueError too
        pass
    return _read_numbers_slowly(file, columns, dtype)


def _read_numbers_slowly(file: Path, columns: int, dtype) -> np.ndarray:
    """As `read_numbers`, line by line, to find the line that is at fault."""
    whole = np.issubdtype(dtype, np.integer)
    table = []
    for number, line in _lines(file):
        words = line.split()[:columns]
        if len(words) < columns:
            raise ValueError(
                f"{file} line {number}: expected {columns} fields, found {len(words)}: {line!r}"
            )
        try:
            values = [float(word) for word in words]
        except ValueError:
            values = [math.nan]
        if not all(map(math.isfinite, values)) or (
            whole and not all(map(float.is_integer, values))
        ):
            raise ValueError(
                f"{file} line {number}: expected {columns} {'whole ' if whole else ''}numbers, "
                f"found {' '.join(words)!r}"
            )
        table.append(values)
    return np.array(table, dtype).reshape(-1, columns)


def line_of(file: Path, row: int) -> int:
    """The line number of the row-th line (counted from 0) that is not blank."""
    return next(islice(_lines(file), row, None))[0]


def rows_of(file: Path, keys: Iterable, found: Sequence, listed_in: Path) -> np.ndarray:
    """For each key its row in `found`, (len(keys),) whole numbers; every key must be there once, and no other.

    Raises:
        ValueError: a key twice or one that `listed_in` does not list (with the line), or a key without a line.
    """
    index, wanted = pd.Index(found), pd.Index(keys)
    if index.has_duplicates:
        row = int(np.flatnonzero(index.duplicated())[0])
        raise ValueError(f"{file} line {line_of(file, row)}: {index[row]} is listed a second time")
    strangers = np.flatnonzero(wanted.get_indexer(index) < 0)
    if len(strangers):
        raise ValueError(
            f"{file} line {line_of(file, strangers[0])}: {index[strangers[0]]} is not in {listed_in}"
        )
    rows = index.get_indexer(wanted)
    if (rows < 0).any():
        absent = np.flatnonzero(rows < 0)
        line = line_of(listed_in, absent[0])
        raise ValueError(
            f"{file}: {len(absent):,} entries are missing, first {wanted[absent[0]]} of {listed_in} "
            f"line {line}"
        )
    return rows


def compact(ids: Sequence, names: dict) -> tuple[torch.Tensor, list[str]]:
    """Labels 0 .. C-1 and the C names of the classes that have images, in the order of `names` (id -> name)."""
    used = set(ids)
    kept = [key for key in names if key in used]
    label_of = {key: label for label, key in enumerate(kept)}
    return torch.tensor([label_of[key] for key in ids], dtype=torch.long), [
        names[key] for key in kept
    ]
