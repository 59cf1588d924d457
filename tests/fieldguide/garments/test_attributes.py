"""A catalogue of garments is sound."""

from collections import Counter

from fieldguide.garments.attributes import ATTRIBUTE_NAMES, KINDS, VOCABULARY, make_garments
from fieldguide.garments.fabrics import COLOURS


def test_catalogue_is_sound_and_items_of_one_kind_and_colour_differ():
    garments = make_garments(600, 0)
    assert garments[:50] == make_garments(50, 0) and garments != make_garments(600, 1)
    assert len(set(ATTRIBUTE_NAMES)) == len(ATTRIBUTE_NAMES)
    for one in garments:
        own = one.attributes()
        assert len(own) == len(set(own)) and set(own) <= set(ATTRIBUTE_NAMES)
        for group in ("colour", "pattern", "material", "style"):
            assert sum(name in VOCABULARY[group] for name in own) == 1
        if one.semantic in ("tops", "outerwear", "all-body"):
            assert sum(name in VOCABULARY["sleeve"] for name in own) == 1
    semantics = Counter(one.semantic for one in garments)
    assert (
        set(semantics) == {kind.semantic for kind in KINDS.values()}
        and min(semantics.values()) >= 30
    )
    assert {one.kind for one in garments} == set(KINDS) and {one.colour for one in garments} == set(
        COLOURS
    )
    # Retrieval is a task: many garments share kind and colour with another.
    shared = Counter((one.kind, one.colour) for one in garments)
    assert sum(count for count in shared.values() if count > 1) > 300
