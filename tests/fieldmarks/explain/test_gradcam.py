import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fieldmarks.explain.gradcam import activation_maps, class_map, dimension_map, pair_map


class Network(nn.Module):
    """Images -> feature map -> global average pool -> a head that is not linear."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.backbone = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 12, 3, stride=2, padding=1),
            nn.BatchNorm2d(12),
        )
        self.head = nn.Sequential(nn.Linear(12, 6), nn.Tanh(), nn.Linear(6, 5))
        self.eval()

    def embed(self, images):
        return self.backbone(images).mean(dim=(2, 3))

    def forward(self, images):
        return self.head(self.embed(images))


@pytest.fixture
def network():
    return Network()


@pytest.fixture
def images():
    return torch.randn(3, 3, 32, 24, generator=torch.Generator().manual_seed(1))


def by_hand(features, image_size, score):
    """One image at a time, one channel at a time: (C, h, w) and a function of the map -> (H, W)."""
    features = features.detach().clone().requires_grad_()
    score(features).backward()
    total = torch.zeros(features.shape[1:])
    for channel in range(len(features)):
        total += features.grad[channel].mean() * features.detach()[channel]
    full = F.interpolate(total.clamp(min=0)[None, None], size=image_size, mode="bilinear")[0, 0]
    return full / full.max() if full.max() > 0 else full


def test_pair_maps_equal_grad_cam_by_hand(network, images):
    reference = torch.randn(3, 12)
    maps = pair_map(network.embed, network.backbone, images, reference)
    assert maps.shape == (3, 32, 24) and maps.dtype == torch.float32 and not maps.requires_grad
    assert maps.min() >= 0 and maps.amax(dim=(1, 2)).tolist() == pytest.approx([1, 1, 1])
    for i, features in enumerate(network.backbone(images)):

        def cosine(f, target=reference[i]):
            pooled = f.mean(dim=(1, 2))
            return pooled @ target / (pooled.norm().detach() * target.norm())

        torch.testing.assert_close(
            maps[i], by_hand(features, (32, 24), cosine), atol=1e-5, rtol=1e-4
        )
    one = pair_map(network.embed, network.backbone, images[:1], reference[0])
    torch.testing.assert_close(one[0], maps[0], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("explain", [class_map, dimension_map])
def test_maps_of_one_output_equal_grad_cam_by_hand(explain, network, images):
    for index in (2, torch.tensor([2, 0, 4])):
        maps = explain(network, network.backbone, images, index)
        for i, features in enumerate(network.backbone(images)):
            unit = index if isinstance(index, int) else index[i]
            expected = by_hand(
                features, (32, 24), lambda f, unit=unit: network.head(f.mean(dim=(1, 2)))[unit]
            )
            torch.testing.assert_close(maps[i], expected, atol=1e-5, rtol=1e-4)


def test_agrees_with_the_grad_cam_package(network, images):
    from pytorch_grad_cam import GradCAM

    reference = torch.randn(3, 12)
    network.forward = network.embed
    with GradCAM(model=network, target_layers=[network.backbone]) as cam:
        theirs = torch.from_numpy(
            cam(images, [lambda e, r=r: e @ r / (e.norm().detach() * r.norm()) for r in reference])
        )
    ours = pair_map(network.embed, network.backbone, images, reference)
    floor = ours.amin(dim=(1, 2), keepdim=True)  # theirs starts every map at its own minimum
    torch.testing.assert_close((ours - floor) / (1 - floor), theirs, atol=1e-4, rtol=1e-3)


def test_leaves_the_model_as_it_was(network, images):
    network.train()
    before = {name: value.clone() for name, value in network.head.state_dict().items()}
    pair_map(network.embed, network.backbone, images, torch.randn(12))
    with pytest.raises(ValueError):
        pair_map(network.embed, network.backbone, images, torch.randn(7))
    with pytest.raises(ValueError):
        class_map(network, network.backbone, images, 5)
    assert not any(module._forward_hooks or module._backward_hooks for module in network.modules())
    assert network.training and all(parameter.grad is None for parameter in network.parameters())
    assert all(
        torch.equal(value, before[name]) for name, value in network.head.state_dict().items()
    )


def test_works_on_a_frozen_backbone_and_in_half_precision(network, images):
    reference = torch.randn(12)
    expected = pair_map(network.embed, network.backbone, images, reference)
    network.requires_grad_(False)
    with torch.no_grad():  # as an evaluation would call it
        assert torch.equal(pair_map(network.embed, network.backbone, images, reference), expected)
    low = network.bfloat16()
    maps = pair_map(low.embed, low.backbone, images.bfloat16(), reference)
    assert maps.dtype == torch.float32 and (maps - expected).abs().mean() < 0.1


def test_nothing_for_the_target_gives_an_empty_map(images):
    class Positive(nn.Module):
        def forward(self, x):
            return F.avg_pool2d(x.abs(), 8)

    backbone = Positive()
    assert not class_map(lambda x: -backbone(x).mean(dim=(2, 3)), backbone, images, 0).any()


def test_finds_the_part_that_a_match_shares():
    """Channel 0 sees red, channel 1 sees blue; the match is red, so the red half must light up."""

    class Colours(nn.Module):
        def forward(self, x):
            return F.avg_pool2d(x[:, [0, 2]], 4)

    backbone = Colours()
    image = torch.zeros(1, 3, 16, 32)
    image[:, 0, :, :16], image[:, 2, :, 16:] = 1, 1
    seen = pair_map(
        lambda x: backbone(x).mean(dim=(2, 3)), backbone, image, torch.tensor([1.0, 0.0])
    )[0]
    assert seen[:, :12].min() > 0.9 and seen[:, 20:].max() < 0.1


def test_a_pair_map_is_what_each_position_contributes_to_the_cosine():
    """With features and reference that are not negative nothing is cut off, and the contributions
    add up to the cosine."""
    backbone = nn.Sequential(nn.Conv2d(3, 6, 1), nn.ReLU())
    images, reference = torch.rand(2, 3, 5, 7), torch.rand(2, 6)
    features = backbone(images).detach()
    pooled = features.mean(dim=(2, 3))
    contributions = (
        torch.einsum("bchw,bc->bhw", features, reference)
        / (35 * pooled.norm(dim=1) * reference.norm(dim=1))[:, None, None]
    )
    torch.testing.assert_close(contributions.sum((1, 2)), F.cosine_similarity(pooled, reference))
    maps = pair_map(lambda x: backbone(x).mean(dim=(2, 3)), backbone, images, reference)
    torch.testing.assert_close(maps, contributions / contributions.amax(dim=(1, 2), keepdim=True))


def test_what_a_pair_shares_most_is_not_taken_out_of_its_map():
    """A red object on a little blue, compared with red: all of the cosine comes from the object, so
    that is where the map is."""

    class Colours(nn.Module):
        def forward(self, x):
            return F.avg_pool2d(x[:, [0, 2]], 4)

    backbone = Colours()
    image = torch.zeros(1, 3, 16, 32)
    image[:, 0, :, :24], image[:, 2, :, 24:] = 1, 0.2
    shared = torch.tensor([0.99, 0.14])
    seen = pair_map(lambda x: backbone(x).mean(dim=(2, 3)), backbone, image, shared)[0]
    assert seen[:, :20].min() > 0.9 and seen[:, 28:].max() < 0.1


def test_activation_maps(network, images):
    maps = activation_maps(network.backbone, images)
    expected = network.backbone(images).mean(dim=1).clamp(min=0)
    expected = F.interpolate(expected[:, None], size=(32, 24), mode="bilinear")[:, 0]
    torch.testing.assert_close(maps, (expected / expected.amax(dim=(1, 2), keepdim=True)).detach())


def test_bad_input(network, images):
    with pytest.raises(ValueError, match="do not fit embeddings"):
        pair_map(network.embed, network.backbone, images, torch.randn(2, 12))
    with pytest.raises(ValueError, match="between 0 and 4, got 5 to 5"):
        class_map(network, network.backbone, images, 5)
    with pytest.raises(RuntimeError, match=r"see all 3 images once, it saw batches of \[\]"):
        pair_map(
            lambda x: x.mean(dim=(2, 3)).requires_grad_(), network.backbone, images, torch.randn(3)
        )
    with pytest.raises(RuntimeError, match="under no_grad"):
        pair_map(torch.no_grad()(network.embed), network.backbone, images, torch.randn(12))
    with pytest.raises(ValueError, match=r"feature map \(B, C, h, w\), got \(3, 12\)"):
        flat = nn.Sequential(network.backbone, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        pair_map(flat, flat, images, torch.randn(12))


def test_the_package_names_its_explainers():
    import fieldmarks as fm

    assert fm.explain.pair_map is pair_map and fm.explain.activation_maps is activation_maps
    assert callable(fm.explain.top_patches) and callable(fm.explain.selective_dimensions)
