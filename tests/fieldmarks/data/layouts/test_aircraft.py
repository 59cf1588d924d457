"""Small trees written here in the official format, complete and damaged."""

from pathlib import Path

import pytest

from helpers.layout_trees import aircraft_tree, load, refused, same, write


@pytest.fixture
def aircraft_root(tmp_path) -> Path:
    return aircraft_tree(tmp_path)


def test_aircraft(aircraft_root):
    for root in (aircraft_root, aircraft_root.parent, aircraft_root.parent.parent):
        images = load("aircraft", root)
        assert images.class_names == ["DC-10", "Beechcraft 1900", "A300 B4"]
        assert images.labels.tolist() == [2, 1, 0, 1, 0]
        assert images.split == ["train", "train", "val", "test", "test"]
        assert images.paths[0] == aircraft_root / "images" / "0034309.jpg"
        same(images.boxes, [[0, 1, 11, 21]] * 5)
    train, test = images.closed_split()
    assert len(train) == 3 and len(test) == 2
    train, test = images.open_split()
    assert train.labels.tolist() == [0, 0] and test.labels.tolist() == [2, 1, 1]


@pytest.mark.parametrize("absent", ["variants.txt", "images_variant_val.txt", "images/0000002.jpg"])
def test_aircraft_missing_file(aircraft_root, absent):
    (aircraft_root / absent).unlink()
    refused(aircraft_root, "aircraft", FileNotFoundError, str(aircraft_root / absent), "is missing")


@pytest.mark.parametrize(
    "file, lines, fragments",
    [
        (
            "images_variant_val.txt",
            ["0000001 DC-11"],
            ["images_variant_val.txt line 1", "variant 'DC-11' is not in"],
        ),
        (
            "images_variant_val.txt",
            ["0034309 DC-10"],
            ["line 1: 0034309 is listed a second time, after", "images_variant_train.txt line 1"],
        ),
        ("images_variant_val.txt", ["0000001"], ["line 1", "expected 2 fields"]),
        (
            "images_box.txt",
            ["0034309 1 2 11 22"],
            ["images_box.txt", "4 images have no box, first 0000001"],
        ),
        ("images_box.txt", ["0034309 1 2 x 22"], ["images_box.txt line 1"]),
    ],
)
def test_aircraft_lists_that_disagree(aircraft_root, file, lines, fragments):
    write(aircraft_root / file, *lines)
    refused(aircraft_root, "aircraft", ValueError, *fragments)
