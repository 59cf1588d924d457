import math

import pytest
import torch
from fieldmarks.evaluation import recall
from fieldmarks.evaluation.recall import (
    average_precision_at_r,
    first_relevant_rank,
    hits_at_k,
    map_at_r,
    nearest,
    recall_at_k,
)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def ranking(query, gallery=None) -> list[list[int]]:
    """Written from the definition, in Python: sort by cosine, then by index; a query does not see itself."""

    def unit(rows):
        return [
            [x / math.sqrt(sum(y * y for y in row)) for x in row] for row in rows.double().tolist()
        ]

    others = unit(query if gallery is None else gallery)
    order = []
    for i, a in enumerate(unit(query)):
        scores = {j: round(sum(x * y for x, y in zip(a, b)), 10) for j, b in enumerate(others)}
        if gallery is None:
            del scores[i]
        order.append(sorted(scores, key=lambda j: (-scores[j], j)))
    return order


def naive_recall(order, labels, other_labels, ks):
    def hit(i, k):
        return any(other_labels[j] == labels[i] for j in order[i][:k])

    return {k: sum(hit(i, k) for i in range(len(order))) / len(order) for k in ks}


def naive_map_at_r(order, labels, other_labels):
    precisions = []
    for i, row in enumerate(order):
        relevant = [other_labels[j] == labels[i] for j in row]
        if r := sum(relevant):
            hits = [place for place in range(1, r + 1) if relevant[place - 1]]
            precisions.append(sum(sum(relevant[:place]) / place for place in hits) / r)
    return sum(precisions) / len(precisions)


@pytest.mark.parametrize("seed", range(4))
def test_equals_the_definition(seed):
    generator = torch.Generator().manual_seed(seed)
    query, gallery = (
        torch.randn(60, 5, generator=generator),
        torch.randn(45, 5, generator=generator),
    )
    query[20:40], gallery[10:20] = query[:20], query[:10]  # ties
    labels, other = (
        torch.randint(0, 9, (60,), generator=generator),
        torch.randint(2, 12, (45,), generator=generator),
    )
    for sides, order, others in (
        ((query, labels), ranking(query), labels),
        ((query, labels, gallery, other), ranking(query, gallery), other),
    ):
        assert nearest(query, *sides[2:3], k=20)[1].tolist() == [row[:20] for row in order]
        assert recall_at_k(*sides) == pytest.approx(
            naive_recall(order, labels, others, (1, 2, 4, 8))
        )
        assert map_at_r(*sides) == pytest.approx(naive_map_at_r(order, labels, others))


def test_map_at_r_agrees_with_pytorch_metric_learning():
    from pytorch_metric_learning.distances import CosineSimilarity
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
    from pytorch_metric_learning.utils.inference import CustomKNN

    generator = torch.Generator().manual_seed(0)
    embeddings, labels = (
        torch.randn(300, 8, generator=generator),
        torch.randint(0, 40, (300,), generator=generator),
    )
    calculator = AccuracyCalculator(
        include=("mean_average_precision_at_r", "precision_at_1"),
        k="max_bin_count",
        device=torch.device("cpu"),
        knn_func=CustomKNN(CosineSimilarity()),
    )
    for sides, theirs in (
        ((embeddings, labels), (embeddings, labels)),
        ((embeddings[:100], labels[:100], embeddings[100:], labels[100:]),) * 2,
    ):
        expected = calculator.get_accuracy(*theirs)
        assert map_at_r(*sides) == pytest.approx(expected["mean_average_precision_at_r"], abs=1e-6)
        known = (
            torch.isin(labels[:100], labels[100:]) if len(sides) == 4 else slice(None)
        )  # theirs leaves out the rest
        assert hits_at_k(*sides, ks=(1,))[known].double().mean().item() == pytest.approx(
            expected["precision_at_1"]
        )


@pytest.mark.parametrize("size", [3 * 128 - 1, 3 * 128, 3 * 128 + 1])
@pytest.mark.parametrize(
    "k", [1, 9, 40, 200]
)  # below and above the limits for mirroring and for the width of a tile
def test_same_at_the_edges_of_tiles_and_strips(size, k, monkeypatch):
    monkeypatch.setattr(recall, "TILE", 128)
    generator = torch.Generator().manual_seed(size)
    embeddings = torch.randn(size, 6, generator=generator)
    scores = torch.nn.functional.normalize(embeddings.double(), dim=1)
    scores = scores @ scores.T
    for gallery in (None, embeddings):
        expected = scores.clone().fill_diagonal_(-9) if gallery is None else scores
        expected = expected.topk(k, dim=1).values
        results = [nearest(embeddings, gallery, k, chunk_bytes=chunk) for chunk in (1, 2**27)]
        for found, index in results:
            torch.testing.assert_close(found.double(), expected, atol=1e-6, rtol=0)
            assert (gallery is not None) or (index != torch.arange(size)[:, None]).all()
        assert all(torch.equal(*pair) for pair in zip(*results))


@pytest.mark.parametrize("dim, threads", [(1, 1), (3, 1), (100, 1), (512, 1), (512, 2)])
def test_copies_score_alike_wherever_they_lie_and_come_in_order(dim, threads):
    """NOTE plain torch.mm fails this: it rounds copies differently at the ragged edge of a matrix."""
    torch.set_num_threads(threads)
    size, kinds = recall.TILE + 5, 7
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


def test_a_query_without_relevant_items_is_a_miss_for_recall_and_left_out_of_map():
    embeddings, labels = torch.eye(4)[[0, 0, 1, 2]], torch.tensor([0, 0, 1, 2])
    assert recall_at_k(embeddings, labels, ks=(1, 3)) == {1: 0.5, 3: 0.5}
    assert map_at_r(embeddings, labels) == 1.0
    assert average_precision_at_r(embeddings, labels).isnan().tolist() == [False, False, True, True]
    with pytest.raises(ValueError, match="no query has an item of its own label"):
        map_at_r(embeddings, torch.arange(4))


def test_hits_and_ranks_tell_the_same_story():
    generator = torch.Generator().manual_seed(3)
    embeddings, labels = (
        torch.randn(50, 4, generator=generator),
        torch.randint(0, 20, (50,), generator=generator),
    )
    rank = first_relevant_rank(embeddings, labels, limit=49)
    hits = hits_at_k(embeddings, labels, ks=(4, 1))
    assert hits.shape == (50, 2) and hits.dtype == torch.bool
    assert torch.equal(hits[:, 0], (rank >= 1) & (rank <= 4)) and torch.equal(hits[:, 1], rank == 1)
    assert recall_at_k(embeddings, labels, ks=[4, 1]) == {
        4: hits[:, 0].double().mean(),
        1: hits[:, 1].double().mean(),
    }


def test_a_k_beyond_the_gallery_sees_all_of_it():
    embeddings, labels = torch.eye(3), torch.tensor([0, 1, 0])
    assert recall_at_k(embeddings, labels) == pytest.approx(
        {1: 1 / 3, 2: 2 / 3, 4: 2 / 3, 8: 2 / 3}
    )


def test_takes_what_it_is_given():
    generator = torch.Generator().manual_seed(0)
    embeddings, labels = torch.randn(80, 16, generator=generator), torch.arange(80) % 10
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
        found, index = nearest(low, k=5)
        assert found.dtype == torch.float32 and torch.equal(index, nearest(low.float(), k=5)[1])
    assert recall_at_k(embeddings.numpy(), labels.tolist()) == recall_at_k(embeddings, labels.int())
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
    scores, index = nearest(embeddings.cuda(), k=30)
    assert index.is_cuda and torch.equal(index.cpu(), nearest(embeddings, k=30)[1])
    assert recall_at_k(embeddings.cuda(), kind) == recall_at_k(embeddings, kind)


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
            "query: 1 of 6 embeddings are all zero and have no direction, first at row 3",
        ),
        (lambda: nearest(torch.ones(4), k=1), "query must be a non-empty"),
        (lambda: nearest(torch.ones(0, 4), k=1), "query must be a non-empty"),
        (lambda: nearest(torch.ones(4, 2, dtype=torch.int64), k=1), "must be floating point"),
        (
            lambda: nearest(torch.ones(4, 2), torch.ones(4, 3), k=1),
            "query has 2 dimensions, gallery has 3",
        ),
        (
            lambda: nearest(torch.ones(4, 2), k=4),
            "between 1 and the 3 items that a query can find, got 4",
        ),
        (lambda: nearest(torch.ones(4, 2), k=0), "got 0"),
        (lambda: nearest(torch.ones(1, 2), k=1), "a single embedding has nothing to find"),
        (
            lambda: recall_at_k(torch.ones(4, 2), torch.zeros(3, dtype=torch.long)),
            r"query_labels must have shape \(4,\)",
        ),
        (
            lambda: recall_at_k(torch.ones(2, 2), [0, 1], torch.ones(3, 2), [0, 1]),
            r"gallery_labels must have shape \(3,\)",
        ),
        (
            lambda: recall_at_k(torch.ones(2, 2), [0, 1], torch.ones(3, 2)),
            "gallery_labels is missing",
        ),
        (lambda: recall_at_k(torch.ones(2, 2), [0, 1], None, [0, 1]), "gallery is missing"),
        (lambda: recall_at_k(torch.ones(2, 2), [0.0, 1.0]), "must be integers"),
        (lambda: recall_at_k(torch.ones(2, 2), [0, 1], ks=()), "at least one K"),
        (lambda: recall_at_k(torch.ones(2, 2), [0, 1], ks=(0, 1)), "each at least 1"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
