"""The notebook as papermill runs it, at smoke size."""
import ast
import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
from PIL import Image

from fieldmarks.experiments.open_set import Parameters

NOTEBOOK = Path(__file__).parent.parent.parent / "notebooks" / "vapnet.ipynb"
SMOKE = {
    "fieldguide": "6 classes, 6 images, 64 px, seed 0, standard", "resize": 64, "size": 48, "backbone": "resnet10t", "weights": "none",
    "views": 2, "grids": [2, 4], "attributes": 16, "batch_size": 8, "epochs": 2, "device": "cpu",
}
FIGURES = ["classes_seen.jpg", "classes_unseen.jpg", "curves.png", "top_ten.jpg", "local_views.jpg", "against_baseline.jpg",
           "attributes.jpg", "unseen_map.jpg"]


def papermill(tmp_path, **parameters):
    (tmp_path / "parameters.yaml").write_text(json.dumps({**SMOKE, "out": str(tmp_path / "run"), **parameters}))
    command = [sys.executable, "-m", "papermill", str(NOTEBOOK), str(tmp_path / "executed.ipynb"), "-f",
               str(tmp_path / "parameters.yaml"), "--no-progress-bar"]
    environment = {**os.environ, "FIELDMARKS_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=500)


def test_runs_whole_and_leaves_a_result_with_figures_to_look_at(tmp_path):
    done = papermill(tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["status"] == "complete" and result["notebook"] == "notebooks/vapnet.ipynb" and result["figures"] == FIGURES
    for name in FIGURES:
        picture = np.asarray(Image.open(tmp_path / "run" / name).convert("RGB")).astype(float)
        assert min(picture.shape[:2]) > 150 and picture.std() > 10, name
    executed = nbformat.read(tmp_path / "executed.ipynb", 4)
    text = "".join(output.get("text", "") for cell in executed.cells for output in cell.get("outputs", []))
    assert "epoch   2/2" in text and "\r" not in text  # a plain line an epoch, no bar
    assert not any("widget" in mime for cell in executed.cells for output in cell.get("outputs", []) for mime in output.get("data", {}))


def test_a_misspelt_parameter_stops_at_the_first_cell_with_the_right_spelling(tmp_path):
    done = papermill(tmp_path, epoch=1)
    assert done.returncode != 0
    assert "ValueError: unknown parameter 'epoch': did you mean 'epochs'?" in done.stderr
    executed = nbformat.read(tmp_path / "executed.ipynb", 4)
    ran = [cell for cell in executed.cells if cell.cell_type == "code" and cell.execution_count]
    assert len(ran) == 3 and not (tmp_path / "run").exists()  # the defaults, the injected cell, and the one that complains


def test_a_mistyped_parameter_stops_at_the_first_cell(tmp_path):
    done = papermill(tmp_path, epochs="ten")
    assert done.returncode != 0 and "parameter 'epochs' is 'ten': it must be a whole number" in done.stderr


def test_the_parameters_cell_sets_every_parameter_to_its_default():
    notebook = nbformat.read(NOTEBOOK, 4)
    (cell,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    values = {node.targets[0].id: ast.literal_eval(node.value) for node in ast.parse(cell.source).body}  # literals only
    defaults = {key: list(value) if isinstance(value, tuple) else value for key, value in dataclasses.asdict(Parameters()).items()}
    assert values == defaults and list(values) == list(defaults)


@pytest.mark.parametrize("path", sorted(NOTEBOOK.parent.glob("*.ipynb")), ids=lambda path: path.name)
def test_notebooks_are_committed_without_outputs(path):
    notebook = nbformat.read(path, 4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code" and "NBVAL_CHECK_OUTPUT" not in cell.source:
            assert not cell.outputs and cell.execution_count is None
    assert notebook.metadata.kernelspec.name == "python3"
