"""The species of Fieldguide: families of look-alike siblings, and what sex and age change.

A species is a table of 25 *marks*, one value for each of 25 of CUB's 28 attribute groups. The other
three groups (upperparts, underparts and primary colour) follow from them. Siblings of a family
share all marks but three, and the values of those three form a code of distance two, so any two
siblings differ in two or three marks; in the hard guide they share all but two, and differ in one
or two.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fieldguide.birds.attributes import COLOURS, HEAD_PATTERNS, MARKS, PATTERNS, VOCABULARY
from fieldguide.birds.bodies import FORMS, Form

# Marks in which siblings may differ, with how often they do: mostly broad ones, in the hard guide
# mostly small ones.
DIAGNOSTIC = {
    "standard": {
        "crown_color": 6,
        "throat_color": 4,
        "breast_color": 6,
        "belly_color": 5,
        "back_color": 5,
        "wing_color": 6,
        "upper_tail_color": 3,
        "nape_color": 4,
        "breast_pattern": 4,
        "belly_pattern": 2,
        "back_pattern": 2,
        "wing_pattern": 6,
        "tail_pattern": 1,
        "head_pattern": 4,
        "bill_color": 1,
        "bill_length": 1,
        "leg_color": 1,
        "forehead_color": 1,
        "tail_shape": 1,
    },
    "hard": {
        "crown_color": 2,
        "throat_color": 3,
        "breast_pattern": 2,
        "belly_pattern": 2,
        "back_pattern": 1,
        "wing_pattern": 2,
        "tail_pattern": 2,
        "head_pattern": 3,
        "bill_color": 3,
        "bill_length": 2,
        "leg_color": 3,
        "forehead_color": 3,
        "nape_color": 2,
        "under_tail_color": 2,
        "eye_color": 2,
    },
}
FAMILY_SIZES = {"standard": (3, 4), "hard": (4, 5, 6)}
VALUES_PER_MARK = 3  # a family uses three values of each diagnostic mark
DISTANCE_BETWEEN_FAMILIES = 4

# Typical sRGB of each colour name on plumage and on bare parts.
PALETTE = {
    "blue": (74, 112, 166),
    "brown": (112, 82, 58),
    "iridescent": (30, 86, 84),
    "purple": (98, 72, 118),
    "rufous": (154, 84, 46),
    "grey": (132, 135, 138),
    "yellow": (224, 188, 62),
    "olive": (118, 118, 66),
    "green": (84, 120, 68),
    "pink": (214, 152, 154),
    "orange": (214, 122, 50),
    "black": (38, 37, 40),
    "white": (238, 235, 226),
    "red": (172, 46, 40),
    "buff": (212, 184, 142),
}
DULL = ("brown", "olive", "buff", "grey")
UPPER = (
    "brown",
    "olive",
    "grey",
    "blue",
    "black",
    "green",
    "rufous",
    "buff",
    "iridescent",
    "purple",
)
UNDER = ("white", "buff", "yellow", "grey", "orange", "pink", "red", "rufous", "olive")
DARK = ("black", "grey", "brown")
ACCENTS = (
    "red",
    "yellow",
    "orange",
    "white",
    "black",
    "rufous",
    "blue",
    "buff",
    "pink",
    "purple",
    "green",
)
LEGS = ("black", "grey", "pink", "orange", "yellow", "brown", "red", "olive", "blue")
BILLS = ("black", "grey", "orange", "yellow", "pink", "brown", "red", "white", "blue")
EYES = ("black", "brown", "red", "yellow", "orange", "white", "rufous", "blue")
# How often a founder has each of them: browns and greys are the common coat of birds.
UPPER_SHARES = (0.20, 0.13, 0.16, 0.10, 0.13, 0.08, 0.09, 0.04, 0.04, 0.03)
UNDER_SHARES = (0.25, 0.19, 0.14, 0.12, 0.07, 0.05, 0.05, 0.08, 0.05)
LEG_SHARES = (0.24, 0.18, 0.13, 0.12, 0.11, 0.12, 0.05, 0.03, 0.02)
BILL_SHARES = (0.30, 0.20, 0.13, 0.12, 0.07, 0.10, 0.05, 0.02, 0.01)
EYE_SHARES = (0.44, 0.20, 0.08, 0.11, 0.07, 0.03, 0.05, 0.02)
CANDIDATES = {
    "crown_color": ACCENTS + DARK,
    "forehead_color": ACCENTS + DARK,
    "nape_color": UPPER + ACCENTS,
    "throat_color": UNDER + ACCENTS,
    "breast_color": UNDER + ACCENTS,
    "belly_color": UNDER + DARK,
    "back_color": UPPER,
    "wing_color": UPPER + ("white",),
    "upper_tail_color": UPPER + ("white", "rufous"),
    "under_tail_color": UNDER + DARK,
    "leg_color": LEGS,
    "bill_color": BILLS,
    "eye_color": EYES,
}
# How far apart in RGB the alternatives of a mark are: at least in the standard guide, at most in
# the hard one.
CONTRAST = {"standard": 100.0, "hard": 150.0}

PREFIXES = (
    "Alder",
    "Amber",
    "Aspen",
    "Brook",
    "Cedar",
    "Cliff",
    "Coral",
    "Dell",
    "Dune",
    "Elm",
    "Fen",
    "Fern",
    "Glade",
    "Glen",
    "Harbor",
    "Hazel",
    "Heath",
    "Island",
    "Juniper",
    "Lake",
    "Larch",
    "Marsh",
    "Meadow",
    "Mesa",
    "Moor",
    "Orchard",
    "Prairie",
    "Ravine",
    "Reed",
    "Ridge",
    "River",
    "Sage",
    "Shore",
    "Spruce",
    "Summit",
    "Thicket",
    "Tundra",
    "Vale",
    "Willow",
    "Wood",
)
COLOUR_EPITHETS = {
    "crown_color": "crowned",
    "throat_color": "throated",
    "breast_color": "breasted",
    "belly_color": "bellied",
    "back_color": "backed",
    "wing_color": "winged",
    "upper_tail_color": "tailed",
    "under_tail_color": "vented",
    "nape_color": "naped",
    "bill_color": "billed",
    "leg_color": "legged",
    "forehead_color": "fronted",
    "eye_color": "eyed",
}
PATTERN_EPITHETS = {
    "solid": "Plain",
    "spotted": "Spot",
    "striped": "Streak",
    "multi-colored": "Patch",
}
HEAD_EPITHETS = {
    "spotted": "Speckle_headed",
    "malar": "Moustached",
    "crested": "Crested",
    "masked": "Masked",
    "unique_pattern": "Cheeked",
    "eyebrow": "Browed",
    "eyering": "Spectacled",
    "plain": "Plain_headed",
    "eyeline": "Eyelined",
    "striped": "Stripe_headed",
    "capped": "Capped",
}
OTHER_EPITHETS = {
    "about_the_same_as_head": "Common",
    "longer_than_head": "Long_billed",
    "shorter_than_head": "Short_billed",
    "forked_tail": "Fork_tailed",
    "rounded_tail": "Round_tailed",
    "notched_tail": "Notch_tailed",
    "fan-shaped_tail": "Fan_tailed",
    "pointed_tail": "Point_tailed",
    "squared_tail": "Square_tailed",
}
PLACES = (
    "Northern",
    "Southern",
    "Eastern",
    "Western",
    "Lesser",
    "Greater",
    "Upland",
    "Lowland",
    "Coastal",
    "Inland",
)


@dataclass(frozen=True)
class Species:
    """One species; `marks` maps each group of MARKS to its value."""

    name: str  # as in a CUB folder, without the number: "Rufous_crowned_Dune_Warbler"
    family: str
    marks: dict[str, str]
    diagnostic: tuple[str, ...]  # the groups in which its family differs
    accent: str  # the second colour of whatever is multi-coloured
    dimorphic: bool  # females are duller
    female_marks: dict[str, str]
    tint: tuple[float, ...]  # (45,) the family's own shade of each colour, RGB offsets
    difficulty: str

    @property
    def form(self) -> Form:
        return FORMS[self.marks["shape"]]


@dataclass(frozen=True)
class Individual:
    """One individual: the marks it shows, and how faded its plumage is."""

    species: Species
    marks: dict[str, str]
    sex: str  # "male" or "female"
    age: str  # "adult" or "juvenile"
    fade: float  # 0 full colour .. 1 no colour left
    buff: float  # 0 .. 1, share of buff mixed in

    def colour(self, group_or_name: str) -> np.ndarray:
        """sRGB (3,) float of a colour group of this individual ("breast_color") or of a name."""
        return self._palette[COLOURS.index(self.marks.get(group_or_name, group_or_name))]

    @cached_property
    def _palette(self) -> np.ndarray:
        """(15, 3) this individual's shade of every colour."""
        colour = np.array([PALETTE[name] for name in COLOURS]) + np.reshape(
            self.species.tint, (-1, 3)
        )
        grey = colour @ np.array([[0.30], [0.59], [0.11]])
        colour = colour + self.fade * (grey - colour)
        colour = colour + self.buff * (np.array(PALETTE["buff"]) - colour)
        return np.clip(colour, 0, 255).astype(np.float32)


def marks_apart(first: Species, second: Species) -> int:
    """In how many of the 25 marks two species differ."""
    return sum(first.marks[group] != second.marks[group] for group in MARKS)


def make_species(classes: int, seed: int, difficulty: str) -> list[Species]:
    """The species table, in class order, families together; no family lies in both halves.

    Any two siblings differ in two or three marks ("hard": one or two), species of different
    families in at least four.
    """
    rng = np.random.default_rng([seed, 0xB12D])
    species: list[Species] = []
    family_names: set[str] = set()
    forms = _endless_forms(rng)
    for half in (classes // 2, classes - classes // 2):
        for size in _family_sizes(half, difficulty, rng):
            while True:
                family = _family(next(forms), size, difficulty, family_names, rng)
                if all(
                    marks_apart(new, old) >= DISTANCE_BETWEEN_FAMILIES
                    for new in family
                    for old in species
                ):
                    break
            family_names.add(family[0].family)
            species.extend(family)
    return species


def draw_individual(species: Species, rng: np.random.Generator) -> Individual:
    """Draws one individual of a species: its sex and age and what they change."""
    female, juvenile = rng.random() < 0.5, rng.random() < 0.22
    marks, fade, buff = dict(species.marks), 0.0, 0.0
    if female and species.dimorphic:
        marks.update(species.female_marks)
        fade, buff = 0.25, 0.06
    if juvenile:
        if "breast_pattern" not in species.diagnostic:
            marks["breast_pattern"] = "striped"
        if "eye_color" not in species.diagnostic:
            marks["eye_color"] = "brown"
        fade, buff = max(fade, 0.25), buff + 0.20
    return Individual(
        species,
        marks,
        "female" if female else "male",
        "juvenile" if juvenile else "adult",
        fade + 0.10 * rng.random(),
        buff + 0.06 * rng.random(),
    )


def typical(species: Species) -> Individual:
    """An adult male in full colour, as a field guide paints it."""
    return Individual(species, dict(species.marks), "male", "adult", 0.0, 0.0)


def _endless_forms(rng):
    """Forms in shuffled rounds: each body shape once a round, perching birds three times."""
    names = list(FORMS) + ["perching-like"] * 2
    while True:
        for index in rng.permutation(len(names)):
            yield FORMS[names[index]]


def _family_sizes(count: int, difficulty: str, rng) -> list[int]:
    sizes = []
    while count:
        size = min(int(rng.choice(FAMILY_SIZES[difficulty])), count)
        if count - size == 1:  # nobody is left without a sibling
            size += 1
        sizes.append(size)
        count -= size
    return sizes


def _family(form: Form, size: int, difficulty: str, taken_names: set[str], rng) -> list[Species]:
    marks, accent = _founder(form, rng)
    diagnostic = _draw_diagnostic(difficulty, rng)
    values = {
        group: [marks[group], *_alternatives(group, marks, form, difficulty, rng)]
        for group in diagnostic
    }
    name = _family_name(form, taken_names, rng)
    dimorphic = bool(rng.random() < 0.6)
    duller = [
        group
        for group in (
            "crown_color",
            "throat_color",
            "breast_color",
            "back_color",
            "wing_color",
            "forehead_color",
            "nape_color",
        )
        if group not in diagnostic
    ]
    female_marks = (
        {group: str(rng.choice(DULL)) for group in rng.permutation(duller)[:2]} if dimorphic else {}
    )
    tint = tuple(float(x) for x in np.round(rng.normal(0, 7, 3 * len(COLOURS)), 1))
    siblings, epithets = [], set()
    for code in _codewords(size, difficulty, rng):
        own = marks | {
            group: values[group][digit] for group, digit in zip(diagnostic, code, strict=True)
        }
        epithet = _epithet(own, diagnostic, epithets)
        epithets.add(epithet)
        siblings.append(
            Species(
                f"{epithet}_{name}",
                name,
                own,
                diagnostic,
                accent,
                dimorphic,
                female_marks,
                tint,
                difficulty,
            )
        )
    return siblings


def _codewords(size: int, difficulty: str, rng) -> list[tuple[int, ...]]:
    """`size` words of the code (a, b, a + b mod 3), any two of which differ in two or three places.

    "hard": words (a, b), which differ in one or two.
    """
    pairs = [
        divmod(int(word), VALUES_PER_MARK) for word in rng.permutation(VALUES_PER_MARK**2)[:size]
    ]
    if difficulty == "hard":
        return pairs
    return [(a, b, (a + b) % VALUES_PER_MARK) for a, b in pairs]


def _draw_diagnostic(difficulty: str, rng) -> tuple[str, ...]:
    weights = DIAGNOSTIC[difficulty]
    share = np.array(list(weights.values()), dtype=float)
    count = 2 if difficulty == "hard" else 3
    return tuple(
        str(group)
        for group in rng.choice(list(weights), count, replace=False, p=share / share.sum())
    )


def _alternatives(group: str, marks: dict[str, str], form: Form, difficulty: str, rng) -> list[str]:
    """Two more values of a mark; colours differ clearly or, in the hard guide, not too much."""
    if group in CANDIDATES:
        candidates = sorted(set(CANDIDATES[group]) - {marks[group]})
        rgb = {name: np.array(PALETTE[name], dtype=float) for name in COLOURS}
        chosen = [marks[group]]
        for relax in (1.0, 0.6, 0.0):
            for name in rng.permutation(candidates):
                gap = min(float(np.linalg.norm(rgb[str(name)] - rgb[other])) for other in chosen)
                fits = (
                    gap >= CONTRAST["standard"] * relax
                    if difficulty == "standard"
                    else (gap <= CONTRAST["hard"] / max(relax, 1e-3))
                )
                if str(name) not in chosen and fits and len(chosen) < VALUES_PER_MARK:
                    chosen.append(str(name))
        return chosen[1:]
    options = [value for value in VOCABULARY[group] if value != marks[group]]
    return [str(value) for value in rng.permutation(options)[: VALUES_PER_MARK - 1]]


def _founder(form: Form, rng) -> tuple[dict[str, str], str]:
    """A plausible bird of this form: its marks, and the accent colour of its markings."""

    def pick(values, *shares):
        return str(rng.choice(values, p=shares or None))

    upper, under, dark, accent = (
        pick(UPPER, *UPPER_SHARES),
        pick(UNDER, *UNDER_SHARES),
        pick(DARK),
        pick(ACCENTS),
    )
    while under == upper:
        under = pick(UNDER, *UNDER_SHARES)
    while accent in (upper, under):
        accent = pick(ACCENTS)
    crown = pick((upper, accent, dark), 0.45, 0.35, 0.20)
    wing = pick((upper, dark), 0.6, 0.4)
    belly = pick((under, "white", "buff"), 0.6, 0.25, 0.15)
    breast = pick((under, accent, upper), 0.65, 0.22, 0.13)
    marks = {
        "crown_color": crown,
        "forehead_color": pick((crown, accent), 0.75, 0.25),
        "nape_color": pick((upper, crown), 0.6, 0.4),
        "throat_color": pick((under, accent, "white"), 0.5, 0.25, 0.25),
        "breast_color": breast,
        "belly_color": belly,
        "back_color": upper,
        "wing_color": wing,
        "upper_tail_color": pick((wing, upper), 0.6, 0.4),
        "under_tail_color": pick((belly, "white", wing), 0.5, 0.3, 0.2),
        "breast_pattern": pick(PATTERNS, 0.55, 0.15, 0.2, 0.1),
        "belly_pattern": pick(PATTERNS, 0.65, 0.12, 0.15, 0.08),
        "back_pattern": pick(PATTERNS, 0.6, 0.14, 0.18, 0.08),
        "wing_pattern": pick(PATTERNS, 0.3, 0.15, 0.35, 0.2),
        "tail_pattern": pick(PATTERNS, 0.55, 0.08, 0.2, 0.17),
        "head_pattern": pick(HEAD_PATTERNS),
        "bill_shape": pick(form.bills),
        "bill_length": pick(form.bill_lengths),
        "bill_color": pick(BILLS, *BILL_SHARES),
        "leg_color": pick(LEGS, *LEG_SHARES),
        "eye_color": pick(EYES, *EYE_SHARES),
        "tail_shape": pick(form.tails),
        "wing_shape": pick(form.wing_shapes),
        "size": pick(form.sizes),
        "shape": form.shape,
    }
    return marks, accent


def _family_name(form: Form, taken: set[str], rng) -> str:
    prefix = ""
    while True:
        for _ in range(len(PREFIXES)):
            name = f"{prefix}{rng.choice(PREFIXES)}_{rng.choice(form.nouns)}"
            if name not in taken:
                return name
        prefix += f"{rng.choice(PREFIXES)}_"


def _epithet(marks: dict[str, str], diagnostic: tuple[str, ...], taken: set[str]) -> str:
    """What tells this sibling from those already named, in a birder's words."""
    for group in diagnostic:
        value = marks[group]
        if group in COLOUR_EPITHETS:
            epithet = f"{value.capitalize()}_{COLOUR_EPITHETS[group]}"
        elif group == "head_pattern":
            epithet = HEAD_EPITHETS[value]
        elif group.endswith("_pattern"):
            place = COLOUR_EPITHETS.get(group.replace("pattern", "color"), "tailed")
            epithet = f"{PATTERN_EPITHETS[value]}_{place}"
        else:
            epithet = OTHER_EPITHETS[value]
        if epithet not in taken:
            return epithet
    return next(place for place in PLACES if place not in taken)
