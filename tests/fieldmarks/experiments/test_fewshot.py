import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from fieldguide.birds.guide import make_fieldguide
from fieldmarks import load_run
from fieldmarks.checkpoints import load_checkpoint
from fieldmarks.data import catalog
from fieldmarks.data.imageset import ImageSet
from fieldmarks.evaluation.episodes import prototype_scores, sample_episodes
from fieldmarks.evaluation.outfits import mean_area_under_curves
from fieldmarks.experiments import fewshot
from fieldmarks.experiments.features import Unscaled
from fieldmarks.experiments.fewshot import CLASSIFIERS, SEEDS, UNTRAINED, FewShot, Parameters
from fieldmarks.experiments.open_set import OpenSet
from fieldmarks.experiments.pairs import HEADS, PairMethod, pair_table, random_pairs
from fieldmarks.experiments.parameters import parse
from fieldmarks.experiments.result import read_result
from fieldmarks.files import release
from fieldmarks.methods.pan import pair_labels
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
    "resize": 64,
    "size": 48,
    "backbone": "resnet10t",
    "weights": "none",
    "hidden": (8,),
    "free": 5,
    "epochs": 4,
    "lr": 0.01,
    "evaluate_every": 2,
    "ways": 2,
    "shots": 2,
    "queries": 3,
    "episodes": 12,
    "validation_episodes": 6,
    "progress": "none",
    "device": "cpu",
    "precision": "fp32",
}


MENDS = {"cosine_weight": 5.0, "hard_negatives": 0.5, "relevance_weight": 0.1}


@pytest.fixture(scope="module")
def birds(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "birds"
    return make_fieldguide(folder, classes=12, images=6, size=64, seed=0)


def parameters(root, out, **changes):
    return Parameters(**{**SMALL, "root": str(root), "out": str(out), **changes})


def naive_accuracies(e):
    """Sec. 3: a query belongs to the class to whose supports it is most similar on average."""
    accuracies = []
    with torch.no_grad():
        encoded = e.network.encode(e.novel.features)

        def similarity(i, j):
            return e.network.score(encoded[i], encoded[j]).item()

        for support, query in zip(*e.episodes, strict=True):
            right = 0
            for own, queries in enumerate(query.tolist()):
                for row in queries:
                    means = [
                        sum(similarity(row, other) for other in supports) / len(supports)
                        for supports in support.tolist()
                    ]
                    right += max(range(len(means)), key=means.__getitem__) == own
            accuracies.append(right / query.numel())
    return accuracies


@pytest.mark.parametrize("method", ["pan_supervised", "attribute_similarity"])
def test_from_data_to_result(birds, tmp_path, method):
    experiment, history, scores = run(FewShot(parameters(birds, tmp_path / "run", method=method)))
    expected = naive_accuracies(experiment)
    assert scores.values["accuracy"].tolist() == pytest.approx(expected)
    assert not (tmp_path / "run" / "result.json").exists()
    result = json.loads(experiment.finish(history, scores).read_text())
    assert result["experiment"] == "fewshot" and result["method"] == method
    assert result["dataset"] == "fieldguide"
    assert result["metrics"]["accuracy"] == pytest.approx(sum(expected) / 12)
    low, high = result["intervals"]["accuracy"]
    assert low <= result["metrics"]["accuracy"] <= high
    assert result["counts"] == {
        "train": 36,
        "query": 72,
        "gallery": 48,
        "classes": 3,
        "train_classes": 6,
    }
    assert all(0 <= value <= 1 for value in result["metrics"].values())
    assert result["best"]["epoch"] in (2, 4)
    assert result["attribute_names"] == experiment.base.images.attribute_names
    known = experiment.base.images.attributes
    assert all({0.0, 1.0} <= set(column.tolist()) for column in known.T)
    names = experiment.load_images().attribute_names
    assert sorted(result["attribute_names"] + result["constant_attributes"]) == sorted(names)
    assert "certainty is 3 or more" in result["attributes"]
    assert list(result["above"]) == ["protonet", "cosine"]
    assert parse(Parameters, result["parameters"]) == experiment.parameters
    measured_again(FewShot, tmp_path / "run")


def test_what_is_saved_gives_the_metrics_again(birds, tmp_path):
    experiment, history, scores = run(FewShot(parameters(birds, tmp_path / "run")))
    experiment.finish(history, scores)
    saved = measured_again(FewShot, tmp_path / "run").saved
    right = saved["class_scores"].argmax(2).view(saved["query"].shape) == torch.arange(2)[:, None]
    assert right.double().mean((1, 2)).tolist() == pytest.approx(saved["accuracies"].tolist())
    metrics = scores.metrics
    for name in ("", "_protonet", "_cosine"):
        mean = saved[f"accuracies{name}"].mean().item()
        assert mean == pytest.approx(metrics[f"accuracy{name}"])
    weights = load_checkpoint(tmp_path / "run" / "best.pt")["method"]
    assert torch.equal(weights["standardise.mean"], experiment.method.standardise.mean)
    assert torch.equal(weights["encoder.weight"], experiment.method.encoder.weight)


@pytest.mark.parametrize("method", [*HEADS, *CLASSIFIERS])
def test_every_method_goes_through_the_same_steps(birds, tmp_path, method):
    p = parameters(birds, tmp_path / "run", method=method, epochs=1)
    experiment, history, scores = run(FewShot(p))
    assert len(history.epochs) == (method in HEADS)
    assert scores.saved["class_scores"].shape == (12, 6, 2)
    assert 0 <= scores.metrics["accuracy"] <= 1
    assert ("concept_auc" in scores.metrics) == (method in ("pan_supervised", "pan_hybrid"))
    if method in UNTRAINED:
        assert torch.equal(scores.values["accuracy"], scores.values[f"accuracy_{method}"])
        assert experiment.details(scores, history)["above"][method] == [0, 0, 0]


@pytest.mark.parametrize("mends", [{}, MENDS])
def test_a_run_stopped_and_resumed_ends_as_a_straight_one(birds, tmp_path, mends):
    straight, history, scores = run(FewShot(parameters(birds, tmp_path / "straight", **mends)))
    stopped = FewShot(parameters(birds, tmp_path / "stopped", **mends))
    interrupt(stopped.method, 3)
    with pytest.raises(Interrupted, match="stopped after epoch 3 of 4; saved"):
        stopped.train()
    resumed, again, same = run(FewShot(parameters(birds, tmp_path / "stopped", **mends)))
    assert again.evaluations == history.evaluations and same.metrics == scores.metrics
    assert torch.equal(same.saved["class_scores"], scores.saved["class_scores"])
    assert_same_weights(straight.method, resumed.method)


@pytest.mark.parametrize("mends", [{}, MENDS])
def test_a_finished_run_comes_back_as_it_was_trained(birds, tmp_path, mends):
    experiment, history, scores = run(FewShot(parameters(birds, tmp_path / "run", **mends)))
    experiment.finish(history, scores)
    method = load_run(tmp_path / "run", "cpu")
    assert not method.training and method.attribute_names == experiment.attribute_names
    with torch.no_grad():
        embedded = method.embed(experiment.novel_images(range(8)))
        expected = experiment.method.encode(experiment.novel.features)
        torch.testing.assert_close(embedded, expected[:8], rtol=1e-4, atol=1e-4)
        similarity = method.score(embedded[0], embedded[1:])
        own = experiment.method.score(expected[0], expected[1:8])
    torch.testing.assert_close(similarity, own, rtol=1e-4, atol=1e-5)
    folder = finish(FewShot(parameters(birds, tmp_path / "protonet", method="protonet")))
    with pytest.raises(ValueError, match="is a run of protonet, which has no trained network"):
        load_run(folder, "cpu")


def test_the_weights_that_are_kept_are_the_best_on_validation_classes(birds, tmp_path):
    _, history, scores = run(FewShot(parameters(birds, tmp_path / "run", epochs=8)))
    assert scores.metrics["accuracy_validation"] == history.best("accuracy")["accuracy"]


def test_episodes_are_the_same_for_all_and_pairs_are_the_seeds(birds, tmp_path):
    first, again, other = (
        run(FewShot(parameters(birds, tmp_path / str(number), seed=seed)))
        for number, seed in enumerate((0, 0, 1))
    )
    assert torch.equal(first[2].saved["class_scores"], again[2].saved["class_scores"])
    assert not torch.equal(first[2].saved["class_scores"], other[2].saved["class_scores"])
    assert torch.equal(first[2].asked, other[2].asked)
    for name in ("episodes", "validation_episodes"):
        for one, two in zip(getattr(first[0], name), getattr(other[0], name), strict=True):
            assert torch.equal(one, two)


def test_features_are_standardised_by_the_base_classes_alone(birds, tmp_path):
    e = FewShot(parameters(birds, tmp_path / "run"))
    standardise, features = e.method.standardise, e.base.features
    raw = features * standardise.deviation + standardise.mean
    zero = torch.zeros(raw.shape[1])
    torch.testing.assert_close(features.mean(0), zero, atol=1e-4, rtol=0)
    deviations = features.std(0)[raw.std(0) > 0]
    torch.testing.assert_close(deviations, torch.ones(len(deviations)), atol=1e-3, rtol=0)
    torch.testing.assert_close(standardise(raw), features, atol=1e-4, rtol=1e-3)
    assert e.novel.features.isfinite().all()


# Encoders


def test_a_transformer_of_the_kind_of_dinov2_gives_features(birds, tmp_path):
    network = {"backbone": "vit_small_patch14_dinov2", "weights": "none", "size": 42}
    given = {**network, "epochs": 1, "end_to_end": 1, "batch_size": 4, "per_class": 2}
    e, history, scores = run(FewShot(parameters(birds, tmp_path / "run", **given)))
    assert e.novel.features.shape == (18, 384) and len(history.epochs) == 2
    tokens = e.backbone.network.forward_features(e.novel_images(range(18)))[:, 1:]  # no class token
    expected = e.network.standardise(tokens.mean(1).detach())
    torch.testing.assert_close(e.novel.features, expected, atol=1e-3, rtol=1e-3)


TRIPLETS = {"method": "triplet", "epochs": 1, "batch_size": 4, "triplets": 8, "lr": 0.01}
END_TO_END = {"epochs": 1, "end_to_end": 2, "batch_size": 8, "per_class": 2, "hidden": (8,)}


def test_an_encoder_is_trained_first_and_once_for_all_that_ask_for_the_same(birds, tmp_path):
    given = {"embedding_settings": TRIPLETS, "epochs": 1}
    e = FewShot(parameters(birds, tmp_path / "a", **given))
    (folder,) = (tmp_path / "embeddings").iterdir()
    result, written = read_result(folder), (folder / "last.pt").stat().st_mtime_ns
    assert result["method"] == "triplet" and result["parameters"]["split"] == "few_shot"
    assert result["data_fingerprint"].split()[0] == e.base.images.fingerprint
    raw = embed_all(Unscaled(load_run(folder, "cpu")), e.novel.pixels, e.test_views)
    torch.testing.assert_close(e.network.standardise(raw), e.novel.features, atol=1e-4, rtol=1e-3)
    _, history, scores = run(e)
    told = json.loads(e.finish(history, scores).read_text())["embedding"]
    assert told["method"] == "triplet" and told["metrics"] == result["metrics"]
    assert told["train_seconds"] > 0
    finish(FewShot(parameters(birds, tmp_path / "b", **given, method="baseline++")))
    assert [one.name for one in (tmp_path / "embeddings").iterdir()] == [folder.name]
    assert (folder / "last.pt").stat().st_mtime_ns == written
    other = FewShot(parameters(birds, tmp_path / "c", embedding=str(folder)))
    assert torch.equal(other.novel.features, e.novel.features)
    with torch.no_grad():
        embedded = load_run(tmp_path / "a", "cpu").embed(e.novel_images([3]))
        expected = e.network.encode(e.novel.features[3:4])
    torch.testing.assert_close(embedded, expected, rtol=1e-3, atol=1e-3)


def test_an_encoder_that_may_know_the_novel_classes_is_refused(birds, tmp_path):
    given = {**TRIPLETS, "split": "open"}
    with pytest.raises(ValueError, match="learned from other images of fieldguide than this run"):
        FewShot(parameters(birds, tmp_path / "run", embedding_settings=given))
    assert not (tmp_path / "run").exists()
    assert not list(tmp_path.rglob("*.pt"))  # it has not been trained for that


def test_an_encoder_that_was_trained_anew_is_not_taken_for_the_one_before(birds, tmp_path):
    names = ("backbone", "weights", "resize", "size", "device", "progress", "precision")
    inner = {name: SMALL[name] for name in names} | TRIPLETS
    inner |= {"split": "few_shot", "root": str(birds), "out": str(tmp_path / "encoder")}
    train = lambda seed: finish(OpenSet(parse(OpenSet.Parameters, inner | {"seed": seed})))
    given = {"embedding": str(train(0)), "epochs": 6, "evaluate_every": 2}
    experiment = FewShot(parameters(birds, tmp_path / "half", **given))
    interrupt(experiment.method, 3)
    with pytest.raises(Interrupted):
        experiment.train()
    whole = finish(FewShot(parameters(birds, tmp_path / "whole", **given)))
    load_run(whole, "cpu")

    shutil.rmtree(tmp_path / "encoder")
    release(tmp_path / "encoder"), release(tmp_path / "half")
    train(5)
    with pytest.raises(ValueError, match="last.pt' comes from other parameters: embedder"):
        FewShot(parameters(birds, tmp_path / "half", **given)).train()
    with pytest.raises(ValueError, match="embedding '.*encoder' has been trained anew since"):
        load_run(whole, "cpu")


@pytest.mark.parametrize("restored", [True, False])
def test_what_was_measured_comes_back_be_it_the_best_epoch_or_the_last(birds, tmp_path, restored):
    given = {"lr": 0.3, "epochs": 8, "evaluate_every": 1, "restore_best": restored}
    e = FewShot(parameters(birds, tmp_path / "run", **given))
    folder = finish(e)
    best, last = (load_checkpoint(folder / f"{name}.pt")["method"] for name in ("best", "last"))
    assert not torch.equal(best["encoder.weight"], last["encoder.weight"])
    expected = best if restored else last
    assert torch.equal(e.network.encoder.weight, expected["encoder.weight"])
    assert torch.equal(load_run(folder, "cpu").network.encoder.weight, expected["encoder.weight"])


def test_images_that_do_not_fill_a_batch_are_named_before_the_head_is_trained(birds, tmp_path):
    given = {**END_TO_END, "batch_size": 64}
    with pytest.raises(ValueError, match="a batch of 64"):
        FewShot(parameters(birds, tmp_path / "run", **given)).train()
    assert not list((tmp_path / "run").glob("*.pt"))


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            {"embedding_settings": {"method": "tripet"}},
            "embedding_settings: method is 'tripet': it",
        ),
        (
            {"embedding_settings": {"epoch": 3}},
            "embedding_settings: unknown parameter 'epoch': did",
        ),
        ({"embedding_settings": {"size": 32}}, "size belongs beside embedding_settings, not in it"),
        (
            {"embedding_settings": TRIPLETS, "embedding": "x"},
            "give embedding or embedding_settings",
        ),
        ({"end_to_end": 2, "per_class": 1}, "per_class is 1: it must be at least 2"),
        (
            {"end_to_end": 2, "per_class": 5},
            "per_class is 5 and batch_size is 32: a batch needs two classes or more",
        ),
        (
            {"end_to_end": 2, "batch_statistics": True},
            "batch_statistics are of features that stay: leave out end_to_end",
        ),
        ({"end_to_end": 2, "method": "protonet"}, "end_to_end is 2: protonet trains nothing"),
        ({"end_to_end": 2, "encoder_lr": 0.0}, "encoder_lr is 0.0: it must be positive"),
        (
            {"embedding_settings": {"method": "protonet"}},
            "per_class is 0 and shots is 5: an episode",
        ),
    ],
)
def test_encoders_that_cannot_be(birds, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message) as caught:
        parameters(birds, tmp_path / "run", **changes)
    assert "\n" not in str(caught.value)


def test_end_to_end_the_network_below_is_trained_too(birds, tmp_path):
    frozen = FewShot(parameters(birds, tmp_path / "frozen", epochs=1))
    e = FewShot(parameters(birds, tmp_path / "run", **END_TO_END))
    before = {name: value.clone() for name, value in e.backbone.state_dict().items()}
    head = run(frozen)[0].network.state_dict()
    _, history, scores = run(e)
    assert [row["epoch"] for row in history.epochs] == [1, 2, 3]
    assert [row["epoch"] for row in history.evaluations] == [1, 2, 3]
    now = e.backbone.state_dict()
    assert not torch.equal(now["network.conv1.0.weight"], before["network.conv1.0.weight"])
    running = "network.bn1.running_mean"  # freeze_norm
    assert torch.equal(now[running], before[running])
    first = load_checkpoint(tmp_path / "run" / "last.pt")["method"]
    assert all(torch.equal(value, first[name]) for name, value in head.items())
    raw = embed_all(e.embedder, e.novel.pixels, e.test_views)
    torch.testing.assert_close(e.network.standardise(raw), e.novel.features, atol=1e-4, rtol=1e-3)
    assert scores.values["accuracy"].tolist() == pytest.approx(naive_accuracies(e))
    e.finish(history, scores)
    measured_again(FewShot, tmp_path / "run")
    with torch.no_grad():
        embedded = load_run(tmp_path / "run", "cpu").embed(e.novel_images([3]))
        expected = e.network.encode(e.novel.features[3:4])
    torch.testing.assert_close(embedded, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("step", [1, 3])  # of the head's training, and end to end
def test_end_to_end_a_run_stopped_and_resumed_ends_as_a_straight_one(
    birds, tmp_path, step, monkeypatch
):
    given = {**END_TO_END, "epochs": 2, "end_to_end": 3, "evaluate_every": 1}
    straight, history, scores = run(FewShot(parameters(birds, tmp_path / "straight", **given)))
    stopped = FewShot(parameters(birds, tmp_path / "stopped", **given))
    learn_from = PairMethod.learn_from

    def stopping(method, *arguments):
        learn_from(method, *arguments)
        interrupt(method, step)

    if step == 1:
        interrupt(stopped.method, step)
    else:  # what is trained then is made when the head is trained
        monkeypatch.setattr(PairMethod, "learn_from", stopping)
    with pytest.raises(Interrupted):
        stopped.train()
    monkeypatch.undo()
    resumed, again, same = run(FewShot(parameters(birds, tmp_path / "stopped", **given)))
    assert again.evaluations == history.evaluations and same.metrics == scores.metrics
    assert_same_weights(resumed.method, straight.method)


# The split and the attributes


def test_every_second_of_the_sorted_classes_is_base_and_the_others_take_turns(tmp_path):
    names = list("badcfehgi")  # sorted: a base, b validation, c base, d novel, ...
    images = ImageSet("x", [tmp_path / f"{n}.jpg" for n in names], torch.arange(9), names)
    parts = fewshot.few_shot_split(images)
    actual = {part: [names[label] for label in one.labels.tolist()] for part, one in parts.items()}
    assert {part: sorted(one) for part, one in actual.items()} == {
        "base": list("acegi"),
        "validation": list("bf"),
        "novel": list("dh"),
    }


def test_the_split_of_cub_is_that_of_the_usual_lists(real_data):
    official = real_data / "annotations" / "fewshot" / "CUB"
    lines = (real_data / "annotations" / "cub_full" / "classes.txt").read_text().splitlines()
    names = [line.split()[1] for line in lines]
    assert len(names) == 200
    images = ImageSet("cub", [official / name for name in names], torch.arange(200), names)
    parts = fewshot.few_shot_split(images)
    sizes = {name: len(part) for name, part in parts.items()}
    assert sizes == {"base": 100, "validation": 50, "novel": 50}
    for part, file in (("base", "base"), ("validation", "val"), ("novel", "novel")):
        content = json.loads((official / f"{file}.json").read_text())
        listed = {Path(image).parent.name for image in content["image_names"]}
        assert {names[label] for label in parts[part].labels.tolist()} == listed


def test_attributes_of_which_people_were_unsure_are_unknown(birds):
    images = catalog.load("fieldguide", birds)
    certain, source = fewshot.known_attributes(images, 3)
    assert "certainty is 3 or more" in source
    file = birds / "attributes" / "image_attribute_labels.txt"
    lines = [line.split() for line in file.read_text().splitlines()]
    unsure = {(int(i) - 1, int(a) - 1) for i, a, _, certainty, *_ in lines if int(certainty) < 3}
    said = {(int(i) - 1, int(a) - 1) for i, a, *_ in lines}
    missing = set(map(tuple, certain.attributes.isnan().nonzero().tolist()))
    everything = {(i, a) for i in range(72) for a in range(certain.attributes.shape[1])}
    assert missing == unsure | (everything - said)
    loosely, _ = fewshot.known_attributes(images, 1)
    assert int(loosely.attributes.isnan().sum()) == len(everything - said)


def test_where_only_classes_have_attributes_half_of_the_answers_settle_them(birds, tmp_path):
    root = shutil.copytree(birds, tmp_path / "birds")
    (root / "attributes" / "image_attribute_labels.txt").unlink()
    with pytest.warns(UserWarning, match="attributes of its class"):
        images = catalog.load("fieldguide", root)
    settled, source = fewshot.known_attributes(images, 3)
    assert "of classes: there if seen in 50% or more" in source
    fractions = images.attributes
    assert ((fractions > 0) & (fractions < 1)).any()
    pairs = zip(settled.attributes.flatten()[:4000], fractions.flatten()[:4000], strict=True)
    for value, fraction in pairs:
        assert value.item() == (fraction.item() >= 0.5)


# Pairs and their table


@pytest.mark.parametrize("redraw", [True, False])
def test_half_of_the_positive_pairs_with_as_many_negatives(birds, tmp_path, redraw):
    e = FewShot(parameters(birds, tmp_path / "half", redraw=redraw))
    labels = e.base.images.labels
    first, second = (e.base_pairs(epoch) for epoch in (1, 2))
    for pairs, same in (first, second):
        assert len(pairs) == 90 and int(same.sum()) == 45  # of 6 times 15 positive ones
        for (i, j), s in zip(pairs.tolist(), same.tolist(), strict=True):
            assert (labels[i] == labels[j]).item() == bool(s)
    assert torch.equal(first[0], second[0]) != redraw
    few = FewShot(parameters(birds, tmp_path / "few", pairs=7))
    assert len(few.base_pairs(1)[0]) == 14


def test_the_table_holds_each_pair_that_an_episode_asks_for_and_no_other():
    generator = torch.Generator().manual_seed(0)
    encoded = torch.randn(20, 3, generator=generator)
    episodes = sample_episodes(torch.arange(20) // 5, 2, 2, 3, 2, generator)
    calls = []

    def score(a, b):
        calls.append(len(a))
        return -(a - b).square().sum(-1)

    table, needed = pair_table(score, encoded, episodes), set()
    for support, query in zip(*episodes, strict=True):
        needed |= {(q, s) for q in query.flatten().tolist() for s in support.flatten().tolist()}
    for i in range(20):
        for j in range(20):
            if (i, j) in needed or (j, i) in needed:
                expected = -(encoded[i] - encoded[j]).square().sum().item()
                assert table[i, j].item() == table[j, i].item()
                assert table[i, j].item() == pytest.approx(expected, abs=1e-5)
            else:
                assert table[i, j].isnan()
    assert sum(calls) == len({tuple(sorted(pair)) for pair in needed})


def test_prototypes_classify_the_standardised_features(birds, tmp_path):
    e, _, scores = run(FewShot(parameters(birds, tmp_path / "run", method="protonet")))
    support, query = e.episodes.support[0], e.episodes.query[0]
    expected = prototype_scores(e.novel.features[query.flatten()], e.novel.features[support])
    torch.testing.assert_close(scores.saved["class_scores"][0], expected)


def test_concepts_are_measured_by_the_attributes_of_pairs(birds, tmp_path):
    e = FewShot(parameters(birds, tmp_path / "run"))
    actual = mean_area_under_curves(*e.concept_scores(pairs=16))
    pairs = random_pairs(e.novel.images.labels, 16, SEEDS["novel"])[0]
    known, areas = e.novel.images.attributes, []
    with torch.no_grad():
        encoded = e.method.encode(e.novel.features)
        concepts = [e.method.head(encoded[i], encoded[j])[1] for i, j in pairs.tolist()]
    targets = [pair_labels(known[i], known[j], "or") for i, j in pairs.tolist()]
    for m in range(known.shape[1]):
        with_it, without = (
            [c[m].item() for c, t in zip(concepts, targets, strict=True) if t[m] == value]
            for value in (1, 0)
        )
        if with_it and without:
            wins = sum((a > b) + 0.5 * (a == b) for a in with_it for b in without)
            areas.append(wins / (len(with_it) * len(without)))
    assert len(areas) > 10 and actual == pytest.approx(sum(areas) / len(areas), abs=1e-6)


# Other runs


def test_finished_runs_on_the_same_episodes_are_compared_with(birds, tmp_path):
    given = {
        "a": {"method": "multitask"},
        "b": {"method": "multitask", "episodes": 7},
        "d": {"method": "protonet"},
    }
    for name, changes in given.items():
        finish(FewShot(parameters(birds, tmp_path / "runs" / name, **changes)))
    e = FewShot(parameters(birds, tmp_path / "runs" / "c"))
    assert [folder.name for folder, _ in e.siblings()] == ["a", "b", "d"]
    # The second saw other episodes, the third is there anyway.
    ((result, accuracies),) = e.other_runs()
    assert result["method"] == "multitask" and len(accuracies) == 12
    assert accuracies.mean().item() == pytest.approx(result["metrics"]["accuracy"])


# Bad input


def test_a_data_set_without_attributes_says_which_methods_are_left(tmp_path):
    for number in range(8):
        folder = tmp_path / "pictures" / f"class_{number}"
        folder.mkdir(parents=True)
        for i in range(6):
            picture = Image.new("RGB", (66, 64), (30 * number, 40 * i, 90))
            picture.save(folder / f"{number}_{i}.png")
    options = {"root": tmp_path / "pictures", "out": tmp_path / "run", "dataset": "folder"}
    message = (
        "folder has no attributes, and multitask learns from them: choose pan_unsupervised, "
        "protonet or cosine"
    )
    with pytest.raises(ValueError, match=message):
        FewShot(parameters(**options, method="multitask"))
    assert not (tmp_path / "run").exists()
    run(FewShot(parameters(**options, method="pan_unsupervised", epochs=1)))


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            {"ways": 4},
            "validation classes of fieldguide: an episode of 4 classes cannot be drawn from 3",
        ),
        ({"queries": 5}, "3 of 3 classes have fewer than 7 images"),
        ({"episodes": 0}, "novel classes of fieldguide: episodes"),
        ({"pairs": 10_000}, "10000 pairs within a class are wanted, there are 90"),
        ({"backbone": "resnet10"}, "unknown network 'resnet10'"),
        ({"weights": "/nowhere.pt"}, "no weights at '/nowhere.pt'"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(birds, tmp_path, changes, message):
    with pytest.raises((ValueError, OSError), match=message) as caught:
        FewShot(parameters(birds, tmp_path / "run", **changes))
    assert "\n" not in str(caught.value) and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"method": "pan"}, "method is 'pan': it must be one of"),
        ({"certainty": 5}, "certainty is 5"),
        ({"shots": 0}, "shots is 0: it must be at least 1"),
        ({"size": 65}, "size is 65 and resize is 64"),
        ({"dataset": "cub"}, "root is empty: give the folder of cub"),
    ],
)
def test_impossible_parameters_are_refused_before_anything_is_loaded(changes, message):
    with pytest.raises(ValueError, match=message) as caught:
        Parameters(**{**SMALL, **changes})
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_the_whole_experiment_from_a_command_line_in_two_processes(birds, tmp_path):
    given = {**SMALL, **END_TO_END, "embedding_settings": TRIPLETS}
    given |= {"root": str(birds), "out": str(tmp_path / "run")}
    words = "--standalone", "--nproc-per-node=2", "-m", "fieldmarks.experiments.fewshot"
    done = start("torch.distributed.run", *words, *arguments(given))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("accuracy ") == 1
    assert read_result(tmp_path / "run")["metrics"]["accuracy"] >= 0
    wrong = start("fieldmarks.experiments.fewshot", *arguments(given), "epoch=3")
    assert wrong.returncode == 2
    assert wrong.stderr == "fewshot: unknown parameter 'epoch': did you mean 'epochs'?\n"
