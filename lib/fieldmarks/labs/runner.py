"""Runs of lab cards, one after another: each a papermill process of its own, in a folder of its own.

Only a complete result.json counts as success. What is there already is not run again, so that a sweep that was stopped,
killed or failed in places is taken up by starting it once more.
"""
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import yaml
from filelock import FileLock, Timeout

from .board import duration
from .notebook import error_of, was_started
from .plan import Run
from .results import read_result

PAPERMILL = (sys.executable, "-m", "papermill")
GRACE = 10.0  # seconds that a process has to save and end before it is killed
KERNEL_STARTS = 3  # attempts
# What jupyter_client and zmq say when a kernel does not come up, mostly because two took the same port.
NO_KERNEL = re.compile(r"Kernel died before replying to kernel_info|Kernel didn't respond|Address already in use")


@dataclass(frozen=True)
class Outcome:
    """How a run ended: "done", "earlier" (done before), "failed", or "stopped" (by Ctrl-C)."""

    state: str
    seconds: float = 0.0
    metrics: dict[str, float] = field(default_factory=dict)
    error: str = ""


def run_all(runs: Sequence[Run], time_limit: float, board=None) -> list[Outcome]:
    """Execute runs in order; one that fails does not keep the others from running.

    Args:
        time_limit: seconds for each.
        board: told of each start and end by `started(number)` and `ended(number, outcome)`.

    Returns:
        one outcome a run; fewer when Ctrl-C or SIGTERM ended it, and then the last is "stopped".
    """
    outcomes = []
    with _terminated_as_interrupted():
        for number, run in enumerate(runs):
            if board:
                board.started(number)
            try:
                outcomes.append(execute(run, time_limit))
            except KeyboardInterrupt:
                outcomes.append(Outcome("stopped"))
            if board:
                board.ended(number, outcomes[-1])
            if outcomes[-1].state == "stopped":
                break
    return outcomes


def execute(run: Run, time_limit: float) -> Outcome:
    """Execute one run, unless its result is there.

    The folder then holds the executed notebook, parameters.yaml, papermill.log and what the notebook wrote: result.json
    and figures.
    """
    began = time.monotonic()
    try:
        run.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(run.folder / ".runner").acquire(timeout=0):
            if (metrics := finished(run)) is not None:
                return Outcome("earlier", metrics=metrics)
            stop_processes(run.folder)  # left by a runner that was killed
            error = _run_papermill(run, time_limit)
    except Timeout:
        return Outcome("failed", error="another runner is at work on it")
    except OSError as problem:  # a full disk, a folder that cannot be written
        error = f"{problem.strerror or problem} ('{run.folder}')"
    metrics = finished(run)
    seconds = time.monotonic() - began
    return Outcome("failed", seconds, error=error) if metrics is None else Outcome("done", seconds, metrics)


def finished(run: Run) -> dict[str, float] | None:
    """The metrics of a run whose complete result is there, and comes from its parameters."""
    result = read_result(run.folder)
    if result is None:
        return None
    used = result.get("parameters", {})
    return result["metrics"] if all(used.get(name) == value for name, value in run.parameters.items()) else None


# ---- papermill


def executed_notebook(run: Run) -> Path:
    return run.folder / run.notebook.name


def _run_papermill(run: Run, time_limit: float) -> str:
    """Returns what went wrong, to be heeded if there is no result."""
    executed, log = executed_notebook(run), run.folder / "papermill.log"
    parameters = {**run.parameters, "out": str(run.folder), "card": run.card}
    (run.folder / "parameters.yaml").write_text(yaml.safe_dump(parameters, sort_keys=False))
    deadline = time.monotonic() + time_limit
    for _ in range(KERNEL_STARTS):
        executed.unlink(missing_ok=True)
        code = _papermill(run, log, deadline)
        text = log.read_text(errors="replace")
        if was_started(executed) or not NO_KERNEL.search(text):
            break
    if code is None:
        return f"stopped at its time limit of {duration(time_limit)}"
    if code == 0:
        return "the notebook wrote no complete result.json of these parameters"
    if code < 0:
        return f"papermill was killed by signal {-code}"
    last_line = next((line for line in reversed(text.splitlines()) if line.strip()), "papermill failed")
    return error_of(executed) or last_line


def _papermill(run: Run, log: Path, deadline: float) -> int | None:
    """Start papermill and wait for its end: its exit code, or None at the deadline. Nothing of it is left running."""
    command = [
        *PAPERMILL, str(run.notebook), str(executed_notebook(run)), "--parameters_file",
        str(run.folder / "parameters.yaml"), "--log-output", "--no-progress-bar",
    ]
    environment = {
        **os.environ, MARK: str(run.folder), "FIELDMARKS_PROGRESS": "lines",
        "JUPYTER_PREFER_ENV_PATH": "1",  # this environment's kernel, not one of the same name in the user's home
    }
    with open(log, "wb") as output:
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            start_new_session=True)  # so that Ctrl-C comes to this process alone, which then stops the others
    code = None
    try:
        code = process.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        pass
    finally:
        stop_processes(run.folder, at_once=code is not None)
        process.kill()  # where it was stopped before it had the mark
        process.wait()
    return code


# ---- processes


# Kernels run in sessions of their own, and lose their parent when papermill is killed; but what a process has in its
# environment, all that it starts has too, whoever is its parent by then.
MARK = "FIELDMARKS_RUN"


def processes_of(folder: Path) -> list[psutil.Process]:
    """The live processes of the run in this folder: papermill, the kernel, and what these have started."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == str(folder) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.Error, OSError):  # ended meanwhile, or another user's
            pass
    return [process for process in found if process.pid != os.getpid()]


def stop_processes(folder: Path, at_once: bool = False) -> None:
    """End all processes of a run: asked first, so that training can save its state, then killed. None is left then."""
    if not (members := processes_of(folder)):
        return
    try:
        if not at_once:
            _signal(_innermost(members), signal.SIGTERM)
            deadline = time.monotonic() + GRACE
            while processes_of(folder) and time.monotonic() < deadline:
                time.sleep(0.05)
    finally:  # also after a second Ctrl-C
        while members := processes_of(folder):
            _signal(members, signal.SIGKILL)
            time.sleep(0.05)


def _innermost(members: list[psutil.Process]) -> list[psutil.Process]:
    """All but papermill: when the kernel ends, papermill still saves the notebook, and ends by itself."""
    pids = {process.pid for process in members}
    return [process for process in members if _parent(process) in pids] or members


def _parent(process: psutil.Process) -> int | None:
    try:
        return process.ppid()
    except psutil.Error:
        return None


def _signal(processes: list[psutil.Process], number: int) -> None:
    for process in processes:
        try:
            process.send_signal(number)
        except psutil.Error:
            pass


@contextmanager
def _terminated_as_interrupted():
    """SIGTERM, with which schedulers and `kill` end a process, stops the sweep as Ctrl-C does."""
    def interrupt(signum, frame):
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():  # only there can signals be handled
        yield
        return
    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
