import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fieldmarks.evaluation.explanations import correctness, mass, pointing, similarity_changes
from fieldmarks.explain.cams import cam
from fieldmarks.explain.point_to_point import exact_features, place_map, point_to_point


def test_against_loops_and_nothing_is_left_over():
    a, b = torch.randn(2, 5, 2, 3), torch.randn(2, 5, 4, 2)
    pairs = point_to_point(a, b)
    assert pairs.shape == (2, 2, 3, 4, 2) and pairs.dtype == torch.float32
    for n in range(2):
        mean = [f[n].flatten(1).mean(1) for f in (a, b)]
        scale = 6 * 8 * mean[0].norm() * mean[1].norm()
        for y, x, v, u in torch.cartesian_prod(*map(torch.arange, (2, 3, 4, 2))).tolist():
            wanted = sum(a[n, c, y, x] * b[n, c, v, u] for c in range(5)) / scale
            torch.testing.assert_close(pairs[n, y, x, v, u], wanted)
    averaged = F.cosine_similarity(a.mean((2, 3)), b.mean((2, 3)))
    torch.testing.assert_close(pairs.sum((1, 2, 3, 4)), averaged)
    torch.testing.assert_close(point_to_point(b, a), pairs.permute(0, 3, 4, 1, 2))


def test_features_of_no_length_contribute_nothing():
    a = torch.randn(1, 3, 2, 2)
    assert point_to_point(a, 0 * a).abs().sum() == 0
    half = point_to_point(a.bfloat16(), a.bfloat16())
    assert half.dtype == torch.float32 and half.sum().item() == pytest.approx(1, abs=0.01)


def test_maps_are_its_sums():
    torch.manual_seed(0)
    backbone = nn.Conv2d(3, 4, 2, stride=2)
    embed = lambda images: backbone(images).mean((2, 3))
    query, match = torch.randn(2, 3, 8, 8), torch.randn(2, 3, 8, 12)
    pairs = point_to_point(backbone(query), backbone(match)).detach()
    for maps, heat, size in (
        (place_map(embed, backbone, query, match), pairs.sum((1, 2)), (8, 12)),
        (place_map(embed, backbone, match, query), pairs.sum((3, 4)), (8, 8)),
    ):
        full = F.interpolate(heat[:, None].relu(), size, mode="bilinear")[:, 0]
        torch.testing.assert_close(maps, full / full.amax((1, 2), keepdim=True))


def test_there_is_no_exact_form_for_other_embeddings():
    torch.manual_seed(0)
    backbone, layer = nn.Sequential(nn.Conv2d(3, 6, 2, stride=2), nn.ReLU()), nn.Linear(6, 6)
    average = lambda images: backbone(images).mean((2, 3))
    images = torch.randn(2, 3, 8, 8)
    for embed in (
        lambda images: layer(average(images)).tanh(),
        lambda images: layer(average(images)),
        lambda images: 0 * average(images),
        lambda images: backbone(images).amax((2, 3)),
    ):
        for match in (images.flip(0), images):  # equal images have the cosine 1 in any network
            with pytest.raises(
                ValueError, match="no exact decomposition: take grad_cam or"
            ) as error:
                place_map(embed, backbone, images, match)
            assert "\n" not in str(error.value)
    for embed in (average, lambda images: F.normalize(3 * average(images), dim=1)):
        features = exact_features(embed, backbone, images, images.flip(0))
        assert torch.equal(features[0], backbone(images))
    turned = torch.linalg.qr(torch.randn(6, 6)).Q  # turning changes no cosine
    place_map(lambda images: average(images) @ turned, backbone, images, images)


def test_bad_input():
    with pytest.raises(ValueError, match=r"\(B, C, h, w\) and \(B, C, h', w'\)"):
        point_to_point(torch.rand(1, 3, 2, 2), torch.rand(1, 4, 2, 2))
    with pytest.raises(ValueError, match=r"got \(1, 3, 2\)"):
        point_to_point(torch.rand(1, 3, 2), torch.rand(1, 3, 2, 2))


@pytest.fixture
def known():
    """A network that averages its input, and pictures whose parts contribute what is known.

    Each part is drawn in a colour, one channel of 2 P. Exchanged, it is in another that no query
    has: the embedding's length stays, and the cosine falls by what the part contributed."""
    parts, size, generator = 6, 12, torch.Generator().manual_seed(0)
    where = torch.zeros(parts, size, size, dtype=torch.bool)
    for part in range(parts):
        where[part, 2 * (part // 2) : 2 * (part // 2) + part % 2 + 1, 6 * (part % 2) :][..., :5] = 1
    strength = torch.rand(4, parts, generator=generator) + 0.1
    match = torch.zeros(4, 2 * parts, size, size)
    match[:, :parts] = strength[:, :, None, None] * where
    query = torch.zeros_like(match)
    query[:, :parts] = torch.rand(4, parts, 1, 1, generator=generator) * where
    twins = []
    for part in range(parts):
        twin = match.clone()
        twin[:, parts + part], twin[:, part] = match[:, part], 0
        twins.append(twin)
    return query, match, torch.stack(twins, 1), where


class Seen(nn.Module):
    def forward(self, images):
        return images


@pytest.mark.parametrize(
    "explain", [place_map, cam("grad_cam"), cam("hires_cam"), cam("layer_cam")]
)
def test_the_exact_map_of_a_linear_network_is_right_in_every_score(explain, known):
    query, match, twins, where = known
    backbone = Seen()
    embed = lambda images: backbone(images).mean((2, 3))
    changes = similarity_changes(
        embed(query), embed(match), embed(twins.flatten(0, 1)).unflatten(0, twins.shape[:2])
    )
    cosines = F.cosine_similarity(embed(query), embed(match)).double()
    torch.testing.assert_close(changes.sum(1), cosines)  # parts account for all of it
    maps = explain(embed, backbone, query, match)
    masks = where.expand(4, -1, -1, -1)
    assert correctness(maps, masks, changes).tolist() == pytest.approx([1] * 4)
    density = changes / masks.flatten(2).sum(2)
    strongest = masks[torch.arange(4), density.argmax(1)]
    assert pointing(maps, strongest).tolist() == [1] * 4
    share = changes.gather(1, density.argmax(1, keepdim=True))[:, 0] / cosines
    area = strongest.flatten(1).sum(1) / where.any(0).sum()
    torch.testing.assert_close(mass(maps, strongest, masks.any(1)), share / area, rtol=1e-5, atol=0)
