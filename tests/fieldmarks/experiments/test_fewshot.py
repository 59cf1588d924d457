import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from fieldguide.birds.guide import make_fieldguide
from fieldlab.cards.finished import FinishedRun
from fieldlab.report.verify import differences
from fieldmarks.data import catalog
from fieldmarks.data.imageset import ImageSet
from fieldmarks.evaluation.episodes import prototype_scores, sample_episodes
from fieldmarks.evaluation.outfits import mean_area_under_curves
from fieldmarks.experiments import fewshot
from fieldmarks.experiments import fewshot_figures as figures_of
from fieldmarks.experiments.fewshot import Parameters
from fieldmarks.experiments.result import read_result
from fieldmarks.methods.pan import pair_labels
from PIL import Image

SMALL = {
    "resize": 64,
    "size": 48,
    "backbone": "resnet10t",
    "weights": "none",
    "hidden": 8,
    "concepts": 5,
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
METHODS = [
    "pan_supervised",
    "pan_unsupervised",
    "pan_hybrid",
    "multitask",
    "attribute_similarity",
    "plain",
    "protonet",
    "cosine",
]


@pytest.fixture(scope="module")
def birds(tmp_path_factory):
    return make_fieldguide(
        tmp_path_factory.mktemp("data") / "birds", classes=12, images=6, size=64, seed=0
    )


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("FIELDMARKS_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def parameters(root, out, **changes):
    return Parameters(**{**SMALL, "root": str(root), "out": str(out), **changes})


def run(p):
    experiment = fewshot.prepare(p)
    history = fewshot.train(experiment)
    return experiment, history, fewshot.evaluate(experiment)


def naive_accuracies(experiment):
    """Sec. 3: a query belongs to the class to whose supports it is most similar on average."""
    e, accuracies = experiment, []
    with torch.no_grad():
        encoded = e.network.encode(e.novel.features)
        for support, query in zip(*e.episodes):
            right = 0
            for own, queries in enumerate(query.tolist()):
                for row in queries:
                    means = [
                        sum(
                            e.network.score(encoded[row], encoded[other]).item()
                            for other in supports
                        )
                        / len(supports)
                        for supports in support.tolist()
                    ]
                    right += max(range(len(means)), key=means.__getitem__) == own
            accuracies.append(right / query.numel())
    return accuracies


@pytest.mark.parametrize("method", ["pan_supervised", "attribute_similarity"])
def test_from_data_to_result(birds, tmp_path, method):
    experiment, history, classification = run(parameters(birds, tmp_path / "run", method=method))
    expected = naive_accuracies(experiment)
    assert classification.accuracies.tolist() == pytest.approx(expected)
    assert not (tmp_path / "run" / "result.json").exists()
    result = json.loads(
        fewshot.finish(
            experiment, history, classification, [], notebook="pan_fewshot.ipynb"
        ).read_text()
    )
    assert (
        result["experiment"] == "fewshot"
        and result["method"] == method
        and result["dataset"] == "fieldguide"
    )
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
    assert all(0 <= value <= 1 for value in result["metrics"].values()) and result[
        "chosen_epoch"
    ] in (2, 4)
    assert Parameters(**result["parameters"]) == experiment.parameters
    assert (
        differences(FinishedRun(tmp_path / "run", read_result(tmp_path / "run"))) == []
    )  # what is saved gives them again


def test_what_is_saved_gives_the_metrics_again(birds, tmp_path):
    from safetensors.torch import load_file

    experiment, history, classification = run(parameters(birds, tmp_path / "run"))
    fewshot.finish(experiment, history, classification, [], "")
    saved = load_file(tmp_path / "run" / "episodes.safetensors")
    right = saved["class_scores"].argmax(2).view(saved["query"].shape) == torch.arange(2)[:, None]
    assert right.double().mean((1, 2)).tolist() == pytest.approx(saved["accuracies"].tolist())
    assert saved["accuracies"].mean().item() == pytest.approx(classification.metrics["accuracy"])
    assert saved["accuracies_protonet"].mean().item() == pytest.approx(
        classification.metrics["accuracy_protonet"]
    )
    weights = load_file(tmp_path / "run" / "network.safetensors")
    assert torch.equal(weights["feature_mean"], experiment.mean) and torch.equal(
        weights["encoder.weight"], experiment.network.encoder.weight
    )


@pytest.mark.parametrize("method", METHODS)
def test_every_method_goes_through_the_same_steps(birds, tmp_path, method):
    experiment, history, classification = run(
        parameters(birds, tmp_path / "run", method=method, epochs=1)
    )
    assert len(history.epochs) == (method not in fewshot.UNTRAINED)
    assert (
        classification.class_scores.shape == (12, 6, 2)
        and 0 <= classification.metrics["accuracy"] <= 1
    )
    assert ("concept_auc" in classification.metrics) == (method in ("pan_supervised", "pan_hybrid"))
    if method in fewshot.UNTRAINED:
        assert torch.equal(classification.accuracies, classification.others[method])
        assert classification.above[method] == (0, 0, 0)


def test_the_weights_that_are_kept_are_the_best_on_validation_classes(birds, tmp_path):
    _, history, classification = run(parameters(birds, tmp_path / "run", epochs=8))
    assert classification.metrics["accuracy_validation"] == history.best("accuracy")["accuracy"]


def test_episodes_are_the_same_for_all_and_pairs_are_the_seeds(birds, tmp_path):
    first, again, other = (
        run(parameters(birds, tmp_path / str(number), seed=seed))
        for number, seed in enumerate((0, 0, 1))
    )
    assert torch.equal(first[2].class_scores, again[2].class_scores)
    assert not torch.equal(first[2].class_scores, other[2].class_scores)
    for name in ("episodes", "validation_episodes"):
        assert all(
            torch.equal(a, b) for a, b in zip(getattr(first[0], name), getattr(other[0], name))
        )


def test_features_are_standardised_by_the_base_classes_alone(birds, tmp_path):
    e = fewshot.prepare(parameters(birds, tmp_path / "run"))
    raw = e.base.features * e.deviation + e.mean
    torch.testing.assert_close(
        e.base.features.mean(0), torch.zeros(raw.shape[1]), atol=1e-4, rtol=0
    )
    changing = raw.std(0) > 0
    torch.testing.assert_close(
        e.base.features.std(0)[changing], torch.ones(int(changing.sum())), atol=1e-3, rtol=0
    )
    torch.testing.assert_close(e.standardise(raw), e.base.features, atol=1e-4, rtol=1e-3)
    assert e.novel.features.isfinite().all()


# The split and the attributes


def test_every_second_of_the_sorted_classes_is_base_and_the_others_take_turns(tmp_path):
    names = [
        "b",
        "a",
        "d",
        "c",
        "f",
        "e",
        "h",
        "g",
        "i",
    ]  # sorted: a base, b validation, c base, d novel, ...
    images = ImageSet("x", [tmp_path / f"{n}.jpg" for n in names], torch.arange(9), names)
    parts = fewshot.few_shot_split(images)
    found = {part: [names[label] for label in one.labels.tolist()] for part, one in parts.items()}
    assert {part: sorted(one) for part, one in found.items()} == {
        "base": list("acegi"),
        "validation": list("bf"),
        "novel": list("dh"),
    }


def test_the_split_of_cub_is_that_of_the_usual_lists(real_data):
    official = real_data / "annotations" / "fewshot" / "CUB"
    names = [
        line.split()[1]
        for line in (real_data / "annotations" / "cub_full" / "classes.txt")
        .read_text()
        .splitlines()
    ]
    assert len(names) == 200
    images = ImageSet("cub", [official / name for name in names], torch.arange(200), names)
    sizes = {name: len(part) for name, part in fewshot.few_shot_split(images).items()}
    assert sizes == {"base": 100, "validation": 50, "novel": 50}
    for part, file in (("base", "base"), ("validation", "val"), ("novel", "novel")):
        listed = {
            Path(image).parent.name
            for image in json.loads((official / f"{file}.json").read_text())["image_names"]
        }
        assert {
            names[label] for label in fewshot.few_shot_split(images)[part].labels.tolist()
        } == listed


def test_attributes_of_which_people_were_unsure_are_unknown(birds):
    images = catalog.load("fieldguide", birds)
    certain, words = fewshot.settled_attributes(images, 3)
    assert "certainty is 3 or more" in words
    lines = [
        line.split()
        for line in (birds / "attributes" / "image_attribute_labels.txt").read_text().splitlines()
    ]
    unsure = {(int(i) - 1, int(a) - 1) for i, a, _, certainty, *_ in lines if int(certainty) < 3}
    said = {(int(i) - 1, int(a) - 1) for i, a, *_ in lines}
    missing = set(map(tuple, certain.attributes.isnan().nonzero().tolist()))
    everything = {(i, a) for i in range(72) for a in range(certain.attributes.shape[1])}
    assert missing == unsure | (everything - said)
    loosely, _ = fewshot.settled_attributes(images, 1)
    assert int(loosely.attributes.isnan().sum()) == len(everything - said)


def test_where_only_classes_have_attributes_half_of_the_answers_settle_them(birds, tmp_path):
    import shutil

    root = shutil.copytree(birds, tmp_path / "birds")
    (root / "attributes" / "image_attribute_labels.txt").unlink()
    with pytest.warns(UserWarning, match="attributes of its class"):
        images = catalog.load("fieldguide", root)
    settled, words = fewshot.settled_attributes(images, 3)
    assert "of whole classes: there if seen in 50% or more" in words
    fractions = images.attributes
    assert ((fractions > 0) & (fractions < 1)).any()
    for value, fraction in zip(settled.attributes.flatten()[:4000], fractions.flatten()[:4000]):
        assert value.item() == (fraction.item() >= 0.5)


# Pairs and their table


@pytest.mark.parametrize("redraw", [True, False])
def test_half_of_the_positive_pairs_with_as_many_negatives(redraw):
    labels = torch.arange(30) // 5
    p = Parameters(**SMALL, redraw=redraw)
    first, second = (fewshot.base_pairs(p, labels, epoch) for epoch in (1, 2))
    for pairs, same in (first, second):
        assert len(pairs) == 60 and int(same.sum()) == 30  # of 6 times 10 positive ones
        assert all(
            (labels[i] == labels[j]).item() == bool(s)
            for (i, j), s in zip(pairs.tolist(), same.tolist())
        )
    assert torch.equal(first[0], second[0]) != redraw
    assert len(fewshot.base_pairs(Parameters(**SMALL, pairs=7), labels)[0]) == 14


def test_the_table_holds_each_pair_that_an_episode_asks_for_and_no_other():
    generator = torch.Generator().manual_seed(0)
    encoded = torch.randn(20, 3, generator=generator)
    episodes = sample_episodes(torch.arange(20) // 5, 2, 2, 3, 2, generator)
    calls = []

    def score(a, b):
        calls.append(len(a))
        return -(a - b).square().sum(-1)

    table, needed = fewshot.pair_table(score, encoded, episodes), set()
    for support, query in zip(*episodes):
        needed |= {(q, s) for q in query.flatten().tolist() for s in support.flatten().tolist()}
    for i in range(20):
        for j in range(20):
            if (i, j) in needed or (j, i) in needed:
                assert (
                    table[i, j].item()
                    == table[j, i].item()
                    == pytest.approx(-(encoded[i] - encoded[j]).square().sum().item(), abs=1e-5)
                )
            else:
                assert table[i, j].isnan()
    assert sum(calls) == len({tuple(sorted(pair)) for pair in needed})


def test_prototypes_classify_the_standardised_features(birds, tmp_path):
    e, _, classification = run(parameters(birds, tmp_path / "run", method="protonet"))
    support, query = e.episodes.support[0], e.episodes.query[0]
    expected = prototype_scores(e.novel.features[query.flatten()], e.novel.features[support])
    torch.testing.assert_close(classification.class_scores[0], expected)


def test_concepts_are_held_against_the_attributes_of_pairs(birds, tmp_path):
    e = fewshot.prepare(parameters(birds, tmp_path / "run"))
    found = mean_area_under_curves(*fewshot.concept_scores(e, pairs=16))
    pairs = fewshot.random_pairs(e.novel.images.labels, 16, fewshot.TEST_SEED)[0]
    known, areas = e.novel.images.attributes, []
    with torch.no_grad():
        encoded = e.network.encode(e.novel.features)
        concepts = [e.network.head(encoded[i], encoded[j])[1] for i, j in pairs.tolist()]
    targets = [pair_labels(known[i], known[j], "or") for i, j in pairs.tolist()]
    for m in range(known.shape[1]):
        with_it = [
            concept[m].item() for concept, target in zip(concepts, targets) if target[m] == 1
        ]
        without = [
            concept[m].item() for concept, target in zip(concepts, targets) if target[m] == 0
        ]
        if with_it and without:
            areas.append(
                sum((a > b) + 0.5 * (a == b) for a in with_it for b in without)
                / (len(with_it) * len(without))
            )
    assert len(areas) > 10 and found == pytest.approx(sum(areas) / len(areas), abs=1e-6)


# Other runs


def test_finished_runs_on_the_same_episodes_are_compared_with(birds, tmp_path):
    given = {
        "a": {"method": "multitask"},
        "b": {"method": "multitask", "episodes": 7},
        "d": {"method": "protonet"},
    }
    for name, changes in given.items():
        one, history, classification = run(parameters(birds, tmp_path / "runs" / name, **changes))
        fewshot.finish(one, history, classification, [], "")
    e, history, classification = run(
        parameters(birds, tmp_path / "runs" / "c", attribute_weight=0.5)
    )
    ((result, accuracies),) = fewshot.sibling_runs(
        e
    )  # the second saw other episodes, the third is there anyway
    other = figures_of.run_name("multitask", result["parameters"])
    found = figures_of.differences(e, classification)
    assert list(found) == ["protonet, learns nothing", "cosine, learns nothing", other]
    assert found[other].mean == pytest.approx(
        (classification.accuracies - accuracies).mean().item()
    )
    assert (
        figures_of.run_name("pan_supervised", vars(e.parameters))
        == "pan_supervised, lambda 0.5, seed 0"
    )


def test_pairs_to_look_at_are_the_most_similar_of_their_kind(birds, tmp_path):
    e = fewshot.prepare(parameters(birds, tmp_path / "run"))
    pairs, captions = figures_of.some_pairs(e, count=2)
    labels = e.novel.images.labels
    with torch.no_grad():
        encoded = e.network.encode(e.novel.features)
        for number, (row, partner) in enumerate(pairs.tolist()):
            own = number < 2
            rivals = [
                j for j in range(len(labels)) if j != row and (labels[j] == labels[row]) == own
            ]
            assert partner in rivals and captions[number].startswith("both ") == own
            best = max(e.network.score(encoded[row], encoded[j]).item() for j in rivals)
            assert e.network.score(encoded[row], encoded[partner]).item() == pytest.approx(
                best, abs=1e-6
            )


def test_confusions_are_counted(birds, tmp_path):
    e, _, classification = run(parameters(birds, tmp_path / "run", method="cosine"))
    confused = figures_of.look_alikes(e, classification)
    wrong = round(sum((1 - accuracy) * 6 for accuracy in classification.accuracies.tolist()))
    assert sum(confused.values()) == wrong and list(confused.values()) == sorted(
        confused.values(), reverse=True
    )


# Bad input


def test_a_data_set_without_attributes_says_which_methods_are_left(tmp_path):
    for number in range(8):
        (tmp_path / "pictures" / f"class_{number}").mkdir(parents=True)
        for i in range(6):
            Image.new("RGB", (66, 64), (30 * number, 40 * i, 90)).save(
                tmp_path / "pictures" / f"class_{number}" / f"{number}_{i}.png"
            )
    options = {"root": tmp_path / "pictures", "out": tmp_path / "run", "dataset": "folder"}
    with pytest.raises(
        ValueError,
        match="folder has no attributes, and multitask learns from them: choose pan_unsupervised, protonet",
    ):
        fewshot.prepare(parameters(**options, method="multitask"))
    assert not (tmp_path / "run").exists()
    run(parameters(**options, method="pan_unsupervised", epochs=1))


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            {"ways": 4},
            "validation classes of fieldguide: an episode of 4 classes cannot be drawn from 3",
        ),
        ({"queries": 5}, "have fewer than the 7 images of an episode"),
        ({"shots": 0}, "shots must be at least 1, got 0"),
        ({"episodes": 0}, "novel classes of fieldguide: episodes must be at least 1"),
        ({"pairs": 10_000}, "10000 pairs within a class are wanted, there are 90"),
        ({"backbone": "resnet10"}, "unknown network 'resnet10'"),
        ({"weights": "/nowhere.pt"}, "no weights at '/nowhere.pt'"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(birds, tmp_path, changes, message):
    with pytest.raises((ValueError, OSError), match=message) as caught:
        fewshot.prepare(parameters(birds, tmp_path / "run", **changes))
    assert "\n" not in str(caught.value) and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"method": "pan"}, "method is 'pan': it must be one of"),
        ({"certainty": 5}, "certainty is 5"),
        ({"size": 65}, "size is 65 and resize is 64"),
        ({"dataset": "cub"}, "root is empty: give the folder of cub"),
    ],
)
def test_impossible_parameters_are_refused_before_anything_is_loaded(changes, message):
    with pytest.raises(ValueError, match=message):
        Parameters(**{**SMALL, **changes})


def test_the_whole_experiment_from_a_command_line(birds, tmp_path):
    words = [f"{k}={json.dumps(v) if not isinstance(v, str) else v}" for k, v in SMALL.items()]
    command = [
        sys.executable,
        "-m",
        "fieldmarks.experiments.fewshot",
        *words,
        f"root={birds}",
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
    assert "accuracy " in done.stdout and read_result(tmp_path / "run")["metrics"]["accuracy"] >= 0
    wrong = subprocess.run([*command, "epoch=3"], capture_output=True, text=True, timeout=300)
    assert (
        wrong.returncode == 2
        and wrong.stderr == "fewshot: unknown parameter 'epoch': did you mean 'epochs'?\n"
    )
