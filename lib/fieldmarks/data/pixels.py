"""Decode every image once, and keep the pixels in a file that is mapped into memory.

A cache is three numpy arrays in one file: the images one after another as three planes of uint8, so
that a batch is one plain copy an image; height, width and crc32 of each; and the crc32 of those."""

import copy
import errno
import hashlib
import io
import math
import os
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import accumulate
from pathlib import Path

import numpy as np
import torch
from numpy.lib import format as npy
from PIL import Image
from torch import Tensor

from fieldmarks import decoding
from fieldmarks.decoding import ImageError, UnreadableImages, decode, in_order
from fieldmarks.files import FREE, NO_ROOM, atomic, cache_home

VERSION = 1  # of what is decoded; another one gives other keys
HEADER = {"descr": "|u1", "fortran_order": False}  # of the pixels
INDEX = np.dtype([("height", "<u4"), ("width", "<u4"), ("crc32", "<u4")])
FAILS = (*NO_ROOM, errno.EIO)  # what a disk says that could be written


class PixelCache:
    """The pixels of images with one shorter side. Made by :meth:`open`; safe to read from threads.

    Attributes:
        paths: the N files.  shorter_side: pixels.  sizes: LongTensor (N, 2), height and width.
        file: the cache on disk, or None where images are decoded from their files each time."""

    def __init__(self, paths: list[Path], shorter_side: int, index, planes: Callable, file=None):
        self.paths, self.shorter_side, self.file = paths, shorter_side, file
        self._sizes = np.stack([index["height"], index["width"]], axis=1).astype(np.int64)
        self.sizes = torch.from_numpy(self._sizes)
        self._planes = planes  # rows -> uint8 (3, H, W) of each

    @classmethod
    def open(
        cls,
        paths: Sequence[Path],
        shorter_side: int,
        folder: Path | None = None,
        limit_bytes: int = 20 << 30,
        workers: int | None = None,
        progress: Callable[[int, int], None] | None = None,
        verify: bool = False,
    ) -> "PixelCache":
        """Map the cache of these images, building it first where there is none.

        The cache is found by `cache_key`. Several processes may open, and so build, the same one at
        once. A damaged file is rebuilt with a warning. Where the pixels would take more than
        `limit_bytes`, or `folder` cannot be written, images are decoded whenever they are asked
        for, with a warning; they are still all read once first, for their sizes and faults.

        Args:
            shorter_side, workers, progress: of decoding, as `decode` and `decoding.in_order`.
            folder: where caches lie; by default `pixels` in `files.cache_home()`.
            verify: compare every image with its checksum too, not only the index.
        Raises:
            UnreadableImages, OSError: some images cannot be read, all are named; the disk is full
                or fails. Nothing is left behind.
            ValueError: shorter_side below 1."""
        paths = [Path(path) for path in paths]
        folder = Path(folder).expanduser() if folder else cache_home() / "pixels"
        file = folder / f"{cache_key(paths, shorter_side)}.npy"
        try:
            return _map(file, paths, shorter_side, verify)
        except Exception as damage:  # numpy raises several kinds
            if not isinstance(damage, OSError):  # those are for building to tell: it is not there
                again = f"is damaged ({damage}); it is built again"
                warnings.warn(f"the pixel cache {file} {again}", stacklevel=2)
        decoded = partial(_decoded, shorter_side=shorter_side, workers=workers)
        why = f"the pixels would take more than limit_bytes ({limit_bytes / 1e9:.1f} GB)"
        if _fits(paths, shorter_side, limit_bytes, workers):
            try:
                _build(file, decoded(paths, progress=progress))
                return _map(file, paths, shorter_side)
            except OSError as error:
                error = error.__cause__ or error
                why = f"{folder} cannot be written ({error.strerror})"
                if error.errno in FAILS:
                    right = f"{NO_ROOM.get(error.errno, FREE)}, or set FIELDMARKS_CACHE to a folder"
                    raise OSError(
                        error.errno, f"the pixel cache in {why}; {right} elsewhere"
                    ) from error
        each_time = "images are decoded from their files each time"
        warnings.warn(f"no pixel cache: {why}; {each_time}", stacklevel=2)
        note = file.with_suffix(".sizes")
        index = _noted_index(note, len(paths), decoded(paths, progress=progress))
        return cls(paths, shorter_side, index, lambda rows: decoded([paths[row] for row in rows]))

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> np.ndarray:
        """uint8 (H, W, 3), a copy."""
        return np.ascontiguousarray(next(iter(self._planes([index]))).transpose(1, 2, 0))

    def subset(self, rows: Sequence[int] | Tensor) -> "PixelCache":
        """The images at some positions, in that order, of the same file."""
        chosen, part = np.asarray(rows, dtype=np.int64).reshape(-1), copy.copy(self)
        part.paths, part._sizes = [self.paths[row] for row in chosen], self._sizes[chosen]
        part.sizes = torch.from_numpy(part._sizes)
        part._planes = lambda places: self._planes(chosen[places].tolist())
        return part

    def batch(self, indices: Sequence[int] | Tensor) -> tuple[Tensor, Tensor]:
        """The images at B positions: canvas uint8 (B, 3, Hmax, Wmax), each in the upper left corner
        and zeros beside it; sizes LongTensor (B, 2), height and width."""
        rows = np.asarray(indices, dtype=np.int64).reshape(-1)
        sizes = self._sizes[rows]  # (B, 2)
        canvas = np.empty((len(rows), 3, *sizes.max(axis=0, initial=0).tolist()), np.uint8)
        for place, planes in zip(canvas, self._planes(rows.tolist()), strict=True):
            _, height, width = planes.shape
            place[:, :height, :width] = planes
            place[:, height:] = 0
            place[:, :height, width:] = 0
        return torch.from_numpy(canvas), torch.from_numpy(sizes)


def cache_key(paths: Sequence[Path], shorter_side: int) -> str:
    """32 hexadecimal digits of a size and the files' relative paths, bytes and times of change."""
    digest = hashlib.sha256(f"{VERSION} {shorter_side}".encode())
    top = os.path.commonpath([path.absolute().parent for path in paths]) if paths else ""
    for path in paths:
        try:
            status = os.stat(path)
            state = f"{status.st_size}\0{status.st_mtime_ns}"
        except OSError:  # decoding will name it, together with all others at fault
            state = "missing"
        entry = f"\0{os.path.relpath(path.absolute(), top)}\0{state}"
        digest.update(entry.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:32]


def _decoded(paths: list[Path], shorter_side: int, workers=None, progress=None) -> Iterator:
    """uint8 (3, H, W) of all images. Raises UnreadableImages at the end, to name them all."""
    planes = lambda path: np.ascontiguousarray(decode(path, shorter_side).transpose(2, 0, 1))
    faults = []
    for result in in_order(planes, paths, workers, progress):
        if isinstance(result, ImageError):
            faults.append(result)
        elif not faults:
            yield result
    if faults:
        raise UnreadableImages(faults, of=len(paths))


def _fits(paths: list[Path], shorter_side: int, limit_bytes: int, workers: int | None) -> bool:
    if len(paths) * 3 * decoding.LONGEST_ASPECT * shorter_side**2 <= limit_bytes:
        return True  # even if all were panoramas; no need to open the files

    def decoded_bytes(path: Path) -> int:
        with suppress(Exception), Image.open(path) as image:  # decoding will name those at fault
            return 3 * math.prod(decoding.target_size(*image.size, shorter_side))
        return 0

    return sum(in_order(decoded_bytes, paths, workers)) <= limit_bytes


def _build(file: Path, images: Iterable[np.ndarray]) -> None:
    with atomic(file) as part, open(part, "wb") as handle:
        npy.write_array_header_1_0(handle, HEADER | {"shape": (0,)})
        rows, total = [], 0
        for planes in images:
            handle.write(planes.data)
            rows.append((*planes.shape[1:], zlib.crc32(planes.data)))
            total += planes.nbytes
        handle.write(_index_bytes(np.array(rows, INDEX)))
        handle.seek(0)  # the header is as long as before, for numpy leaves room in it
        npy.write_array_header_1_0(handle, HEADER | {"shape": (total,)})
        handle.flush()
        os.fsync(handle.fileno())


def _map(file: Path, paths: list[Path], shorter_side: int, verify: bool = False) -> PixelCache:
    """Raises OSError where there is no such file, ValueError and others where it is damaged."""
    mapped = npy.open_memmap(file, mode="r")
    with open(file, "rb") as handle:
        handle.seek(mapped.offset + mapped.nbytes)
        index = _read_index(handle, len(paths))
    shapes = [(3, height, width) for height, width, _ in index.tolist()]
    parts = np.split(np.asarray(mapped), list(accumulate(map(math.prod, shapes))))[:-1]
    images = [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]
    if verify:
        for path, image, crc in zip(paths, images, index["crc32"], strict=True):
            if zlib.crc32(image) != crc:
                raise ValueError(f"the pixels of {path} do not agree with their checksum")
    return PixelCache(paths, shorter_side, index, partial(map, images.__getitem__), file)


def _noted_index(note: Path, count: int, images: Iterable[np.ndarray]) -> np.ndarray:
    """The index, without checksums, of images that are not cached; reads them only once."""
    with suppress(Exception), open(note, "rb") as handle:  # it may not be there, or be damaged
        return _read_index(handle, count)
    index = np.array([(*planes.shape[1:], 0) for planes in images], INDEX)
    with suppress(OSError), atomic(note) as part, open(part, "wb") as handle:
        handle.write(_index_bytes(index))
    return index


def _index_bytes(index: np.ndarray) -> bytes:
    content = io.BytesIO()
    npy.write_array(content, index)
    npy.write_array(content, np.array(zlib.crc32(index.tobytes()), np.uint32))
    return content.getvalue()


def _read_index(handle, count: int) -> np.ndarray:
    """The end of a file. Raises ValueError and others where it is damaged."""
    index, crc = npy.read_array(handle), npy.read_array(handle)
    if index.shape != (count,) or crc != zlib.crc32(index.tobytes()) or handle.read(1):
        raise ValueError("its size or index does not agree with its checksum")
    return index
