"""Counterfactual twins: a photograph of a bird twice, one field mark or the scene exchanged.

    photograph = field_photograph(species, (0, 3, 7))
    twin(photograph, "crown_color", "red")
    scene_twin(photograph)
    twins(1000, marks=["crown_color"])    # of many birds, as `fieldguide.twins`

Individual, pose, place in the frame, light, occluders and noise are the first picture's. What a
mark changes is known to the pixel: outside `Twin.changed` both pictures are equal to the bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import count as numbers_from
from itertools import cycle, islice

import cv2
import numpy as np

from fieldguide.birds.attributes import MARKS, VOCABULARY
from fieldguide.birds.canvas import PART
from fieldguide.birds.guide import SHOWN_BY, VISIBLE_SHARE, least_visible
from fieldguide.birds.heads import marking_colour
from fieldguide.birds.photographs import Photograph, Sitting, field_photograph, softness, take
from fieldguide.birds.species import CANDIDATES, CONTRAST, PALETTE, Species, make_species
from fieldguide.checks import one_of, whole_numbers
from fieldguide.exchange import SEEN, NoTwin, Twin, difference, seen
from fieldguide.pictures import SIZE, SMALLEST
from fieldguide.streams import Streams

FACE = "face"  # what of the head is none of CUB's parts
EXCHANGEABLE = tuple(mark for mark in MARKS if mark not in ("size", "shape"))
# The parts on which a mark is drawn, where these are more than those that an annotator looks at.
DRAWN_ON = SHOWN_BY | {
    "nape_color": ("nape", FACE),
    "throat_color": ("throat", FACE),
    "head_pattern": ("crown", "forehead", "nape", "throat", "left eye", "right eye", FACE),
}
OUTLINES = ("bill_shape", "bill_length", "tail_shape", "wing_shape", "head_pattern")
SHADOW = 0.037  # how far a wing's shadow lies from it, in body units
EDGE = 3  # pixels by which a painted edge and the map of parts may differ
SCENE = "scene"
# Numbers of pictures within their species: after those of any guide.
FIRST_MATCH, FIRST_TWIN = 2_000_000, 3_000_000


def twin(photograph: Photograph, mark: str, value: str) -> Twin[Photograph]:
    """The photograph again with one mark of the bird exchanged.

    photograph: from `field_photograph`; mark: one of EXCHANGEABLE; value: of the mark's vocabulary.

    Raises ValueError for another mark or value, and its subclass NoTwin where the mark has this
    value already, its part is not visible, the exchange could not be seen, or it would change
    something else too (a line over the eye that is black on white and white on black).
    """
    one_of("mark", mark, EXCHANGEABLE)
    one_of(mark, value, VOCABULARY[mark])
    individual, sitting = photograph.individual, _sitting(photograph)
    before = individual.marks[mark]
    if before == value:
        raise NoTwin(f"{mark} is {value} in this picture already: give another value")
    part = _part(photograph, mark)
    if part.sum() < least_visible(part.size):
        parts = " and ".join(DRAWN_ON[mark])
        raise NoTwin(f"{mark}: {parts} not visible in this picture: take another mark or picture")
    other = replace(individual, marks=individual.marks | {mark: value})
    inks = [marking_colour(one) for one in (individual, other)]
    if mark != "head_pattern" and not np.array_equal(*inks):
        raise NoTwin(f"{mark} {value} would change the head pattern's colour too: give another")
    second = take(replace(sitting, individual=other))
    part |= _part(second, mark)
    apart = difference(photograph.image, second.image)
    changed = apart > 0
    if not seen(apart, VISIBLE_SHARE):
        raise NoTwin(f"{mark} {value} instead of {before} is not to be seen: give another value")
    if (changed & ~_widened(part, _reach(photograph, mark))).any():
        raise NoTwin(f"{mark} {value} would change other parts too: give another value")
    names = "; ".join(DRAWN_ON[mark])
    return Twin(photograph, second, mark, before, value, changed, part, names)


def scene_twin(photograph: Photograph, number: int = 1) -> Twin[Photograph]:
    """The photograph again with another background and perch; number: which one, from 1 on.

    The bird's own pixels stay, away from its outline. Raises NoTwin where this scene looks the
    same.
    """
    sitting = _sitting(photograph)
    whole_numbers({"number": number}, {"number": 1})
    second = take(replace(sitting, streams=sitting.streams.exchange(SCENE, number)))
    apart, around = difference(photograph.image, second.image), ~photograph.mask
    if (apart[around] >= SEEN).mean() < 0.5:
        raise NoTwin(f"scene {number} looks like the first: take another number")
    return Twin(photograph, second, SCENE, "", "", apart > 0, around, SCENE)


def twins(
    count: int,
    *,
    size: int = SIZE,
    seed: int = 0,
    marks: Sequence[str] | None = None,
    classes: int = 100,
    most: int = 5,
) -> Iterator[Twin[Photograph]]:
    """Twins of birds that are in no guide, of the species of a guide in turn.

    Those of one base picture follow each other and share `image` and `base`; a picture in which
    none of the marks can be exchanged visibly is passed over. The same arguments give the same
    twins, and more of them begin with the same ones.

    count: of twins; size: pixels of a side; marks: of EXCHANGEABLE, by default all; classes: of the
    guide; most: exchanges of a base picture.

    Raises ValueError for a mark that cannot be exchanged, and for numbers out of range.
    """
    numbers = {"count": count, "size": size, "seed": seed, "classes": classes, "most": most}
    least = {"count": 0, "size": SMALLEST, "seed": 0, "classes": 2, "most": 1}
    whole_numbers(numbers, least)
    marks = EXCHANGEABLE if marks is None else tuple(marks)
    for mark in marks or ("",):
        one_of("marks", mark, EXCHANGEABLE)
    return islice(_twins(size, seed, marks, classes, most), count)


def _twins(size: int, seed: int, marks, classes: int, most: int) -> Iterator[Twin[Photograph]]:
    species = make_species(classes, seed, "standard")
    for base in numbers_from(0):
        index = base % classes
        one = species[index]
        photograph = field_photograph(one, (seed, index, FIRST_TWIN + base), size)
        siblings = [other for other in species if other.family == one.family and other is not one]
        rng = Streams((seed, base))("twins/exchanges")
        for made in islice(exchanges(photograph, siblings, rng, marks), most):
            yield replace(made, base=base)


def matches_exchanged(
    species: Sequence[int], *, classes: int, seed: int, difficulty: str, most: int, size: int = SIZE
) -> Iterator[tuple[Photograph, list[Twin[Photograph]]]]:
    """Without end, of these species (positions in their guide) in turn: a photograph, and twins of
    another one of the same species, each with the colour of one mark exchanged, `most` at most."""
    guide, rng = make_species(classes, seed, difficulty), np.random.default_rng(0)
    colours = [mark for mark in EXCHANGEABLE if mark.endswith("color")]
    for number, index in enumerate(cycle(species)):
        keys = [(seed, index, FIRST_MATCH + 2 * number + side) for side in range(2)]
        query, match = (field_photograph(guide[index], key, size, difficulty) for key in keys)
        yield query, list(islice(exchanges(match, (), rng, colours), most))


def exchanges(
    photograph: Photograph, siblings: Sequence[Species], rng, marks: Sequence[str] = EXCHANGEABLE
) -> Iterator[Twin[Photograph]]:
    """The marks of a photograph in random order, each exchanged for the first of `other_values`
    that is seen; marks of which none is are left out."""
    left_out = 0
    for mark in map(str, rng.permutation(marks)):
        for value in other_values(photograph, mark, siblings, rng):
            try:
                made = twin(photograph, mark, value)
            except NoTwin:
                left_out += 1
                continue
            yield replace(made, left_out=left_out)
            left_out = 0
            break


def other_values(photograph: Photograph, mark: str, siblings: Sequence[Species], rng) -> list[str]:
    """What a mark may be exchanged for, in random order: first the siblings' own values.

    Colours that are too like the present one, and the species' own value, are left out.
    """
    individual = photograph.individual
    taken = {individual.marks[mark], individual.species.marks[mark]}
    values = [value for value in VOCABULARY[mark] if value not in taken]
    if mark in CANDIDATES:
        now = np.array(PALETTE[individual.marks[mark]], float)
        values = [
            value
            for value in values
            if value in CANDIDATES[mark]
            and np.linalg.norm(now - PALETTE[value]) >= CONTRAST["standard"]
        ]
    wanted = {one.marks[mark] for one in siblings}
    shuffled = [str(value) for value in rng.permutation(values)] if values else []
    return sorted(shuffled, key=lambda value: value not in wanted)


def _sitting(photograph: Photograph) -> Sitting:
    if photograph.sitting is None:
        raise ValueError("a portrait has no twin: give a photograph made by field_photograph")
    return photograph.sitting


def _part(photograph: Photograph, mark: str) -> np.ndarray:
    """(side, side) bool: the visible parts on which a mark is drawn."""
    names = DRAWN_ON[mark]
    part = np.isin(photograph.parts, [PART[name] for name in names if name != FACE])
    return part | photograph.face if FACE in names else part


def _reach(photograph: Photograph, mark: str) -> int:
    """How many pixels around its part a mark can change: by blur, and by the edges of shapes."""
    sitting = _sitting(photograph)
    reach = EDGE + _radius(sitting.blur) + _radius(sitting.defocus)
    if mark in OUTLINES:
        reach += max(map(_radius, softness(sitting.scale))) + round(SHADOW * sitting.scale)
    return reach


def _radius(sigma: float) -> int:
    """Of OpenCV's kernel for a Gaussian blur of 8-bit pictures."""
    return round(6 * sigma + 1) // 2 if sigma else 0


def _widened(mask: np.ndarray, reach: int) -> np.ndarray:
    kernel = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
    return cv2.dilate(mask.view(np.uint8), kernel) > 0
