import pytest

from fieldmarks.methods.pan import PAN
from fieldmarks.show.names import (
    concept_groups,
    concept_names,
    names_of_concepts,
    readable,
    readable_attribute,
)


@pytest.mark.parametrize(
    "name, expected",
    [
        ("001.Black_footed_Albatross", "Black footed Albatross"),
        ("Boeing_737-200", "Boeing 737-200"),
        ("St. Bernard", "St. Bernard"),
        ("7", "7"),
    ],
)
def test_names_of_classes_lose_their_number_and_underscores(name, expected):
    assert readable(name) == expected


def test_names_of_attributes_tell_what_they_are_about():
    assert readable_attribute("has_bill_shape::dagger") == "bill shape: dagger"
    assert readable_attribute("round_neck") == "round neck"


def test_names_of_concepts_come_in_the_order_of_the_head():
    assert concept_names(["red", "striped"], True, 2) == [
        "red",
        "striped",
        "none of these",
        "concept 1",
        "concept 2",
    ]
    assert concept_names(free=1) == ["concept 1"] and concept_names(["red"]) == ["red"]


def test_a_head_has_a_name_for_each_of_its_concepts():
    attributes = ["has_size::small", "has_size::large"]
    for options, expected in (
        ({"attributes": 2}, ["size: small", "size: large"]),
        (
            {"attributes": 2, "free": 1, "none_slot": True},
            ["size: small", "size: large", "none of these", "concept 1"],
        ),
        ({"free": 2}, ["concept 1", "concept 2"]),
    ):
        assert names_of_concepts(PAN(3, **options), attributes) == expected
    assert names_of_concepts(PAN(3, free=2), None) == ["concept 1", "concept 2"]


def test_concepts_are_grouped_by_what_they_are_about():
    assert concept_groups(["size: small", "bill: long", "concept 1"]) == ["size", "bill", "free"]
    assert concept_groups(["red", "concept 1"]) is None
