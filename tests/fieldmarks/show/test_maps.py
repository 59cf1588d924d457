import io

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from matplotlib.offsetbox import AnnotationBbox
from matplotlib.text import Text
from matplotlib.transforms import Bbox, BboxTransformTo, TransformedBbox
from PIL import Image

from fieldmarks.show.maps import (
    COLOURS,
    HEAT,
    blend,
    curves,
    embedding_map,
    hottest_boxes,
    map_grid,
    place_apart,
    project,
)


def pixels(figure, dpi=60) -> np.ndarray:
    with io.BytesIO() as stream:
        figure.savefig(stream, format="png", dpi=dpi)
        return np.asarray(Image.open(stream).convert("RGB")).astype(float) / 255


def spot(size=7, x=5, y=1):
    column, row = np.meshgrid(np.arange(size), np.arange(size))
    return np.exp(-((column - x) ** 2 + (row - y) ** 2) / 2)


def test_heat_lies_where_the_response_is():
    image = np.full((70, 140, 3), 0.6)
    hot = blend(image, spot())
    assert hot.shape == image.shape and hot.dtype == np.float32
    assert np.allclose(hot[60, 10], 0.6, atol=1e-3)  # no response: the photograph alone
    row, column = np.unravel_index(
        hot[:, :, 0].argmax(), hot.shape[:2]
    )  # inferno ends in a bright yellow
    assert abs(row - 15) <= 5 and abs(column - 110) <= 10  # field (1, 5) of 7 x 7
    assert np.allclose(blend(image, np.ones((3, 3)), strength=1.0), HEAT(1.0)[:3], atol=1e-6)
    assert np.array_equal(blend(image, torch.tensor(spot())), hot)


def test_responses_are_enlarged_as_torch_does():
    response = torch.rand(5, 3)
    expected = torch.nn.functional.interpolate(response[None, None], size=(11, 8), mode="bilinear")[
        0, 0
    ].numpy()
    shown = blend(np.zeros((11, 8, 3)), response.numpy(), strength=1.0)
    assert np.allclose(shown, expected[:, :, None] ** 2 * HEAT(expected)[:, :, :3], atol=1e-5)


def test_grids_are_labelled_and_complete(real_data):
    folder = sorted((real_data / "CUB_200_2011" / "images").iterdir())[2]
    photographs = [
        np.asarray(Image.open(path).convert("RGB")) for path in sorted(folder.iterdir())[:3]
    ]
    long = "a title that is far too long for a narrow photograph of a bird"
    single = map_grid([("response", photographs[:1], spot()[None])], titles=[long])
    responses = torch.tensor(np.stack([spot()] * 3))
    rows = [
        ("image", photographs, None),
        ("baseline", photographs, responses),
        ("VAPNet", photographs, responses),
    ]
    grid = map_grid(rows, titles=["one", "two", "three"])
    words = {text.get_text() for text in grid.texts}
    assert (
        len(grid.cells) == 9
        and len(grid.axes) == 1
        and {"image", "baseline", "VAPNet", "one"} <= words
    )
    plain = map_grid([("image", photographs, None)])
    assert len(plain.cells) == 3 and not plain.axes  # no maps, no legend of colours
    for figure in (single, grid, plain):
        figure.draw_without_rendering()
        box = figure.get_tightbbox(figure.canvas.get_renderer())
        assert box.x0 >= 0 and box.y0 >= 0
        assert box.x1 <= figure.get_figwidth() <= 10 and box.y1 <= figure.get_figheight()
        assert pixels(figure).std() > 0.1


def test_curves_show_each_term_and_the_score_in_per_cent():
    history = [
        {
            "epoch": e,
            "attribute": 3.0 / e,
            "consistency": 0.5,
            "lr": 0.1,
            "recall@1": 0.1 * e if e % 2 else None,
        }
        for e in range(1, 6)
    ]
    loss, score = curves(history).axes
    assert [line.get_label() for line in loss.lines] == ["attribute", "consistency"]
    assert (
        loss.get_xlabel() == "epoch"
        and loss.get_ylabel() == "loss"
        and score.get_ylabel() == "score, %"
    )
    assert score.lines[0].get_xdata().tolist() == [1, 3, 5]
    assert score.lines[0].get_ydata().tolist() == pytest.approx([10, 30, 50])
    assert len({line.get_linestyle() for line in loss.lines}) == 2  # told apart without colour
    (alone,) = curves([{"attribute": 100.0}, {"attribute": 0.1}]).axes
    assert alone.get_yscale() == "log" and alone.lines[0].get_xdata().tolist() == [1, 2]
    with pytest.raises(ValueError, match="neither losses nor scores"):
        curves([{"epoch": 1}])


def test_the_map_of_embeddings_names_its_classes():
    generator = np.random.default_rng(0)
    labels = np.repeat([3, 5], 30)
    points = generator.normal(size=(60, 2)) + 6 * (labels == 5)[:, None]
    thumbnails = [np.full((8, 8, 3), 0.5)] * 60
    names = [f"class {i}" for i in range(6)]
    for shown in (None, thumbnails):
        figure = embedding_map(points, labels, shown, names, title="unseen classes")
        axes = figure.axes[0]
        assert [text.get_text() for text in axes.texts] == ["class 3", "class 5"]
        assert [tuple(points.get_facecolor()[0, :3]) for points in axes.collections] == [
            to_rgb(c) for c in COLOURS[:2]
        ]
    assert 3 < sum(isinstance(artist, AnnotationBbox) for artist in axes.get_children()) < 60
    with pytest.raises(ValueError, match="points must be"):
        embedding_map(points[:, :1], labels)
    with pytest.raises(ValueError, match="60 points but 59 thumbnails"):
        embedding_map(points, labels, thumbnails[1:])


def overlaps(boxes) -> list[tuple[int, int]]:
    """Which of (x0, y0, x1, y1) meet, box by box."""
    return [
        (i, j)
        for i, a in enumerate(boxes)
        for j, b in enumerate(boxes[:i])
        if a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
    ]


def test_names_on_the_map_neither_overlap_nor_are_cut_off():
    """Twelve classes with long names, some on top of each other, some in the corners."""
    generator = np.random.default_rng(2)
    middles = generator.normal(size=(12, 2))
    middles[3:6] = middles[2] + [[0, 0], [0.01, 0], [0, 0.02]]
    middles[-2:] = [-4, -3], [4, 3]
    labels = np.repeat(np.arange(12), 8)
    points = middles[labels] + 0.01 * generator.normal(size=(96, 2))
    names = [f"{n} footed Albatross of the south" for n in range(12)]
    for thumbnails in (None, [np.full((8, 8, 3), 0.5)] * 96):
        figure = embedding_map(points, labels, thumbnails, names)
        figure.canvas.draw()
        frame = figure.axes[0].get_window_extent()
        texts = figure.axes[0].texts
        boxes = [Text.get_window_extent(text).extents for text in texts]
        assert len(boxes) == 12 and not overlaps(boxes)
        for x0, y0, x1, y1 in boxes:
            assert frame.x0 <= x0 and x1 <= frame.x1 and frame.y0 <= y0 and y1 <= frame.y1


def test_boxes_go_to_the_nearest_place_where_they_meet_nothing():
    middles, sizes = np.array([[2.0, 2], [6, 2]]), np.array([[3.0, 1], [3, 1]])
    assert np.array_equal(place_apart(middles, sizes, (0, 0), (9, 9)), middles)
    moved = place_apart([[2, 2], [2, 2]], sizes, (0, 0), (9, 9))
    assert moved[0].tolist() == [2, 2] and sorted(abs(moved[1] - 2)) == [0, 1]
    picture = (np.array([2.0, 3]), np.array([4.0, 4]))  # covers 0 .. 4 and 1 .. 5
    beside = place_apart(middles[:1], sizes[:1], (0, 0), (9, 9), [picture])
    assert beside.tolist() == [[2, 0.5]]
    edge = place_apart(middles - 5, sizes, (0, 0), (9, 9))
    assert edge[0].tolist() == [1.5, 0.5] and edge[1, 1] in (0.5, 1.5)


def test_names_of_a_map_lie_beside_its_pictures():
    rng = np.random.default_rng(1)
    points = rng.normal(size=(60, 2))
    thumbnails = [rng.integers(0, 255, (20, 20, 3), dtype=np.uint8) for _ in points]
    figure = embedding_map(
        points, np.arange(60) % 5, thumbnails, [f"species {n}" for n in range(5)]
    )
    figure.canvas.draw()
    boxes = [Text.get_window_extent(text).extents for text in figure.axes[0].texts]
    pictures = [a for a in figure.axes[0].artists if isinstance(a, AnnotationBbox)]
    assert len(pictures) > 10
    for picture in pictures:
        assert not any(overlaps([box, picture.get_window_extent().extents]) for box in boxes)


def test_hottest_boxes_are_hot_first_and_apart():
    heat = torch.rand(20, 24, generator=torch.Generator().manual_seed(0))
    boxes = hottest_boxes(heat, size=6, count=3)
    corners = [heat[y, x].item() for x, y, _, _ in boxes]
    assert corners[0] == heat.max() and corners == sorted(corners, reverse=True)
    assert len(boxes) == 3 and not overlaps(boxes)
    for x1, y1, x2, y2 in boxes:
        assert (x2, y2) == (min(x1 + 6, 24), min(y1 + 6, 20))
    assert hottest_boxes(torch.zeros(5, 5), 2, 3) == []
    assert len(hottest_boxes(torch.ones(5, 5), 5, 3)) == 1  # there is no room for another


def test_framed_boxes_lie_where_they_belong():
    figure = map_grid([("boxes", [np.zeros((8, 8, 3))] * 2, None, [[(1, 2, 5, 6)], []])])
    framed, bare = figure.cells
    inner = Bbox.from_bounds(1 / 8, 1 - 6 / 8, 4 / 8, 4 / 8)  # from the lower left of the cell
    expected = TransformedBbox(inner, BboxTransformTo(framed.place)).bounds
    assert len(framed.frames) == 2 and not bare.frames
    assert all(np.allclose(frame.get_bbox().bounds, expected) for frame in framed.frames)


@pytest.mark.slow
def test_projection_keeps_classes_together_and_is_seeded():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(45) % 3
    embeddings = torch.eye(3)[labels] + 0.05 * torch.randn(45, 3, generator=generator)
    points = torch.tensor(project(embeddings, seed=4))
    assert points.shape == (45, 2) and np.array_equal(project(embeddings, seed=4), points)
    distance = torch.cdist(points, points).fill_diagonal_(torch.inf)
    assert (labels[distance.argmin(dim=1)] == labels).all()
    with pytest.raises(ValueError, match="at least 4 rows"):
        project(embeddings[:3])


def test_bad_input():
    with pytest.raises(ValueError, match=r"must be \(h, w\)"):
        blend(np.zeros((4, 4, 3)), np.zeros((1, 4, 4)))
    with pytest.raises(ValueError, match="NaN or infinity"):
        blend(np.zeros((4, 4, 3)), np.full((4, 4), np.nan))
    with pytest.raises(ValueError, match='row "a" has 1 images but 2 maps'):
        map_grid([("a", [np.zeros((4, 4, 3))], np.zeros((2, 4, 4)))])
    with pytest.raises(ValueError, match="titles are 2"):
        map_grid([("a", [np.zeros((4, 4, 3))], None)], titles=["b", "c"])
