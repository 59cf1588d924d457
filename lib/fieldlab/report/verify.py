"""Whether the numbers that finished runs wrote are those that what they saved gives."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fieldlab.cards.finished import FinishedRun
from fieldlab.report.saved import NothingSaved, measure_again

TOLERANCE = (
    1e-4  # a hundredth of a point: no report shows less, and another processor's rounding does less
)


@dataclass
class Verification:
    """Outcome for many runs.

    Attributes:
        equal: runs whose numbers are as written.
        faults: a line for each number that differs and each file that is missing or damaged; faulty: runs with such lines.
        beyond: runs of kinds that save nothing to verify them by.
    """

    equal: int = 0
    faulty: int = 0
    faults: list[str] = field(default_factory=list)
    beyond: list[str] = field(default_factory=list)


def verify(runs: Sequence[FinishedRun], above: Path) -> Verification:
    """Measure again what each run saved, and compare metrics, intervals and counts with its result.json.

    Args:
        above: the folder that runs are named relative to.
    """
    found = Verification()
    for run in runs:
        name = run.folder.relative_to(above) if run.folder.is_relative_to(above) else run.folder
        try:
            lines = differences(run)
        except NothingSaved as reason:
            found.beyond.append(f"{name}: cannot be verified: {reason}")
            continue
        except ValueError as reason:
            lines = [f"cannot be verified: {reason}"]
        found.faults += [f"{name}: {line}" for line in lines]
        found.equal += not lines
        found.faulty += bool(lines)
    return found


def differences(run: FinishedRun) -> list[str]:
    """A line for each number of a run that is not what its embeddings or codes give. Raises as `measure_again`."""
    result, measured = run.result, measure_again(run.folder, run.result)
    lines = []
    if measured.queries != result["counts"]["query"]:
        lines.append(
            f"queries: {result['counts']['query']:,} are written, {measured.queries:,} are saved"
        )
    again = measured.metrics
    for name, written in result["metrics"].items():
        if name not in again:
            lines.append(f"{name}: {written:.4f} is written, and nothing saved gives it")
        elif abs(written - again[name]) > TOLERANCE:
            lines.append(f"{name}: {written:.4f} is written, {again[name]:.4f} is what was saved")
    for name, written in result["intervals"].items():
        if (ends := measured.interval(name)) is None:
            continue
        low, high = ends
        if max(abs(written[0] - low), abs(written[1] - high)) > TOLERANCE:
            lines.append(
                f"{name}: the interval [{written[0]:.4f}, {written[1]:.4f}] is written, "
                f"[{low:.4f}, {high:.4f}] is what was saved"
            )
    return lines
