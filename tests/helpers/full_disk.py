"""Disks that take no more, without privileges: what is written to them fails in the operating
system itself, so that every library meets the error as on a real one."""

import os
import resource
from contextlib import contextmanager
from pathlib import Path

import pytest

from fieldmarks import files


@contextmanager
def grows_to(count: int = 1000):
    """No file of this process, and of those that it starts, grows beyond so many bytes. Python
    ignores the signal that comes with it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def no_space():
    """What `atomic` gives to be written is Linux's disk that is always full."""

    def full(path: Path) -> tuple[Path, int]:
        temporary = path.with_name(f".{path.name}.00c0ffee{path.suffix}")
        temporary.symlink_to("/dev/full")
        return temporary, os.open(os.devnull, os.O_RDWR)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "_temporary", full)
        yield


FULL_DISKS = [
    pytest.param(grows_to, "File too large", id="limit"),
    pytest.param(
        no_space,
        "No space left on device",
        id="full",
        marks=pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full"),
    ),
]


def hidden(folder: Path) -> list[str]:
    """The temporary files below a folder."""
    return [
        file.name for file in folder.rglob(".*") if file.name not in (".lock", ".runner", ".cache")
    ]
