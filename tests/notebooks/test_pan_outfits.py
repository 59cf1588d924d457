"""The notebook as papermill runs it, at smoke size."""
import json
import sys
from pathlib import Path

import pytest

from fieldmarks.experiments.outfits import Parameters

sys.path.insert(0, str(Path(__file__).parent))
from papermill_runs import check_figures, check_output, check_parameters_cell, papermill  # noqa: E402

SMOKE = {
    "wardrobe": "150 items, 200 outfits, 48 px, seed 0", "resize": 48, "size": 48, "backbone": "resnet10t", "weights": "none",
    "hidden": [16, 16], "concepts": 5, "steps": 4, "evaluate_every": 2, "device": "cpu",
}
ALWAYS = ["against_others.png", "what_the_graph_tells.png", "k_agreement.png", "blanks.jpg", "blanks_resampled.jpg", "pairs.jpg"]


@pytest.mark.parametrize("method", ["pan_supervised", "cosine"])
def test_runs_whole_and_leaves_a_result_with_figures_to_look_at(tmp_path, method):
    done = papermill(tmp_path, "pan_outfits.ipynb", **SMOKE, method=method)
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["status"] == "complete" and result["notebook"] == "notebooks/pan_outfits.ipynb"
    learns = method == "pan_supervised"
    assert result["figures"] == ["outfits.jpg", *["curves.png"] * learns, *ALWAYS, *["concept_importance.png"] * learns]
    check_figures(tmp_path / "run", result["figures"])
    if learns:
        check_output(tmp_path / "executed.ipynb", "step     4/4")


def test_the_parameters_cell_sets_every_parameter_to_its_default():
    check_parameters_cell("pan_outfits.ipynb", Parameters)
