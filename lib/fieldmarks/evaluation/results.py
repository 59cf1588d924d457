"""Results of a retrieval: nearest neighbours, whether they are right, and scores made of that.

Recall@K follows Jegou et al. 2011 as metric learning uses it (Song et al. 2016): a query scores one
when any of its K nearest neighbours shares its label. mAP@R is Musgrave et al., "A Metric Learning
Reality Check", ECCV 2020, eq. 9-10. A query that has nothing to find, as nothing in the gallery
shares its label, is left out of every score; ValueError where no query is left."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fieldmarks.checks import at_least
from fieldmarks.evaluation.nearest import prepare, search
from fieldmarks.evaluation.statistics import bootstrap_interval
from fieldmarks.labels import integer_labels


@dataclass(eq=False)
class RetrievalResults:
    """The best of the gallery for every query; see `retrieve` and `hamming.retrieve`.

    Attributes:
        scores, index: (Q, k) best first, and positions in the gallery.
        query_labels, gallery_labels: (Q,) and (G,); None makes `correct` and `relevant` None.
        average_precision: (Q,) float64, NaN for a query with nothing to find; None if unknown.
        leave_one_out: the queries are the gallery, each left out of its own results.
        complete: the k are all that a query can find.  score: what scores are, for figures.
        correct: (Q, k) bool, whether a neighbour has the query's label.  relevant: (Q,) int64, how
            many of the gallery have."""

    scores: Tensor
    index: Tensor
    query_labels: Tensor | None = None
    gallery_labels: Tensor | None = None
    average_precision: Tensor | None = None
    leave_one_out: bool = False
    complete: bool = False
    score: str = "cosine to the query"

    def __post_init__(self):
        self.correct = self.relevant = None
        if self.query_labels is not None:
            self.correct = self.gallery_labels[self.index] == self.query_labels[:, None]
            self.relevant = _relevant(self.query_labels, self.gallery_labels, self.leave_one_out)

    @classmethod
    def from_neighbours(
        cls, scores, index, query_labels=None, gallery_labels=None, average_precision=None, score=""
    ) -> "RetrievalResults":
        """Results of a search made elsewhere; `query_labels` alone: the queries are the gallery.
        ValueError where shapes do not fit, or positions lie outside the gallery."""
        scores, index = torch.as_tensor(scores).cpu(), torch.as_tensor(index).cpu().long()
        if scores.ndim != 2 or 0 in scores.shape or scores.shape != index.shape:
            shapes = f"{tuple(scores.shape)} and {tuple(index.shape)}"
            raise ValueError(f"scores and index must both be (Q, k), not empty, got {shapes}")
        alone = query_labels is not None and gallery_labels is None
        labels, items = (query_labels, gallery_labels), int(index.max()) + 1
        if query_labels is not None or gallery_labels is not None:
            items = len(index if alone else gallery_labels)
            labels = _labels(*labels, len(index), None if alone else items)
        if index.min() < 0 or index.max() >= items:
            ends = f"{index.min()} to {index.max()}"
            raise ValueError(f"index must lie between 0 and {items - 1}, got {ends}")
        complete = labels[0] is not None and index.shape[1] == items - alone
        return cls(scores, index, *labels, average_precision, alone, complete, score)

    @property
    def unanswerable(self) -> int:
        """How many queries have nothing to find."""
        return int((_known(self.relevant) == 0).sum())

    def hits(self, k: int) -> Tensor:
        """Recall@K by query: (Q,) float64 of 1 and 0, NaN for a query with nothing to find.
        ValueError without labels, or where fewer neighbours were kept."""
        hits = _known(self.correct)[:, : self._depth(k)].any(1).double()
        return hits.masked_fill(self.relevant == 0, torch.nan)

    def recall(self, *ks: int) -> dict[int, float]:
        """{K: fraction of the queries that have something to find}; raises as `hits`."""
        return {k: mean_of_known(self.hits(k)) for k in ks}

    def map_at_r(self) -> float:
        """The mean of `average_precision`: mAP@R by cosine, mAP by Hamming distance."""
        return mean_of_known(_known(self.average_precision))

    def interval(
        self, name: str, resamples: int = 2000, groups: Sequence | Tensor | None = None
    ) -> tuple[float, float]:
        """Both ends of the 95 % bootstrap interval of "map@r", "recall@1", ..; by `groups` (Q,)."""
        metric, _, k = name.partition("@")
        if name != "map@r" and not (metric == "recall" and k.isdigit()):
            raise ValueError(f"there is no interval of '{name}': give 'map@r', 'recall@1', ..")
        values = _known(self.average_precision) if metric == "map" else self.hits(int(k))
        known = ~values.isnan()
        groups = None if groups is None else np.asarray(groups)[known.numpy()]
        return bootstrap_interval(values[known], groups=groups, resamples=resamples)[1:]

    def neighbours(self, rows, k: int = 10) -> tuple[Tensor, Tensor, Tensor | None]:
        """Index, scores and correct of query rows (n,): (n, k) each; ValueError as `hits`."""
        rows, kept = torch.as_tensor(rows).cpu(), self._depth(k)
        correct = None if self.correct is None else self.correct[rows, :kept]
        return self.index[rows, :kept], self.scores[rows, :kept], correct

    def show(self, images, rows, k: int = 10, titles: Sequence[str] | None = None):
        """A matplotlib figure: query rows (n,) with their k nearest neighbours beside them, and n
        titles under the queries. Images by position, as `show.galleries` takes them; where queries
        have a gallery of their own, the pair (query images, gallery images)."""
        from fieldmarks.show.galleries import before_after

        if not isinstance(images, tuple) and not self.leave_one_out:
            raise ValueError("images must be the pair (query images, gallery images)")
        queries, gallery = images if isinstance(images, tuple) else (images, images)
        index, scores, correct = self.neighbours(rows, k)
        neighbours = [[gallery[i] for i in row] for row in index.tolist()]
        chosen = [queries[i] for i in torch.as_tensor(rows).tolist()]
        return before_after(chosen, {"": (neighbours, correct, scores)}, titles, score=self.score)

    def _depth(self, k: int) -> int:
        at_least(1, k=k)
        kept = self.index.shape[1]
        if k > kept and not self.complete:
            raise ValueError(f"{kept} neighbours of each query were kept: search again with k={k}")
        return min(k, kept)


def retrieve(
    query, query_labels=None, gallery=None, gallery_labels=None, *, k=10, average_precision=True
) -> RetrievalResults:
    """One exact search by cosine, of which all scores follow. Results lie on the CPU.

    Args:
        query, gallery: as of `nearest.nearest`, which also names the order and the errors.
        query_labels, gallery_labels: (Q,) and (G,) integers; without labels there are neighbours
            and no scores. ValueError where they do not fit, or are missing for one side.
        k: neighbours kept of each query; a k beyond the gallery keeps all of it.
        average_precision: search as deep as mAP@R needs; False is faster."""
    at_least(1, k=k)
    units, others = prepare(query, gallery)
    alone, labels = others is None, (query_labels, gallery_labels)
    items = units.size - 1 if alone else others.size
    kept = depth = min(k, items)
    scores, index = torch.empty(units.size, kept), torch.empty(units.size, kept, dtype=torch.int64)
    precision = None
    if query_labels is not None or gallery_labels is not None:
        labels = _labels(*labels, units.size, None if alone else items)
        if average_precision:
            relevant = _relevant(*labels, alone)
            depth = max(kept, int(relevant.max()))
            precision = torch.empty(units.size, dtype=torch.float64)
    for rows, best, places in search(units, others, depth):
        scores[rows], index[rows] = best[:, :kept], places[:, :kept]
        if precision is not None:
            correct = labels[1][places.cpu()] == labels[0][rows, None]  # (q, depth)
            precision[rows] = average_precision_at_r(correct, relevant[rows])
    return RetrievalResults(scores, index, *labels, precision, alone, kept == items)


def average_precision_at_r(correct: Tensor, relevant: Tensor) -> Tensor:
    """Average precision over the first R neighbours of a query, which has R items to find:

        1/R  sum over i = 1..R of  (precision at i) x (1 if the i-th neighbour is relevant, else 0)

    of `correct` (Q, k) bool, k at least the largest R, and `relevant` (Q,) R: (Q,) float64, NaN
    where R = 0."""
    places = torch.arange(1, int(relevant.max()) + 1)
    correct = correct[:, : len(places)] & (places <= relevant[:, None])  # (Q, R)
    return (correct.cumsum(1).double() / places * correct).sum(1) / relevant


def mean_of_known(values: Tensor) -> float:
    """The mean of what is not NaN."""
    known = values[~values.isnan()]
    if len(known) == 0:
        raise ValueError("no query has an item of its own label in the gallery")
    return known.mean().item()


def _labels(query, gallery, queries: int, items: int | None) -> tuple[Tensor, Tensor]:
    if (gallery is None) != (items is None):
        missing = "gallery" if items is None else "gallery_labels"
        raise ValueError(f"{missing} is missing: give gallery and gallery_labels, or neither")
    labels = integer_labels(query, "query_labels", queries).cpu()
    if items is None:
        return labels, labels
    return labels, integer_labels(gallery, "gallery_labels", items).cpu()


def _relevant(labels: Tensor, other_labels: Tensor, leave_one_out: bool) -> Tensor:
    """How often each label occurs among the other labels, less itself: (Q,), (G,) -> (Q,) int64."""
    known, counts = other_labels.unique(return_counts=True)
    place = torch.searchsorted(known, labels).clamp(max=len(known) - 1)
    return torch.where(known[place] == labels, counts[place], 0) - int(leave_one_out)


def _known(value: Tensor | None) -> Tensor:
    if value is None:
        raise ValueError("there are no scores: give labels to the search")
    return value
