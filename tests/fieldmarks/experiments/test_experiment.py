"""What all experiments share, tried on the smallest: helpers/sixth_experiment.py."""

import json
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure

from fieldmarks.experiments.experiment import Experiment, experiment_class
from fieldmarks.experiments.result import read_result
from fieldmarks.files import release
from helpers.experiments import arguments, finish, run
from helpers.sixth_experiment import NearestMean, Parameters

SMALL = {
    "generated": {"classes": 4, "images": 4, "size": 32},
    "epochs": 1,
    "progress": "none",
    "device": "cpu",
    "precision": "fp32",
}


def parameters(out, **changes):
    return Parameters(**{**SMALL, "out": str(out), **changes})


# Finding an experiment


@pytest.mark.parametrize(
    "name, cls",
    [
        ("open_set", "OpenSet"),
        ("hashing", "Hashing"),
        ("outfits", "OutfitMatching"),
        ("fewshot", "FewShot"),
        ("inshop", "InShop"),
        ("fieldmarks.experiments.hashing", "Hashing"),
        ("helpers.sixth_experiment", "NearestMean"),
    ],
)
def test_a_module_names_its_experiment(name, cls):
    actual = experiment_class(name)
    assert issubclass(actual, Experiment) and actual.__name__ == cls
    assert actual.Parameters.kind == name.rpartition(".")[2]


@pytest.mark.parametrize(
    "name, message",
    [
        ("openset", "there is no experiment 'openset': "),
        ("helpers.seventh", "there is no experiment 'helpers.seventh': "),
        ("helpers.experiments", "the module 'helpers.experiments' holds no experiment"),
        ("scores", "the module 'fieldmarks.experiments.scores' holds no experiment"),
    ],
)
def test_a_module_without_an_experiment_is_refused(name, message):
    with pytest.raises(ValueError, match=message) as caught:
        experiment_class(name)
    assert "\n" not in str(caught.value)


# Generated data, the output folder


def test_data_are_drawn_into_the_cache_once(tmp_path, monkeypatch):
    monkeypatch.setenv("FIELDMARKS_CACHE", str(tmp_path / "cache"))
    experiment = NearestMean(parameters(tmp_path / "a"))
    folder = tmp_path / "cache" / "fieldguide-4x4-32px-0-standard-v2"
    assert all(path.is_relative_to(folder) for path in experiment.train_set.paths)
    drawn = {path: path.stat().st_mtime_ns for path in folder.rglob("*.jpg")}
    assert drawn
    again = NearestMean(parameters(tmp_path / "b"))
    assert again.data == experiment.data
    assert drawn == {path: path.stat().st_mtime_ns for path in folder.rglob("*.jpg")}
    # The same pictures from a folder are the same data.
    given = {**SMALL, "generated": {}, "root": str(folder), "out": str(tmp_path / "c")}
    assert NearestMean(Parameters(**given)).data == experiment.data


def test_a_root_may_be_in_the_home_folder(tmp_path, monkeypatch):
    experiment = NearestMean(parameters(tmp_path / "a"))
    root = Path(experiment.train_set.paths[0])
    while not (root / "images.txt").exists():
        root = root.parent
    monkeypatch.setenv("HOME", str(root.parent))
    given = {**SMALL, "generated": {}, "root": f"~/{root.name}", "out": str(tmp_path / "b")}
    assert NearestMean(Parameters(**given)).data == experiment.data


def test_a_folder_is_named_by_what_the_training_depends_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    experiment = NearestMean(Parameters(**SMALL))
    (folder,) = (tmp_path / "runs").iterdir()
    assert experiment.folder == Path("runs") / folder.name
    assert folder.name.startswith("sixth_experiment-")
    other = {**SMALL, "progress": "lines", "card": "a-b", "baseline": "x"}
    assert Parameters(**other).folder() == experiment.folder
    assert Parameters(**{**SMALL, "seed": 1}).folder() != experiment.folder
    full = {"generated": {**SMALL["generated"], "seed": 0, "difficulty": "standard"}}
    assert Parameters(**{**SMALL, **full}).folder() == experiment.folder
    release(folder)


def test_a_notebook_gives_the_parameters(tmp_path):
    cell = {"epochs": 2, "out": str(tmp_path / "run"), "__name__": "__main__", **SMALL}
    experiment = NearestMean.from_notebook(cell)
    assert experiment.parameters == parameters(tmp_path / "run")
    with pytest.raises(ValueError, match="unknown parameter 'epoch': did you mean 'epochs'"):
        NearestMean.from_notebook({"epoch": 2})


def test_a_notebook_shows_a_line_of_what_is_wrong_with_parameters_and_all_of_a_defect(monkeypatch):
    with pytest.raises(ValueError) as refused:
        NearestMean.from_notebook({"epoch": 2})
    assert refused.value._render_traceback_() == [f"ValueError: {refused.value}"]
    monkeypatch.setattr(NearestMean, "__init__", lambda self, parameters: int("x"))
    with pytest.raises(ValueError) as defect:
        NearestMean.from_notebook({"epochs": 2})
    assert not hasattr(defect.value, "_render_traceback_")


# A run


def test_training_ends_in_evaluation_mode(tmp_path):
    experiment = NearestMean(parameters(tmp_path / "run"))
    for _ in range(2):  # when it trains, and when there is nothing left to do
        experiment.train()
        assert not experiment.method.training


def test_figures_are_kept_beside_the_result(tmp_path):
    experiment, history, scores = run(NearestMean(parameters(tmp_path / "run")))
    figure = Figure(figsize=(2, 2))
    figure.subplots().plot([1, 2])
    assert experiment.keep(figure, "curve.png") is figure
    assert experiment.keep(None, "absent.png") is None  # a method that has no such figure
    experiment.finish(history, scores)
    assert read_result(tmp_path / "run")["figures"] == ["curve.png"]
    assert (tmp_path / "run" / "curve.png").stat().st_size > 100


def test_a_run_s_siblings_are_finished_runs_on_the_same_data(tmp_path):
    names = {"a": {}, "b": {"scale": 3.0}, "old": {}}
    names["other"] = {"generated": {**SMALL["generated"], "seed": 1}}
    for name, changes in names.items():
        finish(NearestMean(parameters(tmp_path / name, epochs=0, **changes)))
    file = tmp_path / "old" / "result.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "schema": 1}))
    (tmp_path / "unfinished").mkdir()
    experiment = NearestMean(parameters(tmp_path / "this"))
    assert [folder.name for folder, _ in experiment.siblings()] == ["a", "b"]
    folder, result = experiment.comparison({"scale": 3.0})
    assert folder.name == "b"
    assert experiment.measure_run(folder, result).metrics == result["metrics"]
    assert experiment.comparison({"scale": 4.0}) is None
    other = NearestMean(parameters(tmp_path / "size", size=24))  # runs of other sizes do not count
    assert other.comparison({"scale": 3.0}) is None


@pytest.mark.parametrize(
    "baseline, message",
    [
        ("nowhere", "baseline '.*nowhere' is not a finished run"),
        ("old", "baseline '.*old' was made by an earlier edition"),
        ("other", "baseline '.*other' was made on other data: give a run on the same images"),
    ],
)
def test_a_baseline_that_cannot_be_compared_with_is_refused(tmp_path, baseline, message):
    if baseline == "old":
        finish(NearestMean(parameters(tmp_path / "old", epochs=0)))
        file = tmp_path / "old" / "result.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "schema": 1}))
    if baseline == "other":
        generated = {**SMALL["generated"], "seed": 1}
        finish(NearestMean(parameters(tmp_path / "other", epochs=0, generated=generated)))
    with pytest.raises(ValueError, match=message) as caught:  # and not after training
        NearestMean(parameters(tmp_path / "run", baseline=str(tmp_path / baseline)))
    assert "\n" not in str(caught.value) and not (tmp_path / "run").exists()


def test_a_method_without_a_stream_is_not_trained(tmp_path):
    experiment = NearestMean(parameters(tmp_path / "run"))
    experiment.stream = None
    before = {name: value.clone() for name, value in experiment.method.state_dict().items()}
    history = experiment.train()
    assert history.epochs == [] and history.best("accuracy") is None
    for name, value in experiment.method.state_dict().items():
        assert torch.equal(value, before[name])
    experiment.finish(history, experiment.evaluate())
    assert read_result(tmp_path / "run")["best"] is None


# From a command line


def test_what_a_command_line_prints_and_returns(tmp_path, capsys):
    given = arguments({**SMALL, "out": str(tmp_path / "run")})
    assert NearestMean.main(given) == 0
    printed = capsys.readouterr().out
    metric = read_result(tmp_path / "run")["metrics"]["accuracy"]
    assert printed == f"accuracy {metric:.4f} -> {tmp_path / 'run' / 'result.json'}\n"
    for line, code, message in (
        (["epochs"], 2, "'epochs' is not of the form name=value"),
        (["epochs=none"], 2, "parameter 'epochs' is 'none': it must be a whole number"),
        (["dataset=cub"], 2, "root is empty: give the folder of cub"),
        ([*given, f"root={tmp_path / 'nowhere'}"], 1, "nowhere"),
    ):
        assert NearestMean.main(line) == code
        error = capsys.readouterr().err
        assert error.startswith("sixth_experiment: ") and message in error
