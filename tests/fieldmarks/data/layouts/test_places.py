"""Copies as people get them: a level of folders more, somewhere; images that are missing."""

import os
import shutil
import warnings
from collections import Counter
from functools import partial
from pathlib import Path

import pytest

from fieldmarks.data import catalog
from fieldmarks.data.layouts import polyvore, reading
from helpers.damage import LAYOUTS, annotations, read_at_once
from helpers.layout_trees import cub_tree, load, nabirds_tree, refused, touch, write


def quietly(read, root: Path, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return read(root, **options)


def one_level_more(folder: Path) -> None:
    """folder/... becomes folder/folder/..., as an archive's own folder in one of its name."""
    folder.rename(folder.with_name("unpacked"))
    folder.mkdir()
    folder.with_name("unpacked").rename(folder / folder.name)


@pytest.fixture(params=LAYOUTS)
def home_and_read(request, tmp_path):
    make, read = LAYOUTS[request.param]
    home = make(tmp_path / "given")
    with read_at_once(annotations(home)):
        yield home, read


def test_a_level_more_above(home_and_read, tmp_path):
    home, read = home_and_read
    expected = quietly(read, home).fingerprint
    top = tmp_path / "given"
    write(tmp_path / "notes.txt", "")
    shutil.copytree(top, tmp_path / "__MACOSX" / "given")  # as macOS puts into an archive
    shutil.copytree(top, tmp_path / ".trash")
    for root in (top, top.parent):
        assert quietly(read, root).fingerprint == expected
    one_level_more(home)
    for root in (home, home.parent, top):
        assert quietly(read, root).fingerprint == expected


def test_a_level_more_in_any_folder(home_and_read):
    home, read = home_and_read
    expected = quietly(read, home)
    folders = [f for f in home.iterdir() if f.is_dir() and f.name != "data"]
    for folder in folders:
        one_level_more(folder)
    result = quietly(read, home)
    assert len(result) == len(expected) and all(path.is_file() for path in result.paths)
    assert [p.name for p in result.paths] == [p.name for p in expected.paths]
    for field in ("attributes", "parts", "boxes"):
        values = getattr(expected, field, None)
        assert values is None or getattr(result, field).equal(values) or values.isnan().any()
        assert (values is None) == (getattr(result, field, None) is None)


def test_of_several_copies(tmp_path):
    official = cub_tree(tmp_path)
    data = tmp_path / "data"
    nabirds_tree(data)  # has an images.txt too, and does not bear CUB's name
    assert load("cub", data).root == official
    assert load("nabirds", data).root == data / "nabirds"
    one_level_more(official)  # CUB is now below NABirds
    assert load("cub", data).root == official / official.name
    shutil.move(official / official.name, data / "birds")
    official.rmdir()
    shutil.copytree(data / "birds", data / "more birds")
    shutil.rmtree(data / "nabirds")
    two = f"one copy is in {data / 'birds'} and one in {data / 'more birds'}"
    refused(data, "cub", ValueError, f"cub: {two}; give the folder of one of them")
    shutil.rmtree(data / "more birds")
    (data / "more birds").symlink_to(data / "birds")  # one copy, twice
    assert load("cub", data).root == data / "birds"


def test_a_copy_too_deep_is_not_found(tmp_path):
    home = tmp_path / "a" / "b" / "c"
    cub_tree(home)
    assert load("cub", tmp_path / "a" / "b").root == home / "data" / "CUB_200_2011"
    message = refused(tmp_path, "cub", FileNotFoundError, f"{tmp_path / 'images.txt'} is missing")
    assert "CUB_200_2011/" in message


def test_few_folders_are_looked_into(tmp_path, monkeypatch, cub_root):
    scandir, seen = os.scandir, Counter()
    monkeypatch.setattr(os, "scandir", lambda top: seen.update([str(top)]) or scandir(top))
    load("cub", cub_root)
    load("cub", cub_root.parent)
    assert not seen
    for kind in range(reading.MOST + 50):  # as in a folder of images, class by class
        touch(tmp_path / "pictures" / f"class {kind}" / "1.jpg")
    for root, most in ((tmp_path / "pictures", 2 + reading.MOST), (tmp_path, 30)):
        seen.clear()
        with pytest.raises(FileNotFoundError):
            catalog.load("aircraft", root)
        assert seen.total() <= most and max(seen.values()) <= 2


# ---- images that are missing


def test_some_images_are_absent(home_and_read):
    home, read = home_and_read
    whole = quietly(read, home)
    whole.paths[1].unlink()
    message = refused(home, read, FileNotFoundError, f"{whole.paths[1]} is missing, listed in ")
    first = message.split("\n")[0]
    assert f"(1 of {len(whole)} files are missing); unpack them, or go on without them" in first
    assert first.endswith("unreadable = 'leave_out'. Expected:")
    result = quietly(read, home, absent=True)
    assert result.paths == whole.paths and result.fingerprint == whole.fingerprint
    for path in {*whole.paths} - {whole.paths[1]}:
        path.unlink()
    for absent in (False, True):
        message = refused(home, partial(read, absent=absent), FileNotFoundError, " of ")
        assert "leave_out" not in message and f"({len(whole)} of {len(whole)} files" in message


def test_the_generated_sets_and_folders_take_absent_too(cub_root, inshop_root, tmp_path):
    for name, home in (("fieldguide", cub_root), ("wardrobe", inshop_root)):
        images = catalog.load(name, home)
        images.paths[0].unlink()
        assert catalog.load(name, home, absent=True).paths == images.paths
    touch(tmp_path / "folder" / "a" / "1.jpg")
    assert len(catalog.load("folder", tmp_path / "folder", absent=True)) == 1


def test_polyvore_takes_absent(tmp_path):
    home = LAYOUTS["polyvore"][0](tmp_path)
    (home / "images" / "30.jpg").unlink()
    assert len(polyvore.load(home, "nondisjoint", "wardrobe", absent=True)) == 9
