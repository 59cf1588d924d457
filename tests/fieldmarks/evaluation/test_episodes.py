import math
from collections import Counter

import pytest
import torch
import torch.nn.functional as F

from fieldmarks.evaluation.episodes import (
    cosine_classifier_scores,
    cosine_scores,
    episode_accuracies,
    mean_pair_score,
    prototype_scores,
    sample_episodes,
)
from fieldmarks.evaluation.statistics import seed_interval


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


LABELS = torch.tensor([7, 3, 3, 9, 7, 1, 1] * 6)  # 12 images of 1, 3 and 7, 6 of 9


def drawn(ways=3, shots=2, queries=4, episodes=50, seed=0):
    return sample_episodes(LABELS, ways, shots, queries, episodes, seeded(seed))


def test_episodes_are_what_they_say():
    episodes = drawn()
    assert episodes.support.shape == (50, 3, 2) and episodes.query.shape == (50, 3, 4)
    for support, query in zip(*episodes, strict=True):
        rows = [
            {LABELS[i].item() for i in s.tolist() + q.tolist()}
            for s, q in zip(support, query, strict=True)
        ]
        assert (
            all(len(row) == 1 for row in rows) and len(set.union(*rows)) == 3
        )  # one class a row, another each row
        images = support.flatten().tolist() + query.flatten().tolist()
        assert len(set(images)) == len(images) == 18  # no support among the queries, no image twice
    again = drawn()
    assert torch.equal(again.support, episodes.support) and torch.equal(again.query, episodes.query)
    assert not torch.equal(drawn(seed=1).support, episodes.support)


def test_every_class_and_image_is_as_likely_in_every_place():
    episodes = drawn(ways=2, shots=1, queries=1, episodes=4000)
    classes = Counter(LABELS[episodes.support[:, 0, 0]].tolist())
    assert len(classes) == 4 and all(abs(count - 1000) < 120 for count in classes.values())
    for part in episodes:
        images = Counter(part.flatten().tolist())
        assert all(
            abs(images[i] - 4000 * 2 / 4 / int((LABELS == LABELS[i]).sum())) < 90
            for i in range(len(LABELS))
        )


def naive_accuracy(features, support, query, class_score):
    right = []
    for own, images in enumerate(query.tolist()):
        for image in images:
            scores = [
                class_score(features[image], [features[i] for i in row]) for row in support.tolist()
            ]
            right.append(scores.index(max(scores)) == own)
    return sum(right) / len(right)


def by_prototype(query, supports):
    mean = [sum(values) / len(supports) for values in zip(*supports, strict=True)]
    return -sum((x - m) ** 2 for x, m in zip(query, mean, strict=True))


def by_cosine(query, supports):
    def cosine(a, b):
        return sum(x * y for x, y in zip(a, b, strict=True)) / math.sqrt(
            sum(x * x for x in a) * sum(y * y for y in b)
        )

    return sum(cosine(query, support) for support in supports) / len(supports)


def by_pairs(query, supports):
    return sum(
        -max(abs(x - y) for x, y in zip(query, support, strict=True)) for support in supports
    ) / len(supports)


@pytest.mark.parametrize(
    "class_scores, naive",
    [
        (prototype_scores, by_prototype),
        (cosine_scores, by_cosine),
        (mean_pair_score(lambda a, b: -(a - b).abs().amax(-1)), by_pairs),
    ],
)
def test_accuracies_equal_their_definition(class_scores, naive):
    features = torch.randn(len(LABELS), 5, generator=seeded()).double() + LABELS[:, None] / 6
    episodes = drawn(episodes=12)
    actual = episode_accuracies(features, episodes, class_scores)
    expected = [
        naive_accuracy(features.tolist(), s, q, naive) for s, q in zip(*episodes, strict=True)
    ]
    assert actual.tolist() == pytest.approx(expected) and 0.4 < actual.mean() < 1


def test_pan_scores_of_an_episode():
    """Mean over supports of p(query, support), with the head's own broadcasting."""
    from fieldmarks.methods.pan import ConceptSimilarity

    torch.manual_seed(0)
    head, features = ConceptSimilarity(6, 9), torch.randn(len(LABELS), 6)
    with torch.no_grad():
        support, query = features[:6].view(3, 2, 6), features[6:10]
        scores = mean_pair_score(head.score)(query, support)
        for q in range(4):
            for w in range(3):
                expected = sum(head(query[q], support[w, s])[0].item() for s in range(2)) / 2
                assert scores[q, w].item() == pytest.approx(expected, abs=1e-6)
    assert episode_accuracies(features, drawn(episodes=3), mean_pair_score(head.score)).shape == (
        3,
    )


@pytest.mark.parametrize("shots", [1, 5])
def test_a_cosine_classifier_is_trained_as_torch_would_train_it(shots):
    """Baseline++ by torch's own gradients and optimiser, in all d dimensions."""
    support = torch.randn(3, shots, 40, generator=seeded(1)).double()
    query = torch.randn(6, 40, generator=seeded(2)).double()
    images, truth = F.normalize(support.flatten(0, 1)), torch.arange(3).repeat_interleave(shots)
    rows = F.normalize(support.mean(1)).requires_grad_()
    optimizer = torch.optim.SGD([rows], 0.01, momentum=0.9, dampening=0.9, weight_decay=0.001)
    for _ in range(100):
        optimizer.zero_grad()
        F.cross_entropy(2 * images @ F.normalize(rows).T, truth).backward()
        optimizer.step()
    expected = F.normalize(query) @ F.normalize(rows).T
    torch.testing.assert_close(cosine_classifier_scores(query, support), expected.detach())


def test_a_perfect_and_a_blind_classifier():
    assert episode_accuracies(LABELS[:, None].float(), drawn(), prototype_scores).eq(1).all()
    blind = episode_accuracies(torch.ones(len(LABELS), 2), drawn(), prototype_scores)
    assert blind.tolist() == pytest.approx([1 / 3] * 50)  # ties give chance, not 100 %


def test_the_interval_over_600_episodes_is_the_official_one():
    accuracies = torch.rand(600, generator=seeded()).double()
    mean, low, high = seed_interval(accuracies)
    half = 1.96 * accuracies.std().item() / math.sqrt(600)
    assert mean == pytest.approx(accuracies.mean().item())
    assert (mean - low, high - mean) == pytest.approx((half, half), rel=0.003)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: drawn(ways=5), "an episode of 5 classes cannot be drawn from 4"),
        (
            lambda: drawn(shots=3),
            r"1 of 4 classes have fewer than 7 images \(3 shots \+ 4 queries\): class 9 has 6",
        ),
        (lambda: drawn(shots=0), "shots is 0: it must be at least 1"),
        (lambda: drawn(episodes=0), "episodes is 0: it must be at least 1"),
        (
            lambda: episode_accuracies(
                torch.full((len(LABELS), 2), math.nan), drawn(), prototype_scores
            ),
            "episode 0 hold NaN",
        ),
        (
            lambda: episode_accuracies(torch.ones(len(LABELS), 2), drawn(), lambda q, s: q),
            r"must be \(12, 3\), got \(12, 2\)",
        ),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
