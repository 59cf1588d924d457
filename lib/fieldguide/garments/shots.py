"""Pictures of a garment: laid flat, on a mannequin, a detail, and styled under another light."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from fieldguide.garments.attributes import Garment
from fieldguide.garments.bags import handle_top, sew_bag
from fieldguide.garments.bottoms import sew_bottom
from fieldguide.garments.canvas import (
    Canvas,
    Piece,
    Thread,
    ellipse,
    mirrored,
    outline,
    strip,
    symmetric,
)
from fieldguide.garments.fabrics import Fabric
from fieldguide.garments.shoes import GROUND, sew_shoe
from fieldguide.garments.tops import sew_top
from fieldguide.pictures import SIZE
from fieldguide.streams import Streams

SHOTS = ("front", "worn", "detail", "styled")  # further shots are styled ones
PAPER = (248, 247, 244)
DETAIL = 2.0  # how much nearer a detail is seen
DAYLIGHT = (-0.42, -0.55, 0.72)
SEW = {
    "tops": sew_top,
    "outerwear": sew_top,
    "all-body": sew_top,
    "bottoms": sew_bottom,
    "shoes": sew_shoe,
    "bags": sew_bag,
}
BACKDROPS = (
    (228, 226, 222),
    (214, 221, 214),
    (232, 222, 208),
    (234, 218, 214),
    (212, 220, 228),
    (222, 216, 226),
)
# A sharp shadow close to the garment and a soft one further off: how far off and how soft, against
# the side of the picture, and how dark.
SHADOWS = ((0.010, 0.008, 0.20), (0.030, 0.028, 0.22))
SKIN = Fabric((222, 205, 186), "mannequin")
POLE = Fabric((128, 92, 64), "leather")
HEEL_SEAT = {"flat": 0.08, "heel": 0.42, "platform": 0.38, "": 0.08}


@dataclass(frozen=True)
class Frame:
    """How a garment is seen: nothing in it follows from an attribute that is exchanged later."""

    view: str  # one of SHOTS
    size: int  # pixels of a side
    scale: float  # pixels of one garment unit
    origin: tuple[float, float]  # pixel of the garment's origin
    turn: float  # degrees
    flip: bool
    light: tuple[float, float, float]  # its direction, y down
    streams: Streams


@dataclass(frozen=True)
class Photograph:
    image: np.ndarray  # (side, side, 3) uint8 RGB
    mask: np.ndarray  # (side, side) bool, where the garment is seen
    garment: Garment
    frame: Frame


def photograph(garment: Garment, shot: int = 0, size: int = SIZE) -> Photograph:
    """Picture number `shot` of a garment, always the same one; size: pixels of a side."""
    return shoot(garment, _frame(garment, shot, size))


def shoot(garment: Garment, frame: Frame) -> Photograph:
    """The picture of a garment in a frame, which may be that of the same garment made otherwise."""
    canvas, light = canvas_of(frame), frame.light
    for part in layers(garment, frame.view):
        part.draw(canvas)
    scene = _scene(frame.view, frame.size, frame.streams("scene"))
    _throw_shadow(scene, canvas, light, 0.5 if frame.view == "worn" else 1.0)
    image = _camera(canvas.compose(scene, light), frame)
    return Photograph(image, canvas.mask > 0.5, garment, frame)


def canvas_of(frame: Frame) -> Canvas:
    return Canvas(frame.size, frame.scale, frame.origin, frame.turn, frame.flip)


def layers(garment: Garment, view: str) -> list:
    """All that is drawn of a garment and its wearer, from far to near."""
    worn = view == "worn"
    behind, front = SEW[garment.semantic](garment, worn)
    under, over = _mannequin(garment) if worn else ([], [])
    return [*behind, *under, *front, *over]


def _frame(garment: Garment, shot: int, size: int) -> Frame:
    streams = Streams((garment.seed, garment.number, shot))
    rng = streams("camera/framing")
    view = SHOTS[min(shot, len(SHOTS) - 1)]
    behind, front = SEW[garment.semantic](garment, view == "worn")
    low, high = _extent(behind + front)
    if view == "worn":
        low, high = _room_for_the_wearer(garment, low, high)
    middle, scale = 0.5 * (low + high), 0.86 * size / float((high - low).max())
    place, turn, flip, light = np.full(2, 0.5 * size), 0.0, False, DAYLIGHT
    if view == "worn":
        scale *= rng.uniform(0.98, 1.06)
        flip = garment.semantic in ("shoes", "bags") and rng.random() < 0.5
        place = place + size * rng.normal(0, 0.015, 2)
    elif view == "detail":
        scale *= DETAIL * rng.uniform(0.92, 1.12)
        middle = _focus(garment, low, high) + rng.normal(0, 0.04, 2)
        turn = rng.normal(0, 5)
    elif view == "styled":
        scale *= rng.uniform(0.80, 0.98)
        turn, flip = rng.normal(0, 9), bool(rng.random() < 0.5)
        place = place + size * rng.normal(0, 0.025, 2)
        side = streams("camera/light").uniform(-2.6, -0.5)
        light = (0.68 * float(np.cos(side)), 0.68 * float(np.sin(side)), 0.72)
    x, y = (place - Canvas(1, scale, (0, 0), turn, flip).matrix @ middle).tolist()
    return Frame(view, size, scale, (x, y), turn, flip, light, streams)


def _extent(parts) -> tuple[np.ndarray, np.ndarray]:
    points = np.vstack(
        [
            part.outline if isinstance(part, Piece) else part.points
            for part in parts
            if isinstance(part, (Piece, Thread))
        ]
    )
    return points.min(axis=0).astype(float), points.max(axis=0).astype(float)


def _focus(garment: Garment, low, high) -> np.ndarray:
    """Where a customer would look closer."""
    if garment.semantic in ("tops", "outerwear", "all-body"):
        return np.array([0.06, -0.32])
    if garment.semantic == "bottoms":
        return np.array([0.05, low[1] + 0.34 * min(high[1] - low[1], 1.1)])
    if garment.semantic == "shoes":
        return np.array([0.10, high[1] - 0.42])
    return np.array([0.0, 0.22])


# ---- who wears it --------------------------------------------------------------------------------


def _room_for_the_wearer(garment: Garment, low, high) -> tuple[np.ndarray, np.ndarray]:
    low, high = low.copy(), high.copy()
    if garment.semantic in ("tops", "outerwear", "all-body"):
        low[1], high[1] = min(low[1], -1.02), high[1] + 0.10
    elif garment.semantic == "bottoms":
        low[1] -= 0.20
        high[1] += 0.08 if high[1] > 0.4 else 0.35
    elif garment.semantic == "shoes":
        low[1] = min(low[1] - 0.25, -0.75)
    else:
        low[1] -= 0.32
    return low, high


def _mannequin(garment: Garment) -> tuple[list, list]:
    """The parts of a mannequin below the front of a garment, and those over it."""
    if garment.semantic == "bags":
        return [], _hand(garment)
    if garment.semantic == "shoes":
        return [_foot(garment)], []
    return (_legs() if garment.semantic == "bottoms" else _torso()), []


def _part(shape, puff: float = 0.09, lift: float = 0.25, fabric: Fabric = SKIN) -> Piece:
    return Piece(np.asarray(shape, np.float32), fabric, puff=puff, lift=lift, wearer=True)


def _torso() -> list:
    body = symmetric(
        [
            (0, -0.72),
            (0.10, -0.73),
            (0.24, -0.655),
            (0.335, -0.59),
            (0.345, -0.45),
            (0.30, -0.20),
            (0.245, 0.10),
            (0.325, 0.52),
            (0.29, 0.72),
        ],
        [(0, 0.76)],
    )
    neck = symmetric([(0, -1.04), (0.075, -1.03), (0.085, -0.86), (0.12, -0.70)], [(0, -0.60)])
    parts = [_part(strip([(0, 0.7), (0, 2.2)], 0.055), 0.03, 0.2, POLE)]
    for sign in (1, -1):
        arm = strip(
            [(0.315, -0.55), (0.40, -0.22), (0.47, 0.12), (0.50, 0.40)], [0.13, 0.14, 0.115, 0.08]
        )
        hand = outline(
            [(0.465, 0.36), (0.455, 0.50), (0.50, 0.62)],
            [(0.55, 0.60), (0.56, 0.46), (0.535, 0.36)],
        )
        parts += [_part(shape if sign > 0 else mirrored(shape), 0.05) for shape in (hand, arm)]
    cap = ellipse((0, -1.045), 0.078, 0.022)
    return [*parts, _part(body), _part(neck, 0.06, 0.1), _part(cap, 0.02, 0.0, POLE)]


def _legs() -> list:
    parts = []
    for sign in (1, -1):
        leg = strip(
            [(0.17, -0.42), (0.19, 0.0), (0.20, 0.25), (0.215, 0.60), (0.225, 1.04)],
            [0.36, 0.27, 0.19, 0.20, 0.11],
        )
        foot = ellipse((0.24, 1.07), 0.075, 0.05)
        parts += [_part(shape if sign > 0 else mirrored(shape), 0.07) for shape in (foot, leg)]
    hips = symmetric(
        [(0, -1.34), (0.275, -1.34)],
        [(0.25, -1.12), (0.265, -0.92), (0.345, -0.60), (0.345, -0.36)],
        [(0, -0.28)],
    )
    return [*parts, _part(hips)]


def _foot(garment: Garment) -> Piece:
    if garment.kind in ("boots", "sneakers"):
        return _part(strip([(0.40, -2.4), (0.38, -1.0), (0.37, -0.2)], [0.66, 0.52, 0.44]), 0.10)
    seat = GROUND - HEEL_SEAT[garment.heel]
    ankle = seat - 0.50
    sole = GROUND - (0.20 if garment.heel == "platform" else 0.09)
    return _part(
        outline(
            [
                (-0.72, sole),
                (-0.70, sole - 0.10),
                (-0.52, sole - 0.15),
                (-0.20, 0.5 * (sole + ankle) - 0.12),
                (0.16, ankle - 0.08),
                (0.17, ankle - 0.5),
                (0.08, -2.4),
            ],
            [(0.80, -2.4), (0.66, ankle - 0.45), (0.62, ankle), (0.70, seat - 0.12), (0.66, seat)],
            [
                (0.40, seat + 0.01),
                (0.10, 0.5 * (seat + sole) + 0.04),
                (-0.30, sole + 0.02),
                (-0.72, sole),
            ],
        ),
        0.10,
    )


def _hand(garment: Garment) -> list:
    y = handle_top(garment)
    x = 0.0 if garment.kind != "clutch" else 0.42
    y = y if garment.kind != "clutch" else -0.30
    arm = strip(
        [(x + 0.34, y - 1.5), (x + 0.16, y - 0.62), (x + 0.02, y - 0.14)], [0.26, 0.22, 0.14]
    )
    palm = outline(
        [(x - 0.075, y - 0.16), (x - 0.11, y - 0.02), (x - 0.085, y + 0.065)],
        [(x + 0.095, y + 0.065), (x + 0.12, y - 0.03), (x + 0.085, y - 0.17)],
    )
    fingers = [
        strip([(x + dx, y - 0.05), (x + dx, y + 0.085)], 0.055) for dx in (-0.07, -0.02, 0.03, 0.08)
    ]
    return [
        _part(arm, 0.06),
        _part(palm, 0.04, 0.15),
        *(_part(finger, 0.018, 0.2) for finger in fingers),
    ]


# ---- place, light, camera ------------------------------------------------------------------------


def _scene(view: str, size: int, rng) -> np.ndarray:
    """(size, size, 3) float32."""
    if view == "styled":
        sheet = _floor(int(rng.integers(len(FLOORS))), size)
        y, x = (rng.random(2) * (sheet.shape[0] - size + 1)).astype(int)
        return sheet[y : y + size, x : x + size] * np.float32(rng.uniform(0.92, 1.04))
    if view == "worn":
        colour = np.array(BACKDROPS[int(rng.integers(len(BACKDROPS)))], np.float32)
    else:
        colour = np.array(PAPER, np.float32)
    return colour * _falloff(size, 0.10 if view == "worn" else 0.025)[..., None]


@lru_cache(maxsize=8)
def _falloff(size: int, amount: float) -> np.ndarray:
    place = np.linspace(-1, 1, size)
    distance = place[None, :] ** 2 + (place[:, None] + 0.25) ** 2
    return (1 + 0.3 * amount - amount * distance / 1.8).astype(np.float32)


def _wood(size: int, rng, colour) -> np.ndarray:
    grain = cv2.GaussianBlur(
        rng.normal(0, 1, (size, size)).astype(np.float32),
        (0, 0),
        sigmaX=0.10 * size,
        sigmaY=max(0.5, 0.004 * size),
    )
    grain = 0.045 * grain / grain.std()
    boards, board = np.zeros((size, size), np.float32), size // 7 + 1
    for row in range(0, size, board):
        boards[row : row + board] = rng.normal(0, 0.03)
        boards[row : row + max(1, size // 160)] = -0.28
    return np.array(colour) * (1 + grain + boards)[..., None]


def _marble(size: int, rng, colour) -> np.ndarray:
    veins = np.zeros((size, size), np.float32)
    for share in (0.20, 0.07):
        noise = cv2.GaussianBlur(
            rng.normal(0, 1, (size, size)).astype(np.float32), (0, 0), share * size
        )
        veins += 0.07 * np.exp(-((noise / noise.std() / 0.10) ** 2)) * share / 0.20
    cloud = cv2.GaussianBlur(rng.normal(0, 1, (size, size)).astype(np.float32), (0, 0), 0.12 * size)
    veins = cv2.GaussianBlur(veins, (0, 0), max(0.6, 0.004 * size))
    return np.array(colour) * (1 + 0.02 * cloud / cloud.std() - veins)[..., None]


def _linen(size: int, rng, colour) -> np.ndarray:
    sigma = max(0.5, 0.003 * size)
    warp = cv2.GaussianBlur(
        rng.normal(0, 1, (size, size)).astype(np.float32), (0, 0), sigmaX=sigma, sigmaY=12 * sigma
    )
    weft = cv2.GaussianBlur(
        rng.normal(0, 1, (size, size)).astype(np.float32), (0, 0), sigmaX=12 * sigma, sigmaY=sigma
    )
    soft = cv2.GaussianBlur(
        rng.normal(0, 1, (size, size)).astype(np.float32),
        (0, 0),
        sigmaX=0.25 * size,
        sigmaY=0.03 * size,
    )
    return (
        np.array(colour)
        * (1 + 0.025 * (warp / warp.std() + weft / weft.std()) + 0.035 * soft / soft.std())[
            ..., None
        ]
    )


FLOOR_SIDE = 672  # pixels in which floors are painted, whatever the size of the picture
FLOORS = (
    (_wood, (204, 172, 138)),
    (_marble, (240, 239, 238)),
    (_linen, (226, 216, 200)),
    (_linen, (176, 186, 192)),
    (_wood, (150, 112, 84)),
    (_marble, (206, 208, 212)),
    (_linen, (214, 190, 184)),
)


@lru_cache(maxsize=16)
def _floor(number: int, size: int) -> np.ndarray:
    """A floor or table, (1.5 size, 1.5 size, 3) float32, to be cut from at random."""
    paint, colour = FLOORS[number]
    sheet = paint(FLOOR_SIDE, np.random.default_rng([0xF100, number]), colour)
    sheet = np.clip(sheet, 0, 255).astype(np.float32)
    return cv2.resize(sheet, (size * 3 // 2,) * 2, interpolation=cv2.INTER_AREA)


def _throw_shadow(scene, canvas: Canvas, light, strength: float) -> None:
    side = canvas.side
    alpha = cv2.resize(canvas.alpha, (side, side), interpolation=cv2.INTER_AREA).astype(
        np.float32
    ) * (1 / 255)
    dark = np.zeros_like(alpha)
    for reach, sigma, depth in SHADOWS:
        shift = np.array(
            [[1, 0, -light[0] * reach * side / 0.7], [0, 1, -light[1] * reach * side / 0.7]]
        )
        moved = cv2.warpAffine(alpha, shift, (side, side))
        dark += cv2.GaussianBlur(moved, (0, 0), max(0.6, sigma * side)) * (depth * strength)
    scene *= (1 - dark)[..., None]


def _camera(image, frame: Frame) -> np.ndarray:
    view, rng = frame.view, frame.streams("camera/exposure")
    if view == "styled":
        warmth, exposure = rng.normal(0, 0.035), np.exp(rng.normal(0, 0.09))
        image = image * (np.array([1 + warmth, 1, 1 - warmth]) * exposure).astype(np.float32)
        image = image + rng.normal(0, rng.uniform(0.5, 3.0), image.shape).astype(np.float32)
    elif view == "worn":
        image = image * np.float32(np.exp(rng.normal(0, 0.05)))
    return np.clip(image, 0, 255).astype(np.uint8)
