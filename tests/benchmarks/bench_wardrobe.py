"""Images per second of make_wardrobe on one core, everything written to disk.

python tests/benchmarks/bench_wardrobe.py [size] [shots]
"""

import os

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

import sys
import tempfile
import time
from pathlib import Path

import cv2
from fieldguide.garments.wardrobe import make_wardrobe

ITEMS = 300


def main(size: int = 128, shots: int = 4) -> None:
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        make_wardrobe(Path(folder) / "warm", outfits=200, items=150, shots=2, size=32)
        wall, cpu = time.perf_counter(), time.process_time()
        make_wardrobe(Path(folder) / "wardrobe", items=ITEMS, shots=shots, size=size)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        print(
            f"{ITEMS * shots} images of {size} px, {ITEMS * shots / wall:.0f} images/s, "
            f"{ITEMS * shots / cpu:.0f} per second of processor time"
        )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
