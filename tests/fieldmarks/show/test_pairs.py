"""Figures of pairs, from a small network."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from fieldmarks.methods.attribute_baselines import PlainSimilarity
from fieldmarks.methods.pan import PAN
from fieldmarks.show.pairs import pair_board, pair_maps


@pytest.fixture
def small():
    """What a `PairMethod` has."""
    torch.manual_seed(0)
    backbone = nn.Conv2d(3, 6, 3, stride=4, padding=1)
    backbone.mean, backbone.std = (0.5,) * 3, (0.2,) * 3

    def of(head):
        return SimpleNamespace(
            backbone=backbone,
            embed=lambda images: backbone(images).relu().mean((2, 3)),
            score=head.score,
            network=SimpleNamespace(head=head),
            attribute_names=["has_size::small", "has_size::large"],
        )

    return of


IMAGES = torch.randn(2, 4, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def test_maps_are_grad_cam_of_the_target(small):
    """By hand: weights are mean gradients of the target with respect to the feature map."""
    method = small(PAN(6, attributes=2, free=1))
    for side, found in enumerate(pair_maps(method, method.score, *IMAGES)):
        assert found.shape == (4, 16, 16) and found.min() >= 0 and found.max() <= 1
        own, other = IMAGES[side], IMAGES[1 - side]
        features = method.backbone(own).detach().requires_grad_()
        partners = method.embed(other).detach()
        method.score(features.relu().mean((2, 3)), partners).sum().backward()
        weights = features.grad.mean((2, 3), keepdim=True)
        raw = (weights * features).sum(1, keepdim=True).relu()
        large = nn.functional.interpolate(raw, size=(16, 16), mode="bilinear")[:, 0]
        peak = large.amax((1, 2), keepdim=True)
        expected = torch.where(peak > 0, large / peak, 0.0).detach()
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_the_board_of_pan_names_the_concept_that_contributes_most(small):
    method = small(PAN(6, attributes=2, free=1))
    figure = pair_board(method, *IMAGES, list("abcd"))
    with torch.no_grad():
        _, scores, relevance = method.network.head(*(method.embed(side) for side in IMAGES))
    names = ["size: small", "size: large", "concept 1"]
    said = [text.get_text() for text in figure.texts]
    for pair, caption in enumerate("abcd"):
        heads = said[said.index(caption) + 1 :][:3]
        strongest = int((scores * relevance)[pair].argmax())
        assert heads == ["for", "against", names[strongest]]
    assert len(figure.cells) == 4 * 2 * 4


def test_without_concepts_there_are_maps_alone(small):
    figure = pair_board(small(PlainSimilarity(6)), *IMAGES, list("abcd"))
    said = [text.get_text() for text in figure.texts]
    assert said[:4] == list("abcd") and said[4:] == [
        "one",
        "for the\nsimilarity",
        "against it",
        "the other",
        "for the\nsimilarity",
        "against it",
    ]
    assert len(figure.cells) == 6 * 4
