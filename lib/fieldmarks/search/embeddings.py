"""Search among embeddings of unit length by cosine: exactly, or in inverted lists.

    index = EmbeddingIndex.build(vectors)                  # an array, or a file mapped into memory
    index.save(folder / "vectors.faiss")
    scores, positions = EmbeddingIndex.load(folder / "vectors.faiss", vectors).search(queries, 10)

Lists take a byte for each dimension: of ten million vectors of 512 dimensions 5 GB of disk, and a
search maps into memory those that it probes. What it finds is compared again with the vectors:
scores are exact, and what other lists hold is missed; `recall` says how much is found. ValueError
for shapes that do not fit, or k out of range."""

import json
from pathlib import Path

import faiss
import numpy as np

from fieldmarks.search.lists import Lists

CHUNK = 50_000  # vectors at a time
SAMPLE_PER_LIST = 64  # to place a centre by; more add next to nothing to it
DEPTH = 4  # candidates for each place, as bytes, that are compared again exactly
QUERIES = 200  # of its own vectors, to measure recall by
WANTED = 0.95  # recall that decides how many lists a query probes
SEED = 0
Found = tuple[np.ndarray, np.ndarray]  # scores and positions


def exact_nearest(queries: np.ndarray, vectors: np.ndarray, k: int) -> Found:
    """Scores (Q, k) float32 and positions (Q, k) int64 of the k vectors (N, D) of highest inner
    product with each query (Q, D), best first; ties: lower position first. Vectors may be mapped
    into memory, and are read once in order. NOTE faiss chooses among ties with the k-th."""
    _check(queries, vectors.shape, k)
    scores, positions = (np.empty((len(queries), 0), kind) for kind in (np.float32, np.int64))
    for start in range(0, len(vectors), CHUNK):
        part = np.ascontiguousarray(vectors[start : start + CHUNK])
        depth = min(k, len(part))
        values, places = faiss.knn(queries, part, depth, metric=faiss.METRIC_INNER_PRODUCT)
        both = np.hstack([scores, values]), np.hstack([positions, places + start])
        scores, positions = _best(*both, k)
    return scores, positions


class EmbeddingIndex(Lists):
    """Inverted lists over `vectors` (N, D); make one with `build` or `load`. `recall` is the share
    of a vector's ten nearest others that a search finds, measured when it was built."""

    def __init__(self, index: faiss.IndexIVF, vectors: np.ndarray, recall: float):
        super().__init__(index)
        self.vectors, self.recall = vectors, recall

    @classmethod
    def build(cls, vectors: np.ndarray, wanted: float = WANTED) -> "EmbeddingIndex":
        """About sqrt(N) lists over (N, D) float32 of unit length, which may be mapped into memory;
        a query probes as many as find a share `wanted` of the ten nearest."""
        if vectors.ndim != 2 or len(vectors) < 2:
            raise ValueError(f"an index needs a matrix of two or more, got shape {vectors.shape}")
        if not 0 < wanted <= 1:
            raise ValueError(f"wanted is {wanted}: it is a share, above 0 and at most 1")
        dim, lists = vectors.shape[1], round(len(vectors) ** 0.5)
        random, kind = np.random.default_rng(SEED), f"IVF{lists},SQ8"
        index: faiss.IndexIVF = faiss.index_factory(dim, kind, faiss.METRIC_INNER_PRODUCT)
        index.cp.min_points_per_centroid = 1
        index.train(_rows(vectors, random, SAMPLE_PER_LIST * lists)[1])
        for start in range(0, len(vectors), CHUNK):
            index.add(np.ascontiguousarray(vectors[start : start + CHUNK]))
        made = cls(index, vectors, 0.0)
        own, queries = _rows(vectors, random, QUERIES)
        k = min(10, len(vectors) - 1)
        exact = zip(own, *exact_nearest(queries, vectors, k + 1), strict=True)
        least = np.array([scores[place != row][k - 1] for row, scores, place in exact])
        made.probes = 1
        while True:
            made.recall = made._share_found(own, queries, least, k)
            if made.recall >= wanted or made.probes == lists:
                return made
            made.probes = min(2 * made.probes, lists)

    def search(self, queries: np.ndarray, k: int) -> Found:
        """As `exact_nearest`, in the lists that are probed; in all where they hold too few."""
        _check(queries, self.vectors.shape, k)
        depth = min(max(DEPTH * k, 32), len(self))
        _, places = self._find(queries, depth, k)
        scores = np.full(places.shape, -np.inf, np.float32)
        for row, place in enumerate(places):
            there = place >= 0
            scores[row, there] = self.vectors[place[there]] @ queries[row]
        return _best(scores, places, k)

    def save(self, path: Path) -> None:
        """The lists, and beside them `path`.json with what was measured; not the vectors."""
        measured = {"lists": self.lists, "probes": self.probes, "recall": self.recall}
        self._write(path, faiss.write_index, vectors=len(self), **measured)

    @classmethod
    def load(cls, path: Path, vectors: np.ndarray) -> "EmbeddingIndex":
        """What `save` wrote, mapped into memory: lists are read when a query probes them.
        ValueError where a file is missing or damaged, or belongs to other vectors."""
        file = Path(f"{path}.json")
        try:
            note = json.loads(file.read_text())
            if Path(path).stat().st_size != note["bytes"]:
                raise ValueError  # reading past the end of a mapped file would end the process
            index: faiss.IndexIVF = faiss.read_index(str(path), faiss.IO_FLAG_MMAP)
            index.nprobe = note["probes"]
            # starting 32 threads takes longer than most searches
            lists: faiss.OnDiskInvertedLists = faiss.downcast_InvertedLists(index.invlists)
            lists.prefetch_nthread = 0
            made = cls(index, vectors, float(note["recall"]))
        except (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError):
            files = f"'{path}' and '{file}'"
            raise ValueError(f"{files} are no index of embeddings: build it again") from None
        if (shape := (len(made), index.d)) != vectors.shape:
            raise ValueError(f"'{path}' is of {shape} embeddings, not {vectors.shape}: build again")
        return made

    def _share_found(self, own, queries: np.ndarray, least: np.ndarray, k: int) -> float:
        """What share of each vector's k results, without itself, is as near as its k-th nearest."""
        each = zip(own, least, *self.search(queries, k + 1), strict=True)
        near = [(scores[place != row][:k] >= end - 1e-6).sum() for row, end, scores, place in each]
        return float(np.mean(near) / k)


def _check(queries: np.ndarray, shape: tuple[int, ...], k: int) -> None:
    if queries.ndim != 2 or len(shape) != 2 or queries.shape[1] != shape[1]:
        given = f"queries of shape {queries.shape} do not fit vectors of shape {shape}"
        raise ValueError(f"{given}: they must be (Q, D) and (N, D)")
    if not 1 <= k <= shape[0]:
        raise ValueError(f"k must lie between 1 and the {shape[0]} vectors, got {k}")


def _best(scores: np.ndarray, places: np.ndarray, k: int) -> Found:
    order = np.lexsort((places, -scores), axis=1)[:, :k]
    return np.take_along_axis(scores, order, axis=1), np.take_along_axis(places, order, axis=1)


def _rows(vectors: np.ndarray, random: np.random.Generator, count: int) -> tuple:
    """Random positions in order, as many as there are at most, and the vectors there."""
    rows = np.sort(random.choice(len(vectors), min(count, len(vectors)), replace=False))
    return rows, np.ascontiguousarray(vectors[rows])
