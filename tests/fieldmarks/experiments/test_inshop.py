import json

import numpy as np
import pytest
import torch
from PIL import Image

from fieldguide.birds.guide import make_fieldguide
from fieldmarks import load_run
from fieldmarks.evaluation.recall import recall_at_k
from fieldmarks.experiments import inshop, open_set
from fieldmarks.experiments.hashing import Hashing
from fieldmarks.experiments.inshop import InShop, Parameters
from fieldmarks.experiments.open_set import OpenSet
from fieldmarks.experiments.pairs import HEADS
from fieldmarks.experiments.parameters import parse
from fieldmarks.experiments.result import read_result
from fieldmarks.training import Interrupted, embed_all
from helpers.experiments import (
    arguments,
    assert_same_weights,
    finish,
    interrupt,
    measured_again,
    run,
    start,
)

SMALL = {
    "resize": 40,
    "size": 32,
    "backbone": "resnet10t",
    "weights": "none",
    "hidden": (8,),
    "free": 5,
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
TRAIN, TEST, ATTRIBUTES = 8, 4, 6  # items


def write_list(file, header, lines):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join([str(len(lines)), header, *lines]) + "\n")


def make_shop(root, train_images=3):
    """The official layout with pictures of noise about a colour of each item."""
    rng, partition, attributes = np.random.default_rng(0), [], []
    for item in range(TRAIN + TEST):
        colour = rng.integers(40, 216, 3)
        roles = (
            ["train"] * train_images if item < TRAIN else ["query", "gallery", "query", "gallery"]
        )
        for shot, role in enumerate(roles):
            name = f"img/WOMEN/Tees/id_{item + 1:08d}/{shot + 1:02d}_1_front.jpg"
            (root / "Img" / name).parent.mkdir(parents=True, exist_ok=True)
            noise = colour + rng.normal(0, 60, (44, 40, 3))
            Image.fromarray(noise.clip(0, 255).astype(np.uint8)).save(root / "Img" / name)
            partition.append(f"{name} id_{item + 1:08d} {role}")
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


MENDS = {"cosine_weight": 5.0, "hard_negatives": 0.5, "relevance_weight": 0.1}


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    return make_shop(tmp_path_factory.mktemp("data") / "shop")


def parameters(root, out, **changes):
    given = {**SMALL, "dataset": "inshop", "root": str(root), "out": str(out), **changes}
    return Parameters(**given)


def naive_ranking(e, among=None):
    """For each query all gallery positions, or those in `among`, by the network's score; of equals
    the lower one first."""
    orders = []
    with torch.no_grad():
        encoded = e.network.encode(e.test_embeddings)
        for number, query in enumerate(e.queries.tolist()):
            scores = {
                place: e.network.score(encoded[query], encoded[e.gallery[place]]).item()
                for place in (range(len(e.gallery)) if among is None else among[number])
            }
            orders.append(sorted(scores, key=lambda place: (-round(scores[place], 6), place)))
    return orders


def naive_recall(e, orders, k):
    labels = e.test_set.labels
    hits = [
        any(labels[e.gallery[place]] == labels[query] for place in order[:k])
        for query, order in zip(e.queries.tolist(), orders, strict=True)
    ]
    return np.mean(hits)


@pytest.mark.parametrize("method", ["pan_supervised", "attribute_similarity"])
def test_from_data_to_result(shop, tmp_path, method):
    experiment, history, scores = run(InShop(parameters(shop, tmp_path / "run", method=method)))
    orders = naive_ranking(experiment)
    for k in (1, 3):
        expected = naive_recall(experiment, orders, k)
        assert scores.metrics[f"recall@{k}"] == pytest.approx(expected)
    assert not (tmp_path / "run" / "result.json").exists()
    result = json.loads(experiment.finish(history, scores).read_text())
    assert result["experiment"] == "inshop" and result["method"] == method
    assert result["dataset"] == "inshop"
    assert result["counts"] == {
        "train": 18,
        "query": 8,
        "gallery": 8,
        "classes": 4,
        "train_classes": 6,
    }
    for name, (low, high) in result["intervals"].items():
        assert low <= result["metrics"][name] <= high
    assert result["intervals"].keys() == result["metrics"].keys() - {"tied@1"}
    assert all(0 <= value <= 1 for value in result["metrics"].values())
    assert result["best"]["epoch"] in (2, 4)
    assert result["attribute_names"] == [f"attribute-{m}" for m in range(ATTRIBUTES)]
    assert parse(Parameters, result["parameters"]) == experiment.parameters
    measured_again(InShop, tmp_path / "run")


def test_the_cheap_way_orders_the_nearest_by_cosine_anew(shop, tmp_path):
    e, _, scores = run(InShop(parameters(shop, tmp_path / "run", method="pan_unsupervised")))
    units = torch.nn.functional.normalize(e.test_embeddings)
    nearest = [
        (-(units[e.gallery] @ units[query])).argsort(stable=True)[:4].tolist()
        for query in e.queries.tolist()
    ]
    orders = naive_ranking(e, nearest)
    named = e.named_rankings(scores)
    assert list(named) == ["pan_unsupervised", "pan_unsupervised, nearest 4", "cosine"]
    assert named["pan_unsupervised, nearest 4"].index.tolist() == orders
    assert scores.metrics["recall@1_rerank"] == pytest.approx(naive_recall(e, orders, 1))
    assert scores.metrics["recall@3_cosine"] == pytest.approx(naive_recall(e, nearest, 3))


def test_cosine_is_recall_of_the_embeddings_as_they_came(shop, tmp_path):
    e, history, scores = run(InShop(parameters(shop, tmp_path / "run", method="cosine")))
    labels, sides = e.test_set.labels, (e.queries, e.gallery)
    query, gallery = ((e.test_embeddings[side], labels[side]) for side in sides)
    expected = recall_at_k(*query, *gallery, (1, 3))
    assert scores.metrics == {"recall@1": expected[1], "recall@3": expected[3], "tied@1": 0.0}
    assert history.epochs == []
    assert e.details(scores, history)["above_cosine"] == [0, 0, 0]
    e.finish(history, scores)
    measured_again(InShop, tmp_path / "run")
    assert not list((tmp_path / "run").glob("*.pt"))


@pytest.mark.parametrize("method", [*HEADS, "cosine"])
def test_every_method_goes_through_the_same_steps(shop, tmp_path, method):
    p = parameters(shop, tmp_path / "run", method=method, epochs=1, rerank=0)
    e, history, scores = run(InShop(p))
    assert len(history.epochs) == (method != "cosine")
    assert list(e.named_rankings(scores)) == list(dict.fromkeys([method, "cosine"]))


def test_equal_scores_keep_the_order_of_the_gallery_and_are_counted(shop, tmp_path):
    e = InShop(parameters(shop, tmp_path / "run", method="pan_unsupervised"))
    for parameter in e.method.head.parameters():
        torch.nn.init.zeros_(parameter)
    scores = e.evaluate()
    assert scores.results.index.tolist() == [list(range(8))] * 8
    labels = e.test_set.labels
    right = (labels[e.queries] == labels[e.gallery[0]]).double().mean().item()
    assert scores.metrics["tied@1"] == 1 and scores.metrics["recall@1"] == right
    assert scores.interval("tied@1") is None and "tied@1" not in scores.intervals


@pytest.mark.parametrize("mends", [{}, MENDS])
def test_a_run_stopped_and_resumed_ends_as_a_straight_one(shop, tmp_path, mends):
    straight, history, scores = run(InShop(parameters(shop, tmp_path / "straight", **mends)))
    stopped = InShop(parameters(shop, tmp_path / "stopped", **mends))
    interrupt(stopped.method, 3)
    with pytest.raises(Interrupted, match="stopped after epoch 3 of 4; saved"):
        stopped.train()
    resumed, again, same = run(InShop(parameters(shop, tmp_path / "stopped", **mends)))
    assert again.evaluations == history.evaluations and same.metrics == scores.metrics
    assert torch.equal(same.results.scores, scores.results.scores)
    assert_same_weights(straight.method, resumed.method)


def test_the_best_epoch_is_chosen_on_items_held_out(shop, tmp_path):
    e = InShop(parameters(shop, tmp_path / "run"))
    queries, gallery = e.held_out
    labels = e.train_set.labels
    learned, *held = (set(labels[part].tolist()) for part in (e.learned, queries, gallery))
    assert held[0] == held[1] and len(held[0]) == round(0.3 * TRAIN)
    assert not learned & held[0] and len(learned | held[0]) == TRAIN
    positions = torch.cat([e.learned, queries, gallery])
    assert sorted(positions.tolist()) == list(range(3 * TRAIN))
    other = InShop(parameters(shop, tmp_path / "other", seed=1))
    assert torch.equal(other.learned, e.learned) and torch.equal(other.held_out[0], queries)


def test_a_single_picture_of_an_item_is_learned_from_but_never_held_out():
    labels = torch.tensor([0, 1, 1, 2, 2, 2, 3, 3, 4, 4])
    learned, (queries, gallery) = inshop.hold_out_items(labels, 0.5)
    assert 0 in learned.tolist()
    for item in set(labels[queries].tolist()):
        counts = [(labels[part] == item).sum().item() for part in (queries, gallery)]
        total = (labels == item).sum().item()
        assert sum(counts) == total and counts[0] == total // 2


def test_pairs_are_drawn_anew_for_each_epoch(shop, tmp_path):
    e = InShop(parameters(shop, tmp_path / "run"))
    labels = e.train_set.labels[e.learned]  # six items of three pictures each
    (first, same), (second, _) = (e.training_pairs(epoch) for epoch in (1, 2))
    assert len(first) == 36 and int(same.sum()) == 18
    assert [(labels[i] == labels[j]).item() for i, j in first.tolist()] == [bool(s) for s in same]
    assert not torch.equal(first[18:], second[18:])
    assert torch.equal(first, e.training_pairs(1)[0])
    positive = [{tuple(sorted(pair)) for pair in pairs[:18].tolist()} for pairs in (first, second)]
    assert positive[0] == positive[1]


def test_what_is_saved_gives_the_metrics_again(shop, tmp_path):
    e, history, scores = run(InShop(parameters(shop, tmp_path / "run")))
    e.finish(history, scores)
    saved = measured_again(InShop, tmp_path / "run").saved
    for end in ("", "_rerank", "_cosine"):
        labels = saved["gallery_labels"][saved[f"index{end}"].long()]
        hits = (labels == saved["query_labels"][:, None]).cumsum(1) > 0
        for k in (1, 3):
            assert hits[:, k - 1].double().mean().item() == scores.metrics[f"recall@{k}{end}"]


@pytest.mark.parametrize("mends", [{}, MENDS])
def test_a_finished_run_comes_back_as_it_was_trained(shop, tmp_path, mends):
    e, history, scores = run(InShop(parameters(shop, tmp_path / "run", **mends)))
    e.finish(history, scores)
    method = load_run(tmp_path / "run", "cpu")
    assert not method.training
    with torch.no_grad():
        embedded = method.embed(e.test_images(range(6)))
        expected = e.method.encode(e.test_embeddings)[:6]
    torch.testing.assert_close(embedded, expected, rtol=1e-4, atol=1e-4)


def test_finished_runs_on_the_same_images_are_beside_this_one(shop, tmp_path):
    elsewhere = make_shop(tmp_path / "other", train_images=4)
    runs = {"a": (shop, "plain"), "b": (elsewhere, "plain"), "d": (shop, "cosine")}
    for name, (root, method) in runs.items():
        finish(InShop(parameters(root, tmp_path / "runs" / name, method=method)))
    e = InShop(parameters(shop, tmp_path / "runs" / "c"))
    siblings = e.siblings()  # the second was on other images
    assert [(folder.name, result["method"]) for folder, result in siblings] == [
        ("a", "plain"),
        ("d", "cosine"),
    ]
    theirs = e.measure_run(*siblings[0])
    assert theirs.metrics == siblings[0][1]["metrics"]


def test_the_same_seed_gives_the_same_ranking(shop, tmp_path):
    first, again, other = (
        run(InShop(parameters(shop, tmp_path / str(number), seed=seed)))[2].results.scores
        for number, seed in enumerate((0, 0, 1))
    )
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_embeddings_may_be_those_of_a_finished_run(shop, tmp_path):
    birds = make_fieldguide(tmp_path / "birds", classes=4, images=4, size=64, seed=0)
    given = {
        "root": str(birds),
        "resize": 40,
        "size": 32,
        "backbone": "resnet10t",
        "weights": "none",
        "batch_size": 4,
        "epochs": 1,
        "progress": "none",
        "device": "cpu",
        "precision": "fp32",
    }
    folder = str(tmp_path / "embedding")
    finish(OpenSet(open_set.Parameters(**given, method="proxynca++", out=folder)))
    e = InShop(parameters(shop, tmp_path / "run", embedding=folder, epochs=1))
    expected = embed_all(load_run(folder, "cpu"), e.test_pixels, e.test_views)
    expected = expected * expected.shape[1] ** 0.5
    torch.testing.assert_close(e.test_embeddings, expected, rtol=1e-4, atol=1e-4)
    _, history, scores = run(e)
    e.finish(history, scores)
    assert history.epochs
    with torch.no_grad():
        embedded = load_run(tmp_path / "run", "cpu").embed(e.test_images([3]))
        torch.testing.assert_close(
            embedded, e.method.encode(e.test_embeddings[3:4]), rtol=1e-4, atol=1e-4
        )
    with pytest.raises(ValueError, match="is not a finished run"):
        InShop(parameters(shop, tmp_path / "other", embedding=str(tmp_path)))
    codes = tmp_path / "codes"
    finish(Hashing(Hashing.Parameters(**given, method="dpsh", bits=6, out=str(codes))))
    with pytest.raises(ValueError, match="is a run that makes codes: give an open-set run"):
        InShop(parameters(shop, tmp_path / "other", embedding=str(codes)))


def test_embeddings_are_frozen_then_trained_with_the_head(shop, tmp_path):
    proxies = {"method": "proxynca++", "epochs": 1, "batch_size": 8, "lr": 0.001}
    given = {"embedding_settings": proxies, "end_to_end": 1, "batch_size": 8, "per_class": 2}
    e = InShop(parameters(shop, tmp_path / "run", **given))
    (folder,) = (tmp_path / "embeddings").iterdir()
    before = load_run(folder, "cpu").state_dict()
    _, history, scores = run(e)
    assert len(history.epochs) == 5 and len(history.evaluations) == 3
    now = e.embedder.state_dict()
    assert not torch.equal(now["project.weight"], before["project.weight"])
    proxies = [name for name in now if name.startswith("loss.")]
    assert proxies and all(torch.equal(now[name], before[name]) for name in proxies)
    expected = e.scaled(embed_all(e.embedder, e.test_pixels, e.test_views))
    torch.testing.assert_close(e.test_embeddings, expected, rtol=1e-4, atol=1e-4)
    assert scores.metrics["recall@1"] == pytest.approx(naive_recall(e, naive_ranking(e), 1))
    e.finish(history, scores)
    with torch.no_grad():
        embedded = load_run(tmp_path / "run", "cpu").embed(e.test_images([3]))
        encoded = e.network.encode(e.test_embeddings[3:4])
    torch.testing.assert_close(embedded, encoded, rtol=1e-4, atol=1e-4)


# Bad input


def test_methods_that_need_attributes_say_where_they_are_missing(tmp_path):
    root = make_shop(tmp_path / "shop")
    (root / "Anno" / "list_attr_items.txt").unlink()
    message = "there are no attributes, for .*list_attr_items.txt is missing"
    with pytest.raises(FileNotFoundError, match=message):
        InShop(parameters(root, tmp_path / "run"))
    assert not (tmp_path / "run").exists()
    run(InShop(parameters(root, tmp_path / "run", method="pan_unsupervised", epochs=1)))


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
        InShop(parameters(shop, tmp_path / "run", **changes))
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
        ({"rerank": 2}, "rerank is 2 and ks go up to 3: score as many anew at least, or none"),
        ({"end_to_end": 1, "method": "cosine"}, "end_to_end is 1: cosine trains nothing: give 0"),
        ({"flip": 7.0}, "flip is 7.0: it lies between 0 and 1"),
        ({"encoder": "graph"}, "encoder is 'graph': it must be one of linear, none"),
        ({"size": 41}, "size is 41 and resize is 40"),
    ],
)
def test_impossible_parameters_are_refused_before_anything_is_loaded(changes, message):
    with pytest.raises(ValueError, match=message) as caught:
        Parameters(**{**SMALL, **changes})
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_the_whole_experiment_from_a_command_line(shop, tmp_path):
    given = {**SMALL, "dataset": "inshop", "root": str(shop), "out": str(tmp_path / "run")}
    done = start("fieldmarks.experiments.inshop", *arguments(given))
    assert done.returncode == 0, done.stderr
    assert "recall@1 " in done.stdout
    assert read_result(tmp_path / "run")["metrics"]["recall@1"] >= 0
    wrong = start("fieldmarks.experiments.inshop", *arguments(given), "rules=or")
    assert wrong.returncode == 2
    assert wrong.stderr == "inshop: unknown parameter 'rules': did you mean 'rule'?\n"
