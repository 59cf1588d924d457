import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb

from fieldmarks.show.concepts import Blank, best_and_worst, importance, pair_board, question_rows

GREY = np.full((20, 20, 3), 128, np.uint8)


def a_pair_of_everything(pairs=3, concepts=9, seed=0):
    """(contributions, relevance, scores), each (n, M)."""
    rng = np.random.default_rng(seed)
    relevance, scores = rng.dirichlet(np.ones(concepts), pairs), rng.random((pairs, concepts))
    return relevance * scores, relevance, scores


def words(figure) -> list[str]:
    return [text.get_text() for text in figure.texts] + [
        text.get_text() for axes in figure.axes for text in axes.texts
    ]


def check_nothing_is_cut_off(figure):
    figure.canvas.draw()
    frame = figure.bbox
    for text in [*figure.texts, *(text for axes in figure.axes for text in axes.texts)]:
        box = text.get_window_extent()
        assert (
            frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
        ), text.get_text()


def bars(axes) -> tuple[list[float], list[float]]:
    """Lengths of the filled and of the hollow bars, from the top."""
    filled, hollow = axes.containers
    return [bar.get_width() for bar in filled], [bar.get_width() for bar in hollow]


def test_bars_are_the_largest_contributions_with_their_relevance_and_score():
    contributions, relevance, scores = a_pair_of_everything()
    names = [f"mark {number}" for number in range(9)]
    figure = pair_board(
        [GREY] * 3,
        [GREY] * 3,
        torch.tensor(contributions),
        relevance,
        scores,
        names,
        list("abc"),
        top=4,
    )
    assert figure.get_figwidth() == 10
    with_bars = [axes for axes in figure.axes if axes.containers]
    with_dots = [axes for axes in figure.axes if axes.lines]
    assert (
        len(with_bars) == len(with_dots) == 3 and len(figure.cells) == len(figure.axes) == 3 * 2
    )  # two pictures, bars and dots a pair
    for pair in range(3):
        best = sorted(range(9), key=lambda concept: -contributions[pair, concept])[:4]
        filled, hollow = bars(with_bars[pair])
        assert filled == pytest.approx([contributions[pair, c] for c in best])
        assert hollow == pytest.approx([relevance[pair, c] for c in best])
        assert with_dots[pair].lines[0].get_xdata() == pytest.approx(
            [scores[pair, c] for c in best]
        )
        said = words(figure)
        at = said.index("abc"[pair])
        assert said[at + 1] == f"similarity {contributions[pair].sum():.2f}"
        assert said[at + 2 : at + 6] == [names[c] for c in best]
        assert said[at + 6] == f"5 others: {contributions[pair].sum() - sum(filled):.2f}"
    assert len({axes.get_xlim() for axes in with_bars}) == 1  # lengths of different pairs compare
    check_nothing_is_cut_off(figure)


def test_maps_stand_beside_the_pictures_with_their_labels():
    contributions, relevance, scores = a_pair_of_everything(pairs=2)
    hot, cold = np.ones((2, 4, 4)), torch.zeros(2, 4, 4)
    figure = pair_board(
        [GREY] * 2,
        [GREY] * 2,
        contributions,
        relevance,
        scores,
        list("abcdefghi"),
        ["one", "two"],
        maps=[("similarity", hot, cold), (["b", "c"], cold, hot)],
    )
    shown = [cell.image for cell in figure.cells]
    assert len(shown) == 2 * 2 * 3

    def is_hot(picture) -> bool:
        return np.ptp(np.asarray(picture)[..., :3].reshape(-1, 3).mean(0)) > 0.05  # no longer grey

    assert [is_hot(picture) for picture in shown] == [False, True, False, False, False, True] * 2
    assert [word for word in words(figure) if word in ("similarity", "b", "c")].count(
        "similarity"
    ) == 2
    check_nothing_is_cut_off(figure)


def test_fewer_concepts_than_bars_and_very_long_names():
    contributions, relevance, scores = a_pair_of_everything(pairs=1, concepts=3)
    names = ["a very long name of a concept " * 4] * 3
    figure = pair_board([GREY], [GREY], contributions, relevance, scores, names, ["x" * 300])
    assert len(bars([axes for axes in figure.axes if axes.containers][0])[0]) == 3
    assert not any("other" in word for word in words(figure))
    check_nothing_is_cut_off(figure)


def test_equal_contributions_come_in_the_order_of_the_concepts():
    relevance = np.full((1, 5), 0.2)
    figure = pair_board(
        [GREY], [GREY], relevance, relevance, np.ones((1, 5)), list("abcde"), ["x"], top=3
    )
    assert [word for word in words(figure) if word in "abcde" and len(word) == 1] == ["a", "b", "c"]


@pytest.mark.parametrize(
    "change, message",
    [
        ({"captions": ["one"]}, "as many of each are needed"),
        ({"second": [GREY]}, "as many of each are needed"),
        (
            {"names": list("abcd")},
            r"must be \(2, 4\) for 4 names, got \(2, 9\), \(2, 9\) and \(2, 9\)",
        ),
        ({"scores": np.ones((2, 9))}, "contributions must be relevance times scores"),
        (
            {"maps": [("x", np.zeros((1, 2, 2)), np.zeros((2, 2, 2)))]},
            "2 pairs but 2 labels, 1 and 2 maps",
        ),
        ({"maps": [(["x"], np.zeros((2, 2, 2)), np.zeros((2, 2, 2)))]}, "2 pairs but 1 labels"),
    ],
)
def test_pairs_that_do_not_fit_are_refused(change, message):
    contributions, relevance, scores = a_pair_of_everything(pairs=2)
    arguments = {
        "first": [GREY] * 2,
        "second": [GREY] * 2,
        "contributions": contributions,
        "relevance": relevance,
        "scores": scores,
        "names": list("abcdefghi"),
        "captions": ["one", "two"],
    }
    with pytest.raises(ValueError, match=message):
        pair_board(**arguments | change)


def test_importance_shows_the_most_relevant_first():
    _, relevance, scores = a_pair_of_everything(pairs=1, concepts=30)
    names, groups = [f"mark {number}" for number in range(30)], ["colour", "cut", "cloth"] * 10
    figure = importance(names, relevance[0], torch.tensor(relevance[0] * scores[0]), groups, top=8)
    best = sorted(range(30), key=lambda concept: -relevance[0, concept])[:8]
    (axes,) = figure.axes
    filled, hollow = bars(axes)
    assert hollow == pytest.approx(relevance[0, best]) and filled == pytest.approx(
        (relevance * scores)[0, best]
    )
    said = words(figure)
    assert [word for word in said if word.startswith("mark")] == [
        names[concept] for concept in best
    ]
    assert [word for word in said if word in groups] == [groups[concept] for concept in best]
    colours = {}
    for bar, concept in zip(axes.containers[0], best, strict=True):
        colours.setdefault(groups[concept], set()).add(
            tuple(np.round(to_rgb(bar.get_facecolor()), 3))
        )
    assert all(len(found) == 1 for found in colours.values()) and len(
        set.union(*colours.values())
    ) == len(colours)
    share = sum(relevance[0, best]) / relevance[0].sum()
    assert f"the 8 most relevant of 30 concepts; they have {share:.0%} of the relevance" in said
    check_nothing_is_cut_off(figure)


def test_importance_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="2 names, 3 relevance_mean"):
        importance(["a", "b"], np.ones(3), np.ones(3))
    with pytest.raises(ValueError, match="1 groups"):
        importance(["a", "b"], np.ones(2), np.ones(2), ["x"])


def question(**changes) -> Blank:
    usual = {
        "outfit": [GREY] * 3,
        "place": 1,
        "choices": [GREY] * 4,
        "scores": [0.1, 0.7, 0.3, 0.2],
        "answer": 1,
    }
    return Blank(**usual | changes)


def test_right_answer_and_choice_are_marked_by_sign_and_word():
    rows = [
        question(),
        question(answer=3),
        question(scores=torch.tensor([0.5, 0.5, 0.1, 0.5]), answer=1),
    ]
    figure = question_rows(rows, ["one", "two", "three"])
    cells, blanks = figure.cells, figure.axes
    assert len(cells) == 3 * (3 + 4) and len(blanks) == 3
    assert all([text.get_text() for text in blank.texts] == ["?"] for blank in blanks)
    for number, (row, chosen) in enumerate(zip(rows, (1, 1, 0), strict=True)):
        own = cells[7 * number : 7 * number + 7]
        assert own[0].place.x1 < blanks[number].get_position().x0 < own[1].place.x0
        signs = [cell.sign for cell in own[3:]]
        expected = [""] * 4
        expected[chosen] = "\u2717"
        expected[row.answer] = "\u2713"
        assert signs == expected
        above = own[3 + chosen].place
        (word,) = [
            text
            for text in figure.texts
            if text.get_text() == "chosen"
            and above.x0 < text.get_position()[0] < above.x1
            and above.y0 - 0.45 / figure.get_figheight() < text.get_position()[1] < above.y0
        ]
        assert word.get_color() == ("#0f8a5f" if chosen == row.answer else "#c9311f")
    numbers = [word for word in words(figure) if word.startswith("0.")]
    assert numbers == ["0.100", "0.700", "0.300", "0.200"] * 2 + [
        "0.500",
        "0.500",
        "0.100",
        "0.500",
    ]
    check_nothing_is_cut_off(figure)


def test_long_outfits_and_ten_choices_fit_on_the_page():
    long = question(outfit=[GREY] * 12, place=12, choices=[GREY] * 10, scores=range(10), answer=0)
    figure = question_rows([long, question()])
    assert figure.get_figwidth() == 10
    figure.canvas.draw()
    places = [cell.place for cell in figure.cells] + [axes.get_position() for axes in figure.axes]
    assert len(places) == 13 + 10 + 8 and all(0 <= box.x0 and box.x1 <= 1 for box in places)


@pytest.mark.parametrize(
    "changes",
    [
        {"answer": 4},
        {"scores": [0.1]},
        {"place": 4},
        {"outfit": [], "place": 0},
        {"choices": [], "scores": [], "answer": 0},
    ],
)
def test_questions_that_do_not_fit_are_refused(changes):
    with pytest.raises(ValueError, match="question 1 has .* which do not fit"):
        question_rows([question(), question(**changes)])


def test_no_questions_or_titles_for_others_are_refused():
    with pytest.raises(ValueError, match="nothing to show"):
        question_rows([])
    with pytest.raises(ValueError, match="1 rows, 2 titles"):
        question_rows([question()], ["one", "two"])


def concepts_of_pairs(pairs=40, concepts=7, seed=0):
    """names, areas, scores, labels, positions and pictures."""
    rng = np.random.default_rng(seed)
    areas = np.array([0.4, 0.9, np.nan, 0.55, 0.7, 0.3, 0.8])[:concepts]
    labels = rng.integers(0, 2, (pairs, concepts)).astype(float)
    labels[rng.random(labels.shape) < 0.2] = np.nan
    positions = np.stack([np.arange(pairs), pairs + rng.permutation(pairs)], axis=1)
    names = [f"mark {number}" for number in range(concepts)]
    return names, areas, rng.random((pairs, concepts)), labels, positions, [GREY] * (2 * pairs)


def test_the_best_and_the_worst_concepts_with_the_pairs_at_both_ends():
    names, areas, scores, labels, positions, pictures = concepts_of_pairs()
    given = torch.tensor(areas), torch.tensor(scores), torch.tensor(labels), torch.tensor(positions)
    figure = best_and_worst(names, *given, pictures, count=2, each=3)
    said = words(figure)
    assert [text for text in said if text.startswith("mark")] == [names[n] for n in (1, 6, 0, 5)]
    assert [text for text in said if text.startswith("AUC 0")] == [
        f"AUC {areas[n]:.2f}" for n in (1, 6, 0, 5)
    ]
    expected = []
    for concept in (1, 6, 0, 5):
        known = [row for row in range(40) if not np.isnan(labels[row, concept])]
        known.sort(key=lambda row: -scores[row, concept])
        for row in [*known[:3], *known[:-4:-1]]:
            has = "has it" if labels[row, concept] else "has it not"
            expected.append(f"{scores[row, concept]:.2f}, {has}")
    assert [text for text in said if "has it" in text and "AUC" not in text] == expected
    cells = [cell.place for cell in figure.cells]
    assert len(cells) == 4 * 6 * 2 and max(cell.x1 for cell in cells) <= 1 - 0.12 / 10 + 1e-9
    check_nothing_is_cut_off(figure)


def test_of_a_concept_no_picture_comes_twice_and_few_concepts_are_shown_once():
    names, areas, scores, labels, positions, pictures = concepts_of_pairs(concepts=2)
    positions[:, 0] = np.arange(40) // 4  # ten pictures, four pairs each
    shown = []

    class Seen(list):
        def __getitem__(self, place):
            shown.append(place)
            return GREY

    figure = best_and_worst(names, areas, scores, labels, positions, Seen(), each=4)
    assert len(shown) == 2 * 8 * 2 and len(set(shown[:16])) == len(set(shown[16:])) == 16
    said = words(figure)
    assert [text for text in said if text.startswith("mark")] == ["mark 1", "mark 0"]
    with pytest.raises(ValueError, match="areas are all NaN"):
        best_and_worst(names, [np.nan] * 2, scores, labels, positions, pictures)
    with pytest.raises(ValueError, match="as many of each are needed"):
        best_and_worst(names[:1], areas, scores, labels, positions, pictures)
