"""Generated data sets are written atomically: beside their folder, then moved there."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path


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
    """
    folder = Path(folder)
    if _exists(folder, manifest, kind, identity):
        return folder
    working = _working_folder(folder)
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
    except BaseException:
        shutil.rmtree(working, ignore_errors=True)
        raise
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


def _working_folder(folder: Path) -> Path:
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=f".{folder.name}.partial-", dir=folder.parent))
    except OSError as error:
        raise ValueError(
            f"cannot write in {folder.parent} ({error.strerror}): give a folder you may write to"
        ) from None
