"""Damaged and missing images, in every experiment: refused, or left out and counted."""

import pytest

from fieldguide.birds.guide import make_fieldguide
from fieldguide.garments.wardrobe import make_wardrobe
from fieldlab.cli import main
from fieldlab.explorer.gallery import common_gallery, explorable
from fieldmarks.experiments.fewshot import FewShot
from fieldmarks.experiments.hashing import Hashing
from fieldmarks.experiments.inshop import InShop
from fieldmarks.experiments.open_set import OpenSet
from fieldmarks.experiments.outfits import OutfitMatching
from fieldmarks.experiments.result import read_result
from helpers.experiments import finish

SMALL = {
    "resize": 32,
    "size": 32,
    "backbone": "resnet10t",
    "weights": "none",
    "epochs": 1,
    "progress": "none",
    "device": "cpu",
    "precision": "fp32",
}
BIRDS = {
    OpenSet: {"method": "normsoftmax", "batch_size": 8},
    Hashing: {"method": "adsh", "bits": 8, "batch_size": 8},
    FewShot: {"ways": 2, "shots": 2, "queries": 2, "episodes": 5, "validation_episodes": 5},
}
pytestmark = pytest.mark.filterwarnings("ignore:.*a partial copy:UserWarning")


def damage(root, count):
    """Some photographs of each of the first classes: cut short, overwritten, removed."""
    images = sorted(folder for folder in (root / "images").iterdir() if folder.is_dir())
    hurt = [sorted(folder.glob("*"))[number] for folder in images[:count] for number in (0, 1)]
    for number, path in enumerate(hurt):
        if number % 3 == 0:
            path.write_bytes(path.read_bytes()[:200])
        elif number % 3 == 1:
            path.write_text("no image")
        else:
            path.unlink()
    return images, hurt


@pytest.fixture(scope="module")
def birds(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "birds"
    return make_fieldguide(root, classes=8, images=8, size=32, seed=0)


@pytest.fixture(scope="module")
def hurt(birds):
    return damage(birds, 2)


@pytest.mark.parametrize("cls", BIRDS)
def test_birds_are_refused_or_left_out(birds, hurt, tmp_path, cls):
    folders, files = hurt
    out = {"dataset": "fieldguide", "root": str(birds), "out": str(tmp_path / "runs" / "one")}
    values = {**SMALL, **BIRDS[cls], **out}
    # Missing files are found first, by the lists; those that are there when they are decoded.
    with pytest.raises((ValueError, FileNotFoundError), match="unreadable ?= ?'leave_out'"):
        cls(cls.Parameters(**values))
    assert not (tmp_path / "runs").exists()
    with pytest.warns(UserWarning, match=r"fieldguide: 4 of 64 images cannot be read and are left"):
        experiment = cls(cls.Parameters(**values, unreadable="leave_out"))
    result = read_result(finish(experiment))
    names = [folder.name.split(".", 1)[1] for folder in folders[:2]]
    assert {key.split(".", 1)[-1]: n for key, n in result["left_out"].items()} == {
        name: 2 for name in names
    }
    used = [getattr(experiment, each, None) for each in ("train_set", "test_set")]
    used += [getattr(experiment, each, None) for each in ("database_set", "query_set")]
    used += [getattr(getattr(experiment, each, None), "images", None) for each in ("base", "novel")]
    used += [getattr(getattr(experiment, "validation", None), "images", None)]
    paths = [path for images in used if images is not None for path in images.paths]
    assert len(paths) == 60 and not set(paths) & set(files)
    with pytest.warns(UserWarning, match="left out"):  # a run's pictures are those it has used
        gallery = common_gallery(explorable(tmp_path / "runs")[0])
    assert not set(gallery.paths) & set(files)
    assert main(["report", str(tmp_path / "runs")]) == 0
    markdown = (tmp_path / "runs" / "report.md").read_text()
    assert "Left out, for images cannot be read: 2 of " in markdown


def test_a_class_without_images_is_refused(tmp_path):
    root = make_fieldguide(tmp_path / "birds", classes=4, images=4, size=32, seed=0)
    for path in sorted((root / "images").iterdir())[0].iterdir():
        path.write_bytes(b"")
    values = {**SMALL, "root": str(root), "out": str(tmp_path / "run"), "unreadable": "leave_out"}
    with pytest.raises(ValueError, match="none of the 4 images of .* can be read: fetch them"):
        OpenSet(OpenSet.Parameters(**values))
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def wardrobe(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "wardrobe"
    return make_wardrobe(folder, outfits=200, items=150, size=32, shots=3, seed=0)


def test_outfits_and_questions_that_need_a_missing_picture_are_dropped(wardrobe, tmp_path):
    values = {**SMALL, "root": str(wardrobe), "out": str(tmp_path / "run"), "method": "cosine"}
    whole = OutfitMatching(OutfitMatching.Parameters(**{**values, "out": str(tmp_path / "whole")}))
    data = whole.outfits
    lacking = {data.outfits["train"][0][0], data.outfits["test"][0][0]}
    stored = {row: data.paths[row].read_bytes() for row in lacking}
    try:
        for row in lacking:
            data.paths[row].unlink()
        with pytest.raises(FileNotFoundError, match="unreadable = 'leave_out'"):
            OutfitMatching(OutfitMatching.Parameters(**values))
        parameters = OutfitMatching.Parameters(**values, unreadable="leave_out")
        with pytest.warns(UserWarning, match="left out, for images cannot be read: 2 items, "):
            experiment = OutfitMatching(parameters)
        result = read_result(finish(experiment))
    finally:
        for row, content in stored.items():
            data.paths[row].write_bytes(content)
    assert result["left_out"]["items"] == 2 and len(experiment.outfits) == len(data) - 2
    for part, outfits in data.outfits.items():  # counted naively
        gone = sum(bool(lacking & set(outfit)) for outfit in outfits)
        assert result["left_out"][f"outfits {part}"] == gone
    for part, questions in data.compatibility.items():
        gone = sum(bool(lacking & set(question.items)) for question in questions)
        assert result["left_out"][f"compatibility {part}"] == gone
    for part, questions in data.blanks.items():
        asked = [set(question.question) | set(question.choices) for question in questions]
        assert result["left_out"][f"blanks {part}"] == sum(bool(lacking & each) for each in asked)
    left = [path for path in data.paths if path not in {data.paths[row] for row in lacking}]
    assert experiment.outfits.paths == left
    assert result["counts"]["query"] < whole.counts()[1]


def test_in_shop_goes_on_without_a_picture_of_the_gallery(wardrobe, tmp_path):
    values = {**SMALL, "root": str(wardrobe), "out": str(tmp_path / "run"), "method": "cosine"}
    values |= {"ks": (1, 2), "rerank": 0}
    whole = InShop(InShop.Parameters(**{**values, "out": str(tmp_path / "whole")}))
    path = whole.test_set.paths[int(whole.gallery[0])]
    content = path.read_bytes()
    try:
        path.write_bytes(content[:100])
        with pytest.raises(ValueError, match="unreadable='leave_out' in an experiment"):
            InShop(InShop.Parameters(**values))
        with pytest.warns(UserWarning, match="wardrobe: 1 of .* images cannot be read"):
            experiment = InShop(InShop.Parameters(**values, unreadable="leave_out"))
        result = read_result(finish(experiment))
    finally:
        path.write_bytes(content)
    assert list(result["left_out"].values()) == [1]
    assert len(experiment.gallery) == len(whole.gallery) - 1


def test_a_card_may_leave_out(capsys):
    plan = ["run", "labs/vapnet/table1.yaml", "--profile", "smoke", "--dry-run", "--set"]
    assert main([*plan, "unreadable=leave_out"]) == 0
    assert "unreadable=leave_out" in capsys.readouterr().out
    assert main([*plan, "unreadable=skip"]) == 2
    said = capsys.readouterr().err
    assert "unreadable" in said and "refuse, leave_out" in said and said.count("\n") == 1
