"""The layouts that only the hashing papers use (NABirds, VegFru, Food-101): small trees, whole and damaged."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fieldmarks.data import catalog
from fieldmarks.data.decoding import decode

from helpers.layout_trees import load, refused, same, touch, write  # noqa: E402

# ---- NABirds


@pytest.fixture
def nabirds_root(tmp_path) -> Path:
    """Five images of three of six classes. As text "0817" would stand before "1002" and "295" between them."""
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


def test_nabirds(nabirds_root):
    for root in (nabirds_root, nabirds_root.parent):
        images = load("nabirds", root)
        assert images.class_names == [
            "Common Eider (Adult male)",
            "Oak Titmouse",
            "House Sparrow (Female/Juvenile)",
        ]
        assert images.labels.tolist() == [2, 0, 1, 0, 2]
        assert images.split == ["test", "train", "train", "test", "train"]
        assert images.paths[0] == nabirds_root / "images" / "1002" / "x.jpg"
        same(images.boxes, [[length, 20, 300, 40] for length in (3, 3, 2, 1, 1)])
    assert [len(part) for part in images.closed_split()] == [3, 2]
    train, test = images.open_split()
    assert train.labels.tolist() == [0, 0] and test.labels.tolist() == [2, 1, 2]
    (nabirds_root / "bounding_boxes.txt").unlink()
    assert load("nabirds", nabirds_root).boxes is None


@pytest.mark.parametrize(
    "absent",
    [
        "images.txt",
        "image_class_labels.txt",
        "classes.txt",
        "train_test_split.txt",
        "images/0817/z.jpg",
    ],
)
def test_nabirds_missing_file(nabirds_root, absent):
    (nabirds_root / absent).unlink()
    refused(
        nabirds_root.parent, "nabirds", FileNotFoundError, str(nabirds_root / absent), "is missing"
    )


@pytest.mark.parametrize(
    "file, lines, words",
    [
        (
            "images.txt",
            ["7 0295/w.jpg", "7 0295/y.jpg"],
            ["images.txt line 2", "7 is listed a second time"],
        ),
        (
            "images.txt",
            ["7 0295/w.jpg", "", "c"],
            ["images.txt line 3", "expected 2 fields, found 1"],
        ),
        ("images.txt", [], ["the lists name no images"]),
        (
            "image_class_labels.txt",
            ["7 295", "07 817", "a-1 295", "b-2 1002", "c 1004"],
            ["image_class_labels.txt line 5", "class 1004 is not in classes.txt"],
        ),
        (
            "image_class_labels.txt",
            ["7 295", "07 817", "a-1 x", "b-2 1002", "c 1002"],
            ["image_class_labels.txt line 3", "whole number, found 'x'"],
        ),
        (
            "image_class_labels.txt",
            ["7 295", "07 817", "a-1", "b-2 1002", "c 1002"],
            ["image_class_labels.txt line 3", "expected 2 fields"],
        ),
        (
            "image_class_labels.txt",
            ["7 295", "07 817", "a-1 295", "c 1002"],
            ["image_class_labels.txt: 1 entries are missing, first b-2 of", "images.txt line 1"],
        ),
        (
            "image_class_labels.txt",
            ["7 295", "07 817", "a-1 295", "b-2 1002", "c 1002", "d 1002"],
            ["image_class_labels.txt line 6", "d is not in", "images.txt"],
        ),
        (
            "classes.txt",
            ["295 Eider", "x Titmouse"],
            ["classes.txt line 2", "whole number, found 'x'"],
        ),
        (
            "train_test_split.txt",
            ["a-1 1", "b-2 0", "7 2", "07 1", "c 1"],
            ["train_test_split.txt line 3", "found 2"],
        ),
        (
            "bounding_boxes.txt",
            ["a-1 1 2 3 4", "b-2 1 2 3", "7 1 2 3 4", "07 1 2 3 4", "c 1 2 3 4"],
            ["bounding_boxes.txt line 2", "expected 5 fields, found 4"],
        ),
        (
            "bounding_boxes.txt",
            ["a-1 1 2 3 4", "b-2 1 2 3 w", "7 1 2 3 4", "07 1 2 3 4", "c 1 2 3 4"],
            ["bounding_boxes.txt line 2", "'w'"],
        ),
    ],
)
def test_nabirds_lists_that_disagree(nabirds_root, file, lines, words):
    write(nabirds_root / file, *lines)
    refused(nabirds_root, "nabirds", ValueError, *words)


# ---- VegFru


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


def test_vegfru(vegfru_root):
    for root in (vegfru_root, vegfru_root.parent):
        images = load("vegfru", root)
        assert images.class_names == ["leek", "bean", "yacon"] and images.labels.tolist() == [
            0,
            2,
            1,
            2,
            1,
            0,
            0,
            2,
        ]
        assert images.split == ["train"] * 3 + ["val"] + ["test"] * 4
        assert images.paths[1] == vegfru_root / "fru92_images" / "yacon" / "1.jpg"
    train, test = images.open_split()
    assert train.labels.tolist() == [0, 0, 0] and test.split == [
        "train",
        "train",
        "val",
        "test",
        "test",
    ]


def test_vegfru_closed_split_leaves_val_out(vegfru_root):
    images = load("vegfru", vegfru_root)
    train, test = images.closed_split()
    assert train.split == ["train"] * 3 and test.split == ["test"] * 4
    assert (
        train.labels.tolist() == [0, 2, 1]
        and [path.name for path in test.paths] == ["2.jpg"] * 2 + ["3.jpg"] * 2
    )
    train, test = images.subset(images.labels != 1).closed_split()  # a subset knows it too
    assert len(train) == 2 and test.split == ["test"] * 3
    with pytest.raises(ValueError, match="vegfru: all 1 images are on one side"):
        images.subset([0, 3]).closed_split()
    rows = {what: found for what, _, found, _ in catalog.check("vegfru", vegfru_root)}
    assert (
        rows["split: val"] == 1
        and rows["closed split: train"] == 3
        and rows["closed split: test"] == 4
    )


@pytest.mark.parametrize(
    "absent",
    [
        "vegfru_list/vegfru_train.txt",
        "vegfru_list/vegfru_val.txt",
        "vegfru_list/vegfru_test.txt",
        "fru92_images/yacon/2.jpg",
    ],
)
def test_vegfru_missing_file(vegfru_root, absent):
    (vegfru_root / absent).unlink()
    refused(
        vegfru_root.parent, "vegfru", FileNotFoundError, str(vegfru_root / absent), "is missing"
    )


@pytest.mark.parametrize(
    "line, words",
    [
        ("fru92_images/yacon/2.jpg", ["expected 2 fields, found 1"]),
        ("fru92_images/yacon/2.jpg yacon", ["whole number, found 'yacon'"]),
        ("fru92_images/yacon/2.jpg 292", ["class 292 is not one of 0 .. 291"]),
        ("fru92_images/yacon/2.jpg -1", ["class -1 is not one of 0 .. 291"]),
        ("fru92_images/yacon/2.jpg 10", ["fru92_images/yacon is class 10, but"]),
        ("fru92_images/yakon/2.jpg 291", ["fru92_images/yakon is class 291, but"]),
        ("fru92_images/yacon/1.jpg 291", ["fru92_images/yacon/1.jpg is listed a second time"]),
    ],
)
def test_vegfru_lists_that_disagree(vegfru_root, line, words):
    write(vegfru_root / "vegfru_list" / "vegfru_val.txt", "", line)
    refused(vegfru_root, "vegfru", ValueError, "vegfru_val.txt line 2", *words)


def test_vegfru_files_that_are_no_plain_jpeg(vegfru_root):
    """A few of the published .jpg files are PNG or GIF inside, with an alpha channel or a palette."""
    red = np.zeros((12, 16, 4), np.uint8)
    red[..., 0], red[:, 8:, 3] = 255, 255  # the left half clear
    files = [path for path in vegfru_root.rglob("*.jpg")]
    for path in files:
        Image.new("RGB", (16, 12), "blue").save(path)
    Image.fromarray(red).save(files[0], format="png")
    Image.fromarray(red[..., :3]).quantize(4).save(files[1], format="png")
    Image.fromarray(red[..., :3]).quantize(4).save(files[2], format="gif")
    assert catalog.check_images("vegfru", vegfru_root) == []
    assert decode(files[0], None)[6, [2, 12]].tolist() == [[255, 255, 255], [255, 0, 0]]
    assert [decode(file, None)[6, 2].tolist() for file in files[1:3]] == [[255, 0, 0]] * 2


# ---- Food-101


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


def test_food101(food_root):
    for root in (food_root, food_root.parent):
        images = load("food101", root)
        assert images.class_names == ["waffles", "apple_pie"] and images.labels.tolist() == [
            1,
            0,
            0,
            1,
            1,
        ]
        assert images.split == ["train"] * 2 + ["test"] * 3
        assert images.paths[2] == food_root / "images" / "waffles" / "07.jpg"
    assert [len(part) for part in images.closed_split()] == [2, 3]
    assert [part.labels.tolist() for part in images.open_split()] == [[0, 0], [1, 1, 1]]


def test_food101_from_json_and_labels(food_root):
    expected = load("food101", food_root)
    for name in ("classes.txt", "train.txt", "test.txt"):
        (food_root / "meta" / name).unlink()
        images = load("food101", food_root.parent)
        assert images.class_names == expected.class_names and sorted(images.paths) == sorted(
            expected.paths
        )
        label_of, part_of = (
            dict(zip(images.paths, images.labels)),
            dict(zip(images.paths, images.split)),
        )
        assert [label_of[path] for path in expected.paths] == expected.labels.tolist()
        assert [part_of[path] for path in expected.paths] == expected.split


@pytest.mark.parametrize(
    "absent, named",
    [
        (["train.txt", "train.json"], "meta/train.txt"),
        (["test.txt", "test.json"], "meta/test.txt"),
        (["classes.txt", "labels.txt"], "meta/classes.txt"),
        (["../images/waffles/07.jpg"], "images/waffles/07.jpg"),
    ],
)
def test_food101_missing_file(food_root, absent, named):
    for file in absent:
        (food_root / "meta" / file).unlink()
    refused(food_root.parent, "food101", FileNotFoundError, str(food_root / named), "is missing")


@pytest.mark.parametrize(
    "file, lines, words",
    [
        (
            "test.txt",
            ["waffles/07", "pancakes/9"],
            ["test.txt line 2", "one of the 3 classes, found 'pancakes/9'"],
        ),
        ("test.txt", ["waffles"], ["test.txt line 1", "expected CLASS/IMAGE", "found 'waffles'"]),
        ("test.txt", ["", "waffles/7"], ["test.txt line 2", "waffles/7 is listed a second time"]),
    ],
)
def test_food101_lists_that_disagree(food_root, file, lines, words):
    write(food_root / "meta" / file, *lines)
    refused(food_root, "food101", ValueError, *words)


@pytest.mark.parametrize(
    "content, words",
    [
        ('{"waffles": ["waffles/07",', ["test.json", "not readable JSON", "line 2"]),
        ('["waffles/07"]', ["test.json", "expected a dict, found a list"]),
        ('{"pancakes": ["pancakes/7"]}', ["test.json class pancakes", "found 'pancakes/7'"]),
        (
            '{"waffles": ["waffles/07", "waffles/07"]}',
            ["test.json class waffles", "listed a second time"],
        ),
    ],
)
def test_food101_json_that_disagrees(food_root, content, words):
    (food_root / "meta" / "test.txt").unlink()
    write(food_root / "meta" / "test.json", content)
    refused(food_root, "food101", ValueError, *words)


# ---- all three


@pytest.mark.parametrize("name", ["nabirds", "vegfru", "food101"])
def test_half_unpacked(name, nabirds_root, vegfru_root, food_root):
    home, folders = {
        "nabirds": (nabirds_root, ["images"]),
        "food101": (food_root, ["images"]),
        "vegfru": (vegfru_root, ["veg200_images", "fru92_images"]),
    }[name]
    count = len(load(name, home))
    for folder in folders:
        shutil.rmtree(home / folder)
    refused(
        home, name, FileNotFoundError, f"{name}: {home}", f"{count} of {count} files are missing"
    )


@pytest.mark.parametrize("name", ["nabirds", "vegfru", "food101"])
def test_windows_line_ends_and_byte_order_mark(name, nabirds_root, vegfru_root, food_root):
    home = {"nabirds": nabirds_root, "vegfru": vegfru_root, "food101": food_root}[name]
    expected = load(name, home)
    for file in home.rglob("*.txt"):
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n"))
    found = load(name, home)
    assert found.fingerprint == expected.fingerprint and found.split == expected.split
