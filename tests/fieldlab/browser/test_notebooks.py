"""Notebooks in JupyterLab: they run whole, all that they show can be read, and each control draws
another picture. explore.ipynb has a file of its own."""

import json
import re
import subprocess
from urllib.request import urlopen

import pytest

from fieldlab.cards.card import load_card
from fieldmarks.experiments.result import read_result
from helpers.pages import (
    changed,
    finished,
    in_cell,
    legible,
    no_traceback,
    photograph_all,
    run_all,
    shown,
    sources,
    wait_for,
)
from helpers.papermill_runs import NOTEBOOKS

PAIR = {"rule": ["and", "xor", "xnor", "or"], "pair": "ArrowLeft"}
OUTFITS = {**PAIR, "rule": ["or", "xor", "xnor", "and"]}  # the last is what it begins with
CARDS = {  # a card of each notebook, a row, and its controls, with a key or with what to choose
    "vapnet": (
        "vapnet/table1",
        "L_a + mean L_c",
        {
            "M, views": "ArrowRight",
            "n of grids": ["(2,)"],
            "uniform over": ["patches"],
            "draw": "ArrowRight",
        },
    ),
    "fcaenet": (
        "fcaenet/table1",
        "FCAENet, 12 bits",
        {"n, pixels": "ArrowRight", "l, px a side": "ArrowLeft"},
    ),
    "pan_fewshot": ("pan/table2", "PAN-Supervised", PAIR),
    "pan_outfits": ("pan/table1", "PAN-Supervised-GE", OUTFITS),
    "pan_inshop": ("pan/table3", "ProxyNCA++ & PAN-Supervised", PAIR),
    "explanations": ("explanations/twins", "PAN", {}),
}
TOUR = {
    "family": [1],
    "query": "ArrowRight",
    "attribute": "ArrowRight",
    "compare with": [1],
    "hottest pixels": "ArrowRight",
}
LONG = 25  # epochs, some of a second each


@pytest.fixture(autouse=True)
def no_kernel_stays(lab):
    yield
    lab.end_kernels()


def smoke(name, workplace):
    """The parameters of a card's row, at smoke size."""
    file, row, _ = CARDS[name]
    card = load_card(NOTEBOOKS.parent / "labs" / f"{file}.yaml")
    (dataset,) = card.profiles["smoke"].datasets
    return card.merged("smoke", row, dataset) | {"out": str(workplace / "small" / name)}


def with_parameters(name, workplace, values, words=()):
    """A copy of a notebook with these parameters, or of its code cells that hold one of some words:
    its file's name."""
    notebook = json.loads((workplace / "notebooks" / f"{name}.ipynb").read_text())
    (parameters,) = (
        cell for cell in notebook["cells"] if "parameters" in cell["metadata"].get("tags", [])
    )
    parameters["source"] = [*parameters["source"], *(f"\n{k} = {v!r}" for k, v in values.items())]
    if words:
        code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
        has = lambda cell: any(word in "".join(cell["source"]) for word in words)
        notebook["cells"] = list(filter(has, code))
    copy = workplace / "notebooks" / f"small_{name}.ipynb"
    copy.write_text(json.dumps(notebook))
    return copy.name


def run_whole(page, lab, file):
    run_all(page, lab.url(file))
    finished(page, lab.code_cells(file))
    no_traceback(page)
    assert page.get_by_text("Loading widget").count() == 0


def move(page, controls, what):
    """Each control draws another picture, for each of its values or for a key."""
    for name, to in controls.items():
        cell, control = in_cell(page, name)
        for value in to if isinstance(to, list) else [to]:
            before = sources(cell)
            assert before
            if isinstance(value, int):
                control.locator("select").select_option(index=value)
            elif isinstance(to, list):
                control.locator("select").select_option(value)
            else:
                control.locator(".noUi-handle").press(value)
            changed(page, cell, before, f"{what}, {name} {value}")


@pytest.mark.parametrize("name", CARDS)
def test_a_notebook_of_an_experiment(name, page, lab, workplace, screenshots):
    run_whole(page, lab, with_parameters(name, workplace, smoke(name, workplace)))
    assert read_result(workplace / "small" / name)["status"] == "complete"
    assert legible(page) >= 3
    move(page, CARDS[name][2], name)
    no_traceback(page)
    photograph_all(page, screenshots, name)


def test_the_tour(page, lab, workplace, screenshots):
    run_whole(
        page, lab, with_parameters("tour", workplace, {"species": 12, "images_per_species": 8})
    )
    assert legible(page) >= 4
    move(page, TOUR, "tour")
    answer = page.locator("details", has_text="A few boxes change few bits")
    assert not answer.get_by_text("A few boxes change few bits").is_visible()
    answer.locator("summary").click()
    assert answer.get_by_text("A few boxes change few bits").is_visible()
    no_traceback(page)
    photograph_all(page, screenshots, "tour")


def test_the_report(page, lab, workplace, screenshots):
    if not (workplace / "small" / "pan_fewshot" / "result.json").exists():  # this test alone
        name = "pan_fewshot"
        run_whole(page, lab, with_parameters(name, workplace, smoke(name, workplace)))
    values = {"folder": str(workplace / "small"), "html": str(workplace / "report.html")}
    run_whole(page, lab, with_parameters("report", workplace, values))
    assert legible(page) >= 5 and (workplace / "report.html").exists()
    photograph_all(page, screenshots, "report")


def test_a_reload_during_training_loses_neither_the_run_nor_its_bar(page, lab, workplace):
    """JupyterLab forgets which cells ran while the page is reloaded. The kernel goes on, with all
    cells that were asked for, and the bar that was saved moves on; run again, the cells show all
    of it, and train nothing."""
    folder = workplace / "small" / "reloaded"
    values = smoke("vapnet", workplace) | {"epochs": LONG, "out": str(folder)}
    words = ("seed = ", "OpenSet.from_notebook", "import deepcopy", "first_look = ")
    words += ("experiment.train()", "maps.curves(", "experiment.finish(")
    file = with_parameters("vapnet", workplace, values, words)
    epoch = lambda: max(map(int, re.findall(rf"epoch\s(\d+)/{LONG}", shown(page))), default=0)
    run_all(page, lab.url(file))
    wait_for(page, epoch)
    saved = workplace / "notebooks" / file
    page.keyboard.press("Control+s")  # or by itself, every 30 seconds
    wait_for(page, lambda: "jupyter.widget-view" in saved.read_text())
    page.on("dialog", lambda dialog: dialog.accept())  # that what is not saved would be lost
    page.reload()
    wait_for(page, epoch)
    first = epoch()
    wait_for(page, lambda: epoch() > first)
    assert first < LONG and not (folder / "result.json").exists()
    wait_for(page, lambda: (folder / "result.json").exists())
    trained = (folder / "last.pt").read_bytes()

    run_all(page)
    finished(page, len(words))
    no_traceback(page)
    assert epoch() == LONG
    assert sources(page.locator(".jp-OutputArea-output"))  # the curves
    result = read_result(folder)
    assert [row["epoch"] for row in result["curves"]["epochs"]] == list(range(1, LONG + 1))
    assert (folder / "last.pt").read_bytes() == trained


def test_make_lab_saves_pages_often(lab):
    """Of a page that is reloaded, only what was saved is there."""
    plugin = "@jupyterlab/docmanager-extension:plugin"
    with urlopen(f"{lab.address}/lab/api/settings/{plugin}?token={lab.token}") as answer:
        settings = json.load(answer)
    assert settings["schema"]["properties"]["autosaveInterval"]["default"] == 30
    recipe = subprocess.run(
        ["make", "--dry-run", "lab"], cwd=NOTEBOOKS.parent, capture_output=True, text=True
    )
    assert f'JUPYTER_CONFIG_PATH="{NOTEBOOKS.parent}/jupyter:' in recipe.stdout
