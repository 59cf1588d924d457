"""Finished runs beside a copy of the notebooks, and servers that show them."""

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import psutil

from helpers.experiments import arguments

REPOSITORY = Path(__file__).parents[2]
FCAENET = {"method": "fcaenet", "max_classes": 6, "passes": 1, "epochs": 1}
PAN = {"ways": 3, "shots": 2, "queries": 6, "episodes": 20, "validation_episodes": 10, "epochs": 20}
OTHER = {"method": "scda", "resize": 64, "size": 48}
RUNS = {
    "scda": ("open_set", {**OTHER, "generated": {"classes": 6, "images": 4, "size": 64}}),
    "fcaenet-12": ("hashing", {**FCAENET, "bits": 12}),
    "fcaenet-24": ("hashing", {**FCAENET, "bits": 24}),
    "pan": ("fewshot", PAN),
    "vapnet": ("open_set", {"epochs": 1}),
}
SHARED = {"generated": {"classes": 24, "images": 8}, "progress": "none", "device": "cpu"}
PROGRAM = """
import json, sys
from fieldmarks.experiments.experiment import experiment_class

for kind, words in json.loads(sys.argv[1]):
    assert experiment_class(kind).main(words) == 0, words
"""


def copy_notebooks(folder: Path) -> None:
    hidden = shutil.ignore_patterns(".*")
    shutil.copytree(REPOSITORY / "notebooks", folder / "notebooks", ignore=hidden)


def make_runs(folder: Path, environment: dict[str, str], **shared) -> None:
    """Make finished `runs` in a folder.

    Args:
        shared: parameters of all runs that differ from SHARED.
    """
    calls = [
        (kind, arguments({**SHARED, **shared, **values, "out": str(folder / "runs" / name)}))
        for name, (kind, values) in RUNS.items()
    ]
    words = [sys.executable, "-c", PROGRAM, json.dumps(calls)]
    options = {"env": environment, "capture_output": True, "text": True}
    done = subprocess.run(words, timeout=1800, **options)
    assert done.returncode == 0, done.stderr[-2000:]


def serve_command(port: int, **variables) -> list[str]:
    """What `make serve` starts, with this Python."""
    words = ["make", "--dry-run", "serve", f"PORT={port}"]
    words += [f"{name}={value}" for name, value in variables.items()]
    options = {"cwd": REPOSITORY, "capture_output": True, "text": True, "check": True}
    recipe = subprocess.run(words, **options).stdout
    (line,) = [line for line in recipe.splitlines() if " -m fieldlab.serve " in line]
    return [sys.executable, *shlex.split(line)[1:]]


def token_of(log: Path) -> str:
    """Which a server of notebooks has printed."""
    return next(word.split("token=")[1] for word in log.read_text().split() if "token=" in word)


@contextmanager
def serving(command: list[str], address: str, environment: dict[str, str], folder: Path):
    """A server, once it answers: its log, and its process. On the way out it is ended, and with it
    its kernels."""
    log = folder / f"{command[2]}.log"
    with open(log, "w") as stream:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        until = time.monotonic() + 180
        while not answers(address):
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"{address} does not answer:\n{log.read_text()[-3000:]}")
            time.sleep(0.2)
        yield log, process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def answers(address: str) -> bool:
    try:
        urllib.request.urlopen(address, timeout=2).close()
    except urllib.error.HTTPError:
        return True  # it asks for the token
    except OSError:
        return False
    return True


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def all_of(process: int) -> list[psutil.Process]:
    """A process, and all that it and those have started."""
    first = psutil.Process(process)
    return [first, *first.children(recursive=True)]


def kernels_of(process: int) -> list[psutil.Process]:
    """Those that are a session of their own, as kernels are, but not what they have started."""
    return [one for one in all_of(process)[1:] if os.getsid(one.pid) == one.pid]


def pss(process: psutil.Process) -> int:
    """Memory of a process in bytes; what several share is divided among them (Linux)."""
    for line in Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return 1024 * int(line.split()[1])
    raise OSError(f"no PSS of {process.pid}")
