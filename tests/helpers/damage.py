"""Damaging the annotation files of small trees, at random but repeatably, and judging what a layout
makes of each: it is read, or refused in one line that names the file."""

import random
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from fieldmarks.data import catalog
from fieldmarks.data.imageset import ImageSet
from fieldmarks.data.layouts import mat, polyvore
from helpers import layout_trees as trees

ODD_NUMBERS = [b"-1", b"0", b"2.5", b"nan", b"inf", b"-inf", b"1e999", b"1e300", b"", b"x", b"true"]
ODD_NUMBERS += [b"1000000000", b"9223372036854775808", b"9" * 10_000, b"4294967298", b"null", b"[]"]
ODD_WORDS = [
    b"../../x",
    b"/etc/passwd",
    b"..",
    b"\0",
    b"a\0b",
    b"\xe9\xff",
    b"C:\\x",
    b"\xe2\x80\xa8",
]
ODD_WORDS += [b'"', b"{}", b"\\ud800", b"a\\nb", b"x" * 100_000, b"." * 300, b"images.txt"]


def _spliced(data: bytes, at: int, new: bytes, over: int = 0) -> bytes:
    return data[:at] + new + data[at + over :]


def _token(data: bytes, draw: random.Random, kinds: bytes, instead: list[bytes]) -> bytes:
    """One run of bytes of these kinds replaced."""
    starts = [at for at in range(len(data)) if data[at] in kinds]
    if not starts:
        return draw.choice(instead)
    first = last = draw.choice(starts)
    while first and data[first - 1] in kinds:
        first -= 1
    while last < len(data) and data[last] in kinds:
        last += 1
    return _spliced(data, first, draw.choice(instead), last - first)


def _byte_changed(data: bytes, draw: random.Random) -> bytes:
    for _ in range(draw.choice((1, 1, 3))):
        at = draw.randrange(len(data))
        data = _spliced(data, at, draw.randbytes(1), 1)
    return data


def _lines(data: bytes, draw: random.Random, change: Callable[[list], None]) -> bytes:
    lines = data.splitlines(keepends=True)
    change(lines)
    return b"".join(lines)


DIGITS, WORD = b"0123456789", bytes(set(range(33, 127)) - set(b'",:[]{}'))
ANY: dict[str, Callable[[bytes, random.Random], bytes | None]] = {
    "byte changed": _byte_changed,
    "cut short": lambda data, draw: data[: draw.randrange(len(data))],
    "bytes inserted": lambda data, draw: _spliced(
        data, draw.randrange(len(data)), draw.randbytes(draw.randrange(1, 9))
    ),
    "emptied": lambda data, draw: b"",
    "folder": lambda data, draw: None,
}
TEXT = ANY | {
    "lines shuffled": lambda data, draw: _lines(data, draw, draw.shuffle),
    "line doubled": lambda data, draw: _lines(
        data, draw, lambda lines: lines.append(draw.choice(lines))
    ),
    "line removed": lambda data, draw: _lines(
        data, draw, lambda lines: lines.pop(draw.randrange(len(lines)))
    ),
    "number replaced": lambda data, draw: _token(data, draw, DIGITS, ODD_NUMBERS),
    "word replaced": lambda data, draw: _token(data, draw, WORD, ODD_WORDS + ODD_NUMBERS),
    "field added": lambda data, draw: data.replace(b"\n", b" 7\n", 1),
    "CRLF": lambda data, draw: data.replace(b"\n", b"\r\n"),
    "byte-order mark": lambda data, draw: b"\xef\xbb\xbf" + data,
    "UTF-16": lambda data, draw: data.decode().encode("utf-16"),
    "nested deeply": lambda data, draw: _spliced(data, draw.randrange(len(data)), b"[" * 100_000),
}


def _cub_without_image_attributes(folder: Path) -> Path:
    home = trees.cub_tree(folder)
    (home / "attributes" / "image_attribute_labels.txt").unlink()
    (home.parent / "attributes.txt").unlink()
    file = home / "attributes" / "class_attribute_labels_continuous.txt"
    trees.write(file, "0 50 100", "1 1 1", "25.0 -1 5e1", "10 20 30")
    return home


def _cub_without_attribute_names(folder: Path) -> Path:
    home = trees.cub_tree(folder)
    (home.parent / "attributes.txt").unlink()
    return home


def _food101_by_json(folder: Path) -> Path:
    home = trees.food101_tree(folder)
    for name in ("classes.txt", "train.txt", "test.txt"):
        (home / "meta" / name).unlink()
    return home


def _food101_by_text(folder: Path) -> Path:
    home = trees.food101_tree(folder)
    for name in ("labels.txt", "train.json", "test.json"):
        (home / "meta" / name).unlink()
    return home


def _polyvore(folder: Path) -> Path:
    home = trees.polyvore_tree(folder)
    trees.write(home / "attribute_list.txt", "knee length", "lace", "blue")
    return home


# What writes a tree, and what loads it.
LAYOUTS: dict[str, tuple[Callable[[Path], Path], Callable]] = {
    "cub": (trees.cub_tree, partial(catalog.load, "cub")),
    "cub by classes": (_cub_without_image_attributes, partial(catalog.load, "cub")),
    "cub without names": (_cub_without_attribute_names, partial(catalog.load, "cub")),
    "nabirds": (trees.nabirds_tree, partial(catalog.load, "nabirds")),
    "aircraft": (trees.aircraft_tree, partial(catalog.load, "aircraft")),
    "inshop": (trees.inshop_tree, partial(catalog.load, "inshop")),
    "vegfru": (trees.vegfru_tree, partial(catalog.load, "vegfru")),
    "food101": (_food101_by_text, partial(catalog.load, "food101")),
    "food101 by json": (_food101_by_json, partial(catalog.load, "food101")),
    "polyvore": (_polyvore, partial(polyvore.load, name="wardrobe")),
    "cars": (trees.cars_tree, partial(catalog.load, "cars")),
    "cars as first published": (trees.cars_first_published_tree, partial(catalog.load, "cars")),
}


def annotations(home: Path) -> list[Path]:
    files = [*home.rglob("*"), *home.parent.glob("attributes.txt")]
    unread = ("images_variant_trainval.txt",)
    return sorted(f for f in files if f.suffix != ".jpg" and f.is_file() and f.name not in unread)


def judge(load: Callable, root: Path, file: Path) -> str:
    """ "read" or "refused". Raises AssertionError for all else, the error itself as its cause."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loaded = load(root)
    except (ValueError, OSError) as error:
        first, *tree = str(error).splitlines()
        assert type(error) is ValueError or isinstance(error, OSError), repr(error)
        assert file.name in first and len(first) < 2_000 and first.isprintable(), repr(error)[:3000]
        expected = isinstance(error, FileNotFoundError) and first.endswith("Expected:")
        assert not tree or (expected and len(tree) < 15), repr(error)[:3000]
        return "refused"
    except Exception as error:
        raise AssertionError(f"{type(error).__name__}: {str(error)[:1000]}") from error
    (_hold_images if isinstance(loaded, ImageSet) else _hold_outfits)(loaded)
    return "read"


def _hold_images(images: ImageSet) -> None:
    replace(images)  # checks the lengths and shapes again
    assert len(images) and len(images.fingerprint) == 16 and repr(images)
    assert (images.class_counts() > 0).all() and len(images.class_names) == images.labels.max() + 1
    assert all(path.is_relative_to(images.root) and ".." not in path.parts for path in images.paths)
    for values in (images.boxes, images.parts):
        assert values is None or not values.isinf().any()
    if images.attributes is not None:
        known = images.attributes[~images.attributes.isnan()]
        assert ((known >= 0) & (known <= 1)).all() and images.attributes.shape[1] <= 10_000


def _hold_outfits(outfits: polyvore.Outfits) -> None:
    replace(outfits)
    assert len(outfits.fingerprint) == 16 and repr(outfits)
    assert all(path.parent.parent == outfits.root for path in outfits.paths)
    rows = [row for part in outfits.outfits.values() for outfit in part for row in outfit]
    rows += [r for part in outfits.compatibility.values() for q in part for r in q.items]
    rows += [r for part in outfits.blanks.values() for q in part for r in q.question + q.choices]
    assert all(type(row) is int and 0 <= row < len(outfits) for row in rows)
    assert all(0 <= q.answer < len(q.choices) for part in outfits.blanks.values() for q in part)
    if outfits.attributes is not None:
        assert torch.isin(outfits.attributes.nan_to_num(0), torch.tensor([0.0, 1.0])).all()


@contextmanager
def damaged(file: Path, data: bytes | None) -> Iterator[None]:
    """The file with other content, or None: as a folder. As it was, afterwards."""
    before = file.read_bytes()
    file.unlink()
    if data is None:
        file.mkdir()
    else:
        file.write_bytes(data)
    try:
        yield
    finally:
        if data is None:
            file.rmdir()
        file.write_bytes(before)


def fuzz(layout: str, count: int, seed: int) -> tuple[Counter, list[str]]:
    """Damage a layout's files `count` times: {(kind, "read" | "refused" | "failed"): times}, and
    what failed. A .mat file whose reader crashed counts as "crashed" too, beside its "refused"."""
    make, load = LAYOUTS[layout]
    draw, counts, failures = random.Random(f"{layout} {seed}"), Counter(), []
    with TemporaryDirectory() as folder:
        home = make(Path(folder).resolve())
        files = annotations(home)
        assert judge(load, home, home) == "read"
        cases = []
        for number in range(count):
            file = files[number % len(files)]
            kind = draw.choice(list(ANY if file.suffix == ".mat" else TEXT))
            cases.append((file, kind, (ANY | TEXT)[kind](file.read_bytes(), draw)))
        with read_at_once(files, [data for file, _, data in cases if file.suffix == ".mat"]) as of:
            for number, (file, kind, data) in enumerate(cases):
                with damaged(file, data):
                    try:
                        counts[kind, judge(load, home, file)] += 1
                    except AssertionError as fault:
                        counts[kind, "failed"] += 1
                        failures.append(f"{layout} {number} {file.name}, {kind}: {fault}")
                counts[kind, "crashed"] += of.get(data) == "the reader crashed"
    return counts, failures


@contextmanager
def read_at_once(files: list[Path], damages: Sequence[bytes | None] = ()) -> Iterator[dict]:
    """Within, the .mat files and others of these contents have been read already, by one process:
    {content: what came of it}."""
    whole = [file.read_bytes() for file in files if file.suffix == ".mat"]
    contents = list(dict.fromkeys([*whole, *damages])) if whole else []
    with TemporaryDirectory() as folder:
        places = [Path(folder) / f"{row}.mat" for row in range(len(contents))]
        for place, data in zip(places, contents, strict=True):
            place.mkdir() if data is None else place.write_bytes(data)
        known = dict(zip(contents, _in_batches(places), strict=True))
    read_all = mat.read_all
    mat.read_all = lambda given: [known[None if f.is_dir() else f.read_bytes()] for f in given]
    try:
        yield known
    finally:
        mat.read_all = read_all


def _in_batches(places: list[Path], size: int = 300) -> list:  # a command line has its limits
    return [c for at in range(0, len(places), size) for c in mat.read_all(places[at : at + size])]
