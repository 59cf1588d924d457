import dataclasses
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from fieldguide.birds.guide import make_fieldguide
from fieldmarks.evaluation.recall import recall_at_k
from fieldmarks.experiments import common, open_set
from fieldmarks.experiments.open_set import Parameters, Retrieval
from fieldmarks.experiments.result import read_result
from fieldmarks.files import release
from PIL import Image

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
    return make_fieldguide(
        tmp_path_factory.mktemp("data") / "birds", classes=6, images=6, size=64, seed=0
    )


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("FIELDMARKS_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def parameters(root, out, **changes):
    return Parameters(**{**SMALL, "root": str(root), "out": str(out), **changes})


def test_from_data_to_result(birds, tmp_path):
    p = parameters(birds, tmp_path / "run")
    experiment = open_set.prepare(p)
    assert len(experiment.train.labels.unique()) == len(experiment.test.labels.unique()) == 3
    before = open_set.evaluate(experiment)
    history = open_set.train(experiment)
    after = open_set.evaluate(experiment)
    path = open_set.finish(experiment, history, before, after, [], notebook="vapnet.ipynb")
    result = json.loads(path.read_text())
    for key in (
        "schema",
        "status",
        "notebook",
        "card",
        "method",
        "dataset",
        "parameters",
        "seed",
        "metrics",
        "counts",
        "curves",
        "figures",
        "timing",
        "environment",
    ):
        assert key in result, key
    assert (
        result["status"] == "complete"
        and result["method"] == "vapnet (L_a + mean L_c)"
        and result["dataset"] == "fieldguide"
    )
    assert result["counts"] == {
        "train": 18,
        "query": 18,
        "gallery": 18,
        "classes": 3,
        "train_classes": 3,
    }
    assert result["metrics"]["recall@1"] == recall_at_k(after.embeddings, after.labels, ks=(1,))[1]
    for name, (low, high) in result["intervals"].items():
        assert low <= result["metrics"][name] <= high
    assert [row["epoch"] for row in result["curves"]["epochs"]] == [1, 2]
    assert result["metrics"]["recall@1"] == result["curves"]["evaluations"][-1]["recall@1"]
    assert result["start"]["recall@1"] == before.metrics["recall@1"]
    assert (
        Parameters(
            **{k: tuple(v) if isinstance(v, list) else v for k, v in result["parameters"].items()}
        )
        == p
    )


@pytest.mark.parametrize(
    "method", ["normsoftmax", "proxynca++", "proxyanchor", "multisimilarity", "scda"]
)
def test_every_baseline_goes_through_the_same_steps(birds, tmp_path, method):
    experiment = open_set.prepare(
        parameters(birds, tmp_path / "run", method=method, epochs=1, per_class=4)
    )
    history, after = open_set.train(experiment), open_set.evaluate(experiment)
    assert len(history.epochs) == (0 if method == "scda" else 1)
    assert 0 <= after.metrics["recall@1"] <= after.metrics["recall@8"] <= 1


def test_closed_split_shares_classes_and_open_split_does_not(birds, tmp_path):
    train, test = open_set.load_split(parameters(birds, tmp_path))
    assert not set(train.labels.tolist()) & set(test.labels.tolist())
    train, test = open_set.load_split(parameters(birds, tmp_path, split="closed"))
    assert set(train.labels.tolist()) == set(test.labels.tolist()) == set(range(6))


def test_max_classes_keeps_the_first_on_each_side(birds, tmp_path):
    train, test = open_set.load_split(parameters(birds, tmp_path, max_classes=2))
    assert train.labels.unique().tolist() == [0, 1] and test.labels.unique().tolist() == [3, 4]


def test_the_same_parameters_go_on_where_they_stopped_and_others_are_refused(birds, tmp_path):
    first = open_set.prepare(parameters(birds, tmp_path / "run"))
    history = open_set.train(first)
    again = open_set.prepare(parameters(birds, tmp_path / "run", progress="lines"))
    assert open_set.train(again).epochs == history.epochs
    other = open_set.prepare(parameters(birds, tmp_path / "run", views=3))
    with pytest.raises(
        ValueError, match="comes from other parameters: views was 2 there and is 3 now"
    ):
        open_set.train(other)


def test_a_second_run_in_the_same_folder_is_refused(birds, tmp_path):
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys; from fieldmarks.files import hold; lock(sys.argv[1]); print('held', flush=True); "
            "sys.stdin.read()",
            str(tmp_path / "run"),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(
            RuntimeError,
            match="another run is writing to .*run': wait for it, or give another output folder",
        ):
            open_set.prepare(parameters(birds, tmp_path / "run"))
    finally:
        holder.kill()
        holder.wait()
    open_set.prepare(parameters(birds, tmp_path / "run"))  # whoever was killed holds nothing
    release(tmp_path / "run")


def test_baseline_is_the_run_with_l_a_alone_beside_this_one(birds, tmp_path):
    name, method = open_set.compare_with(
        open_set.prepare(parameters(birds, tmp_path / "alone" / "run"))
    )
    assert name == "untrained"
    plain = open_set.prepare(parameters(birds, tmp_path / "runs" / "a", constraint="none"))
    history, after = open_set.train(plain), open_set.evaluate(plain)
    open_set.finish(plain, history, None, after, [], "")
    experiment = open_set.prepare(parameters(birds, tmp_path / "runs" / "b"))
    name, method = open_set.compare_with(experiment)
    assert name == "vapnet (L_a)"
    experiment.method = method
    assert open_set.evaluate(experiment, resamples=0).metrics == after.metrics
    named = open_set.prepare(
        parameters(birds, tmp_path / "elsewhere", baseline=str(tmp_path / "runs" / "a"))
    )
    assert open_set.compare_with(named)[0] == "vapnet (L_a)"


def test_neighbours_never_hold_the_query_even_among_copies():
    embeddings = torch.nn.functional.normalize(
        torch.randn(30, 4, generator=torch.Generator().manual_seed(0)), dim=1
    )
    embeddings[10:25] = embeddings[10]
    retrieval = Retrieval(embeddings, torch.arange(30) % 3, None, None, {}, {}, torch.zeros(30, 1))
    rows = torch.arange(30)
    found, scores, correct = retrieval.neighbours(rows, 5)
    assert not (found == rows[:, None]).any()
    for row in range(30):  # naive: best first, equal scores in order of position, oneself left out
        similarity = (embeddings @ embeddings[row]).tolist()
        order = sorted(
            (i for i in range(30) if i != row), key=lambda i: (-round(similarity[i], 5), i)
        )[:5]
        assert [round(similarity[i], 4) for i in found[row]] == [
            round(similarity[i], 4) for i in order
        ]
        assert correct[row].tolist() == [i % 3 == row % 3 for i in found[row].tolist()]


def test_queries_search_the_gallery_where_the_split_names_them(birds, tmp_path, monkeypatch):
    load = common.catalog.load

    def as_inshop(name, root):
        images = load(name, root)
        roles = [
            "train" if label < 3 else "query" if i % 2 else "gallery"
            for i, label in enumerate(images.labels.tolist())
        ]
        return dataclasses.replace(images, split=roles)

    monkeypatch.setattr(common.catalog, "load", as_inshop)
    experiment = open_set.prepare(parameters(birds, tmp_path / "run"))
    result = open_set.evaluate(experiment, resamples=10)
    query, gallery = experiment.test.query_gallery()
    expected = recall_at_k(
        result.embeddings[query],
        result.labels[query],
        result.embeddings[gallery],
        result.labels[gallery],
    )
    assert {k: result.metrics[f"recall@{k}"] for k in expected} == expected and len(
        result.hits
    ) == len(query) == 9
    found, _, correct = result.neighbours(torch.arange(9), 4)
    assert set(found.flatten().tolist()) <= set(gallery.tolist())
    assert torch.equal(correct, result.labels[found] == result.labels[query][:, None])


def test_a_network_that_collapsed_is_named_as_such(birds, tmp_path):
    experiment = open_set.prepare(parameters(birds, tmp_path / "run"))
    for parameter in experiment.backbone.parameters():
        torch.nn.init.zeros_(parameter)
    with pytest.raises(RuntimeError, match="maps 18 of 18 images to zero: training has collapsed"):
        open_set.evaluate(experiment)


# Bad input: the message, and nothing left behind


def folder_of_classes(root, counts):
    for c, count in enumerate(counts):
        (root / f"class_{c}").mkdir(parents=True)
        for i in range(count):
            pixels = np.random.default_rng(c * 100 + i).integers(
                0, 255, (70, 80, 3), dtype=np.uint8
            )
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
        ((9, 9, 9, 9), {"device": "cuda:77"}, "device 'cuda:77' is not to be had here"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(tmp_path, counts, changes, message):
    root = folder_of_classes(tmp_path / "pictures", counts)
    with pytest.raises((ValueError, OSError), match=message) as caught:
        open_set.prepare(parameters(root, tmp_path / "run", dataset="folder", **changes))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"method": "vapnett"}, "method is 'vapnett'"),
        ({"size": 80}, "size must be at least 1 and at most resize"),
        ({"split": "half"}, "split is 'half'"),
        ({"batch_size": 1}, "batch_size is 1"),
        ({"ks": ()}, "ks are"),
        ({"crop_scale": (0.0, 1.0)}, "crop_scale"),
        ({"max_classes": 1}, "max_classes is 1"),
        ({"optimizer": "sdg"}, "optimizer is 'sdg'"),
        ({"dataset": "cub", "root": ""}, "root is empty: give the folder of cub"),
    ],
)
def test_impossible_parameters_are_refused_before_anything_is_loaded(changes, message):
    with pytest.raises(ValueError, match=message):
        Parameters(**{**SMALL, **changes})


def test_an_unreadable_image_is_named_before_training_starts(tmp_path):
    root = folder_of_classes(tmp_path / "pictures", (5, 5, 5, 5))
    (root / "class_1" / "2.png").write_bytes(b"not an image")
    with pytest.raises(ValueError, match="1 of 10 images cannot be read.*class_1/2.png"):
        open_set.prepare(parameters(root, tmp_path / "run", dataset="folder"))
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_unwritable_output_folder_is_refused(birds, tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(OSError, match="cannot write into .*give a folder that can be written"):
            open_set.prepare(parameters(birds, tmp_path / "run"))
    finally:
        tmp_path.chmod(0o700)


def test_an_output_folder_that_is_a_file_is_refused(birds, tmp_path):
    (tmp_path / "run").write_text("mine")
    with pytest.raises(OSError, match="cannot write into .*give a folder that can be written"):
        open_set.prepare(parameters(birds, tmp_path / "run"))
    assert (tmp_path / "run").read_text() == "mine"


def test_words_that_describe_no_birds_are_refused():
    with pytest.raises(
        ValueError, match="write it as '100 classes, 20 images, 128 px, seed 0, standard'"
    ):
        common.make_birds("100 birds")


def test_the_whole_experiment_from_a_command_line(birds, tmp_path):
    words = [f"{k}={json.dumps(v) if not isinstance(v, str) else v}" for k, v in SMALL.items()]
    command = [
        sys.executable,
        "-m",
        "fieldmarks.experiments.open_set",
        *words,
        f"root={birds}",
        f"out={tmp_path / 'run'}",
        "epochs=1",
    ]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "recall@1" in done.stdout and read_result(tmp_path / "run")["metrics"]["recall@1"] > 0
    wrong = subprocess.run([*command, "epoch=3"], capture_output=True, text=True, timeout=300)
    assert (
        wrong.returncode == 2
        and wrong.stderr == "open_set: unknown parameter 'epoch': did you mean 'epochs'?\n"
    )
