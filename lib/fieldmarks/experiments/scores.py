"""What an evaluation measured, by query, so that intervals and paired comparisons follow."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from torch import Tensor

from fieldmarks.evaluation.results import RetrievalResults
from fieldmarks.evaluation.statistics import bootstrap_interval

NEIGHBOURS = 10  # kept of each query, for galleries


@dataclass
class Scores:
    """Metrics, from what a run saves: the same when they are computed anew from its files."""

    values: dict[str, Tensor]  # of means over queries: (Q,) float64, NaN: does not count
    others: dict[str, float]  # other metrics, fractions
    asked: Tensor  # tells the queries from those of other runs
    queries: int
    groups: Tensor | None = None  # (Q,), queries that a bootstrap draws together
    # Of metrics whose interval is no bootstrap over queries, computed when asked for.
    own_intervals: dict[str, Callable[[], Sequence[float]]] = field(default_factory=dict)
    reported: Sequence[str] | None = None  # with intervals in result.json; None: all of `values`
    results: RetrievalResults | None = None  # the retrieval, where there is one
    saved: dict[str, Tensor] = field(default_factory=dict)  # what a run saves
    details: dict[str, Any] = field(default_factory=dict)  # for an experiment's figures

    @cached_property
    def metrics(self) -> dict[str, float]:
        """{name: fraction}."""
        means = {name: value[~value.isnan()].mean().item() for name, value in self.values.items()}
        first, found = self.reported or (), means | self.others
        return {name: found[name] for name in [*first, *(n for n in found if n not in first)]}

    @cached_property
    def intervals(self) -> dict[str, list[float]]:
        """The 95 % intervals that result.json holds."""
        names = self.values if self.reported is None else self.reported
        return {name: list(self.interval(name) or ()) for name in names}

    def interval(self, metric: str) -> Sequence[float] | None:
        """The two ends of a metric's 95 % interval; None for one that has none."""
        if metric in self.own_intervals:
            return self.own_intervals[metric]()
        if metric not in self.values:
            return None
        known = ~self.values[metric].isnan()
        groups = None if self.groups is None else self.groups[known]
        return bootstrap_interval(self.values[metric][known], groups=groups)[1:]
