"""Skirts, by themselves or as the lower part of a dress."""

from __future__ import annotations

import numpy as np

from fieldguide.garments.attributes import Garment
from fieldguide.garments.canvas import Fold, Piece, Seam, outline, run
from fieldguide.garments.fabrics import Fabric


def skirt_panels(
    waist: float, top: float, hem: float, bottom: float, garment: Garment, cloth: Fabric
) -> list:
    """A skirt with folds that widen downwards.

    waist, top: half width and height of the waist; hem, bottom: those of the hem.
    """
    rng = garment.stream("cut/skirt folds")
    wave = 0.012 if garment.material in ("leather", "denim", "wool") else 0.02
    fraction = np.linspace(0, 1, 17)
    edge = np.stack(
        [
            hem * (1 - 2 * fraction),
            bottom
            + 0.035 * (1 - (1 - 2 * fraction) ** 2)
            + wave
            * np.sin(fraction * (26 if not garment.has("pleated") else 40) + rng.uniform(0, 6)),
        ],
        axis=1,
    )
    middle = top + 0.32 * (bottom - top)
    bulge = waist + (hem - waist) * 0.46
    shape = outline(
        [(-waist, top), (0, top + 0.012), (waist, top)],
        [(waist, top), (bulge, middle), (hem, bottom)],
        edge,
        [(-hem, bottom), (-bulge, middle), (-waist, top)],
    )
    folds = []
    count = 11 if garment.has("pleated") else 6
    for place in np.linspace(-0.86, 0.86, count):
        place = place + (0 if garment.has("pleated") else rng.normal(0, 0.05))
        start = top + (0.0 if garment.has("pleated") else rng.uniform(0.02, 0.25) * (bottom - top))
        line = run(
            (place * waist, start),
            (place * bulge, middle + 0.1 * (start - top)),
            (place * hem, bottom + 0.05),
        )
        depth = 0.026 if garment.has("pleated") else 0.022 * rng.choice((-1, 1))
        folds.append(Fold(line, 0.06 if garment.has("pleated") else 0.075, depth * cloth.drape))
    parts: list = [Piece(shape, cloth, 0, (0, top), tuple(folds), puff=0.07, lift=0.2)]
    if garment.has("pleated"):
        parts += [
            Seam(fold.points + np.array([0.02, 0], np.float32), 0.80, 0.010) for fold in folds
        ]
    if garment.has("ruffled"):
        for y0 in (bottom - 0.20, bottom - 0.04):
            w = np.interp(y0, (top, middle, bottom), (waist, bulge, hem)) + 0.01
            x = np.linspace(w, -w, 25)
            low = (
                y0
                + 0.14
                + 0.012 * np.sin(np.linspace(0, 16 * np.pi, 25))
                + 0.03 * (1 - (x / w) ** 2)
            )
            tier = np.vstack(
                [run((-w, y0), (0, y0 + 0.03), (w, y0)), np.stack([x * 1.05, low], axis=1)]
            ).astype(np.float32)
            gathers = tuple(
                Fold(
                    run((a * w, y0 + 0.02), (a * w * 1.02, y0 + 0.08), (a * w * 1.04, y0 + 0.15)),
                    0.04,
                    -0.02 * cloth.drape,
                )
                for a in np.linspace(-0.9, 0.9, 11)
            )
            parts.append(Piece(tier, cloth, 0, (0.03, y0), gathers, puff=0.03, lift=0.3))
    else:
        inset = edge * (0.985, 1) - (0, 0.035)
        parts.append(Seam(inset.astype(np.float32), 0.82))
    return parts
