"""Damaged annotation files of all layouts: how many are read, refused by name, crash the reader of
.mat files, or fail to be either. What failed is printed."""

import argparse
import time
from collections import Counter

from helpers.damage import LAYOUTS, fuzz

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", nargs="?", type=int, default=10_000, help="damaged files in all")
    parser.add_argument("seed", nargs="?", type=int, default=1)
    arguments = parser.parse_args()
    started, total, share = time.perf_counter(), Counter(), -(-arguments.count // len(LAYOUTS))
    for layout in LAYOUTS:
        counts, failures = fuzz(layout, share, arguments.seed)
        outcomes: Counter = Counter()
        for (_, outcome), times in counts.items():
            outcomes[outcome] += times
        total += outcomes
        print(f"{layout:<24} {dict(sorted(outcomes.items()))}", *failures, sep="\n  ", flush=True)
    print(f"{'all':<24} {dict(sorted(total.items()))}, {time.perf_counter() - started:.0f} s")
