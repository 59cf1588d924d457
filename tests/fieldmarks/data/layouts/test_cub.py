"""Small trees written here in the official format, complete and damaged."""

import shutil
import warnings
from dataclasses import replace

import pytest

from fieldlab.check import check
from fieldmarks.data import catalog
from fieldmarks.data.layouts import cub
from helpers.layout_trees import NAN, load, refused, same, touch, write


def test_cub(cub_root):
    for root in (cub_root, cub_root.parent):
        images = load("cub", root)
        assert [path.name for path in images.paths] == ["a.jpg", "b.jpg", "c.jpg", "d.jpg", "e.jpg"]
        assert images.paths[0].parent == cub_root / "images" / "010.Crow"
        assert images.name == "cub" and all(path.is_absolute() for path in images.paths)
        assert images.class_names == [
            "002.Auk",
            "010.Crow",
            "020.Wren",
        ] and images.labels.tolist() == [1, 1, 0, 2, 0]
        assert images.split == ["test", "train", "test", "train", "train"]
        same(images.boxes, [[key + 0.5, 1, 20, 30] for key in (7, 2, 3, 9, 4)])
        same(images.parts, [[[key, 1.5, 1], [key, 2.5, 1]] for key in (7, 2, 3, 9, 4)])
        assert images.part_names == ["back", "left eye"]
        assert images.attribute_names == ["has_bill::hooked", "has_bill::dagger", "has_crown::blue"]
        same(images.attributes, [[1, 0, NAN]] * 5)
    train, test = images.open_split()
    assert train.labels.tolist() == [0, 0] and sorted(test.labels.tolist()) == [1, 1, 2]


def test_fieldguide_is_cub_without_official_counts(cub_root):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        images = catalog.load("fieldguide", cub_root)
    assert images.name == "fieldguide" and len(images) == 5
    assert check("fieldguide", cub_root)[:2] == [
        ("images", None, 5, True),
        ("classes", None, 3, True),
    ]


@pytest.mark.parametrize(
    "place", ["attributes/attributes.txt", "attributes.txt", "../attributes.txt"]
)
def test_cub_attribute_names_in_any_of_three_places(cub_root, place):
    shutil.move(cub_root.parent / "attributes.txt", cub_root / place)
    assert load("cub", cub_root).attribute_names[2] == "has_crown::blue"


def test_cub_attribute_lines_with_extra_fields_are_kept(cub_root):
    # As in the official list: "2275 10 0 3 0 1.509", two numbers where one should be.
    write(
        cub_root / "attributes" / "image_attribute_labels.txt",
        "7 1 1 4 1.5",
        "7 2 1 2 0 1.509",
        "2 3 0 3 1 2 3 4 5 6 7",
        "3 1 1 1 0.1",
        "",
        "4 2 1 4 0.2  ",
    )
    same(
        load("cub", cub_root).attributes,
        [[1, 1, NAN], [NAN, NAN, 0], [NAN] * 3, [NAN] * 3, [NAN, 1, NAN]],
    )


@pytest.mark.filterwarnings("ignore:cub. a partial copy:UserWarning")
def test_cub_attributes_of_classes_where_those_of_images_are_missing(cub_root):
    (cub_root / "attributes" / "image_attribute_labels.txt").unlink()
    write(
        cub_root / "attributes" / "class_attribute_labels_continuous.txt",
        "0 50 100",
        "1 1 1",
        "25.0 -1 5e1",
        "10 20 30",
    )  # classes 2, 5, 10, 20
    with pytest.warns(UserWarning, match="each image gets the attributes of its class"):
        images = catalog.load("cub", cub_root)
    same(images.attributes, [[0.25, NAN, 0.5]] * 2 + [[0, 0.5, 1], [0.1, 0.2, 0.3], [0, 0.5, 1]])
    write(
        cub_root / "attributes" / "class_attribute_labels_continuous.txt",
        *(f"{line} 0 0" for line in range(1, 21)),
    )
    with pytest.warns(
        UserWarning, match="each image gets"
    ):  # the list of all classes, beside a part of them
        same(catalog.load("cub", cub_root).attributes[:, 0], [0.1, 0.1, 0.02, 0.2, 0.02])
    write(cub_root / "attributes" / "class_attribute_labels_continuous.txt", *["1 2 3"] * 3)
    refused(cub_root, "cub", ValueError, "3 lines for the 4 classes")


@pytest.mark.filterwarnings("ignore:cub. a partial copy:UserWarning")
def test_cub_certain_attributes(cub_root):
    # Attribute 1 of image 7, 2, 3, 9, 4 (the order of images.txt) with certainty 1, 2, 3, 4 and
    # nothing said.
    write(
        cub_root / "attributes" / "image_attribute_labels.txt",
        "9 1 0 4 1.5",
        "7 1 0 1 1.5",
        "2 1 1 2 0 1.509",
        "3 1 1 3 1.5",
        "9 2 1 3 1.5",
    )
    images = load("cub", cub_root)
    for at_least, first in (
        (1, [0, 1, 1, 0, NAN]),
        (2, [NAN, 1, 1, 0, NAN]),
        (3, [NAN, NAN, 1, 0, NAN]),
        (4, [NAN, NAN, NAN, 0, NAN]),
    ):
        result = cub.certain_attributes(images, at_least)
        same(result.attributes[:, 0], first)
        same(result.attributes[3], [0, 1 if at_least < 4 else NAN, NAN])
        if at_least == 2:
            same(images.attributes, result.attributes.tolist())
    result = cub.certain_attributes(images)
    same(result.attributes[:, 0], [NAN, NAN, 1, 0, NAN])
    assert (
        result.fingerprint == images.fingerprint
        and result.attribute_names == images.attribute_names
    )
    same(cub.certain_attributes(images.subset([3, 0, 2])).attributes[:, 0], [0, NAN, 1])
    for wrong in (0, 5, 2.5):
        with pytest.raises(
            ValueError, match=f"at_least is '{wrong}': it must be one of 1, 2, 3, 4"
        ):
            cub.certain_attributes(images, wrong)


def test_cub_certainty_that_nobody_gave(cub_root, tmp_path):
    images = load("cub", cub_root)
    (cub_root / "attributes" / "image_attribute_labels.txt").unlink()
    refused(
        cub_root,
        lambda root: cub.certain_attributes(images),
        FileNotFoundError,
        "attributes/image_attribute_labels.txt is missing",
    )
    with pytest.raises(ValueError, match="has no images.txt"):
        cub.certain_attributes(replace(images, root=tmp_path))
    write(cub_root / "attributes" / "image_attribute_labels.txt", "9 1 0 4 1.5")
    moved = replace(images, paths=[cub_root / "images" / path.name for path in images.paths])
    with pytest.raises(ValueError, match="a.jpg is not in .*images.txt"):
        cub.certain_attributes(moved)


def test_cub_with_the_bare_lists_only(cub_root):
    for optional in ("attributes", "parts"):
        shutil.rmtree(cub_root / optional)
    (cub_root / "bounding_boxes.txt").unlink()
    images = load("cub", cub_root)
    assert (
        images.attributes
        is images.attribute_names
        is images.parts
        is images.part_names
        is images.boxes
        is None
    )


@pytest.mark.parametrize(
    "absent",
    [
        "images.txt",
        "image_class_labels.txt",
        "classes.txt",
        "train_test_split.txt",
        "parts/parts.txt",
    ],
)
def test_cub_missing_list(cub_root, absent):
    (cub_root / absent).unlink()
    message = refused(cub_root, "cub", FileNotFoundError, str(cub_root / absent), "is missing")
    assert "CUB_200_2011/" in message and "image_class_labels.txt" in message


def test_cub_half_unpacked(cub_root):
    shutil.rmtree(cub_root / "images" / "010.Crow")
    refused(
        cub_root,
        "cub",
        FileNotFoundError,
        str(cub_root / "images/010.Crow/a.jpg"),
        "2 of 5 files are missing",
    )
    shutil.rmtree(cub_root / "images")
    refused(cub_root, "cub", FileNotFoundError, "5 of 5 files are missing")


@pytest.mark.parametrize(
    "file, lines, fragments",
    [
        ("images.txt", ["7 010.Crow/a.jpg", "two 010.Crow/b.jpg"], ["images.txt line 2", "'two'"]),
        (
            "images.txt",
            ["7 010.Crow/a.jpg", "", "2"],
            ["images.txt line 3", "expected 2 fields, found 1"],
        ),
        (
            "images.txt",
            ["7 010.Crow/a.jpg", "7 010.Crow/b.jpg"],
            ["images.txt line 2", "7 is listed a second time"],
        ),
        ("images.txt", [], ["the lists name no images"]),
        (
            "image_class_labels.txt",
            ["2 10", "3 2", "4 2", "7 10"],
            ["image_class_labels.txt", "first 9", "images.txt line 4"],
        ),
        (
            "image_class_labels.txt",
            ["2 10", "3 2", "4 2", "7 10", "9 20", "11 2"],
            ["image_class_labels.txt line 6", "11 is not in", "images.txt"],
        ),
        (
            "image_class_labels.txt",
            ["2 10", "3 2", "3 2", "4 2", "7 10", "9 20"],
            ["line 3", "3 is listed a second time"],
        ),
        (
            "image_class_labels.txt",
            ["2 10", "3 2", "4 33", "7 10", "9 20"],
            ["line 3", "class 33 is not in classes.txt"],
        ),
        (
            "image_class_labels.txt",
            ["2 10", "3 x", "4 2", "7 10", "9 20"],
            ["line 2", "whole number, found 'x'"],
        ),
        (
            "image_class_labels.txt",
            ["2 10", "3 2.5", "4 2", "7 10", "9 20"],
            ["line 2", "whole number, found '2.5'"],
        ),
        (
            "image_class_labels.txt",
            ["2 10", "3", "4 2", "7 10", "9 20"],
            ["line 2", "expected 2 fields, found 1"],
        ),
        ("image_class_labels.txt", [], ["image_class_labels.txt: 5 entries are missing"]),
        ("classes.txt", ["2 002.Auk", "x 010.Crow"], ["classes.txt line 2"]),
        (
            "train_test_split.txt",
            ["2 1", "3 0", "4 2", "7 0", "9 1"],
            ["train_test_split.txt line 3", "found 2"],
        ),
        (
            "bounding_boxes.txt",
            ["2 1 2 3 4", "3 1 2 3"],
            ["bounding_boxes.txt line 2", "expected 5 fields, found 4"],
        ),
        ("bounding_boxes.txt", ["2 1 2 3 nan"], ["bounding_boxes.txt line 1"]),
        (
            "bounding_boxes.txt",
            ["2 1 2 3 4"],
            ["bounding_boxes.txt: 4 entries are missing, first 7"],
        ),
        (
            "parts/part_locs.txt",
            ["7 1 1 1 1", "7 3 1 1 1"],
            ["part_locs.txt line 2", "or no part of parts.txt: '7 3 1 1 1'"],
        ),
        (
            "parts/part_locs.txt",
            ["8 1 1 1 1"],
            ["part_locs.txt line 1: no image of images.txt", "8 1 1"],
        ),
        (
            "attributes/image_attribute_labels.txt",
            ["7 1 1 4 1", "8 1 1 4 1"],
            ["line 2", "the image is not in"],
        ),
        (
            "attributes/image_attribute_labels.txt",
            ["7 1 1 4 1", "-2 1 1 4 1"],
            ["line 2", "the image is not in"],
        ),
        (
            "attributes/image_attribute_labels.txt",
            ["7 4 1 4 1"],
            ["line 1", "no such attribute among the 3"],
        ),
        (
            "attributes/image_attribute_labels.txt",
            ["7 1 2 4 1"],
            ["line 1", "present must be 1 or 0"],
        ),
        (
            "attributes/image_attribute_labels.txt",
            ["7 1 1 4 1", "7 2 x 4 1"],
            ["line 2", "found 'x'"],
        ),
        (
            "attributes/image_attribute_labels.txt",
            ["7 1 1 4 1", "-20000 1 1 4 1"],
            ["line 2: the image is not in images.txt: '-20000 1 1 4 1'"],
        ),
        ("../attributes.txt", ["1 a", "3 b"], ["attributes.txt line 2", "expected attribute 2"]),
    ],
)
def test_cub_lists_that_disagree(cub_root, file, lines, fragments):
    write(cub_root / file, *lines)
    refused(cub_root, "cub", ValueError, *fragments)


def test_segmentations_are_masks_of_the_images(cub_root):
    assert load("cub", cub_root).masks is None
    images = load("cub", cub_root)
    folder = cub_root / "segmentations"
    masks = [folder / path.parent.name / f"{path.stem}.png" for path in images.paths]
    for mask in masks:
        touch(mask)
    found = load("cub", cub_root)
    assert found.masks == masks and "masks" in repr(found)
    assert found.subset([3, 0]).masks == [masks[3], masks[0]]
    masks[1].unlink()
    with pytest.warns(UserWarning, match=r"1 of 5 segmentations are missing, first .*b\.png; none"):
        assert catalog.load("cub", cub_root).masks is None
