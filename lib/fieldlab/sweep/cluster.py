"""Dask clusters for a sweep: one embedded in this process, or any that a scheduler's address names.

Every worker takes one run at a time, with as many threads as the worker has and a GPU of its own
where there are any. Workers elsewhere need this library and see the notebooks, the data and the
results under the same paths.

The workers of the embedded cluster are threads: a run is a process of its own anyway, and so
nothing listens for code to execute, and no worker can outlive a Ctrl-C.
"""

import asyncio
import itertools
import logging
import os
import subprocess
import tempfile
import threading
from collections import defaultdict
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from dask.system import CPU_COUNT
from distributed import Client, LocalCluster, Status, get_worker
from distributed.comm import connect
from filelock import FileLock, Timeout

from fieldlab.sweep.plan import Run
from fieldlab.sweep.runner import PATIENCE, Outcome, execute

CONNECT = 10  # seconds
LIBRARIES = ("OMP", "MKL", "OPENBLAS", "NUMEXPR")
THREADS = (*(f"{name}_NUM_THREADS" for name in LIBRARIES), "VECLIB_MAXIMUM_THREADS")


@contextmanager
def embedded(workers: int):
    """The client of a cluster in this process, whose workers share the processors evenly."""
    for name in ("asyncio", "tornado.application"):  # of tasks that Ctrl-C cuts off
        logging.getLogger(name).setLevel(logging.CRITICAL)
    # Without addresses, dask's HTTP servers would listen on all of them.
    local = dict.fromkeys(("dashboard_address", "worker_dashboard_address"), "127.0.0.1:0")
    options = {"processes": False, "memory_limit": 0, "silence_logs": logging.CRITICAL, **local}
    with LocalCluster(n_workers=workers, threads_per_worker=_share(workers), **options) as cluster:
        with Client(cluster, set_as_default=False) as client:
            yield client


def _share(workers: int) -> int:
    """Threads for each of several runs on this machine; no more than the user allows a process."""
    allowed = os.environ.get("OMP_NUM_THREADS", "")
    share = max(1, CPU_COUNT // workers)
    return min(share, int(allowed)) if allowed.isdecimal() and int(allowed) else share


@contextmanager
def connected(scheduler: str):
    """The client of a running scheduler, whose workers may come and go. Raises ValueError where
    none answers, or its workers lack this library."""
    for name in ("distributed", "distributed.client"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:  # before a client does, which keeps trying when it is closed, and complains when deleted
        asyncio.run(asyncio.wait_for(connect(scheduler, timeout=CONNECT), CONNECT))
    except (OSError, ValueError) as error:
        problem = f"no Dask scheduler answers at '{scheduler}' ({first_line(error)})"
        right = "give the address that `dask scheduler` prints, as tcp://host:8786"
        raise ValueError(f"{problem}: {right}") from None
    with Client(scheduler, set_as_default=False) as client:
        try:
            client.run(_is_here)
        except Exception as error:  # whatever a worker raises that has not this library
            problem = f"the workers of '{scheduler}' cannot take runs ({first_line(error)})"
            raise ValueError(f"{problem}: they need this library, in this version") from None
        yield client


def first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


_stopped: set[str] = set()  # sweeps
_at_work: dict[str, threading.Lock] = defaultdict(threading.Lock)  # by worker


def _is_here() -> None:
    """Does nothing; a worker that can do that has this library."""


def stop(sweep: str) -> None:
    """Ask all runs of a sweep on this worker to save their state and end."""
    _stopped.add(sweep)


def work(run: Run, time_limit: float, sweep: str) -> Outcome:
    """`execute` on a worker; one at work hands another run back: its threads are for the first."""
    worker = get_worker()
    if not _at_work[worker.address].acquire(timeout=PATIENCE):
        return Outcome("waiting")

    def stopped() -> bool:
        return sweep in _stopped or worker.status in (Status.closing, Status.closed)

    try:
        with own_gpu() as gpu:
            threads = dict.fromkeys(THREADS, str(worker.state.nthreads))
            return execute(run, time_limit, threads | gpu, stopped)
    finally:
        _at_work[worker.address].release()


@contextmanager
def own_gpu():
    """A GPU that no other run on this machine has; where all are taken, one that the fewest have.

    Yields the variable that makes it the only one a process sees; nothing where there is no GPU.
    File locks hold between workers of any kind, and end with their process however that ends.
    """
    for sharing in itertools.count() if gpus() else ():
        for name in gpus():
            file = f"fieldmarks-{os.getuid()}-gpu-{name}-{sharing}".replace("/", "-")
            lock = FileLock(Path(tempfile.gettempdir()) / file)
            try:
                held = lock.acquire(timeout=0)
            except Timeout:
                continue
            with held:
                yield {"CUDA_VISIBLE_DEVICES": name}
            return
    yield {}


@cache
def gpus() -> tuple[str, ...]:
    """Those that this process may use, by the names that CUDA_VISIBLE_DEVICES takes."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return tuple(name.strip() for name in given.split(",") if name.strip() not in ("", "-1"))
    command = ("nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader")
    try:
        listed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(listed.stdout.split())
