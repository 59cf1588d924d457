import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from fieldlab.cards.card import load_card
from fieldlab.sweep import board, cluster, runner
from fieldlab.sweep.plan import plan
from fieldlab.sweep.sweep import run_all
from helpers.sweeping import drive, stand_in, wait_until


@pytest.fixture
def papermill(tmp_path, monkeypatch) -> None:
    """A stand-in for it."""
    for name, value in stand_in(tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(runner, "GRACE", 0.2)
    monkeypatch.setattr(runner, "PATIENCE", 0.1)


@pytest.fixture(scope="module")
def alone():
    """The client of one embedded worker."""
    with cluster.embedded(1) as client:
        yield client


def runs_of(lab, *behaviours: str, out: Path | None = None, settings=()) -> list:
    lab.card["grid"] = {
        f"{number} {name}": {"behaviour": name} for number, name in enumerate(behaviours)
    }
    lab.card |= {"published": {}, "claims": []}
    return plan(load_card(lab.write()), "demo", out or lab.folder / "out", settings)


def executions(lab) -> list[str]:
    """Their behaviours."""
    lines = (lab.folder / "out" / "paper-table1" / "executed").read_text().splitlines()
    return [line.split(" ", 2)[2] for line in lines]


def states(outcomes) -> list[str]:
    return [outcome.state for outcome in outcomes]


@pytest.fixture
def sweep(lab):
    """Starts a sweep of the card that was written last in a process of its own."""
    started = []

    def start(runs: list) -> subprocess.Popen:
        process = drive(lab.folder / "labs" / "paper" / "table1.yaml", lab.folder / "out")
        started.append((process, runs))
        return process

    yield start
    for process, runs in started:
        process.kill()
        process.communicate()
        for run in runs:
            runner.stop_processes(run.folder, at_once=True)


# ---- the plan


def test_a_run_for_each_row_data_set_and_seed(lab, tmp_path):
    (tmp_path / "cars").mkdir()
    lab.card |= {"seeds": [3, 1], "parameters": {"lr": 0.2, "flag": False}}
    lab.card["profiles"]["paper"] = {
        "datasets": {"cub": {"lr": 0.3, "grids": [1]}, "cars": {}},
        "parameters": {"lr": 0.25, "grids": [9]},
        "grid": {"one": {"grids": [5], "lr": 0.4}},
    }
    runs = plan(
        load_card(lab.write()),
        "paper",
        Path("out"),
        [f"root.cub={tmp_path}", f"root.cars={tmp_path}/cars"],
    )
    assert [(run.dataset, run.row, run.seed) for run in runs] == [
        (dataset, row, seed)
        for dataset in ("cub", "cars")
        for row in ("one", "one + two")
        for seed in (3, 1)
    ]
    assert runs[0].parameters == {
        "lr": 0.4,
        "flag": False,
        "steps": 1,
        "grids": [5],
        "root": str(tmp_path),
        "dataset": "cub",
        "seed": 3,
    }
    assert runs[2].parameters["lr"] == 0.3 and runs[2].parameters["grids"] == [1]
    assert runs[6].parameters["lr"] == 0.25 and runs[6].parameters["root"] == str(tmp_path / "cars")
    assert runs[2].folder.parent == Path.cwd() / "out" / "paper-table1"
    assert runs[2].folder.name.startswith("one+two-cub-3-")
    assert len({run.folder for run in runs}) == 8 and not Path("out/paper-table1").exists()


def test_rows_and_seeds_of_a_profile(lab):
    lab.card["profiles"]["demo"] |= {"only": ["one + two"], "seeds": [5]}
    (run,) = plan(load_card(lab.write()), "demo", Path("out"))
    assert (run.row, run.seed, run.parameters["root"]) == ("one + two", 5, "")


def test_other_parameters_seeds_or_code_are_another_folder_and_the_same_the_same(lab):
    def folder(*settings):
        return plan(load_card(lab.write()), "demo", lab.folder / "out", settings)[0].folder

    first = folder()
    assert folder() == first
    assert len({first, folder("lr=0.7"), folder("seed=1"), folder("behaviour=other")}) == 4
    lab.notebook.write_text(lab.notebook.read_text().replace("0.75", "0.76"))
    assert folder() != first


def test_settings(lab, tmp_path, monkeypatch):
    card = load_card(lab.write())
    runs = plan(card, "demo", Path("out"), ["lr=1e-3", "seed=[4, 5]", "behaviour=007", "grids=[1]"])
    assert {run.seed for run in runs} == {4, 5}
    assert (
        runs[0].parameters | {"lr": 0.001, "behaviour": "007", "grids": [1]} == runs[0].parameters
    )
    monkeypatch.setenv("FIELDMARKS_CUB", str(tmp_path))
    runs = plan(card, "paper", Path("out"), [f"root.cars={lab.folder}", "lr.cars=0.9"])
    assert {(run.dataset, run.parameters["root"], run.parameters.get("lr")) for run in runs} == {
        ("cub", str(tmp_path), None),
        ("cars", str(lab.folder), 0.9),
    }
    runs = plan(card, "paper", Path("out"), ["dataset=folder", f"root={lab.folder}"])
    assert {(run.dataset, run.parameters["root"]) for run in runs} == {("folder", str(lab.folder))}


@pytest.mark.parametrize(
    "profile, settings, expected",
    [
        ("demmo", [], "paper-table1 has no profile 'demmo': did you mean 'demo'?"),
        ("demo", ["lr"], "--set 'lr' is not of the form key=value"),
        ("demo", ["rl=1"], "--set rl=1: unknown parameter 'rl': did you mean 'lr'?"),
        ("demo", ["lr=fast"], "--set lr=fast: parameter 'lr' is 'fast': it must be a number"),
        (
            "demo",
            ["lr=[1"],
            "--set lr=[1: '[1' cannot be read as a number, true or false, a list or a mapping",
        ),
        ("demo", ["out=x"], "--set out=x: 'out' cannot be given: the runner sets it"),
        ("demo", ["seed=[]"], "--set seed=[]: give one seed or a list of different ones"),
        ("demo", ["seed=[1, 1]"], "--set seed=[1, 1]: give one seed or a list of different ones"),
        ("demo", ["steps=1"], "--set steps: it is what the rows of paper-table1 differ in"),
        ("demo", ["lr.cub=1"], "--set lr.cub: there is no data set 'cub': there are fieldguide"),
        (
            "demo",
            ["seed.fieldguide=1"],
            "--set seed.fieldguide: seed can be set for all data sets only",
        ),
        (
            "paper",
            [],
            "where is cub? Give its folder by --set root.cub=DIR or in the variable FIELDMARKS_CUB",
        ),
        (
            "paper",
            ["root=/"],
            "--set root: there are several data sets; give root.cub=DIR, root.cars=DIR",
        ),
        (
            "demo",
            ["flag=false", "steps.fieldguide=1"],
            "--set steps: it is what the rows of paper-table1 differ in",
        ),
        (
            "demo",
            ["generated=[1]"],
            "--set generated=[1]: parameter 'generated' is [1]: it must be dict",
        ),
        (
            "demo",
            ["root=/nowhere"],
            "the folder of fieldguide does not exist: '/nowhere' "
            "(--set root.fieldguide=DIR, or FIELDMARKS_FIELDGUIDE)",
        ),
    ],
)
def test_settings_that_do_not_fit(lab, monkeypatch, profile, settings, expected):
    monkeypatch.delenv("FIELDMARKS_CUB", raising=False)
    with pytest.raises(ValueError) as error:
        plan(load_card(lab.write()), profile, Path("out"), settings)
    assert str(error.value) == expected


# ---- papermill itself


@pytest.mark.slow
def test_a_sweep_by_papermill(alone, lab, capsys):
    runs = runs_of(lab, "raises", "good", settings=["lr=1e-5"])
    with board.open_board(runs) as lines:
        failed, done = run_all(alone, runs, 300, lines)
    assert (failed.state, done.state) == ("failed", "done") and done.metrics == {
        "recall@2": 0.75,
        "recall@1": 0.5,
    }
    assert failed.error == "FileNotFoundError: weights.pt is missing. Expected:"
    for run in runs:
        notebook = json.loads((run.folder / "work.ipynb").read_text())
        assert any(
            "injected-parameters" in cell["metadata"].get("tags", []) for cell in notebook["cells"]
        )
        assert board.read_progress(run.folder / "papermill.log") == ("epoch 1/2", None)
    assert "weights.pt is missing" in (runs[0].folder / "papermill.log").read_text()
    used = json.loads((runs[1].folder / "result.json").read_text())["parameters"]
    assert used["lr"] == 1e-5 and used["root"] == "" and used["seed"] == 0
    assert used["out"] == str(runs[1].folder) and used["card"] == "paper-table1"
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith(
        "failed  paper-table1  0 raises  fieldguide  seed 0  "
    ) and first.endswith(failed.error)
    assert second.startswith("done    paper-table1  1 good  fieldguide  seed 0  recall@2 0.7500  ")

    before = (runs[1].folder / "work.ipynb").stat().st_mtime_ns
    assert runner.execute(runs[1], 300) == runner.Outcome("earlier", metrics=done.metrics)
    assert (runs[1].folder / "work.ipynb").stat().st_mtime_ns == before


@pytest.mark.slow
def test_ctrl_c_stops_the_kernel_and_what_it_started(lab, sweep):
    runs = runs_of(lab, "hangs", "good")
    run, driver = runs[0], sweep(runs)
    wait_until((run.folder / "hanging").exists)
    assert len(runner.processes_of(run.folder)) == 3  # papermill, the kernel, a process of its own
    os.killpg(driver.pid, signal.SIGINT)
    output, errors = driver.communicate(timeout=60)
    assert driver.returncode == 130 and errors == ""
    first, last = output.splitlines()
    assert first == "stopped paper-table1  0 hangs  fieldguide  seed 0"
    assert last.startswith("2 runs: 2 left; the same command resumes from here")
    assert runner.processes_of(run.folder) == []


# ---- the runner, with a stand-in for papermill


@pytest.mark.slow
def test_a_run_that_hangs_is_stopped_at_its_limit_with_all_that_it_started(lab, papermill):
    (run,) = runs_of(lab, "stubborn")
    outcome = runner.execute(run, 3)
    assert outcome.state == "failed" and outcome.error == "stopped at its time limit of 3 s"
    assert (run.folder / "hanging").exists() and runner.processes_of(run.folder) == []


@pytest.mark.parametrize(
    "behaviour, error",
    [
        ("silent", "the notebook wrote no complete result.json of these parameters"),
        ("cut", "the notebook wrote no complete result.json of these parameters"),
        ("other", "the notebook wrote no complete result.json of these parameters"),
        ("killed", "papermill was killed by signal 9"),
        ("dies", "nbclient.exceptions.DeadKernelError: Kernel died"),
    ],
)
def test_no_result_is_a_failure_whatever_else_was_said(lab, papermill, behaviour, error):
    (run,) = runs_of(lab, behaviour)
    outcome = runner.execute(run, 60)
    assert (outcome.state, outcome.error) == ("failed", error) and len(executions(lab)) == 1


def test_a_complete_result_is_success_whatever_else_was_said(lab, papermill):
    (run,) = runs_of(lab, "fails late")
    assert runner.execute(run, 60).state == "done"


def test_one_that_fails_fails_only_itself_and_only_it_is_run_again(alone, lab, papermill):
    runs = runs_of(lab, "good", "silent", "fails late")
    assert states(run_all(alone, runs, 60)) == ["done", "failed", "done"]
    assert states(run_all(alone, runs, 60)) == ["earlier", "failed", "earlier"]
    assert executions(lab) == ["good", "silent", "fails late", "silent"]


def test_a_result_that_was_cut_off_or_is_another_runs_is_not_taken_for_this_one(lab, papermill):
    (run,) = runs_of(lab, "good")
    runner.execute(run, 60)
    file = run.folder / "result.json"
    text = file.read_text()
    for damaged in (text[:40], text.replace("0.5,", "0.6,"), text.replace("complete", "begun")):
        file.write_text(damaged)
        assert runner.finished(run) is None
        assert runner.execute(run, 60).state == "done"


@pytest.mark.parametrize(
    "fails, state, starts", [(2, "done", 2), (99, "failed", runner.KERNEL_STARTS)]
)
def test_only_a_kernel_that_does_not_start_is_tried_again(lab, papermill, fails, state, starts):
    (run,) = runs_of(lab, "no kernel", settings=[f"steps={fails}"])
    outcome = runner.execute(run, 60)
    assert outcome.state == state and len(executions(lab)) == starts
    assert outcome.error == (
        "" if state == "done" else "RuntimeError: Kernel died before replying to kernel_info"
    )


@pytest.mark.slow
def test_a_killed_runner_loses_no_finished_run_and_leaves_nothing_running(
    alone, lab, papermill, sweep
):
    runs = runs_of(lab, "good", "hangs", "good")
    driver = sweep(runs)
    wait_until((runs[1].folder / "hanging").exists)
    driver.kill()
    driver.communicate(timeout=60)
    orphans = runner.processes_of(runs[1].folder)
    assert len(orphans) == 3
    (runs[1].folder.parent / "go").touch()  # this time it does not hang
    assert states(run_all(alone, runs, 60)) == ["earlier", "done", "done"]
    assert len(executions(lab)) == 4
    assert not any(process.is_running() and process.status() != "zombie" for process in orphans)


@pytest.mark.slow
def test_sigterm_stops_a_sweep_as_ctrl_c_does(lab, papermill, sweep):
    runs = runs_of(lab, "hangs", "good")
    run, driver = runs[0], sweep(runs)
    wait_until((run.folder / "hanging").exists)
    driver.terminate()
    driver.communicate(timeout=60)
    assert driver.returncode == 130 and len(executions(lab)) == 1
    assert runner.processes_of(run.folder) == []


@pytest.mark.slow
def test_a_run_that_another_runner_is_at_is_left_to_it(lab, papermill, sweep):
    (run,) = runs_of(lab, "hangs")
    driver = sweep([run])
    wait_until((run.folder / "hanging").exists)
    busy = runner.Outcome("busy", error="another runner is at work on it")
    assert runner.execute(run, 60) == busy
    assert len(runner.processes_of(run.folder)) == 3
    driver.terminate()
    driver.communicate(timeout=60)


def test_a_result_of_an_earlier_edition_is_neither_counted_nor_written_over(lab, papermill):
    (run,) = runs_of(lab, "old")
    assert runner.execute(run, 60).state == "failed" and runner.finished(run) is None
    before = (run.folder / "result.json").read_text()
    outcome = runner.execute(run, 60)
    assert outcome.state == "failed" and len(executions(lab)) == 1
    assert outcome.error == (
        f"'{run.folder}' was made by an earlier edition: run it again, or use a new folder"
    )
    assert (run.folder / "result.json").read_text() == before


def test_a_folder_that_cannot_be_written_fails_only_its_run(alone, lab, papermill):
    bad, good = runs_of(lab, "good", "fails late")
    bad.folder.parent.mkdir(parents=True)
    bad.folder.touch()
    outcomes = run_all(alone, [bad, good], 60)
    assert states(outcomes) == ["failed", "done"]
    assert outcomes[0].error == f"File exists ('{bad.folder}')"


def test_parameters_reach_papermill_as_what_they_are(lab, papermill):
    (run,) = runs_of(lab, "good", settings=["lr=1e-7", "flag=false", "grids=[1]"])
    runner.execute(run, 60)
    written = yaml.safe_load((run.folder / "parameters.yaml").read_text())  # as papermill reads it
    assert (
        written == {**run.parameters, "out": str(run.folder), "card": "paper-table1"}
        and written["lr"] == 1e-7
    )


# ---- the table in a terminal


def test_the_table_shows_every_state(alone, lab, papermill):
    runs = runs_of(lab, "good", "silent", "good", "hangs")
    with open(os.devnull, "w") as nowhere:
        console = Console(file=nowhere, force_terminal=True, width=120)
        with console.capture() as captured, board.Board(runs, console) as table:
            run_all(alone, runs[:2], 60, table)
            table.started(2)
            (runs[2].folder).mkdir()
            (runs[2].folder / "papermill.log").write_text("Executing\nepoch   3/10  loss 0.1\n")
            console.print(table.table())
    text = captured.get()
    for words in (
        "done",
        "0 good",
        "recall@1 0.5000",
        "failed",
        "running",
        "epoch 3/10",
        "waiting",
        "3 hangs",
        "no complete result.json",
    ):
        assert words in text


@pytest.mark.parametrize(
    "seconds, words",
    [
        (0.4, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (200, "3 min 20 s"),
        (3599, "59 min 59 s"),
        (3600, "1 h"),
        (7500, "2 h 5 min"),
    ],
)
def test_durations(seconds, words):
    assert board.duration(seconds) == words
