"""What a bird is painted on: colour with transparency, the map of parts, and the shade."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import numpy as np

from fieldguide.birds.species import PALETTE

# CUB's parts, in its order; a part's number is its place here plus one.
PARTS = (
    "back",
    "beak",
    "belly",
    "breast",
    "crown",
    "forehead",
    "left eye",
    "left leg",
    "left wing",
    "nape",
    "right eye",
    "right leg",
    "right wing",
    "tail",
    "throat",
)
PART = {name: number for number, name in enumerate(PARTS, start=1)}
FACE = len(PARTS) + 1  # CUB has no cheek among its parts: the face between them belongs to none
SUPERSAMPLE = 2
SUBPIXEL_BITS = 4
NEUTRAL_SHADE = 128  # the shade canvas holds brightness in 1/128
# A unit circle, (16, 2).
CIRCLE = np.stack(
    [
        np.cos(np.linspace(0, 2 * np.pi, 16, endpoint=False)),
        np.sin(np.linspace(0, 2 * np.pi, 16, endpoint=False)),
    ],
    axis=1,
)


class Canvas:
    """Colour (premultiplied RGBA, supersampled), part numbers and shade, drawn in body units."""

    def __init__(self, side: int, scale: float, origin: tuple[float, float], flip: bool):
        """side: pixels; scale: pixels for one body unit; origin: pixel of body point (0, 0)."""
        self.side, self.scale, self.flip = side, scale, flip
        self.matrix = np.array([-scale if flip else scale, -scale], dtype=np.float32)
        self.origin = np.array(origin, dtype=np.float32)
        self.colour = np.zeros((side * SUPERSAMPLE, side * SUPERSAMPLE, 4), np.uint8)
        self.parts = np.zeros((side, side), np.uint8)
        self.shade = np.full((side, side), NEUTRAL_SHADE, np.uint8)

    def pixels(self, points) -> np.ndarray:
        return points * self.matrix + self.origin

    def _fixed(self, points) -> tuple[np.ndarray, np.ndarray]:
        """Fixed-point pixels on the supersampled canvas and on the plain ones."""
        fine = ((points * self.matrix + self.origin) * (SUPERSAMPLE << SUBPIXEL_BITS)).astype(
            np.int32
        )
        return fine + ((SUPERSAMPLE - 1) << SUBPIXEL_BITS) // 2, fine // SUPERSAMPLE

    @contextmanager
    def within(self, outline) -> Iterator[None]:
        """What is painted meanwhile ends at a closed outline (n, 2), given in body units.

        It must be opaque there and reach beyond. So no colour below another shines through along
        an edge that both share, and a mark is seen nowhere but on its own part.
        """
        below = self.colour, self.parts, self.shade
        self.colour, self.parts, self.shade = (plane.copy() for plane in below)
        yield
        painted = self.colour, self.parts, self.shade
        self.colour, self.parts, self.shade = below
        fine, plain = self._fixed(outline)
        x0, y0, x1, y1 = (
            max(0, int(plain[:, 0].min() >> SUBPIXEL_BITS) - 1),
            max(0, int(plain[:, 1].min() >> SUBPIXEL_BITS) - 1),
            int(plain[:, 0].max() >> SUBPIXEL_BITS) + 3,
            int(plain[:, 1].max() >> SUBPIXEL_BITS) + 3,
        )
        area, inside = np.s_[y0:y1, x0:x1], np.zeros((self.side, self.side), np.uint8)
        cv2.fillPoly(inside, [plain], 255, cv2.LINE_8, SUBPIXEL_BITS)
        for plane, above in zip(below[1:], painted[1:], strict=True):
            cv2.copyTo(above[area], inside[area], plane[area])
        area = np.s_[SUPERSAMPLE * y0 : SUPERSAMPLE * y1, SUPERSAMPLE * x0 : SUPERSAMPLE * x1]
        cover = np.zeros(self.colour.shape[:2], np.uint8)
        cv2.fillPoly(cover, [fine], 255, cv2.LINE_AA, SUBPIXEL_BITS)
        share = cover[area].astype(np.float32) * (1 / 255)
        if share.size:
            self.colour[area] = cv2.blendLinear(
                painted[0][area], self.colour[area], share, 1 - share
            )

    def fill(self, points, colour, part: int | None = None, shade: float | None = None) -> None:
        """A polygon (n, 2) in one colour (3,); with `part`, its pixels become that part.

        points None: nothing is drawn; colour None: only the part and the shade.
        """
        if points is None:
            return
        fine, plain = self._fixed(points)
        if colour is not None:
            cv2.fillPoly(
                self.colour, [fine], (*map(float, colour), 255.0), cv2.LINE_AA, SUBPIXEL_BITS
            )
        if part is not None:
            cv2.fillPoly(self.parts, [plain], part, cv2.LINE_8, SUBPIXEL_BITS)
        if shade is not None:
            cv2.fillPoly(
                self.shade, [plain], min(max(shade, 0.0), 255.0), cv2.LINE_AA, SUBPIXEL_BITS
            )

    def fill_many(self, polygons, colour, part: int | None = None) -> None:
        """(n, k, 2) small polygons in one colour; with `part`, their pixels become that part."""
        if not len(polygons):
            return
        fine, plain = self._fixed(polygons)
        cv2.fillPoly(
            self.colour, list(fine), (*map(float, colour), 255.0), cv2.LINE_AA, SUBPIXEL_BITS
        )
        if part is not None:
            cv2.fillPoly(self.parts, list(plain), part, cv2.LINE_8, SUBPIXEL_BITS)

    def line(self, points, colour, width: float) -> None:
        """A polyline (n, 2), or several (m, n, 2); width in body units."""
        points = np.asarray(points)
        fine, _ = self._fixed(points)
        lines = [fine] if points.ndim == 2 else list(fine)
        thickness = max(1, round(width * self.scale * SUPERSAMPLE))
        cv2.polylines(
            self.colour,
            lines,
            False,
            (*map(float, colour), 255.0),
            thickness,
            cv2.LINE_AA,
            SUBPIXEL_BITS,
        )


def darker(colour, amount: float = 0.25):
    return np.asarray(colour) * (1 - amount)


def lighter(colour, amount: float = 0.25):
    return np.asarray(colour) + (255 - np.asarray(colour)) * amount


def luminance(colour) -> float:
    return float(np.dot(colour, (0.3, 0.59, 0.11)))


def contrasting(base, light="white", dark="black") -> np.ndarray:
    """The dark or the light marking colour, whichever shows on `base`."""
    return np.array(PALETTE[dark if luminance(base) > 105 else light], dtype=np.float32)
