"""The notebook as papermill runs it, at smoke size."""
import json
import sys
from pathlib import Path

import pytest

from fieldmarks.experiments.fewshot import Parameters

sys.path.insert(0, str(Path(__file__).parent))
from papermill_runs import check_figures, check_output, check_parameters_cell, papermill  # noqa: E402

SMOKE = {
    "fieldguide": "12 classes, 8 images, 64 px, seed 0, standard", "resize": 64, "size": 48, "backbone": "resnet10t", "weights": "none", "hidden": 16,
    "concepts": 5, "epochs": 4, "evaluate_every": 2, "ways": 3, "shots": 2, "queries": 6, "episodes": 20, "validation_episodes": 10, "device": "cpu",
}
ALWAYS = ["methods.png", "episode_middling.jpg", "episode_hardest.jpg"]
FIGURES = {
    "pan_supervised": ["classes.jpg", "curves.png", *ALWAYS, "pairs.jpg", "concepts.png"],
    "multitask": ["classes.jpg", "curves.png", *ALWAYS, "pairs.jpg"],
    "protonet": ["classes.jpg", *ALWAYS],
}


@pytest.mark.parametrize("method", FIGURES)
def test_runs_whole_and_leaves_a_result_with_figures_to_look_at(tmp_path, method):
    done = papermill(tmp_path, "pan_fewshot.ipynb", **SMOKE, method=method)
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["status"] == "complete" and result["notebook"] == "notebooks/pan_fewshot.ipynb" and result["experiment"] == "fewshot"
    assert result["figures"] == FIGURES[method]
    check_figures(tmp_path / "run", result["figures"])
    check_output(tmp_path / "executed.ipynb", "epoch   4/4" if method != "protonet" else "certainty is 3 or more")


def test_the_parameters_cell_sets_every_parameter_to_its_default():
    check_parameters_cell("pan_fewshot.ipynb", Parameters)
