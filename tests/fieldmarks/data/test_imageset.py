import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from fieldmarks.data.imageset import ImageSet

ROOT = Path("/birds")


def make(labels, split=None, **more) -> ImageSet:
    labels = torch.tensor(labels, dtype=torch.long)
    names = [f"class {c}" for c in range(int(labels.max()) + 1 if len(labels) else 0)]
    paths = [ROOT / f"{row}.jpg" for row in range(len(labels))]
    fields = dict(
        name="test", paths=paths, labels=labels, class_names=names, split=split, root=ROOT
    )
    return ImageSet(**{**fields, **more})


def rows(images: ImageSet) -> list[int]:
    return [int(path.stem) for path in images.paths]


def test_frozen_and_counted():
    images = make([0, 1, 1])
    assert len(images) == 3 and images.class_counts().tolist() == [1, 2]
    assert repr(images) == "<ImageSet test: 3 images, 2 classes>"
    with pytest.raises(dataclasses.FrozenInstanceError):
        images.name = "other"


@pytest.mark.parametrize(
    "index", [[3, 1], torch.tensor([3, 1]), np.array([3, 1]), range(3, 0, -2), [-2, -4]]
)
def test_subset_by_numbers(index):
    images = make(
        [0, 0, 1, 2, 2],
        split=["train", "test", "train", "test", "train"],
        attributes=torch.arange(10.0).view(5, 2),
        attribute_names=["a", "b"],
        boxes=torch.arange(20.0).view(5, 4),
        parts=torch.arange(15.0).view(5, 1, 3),
        part_names=["beak"],
    )
    part = images.subset(index)
    assert (
        rows(part) == [3, 1]
        and part.labels.tolist() == [2, 0]
        and part.class_names == images.class_names
    )
    assert part.attributes.tolist() == [[6, 7], [2, 3]] and part.boxes[:, 0].tolist() == [12, 4]
    assert part.parts[:, 0, 0].tolist() == [9, 3] and part.split == ["test", "test"]
    assert part.class_counts().tolist() == [1, 0, 1]


def test_positions_are_spread_from_the_first_to_the_last():
    images = make([0] * 10)
    assert images.spread(4).tolist() == [0, 3, 6, 9] and images.spread(1).tolist() == [0]
    assert images.spread(99).tolist() == list(range(10))
    assert make([]).spread(4).tolist() == []
    for count in range(1, 11):
        gaps = images.spread(count).diff().tolist()
        assert len(gaps) == count - 1 and all(gap >= 1 for gap in gaps)
        assert max(gaps, default=1) - min(gaps, default=1) <= 1


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor])
def test_subset_by_mask(kind):
    assert rows(make([0, 1, 2]).subset(kind([True, False, True]))) == [0, 2]


def test_subset_of_nothing_and_wrong_indices():
    images = make([0, 1, 2])
    assert len(images.subset([])) == 0 and len(images.subset([]).subset([])) == 0
    with pytest.raises(ValueError, match="a mask of 2 for 3 images"):
        images.subset([True, False])
    with pytest.raises(ValueError, match="whole numbers or booleans"):
        images.subset([0.5])
    with pytest.raises(IndexError):
        images.subset([3])


@pytest.mark.parametrize("classes", range(2, 8))
def test_open_split_is_the_first_half_of_the_classes(classes):
    order = torch.randperm(3 * classes, generator=torch.Generator().manual_seed(classes))
    labels = torch.arange(classes).repeat(3)[order]
    train, test = make(labels.tolist(), split=["train", "test", "train"] * classes).open_split()
    assert set(train.labels.tolist()) == set(range(classes // 2))
    assert set(test.labels.tolist()) == set(range(classes // 2, classes))
    assert sorted(rows(train) + rows(test)) == list(range(3 * classes))
    assert len(train.class_names) == len(test.class_names) == classes


def test_open_split_of_a_subset_halves_the_classes_it_has():
    train, test = make([0, 1, 2, 3, 4, 5]).subset([2, 3, 4, 5]).open_split()
    assert train.labels.tolist() == [2, 3] and test.labels.tolist() == [4, 5]


def test_open_split_is_the_official_one_where_that_separates_the_classes():
    images = make([0, 1, 2, 0, 1, 2], split=["test", "train", "test", "test", "train", "test"])
    train, test = images.open_split()
    assert train.labels.tolist() == [1, 1] and test.labels.tolist() == [0, 2, 0, 2]
    with pytest.raises(
        ValueError, match="no closed split, for the official train and test parts share no class"
    ):
        images.closed_split()


@pytest.mark.parametrize("labels", [[], [0], [0, 0]])
def test_open_split_needs_two_classes(labels):
    with pytest.raises(ValueError, match="at least 2 classes"):
        make(labels).open_split()


def test_closed_split():
    train, test = make([0, 0, 0, 1, 1, 1], split=["train", "test", "val"] * 2).closed_split()
    assert rows(train) == [0, 2, 3, 5] and rows(test) == [1, 4]
    with pytest.raises(ValueError, match="no official split"):
        make([0, 1]).closed_split()
    with pytest.raises(ValueError, match="all 2 images are on one side"):
        make([0, 1], split=["train", "train"]).closed_split()


def test_query_gallery():
    images = make([0, 1, 1, 2, 2], split=["train", "gallery", "query", "query", "gallery"])
    query, gallery = images.query_gallery()
    assert query.tolist() == [2, 3] and gallery.tolist() == [1, 4]
    _, test = images.open_split()
    assert [part.tolist() for part in test.query_gallery()] == [[1, 2], [0, 3]]
    assert make([0, 1]).query_gallery() is None and images.open_split()[0].query_gallery() is None


def test_fingerprint():
    images = make([0, 1, 1])
    moved = make(
        [0, 1, 1],
        paths=[Path("/elsewhere") / f"{row}.jpg" for row in range(3)],
        root=Path("/elsewhere"),
    )
    assert len(images.fingerprint) == 16 and images.fingerprint == moved.fingerprint
    assert images.fingerprint == make([0, 1, 1], root=None).fingerprint
    others = [
        make([0, 0, 1]),
        make([0, 1, 1], name="other"),
        make([0, 1, 1], class_names=["a", "b"]),
        images.subset([0, 1]),
        images.subset([0, 2, 1]),
    ]
    assert len({images.fingerprint, *(other.fingerprint for other in others)}) == 6


@pytest.mark.parametrize(
    "change, message",
    [
        ({"labels": torch.tensor([0, 1])}, "3 paths but 2 labels"),
        ({"labels": torch.tensor([0.0, 1, 1])}, "LongTensor"),
        (
            {"labels": torch.tensor([0, 1, 2])},
            "labels run from 0 to 2, but there are 2 class names",
        ),
        ({"labels": torch.tensor([0, -1, 1])}, "labels run from -1"),
        ({"split": ["train"]}, "3 paths but 1 split"),
        ({"boxes": torch.zeros(3, 5)}, r"boxes must be \(N, 4\)"),
        (
            {"attributes": torch.zeros(3, 2), "attribute_names": ["a"]},
            r"attributes \(3, 2\) but 1 names",
        ),
        ({"paths": [Path("a.jpg"), Path("/b.jpg"), Path("/c.jpg")]}, "not an absolute path"),
    ],
)
def test_what_does_not_agree_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(make([0, 1, 1]), **change)
