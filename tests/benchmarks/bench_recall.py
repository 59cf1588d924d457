"""Recall@K against faiss's exact flat search for the same neighbours: time, and peak memory of the whole process.

    python tests/benchmarks/bench_recall.py [--full] [--threads 2] [--size 60000] [--dim 512]

By default a tenth of the queries is searched in the whole gallery, in alternating rounds; the fastest round of each
counts. `--full` searches every query: for Recall@K that is leave-one-out over the whole set, while faiss returns one
neighbour more, to drop the query itself.
"""

import argparse
import os
import resource
import time

os.environ.setdefault(
    "OMP_WAIT_POLICY", "PASSIVE"
)  # idle threads sleep: jobs on the same cores disturb both less

import faiss
import torch
from fieldmarks.evaluation.recall import recall_at_k

KS = (1, 2, 4, 8)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--full", action="store_true", help="all queries instead of a tenth")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--size", type=int, default=60_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--rounds", type=int, help="default: 1 with --full, else 5")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    faiss.omp_set_num_threads(options.threads)

    torch.manual_seed(0)
    labels = torch.arange(options.size) // 5  # In-Shop has about five photographs an item
    centres = torch.randn(int(labels[-1]) + 1, options.dim)
    gallery = torch.nn.functional.normalize(
        centres[labels] + 3 * torch.randn(options.size, options.dim), dim=1
    )
    del centres
    some = slice(None) if options.full else slice(0, None, 10)
    query, query_labels = gallery[some].clone(), labels[some]
    before = peak_megabytes()

    def ours() -> float:
        if options.full:
            return recall_at_k(gallery, labels, ks=KS)[8]
        return recall_at_k(query, query_labels, gallery, labels, ks=[k + 1 for k in KS])[9]

    index = faiss.IndexFlatIP(options.dim)

    def theirs() -> None:
        index.search(query.numpy(), max(KS) + 1)

    ours_wall, ours_cpu, theirs_wall, theirs_cpu = [], [], [], []
    rounds = options.rounds or (1 if options.full else 5)
    for turn in range(rounds):
        measure(ours, ours_wall, ours_cpu)
        if turn == 0:
            ours_peak = peak_megabytes()
            index.add(gallery.numpy())
        measure(theirs, theirs_wall, theirs_cpu)

    print(
        f"{len(query):,} queries x {options.size:,} x {options.dim}, {options.threads} threads, best of {rounds}"
    )
    print(
        f"recall_at_k      {min(ours_wall):7.2f} s   cpu {min(ours_cpu):7.2f} s   peak RSS {ours_peak:,.0f} MB"
        f" ({before:,.0f} MB before the search)"
    )
    print(f"faiss IndexFlatIP{min(theirs_wall):7.2f} s   cpu {min(theirs_cpu):7.2f} s")
    print(
        f"ratio            {min(ours_wall) / min(theirs_wall):7.2f}     cpu {min(ours_cpu) / min(theirs_cpu):7.2f}"
        "     (target: at most 1.10, memory under 2,000 MB)"
    )


def measure(job, wall: list[float], cpu: list[float]) -> None:
    start, cpu_start = time.perf_counter(), time.process_time()
    job()
    wall.append(time.perf_counter() - start)
    cpu.append(time.process_time() - cpu_start)


def peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
