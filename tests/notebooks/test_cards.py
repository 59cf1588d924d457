"""Every card's smoke profile: tables as `fieldmarks run` carries them out, one sweep, two runs at a
time; cards that differ from a table in a parameter only as experiments, without the notebook."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fieldlab.cards.card import load_card
from fieldlab.cards.finished import find_results
from fieldmarks.experiments.experiment import experiment_class
from fieldmarks.experiments.parameters import parse
from helpers.papermill_runs import NOTEBOOKS, check_figures, check_output

CARDS = sorted((NOTEBOOKS.parent / "labs").rglob("*.yaml"))
PLAIN = {f"vapnet-table{n}" for n in (3, 4, 5, 6, 7)} | {"vapnet-figure3", "vapnet-figure4"}
PLAIN |= {f"fcaenet-table{n}" for n in (2, 3, 4, 5)} | {"fcaenet-figure6", "fcaenet-figure9"}
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
        ["classes.jpg", "curves.png", *EPISODES, "pairs.jpg", "concepts.png"],
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
    cards = [file for file in CARDS if load_card(file).name not in PLAIN]
    words = ("run", *cards, "--profile", "smoke", "--workers", 2, "--out", smoke.runs)
    with smoke.lock:
        done = fieldmarks(*words, cache=smoke.cache)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FIELDMARKS_CACHE", str(smoke.cache))
        for card in (load_card(file) for file in CARDS if file not in cards):
            for row in card.profiles["smoke"].only or card.grid:
                carry_out(card, row, smoke.runs / card.name / row.replace(" ", "-"))
    return smoke.runs


def carry_out(card, row, out):
    (dataset,) = card.profiles["smoke"].datasets
    values = card.merged("smoke", row, dataset) | {"card": card.name, "progress": "none"}
    kind = experiment_class(card.experiment)
    experiment = kind(parse(kind.Parameters, values | {"out": str(out)}))
    history = experiment.train()
    experiment.finish(history, experiment.evaluate(), notebook=card.notebook)


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
    ]  # L_a alone has no attributes to show
    assert runs
    figures, line = FIGURES[kind]
    for run in [run for run in runs if run.result["card"] not in PLAIN][:2]:
        assert run.result["figures"] == figures
        check_figures(run.folder, figures)
        check_output(run.folder / Path(run.result["notebook"]).name, line)


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
