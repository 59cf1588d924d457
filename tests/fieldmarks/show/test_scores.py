import pytest

from fieldmarks.show.scores import interval_dots

PANELS = {
    "pointing": {"occlusion": (0.4, 0.3, 0.5), "place map": (0.3, 0.2, 0.4), "middle": (0.25,) * 3},
    "mass": {"place map": (0.6, 0.5, 0.7), "middle": (0.5, 0.4, 0.6)},
}


def test_best_first_and_references_last():
    figure = interval_dots(PANELS, {"middle"}, against="middle")
    texts = [text.get_text() for text in figure.texts]
    names = [text for text in texts if text in ("occlusion", "place map", "middle")]
    assert names == ["occlusion", "place map", "middle"]
    first, second = figure.axes
    assert [list(line.get_xdata()) for line in first.lines if len(line.get_xdata()) == 2][0] == [
        0.3,
        0.5,
    ]
    assert [text.get_text() for text in second.texts] == ["none"]  # it has no score there


def test_nothing_to_draw():
    with pytest.raises(ValueError, match="there is no score"):
        interval_dots({"pointing": {}})
