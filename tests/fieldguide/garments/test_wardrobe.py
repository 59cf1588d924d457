"""The garment data sets: the official layouts, determinism, bad input."""

import csv
import json
from collections import Counter

import pytest
from PIL import Image

from fieldguide.garments import wardrobe as module
from fieldguide.garments.attributes import ATTRIBUTE_NAMES, KINDS, make_garments
from fieldguide.garments.shots import photograph
from fieldguide.garments.wardrobe import make_wardrobe
from fieldmarks.data import catalog
from fieldmarks.data.layouts import inshop
from helpers.generated import digest, read_lines, read_outfits, resolve, semantic_of

SMALL = {"outfits": 300, "items": 150, "shots": 2, "size": 48}
VERSIONS, SPLITS = ("nondisjoint", "disjoint"), ("train", "valid", "test")


@pytest.fixture(scope="module")
def wardrobe(tmp_path_factory):
    return make_wardrobe(tmp_path_factory.mktemp("wardrobes") / "wardrobe", **SMALL, seed=3)


# ---- the layouts


def test_polyvore_layout(wardrobe):
    root = wardrobe / "polyvore_outfits"
    metadata = json.loads((root / "polyvore_item_metadata.json").read_text())
    assert len(metadata) == SMALL["items"] == len(list((root / "images").iterdir()))
    rows = list(csv.reader((root / "categories.csv").read_text().splitlines()))
    category = {row[0]: row[2] for row in rows}
    assert len(category) == len(rows) == len(KINDS) and {len(row) for row in rows} == {3}
    for item, entry in metadata.items():
        assert category[entry["category_id"]] == entry["semantic_category"] and entry["title"]
        with Image.open(root / "images" / f"{item}.jpg") as image:
            assert image.size == (48, 48) and image.mode == "RGB" and image.format == "JPEG"
    attributes = json.loads((root / "polyvore_attributes.json").read_text())
    assert set(attributes) == {"annotations", "attributes"} and attributes["attributes"] == list(
        ATTRIBUTE_NAMES
    )
    assert set(attributes["annotations"]) == set(metadata)
    titles = json.loads((root / "polyvore_outfit_titles.json").read_text())
    sets = {
        set_id
        for version in VERSIONS
        for split in SPLITS
        for set_id in read_outfits(root / version, split)
    }
    assert set(titles) == sets and len(sets) == 2 * SMALL["outfits"]


@pytest.mark.parametrize("version", VERSIONS)
def test_outfits_have_distinct_categories_and_splits_are_what_they_say(wardrobe, version):
    root = wardrobe / "polyvore_outfits"
    semantic, items, outfits = semantic_of(root), {}, {}
    for split in SPLITS:
        outfits[split] = read_outfits(root / version, split)
        items[split] = {item for outfit in outfits[split].values() for item in outfit}
        for outfit in outfits[split].values():
            kinds = [semantic[item] for item in outfit]
            assert 3 <= len(outfit) <= 5 and len(set(kinds)) == len(kinds)
    assert [len(outfits[split]) for split in SPLITS] == [180, 45, 75]
    assert bool(items["train"] & (items["valid"] | items["test"])) == (version == "nondisjoint")
    first = Counter(semantic[outfit[0]] for each in outfits.values() for outfit in each.values())
    assert (
        first.most_common(1)[0][1] < 0.4 * SMALL["outfits"]
    )  # the order is not that of the categories


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("split", SPLITS)
def test_compatibility_files(wardrobe, version, split):
    root = wardrobe / "polyvore_outfits"
    outfits, semantic = read_outfits(root / version, split), semantic_of(root)
    lines = read_lines(root / version / f"compatibility_{split}.txt", outfits)
    right, wrong = lines[: len(outfits)], lines[len(outfits) :]
    assert [items for label, _, items in right] == list(outfits.values()) and {
        label for label, *_ in right
    } == {1}
    assert len(wrong) == len(right) and {label for label, *_ in wrong} == {0}
    for (_, _, good), (_, _, bad) in zip(right, wrong, strict=True):
        assert [semantic[item] for item in good] == [semantic[item] for item in bad]
        assert all(one != other for one, other in zip(good, bad, strict=True))
    short = {"valid": "val"}.get(split, split)
    harder = root / version / f"fashion_compatibility_harder_{short}.txt"
    assert harder.exists() == (version == "nondisjoint" and split != "train")
    if harder.exists():
        lines = read_lines(harder, outfits)
        assert lines[: len(outfits)] == right
        for (_, _, good), (label, _, bad) in zip(right, lines[len(outfits) :], strict=True):
            kept = sum(one == other for one, other in zip(good, bad, strict=True))
            assert label == 0 and 0 < kept < len(good)
            assert [semantic[item] for item in good] == [semantic[item] for item in bad]


@pytest.mark.parametrize(
    "name, choices, version",
    [
        *[(f"fill_in_blank_{split}", 4, version) for split in SPLITS for version in VERSIONS],
        ("fill_in_blank_valid_harder_new", 10, "nondisjoint"),
        ("fill_in_blank_test_harder_new", 10, "nondisjoint"),
    ],
)
def test_questions(wardrobe, name, choices, version):
    root, split = wardrobe / "polyvore_outfits", name.split("_")[3]
    outfits, semantic = read_outfits(root / version, split), semantic_of(root)
    entries = json.loads((root / version / f"{name}.json").read_text())
    assert len(entries) == len(outfits)
    blanks = Counter()
    for entry, (set_id, items) in zip(entries, outfits.items(), strict=True):
        assert set(entry) == {"question", "answers", "blank_position"}
        complete = list(entry["question"])
        complete.insert(entry["blank_position"] - 1, entry["answers"][0])
        assert complete == [f"{set_id}_{index}" for index in range(1, len(items) + 1)]
        answers = [resolve(token, outfits) for token in entry["answers"]]
        assert len(set(answers)) == len(answers) == choices
        assert {semantic[item] for item in answers} == {semantic[answers[0]]}
        blanks[entry["blank_position"]] += 1
    assert len(blanks) >= 4


def test_inshop_layout_is_what_its_loader_reads(wardrobe):
    data = inshop.load(wardrobe / "inshop")
    count = SMALL["items"] * SMALL["shots"]
    assert len(data.paths) == count and len(data.class_names) == SMALL["items"]
    assert data.attribute_names == list(ATTRIBUTE_NAMES)
    known = data.attributes[~data.attributes.isnan()]
    assert (
        set(known.unique().tolist()) == {0.0, 1.0}
        and 0.005 < data.attributes.isnan().float().mean() < 0.10
    )
    catalogue = {
        one["inshop"]: set(one["attributes"])
        for one in json.loads((wardrobe / "wardrobe.json").read_text())["items"]
    }
    for row in range(0, count, 7):
        own = catalogue[data.class_names[data.labels[row]]]
        values = data.attributes[row]
        for name, value in zip(ATTRIBUTE_NAMES, values.tolist(), strict=True):
            assert value != value or value == (name in own)
    in_split = {
        name: {
            label
            for label, split in zip(data.labels.tolist(), data.split, strict=True)
            if split == name
        }
        for name in ("train", "query", "gallery")
    }
    assert len(in_split["train"]) == 75 and in_split["query"] == in_split["gallery"]
    assert not in_split["train"] & in_split["query"]
    x, y, w, h = data.boxes.T
    assert (
        (w > 4).all()
        and (h > 4).all()
        and (x >= 0).all()
        and (y >= 0).all()
        and (x + w <= 48).all()
        and (y + h <= 48).all()
    )
    for name in (
        "Eval/list_eval_partition.txt",
        "Anno/list_bbox_inshop.txt",
        "Anno/list_attr_cloth.txt",
        "Anno/list_attr_items.txt",
    ):
        lines = (wardrobe / "inshop" / name).read_text().splitlines()
        assert int(lines[0]) == len(lines) - 2


def test_the_catalogue_knows_its_in_shop_part(wardrobe):
    loaded, expected = catalog.load("wardrobe", wardrobe), inshop.load(wardrobe / "inshop")
    assert loaded.name == "wardrobe"
    assert loaded.paths == expected.paths and loaded.split == expected.split


# ---- the same again


def test_same_seed_same_bytes_and_another_seed_differs(wardrobe, tmp_path):
    assert digest(wardrobe) == digest(make_wardrobe(tmp_path / "again", **SMALL, seed=3))
    shot = [photograph(make_garments(5, seed)[4], 1, 48).image for seed in (3, 3, 4)]
    assert (shot[0] == shot[1]).all() and (shot[0] != shot[2]).any()
    module._write_outfits(tmp_path, make_garments(SMALL["items"], 4), SMALL["outfits"], 4)
    first, other = (
        digest(wardrobe / "polyvore_outfits"),
        digest(tmp_path / "disjoint") | digest(tmp_path / "nondisjoint"),
    )
    assert len(other) == 13 and not set(first.values()) & set(other.values())


@pytest.mark.parametrize("seed", range(5))
def test_the_smallest_wardrobe_has_enough_to_ask(tmp_path, seed):
    module._write_outfits(
        tmp_path, make_garments(module.LOWEST["items"], seed), module.LOWEST["outfits"], seed
    )
    assert len(list(tmp_path.glob("*/*"))) == 2 * 9 + 4


def test_a_finished_wardrobe_is_returned_as_it_is(wardrobe):
    before = {path: path.stat().st_mtime_ns for path in wardrobe.rglob("*")}
    assert make_wardrobe(wardrobe, **SMALL, seed=3) == wardrobe
    assert before == {path: path.stat().st_mtime_ns for path in wardrobe.rglob("*")}
    with pytest.raises(
        FileExistsError, match="holds a wardrobe with seed 3 instead of 4: give another folder"
    ):
        make_wardrobe(wardrobe, **SMALL, seed=4)


# ---- bad input


@pytest.mark.parametrize(
    "bad, message",
    [
        ({"outfits": 199}, "outfits must be a whole number of at least 200, not 199"),
        ({"items": 149}, "items must be a whole number of at least 150, not 149"),
        ({"shots": 1}, "shots must be a whole number of at least 2, not 1"),
        ({"size": 31}, "size must be a whole number of at least 32, not 31"),
        ({"seed": -1}, "seed must be a whole number of at least 0, not -1"),
        ({"items": 200.5}, "items must be a whole number of at least 150, not 200.5"),
    ],
)
def test_parameters_out_of_range(tmp_path, bad, message):
    with pytest.raises(ValueError) as error:
        make_wardrobe(tmp_path / "wardrobe", **bad)
    assert str(error.value) == message and not list(tmp_path.iterdir())


def test_a_folder_with_something_else_is_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(
        FileExistsError, match="is not empty and holds no wardrobe: give the name of a new or empty"
    ):
        make_wardrobe(tmp_path)
    with pytest.raises(FileExistsError, match="is a file: give the name of a new or empty folder"):
        make_wardrobe(tmp_path / "notes.txt")
    with pytest.raises(
        ValueError, match=r"^cannot write in .*notes.txt.*: give a folder you may write to$"
    ):
        make_wardrobe(tmp_path / "notes.txt" / "wardrobe")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("blow", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_an_interrupted_run_leaves_nothing(tmp_path, blow):
    def stop(done, total):
        assert (done, total) == (2, 300)
        raise blow

    with pytest.raises(blow if isinstance(blow, type) else type(blow)):
        make_wardrobe(
            tmp_path / "wardrobe", outfits=200, items=150, shots=2, size=32, progress=stop
        )
    assert not list(tmp_path.iterdir())
