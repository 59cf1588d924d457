"""Whether a network looks at the object: its attention against masks of what is the object.

The place of the maximum says whether erasing or cropping by it would meet the object, and the ratio
how far the object stands out. The share of images whose centre lies on the object is the floor: a
photographer puts the object there."""

from typing import NamedTuple

import torch
from torch import Tensor


class OnObject(NamedTuple):
    """Each (N,) float64, NaN for an image without a pixel of the object or beside it."""

    maximum: Tensor  # 1 where the pixel of the map's maximum lies on the object, else 0
    centre: Tensor  # 1 where the picture's centre does: the floor of `maximum`
    ratio: Tensor  # the map's mean on the object over its mean beside it


def on_object(maps: Tensor, masks: Tensor) -> OnObject:
    """Compare maps with masks, both (N, H, W); masks are true on the object.

    Of several equal maxima each counts its share. A map that is zero beside the object has the
    ratio infinity, one that is zero everywhere NaN.

    Raises:
        ValueError: shapes differ, or a map holds NaN or values below 0."""
    if maps.ndim != 3 or maps.shape != masks.shape:
        shapes = f"{tuple(maps.shape)} and {tuple(masks.shape)}"
        raise ValueError(f"maps and masks must both be (N, H, W), got {shapes}")
    heat, there = maps.flatten(1).double(), masks.flatten(1).to(maps.device).double()
    if not (heat >= 0).all():
        raise ValueError("maps must be at least 0 everywhere, and not NaN")
    peaks = heat == heat.amax(1, keepdim=True)
    maximum = (peaks * there).sum(1) / peaks.sum(1)
    height, width = masks.shape[1:]
    middle = masks[:, (height - 1) // 2 : height // 2 + 1, (width - 1) // 2 : width // 2 + 1]
    centre = middle.to(maps.device).double().mean((1, 2))
    inside, outside = ((heat * part).sum(1) / part.sum(1) for part in (there, 1 - there))
    known = (there.sum(1) > 0) & (there.sum(1) < there.shape[1])
    return OnObject(
        *(torch.where(known, x, torch.nan) for x in (maximum, centre, inside / outside))
    )
