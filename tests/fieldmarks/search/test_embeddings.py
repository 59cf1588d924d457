import json

import faiss
import faiss.contrib.torch_utils  # noqa: F401  what pytorch-metric-learning does to faiss
import numpy as np
import pytest

from fieldmarks.search import embeddings as embedding_search
from fieldmarks.search.embeddings import EmbeddingIndex, exact_nearest


@pytest.fixture(autouse=True)
def one_thread():
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    yield
    faiss.omp_set_num_threads(before)


def units(size: int, dim: int, seed: int = 0, centres: int = 0) -> np.ndarray:
    """Random directions, or directions around centres."""
    random = np.random.default_rng(seed)
    rows = random.normal(size=(size, dim))
    if centres:
        rows = (
            np.random.default_rng(99).normal(size=(centres, dim))[
                random.integers(centres, size=size)
            ]
            + 0.5 * rows
        )
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def naive(queries, vectors, k):
    """The k best positions of each query, one pair at a time; equal ones: lower position first."""
    actual = []
    for query in queries.astype(np.float64):
        scores = [float(query @ vector) for vector in vectors.astype(np.float64)]
        actual.append(sorted(range(len(scores)), key=lambda row: (-scores[row], row))[:k])
    return actual


@pytest.mark.parametrize("chunk", [7, 1000])
def test_exact_is_a_naive_loop_whatever_the_chunk(monkeypatch, chunk):
    monkeypatch.setattr(embedding_search, "CHUNK", chunk)
    vectors, queries = units(60, 9), units(5, 9, seed=1)
    for k in (1, 10, 60):
        scores, positions = exact_nearest(queries, vectors, k)
        assert positions.tolist() == naive(queries, vectors, k)
        np.testing.assert_allclose(
            scores, np.take_along_axis(queries @ vectors.T, positions, 1), atol=1e-6
        )


def test_equal_vectors_come_in_the_order_of_the_index(monkeypatch):
    monkeypatch.setattr(embedding_search, "CHUNK", 8)
    vectors = np.repeat(np.eye(4, dtype=np.float32), 5, axis=0)[[*range(19, -1, -1)]]
    assert exact_nearest(vectors[:1], vectors, 5)[1].tolist() == [[0, 1, 2, 3, 4]]
    index = EmbeddingIndex.build(vectors)
    index.probes = index.lists
    assert index.search(vectors[:1], 5)[1].tolist() == [[0, 1, 2, 3, 4]]


def test_looking_into_all_lists_is_exact():
    vectors, queries = units(3000, 24), units(20, 24, seed=1)
    index = EmbeddingIndex.build(vectors)
    assert index.lists == 55 and len(index) == 3000
    index.probes = index.lists
    for k in (1, 10):
        scores, positions = index.search(queries, k)
        assert positions.tolist() == naive(queries, vectors, k)
        np.testing.assert_allclose(
            scores, np.take_along_axis(queries @ vectors.T, positions, 1), atol=1e-6
        )


def test_recall_is_the_share_of_the_ten_nearest_others_that_is_found():
    vectors = units(4000, 16, centres=40)
    index = EmbeddingIndex.build(vectors)
    assert index.recall >= 0.95 and index.probes < index.lists
    own = np.sort(np.random.default_rng(5).choice(4000, 200, replace=False))
    exact = [
        [row for row in rows if row != one][:10]
        for one, rows in zip(own, naive(vectors[own], vectors, 11), strict=True)
    ]

    def share():
        _, actual = index.search(vectors[own], 11)
        return np.mean(
            [
                len(set(rows) & set([row for row in mine if row != one][:10])) / 10
                for one, rows, mine in zip(own, exact, actual.tolist(), strict=True)
            ]
        )

    at_its_probes = share()
    assert at_its_probes == pytest.approx(index.recall, abs=0.05)
    index.probes = 1
    assert share() < at_its_probes


def test_more_recall_takes_more_lists():
    vectors = units(2000, 32)  # no clusters: the worst case
    some, all_but_all = (
        EmbeddingIndex.build(vectors, wanted=0.5),
        EmbeddingIndex.build(vectors, wanted=0.99),
    )
    assert some.probes < all_but_all.probes and 0.5 <= some.recall < all_but_all.recall


def test_where_the_lists_hold_too_few_all_are_searched():
    vectors = units(500, 8, centres=5)
    index = EmbeddingIndex.build(vectors)
    index.probes = 1
    scores, positions = index.search(vectors[:3], 500)
    assert [sorted(row) for row in positions.tolist()] == [
        list(range(500))
    ] * 3 and index.probes == 1
    assert (np.diff(scores, axis=1) <= 0).all()


def test_saved_and_mapped_it_finds_the_same(tmp_path):
    np.save(tmp_path / "vectors.npy", units(2000, 16, centres=20))
    vectors, queries = (
        np.load(tmp_path / "vectors.npy", mmap_mode="r"),
        units(10, 16, seed=1, centres=20),
    )
    made = EmbeddingIndex.build(vectors)
    made.save(tmp_path / "new" / "vectors.faiss")
    loaded = EmbeddingIndex.load(tmp_path / "new" / "vectors.faiss", vectors)
    assert (len(loaded), loaded.lists, loaded.probes, loaded.recall) == (
        2000,
        made.lists,
        made.probes,
        made.recall,
    )
    for one, two in zip(loaded.search(queries, 10), made.search(queries, 10), strict=True):
        np.testing.assert_array_equal(one, two)
    assert isinstance(
        faiss.downcast_InvertedLists(loaded._index.invlists), faiss.OnDiskInvertedLists
    )  # mapped, not read


def test_few_and_repeated_vectors_build_silently(capfd):
    for vectors in (units(2, 5), np.repeat(units(1, 5), 300, axis=0)):
        index = EmbeddingIndex.build(vectors)
        scores, _ = index.search(vectors[:1], 2)
        assert scores[0, 0] == pytest.approx(1, abs=1e-6)
    assert capfd.readouterr() == ("", "")


def test_damaged_files_and_files_of_other_vectors(tmp_path):
    vectors, path, note = units(100, 6), tmp_path / "lists", tmp_path / "lists.json"
    with pytest.raises(ValueError, match="are no index of embeddings: build it again"):
        EmbeddingIndex.load(path, vectors)
    EmbeddingIndex.build(vectors).save(path)
    for other, message in (
        (vectors[:99], r"is of \(100, 6\) embeddings, not \(99, 6\): build again"),
        (vectors[:, :5], r"not \(100, 5\)"),
    ):
        with pytest.raises(ValueError, match=message):
            EmbeddingIndex.load(path, other)
    whole, note_text = path.read_bytes(), note.read_text()
    for content, text in (
        (b"", note_text),
        (whole[:40], note_text),
        (whole[:-9], note_text),
        (whole, "{}"),
        (whole, json.dumps({"probes": None, "recall": 1})),
        (whole, "half a"),
    ):
        path.write_bytes(content)
        note.write_text(text)
        with pytest.raises(
            ValueError, match="are no index of embeddings: build it again"
        ) as caught:
            EmbeddingIndex.load(path, vectors)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda index: index.search(units(2, 6), 101),
            "k must lie between 1 and the 100 vectors, got 101",
        ),
        (
            lambda index: index.search(units(2, 5), 1),
            r"queries of shape \(2, 5\) do not fit vectors of shape \(100, 6\)",
        ),
        (
            lambda index: setattr(index, "probes", 0),
            "probes is 0: it must lie between 1 and the 10 lists",
        ),
        (lambda index: EmbeddingIndex.build(units(1, 6)), "needs a matrix of two or more"),
        (lambda index: EmbeddingIndex.build(units(9, 6), wanted=95), "wanted is 95: it is a share"),
        (lambda index: exact_nearest(units(2, 6), units(3, 6), 0), "got 0"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call(EmbeddingIndex.build(units(100, 6)))
    assert "\n" not in str(caught.value)
