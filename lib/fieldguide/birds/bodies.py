"""The geometry of a drawn bird: body forms, and surfaces that carry markings through any pose.

Units: the distance from neck base to rump is 1; x points where the bird faces, y up. Everything
long is a *strip*, a spline with a width; the head is a globe that turns. Markings are placed in
surface coordinates, so they follow a pose as plumage does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np

SAMPLES = 49  # points along a spline
BEYOND = 1.25  # where markings that reach an outline end, so that the outline alone cuts them off


@dataclass(frozen=True)
class Form:
    """One of CUB's body shapes: angles in degrees, lengths in units of the body."""

    shape: str
    nouns: tuple[str, ...]
    tilt: float  # of the body axis above the horizontal
    depth: float  # half the thickness of the body
    head: float  # radius
    neck: float  # from the base of the neck to the centre of the head
    neck_angle: float  # above the horizontal
    tail: float
    leg: float
    wing: float  # length of the folded wing
    bills: tuple[str, ...]
    bill_lengths: tuple[str, ...]
    sizes: tuple[str, ...]
    tails: tuple[str, ...]
    wing_shapes: tuple[str, ...]
    clinging: bool = False  # to an upright trunk
    front_eyes: bool = False
    tail_lift: float = 0.0  # degrees the tail is carried above the body axis


SAME, LONGER, SHORTER = "about_the_same_as_head", "longer_than_head", "shorter_than_head"
TINY, SMALL, MEDIUM = "very_small_(3_-_5_in)", "small_(5_-_9_in)", "medium_(9_-_16_in)"
LARGE, GIANT = "large_(16_-_32_in)", "very_large_(32_-_72_in)"
FORKED, ROUNDED, NOTCHED = "forked_tail", "rounded_tail", "notched_tail"
FAN, POINTED, SQUARED = "fan-shaped_tail", "pointed_tail", "squared_tail"

FORMS = {
    form.shape: form
    for form in (
        Form(
            "perching-like",
            ("Warbler", "Finch", "Sparrow", "Bunting", "Thrush", "Tanager", "Oriole", "Flycatcher"),
            34,
            0.27,
            0.215,
            0.20,
            58,
            0.56,
            0.27,
            0.86,
            ("all-purpose", "cone", "dagger", "specialized"),
            (SHORTER, SAME),
            (TINY, SMALL),
            (NOTCHED, ROUNDED, SQUARED, FORKED),
            ("rounded-wings", "tapered-wings", "pointed-wings"),
        ),
        Form(
            "duck-like",
            ("Teal", "Pochard", "Shoveler", "Wigeon"),
            6,
            0.275,
            0.185,
            0.34,
            62,
            0.26,
            0.15,
            0.82,
            ("spatulate",),
            (SAME, LONGER),
            (MEDIUM, LARGE),
            (POINTED, ROUNDED),
            ("tapered-wings", "pointed-wings"),
            tail_lift=12,
        ),
        Form(
            "gull-like",
            ("Gull", "Tern", "Petrel", "Skua"),
            9,
            0.225,
            0.18,
            0.26,
            48,
            0.34,
            0.28,
            1.12,
            ("hooked_seabird", "dagger"),
            (SAME, LONGER),
            (MEDIUM, LARGE, GIANT),
            (SQUARED, FORKED, ROUNDED),
            ("long-wings", "tapered-wings"),
        ),
        Form(
            "hummingbird-like",
            ("Hummingbird", "Sunbeam", "Woodstar"),
            46,
            0.21,
            0.20,
            0.17,
            58,
            0.44,
            0.10,
            0.80,
            ("needle", "curved_(up_or_down)"),
            (LONGER, SAME),
            (TINY,),
            (FORKED, NOTCHED, ROUNDED),
            ("pointed-wings", "long-wings"),
        ),
        Form(
            "owl-like",
            ("Owl", "Owlet", "Boobook"),
            74,
            0.32,
            0.33,
            0.17,
            86,
            0.34,
            0.13,
            0.88,
            ("hooked",),
            (SHORTER,),
            (SMALL, MEDIUM, LARGE),
            (ROUNDED, SQUARED),
            ("broad-wings", "rounded-wings"),
            front_eyes=True,
        ),
        Form(
            "sandpiper-like",
            ("Sandpiper", "Plover", "Curlew", "Dunlin"),
            11,
            0.225,
            0.145,
            0.30,
            60,
            0.24,
            0.55,
            0.80,
            ("needle", "curved_(up_or_down)", "dagger"),
            (LONGER, SAME),
            (SMALL, MEDIUM),
            (ROUNDED, POINTED),
            ("pointed-wings", "long-wings"),
        ),
        Form(
            "swallow-like",
            ("Swallow", "Martin", "Swift"),
            25,
            0.205,
            0.185,
            0.14,
            42,
            0.66,
            0.12,
            1.20,
            ("all-purpose", "hooked"),
            (SHORTER,),
            (TINY, SMALL),
            (FORKED, NOTCHED),
            ("long-wings", "pointed-wings"),
        ),
        Form(
            "hawk-like",
            ("Hawk", "Falcon", "Kite"),
            62,
            0.27,
            0.205,
            0.17,
            70,
            0.62,
            0.24,
            0.98,
            ("hooked",),
            (SHORTER,),
            (MEDIUM, LARGE, GIANT),
            (FAN, SQUARED, ROUNDED),
            ("broad-wings", "pointed-wings", "long-wings"),
        ),
        Form(
            "pigeon-like",
            ("Dove", "Pigeon", "Cuckoo"),
            22,
            0.27,
            0.16,
            0.30,
            60,
            0.55,
            0.16,
            0.95,
            ("all-purpose", "curved_(up_or_down)"),
            (SHORTER, SAME),
            (MEDIUM, SMALL),
            (FAN, SQUARED, POINTED),
            ("tapered-wings", "broad-wings"),
        ),
        Form(
            "tree-clinging-like",
            ("Woodpecker", "Creeper", "Nuthatch", "Sapsucker"),
            77,
            0.215,
            0.20,
            0.20,
            70,
            0.48,
            0.14,
            0.82,
            ("dagger", "curved_(up_or_down)"),
            (SAME, SHORTER),
            (SMALL, MEDIUM),
            (POINTED, SQUARED),
            ("rounded-wings", "broad-wings"),
            clinging=True,
        ),
        Form(
            "long-legged-like",
            ("Heron", "Egret", "Stilt", "Ibis"),
            17,
            0.22,
            0.125,
            0.66,
            72,
            0.22,
            0.85,
            0.82,
            ("dagger", "curved_(up_or_down)"),
            (LONGER,),
            (LARGE, GIANT),
            (SQUARED, ROUNDED),
            ("broad-wings", "long-wings"),
        ),
        Form(
            "chicken-like-marsh",
            ("Rail", "Coot", "Crake", "Gallinule"),
            13,
            0.27,
            0.165,
            0.29,
            60,
            0.24,
            0.42,
            0.76,
            ("cone", "dagger"),
            (SHORTER, SAME),
            (SMALL, MEDIUM),
            (POINTED, ROUNDED),
            ("rounded-wings", "broad-wings"),
            tail_lift=28,
        ),
        Form(
            "upright-perching_water-like",
            ("Cormorant", "Auklet", "Murre", "Guillemot"),
            64,
            0.235,
            0.155,
            0.42,
            74,
            0.34,
            0.13,
            0.80,
            ("dagger", "hooked_seabird"),
            (SAME, LONGER),
            (MEDIUM, LARGE),
            (ROUNDED, POINTED),
            ("tapered-wings", "pointed-wings"),
        ),
        Form(
            "upland-ground-like",
            ("Quail", "Grouse", "Partridge"),
            16,
            0.315,
            0.165,
            0.28,
            62,
            0.32,
            0.25,
            0.80,
            ("cone", "hooked"),
            (SHORTER,),
            (MEDIUM, LARGE),
            (ROUNDED, FAN, SQUARED),
            ("rounded-wings", "broad-wings"),
            tail_lift=6,
        ),
    )
}


@cache
def spline_basis(controls: int, samples: int = SAMPLES) -> np.ndarray:
    """(samples, controls) weights of a clamped cubic B-spline; it never overshoots its controls."""
    degree = min(3, controls - 1)
    knots = np.concatenate(
        [np.zeros(degree), np.linspace(0, 1, controls - degree + 1), np.ones(degree)]
    )
    t = np.linspace(0, 1, samples)
    weights = [((knots[i] <= t) & (t < knots[i + 1])).astype(float) for i in range(len(knots) - 1)]
    weights[controls - 1][-1] = 1.0
    for order in range(1, degree + 1):
        for i in range(len(knots) - 1 - order):
            left, right = knots[i + order] - knots[i], knots[i + order + 1] - knots[i + 1]
            weights[i] = ((t - knots[i]) / left * weights[i] if left else 0.0) + (
                (knots[i + order + 1] - t) / right * weights[i + 1] if right else 0.0
            )
    return np.stack(weights[:controls], axis=1).astype(np.float32)


class Strip:
    """A band along a spline.

    s in [0, 1] runs along it, t in [-1, 1] across: +1 is its upper, -1 its lower edge.
    """

    def __init__(self, controls, samples: int = SAMPLES):
        """controls: (n, 3) rows of x, y and half-width, in body units."""
        controls = np.asarray(controls, dtype=np.float32)
        curve = spline_basis(len(controls), samples) @ controls
        self.centre, self.width = curve[:, :2], curve[:, 2]
        along = np.empty_like(self.centre)
        along[1:-1] = self.centre[2:] - self.centre[:-2]
        along[0], along[-1] = self.centre[1] - self.centre[0], self.centre[-1] - self.centre[-2]
        along /= np.maximum(np.sqrt((along * along).sum(axis=1, keepdims=True)), 1e-6)
        self.along, self.length = (
            along,
            float(np.sqrt((np.diff(self.centre, axis=0) ** 2).sum(1)).sum()),
        )
        # Strips run from the front of the bird backwards, so "up" is a quarter turn clockwise.
        self.normal = np.stack([along[:, 1], -along[:, 0]], axis=1)
        self.last = samples - 1

    def at(self, s, t) -> np.ndarray:
        """(n, 2) points; s below 0 or above 1 lies straight before or behind the strip."""
        inside = np.minimum(np.maximum(s, 0), 1)
        index = (inside * self.last + 0.5).astype(np.int32)
        points = self.centre[index] + self.normal[index] * (self.width[index] * t)[:, None]
        if (inside != s).any():
            points += self.along[index] * ((s - inside) * self.length)[:, None]
        return points

    def band(self, s0, s1, t0, t1, feathered: float = 0.0, bulge: float = 0.0) -> np.ndarray:
        """Closed polygon over s0..s1 between the edges t0 and t1.

        Where it reaches an edge or an end of the strip, it reaches beyond. feathered: the height of
        the ragged edges t0 and t1; bulge: how far both ends round outwards in s.
        """
        steps = max(3, int((s1 - s0) * self.last * 0.6))
        s0, s1 = -0.1 if s0 <= 0 else s0, 1.1 if s1 >= 1 else s1
        s = s0 + (s1 - s0) * _ramp(steps)
        t = np.empty(2 * steps, np.float32)
        t[:steps], t[steps:] = t1, t0
        for edge, at in ((slice(0, steps), t1), (slice(steps, None), t0)):
            if abs(at) >= 0.98:
                t[edge] = math.copysign(BEYOND, at)
            elif feathered:
                t[edge] += feathered * _ragged(steps)
        if not bulge:
            return self.at(np.concatenate([s, s[::-1]]), t)
        t0, t1 = t[-1], t[0]
        round_s, round_t = bulge * _ARC[:, 0], 0.5 * (t0 + t1) + 0.5 * (t1 - t0) * _ARC[:, 1]
        return self.at(
            np.concatenate([s, s1 + round_s, s[::-1], s0 - round_s]),
            np.concatenate([t[:steps], round_t, t[steps:], round_t[::-1]]),
        )

    def outline(self, margin: float = 0.0) -> np.ndarray:
        """The closed outline, or one further out by a margin in body units, but not beyond what
        `band` covers."""
        offset = self.normal * np.minimum(self.width + margin, 0.98 * BEYOND * self.width)[:, None]
        return np.concatenate([self.centre + offset, (self.centre - offset)[::-1]])


# The rounded end of a band: bulge 0..1 against place across it 1..-1.
_ARC = np.stack([np.cos(np.linspace(-1.4, 1.4, 7)), -np.sin(np.linspace(-1.4, 1.4, 7))], axis=1)


@cache
def _ramp(steps: int) -> np.ndarray:
    return np.linspace(0, 1, steps, dtype=np.float32)


@cache
def _ragged(steps: int) -> np.ndarray:
    return np.sin(np.arange(steps) * 2.4) * 0.7 + np.sin(np.arange(steps) * 1.1 + 1.0) * 0.3


class Body(Strip):
    """The trunk and neck, a solid of revolution.

    `phi` is the angle around it in degrees: +90 is the back, -90 the belly.
    """

    def __init__(self, controls, roll: float):
        super().__init__(controls)
        self.roll = roll  # degrees; positive shows more of the belly

    def around(self, phi):
        """phi in degrees -> t; what lies beyond the visible side is drawn at its edge."""
        if isinstance(phi, np.ndarray):
            return np.sin(np.radians(np.clip(phi + self.roll, -90, 90)))
        return math.sin(math.radians(max(-90.0, min(90.0, phi + self.roll))))

    def region(self, s0, s1, phi0, phi1, feathered: float = 0.0, bulge: float = 0.0) -> np.ndarray:
        return self.band(s0, s1, self.around(phi0), self.around(phi1), feathered, bulge)


class Globe:
    """The head.

    Azimuth 0 is the bill, +90 the side that faces the viewer at yaw 0; elevation 90 is the crown.
    """

    def __init__(self, centre, radius: float, yaw: float, pitch: float, stretch: float = 1.10):
        self.centre, self.radius = np.asarray(centre, dtype=np.float32), radius
        yaw, pitch = np.radians(yaw), np.radians(pitch)
        self.cos_yaw, self.sin_yaw = np.cos(yaw), np.sin(yaw)
        self.stretch = stretch
        sign = (
            1.0 if self.cos_yaw >= 0 else -1.0
        )  # the bill lifts with positive pitch, whichever way the head faces
        cos, sin = np.cos(pitch), sign * np.sin(pitch)
        self.turn = np.array([[cos, -sin], [sin, cos]], np.float32)

    def place(self, forward, up, side) -> tuple[np.ndarray, np.ndarray]:
        """Head coordinates in radii -> (n, 2) points and (n,) depth towards the viewer."""
        x = np.asarray(forward) * self.stretch * self.cos_yaw - np.asarray(side) * self.sin_yaw
        depth = np.asarray(forward) * self.sin_yaw + np.asarray(side) * self.cos_yaw
        flat = np.stack([x, np.broadcast_to(up, x.shape)], axis=1)
        return self.centre + self.radius * flat @ self.turn.T, depth

    def points(self, azimuth, elevation) -> tuple[np.ndarray, np.ndarray]:
        """(n, 2) points and (n,) depth on the globe; the far side is moved beyond the disc's edge.

        azimuth, elevation: degrees.
        """
        azimuth, elevation = np.radians(azimuth), np.radians(elevation)
        forward, up, side = (
            np.cos(elevation) * np.cos(azimuth),
            np.sin(elevation),
            np.cos(elevation) * np.sin(azimuth),
        )
        depth = forward * self.sin_yaw + side * self.cos_yaw
        rim = depth < 0.2
        if rim.any():
            x = forward * self.cos_yaw - side * self.sin_yaw
            size = np.sqrt(x * x + up * up) + 1e-6
            size = np.where(depth < 0, size, 1) / (
                BEYOND - (BEYOND - 1) * np.clip(depth / 0.2, 0, 1)
            )
            x, up = np.where(rim, x / size, x), np.where(rim, up / size, up)
            stretch = 1 + (self.stretch - 1) * abs(self.cos_yaw)
            flat = np.stack([x * stretch, up], axis=1)
            return self.centre + self.radius * flat @ self.turn.T, depth
        return self.place(forward, up, side)[0], depth

    def patch(
        self, azimuth, elevation, across, high, squareness: float = 2.0, slant: float = 0.0
    ) -> np.ndarray | None:
        """Polygon of a patch `across` x `high` degrees about a point; None if it faces away.

        squareness: 2 is round, more is squarer; slant: degrees of elevation gained for each degree
        of azimuth.
        """
        a, e = np.radians(azimuth), np.radians(elevation)
        if np.cos(e) * (np.cos(a) * self.sin_yaw + np.sin(a) * self.cos_yaw) < -0.35:
            return None
        cos, sin = _superellipse(squareness)
        points, depth = self.points(
            azimuth + 0.5 * across * cos,
            np.clip(elevation + 0.5 * high * sin + slant * 0.5 * across * cos, -88, 88),
        )
        return points if (depth > 0).any() else None

    def disc(self, steps: int = 40) -> np.ndarray:
        """(steps, 2) its outline."""
        angle = np.linspace(0, 2 * np.pi, steps, endpoint=False)
        stretch = 1 + (self.stretch - 1) * abs(self.cos_yaw)
        flat = np.stack([np.cos(angle) * stretch, np.sin(angle)], axis=1)
        return self.centre + self.radius * flat @ self.turn.T


@cache
def _superellipse(squareness: float) -> tuple[np.ndarray, np.ndarray]:
    angle = np.linspace(0, 2 * np.pi, 28, endpoint=False)
    cos, sin = np.cos(angle), np.sin(angle)
    return (
        np.sign(cos) * np.abs(cos) ** (2 / squareness),
        np.sign(sin) * np.abs(sin) ** (2 / squareness),
    )


def rotate(points, degrees: float) -> np.ndarray:
    """(n, 2) points turned about the origin, counter-clockwise."""
    angle = np.radians(degrees)
    return np.asarray(points) @ np.array(
        [[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]
    )
