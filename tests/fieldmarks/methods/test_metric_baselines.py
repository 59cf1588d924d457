import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fieldmarks.methods.metric_baselines import MARGIN, SCDA, create_baseline, object_mask


def tiny_backbone(channels=6):
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Conv2d(3, channels, 3, stride=2), nn.ReLU())
    backbone.channels = channels
    return backbone


def batch_of(count=8):
    torch.manual_seed(1)
    return {"images": torch.randn(count, 3, 16, 16), "labels": torch.arange(count) % 4}


@pytest.mark.parametrize("name", ["normsoftmax", "proxynca++", "proxyanchor", "multisimilarity"])
def test_a_step_lowers_the_loss_and_reaches_every_parameter(name):
    method, batch = create_baseline(name, tiny_backbone(), 4, proxy_lr=1.0), batch_of()
    optimizer = torch.optim.SGD(method.parameter_groups(1e-3, 0.0))
    first = method.losses(**batch)["metric"]
    first.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in method.parameters())
    optimizer.step()
    assert method.losses(**batch)["metric"] < first
    torch.testing.assert_close(method.embed(batch["images"]).norm(dim=1), torch.ones(8))


def test_normalised_softmax_equals_its_formula():
    method, batch = create_baseline("normsoftmax", tiny_backbone(), 4), batch_of()
    embedding = F.normalize(method.backbone(batch["images"]).mean((2, 3)), dim=1)
    logits = embedding @ F.normalize(method.loss.W, dim=0) / 0.05
    torch.testing.assert_close(
        method.losses(**batch)["metric"], F.cross_entropy(logits, batch["labels"])
    )


def test_proxynca_equals_its_formula_with_the_positive_in_the_denominator():
    method, batch = create_baseline("proxynca++", tiny_backbone(), 4), batch_of()
    features = method.backbone(batch["images"]).amax((2, 3))
    features = (features - features.mean(1, keepdim=True)) / (
        features.var(1, keepdim=True, unbiased=False) + 1e-5
    ).sqrt()
    embedding = F.normalize(F.linear(features, method.project.weight, method.project.bias), dim=1)
    proxies = F.normalize(method.loss.proxies, dim=1)
    squared = torch.tensor([[((e - p) ** 2).sum().item() for p in proxies] for e in embedding])
    expected = torch.stack(
        [
            -(-9 * row).log_softmax(0)[label]
            for row, label in zip(squared, batch["labels"], strict=True)
        ]
    ).mean()
    torch.testing.assert_close(
        method.losses(**batch)["metric"].detach(), expected, rtol=1e-4, atol=1e-4
    )


def test_proxies_have_their_own_learning_rate_and_are_listed_once():
    method = create_baseline("proxyanchor", tiny_backbone(), 4, proxy_lr=100)
    groups = method.parameter_groups(0.1, 0.5)
    assert groups[-1]["lr"] == pytest.approx(10) and groups[-1]["weight_decay"] == 0
    listed = [id(p) for group in groups for p in group["params"]]
    assert sorted(listed) == sorted(id(p) for p in method.parameters())


def squared(a, b):
    return sum((x - y) ** 2 for x, y in zip(a.tolist(), b.tolist(), strict=True))


def test_triplets_equal_their_formula():
    method = create_baseline("triplet", tiny_backbone(), 4).eval()
    sides = [batch_of()["images"] * scale for scale in (1.0, 0.9, 1.1)]
    with torch.no_grad():
        loss = method.losses(*sides)["triplet"]
        rows = zip(*map(method.representation, sides), strict=True)
        hinges = [max(0.0, squared(a, p) - squared(a, n) + MARGIN) for a, p, n in rows]
    assert 0 < sum(hinges) and loss.item() == pytest.approx(sum(hinges) / 8, rel=1e-4)


def test_protonet_equals_its_formula():
    """Snell et al., Algorithm 1: the first two images of each class are its support."""
    method = create_baseline("protonet", tiny_backbone(), 4, shots=2).eval()
    batch = batch_of(16)
    with torch.no_grad():
        loss = method.losses(**batch)["episodes"]
        features, labels = method.representation(batch["images"]), batch["labels"].tolist()
    of_class = {
        c: [f for f, own in zip(features, labels, strict=True) if own == c] for c in range(4)
    }
    prototypes = {c: (rows[0] + rows[1]) / 2 for c, rows in of_class.items()}
    losses = []
    for c, rows in of_class.items():
        for query in rows[2:]:
            nearness = torch.tensor([-squared(query, prototypes[other]) for other in range(4)])
            losses.append(-nearness.log_softmax(0)[c].item())
    assert len(losses) == 8 and loss.item() == pytest.approx(sum(losses) / 8, rel=1e-4)
    with pytest.raises(ValueError, match="needs more than 2 images of each class: set per_class"):
        method.losses(**batch_of(8))


def test_unknown_baseline_is_refused_with_the_list():
    with pytest.raises(ValueError, match="normsoftmax, proxynca"):
        create_baseline("softmax", tiny_backbone(), 4)


def largest_region(above):
    """Flood fill, the naive way."""
    height, width = len(above), len(above[0])
    seen, best = set(), set()
    for start in [(y, x) for y in range(height) for x in range(width) if above[y][x]]:
        if start in seen:
            continue
        region, edge = {start}, [start]
        while edge:
            y, x = edge.pop()
            for dy in (-1, 0, 1):
                for dx in (-1, 0, 1):
                    place = (y + dy, x + dx)
                    if (
                        0 <= place[0] < height
                        and 0 <= place[1] < width
                        and above[place[0]][place[1]]
                        and place not in region
                    ):
                        region.add(place)
                        edge.append(place)
        seen |= region
        best = region if len(region) > len(best) else best
    return best


def test_object_mask_is_the_largest_region_above_the_mean():
    torch.manual_seed(0)
    for activation in torch.rand(20, 7, 9):
        expected = largest_region((activation > activation.mean()).tolist())
        assert {
            tuple(place) for place in object_mask(activation[None])[0].nonzero().tolist()
        } == expected


def test_a_flat_map_is_kept_whole():
    assert object_mask(torch.ones(1, 3, 3)).sum() == 9


def test_scda_pools_the_selected_descriptors():
    features = torch.rand(2, 5, 6, 6)
    backbone = nn.Identity()
    embedding = SCDA(backbone).embed(features)
    for feature, row in zip(features, embedding, strict=True):
        region = largest_region((feature.sum(0) > feature.sum(0).mean()).tolist())
        chosen = torch.stack([feature[:, y, x] for y, x in sorted(region)])
        expected = torch.cat(
            [F.normalize(chosen.mean(0), dim=0), F.normalize(chosen.amax(0), dim=0)]
        )
        torch.testing.assert_close(row, expected / expected.norm())
