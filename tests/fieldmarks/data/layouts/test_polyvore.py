"""Polyvore Outfits: a small tree in the official format, complete and damaged, and the published
lists."""

import json
import shutil
import warnings
from collections import Counter
from functools import partial
from pathlib import Path

import pytest
import torch

from fieldmarks.data.layouts import polyvore
from fieldmarks.data.layouts.outfit_questions import read_blanks, read_compatibility, read_outfits
from fieldmarks.data.layouts.reading import Copy
from helpers.layout_trees import (
    ITEMS,
    NAN,
    OUTFITS,
    blank,
    outfit_list,
    polyvore_tree,
    refused,
    same,
    write,
)


@pytest.fixture
def root(tmp_path) -> Path:
    return polyvore_tree(tmp_path)


def load(root: Path, split: str = "nondisjoint") -> polyvore.Outfits:
    """Load under a name without published counts: whatever it says fails the test."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return polyvore.load(root, split, name="wardrobe")


def test_items(root):
    for place in (root, root.parent, str(root)):
        outfits = load(place)
        assert outfits.item_ids == ITEMS and len(outfits) == 9 and outfits.root == root
        assert outfits.paths == [root / "images" / f"{item}.jpg" for item in ITEMS]
        assert outfits.categories == [
            "tops",
            "jewellery",
            None,
            "all-body",
            None,
            "jewellery",
            None,
            None,
            None,
        ]
        assert outfits.attribute_names == ["lace", "blue", "knee length"]
        same(
            outfits.attributes,
            [[1, 0, 1], [NAN] * 3, [NAN] * 3, [0, 0, 0]] + [[NAN] * 3] * 4 + [[0, 1, 0]],
        )
    assert repr(outfits) == (
        "<Outfits wardrobe: 9 items, 2 train outfits, 2 valid outfits, 1 test outfits, "
        "3 attributes>"
    )
    assert polyvore.require_attributes(outfits) is None


def test_outfits_and_questions(root):
    outfits = load(root)
    assert outfits.outfits == {
        "train": [[0, 1, 2], [0, 3]],
        "valid": [[4, 1], [5, 6, 4]],
        "test": [[7, 8]],
    }
    assert outfits.compatibility == {
        "train": [(1, [0, 1, 2]), (0, [3, 1])],
        "valid": [(1, [5, 6, 4]), (0, [4, 4, 6])],
        "test": [(1, [7, 8])],
        "valid resampled": [(0, [5, 5, 1])],
    }
    assert outfits.blanks == {
        "train": [([0, 2], [1, 0, 3], 0, 2)],
        "valid": [([5, 4], [6, 4], 0, 2), ([1], [4, 5, 5], 0, 1)],
        "test": [([7], [8, 7], 0, 2)],
        "valid resampled": [([5], [4, 4, 6], 1, 3)],
    }
    question = outfits.blanks["valid"][1]
    assert (
        outfits.item_ids[question.choices[question.answer]] == "50" and question.blank_position == 1
    )
    with pytest.raises(
        ValueError, match="no 'test resampled', only train, valid, test, valid resampled"
    ):
        outfits.compatibility["test resampled"]


def test_the_answer_need_not_be_the_first_choice(root):
    write(
        root / "nondisjoint" / "fill_in_blank_valid_harder_new.json",
        json.dumps([blank("11_1 11_2", "9_1 9_2 11_3", 3)]),
    )
    assert load(root).blanks["valid resampled"] == [([5, 6], [4, 1, 4], 2, 3)]


def test_every_token_means_the_item_that_its_outfit_lists(root):
    outfits = load(root)
    for part, questions in outfits.compatibility.items():
        file = root / "nondisjoint" / polyvore.COMPATIBILITY[part]
        rows = [line.split() for line in file.read_text().splitlines() if line]
        for question, (label, *tokens) in zip(questions, rows, strict=True):
            meant = [
                OUTFITS[part.split()[0]][token.split("_")[0]][int(token.split("_")[1])]
                for token in tokens
            ]
            assert [
                outfits.item_ids[item] for item in question.items
            ] == meant and question.label == int(label)


def test_disjoint_has_its_own_folder_and_no_resampled_questions(root):
    with pytest.raises(FileNotFoundError, match="wardrobe: .*disjoint/train.json is missing"):
        load(root, "disjoint")
    shutil.copytree(root / "nondisjoint", root / "disjoint")
    for file in (*root.glob("disjoint/*harder*"),):
        file.unlink()
    outfits = load(root, "disjoint")
    assert outfits.item_ids == ITEMS and list(outfits.compatibility) == list(outfits.blanks) == [
        "train",
        "valid",
        "test",
    ]


def test_a_partial_copy_says_what_it_lacks(root):
    (root / "nondisjoint" / "test.json").unlink()
    (root / "nondisjoint" / "fill_in_blank_train.json").unlink()
    with pytest.warns(UserWarning) as said:
        outfits = polyvore.load(root)
    assert [str(warning.message) for warning in said] == [
        "polyvore: a partial copy of nondisjoint: no fill_in_blank_train.json, no test.json, "
        "2 of 53,306 train outfits, 2 of 5,000 valid outfits",
        "polyvore: polyvore_attributes.json has 3 attributes, the published one 205",
    ]
    assert all(warning.filename == __file__ for warning in said)
    assert outfits.item_ids == ITEMS[:7] and list(outfits.outfits) == ["train", "valid"]
    assert list(outfits.compatibility) == ["train", "valid", "valid resampled"]
    assert list(outfits.blanks) == ["valid", "valid resampled"]
    for absent in (outfits.outfits, outfits.compatibility, outfits.blanks):
        with pytest.raises(
            ValueError, match="these outfits have no 'test', only .*valid.*; a file is missing"
        ):
            absent["test"]


def test_without_attributes_and_categories(root):
    for name in ("polyvore_item_metadata.json", "polyvore_attributes.json"):
        (root / name).unlink()
    outfits = load(root)
    assert outfits.categories is outfits.attributes is outfits.attribute_names is None
    refused(
        root,
        lambda root: polyvore.require_attributes(outfits),
        FileNotFoundError,
        str(root / "polyvore_attributes.json"),
        "is missing",
    )


def test_categories_without_the_list_of_ids(root):
    (root / "categories.csv").unlink()
    assert load(root).categories == ["tops", None, None, None, None, "jewellery", None, None, None]


# ---- names of attributes


def test_attribute_names_beside_the_annotations(root):
    write(
        root / "attribute_list.txt", "knee length", "lace", "blue"
    )  # the order of the annotations' own counts
    assert load(root).attribute_names == ["lace", "blue", "knee length"]
    content = {"annotations": {"10": [2, 0]}, "attributes": {"a": 1, "b": 2, "c": 0}}
    write(root / "polyvore_attributes.json", json.dumps(content))
    assert load(root).attribute_names == ["knee length", "lace", "blue"]
    (root / "attribute_list.txt").unlink()
    assert load(root).attribute_names == ["attribute 1", "attribute 2", "attribute 3"]


@pytest.mark.parametrize(
    "names, fragments",
    [
        (
            ["lace", "blue"],
            ["3 attributes, but", "attribute_list.txt names 2", "not of one release"],
        ),
        (["lace", "blue", "long"], ["attribute 'knee length' is not in", "attribute_list.txt"]),
    ],
)
def test_attribute_names_of_another_release(root, names, fragments):
    write(root / "attribute_list.txt", *names)
    refused(root, load, ValueError, "polyvore_attributes.json", *fragments)


@pytest.mark.parametrize(
    "content, fragments",
    [
        (
            '{"annotations": {"10": [3]}, "attributes": ["a", "b", "c"]}',
            ["item 10: expected numbers of 0 .. 2, found [3]"],
        ),
        (
            '{"annotations": {"10": ["a"]}, "attributes": ["a", "b", "c"]}',
            ["item 10", "found ['a']"],
        ),
        ('{"annotations": {"10": 1}, "attributes": ["a", "b", "c"]}', ["item 10", "found 1"]),
        ('{"annotations": {"10": [-1]}, "attributes": ["a", "b", "c"]}', ["item 10", "found [-1]"]),
        (
            '{"annotations": {"11": [0], "12": []}, "attributes": ["a"]}',
            ["none of its 2 items is in an outfit"],
        ),
        (
            '{"annotations": [[0]], "attributes": ["a"]}',
            ["expected annotations (by item) and attributes"],
        ),
        ('{"labels": {}}', ["expected annotations (by item) and attributes, found labels"]),
        ('{"annotations": {', ["not readable JSON", "line"]),
    ],
)
def test_damaged_attributes(root, content, fragments):
    write(root / "polyvore_attributes.json", content)
    refused(root, load, ValueError, "polyvore_attributes.json", *fragments)


# ---- bad copies


def test_items_without_a_picture(root):
    (root / "images" / "30.jpg").unlink()
    (root / "images" / "80.jpg").unlink()
    refused(
        root.parent,
        load,
        FileNotFoundError,
        str(root / "images" / "30.jpg"),
        "2 of 9 files are missing",
    )
    shutil.rmtree(root / "images")
    refused(
        root,
        load,
        FileNotFoundError,
        "wardrobe: ",
        str(root / "images" / "10.jpg"),
        "9 of 9 files are missing",
    )


def test_no_outfits(root, tmp_path):
    refused(
        tmp_path / "absent",
        load,
        FileNotFoundError,
        f"wardrobe: there is no folder {tmp_path / 'absent'}",
    )
    for part in OUTFITS:
        (root / "nondisjoint" / f"{part}.json").unlink()
    refused(
        root.parent, load, FileNotFoundError, str(root / "nondisjoint" / "train.json"), "is missing"
    )
    refused(
        root,
        partial(load, split="joint"),
        ValueError,
        "no split 'joint'; it should be nondisjoint or disjoint",
    )


@pytest.mark.parametrize(
    "outfits, fragments",
    [
        (
            [{"set_id": "9", "items": [{"item_id": "50", "index": 1}]}],
            ["outfit 1: set 9 has 1 items"],
        ),
        ([{"set_id": "9", "items": []}], ["outfit 1: set 9 has 0 items"]),
        (
            outfit_list(OUTFITS["valid"]) + outfit_list({"9": {1: "50", 2: "30"}}),
            ["outfit 3: set 9 is listed a second time"],
        ),
        (
            [
                {
                    "set_id": "9",
                    "items": [{"item_id": "50", "index": 1}, {"item_id": "30", "index": 1}],
                }
            ],
            ["outfit 1: set 9 has two items with one index"],
        ),
        ([{"items": []}], ["outfit 1: expected a set_id and items"]),
        (
            [{"set_id": "9", "items": [{"item_id": "50"}]}],
            ["outfit 1: expected a set_id and items"],
        ),
        (
            [{"set_id": "9", "items": [{"item_id": "50", "index": "x"}]}],
            ["outfit 1: expected a set_id and items"],
        ),
        (["9"], ["outfit 1: expected a set_id and items"]),
        ({"9": []}, ["expected a list, found a dict"]),
    ],
)
def test_damaged_outfits(root, outfits, fragments):
    write(root / "nondisjoint" / "valid.json", json.dumps(outfits))
    refused(root, load, ValueError, "valid.json", *fragments)


@pytest.mark.parametrize(
    "line, fragments",
    [
        ("1 9_1", ["line 2: 1 items, and an outfit has at least 2"]),
        ("0", ["line 2: 0 items"]),
        ("2 9_1 9_2", ["line 2: expected 1 or 0 first, found '2'"]),
        ("9_1 9_2", ["line 2: expected 1 or 0 first"]),
        ("1 9_1 92", ["line 2: expected SET_INDEX, found '92'"]),
        ("1 9_1 9_x", ["line 2: expected SET_INDEX, found '9_x'"]),
        ("1 9_1 9_3", ["line 2: 9_3 is in none of the outfits of valid.json"]),
        ("1 9_1 7_1", ["line 2: 7_1 is in none of the outfits of valid.json"]),  # a train outfit's
    ],
)
def test_damaged_compatibility_questions(root, line, fragments):
    write(root / "nondisjoint" / "compatibility_valid.txt", "1 9_1 9_2", line)
    refused(root, load, ValueError, "compatibility_valid.txt", *fragments)


@pytest.mark.parametrize(
    "question, fragments",
    [
        (
            blank("9_1", "11_1 11_2", 2),
            ["question 2: the answer is not among the choices, none of which is of outfit 9"],
        ),
        (blank("9_1", "9_2", 2), ["question 2: 1 items and 1 choices"]),
        (blank("", "9_2 11_1", 2), ["question 2: 0 items and 2 choices"]),
        (blank("9_1", "9_2 11-1", 2), ["question 2: expected SET_INDEX, found '11-1'"]),
        (blank("9_1", "9_2 11_4", 2), ["question 2: 11_4 is in none of the outfits of valid.json"]),
        (
            blank("9_1", "9_2 11_1", None),
            ["question 2: expected question, answers and blank_position"],
        ),
        (
            {"question": ["9_1"], "blank_position": 2},
            ["question 2: expected question, answers and blank_position"],
        ),
    ],
)
def test_damaged_blanks(root, question, fragments):
    write(
        root / "nondisjoint" / "fill_in_blank_valid.json",
        json.dumps([blank("9_1", "9_2 11_1", 2), question]),
    )
    refused(root, load, ValueError, "fill_in_blank_valid.json", *fragments)


def test_damaged_categories(root):
    write(root / "categories.csv", "3,dress,all-body", "4,dress")
    refused(root, load, ValueError, "categories.csv line 2", "found '4,dress'")


# ---- the published lists


@pytest.fixture
def published(real_data) -> Path:
    return real_data / "annotations" / "polyvore_outfits"


def test_published_outfits_and_compatibility(published):
    outfits = read_outfits(published / "nondisjoint_partial" / "valid.json")
    assert len(outfits) == 5_000 and sum(map(len, outfits.values())) == 26_781
    assert len({item for outfit in outfits.values() for item in outfit.values()}) == 25_132
    assert outfits["224930161"] == {1: "213343990", 2: "206270853", 3: "202059322", 4: "53908391"}
    for file, count in (
        ("nondisjoint_partial/compatibility_valid.txt", 10_000),
        ("pan_harder/fashion_compatibility_harder_val.txt", 10_000),
        ("pan_harder/fashion_compatibility_harder_test.txt", 20_000),
    ):
        questions = read_compatibility(published / file)
        assert Counter(question.label for question in questions) == {1: count // 2, 0: count // 2}
        assert all(
            len({token.split("_")[0] for token in question.items}) == 1
            for question in questions
            if question.label
        )


def test_published_resampled_blanks(published):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        questions = read_blanks(published / "pan_harder" / "fill_in_blank_test_harder_new.json")
    assert len(questions) == 10_000
    with pytest.warns(UserWarning, match="1 of 5,000 questions, 396 first, have a blank_position"):
        questions += read_blanks(published / "pan_harder" / "fill_in_blank_valid_harder_new.json")
    assert len(questions) == 15_000 and all(len(question.choices) == 10 for question in questions)
    assert {question.answer for question in questions} == {0}
    assert questions[10_395].blank_position == 6 and questions[10_395].choices[0] == "212977975_5"


def test_published_categories(published):
    rows = polyvore.read_categories(published / "nondisjoint_partial" / "categories.csv")
    assert (
        len(rows) == 224
        and rows[1] == ("3", "dress", "all-body")
        and rows[0] == ("2", "undefined", "")
    )
    assert {semantic for _, _, semantic in rows} == {
        "",
        "accessories",
        "all-body",
        "bags",
        "bottoms",
        "hats",
        "jewellery",
        "outerwear",
        "scarves",
        "shoes",
        "sunglasses",
        "tops",
    }


@pytest.mark.filterwarnings("ignore:.*fill_in_blank_valid_harder_new.json. 1 of 5,000:UserWarning")
def test_published_lists_as_a_partial_copy(published, tmp_path, monkeypatch):
    """All published lists at hand, in their official places, without the photographs."""
    monkeypatch.setattr(Copy, "require_images", lambda *_: None)
    folder = tmp_path / "nondisjoint"
    folder.mkdir()
    for name in ("valid.json", "compatibility_valid.txt"):
        (folder / name).symlink_to(published / "nondisjoint_partial" / name)
    for file in (published / "pan_harder").glob("*harder*"):
        (folder / file.name).symlink_to(file)
    (tmp_path / "categories.csv").symlink_to(published / "nondisjoint_partial" / "categories.csv")
    (tmp_path / "attribute_list.txt").symlink_to(published / "pan_harder" / "attribute_list.txt")
    sets = read_outfits(folder / "valid.json")
    names = (tmp_path / "attribute_list.txt").read_text().split()
    item = next(iter(next(iter(sets.values())).values()))
    write(
        tmp_path / "polyvore_attributes.json",
        json.dumps({"annotations": {item: [204, 0]}, "attributes": names}),
    )
    category = json.loads((published / "nondisjoint_partial" / "train_category.json").read_text())
    write(
        tmp_path / "polyvore_item_metadata.json",
        json.dumps({item: {"category_id": category[item]} for item in category}),
    )
    with pytest.warns(
        UserWarning,
        match="a partial copy of nondisjoint: no train.json, no compatibility_train.txt",
    ):
        outfits = polyvore.load(tmp_path)
    assert (
        len(outfits) == 25_132
        and list(outfits.outfits) == ["valid"]
        and len(outfits.outfits["valid"]) == 5_000
    )
    assert [[outfits.item_ids[row] for row in outfit] for outfit in outfits.outfits["valid"]] == [
        list(outfit.values()) for outfit in sets.values()
    ]
    assert list(outfits.compatibility) == ["valid", "valid resampled"] and list(outfits.blanks) == [
        "valid resampled"
    ]
    positives = [
        set(question.items) for question in outfits.compatibility["valid"] if question.label
    ]
    assert positives == [set(outfit) for outfit in outfits.outfits["valid"]]
    assert outfits.attributes.shape == (25_132, 205) and outfits.attribute_names == names
    assert outfits.attributes[0].nonzero().flatten().tolist() == [0, 204]
    assert outfits.attributes[1:].isnan().all() and torch.isfinite(outfits.attributes[0]).all()
    said = Counter(outfits.categories)
    assert (
        said["shoes"] > 3_000 and said["tops"] > 2_000 and None in said and "jewellery " not in said
    )


# ---- without some items


def test_outfits_without_items(root):
    questions = [blank("7_1 7_3", "7_2 8_2 8_5", 2), blank("8_2", "8_5 7_2", 5)]
    write(root / "nondisjoint" / "fill_in_blank_train.json", json.dumps(questions))
    outfits = load(root)
    assert outfits.without([]).fingerprint == outfits.fingerprint
    result = outfits.without([2])  # item 20, in outfit 7 of train
    assert result.item_ids == ["10", "30", "40", "50", "60", "70", "80", "90"]
    assert [path.stem for path in result.paths] == result.item_ids
    assert result.categories == [*outfits.categories[:2], *outfits.categories[3:]]
    same(result.attributes, outfits.attributes[[0, 1, 3, 4, 5, 6, 7, 8]].tolist())
    assert result.outfits == {"train": [[0, 2]], "valid": [[3, 1], [4, 5, 3]], "test": [[6, 7]]}
    assert result.compatibility == {
        "train": [(0, [2, 1])],
        "valid": [(1, [4, 5, 3]), (0, [3, 3, 5])],
        "test": [(1, [6, 7])],
        "valid resampled": [(0, [4, 4, 1])],
    }
    assert result.blanks["train"] == [([0], [2, 1], 0, 5)]
    assert result.blanks["valid"] == [([4, 3], [5, 3], 0, 2), ([1], [3, 4, 4], 0, 1)]
    assert len(outfits) == 9 and outfits.outfits["train"] == [[0, 1, 2], [0, 3]]  # as they were


def test_outfits_and_questions_by_what_is_left(root):
    write(root / "nondisjoint" / "fill_in_blank_train.json", "[]")
    (root / "nondisjoint" / "compatibility_train.txt").write_text("0 7_1 8_5\n1 7_1 7_2\n")
    result = load(root).without(torch.tensor([2]))
    assert result.blanks["train"] == []  # there were none
    assert result.compatibility["train"] == [(0, [0, 2]), (1, [0, 1])]
    assert result.compatibility["train"][0].label == 0  # still a question, not a bare tuple


@pytest.mark.parametrize(
    "rows, message",
    [
        ([7], "wardrobe: all 1 outfits of test have one of the 1 items that are left out; "),
        ([1, 3], "wardrobe: all 2 outfits of train have one of the 2 items that are left out; "),
        ([3], "wardrobe: all 1 blank questions of train have one of the 1 items"),
        ([9], "wardrobe: there is no item 9 among 9$"),
        ([-1], "wardrobe: there is no item -1 among 9$"),
    ],
)
def test_nothing_is_left_of_a_part(root, rows, message):
    with pytest.raises(ValueError, match=f"^{message}") as raised:
        load(root).without(rows)
    assert "\n" not in str(raised.value)
