"""Many runs on a Dask cluster: which is next, what becomes of a failed one, how all are stopped."""

import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from uuid import uuid4

from distributed import CancelledError, Client, Future, KilledWorker, as_completed

from fieldlab.sweep import cluster, runner
from fieldlab.sweep.board import Lines
from fieldlab.sweep.plan import Run
from fieldlab.sweep.runner import Outcome, finished, stop_processes
from fieldmarks.files import remove_leftovers

TICK = 1.0  # seconds between counts of the workers
LOST = "the connection to the Dask scheduler is lost: its workers may finish their runs, "
LOST += "and the same command resumes with what is left"


def run_all(
    client: Client,
    runs: Sequence[Run],
    time_limit: float,
    board=None,
    retries: int = 0,
    after: Callable[[], None] | None = None,
) -> list[Outcome]:
    """Execute runs in order; one that fails does not keep the others from running.

    A run that another runner is at is left to it: several runners on one folder share the work.

    Args:
        time_limit: seconds for each.
        board: told of starts and ends, also of a failed run that is tried again ("again"), one left
            to another runner ("busy") and one that its worker handed back ("waiting").
        retries: how often a failed run is tried again, after all others.
        after: called when a run has been done.

    Returns:
        one outcome a run; after Ctrl-C or SIGTERM those that have not ended are "stopped".

    Raises:
        RuntimeError: the connection to the scheduler is lost.
    """
    with _terminated_as_interrupted():
        return _Sweep(client, runs, time_limit, board or Lines(runs), retries, after).run()


class _Sweep:
    def __init__(self, client, runs, time_limit, board, retries, after):
        self.client, self.runs, self.time_limit, self.after = client, runs, time_limit, after
        self.board, self.retries, self.name = board, retries, uuid4().hex
        self.waiting, self.running = deque(range(len(runs))), {}  # numbers; future -> number
        self.completed = as_completed(loop=client.loop)
        self.outcomes, self.failures, self.begun = {}, Counter(), set()

    def run(self) -> list[Outcome]:
        try:
            while self.waiting or self.running:
                self._submit()
                done = False
                for future in self._ended(TICK if self.running or self.waiting else 0):
                    outcome = _outcome(future)
                    self._take(self.running.pop(future), outcome)
                    done |= outcome.state == "done"
                if done and self.after:
                    self._submit()  # meanwhile others run
                    self.after()
        except KeyboardInterrupt:
            self._stop()
        except BaseException:
            self._stop_workers()
            raise
        return [self.outcomes.get(number, Outcome("stopped")) for number in range(len(self.runs))]

    def _submit(self) -> None:
        """As many as there are workers: a task that waits at a worker is blamed for its loss."""
        try:
            workers = len(self.client.nthreads())
        except OSError:
            raise RuntimeError(LOST) from None
        if not workers:
            self.board.note("waiting for workers")
        while self.waiting and len(self.running) < workers:
            number = self.waiting.popleft()
            run = self.runs[number]
            if (metrics := finished(run)) is not None:
                state = "done" if number in self.begun else "earlier"
                remove_leftovers(run.folder)  # of a runner that was killed after it had ended
                self._settle(number, Outcome(state, metrics=metrics))
                continue
            self.begun.add(number)
            self.board.started(number)
            work = (cluster.work, run, self.time_limit, self.name)
            future = self.client.submit(*work, pure=False)
            self.running[future] = number
            self.completed.add(future)

    def _ended(self, patience: float) -> list[Future]:
        """The runs that have ended; waits for one."""
        deadline = time.monotonic() + patience
        while not self.completed.has_ready() and time.monotonic() < deadline:
            time.sleep(runner.POLL)
        return self.completed.next_batch(block=False)

    def _take(self, number: int, outcome: Outcome) -> None:
        if outcome.state == "failed" and self.failures[number] < self.retries:
            self.failures[number] += 1
            outcome = replace(outcome, state="again")
        elif outcome.state == "stopped":  # its worker was told to end
            outcome = Outcome("waiting")
        elif outcome.state == "earlier":  # since it was begun: by a worker that was lost then
            outcome = replace(outcome, state="done")
        elif outcome.state == "busy":
            self.begun.discard(number)
        if outcome.state in ("again", "busy", "waiting"):
            self.waiting.append(number)
            self.board.ended(number, outcome)
        else:
            self._settle(number, outcome)

    def _settle(self, number: int, outcome: Outcome) -> None:
        self.outcomes[number] = outcome
        self.board.ended(number, outcome)

    def _stop_workers(self) -> None:
        if self.client.status == "running":
            self.client.run(cluster.stop, self.name, on_error="ignore")

    def _stop(self) -> None:
        """Nothing is left running on this machine, nor on others that could be reached."""
        deadline = time.monotonic() + runner.GRACE + 5
        with suppress(KeyboardInterrupt):  # a second one: at once
            self._stop_workers()
            while self.running and (left := deadline - time.monotonic()) > 0:
                for future in self._ended(left):
                    number, outcome = self.running.pop(future), _outcome(future)
                    over = outcome.state in ("done", "earlier", "failed")
                    self._settle(number, outcome if over else Outcome("stopped"))
        for number in self.running.values():
            stop_processes(self.runs[number].folder, at_once=True)
            self._settle(number, Outcome("stopped"))


def _outcome(future: Future) -> Outcome:
    try:
        return future.result()
    except KilledWorker:
        return Outcome("failed", error="every worker that took it was lost")
    except CancelledError:  # somebody cleared the scheduler, or it is lost
        return Outcome("waiting")
    except Exception as error:
        return Outcome("failed", error=f"{type(error).__name__}: {cluster.first_line(error)}")


@contextmanager
def _terminated_as_interrupted():
    """SIGTERM, with which schedulers and `kill` end a process, stops the sweep as Ctrl-C does."""
    main = threading.current_thread() is threading.main_thread()  # only it can handle signals
    previous = main and signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        if main:
            signal.signal(signal.SIGTERM, previous)
