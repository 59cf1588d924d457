import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from fieldmarks.show.galleries import class_board
from fieldmarks.show.picture import Picture, as_rgb, save
from fieldmarks.show.style import RIGHT, WRONG


def test_images_of_any_kind_become_rgb():
    expected = np.linspace(0, 1, 24).reshape(2, 4, 3).astype(np.float32)
    as_bytes = (expected * 255).round().astype(np.uint8)
    for same in (
        expected,
        torch.tensor(expected),
        torch.tensor(expected).double(),
        as_bytes,
        torch.tensor(as_bytes),
    ):
        assert np.allclose(as_rgb(same), expected, atol=3e-3) and as_rgb(same).dtype == np.float32
    assert (
        as_rgb(np.zeros((3, 5))).shape == (3, 5, 3)
        and as_rgb(torch.full((2, 2), 7, dtype=torch.uint8)).max() < 0.03
    )
    for bad in (np.zeros((3, 5, 5)), np.zeros((3, 4, 4)), np.zeros((4, 4, 3), int)):
        with pytest.raises(ValueError, match="an image must be"):
            as_rgb(bad)


@pytest.mark.parametrize(
    "name, kind", [("a.png", "PNG"), ("a.jpg", "JPEG"), ("deep/er/a.JPEG", "JPEG")]
)
def test_figures_are_written_as_their_name_says(tmp_path, name, kind):
    figure = class_board([[np.zeros((9, 9, 3))]], ["a"])
    path = save(figure, tmp_path / name, dpi=50)
    assert Image.open(path).format == kind and Image.open(path).size[0] == 500
    assert os.listdir(path.parent) == [path.name]


def test_a_failed_write_leaves_nothing_and_keeps_what_was_there(tmp_path, monkeypatch):
    figure, path = class_board([[np.zeros((9, 9, 3))]], ["a"]), tmp_path / "a.png"
    path.write_text("before")

    def full(stream, **options):
        stream.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(figure, "savefig", full)
    with pytest.raises(OSError, match="No space left"):
        save(figure, path)
    assert os.listdir(tmp_path) == ["a.png"] and path.read_text() == "before"
    for name, dpi, message in (
        ("a.gif", 100, "written as .png"),
        ("b.png", 300, "between 1 and 150, got 300"),
    ):
        with pytest.raises(ValueError, match=message):
            save(figure, tmp_path / name, dpi=dpi)


def test_a_notebook_shows_figures_without_pyplot():
    code = """if True:
        import sys, numpy as np
        from fieldmarks.show import galleries, maps
        photograph = galleries.class_board([[np.zeros((9, 9, 3))]], ["a"])._repr_mimebundle_()
        plot = maps.curves([{"loss": 1.0}])._repr_mimebundle_()
        assert list(photograph) == ["image/jpeg"]
        assert photograph["image/jpeg"][:2] == bytes.fromhex("ffd8")
        assert list(plot) == ["image/png"] and plot["image/png"][1:4] == b"PNG"
        assert "matplotlib.pyplot" not in sys.modules and "torch" not in sys.modules
    """
    subprocess.run([sys.executable, "-c", code], check=True)


def test_inches_count_from_the_top_left():
    figure = Picture(4.0, 8.0)
    place = figure.box(2.0, 1.0, 4.0, 0.5).get_position()
    assert (place.x0, place.y1, place.width, place.height) == (0.25, 0.75, 0.5, 0.125)
    written = figure.write(2.0, 1.0, "two\nlines", va="top")
    assert [text.get_text() for text in figure.texts] == ["two", "lines"]
    assert written is figure.texts[-1] and written.get_position()[0] == 0.25


def test_signs_and_their_key_agree():
    figure = Picture(2.0)
    cells = [figure.cell(np.zeros((8, 8)), place, 0.2, 1.0) for place in (0.2, 2.0)]
    assert [cells[0].mark(True), cells[1].mark(False)] == [RIGHT, WRONG]
    figure.key("right", "wrong", "a note")
    said = [text.get_text() for text in figure.texts]
    signs = said[:2]
    assert signs == [cell.sign for cell in cells]
    assert said[2:] == [f"{signs[0]} right", f"{signs[1]} wrong", "a note"]
    for cell, badge in zip(cells, figure.texts, strict=False):
        box = badge.get_window_extent().transformed(figure.transFigure.inverted())
        assert cell.place.x0 < box.x0 < box.x1 < cell.place.x1
        assert cell.place.y0 < box.y0 < box.y1 < cell.place.y1
    ends = [text.get_window_extent() for text in figure.texts[2:]]
    assert ends[0].x1 < ends[1].x0 and ends[1].x1 < ends[2].x0


def test_a_cell_shows_the_middle_of_an_image_or_all_of_it():
    image = np.zeros((10, 30, 3), np.float32)
    image[:, 10:20] = 1
    figure = Picture(2.0, 4.0)
    assert figure.cell(image, 0, 0, 1).image.min() == 1
    cell = figure.cell(image, 1, 0, 1.5, crop=False)
    cell.outline((10, 0, 20, 10))
    for frame in cell.frames:  # a third of the square's width, in the middle of both ways
        assert np.allclose(frame.get_bbox().bounds, (1.5 / 4, 1 - 1 / 2, 0.5 / 4, 0.5 / 2))
    figure.dpi = 100
    figure.canvas.draw()
    drawn = np.asarray(figure.canvas.buffer_rgba())[..., :3]
    assert (drawn[20, 50] == 255).all() and (drawn[75, 175] == 255).all()  # the white middles
    assert (drawn[75, 120] == 0).all() and (drawn[75, 230] == 0).all()  # its black sides
    assert (drawn[20, 175] == (241, 243, 246)).all()  # the ground above
    assert np.ptp(drawn[75, 175:].astype(int), axis=0).max() == 255
