"""Teachers that cannot collapse, against loops written from the papers' equations."""

import math

import pytest
import torch
from torch import nn

from fieldmarks.methods.attribute_teachers import (
    SHARPER,
    Centre,
    balanced_targets,
    prototype_scores,
    variance_term,
)
from fieldmarks.methods.vapnet import VAPNet

generator = torch.Generator().manual_seed(0)
SCORES = torch.rand(3, 2, 4, generator=generator) * 2 - 1  # (B, M, k)


class Backbone(nn.Module):
    channels = 6

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(3, self.channels, 3, stride=4, padding=1)

    def forward(self, images):
        return self.convolution(images).relu()


def softmax(row):
    parts = [math.exp(v) for v in row]
    return [part / sum(parts) for part in parts]


def test_prototype_scores_are_cosines():
    encoder, features = nn.Linear(6, 4), torch.randn(3, 2, 6, generator=generator)
    scores = prototype_scores(encoder, features)
    for b in range(3):
        for m in range(2):
            for k in range(4):
                x, w = features[b, m].tolist(), encoder.weight[k].tolist()
                dot = sum(p * q for p, q in zip(x, w, strict=True))
                cosine = dot / math.sqrt(sum(p * p for p in x)) / math.sqrt(sum(q * q for q in w))
                assert scores[b, m, k].item() == pytest.approx(cosine, abs=1e-6)


def test_the_centre_is_a_running_mean_that_evaluation_leaves():
    centre, mean = Centre(4).train(), [0.0] * 4
    for step in range(3):
        scores = SCORES * (step + 1)
        targets = centre(scores, 0.1)
        for b in range(3):
            for m in range(2):
                wanted = [(scores[b, m, k].item() - mean[k]) / (SHARPER * 0.1) for k in range(4)]
                assert targets[b, m].tolist() == pytest.approx(wanted, abs=1e-4)
        rows = scores.flatten(0, 1)
        mean = [0.9 * mean[k] + 0.1 * sum(row[k].item() for row in rows) / 6 for k in range(4)]
    torch.testing.assert_close(centre.mean, torch.tensor(mean))
    before = centre.mean.clone()
    centre.eval()(SCORES, 0.1)
    assert torch.equal(centre.mean, before)


def test_balanced_targets_equal_sinkhorn_in_loops():
    exponent = [[v / (SHARPER * 0.5) for v in row] for row in SCORES.flatten(0, 1).tolist()]
    q = [[math.exp(v) for v in row] for row in exponent]
    for _ in range(3):  # rows, then columns, add up alike; at the end each row is a distribution
        q = [[v / sum(row) for v in row] for row in q]
        columns = [sum(row[k] for row in q) for k in range(4)]
        q = [[v / columns[k] for k, v in enumerate(row)] for row in q]
    q = [[v / sum(row) for v in row] for row in q]
    targets = balanced_targets(SCORES, 0.5).exp()
    assert targets.shape == SCORES.shape
    torch.testing.assert_close(targets.flatten(0, 1), torch.tensor(q))


def test_balanced_targets_use_all_attributes_where_raw_ones_use_one():
    scores = torch.rand(64, 1, 8, generator=generator) * 0.2
    scores[..., 3] += 1  # one attribute wins everywhere
    assert (scores / 0.05).softmax(-1).mean((0, 1))[3] > 0.99
    used = balanced_targets(scores, 0.05).exp().mean((0, 1))
    assert used.max() < 0.25 and used.min() > 0.08
    centre = Centre(8).train()
    for _ in range(100):
        centred = centre(scores, 0.05)
    used = centred.softmax(-1).mean((0, 1))
    assert used.max() < 0.35 and used[3] < 0.35


def test_the_variance_term_in_loops():
    outputs = torch.randn(5, 2, 3, generator=generator) * torch.tensor([0.1, 1.0, 3.0])
    rows, total = outputs.flatten(0, 1).tolist(), 0.0
    for k in range(3):
        column = [row[k] for row in rows]
        mean = sum(column) / len(column)
        variance = sum((v - mean) ** 2 for v in column) / (len(column) - 1)
        total += max(0.0, 1 - math.sqrt(variance + 1e-4))
    assert variance_term(outputs).item() == pytest.approx(total / 3, abs=1e-6)
    assert variance_term(outputs * 0).item() == pytest.approx(1 - 0.01)


def batch():
    made = torch.Generator().manual_seed(1)
    return torch.randn(6, 3, 32, 32, generator=made), torch.arange(6) % 3


def method(teacher, **options):
    torch.manual_seed(0)
    shared = {"views": 2, "attributes": 5, "grids": (2,), "constraint_weight": 1.0}
    return VAPNet(Backbone(), 3, teacher=teacher, **{**shared, **options})


@pytest.mark.parametrize("teacher", ["centred", "balanced"])
def test_each_place_is_taught_by_its_other_view(teacher):
    """Eq. 6 with unit features and rows, from its definition."""
    network = method(teacher, temperature=0.5).train()
    local, at_boxes = torch.randn(2, 3, 2, 6, generator=generator)
    for encoder in (network.mean_local_encoder, network.mean_global_encoder):
        nn.init.normal_(encoder.weight)  # means that are not their encoders
    cosines = lambda encoder, x: prototype_scores(encoder, x).detach()
    pupils = cosines(network.local_encoder, local), cosines(network.global_encoder, at_boxes)
    seen = (
        cosines(network.mean_global_encoder, at_boxes),
        cosines(network.mean_local_encoder, local),
    )
    total = 0.0
    for pupil, scores in zip(pupils, seen, strict=True):
        if teacher == "centred":  # the centre is zero at first
            targets = (scores / (SHARPER * 0.5)).softmax(-1)
        else:
            targets = balanced_targets(scores, 0.5).exp()
        for b in range(3):
            for m in range(2):
                q = softmax((pupil[b, m] / 0.5).tolist())
                p = targets[b, m].tolist()
                total += sum(x * math.log(x / y) for x, y in zip(p, q, strict=True))
    assert network.constrain(local, at_boxes).item() == pytest.approx(total / 3, rel=1e-4)


@pytest.mark.parametrize("teacher", ["printed", "gradients", "centred", "balanced", "variance"])
def test_all_teachers_train_resume_and_answer(teacher):
    network = method(teacher).train()
    images, labels = batch()
    terms = network.losses(images, labels, generator=torch.Generator().manual_seed(0))
    sum(terms.values()).backward()
    assert all(p.grad is not None for p in network.local_encoder.parameters())
    assert all(p.grad is None for p in network.mean_local_encoder.parameters())
    network.after_step()
    again = method(teacher)
    again.load_state_dict(network.state_dict())
    responses = again.eval().attribute_responses(images)
    torch.testing.assert_close(responses.sum(1), torch.ones(6))
    assert torch.equal(responses, network.eval().attribute_responses(images))


def test_teachers_that_do_not_exist_or_do_not_fit():
    with pytest.raises(ValueError, match="teacher is 'dino': it must be one of printed, gradients"):
        method("dino")
    for constraint in ("direct", "none"):
        with pytest.raises(ValueError, match="teacher 'centred' is of mean encoders: use const"):
            method("centred", constraint=constraint)
