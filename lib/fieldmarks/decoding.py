"""Read images as RGB, upright: one, or many by several threads."""

import math
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from pathlib import Path

import numpy as np
import pillow_heif
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.Image import Transpose

from fieldmarks.picture_kinds import why_unreadable

pillow_heif.register_heif_opener()  # what phones write; AVIF and JPEG 2000 are Pillow's own

LONGEST_ASPECT = 3  # a panorama would pad all of its batch to its own length
MOST_PIXELS = 90_000_000  # a file that claims more is taken for a decompression bomb
# JPEGs are decoded at a half, quarter or eighth where that still leaves twice the side asked for:
# on photographs the result is one or two grey levels off on average, in half the time.
DRAFT_MARGIN = 2
EXIF_ORIENTATION = 0x0112
TURNS = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}


class ImageError(ValueError):
    """One image that cannot be read: `path` and `reason`."""

    def __init__(self, path: Path, reason: str):
        super().__init__(path, reason)
        self.path, self.reason = Path(path), reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class UnreadableImages(ValueError):
    """All images of a set that cannot be read, in `faults`; the message names the first ten."""

    def __init__(self, faults: list[ImageError], of: int):
        super().__init__(faults, of)
        self.faults, self.of = faults, of

    def __str__(self) -> str:
        named = "; ".join(map(str, self.faults[:10])) + "; ..." * (len(self.faults) > 10)
        instead = "fetch them again, or leave them out: unreadable='leave_out' in an experiment"
        return f"{len(self.faults):,} of {self.of:,} images cannot be read ({instead}): {named}"


def decode(path: Path, shorter_side: int | None) -> np.ndarray:
    """Read an image as RGB, upright by its EXIF, transparency on white: uint8 (H, W, 3).

    Args:
        path: any file that Pillow or pillow-heif reads, whatever it is called.
        shorter_side: pixels of the shorter side after antialiased resizing, with the aspect ratio
            kept; what is longer than 3:1 is cropped to 3:1 about its centre. None: as in the file.
    Raises:
        ImageError: no such file, no image, a raw camera file or of another kind that cannot be
            read, truncated, floating-point or too many pixels.
        ValueError: shorter_side below 1."""
    if shorter_side is not None and shorter_side < 1:
        raise ValueError(f"shorter_side must be at least 1 pixel, not {shorter_side}")
    try:
        with open(path, "rb") as stream:
            if reason := why_unreadable(stream):
                raise ImageError(path, reason)
            image = Image.open(stream)
            width, height = image.size
            if width * height > MOST_PIXELS:
                limit = f"more than {MOST_PIXELS:,}; taken for a decompression bomb"
                raise ImageError(path, f"{width} x {height} pixels, {limit}")
            scale = 1 if shorter_side is None else DRAFT_MARGIN * shorter_side / min(image.size)
            if scale < 1:  # the JPEG decoder itself shrinks; other formats pay no heed
                image.draft(None, (math.ceil(width * scale), math.ceil(height * scale)))
            rgb = _to_rgb(image)
            turn = TURNS.get(_orientation(image))
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # bad bytes raise OSError, SyntaxError, struct.error and more
        raise ImageError(path, _reason(error, path)) from error
    if shorter_side is not None:
        rgb = resized(rgb, shorter_side)
    return np.array(rgb if turn is None else rgb.transpose(turn))


def upright(image: Image.Image, shorter_side: int) -> np.ndarray:
    """As `decode`, of an image that is open already."""
    return np.array(resized(_to_rgb(ImageOps.exif_transpose(image)), shorter_side))


def resized(rgb: Image.Image, shorter_side: int) -> Image.Image:
    longest = LONGEST_ASPECT * min(rgb.size)
    left, top = (max(0, (side - longest) / 2) for side in rgb.size)
    box = (left, top, rgb.width - left, rgb.height - top)
    size = target_size(*rgb.size, shorter_side)
    return rgb.resize(size, Image.Resampling.BILINEAR, box=box)


def target_size(width: int, height: int, shorter_side: int) -> tuple[int, int]:
    """(width, height) of an image once its shorter side is `shorter_side`, at most 3:1."""
    other = round(max(width, height) * shorter_side / min(width, height))
    other = max(shorter_side, min(LONGEST_ASPECT * shorter_side, other))
    return (other, shorter_side) if width >= height else (shorter_side, other)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError("floating-point pixels, of unknown white; save it with 8 or 16 bits")
    if image.mode.startswith("I"):  # 16 bits; Pillow's own conversion would clip at 255
        values = np.asarray(image).astype(np.int64).clip(0, 65535) >> 8
        return Image.fromarray(values.astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


def _orientation(image: Image.Image) -> int:
    """Of a loaded image: Pillow has turned TIFF by then, and PNG may say it after the pixels."""
    with suppress(Exception):  # a damaged remark does not make a photograph unreadable
        return image.getexif().get(EXIF_ORIENTATION, 1)
    return 1


def _reason(error: Exception, path: Path) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, UnidentifiedImageError):
        return "the file is empty" if os.path.getsize(path) == 0 else "not an image"
    return getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__


def in_order(function: Callable, paths: list[Path], workers=None, progress=None) -> Iterator:
    """function(path) of all images in order, or the ImageError it raises, computed some ahead.

    `workers` are threads (as fast as processes, for Pillow releases Python's lock), by default one
    for each processor that this process may use; `progress` is called with (images done, images in
    all) after each."""
    if not workers:
        affinity = getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))
        workers = len(affinity(0))

    def attempt(path: Path):
        try:
            return function(path)
        except ImageError as error:
            return error

    pool, coming, waiting = ThreadPoolExecutor(workers), iter(paths), deque()
    try:
        for done in range(1, len(paths) + 1):
            ahead = islice(coming, 4 * workers - len(waiting))
            waiting.extend(pool.submit(attempt, path) for path in ahead)
            yield waiting.popleft().result()
            if progress is not None:
                progress(done, len(paths))
    finally:
        pool.shutdown(cancel_futures=True)


def unreadable(
    paths: list[Path], workers=None, progress=None, shorter_side: int | None = None
) -> list[ImageError]:
    """Decode all images, by default in full; an error for each that cannot be read, in order."""
    results = in_order(lambda path: decode(path, shorter_side).shape, paths, workers, progress)
    return [result for result in results if isinstance(result, ImageError)]
