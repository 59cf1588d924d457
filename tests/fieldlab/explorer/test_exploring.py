"""What can be explored, on which pictures, what is found there and why; and the panels, clicked without a browser."""

import io
import json
import re
import shutil
import zipfile

import numpy as np
import pytest
import torch
from fieldlab.explorer import exploring
from fieldlab.explorer.panels import Explorer
from fieldmarks.evaluation.recall import nearest
from fieldmarks.experiments import fewshot, hashing, open_set
from PIL import Image

BIRDS = "12 classes, 8 images, 64 px, seed 0, standard"
SMALL = [
    "resize=64",
    "size=48",
    "backbone=resnet10t",
    "weights=none",
    "device=cpu",
    "progress=none",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Runs of VAPNet, FCAENet with two lengths, ITQ and PAN on birds, and of VAPNet on other birds."""
    home = tmp_path_factory.mktemp("exploring")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FIELDMARKS_CACHE", str(home / "cache"))
        own = [*SMALL, f"fieldguide={BIRDS}"]
        hashed = [
            "epochs=1",
            "passes=1",
            "max_classes=4",
            "batch_size=4",
            "regions=9",
            "region_size=8",
        ]
        few = [
            "hidden=16",
            "concepts=5",
            "epochs=4",
            "ways=3",
            "shots=2",
            "queries=6",
            "episodes=20",
            "validation_episodes=10",
        ]
        for name, main, words in (
            (
                "other",
                open_set.main,
                [*SMALL, "fieldguide=6 classes, 4 images, 64 px, seed 0, standard", "method=scda"],
            ),
            ("vapnet", open_set.main, [*own, "epochs=1", "batch_size=8"]),
            ("itq", hashing.main, [*own, "method=itq", "bits=8", "max_classes=4"]),
            ("fcaenet-8", hashing.main, [*own, *hashed, "bits=8"]),
            ("fcaenet-12", hashing.main, [*own, *hashed, "bits=12"]),
            ("pan", fewshot.main, [*own, *few]),
        ):
            assert main([*words, f"out={home / 'runs' / name}"]) == 0
        yield home / "runs"


@pytest.fixture(scope="module")
def runs(folder):
    found = {run.folder.name: run for run in exploring.explorable(folder)[0]}
    assert set(found) == {"pan", "fcaenet-12", "fcaenet-8", "vapnet", "other"}
    return found


@pytest.fixture(scope="module")
def gallery(runs):
    return exploring.common_gallery([runs["vapnet"], runs["fcaenet-8"], runs["pan"]])


# ---- runs and pictures


def test_runs_without_a_network_are_told_apart(folder):
    good, others = exploring.explorable(folder)
    assert [run.folder.name for run in others] == ["itq"] and len(good) == 5
    ended = [run.result["finished"] for run in good]
    assert ended == sorted(ended, reverse=True)


def test_the_first_choice_has_every_experiment_and_code_length_of_the_latest_data(runs):
    latest_first = sorted(runs.values(), key=lambda run: run.folder.name == "other")
    names = [run.folder.name for run in exploring.first_choice(latest_first)]
    assert (
        names[0] == "vapnet"
        and sorted(names[1:3]) == ["fcaenet-12", "fcaenet-8"]
        and names[3:] == ["pan"]
    )


def test_the_gallery_holds_what_no_run_has_learnt_from(runs, gallery):
    learnt = set()
    train, _ = open_set.load_split(open_set.Parameters(**parameters(runs["vapnet"])))
    learnt |= set(train.paths)
    database, _ = hashing.load_split(hashing.Parameters(**parameters(runs["fcaenet-8"])))
    learnt |= set(database.paths)
    p = fewshot.Parameters(**parameters(runs["pan"]))
    whole = fewshot.load_images(p)
    parts = fewshot.few_shot_split(whole)
    learnt |= {*parts["base"].paths, *parts["validation"].paths}
    assert gallery.paths == [path for path in whole.paths if path not in learnt] and 2 <= len(
        gallery
    ) < len(whole)
    for position in range(len(gallery)):
        row = whole.paths.index(gallery.paths[position])
        assert gallery.class_of(position) == whole.class_names[int(whole.labels[row])]
        assert gallery.is_new_to(runs["vapnet"], position) == (
            gallery.class_of(position) not in {train.class_names[c] for c in train.labels}
        )


def parameters(run):
    return {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in run.result["parameters"].items()
    }


def test_pictures_of_classes_that_were_learnt_are_not_new(runs):
    gallery = exploring.common_gallery([runs["fcaenet-8"]])
    news = [gallery.is_new_to(runs["fcaenet-8"], position) for position in range(len(gallery))]
    assert set(news) == {True, False}
    assert len({gallery.class_of(position) for position, new in enumerate(news) if not new}) == 4


def test_runs_of_different_data_are_one_clear_line(runs):
    with pytest.raises(
        ValueError,
        match=r"^these runs are of different data, pick runs of one data set: vapnet .* is of fieldguide \(12 .*; scda is of",
    ) as told:
        exploring.common_gallery([runs["vapnet"], runs["other"]])
    assert "\n" not in str(told.value)
    with pytest.raises(ValueError, match="no run is picked"):
        exploring.common_gallery([])


def test_pictures_that_have_changed_or_moved_are_noticed(runs, tmp_path):
    source = next(path for path in exploring.common_gallery([runs["vapnet"]]).paths).parents[2]
    moved = shutil.copytree(source, tmp_path / "birds")
    run = runs["vapnet"]._replace(result=json.loads(json.dumps(runs["vapnet"].result)))
    run.result["parameters"]["root"] = str(moved)
    assert len(exploring.common_gallery([run])) == 48
    next((moved / "images").rglob("*.jpg")).rename(tmp_path / "gone.jpg")
    with pytest.raises(FileNotFoundError, match="birds"):
        exploring.common_gallery([run])
    run.result["data_fingerprint"] = "0 1"
    run.result["parameters"]["root"] = str(source)
    with pytest.raises(ValueError, match="have changed since"):
        exploring.common_gallery([run])


def test_no_runs_say_what_makes_some(tmp_path):
    with pytest.raises(
        FileNotFoundError, match="no finished run below .*: make some with make demo"
    ):
        exploring.explorable(tmp_path)


def test_a_folder_of_ones_own_has_no_labels_and_leaves_out_what_cannot_be_read(tmp_path):
    for number in range(3):
        Image.new("RGB", (50, 40), (80 * number, 0, 0)).save(tmp_path / f"{number}.png")
    (tmp_path / "broken.jpg").write_bytes(b"no")
    gallery = exploring.own_gallery(tmp_path)
    assert [path.name for path in gallery.paths] == [
        "0.png",
        "1.png",
        "2.png",
    ] and gallery.labels is None
    assert (
        {path.name for path in gallery.left_out} == {"broken.jpg"}
        and gallery.words(1) == "1.png"
        and gallery.is_right(0, 1) is None
    )
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no picture"):
        exploring.own_gallery(tmp_path / "empty")
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        exploring.own_gallery(tmp_path / "nothing")


# ---- uploads


def encoded(image, kind):
    with io.BytesIO() as stream:
        image.save(stream, kind)
        return stream.getvalue()


def archived():
    with io.BytesIO() as stream:
        with zipfile.ZipFile(stream, "w") as file:
            file.writestr("a.jpg", b"x")
        return stream.getvalue()


@pytest.mark.parametrize(
    "name, content, says",
    [
        ("a.jpg", archived, "a.jpg cannot be used: not a picture"),
        ("a.png", lambda: encoded(Image.new("1", (10_000, 10_000)), "PNG"), "10000 x 10000 pixels"),
        (
            "b.png",
            lambda: encoded(Image.new("1", (20_000, 10_000)), "PNG"),
            "20.?000 x 10.?000|bomb|exceeds limit",
        ),
        ("a.jpg", lambda: encoded(Image.effect_noise((200, 200), 90), "JPEG")[:3000], "truncated"),
        ("a.jpg", lambda: b"", "not a picture"),
        ("a.jpg", lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture"),
        ("../../etc/passwd", lambda: b"root", "^passwd cannot"),
        ("a.jpg", lambda: bytes(exploring.UPLOAD_BYTES + 1), "8.0 MB: upload at most 8 MB"),
    ],
)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_what_cannot_be_used_is_refused_and_leaves_nothing(tmp_path, name, content, says):
    with pytest.raises(ValueError, match=says) as told:
        exploring.save_upload(name, content(), tmp_path)
    assert "\n" not in str(told.value) and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", exploring.FORMATS)
def test_pictures_of_all_named_formats_are_taken(tmp_path, kind):
    path = exploring.save_upload(
        f"x/bird.{kind}", encoded(Image.new("RGB", (30, 20), "red"), kind), tmp_path
    )
    assert path.parent == tmp_path and Image.open(path).size == (30, 20)


# ---- finding


def test_embeddings_are_found_by_cosine_without_the_query_itself(runs, gallery):
    finder = exploring.open_finder(runs["vapnet"], gallery, "cpu")
    for query in (0, 5):
        found = finder.find(finder.rows[query], 6, query)
        naive = sorted(
            (
                (float(finder.rows[query] @ row), -place)
                for place, row in enumerate(finder.rows)
                if place != query
            ),
            reverse=True,
        )[:6]
        assert [-place for _, place in naive] == found.positions
        assert found.scores == pytest.approx([score for score, _ in naive], abs=1e-5)
    assert len(finder.find(finder.rows[0], 10**6, 0).positions) == len(gallery) - 1
    assert len(finder.find(finder.rows[0], 10**6).positions) == len(gallery)


def test_codes_are_found_by_the_bits_that_differ_ties_in_one_random_order(runs, gallery):
    finder = exploring.open_finder(runs["fcaenet-8"], gallery, "cpu")
    finder.rows = torch.where(
        torch.randn(len(gallery), 8, generator=torch.Generator().manual_seed(1)) > 0, 1.0, -1.0
    )
    found = finder.find(finder.rows[3], len(gallery), 3)
    naive = [int((finder.rows[3] != finder.rows[place]).sum()) for place in found.positions]
    assert found.scores == naive == sorted(naive) and sorted(found.positions) == [
        p for p in range(len(gallery)) if p != 3
    ]
    assert found == finder.find(finder.rows[3], len(gallery), 3)
    finder.rows = torch.ones(len(gallery), 8)
    tied = finder.find(finder.rows[3], len(gallery), 3).positions
    assert sorted(tied) == [p for p in range(len(gallery)) if p != 3] and tied != sorted(tied)


def test_pan_finds_by_its_similarity(runs, gallery):
    finder = exploring.open_finder(runs["pan"], gallery, "cpu")
    found = finder.find(finder.describe(2), 5, 2)
    with torch.no_grad():
        naive = {}
        for place in range(len(gallery)):
            concepts, relevance = finder.model.concepts(finder.rows[2], finder.rows[place])
            naive[place] = float((concepts * relevance).sum())
    naive.pop(2)
    assert found.positions == sorted(naive, key=naive.get, reverse=True)[:5]
    assert found.scores == pytest.approx([naive[place] for place in found.positions], abs=1e-5)


def test_stages_are_a_shortlist_by_codes_then_cosine_then_concepts(runs, gallery):
    codes, ranking, pan = (
        exploring.open_finder(runs[name], gallery, "cpu") for name in ("fcaenet-8", "vapnet", "pan")
    )
    staged = exploring.in_stages(codes, ranking, pan, 2, k=3, shortlist=7)
    listed = codes.find(codes.rows[2], 7, 2).positions
    cosine = {
        place: float(
            ranking.rows[2]
            @ ranking.rows[place]
            / ranking.rows[2].norm()
            / ranking.rows[place].norm()
        )
        for place in listed
    }
    assert (
        staged.found.positions == sorted(listed, key=lambda place: -cosine[place])[:3]
        and 2 not in listed
    )
    assert staged.found.scores == pytest.approx(sorted(cosine.values(), reverse=True)[:3], abs=1e-5)
    for place, concepts in zip(staged.found.positions, staged.concepts):
        scores, relevance = pan.model.concepts(pan.rows[2], pan.rows[place])
        naive = sorted(zip((scores * relevance).tolist(), pan.model.names), reverse=True)[:3]
        assert [value for _, value in concepts] == pytest.approx(
            [value for value, _ in naive], abs=1e-6
        )
        assert {name for name, _ in concepts} <= set(pan.model.names)
    assert len(staged.stages) == 3 and all(seconds > 0 for _, seconds in staged.stages)
    without = exploring.in_stages(codes, ranking, None, 2, k=3, shortlist=7)
    assert without.found == staged.found and without.concepts == [] and len(without.stages) == 2


def test_the_frozen_network_is_the_one_before_training(runs, gallery):
    finder = exploring.open_frozen(runs["vapnet"], gallery, "cpu")
    p = runs["vapnet"].result["parameters"]
    torch.manual_seed(p["seed"])
    fresh = exploring.create_backbone(p["backbone"], p["weights"], p["size"]).eval()
    with torch.no_grad():
        expected = fresh(exploring.views_of(finder, 4)).mean((2, 3))[0]
    torch.testing.assert_close(
        finder.rows[4], expected / expected.norm(), atol=3e-3, rtol=0
    )  # rows are computed in bf16


@pytest.mark.parametrize("name", ["vapnet", "fcaenet-8", "pan"])
def test_a_file_is_described_as_the_same_picture_in_the_gallery(runs, gallery, name):
    finder = exploring.open_finder(runs[name], gallery, "cpu")
    torch.testing.assert_close(finder.describe(gallery.paths[6]), finder.rows[6], atol=1e-4, rtol=0)


# ---- why


@pytest.mark.parametrize("name", ["vapnet", "fcaenet-8"])
def test_maps_of_a_pair_trade_places_with_the_pair(runs, gallery, name):
    finder = exploring.open_finder(runs[name], gallery, "cpu")
    one, other = exploring.why_alike(finder, 0, 9), exploring.why_alike(finder, 9, 0)
    assert one.maps.shape == (2, 48, 48) and 0 <= one.maps.min() and one.maps.max() <= 1
    torch.testing.assert_close(one.maps, other.maps.flip(0), atol=1e-4, rtol=0)
    torch.testing.assert_close(one.pictures[0], other.pictures[1])


def test_erasing_takes_away_what_the_mask_of_algorithm_1_says(runs, gallery):
    erasing = exploring.Erasing(exploring.open_finder(runs["fcaenet-8"], gallery, "cpu"), 1)
    picture, share = erasing.erased(7, 5)
    naive = np.ones((48, 48), bool)
    order = sorted(
        range(48 * 48), key=lambda place: (-float(erasing.heat[0].flatten()[place]), place)
    )
    for place in order[:7]:
        y, x = divmod(place, 48)
        naive[y : y + 5, x : x + 5] = False
    assert share == pytest.approx(1 - naive.mean())
    mean = torch.tensor(erasing.backbone.mean)
    torch.testing.assert_close(
        picture[~torch.from_numpy(naive)], mean.expand((~naive).sum(), 3), atol=1e-5, rtol=0
    )
    torch.testing.assert_close(
        picture[torch.from_numpy(naive)],
        erasing.picture[torch.from_numpy(naive)],
        atol=1e-5,
        rtol=0,
    )


def test_views_are_cells_of_the_chosen_grids(runs, gallery):
    finder = exploring.open_finder(runs["vapnet"], gallery, "cpu")
    drawn = exploring.draw_views(finder, 0, (2, 4), 8, seed=1)
    assert set(drawn.grids) == {2, 4} and len(drawn.views) == 8
    for box, n, view in zip(drawn.boxes.tolist(), drawn.grids, drawn.views):
        side = 48 // n
        assert box[2] - box[0] == box[3] - box[1] == side and box[0] % side == box[1] % side == 0
        inside = drawn.whole[box[1] : box[3], box[0] : box[2]]
        assert view.shape == (48, 48, 3) and abs(float(view.mean() - inside.mean())) < 0.03
    assert torch.equal(drawn.boxes, exploring.draw_views(finder, 0, (2, 4), 8, seed=1).boxes)
    with pytest.raises(ValueError, match="no grid is chosen"):
        exploring.draw_views(finder, 0, (), 8, seed=1)


# ---- panels


@pytest.fixture(scope="module")
def explorer(folder):
    return Explorer(folder, device="cpu")


def said(place):
    return re.sub("<[^>]+>", "", place.value).strip()


def test_panels_follow_the_query(explorer):
    explorer.ask(3)
    before = [row.items for row in explorer._row_box.children]
    explorer._choice.chosen = 6
    assert (
        explorer.query == int(explorer._order[6])
        and [row.items for row in explorer._row_box.children] != before
    )
    for row in explorer._row_box.children:
        assert len(row.items) == 10 and {item["mark"] for item in row.items} <= {"right", "wrong"}
    (vapnet, positions), row = explorer._shown[0], explorer._rows[0]
    for item, position in zip(row.items, positions):
        same = explorer.gallery.labels[position] == explorer.gallery.labels[explorer.query]
        assert (item["mark"] == "right") == bool(same)
    scores, found = nearest(vapnet.rows[explorer.query][None], vapnet.rows, 11)
    assert positions == [place for place in found[0].tolist() if place != explorer.query]
    explorer._k.value = 4
    assert all(len(row.items) == 4 for row in explorer._row_box.children)
    explorer._k.value = 10


def test_the_code_length_chooses_among_runs(explorer):
    for bits in (8, 12):
        explorer._bits.value = bits
        assert [row.label for row in explorer._row_box.children if "fcaenet" in row.label] == [
            f"fcaenet, {bits} bits"
        ]
    explorer._bits.value = 0
    assert sum("fcaenet" in row.label for row in explorer._row_box.children) == 2


def test_every_kind_of_result_can_be_explained(explorer):
    for number, (finder, _) in enumerate(explorer._shown):
        explorer._rows[number].chosen = 1
        words = explorer._why.value
        assert words.count("<img") == (1 if finder.name.startswith("pan") else 4) and (
            "bits differ" in words
        ) == ("bits" in finder.name)
        assert [row.chosen for row in explorer._row_box.children].count(-1) == len(
            explorer._shown
        ) - 1


def test_a_search_in_stages_needs_codes_and_embeddings(explorer):
    explorer.ask(3)
    explorer.search_in_stages()
    assert len(explorer._staged.items) == 10 and said(explorer._stage_words).count(" ms") == 3
    opened, explorer.finders = (
        explorer.finders,
        [finder for finder in explorer.finders if "fcaenet" not in finder.name],
    )
    explorer.search_in_stages()
    explorer.finders = opened
    assert "open a hashing run and one of VAPNet" in said(explorer._stage_words)


def test_an_upload_becomes_the_query_and_a_bad_one_changes_nothing(explorer):
    explorer._received("notes.jpg", b"nothing to see")
    before = explorer.query
    assert "notes.jpg cannot be used: not a picture" in said(
        explorer._query_message
    ) and isinstance(before, int)
    explorer._received("mine.png", encoded(Image.new("RGB", (60, 50), "green"), "PNG"))
    assert said(explorer._query_message) == "Searching with mine.png."
    assert all(
        item["mark"] == "neutral" for row in explorer._row_box.children for item in row.items
    )
    assert "baseline" in explorer._row_box.children[-1].label


def test_mixed_runs_leave_what_was_open_as_it_is(explorer):
    before = explorer.gallery
    explorer._picker.value = tuple(range(5))
    explorer._reopen()
    assert (
        "these runs are of different data" in said(explorer._runs_message)
        and explorer.gallery is before
    )


def test_without_runs_the_panels_say_so_and_offer_nothing(tmp_path):
    explorer = Explorer(tmp_path)
    assert "make some with make demo" in said(explorer._runs_message)
    explorer._reopen()
    assert "make some with make demo" in said(explorer._runs_message)
    assert explorer.runs.layout.display is None and explorer._runs_message.layout.display is None
    assert all(
        control.layout.display == "none"
        for panel in (explorer.choice, explorer.results, explorer.map)
        for control in panel.children
        if not isinstance(control, type(explorer._why))
    )


def test_own_pictures_have_neutral_frames_and_the_baseline(folder, tmp_path):
    for number in range(5):
        Image.new("RGB", (80, 60), (50 * number, 90, 20)).save(tmp_path / f"{number}.png")
    explorer = Explorer(folder, str(tmp_path), "cpu")
    assert "5 pictures of" in said(explorer._runs_message)
    rows = explorer._row_box.children
    assert "baseline" in rows[-1].label and all(
        len(row.items) == 4 and {item["mark"] for item in row.items} == {"neutral"} for row in rows
    )
    (tmp_path / "empty").mkdir()
    assert "holds no picture" in said(
        Explorer(folder, str(tmp_path / "empty"), "cpu")._runs_message
    )
