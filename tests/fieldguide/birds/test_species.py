"""Families of siblings that are close, and no two species alike."""

import re
from itertools import combinations

import numpy as np
import pytest

from fieldguide.birds.attributes import MARKS, VOCABULARY, present_attributes
from fieldguide.birds.species import make_species, marks_apart


@pytest.mark.parametrize("difficulty, near, far", [("standard", 2, 3), ("hard", 1, 2)])
@pytest.mark.parametrize("classes, seed", [(2, 0), (3, 1), (12, 2), (100, 0), (100, 7), (260, 1)])
def test_siblings_are_close_and_no_two_species_are_alike(classes, seed, difficulty, near, far):
    species = make_species(classes, seed, difficulty)
    assert len(species) == classes and len({one.name for one in species}) == classes
    assert len({tuple(one.marks[group] for group in MARKS) for one in species}) == classes
    present = [
        tuple(tuple(sorted(values)) for _, values in sorted(present_attributes(one.marks).items()))
        for one in species
    ]
    assert len(set(present)) == classes
    for first, second in combinations(species, 2):
        if first.family == second.family:
            assert near <= marks_apart(first, second) <= far
        else:
            assert marks_apart(first, second) >= 4
    assert all(re.fullmatch(r"[A-Za-z_\-]+", one.name) for one in species)
    assert all(one.marks[group] in VOCABULARY[group] for one in species for group in MARKS)


def test_both_halves_hold_whole_families_of_siblings():
    for classes in (8, 50, 100, 101):
        species = make_species(classes, 0, "standard")
        halves = species[: classes // 2], species[classes // 2 :]
        families = [{one.family for one in half} for half in halves]
        assert not families[0] & families[1]
        for half in halves:
            sizes = [
                sum(one.family == family for one in half) for family in {one.family for one in half}
            ]
            assert min(sizes) >= 2


def test_at_least_sixty_attributes_vary_between_species():
    table = np.array(
        [
            [
                value in present_attributes(one.marks)[group]
                for group, values in VOCABULARY.items()
                for value in values
            ]
            for one in make_species(100, 0, "standard")
        ]
    )
    assert table.shape == (100, 312)
    assert (table.any(axis=0) & ~table.all(axis=0)).sum() >= 60
