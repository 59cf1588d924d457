"""Many runs: which is next, what becomes of one that failed, and how all of them are stopped.

Where they are executed is a pool's matter: `OneByOne` here, a Dask cluster in cluster.py.
"""

import queue
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

from fieldlab.sweep import runner
from fieldlab.sweep.board import Silent
from fieldlab.sweep.plan import Run
from fieldlab.sweep.runner import Outcome, execute, finished, stop_processes

TICK = 1.0  # seconds between looks at how many workers there are
PATIENCE = (
    2.0  # seconds before a run that could not be begun, as another runner was at it, is tried again
)


class OneByOne:
    """A pool that executes one run at a time, in a thread: the main thread is free for Ctrl-C.

    A Dask cluster of one worker would do the same, but only importing dask.distributed takes longer than a small run's start.
    """

    def __init__(self):
        self._thread, self._stop = ThreadPoolExecutor(1), threading.Event()

    def slots(self) -> int:
        """How many runs can be at work at once."""
        return 1

    def start(self, run: Run, time_limit: float) -> Future:
        """Execute a run; the future's result is its Outcome."""
        return self._thread.submit(execute, run, time_limit, stop=self._stop)

    def stop(self) -> None:
        """Ask all runs to save their state and end; their futures then have a result soon."""
        self._stop.set()


def run_all(
    runs: Sequence[Run], time_limit: float, board=None, retries: int = 0, pool=None
) -> list[Outcome]:
    """Execute runs in order; one that fails does not keep the others from running.

    A run that another runner is at is left to it until that has ended: several runners on one folder share the work.

    Args:
        time_limit: seconds for each.
        board: told of each start and end by `started(number)` and `ended(number, outcome)`; the latter also of a failed run
            that is tried again ("again"), left to another runner ("busy") or handed back by its worker ("waiting").
        retries: how often a failed run is tried again, after all others.
        pool: see `OneByOne`, which is the default.

    Returns:
        one outcome a run; after Ctrl-C or SIGTERM those that have not ended are "stopped".

    Raises:
        RuntimeError: the pool is lost.
    """
    with _terminated_as_interrupted():
        return _Sweep(runs, time_limit, board or Silent(), retries, pool or OneByOne()).go()


class _Sweep:
    def __init__(self, runs, time_limit, board, retries, pool):
        self.runs, self.time_limit, self.board, self.retries, self.pool = (
            runs,
            time_limit,
            board,
            retries,
            pool,
        )
        self.outcomes: dict[int, Outcome] = {}
        self.waiting, self.running = deque(range(len(runs))), {}
        self.ended = queue.SimpleQueue()  # numbers of runs whose futures have ended
        self.failures, self.not_before = Counter(), Counter()
        self.begun: set[int] = set()  # by this sweep, perhaps on workers that were lost

    def go(self) -> list[Outcome]:
        try:
            while self.waiting or self.running:
                self._start()
                self._take(TICK)
        except KeyboardInterrupt:
            self._stop()
        except BaseException:
            self.pool.stop()
            raise
        return [self.outcomes.get(number, Outcome("stopped")) for number in range(len(self.runs))]

    def _start(self) -> None:
        """As many runs as there is room for."""
        slots = self.pool.slots()
        if not slots:
            self.board.note("waiting for workers")
        for number in list(self.waiting):
            if len(self.running) >= slots:
                break
            if time.monotonic() < self.not_before[number]:
                continue
            self.waiting.remove(number)
            if (metrics := finished(self.runs[number])) is not None:
                self._settle(
                    number, Outcome("done" if number in self.begun else "earlier", metrics=metrics)
                )
                continue
            self.begun.add(number)
            self.board.started(number)
            self.running[number] = future = self.pool.start(self.runs[number], self.time_limit)
            future.add_done_callback(lambda _, number=number: self.ended.put(number))

    def _take(self, patience: float) -> None:
        """The next run that ends, if one does within so many seconds."""
        if not self.running and not self.waiting:
            return
        try:
            number = self.ended.get(timeout=patience)
        except queue.Empty:
            return
        outcome = _result(self.running.pop(number))
        if outcome.state in (
            "busy",
            "waiting",
            "stopped",
        ):  # the last where its worker was told to end
            self.not_before[number] = time.monotonic() + PATIENCE
            if outcome.state == "busy":
                self.begun.discard(number)
            self._put_off(number, outcome if outcome.state == "busy" else Outcome("waiting"))
        elif outcome.state == "failed" and self.failures[number] < self.retries:
            self.failures[number] += 1
            self._put_off(number, replace(outcome, state="again"))
        elif (
            outcome.state == "earlier"
        ):  # since it was started: its worker was lost after the run and before it could say so
            self._settle(number, replace(outcome, state="done"))
        else:
            self._settle(number, outcome)

    def _settle(self, number: int, outcome: Outcome) -> None:
        self.outcomes[number] = outcome
        self.board.ended(number, outcome)

    def _put_off(self, number: int, outcome: Outcome) -> None:
        self.waiting.append(number)
        self.board.ended(number, outcome)

    def _stop(self) -> None:
        """Nothing of this sweep is left running on this machine afterwards, nor on others that could be reached."""
        deadline = time.monotonic() + runner.GRACE + 5
        try:
            self.pool.stop()
            while self.running and time.monotonic() < deadline:
                try:
                    number = self.ended.get(timeout=deadline - time.monotonic())
                except queue.Empty:
                    break
                outcome = _result(self.running.pop(number))
                self._settle(
                    number,
                    outcome
                    if outcome.state in ("done", "earlier", "failed")
                    else Outcome("stopped"),
                )
        except KeyboardInterrupt:  # a second one: at once
            pass
        finally:
            for number in self.running:
                stop_processes(self.runs[number].folder, at_once=True)
                self._settle(number, Outcome("stopped"))


def _result(future: Future) -> Outcome:
    try:
        return future.result()
    except Exception as error:
        return Outcome(
            "failed", error=f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
        )


@contextmanager
def _terminated_as_interrupted():
    """SIGTERM, with which schedulers and `kill` end a process, stops the sweep as Ctrl-C does."""

    def interrupt(signum, frame):
        raise KeyboardInterrupt

    if (
        threading.current_thread() is not threading.main_thread()
    ):  # only there can signals be handled
        yield
        return
    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
