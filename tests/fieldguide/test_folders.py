"""Folders are written atomically, and what they hold already is left alone."""

import json

import pytest

from fieldguide.folders import write_atomically

IDENTITY = {"version": 1, "seed": 0}


def write(folder):
    (folder / "set.json").write_text(json.dumps({"version": 1, "parameters": {"seed": 0}}))


def test_a_new_folder_is_readable_by_others_and_is_returned_as_it_is(tmp_path):
    folder = write_atomically(tmp_path / "deep" / "set", "set.json", "set", IDENTITY, write)
    assert folder.stat().st_mode & 0o777 == 0o755 and (folder / "set.json").is_file()
    assert [path.name for path in folder.parent.iterdir()] == ["set"]
    assert write_atomically(str(folder), "set.json", "set", IDENTITY, pytest.fail) == folder


@pytest.mark.parametrize(
    "text", ["{", "[]", "{}", '{"version": 1}', '{"version": 1, "parameters": 3}']
)
def test_a_damaged_manifest_is_named(tmp_path, text):
    (tmp_path / "set.json").write_text(text)
    with pytest.raises(FileExistsError, match="set.json is damaged: remove .* or give another"):
        write_atomically(tmp_path, "set.json", "set", IDENTITY, write)
    assert (tmp_path / "set.json").read_text() == text


def test_what_differs_is_named(tmp_path):
    write(tmp_path)
    with pytest.raises(
        FileExistsError, match="holds a set with version 1 instead of 2, seed 0 inst"
    ):
        write_atomically(tmp_path, "set.json", "set", {"version": 2, "seed": 9}, write)
