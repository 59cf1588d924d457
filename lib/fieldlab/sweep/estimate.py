"""How long runs will take, as far as earlier ones of the same card and profile tell."""

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

from fieldlab.sweep.board import duration
from fieldlab.sweep.plan import Run
from fieldlab.sweep.runner import OUTCOME


def expected_seconds(runs: Sequence[Run]) -> list[float | None]:
    """For each run the mean over earlier ones of its row and data set, else of its profile."""
    taken = defaultdict(list)
    for folder in {run.folder.parent for run in runs}:
        for record in filter(None, map(_read, sorted(folder.glob(f"*/{OUTCOME}")))):
            profile = record["card"], record["profile"]
            for key in (profile, (*profile, record["row"], record["dataset"])):
                taken[key].append(record["seconds"])
    keys = [((r.card, r.profile, r.row, r.dataset), (r.card, r.profile)) for r in runs]
    return [next((mean(taken[key]) for key in both if key in taken), None) for both in keys]


def _read(file: Path) -> dict | None:
    """The record of a run that was done without interruption; None otherwise."""
    try:
        record = json.loads(file.read_text())
        return record if record["state"] == "done" and record["seconds"] > 0 else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def estimate(expected: Sequence[float | None], workers: int | None) -> str:
    """A sentence on runs that are still to be done, at so many at a time; None: not known."""
    known = [seconds for seconds in expected if seconds is not None]
    if not expected:
        return "estimate: nothing is left to run"
    if not known:
        return "estimate: none, as no run of this card and profile has been done here before"
    total, missing = sum(known), len(expected) - len(known)
    if workers is None:
        text = f"{duration(total)} of work, shared by the scheduler's workers"
    else:
        several = f" with {workers} workers" * (workers > 1)
        text = f"about {duration(max(total / workers, max(known)))}{several}"
    if missing:
        text += f", and {missing} run{'s' * (missing > 1)} of which none has been done here before"
    return f"estimate: {text}"
