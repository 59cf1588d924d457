"""Labels as people have them, as the integers that all else works with."""

import numpy as np
import torch
from torch import Tensor


def integer_labels(labels, name: str = "labels", count: int | None = None) -> Tensor:
    """Labels (N,), integers in a list, array or tensor, as int64; a tensor stays on its device.

    Raises ValueError, one line about `name`, for text, fractions, truth values, unknown ones (None,
    NaN), another shape, or another number than `count`."""
    if labels is None:
        raise ValueError(f"{name} is missing: without labels nothing is relevant")
    try:
        values = labels if isinstance(labels, Tensor) else np.asarray(labels)
    except ValueError:  # a list of lists of several lengths
        values = np.empty((len(labels), 0))
    if values.ndim != 1 or count not in (None, len(values)):
        wanted = "N" if count is None else count
        raise ValueError(f"{name} must have shape ({wanted},), got {tuple(values.shape)}")
    if isinstance(values, Tensor):
        whole = not (values.is_floating_point() or values.is_complex())
        integers = whole and values.dtype != torch.bool
    else:
        integers = values.dtype.kind in "iu"
    if not integers:
        cure, got = "leave out images of unknown class (None, NaN)", values.dtype
        if texts := [value for value in values.tolist() if isinstance(value, str)]:
            cure = "number the classes, a text by the same number everywhere"
            got = f"text ({texts[0]!r})"
        raise ValueError(f"{name} must be integers, got {got}: {cure}")
    if isinstance(values, Tensor):
        return values.long()
    return torch.from_numpy(values.astype(np.int64))
