"""Writing small trees in official formats, and loading them."""

import json
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import savemat

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


def nabirds_tree(folder: Path) -> Path:
    """Five images of three of six classes. As text "0817" would stand before "1002", and "295"
    between them."""
    home = folder / "nabirds"
    files = {
        "b-2": "1002/x.jpg",
        "a-1": "0295/y.jpg",
        "07": "0817/z.jpg",
        "7": "0295/w.jpg",
        "c": "1002/v.jpg",
    }
    write(home / "images.txt", *(f"{key} {file}" for key, file in files.items()))
    for file in files.values():
        touch(home / "images" / file)
    write(home / "image_class_labels.txt", "7 295", "07 817", "a-1 295", "b-2 1002", "c 1002")
    write(
        home / "classes.txt",
        "0 Birds",
        "1002 House Sparrow (Female/Juvenile)",
        "22 Ducks, Geese, and Swans",
        "817 Oak Titmouse",
        "295 Common Eider (Adult male)",
        "1003 Common Eider",
    )
    write(home / "train_test_split.txt", "a-1 1", "b-2 0", "7 0", "07 1", "c 1")
    write(home / "bounding_boxes.txt", *(f"{key} {len(key)} 20 300 40" for key in sorted(files)))
    return home


def vegfru_tree(folder: Path) -> Path:
    home = folder / "vegfru"
    lists = {
        "train": [
            "veg200_images/leek/1.jpg 9",
            "fru92_images/yacon/1.jpg 291",
            "veg200_images/bean/1.jpg 10",
        ],
        "val": ["fru92_images/yacon/2.jpg 291"],
        "test": [
            "veg200_images/bean/2.jpg 10",
            "veg200_images/leek/2.jpg 9",
            "veg200_images/leek/3.jpg 9",
            "fru92_images/yacon/3.jpg 291",
        ],
    }
    for word, lines in lists.items():
        write(home / "vegfru_list" / f"vegfru_{word}.txt", *lines)
        for line in lines:
            touch(home / line.split()[0])
    return home


def food101_tree(folder: Path) -> Path:
    home = folder / "food-101"
    write(home / "meta" / "classes.txt", "waffles", "apple_pie", "french_onion_soup")
    write(home / "meta" / "labels.txt", "Waffles", "Apple pie", "French onion soup")
    parts = {
        "train": ["apple_pie/12", "waffles/7"],
        "test": ["waffles/07", "apple_pie/9", "apple_pie/1"],
    }
    for word, images in parts.items():
        write(home / "meta" / f"{word}.txt", *images)
        by_class = {
            name: [image for image in images if image.startswith(name)]
            for name in ("apple_pie", "waffles")
        }
        write(home / "meta" / f"{word}.json", json.dumps(by_class))
        for image in images:
            touch(home / "images" / f"{image}.jpg")
    return home


def aircraft_tree(folder: Path) -> Path:
    home = folder / "fgvc-aircraft-2013b" / "data"
    write(home / "variants.txt", "DC-10", "Beechcraft 1900", "Unused 1", "A300 B4")
    lists = {
        "train": ["0034309 A300 B4", "1234567 Beechcraft 1900"],
        "val": ["0000001 DC-10"],
        "test": ["7654321 Beechcraft 1900", "0000002 DC-10"],
    }
    for word, lines in lists.items():
        write(home / f"images_variant_{word}.txt", *lines)
        for line in lines:
            touch(home / "images" / f"{line[:7]}.jpg")
    write(home / "images_variant_trainval.txt", *lists["train"], *lists["val"])
    write(
        home / "images_box.txt",
        *(f"{line[:7]} 1 2 11 22" for lines in lists.values() for line in reversed(lines)),
    )
    return home


def structure(fields: dict) -> np.ndarray:
    """A MATLAB structure array (1, N), as in the official files."""
    rows = list(zip(*fields.values(), strict=True))
    array = np.empty((1, len(rows)), dtype=[(field, object) for field in fields])
    array[0, :] = rows
    return array


CARS = {"bbox_x1": [39, 5], "bbox_y1": [116, 1], "bbox_x2": [569, 50], "bbox_y2": [375, 20]}
NAMES = np.array(
    [["AM General Hummer SUV 2000", "Acura RL Sedan 2012", "smart fortwo Convertible 2012"]],
    dtype=object,
)


def cars_tree(folder: Path) -> Path:
    home = folder / "stanford_cars"
    (home / "devkit").mkdir(parents=True)
    savemat(home / "devkit" / "cars_meta.mat", {"class_names": NAMES})
    train = {**CARS, "class": [3, 1], "fname": ["00001.jpg", "00002.jpg"]}
    test = {**CARS, "class": [1, 2], "fname": ["00001.jpg", "00002.jpg"]}
    savemat(home / "devkit" / "cars_train_annos.mat", {"annotations": structure(train)})
    savemat(home / "cars_test_annos_withlabels.mat", {"annotations": structure(test)})
    for word in ("train", "test"):
        for name in ("00001.jpg", "00002.jpg"):
            touch(home / f"cars_{word}" / name)
    return home


def cars_first_published_tree(folder: Path) -> Path:
    home = folder / "cars196"
    fields = {
        "relative_im_path": ["car_ims/000001.jpg", "car_ims/000002.jpg"],
        **CARS,
        "class": [3, 1],
        "test": [0, 1],
    }
    home.mkdir(parents=True)
    savemat(home / "cars_annos.mat", {"annotations": structure(fields), "class_names": NAMES})
    for name in fields["relative_im_path"]:
        touch(home / name)
    return home


OUTFITS = {  # item 30 is in outfits of two parts, item 10 in two of one
    "train": {"7": {1: "10", 2: "30", 3: "20"}, "8": {2: "10", 5: "40"}},
    "valid": {"9": {1: "50", 2: "30"}, "11": {1: "60", 2: "70", 3: "50"}},
    "test": {"12": {1: "80", 2: "90"}},
}
ITEMS = ["10", "30", "20", "40", "50", "60", "70", "80", "90"]  # in order of appearance


def outfit_list(sets: dict) -> list:
    return [
        {
            "set_id": name,
            "items": [{"item_id": item, "index": index} for index, item in items.items()],
        }
        for name, items in sets.items()
    ]


def blank(question: str, answers: str, position: int) -> dict:
    return {"question": question.split(), "answers": answers.split(), "blank_position": position}


def polyvore_tree(folder: Path) -> Path:
    home = folder / "polyvore_outfits"
    folder = home / "nondisjoint"
    for part, sets in OUTFITS.items():
        write(folder / f"{part}.json", json.dumps(outfit_list(sets), indent=4))
    write(folder / "compatibility_train.txt", "1 7_1 7_2 7_3", "0  8_5\t7_2 ")
    write(folder / "compatibility_valid.txt", "1 11_1 11_2 11_3", "0 9_1 11_3 11_2", "")
    write(folder / "compatibility_test.txt", "1 12_1 12_2")
    write(folder / "fill_in_blank_train.json", json.dumps([blank("7_1 7_3", "7_2 8_2 8_5", 2)]))
    write(
        folder / "fill_in_blank_valid.json",
        json.dumps([blank("11_1 11_3", "11_2 9_1", 2), blank("9_2", "9_1 11_1 11_1", 1)]),
    )
    write(folder / "fill_in_blank_test.json", json.dumps([blank("12_1", "12_2 12_1", 2)]))
    write(folder / "fashion_compatibility_harder_val.txt", "0 11_1 11_1 9_2")
    write(
        folder / "fill_in_blank_valid_harder_new.json",
        json.dumps([blank("11_1", "9_1 11_3 11_2", 3)]),
    )
    for item in ITEMS:
        touch(home / "images" / f"{item}.jpg")
    write(
        home / "polyvore_item_metadata.json",
        json.dumps(
            {
                "10": {"semantic_category": "tops", "category_id": "51"},
                "30": {"category_id": "62"},
                "20": {"category_id": 51},
                "40": {"semantic_category": "", "category_id": "3"},
                "50": {},
                "60": {"semantic_category": "jewellery "},
            }
        ),
    )
    write(
        home / "categories.csv",
        "3,dress,all-body",
        "51,scarf, scarves",
        "51,gloves,accessories ",
        "62,earrings,jewellery",
        "62,ring, gold,jewellery ",
        "2,undefined,",
    )
    write(
        home / "polyvore_attributes.json",
        json.dumps(
            {
                "annotations": {"10": [2, 0], "40": [], "90": [1], "1234": [0]},
                "attributes": ["lace", "blue", "knee length"],
            }
        ),
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
