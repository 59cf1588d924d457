"""Which examples a figure shows, and pictures out of a network's input."""

import torch
from torch import Tensor

from fieldmarks.data.augment import denormalise
from fieldmarks.random import seeded


def rows_of_many_classes(labels: Tensor, count: int, seed: int) -> Tensor:
    """Rows drawn at random from as many classes as there are: labels (N,) -> (count,)."""
    order = torch.randperm(len(labels), generator=seeded(seed, 7))
    kept = labels[order]
    first = torch.tensor([not (kept[:place] == label).any() for place, label in enumerate(kept)])
    return torch.cat([order[first], order[~first]])[:count]


def shown(backbone, images: Tensor) -> list[Tensor]:
    """Images (B, 3, H, W), normalised for a backbone, as B pictures (H, W, 3) in [0, 1]."""
    return list(denormalise(images, backbone.mean, backbone.std).permute(0, 2, 3, 1).cpu())


def print_shapes(**values: Tensor) -> None:
    """A line for each tensor: its name, its shape and what it is made of."""
    width = max(map(len, values), default=0)
    for name, value in values.items():
        kind = str(value.dtype).removeprefix("torch.")
        print(f"{name:{width}}  {tuple(value.shape)} {kind}")
