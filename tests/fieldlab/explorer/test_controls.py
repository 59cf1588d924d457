"""The controls of the experiments' notebooks, moved without a browser, and one's own picture."""

import gc
from types import SimpleNamespace

import pytest
import torch
from ipywidgets import IntSlider
from PIL import Image

from fieldlab.explorer import controls
from fieldmarks.backbones import create_backbone


def page():
    """(what was shown, what came in its place, a display for it)."""
    shown, updated = [], []

    def display(value, display_id=False):
        shown.append(value)
        return SimpleNamespace(update=updated.append) if display_id else None

    return shown, updated, display


def test_each_control_draws_the_picture_anew_with_the_values_of_all(monkeypatch):
    monkeypatch.setattr(controls, "in_jupyterlab", lambda: True)
    shown, updated, display = page()
    n, l = IntSlider(3, 0, 9), IntSlider(1, 0, 9)
    controls.with_controls(display, lambda n, l: f"{n} of {l}", n=n, l=l)
    n.value, l.value = 7, 5
    assert shown == [n, l, "3 of 1"] and updated == ["7 of 1", "7 of 5"]


@pytest.mark.parametrize("collects", [True, False])
def test_nothing_is_collected_until_the_picture_is_there(collects):
    at_it, (_, _, display) = [], page()
    n = IntSlider(3, 0, 9)
    controls.with_controls(display, lambda n: at_it.append(gc.isenabled()) if n < 9 else 1 / 0, n=n)
    (gc.enable if collects else gc.disable)()
    try:
        n.value = 7
        with pytest.raises(ZeroDivisionError):
            n.value = 9
        assert at_it[1:] == [False] and gc.isenabled() == collects
    finally:
        gc.enable()


def test_in_batch_the_first_picture_stands_alone():
    shown, _, display = page()
    controls.with_controls(display, lambda n: f"picture {n}", n=IntSlider(3, 0, 9))
    assert shown == ["picture 3"]


@pytest.fixture(scope="module")
def backbone():
    return create_backbone("resnet10t", "none", 48)


def test_no_name_gives_the_picture_at_hand(backbone):
    bird = torch.zeros(1, 3, 48, 48)
    assert controls.own_picture("", backbone, bird) is bird


def test_ones_own_picture_is_prepared_for_the_network(tmp_path, backbone):
    Image.new("RGB", (90, 60), "red").save(tmp_path / "bird.jpg")
    images = controls.own_picture(str(tmp_path / "bird.jpg"), backbone, None)
    assert torch.equal(images, backbone.preprocess([tmp_path / "bird.jpg"]))


@pytest.mark.parametrize("content, reason", [(None, "no such file"), (b"x", "not an image")])
def test_what_cannot_be_read_is_said_in_a_line_with_what_to_do(
    tmp_path, capsys, backbone, content, reason
):
    file = tmp_path / "bird.jpg"
    if content:
        file.write_bytes(content)
    assert controls.own_picture(str(file), backbone, None) is None
    said = capsys.readouterr().out
    assert said.startswith(f"{file}: {reason}. Name another file") and said.count("\n") == 1
