"""Painting a head: cap, nape and throat, CUB's face patterns, eyes and bill."""

from __future__ import annotations

import numpy as np

from fieldguide.birds.bodies import BEYOND
from fieldguide.birds.canvas import (
    CIRCLE,
    FACE,
    PART,
    Canvas,
    contrasting,
    darker,
    lighter,
    luminance,
)
from fieldguide.birds.posture import BILL_LENGTHS, Bird
from fieldguide.birds.species import Individual

EYELID = (48, 44, 42)


def paint_head(bird: Bird, canvas: Canvas, near: str, far: str) -> None:
    head = bird.head
    towards = head.sin_yaw > 0.35
    if bird.individual.marks["head_pattern"] == "crested":
        _paint_crest(bird, canvas, bird.individual.colour("crown_color"))
    if not towards:
        _paint_bill(bird, canvas)
    with canvas.within(head.disc()):
        _paint_plumage(bird, canvas)
    if towards:
        _paint_bill(bird, canvas)
    for sign, name in ((1, near), (-1, far)):
        _paint_eye(bird, canvas, sign, PART[f"{name} eye"])


def _paint_plumage(bird: Bird, canvas: Canvas) -> None:
    individual, head, pattern = bird.individual, bird.head, bird.individual.marks["head_pattern"]
    crown, nape = individual.colour("crown_color"), individual.colour("nape_color")
    throat, disc = individual.colour("throat_color"), head.disc()
    face = throat if pattern == "capped" else nape
    whole = head.centre + BEYOND * (disc - head.centre)
    canvas.fill(whole, face, FACE, bird.lit(0, -0.35, 0.55))
    canvas.fill(head.patch(0, -54, 165, 72, 2.6), throat, PART["throat"])
    canvas.fill(head.patch(180, -16, 128, 110, 2.6), nape, PART["nape"])
    ring = np.linspace(-180, 180, 41)
    low = 14.0 if pattern == "capped" else 32.0
    points, _ = head.points(
        ring, low - 14.0 * (ring / 180) ** 4 + 5.0 * np.cos(np.radians(2 * ring))
    )
    canvas.fill(points, crown, PART["crown"])
    canvas.fill(
        head.patch(0, 22, 104, 50, 2.4), individual.colour("forehead_color"), PART["forehead"]
    )
    x, y, _ = bird.pose.light
    for size, offset, shade in (
        (0.92, 0.10, bird.lit(0, 0, 0.8)),
        (0.72, 0.22, bird.lit(0.3 * x, 0.3 * y, 0.9)),
        (0.45, 0.34, bird.lit(0.6 * x, 0.6 * y, 0.8)),
    ):
        centre = head.centre + offset * head.radius * np.array([x, y])
        canvas.fill(centre + size * (disc - head.centre), None, shade=shade)
    _paint_markings(bird, canvas)


def _paint_crest(bird: Bird, canvas: Canvas, crown) -> None:
    height = 0.75 if bird.individual.sex == "male" else 0.55
    forward = np.array([0.55, 0.25, -0.35, -0.95, -1.35, -0.95, -0.85])
    up = np.array([0.72, 1.02, 1.0 + 0.55 * height, 1.0 + 0.9 * height, 0.85 + height, 0.75, 0.30])
    points, _ = bird.head.place(forward, up, np.zeros(7))
    canvas.fill(points, crown, PART["crown"], 120)
    points, _ = bird.head.place(
        np.array([0.2, -0.5, -1.25]),
        np.array([0.9, 1.0 + 0.5 * height, 0.85 + height]),
        np.zeros(3),
    )
    canvas.line(points, darker(crown, 0.3), 0.01)


def marking_colour(individual: Individual) -> np.ndarray | None:
    """What the head pattern is drawn in, so that it shows on its ground; None: in nothing else."""
    crown, nape = individual.colour("crown_color"), individual.colour("nape_color")
    pattern = individual.marks["head_pattern"]
    if pattern in ("plain", "crested", "capped"):
        return None
    if pattern == "unique_pattern":
        accent = individual.colour(individual.species.accent)
        return accent if np.abs(accent - nape).sum() > 90 else contrasting(nape)
    if pattern == "malar":
        return contrasting(individual.colour("throat_color"))
    return contrasting(crown if pattern in ("striped", "eyebrow") else nape)


def _paint_markings(bird: Bird, canvas: Canvas) -> None:
    """The head patterns of CUB; each on both sides, the far one only as far as it shows."""
    head, pattern, individual = bird.head, bird.individual.marks["head_pattern"], bird.individual
    ink = marking_colour(individual)
    if bird.form.front_eyes:  # the facial discs of an owl
        throat = individual.colour("throat_color")
        for side in (1, -1):
            canvas.fill(head.patch(side * 36, 6, 66, 74), darker(throat, 0.45), FACE)
            canvas.fill(head.patch(side * 36, 6, 59, 67), throat)
            canvas.fill(head.patch(side * 36, 8, 40, 46), darker(throat, 0.12))
    if pattern == "striped":
        for azimuth in (0, 32, -32):
            if azimuth == 0:
                points, depth = head.points(
                    np.array([-7.0, 7, 173, 187]), np.array([35.0, 35, 40, 40])
                )
                crown = individual.colour("crown_color")
                canvas.fill(points, contrasting(crown, light="buff"))
            else:
                canvas.fill(head.patch(azimuth * 2.4, 38, 140, 14), ink)
    if pattern == "spotted":
        a, e = np.meshgrid(np.arange(-160, 161, 32.0), (-25.0, -2.0, 22.0, 45.0, 66.0))
        points, depth = head.points((a + e * 0.3).ravel(), e.ravel())
        shown = points[depth > 0.15]
        canvas.fill_many(shown[:, None, :] + 0.085 * head.radius * CIRCLE, ink)
    for side in (1, -1):
        if pattern == "eyebrow":
            canvas.fill(head.patch(side * 72, 34, 140, 16, 2.2, -0.06 * side), ink)
        elif pattern == "eyeline":
            canvas.fill(head.patch(side * 78, 11, 146, 13, 2.2, -0.06 * side), ink)
        elif pattern == "masked":
            canvas.fill(head.patch(side * 58, 8, 116, 36, 2.4), ink)
        elif pattern == "malar":
            canvas.fill(head.patch(side * 52, -36, 78, 20, 2.0, -0.35 * side), ink)
        elif pattern == "unique_pattern":
            canvas.fill(head.patch(side * 100, -12, 64, 46, 2.2), ink)


def _paint_eye(bird: Bird, canvas: Canvas, sign: int, part: int) -> None:
    head, individual, front = bird.head, bird.individual, bird.form.front_eyes
    points, depth = head.points(np.array([sign * (36.0 if front else 60.0)]), np.array([13.0]))
    if depth[0] < 0.22:
        return
    size = head.radius * (0.20 if front else 0.165 if bird.form.head > 0.15 else 0.20)
    oval = CIRCLE * size * np.array([0.55 + 0.45 * min(1.0, depth[0] * 1.2), 1.0])
    iris = individual.colour("eye_color")
    ringed = individual.marks["head_pattern"] == "eyering"
    canvas.fill(
        points + (1.75 if ringed else 1.28) * oval, marking_colour(individual) if ringed else EYELID
    )
    canvas.fill(points + oval, iris, part, 122)
    canvas.fill(points + (0.60 if luminance(iris) > 60 else 0.8) * oval, (14, 12, 14))
    canvas.fill(
        points + 0.28 * oval + size * np.array([0.30 * np.sign(bird.pose.light[0]), 0.34]),
        (250, 250, 250),
    )


def _paint_bill(bird: Bird, canvas: Canvas) -> None:
    head, marks = bird.head, bird.individual.marks
    colour = bird.individual.colour("bill_color")
    length = BILL_LENGTHS[marks["bill_length"]] * (0.55 if bird.form.front_eyes else 1.0)
    t = np.linspace(0, 1, 12)
    upper, lower, droop = _bill_profile(marks["bill_shape"], t)
    forward, middle = 0.82 + t * (length + 0.1), -0.12 + droop * (0.5 + 0.5 * length)

    def curve(offset, side=0.0):
        # The bill is placed in head radii, which undoes the stretch of the head.
        return head.place(
            forward / head.stretch * (1 + 0.1 * (1 - t)), middle + offset, np.full(12, side)
        )[0]

    top, centre, bottom = curve(upper), curve(0.0), curve(-lower)
    canvas.fill(np.concatenate([top, bottom[::-1]]), colour, PART["beak"], bird.lit(0.3, 0.5, 0.7))
    if abs(head.cos_yaw) < 0.45 and head.sin_yaw > 0:  # coming towards us: its breadth shows
        left, right = (
            centre[0] + (curve(0.0, -1.0)[0] - centre[0]) * 0.24,
            centre[0] + (curve(0.0, 1.0)[0] - centre[0]) * 0.24,
        )
        tip = centre[-1] - (0, 0.10 * head.radius)
        canvas.fill(np.array([left, bottom[0], right, tip]), darker(colour, 0.25), PART["beak"])
        canvas.fill(
            np.array([left, top[0], right, tip]),
            lighter(colour, 0.06),
            PART["beak"],
            bird.lit(0.3, 0.4, 0.8),
        )
        return
    canvas.fill(np.concatenate([centre, bottom[::-1]]), darker(colour, 0.16))
    canvas.line(top[1:10] * 0.8 + centre[1:10] * 0.2, lighter(colour, 0.30), 0.008)
    canvas.line(centre[:10], darker(colour, 0.5), 0.007)


def _bill_profile(shape: str, t):
    """Heights of the mandibles above and below the gape line, and its droop, in head radii."""
    taper = 1 - t
    flat = np.zeros_like(t)
    if shape == "cone":
        return 0.34 * taper**0.85 + 0.015, 0.28 * taper**0.9 + 0.01, flat
    if shape == "dagger":
        return 0.19 * taper**0.8 + 0.01, 0.15 * taper**0.8 + 0.01, flat
    if shape == "needle":
        return 0.085 * taper**0.5 + 0.02, 0.065 * taper**0.5 + 0.015, flat
    if shape == "curved_(up_or_down)":
        return 0.15 * taper**0.7 + 0.02, 0.12 * taper**0.7 + 0.02, -0.34 * t**2
    if shape == "hooked":
        return 0.32 * taper**0.55 + 0.02, 0.17 * taper**0.7 + 0.01 - 0.05 * t, -0.42 * t**3
    if shape == "hooked_seabird":
        return (
            0.20 * taper**0.4 + 0.03,
            0.15 * taper**0.7 + 0.01,
            -0.26 * np.maximum(t - 0.72, 0) / 0.28,
        )
    if shape == "spatulate":
        upper = 0.30 * taper**1.4 + 0.11 * np.sqrt(np.maximum(1 - t**8, 0))
        return upper, 0.14 * np.sqrt(np.maximum(1 - t**6, 0)), -0.12 * t
    if shape == "specialized":  # crossed tips
        return 0.28 * taper**0.6 + 0.02, 0.22 * taper**0.6 + 0.06 * t, -0.20 * t**2
    return 0.21 * taper**0.7 + 0.015, 0.16 * taper**0.8 + 0.01, -0.06 * t**2  # all-purpose
