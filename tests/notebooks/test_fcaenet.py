"""The notebook as papermill runs it, at smoke size."""
import json
import sys
from pathlib import Path

import pytest

from fieldmarks.experiments.hashing import Parameters

sys.path.insert(0, str(Path(__file__).parent))
from papermill_runs import check_figures, check_output, check_parameters_cell, papermill  # noqa: E402

SMOKE = {
    "fieldguide": "6 classes, 6 images, 64 px, seed 0, standard", "resize": 64, "size": 48, "backbone": "resnet10t", "weights": "none",
    "bits": 8, "regions": 9, "region_size": 8, "batch_size": 8, "epochs": 2, "passes": 1, "device": "cpu",
}
ALWAYS = ["top_ten.jpg", "map_by_length.png", "radius.png", "erased.jpg", "attention.jpg", "class_distances.png", "code_usage.png"]


@pytest.mark.parametrize("method", ["fcaenet", "itq"])
def test_runs_whole_and_leaves_a_result_with_figures_to_look_at(tmp_path, method):
    done = papermill(tmp_path, "fcaenet.ipynb", **SMOKE, method=method)
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["status"] == "complete" and result["notebook"] == "notebooks/fcaenet.ipynb"
    assert result["figures"] == ["classes.jpg", *["curves.png"] * (method == "fcaenet"), *ALWAYS]
    check_figures(tmp_path / "run", result["figures"])
    if method == "fcaenet":
        check_output(tmp_path / "executed.ipynb", "epoch   2/2")


def test_the_parameters_cell_sets_every_parameter_to_its_default():
    check_parameters_cell("fcaenet.ipynb", Parameters)
