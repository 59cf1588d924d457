import math

import numpy as np
import pytest
import torch

from fieldmarks.evaluation.results import RetrievalResults, average_precision_at_r, retrieve
from fieldmarks.evaluation.statistics import bootstrap_interval


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def sides(seed: int = 0, queries: int = 60, items: int = 45):
    """With ties, and with queries of labels that the gallery lacks."""
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(queries, 5, generator=generator)
    gallery = torch.randn(items, 5, generator=generator)
    query[20:40], gallery[10:20] = query[:20].clone(), query[:10].clone()
    labels = torch.randint(0, 9, (queries,), generator=generator)
    other = torch.randint(2, 12, (items,), generator=generator)
    labels[5] = 99
    return query, labels, gallery, other


def naive(query, labels, gallery=None, other=None):
    """From the definitions, in Python: order and right or wrong of each query, R, and AP@R."""
    alone = gallery is None
    items, others = (query, labels) if alone else (gallery, other)
    actual = []
    for i, row in enumerate(query.double()):
        cosines = torch.cosine_similarity(row[None], items.double()).round(decimals=10).tolist()
        order = sorted(range(len(items)), key=lambda j, c=cosines: (-c[j], j))
        order = [j for j in order if not (alone and j == i)]
        right = [bool(others[j] == labels[i]) for j in order]
        r = sum(right)
        places = [place for place in range(1, r + 1) if right[place - 1]]
        precision = sum(sum(right[:place]) / place for place in places) / r if r else math.nan
        actual.append((order, right, r, precision))
    return actual


def both(seed: int = 0):
    given = sides(seed)
    return (given[:2], given)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("k", [1, 4, 44, 10**6])
def test_equals_the_definitions(seed, k):
    for given in both(seed):
        results, expected = retrieve(*given, k=k), naive(*given)
        kept = min(k, len(expected[0][0]))
        assert results.index.tolist() == [order[:kept] for order, *_ in expected]
        assert results.correct.tolist() == [right[:kept] for _, right, *_ in expected]
        assert results.relevant.tolist() == [r for _, _, r, _ in expected]
        assert results.unanswerable == sum(r == 0 for _, _, r, _ in expected) > 0
        precision = [precision for *_, precision in expected]
        assert results.average_precision.tolist() == pytest.approx(precision, nan_ok=True)
        assert results.map_at_r() == pytest.approx(np.nanmean(precision))
        assert results.scores.dtype == torch.float32 and results.scores.shape == (60, kept)
        for depth in {1, min(2, kept), kept}:
            hits = [float(any(right[:depth])) if r else math.nan for _, right, r, _ in expected]
            assert results.hits(depth).tolist() == pytest.approx(hits, nan_ok=True)
            assert results.recall(depth) == {depth: pytest.approx(np.nanmean(hits))}


def test_agrees_with_pytorch_metric_learning():
    from pytorch_metric_learning.distances import CosineSimilarity
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
    from pytorch_metric_learning.utils.inference import CustomKNN

    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(300, 8, generator=generator)
    labels = torch.randint(0, 40, (300,), generator=generator)
    labels[:3] = torch.tensor([100, 101, 102])  # with nothing to find: theirs leaves them out too
    calculator = AccuracyCalculator(
        include=("mean_average_precision_at_r", "precision_at_1"),
        k="max_bin_count",
        device=torch.device("cpu"),
        knn_func=CustomKNN(CosineSimilarity()),
    )
    for given in (
        (embeddings, labels),
        (embeddings[:100], labels[:100], embeddings[100:], labels[100:]),
    ):
        expected, results = calculator.get_accuracy(*given), retrieve(*given)
        precision = expected["mean_average_precision_at_r"]
        assert results.map_at_r() == pytest.approx(precision, abs=1e-6)
        assert results.recall(1) == {1: pytest.approx(expected["precision_at_1"])}


def test_average_precision_does_not_depend_on_how_many_are_kept():
    given = sides()
    expected = retrieve(*given, k=1).average_precision
    for k in (3, 10, 45):
        assert torch.equal(
            retrieve(*given, k=k).average_precision.nan_to_num(-1), expected.nan_to_num(-1)
        )
    shallow = retrieve(*given, k=3, average_precision=False)
    assert shallow.average_precision is None
    assert torch.equal(shallow.index, retrieve(*given, k=3).index)
    with pytest.raises(ValueError, match="there are no scores"):
        shallow.map_at_r()


def test_the_order_of_the_gallery_matters_to_ties_alone():
    query, labels, gallery, other = sides(1)
    order = torch.randperm(len(other), generator=torch.Generator().manual_seed(0))
    before = retrieve(query, labels, gallery, other, k=45)
    after = retrieve(query, labels, gallery[order], other[order], k=45)
    assert torch.equal(before.scores, after.scores)
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order))  # where an item stands now
    moved = place[before.index]
    for scores, own, others in zip(before.scores, moved, after.index, strict=True):
        for score in scores.unique():
            tied = scores == score  # the same items, in order of the gallery
            assert own[tied].sort().values.tolist() == others[tied].tolist()
    assert torch.equal(before.relevant, after.relevant)


def test_perfect_and_hopeless_retrieval():
    labels = torch.arange(4).repeat_interleave(5)
    results = retrieve(torch.eye(4)[labels] + 0.01 * torch.eye(20, 4), labels)
    assert results.recall(1, 4) == {1: 1.0, 4: 1.0} and results.map_at_r() == 1.0
    assert results.unanswerable == 0
    results = retrieve(torch.eye(4), torch.arange(4))
    assert results.unanswerable == 4 and results.hits(1).isnan().all()
    for call in (results.map_at_r, lambda: results.recall(1)):
        with pytest.raises(ValueError, match="no query has an item of its own label"):
            call()
    with pytest.raises(ValueError, match="one or more values"):
        results.interval("recall@1")


def test_without_labels_there_are_neighbours_and_no_scores():
    query, _, gallery, _ = sides()
    for given in ((query,), (query, None, gallery)):
        results = retrieve(*given, k=5)
        index, scores, correct = results.neighbours([3, 0], k=2)
        assert torch.equal(index, results.index[[3, 0], :2]) and correct is None
        assert torch.equal(scores, results.scores[[3, 0], :2])
        for call in (lambda: results.recall(1), results.map_at_r, lambda: results.unanswerable):  # noqa: B023
            with pytest.raises(ValueError, match="there are no scores: give labels"):
                call()


def test_deeper_than_what_was_kept():
    given = sides()
    results = retrieve(*given, k=10)
    for call in (
        lambda: results.recall(1, 11),
        lambda: results.hits(11),
        lambda: results.neighbours([0], k=11),
        lambda: results.interval("recall@11"),
    ):
        with pytest.raises(ValueError, match="10 neighbours .* search again with k=11"):
            call()
    everything = retrieve(*given, k=45)
    assert everything.recall(45)[45] == everything.recall(1000)[1000] == 1
    assert everything.neighbours([0], k=1000)[0].shape == (1, 45)
    few = retrieve(torch.eye(3), [0, 0, 1])
    assert few.index.shape == (3, 2) and few.recall(1, 8) == {1: 1.0, 8: 1.0}


def test_neighbours_of_rows():
    results = retrieve(*sides())
    rows = torch.tensor([7, 5, 7])
    for part, full in zip(
        results.neighbours(rows, 4), (results.index, results.scores, results.correct), strict=True
    ):
        assert torch.equal(part, full[rows, :4])
    assert results.neighbours(rows)[0].shape == (3, 10)


def test_intervals_are_bootstraps_over_the_queries_that_count():
    query, labels, gallery, other = sides()
    results = retrieve(query, labels, gallery, other)
    for name, values in (("recall@2", results.hits(2)), ("map@r", results.average_precision)):
        known = ~values.isnan()
        assert 0 < known.sum() < len(known)
        expected = bootstrap_interval(values[known])[1:]
        assert results.interval(name) == expected and expected[0] < expected[1]
        expected = bootstrap_interval(values[known], groups=labels[known], resamples=50)[1:]
        for groups in (labels, labels.tolist(), [f"class {label}" for label in labels]):
            assert results.interval(name, resamples=50, groups=groups) == expected
    for name in ("precision@1", "recall", "recall@", "map@1", "recall@x"):
        with pytest.raises(ValueError, match=f"no interval of '{name}': give 'map@r', 'recall@1'"):
            results.interval(name)


def test_results_of_a_search_made_elsewhere():
    for given in both():
        actual = retrieve(*given, k=7)
        labels = given[1::2]
        same = RetrievalResults.from_neighbours(
            actual.scores.numpy(),
            actual.index.int(),
            *labels,
            average_precision=actual.average_precision,
        )
        assert torch.equal(same.correct, actual.correct) and same.recall(1, 7) == actual.recall(
            1, 7
        )
        assert torch.equal(same.relevant, actual.relevant) and same.map_at_r() == actual.map_at_r()
        assert same.leave_one_out == actual.leave_one_out
        with pytest.raises(ValueError, match="search again with k=8"):
            same.hits(8)
        assert RetrievalResults.from_neighbours(actual.scores, actual.index).correct is None
    everything = retrieve(*given, k=45)
    same = RetrievalResults.from_neighbours(everything.scores, everything.index, *labels)
    assert same.recall(3, 99) == everything.recall(3, 99) and same.average_precision is None


def test_average_precision_by_hand():
    correct = torch.tensor([[1, 0, 1, 1], [0, 0, 0, 0], [0, 1, 0, 1]]).bool()
    precision = average_precision_at_r(correct, torch.tensor([3, 0, 2]))
    assert precision.tolist() == pytest.approx([(1 + 2 / 3) / 3, math.nan, 1 / 4], nan_ok=True)


def test_shows_queries_and_their_neighbours(monkeypatch):
    from matplotlib.figure import Figure

    from fieldmarks.show import galleries

    query, labels, gallery, other = sides()
    pictures = [np.full((8, 8, 3), i, np.uint8) for i in range(60)]
    alone, apart = retrieve(query, labels), retrieve(query, labels, gallery, other)
    assert isinstance(alone.show(pictures, [3, 4], k=5, titles=["a", "b"]), Figure)
    seen = []
    monkeypatch.setattr(
        galleries, "before_after", lambda *args, **named: seen.append((args, named))
    )
    apart.show((pictures, pictures[::-1]), torch.tensor([3, 4]), k=6)
    (((queries, blocks, titles), named),) = seen
    ((actual, correct, scores),) = blocks.values()
    assert [image[0, 0, 0] for image in queries] == [3, 4] and titles is None
    index = [[59 - image[0, 0, 0] for image in row] for row in actual]
    assert index == apart.index[[3, 4], :6].tolist() and named == {"score": "cosine to the query"}
    assert torch.equal(correct, apart.correct[[3, 4], :6])
    assert torch.equal(scores, apart.scores[[3, 4], :6])
    with pytest.raises(ValueError, match=r"the pair \(query images, gallery images\)"):
        apart.show(pictures, [0])
    with pytest.raises(ValueError, match="search again with k=11"):
        alone.show(pictures, [0], k=11)


def test_memory_does_not_grow_with_queries_times_gallery():
    embeddings, labels = torch.randn(6_000, 4), torch.arange(6_000) % 1500
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        retrieve(embeddings, labels)
    largest = max(event.self_cpu_memory_usage for event in profile.events())
    assert largest < 4 * 6_000 * 6_000 / 16


def test_takes_what_it_is_given():
    query, labels, gallery, other = sides()
    expected = retrieve(query, labels, gallery, other)
    actual = retrieve(query.numpy(), labels.tolist(), gallery.numpy(), other.int())
    assert torch.equal(actual.index, expected.index) and actual.map_at_r() == expected.map_at_r()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_same_on_a_gpu():
    query, labels, gallery, other = sides()
    expected = retrieve(query, labels, gallery, other)
    actual = retrieve(query.cuda(), labels.cuda(), gallery.cuda(), other.cuda())
    assert torch.equal(actual.index, expected.index) and actual.map_at_r() == expected.map_at_r()


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: retrieve(torch.eye(3), [0, 1]), r"query_labels must have shape \(3,\), got"),
        (lambda: retrieve(torch.eye(3), [0, 1, 1.5]), "query_labels must be integers, got float64"),
        (lambda: retrieve(torch.eye(3), [0, 1, None]), "must be integers, got object: leave out"),
        (
            lambda: retrieve(torch.eye(3), [0, 1, 2], torch.eye(3)),
            "gallery_labels is missing: give",
        ),
        (lambda: retrieve(torch.eye(3), [0, 1, 2], None, [0, 1, 2]), "gallery is missing: give"),
        (
            lambda: retrieve(torch.eye(3), None, torch.eye(3), [0, 1, 2]),
            "query_labels is missing: without labels",
        ),
        (lambda: retrieve(torch.eye(3), k=0), "k is 0: it must be at least 1"),
        (lambda: retrieve(torch.eye(1)), "a single embedding has nothing to find"),
        (lambda: retrieve(torch.eye(3)).neighbours([0], k=0), "k is 0"),
        (
            lambda: RetrievalResults.from_neighbours(torch.ones(2, 3), torch.zeros(2, 2)),
            r"both be \(Q, k\), not empty, got \(2, 3\) and \(2, 2\)",
        ),
        (
            lambda: RetrievalResults.from_neighbours(torch.ones(2, 0), torch.zeros(2, 0)),
            "not empty",
        ),
        (
            lambda: RetrievalResults.from_neighbours([[1.0]], [[3]], [0], [0, 0, 1]),
            "index must lie between 0 and 2, got 3 to 3",
        ),
        (lambda: RetrievalResults.from_neighbours([[1.0]], [[-1]]), "got -1 to -1"),
        (
            lambda: RetrievalResults.from_neighbours([[1.0]], [[0]], [0, 1], [0]),
            r"query_labels must have shape \(1,\)",
        ),
        (
            lambda: RetrievalResults.from_neighbours([[1.0]], [[0]], None, [0]),
            "query_labels is missing",
        ),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_results_without_labels_are_shown_without_signs():
    embeddings = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    results = retrieve(embeddings, k=3)
    assert results.correct is None
    figure = results.show(torch.rand(6, 8, 8, 3), [0, 4], k=3)
    texts = " ".join(text.get_text() for text in figure.texts)
    assert "another class" not in texts and "cosine to the query" in texts
