from collections import Counter

import pytest
import torch

from fieldmarks.methods import pairs as module
from fieldmarks.methods.pairs import (
    pairs_from_edges,
    pairs_from_labels,
    split_edges,
    with_hard_negatives,
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def undirected(pairs):
    return [tuple(sorted(pair)) for pair in pairs.tolist()]


def test_pair_numbers_count_all_pairs_once_in_order():
    expected = [(i, j) for i in range(60) for j in range(i)]
    assert [
        tuple(pair) for pair in module._pair_of(torch.arange(len(expected))).tolist()
    ] == expected


@pytest.mark.parametrize("larger", [2**20, 67_108_865, 2**31, 3_037_000_499])
def test_pair_numbers_hold_where_roots_round(larger):
    first = larger * (larger - 1) // 2
    numbers = torch.tensor([first - 1, first, first + 1, first + larger - 1])
    expected = [[larger - 1, larger - 2], [larger, 0], [larger, 1], [larger, larger - 1]]
    assert module._pair_of(numbers).tolist() == expected
    assert torch.equal(module.pair_numbers(torch.tensor(expected).flip(1)), numbers)


@pytest.mark.parametrize("count", [1, 30, 61])
def test_pairs_from_labels_are_balanced_distinct_and_right(count):
    labels = torch.tensor([5, 1, 1, 9, 5, 5] * 4 + [2])
    pairs, same = pairs_from_labels(labels, count, seeded())
    assert pairs.shape == (2 * count, 2) and same.tolist() == [1.0] * count + [0.0] * count
    assert ((labels[pairs[:, 0]] == labels[pairs[:, 1]]).float() == same).all()
    assert len(set(undirected(pairs))) == 2 * count and all(i < j for i, j in undirected(pairs))
    again = pairs_from_labels(labels, count, seeded())
    assert torch.equal(pairs, again[0]) and not torch.equal(
        pairs, pairs_from_labels(labels, count, seeded(1))[0]
    )


def test_all_pairs_can_be_asked_for():
    labels = torch.tensor([0, 0, 1, 1])
    pairs, same = pairs_from_labels(labels, 2, seeded())
    assert set(undirected(pairs[:2])) == {(0, 1), (2, 3)}
    labels = torch.tensor([0, 0, 0, 1])  # 3 within, 3 across
    pairs, _ = pairs_from_labels(labels, 3, seeded())
    assert sorted(undirected(pairs)) == [(i, j) for i in range(4) for j in range(i + 1, 4)]


def test_every_pair_is_equally_likely():
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 2])  # 7 pairs within, 14 across
    seen = Counter()
    for seed in range(1400):
        seen.update(undirected(pairs_from_labels(labels, 2, seeded(seed))[0]))
    assert len(seen) == 21
    for (i, j), times in seen.items():
        assert abs(times - (400 if labels[i] == labels[j] else 200)) < 75


@pytest.mark.parametrize("share, hard", [(0.0, 0), (0.25, 2), (0.5, 4), (1.0, 8)])
def test_hard_negatives_score_highest_of_those_drawn(share, hard):
    labels = torch.arange(40) // 4
    pairs, same = pairs_from_labels(labels, 8, seeded())
    seen = []

    def score(drawn):  # alike: numbers that are near
        seen.extend(undirected(drawn))
        return -(drawn[:, 0] - drawn[:, 1]).abs().float()

    found, still = with_hard_negatives(pairs, same, labels, score, share, seeded(1))
    assert torch.equal(still, same) and torch.equal(found[: 16 - hard], pairs[: 16 - hard])
    assert len(seen) == len(set(seen)) == module.AMONG * hard
    kept, chosen = undirected(found[: 16 - hard]), undirected(found[16 - hard :])
    assert not set(seen) & set(kept) and all(labels[i] != labels[j] for i, j in seen)
    best = sorted(seen, key=lambda pair: pair[1] - pair[0])[:hard]  # stable: as drawn
    assert chosen == best
    again = with_hard_negatives(pairs, same, labels, score, share, seeded(1))[0]
    assert torch.equal(found, again)


def test_hard_negatives_are_taken_from_all_where_there_are_few():
    labels = torch.tensor([0, 0, 0, 1])  # 3 pairs across
    pairs, same = pairs_from_labels(labels, 3, seeded())
    score = lambda drawn: drawn.sum(1).float()
    found, _ = with_hard_negatives(pairs, same, labels, score, 1.0, seeded(1))
    assert undirected(found[3:]) == [(2, 3), (1, 3), (0, 3)]


def test_rejection_draws_distinct_numbers_that_are_let_through():
    total = 2**21
    drawn = module._distinct(total, 3000, seeded(), lambda number: number % 3 == 0)
    assert (
        len(drawn.unique()) == 3000
        and (drawn % 3 == 0).all()
        and 0 <= drawn.min()
        and drawn.max() < total
    )
    tenths = torch.histc(drawn.double(), 10, 0, total)
    assert tenths.min() > 230 and tenths.max() < 370
    few = module._distinct(
        2**21, 150_000, seeded(), lambda number: number < 400_000
    )  # many repeats on the way
    assert len(few.unique()) == 150_000 and few.max() < 400_000


def test_pairs_from_edges_keep_clear_of_all_edges():
    edges = torch.tensor([[0, 1], [2, 1], [3, 0]])
    known = torch.tensor([[4, 0], [4, 1], [1, 0]])
    for seed in range(30):
        pairs, same = pairs_from_edges(edges, 5, seeded(seed), known)
        assert torch.equal(pairs[:3], edges) and same.tolist() == [1, 1, 1, 0, 0, 0]
        negatives = set(undirected(pairs[3:]))
        assert len(negatives) == 3 and negatives <= {(0, 2), (1, 3), (2, 3), (2, 4), (3, 4)}


def test_split_edges_shares_them_out():
    edges = torch.arange(22).view(11, 2)
    messages, targets = split_edges(edges, seeded())
    assert len(messages) == 5 and sorted(torch.cat([messages, targets]).tolist()) == edges.tolist()


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda: pairs_from_labels(torch.tensor([0, 0, 1]), 2, seeded()),
            "2 pairs within a class are wanted, there are 1",
        ),
        (
            lambda: pairs_from_labels(torch.zeros(4).long(), 1, seeded()),
            "1 pairs across classes are wanted, there are 0",
        ),
        (lambda: pairs_from_labels(torch.tensor([0, 0, 1]), 0, seeded()), "0 pairs within"),
        (
            lambda: pairs_from_edges(torch.tensor([[0, 1], [1, 0]]), 9, seeded()),
            "1 of 2 edges come twice",
        ),
        (
            lambda: pairs_from_edges(torch.tensor([[2, 2]]), 9, seeded()),
            "item 2 is paired with itself",
        ),
        (
            lambda: pairs_from_edges(torch.tensor([[0, 9]]), 9, seeded()),
            "between 0 and 8, got 0 to 9",
        ),
        (
            lambda: pairs_from_edges(torch.tensor([[0, 1], [1, 2]]), 3, seeded()),
            "2 pairs that are no edges .* are 1",
        ),
        (lambda: pairs_from_edges(torch.tensor([0, 1]), 3, seeded()), r"edges must be \(E, 2\)"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
