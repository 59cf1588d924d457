"""Runs on the workers of a Dask cluster: one embedded in this process, or any that a scheduler's address leads to.

Every worker takes one run at a time, with as many threads as the worker has and a GPU of its own where there are any. Workers
elsewhere need this library and see the notebooks, the data and the results under the same paths.

The workers of the embedded cluster are threads, not processes: a run is a process of its own anyway, and so nothing listens
for code to execute, Ctrl-C comes to one process alone, and no worker can outlive it.
"""

import asyncio
import itertools
import logging
import os
import subprocess
import tempfile
import threading
from collections import defaultdict
from concurrent.futures import Future
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from uuid import uuid4

from dask.system import CPU_COUNT
from distributed import CancelledError, Client, KilledWorker, LocalCluster, Status, get_worker
from distributed.comm import connect
from filelock import FileLock, Timeout

from fieldlab.sweep.plan import Run
from fieldlab.sweep.runner import Outcome, execute

CONNECT = 10  # seconds
THREADS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)


@contextmanager
def embedded(workers: int):
    """A cluster in this process: yields a pool of `workers` that share its processors evenly. Opens no port to the network."""
    local = "127.0.0.1:0"  # without an address, dask's HTTP server would listen on all of them
    for name in (
        "asyncio",
        "tornado.application",
    ):  # of tasks that Ctrl-C has cut off, they would write a traceback each
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with (
        LocalCluster(
            n_workers=workers,
            threads_per_worker=_share(workers),
            processes=False,
            memory_limit=0,
            silence_logs=logging.CRITICAL,
            dashboard_address=local,
            worker_dashboard_address=local,
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield _Pool(client)


def _share(workers: int) -> int:
    """Threads for each of several runs on this machine; no more than the user allows any process here."""
    allowed = os.environ.get("OMP_NUM_THREADS", "")
    share = max(1, CPU_COUNT // workers)
    return min(share, int(allowed)) if allowed.isdecimal() and int(allowed) else share


@contextmanager
def connected(scheduler: str):
    """The workers of a running scheduler: yields a pool of them, which grows and shrinks as they do.

    Raises:
        ValueError: no scheduler answers there, or its workers lack this library.
    """
    for name in ("distributed", "distributed.client"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        asyncio.run(_greet(scheduler))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"no Dask scheduler answers at '{scheduler}' ({_first_line(error)}): "
            f"give the address that `dask scheduler` prints, as tcp://host:8786"
        ) from None
    with Client(scheduler, set_as_default=False) as client:
        try:
            client.run(_is_here)
        except Exception as error:  # whatever a worker meets with that has not this library
            raise ValueError(
                f"the workers of '{scheduler}' cannot take runs ({_first_line(error)}): "
                f"they need this library, in this version"
            ) from None
        yield _Pool(client)


async def _greet(address: str) -> None:
    """A client that cannot connect keeps trying when it is closed, and complains when it is deleted."""
    try:
        async with asyncio.timeout(
            CONNECT
        ):  # its own does not cover one that takes the connection and says nothing
            greeting = await connect(address, timeout=CONNECT)
            await greeting.close()
    except TimeoutError as error:
        raise OSError(str(error) or f"it says nothing within {CONNECT} s") from None


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


class _Pool:
    """Where a sweep's runs are executed; see `sweep.OneByOne`."""

    def __init__(self, client: Client):
        self.client, self.sweep = client, uuid4().hex

    def slots(self) -> int:
        try:
            return len(self.client.nthreads())
        except OSError:
            raise self._lost() from None

    def start(self, run: Run, time_limit: float) -> Future:
        # Only as many are handed over as there are workers: a task that waits at a worker is blamed when that is killed.
        task = self.client.submit(work, run, time_limit, self.sweep, pure=False)
        ended = Future()
        task.add_done_callback(lambda task: ended.set_result(_outcome(task)))
        return ended

    def stop(self) -> None:
        if self.client.status == "running":
            self.client.run(_stop, self.sweep, on_error="ignore")

    def _lost(self) -> RuntimeError:
        return RuntimeError(
            "the connection to the Dask scheduler is lost: runs that its workers are at may go on, "
            "and the same command takes up what is left"
        )


def _outcome(task) -> Outcome:
    try:
        return task.result()
    except KilledWorker:
        return Outcome("failed", error="every worker that took it was lost")
    except CancelledError:  # somebody cleared the scheduler, or it is gone, which `slots` finds out
        return Outcome("waiting")
    except Exception as error:
        return Outcome("failed", error=f"{type(error).__name__}: {_first_line(error)}")


# ---- on the workers


_stops: dict[str, threading.Event] = defaultdict(threading.Event)  # by sweep
_at_work: dict[str, threading.Lock] = defaultdict(threading.Lock)  # by worker


def _is_here() -> None:
    """Does nothing; a worker that can be asked to do that has this library."""


def _stop(sweep: str) -> None:
    _stops[sweep].set()


class _Stop:
    """For `execute`: the sweep is stopped, or this worker is being closed."""

    def __init__(self, sweep: str, worker):
        self._event, self._worker = _stops[sweep], worker

    def is_set(self) -> bool:
        return self._event.is_set() or self._worker.status in (Status.closing, Status.closed)

    def wait(self, seconds: float) -> bool:
        return self._event.wait(seconds) or self.is_set()


def work(run: Run, time_limit: float, sweep: str) -> Outcome:
    """`execute` on a worker. One that has a run already hands this one back ("waiting"): its threads are for that one."""
    worker = get_worker()
    if not _at_work[worker.address].acquire(blocking=False):
        return Outcome("waiting")
    try:
        with own_gpu() as gpu:
            threads = dict.fromkeys(THREADS, str(worker.state.nthreads))
            return execute(run, time_limit, threads | gpu, _Stop(sweep, worker))
    finally:
        _at_work[worker.address].release()


@contextmanager
def own_gpu():
    """A GPU that no other run on this machine has; where all are taken, one that as few as possible have. Yields the variable
    that makes it the only one a process sees; nothing where there is no GPU."""
    with _lease() as name:
        yield {"CUDA_VISIBLE_DEVICES": name} if name else {}


@contextmanager
def _lease():
    """By file locks, which hold between workers of any kind, and end with their process however that ends."""
    for sharing in itertools.count() if gpus() else ():
        for name in gpus():
            file = f"fieldmarks-{os.getuid()}-gpu-{name}-{sharing}".replace("/", "-")
            lock = FileLock(Path(tempfile.gettempdir()) / file)
            try:
                held = lock.acquire(timeout=0)
            except Timeout:
                continue
            with held:
                yield name
            return
    yield None


@cache
def gpus() -> tuple[str, ...]:
    """Those that this process may use, by the names that CUDA_VISIBLE_DEVICES takes."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return tuple(name.strip() for name in given.split(",") if name.strip() not in ("", "-1"))
    command = ("nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader")
    try:
        return tuple(
            subprocess.run(
                command, capture_output=True, text=True, check=True, timeout=60
            ).stdout.split()
        )
    except (OSError, subprocess.SubprocessError):
        return ()
