"""What holds of every explainer: shape, range, and a network that is left as it was found."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fieldmarks.explain.explainer import after_backbone, cosine, remembering
from fieldmarks.explain.explainers import COSTLY, EXPLAINERS
from fieldmarks.explain.shared_attributes import attribute_explainer, concept_explainer


class Network(nn.Module):
    """A backbone with all that has a state, and the average of its features."""

    def __init__(self, channels=3):
        super().__init__()
        torch.manual_seed(0)
        self.backbone = nn.Sequential(
            nn.Conv2d(channels, 8, 3, stride=2, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Conv2d(8, 6, 3, stride=2, padding=1),
            nn.BatchNorm2d(6),
            nn.ReLU(),
        )
        self.head = nn.Linear(6, 5)

    def embed(self, images):
        return self.backbone(images).mean(dim=(2, 3))

    def responses(self, images):
        return self.head(self.embed(images)).softmax(1)

    def contributions(self, a, b):
        return self.head((a - b).abs()).sigmoid()

    def broken(self, images):
        self.backbone(images)
        raise KeyError("broken")


@pytest.fixture
def network():
    return Network()


@pytest.fixture
def pair():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 2, 3, 24, 28, generator=generator)


def every(network):
    return EXPLAINERS | {
        "attribute": attribute_explainer(network.responses),
        "concept": concept_explainer(network.contributions),
    }


NAMES = tuple(every(Network()))


def state(network):
    """All that an explanation might change."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return {
        "modes": [module.training for module in network.modules()],
        "hooks": [len(getattr(module, name)) for module in network.modules() for name in hooks],
        "attributes": [sorted(vars(module)) for module in network.modules()],
        "values": {name: value.clone() for name, value in network.state_dict().items()},
        "asked": [parameter.requires_grad for parameter in network.parameters()],
        "gradients": [
            None if parameter.grad is None else parameter.grad.clone()
            for parameter in network.parameters()
        ],
    }


def assert_same(before, after):
    for name in ("modes", "hooks", "attributes", "asked"):
        assert before[name] == after[name], name
    assert all(
        torch.equal(before["values"][name], value) for name, value in after["values"].items()
    )
    for one, other in zip(before["gradients"], after["gradients"], strict=True):
        assert other is None if one is None else torch.equal(one, other)


@pytest.mark.parametrize("name", NAMES)
def test_maps_lie_over_the_match(name, network, pair):
    network.eval()
    query, match = pair[0][..., :20], pair[1]  # of another size
    if name == "attribute":
        query = pair[0]
    maps = every(network)[name](network.embed, network.backbone, query, match)
    assert maps.shape == (2, 24, 28) and maps.dtype == torch.float32 and not maps.requires_grad
    assert maps.min() >= 0 and maps.amax((1, 2)).tolist() == pytest.approx([1, 1])
    alone = every(network)[name](network.embed, network.backbone, query[1:], match[1:])
    torch.testing.assert_close(alone, maps[1:], atol=1e-4, rtol=1e-3)  # pairs do not meet


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("how", ["training", "half frozen", "frozen", "no grad"])
def test_leaves_the_network_as_it_was(name, how, network, pair):
    network.train()
    network.backbone[1].eval()
    network.embed(pair[0]).sum().backward()  # gradients that are there must stay
    network.backbone[0].weight.grad = None
    if how == "half frozen":
        network.backbone[0].requires_grad_(False)
    network.requires_grad_(how != "frozen")
    before = state(network)
    with torch.set_grad_enabled(how != "no grad"):
        maps = every(network)[name](network.embed, network.backbone, *pair)
    assert_same(before, state(network))
    network.eval()
    quiet = every(network)[name](network.embed, network.backbone, *pair)
    torch.testing.assert_close(maps, quiet)  # that of evaluation, whatever the mode


@pytest.mark.parametrize(
    "name", [name for name in NAMES if name not in ("channel_mean", "attribute")]
)
def test_leaves_the_network_as_it_was_when_it_raises(name, network, pair):
    network.train()
    before = state(network)
    with pytest.raises(KeyError, match="broken"):
        every(network)[name](network.broken, network.backbone, *pair)

    def late(images, calls=[]):  # noqa: B006
        calls.append(len(images))
        if len(calls) > 1:
            raise KeyError("late")
        return network.embed(images)

    with pytest.raises(KeyError, match="late"):
        every(network)[name](late, network.backbone, *pair)
    assert before["hooks"] == state(network)["hooks"]
    assert before["modes"] == state(network)["modes"]
    assert before["attributes"] == state(network)["attributes"]
    assert all(parameter.grad is None for parameter in network.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_pairs_must_be_pairs(name, network, pair):
    for query, match in (
        (pair[0][:1], pair[1]),
        (pair[0][0], pair[1][0]),
        (pair[0, :0], pair[1, :0]),
    ):
        with pytest.raises(ValueError, match="as many images"):
            every(network)[name](network.embed, network.backbone, query, match)


@pytest.mark.parametrize("name", [name for name in EXPLAINERS if name not in COSTLY])
def test_cheap_ones_take_a_pass_for_each_image(name, network, pair):
    seen = []
    handle = network.backbone[0].register_forward_hook(lambda *a: seen.append(len(a[2])))
    EXPLAINERS[name](network.embed, network.backbone, *pair)
    handle.remove()
    assert sum(seen) <= 4, seen


def test_remembered_features_are_computed_once(network, pair):
    seen = []
    query, match = pair
    cheap = [name for name in EXPLAINERS if name not in COSTLY]
    wanted = [EXPLAINERS[name](network.embed, network.backbone, query, match) for name in cheap]
    before = state(network)
    handle = network.backbone[0].register_forward_hook(lambda *a: seen.append(len(a[2])))
    with remembering(network.backbone, query, match):
        for name, maps in zip(cheap, wanted, strict=True):
            again = EXPLAINERS[name](network.embed, network.backbone, query, match)
            torch.testing.assert_close(again, maps)
    handle.remove()
    assert seen == [2, 2]
    assert_same(before, state(network))


def test_a_network_after_its_backbone(network, pair):
    network.eval()
    features = network.backbone(pair[0])
    run = after_backbone(network.embed, network.backbone, pair[0])
    assert torch.equal(run(features), features.mean((2, 3)))
    assert run(features[:1].expand(5, -1, -1, -1)).shape == (5, 6)
    assert torch.equal(network.embed(pair[1]), network.backbone(pair[1]).mean((2, 3)))
    forward = network.backbone.forward
    network.backbone.forward = lambda images: forward(images) * 2  # somebody's own stays
    run(features)
    torch.testing.assert_close(network.backbone(pair[0]), 2 * features)
    with pytest.raises(RuntimeError, match=r"see all 2 images once, it saw batches of \[\]"):
        after_backbone(lambda images: images.mean((2, 3)), network.backbone, pair[0])(features)


def test_cosines():
    a, b = torch.randn(2, 4, 7)
    torch.testing.assert_close(cosine(a, b), F.cosine_similarity(a, b))
    torch.testing.assert_close(cosine(a, b, hold_length=True), F.cosine_similarity(a, b))
    assert cosine(torch.zeros(1, 7), b[0]).item() == 0
    assert cosine(torch.zeros(1, 7), b[0], hold_length=True).item() == 0
    with pytest.raises(ValueError, match="do not fit"):
        cosine(a, b[:2])


def test_a_transformer_and_a_convolutional_network(pair):
    import fieldmarks as fm

    images = torch.randn(2, 1, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    for name in ("vit_tiny_patch16_224", "resnet10t"):
        torch.manual_seed(0)
        backbone = fm.create_backbone(name, weights="none", image_size=32).eval()
        embed = lambda images, backbone=backbone: backbone(images).mean((2, 3))
        for explainer in ("grad_cam", "layer_cam", "ablation_cam", "place_map", "xgrad_cam"):
            maps = EXPLAINERS[explainer](embed, backbone, *images)
            assert maps.shape == (1, 32, 32) and maps.isfinite().all(), (name, explainer)
