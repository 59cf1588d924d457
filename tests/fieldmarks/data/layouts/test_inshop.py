"""Small trees written here in the official format, complete and damaged."""

import shutil
from pathlib import Path

import pytest

from fieldmarks.data.layouts import inshop
from helpers.layout_trees import NAN, load, refused, same, write


def test_inshop(inshop_root):
    for root in (inshop_root, inshop_root.parent):
        images = load("inshop", root)
        assert images.class_names == ["id_00000001", "id_00000002", "id_00000003"]
        assert images.labels.tolist() == [2, 2, 0, 0, 1, 1]
        assert images.split == ["train", "train", "query", "gallery", "query", "gallery"]
        same(images.attributes, [[0, 1, 1]] * 2 + [[1, 0, NAN]] * 2 + [[NAN] * 3] * 2)
        assert images.attribute_names == ["blue", "long sleeve", "lace"]
        same(images.boxes, [[50, 10, 100, 230]] * 5 + [[NAN] * 4])
    train, test = images.open_split()
    assert train.split == ["train"] * 2 and [part.tolist() for part in test.query_gallery()] == [
        [0, 2],
        [1, 3],
    ]
    with pytest.raises(ValueError, match="inshop: there is no closed split"):
        images.closed_split()


@pytest.mark.parametrize("place", ["img", "Img"])
def test_inshop_images_in_other_places(inshop_root, place):
    shutil.move(inshop_root / "Img" / "img", inshop_root / "unpacked")
    (inshop_root / "Img").rmdir()
    shutil.move(inshop_root / "unpacked", inshop_root / place)
    images = load("inshop", inshop_root)
    assert images.paths[0] == inshop_root / place / "WOMEN" / "Dresses" / "id_00000003" / "a.jpg"


@pytest.mark.parametrize("place", [".", "Anno"])
def test_inshop_lists_in_other_places(inshop_root, place):
    expected = load("inshop", inshop_root)
    for file in ("Eval/list_eval_partition.txt", "Anno/list_bbox_inshop.txt"):
        shutil.move(inshop_root / file, inshop_root / place / Path(file).name)
    (inshop_root / "Eval").rmdir()
    images = load("inshop", inshop_root.parent)
    assert images.fingerprint == expected.fingerprint and images.split == expected.split
    same(images.boxes, expected.boxes.tolist())


def test_inshop_attributes_in_their_own_folder_or_none(inshop_root):
    (inshop_root / "Anno" / "attributes").mkdir()
    for name in ("list_attr_cloth.txt", "list_attr_items.txt"):
        shutil.move(inshop_root / "Anno" / name, inshop_root / "Anno" / "attributes")
    assert load("inshop", inshop_root).attributes.shape == (6, 3)
    shutil.rmtree(inshop_root / "Anno")
    images = load("inshop", inshop_root)
    assert images.attributes is images.attribute_names is images.boxes is None


def test_inshop_says_which_attribute_file_is_missing(inshop_root):
    assert inshop.require_attributes(load("inshop", inshop_root)) is None
    (inshop_root / "Anno" / "list_attr_items.txt").unlink()
    images = load("inshop", inshop_root)  # the names alone are nothing
    assert images.attributes is images.attribute_names is None
    refused(
        inshop_root,
        lambda root: inshop.require_attributes(images),
        FileNotFoundError,
        "inshop: there are no attributes",
        str(inshop_root / "Anno" / "list_attr_items.txt"),
        "Anno/attributes",
    )


def test_inshop_items_listed_twice(inshop_root):
    # By attribute: said once, said again, unknown then said, contradicted, contradicted and said
    # again, never known.
    write(inshop_root / "Anno" / "list_attr_cloth.txt", 6, "attribute_name", *"abcdef")
    write(
        inshop_root / "Anno" / "list_attr_items.txt",
        4,
        "h",
        "id_00000001 1 -1 0 1 1 0",
        "id_00000002 1 1 1 1 1 1",
        "id_00000001 0 -1 -1 -1 -1 0",
        "id_00000001 0 -1 0 0 1 0",
    )
    same(
        load("inshop", inshop_root).attributes,
        [[NAN] * 6] * 2 + [[1, 0, 0, NAN, NAN, NAN]] * 2 + [[1] * 6] * 2,
    )


def test_inshop_missing_files(inshop_root):
    (inshop_root / "Anno" / "list_attr_cloth.txt").unlink()
    refused(inshop_root, "inshop", FileNotFoundError, "Anno/list_attr_cloth.txt is missing")
    shutil.rmtree(inshop_root / "Img" / "img" / "WOMEN" / "Dresses" / "id_00000003")
    refused(
        inshop_root,
        "inshop",
        FileNotFoundError,
        "Img/img/WOMEN/Dresses/id_00000003/a.jpg",
        "2 of 6 files",
    )
    shutil.rmtree(inshop_root / "Img")
    refused(
        inshop_root,
        "inshop",
        FileNotFoundError,
        "Img/img/WOMEN/Dresses/id_00000003/a.jpg",
        "6 of 6 files",
    )
    (inshop_root / "Eval" / "list_eval_partition.txt").unlink()
    refused(
        inshop_root.parent,
        "inshop",
        FileNotFoundError,
        str(inshop_root / "Eval" / "list_eval_partition.txt"),
    )


@pytest.mark.parametrize(
    "file, lines, fragments",
    [
        (
            "Eval/list_eval_partition.txt",
            [7, "h", "img/a.jpg id_1 train"],
            ["line 1", "7 entries are announced, but 1 follow"],
        ),
        (
            "Eval/list_eval_partition.txt",
            ["x", "h", "img/a.jpg id_1 train"],
            ["line 1", "number of entries"],
        ),
        ("Eval/list_eval_partition.txt", [0, "h"], ["the lists name no images"]),
        (
            "Eval/list_eval_partition.txt",
            [1, "h", "img/a.jpg id_1 probe"],
            ["line 3", "train, query or gallery, found 'probe'"],
        ),
        (
            "Eval/list_eval_partition.txt",
            [1, "h", "img/a.jpg id_1"],
            ["line 3", "expected 3 fields"],
        ),
        (
            "Eval/list_eval_partition.txt",
            [2, "h", "img/a.jpg id_1 train", "img/b.jpg id_1 query"],
            ["line 4", "line 3 says otherwise"],
        ),
        (
            "Anno/list_attr_items.txt",
            [1, "h", "id_00000001 1 -1"],
            ["list_attr_items.txt line 3: 2 values", "list_attr_cloth.txt names 3 attributes"],
        ),
        (
            "Anno/list_attr_cloth.txt",
            [2, "h", "blue", "long sleeve"],
            [
                "list_attr_items.txt line 3: 3 values",
                "list_attr_cloth.txt names 2 attributes",
                "not of one release",
            ],
        ),
        (
            "Anno/list_attr_items.txt",
            [2, "h", "id_10000001 1 -1 0", "id_10000002 1 -1 0"],
            ["list_attr_items.txt: none of its 2 items is in", "list_eval_partition.txt"],
        ),
        (
            "Anno/list_attr_items.txt",
            [2, "h", "id_00000001 1 -1 0"],
            ["line 1", "2 entries are announced, but 1 follow"],
        ),
        (
            "Anno/list_attr_items.txt",
            [1, "h", "id_00000001 1 -1 2"],
            ["list_attr_items.txt line 3", "1, -1 or 0, found '2'"],
        ),
        (
            "Anno/list_bbox_inshop.txt",
            [1, "h", "img/a.jpg 1 1 0 0 x 9"],
            ["list_bbox_inshop.txt line 3", "expected a number, found 'x'"],
        ),
    ],
)
def test_inshop_lists_that_disagree(inshop_root, file, lines, fragments):
    write(inshop_root / file, *lines)
    refused(inshop_root, "inshop", ValueError, *fragments)
