"""Photographs and portraits: their truth, and marks that are seen where they are named."""

import dataclasses

import numpy as np
import pytest

from fieldguide.birds.attributes import MARKS
from fieldguide.birds.canvas import PART
from fieldguide.birds.photographs import field_photograph, portrait
from fieldguide.birds.species import make_species


@pytest.mark.parametrize(
    "group, value, part",
    [
        ("throat_color", "red", "throat"),
        ("crown_color", "blue", "crown"),
        ("breast_color", "purple", "breast"),
        ("belly_color", "orange", "belly"),
        ("back_color", "blue", "back"),
        ("wing_color", "red", "right wing"),
        ("upper_tail_color", "blue", "tail"),
        ("nape_color", "red", "nape"),
        ("forehead_color", "purple", "forehead"),
        ("bill_color", "red", "beak"),
        ("leg_color", "blue", "right leg"),
        ("wing_pattern", "striped", "right wing"),
        ("wing_pattern", "spotted", "right wing"),
        ("tail_pattern", "striped", "tail"),
        ("breast_pattern", "striped", "breast"),
        ("back_pattern", "striped", "back"),
        ("belly_pattern", "spotted", "belly"),
        ("under_tail_color", "red", "tail"),
    ],
)
def test_a_mark_is_seen_where_it_is_named(group, value, part):
    plain = (
        {name: "grey" for name in MARKS if name.endswith("_color")}
        | {name: "solid" for name in MARKS if name.endswith("_pattern")}
        | {"head_pattern": "plain", "eye_color": "black"}
    )
    species = make_species(100, 0, "standard")
    one = next(one for one in species if one.marks["shape"] == "perching-like")
    one = dataclasses.replace(one, marks=one.marks | plain, accent="red")
    other = dataclasses.replace(one, marks=one.marks | {group: value})
    before, after = portrait(one, 160), portrait(other, 160)
    change = np.abs(before.image.astype(int) - after.image).sum(axis=2)
    inside = after.parts == PART[part]
    elsewhere = after.mask & ~inside
    assert change[inside].mean() > 10 and change[inside].mean() > 1.5 * change[elsewhere].mean()


def test_portrait_and_photograph():
    species = make_species(8, 0, "standard")
    clean = portrait(species[0], 120)
    assert clean.image.shape == (120, 120, 3) and (clean.image[0, 0] == (247, 243, 232)).all()
    for one in species:
        photograph = field_photograph(one, (0, 1), 80, "hard")
        assert photograph.image.shape == (80, 80, 3) and photograph.image.dtype == np.uint8
        assert photograph.mask.mean() >= 0.03 and not photograph.parts[~photograph.mask].any()
