"""Generated data sets are written atomically: beside their folder, then moved there."""

from __future__ import annotations

import errno
import glob
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: there, what a killed process was drawing stays
    fcntl = None  # type: ignore[assignment]

FREE = "free some space, or give a folder elsewhere"
NO_ROOM = {  # what a disk says that takes no more, and what would help
    errno.ENOSPC: FREE,
    errno.EDQUOT: FREE,
    errno.EFBIG: "raise the limit on the size of files (ulimit -f)",
}


def write_atomically(
    folder: Path | str, manifest: str, kind: str, identity: dict, write: Callable[[Path], None]
) -> Path:
    """Calls write(temporary folder) unless `folder` holds this very data set; returns `folder`.

    Args:
        manifest: the file that `write` leaves, JSON with "version" and "parameters".
        kind: what the data set is called in messages.
        identity: version and parameters of this data set, flat.

    Raises:
        ValueError: for a place that cannot be written.
        FileExistsError: when the folder holds something else.
        OSError: the disk is full, or fails; nothing is left behind.
    """
    folder = Path(folder)
    _remove_leftovers(folder)
    if _exists(folder, manifest, kind, identity):
        return folder
    working, held = _working_folder(folder)
    try:
        write(working)
        working.chmod(0o755)  # temporary folders are private
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
        try:
            os.replace(working, folder)
        except OSError:  # two runs may have made the same one at once
            if not _exists(folder, manifest, kind, identity):
                raise
            shutil.rmtree(working)
    except BaseException as error:
        shutil.rmtree(working, ignore_errors=True)
        if isinstance(error, OSError) and not isinstance(error, FileExistsError):
            raise _refused(folder, error) from error
        raise
    finally:
        if held is not None:
            os.close(held)
    return folder


def write_lines(path: Path, lines: Iterable[str]) -> None:
    path.write_text("\n".join(lines) + "\n", newline="\n")


def _exists(folder: Path, manifest: str, kind: str, identity: dict) -> bool:
    """Whether the folder holds this data set; False for a missing or empty folder."""
    if not os.path.lexists(folder):
        return False
    if not folder.is_dir():
        raise FileExistsError(f"{folder} is a file: give the name of a new or empty folder")
    file = folder / manifest
    if file.is_file():
        try:
            present = json.loads(file.read_text())
            present = {"version": present["version"], **present["parameters"]}
        except (ValueError, KeyError, TypeError):
            raise FileExistsError(
                f"{file} is damaged: remove {folder} or give another folder"
            ) from None
        if present == identity:
            return True
        differences = ", ".join(
            f"{name} {present.get(name)} instead of {value}"
            for name, value in identity.items()
            if present.get(name) != value
        )
        raise FileExistsError(
            f"{folder} holds a {kind} with {differences}: give another folder, or remove this one"
        )
    if any(folder.iterdir()):
        raise FileExistsError(
            f"{folder} is not empty and holds no {kind}: give the name of a new or empty folder"
        )
    return False


def _working_folder(folder: Path) -> tuple[Path, int | None]:
    """A new folder beside `folder`, and what holds it as long as this process lives."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        while True:
            working = Path(tempfile.mkdtemp(prefix=f".{folder.name}.partial-", dir=folder.parent))
            held = _hold(working)
            if working.exists():  # else another process took it for a leftover just before
                return working, held
    except OSError as error:
        if error.errno in NO_ROOM:
            raise _refused(folder, error) from error
        raise ValueError(
            f"cannot write in {folder.parent} ({error.strerror}): give a folder you may write to"
        ) from None


def _refused(folder: Path, error: OSError) -> OSError:
    told = f"cannot write {folder}: {error.strerror or error}; nothing was left behind"
    right = NO_ROOM.get(error.errno or 0)
    refused = OSError(f"{told}: {right}, and do the same again" if right else told)
    refused.errno = error.errno
    return refused


def _hold(working: Path, wait: bool = True) -> int | None:
    """Lock a folder: what holds it, or None where another process does or there are no locks."""
    if fcntl is None:
        return None
    with suppress(OSError):
        opened = os.open(working, os.O_RDONLY)
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            return opened
        except OSError:
            os.close(opened)
    return None


def _remove_leftovers(folder: Path) -> None:
    """Remove what killed processes drew of this data set; the folders of live ones are locked."""
    for working in folder.parent.glob(f".{glob.escape(folder.name)}.partial-*"):
        held = _hold(working, wait=False)
        if held is not None:
            shutil.rmtree(working, ignore_errors=True)
            os.close(held)
