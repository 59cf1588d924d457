"""How well a set of hash codes uses its bits."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fieldmarks.codes import as_bits
from fieldmarks.labels import integer_labels


class CodeUsage(NamedTuple):
    distinct: int  # number of different codes, 1 .. N
    balance: Tensor  # (k,) float64, share of +1 in each bit: 0.5 is best
    correlation: Tensor  # (k, k) float64, Pearson's: 0 is best; NaN at a bit that never changes


def code_usage(codes) -> CodeUsage:
    """Whether codes (N, k) of -1/+1 have collapsed, and how even and independent their bits are;
    ValueError as `as_bits`."""
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
    """Share of classes whose majorities differ, of codes (N, k) of -1/+1 and labels (N,)."""
    classes, place = integer_labels(labels).unique(return_inverse=True)
    majority = torch.zeros(len(classes), codes.shape[1]).index_add_(0, place, codes.float()) >= 0
    return len(majority.unique(dim=0)) / len(classes)
