"""What an evaluation measured, by query, so that intervals and paired comparisons follow."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from torch import Tensor

from fieldmarks.evaluation.results import RetrievalResults
from fieldmarks.evaluation.statistics import bootstrap_interval


@dataclass
class Scores:
    """Metrics, from what a run saves: the same when they are computed anew from its files.

    Attributes:
        values: of metrics that are means over queries (or episodes), (Q,) float64, NaN for a query
            that does not count.
        others: the other metrics, fractions.
        asked: tells the queries from those of other runs: labels, or which images an episode has.
        queries: how many there are.
        groups: (Q,), queries that a bootstrap draws together; None: each by itself.
        own_intervals: of metrics whose interval is no bootstrap over queries, computed when asked.
        reported: metrics whose intervals go into result.json; None: all of `values`.
        results: the retrieval, where there is one.  saved: tensors that a run saves.
        details: what an experiment's figures need besides."""

    values: dict[str, Tensor]
    others: dict[str, float]
    asked: Tensor
    queries: int
    groups: Tensor | None = None
    own_intervals: dict[str, Callable[[], Sequence[float]]] = field(default_factory=dict)
    reported: Sequence[str] | None = None
    results: RetrievalResults | None = None
    saved: dict[str, Tensor] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)

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
