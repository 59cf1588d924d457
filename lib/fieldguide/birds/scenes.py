"""Where a bird is met: backgrounds, perches and occluders, none of which depends on the species."""

from __future__ import annotations

import cv2
import numpy as np

from fieldguide.birds.canvas import Canvas
from fieldguide.birds.posture import Bird

SCENES = ("foliage", "water", "sky", "branches", "ground")
PERCHES = ("branch", "rock", "ground")
LEAF_COLOURS = np.array(
    [
        (74, 104, 46),
        (104, 130, 58),
        (52, 84, 44),
        (140, 148, 74),
        (168, 148, 66),
        (172, 98, 44),
        (120, 60, 38),
        (88, 116, 84),
        (196, 190, 150),
        (60, 70, 40),
    ],
    dtype=np.float32,
)
FLOWER_COLOURS = np.array(
    [(214, 70, 66), (232, 196, 66), (226, 150, 176), (240, 238, 232), (120, 96, 180)], np.float32
)
BARK_COLOURS = np.array(
    [(96, 76, 58), (124, 110, 94), (72, 60, 52), (150, 132, 108), (108, 104, 100)], np.float32
)
STONE_COLOURS = np.array(
    [(132, 128, 122), (156, 144, 124), (104, 104, 108), (176, 166, 148)], np.float32
)
EARTH_COLOURS = np.array(
    [(142, 120, 88), (112, 112, 70), (172, 156, 124), (94, 108, 56), (204, 200, 196)], np.float32
)
SKY_COLOURS = np.array(
    [(128, 172, 220), (178, 204, 226), (206, 210, 212), (230, 214, 190), (104, 140, 190)],
    np.float32,
)
WATER_COLOURS = np.array(
    [(74, 106, 122), (92, 116, 96), (120, 146, 164), (64, 84, 104), (142, 140, 118)], np.float32
)


def background(size: int, rng) -> np.ndarray:
    """(size, size, 3) uint8 RGB: one of the five scenes, out of focus, with clutter in focus."""
    kind = SCENES[rng.integers(len(SCENES))]
    half = max(16, size // 2)  # a blurred picture can be painted at half size
    scene = _GRADIENTS[kind](half, rng)
    if kind == "foliage":
        _leaves(scene, half, rng, 26, (0.05, 0.16), LEAF_COLOURS)
        _leaves(scene, half, rng, int(rng.integers(0, 5)), (0.03, 0.07), FLOWER_COLOURS)
    elif kind == "water":
        _ripples(scene, half, rng)
    elif kind == "sky":
        _clouds(scene, half, rng)
    elif kind == "branches":
        _twigs(scene, half, rng, 9, (0.01, 0.05))
        _leaves(scene, half, rng, 8, (0.04, 0.10), LEAF_COLOURS)
    else:
        _litter(scene, half, rng)
    sigma = half * rng.uniform(0.008, 0.045)
    scene = cv2.GaussianBlur(scene, (0, 0), sigma)
    scene = cv2.resize(scene, (size, size), interpolation=cv2.INTER_LINEAR)
    if rng.random() < 0.5:
        _twigs(scene, size, rng, int(rng.integers(1, 4)), (0.006, 0.022))
        _leaves(scene, size, rng, int(rng.integers(2, 9)), (0.03, 0.09), LEAF_COLOURS)
    return scene


def _two(colours, rng):
    first, second = rng.integers(len(colours), size=2)
    return colours[first] * rng.uniform(0.75, 1.15), colours[second] * rng.uniform(0.75, 1.15)


def _blend(half, top, bottom, horizon=None):
    ramp = np.linspace(0, 1, half, dtype=np.float32)
    if horizon is not None:
        ramp = 1 / (1 + np.exp(-(ramp - horizon) * 40))
    rows = top + ramp[:, None] * (bottom - top)
    return np.ascontiguousarray(
        np.broadcast_to(np.clip(rows, 0, 255).astype(np.uint8)[:, None], (half, half, 3))
    )


_GRADIENTS = {
    "foliage": lambda half, rng: _blend(half, *_two(LEAF_COLOURS, rng)),
    "water": lambda half, rng: _blend(half, *_two(WATER_COLOURS, rng)),
    "sky": lambda half, rng: _blend(half, *_two(SKY_COLOURS, rng)),
    "branches": lambda half, rng: _blend(
        half, _two(SKY_COLOURS, rng)[0], _two(LEAF_COLOURS, rng)[0]
    ),
    "ground": lambda half, rng: _blend(
        half, _two(LEAF_COLOURS, rng)[0], _two(EARTH_COLOURS, rng)[0], rng.uniform(0.1, 0.6)
    ),
}


def _leaves(scene, side, rng, count, sizes, colours) -> None:
    if not count:
        return
    where, length = rng.uniform(0, side, (count, 2)), side * rng.uniform(*sizes, count)
    angle, slender = rng.uniform(0, 2 * np.pi, count), rng.uniform(0.22, 0.55, count)
    colour = colours[rng.integers(len(colours), size=count)] * rng.uniform(0.6, 1.25, (count, 1))
    outline = _leaf_outlines(where, length, angle, slender)
    for points, tone in zip(outline, np.clip(colour, 0, 255).tolist(), strict=True):
        cv2.fillPoly(scene, [points], tone, cv2.LINE_AA, 4)


def _leaf_outlines(where, length, angle, slender) -> np.ndarray:
    """(n, 12, 2) fixed-point pixels of pointed ovals."""
    along = np.array([-1, -0.75, -0.4, 0, 0.4, 0.75, 1, 0.75, 0.4, 0, -0.4, -0.75])
    across = np.array([0, 0.5, 0.88, 1, 0.8, 0.42, 0, -0.42, -0.8, -1, -0.88, -0.5])
    x, y = along * length[:, None], across * (length * slender)[:, None]
    cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
    points = np.stack([x * cos - y * sin, x * sin + y * cos], axis=2) + where[:, None]
    return np.rint(points * 16).astype(np.int32)


def _twigs(scene, side, rng, count, widths) -> None:
    start, angle = rng.uniform(-0.1, 1.1, (count, 2)) * side, rng.uniform(0, np.pi, count)
    t = np.linspace(-1, 1, 9)
    direction = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    bend = rng.uniform(-0.12, 0.12, count)[:, None] * (t**2)[None]
    points = start[:, None] + side * (
        t[None, :, None] * direction[:, None] + bend[..., None] * direction[:, None, ::-1] * (-1, 1)
    )
    bark = BARK_COLOURS[rng.integers(len(BARK_COLOURS), size=count)]
    colour = np.clip(bark * rng.uniform(0.6, 1.2, (count, 1)), 0, 255)
    for line, tone, width in zip(
        np.rint(points * 16).astype(np.int32),
        colour.tolist(),
        rng.uniform(*widths, count),
        strict=True,
    ):
        cv2.polylines(scene, [line], False, tone, max(1, round(width * side)), cv2.LINE_AA, 4)


def _ripples(scene, side, rng) -> None:
    count = 34
    y, x, length = rng.uniform(0, 1, (3, count)) * side
    tone = np.clip(scene[np.int32(y), 0] + rng.uniform(-45, 60, (count, 1)), 0, 255)
    for yi, xi, li, ti in zip(
        y.tolist(), x.tolist(), (0.12 + 0.45 * length / side) * side, tone.tolist(), strict=True
    ):
        rise = 0.012 * side + 0.02 * yi
        axes = (int(8 * li), int(8 * max(rise * 0.5, 0.6)))
        cv2.ellipse(scene, (int(16 * xi), int(16 * yi)), axes, 0, 0, 360, ti, -1, cv2.LINE_AA, 4)


def _clouds(scene, side, rng) -> None:
    for x, y, width, tone in zip(
        *rng.uniform(0, 1, (3, 7)) * side, rng.uniform(0, 40, 7), strict=True
    ):
        colour = np.clip(scene[int(y), 0] + tone, 0, 255).tolist()
        cv2.ellipse(
            scene,
            (int(x), int(y)),
            (int(2 + 0.35 * width), int(1 + 0.12 * width)),
            0,
            0,
            360,
            colour,
            -1,
            cv2.LINE_AA,
        )


def _litter(scene, side, rng) -> None:
    """Grass blades, pebbles and leaf litter."""
    count = 46
    base = rng.uniform(0, side, (count, 2))
    tip = (
        base
        + np.stack([rng.normal(0, 0.05, count), -rng.uniform(0.02, 0.22, count)], axis=1) * side
    )
    grass = LEAF_COLOURS[rng.integers(len(LEAF_COLOURS), size=count)]
    tone = np.clip(grass * rng.uniform(0.6, 1.3, (count, 1)), 0, 255)
    lines = np.rint(np.stack([base, tip], axis=1) * 16).astype(np.int32)
    for line, colour in zip(lines, tone.tolist(), strict=True):
        cv2.polylines(scene, [line], False, colour, max(1, round(side / 64)), cv2.LINE_AA, 4)
    _leaves(scene, side, rng, 12, (0.015, 0.05), STONE_COLOURS)


# ---- what the bird stands on ---------------------------------------------------------------------


def paint_perch(scene, canvas: Canvas, bird: Bird, rng) -> None:
    """A perch drawn at random; a clinging bird always has its trunk."""
    kind = "trunk" if bird.form.clinging else PERCHES[rng.integers(len(PERCHES))]
    feet = canvas.pixels(bird.feet)
    foot = feet.mean(axis=0)
    side, scale = canvas.side, canvas.scale
    if kind in ("branch", "trunk"):
        colour = BARK_COLOURS[rng.integers(len(BARK_COLOURS))] * rng.uniform(0.75, 1.2)
        if kind == "trunk":
            width = scale * rng.uniform(0.35, 0.7)
            outward = -1.0 if canvas.flip else 1.0
            axis, middle = np.array([0.04 * rng.normal(), 1.0]), foot + (outward * 0.5 * width, 0)
        else:
            width, slope = scale * rng.uniform(0.06, 0.15), rng.normal(0, 0.12)
            axis, middle = np.array([1.0, slope]), foot + (0, 0.5 * width)
        _bark(scene, middle, axis, width, colour, side, rng)
        if kind == "branch" and rng.random() < 0.5:
            count = int(rng.integers(1, 5))
            where = middle + rng.uniform(-0.6, 0.6, (count, 1)) * side * axis + (0, 0.03 * side)
            tones = np.clip(
                LEAF_COLOURS[rng.integers(len(LEAF_COLOURS), size=count)], 0, 255
            ).tolist()
            shapes = _leaf_outlines(
                where,
                side * rng.uniform(0.03, 0.08, count),
                rng.uniform(0, 6.3, count),
                np.full(count, 0.4),
            )
            for points, tone in zip(shapes, tones, strict=True):
                cv2.fillPoly(scene, [points], tone, cv2.LINE_AA, 4)
        return
    colours = STONE_COLOURS if kind == "rock" else EARTH_COLOURS
    colour = colours[rng.integers(len(colours))] * rng.uniform(0.8, 1.15)
    t = np.linspace(0, 1, 15)
    if kind == "rock":
        half = scale * rng.uniform(0.45, 0.9)
        x = foot[0] + half * (2 * t - 1) + rng.normal(0, 0.02 * side, 15)
        y = (
            foot[1]
            + 0.9 * half * (np.abs(2 * t - 1) ** 3)
            + np.abs(rng.normal(0, 0.008 * side, 15))
        )
    else:
        x, y = -0.1 * side + 1.2 * side * t, foot[1] + rng.normal(0, 0.010 * side, 15)
    for inset, light in ((0.0, 1.12), (0.018 * side, 1.0), (0.09 * side, 0.84), (0.2 * side, 0.70)):
        points = np.concatenate(
            [np.stack([x, y + inset], axis=1), [(x[-1], 1.5 * side), (x[0], 1.5 * side)]]
        )
        cv2.fillPoly(
            scene,
            [np.rint(points * 16).astype(np.int32)],
            np.clip(colour * light, 0, 255).tolist(),
            cv2.LINE_AA,
            4,
        )
    # The bird's soft shadow: a few nested, ever darker ovals.
    for grow, light in ((1.0, 0.92), (0.75, 0.80), (0.5, 0.68)):
        axes = (int(16 * scale * 0.36 * grow), int(16 * scale * 0.045 * grow))
        cv2.ellipse(
            scene,
            tuple(int(16 * v) for v in foot + (0, 0.025 * scale)),
            axes,
            0,
            0,
            360,
            np.clip(colour * light, 0, 255).tolist(),
            -1,
            cv2.LINE_AA,
            4,
        )


def _bark(scene, middle, axis, width, colour, side, rng) -> None:
    """A branch or trunk: a wavy band across the picture, lit from one edge, with furrows."""
    axis = axis / np.linalg.norm(axis)
    across = np.array([axis[1], -axis[0]])
    if across[1] > 0:
        across = -across
    t = np.linspace(-1.3, 1.3, 17) * side
    line = middle + t[:, None] * axis
    wave = (
        0.5
        * width
        * (1 + 0.10 * np.sin(t / side * 9 + rng.uniform(0, 6)) + 0.06 * rng.normal(size=17))
    )
    wave[8] = 0.5 * width  # the feet rest on the middle
    for low, high, light in (
        (-1.0, 1.0, 0.62),
        (-0.55, 1.0, 0.85),
        (-0.05, 1.0, 1.0),
        (0.55, 0.95, 1.22),
    ):
        points = np.concatenate(
            [line + (wave * high)[:, None] * across, (line + (wave * low)[:, None] * across)[::-1]]
        )
        cv2.fillPoly(
            scene,
            [np.rint(points * 16).astype(np.int32)],
            np.clip(colour * light, 0, 255).tolist(),
            cv2.LINE_AA,
            4,
        )
    start, level = rng.uniform(-1, 1, 10) * side, rng.uniform(-0.8, 0.8, 10)
    ends = start + rng.uniform(0.04, 0.15, 10) * side
    furrows = np.stack(
        [
            middle + s[:, None] * axis + (level * 0.5 * width)[:, None] * across
            for s in (start, ends)
        ],
        1,
    )
    cv2.polylines(
        scene,
        list(np.rint(furrows * 16).astype(np.int32)),
        False,
        (colour * 0.5).tolist(),
        max(1, round(side / 160)),
        cv2.LINE_AA,
        4,
    )


def sketch_perch(scene, canvas: Canvas, bird: Bird, paper, rng) -> None:
    """The few strokes of a branch, trunk or ground that a plate needs."""
    foot, scale = canvas.pixels(bird.feet).mean(axis=0), canvas.scale
    tone = 0.55 * paper + 0.45 * BARK_COLOURS[1]
    if bird.form.clinging:
        _bark(
            scene,
            foot + (0.12 * scale, 0),
            np.array([0.02, 1.0]),
            0.24 * scale,
            tone,
            canvas.side,
            rng,
        )
    elif bird.form.leg < 0.3 and bird.form.tilt > 20:
        _bark(
            scene,
            foot + (0, 0.045 * scale),
            np.array([1.0, -0.05]),
            0.09 * scale,
            tone,
            canvas.side,
            rng,
        )
    else:
        for grow, light in ((1.0, 0.96), (0.8, 0.92), (0.55, 0.86)):
            axes = (int(16 * scale * 0.62 * grow), int(16 * scale * 0.05 * grow))
            cv2.ellipse(
                scene,
                tuple(int(16 * v) for v in foot + (0, 0.02 * scale)),
                axes,
                0,
                0,
                360,
                (paper * light).tolist(),
                -1,
                cv2.LINE_AA,
                4,
            )


# ---- what is in front of it ----------------------------------------------------------------------


def paint_occluders(image, rng, count: int, defocus: float) -> np.ndarray:
    """Twigs and leaves in front of everything; returns where they are, (size, size) bool.

    defocus: the standard deviation of their blur, in pixels; 0: they are in focus.
    """
    size = len(image)
    layer = np.zeros((size, size), np.uint8)
    before = image.copy() if defocus else image
    for _ in range(count):
        if rng.random() < 0.5:
            angle, offset = rng.uniform(0, np.pi), rng.normal(0, 0.2, 2) * size + 0.5 * size
            direction = np.array([np.cos(angle), np.sin(angle)])
            line = (
                offset
                + np.linspace(-1, 1, 7)[:, None] * size * direction
                + rng.normal(0, 0.012 * size, (7, 2))
            )
            shapes = [np.rint(line * 16).astype(np.int32)]
            width = max(1, round(size * rng.uniform(0.012, 0.04)))
            tone = BARK_COLOURS[rng.integers(len(BARK_COLOURS))] * rng.uniform(0.6, 1.2)
            cv2.polylines(
                image, shapes, False, np.clip(tone, 0, 255).tolist(), width, cv2.LINE_AA, 4
            )
            cv2.polylines(layer, shapes, False, 255, width, cv2.LINE_8, 4)
        else:
            leaves = int(rng.integers(1, 4))
            where = size * (0.5 + rng.normal(0, 0.2, 2)) + rng.normal(0, 0.06 * size, (leaves, 2))
            length, angle = size * rng.uniform(0.05, 0.11, leaves), rng.uniform(0, 6.3, leaves)
            shapes = _leaf_outlines(where, length, angle, rng.uniform(0.3, 0.5, leaves))
            tone = LEAF_COLOURS[rng.integers(len(LEAF_COLOURS))] * rng.uniform(0.7, 1.2)
            for points, centre, reach, turn in zip(shapes, where, length, angle, strict=True):
                cv2.fillPoly(image, [points], np.clip(tone, 0, 255).tolist(), cv2.LINE_AA, 4)
                cv2.fillPoly(layer, [points], 255, cv2.LINE_8, 4)
                rib = np.array(
                    [
                        centre - 0.9 * reach * np.array([np.cos(turn), np.sin(turn)]),
                        centre + 0.9 * reach * np.array([np.cos(turn), np.sin(turn)]),
                    ]
                )
                cv2.polylines(
                    image,
                    [np.rint(rib * 16).astype(np.int32)],
                    False,
                    np.clip(tone * 1.25, 0, 255).tolist(),
                    max(1, round(size / 128)),
                    cv2.LINE_AA,
                    4,
                )
    if defocus:  # nearer to the lens than the bird
        soft = cv2.cvtColor(cv2.GaussianBlur(layer, (0, 0), defocus), cv2.COLOR_GRAY2RGB)
        blurred = cv2.GaussianBlur(image, (0, 0), defocus)
        image[:] = cv2.add(
            cv2.multiply(blurred, soft, scale=1 / 255),
            cv2.multiply(before, 255 - soft, scale=1 / 255),
        )
    return layer > 127
