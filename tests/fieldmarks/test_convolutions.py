"""Convolutions with the padding or the batch normalisation in their weights."""

import copy
import pickle

import pytest
import timm
import torch
from timm.layers import Conv2dSame
from torch import nn

from fieldmarks.backbones import create_backbone
from fieldmarks.convolutions import CONVOLUTIONS, fold_norms, pad_kernels

NETWORKS = ["tf_efficientnet_lite0", "resnet10t", "resnet18", "densenet121", "regnety_002"]


def folded(network):
    """The names of the convolutions with a norm in them."""
    kinds = tuple(CONVOLUTIONS.values())
    return {name for name, module in network.named_modules() if isinstance(module, kinds)}


def with_statistics(network):
    """As after training: all statistics and weights of norms differ from zeros and ones."""
    generator = torch.Generator().manual_seed(0)
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for values in (norm.running_mean, norm.running_var, norm.weight.data, norm.bias.data):
                values.add_(torch.rand(values.shape, generator=generator))
    return network.eval()


def batch(count=4, size=64):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("size", [32, 33, 8])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("kernel", [2, 3, 5])
def test_padding_in_kernels_is_timms_padding(kernel, stride, size):
    torch.manual_seed(0)
    theirs = Conv2dSame(6, 6, kernel, stride, groups=3)
    ours = copy.deepcopy(theirs)
    pad_kernels(nn.Sequential(ours))
    x = batch(2, size).repeat(1, 2, 1, 1)[..., : size - 1]
    wanted = theirs(x)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), wanted)
    assert torch.equal(ours(x), wanted)  # with gradients, the same computation


@pytest.mark.parametrize("name", NETWORKS)
def test_features_and_names_stay(name):
    network = with_statistics(timm.create_model(name, num_classes=0))
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with torch.no_grad():
        features = network.forward_features(batch())
        pad_kernels(network)  # these too have norms after them
        fold_norms(network, [n for n, _ in network.named_modules()], 64)
        after = network.forward_features(batch())
    assert len(folded(network)) >= 10
    torch.testing.assert_close(after, features, rtol=1e-3, atol=1e-4 * features.abs().max().item())
    state = network.state_dict()
    assert list(state) == list(before)
    assert all(torch.equal(value, before[key]) for key, value in state.items())


def test_only_what_is_frozen_is_folded():
    backbone = create_backbone("resnet18", "none", 64, freeze_stages=2)
    first = {"conv1", *(f"layer1.{a}.conv{b}" for a in (0, 1) for b in (1, 2))}
    assert folded(backbone.network) == first
    assert not folded(create_backbone("resnet18", "none", 64).network)


def test_weights_loaded_later_count():
    torch.manual_seed(0)
    backbone = create_backbone("resnet18", "none", 64, freeze_stages=3).eval()
    other = with_statistics(timm.create_model("resnet18", num_classes=0))
    backbone.network.load_state_dict(other.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(
            backbone(batch()), other.forward_features(batch()), rtol=1e-4, atol=1e-5
        )


def test_copies_compute_with_their_own_weights():
    backbone = create_backbone("resnet18", "none", 64, freeze_stages=3).eval()
    with torch.no_grad():
        before = backbone(batch())
        for copied in (copy.deepcopy(backbone), pickle.loads(pickle.dumps(backbone))):
            assert torch.equal(copied(batch()), before)
            copied.network.bn1.bias.add_(1)
            assert not torch.equal(copied(batch()), before)
        assert torch.equal(backbone(batch()), before)


def test_norms_in_training_mode_compute_as_they_did():
    network = with_statistics(timm.create_model("resnet18", num_classes=0))
    twin = copy.deepcopy(network)
    fold_norms(network, [n for n, _ in network.named_modules()], 64)
    assert torch.equal(
        network.train().forward_features(batch()), twin.train().forward_features(batch())
    )
    assert torch.equal(network.bn1.running_mean, twin.bn1.running_mean)


class Misleading(nn.Module):
    """Its norm stands after a convolution whose output something else takes too."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward_features(self, x):
        x = self.conv(x)
        return x + self.norm(x)


def test_a_network_that_takes_the_convolution_elsewhere_is_left_as_it_is():
    network = Misleading().eval()
    fold_norms(network, ["conv", "norm"], 8)
    assert not folded(network)
