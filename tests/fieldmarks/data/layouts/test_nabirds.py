"""Small trees written here in the official format, complete and damaged."""

import pytest

from helpers.layout_trees import load, refused, same, write


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
    "file, lines, fragments",
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
def test_nabirds_lists_that_disagree(nabirds_root, file, lines, fragments):
    write(nabirds_root / file, *lines)
    refused(nabirds_root, "nabirds", ValueError, *fragments)
