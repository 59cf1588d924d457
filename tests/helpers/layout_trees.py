"""Writing small trees in official formats, and loading them."""

import warnings
from functools import partial
from pathlib import Path

import pytest
import torch
from fieldmarks.data import catalog

NAN = float("nan")


def write(file: Path, *lines) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{line}\n" for line in lines))
    return file


def touch(file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    return file


def snapshot(root: Path) -> dict:
    return {path: path.stat().st_mtime_ns for path in root.rglob("*")}


def refused(root: Path, load, error: type, *fragments: str) -> str:
    """The message of the error that loading raises: one line, but for the expected tree. Nothing is
    left behind.

    `load` is a function of the root, or a name of the catalogue.
    """
    if isinstance(load, str):
        load = partial(catalog.load, load)
    before = snapshot(root)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(error) as raised:
            load(root)
    message = str(raised.value)
    first, *tree = message.split("\n")
    for word in fragments:
        assert word in first, message
    assert bool(tree) == (error is FileNotFoundError) and len(tree) < 15
    assert snapshot(root) == before
    return message


def same(result: torch.Tensor, expected) -> None:
    assert torch.allclose(result, torch.tensor(expected, dtype=result.dtype), equal_nan=True), (
        result
    )


def load(name: str, root: Path):
    """Load a set that is a partial copy and may say nothing else."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        images = catalog.load(name, root)
    assert [str(warning.message).split(":")[1][:15] for warning in said] == [" a partial copy"]
    return images
