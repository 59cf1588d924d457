"""Painting one bird onto a canvas: legs, tail, body and wings."""

from __future__ import annotations

import numpy as np

from fieldguide.birds.bodies import Body, Strip
from fieldguide.birds.canvas import CIRCLE, PART, Canvas, contrasting, darker, lighter, luminance
from fieldguide.birds.heads import paint_head
from fieldguide.birds.posture import Bird
from fieldguide.streams import Streams

WING_SHADOW = (-0.012, -0.035)  # how far from the wing its shadow lies, in body units


def paint(bird: Bird, canvas: Canvas, streams: Streams) -> None:
    """Paints a bird, from its far side to the near one; `streams` only place streaks and spots."""
    near, far = ("left", "right") if canvas.flip else ("right", "left")
    _paint_leg(bird, canvas, 1, PART[f"{far} leg"], 0.78)
    if bird.pose.wing == "raised":
        _paint_raised_wing(bird, canvas, bird.pose.wing_angle - 16, PART[f"{far} wing"], 0.72)
    _paint_tail(bird, canvas)
    _paint_leg(bird, canvas, 0, PART[f"{near} leg"], 1.0)
    with canvas.within(bird.body.outline()):
        _paint_body(bird, canvas, streams)
    if bird.pose.wing == "folded":
        # The wing's own shadow lies on the body, a little below and behind it.
        canvas.fill(bird.wing.outline() + WING_SHADOW, None, shade=82)
        with canvas.within(bird.wing.outline()):
            _paint_folded_wing(bird, canvas, PART[f"{near} wing"])
    # Two pixels further out than the body, or the wing below would show as a line along the back.
    with canvas.within(bird.body.outline(2 / canvas.scale)):
        _paint_mantle(bird, canvas, streams("paint/back"))
    paint_head(bird, canvas, near, far)
    if bird.pose.wing == "raised":
        _paint_raised_wing(bird, canvas, bird.pose.wing_angle, PART[f"{near} wing"], 1.0)
    _paint_toes(bird, canvas, PART[f"{near} leg"], PART[f"{far} leg"])


def _paint_leg(bird: Bird, canvas: Canvas, index: int, part: int, light: float) -> None:
    hip, foot = bird.hips[index], bird.feet[index]
    colour = bird.individual.colour("leg_color") * light
    long = bird.form.leg > 0.35
    ankle = hip + (foot - hip) * 0.55 + np.array([-0.05 if long else -0.02, 0.0])
    width = 0.018 if long else 0.021
    thigh = Strip(
        [
            (*hip, 0.11 if not long else 0.08),
            (*(0.5 * (hip + ankle)), 0.07 if not long else 0.05),
            (*ankle, 0.02),
        ],
        13,
    )
    canvas.fill(
        thigh.outline(), bird.individual.colour("belly_color") * 0.9 * light, PART["belly"], 105
    )
    for start, end in ((ankle, foot), (0.5 * (hip + ankle), ankle)):
        side = np.array([-(end - start)[1], (end - start)[0]])
        side = side / (np.linalg.norm(side) + 1e-6) * width
        canvas.fill(
            np.array([start + side, end + 0.8 * side, end - 0.8 * side, start - side]),
            colour,
            part,
            118,
        )


def _paint_toes(bird: Bird, canvas: Canvas, near_part: int, far_part: int) -> None:
    """Toes over the perch: three forward, one back."""
    colour, size = bird.individual.colour("leg_color"), 0.075
    for index, light, part in ((1, 0.8, far_part), (0, 1.0, near_part)):
        foot = bird.feet[index]
        if bird.form.clinging:
            toes = [(0.03, size), (0.07, 0.5 * size), (0.05, -0.8 * size)]
        else:
            toes = [(1.25 * size, -0.022), (0.8 * size, -0.036), (-0.9 * size, -0.03)]
        for dx, dy in toes:
            tip = foot + (dx, dy)
            quad = np.array(
                [foot + (0, 0.02), tip + (0, 0.010), tip - (0, 0.010), foot - (0, 0.016)]
            )
            canvas.fill(quad, colour * light, part, 118)


def _paint_tail(bird: Bird, canvas: Canvas) -> None:
    individual, tail, marks = bird.individual, bird.tail, bird.individual.marks
    upper, under = individual.colour("upper_tail_color"), individual.colour("under_tail_color")
    across = np.linspace(1, -1, 13)
    end = (
        1
        - {
            "forked_tail": 0.42 * (1 - np.abs(across)) ** 0.8,
            "rounded_tail": 0.14 * across**2,
            "notched_tail": 0.12 * (1 - np.abs(across)),
            "fan-shaped_tail": 0.20 * across**2,
            "pointed_tail": 0.50 * np.abs(across) ** 1.2,
            "squared_tail": 0 * across,
        }[marks["tail_shape"]]
    )
    s = np.linspace(0, 0.98, 12)

    def portion(start, t_low, t_high):
        """The tail from s = start to its end, between two edges."""
        inside = across[(across <= t_high + 1e-6) & (across >= t_low - 1e-6)]
        stop = np.interp(-inside, -across, end)
        along0, along1 = start + (stop[0] - start) * s, start + (stop[-1] - start) * s[::-1]
        return np.concatenate(
            [tail.at(along0, inside[0]), tail.at(stop, inside), tail.at(along1, inside[-1])]
        )

    mark, pattern = contrasting(upper), marks["tail_pattern"]
    accent = individual.colour(individual.species.accent)
    with canvas.within(portion(0.0, -1, 1)):
        canvas.fill(tail.band(0.0, 1.0, -1, 1), upper, PART["tail"], bird.lit(-0.3, 0.75, 0.4))
        canvas.fill(
            tail.band(0.0, 1.0, -1, -0.5), darker(under, 0.08), None, bird.lit(-0.2, -0.6, 0.5)
        )
        if pattern == "striped":
            for start in (0.42, 0.58, 0.74, 0.88):
                canvas.fill(tail.band(start, start + 0.065, -0.45, 1.0), mark)
        elif pattern == "spotted":
            places = np.repeat([0.45, 0.6, 0.75, 0.88], 2), np.tile([0.55, -0.05], 4)
            canvas.fill_many(_lozenges(tail, *places, 0.03, 0.22), mark)
        elif pattern == "multi-colored":
            canvas.fill(portion(0.70, -1, 1), accent)
            canvas.fill(tail.band(0.0, 1.0, 0.5, 1), accent)
        edges = [
            tail.at(np.linspace(0.25, 0.97 * float(np.interp(-t, -across, end)), 9), np.full(9, t))
            for t in (0.62, 0.28, -0.08, -0.5)
        ]
        canvas.line(np.stack(edges), darker(upper, 0.38), 0.008)


def _paint_body(bird: Bird, canvas: Canvas, streams: Streams) -> None:
    """The trunk and neck. Each pattern comes right after its ground, and later parts cover what
    runs over the edge."""
    individual, body, mid = bird.individual, bird.body, bird.s_mid
    side = 22  # the line along the flank where upperparts end, degrees
    canvas.fill(body.band(0.0, 1.0, -1, 1), individual.colour("back_color"), PART["back"])
    belly = body.region(mid - 0.05, 0.95, -180, side, 0.05)
    canvas.fill(belly, individual.colour("belly_color"), PART["belly"])
    _paint_belly_pattern(bird, canvas, streams("paint/belly"))
    breast = body.region(bird.s_neck * 0.72, mid - 0.03, -180, side, 0.05, 0.08)
    canvas.fill(breast, individual.colour("breast_color"), PART["breast"])
    _paint_breast_pattern(bird, canvas, streams("paint/breast"))
    nape = body.region(0.0, bird.s_neck, 2, 180, 0.06, 0.07)
    canvas.fill(nape, individual.colour("nape_color"), PART["nape"])
    throat = body.region(0.0, bird.s_neck * 0.80, -180, 14, 0.06, 0.06)
    canvas.fill(throat, individual.colour("throat_color"), PART["throat"])
    vent = body.region(0.90, 1.0, -180, -8, 0.0, 0.04)
    canvas.fill(vent, individual.colour("under_tail_color"), PART["tail"])
    normal = body.normal[len(body.normal) // 2]
    for low, high in ((-90, -58), (-58, -28), (-28, 2), (2, 30), (30, 58), (58, 90)):
        angle = np.radians((low + high) / 2 + body.roll)
        up = np.sin(angle)
        shade = bird.lit(normal[0] * up, normal[1] * up, max(np.cos(angle), 0))
        canvas.fill(body.region(0.0, 1.0, low, high), None, shade=shade)


def _paint_breast_pattern(bird: Bird, canvas: Canvas, rng) -> None:
    individual, body, pattern = bird.individual, bird.body, bird.individual.marks["breast_pattern"]
    start, end = bird.s_neck * 0.80, bird.s_mid - 0.06
    ink = contrasting(individual.colour("breast_color"), light="buff", dark="brown") * 0.85
    if pattern == "striped":
        streaks = _scatter(body, rng, start + 0.02, end, -80, 16, 6, 8)
        canvas.fill_many(_lozenges(body, *streaks, 0.034, 0.045), ink)
    elif pattern == "spotted":
        spots = _scatter(body, rng, start + 0.02, end, -80, 14, 6, 6)
        canvas.fill_many(_dots(body, *spots, 0.017), ink)
    elif pattern == "multi-colored":
        middle = 0.5 * (start + bird.s_mid)
        accent = individual.colour(individual.species.accent)
        canvas.fill(body.region(middle - 0.01, middle + 0.075, -180, 10, 0.16), accent)


def _paint_belly_pattern(bird: Bird, canvas: Canvas, rng) -> None:
    individual, body, pattern = bird.individual, bird.body, bird.individual.marks["belly_pattern"]
    mid = bird.s_mid
    ink = contrasting(individual.colour("belly_color"), light="buff", dark="brown") * 0.85
    if pattern == "striped":
        for s in np.linspace(mid + 0.03, 0.88, 7):
            canvas.fill(body.region(s, s + 0.020, -180, 6, 0.0, 0.012), ink)
    elif pattern == "spotted":
        spots = _scatter(body, rng, mid + 0.02, 0.90, -82, 4, 7, 6)
        canvas.fill_many(_dots(body, *spots, 0.016), ink)
    elif pattern == "multi-colored":
        accent = individual.colour(individual.species.accent)
        canvas.fill(body.region(mid, 0.86, -40, 16, 0.06, 0.05), accent)


def _scatter(body: Body, rng, s0, s1, phi0, phi1, columns, rows):
    """(s, t) of staggered rows of feathers on the body, each a little out of place."""
    s = (
        np.linspace(s0, s1, columns)[:, None]
        + rng.uniform(-0.3, 0.3, (columns, rows)) * (s1 - s0) / columns
    )
    phi = (
        np.linspace(phi0, phi1, rows)
        + ((np.arange(columns) % 2) * 0.5 * (phi1 - phi0) / rows)[:, None]
    )
    phi = phi + rng.uniform(-3, 3, (columns, rows))
    return s.ravel(), body.around(phi.ravel())


def _paint_mantle(bird: Bird, canvas: Canvas, rng) -> None:
    """The back, with the scapulars that lie over the top of the folded wing, and its pattern."""
    individual, body, pattern = bird.individual, bird.body, bird.individual.marks["back_pattern"]
    back, accent = individual.colour("back_color"), individual.colour(individual.species.accent)
    front, rear = bird.s_neck + 0.04, bird.s_rear + 0.03
    canvas.fill(body.region(front, rear, 30, 180, 0.05, 0.06), back, PART["back"])
    ink = contrasting(back, light="buff")
    if pattern == "striped":
        for phi in (36, 50, 66):
            canvas.fill(body.region(front, rear, phi, phi + 7), ink)
    elif pattern == "spotted":
        canvas.fill_many(
            _dots(body, *_scatter(body, rng, front + 0.01, rear, 36, 72, 7, 4), 0.016), ink
        )
    elif pattern == "multi-colored":  # a saddle
        middle = 0.5 * (front + rear)
        canvas.fill(body.region(middle - 0.02, rear - 0.02, 38, 180, 0.05, 0.04), accent)


def _paint_folded_wing(bird: Bird, canvas: Canvas, part: int) -> None:
    individual, wing, marks = bird.individual, bird.wing, bird.individual.marks
    colour = individual.colour("wing_color")
    edge, quill = (
        darker(colour, 0.34) if luminance(colour) > 60 else lighter(colour, 0.20),
        darker(colour, 0.20),
    )
    canvas.fill(wing.band(0.0, 1.0, -1.0, 1.0), colour, part, bird.lit(-0.1, 0.25, 0.85))
    canvas.fill(wing.band(0.0, 0.85, 0.45, 1.0), None, shade=bird.lit(-0.1, 0.75, 0.6))
    canvas.fill(wing.band(0.52, 1.0, -1.0, 0.25), quill)
    for t0, t1, s0 in ((0.30, 0.62, 0.34), (-0.05, 0.35, 0.40)):  # tertials
        canvas.fill(wing.band(s0, 0.74, t0, t1), lighter(colour, 0.07))
    pattern, mark = marks["wing_pattern"], contrasting(colour, light="white", dark="black")
    accent = individual.colour(individual.species.accent)
    if pattern == "multi-colored":
        canvas.fill(wing.band(0.34, 0.64, -0.90, 0.05, 0.05, 0.05), accent)
    lines = [
        wing.at(np.linspace(s0, s1, 11), np.linspace(t0, t1, 11))
        for s0, s1, t0, t1 in (
            (0.50, 0.99, -0.72, -0.5),
            (0.50, 0.99, -0.42, -0.1),
            (0.50, 0.98, -0.12, 0.3),
            (0.46, 0.90, 0.18, 0.7),
            (0.36, 0.76, 0.48, 0.86),
        )
    ]
    canvas.line(np.stack(lines), edge, 0.006)
    scallop = np.linspace(-0.9, 0.85, 15)
    for s0, depth in ((0.44, 0.016), (0.29, 0.014), (0.17, 0.012)):
        s = s0 + depth * np.abs(np.sin(scallop * 9)) + 0.05 * scallop
        canvas.line(wing.at(s, scallop), edge, 0.006)
    if pattern == "striped":
        for s0 in (0.25, 0.41):
            s = s0 + 0.05 * scallop
            canvas.fill(
                np.concatenate([wing.at(s, scallop), wing.at((s + 0.052)[::-1], scallop[::-1])]),
                mark,
            )
    elif pattern == "spotted":
        s, t = np.meshgrid((0.14, 0.23, 0.32, 0.41, 0.50), (-0.7, -0.3, 0.1, 0.5))
        canvas.fill_many(_dots(wing, (s + 0.05 * t).ravel(), t.ravel(), 0.024), mark)
    canvas.line(
        wing.at(np.linspace(0.04, 0.99, 25), np.full(25, -1.0)), darker(colour, 0.45), 0.008
    )


def _paint_raised_wing(bird: Bird, canvas: Canvas, angle: float, part: int, light: float) -> None:
    individual, marks = bird.individual, bird.individual.marks
    colour = individual.colour("wing_color") * light
    mark, accent = contrasting(colour) * light, individual.colour(individual.species.accent) * light
    edge = darker(colour, 0.4) if luminance(colour) > 60 else lighter(colour, 0.25)
    feathers = bird.raised_feathers(angle)
    half = len(feathers[0][0]) // 2
    shoulder = bird.frame(
        [(0.18, 0.30 * bird.depth), (0.0, 0.30 * bird.depth), (-0.20, 0.30 * bird.depth)]
    )
    scapulars = Strip(
        np.column_stack([shoulder, (0.25 * bird.depth, 0.42 * bird.depth, 0.05 * bird.depth)]), 13
    )
    for number, (outline, along) in enumerate(feathers):
        tone = (
            darker(colour, 0.10 + 0.14 * along)
            if number % 2
            else darker(colour, 0.02 + 0.14 * along)
        )
        if marks["wing_pattern"] == "multi-colored" and 0.1 < along < 0.6:
            tone = accent
        canvas.fill(outline, tone, part, 128 * (0.80 + 0.25 * light * (number % 2)))
        canvas.line(outline[half:], edge, 0.006)
    canvas.fill(scapulars.outline(), darker(colour, 0.06), part, 128 * light)
    roots = np.stack([0.5 * (outline[0] + outline[-1]) for outline, _ in feathers])
    tips = np.stack([0.5 * (outline[half - 1] + outline[half]) for outline, _ in feathers])
    for reach, tone in (
        (0.56, darker(colour, 0.05)),
        (0.34, lighter(colour, 0.07)),
    ):  # rows of coverts
        row = roots + (tips - roots) * reach
        canvas.fill(
            np.concatenate([roots[:1], row, roots[::-1]]), tone, part, 128 * (0.9 + 0.2 * light)
        )
        if marks["wing_pattern"] == "striped":
            outer = roots + (tips - roots) * (reach + 0.07)
            canvas.fill(np.concatenate([row, outer[::-1]]), mark, part)
        elif marks["wing_pattern"] == "spotted":
            dots = (roots + (tips - roots) * (reach - 0.08))[1:, None, :] + 0.022 * CIRCLE
            canvas.fill_many(dots, mark, part)
        else:
            canvas.line(row, edge, 0.006)


def _dots(strip: Strip, s, t, radius: float) -> np.ndarray:
    """(n, 16, 2) round spots at (s, t) on a strip, without those that would cross its edge."""
    inside = np.abs(t) < 0.93
    return strip.at(np.asarray(s)[inside], np.asarray(t)[inside])[:, None, :] + radius * CIRCLE


def _lozenges(strip: Strip, s, t, half_length: float, half_width: float) -> np.ndarray:
    """(n, 6, 2) small drops at (s, t) on a strip; half_length in s, half_width in t."""
    s, t = np.asarray(s, dtype=np.float32), np.asarray(t, dtype=np.float32)
    ds = half_length * np.array([-1.0, -0.3, 0.5, 1.0, 0.5, -0.3], dtype=np.float32)
    dt = half_width * np.array([0.0, 0.8, 1.0, 0.0, -1.0, -0.8], dtype=np.float32)
    points = strip.at((s[:, None] + ds).ravel(), np.clip(t[:, None] + dt, -1, 1).ravel())
    return points.reshape(-1, 6, 2)
