"""Stanford Cars (Cars196), in both forms it has been published in.

Source: Krause et al., 3D Object Representations for Fine-Grained Categorization, 2013."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.io import loadmat

from fieldmarks.data.imageset import ImageSet
from fieldmarks.data.layouts.reading import Copy

TREE = """  stanford_cars/
    cars_train/00001.jpg ...  cars_test/00001.jpg ...
    devkit/cars_meta.mat  devkit/cars_train_annos.mat
    cars_test_annos_withlabels.mat                       (here or in devkit/)
  or, as first published,
    car_ims/000001.jpg ...  cars_annos.mat"""

BOX_FIELDS = ["bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2"]


def load(root: Path) -> ImageSet:
    """Read the folder ``stanford_cars`` or its parent, in the form with ``devkit/`` or with
    ``car_ims/``. Both published parts are pooled. Raises as `catalog.load`."""
    markers = ["devkit", "cars_annos.mat"]
    copy = Copy("cars", TREE, root, markers, ["stanford_cars", "cars196", "cars"])
    devkit, legacy = copy.home / "devkit", copy.home / "cars_annos.mat"
    if devkit.is_dir():
        meta, train = devkit / "cars_meta.mat", devkit / "cars_train_annos.mat"
        places = [folder / "cars_test_annos_withlabels.mat" for folder in (copy.home, devkit)]
        test = next((file for file in places if file.is_file()), places[0])
        copy.require([meta, train, test])
        names = _class_names(meta)
        parts = [_annotations(file, names, "fname") for file in (train, test)]
        rows = pd.concat(parts, join="inner", keys=["train", "test"])
        split = rows.index.get_level_values(0).tolist()
        files = [f"cars_{part}/{file}" for part, file in zip(split, rows["fname"], strict=True)]
    else:
        names = _class_names(legacy)
        rows = _annotations(legacy, names, "relative_im_path", "test")
        split = ["test" if flag else "train" for flag in rows["test"]]
        files = rows["relative_im_path"]
    boxes = None
    if set(BOX_FIELDS) <= set(rows):
        # From MATLAB's inclusive corners, counted from 1, to x y width height.
        x1, y1, x2, y2 = rows[BOX_FIELDS].to_numpy(np.float64).T
        boxes = torch.tensor(np.stack([x1 - 1, y1 - 1, x2 - x1 + 1, y2 - y1 + 1], axis=1)).float()
    paths, class_ids = [copy.home / file for file in files], rows["class"].astype(int).tolist()
    return copy.images(paths, class_ids, names, split=split, boxes=boxes)


def _read(file: Path) -> dict:
    try:
        return loadmat(file, squeeze_me=True)
    except Exception as error:  # scipy raises half a dozen kinds on a damaged file
        raise ValueError(f"{file}: not a readable .mat file ({error})") from error


def _class_names(file: Path) -> dict[int, str]:
    content = _read(file)
    if "class_names" not in content:
        raise ValueError(f"{file}: there is no variable class_names")
    return dict(enumerate(map(str, np.atleast_1d(content["class_names"])), start=1))


def _annotations(file: Path, names: dict[int, str], *required: str) -> pd.DataFrame:
    """The structure array `annotations`, whose classes are in `names`."""
    content = _read(file)
    if "annotations" not in content or not content["annotations"].dtype.names:
        raise ValueError(f"{file}: there is no structure array annotations")
    rows = np.atleast_1d(content["annotations"])
    for field in (*required, "class"):
        if field not in rows.dtype.names:
            test = "; this is the test list without labels" if field == "class" else ""
            raise ValueError(f"{file}: annotations have no field {field!r}{test}")
    for row, number in enumerate(rows["class"], start=1):
        if int(number) not in names:
            among = f"among the {len(names)} class names"
            raise ValueError(f"{file} annotation {row}: class {number} is not {among}")
    return pd.DataFrame({field: rows[field] for field in rows.dtype.names})
