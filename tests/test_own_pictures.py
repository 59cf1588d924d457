import os
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from fieldmarks import own_pictures
from fieldmarks.cli import main
from fieldmarks.data.generated.fieldguide import make_fieldguide
from fieldmarks.experiments import hashing, open_set
from fieldmarks.experiments.models import load_model
from fieldmarks.own_pictures import PictureIndex

SMALL = {"resize": 64, "size": 48, "backbone": "resnet10t", "weights": "none", "batch_size": 8, "epochs": 1, "progress": "none", "device": "cpu"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two finished runs, and what they made of their own test images."""
    folder = tmp_path_factory.mktemp("runs")
    os.environ["FIELDMARKS_CACHE"] = str(folder / "cache")
    try:
        birds = make_fieldguide(folder / "birds", classes=6, images=4, size=64, seed=0)
        made = {}
        for name, kind, more in (("codes", hashing, {"bits": 12, "regions": 5, "region_size": 8}), ("embeddings", open_set, {"grids": (2, 4)})):
            experiment = kind.prepare(kind.Parameters(**SMALL, **more, root=str(birds), out=str(folder / name)))
            history, after = kind.train(experiment), kind.evaluate(experiment)
            finish = (history, after) if kind is hashing else (history, None, after)
            kind.finish(experiment, *finish, [], "")
            made[name] = (folder / name, experiment, after)
        yield made
    finally:
        del os.environ["FIELDMARKS_CACHE"]


@pytest.fixture
def pictures(runs, tmp_path):
    """A folder with folders, of the embedding run's test images."""
    _, experiment, _ = runs["embeddings"]
    for number, path in enumerate(experiment.test.paths):
        (tmp_path / "pictures" / f"part{number % 2}").mkdir(parents=True, exist_ok=True)
        shutil.copy(path, tmp_path / "pictures" / f"part{number % 2}" / path.name)
    return tmp_path / "pictures"


def test_a_model_says_of_its_own_test_images_what_the_run_said(runs):
    folder, experiment, after = runs["embeddings"]
    torch.testing.assert_close(load_model(folder, "cpu").describe(experiment.test_pixels), after.embeddings, atol=1e-5, rtol=0)
    folder, experiment, after = runs["codes"]
    assert torch.equal(load_model(folder, "cpu").describe(experiment.query_pixels), after.query_codes)


@pytest.mark.parametrize("kind", ["codes", "embeddings"])
def test_a_picture_finds_itself_and_the_nearest_by_brute_force(runs, pictures, tmp_path, kind):
    model = load_model(runs[kind][0], "cpu")
    index = PictureIndex.update(tmp_path / "index", model, pictures)
    assert len(index) == 12 and not index.unreadable
    rows = torch.from_numpy(own_pictures._vectors(model, [own_pictures.decode(pictures / name, 64) for name in index.names]).astype(np.int64)
                            if kind == "codes" else np.asarray(index.vectors))
    for number in (0, 7):
        hits = index.search(model, pictures / index.names[number], k=12)
        assert len({hit.path for hit in hits}) == 12
        if kind == "codes":
            naive = [sum(bin(int(a) ^ int(b)).count("1") for a, b in zip(rows[number], row)) for row in rows]
            assert [hit.score for hit in hits] == sorted(naive)
        else:
            assert hits[0].path == pictures / index.names[number] and hits[0].score == pytest.approx(1, abs=1e-5)
            naive = sorted((rows @ rows[number]).tolist(), reverse=True)
            assert [hit.score for hit in hits] == pytest.approx(naive, abs=1e-5)


def test_only_what_is_new_or_changed_is_looked_at_and_what_is_gone_leaves(runs, pictures, tmp_path, monkeypatch):
    model = load_model(runs["embeddings"][0], "cpu")
    (pictures / "broken.jpg").write_bytes(b"no picture")
    first = PictureIndex.update(tmp_path / "index", model, pictures)
    assert first.unreadable.keys() == {"broken.jpg"} and len(first) == 12
    looked = []
    decode = own_pictures.decode
    monkeypatch.setattr(own_pictures, "decode", lambda path, side: looked.append(path.name) or decode(path, side))
    assert PictureIndex.update(tmp_path / "index", model, pictures).names == first.names and looked == []
    gone, changed = (pictures / name for name in first.names[:2])
    gone.unlink()
    Image.new("RGB", (80, 70), "red").save(changed)
    Image.new("RGB", (80, 70), "blue").save(pictures / "new.png")
    second = PictureIndex.update(tmp_path / "index", model, pictures)
    assert sorted(looked) == sorted([changed.name, "new.png"]) and len(second) == 12
    assert first.names[0] not in second.names
    whole = PictureIndex.update(tmp_path / "afresh", model, pictures)
    for name in whole.names:
        np.testing.assert_allclose(second.vectors[second.names.index(name)], whole.vectors[whole.names.index(name)], atol=1e-5)


def test_a_stopped_index_goes_on_from_its_last_save(runs, pictures, tmp_path, monkeypatch):
    model = load_model(runs["codes"][0], "cpu")
    monkeypatch.setattr(own_pictures, "BATCH", 4)
    monkeypatch.setattr(own_pictures, "SAVE_EVERY", 0.0)
    decode, looked = own_pictures.decode, []

    def stops(path, side):
        looked.append(path.name)
        if len(looked) == 7:
            raise KeyboardInterrupt
        return decode(path, side)
    monkeypatch.setattr(own_pictures, "decode", stops)
    with pytest.raises(KeyboardInterrupt):
        PictureIndex.update(tmp_path / "index", model, pictures)
    assert len(PictureIndex.open(tmp_path / "index")) == 4
    index = PictureIndex.update(tmp_path / "index", model, pictures)
    assert len(index) == 12 and len(looked) == 7 + 8
    np.testing.assert_array_equal(index.vectors, PictureIndex.update(tmp_path / "afresh", model, pictures).vectors)


def test_index_and_search_from_a_command_line(runs, pictures, tmp_path, capsys, monkeypatch):
    (pictures / "broken.png").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    assert main(["index", str(runs["codes"][0]), str(pictures)]) == 0
    said = capsys.readouterr().out
    assert "left out: broken.png" in said and "12 pictures in pictures.index, 1 left out" in said
    query = next(path for path in pictures.rglob("*.jpg"))
    assert main(["search", "pictures.index", str(query), "-k", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 and "0 of 12 bits differ" in lines[0]
    page = (tmp_path / "pictures.index" / "search.html").read_text()
    assert page.count("<img") == 4 and "http" not in page.replace("http-equiv", "")


@pytest.mark.parametrize("words, message", [
    (["index", "{nothing}", "{pictures}"], "is not a finished run"),
    (["index", "{run}", "{nothing}"], "there is no folder"),
    (["index", "{run}", "{empty}"], "holds no picture"),
    (["index", "{run}", "{pictures}", "--out", "{pictures}"], "is not empty and holds no index of pictures: give a new folder"),
    (["search", "{pictures}", "x.jpg"], "holds no index of pictures: make one with fieldmarks index"),
])
def test_what_cannot_be_is_one_line(runs, pictures, tmp_path, capsys, words, message):
    (tmp_path / "empty").mkdir()
    places = {"run": runs["codes"][0], "pictures": pictures, "empty": tmp_path / "empty", "nothing": tmp_path / "nothing"}
    assert main([word.format(**places) for word in words]) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1


def test_an_index_of_another_model_is_refused(runs, pictures, tmp_path):
    codes, embeddings = (load_model(runs[kind][0], "cpu") for kind in ("codes", "embeddings"))
    index = PictureIndex.update(tmp_path / "index", codes, pictures)
    with pytest.raises(ValueError, match="is an index of other model"):
        PictureIndex.update(tmp_path / "index", embeddings, pictures)
    with pytest.raises(ValueError, match="was made by another model"):
        index.search(embeddings, pictures / index.names[0])
