"""Sweeps on one worker, on an embedded cluster, and on Dask workers that are killed."""

import importlib
import json
import os
import signal
import socket
import threading

import pytest
from rich.console import Console

from fieldlab.cards.card import load_card
from fieldlab.sweep import board, cluster, estimate, runner
from fieldlab.sweep.plan import plan
from fieldlab.sweep.runner import Outcome
from fieldlab.sweep.sweep import run_all
from helpers.full_disk import grows_to
from helpers.sweeping import Workers, drive, stand_in, sweep_with_kills, wait_until

VISIBLE = "CUDA_VISIBLE_DEVICES"


@pytest.fixture
def runs_of(lab, tmp_path, monkeypatch):
    """Runs of the given behaviours, by a stand-in for papermill that other processes find too."""
    for name, value in stand_in(tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(runner, "PATIENCE", 0.1)
    monkeypatch.setattr(runner, "GRACE", 0.5)

    def make(*behaviours: str, profile="demo", settings=(), seeds=(0,)) -> list:
        lab.card["grid"] = {
            f"{number} {name}": {"behaviour": name} for number, name in enumerate(behaviours)
        }
        lab.card |= {"published": {}, "claims": [], "seeds": list(seeds)}
        return plan(load_card(lab.write()), profile, lab.folder / "out", settings)

    return make


@pytest.fixture(scope="module")
def workers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dask")
    started = Workers(folder, 2, stand_in(folder), threads=3)
    yield started
    started.close()


@pytest.fixture
def driver(lab):
    """Starts `fieldmarks run` on the card that was written last."""
    started = []

    def start(*words: str):
        started.append(
            drive(lab.folder / "labs" / "paper" / "table1.yaml", lab.folder / "out", *words)
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def executions(runs) -> list[str]:
    file = runs[0].folder.parent / "executed"
    return file.read_text().splitlines() if file.exists() else []


@pytest.fixture(scope="module")
def alone():
    """The client of one embedded worker."""
    with cluster.embedded(1) as client:
        yield client


def states(outcomes) -> list[str]:
    return [outcome.state for outcome in outcomes]


def environment(run) -> dict:
    return json.loads((run.folder / "environment").read_text())


class Recorder(board.Lines):
    def __init__(self):
        self.events = []

    def started(self, number):
        self.events.append((number, "started"))

    def ended(self, number, outcome):
        self.events.append((number, outcome.state))


# ---- one after another


def test_a_failed_run_is_tried_again_after_the_others(alone, runs_of):
    runs, seen = runs_of("fails twice", "good"), Recorder()
    assert states(run_all(alone, runs, 60, seen, retries=2)) == ["done", "done"]
    assert [event for event in seen.events if event[1] != "started"] == [
        (0, "again"),
        (1, "done"),
        (0, "again"),
        (0, "done"),
    ]


def test_something_may_follow_each_run_that_is_done(alone, runs_of):
    runs, done = runs_of("good", "fails twice", "good"), []
    after = lambda: done.append([runner.finished(run) is not None for run in runs])
    assert states(run_all(alone, runs, 60, Recorder(), after=after)) == ["done", "failed", "done"]
    assert done == [[True, False, False], [True, False, True]]


def test_no_more_retries_than_allowed(alone, runs_of):
    runs = runs_of("fails twice", "good")
    outcomes = run_all(alone, runs, 60, retries=1)
    assert (
        states(outcomes) == ["failed", "done"]
        and outcomes[0].error == "ValueError: not yet"
        and len(executions(runs)) == 3
    )
    record = json.loads((runs[0].folder / "outcome.json").read_text())
    assert (record["state"], record["error"], record["row"]) == (
        "failed",
        "ValueError: not yet",
        "0 fails twice",
    )


def test_two_runners_on_one_folder_share_its_runs(alone, runs_of):
    runs = runs_of("waits", "good")
    other = threading.Thread(target=run_all, args=(alone, runs, 60))
    other.start()
    wait_until((runs[0].folder / "waiting").exists)
    seen = Recorder()

    def release():
        wait_until(lambda: (0, "busy") in seen.events)
        (runs[0].folder.parent / "go").touch()

    threading.Thread(target=release).start()
    with cluster.embedded(1) as client:
        assert states(run_all(client, runs, 60, seen))[0] == "earlier"
    other.join()
    assert len(executions(runs)) == 2


def test_a_data_root_that_vanishes_fails_only_the_runs_that_need_it(alone, runs_of, tmp_path):
    (tmp_path / "cub").mkdir()
    (tmp_path / "cars").mkdir()
    roots = [f"root.cub={tmp_path}/cub", f"root.cars={tmp_path}/cars", "lr=0.2"]
    cub, gone, cars, kept = runs_of("removes its root", "good", profile="paper", settings=roots)
    (tmp_path / "cars" / "image").touch()  # os.rmdir fails there
    outcomes = run_all(alone, [cub, gone, kept], 60)
    assert states(outcomes) == ["done", "failed", "done"]
    assert outcomes[1].error == f"the folder of cub does not exist any more: '{tmp_path}/cub'"


def test_a_full_disk_fails_the_run_in_words(alone, runs_of):
    """As the limit on the size of files, which gives the same error half-way through a write."""
    (run,) = runs_of("good")
    child = os.fork()
    if not child:
        with grows_to(20):
            outcome = runner.execute(run, 60)
        told = f"cannot write '{run.folder / 'parameters.yaml'}': File too large; nothing was left"
        os._exit(not (outcome.state == "failed" and outcome.error.startswith(told)))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert runner.finished(run) is None and states(run_all(alone, [run], 60)) == ["done"]


# ---- an embedded cluster


def test_two_workers_run_two_at_once_with_a_share_of_threads_and_a_gpu_each(
    runs_of, tmp_path, monkeypatch
):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(cluster, "CPU_COUNT", 6)
    monkeypatch.setattr(cluster, "gpus", lambda: ("GPU-a", "GPU-b"))
    monkeypatch.setattr(cluster.tempfile, "gettempdir", lambda: str(tmp_path))
    runs = runs_of("meets", "meets", "good", "fails twice")
    with cluster.embedded(2) as client:
        outcomes = run_all(client, runs, 60)
    assert (
        states(outcomes) == ["done", "done", "done", "failed"]
        and outcomes[3].error == "ValueError: not yet"
    )
    assert {environment(run)[VISIBLE] for run in runs[:2]} == {"GPU-a", "GPU-b"}
    assert all(
        environment(run)["OMP_NUM_THREADS"] == environment(run)["MKL_NUM_THREADS"] == "3"
        for run in runs
    )


def test_an_embedded_cluster_listens_on_this_machine_only():
    own = runner.psutil.Process()
    with cluster.embedded(2):
        listening = [link.laddr.ip for link in own.net_connections() if link.status == "LISTEN"]
    assert set(listening) <= {"127.0.0.1", "::1"}


@pytest.mark.parametrize(
    "allowed, processors, count, threads",
    [
        ("", 8, 2, 4),
        ("", 8, 3, 2),
        ("", 2, 5, 1),
        ("3", 8, 2, 3),
        ("16", 8, 2, 4),
        ("0", 8, 2, 4),
        ("4,2", 8, 2, 4),
    ],
)
def test_threads_are_divided_and_what_the_user_allows_is_kept_to(
    monkeypatch, allowed, processors, count, threads
):
    monkeypatch.setattr(cluster, "CPU_COUNT", processors)
    monkeypatch.setenv("OMP_NUM_THREADS", allowed)
    assert cluster._share(count) == threads


def test_gpus_are_those_that_the_user_left_visible_else_all(tmp_path, monkeypatch):
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho GPU-1\necho GPU-2\n")
    tool.chmod(0o755)
    found = {}
    for given in (None, "", "-1", "3, 1"):
        cluster.gpus.cache_clear()
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        monkeypatch.delenv(VISIBLE, raising=False) if given is None else monkeypatch.setenv(
            VISIBLE, given
        )
        found[given] = cluster.gpus()
    assert found == {None: ("GPU-1", "GPU-2"), "": (), "-1": (), "3, 1": ("3", "1")}
    tool.write_text("#!/bin/sh\necho No devices were found\nexit 6\n")
    monkeypatch.delenv(VISIBLE)
    cluster.gpus.cache_clear()
    assert cluster.gpus() == ()
    cluster.gpus.cache_clear()


def test_more_runs_than_gpus_share_them_evenly(tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "gpus", lambda: ("a", "b"))
    monkeypatch.setattr(cluster.tempfile, "gettempdir", lambda: str(tmp_path))
    with cluster.own_gpu() as one, cluster.own_gpu() as two, cluster.own_gpu() as three:
        assert [gpu[VISIBLE] for gpu in (one, two, three)] == ["a", "b", "a"]
        with cluster.own_gpu() as four:
            assert four[VISIBLE] == "b"
    with cluster.own_gpu() as again:
        assert again[VISIBLE] == "a"
    monkeypatch.setattr(cluster, "gpus", lambda: ())
    with cluster.own_gpu() as none:
        assert none == {}


@pytest.mark.slow
def test_ctrl_c_stops_all_workers_and_a_killed_driver_is_taken_up(runs_of, driver):
    runs = runs_of("waits", "waits", "good")

    def both_wait():
        return all((run.folder / "waiting").exists() for run in runs[:2])

    first = driver("--workers", "2")
    wait_until(both_wait)
    os.killpg(first.pid, signal.SIGINT)
    output, errors = first.communicate(timeout=60)
    assert (first.returncode, errors) == (130, "")
    assert sorted(line[:8] for line in output.splitlines()) == ["3 runs: ", "stopped ", "stopped "]
    assert "3 left; the same command resumes from here" in output
    assert not any(runner.processes_of(run.folder) for run in runs)

    for run in runs[:2]:
        (run.folder / "waiting").unlink()
    second = driver("--workers", "2")
    wait_until(both_wait)
    second.kill()
    second.communicate()
    orphans = [process for run in runs for process in runner.processes_of(run.folder)]
    assert len(orphans) == 2
    (runs[0].folder.parent / "go").touch()
    with cluster.embedded(2) as client:
        assert set(states(run_all(client, runs, 60))) <= {"done", "earlier"}
    assert not any(process.is_running() and process.status() != "zombie" for process in orphans)
    assert not any(line.split()[1] == "again" for line in executions(runs))


# ---- workers elsewhere


def test_a_scheduler_that_does_not_answer_is_one_line(monkeypatch):
    monkeypatch.setattr(cluster, "CONNECT", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        mute, port = f"tcp://127.0.0.1:{silent.getsockname()[1]}", "tcp://127.0.0.1:9"
        for address in (mute, port, "host", "nonsense://host:1"):
            with pytest.raises(ValueError) as error, cluster.connected(address):
                pass
            assert str(error.value).startswith(
                f"no Dask scheduler answers at '{address}' ("
            ) and "\n" not in str(error.value)


@pytest.mark.slow
def test_workers_without_the_library_are_one_line(workers, tmp_path, monkeypatch):
    with cluster.connected(workers.address) as client:
        wait_until(lambda: len(client.nthreads()) == 2)
    (tmp_path / "of_tomorrow.py").write_text("def _is_here(): pass")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(cluster, "_is_here", importlib.import_module("of_tomorrow")._is_here)
    with pytest.raises(ValueError) as error, cluster.connected(workers.address):
        pass
    assert str(error.value) == (
        f"the workers of '{workers.address}' cannot take runs "
        "(ModuleNotFoundError(\"No module named 'of_tomorrow'\")): "
        f"they need this library, in this version"
    )


@pytest.mark.slow
def test_a_lost_worker_loses_nothing_and_each_takes_one_run_at_a_time(runs_of, workers):
    runs = runs_of("waits", "good", "good")
    with cluster.connected(workers.address) as client:
        wait_until(lambda: len(client.nthreads()) == 2)
        outcomes = []
        sweeping = threading.Thread(target=lambda: outcomes.extend(run_all(client, runs, 60)))
        sweeping.start()
        wait_until((runs[0].folder / "waiting").exists)
        wait_until(lambda: all(runner.finished(run) for run in runs[1:]))
        (runs[0].folder / "waiting").unlink()
        for pid in workers.pids:
            os.kill(pid, signal.SIGKILL)
        wait_until((runs[0].folder / "waiting").exists)  # begun again
        (runs[0].folder.parent / "go").touch()
        sweeping.join()
    assert states(outcomes) == ["done", "done", "done"]
    assert [line.split()[1] for line in executions(runs)] == ["first"] * 4
    assert environment(runs[0])["OMP_NUM_THREADS"] == "3"


@pytest.mark.slow
def test_a_sweep_of_twelve_with_workers_and_driver_killed(runs_of, workers, driver):
    runs = runs_of("good", seeds=range(12))
    code, killed = sweep_with_kills(
        lambda: driver("--scheduler", workers.address),
        workers,
        lambda: len(executions(runs)),
        kills=3,
        pause=0.3,
        seed=1,
    )
    assert code == 0 and killed == ["worker", "worker", "driver"]
    assert all(runner.finished(run) for run in runs)
    assert not any(line.split()[1] == "again" for line in executions(runs))


@pytest.mark.slow
def test_ctrl_c_reaches_workers_elsewhere(runs_of, workers, driver):
    runs = runs_of("waits", "good")
    started = driver("--scheduler", workers.address)
    wait_until((runs[0].folder / "waiting").exists)
    wait_until(lambda: runner.finished(runs[1]))
    os.killpg(started.pid, signal.SIGINT)
    output, _ = started.communicate(timeout=60)
    assert (
        started.returncode == 130
        and "1 done, 1 left" in output
        and not runner.processes_of(runs[0].folder)
    )


@pytest.mark.slow
def test_a_lost_scheduler_is_one_line_and_nothing_is_left_running(
    runs_of, tmp_path, driver, monkeypatch
):
    monkeypatch.setenv(
        "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT", "5s"
    )  # for how long it is looked for
    own = Workers(tmp_path / "own", 1)
    try:
        (run,) = runs_of("waits")
        started = driver("--scheduler", own.address)
        wait_until((run.folder / "waiting").exists)
        own.scheduler.kill()
        _, errors = started.communicate(timeout=100)
        wait_until(
            lambda: not runner.processes_of(run.folder)
        )  # its worker ends too, and takes it along
    finally:
        own.close()
        runner.stop_processes(run.folder, at_once=True)
    lines = [line for line in errors.splitlines() if line != "waiting for workers"]
    assert (
        started.returncode == 2
        and len(lines) == 1
        and "the connection to the Dask scheduler is lost" in lines[0]
    )


# ---- estimates and the table


def write_outcome(run, state: str, seconds: float) -> None:
    run.folder.mkdir(parents=True, exist_ok=True)
    record = {"card": run.card, "profile": run.profile, "row": run.row, "dataset": run.dataset}
    record |= {"seconds": seconds, "state": state}
    runner.write_json(run.folder / "outcome.json", record)


def test_estimates_come_from_the_same_row_else_from_the_profile(runs_of):
    runs = runs_of("a", "b", "c", seeds=(0, 1))
    assert estimate.expected_seconds(runs) == [None] * 6
    write_outcome(runs[0], "done", 10.0)
    write_outcome(runs[1], "done", 30.0)
    write_outcome(runs[2], "done", 80.0)
    write_outcome(runs[3], "failed", 1000.0)
    runs[4].folder.mkdir()
    (runs[4].folder / "outcome.json").write_text('{"state": "done", "sec')
    assert estimate.expected_seconds(runs) == [20.0, 20.0, 80.0, 80.0, 40.0, 40.0]
    other = runs_of("a", "b", "c", profile="paper", settings=["dataset=fieldguide"])
    assert estimate.expected_seconds(other) == [None] * 3


@pytest.mark.parametrize(
    "expected, count, words",
    [
        ([], 1, "nothing is left to run"),
        ([None], 1, "none, as no run of this card and profile has been done here before"),
        ([30.0, 60.0], 1, "about 1 min 30 s"),
        ([30.0, 60.0, 30.0], 2, "about 1 min with 2 workers"),
        ([10.0, 60.0], 2, "about 1 min with 2 workers"),
        ([30.0, 60.0], None, "1 min 30 s of work, shared by the scheduler's workers"),
        ([30.0, None], 1, "about 30 s, and 1 run of which none has been done here before"),
    ],
)
def test_an_estimate_in_words(expected, count, words):
    assert estimate.estimate(expected, count) == f"estimate: {words}"


def test_progress_and_time_left_are_read_from_the_log(tmp_path):
    log = tmp_path / "papermill.log"
    assert board.read_progress(log) == ("", None)
    log.write_text(
        "Executing\nepoch   2/10  loss 0.1  lr 0.1  40 images/s  90 s left\n"
        "epoch   3/10  loss 0.1  7 images/s  80 s left\n"
    )
    os.utime(log, (os.stat(log).st_atime, os.stat(log).st_mtime - 30))
    words, left = board.read_progress(log)
    assert words == "epoch 3/10" and 0 <= left <= 50


def test_the_table_of_many_runs_shows_those_at_work_and_how_much_is_left(runs_of):
    runs = runs_of("good", seeds=range(40))
    with open(os.devnull, "w") as nowhere:
        console = Console(file=nowhere, force_terminal=True, width=140, height=12)
        table = board.Board(runs, console, [60.0] * 40)
        for number in range(30):
            table.started(number)
        for number in range(28):
            table.ended(
                number, Outcome("failed", 1.0, error="no") if number == 7 else Outcome("done", 60.0)
            )
        shown = [list(column.cells) for column in table.table().columns]
        assert (
            len(shown[0]) == 8 and shown[0].count("running") == 2 and shown[0].count("failed") == 1
        )
        assert table.table().caption == "2 running, 1 failed, 27 done, 10 waiting, about 6 min left"
        table.over = True
        assert len(list(table.table().columns[0].cells)) == 40
