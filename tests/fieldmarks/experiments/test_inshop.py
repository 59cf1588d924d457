import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from fieldguide.birds.guide import make_fieldguide
from fieldlab.cards.finished import FinishedRun
from fieldlab.report.verify import differences
from fieldmarks.evaluation.recall import recall_at_k
from fieldmarks.experiments import inshop, open_set
from fieldmarks.experiments import inshop_figures as figures_of
from fieldmarks.experiments.inshop import Parameters
from fieldmarks.experiments.models import load_model
from fieldmarks.experiments.result import read_result
from PIL import Image

SMALL = {
    "resize": 40,
    "size": 32,
    "backbone": "resnet10t",
    "weights": "none",
    "hidden": 8,
    "concepts": 5,
    "epochs": 4,
    "lr": 0.01,
    "evaluate_every": 2,
    "validation": 0.3,
    "ks": (1, 3),
    "rerank": 4,
    "progress": "none",
    "device": "cpu",
    "precision": "fp32",
}
METHODS = [
    "pan_supervised",
    "pan_unsupervised",
    "pan_hybrid",
    "multitask",
    "attribute_similarity",
    "plain",
    "cosine",
]
TRAIN, TEST, ATTRIBUTES = 8, 4, 6  # items


def write_list(file, header, lines):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join([str(len(lines)), header, *lines]) + "\n")


def make_shop(root, train_images=3):
    """The official layout with pictures of noise about a colour of each item."""
    rng, partition, attributes = np.random.default_rng(0), [], []
    for item in range(TRAIN + TEST):
        colour = rng.integers(40, 216, 3)
        words = (
            ["train"] * train_images if item < TRAIN else ["query", "gallery", "query", "gallery"]
        )
        for shot, word in enumerate(words):
            name = f"img/WOMEN/Tees/id_{item + 1:08d}/{shot + 1:02d}_1_front.jpg"
            (root / "Img" / name).parent.mkdir(parents=True, exist_ok=True)
            noise = colour + rng.normal(0, 60, (44, 40, 3))
            Image.fromarray(noise.clip(0, 255).astype(np.uint8)).save(root / "Img" / name)
            partition.append(f"{name} id_{item + 1:08d} {word}")
        attributes.append(
            f"id_{item + 1:08d} "
            + " ".join(str(v) for v in rng.choice([1, -1, 0], ATTRIBUTES, p=(0.4, 0.5, 0.1)))
        )
    write_list(
        root / "Eval" / "list_eval_partition.txt", "image_name item_id evaluation_status", partition
    )
    write_list(
        root / "Anno" / "list_attr_cloth.txt",
        "attribute_name",
        [f"attribute-{m}" for m in range(ATTRIBUTES)],
    )
    write_list(root / "Anno" / "list_attr_items.txt", "item_id attribute_labels", attributes)
    return root


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    return make_shop(tmp_path_factory.mktemp("data") / "shop")


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("FIELDMARKS_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def parameters(root, out, **changes):
    return Parameters(
        **{**SMALL, "dataset": "inshop", "root": str(root), "out": str(out), **changes}
    )


def run(p):
    experiment = inshop.prepare(p)
    history = inshop.train(experiment)
    return experiment, history, inshop.evaluate(experiment, resamples=200)


def naive_ranking(experiment, among=None):
    """For each query all gallery positions, or those in `among`, by the network's score; of equals the lower one first."""
    e, orders = experiment, []
    with torch.no_grad():
        encoded = e.network.encode(e.test_embeddings)
        for number, query in enumerate(e.queries.tolist()):
            scores = {
                place: e.network.score(encoded[query], encoded[e.gallery[place]]).item()
                for place in (range(len(e.gallery)) if among is None else among[number])
            }
            orders.append(sorted(scores, key=lambda place: (-round(scores[place], 6), place)))
    return orders


def naive_recall(experiment, orders, k):
    labels = experiment.test.labels
    return np.mean(
        [
            any(labels[experiment.gallery[place]] == labels[query] for place in order[:k])
            for query, order in zip(experiment.queries.tolist(), orders)
        ]
    )


@pytest.mark.parametrize("method", ["pan_supervised", "attribute_similarity"])
def test_from_data_to_result(shop, tmp_path, method):
    experiment, history, retrieval = run(parameters(shop, tmp_path / "run", method=method))
    orders = naive_ranking(experiment)
    for k in (1, 3):
        assert retrieval.metrics[f"recall@{k}"] == pytest.approx(
            naive_recall(experiment, orders, k)
        )
    assert not (tmp_path / "run" / "result.json").exists()
    result = json.loads(
        inshop.finish(experiment, history, retrieval, [], notebook="pan_inshop.ipynb").read_text()
    )
    assert (
        result["experiment"] == "inshop"
        and result["method"] == method
        and result["dataset"] == "inshop"
    )
    assert result["counts"] == {
        "train": 18,
        "query": 8,
        "gallery": 8,
        "classes": 4,
        "train_classes": 6,
    }
    for name, (low, high) in result["intervals"].items():
        assert low <= result["metrics"][name] <= high
    assert all(0 <= value <= 1 for value in result["metrics"].values()) and result[
        "chosen_epoch"
    ] in (2, 4)
    assert (
        Parameters(
            **{k: tuple(v) if isinstance(v, list) else v for k, v in result["parameters"].items()}
        )
        == experiment.parameters
    )
    assert (
        differences(FinishedRun(tmp_path / "run", read_result(tmp_path / "run"))) == []
    )  # what is saved gives them again


def test_the_cheap_way_orders_the_nearest_by_cosine_anew(shop, tmp_path):
    e, _, retrieval = run(parameters(shop, tmp_path / "run", method="pan_unsupervised"))
    units = torch.nn.functional.normalize(e.test_embeddings)
    nearest = [
        (-(units[e.gallery] @ units[query])).argsort(stable=True)[:4].tolist()
        for query in e.queries.tolist()
    ]
    orders = naive_ranking(e, nearest)
    assert list(retrieval.rankings) == ["pan_unsupervised", "pan_unsupervised, nearest 4", "cosine"]
    assert retrieval.rankings["pan_unsupervised, nearest 4"].index.tolist() == orders
    assert retrieval.metrics["recall@1_rerank"] == pytest.approx(naive_recall(e, orders, 1))
    assert retrieval.metrics["recall@3_cosine"] == pytest.approx(naive_recall(e, nearest, 3))


def test_cosine_is_recall_of_the_embeddings_as_they_came(shop, tmp_path):
    e, history, retrieval = run(parameters(shop, tmp_path / "run", method="cosine"))
    labels = e.test.labels
    expected = recall_at_k(
        e.test_embeddings[e.queries],
        labels[e.queries],
        e.test_embeddings[e.gallery],
        labels[e.gallery],
        (1, 3),
    )
    assert (
        retrieval.metrics == {"recall@1": expected[1], "recall@3": expected[3], "tied@1": 0.0}
        and history.epochs == []
    )
    assert retrieval.above_cosine == (0, 0, 0)
    assert not (tmp_path / "run" / "network.safetensors").exists()


@pytest.mark.parametrize("method", METHODS)
def test_every_method_goes_through_the_same_steps(shop, tmp_path, method):
    _, history, retrieval = run(
        parameters(shop, tmp_path / "run", method=method, epochs=1, rerank=0)
    )
    assert len(history.epochs) == (method != "cosine") and list(retrieval.rankings) == list(
        dict.fromkeys([method, "cosine"])
    )


def test_equal_scores_keep_the_order_of_the_gallery_and_are_counted(shop, tmp_path):
    e = inshop.prepare(parameters(shop, tmp_path / "run", method="pan_unsupervised"))
    for parameter in e.network.head.parameters():
        torch.nn.init.zeros_(parameter)
    retrieval = inshop.evaluate(e, resamples=0)
    assert retrieval.rankings["pan_unsupervised"].index.tolist() == [list(range(8))] * 8
    first = e.test.labels[e.gallery[0]]
    assert (
        retrieval.metrics["tied@1"] == 1
        and retrieval.metrics["recall@1"]
        == (e.test.labels[e.queries] == first).double().mean().item()
    )
    assert retrieval.intervals == {}


def test_the_best_epoch_is_chosen_on_items_held_out(shop, tmp_path):
    e = inshop.prepare(parameters(shop, tmp_path / "run"))
    queries, gallery = e.validation
    own = [set(e.train.labels[part].tolist()) for part in (e.learned, queries, gallery)]
    assert (
        own[1] == own[2]
        and len(own[1]) == round(0.3 * TRAIN)
        and not own[0] & own[1]
        and len(own[0] | own[1]) == TRAIN
    )
    positions = torch.cat([e.learned, queries, gallery])
    assert sorted(positions.tolist()) == list(range(3 * TRAIN))
    other = inshop.prepare(parameters(shop, tmp_path / "other", seed=1))
    assert torch.equal(other.learned, e.learned) and torch.equal(other.validation[0], queries)


def test_a_single_picture_of_an_item_is_learnt_from_but_never_held_out():
    labels = torch.tensor([0, 1, 1, 2, 2, 2, 3, 3, 4, 4])
    learned, (queries, gallery) = inshop.hold_out_items(labels, 0.5)
    assert 0 in learned.tolist()
    for item in set(labels[queries].tolist()):
        counts = [(labels[part] == item).sum().item() for part in (queries, gallery)]
        assert (
            counts == [sum(counts) // 2, sum(counts) - sum(counts) // 2]
            and sum(counts) == (labels == item).sum()
        )


def test_pairs_are_drawn_anew_for_each_epoch():
    labels = torch.arange(18) // 3
    p = Parameters(**SMALL)
    (first, same), (second, _) = (inshop.training_pairs(p, labels, epoch) for epoch in (1, 2))
    assert len(first) == 36 and int(same.sum()) == 18
    assert [(labels[i] == labels[j]).item() for i, j in first.tolist()] == [bool(s) for s in same]
    assert not torch.equal(first[18:], second[18:]) and torch.equal(
        first, inshop.training_pairs(p, labels, 1)[0]
    )
    assert {tuple(sorted(pair)) for pair in first[:18].tolist()} == {
        tuple(sorted(pair)) for pair in second[:18].tolist()
    }


def test_what_is_saved_gives_the_metrics_again(shop, tmp_path):
    from safetensors.torch import load_file

    e, history, retrieval = run(parameters(shop, tmp_path / "run"))
    inshop.finish(e, history, retrieval, [], "")
    saved = load_file(tmp_path / "run" / "rankings.safetensors")
    for end in ("", "_rerank", "_cosine"):
        hits = (
            saved["gallery_labels"][saved[f"index{end}"].long()] == saved["query_labels"][:, None]
        ).cumsum(1) > 0
        for k in (1, 3):
            assert hits[:, k - 1].double().mean().item() == retrieval.metrics[f"recall@{k}{end}"]
    assert (
        inshop.load_hits(tmp_path / "run").double().mean().item() == retrieval.metrics["recall@1"]
    )


def test_finished_runs_on_the_same_images_are_compared_with(shop, tmp_path):
    elsewhere = make_shop(tmp_path / "other", train_images=4)
    for name, (root, method) in {
        "a": (shop, "plain"),
        "b": (elsewhere, "plain"),
        "d": (shop, "cosine"),
    }.items():
        one, history, theirs = run(parameters(root, tmp_path / "runs" / name, method=method))
        inshop.finish(one, history, theirs, [], "")
        plain = theirs if name == "a" else plain
    e, _, retrieval = run(parameters(shop, tmp_path / "runs" / "c"))
    found = figures_of.differences(e, retrieval)
    (cosine, other) = found  # the second was on other images, the third is there anyway
    assert (
        cosine == "cosine, learns nothing"
        and other.startswith("plain, ")
        and found[cosine] == retrieval.above_cosine
    )
    assert found[other].mean == pytest.approx(
        retrieval.metrics["recall@1"] - plain.metrics["recall@1"]
    )


def test_the_same_seed_gives_the_same_ranking(shop, tmp_path):
    first, again, other = (
        run(parameters(shop, tmp_path / str(number), seed=seed))[2]
        .rankings["pan_supervised"]
        .scores
        for number, seed in enumerate((0, 0, 1))
    )
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_embeddings_may_be_those_of_a_finished_run(shop, tmp_path):
    birds = make_fieldguide(tmp_path / "birds", classes=4, images=4, size=64, seed=0)
    run_of = open_set.prepare(
        open_set.Parameters(
            root=str(birds),
            out=str(tmp_path / "embedding"),
            method="proxynca++",
            resize=40,
            size=32,
            backbone="resnet10t",
            weights="none",
            batch_size=4,
            epochs=1,
            progress="none",
            device="cpu",
            precision="fp32",
        )
    )
    open_set.finish(run_of, open_set.train(run_of), None, open_set.evaluate(run_of), [], "")
    e = inshop.prepare(
        parameters(shop, tmp_path / "run", embedding=str(tmp_path / "embedding"), epochs=1)
    )
    expected = load_model(tmp_path / "embedding", "cpu").describe(e.test_pixels)
    torch.testing.assert_close(
        e.test_embeddings, expected * expected.shape[1] ** 0.5, rtol=1e-4, atol=1e-4
    )
    assert inshop.train(e).epochs
    with pytest.raises(ValueError, match="is not a finished run"):
        inshop.prepare(parameters(shop, tmp_path / "other", embedding=str(tmp_path)))


# Bad input


def test_methods_that_need_attributes_say_where_they_are_missing(tmp_path):
    root = make_shop(tmp_path / "shop")
    (root / "Anno" / "list_attr_items.txt").unlink()
    with pytest.raises(
        FileNotFoundError, match="there are no attributes, for .*list_attr_items.txt is missing"
    ):
        inshop.prepare(parameters(root, tmp_path / "run"))
    assert not (tmp_path / "run").exists()
    run(parameters(root, tmp_path / "run", method="pan_unsupervised", epochs=1))


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            {"validation": 0.05},
            "validation is 0.05: of 8 training items with two images or more it holds out 0",
        ),
        (
            {"validation": 0.95},
            "it holds out 8, and at least 2 are needed, and as many to learn from",
        ),
        ({"pairs": 1000}, "1000 pairs within a class are wanted"),
        ({"weights": "/nowhere.pt"}, "no weights at '/nowhere.pt'"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(shop, tmp_path, changes, message):
    with pytest.raises((ValueError, OSError), match=message) as caught:
        inshop.prepare(parameters(shop, tmp_path / "run", **changes))
    assert "\n" not in str(caught.value) and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"method": "protonet"}, "method is 'protonet': it must be one of"),
        ({"dataset": "cub"}, "dataset is 'cub'"),
        ({"dataset": "inshop"}, "root is empty: give the folder of inshop"),
        ({"validation": 0.0}, "validation is 0.0"),
        ({"ks": ()}, r"ks is \[\]"),
        ({"ks": (0, 1)}, r"ks is \[0, 1\]"),
        ({"rerank": -1}, "rerank is -1"),
        ({"size": 41}, "size is 41 and resize is 40"),
    ],
)
def test_impossible_parameters_are_refused_before_anything_is_loaded(changes, message):
    with pytest.raises(ValueError, match=message):
        Parameters(**{**SMALL, **changes})


def test_the_whole_experiment_from_a_command_line(shop, tmp_path):
    words = [f"{k}={json.dumps(v) if not isinstance(v, str) else v}" for k, v in SMALL.items()]
    command = [
        sys.executable,
        "-m",
        "fieldmarks.experiments.inshop",
        *words,
        "dataset=inshop",
        f"root={shop}",
        f"out={tmp_path / 'run'}",
    ]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "recall@1 " in done.stdout and read_result(tmp_path / "run")["metrics"]["recall@1"] >= 0
    wrong = subprocess.run([*command, "rules=or"], capture_output=True, text=True, timeout=300)
    assert (
        wrong.returncode == 2
        and wrong.stderr == "inshop: unknown parameter 'rules': did you mean 'rule'?\n"
    )
