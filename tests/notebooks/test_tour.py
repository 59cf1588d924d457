"""The tour as papermill runs it, small, and what its committed file holds."""
import ast
import base64
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
from ipywidgets import IntSlider
from PIL import Image

from fieldmarks.data.generated.bird_attributes import MARKS
from fieldmarks.experiments import tour_figures

sys.path.insert(0, str(Path(__file__).parent))
from papermill_runs import NOTEBOOKS  # noqa: E402

SMALL = {"species": 12, "images_per_species": 8}


def test_runs_whole_from_nothing_and_shows_a_picture_below_each_control(tmp_path):
    words = [word for name, value in SMALL.items() for word in ("-p", name, str(value))]
    done = subprocess.run(
        [sys.executable, "-m", "papermill", str(NOTEBOOKS / "tour.ipynb"), "executed.ipynb", *words, "--no-progress-bar"], cwd=tmp_path,
        env={**os.environ, "FIELDMARKS_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    cells = nbformat.read(tmp_path / "executed.ipynb", 4).cells
    pictures = 0
    for cell in cells:
        if "pictures.with_control" in cell.source:
            control, picture = [output.data for output in cell.outputs if output.output_type == "display_data"]
            assert "application/vnd.jupyter.widget-view+json" in control
            shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(picture["image/jpeg"]))).convert("RGB")).astype(float)
            assert min(shown.shape[:2]) > 100 and shown.std() > 10
            pictures += 1
    assert pictures == 5
    assert sorted(file.name for file in tmp_path.iterdir()) == ["cache", "executed.ipynb"]  # what it trains does not stay
    assert "96 pictures of 12 species" in "".join(output.text for cell in cells for output in cell.get("outputs", []) if "text" in output)


def test_only_facts_are_committed_and_each_part_has_a_control_and_a_hidden_answer():
    notebook = nbformat.read(NOTEBOOKS / "tour.ipynb", 4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec == {"display_name": "Python 3", "language": "python", "name": "python3"}
    assert [cell.id for cell in notebook.cells] == [f"cell-{number:02}" for number in range(len(notebook.cells))]
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    facts = [cell for cell in code if cell.source.startswith("# NBVAL_CHECK_OUTPUT\n")]
    assert len(facts) == 3 and all(cell.outputs for cell in facts)
    assert not any(cell.outputs or cell.execution_count for cell in code if cell not in facts)
    (parameters,) = [cell for cell in code if "parameters" in cell.metadata.get("tags", [])]
    assert {node.targets[0].id: ast.literal_eval(node.value) for node in ast.parse(parameters.source).body}.keys() == SMALL.keys()
    answers = [cell for cell in notebook.cells if "<details>" in cell.source]
    assert len(answers) == sum("with_control" in cell.source for cell in code) == 5
    assert all(cell.source.startswith("**Question.**") and cell.source.endswith("</details>") for cell in answers)
    assert "/" + "root" not in json.dumps(notebook)


def test_a_control_draws_its_picture_anew():
    shown, updated = [], []

    class Handle:
        update = updated.append

    def display(value, display_id=False):
        shown.append(value)
        return Handle() if display_id else None
    slider = IntSlider(3, 0, 9)
    tour_figures.with_control(display, slider, lambda number: f"picture {number}")
    slider.value = 7
    slider.value = 7
    assert shown == [slider, "picture 3"] and updated == ["picture 7"]


def test_siblings_differ_in_the_marks_that_are_listed():
    for family in tour_figures.families(24).values():
        first, second = family[:2]
        listed = tour_figures.marks_that_differ(first, second)
        assert 2 <= len(listed) <= 3 and len(family) >= 3
        for mark in MARKS:
            pair = first.marks[mark].replace("_", " "), second.marks[mark].replace("_", " ")
            assert listed.get(mark.replace("_", " "), (pair[0], pair[0])) == pair
