import numpy as np
import pytest
import torch

from fieldmarks.show.maps import HEAT
from fieldmarks.show.numbers import strips


def cells(axes):
    """The colours of a table, (r, c, 4)."""
    (image,) = axes.images
    return image.cmap(image.norm(image.get_array()))


def test_equal_numbers_have_one_colour_in_all_tables_and_unknown_ones_none():
    one, two = torch.tensor([[0.0, 1.0, 2.0]]), torch.tensor([[4.0, 1.0], [float("nan"), 0.0]])
    figure = strips([("one", one, "place"), ("two", two, "place", ["a", "b"])], "value")
    first, second = (cells(axes) for axes in figure.axes[:2])
    assert np.allclose(first[0, 1], second[0, 1]) and np.allclose(first[0, 0], second[1, 1])
    assert np.allclose(second[0, 0], HEAT(1.0)) and np.allclose(first[0, 0], HEAT(0.0))
    assert second[1, 0, 3] == 0  # the axes' grey shows through
    assert {"one", "two", "a", "b"} <= {text.get_text() for text in figure.texts}


def test_signed_numbers_are_white_at_zero():
    figure = strips([("codes", np.array([[-0.5, 0.0, 2.0]]), "bit")], signed=True)
    minus, zero, plus = cells(figure.axes[0])[0, :, :3]
    assert zero.min() > 0.95 and minus[2] > minus[0] and plus[0] > plus[2]


def test_limits_hold_for_numbers_that_are_all_alike():
    figure = strips([("labels", torch.ones(2, 3), "attribute")], limits=(0, 1))
    assert np.allclose(cells(figure.axes[0]), HEAT(1.0))


@pytest.mark.parametrize("values, written", [([0.0, 1.0, np.nan], 2), ([0.0, 0.5, 1.0], 6)])
def test_between_labels_that_are_0_or_1_the_scale_says_nothing(values, written):
    figure = strips([("labels", np.array(12 * [values]), "attribute")], limits=(0, 1))
    assert len(figure.axes[-1].get_yticks()) == written


@pytest.mark.parametrize(
    "panels, message",
    [
        ([], "nothing to show"),
        ([("one", torch.zeros(3), "place")], r"must be a table .*, got \(3,\)"),
        ([("one", torch.zeros(2, 3), "place", ["a"])], "has 2 rows but 1 names"),
    ],
)
def test_what_is_no_table_is_refused(panels, message):
    with pytest.raises(ValueError, match=message):
        strips(panels)
