"""Folders are written atomically, and what they hold already is left alone."""

import errno
import json
import subprocess
import sys

import pytest

from fieldguide.__main__ import main
from fieldguide.folders import write_atomically
from helpers.full_disk import grows_to

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


KILLED = """
import os, signal, sys
from pathlib import Path
from fieldguide.folders import write_atomically
def write(root):
    (root / "half").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
write_atomically(sys.argv[1], "manifest.json", "data set", {"version": 1}, write)
"""


def test_what_a_killed_process_drew_is_removed_and_what_a_live_one_draws_is_not(tmp_path):
    folder = tmp_path / "guide"
    assert subprocess.run([sys.executable, "-c", KILLED, str(folder)]).returncode == -9
    (dead,) = tmp_path.iterdir()
    assert dead.name.startswith(".guide.partial-")

    def slow(root):
        assert not dead.exists()
        write_atomically(folder, "set.json", "set", IDENTITY, write)  # another is quicker
        assert root.is_dir()
        write(root)

    assert write_atomically(folder, "set.json", "set", IDENTITY, slow) == folder
    assert [path.name for path in tmp_path.iterdir()] == ["guide"]


@pytest.mark.parametrize("draw", ["birds", "garments"])
def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path, capsys, draw):
    options = ["--size", "64"] + ["--classes", "2", "--images", "2"] * (draw == "birds")
    with grows_to(500):
        assert main([draw, str(tmp_path / "a"), *options]) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"fieldguide: cannot write {tmp_path / 'a'}: File too large; nothing")
    assert line.endswith(
        ": raise the limit on the size of files (ulimit -f), and do the same again"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_disk_without_room_for_a_folder_is_no_fault_of_the_folder(tmp_path, monkeypatch, capsys):
    def refuses(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tempfile.mkdtemp", refuses)
    assert main(["birds", str(tmp_path / "a")]) == 1
    assert "No space left on device; nothing was left behind: free some" in capsys.readouterr().err
