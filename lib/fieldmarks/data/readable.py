"""Which images of a set can be read, and the set without the others."""

import errno
import json
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import torch

from fieldmarks.data.imageset import ImageSet
from fieldmarks.data.pixels import cache_key
from fieldmarks.decoding import ImageError, unreadable
from fieldmarks.files import cache_home, write_json


def find_unreadable(
    paths: Sequence[Path],
    shorter_side: int,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[int, ImageError]:
    """{position: error} of the images that are missing or cannot be decoded, in order.

    All are decoded once; what was found is kept in the cache, for the files as they are now.
    `workers` and `progress` as `decoding.in_order`."""
    note = cache_home() / "pixels" / f"{cache_key(paths, shorter_side)}.unreadable.json"
    with suppress(OSError, ValueError, TypeError, IndexError):
        known = json.loads(note.read_text())
        return {row: ImageError(paths[row], reason) for row, reason in known}
    row_of = {path: row for row, path in enumerate(paths)}
    found = unreadable(list(paths), workers, progress, shorter_side)
    faults = {row_of[fault.path]: fault for fault in found}
    if all(map(_lasts, faults.values())):
        with suppress(OSError):
            write_json(note, [(row, fault.reason) for row, fault in faults.items()])
    return faults


def without_unreadable(images: ImageSet, shorter_side: int, **options) -> tuple[ImageSet, dict]:
    """The images that can be read, and {class name: how many} of those left out, as a warning too.

    Options as `find_unreadable`. Raises ValueError where a class loses all its images."""
    faults = find_unreadable(images.paths, shorter_side, **options)
    if not faults:
        return images, {}
    kept = torch.ones(len(images), dtype=torch.bool)
    kept[list(faults)] = False
    left, before = images.subset(kept), images.class_counts()
    if len(lost := ((left.class_counts() == 0) & (before > 0)).nonzero()):
        label = int(lost[0])
        first = next(fault for row, fault in faults.items() if images.labels[row] == label)
        none = f"none of the {int(before[label])} images of {images.class_names[label]} can be read"
        others = f", nor of {len(lost) - 1} more classes" if len(lost) > 1 else ""
        again = "fetch them again, or leave the class out of the data"
        raise ValueError(f"{images.name}: {none}{others}: {again}; first {first}")
    labels = images.labels[~kept].tolist()
    classes = dict(Counter(images.class_names[label] for label in labels).most_common())
    named = ", ".join(f"{count} of {name}" for name, count in list(classes.items())[:10])
    named += ", ..." * (len(classes) > 10)
    count = f"{len(faults):,} of {len(images):,} images cannot be read and are left out"
    first = next(iter(faults.values()))
    warnings.warn(f"{images.name}: {count} ({named}), first {first}", stacklevel=2)
    return left, classes


def _lasts(fault: ImageError) -> bool:
    """Whether an image will be as unreadable the next time: a drive that hiccups says so."""
    cause = fault.__cause__
    return not isinstance(cause, OSError) or cause.errno in (None, errno.ENOENT)
