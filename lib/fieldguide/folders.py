"""Generated data sets are written whole: beside their folder, then moved there; a finished one is found again."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path


def write_whole(
    folder: Path, manifest: str, what: str, identity: dict, write: Callable[[Path], None]
) -> Path:
    """Calls write(temporary folder) unless `folder` holds this very data set already; returns `folder`.

    manifest: the file that `write` leaves, JSON with "version" and "parameters"; identity: what it must say, flat.

    Raises ValueError for a place that cannot be written, FileExistsError when the folder holds something else.
    """
    folder = Path(folder)
    if _already_there(folder, manifest, what, identity):
        return folder
    working = _working_folder(folder)
    try:
        write(working)
        working.chmod(0o755)  # temporary folders are private
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
        try:
            os.replace(working, folder)
        except OSError:
            if not _already_there(
                folder, manifest, what, identity
            ):  # two runs may have made the same one at once
                raise
            shutil.rmtree(working)
    except BaseException:
        shutil.rmtree(working, ignore_errors=True)
        raise
    return folder


def _already_there(folder: Path, manifest: str, what: str, identity: dict) -> bool:
    if not os.path.lexists(folder):
        return False
    if not folder.is_dir():
        raise FileExistsError(f"{folder} is a file: give the name of a new or empty folder")
    file = folder / manifest
    if file.is_file():
        try:
            found = json.loads(file.read_text())
            found = {"version": found["version"], **found["parameters"]}
        except (ValueError, KeyError, TypeError):
            raise FileExistsError(
                f"{file} is damaged: remove {folder} or give another folder"
            ) from None
        if found == identity:
            return True
        other = ", ".join(
            f"{name} {found.get(name)} instead of {value}"
            for name, value in identity.items()
            if found.get(name) != value
        )
        raise FileExistsError(
            f"{folder} holds a {what} with {other}: give another folder, or remove this one"
        )
    if any(folder.iterdir()):
        raise FileExistsError(
            f"{folder} is not empty and holds no {what}: give the name of a new or empty folder"
        )
    return False


def _working_folder(folder: Path) -> Path:
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=f".{folder.name}.partial-", dir=folder.parent))
    except OSError as error:
        raise ValueError(
            f"cannot write in {folder.parent} ({error.strerror}): give a folder you may write to"
        ) from None
