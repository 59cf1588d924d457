"""Pictures of garments show their attributes, and shots of one garment are alike."""

import dataclasses

import cv2
import numpy as np
import pytest

from fieldguide.garments.attributes import make_garments
from fieldguide.garments.fabrics import COLOURS, PALETTE
from fieldguide.garments.shots import photograph


@pytest.mark.parametrize(
    "kind", ["tshirt", "coat", "dress", "pants", "skirt", "sneakers", "pump", "tote", "backpack"]
)
def test_colour_attribute_is_the_colour_of_the_garments_pixels(kind):
    """Plain garments in each colour: the nearest colour of the palette in CIE Lab is its own.

    Its pixels are those that are another colour where the garment is.
    """
    lab = cv2.cvtColor(
        np.array([[PALETTE[name] for name in COLOURS]], np.float32) / 255, cv2.COLOR_RGB2LAB
    )[0]
    one = next(one for one in make_garments(600, 0) if one.kind == kind and one.pattern == "plain")
    picture = {
        name: photograph(dataclasses.replace(one, colour=name, details=()), 0, 64).image
        for name in COLOURS
    }
    apart = np.abs(picture["black"].astype(int) - picture["white"]).min(axis=2)
    cloth = apart > 0.5 * apart.max()
    assert cloth.mean() > 0.02
    right = 0
    for name in COLOURS:
        pixels = np.median(picture[name][cloth], axis=0).astype(np.float32)[None, None] / 255
        distance = np.linalg.norm(lab - cv2.cvtColor(pixels, cv2.COLOR_RGB2LAB)[0, 0], axis=1)
        right += COLOURS[int(distance.argmin())] == name
    assert right >= len(COLOURS) - 3


@pytest.mark.parametrize(
    "kind, change",
    [
        ("tshirt", {"pattern": "striped"}),
        ("shirt", {"pattern": "checkered"}),
        ("dress", {"pattern": "floral"}),
        ("skirt", {"pattern": "dotted"}),
        ("dress", {"length": "maxi"}),
        ("tshirt", {"sleeve": "longsleeve"}),
        ("tshirt", {"neckline": "vneck"}),
        ("boots", {"heel": "heel"}),
        ("boots", {"length": "kneehigh"}),
        ("tote", {"material": "leather"}),
        ("dress", {"material": "knitted"}),
        ("blouse", {"details": ("ruffled",)}),
        ("coat", {"details": ("belted",)}),
        ("handbag", {"details": ("quilted",)}),
        ("jeans", {"details": ("ripped",)}),
        ("sandals", {"heel": "platform"}),
    ],
)
def test_an_attribute_shows(kind, change):
    plain = {"pattern": "plain", "details": ()}
    starts = {
        "dress": {"material": "cotton", "length": "mini", "sleeve": "sleeveless"},
        "tshirt": {"sleeve": "shortsleeve", "neckline": "roundneck"},
        "boots": {"heel": "flat", "length": "ankle"},
        "tote": {"material": "canvas"},
        "sandals": {"heel": "flat"},
    }
    one = next(one for one in make_garments(600, 0) if one.kind == kind)
    one = dataclasses.replace(one, **(plain | starts.get(kind, {})))
    before, after = photograph(one, 0, 96), photograph(dataclasses.replace(one, **change), 0, 96)
    seen = before.mask | after.mask
    difference = np.abs(before.image.astype(int) - after.image).max(axis=2)[seen]
    assert (difference > 12).mean() > 0.02


def test_shots_of_one_garment_are_alike_and_those_of_others_are_not():
    """A garment's shots are nearer to each other in median colour than to those of others."""
    garments = [
        one for one in make_garments(300, 0) if one.semantic == "tops" and one.pattern == "plain"
    ][:20]
    pictures = [[photograph(one, shot, 64) for shot in range(4)] for one in garments]
    colour = np.array(
        [[np.median(picture.image[picture.mask], axis=0) for picture in row] for row in pictures]
    )
    distance = np.linalg.norm(
        colour[:, None, :, None] - colour[None, :, None, :], axis=-1
    )  # (n, n, 4, 4)
    same = distance[np.arange(20), np.arange(20)]
    assert np.median(same[:, 0, 1:]) < 0.4 * np.median(distance[~np.eye(20, dtype=bool)][:, 0, 1:])
    for one in garments[:4]:
        images = [photograph(one, shot, 64).image for shot in range(5)]
        assert all(
            (first != second).any() for k, first in enumerate(images) for second in images[:k]
        )
