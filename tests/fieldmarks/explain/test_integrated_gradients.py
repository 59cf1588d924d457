import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fieldmarks.explain.integrated_gradients import attributions, integrated_gradients


@pytest.fixture
def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.Softplus(), nn.Conv2d(6, 4, 3)).requires_grad_(
        False
    )


@pytest.fixture
def embed(network):
    return lambda images: network(images).mean((2, 3))


@pytest.fixture
def pair():
    return torch.randn(2, 2, 3, 8, 9, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("baseline", [0.0, torch.full((3, 1, 1), 0.4)])
def test_adds_up_to_what_the_match_is_above_the_baseline(baseline, network, embed, pair):
    signed = attributions(embed, network, *pair, baseline=baseline, steps=128)
    assert signed.shape == pair[1].shape and signed.dtype == torch.float32
    reference = embed(pair[0])
    start = torch.as_tensor(baseline).expand_as(pair[1])
    gained = F.cosine_similarity(embed(pair[1]), reference) - F.cosine_similarity(
        embed(start), reference
    )
    torch.testing.assert_close(signed.sum((1, 2, 3)), gained, atol=1e-4, rtol=1e-3)


def test_against_finite_differences_of_one_pixel(network, embed, pair):
    """Eq. 1 by loops, with differences in the place of gradients."""
    signed = attributions(embed, network, *pair, steps=8)[0, 1, 4, 5].item()
    image, reference = pair[1][0].double(), embed(pair[0])[0].double()
    exact = network.double()
    step = torch.zeros_like(image)
    step[1, 4, 5] = 1e-4
    score = lambda image: F.cosine_similarity(exact(image[None]).mean((2, 3))[0], reference, dim=0)
    slopes = []
    for number in range(8):
        point = (number + 0.5) / 8 * image
        slopes.append((score(point + step) - score(point - step)) / 2e-4)
    assert signed == pytest.approx(float(image[1, 4, 5] * sum(slopes) / 8), rel=1e-3)


def test_the_map_is_what_speaks_for_the_match(network, embed, pair):
    heat = attributions(embed, network, *pair, steps=4).sum(1).relu()
    maps = integrated_gradients(embed, network, *pair, steps=4)
    torch.testing.assert_close(maps, heat / heat.amax((1, 2), keepdim=True))


def test_bad_input(network, embed, pair):
    with pytest.raises(ValueError, match="steps is 0"):
        attributions(embed, network, *pair, steps=0)
    with pytest.raises(RuntimeError, match="under no_grad"):
        attributions(torch.no_grad()(embed), network, *pair)
    with pytest.raises(ValueError, match="baseline"):
        attributions(embed, network, *pair, baseline=torch.zeros(7))
