"""Images per second of make_wardrobe on one core, everything written to disk.

python tests/benchmarks/bench_wardrobe.py [size] [shots]
"""

import os
import sys
import tempfile
import time
from pathlib import Path

import fieldguide

ITEMS = 300


def main(size: int = 224, shots: int = 4) -> None:
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = "1"  # before numpy is loaded
    import cv2

    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        fieldguide.make_wardrobe(Path(folder) / "warm", outfits=200, items=150, shots=2, size=32)
        wall, cpu = time.perf_counter(), time.process_time()
        fieldguide.make_wardrobe(Path(folder) / "wardrobe", items=ITEMS, shots=shots, size=size)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        count = ITEMS * shots
        print(
            f"{count} images of {size} px, {count / wall:.0f} images/s, "
            f"{count / cpu:.0f} per second of processor time"
        )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
