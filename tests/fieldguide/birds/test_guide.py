"""The bird data set: the official layout, the truth of its annotations, determinism, bad input."""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fieldguide.birds import guide as module
from fieldguide.birds.attributes import ATTRIBUTE_NAMES, VOCABULARY
from fieldguide.birds.canvas import PART, PARTS
from fieldguide.birds.guide import make_fieldguide
from helpers.generated import digest

SHARED = Path(os.environ.get("FIELDMARKS_DATA", Path(__file__).parents[4] / "shared" / "data"))
CLASSES, IMAGES, SIZE = 12, 7, 64


@pytest.fixture(scope="module")
def guide(tmp_path_factory):
    return make_fieldguide(
        tmp_path_factory.mktemp("guides") / "guide", CLASSES, IMAGES, SIZE, seed=3
    )


def rows(path: Path) -> list[list[str]]:
    return [line.split(" ") for line in path.read_text().splitlines()]


def picture(guide: Path, kind: str, name: str) -> Image.Image:
    return Image.open(guide / kind / Path(name).with_suffix(".jpg" if kind == "images" else ".png"))


# ---- the layout


def test_layout_is_complete_and_parses(guide):
    count = CLASSES * IMAGES
    images, classes = rows(guide / "images.txt"), rows(guide / "classes.txt")
    assert [int(row[0]) for row in images] == list(range(1, count + 1))
    assert [int(row[0]) for row in classes] == list(range(1, CLASSES + 1))
    labels = [int(label) for _, label in rows(guide / "image_class_labels.txt")]
    for (_, name), label in zip(images, labels, strict=True):
        assert name.split("/")[0] == classes[label - 1][1] and classes[label - 1][1].startswith(
            f"{label:03d}."
        )
        image = picture(guide, "images", name)
        assert image.size == (SIZE, SIZE) and image.mode == "RGB" and image.format == "JPEG"
    assert len(list((guide / "images").glob("*/*.jpg"))) == count
    for kind in ("segmentations", "part_segmentations"):
        assert len(list((guide / kind).glob("*/*.png"))) == count
    train = np.array([int(flag) for _, flag in rows(guide / "train_test_split.txt")]).reshape(
        CLASSES, IMAGES
    )
    assert set(train.sum(axis=1)) <= {IMAGES // 2, IMAGES // 2 + 1}
    assert (guide / "attributes.txt").read_text() == (
        guide / "attributes/attributes.txt"
    ).read_text()
    assert [row[1] for row in rows(guide / "attributes.txt")] == list(ATTRIBUTE_NAMES)
    assert (guide / "parts/parts.txt").read_text().splitlines() == [
        f"{n} {name}" for n, name in enumerate(PARTS, 1)
    ]
    manifest = json.loads((guide / "fieldguide.json").read_text())
    assert manifest["parameters"] == {
        "classes": CLASSES,
        "images": IMAGES,
        "size": SIZE,
        "seed": 3,
        "difficulty": "standard",
    }
    assert [one["folder"] for one in manifest["species"]] == [row[1] for row in classes]


def test_lines_look_like_the_official_ones(guide):
    number = r"\d+\.\d+(e-\d+)?"
    patterns = {
        "images.txt": r"\d+ \d{3}\.\S+/\S+\.jpg",
        "image_class_labels.txt": r"\d+ \d+",
        "train_test_split.txt": r"\d+ [01]",
        "bounding_boxes.txt": r"\d+( \d+\.\d){4}",
        "classes.txt": r"\d+ \S+",
        "parts/parts.txt": r"\d+ [a-z ]+",
        "parts/part_locs.txt": r"\d+ \d+ \d+\.\d \d+\.\d [01]",
        "attributes/certainties.txt": r"[1-4] (not visible|guessing|probably|definitely)",
        "attributes/class_attribute_labels_continuous.txt": rf"{number}( {number}){{311}}",
        "attributes/attributes.txt": r"\d+ has_\w+::\S+",
        "attributes/image_attribute_labels.txt": r"\d+ \d+ [01] [1-4] \d+\.\d+",
    }
    official = SHARED / "CUB_200_2011"
    for name, pattern in patterns.items():
        for root in (guide, official):
            if not (root / name).is_file():
                continue
            lines = (root / name).read_text().splitlines()
            wrong = [line for line in lines if not re.fullmatch(pattern, line)]
            assert not wrong, (root / name, wrong[:2])
    certainties = official / "attributes/certainties.txt"
    if certainties.is_file():
        assert (
            guide / "attributes/certainties.txt"
        ).read_text().strip() == certainties.read_text().strip()


def test_boxes_are_tight_and_parts_lie_on_their_masks(guide):
    boxes = {row[0]: [float(x) for x in row[1:]] for row in rows(guide / "bounding_boxes.txt")}
    locations: dict[str, list] = {}
    for identity, part, x, y, visible in rows(guide / "parts/part_locs.txt"):
        locations.setdefault(identity, []).append((int(part), float(x), float(y), int(visible)))
    shown = np.zeros(16, int)
    for identity, name in rows(guide / "images.txt"):
        mask = np.asarray(picture(guide, "segmentations", name))
        assert set(np.unique(mask)) == {0, 255}
        y, x = np.nonzero(mask)
        assert boxes[identity] == [x.min(), y.min(), np.ptp(x) + 1, np.ptp(y) + 1]
        indexed = picture(guide, "part_segmentations", name)
        parts = np.asarray(indexed)
        assert indexed.mode == "P" and indexed.getpalette()[:3] == [0, 0, 0] and parts.max() <= 15
        assert not (parts[mask == 0]).any()
        assert [part for part, *_ in locations[identity]] == list(range(1, 16))
        for part, x, y, visible in locations[identity]:
            own = np.argwhere(parts == part)
            if not visible:
                assert (x, y) == (0, 0) and len(own) < 3
                continue
            assert 0 <= x <= SIZE - 1 and 0 <= y <= SIZE - 1
            assert np.hypot(*(own - (y, x)).T).min() <= 1.0
            shown[part] += 1
    assert (shown[1:] > 0).all()  # every part is seen somewhere, both eyes, wings and legs included
    assert (shown[[PART["left eye"], PART["right eye"]]] < len(boxes)).all()


def test_attribute_labels_agree_with_visibility_and_with_the_class_table(guide):
    labels = np.array(
        [[float(x) for x in row] for row in rows(guide / "attributes/image_attribute_labels.txt")]
    )
    assert labels.shape == (CLASSES * IMAGES * 312, 5)
    labels = labels.reshape(CLASSES * IMAGES, 312, 5)
    assert (labels[:, :, 0] == np.arange(1, CLASSES * IMAGES + 1)[:, None]).all()
    assert (labels[:, :, 1] == np.arange(1, 313)).all()
    present, certainty = labels[:, :, 2] == 1, labels[:, :, 3]
    assert set(np.unique(certainty)) <= {1, 3, 4} and not present[certainty == 1].any()
    visible = (
        np.array([int(row[4]) for row in rows(guide / "parts/part_locs.txt")])
        .reshape(-1, 15)
        .astype(bool)
    )
    column = {name: number for number, name in enumerate(ATTRIBUTE_NAMES)}
    for group, parts in (
        ("belly_color", ["belly"]),
        ("eye_color", ["left eye", "right eye"]),
        ("bill_shape", ["beak"]),
    ):
        first = column[f"has_{group}::{VOCABULARY[group][0]}"]
        seen = visible[:, [PART[part] - 1 for part in parts]].any(axis=1)
        assert (seen == (certainty[:, first] > 1)).all()
        assert (present[:, first : first + len(VOCABULARY[group])].sum(axis=1) == seen).all()
    by_class = present.reshape(CLASSES, IMAGES, 312).sum(axis=1)
    sure = (certainty > 1).reshape(CLASSES, IMAGES, 312).sum(axis=1)
    table = np.array(
        [
            [float(x) for x in row]
            for row in rows(guide / "attributes/class_attribute_labels_continuous.txt")
        ]
    )
    assert np.allclose(table, np.where(sure > 0, 100 * by_class / np.maximum(sure, 1), 0))
    # Sex and age show: within a class some attribute is neither always nor never present.
    assert ((by_class > 0) & (by_class < sure)).any(axis=1).mean() > 0.5


# ---- the same again


def test_same_parameters_same_bytes_and_more_images_change_nothing(tmp_path):
    first = make_fieldguide(tmp_path / "a", 4, 2, 48, seed=5)
    again = make_fieldguide(tmp_path / "b", 4, 2, 48, seed=5)
    more = make_fieldguide(tmp_path / "c", 4, 3, 48, seed=5)
    other = make_fieldguide(tmp_path / "d", 4, 2, 48, seed=6)
    assert digest(first) == digest(again)
    pictures = {
        name: value for name, value in digest(first).items() if name.endswith((".jpg", ".png"))
    }
    assert len(pictures) == 24 and pictures.items() <= digest(more).items()
    assert not set(pictures.values()) & set(digest(other).values())


def test_a_finished_guide_is_returned_as_it_is(guide):
    before = {path: path.stat().st_mtime_ns for path in guide.rglob("*")}
    assert make_fieldguide(guide, CLASSES, IMAGES, SIZE, seed=3) == guide
    assert before == {path: path.stat().st_mtime_ns for path in guide.rglob("*")}


def test_an_empty_folder_is_filled_and_progress_counts(tmp_path):
    (tmp_path / "new").mkdir()
    calls = []
    make_fieldguide(
        tmp_path / "new", 2, 1, 32, progress=lambda done, total: calls.append((done, total))
    )
    assert calls == [(1, 2), (2, 2)] and (tmp_path / "new" / "images.txt").is_file()


def test_two_runs_that_draw_the_same_guide_at_once_both_find_it(tmp_path, monkeypatch):
    """The other run ends while this one writes."""
    write = module._write

    def overtaken(root, parameters, progress):
        write(root, parameters, progress)
        monkeypatch.setattr(module, "_write", write)
        make_fieldguide(tmp_path / "guide", 2, 2, 32)

    monkeypatch.setattr(module, "_write", overtaken)
    assert make_fieldguide(tmp_path / "guide", 2, 2, 32) == tmp_path / "guide"
    assert (tmp_path / "guide" / "fieldguide.json").is_file() and [
        p.name for p in tmp_path.iterdir()
    ] == ["guide"]


# ---- bad input


@pytest.mark.parametrize(
    "bad, message",
    [
        ({"classes": 1}, "classes must be a whole number of at least 2, not 1"),
        ({"images": 0}, "images must be a whole number of at least 1, not 0"),
        ({"size": 31}, "size must be a whole number of at least 32, not 31"),
        ({"seed": -1}, "seed must be a whole number of at least 0, not -1"),
        ({"classes": 2.5}, "classes must be a whole number of at least 2, not 2.5"),
        ({"difficulty": "easy"}, "difficulty must be one of standard, hard, not 'easy'"),
    ],
)
def test_parameters_out_of_range(tmp_path, bad, message):
    with pytest.raises(ValueError) as error:
        make_fieldguide(tmp_path / "guide", **({"classes": 2, "images": 1, "size": 32} | bad))
    assert str(error.value) == message and not list(tmp_path.iterdir())


def test_a_folder_with_something_else_is_left_alone(tmp_path, guide):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(
        FileExistsError,
        match="is not empty and holds no fieldguide: give the name of a new or empty",
    ):
        make_fieldguide(tmp_path, 2, 1, 32)
    with pytest.raises(FileExistsError, match="is a file: give the name of a new or empty folder"):
        make_fieldguide(tmp_path / "notes.txt", 2, 1, 32)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    assert (tmp_path / "notes.txt").read_text() == "mine"
    with pytest.raises(
        FileExistsError, match="holds a fieldguide with seed 3 instead of 4: give another folder"
    ):
        make_fieldguide(guide, CLASSES, IMAGES, SIZE, seed=4)


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        ValueError, match=r"^cannot write in .*file.*: give a folder you may write to$"
    ):
        make_fieldguide(tmp_path / "file" / "guide", 2, 1, 32)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("blow", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_an_interrupted_run_leaves_nothing(tmp_path, blow):
    def stop(done, total):
        raise blow

    with pytest.raises(blow if isinstance(blow, type) else type(blow)):
        make_fieldguide(tmp_path / "guide", 2, 1, 32, progress=stop)
    assert not list(tmp_path.iterdir())
