"""Pairs per minute of make_twins in one process, everything written to disk.

python tests/benchmarks/bench_twins.py [size] [pairs]
"""

import os
import sys
import tempfile
import time
from pathlib import Path

import fieldguide


def main(size: int = 224, pairs: int = 200) -> None:
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = "1"  # before numpy is loaded
    import cv2

    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        for exchange in ("mark", "scene", "attribute", "backdrop"):
            fieldguide.make_twins(Path(folder) / f"warm {exchange}", 2, exchange, size=size)
            wall, cpu = time.perf_counter(), time.process_time()
            fieldguide.make_twins(Path(folder) / exchange, pairs, exchange, size=size)
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            print(
                f"{exchange}: {pairs} pairs of {size} px, {60 * pairs / wall:.0f} a minute, "
                f"{60 * pairs / cpu:.0f} a minute of processor time"
            )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
