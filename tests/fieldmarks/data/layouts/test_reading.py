"""Small trees written here in the official format, complete and damaged."""

import shutil

import pytest
import torch

from fieldmarks.data import catalog
from helpers.layout_trees import load, refused


def test_no_such_folder(tmp_path):
    for name in catalog.LAYOUTS:
        root = tmp_path / "absent"
        message = refused(root, name, FileNotFoundError, f"{name}: there is no folder {root}")
        assert "Expected:\n" in message


def test_windows_line_ends_and_byte_order_mark_of_cub(cub_root):
    expected = load("cub", cub_root)
    for file in cub_root.rglob("*.txt"):
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n"))
    result = load("cub", cub_root)
    assert result.fingerprint == expected.fingerprint and torch.equal(result.boxes, expected.boxes)
    assert torch.equal(result.parts, expected.parts)


@pytest.mark.parametrize("name", ["nabirds", "vegfru", "food101"])
def test_half_unpacked(name, nabirds_root, vegfru_root, food_root):
    home, folders = {
        "nabirds": (nabirds_root, ["images"]),
        "food101": (food_root, ["images"]),
        "vegfru": (vegfru_root, ["veg200_images", "fru92_images"]),
    }[name]
    count = len(load(name, home))
    for folder in folders:
        shutil.rmtree(home / folder)
    refused(
        home, name, FileNotFoundError, f"{name}: {home}", f"{count} of {count} files are missing"
    )


@pytest.mark.parametrize("name", ["nabirds", "vegfru", "food101"])
def test_windows_line_ends_and_byte_order_mark(name, nabirds_root, vegfru_root, food_root):
    home = {"nabirds": nabirds_root, "vegfru": vegfru_root, "food101": food_root}[name]
    expected = load(name, home)
    for file in home.rglob("*.txt"):
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n"))
    result = load(name, home)
    assert result.fingerprint == expected.fingerprint and result.split == expected.split
