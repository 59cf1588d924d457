"""How far a figure can be trusted: bootstrap over queries or classes, Student's t over seeds, and
Holm's correction where several claims are tested.

The percentile bootstrap is Efron & Tibshirani, "An Introduction to the Bootstrap", 1993, chapter
13. Queries of one class share their neighbours, so where classes are few, resample classes
(`groups`): Davison & Hinkley, "Bootstrap Methods and their Application", 1997, section 3.8, where
clusters are kept together. ValueError for NaN, infinity, no values, or a level out of range."""

from typing import NamedTuple

import numpy as np

from fieldmarks.checks import at_least, positive, share

BLOCK = 2**22  # draws held in memory at once


class Interval(NamedTuple):
    mean: float
    low: float
    high: float


def bootstrap_interval(
    values, *, groups=None, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Interval:
    """Percentile bootstrap interval of the mean of values (Q,), one for each query in any order.

    groups: (Q,) labels; if given, groups are drawn with replacement instead of single queries.
    level: coverage wanted, in (0, 1).  NOTE scipy.stats.bootstrap draws the same samples, but takes
    1.6 times as long with groups, rounds the ends differently, and refuses a single query, which
    here gives equal ends."""
    mean, means = _resampled(_finite_vector(values, level=level), groups, resamples, seed)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(mean, float(low), float(high))


def bootstrap_p(
    values, border: float = 0.0, *, groups=None, resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """One-sided p-values of a mean above the border, and of one below it: of the samples that
    `bootstrap_interval` draws, the share whose mean is not there. One is added to both counts
    (Davison & Hinkley, section 4.2), so neither is ever 0."""
    _, means = _resampled(_finite_vector(values), groups, resamples, seed)
    counts = (means <= border).sum(), (means >= border).sum()
    above, below = ((1 + count) / (1 + resamples) for count in counts)
    return float(above), float(below)


def _resampled(values: np.ndarray, groups, resamples: int, seed: int) -> tuple[float, np.ndarray]:
    """The mean of values (Q,), and those of samples drawn from them, (resamples,)."""
    at_least(1, resamples=resamples)
    sums, counts = _units(values, groups)
    random, means = np.random.default_rng(seed), np.empty(resamples)
    step = max(BLOCK // len(sums), 1)
    for block in (means[start : start + step] for start in range(0, resamples, step)):
        drawn = random.integers(0, len(sums), size=(len(block), len(sums)))  # (b, U)
        block[:] = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    return float(sums.sum() / counts.sum()), means


def paired_bootstrap(first, second, **options) -> Interval:
    """`bootstrap_interval` of the difference first - second of two methods on the same queries."""
    first, second = _finite_vector(first), _finite_vector(second)
    if first.shape != second.shape:
        counts = f"{len(first)} and {len(second)} values"
        raise ValueError(f"a pair needs the same queries twice, got {counts}")
    return bootstrap_interval(first - second, **options)


def seed_interval(values, *, level: float = 0.95) -> Interval:
    """Student t interval of the mean over independent runs (seeds), (S,); infinite for one run."""
    values = _finite_vector(values, level=level)
    mean, half = values.mean(), np.inf
    if len(values) > 1:
        from scipy import stats  # takes half a second, which few need

        standard_error = values.std(ddof=1) / np.sqrt(len(values))
        half = stats.t.ppf((1 + level) / 2, df=len(values) - 1) * standard_error
    return Interval(float(mean), float(mean - half), float(mean + half))


def seed_p(values, border: float = 0.0) -> tuple[float, float]:
    """One-sided p-values of Student's t that the mean over independent runs (seeds), (S,), is above
    the border, and that it is below. Of differences, seed by seed, this is the paired test. Raises
    ValueError for one run, or where all are equal: they say nothing of chance."""
    values = _finite_vector(values)
    if len(values) < 2 or np.ptp(values) == 0:
        raise ValueError("Student's t needs two or more seeds with different values")
    from scipy import stats

    above = stats.ttest_1samp(values, border, alternative="greater").pvalue
    return float(above), float(1 - above)


def holm(p_values) -> list[float]:
    """P-values corrected for their number by Holm's step-down (Scandinavian Journal of Statistics
    6, 1979), in their order: those of at most 0.05 hold together, wrongly in 5 % of cases."""
    p = np.atleast_1d(_array(p_values)).astype(float)
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"p-values lie between 0 and 1, got {p.tolist()}")
    order, corrected = np.argsort(p, kind="stable"), np.empty_like(p)
    steps = p[order] * np.arange(len(p), 0, -1)  # the smallest times their number, and so on
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return corrected.tolist()


def _units(values: np.ndarray, groups) -> tuple[np.ndarray, np.ndarray]:
    """What is drawn: sums and counts, (U,) each, sorted so that the queries' order is no matter."""
    if groups is None:
        return np.sort(values), np.ones_like(values)
    groups = np.atleast_1d(_array(groups))
    if groups.shape != values.shape:
        raise ValueError(f"there are {len(groups)} groups for {len(values)} values")
    order = np.lexsort((values, groups))
    _, starts, counts = np.unique(groups[order], return_index=True, return_counts=True)
    sums = np.add.reduceat(values[order], starts)
    order = np.lexsort((sums, counts))  # renaming the groups changes nothing either
    return sums[order], counts[order].astype(float)


def _finite_vector(values, level: float = 0.95) -> np.ndarray:
    positive(level=level)
    share(level=level)
    values = _array(values).astype(float)
    if values.ndim != 1 or len(values) == 0:
        raise ValueError(f"an interval needs one or more values, got {values.shape}")
    if len(bad := np.flatnonzero(~np.isfinite(values))):
        count = f"{len(bad)} of {len(values)}"
        raise ValueError(f"{count} values are NaN or infinite, first at {bad[0]}")
    return values


def _array(values) -> np.ndarray:
    return values.detach().cpu().numpy() if hasattr(values, "detach") else np.asarray(values)
