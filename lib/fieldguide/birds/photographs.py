"""Pictures of birds: photographs in the field, and clean portraits on paper."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import count

import cv2
import numpy as np

from fieldguide.birds.canvas import FACE, NEUTRAL_SHADE, Canvas
from fieldguide.birds.drawing import paint
from fieldguide.birds.posture import Bird, Pose
from fieldguide.birds.scenes import background, paint_occluders, paint_perch, sketch_perch
from fieldguide.birds.species import Individual, Species, draw_individual, typical
from fieldguide.pictures import SIZE
from fieldguide.streams import Streams

LEAST_BIRD = 0.03  # of the pixels; a photograph with less of the bird in it is taken again
GRAIN_STEP = 15  # degrees between the prepared directions of plumage


@dataclass(frozen=True)
class Conditions:
    """How unkind the field is: probabilities, counts, and ranges relative to the image's side."""

    occluders: tuple[float, ...]  # probability of 0, 1, 2, ... things in front of the bird
    blur: float  # largest standard deviation, in 1/128 of the side
    noise: float  # largest standard deviation, grey levels
    exposure: float  # standard deviation of the logarithm of the light
    temperature: float  # standard deviation of the red against blue gain
    turned_head: float  # probability that the head is not in profile
    raised_wing: float
    roll: float  # degrees, standard deviation
    fill: tuple[float, float]  # longer side of the bird against the side of the image


CONDITIONS = {
    "standard": Conditions(
        (0.50, 0.30, 0.20), 0.8, 6.0, 0.18, 0.065, 0.34, 0.12, 12.0, (0.70, 1.04)
    ),
    "hard": Conditions(
        (0.12, 0.25, 0.30, 0.20, 0.13), 1.6, 13.0, 0.27, 0.12, 0.60, 0.22, 22.0, (0.50, 1.10)
    ),
}
SIZE_FACTORS = {
    "very_small_(3_-_5_in)": 0.90,
    "small_(5_-_9_in)": 0.96,
    "medium_(9_-_16_in)": 1.0,
    "large_(16_-_32_in)": 1.03,
    "very_large_(32_-_72_in)": 1.05,
}


@dataclass(frozen=True)
class Sitting:
    """What makes a photograph: an individual in a pose, its place in the frame, random streams.

    No other field depends on the individual's marks, so that one can be exchanged alone.
    """

    individual: Individual
    pose: Pose
    scale: float  # pixels of one body unit
    origin: tuple[float, float]  # pixel of the body's origin
    flip: bool
    size: int  # pixels of a side
    occluders: int  # how many things are in front of the bird
    defocus: float  # standard deviation of the blur around them, pixels; 0: they are in focus
    blur: float  # of the whole picture, pixels; 0: none
    conditions: Conditions
    streams: Streams


@dataclass(frozen=True)
class Photograph:
    """One picture with its truth, all (side, side) and visible pixels only."""

    image: np.ndarray  # (side, side, 3) uint8 RGB
    mask: np.ndarray  # bool, the bird
    parts: np.ndarray  # uint8: 0, or the number of a CUB part
    face: np.ndarray  # bool, what of the head is none of CUB's parts
    individual: Individual
    sitting: Sitting | None = None  # None for a portrait


def field_photograph(
    species: Species, key: Sequence[int], size: int = SIZE, difficulty: str = "standard"
) -> Photograph:
    """One individual of a species in the field.

    key: whole numbers that all its random streams come from, in a guide (seed, class, image); size:
    pixels of a side.
    """
    for attempt in count():
        streams = Streams((*map(int, key), attempt))
        photograph = take(_arrange(species, streams, size, CONDITIONS[difficulty]))
        if photograph.mask.mean() >= LEAST_BIRD:
            return photograph
    raise AssertionError  # the loop has no end


def _arrange(species: Species, streams: Streams, size: int, conditions: Conditions) -> Sitting:
    individual = draw_individual(species, streams("look"))
    pose = _pose(conditions, streams("pose"), streams("camera/light"))
    rng = streams("camera/framing")
    flip = bool(rng.random() < 0.5)
    x0, y0, x1, y1 = Bird(individual, pose).extent()
    scale = (
        size
        * rng.uniform(*conditions.fill)
        * SIZE_FACTORS[species.marks["size"]]
        / max(x1 - x0, y1 - y0)
    )
    centre = size * (0.5 + rng.normal(0, 0.045, 2))
    middle = np.array([0.5 * (x0 + x1) * (-1 if flip else 1), -0.5 * (y0 + y1)]) * scale
    x, y = (centre - middle).tolist()
    rng = streams("occluders/number")
    occluders = int(rng.choice(len(conditions.occluders), p=conditions.occluders))
    near = occluders > 0 and rng.random() < 0.35  # to the lens
    blur = streams("camera/focus").uniform(0, conditions.blur) * size / 128
    return Sitting(
        individual,
        pose,
        scale,
        (x, y),
        flip,
        size,
        occluders,
        0.014 * size if near else 0.0,
        blur if blur > 0.3 else 0.0,
        conditions,
        streams,
    )


def take(sitting: Sitting) -> Photograph:
    """The photograph of a sitting, always the same one."""
    size, streams = sitting.size, sitting.streams
    bird = Bird(sitting.individual, sitting.pose)
    canvas = Canvas(size, sitting.scale, sitting.origin, sitting.flip)
    scene = background(size, streams("scene/background"))
    paint_perch(scene, canvas, bird, streams("scene/perch"))
    paint(bird, canvas, streams)
    image, alpha = _compose(scene, canvas, bird.tilt, streams("paint/grain"))
    hidden = paint_occluders(image, streams("occluders"), sitting.occluders, sitting.defocus)
    mask = (alpha >= 128) & ~hidden
    return Photograph(
        _camera(image, sitting), mask, *_parts(canvas, mask), sitting.individual, sitting
    )


def _parts(canvas: Canvas, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The visible ones, and the visible face."""
    face = (canvas.parts == FACE) & mask
    return np.where(mask & ~face, canvas.parts, 0).astype(np.uint8), face


def portrait(
    species: Species,
    size: int = 384,
    paper: tuple[int, int, int] = (247, 243, 232),
    individual: Individual | None = None,
    pose: Pose | None = None,
    seed: int = 0,
) -> Photograph:
    """A clean side-on painting on paper (RGB): an adult male, or the `individual` given."""
    streams = Streams((seed, 0x9A9E))
    bird = Bird(individual or typical(species), pose or Pose())
    x0, y0, x1, y1 = bird.extent()
    scale = 0.86 * size / max(x1 - x0, y1 - y0)
    canvas = Canvas(
        size,
        scale,
        (0.5 * size - 0.5 * (x0 + x1) * scale, 0.5 * size + 0.5 * (y0 + y1) * scale),
        False,
    )
    scene = np.empty((size, size, 3), np.uint8)
    scene[:] = paper
    sketch_perch(scene, canvas, bird, np.array(paper, np.float32), streams("scene/perch"))
    paint(bird, canvas, streams)
    image, alpha = _compose(scene, canvas, bird.tilt, streams("paint/grain"))
    mask = alpha >= 128
    return Photograph(image, mask, *_parts(canvas, mask), bird.individual)


def _pose(conditions: Conditions, rng, lamp) -> Pose:
    yaw = rng.normal(0, 12)
    if rng.random() < conditions.turned_head:
        yaw = rng.choice(
            [rng.uniform(25, 75), rng.uniform(-45, -20), rng.uniform(140, 200)], p=(0.5, 0.2, 0.3)
        )
    raised = rng.random() < conditions.raised_wing
    angle = np.radians(lamp.uniform(25, 155))
    return Pose(
        tilt=rng.normal(0, 7),
        neck=rng.uniform(0.85, 1.2),
        head_yaw=float(yaw),
        head_pitch=rng.normal(0, 9),
        roll=float(np.clip(rng.normal(4, conditions.roll), -35, 40)),
        fluff=rng.uniform(0.92, 1.12),
        wing="raised" if raised else "folded",
        wing_angle=rng.uniform(75, 130) if raised else rng.normal(0, 4),
        tail_angle=rng.normal(0, 9),
        tail_spread=rng.uniform(0.85, 1.5),
        light=(0.72 * float(np.cos(angle)), 0.72 * float(np.sin(angle)), lamp.uniform(0.45, 0.7)),
    )


# ---- light and camera ----------------------------------------------------------------------------


@lru_cache(maxsize=16)
def _plumage_grain(size: int, direction: int) -> np.ndarray:
    """(2 size, 2 size) uint8 around 128: streaks of feathers; direction in steps of GRAIN_STEP."""
    noise = np.random.default_rng(0xFEA7).normal(0, 1, (3 * size, 3 * size)).astype(np.float32)
    noise = cv2.GaussianBlur(
        noise, (0, 0), sigmaX=max(0.8, 0.012 * size), sigmaY=max(0.4, 0.004 * size)
    )
    turn = cv2.getRotationMatrix2D((1.5 * size, 1.5 * size), GRAIN_STEP * direction, 1.0)
    noise = cv2.warpAffine(noise, turn, (3 * size, 3 * size), borderMode=cv2.BORDER_REFLECT)
    noise = noise[size // 2 : size // 2 + 2 * size, size // 2 : size // 2 + 2 * size]
    return np.clip(NEUTRAL_SHADE + 7 * noise / noise.std(), 0, 255).astype(np.uint8)


@lru_cache(maxsize=4)
def _film_grain(size: int) -> np.ndarray:
    """(2 size, 2 size, 3) int16 noise of standard deviation 64, to be cropped and scaled."""
    noise = np.random.default_rng(0xF117).normal(0, 64, (2 * size, 2 * size, 3))
    return np.clip(noise, -255, 255).astype(np.int16)


def _crop(tile: np.ndarray, size: int, rng) -> np.ndarray:
    y, x = (rng.random(2) * (tile.shape[0] - size)).astype(int)
    return tile[y : y + size, x : x + size]


def softness(scale: float) -> tuple[float, float]:
    """Standard deviations, in pixels, by which surfaces blend and outlines darken."""
    return max(0.6, 0.020 * scale), max(0.8, 0.035 * scale)


def _compose(scene, canvas: Canvas, tilt: float, rng) -> tuple[np.ndarray, np.ndarray]:
    """The shaded bird on its background: image (side, side, 3) uint8 and alpha (side, side) uint8.

    tilt: degrees of the bird's axis, along which its feathers lie.
    """
    side = canvas.side
    small = cv2.resize(canvas.colour, (side, side), interpolation=cv2.INTER_AREA)
    alpha = np.ascontiguousarray(small[..., 3])
    # Volume: the shades of surfaces blend, and every outline darkens as it turns away.
    surfaces, outlines = softness(canvas.scale)
    shade = cv2.GaussianBlur(canvas.shade, (0, 0), surfaces)
    turned = cv2.GaussianBlur(alpha, (0, 0), outlines)
    shade = cv2.multiply(shade, cv2.addWeighted(turned, 0.45, alpha, 0.0, 140.0), scale=1 / 248)
    direction = round(tilt * (-1 if canvas.flip else 1) / GRAIN_STEP)
    shade = cv2.multiply(
        shade, _crop(_plumage_grain(side, direction), side, rng), scale=1 / NEUTRAL_SHADE
    )
    bird = cv2.multiply(
        small[..., :3], cv2.cvtColor(shade, cv2.COLOR_GRAY2RGB), scale=1 / NEUTRAL_SHADE
    )
    behind = cv2.multiply(scene, cv2.cvtColor(255 - alpha, cv2.COLOR_GRAY2RGB), scale=1 / 255)
    return cv2.add(bird, behind), alpha


def _camera(image, sitting: Sitting) -> np.ndarray:
    """Exposure, colour temperature, contrast, blur and noise."""
    conditions, rng = sitting.conditions, sitting.streams("camera/exposure")
    exposure = np.exp(rng.normal(0, conditions.exposure))
    warmth = rng.normal(0, conditions.temperature)
    gamma = np.exp(rng.normal(0, 0.10))
    levels = np.linspace(0, 1, 256)
    curves = [
        255 * np.clip(levels**gamma * exposure * gain, 0, 1)
        for gain in (1 + warmth, 1.0, 1 - warmth)
    ]
    image = cv2.LUT(image, np.rint(np.stack(curves, axis=1)).astype(np.uint8)[:, None])
    if sitting.blur:
        image = cv2.GaussianBlur(image, (0, 0), sitting.blur)
    rng = sitting.streams("camera/grain")
    noise = _crop(_film_grain(len(image)), len(image), rng)
    strength = rng.uniform(0, conditions.noise) / 64
    return cv2.add(image, cv2.multiply(noise, strength), dtype=cv2.CV_8U)
