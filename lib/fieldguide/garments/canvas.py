"""What garments are drawn on: pieces of cloth with relief, lit from one side, seams and buttons.

Garment units: about 2 across a whole garment, x to the right, y down.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from fieldguide.garments.fabrics import Fabric, fabric_tile, is_smooth

SUPERSAMPLE = 2
SUBPIXEL_BITS = 4
LARGEST_TILE = 640  # pixels of one unit of cloth; a closer look enlarges it
DISC = np.stack(
    [
        np.cos(np.linspace(0, 2 * np.pi, 14, endpoint=False)),
        np.sin(np.linspace(0, 2 * np.pi, 14, endpoint=False)),
    ],
    axis=1,
)
_T = np.arange(6, dtype=np.float32)[:, None] / 6
# Catmull-Rom: weights of four neighbouring points at six steps between the middle two, (6, 4).
_SPLINE = 0.5 * np.hstack(
    [-_T + 2 * _T**2 - _T**3, 2 - 5 * _T**2 + 3 * _T**3, _T + 4 * _T**2 - 3 * _T**3, _T**3 - _T**2]
).astype(np.float32)


def run(*points) -> np.ndarray:
    """A smooth line (n, 2) through the points; two points: the straight line between them."""
    p = np.array(points, np.float32)
    if len(p) < 3:
        return p
    p = np.concatenate([2 * p[:1] - p[1:2], p, 2 * p[-1:] - p[-2:-1]])
    windows = p[np.arange(len(p) - 3)[:, None] + np.arange(4)]  # (n - 1, 4, 2)
    return np.concatenate([(_SPLINE @ windows).reshape(-1, 2), p[-2:-1]])


def outline(*runs) -> np.ndarray:
    """A closed outline from smooth runs, each a list of points; it has corners where runs meet."""
    return np.concatenate([each if isinstance(each, np.ndarray) else run(*each) for each in runs])


def mirrored(points) -> np.ndarray:
    return np.asarray(points, np.float32) * (-1, 1)


def symmetric(*runs) -> np.ndarray:
    """The closed outline whose right half, from top to bottom, is given."""
    half = outline(*runs)
    return np.concatenate([half, mirrored(half)[::-1]]).astype(np.float32)


def strip(points, widths) -> np.ndarray:
    """A band along a smooth line through `points`; widths: full, one or one at each point."""
    middle = run(*points)
    widths = np.atleast_1d(widths)
    width = np.interp(np.linspace(0, 1, len(middle)), np.linspace(0, 1, len(widths)), widths)
    side = 0.5 * width[:, None] * _across(middle)
    return np.concatenate([middle + side, (middle - side)[::-1]]).astype(np.float32)


def _across(line: np.ndarray) -> np.ndarray:
    """Unit vectors across a line, at each of its points."""
    along = np.empty_like(line)
    along[1:-1] = line[2:] - line[:-2]
    along[0], along[-1] = line[1] - line[0], line[-1] - line[-2]
    across = along[:, ::-1] * np.array((1, -1), line.dtype)
    return across / np.maximum(np.sqrt((across * across).sum(axis=1, keepdims=True)), 1e-6)


def ellipse(centre, rx: float, ry: float | None = None) -> np.ndarray:
    return (np.array(centre) + DISC * (rx, rx if ry is None else ry)).astype(np.float32)


def _unit(vector) -> list[float]:
    return (np.asarray(vector, float) / np.linalg.norm(vector)).tolist()


@dataclass(frozen=True)
class Fold:
    """A crease (depth < 0) or ridge (depth > 0) along a line, widest in its middle."""

    points: np.ndarray
    width: float
    depth: float


@dataclass(frozen=True)
class Piece:
    """One panel of cloth."""

    outline: np.ndarray
    fabric: Fabric
    angle: float = 0.0  # degrees by which the cloth lies turned
    anchor: tuple[float, float] = (0.0, 0.0)  # where the print has its origin
    folds: tuple[Fold, ...] = ()
    puff: float = 0.06  # how far the edge is rounded
    lift: float = 0.35  # how dark a shadow it throws on what lies below
    wearer: bool = False  # the mannequin's, not the garment's

    def draw(self, canvas: Canvas) -> None:
        canvas.piece(self)


@dataclass(frozen=True)
class Seam:
    """A line in the cloth that darkens (tone < 1) whatever is printed there."""

    points: np.ndarray
    tone: float = 0.66
    width: float = 0.012

    def draw(self, canvas: Canvas) -> None:
        canvas.seam(self)


@dataclass(frozen=True)
class Thread:
    """Lines of one colour; dash: length of a stitch, 0 for a solid line."""

    points: np.ndarray
    colour: tuple
    width: float = 0.012
    dash: float = 0.0

    def draw(self, canvas: Canvas) -> None:
        canvas.thread(self)


@dataclass(frozen=True)
class Buttons:
    centres: tuple
    radius: float
    colour: tuple

    def draw(self, canvas: Canvas) -> None:
        canvas.buttons(self)


def flipped(part):
    """A part (Piece, Seam, Thread or Buttons) as it is on the left, given that on the right."""
    if isinstance(part, Piece):
        return replace(
            part,
            outline=mirrored(part.outline),
            angle=-part.angle,
            anchor=(-part.anchor[0], part.anchor[1]),
            folds=tuple(replace(fold, points=mirrored(fold.points)) for fold in part.folds),
        )
    if isinstance(part, Buttons):
        return replace(part, centres=tuple((-x, y) for x, y in part.centres))
    return replace(part, points=mirrored(part.points))


class Canvas:
    """Colour (premultiplied, supersampled), seams, relief, occlusion, gloss, in garment units."""

    def __init__(self, side: int, scale: float, origin, turn: float = 0.0, flip: bool = False):
        """scale: pixels of one unit; origin: pixel of point (0, 0); turn: degrees, clockwise."""
        self.side, self.scale = side, float(scale)
        angle = np.radians(turn)
        self.matrix = scale * np.array(
            [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        )
        if flip:
            self.matrix[:, 0] *= -1
        self.origin = np.array(origin, float)
        self.inverse = np.linalg.inv(self.matrix)
        fine = side * SUPERSAMPLE
        self.colour = np.zeros((fine, fine, 3), np.uint8)
        self.alpha = np.zeros((fine, fine), np.uint8)
        self.tone = np.full((fine, fine), 255, np.uint8)
        self.height = np.zeros((side, side), np.float32)
        self.occlusion = np.ones((side, side), np.float32)
        self.gloss = np.zeros((side, side), np.float32)
        self.mask = np.zeros((side, side), np.float32)  # the garment without the mannequin

    def pixels(self, points) -> np.ndarray:
        return np.asarray(points) @ self.matrix.T + self.origin

    def _fixed(self, points, shift=(0, 0)) -> np.ndarray:
        return np.rint(
            ((self.pixels(points) - shift) * SUPERSAMPLE + 0.5 * (SUPERSAMPLE - 1))
            * (1 << SUBPIXEL_BITS)
        ).astype(np.int32)

    def piece(self, piece: Piece) -> None:
        sigma = max(0.7, piece.puff * self.scale)
        pixels, pad = self.pixels(piece.outline), int(2.2 * sigma) + 2
        (x0, y0), (x1, y1) = (
            np.floor(pixels.min(axis=0)).astype(int) - pad,
            np.ceil(pixels.max(axis=0)).astype(int) + pad,
        )
        x0, y0, x1, y1 = max(x0, 0), max(y0, 0), min(x1, self.side), min(y1, self.side)
        if x1 - x0 < 2 or y1 - y0 < 2:
            return
        area, fine = (
            np.s_[y0:y1, x0:x1],
            np.s_[SUPERSAMPLE * y0 : SUPERSAMPLE * y1, SUPERSAMPLE * x0 : SUPERSAMPLE * x1],
        )
        wide, high = (x1 - x0) * SUPERSAMPLE, (y1 - y0) * SUPERSAMPLE
        shape = np.zeros((high, wide), np.uint8)
        cv2.fillPoly(shape, [self._fixed(piece.outline, (x0, y0))], 255, cv2.LINE_AA, SUBPIXEL_BITS)

        over = shape.astype(np.float32) * (1 / 255)
        self.colour[fine] = cv2.blendLinear(
            self._cloth(piece, x0, y0, wide, high), self.colour[fine], over, 1 - over
        )
        self.alpha[fine] = cv2.max(self.alpha[fine], shape)
        self.tone[fine] = cv2.max(self.tone[fine], shape)

        inside = cv2.resize(shape, (x1 - x0, y1 - y0), interpolation=cv2.INTER_AREA).astype(
            np.float32
        ) * (1 / 255)
        soft = cv2.GaussianBlur(inside, (0, 0), sigma)
        under = 1 - inside
        relief = soft * (sigma * min(1.0, 0.35 + 12 * piece.puff))  # thin things lie flat
        if piece.folds:
            relief += self._folds(piece.folds, x0, y0, inside.shape)
        if not piece.wearer:
            self.mask[area] = np.maximum(self.mask[area], inside)
        else:
            self.mask[area] *= under
        # What lies below is darker near the piece, most away from the light, to the lower right.
        step = max(1, round(0.3 * sigma))
        kept = under.copy()
        kept[step:, step:] *= 1 - piece.lift * soft[:-step, :-step]
        self.occlusion[area] = self.occlusion[area] * kept + inside * np.clip(
            0.28 * soft + 0.72, 0.86, 1
        )
        self.height[area] = self.height[area] * under + inside * relief
        if piece.fabric.gloss or self.gloss.any():
            self.gloss[area] = self.gloss[area] * under + inside * piece.fabric.gloss

    def _cloth(self, piece: Piece, x0: int, y0: int, wide: int, high: int) -> np.ndarray:
        """The part of the cloth that lies on these pixels."""
        if is_smooth(piece.fabric):
            cloth = np.empty((high, wide, 3), np.uint8)
            cloth[:] = np.rint(piece.fabric.colour)
            return cloth
        # In steps, so that pictures of one garment at about the same size share its cloth.
        pixels = min(48 * int(np.ceil(1.5 * self.scale / 48)), LARGEST_TILE)
        tile = fabric_tile(piece.fabric, pixels)
        angle = np.radians(-piece.angle)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        linear = pixels * turn @ self.inverse / SUPERSAMPLE
        corner = np.array([x0, y0]) - 0.25 - self.origin
        offset = pixels * turn @ (self.inverse @ corner - piece.anchor)
        # The cloth repeats: multiples of a repeat change nothing; it is laid out as far as needed.
        offset %= pixels
        corners = np.array([[0, 0], [wide, 0], [0, high], [wide, high]]) @ linear.T + offset
        (left, up), (right, down) = (
            np.floor(corners.min(axis=0)).astype(int) - 1,
            np.ceil(corners.max(axis=0)).astype(int) + 2,
        )
        left, up, right, down = (
            max(-left, 0),
            max(-up, 0),
            max(right - pixels, 0),
            max(down - pixels, 0),
        )
        laid = cv2.copyMakeBorder(tile, up, down, left, right, cv2.BORDER_WRAP)
        matrix = np.hstack([linear, (offset + (left, up))[:, None]])
        return cv2.warpAffine(
            laid, matrix, (wide, high), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        )

    def _folds(self, folds, x0: int, y0: int, shape) -> np.ndarray:
        relief = np.zeros(shape, np.float32)
        for fold in folds:
            taper = (
                np.sin(np.linspace(0.12, np.pi - 0.12, len(fold.points))) * fold.width * self.scale
            )
            middle = self.pixels(fold.points) - (x0, y0)
            side = 0.5 * taper[:, None] * _across(middle)
            polygon = np.concatenate([middle + side, (middle - side)[::-1]])
            cv2.fillPoly(
                relief,
                [np.rint(polygon * 16).astype(np.int32)],
                fold.depth * self.scale,
                cv2.LINE_8,
                SUBPIXEL_BITS,
            )
        return cv2.GaussianBlur(relief, (0, 0), max(0.8, 0.022 * self.scale))

    def seam(self, seam: Seam) -> None:
        thickness = max(1, round(seam.width * self.scale * SUPERSAMPLE))
        cv2.polylines(
            self.tone,
            [self._fixed(seam.points)],
            False,
            255 * seam.tone,
            thickness,
            cv2.LINE_AA,
            SUBPIXEL_BITS,
        )

    def thread(self, thread: Thread) -> None:
        thickness = max(1, round(thread.width * self.scale * SUPERSAMPLE))
        lines = [thread.points]
        if thread.dash:
            length = np.concatenate(
                [[0], np.cumsum(np.linalg.norm(np.diff(thread.points, axis=0), axis=1))]
            )
            starts = np.arange(0, length[-1], 1.7 * thread.dash)
            ends = np.minimum(starts + thread.dash, length[-1])
            lines = [
                np.stack(
                    [
                        [np.interp(s, length, thread.points[:, axis]) for axis in (0, 1)]
                        for s in pair
                    ]
                )
                for pair in zip(starts, ends, strict=True)
            ]
        fixed = [self._fixed(line) for line in lines]
        cv2.polylines(
            self.colour,
            fixed,
            False,
            tuple(map(float, thread.colour)),
            thickness,
            cv2.LINE_AA,
            SUBPIXEL_BITS,
        )
        for plane in (self.tone, self.alpha):  # a chain hangs beside the bag
            cv2.polylines(plane, fixed, False, 255, thickness, cv2.LINE_AA, SUBPIXEL_BITS)

    def buttons(self, buttons: Buttons) -> None:
        colour = np.array(buttons.colour, float)
        for centre in buttons.centres:
            centre = np.array(centre)
            shadow = self._fixed(centre + 0.18 * buttons.radius + 1.25 * buttons.radius * DISC)
            cv2.fillPoly(self.tone, [shadow], 150, cv2.LINE_AA, SUBPIXEL_BITS)
            disc = self._fixed(centre + buttons.radius * DISC)
            cv2.fillPoly(self.tone, [disc], 255, cv2.LINE_AA, SUBPIXEL_BITS)
            cv2.fillPoly(self.colour, [disc], tuple(colour), cv2.LINE_AA, SUBPIXEL_BITS)
            shine = self._fixed(centre - 0.25 * buttons.radius + 0.42 * buttons.radius * DISC)
            cv2.fillPoly(
                self.colour,
                [shine],
                tuple(colour + 0.35 * (255 - colour)),
                cv2.LINE_AA,
                SUBPIXEL_BITS,
            )

    def compose(
        self,
        scene: np.ndarray,
        light: tuple[float, float, float] = (-0.42, -0.55, 0.72),
        contrast: float = 0.78,
    ) -> np.ndarray:
        """What was drawn, lit and laid on a scene: (side, side, 3) float32 RGB.

        scene: (side, side, 3) RGB; light: its direction, y down.
        """
        side = self.side
        light = _unit(light)
        halfway = _unit((light[0], light[1], light[2] + 1))
        height = cv2.GaussianBlur(self.height, (0, 0), max(0.6, 0.005 * side))
        gx, gy = (
            cv2.Sobel(height, cv2.CV_32F, 1, 0, scale=1 / 8),
            cv2.Sobel(height, cv2.CV_32F, 0, 1, scale=1 / 8),
        )
        np.clip(gx, -0.65, 0.65, out=gx)  # where one piece ends upon another there is a step
        np.clip(gy, -0.65, 0.65, out=gy)
        norm = 1 / np.sqrt(1 + gx * gx + gy * gy)
        shade = (light[2] - light[0] * gx - light[1] * gy) * norm * (contrast / light[2]) + (
            1 - contrast
        )
        np.clip(shade, 0.45, 1.30, out=shade)
        shade *= self.occlusion
        shine = (halfway[2] - halfway[0] * gx - halfway[1] * gy) * norm
        shine = np.clip((shine - 0.90) * 10, 0, 1) ** 2 * self.gloss * 150
        colour = cv2.multiply(
            self.colour, cv2.cvtColor(self.tone, cv2.COLOR_GRAY2RGB), scale=1 / 255
        )
        colour = cv2.resize(colour, (side, side), interpolation=cv2.INTER_AREA).astype(np.float32)
        alpha = cv2.resize(self.alpha, (side, side), interpolation=cv2.INTER_AREA).astype(
            np.float32
        ) * (1 / 255)
        lit = cv2.multiply(colour, cv2.merge([shade, shade, shade]))
        shine *= alpha
        behind = 1 - alpha
        return lit + cv2.merge([shine, shine, shine]) + scene * cv2.merge([behind, behind, behind])
