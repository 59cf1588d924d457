"""What notebooks do with their parameters, and how they are committed."""

import importlib

import nbformat
import pytest
from helpers.papermill_runs import NOTEBOOKS, check_parameters_cell, papermill  # noqa: E402

SMOKE = {
    "fieldguide": "6 classes, 6 images, 64 px, seed 0, standard",
    "resize": 64,
    "size": 48,
    "backbone": "resnet10t",
    "weights": "none",
    "views": 2,
    "grids": [2, 4],
    "attributes": 16,
    "batch_size": 8,
    "epochs": 2,
    "device": "cpu",
}
EXPERIMENTS = {
    "vapnet": "open_set",
    "fcaenet": "hashing",
    "pan_outfits": "outfits",
    "pan_fewshot": "fewshot",
    "pan_inshop": "inshop",
}


def test_a_misspelt_parameter_stops_at_the_first_cell_with_the_right_spelling(tmp_path):
    done = papermill(tmp_path, "vapnet.ipynb", **SMOKE, epoch=1)
    assert done.returncode != 0
    assert "ValueError: unknown parameter 'epoch': did you mean 'epochs'?" in done.stderr
    executed = nbformat.read(tmp_path / "executed.ipynb", 4)
    ran = [cell for cell in executed.cells if cell.cell_type == "code" and cell.execution_count]
    assert (
        len(ran) == 3 and not (tmp_path / "run").exists()
    )  # the defaults, the injected cell, and the one that complains


def test_a_mistyped_parameter_stops_at_the_first_cell(tmp_path):
    done = papermill(tmp_path, "vapnet.ipynb", **SMOKE | {"epochs": "ten"})
    assert (
        done.returncode != 0
        and "parameter 'epochs' is 'ten': it must be a whole number" in done.stderr
    )


@pytest.mark.parametrize("notebook", EXPERIMENTS)
def test_the_parameters_cell_sets_every_parameter_to_its_default(notebook):
    check_parameters_cell(
        f"{notebook}.ipynb",
        importlib.import_module(f"fieldmarks.experiments.{EXPERIMENTS[notebook]}").Parameters,
    )


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.name)
def test_notebooks_are_committed_without_outputs(path):
    notebook = nbformat.read(path, 4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code" and "NBVAL_CHECK_OUTPUT" not in cell.source:
            assert not cell.outputs and cell.execution_count is None
    assert notebook.metadata.kernelspec.name == "python3"
