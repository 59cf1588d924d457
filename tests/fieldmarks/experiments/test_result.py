import json
import subprocess

import pytest

import fieldmarks
from fieldmarks.experiments import result as module
from fieldmarks.experiments.result import (
    SCHEMA,
    commit,
    environment,
    finished_run,
    read_result,
    write_result,
)
from helpers.full_disk import FULL_DISKS

GIVEN = {
    "experiment": "open_set",
    "notebook": "notebooks/vapnet.ipynb",
    "card": "vapnet-table1",
    "method": "vapnet",
    "dataset": "cub",
    "parameters": {"seed": 3, "lr": 0.5},
    "metrics": {"recall@1": 0.5},
    "intervals": {"recall@1": [0.4, 0.6]},
    "counts": {"train": 1},
    "curves": {},
    "figures": ["top_ten.jpg"],
    "timing": {"train_seconds": 1.0},
    "device": "cpu",
}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "top_ten.jpg").write_bytes(b"a picture")
    return tmp_path


def test_what_is_written_is_read(folder):
    path = write_result(folder, **GIVEN, best={"recall@1": 0.6})
    assert path == folder / "result.json"
    result = read_result(folder)
    assert result == json.loads(path.read_text())
    assert result["schema"] == SCHEMA == 2 and result["status"] == "complete"
    for name, value in {**GIVEN, "seed": 3, "best": {"recall@1": 0.6}}.items():
        if name != "device":
            assert result[name] == value, name
    assert {"commit", "python", "torch", "device", "numpy"} <= result["environment"].keys()
    assert result["environment"]["device"].startswith("cpu (")
    assert finished_run(str(folder)) == (folder, result)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"figures": ["top_ten.jpg", "absent.jpg"]}, "names figures that are not in .*absent.jpg"),
        ({"metrics": {"recall@1": float("nan")}}, "not JSON compliant|Out of range"),
    ],
)
def test_what_is_not_complete_is_not_written(folder, changes, message):
    with pytest.raises(ValueError, match=message) as caught:
        write_result(folder, **{**GIVEN, **changes})
    assert "\n" not in str(caught.value)
    assert [file.name for file in folder.iterdir()] == ["top_ten.jpg"]


@pytest.mark.parametrize(
    "change",
    [
        lambda file: file.unlink(),
        lambda file: file.write_text(file.read_text()[:100]),
        lambda file: file.write_text("[1, 2]"),
        lambda file: file.write_text(file.read_text().replace('"complete"', '"running"')),
        lambda file: file.write_bytes(b"\xff\xfe\x00"),
    ],
)
def test_only_a_complete_result_counts(folder, change):
    change(write_result(folder, **GIVEN))
    assert read_result(folder) is None
    for name in ("", "baseline"):
        with pytest.raises(ValueError) as caught:
            finished_run(folder, name)
        expected = f"{name} '{folder}' is not a finished run: give the folder of a complete"
        assert str(caught.value).startswith(expected.strip()) and "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="is not a finished run"):
        fieldmarks.load_run(folder)


@pytest.mark.parametrize("schema", [1, 3])
def test_a_result_of_another_edition_is_refused_in_one_line(folder, schema):
    file = write_result(folder, **GIVEN)
    file.write_text(json.dumps({**json.loads(file.read_text()), "schema": schema}))
    assert read_result(folder) is None
    for ask in (finished_run, fieldmarks.load_run):
        with pytest.raises(ValueError) as caught:
            ask(folder)
        assert "was made by an" in str(caught.value) and "edition" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_run_s_folder_may_be_in_the_home_folder(folder, monkeypatch):
    write_result(folder, **GIVEN)
    monkeypatch.setenv("HOME", str(folder.parent))
    assert finished_run(f"~/{folder.name}")[0] == folder


def test_the_commit_is_that_of_the_checkout(monkeypatch):
    assert len(commit().removesuffix("+changes")) == 40 or commit() == "unknown"

    def absent(*_, **__):
        raise FileNotFoundError("git")

    monkeypatch.setattr(subprocess, "run", absent)
    assert commit() == "unknown"


def test_a_processor_has_a_name(monkeypatch):
    assert module.processor()
    assert environment("cpu")["threads"].isdigit()


@pytest.mark.parametrize("disk, told", FULL_DISKS)
def test_a_full_disk_leaves_no_result_that_could_count(folder, disk, told):
    parameters = {"seed": 3, "lr": 0.5, "note": "long " * 400}
    with pytest.raises(OSError, match=f"cannot write .*result.json': {told}; nothing"), disk():
        write_result(folder, **{**GIVEN, "parameters": parameters})
    assert read_result(folder) is None and [p.name for p in folder.iterdir()] == ["top_ten.jpg"]
    write_result(folder, **{**GIVEN, "parameters": parameters})
    assert read_result(folder)["parameters"] == parameters
