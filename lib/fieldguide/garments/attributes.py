"""Garments as lists of attributes: what there is in a wardrobe, and what its attributes are called.

A catalogue is drawn by style: a sporty garment is more often plain and bright, a formal one plain
and subdued, a boho one floral. What a garment's attributes leave open (its cut, the width of its
stripes) comes from its own number.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass, field

import numpy as np

from fieldguide.garments.fabrics import COLOURS, PALETTE, PATTERNS, Fabric, luminance
from fieldguide.streams import Streams

STYLES = ("casual", "formal", "sporty", "boho")
VOCABULARY = {
    "colour": COLOURS,
    "pattern": PATTERNS,
    "material": ("cotton", "denim", "knitted", "leather", "silk", "wool", "suede", "canvas"),
    "sleeve": ("sleeveless", "shortsleeve", "longsleeve"),
    "neckline": ("roundneck", "vneck", "collared", "turtleneck", "hooded"),
    "length": ("cropped", "long", "mini", "midi", "maxi", "ankle", "kneehigh"),
    "heel": ("flat", "heel", "platform"),
    "style": STYLES,
    "detail": (
        "buttoned",
        "zipped",
        "pocketed",
        "belted",
        "laced",
        "quilted",
        "ruffled",
        "pleated",
        "ribbed",
        "chained",
        "tasseled",
        "bowdetailed",
        "ripped",
        "cuffed",
        "embroidered",
        "studded",
    ),
}
ATTRIBUTE_NAMES = tuple(name for names in VOCABULARY.values() for name in names)
NEUTRALS = ("black", "white", "grey", "beige", "brown", "navy")


@dataclass(frozen=True)
class Kind:
    """A fine category. The weights of styles are those of STYLES; details: probability of each."""

    semantic: str
    category: int  # its number in the official categories.csv
    folder: str  # in the in-shop layout
    styles: tuple[float, float, float, float]
    materials: dict[str, float]
    sleeves: tuple[str, ...] = ()
    necklines: tuple[str, ...] = ()
    lengths: tuple[str, ...] = ()
    heels: tuple[str, ...] = ()
    details: dict[str, float] = field(default_factory=dict)
    share: float = 1.0


ALL_SLEEVES, PRINTABLE = VOCABULARY["sleeve"], {"cotton", "knitted", "silk", "wool", "canvas"}
KINDS = {
    "tshirt": Kind(
        "tops",
        21,
        "Tees_Tanks",
        (5, 0, 4, 1),
        {"cotton": 1},
        ("shortsleeve",) * 3 + ("longsleeve",),
        ("roundneck", "roundneck", "vneck"),
        ("cropped", "", "", ""),
        details={"pocketed": 0.25, "embroidered": 0.25},
    ),
    "tank": Kind(
        "tops",
        104,
        "Tees_Tanks",
        (3, 0, 4, 3),
        {"cotton": 3, "silk": 1},
        ("sleeveless",),
        ("roundneck", "vneck"),
        ("cropped", "", ""),
        details={"ruffled": 0.2, "embroidered": 0.2},
        share=0.7,
    ),
    "blouse": Kind(
        "tops",
        17,
        "Blouses_Shirts",
        (1, 4, 0, 4),
        {"silk": 3, "cotton": 2},
        ("longsleeve", "longsleeve", "shortsleeve"),
        ("vneck", "roundneck", "collared"),
        ("",),
        details={"ruffled": 0.5, "bowdetailed": 0.25, "buttoned": 0.4},
    ),
    "shirt": Kind(
        "tops",
        11,
        "Shirts_Polos",
        (4, 5, 0, 1),
        {"cotton": 4, "denim": 1},
        ("longsleeve",) * 3 + ("shortsleeve",),
        ("collared",),
        ("",),
        details={"buttoned": 1.0, "pocketed": 0.5},
    ),
    "sweater": Kind(
        "tops",
        19,
        "Sweaters",
        (4, 2, 1, 2),
        {"knitted": 3, "wool": 1},
        ("longsleeve",),
        ("roundneck", "vneck", "turtleneck"),
        ("cropped", "", ""),
        details={"ribbed": 1.0, "embroidered": 0.15},
    ),
    "hoodie": Kind(
        "tops",
        4496,
        "Sweatshirts_Hoodies",
        (3, 0, 6, 0),
        {"cotton": 1},
        ("longsleeve",),
        ("hooded",),
        ("cropped", "", ""),
        details={"pocketed": 0.8, "zipped": 0.4, "ribbed": 1.0},
        share=0.8,
    ),
    "blazer": Kind(
        "outerwear",
        236,
        "Suiting",
        (1, 8, 0, 1),
        {"wool": 3, "cotton": 1},
        ("longsleeve",),
        ("vneck",),
        ("",),
        details={"buttoned": 1.0, "pocketed": 0.8},
    ),
    "jacket": Kind(
        "outerwear",
        25,
        "Jackets_Vests",
        (4, 0, 5, 1),
        {"leather": 2, "denim": 2, "cotton": 2, "suede": 1},
        ("longsleeve",),
        ("collared", "roundneck"),
        ("cropped", ""),
        details={"zipped": 0.65, "pocketed": 0.8, "quilted": 0.3},
    ),
    "coat": Kind(
        "outerwear",
        24,
        "Jackets_Coats",
        (3, 5, 0, 2),
        {"wool": 4, "cotton": 2, "suede": 1},
        ("longsleeve",),
        ("vneck", "collared"),
        ("long",),
        details={"buttoned": 1.0, "belted": 0.5, "pocketed": 0.8},
    ),
    "cardigan": Kind(
        "outerwear",
        18,
        "Cardigans",
        (5, 1, 0, 4),
        {"knitted": 4, "wool": 1},
        ("longsleeve",),
        ("vneck",),
        ("cropped", "", "long"),
        details={"buttoned": 0.7, "pocketed": 0.4, "ribbed": 1.0},
    ),
    "jeans": Kind(
        "bottoms",
        27,
        "Denim",
        (7, 0, 0, 2),
        {"denim": 1},
        lengths=("long", "long", "ankle"),
        details={"pocketed": 1.0, "cuffed": 0.35, "ripped": 0.25},
    ),
    "pants": Kind(
        "bottoms",
        28,
        "Pants",
        (2, 6, 4, 1),
        {"cotton": 3, "wool": 3},
        lengths=("long", "long", "ankle"),
        details={"pleated": 0.4, "belted": 0.3, "pocketed": 0.6},
    ),
    "shorts": Kind(
        "bottoms",
        29,
        "Shorts",
        (4, 0, 4, 2),
        {"cotton": 3, "denim": 2},
        lengths=("mini",),
        details={"pocketed": 0.6, "cuffed": 0.4, "ruffled": 0.1},
        share=0.8,
    ),
    "skirt": Kind(
        "bottoms",
        7,
        "Skirts",
        (2, 4, 0, 5),
        {"cotton": 3, "silk": 2, "leather": 1, "denim": 1, "wool": 1},
        lengths=("mini", "midi", "maxi"),
        details={"pleated": 0.4, "ruffled": 0.25, "buttoned": 0.25, "belted": 0.2},
        share=1.2,
    ),
    "dress": Kind(
        "all-body",
        3,
        "Dresses",
        (3, 4, 1, 6),
        {"cotton": 3, "silk": 3, "knitted": 1},
        ALL_SLEEVES,
        ("roundneck", "vneck", "collared"),
        ("mini", "midi", "midi", "maxi"),
        details={"belted": 0.4, "ruffled": 0.3, "pleated": 0.3, "buttoned": 0.25},
        share=2.6,
    ),
    "sneakers": Kind(
        "shoes",
        49,
        "Shoes",
        (4, 0, 7, 0),
        {"canvas": 3, "leather": 2, "suede": 1},
        lengths=("", "ankle"),
        heels=("flat", "flat", "platform"),
        details={"laced": 1.0},
    ),
    "pump": Kind(
        "shoes",
        43,
        "Shoes",
        (0, 8, 0, 1),
        {"leather": 3, "suede": 2, "silk": 1},
        heels=("heel",),
        details={"bowdetailed": 0.3, "studded": 0.15},
    ),
    "boots": Kind(
        "shoes",
        42,
        "Shoes",
        (4, 3, 0, 4),
        {"leather": 3, "suede": 2},
        lengths=("ankle", "ankle", "kneehigh"),
        heels=("flat", "heel", "platform"),
        details={"laced": 0.35, "zipped": 0.35, "studded": 0.15},
    ),
    "flats": Kind(
        "shoes",
        47,
        "Shoes",
        (4, 3, 0, 2),
        {"leather": 3, "suede": 2, "canvas": 1},
        heels=("flat",),
        details={"bowdetailed": 0.5, "studded": 0.15},
        share=0.8,
    ),
    "sandals": Kind(
        "shoes",
        46,
        "Shoes",
        (3, 3, 0, 5),
        {"leather": 3, "suede": 2},
        heels=("flat", "heel", "platform"),
        details={"studded": 0.2, "tasseled": 0.25},
        share=0.8,
    ),
    "tote": Kind(
        "bags",
        36,
        "Bags",
        (5, 2, 1, 4),
        {"canvas": 3, "leather": 3},
        details={"tasseled": 0.25, "embroidered": 0.2},
    ),
    "handbag": Kind(
        "bags",
        37,
        "Bags",
        (1, 7, 0, 1),
        {"leather": 4, "suede": 1},
        details={"belted": 0.35, "quilted": 0.25, "zipped": 0.4},
    ),
    "backpack": Kind(
        "bags",
        35,
        "Bags",
        (3, 0, 7, 1),
        {"canvas": 4, "leather": 1},
        details={"zipped": 1.0, "pocketed": 0.8},
        share=0.8,
    ),
    "satchel": Kind(
        "bags",
        260,
        "Bags",
        (5, 1, 0, 5),
        {"leather": 3, "suede": 3},
        details={"tasseled": 0.4, "belted": 0.5},
    ),
    "clutch": Kind(
        "bags",
        38,
        "Bags",
        (0, 6, 0, 2),
        {"leather": 3, "silk": 2, "suede": 1},
        details={"quilted": 0.4, "chained": 0.5, "bowdetailed": 0.2},
        share=0.8,
    ),
}
# Weights of the colours of PALETTE, and of PATTERNS, in each style.
# black, white, grey, beige, brown, navy, blue, turquoise, green, yellow, orange, red, pink, purple
_COLOURS = {
    "casual": (2, 3, 2, 2, 1.5, 2.5, 3, 1, 1.5, 1.5, 1, 1.5, 1, 0.5),
    "formal": (4, 3, 3, 2.5, 1.5, 4, 1, 0.3, 0.7, 0.2, 0.2, 1.2, 0.6, 1),
    "sporty": (2.5, 3, 2.5, 0.3, 0.1, 1.5, 2.5, 2, 1, 2, 2, 2.2, 1, 1),
    "boho": (0.8, 1.5, 0.4, 2.5, 3, 0.8, 0.8, 1.8, 1.8, 1.6, 2, 1.2, 2.2, 1.6),
}
_PATTERNS = {
    "casual": (5, 3, 2, 1, 0.6),
    "formal": (7, 1.2, 1.2, 0.8, 0.1),
    "sporty": (6, 3.5, 0.2, 0.2, 0.1),
    "boho": (3, 0.6, 0.8, 1.4, 5),
}
_DENIMS = {"navy": 4, "blue": 5, "black": 2, "white": 1, "grey": 1}


@dataclass(frozen=True)
class Garment:
    number: int
    kind: str
    style: str
    colour: str
    second: str  # of the print, or of trimmings
    pattern: str
    material: str
    sleeve: str
    neckline: str
    length: str
    heel: str
    details: tuple[str, ...]
    seed: int

    @property
    def semantic(self) -> str:
        return KINDS[self.kind].semantic

    def attributes(self) -> tuple[str, ...]:
        """In the order of ATTRIBUTE_NAMES."""
        own = {
            self.colour,
            self.pattern,
            self.material,
            self.sleeve,
            self.neckline,
            self.length,
            self.heel,
            self.style,
            *self.details,
        }
        return tuple(name for name in ATTRIBUTE_NAMES if name in own)

    def cloth(self) -> str:
        """In words: "navy striped cotton"."""
        pattern = "" if self.pattern == "plain" else f"{self.pattern} "
        return f"{self.colour} {pattern}{self.material}"

    def has(self, detail: str) -> bool:
        return detail in self.details

    def stream(self, name: str) -> np.random.Generator:
        """What attributes leave open: the same numbers in every picture of one garment.

        Each name is for one thing, so that an attribute can be exchanged and the rest stays.
        """
        return Streams((self.seed, self.number))(name)

    def fabric(self) -> Fabric:
        colour = _tinted(self.colour, self.stream("cloth/colour"))
        second = _tinted(self.second, self.stream("cloth/second"))
        rng = self.stream("cloth/print")
        repeats = {
            "striped": (5, 10),
            "checkered": (4, 8),
            "dotted": (5, 9),
            "floral": (7, 12),
        }.get(self.pattern, (6, 7))
        return Fabric(
            colour,
            self.material,
            self.pattern,
            second,
            int(rng.integers(*repeats)),
            int(rng.integers(24)),
        )


def _tinted(name: str, rng) -> tuple[float, float, float]:
    """A colour of the palette, a little lighter or darker, warmer or cooler."""
    hue, saturation, value = colorsys.rgb_to_hsv(*(channel / 255 for channel in PALETTE[name]))
    hue, saturation = hue + rng.normal(0, 0.008), saturation * np.exp(rng.normal(0, 0.07))
    value = value * np.exp(rng.normal(0, 0.045 if value < 0.9 else 0.02))
    rgb = colorsys.hsv_to_rgb(hue % 1, min(saturation, 1), min(value, 0.97))
    return tuple(round(255 * float(channel), 2) for channel in rgb)


def make_garments(count: int, seed: int) -> list[Garment]:
    """A catalogue; garment `number` depends on the seed and its number alone."""
    return [_garment(number, seed) for number in range(count)]


def _garment(number: int, seed: int) -> Garment:
    rng = np.random.default_rng([seed, number])
    # Categories in turn, so that a small catalogue has all; two of five turns of tops are dresses.
    turn, around = number % 5, number // 5
    semantic = (
        "all-body" if around % 5 in (1, 3) else "tops",
        "bottoms",
        "shoes",
        "bags",
        "outerwear",
    )[turn]
    kind = _pick(
        {name: kind.share for name, kind in KINDS.items() if kind.semantic == semantic}, rng
    )
    which = KINDS[kind]
    style = _pick(dict(zip(STYLES, which.styles, strict=True)), rng)
    material = _pick(which.materials, rng)
    if material == "denim":
        colour = _pick(_DENIMS, rng)
    else:
        colour = _pick(dict(zip(COLOURS, _COLOURS[style], strict=True)), rng)
    weights = dict(zip(PATTERNS, _PATTERNS[style], strict=True))
    if (
        material not in PRINTABLE
        or kind in ("blazer", "sneakers", "backpack")
        and rng.random() < 0.7
    ):
        weights = {"plain": 1}
    details = tuple(
        name for name in VOCABULARY["detail"] if rng.random() < which.details.get(name, 0)
    )
    if kind == "jacket" and "zipped" not in details:
        details = tuple(name for name in VOCABULARY["detail"] if name in (*details, "buttoned"))
    if "quilted" in details and material not in ("cotton", "leather"):
        details = tuple(name for name in details if name != "quilted")
    return Garment(
        number,
        kind,
        style,
        colour,
        _second(colour, style, rng),
        _pick(weights, rng),
        material,
        _any(which.sleeves, rng),
        _any(which.necklines, rng),
        _any(which.lengths, rng),
        _any(which.heels, rng),
        details,
        seed,
    )


def _second(colour: str, style: str, rng) -> str:
    """A colour that shows on the first."""
    apart = [
        name for name in COLOURS if abs(luminance(PALETTE[name]) - luminance(PALETTE[colour])) > 55
    ]
    weights = dict(zip(COLOURS, _COLOURS[style], strict=True))
    return _pick(
        {name: weights[name] * (2 if name in ("white", "black", "navy") else 1) for name in apart},
        rng,
    )


def _pick(weights: dict[str, float], rng) -> str:
    shares = np.cumsum(list(weights.values()))
    return list(weights)[int(np.searchsorted(shares, rng.random() * shares[-1], side="right"))]


def _any(values: tuple[str, ...], rng) -> str:
    return values[int(rng.integers(len(values)))] if values else ""
