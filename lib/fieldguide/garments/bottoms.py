"""What is worn below the waist: jeans, pants, shorts and skirts."""

from __future__ import annotations

import numpy as np

from fieldguide.garments.attributes import Garment
from fieldguide.garments.canvas import (
    Buttons,
    Fold,
    Piece,
    Seam,
    Thread,
    flipped,
    outline,
    run,
    strip,
)
from fieldguide.garments.fabrics import Fabric, darker, lighter, luminance
from fieldguide.garments.skirts import skirt_panels

TOP, CROTCH = -0.92, -0.34
STITCH = (206, 160, 92)


def sew_bottom(garment: Garment, worn: bool) -> tuple[list, list]:
    """(what lies behind the wearer, what lies in front), each from far to near."""
    if garment.kind == "skirt":
        return _sew_skirt(garment, worn)
    return _sew_legs(garment, worn)


def _lining(cloth: Fabric) -> Fabric:
    return Fabric(
        darker(cloth.colour, 0.38) if luminance(cloth.colour) > 80 else lighter(cloth.colour, 0.12),
        "cotton",
    )


def _waistband(waist: float, top: float, high: float, cloth: Fabric) -> Piece:
    shape = outline(
        [(-waist, top), (0, top + 0.035), (waist, top)],
        [(waist * 1.03, top + high), (0, top + high + 0.04), (-waist * 1.03, top + high)],
    )
    return Piece(shape, cloth, 0, (0, top), puff=0.02, lift=0.2)


def _back(waist: float, top: float, cloth: Fabric) -> Piece:
    shape = outline(
        [(-waist, top), (0, top - 0.02), (waist, top)],
        [(waist, top + 0.09), (0, top + 0.1), (-waist, top + 0.09)],
    )
    return Piece(shape, _lining(cloth), puff=0.02, lift=0.0)


def _sew_legs(garment: Garment, worn: bool) -> tuple[list, list]:
    cloth, rng = garment.fabric(), garment.stream("cut/legs")
    denim, short = garment.material == "denim", garment.kind == "shorts"
    waist = 0.285 + rng.normal(0, 0.008)
    bottom = {"long": 0.92, "ankle": 0.74, "mini": -0.16}[garment.length] + rng.normal(0, 0.03)
    thigh, hem = ((0.205, 0.11), (0.215, 0.15), (0.23, 0.21), (0.22, 0.115))[int(rng.integers(4))]
    flare = rng.uniform(0.0, 0.07)
    hem += rng.normal(0, 0.008)
    apart = 0.055 if worn else 0.075
    hip, knee = waist + 0.085, 0.22
    centre = {"knee": 0.20 + 0.4 * apart, "hem": 0.19 + apart}
    wide_knee = np.interp(knee, (CROTCH, 0.92), (thigh, hem)) * (0.92 if hem < 0.2 else 1)
    inner_hem, outer_hem = centre["hem"] - hem, centre["hem"] + hem
    if bottom < knee:
        inner_hem, outer_hem = 0.03 + 0.3 * apart, hip + 0.025 + flare
        outer = [
            (waist, TOP),
            (hip - 0.015, TOP + 0.28),
            (0.5 * (hip + outer_hem), CROTCH),
            (outer_hem, bottom),
        ]
        inner = [(inner_hem, bottom + 0.03), (0.0, CROTCH)]
    else:
        outer = [
            (waist, TOP),
            (hip - 0.01, TOP + 0.28),
            (hip + 0.005, CROTCH),
            (centre["knee"] + wide_knee, knee),
            (outer_hem, bottom),
        ]
        inner = [
            (inner_hem, bottom + 0.012),
            (max(centre["knee"] - wide_knee, 0.015), knee),
            (0.005, CROTCH + 0.05),
            (0.0, CROTCH),
        ]
    shape = outline(
        [(-0.01, TOP + 0.02), (waist, TOP)], outer, inner, [(-0.01, CROTCH), (-0.01, TOP)]
    )
    folds = [
        Fold(
            run((0.02, CROTCH - 0.02), (0.14, CROTCH - 0.05), (0.26, CROTCH - 0.11)),
            0.05,
            -0.022 * cloth.drape,
        ),
        Fold(
            run((0.02, CROTCH + 0.05), (0.12, CROTCH + 0.06), (0.22, CROTCH + 0.02)),
            0.05,
            0.016 * cloth.drape,
        ),
    ]
    if not short:
        for place in rng.uniform(-0.02, 0.12, 3) + (knee - 0.06):
            folds.append(
                Fold(
                    run(
                        (centre["knee"] - wide_knee, place),
                        (centre["knee"], place + 0.04),
                        (centre["knee"] + 0.6 * wide_knee, place),
                    ),
                    0.05,
                    -0.017 * cloth.drape,
                )
            )
        folds.append(
            Fold(
                run(
                    (inner_hem, bottom - 0.1),
                    (centre["hem"], bottom - 0.06),
                    (outer_hem, bottom - 0.11),
                ),
                0.05,
                -0.015 * cloth.drape,
            )
        )
    creased = garment.kind == "pants" and garment.style in ("formal", "casual")
    if creased:
        folds.append(
            Fold(
                run((0.20, TOP + 0.25), (centre["knee"], knee), (centre["hem"], bottom)),
                0.035,
                0.035,
            )
        )
    leg = Piece(shape, cloth, 0, (0.0, TOP), tuple(folds), puff=0.085, lift=0.22)
    details = _leg_details(garment, cloth, waist, hip, inner_hem, outer_hem, bottom, centre, knee)
    front: list = []
    for right in (False, True):
        front += [part if right else flipped(part) for part in (leg, *details)]
    front += _fly(garment, cloth)
    front.append(_waistband(waist, TOP - 0.015, 0.085, cloth))
    if denim:
        front += [
            Thread(
                run((-waist * 1.0, TOP + y), (0, TOP + 0.04 + y), (waist * 1.0, TOP + y)),
                STITCH,
                0.008,
                0.025,
            )
            for y in (0.0, 0.055)
        ]
    front += (
        [
            Piece(
                strip([(x, TOP - 0.02 + 0.03 * (1 - abs(x) / waist)), (x, TOP + 0.10)], 0.028),
                cloth,
                puff=0.012,
                lift=0.3,
            )
            for x in (-0.62 * waist, 0.62 * waist)
        ]
        if denim or garment.kind == "pants"
        else []
    )
    front += _closing(garment, cloth, waist)
    return [_back(waist, TOP - 0.02, cloth)], front


def _leg_details(garment, cloth, waist, hip, inner_hem, outer_hem, bottom, centre, knee) -> list:
    denim = garment.material == "denim"
    parts: list = []
    if garment.has("pocketed"):
        mouth = (
            run((waist * 0.55, TOP + 0.10), (waist * 0.62, TOP + 0.22), (hip - 0.02, TOP + 0.27))
            if denim or garment.kind == "shorts"
            else run((waist * 0.80, TOP + 0.08), (hip - 0.03, TOP + 0.34))
        )
        parts.append(Seam(mouth, 0.60, 0.016))
        if denim:
            parts += [
                Thread(mouth + np.array([0.0, 0.022], np.float32), STITCH, 0.009, 0.025),
                Buttons(((hip - 0.045, TOP + 0.275),), 0.014, (196, 150, 90)),
            ]
    if denim:
        parts.append(
            Thread(run((hip - 0.03, TOP + 0.34), (hip - 0.025, CROTCH + 0.1)), STITCH, 0.008, 0.025)
        )
    if garment.has("pleated"):
        parts += [Seam(run((x, TOP + 0.09), (x + 0.02, TOP + 0.24)), 0.72) for x in (0.13, 0.19)]
    if garment.style == "sporty" and garment.number % 2:
        line = run(
            (waist + 0.0, TOP + 0.1),
            (hip - 0.045, CROTCH),
            (outer_hem - 0.045, bottom)
            if bottom < knee
            else (
                centre["knee"]
                + np.interp(
                    knee, (CROTCH, bottom), (hip - centre["knee"], outer_hem - centre["hem"])
                )
                * 0.80,
                knee,
            ),
            (outer_hem - 0.035, bottom),
        )
        parts.append(Thread(line, cloth.second, 0.03))
    if garment.has("cuffed"):
        fold = outline(
            [(inner_hem - 0.012, bottom - 0.07), (outer_hem + 0.012, bottom - 0.085)],
            [(outer_hem + 0.012, bottom + 0.0)],
            [(0.5 * (inner_hem + outer_hem), bottom + 0.018), (inner_hem - 0.012, bottom + 0.012)],
        )
        inside = Fabric(lighter(cloth.colour, 0.38), "denim") if denim else cloth
        parts.append(Piece(fold, inside, 0, (0.02, 0.02), puff=0.025, lift=0.3))
    else:
        parts.append(Seam(run((inner_hem, bottom - 0.025), (outer_hem, bottom - 0.035)), 0.80))
    if garment.has("ripped"):
        rng = garment.stream("cut/rips")
        for _ in range(2):
            x, y = centre["knee"] + rng.uniform(-0.05, 0.06), rng.uniform(-0.05, 0.30)
            w, h = rng.uniform(0.06, 0.09), rng.uniform(0.03, 0.05)
            hole = outline(
                [(x - w, y), (x - 0.3 * w, y - h), (x + w, y - 0.3 * h)],
                [(x + 0.4 * w, y + h), (x - 0.5 * w, y + 0.7 * h), (x - w, y)],
            )
            parts.append(Piece(hole, Fabric((226, 196, 176), "cotton"), puff=0.01, lift=0.0))
            parts += [
                Thread(
                    run((x - 0.9 * w, y + k * h), (x + 0.85 * w, y + k * h - 0.01)),
                    (236, 238, 240),
                    0.008,
                )
                for k in (-0.4, 0.1, 0.5)
            ]
    if garment.has("ruffled"):
        wave = np.linspace(0, 1, 19)
        low = np.stack(
            [
                outer_hem + 0.03 - wave * (outer_hem - inner_hem + 0.05),
                bottom + 0.07 + 0.01 * np.sin(wave * 30),
            ],
            axis=1,
        )
        parts.append(
            Piece(
                np.vstack(
                    [run((inner_hem, bottom - 0.02), (outer_hem, bottom - 0.03)), low]
                ).astype(np.float32),
                cloth,
                puff=0.025,
                lift=0.3,
            )
        )
    return parts


def _fly(garment: Garment, cloth: Fabric) -> list:
    line = run((0.0, TOP + 0.08), (0.0, CROTCH + 0.01))
    curve = run((0.075, TOP + 0.09), (0.075, TOP + 0.30), (0.05, TOP + 0.38), (0.0, TOP + 0.42))
    if garment.kind == "shorts" and garment.style == "sporty":
        cord = (
            lighter(cloth.colour, 0.6)
            if luminance(cloth.colour) < 150
            else darker(cloth.colour, 0.45)
        )
        return [Seam(line, 0.75)] + [
            Thread(
                run((s * 0.01, TOP + 0.05), (s * 0.05, TOP + 0.16), (s * 0.03, TOP + 0.25)),
                cord,
                0.02,
            )
            for s in (1, -1)
        ]
    parts: list = [Seam(line, 0.70), Seam(curve, 0.82)]
    if garment.material == "denim":
        parts.append(Thread(curve, STITCH, 0.008, 0.025))
    return parts


def _closing(garment: Garment, cloth: Fabric, waist: float) -> list:
    if garment.has("belted"):
        leather = Fabric((112, 76, 52) if garment.number % 2 else (48, 44, 44), "leather")
        w, y = waist * 1.035, TOP + 0.005
        band = outline(
            [(-w, y), (0, y + 0.035), (w, y)], [(w, y + 0.06), (0, y + 0.095), (-w, y + 0.06)]
        )
        buckle = np.array(
            [
                (-0.045, y + 0.02),
                (0.045, y + 0.02),
                (0.045, y + 0.105),
                (-0.045, y + 0.105),
                (-0.045, y + 0.02),
            ]
        )
        return [Piece(band, leather, puff=0.018, lift=0.3), Thread(buckle, (206, 180, 120), 0.016)]
    if garment.style == "sporty":
        return []
    return [
        Buttons(
            ((0.0, TOP + 0.065),),
            0.024,
            (196, 150, 90) if garment.material == "denim" else darker(cloth.colour, 0.4),
        )
    ]


def _sew_skirt(garment: Garment, worn: bool) -> tuple[list, list]:
    cloth, rng = garment.fabric(), garment.stream("cut/skirt")
    top, waist = -0.62, 0.275 + rng.normal(0, 0.01)
    bottom = {"mini": 0.02, "midi": 0.42, "maxi": 0.90}[garment.length] + rng.normal(0, 0.03)
    narrow = (
        garment.material in ("leather", "denim", "wool")
        and not garment.has("pleated")
        and not garment.has("ruffled")
    )
    hem = (
        rng.uniform(0.36, 0.44)
        if narrow
        else rng.uniform(0.50, 0.68) * (0.88 if bottom < 0.2 else 1.05)
    )
    hem *= 0.92 if worn else 1.0
    front = skirt_panels(waist, top, hem, bottom, garment, cloth)
    front.append(_waistband(waist, top - 0.03, 0.08, cloth))
    if garment.has("buttoned"):
        front += [
            Seam(run((0.035, top + 0.06), (0.035, bottom + 0.02)), 0.80),
            Buttons(
                tuple((0, y) for y in np.linspace(top + 0.02, bottom - 0.08, 6)),
                0.022,
                lighter(cloth.colour, 0.7) if garment.number % 2 else darker(cloth.colour, 0.45),
            ),
        ]
    if garment.material == "denim":
        front += [
            Thread(
                run((s * 0.14, top + 0.06), (s * 0.17, top + 0.16), (s * 0.29, top + 0.19)),
                STITCH,
                0.009,
                0.025,
            )
            for s in (1, -1)
        ]
    if garment.has("belted"):
        w, y = waist * 1.03, top - 0.015
        band = outline(
            [(-w, y), (0, y + 0.035), (w, y)], [(w, y + 0.055), (0, y + 0.09), (-w, y + 0.055)]
        )
        front += [
            Piece(
                band,
                Fabric((112, 76, 52) if garment.number % 2 else (48, 44, 44), "leather"),
                puff=0.018,
                lift=0.3,
            ),
            Thread(
                np.array(
                    [
                        (-0.04, y + 0.02),
                        (0.04, y + 0.02),
                        (0.04, y + 0.1),
                        (-0.04, y + 0.1),
                        (-0.04, y + 0.02),
                    ]
                ),
                (206, 180, 120),
                0.016,
            ),
        ]
    return [_back(waist, top - 0.035, cloth)], front
