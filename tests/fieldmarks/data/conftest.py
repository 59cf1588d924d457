"""Small trees in official formats that several files of tests read."""

import json
from pathlib import Path

import pytest

from helpers.layout_trees import cub_tree, inshop_tree, touch, write


@pytest.fixture
def cub_root(tmp_path) -> Path:
    return cub_tree(tmp_path)


@pytest.fixture
def inshop_root(tmp_path) -> Path:
    return inshop_tree(tmp_path)


@pytest.fixture
def nabirds_root(tmp_path) -> Path:
    """Five images of three of six classes. As text "0817" would stand before "1002", and "295"
    between them."""
    home = tmp_path / "nabirds"
    files = {
        "b-2": "1002/x.jpg",
        "a-1": "0295/y.jpg",
        "07": "0817/z.jpg",
        "7": "0295/w.jpg",
        "c": "1002/v.jpg",
    }
    write(home / "images.txt", *(f"{key} {file}" for key, file in files.items()))
    for file in files.values():
        touch(home / "images" / file)
    write(home / "image_class_labels.txt", "7 295", "07 817", "a-1 295", "b-2 1002", "c 1002")
    write(
        home / "classes.txt",
        "0 Birds",
        "1002 House Sparrow (Female/Juvenile)",
        "22 Ducks, Geese, and Swans",
        "817 Oak Titmouse",
        "295 Common Eider (Adult male)",
        "1003 Common Eider",
    )
    write(home / "train_test_split.txt", "a-1 1", "b-2 0", "7 0", "07 1", "c 1")
    write(home / "bounding_boxes.txt", *(f"{key} {len(key)} 20 300 40" for key in sorted(files)))
    return home


@pytest.fixture
def vegfru_root(tmp_path) -> Path:
    home = tmp_path / "vegfru"
    lists = {
        "train": [
            "veg200_images/leek/1.jpg 9",
            "fru92_images/yacon/1.jpg 291",
            "veg200_images/bean/1.jpg 10",
        ],
        "val": ["fru92_images/yacon/2.jpg 291"],
        "test": [
            "veg200_images/bean/2.jpg 10",
            "veg200_images/leek/2.jpg 9",
            "veg200_images/leek/3.jpg 9",
            "fru92_images/yacon/3.jpg 291",
        ],
    }
    for word, lines in lists.items():
        write(home / "vegfru_list" / f"vegfru_{word}.txt", *lines)
        for line in lines:
            touch(home / line.split()[0])
    return home


@pytest.fixture
def food_root(tmp_path) -> Path:
    home = tmp_path / "food-101"
    write(home / "meta" / "classes.txt", "waffles", "apple_pie", "french_onion_soup")
    write(home / "meta" / "labels.txt", "Waffles", "Apple pie", "French onion soup")
    parts = {
        "train": ["apple_pie/12", "waffles/7"],
        "test": ["waffles/07", "apple_pie/9", "apple_pie/1"],
    }
    for word, images in parts.items():
        write(home / "meta" / f"{word}.txt", *images)
        by_class = {
            name: [image for image in images if image.startswith(name)]
            for name in ("apple_pie", "waffles")
        }
        write(home / "meta" / f"{word}.json", json.dumps(by_class))
        for image in images:
            touch(home / "images" / f"{image}.jpg")
    return home
