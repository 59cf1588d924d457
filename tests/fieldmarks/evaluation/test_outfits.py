import math

import pytest
import torch

from fieldmarks.evaluation.outfits import (
    area_under_curve,
    areas_under_curves,
    choice_scores,
    fill_in_blank_hits,
    mean_area_under_curves,
    outfit_scores,
)


def fill_in_blank_accuracy(questions, choices, answers, score, batch=10**6):
    hits = fill_in_blank_hits(choice_scores(questions, choices, score, batch), answers)
    return hits.mean().item()


def naive_area(scores, labels):
    """Every positive against every negative."""
    wins = [
        1.0 if p > n else 0.5 if p == n else 0.0
        for p, is_positive in zip(scores, labels, strict=True)
        if is_positive
        for n, other in zip(scores, labels, strict=True)
        if not other
    ]
    return sum(wins) / len(wins)


def random_scores(items=40, seed=0, values=None):
    """A table of similarities, not symmetric, so that the order of arguments shows."""
    generator = torch.Generator().manual_seed(seed)
    if values:
        return torch.randint(0, values, (items, items), generator=generator) / values
    return torch.rand(items, items, generator=generator)


def random_outfits(count, items=40, longest=9, seed=0):
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(2, longest + 1, (count,), generator=generator).tolist()
    return [torch.randint(0, items, (length,), generator=generator).tolist() for length in lengths]


def test_areas_of_columns_are_those_of_their_known_rows():
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(30, 5, generator=generator)
    labels = torch.randint(0, 2, (30, 5), generator=generator).float()
    labels[:7, 1], labels[3:, 2], labels[:, 3], labels[:, 4] = math.nan, math.nan, 1.0, math.nan
    labels[:3, 2] = torch.tensor([1.0, 0.0, 1.0])
    areas = areas_under_curves(scores, labels)
    assert areas[3:].isnan().all()
    expected = []
    for column in range(3):
        known = ~labels[:, column].isnan()
        expected.append(naive_area(scores[known, column].tolist(), labels[known, column].tolist()))
    assert areas[:3].tolist() == pytest.approx(expected)
    assert mean_area_under_curves(scores, labels) == pytest.approx(sum(expected) / 3)
    with pytest.raises(ValueError, match="no column has positives and negatives"):
        mean_area_under_curves(scores[:, 3:], labels[:, 3:])


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("values", [2, 5, 10**6])
def test_area_equals_the_double_loop_and_sklearn(seed, values):
    from sklearn.metrics import roc_auc_score

    generator = torch.Generator().manual_seed(seed)
    scores = torch.randint(0, values, (80,), generator=generator) / 7
    labels = torch.randint(0, 2, (80,), generator=generator)
    expected = naive_area(scores.tolist(), labels.tolist())
    assert area_under_curve(scores, labels) == pytest.approx(expected, abs=1e-12)
    assert roc_auc_score(labels, scores) == pytest.approx(expected)
    order = torch.randperm(80, generator=generator)
    assert area_under_curve(scores[order].tolist(), labels[order].numpy()) == area_under_curve(
        scores, labels.bool()
    )
    assert area_under_curve(-scores, labels) == pytest.approx(1 - expected)


def test_area_at_its_ends():
    assert (
        area_under_curve([0.1, 0.2, 0.3], [0, 1, 1]) == 1
        and area_under_curve([0.5] * 5, [1, 0, 0, 1, 0]) == 0.5
    )
    assert area_under_curve([math.inf, -math.inf], [1, 0]) == 1
    size = 200_000  # squares beyond 32 bits
    assert area_under_curve(torch.arange(size), torch.arange(size) >= size // 2) == 1


@pytest.mark.parametrize("batch", [1, 7, 10**6])
def test_outfit_scores_are_means_over_all_pairs(batch):
    table, outfits = random_scores(), random_outfits(60)
    actual = outfit_scores(outfits, lambda i, j: table[i, j], batch)
    assert actual.shape == (60,) and actual.dtype == torch.float64
    for outfit, score in zip(outfits, actual.tolist(), strict=True):
        pairs = [
            table[outfit[i], outfit[j]].item()
            for i in range(len(outfit))
            for j in range(i + 1, len(outfit))
        ]
        assert score == pytest.approx(sum(pairs) / len(pairs), abs=1e-6)
    tensors = [torch.tensor(outfit) for outfit in outfits]
    assert torch.equal(actual, outfit_scores(tensors, lambda i, j: table[i, j].double(), batch))


def test_every_distinct_pair_is_scored_once_in_batches():
    scored = []

    def score(i, j):
        assert len(i) <= 10 and i.dtype == j.dtype == torch.int64
        scored.extend(zip(i.tolist(), j.tolist(), strict=True))
        return torch.ones(len(i))

    outfits = random_outfits(50, items=9)
    assert outfit_scores(outfits, score, batch=10).eq(1).all()
    wanted = {(o[i], o[j]) for o in outfits for i in range(len(o)) for j in range(i + 1, len(o))}
    assert len(scored) == len(set(scored)) and set(scored) == wanted


def naive_blanks(questions, choices, answers, table):
    """Mean over the outfit, and a fair die among the best."""
    total = 0.0
    for question, offered, answer in zip(questions, choices, answers, strict=True):
        scores = [
            sum(table[i, c].double().item() for i in question) / len(question) for c in offered
        ]
        best = [place for place, score in enumerate(scores) if score == max(scores)]
        total += (answer in best) / len(best)
    return total / len(questions)


@pytest.mark.parametrize("values", [2, 8, None])  # many ties, some, none
def test_filling_blanks_equals_its_definition(values):
    table, questions = random_scores(values=values), random_outfits(80, longest=4, seed=1)
    generator = torch.Generator().manual_seed(2)
    choices = torch.randint(0, 40, (80, 4), generator=generator)
    answers = torch.randint(0, 4, (80,), generator=generator)
    expected = naive_blanks(questions, choices.tolist(), answers.tolist(), table)
    for batch in (3, 10**6):
        actual = fill_in_blank_accuracy(
            questions, choices, answers, lambda i, j: table[i, j], batch
        )
        assert actual == pytest.approx(expected)
    order = torch.stack([torch.randperm(4, generator=generator) for _ in range(80)])
    moved = order.eq(answers[:, None]).int().argmax(1)
    again = fill_in_blank_accuracy(
        questions, choices.gather(1, order).tolist(), moved.tolist(), lambda i, j: table[i, j]
    )
    assert again == pytest.approx(expected)  # the right choice may stand anywhere


def test_choice_scores_put_the_outfits_item_first():
    table = random_scores()
    scores = choice_scores([[3, 4], [5]], [[1, 2, 3]] * 2, lambda i, j: table[i, j])
    torch.testing.assert_close(scores[0], table[[3, 4]][:, [1, 2, 3]].double().mean(0))
    torch.testing.assert_close(scores[1], table[5, [1, 2, 3]].double())


def test_ties_earn_their_chance_wherever_the_answer_stands():
    for answer in range(10):
        answers = [answer] * 5
        accuracy = fill_in_blank_accuracy(
            [[0, 1]] * 5, [list(range(10))] * 5, answers, lambda i, j: torch.zeros(len(i))
        )
        assert accuracy == pytest.approx(0.1)
    scores = torch.tensor([[3.0, 3, 1, 0]] * 4)
    assert fill_in_blank_hits(scores, [0, 1, 2, 3]).tolist() == [0.5, 0.5, 0, 0]
    # the same item offered twice ties with itself, whatever rounding the scorer's batches bring
    features = torch.randn(40, 300, generator=torch.Generator().manual_seed(0))
    twice = choice_scores(
        [[1, 2, 3]], [[7, 8, 7, 9]], lambda i, j: (features[i] * features[j]).sum(-1), batch=2
    )
    assert twice[0, 0] == twice[0, 2]


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda: outfit_scores([[1, 2], [3]], None),
            r"outfit 1 must be a row of 2 or more item numbers, got \[3\]",
        ),
        (lambda: outfit_scores([], None), "there is no outfit"),
        (lambda: outfit_scores([[1.5, 2]], None), "item numbers, got"),
        (lambda: outfit_scores([[-1, 2]], None), "item numbers count from 0, got -1"),
        (
            lambda: outfit_scores([[1, 2]], lambda i, j: torch.full((1,), math.nan)),
            "1 of 1 pairs score NaN, first items 1 and 2",
        ),
        (
            lambda: outfit_scores([[1, 2]], lambda i, j: torch.ones(1, 1)),
            r"one number for each of 1 pairs, got shape \(1, 1\)",
        ),
        (lambda: choice_scores([[]], [[1]], None), "question 0 must be a row of 1 or more"),
        (lambda: choice_scores([[1], [2]], [[1]], None), "2 questions and 1 lists of choices"),
        (lambda: choice_scores([[1], [2]], [[1], [1, 2]], None), r"as many choices, got \[1, 2\]"),
        (
            lambda: fill_in_blank_hits(torch.ones(2, 4), [0, 4]),
            "answers must lie between 0 and 3, got 0 to 4",
        ),
        (
            lambda: fill_in_blank_hits(torch.ones(2, 4), [0]),
            r"need answers \(Q,\), got shapes \(2, 4\) and \(1,\)",
        ),
        (
            lambda: fill_in_blank_hits(torch.tensor([[1.0, 2], [math.nan, 1]]), [0, 0]),
            "scores hold NaN, first at question 1",
        ),
        (lambda: area_under_curve([1.0, math.nan], [0, 1]), "1 of 2 scores are NaN, first at 1"),
        (
            lambda: area_under_curve([1.0, 2.0], [1, 1]),
            "needs both kinds, got 2 positives and 0 negatives",
        ),
        (lambda: area_under_curve([1.0, 2.0], [1, -1]), r"labels must be 1 \(positive\) or 0"),
        (lambda: area_under_curve([1.0, 2.0], [1]), r"must both be \(N,\), got \(2,\) and \(1,\)"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
