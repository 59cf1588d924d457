"""How garments for the upper body are cut: half widths and heights, before any cloth is drawn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fieldguide.garments.attributes import Garment


@dataclass
class Cut:
    """Half widths and heights of a garment for the upper body, as it lies or hangs."""

    worn: bool
    neck: float
    depth: float  # of the neckline below the shoulders' line
    shoulder: float
    chest: float
    waist: float
    hem: float
    bottom: float
    armpit: float
    sleeve: float  # its length; 0: none
    cuff: float  # half the sleeve's width at its end
    angle: float  # between sleeve and body, degrees
    slope: float  # by how much the shoulders fall

    @property
    def tip(self) -> tuple[float, float]:
        return self.shoulder, -0.70 + self.slope

    def front(self, garment: Garment) -> float:
        """The height at which the front ends: a dress's upper part ends at the waist."""
        return 0.13 if garment.kind == "dress" else self.bottom

    def side(self, y: float) -> float:
        """Half the width of the body at a height."""
        return float(
            np.interp(y, (self.armpit, 0.12, self.bottom), (self.chest, self.waist, self.hem))
        )


def measure(garment: Garment, worn: bool) -> Cut:
    rng = garment.stream("cut/measures")
    kind = garment.kind
    loose = {
        "tshirt": 0.03,
        "tank": -0.02,
        "blouse": 0.02,
        "shirt": 0.03,
        "sweater": 0.06,
        "hoodie": 0.07,
        "blazer": 0.02,
        "jacket": 0.06,
        "coat": 0.07,
        "cardigan": 0.05,
        "dress": -0.03,
    }[kind] + rng.normal(0, 0.018)
    bottom = {"": 0.52, "cropped": 0.26, "long": 0.98 if kind == "coat" else 0.80}.get(
        garment.length, 0.52
    )
    bottom += rng.normal(0, 0.025) + (0.04 if kind in ("blazer", "shirt") else 0)
    chest = 0.365 + loose
    hem = chest + {
        "blouse": 0.03,
        "coat": 0.07 + rng.normal(0, 0.03),
        "blazer": 0.02,
        "tank": 0.0,
    }.get(kind, 0.0)
    waist = chest - {"tank": 0.05, "blouse": 0.02, "blazer": 0.06, "coat": 0.05, "dress": 0.10}.get(
        kind, 0.01
    )
    if garment.has("belted") and kind == "coat":
        waist -= 0.05
    if kind in ("sweater", "hoodie", "jacket"):
        hem = chest - 0.045
    if worn:
        chest, waist, hem = chest - 0.02, waist - 0.035, hem - 0.01
    sleeve = {"longsleeve": 0.86, "shortsleeve": 0.33 + rng.normal(0, 0.03), "sleeveless": 0.0}[
        garment.sleeve
    ]
    cuff = {
        "longsleeve": 0.095 + 0.5 * max(loose, 0) + (0.05 if kind == "blouse" else 0),
        "shortsleeve": 0.165 + loose,
        "sleeveless": 0.0,
    }[garment.sleeve]
    neck = {
        "roundneck": 0.155,
        "vneck": 0.145,
        "collared": 0.125,
        "turtleneck": 0.125,
        "hooded": 0.15,
    }[garment.neckline]
    neck += rng.uniform(-0.01, 0.03) * (garment.neckline in ("roundneck", "vneck"))
    depth = {
        "roundneck": 0.12,
        "vneck": 0.30,
        "collared": 0.09,
        "turtleneck": 0.02,
        "hooded": 0.13,
    }[garment.neckline]
    depth *= rng.uniform(0.85, 1.25)
    shoulder = 0.37 + 0.5 * loose
    if kind == "tank":
        neck, shoulder, depth = 0.19, 0.275, min(depth * 1.35, 0.34)
    elif garment.sleeve == "sleeveless":
        shoulder = 0.30
    slope = 0.09 if garment.sleeve != "sleeveless" else 0.035
    if kind in ("blazer", "coat"):
        depth = 0.52 if garment.neckline == "vneck" else 0.13
    if kind == "cardigan":
        depth = 0.48
    angle = (
        (13 if garment.sleeve == "longsleeve" else 22)
        if worn
        else (24 if garment.sleeve == "longsleeve" else 50)
    )
    return Cut(
        worn,
        neck,
        depth,
        shoulder,
        chest,
        waist,
        hem,
        bottom,
        -0.24 + 0.6 * loose,
        sleeve,
        cuff,
        angle + rng.normal(0, 1.5),
        slope,
    )


def worn_open(garment: Garment) -> bool:
    return (
        garment.kind == "cardigan"
        and not garment.has("buttoned")
        or garment.kind == "jacket"
        and garment.number % 3 == 0
    )
