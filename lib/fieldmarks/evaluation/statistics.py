"""How far a figure can be trusted: bootstrap intervals over queries or classes, and Student intervals over seeds.

The percentile bootstrap is Efron & Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13. Queries of one
class share their neighbours, so where classes are few, resample whole classes (`groups`): Davison & Hinkley,
"Bootstrap Methods and their Application", 1997, section 3.8, the version that draws clusters and keeps them whole.
"""

from typing import NamedTuple

import numpy as np
from scipy import stats

BLOCK = 2**22  # draws held in memory at once


class Interval(NamedTuple):
    """An estimate with the ends of its interval."""

    mean: float
    low: float
    high: float


def bootstrap_interval(
    values, *, groups=None, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Interval:
    """Percentile bootstrap interval of a mean over queries.

    The order of the queries does not matter: the same values give the same interval.

    Args:
        values: (Q,) one number per query, such as a column of `recall.hits_at_k`.
        groups: (Q,) labels; if given, whole groups are drawn with replacement instead of single queries.
        level: coverage wanted, in (0, 1).
        resamples: bootstrap samples.
        seed: of the resampling.

    Returns:
        (mean, low, high). A single query, or a single group, cannot vary: the interval has no width.

    Raises:
        ValueError: no values, NaN or infinity among them, shapes that differ, or a level or count out of range.
    """
    values = _finite_vector(values, "values")
    _check_level(level)
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, got {resamples}")
    sums, counts = _units(values, groups)
    mean = sums.sum() / counts.sum()
    means = _resampled_means(sums, counts, resamples, np.random.default_rng(seed))
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(mean), float(low), float(high))


def paired_bootstrap(
    first, second, *, groups=None, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Interval:
    """Interval of the mean difference first - second of two methods on the same queries; arguments as above."""
    first, second = _finite_vector(first, "first"), _finite_vector(second, "second")
    if first.shape != second.shape:
        raise ValueError(
            f"a pair needs the same queries twice, got {len(first)} and {len(second)} values"
        )
    return bootstrap_interval(
        first - second, groups=groups, level=level, resamples=resamples, seed=seed
    )


def seed_interval(values, *, level: float = 0.95) -> Interval:
    """Student t interval of the mean over independent runs (seeds): (S,) -> (mean, low, high).

    A single run says nothing about the others: (value, -inf, inf). Raises ValueError as `bootstrap_interval`.
    """
    values = _finite_vector(values, "values")
    _check_level(level)
    mean = values.mean()
    if len(values) == 1:
        return Interval(float(mean), -np.inf, np.inf)
    standard_error = values.std(ddof=1) / np.sqrt(len(values))
    half = stats.t.ppf((1 + level) / 2, df=len(values) - 1) * standard_error
    return Interval(float(mean), float(mean - half), float(mean + half))


def _units(values: np.ndarray, groups) -> tuple[np.ndarray, np.ndarray]:
    """What is drawn: sums and counts, (U,) each, sorted so that they do not depend on the order of the queries."""
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


def _resampled_means(sums, counts, resamples: int, rng: np.random.Generator) -> np.ndarray:
    means = np.empty(resamples)
    block = max(BLOCK // len(sums), 1)
    for start in range(0, resamples, block):
        drawn = rng.integers(
            0, len(sums), size=(min(block, resamples - start), len(sums))
        )  # (b, U)
        means[start : start + block] = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    return means


def _finite_vector(values, name: str) -> np.ndarray:
    values = _array(values).astype(float)
    if values.ndim != 1 or len(values) == 0:
        raise ValueError(
            f"{name}: an interval needs one or more values in a row, got the shape {values.shape}"
        )
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        raise ValueError(
            f"{name}: {len(bad)} of {len(values)} values are NaN or infinite, first at {bad[0]}"
        )
    return values


def _array(values) -> np.ndarray:
    return values.detach().cpu().numpy() if hasattr(values, "detach") else np.asarray(values)


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level is {level}: it must lie between 0 and 1, as 0.95")
