import numpy as np
import pytest
import torch

from fieldmarks.show.codes import distance_histograms, length_curves, radius_curves, usage_board


def test_histograms_show_shares_on_one_scale():
    own, other = torch.tensor([1.0, 1, 2, 4]), np.array([3, 3, 3, 5])
    figure = distance_histograms({"a": (own, other), "b": (other, own)}, bits=6)
    assert len(figure.axes) == 2 and len({axes.get_ylim() for axes in figure.axes}) == 1
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert labels == ["own class, mean 2.0", "nearest other class, mean 3.5"]
    values = [patch.get_data().values.tolist() for patch in figure.axes[0].patches]
    assert values[0] == [0, 50, 25, 0, 25, 0, 0] and values[2] == [0, 0, 0, 75, 0, 25, 0]


def test_curves_go_over_lengths_and_radii():
    (axes,) = length_curves({"a": {24: 0.4, 12: 0.2}, "b": {12: 0.3}}).axes
    assert axes.lines[0].get_xdata().tolist() == [12, 24]
    assert axes.lines[0].get_ydata().tolist() == pytest.approx([20, 40])
    precision, recall = torch.tensor([1.0, 0.8, 0.6, 0.5]), torch.tensor([0.1, 0.4, 0.7, 1.0])
    (axes,) = radius_curves({"a": (precision, recall), "short": (precision[:2], recall[:2])}).axes
    curve, ring = axes.lines[:2]
    assert curve.get_ydata().tolist() == pytest.approx([100, 80, 60, 50])
    assert [*ring.get_xdata(), *ring.get_ydata()] == pytest.approx([70, 60])  # radius 2
    assert len(axes.lines[3].get_xdata()) == 0  # these codes have no radius 2


def test_usage_has_a_column_a_method():
    correlation = np.full((3, 3), np.nan)
    correlation[:2, :2] = [[1, 0.5], [0.5, 1]]
    figure = usage_board({"a": ([0.5, 0.2, 1], correlation)}, ["4 codes"])
    bars, grid, _ = figure.axes
    assert [bar.get_height() for bar in bars.patches] == pytest.approx([50, 20, 100])
    assert grid.images[0].get_array().mask.sum() == 5
    assert [text.get_text() for text in figure.texts] == ["a", "4 codes"]


def test_nothing_to_show_is_refused():
    for call in (lambda: distance_histograms({}, 4), lambda: length_curves({})):
        with pytest.raises(ValueError, match="nothing to show: give at least one method"):
            call()
    with pytest.raises(ValueError, match="1 methods but 0 notes"):
        usage_board({"a": ([0.5], [[1]])}, [])
