import dataclasses
import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from fieldguide.birds.guide import make_fieldguide
from fieldmarks import load_run
from fieldmarks.data import catalog
from fieldmarks.evaluation.recall import recall_at_k
from fieldmarks.experiments.experiment import Experiment
from fieldmarks.experiments.open_set import OpenSet, Parameters, hold_out_classes
from fieldmarks.experiments.parameters import parse
from fieldmarks.experiments.result import read_result
from fieldmarks.files import release
from fieldmarks.training import embed_all
from helpers.experiments import arguments, finish, interrupt, measured_again, run, start

SMALL = {
    "resize": 64,
    "size": 48,
    "backbone": "resnet10t",
    "weights": "none",
    "views": 2,
    "grids": (2, 4),
    "attributes": 8,
    "batch_size": 8,
    "epochs": 2,
    "lr": 0.02,
    "progress": "none",
    "device": "cpu",
    "precision": "fp32",
    "split": "open",
}


@pytest.fixture(scope="module")
def birds(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "birds"
    return make_fieldguide(folder, classes=6, images=6, size=64, seed=0)


def parameters(root, out, **changes):
    return Parameters(**{**SMALL, "root": str(root), "out": str(out), **changes})


def test_from_data_to_result(birds, tmp_path):
    p = parameters(birds, tmp_path / "run")
    experiment = OpenSet(p)
    for images in (experiment.train_set, experiment.test_set):
        assert len(images.labels.unique()) == 3
    before = experiment.evaluate()
    _, history, after = run(experiment)
    assert read_result(tmp_path / "run") is None
    path = experiment.finish(history, after, start=before, notebook="vapnet.ipynb")
    result = json.loads(path.read_text())
    keys = (
        "schema status notebook card method dataset parameters seed metrics counts curves figures "
        "timing environment"
    )
    for key in keys.split():
        assert key in result, key
    assert result["status"] == "complete" and result["method"] == "vapnet (L_a + mean L_c)"
    assert result["dataset"] == "fieldguide" and result["notebook"] == "vapnet.ipynb"
    assert result["counts"] == {
        "train": 18,
        "query": 18,
        "gallery": 18,
        "classes": 3,
        "train_classes": 3,
    }
    expected = recall_at_k(after.saved["embeddings"], after.saved["labels"], ks=(1,))
    assert result["metrics"]["recall@1"] == expected[1]
    for name, (low, high) in result["intervals"].items():
        assert low <= result["metrics"][name] <= high
    assert [row["epoch"] for row in result["curves"]["epochs"]] == [1, 2]
    evaluations = result["curves"]["evaluations"]
    assert result["metrics"]["recall@1"] == evaluations[-1]["recall@1"]
    assert result["best"]["recall@1"] == max(row["recall@1"] for row in evaluations)
    assert 0 < result["timing"]["ms_per_image"] < 60_000
    assert result["start"]["recall@1"] == before.metrics["recall@1"]
    assert parse(Parameters, result["parameters"]) == p


def test_attention_on_the_object_is_measured_on_the_networks_own_view(birds, tmp_path):
    """Against masks cut out by hand: of 64 px files the middle 48 of 64."""
    experiment = OpenSet(parameters(birds, tmp_path / "run", method="normsoftmax"))
    metrics, images = experiment.evaluate().metrics, experiment.test_set
    hits, centres, ratios = [], [], []
    for row, path in enumerate(images.masks):
        mask = np.asarray(Image.open(path).convert("L"))[8:56, 8:56] > 127
        with torch.no_grad():
            features = experiment.backbone(experiment.test_images([row]))[0].mean(0)
        heat = np.asarray(Image.fromarray(features.numpy()).resize((48, 48), Image.BILINEAR))
        hits.append(mask[heat >= heat.max() * (1 - 1e-6)].mean())  # a corner cell's is a plateau
        centres.append(mask[23:25, 23:25].mean())
        ratios.append(heat[mask].mean() / heat[~mask].mean())
    assert metrics["attention"] == pytest.approx(np.mean(hits), abs=0.02)
    assert metrics["attention_centre"] == pytest.approx(np.mean(centres))
    ratio = np.sort(ratios)[len(ratios) // 2 - 1]
    assert metrics["attention_share"] == pytest.approx(ratio / (1 + ratio), rel=0.05)


def test_what_attributes_tell_is_recorded_by_evaluation(birds, tmp_path):
    experiment, history, _ = run(OpenSet(parameters(birds, tmp_path / "run", teacher="centred")))
    for row in history.evaluations:
        assert 0 <= row["attributes: entropy"] <= math.log(8) + 1e-6
        assert 0 <= row["attributes: view"] <= math.log(8)
        assert row["attributes: class"] >= 0 and row["attributes: annotated by chance"] >= 0
    assert experiment.information() == {
        name: value
        for name, value in history.evaluations[-1].items()
        if name in experiment.information()
    }
    other = OpenSet(parameters(birds, tmp_path / "other", method="normsoftmax"))
    assert other.information() == {}


@pytest.fixture(scope="module")
def trained(birds, tmp_path_factory):
    """A run without result.json so far: (experiment, history, scores)."""
    return run(OpenSet(parameters(birds, tmp_path_factory.mktemp("trained"))))


def test_a_finished_run_comes_back_as_it_was_trained(trained):
    experiment, history, scores = trained
    with pytest.raises(ValueError, match="is not a finished run"):
        load_run(experiment.folder)
    experiment.finish(history, scores)
    method = load_run(experiment.folder, "cpu")
    assert not method.training and method.backbone.image_size == 48 and method.backbone.resize == 64
    with torch.no_grad():
        embeddings = method.embed(experiment.test_images(range(5)))
    torch.testing.assert_close(embeddings, scores.saved["embeddings"][:5], rtol=1e-4, atol=1e-5)


def test_a_finished_run_whose_weights_are_gone_or_damaged_is_no_untrained_network(birds, tmp_path):
    folder = finish(OpenSet(parameters(birds, tmp_path / "run", epochs=1, constraint="none")))
    last = folder / "last.pt"
    last.write_bytes(last.read_bytes()[:500])
    with pytest.raises(ValueError, match="is damaged .*: delete the run's folder and run it again"):
        load_run(folder, "cpu")
    last.unlink()
    with pytest.raises(ValueError, match="there is no '.*last.pt': delete the run's folder and"):
        load_run(folder, "cpu")


def test_with_the_best_epoch_restored_it_is_the_one_that_comes_back(birds, tmp_path):
    given = {"constraint": "none", "epochs": 4, "lr": 0.3, "restore_best": True}
    experiment, history, scores = run(OpenSet(parameters(birds, tmp_path / "run", **given)))
    experiment.finish(history, scores)
    best = history.best(experiment.monitor)
    assert best["epoch"] < 4 and best["recall@1"] == scores.metrics["recall@1"]
    with torch.no_grad():
        embeddings = load_run(experiment.folder, "cpu").embed(experiment.test_images(range(5)))
    torch.testing.assert_close(embeddings, scores.saved["embeddings"][:5], rtol=1e-4, atol=1e-5)


def test_what_is_saved_gives_the_metrics_again(trained):
    experiment, history, scores = trained
    experiment.finish(history, scores)
    scores = measured_again(OpenSet, experiment.folder)
    names = ["recall@1", "recall@2", "recall@4", "recall@8", "map@r"]
    looks = ["attention", "attention_centre", "attention_share"]
    assert list(scores.metrics) == names + looks and list(scores.intervals) == names


@pytest.mark.parametrize(
    "method", ["normsoftmax", "proxynca++", "proxyanchor", "multisimilarity", "scda"]
)
def test_every_baseline_goes_through_the_same_steps(birds, tmp_path, method):
    p = parameters(birds, tmp_path / "run", method=method, epochs=1, per_class=4)
    _, history, after = run(OpenSet(p))
    assert len(history.epochs) == (0 if method == "scda" else 1)
    assert 0 <= after.metrics["recall@1"] <= after.metrics["recall@8"] <= 1


def test_closed_split_shares_classes_and_open_split_does_not(birds, tmp_path):
    experiment = OpenSet(parameters(birds, tmp_path / "open"))
    train, test = (set(s.labels.tolist()) for s in (experiment.train_set, experiment.test_set))
    assert not train & test
    experiment = OpenSet(parameters(birds, tmp_path / "closed", split="closed"))
    train, test = (set(s.labels.tolist()) for s in (experiment.train_set, experiment.test_set))
    assert train == test == set(range(6))


def test_max_classes_keeps_the_first_on_each_side(birds, tmp_path):
    experiment = OpenSet(parameters(birds, tmp_path, max_classes=2))
    assert experiment.train_set.labels.unique().tolist() == [0, 1]
    assert experiment.test_set.labels.unique().tolist() == [3, 4]


def test_the_same_parameters_go_on_where_they_stopped_and_others_are_refused(birds, tmp_path):
    history = OpenSet(parameters(birds, tmp_path / "run")).train()
    again = OpenSet(parameters(birds, tmp_path / "run", progress="lines"))
    assert again.train().epochs == history.epochs
    other = OpenSet(parameters(birds, tmp_path / "run", views=3))
    message = "comes from other parameters: views was 2 there and is 3 now"
    with pytest.raises(ValueError, match=message):
        other.train()


def test_a_second_run_in_the_same_folder_is_refused(birds, tmp_path):
    program = (
        "import sys; from fieldmarks.files import lock; lock(sys.argv[1]); "
        "print('locked', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "run")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout.readline() == "locked\n"
        message = "another run is writing to .*run': wait for it, or give another output folder"
        with pytest.raises(RuntimeError, match=message):
            OpenSet(parameters(birds, tmp_path / "run"))
    finally:
        holder.kill()
        holder.wait()
    OpenSet(parameters(birds, tmp_path / "run"))  # whoever was killed has no lock any more
    release(tmp_path / "run")


def test_baseline_is_the_run_with_l_a_alone_beside_this_one(birds, tmp_path):
    name, _ = OpenSet(parameters(birds, tmp_path / "alone" / "run")).compare_with()
    assert name == "untrained"
    plain = OpenSet(parameters(birds, tmp_path / "runs" / "a", constraint="none"))
    _, history, after = run(plain)
    plain.finish(history, after)
    experiment = OpenSet(parameters(birds, tmp_path / "runs" / "b"))
    name, method = experiment.compare_with()
    assert name == "vapnet (L_a)" and not method.training
    assert [folder for folder, _ in experiment.siblings()] == [tmp_path / "runs" / "a"]
    experiment.method = method
    assert experiment.evaluate().metrics == after.metrics
    baseline = str(tmp_path / "runs" / "a")
    named = OpenSet(parameters(birds, tmp_path / "elsewhere", baseline=baseline))
    assert named.compare_with()[0] == "vapnet (L_a)"
    with pytest.raises(ValueError, match="was made on other data: give a run on the same images"):
        OpenSet(parameters(birds, tmp_path / "other", baseline=baseline, split="closed"))


def test_neighbours_never_hold_the_query_even_among_copies():
    random = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
    embeddings = torch.nn.functional.normalize(random, dim=1)
    embeddings[10:25] = embeddings[10]
    saved = {"embeddings": embeddings, "labels": torch.arange(30) % 3}
    results = OpenSet.measure(saved, {"ks": (1,)}).results
    rows = torch.arange(30)
    nearest, scores, correct = results.neighbours(rows, 5)
    assert not (nearest == rows[:, None]).any()
    for row in range(30):  # naive: best first, equal scores in order of position, oneself left out
        similarity = (embeddings @ embeddings[row]).tolist()
        others = [i for i in range(30) if i != row]
        order = sorted(others, key=lambda i: (-round(similarity[i], 5), i))[:5]
        expected = [round(similarity[i], 4) for i in order]
        assert [round(similarity[i], 4) for i in nearest[row]] == expected
        assert scores[row].tolist() == pytest.approx(expected, abs=1e-4)
        assert correct[row].tolist() == [i % 3 == row % 3 for i in nearest[row].tolist()]


def test_queries_search_the_gallery_where_the_split_names_them(birds, tmp_path, monkeypatch):
    load = catalog.load

    def as_inshop(*args, **options):
        images = load(*args, **options)
        roles = [
            "train" if label < 3 else "query" if i % 2 else "gallery"
            for i, label in enumerate(images.labels.tolist())
        ]
        return dataclasses.replace(images, split=roles)

    monkeypatch.setattr(catalog, "load", as_inshop)
    experiment = OpenSet(parameters(birds, tmp_path / "run"))
    scores = experiment.evaluate()
    query, gallery = experiment.test_set.query_gallery()
    embeddings, labels = scores.saved["embeddings"], scores.saved["labels"]
    expected = recall_at_k(embeddings[query], labels[query], embeddings[gallery], labels[gallery])
    assert {k: scores.metrics[f"recall@{k}"] for k in expected} == expected
    assert len(scores.values["recall@1"]) == scores.queries == len(query) == 9
    nearest, _, correct = scores.results.neighbours(torch.arange(9), 4)
    assert set(nearest.flatten().tolist()) <= set(range(len(gallery)))
    assert torch.equal(correct, labels[gallery[nearest]] == labels[query][:, None])
    assert experiment.counts()[1:3] == (9, 9)


def test_a_network_that_collapsed_is_named_as_such(birds, tmp_path):
    experiment = OpenSet(parameters(birds, tmp_path / "run"))
    for parameter in experiment.backbone.parameters():
        torch.nn.init.zeros_(parameter)
    with pytest.raises(RuntimeError, match="maps 18 of 18 images to zero: training has collapsed"):
        experiment.evaluate()


# Bad input: the message, and nothing left behind


def folder_of_classes(root, counts):
    for c, count in enumerate(counts):
        (root / f"class_{c}").mkdir(parents=True)
        for i in range(count):
            random = np.random.default_rng(c * 100 + i)
            pixels = random.integers(0, 255, (70, 80, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / f"class_{c}" / f"{i}.png")
    return root


@pytest.mark.parametrize(
    "counts, changes, message",
    [
        ((4, 4, 4, 1), {}, "1 test class has one image only, which has nothing to find .class_3."),
        ((4,), {}, "needs at least 2 classes"),
        (
            (3, 3, 3, 3),
            {"batch_size": 8},
            "6 training images do not fill a batch of 8: use a batch size of at most 6",
        ),
        (
            (9, 9, 9, 9),
            {"batch_size": 12, "per_class": 4},
            "needs 3 classes, there are 2: use a batch size of at most 8",
        ),
        ((9, 9, 9, 9), {"split": "closed"}, "no official split"),
        (
            (9, 9, 9, 9),
            {"size": 8, "resize": 8, "grids": (2, 16)},
            "8 x 8 px cannot be cut into 16 x 16",
        ),
        ((9, 9, 9, 9), {"backbone": "resnet1000"}, "unknown network 'resnet1000': did you mean"),
        ((9, 9, 9, 9), {"weights": "missing.pt"}, "no weights at 'missing.pt'"),
        ((9, 9, 9, 9), {"device": "cuda:77"}, "device 'cuda:77' is not available"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(tmp_path, counts, changes, message):
    root = folder_of_classes(tmp_path / "pictures", counts)
    with pytest.raises((ValueError, OSError), match=message) as caught:
        OpenSet(parameters(root, tmp_path / "run", dataset="folder", **changes))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"method": "vapnett"}, "method is 'vapnett'"),
        ({"size": 80}, "size must be at least 1 and at most resize"),
        ({"split": "half"}, "split is 'half': it must be one of open, closed"),
        ({"batch_size": 1}, "batch_size is 1"),
        ({"ks": ()}, r"ks is \[\]"),
        ({"crop_scale": (0.0, 1.0)}, "crop_scale"),
        ({"crop_ratio": (2.0, 1.0)}, r"crop_ratio is \[2.0, 1.0\]: give the smallest and"),
        ({"jitter": -5.0}, "jitter is -5.0: it lies between 0 and 1"),
        ({"max_classes": 1}, "max_classes is 1"),
        ({"optimizer": "sdg"}, "optimizer is 'sdg'"),
        ({"constraint": "men"}, "constraint is 'men'"),
        ({"dataset": "cub", "root": ""}, "root is empty: give the folder of cub"),
        ({"generated": {"clases": 4}}, "'clases': did you mean 'classes'"),
    ],
)
def test_impossible_parameters_are_refused_before_anything_is_loaded(changes, message):
    with pytest.raises(ValueError, match=message) as caught:
        Parameters(**{**SMALL, **changes})
    assert "\n" not in str(caught.value)


def test_an_unreadable_image_is_named_before_training_starts(tmp_path):
    root = folder_of_classes(tmp_path / "pictures", (5, 5, 5, 5))
    (root / "class_1" / "2.png").write_bytes(b"not an image")
    with pytest.raises(ValueError, match="1 of 10 images cannot be read.*class_1/2.png"):
        OpenSet(parameters(root, tmp_path / "run", dataset="folder"))
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_unwritable_output_folder_is_refused(birds, tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(OSError, match="cannot write into .*give a folder that can be written"):
            OpenSet(parameters(birds, tmp_path / "run"))
    finally:
        tmp_path.chmod(0o700)


def test_an_output_folder_that_is_a_file_is_refused(birds, tmp_path):
    (tmp_path / "run").write_text("mine")
    with pytest.raises(OSError, match="cannot write into .*give a folder that can be written"):
        OpenSet(parameters(birds, tmp_path / "run"))
    assert (tmp_path / "run").read_text() == "mine"


@pytest.mark.slow
def test_the_whole_experiment_from_a_command_line(birds, tmp_path):
    given = {**SMALL, "root": str(birds), "out": str(tmp_path / "run"), "epochs": 1}
    done = start("fieldmarks.experiments.open_set", *arguments(given))
    assert done.returncode == 0, done.stderr
    assert "recall@1" in done.stdout and read_result(tmp_path / "run")["metrics"]["recall@1"] > 0
    wrong = start("fieldmarks.experiments.open_set", *arguments(given), "epoch=3")
    assert wrong.returncode == 2
    assert wrong.stderr == "open_set: unknown parameter 'epoch': did you mean 'epochs'?\n"


def test_stopped_from_the_keyboard_it_says_in_a_line_what_is_saved(
    birds, tmp_path, monkeypatch, capsys
):
    given = {**SMALL, "root": str(birds), "out": str(tmp_path / "run")}
    train = lambda e: interrupt(e.method, 1) or Experiment.train(e)
    monkeypatch.setattr(OpenSet, "train", train)
    assert OpenSet.main(arguments(given)) == 130
    told = "open_set: stopped at step 1 of 4; saved, run again to resume\n"
    assert capsys.readouterr().err == told and (tmp_path / "run" / "last.pt").exists()
    assert OpenSet.main([*arguments(given), "lr=0.1"]) == 2
    assert capsys.readouterr().err == "open_set: lr is given twice: give it once\n"


# ---- validation classes


@pytest.fixture(scope="module")
def many_birds(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "many"
    return make_fieldguide(folder, classes=20, images=3, size=64, seed=0)


@pytest.mark.parametrize("share, held", [(0.01, 2), (0.25, 2), (0.3, 3), (0.5, 5), (0.99, 8)])
def test_validation_holds_out_training_classes(many_birds, tmp_path, share, held):
    given = parameters(many_birds, tmp_path / "run")
    (train, test), held_out = OpenSet.parts(given), set()
    for method, seed in (("vapnet", 0), ("scda", 3)):
        p = dataclasses.replace(given, validation=share, method=method, seed=seed)
        kept, searched = OpenSet.parts(p)
        assert set(kept.paths) | set(searched.paths) == set(train.paths)
        classes = [set(part.labels.tolist()) for part in (kept, searched, test)]
        assert len(classes[1]) == held and len(classes[0]) == 10 - held
        assert not classes[0] & classes[1] and not (classes[0] | classes[1]) & classes[2]
        held_out.add(searched.fingerprint)
    assert len(held_out) == 1, "the same classes for every method and seed"


def test_validation_runs_and_its_data_are_others(many_birds, tmp_path):
    given = parameters(many_birds, tmp_path / "run", epochs=1, method="normsoftmax")
    experiment = OpenSet(dataclasses.replace(given, validation=0.3))
    _, history, scores = run(experiment)
    result = json.loads(experiment.finish(history, scores).read_text())
    assert result["counts"]["train_classes"] == 7 and result["counts"]["classes"] == 3
    parts = OpenSet.parts(given)
    assert result["data_fingerprint"] != " ".join(part.fingerprint for part in parts)
    release(experiment.folder)


def test_classes_of_one_image_are_never_held_out(many_birds, tmp_path):
    train = OpenSet.parts(parameters(many_birds, tmp_path / "run"))[0]
    classes = train.labels.unique().tolist()
    kept = [(train.labels == label).nonzero()[0].item() for label in classes[:7]]
    kept += torch.isin(train.labels, torch.tensor(classes[7:])).nonzero().flatten().tolist()
    rest, held = hold_out_classes(train.subset(kept), 0.3)
    assert held.labels.unique().tolist() == classes[7:] and len(rest) == 7


@pytest.mark.parametrize("classes, several", [(3, 3), (4, 1)])
def test_validation_needs_four_classes(many_birds, tmp_path, classes, several):
    train = OpenSet.parts(parameters(many_birds, tmp_path / "run"))[0]
    keep = []
    for place, label in enumerate(train.labels.unique().tolist()[:classes]):
        keep += (train.labels == label).nonzero().flatten().tolist()[: 3 if place < several else 1]
    with pytest.raises(ValueError, match="at least 4 training classes, 2 of them") as raised:
        hold_out_classes(train.subset(keep), 0.25)
    assert f"{classes} training classes, {several} of them" in str(raised.value)


def test_validation_is_a_share(tmp_path):
    with pytest.raises(ValueError, match="validation is 1.0: it is a share"):
        parameters("", tmp_path, validation=1.0)


@pytest.mark.parametrize("method", ["vapnet", "normsoftmax", "proxynca++"])
def test_rows_that_stand_for_classes_start_as_their_mean_embeddings(birds, tmp_path, method):
    given = {"method": method, "constraint": "none", "cosine_head": True}
    scratch = OpenSet(parameters(birds, tmp_path / "scratch", **given))
    weights = tmp_path / "weights.pt"
    torch.save(scratch.backbone.network.state_dict(), weights)
    e = OpenSet(parameters(birds, tmp_path / "run", **given, weights=str(weights)))
    embedded = embed_all(e.method, e.train_pixels, e.test_views)
    rows, before = e.method.unit_rows, scratch.method.unit_rows
    for place, row in enumerate(rows):
        mean = embedded[e.stream.labels == place].mean(0)
        cosine = torch.nn.functional.cosine_similarity(row, mean, dim=0)
        assert cosine.item() == pytest.approx(1, abs=1e-4)
    torch.testing.assert_close(rows.norm(dim=1), before.norm(dim=1))
    assert not torch.allclose(rows, before, atol=1e-2)  # of a network that has learned nothing
