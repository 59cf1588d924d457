import pytest
import torch

from fieldmarks.evaluation.recall import recall_at_k
from fieldmarks.evaluation.results import retrieve


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def naive_recall(query, labels, gallery, other_labels, ks):
    """From the definition, in Python; queries with nothing to find do not count."""
    alone = gallery is None
    items = (query if alone else gallery).double()
    others = labels if alone else other_labels
    best = []
    for i, row in enumerate(query.double()):
        cosines = torch.cosine_similarity(row[None], items).round(decimals=10).tolist()
        order = sorted(range(len(items)), key=lambda j, c=cosines: (-c[j], j))
        order = [j for j in order if not (alone and j == i)]
        right = [others[j] == labels[i] for j in order]
        if any(right):
            best.append(right.index(True) + 1)
    return {k: sum(rank <= k for rank in best) / len(best) for k in ks}


@pytest.mark.parametrize("seed", range(4))
def test_equals_the_definition(seed):
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(60, 5, generator=generator)
    gallery = torch.randn(45, 5, generator=generator)
    query[20:40], gallery[10:20] = query[:20], query[:10]  # ties
    labels = torch.randint(0, 9, (60,), generator=generator)
    other = torch.randint(2, 12, (45,), generator=generator)
    labels[-1] = 77
    for sides in ((query, labels, None, None), (query, labels, gallery, other)):
        expected = naive_recall(*sides, (1, 2, 4, 8))
        assert recall_at_k(*sides) == pytest.approx(expected)
        assert recall_at_k(*sides) == retrieve(*sides).recall(1, 2, 4, 8)


def test_a_query_with_nothing_to_find_is_left_out():
    embeddings, labels = torch.eye(4)[[0, 0, 1, 2]], torch.tensor([0, 0, 1, 2])
    assert recall_at_k(embeddings, labels, ks=(1, 3)) == {1: 1.0, 3: 1.0}
    gallery = torch.eye(4)[[1, 0, 2]], torch.tensor([0, 0, 5])
    assert recall_at_k(embeddings, labels, *gallery) == {1: 1.0, 2: 1.0, 4: 1.0, 8: 1.0}
    with pytest.raises(ValueError, match="no query has an item of its own label"):
        recall_at_k(embeddings, torch.arange(4))


def test_a_k_beyond_the_gallery_sees_all_of_it():
    embeddings, labels = torch.eye(3), torch.tensor([0, 1, 0])
    assert recall_at_k(embeddings, labels) == pytest.approx({1: 1 / 2, 2: 1, 4: 1, 8: 1})


def test_takes_what_it_is_given_in_the_order_asked_for():
    generator = torch.Generator().manual_seed(0)
    embeddings, labels = torch.randn(80, 16, generator=generator), torch.arange(80) % 10
    assert recall_at_k(embeddings.numpy(), labels.tolist()) == recall_at_k(embeddings, labels.int())
    assert list(recall_at_k(embeddings, labels, ks=[4, 1])) == [4, 1]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_same_on_a_gpu():
    generator = torch.Generator().manual_seed(0)
    kind = torch.randint(0, 9, (2000,), generator=generator)
    embeddings = torch.randn(9, 64, generator=generator)[kind]
    assert recall_at_k(embeddings.cuda(), kind.cuda()) == recall_at_k(embeddings, kind)


@pytest.mark.parametrize(
    "call, message",
    [
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
        (lambda: recall_at_k(torch.ones(2, 2), None), "no scores: give labels"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
