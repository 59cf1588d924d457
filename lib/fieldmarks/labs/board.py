"""How a sweep is shown: a live table in a terminal, one plain line a run elsewhere."""
import time
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table

COLOURS = {
    "waiting": "dim", "running": "cyan", "done": "green", "earlier": "green", "failed": "red", "stopped": "yellow",
}


class Lines:
    """One line a run when it ends."""

    def __init__(self, runs):
        self.runs = runs

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass

    def started(self, number: int) -> None:
        pass

    def ended(self, number: int, outcome) -> None:
        run = self.runs[number]
        taken = duration(outcome.seconds) if outcome.seconds else ""
        words = [f"{outcome.state:8}{run.name}", _metric(run, outcome), taken, outcome.error]
        print("  ".join(filter(None, words)), flush=True)


class Board(Lines):
    """All runs as a table that is kept up to date; beneath it, at the end, the errors."""

    def __init__(self, runs, console: Console):
        super().__init__(runs)
        self.outcomes, self.began, self.current = {}, 0.0, None
        self.console = console
        self.live = Live(console=console, get_renderable=self.table, refresh_per_second=2)

    def __enter__(self):
        self.live.start()
        return self

    def __exit__(self, *exception):
        self.current = None
        self.live.stop()
        for number, outcome in self.outcomes.items():
            if outcome.error:
                line = f"{self.runs[number].name}: {outcome.error}"
                self.console.print(line, style="red", markup=False, highlight=False)

    def started(self, number: int) -> None:
        self.current, self.began = number, time.monotonic()

    def ended(self, number: int, outcome) -> None:
        self.outcomes[number] = outcome

    def table(self) -> Table:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for title in ("state", "card", "row", "data set", "seed", "result"):
            table.add_column(title)
        table.add_column("time", justify="right")
        for number, run in enumerate(self.runs):
            state, result, seconds = self._status(number)
            table.add_row(state, run.card, run.row, run.dataset, str(run.seed), result,
                          duration(seconds) if seconds else "", style=COLOURS[state])
        return table

    def _status(self, number: int) -> tuple[str, str, float]:
        if outcome := self.outcomes.get(number):
            return outcome.state, _metric(self.runs[number], outcome), outcome.seconds
        if number == self.current:
            return "running", last_epoch(self.runs[number].folder / "papermill.log"), time.monotonic() - self.began
        return "waiting", "", 0.0


def open_board(runs) -> Lines:
    """The one that suits where standard output goes."""
    console = Console()
    return Board(runs, console) if console.is_terminal else Lines(runs)


def last_epoch(log: Path) -> str:
    """Where training is, from the lines it prints: as "epoch 3/10"."""
    try:
        with open(log, "rb") as lines:
            lines.seek(max(0, log.stat().st_size - 20_000))
            found = [line for line in lines.read().decode(errors="replace").splitlines() if line.startswith("epoch ")]
    except OSError:
        return ""
    return " ".join(found[-1].split()[:2]) if found else ""


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
