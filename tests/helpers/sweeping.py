"""What tests of sweeps and their benchmark share: a stand-in for papermill, and Dask workers and
drivers in processes of their own, to be killed."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType

import psutil

TESTS = Path(__file__).parents[1]

# Stands in for papermill where it is found first: the same arguments, in a tenth of the time.
STAND_IN = """
import json, os, pathlib, signal, subprocess, sys, time, yaml
p = {"steps": -1, **yaml.safe_load(open(sys.argv[4]))}
folder, behaviour = pathlib.Path(p["out"]), p["behaviour"]
result, executed = folder / "result.json", folder.parent / "executed"
with open(executed, "a") as log:
    log.write(f"{folder.name} {'again' if result.exists() else 'first'} {behaviour}\\n")
names = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
(folder / "environment").write_text(json.dumps({name: os.environ.get(name) for name in names}))
print("epoch   1/2  loss 0.5", flush=True)
def wait(ready):
    while not ready():
        time.sleep(0.02)
def times():
    return executed.read_text().count(folder.name)
if behaviour == "meets":  # another run of this kind that is at work at the same time
    wait(lambda: len(list(folder.parent.glob("*/environment"))) >= 2)
    (folder / "met").touch()
    wait(lambda: len(list(folder.parent.glob("*/met"))) >= 2)
if behaviour == "waits":
    (folder / "waiting").touch()
    wait((folder.parent / "go").exists)
if behaviour == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if behaviour in ("hangs", "stubborn") and not (folder.parent / "go").exists():
    for _ in range(2):
        sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
        subprocess.Popen(sleep, start_new_session=True)
    (folder / "hanging").touch()
    time.sleep(600)
if behaviour == "fails twice" and times() <= 2:
    sys.exit("ValueError: not yet")
if behaviour == "no kernel" and times() < p["steps"]:
    sys.exit("RuntimeError: Kernel died before replying to kernel_info")
if behaviour == "killed":
    os.kill(os.getpid(), 9)
if behaviour == "dies":
    sys.exit("nbclient.exceptions.DeadKernelError: Kernel died\\n")
if behaviour == "removes its root":
    os.rmdir(p["root"])
time.sleep(0.3 if behaviour == "good" else 0)
if behaviour == "other":
    p["lr"] = 77.0
schema = 1 if behaviour == "old" else 2
found = {"schema": schema, "status": "complete", "parameters": p, "metrics": {"recall@1": 0.5}}
if behaviour != "silent":
    text = json.dumps(found)
    (folder / "part").write_text(text[:50] if behaviour == "cut" else text)
    os.replace(folder / "part", result)
if behaviour == "fails late":
    sys.exit("late")
"""


def stand_in(folder: Path) -> dict[str, str]:
    """The environment in which `python -m papermill` is the stand-in."""
    package = folder / "stand_in" / "papermill"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(STAND_IN)
    return {"PYTHONPATH": f"{package.parent}{os.pathsep}{TESTS}"}


NOTHING = MappingProxyType({})


def address_in(file: Path) -> str | None:
    """A scheduler's; None until its file is there and whole, for dask writes it in place."""
    try:
        return json.loads(file.read_text())["address"]
    except (FileNotFoundError, json.JSONDecodeError):
        return None


class Workers:
    """A Dask scheduler and its workers, processes that a nanny starts again when they are lost."""

    def __init__(
        self, folder: Path, count: int, environment: Mapping[str, str] = NOTHING, threads: int = 1
    ):
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "scheduler.json"
        here = ["--host", "127.0.0.1", "--dashboard-address", "127.0.0.1:0"]
        self._log, self._environment = open(folder / "dask.log", "a"), {**os.environ, **environment}
        self.scheduler = self._start(
            "scheduler", *here, "--port", "0", "--scheduler-file", str(file)
        )
        self.address = wait_until(lambda: address_in(file))
        self.nannies = self._start(
            "worker",
            self.address,
            *here,
            "--nworkers",
            str(count),
            "--nthreads",
            str(threads),
            "--memory-limit",
            "0",
            "--local-directory",
            str(folder),
        )

    def _start(self, *words: str) -> subprocess.Popen:
        command = [sys.executable, "-m", "dask", *words]
        return subprocess.Popen(command, env=self._environment, stdout=self._log, stderr=self._log)

    @property
    def pids(self) -> list[int]:
        """Of the workers, those that are just being started included."""
        children = psutil.Process(self.nannies.pid).children()
        return [
            child.pid
            for child in children
            if child.is_running() and "spawn_main" in " ".join(child.cmdline())
        ]

    def close(self) -> None:
        """At once; a worker ends with its nanny."""
        for process in (self.nannies, self.scheduler):
            process.kill()
            process.wait()
        self._log.close()


def drive(card: Path, out: Path, *arguments: str) -> subprocess.Popen:
    """`fieldmarks run` as a terminal starts it: in a process group of its own, to which Ctrl-C is
    sent as a whole."""
    command = [sys.executable, "-m", "fieldlab", "run", str(card), "--out", str(out), *arguments]
    return subprocess.Popen(
        command,
        env={"PYTHONPATH": str(TESTS), **os.environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # a background job ignores Ctrl-C


def sweep_with_kills(
    start, workers: Workers, begun, kills: int, pause: float, seed: int
) -> tuple[int, list[str]]:
    """Keep a sweep going while workers and the driver are killed (-9) at random, the driver every
    third time.

    Args:
        start: () -> a new driver.
        begun: () -> how many runs have begun; after each kill, two more must begin before the next.
        pause: up to so many seconds pass before a kill.

    Returns:
        the exit code and what was killed.
    """
    chance, killed, driver = random.Random(seed), [], start()
    while driver.poll() is None and len(killed) < kills:
        more = partial(_more_or_over, begun, begun() + 2, driver)
        wait_until(more)
        time.sleep(chance.uniform(0, pause))
        if driver.poll() is not None:
            break
        if len(killed) % 3 == 2:
            driver.kill()
            driver.communicate()
            killed.append("driver")
            driver = start()
        elif pids := workers.pids:
            os.kill(chance.choice(pids), signal.SIGKILL)
            killed.append("worker")
    driver.communicate()
    return driver.returncode, killed


def _more_or_over(begun, target: int, driver: subprocess.Popen) -> bool:
    return begun() >= target or driver.poll() is not None


def wait_until(ready, limit: float = 120):
    """What `ready` answers at last."""
    deadline = time.monotonic() + limit
    while not (answer := ready()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)
    return answer
