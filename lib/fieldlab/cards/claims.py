"""Claims of papers, tested on runs: supported, contradicted or undecided, with the interval.

Over seeds where both rows have several in common: Student's interval of the differences, seed by
seed. Otherwise over the queries that both runs share: paired bootstrap of what each run's saved
embeddings or codes give for each query. An interval decides when all of it lies on one side.
"""

from dataclasses import dataclass

import numpy as np

from fieldlab.cards.card import Claim
from fieldlab.cards.finished import FinishedRun
from fieldlab.report.saved import means_over, measure_again
from fieldlab.report.tables import Row, Table
from fieldmarks.evaluation.statistics import paired_bootstrap, seed_interval

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
    """

    claim: Claim
    word: str
    difference: float | None
    interval: tuple[float, float] | None
    basis: str
    published: dict[str, float]


def judge(table: Table, again=measure_again) -> list[Verdict]:
    """A verdict on each claim of the table's card that speaks of its data set; `again` scores what
    a run saved: (folder, result) -> Scores.

    A claim that names data sets is left out where the paper has this one and does not name it.
    """
    return [
        _judge(claim, table, again)
        for claim in (table.card.claims if table.card else [])
        if not claim.datasets or table.dataset in claim.datasets or not table.in_paper
    ]


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
    difference, interval, basis = _difference(*pair, claim.metric, again)
    word = UNDECIDED if interval is None else decide(*interval, claim.within)
    return Verdict(claim, word, difference, interval, basis, published)


def _published(claim: Claim, table: Table) -> dict[str, float]:
    first, second = (table.card.published.get(name, {}) for name in claim.rows)
    metric, both = claim.metric, {}
    for column in table.columns:
        if metric in first.get(column, {}) and metric in second.get(column, {}):
            both[column] = first[column][metric] - second[column][metric]
    return both


Difference = tuple[float | None, tuple[float, float] | None, str]  # with interval, over what


def _difference(first: Row, second: Row, metric: str, again) -> Difference:
    pairs = [
        (one, other)
        for one in first.runs
        for other in second.runs
        if one.seed == other.seed and all(metric in run.result["metrics"] for run in (one, other))
    ]
    if not pairs:
        return None, None, "the rows have no seed in common"
    values = [[run.result["metrics"][metric] for run in pair] for pair in pairs]
    differences = [one - other for one, other in values]
    if np.ptp(differences) > SAME:
        mean, *interval = seed_interval(differences)
        return mean, tuple(interval), "over seeds " + ", ".join(str(one.seed) for one, _ in pairs)
    try:
        return _over_queries(*pairs[0], metric, again)
    except ValueError as reason:
        return differences[0], None, f"no interval: {reason}"


def _over_queries(one: FinishedRun, other: FinishedRun, metric: str, again) -> Difference:
    sides = [again(run.folder, run.result) for run in (one, other)]
    if any(metric not in side.values for side in sides):
        raise ValueError(f"{metric} is no mean over queries")
    fingerprints = {run.result.get("data_fingerprint") for run in (one, other)}
    if len(fingerprints) > 1 or not np.array_equal(sides[0].asked, sides[1].asked):
        raise ValueError("the runs do not share their queries")
    values = np.array([np.asarray(side.values[metric], float) for side in sides])
    known, groups = ~np.isnan(values).any(0), sides[0].groups
    groups = None if groups is None else np.asarray(groups)[known]
    mean, *interval = paired_bootstrap(*values[:, known], groups=groups)
    over = f"paired over {known.sum():,} {means_over(one.result)}, seed {one.seed}"
    return mean, tuple(interval), over
