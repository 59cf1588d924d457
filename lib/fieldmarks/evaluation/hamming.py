"""Retrieval by Hamming distance between hash codes, scored exactly and fairly to ties.

Short codes put many items at the same distance, so a ranking is not one order but many. By default
scores are expected values over all of them: McSherry & Najork, "Computing Information Retrieval
Performance Measures Efficiently in the Presence of Tied Scores", ECIR 2008. NOTE public code takes
ties as they come; where the gallery is sorted by class, a code that says nothing then scores above
chance. `ties="stable"` gives that number.

Codes are (Q, k) and (G, k) of -1/+1 on any device, labels (Q,) and (G,) integers; a query with
nothing relevant in the gallery is left out. ValueError for what does not fit, or no query left."""

from collections.abc import Iterator
from typing import NamedTuple

import faiss
import numpy as np
import torch
from torch import Tensor

from fieldmarks.checks import at_least, one_of
from fieldmarks.codes import as_bits
from fieldmarks.evaluation.results import RetrievalResults, mean_of_known
from fieldmarks.labels import integer_labels
from fieldmarks.random import seeded

CHUNK = 2**18  # distances held at once: small enough to stay in cache
GALLERY_BLOCK = 2**15


def mean_average_precision(
    query_codes, query_labels, gallery_codes, gallery_labels, *, ties="expected", top=None
) -> float:
    """Mean over queries of `average_precision` (FCAENet eq. 18), a fraction."""
    sides = query_codes, query_labels, gallery_codes, gallery_labels
    return mean_of_known(average_precision(*sides, ties=ties, top=top))


def average_precision(
    query_codes, query_labels, gallery_codes, gallery_labels, *, ties="expected", top=None
) -> Tensor:
    """Average precision of each query's ranking of the gallery by Hamming distance:

        1/R  sum over places j = 1..top of  (relevant among first j) / j  x  (1 if j-th is relevant)

    where R is the number of gallery items with the query's label, or `top` if that is less:
    (Q,) float64 in [0, 1], NaN for a query with nothing relevant in the gallery.

    ties: "expected", over random orders inside equal distances, exact also where `top` cuts through
    such a group; "stable" keeps the gallery's order there.  top: how many places count."""
    one_of("ties", ties, _RULES)
    sides = _prepare(query_codes, query_labels, gallery_codes, gallery_labels)
    if top is not None and (top < 1 or top != int(top)):
        raise ValueError(f"top is {top}: it must be a whole number of at least 1, or None for all")
    top = len(sides.gallery) if top is None else min(int(top), len(sides.gallery))
    precision = np.empty(len(sides.query))
    for rows, sums, relevant in _RULES[ties](sides, top):
        with np.errstate(invalid="ignore"):  # 0 / 0 = NaN where nothing is relevant
            precision[rows] = sums / np.minimum(relevant, top)
    return torch.from_numpy(precision)


def retrieve(
    query_codes, query_labels, gallery_codes, gallery_labels, *, k=10, seed=0, top=None
) -> RetrievalResults:
    """The k nearest of each query, or all there are, and its `average_precision` up to `top`. Equal
    distances stand in random order drawn by the seed, for galleries are often sorted by class."""
    at_least(1, k=k)
    given = query_codes, query_labels, gallery_codes, gallery_labels
    precision, sides = average_precision(*given, top=top), _prepare(*given)
    size = len(sides.gallery)
    order = torch.randperm(size, generator=seeded(seed, 9))
    gallery = sides.gallery[order.numpy()]
    kept, kind = min(k, size), np.int32 if (sides.bits + 1) * size < 2**31 else np.int64
    keys = np.empty((len(sides.query), kept), kind)  # distance and place in one number
    for rows in _blocks(len(keys), CHUNK // size):
        each: np.ndarray = _distances(sides.query[rows], gallery).astype(kind) * size
        each += np.arange(size, dtype=kind)
        keys[rows] = np.sort(np.partition(each, kept - 1, axis=1)[:, :kept], axis=1)
    keys = torch.from_numpy(keys.astype(np.int64))
    labels = (torch.from_numpy(part) for part in (sides.query_labels, sides.gallery_labels))
    score = "Hamming distance to the query; equal ones in random order"
    parts = keys // size, order[keys % size], *labels, precision, False, k >= size, score
    return RetrievalResults(*parts)


def precision_recall_by_radius(
    query_codes, query_labels, gallery_codes, gallery_labels
) -> tuple[Tensor, Tensor]:
    """Precision and recall within radius 0, 1, .. k of a query, means over queries: (k + 1,) twice,
    float64. Where nothing lies within a radius precision is 0, as is usual."""
    items, relevant = _within_radius(query_codes, query_labels, gallery_codes, gallery_labels)
    precision, recall = relevant / np.maximum(items, 1), relevant / relevant[:, -1:]
    return torch.from_numpy(precision.mean(axis=0)), torch.from_numpy(recall.mean(axis=0))


class Lookup(NamedTuple):
    precision: float  # within the radius, mean over queries
    recall: float
    empty: float  # share of queries that find nothing


def lookup(query_codes, query_labels, gallery_codes, gallery_labels, *, radius: int = 2) -> Lookup:
    """Hash lookup: what the Hamming ball of a radius 0 .. k around each query holds."""
    items, relevant = _within_radius(query_codes, query_labels, gallery_codes, gallery_labels)
    if radius not in range(distances := items.shape[1]):
        raise ValueError(f"radius is {radius}: it must be 0 to the code length {distances - 1}")
    items, right = items[:, radius], relevant[:, radius]
    parts = right / np.maximum(items, 1), right / relevant[:, -1], items == 0
    return Lookup(*(float(part.mean()) for part in parts))


def _expected(sides, top: int) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """Yield (rows, expected sums of precision at relevant places (q,), relevant items (q,)).

    In a group of t equal distances, r of them relevant, behind n items with m relevant, the i-th
    place holds a relevant item with probability r / t; then the m before, itself, and of the i - 1
    between a share a = (r - 1) / (t - 1) are relevant:

        r/t  sum over i = 1..s of  (m + 1 + a (i - 1)) / (n + i)
            =  r/t  (a s  +  (m + 1 - a (n + 1)) (H[n + s] - H[n]))

    with the harmonic numbers H, and s = t unless `top` cuts the group."""
    harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, len(sides.gallery) + 1))])
    for rows, items, relevant in _counts(sides):
        row, distance = relevant.nonzero()
        t, r = items[row, distance], relevant[row, distance]
        n, m = items.cumsum(axis=1)[row, distance] - t, relevant.cumsum(axis=1)[row, distance] - r
        s = np.clip(top - n, 0, t)
        # where t = 1 any share will do; 1 scores perfection exactly 1
        a = np.divide(r - 1, t - 1, out=np.ones(len(t)), where=t > 1)
        sums = r / t * (a * s + (m + 1 - a * (n + 1)) * (harmonic[n + s] - harmonic[n]))
        yield rows, np.bincount(row, sums, minlength=len(items)), relevant.sum(axis=1)


def _stable(sides, top: int) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """Yield as `_expected`, for one order: by distance, then by place in the gallery."""
    small = np.min_scalar_type(sides.bits)  # numpy sorts uint8 and uint16 by radix
    for rows in _blocks(len(sides.query), CHUNK // len(sides.gallery)):
        distances = _distances(sides.query[rows], sides.gallery).astype(small)
        order = distances.argsort(axis=1, kind="stable")  # (q, G)
        relevant = sides.gallery_labels[order] == sides.query_labels[rows, None]
        row, place = relevant[:, :top].nonzero()
        hits = np.arange(1, len(row) + 1) - np.searchsorted(row, row)  # 1, 2, .. in each row
        sums = np.bincount(row, hits / (place + 1), minlength=len(relevant))
        yield rows, sums, relevant.sum(axis=1)


_RULES = {"expected": _expected, "stable": _stable}


def _within_radius(*sides) -> tuple[np.ndarray, np.ndarray]:
    """Gallery items and relevant ones within each radius, (Q', k + 1) twice."""
    _, *counts = zip(*_counts(_prepare(*sides)), strict=True)
    items, relevant = (np.concatenate(part).cumsum(axis=1) for part in counts)
    known = relevant[:, -1] > 0
    if not known.any():
        raise ValueError("no query has an item of its own label in the gallery")
    return items[known], relevant[known]


def _counts(sides) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """Yield (rows, gallery items by distance (q, k + 1), relevant ones (q, k + 1)). All are counted
    once for each distinct query code, relevant ones among those of the query's class."""
    _, first, same = np.unique(sides.query, axis=0, return_index=True, return_inverse=True)
    items = _distance_counts(sides.query[first], sides.gallery, sides.bits)
    relevant = np.zeros((len(sides.query), sides.bits + 1), np.int64)
    members = _rows_by_label(sides.gallery_labels)
    for label, places in _rows_by_label(sides.query_labels).items():
        if label in members:
            own = sides.gallery[members[label]]
            relevant[places] = _distance_counts(sides.query[places], own, sides.bits)
    for rows in _blocks(len(sides.query), CHUNK // sides.bits):
        yield rows, items[same[rows]], relevant[rows]


def _distance_counts(query: np.ndarray, gallery: np.ndarray, bits: int) -> np.ndarray:
    """How many gallery items lie at each distance of each query: (Q, b), (G, b) -> (Q, bits + 1).
    To count costs more than distances. Where there are enough items, two queries share it: their
    distances d and e count as one number (bits + 1) d + e, and sums of that table as both."""
    distances = bits + 1
    together = 2 if distances**2 <= len(gallery) else 1
    bins = distances**together
    counts = np.zeros((len(query) + len(query) % together, distances), np.int64)
    padded = np.resize(query, (len(counts), query.shape[1]))  # an odd one is paired with the first
    for block in _blocks(len(gallery), GALLERY_BLOCK):
        items = gallery[block]
        step = CHUNK // max(len(items), distances) // together * together
        for rows in _blocks(len(counts), max(step, together)):
            numbers = _distances(padded[rows], items)  # (q, g)
            if together == 2:
                numbers = numbers[::2] * np.int32(distances) + numbers[1::2]
            size = bins * len(numbers)  # each row has bins of its own
            numbers += np.arange(0, size, bins, dtype=np.int32)[:, None]
            table = np.bincount(numbers.ravel(), minlength=size)
            table = table.reshape(len(numbers), -1, distances)
            counts[rows][together - 1 :: together] += table.sum(axis=1)
            if together == 2:
                counts[rows][::2] += table.sum(axis=2)
    return counts[: len(query)]


def _distances(query: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    """Hamming distances of packed codes: (q, b), (g, b) uint8 -> (q, g) int32."""
    distances = np.empty((len(query), len(gallery)), np.int32)
    query, gallery = (np.ascontiguousarray(side) for side in (query, gallery))  # faiss needs that
    *sides, out = (faiss.swig_ptr(array) for array in (query, gallery, distances))
    faiss.hammings(*sides, *distances.shape, query.shape[1], out)  # type: ignore[attr-defined]
    return distances


def _rows_by_label(labels: np.ndarray) -> dict[int, np.ndarray]:
    order = labels.argsort(kind="stable")
    known, starts = np.unique(labels[order], return_index=True)
    return dict(zip(known.tolist(), np.split(order, starts[1:]), strict=True))


def _blocks(size: int, step: int) -> Iterator[slice]:
    step = max(step, 1)
    return (slice(start, min(start + step, size)) for start in range(0, size, step))


class _Sides(NamedTuple):
    query: np.ndarray  # (Q, b) uint8, packed
    query_labels: np.ndarray
    gallery: np.ndarray
    gallery_labels: np.ndarray
    bits: int


def _prepare(query_codes, query_labels, gallery_codes, gallery_labels) -> _Sides:
    codes = as_bits(query_codes, "query_codes"), as_bits(gallery_codes, "gallery_codes")
    bits, others = (each.shape[1] for each in codes)
    if bits != others:
        raise ValueError(f"query codes have {bits} bits, gallery codes {others}: they must agree")
    query, gallery = (np.packbits(each, axis=1) for each in codes)
    fill = (0, 0), (0, -query.shape[1] % 8)  # to 8 bytes, for which faiss has fast machine code
    query_labels = integer_labels(query_labels, "query_labels", len(query)).cpu().numpy()
    gallery_labels = integer_labels(gallery_labels, "gallery_labels", len(gallery)).cpu().numpy()
    return _Sides(np.pad(query, fill), query_labels, np.pad(gallery, fill), gallery_labels, bits)
