"""Cloth: woven, printed or tanned, as a square of one garment unit that repeats without a seam."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

PALETTE = {
    "black": (44, 43, 47),
    "white": (236, 234, 228),
    "grey": (152, 154, 158),
    "beige": (216, 196, 164),
    "brown": (124, 84, 56),
    "navy": (46, 58, 92),
    "blue": (92, 142, 200),
    "turquoise": (70, 166, 164),
    "green": (78, 122, 82),
    "yellow": (226, 182, 76),
    "orange": (218, 122, 66),
    "red": (190, 48, 52),
    "pink": (230, 162, 174),
    "purple": (128, 98, 160),
}
COLOURS = tuple(PALETTE)
PATTERNS = ("plain", "striped", "checkered", "dotted", "floral")
SMOOTH = ("silk", "metal", "rubber", "mannequin")
# How strongly light glances off, and how deep folds are, for each material.
GLOSS = {"leather": 0.85, "silk": 0.55, "metal": 1.0, "rubber": 0.15, "mannequin": 0.25}
DRAPE = {
    "silk": 1.35,
    "cotton": 1.0,
    "denim": 0.8,
    "knitted": 0.75,
    "wool": 0.7,
    "leather": 0.9,
    "suede": 0.6,
    "canvas": 0.7,
}


@dataclass(frozen=True)
class Fabric:
    """A cloth: its colours as RGB, what is printed on it and what it is made of."""

    colour: tuple[float, float, float]
    material: str = "cotton"
    pattern: str = "plain"
    second: tuple[float, float, float] = (255, 255, 255)
    repeats: int = 6  # of the print in one unit
    variant: int = 0  # of the pattern: direction, kind of check, arrangement of flowers

    @property
    def gloss(self) -> float:
        return GLOSS.get(self.material, 0.0)

    @property
    def drape(self) -> float:
        return DRAPE.get(self.material, 1.0)


def darker(colour, amount: float = 0.25) -> tuple:
    return tuple((np.asarray(colour, float) * (1 - amount)).tolist())


def lighter(colour, amount: float = 0.25) -> tuple:
    colour = np.asarray(colour, float)
    return tuple((colour + (255 - colour) * amount).tolist())


def luminance(colour) -> float:
    return float(np.dot(colour, (0.3, 0.59, 0.11)))


@lru_cache(maxsize=24)
def fabric_tile(fabric: Fabric, pixels: int) -> np.ndarray:
    """(pixels, pixels, 3) uint8: one unit of the cloth."""
    weave = _weave(fabric.material, pixels)
    if fabric.pattern == "floral":
        channels = cv2.split(_flowers(fabric, pixels).astype(np.float32))
    elif fabric.pattern == "plain":
        channels = fabric.colour
    else:
        share = _PRINTS[fabric.pattern](fabric, pixels).astype(np.float32)
        channels = [
            base + (second - base) * share
            for base, second in zip(fabric.colour, fabric.second, strict=True)
        ]
    # A weave shows on dark cloth too: it adds light there besides scaling it.
    channels = [channel + weave * (channel + 40) for channel in channels]
    return np.clip(cv2.merge(channels), 0, 255).astype(np.uint8)


def is_smooth(fabric: Fabric) -> bool:
    """One colour all over."""
    return fabric.pattern == "plain" and fabric.material in SMOOTH


def _band(position, repeats: int, duty: float, pixels: int) -> np.ndarray:
    """1 inside the bands, 0 between them, with edges one pixel soft; position in units."""
    phase = np.abs((position * repeats) % 1 - 0.5) * 2  # 1 at the middle of a band's gap
    return np.clip((duty - phase) * pixels / (2 * repeats) + 0.5, 0, 1).astype(np.float32)


def _axes(pixels: int) -> tuple[np.ndarray, np.ndarray]:
    place = (np.arange(pixels) + 0.5) / pixels
    return place[None, :], place[:, None]


def _stripes(fabric: Fabric, pixels: int) -> np.ndarray:
    u, v = _axes(pixels)
    along = u if fabric.variant % 2 else v
    kind = fabric.variant // 2 % 3
    bands = _band(along, fabric.repeats, (0.5, 0.28, 0.32)[kind], pixels)
    if kind == 2:  # a wide and a narrow stripe
        bands = np.maximum(bands, _band(along + 0.5 / fabric.repeats, fabric.repeats, 0.12, pixels))
    return np.broadcast_to(bands, (pixels, pixels))


def _checks(fabric: Fabric, pixels: int) -> np.ndarray:
    u, v = _axes(pixels)
    kind = fabric.variant % 3
    if kind == 0:  # gingham
        return 0.5 * (_band(u, fabric.repeats, 0.5, pixels) + _band(v, fabric.repeats, 0.5, pixels))
    if kind == 1:  # window pane
        return np.maximum(
            _band(u, fabric.repeats, 0.16, pixels), _band(v, fabric.repeats, 0.16, pixels)
        )
    wide = 0.45 * (_band(u, fabric.repeats, 0.5, pixels) + _band(v, fabric.repeats, 0.5, pixels))
    half = 0.5 / fabric.repeats
    thin = np.maximum(
        _band(u + half, fabric.repeats, 0.10, pixels), _band(v + half, fabric.repeats, 0.10, pixels)
    )
    return np.maximum(wide, 0.85 * thin)  # tartan


def _dots(fabric: Fabric, pixels: int) -> np.ndarray:
    u, v = _axes(pixels)
    repeats, radius = fabric.repeats, 0.20 + 0.05 * (fabric.variant % 3)
    share = np.zeros((pixels, pixels), np.float32)
    for shift in (0.0, 0.5):  # staggered rows
        du = (u * repeats + shift) % 1 - 0.5
        dv = (v * repeats + shift) % 1 - 0.5
        distance = np.sqrt(du * du + dv * dv)
        share = np.maximum(share, np.clip((radius - distance) * pixels / repeats + 0.5, 0, 1))
    return share


_PRINTS = {"striped": _stripes, "checkered": _checks, "dotted": _dots}
_PETALS = np.linspace(0, 2 * np.pi, 40, endpoint=False)


def _flowers(fabric: Fabric, pixels: int) -> np.ndarray:
    rng = np.random.default_rng([0xF10E, fabric.variant])
    tile = np.empty((pixels, pixels, 3), np.uint8)
    tile[:] = np.array(fabric.colour, np.uint8)
    rows = max(3, fabric.repeats // 2)
    heart = (
        lighter(fabric.colour, 0.55)
        if luminance(fabric.colour) < 120
        else darker(fabric.colour, 0.35)
    )
    leaf = 0.55 * np.array((96, 132, 92)) + 0.45 * np.array(fabric.colour)
    tints = [
        np.array(fabric.second),
        np.array(lighter(fabric.second, 0.30)),
        np.array(darker(fabric.second, 0.18)),
    ]
    for row in range(rows):
        for column in range(rows):
            centre = (
                np.array([column + 0.5 * (row % 2), row]) + rng.uniform(-0.22, 0.22, 2)
            ) / rows
            size, turn, petals = (
                rng.uniform(0.30, 0.46) / rows,
                rng.uniform(0, 6.3),
                int(rng.integers(5, 7)),
            )
            tint = tints[int(rng.integers(3))]
            bloom = (
                size
                * (0.72 + 0.28 * np.cos(petals * _PETALS))[:, None]
                * np.stack([np.cos(_PETALS + turn), np.sin(_PETALS + turn)], axis=1)
            )
            direction = np.array([np.cos(turn + 1), np.sin(turn + 1)])
            across = np.array([-direction[1], direction[0]])
            leaves = [
                sign * direction * 1.25 * size
                + direction * 0.5 * size * np.cos(_PETALS[::4])[:, None]
                + across * 0.22 * size * np.sin(_PETALS[::4])[:, None]
                for sign in (1, -1)
            ]
            disc = 0.26 * size * np.stack([np.cos(_PETALS[::4]), np.sin(_PETALS[::4])], axis=1)
            for shape, colour in (
                (leaves[0], leaf),
                (leaves[1], leaf),
                (bloom, tint),
                (disc, heart),
            ):
                copies = [
                    np.rint((centre + shape + (dx, dy)) * pixels * 16).astype(np.int32)
                    for dx in _wraps(centre[0])
                    for dy in _wraps(centre[1])
                ]
                for copy in copies:
                    cv2.fillPoly(tile, [copy], tuple(map(float, colour)), cv2.LINE_AA, 4)
    return tile


def _wraps(place: float) -> tuple[int, ...]:
    """Where a flower has to be drawn again, so that the cloth repeats."""
    return (0,) + ((1,) if place < 0.25 else ()) + ((-1,) if place > 0.75 else ())


@lru_cache(maxsize=96)
def _weave(material: str, pixels: int) -> np.ndarray:
    """(pixels, pixels) float32: relative brightness of a material, around 0."""
    u, v = _axes(pixels)
    fine = pixels / 192  # threads are as thick, seen larger, as in a tile of so many pixels
    if material == "knitted":
        wales, courses = 17, 15
        phase = (u * wales) % 1
        lean = np.abs(phase - 0.5)
        stitch = np.cos(2 * np.pi * (v * courses + 1.1 * lean))
        return (0.085 * np.cos(2 * np.pi * phase + np.pi) + 0.075 * stitch - 0.03).astype(
            np.float32
        )
    if material == "canvas":
        threads = max(8, min(24, pixels // 4))
        return (0.035 * np.cos(2 * np.pi * threads * u) * np.cos(2 * np.pi * threads * v)).astype(
            np.float32
        )
    strength, along, across, turned = {
        "denim": (0.062, 3.2 * fine, 0.55 * fine, True),
        "wool": (0.045, 1.4 * fine, 1.2 * fine, False),
        "suede": (0.026, 0.035 * pixels, 0.02 * pixels, False),
        "leather": (0.022, fine, fine, False),
        "cotton": (0.016, 0.6 * fine, 0.6 * fine, False),
    }.get(material, (0.0, 1, 1, False))
    if material in SMOOTH:
        return np.zeros((pixels, pixels), np.float32)
    noise = np.random.default_rng(0xFAB).normal(0, 1, (pixels, pixels)).astype(np.float32)
    start = pixels // 4  # further than the widest blur reaches
    noise = np.pad(noise, start, mode="wrap")
    noise = cv2.GaussianBlur(noise, (0, 0), sigmaX=across, sigmaY=along)
    noise = noise[start : start + pixels, start : start + pixels]
    if turned:  # twill runs aslant; shearing by whole pixels keeps the repeat
        rows = np.arange(pixels)[:, None]
        noise = noise[rows, (np.arange(pixels)[None, :] + rows) % pixels]
    return strength * noise / noise.std()
