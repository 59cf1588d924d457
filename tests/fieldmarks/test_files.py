"""Files that are complete or not there, whatever becomes of their writers."""

import errno
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from fieldmarks.checkpoints import load_checkpoint, save_checkpoint, save_tensors
from fieldmarks.files import atomic, lock, release, remove_leftovers, write_json
from fieldmarks.search.codes import CodeIndex
from helpers.full_disk import FULL_DISKS

KILLED = """
import os, signal, sys
from pathlib import Path
from fieldmarks.files import atomic
with atomic(Path(sys.argv[1])) as temporary:
    temporary.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def killed_while_writing(path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)])
    assert done.returncode == -9


def names(folder) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_what_a_killed_process_was_writing_goes_with_the_next_file_in_its_folder(tmp_path):
    (tmp_path / "a.txt").write_text("before")
    killed_while_writing(tmp_path / "a.txt")
    assert len(names(tmp_path)) == 2 and (tmp_path / "a.txt").read_text() == "before"
    write_json(tmp_path / "b.json", {})
    assert names(tmp_path) == ["a.txt", "b.json"]
    killed_while_writing(tmp_path / "without_suffix")
    remove_leftovers(tmp_path)
    assert names(tmp_path) == ["a.txt", "b.json"]


def test_what_a_live_process_is_writing_stays_and_so_do_other_files(tmp_path):
    others = [".lock", ".hidden.txt", ".a.txt.0123456.txt", ".a.txt.01234567.npy", "a.01234567.txt"]
    for name in others:
        (tmp_path / name).touch()
    with atomic(tmp_path / "a.txt") as own:
        code = "import sys; from fieldmarks.files import *; write_json(sys.argv[1], 1)"
        subprocess.run([sys.executable, "-c", code, str(tmp_path / "b.json")], check=True)
        own.write_text("whole")
    assert (tmp_path / "a.txt").read_text() == "whole"
    assert names(tmp_path) == sorted([*others, "a.txt", "b.json"])


def test_a_temporary_that_another_process_took_for_a_leftover_is_made_again(tmp_path, monkeypatch):
    opened, taken = os.open, []

    def first_is_removed(path, *more):
        file = opened(path, *more)
        if not taken:
            taken.append(path)
            os.unlink(path)
        return file

    monkeypatch.setattr(os, "open", first_is_removed)
    write_json(tmp_path / "a.json", 3)
    assert (tmp_path / "a.json").read_text() == "3\n" and names(tmp_path) == ["a.json"]


def test_a_file_has_the_permissions_of_any_other(tmp_path):
    (tmp_path / "plain").touch()
    save_tensors(tmp_path / "a.safetensors", {"a": torch.zeros(3)})
    assert (tmp_path / "a.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode


def write_index(path, value) -> None:
    CodeIndex.build(torch.ones(4000, 16).where(torch.rand(4000, 16) < 0.5, -1)).save(path)


@pytest.mark.parametrize("disk, told", FULL_DISKS)
@pytest.mark.parametrize(
    "write",
    [
        lambda path, value: save_checkpoint(path, {"schema": 1, "value": value}),
        lambda path, value: save_tensors(path, {"value": value}),
        lambda path, value: write_json(path, value.tolist()),
        write_index,
    ],
    ids=["checkpoint", "tensors", "json", "index"],
)
def test_a_full_disk_is_told_in_one_line_by_whatever_writes(tmp_path, write, disk, told):
    path, value = tmp_path / "file", torch.arange(9000.0)
    path.write_text("before")
    with pytest.raises(OSError) as error, disk():
        write(path, value)
    assert str(error.value).startswith(f"cannot write '{path}': {told}; nothing was left behind: ")
    assert str(error.value).endswith(", and do the same again") and "\n" not in str(error.value)
    assert error.value.errno in (errno.EFBIG, errno.ENOSPC)
    assert path.read_text() == "before" and names(tmp_path) == ["file"]
    write(path, value)
    assert path.stat().st_size > 5000


def test_what_was_saved_is_read_back(tmp_path):
    value = torch.randn(5, 7)
    save_tensors(tmp_path / "a", {"value": value.t()})
    save_checkpoint(tmp_path / "b", {"schema": 1, "value": value})
    assert load_file(tmp_path / "a")["value"].equal(value.t())
    assert load_checkpoint(tmp_path / "b")["value"].equal(value)


def test_no_room_for_a_folder_is_no_fault_of_the_folder(tmp_path, monkeypatch):
    def refuses(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.mkdir", refuses)
        with pytest.raises(OSError, match="No space left .*: free some space, and do") as error:
            write_json(tmp_path / "new" / "a.json", 1)
    assert error.value.errno == errno.ENOSPC
    lock(tmp_path / "new")
    release(tmp_path / "new")
