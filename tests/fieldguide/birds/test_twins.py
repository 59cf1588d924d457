"""Twins of birds: one mark or the scene is exchanged, and nothing else moves."""

import dataclasses

import cv2
import numpy as np
import pytest

import fieldguide
from fieldguide.birds import photographs as module
from fieldguide.birds.attributes import VOCABULARY
from fieldguide.birds.canvas import PART, SUPERSAMPLE, Canvas
from fieldguide.birds.drawing import paint
from fieldguide.birds.photographs import field_photograph, portrait, take
from fieldguide.birds.posture import Bird
from fieldguide.birds.scenes import paint_occluders
from fieldguide.birds.species import make_species
from fieldguide.birds.twins import EXCHANGEABLE, other_values, scene_twin, twin
from fieldguide.exchange import NoTwin

SIZE = 144
# Where each mark is drawn: CUB's parts, and "face" for what of the head is none of them.
SIDES = ("left", "right")
HEAD = ("crown", "forehead", "nape", "throat", "left eye", "right eye", "face")
SHOWN_ON = {
    "wing": [f"{side} wing" for side in SIDES],
    "leg": [f"{side} leg" for side in SIDES],
    "eye": [f"{side} eye" for side in SIDES],
    "bill": ["beak"],
    "upper_tail": ["tail"],
    "under_tail": ["tail"],
    "head": HEAD,
    "nape": ["nape", "face"],
    "throat": ["throat", "face"],
}


@pytest.fixture(scope="module")
def pictures():
    """Birds of several forms, of both difficulties."""
    made = []
    for difficulty, rows in (("standard", (0, 14, 22, 45, 77)), ("hard", (5, 61))):
        species = make_species(100, 0, difficulty)
        made += [field_photograph(species[row], (0, row, 9), SIZE, difficulty) for row in rows]
    return made


def flat(individual, sitting) -> Canvas:
    """The bird alone, as it is painted before light, scene and lens."""
    canvas = Canvas(sitting.size, sitting.scale, sitting.origin, sitting.flip)
    paint(Bird(individual, sitting.pose), canvas, sitting.streams)
    return canvas


def grown(mask, pixels: float) -> np.ndarray:
    """Where the distance, in the larger of x and y, to the mask is at most so many pixels."""
    if not mask.any():
        return mask
    return cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_C, 3) <= pixels


def blurred_by(sitting) -> float:
    """Pixels: a Gaussian kernel of OpenCV ends at three standard deviations, rounded up."""
    return sum(np.ceil(3 * sigma) + 1 for sigma in (sitting.blur, sitting.defocus) if sigma)


def first_twin(picture, mark, rng):
    """With the first value that can be exchanged; None without one."""
    for value in other_values(picture, mark, (), rng):
        try:
            return twin(picture, mark, value)
        except NoTwin:
            continue
    return None


@pytest.mark.parametrize("mark", EXCHANGEABLE)
def test_one_mark_is_exchanged_and_nothing_else_moves(pictures, mark):
    rng, made = np.random.default_rng(0), 0
    names = SHOWN_ON.get(mark.rsplit("_", 1)[0], [mark.rsplit("_", 1)[0]])
    for picture in pictures:
        pair = first_twin(picture, mark, rng)
        if pair is None:
            continue
        value = pair.other_value
        made += 1
        first, second, sitting = pair.first, pair.second, picture.sitting
        assert first is picture and (pair.mark, pair.other_value) == (mark, value)
        assert pair.value == first.individual.marks[mark] != value
        assert second.individual.marks == first.individual.marks | {mark: value}
        assert np.array_equal(pair.changed, (first.image != second.image).any(axis=2))

        # What is painted otherwise, seen alone; light and lens carry it no further than known.
        canvases = [flat(one.individual, sitting) for one in (first, second)]
        apart = np.abs(canvases[0].colour.astype(int) - canvases[1].colour).max(axis=2)
        apart = apart.reshape(SIZE, SUPERSAMPLE, SIZE, SUPERSAMPLE).max(axis=(1, 3))
        shaded = canvases[0].shade != canvases[1].shade
        known = grown(apart > 0, blurred_by(sitting))
        density = np.abs(
            canvases[0].colour[..., 3].astype(int) - canvases[1].colour[..., 3]
        ).reshape(SIZE, SUPERSAMPLE, SIZE, SUPERSAMPLE)
        outline = density.any(axis=(1, 3))
        soft = 3 * max(0.8, 0.035 * sitting.scale) + 2 + blurred_by(sitting)
        known |= grown(outline | shaded, soft)
        assert not (pair.changed & ~known).any()
        if not mark.endswith(("shape", "length")) and mark != "head_pattern":
            # Where two edges meet, paint may lie a trace thicker.
            assert density.max() < 16 and not shaded.any()

        # The map of parts agrees, drawn by itself: only the mark's own parts are painted anew.
        # It has no slivers, such as a broad wing's edge above the back.
        numbers = [PART.get(name, len(PART) + 1) for name in names]
        parts = np.isin(canvases[0].parts, numbers) | np.isin(canvases[1].parts, numbers)
        painted = apart > 40
        assert (painted & ~grown(parts, 3)).sum() <= 5 + 0.02 * painted.sum()
        visible = parts & (first.mask | second.mask)
        assert (pair.shown & ~visible).sum() == 0 and pair.shown.any()

        # Inside they differ: whatever is painted otherwise all around a visible pixel.
        clear = ~grown(apart < 60, 2) & ~grown(~(first.mask & second.mask), blurred_by(sitting))
        if clear.sum() > 20:
            assert pair.changed[clear].mean() > 0.97
    assert made >= 4


@pytest.mark.slow
def test_almost_every_exchange_can_be_made(pictures):
    """A mark drawn outside its part would be refused: that must stay rare."""
    rng, refused, all_of_them = np.random.default_rng(1), [], 0
    for picture in pictures[:4]:
        for mark in EXCHANGEABLE:
            for value in other_values(picture, mark, (), rng)[:1]:
                all_of_them += 1
                try:
                    twin(picture, mark, value)
                except NoTwin as reason:
                    refused.append(str(reason))
    assert all_of_them > 80 and len(refused) < 0.15 * all_of_them, refused


def test_siblings_values_come_first_and_a_value_is_another(pictures):
    species = make_species(100, 0, "standard")
    family = [one for one in species if one.family == species[0].family]
    picture, rng = pictures[0], np.random.default_rng(0)
    for mark in EXCHANGEABLE:
        values = other_values(picture, mark, family, rng)
        assert picture.individual.marks[mark] not in values and len(set(values)) == len(values)
        assert species[0].marks[mark] not in values and set(values) <= set(VOCABULARY[mark])
        theirs = {one.marks[mark] for one in family} & set(values)
        assert set(values[: len(theirs)]) == theirs


def test_another_scene_leaves_the_bird(pictures):
    for picture in pictures:
        pair = scene_twin(picture)
        first, second, sitting = pair.first, pair.second, picture.sitting
        assert (pair.mark, pair.value, pair.other_value) == ("scene", "", "")
        assert np.array_equal(first.mask, second.mask) and np.array_equal(first.parts, second.parts)
        assert np.array_equal(pair.shown, ~first.mask)
        opaque = flat(first.individual, sitting).colour[..., 3] == 255
        opaque = opaque.reshape(SIZE, SUPERSAMPLE, SIZE, SUPERSAMPLE).all(axis=(1, 3))
        hidden = paint_occluders(
            np.zeros((SIZE, SIZE, 3), np.uint8), sitting.streams("occluders"), sitting.occluders, 0
        )
        own = ~grown(~(opaque & ~hidden), blurred_by(sitting))
        assert not pair.changed[own].any() and pair.changed[~grown(first.mask, 6)].mean() > 0.5
        assert (own.any() and not own.all()) or sitting.defocus
        third = scene_twin(picture, 2).second
        assert (third.image != second.image).any() and (third.parts == second.parts).all()


@pytest.mark.parametrize("group", ["look", "pose", "scene", "occluders", "paint", "camera"])
def test_an_exchanged_group_of_streams_moves_nothing_of_the_others(pictures, group):
    for picture in pictures[:3]:
        sitting = picture.sitting
        other = module._arrange(
            picture.individual.species, sitting.streams.exchange(group), SIZE, sitting.conditions
        )
        same = {
            "look": other.individual == picture.individual,
            "pose": dataclasses.replace(other.pose, light=sitting.pose.light) == sitting.pose,
            "occluders": (other.occluders, other.defocus) == (sitting.occluders, sitting.defocus),
            "camera": (other.blur, other.pose.light) == (sitting.blur, sitting.pose.light),
        }
        assert all(kept for name, kept in same.items() if name != group)
        if group in ("scene", "occluders", "paint"):
            changed = (take(other).image != picture.image).any(axis=2)
            assert changed.any()
            if group == "paint":
                far = ~grown(flat(picture.individual, sitting).parts > 0, 3 + blurred_by(sitting))
                assert not changed[far].any()


def test_the_same_again_in_any_order(pictures):
    species = make_species(100, 0, "standard")
    values = [("crown_color", "red"), ("tail_pattern", "spotted"), ("bill_color", "white")]
    one = field_photograph(species[14], (0, 14, 9), SIZE)
    forth = [twin(one, mark, value).second.image for mark, value in values]
    again = field_photograph(species[14], (0, 14, 9), SIZE)
    back = [twin(again, mark, value).second.image for mark, value in reversed(values)][::-1]
    assert all(np.array_equal(*pair) for pair in zip(forth, back, strict=True))
    assert np.array_equal(take(one.sitting).image, pictures[1].image)


# ---- what cannot be exchanged


def made_with(picture, pose=None, accent=None, **marks):
    """The picture with another pose, accent or other marks."""
    sitting, individual = picture.sitting, picture.individual
    species = dataclasses.replace(individual.species, accent=accent or individual.species.accent)
    individual = dataclasses.replace(individual, species=species, marks=individual.marks | marks)
    pose = dataclasses.replace(sitting.pose, **(pose or {}))
    return take(dataclasses.replace(sitting, individual=individual, pose=pose, occluders=0))


def test_what_is_refused_and_why(pictures):
    side = {"head_yaw": 0.0, "head_pitch": 0.0, "roll": 0.0, "wing": "folded", "wing_angle": 0.0}
    away = made_with(pictures[0], {**side, "head_yaw": -90.0})
    plain = made_with(
        pictures[0], side, "red", head_pattern="spotted", nape_color="white", wing_color="red"
    )
    for picture, mark, value, message in (
        (
            away,
            "eye_color",
            "white",
            "eye_color: left eye and right eye not visible in this picture",
        ),
        (plain, "wing_color", "red", "wing_color is red in this picture already"),
        (plain, "nape_color", "black", "nape_color black would change the head pattern's colour"),
    ):
        with pytest.raises(NoTwin, match=message):
            twin(picture, mark, value)
    red = {"upper_tail_color": "red", "under_tail_color": "red"}
    solid = made_with(pictures[0], side, "red", tail_pattern="solid", **red)
    with pytest.raises(
        NoTwin, match="multi-colored instead of solid is not to be seen: give anoth"
    ):
        twin(solid, "tail_pattern", "multi-colored")


def test_wrong_input(pictures):
    with pytest.raises(ValueError, match="mark must be one of bill_shape, wing_color, .*'size'"):
        twin(pictures[0], "size", "large_(16_-_32_in)")
    with pytest.raises(ValueError, match="bill_color must be one of blue, brown, .* not 'mauve'"):
        twin(pictures[0], "bill_color", "mauve")
    with pytest.raises(ValueError, match="number must be a whole number of at least 1, not 0"):
        scene_twin(pictures[0], 0)
    clean = portrait(make_species(2, 0, "standard")[0], 64)
    for call in (lambda: twin(clean, "bill_color", "red"), lambda: scene_twin(clean)):
        with pytest.raises(ValueError, match="a portrait has no twin: give a photograph made by"):
            call()


@pytest.mark.parametrize("row", [3, 30, 58])
def test_a_larger_picture_shows_the_same(row):
    """Drawn at twice the side and made smaller, it is the smaller picture but for its texture."""
    one = make_species(100, 0, "standard")[row]
    small, large = (field_photograph(one, (0, row, 2), size) for size in (112, 224))
    assert small.sitting.pose == large.sitting.pose
    less = cv2.resize(large.image, (112, 112), interpolation=cv2.INTER_AREA)
    soft = [cv2.GaussianBlur(image, (0, 0), 2).astype(int) for image in (small.image, less)]
    assert np.abs(soft[0] - soft[1]).mean() < 5
    halved = large.mask[::2, ::2]
    assert (small.mask & halved).sum() > 0.9 * (small.mask | halved).sum()


def test_many_twins_by_name():
    made = list(fieldguide.twins(12, size=96, seed=3))
    assert len(made) == 12 and all(one.mark in EXCHANGEABLE for one in made)
    assert [one.base for one in made] == sorted(one.base for one in made)
    for base in {one.base for one in made}:
        alike = [one for one in made if one.base == base]
        assert len({one.mark for one in alike}) == len(alike) <= 5
        assert all(one.image is alike[0].image for one in alike)
    for one in made:
        assert one.image.shape == one.other.shape == (96, 96, 3) and one.image.dtype == np.uint8
        assert np.array_equal(one.changed, (one.image != one.other).any(axis=2))
        assert one.changed.any() and one.bird.dtype == one.changed.dtype == bool
        assert one.value != one.other_value and one.part.split("; ")[0] in (*PART, "face")
        assert one.left_out >= 0
    again = list(fieldguide.twins(5, size=96, seed=3))
    for one, other in zip(made, again, strict=False):
        assert np.array_equal(one.other, other.other)


def test_twins_of_some_marks_only():
    made = list(fieldguide.twins(4, size=96, marks=["crown_color", "bill_color"]))
    assert {one.mark for one in made} <= {"crown_color", "bill_color"} and len(made) == 4
    assert list(fieldguide.twins(0)) == []
    for marks, message in ((["size"], "size"), (["crown_colour"], "crown_color"), ([], "marks")):
        with pytest.raises(ValueError, match=message):
            fieldguide.twins(1, marks=marks)
    with pytest.raises(ValueError, match="count"):
        fieldguide.twins(-1)
    with pytest.raises(ValueError, match="size"):
        fieldguide.twins(1, size=3)
