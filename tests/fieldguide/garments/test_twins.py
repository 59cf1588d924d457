"""Twins of garments: one attribute is exchanged, and nothing else moves."""

import pickle

import cv2
import numpy as np
import pytest

from fieldguide.exchange import NoTwin
from fieldguide.garments.attributes import KINDS, make_garments
from fieldguide.garments.canvas import Piece
from fieldguide.garments.shots import SHADOWS, layers, photograph
from fieldguide.garments.twins import attribute_twin, attributes_of, backdrop_twin, other_values

SIZE = 112
GARMENTS = make_garments(600, 0)
FIRST = {kind: next(one for one in GARMENTS if one.kind == kind) for kind in KINDS}
# A shadow on the floor, the widest effect: its way and three standard deviations, in pixels.
FARTHEST = SIZE * max(reach / 0.7 + 3 * sigma for reach, sigma, _ in SHADOWS) + 8


def distance(mask) -> np.ndarray:
    return cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_C, 5)


def shapes(garment, view) -> list:
    return [part.outline for part in layers(garment, view) if isinstance(part, Piece)]


@pytest.mark.parametrize("kind", KINDS)
def test_one_attribute_is_exchanged_and_nothing_else_moves(kind):
    one, made = FIRST[kind], set()
    for number, attribute in enumerate(attributes_of(one)):
        for shot in (number % 4, (number + 1) % 4):
            picture = photograph(one, shot, SIZE)
            for value in other_values(one, attribute)[shot % 2 :][:1]:
                try:
                    pair = attribute_twin(picture, attribute, value)
                except NoTwin:
                    continue
                made.add(attribute)
                first, second = pair.first, pair.second
                assert first is picture and second.frame == first.frame
                assert pair.value == attributes_of(one)[attribute] != value == pair.other_value
                assert attributes_of(second.garment) == attributes_of(one) | {attribute: value}
                assert np.array_equal(pair.changed, (first.image != second.image).any(axis=2))
                assert pair.shown.any() and distance(pair.shown)[pair.changed].max() <= FARTHEST
                if attribute in ("colour", "pattern"):  # nothing but the cloth
                    assert distance(pair.shown)[pair.changed].max() <= 20
                    outlines = [shapes(each.garment, first.frame.view) for each in (first, second)]
                    assert all(np.array_equal(*each) for each in zip(*outlines, strict=True))
                    assert np.array_equal(first.mask, second.mask)
                if attribute == "colour":
                    assert not pair.changed[distance(first.mask) > 8].any()
    assert "colour" in made and len(made) > 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("view", ["front", "worn"])
def test_a_detail_leaves_all_other_pieces(kind, view):
    """What is drawn with one detail more, or less, is the rest and that detail."""
    one = FIRST[kind]
    for detail in KINDS[kind].details:
        picture = photograph(one, 0, 64)
        try:
            other = attribute_twin(picture, detail, other_values(one, detail)[0]).second.garment
        except NoTwin:
            continue
        before, after = (
            {pickle.dumps(part) for part in layers(each, view)} for each in (one, other)
        )
        shared = len(before & after) / min(len(before), len(after))
        # A belt takes a coat in, pleats and ruffles are the skirt itself, ribs end every sleeve.
        if detail not in ("belted", "pleated", "ruffled", "ribbed"):
            assert shared > 0.5, detail


def test_the_first_picture_keeps_its_frame_when_the_garment_grows():
    one = FIRST["dress"]
    picture = photograph(one, 0, SIZE)
    for length in other_values(one, "length"):
        assert attribute_twin(picture, "length", length).second.frame == picture.frame


@pytest.mark.parametrize("kind", KINDS)
def test_another_backdrop_leaves_the_garment_and_its_wearer(kind):
    picture = photograph(FIRST[kind], 3, SIZE)
    pairs = []
    for number in range(1, 9):
        try:
            pairs.append(backdrop_twin(picture, number))
        except NoTwin:
            continue
    assert len(pairs) > 2 and len({pair.second.image.tobytes() for pair in pairs}) == len(pairs)
    for pair in pairs:
        assert (pair.mark, pair.value, pair.other_value) == ("backdrop", "", "")
        assert pair.first is picture and np.array_equal(pair.first.mask, pair.second.mask)
        assert np.array_equal(pair.changed, (picture.image != pair.second.image).any(axis=2))
        assert pair.changed[pair.shown].mean() > 0.95
        assert not pair.changed[~pair.shown].any()  # to the bit
        covered = picture.mask & (distance(~picture.mask) > 3)
        assert pair.shown[covered].mean() < 0.05  # edges between pieces


def test_a_wearer_stays_before_another_wall_and_paper_has_no_twin():
    worn = photograph(FIRST["dress"], 1, SIZE)
    found = 0
    for number in range(1, 20):
        try:
            pair = backdrop_twin(worn, number)
        except NoTwin:
            continue
        found += 1
        assert not pair.changed[~pair.shown].any()
        assert (~pair.shown).sum() > 1.1 * worn.mask.sum()  # arms and neck
    assert found
    for shot in (0, 2):
        with pytest.raises(NoTwin, match="backdrop 1 looks like the first"):
            backdrop_twin(photograph(FIRST["dress"], shot, SIZE))
    with pytest.raises(ValueError, match="number must be a whole number of at least 1, not 0"):
        backdrop_twin(worn, 0)


def test_what_cannot_be_exchanged():
    one = FIRST["boots"]
    picture = photograph(one, 0, 64)
    with pytest.raises(ValueError, match="attribute must be one of colour, .* not 'sleeve'"):
        attribute_twin(picture, "sleeve", "longsleeve")
    with pytest.raises(ValueError, match="heel must be one of .* not 'mauve'"):
        attribute_twin(picture, "heel", "mauve")
    with pytest.raises(ValueError, match=f"heel must be one of .* not '{one.heel}'"):
        attribute_twin(picture, "heel", one.heel)
    shirt = next(one for one in GARMENTS if one.kind == "tshirt" and not one.length)
    with pytest.raises(ValueError, match="attribute must be one of"):
        attribute_twin(photograph(shirt, 0, 64), "length", "cropped")
    laced = next(
        one
        for one in GARMENTS
        if one.kind == "boots" and one.has("laced") and not one.has("zipped")
    )
    with pytest.raises(NoTwin, match="zipped present is not to be seen in this picture"):
        attribute_twin(photograph(laced, 0, 64), "zipped", "present")


@pytest.mark.parametrize("kind", ["coat", "sneakers", "tote"])
def test_a_larger_picture_shows_the_same(kind):
    for shot in range(4):
        small, large = (photograph(FIRST[kind], shot, size) for size in (112, 224))
        less = cv2.resize(large.image, (112, 112), interpolation=cv2.INTER_AREA)
        soft = [cv2.GaussianBlur(image, (0, 0), 2).astype(int) for image in (small.image, less)]
        assert np.abs(soft[0] - soft[1]).mean() < 5
        halved = large.mask[::2, ::2]
        assert (small.mask & halved).sum() > 0.9 * (small.mask | halved).sum()
