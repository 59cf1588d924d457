import pytest
import torch
from torch import nn

from fieldmarks.explain.averaged import averaged, enlarged
from fieldmarks.explain.explainer import to_maps


def brightness(embed, backbone, query, match):
    """A map that is the image itself, so that every view says the same of a pixel."""
    return to_maps(match.mean(1), match.shape[-2:])


def images(seed=0, side=24):
    return torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(seed)) + 0.1


def test_views_are_put_back_where_they_come_from():
    match = images()
    match[:, :, 5, 9] = 3.0  # in every view: one scale for all
    match[:, :, ::23] = match[:, :, :, ::23] = 0.1  # a plain border, which is repeated
    plain = brightness(None, None, match, match)
    heat = averaged(brightness, shifts=3, step=2)(None, None, match, match)
    torch.testing.assert_close(heat, plain)
    one = averaged(brightness, shifts=1)(None, None, match, match)
    torch.testing.assert_close(one, plain)


def test_an_odd_view_is_mirrored():
    seen = []

    def keep(embed, backbone, query, match):
        seen.append(match.clone())
        return brightness(embed, backbone, query, match)

    match = images()
    averaged(keep, shifts=3, step=4)(None, None, match, match)
    assert len(seen) == 9
    torch.testing.assert_close(seen[4], match)  # the middle one, even
    wide = torch.nn.functional.pad(match, (4,) * 4, mode="replicate")
    torch.testing.assert_close(seen[1], wide[:, :, :24, 4:28].flip(-1))


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
    with pytest.raises(ValueError, match="shifts is 0"):
        averaged(brightness, shifts=0)
    with pytest.raises(ValueError, match="factor"):
        enlarged(brightness, 0.0)
    with pytest.raises(ValueError, match="as many images"):
        averaged(brightness)(None, None, images()[:1], images())
