import copy
from functools import partial

import pytest
import torch
from PIL import Image
from pytorch_metric_learning.losses import MultiSimilarityLoss

from fieldmarks.backbones import create_backbone
from fieldmarks.data.augment import TestViews
from fieldmarks.data.pixels import PixelCache
from fieldmarks.experiments import features
from fieldmarks.experiments.features import Unscaled, frozen_features
from fieldmarks.methods.method import Method
from fieldmarks.methods.metric_baselines import SCDA, MetricBaseline
from helpers.full_disk import FULL_DISKS


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FIELDMARKS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "features"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    generator = torch.Generator().manual_seed(0)
    for number in range(7):
        noise = torch.randint(256, (40, 44, 3), generator=generator, dtype=torch.uint8).numpy()
        Image.fromarray(noise).save(folder / f"{number}.png")
    return sorted(folder.glob("*.png"))


@pytest.fixture(scope="module")
def backbone():
    torch.manual_seed(0)
    network = create_backbone("resnet10t", "none", 32)
    for _ in range(3):  # running statistics that are not those of the start
        network.train()(torch.randn(4, 3, 32, 32))
    return network


def embed(pictures, method, size=32, **changes):
    if not isinstance(method, Method):
        method = Unscaled(Method(method))
    views = TestViews(size, (0.5,) * 3, (0.5,) * 3, 40)
    pixels = PixelCache.open(pictures, 40)
    return frozen_features(pixels, method, views, **{"precision": "fp32", **changes})


def test_features_are_the_average_over_the_feature_map_in_evaluation_mode(pictures, backbone):
    canvas, sizes = PixelCache.open(pictures, 40).batch(range(7))
    views = TestViews(32, (0.5,) * 3, (0.5,) * 3, 40)
    backbone.eval()
    with torch.no_grad():
        maps = [backbone(views(canvas[i : i + 1], sizes[i : i + 1]))[0] for i in range(7)]
    expected = torch.stack([torch.stack([channel.mean() for channel in one]) for one in maps])
    actual = embed(pictures, backbone.train())
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(actual.norm(dim=1), torch.ones(7))


def test_a_method_gives_its_embeddings(pictures, backbone):
    expected = torch.nn.functional.normalize(embed(pictures, backbone))
    actual = embed(pictures, Method(backbone))
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-6)


def test_the_second_time_nothing_is_computed(pictures, backbone, cache, monkeypatch):
    first = embed(pictures, backbone)
    assert len(list(cache.iterdir())) == 1
    monkeypatch.setattr(features, "embed_all", lambda *_, **__: pytest.fail("embedded twice"))
    assert torch.equal(embed(pictures, backbone), first)


@pytest.mark.parametrize(
    "change", ["weights", "size", "statistics", "precision", "picture", "order", "method"]
)
def test_whatever_changes_the_features_makes_them_anew(pictures, backbone, cache, change, tmp_path):
    embed(pictures, backbone)
    other, options, paths = copy.deepcopy(backbone), {}, list(pictures)
    if change == "weights":
        next(other.parameters()).data[0, 0, 0, 0] += 1e-3
    elif change == "size":
        options = {"size": 24}
    elif change == "statistics":
        options = {"batch_statistics": True}
    elif change == "precision":
        options = {"precision": "bf16"}
    elif change == "picture":
        paths[0] = tmp_path / "other.png"
        Image.open(pictures[0]).rotate(90).save(paths[0])
    elif change == "method":
        other = Method(other)
    else:
        paths.reverse()
    embed(paths, other, **options)
    assert len(list(cache.iterdir())) == 2


def test_methods_with_the_same_weights_are_told_apart(pictures, backbone, cache):
    baseline = partial(MetricBaseline, backbone, MultiSimilarityLoss())
    methods = [Method(backbone), SCDA(backbone), baseline()]
    methods += [baseline(pooling="max"), baseline(normalise=True)]
    for count, method in enumerate(methods, start=1):
        embed(pictures, Unscaled(method))
        assert len(list(cache.iterdir())) == count


def test_the_network_is_left_as_it_was(pictures, backbone):
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    for batch_statistics in (False, True):
        method = Unscaled(Method(backbone)).train()
        embed(pictures, method, batch_statistics=batch_statistics)
        assert method.training and backbone.training
    assert all(torch.equal(before[name], value) for name, value in backbone.state_dict().items())


def test_with_batch_statistics_features_know_which_images_came_with_them(pictures, backbone):
    few, many = (embed(part, backbone, batch_statistics=True) for part in (pictures[:3], pictures))
    assert (few - many[:3]).abs().max() > 1e-3
    few, many = (embed(part, backbone) for part in (pictures[:3], pictures))
    torch.testing.assert_close(few, many[:3], rtol=1e-4, atol=1e-5)


def test_a_damaged_file_is_made_again_with_a_warning(pictures, backbone, cache):
    first = embed(pictures, backbone)
    (file,) = cache.iterdir()
    file.write_bytes(file.read_bytes()[:50])
    with pytest.warns(UserWarning, match="is damaged .* it is made again"):
        assert torch.equal(embed(pictures, backbone), first)
    assert torch.equal(embed(pictures, backbone), first)


def test_features_that_are_not_numbers_are_refused_and_not_kept(pictures, backbone, cache):
    broken = copy.deepcopy(backbone)
    for parameter in broken.parameters():
        parameter.data.fill_(torch.nan)
    with pytest.raises(ValueError, match="0.png are not numbers") as caught:
        embed(pictures, broken)
    assert "\n" not in str(caught.value) and not cache.exists()


@pytest.mark.parametrize("disk, told", FULL_DISKS)
def test_a_full_disk_is_told_and_the_same_call_makes_them_afterwards(
    pictures, backbone, cache, disk, told
):
    PixelCache.open(pictures, 40)
    with pytest.raises(OSError, match=f"cannot write .*safetensors': {told}; nothing"), disk():
        embed(pictures, backbone)
    assert list(cache.iterdir()) == []
    made = embed(pictures, backbone)
    assert made.equal(embed(pictures, backbone)) and len(list(cache.iterdir())) == 1
