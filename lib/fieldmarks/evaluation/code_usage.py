"""How well a set of hash codes uses its bits."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fieldmarks.codes import as_bits


class CodeUsage(NamedTuple):
    """A good code of k bits has balance 0.5 and correlation 0 off the diagonal.

    Attributes:
        distinct: number of different codes, 1 .. N.
        balance: (k,) float64, share of +1 in each bit.
        correlation: (k, k) float64, Pearson's; NaN at a bit that never changes.
    """

    distinct: int
    balance: Tensor
    correlation: Tensor


def code_usage(codes) -> CodeUsage:
    """Whether codes (N, k) of -1/+1 have collapsed, and how even and independent their bits are.

    Raises:
        ValueError: no codes, or a value other than -1 and +1.
    """
    bits = as_bits(codes)
    distinct = len(np.unique(np.packbits(bits, axis=1), axis=0))
    ones = torch.from_numpy(bits).double()
    # whole numbers, so that a constant bit has a variance of exactly 0
    count, together = ones.sum(dim=0), ones.T @ ones
    covariance = len(bits) * together - count[:, None] * count
    variance = covariance.diagonal()
    correlation = covariance / (variance[:, None] * variance).sqrt()  # 0 / 0 = NaN
    return CodeUsage(distinct, count / len(bits), correlation)


def distinct_class_codes(codes: Tensor, labels: Tensor) -> float:
    """How many different codes the majorities of the classes make, as a share of the classes.

    Args:
        codes: (N, k) of -1/+1.  labels: (N,) integers.
    """
    classes, place = labels.unique(return_inverse=True)
    majority = torch.zeros(len(classes), codes.shape[1]).index_add_(0, place, codes.float()) >= 0
    return len(majority.unique(dim=0)) / len(classes)
