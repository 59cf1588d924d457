from types import SimpleNamespace

import torch

from fieldmarks.data.augment import normalise
from fieldmarks.random import seeded
from fieldmarks.show.examples import print_shapes, rows_of_many_classes, shown


def test_rows_come_from_as_many_classes_as_there_are():
    labels = torch.randint(5, (40,), generator=torch.Generator().manual_seed(0))
    for count in (3, 5, 9, 40, 60):
        rows = rows_of_many_classes(labels, count, seed=3)
        assert len(rows) == len(rows.unique()) == min(count, 40)
        assert len(labels[rows].unique()) == min(count, 5)
    assert torch.equal(rows_of_many_classes(labels, 9, 3), rows_of_many_classes(labels, 9, 3))
    assert not torch.equal(rows_of_many_classes(labels, 9, 3), rows_of_many_classes(labels, 9, 4))


def test_rows_are_those_of_a_naive_search():
    """One of each class in the order of a permutation, then whatever is left in that order."""
    labels = torch.tensor([2, 2, 0, 1, 0, 2, 1, 1, 7])
    taken, naive = set(), []
    for repeat in (False, True):
        for row in torch.randperm(len(labels), generator=seeded(1, 7)).tolist():
            if len(naive) < 7 and row not in naive and (repeat or int(labels[row]) not in taken):
                naive.append(row)
                taken.add(int(labels[row]))
    assert rows_of_many_classes(labels, 7, 1).tolist() == naive


def test_pictures_come_out_of_what_a_network_sees():
    backbone = SimpleNamespace(mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    images = torch.rand(2, 3, 5, 7)
    pictures = shown(backbone, normalise(images, backbone.mean, backbone.std))
    assert len(pictures) == 2 and pictures[0].shape == (5, 7, 3)
    torch.testing.assert_close(torch.stack(pictures), images.permute(0, 2, 3, 1))


def test_shapes_are_printed_below_each_other(capsys):
    print_shapes(F=torch.zeros(2, 3), boxes=torch.zeros(4, dtype=torch.int64))
    assert capsys.readouterr().out == "F      (2, 3) float32\nboxes  (4,) int64\n"
