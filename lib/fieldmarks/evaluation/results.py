"""What a retrieval found: nearest neighbours, whether they are right, and the scores made of that.

Recall@K follows Jegou et al. 2011 as metric learning uses it (Song et al. 2016): a query scores one
when any of its K nearest neighbours shares its label. mAP@R is Musgrave et al., "A Metric Learning
Reality Check", ECCV 2020, eq. 9-10. A query that has nothing to find, as nothing in the gallery
shares its label, is left out of every score.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from fieldmarks.checks import at_least
from fieldmarks.evaluation.nearest import prepare, search
from fieldmarks.evaluation.statistics import bootstrap_interval


@dataclass(eq=False)
class RetrievalResults:
    """The best of the gallery for every query, as `retrieve` and `hamming.retrieve` find it.

    Attributes:
        scores, index: (Q, k) best first, and positions in the gallery.
        query_labels, gallery_labels: (Q,) and (G,), None for images without labels.
        average_precision: (Q,) float64, NaN for a query that has nothing to find; None if unknown.
        leave_one_out: the queries are the gallery, each left out of its own results.
        complete: the k are all that a query can find.
        score: what the scores are, for figures.
    """

    scores: Tensor
    index: Tensor
    query_labels: Tensor | None = None
    gallery_labels: Tensor | None = None
    average_precision: Tensor | None = None
    leave_one_out: bool = False
    complete: bool = False
    score: str = "cosine to the query"

    @classmethod
    def from_neighbours(
        cls, scores, index, query_labels=None, gallery_labels=None, average_precision=None, **named
    ) -> "RetrievalResults":
        """Results of a search made elsewhere, of the attributes' shapes. With `query_labels` alone
        the queries are the gallery. Raises ValueError where shapes or positions do not fit."""
        scores, index = torch.as_tensor(scores).cpu(), torch.as_tensor(index).cpu().long()
        if index.ndim != 2 or 0 in index.shape or scores.shape != index.shape:
            shapes = f"{tuple(scores.shape)} and {tuple(index.shape)}"
            raise ValueError(f"scores and index must both be (Q, k), not empty, got {shapes}")
        alone = gallery_labels is None
        items = int(index.max()) + 1
        if query_labels is not None or not alone:
            query_labels = integer_labels(query_labels, "query", len(index))
            items = len(query_labels if alone else gallery_labels)
            gallery_labels = query_labels if alone else integer_labels(gallery_labels, "gallery", items)
            named.setdefault("complete", index.shape[1] == items - alone)
        if index.min() < 0 or index.max() >= items:
            ends = f"{index.min()} to {index.max()}"
            raise ValueError(f"index must lie between 0 and {items - 1}, got {ends}")
        if average_precision is not None and average_precision.shape != index.shape[:1]:
            raise ValueError(f"average_precision must be ({len(index)},), got {tuple(average_precision.shape)}")
        labels = query_labels, gallery_labels
        named = {"score": "score", "leave_one_out": alone and query_labels is not None} | named
        return cls(scores, index, *labels, average_precision, **named)
