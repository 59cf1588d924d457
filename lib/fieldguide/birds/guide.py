"""Drawn birds in the official CUB-200-2011 layout, complete, with masks of birds and their parts.

    make_fieldguide(folder, classes=100, images=20, size=224, seed=0, difficulty="standard")

The same parameters and library versions give the same bytes. Everything about an image comes from
(seed, class, image), so a guide with more images per class begins with the same pictures, and each
thing in it from a random stream of its own, so that one can be exchanged alone (see twins.py).
Besides what the official archive holds:

    segmentations/<class>/<image>.png        the visible bird, 0 or 255
    part_segmentations/<class>/<image>.png   indexed: 1..15 the CUB part, 0 elsewhere and on cheeks
    attributes/attributes.txt, attributes.txt    the 312 names
    fieldguide.json                          parameters and the species table
"""

from __future__ import annotations

import colorsys
import io
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from fieldguide.birds.attributes import ATTRIBUTE_NAMES, VOCABULARY, present_attributes
from fieldguide.birds.canvas import PARTS
from fieldguide.birds.photographs import CONDITIONS, Photograph, field_photograph
from fieldguide.birds.species import make_species
from fieldguide.checks import one_of, whole_numbers
from fieldguide.folders import write_atomically, write_lines
from fieldguide.pictures import SIZE, SMALLEST, jpeg, png
from fieldguide.streams import Streams

VERSION = 2  # raise it when the same parameters give other bytes
MANIFEST = "fieldguide.json"
LOWEST = {"classes": 2, "images": 1, "size": SMALLEST, "seed": 0}
CERTAINTIES = ("not visible", "guessing", "probably", "definitely")
NOT_VISIBLE = 1
# A part is visible when at least this share of the image's pixels shows it (9 pixels at 224 x 224).
VISIBLE_SHARE = 0.00018
# The parts that show each attribute group; groups not named here show whenever the bird does.
SHOWN_BY = {
    "bill_shape": ("beak",),
    "bill_length": ("beak",),
    "bill_color": ("beak",),
    "wing_color": ("left wing", "right wing"),
    "wing_shape": ("left wing", "right wing"),
    "wing_pattern": ("left wing", "right wing"),
    "upperparts_color": ("back", "left wing", "right wing"),
    "underparts_color": ("breast", "belly"),
    "breast_pattern": ("breast",),
    "breast_color": ("breast",),
    "back_color": ("back",),
    "back_pattern": ("back",),
    "tail_shape": ("tail",),
    "upper_tail_color": ("tail",),
    "under_tail_color": ("tail",),
    "tail_pattern": ("tail",),
    "head_pattern": ("crown", "left eye", "right eye"),
    "throat_color": ("throat",),
    "eye_color": ("left eye", "right eye"),
    "forehead_color": ("forehead",),
    "nape_color": ("nape",),
    "belly_color": ("belly",),
    "belly_pattern": ("belly",),
    "leg_color": ("left leg", "right leg"),
    "crown_color": ("crown",),
}


def make_fieldguide(
    folder: Path | str,
    classes: int = 100,
    images: int = 20,
    size: int = SIZE,
    seed: int = 0,
    difficulty: str = "standard",
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Draws a guide into a folder and returns it: images.txt and the rest of the layout.

    A folder that already holds this very guide is returned as it is. The guide is written beside
    the folder and moved there when complete, so nothing half-written is left behind.

    Args:
        folder: new or empty.
        classes: species.
        images: of each species.
        size: pixels of a side.
        difficulty: "standard" or "hard": how alike species are, and how rough the photographs.
        progress: called as progress(done, total), in images, after each class.

    Raises:
        ValueError: for parameters out of range or a place that cannot be written.
        FileExistsError: when the folder holds something else.
    """
    parameters = {
        "classes": classes,
        "images": images,
        "size": size,
        "seed": seed,
        "difficulty": difficulty,
    }
    parameters |= whole_numbers(parameters, LOWEST)
    one_of("difficulty", difficulty, CONDITIONS)
    return write_atomically(
        folder,
        MANIFEST,
        "fieldguide",
        {"version": VERSION, **parameters},
        lambda working: _write(working, parameters, progress),
    )


# ---- the layout ----------------------------------------------------------------------------------


def _write(root: Path, parameters: dict, progress) -> None:
    classes, images, seed = parameters["classes"], parameters["images"], parameters["seed"]
    all_species = make_species(classes, seed, parameters["difficulty"])
    folders = [
        f"{number:03d}.{species.name}" for number, species in enumerate(all_species, start=1)
    ]
    lists = {
        name: [] for name in ("images", "image_class_labels", "train_test_split", "bounding_boxes")
    }
    locations: list[str] = []
    percents: list[str] = []
    (root / "attributes").mkdir()
    (root / "parts").mkdir()
    with open(
        root / "attributes" / "image_attribute_labels.txt", "w", newline="\n"
    ) as attribute_file:
        for index, (species, name) in enumerate(zip(all_species, folders, strict=True)):
            for kind in ("images", "segmentations", "part_segmentations"):
                (root / kind / name).mkdir(parents=True)
            present, seen = np.zeros(len(ATTRIBUTE_NAMES)), np.zeros(len(ATTRIBUTE_NAMES))
            for number in range(images):
                photograph = field_photograph(
                    species, (seed, index, number), parameters["size"], parameters["difficulty"]
                )
                stem = f"{species.name}_{number + 1:04d}"
                _write_pictures(root, name, stem, photograph)
                identity = index * images + number + 1
                lists["images"].append(f"{identity} {name}/{stem}.jpg")
                lists["image_class_labels"].append(f"{identity} {index + 1}")
                lists["train_test_split"].append(
                    f"{identity} {int(_is_train(seed, index, number))}"
                )
                box = " ".join(f"{value:.1f}" for value in _box(photograph.mask))
                lists["bounding_boxes"].append(f"{identity} {box}")
                visible = _locate_parts(identity, photograph.parts, locations)
                labels, values, certain = _attribute_labels(
                    photograph.individual.marks,
                    visible,
                    Streams((seed, index, number))("annotator"),
                )
                attribute_file.write(f"{identity} " + f"\n{identity} ".join(labels) + "\n")
                present += values
                seen += certain
            percents.append(" ".join(_percent(a, b) for a, b in zip(present, seen, strict=True)))
            if progress is not None:
                progress((index + 1) * images, classes * images)
    for name, lines in lists.items():
        write_lines(root / f"{name}.txt", lines)
    write_lines(root / "classes.txt", _numbered(folders))
    write_lines(root / "parts" / "parts.txt", _numbered(PARTS))
    write_lines(root / "parts" / "part_locs.txt", locations)
    write_lines(root / "attributes" / "attributes.txt", _numbered(ATTRIBUTE_NAMES))
    write_lines(root / "attributes.txt", _numbered(ATTRIBUTE_NAMES))
    write_lines(root / "attributes" / "certainties.txt", _numbered(CERTAINTIES))
    write_lines(root / "attributes" / "class_attribute_labels_continuous.txt", percents)
    manifest = {
        "version": VERSION,
        "parameters": parameters,
        "species": [
            {
                "class": number,
                "folder": folder,
                "family": species.family,
                "marks": species.marks,
                "diagnostic": list(species.diagnostic),
                "accent": species.accent,
                "dimorphic": species.dimorphic,
                "female_marks": species.female_marks,
            }
            for number, (folder, species) in enumerate(
                zip(folders, all_species, strict=True), start=1
            )
        ],
    }
    (root / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")


def _numbered(names) -> list[str]:
    return [f"{number} {name}" for number, name in enumerate(names, start=1)]


def _percent(present: float, seen: float) -> str:
    return str(round(100.0 * present / seen, 10)) if seen else "0.0"


def _is_train(seed: int, index: int, number: int) -> bool:
    """Of each two successive images of a class one, chosen by lot, is for training."""
    return bool(np.random.default_rng([seed, index, number // 2, 0x5911]).integers(2) == number % 2)


def _write_pictures(root: Path, folder: str, stem: str, photograph: Photograph) -> None:
    (root / "images" / folder / f"{stem}.jpg").write_bytes(jpeg(photograph.image))
    (root / "segmentations" / folder / f"{stem}.png").write_bytes(png(photograph.mask))
    indexed = Image.fromarray(photograph.parts)
    indexed.putpalette(part_palette())
    content = io.BytesIO()  # Pillow, writing to a file itself, does not tell that the disk is full
    indexed.save(content, "png", compress_level=3)
    file = root / "part_segmentations" / folder / f"{stem}.png"
    file.write_bytes(content.getvalue())


@cache
def part_palette() -> bytes:
    """RGB bytes of the indexed part masks: black, then a distinct hue for each of the 15 parts."""
    colours = [(0.0, 0.0, 0.0)] + [
        colorsys.hsv_to_rgb((0.61 * part) % 1, 0.65, 0.95 - 0.25 * (part % 2))
        for part in range(len(PARTS))
    ]
    return bytes(round(255 * channel) for colour in colours for channel in colour)


def _box(mask: np.ndarray) -> tuple[float, float, float, float]:
    """x, y, width and height of the tight box, in pixels."""
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    return columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1


def least_visible(pixels: int) -> float:
    """How many pixels of a part make it visible in a picture of so many pixels."""
    return max(2, VISIBLE_SHARE * pixels)


def _locate_parts(identity: int, parts: np.ndarray, lines: list[str]) -> set[str]:
    """Appends the 15 lines of part_locs.txt and returns the names of the visible parts.

    A location is the centroid of the part's visible pixels or, where that lies outside them, the
    pixel nearest to it.
    """
    side, count = parts.shape[1], len(PARTS) + 1
    flat = np.flatnonzero(parts)
    number = parts.ravel()[flat]
    y, x = np.divmod(flat, side)
    pixels = np.bincount(number, minlength=count)
    centre_x = np.bincount(number, weights=x, minlength=count) / np.maximum(pixels, 1)
    centre_y = np.bincount(number, weights=y, minlength=count) / np.maximum(pixels, 1)
    least = least_visible(parts.size)
    visible = set()
    for part, name in enumerate(PARTS, start=1):
        if pixels[part] < least:
            lines.append(f"{identity} {part} 0.0 0.0 0")
            continue
        visible.add(name)
        px, py = centre_x[part], centre_y[part]
        if parts[int(py + 0.5), int(px + 0.5)] != part:
            own = number == part
            nearest = int(((x[own] - px) ** 2 + (y[own] - py) ** 2).argmin())
            px, py = x[own][nearest], y[own][nearest]
        lines.append(f"{identity} {part} {px:.1f} {py:.1f} 1")
    return visible


def _attribute_labels(
    marks: dict[str, str], visible: set[str], rng
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """One image's answers: 312 line ends "attribute present certainty time".

    Also (312,) arrays of which attributes are present and which are visible. An annotator answers a
    group at once, so a group has one certainty and one time.
    """
    present = present_attributes(marks)
    certainty = 3 + (rng.random(len(VOCABULARY)) < 0.7)
    tenths = rng.integers(10, 300, len(VOCABULARY))
    lines: list[str] = []
    values, certain = [], []
    for (group, options), sure, time in zip(
        VOCABULARY.items(), certainty.tolist(), tenths.tolist(), strict=True
    ):
        shown_by = SHOWN_BY.get(group)
        shown = shown_by is None or not visible.isdisjoint(shown_by)
        answer = present[group] if shown else ()
        end = f" {sure if shown else NOT_VISIBLE} {time / 10}"
        lines.extend([start + end for start in _line_starts(group, answer)])
        values.extend([option in answer for option in options])
        certain.extend([shown] * len(options))
    return lines, np.array(values, dtype=float), np.array(certain, dtype=float)


@cache
def _line_starts(group: str, answer: tuple[str, ...]) -> tuple[str, ...]:
    first = ATTRIBUTE_NAMES.index(f"has_{group}::{VOCABULARY[group][0]}") + 1
    return tuple(
        f"{first + place} {int(value in answer)}" for place, value in enumerate(VOCABULARY[group])
    )
