"""What can be explored, on which pictures, what is found there and why; the panels, clicked without
a browser."""

import io
import json
import re
import shutil
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from fieldlab.cascade import in_stages
from fieldlab.explorer import exploring, gallery
from fieldlab.explorer.panels import Explorer
from fieldlab.explorer.places import Places
from fieldlab.explorer.widgets import PlaceMaps
from fieldmarks.backbones import create_backbone
from fieldmarks.evaluation.recall import nearest
from fieldmarks.experiments.fewshot import FewShot, few_shot_split
from fieldmarks.experiments.hashing import Hashing
from fieldmarks.experiments.open_set import OpenSet
from fieldmarks.show import maps
from helpers.experiments import arguments

BIRDS = {"classes": 12, "images": 8, "size": 64}
SMALL = {
    "resize": 64,
    "size": 48,
    "backbone": "resnet10t",
    "weights": "none",
    "device": "cpu",
    "progress": "none",
}
HASHED = {
    "epochs": 1,
    "passes": 1,
    "max_classes": 4,
    "batch_size": 4,
    "regions": 9,
    "region_size": 8,
}
FEW = {
    "hidden": [16],
    "free": 5,
    "epochs": 4,
    "ways": 3,
    "shots": 2,
    "queries": 6,
    "episodes": 20,
    "validation_episodes": 10,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Runs of VAPNet, FCAENet of two lengths, ITQ and PAN on birds; of SCDA on other birds."""
    home = tmp_path_factory.mktemp("exploring")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FIELDMARKS_CACHE", str(home / "cache"))
        others = {"generated": {"classes": 6, "images": 4, "size": 64}}
        for name, kind, values in (
            ("other", OpenSet, {**others, "method": "scda"}),
            ("vapnet", OpenSet, {"epochs": 1, "batch_size": 8}),
            ("itq", Hashing, {"method": "itq", "bits": 8, "max_classes": 4}),
            ("fcaenet-8", Hashing, {**HASHED, "bits": 8}),
            ("fcaenet-12", Hashing, {**HASHED, "bits": 12}),
            ("pan", FewShot, FEW),
        ):
            out = {"out": str(home / "runs" / name)}
            assert kind.main(arguments({**SMALL, "generated": BIRDS, **values, **out})) == 0
        yield home / "runs"


@pytest.fixture(scope="module")
def runs(folder):
    found = {run.folder.name: run for run in gallery.explorable(folder)[0]}
    assert set(found) == {"pan", "fcaenet-12", "fcaenet-8", "vapnet", "other"}
    return found


@pytest.fixture(scope="module")
def pictures(runs):
    return gallery.common_gallery([runs["vapnet"], runs["fcaenet-8"], runs["pan"]])


# ---- runs and pictures


def test_runs_without_a_network_are_told_apart(folder):
    good, others = gallery.explorable(folder)
    assert [run.folder.name for run in others] == ["itq"] and len(good) == 5
    ended = [run.result["finished"] for run in good]
    assert ended == sorted(ended, reverse=True)


def test_the_first_choice_has_every_experiment_and_code_length_of_the_latest_data(runs):
    latest_first = sorted(runs.values(), key=lambda run: run.folder.name == "other")
    names = [run.folder.name for run in gallery.first_choice(latest_first)]
    assert (
        names[0] == "vapnet"
        and sorted(names[1:3]) == ["fcaenet-12", "fcaenet-8"]
        and names[3:] == ["pan"]
    )


def opened(kind, run, tmp_path):
    """The experiment of a run, anew."""
    values = {**run.result["parameters"], "out": str(tmp_path / run.folder.name)}
    return kind(kind.Parameters(**{n: as_tuple(value) for n, value in values.items()}))


def as_tuple(value):
    return tuple(value) if isinstance(value, list) else value


def test_the_gallery_holds_what_no_run_has_learned_from(runs, pictures, tmp_path):
    train = opened(OpenSet, runs["vapnet"], tmp_path).train_set
    database = opened(Hashing, runs["fcaenet-8"], tmp_path).database_set
    images = opened(FewShot, runs["pan"], tmp_path).load_images()
    parts = few_shot_split(images)
    learned = {*train.paths, *database.paths, *parts["base"].paths, *parts["validation"].paths}
    assert pictures.paths == [path for path in images.paths if path not in learned]
    assert 2 <= len(pictures) < len(images)
    for position in range(len(pictures)):
        row = images.paths.index(pictures.paths[position])
        assert pictures.class_of(position) == images.class_names[int(images.labels[row])]
        seen = {train.class_names[c] for c in train.labels}
        is_new = pictures.class_of(position) not in seen
        assert pictures.is_new_to(runs["vapnet"].folder, position) == is_new


def test_pictures_of_classes_that_were_learned_are_not_new(runs):
    pictures = gallery.common_gallery([runs["fcaenet-8"]])
    news = [
        pictures.is_new_to(runs["fcaenet-8"].folder, position) for position in range(len(pictures))
    ]
    assert set(news) == {True, False}
    assert len({pictures.class_of(position) for position, new in enumerate(news) if not new}) == 4


def test_runs_of_different_data_are_one_clear_line(runs):
    with pytest.raises(
        ValueError,
        match=r"^these runs are of different data, pick runs of one data set: vapnet .* is of "
        r"fieldguide \(classes 12, .*; scda is of",
    ) as raised:
        gallery.common_gallery([runs["vapnet"], runs["other"]])
    assert "\n" not in str(raised.value)
    with pytest.raises(ValueError, match="no run is picked"):
        gallery.common_gallery([])


def test_pictures_that_have_changed_or_moved_are_noticed(runs, tmp_path):
    source = next(path for path in gallery.common_gallery([runs["vapnet"]]).paths).parents[2]
    moved = shutil.copytree(source, tmp_path / "birds")
    run = runs["vapnet"]._replace(result=json.loads(json.dumps(runs["vapnet"].result)))
    run.result["parameters"]["root"] = str(moved)
    assert len(gallery.common_gallery([run])) == 48
    next((moved / "images").rglob("*.jpg")).rename(tmp_path / "gone.jpg")
    with pytest.raises(FileNotFoundError, match="birds"):
        gallery.common_gallery([run])
    run.result["data_fingerprint"] = "0 1"
    run.result["parameters"]["root"] = str(source)
    with pytest.raises(ValueError, match="have changed since"):
        gallery.common_gallery([run])


def test_no_runs_say_what_makes_some(tmp_path):
    with pytest.raises(
        FileNotFoundError, match="no finished run below .*: make some with make demo"
    ):
        gallery.explorable(tmp_path)


def test_a_folder_of_ones_own_has_no_labels_and_leaves_out_what_cannot_be_read(tmp_path):
    for number in range(3):
        Image.new("RGB", (50, 40), (80 * number, 0, 0)).save(tmp_path / f"{number}.png")
    (tmp_path / "broken.jpg").write_bytes(b"no")
    pictures = gallery.own_gallery(tmp_path)
    assert [path.name for path in pictures.paths] == ["0.png", "1.png", "2.png"]
    assert pictures.labels is None and {path.name for path in pictures.left_out} == {"broken.jpg"}
    assert pictures.title(1) == "1.png" and pictures.is_right(0, 1) is None
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no picture"):
        gallery.own_gallery(tmp_path / "empty")
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        gallery.own_gallery(tmp_path / "nothing")


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
        ("a.jpg", lambda: bytes(gallery.UPLOAD_BYTES + 1), "8.0 MB: upload at most 8 MB"),
    ],
)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_what_cannot_be_used_is_refused_and_leaves_nothing(tmp_path, name, content, says):
    with pytest.raises(ValueError, match=says) as raised:
        gallery.save_upload(name, content(), tmp_path)
    assert "\n" not in str(raised.value) and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "HEIF", "AVIF", "MPO", "JPEG2000"]
)
def test_pictures_of_all_kinds_are_taken(tmp_path, kind):
    path = gallery.save_upload(
        f"x/bird.{kind}", encoded(Image.new("RGB", (30, 20), "red"), kind), tmp_path
    )
    assert path.parent == tmp_path and Image.open(path).size == (30, 20)


# ---- finding


def neighbours(results):
    return results.index[0].tolist(), results.scores[0].tolist()


def test_embeddings_are_found_by_cosine_without_the_query_itself(runs, pictures):
    finder = exploring.open_finder(runs["vapnet"], pictures, "cpu")
    for query in (0, 5):
        results = finder.find(query, 6)
        positions, scores = neighbours(results)
        cosines = [(float(finder.rows[query] @ row), -n) for n, row in enumerate(finder.rows)]
        naive = sorted((pair for pair in cosines if pair[1] != -query), reverse=True)[:6]
        assert [-place for _, place in naive] == positions
        assert scores == pytest.approx([score for score, _ in naive], abs=1e-5)
        right = [pictures.is_right(position, query) for position in positions]
        assert results.correct[0].tolist() == right
    assert len(neighbours(finder.find(0, 10**6))[0]) == len(pictures) - 1
    other = finder.find(pictures.paths[0], 10**6)
    assert len(neighbours(other)[0]) == len(pictures) and other.correct is None


def test_codes_are_found_by_the_bits_that_differ_ties_in_one_random_order(runs, pictures):
    finder = exploring.open_finder(runs["fcaenet-8"], pictures, "cpu")
    generator = torch.Generator().manual_seed(1)
    finder.rows = torch.where(torch.randn(len(pictures), 8, generator=generator) > 0, 1.0, -1.0)
    positions, scores = neighbours(finder.find(3, len(pictures)))
    others = [place for place in range(len(pictures)) if place != 3]
    naive = [int((finder.rows[3] != finder.rows[place]).sum()) for place in positions]
    assert scores == naive == sorted(naive) and sorted(positions) == others
    assert (positions, scores) == neighbours(finder.find(3, len(pictures)))
    finder.rows = torch.ones(len(pictures), 8)
    tied, _ = neighbours(finder.find(3, len(pictures)))
    assert sorted(tied) == others and tied != sorted(tied)


def test_pan_finds_by_its_similarity(runs, pictures):
    finder = exploring.open_finder(runs["pan"], pictures, "cpu")
    positions, scores = neighbours(finder.find(2, 5))
    naive = {}
    for place in range(len(pictures)):
        concepts, relevance = finder.model.concepts(finder.rows[2], finder.rows[place])
        naive[place] = float((concepts * relevance).sum())
    naive.pop(2)
    assert positions == sorted(naive, key=naive.get, reverse=True)[:5]
    assert scores == pytest.approx([naive[place] for place in positions], abs=1e-5)


def test_stages_are_a_shortlist_by_codes_then_cosine_then_concepts(runs, pictures):
    codes, ranking, pan = (
        exploring.open_finder(runs[name], pictures, "cpu")
        for name in ("fcaenet-8", "vapnet", "pan")
    )
    answer = in_stages(2, codes, ranking, pan, k=3, shortlist=7)
    listed, _ = neighbours(codes.find(2, 7))
    unit = ranking.rows / ranking.rows.norm(dim=1, keepdim=True)
    cosine = {place: float(unit[2] @ unit[place]) for place in listed}
    positions, scores = zip(*answer.hits, strict=True)
    assert list(positions) == sorted(listed, key=lambda place: -cosine[place])[:3]
    assert 2 not in listed
    assert scores == pytest.approx(sorted(cosine.values(), reverse=True)[:3], abs=1e-5)
    for place, reason in zip(positions, answer.reasons, strict=True):
        concepts, relevance = pan.model.concepts(pan.rows[2], pan.rows[place])
        naive = sorted((concepts * relevance).tolist(), reverse=True)
        assert [value for _, value in reason.concepts] == pytest.approx(naive[:3], abs=1e-6)
        assert reason.similarity == pytest.approx(sum(naive), abs=1e-5)
        assert {name for name, _ in reason.concepts} <= set(pan.model.names)
    assert len(answer.stages) == 3 and all(stage.seconds > 0 for stage in answer.stages)
    without = in_stages(2, codes, ranking, k=3, shortlist=7)
    assert without.hits == answer.hits and without.reasons == [] and len(without.stages) == 2


def test_the_frozen_network_is_the_one_before_training(runs, pictures):
    finder = exploring.open_frozen(runs["vapnet"], pictures, "cpu")
    p = runs["vapnet"].result["parameters"]
    torch.manual_seed(p["seed"])
    fresh = create_backbone(p["backbone"], p["weights"], p["size"]).eval()
    with torch.no_grad():
        expected = fresh(exploring.views_of(finder, 4)).mean((2, 3))[0]
    torch.testing.assert_close(
        finder.rows[4], expected / expected.norm(), atol=3e-3, rtol=0
    )  # rows are computed in bf16


@pytest.mark.parametrize("name", ["vapnet", "fcaenet-8", "pan"])
def test_a_file_gets_the_row_of_the_same_picture_in_the_gallery(runs, pictures, name):
    finder = exploring.open_finder(runs[name], pictures, "cpu")
    torch.testing.assert_close(finder.row(pictures.paths[6]), finder.rows[6], atol=1e-4, rtol=0)


# ---- why


@pytest.mark.parametrize("name", ["vapnet", "fcaenet-8"])
def test_maps_of_a_pair_trade_places_with_the_pair(runs, pictures, name):
    finder = exploring.open_finder(runs[name], pictures, "cpu")
    (images, one), (flipped, other) = (
        exploring.why_alike(finder, *pair) for pair in ((0, 9), (9, 0))
    )
    assert one.shape == (2, 48, 48) and 0 <= one.min() and one.max() <= 1
    torch.testing.assert_close(one, other.flip(0), atol=1e-4, rtol=0)
    torch.testing.assert_close(images[0], flipped[1])


def test_places_add_up_to_the_cosine_from_one_pass(runs, pictures, monkeypatch):
    finder = exploring.open_finder(runs["vapnet"], pictures, "cpu")
    positions, scores = neighbours(finder.find(4, 5))
    backbone, passes = finder.model.backbone, []
    forward = type(backbone).forward
    monkeypatch.setattr(
        type(backbone), "forward", lambda self, x: passes.append(len(x)) or forward(self, x)
    )
    places = Places(finder, 4, positions)
    assert passes == [6] and 4 not in positions
    assert places.cosines.tolist() == pytest.approx(scores, abs=3e-3)  # rows are in bf16
    with torch.no_grad():
        one, *others = backbone(exploring.views_of(finder, 4, *positions))
    n, _, y, x = len(others), *one.shape
    scale = one.mean((1, 2)).norm() * torch.stack(others).mean((2, 3)).norm(dim=1) * (y * x) ** 2
    naive = torch.zeros(n, y, x, y, x)
    for place in np.ndindex(n, y, x, y, x):
        i, a, b, c, d = place
        naive[place] = one[:, a, b] @ others[i][:, c, d] / scale[i]
    torch.testing.assert_close(places.pairs, naive, atol=1e-6, rtol=1e-4)
    heat, carried = places.at(1, 0)
    torch.testing.assert_close(carried, naive[:, 1, 0].sum((1, 2)), atol=1e-5, rtol=1e-4)
    wanted = naive[:, 1, 0].clamp(min=0) / naive.max()
    torch.testing.assert_close(heat, wanted, atol=1e-5, rtol=1e-4)
    assert [picture.shape for picture in places.pictures] == [(48, 48, 3)] * (n + 1)


def test_maps_of_places_go_to_the_browser_in_order_whatever_their_sizes():
    places = Places.__new__(Places)
    places.pairs = torch.randn(3, 2, 5, 4, 1)
    places.carried = places.pairs.sum((3, 4))
    places.cosines = places.carried.sum((1, 2))
    widget = PlaceMaps()
    widget.show(places, {}, [], "")
    levels = np.frombuffer(widget.levels, np.uint8).reshape(11, 3, 4, 1)
    for row, column in np.ndindex(2, 5):
        heat, carried = places.at(row, column)
        assert abs(levels[1 + 5 * row + column] - 255 * heat.numpy()).max() <= 0.5
        assert widget.carried[1 + 5 * row + column] == carried.tolist()
    assert levels[0].max() == levels[1:].max() == 255 and widget.shape == [2, 5, 4, 1]
    assert widget.carried[0] == pytest.approx(np.sum(widget.carried[1:], axis=0), abs=1e-4)
    assert len(widget.own) == 10 and len(widget.colours) == 1024
    assert widget.brightest[1] == places.pairs.max().item()


@pytest.mark.parametrize(
    "name, says",
    [
        ("fcaenet-8", "fcaenet, 8 bits ranks by no cosine"),
        ("pan", "pan_supervised ranks by no cosine"),
        ("other", "not its averaged features"),
    ],
)
def test_scores_that_are_no_sum_over_places_are_said_to_be_none(runs, name, says):
    finder = exploring.open_finder(runs[name], gallery.common_gallery([runs[name]]), "cpu")
    with pytest.raises(ValueError, match=says) as raised:
        Places(finder, 0, [1, 2])
    assert "\n" not in str(raised.value)


def test_erasing_takes_away_what_the_mask_of_algorithm_1_says(runs, pictures):
    erasing = exploring.Erasing(exploring.open_finder(runs["fcaenet-8"], pictures, "cpu"), 1)
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


def test_views_are_cells_of_the_chosen_grids(runs, pictures):
    finder = exploring.open_finder(runs["vapnet"], pictures, "cpu")
    drawn = exploring.draw_views(finder, 0, (2, 4), 8, seed=1)
    assert set(drawn.grids) == {2, 4} and len(drawn.views) == 8
    for box, n, view in zip(drawn.boxes.tolist(), drawn.grids, drawn.views, strict=True):
        side = 48 // n
        assert box[2] - box[0] == box[3] - box[1] == side and box[0] % side == box[1] % side == 0
        inside = drawn.picture[box[1] : box[3], box[0] : box[2]]
        assert view.shape == (48, 48, 3) and abs(float(view.mean() - inside.mean())) < 0.03
    assert torch.equal(drawn.boxes, exploring.draw_views(finder, 0, (2, 4), 8, seed=1).boxes)
    with pytest.raises(ValueError, match="no grid is chosen"):
        exploring.draw_views(finder, 0, (), 8, seed=1)


def test_runs_that_are_kept_are_there_at_once(folder, monkeypatch):
    monkeypatch.setattr(exploring, "_kept", {})
    chosen = gallery.first_choice(gallery.explorable(folder)[0])
    opened = exploring.open_runs(chosen, "", "cpu")
    assert exploring.open_runs(chosen, "", "cpu") is not opened  # nobody has asked to keep it
    exploring.keep(opened, chosen, "", "cpu")
    assert exploring.open_runs(chosen, "", "cpu") is opened
    assert exploring.open_runs(chosen[:1], "", "cpu") is not opened
    anew = [run._replace(result={**run.result, "finished": "later"}) for run in chosen]
    assert exploring.open_runs(anew, "", "cpu") is not opened
    shown = Explorer(folder, device="cpu")
    assert shown.gallery is opened.gallery and shown.baseline is opened.baseline
    first = opened.finders[0]
    plane = maps.project(first.rows[exploring.on_the_map(opened.gallery)])
    assert np.array_equal(first.plane, plane)


def test_pictures_that_are_not_laid_out_lie_among_those_most_like_them(folder, monkeypatch):
    chosen = gallery.first_choice(gallery.explorable(folder)[0])
    finder = exploring.open_runs(chosen, "", "cpu").finders[0]
    monkeypatch.setattr(exploring, "LAID_OUT", len(finder) - 3)
    plane = finder.plane
    assert plane.shape == (len(finder), 2) and np.isfinite(plane).all()
    units = np.eye(4)[:3]
    corners = torch.tensor([[0.0, 0], [9, 0], [0, 9]])
    between = torch.tensor([[1.0, 1, 0, 0], [1, 0, 0, 0], [2, 1, 0, 0]])
    between = torch.nn.functional.normalize(between, dim=1)
    found = exploring.among(between, torch.tensor(units).float(), corners).numpy()
    np.testing.assert_allclose(found, [[4.5, 0], [0, 0], [0, 0]], atol=1e-3)


# ---- panels


@pytest.fixture(scope="module")
def explorer(folder):
    return Explorer(folder, device="cpu")


def said(place):
    return re.sub("<[^>]+>", "", place.value).strip()


def test_panels_follow_the_query(explorer):
    explorer.search_with(3)
    before = [row.items for row in explorer._row_box.children]
    explorer._choice.chosen = 6
    assert (
        explorer.query == int(explorer._order[6])
        and [row.items for row in explorer._row_box.children] != before
    )
    for row in explorer._row_box.children:
        assert len(row.items) == 10 and {item["mark"] for item in row.items} <= {"right", "wrong"}
    (vapnet, positions), row = explorer._shown[0], explorer._rows[0]
    for item, position in zip(row.items, positions, strict=True):
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
        words = explorer.why.value
        assert words.count("<img") == (1 if finder.name.startswith("pan") else 4) and (
            "bits differ" in words
        ) == ("bits" in finder.name)
        believed = [words.count(each) for each in ("22% of pictures", "10% of pictures")]
        assert believed == {"pan": [0, 0], "fca": [0, 1]}.get(finder.name[:3], [1, 0])
        assert [row.chosen for row in explorer._row_box.children].count(-1) == len(
            explorer._shown
        ) - 1


def test_places_are_shown_of_the_query_until_there_is_another(explorer):
    explorer.search_with(3)
    names = [name.split(",")[0] for name, _ in explorer._pointed.options]
    assert names[explorer._pointed.value].startswith("vapnet")
    explorer.show_places()
    (shown,) = explorer._places_box.children
    found = explorer.finders[explorer._pointed.value].find(3, 10).index[0].tolist()
    assert [item["name"] for item in shown.items] == [explorer.gallery.title(i) for i in found]
    assert "22%" in said(explorer._places_text) and "⚠" not in said(explorer._places_text)
    explorer._pointed.value = names.index("fcaenet")
    explorer.show_places()
    assert "⚠ fcaenet" in said(explorer._places_text) and explorer._places_box.children == ()
    explorer._pointed.value = 0
    explorer.show_places()
    assert explorer._places_box.children == (shown,)
    explorer.search_with(4)
    assert explorer._places_box.children == () and said(explorer._places_text) == ""


def test_the_map_marks_what_is_found_and_a_lasso_lists_pictures(explorer):
    explorer.search_with(3)
    explorer.draw_map()
    assert explorer._map_box.children == (explorer._map,)
    finder, found = explorer._shown[0]
    marks = explorer._map.scatter.widget.selection.tolist()
    assert sorted(marks) == sorted([*found, 3]) and len(explorer._map.plane) == len(finder)
    canvas = explorer._map.scatter.widget
    canvas.selection = np.array([0, 1, 5], np.uint32)
    shown = explorer._map_box.children[1]
    assert "3 pictures in the lasso" in shown.label and len(shown.items) == 3
    assert {item["name"] for item in shown.items} == {explorer.gallery.title(i) for i in (0, 1, 5)}
    shown.chosen = 0
    assert explorer.query == explorer._in_lasso[0] in (0, 1, 5)
    canvas.selection = np.array([], np.uint32)
    assert explorer._map_box.children == (explorer._map,)
    canvas.selection = np.array([7], np.uint32)
    assert explorer.query == 7


def test_a_search_in_stages_needs_codes_and_embeddings(explorer):
    explorer.search_with(3)
    explorer.search_in_stages()
    assert len(explorer._staged.items) == 10 and said(explorer._stage_text).count(" ms") == 3
    opened, explorer.finders = (
        explorer.finders,
        [finder for finder in explorer.finders if "fcaenet" not in finder.name],
    )
    explorer.search_in_stages()
    explorer.finders = opened
    assert "open a hashing run and one of VAPNet" in said(explorer._stage_text)


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
    explorer.show_places()
    assert {item["mark"] for item in explorer._place_maps.items} == {"neutral"}
    explorer.query.unlink()
    explorer.show_places()
    assert "⚠" in said(explorer._places_text) and explorer._places_box.children == ()
    with pytest.raises(ValueError, match="no result to find"):
        Places(explorer.baseline, 0, [])


def test_mixed_runs_leave_what_was_open_as_it_is(explorer):
    before = explorer.gallery
    explorer._picker.value = [run for _, run in explorer._picker.options]
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
    explorer.show_places()
    assert "open some runs first" in said(explorer._places_text)
    assert explorer.runs.layout.display is None and explorer._runs_message.layout.display is None
    assert all(
        control.layout.display == "none"
        for panel in (explorer.choice, explorer.results, explorer.places, explorer.map)
        for control in panel.children
        if not isinstance(control, type(explorer.why))
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
