"""Small trees written here in the official format, complete and damaged."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from helpers.layout_trees import load, refused, same, touch


def structure(fields: dict) -> np.ndarray:
    """A MATLAB structure array (1, N), as in the official files."""
    rows = list(zip(*fields.values(), strict=True))
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
    refused(tmp_path, "cars", FileNotFoundError, f"{tmp_path / 'devkit'} is missing")


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
