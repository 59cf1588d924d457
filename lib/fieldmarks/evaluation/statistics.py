"""How sure a number is: bootstrap intervals over queries or classes, paired differences, intervals over seeds."""
import numpy as np
from scipy import stats

BLOCK = 2**22  # resampled values held at once


def bootstrap_interval(values, *, groups=None, level: float = 0.95, resamples: int = 2000, seed: int = 0) -> tuple[float, float, float]:
    """Mean of `values` and its percentile bootstrap interval (Efron & Tibshirani 1993, ch. 13).

    Args:
        values: (N,) one number a query: a hit (0 or 1), an average precision.
        groups: (N,) whole numbers; whole groups are resampled then. Queries of one class share their gallery, so that intervals
            over classes say how the mean would move with other classes, those over queries how with other photographs.
        level: of confidence, between 0 and 1.
    Returns:
        (mean, low, high).
    Raises:
        ValueError: no values, a NaN, a level outside (0, 1), or groups of another length.
    """
    values = _checked(values, level)
    means = _resampled_means(values, groups, resamples, np.random.default_rng(seed))
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(values.mean()), float(low), float(high)


def paired_bootstrap(a, b, *, groups=None, level: float = 0.95, resamples: int = 2000, seed: int = 0) -> tuple[float, float, float]:
    """Mean of a - b over the same queries, and its bootstrap interval. Arguments, results and errors as `bootstrap_interval`."""
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if a.shape != b.shape:
        raise ValueError(f"a pair needs the same queries twice: {a.shape} and {b.shape} values")
    return bootstrap_interval(a - b, groups=groups, level=level, resamples=resamples, seed=seed)


def seed_interval(values, level: float = 0.95) -> tuple[float, float, float]:
    """Mean over runs with different seeds and its Student t interval; a single run gives (value, -inf, inf).

    Raises:
        ValueError: no values, a NaN, or a level outside (0, 1).
    """
    values = _checked(values, level)
    mean = float(values.mean())
    if len(values) == 1:
        return mean, -np.inf, np.inf
    half = stats.t.ppf((1 + level) / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return mean, float(mean - half), float(mean + half)


def _resampled_means(values: np.ndarray, groups, resamples: int, generator: np.random.Generator) -> np.ndarray:
    if groups is None:
        sums, counts = values, np.ones(len(values))
    else:
        groups = np.asarray(groups)
        if groups.shape != values.shape:
            raise ValueError(f"there are {len(groups)} groups for {len(values)} values")
        _, group = np.unique(groups, return_inverse=True)
        sums, counts = np.bincount(group, weights=values), np.bincount(group).astype(np.float64)
    means = []
    for start in range(0, resamples, max(1, BLOCK // len(sums))):
        rows = min(resamples - start, max(1, BLOCK // len(sums)))
        drawn = generator.integers(len(sums), size=(rows, len(sums)))
        means.append(sums[drawn].sum(1) / counts[drawn].sum(1))
    return np.concatenate(means)


def _checked(values, level: float) -> np.ndarray:
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or len(values) == 0:
        raise ValueError(f"an interval needs one or more values in a row, got the shape {values.shape}")
    if missing := int(np.isnan(values).sum()):
        raise ValueError(f"{missing} of {len(values)} values are NaN: leave them out first")
    if not 0 < level < 1:
        raise ValueError(f"level is {level}: it must lie between 0 and 1, as 0.95")
    return values
