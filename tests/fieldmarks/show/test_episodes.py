import numpy as np
import pytest

from fieldmarks.show.episodes import episode_board
from fieldmarks.show.picture import save


def episode(ways=3, shots=2, queries=4):
    rng = np.random.default_rng(0)
    pictures = lambda count: [[rng.random((20, 24, 3)) for _ in range(count)] for _ in range(ways)]
    chosen = np.repeat(np.arange(ways)[:, None], queries, axis=1)
    chosen[0, 1], chosen[2, 3] = 2, 0
    return pictures(shots), pictures(queries), chosen, [f"Species number {n}" for n in range(ways)]


def words(figure):
    return [text.get_text() for text in figure.texts] + [
        text.get_text() for axes in figure.axes for text in axes.texts
    ]


def test_each_picture_is_there_and_each_query_is_marked(tmp_path):
    figure = episode_board(*episode(), title="an episode")
    assert len(figure.cells) == 3 * (2 + 4)
    said = words(figure)
    assert said.count("\u2713") == 10 and said.count("\u2717") == 2
    assert (
        said.count("as 3") == 1
        and said.count("as 1") == 1
        and "queries, 10 of 12 right" in said
        and "an episode" in said
    )
    assert save(figure, tmp_path / "episode.jpg").stat().st_size > 5000


def test_nothing_lies_outside_the_figure():
    figure = episode_board(*episode(5, 5, 6), title="an episode")
    for cell in figure.cells:
        assert 0 <= cell.place.x0 < cell.place.x1 <= 1 and 0 <= cell.place.y0 < cell.place.y1 <= 1


def test_what_does_not_fit_is_refused():
    supports, queries, chosen, names = episode()
    with pytest.raises(ValueError, match="3 supports, 3 queries, 2 chosen, 3 names"):
        episode_board(supports, queries, chosen[:2], names)
    with pytest.raises(
        ValueError, match=r"needs 2 supports and 4 queries with a choice each, got choices \(3, 3\)"
    ):
        episode_board(supports, queries, chosen[:, :3], names)
    with pytest.raises(ValueError, match="choices must lie between 0 and 2, got 0 to 3"):
        episode_board(supports, queries, np.where(chosen == 2, 3, chosen), names)
    with pytest.raises(ValueError, match="at least one"):
        episode_board([], [], np.empty((0, 0)), [])
