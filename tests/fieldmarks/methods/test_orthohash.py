"""OrthoHash against loops written from the paper, and its class codes."""

import math

import pytest
import torch
from torch import nn

from fieldmarks.methods.hash_baselines import OrthoHash, class_codes, create_hash_baseline
from fieldmarks.methods.hashing import to_codes


class Given(nn.Module):
    """A backbone that takes features for images."""

    channels = 5

    def forward(self, images):
        return images[:, :, None, None]


@pytest.mark.parametrize("training", [True, False])
def test_the_loss_in_loops(training):
    torch.manual_seed(0)
    method = OrthoHash(Given(), 6, 3, margin=0.3, scale=5.0).train(training)
    features, labels = torch.randn(8, 5), torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])
    raw = method.hash_layer(features)
    mean, variance = raw.mean(0), raw.var(0, correction=0)
    if not training:
        mean, variance = torch.zeros(6), torch.ones(6)
    outputs = ((raw - mean) / (variance + 1e-5).sqrt()).tolist()
    codes, total = method.class_codes.tolist(), 0.0
    for u, label in zip(outputs, labels.tolist(), strict=True):
        cosines = []
        for code in codes:
            dot = sum(a * b for a, b in zip(u, code, strict=True))
            cosines.append(dot / math.sqrt(sum(a * a for a in u)) / math.sqrt(6))
        logits = [5 * (c - (0.3 if k == label else 0)) for k, c in enumerate(cosines)]
        total -= logits[label] - math.log(sum(map(math.exp, logits)))
    loss = method.losses(features, labels)["cosine"]
    assert loss.item() == pytest.approx(total / 8, rel=1e-4)


def test_learns_the_codes_of_separable_classes():
    torch.manual_seed(0)
    centres, labels = torch.randn(6, 5) * 3, torch.arange(60) % 6
    features = centres[labels] + 0.1 * torch.randn(60, 5)
    method = create_hash_baseline("orthohash", Given(), 12, labels).train()
    optimiser = torch.optim.SGD(method.parameters(), lr=0.1, momentum=0.9)
    for _ in range(200):
        optimiser.zero_grad()
        method.losses(features, labels)["cosine"].backward()
        optimiser.step()
    codes = to_codes(method.eval().embed(features))
    assert torch.equal((codes @ method.class_codes.T).argmax(1), labels)
    assert (codes == method.class_codes[labels]).float().mean() > 0.9


@pytest.mark.parametrize("bits, classes", [(16, 8), (16, 32), (8, 16), (2, 2)])
def test_hadamard_codes_differ_in_half_the_bits(bits, classes):
    codes = class_codes(classes, bits)
    products = (codes @ codes.T).fill_diagonal_(0)
    assert codes.shape == (classes, bits) and set(products.flatten().tolist()) <= {0.0, -1.0 * bits}


@pytest.mark.parametrize("bits, classes", [(12, 50), (24, 50), (48, 200), (16, 40)])
def test_other_codes_are_balanced_and_far_apart(bits, classes):
    codes = class_codes(classes, bits)
    assert codes.abs().eq(1).all() and (codes.sum(0).abs() <= 1).all()
    distances = (bits - codes @ codes.T) / 2 + bits * torch.eye(classes)
    drawn = (torch.rand(classes, bits, generator=torch.Generator().manual_seed(0)) < 0.5) * 2.0 - 1
    random = (bits - drawn @ drawn.T) / 2 + bits * torch.eye(classes)
    assert distances.min() >= max(1, random.min())
    assert torch.equal(codes, class_codes(classes, bits))
    assert not torch.equal(codes, class_codes(classes, bits, seed=1))


def test_bad_input():
    with pytest.raises(ValueError, match="margin is -1: it must be at least 0"):
        OrthoHash(Given(), 6, 3, margin=-1)
    with pytest.raises(ValueError, match="scale is 0: it must be positive"):
        OrthoHash(Given(), 6, 3, scale=0)
