"""A data set against its published counts."""

import warnings

import pytest
from PIL import Image

from fieldlab.check import check, check_images
from helpers.layout_trees import cub_tree, inshop_tree


def test_unknown_name(tmp_path):
    for function in (check, check_images):
        with pytest.raises(ValueError, match="did you mean 'cub'"):
            function("CUB", tmp_path)


def test_check_compares_with_the_official_counts(tmp_path):
    cub_root, inshop_root = cub_tree(tmp_path), inshop_tree(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert check("inshop", inshop_root) == [
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
    assert ("open split: train", 5_864, 2, False) in check("cub", cub_root)


def test_check_images(tmp_path):
    cub_root = cub_tree(tmp_path)
    Image.new("RGB", (8, 8)).save(cub_root / "images" / "010.Crow" / "b.jpg")
    result = check_images("cub", cub_root)
    assert len(result) == 4 and result[0] == (
        cub_root / "images" / "010.Crow" / "a.jpg",
        "the file is empty",
    )
