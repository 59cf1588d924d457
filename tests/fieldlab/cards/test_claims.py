import random

import pytest

from fieldlab.cards.card import load_card
from fieldlab.cards.claims import (
    CONTRADICTED,
    NOT_TESTED,
    SUPPORTED,
    UNDECIDED,
    decide,
    judge,
    p_value,
)
from fieldlab.report.tables import arrange
from fieldlab.report.wording import bounds, outcome
from fieldmarks.evaluation.statistics import bootstrap_interval, seed_interval, seed_p
from helpers.runs import bare, measured


def only_verdict(lab, runs, values=None):
    """On a single table; `values` are those of each query, by the run's row and seed."""
    card = load_card(lab.write())
    (table,) = arrange(runs, {"paper-table1": card})

    def again(folder, result):
        key = result["parameters"]["steps"], result["parameters"]["seed"]
        if key not in (values or {}):
            raise ValueError("nothing was saved")
        found = values[key]
        return (
            found if hasattr(found, "values") and not isinstance(found, list) else measured(found)
        )

    (verdict,) = judge(table, again)
    return verdict


@pytest.mark.parametrize(
    "low, high, within, word",
    [
        (0.01, 0.02, None, SUPPORTED),
        (-0.02, -0.01, None, CONTRADICTED),
        (-0.01, 0.02, None, UNDECIDED),
        (0, 0.02, None, UNDECIDED),
        (-0.02, 0, None, UNDECIDED),
        (0, 0, None, UNDECIDED),
        (-0.003, 0.003, 0.003, SUPPORTED),
        (0.001, 0.002, 0.003, SUPPORTED),
        (-0.004, 0.001, 0.003, UNDECIDED),
        (0.003, 0.005, 0.003, UNDECIDED),
        (0.0031, 0.005, 0.003, CONTRADICTED),
        (-0.02, -0.01, 0.003, CONTRADICTED),
        (-0.5, 0.5, 0.003, UNDECIDED),
    ],
)
def test_an_interval_decides_only_when_all_of_it_lies_on_one_side(low, high, within, word):
    assert decide(low, high, within) == word


# ---- over seeds


def over_seeds(lab, two: list[float]):
    runs = [bare("one", {"recall@1": 0.50}, seed) for seed in range(3)]
    return only_verdict(
        lab, runs + [bare("one + two", {"recall@1": value}, seed) for seed, value in enumerate(two)]
    )


def test_several_seeds_give_students_interval_of_the_differences(lab):
    verdict = over_seeds(lab, [0.60, 0.62, 0.58])
    half = (
        4.302652729911275 * 0.02 / 3**0.5
    )  # t of 2 degrees of freedom, deviation of 0.10, 0.12, 0.08
    assert verdict.difference == pytest.approx(0.10) and verdict.interval == pytest.approx(
        (0.10 - half, 0.10 + half)
    )
    assert verdict.word == SUPPORTED and verdict.basis == "paired over 3 seeds (0, 1, 2)"
    assert (
        over_seeds(lab, [0.40, 0.42, 0.38]).word == CONTRADICTED
        and over_seeds(lab, [0.40, 0.62, 0.58]).word == UNDECIDED
    )


def test_seeds_are_compared_with_themselves(lab):
    runs = [
        bare("one", {"recall@1": 0.1}, 7),
        bare("one", {"recall@1": 0.50}, 0),
        bare("one", {"recall@1": 0.70}, 1),
        bare("one + two", {"recall@1": 0.53}, 0),
        bare("one + two", {"recall@1": 0.75}, 1),
    ]
    verdict = only_verdict(lab, runs)
    assert (
        verdict.difference == pytest.approx(0.04) and verdict.basis == "paired over 2 seeds (0, 1)"
    )


# ---- over queries


def test_one_seed_gives_the_paired_bootstrap_over_queries(lab):
    chance = random.Random(1)
    one = [float(chance.random() < 0.5) for _ in range(300)]
    two = [max(value, float(chance.random() < 0.3)) for value in one]
    verdict = only_verdict(lab, [bare("one"), bare("one + two")], {(1, 0): one, (2, 0): two})
    gains = [b - a for a, b in zip(one, two, strict=True)]
    means = sorted(sum(chance.choice(gains) for _ in gains) / len(gains) for _ in range(2000))
    assert verdict.difference == pytest.approx(sum(gains) / len(gains))
    assert verdict.interval == pytest.approx((means[50], means[1949]), abs=0.01)
    assert verdict.word == SUPPORTED
    assert verdict.basis == "one seed (0): the interval is over 300 queries, paired"


def test_pairing_sees_what_two_separate_intervals_would_not(lab):
    one = [0.0, 1.0] * 100
    two = [0.0, 1.0] * 95 + [1.0, 1.0] * 5
    assert (
        only_verdict(lab, [bare("one"), bare("one + two")], {(1, 0): one, (2, 0): two}).word
        == SUPPORTED
    )


def test_queries_without_a_value_are_left_out_of_both(lab):
    verdict = only_verdict(
        lab,
        [bare("one"), bare("one + two")],
        {(1, 0): [0.0, float("nan"), 0.0, 0.5], (2, 0): [1.0, 1.0, float("nan"), 1.0]},
    )
    assert verdict.difference == pytest.approx(0.75) and "over 2 queries, paired" in verdict.basis


def test_seeds_that_all_say_the_same_are_no_seeds(lab):
    runs = [
        bare(row, {"recall@1": value}, seed)
        for row, value in (("one", 0.25), ("one + two", 0.75))
        for seed in (0, 1)
    ]
    values = {(1, 0): [0.0, 0.0, 0.0, 1.0], (2, 0): [1.0, 0.0, 1.0, 1.0]}
    values |= {(1, 1): values[1, 0], (2, 1): values[2, 0]}
    basis = "all 2 seeds differ alike: the interval is over 4 queries, paired"
    assert only_verdict(lab, runs, values).basis == basis


@pytest.mark.parametrize(
    "runs, values, word, basis",
    [
        ([bare("one")], {}, NOT_TESTED, "one + two was not run"),
        ([bare("one"), bare("one + two", {"map": 0.3})], {}, NOT_TESTED, "one + two was not run"),
        (
            [bare("one", seed=0), bare("one + two", seed=1)],
            {},
            UNDECIDED,
            "the rows have no seed in common",
        ),
        (
            [bare("one"), bare("one + two")],
            {(1, 0): measured([0, 1], [1, 2]), (2, 0): measured([0, 1], [1, 3])},
            UNDECIDED,
            "no interval: the runs do not share their queries",
        ),
    ],
)
def test_what_cannot_be_decided_says_why(lab, runs, values, word, basis):
    verdict = only_verdict(lab, runs, values)
    assert (verdict.word, verdict.basis, verdict.interval) == (word, basis, None)


def test_a_metric_that_is_no_mean_over_queries_has_no_interval_from_one_seed(lab):
    lab.card["claims"][0]["metric"] = "area"
    lab.card["published"] = {}
    runs = [bare("one", {"area": 0.5}), bare("one + two", {"area": 0.6})]
    verdict = only_verdict(lab, runs, {(1, 0): [1.0], (2, 0): [1.0]})
    assert verdict.word == UNDECIDED and verdict.difference == pytest.approx(0.1)
    assert verdict.basis == "no interval: area is no mean over queries"


def test_embeddings_that_are_gone_leave_a_difference_without_interval(lab):
    (table,) = arrange(
        [bare("one", {"recall@1": 0.5}), bare("one + two", {"recall@1": 0.6})],
        {"paper-table1": load_card(lab.write())},
    )
    (verdict,) = judge(table)
    assert verdict.word == UNDECIDED and verdict.difference == pytest.approx(0.1)
    assert verdict.basis == "no interval: embeddings.safetensors is not there"


def test_a_row_that_was_run_in_two_ways_is_no_row_to_compare(lab):
    lab.card["profiles"]["demo"]["grid"] = {"one": {"lr": 0.2}}
    runs = [bare("one", lr=0.2), bare("one", lr=0.3), bare("one + two")]
    verdict = only_verdict(lab, runs)
    assert (verdict.word, verdict.basis) == (NOT_TESTED, "one was run in 2 ways")


# ---- which claims, and beside what


def test_within(lab):
    lab.card["claims"] = [
        {"text": "As good", "metric": "recall@1", "row": "one + two", "within": 0.05, "of": "one"}
    ]
    assert over_seeds(lab, [0.51, 0.52, 0.50]).word == SUPPORTED
    assert (
        over_seeds(lab, [0.61, 0.62, 0.60]).word == CONTRADICTED
        and over_seeds(lab, [0.51, 0.56, 0.50]).word == UNDECIDED
    )


def test_a_claim_on_some_data_sets_is_not_made_on_the_papers_others(lab):
    lab.card["published"]["one"]["cars"] = {"recall@1": 0.8}
    lab.card["claims"][0]["datasets"] = ["cub"]
    card = load_card(lab.write())
    for dataset, expected in (("cub", 1), ("cars", 0), ("fieldguide", 1)):
        (table,) = arrange([bare("one", dataset=dataset)], {"paper-table1": card})
        assert len(judge(table)) == expected, dataset


def test_the_papers_own_difference_stands_beside(lab):
    lab.card["published"] = {
        "one": {"cub": {"recall@1": 0.7}, "cars": {"recall@1": 0.8}},
        "one + two": {"cub": {"recall@1": 0.75}, "cars": {"recall@1": 0.79}},
    }
    card = load_card(lab.write())
    for dataset, expected in (("cub", {"cub": 0.05}), ("fieldguide", {"cub": 0.05, "cars": -0.01})):
        (verdict,) = judge(arrange([bare("one", dataset=dataset)], {"paper-table1": card})[0])
        assert verdict.published == pytest.approx(expected)


# ---- queries beside seeds, several claims, tuning


def test_queries_stand_beside_seeds_each_with_its_mean_over_them(lab):
    runs = [bare("one", {"recall@1": 0.25 * s}, s) for s in (0, 1)]
    runs += [bare("one + two", {"recall@1": 0.5 + 0.5 * s}, s) for s in (0, 1)]
    values = {(1, 0): [0.0, 0.0, 0.0, 0.0], (1, 1): [0.0, 0.0, 0.0, 1.0]}
    values |= {(2, 0): [1.0, 0.0, 1.0, 0.0], (2, 1): [1.0, 1.0, 1.0, 1.0]}
    verdict = only_verdict(lab, runs, values)
    assert verdict.basis == "paired over 2 seeds (0, 1)"
    gains = [1.0, 0.5, 1.0, 0.0]  # over the seeds
    assert verdict.over_queries == tuple(bootstrap_interval(gains)[1:])
    assert f"over queries {bounds(*verdict.over_queries)}" in outcome(verdict)


def test_a_p_value_is_below_5_percent_just_where_the_interval_decides():
    chance = random.Random(3)
    for within in (None, 0.3):
        decided = 0
        for _ in range(300):
            true = chance.choice([0, 0.2, 1])
            values = [chance.gauss(true, 0.2) for _ in range(5)]
            p = p_value(lambda border, values=values: seed_p(values, border), within)
            word = decide(*seed_interval(values)[1:], within)
            assert (p < 0.05) == (word != UNDECIDED)
            decided += word != UNDECIDED
        assert 20 < decided < 280


def claims_of(lab, count: int):
    """Differences of 0.010, 0.018 and 0.005 over seeds, p about 0.03; and other claims, not run."""
    claim = lab.card["claims"][0]
    lab.card["claims"] = [claim | {"text": f"claim {n}"} for n in range(count)]
    gains = (0.010, 0.018, 0.005, 0.004, 0.011)
    runs = [bare("one", {"recall@1": 0.5}, seed) for seed in range(5)]
    runs += [bare("one + two", {"recall@1": 0.5 + g}, seed) for seed, g in enumerate(gains)]
    (table,) = arrange(runs, {"paper-table1": load_card(lab.write())})

    def again(folder, result):
        raise ValueError("nothing was saved")

    return judge(table, again)


def test_a_claim_holds_only_after_the_correction_for_the_number_of_claims(lab):
    (alone,) = claims_of(lab, 1)
    assert alone.word == SUPPORTED and 0.01 < alone.p < 0.05 and alone.corrected == alone.p
    assert "corrected" not in outcome(alone)
    several = claims_of(lab, 6)
    for verdict in several:
        assert verdict.interval == alone.interval and verdict.p == alone.p
        assert verdict.word == UNDECIDED and verdict.corrected == pytest.approx(6 * alone.p)
    assert f"{6 * alone.p:.2g} corrected for 6 claims" in outcome(several[0])


def test_claims_that_cannot_be_tested_do_not_count_for_the_correction(lab):
    lab.card["grid"]["three"] = {"steps": 3}
    lab.card["claims"] += [
        {"text": "No", "metric": "recall@1", "higher": "three", "lower": "one"}
    ] * 9
    runs = [bare("one", {"recall@1": 0.5}, seed) for seed in range(3)]
    runs += [bare("one + two", {"recall@1": v}, s) for s, v in enumerate((0.6, 0.62, 0.58))]
    lab.card["published"] = {}
    (table,) = arrange(runs, {"paper-table1": load_card(lab.write())})

    def again(folder, result):
        raise ValueError("nothing was saved")

    first, *others = judge(table, again)
    assert first.word == SUPPORTED and first.tested == 1
    assert {verdict.word for verdict in others} == {NOT_TESTED}


def test_a_claim_says_how_its_rows_were_tuned(lab):
    lab.card["tune"] = {"space": {"lr": {"low": 0.1, "high": 1.0}}}
    how, fixes = "20 trials on held-out training classes", "; this row fixes all"
    for first, second, words in (
        ("", "", "not tuned"),
        (how, how, f"both rows tuned: {how}"),
        (how, how + fixes, f"one + two: {how}{fixes}; one: {how}"),
    ):
        # What was searched differs from row to row, and makes no table of its own.
        runs = [bare("one", tuned=first, lr=0.5), bare("one + two", tuned=second, lr=0.5)]
        if how in first:
            runs[1].result["parameters"]["lr"] = 0.7
        verdict = only_verdict(lab, runs, {(1, 0): [0.0, 1.0], (2, 0): [1.0, 1.0]})
        assert verdict.tuned == words and words in outcome(verdict)


def test_tuned_runs_and_others_are_not_compared(lab):
    runs = [bare("one", tuned="20 trials"), bare("one + two", tuned="")]
    assert len(arrange(runs, {"paper-table1": load_card(lab.write())})) == 2
