"""What the library promises of every method: plain tensors in, named terms and embeddings out."""

import inspect
from typing import Literal, get_args, get_origin

import pytest
import torch
from torch import nn

from fieldmarks.methods.fcaenet import FCAENet
from fieldmarks.methods.hash_baselines import create_hash_baseline
from fieldmarks.methods.metric_baselines import create_baseline
from fieldmarks.methods.pair_network import PairNetwork
from fieldmarks.methods.pan import PAN
from fieldmarks.methods.vapnet import VAPNet

LABELS = torch.arange(20) % 4


class Backbone(nn.Module):
    channels = 6

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 6, 4, stride=4), nn.BatchNorm2d(6), nn.ReLU())

    def forward(self, images):
        return self.layers(images)


METHODS = {
    "vapnet": lambda b, **o: VAPNet(b, 4, views=2, attributes=5, grids=(2, 4), **o),
    "fcaenet": lambda b, **o: FCAENet(b, bits=5, labels=LABELS, regions=3, region_size=4, **o),
    **{
        name: lambda b, name=name, **o: create_hash_baseline(name, b, 5, LABELS, **o)
        for name in ("dpsh", "dsh", "hashnet", "orthohash")
    },
    **{
        name: lambda b, name=name, **o: create_baseline(name, b, 4, **o)
        for name in ("normsoftmax", "proxynca++", "proxyanchor", "multisimilarity", "scda")
    },
}
HASHING = ("fcaenet", "dpsh", "dsh", "hashnet", "orthohash")


def build(name, **options):
    torch.manual_seed(0)
    return METHODS[name](Backbone(), **options)


def tensors(count=6):
    """All that a stream may bring."""
    generator = torch.Generator().manual_seed(1)
    index = torch.randperm(20, generator=generator)[:count]
    images, positives = torch.randn(2, count, 3, 16, 16, generator=generator)
    return {"images": images, "labels": LABELS[index], "index": index, "positives": positives}


def taken(method, given):
    return {k: v for k, v in given.items() if k in inspect.signature(method.losses).parameters}


@pytest.mark.parametrize("name", METHODS)
def test_every_method_takes_plain_tensors(name):
    method, given = build(name), tensors()
    if method.trains:
        terms = method.losses(**taken(method, given))
        assert terms and all(term.shape == () and term.isfinite() for term in terms.values())
        sum(terms.values()).backward()
        assert method.backbone.layers[0].weight.grad.isfinite().all()
        method.after_step()
        method.after_epoch()
    method.eval()
    embedding = method.embed(given["images"])
    assert torch.equal(method(given["images"]), embedding)
    if name in HASHING:
        assert embedding.shape == (6, 5)
    else:
        torch.testing.assert_close(embedding.norm(dim=1), torch.ones(6))
        representation = method.representation(given["images"])
        unit = representation / representation.norm(dim=1, keepdim=True)
        torch.testing.assert_close(embedding, unit)


@pytest.mark.parametrize("name", [n for n in METHODS if n != "scda"])
def test_the_loss_of_images_and_labels_is_the_same_by_name_and_by_position(name):
    given = tensors()
    one, other = build(name), build(name)
    arguments = taken(one, given)
    torch.manual_seed(5)
    first = one.losses(**arguments)
    torch.manual_seed(5)
    second = other.losses(*arguments.values())
    assert {k: v.item() for k, v in first.items()} == {k: v.item() for k, v in second.items()}


@pytest.mark.parametrize("name", METHODS)
def test_each_parameter_is_in_one_group_and_vectors_do_not_decay(name):
    method = build(name)
    groups = method.parameter_groups(0.1, 0.5)
    listed = [id(p) for group in groups for p in group["params"]]
    assert sorted(listed) == sorted(id(p) for p in method.parameters() if p.requires_grad)
    for group in groups:
        assert all(p.dim() > 1 for p in group["params"]) or group["weight_decay"] == 0


@pytest.mark.parametrize("name", [n for n in METHODS if n != "scda"])
def test_freeze_norm_reaches_every_method(name):
    frozen, free = build(name, freeze_norm=True).train(), build(name).train()
    assert frozen.training and not frozen.backbone.layers[1].training
    assert free.backbone.layers[1].training


OPTIONS = {"VAPNet": VAPNet, "FCAENet": FCAENet, "PAN": PAN, "PairNetwork": PairNetwork} | {
    "create_baseline": create_baseline,
    "create_hash_baseline": create_hash_baseline,
}


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_is_a_keyword_of_a_plain_type(name):
    """Experiments compose their parameters from these."""
    options = [
        p for p in inspect.signature(OPTIONS[name]).parameters.values() if p.default != p.empty
    ]
    assert options and all(p.kind == p.KEYWORD_ONLY for p in options)
    for option in options:
        kind = option.annotation
        members = get_args(kind) or (kind,)
        plain = (bool, int, float, str, ...)
        literal = get_origin(kind) is Literal
        assert literal or all(m in plain or get_origin(m) is Literal for m in members), option
        value = list(option.default) if isinstance(option.default, tuple) else [option.default]
        assert all(type(v) in (bool, int, float, str) for v in value)


@pytest.mark.parametrize("name", HASHING)
def test_hash_layers_on_features_of_one_length(name):
    """The layer as the print has it, or on features of unit length times a constant."""
    given = tensors()["images"]
    for length in (0.0, 8.0):
        method = build(name, feature_length=length).eval()
        torch.nn.init.normal_(method.hash_layer.weight)
        maps = method.backbone(given)
        for features, row in zip(maps, method.hash(maps), strict=True):
            pooled = torch.stack([channel.mean() for channel in features])
            if length:
                pooled = length * pooled / pooled.square().sum().sqrt()
            torch.testing.assert_close(method.hash_layer(pooled), row)
    with pytest.raises(ValueError, match="feature_length is -1.0: it must be at least 0"):
        build(name, feature_length=-1.0)


def test_features_of_one_length_take_no_notice_of_brightness():
    """What the NOTE says: with features as they are, longer ones saturate the layer."""
    features = torch.rand(2, 6, 4, 4, generator=torch.Generator().manual_seed(2))
    free, bounded = build("fcaenet"), build("fcaenet", feature_length=8.0)
    for method in (free, bounded):
        torch.nn.init.normal_(method.hash_layer.weight)
    torch.testing.assert_close(bounded.hash(features), bounded.hash(100 * features))
    assert (free.hash(100 * features) / free.hash(features)).median() > 50


def test_proxies_of_the_normalised_softmax_start_short():
    """SGD turns a proxy the more slowly the longer it is, and only its direction counts."""
    lengths = build("normsoftmax").loss.W.norm(dim=0)
    torch.testing.assert_close(lengths, torch.ones(4))
