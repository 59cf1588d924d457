import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import functional as tv

from fieldmarks.data.augment import (
    TestViews,
    TrainingViews,
    denormalise,
    jitter_colours,
    normalise,
    random_boxes,
)
from fieldmarks.data.pixels import PixelCache

PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


def canvas_of(*sizes, seed=0):
    torch.manual_seed(seed)
    sizes = torch.tensor(sizes)
    canvas = torch.zeros(len(sizes), 3, *sizes.max(0).values.tolist(), dtype=torch.uint8)
    for place, (h, w) in zip(canvas, sizes.tolist(), strict=True):
        place[:, :h, :w] = torch.randint(1, 256, (3, h, w), dtype=torch.uint8)
    return canvas, sizes


def drawing(seed, rows=slice(None), total=None):
    generator = torch.Generator().manual_seed(seed)
    return lambda sample: sample(total, generator)[rows]


def test_test_views_are_the_centre_crop():
    canvas, sizes = canvas_of((128, 180), (140, 128), (128, 128))
    views = TestViews(112, resize=128, **PLAIN)(canvas, sizes)
    for view, image, (h, w) in zip(views, canvas, sizes.tolist(), strict=True):
        torch.testing.assert_close(view, tv.center_crop(image[:, :h, :w], [112, 112]).float() / 255)


@pytest.mark.parametrize("height, width", [(120, 90), (97, 211), (40, 31), (30, 200), (224, 224)])
def test_points_are_located_where_the_views_show_them(tmp_path, height, width):
    """A white square in each of 3 x 3 places: its middle in the view is where it is said to be."""
    side, views = max(3, min(height, width) // 10), TestViews(56, resize=64, **PLAIN)
    # Beyond 3:1 decoding cuts, and a crop cuts the rest.
    seen = min(height, width) * 7 / 8 - 2 * side
    points = torch.tensor([[width / 2 + x * seen / 2, height / 2 + y * seen / 2]
                           for y in (-1, 0, 1) for x in (-1, 0, 1)])  # fmt: skip
    files, corners = [], (points - side / 2).round().int()
    for number, (x, y) in enumerate(corners.tolist()):
        picture = np.zeros((height, width, 3), np.uint8)
        picture[y : y + side, x : x + side] = 255
        files.append(tmp_path / f"{number}.png")
        Image.fromarray(picture).save(files[-1])
    shown = views(*PixelCache.open(files, 64, tmp_path).batch(range(9)))[:, 0]  # (9, 56, 56)
    middles = torch.arange(56) + 0.5
    total = shown.sum((1, 2))
    x, y = ((shown.sum(axis) * middles).sum(1) / total for axis in (1, 2))
    located = views.locate((corners + side / 2)[:, None], torch.tensor([[height, width]] * 9))
    torch.testing.assert_close(located[:, 0], torch.stack([x, y], 1), atol=1.0, rtol=0)


def test_jitter_equals_torchvision_in_the_same_order():
    torch.manual_seed(0)
    images, factors = (
        torch.rand(4, 3, 8, 8) * 0.5 + 0.2,
        torch.tensor([[1.1, 0.9, 1.2], [0.8, 1.1, 0.7], [1, 1, 1], [1.2, 0.8, 1.1]]),
    )
    results = jitter_colours(images, factors)
    for image, (b, c, s), ours in zip(images, factors.tolist(), results, strict=True):
        grey = tv.rgb_to_grayscale(
            image * b
        ).mean()  # contrast by hand: torchvision clamps in between
        contrasted = grey + c * (image * b - grey)
        saturated = s * contrasted + (1 - s) * tv.rgb_to_grayscale(contrasted)
        torch.testing.assert_close(
            ours, saturated.clamp(0, 1), atol=1e-3, rtol=0
        )  # its luma has four digits


def test_boxes_lie_inside_with_the_area_and_aspect_asked_for():
    sizes = torch.tensor([[100, 160], [200, 90], [64, 64]]).repeat(500, 1)
    numbers = torch.rand(1500, 36, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    boxes = random_boxes(sizes, numbers, (0.2, 1.0), (3 / 4, 4 / 3))
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    assert (
        (boxes[:, :2] >= 0).all()
        and (boxes[:, 2] <= sizes[:, 1]).all()
        and (boxes[:, 3] <= sizes[:, 0]).all()
    )
    share = (width * height) / sizes.prod(1)
    assert share.min() > 0.18 and share.max() <= 1
    assert (width / height).min() > 0.7 and (width / height).max() < 1.4
    assert share.std() > 0.1 and (boxes[:, 0] > 0).float().mean() > 0.5


def test_where_no_try_fits_the_largest_centred_box_is_taken():
    boxes = random_boxes(
        torch.tensor([[30, 300]]),
        torch.full((1, 36), 0.999, dtype=torch.float64),
        (0.9, 1.0),
        (3 / 4, 4 / 3),
    )
    assert boxes.tolist() == [[130, 0, 170, 30]]


def test_views_depend_on_the_seed_alone():
    canvas, sizes = canvas_of((64, 80), (70, 64))
    views = TrainingViews(48, **PLAIN)
    first, again, other = (views(canvas, sizes, drawing(seed, total=2)) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_processes_see_their_rows_of_the_same_views():
    canvas, sizes = canvas_of((64, 80), (70, 64), (64, 64), (64, 70))
    views = TrainingViews(48, **PLAIN)
    complete = views(canvas, sizes, drawing(5, total=4))
    for rows in (slice(0, 2), slice(2, 4)):
        torch.testing.assert_close(
            views(canvas[rows], sizes[rows], drawing(5, rows, 4)), complete[rows]
        )


def test_padding_never_shows():
    canvas, sizes = canvas_of((32, 32), (32, 96))
    canvas[0, :, :, 32:] = 0
    canvas[0, :, :, :32] = 255
    for seed in range(20):
        view = TrainingViews(16, jitter=0, **PLAIN)(canvas, sizes, drawing(seed, total=2))[0]
        torch.testing.assert_close(view, torch.ones_like(view))


def test_normalise_and_back():
    images, statistics = torch.rand(2, 3, 4, 4), ((0.4, 0.5, 0.6), (0.2, 0.3, 0.4))
    torch.testing.assert_close(denormalise(normalise(images, *statistics), *statistics), images)
    assert normalise(
        torch.full((1, 3, 1, 1), 0.5), *statistics
    ).flatten().tolist() == pytest.approx([0.5, 0, -0.25])
