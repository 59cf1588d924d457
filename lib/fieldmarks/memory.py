"""Memory on Linux: what a step has freed is kept for the next."""

import ctypes
import sys
from functools import cache

MMAP_THRESHOLD, TRIM_THRESHOLD = -3, -1  # M_MMAP_THRESHOLD and M_TRIM_THRESHOLD of glibc's malloc.h
LARGE = 2**30  # bytes


@cache
def keep_freed_memory() -> bool:
    """Tell glibc to keep blocks of up to a gigabyte that are freed; whether that could be told.

    Else it gives each of a network's activations back to the kernel at once, which hands the next
    ones out page by page, filled with zeros: on CPUs that is up to half of a training's time."""
    if sys.platform != "linux" or not (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)):
        return False
    return bool(mallopt(MMAP_THRESHOLD, LARGE) and mallopt(TRIM_THRESHOLD, 2 * LARGE - 1))
