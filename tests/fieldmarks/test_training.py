import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from fieldmarks import checkpoints, training
from fieldmarks.data.batches import TrainingStream
from fieldmarks.methods.method import Method
from fieldmarks.training import (
    Diverged,
    Interrupted,
    Settings,
    choose_device,
    choose_precision,
    fit,
    lr_factor,
    saved_history,
)
from helpers import training_run
from helpers.full_disk import FULL_DISKS

HERE = Path(__file__).parents[1] / "helpers"


def start(folder, *words, processes=1):
    launcher = (
        [sys.executable]
        if processes == 1
        else [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            f"--nproc-per-node={processes}",
        ]
    )
    return subprocess.run(
        [*launcher, str(HERE / "training_run.py"), str(folder), *words],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=300,
    )


def outcome(folder, method="vapnet", rank=0):
    return torch.load(folder / f"{method}-{rank}.pt", weights_only=True)


def losses(state):
    return [{k: v for k, v in row.items() if k != "images_per_second"} for row in state["epochs"]]


def assert_same(one, other):
    assert losses(one) == losses(other) and one["evaluations"] == other["evaluations"]
    for key, value in one["method"].items():
        assert torch.equal(value, other["method"][key]), key
    assert torch.equal(one["embeddings"], other["embeddings"])


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    folder = tmp_path_factory.mktemp("straight")
    assert start(folder).returncode == 0
    return outcome(folder)


def test_training_learns(straight):
    assert straight["epochs"][-1]["L_a"] < straight["epochs"][0]["L_a"] - 0.1
    assert straight["evaluations"][-1]["recall@1"] > 0.5 > 2 / 6
    assert [row["epoch"] for row in straight["epochs"]] == [1, 2, 3, 4]


def test_a_run_killed_between_checkpoints_and_resumed_ends_as_a_straight_run(tmp_path, straight):
    killed = start(tmp_path, "kill_at=13")  # in the third epoch of five steps
    assert killed.returncode == -signal.SIGKILL and (tmp_path / "vapnet" / "last.pt").exists()
    assert not (tmp_path / "vapnet-0.pt").exists()
    assert start(tmp_path).returncode == 0
    assert_same(outcome(tmp_path), straight)


def test_a_run_stopped_within_an_epoch_and_resumed_ends_as_a_straight_run(tmp_path, straight):
    stopped = start(tmp_path, "stop_at=12")
    assert stopped.returncode != 0 and "stopped at step 12 of 20; saved" in stopped.stderr
    assert start(tmp_path).returncode == 0
    assert_same(outcome(tmp_path), straight)


def test_a_finished_run_resumed_has_nothing_left_to_do(tmp_path):
    first = training_run.run(tmp_path, epochs=2)
    again = training_run.run(tmp_path, epochs=2, kill_at=1)  # would be killed at its first step
    assert again[1].epochs == first[1].epochs and torch.equal(first[2], again[2])


def test_how_far_a_run_is_can_be_read_from_its_folder(tmp_path):
    with pytest.raises(ValueError, match="no '.*last.pt': the run saves after its first"):
        saved_history(tmp_path)
    _, history, _ = training_run.run(tmp_path, epochs=2)
    assert saved_history(str(tmp_path)) == history


def test_two_processes_give_the_losses_and_embeddings_of_one(tmp_path):
    # Batch statistics of half a batch differ, and so would dropout's: both are left out here.
    options = {"norm": "group", "dropout": 0, "precision": "fp32"}
    methods = ["vapnet", "multisimilarity", "proxynca++", "fcaenet", "dpsh"]
    words = [
        f"{name}={json.dumps(value)}" for name, value in {**options, "methods": methods}.items()
    ]
    done = start(tmp_path, *words, processes=2)
    assert done.returncode == 0, done.stderr[-2000:]
    for method in methods:
        one = training_run.outcome(*training_run.run(None, method, **options))
        first, second = outcome(tmp_path, method, 0), outcome(tmp_path, method, 1)
        assert one["embeddings"].shape == first["embeddings"].shape
        assert torch.equal(first["embeddings"], second["embeddings"])
        torch.testing.assert_close(first["embeddings"], one["embeddings"], atol=5e-4, rtol=1e-3)
        assert losses(first) == losses(second)
        for a, b in zip(one["epochs"], first["epochs"], strict=True):
            for term in set(a) - {"epoch", "images_per_second"}:
                # A pixel of nearly equal heat may be erased in one and not in the other: abs, for
                # L_self.
                assert b[term] == pytest.approx(a[term], rel=1e-3, abs=1e-5), (method, term)
        if method == "fcaenet":
            assert torch.equal(first["method"]["codes"], one["method"]["codes"])
            assert torch.equal(second["method"]["codes"], one["method"]["codes"])


def test_a_pair_network_killed_and_resumed_ends_as_a_straight_run(tmp_path):
    options = ['methods=["pan"]', 'optimizer="adam"', "restore_best=true", "epochs=9"]
    assert start(tmp_path / "straight", *options).returncode == 0
    assert start(tmp_path, *options, "kill_at=6").returncode == -signal.SIGKILL
    assert (tmp_path / "pan" / "last.pt").exists() and not (tmp_path / "pan-0.pt").exists()
    assert start(tmp_path, *options).returncode == 0
    assert_same(outcome(tmp_path, "pan"), outcome(tmp_path / "straight", "pan"))


def test_the_best_weights_come_back_with_and_without_a_folder(tmp_path):
    options = {"restore_best": True, "epochs": 4, "lr": 0.3}
    method, history, embeddings = training_run.run(tmp_path, **options)
    best = history.best("recall@1")["epoch"]
    assert best < 4  # or the test would show nothing
    kept = checkpoints.load_checkpoint(tmp_path / "best.pt")
    assert kept["step"] == 5 * best
    for name, value in method.state_dict().items():
        assert torch.equal(value, kept["method"][name])
    assert torch.equal(training_run.run(None, **options)[2], embeddings)


def test_any_loader_of_tensors_trains_and_resumes(tmp_path):
    pictures = training_run.Pictures()
    images = pictures.canvas[:, :, :16, :16].float() / 255
    data = torch.utils.data.TensorDataset(images, pictures.labels)

    def run(folder, epochs):
        loader = torch.utils.data.DataLoader(data, batch_size=8, shuffle=True)
        model = training_run.build()
        settings = Settings(epochs=epochs, lr=0.1, schedule="constant")
        history = fit(model, loader, settings, folder=folder, progress="none")
        return model, history

    straight, history = run(None, 3)
    assert history.epochs[-1]["L_a"] < history.epochs[0]["L_a"]
    model, _ = run(tmp_path / "x", 3)
    for name, value in model.state_dict().items():
        assert torch.equal(value, straight.state_dict()[name]), name


@pytest.mark.parametrize("schedule", ["constant", "cosine", "step", "milestones"])
def test_learning_rates_follow_their_formulas(schedule):
    settings = Settings(
        epochs=10,
        schedule=schedule,
        warmup_steps=4,
        step_epochs=3,
        lr_decay=0.5,
        milestones=(2, 3, 7),
    )
    for step in range(70):
        expected = min(1, (step + 1) / 4)
        if schedule == "cosine":
            expected *= 0.5 * (1 + math.cos(math.pi * max(0, step - 4) / (70 - 4)))
        if schedule == "step":
            expected *= 0.5 ** (step // 7 // 3)
        if schedule == "milestones":
            expected *= 0.5 ** [0, 0, 1, 2, 2, 2, 2, 3, 3, 3][step // 7]
        assert lr_factor(step, 7, settings) == pytest.approx(expected)


@pytest.mark.parametrize("precision", ["bf16", "fp16", "fp32"])
def test_precisions_train_to_about_the_same(tmp_path, precision, straight):
    _, history, _ = training_run.run(None, precision=precision)
    assert history.epochs[-1]["L_a"] == pytest.approx(straight["epochs"][-1]["L_a"], rel=0.1)


def test_auto_precision_follows_the_hardware(monkeypatch):
    plain, depthwise = nn.Conv2d(3, 8, 3), nn.Sequential(nn.Conv2d(8, 8, 3, groups=8))
    cpu = torch.device("cpu")
    monkeypatch.setattr(training, "cpu_has_bf16", lambda: True)
    assert (
        choose_precision("auto", cpu, plain) == "bf16"
        and choose_precision("auto", cpu, depthwise) == "fp32"
    )
    monkeypatch.setattr(training, "cpu_has_bf16", lambda: False)
    assert (
        choose_precision("auto", cpu, plain) == "fp32"
        and choose_precision("fp16", cpu, plain) == "fp16"
    )


def test_a_device_that_is_not_there_is_refused():
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="device 'cuda' is not available"):
            choose_device("cuda")
    with pytest.raises(ValueError, match="device 'quantum'"):
        choose_device("quantum")


def curves_of(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    names = events.Tags()["scalars"]
    return {name: [(each.step, each.value) for each in events.Scalars(name)] for name in names}


def test_curves_for_tensorboard_are_those_of_the_history(tmp_path):
    loader = [(torch.rand(4, 3, 16, 16), torch.tensor([0, 1, 0, 1]))]

    def run(epochs):
        settings = Settings(epochs=epochs, lr=0.01, schedule="constant")
        options = {"folder": tmp_path, "progress": "none", "tensorboard": True}
        return fit(training_run.build(), loader, settings, **options)

    run(2)
    history = run(2)  # has nothing left to do
    found = curves_of(tmp_path)
    assert set(found) == set(history.epochs[0]) - {"epoch"}
    for name, values in found.items():
        assert values == [(row["epoch"], pytest.approx(row[name])) for row in history.epochs]


def test_tensorboard_that_cannot_write_says_so(tmp_path, monkeypatch):
    loader = [(torch.rand(4, 3, 16, 16), torch.tensor([0, 1, 0, 1]))]
    with pytest.raises(ValueError, match="tensorboard needs a folder"):
        fit(training_run.build(), loader, Settings(epochs=1), tensorboard=True)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ValueError, match="install the package tensorboard"):
        fit(training_run.build(), loader, Settings(epochs=1), folder=tmp_path, tensorboard=True)
    assert not list(tmp_path.iterdir())


class Failing(Method):
    """Its loss is what a list says, step by step."""

    def __init__(self, values):
        super().__init__(nn.Linear(1, 1))
        self.values = iter(values)

    def losses(self, images, labels):
        zero = 0 * self.backbone.weight.sum()
        return {"L_a": zero + next(self.values), "L_c": zero + 1.0}


@pytest.mark.parametrize(
    "values, step, shown",
    [
        ([1.0, 1.0, math.nan, 1.0, 1.0], 2, "L_a = nan, L_c = 1"),
        ([1.0, 1.0, 1.0, 1.0, math.inf], 4, "L_a = inf"),
        ([1.0, 5e6, 1.0, 1.0, 1.0], 1, "L_a = 5e"),
    ],
)
def test_divergence_stops_with_the_step_and_the_terms_and_keeps_the_last_good_checkpoint(
    tmp_path, values, step, shown
):
    pictures = training_run.Pictures()
    stream = TrainingStream(
        pictures, pictures.labels, training_run.TrainingViews(16, **training_run.PLAIN), 8
    )
    method = Failing([1.0] * 5 + values)  # a good first epoch
    with pytest.raises(Diverged, match=f"diverged at step {5 + step}: .*{shown}"):
        fit(method, stream, Settings(epochs=2, lr=0.01), folder=tmp_path, progress="none")
    assert checkpoints.load_checkpoint(tmp_path / "last.pt")["step"] == 5
    assert [p.name for p in tmp_path.iterdir()] == ["last.pt"]


def test_stopping_saves_and_leaves_the_signal_handlers_as_they_were(tmp_path):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted, match="stopped at step 7 of 20; saved"):
        training_run.run(tmp_path, stop_at=7)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    assert checkpoints.load_checkpoint(tmp_path / "last.pt")["step"] == 7


def test_best_checkpoint_is_the_best_evaluation(tmp_path):
    _, history, _ = training_run.run(tmp_path)
    best = history.best("recall@1")
    assert best["recall@1"] == max(row["recall@1"] for row in history.evaluations)
    kept = checkpoints.load_checkpoint(tmp_path / "best.pt")
    assert kept["step"] == best["epoch"] * 5 and kept["history"]["evaluations"][-1] == best


def test_a_checkpoint_from_other_parameters_is_refused_and_kept(tmp_path):
    training_run.run(tmp_path, epochs=1)
    before = (tmp_path / "last.pt").read_bytes()
    with pytest.raises(
        ValueError, match="comes from other parameters: settings.lr was 0.1 there and is 0.2 now"
    ):
        training_run.run(tmp_path, epochs=1, lr=0.2)
    assert (tmp_path / "last.pt").read_bytes() == before


def test_a_truncated_checkpoint_is_refused(tmp_path):
    training_run.run(tmp_path, epochs=1)
    whole = (tmp_path / "last.pt").read_bytes()
    (tmp_path / "last.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(
        ValueError, match="last.pt' is damaged .*delete the run's folder and run it again"
    ):
        training_run.run(tmp_path, epochs=1)


@pytest.mark.parametrize("disk, told", FULL_DISKS)
def test_a_full_disk_leaves_the_last_checkpoint_and_nothing_else(tmp_path, monkeypatch, disk, told):
    straight = training_run.outcome(*training_run.run(tmp_path / "straight"))
    save, count = training.save_checkpoint, [0]

    def filling_up(path, state):
        count[0] += 1
        if count[0] < 3:  # last.pt and best.pt of the first epoch
            return save(path, state)
        with disk():
            save(path, state)

    folder = tmp_path / "full"
    monkeypatch.setattr(training, "save_checkpoint", filling_up)
    with pytest.raises(OSError, match=f"cannot write .*t': {told}; nothing was left behind: "):
        training_run.run(folder)
    monkeypatch.undo()
    assert checkpoints.load_checkpoint(folder / "last.pt")["step"] == 5
    assert sorted(p.name for p in folder.iterdir()) == ["best.pt", "last.pt"]
    resumed = training_run.outcome(*training_run.run(folder))
    assert losses(resumed) == losses(straight)
    assert resumed["evaluations"] == straight["evaluations"]
    assert resumed["embeddings"].equal(straight["embeddings"])


def test_an_epoch_is_one_plain_line(capsys):
    training_run.run(None, epochs=2, progress="lines")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and lines[0].startswith("epoch   1/2  L_a ")
    assert "recall@1" in lines[1] and "images/s" in lines[1] and "\r" not in lines[1]


@pytest.mark.parametrize(
    "options, message",
    [
        ({"optimizer": "sdg"}, "optimizer is 'sdg'"),
        ({"schedule": "cos"}, "schedule is 'cos'"),
        ({"precision": "fp8"}, "precision is 'fp8'"),
        ({"lr": 0.0}, "lr is 0.0: it must be positive"),
        ({"epochs": -1}, "epochs is -1: it must be at least 0"),
    ],
)
def test_impossible_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Settings(**options)
