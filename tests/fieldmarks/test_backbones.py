import pickle

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from fieldmarks.backbones import create_backbone, has_depthwise, load_weights
from fieldmarks.data.augment import TestViews
from fieldmarks.data.pixels import PixelCache


@pytest.mark.parametrize(
    "name, size, shape",
    [
        ("resnet10t", 96, (512, 3, 3)),
        ("tf_efficientnet_lite0", 96, (1280, 3, 3)),
        ("vit_tiny_patch16_224", 96, (192, 6, 6)),  # tokens, class token dropped
        ("swin_tiny_patch4_window7_224", 224, (768, 7, 7)),  # channels last inside timm
        ("convnext_atto", 96, (320, 3, 3)),
    ],
)
def test_networks_of_every_kind_end_in_a_feature_map(name, size, shape):
    backbone = create_backbone(name, "none", size)
    assert backbone.eval()(torch.rand(2, 3, size, size)).shape == (2, *shape)
    assert backbone.channels == shape[0] and backbone.stride == size / shape[2]


def test_transformer_tokens_lie_on_their_grid():
    backbone = create_backbone("vit_tiny_patch16_224", "none", 64).eval()
    tokens = backbone.network.forward_features(torch.rand(1, 3, 64, 64))
    assert torch.equal(backbone.as_map(tokens)[0, :, 2, 1], tokens[0, 1 + 2 * 4 + 1])


@pytest.mark.slow
def test_bundled_weights_know_imagenet(real_data):
    """Frozen, on the photographs of ten CUB classes: far above the 10 % of chance, and above random
    weights."""
    from PIL import Image
    from torchvision.transforms.functional import center_crop, pil_to_tensor, resize

    from fieldmarks.data.augment import normalise
    from fieldmarks.evaluation.recall import recall_at_k

    folders = sorted((real_data / "CUB_200_2011" / "images").iterdir())[25:35]
    files = [
        (file, label)
        for label, folder in enumerate(folders)
        for file in sorted(folder.glob("*.jpg"))[:10]
    ]
    images = (
        torch.stack(
            [
                center_crop(resize(pil_to_tensor(Image.open(file).convert("RGB")), 256), [224, 224])
                for file, _ in files
            ]
        ).float()
        / 255
    )
    labels = torch.tensor([label for _, label in files])
    recall = {}
    for weights in ("bundled", "none"):
        torch.manual_seed(0)
        backbone = create_backbone("tf_efficientnet_lite0", weights, 224).eval()
        with torch.no_grad():
            embeddings = backbone(normalise(images, backbone.mean, backbone.std)).mean((2, 3))
        recall[weights] = recall_at_k(embeddings, labels, ks=(1,))[1]
    assert recall["bundled"] > 0.6 > 0.4 > recall["none"], recall


def test_bundled_statistics_belong_to_the_weights():
    assert create_backbone("tf_efficientnet_lite0", "bundled", 64).mean == (0.498,) * 3
    assert create_backbone("tf_efficientnet_lite0", "bundled", 64).std == (0.502,) * 3


def test_unknown_network_gets_the_nearest_names():
    with pytest.raises(ValueError, match="unknown network 'resnet5': did you mean .*resnet50"):
        create_backbone("resnet5", "none")


def test_network_without_a_feature_map_is_refused():
    with pytest.raises(ValueError, match="gives no feature map"):
        create_backbone("mixer_s32_224", "none")


def test_bundled_weights_belong_to_one_network():
    with pytest.raises(
        ValueError, match="'bundled' are those of tf_efficientnet_lite0, not of resnet10t"
    ):
        create_backbone("resnet10t", "bundled")


def test_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no weights at .*none.pt"):
        create_backbone("resnet10t", tmp_path / "none.pt")


@pytest.mark.parametrize("kind", ["timm", "safetensors", "nested", "prefixed"])
def test_checkpoints_of_every_kind_load(tmp_path, kind):
    torch.manual_seed(1)
    source = timm.create_model("resnet10t", num_classes=7)
    path = tmp_path / ("weights.safetensors" if kind == "safetensors" else "weights.pth")
    state = source.state_dict()
    if kind == "safetensors":
        from safetensors.torch import save_file

        save_file(state, path)
    else:
        torch.save(
            {
                "timm": state,
                "nested": {"state_dict": state, "epoch": 3},
                "prefixed": {f"module.{k}": v for k, v in state.items()},
            }[kind],
            path,
        )
    backbone = create_backbone("resnet10t", path, 64).eval()
    images = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(backbone(images), source.eval().forward_features(images))


def test_weights_of_another_network_are_refused_with_the_first_difference(tmp_path):
    torch.save(timm.create_model("resnet18").state_dict(), tmp_path / "other.pth")
    with pytest.raises(ValueError, match="weights of another network.*resnet10t needs|is .* there"):
        create_backbone("resnet10t", tmp_path / "other.pth", 64)


def test_truncated_weights_are_refused(tmp_path):
    torch.save(timm.create_model("resnet10t").state_dict(), tmp_path / "cut.pth")
    whole = (tmp_path / "cut.pth").read_bytes()
    (tmp_path / "cut.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="cannot read weights from .*cut.pth"):
        create_backbone("resnet10t", tmp_path / "cut.pth", 64)


def test_a_checkpoint_that_would_run_code_is_refused_and_does_not(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    (tmp_path / "trap.pth").write_bytes(pickle.dumps({"conv1.weight": Trap()}))
    with pytest.raises(ValueError, match="cannot read weights"):
        create_backbone("resnet10t", tmp_path / "trap.pth", 64)
    assert not (tmp_path / "sprung").exists()


def test_a_runs_checkpoint_gives_its_backbone_and_statistics(tmp_path):
    donor = create_backbone("resnet10t", "none", 64)
    method = torch.nn.ModuleDict({"backbone": donor, "classifier": torch.nn.Linear(3, 4)})
    torch.save(
        {
            "schema": 1,
            "method": method.state_dict(),
            "mean": [0.1, 0.2, 0.3],
            "std": [1.0, 1.0, 1.0],
        },
        tmp_path / "last.pt",
    )
    backbone = create_backbone("resnet10t", "none", 64)
    load_weights(backbone, tmp_path / "last.pt")
    assert backbone.mean == (0.1, 0.2, 0.3)
    for key, value in donor.state_dict().items():
        assert torch.equal(backbone.state_dict()[key], value)


def test_depthwise_networks_are_told_apart():
    assert has_depthwise(create_backbone("tf_efficientnet_lite0", "none", 64))
    assert not has_depthwise(create_backbone("resnet10t", "none", 64))


def test_preprocess_gives_what_experiments_see(tmp_path):
    """Files, open images and arrays, upright and wide, as a pixel cache and its test views do."""
    generator = np.random.default_rng(0)
    paths = [tmp_path / "wide.png", tmp_path / "tall.jpg", tmp_path / "grey.png"]
    for path, shape in zip(paths, ((60, 400, 3), (90, 70, 3), (50, 50)), strict=True):
        Image.fromarray(generator.integers(0, 255, shape, dtype=np.uint8)).save(path)
    backbone = create_backbone("resnet10t", "none", 48)
    backbone.resize = 56
    pixels = PixelCache.open(paths, 56, tmp_path / "cache")
    canvas, sizes = pixels.batch(torch.arange(3))
    expected = TestViews.of(backbone)(canvas, sizes)
    assert torch.allclose(backbone.preprocess(paths), expected, atol=1e-6)
    images = [Image.open(path) for path in (paths[0], paths[2])]
    assert torch.allclose(backbone.preprocess(images), expected[[0, 2]], atol=1e-6)
    array = np.asarray(images[0])
    assert torch.allclose(backbone.preprocess(array), expected[:1], atol=1e-6)


STAGES = {"resnet10t": 5, "tf_efficientnet_lite0": 8, "vit_tiny_patch16_224": 13}


@pytest.mark.parametrize("name, stages", STAGES.items())
def test_frozen_stages_are_not_trained_and_the_others_as_before(name, stages):
    images = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    free = create_backbone(name, "none", 64)
    before = {key: value.clone() for key, value in free.state_dict().items()}
    for frozen in (1, 2, stages - 1):
        torch.manual_seed(0)
        backbone = create_backbone(name, "none", 64, freeze_stages=frozen).train()
        trained = {n for n, p in backbone.named_parameters() if p.requires_grad}
        assert 0 < len(trained) < len(before)
        state = backbone.state_dict()
        assert all(torch.equal(value, state[key]) for key, value in before.items())
        backbone(images).square().mean().backward()
        given = {n for n, p in backbone.named_parameters() if p.grad is not None}
        assert given == trained
        # The order of stages is that of the forward pass: what is frozen comes first.
        names = [
            n for n, _ in backbone.named_parameters() if "_embed" not in n and "token" not in n
        ]
        assert [n in trained for n in names] == sorted(n in trained for n in names)
        state = backbone.state_dict()
        for key, value in state.items():
            if "running" in key:  # statistics are those of parameters beside them
                owner = key.rsplit(".", 1)[0] + ".weight"
                assert torch.equal(value, before[key]) == (owner not in trained), key


def test_gradients_do_not_depend_on_what_is_frozen_below():
    images = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    gradients = []
    for frozen in (0, 3):
        torch.manual_seed(0)
        backbone = create_backbone("resnet10t", "none", 64, frozen).eval()
        backbone(images).square().mean().backward()
        gradients.append({n: p.grad for n, p in backbone.named_parameters()})
    whole, part = gradients
    for name, grad in part.items():
        if grad is not None:
            torch.testing.assert_close(grad, whole[name], rtol=1e-4, atol=1e-6)
    assert sum(grad is not None for grad in part.values()) == 18  # of the last two stages


def test_freezing_leaves_training_mode_as_it_is():
    backbone = create_backbone("resnet10t", "none", 64, 2)
    assert backbone.training and not backbone.network.bn1.training
    assert backbone.network.layer3[0].bn1.training
    backbone.eval()
    assert not backbone.network.layer3[0].bn1.training
    assert not backbone.train().network.bn1.training and backbone.network.layer3[0].bn1.training


@pytest.mark.parametrize("stages", [-1, 5, 99])
def test_stages_that_a_network_does_not_have(stages):
    says = f"^freeze_stages is {stages}, but network 'resnet10t' has 5 stages: give 0 to 4$"
    with pytest.raises(ValueError, match=says):
        create_backbone("resnet10t", "none", 64, stages)


def test_a_network_without_stages(monkeypatch):
    backbone = create_backbone("resnet10t", "none", 64)
    monkeypatch.delattr(type(backbone.network), "group_matcher")
    with pytest.raises(ValueError, match="^network 'resnet10t' has no stages .* must be 0$"):
        backbone.freeze(1)
    backbone.freeze(0)
