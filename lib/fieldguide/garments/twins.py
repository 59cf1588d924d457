"""Counterfactual twins of garments: a photograph twice, one attribute or the backdrop exchanged.

    attribute_twin(photograph(garment), "colour", "red")
    attribute_twin(photograph(garment), "belted", "present")
    backdrop_twin(photograph(garment, 3))

Cut, place in the frame, light and noise are the first picture's, and its backdrop too where that is
not what is exchanged. Outside `Twin.changed` both pictures are equal to the bit.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from dataclasses import replace

import cv2
import numpy as np

from fieldguide.checks import one_of, whole_numbers
from fieldguide.exchange import SEEN, NoTwin, Twin, difference, seen
from fieldguide.garments.attributes import KINDS, PRINTABLE, VOCABULARY, Garment
from fieldguide.garments.canvas import DISC, SUBPIXEL_BITS, Buttons, Canvas, Piece
from fieldguide.garments.fabrics import PALETTE, luminance
from fieldguide.garments.shots import Photograph, canvas_of, layers, shoot

GROUPS = ("colour", "pattern", "material", "sleeve", "neckline", "length", "heel")
LEAST_SHARE = 0.0015  # of the pixels must differ visibly: 75 of 224 x 224
ABSENT, PRESENT = "absent", "present"
BACKDROP = "backdrop"


def attributes_of(garment: Garment) -> dict[str, str]:
    """The attributes of this garment that can be exchanged, with their present values."""
    kind = KINDS[garment.kind]
    own = {group: getattr(garment, group) for group in GROUPS if getattr(garment, group)}
    return own | {name: PRESENT if garment.has(name) else ABSENT for name in kind.details}


def other_values(garment: Garment, attribute: str) -> list[str]:
    """What an attribute may be exchanged for, so that such a garment is in the catalogue too."""
    kind = KINDS[garment.kind]
    if attribute in kind.details:
        return [ABSENT if garment.has(attribute) else PRESENT]
    values: Iterable[str] = {
        "colour": VOCABULARY["colour"],
        "pattern": VOCABULARY["pattern"] if garment.material in PRINTABLE else (),
        "material": kind.materials,
        "sleeve": kind.sleeves,
        "neckline": kind.necklines,
        "length": kind.lengths,
        "heel": kind.heels,
    }[attribute]
    now = getattr(garment, attribute)
    values = [value for value in dict.fromkeys(values) if value not in ("", now)]
    if attribute == "colour" and garment.pattern != "plain":  # its print must show
        print_tone = luminance(PALETTE[garment.second])
        values = [one for one in values if abs(luminance(PALETTE[one]) - print_tone) > 55]
    if attribute == "material" and garment.pattern != "plain":
        values = [one for one in values if one in PRINTABLE]
    return values


def attribute_twin(photograph: Photograph, attribute: str, value: str) -> Twin[Photograph]:
    """The photograph again with one attribute of the garment exchanged.

    attribute, value: of `attributes_of` and `other_values`; details are "present" or "absent".

    Raises ValueError for another attribute or value, and its subclass NoTwin where the exchange is
    not to be seen in this picture. `Twin.shown` is where the pieces, seams, threads and buttons are
    seen that the exchange makes or changes.
    """
    garment, frame = photograph.garment, photograph.frame
    present = attributes_of(garment)
    one_of("attribute", attribute, present)
    one_of(attribute, value, other_values(garment, attribute))
    if attribute in KINDS[garment.kind].details:
        names = {*garment.details, attribute} - ({attribute} if value == ABSENT else set())
        ordered = tuple(name for name in VOCABULARY["detail"] if name in names)
        other = replace(garment, details=ordered)
    else:
        other = replace(garment, **{attribute: value})
    second = shoot(other, frame)
    apart = difference(photograph.image, second.image)
    if not seen(apart, LEAST_SHARE):
        raise NoTwin(f"{attribute} {value} is not to be seen in this picture: take another")
    first_seen, second_seen = (_seen_parts(one, frame) for one in (garment, other))
    part = np.zeros(photograph.mask.shape, bool)
    for own, others in ((first_seen, second_seen), (second_seen, first_seen)):
        for key, place in own.items():
            if key not in others:
                part |= place
    return Twin(photograph, second, attribute, present[attribute], value, apart > 0, part)


def backdrop_twin(photograph: Photograph, number: int = 1) -> Twin[Photograph]:
    """The photograph again on another floor or before another wall; number: which one, from 1 on.

    Garment and wearer keep their pixels, but for edges through which the backdrop shows: it is all
    of `Twin.shown`. Raises NoTwin where this backdrop looks the same, as all paper does.
    """
    whole_numbers({"number": number}, {"number": 1})
    garment, frame = photograph.garment, photograph.frame
    second = shoot(garment, replace(frame, streams=frame.streams.exchange("scene", number)))
    apart = difference(photograph.image, second.image)
    canvas = canvas_of(frame)
    for part in layers(garment, frame.view):
        part.draw(canvas)
    behind = cv2.resize(canvas.alpha, (frame.size,) * 2, interpolation=cv2.INTER_AREA) < 255
    if not behind.any() or (apart[behind] >= SEEN).mean() < 0.5:
        raise NoTwin(f"backdrop {number} looks like the first: take another number, or picture")
    return Twin(photograph, second, BACKDROP, "", "", apart > 0, behind)


def _seen_parts(garment: Garment, frame) -> dict[bytes, np.ndarray]:
    """What is drawn of a garment, and where each piece, seam, thread and button is the topmost."""
    canvas, parts = canvas_of(frame), layers(garment, frame.view)
    top = np.zeros((frame.size, frame.size), np.float32)
    for number, part in enumerate(parts, start=1):
        _outline(part, canvas, top, number)
    places: dict[bytes, np.ndarray] = {}
    for number, part in enumerate(parts, start=1):
        key = pickle.dumps(part)  # parts hold arrays, which == does not compare
        places[key] = places.get(key, False) | (top == number)
    return places


def _outline(part, canvas: Canvas, top: np.ndarray, number: int) -> None:
    def fixed(points) -> np.ndarray:
        return np.rint(canvas.pixels(points) * (1 << SUBPIXEL_BITS)).astype(np.int32)

    if isinstance(part, Piece):
        cv2.fillPoly(top, [fixed(part.outline)], number, cv2.LINE_8, SUBPIXEL_BITS)
    elif isinstance(part, Buttons):
        for centre in part.centres:
            disc = fixed(np.array(centre) + part.radius * DISC)
            cv2.fillPoly(top, [disc], number, cv2.LINE_8, SUBPIXEL_BITS)
    else:
        width = max(1, round(part.width * canvas.scale))
        line = [fixed(part.points)]
        cv2.polylines(top, line, False, number, width, cv2.LINE_8, SUBPIXEL_BITS)
