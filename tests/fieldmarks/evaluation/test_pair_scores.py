import math

import pytest
import torch
from torch import nn

from fieldmarks.evaluation import pair_scores
from fieldmarks.evaluation.pair_scores import rerank, top_scores


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    monkeypatch.setattr(pair_scores, "TILE", (4, 8))
    monkeypatch.setattr(pair_scores, "CHUNK", 24)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def random_head(dim=6, concepts=5, scale=1.0, seed=0, cosine=0):
    """With a `cosine` of so many of the last dimensions, which |a - b| leaves out."""
    torch.manual_seed(seed)
    head, dim = nn.Module(), dim - cosine
    if cosine:
        head.cosine_weight, head.cosine_dim = 2.5, cosine
    head.concept, head.relevance = nn.Linear(dim, concepts), nn.Linear(dim, concepts)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(scale * torch.randn_like(parameter))
    return head


def naive_score(head, q, g):
    """Eq. 1-3 number by number, in Python's floats."""
    dim, shift = head.concept.in_features, 0.0
    if len(q) > dim:
        shift = head.cosine_weight * (
            sum(x * y for x, y in zip(q[dim:], g[dim:], strict=True)) - 0.5
        )
    difference = [abs(x - y) for x, y in zip(q[:dim], g[:dim], strict=True)]

    def linear(layer):
        return [
            sum(w * x for w, x in zip(row, difference, strict=True)) + bias
            for row, bias in zip(layer.weight.tolist(), layer.bias.tolist(), strict=True)
        ]

    powers = [math.exp(r) for r in linear(head.relevance)]
    return sum(
        power / sum(powers) / (1 + math.exp(-z - shift))
        for power, z in zip(powers, linear(head.concept), strict=True)
    )


def naive_top(head, query, gallery, k):
    table = [[naive_score(head, q, g) for g in gallery.tolist()] for q in query.tolist()]
    order = [sorted(range(len(row)), key=lambda j: (-round(row[j], 6), j))[:k] for row in table]
    return [[row[j] for j in places] for row, places in zip(table, order, strict=True)], order


@pytest.mark.parametrize(
    "queries, items", [(1, 1), (4, 24), (5, 25), (9, 60), (3, 7)]
)  # at and beside edges of tiles
@pytest.mark.parametrize("cosine", [0, 2])
def test_top_scores_equal_the_definition(queries, items, cosine):
    head = random_head(cosine=cosine)
    generator = torch.Generator().manual_seed(queries)
    query, gallery = (
        torch.randn(queries, 6, generator=generator),
        torch.randn(items, 6, generator=generator),
    )
    gallery[items // 2 :] = gallery[: items - items // 2].clone()  # ties
    for k in {1, min(3, items), items}:
        scores, index = top_scores(head, query, gallery, k)
        expected, order = naive_top(head, query, gallery, k)
        assert index.tolist() == order and scores.dtype == torch.float32
        torch.testing.assert_close(scores, torch.tensor(expected), atol=2e-6, rtol=0)


@pytest.mark.parametrize("cosine", [0, 2])
def test_rerank_orders_its_candidates_and_no_others(cosine):
    head = random_head(cosine=cosine)
    generator = torch.Generator().manual_seed(0)
    query, gallery = (
        torch.randn(13, 6, generator=generator),
        torch.randn(40, 6, generator=generator),
    )
    gallery[20:] = gallery[:20].clone()
    candidates = torch.stack([torch.randperm(40, generator=generator)[:11] for _ in range(13)])
    scores, index = rerank(head, query, gallery, candidates)
    for q in range(13):
        values = {
            j: naive_score(head, query[q].tolist(), gallery[j].tolist())
            for j in candidates[q].tolist()
        }
        assert index[q].tolist() == sorted(values, key=lambda j: (-round(values[j], 6), j))
        assert scores[q].tolist() == pytest.approx([values[j] for j in index[q].tolist()], abs=2e-6)
    everything = torch.arange(40).expand(13, 40)
    for actual, expected in zip(
        rerank(head, query, gallery, everything), top_scores(head, query, gallery, 40), strict=True
    ):
        assert torch.equal(actual, expected)


@pytest.mark.parametrize("tile", [(4, 8), (16, 64)])
@pytest.mark.parametrize("dim, concepts, cosine", [(3, 1, 0), (100, 17, 40), (512, 40, 0)])
def test_copies_score_alike_wherever_they_lie_and_come_in_order(
    tile, dim, concepts, cosine, monkeypatch
):
    monkeypatch.setattr(pair_scores, "TILE", tile)
    monkeypatch.setattr(pair_scores, "CHUNK", 3 * tile[1])
    head = random_head(dim, concepts, scale=0.3, cosine=cosine)
    generator = torch.Generator().manual_seed(0)
    kind = torch.randint(0, 3, (7 * tile[1] + 5,), generator=generator)
    originals, query = (
        torch.randn(3, dim, generator=generator),
        torch.randn(2, dim, generator=generator).repeat(tile[0], 1),
    )
    scores, index = top_scores(head, query, originals[kind], len(kind))
    assert all(len(scores[q].unique()) == 3 for q in range(len(query)))
    assert torch.equal(scores[:-2], scores[2:]) and torch.equal(
        index[:-2], index[2:]
    )  # copies of a query agree too
    for q in range(2):
        assert len(kind[index[q]].unique_consecutive()) == 3
        for one in range(3):
            assert torch.equal(index[q][kind[index[q]] == one], (kind == one).nonzero()[:, 0])


def test_bf16_finds_the_same_and_scores_it_in_float32():
    head = random_head(64, 20, scale=0.2)
    generator = torch.Generator().manual_seed(0)
    query, gallery = (
        torch.randn(10, 64, generator=generator),
        torch.randn(100, 64, generator=generator),
    )
    exact, rough = (
        top_scores(head, query, gallery, 5, dtype=dtype)
        for dtype in (torch.float32, torch.bfloat16)
    )
    assert torch.equal(exact[1], rough[1])
    torch.testing.assert_close(exact[0], rough[0], atol=1e-6, rtol=0)


def test_large_logits_neither_overflow_nor_leave_0_and_1():
    head = random_head(scale=300.0)
    scores, _ = top_scores(head, torch.randn(5, 6), torch.randn(30, 6), 30)
    assert (
        scores.isfinite().all() and 0 <= scores.min() and scores.max() <= 1 and scores.std() > 0.1
    )


def test_takes_pans_head_and_low_precision_features():
    from fieldmarks.methods.pan import ConceptSimilarity

    head = ConceptSimilarity(6, 5)
    query, gallery = torch.randn(5, 6).bfloat16(), torch.randn(9, 6).bfloat16()
    scores, index = top_scores(head, query, gallery, 9)
    expected = head.score(query.float()[:, None], gallery.float()[None])
    torch.testing.assert_close(scores, expected.gather(1, index), atol=1e-6, rtol=0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(top_scores(head, query, gallery, 9)[0], scores)


def test_memory_does_not_grow_with_the_gallery_times_the_queries(monkeypatch):
    monkeypatch.setattr(pair_scores, "TILE", (16, 64))
    monkeypatch.setattr(pair_scores, "CHUNK", 128)
    head = random_head(4, 3)
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        top_scores(head, torch.randn(96, 4), torch.randn(1000, 4), 2)
    largest = max(event.self_cpu_memory_usage for event in profile.events())
    assert largest < 4 * 96 * 1000 / 4


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_same_on_a_gpu():
    head, query, gallery = random_head(64, 20), torch.randn(70, 64), torch.randn(900, 64)
    expected = top_scores(head, query, gallery, 8)
    actual = top_scores(head.cuda(), query.cuda(), gallery.cuda(), 8)
    assert actual[1].is_cuda and (actual[1].cpu() == expected[1]).float().mean() > 0.99
    torch.testing.assert_close(actual[0].cpu(), expected[0], atol=1e-5, rtol=0)


def spoilt(row, value=math.nan):
    features = torch.ones(30, 6)
    features[row, 2] = value
    return features


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda head: top_scores(head, torch.ones(2, 5), torch.ones(3, 6), 1),
            r"query must be a non-empty \(N, 6\) matrix",
        ),
        (
            lambda head: top_scores(head, torch.ones(2, 6), torch.ones(0, 6), 1),
            r"gallery must be a non-empty \(N, 6\)",
        ),
        (
            lambda head: top_scores(head, torch.ones(2, 6), torch.ones(3, 6), 4),
            "between 1 and the 3 gallery items, got 4",
        ),
        (
            lambda head: top_scores(head, torch.ones(2, 6), torch.ones(3, 6), 1, dtype=torch.half),
            "dtype is 'torch.float16': it must be one of",
        ),
        (
            lambda head: top_scores(head, torch.ones(2, 6), spoilt(25), 1),
            "gallery: features hold NaN .* from row 24 on",
        ),
        (
            lambda head: top_scores(head, spoilt(0, math.inf), torch.ones(3, 6), 1),
            "query: features hold NaN or infinity",
        ),
        (
            lambda head: rerank(head, torch.ones(2, 6), torch.ones(3, 6), torch.tensor([0, 1])),
            r"must be \(2, C\) positions",
        ),
        (
            lambda head: rerank(head, torch.ones(2, 6), torch.ones(3, 6), torch.tensor([[0], [3]])),
            "between 0 and 2, got 0 to 3",
        ),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call(random_head())
    assert "\n" not in str(caught.value)
