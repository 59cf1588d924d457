"""Exact nearest neighbours by cosine.

Every pair is scored in float32, with TF32 and autocast off. Matrix products round differently at
ragged edges; here all are made of zero-padded tiles of one size, which gives copies of a vector the
same bits wherever they lie. Memory grows with the neighbours found, never with Q x G."""

import contextlib
import math
from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

TILE = 768  # one tile of scores is 2.25 MiB: a fast product, small enough to stay in cache
CHUNK_BYTES = 2**28
SAMPLE = 32  # one of so many gallery items is in the sample
Found = Iterator[tuple[slice, Tensor, Tensor]]


class Units(NamedTuple):
    rows: Tensor  # (N', D) float32 of unit length, padded with zeros to full tiles
    size: int  # N

    def tiles(self) -> Iterator[slice]:
        return (slice(top, min(top + TILE, self.size)) for top in range(0, self.size, TILE))


def nearest(query, gallery=None, k=10, *, chunk_bytes=CHUNK_BYTES) -> tuple[Tensor, Tensor]:
    """Scores (Q, k) float32 and index (Q, k) int64 of the k nearest gallery items of every query by
    cosine, where `query` lies, best first; ties: lower index first.

    query: (Q, D) embeddings of any length and float type.  gallery: (G, D), or None to search among
    the queries, each excluded from its own results.  k: at most G, without a gallery Q - 1.
    chunk_bytes: for scores and candidates, besides a tile of 2.25 MiB.  ValueError: shapes do not
    fit, a row holds NaN or infinity or is all zero, k out of range."""
    units, others = prepare(query, gallery)
    items = others.size if others else units.size - 1
    if not 1 <= k <= items:
        raise ValueError(f"k must lie between 1 and the {items} items of a query, got {k}")
    _, scores, index = zip(*search(units, others, k, chunk_bytes), strict=True)
    return torch.cat(scores), torch.cat(index)


def search(queries: Units, others: Units | None, k: int, chunk_bytes: int = CHUNK_BYTES) -> Found:
    """Yield (rows, scores (q, k), index (q, k)) for one tile of queries after another."""
    device, items = queries.rows.device, others or queries
    likely = k / SAMPLE  # of the k best are in the sample, rarely 4 deviations more
    depth = min(math.ceil(likely + 4 * math.sqrt(likely) + 3), k + 2)
    with torch.no_grad(), full_float32(device):
        if device.type == "cpu" and depth <= items.size // SAMPLE:
            yield from _search_candidates(queries, others, k, depth, chunk_bytes)
        else:
            for rows in queries.tiles():
                which = torch.arange(rows.start, rows.stop, device=device)
                yield rows, *_search_all(queries, others, which, k, chunk_bytes)


def _search_candidates(queries: Units, others: Units | None, k, depth, chunk_bytes) -> Found:
    """As `search`. A query keeps of each tile the scores above the `depth`-th best of a sample; as
    that is random, nearly all queries keep more than k, whatever the data. The others search again.
    Leaving one out, every score serves two queries."""
    items, alone = others or queries, others is None
    order = torch.randperm(items.size, generator=torch.Generator().manual_seed(0))
    sample = items.rows[order[: items.size // SAMPLE]].T  # (D, S)
    limits = np.full(len(queries.rows), np.inf, np.float32)  # padding finds nothing
    for rows in queries.tiles():
        limits[rows] = (queries.rows[rows] @ sample).topk(depth).values[:, -1]
    mirrored = alone and len(limits) * depth * SAMPLE * 12 <= chunk_bytes  # 12 bytes a candidate
    kept = defaultdict(list)  # candidates of each tile of queries, in order of items
    tile = items.rows.new_empty(TILE, TILE)  # items down, queries across
    for rows in queries.tiles():
        top = rows.start
        for left in range(top if mirrored else 0, items.size, TILE):
            torch.mm(items.rows[left : left + TILE], queries.rows[top : top + TILE].T, out=tile)
            if alone and left == top:
                tile.fill_diagonal_(-math.inf)  # a query never finds itself
            tile[items.size - left :] = -math.inf
            item, query, score = _above(tile.numpy(), limits[top : top + TILE])
            kept[top].append((query, item + np.int32(left), score))
            if mirrored and left > top:
                query, item, score = _above(tile.numpy(), limits[left : left + TILE, None])
                kept[left].append((query, item + np.int32(top), score))
        scores, index, counts = _best_candidates(kept.pop(top), rows.stop - top, k)
        few = (counts < k).nonzero()[:, 0]
        if len(few):
            scores[few], index[few] = _search_all(queries, others, top + few, k, chunk_bytes)
        yield rows, scores, index


def _above(tile: np.ndarray, limits: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, columns and values of the scores above limits that broadcast with the tile."""
    place = np.greater(tile, limits).ravel().nonzero()[0].astype(np.int32)
    return *np.divmod(place, np.int32(TILE)), tile.take(place)


def _best_candidates(kept: list, queries: int, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """The k best of each query, and how many it kept: scores (q, k), index (q, k), counts (q,)."""
    query, item, score = (np.concatenate(part) for part in zip(*kept, strict=True))
    order = query.astype(np.uint16).argsort(kind="stable")  # numpy sorts 16 bits by radix
    counts = np.bincount(query, minlength=queries)
    query = query[order]
    place = np.arange(len(query)) - (counts.cumsum() - counts)[query]
    scores = np.full((queries, max(k, counts.max())), -np.inf, np.float32)
    index = np.zeros(scores.shape, np.int64)
    scores[query, place], index[query, place] = score[order], item[order]
    best, place = stable_topk(torch.from_numpy(scores), k)
    return best, torch.from_numpy(index).gather(1, place), torch.from_numpy(counts)


def _search_all(queries: Units, others: Units | None, which: Tensor, k: int, size: int) -> tuple:
    """Scores (q, k) and index (q, k) of at most a tile of queries (q,), through all scores."""
    items = others or queries
    tile = queries.rows.new_zeros(TILE, queries.rows.shape[1])
    tile[: len(which)] = queries.rows[which]
    height = max(size // (8 * TILE * TILE), 1) * TILE  # half of so many bytes
    strip, best = tile.new_empty(min(height, len(items.rows)), TILE), ()
    for left in range(0, items.size, len(strip)):
        part = items.rows[left : left + len(strip)]
        for row in range(0, len(part), TILE):
            torch.mm(part[row : row + TILE], tile.T, out=strip[row : row + TILE])
        scores = strip[: items.size - left, : len(which)]
        if others is None:
            own = (which >= left) & (which < left + len(scores))
            scores[which[own] - left, own.nonzero()[:, 0]] = -math.inf
        values, place = stable_topk(scores.T.contiguous(), k)
        best = merge_best(best, (values, left + place), k) if best else (values, place)
    return best


def merge_best(first, second, k: int) -> tuple[Tensor, Tensor]:
    """The k best of two (scores, index) lists, every index in the first below all in the second."""
    best, place = stable_topk(torch.cat([first[0], second[0]], dim=1), k)
    return best, torch.cat([first[1], second[1]], dim=1).gather(1, place)


def stable_topk(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """torch.topk along rows, except that among equal scores the lower column comes first."""
    k = min(k, scores.shape[1])
    values, place = scores.topk(k, dim=1)
    count = {"dim": 1, "dtype": torch.int32}  # int64 takes twice as long
    tied = ((scores >= values[:, -1:]).sum(**count) > k).nonzero()[:, 0]
    if len(tied):  # here topk has chosen among equals as it liked
        rows, least = scores[tied], values[tied, -1:]
        equal, room = rows == least, k - (values[tied] > least).sum(1, keepdim=True)
        chosen = (rows > least) | equal & (equal.cumsum(**count) <= room)
        place[tied] = chosen.nonzero()[:, 1].view(-1, k)
    place = place.sort(dim=1).values
    values, order = scores.gather(1, place).sort(dim=1, descending=True, stable=True)
    return values, place.gather(1, order)


@contextlib.contextmanager
def full_float32(device: torch.device):
    """Products in real float32: no TF32, no bf16, no autocast, whatever the caller has set."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


def prepare(query, gallery=None) -> tuple[Units, Units | None]:
    """Unit vectors of queries and gallery, where the queries are; raises as `nearest`."""
    query = torch.as_tensor(query)
    units, others = _unit_rows(query, "query"), None
    if gallery is not None:
        others = _unit_rows(torch.as_tensor(gallery, device=query.device), "gallery")
        if (own := units.rows.shape[1]) != (theirs := others.rows.shape[1]):
            raise ValueError(f"query has {own} dimensions, gallery has {theirs}: they must agree")
    elif units.size == 1:
        raise ValueError("a single embedding has nothing to find: give a gallery or two embeddings")
    return units, others


def _unit_rows(embeddings: Tensor, name: str) -> Units:
    shape = tuple(embeddings.shape)
    if len(shape) != 2 or 0 in shape:
        raise ValueError(f"{name} must be a non-empty (N, D) matrix, got shape {shape}")
    if not embeddings.is_floating_point():
        raise ValueError(f"{name} must be floating point, got {embeddings.dtype}")
    padded = -(-shape[0] // TILE) * TILE, shape[1]
    units = Units(embeddings.new_zeros(padded, dtype=torch.float32), shape[0])
    precise = torch.promote_types(embeddings.dtype, torch.float32)
    peak = embeddings.new_empty(shape[0], dtype=precise)
    for rows in units.tiles():  # a few at a time: no second copy in memory
        block = embeddings[rows].detach().to(precise)
        peak[rows] = torch.linalg.vector_norm(block, ord=math.inf, dim=1)  # NaN where there is any
        block = block / peak[rows, None]  # so that squares neither overflow nor vanish
        units.rows[rows] = block / torch.linalg.vector_norm(block, dim=1, keepdim=True)
    for fault, bad in {"hold NaN or infinity": ~peak.isfinite(), "are all zero": peak == 0}.items():
        if bad.any():
            some, first = f"{int(bad.sum())} of {shape[0]} embeddings", int(bad.nonzero()[0])
            raise ValueError(f"{name}: {some} {fault}, first at row {first}")
    return units
