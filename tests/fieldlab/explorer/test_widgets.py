"""Widgets without a browser: what they hold, refuse and say; tests/fieldlab/browser clicks them."""

import base64
import io
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgba
from PIL import Image

from fieldlab.explorer import widgets
from fieldmarks.show import style
from fieldmarks.show.style import RIGHT, WRONG


def decoded(source):
    kind, data = source.split(",")
    assert kind == "data:image/jpeg;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def halves(height, width):
    """Black at the left, white at the right of the middle."""
    image = np.zeros((height, width, 3), np.uint8)
    image[:, width // 2 :] = 255
    return image


@pytest.mark.parametrize(
    "image",
    [halves(40, 100), halves(40, 100).astype(np.float32) / 255, torch.from_numpy(halves(40, 100))],
)
def test_a_thumbnail_is_the_middle_of_the_picture(image):
    small = decoded(widgets.thumbnail(image, 32))
    assert small.shape == (32, 32, 3) and small[:, :13].max() < 60 and small[:, -13:].min() > 200


def test_grey_pictures_are_shown_too():
    assert decoded(widgets.thumbnail(np.full((9, 9), 0.5), 8)).std() < 2


def test_names_are_escaped():
    hostile = '"><script>alert(1)</script>'
    for text in (
        widgets.picture(halves(8, 8), hostile),
        widgets.message(hostile),
        widgets.bits_table([1, -1], [1, 1], (hostile, "b")),
    ):
        assert "<script" not in text and "&lt;script" in text


def test_a_grid_takes_known_marks_only():
    grid = widgets.ThumbnailGrid(
        items=[{"source": "", "name": "a", "caption": "", "mark": "right"}]
    )
    with pytest.raises(
        ValueError, match="mark is 'correct': it must be one of right, wrong, neutral"
    ):
        grid.items = [{"source": "", "name": "a", "caption": "", "mark": "correct"}]


def test_frames_have_the_colours_of_the_galleries():
    assert f"--right: {RIGHT}" in widgets.STYLE and f"--wrong: {WRONG}" in widgets.STYLE
    assert re.search(r"\.wrong img \{[^}]*dashed", widgets.STYLE) and not re.search(
        r"\.right img \{[^}]*dashed", widgets.STYLE
    )


@pytest.fixture
def chart():
    """A map of five points, and what it told: cards asked for, points chosen, lassos."""
    asked, chosen, lassos = [], [], []

    def card_of(position):
        asked.append(position)
        return {"source": "s", "name": f"<bird> {position}"}

    chart = widgets.PictureMap(card_of, chosen.append, lassos.append)
    plane = torch.tensor([[0.0, 0], [2, 0], [5, 0.5], [0, 3], [-4, 0]])
    chart.draw(plane, ["a", "a", "b", "b", "c"], "five")
    return SimpleNamespace(map=chart, asked=asked, chosen=chosen, lassos=lassos)


def test_the_map_shows_the_card_of_what_is_pointed_at(chart):
    canvas = chart.map.scatter.widget
    canvas.hovering = 1
    assert "&lt;bird&gt; 1" in chart.map._card.value and 'src="s"' in chart.map._card.value
    canvas.hovering = None  # the mouse is between points
    canvas.hovering = 7  # not a point: said by a page that is behind
    assert chart.asked == [1] and "bird&gt; 1" in chart.map._card.value


def test_what_the_reader_selects_on_the_map_is_told_and_what_is_marked_is_not(chart):
    canvas = chart.map.scatter.widget
    for rows in ([3], [0, 2, 4], []):
        canvas.selection = np.array(rows, np.uint32)
    assert chart.chosen == [3] and chart.lassos == [[0, 2, 4], []] and chart.asked == [3]
    marks = {2: "query", 0: "right", 1: "wrong", 3: "neutral"}
    chart.map.mark(marks)
    assert canvas.selection.tolist() == list(marks) and chart.chosen == [3]
    colours = [line.line_color for line in canvas.annotations]
    wanted = [style.INK, style.RIGHT, style.WRONG, style.WRONG]
    assert colours == [to_rgba(colour) for colour in wanted]
    canvas.selection = np.array([9], np.uint32)  # not a point
    assert chart.chosen == [3] and chart.lassos[-1] == []


def test_arrows_lead_from_point_to_point_and_the_button_chooses(chart):
    arrows = {button.description: button.click for button in chart.map._side.children[1].children}
    search = chart.map._side.children[2].click
    search()
    assert chart.chosen == []
    for sign, position in (("→", 0), ("→", 1), ("→", 2), ("→", 2), ("←", 1), ("←", 0), ("↑", 3)):
        arrows[sign]()
        assert chart.map.at == chart.map.scatter.widget.hovering == position
    search()
    assert chart.chosen == [3] and chart.map._card.value.count("<img") == 1
    for sign, position in (("↓", 0), ("←", 4)):
        arrows[sign]()
        assert chart.map.at == position


def test_the_map_draws_points_of_a_class_in_one_colour(chart):
    points = chart.map.scatter.widget.points
    assert points.shape[0] == 5 and len(np.unique(points[:, 2])) == 3
    chart.map.draw(np.ones((4, 2)), None, "no labels, all at one place")
    assert chart.map.scatter.widget.color == list(to_rgba(style.NEUTRAL))


def test_boxes_that_are_there_twice_have_one_frame():
    image, box = np.full((40, 40, 3), 128, np.uint8), [0, 0, 20, 20]
    once, twice = (widgets.framed(image, torch.tensor(boxes)) for boxes in ([box], [box, box]))
    differ = (once != twice).any(axis=2).nonzero()
    assert 0 < len(differ[0]) and max(differ[0]) < 30 and max(differ[1]) < 40  # the numbers alone


def test_uploads_reach_whom_they_are_for():
    received, refused = [], []
    upload = widgets.PictureUpload(
        lambda *file: received.append(file), refused.append, limit=8_000_000
    )
    upload._message(None, {"name": "bird.jpg", "size": 3}, [memoryview(b"abc")])
    upload._message(None, {"name": "huge.jpg", "size": 9_000_000}, [])
    assert received == [("bird.jpg", b"abc")] and refused == [
        "huge.jpg has 9.0 MB: upload at most 8 MB"
    ]


def test_bits_that_differ_stand_out():
    rng = np.random.default_rng(0)
    first, second = rng.choice([-1.0, 1.0], (2, 24))
    differ = [place + 1 for place in range(24) if first[place] != second[place]]
    text = widgets.bits_table(torch.tensor(first), torch.tensor(second), ("query", "result"))
    assert f"{len(differ)} of 24 bits differ" in text and f"({', '.join(map(str, differ))})" in text
    assert text.count('differs"') == 2 * len(differ) and text.count("≠") == len(differ)
    assert "0 of 24 bits differ" in widgets.bits_table(first, first, ("a", "b"))
    with pytest.raises(ValueError, match="of one length"):
        widgets.bits_table(first, second[:5], ("a", "b"))


def test_frames_lie_where_the_boxes_are():
    image = np.full((40, 40, 3), 128, np.uint8)
    shown = widgets.framed(image, torch.tensor([[20, 20, 40, 40]]), scale=4)
    assert shown.shape == (160, 160, 3)
    outside = np.ones((160, 160), bool)
    outside[80:, 80:] = False
    frame = np.concatenate([shown[80, 80:], shown[159, 80:], shown[80:, 80], shown[80:, 159]])
    assert (
        (shown[outside] == 128).all()
        and (shown[110:150, 110:150] == 128).all()
        and (frame != 128).any(axis=1).all()
    )


def test_messages_are_announced():
    assert (
        'role="alert"' in widgets.message("no", problem=True)
        and 'role="status"' in widgets.message("yes")
        and widgets.message("") == ""
    )
