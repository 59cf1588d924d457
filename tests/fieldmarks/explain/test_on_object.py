import math

import pytest
import torch

from fieldmarks.explain.on_object import on_object


def naive(heat, mask):
    height, width = len(heat), len(heat[0])
    top = max(v for row in heat for v in row)
    cells = [(y, x) for y in range(height) for x in range(width)]
    peaks = [mask[y][x] for y, x in cells if heat[y][x] == top]
    ys = {(height - 1) // 2, height // 2}
    xs = {(width - 1) // 2, width // 2}
    centre = [mask[y][x] for y in ys for x in xs]
    on = [heat[y][x] for y, x in cells if mask[y][x]]
    beside = [heat[y][x] for y, x in cells if not mask[y][x]]
    mean = lambda values: sum(values) / len(values)
    return mean(peaks), mean(centre), mean(on) / mean(beside)


@pytest.mark.parametrize("height, width", [(4, 4), (5, 7), (6, 3)])
def test_against_loops(height, width):
    generator = torch.Generator().manual_seed(0)
    maps = torch.randint(0, 6, (20, height, width), generator=generator).float()
    maps[:, 0, 0] += 0.5  # so that no map is zero everywhere
    masks = torch.rand(20, height, width, generator=generator) < 0.4
    masks[:, 0, 1], masks[:, 1, 0] = True, False
    found = on_object(maps, masks)
    for row in range(20):
        wanted = naive(maps[row].tolist(), masks[row].tolist())
        assert [part[row].item() for part in found] == pytest.approx(wanted)


def test_a_map_that_is_the_mask():
    masks = torch.zeros(1, 6, 6, dtype=torch.bool)
    masks[0, :2, :2] = True
    found = on_object(masks.float(), masks)
    assert found.maximum.item() == 1 and found.centre.item() == 0 and found.ratio.item() == math.inf
    found = on_object((~masks).float(), masks)
    assert found.maximum.item() == 0 and found.ratio.item() == 0


def test_images_without_an_object_or_full_of_it_are_unknown():
    masks = torch.stack([torch.zeros(3, 3), torch.ones(3, 3)]).bool()
    assert all(part.isnan().all() for part in on_object(torch.rand(2, 3, 3), masks))


def test_a_flat_map_is_on_the_object_as_often_as_chance():
    masks = torch.zeros(1, 4, 4, dtype=torch.bool)
    masks[0, 0] = True
    found = on_object(torch.ones(1, 4, 4), masks)
    assert found.maximum.item() == 0.25 and found.ratio.item() == 1


@pytest.mark.parametrize(
    "maps, masks, says",
    [
        (torch.rand(2, 3, 3), torch.ones(2, 3, 4).bool(), r"both be \(N, H, W\), got \(2, 3, 3\)"),
        (torch.rand(3, 3), torch.ones(3, 3).bool(), r"\(N, H, W\)"),
        (torch.full((1, 2, 2), -1.0), torch.ones(1, 2, 2).bool(), "at least 0"),
        (torch.full((1, 2, 2), torch.nan), torch.ones(1, 2, 2).bool(), "not NaN"),
    ],
)
def test_bad_input(maps, masks, says):
    with pytest.raises(ValueError, match=says):
        on_object(maps, masks)
