"""Small trees written here in the official format, complete and damaged."""

import pytest

from fieldmarks.data import catalog
from helpers.layout_trees import refused, touch


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
