import pytest

from fieldmarks.progress import choose_mode, counter


def test_work_before_training_is_one_plain_line(capsys):
    count = counter("images decoded", "lines")
    for done in range(1, 1201):
        count(done, 1200)
    assert capsys.readouterr().out.startswith("images decoded: 1,200 in ")
    quiet = counter("images decoded", "none")
    quiet(5, 5)
    assert capsys.readouterr().out == ""


def test_a_bar_counts_to_the_end_once(capsys):
    count = counter("images decoded", "bar")
    for done in (10, 25, 40):
        count(done, 40)
    assert "40/40" in capsys.readouterr().err


def test_lines_outside_jupyterlab_and_a_bar_in_it(monkeypatch):
    monkeypatch.delenv("FIELDMARKS_PROGRESS", raising=False)
    monkeypatch.setattr("fieldmarks.progress.in_jupyterlab", lambda: False)
    assert choose_mode("auto") == "lines" and choose_mode("bar") == "bar"
    monkeypatch.setattr("fieldmarks.progress.in_jupyterlab", lambda: True)
    assert choose_mode("auto") == "bar"
    monkeypatch.setenv("FIELDMARKS_PROGRESS", "lines")
    assert choose_mode("auto") == "lines"
    with pytest.raises(ValueError, match="progress is 'loud'"):
        choose_mode("loud")
