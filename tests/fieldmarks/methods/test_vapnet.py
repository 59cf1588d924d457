"""VAPNet against loops written from the paper's equations, and against torchvision's RoIAlign."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.ops import roi_align

from fieldmarks.methods.vapnet import (
    VAPNet,
    attribute_constraint,
    patch_boxes,
    roi_average,
    sample_patch_index,
)


class TinyBackbone(nn.Module):
    channels = 6

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(3, self.channels, 3, stride=4, padding=1)
        self.calls = []

    def forward(self, images):
        self.calls.append(tuple(images.shape))
        return self.convolution(images).relu()


def batch_of(count=3, size=32, classes=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        "images": torch.randn(count, 3, size, size, generator=generator),
        "labels": torch.arange(count) % classes,
    }


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def kl(teacher, pupil):
    """KL of two lists of raw scores, each brought to a distribution first."""
    p = [math.exp(v) / sum(math.exp(u) for u in teacher) for v in teacher]
    q = [math.exp(v) / sum(math.exp(u) for u in pupil) for v in pupil]
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def test_attribute_constraint_equals_equation_6_in_loops():
    torch.manual_seed(0)
    own_local, own_global, mean_of_local, mean_of_global = torch.randn(4, 3, 2, 5).unbind(0)
    total = 0.0
    for b in range(3):
        for i in range(2):
            total += kl(mean_of_local[b, i].tolist(), own_local[b, i].tolist())
            total += kl(mean_of_global[b, i].tolist(), own_global[b, i].tolist())
    assert attribute_constraint(
        own_local, own_global, mean_of_local, mean_of_global
    ).item() == pytest.approx(total / 3, rel=1e-5)


def test_attribute_constraint_is_zero_for_agreement_and_positive_otherwise():
    torch.manual_seed(0)
    a, b = torch.randn(2, 4, 3, 7).unbind(0)
    assert attribute_constraint(a, b, a, b).item() == pytest.approx(0, abs=1e-6)
    assert attribute_constraint(a, b, b, a).item() > 0
    torch.testing.assert_close(
        attribute_constraint(a + 5, b, a - 3, b), torch.tensor(0.0), atol=1e-5, rtol=0
    )


def test_attribute_constraint_does_not_care_about_the_order_of_images_and_views():
    torch.manual_seed(0)
    arguments = torch.randn(4, 5, 3, 6)
    shuffled = arguments[:, torch.randperm(5)][:, :, torch.randperm(3)]
    torch.testing.assert_close(attribute_constraint(*arguments), attribute_constraint(*shuffled))


def test_attribute_constraint_passes_nan_on():
    arguments = torch.randn(4, 2, 2, 3)
    arguments[0, 0, 0, 0] = math.nan
    assert attribute_constraint(*arguments).isnan()


def test_there_are_340_patches():
    boxes = patch_boxes(224, 224)
    assert boxes.shape == (340, 4)
    assert boxes[0].tolist() == [0, 0, 112, 112] and boxes[-1].tolist() == [210, 210, 224, 224]


def test_patches_are_floor_sized_cells_inside_the_image():
    boxes = patch_boxes(50, 71, grids=(2, 3, 7))
    expected = [
        [c * (71 // n), r * (50 // n), (c + 1) * (71 // n), (r + 1) * (50 // n)]
        for n in (2, 3, 7)
        for r in range(n)
        for c in range(n)
    ]
    assert boxes.tolist() == expected


def test_an_image_too_small_for_a_grid_is_refused():
    with pytest.raises(ValueError, match="8 x 30 px cannot be cut into 16 x 16"):
        patch_boxes(8, 30)


@pytest.mark.parametrize("shape", [(7, 7), (6, 9), (14, 14), (1, 1)])
def test_roi_average_equals_torchvisions_roi_align_then_pooling(shape):
    torch.manual_seed(0)
    features, scale = torch.randn(2, 5, *shape), 32
    image_size = (shape[0] * scale, shape[1] * scale)
    boxes = patch_boxes(*image_size)[torch.randint(340, (2, 9))]
    rois = torch.cat(
        [torch.arange(2).repeat_interleave(9)[:, None], boxes.flatten(0, 1)], dim=1
    ).float()
    expected = (
        roi_align(features, rois, 7, 1 / scale, sampling_ratio=2, aligned=True)
        .mean((2, 3))
        .view(2, 9, 5)
    )
    torch.testing.assert_close(roi_average(features, boxes, image_size), expected)


def test_sampling_over_patches_is_uniform_and_over_grids_gives_each_grid_its_share():
    generator = torch.Generator().manual_seed(0)
    cells = torch.tensor([4, 16, 64, 256])
    drawn = sample_patch_index(20_000, 4, (2, 4, 8, 16), "patches", generator)
    assert drawn.min() == 0 and drawn.max() == 339
    shares = torch.stack(
        [
            ((drawn >= a - b) & (drawn < a)).float().mean()
            for a, b in zip(cells.cumsum(0), cells, strict=True)
        ]
    )
    torch.testing.assert_close(shares, cells / 340, atol=0.005, rtol=0)
    drawn = sample_patch_index(20_000, 4, (2, 4, 8, 16), "grids", generator)
    shares = torch.stack(
        [
            ((drawn >= a - b) & (drawn < a)).float().mean()
            for a, b in zip(cells.cumsum(0), cells, strict=True)
        ]
    )
    torch.testing.assert_close(shares, torch.full((4,), 0.25), atol=0.005, rtol=0)


@pytest.mark.parametrize("uniform_over", ["patches", "grids"])
def test_boxes_are_drawn_with_the_generator_in_a_fixed_order(uniform_over):
    method = VAPNet(TinyBackbone(), 4, views=3, grids=(2, 4), uniform_over=uniform_over)
    boxes = method.sample_boxes(5, 32, 48, seeded(7))
    generator = seeded(7)
    if uniform_over == "patches":
        index = torch.randint(20, (5, 3), generator=generator)
    else:
        grid = torch.randint(2, (5, 3), generator=generator)
        within = torch.rand(5, 3, generator=generator, dtype=torch.float64)
        index = torch.where(grid == 0, (4 * within).long(), 4 + (16 * within).long())
    assert torch.equal(boxes, patch_boxes(32, 48, (2, 4))[index])
    torch.manual_seed(7)
    assert torch.equal(boxes, method.sample_boxes(5, 32, 48))  # torch's own generator


def test_boxes_may_be_given_and_else_follow_the_generator():
    method = VAPNet(TinyBackbone(), 4, views=2, attributes=5, grids=(2, 4))
    drawn = [method.losses(**batch_of(), generator=seeded(s))["L_c"].item() for s in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    boxes = method.sample_boxes(3, 32, 32, seeded(1))
    assert method.losses(**batch_of(), boxes=boxes)["L_c"].item() == drawn[0]
    one = method.losses(**batch_of(), boxes=boxes[:, :1])["L_c"].item()  # any number of views
    other = method.losses(**batch_of(), boxes=boxes[:, 1:])["L_c"].item()
    assert one + other == pytest.approx(drawn[0], rel=1e-5)


def test_losses_equal_the_equations_computed_view_by_view():
    torch.manual_seed(0)
    method, batch = (
        VAPNet(TinyBackbone(), 4, views=2, attributes=5, constraint_weight=10, grids=(2, 4)),
        batch_of(),
    )
    with torch.no_grad():  # so that encoders and their means differ
        nn.init.normal_(method.classifier.weight)
        for parameter in (
            *method.mean_local_encoder.parameters(),
            *method.mean_global_encoder.parameters(),
        ):
            parameter.add_(torch.randn_like(parameter))
    terms = method.losses(**batch, generator=seeded(3))
    boxes = method.sample_boxes(3, 32, 32, seeded(3))
    cross_entropy, constraint = 0.0, 0.0
    for image, label, own_boxes in zip(batch["images"], batch["labels"], boxes, strict=True):
        full = method.backbone(image[None])
        embedding = full[0].mean((1, 2))
        cross_entropy -= F.log_softmax(method.classifier.weight @ embedding, 0)[label].item()
        for x1, y1, x2, y2 in own_boxes.tolist():
            view = F.interpolate(
                image[None, :, y1:y2, x1:x2], image.shape[-2:], mode="bilinear", align_corners=False
            )
            local = method.backbone(view)[0].mean((1, 2))
            roi = torch.tensor([[0, x1, y1, x2, y2]]).float()
            scale = full.shape[-1] / 32
            at_box = roi_align(full, roi, 7, scale, sampling_ratio=2, aligned=True)[0]
            at_box = at_box.mean((1, 2))
            constraint += kl(
                method.mean_global_encoder(local).tolist(), method.local_encoder(local).tolist()
            )
            constraint += kl(
                method.mean_local_encoder(at_box).tolist(), method.global_encoder(at_box).tolist()
            )
    assert terms["L_a"].item() == pytest.approx(cross_entropy / 3, rel=1e-4)
    assert terms["L_c"].item() == pytest.approx(10 * constraint / 3, rel=1e-4)


def test_all_images_and_views_go_through_one_backbone_call():
    method = VAPNet(TinyBackbone(), 4, views=3, attributes=5, grids=(2,))
    method.losses(**batch_of(count=2))
    assert method.backbone.calls == [(2 * (1 + 3), 3, 32, 32)]
    apart = VAPNet(TinyBackbone(), 4, views=3, attributes=5, grids=(2,), joint_batch=False)
    apart.losses(**batch_of(count=2))
    assert sorted(apart.backbone.calls) == [(2, 3, 32, 32), (6, 3, 32, 32)]


@pytest.mark.parametrize(
    "options, names, calls",
    [
        ({"constraint": "none"}, ["L_a"], (3, 3, 32, 32)),
        ({"constraint": "direct"}, ["L_a", "L_c"], (9, 3, 32, 32)),
        ({"constraint": "mean", "classification": False}, ["L_c"], (9, 3, 32, 32)),
        ({"constraint": "mean"}, ["L_a", "L_c"], (9, 3, 32, 32)),
    ],
)
def test_the_four_rows_of_table_1(options, names, calls):
    method = VAPNet(TinyBackbone(), 4, views=2, attributes=5, grids=(2, 4), **options)
    terms = method.losses(**batch_of())
    assert list(terms) == names and method.backbone.calls == [calls]
    sum(terms.values()).backward()
    without = [name for name, p in method.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []


def test_direct_constraint_uses_the_other_views_encoder_as_teacher():
    torch.manual_seed(0)
    method = VAPNet(TinyBackbone(), 4, views=2, attributes=5, constraint="direct")
    local, at_box = torch.randn(2, 3, 2, 6).unbind(0)
    expected = attribute_constraint(
        method.local_encoder(local),
        method.global_encoder(at_box),
        method.global_encoder(local),
        method.local_encoder(at_box),
    )
    torch.testing.assert_close(method.constrain(local, at_box), expected)


@pytest.mark.parametrize("through", [False, True])
def test_mean_encoders_do_not_learn_and_pass_gradients_only_if_asked(through):
    torch.manual_seed(0)
    method = VAPNet(
        TinyBackbone(), 4, views=2, attributes=5, teacher="gradients" if through else "printed"
    )
    local, at_box = torch.randn(2, 3, 2, 6).unbind(0)
    local.requires_grad_()
    # The own encoders are silenced: only the teacher's way is left for a gradient to the features.
    nn.init.zeros_(method.local_encoder.weight)
    method.constrain(local, at_box).backward()
    assert (local.grad.abs().sum() > 0) == through
    assert all(p.grad is None for p in method.mean_local_encoder.parameters())


def test_equation_7_over_three_steps():
    torch.manual_seed(0)
    method = VAPNet(TinyBackbone(), 4, attributes=5, update_ratio=0.2)
    expected = method.local_encoder.weight.clone()
    torch.testing.assert_close(method.mean_local_encoder.weight, expected)  # E^(0)[T] = theta
    for _ in range(3):
        with torch.no_grad():
            method.local_encoder.weight.add_(torch.randn_like(method.local_encoder.weight))
        method.after_step()
        expected = 0.8 * expected + 0.2 * method.local_encoder.weight
        torch.testing.assert_close(method.mean_local_encoder.weight, expected)


def test_embedding_is_pooled_features_of_unit_length():
    method, images = VAPNet(TinyBackbone(), 4), torch.randn(2, 3, 32, 32)
    pooled = method.backbone(images).mean((2, 3))
    torch.testing.assert_close(method.embed(images), pooled / pooled.norm(dim=1, keepdim=True))


def test_freeze_norm_keeps_statistics_and_trains_the_rest():
    backbone = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6))
    backbone.channels = 6
    method = VAPNet(backbone, 4, constraint="none", freeze_norm=True).train()
    before = backbone[1].running_mean.clone()
    method.losses(**batch_of())["L_a"].backward()
    assert torch.equal(backbone[1].running_mean, before) and backbone[1].weight.grad is not None


@pytest.mark.parametrize(
    "options, message",
    [
        ({"constraint": "avarage"}, "constraint is 'avarage'"),
        ({"constraint": "none", "classification": False}, "no loss is left"),
        ({"update_ratio": 1.0}, "update_ratio is 1.0"),
        ({"views": 0}, "views"),
        ({"uniform_over": "pixels"}, "uniform_over is 'pixels'"),
        ({"temperature": 0.0}, "temperature"),
        ({"grids": ()}, "grids"),
    ],
)
def test_impossible_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        VAPNet(TinyBackbone(), 4, **options)
