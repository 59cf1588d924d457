"""The test of the design: a sixth experiment is one file, and everything that works on the five
works on it."""

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import torch
import yaml

import fieldmarks
from fieldmarks.experiments.experiment import experiment_class
from fieldmarks.experiments.result import read_result
from fieldmarks.training import Interrupted
from helpers.experiments import (
    arguments,
    assert_same_weights,
    finish,
    interrupt,
    measured_again,
    run,
)
from helpers.sixth_experiment import NearestMean, Parameters

SMALL = {
    "generated": {"classes": 4, "images": 4, "size": 32},
    "epochs": 2,
    "progress": "none",
    "device": "cpu",
    "precision": "fp32",
}
TESTS = Path(__file__).parents[2]


def parameters(out, **changes):
    return Parameters(**{**SMALL, "out": str(out), **changes})


def test_it_is_one_short_file():
    assert len((TESTS / "helpers" / "sixth_experiment.py").read_text().splitlines()) < 60
    assert experiment_class("helpers.sixth_experiment") is NearestMean


def test_its_parameters_are_composed():
    p = Parameters()
    assert (p.scale, p.backbone, p.epochs, p.crop_scale) == (2.0, "resnet10t", 10, (0.3, 1.0))
    with pytest.raises(ValueError, match="lr is 0.0: it must be positive"):
        Parameters(lr=0.0)
    assert p.folder().name.startswith("sixth_experiment-")


def test_it_trains_resumes_is_saved_and_comes_back(tmp_path):
    experiment, history, scores = run(NearestMean(parameters(tmp_path / "straight")))
    assert len(history.epochs) == len(history.evaluations) == 2
    stopped = NearestMean(parameters(tmp_path / "stopped"))
    interrupt(stopped.method, 3)
    with pytest.raises(Interrupted):
        stopped.train()
    resumed = NearestMean(parameters(tmp_path / "stopped"))
    folder = finish(resumed)
    assert_same_weights(experiment.method, resumed.method)
    assert measured_again(NearestMean, folder).metrics == scores.metrics
    result = read_result(folder)
    assert result["experiment"] == "sixth_experiment" and result["dataset"] == "fieldguide"
    assert result["parameters"]["generated"] == {
        **SMALL["generated"],
        "seed": 0,
        "difficulty": "standard",
    }
    low, high = result["intervals"]["accuracy"]
    assert low <= result["metrics"]["accuracy"] <= high
    assert [other.name for other, _ in experiment.siblings()] == ["stopped"]
    method = fieldmarks.load_run(folder, "cpu")
    assert not method.training
    images = experiment.pictures(experiment.test_pixels, range(4))
    with torch.no_grad():
        actual = method.embed(images)
    torch.testing.assert_close(actual, scores.saved["query"][:4], rtol=1e-4, atol=1e-5)


def start(*command):
    path = os.pathsep.join(filter(None, (str(TESTS), os.environ.get("PYTHONPATH"))))
    return subprocess.run(
        [sys.executable, "-m", *command],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path},
        timeout=500,
    )


@pytest.mark.slow
def test_it_runs_from_a_command_line(tmp_path):
    given = arguments({**SMALL, "out": str(tmp_path / "run")})
    done = start("helpers.sixth_experiment", *given)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("accuracy ")
    assert read_result(tmp_path / "run")["counts"]["classes"] == 4
    wrong = start("helpers.sixth_experiment", "scales=3")
    message = "sixth_experiment: unknown parameter 'scales': did you mean 'scale'?\n"
    assert (wrong.returncode, wrong.stderr) == (2, message)


NOTEBOOK = (
    """
dataset = "fieldguide"
scale = 2.0
out = ""
card = ""
""",
    """
from helpers.sixth_experiment import NearestMean

experiment = NearestMean.from_notebook(globals())
history = experiment.train()
scores = experiment.evaluate()
experiment.finish(history, scores, notebook="notebooks/sixth.ipynb")
""",
)
CARD = {
    "title": "A sixth table",
    "paper": "None",
    "table": "Table 6",
    "notebook": "notebooks/sixth.ipynb",
    "experiment": "helpers.sixth_experiment",
    "grid": {"soft": {"scale": 1.0}, "sharp": {"scale": 8.0}},
    "profiles": {"smoke": {"datasets": ["fieldguide"], "parameters": {**SMALL, "epochs": 1}}},
}


def write_lab(folder):
    """The notebook and its card; the card."""
    cells = [nbformat.v4.new_code_cell(source.strip()) for source in NOTEBOOK]
    cells[0].metadata["tags"] = ["parameters"]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    (folder / "notebooks").mkdir(parents=True)
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    nbformat.write(notebook, folder / "notebooks" / "sixth.ipynb")
    card = folder / "labs" / "none" / "table6.yaml"
    card.parent.mkdir(parents=True)
    card.write_text(yaml.safe_dump(CARD, sort_keys=False))
    return card


@pytest.mark.slow
def test_it_runs_as_a_card(tmp_path):
    card = write_lab(tmp_path)
    command = ("fieldlab", "run", str(card), "--profile", "smoke", "--out", str(tmp_path / "runs"))
    done = start(*command)
    assert done.returncode == 0, done.stdout + done.stderr
    results = [read_result(file.parent) for file in tmp_path.glob("runs/**/result.json")]
    assert sorted(result["parameters"]["scale"] for result in results) == [1.0, 8.0]
    for result in results:
        assert result["card"] == "none-table6" and result["experiment"] == "sixth_experiment"
        assert result["notebook"] == "notebooks/sixth.ipynb"
        assert result["curves"]["epochs"][-1]["epoch"] == 1
    wrong = start(*command, "--set", "scales=3")
    assert wrong.returncode == 2 and "did you mean 'scale'?" in wrong.stderr
