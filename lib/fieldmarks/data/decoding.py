"""Read images as RGB, upright: one, or many by several threads."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

LONGEST_ASPECT = 3  # a panorama would pad all of its batch to its own length
MOST_PIXELS = 90_000_000  # a file that claims more is taken for a decompression bomb
# JPEGs are decoded at a half, quarter or eighth where that still leaves twice the side asked for: on photographs the
# result is one or two grey levels from the full decoding on average, in half the time.
DRAFT_MARGIN = 2


class ImageError(ValueError):
    """One image that cannot be read: `path` and `reason`."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = Path(path), reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class UnreadableImages(ValueError):
    """All images of a set that cannot be read, in `faults`; the message names the first ten and counts them all."""

    def __init__(self, faults: list[ImageError], of: int) -> None:
        super().__init__(faults, of)
        self.faults, self.of = faults, of

    def __str__(self) -> str:
        named = "; ".join(map(str, self.faults[:10])) + ("; ..." if len(self.faults) > 10 else "")
        return (
            f"{len(self.faults):,} of {self.of:,} images cannot be read (fetch them again, or leave them out with "
            f"ImageSet.subset): {named}"
        )


# ---- one image


def decode(path: Path, shorter_side: int | None) -> np.ndarray:
    """Read an image as RGB, upright.

    EXIF rotation is applied; grey, palette, CMYK and 16-bit images are converted; transparency lies on white.

    Args:
        path: any file that Pillow reads.
        shorter_side: pixels of the shorter side after antialiased resizing, up or down, with the aspect ratio kept;
            what is longer than 3:1 is cropped to 3:1 about its centre. None: as in the file, neither resized nor
            cropped.

    Returns:
        uint8 (H, W, 3).

    Raises:
        ImageError: no such file, no image, truncated, more than 90 million pixels, or floating-point pixels.
        ValueError: shorter_side below 1.
    """
    if shorter_side is not None and shorter_side < 1:
        raise ValueError(f"shorter_side must be at least 1 pixel, not {shorter_side}")
    try:
        with Image.open(path) as image:
            if image.width * image.height > MOST_PIXELS:
                raise ImageError(
                    path,
                    f"{image.width} x {image.height} pixels, more than {MOST_PIXELS:,}; "
                    f"taken for a decompression bomb",
                )
            if shorter_side is not None:
                _draft(image, shorter_side)
            rgb = _to_rgb(image)
            turn = _TURNS.get(_orientation(image))
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # on bad bytes Pillow raises OSError, SyntaxError, struct.error, IndexError and more
        raise ImageError(path, _reason(error, path)) from error
    if shorter_side is not None:
        rgb = _resize(rgb, shorter_side)
    return np.array(rgb if turn is None else rgb.transpose(turn))


def _draft(image: Image.Image, shorter_side: int) -> None:
    """Let the JPEG decoder itself shrink the image, where it stays large enough; other formats pay no heed."""
    scale = DRAFT_MARGIN * shorter_side / min(image.size)
    if scale < 1:
        image.draft(None, (math.ceil(image.width * scale), math.ceil(image.height * scale)))


def _resize(rgb: Image.Image, shorter_side: int) -> Image.Image:
    longest = LONGEST_ASPECT * min(rgb.size)
    left, top = max(0, (rgb.width - longest) / 2), max(0, (rgb.height - longest) / 2)
    return rgb.resize(
        target_size(*rgb.size, shorter_side),
        Image.Resampling.BILINEAR,
        box=(left, top, rgb.width - left, rgb.height - top),
    )


def target_size(width: int, height: int, shorter_side: int) -> tuple[int, int]:
    """(width, height) of an image of width x height once its shorter side is `shorter_side`, at most 3:1."""
    shorter, longer = sorted((width, height))
    other = max(
        shorter_side, min(LONGEST_ASPECT * shorter_side, round(longer * shorter_side / shorter))
    )
    return (other, shorter_side) if width >= height else (shorter_side, other)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError(
            "floating-point pixels, whose white is not known; save it with 8 or 16 bits"
        )
    if image.mode.startswith(
        "I"
    ):  # 16 bits, in whichever order of bytes; Pillow's own conversion would clip at 255
        values = np.asarray(image).astype(np.int64).clip(0, 65535) >> 8
        return Image.fromarray(values.astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _orientation(image: Image.Image) -> int:
    """EXIF orientation of a loaded image: TIFF has been turned by Pillow then, PNG may say it after the pixels."""
    try:
        return image.getexif().get(0x0112, 1)
    except Exception:  # a damaged remark does not make a photograph unreadable
        return 1


def _reason(error: Exception, path: Path) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, UnidentifiedImageError):
        return "the file is empty" if os.path.getsize(path) == 0 else "not an image"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__


def decode_planes(path: Path, shorter_side: int) -> np.ndarray:
    """`decode`, as uint8 (3, H, W)."""
    return np.ascontiguousarray(decode(path, shorter_side).transpose(2, 0, 1))


def size_of(path: Path, shorter_side: int | None) -> tuple[int, int]:
    """(height, width) of `decode`."""
    return decode(path, shorter_side).shape[:2]


# ---- threads: Pillow lets go of Python's lock while it decodes, so they are as fast as processes and need no fork


def in_order(function: Callable, items: Sequence, workers: int | None) -> Iterator:
    """function(item) of all items in order, computed by threads a few items ahead."""
    workers = workers or _processors()
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque = deque()
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > 4 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _processors() -> int:
    """Processors that this process may use, which in a container are fewer than the machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def or_error(function: Callable, path: Path):
    """function(path), or the ImageError that it raises."""
    try:
        return function(path)
    except ImageError as error:
        return error


def counted(results: Iterator, total: int, progress: Callable[[int, int], None] | None) -> Iterator:
    """`results`, with progress(done, total) called after each."""
    for done, result in enumerate(results, start=1):
        yield result
        if progress is not None:
            progress(done, total)


def unreadable(
    paths: Sequence[Path],
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[ImageError]:
    """Decode all images in full and return an error for each that cannot be read, in order."""
    results = in_order(partial(or_error, partial(size_of, shorter_side=None)), paths, workers)
    return [
        result
        for result in counted(results, len(paths), progress)
        if isinstance(result, ImageError)
    ]
