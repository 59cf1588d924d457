"""Search among embeddings of unit length by cosine: exactly, or in inverted lists where comparing with
all of them takes too long.

    index = EmbeddingIndex.build(vectors)                  # an array, or a file mapped into memory
    index.save(folder / "vectors.faiss")
    index = EmbeddingIndex.load(folder / "vectors.faiss", vectors)
    scores, positions = index.search(queries, k=10)

The lists hold each vector in one byte a dimension, so that ten million of 512 dimensions take 5 GB of
disk, and a search maps into memory only the lists that it looks into. What it finds there is compared
again with the vectors themselves: scores are exact, and all that can be missed lies in lists that were
not looked into. `recall` says how much that is.
"""

import json
from pathlib import Path

import faiss
import numpy as np

from fieldmarks.search.lists import Lists, note_of

CHUNK = 50_000  # vectors at a time
SAMPLE_PER_LIST = 64  # to place a centre by; more add next to nothing to it
DEPTH = 4  # candidates for each place, as bytes, that are compared again exactly
QUERIES = 200  # of its own vectors, to measure recall by
WANTED = 0.95  # recall that decides how many lists a query looks into
SEED = 0


def exact_nearest(
    queries: np.ndarray, vectors: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """The k vectors of highest inner product with each query, best first; ties: lower position first.

    NOTE where more vectors equal the k-th than there is room for, faiss chooses which to return.

    Args:
        queries: (Q, D) float32.
        vectors: (N, D) float32; may be mapped into memory, and is read once from end to end.

    Returns:
        scores (Q, k) float32 and positions (Q, k) int64.

    Raises:
        ValueError: shapes that do not fit, or k out of range.
    """
    _check(queries, vectors.shape, k)
    scores = np.empty((len(queries), 0), np.float32)
    positions = np.empty((len(queries), 0), np.int64)
    for start in range(0, len(vectors), CHUNK):
        part = np.ascontiguousarray(vectors[start : start + CHUNK])
        depth = min(k, len(part))
        found, places = faiss.knn(queries, part, depth, metric=faiss.METRIC_INNER_PRODUCT)
        both = np.hstack([scores, found]), np.hstack([positions, places + start])
        scores, positions = _best(*both, k)
    return scores, positions


class EmbeddingIndex(Lists):
    """Inverted lists over vectors; make one with `build` or `load`.

    Attributes:
        vectors: (N, D) float32 of unit length.
        recall: share of each vector's ten nearest others that a search finds, measured on its own
            vectors when it was built.
    """

    def __init__(self, index: faiss.IndexIVF, vectors: np.ndarray, recall: float):
        super().__init__(index)
        self.vectors, self.recall = vectors, recall

    @classmethod
    def build(cls, vectors: np.ndarray, wanted: float = WANTED) -> "EmbeddingIndex":
        """About sqrt(N) lists; a query looks into as many as find a share `wanted` of the ten nearest.

        Args:
            vectors: (N, D) float32 of unit length; may be mapped into memory.

        Raises:
            ValueError: fewer than two vectors, or a wanted recall that is no share.
        """
        if vectors.ndim != 2 or len(vectors) < 2:
            raise ValueError(
                f"an index of embeddings needs a matrix of two or more, got shape {vectors.shape}"
            )
        if not 0 < wanted <= 1:
            raise ValueError(f"wanted is {wanted}: it is a share, above 0 and at most 1")
        lists = round(len(vectors) ** 0.5)
        random = np.random.default_rng(SEED)
        index = faiss.index_factory(vectors.shape[1], f"IVF{lists},SQ8", faiss.METRIC_INNER_PRODUCT)
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

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """As `exact_nearest`, among the vectors of the lists that are looked into; into all where
        those hold fewer than k."""
        _check(queries, self.vectors.shape, k)
        depth = min(max(DEPTH * k, 32), len(self))
        places = self._candidates(queries, depth, self.probes)
        short = (places < 0).sum(axis=1) > depth - k
        if short.any():
            places[short] = self._candidates(queries[short], depth, self.lists)
        scores = np.full(places.shape, -np.inf, np.float32)
        for row, place in enumerate(places):
            there = place >= 0
            scores[row, there] = self.vectors[place[there]] @ queries[row]
        return _best(scores, places, k)

    def save(self, path: Path) -> None:
        """Write the lists, and beside them `path`.json with what was measured; not the vectors.

        Raises:
            OSError: one of them cannot be written.
        """
        measured = {"lists": self.lists, "probes": self.probes, "recall": self.recall}
        self._write(path, faiss.write_index, vectors=len(self), **measured)

    @classmethod
    def load(cls, path: Path, vectors: np.ndarray) -> "EmbeddingIndex":
        """What `save` wrote, mapped into memory: lists are read when a query looks into them.

        Raises:
            ValueError: a file is missing or damaged, or belongs to other vectors.
        """
        try:
            note = json.loads(note_of(path).read_text())
            # reading past the end of a mapped file would end the process
            if Path(path).stat().st_size != note["bytes"]:
                raise ValueError
            index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP)
            index.nprobe = note["probes"]
            # starting 32 threads takes longer than most searches
            faiss.downcast_InvertedLists(index.invlists).prefetch_nthread = 0
            made = cls(index, vectors, float(note["recall"]))
        except (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError):
            raise ValueError(
                f"'{path}' and '{note_of(path)}' are no index of embeddings: build it again"
            ) from None
        if (len(made), index.d) != vectors.shape:
            raise ValueError(
                f"'{path}' is an index of {len(made)} embeddings of {index.d} dimensions, but there "
                f"are {vectors.shape[0]} of {vectors.shape[1]}: build it again"
            )
        return made

    def _candidates(self, queries: np.ndarray, depth: int, probes: int) -> np.ndarray:
        """(Q, depth) positions; -1 where the lists hold fewer."""
        # Not by `params`: pytorch-metric-learning imports faiss.contrib.torch_utils, whose search has
        # none.
        usual, self._index.nprobe = self._index.nprobe, probes
        try:
            return self._index.search(queries, depth)[1]
        finally:
            self._index.nprobe = usual

    def _share_found(
        self, own: np.ndarray, queries: np.ndarray, least: np.ndarray, k: int
    ) -> float:
        """What share of each vector's k results, without itself, is as near as its k-th nearest."""
        found = zip(own, least, *self.search(queries, k + 1), strict=True)
        near = [(scores[place != row][:k] >= end - 1e-6).sum() for row, end, scores, place in found]
        return float(np.mean(near) / k)


def _check(queries: np.ndarray, shape: tuple[int, ...], k: int) -> None:
    if queries.ndim != 2 or len(shape) != 2 or queries.shape[1] != shape[1]:
        raise ValueError(
            f"queries of shape {queries.shape} do not fit vectors of shape {shape}: "
            "they must be (Q, D) and (N, D)"
        )
    if not 1 <= k <= shape[0]:
        raise ValueError(f"k must lie between 1 and the {shape[0]} vectors, got {k}")


def _best(scores: np.ndarray, places: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    order = np.lexsort((places, -scores), axis=1)[:, :k]
    return np.take_along_axis(scores, order, axis=1), np.take_along_axis(places, order, axis=1)


def _rows(
    vectors: np.ndarray, random: np.random.Generator, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Random positions in order, as many as there are at most, and the vectors there."""
    rows = np.sort(random.choice(len(vectors), min(count, len(vectors)), replace=False))
    return rows, np.ascontiguousarray(vectors[rows])
