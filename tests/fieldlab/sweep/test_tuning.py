"""Tuning in processes of their own: with a stand-in for papermill, and once with real runs."""

import json
import random
import re
import shutil
import time

import optuna
import pytest

from fieldlab.cards.card import load_card
from fieldlab.cards.finished import find_results
from fieldlab.cards.space import Searched
from fieldlab.report.tables import arrange
from fieldlab.sweep.tuning import Tuning
from fieldmarks.experiments.open_set import OpenSet, Parameters
from fieldmarks.experiments.parameters import parse
from fieldmarks.experiments.result import read_result
from helpers.sweeping import wait_until
from helpers.tuning import TuningLab, stand_in

TRIALS = "12"  # a batch of ten, and a part of one of five


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Where the birds are drawn once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def real_lab(tmp_path, cache, monkeypatch):
    monkeypatch.setenv("FIELDMARKS_CACHE", str(cache))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return TuningLab(tmp_path / "lab")


@pytest.fixture
def lab(real_lab, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", stand_in(tmp_path))
    return real_lab


def trials_of(lab) -> dict[str, list]:
    """Row -> (state, value, values) of its trials, as they were kept."""
    storage = f"sqlite:///{lab.trials / 'trials.db'}"
    return {
        name.split("-")[0]: [
            (t.state.name, t.value, t.params)
            for t in optuna.load_study(study_name=name, storage=storage).trials
        ]
        for name in optuna.get_all_study_names(storage)
    }


def tuned(lab) -> dict:
    return json.loads((lab.out / "tuned.json").read_text())["paper-table1"]


def executions(lab) -> list[str]:
    file = lab.trials / "executed"
    return file.read_text().splitlines() if file.exists() else []


def test_every_row_gets_as_many_trials_in_the_same_space_and_runs_with_its_best(lab):
    done = lab.tune("--trials", TRIALS, "--workers", "2")
    assert done.returncode == 0, done.stderr
    one, two = trials_of(lab)["one"], trials_of(lab)["two"]
    assert len(one) == len(two) == 12
    # Up to Optuna's first look at results, rows that search the same try the same.
    assert [set(params) for *_, params in (one[0], two[0])] == [{"lr", "batch_size"}, {"lr"}]
    for _, value, params in one + two:
        assert 0.001 <= params["lr"] <= 0.1 and 0.6 < value <= 0.9
    assert len({params["lr"] for *_, params in one}) == 12
    found = {row["row"]: row for row in tuned(lab)["rows"]}
    for name, trials in (("one", one), ("two", two)):
        _, value, params = max(trials, key=lambda trial: trial[1])
        values = {key: json.loads(v) if key == "batch_size" else v for key, v in params.items()}
        assert found[name]["values"] == values and found[name]["score"] == value
        assert (found[name]["trials"], found[name]["failed"]) == (12, 0)
    assert found["one"]["fixed"] == {} and found["two"]["fixed"] == {"batch_size": 4}
    # Trials under the tuning's own seed on held-out classes; final runs under others, on all.
    trial_runs = [read_result(file.parent) for file in lab.trials.glob("*/result.json")]
    assert len(trial_runs) == 24
    for result in trial_runs:
        p = result["parameters"]
        assert (p["seed"], p["validation"], p["tuned"]) == (1001, 0.25, "trial")
    finals = find_results(lab.out)
    assert sorted((run.setting["method"], run.seed) for run in finals) == [
        ("normsoftmax", 0),
        ("normsoftmax", 1),
        ("proxynca++", 0),
        ("proxynca++", 1),
    ]
    for run in finals:
        row = found["one" if run.setting["method"] == "proxynca++" else "two"]
        assert run.setting["lr"] == row["values"]["lr"] and run.setting["validation"] == 0
        assert run.setting["tuned"] == "12 trials on held-out training classes, see tuned.json"


def test_a_search_that_looks_at_results_comes_closer_than_chance(lab):
    """The best learning rate is 0.01; of ten drawn at random the best is some 20 % away."""
    lab.card |= {"claims": [], "grid": {"one": {"method": "proxynca++"}}}
    lab.card["tune"] = {"space": lab.card["tune"]["space"], "metric": "recall@1"}
    assert lab.tune("--trials", "10").returncode == 0
    first = tuned(lab)["rows"][0]["score"]
    begun = len(executions(lab))
    done = lab.tune("--trials", "30", "--workers", "2")
    assert "30 trials, 10 done" in done.stdout
    assert len(executions(lab)) == begun + 20, "the first ten are not run again"
    assert tuned(lab)["rows"][0]["score"] > first


def test_killed_at_random_it_comes_to_the_same_trials_and_runs_none_again(lab):
    straight = lab.tune("--trials", TRIALS)
    assert straight.returncode == 0, straight.stderr
    wanted, kept = tuned(lab), trials_of(lab)
    shutil.rmtree(lab.out)
    chance, kills = random.Random(0), 0
    process = lab.start("--trials", TRIALS, "--workers", "2")
    while kills < 3:
        target = len(executions(lab)) + 3
        wait_until(lambda n=target, p=process: len(executions(lab)) >= n or p.poll() is not None)
        time.sleep(chance.uniform(0, 0.3))
        if process.poll() is not None:
            break
        process.kill()
        process.communicate()
        kills += 1
        process = lab.start("--trials", TRIALS, "--workers", "2")
    process.communicate()
    assert process.returncode == 0 and kills >= 2
    assert tuned(lab) == wanted and trials_of(lab) == kept
    assert not [line for line in executions(lab) if line.endswith("again")]


def test_two_tunings_of_a_card_in_one_folder_do_not_mix(lab):
    process = lab.start("--trials", TRIALS)
    wait_until(lambda: executions(lab))
    second = lab.tune("--trials", TRIALS)
    assert second.returncode == 2 and "another run is writing" in second.stderr
    process.kill()
    process.communicate()


def test_a_trial_that_fails_is_counted_and_chosen_never(lab):
    lab.card["profiles"]["demo"]["parameters"]["weights"] = "breaks"
    done = lab.tune("--trials", "10", "--workers", "2")
    assert done.returncode == 0 and "Diverged: the loss is inf" in done.stdout
    for row in tuned(lab)["rows"]:
        assert row["failed"] > 0 and row["trials"] == 10 and row["values"]["lr"] <= 0.03


def test_where_all_trials_of_a_row_fail_there_is_no_result(lab):
    lab.card["grid"]["two"]["weights"] = "broken"
    done = lab.tune("--trials", "2", "--workers", "2")
    assert done.returncode == 1 and "2 done, 2 failed" in done.stdout
    assert not (lab.out / "tuned.json").exists()
    assert not any("two" in name and trials for name, trials in trials_of(lab).items())


def test_a_row_that_fixes_all_is_only_run(lab):
    lab.card["grid"]["two"]["lr"] = 0.02
    done = lab.tune("--trials", "2")
    assert "nothing to search  paper-table1  two" in done.stdout
    assert "lr=0.02 (fixed by the row)" in done.stdout
    first, second = tuned(lab)["rows"]
    assert (first["trials"], second["trials"], second["values"]) == (2, 0, {})
    how = {run.setting["method"]: run.setting["tuned"] for run in find_results(lab.out)}
    assert how["proxynca++"] == "2 trials on held-out training classes, see tuned.json"
    assert how["normsoftmax"] == f"{how['proxynca++']}; this row fixes all that is searched"


def test_a_dry_run_says_what_is_searched_and_writes_nothing(lab):
    done = lab.tune("--trials", "4", "--dry-run")
    assert done.returncode == 0 and not lab.out.exists()
    one, two, chosen, estimate = done.stdout.splitlines()[-4:]
    assert one.startswith("4 trials  paper-table1  one  fieldguide  lr 0.001 to 0.1 (log)")
    assert one.endswith("batch_size 4 or 8") and two.endswith("batch_size=4 (fixed by the row)")
    assert chosen.endswith("seed 1001; then 4 final runs, seeds 0, 1")
    assert estimate.startswith("estimate: none")


@pytest.mark.parametrize(
    "change, words, message",
    [
        ({"tune": None}, ["2"], "paper-table1 does not say what to search: give it a key tune"),
        ({}, ["0"], "Invalid value for '--trials'"),
        ({}, ["2", "--set", "lr=0.1"], "--set lr: tuning chooses it"),
        (
            {},
            ["2", "--set", "max_classes=3"],
            "validation needs at least 4 training classes, 2 of them with several images, and "
            "fieldguide has 3 training classes, 3 of them with several images",
        ),
        ({"experiment": "helpers.sixth_experiment", "grid": {"one": {}}}, ["2"], "no validation"),
    ],
)
def test_wrong_input_is_one_line(lab, change, words, message):
    lab.card |= change
    if "experiment" in change:
        lab.card["claims"], small = [], lab.card["profiles"]["demo"]["parameters"]
        del small["freeze_norm"]
    done = lab.tune("--trials", *words)
    assert done.returncode == 2 and message in done.stderr
    lines = done.stderr.splitlines()
    assert len([line for line in lines if not line.startswith("images drawn")]) == 1
    assert not (lab.out / "tuned.json").exists()


def test_the_best_evaluation_counts_where_training_chooses_by_validation_data(lab):
    tuning = Tuning(load_card(lab.write()), "demo", lab.out, 2)
    rows = [{"epoch": 1, "recall@1": 0.4}, {"epoch": 2, "recall@1": 0.6}, {"epoch": 3}]
    result = {"metrics": {"recall@1": 0.9}, "method": "m", "curves": {"evaluations": rows}}
    assert tuning.score(result) == 0.9  # measured on validation data itself
    tuning.kind = type("Chosen", (), {"tuning": {}, "validation_data": "validation items"})
    assert tuning.score(result) == 0.6
    with pytest.raises(ValueError, match="m has no 'recall@1' on validation items"):
        tuning.score(result | {"curves": {"evaluations": []}})


@pytest.mark.parametrize("choices", [[[2, 4], [2]], [True, False], ["a", "b"], [1, 2.5]])
def test_choices_come_back_as_they_were(choices):
    where = Searched(choices=choices)
    drawn = where.distribution(None).choices
    assert [where.value(text) for text in drawn] == choices


# ---- equal time


@pytest.fixture
def timed(lab):
    lab.card["grid"]["two, as long"] = {**lab.card["grid"]["two"], "same_time_as": "one"}
    lab.card["profiles"]["demo"]["parameters"]["epochs"] = 2
    return lab


def epochs(lab) -> set[tuple[str, int, int]]:
    """(same_time_as, epochs, seed) of the final runs."""
    runs = find_results(lab.out)
    return {(run.setting["same_time_as"], run.setting["epochs"], run.seed) for run in runs}


def test_a_row_trains_for_the_time_of_another(timed):
    waits = "two, as long  fieldguide: its epochs are known once two and one have been run"
    dry = timed.tune("--dry-run", command="run")
    assert f"{waits} with seed 0" in dry.stderr and "as long" not in dry.stdout
    done = timed.tune(command="run")
    assert done.returncode == 0 and "6 runs: 6 done" in done.stdout, done.stderr
    # Two epochs of 3.1 s are 6.2 of 1 s.
    wanted = {("", 2, 0), ("", 2, 1), ("one", 6, 0), ("one", 6, 1)}
    assert epochs(timed) == wanted
    again = timed.tune(command="run")
    assert "6 runs: 6 done earlier" in again.stdout and waits not in again.stderr
    card = load_card(timed.write())
    (table,) = arrange(find_results(timed.out), {"paper-table1": card})
    assert [(row.title, len(row.runs)) for row in table.rows] == [
        ("one", 2),
        ("two", 2),
        ("two, as long", 2),
    ]


def test_schedules_that_count_epochs_are_stretched_with_them(timed):
    given = timed.card["profiles"]["demo"]["parameters"]
    given |= {"schedule": "milestones", "milestones": [1, 2]}
    assert timed.tune("--set", "seed=0", command="run").returncode == 0
    found = {run.setting["epochs"]: run.setting["milestones"] for run in find_results(timed.out)}
    assert found == {2: [1, 2], 6: [3, 6]}


def test_a_row_for_the_time_of_another_has_the_values_of_its_twin(timed):
    done = timed.tune("--trials", "2", "--workers", "2")
    assert done.returncode == 0 and "6 runs: 6 done" in done.stdout, done.stderr
    assert len(list(timed.trials.glob("*/result.json"))) == 4
    lr = {run.setting["same_time_as"]: run.setting["lr"] for run in find_results(timed.out)}
    assert lr["one"] == tuned(timed)["rows"][1]["values"]["lr"]
    assert len(epochs(timed)) == 4


@pytest.mark.parametrize(
    "row, expected",
    [
        ({"same_time_as": "oen"}, "same_time_as: there is no row 'oen': did you mean 'one'?"),
        (
            {"same_time_as": "one", "method": "scda"},
            "no row has the same parameters without same_time_as: add it",
        ),
        ({"same_time_as": "two, as long"}, "time of 'two, as long' is itself that of another row"),
    ],
)
def test_rows_for_the_time_of_others_are_checked(timed, row, expected):
    timed.card["grid"]["other"] = {**timed.card["grid"]["two"], **row}
    with pytest.raises(ValueError, match=re.escape(expected)):
        load_card(timed.write())


# ---- real runs


def test_real_trials_see_no_test_class_and_survive_a_kill(real_lab, tmp_path):
    lab = real_lab
    lab.card["profiles"]["demo"]["seeds"] = [0]
    straight = lab.tune("--trials", "2", "--workers", "2")
    assert straight.returncode == 0, straight.stderr
    wanted, kept = tuned(lab), trials_of(lab)
    finals = {run.folder.name: run.result["metrics"] for run in find_results(lab.out)}
    trials = [read_result(file.parent) for file in lab.trials.glob("*/result.json")]
    assert len(finals) == 2 and len(trials) == 4
    # What was looked at is what the split gives, and that shares no image with the test classes.
    test = OpenSet.parts(parse(Parameters, {**lab.parameters}))[1]
    for result in trials:
        learned, searched = OpenSet.parts(parse(Parameters, result["parameters"]))
        assert result["data_fingerprint"] == f"{learned.fingerprint} {searched.fingerprint}"
        assert not set(learned.paths) & set(searched.paths)
        for part in (learned, searched):
            assert not set(part.paths) & set(test.paths)
            assert not set(part.labels.tolist()) & set(test.labels.tolist())
    shutil.rmtree(lab.out)
    killed = lab.start("--trials", "2", "--workers", "2")
    wait_until(lambda: len(list(lab.trials.glob("*/result.json"))) >= 2)
    killed.kill()
    killed.communicate()
    before = {file: file.stat().st_mtime_ns for file in lab.trials.glob("*/result.json")}
    resumed = lab.tune("--trials", "2", "--workers", "2")
    assert resumed.returncode == 0, resumed.stderr
    assert tuned(lab) == wanted and trials_of(lab) == kept
    assert {run.folder.name: run.result["metrics"] for run in find_results(lab.out)} == finals
    assert all(file.stat().st_mtime_ns == time_ for file, time_ in before.items())
