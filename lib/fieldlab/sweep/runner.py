"""One run of a lab card: a papermill process of its own, in a folder of its own.

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
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil
import yaml
from fieldmarks.experiments.result import read_result
from fieldmarks.files import write_json
from filelock import FileLock, Timeout

from fieldlab.sweep.board import duration
from fieldlab.sweep.notebook import error_of, was_started
from fieldlab.sweep.plan import Run

PAPERMILL = (sys.executable, "-m", "papermill")
GRACE = 10.0  # seconds that a process has to save and end before it is killed
POLL = 0.05  # seconds between looks at a running process
KERNEL_STARTS = 3  # attempts
OUTCOME = "outcome.json"
# What jupyter_client and zmq say when a kernel does not come up, mostly because two took the same port.
NO_KERNEL = re.compile(
    r"Kernel died before replying to kernel_info|Kernel didn't respond|Address already in use"
)


@dataclass(frozen=True)
class Outcome:
    """How a run ended: "done", "earlier" (done before), "failed", "stopped" (when asked to), "busy" (another runner is at
    work on it, and it was left to that one), or, in a sweep that goes on, "waiting" and "again" (failed, but not for good)."""

    state: str
    seconds: float = 0.0
    metrics: dict[str, float] = field(default_factory=dict)
    error: str = ""


def execute(
    run: Run,
    time_limit: float,
    environment: dict[str, str] = {},
    stop: threading.Event | None = None,
) -> Outcome:
    """Execute one run, unless its result is there. Plain data in and out, so that it can be called on any machine that has
    the same folders.

    The folder then holds the executed notebook, parameters.yaml, papermill.log, outcome.json (how this ended) and what the
    notebook wrote: result.json and figures.

    Args:
        time_limit: seconds.
        environment: variables for the notebook, beside those of this process.
        stop: when it is set, the run is asked to save its state, and ended. Only `is_set` and `wait` are called.
    """
    stop = stop or threading.Event()
    began = time.monotonic()
    try:
        run.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(run.folder / ".runner").acquire(timeout=0):
            if (metrics := finished(run)) is not None:
                return Outcome("earlier", metrics=metrics)
            if stop.is_set():
                return Outcome("stopped")
            stop_processes(run.folder)  # left by a runner that was killed
            error = _absent_root(run) or _run_papermill(run, time_limit, environment, stop)
            outcome = _outcome(finished(run), time.monotonic() - began, error, stop)
            write_json(run.folder / OUTCOME, _record(run, outcome))
            return outcome
    except Timeout:
        return Outcome("busy", error="another runner is at work on it")
    except OSError as problem:  # a full disk, a folder that cannot be written
        error = f"{problem.strerror or problem} ('{run.folder}')"
    return _outcome(finished(run), time.monotonic() - began, error, stop)


def _outcome(metrics: dict | None, seconds: float, error: str, stop: threading.Event) -> Outcome:
    if metrics is not None:
        return Outcome("done", seconds, metrics)
    return Outcome("stopped", seconds) if stop.is_set() else Outcome("failed", seconds, error=error)


def _record(run: Run, outcome: Outcome) -> dict:
    """For people who look for what failed, and for estimates of how long such runs take."""
    names = {name: getattr(run, name) for name in ("card", "profile", "row", "dataset", "seed")}
    return names | {name: value for name, value in asdict(outcome).items() if name != "metrics"}


def _absent_root(run: Run) -> str:
    root = run.parameters.get("root")
    return (
        f"the folder of {run.dataset} is not there any more: '{root}'"
        if root and not Path(root).is_dir()
        else ""
    )


def finished(run: Run) -> dict[str, float] | None:
    """The metrics of a run whose complete result is there, and comes from its parameters."""
    result = read_result(run.folder)
    if result is None:
        return None
    used = result.get("parameters", {})
    return (
        result["metrics"]
        if all(used.get(name) == value for name, value in run.parameters.items())
        else None
    )


# ---- papermill


def executed_notebook(run: Run) -> Path:
    return run.folder / run.notebook.name


def _run_papermill(
    run: Run, time_limit: float, environment: dict[str, str], stop: threading.Event
) -> str:
    """Returns what went wrong, to be heeded if there is no result."""
    executed, log = executed_notebook(run), run.folder / "papermill.log"
    parameters = {**run.parameters, "out": str(run.folder), "card": run.card}
    (run.folder / OUTCOME).unlink(missing_ok=True)
    (run.folder / "parameters.yaml").write_text(yaml.safe_dump(parameters, sort_keys=False))
    deadline = time.monotonic() + time_limit
    for _ in range(KERNEL_STARTS):
        executed.unlink(missing_ok=True)
        code = _papermill(run, log, deadline, environment, stop)
        text = log.read_text(errors="replace")
        if stop.is_set() or was_started(executed) or not NO_KERNEL.search(text):
            break
    if code is None:
        return f"stopped at its time limit of {duration(time_limit)}"
    if code == 0:
        return "the notebook wrote no complete result.json of these parameters"
    if code < 0:
        return f"papermill was killed by signal {-code}"
    last_line = next(
        (line for line in reversed(text.splitlines()) if line.strip()),
        f"papermill ended with exit code {code}",
    )
    return error_of(executed) or last_line


def _papermill(
    run: Run, log: Path, deadline: float, environment: dict[str, str], stop: threading.Event
) -> int | None:
    """Start papermill and wait for its end: its exit code, or None at the deadline or when it was to stop. Nothing of it is
    left running."""
    command = [
        *PAPERMILL,
        str(run.notebook),
        str(executed_notebook(run)),
        "--parameters_file",
        str(run.folder / "parameters.yaml"),
        "--log-output",
        "--no-progress-bar",
    ]
    environment = {
        **os.environ,
        **environment,
        MARK: str(run.folder),
        "FIELDMARKS_PROGRESS": "lines",
        "JUPYTER_PREFER_ENV_PATH": "1",  # this environment's kernel, not one of the same name in the user's home
    }
    with open(log, "wb") as output:
        process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # so that Ctrl-C comes to this process alone, which then stops the others
    code = None
    try:
        while (
            (code := process.poll()) is None and time.monotonic() < deadline and not stop.wait(POLL)
        ):
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
            if (
                process.environ().get(MARK) == str(folder)
                and process.status() != psutil.STATUS_ZOMBIE
            ):
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
