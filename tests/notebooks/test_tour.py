"""What the tour's committed file holds, and what its controls do; fieldlab/browser runs it."""

import ast
import json

import nbformat
from ipywidgets import IntSlider

from fieldguide.birds.attributes import MARKS
from fieldlab.explorer import tour as tour_figures
from helpers.papermill_runs import NOTEBOOKS


def test_only_facts_are_committed_and_each_part_has_a_control_and_a_hidden_answer():
    notebook = nbformat.read(NOTEBOOKS / "tour.ipynb", 4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec == {
        "display_name": "Python 3",
        "language": "python",
        "name": "python3",
    }
    assert [cell.id for cell in notebook.cells] == [
        f"cell-{number:02}" for number in range(len(notebook.cells))
    ]
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    facts = [cell for cell in code if cell.source.startswith("# NBVAL_CHECK_OUTPUT\n")]
    assert len(facts) == 3 and all(cell.outputs for cell in facts)
    assert not any(cell.outputs or cell.execution_count for cell in code if cell not in facts)
    (parameters,) = [cell for cell in code if "parameters" in cell.metadata.get("tags", [])]
    assert {node.targets[0].id for node in ast.parse(parameters.source).body} == {
        "species",
        "images_per_species",
    }
    answers = [cell for cell in notebook.cells if "<details>" in cell.source]
    assert len(answers) == sum("with_control" in cell.source for cell in code) == 5
    assert all(
        cell.source.startswith("**Question.**") and cell.source.endswith("</details>")
        for cell in answers
    )
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
