"""What the layouts share: a data set's folder, its lists, errors that name the file and line."""

import csv
import json
import os
import re
import reprlib
from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import cache, partial
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd
import torch

from fieldmarks.data.imageset import ImageSet

DEPTH = 3  # levels of folders below the root down to which a copy is looked for
# The folders of a level that are looked into, and the entries of one: one with more holds images or
# classes. On a network drive each costs a millisecond or more.
MOST = 200
LARGEST = 2**53  # a number beyond is damage; whole ones are no longer exact there

Key = TypeVar("Key", bound=Hashable)
leaves_its_folder = re.compile(r"[/\\]|[A-Za-z]:[/\\]|(.*[/\\])?\.\.([/\\]|$)", re.DOTALL).match


class Copy:
    """A copy of a data set on disk. Its folder `home` is the nearest one, `root` or up to DEPTH
    levels below, that has one of the `markers` (files or folders); where `root` holds a folder of
    the official name, with which `tree` begins, it is looked for in there first. `name` and `tree`,
    the files that it should have, are for messages. With `absent`, some of the images may be.

    Raises FileNotFoundError, with the tree, where there is no such folder or none with a marker,
    ValueError where two are equally near."""

    def __init__(self, name: str, tree: str, root: Path, markers: Sequence = (), absent=False):
        self.name, self.tree, self.absent = name, tree, absent
        root = self.home = Path(root).expanduser().absolute()
        if not root.is_dir():
            raise FileNotFoundError(f"{name}: there is no folder {root}. Expected:\n{tree}")
        official = root / tree.partition("/")[0].strip()
        for top, depth in ((root, 0), (official, DEPTH - 1), (root, DEPTH)) if markers else ():
            found = _nearest(top, markers, depth)
            different = list({os.path.realpath(folder): folder for folder in found}.values())
            if len(different) > 1:
                two = f"one copy is in {different[0]} and one in {different[1]}"
                raise ValueError(f"{name}: {two}; give the folder of one of them")
            if found:
                self.home = found[0]
                return
        if markers:
            raise self._missing((official if official.is_dir() else root) / markers[0])

    def at(self, *places: str) -> Path:
        """The first of these places in `home` where there is a file or folder, or else the first
        of them."""
        files = [inside(self.home, place) for place in places]
        return next((file for file in files if file.exists()), files[0])

    def paths(self, listed: Iterable[tuple[str, str]], folder: str = "", suffix="") -> list[Path]:
        """The files that the (place, name) of a list mean: those in `folder`, or without one those
        in the folder that each name begins with. Raises ValueError as `relative`."""
        within, paths = cache(partial(inside, self.home)), []
        for place, name in listed:
            top, _, rest = relative(place, name).partition("/")
            paths.append(within(folder) / (name + suffix) if folder else within(top) / rest)
        return paths

    def require(self, *files: Path) -> None:
        """Raise FileNotFoundError where one of these lists is missing."""
        if missing := [file for file in files if not file.exists()]:
            raise self._missing(missing[0])

    def require_images(self, paths: Sequence[Path], places: Sequence[str], file: Path) -> None:
        """Raise FileNotFoundError where one of the `paths` is missing that `places` list, or with
        `absent` where all are; ValueError where `file` lists none. Lists each folder once: asking
        file by file takes minutes on a network drive."""
        if not paths:
            raise ValueError(f"{file}: the lists name no images")
        listing = cache(lambda top: set(os.listdir(top)) if os.path.isdir(top) else set())
        split = [os.path.split(path) for path in paths]
        missing = [row for row, (top, base) in enumerate(split) if base not in listing(top)]
        if len(missing) == len(paths) or (missing and not self.absent):
            first, count = missing[0], f"{len(missing):,} of {len(paths):,} files are missing"
            more = f", listed in {places[first]} ({count})"
            if len(missing) < len(paths):
                more += "; unpack them, or go on without them: unreadable = 'leave_out'"
            raise self._missing(paths[first], more)

    def _missing(self, file: Path, more: str = "") -> FileNotFoundError:
        line = f"{self.name}: {shown(str(file), 1000)} is missing{more}"
        return FileNotFoundError(f"{line}. Expected:\n{self.tree}")

    def images(self, paths: list[Path], class_ids: list, names: dict, kind=ImageSet, **fields):
        """The set of these images; the classes of `names` (id -> name) that have any are its
        classes, in that order."""
        used = set(class_ids)
        label_of = {key: label for label, key in enumerate(key for key in names if key in used)}
        labels = torch.tensor([label_of[key] for key in class_ids], dtype=torch.long)
        class_names = [names[key] for key in label_of]
        return kind(self.name, paths, labels, class_names, root=self.home, **fields)


def inside(home: Path, place: str) -> Path:
    """`place` ("Anno/attributes") in a folder. Unpacking img.zip may make img/img/: a folder with
    one of its own name in it stands for that one."""
    for name in place.split("/"):
        home = home / name
        if os.path.isdir(home / name):
            home = home / name
    return home


def _nearest(top: Path, markers: Sequence[str], depth: int) -> list[Path]:
    """The folders with a marker on the first level that has any, down to `depth` below `top`."""
    level = [top]
    for below in range(depth + 1):
        if found := [f for f in level if any(os.path.exists(inside(f, m)) for m in markers)]:
            return found
        if below < depth:
            level = [inner for folder in level for inner in _folders(folder, folder == top)][:MOST]
    return []


def _folders(folder: Path, any_number: bool) -> list[Path]:
    """The folders in one, by name, but for hidden ones and the one that macOS puts into archives.
    None where it cannot be read, or where it has too many entries to be other than images."""
    try:
        with os.scandir(folder) as entries:
            seen = list(islice(entries, None if any_number else MOST + 1))
    except OSError:
        return []
    inner = [e.name for e in seen if e.name[0] != "." and e.name != "__MACOSX" and e.is_dir()]
    return [folder / name for name in sorted(inner)] if any_number or len(seen) <= MOST else []


def relative(place: str, name: str) -> str:
    """`name`, if it is the name of a file below a folder. Raises ValueError where it leaves that
    folder or no file can bear it."""
    try:
        fits = "\0" not in name and os.fsencode(name) and not leaves_its_folder(name)
    except UnicodeEncodeError:
        fits = False
    if not fits:
        raise ValueError(f"{place}: expected a file in the folder of images, found '{shown(name)}'")
    return name


def shown(text: str, most: int = 200) -> str:
    """`text` from a file as it can stand in a message: in one line, not too long."""
    short = text if len(text) <= most else f"{text[:most]}..."
    return short if short.isprintable() else repr(short)[1:-1]


def read_rows(file: Path, fields: int, skip: int = 0) -> list[tuple[str, list[str]]]:
    """(place, fields) of each line that is not blank, after `skip` lines of header. `place` is
    "FILE line NUMBER"; the last field keeps its spaces. Text that is not UTF-8 is kept as file
    names are (surrogateescape). Raises ValueError for fewer fields or NUL characters."""
    rows, line_of = [], f"{file} line"
    with open(file, encoding="utf-8-sig", errors="surrogateescape") as lines:
        for number, line in enumerate(lines, start=1):
            values = line.strip().split(maxsplit=fields - 1)
            if not values or number <= skip:
                continue
            place = f"{line_of} {number}"
            if "\0" in line:
                raise ValueError(f"{place}: there are NUL characters; it should be UTF-8 text")
            if len(values) < fields:
                short = f"found {len(values)}: '{shown(line.strip())}'"
                raise ValueError(f"{place}: expected {fields} fields, {short}")
            rows.append((place, values))
    return rows


def once(entries: Iterable[tuple[str, Key]]) -> dict[Key, str]:
    """{key: place} of (place, key). Raises ValueError where a key is listed twice."""
    places: dict[Key, str] = {}
    for place, key in entries:
        if key in places:
            again = f"is listed a second time, after {places[key]}"
            raise ValueError(f"{place}: {shown(str(key))} {again}")
        places[key] = place
    return places


def number(place: str, value, integer: bool = False) -> float:
    """A field, text or already a number, as a number below LARGEST. Raises ValueError where it is
    none."""
    try:
        result = float(value)
    except (ValueError, TypeError, OverflowError):
        result = LARGEST
    if not abs(result) < LARGEST or (integer and not result.is_integer()):
        found = f"'{shown(value)}'" if isinstance(value, str) else reprlib.repr(value)
        raise ValueError(f"{place}: expected a {'whole ' * integer}number, found {found}")
    return int(result) if integer else result


to_int: Callable[..., int] = partial(number, integer=True)


def read_table(file: Path, columns: int, dtype=np.float64) -> np.ndarray:
    """A list of numbers, (rows, columns), of `dtype` or a wider one. Fields beyond `columns` are
    ignored: CUB's list of attributes has some. Raises ValueError for a line that is short or holds
    no numbers."""
    # usecols lets the C reader pass over extra fields, which it would refuse otherwise.
    options = {"names": range(columns), "usecols": range(columns), "index_col": False}
    options |= {"encoding": "utf-8-sig", "quoting": csv.QUOTE_NONE}
    try:
        table = pd.read_csv(file, sep=r"\s+", dtype=dtype, **options).to_numpy()
        if (np.abs(table) < LARGEST).all():
            return table
    except (ValueError, OverflowError):  # line by line, to name the one at fault
        pass
    integer = np.issubdtype(dtype, np.integer)
    convert, rows = partial(number, integer=integer), []
    for place, values in read_rows(file, columns):
        rows.append([convert(place, text) for text in " ".join(values).split()[:columns]])
    return np.array(rows, np.int64 if integer else np.float64).reshape(-1, columns)


def check(file: Path, wrong: np.ndarray, reason: str) -> None:
    """Raise ValueError for the first row of a list of numbers where `wrong` (rows,) holds."""
    if wrong.any():
        place, (line,) = read_rows(file, 1)[int(wrong.argmax())]
        raise ValueError(f"{place}: {reason}: '{shown(line)}'")


def read_json(file: Path, kind: type):
    """The content of a JSON file. Raises ValueError for no JSON, or another outermost `kind`."""
    try:
        text = file.read_text(encoding="utf-8-sig")
        content = json.loads(text, parse_constant=_refuse)
    except ValueError as error:  # a UnicodeDecodeError is one too
        raise ValueError(f"{file}: not readable JSON ({error})") from None
    except RecursionError:
        raise ValueError(f"{file}: not readable JSON (it is nested too deeply)") from None
    if not isinstance(content, kind):
        raise ValueError(f"{file}: expected a {kind.__name__}, found a {type(content).__name__}")
    return content


def _refuse(constant: str):
    raise ValueError(f"{constant} is no number")
