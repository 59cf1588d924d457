import pytest
import torch
from torch import nn

from fieldmarks.explain.enlarged import enlarged
from fieldmarks.explain.explainer import to_maps


def brightness(embed, backbone, query, match):
    """A map that is the image itself, so that every view says the same of a pixel."""
    return to_maps(match.mean(1), match.shape[-2:])


def images(seed=0, side=24):
    return torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(seed)) + 0.1


def test_maps_of_larger_images_have_the_size_of_the_images():
    sizes = []

    def keep(embed, backbone, query, match):
        sizes.append(tuple(match.shape[-2:]))
        return brightness(embed, backbone, query, match)

    smooth = nn.functional.interpolate(images(side=4), 24, mode="bilinear")
    heat = enlarged(keep, 1.5)(None, None, smooth, smooth)
    assert sizes == [(36, 36)] and heat.shape == (2, 24, 24)
    torch.testing.assert_close(heat, brightness(None, None, None, smooth), atol=0.08, rtol=0)


def test_bad_input():
    with pytest.raises(ValueError, match="factor"):
        enlarged(brightness, 0.0)
    with pytest.raises(ValueError, match="as many images"):
        enlarged(brightness)(None, None, images()[:1], images())
