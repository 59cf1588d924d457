"""Counterfactual twins in a folder: pairs of pictures that differ in one known thing.

    make_twins(folder, pairs=1000, exchange="mark", classes=100, size=224, seed=0)

The same parameters and library versions give the same bytes; a pair comes from (seed, pair) alone,
so more pairs begin with the same ones. The species are those of the guide of the same classes, seed
and difficulty, and the garments those of the wardrobe of the same seed; the birds' pictures are in
no guide.

    first/000000.png, second/000000.png    the pair, to the bit
    changed/000000.png    0 or 255: where they differ at all
    part/000000.png       0 or 255: what shows the mark, as far as it is visible in either
    object/000000.png     0 or 255: the visible bird or garment of the first
    parts/000000.png      of birds: the parts of the first, indexed as in a guide
    twins.csv             a row for each pair: what is exchanged, how large the change is
    twins.json            parameters
"""

from __future__ import annotations

import csv
import json
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import cache, partial
from itertools import count
from multiprocessing import get_context
from pathlib import Path

import cv2
from PIL import Image

from fieldguide.birds.guide import part_palette
from fieldguide.birds.photographs import CONDITIONS, field_photograph
from fieldguide.birds.species import Species, make_species
from fieldguide.birds.twins import exchanges, scene_twin
from fieldguide.checks import one_of, whole_numbers
from fieldguide.exchange import SEEN, NoTwin, Twin, difference
from fieldguide.folders import write_atomically
from fieldguide.garments import twins as garments
from fieldguide.garments.attributes import Garment, make_garments
from fieldguide.garments.shots import SHOTS, photograph
from fieldguide.pictures import SIZE, SMALLEST, png
from fieldguide.streams import Streams

VERSION = 1  # raise it when the same parameters give other bytes
MANIFEST = "twins.json"
LOWEST = {"pairs": 1, "classes": 2, "size": SMALLEST, "seed": 0}
FIRST_IMAGE = 1_000_000  # the number of a pair's picture within its species: after any guide's own
COLUMNS = (
    "pair",  # the name of its files
    "class",  # of the species in its guide, from 1; of a garment, its number in its wardrobe
    "name",  # of the species, or what the garment is
    "image",  # which picture of it
    "mark",
    "part",  # names of the parts that show it, for birds
    "before",
    "after",
    "changed",  # share of the pixels that differ
    "seen",  # share of the pixels that differ visibly, by 16 grey levels or more
)


def make_twins(
    folder: Path | str,
    pairs: int = 1000,
    exchange: str = "mark",
    classes: int = 100,
    size: int = SIZE,
    seed: int = 0,
    difficulty: str = "standard",
    progress: Callable[[int, int], None] | None = None,
    workers: int = 1,
) -> Path:
    """Draws pairs of pictures into a folder and returns it.

    A folder that already holds these very pairs is returned as it is. They are written beside the
    folder and moved there when complete, so nothing half-written is left behind.

    Args:
        folder: new or empty.
        exchange: "mark" of a bird (a sibling's where there is one), "scene" behind a bird,
            "attribute" of a garment, "backdrop" of a garment in styled pictures.
        classes: species, or garments with "attribute" and "backdrop".
        size: pixels of a side.
        difficulty: of the guide of birds.
        progress: called as progress(done, total), in pictures, after each pair.
        workers: processes that draw; the files are the same for any number. A script that asks for
            several needs `if __name__ == "__main__"`, for they import it.

    Raises:
        ValueError: for parameters out of range or a place that cannot be written.
        FileExistsError: when the folder holds something else.
    """
    numbers = {"pairs": pairs, "classes": classes, "size": size, "seed": seed}
    parameters = whole_numbers(numbers, LOWEST)
    workers = whole_numbers({"workers": workers}, {"workers": 1})["workers"]
    one_of("exchange", exchange, _DRAW)
    one_of("difficulty", difficulty, CONDITIONS)
    parameters |= {"exchange": exchange, "difficulty": difficulty}
    return write_atomically(
        folder,
        MANIFEST,
        "set of twins",
        {"version": VERSION, **parameters},
        lambda root: _write(root, parameters, workers, progress),
    )


def _write(root: Path, parameters: dict, workers: int, progress) -> None:
    for kind in _kinds(parameters["exchange"]):
        (root / kind).mkdir()
    total = parameters["pairs"]
    with open(root / "twins.csv", "w", newline="") as file, _mapping(workers) as each:
        table = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        table.writeheader()
        for done, row in enumerate(each(partial(_write_pair, root, parameters), range(total)), 1):
            table.writerow(row)
            if progress is not None:
                progress(2 * done, 2 * total)
    manifest = {"version": VERSION, "parameters": parameters}
    (root / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")


def _kinds(exchange: str) -> tuple[str, ...]:
    """The folders of pictures."""
    kinds = ("first", "second", "changed", "part", "object")
    return (*kinds, "parts") if exchange in ("mark", "scene") else kinds


@contextmanager
def _mapping(workers: int) -> Iterator[Callable]:
    """`map`, by so many processes. They are not forked: a notebook's process has threads."""
    if workers == 1:
        yield map
        return
    pool = ProcessPoolExecutor(workers, get_context("spawn"), _begin)
    try:
        yield partial(pool.map, chunksize=4)
    finally:
        pool.shutdown(cancel_futures=True)


def _begin() -> None:
    cv2.setNumThreads(1)  # there are as many processes as wanted
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who started them stops them


def _write_pair(root: Path, parameters: dict, pair: int) -> dict:
    """Draws one pair's pictures, and returns its row of the table."""
    made, about = _DRAW[parameters["exchange"]](pair, parameters)
    kinds, name = _kinds(parameters["exchange"]), f"{pair:06d}"
    apart = difference(made.image, made.other)
    pictures = (made.image, made.other, made.changed, made.shown)
    for kind, picture in zip(kinds, (*pictures, made.first.mask), strict=False):
        (root / kind / f"{name}.png").write_bytes(png(picture))
    if "parts" in kinds:
        indexed = Image.fromarray(made.first.parts)
        indexed.putpalette(part_palette())
        indexed.save(root / "parts" / f"{name}.png", compress_level=3)
    return (
        {"pair": name, "mark": made.mark, "part": made.part}
        | {"before": made.value, "after": made.other_value}
        | {"changed": round(float(made.changed.mean()), 6)}
        | {"seen": round(float((apart >= SEEN).mean()), 6)}
        | about
    )


# ---- a pair of each kind -------------------------------------------------------------------------


@cache
def _guide(classes: int, seed: int, difficulty: str) -> list[Species]:
    return make_species(classes, seed, difficulty)


def _bird(pair: int, parameters: dict):
    """A species in turn, its number, and a photograph of it."""
    seed, difficulty = parameters["seed"], parameters["difficulty"]
    index, image = pair % parameters["classes"], FIRST_IMAGE + pair
    one = _guide(parameters["classes"], seed, difficulty)[index]
    picture = field_photograph(one, (seed, index, image), parameters["size"], difficulty)
    return picture, {"class": index + 1, "name": one.name, "image": image}


def _mark(pair: int, parameters: dict) -> tuple[Twin, dict]:
    """One of the marks that can be seen in the picture, by lot."""
    picture, about = _bird(pair, parameters)
    species = _guide(parameters["classes"], parameters["seed"], parameters["difficulty"])
    own = picture.individual.species
    siblings = [one for one in species if one.family == own.family and one is not own]
    rng = Streams((parameters["seed"], pair))("twins/mark")
    for made in exchanges(picture, siblings, rng):
        return made, about
    raise RuntimeError(f"no mark can be exchanged in picture {about['image']} of {about['name']}")


def _scene(pair: int, parameters: dict) -> tuple[Twin, dict]:
    picture, about = _bird(pair, parameters)
    return _first_seen(scene_twin, picture), about


def _first_seen(exchange: Callable, picture) -> Twin:
    """With the lowest number that looks different."""
    for number in count(1):
        try:
            return exchange(picture, number)
        except NoTwin:
            continue
    raise AssertionError  # the loop has no end


def _attribute(pair: int, parameters: dict) -> tuple[Twin, dict]:
    """A garment in turn, in a shot and with an attribute by lot."""
    rng = Streams((parameters["seed"], pair))("twins/attribute")
    one = _wardrobe(parameters["classes"], parameters["seed"])[pair % parameters["classes"]]
    for shot, attribute, value in _exchanges(one, rng):
        try:
            made = garments.attribute_twin(
                photograph(one, shot, parameters["size"]), attribute, value
            )
        except NoTwin:
            continue
        return made, _about(one, shot)
    raise RuntimeError(f"no attribute of garment {one.number} can be exchanged")


def _backdrop(pair: int, parameters: dict) -> tuple[Twin, dict]:
    """A garment in turn, in a styled picture: the others' backdrops are too alike."""
    one = _wardrobe(parameters["classes"], parameters["seed"])[pair % parameters["classes"]]
    shot = SHOTS.index("styled") + pair // parameters["classes"]
    picture = photograph(one, shot, parameters["size"])
    return _first_seen(garments.backdrop_twin, picture), _about(one, shot)


_wardrobe = cache(make_garments)


def _about(garment: Garment, shot: int) -> dict:
    name = f"{garment.cloth()} {garment.kind}"
    return {"class": garment.number, "name": name, "image": shot}


def _exchanges(garment: Garment, rng) -> Iterator[tuple[int, str, str]]:
    """Shots, attributes and values, in random order."""
    for shot in rng.permutation(len(SHOTS)):
        for attribute in rng.permutation(list(garments.attributes_of(garment))):
            values = garments.other_values(garment, str(attribute))
            for value in rng.permutation(values) if values else ():
                yield int(shot), str(attribute), str(value)


_DRAW = {"mark": _mark, "scene": _scene, "attribute": _attribute, "backdrop": _backdrop}
