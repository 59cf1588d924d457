"""Exact mAP of hash codes against the usual loop, an argsort for each query: time, and peak memory.

    OMP_NUM_THREADS=2 python tests/benchmarks/bench_hamming.py [--queries 116931] [--gallery 29200]
        [--bits 48] [--classes 292]

The defaults are VegFru's. `random` codes are all different, the worst case; `clustered` ones lie
around one centre a class, with one bit in ten flipped, as trained codes do. The loop runs in the
same process on a tenth of the queries, and its time counts ten times.
"""

import argparse
import os
import resource
import time

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # idle threads sleep, and disturb less

import numpy as np
import torch

from fieldmarks.evaluation.hamming import mean_average_precision, retrieve


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--queries", type=int, default=116_931)
    parser.add_argument("--gallery", type=int, default=29_200)
    parser.add_argument("--bits", type=int, default=48)
    parser.add_argument("--classes", type=int, default=292)
    options = parser.parse_args()
    torch.manual_seed(0)
    query_labels, gallery_labels = (
        torch.arange(size) * options.classes // size for size in (options.queries, options.gallery)
    )
    centres = torch.randint(0, 2, (options.classes, options.bits)) * 2.0 - 1
    cases = {
        "random": lambda labels: torch.randint(0, 2, (len(labels), options.bits)) * 2.0 - 1,
        "clustered": lambda labels: (
            torch.where(torch.rand(len(labels), options.bits) < 0.1, -1, 1) * centres[labels]
        ),
    }
    print(
        f"{options.queries:,} queries x {options.gallery:,} codes of {options.bits} bits, "
        f"{options.classes} classes, {torch.get_num_threads()} threads; targets: expected under "
        "60 s and 2,000 MB, 20 times as fast as the loop"
    )
    for name, make in cases.items():
        sides = make(query_labels), query_labels, make(gallery_labels), gallery_labels
        tenth = sides[0][::10], query_labels[::10], *sides[2:]
        before = peak_megabytes()
        value, seconds = timed(mean_average_precision, *sides)
        peak = peak_megabytes()
        stable, stable_seconds = timed(mean_average_precision, *tenth, ties="stable")
        _, with_neighbours = timed(retrieve, *tenth)
        usual, usual_seconds = timed(argsort_loop, *(side.numpy() for side in tenth))
        share = options.queries / len(tenth[0])
        print(f"{name}, {len(sides[0].unique(dim=0)):,} distinct query codes")
        memory = f"peak RSS {peak:,.0f} MB ({before:,.0f} MB before)"
        print(f"  expected      {seconds:7.1f} s   mAP {value:.4f}   {memory}")
        for kind, mean, took in (
            ("stable", stable, stable_seconds),
            ("argsort loop", usual, usual_seconds),
        ):
            print(f"  {kind:14}{share * took:7.1f} s   mAP {mean:.4f}   on a tenth, times ten")
        print(f"  retrieve      {share * with_neighbours:7.1f} s   expected, and 10 neighbours")
        print(
            f"  ratio of the loop to expected {share * usual_seconds / seconds:.0f}, "
            f"to stable {usual_seconds / stable_seconds:.0f}"
        )


def argsort_loop(query, query_labels, gallery, gallery_labels) -> float:
    """Query by query: all distances, their argsort, and the precision at each relevant place."""
    total = 0.0
    for code, label in zip(query, query_labels, strict=True):
        distance = (gallery.shape[1] - gallery @ code) / 2
        places = np.flatnonzero(gallery_labels[np.argsort(distance)] == label) + 1
        total += np.mean(np.arange(1, len(places) + 1) / places)
    return total / len(query)


def timed(job, *arguments, **options) -> tuple[float, float]:
    start = time.perf_counter()
    value = job(*arguments, **options)
    return value, time.perf_counter() - start


def peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
