"""What is sewn onto garments for the upper body: buttons, zips, pockets, belts, ruffles, bows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fieldguide.garments.attributes import Garment
from fieldguide.garments.canvas import (
    Buttons,
    Fold,
    Piece,
    Seam,
    Thread,
    ellipse,
    mirrored,
    outline,
    run,
    strip,
    symmetric,
)
from fieldguide.garments.cut import Cut, worn_open
from fieldguide.garments.fabrics import Fabric, darker, lighter, luminance


def trimmings(cut: Cut, garment: Garment, cloth: Fabric, trim: Fabric) -> list:
    parts: list = []
    bottom, low = cut.front(garment), -0.70 + cut.depth
    metal = (206, 200, 186) if garment.number % 2 else (198, 164, 96)
    opened = worn_open(garment)
    end = bottom + (0.05 if garment.kind in ("shirt", "jacket", "hoodie") else 0.015)
    if garment.has("quilted"):
        for y in np.arange(cut.armpit + 0.02, bottom, 0.125):
            w = cut.side(y) - 0.01
            parts.append(Seam(run((-w, y), (0, y + 0.015), (w, y)), 0.70, 0.016))
    if garment.has("zipped") and not opened:
        parts += [
            Seam(run((0, low), (0, end)), 0.55, 0.03),
            Thread(run((0, low), (0, end)), metal, 0.016, 0.012),
            Buttons(((0, low + 0.03),), 0.022, metal),
        ]
    elif (
        garment.has("buttoned")
        and garment.kind not in ("blazer", "coat", "cardigan")
        and not opened
    ):
        count = 6 if garment.kind != "dress" else 4
        parts += [
            Seam(run((0.032, low + 0.01), (0.032, end)), 0.80),
            Seam(run((-0.032, low + 0.03), (-0.032, end)), 0.86),
            Buttons(
                tuple((0, y) for y in np.linspace(low + 0.05, end - 0.09, count)),
                0.018,
                _button(cloth, garment),
            ),
        ]
    if garment.kind == "cardigan" and garment.has("buttoned"):
        parts.append(
            Buttons(
                tuple((0, y) for y in np.linspace(low + 0.01, bottom - 0.03, 4)),
                0.024,
                _button(cloth, garment),
            )
        )
    if garment.kind in ("blazer", "coat"):
        parts += _coat_front(cut, garment, cloth, low)
    if garment.has("pocketed"):
        parts += _pockets(cut, garment, cloth)
    if garment.has("belted"):
        parts += _belt(cut, garment, cloth, metal)
    if garment.has("embroidered"):
        parts += _emblem(garment, cloth)
    if garment.has("ruffled"):
        parts += _ruffles(cut, garment, cloth)
    if garment.has("bowdetailed"):
        parts += bow((0, low + 0.02), 0.15, trim)
    if garment.material == "denim":
        thread = (206, 160, 92)
        for sign in (1, -1):
            parts.append(
                Thread(
                    run((sign * 0.03, -0.40), (sign * cut.side(-0.4) * 0.86, -0.41)),
                    thread,
                    0.009,
                    0.025,
                )
            )
            parts.append(
                Thread(run((sign * 0.05, low + 0.05), (sign * 0.05, bottom)), thread, 0.009, 0.025)
            )
    return parts


def _button(cloth: Fabric, garment: Garment) -> tuple:
    if garment.material == "denim":
        return (204, 170, 110)
    return (
        lighter(cloth.colour, 0.75)
        if garment.number % 3
        else darker(cloth.colour, 0.45)
        if luminance(cloth.colour) > 90
        else lighter(cloth.colour, 0.35)
    )


def _coat_front(cut: Cut, garment: Garment, cloth: Fabric, low: float) -> list:
    double = garment.kind == "coat" and garment.number % 2 == 0
    edge = 0.015 if not double else 0.11
    parts: list = [
        Seam(run((0.015, low + 0.02), (edge, low + 0.12), (edge, cut.bottom + 0.01)), 0.60, 0.016)
    ]
    heights = np.linspace(
        low + 0.07, min(low + 0.50, cut.bottom - 0.12), 2 if garment.kind == "blazer" else 3
    )
    colour = _button(cloth, replace(garment, number=1 if garment.number % 4 == 0 else 0))
    xs = (edge - 0.045, -edge + 0.045 - 0.09) if double else (edge - 0.03,)
    parts.append(Buttons(tuple((x, y) for y in heights for x in xs), 0.026, colour))
    return parts


def _pockets(cut: Cut, garment: Garment, cloth: Fabric) -> list:
    parts: list = []
    if garment.kind in ("tshirt", "shirt"):
        x, y, w, h = 0.19, -0.30, 0.075, 0.15
        shape = outline(
            [(x - w, y), (x + w, y)], [(x + w, y + h), (x, y + h + 0.03), (x - w, y + h)]
        )
        return [
            Piece(shape, cloth, 0, (0, 0.01), puff=0.02, lift=0.22),
            Seam(run((x - w, y + 0.03), (x + w, y + 0.03)), 0.78),
        ]
    if garment.kind == "hoodie":
        shape = symmetric(
            [(0, 0.16), (0.15, 0.16)],
            [(0.26, 0.34)],
            [(0.26, cut.bottom - 0.02)],
            [(0, cut.bottom)],
        )
        if cut.bottom < 0.4:
            shape = shape * (1, 0.55) + (0, 0.02)
        return [Piece(shape.astype(np.float32), cloth, 0, (0, 0.02), puff=0.03, lift=0.28)]
    y = min(0.20, cut.bottom - 0.22) if garment.kind != "coat" else 0.25
    for sign in (1, -1):
        x = 0.55 * cut.side(y)
        if garment.kind in ("blazer", "coat"):
            shape = outline(
                [(x - 0.10, y + 0.01), (x + 0.10, y - 0.01)],
                [(x + 0.105, y + 0.06)],
                [(x - 0.095, y + 0.075)],
            )
        elif garment.kind == "jacket":
            shape = outline(
                [(x - 0.03, y - 0.07), (x + 0.012, y - 0.09)],
                [(x + 0.08, y + 0.09)],
                [(x + 0.035, y + 0.105)],
            )
        else:
            shape = outline(
                [(x - 0.095, y), (x + 0.095, y)], [(x + 0.09, y + 0.17)], [(x - 0.09, y + 0.17)]
            )
        parts.append(
            Piece(
                shape if sign > 0 else mirrored(shape),
                cloth,
                0,
                (0.01, 0.01),
                puff=0.018,
                lift=0.30,
            )
        )
    if garment.kind == "jacket" and garment.material == "denim":
        for sign in (1, -1):
            shape = outline(
                [(0.10, -0.33), (0.28, -0.33)], [(0.28, -0.27)], [(0.19, -0.245)], [(0.10, -0.27)]
            )
            parts.append(
                Piece(
                    shape if sign > 0 else mirrored(shape), cloth, 0, (0, 0), puff=0.015, lift=0.30
                )
            )
    return parts


def _belt(cut: Cut, garment: Garment, cloth: Fabric, metal) -> list:
    y, w = 0.13, cut.side(0.13) + 0.004
    colour = (
        darker(cloth.colour, 0.16)
        if garment.kind == "coat"
        else (112, 76, 52)
        if garment.number % 2
        else darker(cloth.colour, 0.45)
    )
    band = Fabric(colour, cloth.material if garment.kind == "coat" else "leather")
    shape = outline(
        [(-w, y - 0.03), (0, y - 0.018), (w, y - 0.03)],
        [(w, y + 0.035), (0, y + 0.048), (-w, y + 0.035)],
    )
    parts: list = [Piece(shape, band, puff=0.02, lift=0.35)]
    if garment.kind == "coat":
        for reach in (0.30, 0.24):
            tail = strip(
                [(0.02, y + 0.02), (0.06, y + 0.14), (0.05 + 0.3 * (reach - 0.24), y + reach)],
                0.055,
            )
            parts.append(Piece(tail, band, puff=0.02, lift=0.3))
        return parts + [Piece(ellipse((0.02, y + 0.015), 0.05, 0.045), band, puff=0.02, lift=0.3)]
    return parts + [
        Thread(
            np.array(
                [
                    (-0.035, y - 0.022),
                    (0.04, y - 0.022),
                    (0.04, y + 0.045),
                    (-0.035, y + 0.045),
                    (-0.035, y - 0.022),
                ]
            ),
            metal,
            0.014,
        )
    ]


def _emblem(garment: Garment, cloth: Fabric) -> list:
    """A motif on the breast, different from garment to garment."""
    rng = garment.stream("emblem")
    colour, centre, size = cloth.second, np.array([0.0, -0.16]), rng.uniform(0.09, 0.13)
    count, angles = int(rng.integers(3, 8)), np.linspace(0, 2 * np.pi, 61)[:-1]
    kind = int(rng.integers(4))
    if kind == 0:  # a star
        radius = np.where(np.arange(2 * count) % 2, 0.45, 1.0)
        turn = np.linspace(0, 2 * np.pi, 2 * count, endpoint=False) - np.pi / 2
        shapes = [np.stack([np.cos(turn), np.sin(turn)], axis=1) * radius[:, None]]
    elif kind == 1:  # a flower
        shapes = [
            (0.72 + 0.28 * np.cos(count * angles))[:, None]
            * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        ]
    elif kind == 2:  # bars
        shapes = [
            np.array([(-1, y), (1, y), (1, y + 0.32), (-1, y + 0.32)]) for y in (-0.9, -0.2, 0.5)
        ]
    else:  # a heart
        heart = np.stack(
            [
                np.sin(angles) ** 3,
                -(
                    13 * np.cos(angles)
                    - 5 * np.cos(2 * angles)
                    - 2 * np.cos(3 * angles)
                    - np.cos(4 * angles)
                )
                / 16,
            ],
            axis=1,
        )
        shapes = [heart]
    return [
        Piece(
            (centre + size * shape).astype(np.float32),
            Fabric(colour, "cotton"),
            puff=0.008,
            lift=0.05,
        )
        for shape in shapes
    ]


def _ruffles(cut: Cut, garment: Garment, cloth: Fabric) -> list:
    parts: list = []
    soft = replace(cloth, colour=lighter(cloth.colour, 0.06))
    for sign in (1, -1):
        line = run(
            (sign * 0.05, cut.front(garment) - 0.12),
            (sign * 0.10, -0.15),
            (sign * (cut.neck + 0.02), -0.66),
        )
        wave = 0.016 * np.sin(np.linspace(0, 9 * np.pi, 40))
        middle = np.stack(
            [
                np.interp(np.linspace(0, 1, 40), np.linspace(0, 1, len(line)), line[:, axis])
                for axis in (0, 1)
            ],
            axis=1,
        )
        inner, outer = middle.copy(), middle.copy()
        inner[:, 0] -= sign * 0.015
        outer[:, 0] += sign * (0.06 + wave)
        folds = tuple(
            Fold(np.stack([inner[k], 0.5 * (inner[k] + outer[k]), outer[k]]), 0.03, -0.02)
            for k in range(3, 40, 5)
        )
        parts.append(
            Piece(
                np.vstack([inner, outer[::-1]]).astype(np.float32),
                soft,
                0,
                (0, 0),
                folds,
                puff=0.025,
                lift=0.35,
            )
        )
    return parts


def bow(centre, size: float, cloth: Fabric) -> list:
    x, y = centre
    wing = outline(
        [(0.0, -0.08), (0.45, -0.42), (0.95, -0.45)],
        [(1.05, 0.0), (0.95, 0.42)],
        [(0.45, 0.35), (0.0, 0.08)],
    )
    tail = outline(
        [(0.05, 0.0), (0.40, 0.75), (0.45, 1.25)], [(0.15, 1.12)], [(0.05, 0.7), (-0.08, 0.1)]
    )
    shapes = [mirrored(tail), tail, wing, mirrored(wing)]
    fold = run((0.1, 0.0), (0.4, -0.08), (0.7, -0.16))
    parts: list = [
        Piece(
            (np.array([x, y]) + size * shape).astype(np.float32),
            cloth,
            puff=0.03,
            lift=0.35,
            folds=(Fold(np.array([x, y]) + size * fold * (1 if k == 2 else -1, 1), 0.03, -0.02),)
            if k > 1
            else (),
        )
        for k, shape in enumerate(shapes)
    ]
    return parts + [Piece(ellipse((x, y), 0.16 * size, 0.2 * size), cloth, puff=0.02, lift=0.3)]
