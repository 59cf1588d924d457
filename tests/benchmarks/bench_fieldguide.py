"""Images per second of make_fieldguide on one core: pictures, masks and annotations on disk.

python tests/benchmarks/bench_fieldguide.py [size] [images]
"""

import os
import sys
import tempfile
import time
from pathlib import Path

import fieldguide

CLASSES = 50


def main(size: int = 224, images: int = 20) -> None:
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = "1"  # before numpy is loaded
    import cv2

    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        fieldguide.make_fieldguide(Path(folder) / "warm", 2, 2, size)
        for difficulty in ("standard", "hard"):
            wall, cpu = time.perf_counter(), time.process_time()
            target = Path(folder) / difficulty
            fieldguide.make_fieldguide(target, CLASSES, images, size, difficulty=difficulty)
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            count = CLASSES * images
            print(
                f"{difficulty}: {count} images of {size} px, {count / wall:.0f} images/s, "
                f"{count / cpu:.0f} per second of processor time"
            )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
