"""Against naive loops written from the paper: Algorithm 1, and eq. 7-12 and 16."""

import itertools

import pytest
import torch
from torch import nn

from fieldmarks.methods.fcaenet import (
    EPSILON,
    FCAENet,
    attention,
    class_agreement,
    erase_mask,
    negative_value,
    similarity,
    update_codes,
)
from fieldmarks.methods.hashing import to_codes


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


# Attention and erasing


def naive_attention(features, height, width):
    """Eq. 3-4; bilinear interpolation at pixel centres."""
    channels, h, w = features.shape
    mean = [
        [sum(features[c, y, x].item() for c in range(channels)) / channels for x in range(w)]
        for y in range(h)
    ]

    def between(position, length, size):
        place = min(max((position + 0.5) * length / size - 0.5, 0), length - 1)
        low = int(place)
        return low, min(low + 1, length - 1), place - low

    large = torch.zeros(height, width, dtype=torch.float64)
    for y, x in itertools.product(range(height), range(width)):
        (top, bottom, down), (left, right, across) = between(y, h, height), between(x, w, width)
        large[y, x] = (1 - down) * (
            (1 - across) * mean[top][left] + across * mean[top][right]
        ) + down * ((1 - across) * mean[bottom][left] + across * mean[bottom][right])
    return (large - large.min()) / (large.max() - large.min()) + EPSILON


def naive_erase_mask(attention, regions, size):
    """Algorithm 1 with inclusive boxes: rank, pad right and below, erase from each corner, cut."""
    height, width = attention.shape
    pixels = sorted(
        ((y, x) for y in range(height) for x in range(width)),
        key=lambda at: (-attention[at].item(), at),
    )
    padded = torch.ones(height + size, width + size)
    for y, x in pixels[:regions]:
        for j, k in itertools.product(range(size), range(size)):
            padded[y + j, x + k] = 0
    return padded[:height, :width]


def test_attention_is_equation_3_and_4_also_where_height_and_width_differ():
    features = torch.randn(3, 5, 3, 4, generator=seeded())
    result = attention(features, (9, 14))
    for one, image in zip(result, features, strict=True):
        torch.testing.assert_close(one.double(), naive_attention(image, 9, 14), atol=1e-6, rtol=0)
    assert attention(features, 12).shape == (3, 12, 12)


def test_attention_of_a_flat_map_is_flat_and_a_number():
    assert torch.equal(attention(torch.full((1, 4, 3, 3), 0.7), 6), torch.full((1, 6, 6), EPSILON))


@pytest.mark.parametrize(
    "regions, size", [(1, 1), (1, 5), (7, 3), (20, 2), (143, 4), (11 * 13, 1), (5, 11)]
)
def test_mask_is_algorithm_1_on_asymmetric_maps(regions, size):
    maps = torch.rand(4, 11, 13, generator=seeded(regions))
    result = erase_mask(maps, regions, size)
    assert result.shape == (4, 1, 11, 13) and result.dtype == torch.float32
    for one, image in zip(result, maps, strict=True):
        assert torch.equal(one[0], naive_erase_mask(image, regions, size))


@pytest.mark.parametrize("regions", [1, 3, 10, 40])
def test_equal_values_are_taken_row_by_row(regions):
    maps = torch.randint(3, (6, 8, 9), generator=seeded(regions)).float()
    for one, image in zip(erase_mask(maps, regions, 2), maps, strict=True):
        assert torch.equal(one[0], naive_erase_mask(image, regions, 2))
    flat = erase_mask(torch.zeros(1, 5, 6), 3, 1)
    assert (1 - flat).nonzero().tolist() == [[0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 0, 2]]


def test_a_peak_at_the_border_is_clipped_there():
    maps = torch.zeros(1, 6, 7)
    maps[0, 5, 6] = 1
    assert (1 - erase_mask(maps, 1, 4)).nonzero().tolist() == [[0, 0, 5, 6]]
    maps[0, 0, 5] = 2
    assert (1 - erase_mask(maps, 1, 3)).sum() == 6  # 3 rows, 2 columns


def test_scaling_the_map_leaves_the_mask_alone():
    maps = torch.rand(2, 10, 12, generator=seeded())
    assert torch.equal(erase_mask(maps, 9, 3), erase_mask(5 * maps + 3, 9, 3))


def test_real_maps_give_one_blob_not_scattered_boxes():
    """50 regions of 32 px erase about 3 per cent: the hottest pixels of an enlarged map adjoin."""
    features = torch.rand(16, 64, 7, 7, generator=seeded())
    erased = 1 - erase_mask(attention(features, 224), 50, 32).mean().item()
    assert 0.02 < erased < 0.05


@pytest.mark.parametrize(
    "regions, size, message",
    [
        (50, 9, "9 x 9 px do not fit an image of 8 x 10: use a size of 1 to 8"),
        (50, 0, "use a size of 1 to 8"),
        (81, 2, "81 regions, but the image has 80 pixels"),
        (0, 2, "use 1 to 80"),
    ],
)
def test_impossible_regions_are_refused(regions, size, message):
    with pytest.raises(ValueError, match=message):
        erase_mask(torch.rand(1, 8, 10), regions, size)


def test_a_map_that_is_not_a_number_is_refused():
    maps = torch.rand(2, 8, 8)
    maps[1, 3, 3] = torch.nan
    with pytest.raises(ValueError, match="not numbers .the network has diverged"):
        erase_mask(maps, 3, 2)


# Similarity and the code update


def test_similarity_balances_positive_and_negative_pairs():
    rows, columns = torch.tensor([0, 1, 1]), torch.tensor([0, 0, 1, 2, 1])
    result = similarity(rows, columns)
    same = [[int(a == b) for b in columns.tolist()] for a in rows.tolist()]
    positive = sum(map(sum, same))
    for i, j in itertools.product(range(3), range(5)):
        assert result[i, j].item() == pytest.approx(
            1 if same[i][j] else -positive / (15 - positive)
        )
    assert result.sum().item() == pytest.approx(0, abs=1e-6)
    assert set(similarity(rows, columns, -1.0).flatten().tolist()) == {1.0, -1.0}
    with pytest.raises(ValueError, match="all images are of one class: hashing needs at least two"):
        similarity(torch.zeros(3, dtype=torch.long), torch.zeros(4, dtype=torch.long))


def objective(codes, outputs, similarity, sampled, gamma):
    """J by loops over all pairs: eq. 16 and ADSH's second term."""
    bits, total = codes.shape[1], 0.0
    for i, j in itertools.product(range(len(outputs)), range(len(codes))):
        product = sum(outputs[i, b].item() * codes[j, b].item() for b in range(bits))
        total += (product - bits * similarity[i, j].item()) ** 2
    if gamma:
        for i, j in enumerate(sampled.tolist()):
            total += gamma * sum(
                (codes[j, b].item() - outputs[i, b].item()) ** 2 for b in range(bits)
            )
    return total


def problem(seed, images=5, rows=4, bits=3, classes=3):
    generator = seeded(seed)
    labels = torch.cat(
        [torch.arange(classes), torch.randint(classes, (images - classes,), generator=generator)]
    )
    sampled = torch.randperm(images, generator=generator)[:rows]
    outputs = torch.rand(rows, bits, generator=generator, dtype=torch.float64) * 2 - 1
    codes = torch.randint(2, (images, bits), generator=generator).double() * 2 - 1
    return codes, outputs, similarity(labels[sampled], labels), sampled, labels


@pytest.mark.parametrize("gamma", [0.0, 3.0])
@pytest.mark.parametrize("seed", range(8))
def test_each_column_in_turn_takes_its_best_value_of_all(seed, gamma):
    codes, outputs, wanted, sampled, _ = problem(seed)
    current = codes.clone()
    for bit in range(codes.shape[1]):
        trials = []
        for column in itertools.product((-1.0, 1.0), repeat=len(codes)):
            trial = current.clone()
            trial[:, bit] = torch.tensor(column)
            trials.append((objective(trial, outputs, wanted, sampled, gamma), trial))
        current = min(trials, key=lambda pair: pair[0])[1]
    assert torch.equal(update_codes(codes, outputs, wanted, sampled, gamma), current)


@pytest.mark.parametrize("gamma", [0.0, 1.0, 200.0])
def test_j_never_rises_and_comes_to_rest(gamma):
    for seed in range(20):
        codes, outputs, wanted, sampled, _ = problem(seed, images=12, rows=7, bits=5)
        before = objective(codes, outputs, wanted, sampled, gamma)
        for _ in range(6):
            codes = update_codes(codes, outputs, wanted, sampled, gamma)
            after = objective(codes, outputs, wanted, sampled, gamma)
            assert after <= before + 1e-9
            before = after
        assert torch.equal(update_codes(codes, outputs, wanted, sampled, gamma), codes)


def test_the_printed_update_would_raise_j():
    """Eq. 17 with Q = S'U, from codes that the exact update has settled: why we depart from it."""
    risen = 0
    for seed in range(20):
        codes, outputs, wanted, sampled, _ = problem(seed, images=40, rows=30, bits=6, classes=8)
        for _ in range(5):
            codes = update_codes(codes, outputs, wanted)
        printed = codes.clone()
        for m in range(6):
            others = [b for b in range(6) if b != m]
            step = (
                printed[:, others] @ outputs[:, others].T @ outputs[:, m]
                - 2 * 6 * (wanted.T.double() @ outputs)[:, m]
            )
            printed[:, m] = torch.where(-step >= 0, 1.0, -1.0)
        risen += (
            objective(printed, outputs, wanted, sampled, 0)
            > objective(codes, outputs, wanted, sampled, 0) + 1e-9
        )
    assert risen > 10


def test_permuting_the_database_permutes_its_codes():
    codes, outputs, wanted, _, _ = problem(3, images=12, rows=7, bits=5)
    order = torch.randperm(12, generator=seeded())
    assert torch.equal(
        update_codes(codes[order], outputs, wanted[:, order]),
        update_codes(codes, outputs, wanted)[order],
    )


def test_class_sums_give_what_the_whole_similarity_gives():
    codes, outputs, _, sampled, labels = problem(5, images=30, rows=11, bits=4, classes=6)
    for negative in (negative_value("balanced", labels[sampled], labels), -1.0):
        dense = similarity(labels[sampled], labels, negative).double().T @ outputs
        torch.testing.assert_close(
            class_agreement(outputs, labels[sampled], labels, negative), dense
        )


def test_literal_minus_one_collapses_the_codes_and_balance_does_not():
    labels = torch.arange(40).repeat_interleave(5)
    centres = torch.randn(40, 8, generator=seeded())
    outputs = (centres[labels] + 0.3 * torch.randn(200, 8, generator=seeded(1))).tanh()
    start = torch.randint(2, (200, 8), generator=seeded(2)) * 2.0 - 1
    distinct = {}
    for negative in ("balanced", -1.0):
        codes = start
        for _ in range(4):
            codes = update_codes(codes, outputs, similarity(labels, labels, negative))
        distinct[negative] = len(codes.unique(dim=0))
    assert distinct["balanced"] > 30 and distinct[-1.0] < 10


@pytest.mark.parametrize(
    "change, message",
    [
        ({"outputs": torch.zeros(4, 2)}, "do not fit: they must be"),
        ({"similarity": torch.zeros(5, 4)}, "do not fit"),
        ({"gamma": 1.0}, "give `sampled`"),
        ({"outputs": torch.full((4, 3), torch.nan)}, "not numbers .the network has diverged"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    codes, outputs, wanted, _, _ = problem(0)
    with pytest.raises(ValueError, match=message):
        update_codes(**{"codes": codes, "outputs": outputs, "similarity": wanted, **change})


# The method


class Backbone(nn.Module):
    channels = 6

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(3, 6, 4, stride=4)
        self.seen = []

    def forward(self, images):
        self.seen.append(images.detach().clone())
        return self.convolution(images).relu()


LABELS = torch.arange(12) % 4


def build(**options):
    torch.manual_seed(0)
    model = FCAENet(Backbone(), 5, LABELS, regions=3, region_size=4, **options)
    nn.init.normal_(
        model.hash_layer.weight, std=0.5
    )  # it starts at zero, where all outputs are alike
    return model


def test_first_codes_are_random_for_each_image_or_one_for_each_class():
    assert len(build().codes.unique(dim=0)) > 4
    alike = build(first_codes="class").codes
    assert all(len(alike[LABELS == c].unique(dim=0)) == 1 for c in range(4))
    assert len(alike.unique(dim=0)) == 4 and alike.abs().eq(1).all()
    assert torch.equal(alike, build(first_codes="class", seed=0).codes)
    assert not torch.equal(alike, build(first_codes="class", seed=1).codes)
    with pytest.raises(ValueError, match="first_codes is 'bit': it must be one of image, class"):
        build(first_codes="bit")


def a_batch(count=6, seed=1):
    index = torch.randperm(12, generator=seeded(seed))[:count]
    images, positives = torch.randn(2, count, 3, 16, 16, generator=seeded(seed + 1)).unbind(0)
    return {"images": images, "positives": positives, "labels": LABELS[index], "index": index}


def naive_j(outputs, labels, model):
    total, n, bits = 0.0, len(LABELS), model.bits
    wanted = similarity(LABELS, LABELS)
    for i in range(len(outputs)):
        for j in range(n):
            product = sum((outputs[i, b] * model.codes[j, b]).item() for b in range(bits))
            total += (
                product - bits * wanted[int(labels[i]), j].item()
            ) ** 2  # the first four rows of S are of classes 0 to 3
    return total / (len(outputs) * n) * 12 / bits


def naive_distance(a, b):
    return (
        sum((x - y).item() ** 2 for x, y in zip(a.flatten(), b.flatten(), strict=True)) / a.numel()
    )


def test_losses_are_equation_12_with_the_erased_images_in_the_same_step():
    model, batch = build(self_weight=0.3, others_weight=0.7), a_batch()
    terms = model.losses(**batch)
    together, erased = model.backbone.seen
    assert torch.equal(together, torch.cat([batch["images"], batch["positives"]]))
    for image, hidden in zip(batch["images"], erased, strict=True):
        heat = naive_attention(model.backbone.convolution(image[None]).relu()[0].detach(), 16, 16)
        assert torch.equal(hidden, naive_erase_mask(heat.float(), 3, 4) * image)
    u, positive, hidden = (
        model.embed(x).detach() for x in (batch["images"], batch["positives"], erased)
    )
    assert terms["J"].item() == pytest.approx(naive_j(u, batch["labels"], model), rel=1e-5)
    assert terms["L_self"].item() == pytest.approx(0.3 * naive_distance(u, hidden), rel=1e-5)
    assert terms["L_others"].item() == pytest.approx(0.7 * naive_distance(u, positive), rel=1e-5)


def test_the_variants_of_table_2():
    batch = a_batch()
    baseline = build(erase=False, relate=False)
    assert (
        set(baseline.losses(**batch)) == {"J"}
        and len(baseline.backbone.seen) == 1
        and len(baseline.backbone.seen[0]) == 6
    )
    erasing = build(relate=False)
    terms = erasing.losses(**batch)
    hidden = erasing.embed(erasing.backbone.seen[1]).detach()
    both = (
        naive_j(erasing.embed(batch["images"]).detach(), batch["labels"], erasing)
        + naive_j(hidden, batch["labels"], erasing)
    ) / 2
    assert set(terms) == {"J"} and terms["J"].item() == pytest.approx(both, rel=1e-5)
    relating = build(erase=False)
    assert set(relating.losses(**batch)) == {"J", "L_others"} and len(relating.backbone.seen) == 1


def test_the_mask_passes_no_gradient_and_the_triplet_does():
    model, batch = build(), a_batch()
    sum(model.losses(**batch).values()).backward()
    assert model.backbone.convolution.weight.grad.abs().sum() > 0
    features = torch.rand(1, 6, 4, 4, requires_grad=True)
    assert not erase_mask(attention(features.detach(), 16), 3, 4).requires_grad


def test_codes_are_renewed_at_the_end_of_an_iteration_from_all_that_was_sampled_in_it():
    model = build()
    start = model.codes.clone()
    first, second = a_batch(seed=1), a_batch(seed=5)
    given = {}
    for batch in (first, second):
        model.losses(**batch)
        assert torch.equal(model.codes, start)
        for index, u in zip(
            batch["index"].tolist(), model.embed(batch["images"]).detach(), strict=True
        ):
            given[index] = u  # the latest of an image that came twice
        model.after_step()
    model.after_epoch()
    rows = torch.tensor(sorted(given))
    expected = update_codes(
        start,
        torch.stack([given[i] for i in rows.tolist()]),
        similarity(LABELS[rows], LABELS, model.negative),
    )
    assert torch.equal(model.codes, expected) and not torch.equal(model.codes, start)
    assert not model.sampled.any() and set(model.codes.flatten().tolist()) == {-1.0, 1.0}


def test_adsh_pulls_codes_towards_outputs():
    model = build(erase=False, relate=False, quantisation=1e6)
    batch = a_batch()
    model.losses(**batch)
    outputs = model.embed(batch["images"]).detach()
    model.renew_codes()
    assert torch.equal(model.codes[batch["index"]], to_codes(outputs))


def test_what_is_saved_is_enough_to_go_on():
    straight, stopped = build(), build()
    for model in (straight, stopped):
        model.losses(**a_batch(seed=1))
        model.after_step()
    resumed = build(seed=9)
    resumed.load_state_dict(stopped.state_dict())
    for model in (straight, resumed):
        model.losses(**a_batch(seed=5))
        model.after_step()
        model.after_epoch()
    assert torch.equal(straight.codes, resumed.codes)


def test_the_hash_layer_learns_from_zero_and_has_its_own_learning_rate():
    model, batch = FCAENet(Backbone(), 5, LABELS, regions=3, region_size=4, hash_lr=0.01), a_batch()
    assert not model.embed(batch["images"]).any()
    sum(model.losses(**batch).values()).backward()
    assert (model.hash_layer.weight.grad.abs().sum(1) > 0).all()
    rates = {
        id(p): group["lr"] for group in model.parameter_groups(0.5, 1e-4) for p in group["params"]
    }
    assert {rates[id(p)] for p in model.hash_layer.parameters()} == {0.005}
    assert {rates[id(p)] for p in model.backbone.parameters()} == {0.5} and len(rates) == 4


@pytest.mark.parametrize(
    "options, message",
    [
        ({"self_weight": -1.0}, "self_weight is -1.0: it must be at least 0"),
        ({"quantisation": -1.0}, "quantisation is -1.0: it must be at least 0"),
        ({"regions": 0}, "regions is 0: it must be at least 1"),
        ({"negative": "literal"}, "negative is 'literal': it must be 'balanced' or a number"),
    ],
)
def test_impossible_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        FCAENet(Backbone(), 5, LABELS, **options)


def test_relating_needs_positives():
    batch = a_batch()
    del batch["positives"]
    with pytest.raises(ValueError, match="positives are missing: relate compares each image with"):
        build().losses(**batch)
    assert set(build(relate=False).losses(**batch)) == {"J"}


def test_codes_stay_where_nothing_was_sampled():
    model = build()
    start = model.codes.clone()
    model.renew_codes()
    assert torch.equal(model.codes, start)
    model.losses(**a_batch())
    model.renew_codes()
    renewed = model.codes.clone()
    model.after_epoch()
    assert torch.equal(model.codes, renewed) and not torch.equal(renewed, start)
