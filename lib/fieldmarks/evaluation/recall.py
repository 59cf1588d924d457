"""Recall@K by cosine; see `results`."""

from collections.abc import Sequence

from fieldmarks.evaluation.nearest import nearest
from fieldmarks.evaluation.results import retrieve

__all__ = ["nearest", "recall_at_k"]


def recall_at_k(
    query, query_labels, gallery=None, gallery_labels=None, ks: Sequence[int] = (1, 2, 4, 8)
) -> dict[int, float]:
    """{K: fraction of queries with an item of their label among their K nearest}, of the queries
    that have something to find. Arguments and errors as of `results.retrieve`; ValueError also for
    a K below 1, and where no query is left."""
    if len(ks) == 0 or min(ks) < 1:
        raise ValueError(f"ks must name at least one K, each at least 1, got {tuple(ks)}")
    ks, sides = [int(k) for k in ks], (query, query_labels, gallery, gallery_labels)
    return retrieve(*sides, k=max(ks), average_precision=False).recall(*ks)
