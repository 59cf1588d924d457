import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from fieldguide.birds.guide import make_fieldguide
from fieldmarks import load_run
from fieldmarks.data.augment import TrainingViews
from fieldmarks.data.batches import SampledStream
from fieldmarks.data.pixels import PixelCache
from fieldmarks.evaluation.code_usage import distinct_class_codes
from fieldmarks.evaluation.hamming import mean_average_precision
from fieldmarks.experiments.hashing import SHALLOW, Hashing, Parameters
from fieldmarks.experiments.parameters import parse
from fieldmarks.experiments.result import read_result
from fieldmarks.methods.fcaenet import attention
from fieldmarks.methods.hashing import to_codes
from fieldmarks.search.codes import CodeIndex
from fieldmarks.training import Interrupted
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
    "size": 32,
    "backbone": "resnet10t",
    "weights": "none",
    "bits": 12,
    "regions": 9,
    "region_size": 8,
    "batch_size": 8,
    "sample": 14,
    "passes": 2,
    "epochs": 3,
    "lr": 0.01,
    "progress": "none",
    "device": "cpu",
    "precision": "fp32",
    "warmup_steps": 2,
}


@pytest.fixture(scope="module")
def birds(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "birds"
    return make_fieldguide(folder, classes=4, images=8, size=64, seed=0)


def parameters(root, out, **changes):
    return Parameters(**{**SMALL, "root": str(root), "out": str(out), **changes})


@pytest.fixture(scope="module")
def straight(birds, tmp_path_factory):
    """A run without a stop: (experiment, history, scores)."""
    experiment, history, scores = run(Hashing(parameters(birds, tmp_path_factory.mktemp("run"))))
    experiment.finish(history, scores)
    return experiment, history, scores


def test_from_data_to_result(straight):
    experiment, history, scores = straight
    assert len(experiment.database_set) == len(experiment.query_set) == 16
    assert len(history.epochs) == 3
    codes = {name: scores.saved[f"{name}_codes"] for name in ("query", "database")}
    assert codes["query"].dtype == codes["database"].dtype == torch.int8
    assert torch.equal(codes["database"].float(), experiment.method.codes)
    expected = mean_average_precision(
        codes["query"].float(),
        experiment.query_set.labels,
        codes["database"].float(),
        experiment.database_set.labels,
    )
    result = read_result(experiment.folder)
    assert result["method"] == "fcaenet" and result["metrics"]["map"] == expected
    assert list(result["intervals"]) == ["map"]
    low, high = result["intervals"]["map"]
    assert low <= expected <= high
    assert result["counts"] == {
        "train": 16,
        "query": 16,
        "gallery": 16,
        "classes": 4,
        "train_classes": 4,
    }
    assert result["curves"]["evaluations"][-1]["map"] == expected
    assert result["best"]["map"] == max(row["map"] for row in result["curves"]["evaluations"])
    assert all(0 <= value <= 1 for value in result["metrics"].values())
    assert parse(Parameters, result["parameters"]) == experiment.parameters


def test_the_saved_codes_and_index_say_what_was_measured(straight):
    experiment, _, scores = straight
    again = measured_again(Hashing, experiment.folder)
    assert list(again.metrics)[:2] == ["map", "map_stable"]
    queries, database = (again.saved[f"{name}_codes"].float() for name in ("query", "database"))
    assert torch.equal(queries.to(torch.int8), scores.saved["query_codes"])
    index = CodeIndex.load(experiment.folder / "database.index")
    distances, positions = index.search(queries, 16)
    expected = (queries[:, None] != database[positions]).sum(2)
    assert index.bits == 12 and torch.equal(distances, expected)


def test_a_finished_run_comes_back_as_it_was_trained(straight, birds, tmp_path):
    experiment, _, scores = straight
    method = load_run(experiment.folder, "cpu")
    assert not method.training and torch.equal(method.codes, experiment.method.codes)
    with torch.no_grad():
        outputs = method.embed(experiment.query_images(range(16)))
    assert torch.equal(to_codes(outputs).to(torch.int8), scores.saved["query_codes"])
    folder = finish(Hashing(parameters(birds, tmp_path / "itq", method="itq", bits=6)))
    with pytest.raises(ValueError, match="is a run of itq, which has no trained network"):
        load_run(folder, "cpu")


@pytest.mark.parametrize(
    "stop_at", [pytest.param(2, marks=pytest.mark.slow), 4, pytest.param(7, marks=pytest.mark.slow)]
)
def test_a_run_resumed_ends_as_a_straight_one_codes_included(straight, birds, tmp_path, stop_at):
    """Four steps make an iteration, at whose end the codes are renewed: before, at and after."""
    experiment, _, scores = straight
    stopped = Hashing(parameters(birds, tmp_path / "stopped"))
    interrupt(stopped.method, stop_at)
    with pytest.raises(Interrupted, match=f"stopped at step {stop_at} of 12|stopped after epoch 1"):
        stopped.train()
    resumed, _, again = run(Hashing(parameters(birds, tmp_path / "stopped")))
    for name in ("database_codes", "query_codes"):
        assert torch.equal(again.saved[name], scores.saved[name])
    assert_same_weights(experiment.method, resumed.method)


@pytest.mark.parametrize("method", ["adsh", "dpsh", "dsh", "hashnet", "lsh", "itq", "sh", "sdh"])
def test_every_baseline_goes_through_the_same_steps(birds, tmp_path, method):
    p = parameters(birds, tmp_path / "run", method=method, epochs=1, bits=6)
    experiment, history, scores = run(Hashing(p))
    assert experiment.name == method
    assert len(history.epochs) == (0 if method in SHALLOW else 1)
    assert scores.saved["query_codes"].shape == scores.saved["database_codes"].shape == (16, 6)
    assert 0 < scores.metrics["map"] <= 1


def test_labels_are_numbered_over_the_classes_that_are_there(birds, tmp_path):
    experiment = Hashing(parameters(birds, tmp_path, max_classes=3, sample=12))
    for images in (experiment.database_set, experiment.query_set):
        assert images.labels.unique().tolist() == [0, 1, 2]
    assert len(experiment.database_set.class_names) == 3


def test_validation_queries_come_from_the_training_images_alone(birds, tmp_path):
    def split(name, **changes):
        experiment = Hashing(parameters(birds, tmp_path / name, sample=0, **changes))
        return experiment.database_set, experiment.query_set

    database, queries = split("run")
    rest, held = split("validation", validation=0.25)
    assert set(rest.paths) | set(held.paths) == set(database.paths)
    assert not set(held.paths) & set(queries.paths)
    assert not set(rest.paths) & set(held.paths) and held.class_counts().tolist() == [1] * 4
    assert held.paths == split("again", validation=0.25)[1].paths


def test_neighbours_are_the_nearest_and_ties_follow_no_list():
    generator = torch.Generator().manual_seed(0)
    codes = (torch.randint(2, (40, 3), generator=generator) * 2 - 1).to(torch.int8)
    labels = torch.arange(40) // 10
    saved = {"query_codes": codes[:8], "query_labels": labels[:8]}
    saved |= {"database_codes": codes, "database_labels": labels}
    results = Hashing.measure(saved, {"seed": 1}).results
    nearest, distances, correct = results.neighbours(torch.arange(8), 6)
    for row in range(8):
        naive = [(codes[row] != code).sum().item() for code in codes]
        own = nearest[row].tolist()
        assert distances[row].tolist() == sorted(naive)[:6] == [naive[i] for i in own]
        assert len(set(own)) == 6
        assert correct[row].tolist() == [labels[i] == labels[row] for i in own]
    other = Hashing.measure(saved, {"seed": 2}).results
    assert not torch.equal(nearest, other.neighbours(torch.arange(8), 6)[0])


def test_queries_of_whose_class_the_database_has_nothing_cannot_be_measured():
    codes = torch.ones(4, 3, dtype=torch.int8)
    saved = {"query_codes": codes, "query_labels": torch.zeros(4).long()}
    saved |= {"database_codes": codes, "database_labels": torch.ones(4).long()}
    with pytest.raises(ValueError, match="no query has an item of its own label in the gallery"):
        Hashing.measure(saved, {"seed": 0}).metrics  # noqa: B018


def test_map_may_look_at_the_first_of_the_ranking_alone():
    generator = torch.Generator().manual_seed(0)
    codes = (torch.randint(2, (40, 12), generator=generator) * 2 - 1).to(torch.int8)
    labels = torch.arange(40) // 10
    saved = {"query_codes": codes[:8], "query_labels": labels[:8]}
    saved |= {"database_codes": codes, "database_labels": labels}
    sides = (codes[:8].float(), labels[:8], codes.float(), labels)
    for top in (0, 5):
        metrics = Hashing.measure(saved, {"seed": 0, "top": top}).metrics
        assert metrics["map"] == mean_average_precision(*sides, top=top or None)
        stable = mean_average_precision(*sides, ties="stable", top=top or None)
        assert metrics["map_stable"] == stable


def test_collapsed_codes_are_told_by_the_share_of_class_codes():
    labels = torch.arange(12) // 3
    apart = torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]])[labels]
    assert distinct_class_codes(apart, labels) == 1
    assert distinct_class_codes(torch.ones(12, 2), labels) == 0.25


def test_the_baseline_is_adsh_of_as_many_bits_beside_this_run(birds, tmp_path):
    def bits_of(comparison):
        return comparison[1].saved["query_codes"].shape[1]

    experiment = Hashing(parameters(birds, tmp_path / "alone" / "run", epochs=1))
    assert experiment.compare_with() is None
    for name, changes in {"a": {"method": "adsh"}, "b": {"method": "adsh", "bits": 8}}.items():
        finish(Hashing(parameters(birds, tmp_path / "runs" / name, epochs=1, **changes)))
    comparison = Hashing(parameters(birds, tmp_path / "runs" / "c", epochs=1)).compare_with()
    assert comparison[0] == "adsh" and bits_of(comparison) == 12
    baseline = str(tmp_path / "runs" / "b")
    named = Hashing(parameters(birds, tmp_path / "elsewhere", epochs=1, baseline=baseline))
    assert bits_of(named.compare_with()) == 8
    named.parameters = dataclasses.replace(named.parameters, baseline=str(tmp_path))
    with pytest.raises(ValueError, match="is not a finished run"):
        named.compare_with()


def folder_of_classes(root, counts):
    """Classes with a train and a test part."""
    for part in ("train", "test"):
        for number, count in enumerate(counts):
            folder = root / part / f"class_{number}"
            folder.mkdir(parents=True)
            for i in range(count if part == "train" else 2):
                picture = Image.new("RGB", (70, 66), (40 * number, 20 * i, 90))
                picture.save(folder / f"{part}{i}.png")
    return root


@pytest.mark.parametrize(
    "counts, changes, message",
    [
        ((4, 1, 4), {"sample": 0}, "1 training class has one image only, which has no positive"),
        (
            (4, 4),
            {"sample": 9},
            "9 images are to be sampled in each iteration, but there are 8 training images: "
            "use a sample of 1 to 8",
        ),
        ((2, 2), {"sample": 0, "validation": 0.5}, "validation needs classes of at least 3 images"),
        ((4,), {"sample": 0}, "all images are of one class: hashing needs at least two"),
        ((4, 4), {"sample": 0, "passes": 0}, "passes is 0"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(tmp_path, counts, changes, message):
    root = folder_of_classes(tmp_path / "pictures", counts)
    with pytest.raises((ValueError, OSError), match=message) as caught:
        Hashing(parameters(root, tmp_path / "run", dataset="folder", **changes))
    assert "\n" not in str(caught.value) and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"method": "fcae"}, "method is 'fcae'"),
        ({"bits": 0}, "bits is 0"),
        ({"negative": "minus"}, "negative is 'minus'"),
        ({"validation": 1.0}, "validation is 1.0"),
        ({"top": -1}, "top is -1: it must be at least 0"),
        ({"sample": -1}, "sample is -1: it must be at least 0"),
        ({"schedule": "milestone"}, "schedule is 'milestone'"),
        ({"region_size": 33}, "region_size is 33, but images are 32 px a side"),
    ],
)
def test_impossible_parameters_are_refused_before_anything_is_loaded(changes, message):
    with pytest.raises(ValueError, match=message) as caught:
        Parameters(**{**SMALL, **changes})
    assert "\n" not in str(caught.value)


def test_outputs_that_are_not_numbers_are_named(birds, tmp_path):
    experiment = Hashing(parameters(birds, tmp_path / "run"))
    torch.nn.init.constant_(experiment.method.hash_layer.bias, torch.nan)
    message = "16 of 16 images are not numbers .the network has diverged: .*first image 0"
    with pytest.raises(ValueError, match=message):
        experiment.evaluate()


@pytest.mark.slow
def test_the_whole_experiment_from_a_command_line(birds, tmp_path):
    given = {**SMALL, "root": str(birds), "out": str(tmp_path / "run"), "epochs": 1}
    done = start("fieldmarks.experiments.hashing", *arguments(given))
    assert done.returncode == 0, done.stderr
    assert "map " in done.stdout and read_result(tmp_path / "run")["metrics"]["map"] > 0
    wrong = start("fieldmarks.experiments.hashing", *arguments(given), "bit=3")
    assert wrong.returncode == 2
    assert wrong.stderr == "hashing: unknown parameter 'bit': did you mean 'bits'?\n"


# The stream


def test_an_iteration_goes_several_times_through_its_sample(birds, tmp_path):
    experiment = Hashing(parameters(birds, tmp_path / "run", epochs=1))
    stream, ends = experiment.stream, []
    experiment.method.after_epoch = lambda: ends.append(True)
    first, second = (torch.cat(stream.plan(iteration)) for iteration in (0, 1))
    for iteration in (first, second):
        one, two = iteration.split(14)
        assert len(set(one.tolist())) == 14 and set(one.tolist()) == set(two.tolist())
        assert not torch.equal(one, two)
    assert set(first.tolist()) != set(second.tolist())
    batches = list(stream.epoch(0))
    assert [len(batch["images"]) for batch in batches] == [8, 6, 8, 6]
    assert stream.steps_per_epoch == 4
    for batch, resumed in zip(batches[2:], stream.epoch(0, start=2), strict=True):
        for name in ("images", "positives"):
            assert torch.equal(batch[name], resumed[name])
    experiment.train()
    assert len(ends) == 1  # after the last batch of the iteration


def test_a_positive_is_another_image_of_the_class_and_every_other_one_comes(birds, tmp_path):
    stream = Hashing(parameters(birds, tmp_path / "run")).stream
    index, partners = torch.arange(16), {i: set() for i in range(16)}
    for step in range(200):
        for image, positive in stream.pictures(index, step).tolist():
            partners[image].add(positive)
    labels = stream.labels
    for image, drawn in partners.items():
        assert drawn == {i for i in range(16) if i != image and labels[i] == labels[image]}


def test_two_processes_see_the_rows_of_one(birds, tmp_path):
    experiment = Hashing(parameters(birds, tmp_path / "run"))
    assert isinstance(experiment.database_pixels, PixelCache)
    views = TrainingViews(32, experiment.backbone.mean, experiment.backbone.std)
    data = (experiment.database_pixels, experiment.database_set.labels, views, 8)

    def batches(**share):
        return list(SampledStream(*data, sample=14, passes=1, seed=3, **share).epoch(0))

    halves = [batches(rank=rank, world=2) for rank in (0, 1)]
    for batch, left, right in zip(batches(), *halves, strict=True):
        for name in ("images", "positives"):
            assert torch.equal(batch[name], torch.cat([left[name], right[name]]))
    message = "the last batch of an iteration cannot be shared by 2 processes, 1 images are left"
    with pytest.raises(ValueError, match=message):
        SampledStream(*data, sample=13, passes=1, world=2)


def test_what_erasing_asks_is_measured_on_the_networks_own_views(birds, tmp_path):
    """Against boxes written by hand: the top-left corners are the hottest pixels, row by row."""
    experiment = Hashing(parameters(birds, tmp_path / "run"))
    torch.nn.init.normal_(experiment.method.hash_layer.weight)
    metrics = experiment.evaluate().metrics
    images, rows = experiment.query_set, []
    for row, path in enumerate(images.masks):
        there = torch.from_numpy(np.asarray(Image.open(path).convert("L"))[16:48, 16:48] > 127)
        view = experiment.query_images([row])
        with torch.no_grad():
            heat = attention(experiment.backbone(view), (32, 32))[0]
            order = heat.flatten().sort(descending=True, stable=True).indices[:9].tolist()
            gone = torch.zeros(32, 32, dtype=torch.bool)
            for place in order:
                y, x = divmod(place, 32)
                gone[y : y + 8, x : x + 8] = True
            code, other = (experiment.method.embed(v) >= 0 for v in (view, view * ~gone))
        rows.append(
            (gone.float().mean(), there[gone].float().mean(), (code != other).float().mean())
        )
    for name, values in zip(
        ("erased", "erased_object", "erased_bits"), zip(*rows, strict=True), strict=True
    ):
        assert metrics[name] == pytest.approx(np.mean(values), abs=0.03), name
    other = Hashing(parameters(birds, tmp_path / "other", method="adsh"))
    assert "erased" not in other.evaluate().metrics and other.erasing() == {}
