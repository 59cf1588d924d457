"""Whether the numbers that finished runs wrote are those that what they saved gives."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fieldlab.cards.finished import FinishedRun
from fieldlab.report.saved import NothingSaved, measure_again

TOLERANCE = 1e-4  # a hundredth of a point: no report shows less, another processor rounds by less


@dataclass
class Verification:
    """Outcome for many runs; a line for each fault and each run beyond verification."""

    equal: int = 0  # runs whose numbers are as written
    faulty: int = 0  # runs with numbers that differ, or a file that is missing or damaged
    faults: list[str] = field(default_factory=list)
    beyond: list[str] = field(default_factory=list)  # runs of kinds that save nothing


def verify(runs: Sequence[FinishedRun], above: Path) -> Verification:
    """Measure again what each run saved, and compare with its result.json.

    Args:
        above: the folder that runs are named relative to.
    """
    outcome = Verification()
    for run in runs:
        name = run.folder.relative_to(above) if run.folder.is_relative_to(above) else run.folder
        try:
            lines = differences(run)
        except NothingSaved as reason:
            outcome.beyond.append(f"{name}: cannot be verified: {reason}")
            continue
        except ValueError as reason:
            lines = [f"cannot be verified: {reason}"]
        outcome.faults += [f"{name}: {line}" for line in lines]
        outcome.equal += not lines
        outcome.faulty += bool(lines)
    return outcome


def differences(run: FinishedRun) -> list[str]:
    """A line for each written number that is not what was saved. Raises as `measure_again`."""
    result, scores = run.result, measure_again(run.folder, run.result)
    written, lines = result["counts"]["query"], []
    if scores.queries != written:
        lines.append(f"queries: {written:,} are written, {scores.queries:,} are saved")
    for name, value in result["metrics"].items():
        if name not in scores.metrics:
            lines.append(f"{name}: {value:.4f} is written, and nothing saved gives it")
        elif abs(value - scores.metrics[name]) > TOLERANCE:
            again = scores.metrics[name]
            lines.append(f"{name}: {value:.4f} is written, {again:.4f} is what was saved")
    for name, ends in result["intervals"].items():
        again = scores.interval(name)
        if again and max(abs(a - b) for a, b in zip(ends, again, strict=True)) > TOLERANCE:
            written, saved = (f"[{low:.4f}, {high:.4f}]" for low, high in (ends, again))
            lines.append(f"{name}: the interval {written} is written, {saved} is what was saved")
    return lines
