"""Images per second of make_fieldguide on one core, pictures, masks and annotations written to disk.

python tests/benchmarks/bench_fieldguide.py [size] [images]
"""

import os

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

import sys
import tempfile
import time
from pathlib import Path

import cv2
from fieldguide.birds.guide import make_fieldguide

CLASSES = 50


def main(size: int = 128, images: int = 20) -> None:
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        make_fieldguide(Path(folder) / "warm", 2, 2, size)
        for difficulty in ("standard", "hard"):
            wall, cpu = time.perf_counter(), time.process_time()
            make_fieldguide(Path(folder) / difficulty, CLASSES, images, size, difficulty=difficulty)
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            print(
                f"{difficulty}: {CLASSES * images} images of {size} px, {CLASSES * images / wall:.0f} images/s, "
                f"{CLASSES * images / cpu:.0f} per second of processor time"
            )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
