import math

import pytest
import torch

from fieldmarks.evaluation.statistics import bootstrap_interval
from fieldmarks.experiments.scores import Scores

HITS = torch.tensor([1.0, 0, math.nan, 1, 1, 0, 1, 1]).double()
GROUPS = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])


def scores(**changes):
    given = {"values": {"recall": HITS}, "others": {"tied": 0.25}, "asked": GROUPS, "queries": 8}
    return Scores(**{**given, **changes})


def test_metrics_are_means_over_the_queries_that_count():
    assert scores().metrics == {"recall": pytest.approx(5 / 7), "tied": 0.25}


def test_intervals_are_bootstraps_over_the_same_queries():
    result = scores()
    known = HITS[~HITS.isnan()]
    assert list(result.interval("recall")) == list(bootstrap_interval(known)[1:])
    assert result.intervals == {"recall": list(bootstrap_interval(known)[1:])}
    low, high = result.intervals["recall"]
    assert low < result.metrics["recall"] < high
    assert result.interval("tied") is None and result.interval("nothing") is None


def test_queries_of_a_group_are_drawn_together():
    result = scores(groups=GROUPS)
    known = ~HITS.isnan()
    expected = bootstrap_interval(HITS[known], groups=GROUPS[known])[1:]
    assert list(result.interval("recall")) == list(expected)
    # A group's queries are alike here, so drawing them together leaves more to chance.
    alike = torch.arange(40).div(4, rounding_mode="floor") % 2
    single = scores(values={"recall": alike.double()})
    grouped = scores(values={"recall": alike.double()}, groups=torch.arange(40) // 4)
    widths = [high - low for low, high in (s.interval("recall") for s in (single, grouped))]
    assert widths[1] > 1.5 * widths[0]


def test_reported_metrics_come_first_and_have_the_intervals():
    calls = []

    def interval():
        calls.append(True)
        return 0.4, 0.6

    result = scores(
        values={"a": HITS, "b": HITS},
        others={"auc": 0.5},
        reported=("b", "auc"),
        own_intervals={"auc": interval},
    )
    assert list(result.metrics) == ["b", "auc", "a"]
    assert not calls  # what takes long is computed when somebody asks
    assert list(result.intervals) == ["b", "auc"] and result.intervals["auc"] == [0.4, 0.6]
    assert result.interval("auc") == (0.4, 0.6) and result.interval("a") is not None
