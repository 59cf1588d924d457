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


def cub_tree(folder: Path) -> Path:
    """Three classes of five images; ids and classes are neither sorted nor contiguous, as in a
    partial copy."""
    home = folder / "data" / "CUB_200_2011"
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
        folder / "data" / "attributes.txt",
        "1 has_bill::hooked",
        "2 has_bill::dagger",
        "3 has_crown::blue",
    )
    return home


def inshop_tree(folder: Path) -> Path:
    home = folder / "In-shop Clothes Retrieval Benchmark"
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
        *(f"{file}   {row[0]}\t {row[1]}  " for file, row in zip(files, rows, strict=True)),
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
