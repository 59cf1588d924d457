import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fieldmarks.explain.perturbation import _fields, occlusion, random_masks


@pytest.fixture
def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU())


@pytest.fixture
def embed(network):
    return lambda images: network(images).mean((2, 3))


@pytest.fixture
def pair():
    return torch.randn(2, 2, 3, 9, 11, generator=torch.Generator().manual_seed(1))


def shaped(heat):
    heat = heat.clamp(min=0)
    return heat / heat.max()


@pytest.mark.parametrize("fill", ["mean", "grey"])
@pytest.mark.parametrize("patch, stride", [(4, 2), (3, 3), (9, 1), (2, 4)])
def test_occlusion_against_loops(patch, stride, fill, network, embed, pair):
    maps = occlusion(embed, network, *pair, patch=patch, stride=stride, fill=fill)
    starts = [
        sorted({*range(0, side - patch + 1, stride), side - patch}) for side in pair.shape[-2:]
    ]
    for row in range(2):
        reference, image = embed(pair[0])[row], pair[1][row]
        score = lambda image, r=reference: F.cosine_similarity(
            embed(image[None])[0], r, dim=0
        ).item()
        total, covered = torch.zeros(9, 11), torch.zeros(9, 11)
        for y in starts[0]:
            for x in starts[1]:
                hidden = image.clone()
                colour = image.mean((1, 2)) if fill == "mean" else torch.zeros(3)
                hidden[:, y : y + patch, x : x + patch] = colour[:, None, None]
                total[y : y + patch, x : x + patch] += score(image) - score(hidden)
                covered[y : y + patch, x : x + patch] += 1
        torch.testing.assert_close(
            maps[row], shaped(total / covered.clamp(min=1)), atol=1e-4, rtol=1e-3
        )


def test_random_masks_against_their_equation(network, embed, pair):
    maps = random_masks(embed, network, *pair, masks=70, cells=3, seed=5)
    again = random_masks(embed, network, *pair, masks=70, cells=3, seed=5)
    other = random_masks(embed, network, *pair, masks=70, cells=3, seed=6)
    assert torch.equal(maps, again) and not torch.equal(maps, other)
    from fieldmarks.random import seeded

    generator = seeded(5, 51)
    masks = torch.cat([_fields(n, 3, 0.5, (9, 11), generator) for n in (32, 32, 6)])
    for row in range(2):
        reference, image = embed(pair[0])[row].detach(), pair[1][row]
        colour = image.mean((1, 2), keepdim=True)
        shown = torch.stack([mask * image + (1 - mask) * colour for mask in masks])
        scores = F.cosine_similarity(embed(shown).detach(), reference[None])
        heat = ((scores - scores.mean())[:, None, None] * masks).sum(0) / masks.sum(0)
        torch.testing.assert_close(maps[row], shaped(heat), atol=1e-3, rtol=1e-2)


def test_random_fields_show_the_share_that_is_asked_for():
    generator = torch.Generator().manual_seed(0)
    masks = _fields(400, 7, 0.3, (30, 41), generator)
    assert masks.shape == (400, 30, 41) and masks.min() >= 0 and masks.max() <= 1
    assert masks.mean().item() == pytest.approx(0.3, abs=0.01)
    assert (masks.mean(0) - 0.3).abs().max() < 0.12  # alike everywhere, the border too
    assert _fields(3, 20, 0.5, (9, 9), generator).shape == (3, 9, 9)  # more cells than pixels


@pytest.mark.parametrize(
    "explain",
    [
        lambda *pair: occlusion(*pair, patch=4),
        lambda *pair: random_masks(*pair, masks=400, cells=4),
    ],
)
def test_finds_the_part_that_a_match_shares(explain):
    """A red part on the left and a blue one on the right; the query is red."""
    network = nn.Identity()
    embed = lambda images: network(images).mean((2, 3)) + 0.01
    match, query = torch.zeros(2, 1, 3, 16, 16)
    match[:, 0, 6:10, 1:5], match[:, 2, 6:10, 11:15] = 1, 1
    query[:, 0] = 1
    seen = explain(embed, network, query, match)[0]
    assert seen.flatten().argmax() % 16 < 6 and seen[:, :8].sum() > 4 * seen[:, 8:].sum()


def test_bad_input(network, embed, pair):
    with pytest.raises(ValueError, match="a patch of 10 px does not fit an image of 9 x 11"):
        occlusion(embed, network, *pair, patch=10)
    with pytest.raises(ValueError, match="stride is 0"):
        occlusion(embed, network, *pair, stride=0)
    with pytest.raises(ValueError, match="fill is 'black'"):
        occlusion(embed, network, *pair, fill="black")
    with pytest.raises(ValueError, match="masks is 0"):
        random_masks(embed, network, *pair, masks=0)
    with pytest.raises(ValueError, match="visible is 1.0: it is a share, above 0 and below 1"):
        random_masks(embed, network, *pair, visible=1.0)
