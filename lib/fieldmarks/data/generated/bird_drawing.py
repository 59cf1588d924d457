"""Painting one bird: an individual's look and a pose become colour with transparency, shading, and a map of parts."""
from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from fieldmarks.data.generated.bird_bodies import Body, Globe, Strip, rotate
from fieldmarks.data.generated.bird_species import Look, PALETTE

# CUB's parts, in its order; a part's number is its place here plus one.
PARTS = ("back", "beak", "belly", "breast", "crown", "forehead", "left eye", "left leg", "left wing", "nape",
         "right eye", "right leg", "right wing", "tail", "throat")
PART = {name: number for number, name in enumerate(PARTS, start=1)}
SUPERSAMPLE = 2
SUBPIXEL_BITS = 4
NEUTRAL_SHADE = 128          # the shade canvas holds brightness in 1/128


@dataclass(frozen=True)
class Pose:
    """How a bird holds itself; angles in degrees. The default is the side-on pose of a field guide."""
    tilt: float = 0.0            # added to the form's own
    neck: float = 1.0            # stretch
    head_yaw: float = 0.0        # towards the viewer; beyond 90 it looks back
    head_pitch: float = 0.0
    roll: float = 6.0            # positive shows the belly, negative the back
    fluff: float = 1.0
    wing: str = "folded"         # or "raised"
    wing_angle: float = 0.0      # folded: drooped below the body axis; raised: up from the horizontal
    tail_angle: float = 0.0
    tail_spread: float = 1.0
    light: tuple[float, float, float] = (-0.45, 0.70, 0.55)    # unit-length enough; x as the bird faces, y up, z to us


class Canvas:
    """Colour (premultiplied RGBA, supersampled), part numbers and shade, drawn in body units through one placement."""

    def __init__(self, side: int, scale: float, origin: tuple[float, float], flip: bool):
        """side: pixels; scale: pixels for one body unit; origin: pixel of body point (0, 0)."""
        self.side, self.scale, self.flip = side, scale, flip
        self.matrix = np.array([-scale if flip else scale, -scale], dtype=np.float32)
        self.origin = np.array(origin, dtype=np.float32)
        self.colour = np.zeros((side * SUPERSAMPLE, side * SUPERSAMPLE, 4), np.uint8)
        self.parts = np.zeros((side, side), np.uint8)
        self.shade = np.full((side, side), NEUTRAL_SHADE, np.uint8)

    def pixels(self, points) -> np.ndarray:
        return points * self.matrix + self.origin

    def _fixed(self, points) -> tuple[np.ndarray, np.ndarray]:
        """Fixed-point pixels on the supersampled canvas and on the plain ones."""
        fine = ((points * self.matrix + self.origin) * (SUPERSAMPLE << SUBPIXEL_BITS)).astype(np.int32)
        return fine + ((SUPERSAMPLE - 1) << SUBPIXEL_BITS) // 2, fine // SUPERSAMPLE

    def fill(self, points, colour, part: int | None = None, shade: float | None = None) -> None:
        """A polygon (n, 2) in one colour (3,); with `part`, its pixels become that part; None or no points: nothing."""
        if points is None:
            return
        fine, plain = self._fixed(points)
        if colour is not None:
            cv2.fillPoly(self.colour, [fine], (*map(float, colour), 255.0), cv2.LINE_AA, SUBPIXEL_BITS)
        if part is not None:
            cv2.fillPoly(self.parts, [plain], part, cv2.LINE_8, SUBPIXEL_BITS)
        if shade is not None:
            cv2.fillPoly(self.shade, [plain], min(max(shade, 0.0), 255.0), cv2.LINE_AA, SUBPIXEL_BITS)

    def fill_many(self, polygons, colour) -> None:
        """(n, k, 2) small polygons in one colour."""
        if len(polygons):
            cv2.fillPoly(self.colour, list(self._fixed(polygons)[0]), (*map(float, colour), 255.0), cv2.LINE_AA,
                         SUBPIXEL_BITS)

    def line(self, points, colour, width: float) -> None:
        """A polyline (n, 2), or several (m, n, 2); width in body units."""
        points = np.asarray(points)
        fine, _ = self._fixed(points)
        lines = [fine] if points.ndim == 2 else list(fine)
        thickness = max(1, round(width * self.scale * SUPERSAMPLE))
        cv2.polylines(self.colour, lines, False, (*map(float, colour), 255.0), thickness, cv2.LINE_AA, SUBPIXEL_BITS)


def darker(colour, amount: float = 0.25):
    return np.asarray(colour) * (1 - amount)


def lighter(colour, amount: float = 0.25):
    return np.asarray(colour) + (255 - np.asarray(colour)) * amount


def luminance(colour) -> float:
    return float(np.dot(colour, (0.3, 0.59, 0.11)))


def contrasting(base, light="white", dark="black") -> np.ndarray:
    """The dark or the light marking colour, whichever shows on `base`."""
    return np.array(PALETTE[dark if luminance(base) > 105 else light], dtype=np.float32)


WING_FACTORS = {  # CUB wing shape -> length, width and width of the tip, relative to the form's own
    "rounded-wings": (0.90, 1.05, 1.5), "pointed-wings": (1.04, 0.90, 0.5), "broad-wings": (0.98, 1.22, 1.3),
    "tapered-wings": (1.00, 1.00, 0.8), "long-wings": (1.18, 0.92, 0.7)}
BILL_LENGTHS = {"shorter_than_head": 0.85, "about_the_same_as_head": 1.45, "longer_than_head": 2.5}   # head radii
TAIL_WIDTHS = {"fan-shaped_tail": 1.9, "pointed_tail": 0.85}


class Bird:
    """The posed geometry of one individual; `paint` puts it on a canvas."""

    def __init__(self, look: Look, pose: Pose):
        form = look.species.form
        self.look, self.pose, self.form = look, pose, form
        self.tilt = form.tilt + pose.tilt
        depth = form.depth * pose.fluff
        self.depth = depth
        self.radius = form.head * (1.04 if look.age == "juvenile" else 1.0)
        neck_base = self._frame([(0.40, 0.07)])[0]
        angle = np.radians(form.neck_angle + 0.5 * pose.tilt)
        head = neck_base + form.neck * pose.neck * np.array([np.cos(angle), np.sin(angle)])
        # A bird with eyes in front shows its face: in profile its head is half turned to us.
        self.head = Globe(head, self.radius, pose.head_yaw + (58 if form.front_eyes else 0), pose.head_pitch)
        trunk = self._frame([(0.30, 0.0), (-0.02, -0.04), (-0.32, -0.02), (-0.53, 0.04)])
        neck_width = min(0.90 * self.radius, 0.80 * depth) if form.neck > 0.5 else 0.95 * self.radius
        # A long neck bends backwards into an S before it reaches the chest.
        bend = max(form.neck - 0.30, 0) * np.array([-0.15, 0.0])
        controls = [(*head, 0.82 * self.radius), (*(0.55 * head + 0.45 * neck_base + bend), neck_width),
                    (*trunk[0], 0.98 * depth), (*trunk[1], 1.22 * depth), (*trunk[2], 0.92 * depth),
                    (*trunk[3], 0.30 * depth)]
        self.body = Body(controls, pose.roll)
        self.s_neck, self.s_chest, self.s_mid, self.s_rear = (self._nearest(point) for point in (
            neck_base, trunk[0], trunk[1], trunk[2]))
        self.tail = self._tail()
        self.wing = self._folded_wing()
        self._stand()

    def _frame(self, points) -> np.ndarray:
        """Points given along the body axis, turned by the body's tilt."""
        return rotate(points, self.tilt)

    def _nearest(self, point) -> float:
        gap = ((self.body.centre - point) ** 2).sum(axis=1)
        return float(gap.argmin()) / self.body.last

    def _tail(self) -> Strip:
        marks, pose, form = self.look.marks, self.pose, self.form
        length = form.tail * (0.85 if self.look.age == "juvenile" else 1.0)
        width = 0.085 * TAIL_WIDTHS.get(marks["tail_shape"], 1.0) * pose.tail_spread + 0.05 * self.depth
        lift = form.tail_lift + pose.tail_angle
        offset = rotate([(-0.35 * length, 0.0), (-0.7 * length, 0.0), (-length, 0.0)], -lift)
        points = self._frame(np.array([(-0.36, 0.01), (-0.50, 0.03), *(offset + (-0.46, 0.035))]))
        widths = (0.30 * self.depth, 0.34 * self.depth, 0.55 * width + 0.1 * self.depth, 0.9 * width, width)
        return Strip(np.column_stack([points, widths]))

    def _folded_wing(self) -> Strip:
        stretch, broad, tip = WING_FACTORS[self.look.marks["wing_shape"]]
        length, depth = self.form.wing * stretch, self.depth
        lift = -0.55 * depth * np.sin(np.radians(self.pose.roll)) + 0.03
        droop = self.pose.wing_angle if self.pose.wing == "folded" else 0.0
        points = np.array([(0.0, 0.0), (-0.10, 0.02), (-0.42 * length, 0.03), (-0.72 * length, 0.035), (-length, 0.03)])
        points = rotate(points, droop) + (0.30, lift)
        widths = depth * np.array([0.22, 0.88 * broad, 0.92 * broad, 0.48 * tip ** 0.5, 0.05 * tip])
        return Strip(np.column_stack([self._frame(points), widths]))

    def _stand(self) -> None:
        """Where the feet are, and from where the legs come."""
        form, body = self.form, self.body
        hip = self._frame([(-0.10, -0.55 * self.depth), (-0.17, -0.50 * self.depth)])
        if form.clinging:
            front = float((body.outline()[:, 0]).max())
            self.trunk_x = front - 0.02
            self.feet = np.array([(self.trunk_x, hip[0, 1] + 0.10), (self.trunk_x, hip[1, 1] - 0.06)])
        else:
            underside = float((self._frame([(-0.08, -1.0 * self.depth)]))[0, 1])
            ground = underside - form.leg
            if form.tilt > 45:
                ground = float(body.at(np.array([0.86]), -1.0)[0, 1]) - form.leg * 0.9
            centre = float(0.5 * (self.head.centre[0] + self._frame([(-0.35, 0)])[0, 0]))
            centre = 0.55 * centre + 0.45 * hip[:, 0].mean()
            self.feet = np.array([(centre + 0.05, ground), (centre - 0.05, ground)])
        self.hips = hip

    def extent(self) -> tuple[float, float, float, float]:
        """x0, y0, x1, y1 of the bird in body units, wings raised included."""
        points = [self.body.outline(), self.tail.outline(), self.wing.outline(), self.feet, self.head.disc(8)]
        reach = self.radius * (1 + BILL_LENGTHS[self.look.marks["bill_length"]])
        points.append(self.head.place([reach / self.radius], 0.0, [0.0])[0])
        if self.pose.wing == "raised":
            points.extend(feather for feather, _ in self._raised_feathers(self.pose.wing_angle))
        points = np.concatenate(points)
        return (*points.min(axis=0), *points.max(axis=0))

    # ---- painting, from the far side to the near one -----------------------------------------------------------------

    def paint(self, canvas: Canvas, rng: np.random.Generator) -> None:
        near, far = ("left", "right") if canvas.flip else ("right", "left")
        self.rng = rng
        self._paint_leg(canvas, 1, PART[f"{far} leg"], 0.78)
        if self.pose.wing == "raised":
            self._paint_raised_wing(canvas, self.pose.wing_angle - 16, PART[f"{far} wing"], 0.72)
        self._paint_tail(canvas)
        self._paint_leg(canvas, 0, PART[f"{near} leg"], 1.0)
        self._paint_body(canvas)
        if self.pose.wing == "folded":
            self._paint_folded_wing(canvas, PART[f"{near} wing"])
        self._paint_mantle(canvas)
        self._paint_head(canvas, near, far)
        if self.pose.wing == "raised":
            self._paint_raised_wing(canvas, self.pose.wing_angle, PART[f"{near} wing"], 1.0)
        self._paint_toes(canvas, PART[f"{near} leg"])

    def _lit(self, normal_x: float, normal_y: float, normal_z: float) -> float:
        """Shade of a surface with this normal."""
        x, y, z = self.pose.light
        return NEUTRAL_SHADE * (0.62 + 0.50 * max(0.0, x * normal_x + y * normal_y + z * normal_z))

    def _paint_leg(self, canvas, index: int, part: int, light: float) -> None:
        hip, foot = self.hips[index], self.feet[index]
        colour = self.look.colour("leg_color") * light
        long = self.form.leg > 0.35
        ankle = hip + (foot - hip) * 0.55 + np.array([-0.05 if long else -0.02, 0.0])
        width = 0.018 if long else 0.021
        thigh = Strip([(*hip, 0.11 if not long else 0.08), (*(0.5 * (hip + ankle)), 0.07 if not long else 0.05),
                       (*ankle, 0.02)], 13)
        canvas.fill(thigh.outline(), self.look.colour("belly_color") * 0.9 * light, PART["belly"], 105)
        for start, end in ((ankle, foot), (0.5 * (hip + ankle), ankle)):
            side = np.array([-(end - start)[1], (end - start)[0]])
            side = side / (np.linalg.norm(side) + 1e-6) * width
            canvas.fill(np.array([start + side, end + 0.8 * side, end - 0.8 * side, start - side]), colour, part, 118)

    def _paint_toes(self, canvas, near_part: int) -> None:
        """Toes over the perch: three forward, one back."""
        colour, size = self.look.colour("leg_color"), 0.075
        for index, light in ((1, 0.8), (0, 1.0)):
            foot = self.feet[index]
            if self.form.clinging:
                toes = [(0.03, size), (0.07, 0.5 * size), (0.05, -0.8 * size)]
            else:
                toes = [(1.25 * size, -0.022), (0.8 * size, -0.036), (-0.9 * size, -0.03)]
            for dx, dy in toes:
                tip = foot + (dx, dy)
                quad = np.array([foot + (0, 0.02), tip + (0, 0.010), tip - (0, 0.010), foot - (0, 0.016)])
                canvas.fill(quad, colour * light, near_part if index == 0 else None, 118)

    def _paint_tail(self, canvas) -> None:
        look, tail, marks = self.look, self.tail, self.look.marks
        upper, under = look.colour("upper_tail_color"), look.colour("under_tail_color")
        across = np.linspace(1, -1, 13)
        end = 1 - {"forked_tail": 0.42 * (1 - np.abs(across)) ** 0.8, "rounded_tail": 0.14 * across**2,
                   "notched_tail": 0.12 * (1 - np.abs(across)), "fan-shaped_tail": 0.20 * across**2,
                   "pointed_tail": 0.50 * np.abs(across) ** 1.2, "squared_tail": 0 * across}[marks["tail_shape"]]
        s = np.linspace(0, 0.98, 12)

        def portion(start, t_low, t_high):
            """The tail from s = start to its end, between two edges."""
            inside = across[(across <= t_high + 1e-6) & (across >= t_low - 1e-6)]
            stop = np.interp(-inside, -across, end)
            along0, along1 = start + (stop[0] - start) * s, start + (stop[-1] - start) * s[::-1]
            return np.concatenate([tail.at(along0, inside[0]), tail.at(stop, inside), tail.at(along1, inside[-1])])

        canvas.fill(portion(0.0, -1, 1), upper, PART["tail"], self._lit(-0.3, 0.75, 0.4))
        canvas.fill(portion(0.0, -1, -0.5), darker(under, 0.08), PART["tail"], self._lit(-0.2, -0.6, 0.5))
        mark = contrasting(upper)
        pattern = marks["tail_pattern"]
        if pattern == "striped":
            for start in (0.42, 0.58, 0.74, 0.88):
                canvas.fill(tail.band(start, start + 0.065, -0.45, 1.0), mark)
        elif pattern == "spotted":
            canvas.fill_many(_lozenges(tail, np.repeat([0.45, 0.6, 0.75, 0.88], 2), np.tile([0.55, -0.05], 4), .03, .22),
                             mark)
        elif pattern == "multi-colored":
            canvas.fill(portion(0.70, -1, 1), look.colour(look.species.accent))
            canvas.fill(portion(0.0, 0.5, 1), look.colour(look.species.accent))
        edges = [tail.at(np.linspace(0.25, 0.97 * float(np.interp(-t, -across, end)), 9), np.full(9, t))
                 for t in (0.62, 0.28, -0.08, -0.5)]
        canvas.line(np.stack(edges), darker(upper, 0.38), 0.008)

    def _paint_body(self, canvas) -> None:
        look, body = self.look, self.body
        back, nape, breast = look.colour("back_color"), look.colour("nape_color"), look.colour("breast_color")
        belly, throat = look.colour("belly_color"), look.colour("throat_color")
        canvas.fill(body.outline(), back, PART["back"])
        side = 22                                   # the line along the flank where upperparts end, degrees
        canvas.fill(body.region(self.s_mid - 0.05, 1.0, -180, side, 0.05), belly, PART["belly"])
        canvas.fill(body.region(self.s_neck * 0.72, self.s_mid - 0.03, -180, side, 0.05, 0.08), breast, PART["breast"])
        canvas.fill(body.region(0.0, self.s_neck, 12, 180, 0.06, 0.07), nape, PART["nape"])
        canvas.fill(body.region(0.0, self.s_neck * 0.80, -180, 14, 0.06, 0.06), throat, PART["throat"])
        canvas.fill(body.region(0.90, 1.0, -180, -8, 0.0, 0.04), look.colour("under_tail_color"), PART["tail"])
        self._paint_patterns(canvas)
        normal = body.normal[len(body.normal) // 2]
        for low, high in ((-90, -58), (-58, -28), (-28, 2), (2, 30), (30, 58), (58, 90)):
            angle = np.radians((low + high) / 2 + body.roll)
            up = np.sin(angle)
            shade = self._lit(normal[0] * up, normal[1] * up, max(np.cos(angle), 0))
            canvas.fill(body.region(0.0, 1.0, low, high), None, shade=shade)

    def _paint_patterns(self, canvas) -> None:
        look, body, marks, scatter = self.look, self.body, self.look.marks, self._scatter
        start, mid = self.s_neck * 0.80, self.s_mid
        breast, belly = look.colour("breast_color"), look.colour("belly_color")
        accent = look.colour(look.species.accent)
        ink = contrasting(breast, light="buff", dark="brown") * 0.85
        if marks["breast_pattern"] == "striped":
            canvas.fill_many(_lozenges(body, *scatter(start + .02, mid - .02, -80, 20, 6, 8), 0.034, 0.045), ink)
        elif marks["breast_pattern"] == "spotted":
            canvas.fill_many(_dots(body, *scatter(start + .02, mid - .02, -80, 18, 6, 6), 0.017), ink)
        elif marks["breast_pattern"] == "multi-colored":
            middle = 0.5 * (start + mid)
            canvas.fill(body.region(middle - 0.01, middle + 0.075, -180, 22, 0.16), accent)
        ink = contrasting(belly, light="buff", dark="brown") * 0.85
        if marks["belly_pattern"] == "striped":
            for s in np.linspace(mid + 0.03, 0.88, 7):
                canvas.fill(body.region(s, s + 0.020, -180, 6, 0.0, 0.012), ink)
        elif marks["belly_pattern"] == "spotted":
            canvas.fill_many(_dots(body, *scatter(mid + .02, 0.90, -82, 8, 7, 6), 0.016), ink)
        elif marks["belly_pattern"] == "multi-colored":
            canvas.fill(body.region(mid, 0.86, -40, 22, 0.06, 0.05), accent)

    def _scatter(self, s0, s1, phi0, phi1, columns, rows):
        """(s, t) of staggered rows of feathers on the body, each a little out of place."""
        s = np.linspace(s0, s1, columns)[:, None] + self.rng.uniform(-0.3, 0.3, (columns, rows)) * (s1 - s0) / columns
        phi = np.linspace(phi0, phi1, rows) + ((np.arange(columns) % 2) * 0.5 * (phi1 - phi0) / rows)[:, None]
        phi = phi + self.rng.uniform(-3, 3, (columns, rows))
        return s.ravel(), self.body.around(phi.ravel())

    def _paint_mantle(self, canvas) -> None:
        """The back, with the scapulars that lie over the top of the folded wing, and its pattern."""
        look, body, pattern = self.look, self.body, self.look.marks["back_pattern"]
        back, accent = look.colour("back_color"), look.colour(look.species.accent)
        front, rear = self.s_neck + 0.04, self.s_rear + 0.03
        canvas.fill(body.region(front, rear, 30, 180, 0.05, 0.06), back, PART["back"])
        ink = contrasting(back, light="buff")
        if pattern == "striped":
            for phi in (36, 50, 66):
                canvas.fill(body.region(front, rear, phi, phi + 7), ink)
        elif pattern == "spotted":
            canvas.fill_many(_dots(body, *self._scatter(front + 0.01, rear, 36, 72, 7, 4), 0.016), ink)
        elif pattern == "multi-colored":            # a saddle
            middle = 0.5 * (front + rear)
            canvas.fill(body.region(middle - 0.02, rear - 0.02, 34, 180, 0.05, 0.04), accent)

    def _paint_folded_wing(self, canvas, part: int) -> None:
        look, wing, marks = self.look, self.wing, self.look.marks
        colour = look.colour("wing_color")
        edge, quill = darker(colour, 0.34) if luminance(colour) > 60 else lighter(colour, 0.20), darker(colour, 0.20)
        # The wing's own shadow lies on the body, a little below and behind it.
        canvas.fill(wing.outline() + (-0.012, -0.035), None, shade=82)
        canvas.fill(wing.outline(), colour, part, self._lit(-0.1, 0.25, 0.85))
        canvas.fill(wing.band(0.0, 0.85, 0.45, 1.0), None, shade=self._lit(-0.1, 0.75, 0.6))
        canvas.fill(wing.band(0.52, 1.0, -1.0, 0.25), quill)
        for t0, t1, s0 in ((0.30, 0.62, 0.34), (-0.05, 0.35, 0.40)):      # tertials
            canvas.fill(wing.band(s0, 0.74, t0, t1), lighter(colour, 0.07))
        pattern, mark = marks["wing_pattern"], contrasting(colour, light="white", dark="black")
        accent = look.colour(look.species.accent)
        if pattern == "multi-colored":
            canvas.fill(wing.band(0.34, 0.64, -0.90, 0.05, 0.05, 0.05), accent)
        lines = [wing.at(np.linspace(s0, s1, 11), np.linspace(t0, t1, 11)) for s0, s1, t0, t1 in (
            (0.50, 0.99, -0.72, -0.5), (0.50, 0.99, -0.42, -0.1), (0.50, 0.98, -0.12, 0.3), (0.46, 0.90, 0.18, 0.7),
            (0.36, 0.76, 0.48, 0.86))]
        canvas.line(np.stack(lines), edge, 0.006)
        scallop = np.linspace(-0.9, 0.85, 15)
        for s0, depth in ((0.44, 0.016), (0.29, 0.014), (0.17, 0.012)):
            s = s0 + depth * np.abs(np.sin(scallop * 9)) + 0.05 * scallop
            canvas.line(wing.at(s, scallop), edge, 0.006)
        if pattern == "striped":
            for s0 in (0.25, 0.41):
                s = s0 + 0.05 * scallop
                canvas.fill(np.concatenate([wing.at(s, scallop), wing.at((s + 0.052)[::-1], scallop[::-1])]), mark)
        elif pattern == "spotted":
            s, t = np.meshgrid((0.14, 0.23, 0.32, 0.41, 0.50), (-0.7, -0.3, 0.1, 0.5))
            canvas.fill_many(_dots(wing, (s + 0.05 * t).ravel(), t.ravel(), 0.024), mark)
        canvas.line(wing.at(np.linspace(0.04, 0.99, 25), np.full(25, -1.0)), darker(colour, 0.45), 0.008)

    def _raised_feathers(self, angle: float):
        """[(outline, how far out 0..1)] of a spread wing, from the innermost feather outwards."""
        shoulder = self._frame([(0.20, 0.35 * self.depth)])[0]
        stretch, broad, _ = WING_FACTORS[self.look.marks["wing_shape"]]
        length = 0.95 * self.form.wing * stretch
        arm = np.array([np.cos(np.radians(angle - 20)), np.sin(np.radians(angle - 20))]) * 0.34 * length
        feathers = []
        for along in np.linspace(0, 1, 13):
            root = shoulder + arm * min(1.0, along / 0.55)
            direction = np.radians(angle + 72 - 78 * along**1.3)
            reach = length * (0.44 + 0.46 * along**1.6)
            tip = root + reach * np.array([np.cos(direction), np.sin(direction)])
            width = 0.060 * broad * (1.20 - 0.40 * along)
            feathers.append((Strip([(*root, 0.5 * width), (*(0.5 * (root + tip)), 1.15 * width),
                                    (*(0.12 * root + 0.88 * tip), 1.20 * width), (*tip, 0.20 * width)], 17).outline(),
                             along))
        return feathers

    def _paint_raised_wing(self, canvas, angle: float, part: int, light: float) -> None:
        look, marks = self.look, self.look.marks
        colour = look.colour("wing_color") * light
        mark, accent = contrasting(colour) * light, look.colour(look.species.accent) * light
        edge = darker(colour, 0.4) if luminance(colour) > 60 else lighter(colour, 0.25)
        feathers = self._raised_feathers(angle)
        half = len(feathers[0][0]) // 2
        shoulder = self._frame([(0.18, 0.30 * self.depth), (0.0, 0.30 * self.depth), (-0.20, 0.30 * self.depth)])
        scapulars = Strip(np.column_stack([shoulder, (0.25 * self.depth, 0.42 * self.depth, 0.05 * self.depth)]), 13)
        for number, (outline, along) in enumerate(feathers):
            tone = darker(colour, 0.10 + 0.14 * along) if number % 2 else darker(colour, 0.02 + 0.14 * along)
            if marks["wing_pattern"] == "multi-colored" and 0.1 < along < 0.6:
                tone = accent
            canvas.fill(outline, tone, part, 128 * (0.80 + 0.25 * light * (number % 2)))
            canvas.line(outline[half:], edge, 0.006)
        canvas.fill(scapulars.outline(), darker(colour, 0.06), part, 128 * light)
        roots = np.stack([0.5 * (outline[0] + outline[-1]) for outline, _ in feathers])
        tips = np.stack([0.5 * (outline[half - 1] + outline[half]) for outline, _ in feathers])
        for reach, tone in ((0.56, darker(colour, 0.05)), (0.34, lighter(colour, 0.07))):      # rows of coverts
            row = roots + (tips - roots) * reach
            canvas.fill(np.concatenate([roots[:1], row, roots[::-1]]), tone, part, 128 * (0.9 + 0.2 * light))
            if marks["wing_pattern"] == "striped":
                outer = roots + (tips - roots) * (reach + 0.07)
                canvas.fill(np.concatenate([row, outer[::-1]]), mark)
            elif marks["wing_pattern"] == "spotted":
                dots = (roots + (tips - roots) * (reach - 0.08))[1:, None, :] + 0.022 * _CIRCLE
                canvas.fill_many(dots, mark)
            else:
                canvas.line(row, edge, 0.006)

    def _paint_head(self, canvas, near: str, far: str) -> None:
        look, head, marks = self.look, self.head, self.look.marks
        crown, forehead, nape = look.colour("crown_color"), look.colour("forehead_color"), look.colour("nape_color")
        throat, pattern = look.colour("throat_color"), marks["head_pattern"]
        towards = head.sin_yaw > 0.35
        if pattern == "crested":
            self._paint_crest(canvas, crown)
        if not towards:
            self._paint_bill(canvas)
        disc = head.disc()
        # CUB has no cheek among its parts: the face between them belongs to none.
        canvas.fill(disc, throat if pattern == "capped" else nape, 0, self._lit(0, -0.35, 0.55))
        canvas.fill(head.patch(0, -54, 165, 72, 2.6), throat, PART["throat"])
        canvas.fill(head.patch(180, -16, 128, 110, 2.6), nape, PART["nape"])
        ring = np.linspace(-180, 180, 41)
        low = 14.0 if pattern == "capped" else 32.0
        points, _ = head.points(ring, low - 14.0 * (ring / 180) ** 4 + 5.0 * np.cos(np.radians(2 * ring)))
        canvas.fill(points, crown, PART["crown"])
        canvas.fill(head.patch(0, 22, 104, 50, 2.4), forehead, PART["forehead"])
        x, y, _ = self.pose.light
        for size, offset, shade in ((0.92, 0.10, self._lit(0, 0, 0.8)), (0.72, 0.22, self._lit(0.3 * x, 0.3 * y, 0.9)),
                                    (0.45, 0.34, self._lit(0.6 * x, 0.6 * y, 0.8))):
            centre = head.centre + offset * head.radius * np.array([x, y])
            canvas.fill(centre + size * (disc - head.centre), None, shade=shade)
        self._paint_face(canvas, crown, nape if pattern != "capped" else throat)
        if towards:
            self._paint_bill(canvas)
        for sign, name in ((1, near), (-1, far)):
            self._paint_eye(canvas, sign, PART[f"{name} eye"])

    def _paint_crest(self, canvas, crown) -> None:
        height = 0.75 if self.look.sex == "male" else 0.55
        forward = np.array([0.55, 0.25, -0.35, -0.95, -1.35, -0.95, -0.85])
        up = np.array([0.72, 1.02, 1.0 + 0.55 * height, 1.0 + 0.9 * height, 0.85 + height, 0.75, 0.30])
        points, _ = self.head.place(forward, up, np.zeros(7))
        canvas.fill(points, crown, PART["crown"], 120)
        points, _ = self.head.place(np.array([0.2, -0.5, -1.25]), np.array([0.9, 1.0 + 0.5 * height, .85 + height]),
                                    np.zeros(3))
        canvas.line(points, darker(crown, 0.3), 0.01)

    def _paint_face(self, canvas, crown, face) -> None:
        """The head patterns of CUB; each on both sides, the far one only as far as it shows."""
        head, pattern, look = self.head, self.look.marks["head_pattern"], self.look
        accent = look.colour(look.species.accent)
        ink = contrasting(face)
        if self.form.front_eyes:                    # the facial discs of an owl
            for side in (1, -1):
                canvas.fill(head.patch(side * 36, 6, 66, 74), darker(look.colour("throat_color"), 0.45))
                canvas.fill(head.patch(side * 36, 6, 59, 67), look.colour("throat_color"))
                canvas.fill(head.patch(side * 36, 8, 40, 46), darker(look.colour("throat_color"), 0.12))
        if pattern == "striped":
            for azimuth in (0, 32, -32):
                if azimuth == 0:
                    points, depth = head.points(np.array([-7.0, 7, 173, 187]), np.array([35.0, 35, 40, 40]))
                    canvas.fill(points, contrasting(crown, light="buff"))
                else:
                    canvas.fill(head.patch(azimuth * 2.4, 38, 140, 14), contrasting(crown))
        if pattern == "spotted":
            a, e = np.meshgrid(np.arange(-160, 161, 32.0), (-25.0, -2.0, 22.0, 45.0, 66.0))
            points, depth = head.points((a + e * 0.3).ravel(), e.ravel())
            shown = points[depth > 0.15]
            canvas.fill_many(shown[:, None, :] + 0.085 * head.radius * _CIRCLE, ink)
        for side in (1, -1):
            if pattern == "eyebrow":
                canvas.fill(head.patch(side * 72, 34, 140, 16, 2.2, -0.06 * side), contrasting(crown, light="white"))
            elif pattern == "eyeline":
                canvas.fill(head.patch(side * 78, 11, 146, 13, 2.2, -0.06 * side), ink)
            elif pattern == "masked":
                canvas.fill(head.patch(side * 58, 8, 116, 36, 2.4), ink)
            elif pattern == "malar":
                canvas.fill(head.patch(side * 52, -36, 78, 20, 2.0, -0.35 * side), contrasting(look.colour("throat_color")))
            elif pattern == "unique_pattern":
                canvas.fill(head.patch(side * 100, -12, 64, 46, 2.2), accent if np.abs(accent - face).sum() > 90 else ink)

    def _paint_eye(self, canvas, sign: int, part: int) -> None:
        head, look, front = self.head, self.look, self.form.front_eyes
        points, depth = head.points(np.array([sign * (36.0 if front else 60.0)]), np.array([13.0]))
        if depth[0] < 0.22:
            return
        size = head.radius * (0.20 if front else 0.165 if self.form.head > 0.15 else 0.20)
        oval = _CIRCLE * size * np.array([0.55 + 0.45 * min(1.0, depth[0] * 1.2), 1.0])
        iris = look.colour("eye_color")
        ringed = look.marks["head_pattern"] == "eyering"
        around = look.colour("nape_color")
        canvas.fill(points + (1.75 if ringed else 1.28) * oval,
                    contrasting(around, light="white") if ringed else darker(around, 0.5))
        canvas.fill(points + oval, iris, part, 122)
        canvas.fill(points + (0.60 if luminance(iris) > 60 else 0.8) * oval, (14, 12, 14))
        canvas.fill(points + 0.28 * oval + size * np.array([0.30 * np.sign(self.pose.light[0]), 0.34]), (250, 250, 250))

    def _paint_bill(self, canvas) -> None:
        head, marks = self.head, self.look.marks
        colour = self.look.colour("bill_color")
        length = BILL_LENGTHS[marks["bill_length"]] * (0.55 if self.form.front_eyes else 1.0)
        t = np.linspace(0, 1, 12)
        upper, lower, droop = _bill_profile(marks["bill_shape"], t)
        forward, middle = 0.82 + t * (length + 0.1), -0.12 + droop * (0.5 + 0.5 * length)

        def curve(offset, side=0.0):
            # The bill is part of the skull: it is placed in head radii, undoing the head's own stretch beyond it.
            return head.place(forward / head.stretch * (1 + 0.1 * (1 - t)), middle + offset, np.full(12, side))[0]

        top, centre, bottom = curve(upper), curve(0.0), curve(-lower)
        canvas.fill(np.concatenate([top, bottom[::-1]]), colour, PART["beak"], self._lit(0.3, 0.5, 0.7))
        if abs(head.cos_yaw) < 0.45 and head.sin_yaw > 0:      # coming towards us: its breadth shows
            left, right = centre[0] + (curve(0.0, -1.0)[0] - centre[0]) * 0.24, centre[0] + (
                curve(0.0, 1.0)[0] - centre[0]) * 0.24
            tip = centre[-1] - (0, 0.10 * head.radius)
            canvas.fill(np.array([left, bottom[0], right, tip]), darker(colour, 0.25), PART["beak"])
            canvas.fill(np.array([left, top[0], right, tip]), lighter(colour, 0.06), PART["beak"], self._lit(.3, .4, .8))
            return
        canvas.fill(np.concatenate([centre, bottom[::-1]]), darker(colour, 0.16))
        canvas.line(top[1:10] * 0.8 + centre[1:10] * 0.2, lighter(colour, 0.30), 0.008)
        canvas.line(centre[:10], darker(colour, 0.5), 0.007)


def _bill_profile(shape: str, t):
    """Heights of the two mandibles above and below the gape line, and the droop of that line, in head radii."""
    taper = 1 - t
    flat = np.zeros_like(t)
    if shape == "cone":
        return 0.34 * taper**0.85 + 0.015, 0.28 * taper**0.9 + 0.01, flat
    if shape == "dagger":
        return 0.19 * taper**0.8 + 0.01, 0.15 * taper**0.8 + 0.01, flat
    if shape == "needle":
        return 0.085 * taper**0.5 + 0.02, 0.065 * taper**0.5 + 0.015, flat
    if shape == "curved_(up_or_down)":
        return 0.15 * taper**0.7 + 0.02, 0.12 * taper**0.7 + 0.02, -0.34 * t**2
    if shape == "hooked":
        return 0.32 * taper**0.55 + 0.02, 0.17 * taper**0.7 + 0.01 - 0.05 * t, -0.42 * t**3
    if shape == "hooked_seabird":
        return 0.20 * taper**0.4 + 0.03, 0.15 * taper**0.7 + 0.01, -0.26 * np.maximum(t - 0.72, 0) / 0.28
    if shape == "spatulate":
        return 0.30 * taper**1.4 + 0.11 * np.sqrt(np.maximum(1 - t**8, 0)), 0.14 * np.sqrt(np.maximum(1 - t**6, 0)), -0.12 * t
    if shape == "specialized":      # crossed tips
        return 0.28 * taper**0.6 + 0.02, 0.22 * taper**0.6 + 0.06 * t, -0.20 * t**2
    return 0.21 * taper**0.7 + 0.015, 0.16 * taper**0.8 + 0.01, -0.06 * t**2      # all-purpose


_CIRCLE = np.stack([np.cos(np.linspace(0, 2 * np.pi, 16, endpoint=False)),
                    np.sin(np.linspace(0, 2 * np.pi, 16, endpoint=False))], axis=1)


def _dots(strip: Strip, s, t, radius: float) -> np.ndarray:
    """(n, 16, 2) round spots at (s, t) on a strip, those that would reach over its edge left out."""
    inside = np.abs(t) < 0.93
    return strip.at(np.asarray(s)[inside], np.asarray(t)[inside])[:, None, :] + radius * _CIRCLE


def _lozenges(strip: Strip, s, t, half_length: float, half_width: float) -> np.ndarray:
    """(n, 6, 2) small drops at (s, t) on a strip; half_length in s, half_width in t."""
    s, t = np.asarray(s, dtype=np.float32), np.asarray(t, dtype=np.float32)
    ds = half_length * np.array([-1.0, -0.3, 0.5, 1.0, 0.5, -0.3], dtype=np.float32)
    dt = half_width * np.array([0.0, 0.8, 1.0, 0.0, -1.0, -0.8], dtype=np.float32)
    points = strip.at((s[:, None] + ds).ravel(), np.clip(t[:, None] + dt, -1, 1).ravel())
    return points.reshape(-1, 6, 2)
