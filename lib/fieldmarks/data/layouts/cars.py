"""Stanford Cars (Cars196), in both forms it has been published in.

Source: Krause et al., 3D Object Representations for Fine-Grained Categorization, 2013."""

import reprlib
import warnings
from pathlib import Path

import torch

from fieldmarks.data.imageset import ImageSet
from fieldmarks.data.layouts.mat import read_mat
from fieldmarks.data.layouts.reading import Copy, number, to_int

TREE = """  stanford_cars/
    cars_train/00001.jpg ...  cars_test/00001.jpg ...
    devkit/cars_meta.mat  devkit/cars_train_annos.mat    (or car_devkit/devkit/)
    cars_test_annos_withlabels.mat                       (here or beside cars_meta.mat)
  or, as first published,
    car_ims/000001.jpg ...  cars_annos.mat"""

META, LEGACY, TEST = "cars_meta.mat", "cars_annos.mat", "cars_test_annos_withlabels.mat"
DEVKITS = ("devkit", "car_devkit/devkit")
CORNERS = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2")


def load(root: Path, absent: bool = False) -> ImageSet:
    """Read the folder ``stanford_cars`` or one above it, in the form with ``devkit/`` or with
    ``car_ims/``. Both published parts are pooled. The devkit has no labels of the test part: where
    cars_test_annos_withlabels.mat is missing, the training part alone is loaded, with a warning.
    Raises as `catalog.load`."""
    copy = Copy("cars", TREE, root, [*(f"{kit}/{META}" for kit in DEVKITS), LEGACY], absent)
    meta, legacy = copy.at(*(f"{kit}/{META}" for kit in DEVKITS)), copy.at(LEGACY)
    # Both may be there; the images then say which of the two numbers them.
    if not legacy.exists() or (meta.exists() and copy.at("cars_train").exists()):
        first, train = meta, meta.with_name("cars_train_annos.mat")
        test = copy.at(TEST, *(f"{kit}/{TEST}" for kit in DEVKITS), f"car_devkit/{TEST}")
        copy.require(meta, train)
        lists = {"train": train} | ({"test": test} if test.exists() else {})
        names, *contents = read_mat(meta, *lists.values())
        class_names = _class_names(meta, names)
        rows = [
            (part, place, f"cars_{part}/{row['fname']}", row)
            for (part, file), content in zip(lists.items(), contents, strict=True)
            for place, row in _annotations(file, content, meta, class_names, "fname")
        ]
        if len(lists) == 1:
            alone = f"the training part is loaded alone, for the labels of the test part, {TEST},"
            put = f"are missing; put them into {copy.home} to have both parts"
            warnings.warn(f"cars: {alone} {put}", stacklevel=3)
    else:
        first, (content,) = legacy, read_mat(legacy)
        class_names = _class_names(legacy, content)
        required = "relative_im_path", "test"
        annotations = _annotations(legacy, content, legacy, class_names, *required)
        rows = [
            ("test" if number(place, row["test"]) else "train", place, row["relative_im_path"], row)
            for place, row in annotations
        ]
    split, places = [part for part, *_ in rows], [place for _, place, *_ in rows]
    paths = copy.paths([(place, file) for _, place, file, _ in rows])
    copy.require_images(paths, places, first)
    boxes = None
    if all(corner in row for *_, row in rows for corner in CORNERS):
        boxes = torch.tensor([_box(place, row) for _, place, _, row in rows], dtype=torch.float32)
    class_ids = [row["class"] for *_, row in rows]
    return copy.images(paths, class_ids, class_names, split=split, boxes=boxes)


def _box(place: str, row: dict) -> tuple[float, ...]:
    """x y width height from MATLAB's inclusive corners, counted from 1."""
    x1, y1, x2, y2 = (number(place, row[corner]) for corner in CORNERS)
    return x1 - 1, y1 - 1, x2 - x1 + 1, y2 - y1 + 1


def _class_names(file: Path, content: dict) -> dict[int, str]:
    names = content.get("class_names")
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{file}: there is no variable class_names, a list of names")
    return dict(enumerate(names, start=1))


def _annotations(
    file: Path, content: dict, names_file: Path, names: dict, *required: str
) -> list[tuple[str, dict]]:
    """(place, annotation) of the structure array `annotations`, whose classes are in `names`. The
    first of the `required` fields is the image's file."""
    fields = content.get("annotations")
    if not isinstance(fields, dict):
        raise ValueError(f"{file}: there is no structure array annotations")
    for field in (*required, "class"):
        if field not in fields:
            test = "; this is the test list without labels" if field == "class" else ""
            raise ValueError(f"{file}: annotations have no field {field!r}{test}")
    rows = []
    for values in zip(*fields.values(), strict=True):
        row, place = dict(zip(fields, values, strict=True)), f"{file} annotation {len(rows) + 1}"
        row["class"] = to_int(place, row["class"])
        if row["class"] not in names:
            among = f"among the {len(names)} class names"
            raise ValueError(f"{place}: class {row['class']} is not {among} of {names_file.name}")
        if not isinstance(row[required[0]], str):
            raise ValueError(
                f"{place}: expected the name of a file, found {reprlib.repr(row[required[0]])}"
            )
        rows.append((place, row))
    return rows
