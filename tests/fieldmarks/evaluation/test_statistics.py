import math

import numpy as np
import pytest
import torch

from fieldmarks.evaluation.statistics import (
    bootstrap_interval,
    bootstrap_p,
    holm,
    paired_bootstrap,
    seed_interval,
    seed_p,
)


def test_intervals_cover_the_true_mean_as_often_as_they_say():
    generator = np.random.default_rng(0)
    covered = 0
    for trial in range(300):
        _, low, high = bootstrap_interval(generator.random(200) < 0.3, resamples=400, seed=trial)
        covered += low <= 0.3 <= high
    assert 0.90 < covered / 300 < 0.98


def test_intervals_over_classes_cover_where_those_over_queries_do_not():
    generator = np.random.default_rng(0)
    covered = {"queries": 0, "classes": 0}
    for trial in range(200):
        classes = np.repeat(np.arange(30), 20)
        values = generator.random(600) < np.repeat(generator.beta(2, 2, 30), 20)
        for name, groups in (("queries", None), ("classes", classes)):
            _, low, high = bootstrap_interval(values, groups=groups, resamples=300, seed=trial)
            covered[name] += low <= 0.5 <= high
    assert covered["classes"] / 200 > 0.88 and covered["queries"] / 200 < 0.7


def test_agrees_with_scipys_bootstrap():
    from scipy.stats import bootstrap

    values = np.random.default_rng(1).normal(size=150)
    other = bootstrap(
        (values,), np.mean, method="percentile", n_resamples=5000, rng=0
    ).confidence_interval
    _, low, high = bootstrap_interval(values, resamples=5000)
    assert (low, high) == pytest.approx((other.low, other.high), abs=0.01)


def test_does_not_care_about_order_beyond_chance_and_is_seeded():
    values = np.random.default_rng(0).random(300)
    assert bootstrap_interval(values) == bootstrap_interval(values)
    assert bootstrap_interval(values[::-1]) == pytest.approx(bootstrap_interval(values), abs=0.01)


def test_constant_values_and_single_values_have_no_width():
    assert bootstrap_interval([0.5] * 10) == (0.5, 0.5, 0.5) and bootstrap_interval([1.0]) == (
        1.0,
        1.0,
        1.0,
    )


def test_pairing_removes_what_both_share():
    generator = np.random.default_rng(0)
    hard = generator.random(400)
    a, b = hard + 0.05 + generator.normal(0, 0.01, 400), hard
    mean, low, high = paired_bootstrap(a, b)
    assert 0.045 < low < mean < high < 0.055


def test_seeds_follow_students_t():
    mean, low, high = seed_interval([0.70, 0.72, 0.74])
    assert mean == pytest.approx(0.72) and high - mean == pytest.approx(
        4.302653 * 0.02 / math.sqrt(3), rel=1e-5
    )
    assert mean - low == pytest.approx(high - mean)
    assert seed_interval([0.7]) == (0.7, -math.inf, math.inf)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: bootstrap_interval([]), "one or more values"),
        (lambda: bootstrap_interval([0.1, math.nan]), "1 of 2 values are NaN"),
        (lambda: bootstrap_interval([0.1], level=95), "level is 95"),
        (lambda: bootstrap_interval([0.1, 0.2], groups=[1]), "1 groups for 2 values"),
        (lambda: paired_bootstrap([0.1], [0.1, 0.2]), "same queries twice"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_the_order_of_queries_and_the_names_of_groups_change_nothing():
    generator = np.random.default_rng(0)
    values, groups = generator.random(200) < 0.4, generator.integers(0, 12, 200)
    order = generator.permutation(200)
    assert bootstrap_interval(values[order]) == bootstrap_interval(values)
    expected = bootstrap_interval(values, groups=groups)
    assert bootstrap_interval(values[order], groups=groups[order]) == expected
    assert (
        bootstrap_interval(values, groups=[f"class {99 - group}" for group in groups]) == expected
    )
    assert bootstrap_interval(torch.tensor(values), groups=torch.tensor(groups)) == expected
    assert (
        expected.mean == values.mean()
        and bootstrap_interval(values, groups=[7] * 200)[1:] == (values.mean(),) * 2
    )


def test_groups_of_one_are_queries_and_infinity_is_refused():
    values = np.random.default_rng(0).random(50)
    assert bootstrap_interval(values, groups=np.arange(50)) == pytest.approx(
        bootstrap_interval(values)
    )
    with pytest.raises(ValueError, match="1 of 2 values are NaN or infinite, first at 1"):
        seed_interval([0.1, math.inf])


# ---- p-values, several of them


def test_seed_p_is_scipys_paired_t_test():
    from scipy.stats import ttest_rel

    generator = np.random.default_rng(0)
    for count in (2, 3, 5, 20):
        one, other = generator.normal(0.1, 0.2, count), generator.normal(0, 0.2, count)
        for border in (0.0, 0.05, -0.3):
            sides = [
                ttest_rel(one, other + border, alternative=name).pvalue
                for name in ("greater", "less")
            ]
            assert seed_p(one - other, border) == pytest.approx(sides)


def test_seed_p_and_seed_interval_say_the_same():
    from scipy.stats import ttest_1samp

    values = [0.01, 0.03, 0.02, -0.01]
    interval = ttest_1samp(values, 0).confidence_interval(0.95)
    assert seed_interval(values)[1:] == pytest.approx((interval.low, interval.high))
    _, low, high = seed_interval(values)
    assert seed_p(values, low)[0] == pytest.approx(0.025)
    assert seed_p(values, high)[1] == pytest.approx(0.025)


@pytest.mark.parametrize("values", [[0.1], [0.1, 0.1]])
def test_seed_p_needs_seeds_that_differ(values):
    with pytest.raises(ValueError, match="two or more seeds with different values"):
        seed_p(values)


def test_bootstrap_p_counts_the_samples_on_the_other_side():
    values = np.random.default_rng(1).normal(0.02, 0.1, 60)
    drawn = np.random.default_rng(9).choice(values, (20_000, 60)).mean(1)
    above, below = bootstrap_p(values, 0.01, resamples=20_000)
    assert above == pytest.approx((drawn <= 0.01).mean(), abs=0.01)
    assert below == pytest.approx((drawn >= 0.01).mean(), abs=0.01)
    assert bootstrap_p([1.0, 1.0], resamples=99) == (0.01, 1.0)
    classes = np.arange(60) // 20
    groups = np.array([values[classes == c].mean() for c in range(3)])
    found = bootstrap_p(values, 0.01, groups=classes, resamples=20_000)
    drawn = np.random.default_rng(9).choice(groups, (20_000, 3)).mean(1)
    assert found[0] == pytest.approx((drawn <= 0.01).mean(), abs=0.02)


def naive_holm(p_values, level: float) -> list[bool]:
    """Which are rejected: the smallest against level / m, the next against level / (m - 1), ...,
    up to the first that is not."""
    rejected = [False] * len(p_values)
    for step, place in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        if p_values[place] > level / (len(p_values) - step):
            break
        rejected[place] = True
    return rejected


def test_holm_rejects_what_the_step_down_rejects():
    generator = np.random.default_rng(0)
    for _ in range(300):
        p = (generator.random(generator.integers(1, 9)) ** 3).round(2).tolist()
        for level in (0.0493, 0.1007, 0.5003):  # at none of the corrected values
            assert [c <= level for c in holm(p)] == naive_holm(p, level)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0] and holm([0.02]) == [0.02] and holm([]) == []


@pytest.mark.parametrize("p", [[0.1, 1.2], [-0.1], [float("nan")]])
def test_holm_refuses_what_is_no_p_value(p):
    with pytest.raises(ValueError, match="p-values lie between 0 and 1"):
        holm(p)
