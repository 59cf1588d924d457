"""What a hash code is: -1 or +1 for each bit. Whoever takes codes checks them here."""

import numpy as np
from torch import Tensor


def as_bits(codes, name: str = "codes") -> np.ndarray:
    """Codes (N, k) of -1/+1, a Tensor or an array of any real dtype, as (N, k) bool, True for +1.

    Raises:
        ValueError: no codes, no bits, or a value other than -1 and +1; the first is named."""
    values = codes.detach().cpu() if isinstance(codes, Tensor) else np.asarray(codes)
    if values.ndim != 2 or 0 in values.shape:
        shape = tuple(values.shape)
        raise ValueError(f"{name} must be a non-empty (N, k) matrix of -1 and +1, got {shape}")
    bits = np.asarray(values == 1)
    wrong = ~(bits | np.asarray(values == -1))
    if wrong.any():
        row, bit = np.argwhere(wrong)[0].tolist()
        value = values[row, bit].item()
        cure = "turn outputs into codes first (to_codes, which is the sign)"
        cure = cure if value == value else "the network has diverged"
        where = f"found {value:.6g} at row {row}, bit {bit}"
        raise ValueError(f"{name} must hold only -1 and +1, {where}: {cure}")
    return bits
