"""Every annotation file of every layout, damaged at random: it is read, or refused by name."""

import pytest
import torch
from scipy.io import savemat

from helpers import layout_trees as trees
from helpers.damage import LAYOUTS, annotations, fuzz, judge


@pytest.mark.parametrize("layout", LAYOUTS)
def test_damaged_annotations_are_read_or_refused_by_name(layout):
    count = 40 if layout.startswith("cars") else 80  # .mat files are read in another process
    counts, failures = fuzz(layout, count, seed=0)
    assert not failures, "\n".join(failures[:5])
    outcomes = {outcome for _, outcome in counts}
    assert {"read", "refused"} <= outcomes and sum(counts.values()) >= count


LONG = "9" * 10_000
PARTITION = "Eval/list_eval_partition.txt"
IMAGE_ATTRIBUTES = "attributes/image_attribute_labels.txt"
ITEM = '[{"set_id": "12", "items": [{"item_id": %s, "index": 1}, {"item_id": "90", "index": 2}]}]'


@pytest.mark.parametrize(
    "layout, file, content, fragments",
    [
        (
            "cub",
            "images.txt",
            "7 ../../a.jpg",
            ["images.txt line 1: expected a file in the folder"],
        ),
        ("cub", "images.txt", "7 /a.jpg", ["line 1: expected a file", "found '/a.jpg'"]),
        ("cub", "images.txt", "7 a\0.jpg", ["images.txt line 1: there are NUL characters"]),
        ("cub", "images.txt", "x" * 10**6, ["images.txt line 1: expected 2 fields, found 1: 'xxx"]),
        ("cub", "images.txt", "9" * 30 + " a.jpg", ["images.txt line 1: expected a whole number"]),
        ("cub", "image_class_labels.txt", f"2 {LONG}", ["labels.txt line 1: expected a whole"]),
        ("cub", "image_class_labels.txt", "2 10 7", ["line 1: expected a whole", "found '10 7'"]),
        ("cub", "train_test_split.txt", "2 1 7", ["line 1: expected 1 (train) or 0", "found 1 7"]),
        ("cub", "bounding_boxes.txt", "2 1 2 3 1e300", ["line 1: expected a number"]),
        ("cub", IMAGE_ATTRIBUTES, "4294967303 1 1 4 1", ["the image is not in images.txt"]),
        ("cub", "parts/part_locs.txt", "7 1.5 1 1 1", ["part_locs.txt line 1: no image"]),
        (
            "cub",
            "parts/part_locs.txt",
            "7 1 1e300 1 1",
            ["part_locs.txt line 1: expected a number"],
        ),
        ("cub without names", IMAGE_ATTRIBUTES, "7 1000000000 1 4 1", ["no such attribute"]),
        ("nabirds", "images.txt", "c ..\\x.jpg", ["images.txt line 1: expected a file"]),
        ("nabirds", "classes.txt", f"{LONG} Birds", ["classes.txt line 1: expected a whole"]),
        ("aircraft", "images_variant_val.txt", "../1 DC-10", ["val.txt line 1: expected a file"]),
        ("vegfru", "vegfru_list/vegfru_val.txt", "../x/1.jpg 7", ["val.txt line 1: expected a"]),
        ("inshop", PARTITION, "²\nh\na b train", ["partition.txt line 1", "number of entries"]),
        ("inshop", PARTITION, LONG, ["partition.txt line 1: expected the number of entries"]),
        ("inshop", PARTITION, b"\xff\xfe6\0\n\0", ["partition.txt line 1", "number of entries"]),
        ("inshop", PARTITION, "1\nh\nimg/../../x/y/z.jpg i query", ["line 3: expected a file"]),
        ("food101", "meta/test.txt", "waffles/../7", ["test.txt line 1: expected CLASS/IMAGE"]),
        ("food101 by json", "meta/test.json", "[" * 10**5, ["test.json: ", "nested too deeply"]),
        ("food101 by json", "meta/test.json", f'{{"x": {LONG}}}', ["test.json: not readable JSON"]),
        ("food101 by json", "meta/test.json", '{"x": NaN}', ["test.json: ", "NaN is no number"]),
        ("food101 by json", "meta/test.json", '{"x": 7}', ["test.json class x: expected a list"]),
        ("polyvore", "nondisjoint/test.json", ITEM % '"../x"', ["test.json: expected a file"]),
        ("polyvore", "nondisjoint/test.json", ITEM % '"a\\ud800"', ["found 'a\\ud800'"]),
        ("polyvore", "nondisjoint/test.json", ITEM % "[[]]", ["test.json outfit 1: expected"]),
        ("polyvore", "polyvore_item_metadata.json", '{"10": 7}', ["item 10: expected a dict"]),
        (
            "polyvore",
            "polyvore_attributes.json",
            '{"annotations": {"10": [true]}, "attributes": ["lace", "blue", "knee length"]}',
            ["item 10: expected numbers of 0 .. 2, found [True]"],
        ),
        (
            "polyvore",
            "nondisjoint/fill_in_blank_test.json",
            '[{"question": ["12_1"], "answers": ["12_2", "12_1"], "blank_position": 1e999}]',
            ["question 1: expected question, answers and blank_position"],
        ),
    ],
)
def test_what_no_list_should_hold(tmp_path, layout, file, content, fragments):
    make, read = LAYOUTS[layout]
    home = make(tmp_path)
    (home / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    trees.refused(home, read, ValueError, *fragments)
    assert judge(read, home, home / file) == "refused"


def test_a_folder_in_the_place_of_a_list(tmp_path):
    home = trees.cub_tree(tmp_path)
    for file in annotations(home):
        content = file.read_bytes()
        file.unlink()
        file.mkdir()
        assert judge(LAYOUTS["cub"][1], home, file) == "refused"
        file.rmdir()
        file.write_bytes(content)


def test_names_may_hold_spaces_and_be_in_another_encoding(tmp_path):
    """In images.txt and classes.txt the last field is the rest of the line; file names keep the
    bytes that they have on disk."""
    home = trees.cub_tree(tmp_path)
    lists = {"images.txt": (b"010.Crow/a.jpg", b"010.Crow/a b\xe9.jpg extra")}
    lists["classes.txt"] = (b"010.Crow", b"010.Crow of \xe9 woods")
    for file, (name, other) in lists.items():
        content = (home / file).read_bytes()
        (home / file).write_bytes(content.replace(name, other))
    before = trees.load("cub", trees.cub_tree(tmp_path / "plain"))
    (home / "images" / "010.Crow" / "a.jpg").rename(
        home / "images" / "010.Crow" / "a b\udce9.jpg extra"
    )
    images = trees.load("cub", home)
    assert images.paths[0].is_file() and images.paths[0].name == "a b\udce9.jpg extra"
    assert images.class_names[1] == "010.Crow of \udce9 woods"
    assert images.fingerprint != before.fingerprint
    assert torch.equal(images.labels, before.labels)


@pytest.mark.parametrize(
    "field, value, fragment",
    [
        ("class", float("nan"), "annotation 2: expected a whole number, found nan"),
        ("class", 1e300, "annotation 2: expected a whole number, found 1e+300"),
        ("class", "x", "annotation 2: expected a whole number, found 'x'"),
        ("class", [1, 2], "annotation 2: expected a whole number, found [1, 2]"),
        ("fname", 7, "annotation 2: expected the name of a file, found 7"),
        ("fname", "../../x.jpg", "annotation 2: expected a file in the folder of images"),
        ("bbox_x1", "wide", "annotation 2: expected a number, found 'wide'"),
    ],
)
def test_what_no_annotation_of_cars_should_hold(tmp_path, field, value, fragment):
    home = trees.cars_tree(tmp_path)
    fields = {**trees.CARS, "class": [3, 1], "fname": ["00001.jpg", "00002.jpg"]}
    fields[field] = [fields[field][0], value]
    file = home / "devkit" / "cars_train_annos.mat"
    savemat(file, {"annotations": trees.structure(fields)})
    trees.refused(home, "cars", ValueError, f"{file} {fragment}")
