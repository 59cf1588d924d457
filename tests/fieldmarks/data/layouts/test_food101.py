"""Small trees written here in the official format, complete and damaged."""

import pytest

from helpers.layout_trees import load, refused, write


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
        label_of = dict(zip(images.paths, images.labels, strict=True))
        part_of = dict(zip(images.paths, images.split, strict=True))
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
    "file, lines, fragments",
    [
        (
            "test.txt",
            ["waffles/07", "pancakes/9"],
            ["test.txt line 2", "one of the 3 classes of classes.txt, found 'pancakes/9'"],
        ),
        ("test.txt", ["waffles"], ["test.txt line 1", "expected CLASS/IMAGE", "found 'waffles'"]),
        ("test.txt", ["", "waffles/7"], ["test.txt line 2", "waffles/7 is listed a second time"]),
    ],
)
def test_food101_lists_that_disagree(food_root, file, lines, fragments):
    write(food_root / "meta" / file, *lines)
    refused(food_root, "food101", ValueError, *fragments)


@pytest.mark.parametrize(
    "content, fragments",
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
def test_food101_json_that_disagrees(food_root, content, fragments):
    (food_root / "meta" / "test.txt").unlink()
    write(food_root / "meta" / "test.json", content)
    refused(food_root, "food101", ValueError, *fragments)
