"""Wardrobe: attributes that show, the official layouts, outfits made by a rule that can be learnt, and its manners."""

import csv
import dataclasses
import hashlib
import json
import re
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from fieldguide.garments import wardrobe as module
from fieldguide.garments.attributes import ATTRIBUTE_NAMES, KINDS, VOCABULARY, make_garments
from fieldguide.garments.fabrics import COLOURS, PALETTE
from fieldguide.garments.outfits import compatibility
from fieldguide.garments.shots import photograph
from fieldguide.garments.wardrobe import draw_window, make_wardrobe
from fieldmarks.data import catalog
from fieldmarks.data.layouts import inshop
from PIL import Image

SMALL = {"outfits": 300, "items": 150, "shots": 2, "size": 48}
VERSIONS, SPLITS = ("nondisjoint", "disjoint"), ("train", "valid", "test")


@pytest.fixture(scope="module")
def wardrobe(tmp_path_factory):
    return make_wardrobe(tmp_path_factory.mktemp("wardrobes") / "wardrobe", **SMALL, seed=3)


def digest(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


# ---- a strict reader of the official format --------------------------------------------------------------------------


def read_outfits(folder: Path, split: str) -> dict[str, list[str]]:
    """set_id -> its item ids in order; every token "set_index" must be one of them."""
    outfits = {}
    for entry in json.loads((folder / f"{split}.json").read_text()):
        assert set(entry) == {"items", "set_id"} and isinstance(entry["set_id"], str)
        assert [item["index"] for item in entry["items"]] == list(range(1, len(entry["items"]) + 1))
        assert all(
            set(item) == {"item_id", "index"} and isinstance(item["item_id"], str)
            for item in entry["items"]
        )
        outfits[entry["set_id"]] = [item["item_id"] for item in entry["items"]]
    return outfits


def resolve(token: str, outfits: dict[str, list[str]]) -> str:
    set_id, index = re.fullmatch(r"(\d+)_([1-9]\d*)", token).groups()
    return outfits[set_id][int(index) - 1]


def read_lines(file: Path, outfits) -> list[tuple[int, list[str], list[str]]]:
    """(label, tokens, item ids) of a compatibility file."""
    found = []
    for line in file.read_text().splitlines():
        label, *tokens = line.split()
        gap = " " if label == "1" or "harder" in file.name else "  "
        assert label in ("0", "1") and line == f"{label}{gap}{' '.join(tokens)}"
        found.append((int(label), tokens, [resolve(token, outfits) for token in tokens]))
    return found


def semantic_of(root: Path) -> dict[str, str]:
    return {
        item: entry["semantic_category"]
        for item, entry in json.loads((root / "polyvore_item_metadata.json").read_text()).items()
    }


# ---- garments --------------------------------------------------------------------------------------------------------


def test_catalogue_is_sound_and_items_of_one_kind_and_colour_differ():
    garments = make_garments(600, 0)
    assert garments[:50] == make_garments(50, 0) and garments != make_garments(600, 1)
    assert len(set(ATTRIBUTE_NAMES)) == len(ATTRIBUTE_NAMES)
    for one in garments:
        own = one.attributes()
        assert len(own) == len(set(own)) and set(own) <= set(ATTRIBUTE_NAMES)
        for group in ("colour", "pattern", "material", "style"):
            assert sum(name in VOCABULARY[group] for name in own) == 1
        if one.semantic in ("tops", "outerwear", "all-body"):
            assert sum(name in VOCABULARY["sleeve"] for name in own) == 1
    semantics = Counter(one.semantic for one in garments)
    assert (
        set(semantics) == {kind.semantic for kind in KINDS.values()}
        and min(semantics.values()) >= 30
    )
    assert {one.kind for one in garments} == set(KINDS) and {one.colour for one in garments} == set(
        COLOURS
    )
    # Retrieval is a task: many garments share kind and colour with another.
    shared = Counter((one.kind, one.colour) for one in garments)
    assert sum(count for count in shared.values() if count > 1) > 300


@pytest.mark.parametrize(
    "kind", ["tshirt", "coat", "dress", "pants", "skirt", "sneakers", "pump", "tote", "backpack"]
)
def test_colour_attribute_is_the_colour_of_the_garments_pixels(kind):
    """Plain garments, painted anew in each colour: the nearest palette colour in CIE Lab chroma and lightness is its own."""
    lab = cv2.cvtColor(
        np.array([[PALETTE[name] for name in COLOURS]], np.float32) / 255, cv2.COLOR_RGB2LAB
    )[0]
    one = next(one for one in make_garments(600, 0) if one.kind == kind and one.pattern == "plain")
    right = 0
    for name in COLOURS:
        picture = photograph(dataclasses.replace(one, colour=name, details=()), 0, 64)
        pixels = np.median(picture.image[picture.mask], axis=0).astype(np.float32)[None, None] / 255
        distance = np.linalg.norm(lab - cv2.cvtColor(pixels, cv2.COLOR_RGB2LAB)[0, 0], axis=1)
        right += COLOURS[int(distance.argmin())] == name
    assert right >= len(COLOURS) - 3


@pytest.mark.parametrize(
    "kind, change",
    [
        ("tshirt", {"pattern": "striped"}),
        ("shirt", {"pattern": "checkered"}),
        ("dress", {"pattern": "floral"}),
        ("skirt", {"pattern": "dotted"}),
        ("dress", {"length": "maxi"}),
        ("tshirt", {"sleeve": "longsleeve"}),
        ("tshirt", {"neckline": "vneck"}),
        ("boots", {"heel": "heel"}),
        ("boots", {"length": "kneehigh"}),
        ("tote", {"material": "leather"}),
        ("dress", {"material": "knitted"}),
        ("blouse", {"details": ("ruffled",)}),
        ("coat", {"details": ("belted",)}),
        ("handbag", {"details": ("quilted",)}),
        ("jeans", {"details": ("ripped",)}),
        ("sandals", {"heel": "platform"}),
    ],
)
def test_an_attribute_shows(kind, change):
    plain = {"pattern": "plain", "details": ()}
    starts = {
        "dress": {"material": "cotton", "length": "mini", "sleeve": "sleeveless"},
        "tshirt": {"sleeve": "shortsleeve", "neckline": "roundneck"},
        "boots": {"heel": "flat", "length": "ankle"},
        "tote": {"material": "canvas"},
        "sandals": {"heel": "flat"},
    }
    one = next(one for one in make_garments(600, 0) if one.kind == kind)
    one = dataclasses.replace(one, **(plain | starts.get(kind, {})))
    before, after = photograph(one, 0, 96), photograph(dataclasses.replace(one, **change), 0, 96)
    seen = before.mask | after.mask
    difference = np.abs(before.image.astype(int) - after.image).max(axis=2)[seen]
    assert (difference > 12).mean() > 0.02


def test_shots_of_one_garment_are_alike_and_those_of_others_are_not():
    """Median colours: a garment's own shots lie nearer to each other than to those of the other garments of its category."""
    garments = [
        one for one in make_garments(300, 0) if one.semantic == "tops" and one.pattern == "plain"
    ][:20]
    pictures = [[photograph(one, shot, 64) for shot in range(4)] for one in garments]
    colour = np.array(
        [[np.median(picture.image[picture.mask], axis=0) for picture in row] for row in pictures]
    )
    distance = np.linalg.norm(
        colour[:, None, :, None] - colour[None, :, None, :], axis=-1
    )  # (n, n, 4, 4)
    same = distance[np.arange(20), np.arange(20)]
    assert np.median(same[:, 0, 1:]) < 0.4 * np.median(distance[~np.eye(20, dtype=bool)][:, 0, 1:])
    for one in garments[:4]:
        images = [photograph(one, shot, 64).image for shot in range(5)]
        assert all(
            (first != second).any() for k, first in enumerate(images) for second in images[:k]
        )


# ---- the layouts -----------------------------------------------------------------------------------------------------


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
    for (_, _, good), (_, _, bad) in zip(right, wrong):
        assert [semantic[item] for item in good] == [semantic[item] for item in bad]
        assert all(one != other for one, other in zip(good, bad))
    short = {"valid": "val"}.get(split, split)
    harder = root / version / f"fashion_compatibility_harder_{short}.txt"
    assert harder.exists() == (version == "nondisjoint" and split != "train")
    if harder.exists():
        lines = read_lines(harder, outfits)
        assert lines[: len(outfits)] == right
        for (_, _, good), (label, _, bad) in zip(right, lines[len(outfits) :]):
            kept = sum(one == other for one, other in zip(good, bad))
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
    for entry, (set_id, items) in zip(entries, outfits.items()):
        assert set(entry) == {"question", "answers", "blank_position"}
        whole = list(entry["question"])
        whole.insert(entry["blank_position"] - 1, entry["answers"][0])
        assert whole == [f"{set_id}_{index}" for index in range(1, len(items) + 1)]
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
        for name, value in zip(ATTRIBUTE_NAMES, values.tolist()):
            assert value != value or value == (name in own)
    in_split = {
        name: {label for label, word in zip(data.labels.tolist(), data.split) if word == name}
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


# ---- the rule --------------------------------------------------------------------------------------------------------


def roc_auc(scores, labels) -> float:
    positive, negative = scores[labels == 1][:, None], scores[labels == 0][None, :]
    return float((positive > negative).mean() + 0.5 * (positive == negative).mean())


def fitted_scores(train, train_labels, test) -> np.ndarray:
    """Logistic regression by Newton steps with a ridge."""
    mean, scale = train.mean(axis=0), train.std(axis=0) + 1e-6
    x, z = [np.hstack([(each - mean) / scale, np.ones((len(each), 1))]) for each in (train, test)]
    weights = np.zeros(x.shape[1])
    for _ in range(4):
        p = 1 / (1 + np.exp(-x @ weights))
        hessian = x.T @ (x * (p * (1 - p))[:, None]) + 20 * np.eye(x.shape[1])
        weights -= np.linalg.solve(hessian, x.T @ (p - train_labels) + 20 * weights)
    return z @ weights


@pytest.fixture(scope="module")
def outfit_lines(tmp_path_factory):
    """Label and garment numbers of the compatibility lines of a larger wardrobe, without its pictures."""
    root = tmp_path_factory.mktemp("outfits")
    garments = make_garments(600, 0)
    module._write_outfits(root, garments, 1600, 0)
    module._write_items(root, garments)
    number = {
        item: k
        for k, item in enumerate(json.loads((root / "polyvore_item_metadata.json").read_text()))
    }
    lines = {}
    for version in VERSIONS:
        for split, names in (
            ("train", ["compatibility_train"]),
            ("test", ["compatibility_test", "fashion_compatibility_harder_test"]),
        ):
            outfits = read_outfits(root / version, split)
            for name in names:
                if (root / version / f"{name}.txt").exists():
                    found = read_lines(root / version / f"{name}.txt", outfits)
                    lines[version, name] = (
                        np.array([label for label, *_ in found]),
                        [[number[item] for item in items] for *_, items in found],
                    )
    return garments, lines


def pair_features(garments, outfits, shuffled=None) -> np.ndarray:
    """For each outfit, over its pairs: how often two values of a group meet; colours as neutral or one of four hues."""
    hue = {
        "red": 0,
        "pink": 0,
        "orange": 1,
        "yellow": 1,
        "green": 2,
        "turquoise": 2,
        "blue": 3,
        "purple": 3,
    }
    warm = {"wool": 2, "knitted": 2, "leather": 1, "suede": 1, "denim": 1}
    codes = np.array(
        [
            [
                VOCABULARY["style"].index(one.style),
                hue.get(one.colour, 4),
                min(VOCABULARY["pattern"].index(one.pattern), 1),
                warm.get(one.material, 0),
            ]
            for one in garments
        ]
    )
    if shuffled is not None:
        codes = codes[shuffled]
    rows = []
    for items in outfits:
        counts = np.zeros((4, 5, 5))
        for k, first in enumerate(items):
            for second in items[:k]:
                for group, (a, b) in enumerate(zip(codes[first], codes[second])):
                    counts[group, min(a, b), max(a, b)] += 1
        rows.append(counts.ravel() / max(len(items) * (len(items) - 1) / 2, 1))
    return np.array(rows)


def test_the_rule_can_be_learnt_from_attributes_but_not_from_chance_or_popularity(outfit_lines):
    garments, lines = outfit_lines
    score = compatibility(garments)
    rng = np.random.default_rng(0)
    for version, name, learnt in (
        ("nondisjoint", "compatibility_test", 0.80),
        ("disjoint", "compatibility_test", 0.75),
        ("nondisjoint", "fashion_compatibility_harder_test", 0.70),
    ):
        (train_labels, train), (labels, test) = (
            lines[version, "compatibility_train"],
            lines[version, name],
        )
        hidden = np.array(
            [score[np.ix_(items, items)][np.triu_indices(len(items), 1)].mean() for items in test]
        )
        assert roc_auc(hidden, labels) > learnt + 0.05
        by_attributes = fitted_scores(
            pair_features(garments, train), train_labels, pair_features(garments, test)
        )
        assert learnt < roc_auc(by_attributes, labels) < roc_auc(hidden, labels) + 0.02
        # Other garments' marks tell nothing, nor does any item by itself: each is as often right as wrong.
        mixed = rng.permutation(len(garments))
        chance = fitted_scores(
            pair_features(garments, train, mixed),
            train_labels,
            pair_features(garments, test, mixed),
        )
        assert abs(roc_auc(chance, labels) - 0.5) < 0.06
        right, wrong = (
            Counter(item for items, label in zip(test, labels) if label == wanted for item in items)
            for wanted in (1, 0)
        )
        assert right == wrong


# ---- the same again, and bad input -----------------------------------------------------------------------------------


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


def test_window():
    window = draw_window(items=120, columns=3, shots=2, width=420)
    assert (
        window.dtype == np.uint8
        and window.shape[1:] == (420, 3)
        and window.shape[0] > 600
        and window.std() > 10
    )
    with pytest.raises(ValueError, match="too few .*: ask for fewer columns, or for more items"):
        draw_window(items=20, columns=9, width=420)


def test_the_catalogue_knows_its_in_shop_part(wardrobe):
    found, expected = catalog.load("wardrobe", wardrobe), inshop.load(wardrobe / "inshop")
    assert (
        found.name == "wardrobe" and found.paths == expected.paths and found.split == expected.split
    )
