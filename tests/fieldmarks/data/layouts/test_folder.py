"""Small trees written here in the official format, complete and damaged."""

import pytest
from PIL import Image

from fieldmarks.data import catalog
from helpers.layout_trees import refused, touch


@pytest.mark.filterwarnings("ignore:folder. 3 files passed over:UserWarning")
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


def test_pictures_are_known_by_content_and_what_is_left_out_is_counted(tmp_path):
    picture = Image.new("RGB", (9, 9))
    for name, form in {"IMG_1": "HEIF", "scan.jp2": "JPEG2000", "x.jfif": "JPEG"}.items():
        (tmp_path / "all" / "a").mkdir(parents=True, exist_ok=True)
        picture.save(tmp_path / "all" / "a" / name, format=form)
        touch(tmp_path / "all" / "b" / "x.jpg")
    (tmp_path / "all" / "a" / "raw.cr2").write_bytes(b"II*\0\x10\0\0\0CR\x02\0" + bytes(99))
    (tmp_path / "all" / "b" / "labels.csv").write_bytes(b"x,1\n")
    (tmp_path / "all" / "b" / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
    touch(tmp_path / "__MACOSX" / "a" / "._x.jpg")
    with pytest.warns(UserWarning) as warned:
        images = catalog.load("folder", tmp_path / "all")
    assert [path.name for path in images.paths] == ["IMG_1", "scan.jp2", "x.jfif", "x.jpg"]
    raw, others = (str(each.message) for each in warned)
    assert "1 picture of kinds that cannot be read left out" in raw and "(Canon CR2)" in raw
    assert "2 files passed over, no pictures, first" in others and "labels.csv" in others


@pytest.mark.parametrize("below", ["a/b", "train/a", "x/train/a", "x/y/a"])
def test_a_folder_more_is_looked_into(tmp_path, below):
    for name in ("1", "2"):
        touch(tmp_path / "archive" / below / name / "x.jpg")
        touch(tmp_path / "__MACOSX" / below / name / "._x.jpg")
    images = catalog.load("folder", tmp_path)
    assert len(images) == 2 and images.class_names == ["1", "2"]
