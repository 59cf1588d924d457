import dataclasses
import json
import os
import signal
import subprocess
import sys

import pytest
import torch
from fieldguide.birds.guide import make_fieldguide
from fieldmarks.data.pixels import PixelCache
from fieldmarks.evaluation.code_usage import distinct_class_codes
from fieldmarks.evaluation.hamming import mean_average_precision
from fieldmarks.experiments import hashing
from fieldmarks.experiments.hashing import Parameters
from fieldmarks.experiments.result import read_result
from fieldmarks.search.codes import CodeIndex
from fieldmarks.training import Interrupted
from PIL import Image

SMALL = {
    "resize": 64,
    "size": 48,
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
    return make_fieldguide(
        tmp_path_factory.mktemp("data") / "birds", classes=4, images=8, size=64, seed=0
    )


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("FIELDMARKS_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def parameters(root, out, **changes):
    return Parameters(**{**SMALL, "root": str(root), "out": str(out), **changes})


def run(p):
    experiment = hashing.prepare(p)
    history = hashing.train(experiment)
    return experiment, history, hashing.evaluate(experiment, resamples=200)


def test_from_data_to_result(birds, tmp_path):
    experiment, history, retrieval = run(parameters(birds, tmp_path / "run"))
    assert len(experiment.database) == len(experiment.queries) == 16 and len(history.epochs) == 3
    assert torch.equal(retrieval.database_codes, experiment.method.codes)
    expected = mean_average_precision(
        retrieval.query_codes,
        experiment.queries.labels,
        retrieval.database_codes,
        experiment.database.labels,
    )
    result = json.loads(
        hashing.finish(experiment, history, retrieval, [], notebook="fcaenet.ipynb").read_text()
    )
    assert result["method"] == "fcaenet" and result["metrics"]["map"] == expected
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
    best = max(row["map"] for row in result["curves"]["evaluations"])
    assert result["best_on_test"]["map"] == best
    assert all(0 <= value <= 1 for value in result["metrics"].values())
    assert (
        Parameters(
            **{k: tuple(v) if isinstance(v, list) else v for k, v in result["parameters"].items()}
        )
        == experiment.parameters
    )


def test_the_saved_codes_and_index_say_what_was_measured(birds, tmp_path):
    experiment, history, retrieval = run(parameters(birds, tmp_path / "run"))
    hashing.finish(experiment, history, retrieval, [], notebook="")
    again = hashing.load_codes(experiment, tmp_path / "run")
    assert again.metrics == retrieval.metrics and torch.equal(
        again.query_codes, retrieval.query_codes
    )
    index = CodeIndex.load(tmp_path / "run" / "database.index")
    distances, positions = index.search(retrieval.query_codes, 16)
    assert index.bits == 12 and torch.equal(
        distances, retrieval.distances(torch.arange(16)).gather(1, positions)
    )


@pytest.mark.parametrize("stop_at", [2, 4, 7])
def test_a_run_taken_up_again_ends_as_a_straight_one_codes_included(birds, tmp_path, stop_at):
    """Four steps make an iteration, at whose end the codes are renewed: before, at and after that."""
    straight, _, whole = run(parameters(birds, tmp_path / "straight"))
    stopped = hashing.prepare(parameters(birds, tmp_path / "stopped"))
    steps, after_step = [0], stopped.method.after_step

    def counted():
        after_step()
        steps[0] += 1
        if steps[0] == stop_at:
            os.kill(os.getpid(), signal.SIGINT)

    stopped.method.after_step = counted
    with pytest.raises(Interrupted, match=f"stopped at step {stop_at} of 12|stopped after epoch 1"):
        hashing.train(stopped)
    resumed, _, again = run(parameters(birds, tmp_path / "stopped"))
    assert torch.equal(again.database_codes, whole.database_codes) and torch.equal(
        again.query_codes, whole.query_codes
    )
    for (name, one), two in zip(
        straight.method.state_dict().items(), resumed.method.state_dict().values()
    ):
        assert torch.equal(one, two), name


@pytest.mark.parametrize("method", ["adsh", "dpsh", "dsh", "hashnet", "lsh", "itq", "sh", "sdh"])
def test_every_baseline_goes_through_the_same_steps(birds, tmp_path, method):
    experiment, history, retrieval = run(
        parameters(birds, tmp_path / "run", method=method, epochs=1, bits=6)
    )
    assert len(history.epochs) == (0 if method in hashing.SHALLOW else 1)
    assert retrieval.query_codes.shape == retrieval.database_codes.shape == (16, 6)
    assert 0 < retrieval.metrics["map"] <= 1


def test_labels_are_numbered_over_the_classes_that_are_there(birds, tmp_path):
    database, queries = hashing.load_split(parameters(birds, tmp_path, max_classes=3))
    assert (
        database.labels.unique().tolist() == queries.labels.unique().tolist() == [0, 1, 2]
        and len(database.class_names) == 3
    )


def test_validation_queries_come_from_the_training_images_alone(birds, tmp_path):
    database, queries = hashing.load_split(parameters(birds, tmp_path))
    rest, held = hashing.load_split(parameters(birds, tmp_path, validation=0.25))
    assert set(rest.paths) | set(held.paths) == set(database.paths) and not set(held.paths) & set(
        queries.paths
    )
    assert not set(rest.paths) & set(held.paths) and held.class_counts().tolist() == [1] * 4
    assert held.paths == hashing.load_split(parameters(birds, tmp_path, validation=0.25))[1].paths


def test_neighbours_are_the_nearest_and_ties_follow_no_list():
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(2, (40, 3), generator=generator) * 2.0 - 1
    labels = torch.arange(40) // 10
    retrieval = hashing.measure(codes[:8], labels[:8], codes, labels)
    found, distances, correct = retrieval.neighbours(torch.arange(8), 6, seed=1)
    for row in range(8):
        naive = [(codes[row] != code).sum().item() for code in codes]
        assert (
            distances[row].tolist() == sorted(naive)[:6] == [naive[i] for i in found[row].tolist()]
        )
        assert len(set(found[row].tolist())) == 6 and correct[row].tolist() == [
            labels[i] == labels[row] for i in found[row].tolist()
        ]
    assert not torch.equal(found, retrieval.neighbours(torch.arange(8), 6, seed=2)[0])


def test_collapsed_codes_are_told_by_the_share_of_class_codes():
    labels = torch.arange(12) // 3
    apart = torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]])[labels]
    assert (
        distinct_class_codes(apart, labels) == 1
        and distinct_class_codes(torch.ones(12, 2), labels) == 0.25
    )


def test_the_baseline_is_adsh_of_as_many_bits_beside_this_run(birds, tmp_path):
    experiment = hashing.prepare(parameters(birds, tmp_path / "alone" / "run", epochs=1))
    assert hashing.compare_with(experiment) is None
    for name, changes in {"a": {"method": "adsh"}, "b": {"method": "adsh", "bits": 8}}.items():
        one, history, retrieval = run(
            parameters(birds, tmp_path / "runs" / name, epochs=1, **changes)
        )
        hashing.finish(one, history, retrieval, [], "")
    name, found = hashing.compare_with(
        hashing.prepare(parameters(birds, tmp_path / "runs" / "c", epochs=1))
    )
    assert name == "adsh" and found.query_codes.shape[1] == 12
    named = hashing.prepare(
        parameters(birds, tmp_path / "elsewhere", epochs=1, baseline=str(tmp_path / "runs" / "b"))
    )
    assert hashing.compare_with(named)[1].query_codes.shape[1] == 8
    with pytest.raises(ValueError, match="is not a finished run"):
        hashing.compare_with(
            dataclasses.replace(named, parameters=parameters(birds, "", baseline=str(tmp_path)))
        )


def folder_of_classes(root, counts):
    """Classes with a train and a test part."""
    for part in ("train", "test"):
        for number, count in enumerate(counts):
            (root / part / f"class_{number}").mkdir(parents=True)
            for i in range(count if part == "train" else 2):
                Image.new("RGB", (70, 66), (40 * number, 20 * i, 90)).save(
                    root / part / f"class_{number}" / f"{part}{i}.png"
                )
    return root


@pytest.mark.parametrize(
    "counts, changes, message",
    [
        ((4, 1, 4), {"sample": 0}, "1 training class has one image only, which has no positive"),
        (
            (4, 4),
            {"sample": 9},
            "9 images are to be sampled in each iteration, but there are 8 training images: use a sample of 1 to 8",
        ),
        (
            (4, 4),
            {"sample": 0, "region_size": 49},
            "region_size is 49, but images are 48 px a side",
        ),
        ((2, 2), {"sample": 0, "validation": 0.5}, "validation needs classes of at least 3 images"),
        ((4,), {"sample": 0}, "all images are of one class: hashing needs at least two"),
        ((4, 4), {"sample": 0, "passes": 0}, "passes is 0"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(tmp_path, counts, changes, message):
    root = folder_of_classes(tmp_path / "pictures", counts)
    with pytest.raises((ValueError, OSError), match=message) as caught:
        hashing.prepare(parameters(root, tmp_path / "run", dataset="folder", **changes))
    assert "\n" not in str(caught.value) and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"method": "fcae"}, "method is 'fcae'"),
        ({"bits": 0}, "bits is 0"),
        ({"negative": "minus"}, "negative is 'minus'"),
        ({"validation": 1.0}, "validation is 1.0"),
        ({"top": -1}, "must not be negative"),
        ({"schedule": "milestone"}, "schedule is 'milestone'"),
    ],
)
def test_impossible_parameters_are_refused_before_anything_is_loaded(changes, message):
    with pytest.raises(ValueError, match=message):
        Parameters(**{**SMALL, **changes})


def test_outputs_that_are_not_numbers_are_named(birds, tmp_path):
    experiment = hashing.prepare(parameters(birds, tmp_path / "run"))
    torch.nn.init.constant_(experiment.method.hash_layer.bias, torch.nan)
    with pytest.raises(
        ValueError, match="16 of 16 images are not numbers, first image 0: the network has diverged"
    ):
        hashing.evaluate(experiment)


def test_the_whole_experiment_from_a_command_line(birds, tmp_path):
    words = [
        f"{k}={json.dumps(v) if not isinstance(v, str) else v}"
        for k, v in {**SMALL, "epochs": 1}.items()
    ]
    command = [
        sys.executable,
        "-m",
        "fieldmarks.experiments.hashing",
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
    assert "map " in done.stdout and read_result(tmp_path / "run")["metrics"]["map"] > 0
    wrong = subprocess.run([*command, "bit=3"], capture_output=True, text=True, timeout=300)
    assert (
        wrong.returncode == 2
        and wrong.stderr == "hashing: unknown parameter 'bit': did you mean 'bits'?\n"
    )


# The stream


def test_an_iteration_goes_several_times_through_its_sample(birds, tmp_path):
    experiment = hashing.prepare(parameters(birds, tmp_path / "run"))
    stream = experiment.stream
    first, second = (torch.cat(stream.plan(iteration)) for iteration in (0, 1))
    for whole in (first, second):
        one, two = whole.split(14)
        assert (
            len(set(one.tolist())) == 14
            and set(one.tolist()) == set(two.tolist())
            and not torch.equal(one, two)
        )
    assert set(first.tolist()) != set(second.tolist())
    batches = list(stream.epoch(0))
    assert [len(batch.images) for batch in batches] == [8, 6, 8, 6] and [
        batch.last for batch in batches
    ] == [False] * 3 + [True]
    for batch, resumed in zip(batches[2:], stream.epoch(0, start=2)):
        assert torch.equal(batch.images, resumed.images) and torch.equal(
            batch.positives, resumed.positives
        )


def test_a_positive_is_another_image_of_the_class_and_every_other_one_comes(birds, tmp_path):
    stream = hashing.prepare(parameters(birds, tmp_path / "run")).stream
    index, partners = torch.arange(16), {i: set() for i in range(16)}
    for step in range(200):
        for image, positive in stream.pictures(index, step).tolist():
            partners[image].add(positive)
    for image, found in partners.items():
        assert found == {
            i for i in range(16) if i != image and stream.labels[i] == stream.labels[image]
        }


def test_two_processes_see_the_rows_of_one(birds, tmp_path):
    experiment = hashing.prepare(parameters(birds, tmp_path / "run"))
    assert isinstance(experiment.database_pixels, PixelCache)
    from fieldmarks.data.batches import SampledStream

    options = {"sample": 14, "passes": 1, "seed": 3}
    make = lambda **more: SampledStream(  # noqa: E731
        experiment.database_pixels,
        experiment.database.labels,
        experiment.training_views,
        8,
        **options,
        **more,
    )
    whole, halves = (
        list(make().epoch(0)),
        [list(make(rank=rank, world=2).epoch(0)) for rank in (0, 1)],
    )
    for batch, left, right in zip(whole, *halves):
        assert torch.equal(batch.images, torch.cat([left.images, right.images]))
        assert torch.equal(batch.positives, torch.cat([left.positives, right.positives]))
    with pytest.raises(
        ValueError,
        match="the last batch of an iteration, 5 images, cannot be shared by 2 processes",
    ):
        SampledStream(
            experiment.database_pixels,
            experiment.database.labels,
            experiment.training_views,
            8,
            sample=13,
            passes=1,
            world=2,
        )
