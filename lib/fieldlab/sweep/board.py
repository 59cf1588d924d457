"""How a sweep is shown: a live table in a terminal, one plain line a run elsewhere."""

import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.live import Live
from rich.table import Table

COLOURS = {  # of states; where not all runs have room, those of the first states are shown
    "running": "cyan",
    "failed": "red",
    "again": "yellow",
    "busy": "yellow",
    "stopped": "yellow",
    "done": "green",
    "waiting": "dim",
    "earlier": "green",
}
BESIDE_RUNS = 4  # lines: the header, two of the summary, the cursor's


class Silent:
    """Shows nothing."""

    def started(self, number: int) -> None:
        pass

    def ended(self, number: int, outcome) -> None:
        pass

    def note(self, words: str) -> None:
        """Something that concerns no single run; may be said again and again while it lasts."""


class Lines(Silent):
    """One line a run when it ends."""

    def __init__(self, runs):
        self.runs, self.said = runs, set()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass

    def ended(self, number: int, outcome) -> None:
        run = self.runs[number]
        taken = duration(outcome.seconds) if outcome.seconds else ""
        words = [f"{outcome.state:8}{run.name}", _metric(run, outcome), taken, outcome.error]
        line = "  ".join(filter(None, words))
        if outcome.state != "waiting" and (outcome.state != "busy" or line not in self.said):
            print(line, flush=True)
        self.said.add(line)

    def note(self, words: str) -> None:
        if words not in self.said:
            print(words, file=sys.stderr, flush=True)
        self.said.add(words)


class Board(Lines):
    """All runs as a table that is kept up to date; beneath it, at the end, the errors."""

    def __init__(self, runs, console: Console, expected: Sequence[float | None] = ()):
        """`expected`: seconds that each run may take, None where that is not known."""
        super().__init__(runs)
        self.expected = list(expected) or [None] * len(runs)
        self.outcomes, self.began, self.words, self.over = {}, {}, "", False
        self.console = console
        self.live = Live(console=console, get_renderable=self.table, refresh_per_second=2)

    def __enter__(self):
        self.live.start()
        return self

    def __exit__(self, *exception):
        self.over = True
        self.live.stop()
        for number, outcome in self.outcomes.items():
            if outcome.error:
                line = f"{self.runs[number].name}: {outcome.error}"
                self.console.print(line, style="red", markup=False, highlight=False)

    def started(self, number: int) -> None:
        self.outcomes.pop(number, None)
        self.began[number], self.words = time.monotonic(), ""

    def ended(self, number: int, outcome) -> None:
        self.outcomes[number] = outcome

    def note(self, words: str) -> None:
        self.words = words

    def table(self) -> Table:
        table = Table(
            box=None,
            pad_edge=False,
            header_style="bold",
            caption=self._summary(),
            caption_justify="left",
        )
        for title in ("state", "card", "row", "data set", "seed", "result"):
            table.add_column(title)
        table.add_column("time", justify="right")
        table.add_column("left", justify="right")
        for number in self._shown():
            run, state = self.runs[number], self._state(number)
            result, seconds, left = self._status(number, state)
            table.add_row(
                state,
                run.card,
                run.row,
                run.dataset,
                str(run.seed),
                result,
                duration(seconds) if seconds else "",
                "" if left is None else duration(left),
                style=COLOURS[state],
            )
        return table

    def _state(self, number: int) -> str:
        if outcome := self.outcomes.get(number):
            return outcome.state
        return "running" if number in self.began and not self.over else "waiting"

    def _shown(self) -> list[int]:
        """The runs that there is room for: those at work and what failed first; all of them when it is over."""
        order, states = list(range(len(self.runs))), list(COLOURS)
        if not self.over:
            order.sort(key=lambda number: states.index(self._state(number)))
        return sorted(order if self.over else order[: max(1, self.console.height - BESIDE_RUNS)])

    def _status(self, number: int, state: str) -> tuple[str, float, float | None]:
        """(result so far, seconds taken, seconds left)"""
        if state == "running":
            progress = read_progress(self.runs[number].folder / "papermill.log")
            return (
                progress.words,
                time.monotonic() - self.began[number],
                self._left(number, state, progress.left),
            )
        outcome = self.outcomes.get(number)
        return (
            (_metric(self.runs[number], outcome), outcome.seconds, None)
            if outcome
            else ("", 0.0, None)
        )

    def _left(self, number: int, state: str, told: float | None = None) -> float | None:
        """Seconds that a run still needs: by its own account, else by what such runs took."""
        if told is not None:
            return told
        if (whole := self.expected[number]) is None:
            card = self.runs[number].card
            taken = [
                outcome.seconds
                for other, outcome in list(self.outcomes.items())
                if outcome.state == "done" and self.runs[other].card == card
            ]
            if not taken:
                return None
            whole = sum(taken) / len(taken)
        return (
            max(0.0, whole - (time.monotonic() - self.began[number]))
            if state == "running"
            else whole
        )

    def _summary(self) -> str:
        states = [self._state(number) for number in range(len(self.runs))]
        parts = [f"{states.count(state)} {state}" for state in COLOURS if state in states]
        parts += [self.words] if self.words else []
        open_ones = [
            number
            for number, state in enumerate(states)
            if state in ("running", "waiting", "again", "busy")
        ]
        left = [self._left(number, states[number]) for number in open_ones]
        if open_ones and not self.over and None not in left:
            parts.append(
                f"about {duration(max(max(left), sum(left) / max(1, states.count('running'))))} left"
            )
        return ", ".join(parts)


def open_board(runs, expected: Sequence[float | None] = ()) -> Lines:
    """The one that suits where standard output goes."""
    console = Console()
    return Board(runs, console, expected) if console.is_terminal else Lines(runs)


class Progress(NamedTuple):
    """Where training is, as "epoch 3/10", and the seconds that it says it needs; "" and None where it does not say."""

    words: str
    left: float | None


EPOCH = re.compile(r"^epoch +(\d+/\d+)(?:.* (\d+) s left)?", re.MULTILINE)


def read_progress(log: Path) -> Progress:
    """From the lines that training prints into papermill's log."""
    try:
        with open(log, "rb") as lines:
            status = log.stat()
            lines.seek(max(0, status.st_size - 20_000))
            found = EPOCH.findall(lines.read().decode(errors="replace"))
    except OSError:
        return Progress("", None)
    if not found:
        return Progress("", None)
    epoch, left = found[-1]
    return Progress(
        f"epoch {epoch}", max(0.0, int(left) - (time.time() - status.st_mtime)) if left else None
    )


def duration(seconds: float) -> str:
    """As "45 s", "3 min 20 s", "2 h 5 min"."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    first, second = ("min", "s") if seconds < 3600 else ("h", "min")
    large, small = divmod(seconds if seconds < 3600 else round(seconds / 60), 60)
    return f"{large} {first}" + (f" {small} {second}" if small else "")


def _metric(run, outcome) -> str:
    name = run.metric if run.metric in outcome.metrics else next(iter(outcome.metrics), None)
    return f"{name} {outcome.metrics[name]:.4f}" if name else ""
