"""One run of a lab card: a papermill process of its own, in a folder of its own.

Only a complete result.json counts as success. What is there already is not run again, so a sweep
that was stopped or killed, or failed in places, resumes when it is started once more.
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import MappingProxyType

import psutil
import yaml
from filelock import FileLock, Timeout

from fieldlab.cards.finished import EARLIER_EDITION, of_earlier_edition
from fieldlab.cards.notebook import how_it_ended
from fieldlab.sweep.board import LOG, duration
from fieldlab.sweep.plan import Run
from fieldmarks.experiments.result import read_result
from fieldmarks.files import atomic, write_json

PAPERMILL = (sys.executable, "-m", "papermill")
GRACE = 10.0  # seconds that a process has to save and end before it is killed
PATIENCE = 2.0  # seconds before a run's turn passes that could not be begun
POLL = 0.05  # seconds
KERNEL_STARTS = 3  # attempts
OUTCOME, RECORDED = "outcome.json", ("card", "profile", "row", "dataset", "seed")
# Kernels run in sessions of their own, and lose their parent when papermill is killed; but all that
# a process starts has its environment too, whoever is its parent by then.
MARK = "FIELDMARKS_RUN"
# What jupyter_client and zmq say when a kernel does not start, mostly as two took the same port.
NO_KERNEL = re.compile(
    r"Kernel died before replying to kernel_info|Kernel didn't respond|Address already in use"
)


@dataclass(frozen=True)
class Outcome:
    """How a run ended: "done", "earlier" (done before), "failed", "stopped" (on request), "busy"
    (another runner is at it), or, in a sweep that goes on, "waiting" and "again" (it failed)."""

    state: str
    seconds: float = 0.0
    metrics: dict[str, float] = field(default_factory=dict)
    error: str = ""


def execute(
    run: Run,
    time_limit: float,
    environment: Mapping[str, str] = MappingProxyType({}),
    stopped: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Execute one run, unless its result is there; on any machine that has the same folders.

    Its folder then holds the executed notebook, parameters.yaml, papermill.log, outcome.json (how
    this ended) and what the notebook wrote: result.json and figures.

    Args:
        time_limit: seconds.
        environment: variables for the notebook, beside those of this process.
        stopped: once it is true, the run is asked to save its state, and ended.
    """
    began = time.monotonic()

    def outcome(error: str) -> Outcome:
        metrics, seconds = finished(run), time.monotonic() - began
        if metrics is not None:
            return Outcome("done", seconds, metrics)
        return Outcome("stopped", seconds) if stopped() else Outcome("failed", seconds, error=error)

    try:
        run.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(run.folder / ".runner").acquire(timeout=0):
            if (metrics := finished(run)) is None and not stopped():
                stop_processes(run.folder)  # left by a runner that was killed; one may just have
                metrics = finished(run)  # written its result
            if metrics is not None:
                return Outcome("earlier", metrics=metrics)
            if stopped():
                return Outcome("stopped")
            error = _obstacle(run) or _run_papermill(run, time_limit, environment, stopped)
            ended = outcome(error)
            record = {name: getattr(run, name) for name in RECORDED} | asdict(ended)
            write_json(run.folder / OUTCOME, record)  # for estimates, and to find what failed
            return ended
    except Timeout:
        time.sleep(PATIENCE)
        return Outcome("busy", error="another runner is at work on it")
    except OSError as problem:  # a full disk, a folder that cannot be written
        where = f"{problem.strerror} ('{run.folder}')"
        return outcome(where if problem.strerror else str(problem))


def finished(run: Run) -> dict[str, float] | None:
    """The metrics of a run whose complete result is there, and comes from its parameters."""
    if (result := read_result(run.folder)) is None:
        return None
    same = run.parameters.items() <= result.get("parameters", {}).items()
    return result["metrics"] if same else None


def _obstacle(run: Run) -> str:
    root = run.parameters.get("root")
    if root and not Path(root).is_dir():
        return f"the folder of {run.dataset} does not exist any more: '{root}'"
    return f"'{run.folder}' {EARLIER_EDITION}" if of_earlier_edition(run.folder) else ""


def _run_papermill(run: Run, time_limit: float, environment: Mapping, stopped) -> str:
    """Returns what went wrong, which counts if there is no result."""
    executed, values = run.folder / run.notebook.name, run.folder / "parameters.yaml"
    parameters = {**run.parameters, "out": str(run.folder), "card": run.card}
    (run.folder / OUTCOME).unlink(missing_ok=True)
    with atomic(values) as temporary:
        temporary.write_text(yaml.safe_dump(parameters, sort_keys=False))
    files = (str(run.notebook), str(executed), "--parameters_file", str(values))
    variables = {
        **os.environ,
        **environment,
        MARK: str(run.folder),
        "FIELDMARKS_PROGRESS": "lines",
        "JUPYTER_PREFER_ENV_PATH": "1",  # this environment's kernel, not one of the user's home
    }
    deadline = time.monotonic() + time_limit
    for _ in range(KERNEL_STARTS):
        executed.unlink(missing_ok=True)
        command = [*PAPERMILL, *files, "--log-output", "--no-progress-bar"]
        code = _wait_for(command, variables, run.folder, deadline, stopped)
        text = (run.folder / LOG).read_text(errors="replace")
        started, error = how_it_ended(executed)
        if stopped() or started or not NO_KERNEL.search(text):
            break
    if code is None:
        return f"stopped at its time limit of {duration(time_limit)}"
    if code == 0:
        return "the notebook wrote no complete result.json of these parameters"
    if code < 0:
        return f"papermill was killed by signal {-code}"
    lines = [line for line in text.splitlines() if line.strip()]
    return error or (lines or [f"papermill ended with exit code {code}"])[-1]


def _wait_for(command, variables: dict, folder: Path, deadline: float, stopped) -> int | None:
    """Start a command and wait for its end: its exit code, or None where it was stopped. Nothing of
    it is left running."""
    with open(folder / LOG, "wb") as log:
        # A session of its own, so that Ctrl-C comes to this process alone, which stops the others.
        streams = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": subprocess.STDOUT}
        process = subprocess.Popen(command, env=variables, start_new_session=True, **streams)
    code = None
    try:
        while (code := process.poll()) is None and time.monotonic() < deadline and not stopped():
            time.sleep(POLL)
    finally:
        stop_processes(folder, at_once=code is not None)
        process.kill()  # where it was stopped before it had the mark
        process.wait()
    return code


def processes_of(folder: Path) -> list[psutil.Process]:
    """The live processes of the run in a folder: papermill, the kernel, and what these started."""
    members = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):  # ended meanwhile, or another user's
            alive = process.status() != psutil.STATUS_ZOMBIE and process.pid != os.getpid()
            if alive and process.environ().get(MARK) == str(folder):
                members.append(process)
    return members


def stop_processes(folder: Path, at_once: bool = False) -> None:
    """End all processes of a run: asked first, so that training can save, then killed."""
    if not (members := processes_of(folder)):
        return
    try:
        if not at_once:
            _signal(_innermost(members), signal.SIGTERM)
            deadline = time.monotonic() + GRACE
            while processes_of(folder) and time.monotonic() < deadline:
                time.sleep(POLL)
    finally:  # also after a second Ctrl-C
        while members := processes_of(folder):
            _signal(members, signal.SIGKILL)
            time.sleep(POLL)


def _innermost(members: list[psutil.Process]) -> list[psutil.Process]:
    """All but papermill, which saves the notebook and ends by itself when its kernel ends."""
    pids, inner = {process.pid for process in members}, []
    for process in members:
        with suppress(psutil.Error):
            if process.ppid() in pids:
                inner.append(process)
    return inner or members


def _signal(processes: list[psutil.Process], number: int) -> None:
    for process in processes:
        with suppress(psutil.Error):
            process.send_signal(number)
