"""What the tests of experiments share."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

from fieldmarks.experiments.result import read_result
from fieldmarks.experiments.scores import Scores


def run(experiment):
    """Train and evaluate: (experiment, history, scores)."""
    return experiment, experiment.train(), experiment.evaluate()


def finish(experiment) -> Path:
    """Go through all of it; the folder of the finished run."""
    _, history, scores = run(experiment)
    experiment.finish(history, scores)
    return experiment.folder


def interrupt(method, step: int) -> None:
    """Let the stop button be pressed after so many steps of training."""
    steps, after_step = [0], method.after_step

    def counted():
        after_step()
        steps[0] += 1
        if steps[0] == step:
            os.kill(os.getpid(), signal.SIGINT)

    method.after_step = counted


def assert_same_weights(one, other) -> None:
    first, second = one.state_dict(), other.state_dict()
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def arguments(values: dict) -> list[str]:
    """name=value words of a command line."""
    return [f"{k}={v if isinstance(v, str) else json.dumps(v)}" for k, v in values.items()]


def start(module: str, *options: str) -> subprocess.CompletedProcess:
    """`python -m module words` in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", module, *options],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=300,
    )


def measured_again(cls, folder: Path) -> Scores:
    """The scores from what a run saved; they are those of its result.json."""
    result = read_result(folder)
    scores = cls.measure(load_file(folder / cls.saved_file), result["parameters"])
    assert scores.metrics == result["metrics"] and list(scores.metrics) == list(result["metrics"])
    assert scores.intervals == result["intervals"]
    return scores
