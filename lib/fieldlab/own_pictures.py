"""An index over anyone's own pictures: what a finished run's network makes of them.

    index = PictureIndex.update(folder_of_index, load_model(run), pictures)
    hits = PictureIndex.open(folder_of_index).search(model, "bird.jpg", k=10)

The folder holds `index.json` (the model, the pictures with their times and sizes, those that cannot
be read, and why) and the vectors that it names, one row a picture: embeddings in float32, or packed
codes, mapped into memory. A query is compared with all codes, which is quick even among millions,
and with all embeddings up to EXACT_UP_TO, beyond which inverted lists lie beside them.
"""

import json
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import numpy as np
import torch
from torch import Tensor

from fieldlab.models import Model
from fieldmarks.decoding import ImageError, decode
from fieldmarks.files import atomic, lock, release, write_json
from fieldmarks.picture_kinds import sort_files
from fieldmarks.search.codes import CodeIndex, pack
from fieldmarks.search.embeddings import EmbeddingIndex, exact_nearest

SCHEMA = 3
BATCH = 64
SAVE_EVERY = 60.0  # seconds between saves of an index in the making
EXACT_UP_TO = 200_000  # embeddings of 512 dimensions: a query takes about 0.1 s
WRITTEN = 50_000  # rows at a time

File = tuple[str, int, int]  # name relative to the folder, time of change in nanoseconds, bytes


class Hit(NamedTuple):
    """A picture that was found; its cosine (1: the same) or Hamming distance (0) to the query."""

    path: Path
    score: float


class PictureIndex:
    """An index in a folder; made and brought up to date by `update`, read by `open`."""

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

    @property
    def others(self) -> int:
        """How many files of the folder are no pictures, and were passed over."""
        return self.about["others"]

    @classmethod
    def open(cls, folder: Path) -> "PictureIndex":
        """Read an index.

        Raises:
            ValueError: the folder holds none, or a damaged one.
        """
        folder = Path(folder)
        try:
            about = json.loads((folder / "index.json").read_text())
            # Copied when written to: torch warns of arrays that cannot be written.
            vectors = np.load(folder / about["vectors"], mmap_mode="c")
            if about["schema"] != SCHEMA or len(vectors) != len(about["rows"]):
                raise ValueError
        except (OSError, ValueError, KeyError, TypeError):
            raise ValueError(
                f"'{folder}' holds no index of pictures: "
                f"make one with fieldmarks index RUN FOLDER --out '{folder}'"
            ) from None
        return cls(folder, about, vectors)

    @classmethod
    def update(
        cls,
        folder: Path,
        model: Model,
        pictures: Path,
        progress: Callable[[int, int], None] | None = None,
    ) -> "PictureIndex":
        """Index all pictures below a folder: the network reads only those that are new or changed.

        Stopped half-way, it resumes when it is called again. Files that cannot be read are listed.

        Raises:
            FileNotFoundError: there is no folder of pictures.
            ValueError: no picture in it, or the index is of another model or other pictures.
            RuntimeError: another process is writing to the index.
        """
        folder, pictures = Path(folder).absolute(), Path(pictures).expanduser().absolute()
        files, others = list_pictures(pictures)
        before = cls._made_before(folder, model, pictures)
        about = before.about if before else {"rows": [], "unreadable": []}
        known = {tuple(row): number for number, row in enumerate(about["rows"])}
        faults = {tuple(row[:3]): row for row in about["unreadable"]}
        lock(folder)
        try:
            rows = [file for file in files if file in known]
            unreadable = [faults[file] for file in files if file in faults]
            parts = [(before.vectors, [known[file] for file in rows])] if rows else []
            new = [file for file in files if file not in known and file not in faults]
            saved, took, done = time.monotonic(), 0.0, len(files) - len(new)
            for start in range(0, len(new), BATCH):
                batch, broken = _decoded(pictures, new[start : start + BATCH], model.resize)
                unreadable += broken
                if batch:
                    parts.append((_vectors(model, list(batch.values())), range(len(batch))))
                    rows += list(batch)
                done += len(batch) + len(broken)
                if progress:
                    progress(done, len(files))
                if rows and time.monotonic() - saved > max(SAVE_EVERY, 10 * took):
                    began = time.monotonic()
                    index = cls._save(folder, model, pictures, rows, unreadable, parts, others)
                    parts = [(index.vectors, range(len(rows)))]
                    saved = time.monotonic()
                    took = saved - began
            if not rows:
                name, *_, reason = unreadable[0]
                raise ValueError(
                    f"none of the {len(files)} pictures in '{pictures}' can be read, "
                    f"first {name}: {reason}"
                )
            index, listed = before, [list(row) for row in rows]
            now = {"run": str(model.run), "rows": listed, "unreadable": unreadable}
            now["others"] = others
            if not now.items() <= about.items():
                index = cls._save(folder, model, pictures, rows, unreadable, parts, others)
            else:
                index._remove_others()
            if not index.bits and len(index) > EXACT_UP_TO and not index._has_lists:
                EmbeddingIndex.build(index.vectors).save(index.lists_file)
        finally:
            release(folder)
        return cls.open(folder)

    @classmethod
    def _made_before(cls, folder: Path, model: Model, pictures: Path) -> "PictureIndex | None":
        if not (folder / "index.json").exists():
            files = folder.iterdir() if folder.is_dir() else ()
            if any(not file.name.startswith((".", "vectors-")) for file in files):
                raise ValueError(
                    f"'{folder}' is not empty and holds no index of pictures: give a new folder"
                )
            return None
        index = cls.open(folder)
        for what, now in (("model", model.identity), ("pictures", str(pictures))):
            if index.about[what] != now:
                raise ValueError(
                    f"'{folder}' is an index of other {what} ({index.about[what]}): "
                    "give another folder, or remove this one"
                )
        return index

    @classmethod
    def _save(
        cls,
        folder: Path,
        model: Model,
        pictures: Path,
        rows: list,
        unreadable: list,
        parts: list,
        others: int,
    ) -> "PictureIndex":
        """`parts` are vectors and which of their rows belong to `rows`, in their order."""
        # Each save has vectors of its own: a stop at any time leaves a list and what belongs to it.
        # They are not written through memory: there a full disk ends the process.
        name = f"vectors-{uuid4().hex[:8]}.npy"
        with atomic(folder / name) as temporary, open(temporary, "wb") as stream:
            header = np.lib.format.header_data_from_array_1_0(parts[-1][0][:1])
            header["shape"] = (len(rows), *header["shape"][1:])
            np.lib.format.write_array_header_1_0(stream, header)
            for vectors, chosen in parts:
                for start in range(0, len(chosen), WRITTEN):
                    # not `tofile`, which does not tell that the disk is full
                    stream.write(vectors[chosen[start : start + WRITTEN]].data)
        about = {"schema": SCHEMA, "run": str(model.run), "model": model.identity}
        about |= {"bits": model.bits, "pictures": str(pictures), "vectors": name}
        about["others"] = others
        write_json(folder / "index.json", {**about, "rows": rows, "unreadable": unreadable})
        index = cls.open(folder)
        index._remove_others()
        return index

    def _remove_others(self) -> None:
        """Vectors of earlier saves, and of one that was killed."""
        for file in self.folder.glob("vectors-*"):
            if not file.name.startswith(Path(self.about["vectors"]).stem):
                file.unlink(missing_ok=True)

    def search(self, model: Model, picture: Path, k: int = 10) -> list[Hit]:
        """The k pictures most like one; equal ones in the order of the index. Raises as `row`."""
        scores, rows = self.nearest(self.row(model, picture), k)
        paths = [self.pictures / self.names[row] for row in rows.tolist()]
        return [Hit(*pair) for pair in zip(paths, scores.tolist(), strict=True)]

    def row(self, model: Model, picture: Path) -> np.ndarray:
        """What the index's model makes of a picture: the row that it would have, (D,).

        Raises:
            ImageError: the picture cannot be read.  ValueError: the index is of another model.
        """
        if model.identity != self.about["model"]:
            raise ValueError(
                f"'{self.folder}' was made by another model ({self.about['model']}): "
                "index the pictures with this run anew"
            )
        return _vectors(model, [decode(picture, model.resize)])[0]

    def nearest(self, row: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Scores as in `Hit` (k,) and rows (k,) of the k nearest, best first; at most all."""
        k = min(k, len(self))
        if self.bits:
            scores, rows = self._searched.search_packed(row[None], k)
        elif self._searched:
            scores, rows = self._searched.search(row[None], k)
        else:
            scores, rows = exact_nearest(row[None], self.vectors, k)
        return scores[0], rows[0]

    @property
    def bits(self) -> int:
        """Length of its codes; 0 where it holds embeddings."""
        return self.about["bits"]

    @cached_property
    def row_of(self) -> dict[str, int]:
        """The row of each picture, by its name."""
        return {name: row for row, name in enumerate(self.names)}

    @property
    def recall(self) -> float:
        """Share of the ten nearest that a search finds, measured when the index was built."""
        return self._searched.recall if isinstance(self._searched, EmbeddingIndex) else 1.0

    @property
    def lists_file(self) -> Path:
        """Where inverted lists lie, if it has any."""
        return (self.folder / self.about["vectors"]).with_suffix(".faiss")

    @property
    def _has_lists(self) -> bool:
        return Path(f"{self.lists_file}.json").exists()  # written last

    @cached_property
    def _searched(self) -> CodeIndex | EmbeddingIndex | None:
        """What finds neighbours; None: the vectors themselves."""
        if self.bits:
            return CodeIndex.of_packed(self.vectors, self.bits)
        return EmbeddingIndex.load(self.lists_file, self.vectors) if self._has_lists else None


def list_pictures(folder: Path) -> tuple[list[File], int]:
    """The pictures below a folder, by their content, and how many other files there are; hidden
    ones do not count. Pictures of a kind that cannot be read are among them: decoding says why.

    Raises:
        FileNotFoundError: there is no such folder.  ValueError: it holds no picture.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder '{folder}'")
    below = ((path, path.relative_to(folder)) for path in sorted(folder.rglob("*")))
    seen = [path for path, name in below if path.is_file() and not _hidden(name)]
    pictures, unreadable, others = sort_files(seen)
    found, files = {*pictures, *unreadable}, []
    for path in filter(found.__contains__, seen):
        status = path.stat()
        name = path.relative_to(folder).as_posix()
        files.append((name, status.st_mtime_ns, status.st_size))
    if not files:
        among = f" among its {len(others):,} files" if others else ""
        raise ValueError(f"'{folder}' holds no picture{among}: give a folder of photographs")
    return files, len(others)


def _hidden(name: Path) -> bool:
    return any(part.startswith(".") for part in name.parts)


class DecodedPictures:
    """Decoded pictures (H, W, 3), as `embed_all` reads them."""

    def __init__(self, pictures: list[np.ndarray]):
        self.pictures = pictures

    def __len__(self) -> int:
        return len(self.pictures)

    def batch(self, index: Tensor) -> tuple[Tensor, Tensor]:
        chosen = [torch.from_numpy(self.pictures[i]).permute(2, 0, 1) for i in index.tolist()]
        sizes = torch.tensor([picture.shape[1:] for picture in chosen])
        canvas = torch.zeros(len(chosen), 3, *sizes.amax(0).tolist(), dtype=torch.uint8)
        for place, picture in zip(canvas, chosen, strict=True):
            place[:, : picture.shape[1], : picture.shape[2]] = picture
        return canvas, sizes


def _decoded(folder: Path, files: list[File], shorter_side: int) -> tuple[dict, list]:
    """{file: pixels} of those that can be read, and [name, time, bytes, reason] of the others."""
    good, broken = {}, []
    for file in files:
        try:
            good[file] = decode(folder / file[0], shorter_side)
        except ImageError as error:
            broken.append([*file, error.reason])
    return good, broken


def _vectors(model: Model, pictures: list[np.ndarray]) -> np.ndarray:
    rows = model.embed(DecodedPictures(pictures))
    if not rows.isfinite().all():
        raise ValueError(
            f"what '{model.run}' makes of a picture is not a number: "
            "its training has diverged, give another run"
        )
    return pack(rows) if model.bits else rows.numpy()
