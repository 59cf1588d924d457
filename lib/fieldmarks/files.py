"""Writing files so that nothing is ever half there."""

import json
import os
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from filelock import FileLock, Timeout


@contextmanager
def atomic(path: Path):
    """Yields a temporary path beside `path`; what is written there takes `path`'s place at the end,
    or is removed on any error.

    Raises:
        OSError: the disk is full or the folder cannot be written; what was at `path` is as it was.
    """
    path = Path(path)
    _make(path.parent)
    temporary = path.with_name(f".{path.name}.{uuid4().hex[:8]}{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        reason = error.strerror or error
        raise OSError(f"cannot write '{path}': {reason}; nothing was left behind") from error
    finally:
        temporary.unlink(missing_ok=True)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(folder, error) from error


def _unwritable(folder: Path, error: OSError) -> OSError:
    reason = error.strerror or error
    return OSError(f"cannot write into '{folder}': {reason}; give a folder that can be written")


def write_json(path: Path, value) -> None:
    """Atomically; numbers that JSON cannot hold (NaN, infinity) are refused."""
    text = json.dumps(value, indent=2, allow_nan=False)
    with atomic(path) as temporary:
        temporary.write_text(text + "\n")


_HELD: dict[Path, FileLock] = {}


def lock(folder: Path) -> None:
    """Make this process the only one to write into a folder, until it ends, however it ends. Asking
    twice is harmless.

    Raises:
        RuntimeError: another process holds it.
        OSError: it cannot be written."""
    folder = Path(folder).resolve()
    if folder in _HELD:
        return
    _make(folder)
    lock_file = FileLock(folder / ".lock")
    try:
        lock_file.acquire(timeout=0)
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
