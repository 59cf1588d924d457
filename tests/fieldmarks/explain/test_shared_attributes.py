import torch
import torch.nn.functional as F
from torch import nn

from fieldmarks.explain.gradcam import dimension_map
from fieldmarks.explain.shared_attributes import attribute_explainer, concept_explainer
from fieldmarks.methods.pan import PAN


class Colours(nn.Module):
    """Channels are red, green and blue."""

    def forward(self, images):
        return F.avg_pool2d(images, 4)


def painted():
    """A query that is red and a little blue; a match with green, red and a little blue parts."""
    query, match = torch.zeros(2, 1, 3, 16, 48)
    query[:, 0], query[:, 2] = 1, 0.2
    match[:, 1, :, :16], match[:, 0, :, 16:32], match[:, 2, :, 32:] = 3, 1, 0.2
    return query, match


def test_the_attribute_that_both_have_is_shown():
    backbone = Colours()
    respond = lambda images: backbone(images).mean((2, 3))
    maps = attribute_explainer(respond)(None, backbone, *painted())
    assert maps[0, :, 20:28].min() > 0.9 and maps[0, :, :12].max() < 0.1
    assert maps[0, :, 36:].max() < 0.1


def test_the_concept_that_contributes_most_is_shown():
    backbone = Colours()
    embed = lambda images: backbone(images).mean((2, 3))
    contributions = lambda a, b: a * b
    maps = concept_explainer(contributions)(embed, backbone, *painted())
    assert maps[0, :, 20:28].min() > 0.9 and maps[0, :, :12].max() < 0.1


def test_the_concepts_of_pan():
    torch.manual_seed(0)
    backbone, head = nn.Sequential(nn.Conv2d(3, 6, 4, stride=4), nn.ReLU()), PAN(6, free=5)
    embed = lambda images: backbone(images).mean((2, 3))
    query, match = torch.randn(2, 2, 3, 16, 16)

    def contributions(a, b):
        _, concepts, relevance = head(a, b)
        return concepts * relevance

    maps = concept_explainer(contributions)(embed, backbone, query, match)
    reference = embed(query).detach()
    strongest = contributions(reference, embed(match)).argmax(1)
    respond = lambda images: contributions(reference, embed(images))
    assert maps.shape == (2, 16, 16)
    torch.testing.assert_close(maps, dimension_map(respond, backbone, match, strongest))
