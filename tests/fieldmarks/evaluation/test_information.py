"""Against sums over every outcome, written from the definition of mutual information."""

import math

import pytest
import torch

from fieldmarks.evaluation.information import attribute_information, entropy, told_by_each


def mutual_information(joint):
    """sum p(x, y) log p(x, y) / p(x) p(y), of a table {(x, y): p}."""
    x, y = {}, {}
    for (a, b), p in joint.items():
        x[a], y[b] = x.get(a, 0) + p, y.get(b, 0) + p
    return sum(p * math.log(p / x[a] / y[b]) for (a, b), p in joint.items() if p > 0)


@pytest.fixture
def responses():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(12, 3, 5, generator=generator).mul(2).softmax(-1)


LABELS = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 2, 7, 7, 7])


def test_against_the_definition(responses):
    attributes = torch.tensor([[i % 2, i % 3 == 0, 0.25 * (i % 5), 1.0] for i in range(12)])
    attributes[3, 0] = attributes[4, 2] = torch.nan
    found = attribute_information(responses, LABELS, attributes)
    views, classes = {}, {}
    entropies = []
    for n in range(12):
        for m in range(3):
            p = responses[n, m].tolist()
            entropies.append(-sum(q * math.log(q) for q in p))
            for k, q in enumerate(p):
                views[(n, m), k] = q / 36
                key = LABELS[n].item(), k
                classes[key] = classes.get(key, 0) + q / 36
    assert found["entropy"] == pytest.approx(sum(entropies) / 36)
    assert found["view"] == pytest.approx(mutual_information(views))
    assert found["class"] == pytest.approx(mutual_information(classes))
    wanted = []
    for column in range(3):  # the fourth never varies
        known = [n for n in range(12) if not math.isnan(attributes[n, column])]
        joint = {}
        for n in known:
            value = attributes[n, column].item()
            for present, weight in ((1, value), (0, 1 - value)):
                for k, q in enumerate(responses[n].mean(0).tolist()):
                    joint[present, k] = joint.get((present, k), 0) + weight * q / len(known)
        wanted.append(mutual_information(joint))
    assert found["annotated"] == pytest.approx(sum(wanted) / 3, rel=1e-4)


def test_uniform_attributes_tell_nothing_and_sharp_ones_all():
    labels = torch.arange(4).repeat_interleave(5)
    found = attribute_information(torch.full((20, 2, 8), 1 / 8), labels)
    assert found["entropy"] == pytest.approx(math.log(8)) and found["class"] == pytest.approx(0)
    sharp = torch.nn.functional.one_hot(labels, 4)[:, None].float()
    found = attribute_information(sharp, labels)
    assert found["entropy"] == pytest.approx(0) and found["class"] == pytest.approx(math.log(4))
    assert found["class by chance"] < 0.5 * math.log(4)


def test_what_few_images_seem_to_tell_is_chance(responses):
    """Labels that have nothing to do with it: as much as with any others."""
    generator = torch.Generator().manual_seed(1)
    many = torch.randn(400, 1, 6, generator=generator).mul(3).softmax(-1)
    found = attribute_information(many, torch.randint(40, (400,), generator=generator))
    assert found["class"] > 0.02
    assert found["class"] == pytest.approx(found["class by chance"], rel=0.2)


def test_repeatable_and_the_order_of_images_does_not_matter(responses):
    found = attribute_information(responses, LABELS)
    assert found == attribute_information(responses, LABELS)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(2))
    other = attribute_information(responses[order], LABELS[order])
    assert other["class"] == pytest.approx(found["class"])
    assert attribute_information(responses, LABELS * 3 + 1) == found


def test_nothing_that_varies():
    rows = torch.full((4, 3), 1 / 3).double()
    assert told_by_each(rows, torch.ones(4, 2).double()).isnan()
    assert told_by_each(rows, torch.full((4, 2), torch.nan).double()).isnan()
    assert entropy(torch.tensor([0.0, 1.0])) == 0


@pytest.mark.parametrize(
    "responses, labels, attributes, says",
    [
        (torch.ones(3, 4), [0, 1, 2], None, r"must be \(N, M, k\), not empty, got \(3, 4\)"),
        (torch.ones(0, 1, 4), [], None, "not empty"),
        (torch.ones(3, 1, 4), [0, 1, 2], None, "must be distributions"),
        (torch.tensor([[[1.5, -0.5]]]), [0], None, "must be distributions"),
        (torch.full((3, 1, 4), torch.nan), [0, 1, 2], None, "must be distributions"),
        (torch.full((3, 1, 4), 0.25), ["a", "b", "c"], None, "text"),
        (torch.full((3, 1, 4), 0.25), [0, 1], None, r"shape \(3,\)"),
        (torch.full((3, 1, 4), 0.25), [0, 1, 2], torch.ones(2, 2), r"must be \(3, A\), got"),
    ],
)
def test_bad_input(responses, labels, attributes, says):
    with pytest.raises(ValueError, match=says) as raised:
        attribute_information(responses, labels, attributes)
    assert "\n" not in str(raised.value)
