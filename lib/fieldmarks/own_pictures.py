"""An index over anyone's own pictures: what a finished run's network makes of them, kept up to date with the folder.

    index = PictureIndex.update(folder_of_index, load_model(run), pictures)      # only what is new or has changed is looked at
    hits = PictureIndex.open(folder_of_index).search(model, "bird.jpg", k=10)

The folder holds `index.json` (model, pictures with their times and sizes, those that cannot be read, and why) and
`vectors.npy`, one row a picture: embeddings in float32, or packed codes; it is mapped into memory, not read.
"""
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .data.decoding import ImageError, decode
from .evaluation.recall import nearest
from .experiments.models import Model
from .files import hold, let_go, write_json, written_whole
from .search import CodeIndex, pack, unpack

SCHEMA = 1
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"}
BATCH = 64
SAVE_EVERY = 60.0  # seconds between saves of an index in the making


@dataclass(frozen=True)
class Hit:
    """A picture that was found: its path, and its cosine (1 the same) or Hamming distance (0 the same) to the query."""

    path: Path
    score: float


class PictureIndex:
    """An index in a folder; made and renewed by `update`, read by `open`."""

    def __init__(self, folder: Path, about: dict, vectors: np.ndarray):
        self.folder, self.about, self.vectors = Path(folder), about, vectors
        self.pictures = Path(about["pictures"])
        self.names = [name for name, *_ in about["rows"]]

    def __len__(self) -> int:
        return len(self.names)

    @property
    def unreadable(self) -> dict[str, str]:
        """Files that cannot be read, by name, with the reason."""
        return {name: reason for name, _, _, reason in self.about["unreadable"]}

    @classmethod
    def open(cls, folder: Path) -> "PictureIndex":
        """Read an index.

        Raises:
            ValueError: the folder holds none, or a damaged one.
        """
        folder = Path(folder)
        try:
            about = json.loads((folder / "index.json").read_text())
            vectors = np.load(folder / "vectors.npy", mmap_mode="c")  # copy on write: torch warns of arrays that cannot be written
            if about["schema"] != SCHEMA or len(vectors) < len(about["rows"]):
                raise ValueError
        except (OSError, ValueError, KeyError, TypeError):
            raise ValueError(f"'{folder}' holds no index of pictures: make one with fieldmarks index RUN FOLDER --out '{folder}'") from None
        return cls(folder, about, vectors)

    @classmethod
    def update(cls, folder: Path, model: Model, pictures: Path, progress: Callable[[int, int], None] | None = None) -> "PictureIndex":
        """Index all pictures below a folder, or bring their index up to date: only what is new or has changed is looked at.

        Stopped half-way, it goes on from there when it is called again. Files that cannot be read are listed, not fatal.

        Raises:
            FileNotFoundError: there is no folder of pictures.  ValueError: no picture in it, or the index is of another model or
                other pictures.  RuntimeError: another process is at work on the index.
        """
        folder, pictures = Path(folder).absolute(), Path(pictures).expanduser().absolute()
        found = list_pictures(pictures)
        before = cls._made_before(folder, model, pictures)
        hold(folder)
        try:
            known = {(name, changed, size): row for row, (name, changed, size) in enumerate(before.about["rows"])} if before else {}
            faults = {tuple(row[:3]): row for row in before.about["unreadable"]} if before else {}
            kept = [file for file in found if file in known]
            rows, unreadable = list(kept), [faults[file] for file in found if file in faults]
            parts = [np.asarray(before.vectors[[known[file] for file in kept]])] if kept else []
            new = [file for file in found if file not in known and file not in faults]
            saved, done = time.monotonic(), len(found) - len(new)
            for start in range(0, len(new), BATCH):
                batch, broken = _decoded(pictures, new[start:start + BATCH], model.resize)
                unreadable += broken
                if batch:
                    parts.append(_vectors(model, list(batch.values())))
                    rows += list(batch)
                done += len(new[start:start + BATCH])
                if progress:
                    progress(done, len(found))
                if time.monotonic() - saved > SAVE_EVERY:
                    cls._save(folder, model, pictures, rows, unreadable, parts)
                    parts, saved = [np.concatenate(parts)], time.monotonic()
            if not rows:
                raise ValueError(f"none of the {len(found)} pictures in '{pictures}' can be read, first {unreadable[0][0]}: {unreadable[0][3]}")
            cls._save(folder, model, pictures, rows, unreadable, parts)
        finally:
            let_go(folder)
        return cls.open(folder)

    @classmethod
    def _made_before(cls, folder: Path, model: Model, pictures: Path) -> "PictureIndex | None":
        if not (folder / "index.json").exists():
            if folder.is_dir() and any(file.name != ".lock" for file in folder.iterdir()):
                raise ValueError(f"'{folder}' is not empty and holds no index of pictures: give a new folder")
            return None
        index = cls.open(folder)
        for what, there, now in (("model", index.about["model"], model.identity), ("pictures", index.about["pictures"], str(pictures))):
            if there != now:
                raise ValueError(f"'{folder}' is an index of other {what} ({there}): give another folder, or remove this one")
        return index

    @staticmethod
    def _save(folder: Path, model: Model, pictures: Path, rows: list, unreadable: list, parts: list) -> None:
        # First the vectors: a stop between the two leaves a list that is shorter, of the same first rows.
        with written_whole(folder / "vectors.npy") as temporary, open(temporary, "wb") as stream:
            np.save(stream, np.concatenate(parts))
        write_json(folder / "index.json", {
            "schema": SCHEMA, "run": str(model.run), "model": model.identity, "bits": model.bits, "pictures": str(pictures),
            "rows": rows, "unreadable": unreadable})

    def search(self, model: Model, picture: Path, k: int = 10) -> list[Hit]:
        """The k pictures most like one; equal ones in the order of the index.

        Raises:
            ImageError: the picture cannot be read.  ValueError: the index is of another model.
        """
        if model.identity != self.about["model"]:
            raise ValueError(f"'{self.folder}' was made by another model ({self.about['model']}): index the pictures with this run anew")
        query = torch.from_numpy(_vectors(model, [decode(picture, model.resize)]))
        k, vectors = min(k, len(self)), self.vectors[:len(self)]
        if self.bits:
            distances, found = CodeIndex.build(unpack(np.asarray(vectors), self.bits)).search(unpack(query.numpy(), self.bits), k)
            scores = distances.double()
        else:
            scores, found = nearest(query, torch.from_numpy(np.asarray(vectors)), k)
        return [Hit(self.pictures / self.names[row], score) for row, score in zip(found[0].tolist(), scores[0].tolist())]

    @property
    def bits(self) -> int:
        return self.about["bits"]


def list_pictures(folder: Path) -> list[tuple[str, int, int]]:
    """(name relative to the folder, time of change in nanoseconds, bytes) of each file below it that is named like a picture.

    Raises:
        FileNotFoundError: there is no such folder.  ValueError: it holds no picture.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder '{folder}'")
    found = []
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in SUFFIXES and path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts):
            status = path.stat()
            found.append((path.relative_to(folder).as_posix(), status.st_mtime_ns, status.st_size))
    if not found:
        raise ValueError(f"'{folder}' holds no picture: give a folder with files named {', '.join(sorted(SUFFIXES))}")
    return found


class _Pictures:
    """Decoded pictures, as `embed_all` reads them."""

    def __init__(self, pictures: list[np.ndarray]):
        self.pictures = pictures

    def __len__(self) -> int:
        return len(self.pictures)

    def batch(self, index: Tensor) -> tuple[Tensor, Tensor]:
        chosen = [self.pictures[i] for i in index.tolist()]
        sizes = torch.tensor([picture.shape[:2] for picture in chosen])
        canvas = torch.zeros(len(chosen), 3, *sizes.amax(0).tolist(), dtype=torch.uint8)
        for place, picture in zip(canvas, chosen):
            place[:, :picture.shape[0], :picture.shape[1]] = torch.from_numpy(picture).permute(2, 0, 1)
        return canvas, sizes


def _decoded(folder: Path, files: list[tuple[str, int, int]], shorter_side: int) -> tuple[dict, list]:
    """{file: pixels} of those that can be read, and [name, time, bytes, reason] of the others."""
    good, broken = {}, []
    for file in files:
        try:
            good[file] = decode(folder / file[0], shorter_side)
        except ImageError as error:
            broken.append([*file, error.reason])
    return good, broken


def _vectors(model: Model, pictures: list[np.ndarray]) -> np.ndarray:
    rows = model.describe(_Pictures(pictures))
    return pack(rows) if model.bits else rows.numpy()
