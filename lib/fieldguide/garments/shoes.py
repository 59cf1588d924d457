"""Shoes from the side, toes to the left: sneakers, pumps, boots, flats and sandals."""

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
    outline,
    run,
    strip,
)
from fieldguide.garments.fabrics import Fabric, darker, lighter, luminance
from fieldguide.garments.trimmings import bow

GROUND = 0.42
RUBBER, LEATHER_SOLE, INSOLE = (238, 236, 230), (92, 66, 48), (206, 178, 146)


def sew_shoe(garment: Garment, worn: bool) -> tuple[list, list]:
    """(what lies behind the foot, what lies in front), each from far to near."""
    del worn  # a shoe keeps its shape
    return {
        "sneakers": _sneaker,
        "pump": _pump,
        "boots": _boot,
        "flats": _flat,
        "sandals": _sandal,
    }[garment.kind](garment, garment.fabric(), garment.stream("cut/shoe"))


def _sneaker(garment: Garment, cloth: Fabric, rng) -> tuple[list, list]:
    thick = (0.24 if garment.heel == "platform" else 0.14) + rng.normal(0, 0.008)
    top, high = GROUND - thick, garment.length == "ankle"
    collar = -0.86 if high else -0.46
    accent = Fabric(cloth.second, cloth.material)
    sole = Fabric(RUBBER if garment.number % 4 else cloth.second, "rubber")
    upper = outline(
        [
            (-0.87, top + 0.02),
            (-0.86, top - 0.13),
            (-0.72, top - 0.24),
            (-0.48, top - 0.31),
            (-0.14, top - 0.52),
            (0.10, collar + 0.02),
        ],
        [(0.10, collar + 0.02), (0.34, collar + 0.08), (0.66, collar - 0.02)],
        [(0.74, collar + 0.02), (0.76, 0.5 * (collar + top)), (0.80, top + 0.02)],
    )
    tongue = outline(
        [(-0.10, top - 0.42), (0.02, collar - 0.10), (0.18, collar - 0.10)],
        [(0.28, collar + 0.14), (0.1, -0.1)],
    )
    inside = outline(
        [(0.08, collar + 0.03), (0.36, collar - 0.02), (0.68, collar - 0.03)],
        [(0.62, collar + 0.12), (0.3, collar + 0.16)],
    )
    lining = Fabric(
        darker(cloth.colour, 0.4) if luminance(cloth.colour) > 90 else lighter(cloth.colour, 0.22),
        "cotton",
    )
    behind: list = [Piece(inside, lining, puff=0.02, lift=0.0), Piece(tongue, cloth, 20, puff=0.05)]
    bends = (
        Fold(run((-0.36, top - 0.05), (-0.33, top - 0.22), (-0.28, top - 0.36)), 0.05, -0.02),
        Fold(run((-0.22, top - 0.05), (-0.20, top - 0.2), (-0.14, top - 0.34)), 0.05, -0.014),
    )
    front: list = [Piece(upper, cloth, 0, (0, top), bends, puff=0.09, lift=0.3)]
    eyestay = outline(
        [(-0.42, top - 0.30), (-0.12, top - 0.50), (0.10, collar + 0.03)],
        [(0.22, collar + 0.10), (0.0, top - 0.36), (-0.30, top - 0.20)],
    )
    front.append(
        Piece(eyestay, accent if garment.number % 3 == 0 else cloth, 30, puff=0.025, lift=0.25)
    )
    counter = outline(
        [(0.50, top + 0.02), (0.56, top - 0.20), (0.72, top - 0.34)],
        [(0.775, top - 0.30), (0.79, top + 0.02)],
    )
    front.append(Piece(counter, accent, puff=0.04, lift=0.2))
    if garment.material == "canvas":
        cap = outline(
            [(-0.88, top + 0.02), (-0.86, top - 0.12), (-0.72, top - 0.23), (-0.62, top - 0.255)],
            [(-0.54, top - 0.14), (-0.56, top + 0.02)],
        )
        front.append(Piece(cap, Fabric(RUBBER, "rubber"), puff=0.06, lift=0.2))
    else:
        front.append(Seam(run((-0.60, top - 0.27), (-0.52, top - 0.14), (-0.54, top)), 0.75, 0.014))
    style = int(rng.integers(4))
    if style == 0:
        for shift in (0.0, 0.11, 0.22):
            front.append(
                Piece(
                    strip([(0.02 + shift, top), (-0.08 + shift, top - 0.30)], 0.05),
                    accent,
                    puff=0.012,
                    lift=0.15,
                )
            )
    elif style == 1:
        front.append(
            Piece(
                strip(
                    [(-0.28, top - 0.08), (0.1, top - 0.06), (0.52, top - 0.28)], [0.03, 0.11, 0.02]
                ),
                accent,
                puff=0.015,
                lift=0.15,
            )
        )
    elif style == 2:
        front.append(
            Piece(ellipse((0.40, 0.5 * (collar + top) - 0.02), 0.10), accent, puff=0.015, lift=0.15)
        )
    base = outline(
        [(-0.90, top + 0.02), (-0.93, GROUND - 0.06), (-0.82, GROUND)],
        [(0.80, GROUND)],
        [(0.86, GROUND - 0.06), (0.82, top - 0.01)],
        [(0.3, top + 0.02), (-0.4, top + 0.025), (-0.90, top - 0.0)],
    )
    front += [
        Piece(base, sole, puff=0.05, lift=0.3),
        Seam(run((-0.91, GROUND - 0.045), (0.84, GROUND - 0.045)), 0.78),
        Thread(
            run((-0.88, top + 0.055), (0.0, top + 0.065), (0.83, top + 0.045)),
            cloth.colour if garment.number % 2 else darker(sole.colour, 0.12),
            0.016,
        ),
    ]
    laces = (246, 245, 240) if luminance(cloth.colour) < 190 else (70, 70, 76)
    start, end, rows = (
        np.array([-0.34, top - 0.30]),
        np.array([0.06, collar + 0.06]),
        6 if high else 4,
    )
    for place in np.linspace(0, 1, rows):
        at = start + (end - start) * place
        front.append(
            Thread(run(at + (-0.08, -0.045), at + (0.0, -0.035), at + (0.07, 0.035)), laces, 0.034)
        )
    return behind, front


def _heel_height(garment: Garment, rng) -> float:
    return {"flat": 0.07, "heel": 0.44 + rng.uniform(-0.10, 0.08), "platform": 0.40, "": 0.07}[
        garment.heel
    ]


def _pump(garment: Garment, cloth: Fabric, rng) -> tuple[list, list]:
    heel, pointed = _heel_height(garment, rng), rng.random() < 0.6
    seat = GROUND - heel
    back = seat - 0.40
    toe = (-0.98, GROUND - 0.05) if pointed else (-0.88, GROUND - 0.09)
    lining = outline(
        [
            (-0.46, 0.15),
            (0.0, 0.5 * (0.15 + back) - 0.04),
            (0.40, back + 0.12),
            (0.72, back - 0.02),
        ],
        [(0.70, seat - 0.1), (0.3, 0.10), (-0.2, 0.25)],
    )
    upper = outline(
        [toe, (-0.74, 0.22 + 0.04 * pointed), (-0.46, 0.15)],
        [
            (-0.46, 0.15),
            (-0.18, 0.22),
            (0.08, 0.20),
            (0.42, 0.5 * (seat + back) + 0.02),
            (0.72, back),
        ],
        [(0.80, back + 0.12), (0.775, seat)],
        [
            (0.50, seat + 0.04),
            (0.20, 0.5 * (seat + GROUND) + 0.04),
            (-0.12, GROUND - 0.02),
            (-0.45, GROUND - 0.015),
            (-0.85, GROUND - 0.02),
            toe,
        ],
    )
    block = rng.random() < 0.4
    foot = (0.55, 0.78) if block else (0.665, 0.745)
    stem = outline(
        [(0.785, seat - 0.05), (0.755, 0.5 * (seat + GROUND)), (foot[1], GROUND)],
        [(foot[0], GROUND)],
        [(0.60 if not block else 0.54, 0.5 * (seat + GROUND)), (0.45, seat + 0.06)],
    )
    sole = strip(
        [
            (-0.92, GROUND - 0.01),
            (-0.45, GROUND),
            (-0.12, GROUND - 0.005),
            (0.20, 0.5 * (seat + GROUND) + 0.055),
            (0.50, seat + 0.05),
        ],
        0.035,
    )
    dark = Fabric(darker(cloth.colour, 0.12), cloth.material)
    front: list = [
        Piece(stem, dark, puff=0.03, lift=0.1),
        Piece(sole, Fabric(LEATHER_SOLE, "leather"), puff=0.01, lift=0.1),
        Piece(upper, cloth, 0, (0, 0), puff=0.085, lift=0.3),
        Seam(
            run(
                (-0.46, 0.18),
                (-0.18, 0.25),
                (0.08, 0.23),
                (0.42, 0.5 * (seat + back) + 0.05),
                (0.72, back + 0.035),
            ),
            0.8,
        ),
    ]
    if rng.random() < 0.35:  # an ankle strap
        front += [
            Piece(
                strip([(0.18, back - 0.02), (0.45, back - 0.06), (0.76, back - 0.02)], 0.045),
                cloth,
                puff=0.012,
                lift=0.2,
            ),
            Buttons(((0.30, back - 0.045),), 0.028, (206, 180, 120)),
        ]
    if garment.has("bowdetailed"):
        front += bow((-0.52, 0.17), 0.17, cloth)
    if garment.has("studded"):
        front.append(
            _studs(
                [
                    (-0.80, 0.27),
                    (-0.72, 0.30),
                    (-0.64, 0.32),
                    (-0.56, 0.33),
                    (-0.48, 0.33),
                    (0.70, back + 0.12),
                    (0.68, back + 0.2),
                ]
            )
        )
    return [Piece(lining, Fabric(INSOLE, "leather"), puff=0.03, lift=0.0)], front


def _studs(places) -> Buttons:
    return Buttons(tuple(places), 0.022, (214, 208, 196))


def _flat(garment: Garment, cloth: Fabric, rng) -> tuple[list, list]:
    top, back = GROUND - 0.05, -0.02 + rng.normal(0, 0.02)
    pointed, loafer = rng.random() < 0.4, rng.random() < 0.45
    toe, throat = (
        (-0.95 if pointed else -0.88, 0.26),
        (-0.40 if not loafer else -0.16, 0.10 if not loafer else 0.0),
    )
    lining = outline(
        [throat, (0.1, 0.02), (0.74, back - 0.03)], [(0.72, 0.2), (0.2, 0.28), (-0.2, 0.25)]
    )
    upper = outline(
        [(-0.88, top), toe, (-0.74, 0.13), throat],
        [throat, (throat[0] + 0.25, 0.17), (0.25, 0.18), (0.52, 0.10), (0.74, back)],
        [(0.83, 0.15), (0.80, top)],
    )
    front: list = [
        Piece(upper, cloth, puff=0.085, lift=0.3),
        Piece(
            outline([(-0.90, top - 0.02), (-0.86, GROUND)], [(0.80, GROUND)], [(0.83, top - 0.02)]),
            Fabric(LEATHER_SOLE if luminance(cloth.colour) > 60 else (40, 38, 38), "leather"),
            puff=0.015,
            lift=0.2,
        ),
    ]
    if loafer:
        apron = run((-0.80, 0.24), (-0.62, 0.14), (-0.30, 0.16), (-0.10, 0.22))
        front += [
            Seam(apron, 0.62, 0.02),
            Piece(
                strip([(-0.46, 0.24), (-0.36, 0.10), (-0.28, 0.03)], 0.12),
                cloth,
                puff=0.02,
                lift=0.3,
            ),
            Piece(
                outline([(0.50, top + 0.02), (0.50, GROUND)], [(0.81, GROUND)], [(0.82, top)]),
                Fabric((44, 38, 34), "leather"),
                puff=0.01,
                lift=0.1,
            ),
        ]
    else:
        front.append(
            Seam(
                run(
                    throat + np.array([0.02, 0.05]),
                    (throat[0] + 0.25, 0.205),
                    (0.25, 0.215),
                    (0.52, 0.135),
                    (0.76, back + 0.04),
                ),
                0.78,
            )
        )
    if garment.has("bowdetailed"):
        front += bow(
            (throat[0] - 0.07, throat[1] + 0.05),
            0.17,
            replace(cloth, colour=darker(cloth.colour, 0.1)),
        )
    if garment.has("studded"):
        front.append(
            _studs(
                [
                    (-0.78, 0.22),
                    (-0.70, 0.19),
                    (-0.62, 0.18),
                    (-0.54, 0.18),
                    (-0.70, 0.27),
                    (-0.60, 0.27),
                ]
            )
        )
    return [Piece(lining, Fabric(INSOLE, "leather"), puff=0.03, lift=0.0)], front


def _boot(garment: Garment, cloth: Fabric, rng) -> tuple[list, list]:
    tall = garment.length == "kneehigh"
    heel = {"flat": 0.09, "heel": 0.34, "platform": 0.30}[garment.heel] + rng.normal(0, 0.02)
    front_sole = 0.16 if garment.heel == "platform" else 0.05
    low, bent, elastic = -0.62 + rng.normal(0, 0.04), rng.uniform(-0.95, -0.5, 2), rng.random()
    base, seat, collar = GROUND - front_sole, GROUND - heel, -1.32 if tall else low
    flare = 0.09 if tall else 0.02
    toe = -0.84 if garment.heel != "heel" else -0.92
    upper = outline(
        [
            (toe, base),
            (toe - 0.03, base - 0.13),
            (toe + 0.16, base - 0.25),
            (-0.34, base - 0.32),
            (-0.06, base - 0.52),
            (0.04, base - 0.82),
            (0.05 - flare, collar),
        ],
        [(0.05 - flare, collar), (0.35, collar + 0.03), (0.70 + flare, collar - 0.01)],
        [(0.70 + flare, collar), (0.69, seat - 0.55), (0.76, seat - 0.18), (0.77, seat)],
        [
            (0.50, seat + 0.02),
            (0.15, 0.5 * (seat + base) + 0.03),
            (-0.15, base + 0.01),
            (toe, base + 0.01),
        ],
    )
    inside = outline(
        [(0.05 - flare, collar), (0.35, collar - 0.05), (0.70 + flare, collar - 0.01)],
        [(0.6, collar + 0.08), (0.2, collar + 0.09)],
    )
    sole = Fabric(
        RUBBER if garment.heel == "platform" and garment.number % 2 else (62, 50, 42), "rubber"
    )
    bends = [
        Fold(run((-0.02, base - 0.40), (0.16, base - 0.36), (0.36, base - 0.42)), 0.06, -0.03),
        Fold(run((0.03, base - 0.56), (0.2, base - 0.50), (0.42, base - 0.55)), 0.06, -0.024),
        Fold(run((-0.42, base - 0.05), (-0.40, base - 0.18), (-0.34, base - 0.30)), 0.05, -0.02),
    ]
    if tall:
        bends += [Fold(run((0.02, y), (0.3, y + 0.05), (0.6, y - 0.02)), 0.07, -0.02) for y in bent]
    front: list = []
    if garment.heel == "platform":
        front.append(
            Piece(
                outline(
                    [(toe - 0.03, base - 0.01), (toe - 0.05, GROUND - 0.03), (toe + 0.04, GROUND)],
                    [(-0.05, GROUND)],
                    [(0.12, GROUND - 0.08), (0.28, GROUND - 0.10), (0.42, GROUND)],
                    [(0.79, GROUND)],
                    [(0.79, seat - 0.02)],
                    [
                        (0.45, seat),
                        (0.15, 0.5 * (seat + base)),
                        (-0.15, base - 0.01),
                        (toe - 0.03, base - 0.01),
                    ],
                ),
                sole,
                puff=0.03,
                lift=0.2,
            )
        )
    else:
        front += [
            Piece(
                strip(
                    [
                        (toe + 0.0, base + 0.02),
                        (-0.15, base + 0.025),
                        (0.15, 0.5 * (seat + base) + 0.045),
                        (0.5, seat + 0.03),
                    ],
                    0.05,
                ),
                sole,
                puff=0.012,
                lift=0.2,
            ),
            Piece(
                outline(
                    [(0.785, seat - 0.02), (0.76, GROUND)], [(0.50, GROUND)], [(0.44, seat + 0.02)]
                ),
                sole,
                puff=0.02,
                lift=0.2,
            ),
        ]
    front.append(Piece(upper, cloth, 0, (0, 0), tuple(bends), puff=0.10, lift=0.3))
    front.append(
        Seam(
            run(
                (0.04 - flare, collar + 0.05), (0.35, collar + 0.08), (0.70 + flare, collar + 0.045)
            ),
            0.75,
        )
    )
    if garment.has("laced"):
        ink = (
            lighter(cloth.colour, 0.5)
            if luminance(cloth.colour) < 130
            else darker(cloth.colour, 0.5)
        )
        low, high = np.array([-0.26, base - 0.36]), np.array([0.08, max(collar + 0.10, -0.8)])
        middle = np.array([0.0, base - 0.56])
        for place in np.linspace(0, 1, 7):
            at = run(low, middle, high)[int(place * 12)]
            front.append(Thread(run(at + (-0.03, -0.03), at + (0.11, 0.03)), ink, 0.026))
    elif garment.has("zipped"):
        front += [
            Seam(run((0.46, collar + 0.02), (0.45, base - 0.30)), 0.55, 0.03),
            Thread(run((0.46, collar + 0.02), (0.45, base - 0.30)), (206, 200, 186), 0.014, 0.014),
        ]
    elif elastic < 0.5:  # elastic sides
        front.append(
            Piece(
                outline(
                    [(0.24, collar + 0.09), (0.50, collar + 0.09)],
                    [(0.46, base - 0.42), (0.30, base - 0.42)],
                ),
                Fabric(darker(cloth.colour, 0.35), "knitted"),
                puff=0.02,
                lift=0.0,
            )
        )
    if garment.has("studded"):
        front.append(_studs([(0.10 + 0.1 * k, collar + 0.15) for k in range(6)]))
    return [Piece(inside, Fabric(darker(cloth.colour, 0.5), "leather"), puff=0.02, lift=0.0)], front


def _sandal(garment: Garment, cloth: Fabric, rng) -> tuple[list, list]:
    heel = {"flat": 0.07, "heel": 0.42, "platform": 0.34}[garment.heel] + rng.normal(0, 0.02)
    fore = 0.17 if garment.heel == "platform" else 0.06
    seat, base, back = GROUND - heel, GROUND - fore, GROUND - heel - 0.36
    bed = [
        (-0.88, base - 0.0),
        (-0.45, base + 0.01),
        (-0.10, base - 0.01),
        (0.25, 0.5 * (seat + base)),
        (0.55, seat),
        (0.80, seat - 0.02),
    ]
    under = outline(bed, [(0.80, GROUND)], [(-0.84, GROUND), (-0.93, base + 0.03), (-0.88, base)])
    cork = (
        Fabric((196, 156, 108), "suede")
        if garment.number % 2
        else Fabric(darker(cloth.colour, 0.2), cloth.material)
    )
    behind: list = []
    if garment.heel == "heel":
        stem = outline(
            [(0.80, seat - 0.03), (0.76, GROUND)],
            [(0.66 - 0.1 * (garment.number % 2), GROUND)],
            [(0.50, seat + 0.03)],
        )
        behind += [
            Piece(stem, cork, puff=0.02, lift=0.1),
            Piece(strip(np.array(bed) + (0, 0.03), 0.07), cork, puff=0.015, lift=0.1),
        ]
    else:
        behind.append(Piece(under, cork, puff=0.03, lift=0.15))
    behind.append(
        Piece(
            strip(np.array(bed) - (0, 0.015), 0.04), Fabric(INSOLE, "leather"), puff=0.012, lift=0.1
        )
    )
    straps = int(rng.integers(1, 4)) - (heel > 0.3)
    front: list = []
    for x in np.linspace(-0.66, -0.22, straps + 1):
        ground = float(np.interp(x, [p[0] for p in bed], [p[1] for p in bed]))
        rise = 0.20 + 0.12 * (x + 0.62)
        w = 0.14 if straps == 1 else 0.36 / (straps + 1) / 2 + 0.01
        band = outline(
            [
                (x - w, ground),
                (x - 0.7 * w, ground - 0.65 * rise),
                (x + 0.2 * w + 0.05, ground - rise),
            ],
            [
                (x + 1.5 * w + 0.05, ground - rise + 0.01),
                (x + 1.1 * w, ground - 0.45 * rise),
                (x + w, ground + 0.01),
            ],
        )
        front.append(Piece(band, cloth, 25, puff=0.02, lift=0.3))
    ankle = strip([(0.12, back + 0.05), (0.45, back + 0.08), (0.78, back)], 0.075)
    counter = outline(
        [(0.66, seat), (0.70, back + 0.05), (0.74, back - 0.04)],
        [(0.82, back), (0.83, seat - 0.02)],
    )
    front += [
        Piece(counter, cloth, puff=0.03, lift=0.25),
        Piece(ankle, cloth, puff=0.018, lift=0.25),
        Thread(
            np.array(
                [
                    (0.22, back + 0.02),
                    (0.31, back + 0.025),
                    (0.31, back + 0.125),
                    (0.22, back + 0.12),
                    (0.22, back + 0.02),
                ]
            ),
            (206, 180, 120),
            0.018,
        ),
    ]
    if rng.random() < 0.45:  # a strap down the instep
        front.append(
            Piece(
                strip([(-0.22, base - 0.24), (0.0, back + 0.20), (0.14, back + 0.07)], 0.07),
                cloth,
                puff=0.018,
                lift=0.25,
            )
        )
    if garment.has("studded"):
        front.append(
            _studs(
                [
                    (-0.34, base - 0.20),
                    (-0.28, base - 0.22),
                    (0.44, back + 0.075),
                    (0.54, back + 0.07),
                    (0.64, back + 0.05),
                ]
            )
        )
    if garment.has("tasseled"):
        front += tassel((0.15, back + 0.10), 0.24, cloth)
    return behind, front


def tassel(top, length: float, cloth: Fabric) -> list:
    x, y = top
    skirt = outline(
        [(x - 0.025, y + 0.25 * length), (x - 0.06, y + length)],
        [(x + 0.06, y + length)],
        [(x + 0.025, y + 0.25 * length)],
    )
    return (
        [Piece(skirt, cloth, puff=0.02, lift=0.3)]
        + [
            Seam(run((x + 0.4 * dx, y + 0.3 * length), (x + dx, y + length)), 0.72, 0.008)
            for dx in (-0.03, 0.0, 0.03)
        ]
        + [Piece(ellipse((x, y + 0.16 * length), 0.035, 0.045), cloth, puff=0.015, lift=0.2)]
    )
