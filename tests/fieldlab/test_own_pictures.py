import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from fieldguide.birds.guide import make_fieldguide
from fieldlab import cascade, own_pictures
from fieldlab.cli import main
from fieldlab.models import load_model, load_pair_model
from fieldlab.own_pictures import PictureIndex
from fieldmarks.experiments.fewshot import FewShot
from fieldmarks.experiments.hashing import Hashing
from fieldmarks.experiments.open_set import OpenSet
from helpers.experiments import run
from helpers.full_disk import FULL_DISKS

SMALL = {
    "resize": 64,
    "size": 48,
    "backbone": "resnet10t",
    "weights": "none",
    "epochs": 1,
    "progress": "none",
    "device": "cpu",
}
OWN = {
    "codes": (Hashing, {"batch_size": 8, "bits": 12, "regions": 5, "region_size": 8}),
    "embeddings": (OpenSet, {"batch_size": 8, "grids": (2, 4)}),
    "pan": (
        FewShot,
        {
            "hidden": (8,),
            "evaluate_every": 1,
            "ways": 2,
            "shots": 1,
            "queries": 1,
            "episodes": 2,
            "validation_episodes": 2,
        },
    ),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Three finished runs, and what they made of their own test images."""
    folder, made = tmp_path_factory.mktemp("runs"), {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FIELDMARKS_CACHE", str(folder / "cache"))
        birds = make_fieldguide(folder / "birds", classes=8, images=4, size=64, seed=0)
        for name, (kind, more) in OWN.items():
            values = {**SMALL, **more, "root": str(birds), "out": str(folder / name)}
            experiment, history, scores = run(kind(kind.Parameters(**values)))
            experiment.finish(history, scores)
            made[name] = (folder / name, experiment, scores)
        yield made


@pytest.fixture
def pictures(runs, tmp_path):
    """A folder with folders, of twelve of the embedding run's test images."""
    _, experiment, _ = runs["embeddings"]
    for number, path in enumerate(experiment.test_set.paths[:12]):
        (tmp_path / "pictures" / f"part{number % 2}").mkdir(parents=True, exist_ok=True)
        shutil.copy(path, tmp_path / "pictures" / f"part{number % 2}" / path.name)
    return tmp_path / "pictures"


def test_a_model_says_of_its_own_test_images_what_the_run_said(runs):
    folder, experiment, scores = runs["embeddings"]
    embeddings = load_model(folder, "cpu").embed(experiment.test_pixels)
    torch.testing.assert_close(embeddings, scores.saved["embeddings"], atol=1e-5, rtol=0)
    folder, experiment, scores = runs["codes"]
    codes = load_model(folder, "cpu").embed(experiment.query_pixels)
    assert torch.equal(codes, scores.saved["query_codes"].float())


@pytest.mark.parametrize("kind", ["codes", "embeddings"])
def test_a_picture_finds_itself_and_the_nearest_by_brute_force(runs, pictures, tmp_path, kind):
    model = load_model(runs[kind][0], "cpu")
    index = PictureIndex.update(tmp_path / "index", model, pictures)
    assert len(index) == 12 and not index.unreadable
    rows = torch.from_numpy(
        own_pictures._vectors(
            model, [own_pictures.decode(pictures / name, 64) for name in index.names]
        ).astype(np.int64)
        if kind == "codes"
        else np.asarray(index.vectors)
    )
    for number in (0, 7):
        hits = index.search(model, pictures / index.names[number], k=12)
        assert len({hit.path for hit in hits}) == 12
        if kind == "codes":
            naive = [
                sum(bin(int(a) ^ int(b)).count("1") for a, b in zip(rows[number], row, strict=True))
                for row in rows
            ]
            assert [hit.score for hit in hits] == sorted(naive)
        else:
            assert hits[0].path == pictures / index.names[number] and hits[
                0
            ].score == pytest.approx(1, abs=1e-5)
            naive = sorted((rows @ rows[number]).tolist(), reverse=True)
            assert [hit.score for hit in hits] == pytest.approx(naive, abs=1e-5)


def test_a_folder_from_phone_scanner_and_browser_is_read_whole(runs, pictures, tmp_path, capsys):
    kinds = {"IMG_1.HEIC": "HEIF", "2.avif": "AVIF", "3.mpo": "MPO", "4.jp2": "JPEG2000"}
    kinds |= {"5.jfif": "JPEG", "download": "WEBP"}
    for name, form in kinds.items():
        Image.effect_noise((60, 70), 90).convert("RGB").save(pictures / name, format=form)
    (pictures / "raw.nef").write_bytes(b"IIRO\x08\0\0\0" + bytes(99))
    (pictures / "new.jxl").write_bytes(b"\xff\x0a" + bytes(99))
    for name in ("notes.txt", "Thumbs.db", ".hidden"):
        (pictures / name).write_bytes(b"no picture")
    out = tmp_path / "index"
    assert main(["index", str(runs["embeddings"][0]), str(pictures), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "left out: raw.nef: a raw camera file (Olympus ORF); develop it to JPEG or TIFF" in said
    assert "left out: new.jxl: a JPEG XL file, a kind that cannot be read" in said
    assert said.endswith("2 left out, 2 that are no pictures passed over\n")
    index = PictureIndex.open(out)
    assert kinds.keys() <= set(index.names) and index.others == 2
    hit = index.search(load_model(runs["embeddings"][0], "cpu"), pictures / "IMG_1.HEIC", 1)[0]
    assert hit.path == pictures / "IMG_1.HEIC" and hit.score == pytest.approx(1, abs=1e-5)


def test_only_what_is_new_or_changed_is_decoded_and_what_is_gone_leaves(
    runs, pictures, tmp_path, monkeypatch
):
    model = load_model(runs["embeddings"][0], "cpu")
    (pictures / "broken.jpg").write_bytes(b"no picture")
    first = PictureIndex.update(tmp_path / "index", model, pictures)
    assert first.unreadable.keys() == {"broken.jpg"} and len(first) == 12
    decoded = []
    decode = own_pictures.decode
    monkeypatch.setattr(
        own_pictures, "decode", lambda path, side: decoded.append(path.name) or decode(path, side)
    )
    assert (
        PictureIndex.update(tmp_path / "index", model, pictures).names == first.names
        and decoded == []
    )
    gone, changed = (pictures / name for name in first.names[:2])
    gone.unlink()
    Image.new("RGB", (80, 70), "red").save(changed)
    Image.new("RGB", (80, 70), "blue").save(pictures / "new.png")
    second = PictureIndex.update(tmp_path / "index", model, pictures)
    assert sorted(decoded) == sorted([changed.name, "new.png"]) and len(second) == 12
    assert first.names[0] not in second.names
    afresh = PictureIndex.update(tmp_path / "afresh", model, pictures)
    for name in afresh.names:
        np.testing.assert_allclose(
            second.vectors[second.names.index(name)],
            afresh.vectors[afresh.names.index(name)],
            atol=1e-5,
        )


def test_a_stopped_index_resumes_from_its_last_save(runs, pictures, tmp_path, monkeypatch):
    model = load_model(runs["codes"][0], "cpu")
    monkeypatch.setattr(own_pictures, "BATCH", 4)
    monkeypatch.setattr(own_pictures, "SAVE_EVERY", 0.0)
    decode, decoded = own_pictures.decode, []

    def stops(path, side):
        decoded.append(path.name)
        if len(decoded) == 7:
            raise KeyboardInterrupt
        return decode(path, side)

    monkeypatch.setattr(own_pictures, "decode", stops)
    with pytest.raises(KeyboardInterrupt):
        PictureIndex.update(tmp_path / "index", model, pictures)
    assert len(PictureIndex.open(tmp_path / "index")) == 4
    index = PictureIndex.update(tmp_path / "index", model, pictures)
    assert len(index) == 12 and len(decoded) == 7 + 8
    np.testing.assert_array_equal(
        index.vectors, PictureIndex.update(tmp_path / "afresh", model, pictures).vectors
    )


def test_index_and_search_from_a_command_line(runs, pictures, tmp_path, capsys, monkeypatch):
    (pictures / "broken.png").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    assert main(["index", str(runs["codes"][0]), str(pictures)]) == 0
    said = capsys.readouterr().out
    assert "left out: broken.png" in said and "12 pictures in pictures.index, 1 left out" in said
    query = next(path for path in pictures.rglob("*.jpg"))
    assert main(["search", "pictures.index", str(query), "-k", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5 and "0 of 12 bits differ" in lines[0]
    page = (tmp_path / "pictures.index" / "search.html").read_text()
    assert page.count("<img") == 4 and "http" not in page.replace("http-equiv", "")


@pytest.mark.parametrize(
    "words, message",
    [
        (["index", "{nothing}", "{pictures}"], "is not a finished run"),
        (["index", "{run}", "{nothing}"], "there is no folder"),
        (["index", "{run}", "{empty}"], "holds no picture"),
        (
            ["index", "{run}", "{pictures}", "--out", "{pictures}"],
            "is not empty and holds no index of pictures: give a new folder",
        ),
        (
            ["search", "{pictures}", "x.jpg"],
            "holds no index of pictures: make one with fieldmarks index",
        ),
    ],
)
def test_what_cannot_be_is_one_line(runs, pictures, tmp_path, capsys, words, message):
    (tmp_path / "empty").mkdir()
    places = {
        "run": runs["codes"][0],
        "pictures": pictures,
        "empty": tmp_path / "empty",
        "nothing": tmp_path / "nothing",
    }
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


@pytest.mark.parametrize("stopped_before_the_list", [False, True])
def test_a_stop_at_any_time_leaves_pictures_and_the_vectors_that_belong_to_them(
    runs, pictures, tmp_path, monkeypatch, stopped_before_the_list
):
    model = load_model(runs["embeddings"][0], "cpu")
    before = PictureIndex.update(tmp_path / "index", model, pictures)
    (pictures / before.names[0]).unlink()
    if stopped_before_the_list:

        def stopped(*_):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(own_pictures, "write_json", stopped)
            PictureIndex.update(tmp_path / "index", model, pictures)
        again = PictureIndex.open(tmp_path / "index")
        assert again.names == before.names
        np.testing.assert_array_equal(again.vectors, before.vectors)
    after = PictureIndex.update(tmp_path / "index", model, pictures)
    assert after.names == before.names[1:]
    np.testing.assert_array_equal(after.vectors, before.vectors[1:])
    assert sorted(file.name for file in (tmp_path / "index").iterdir() if file.name != ".lock") == [
        "index.json",
        after.about["vectors"],
    ]


def test_a_first_save_that_was_stopped_leaves_nothing_in_the_way(
    runs, pictures, tmp_path, monkeypatch
):
    model = load_model(runs["codes"][0], "cpu")

    def stopped(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(own_pictures, "write_json", stopped)
        PictureIndex.update(tmp_path / "index", model, pictures)
    index = PictureIndex.update(tmp_path / "index", model, pictures)
    assert len(index) == 12 and [file.name for file in (tmp_path / "index").glob("vectors-*")] == [
        index.about["vectors"]
    ]


def test_a_large_index_is_searched_through_lists_that_follow_what_changes(
    runs, pictures, tmp_path, monkeypatch
):
    monkeypatch.setattr(own_pictures, "EXACT_UP_TO", 8)
    model = load_model(runs["embeddings"][0], "cpu")
    index = PictureIndex.update(tmp_path / "index", model, pictures)
    assert index.lists_file.exists() and 0.95 <= index.recall <= 1
    index._searched.probes = index._searched.lists
    exact = index.vectors @ index.vectors[3]
    hits = index.search(model, pictures / index.names[3], k=12)
    assert [hit.score for hit in hits] == pytest.approx(
        sorted(exact.tolist(), reverse=True), abs=1e-5
    )
    before = index.lists_file
    assert (
        PictureIndex.update(tmp_path / "index", model, pictures).lists_file == before
    )  # nothing changed
    Image.new("RGB", (80, 70), "red").save(pictures / "new.png")
    after = PictureIndex.update(tmp_path / "index", model, pictures)
    assert (
        after.lists_file != before
        and not before.exists()
        and after.search(model, pictures / "new.png", 1)[0].path.name == "new.png"
    )
    # Lists whose writing was stopped are made at the next update; until then the search is exact.
    after.lists_file.with_name(f"{after.lists_file.name}.json").unlink()
    assert PictureIndex.open(tmp_path / "index").recall == 1
    assert PictureIndex.update(tmp_path / "index", model, pictures)._has_lists
    monkeypatch.setattr(own_pictures, "EXACT_UP_TO", 100)
    assert PictureIndex.update(tmp_path / "small", model, pictures).recall == 1


@pytest.fixture
def indexes(runs, pictures, tmp_path):
    """(index, model) of codes and of embeddings of one folder."""
    models = {kind: load_model(runs[kind][0], "cpu") for kind in ("codes", "embeddings")}
    return {
        kind: (PictureIndex.update(tmp_path / f"{kind}.index", model, pictures), model)
        for kind, model in models.items()
    }


def test_the_cascade_is_two_stages_done_by_hand(indexes, pictures):
    (codes, _), (embeddings, _) = indexes["codes"], indexes["embeddings"]
    for query in (0, 5):
        distances = [
            sum(
                bin(int(a) ^ int(b)).count("1")
                for a, b in zip(codes.vectors[query], row, strict=True)
            )
            for row in codes.vectors
        ]
        # As many as lie nearer than some distance, so that no tie lies at the cut.
        size = next(
            n for n in (sum(d <= limit for d in distances) for limit in range(13)) if n >= 3
        )
        short = {codes.names[row] for row in sorted(range(12), key=distances.__getitem__)[:size]}
        vector = {name: embeddings.vectors[embeddings.row_of[name]] for name in codes.names}
        cosine = {name: float(vector[name] @ vector[codes.names[query]]) for name in short}
        best = sorted(cosine, key=lambda name: -cosine[name])[:3]
        answer = cascade.search(
            pictures / codes.names[query],
            *indexes["codes"],
            rank=indexes["embeddings"],
            k=3,
            shortlist=size,
        )
        assert [hit.path for hit in answer.hits] == [
            pictures / name for name in best
        ] and answer.bits == 0
        assert [hit.score for hit in answer.hits] == pytest.approx(
            [cosine[name] for name in best], abs=1e-5
        )
        assert (
            len(answer.stages) == 2
            and all(stage.seconds > 0 for stage in answer.stages)
            and not answer.reasons
        )


def test_reasons_are_the_concepts_that_contribute_most_to_the_pairs_similarity(
    runs, indexes, pictures
):
    model = load_pair_model(runs["pan"][0], "cpu")
    query = pictures / indexes["codes"][0].names[0]
    answer = cascade.search(query, *indexes["codes"], explain=model, k=12)
    assert len(answer.hits) == 12 and len(answer.reasons) == 10 and answer.bits == 12
    itself = [hit.path for hit in answer.hits].index(query)
    assert [place for place, reason in enumerate(answer.reasons) if reason is None] == [itself] * (
        itself < 10
    )
    place = 4 if itself != 4 else 5
    both = [own_pictures.decode(path, model.resize) for path in (query, answer.hits[place].path)]
    concepts, relevance = model.concepts(*model.encode(own_pictures.DecodedPictures(both)))
    parts = {
        name: score * weight
        for name, score, weight in zip(
            model.names, concepts.tolist(), relevance.tolist(), strict=True
        )
    }
    reason = answer.reasons[place]
    assert reason.similarity == pytest.approx(sum(parts.values()), abs=1e-4)
    assert [value for _, value in reason.concepts] == pytest.approx(
        sorted(parts.values(), reverse=True)[:3], abs=1e-4
    )
    assert all(parts[name] == pytest.approx(value, abs=1e-4) for name, value in reason.concepts)


def test_pictures_that_have_moved_are_named_and_all_else_goes_on(runs, indexes, pictures, capsys):
    (codes, _), (embeddings, _) = indexes["codes"], indexes["embeddings"]
    query, gone = pictures / codes.names[0], pictures / codes.names[1]
    gone.rename(pictures / "elsewhere.jpg")
    PictureIndex.update(embeddings.folder, indexes["embeddings"][1], pictures)
    words = ["search", str(codes.folder), str(query), "-k", "12", "--explain", str(runs["pan"][0])]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert f"moved or removed since it was indexed: {gone}" in said
    page = (codes.folder / "search.html").read_text()
    assert page.count("<img") == 12 and page.count('class="gone"') == 1
    assert (
        page.count('class="why"') == said.count("     similarity ") >= 8
    )  # of ten, less the picture itself and the one that is gone
    assert main([*words, "--rank", str(embeddings.folder)]) == 0
    said = capsys.readouterr().out
    assert (
        f"1 picture is not in the index to rank by, first {gone}" in said
        and "shortlist: 12 of 12" in said
        and "ranking: 11 by cosine" in said
    )
    assert (
        "explanation: the first 10 by concepts (pan_supervised)" in said
        and said.count(" ms  ") == 3
    )


@pytest.mark.parametrize(
    "words, message",
    [
        (
            ["{codes}", "{query}", "--rank", "{codes}"],
            "holds codes, which are too coarse to rank by",
        ),
        (
            ["{embeddings}", "{query}", "--rank", "{codes}"],
            "holds codes, which are too coarse to rank by",
        ),
        (["{codes}", "{query}", "--rank", "{elsewhere}"], "give two of the same folder"),
        (["{codes}", "{query}", "--rank", "{run}"], "holds no index of pictures"),
        (["{codes}", "{query}", "--explain", "{run}"], "does not compare pictures in pairs"),
        (["{codes}", "{text}"], "notes.txt"),
        (["{codes}", "{nothing}"], "nothing.jpg"),
    ],
)
def test_stages_that_do_not_fit_are_refused_in_one_line(
    runs, indexes, pictures, tmp_path, capsys, words, message
):
    (tmp_path / "notes.txt").write_text("no picture")
    shutil.copytree(pictures, tmp_path / "copy")
    PictureIndex.update(tmp_path / "elsewhere", indexes["embeddings"][1], tmp_path / "copy")
    places = {
        "query": pictures / indexes["codes"][0].names[0],
        "run": runs["codes"][0],
        "text": tmp_path / "notes.txt",
        "elsewhere": tmp_path / "elsewhere",
        "nothing": tmp_path / "nothing.jpg",
    }
    places |= {kind: tmp_path / f"{kind}.index" for kind in indexes}
    assert main(["search", *(word.format(**places) for word in words)]) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1


def test_a_pair_model_makes_no_index(runs, pictures, tmp_path, capsys):
    assert (
        main(["index", str(runs["pan"][0]), str(pictures), "--out", str(tmp_path / "index")]) == 2
    )
    assert (
        "gives a picture no embedding of its own" in capsys.readouterr().err
        and not (tmp_path / "index").exists()
    )


@pytest.mark.parametrize("disk, told", FULL_DISKS)
def test_a_full_disk_leaves_the_index_as_it_was(runs, pictures, tmp_path, capsys, disk, told):
    folder, later = tmp_path / "index", tmp_path / "later"
    later.mkdir()
    for path in list(pictures.rglob("*.jpg"))[:6]:
        path.rename(later / path.name)
    update = ["index", str(runs["embeddings"][0]), str(pictures), "--out", str(folder)]
    assert main(update) == 0
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    for path in later.iterdir():
        path.rename(pictures / path.name)
    capsys.readouterr()
    with disk():
        assert main(update) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("fieldmarks: cannot write '") and f": {told}; nothing was" in line
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    assert len(PictureIndex.open(folder)) == 6 and main(update) == 0
    afresh = PictureIndex.update(
        tmp_path / "afresh", load_model(runs["embeddings"][0], "cpu"), pictures
    )
    index = PictureIndex.open(folder)
    assert sorted(index.names) == sorted(afresh.names) and len(index) == 12
    for row, name in enumerate(index.names):
        np.testing.assert_allclose(
            index.vectors[row], afresh.vectors[afresh.row_of[name]], atol=1e-5
        )


def test_vectors_of_an_update_that_was_killed_at_its_end_are_removed(runs, pictures, tmp_path):
    model = load_model(runs["codes"][0], "cpu")
    index = PictureIndex.update(tmp_path / "index", model, pictures)
    (tmp_path / "index" / "vectors-01234567.npy").write_bytes(b"of an earlier save")
    PictureIndex.update(tmp_path / "index", model, pictures)
    left = sorted(file.name for file in (tmp_path / "index").iterdir() if file.name != ".lock")
    assert left == ["index.json", index.about["vectors"]]
