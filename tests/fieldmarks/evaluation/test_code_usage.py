import math

import pytest
import torch

from fieldmarks.evaluation.code_usage import code_usage


def naive_correlation(x: list[float], y: list[float]) -> float:
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    covariance = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    spread = math.sqrt(sum((a - mean_x) ** 2 for a in x) * sum((b - mean_y) ** 2 for b in y))
    return covariance / spread if spread else math.nan


@pytest.mark.parametrize("kind", [torch.float32, torch.int8, torch.bfloat16])
def test_equals_the_definition(kind):
    codes = torch.randint(0, 2, (50, 11), generator=torch.Generator().manual_seed(0)) * 2 - 1
    codes[:, 3] = 1  # never changes
    codes[:, 7] = -codes[:, 2]
    codes[40:] = codes[:10]
    usage = code_usage(codes.to(kind))
    rows, columns = codes.tolist(), codes.T.tolist()
    assert usage.distinct == len(set(map(tuple, rows)))
    assert usage.balance.tolist() == pytest.approx([column.count(1) / 50 for column in columns])
    expected = [[naive_correlation(x, y) for y in columns] for x in columns]
    assert usage.correlation.tolist() == [
        pytest.approx(row, abs=1e-12, nan_ok=True) for row in expected
    ]
    assert usage.correlation[7, 2] == -1 and usage.correlation.diagonal()[:3].tolist() == [1, 1, 1]
    assert usage.correlation[3].isnan().all() and usage.correlation[:, 3].isnan().all()


def test_collapsed_and_single_codes():
    for codes in (torch.ones(1, 3), -torch.ones(1000, 3)):
        usage = code_usage(codes)
        assert usage.distinct == 1 and usage.balance.tolist() == [(codes[0, 0] > 0).item()] * 3
        assert usage.correlation.isnan().all()


def test_counts_all_the_codes_there_are():
    usage = code_usage(torch.cartesian_prod(*[torch.tensor([-1, 1])] * 9).repeat(2, 1))
    assert usage.distinct == 512 and torch.equal(usage.balance, torch.full((9,), 0.5).double())
    assert torch.equal(usage.correlation, torch.eye(9).double())


def test_bad_input():
    with pytest.raises(
        ValueError, match="codes must hold only -1 and .1, found 0.5 at row 0, bit 1"
    ):
        code_usage([[1, 0.5]])
    with pytest.raises(ValueError, match="non-empty"):
        code_usage(torch.ones(0, 4))
