"""Stanford Cars (Cars196), in both forms it has been published in.

Source: Krause et al., 3D Object Representations for Fine-Grained Categorization, 2013.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from scipy.io import loadmat

from fieldmarks.data.imageset import ImageSet
from fieldmarks.data.layouts.reading import compact, existing_folder, missing, require_files

TREE = """  stanford_cars/
    cars_train/00001.jpg ...  cars_test/00001.jpg ...
    devkit/cars_meta.mat  devkit/cars_train_annos.mat
    cars_test_annos_withlabels.mat                       (here or in devkit/)
  or, as first published,
    car_ims/000001.jpg ...  cars_annos.mat"""

BOX_FIELDS = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2")


def load(root: Path) -> ImageSet:
    """Read the folder ``stanford_cars`` or its parent, in the form with ``devkit/`` or the older one with ``car_ims/``.

    Both published parts are pooled, with the official split in `split`. Boxes are turned from MATLAB's inclusive
    corners, counted from 1, into x y width height.

    Raises:
        FileNotFoundError: a list or an image is missing; the first is named, and the expected tree shown.
        ValueError: a .mat file that cannot be read or lacks a field, or a class number without a name.
    """
    root = existing_folder(root, "cars", TREE)
    homes = [root] + [
        root / below for below in ("stanford_cars", "cars196", "cars") if (root / below).is_dir()
    ]
    for home in homes:
        if (home / "devkit").is_dir():
            return _load_devkit(home)
        if (home / "cars_annos.mat").is_file():
            return _load_legacy(home)
    raise missing("cars", TREE, [homes[-1] / "devkit" / "cars_train_annos.mat"])


def _load_devkit(home: Path) -> ImageSet:
    meta, train = home / "devkit" / "cars_meta.mat", home / "devkit" / "cars_train_annos.mat"
    places = [folder / "cars_test_annos_withlabels.mat" for folder in (home, home / "devkit")]
    test = next((file for file in places if file.is_file()), places[0])
    require_files("cars", TREE, [meta, train, test])
    names = _class_names(_read(meta), meta)
    files, class_ids, boxes, split = [], [], [], []
    for word, annotations in (("train", train), ("test", test)):
        fields = _annotations(annotations, ("fname", "class"))
        files += [home / f"cars_{word}" / file for file in fields["fname"]]
        class_ids += _class_ids(fields["class"], names, annotations)
        boxes.append(_boxes(fields))
        split += [word] * len(fields["fname"])
    return _assemble(home, files, class_ids, boxes, split, names)


def _load_legacy(home: Path) -> ImageSet:
    file = home / "cars_annos.mat"
    names = _class_names(_read(file), file)
    fields = _annotations(file, ("relative_im_path", "class", "test"))
    files = [home / path for path in fields["relative_im_path"]]
    split = ["test" if int(flag) else "train" for flag in fields["test"]]
    return _assemble(
        home, files, _class_ids(fields["class"], names, file), [_boxes(fields)], split, names
    )


def _assemble(
    home: Path,
    files: list[Path],
    class_ids: list[int],
    boxes: list[np.ndarray | None],
    split: list[str],
    names: dict[int, str],
) -> ImageSet:
    require_files("cars", TREE, files)
    labels, class_names = compact(class_ids, names)
    known = all(part is not None for part in boxes)
    return ImageSet(
        name="cars",
        paths=files,
        labels=labels,
        class_names=class_names,
        split=split,
        root=home,
        boxes=torch.from_numpy(np.concatenate(boxes)).float() if known else None,
    )


# ---- MATLAB files


def _read(file: Path) -> dict:
    try:
        return loadmat(file, squeeze_me=True)
    except Exception as error:  # scipy raises half a dozen kinds on a damaged file
        raise ValueError(f"{file}: not a readable .mat file ({error})") from error


def _class_names(content: dict, file: Path) -> dict[int, str]:
    if "class_names" not in content:
        raise ValueError(f"{file}: there is no variable class_names")
    return {
        number: str(name)
        for number, name in enumerate(np.atleast_1d(content["class_names"]), start=1)
    }


def _annotations(file: Path, required: tuple[str, ...]) -> dict[str, np.ndarray]:
    """The structure array `annotations`, as one array a field."""
    content = _read(file)
    if "annotations" not in content or not content["annotations"].dtype.names:
        raise ValueError(f"{file}: there is no structure array annotations")
    annotations = np.atleast_1d(content["annotations"])
    absent = [field for field in required if field not in annotations.dtype.names]
    if absent:
        raise ValueError(
            f"{file}: annotations have no field {absent[0]!r}"
            + ("; this is the test list without labels" if absent == ["class"] else "")
        )
    return {field: annotations[field] for field in annotations.dtype.names}


def _class_ids(values: np.ndarray, names: dict[int, str], file: Path) -> list[int]:
    ids = [int(value) for value in values]
    for row, number in enumerate(ids, start=1):
        if number not in names:
            raise ValueError(
                f"{file} annotation {row}: class {number} is not among the {len(names)} class names"
            )
    return ids


def _boxes(fields: dict[str, np.ndarray]) -> np.ndarray | None:
    if any(field not in fields for field in BOX_FIELDS):
        return None
    x1, y1, x2, y2 = (fields[field].astype(np.float64) for field in BOX_FIELDS)
    return np.stack([x1 - 1, y1 - 1, x2 - x1 + 1, y2 - y1 + 1], axis=1)  # (N, 4)
