"""The real files: official lists with their true counts, and photographs."""

import json
import os
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from fieldlab.check import check
from fieldmarks.data import catalog
from fieldmarks.data.layouts.reading import Copy
from fieldmarks.data.pixels import PixelCache
from fieldmarks.decoding import decode, unreadable

pytestmark = pytest.mark.filterwarnings("ignore:cub. .* each image gets the attributes:UserWarning")


@pytest.fixture(scope="module")
def birds(real_data):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return catalog.load("cub", real_data)


def lines(file: Path) -> list[list[str]]:
    return [line.split() for line in file.read_text().splitlines()]


def make_empty(file: Path) -> None:
    os.close(
        os.open(file, os.O_CREAT | os.O_WRONLY)
    )  # Path.touch takes three times as long, and there are 20,000


# ---- CUB, classes 1-50 with photographs


def test_cub_of_fifty_classes(real_data, birds):
    with pytest.warns(UserWarning, match="50 of 200 classes, 2,889 of 11,788 images"):
        catalog.load("cub", real_data / "CUB_200_2011")
    assert (
        len(birds) == 2_889
        and len(birds.class_names) == 50
        and birds.class_names[0] == "001.Black_footed_Albatross"
    )
    assert [len(part) for part in birds.closed_split()] == [1_500, 1_389]
    train, test = birds.open_split()
    assert set(train.labels.tolist()) == set(range(25)) and set(test.labels.tolist()) == set(
        range(25, 50)
    )
    assert len(train) + len(test) == 2_889
    assert len(birds.fingerprint) == 16


def test_cub_lists_line_by_line(real_data, birds):
    home = real_data / "CUB_200_2011"
    row_of = {fields[0]: row for row, fields in enumerate(lines(home / "images.txt"))}
    for key, file in lines(home / "images.txt"):
        assert birds.paths[row_of[key]] == home / "images" / file
    for key, number in lines(home / "image_class_labels.txt"):
        row = row_of[key]
        assert birds.labels[row] == int(number) - 1
        assert birds.paths[row].parent.name == birds.class_names[int(number) - 1]
    for key, flag in lines(home / "train_test_split.txt"):
        assert birds.split[row_of[key]] == {"1": "train", "0": "test"}[flag]
    boxes, parts = birds.boxes.numpy(), birds.parts.numpy()
    for key, *box in lines(home / "bounding_boxes.txt"):
        assert np.array_equal(boxes[row_of[key]], np.float32(box))
    for key, part, *values in lines(home / "parts" / "part_locs.txt"):
        assert np.array_equal(parts[row_of[key], int(part) - 1], np.float32(values))
    assert (
        birds.parts.shape == (2_889, 15, 3)
        and birds.part_names[1] == "beak"
        and birds.part_names[13] == "tail"
    )


def test_cub_attributes_of_classes(real_data, birds):
    table = (
        np.loadtxt(
            real_data / "CUB_200_2011" / "attributes" / "class_attribute_labels_continuous.txt"
        )
        / 100
    )
    assert birds.attributes.shape == (2_889, 312) and len(birds.attribute_names) == 312
    assert birds.attribute_names[0] == "has_bill_shape::curved_(up_or_down)"
    assert torch.allclose(birds.attributes, torch.from_numpy(table).float()[birds.labels])


def test_boxes_and_parts_lie_in_the_photographs(birds):
    for row in range(0, len(birds), 97):
        with Image.open(birds.paths[row]) as image:
            width, height = image.size
        x, y, w, h = birds.boxes[row].tolist()
        assert -1 <= x and -1 <= y and x + w <= width + 1 and y + h <= height + 1
        seen = birds.parts[row][birds.parts[row, :, 2] == 1]
        assert (
            (seen[:, 0] <= width).all()
            and (seen[:, 1] <= height).all()
            and (seen[:, :2] >= 0).all()
        )


# ---- the full lists


@pytest.fixture(scope="module")
def full_cub(real_data, tmp_path_factory) -> Path:
    """All of CUB's official lists, with an empty file for every photograph."""
    home = tmp_path_factory.mktemp("full") / "CUB_200_2011"
    for word in ("images", "image_class_labels", "classes", "train_test_split", "bounding_boxes"):
        source = real_data / "annotations" / "cub_full" / f"{word}.txt"
        home.mkdir(exist_ok=True)
        (home / source.name).write_bytes(source.read_bytes())
    for _, name in lines(home / "classes.txt"):
        (home / "images" / name).mkdir(parents=True)
    for _, file in lines(home / "images.txt"):
        make_empty(home / "images" / file)
    return home


def test_full_cub_has_the_official_counts(full_cub):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        images = catalog.load("cub", full_cub)
    assert [len(part) for part in images.closed_split()] == [5_994, 5_794]
    assert [len(part) for part in images.open_split()] == [5_864, 5_924]
    rows = check("cub", full_cub.parent)
    assert [row[0] for row in rows] == [
        "images",
        "classes",
        "split: train",
        "split: test",
        "open split: train",
        "open split: train classes",
        "open split: test",
        "open split: test classes",
        "closed split: train",
        "closed split: test",
    ]
    assert all(ok and expected == result for _, expected, result, ok in rows)


def test_full_cub_has_the_usual_few_shot_classes(real_data, full_cub):
    images = catalog.load("cub", full_cub)
    for name, rest in (("base", (0, 2)), ("val", (1,)), ("novel", (3,))):
        file = json.loads(
            (real_data / "annotations" / "fewshot" / "CUB" / f"{name}.json").read_text()
        )
        count = Counter("/".join(Path(path).parts[-2:]) for path in file["image_names"])
        chosen = [
            path
            for path, label in zip(images.paths, images.labels.tolist(), strict=True)
            if label % 4 in rest
        ]
        assert count == Counter("/".join(path.parts[-2:]) for path in chosen)


def test_image_attributes_in_the_official_numbers(full_cub):
    # A tenth of the official list's 3.7 million lines, some with extra fields as there.
    generator = np.random.default_rng(0)
    ids, numbers = np.arange(1, 1_179).repeat(312), np.tile(np.arange(1, 313), 1_178)
    present, certainty = generator.integers(0, 2, len(ids)), generator.integers(1, 5, len(ids))
    tails = [" 1.5", " 0 1.509", " 2.7 1 1"]
    content = "".join(
        f"{i} {a} {p} {c}{tails[(i + a) % 3]}\n"
        for i, a, p, c in zip(ids, numbers, present, certainty, strict=True)
    )
    file = full_cub / "attributes" / "image_attribute_labels.txt"
    file.parent.mkdir()
    file.write_text(content)
    try:
        result = catalog.load("cub", full_cub).attributes
    finally:
        file.unlink()
        file.parent.rmdir()
    expected = np.where(certainty == 1, np.nan, present).reshape(1_178, 312)
    assert result.shape == (11_788, 312) and result[1_178:].isnan().all()
    assert np.array_equal(result[:1_178].numpy(), expected.astype(np.float32), equal_nan=True)


def test_aircraft_has_the_official_counts(real_data, tmp_path):
    """The real labels, which other projects list in their own way, in the official format."""
    source = real_data / "annotations" / "fgvc_aircraft" / "hawkeye"
    home = tmp_path / "fgvc-aircraft-2013b" / "data"
    (home / "images").mkdir(parents=True)
    (home / "variants.txt").write_text("".join(f"Variant {number}\n" for number in range(100)))
    for word in ("train", "val", "test"):
        entries = [(number, file[:7]) for number, file in lines(source / f"{word}_variant.txt")]
        content = "".join(f"{image} Variant {number}\n" for number, image in entries)
        (home / f"images_variant_{word}.txt").write_text(content)
        for _, image in entries:
            make_empty(home / "images" / f"{image}.jpg")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        images = catalog.load("aircraft", tmp_path)
    assert [len(part) for part in images.closed_split()] == [6_667, 3_333]
    assert all(ok for *_, ok in check("aircraft", tmp_path))


@pytest.fixture
def without_photographs(monkeypatch):
    """Loads by the lists alone: 300,000 empty files would take a minute."""
    monkeypatch.setattr(Copy, "require_images", lambda *_: None)


def test_nabirds_has_the_official_counts(real_data, without_photographs):
    home = real_data / "annotations" / "nabirds"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        images = catalog.load("nabirds", home)
    assert all(ok and expected == result for _, expected, result, ok in check("nabirds", home))
    assert [len(part) for part in images.closed_split()] == [23_929, 24_633]
    # The lists stand in one order, so that they can be read side by side.
    names = {
        number: name
        for number, name in (
            line.split(" ", 1) for line in (home / "classes.txt").read_text().splitlines()
        )
    }
    numbers = [number for _, number in lines(home / "image_class_labels.txt")]
    assert [images.class_names[label] for label in images.labels.tolist()] == [
        names[number] for number in numbers
    ]
    assert images.class_names == [names[number] for number in sorted(set(numbers), key=int)]
    assert images.split == [
        {"1": "train", "0": "test"}[flag] for _, flag in lines(home / "train_test_split.txt")
    ]
    assert [path.relative_to(home / "images").as_posix() for path in images.paths] == [
        file for _, file in lines(home / "images.txt")
    ]
    assert np.array_equal(
        images.boxes.numpy(), np.loadtxt(home / "bounding_boxes.txt", usecols=range(1, 5))
    )


def test_food101_has_the_official_counts(real_data, without_photographs, tmp_path):
    source = real_data / "annotations" / "food101_meta"
    (tmp_path / "meta").symlink_to(source)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        images = catalog.load("food101", tmp_path)
    assert all(ok and expected == result for _, expected, result, ok in check("food101", tmp_path))
    classes = (source / "classes.txt").read_text().split()
    listed = (source / "train.txt").read_text().split() + (source / "test.txt").read_text().split()
    assert images.class_names == classes and (images.class_counts() == 1_000).all()
    assert images.labels.tolist() == [classes.index(image.split("/")[0]) for image in listed]
    assert [path.relative_to(tmp_path / "images").as_posix() for path in images.paths] == [
        f"{i}.jpg" for i in listed
    ]


def test_food101_lists_and_names_say_the_same_in_both_forms(
    real_data, without_photographs, tmp_path
):
    source = real_data / "annotations" / "food101_meta"
    (tmp_path / "text" / "meta").mkdir(parents=True)
    (tmp_path / "json" / "meta").mkdir(parents=True)
    for name in ("classes.txt", "train.txt", "test.txt"):
        (tmp_path / "text" / "meta" / name).symlink_to(source / name)
    for name in ("labels.txt", "train.json", "test.json"):
        (tmp_path / "json" / "meta" / name).symlink_to(source / name)
    text, json_ = (catalog.load("food101", tmp_path / form) for form in ("text", "json"))
    assert text.class_names == json_.class_names

    def rows(images):
        names = ("/".join(path.parts[-2:]) for path in images.paths)
        return dict(zip(names, zip(images.labels.tolist(), images.split, strict=True), strict=True))

    assert rows(text) == rows(json_)


def test_vegfru_train_list_and_official_counts(real_data, without_photographs, tmp_path):
    """The real train list; the other two made up from its folders, as long as the official ones."""
    train = (real_data / "annotations" / "vegfru" / "vegfru_train.txt").read_text().splitlines()
    folders = list(dict.fromkeys((line.rpartition("/")[0], line.split()[1]) for line in train))
    (tmp_path / "vegfru_list").mkdir()
    for word, count in (("train", 0), ("val", 14_600), ("test", 116_931)):
        made_up = [
            f"{folder}/{word}_{number}.jpg {label}"
            for number, (folder, label) in enumerate(
                folders[row % len(folders)] for row in range(count)
            )
        ]
        (tmp_path / "vegfru_list" / f"vegfru_{word}.txt").write_text("\n".join(made_up or train))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        images = catalog.load("vegfru", tmp_path)
    assert all(ok for *_, ok in check("vegfru", tmp_path))
    train_part, test_part = images.closed_split()
    assert (
        len(train_part) == 29_200
        and len(test_part) == 116_931
        and (train_part.class_counts() == 100).all()
    )
    assert train_part.labels.tolist() == [int(line.split()[1]) for line in train]
    assert [path.relative_to(tmp_path).as_posix() for path in train_part.paths] == [
        line.split()[0] for line in train
    ]
    assert images.class_names[0] == "Chinese_artichoke" and images.class_names[291] == "yacon"


# ---- photographs


def test_cars_folder(real_data):
    images = catalog.load("folder", real_data / "cars_folder")
    assert images.class_names == [f"{number:03}" for number in (*range(1, 31), *range(99, 119))]
    train, test = images.open_split()
    assert set(train.labels.tolist()) == set(range(30)) and set(test.labels.tolist()) == set(
        range(30, 50)
    )
    assert all("/train/" in str(path) for path in train.paths) and all(
        "/unseen/" in str(path) for path in test.paths
    )
    assert len(images) == len(list((real_data / "cars_folder").rglob("*.jpg")))


def test_real_photographs(birds, tmp_path):
    paths = birds.paths[::60]
    assert unreadable(paths) == []
    for path in paths[:10]:
        with Image.open(path) as image:
            plain = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
        assert np.array_equal(decode(path, None), plain)
    cache = PixelCache.open(paths, 128, tmp_path)
    assert cache.sizes.min(1).values.tolist() == [128] * len(paths) and cache.sizes.max() <= 384
    for index, path in enumerate(paths):
        assert np.array_equal(cache[index], decode(path, 128))


def test_drafted_photographs_stay_close_to_the_full_decoding(birds):
    for path in birds.paths[::200]:
        with Image.open(path) as image:
            scale = 64 / min(image.size)
            size = [max(64, round(side * scale)) for side in image.size]
            plain = np.asarray(image.convert("RGB").resize(size, Image.Resampling.BILINEAR)).astype(
                int
            )
        assert np.abs(decode(path, 64) - plain).mean() < 3
