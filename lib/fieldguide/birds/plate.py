"""A plate as field guides print them, and below it the same birds as they are met in the field."""

from __future__ import annotations

from itertools import groupby

import numpy as np
from PIL import Image, ImageDraw

from fieldguide.birds.canvas import PART
from fieldguide.birds.photographs import CONDITIONS, Photograph, field_photograph, portrait
from fieldguide.birds.species import Species, make_species
from fieldguide.checks import one_of, whole_numbers
from fieldguide.pictures import SMALLEST, fitting_font, font

PAPER = (247, 243, 232)
INK = (58, 48, 40)
FADED_INK = (116, 100, 80)
TICK = (120, 44, 34)
BLANK = 24  # what differs less from the paper, as a soft shadow does, may be written on
DESIGN_WIDTH, DESIGN_SIBLINGS = 1500, 3  # the measures below are pixels of such a plate
MARGIN, HEADER, FOOTER, GAP = 44, 96, 30, 8
CAPTION = 78  # below each portrait
FIELD_HEADER = 92  # above the photographs
TITLE, HEADING, NAME, SMALL = 32, 26, 21, 17  # sizes of letters
LOWEST = {
    "classes": 2,
    "seed": 0,
    "families": 1,
    "siblings": 1,
    "photographs": 0,
    "first_family": 0,
    "width": 1,
}
# The part a mark is seen on, its name on the plate, and the direction its tick comes from in
# degrees; the bird on a plate faces right, so its right side is seen.
SEEN_ON = {
    "crown": ("crown", "crown", 75),
    "forehead": ("forehead", "forehead", 35),
    "nape": ("nape", "nape", 140),
    "throat": ("throat", "throat", -12),
    "breast": ("breast", "breast", -18),
    "belly": ("belly", "belly", -50),
    "back": ("back", "back", 125),
    "wing": ("right wing", "wing", 138),
    "upper_tail": ("tail", "tail", 165),
    "under_tail": ("tail", "undertail", -140),
    "tail": ("tail", "tail", -150),
    "head": ("right eye", "head", 108),
    "bill": ("beak", "bill", 20),
    "leg": ("right leg", "legs", -42),
    "eye": ("right eye", "eye", 28),
}
VALUES = {
    "solid": "plain",
    "multi-colored": "patched",
    "about_the_same_as_head": "medium",
    "longer_than_head": "long",
    "shorter_than_head": "short",
}
HEAD_PATTERNS = {
    "spotted": "speckled head",
    "malar": "moustache",
    "crested": "crest",
    "masked": "mask",
    "unique_pattern": "cheek patch",
    "eyebrow": "eyebrow",
    "eyering": "eye ring",
    "plain": "plain head",
    "eyeline": "eye line",
    "striped": "striped crown",
    "capped": "cap",
}


def draw_plate(
    classes: int = 100,
    seed: int = 0,
    difficulty: str = "standard",
    families: int = 3,
    siblings: int = 3,
    photographs: int = 2,
    first_family: int = 0,
    width: int = DESIGN_WIDTH,
) -> np.ndarray:
    """A plate of a guide's species: (height, width, 3) uint8 RGB.

    `families` rows of `siblings` species of that guide, with the field marks that tell siblings
    apart pointed out, then `photographs` rows of photographs: images 0, 1, ... of each species in
    the guide, drawn larger. width: pixels.

    Raises ValueError for parameters out of range, and when the guide has no such families.
    """
    whole_numbers(locals(), LOWEST)
    one_of("difficulty", difficulty, CONDITIONS)
    species = make_species(classes, seed, difficulty)
    groups = [list(group) for _, group in groupby(species, lambda one: one.family)]
    chosen = [group[:siblings] for group in groups if len(group) >= siblings]
    chosen = chosen[first_family : first_family + families]
    if len(chosen) < families:
        raise ValueError(
            f"the guide has {len(groups)} families, too few for {families} of {siblings} siblings "
            f"from number {first_family} on: ask for fewer, or for more classes"
        )
    scale = width / DESIGN_WIDTH * min(max(1.0, DESIGN_SIBLINGS / siblings), 2.0)
    columns = families * siblings
    cell = (width - 2 * MARGIN * scale) / siblings
    bird = int(min(cell * 0.70, 330 * scale))
    row = bird + int(CAPTION * scale)
    photo = int((width - 2 * MARGIN * scale) / columns - GAP * scale)
    if min(bird, photo if photographs else bird) < SMALLEST:
        raise ValueError(
            f"a plate {width} pixels wide has no room for {columns} birds: ask for a wider one, "
            "or for fewer birds"
        )
    field_top = int(HEADER * scale + families * row)
    height = int(field_top + photographs * (photo + GAP * scale) + FOOTER * scale)
    height += int(FIELD_HEADER * scale) if photographs else 0
    page = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(page)
    title = " · ".join(_plural(group[0].family) for group in chosen)
    letters = fitting_font(title, TITLE * scale, width - 2 * MARGIN * scale)
    draw.text((MARGIN * scale, 66 * scale), title, INK, letters, anchor="ls")
    rule = [(MARGIN * scale, 82 * scale), (width - MARGIN * scale, 82 * scale)]
    draw.line(rule, FADED_INK, max(1, round(1.4 * scale)))
    _portraits(page, draw, chosen, cell, bird, row, scale)
    if photographs:
        place = (MARGIN * scale, field_top + 44 * scale)
        draw.text(place, "The same birds in the field", INK, font(HEADING * scale), anchor="ls")
    for column, one in enumerate(one for group in chosen for one in group):
        x = int(MARGIN * scale + column * (photo + GAP * scale))
        for line in range(photographs):
            key = (seed, species.index(one), line)
            picture = field_photograph(one, key, photo, difficulty).image
            y = int(field_top + FIELD_HEADER * scale + line * (photo + GAP * scale))
            page.paste(Image.fromarray(picture), (x, y))
            if line == 0:
                place = (x + photo / 2, y - 7 * scale)
                draw.text(place, str(column + 1), FADED_INK, font(SMALL * scale), anchor="ms")
    return np.asarray(page)


def _portraits(
    page, draw, groups: list[list[Species]], cell: float, bird: int, row: int, scale: float
) -> None:
    """A row of portraits for each group, with names and the marks that tell the group apart.

    cell: width of an entry; bird: side of a portrait; row: height of an entry.
    """
    entries = []
    for line, group in enumerate(groups):
        for column, one in enumerate(group):
            left = int(MARGIN * scale + column * cell + (cell - bird) / 2)
            corner = (left, int(HEADER * scale + line * row))
            picture = portrait(one, bird, PAPER)
            page.paste(Image.fromarray(picture.image), corner)
            entries.append((picture, group, corner))
            number = line * len(group) + column + 1
            for text, ink, size, down in (
                (f"{number}  {one.name.replace('_', ' ')}", INK, NAME, 26),
                (_kind(one), FADED_INK, SMALL, 50),
            ):
                place = (left + bird / 2, corner[1] + bird + down * scale)
                letters = fitting_font(text, size * scale, cell - 12 * scale)
                draw.text(place, text, ink, letters, anchor="ms")
    taken = (np.abs(np.asarray(page, np.int16) - PAPER) > BLANK).any(axis=2)
    for picture, group, corner in entries:
        for mark in group[0].diagnostic:
            if len({one.marks[mark] for one in group}) > 1:
                _point_out(draw, picture, mark, corner, scale, taken)


def _plural(family: str) -> str:
    name = family.replace("_", " ")
    return name + ("es" if name.endswith(("ch", "s")) else "s")


def _kind(species: Species) -> str:
    """Size and shape in words: "small, pigeon-like"."""
    size, shape = species.marks["size"].split("_(")[0], species.marks["shape"]
    return f"{size}, {shape}".replace("_", " ")


def _point_out(
    draw, picture: Photograph, mark: str, corner: tuple[int, int], scale: float, taken: np.ndarray
) -> None:
    """A tick on the part that shows a mark, leaving the bird in one direction, with a label.

    taken: (height, width) bool of the page, where a label would cover something; this one is added.
    """
    place, label, direction = _field_mark(picture.individual.species, mark)
    part, side = picture.parts == PART[place], len(picture.parts)
    if not part.any():
        return
    rows, columns = np.nonzero(part)
    outward = np.array([np.cos(np.radians(direction)), -np.sin(np.radians(direction))])
    steps = np.arange(0, side)[:, None] * outward + (columns.mean(), rows.mean())

    def last_inside(region) -> int:
        inside = [0 <= x < side and 0 <= y < side and region[int(y), int(x)] for x, y in steps]
        return int(max(np.flatnonzero(inside), default=0))

    right = outward[0] >= 0
    letters, anchor = font(SMALL * scale), "lm" if right else "rm"
    start = steps[int(0.6 * last_inside(part))] + corner
    stop = steps[min(last_inside(picture.mask), side - 1)] + 0.075 * side * outward + corner
    gap, pad = np.array([4 * scale if right else -4 * scale, 0]), 12 * scale
    height, width = taken.shape
    # The nearest place, further out or above or below, where the label covers nothing.
    moves = [(out, down) for out in np.linspace(0, 0.4, 15) for down in np.linspace(-0.3, 0.3, 31)]
    for out, down in sorted(moves, key=lambda move: move[0] + abs(move[1])):
        move = side * (out * outward + (0, down))
        x0, y0, x1, y1 = draw.textbbox(tuple(stop + gap + move), label, letters, anchor=anchor)
        box = np.s_[
            int(y0 - 2 * scale) : int(y1 + 3 * scale), max(0, int(x0 - pad)) : int(x1 + pad)
        ]
        if x0 >= 1 and y0 >= 2 and x1 < width and y1 < height and not taken[box].any():
            stop = stop + move
            taken[box] = True
            break
    draw.line([tuple(start), tuple(stop)], TICK, max(1, round(1.5 * scale)))
    draw.text(tuple(stop + gap), label, TICK, letters, anchor=anchor)


def _field_mark(species: Species, mark: str) -> tuple[str, str, float]:
    """The part a mark is seen on, its label and the direction of its tick.

    For example ("throat", "black throat", -12).
    """
    value = species.marks[mark]
    place, noun, direction = SEEN_ON[mark.rsplit("_", 1)[0]]
    if mark == "head_pattern":
        return place, HEAD_PATTERNS[value], direction
    if mark == "tail_shape":
        return place, value.replace("_", " "), direction
    return place, f"{VALUES.get(value, value)} {noun}", direction
