"""Decode every image once, and keep the pixels in a file that is mapped into memory.

A cache is one flat file: a header (counts, its own sha256), an index (where each image lies, its height, width and
crc32) and then the images one after another as three planes of uint8, so that a batch is one plain copy an image.
"""

from __future__ import annotations

import errno
import hashlib
import mmap
import os
import struct
import tempfile
import time
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fieldmarks.data.decoding import (
    LONGEST_ASPECT,
    ImageError,
    UnreadableImages,
    counted,
    decode_planes,
    in_order,
    or_error,
    size_of,
    target_size,
)
from fieldmarks.files import atomic, cache_home


class PixelCache:
    """The pixels of a list of images, all with the same shorter side. Made by :meth:`open`; safe to read from threads.

    Attributes:
        paths: the N files.
        shorter_side: pixels.
        sizes: LongTensor (N, 2): height and width of each image.
        file: the cache on disk, or None where images are decoded from their files each time.
    """

    VERSION = 1

    def __init__(
        self, paths: Sequence[Path], shorter_side: int, index: np.ndarray, file: Path | None
    ) -> None:
        self.paths, self.shorter_side, self.file = list(paths), shorter_side, file
        self._sizes = np.stack([index["height"], index["width"]], axis=1).astype(np.int64)
        self.sizes = torch.from_numpy(self._sizes)

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
    ) -> PixelCache:
        """Map the cache of these images, building it first where there is none.

        The cache is found by the images' relative paths, sizes and times of change and by `shorter_side`. Several
        processes may open, and so build, the same one at once. A damaged file is rebuilt with a warning. Where the
        pixels would take more than `limit_bytes`, or `folder` cannot be written, images are decoded from their files
        whenever they are asked for, with a warning; they are still all read once first, to name the unreadable ones
        and learn their sizes.

        Args:
            paths: N image files.
            shorter_side: pixels, as in `decode`.
            folder: where caches lie; by default `pixels` in `files.cache_home()`.
            limit_bytes: largest cache to build.
            workers: decoding threads; by default one a processor.
            progress: called with (images done, images in all) while decoding.
            verify: compare every image with its checksum too, not only the header.

        Raises:
            UnreadableImages: one error that names all images that cannot be read; nothing is left behind.
            OSError: the disk is full or fails; nothing is left behind.
            ValueError: shorter_side below 1.
        """
        paths = [Path(path) for path in paths]
        folder = Path(folder).expanduser() if folder else cache_home() / "pixels"
        file = folder / f"{_key(paths, shorter_side)}.pixels"
        found = _map_if_sound(file, paths, shorter_side, verify)
        if found is not None:
            return found
        if not _fits(paths, shorter_side, limit_bytes, workers):
            why = f"the pixels would take more than limit_bytes ({limit_bytes / 1e9:.1f} GB)"
        elif reason := _not_writable(folder):
            why = f"{folder} cannot be written ({reason})"
        else:
            _build(file, paths, shorter_side, workers, progress)
            return _map(file, paths, shorter_side)
        warnings.warn(
            f"no pixel cache: {why}; images are decoded from their files each time", stacklevel=2
        )
        return _stream(file.with_suffix(".sizes"), paths, shorter_side, workers, progress)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> np.ndarray:
        """uint8 (H, W, 3), a copy."""
        return np.ascontiguousarray(next(iter(self._planes([index]))).transpose(1, 2, 0))

    def batch(self, indices: Sequence[int] | Tensor) -> tuple[Tensor, Tensor]:
        """Images side by side on one canvas.

        Args:
            indices: B positions.

        Returns:
            canvas uint8 (B, 3, Hmax, Wmax), each image in the upper left corner and zeros beside it; sizes
            LongTensor (B, 2), height and width.
        """
        rows = np.asarray(indices, dtype=np.int64).reshape(-1)
        sizes = self._sizes[rows]  # (B, 2)
        tallest, widest = sizes.max(axis=0).tolist() if len(rows) else (0, 0)
        canvas = np.empty((len(rows), 3, tallest, widest), np.uint8)
        for place, planes in zip(canvas, self._planes(rows.tolist())):
            _, height, width = planes.shape
            place[:, :height, :width] = planes
            place[:, height:] = 0
            place[:, :height, width:] = 0
        return torch.from_numpy(canvas), torch.from_numpy(sizes)

    def _planes(self, rows: list[int]) -> Iterable[np.ndarray]:
        """uint8 (3, H, W) for each row."""
        raise NotImplementedError


class _MappedPixels(PixelCache):
    def __init__(
        self, paths, shorter_side, index: np.ndarray, file: Path, mapped: np.ndarray
    ) -> None:
        super().__init__(paths, shorter_side, index, file)
        self._mapped = mapped
        # Plain lists: a number out of a numpy array costs more than the copy of a small image.
        self._places = list(
            zip(index["offset"].tolist(), index["height"].tolist(), index["width"].tolist())
        )

    def _planes(self, rows: list[int]) -> Iterator[np.ndarray]:
        for row in rows:
            offset, height, width = self._places[row]
            yield self._mapped[offset : offset + 3 * height * width].reshape(3, height, width)


class _StreamedPixels(PixelCache):
    def __init__(self, paths, shorter_side, index: np.ndarray, workers: int | None) -> None:
        super().__init__(paths, shorter_side, index, None)
        self._workers = workers

    def _planes(self, rows: list[int]) -> Iterator[np.ndarray]:
        if len(rows) == 1:
            return iter([decode_planes(self.paths[rows[0]], self.shorter_side)])
        return in_order(
            partial(decode_planes, shorter_side=self.shorter_side),
            [self.paths[row] for row in rows],
            self._workers,
        )


# ---- building


def _build(file: Path, paths: list[Path], shorter_side: int, workers: int | None, progress) -> None:
    """Write under a name of its own, then rename: nobody sees half a cache, and of two builders the last one stays."""
    _sweep(file.parent)
    index = np.zeros(len(paths), INDEX)
    faults: list[ImageError] = []
    with _written_whole(file) as handle:
        offset = _data_start(len(paths))
        handle.seek(offset)
        results = in_order(
            partial(or_error, partial(decode_planes, shorter_side=shorter_side)), paths, workers
        )
        for row, planes in enumerate(counted(results, len(paths), progress)):
            if isinstance(planes, ImageError):
                faults.append(planes)
            elif not faults:  # once it is known to be in vain, go on only to name them all
                handle.write(planes.data)
                index[row] = offset, planes.shape[1], planes.shape[2], zlib.crc32(planes.data)
                offset += planes.nbytes
        if faults:
            raise UnreadableImages(faults, of=len(paths))
        handle.truncate(offset)  # which makes a cache of no images as long as its header says
        handle.seek(0)
        handle.write(_header(index, shorter_side, offset))


def _stream(
    file: Path, paths: list[Path], shorter_side: int, workers: int | None, progress
) -> PixelCache:
    """Read all images once for their sizes and faults, and note the sizes in `file` for the next time."""
    try:
        index = _read_index(file, len(paths), shorter_side)
    except (OSError, _Damaged):
        index = np.zeros(len(paths), INDEX)
        results = in_order(
            partial(or_error, partial(size_of, shorter_side=shorter_side)), paths, workers
        )
        sizes = list(counted(results, len(paths), progress))
        if faults := [size for size in sizes if isinstance(size, ImageError)]:
            raise UnreadableImages(faults, of=len(paths)) from None
        index["height"], index["width"] = np.array(sizes, np.int64).reshape(-1, 2).T
        with suppress(OSError):  # the note only saves time
            with _written_whole(file) as handle:
                header = _header(index, shorter_side, _data_start(len(paths)))
                handle.write(header.ljust(_data_start(len(paths)), b"\0"))
    return _StreamedPixels(paths, shorter_side, index, workers)


@contextmanager
def _written_whole(file: Path):
    """A file open for writing that takes its place at the end or is removed; errors say what to do on a full disk."""
    try:
        with atomic(file) as part, open(part, "xb") as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
    except OSError as error:
        raise _cannot_write(file.parent, error.__cause__ or error) from error


def _cannot_write(folder: Path, error: OSError) -> OSError:
    return OSError(
        error.errno,
        f"the pixel cache in {folder} cannot be written ({error.strerror}); free some space, "
        f"or set FIELDMARKS_CACHE to a folder elsewhere",
    )


def _sweep(folder: Path) -> None:
    """Remove what killed builders left; one that is alive has written within the hour."""
    for part in folder.glob(".*.pixels"):
        with suppress(OSError):
            if time.time() - part.stat().st_mtime > 3600:
                part.unlink()


def _not_writable(folder: Path) -> str | None:
    """Why no file can be made in `folder` (made where it is not there), or None. A full disk raises OSError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _cannot_write(folder, error) from error
        return error.strerror


def _fits(paths: list[Path], shorter_side: int, limit_bytes: int, workers: int | None) -> bool:
    if len(paths) * 3 * LONGEST_ASPECT * shorter_side**2 <= limit_bytes:
        return True  # even if all were panoramas; no need to open the files
    return (
        sum(in_order(partial(_decoded_bytes, shorter_side=shorter_side), paths, workers))
        <= limit_bytes
    )


def _decoded_bytes(path: Path, shorter_side: int) -> int:
    try:
        with Image.open(path) as image:
            width, height = target_size(*image.size, shorter_side)
            return 3 * width * height
    except Exception:  # decoding will name it
        return 0


def _key(paths: list[Path], shorter_side: int) -> str:
    """32 hexadecimal digits for these files as they are now, at this size."""
    digest = hashlib.sha256(f"{PixelCache.VERSION} {shorter_side}".encode())
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


# ---- the file


MAGIC = b"FMPIXELS"
HEAD = struct.Struct(
    "<8sIIQQ32s"
)  # magic, version, shorter side, images, bytes of the whole file, sha256
INDEX = np.dtype([("offset", "<u8"), ("height", "<u4"), ("width", "<u4"), ("crc32", "<u4")])


class _Damaged(Exception):
    pass


def _data_start(count: int) -> int:
    return -(-(HEAD.size + count * INDEX.itemsize) // 4096) * 4096


def _header(index: np.ndarray, shorter_side: int, total: int) -> bytes:
    blank = HEAD.pack(MAGIC, PixelCache.VERSION, shorter_side, len(index), total, bytes(32))
    digest = hashlib.sha256(blank + index.tobytes()).digest()
    return (
        HEAD.pack(MAGIC, PixelCache.VERSION, shorter_side, len(index), total, digest)
        + index.tobytes()
    )


def _read_index(file: Path, count: int, shorter_side: int) -> np.ndarray:
    """The index of a cache whose size and header agree with the checksum. Raises _Damaged, FileNotFoundError."""
    with open(file, "rb") as handle:
        size = os.fstat(handle.fileno()).st_size
        content = handle.read(HEAD.size + count * INDEX.itemsize)
    index = (
        np.frombuffer(content[HEAD.size :], INDEX)
        if len(content) == HEAD.size + count * INDEX.itemsize
        else None
    )
    if index is None or content != _header(index, shorter_side, size):
        raise _Damaged("its size or header does not agree with its checksum")
    return index


def _map(file: Path, paths: list[Path], shorter_side: int, verify: bool = False) -> PixelCache:
    index = _read_index(file, len(paths), shorter_side)
    with open(file, "rb") as handle:
        mapped = np.frombuffer(mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
    if verify:
        for row, (offset, height, width, crc) in enumerate(index.tolist()):
            if zlib.crc32(mapped[offset : offset + 3 * height * width].data) != crc:
                raise _Damaged(f"the pixels of {paths[row]} do not agree with their checksum")
    return _MappedPixels(paths, shorter_side, index, file, mapped)


def _map_if_sound(
    file: Path, paths: list[Path], shorter_side: int, verify: bool
) -> PixelCache | None:
    try:
        return _map(file, paths, shorter_side, verify)
    except _Damaged as damage:
        warnings.warn(
            f"the pixel cache {file} is damaged ({damage}); it is built again", stacklevel=3
        )
    except OSError:
        pass  # not there, or the folder cannot be read: building will tell
    return None
