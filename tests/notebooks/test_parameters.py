"""What notebooks do with their parameters, and how they are committed."""

import ast

import nbformat
import pytest

from fieldmarks.experiments.experiment import experiment_class
from helpers.papermill_runs import NOTEBOOKS, papermill

SMOKE = {
    "generated": {"classes": 6, "images": 6, "size": 64},
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
    # the defaults, the injected cell, and the one that complains
    assert len(ran) == 3 and not (tmp_path / "run").exists()


def test_a_mistyped_parameter_stops_at_the_first_cell(tmp_path):
    done = papermill(tmp_path, "vapnet.ipynb", **SMOKE | {"epochs": "ten"})
    message = "parameter 'epochs' is 'ten': it must be a whole number"
    assert done.returncode != 0 and message in done.stderr


@pytest.mark.parametrize("notebook", EXPERIMENTS)
def test_the_parameters_cell_is_short_and_sets_defaults(notebook):
    parameters = experiment_class(EXPERIMENTS[notebook]).Parameters()
    cells = nbformat.read(NOTEBOOKS / f"{notebook}.ipynb", 4).cells
    (cell,) = [cell for cell in cells if "parameters" in cell.metadata.get("tags", [])]
    assert len(cell.source.splitlines()) <= 16
    body = ast.parse(cell.source).body
    values = {node.targets[0].id: ast.literal_eval(node.value) for node in body}
    for name, value in values.items():
        default = getattr(parameters, name)  # every name is one of theirs
        if name == "freeze_stages":  # in a notebook somebody waits; a script trains all stages
            default = 5
        default = list(default) if isinstance(default, tuple) else default
        assert value == default and type(value) is type(default), name
    assert {"dataset", "root", "method", "epochs", "lr", "size", "seed", "out", "card"} <= {*values}


@pytest.mark.parametrize("notebook", EXPERIMENTS)
def test_no_later_cell_takes_the_name_of_a_parameter(notebook):
    """The parameters would be read wrongly when cells run again."""
    parameters = experiment_class(EXPERIMENTS[notebook]).Parameters
    names = parameters.__dataclass_fields__
    for cell in nbformat.read(NOTEBOOKS / f"{notebook}.ipynb", 4).cells:
        if cell.cell_type == "code" and "parameters" not in cell.metadata.get("tags", []):
            for node in ast.walk(ast.parse(cell.source)):
                if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                    assert node.id not in names, f"{notebook}: {node.id} in\n{cell.source}"


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.name)
def test_notebooks_are_committed_without_outputs(path):
    notebook = nbformat.read(path, 4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code" and "NBVAL_CHECK_OUTPUT" not in cell.source:
            assert not cell.outputs and cell.execution_count is None
    assert notebook.metadata.kernelspec.name == "python3"
