"""A plate as field guides print them, and below it the same birds as they are met in the field."""

from __future__ import annotations

from functools import cache
from itertools import groupby
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fieldguide.birds.canvas import PART
from fieldguide.birds.photographs import field_photograph, portrait
from fieldguide.birds.species import Species, make_species

PAPER = (247, 243, 232)
INK = (58, 48, 40)
FADED_INK = (150, 134, 114)
TICK = (120, 44, 34)
DESIGN_WIDTH = 1500  # the measures below are pixels of a plate this wide
MARGIN, HEADER, FOOTER = 44, 96, 30
CAPTION = 62  # below each portrait
# The part a mark is seen on, its word on the plate, and the direction its tick comes from in degrees; the bird on a
# plate faces right, so we see its right side.
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
WORDS = {
    "solid": "plain",
    "multi-colored": "patched",
    "about_the_same_as_head": "medium",
    "longer_than_head": "long",
    "shorter_than_head": "short",
}
HEAD_WORDS = {
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
    """(height, width, 3) uint8 RGB: `families` rows of `siblings` species of that guide, then rows of photographs.

    The field marks that tell siblings apart are pointed out. The photographs are images 0, 1, ... of each species in
    the guide, drawn larger. Raises ValueError when the guide has no such families.
    """
    groups = [
        list(group)
        for _, group in groupby(make_species(classes, seed, difficulty), lambda one: one.family)
    ]
    species = [one for group in groups for one in group]
    chosen = [group[:siblings] for group in groups if len(group) >= siblings][
        first_family : first_family + families
    ]
    if len(chosen) < families or not 1 <= families:
        raise ValueError(
            f"the guide has {len(groups)} families, too few for {families} of {siblings} siblings from "
            f"number {first_family} on: ask for fewer, or for more classes"
        )
    scale = width / DESIGN_WIDTH
    cell = (width - 2 * MARGIN * scale) / siblings
    bird, row = (
        int(min(cell * 0.80, 330 * scale)),
        int(min(cell * 0.80, 330 * scale) + CAPTION * scale),
    )
    columns = families * siblings
    photo = int((width - 2 * MARGIN * scale) / columns - 8 * scale)
    field_top = int(HEADER * scale + families * row)
    height = int(
        field_top
        + (photographs > 0) * 70 * scale
        + photographs * (photo + 8 * scale)
        + FOOTER * scale
    )
    page = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(page)
    title = " · ".join(group[0].family.replace("_", " ") + "s" for group in chosen)
    draw.text((MARGIN * scale, 30 * scale), title, INK, _font("Serif-Bold", 30 * scale))
    draw.line(
        (MARGIN * scale, 80 * scale, width - MARGIN * scale, 80 * scale),
        FADED_INK,
        max(1, round(1.4 * scale)),
    )
    for line, group in enumerate(chosen):
        for column, one in enumerate(group):
            corner = (
                int(MARGIN * scale + column * cell + (cell - bird) / 2),
                int(HEADER * scale + line * row),
            )
            marks = [
                mark for mark in one.diagnostic if len({other.marks[mark] for other in group}) > 1
            ]
            _entry(page, draw, one, marks, line * siblings + column + 1, corner, bird, scale)
    if photographs:
        draw.text(
            (MARGIN * scale, field_top + 18 * scale),
            "The same birds in the field",
            INK,
            _font("Serif-Italic", 24 * scale),
        )
    for column, one in enumerate(one for group in chosen for one in group):
        x = int(MARGIN * scale + column * (photo + 8 * scale))
        for line in range(photographs):
            rng = np.random.default_rng([seed, species.index(one), line])
            picture = field_photograph(one, rng, photo, difficulty).image
            y = int(field_top + 60 * scale + line * (photo + 8 * scale))
            page.paste(Image.fromarray(picture), (x, y))
            if line == 0:
                draw.text(
                    (x + photo - 6 * scale, y - 4 * scale),
                    str(column + 1),
                    FADED_INK,
                    _font("Serif-Bold", 15 * scale),
                    anchor="rs",
                )
    return np.asarray(page)


def _entry(
    page,
    draw,
    species: Species,
    marks: list[str],
    number: int,
    corner: tuple[int, int],
    bird: int,
    scale: float,
) -> None:
    """One portrait with some of its marks pointed out, and its name."""
    picture = portrait(species, bird, PAPER)
    page.paste(Image.fromarray(picture.image), corner)
    taken: list[float] = []
    for mark in marks:
        place, words, direction = _field_mark(species, mark)
        part = picture.parts == PART[place]
        if part.any():
            _point_out(draw, picture.mask, part, direction, words, corner, scale, taken)
    middle, below = corner[0] + bird / 2, corner[1] + bird
    draw.text(
        (middle, below + 6 * scale),
        f"{number}  {species.name.replace('_', ' ')}",
        INK,
        _font("Serif", 19 * scale),
        anchor="ma",
    )
    draw.text(
        (middle, below + 32 * scale),
        species.marks["size"].split("_(")[0].replace("_", " ")
        + ", "
        + species.marks["shape"].replace("_", " "),
        FADED_INK,
        _font("Serif-Italic", 14 * scale),
        anchor="ma",
    )


def _point_out(
    draw, mask, part, direction: float, words: str, corner, scale: float, taken: list[float]
) -> None:
    """A tick on the part that leaves the bird in one direction, and its words; `taken`: heights already written at."""
    side = len(mask)
    rows, columns = np.nonzero(part)
    outward = np.array([np.cos(np.radians(direction)), -np.sin(np.radians(direction))])
    steps = np.arange(0, side)[:, None] * outward + (columns.mean(), rows.mean())

    def last_inside(region):
        inside = [0 <= x < side and 0 <= y < side and region[int(y), int(x)] for x, y in steps]
        return max(np.flatnonzero(inside), default=0)

    start = steps[int(0.6 * last_inside(part))]
    stop = steps[min(last_inside(mask), side - 1)] + 0.075 * side * outward
    while any(abs(stop[1] - other) < 18 * scale for other in taken):
        stop = stop + (0, 19 * scale if outward[1] >= 0 else -19 * scale)
    taken.append(stop[1])
    draw.line([tuple(start + corner), tuple(stop + corner)], TICK, max(1, round(1.5 * scale)))
    right = outward[0] >= 0
    draw.text(
        tuple(stop + corner + np.array([4 * scale if right else -4 * scale, 0])),
        words,
        TICK,
        _font("Serif-Italic", 14 * scale),
        anchor="lm" if right else "rm",
    )


def _field_mark(species: Species, mark: str) -> tuple[str, str, float]:
    """The part a mark is seen on, the mark in words, and the direction of its tick: ("throat", "black throat", -12)."""
    value = species.marks[mark]
    place, noun, direction = SEEN_ON[mark.rsplit("_", 1)[0]]
    if mark == "head_pattern":
        return place, HEAD_WORDS[value], direction
    if mark == "tail_shape":
        return place, value.replace("_", " "), direction
    return place, f"{WORDS.get(value, value)} {noun}", direction


@cache
def _font(style: str, size: float) -> ImageFont.FreeTypeFont:
    """matplotlib's own DejaVu fonts: they are there wherever matplotlib is."""
    fonts = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    return ImageFont.truetype(fonts / f"DejaVu{style}.ttf", max(6, round(size)))
