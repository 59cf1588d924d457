"""Small trees written here in the official format, complete and damaged."""

import numpy as np
import pytest
from PIL import Image

from fieldlab.check import check, check_images
from fieldmarks.decoding import decode
from helpers.layout_trees import load, refused, write


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
    rows = {what: result for what, _, result, _ in check("vegfru", vegfru_root)}
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
    "line, fragments",
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
def test_vegfru_lists_that_disagree(vegfru_root, line, fragments):
    write(vegfru_root / "vegfru_list" / "vegfru_val.txt", "", line)
    refused(vegfru_root, "vegfru", ValueError, "vegfru_val.txt line 2", *fragments)


def test_vegfru_files_that_are_no_plain_jpeg(vegfru_root):
    """A few of the published .jpg files are PNG or GIF inside, with alpha or a palette."""
    red = np.zeros((12, 16, 4), np.uint8)
    red[..., 0], red[:, 8:, 3] = 255, 255  # the left half clear
    files = [path for path in vegfru_root.rglob("*.jpg")]
    for path in files:
        Image.new("RGB", (16, 12), "blue").save(path)
    Image.fromarray(red).save(files[0], format="png")
    Image.fromarray(red[..., :3]).quantize(4).save(files[1], format="png")
    Image.fromarray(red[..., :3]).quantize(4).save(files[2], format="gif")
    assert check_images("vegfru", vegfru_root) == []
    assert decode(files[0], None)[6, [2, 12]].tolist() == [[255, 255, 255], [255, 0, 0]]
    assert [decode(file, None)[6, 2].tolist() for file in files[1:3]] == [[255, 0, 0]] * 2
