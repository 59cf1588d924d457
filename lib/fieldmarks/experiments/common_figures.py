"""What the figures of all experiments need: a look at the data, a fair choice of queries, names and images as people read them."""

import torch
from matplotlib.figure import Figure
from torch import Tensor

from fieldmarks.backbones import Backbone
from fieldmarks.data.augment import denormalise
from fieldmarks.data.imageset import ImageSet
from fieldmarks.data.pixels import PixelCache
from fieldmarks.random import seeded
from fieldmarks.show import galleries


def classes_at_a_glance(
    images: ImageSet, pixels: PixelCache, classes: int = 12, each: int = 4
) -> Figure:
    """The first images of classes spread evenly over the set."""
    present = images.labels.unique()
    chosen = present[torch.linspace(0, len(present) - 1, min(classes, len(present))).round().long()]
    strips = [
        [pixels[i] for i in (images.labels == c).nonzero().squeeze(1)[:each].tolist()]
        for c in chosen
    ]
    return galleries.class_board(strips, [readable(images.class_names[c]) for c in chosen.tolist()])


def rows_of_many_classes(labels: Tensor, count: int, seed: int) -> Tensor:
    """Rows drawn at random from as many classes as there are: labels (N,) -> (count,)."""
    order = torch.randperm(len(labels), generator=seeded(seed, 7))
    taken, rows = set(), []
    for repeat in (False, True):
        for row in order.tolist():
            if (
                len(rows) < count
                and row not in rows
                and (repeat or labels[row].item() not in taken)
            ):
                rows.append(row)
                taken.add(labels[row].item())
    return torch.tensor(rows)


def readable(name: str) -> str:
    """ "001.Black_footed_Albatross" -> "Black footed Albatross"."""
    number, dot, rest = name.partition(".")
    return (rest if dot and number.isdigit() else name).replace("_", " ")


def shown(backbone: Backbone, images: Tensor) -> list:
    """Normalised images (B, 3, H, W) as a list of B (H, W, 3) in [0, 1]."""
    return list(denormalise(images, backbone.mean, backbone.std).permute(0, 2, 3, 1).cpu())
