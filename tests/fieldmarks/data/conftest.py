"""Small trees in official formats that several files of tests read."""

from pathlib import Path

import pytest

from helpers.layout_trees import cub_tree, food101_tree, inshop_tree, nabirds_tree, vegfru_tree


@pytest.fixture
def cub_root(tmp_path) -> Path:
    return cub_tree(tmp_path)


@pytest.fixture
def inshop_root(tmp_path) -> Path:
    return inshop_tree(tmp_path)


@pytest.fixture
def nabirds_root(tmp_path) -> Path:
    return nabirds_tree(tmp_path)


@pytest.fixture
def vegfru_root(tmp_path) -> Path:
    return vegfru_tree(tmp_path)


@pytest.fixture
def food_root(tmp_path) -> Path:
    return food101_tree(tmp_path)
