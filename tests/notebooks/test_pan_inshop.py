"""The notebook as papermill runs it, at smoke size."""
import json
import sys
from pathlib import Path

import pytest

from fieldmarks.experiments.inshop import Parameters

sys.path.insert(0, str(Path(__file__).parent))
from papermill_runs import check_figures, check_output, check_parameters_cell, papermill  # noqa: E402

SMOKE = {
    "wardrobe": "150 items, 200 outfits, 48 px, seed 0", "resize": 48, "size": 48, "backbone": "resnet10t", "weights": "none", "hidden": 16,
    "concepts": 5, "epochs": 4, "evaluate_every": 2, "device": "cpu",
}


@pytest.mark.parametrize("method", ["pan_supervised", "cosine"])
def test_runs_whole_and_leaves_a_result_with_figures_to_look_at(tmp_path, method):
    done = papermill(tmp_path, "pan_inshop.ipynb", **SMOKE, method=method)
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["status"] == "complete" and result["notebook"] == "notebooks/pan_inshop.ipynb" and result["experiment"] == "inshop"
    pan = method != "cosine"
    expected = ["items.jpg", *["curves.png"] * pan, "methods.png", *["agreement.png"] * pan, "top_ten.jpg", *["changed.jpg"] * pan,
                *["pairs.jpg", "concepts.png"] * pan]
    assert result["figures"] == expected
    check_figures(tmp_path / "run", result["figures"])
    check_output(tmp_path / "executed.ipynb", "epoch   4/4" if pan else "images embedded")


def test_the_parameters_cell_sets_every_parameter_to_its_default():
    check_parameters_cell("pan_inshop.ipynb", Parameters)
