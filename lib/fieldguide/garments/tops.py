"""What is worn on the upper body, and dresses: tops, jackets, coats."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fieldguide.garments.attributes import Garment
from fieldguide.garments.canvas import (
    Fold,
    Piece,
    Seam,
    Thread,
    flipped,
    mirrored,
    outline,
    run,
    strip,
    symmetric,
)
from fieldguide.garments.cut import Cut, measure, worn_open
from fieldguide.garments.fabrics import Fabric, darker, lighter, luminance
from fieldguide.garments.skirts import skirt_panels
from fieldguide.garments.trimmings import trimmings

OPEN = ("cardigan", "blazer", "coat", "jacket")
COLLAR_TOP = -0.74


def sew_top(garment: Garment, worn: bool) -> tuple[list, list]:
    """(what lies behind the wearer's neck, what lies in front), each from far to near."""
    cut, cloth = measure(garment, worn), garment.fabric()
    trim = _trim(garment, cloth)
    lining = Fabric(
        darker(cloth.colour, 0.34) if luminance(cloth.colour) > 80 else lighter(cloth.colour, 0.14),
        "cotton",
    )
    behind = [Piece(_back_neck(cut, garment), lining, lift=0.0, puff=0.03)]
    if garment.neckline == "hooded":
        behind.insert(
            0, Piece(_hood(), replace(lining, colour=darker(cloth.colour, 0.22)), puff=0.10)
        )
    front: list = []
    if cut.sleeve:
        rng = garment.stream("cut/sleeves")
        for right in (True, False):
            front += _sleeve(cut, garment, cloth, trim, rng, right)
    front += _skirt_of_dress(cut, garment, cloth) if garment.kind == "dress" else []
    front += _body(cut, garment, cloth, lining, trim)
    front += _neckline(cut, garment, cloth, trim)
    front += trimmings(cut, garment, cloth, trim)
    return behind, front


def _trim(garment: Garment, cloth: Fabric) -> Fabric:
    """Ribs, collars and bands: of the cloth itself, or in the second colour of sporty garments."""
    contrast = (
        garment.style == "sporty"
        and garment.number % 2
        or garment.pattern == "floral"
        and garment.number % 3 == 0
    )
    colour = (
        cloth.second
        if contrast
        else darker(cloth.colour, 0.10)
        if luminance(cloth.colour) > 60
        else lighter(cloth.colour, 0.09)
    )
    ribbed = garment.has("ribbed") and garment.material in ("knitted", "wool", "cotton")
    return Fabric(colour, "knitted" if ribbed else cloth.material)


def _back_neck(cut: Cut, garment: Garment) -> np.ndarray:
    low = -0.70 + cut.depth + 0.06 if garment.kind not in OPEN else cut.bottom - 0.05
    return symmetric(
        [(0, -0.665), (cut.neck * 0.6, -0.675), (cut.neck + 0.01, -0.715)],
        [(cut.neck + 0.05, -0.66), (cut.neck + 0.03, low if garment.kind not in OPEN else -0.2)],
        [(0.10, low), (0, low)],
    )


def _hood() -> np.ndarray:
    return symmetric(
        [(0, -0.90), (0.14, -0.885), (0.245, -0.80), (0.285, -0.69), (0.25, -0.60)],
        [(0.1, -0.56), (0, -0.56)],
    )


def _sleeve(cut: Cut, garment: Garment, cloth: Fabric, trim: Fabric, rng, right: bool) -> list:
    angle = np.radians(cut.angle)
    d, n = np.array([np.sin(angle), np.cos(angle)]), np.array([np.cos(angle), -np.sin(angle)])
    tip, pit = np.array(cut.tip), np.array([cut.side(cut.armpit) - 0.03, cut.armpit])
    end = 0.5 * (tip + pit) + n * 0.01 + d * cut.sleeve
    outer, inner = end + n * cut.cuff, end - n * cut.cuff
    puffed = 0.05 if garment.kind == "blouse" and garment.style == "boho" else 0.0
    band = (
        garment.has("ribbed")
        or garment.kind in ("shirt", "jacket")
        or (garment.kind == "blouse" and cut.sleeve > 0.5)
    )
    elbow = 0.5 * (tip + outer) + n * (0.028 + puffed)
    shape = outline(
        [
            tip + (-0.10, -0.01),
            tip + (-0.01, 0.0),
            tip + d * 0.10 + n * (0.035 + puffed),
            elbow,
            outer + n * puffed,
        ],
        [outer, inner],
        [inner - n * puffed, 0.5 * (inner + pit) - n * (0.006 + 0.7 * puffed), pit],
        [pit + (-0.10, 0.02)],
    )
    folds = []
    for place in rng.uniform(0.25, 0.9, 3 if cut.sleeve > 0.5 else 1):
        a, b = pit + (inner - pit) * place, tip + (outer - tip) * (place + 0.10)
        folds.append(
            Fold(run(a, 0.5 * (a + b) + d * 0.05, a + (b - a) * 0.75), 0.05, -0.020 * cloth.drape)
        )
    if cut.sleeve > 0.5:
        a = pit + d * 0.02
        folds.append(
            Fold(run(a, a + d * 0.3 + n * 0.05, a + d * 0.55 + n * 0.03), 0.05, 0.018 * cloth.drape)
        )
    turn = -cut.angle
    parts: list = [Piece(shape, cloth, turn, tuple(tip), tuple(folds), puff=0.055, lift=0.30)]
    if band and cut.sleeve > 0.5:
        length = 0.09 if trim.material == "knitted" else 0.075
        grip = cut.cuff * (
            0.80 if trim.material == "knitted" or puffed or garment.kind == "blouse" else 1.02
        )
        cuff = outline(
            [end + n * cut.cuff * 0.98 - d * 0.01, end + n * grip + d * length],
            [end - n * grip + d * length],
            [end - n * cut.cuff * 0.98 - d * 0.01],
        )
        parts.append(Piece(cuff, trim, turn, tuple(end), puff=0.03, lift=0.25))
    else:
        parts.append(Seam(run(outer - d * 0.035, inner - d * 0.035), 0.78))
    if (
        garment.style == "sporty"
        and garment.number % 3 == 0
        and garment.pattern == "plain"
        and cut.sleeve > 0.3
    ):
        for shift in (0.0, 0.035):
            line = run(
                tip + d * 0.04 + n * (0.028 - shift), elbow - n * shift, outer - n * (0.01 + shift)
            )
            parts.append(Thread(line, cloth.second, 0.016))
    parts.append(Seam(run(tip + (-0.005, 0.0), 0.5 * (tip + pit) + (-0.03, 0.0), pit), 0.80))
    return parts if right else [flipped(part) for part in parts]


def _body_half(cut: Cut, garment: Garment, inner: list) -> np.ndarray:
    """The right half of the body's outline, down to the middle of the hem.

    inner: the line from the middle of the front up to the neck, where the outline begins.
    """
    tip, pit = cut.tip, (cut.side(cut.armpit), cut.armpit)
    hollow = 0.045 if cut.sleeve else 0.085
    armhole = [tip, (tip[0] - hollow, 0.55 * tip[1] + 0.45 * pit[1]), pit]
    bottom = cut.front(garment)
    side = [
        pit,
        (cut.side(0.0), 0.0),
        (cut.side(0.5 * bottom), 0.5 * bottom),
        (cut.side(bottom), bottom - 0.01),
    ]
    if garment.kind == "shirt":
        hem = [side[-1], (0.6 * cut.hem, bottom + 0.05), (0, bottom + 0.055)]
    else:
        hem = [side[-1], (0.55 * cut.hem, bottom + 0.018), (0, bottom + 0.022)]
    return outline(inner, [(cut.neck, -0.70), tip], armhole, side, hem)


def _neck_inner(cut: Cut, garment: Garment) -> list:
    low = -0.70 + cut.depth
    if garment.neckline == "vneck":
        return [(0, low), (0.45 * cut.neck, -0.70 + 0.56 * cut.depth), (cut.neck, -0.70)]
    return [
        (0, low),
        (0.62 * cut.neck, low - 0.22 * cut.depth),
        (0.95 * cut.neck, low - 0.66 * cut.depth),
        (cut.neck, -0.70),
    ]


def _body(cut: Cut, garment: Garment, cloth: Fabric, lining: Fabric, trim: Fabric) -> list:
    folds = _body_folds(cut, garment, cloth)
    opened = worn_open(garment)
    bottom = cut.front(garment)
    if opened:
        gap = 0.10 if garment.kind == "cardigan" else 0.08
        half = outline(
            [(gap, bottom + 0.02), (gap - 0.015, -0.1), (cut.neck, -0.70)],
            _body_half(cut, garment, [(cut.neck, -0.70), (cut.neck, -0.70)]),
        )
        half = half[half[:, 0] > gap - 0.03]
        inside = [
            Piece(
                symmetric(
                    [(0, -0.66), (cut.neck, -0.70)],
                    [(cut.neck + 0.05, -0.4), (gap + 0.08, bottom - 0.03)],
                    [(0, bottom - 0.03)],
                ),
                lining,
                lift=0.2,
            )
        ]
        shapes = [half, mirrored(half)]
    else:
        inside, half = [], _body_half(cut, garment, _neck_inner(cut, garment))
        shapes = [np.vstack([half, mirrored(half)[::-1]])]
    parts = inside + [
        Piece(
            shape,
            cloth,
            0.0,
            (0.5 / max(cloth.repeats, 1), 0.0),
            folds,
            puff=0.085 if cut.worn else 0.075,
            lift=0.22,
        )
        for shape in shapes
    ]
    if (
        garment.has("ribbed")
        and garment.kind != "dress"
        or garment.kind == "jacket"
        and garment.material != "denim"
    ):
        high = 0.075 if garment.kind != "cardigan" else 0.06
        width = cut.hem * (0.90 if garment.kind in ("hoodie", "jacket", "sweater") else 0.99)
        for edge in [0.0] if not opened else [gap, -gap]:
            left = -width if not opened or edge < 0 else edge
            right = width if not opened or edge > 0 else edge
            wide = [
                (left if abs(left) < width else -cut.hem, bottom),
                (0.5 * (left + right), bottom + 0.022),
                (right if abs(right) < width else cut.hem, bottom),
            ]
            band = outline(
                wide,
                [(right, bottom + high)],
                [(0.5 * (left + right), bottom + high + 0.02)],
                [(left, bottom + high)],
            )
            parts.append(Piece(band, trim, puff=0.025, lift=0.18))
    elif garment.kind not in ("dress", "shirt"):
        y = bottom - 0.03
        for a, b in [(-1.0, 1.0)] if not opened else [(-1.0, -gap / cut.hem), (gap / cut.hem, 1.0)]:
            w = cut.side(y) - 0.006
            parts.append(Seam(run((a * w, y), (0.5 * (a + b) * w, y + 0.022), (b * w, y)), 0.80))
    if opened:
        for sign in (1, -1):
            line = run(
                (sign * gap, bottom + 0.02), (sign * (gap - 0.015), -0.1), (sign * cut.neck, -0.70)
            )
            parts.append(
                Piece(
                    strip(line[::3] + np.array([sign * 0.02, 0]), 0.045), trim, puff=0.02, lift=0.12
                )
            )
    return parts


def _body_folds(cut: Cut, garment: Garment, cloth: Fabric) -> tuple[Fold, ...]:
    rng = garment.stream("cut/body folds")
    folds, deep = [], cloth.drape * (1.15 if cut.worn else 1.0)
    bottom = cut.front(garment)
    for sign in (1, -1):
        x, y = sign * (cut.chest - 0.03), cut.armpit + 0.02
        reach = rng.uniform(0.6, 1.0)
        folds.append(
            Fold(
                run(
                    (x, y),
                    (x - sign * 0.12 * reach, y + 0.12),
                    (x - sign * 0.17 * reach, y + 0.32 * reach),
                ),
                0.055,
                -0.024 * deep,
            )
        )
        folds.append(
            Fold(
                run(
                    (x - sign * 0.05, y - 0.03),
                    (x - sign * 0.18, y + 0.03),
                    (x - sign * 0.25, y + 0.12),
                ),
                0.05,
                0.016 * deep,
            )
        )
        side = sign * cut.side(0.12)
        folds.append(
            Fold(
                run(
                    (side, 0.13),
                    (side - sign * 0.13, 0.17),
                    (side - sign * 0.22, 0.16 + rng.normal(0, 0.02)),
                ),
                0.05,
                -0.016 * deep,
            )
        )
    for _ in range(4):
        x, top = rng.uniform(-0.75, 0.75) * cut.waist, rng.uniform(-0.1, 0.15)
        folds.append(
            Fold(
                run(
                    (x, top),
                    (x * 1.05 + rng.normal(0, 0.01), 0.5 * (top + bottom)),
                    (1.12 * x, bottom + 0.02),
                ),
                0.065,
                rng.choice((-1, 1)) * 0.016 * deep,
            )
        )
    return tuple(folds)


def _neckline(cut: Cut, garment: Garment, cloth: Fabric, trim: Fabric) -> list:
    if garment.kind in ("blazer", "coat") and garment.neckline == "vneck":
        return _lapels(cut, garment, cloth)
    if garment.neckline == "collared":
        return _collar(cut, garment, cloth, trim)
    if garment.neckline == "turtleneck":
        tube = symmetric(
            [(0, -0.87), (0.10, -0.872), (0.128, -0.86)],
            [(0.125, -0.78), (0.16, -0.69)],
            [(0.09, -0.635), (0, -0.62)],
        )
        fold = symmetric(
            [(0, -0.875), (0.10, -0.877), (0.133, -0.86)],
            [(0.14, -0.775)],
            [(0.07, -0.755), (0, -0.75)],
        )
        return [Piece(tube, trim, puff=0.05), Piece(fold, trim, puff=0.04, lift=0.3)]
    if garment.kind == "cardigan" and garment.has("buttoned"):
        line = _neck_inner(cut, garment)
        edge = [np.array(point) for point in reversed(line)]
        band = [
            strip([edge[0] + (0.012, 0.0), edge[1] + (0.012, 0.0), edge[2] + (0.012, 0.0)], 0.045)
        ]
        lower = strip([(0, -0.72 + cut.depth), (0, cut.bottom + 0.01)], 0.055)
        return [Piece(lower, trim, puff=0.02, lift=0.15)] + [
            Piece(shape, trim, puff=0.02, lift=0.12) for shape in (band[0], mirrored(band[0]))
        ]
    if garment.neckline == "hooded":
        return _hood_front(cut, cloth)
    if garment.kind in OPEN:
        return []
    inner = run(*_neck_inner(cut, garment))
    shift = np.linspace(1, 0.25, len(inner))[:, None] * (0, 0.5) + np.linspace(0.2, 1, len(inner))[
        :, None
    ] * (0.6, 0)
    outer = inner + 0.045 * shift
    if garment.neckline == "vneck":
        outer = inner + np.array([0.028, 0.022])
        outer[0] = (0, inner[0, 1] + 0.055)
    band = np.vstack([inner, outer[::-1]])
    return [Piece(shape, trim, puff=0.016, lift=0.10) for shape in (band, mirrored(band))]


def _collar(cut: Cut, garment: Garment, cloth: Fabric, trim: Fabric) -> list:
    long = 0.15 if garment.kind != "coat" else 0.20
    low = -0.70 + cut.depth
    half = outline(
        [(0.0, low - 0.005), (0.07, low - 0.09), (cut.neck - 0.01, COLLAR_TOP - 0.02)],
        [(cut.neck + 0.035, -0.705)],
        [(0.155 + 0.3 * long, low + 0.02 + 0.45 * long)],
        [(0.06, low + 0.35 * long), (0.0, low - 0.005)],
    )
    stand = symmetric(
        [(0, -0.665), (0.07, -0.69), (cut.neck, COLLAR_TOP - 0.02)],
        [(cut.neck + 0.02, -0.70)],
        [(0.07, -0.66), (0, -0.635)],
    )
    collar = trim if garment.kind in ("jacket", "dress") else cloth
    return [Piece(stand, Fabric(darker(cloth.colour, 0.25), "cotton"), puff=0.02, lift=0.05)] + [
        Piece(shape, collar, sign * 28, (0, 0), puff=0.03, lift=0.32)
        for shape, sign in ((half, 1), (mirrored(half), -1))
    ]


def _lapels(cut: Cut, garment: Garment, cloth: Fabric) -> list:
    low = -0.70 + cut.depth
    parts: list = []
    wide = 0.20 if garment.kind == "blazer" else 0.235
    for sign in (1, -1):
        lapel = outline(
            [(0.015, low + 0.02), (0.09, -0.70 + 0.62 * cut.depth), (cut.neck - 0.005, -0.715)],
            [(cut.neck + 0.055, -0.64)],
            [(wide + 0.03, -0.50)],
            [(wide, -0.43)],
            [(0.15, -0.70 + 0.70 * cut.depth), (0.015, low + 0.02)],
        )
        notch = outline(
            [(cut.neck - 0.035, -0.755), (cut.neck + 0.02, -0.745)],
            [(cut.neck + 0.07, -0.66), (wide + 0.02, -0.555)],
            [(wide - 0.05, -0.515)],
            [(0.6 * (cut.neck + 0.05), -0.57), (0.9 * cut.neck, -0.66)],
        )
        for shape, lift in ((lapel, 0.38), (notch, 0.32)):
            shape = shape if sign > 0 else mirrored(shape)
            parts.append(Piece(shape, cloth, sign * 18, (0, 0), puff=0.03, lift=lift))
    return parts


def _hood_front(cut: Cut, cloth: Fabric) -> list:
    low = -0.70 + cut.depth
    half = outline(
        [(0.0, low - 0.005), (0.11, low - 0.09), (0.165, -0.70), (0.12, -0.815), (0.0, -0.845)],
        [
            (0.0, -0.90),
            (0.14, -0.885),
            (0.245, -0.80),
            (0.29, -0.69),
            (0.25, -0.60),
            (0.10, low + 0.055),
            (0, low + 0.06),
        ],
    )
    parts: list = [Piece(shape, cloth, puff=0.05, lift=0.3) for shape in (half, mirrored(half))]
    cord = (
        lighter(cloth.colour, 0.6) if luminance(cloth.colour) < 150 else darker(cloth.colour, 0.45)
    )
    for sign in (1, -1):
        parts.append(
            Thread(
                run(
                    (sign * 0.055, low + 0.01),
                    (sign * 0.065, low + 0.14),
                    (sign * 0.055, low + 0.24),
                ),
                cord,
                0.02,
            )
        )
    return parts


def _skirt_of_dress(cut: Cut, garment: Garment, cloth: Fabric) -> list:
    rng = garment.stream("cut/skirt")
    top, bottom = (
        0.10,
        {"mini": 0.70, "midi": 0.98, "maxi": 1.34}[garment.length] + rng.normal(0, 0.02),
    )
    flare = rng.choice((0.40, 0.58)) + (
        0.08 if garment.has("pleated") or garment.has("ruffled") else 0
    )
    flare *= 0.86 if cut.worn else 1.0
    return skirt_panels(cut.side(0.13), top, flare, bottom, garment, cloth)
