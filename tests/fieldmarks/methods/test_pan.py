import math
from decimal import Decimal, getcontext

import pytest
import torch

from fieldmarks.methods.pan import (
    PAN,
    ConceptSimilarity,
    attribute_loss,
    binarise,
    pair_labels,
    relevance_loss,
    similarity_loss,
    with_none_slot,
)

NAN = math.nan


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def naive_pair(head: ConceptSimilarity, a: list[float], b: list[float]):
    """Eq. 1-3, one pair, number by number."""

    def linear(layer):
        return [
            sum(w * abs(x - y) for w, x, y in zip(row, a, b, strict=True)) + bias
            for row, bias in zip(layer.weight.tolist(), layer.bias.tolist(), strict=True)
        ]

    concepts = [sigmoid(z) for z in linear(head.concept)]
    powers = [math.exp(r) for r in linear(head.relevance)]
    relevance = [power / sum(powers) for power in powers]
    return sum(c * r for c, r in zip(concepts, relevance, strict=True)), concepts, relevance


def random_head(dim=6, concepts=4, seed=0):
    torch.manual_seed(seed)
    head = ConceptSimilarity(dim, concepts).double()
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(2 * torch.randn_like(parameter))
    return head


def test_equals_equations_1_to_3():
    head = random_head()
    a, b = torch.randn(2, 5, 6, dtype=torch.float64)
    score, concepts, relevance = head(a, b)
    assert score.shape == (5,) and concepts.shape == relevance.shape == (5, 4)
    for i in range(5):
        expected = naive_pair(head, a[i].tolist(), b[i].tolist())
        assert score[i].item() == pytest.approx(expected[0])
        assert concepts[i].tolist() == pytest.approx(expected[1]) and relevance[
            i
        ].tolist() == pytest.approx(expected[2])


@pytest.mark.parametrize("weight", [0.7, 13.0])
def test_a_cosine_is_added_to_every_concept_and_to_no_relevance(weight):
    plain = random_head()
    torch.manual_seed(0)
    near = ConceptSimilarity(6, 4, cosine_weight=weight, cosine_dim=3).double()
    near.load_state_dict(plain.state_dict())
    a, b = torch.randn(2, 5, 9, dtype=torch.float64)
    for side in (a, b):
        side[:, 6:] /= side[:, 6:].norm(dim=1, keepdim=True)
    score, concepts, relevance = near(a, b)
    for i in range(5):
        x, y = a[i, 6:].tolist(), b[i, 6:].tolist()
        shift = weight * (sum(u * v for u, v in zip(x, y, strict=True)) - 0.5)
        _, without, omega = naive_pair(plain, a[i, :6].tolist(), b[i, :6].tolist())
        expected = [sigmoid(math.log(c / (1 - c)) + shift) for c in without]
        assert concepts[i].tolist() == pytest.approx(expected)
        assert relevance[i].tolist() == pytest.approx(omega)
        total = sum(c * r for c, r in zip(expected, omega, strict=True))
        assert score[i].item() == pytest.approx(total)
    assert torch.equal(near(a, b)[0], near(b, a)[0])
    table = near(a[:, None], b[None])[0]
    torch.testing.assert_close(table.diagonal(), score)


def test_leading_dimensions_broadcast_and_score_is_the_first_output():
    head = random_head()
    query, gallery = torch.randn(3, 6).double(), torch.randn(5, 6).double()
    score = head.score(query[:, None], gallery[None])
    assert score.shape == (3, 5)
    assert score[1, 4].item() == pytest.approx(
        naive_pair(head, query[1].tolist(), gallery[4].tolist())[0]
    )
    assert head(query[0], gallery[0])[0].shape == ()


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_symmetric_to_the_bit_and_within_0_and_1(scale):
    head = ConceptSimilarity(16, 463)
    generator = torch.Generator().manual_seed(0)
    a, b = scale * torch.randn(2, 200, 16, generator=generator)
    with torch.no_grad():
        head.concept.bias.fill_(
            30.0
        )  # every sigmoid rounds to 1: the weighted mean must not exceed it
        outputs = head(a, b)
        assert all(torch.equal(x, y) for x, y in zip(outputs, head(b, a), strict=True))
        assert all(0 <= x.min() and x.max() <= 1 for x in outputs)
        torch.testing.assert_close(outputs[2].sum(-1), torch.ones(200))


def test_starts_as_xavier():
    head = ConceptSimilarity(300, 200)
    for layer in (head.concept, head.relevance):
        bound = math.sqrt(6 / 500)
        assert 0.99 * bound < layer.weight.abs().max() <= bound and layer.bias.eq(0).all()
        assert layer.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.02)


def test_low_precision_features_give_float32_scores():
    head = ConceptSimilarity(16, 8).bfloat16()
    assert all(
        x.dtype == torch.float32
        for x in head(torch.randn(2, 16).bfloat16(), torch.randn(2, 16).bfloat16())
    )


def test_gradients_are_right_also_where_two_images_are_one():
    head = random_head(3, 4)
    a, b = torch.randn(2, 4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, y: head(x, y), (a, b))
    same = a.detach().clone().requires_grad_()
    head.score(same, same.detach()).sum().backward()
    assert same.grad.eq(0).all()


TRUTH = {"and": (0, 0, 0, 1), "or": (0, 1, 1, 1), "xor": (0, 1, 1, 0), "xnor": (1, 0, 0, 1)}


@pytest.mark.parametrize("rule", TRUTH)
def test_pair_labels_follow_the_truth_table_and_keep_what_is_unknown(rule):
    a, b = torch.tensor([0.0, 0, 1, 1]), torch.tensor([0.0, 1, 0, 1])
    assert pair_labels(a, b, rule).tolist() == list(TRUTH[rule])
    for kind in (torch.bool, torch.int64, torch.float64, torch.bfloat16):
        labels = pair_labels(a.to(kind), b.to(kind), rule)
        assert labels.tolist() == list(TRUTH[rule]) and labels.dtype == torch.promote_types(
            kind, torch.float32
        )
    unknown = torch.tensor([NAN, NAN, 0, 1, NAN])
    other = torch.tensor([0, 1, NAN, NAN, NAN])
    assert pair_labels(unknown, other, rule).isnan().all()
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randint(0, 3, (2, 50, 7), generator=generator) / torch.tensor([[1.0]])
    a, b = (torch.where(x == 2, NAN, x) for x in (a, b))
    assert torch.equal(pair_labels(a, b, rule).nan_to_num(9), pair_labels(b, a, rule).nan_to_num(9))
    assert torch.equal(pair_labels(a, b, rule).isnan(), a.isnan() | b.isnan())


def test_binarise_keeps_what_is_unknown():
    fractions = torch.tensor([0.0, 0.49, 0.5, 1.0, NAN])
    assert binarise(fractions).nan_to_num(9).tolist() == [0, 0, 1, 1, 9]
    assert binarise(fractions, 0.4).nan_to_num(9).tolist() == [0, 1, 1, 1, 9]
    assert pair_labels(binarise(fractions), binarise(fractions), "or").nan_to_num(9).tolist() == [
        0,
        0,
        1,
        1,
        9,
    ]


def test_none_slot_is_set_when_a_pair_is_known_to_have_nothing():
    labels = torch.tensor([[0, 0, 0], [0, 1, 0], [0, NAN, 0], [1, NAN, 0], [NAN, NAN, NAN]])
    expected = torch.tensor([1, 0, NAN, 0, NAN])
    result = with_none_slot(labels)
    assert torch.equal(result[:, 3].nan_to_num(9), expected.nan_to_num(9))
    assert torch.equal(result[:, :3].nan_to_num(9), labels.nan_to_num(9))


def naive_bce(p, target):
    return -(target * math.log(p) + (1 - target) * math.log(1 - p))


def naive_attribute_loss(probabilities, targets):
    """For each pair the mean over its known attributes, 0 if none; then the mean over pairs."""
    total = 0.0
    for row, labels in zip(probabilities, targets, strict=True):
        terms = [naive_bce(p, t) for p, t in zip(row, labels, strict=False) if not math.isnan(t)]
        total += sum(terms) / len(terms) if terms else 0.0
    return total / len(targets)


def labelled_pairs(attributes, pairs=7, seed=0):
    generator = torch.Generator().manual_seed(seed)
    a, b = torch.randn(2, pairs, 6, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 3, (2, pairs, attributes), generator=generator).double()
    labels = torch.where(labels == 2, NAN, labels)
    return a, b, torch.arange(pairs) % 2, *labels


@pytest.mark.parametrize(
    "attributes, free, none_slot",
    [(5, 0, False), (5, 0, True), (3, 4, False), (3, 4, True), (0, 6, False)],
)
def test_losses_equal_equation_4(attributes, free, none_slot):
    torch.manual_seed(1)
    head = PAN(
        6, attributes=attributes, free=free, none_slot=none_slot, rule="xor", attribute_weight=0.3
    ).double()
    a, b, same, labels_a, labels_b = labelled_pairs(attributes)
    terms = head.losses(a, b, same, labels_a, labels_b) if attributes else head.losses(a, b, same)
    naive = [naive_pair(head.similarity, x, y) for x, y in zip(a.tolist(), b.tolist(), strict=True)]
    assert len(naive[0][1]) == attributes + none_slot + free
    expected = sum(
        naive_bce(p, e) for (p, _, _), e in zip(naive, same.tolist(), strict=True)
    ) / len(naive)
    assert terms["similarity"].item() == pytest.approx(expected)
    assert list(terms) == ["similarity", "attributes"][: 2 if attributes else 1]
    if not attributes:
        return
    targets = []
    for row_a, row_b in zip(labels_a.tolist(), labels_b.tolist(), strict=True):
        row = [
            NAN if math.isnan(x + y) else float(x != y) for x, y in zip(row_a, row_b, strict=True)
        ]
        if none_slot:
            row.append(0.0 if 1.0 in row else NAN if any(map(math.isnan, row)) else 1.0)
        targets.append(row)
    probabilities = [concepts for _, concepts, _ in naive]
    assert terms["attributes"].item() == pytest.approx(
        0.3 * naive_attribute_loss(probabilities, targets)
    )


def test_relevance_is_pulled_towards_uniform_by_its_divergence():
    torch.manual_seed(0)
    head, (a, b) = PAN(6, free=4, relevance_weight=0.3).double(), torch.randn(2, 7, 6).double()
    terms = head.losses(a, b, torch.ones(7))
    assert list(terms) == ["similarity", "relevance"]
    divergences = []
    for i in range(7):
        relevance = naive_pair(head.similarity, a[i].tolist(), b[i].tolist())[2]
        divergences.append(sum(r * math.log(r / 0.25) for r in relevance))
    assert terms["relevance"].item() == pytest.approx(0.3 * sum(divergences) / 7)
    assert relevance_loss(torch.zeros(3, 5)).item() == pytest.approx(0, abs=1e-6)
    one = torch.tensor([[300.0, 0.0, 0.0]])
    assert relevance_loss(one).item() == pytest.approx(math.log(3))
    logits = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(relevance_loss, logits)


def test_only_supervised_concepts_feel_the_attributes():
    head = PAN(6, attributes=3, free=2, attribute_weight=1.0).double()
    a, b, same, labels_a, labels_b = labelled_pairs(3)
    head.losses(a, b, same, labels_a, labels_b)["attributes"].backward()
    gradient = head.similarity.concept.weight.grad
    assert (
        gradient[:3].abs().sum(1).gt(0).all()
        and gradient[3:].eq(0).all()
        and head.similarity.relevance.weight.grad is None
    )


def test_nothing_known_is_no_loss_and_no_nan_in_gradients():
    head = PAN(6, attributes=3, none_slot=True)
    a = torch.randn(4, 6, requires_grad=True)
    unknown = torch.full((4, 3), NAN)
    terms = head.losses(a, torch.randn(4, 6), torch.ones(4), unknown, unknown)
    assert terms["attributes"].item() == 0
    sum(terms.values()).backward()
    assert all(p.grad.isfinite().all() for p in head.parameters()) and a.grad.isfinite().all()


@pytest.mark.parametrize("size", [0.0, 5.0, 60.0, 500.0, 1e30])
@pytest.mark.parametrize("same", [0.0, 1.0])
def test_the_loss_stays_true_and_differentiable_where_p_rounds_to_0_or_1(size, same):
    for sign in (-1, 1):
        concepts = (
            torch.tensor([[size, size, size / 2 + 1]], dtype=torch.float64)
            .mul(sign)
            .requires_grad_()
        )
        relevance = torch.tensor([[0.5, -30.0, 1.0]], dtype=torch.float64, requires_grad=True)
        loss = similarity_loss(concepts, relevance, torch.tensor([same]))
        loss.backward()
        assert (
            loss.isfinite() and concepts.grad.isfinite().all() and relevance.grad.isfinite().all()
        )
        if size <= 500:
            getcontext().prec = 400
            z = [Decimal(x) for x in concepts.detach()[0].tolist()]
            powers = [Decimal(x).exp() for x in relevance.detach()[0].tolist()]
            p = sum(
                power / sum(powers) / (1 + (-x).exp()) for power, x in zip(powers, z, strict=True)
            )
            assert loss.item() == pytest.approx(float(-(p if same else 1 - p).ln()), rel=1e-9)


def test_a_confident_mistake_is_still_corrected():
    concepts = torch.full((1, 4), 40.0, requires_grad=True)  # p rounds to 1 in float32
    similarity_loss(concepts, torch.zeros(1, 4), torch.zeros(1)).backward()
    torch.testing.assert_close(concepts.grad, torch.full((1, 4), 0.25))


def test_losses_pass_gradcheck():
    a, b, same, labels_a, labels_b = labelled_pairs(3, pairs=3)
    head = PAN(6, attributes=3, free=1, rule="or").double()
    assert torch.autograd.gradcheck(
        lambda x: sum(head.losses(x, b, same, labels_a, labels_b).values()), a.requires_grad_()
    )


def test_learns_a_similarity_from_its_pairs():
    generator = torch.Generator().manual_seed(0)
    kind = torch.randint(0, 2, (2, 400, 4), generator=generator).float()
    a, b = kind + 0.1 * torch.randn(2, 400, 4, generator=generator)
    same = (kind[0] == kind[1]).all(-1).float()
    torch.manual_seed(0)
    head = PAN(4, attributes=4, rule="xnor")
    optimizer = torch.optim.Adam(head.parameters(), lr=0.1)
    for _ in range(150):
        optimizer.zero_grad()
        sum(head.losses(a, b, same, kind[0], kind[1]).values()).backward()
        optimizer.step()
    score, concepts, _ = head(a, b)
    assert ((score > 0.5) == same.bool()).float().mean() > 0.97
    assert ((concepts > 0.5) == (kind[0] == kind[1])).float().mean() > 0.9


def head_losses(**change):
    head = PAN(6, attributes=3)
    return head.losses(
        **(
            dict(
                a=torch.ones(2, 6),
                b=torch.ones(2, 6),
                same=torch.ones(2),
                attributes_a=torch.ones(2, 3),
                attributes_b=torch.ones(2, 3),
            )
            | change
        )
    )


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda: pair_labels(torch.ones(2), torch.ones(2), "nand"),
            "rule is 'nand': it must be one of and, or, xor, xnor",
        ),
        (
            lambda: pair_labels(torch.tensor([1, 0.25]), torch.ones(2), "or"),
            r"0, 1 or NaN for unknown, got 0.25: binarise",
        ),
        (lambda: pair_labels(torch.ones(2), torch.tensor([-1, 1]), "or"), "got -1"),
        (lambda: ConceptSimilarity(0, 4), "got dim 0 and 4 concepts"),
        (
            lambda: ConceptSimilarity(4, 2, cosine_weight=1.0),
            "got cosine_weight 1 and cosine_dim 0",
        ),
        (lambda: PAN(4, free=2, cosine_dim=3), "got cosine_weight 0 and cosine_dim 3"),
        (lambda: ConceptSimilarity(4, 2, cosine_weight=-1.0, cosine_dim=3), "got cosine_weight -1"),
        (
            lambda: ConceptSimilarity(4, 2)(torch.ones(3, 4), torch.ones(5)),
            r"must have 4 dimensions, got .* \(5,\)",
        ),
        (lambda: PAN(4), "needs supervised or free concepts, got 0 attributes and 0 free concepts"),
        (lambda: PAN(4, attributes=2, rule="nor"), "rule is 'nor'"),
        (lambda: PAN(4, free=2, none_slot=True), "needs supervised attributes"),
        (
            lambda: head_losses(attributes_a=None),
            "attributes_a is missing: 3 attributes are supervised",
        ),
        (
            lambda: head_losses(attributes_b=torch.ones(2, 4)),
            r"attributes_b must hold 3 attributes of each image, got shape \(2, 4\)",
        ),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_attribute_loss_weighs_pairs_alike():
    """A pair with one known attribute counts as much as one with many: eq. 4 is a mean of means."""
    logits = torch.tensor([[2.0, 2, 2, 2], [-1, -1, -1, -1]])
    targets = torch.tensor([[1, 1, 1, 1], [NAN, 1, NAN, NAN]])
    expected = (naive_bce(sigmoid(2), 1) + naive_bce(sigmoid(-1), 1)) / 2
    assert attribute_loss(logits, targets).item() == pytest.approx(expected)
