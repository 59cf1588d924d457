import copy
import json
import math
import shutil
from itertools import combinations

import pytest
import torch
from fieldguide.garments.wardrobe import make_wardrobe
from fieldlab.cards.finished import FinishedRun
from fieldlab.report.verify import differences
from fieldmarks.data.layouts import polyvore
from fieldmarks.evaluation.outfits import auc_interval
from fieldmarks.experiments import common, outfit_network, outfits, outfits_figures
from fieldmarks.experiments.common import draw_wardrobe
from fieldmarks.experiments.outfit_network import OutfitNetwork, outfit_edges
from fieldmarks.experiments.outfits import Parameters
from fieldmarks.experiments.parameters import parse
from fieldmarks.experiments.result import read_result
from fieldmarks.methods.graph_encoder import Graph

SMALL = {
    "resize": 32,
    "size": 32,
    "backbone": "resnet10t",
    "weights": "none",
    "hidden": (8, 6),
    "concepts": 3,
    "steps": 6,
    "evaluate_every": 2,
    "lr": 0.02,
    "progress": "none",
    "device": "cpu",
    "precision": "fp32",
}


@pytest.fixture(scope="module")
def wardrobe(tmp_path_factory):
    return make_wardrobe(
        tmp_path_factory.mktemp("data") / "wardrobe",
        outfits=200,
        items=150,
        size=32,
        shots=2,
        seed=0,
    )


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FIELDMARKS_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def parameters(root, out, **changes):
    return Parameters(**{**SMALL, "root": str(root), "out": str(out), **changes})


def run(p, **others):
    experiment = outfits.prepare(p)
    history = outfits.train(experiment)
    return experiment, history, outfits.evaluate(experiment, **{"resamples": 200, **others})


def naive_auc(scores, labels) -> float:
    wins = [
        1.0 if one > other else 0.5 if one == other else 0.0
        for one, positive in zip(scores, labels)
        if positive
        for other, kind in zip(scores, labels)
        if not kind
    ]
    return sum(wins) / len(wins)


def naive_fitb(scores, answers) -> float:
    hits = [(row[answer] == max(row)) / row.count(max(row)) for row, answer in zip(scores, answers)]
    return sum(hits) / len(hits)


def test_from_data_to_result(wardrobe, tmp_path):
    experiment, history, answers = run(parameters(wardrobe, tmp_path / "run"), resamples=2000)
    data = experiment.outfits
    for part, end in (("test", ""), ("test resampled", "_resampled")):
        for k in (0, 1):
            metrics = {name: answers.metrics[f"{name}{end}_k{k}"] for name in ("fitb", "auc")}
            right = [question.answer for question in data.blanks[part]]
            assert metrics["fitb"] == pytest.approx(
                naive_fitb(answers.choices[part, k].tolist(), right)
            )
            kinds = [question.label for question in data.compatibility[part]]
            assert metrics["auc"] == pytest.approx(
                naive_auc(answers.outfits[part, k].tolist(), kinds)
            )
    result = json.loads(
        outfits.finish(experiment, history, answers, [], notebook="pan_outfits.ipynb").read_text()
    )
    assert (
        result["method"] == "pan_supervised-GE"
        and result["dataset"] == "wardrobe"
        and result["metrics"] == answers.metrics
    )
    assert list(answers.metrics)[:4] == ["fitb", "fitb_resampled", "auc", "auc_resampled"]
    for name, (low, high) in result["intervals"].items():
        assert (
            low <= answers.metrics[name] <= high
            and answers.metrics[name] == answers.metrics[f"{name}_k1"]
        )
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
    assert set(result["curves"]["epochs"][0]) == {"epoch", "similarity", "attributes", "lr"}
    assert parse(Parameters, result["parameters"]) == experiment.parameters
    assert (
        differences(FinishedRun(tmp_path / "run", read_result(tmp_path / "run"))) == []
    )  # what is saved gives them again
    saved = outfits.load_answers(tmp_path / "run", result)
    assert saved.metrics == answers.metrics and saved.choices.keys() == answers.choices.keys()
    assert all(torch.equal(saved.outfits[key], answers.outfits[key]) for key in answers.outfits)


def test_scores_are_means_over_pairs_of_what_the_head_says_of_two_items(wardrobe, tmp_path):
    """With an encoder that sees items alone, K changes nothing, and question by question can be counted by hand."""
    experiment, _, answers = run(parameters(wardrobe, tmp_path, encoder="linear"))
    with torch.no_grad():
        encoded = experiment.network.encode(experiment.features)
        score = [experiment.network.score(one, encoded).tolist() for one in encoded]
    for part in ("test", "test resampled"):
        for question, found in zip(
            experiment.outfits.compatibility[part], answers.outfits[part, 0].tolist()
        ):
            pairs = list(combinations(question.items, 2))
            assert found == pytest.approx(sum(score[i][j] for i, j in pairs) / len(pairs), abs=1e-5)
        for question, found in zip(
            experiment.outfits.blanks[part], answers.choices[part, 0].tolist()
        ):
            sums = [sum(score[i][choice] for i in question.question) for choice in question.choices]
            assert found == pytest.approx(
                [each / len(question.question) for each in sums], abs=1e-5
            )
        assert torch.equal(answers.choices[part, 0], answers.choices[part, 1])


def test_a_graph_encoder_sees_the_test_outfits_and_only_at_k_1_beyond_the_question(
    wardrobe, tmp_path
):
    experiment = outfits.prepare(parameters(wardrobe, tmp_path))
    data, test = experiment.outfits, experiment.outfits.outfits["test"]
    together = {frozenset(pair) for outfit in test for pair in combinations(outfit, 2)}
    for k in (0, 1):
        blanks, whole = outfits.contexts(experiment, "test", k)
        for question, context in zip(data.compatibility["test"], whole):
            edges = {frozenset(context.items[end] for end in edge) for edge in context.edges}
            assert edges <= together and not any(edge <= set(question.items) for edge in edges)
            assert len(context.edges) <= k * len(question.items)
        for question, context in zip(data.blanks["test"], blanks):
            within = {frozenset(pair) for pair in combinations(question.question, 2)}
            edges = {frozenset(context.items[end] for end in edge) for edge in context.edges}
            assert within <= edges and edges <= together | within
            assert not any(
                edge & set(question.question) and edge & set(question.choices)
                for edge in edges - within
            )
            assert k or edges == within
    assert outfits.contexts(experiment, "valid", 1) is outfits.contexts(
        experiment, "valid", 1
    )  # built once


def test_the_degree_baseline_counts_visible_edges(wardrobe, tmp_path):
    experiment = outfits.prepare(parameters(wardrobe, tmp_path))
    test = experiment.outfits.outfits["test"]
    choices, scores = outfits.degree_answers(experiment, "test")
    for question, score in zip(experiment.outfits.compatibility["test"], scores.tolist()):
        own = set(question.items)
        outside = [
            any(item in outfit and set(outfit) - own for outfit in test) for item in question.items
        ]
        assert score == pytest.approx(-sum(outside) / len(outside))
    for question, row in zip(experiment.outfits.blanks["test"], choices.tolist()):
        edges = set()
        for choice in question.choices:
            worn_with = (
                {other for outfit in test if choice in outfit for other in outfit}
                - {choice}
                - set(question.question)
            )
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
    assert again == pytest.approx([low, high], abs=0.03)
    assert auc_interval(labels, labels, 50) == [1, 1] and auc_interval(0 * labels, labels, 50) == [
        0.5,
        0.5,
    ]


def test_one_step_over_chunks_is_one_step_over_all_pairs(monkeypatch):
    """Against plain autograd through the encoder and the head at once."""
    generator = torch.Generator().manual_seed(0)
    features, labels = (
        torch.randn(12, 5, generator=generator),
        (torch.rand(12, 4, generator=generator) < 0.4).float(),
    )
    labels[3], labels[5, 1] = math.nan, math.nan
    pairs = torch.randint(0, 12, (23, 2), generator=generator)
    same, graph = (
        (torch.arange(23) % 2).float(),
        Graph.of(torch.tensor([[0, 1], [1, 2], [4, 7]]), 12),
    )
    torch.manual_seed(0)
    network = OutfitNetwork("pan_hybrid", 5, 4, hidden=(6, 3), dropout=0.5, concepts=2, weight=3.0)
    plain = copy.deepcopy(network)
    monkeypatch.setattr(outfit_network, "CHUNK", 5)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    terms = outfit_network.step(
        network,
        optimizer,
        features,
        graph,
        pairs,
        same,
        labels,
        torch.Generator().manual_seed(3),
        0.2,
    )

    draws = torch.Generator().manual_seed(3)
    encoded = plain.encode(features, graph.support(0.2, draws), draws)
    a, b = pairs.T
    whole = plain.head.losses(encoded[a], encoded[b], same, labels[a], labels[b])
    sum(whole.values()).backward()
    assert terms.keys() == whole.keys()
    for name, value in whole.items():
        assert terms[name].item() == pytest.approx(value.item(), rel=1e-5)
    for (name, one), other in zip(network.named_parameters(), plain.parameters()):
        torch.testing.assert_close(one, other - 0.1 * other.grad, rtol=1e-4, atol=1e-6, msg=name)


def test_edges_join_items_of_one_outfit_once():
    assert outfit_edges([[2, 0, 1], [1, 0], [3, 3, 2], [4]]).tolist() == [
        [0, 1],
        [0, 2],
        [1, 2],
        [2, 3],
    ]
    assert outfit_edges([]).shape == (0, 2)


def test_the_best_by_validation_is_kept_and_the_seed_decides_everything(wardrobe, tmp_path):
    first, history, answers = run(parameters(wardrobe, tmp_path / "a"))
    best = max(history.evaluations, key=lambda row: row["validation"])
    assert outfits.validate(first) == {name: best[name] for name in ("fitb", "auc", "validation")}
    assert best["validation"] == (best["fitb"] + best["auc"]) / 2
    _, again, same = run(parameters(wardrobe, tmp_path / "b"))
    assert again.epochs == history.epochs and same.metrics == answers.metrics
    _, other, _ = run(parameters(wardrobe, tmp_path / "c", seed=1))
    assert other.epochs != history.epochs


@pytest.mark.parametrize("method", outfit_network.METHODS)
@pytest.mark.parametrize("encoder", ["graph", "none"])
def test_every_method_goes_through_the_same_steps(wardrobe, tmp_path, method, encoder):
    experiment, history, answers = run(
        parameters(wardrobe, tmp_path, method=method, encoder=encoder, steps=2, neighbours=0)
    )
    attributes = method in outfit_network.WITH_ATTRIBUTES
    if method == "cosine":
        assert not history.epochs
    else:
        assert set(history.epochs[0]) == {"epoch", "similarity", *["attributes"] * attributes, "lr"}
    assert answers.metrics["auc"] == answers.metrics["auc_k0"] and "auc_k1" in answers.metrics
    assert all(0 <= value <= 1 for value in answers.metrics.values())
    pairs, captions = outfits_figures.some_pairs(experiment)
    for heat in outfits_figures.pair_maps(experiment, pairs):
        assert heat.shape == (4, 32, 32) and heat.min() >= 0 and heat.max() <= 1


def test_cosine_is_the_cosine_of_standardised_features(wardrobe, tmp_path):
    experiment, _, answers = run(parameters(wardrobe, tmp_path, method="cosine"))
    items = experiment.features[experiment.training_items]
    torch.testing.assert_close(items.mean(0), torch.zeros(items.shape[1]), atol=1e-4, rtol=0)
    question = experiment.outfits.compatibility["test"][3]
    unit = [experiment.features[i] / experiment.features[i].norm() for i in question.items]
    values = [(one @ other).item() for one, other in combinations(unit, 2)]
    assert answers.outfits["test", 0][3].item() == pytest.approx(
        sum(values) / len(values), abs=1e-5
    )


def test_the_maps_are_taken_through_the_features_that_were_learnt_from(wardrobe, tmp_path):
    experiment = outfits.prepare(parameters(wardrobe, tmp_path))
    with torch.no_grad():
        own = experiment.network.standardise(
            experiment.backbone(experiment.images([4, 9])).mean((2, 3))
        )
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
    experiment, history, _ = run(parameters(editable, tmp_path / "run"))
    unknown = experiment.outfits.attributes.isnan().all(1)
    assert 50 < unknown.sum() < 100 and math.isfinite(history.epochs[-1]["attributes"])
    file.unlink()
    with pytest.raises(FileNotFoundError, match="polyvore_attributes.json"):
        outfits.prepare(parameters(editable, tmp_path / "none"))
    assert not (tmp_path / "none").exists()
    _, history, _ = run(parameters(editable, tmp_path / "free", method="pan_unsupervised"))
    assert set(history.epochs[0]) == {"epoch", "similarity", "lr"}


def test_without_validation_questions_nothing_starts(editable, tmp_path):
    (editable / "polyvore_outfits" / "nondisjoint" / "fill_in_blank_valid.json").unlink()
    with (
        pytest.warns(UserWarning, match="partial copy"),
        pytest.raises(ValueError, match="have no 'valid'"),
    ):
        outfits.prepare(parameters(editable, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_the_disjoint_split_has_no_resampled_questions(wardrobe, tmp_path):
    experiment, _, answers = run(parameters(wardrobe, tmp_path, outfits_split="disjoint", steps=2))
    tested = {item for outfit in experiment.outfits.outfits["test"] for item in outfit}
    assert not tested & set(experiment.training_items.tolist())
    assert not [name for name in answers.metrics if "resampled" in name] and set(
        answers.intervals
    ) == {"fitb", "auc"}


def test_what_a_run_is_held_against(wardrobe, tmp_path):
    common = {"steps": 2, "evaluate_every": 2}
    baseline = run(parameters(wardrobe, tmp_path / "runs" / "b", method="multitask", **common))
    experiment, history, answers = run(parameters(wardrobe, tmp_path / "runs" / "a", **common))
    assert outfits.compare_with(experiment) is None and outfits.sibling_runs(experiment) == []
    outfits.finish(*baseline, [], "")
    name, found = outfits.compare_with(experiment)
    assert name == "multitask-GE" and found.metrics == baseline[2].metrics
    outfits.finish(experiment, history, answers, [], "")
    asked = outfits.prepare(
        parameters(wardrobe, tmp_path / "c", baseline=str(tmp_path / "runs" / "a"), **common)
    )
    assert outfits.compare_with(asked)[0] == "pan_supervised-GE"
    unfinished = outfits.prepare(parameters(wardrobe, tmp_path / "d", baseline=str(tmp_path / "c")))
    with pytest.raises(ValueError, match="is not a finished run"):
        outfits.compare_with(unfinished)
    other = outfits.prepare(
        parameters(
            wardrobe,
            tmp_path / "e",
            baseline=str(tmp_path / "runs" / "a"),
            outfits_split="disjoint",
        )
    )
    with pytest.raises(ValueError, match="was made on other data"):
        outfits.compare_with(other)


def test_the_fingerprint_is_that_of_items_questions_and_attributes(wardrobe):
    data = polyvore.load(wardrobe, name="wardrobe")
    same = outfits.fingerprint(polyvore.load(wardrobe, name="wardrobe"))
    assert outfits.fingerprint(data) == same and len(same) == 16
    data.attributes[3, 4] = 1 - data.attributes[3, 4]
    assert outfits.fingerprint(data) != same
    data = polyvore.load(wardrobe, name="wardrobe")
    data.blanks["test"].pop()
    assert (
        outfits.fingerprint(data)
        != same
        != outfits.fingerprint(polyvore.load(wardrobe, "disjoint", name="wardrobe"))
    )


def test_a_wardrobe_by_its_words(tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(
        common,
        "make_wardrobe",
        lambda folder, progress, **numbers: made.append((folder.name, numbers)),
    )
    draw_wardrobe("150 items, 200 outfits, 32 px, seed 7")
    assert made == [
        ("wardrobe-150x200-32px-7", {"items": 150, "outfits": 200, "size": 32, "seed": 7})
    ]
    for words in (
        "150 items",
        "150 things, 200 outfits, 32 px, seed 7",
        "150 items, 200 outfits, 32 px, seed 7, hard",
        "x items, 200 outfits, 32 px, seed 7",
        "150  items, 200 outfits, 32 px, seed 7",
    ):
        with pytest.raises(
            ValueError, match="write it as '600 items, 1000 outfits, 128 px, seed 0'"
        ):
            draw_wardrobe(words)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"dataset": "shoes"}, "dataset is 'shoes': it must be one of wardrobe, polyvore"),
        ({"dataset": "polyvore"}, "root is empty: give the folder of polyvore"),
        (
            {"method": "pan"},
            "method is 'pan': it must be one of pan_unsupervised, pan_supervised, pan_hybrid, multitask",
        ),
        ({"encoder": "cnn"}, "encoder is 'cnn': it must be one of graph, linear, none"),
        ({"rule": "nand"}, "rule is 'nand': it must be one of and, or, xor, xnor"),
        (
            {"outfits_split": "open"},
            "outfits_split is 'open': it must be one of nondisjoint, disjoint",
        ),
        ({"size": 129}, "size is 129 and resize is 128"),
        ({"hidden": []}, "hidden is []: give the units of one layer or more"),
        ({"dropout": 1.0}, "dropout is 1.0: it is a share"),
        ({"message_share": -0.1}, "message_share is -0.1: it is a share"),
        ({"concepts": 0}, "concepts is 0: it must be at least 1"),
        ({"steps": 0}, "steps is 0: it must be at least 1"),
        ({"neighbours": -1}, "neighbours is -1: it must not be negative"),
        ({"attribute_weight": -1.0}, "attribute_weight is -1.0: it must not be negative"),
        ({"lr": 0.0}, "lr is 0.0: it must be positive"),
        ({"precision": "half"}, "precision is 'half'"),
        ({"steps": 1.5}, "parameter 'steps' is 1.5: it must be a whole number"),
        ({"neighbors": 1}, "unknown parameter 'neighbors': did you mean 'neighbours'?"),
    ],
)
def test_parameters_that_cannot_be(changes, message):
    with pytest.raises(ValueError) as error:
        parse(Parameters, changes)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_from_the_command_line(wardrobe, tmp_path, capsys):
    words = [
        f"{name}={json.dumps(value) if not isinstance(value, str) else value}"
        for name, value in SMALL.items()
    ]
    assert outfits.main([*words, f"root={wardrobe}", f"out={tmp_path / 'run'}", "steps=2"]) == 0
    assert (
        "fitb 0." in capsys.readouterr().out
        and read_result(tmp_path / "run")["status"] == "complete"
    )
    assert outfits.main(["method=none"]) == 2
    assert capsys.readouterr().err.startswith("outfits: method is 'none': it must be one of")
    assert outfits.main([*words, f"root={tmp_path / 'nowhere'}"]) == 1
    assert len(capsys.readouterr().err.strip().split("\n")[0]) > 20
