"""How a sweep is shown: a live table in a terminal, one plain line a run elsewhere."""

import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

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
UNFINISHED = ("running", "waiting", "again", "busy")
COLUMNS = ("state", "card", "row", "data set", "seed", "result", "time", "left")
LOG = "papermill.log"  # in a run's folder
BESIDE_RUNS = 4  # lines: the header, two of the summary, the cursor's


class Lines:
    """One line a run when it ends."""

    def __init__(self, runs):
        self.runs, self.printed = runs, set()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass

    def started(self, number: int) -> None:
        pass

    def ended(self, number: int, outcome) -> None:
        time = duration(outcome.seconds) if outcome.seconds else ""
        name, metric = self.runs[number].name, _metric(self.runs[number], outcome)
        parts = filter(None, (f"{outcome.state:8}{name}", metric, time, outcome.error))
        if outcome.state != "waiting":
            self.note("  ".join(parts), once=outcome.state == "busy", file=sys.stdout)

    def note(self, text: str, once: bool = True, file=None) -> None:
        """A line on stderr, printed once while it is repeated."""
        if not once or text not in self.printed:
            print(text, file=file or sys.stderr, flush=True)
        self.printed.add(text)


class Board(Lines):
    """All runs as a table that is kept up to date; beneath it, at the end, the errors."""

    def __init__(self, runs, console: Console, expected: Sequence[float | None] = ()):
        """`expected`: seconds that each run may take, None where that is not known."""
        super().__init__(runs)
        self.console, self.text, self.over = console, "", False
        self.expected = list(expected) or [None] * len(runs)
        self.outcomes, self.began = {}, {}
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
        self.began[number], self.text = time.monotonic(), ""

    def ended(self, number: int, outcome) -> None:
        self.outcomes[number] = outcome

    def note(self, text: str, **_) -> None:
        self.text = text

    def table(self) -> Table:
        states = [self._state(number) for number in range(len(self.runs))]
        left = {number: self._left(number) for number, s in enumerate(states) if s in UNFINISHED}
        caption = self._summary(states, list(left.values()))
        table = Table(box=None, pad_edge=False, header_style="bold", caption=caption)
        table.caption_justify = "left"
        for title in COLUMNS:
            table.add_column(title, justify="right" if title in ("time", "left") else "left")
        for number in self._shown(states):
            run, state, outcome = self.runs[number], states[number], self.outcomes.get(number)
            result, seconds, remaining = "", 0, None
            if state == "running":
                result, remaining = read_progress(run.folder / LOG)[0], left[number]
                seconds = time.monotonic() - self.began[number]
            elif outcome:
                result, seconds = _metric(run, outcome), outcome.seconds
            cells = (state, run.card, run.row, run.dataset, str(run.seed), result)
            times = (seconds or None, remaining)
            shown = ["" if each is None else duration(each) for each in times]
            table.add_row(*cells, *shown, style=COLOURS[state])
        return table

    def _state(self, number: int) -> str:
        if outcome := self.outcomes.get(number):
            return outcome.state
        return "running" if number in self.began and not self.over else "waiting"

    def _shown(self, states: list[str]) -> list[int]:
        """The runs that there is room for: those at work and failed ones first; in the end all."""
        order = range(len(states))
        if self.over:
            return list(order)
        rank = list(COLOURS).index
        first = sorted(order, key=lambda number: rank(states[number]))
        return sorted(first[: max(1, self.console.height - BESIDE_RUNS)])

    def _left(self, number: int) -> float | None:
        """Seconds that a run still needs: by its own account, else by what such runs took."""
        run, running = self.runs[number], self._state(number) == "running"
        if running and (left := read_progress(run.folder / LOG)[1]) is not None:
            return left
        if (total := self.expected[number]) is None:
            ended = [(self.runs[other], outcome) for other, outcome in list(self.outcomes.items())]
            done = [o.seconds for r, o in ended if o.state == "done" and r.card == run.card]
            if not done:
                return None
            total = mean(done)
        return max(0.0, total - (time.monotonic() - self.began[number])) if running else total

    def _summary(self, states: list[str], left: list[float | None]) -> str:
        parts = [f"{states.count(state)} {state}" for state in COLOURS if state in states]
        parts += [self.text] if self.text else []
        if left and not self.over and None not in left:
            seconds = max(max(left), sum(left) / max(1, states.count("running")))
            parts.append(f"about {duration(seconds)} left")
        return ", ".join(parts)


def open_board(runs, expected: Sequence[float | None] = ()) -> Lines:
    """The one that suits where standard output goes."""
    console = Console()
    return Board(runs, console, expected) if console.is_terminal else Lines(runs)


EPOCH = re.compile(r"^epoch +(\d+/\d+)(?:.* (\d+) s left)?", re.MULTILINE)


def read_progress(log: Path) -> tuple[str, float | None]:
    """From the lines that training prints into papermill's log: ("epoch 3/10", seconds that it says
    it needs), or "" and None."""
    try:
        with open(log, "rb") as lines:
            status = log.stat()
            lines.seek(max(0, status.st_size - 20_000))
            epoch, left = EPOCH.findall(lines.read().decode(errors="replace"))[-1]
    except (OSError, IndexError):
        return "", None
    seconds = max(0.0, int(left) - (time.time() - status.st_mtime)) if left else None
    return f"epoch {epoch}", seconds


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
