"""Claims of papers, tested on runs: supported, contradicted or undecided, with the interval.

Over seeds where both rows have several in common: Student's t of the differences, seed by seed;
the interval over queries stands beside it. With one seed over the queries that both runs share:
paired bootstrap of what each run's saved embeddings or codes give for each query. A claim is
decided when all of the interval lies on one side, and its p-value is at most 5 % after Holm's
correction for all claims that are tested on the table.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from fieldlab.cards.card import Claim
from fieldlab.cards.finished import FinishedRun
from fieldlab.report.saved import means_over, measure_again
from fieldlab.report.tables import Row, Table
from fieldmarks.evaluation.statistics import (
    bootstrap_interval,
    bootstrap_p,
    holm,
    seed_interval,
    seed_p,
)

LEVEL = 0.05
SAME = 1e-9  # seeds whose differences are this close say nothing of chance: methods without any
SUPPORTED, CONTRADICTED = "supported", "contradicted"
UNDECIDED, NOT_TESTED = "undecided", "not tested"


@dataclass(frozen=True)
class Verdict:
    """How a claim stands on one table.

    Attributes:
        difference: first row - second row, a fraction; interval: 95 %, of it. None: there is none.
        basis: what the interval is over, or why there is none.
        published: the same difference in the paper, by data set.
        tuned: how the two rows were tuned, in words.
        over_queries: where the interval is over seeds, that over queries, if there is one.
        p, corrected: two-sided p-value of what the claim came to, and that after Holm's correction
            for `tested` claims.
    """

    claim: Claim
    word: str
    difference: float | None
    interval: tuple[float, float] | None
    basis: str
    published: dict[str, float]
    tuned: str = ""
    over_queries: tuple[float, float] | None = None
    p: float | None = None
    corrected: float | None = None
    tested: int = 0


def judge(table: Table, again=measure_again) -> list[Verdict]:
    """A verdict on each claim of the table's card that speaks of its data set; `again` scores what
    a run saved: (folder, result) -> Scores.

    A claim that names data sets is left out where the paper has this one and does not name it.
    """
    verdicts = [
        _judge(claim, table, again)
        for claim in (table.card.claims if table.card else [])
        if not claim.datasets or table.dataset in claim.datasets or not table.in_paper
    ]
    corrected = iter(holm(tested := [v.p for v in verdicts if v.p is not None]))
    return [v if v.p is None else _corrected(v, next(corrected), len(tested)) for v in verdicts]


def _corrected(verdict: Verdict, p: float, tested: int) -> Verdict:
    word = verdict.word if p <= LEVEL else UNDECIDED
    return replace(verdict, word=word, corrected=p, tested=tested)


def decide(low: float, high: float, within: float | None = None) -> str:
    """The verdict of a difference's interval: on "more than", or on "no further than `within`"."""
    if within is None:
        holds, fails = low > 0, high < 0
    else:
        holds, fails = -within <= low and high <= within, low > within or high < -within
    return SUPPORTED if holds else CONTRADICTED if fails else UNDECIDED


def _judge(claim: Claim, table: Table, again) -> Verdict:
    published, pair = _published(claim, table), []
    for name in claim.rows:
        rows = [row for row in table.rows_named(name) if row.measured(claim.metric)]
        if len(rows) != 1:
            reason = f"{name} was run in {len(rows)} ways" if rows else f"{name} was not run"
            return Verdict(claim, NOT_TESTED, None, None, reason, published)
        pair.append(rows[0])
    found, word = _difference(*pair, claim, again), UNDECIDED
    if found.interval:
        word = decide(*found.interval, claim.within)
    values = {"tuned": _tuned(*pair), "over_queries": found.over_queries, "p": found.p}
    return Verdict(claim, word, *found[:3], published, **values)


def _tuned(*rows: Row) -> str:
    ways = [row.runs[0].setting.get("tuned") or "not tuned" for row in rows]
    if ways[0] == ways[1]:
        return ways[0] if ways[0] == "not tuned" else f"both rows tuned: {ways[0]}"
    return "; ".join(f"{row.name}: {way}" for row, way in zip(rows, ways, strict=True))


def _published(claim: Claim, table: Table) -> dict[str, float]:
    first, second = (table.card.published.get(name, {}) for name in claim.rows)
    metric, both = claim.metric, {}
    for column in table.columns:
        if metric in first.get(column, {}) and metric in second.get(column, {}):
            both[column] = first[column][metric] - second[column][metric]
    return both


class Difference(NamedTuple):
    """Of two rows; see Verdict."""

    mean: float | None
    interval: tuple[float, float] | None
    basis: str
    p: float | None = None
    over_queries: tuple[float, float] | None = None


def _difference(first: Row, second: Row, claim: Claim, again) -> Difference:
    metric = claim.metric
    pairs = [
        (one, other)
        for one in first.runs
        for other in second.runs
        if one.seed == other.seed and all(metric in run.result["metrics"] for run in (one, other))
    ]
    if not pairs:
        return Difference(None, None, "the rows have no seed in common")
    values = [[run.result["metrics"][metric] for run in pair] for pair in pairs]
    differences = np.array([one - other for one, other in values])
    try:
        over_queries = _over_queries(pairs, claim, again)
    except ValueError as reason:
        over_queries = Difference(differences[0], None, f"no interval: {reason}")
    if np.ptp(differences) <= SAME:
        return over_queries
    mean, *interval = seed_interval(differences)
    seeds = ", ".join(str(one.seed) for one, _ in pairs)
    basis = f"paired over {len(pairs)} seeds ({seeds})"
    p = p_value(lambda border: seed_p(differences, border), claim.within)
    return Difference(mean, tuple(interval), basis, p, over_queries.interval)


def _over_queries(pairs: list[tuple[FinishedRun, FinishedRun]], claim: Claim, again) -> Difference:
    """Each query's difference is its mean over the seeds."""
    runs, metric = [run for pair in pairs for run in pair], claim.metric
    sides = [again(run.folder, run.result) for run in runs]
    if any(metric not in side.values for side in sides):
        raise ValueError(f"{metric} is no mean over queries")
    fingerprints = {run.result.get("data_fingerprint") for run in runs}
    same = (np.array_equal(sides[0].asked, side.asked) for side in sides)
    if len(fingerprints) > 1 or not all(same):
        raise ValueError("the runs do not share their queries")
    values = np.array([np.asarray(side.values[metric], float) for side in sides])
    gains = (values[::2] - values[1::2]).mean(0)
    known, groups = ~np.isnan(gains), sides[0].groups
    gains, groups = gains[known], None if groups is None else np.asarray(groups)[known]
    mean, *interval = bootstrap_interval(gains, groups=groups)
    p = p_value(lambda border: bootstrap_p(gains, border, groups=groups), claim.within)
    which, seed = f"{len(gains):,} {means_over(runs[0].result)}", pairs[0][0].seed
    basis = f"one seed ({seed}): the interval is over {which}, paired"
    if len(pairs) > 1:
        basis = f"all {len(pairs)} seeds differ alike: the interval is over {which}, paired"
    return Difference(mean, tuple(interval), basis, p)


def p_value(sides: Callable[[float], tuple[float, float]], within: float | None = None) -> float:
    """Two-sided p-value of what a difference says most clearly: with `within` that it lies inside
    or outside, else that it is above 0 or below.

    Args:
        sides: border -> one-sided p-values of a difference above that and of one below it.
    """
    if within is None:
        return min(1.0, 2 * min(sides(0.0)))
    (above_low, below_low), (above_high, below_high) = sides(-within), sides(within)
    return min(1.0, 2 * min(max(above_low, below_high), above_high, below_low))
