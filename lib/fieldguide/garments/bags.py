"""Bags from the front: totes, handbags, backpacks, satchels and clutches."""

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
from fieldguide.garments.fabrics import Fabric, darker, lighter, luminance
from fieldguide.garments.shoes import tassel
from fieldguide.garments.trimmings import bow

TAN = (156, 104, 66)


def sew_bag(garment: Garment, worn: bool) -> tuple[list, list]:
    """(handles behind the bag, the bag), each from far to near."""
    del worn  # a bag looks alike in every hand
    cloth, rng = garment.fabric(), garment.stream("cut/bag")
    metal = (186, 182, 174) if garment.number % 2 else (200, 164, 92)
    strap = Fabric(
        TAN
        if garment.material in ("canvas", "silk") and garment.colour != "brown"
        else darker(cloth.colour, 0.15)
        if luminance(cloth.colour) > 60
        else lighter(cloth.colour, 0.08),
        "leather",
    )
    behind, front = _BAGS[garment.kind](garment, cloth, strap, metal, rng)
    if garment.has("tasseled"):
        front += tassel((0.30, -0.02), 0.34, strap)
    if garment.has("studded"):
        front.append(Buttons(tuple((x, 0.62) for x in np.linspace(-0.4, 0.4, 7)), 0.022, metal))
    return behind, front


def handle_top(garment: Garment) -> float:
    """The height at which a hand holds the bag."""
    return {"tote": -0.84, "handbag": -0.66, "backpack": -0.78, "satchel": -1.02, "clutch": -0.06}[
        garment.kind
    ]


def _arch(half: float, low: float, top: float, width: float, flat: float = 0.75) -> np.ndarray:
    return strip(
        [
            (-half, low),
            (-half * 0.98, 0.5 * (low + top)),
            (-flat * half * 0.75, top + 0.05),
            (0, top),
            (flat * half * 0.75, top + 0.05),
            (half * 0.98, 0.5 * (low + top)),
            (half, low),
        ],
        width,
    )


def _dents(cloth: Fabric, rng, top: float, bottom: float, half: float) -> tuple[Fold, ...]:
    folds = []
    for _ in range(3):
        x, y = rng.uniform(-0.6, 0.6) * half, rng.uniform(top + 0.15, bottom - 0.2)
        dx = rng.normal(0, 0.06)
        folds.append(
            Fold(
                run((x, y - 0.16), (x + dx, y), (x + dx * 1.5, y + 0.18)),
                0.09,
                -0.018 * cloth.drape,
            )
        )
    return tuple(folds)


def _tote(garment, cloth, strap, metal, rng):
    half, top, bottom = 0.52 + rng.normal(0, 0.03), -0.22, 0.76 + rng.normal(0, 0.03)
    base = half * rng.uniform(0.80, 1.0)
    body = symmetric(
        [(0, top + 0.025), (half, top)],
        [(half + 0.01, top + 0.3), (base + 0.02, bottom - 0.08), (base - 0.06, bottom)],
        [(0, bottom + 0.015)],
    )
    inside = outline(
        [(-half, top), (0, top - 0.045), (half, top)],
        [(half - 0.04, top + 0.08), (-half + 0.04, top + 0.08)],
    )
    reach = 0.5 * half
    behind: list = [
        Piece(
            _arch(reach - 0.03, top + 0.02, -0.80, 0.055),
            replace(strap, colour=darker(strap.colour, 0.2)),
            puff=0.015,
        ),
        Piece(inside, Fabric(darker(cloth.colour, 0.45), "cotton"), puff=0.02, lift=0.1),
    ]
    front: list = [
        Piece(body, cloth, 0, (0, 0), _dents(cloth, rng, top, bottom, half), puff=0.07, lift=0.2),
        Seam(run((-half + 0.01, top + 0.055), (0, top + 0.08), (half - 0.01, top + 0.055)), 0.76),
    ]
    kind = int(rng.integers(3))
    if kind == 0:  # a leather bottom
        low = symmetric(
            [(0, bottom - 0.22), (base + 0.01, bottom - 0.23)],
            [(base + 0.015, bottom - 0.1), (base - 0.055, bottom + 0.003)],
            [(0, bottom + 0.017)],
        )
        front.append(Piece(low, strap, puff=0.03, lift=0.15))
    elif kind == 1:
        pocket = symmetric(
            [(0, top + 0.34)], [(0.27, top + 0.335)], [(0.255, bottom - 0.16), (0, bottom - 0.13)]
        )
        front.append(Piece(pocket, cloth, 0, (0.02, 0.03), puff=0.025, lift=0.28))
    front.append(Piece(_arch(reach, top + 0.26, -0.88, 0.06), strap, puff=0.016, lift=0.3))
    front.append(
        Buttons(tuple((s * reach, top + y) for s in (1, -1) for y in (0.10, 0.21)), 0.018, metal)
    )
    if garment.has("embroidered"):
        turn = np.linspace(0, 2 * np.pi, 60, endpoint=False)
        petals, size = int(rng.integers(4, 9)), 0.15
        flower = size * (0.7 + 0.3 * np.cos(petals * turn))[:, None] * np.stack(
            [np.cos(turn), np.sin(turn)], axis=1
        ) + (0, 0.28)
        front += [
            Piece(flower.astype(np.float32), Fabric(cloth.second, "cotton"), puff=0.01, lift=0.05),
            Piece(ellipse((0, 0.28), 0.04), Fabric(cloth.colour, "cotton"), puff=0.01, lift=0.05),
        ]
    return behind, front


def _quilting(half: float, top: float, bottom: float) -> list:
    lines, high = [], bottom - top
    for start in np.arange(-half - high, half, 0.17):
        points = np.array([(start, bottom), (start + high, top)])
        inside = np.clip(points, (-half, top), (half, bottom))
        inside[0, 1], inside[1, 1] = (
            bottom - (inside[0, 0] - start),
            top + (start + high - inside[1, 0]),
        )
        if inside[0, 0] < inside[1, 0]:
            lines += [
                Seam(inside.astype(np.float32), 0.72, 0.016),
                Seam(mirrored(inside), 0.72, 0.016),
            ]
    return lines


def _handbag(garment, cloth, strap, metal, rng):
    half, top, bottom = 0.56 + rng.normal(0, 0.03), -0.14 + rng.normal(0, 0.02), 0.62
    upper = half * rng.uniform(0.72, 0.92)
    body = symmetric(
        [(0, top), (upper - 0.04, top)],
        [(upper, top + 0.02), (half, bottom - 0.10), (half - 0.05, bottom)],
        [(0, bottom + 0.01)],
    )
    handle = _arch(0.27, top + 0.10, -0.66, 0.065)
    behind: list = [
        Piece(
            _arch(0.25, top + 0.05, -0.60, 0.05),
            replace(strap, colour=darker(strap.colour, 0.2)),
            puff=0.015,
        )
    ]
    front: list = [
        Piece(
            body, cloth, 0, (0, 0), _dents(cloth, rng, top, bottom, half)[:2], puff=0.08, lift=0.2
        )
    ]
    if garment.has("quilted"):
        front += _quilting(upper * 0.97, top + 0.05, bottom - 0.04)
    kind = int(rng.integers(3))
    if kind == 0:
        reach = rng.uniform(0.26, 0.42)
        flap = symmetric(
            [(0, top - 0.02), (upper - 0.02, top - 0.015)],
            [
                (upper + 0.01, top + 0.08),
                (upper - 0.03, top + reach - 0.06),
                (upper - 0.18, top + reach),
                (0, top + reach + 0.02),
            ],
        )
        front += [Piece(flap, cloth, 0, (0.02, 0.02), puff=0.05, lift=0.4)]
        lock = top + reach - 0.02
    elif kind == 1:
        lock = top + 0.16
        front += [Seam(run((-upper, top + 0.11), (0, top + 0.12), (upper, top + 0.11)), 0.62, 0.02)]
    else:
        lock = top + 0.20
        front.append(
            Piece(strip([(0, top - 0.03), (0, top + 0.28)], 0.14), strap, puff=0.02, lift=0.35)
        )
    front += [
        Piece(
            outline(
                [(-0.055, lock - 0.04), (0.055, lock - 0.04)],
                [(0.055, lock + 0.05), (-0.055, lock + 0.05)],
            ),
            Fabric(metal, "metal"),
            puff=0.02,
            lift=0.3,
        ),
        Piece(handle, strap, puff=0.022, lift=0.3),
    ]
    front.append(Buttons(tuple((s * 0.27, top + 0.10) for s in (1, -1)), 0.04, metal))
    if garment.has("zipped"):
        front.append(
            Thread(
                run((-upper + 0.1, bottom - 0.17), (upper - 0.1, bottom - 0.17)), metal, 0.02, 0.016
            )
        )
    if garment.has("belted"):
        for x in (-0.32, 0.32):
            front.append(
                Piece(
                    strip([(x, top + 0.01), (x * 1.03, bottom - 0.02)], 0.075),
                    strap,
                    puff=0.02,
                    lift=0.3,
                )
            )
            front.append(
                Thread(
                    np.array(
                        [
                            (x - 0.05, 0.22),
                            (x + 0.05, 0.22),
                            (x + 0.05, 0.31),
                            (x - 0.05, 0.31),
                            (x - 0.05, 0.22),
                        ]
                    ),
                    metal,
                    0.02,
                )
            )
    return behind, front


def _backpack(garment, cloth, strap, metal, rng):
    half, top, bottom = 0.50 + rng.normal(0, 0.02), -0.58, 0.74
    accent = Fabric(cloth.second, cloth.material) if garment.number % 2 else cloth
    body = symmetric(
        [
            (0, top),
            (0.26, top + 0.02),
            (half - 0.06, top + 0.18),
            (half, top + 0.45),
            (half + 0.02, bottom - 0.22),
            (half - 0.04, bottom - 0.04),
            (half - 0.14, bottom),
        ],
        [(0, bottom + 0.01)],
    )
    loop = strip(
        [(-0.09, top + 0.02), (-0.08, top - 0.13), (0.08, top - 0.13), (0.09, top + 0.02)], 0.05
    )
    straps = [
        strip(
            [
                (s * 0.30, top + 0.1),
                (s * (half + 0.09), top + 0.35),
                (s * (half + 0.10), 0.25),
                (s * (half - 0.05), bottom - 0.1),
            ],
            0.10,
        )
        for s in (1, -1)
    ]
    behind = [
        Piece(
            shape,
            strap if strap.colour != TAN else Fabric(darker(cloth.colour, 0.2), "canvas"),
            puff=0.025,
        )
        for shape in straps
    ]
    behind.append(Piece(loop, strap, puff=0.018))
    front: list = [
        Piece(body, cloth, 0, (0, 0), _dents(cloth, rng, top, bottom, half), puff=0.10, lift=0.25)
    ]
    front += [
        Seam(
            run(
                (-half + 0.05, -0.05),
                (-0.36, top + 0.20),
                (0, top + 0.11),
                (0.36, top + 0.20),
                (half - 0.05, -0.05),
            ),
            0.6,
            0.022,
        ),
        Thread(
            run(
                (-half + 0.05, -0.05),
                (-0.36, top + 0.20),
                (0, top + 0.11),
                (0.36, top + 0.20),
                (half - 0.05, -0.05),
            ),
            metal,
            0.012,
            0.014,
        ),
    ]
    high, patched = rng.uniform(0.0, 0.16), rng.random() < 0.5
    if garment.has("pocketed"):
        pocket = symmetric(
            [(0, high), (half - 0.16, high + 0.01)],
            [
                (half - 0.08, high + 0.10),
                (half - 0.07, bottom - 0.14),
                (half - 0.14, bottom - 0.06),
            ],
            [(0, bottom - 0.05)],
        )
        front += [
            Piece(pocket, accent, 0, (0.03, 0.05), puff=0.05, lift=0.32),
            Thread(
                run((-half + 0.15, high + 0.09), (0, high + 0.08), (half - 0.15, high + 0.09)),
                metal,
                0.018,
                0.014,
            ),
            Piece(
                strip([(half - 0.17, high + 0.09), (half - 0.18, high + 0.20)], 0.03),
                strap,
                puff=0.01,
                lift=0.3,
            ),
        ]
    if patched:
        patch = outline([(-0.10, -0.24), (0.10, -0.24)], [(0.10, -0.10)], [(-0.10, -0.10)])
        front.append(Piece(patch, Fabric(TAN, "leather"), puff=0.012, lift=0.15))
    return behind, front


def _satchel(garment, cloth, strap, metal, rng):
    half, top, bottom = 0.55 + rng.normal(0, 0.02), -0.10, 0.62
    body = symmetric(
        [(0, top)],
        [
            (half - 0.04, top),
            (half, top + 0.06),
            (half + 0.01, bottom - 0.12),
            (half - 0.08, bottom),
        ],
        [(0, bottom + 0.012)],
    )
    reach = rng.uniform(0.40, 0.56)
    rounded = rng.random() < 0.5
    edge = (
        [
            (half + 0.02, top + 0.02),
            (half - 0.02, top + 0.6 * reach),
            (0.6 * half, top + 0.95 * reach),
            (0, top + reach + 0.03),
        ]
        if rounded
        else [
            (half + 0.02, top + 0.02),
            (half + 0.015, top + reach - 0.10),
            (half - 0.07, top + reach),
        ]
    )
    flap = symmetric(
        [(0, top - 0.03), (half - 0.02, top - 0.025)], edge, [(0, top + reach + 0.03 * rounded)]
    )
    long = strip(
        [
            (-half + 0.03, top + 0.05),
            (-0.40, -0.62),
            (-0.12, -0.98),
            (0, -1.02),
            (0.12, -0.98),
            (0.40, -0.62),
            (half - 0.03, top + 0.05),
        ],
        0.055,
    )
    behind: list = [Piece(long, strap, puff=0.016)]
    front: list = [
        Piece(body, cloth, 0, (0, 0), (), puff=0.07, lift=0.25),
        Piece(
            flap,
            cloth,
            0,
            (0.0, 0.02),
            _dents(cloth, rng, top, top + reach, half)[:2],
            puff=0.06,
            lift=0.42,
        ),
    ]
    inset = flap[len(flap) // 10 : -len(flap) // 10] * (0.94, 0.93)
    front.append(
        Thread(
            inset.astype(np.float32),
            lighter(cloth.colour, 0.45)
            if luminance(cloth.colour) < 170
            else darker(cloth.colour, 0.3),
            0.009,
            0.028,
        )
    )
    if garment.has("belted"):
        for x in (-0.28, 0.28):
            front += [
                Piece(
                    strip([(x, top - 0.01), (x, top + reach + 0.10)], 0.09),
                    strap,
                    puff=0.02,
                    lift=0.3,
                ),
                Thread(
                    np.array(
                        [
                            (x - 0.055, top + reach - 0.08),
                            (x + 0.055, top + reach - 0.08),
                            (x + 0.055, top + reach + 0.02),
                            (x - 0.055, top + reach + 0.02),
                            (x - 0.055, top + reach - 0.08),
                        ]
                    ),
                    metal,
                    0.022,
                ),
            ]
    else:
        front.append(
            Piece(
                ellipse((0, top + reach - 0.04), 0.06, 0.06),
                Fabric(metal, "metal"),
                puff=0.02,
                lift=0.3,
            )
        )
    front.append(Buttons(tuple((s * (half - 0.03), top + 0.03) for s in (1, -1)), 0.032, metal))
    return behind, front


def _clutch(garment, cloth, strap, metal, rng):
    half, top, bottom = 0.78 + rng.normal(0, 0.03), -0.28, 0.34 + rng.normal(0, 0.02)
    body = symmetric(
        [(0, top)],
        [(half - 0.02, top), (half, top + 0.03), (half, bottom - 0.05), (half - 0.05, bottom)],
        [(0, bottom + 0.005)],
    )
    pointed, reach = rng.random() < 0.5, rng.uniform(0.30, 0.46)
    flap = symmetric(
        [(0, top - 0.015)],
        [(half - 0.01, top - 0.01)],
        [(half - 0.01, top + 0.08)],
        [(0.10, top + reach), (0, top + reach + 0.01)]
        if pointed
        else [(half - 0.06, top + reach - 0.08), (half - 0.2, top + reach), (0, top + reach)],
    )
    behind: list = []
    if garment.has("chained"):
        line = run(
            (-half + 0.06, top),
            (-0.60, -0.66),
            (-0.2, -0.92),
            (0.25, -0.88),
            (0.62, -0.60),
            (half - 0.06, top),
        )
        links = [ellipse(point, 0.034, 0.026) for point in _evenly(line, 0.062)]
        behind += [Thread(np.vstack([link, link[:1]]), metal, 0.02) for link in links]
    front: list = [Piece(body, cloth, 0, (0, 0), (), puff=0.07, lift=0.25)]
    if garment.has("quilted"):
        front += _quilting(half - 0.02, top + 0.02, bottom - 0.02)
    front += [Piece(flap, cloth, 0, (0.0, 0.02), (), puff=0.05, lift=0.42)]
    if garment.has("quilted") and not pointed:
        front += _quilting(half - 0.10, top + 0.03, top + reach - 0.04)
    if garment.has("bowdetailed"):
        front += bow((0, top + reach - 0.03), 0.24, strap)
    else:
        front.append(
            Piece(
                ellipse((0, top + reach - 0.02), 0.055, 0.055),
                Fabric(metal, "metal"),
                puff=0.02,
                lift=0.3,
            )
        )
    return behind, front


def _evenly(line: np.ndarray, step: float) -> np.ndarray:
    length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(line, axis=0), axis=1))])
    places = np.arange(0, length[-1], step)
    return np.stack([np.interp(places, length, line[:, axis]) for axis in (0, 1)], axis=1)


_BAGS = {
    "tote": _tote,
    "handbag": _handbag,
    "backpack": _backpack,
    "satchel": _satchel,
    "clutch": _clutch,
}
