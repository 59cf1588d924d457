"""Exact nearest neighbours by cosine, and the scores of open-set retrieval built on them: Recall@K and mAP@R.

Recall@K follows Jegou et al. 2011 as metric learning uses it (Song et al. 2016): a query scores one when any of its K
nearest neighbours shares its label. MAP@R is Musgrave et al., "A Metric Learning Reality Check", ECCV 2020, eq. 9-10.

The search keeps three promises:

* **Exact.** Every pair is scored in float32, with TF32 and autocast off, whatever precision the embeddings come in.
* **Ordered.** Equal scores come lower gallery index first. Matrix products round differently at the ragged edges of a
  matrix, so two copies of one vector could score differently by where they lie; here all products are made of
  zero-padded tiles of one size, which gives copies the same bits (the tests check every position).
* **Small.** Scores live in one buffer of `chunk_bytes`, not in a matrix of queries x gallery.
"""

import contextlib
import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

TILE = 768  # one tile of scores is 2.25 MiB: large enough for a fast product, small enough to stay in cache
CHUNK_BYTES = 128 * 2**20
MIRRORED_K = 32  # up to here, keeping the best so far of later queries costs less than computing scores twice


def nearest(
    query, gallery=None, k: int = 10, *, chunk_bytes: int = CHUNK_BYTES
) -> tuple[Tensor, Tensor]:
    """The k nearest gallery items of every query by cosine, best first; equal scores: lower gallery index first.

    Args:
        query: (Q, D) embeddings of any length, any float type, on any device.
        gallery: (G, D), or None to search among the queries themselves, each excluded from its own results by index.
        k: neighbours per query, at most G (Q - 1 without a gallery).
        chunk_bytes: size of the score buffer; at least one tile of 2.25 MiB is used.

    Returns:
        scores (Q, k) float32 cosines and index (Q, k) int64 into the gallery, on the device of `query`.

    Raises:
        ValueError: shapes do not fit, a row holds NaN or infinity or is all zero, or k is out of range.
    """
    units, others = _prepare(query, gallery)
    available = _gallery_size(units, others)
    if not 1 <= k <= available:
        raise ValueError(
            f"k must lie between 1 and the {available} items that a query can find, got {k}"
        )
    scores = units[0].new_empty(units[1], k)
    index = torch.empty(units[1], k, dtype=torch.int64, device=scores.device)
    for rows, block_scores, block_index in _search(units, others, k, chunk_bytes):
        scores[rows], index[rows] = block_scores, block_index
    return scores, index


def recall_at_k(
    query, query_labels, gallery=None, gallery_labels=None, ks: Sequence[int] = (1, 2, 4, 8)
) -> dict[int, float]:
    """Recall@K: the fraction of queries with an item of their own label among their K nearest neighbours.

    A query whose label does not occur in the gallery is a miss. A K beyond the gallery sees the whole gallery.

    Args:
        query: (Q, D) embeddings, compared by cosine.
        query_labels: (Q,) integers.
        gallery, gallery_labels: (G, D) and (G,), or both None: leave one out among the queries, self excluded by index.
        ks: the Ks wanted, each at least 1.

    Returns:
        {K: fraction in [0, 1]} in the order of `ks`.

    Raises:
        ValueError: see `nearest`; also if labels do not fit, or only one of gallery and its labels is given.
    """
    hits = hits_at_k(query, query_labels, gallery, gallery_labels, ks)
    return {int(k): column.double().mean().item() for k, column in zip(ks, hits.T)}


def hits_at_k(
    query, query_labels, gallery=None, gallery_labels=None, ks: Sequence[int] = (1, 2, 4, 8)
) -> Tensor:
    """Recall@K query by query, for bootstrap intervals: (Q, len(ks)) bool. Arguments as in `recall_at_k`."""
    if len(ks) == 0 or min(ks) < 1:
        raise ValueError(f"ks must name at least one K, each at least 1, got {tuple(ks)}")
    rank = first_relevant_rank(query, query_labels, gallery, gallery_labels, limit=max(ks))
    return (rank[:, None] > 0) & (rank[:, None] <= torch.tensor(list(ks), device=rank.device))


def first_relevant_rank(
    query, query_labels, gallery=None, gallery_labels=None, *, limit: int
) -> Tensor:
    """Rank (1 = nearest) of the first neighbour that shares the query's label: (Q,) int64, 0 if none is in the first
    `limit`. Arguments as in `recall_at_k`."""
    units, others = _prepare(query, gallery)
    labels, other_labels = _prepare_labels(query_labels, gallery_labels, units, others)
    depth = min(limit, _gallery_size(units, others))
    rank = torch.zeros_like(labels)
    for rows, _, index in _search(units, others, depth, CHUNK_BYTES):
        relevant = other_labels[index] == labels[rows, None]  # (q, depth)
        first = relevant.int().argmax(dim=1) + 1  # argmax gives the first of equal values
        rank[rows] = torch.where(relevant.any(dim=1), first, 0)
    return rank


def map_at_r(query, query_labels, gallery=None, gallery_labels=None) -> float:
    """MAP@R (Musgrave et al. 2020, eq. 9-10): the mean over queries of `average_precision_at_r`.

    A query with nothing relevant in the gallery (R = 0) is left out of the mean. Arguments as in `recall_at_k`.

    Raises:
        ValueError: as `recall_at_k`; also if no query has anything relevant.
    """
    precision = average_precision_at_r(query, query_labels, gallery, gallery_labels)
    precision = precision[~precision.isnan()]
    if len(precision) == 0:
        raise ValueError("mAP@R is undefined: no query has an item of its own label in the gallery")
    return precision.mean().item()


def average_precision_at_r(query, query_labels, gallery=None, gallery_labels=None) -> Tensor:
    """Average precision over the first R neighbours of each query, R being its relevant items in the gallery:

        1/R  sum over i = 1..R of  (precision at i) x (1 if the i-th neighbour is relevant, else 0)

    Returns:
        (Q,) float64, NaN where R = 0. Arguments as in `recall_at_k`.
    """
    units, others = _prepare(query, gallery)
    labels, other_labels = _prepare_labels(query_labels, gallery_labels, units, others)
    relevant_items = _occurrences(labels, other_labels) - (1 if others is None else 0)  # (Q,), R
    precision = torch.full((len(labels),), math.nan, dtype=torch.float64, device=labels.device)
    depth = int(relevant_items.max())
    if depth == 0:
        return precision
    places = torch.arange(1, depth + 1, device=labels.device)
    for rows, _, index in _search(units, others, depth, CHUNK_BYTES):
        count = relevant_items[rows, None]  # (q, 1)
        relevant = (other_labels[index] == labels[rows, None]) & (places <= count)  # (q, depth)
        precision_at = relevant.cumsum(dim=1).double() / places
        precision[rows] = (precision_at * relevant).sum(dim=1) / count[
            :, 0
        ]  # 0 / 0 = NaN where R = 0
    return precision


# --- the search -------------------------------------------------------------------------------------------------------


def _search(units, others, k: int, chunk_bytes: int) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Yield (rows, scores (q, k), index (q, k)) for one tile of queries after another.

    A strip of scores is made tile by tile, gallery items down and one tile of queries across, and reduced to the best
    so far. Leaving one out, every score serves two queries: on the CPU only half of the square is computed, and what
    a tile says about later queries is kept as their best so far (an update becomes rare once k good ones are known).
    """
    (matrix, queries), (items, size) = units, others or units
    alone = others is None
    mirrored = alone and matrix.device.type == "cpu" and k <= MIRRORED_K
    strip = _buffer(items, chunk_bytes)  # (items of one strip, TILE)
    group = _group_size(len(strip), k)
    maxima = strip.new_empty(
        len(strip) // group, TILE
    )  # over groups of items, taken while a tile is in cache
    if mirrored:
        known = _nothing_yet(len(matrix), k, matrix.device)
    with torch.no_grad(), full_float32(matrix.device):
        for top in range(0, queries, TILE):
            mine = slice(top, min(top + TILE, queries))
            best = (
                tuple(part[mine] for part in known)
                if mirrored
                else _nothing_yet(mine.stop - top, k, matrix.device)
            )
            for left in range(top if mirrored else 0, len(items), len(strip)):
                right = min(left + len(strip), len(items))
                for row in range(left, right, TILE):
                    tile = strip[row - left : row - left + TILE]  # (TILE items, TILE queries)
                    torch.mm(items[row : row + TILE], matrix[top : top + TILE].T, out=tile)
                    if alone and row == top:
                        tile.fill_diagonal_(-math.inf)  # a query never finds itself
                    if row + TILE > size:
                        tile[size - row :] = -math.inf  # padding
                    if mirrored and row > top:
                        _tell_later_queries(known, row, tile, top, k)
                    first = (row - left) // group
                    torch.amax(
                        tile.unflatten(0, (-1, group)),
                        dim=1,
                        out=maxima[first : first + TILE // group],
                    )
                width = mine.stop - top
                scores, place = _best_of(
                    strip[: right - left, :width].T, maxima[: (right - left) // group, :width].T, k
                )
                best = merge_best(best, (scores, left + place), k)
            yield mine, *best


def _tell_later_queries(known, row: int, tile: Tensor, top: int, k: int) -> None:
    """Merge a tile, read the other way round, into the best so far of the queries that start at `row`."""
    scores, index = (part[row : row + TILE] for part in known)  # views
    changed = (tile.amax(dim=1) > scores[:, -1]).nonzero()[
        :, 0
    ]  # an equal score with a higher index changes nothing
    if len(changed):
        rows = tile[changed]
        maxima = rows.unflatten(1, (-1, _group_size(TILE, k))).amax(dim=2)
        found, place = _best_of(rows, maxima, k)
        scores[changed], index[changed] = merge_best(
            (scores[changed], index[changed]), (found, top + place), k
        )


def _best_of(scores: Tensor, maxima: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k best columns of each row and their scores, in order: (q, n) -> (q, k) twice, or (q, n) if n < k.

    `maxima` (q, n / group) are the best scores of groups of neighbouring columns. A column among the k best lies in
    one of the k best groups, both ordered by score and then by position: were its group not among them, each of the
    k better groups would hold a column that comes before it. So only k groups need a closer look.
    """
    group = scores.shape[1] // maxima.shape[1]
    _, groups = stable_topk(maxima, k)
    groups = groups.sort(dim=1).values[:, :, None]  # candidates stay in the order of their columns
    members = (
        scores.unflatten(1, (-1, group)).gather(1, groups.expand(-1, -1, group)).flatten(1)
    )  # (q, k * group)
    columns = (groups * group + torch.arange(group, device=scores.device)).flatten(1)
    best, place = stable_topk(members, k)
    return best, columns.gather(1, place)


def merge_best(first, second, k: int) -> tuple[Tensor, Tensor]:
    """The k best of two (scores, index) lists, where every index in the first is lower than any in the second."""
    best, place = stable_topk(torch.cat([first[0], second[0]], dim=1), k)
    return best, torch.cat([first[1], second[1]], dim=1).gather(1, place)


def stable_topk(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """torch.topk along rows, except that among equal scores the lower column comes first."""
    k = min(k, scores.shape[1])
    values, place = scores.topk(k, dim=1)
    tied = ((scores >= values[:, -1:]).sum(dim=1) > k).nonzero()[
        :, 0
    ]  # here topk has chosen among equals as it liked
    if len(tied):
        place[tied] = scores[tied].sort(dim=1, descending=True, stable=True).indices[:, :k]
    place = place.sort(dim=1).values
    values, order = scores.gather(1, place).sort(dim=1, descending=True, stable=True)
    return values, place.gather(1, order)


def _group_size(columns: int, k: int) -> int:
    """A power of two near sqrt(columns / k), where finding the groups and looking into them cost about the same."""
    return 2 ** min(max(round(math.log2(columns / k) / 2), 2), 6) if columns > k else 4


def _nothing_yet(queries: int, k: int, device: torch.device) -> tuple[Tensor, Tensor]:
    return torch.full((queries, k), -math.inf, device=device), torch.zeros(
        queries, k, dtype=torch.int64, device=device
    )


def _buffer(items: Tensor, chunk_bytes: int) -> Tensor:
    tiles = max(chunk_bytes // (4 * TILE * TILE), 1)
    return items.new_empty(min(tiles * TILE, len(items)), TILE)


@contextlib.contextmanager
def full_float32(device: torch.device):
    """Products in real float32: no TF32, no bf16 shortcut, no autocast, whatever the caller has set."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


# --- the input --------------------------------------------------------------------------------------------------------


def _prepare(query, gallery):
    """((padded unit vectors, Q), (padded unit vectors, G) or None)."""
    query = torch.as_tensor(query)
    units = _unit_rows(query, "query")
    if gallery is None:
        return units, None
    gallery = torch.as_tensor(gallery, device=query.device)
    others = _unit_rows(gallery, "gallery")
    if query.shape[1] != gallery.shape[1]:
        raise ValueError(
            f"query has {query.shape[1]} dimensions, gallery has {gallery.shape[1]}: they must be equal"
        )
    return units, others


def _unit_rows(embeddings: Tensor, name: str) -> tuple[Tensor, int]:
    """L2-normalised float32 copy, padded with rows of zeros to whole tiles: (N, D) -> ((N', D), N)."""
    if embeddings.ndim != 2 or 0 in embeddings.shape:
        raise ValueError(
            f"{name} must be a non-empty (N, D) matrix, got shape {tuple(embeddings.shape)}"
        )
    if not embeddings.is_floating_point():
        raise ValueError(f"{name} must be floating point, got {embeddings.dtype}")
    size = len(embeddings)
    units = torch.zeros(-(-size // TILE) * TILE, embeddings.shape[1], device=embeddings.device)
    peak = torch.empty(
        size, device=embeddings.device, dtype=torch.promote_types(embeddings.dtype, torch.float32)
    )
    for rows in torch.arange(size).split(
        8 * TILE
    ):  # a few rows at a time: no second copy in memory
        rows = slice(int(rows[0]), int(rows[-1]) + 1)
        block = embeddings[rows].detach().to(peak.dtype)
        peak[rows] = torch.linalg.vector_norm(block, ord=math.inf, dim=1)  # NaN where there is any
        block = block / peak[rows, None]  # so that squares neither overflow nor vanish
        units[rows] = block / torch.linalg.vector_norm(block, dim=1, keepdim=True)
    _require(peak.isfinite(), name, "hold NaN or infinity")
    _require(peak > 0, name, "are all zero and have no direction")
    return units, size


def _require(good: Tensor, name: str, fault: str) -> None:
    bad = (~good).nonzero()
    if len(bad):
        raise ValueError(
            f"{name}: {len(bad)} of {len(good)} embeddings {fault}, first at row {int(bad[0])}"
        )


def _prepare_labels(query_labels, gallery_labels, units, others) -> tuple[Tensor, Tensor]:
    if (others is None) != (gallery_labels is None):
        missing = "gallery" if others is None else "gallery_labels"
        raise ValueError(
            f"{missing} is missing: give gallery and gallery_labels together, or neither"
        )
    _gallery_size(units, others)
    labels = _labels(query_labels, units, "query")
    return labels, labels if others is None else _labels(gallery_labels, others, "gallery")


def _labels(labels, units, name: str) -> Tensor:
    labels = torch.as_tensor(labels, device=units[0].device)
    if labels.shape != (units[1],):
        raise ValueError(
            f"{name}_labels must have shape ({units[1]},) to match {name}, got {tuple(labels.shape)}"
        )
    if labels.is_floating_point() or labels.is_complex():
        raise ValueError(f"{name}_labels must be integers, got {labels.dtype}")
    return labels.long()


def _gallery_size(units, others) -> int:
    size = units[1] - 1 if others is None else others[1]
    if size == 0:
        raise ValueError(
            "a single embedding has nothing to find: give a gallery or at least two embeddings"
        )
    return size


def _occurrences(labels: Tensor, other_labels: Tensor) -> Tensor:
    """How often each label occurs among the other labels: (Q,), (G,) -> (Q,) int64."""
    known, counts = other_labels.unique(return_counts=True)
    place = torch.searchsorted(known, labels).clamp(max=len(known) - 1)
    return torch.where(known[place] == labels, counts[place], 0)
