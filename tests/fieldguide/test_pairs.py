"""A folder of twins: pictures to the bit, masks, the table, the same again, bad input."""

import csv
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from fieldguide import make_twins
from fieldguide.birds.attributes import VOCABULARY
from fieldguide.birds.photographs import field_photograph
from fieldguide.birds.species import make_species
from fieldguide.birds.twins import EXCHANGEABLE
from fieldguide.garments.attributes import make_garments
from fieldguide.garments.shots import photograph as shoot_again
from fieldguide.garments.twins import attributes_of
from helpers.generated import digest

SMALL = {"pairs": 9, "classes": 6, "size": 80, "seed": 3}
KINDS = ("mark", "scene", "attribute", "backdrop")


@pytest.fixture(scope="module", params=KINDS)
def folder(request, tmp_path_factory):
    name = tmp_path_factory.mktemp("twins") / request.param
    return make_twins(name, exchange=request.param, **SMALL)


def rows(folder) -> list[dict]:
    with open(folder / "twins.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_the_files_are_what_the_table_says(folder):
    table, kind = rows(folder), folder.name
    assert [row["pair"] for row in table] == [f"{pair:06d}" for pair in range(9)]
    species, garments = make_species(6, 3, "standard"), make_garments(6, 3)
    for number, row in enumerate(table):
        pictures = {
            name: np.asarray(Image.open(folder / name / f"{row['pair']}.png"))
            for name in ("first", "second", "changed", "part", "object")
        }
        assert pictures["first"].shape == pictures["second"].shape == (80, 80, 3)
        apart = np.abs(pictures["first"].astype(int) - pictures["second"]).max(axis=2)
        for name in ("changed", "part", "object"):
            assert pictures[name].shape == (80, 80) and set(np.unique(pictures[name])) <= {0, 255}
            assert pictures[name].any()
        assert np.array_equal(pictures["changed"] == 255, apart > 0)
        assert float(row["changed"]) == pytest.approx((apart > 0).mean(), abs=1e-6)
        assert float(row["seen"]) == pytest.approx((apart >= 16).mean(), abs=1e-6)
        if kind in ("attribute", "backdrop"):
            one = garments[number % 6]
            assert row["class"] == str(one.number) and row["name"] == f"{one.cloth()} {one.kind}"
            assert row["part"] == "" and not (folder / "parts").exists()
            taken = shoot_again(one, int(row["image"]), 80)
            assert np.array_equal(taken.image, pictures["first"])
            if kind == "attribute":
                assert row["before"] == attributes_of(one)[row["mark"]] != row["after"]
            else:
                assert (row["mark"], row["before"], row["after"]) == ("backdrop", "", "")
                assert row["image"] == str(3 + number // 6)
            continue
        one = species[number % 6]
        assert row["class"] == str(number % 6 + 1) and row["name"] == one.name
        photograph = field_photograph(one, (3, number % 6, int(row["image"])), 80)
        assert np.array_equal(photograph.image, pictures["first"])
        assert np.array_equal(photograph.mask, pictures["object"] == 255)
        parts = np.asarray(Image.open(folder / "parts" / f"{row['pair']}.png"))
        assert np.array_equal(photograph.parts, parts)
        if kind == "scene":
            assert (row["mark"], row["before"], row["after"]) == ("scene", "", "")
        else:
            assert row["mark"] in EXCHANGEABLE and row["after"] in VOCABULARY[row["mark"]]
            assert photograph.individual.marks[row["mark"]] == row["before"] != row["after"]
    manifest = json.loads((folder / "twins.json").read_text())
    assert manifest["parameters"] == SMALL | {"exchange": kind, "difficulty": "standard"}


@pytest.mark.slow
def test_the_same_again_in_another_process_and_more_pairs_begin_with_these(folder, tmp_path):
    options = [word for name, value in SMALL.items() for word in (f"--{name}", str(value))]
    words = ["twins", str(tmp_path / "again"), "--exchange", folder.name, *options]
    run = [sys.executable, "-m", "fieldguide", *words]
    done = subprocess.run(run, capture_output=True, text=True, check=True)
    assert done.stdout == (
        f"9 pairs of 80 x 80 px, another {folder.name} in each, in {tmp_path / 'again'}\n"
    )
    assert digest(tmp_path / "again") == digest(folder)
    several = make_twins(tmp_path / "several", exchange=folder.name, **SMALL, workers=2)
    assert digest(several) == digest(folder)
    more = make_twins(tmp_path / "more", exchange=folder.name, **SMALL | {"pairs": 11})
    pictures = {name: value for name, value in digest(folder).items() if name.endswith(".png")}
    assert pictures.items() <= digest(more).items() and rows(more)[:9] == rows(folder)


def test_finished_twins_are_returned_as_they_are(folder):
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert make_twins(folder, exchange=folder.name, **SMALL) == folder
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    with pytest.raises(FileExistsError, match="holds a set of twins with seed 3 instead of 4"):
        make_twins(folder, exchange=folder.name, **SMALL | {"seed": 4})


@pytest.mark.slow
def test_marks_vary_and_a_siblings_value_is_preferred(tmp_path):
    table = rows(make_twins(tmp_path / "twins", 30, classes=12, size=64))
    assert len({row["mark"] for row in table}) > 10
    species = make_species(12, 0, "standard")
    theirs = 0
    for row in table:
        one = species[int(row["class"]) - 1]
        siblings = [other for other in species if other.family == one.family and other is not one]
        theirs += any(other.marks[row["mark"]] == row["after"] for other in siblings)
    diagnostic = sum(row["mark"] in species[int(row["class"]) - 1].diagnostic for row in table)
    assert theirs >= 0.5 * diagnostic


@pytest.mark.parametrize(
    "bad, message",
    [
        ({"pairs": 0}, "pairs must be a whole number of at least 1, not 0"),
        ({"classes": 1}, "classes must be a whole number of at least 2, not 1"),
        ({"size": 31}, "size must be a whole number of at least 32, not 31"),
        ({"workers": 0}, "workers must be a whole number of at least 1, not 0"),
        ({"seed": -1}, "seed must be a whole number of at least 0, not -1"),
        (
            {"exchange": "colour"},
            "exchange must be one of mark, scene, attribute, backdrop, not 'colour'",
        ),
        ({"difficulty": "easy"}, "difficulty must be one of standard, hard, not 'easy'"),
    ],
)
def test_parameters_out_of_range(tmp_path, bad, message):
    with pytest.raises(ValueError) as error:
        make_twins(tmp_path / "twins", **bad)
    assert str(error.value) == message and not list(tmp_path.iterdir())


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_an_interrupted_run_leaves_nothing(tmp_path, workers):
    def stop(done, total):
        assert (done, total) == (2, 18)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_twins(tmp_path / "twins", progress=stop, **SMALL, workers=workers)
    assert not list(tmp_path.iterdir())
