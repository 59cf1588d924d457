import itertools
import math
import tracemalloc
from fractions import Fraction

import numpy as np
import pytest
import torch

from fieldmarks.evaluation import hamming
from fieldmarks.evaluation.hamming import (
    average_precision,
    lookup,
    mean_average_precision,
    precision_recall_by_radius,
    retrieve,
)
from fieldmarks.random import seeded


def random_sides(seed: int, queries: int = 6, items: int = 7, bits: int = 3, classes: int = 3):
    """Short codes, so that most distances are tied; the last class is in the queries alone."""
    generator = torch.Generator().manual_seed(seed)
    query, gallery = (
        torch.randint(0, 2, (size, bits), generator=generator) * 2.0 - 1
        for size in (queries, items)
    )
    return (
        query,
        torch.randint(0, classes + 1, (queries,), generator=generator),
        gallery,
        torch.randint(0, classes, (items,), generator=generator),
    )


def distances(query, gallery) -> list[list[int]]:
    return [
        [sum(a != b for a, b in zip(code, other, strict=True)) for other in gallery.tolist()]
        for code in query.tolist()
    ]


def printed_average_precision(relevant: list[bool], top: int) -> Fraction:
    """FCAENet eq. 18 for one ranking, n being the relevant items, or `top` if that is less."""
    correct, total = 0, Fraction(0)
    for j, hit in enumerate(relevant[:top], start=1):
        correct += hit
        total += Fraction(correct, j) * hit
    return total / min(sum(relevant), top)


def mean_over_all_orders(row: list[int], relevant: list[bool], top: int) -> Fraction:
    """By enumeration: every order of every group of equal distances, all equally likely."""
    groups = [
        [hit for d, hit in zip(row, relevant, strict=True) if d == wanted]
        for wanted in sorted(set(row))
    ]
    orders = itertools.product(*(itertools.permutations(group) for group in groups))
    values = [
        printed_average_precision([hit for group in order for hit in group], top)
        for order in orders
    ]
    return sum(values) / len(values)


def mean_over_places(row: list[int], relevant: list[bool], top: int) -> Fraction:
    """The same for groups too large to enumerate: place by place, the chance of a hit times the
    precision expected with it."""
    total, before, correct = Fraction(0), 0, 0
    for wanted in sorted(set(row)):
        group = [hit for d, hit in zip(row, relevant, strict=True) if d == wanted]
        size, hits = len(group), sum(group)
        for i in range(min(size, top - before) if hits else 0):
            others = Fraction(i * (hits - 1), size - 1) if i else 0
            total += Fraction(hits, size) * (correct + others + 1) / (before + i + 1)
        before, correct = before + size, correct + hits
    return total / min(sum(relevant), top)


def by_definition(sides, rule, top=None) -> list[float]:
    query, labels, gallery, others = sides
    values = []
    for row, label in zip(distances(query, gallery), labels.tolist(), strict=True):
        relevant = [other == label for other in others.tolist()]
        values.append(
            float(rule(row, relevant, top or len(relevant))) if any(relevant) else math.nan
        )
    return values


def in_gallery_order(row, relevant, top):
    return printed_average_precision(
        [relevant[i] for i in sorted(range(len(row)), key=lambda i: (row[i], i))], top
    )


@pytest.mark.parametrize("top", [None, 1, 2, 3, 4, 5, 6, 7, 9])
def test_expected_is_the_mean_over_all_orders(top):
    for seed in range(8):
        sides = random_sides(seed, bits=1 + seed % 3)
        expected = by_definition(sides, mean_over_all_orders, top)
        assert average_precision(*sides, top=top).tolist() == pytest.approx(
            expected, abs=1e-13, nan_ok=True
        )


@pytest.mark.parametrize(
    "items, bits, top",
    [(40, 1, None), (200, 6, None), (200, 6, 35), (300, 16, 77), (90, 300, None)],
)
def test_expected_in_larger_galleries(items, bits, top):
    """Above and below the size from which two queries are counted at once."""
    for queries in (1, 8, 11):
        sides = random_sides(queries, queries, items, bits, classes=5)
        expected = by_definition(sides, mean_over_places, top)
        assert average_precision(*sides, top=top).tolist() == pytest.approx(
            expected, abs=1e-12, nan_ok=True
        )


@pytest.mark.parametrize("bits", [2, 7, 300])
@pytest.mark.parametrize("top", [None, 1, 10, 1000])
def test_stable_is_the_printed_formula_in_gallery_order(bits, top):
    sides = random_sides(bits, queries=20, items=80, bits=bits, classes=6)
    sides[0][0], sides[1][0] = -sides[2][5], sides[3][5]  # as far away as can be
    expected = by_definition(sides, in_gallery_order, top)
    assert average_precision(*sides, ties="stable", top=top).tolist() == pytest.approx(
        expected, abs=1e-13, nan_ok=True
    )


def staircase(bits: int, seed: int = 0):
    """One query and a gallery with a single item at each distance 0 .. bits, in random order."""
    order = torch.randperm(bits + 1, generator=torch.Generator().manual_seed(seed))
    gallery = torch.where(torch.arange(bits) < order[:, None], -1.0, 1.0)
    return torch.ones(1, bits), gallery, order


def test_without_ties_it_is_scikit_learns_average_precision():
    from sklearn.metrics import average_precision_score

    query, gallery, distance = staircase(64)
    labels = torch.arange(65) % 3
    theirs = average_precision_score((labels == 1).numpy(), -distance.numpy())
    for ties in ("expected", "stable"):
        assert mean_average_precision(query, [1], gallery, labels, ties=ties) == pytest.approx(
            theirs, abs=1e-14
        )


def test_a_perfect_ranking_scores_exactly_one():
    query, gallery, distance = staircase(40)
    labels = (distance > 12).long()
    assert average_precision(query, [0], gallery, labels).item() == 1.0
    centres = torch.tensor([[1.0, 1, 1, 1], [-1, -1, -1, -1]])
    codes, labels = centres.repeat_interleave(9, dim=0), torch.arange(2).repeat_interleave(9)
    assert average_precision(codes, labels, codes, labels).tolist() == [1.0] * 18


def test_a_collapsed_code_scores_chance_and_the_order_of_the_gallery_inflates_it():
    classes, size = 10, 6
    labels = torch.arange(classes).repeat_interleave(size)
    codes = torch.ones(classes * size, 12)
    items = classes * size
    chance = (
        sum(
            Fraction(size, items) * (1 + Fraction(i * (size - 1), items - 1)) / (i + 1)
            for i in range(items)
        )
        / size
    )
    expected = mean_average_precision(codes, labels, codes, labels)
    stable = mean_average_precision(codes, labels, codes, labels, ties="stable")
    in_blocks = (
        sum(Fraction(j + 1, block * size + j + 1) for block in range(classes) for j in range(size))
        / items
    )
    assert expected == pytest.approx(float(chance), abs=1e-14)
    assert stable == pytest.approx(float(in_blocks), abs=1e-14) and stable > 1.4 * expected


def test_stable_differs_from_expected_only_through_the_order_of_the_gallery():
    query, labels, gallery, others = random_sides(0, queries=9, items=40, bits=4)
    expected = average_precision(query, labels, gallery, others)
    generator = torch.Generator().manual_seed(0)
    orders = [torch.randperm(40, generator=generator) for _ in range(2000)]
    drawn = torch.stack(
        [
            average_precision(query, labels, gallery[order], others[order], ties="stable")
            for order in orders
        ]
    )
    error = drawn.std(dim=0) / len(orders) ** 0.5
    known = ~expected.isnan()
    assert (
        known.sum() >= 3
        and error[known].min() > 0
        and ((drawn.mean(dim=0) - expected).abs() < 4 * error)[known].all()
    )


def test_invariances():
    query, labels, gallery, others = random_sides(5, queries=30, items=100, bits=9)
    expected = average_precision(query, labels, gallery, others, top=20)
    order = torch.randperm(100, generator=torch.Generator().manual_seed(1))
    bits, mirror = (
        torch.randperm(9, generator=torch.Generator().manual_seed(2)),
        torch.tensor([1, -1, -1, 1, -1, 1, 1, 1, -1]),
    )
    for same in (
        (query, labels, gallery[order], others[order]),
        (query[:, bits], labels, gallery[:, bits], others),
        (-query, labels, -gallery, others),
        (query * mirror, labels, gallery * mirror, others),
        (query, 7 - 10**12 * labels, gallery, 7 - 10**12 * others),
    ):
        assert torch.equal(average_precision(*same, top=20).nan_to_num(-1), expected.nan_to_num(-1))
    back = average_precision(query.flip(0), labels.flip(0), gallery, others, top=20).flip(0)
    assert torch.equal(back.nan_to_num(-1), expected.nan_to_num(-1))


def test_chunks_do_not_matter(monkeypatch):
    sides = random_sides(9, queries=41, items=150, bits=10, classes=8)

    def everything():
        parts = (
            average_precision(*sides),
            average_precision(*sides, ties="stable"),
            *precision_recall_by_radius(*sides),
        )
        return torch.cat(parts).nan_to_num(-1)

    expected = everything()
    for chunk, block in ((1, 1), (100, 7), (2**20, 149)):
        monkeypatch.setattr(hamming, "CHUNK", chunk)
        monkeypatch.setattr(hamming, "GALLERY_BLOCK", block)
        assert torch.equal(everything(), expected)


def test_memory_does_not_grow_with_queries_times_gallery():
    queries, items = 2_000, 40_000
    sides = random_sides(0, queries, items, bits=24, classes=50)
    for ties in ("expected", "stable"):
        tracemalloc.start()
        average_precision(*sides, ties=ties)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < queries * items * 0.6  # bytes; a single byte for each pair would be more


def test_queries_with_nothing_relevant_are_left_out():
    codes = torch.tensor([[1.0, 1], [1, -1], [-1, -1]])
    sides = codes, [0, 5, 1], codes, [0, 1, 1]
    precision = average_precision(*sides)
    assert precision.isnan().tolist() == [False, True, False] and precision.dtype == torch.float64
    assert mean_average_precision(*sides) == precision[[0, 2]].mean()
    assert precision_recall_by_radius(*sides)[1].tolist() == pytest.approx([(1 + 0.5) / 2, 1, 1])
    for score in (mean_average_precision, precision_recall_by_radius, lookup):
        with pytest.raises(
            ValueError, match="no query has an item of its own label in the gallery"
        ):
            score(codes, [7, 8, 9], codes, [0, 1, 1])


@pytest.mark.parametrize("bits, items", [(3, 12), (5, 60), (40, 50)])
def test_precision_and_recall_by_radius(bits, items):
    sides = query, labels, gallery, others = random_sides(bits, queries=15, items=items, bits=bits)
    precision, recall = precision_recall_by_radius(*sides)
    assert precision.shape == recall.shape == (bits + 1,) and recall[-1] == 1
    table = distances(query, gallery)
    for radius in range(bits + 1):
        precisions, recalls, empty = [], [], []
        for row, label in zip(table, labels.tolist(), strict=True):
            relevant = [other == label for other in others.tolist()]
            if any(relevant):
                within = [hit for d, hit in zip(row, relevant, strict=True) if d <= radius]
                precisions.append(sum(within) / len(within) if within else 0)
                recalls.append(sum(within) / sum(relevant))
                empty.append(not within)
        expected = [sum(column) / len(column) for column in (precisions, recalls, empty)]
        assert [precision[radius].item(), recall[radius].item()] == pytest.approx(expected[:2])
        assert lookup(*sides, radius=radius) == pytest.approx(expected)
        assert radius != 2 or lookup(*sides) == pytest.approx(expected)
    assert bits < 40 or lookup(*sides).empty == 1


def test_takes_what_it_is_given():
    sides = query, labels, gallery, others = random_sides(3, queries=10, items=70, bits=6)
    for ties in ("expected", "stable"):
        expected = mean_average_precision(*sides, ties=ties)
        for kind in (torch.float64, torch.bfloat16, torch.half, torch.int8, torch.int64):
            assert (
                mean_average_precision(
                    query.to(kind), labels.int(), gallery.to(kind), others, ties=ties
                )
                == expected
            )
        for change in (
            torch.Tensor.numpy,
            torch.Tensor.tolist,
            lambda side: side.repeat_interleave(2, dim=-1)[..., ::2],
        ):
            assert mean_average_precision(*map(change, sides), ties=ties) == expected
        assert (
            mean_average_precision(query.requires_grad_(), labels, gallery, others, ties=ties)
            == expected
        )
        query.requires_grad_(False)
        torch.set_float32_matmul_precision("medium")
        try:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                assert mean_average_precision(*sides, ties=ties) == expected
        finally:
            torch.set_float32_matmul_precision("highest")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_takes_codes_from_a_gpu():
    sides = random_sides(3, queries=10, items=70, bits=6)
    assert mean_average_precision(*(side.cuda() for side in sides)) == mean_average_precision(
        *sides
    )


@pytest.mark.parametrize("k", [1, 10, 10**6])
@pytest.mark.parametrize("bits, items, top", [(3, 12, None), (12, 300, 5), (48, 90, None)])
def test_results_hold_the_nearest_with_equal_distances_in_random_order(bits, items, top, k):
    sides = query, labels, gallery, others = random_sides(bits, 20, items, bits, classes=4)
    for seed in (0, 3):
        results = retrieve(*sides, k=k, seed=seed, top=top)
        order = torch.randperm(items, generator=seeded(seed, 9)).tolist()  # of equal ones
        for row, line in enumerate(distances(query, gallery)):
            nearest = sorted(order, key=lambda item, line=line: line[item])[:k]
            assert results.index[row].tolist() == nearest
            assert results.scores[row].tolist() == [line[item] for item in nearest]
            right = [other == labels[row] for other in others[nearest].tolist()]
            assert results.correct[row].tolist() == right
        assert results.scores.dtype == torch.int64 and results.index.shape == (20, min(k, items))
        assert results.map_at_r() == mean_average_precision(*sides, top=top)
        precision = average_precision(*sides, top=top)
        assert torch.equal(results.average_precision.nan_to_num(-1), precision.nan_to_num(-1))
        assert results.unanswerable == int(precision.isnan().sum()) > 0
        assert torch.equal(results.hits(1).isnan(), precision.isnan())
        assert torch.equal(results.query_labels, labels)
        assert torch.equal(results.gallery_labels, others)
    assert results.score.startswith("Hamming distance") and not results.leave_one_out
    if k == 10 and items > 10:
        with pytest.raises(ValueError, match="search again with k=11"):
            results.recall(11)


def test_the_seed_decides_the_order_of_equal_distances():
    codes, labels = torch.ones(40, 8), torch.arange(40) // 10  # collapsed, sorted by class
    first, again, other = (retrieve(codes, labels, codes, labels, seed=s).index for s in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert len(labels[first[0]].unique()) > 1  # not one class in a row


def codes(size: int, bits: int = 4, **values):
    made = torch.ones(size, bits)
    for place, value in values.items():
        made[int(place[1:]), 2] = value
    return made


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda score: score(codes(2, r1=0.25), [0, 0], codes(3), [0] * 3),
            "query_codes .* 0.25 at row 1, bit 2: .*to_codes",
        ),
        (
            lambda score: score(codes(2), [0, 0], codes(3, r2=0), [0] * 3),
            "gallery_codes must hold only .*, found 0 at row 2",
        ),
        (
            lambda score: score(codes(2) < 0, [0, 0], codes(3), [0] * 3),
            "query_codes must hold only",
        ),
        (
            lambda score: score(codes(2, r0=math.nan), [0, 0], codes(3), [0] * 3),
            "found nan at row 0, bit 2: the network has",
        ),
        (lambda score: score(codes(2, r0=math.inf), [0, 0], codes(3), [0] * 3), "found inf"),
        (
            lambda score: score(codes(2), [0, 0], codes(3, 5), [0] * 3),
            "query codes have 4 bits, gallery codes 5: they",
        ),
        (
            lambda score: score(codes(2), [0], codes(3), [0] * 3),
            r"query_labels must have shape \(2,\)",
        ),
        (
            lambda score: score(codes(2), [0, 0], codes(3), [0] * 4),
            r"gallery_labels must have shape \(3,\)",
        ),
        (
            lambda score: score(codes(2), [0, 0], codes(0), []),
            r"gallery_codes must be a non-empty \(N, k\) matrix .* \(0, 4\)",
        ),
        (lambda score: score(codes(0), [], codes(3), [0] * 3), "query_codes must be a non-empty"),
        (lambda score: score(codes(2, 0), [0, 0], codes(3, 0), [0] * 3), "non-empty"),
        (lambda score: score(codes(2)[0], [0, 0], codes(3), [0] * 3), "non-empty"),
        (lambda score: score(codes(2), [0, 0], codes(3), None), "gallery_labels is missing"),
        (
            lambda score: score(codes(2), [0, 0], codes(3), [0, None, 1]),
            "gallery_labels must be integers, got object: leave out",
        ),
        (
            lambda score: score(codes(2), np.array([0, np.nan]), codes(3), [0] * 3),
            "query_labels must be integers, got float64",
        ),
    ],
)
@pytest.mark.parametrize(
    "score",
    [average_precision, mean_average_precision, precision_recall_by_radius, lookup, retrieve],
)
def test_bad_input(score, call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call(score)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "score, options, message",
    [
        (
            mean_average_precision,
            {"ties": "random"},
            "ties is 'random': it must be one of expected, stable",
        ),
        (mean_average_precision, {"top": 0}, "top is 0: .* at least 1, or None"),
        (mean_average_precision, {"top": -1}, "top is -1"),
        (mean_average_precision, {"top": 2.5}, "top is 2.5: it must be a whole number"),
        (lookup, {"radius": 5}, "radius is 5: it must be 0 to the code length 4"),
        (lookup, {"radius": -1}, "radius is -1"),
        (retrieve, {"k": 0}, "k is 0: it must be at least 1"),
        (retrieve, {"top": 0}, "top is 0: .* at least 1, or None"),
    ],
)
def test_bad_options(score, options, message):
    with pytest.raises(ValueError, match=message):
        score(codes(2), [0, 0], codes(3), [0, 1, 2], **options)
