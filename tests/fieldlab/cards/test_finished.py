import json

import pytest

from fieldlab import cli
from fieldlab.cards.finished import find_results, of_earlier_edition
from helpers.runs import make_run


def rewrite(folder, **changes):
    result = json.loads((folder / "result.json").read_text())
    (folder / "result.json").write_text(json.dumps(result | changes))


def test_runs_of_an_earlier_edition_do_not_count(tmp_path, capsys):
    old, new = make_run(tmp_path / "old"), make_run(tmp_path / "new")
    rewrite(old, schema=1)
    assert of_earlier_edition(old) and not of_earlier_edition(new)
    with pytest.warns(match="1 of the runs do not count, as '.*old' was made by an earlier"):
        assert [run.folder for run in find_results(tmp_path)] == [new]
    rewrite(new, schema=1)
    assert cli.main(["report", str(tmp_path)]) == 2
    output, error = capsys.readouterr()
    assert output == "" and error.count("\n") == 1
    assert error.endswith("was made by an earlier edition: run it again, or use a new folder\n")


def test_a_result_that_is_cut_off_or_none_of_this_library(tmp_path):
    folder = make_run(tmp_path / "run")
    text = (folder / "result.json").read_text()
    (folder / "result.json").write_text(text[:100])
    with pytest.raises(FileNotFoundError, match="no finished run below"):
        find_results(tmp_path)
    result = json.loads(text)
    del result["counts"], result["card"]
    (folder / "result.json").write_text(json.dumps(result))
    with pytest.raises(ValueError, match="result.json' lacks card, counts: remove it, or run"):
        find_results(tmp_path)


def test_runs_come_by_card_and_in_the_order_in_which_they_ended(tmp_path):
    ends = {"c": "2026-01-03", "a": "2026-01-02", "b": "2026-01-01"}
    for name, end in ends.items():
        make_run(tmp_path / name, card="x" if name == "c" else "y")
        rewrite(tmp_path / name, finished=end)
    assert [run.folder.name for run in find_results(tmp_path)] == ["c", "b", "a"]


def test_what_trained_an_encoder_is_a_part_of_the_runs_beside_it(tmp_path):
    run, encoder = make_run(tmp_path / "run"), make_run(tmp_path / "embeddings" / "encoder")
    assert [each.folder for each in find_results(tmp_path)] == [run]
    assert [each.folder for each in find_results(tmp_path / "embeddings")] == [encoder]


@pytest.mark.parametrize("text", ['{"status": "comp', "", "[]", '{"status": "complete"}'])
def test_a_result_that_cannot_be_read_is_named_beside_those_that_can(tmp_path, text):
    make_run(tmp_path / "whole")
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / "result.json").write_text(text)
    with pytest.warns(UserWarning, match="^1 of the runs do not count: '.*cut.result.json' is cut"):
        runs = find_results(tmp_path)
    assert [run.folder.name for run in runs] == ["whole"]


@pytest.mark.parametrize(
    "change, names", [({"metrics": [1]}, "metrics"), ({"card": 3, "figures": {}}, "card, figures")]
)
def test_a_result_with_values_of_another_kind_is_named(tmp_path, change, names):
    rewrite(make_run(tmp_path / "run"), **change)
    with pytest.raises(ValueError, match=f"result.json' lacks {names}: remove it, or run"):
        find_results(tmp_path)
