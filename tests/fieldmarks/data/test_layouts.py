"""Small trees written here in each official format, whole and damaged."""

import shutil
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from fieldmarks.data import catalog
from fieldmarks.data.layouts import aircraft, cars, cub, folder, inshop

from helpers.layout_trees import NAN, load, refused, same, touch, write  # noqa: E402

# ---- CUB


@pytest.fixture
def cub_root(tmp_path) -> Path:
    """Three classes of five images; ids and classes neither sorted nor contiguous, as a partial copy has them."""
    home = tmp_path / "data" / "CUB_200_2011"
    files = {
        7: "010.Crow/a.jpg",
        2: "010.Crow/b.jpg",
        3: "002.Auk/c.jpg",
        9: "020.Wren/d.jpg",
        4: "002.Auk/e.jpg",
    }
    write(home / "images.txt", *(f"{key} {file}" for key, file in files.items()))
    for file in files.values():
        touch(home / "images" / file)
    write(home / "image_class_labels.txt", "2 10", "3 2", "4 2", "7 10", "9 20")
    write(home / "classes.txt", "20 020.Wren", "2 002.Auk", "5 005.Unused", "10 010.Crow")
    write(home / "train_test_split.txt", "2 1", "3 0", "4 1", "7 0", "9 1")
    write(home / "bounding_boxes.txt", *(f"{key} {key}.5 1.0 20.0 30.0" for key in sorted(files)))
    write(home / "parts" / "parts.txt", "1 back", "2 left eye")
    write(
        home / "parts" / "part_locs.txt",
        *(f"{key} {part} {key}.0 {part}.5 1" for key in sorted(files) for part in (1, 2)),
    )
    write(
        home / "attributes" / "image_attribute_labels.txt",
        *(
            f"{key} {number} {number % 2} {3 if number < 3 else 1} 1.5"
            for key in sorted(files)
            for number in (1, 2, 3)
        ),
    )
    write(
        tmp_path / "data" / "attributes.txt",
        "1 has_bill::hooked",
        "2 has_bill::dagger",
        "3 has_crown::blue",
    )
    return home


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
    assert catalog.check("fieldguide", cub_root)[:2] == [
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
    # Attribute 1 of image 7, 2, 3, 9, 4 (the order of images.txt) with certainty 1, 2, 3, 4 and nothing said.
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
        found = cub.certain_attributes(images, at_least)
        same(found.attributes[:, 0], first)
        same(found.attributes[3], [0, 1 if at_least < 4 else NAN, NAN])
        if at_least == 2:
            same(images.attributes, found.attributes.tolist())
    found = cub.certain_attributes(images)
    same(found.attributes[:, 0], [NAN, NAN, 1, 0, NAN])
    assert (
        found.fingerprint == images.fingerprint and found.attribute_names == images.attribute_names
    )
    same(cub.certain_attributes(images.subset([3, 0, 2])).attributes[:, 0], [0, NAN, 1])
    for wrong in (0, 5, 2.5):
        with pytest.raises(ValueError, match=f"at_least cannot be {wrong}"):
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


def test_windows_line_ends_and_byte_order_mark(cub_root):
    expected = load("cub", cub_root)
    for file in cub_root.rglob("*.txt"):
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n"))
    found = load("cub", cub_root)
    assert found.fingerprint == expected.fingerprint and torch.equal(found.boxes, expected.boxes)
    assert torch.equal(found.parts, expected.parts)


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


def test_no_such_folder(tmp_path):
    for name in catalog.LAYOUTS:
        root = tmp_path / "absent"
        message = refused(root, name, FileNotFoundError, f"{name}: there is no folder {root}")
        assert "Expected:\n" in message


@pytest.mark.parametrize(
    "file, lines, words",
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
        ("images.txt", [], ["images.txt: the list is empty"]),
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
        ("image_class_labels.txt", ["2 10", "3 x", "4 2", "7 10", "9 20"], ["line 2", "'3 x'"]),
        (
            "image_class_labels.txt",
            ["2 10", "3 2.5", "4 2", "7 10", "9 20"],
            ["line 2", "2 whole numbers"],
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
            ["part_locs.txt line 2", "image 7 part 3"],
        ),
        ("parts/part_locs.txt", ["8 1 1 1 1"], ["part_locs.txt line 1", "image 8"]),
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
            ["line 2", "'7 2 x 4'"],
        ),
        ("../attributes.txt", ["1 a", "3 b"], ["attributes.txt line 2", "expected attribute 2"]),
    ],
)
def test_cub_lists_that_disagree(cub_root, file, lines, words):
    write(cub_root / file, *lines)
    refused(cub_root, "cub", ValueError, *words)


# ---- Stanford Cars


def structure(fields: dict) -> np.ndarray:
    """A MATLAB structure array (1, N), as in the official files."""
    rows = list(zip(*fields.values()))
    array = np.empty((1, len(rows)), dtype=[(field, object) for field in fields])
    array[0, :] = rows
    return array


CARS = {"bbox_x1": [39, 5], "bbox_y1": [116, 1], "bbox_x2": [569, 50], "bbox_y2": [375, 20]}
NAMES = np.array(
    [["AM General Hummer SUV 2000", "Acura RL Sedan 2012", "smart fortwo Convertible 2012"]],
    dtype=object,
)


@pytest.fixture
def cars_devkit(tmp_path) -> Path:
    home = tmp_path / "stanford_cars"
    (home / "devkit").mkdir(parents=True)
    savemat(home / "devkit" / "cars_meta.mat", {"class_names": NAMES})
    train = {**CARS, "class": [3, 1], "fname": ["00001.jpg", "00002.jpg"]}
    test = {**CARS, "class": [1, 2], "fname": ["00001.jpg", "00002.jpg"]}
    savemat(home / "devkit" / "cars_train_annos.mat", {"annotations": structure(train)})
    savemat(home / "cars_test_annos_withlabels.mat", {"annotations": structure(test)})
    for word in ("train", "test"):
        for name in ("00001.jpg", "00002.jpg"):
            touch(home / f"cars_{word}" / name)
    return home


@pytest.fixture
def cars_legacy(tmp_path) -> Path:
    home = tmp_path / "cars196"
    fields = {
        "relative_im_path": ["car_ims/000001.jpg", "car_ims/000002.jpg"],
        **CARS,
        "class": [3, 1],
        "test": [0, 1],
    }
    home.mkdir()
    savemat(home / "cars_annos.mat", {"annotations": structure(fields), "class_names": NAMES})
    for name in fields["relative_im_path"]:
        touch(home / name)
    return home


def test_cars_with_devkit(cars_devkit):
    for root in (cars_devkit, cars_devkit.parent):
        images = load("cars", root)
        assert images.labels.tolist() == [2, 0, 0, 1] and images.class_names == NAMES[0].tolist()
        assert images.split == ["train", "train", "test", "test"] and len(set(images.paths)) == 4
        assert all(path.is_file() for path in images.paths)
        same(images.boxes, [[38, 115, 531, 260], [4, 0, 46, 20]] * 2)
    shutil.move(cars_devkit / "cars_test_annos_withlabels.mat", cars_devkit / "devkit")
    assert len(load("cars", cars_devkit)) == 4


def test_cars_as_first_published(cars_legacy):
    for root in (cars_legacy, cars_legacy.parent):
        images = load("cars", root)
        assert images.class_names == [NAMES[0, 0], NAMES[0, 2]] and images.labels.tolist() == [1, 0]
        assert images.split == ["train", "test"]
        assert [path.name for path in images.paths] == ["000001.jpg", "000002.jpg"]
        same(images.boxes, [[38, 115, 531, 260], [4, 0, 46, 20]])


def test_cars_with_one_annotation(cars_legacy):
    fields = {"relative_im_path": ["car_ims/000001.jpg"], "class": [2], "test": [0]}
    savemat(
        cars_legacy / "cars_annos.mat", {"annotations": structure(fields), "class_names": NAMES}
    )
    images = load("cars", cars_legacy)
    assert (
        len(images) == 1 and images.boxes is None and images.class_names == ["Acura RL Sedan 2012"]
    )


@pytest.mark.parametrize(
    "absent",
    [
        "devkit/cars_meta.mat",
        "devkit/cars_train_annos.mat",
        "cars_test_annos_withlabels.mat",
        "cars_train/00002.jpg",
    ],
)
def test_cars_missing_file(cars_devkit, absent):
    (cars_devkit / absent).unlink()
    refused(cars_devkit, "cars", FileNotFoundError, str(cars_devkit / absent), "is missing", " of ")


def test_cars_in_neither_form(tmp_path):
    refused(tmp_path, "cars", FileNotFoundError, str(tmp_path / "devkit" / "cars_train_annos.mat"))


def test_cars_damaged_lists(cars_devkit, cars_legacy):
    (cars_legacy / "cars_annos.mat").write_bytes(b"no MATLAB file")
    refused(cars_legacy, "cars", ValueError, "cars_annos.mat: not a readable .mat file")
    file = cars_devkit / "cars_test_annos_withlabels.mat"
    savemat(file, {"annotations": structure({**CARS, "fname": ["00001.jpg", "00002.jpg"]})})
    refused(
        cars_devkit, "cars", ValueError, "no field 'class'; this is the test list without labels"
    )
    savemat(
        file, {"annotations": structure({"class": [1, 4], "fname": ["00001.jpg", "00002.jpg"]})}
    )
    refused(cars_devkit, "cars", ValueError, "annotation 2: class 4 is not among the 3 class names")
    savemat(file, {"other": 1})
    refused(cars_devkit, "cars", ValueError, "no structure array annotations")
    savemat(cars_devkit / "devkit" / "cars_meta.mat", {"other": 1})
    refused(cars_devkit, "cars", ValueError, "no variable class_names")


# ---- Aircraft


@pytest.fixture
def aircraft_root(tmp_path) -> Path:
    home = tmp_path / "fgvc-aircraft-2013b" / "data"
    write(home / "variants.txt", "DC-10", "Beechcraft 1900", "Unused 1", "A300 B4")
    lists = {
        "train": ["0034309 A300 B4", "1234567 Beechcraft 1900"],
        "val": ["0000001 DC-10"],
        "test": ["7654321 Beechcraft 1900", "0000002 DC-10"],
    }
    for word, lines in lists.items():
        write(home / f"images_variant_{word}.txt", *lines)
        for line in lines:
            touch(home / "images" / f"{line[:7]}.jpg")
    write(home / "images_variant_trainval.txt", *lists["train"], *lists["val"])
    write(
        home / "images_box.txt",
        *(f"{line[:7]} 1 2 11 22" for lines in lists.values() for line in reversed(lines)),
    )
    return home


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
    "file, lines, words",
    [
        (
            "images_variant_val.txt",
            ["0000001 DC-11"],
            ["images_variant_val.txt line 1", "variant 'DC-11' is not in"],
        ),
        (
            "images_variant_val.txt",
            ["0034309 DC-10"],
            ["line 1", "0034309 is listed already in", "images_variant_train.txt"],
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
def test_aircraft_lists_that_disagree(aircraft_root, file, lines, words):
    write(aircraft_root / file, *lines)
    refused(aircraft_root, "aircraft", ValueError, *words)


# ---- In-Shop


@pytest.fixture
def inshop_root(tmp_path) -> Path:
    home = tmp_path / "In-shop Clothes Retrieval Benchmark"
    rows = [
        ("id_00000003", "train", "a"),
        ("id_00000003", "train", "b"),
        ("id_00000001", "query", "a"),
        ("id_00000001", "gallery", "b"),
        ("id_00000002", "query", "a"),
        ("id_00000002", "gallery", "b"),
    ]
    files = [f"img/WOMEN/Dresses/{item}/{name}.jpg" for item, _, name in rows]
    write(
        home / "Eval" / "list_eval_partition.txt",
        6,
        "image_name item_id evaluation_status",
        *(f"{file}   {row[0]}\t {row[1]}  " for file, row in zip(files, rows)),
    )
    for file in files:
        touch(home / "Img" / file)
    write(
        home / "Anno" / "list_attr_cloth.txt", 3, "attribute_name", "blue ", "long sleeve", "lace"
    )
    write(
        home / "Anno" / "list_attr_items.txt",
        2,
        "item_id attribute_labels",
        "id_00000001  1 -1 0",
        "id_00000003 -1  1  1",
    )
    write(
        home / "Anno" / "list_bbox_inshop.txt",
        5,
        "image_name clothes_type pose_type x_1 y_1 x_2 y_2",
        *(f"{file}  1 2 050 010 150 240" for file in files[:5]),
    )
    return home


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
    # By attribute: said once, said again, unknown then said, contradicted, contradicted and said again, never known.
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
    "file, lines, words",
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
            ["list_bbox_inshop.txt line 3", "'0 0 x 9'"],
        ),
    ],
)
def test_inshop_lists_that_disagree(inshop_root, file, lines, words):
    write(inshop_root / file, *lines)
    refused(inshop_root, "inshop", ValueError, *words)


# ---- folders


def test_class_folders(tmp_path):
    for name in ("10", "2", "a b", ".hidden"):
        for image in ("10.jpg", "9.JPG", ".ds_store", "note.txt", ".x.jpg", "p.webp"):
            touch(tmp_path / name / image)
    touch(tmp_path / "readme.jpg")
    images = catalog.load("folder", tmp_path)
    assert (
        images.class_names == ["2", "10", "a b"]
        and images.labels.tolist() == [0] * 3 + [1] * 3 + [2] * 3
    )
    assert [path.name for path in images.paths[:3]] == [
        "9.JPG",
        "10.jpg",
        "p.webp",
    ] and images.split is None
    assert images.paths[0] == tmp_path / "2" / "9.JPG"


def test_split_folders(tmp_path):
    for place in ("train/2", "train/1", "val/1", "test/2"):
        touch(tmp_path / place / "x.png")
    images = catalog.load("folder", tmp_path)
    assert images.class_names == ["1", "2"]
    assert [path.parts[-3] for path in images.paths] == ["train", "val", "test", "train"]
    assert images.split == ["train", "test", "test", "train"] and len(images.closed_split()[1]) == 2
    for place in ("Train_1/1", "unseen/9"):
        touch(tmp_path / "other" / place / "x.png")
    images = catalog.load("folder", tmp_path / "other")
    assert images.split == ["train", "test"] and [
        part.labels.tolist() for part in images.open_split()
    ] == [[0], [1]]
    for place in ("families/1", "families/2"):
        touch(tmp_path / "none" / place / "x.png")
    assert catalog.load("folder", tmp_path / "none").split is None


@pytest.mark.filterwarnings("ignore:folder. 1 of 2:UserWarning")
def test_folders_that_are_neither(tmp_path):
    refused(tmp_path, "folder", FileNotFoundError, "no images in class folders")
    touch(tmp_path / "train" / "1" / "x.jpg")
    (tmp_path / "train" / "2").mkdir()
    with pytest.warns(UserWarning, match="1 of 2 class folders hold no images .*train/2 first"):
        assert len(catalog.load("folder", tmp_path)) == 1
    touch(tmp_path / "robin" / "x.jpg")
    refused(tmp_path, "folder", ValueError, "mixes class folders (robin) and split folders (train)")


# ---- catalogue


def test_unknown_name(tmp_path):
    with pytest.raises(
        ValueError,
        match="no data set 'aircrafts'; did you mean 'aircraft'[?] Known: fieldguide, cub",
    ):
        catalog.load("aircrafts", tmp_path)
    with pytest.raises(ValueError, match="did you mean 'cub'"):
        catalog.check("CUB", tmp_path)
    with pytest.raises(ValueError, match="no data set 'zzzz'. Known: "):
        catalog.load("zzzz", tmp_path)


def test_a_partial_copy_says_how_much_there_is(cub_root):
    with pytest.warns(UserWarning) as said:
        catalog.load("cub", cub_root)
    assert [str(warning.message) for warning in said] == [
        "cub: a partial copy, 3 of 200 classes, 5 of 11,788 images"
    ]
    assert said[0].filename == __file__


def test_check_compares_with_the_official_counts(inshop_root, cub_root):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert catalog.check("inshop", inshop_root) == [
            ("images", 52_712, 6, False),
            ("classes", 7_982, 3, False),
            ("split: train", 25_882, 2, False),
            ("split: query", 14_218, 2, False),
            ("split: gallery", 12_612, 2, False),
            ("open split: train", 25_882, 2, False),
            ("open split: train classes", 3_997, 1, False),
            ("open split: test", 26_830, 4, False),
            ("open split: test classes", 3_985, 2, False),
        ]
    assert ("open split: train", 5_864, 2, False) in catalog.check("cub", cub_root)


def test_check_images(cub_root):
    Image.new("RGB", (8, 8)).save(cub_root / "images" / "010.Crow" / "b.jpg")
    found = catalog.check_images("cub", cub_root)
    assert len(found) == 4 and found[0] == (
        cub_root / "images" / "010.Crow" / "a.jpg",
        "the file is empty",
    )


def test_layouts_take_text_and_relative_folders(cub_root, monkeypatch):
    monkeypatch.chdir(cub_root.parent)
    assert load("cub", "CUB_200_2011").paths[0].is_absolute()
    assert {
        layout.load.__module__.rsplit(".", 1)[1] for layout in (cub, cars, aircraft, inshop, folder)
    } == {"cub", "cars", "aircraft", "inshop", "folder"}
