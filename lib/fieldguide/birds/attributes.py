"""CUB's attribute vocabulary: 312 names in 28 groups, embedded so that no data is needed."""

from __future__ import annotations

COLOURS = (
    "blue",
    "brown",
    "iridescent",
    "purple",
    "rufous",
    "grey",
    "yellow",
    "olive",
    "green",
    "pink",
    "orange",
    "black",
    "white",
    "red",
    "buff",
)
PATTERNS = ("solid", "spotted", "striped", "multi-colored")
HEAD_PATTERNS = (
    "spotted",
    "malar",
    "crested",
    "masked",
    "unique_pattern",
    "eyebrow",
    "eyering",
    "plain",
    "eyeline",
    "striped",
    "capped",
)
# CUB's attribute groups and their values, in the order of attributes.txt.
VOCABULARY: dict[str, tuple[str, ...]] = {
    "bill_shape": (
        "curved_(up_or_down)",
        "dagger",
        "hooked",
        "needle",
        "hooked_seabird",
        "spatulate",
        "all-purpose",
        "cone",
        "specialized",
    ),
    "wing_color": COLOURS,
    "upperparts_color": COLOURS,
    "underparts_color": COLOURS,
    "breast_pattern": PATTERNS,
    "back_color": COLOURS,
    "tail_shape": (
        "forked_tail",
        "rounded_tail",
        "notched_tail",
        "fan-shaped_tail",
        "pointed_tail",
        "squared_tail",
    ),
    "upper_tail_color": COLOURS,
    "head_pattern": HEAD_PATTERNS,
    "breast_color": COLOURS,
    "throat_color": COLOURS,
    "eye_color": tuple(colour for colour in COLOURS if colour != "iridescent"),
    "bill_length": ("about_the_same_as_head", "longer_than_head", "shorter_than_head"),
    "forehead_color": COLOURS,
    "under_tail_color": COLOURS,
    "nape_color": COLOURS,
    "belly_color": COLOURS,
    "wing_shape": ("rounded-wings", "pointed-wings", "broad-wings", "tapered-wings", "long-wings"),
    "size": (
        "large_(16_-_32_in)",
        "small_(5_-_9_in)",
        "very_large_(32_-_72_in)",
        "medium_(9_-_16_in)",
        "very_small_(3_-_5_in)",
    ),
    "shape": (
        "upright-perching_water-like",
        "chicken-like-marsh",
        "long-legged-like",
        "duck-like",
        "owl-like",
        "gull-like",
        "hummingbird-like",
        "pigeon-like",
        "tree-clinging-like",
        "hawk-like",
        "sandpiper-like",
        "upland-ground-like",
        "swallow-like",
        "perching-like",
    ),
    "back_pattern": PATTERNS,
    "tail_pattern": PATTERNS,
    "belly_pattern": PATTERNS,
    "primary_color": COLOURS,
    "leg_color": COLOURS,
    "bill_color": COLOURS,
    "crown_color": COLOURS,
    "wing_pattern": PATTERNS,
}
ATTRIBUTE_NAMES = tuple(
    f"has_{group}::{value}" for group, values in VOCABULARY.items() for value in values
)
DERIVED = ("upperparts_color", "underparts_color", "primary_color")
MARKS = tuple(group for group in VOCABULARY if group not in DERIVED)


def present_attributes(marks: dict[str, str]) -> dict[str, tuple[str, ...]]:
    """The values present in each of the 28 groups: one a mark, one or several a derived colour."""
    present = {group: (marks[group],) for group in MARKS}
    present["upperparts_color"] = tuple(dict.fromkeys((marks["back_color"], marks["wing_color"])))
    present["underparts_color"] = tuple(
        dict.fromkeys((marks["breast_color"], marks["belly_color"]))
    )
    area = {}
    for group, share in (
        ("back_color", 3),
        ("wing_color", 4),
        ("breast_color", 3),
        ("belly_color", 3),
        ("crown_color", 1),
        ("throat_color", 1),
    ):
        area[marks[group]] = area.get(marks[group], 0) + share
    largest = max(area.values())
    present["primary_color"] = tuple(
        colour for colour, share in area.items() if share >= 0.75 * largest
    )
    return present
