"""Writing files so that nothing is ever half there."""

import errno
import json
import os
import re
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from filelock import FileLock, Timeout

try:
    import fcntl
except ImportError:  # Windows: there, what a killed process was writing stays
    fcntl = None  # type: ignore[assignment]

FREE = "free some space"
NO_ROOM = {  # what a disk says that takes no more, and what would help
    errno.ENOSPC: FREE,
    errno.EDQUOT: FREE,
    errno.EFBIG: "raise the limit on the size of files (ulimit -f)",
}
TEMPORARY = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{8}(?P<suffix>\.[^.]*)?")


@contextmanager
def atomic(path: Path):
    """Yields an empty temporary file beside `path`; what is written there takes `path`'s place at
    the end, or is removed on any error.

    What killed processes were writing in the same folder is removed first.

    Raises:
        OSError: the disk is full or the folder cannot be written; what was at `path` is as it was.
            Its `errno` is that of the system's error, one of NO_ROOM where the disk is full.
    """
    path = Path(path)
    _make(path.parent)
    remove_leftovers(path.parent)
    temporary = None
    try:
        temporary, held = _temporary(path)
        try:
            yield temporary
            os.replace(temporary, path)
        finally:
            os.close(held)
    except NotWritten:  # of another file, which was to be written together with this one
        raise
    except OSError as error:
        raise _refused(path, error) from error
    finally:
        if temporary:
            temporary.unlink(missing_ok=True)


def _temporary(path: Path) -> tuple[Path, int]:
    """A new file beside `path`, and what holds it as long as this process lives."""
    while True:
        temporary = path.with_name(f".{path.name}.{uuid4().hex[:8]}{path.suffix}")
        held = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)
        _hold(held)
        if temporary.exists():  # else another process took it for a leftover just before
            return temporary, held
        os.close(held)


def _hold(file: int, wait: bool = True) -> bool:
    """Lock an open file; False where another process has it or there are no locks."""
    with suppress(OSError):
        if fcntl:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            return True
    return False


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of `atomic` whose processes were killed; those of live ones, on
    any machine, are locked."""
    for file in folder.glob(".*"):
        match = TEMPORARY.fullmatch(file.name)
        if not match or (match["suffix"] or "") != Path(match["name"]).suffix:
            continue
        with suppress(OSError):  # another process removes it, or may and this one may not
            opened = os.open(file, os.O_RDWR)
            try:
                if _hold(opened, wait=False):
                    file.unlink()
            finally:
                os.close(opened)


class NotWritten(OSError):
    """Says which file it is about, and what would help."""


def _refused(path: Path, error: OSError) -> OSError:
    told = f"cannot write '{path}': {error.strerror or error}; nothing was left behind"
    right = NO_ROOM.get(error.errno or 0)
    refused = NotWritten(f"{told}: {right}, and do the same again" if right else told)
    refused.errno = error.errno
    return refused


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(folder, error) from error


def _unwritable(folder: Path, error: OSError) -> OSError:
    if error.errno in NO_ROOM:
        return _refused(folder, error)
    reason = error.strerror or error
    return OSError(f"cannot write into '{folder}': {reason}; give a folder that can be written")


def write_json(path: Path, value) -> None:
    """Atomically; numbers that JSON cannot hold (NaN, infinity) are refused."""
    text = json.dumps(value, indent=2, allow_nan=False)
    with atomic(path) as temporary:
        temporary.write_text(text + "\n")


_HELD: dict[Path, FileLock] = {}


def lock(folder: Path, wait: bool = False) -> None:
    """Make this process the only one to write into a folder, until it ends, however it ends. Asking
    twice is harmless.

    Raises:
        RuntimeError: another process holds it, and this one does not `wait` for it.
        OSError: it cannot be written."""
    folder = Path(folder).resolve()
    if folder in _HELD:
        return
    _make(folder)
    lock_file = FileLock(folder / ".lock")
    try:
        lock_file.acquire(timeout=-1 if wait else 0)
    except Timeout:
        raise RuntimeError(
            f"another run is writing to '{folder}': wait for it, or give another output folder"
        ) from None
    except OSError as error:
        raise _unwritable(folder, error) from error
    _HELD[folder] = lock_file


def release(folder: Path) -> None:
    """The opposite of `lock`, for a process that goes on."""
    if held := _HELD.pop(Path(folder).resolve(), None):
        held.release()


def cache_home() -> Path:
    """Where what can be made again is kept: $FIELDMARKS_CACHE, or ~/.cache/fieldmarks."""
    return Path(os.environ.get("FIELDMARKS_CACHE") or "~/.cache/fieldmarks").expanduser()
