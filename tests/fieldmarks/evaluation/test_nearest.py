import math

import pytest
import torch

from fieldmarks.evaluation import nearest as module
from fieldmarks.evaluation.nearest import nearest, stable_topk


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def ranking(query, gallery=None) -> list[list[int]]:
    """From the definition, in Python: by cosine, then by index; a query does not see itself."""

    def unit(rows):
        return [
            [x / math.sqrt(sum(y * y for y in row)) for x in row] for row in rows.double().tolist()
        ]

    others = unit(query if gallery is None else gallery)
    order = []
    for i, a in enumerate(unit(query)):
        scores = {
            j: round(sum(x * y for x, y in zip(a, b, strict=True)), 10)
            for j, b in enumerate(others)
        }
        if gallery is None:
            del scores[i]
        order.append(sorted(scores, key=lambda j, scores=scores: (-scores[j], j)))
    return order


@pytest.mark.parametrize("seed", range(4))
def test_equals_the_definition(seed):
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(60, 5, generator=generator)
    gallery = torch.randn(45, 5, generator=generator)
    query[20:40], gallery[10:20] = query[:20], query[:10]  # ties
    for sides in ((query,), (query, gallery)):
        for k in (1, 20, 44):
            assert nearest(*sides, k=k)[1].tolist() == [row[:k] for row in ranking(*sides)]


# k below and above the limits for looking at candidates only and for the width of a tile
@pytest.mark.parametrize("size", [3 * 128 - 1, 3 * 128, 3 * 128 + 1])
@pytest.mark.parametrize("k", [1, 9, 40, 200])
def test_same_at_the_edges_of_tiles_and_strips(size, k, monkeypatch):
    monkeypatch.setattr(module, "TILE", 128)
    generator = torch.Generator().manual_seed(size)
    embeddings = torch.randn(size, 6, generator=generator)
    scores = torch.nn.functional.normalize(embeddings.double(), dim=1)
    scores = scores @ scores.T
    for gallery in (None, embeddings):
        expected = scores.clone().fill_diagonal_(-9) if gallery is None else scores
        expected = expected.topk(k, dim=1).values
        results = [nearest(embeddings, gallery, k, chunk_bytes=chunk) for chunk in (1, 2**27)]
        for actual, index in results:
            torch.testing.assert_close(actual.double(), expected, atol=1e-6, rtol=0)
            assert (gallery is not None) or (index != torch.arange(size)[:, None]).all()
        assert all(torch.equal(*pair) for pair in zip(*results, strict=True))


@pytest.mark.parametrize("dim, threads", [(1, 1), (3, 1), (100, 1), (512, 1), (512, 2)])
def test_copies_score_alike_wherever_they_lie_and_come_in_order(dim, threads):
    """NOTE plain torch.mm fails this: it rounds copies differently at the edge of a matrix."""
    torch.set_num_threads(threads)
    size, kinds = module.TILE + 5, 7
    generator = torch.Generator().manual_seed(dim)
    kind = torch.randint(0, kinds, (size,), generator=generator)
    originals = torch.randn(kinds, dim, generator=generator)
    embeddings = originals[kind]
    unit = torch.nn.functional.normalize(originals.double(), dim=1)
    similarity = (unit @ unit.T).round(decimals=9)[kind][:, kind]
    for gallery in (None, embeddings):
        expected = similarity.clone().fill_diagonal_(-9) if gallery is None else similarity
        expected = expected.sort(dim=1, descending=True, stable=True).indices
        for k in (1, 8, 50):
            assert torch.equal(nearest(embeddings, gallery, k)[1], expected[:, :k])


@pytest.mark.parametrize("chunk", [1, 2**27])
@pytest.mark.parametrize("k", [1, 5, 30])
def test_candidates_and_looking_through_all_find_the_same(k, chunk, monkeypatch):
    """Also ties at the limit, and queries that keep fewer than k."""
    monkeypatch.setattr(module, "TILE", 64)
    generator = torch.Generator().manual_seed(k)
    embeddings = torch.randn(500, 6, generator=generator)
    embeddings[250:400] = embeddings[torch.randint(0, 40, (150,), generator=generator)]
    embeddings[::7] = embeddings[3]  # more copies than k
    for gallery in (None, embeddings[:411]):
        monkeypatch.setattr(module, "SAMPLE", 10**9)  # no sample, no candidates
        expected = nearest(embeddings, gallery, k, chunk_bytes=chunk)
        for sample in (2, 8, 32):
            monkeypatch.setattr(module, "SAMPLE", sample)
            actual = nearest(embeddings, gallery, k, chunk_bytes=chunk)
            assert all(map(torch.equal, actual, expected))


def test_nearly_every_query_finds_its_best_among_its_candidates(monkeypatch):
    """Even where images of one class lie side by side."""
    searched = []
    every = module._search_all
    monkeypatch.setattr(
        module, "_search_all", lambda *args: searched.extend(args[2]) or every(*args)
    )
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(3000) // 40
    embeddings = torch.randn(75, 8, generator=generator)[labels]
    embeddings = embeddings + 0.2 * torch.randn(3000, 8, generator=generator)
    for k in (1, 8, 39):
        nearest(embeddings, k=k)
        nearest(embeddings[:100], embeddings, k=k)
    assert len(searched) <= 3


@pytest.mark.parametrize("k", [1, 3, 7, 20, 25])
def test_the_first_of_equal_scores_are_taken(k):
    scores = torch.randint(0, 4, (50, 20), generator=torch.Generator().manual_seed(k)).float()
    scores[0], scores[1, 5:] = 2.0, -math.inf
    values, place = stable_topk(scores, k)
    expected = scores.sort(dim=1, descending=True, stable=True)
    assert torch.equal(place, expected.indices[:, :k])
    assert torch.equal(values, expected.values[:, :k])


def test_takes_what_it_is_given():
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(80, 16, generator=generator)
    expected = nearest(embeddings, k=5)
    for same in (
        embeddings.numpy(),
        embeddings.T.contiguous().T,
        embeddings.clone().requires_grad_(),
        embeddings.double(),
        1e30 * embeddings,
        1e-30 * embeddings,
        1e200 * embeddings.double(),
    ):
        assert torch.equal(nearest(same, k=5)[1], expected[1])
    for kind in (torch.half, torch.bfloat16):
        low = embeddings.to(kind)
        actual, index = nearest(low, k=5)
        assert actual.dtype == torch.float32 and torch.equal(index, nearest(low.float(), k=5)[1])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(nearest(embeddings, k=5)[0], expected[0])
    torch.set_float32_matmul_precision("medium")
    try:
        assert torch.equal(nearest(embeddings, k=5)[0], expected[0])
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_same_on_a_gpu():
    generator = torch.Generator().manual_seed(0)
    kind = torch.randint(0, 9, (2000,), generator=generator)
    embeddings = torch.randn(9, 64, generator=generator)[kind]
    for k in (1, 30):
        scores, index = nearest(embeddings.cuda(), k=k)
        assert index.is_cuda and torch.equal(index.cpu(), nearest(embeddings, k=k)[1])


def test_memory_does_not_grow_with_the_square():
    embeddings = torch.randn(10_000, 4)
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        nearest(embeddings[:700], embeddings, k=8, chunk_bytes=2**22)
    largest = max(event.self_cpu_memory_usage for event in profile.events())
    assert largest <= 2**22 < 4 * 700 * 10_000 / 4


def bad(row, value, size=6):
    embeddings = torch.ones(size, 3)
    embeddings[row] = value
    return embeddings


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda: nearest(bad([2, 4], math.nan), k=1),
            "query: 2 of 6 embeddings hold NaN or infinity, first at row 2",
        ),
        (
            lambda: nearest(torch.ones(2, 3), bad(5, math.inf), k=1),
            "gallery: 1 of 6 embeddings hold NaN .* row 5",
        ),
        (
            lambda: nearest(bad(3, 0.0), k=1),
            "query: 1 of 6 embeddings are all zero, first at row 3",
        ),
        (lambda: nearest(torch.ones(4), k=1), "query must be a non-empty"),
        (lambda: nearest(torch.ones(0, 4), k=1), "query must be a non-empty"),
        (lambda: nearest(torch.ones(4, 2, dtype=torch.int64), k=1), "must be floating point"),
        (
            lambda: nearest(torch.ones(4, 2), torch.ones(4, 3), k=1),
            "query has 2 dimensions, gallery has 3",
        ),
        (lambda: nearest(torch.ones(4, 2), k=4), "between 1 and the 3 items of a query, got 4"),
        (lambda: nearest(torch.ones(4, 2), k=0), "got 0"),
        (lambda: nearest(torch.ones(1, 2), k=1), "a single embedding has nothing to find"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
