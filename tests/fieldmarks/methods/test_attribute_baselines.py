import math

import pytest
import torch

from fieldmarks.methods.attribute_baselines import (
    AttributeSimilarityHead,
    MultitaskHead,
    PlainSimilarity,
)

NAN = math.nan


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def linear(layer, x):
    return [
        sum(w * v for w, v in zip(row, x, strict=True)) + bias
        for row, bias in zip(layer.weight.tolist(), layer.bias.tolist(), strict=True)
    ]


def difference(x, y):
    return [abs(u - v) for u, v in zip(x, y, strict=True)]


def naive_scores(head, a, b):
    pairs = zip(a.tolist(), b.tolist(), strict=True)
    if isinstance(head, AttributeSimilarityHead):

        def predicted(x):
            return [sigmoid(z) for z in linear(head.classifier, x)]

        return [
            sigmoid(linear(head.similarity.similarity, difference(predicted(x), predicted(y)))[0])
            for x, y in pairs
        ]
    return [sigmoid(linear(head.similarity, difference(x, y))[0]) for x, y in pairs]


def bce(p, target):
    return -(target * math.log(p) + (1 - target) * math.log(1 - p))


def data(attributes=3):
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 6, 5, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 3, (2, 6, attributes), generator=generator).double()
    return a, b, torch.arange(6) % 2, *torch.where(labels == 2, NAN, labels)


HEADS = {
    "plain": lambda: PlainSimilarity(5),
    "multitask": lambda: MultitaskHead(5, 3, attribute_weight=0.7),
    "attributes": lambda: AttributeSimilarityHead(5, 3, attribute_weight=0.7),
}


@pytest.mark.parametrize("name", HEADS)
def test_scores_and_losses_equal_their_formulas(name):
    torch.manual_seed(0)
    head = HEADS[name]().double()
    a, b, same, labels_a, labels_b = data()
    expected = naive_scores(head, a, b)
    assert head.score(a, b).tolist() == pytest.approx(expected) and torch.equal(
        head.score(a, b), head.score(b, a)
    )
    assert head.score(a[:, None], b[None]).shape == (6, 6)
    terms = head.losses(a, b, same, labels_a, labels_b)
    assert terms["similarity"].item() == pytest.approx(sum(map(bce, expected, same.tolist())) / 6)
    if name != "plain":
        total = 0.0
        for x, labels in zip(
            [*a.tolist(), *b.tolist()], [*labels_a.tolist(), *labels_b.tolist()], strict=True
        ):
            each = [
                bce(sigmoid(z), t)
                for z, t in zip(linear(head.classifier, x), labels, strict=True)
                if not math.isnan(t)
            ]
            total += sum(each) / max(len(each), 1)
        assert terms["attributes"].item() == pytest.approx(0.7 * total / 12)
    sum(terms.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())


def test_attribute_similarity_sees_nothing_but_attributes():
    head = AttributeSimilarityHead(5, 2)
    with torch.no_grad():
        head.classifier.weight[:, 3:] = 0
    a, b = torch.randn(2, 4, 5)
    other = b.clone()
    other[:, 3:] += 1
    assert torch.equal(head.score(a, b), head.score(a, other))


@pytest.mark.parametrize("kind", [MultitaskHead, AttributeSimilarityHead])
def test_labels_must_fit(kind):
    x = torch.ones(2, 5)
    with pytest.raises(ValueError, match="attributes_b is missing: 3 attributes"):
        kind(5, 3).losses(x, x, torch.ones(2), torch.ones(2, 3), None)
    with pytest.raises(
        ValueError, match=r"attributes_a must hold 3 attributes of each image, got shape \(2, 4\)"
    ):
        kind(5, 3).losses(x, x, torch.ones(2), torch.ones(2, 4), torch.ones(2, 3))
