"""Small trees written here in the official format, complete and damaged."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from scipy.io import savemat

from fieldmarks.data import catalog
from fieldmarks.data.layouts import mat
from helpers.layout_trees import (
    CARS,
    NAMES,
    cars_first_published_tree,
    cars_tree,
    load,
    refused,
    same,
    structure,
)


@pytest.fixture
def cars_devkit(tmp_path) -> Path:
    return cars_tree(tmp_path)


@pytest.fixture
def cars_legacy(tmp_path) -> Path:
    return cars_first_published_tree(tmp_path)


def test_cars_with_devkit(cars_devkit):
    for root in (cars_devkit, cars_devkit.parent):
        images = load("cars", root)
        assert images.labels.tolist() == [2, 0, 0, 1] and images.class_names == NAMES[0].tolist()
        assert images.split == ["train", "train", "test", "test"] and len(set(images.paths)) == 4
        assert all(path.is_file() for path in images.paths)
        same(images.boxes, [[38, 115, 531, 260], [4, 0, 46, 20]] * 2)
    shutil.move(cars_devkit / "cars_test_annos_withlabels.mat", cars_devkit / "devkit")
    assert len(load("cars", cars_devkit)) == 4


def test_cars_as_the_usual_mirror_unpacks_it(cars_devkit):
    expected = load("cars", cars_devkit)
    for name in ("cars_train", "cars_test"):
        shutil.move(cars_devkit / name, cars_devkit / "unpacked")
        shutil.move(cars_devkit / "unpacked", cars_devkit / name / name)
    shutil.move(cars_devkit / "devkit", cars_devkit / "car_devkit" / "devkit")
    images = load("cars", cars_devkit)
    assert images.labels.tolist() == expected.labels.tolist() and images.split == expected.split
    assert images.paths[0] == cars_devkit / "cars_train" / "cars_train" / "00001.jpg"
    assert all(path.is_file() for path in images.paths)


def test_cars_without_labels_of_the_test_part(cars_devkit):
    (cars_devkit / "cars_test_annos_withlabels.mat").unlink()
    shutil.rmtree(cars_devkit / "cars_test")
    with pytest.warns(UserWarning) as said:
        images = catalog.load("cars", cars_devkit)
    assert str(said[0].message) == (
        "cars: the training part is loaded alone, for the labels of the test part, "
        "cars_test_annos_withlabels.mat, are missing; "
        f"put them into {cars_devkit} to have both parts"
    )
    assert said[0].filename == __file__ and "partial copy" in str(said[1].message)
    assert images.split == ["train", "train"] and images.labels.tolist() == [1, 0]
    assert [half.labels.tolist() for half in images.open_split()] == [[0], [1]]
    with pytest.raises(ValueError, match="cars: all 2 images are on one side of the official"):
        images.closed_split()


def test_cars_as_first_published(cars_legacy):
    for root in (cars_legacy, cars_legacy.parent):
        images = load("cars", root)
        assert images.class_names == [NAMES[0, 0], NAMES[0, 2]] and images.labels.tolist() == [1, 0]
        assert images.split == ["train", "test"]
        assert [path.name for path in images.paths] == ["000001.jpg", "000002.jpg"]
        same(images.boxes, [[38, 115, 531, 260], [4, 0, 46, 20]])


def test_cars_with_the_lists_of_both_forms(cars_devkit, cars_legacy):
    shutil.copy(cars_legacy / "cars_annos.mat", cars_devkit)
    assert len(load("cars", cars_devkit)) == 4
    shutil.copytree(cars_devkit / "devkit", cars_legacy / "devkit")  # beside car_ims/
    assert [path.name for path in load("cars", cars_legacy).paths] == ["000001.jpg", "000002.jpg"]


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
    "absent", ["devkit/cars_meta.mat", "devkit/cars_train_annos.mat", "cars_train/00002.jpg"]
)
def test_cars_missing_file(cars_devkit, absent):
    (cars_devkit / absent).unlink()
    refused(cars_devkit, "cars", FileNotFoundError, str(cars_devkit / absent), "is missing")


def test_cars_in_neither_form(tmp_path):
    refused(tmp_path, "cars", FileNotFoundError, f"{tmp_path / 'devkit/cars_meta.mat'} is missing")


@pytest.mark.slow  # eight processes, one after another
def test_cars_damaged_lists(cars_devkit, cars_legacy):
    for damaged in (b"", b"no MATLAB file", (cars_legacy / "cars_annos.mat").read_bytes()[:300]):
        (cars_legacy / "cars_annos.mat").write_bytes(damaged)
        refused(cars_legacy, "cars", ValueError, "cars_annos.mat: not a readable .mat file (")
    file = cars_devkit / "cars_test_annos_withlabels.mat"
    savemat(file, {"annotations": structure({**CARS, "fname": ["00001.jpg", "00002.jpg"]})})
    refused(
        cars_devkit, "cars", ValueError, "no field 'class'; this is the test list without labels"
    )
    savemat(
        file, {"annotations": structure({"class": [1, 4], "fname": ["00001.jpg", "00002.jpg"]})}
    )
    refused(
        cars_devkit,
        "cars",
        ValueError,
        "annotation 2: class 4 is not among the 3 class names of cars_meta.mat",
    )
    savemat(file, {"other": 1})
    refused(cars_devkit, "cars", ValueError, "no structure array annotations")
    savemat(cars_devkit / "devkit" / "cars_meta.mat", {"other": 1})
    refused(cars_devkit, "cars", ValueError, "no variable class_names")


def test_a_crash_of_the_reader_is_one_files(cars_devkit, tmp_path, monkeypatch):
    """The others are still read; the stand-in kills itself where scipy would."""
    script, killer = tmp_path / "reader.py", tmp_path / "killer.mat"
    script.write_text(
        "import os, sys\n"
        "for path in sys.argv[1:]:\n"
        "    'killer' in path and os.abort()\n"
        "    print('{}', flush=True)\n"
    )
    monkeypatch.setattr(mat, "__file__", str(script))
    contents = mat.read_all([killer, tmp_path / "a.mat", killer, tmp_path / "b.mat"])
    assert contents == ["the reader crashed", {}, "the reader crashed", {}]
    with pytest.raises(ValueError, match="killer.mat: not a readable .mat file .the reader crash"):
        mat.read_mat(tmp_path / "a.mat", killer)
    script.write_text("import time\ntime.sleep(60)\n")
    monkeypatch.setattr(mat, "SECONDS", 0.2)
    with pytest.raises(ValueError, match="killer.mat: .*it takes more than 0.2 seconds"):
        mat.read_mat(killer)


def test_reading_mat_files_needs_no_torch(cars_legacy):
    script = f"import runpy, sys; sys.argv[1:] = [{str(cars_legacy / 'cars_annos.mat')!r}]\n"
    script += (
        f"runpy.run_path({mat.__file__!r}, run_name='__main__'); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "False", done.stderr
