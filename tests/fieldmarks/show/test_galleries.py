import io

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from fieldmarks.show.galleries import before_after, class_board, classes_at_a_glance, patch_board
from fieldmarks.show.style import ACCENT, NEUTRAL, RIGHT, WRONG


def gallery(queries, results, correct, scores=None, titles=None):
    """Of one method, which needs no name."""
    return before_after(queries, {"": (results, correct, scores)}, titles)


@pytest.fixture
def photographs(real_data):
    """(H, W, 3) uint8 of different shapes, four of each of three species."""
    folders = sorted((real_data / "CUB_200_2011" / "images").iterdir())[:3]
    return [
        [np.asarray(Image.open(path).convert("RGB")) for path in sorted(folder.iterdir())[:4]]
        for folder in folders
    ]


def pixels(figure, dpi=100) -> np.ndarray:
    with io.BytesIO() as stream:
        figure.savefig(stream, format="png", dpi=dpi)
        return np.asarray(Image.open(stream).convert("RGB")).astype(float) / 255


def share(picture, colour, tolerance=0.04) -> float:
    return float((np.abs(picture - to_rgb(colour)).max(axis=-1) < tolerance).mean())


def frame(picture, cell) -> np.ndarray:
    """The pixels on the left edge of a cell, where its frame runs."""
    box = cell.place
    height, width = picture.shape[:2]
    x = round(box.x0 * width)
    return picture[
        round((1 - box.y1) * height) + 12 : round((1 - box.y0) * height) - 4, x - 1 : x + 1
    ]


def test_frames_are_green_where_right_red_and_dashed_where_wrong():
    grey = np.full((20, 30, 3), 128, np.uint8)
    correct = np.array([[True, False, True], [False, False, True]])
    figure = gallery(
        [grey] * 2,
        [[grey] * 3] * 2,
        correct,
        scores=np.full((2, 3), 0.87),
        titles=["one", "another"],
    )
    picture = pixels(figure)
    assert isinstance(figure, Figure) and figure.get_figwidth() == 10 and picture.shape[1] == 1000
    cells = iter(figure.cells)
    for row in correct:
        assert share(frame(picture, next(cells)), NEUTRAL) > 0.9
        for right in row:
            edge = frame(picture, next(cells))
            if right:
                assert share(edge, RIGHT) > 0.9
            else:
                assert (
                    0.4 < share(edge, WRONG) < 0.9 and share(edge, RIGHT) == 0
                )  # dashes with white between
    assert next(cells, None) is None
    signs = [cell.sign for cell in figure.cells if cell.sign]
    assert signs == ["\u2713" if right else "\u2717" for right in correct.ravel()]
    words = [text.get_text() for text in figure.texts]
    assert words.count("0.87") == 6 and {"query", "1", "3", "one", "another"} <= set(words)


def test_before_and_after_share_queries_and_name_their_methods(photographs):
    queries = [strip[0] for strip in photographs]
    results = [strip[1:] for strip in photographs]
    wrong, right = np.zeros((3, 3), bool), torch.ones(3, 3, dtype=torch.bool)
    figure = before_after(
        queries, {"frozen": (results, wrong, None), "VAPNet": (results, right, torch.rand(3, 3))}
    )
    words = [text.get_text() for text in figure.texts]
    assert words.count("frozen") == words.count("VAPNet") == 3
    assert words.count("0 of 3 right") == words.count("3 of 3 right") == 3
    assert len(figure.cells) == 3 * (1 + 3 + 3)
    picture = pixels(figure)
    assert share(picture, RIGHT) > 0.002 and share(picture, WRONG) > 0.002


def all_inside(figure) -> bool:
    """Nothing is cut off: every text and every cell lies within the figure."""
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()
    boxes = [part.get_window_extent(renderer) for part in (*figure.texts, *figure.axes)]
    boxes += [cell.place.transformed(figure.transFigure) for cell in figure.cells]
    return all(
        box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1
        for box in boxes
    )


def test_boards_show_everything_and_cut_nothing_off(photographs):
    names = [
        "Black footed Albatross",
        "A species with quite an endlessly long name indeed, and then some",
        "Ani",
    ]
    board = class_board(photographs, names)
    assert len(board.cells) == 12 and pixels(board).std() > 0.1
    singles = class_board([strip[:1] for strip in photographs] * 8, names * 8)
    boxes = torch.tensor([10.0, 20, 74, 84]).expand(3, 4, 4)
    patches = patch_board(
        photographs, boxes, torch.rand(3, 4), ["dimension 1", "dimension 2", "crown colour: black"]
    )
    assert len(patches.cells) == 2 * 12
    rows = gallery(
        [strip[0] for strip in photographs],
        [strip[1:] for strip in photographs],
        np.eye(3),
        titles=names,
    )
    both = before_after(
        [photographs[0][0]],
        {name: ([photographs[0]], np.ones((1, 4)), None) for name in names},
        ["a"],
    )
    for figure in (board, singles, patches, rows, both):
        assert all_inside(figure) and figure.get_figwidth() <= 10


def test_classes_at_a_glance_are_spread_over_the_set_with_their_first_images():
    labels = torch.arange(40).repeat_interleave(3)[torch.randperm(120)] * 2  # every second label
    pixels = [np.full((4, 4, 3), i / 120, np.float32) for i in range(120)]
    names = [f"{label:03}.Class_{label}" for label in range(80)]
    board = classes_at_a_glance(pixels, labels, names, classes=4, each=2)
    assert [text.get_text() for text in board.texts] == [f"Class {n}" for n in (0, 26, 52, 78)]
    shown = [round(120 * float(cell.image[0, 0, 0])) for cell in board.cells]
    naive = [i for n in (0, 26, 52, 78) for i in [i for i in range(120) if labels[i] == n][:2]]
    assert shown == naive
    assert len(classes_at_a_glance(pixels, labels, names, classes=100, each=5).cells) == 120


def test_the_patch_shown_is_the_patch_named():
    image = np.zeros((40, 60, 3), np.float32)
    image[10:20, 30:50] = to_rgb(ACCENT)
    figure = patch_board([[image]], np.array([[[30, 10, 50, 20]]]), np.array([[1.0]]), ["a"])
    crop = figure.cells[0].image
    assert crop.shape == (10, 10, 3) and np.allclose(crop, to_rgb(ACCENT), atol=1e-6)


IMAGE = np.zeros((4, 4, 3))


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: gallery([], [], np.zeros((0, 1))), "nothing to show"),
        (lambda: before_after([IMAGE], {}), "nothing to show"),
        (lambda: gallery([IMAGE], [[IMAGE]] * 2, np.ones((2, 1))), "1 queries but 2 rows"),
        (lambda: gallery([IMAGE], [[IMAGE]], np.ones((1, 2))), r"correct must have shape \(1, 1\)"),
        (
            lambda: before_after([IMAGE], {"a": ([[IMAGE]], [[1]], [[1, 2]])}),
            r"a: scores must have shape \(1, 1\)",
        ),
        (lambda: gallery([IMAGE] * 2, [[IMAGE], []], np.ones((2, 1))), "same number of results"),
        (lambda: gallery([IMAGE], [[IMAGE]], [[1]], titles=["a", "b"]), "1 query_images, 2 titles"),
        (lambda: class_board([[IMAGE]], []), "1 images, 0 names"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
