"""A synthetic gallery of millions: codes one by one, and embeddings through inverted lists.

    python tests/benchmarks/bench_large_gallery.py [--size 10000000] [--dim 64] [--bits 48]
        [--threads 2] [--folder DIR] [--scattered]

Ten million embeddings of 64 dimensions take 2.6 GB of disk and their lists 0.7 GB; of 512, 20.5 GB
and 5.2 GB. Items lie about centres, a hundred to each, as pictures of a class do; with --scattered
they lie anywhere, the worst case for lists. Files are written a piece at a time and searched by a
process of its own, whose memory is given apart: what it holds, and which files it has mapped, whose
pages the system takes back when it needs room.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import faiss
import numpy as np

from fieldmarks.search.codes import CodeIndex
from fieldmarks.search.embeddings import EmbeddingIndex, exact_nearest

PIECE = 100_000
PER_CENTRE = 100
QUERIES = 50


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--bits", type=int, default=48)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--folder",
        type=Path,
        help="for the files, which are removed at the end; by default the system's",
    )
    parser.add_argument("--scattered", action="store_true")
    parser.add_argument("--search", choices=["codes", "embeddings"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    faiss.omp_set_num_threads(options.threads)
    if options.search:
        return {"codes": search_codes, "embeddings": search_embeddings}[options.search](options)
    print(f"{options.size:,} items, {options.threads} threads")
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        options.folder = Path(folder)
        began = time.perf_counter()
        write_codes(options)
        size = megabytes(options.folder / "codes.npy")
        print(f"\ncodes of {options.bits} bits     written in {seconds_since(began)}, {size}")
        in_a_process_of_its_own("codes", options)
        began = time.perf_counter()
        write_embeddings(options)
        size = megabytes(options.folder / "embeddings.npy")
        print(f"\nembeddings of {options.dim}     written in {seconds_since(began)}, {size}")
        began = time.perf_counter()
        index = EmbeddingIndex.build(np.load(options.folder / "embeddings.npy", mmap_mode="r"))
        index.save(options.folder / "lists.faiss")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        size = megabytes(options.folder / "lists.faiss")
        print(
            f"lists                built in {seconds_since(began)}, {size}, {index.lists} of them; "
            f"memory at most {peak:,.0f} MB, mapped files included (limit 24,000 MB)"
        )
        del index
        in_a_process_of_its_own("embeddings", options)


def search_codes(options) -> None:
    packed = np.load(options.folder / "codes.npy", mmap_mode="r")
    began = time.perf_counter()
    index = CodeIndex.of_packed(packed, options.bits)
    opened = time.perf_counter() - began
    queries = np.ascontiguousarray(packed[:: len(packed) // QUERIES][:QUERIES])
    ours, (distances, _) = milliseconds(lambda query: index.search_packed(query[None], 10), queries)

    def by_numpy(query):
        apart = np.bitwise_count(packed ^ query).sum(axis=1)
        return np.sort(apart[np.argpartition(apart, 9)[:10]])

    theirs, exact = milliseconds(by_numpy, queries[:5])
    assert (distances[0] == exact).all()
    print(
        f"search, exact        opened in {opened:.2f} s; {ours:.1f} ms a query (limit 1,000), "
        f"numpy {theirs:.1f} ms, ratio {ours / theirs:.2f}; {memory()}"
    )


def search_embeddings(options) -> None:
    vectors = np.load(options.folder / "embeddings.npy", mmap_mode="r")
    began = time.perf_counter()
    index = EmbeddingIndex.load(options.folder / "lists.faiss", vectors)
    opened = time.perf_counter() - began
    queries = np.ascontiguousarray(vectors[:: len(vectors) // QUERIES][:QUERIES])
    ours, _ = milliseconds(lambda query: index.search(query[None], 10), queries)
    held = memory()
    theirs, _ = milliseconds(lambda query: exact_nearest(query[None], vectors, 10), queries[:3])
    print(
        f"search through lists opened in {opened:.2f} s; {ours:.1f} ms a query, {index.probes} of "
        f"{index.lists} lists, exact {theirs:.1f} ms, ratio {ours / theirs:.3f}; "
        f"recall@10 {index.recall:.3f}; {held}"
    )


def write_codes(options) -> None:
    """Of 48 bits about 2 differ from a centre's."""
    random = np.random.default_rng(0)
    centres = random.integers(
        2, size=(max(options.size // PER_CENTRE, 1), options.bits), dtype=np.uint8
    )
    out = np.lib.format.open_memmap(
        options.folder / "codes.npy", "w+", np.uint8, (options.size, -(-options.bits // 8))
    )
    for start in range(0, options.size, PIECE):
        part = out[start : start + PIECE]
        chosen = random.integers(len(centres), size=len(part))
        flipped = random.random((len(part), options.bits), np.float32) < (
            0.5 if options.scattered else 0.04
        )
        part[:] = np.packbits(centres[chosen] ^ flipped, axis=1)
    out.flush()


def write_embeddings(options) -> None:
    """The cosine of two of one centre is about 0.6."""
    random = np.random.default_rng(1)
    centres = random.standard_normal((max(options.size // PER_CENTRE, 1), options.dim), np.float32)
    out = np.lib.format.open_memmap(
        options.folder / "embeddings.npy", "w+", np.float32, (options.size, options.dim)
    )
    for start in range(0, options.size, PIECE):
        part = out[start : start + PIECE]
        rows = random.standard_normal(part.shape, np.float32)
        if not options.scattered:
            rows = centres[random.integers(len(centres), size=len(part))] + 0.8 * rows
        part[:] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    out.flush()


def in_a_process_of_its_own(what: str, options) -> None:
    sys.stdout.flush()
    arguments = [
        f"--{name}={getattr(options, name)}"
        for name in ("size", "dim", "bits", "threads", "folder")
    ]
    subprocess.run([sys.executable, __file__, *arguments, f"--search={what}"], check=True)


def milliseconds(search, queries: np.ndarray):
    """The median of one query at a time, after a first one, and what that one found."""
    first, times = search(queries[0]), []
    for query in queries:
        began = time.perf_counter()
        search(query)
        times.append(1000 * (time.perf_counter() - began))
    return float(np.median(times)), first


def seconds_since(began: float) -> str:
    return f"{time.perf_counter() - began:.1f} s"


def megabytes(file: Path) -> str:
    return f"{file.stat().st_size / 1e6:,.0f} MB"


def memory() -> str:
    try:
        lines = dict(
            line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines()
        )
        own, mapped = (int(lines[name].split()[0]) / 1024 for name in ("RssAnon", "RssFile"))
        return f"memory {own:,.0f} MB of its own, {mapped:,.0f} MB of mapped files"
    except (OSError, KeyError):
        return f"memory at most {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:,.0f} MB"


if __name__ == "__main__":
    main()
