import json
import math
import shutil
from itertools import combinations

import pytest
import torch

from fieldguide.garments.wardrobe import make_wardrobe
from fieldmarks import load_run
from fieldmarks.data.layouts import polyvore
from fieldmarks.evaluation.outfits import auc_interval
from fieldmarks.experiments import outfits
from fieldmarks.experiments.features import Unscaled
from fieldmarks.experiments.outfits import OutfitMatching, Parameters
from fieldmarks.experiments.pairs import HEADS, WITH_ATTRIBUTES
from fieldmarks.experiments.parameters import parse
from fieldmarks.experiments.result import read_result
from fieldmarks.methods.graph_encoder import outfit_edges
from fieldmarks.training import Interrupted, embed_all
from helpers.experiments import (
    arguments,
    assert_same_weights,
    finish,
    interrupt,
    measured_again,
    run,
)

SMALL = {
    "resize": 32,
    "size": 32,
    "backbone": "resnet10t",
    "weights": "none",
    "hidden": (8, 6),
    "free": 3,
    "epochs": 6,
    "evaluate_every": 2,
    "lr": 0.02,
    "progress": "none",
    "device": "cpu",
    "precision": "fp32",
}


@pytest.fixture(scope="module")
def wardrobe(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "wardrobe"
    return make_wardrobe(folder, outfits=200, items=150, size=32, shots=2, seed=0)


def parameters(root, out, **changes):
    return Parameters(**{**SMALL, "root": str(root), "out": str(out), **changes})


def naive_auc(scores, labels) -> float:
    true, made_up = (
        [one for one, label in zip(scores, labels, strict=True) if label == kind] for kind in (1, 0)
    )
    wins = [
        1.0 if one > other else 0.5 if one == other else 0.0 for one in true for other in made_up
    ]
    return sum(wins) / len(wins)


def naive_fitb(scores, answers) -> float:
    hits = [
        (row[answer] == max(row)) / row.count(max(row))
        for row, answer in zip(scores, answers, strict=True)
    ]
    return sum(hits) / len(hits)


def test_from_data_to_result(wardrobe, tmp_path):
    experiment, history, scores = run(OutfitMatching(parameters(wardrobe, tmp_path / "run")))
    data, metrics = experiment.outfits, scores.metrics
    for part, end in (("test", ""), ("test resampled", "_resampled")):
        right = [question.answer for question in data.blanks[part]]
        kinds = [question.label for question in data.compatibility[part]]
        for k in (0, 1):
            choices, answers = (scores.saved[f"{n}/{part}/{k}"] for n in ("choices", "outfits"))
            expected = naive_fitb(choices.tolist(), right)
            assert metrics[f"fitb{end}_k{k}"] == pytest.approx(expected)
            assert metrics[f"auc{end}_k{k}"] == pytest.approx(naive_auc(answers.tolist(), kinds))
    result = json.loads(experiment.finish(history, scores).read_text())
    assert result["method"] == "pan_supervised-GE" and result["dataset"] == "wardrobe"
    assert result["metrics"] == metrics
    assert list(metrics)[:4] == ["fitb", "fitb_resampled", "auc", "auc_resampled"]
    assert set(result["intervals"]) == set(list(metrics)[:4])
    for name, (low, high) in result["intervals"].items():
        assert low <= metrics[name] <= high and metrics[name] == metrics[f"{name}_k1"]
    items = {item for outfit in data.outfits["test"] for item in outfit}
    assert result["counts"] == {
        "train": len(experiment.training_items),
        "query": 50 + 100,
        "gallery": len(items),
        "classes": 50,
        "train_classes": 120,
    }
    assert result["experiment"] == "outfits"
    assert [row["epoch"] for row in result["curves"]["evaluations"]] == [2, 4, 6]
    terms = {"epoch", "similarity", "attributes", "lr", "images_per_second"}
    assert set(result["curves"]["epochs"][0]) == terms
    best = max(row["validation"] for row in result["curves"]["evaluations"])
    assert result["best"]["validation"] == best
    assert result["attribute_names"] == data.attribute_names
    assert parse(Parameters, result["parameters"]) == experiment.parameters
    saved = measured_again(OutfitMatching, tmp_path / "run").saved
    assert saved.keys() == scores.saved.keys()
    assert all(torch.equal(saved[name], value) for name, value in scores.saved.items())


def test_scores_are_means_over_pairs_of_what_the_head_says_of_two_items(wardrobe, tmp_path):
    """With an encoder that sees items alone, K changes nothing, and question by question can be
    counted by hand."""
    p = parameters(wardrobe, tmp_path, encoder="linear")
    experiment, _, scores = run(OutfitMatching(p))
    with torch.no_grad():
        encoded = experiment.method.encode(experiment.features)
        score = [experiment.method.score(one, encoded).tolist() for one in encoded]
    data, saved = experiment.outfits, scores.saved
    for part in ("test", "test resampled"):
        answers = saved[f"outfits/{part}/0"].tolist()
        for question, actual in zip(data.compatibility[part], answers, strict=True):
            pairs = list(combinations(question.items, 2))
            assert actual == pytest.approx(
                sum(score[i][j] for i, j in pairs) / len(pairs), abs=1e-5
            )
        choices = saved[f"choices/{part}/0"].tolist()
        for question, actual in zip(data.blanks[part], choices, strict=True):
            sums = [sum(score[i][choice] for i in question.question) for choice in question.choices]
            expected = [each / len(question.question) for each in sums]
            assert actual == pytest.approx(expected, abs=1e-5)
        assert torch.equal(saved[f"choices/{part}/0"], saved[f"choices/{part}/1"])


def test_a_graph_encoder_sees_the_test_outfits_and_only_at_k_1_beyond_the_question(
    wardrobe, tmp_path
):
    experiment = OutfitMatching(parameters(wardrobe, tmp_path))
    data, test = experiment.outfits, experiment.outfits.outfits["test"]
    together = {frozenset(pair) for outfit in test for pair in combinations(outfit, 2)}
    for k in (0, 1):
        of_blanks, of_outfits = experiment.contexts("test", k)
        for question, context in zip(data.compatibility["test"], of_outfits, strict=True):
            edges = {frozenset(context.items[end] for end in edge) for edge in context.edges}
            assert edges <= together and not any(edge <= set(question.items) for edge in edges)
            assert len(context.edges) <= k * len(question.items)
        for question, context in zip(data.blanks["test"], of_blanks, strict=True):
            question_items, choices = set(question.question), set(question.choices)
            within = {frozenset(pair) for pair in combinations(question.question, 2)}
            edges = {frozenset(context.items[end] for end in edge) for edge in context.edges}
            assert within <= edges and edges <= together | within
            assert not any(edge & question_items and edge & choices for edge in edges - within)
            assert k or edges == within
    assert experiment.contexts("valid", 1) is experiment.contexts("valid", 1)  # built once


def test_the_degree_baseline_counts_visible_edges(wardrobe, tmp_path):
    experiment = OutfitMatching(parameters(wardrobe, tmp_path))
    data, test = experiment.outfits, experiment.outfits.outfits["test"]
    choices, scores = experiment.degree_answers("test")
    for question, score in zip(data.compatibility["test"], scores.tolist(), strict=True):
        own = set(question.items)
        outside = [
            any(item in outfit and set(outfit) - own for outfit in test) for item in question.items
        ]
        assert score == pytest.approx(-sum(outside) / len(outside))
    for question, row in zip(data.blanks["test"], choices.tolist(), strict=True):
        edges = set()
        for choice in question.choices:
            worn_with = {other for outfit in test if choice in outfit for other in outfit}
            worn_with -= {choice, *question.question}
            edges |= {frozenset((choice, min(worn_with)))} if worn_with else set()
        assert row == [-sum(choice in edge for edge in edges) for choice in question.choices]


def test_the_interval_of_the_area_holds_it_and_knows_certainty():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % 2
    scores = (torch.randn(60, generator=generator) + labels).round(decimals=1)  # with ties
    low, high = auc_interval(scores, labels, 500)
    assert low < naive_auc(scores.tolist(), labels.tolist()) < high and 0.1 < high - low < 0.4
    order = torch.randperm(60, generator=generator)
    again = auc_interval(scores[order] * 3, labels[order], 500)
    assert list(again) == pytest.approx([low, high], abs=0.03)
    assert list(auc_interval(labels, labels, 50)) == [1, 1]
    assert list(auc_interval(0 * labels, labels, 50)) == [0.5, 0.5]


def test_edges_join_items_of_one_outfit_once():
    edges = outfit_edges([[2, 0, 1], [1, 0], [3, 3, 2], [4]])
    assert edges.tolist() == [[0, 1], [0, 2], [1, 2], [2, 3]]
    assert outfit_edges([]).shape == (0, 2)


def test_the_best_by_validation_is_kept_and_the_seed_decides_everything(wardrobe, tmp_path):
    first, history, scores = run(OutfitMatching(parameters(wardrobe, tmp_path / "a")))
    assert not first.method.training
    best = max(history.evaluations, key=lambda row: row["validation"])
    assert first.validate() == {name: best[name] for name in ("fitb", "auc", "validation")}
    assert best["validation"] == (best["fitb"] + best["auc"]) / 2
    _, again, same = run(OutfitMatching(parameters(wardrobe, tmp_path / "b")))
    assert losses(again) == losses(history) and same.metrics == scores.metrics
    _, other, _ = run(OutfitMatching(parameters(wardrobe, tmp_path / "c", seed=1)))
    assert losses(other) != losses(history)


def losses(history):
    return [(row["similarity"], row["attributes"]) for row in history.epochs]


@pytest.mark.parametrize("encoder", ["graph", "linear"])
def test_a_run_stopped_and_resumed_ends_as_a_straight_one(wardrobe, tmp_path, encoder):
    p = {"encoder": encoder}
    straight, history, scores = run(OutfitMatching(parameters(wardrobe, tmp_path / "a", **p)))
    stopped = OutfitMatching(parameters(wardrobe, tmp_path / "b", **p))
    interrupt(stopped.method, 3)
    with pytest.raises(Interrupted, match="stopped after epoch 3 of 6; saved"):
        stopped.train()
    resumed, again, same = run(OutfitMatching(parameters(wardrobe, tmp_path / "b", **p)))
    assert losses(again) == losses(history) and again.evaluations == history.evaluations
    assert same.metrics == scores.metrics
    assert_same_weights(straight.method, resumed.method)


def test_a_finished_run_comes_back_as_it_was_trained(wardrobe, tmp_path):
    experiment, history, scores = run(OutfitMatching(parameters(wardrobe, tmp_path / "run")))
    experiment.finish(history, scores)
    method = load_run(tmp_path / "run", "cpu")
    assert not method.training and method.attribute_names == experiment.outfits.attribute_names
    with torch.no_grad():
        embedded = method.embed(experiment.images(range(6)))
        expected = experiment.method.encode(experiment.features)[:6]  # items seen alone
    torch.testing.assert_close(embedded, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("method", [*HEADS, "cosine"])
@pytest.mark.parametrize("encoder", ["graph", "none"])
def test_every_method_goes_through_the_same_steps(wardrobe, tmp_path, method, encoder):
    p = parameters(wardrobe, tmp_path, method=method, encoder=encoder, epochs=2, neighbours=0)
    experiment, history, scores = run(OutfitMatching(p))
    ending = "-GE" if encoder == "graph" and method != "cosine" else ""
    assert experiment.name == method + ending
    if method == "cosine":
        assert not history.epochs
    else:
        terms = {"similarity", *["attributes"] * (method in WITH_ATTRIBUTES)}
        assert set(history.epochs[0]) == {"epoch", *terms, "lr", "images_per_second"}
    metrics = scores.metrics
    assert metrics["auc"] == metrics["auc_k0"] and "auc_k1" in metrics
    assert all(0 <= value <= 1 for value in metrics.values())


def test_cosine_is_the_cosine_of_standardised_features(wardrobe, tmp_path):
    p = parameters(wardrobe, tmp_path, method="cosine")
    experiment, _, scores = run(OutfitMatching(p))
    items = experiment.features[experiment.training_items]
    torch.testing.assert_close(items.mean(0), torch.zeros(items.shape[1]), atol=1e-4, rtol=0)
    question = experiment.outfits.compatibility["test"][3]
    unit = [experiment.features[i] / experiment.features[i].norm() for i in question.items]
    values = [(one @ other).item() for one, other in combinations(unit, 2)]
    actual = scores.saved["outfits/test/0"][3].item()
    assert actual == pytest.approx(sum(values) / len(values), abs=1e-5)


def test_pictures_give_the_features_that_were_learned_from(wardrobe, tmp_path):
    experiment = OutfitMatching(parameters(wardrobe, tmp_path))
    with torch.no_grad():
        pooled = experiment.backbone(experiment.images([4, 9])).mean((2, 3))
        own = experiment.method.standardise(pooled)
    torch.testing.assert_close(own, experiment.features[[4, 9]], rtol=1e-3, atol=1e-3)


@pytest.fixture
def editable(wardrobe, tmp_path):
    shutil.copytree(wardrobe, tmp_path / "wardrobe")
    return tmp_path / "wardrobe"


def test_items_that_nobody_annotated_are_unknown_not_without_attributes(editable, tmp_path):
    file = editable / "polyvore_outfits" / "polyvore_attributes.json"
    content = json.loads(file.read_text())
    for item in list(content["annotations"])[::2]:
        del content["annotations"][item]
    file.write_text(json.dumps(content))
    experiment, history, _ = run(OutfitMatching(parameters(editable, tmp_path / "run")))
    unknown = experiment.outfits.attributes.isnan().all(1)
    assert 50 < unknown.sum() < 100 and math.isfinite(history.epochs[-1]["attributes"])
    file.unlink()
    with pytest.raises(FileNotFoundError, match="polyvore_attributes.json"):
        OutfitMatching(parameters(editable, tmp_path / "none"))
    assert not (tmp_path / "none").exists()
    p = parameters(editable, tmp_path / "free", method="pan_unsupervised")
    _, history, _ = run(OutfitMatching(p))
    assert set(history.epochs[0]) == {"epoch", "similarity", "lr", "images_per_second"}


def test_without_validation_questions_nothing_starts(editable, tmp_path):
    (editable / "polyvore_outfits" / "nondisjoint" / "fill_in_blank_valid.json").unlink()
    with (
        pytest.warns(UserWarning, match="partial copy"),
        pytest.raises(ValueError, match="have no 'valid'"),
    ):
        OutfitMatching(parameters(editable, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_without_edges_there_is_nothing_to_learn_from(wardrobe, tmp_path, monkeypatch):
    empty = torch.empty(0, 2, dtype=torch.int64)
    monkeypatch.setattr(outfits, "outfit_edges", lambda _: empty)
    with pytest.raises(ValueError, match="0 edges, a share of 0.5 .* leave none to learn from"):
        OutfitMatching(parameters(wardrobe, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_the_disjoint_split_has_no_resampled_questions(wardrobe, tmp_path):
    p = parameters(wardrobe, tmp_path, outfits_split="disjoint", epochs=2)
    experiment, _, scores = run(OutfitMatching(p))
    tested = {item for outfit in experiment.outfits.outfits["test"] for item in outfit}
    assert not tested & set(experiment.training_items.tolist())
    assert not [name for name in scores.metrics if "resampled" in name]
    assert set(scores.intervals) == {"fitb", "auc"}


def test_what_a_run_is_compared_with(wardrobe, tmp_path):
    def experiment_of(name, **changes):
        changes = {"epochs": 2, "evaluate_every": 2, **changes}
        return OutfitMatching(parameters(wardrobe, tmp_path / name, **changes))

    multitask, history, scores = run(experiment_of("runs/b", method="multitask"))
    experiment = experiment_of("runs/a")
    assert experiment.compare_with() is None and experiment.siblings() == []
    multitask.finish(history, scores)
    name, theirs = experiment.compare_with()
    assert name == "multitask-GE" and theirs.metrics == scores.metrics
    assert experiment_of("runs/d", encoder="linear").compare_with() is None
    finish(experiment)
    baseline = str(tmp_path / "runs" / "a")
    assert experiment_of("c", baseline=baseline).compare_with()[0] == "pan_supervised-GE"
    with pytest.raises(ValueError, match="is not a finished run"):
        experiment_of("d", baseline=str(tmp_path / "c"))
    with pytest.raises(ValueError, match="was made on other data"):
        experiment_of("e", baseline=baseline, outfits_split="disjoint")


def test_the_fingerprint_is_that_of_items_questions_and_attributes(wardrobe):
    def load(split="nondisjoint"):
        return polyvore.load(wardrobe, split, name="wardrobe")

    data, same = load(), load().fingerprint
    assert data.fingerprint == same and len(same) == 16
    data.attributes[3, 4] = 1 - data.attributes[3, 4]
    assert data.fingerprint != same
    data = load()
    data.blanks["test"].pop()
    assert data.fingerprint != same != load("disjoint").fingerprint


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            {"dataset": "shoes"},
            "parameter 'dataset' is 'shoes': it must be one of wardrobe, polyvore",
        ),
        ({"dataset": "polyvore"}, "root is empty: give the folder of polyvore"),
        ({"method": "pan"}, "method is 'pan': it must be one of pan_supervised, pan_hybrid, "),
        ({"encoder": "cnn"}, "parameter 'encoder' is 'cnn': it must be one of graph, linear, none"),
        ({"rule": "nand"}, "parameter 'rule' is 'nand': it must be one of and, or, xor, xnor"),
        (
            {"outfits_split": "open"},
            "parameter 'outfits_split' is 'open': it must be one of nondisjoint, disjoint",
        ),
        ({"size": 225, "resize": 224}, "size is 225 and resize is 224"),
        ({"hidden": []}, "hidden is []: give the units of one layer or more"),
        ({"dropout": 1.0}, "dropout is 1.0: it is a share"),
        ({"message_share": -0.1}, "message_share is -0.1: it is a share"),
        ({"free": 0}, "free is 0: it must be at least 1"),
        ({"epochs": 0}, "epochs is 0: it must be at least 1"),
        ({"neighbours": -1}, "neighbours is -1: it must be at least 0"),
        (
            {"hard_negatives": 0.5},
            "hard_negatives is 0.5: what goes well together need not be alike",
        ),
        ({"cosine_weight": 5.0}, "cosine_weight is 5.0: what goes well together need not be alike"),
        ({"pairs": 10}, "pairs is 10: a step learns from all edges, so outfits take 0 alone"),
        ({"attribute_weight": -1.0}, "attribute_weight is -1.0: it must be at least 0"),
        ({"lr": 0.0}, "lr is 0.0: it must be positive"),
        ({"precision": "half"}, "parameter 'precision' is 'half': it must be one of auto, "),
        ({"epochs": 1.5}, "parameter 'epochs' is 1.5: it must be a whole number"),
        ({"neighbors": 1}, "unknown parameter 'neighbors': did you mean 'neighbours'?"),
        (
            {"generated": {"itms": 5}},
            "generated: wardrobe has no option 'itms': did you mean 'items'?",
        ),
    ],
)
def test_parameters_that_cannot_be(changes, message):
    with pytest.raises(ValueError) as error:
        parse(Parameters, changes)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_from_the_command_line(wardrobe, tmp_path, capsys):
    given = {**SMALL, "root": str(wardrobe), "out": str(tmp_path / "run"), "epochs": 2}
    assert OutfitMatching.main(arguments(given)) == 0
    assert "fitb 0." in capsys.readouterr().out
    assert read_result(tmp_path / "run")["status"] == "complete"
    assert OutfitMatching.main(["method=none"]) == 2
    assert capsys.readouterr().err.startswith("outfits: method is 'none': it must be one of")
    missing = {**given, "root": str(tmp_path / "nowhere")}
    assert OutfitMatching.main(arguments(missing)) == 1
    assert len(capsys.readouterr().err.strip().split("\n")[0]) > 20


# Type-aware embeddings

TYPES = {"method": "type_aware", "epochs": 2, "evaluate_every": 1, "batch_size": 8, "triplets": 24}


def test_type_aware_embeddings_answer_by_their_distances(wardrobe, tmp_path):
    e, history, scores = run(OutfitMatching(parameters(wardrobe, tmp_path / "run", **TYPES)))
    assert len(history.epochs) == 2 and 0 < scores.metrics["fitb"] < 1
    data, method = e.outfits, e.method.eval()
    raw = embed_all(Unscaled(method), e.pixels, e.test_views)
    masks = method.masks.detach()

    def similarity(i, j):
        mask = masks[tuple(sorted((int(e.types[i]), int(e.types[j]))))]
        sides = [raw[n] * mask / (raw[n] * mask).norm() for n in (i, j)]
        return 1 - (sides[0] - sides[1]).norm().item() / 2

    for question, score in zip(
        data.compatibility["test"], scores.saved["outfits/test/1"].tolist(), strict=True
    ):
        pairs = [similarity(i, j) for i, j in combinations(question.items, 2)]
        assert score == pytest.approx(sum(pairs) / len(pairs), abs=1e-4)
    e.finish(history, scores)
    measured_again(OutfitMatching, tmp_path / "run")
    loaded = load_run(tmp_path / "run", "cpu")
    torch.testing.assert_close(loaded.representation(e.images([5])), raw[5:6], rtol=1e-3, atol=1e-4)


def test_what_a_type_aware_network_learned_may_be_the_features(wardrobe, tmp_path):
    given = {"embedding_settings": {n: v for n, v in TYPES.items() if n != "method"}}
    e, history, scores = run(OutfitMatching(parameters(wardrobe, tmp_path / "run", **given)))
    assert e.network.standardise.mean.shape == (64,) and e.network.sees_graph
    assert json.loads(e.finish(history, scores).read_text())["embedding"]["method"] == "type_aware"
    loaded = load_run(tmp_path / "run", "cpu")
    features = loaded.features(e.images([5]))
    torch.testing.assert_close(features, e.features[5:6], rtol=1e-3, atol=1e-3)


def test_triplets_of_outfits_are_items_worn_together_and_one_of_that_type_that_is_not(
    wardrobe, tmp_path
):
    e = OutfitMatching(parameters(wardrobe, tmp_path / "run", **{**TYPES, "triplets": 0}))
    edges = {frozenset(edge) for edge in e.training_items[e.edges].tolist()}
    met = []
    for step, batch in enumerate(e.stream.plan(0)):
        for item, positive, negative in e.stream.pictures(batch, step).tolist():
            met.append(frozenset((item, positive)))
            assert e.types[positive] == e.types[negative] and negative != item
            assert frozenset((item, negative)) not in edges
    assert len(met) == len(set(met)) and set(met) <= edges and len(edges) - len(met) < 8
    first, second = e.stream.epoch(0), e.stream.epoch(0, start=1)
    next(first)
    for batch, again in zip(first, second, strict=True):
        assert all(torch.equal(batch[name], again[name]) for name in batch)
        assert torch.equal(batch["types"][:, 0], e.types[batch["index"]])


def test_a_type_aware_run_stopped_and_resumed_ends_as_a_straight_one(wardrobe, tmp_path):
    straight = run(OutfitMatching(parameters(wardrobe, tmp_path / "straight", **TYPES)))
    stopped = OutfitMatching(parameters(wardrobe, tmp_path / "stopped", **TYPES))
    interrupt(stopped.method, 4)
    with pytest.raises(Interrupted):
        stopped.train()
    resumed = run(OutfitMatching(parameters(wardrobe, tmp_path / "stopped", **TYPES)))
    assert resumed[2].metrics == straight[2].metrics
    assert_same_weights(resumed[0].method, straight[0].method)


def test_types_that_are_not_told_are_asked_for(wardrobe, tmp_path):
    bare = tmp_path / "bare"
    shutil.copytree(wardrobe, bare)
    (bare / "polyvore_outfits" / "polyvore_item_metadata.json").unlink()
    with pytest.raises(ValueError, match="type_aware needs the items' categories, and there are"):
        OutfitMatching(parameters(bare, tmp_path / "run", **TYPES))
    with pytest.raises(
        ValueError, match="end_to_end is 2: what graph encoders see are other items"
    ):
        parameters(bare, tmp_path / "run", end_to_end=2)
