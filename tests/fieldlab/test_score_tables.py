import numpy as np
import pytest

from fieldlab.score_tables import agreement, score_table


def words(figure) -> list[str]:
    return [text.get_text() for text in figure.texts]


def test_scores_are_per_cent_and_the_best_of_each_column_is_bold():
    figure = score_table(
        {"one": {"FITB": 0.512, "AUC": 0.9}, "two": {"FITB": 0.6, "AUC": 0.9, "extra": 0.1}},
        "two",
        "a title",
    )
    assert words(figure) == [
        "a title",
        "FITB",
        "AUC",
        "extra",
        "one",
        "51.2",
        "90.0",
        "\u2013",
        "two",
        "60.0",
        "90.0",
        "10.0",
    ]
    bold = [text.get_text() for text in figure.texts if text.get_weight() == "bold"]
    assert bold == ["a title", "90.0", "two", "60.0", "90.0", "10.0"]
    assert len(figure.axes) == 1  # the ground of the row that stands out


def test_a_table_of_nothing_is_refused():
    for methods in ({}, {"one": {}}):
        with pytest.raises(ValueError, match="nothing to show"):
            score_table(methods)


def test_agreement_counts_questions():
    rng = np.random.default_rng(0)
    first, second = rng.random(80) < 0.6, rng.random(80) < 0.3
    figure = agreement({"some": (first, second), "same": (first, first)}, "K = 0", "K = 1")
    counts = [int(axes.texts[1].get_text()) for axes in figure.axes]
    naive = [0] * 4
    for one, other in zip(first, second, strict=True):
        naive[2 * (not one) + (not other)] += 1
    assert counts == [*naive, int(first.sum()), 0, 0, int((~first).sum())]
    assert figure.axes[0].texts[0].get_text() == f"{100 * naive[0] / 80:.0f} %"


def test_ways_that_answered_other_questions_are_refused():
    with pytest.raises(ValueError, match="nothing to show"):
        agreement({}, "a", "b")
    with pytest.raises(ValueError, match="some: both ways must have answered the same questions"):
        agreement({"some": (np.ones(3, bool), np.ones(4, bool))}, "a", "b")
