import math

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

from fieldmarks.evaluation.explanations import (
    compare,
    contrast,
    correctness,
    mass,
    named,
    near_parts,
    painted,
    pointing,
    references,
    sanity,
    similarity_changes,
    spread,
    summarise,
)
from fieldmarks.evaluation.statistics import bootstrap_interval, holm, paired_bootstrap

nan = math.nan


@pytest.fixture
def scene():
    """Maps with ties, what changed, the bird, and parts, of 12 pictures."""
    generator = torch.Generator().manual_seed(0)
    maps = torch.randint(0, 5, (12, 6, 7), generator=generator).float()
    parts = torch.rand(12, 5, 6, 7, generator=generator) < 0.2
    parts[:, 3] = False  # never visible
    changes = torch.randn(12, 5, generator=generator)
    return maps, parts, changes


def cells(mask):
    return [(y, x) for y in range(len(mask)) for x in range(len(mask[0])) if mask[y][x]]


def test_pointing_and_mass_against_loops(scene):
    maps, parts, _ = scene
    changed, bird = parts[:, 0], parts.any(1)
    points, masses = pointing(maps, changed), mass(maps, changed, bird)
    assert points.dtype == masses.dtype == torch.float64
    for row in range(12):
        heat, there = maps[row].tolist(), cells(changed[row].tolist())
        top = max(max(line) for line in heat)
        peaks = [(y, x) for y in range(6) for x in range(7) if heat[y][x] == top]
        assert points[row] == pytest.approx(sum(p in there for p in peaks) / len(peaks))
        share = sum(heat[y][x] for y, x in there) / sum(map(sum, heat))
        area = len(there) / len(cells(bird[row].tolist()))
        assert masses[row] == pytest.approx(share / area)


def test_correctness_against_scipy(scene):
    maps, parts, changes = scene
    changes[0, 1] = nan  # unknown
    scores = correctness(maps, parts, changes)
    for row in range(12):
        density, fall = [], []
        for part, change in zip(parts[row], changes[row].tolist(), strict=True):
            if part.any() and not math.isnan(change):
                density.append(float(maps[row][part].mean()))
                fall.append(change / int(part.sum()))
        assert len(density) == (3 if row == 0 else 4)
        assert scores[row] == pytest.approx(spearmanr(density, fall).statistic)


def test_spread_against_a_loop(scene):
    maps, parts, _ = scene
    scores = spread(maps, parts)
    for row in range(12):
        means = [float(maps[row][part].mean()) for part in parts[row] if part.any()]
        shares = [mean / sum(means) for mean in means]
        entropy = -sum(share * math.log(share) for share in shares if share > 0)
        assert scores[row] == pytest.approx(math.exp(entropy) / len(means))
    assert spread(maps * 0 + 1, parts) == pytest.approx(1)
    assert spread(maps * 0, parts).isnan().all()
    alone = parts.clone()
    alone[:, 1:] &= ~alone[:, :1]
    heat = alone[:, 0].float()
    assert spread(heat, alone) == pytest.approx(1 / alone.flatten(2).any(2).sum(1).double())
    with pytest.raises(ValueError, match="at least 0 everywhere"):
        spread(-maps, parts)


def test_correctness_where_there_is_nothing_to_rank():
    parts = torch.eye(6, dtype=torch.bool).view(1, 6, 2, 3)
    maps, changes = torch.arange(6.0).view(1, 2, 3), torch.arange(6.0)[None]
    assert correctness(maps, parts, changes).item() == pytest.approx(1)
    assert correctness(-maps, parts, changes).item() == pytest.approx(-1)
    assert correctness(maps * 0, parts, changes).item() == 0  # says nothing, is not left out
    assert correctness(maps, parts, changes * 0).isnan().item()  # nothing to find
    assert correctness(maps, parts[:, :3], changes[:, :3]).item() == pytest.approx(1)
    assert correctness(maps, parts[:, :2], changes[:, :2]).isnan().item()
    assert correctness(maps, parts[:, :1], changes[:, :1]).isnan().item()


def test_means_that_differ_by_rounding_are_tied():
    """Means of 0.3 over 3, 7 and 11 pixels are 0.3 but for the last digits."""
    parts = torch.zeros(1, 3, 1, 21, dtype=torch.bool)
    parts[0, 0, 0, :3], parts[0, 1, 0, 3:10], parts[0, 2, 0, 10:] = True, True, True
    maps = torch.full((1, 1, 21), 0.3, dtype=torch.float64)
    assert correctness(maps, parts, torch.tensor([[1.0, 2.0, 5.0]])).item() == 0


def test_empty_flat_and_impossible():
    changed = torch.zeros(4, 4, 4, dtype=torch.bool)
    changed[:3, 0] = True
    bird = torch.zeros(4, 4, 4, dtype=torch.bool)
    bird[:, :2] = True
    bird[2] = False
    maps = torch.ones(4, 4, 4)
    maps[1] = 0
    assert pointing(maps, changed)[:3].tolist() == [0.25, 0.25, 0.25]  # chance
    assert pointing(maps, changed)[3].isnan()  # nothing changed
    scores = mass(maps, changed, bird)
    assert scores[0] == pytest.approx(0.25 / 0.5) and scores[1:].isnan().all()


def test_masks_of_what_changed_score_best(scene):
    _, parts, changes = scene
    parts = torch.zeros_like(parts)
    for part in range(5):
        parts[:, part, part] = True  # rows, which do not overlap
    changed, bird = parts[:, 4], parts.any(1)
    maps = references(changed, bird)
    assert list(maps) == ["uniform", "middle", "outline", "changed"]
    assert all(
        each.shape == changed.shape and each.dtype == torch.float32 for each in maps.values()
    )
    points = {name: pointing(each, changed) for name, each in maps.items()}
    masses = {name: mass(each, changed, bird) for name, each in maps.items()}
    for name, expected in {"uniform": 7 / 42, "middle": 0, "outline": 0.2, "changed": 1}.items():
        assert points[name].tolist() == pytest.approx([expected] * 12)
    for name, expected in {"uniform": 5 / 6, "outline": 1, "changed": 5}.items():
        assert masses[name].tolist() == pytest.approx([expected] * 12)
    assert correctness(painted(parts, changes), parts, changes).tolist() == pytest.approx([1] * 12)
    assert correctness(maps["uniform"], parts, changes).tolist() == [0] * 12
    middle = maps["middle"][0]
    assert middle[2:4, 3].tolist() == pytest.approx([middle.max().item()] * 2)
    assert torch.equal(middle, middle.flip(0)) and torch.equal(middle, middle.flip(1))
    assert middle[2, 3] / middle[2, 3 + 1] == pytest.approx(math.exp(0.5 / 1.2**2), rel=1e-4)


def test_similarity_changes():
    query, match, twins = torch.randn(2, 4), torch.randn(2, 4), torch.randn(2, 3, 4)
    cosine = lambda a, b: float(a @ b / (a.norm() * b.norm()))
    wanted = [
        [cosine(query[n], match[n]) - cosine(query[n], twins[n, p]) for p in range(3)]
        for n in range(2)
    ]
    found = similarity_changes(query, match, twins)
    torch.testing.assert_close(found.float(), torch.tensor(wanted))


def test_ranks_of_the_exchanged_attribute():
    before = torch.zeros(6, 4)
    after = torch.tensor(
        [
            [0.1, -0.5, 0.2, 0.0],  # third of four by size, sign is no matter
            [0.1, -0.5, 0.2, 0.0],  # two concepts of the mark: the first counts
            [0.3, 0.3, 0.3, 0.0],  # one of three that are tied
            [0.0, 0.0, 0.0, 0.0],  # nothing changed
            [0.1, 0.2, 0.3, 0.4],  # no concept of the mark
            [0.0, 0.1, 0.0, 0.0],  # did not move: tied with two others behind the first
        ]
    )
    exchanged = torch.zeros(6, 4, dtype=torch.bool)
    exchanged[:, 0] = True
    exchanged[1, 2], exchanged[4, 0] = True, False
    assert named(before, after, exchanged).tolist() == pytest.approx(
        [3, 2, 2, nan, nan, 3], nan_ok=True
    )
    with pytest.raises(ValueError, match=r"\(N, M\)"):
        named(before, after[:2], exchanged)
    with pytest.raises(ValueError, match="NaN"):
        named(before, after.masked_fill(exchanged, nan), exchanged)


@pytest.fixture
def marked(scene):
    """Parts and boxes of the 12 pictures of the scene; some are not visible."""
    generator = torch.Generator().manual_seed(1)
    parts = torch.rand(12, 4, 2, generator=generator) * torch.tensor([7.0, 6.0])
    parts[2, 1], parts[3], parts[4, 0, 1] = nan, nan, nan
    parts[5, 2], parts[6, :, 0] = torch.tensor([7.5, 2.0]), -0.1  # beside the map
    boxes = torch.rand(12, 4, generator=generator) * 5 + 2
    boxes[7] = nan
    return scene[0], parts, boxes


def test_near_parts_against_a_loop(marked):
    maps, parts, boxes = marked
    hit, distance = near_parts(maps, parts, boxes, within=0.25)
    assert hit.dtype == distance.dtype == torch.float64
    for row in range(12):
        heat, side = maps[row].tolist(), max(boxes[row, 2:].tolist())
        top = max(max(line) for line in heat)
        there = [(x, y) for x, y in parts[row].tolist() if 0 <= x <= 7 and 0 <= y <= 6]
        if row in (3, 6, 7):
            assert hit[row].isnan() and distance[row].isnan()
            continue
        far = [
            min(math.hypot(x + 0.5 - a, y + 0.5 - b) for a, b in there) / side
            for y in range(6)
            for x in range(7)
            if heat[y][x] == top
        ]
        assert len(there) == {2: 3, 4: 3, 5: 3}.get(row, 4)
        assert distance[row] == pytest.approx(sum(far) / len(far))
        assert hit[row] == pytest.approx(sum(each <= 0.25 for each in far) / len(far))
    assert 0 < hit.nanmean() < 1


def test_near_parts_of_ties_flat_maps_and_any_order(marked):
    maps, parts, boxes = marked
    maps[:] = 0
    maps[:, 0, 0] = maps[:, 5, 6] = 1  # one of two maxima on a part
    parts[:] = nan
    parts[:, 2] = torch.tensor([0.5, 0.5])
    boxes[:] = torch.tensor([0, 0, 3, 10.0])
    hit, distance = near_parts(maps, parts, boxes)
    assert hit.tolist() == [0.5] * 12
    assert distance.tolist() == pytest.approx([math.hypot(6, 5) / 20] * 12)
    # a flat map scores what a random place would: 3 of 42 pixels within one pixel of the corner's
    assert near_parts(maps * 0, parts, boxes).hit.tolist() == pytest.approx([3 / 42] * 12)
    order = torch.tensor([3, 1, 0, 2])
    other = near_parts(maps, parts[:, order], boxes * torch.tensor([5, -2, 1, 1]))
    assert torch.equal(other.hit, hit) and torch.equal(other.distance, distance)


def test_the_middle_is_near_parts_of_what_stands_there():
    """Floors: a blob in the middle beats a random place where a photographer put the bird there."""
    there = torch.ones(1, 40, 40, dtype=torch.bool)
    floors = references(there, there)
    boxes, parts = torch.tensor([[10.0, 10, 20, 16]]), torch.tensor([[[21.0, 20], [12, 28]]])
    random, middle = (near_parts(floors[name], parts, boxes) for name in ("uniform", "middle"))
    assert middle.hit.item() == 1 and random.hit.item() < 0.05
    assert middle.distance.item() < 0.1 < 0.5 < random.distance.item()


def test_contrast():
    one = torch.rand(1, 5, 5)
    other = torch.rand(1, 5, 5)
    wanted = 1 - torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1]
    assert contrast(one, other).item() == pytest.approx(wanted.item(), abs=1e-6)
    assert contrast(one, one).item() == 0
    assert contrast(one, 1 - one).item() == pytest.approx(2)
    assert contrast(one * 0, one * 0).item() == 0 and contrast(one, one * 0).isnan().item()


class Sees(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 4, 3, padding=1),
        )


def test_sanity_tells_what_depends_on_the_weights_and_puts_them_back():
    network, images = Sees(), torch.randn(3, 3, 8, 8)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network.layers[0].weight.requires_grad_(False)
    learnt = lambda: network.layers(images).mean(1)  # in training mode: statistics move
    edges = lambda: images.abs().mean(1)
    picture = sanity(edges, network, steps=3)
    assert picture.shape == (3, 3) and torch.allclose(picture, torch.ones(3, 3).double())
    weights = sanity(learnt, network, steps=3)
    assert weights[-1].abs().mean() < 0.6 and (weights[0] < 0.999).all()
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not network.layers[0].weight.requires_grad and network.layers[3].weight.requires_grad
    assert all(parameter.grad is None for parameter in network.parameters())
    network.eval()
    again = sanity(learnt, network, steps=3, seed=1)
    assert torch.equal(sanity(learnt, network, steps=3, seed=1), again)
    assert not torch.equal(sanity(learnt, network, steps=3, seed=2), again)


def test_sanity_randomises_from_the_output_down():
    network = Sees().eval()
    before = [layer.weight.clone() for layer in network.layers if hasattr(layer, "weight")]
    changed = []

    def explain():
        now = [layer.weight for layer in network.layers if hasattr(layer, "weight")]
        changed.append([not torch.equal(a, b) for a, b in zip(before, now, strict=True)])
        for a, b in zip(before, now, strict=True):
            assert a.flatten().sort().values.equal(b.detach().flatten().sort().values)
        return torch.rand(1, 4, 4)

    sanity(explain, network, steps=3)
    # weights of the normalisation are all ones, which shuffling leaves as they are
    last = [False, False, True]
    assert changed == [[False, False, False], last, last, [True, False, True]]


def test_sanity_of_maps_that_break_down_and_of_what_raises():
    network, calls = Sees(), []
    before = {name: value.clone() for name, value in network.state_dict().items()}
    answers = [torch.rand(2, 4, 4), torch.zeros(2, 4, 4), torch.full((2, 4, 4), nan)]
    answers[0][1] = 0.5  # flat from the first

    def explain():
        calls.append(1)
        if len(calls) > 3:
            raise KeyError("broken")
        return answers[len(calls) - 1]

    scores = sanity(explain, network, steps=2)
    assert scores[:, 0].tolist() == [0, 0] and scores[:, 1].isnan().all()
    calls.clear()
    with pytest.raises(KeyError, match="broken"):
        sanity(explain, network, steps=3)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    with pytest.raises(ValueError, match="4 steps, but the network has 3 layers"):
        sanity(explain, network, steps=4)


def test_summaries_and_comparisons_are_those_of_statistics():
    generator = torch.Generator().manual_seed(0)
    good = torch.rand(40, generator=generator).double()
    scores = {"good": good, "same": good.clone(), "poor": good - 0.2}
    scores["poor"][3] = nan
    groups = [number // 2 for number in range(40)]
    assert summarise(good, groups=groups)[:3] == bootstrap_interval(good, groups=groups)
    summary = summarise(scores["poor"])
    assert summary[:3] == bootstrap_interval(good[good != good[3]] - 0.2)
    assert (summary.pairs, summary.left_out) == (39, 1)
    nothing = summarise(torch.full((5,), nan))
    assert nothing.pairs == 0 and nothing.left_out == 5 and math.isnan(nothing.mean)
    rows = compare(scores, groups=groups, resamples=500)
    assert [row[:2] for row in rows] == [("good", "same"), ("good", "poor"), ("same", "poor")]
    assert [row.pairs for row in rows] == [40, 39, 39]
    kept = [number for number in range(40) if number != 3]
    of_kept = [groups[number] for number in kept]
    wanted = paired_bootstrap(good[kept], good[kept] - 0.2, groups=of_kept, resamples=500)
    assert rows[1][2:5] == pytest.approx(wanted)
    assert [row.p for row in rows] == pytest.approx(holm([1.0, 2 / 501, 2 / 501]))
    assert rows[0].p == 1 and rows[0].mean == 0
    assert [row[:2] for row in compare(scores, "same")] == [("good", "same"), ("poor", "same")]
    empty = compare({"good": good, "none": torch.full((40,), nan)})[0]
    assert empty.p == 1 and empty.pairs == 0 and math.isnan(empty.mean)
    assert compare({"good": good}) == []


def test_bad_input(scene):
    maps, parts, changes = scene
    with pytest.raises(ValueError, match=r"of one shape \(N, H, W\)"):
        pointing(maps, parts[:, 0, :3])
    with pytest.raises(ValueError, match=r"parts \(N, P, H, W\)"):
        correctness(maps, parts[:, 0], changes)
    with pytest.raises(ValueError, match=r"changes must be \(12, 5\)"):
        correctness(maps, parts, changes[:, :2])
    for score in (
        lambda maps: pointing(maps, parts[:, 0]),
        lambda maps: mass(maps, parts[:, 0], parts[:, 1]),
        lambda maps: correctness(maps, parts, changes),
        lambda maps: contrast(maps, maps),
        lambda maps: near_parts(maps, torch.ones(12, 3, 2), torch.ones(12, 4)),
    ):
        with pytest.raises(ValueError, match="NaN or infinity"):
            score(maps.masked_fill(parts[:, 1], nan))
    with pytest.raises(ValueError, match="at least 0"):
        mass(-maps, parts[:, 0], parts[:, 1])
    boxes = torch.ones(12, 4)
    for marks in (parts.float(), torch.ones(12, 3), torch.ones(11, 3, 2)):
        with pytest.raises(ValueError, match=r"parts must be \(12, P, 2\) and boxes \(12, 4\)"):
            near_parts(maps, marks, boxes)
    with pytest.raises(ValueError, match=r"boxes \(12, 4\), got .* \(12, 2\)"):
        near_parts(maps, torch.ones(12, 3, 2), boxes[:, :2])
    with pytest.raises(ValueError, match="within is 0"):
        near_parts(maps, torch.ones(12, 3, 2), boxes, within=0)
    with pytest.raises(ValueError, match="groups for 12 pictures"):
        summarise(torch.rand(12), groups=[1, 2])
    with pytest.raises(ValueError, match="against is 'x'"):
        compare({"a": torch.rand(3)}, "x")
    with pytest.raises(ValueError, match="of the same pictures"):
        compare({"a": torch.rand(3), "b": torch.rand(4)})


def test_a_drawn_twin():
    """The masks that drawing gives are what scores take."""
    from fieldguide.birds.photographs import field_photograph
    from fieldguide.birds.species import make_species
    from fieldguide.birds.twins import other_values, twin
    from fieldguide.exchange import NoTwin

    generator = np.random.default_rng(0)
    picture, twins = field_photograph(make_species(4, 0, "standard")[1], (0, 1, 7), 96), []
    for mark in ("crown_color", "belly_color", "wing_color", "tail_pattern", "breast_color"):
        for value in other_values(picture, mark, [], generator)[:3]:
            try:
                twins.append(twin(picture, mark, value))
                break
            except NoTwin:
                continue
    assert len(twins) >= 3
    changed = torch.from_numpy(np.stack([each.changed for each in twins]))
    parts = torch.from_numpy(np.stack([each.shown for each in twins]))
    bird = torch.from_numpy(picture.mask).expand_as(changed) | changed
    maps = references(changed, bird)
    assert pointing(maps["changed"], changed).tolist() == [1] * len(twins)
    assert (mass(maps["changed"], changed, bird) > mass(maps["outline"], changed, bird)).all()
    changes = torch.arange(1.0, 1 + len(twins))[None] * parts.flatten(1).sum(1)
    heat = (parts.double() * torch.arange(1.0, 1 + len(twins))[:, None, None]).amax(0)
    assert correctness(heat[None], parts[None], changes).item() > 0.8
