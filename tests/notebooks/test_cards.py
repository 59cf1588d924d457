"""Every card's smoke profile, as `fieldmarks run` carries it out: one sweep, two runs at a time.
Rows that differ from another in a number or in their losses, but take their notebook through the
same cells, are there before it, as experiments in this process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fieldlab.cards.card import load_card
from fieldlab.cards.finished import find_results
from fieldlab.sweep.plan import plan
from fieldmarks.experiments.experiment import experiment_class
from fieldmarks.experiments.parameters import parse
from helpers.papermill_runs import NOTEBOOKS, check_figures, check_output

CARDS = sorted((NOTEBOOKS.parent / "labs").rglob("*.yaml"))
WITH_NOTEBOOK = {
    "vapnet-table1": ["L_a", "L_a + mean L_c"],
    "vapnet-table2": ["SCDA", "PNCA"],
    "fcaenet-table1": ["SH, 12 bits", "HashNet, 12 bits", "FCAENet, 12 bits"],
    "pan-table1": ["CGAE", "PAN-Supervised-GE"],
    "pan-table2": ["ProtoNet", "PAN-Supervised"],
    "pan-table3": ["ProxyNCA++", "ProxyNCA++ & PAN-Supervised"],
    "explanations-twins": ["frozen"],
}
HASHED = [
    "top_ten.jpg",
    "map_by_length.png",
    "radius.png",
    "erased.jpg",
    "attention.jpg",
    "class_distances.png",
    "code_usage.png",
]
OUTFITS = [
    "against_others.png",
    "what_the_graph_tells.png",
    "k_agreement.png",
    "blanks.jpg",
    "blanks_resampled.jpg",
    "pairs.jpg",
]
EPISODES = ["methods.png", "episode_middling.jpg", "episode_hardest.jpg"]
FIGURES = {  # experiment and method: a run's figures, and the line that its notebook prints
    ("open_set", "vapnet"): (
        [
            "classes_seen.jpg",
            "classes_unseen.jpg",
            "curves.png",
            "attention.jpg",
            "top_ten.jpg",
            "local_views.jpg",
            "against_baseline.jpg",
            "unseen_map.jpg",
        ],
        "epoch   1/1",
    ),
    ("hashing", "fcaenet"): (["classes.jpg", "curves.png", *HASHED], "epoch   1/1"),
    ("hashing", "sh"): (["classes.jpg", *HASHED], "mAP"),
    ("outfits", "pan_supervised"): (
        ["outfits.jpg", "curves.png", *OUTFITS, "concept_importance.png"],
        "epoch   4/4",
    ),
    ("fewshot", "pan_supervised"): (
        ["classes.jpg", "curves.png", *EPISODES, "pairs.jpg", "concepts.png", "named_concepts.jpg"],
        "epoch   4/4",
    ),
    ("fewshot", "protonet"): (["classes.jpg", *EPISODES], "certainty is 3 or more"),
    ("inshop", "pan_supervised"): (
        [
            "items.jpg",
            "curves.png",
            "methods.png",
            "agreement.png",
            "top_ten.jpg",
            "changed.jpg",
            "pairs.jpg",
            "concepts.png",
        ],
        "epoch   4/4",
    ),
    ("inshop", "cosine"): (["items.jpg", "methods.png", "top_ten.jpg"], "images embedded"),
}
pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]


def fieldmarks(*words, cache):
    command = [sys.executable, "-m", "fieldlab", *map(str, words)]
    environment = os.environ | {"FIELDMARKS_CACHE": str(cache)}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=2300)


@pytest.fixture(scope="module")
def sweep(smoke):
    """The folder of all cards' smoke runs."""
    cards = [load_card(file) for file in CARDS]
    with smoke.lock:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("FIELDMARKS_CACHE", str(smoke.cache))
            for card in cards:
                for run in plan(card, "smoke", smoke.runs):
                    if run.row not in WITH_NOTEBOOK.get(card.name, ()):
                        carry_out(card, run)
        words = ("run", *CARDS, "--profile", "smoke", "--workers", 2, "--out", smoke.runs)
        done = fieldmarks(*words, cache=smoke.cache)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    return smoke.runs


def carry_out(card, run):
    values = run.parameters | {"card": card.name, "progress": "none", "out": str(run.folder)}
    kind = experiment_class(card.experiment)
    experiment = kind(parse(kind.Parameters, values))
    history = experiment.train()
    experiment.finish(history, experiment.evaluate(), notebook=card.notebook)


def executed(run):
    """The notebook that left a run, if one did."""
    return run.folder / Path(run.result["notebook"]).name


def test_all_kinds_of_rows_took_their_notebook(sweep):
    ran = [run.result["card"] for run in find_results(sweep) if executed(run).exists()]
    assert {card: ran.count(card) for card in ran} == {c: len(r) for c, r in WITH_NOTEBOOK.items()}


def test_every_row_of_every_card_ran(sweep):
    found = {(run.result["card"], str(run.seed)) for run in find_results(sweep)}
    assert {card for card, _ in found} == {load_card(file).name for file in CARDS}
    wanted = sum(len(card.profiles["smoke"].only or card.grid) for card in map(load_card, CARDS))
    assert len(find_results(sweep)) == wanted


@pytest.mark.parametrize("kind", FIGURES, ids=" ".join)
def test_a_run_leaves_figures_to_look_at(sweep, kind):
    runs = [
        run
        for run in find_results(sweep)
        if (run.result["experiment"], run.result["parameters"].get("method")) == kind
        and run.result["parameters"].get("constraint") != "none"
        and executed(run).exists()
    ]  # L_a alone has no attributes to show
    assert runs
    figures, line = FIGURES[kind]
    for run in runs[:2]:
        assert run.result["figures"] == figures
        check_figures(run.folder, figures)
        check_output(executed(run), line)


def test_every_number_is_what_was_saved(sweep):
    count = len(find_results(sweep))
    done = fieldmarks("report", sweep, "--verify", cache=sweep)
    assert done.returncode == 0, done.stdout[-3000:]
    assert (
        f"{count} runs: {count} verified, 0 with differences, 0 that cannot be verified"
        in done.stdout
    )
    assert (
        "VAPNet, Table 1, on fieldguide" in done.stdout
        and "VAPNet as a whole is better than classification alone (" in done.stdout
    )
    assert (sweep / "report.html").stat().st_size > 1e6
