"""The posture of a bird: where body, head, wing, tail and feet of an individual are in a pose."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fieldguide.birds.bodies import Body, Globe, Strip, rotate
from fieldguide.birds.canvas import NEUTRAL_SHADE
from fieldguide.birds.species import Individual

WING_FACTORS = {  # CUB wing shape -> length, width and width of the tip, relative to the form's own
    "rounded-wings": (0.90, 1.05, 1.5),
    "pointed-wings": (1.04, 0.90, 0.5),
    "broad-wings": (0.98, 1.22, 1.3),
    "tapered-wings": (1.00, 1.00, 0.8),
    "long-wings": (1.18, 0.92, 0.7),
}
BILL_LENGTHS = {
    "shorter_than_head": 0.85,
    "about_the_same_as_head": 1.45,
    "longer_than_head": 2.5,
}  # head radii
TAIL_WIDTHS = {"fan-shaped_tail": 1.9, "pointed_tail": 0.85}


@dataclass(frozen=True)
class Pose:
    """A pose; angles in degrees. The default is the side-on one of a field guide."""

    tilt: float = 0.0  # added to the form's own
    neck: float = 1.0  # stretch
    head_yaw: float = 0.0  # towards the viewer; beyond 90 it looks back
    head_pitch: float = 0.0
    roll: float = 6.0  # positive shows the belly, negative the back
    fluff: float = 1.0
    wing: str = "folded"  # or "raised"
    wing_angle: float = 0.0  # folded: drooped below the body axis; raised: up from the horizontal
    tail_angle: float = 0.0
    tail_spread: float = 1.0
    # About unit length: x as the bird faces, y up, z to the viewer.
    light: tuple[float, float, float] = (-0.45, 0.70, 0.55)


class Bird:
    """The posed geometry of one individual."""

    def __init__(self, individual: Individual, pose: Pose):
        form = individual.species.form
        self.individual, self.pose, self.form = individual, pose, form
        self.tilt = form.tilt + pose.tilt
        depth = form.depth * pose.fluff
        self.depth = depth
        self.radius = form.head * (1.04 if individual.age == "juvenile" else 1.0)
        neck_base = self.frame([(0.40, 0.07)])[0]
        angle = np.radians(form.neck_angle + 0.5 * pose.tilt)
        head = neck_base + form.neck * pose.neck * np.array([np.cos(angle), np.sin(angle)])
        # A bird with eyes in front shows its face: in profile its head is half turned to us.
        self.head = Globe(
            head, self.radius, pose.head_yaw + (58 if form.front_eyes else 0), pose.head_pitch
        )
        trunk = self.frame([(0.30, 0.0), (-0.02, -0.04), (-0.32, -0.02), (-0.53, 0.04)])
        neck_width = (
            min(0.90 * self.radius, 0.80 * depth) if form.neck > 0.5 else 0.95 * self.radius
        )
        # A long neck bends backwards into an S before it reaches the chest.
        bend = max(form.neck - 0.30, 0) * np.array([-0.15, 0.0])
        controls = [
            (*head, 0.82 * self.radius),
            (*(0.55 * head + 0.45 * neck_base + bend), neck_width),
            (*trunk[0], 0.98 * depth),
            (*trunk[1], 1.22 * depth),
            (*trunk[2], 0.92 * depth),
            (*trunk[3], 0.30 * depth),
        ]
        self.body = Body(controls, pose.roll)
        self.s_neck, self.s_chest, self.s_mid, self.s_rear = (
            self._nearest(point) for point in (neck_base, trunk[0], trunk[1], trunk[2])
        )
        self.tail = self._tail()
        self.wing = self._folded_wing()
        self._stand()

    def frame(self, points) -> np.ndarray:
        """Points given along the body axis, turned by the body's tilt."""
        return rotate(points, self.tilt)

    def _nearest(self, point) -> float:
        gap = ((self.body.centre - point) ** 2).sum(axis=1)
        return float(gap.argmin()) / self.body.last

    def _tail(self) -> Strip:
        marks, pose, form = self.individual.marks, self.pose, self.form
        length = form.tail * (0.85 if self.individual.age == "juvenile" else 1.0)
        width = (
            0.085 * TAIL_WIDTHS.get(marks["tail_shape"], 1.0) * pose.tail_spread + 0.05 * self.depth
        )
        lift = form.tail_lift + pose.tail_angle
        offset = rotate([(-0.35 * length, 0.0), (-0.7 * length, 0.0), (-length, 0.0)], -lift)
        points = self.frame(np.array([(-0.36, 0.01), (-0.50, 0.03), *(offset + (-0.46, 0.035))]))
        widths = (
            0.30 * self.depth,
            0.34 * self.depth,
            0.55 * width + 0.1 * self.depth,
            0.9 * width,
            width,
        )
        return Strip(np.column_stack([points, widths]))

    def _folded_wing(self) -> Strip:
        stretch, broad, tip = WING_FACTORS[self.individual.marks["wing_shape"]]
        length, depth = self.form.wing * stretch, self.depth
        lift = -0.55 * depth * np.sin(np.radians(self.pose.roll)) + 0.03
        droop = self.pose.wing_angle if self.pose.wing == "folded" else 0.0
        points = np.array(
            [
                (0.0, 0.0),
                (-0.10, 0.02),
                (-0.42 * length, 0.03),
                (-0.72 * length, 0.035),
                (-length, 0.03),
            ]
        )
        points = rotate(points, droop) + (0.30, lift)
        widths = depth * np.array([0.22, 0.88 * broad, 0.92 * broad, 0.48 * tip**0.5, 0.05 * tip])
        return Strip(np.column_stack([self.frame(points), widths]))

    def _stand(self) -> None:
        """Where the feet are, and from where the legs come."""
        form, body = self.form, self.body
        hip = self.frame([(-0.10, -0.55 * self.depth), (-0.17, -0.50 * self.depth)])
        if form.clinging:
            front = float((body.outline()[:, 0]).max())
            self.trunk_x = front - 0.02
            self.feet = np.array(
                [(self.trunk_x, hip[0, 1] + 0.10), (self.trunk_x, hip[1, 1] - 0.06)]
            )
        else:
            underside = float((self.frame([(-0.08, -1.0 * self.depth)]))[0, 1])
            ground = underside - form.leg
            if form.tilt > 45:
                ground = float(body.at(np.array([0.86]), -1.0)[0, 1]) - form.leg * 0.9
            centre = float(0.5 * (self.head.centre[0] + self.frame([(-0.35, 0)])[0, 0]))
            centre = 0.55 * centre + 0.45 * hip[:, 0].mean()
            self.feet = np.array([(centre + 0.05, ground), (centre - 0.05, ground)])
        self.hips = hip

    def extent(self) -> tuple[float, float, float, float]:
        """x0, y0, x1, y1 of the bird in body units, wings raised included."""
        points = [
            self.body.outline(),
            self.tail.outline(),
            self.wing.outline(),
            self.feet,
            self.head.disc(8),
        ]
        reach = self.radius * (1 + BILL_LENGTHS[self.individual.marks["bill_length"]])
        points.append(self.head.place([reach / self.radius], 0.0, [0.0])[0])
        if self.pose.wing == "raised":
            points.extend(feather for feather, _ in self.raised_feathers(self.pose.wing_angle))
        points = np.concatenate(points)
        return (*points.min(axis=0), *points.max(axis=0))

    def raised_feathers(self, angle: float):
        """[(outline, how far out 0..1)] of a spread wing, from the innermost feather outwards."""
        shoulder = self.frame([(0.20, 0.35 * self.depth)])[0]
        stretch, broad, _ = WING_FACTORS[self.individual.marks["wing_shape"]]
        length = 0.95 * self.form.wing * stretch
        arm = (
            np.array([np.cos(np.radians(angle - 20)), np.sin(np.radians(angle - 20))])
            * 0.34
            * length
        )
        feathers = []
        for along in np.linspace(0, 1, 13):
            root = shoulder + arm * min(1.0, along / 0.55)
            direction = np.radians(angle + 72 - 78 * along**1.3)
            reach = length * (0.44 + 0.46 * along**1.6)
            tip = root + reach * np.array([np.cos(direction), np.sin(direction)])
            width = 0.060 * broad * (1.20 - 0.40 * along)
            feathers.append(
                (
                    Strip(
                        [
                            (*root, 0.5 * width),
                            (*(0.5 * (root + tip)), 1.15 * width),
                            (*(0.12 * root + 0.88 * tip), 1.20 * width),
                            (*tip, 0.20 * width),
                        ],
                        17,
                    ).outline(),
                    along,
                )
            )
        return feathers

    def lit(self, normal_x: float, normal_y: float, normal_z: float) -> float:
        """Shade of a surface with this normal."""
        x, y, z = self.pose.light
        return NEUTRAL_SHADE * (0.62 + 0.50 * max(0.0, x * normal_x + y * normal_y + z * normal_z))
