import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fieldmarks.explain.cams import CAMS, GRADIENTS, cam
from fieldmarks.explain.gradcam import pair_map
from fieldmarks.explain.point_to_point import place_map


@pytest.fixture(scope="module")
def backbone():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 4, stride=4), nn.BatchNorm2d(6), nn.ReLU()).eval()


@pytest.fixture
def embed(backbone):
    return lambda images: backbone(images).mean((2, 3))


@pytest.fixture
def pair():
    return torch.randn(2, 2, 3, 16, 20, generator=torch.Generator().manual_seed(1))


def gradients_by_hand(features, reference, hold):
    """Of one image: (C, h, w)."""
    features = features.detach().clone().requires_grad_()
    pooled = features.mean((1, 2))
    length = pooled.norm().detach() if hold else pooled.norm()
    (pooled @ reference / (length * reference.norm())).backward()
    return features.grad


def sums_by_hand(name, a, g):
    """From the papers' equations, for features a and gradients g, (C, h, w) each."""
    if name == "grad_cam":
        return torch.einsum("c,chw->hw", g.mean((1, 2)), a)
    if name == "grad_cam_plus_plus":
        alpha = g**2 / (2 * g**2 + a.sum((1, 2), keepdim=True) * g**3)
        return torch.einsum("c,chw->hw", (alpha.nan_to_num() * g.relu()).sum((1, 2)), a)
    if name == "grad_cam_elementwise":
        return (g * a).relu().sum(0)
    if name == "xgrad_cam":
        weights = (g * a).sum((1, 2)) / a.sum((1, 2)).clamp(min=1e-12)
        return torch.einsum("c,chw->hw", weights, a)
    if name == "hires_cam":
        return (g * a).sum(0)
    if name == "layer_cam":
        return (g.relu() * a).sum(0)
    values = (a if name == "eigen_cam" else a * g).flatten(1).T.double().numpy()  # (h*w, C)
    values = values - values.mean(0)
    first = np.linalg.eigh(values.T @ values)[1][:, -1]
    heat = values @ first
    heat = heat if heat.max() > -heat.min() else -heat
    return torch.from_numpy(heat).float().view(a.shape[1:])


def scaled(heat, size):
    full = F.interpolate(heat.clamp(min=0)[None, None], size=size, mode="bilinear")[0, 0]
    return full / full.max()


@pytest.mark.parametrize("hold", [True, False])
@pytest.mark.parametrize("name", GRADIENTS)
def test_against_the_equations(name, hold, backbone, embed, pair):
    maps = cam(name, hold_length=hold)(embed, backbone, *pair)
    for row in range(2):
        features = backbone(pair[1][row : row + 1])[0].detach()
        reference = embed(pair[0])[row].detach()
        gradients = gradients_by_hand(features, reference, hold)
        wanted = scaled(sums_by_hand(name, features, gradients), (16, 20))
        torch.testing.assert_close(maps[row], wanted, atol=1e-4, rtol=1e-3)


def test_ablation_leaves_channels_out(backbone, embed, pair):
    for shift in (0.0, 0.3):  # features of either sign

        class Shifted(nn.Module):
            def forward(self, images, shift=shift):
                return backbone(images) - shift

        place = Shifted()
        network = lambda images, place=place: place(images).mean((2, 3))
        maps = cam("ablation_cam")(network, place, *pair)
        for row in range(2):
            features, reference = place(pair[1])[row].detach(), network(pair[0])[row].detach()
            score = lambda a, r=reference: F.cosine_similarity(a.mean((1, 2)), r, dim=0)
            heat = torch.zeros(features.shape[1:])
            for channel in range(len(features)):
                without = features.clone()
                without[channel] = 0
                heat += (score(features) - score(without)) * features[channel]
            torch.testing.assert_close(maps[row], scaled(heat, (16, 20)), atol=1e-4, rtol=1e-3)


def test_score_cam_masks_the_image(backbone, embed, pair):
    maps = cam("score_cam")(embed, backbone, *pair)
    for row in range(2):
        image, reference = pair[1][row], embed(pair[0])[row].detach()
        features = backbone(image[None])[0].detach()
        scores = []
        for channel in features:
            mask = F.interpolate(channel[None, None], (16, 20), mode="bilinear", align_corners=True)
            mask = (mask - mask.min()) / (mask.max() - mask.min() + 1e-8)
            with torch.no_grad():
                scores.append(F.cosine_similarity(embed(image * mask)[0], reference, dim=0))
        heat = torch.einsum("c,chw->hw", torch.stack(scores).softmax(0), features)
        torch.testing.assert_close(maps[row], scaled(heat, (16, 20)), atol=1e-4, rtol=1e-3)


def test_with_averaged_features_and_the_length_held_five_are_one(backbone, embed, pair):
    exact = place_map(embed, backbone, *pair)
    reference = embed(pair[0]).detach()
    torch.testing.assert_close(pair_map(embed, backbone, pair[1], reference), exact)
    for name in ("grad_cam", "hires_cam", "xgrad_cam"):
        torch.testing.assert_close(cam(name)(embed, backbone, *pair), exact, atol=1e-4, rtol=1e-3)
    for name in ("layer_cam", "grad_cam_elementwise"):  # nothing is negative here
        torch.testing.assert_close(cam(name)(embed, backbone, *pair), exact, atol=1e-4, rtol=1e-3)
    other = cam("grad_cam", hold_length=False)(embed, backbone, *pair)
    assert (other - exact).abs().max() > 0.1


def test_the_package_is_quiet_and_its_progress_bars_stay(backbone, embed, pair, capfd):
    from pytorch_grad_cam import ablation_cam, score_cam

    bars = ablation_cam.tqdm, score_cam.tqdm
    for name in CAMS:
        cam(name)(embed, backbone, *pair)
    assert capfd.readouterr() == ("", "") and (ablation_cam.tqdm, score_cam.tqdm) == bars


def test_bad_input(backbone, embed, pair):
    with pytest.raises(ValueError, match="name is 'gradcam': it must be one of grad_cam"):
        cam("gradcam")
    unit = lambda images: F.normalize(embed(images), dim=1)
    with pytest.raises(ValueError, match="unit vectors, so their length cannot be held"):
        cam("grad_cam")(unit, backbone, *pair)
    cam("grad_cam", hold_length=False)(unit, backbone, *pair)
    cam("eigen_cam")(unit, backbone, *pair)
    with pytest.raises(RuntimeError, match="under no_grad"):
        cam("grad_cam")(torch.no_grad()(embed), backbone, *pair)
    with pytest.raises(ValueError, match=r"feature map \(B, C, h, w\), got \(2, 6\)"):
        flat = nn.Sequential(backbone, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        cam("layer_cam")(flat, flat, *pair)
