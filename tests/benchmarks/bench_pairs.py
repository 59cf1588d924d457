"""Exact scoring of all pairs with PAN's head against the matrix product that it cannot do without.

    python tests/benchmarks/bench_pairs.py [--threads 2] [--queries 16] [--gallery 12612]
        [--dim 2048] [--concepts 463]

Both multiply matrices of one shape and precision, in alternating rounds; the fastest round of each
counts. Prints the share of the product's rate that is reached, the time that In-Shop would take
(14,218 queries x 12,612), peak memory, and how bf16 changes ranks.
"""

import argparse
import os
import resource
import time

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # idle threads sleep, and disturb less

import torch

from fieldmarks.evaluation.pair_scores import TILE, _Tiles, rerank, top_scores
from fieldmarks.methods.pairs import pairs_from_labels
from fieldmarks.methods.pan import PAN

IN_SHOP = 14_218 * 12_612
PER_ITEM = 3


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--queries", type=int, default=16)
    parser.add_argument("--gallery", type=int, default=12_612)
    parser.add_argument("--dim", type=int, default=2048)
    parser.add_argument("--concepts", type=int, default=463)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    query, gallery, truth, head = make_data(options)
    operations = 2 * options.dim * 2 * options.concepts  # of one pair's linear maps
    pairs = options.queries * options.gallery
    print(
        f"{options.queries} queries x {options.gallery:,} items, {options.dim} features, "
        f"{options.concepts} concepts, {options.threads} threads, best of {options.rounds}"
    )
    exact = None
    for dtype in (torch.float32, torch.bfloat16):
        plain, ours = [], []
        for _ in range(options.rounds):
            plain.append(timed(lambda dtype=dtype: products(options, dtype)))
            ours.append(
                timed(lambda dtype=dtype: top_scores(head, query, gallery, 10, dtype=dtype))
            )
        (plain_wall, plain_cpu), (wall, cpu) = (
            map(min, zip(*times, strict=True)) for times in (plain, ours)
        )
        rates = [operations * pairs / took / 1e9 for took in (plain_wall, wall)]
        print(
            f"{str(dtype)[6:]:9} product {rates[0]:4.0f} GFLOP/s   top_scores {rates[1]:4.0f} "
            f"GFLOP/s   ratio {plain_wall / wall:.2f}, of processor time {plain_cpu / cpu:.2f} "
            f"(target: at least 0.60)   In-Shop {IN_SHOP / pairs * wall / 60:.0f} min"
        )
        scores, index = top_scores(head, query, gallery, 10, dtype=dtype)
        exact = exact or (scores, index)
        print(f"{'':9} {quality(index, exact[1], truth)}")
    rough = rough_scores(head, query, gallery)
    error = (rough.gather(1, exact[1]) - exact[0]).abs().max()
    index = rough.topk(10, dim=1).indices
    print(f"bf16 unaided: score off by {error:.1e} at most, {quality(index, exact[1], truth)}")
    candidates = (-torch.cdist(query, gallery)).topk(100, dim=1).indices
    seconds = timed(lambda: rerank(head, query, gallery, candidates))[0] / len(query)
    in_shop = f"In-Shop {seconds * 14_218 / 60:.1f} min"
    print(f"rerank of the 100 nearest: {seconds * 1e3:.1f} ms a query, {in_shop}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    features = gallery.numel() * 4 / 2**20
    print(f"peak RSS {peak:,.0f} MB, of which features {features:,.0f} MB (target: below 2,000 MB)")


def products(options, dtype: torch.dtype) -> None:
    """The products within the scores of all pairs, alone."""
    left = torch.ones(2 * options.concepts, options.dim, dtype=dtype)
    right = torch.rand(TILE[0] * TILE[1], options.dim).to(dtype)
    product = torch.empty(len(left), len(right), dtype=dtype)
    for _ in range(-(-options.queries * options.gallery // len(right))):
        torch.mm(left, right.T, out=product)


def quality(index, reference, truth) -> str:
    return (
        f"Recall@1 {hit_rate(index, truth):.4f}   first item as in float32 "
        f"{agreement(index, reference, 1):.4f}   same ten in order "
        f"{agreement(index, reference, 10):.4f}"
    )


def make_data(options):
    """Photographs of items, three of each, and a head that has learned a little from others."""
    items = options.gallery // PER_ITEM
    mixing = torch.randn(64, options.dim) / 8

    def photographs(count: int, each: int):
        kind = torch.arange(count).repeat_interleave(each)
        items = torch.randn(count, 64)[kind] @ mixing
        return items + 0.7 * torch.randn(len(kind), options.dim), kind

    features, kind = photographs(500, 4)
    pairs, same = pairs_from_labels(kind, 300, torch.Generator().manual_seed(0))
    head = PAN(options.dim, free=options.concepts)
    optimizer = torch.optim.Adam(head.parameters(), lr=1e-3)
    for _ in range(25):
        optimizer.zero_grad()
        head.losses(features[pairs[:, 0]], features[pairs[:, 1]], same)["similarity"].backward()
        optimizer.step()
    features, kind = photographs(items + 1, PER_ITEM + 1)
    is_query = torch.arange(len(kind)) % (PER_ITEM + 1) == 0
    gallery, known = features[~is_query][: options.gallery], kind[~is_query][: options.gallery]
    query, wanted = features[is_query][: options.queries], kind[is_query][: options.queries]
    return query.contiguous(), gallery.contiguous(), (wanted, known), head.similarity


@torch.no_grad()
def rough_scores(head, query, gallery):
    tiles = _Tiles(head, torch.bfloat16)
    return torch.cat([tiles.strip(rows, gallery) for rows in query.split(TILE[0])])


def hit_rate(index, truth) -> float:
    wanted, known = truth
    return (known[index[:, 0]] == wanted).float().mean().item()


def agreement(index, reference, k: int) -> float:
    return (index[:, :k] == reference[:, :k]).all(1).float().mean().item()


def timed(job) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    job()
    return time.perf_counter() - wall, time.process_time() - cpu


if __name__ == "__main__":
    main()
