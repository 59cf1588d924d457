"""An epoch of PAN on outfits, one step over all items and pairs, at Polyvore Outfits' size.

    OMP_NUM_THREADS=2 python tests/benchmarks/bench_outfit_epoch.py [--items 204679]
        [--edges 676000] [--dim 2048] [--steps 2] [--precision bf16]

Features are random. Half of the edges are shown to the graph encoder, the other half with as many
random pairs are learned from, as PAN-Supervised with 205 attributes and the "none" concept does.
The reference is what no program can do without: the matrix products of the encoder's first layer
and of the head, forward and backward, in the same precision in the same run.
"""

import argparse
import os
import resource
import time

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # idle threads sleep, and disturb less

import torch

from fieldmarks.experiments.pairs import PairStream
from fieldmarks.methods.graph_encoder import Graph
from fieldmarks.methods.pair_network import CHUNK, PairNetwork
from fieldmarks.methods.pairs import pairs_from_edges, split_edges
from fieldmarks.random import seeded
from fieldmarks.training import DTYPES, cpu_has_bf16

HIDDEN, ATTRIBUTES = 200, 205


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=int, default=204_679)
    parser.add_argument("--edges", type=int, default=676_000)
    parser.add_argument("--dim", type=int, default=2048)
    parser.add_argument("--steps", type=int, default=2)
    usual = "bf16" if cpu_has_bf16() else "fp32"
    parser.add_argument("--precision", choices=list(DTYPES), default=usual)
    options = parser.parse_args()
    torch.manual_seed(0)
    features = torch.randn(options.items, options.dim)
    labels = (torch.rand(options.items, ATTRIBUTES) < 0.03).float()
    began = time.perf_counter()
    drawn = torch.randint(0, options.items, (options.edges + options.edges // 50, 2))
    drawn = drawn.sort(dim=1).values
    edges = drawn[drawn[:, 0] != drawn[:, 1]].unique(dim=0)
    edges = edges[torch.randperm(len(edges))[: options.edges]]
    messages, targets = split_edges(edges, seeded(0, 1))
    pairs, same = pairs_from_edges(targets, options.items, seeded(0, 2), known=messages)
    graph = Graph.of(messages, options.items)
    print(
        f"{options.items:,} items of {options.dim} features, {len(messages):,} edges shown, "
        f"{len(pairs):,} pairs learned from, {ATTRIBUTES + 1} concepts, {options.precision}, "
        f"{torch.get_num_threads()} threads; target: under 60 s"
    )
    print(f"  graph and pairs, once        {time.perf_counter() - began:6.1f} s")
    hidden = (HIDDEN, HIDDEN)
    network = PairNetwork(
        "pan_supervised", options.dim, ATTRIBUTES, hidden=hidden, attribute_weight=10.0
    ).train()
    stream = PairStream(features, lambda epoch: (pairs, same), labels, (0, 3), graph, 0.15)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    autocast = {"dtype": DTYPES[options.precision], "enabled": options.precision != "fp32"}
    least = float("inf")
    for number in range(options.steps):
        began, busy = time.perf_counter(), time.process_time()
        for batch in stream.epoch(number):  # a single step
            with torch.autocast("cpu", **autocast):
                terms = network.losses(**batch)
            optimizer.zero_grad(set_to_none=True)
            sum(terms.values()).backward()
            optimizer.step()
        seconds, busy = time.perf_counter() - began, time.process_time() - busy
        least = min(least, busy)
        print(
            f"  epoch {number + 1}                      {seconds:6.1f} s   "
            f"processor time {busy:.1f} s   "
            + "  ".join(f"{name} {value.item():.4f}" for name, value in terms.items())
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"  peak memory                  {peak:6.1f} GB")
    floor = matrix_products(features, len(pairs), DTYPES[options.precision])
    print(
        f"  matrix products alone        {floor:6.1f} s of processor time\n"
        f"  ratio of the epoch to them   {least / floor:6.1f}, in processor time"
    )


def matrix_products(features: torch.Tensor, pairs: int, dtype: torch.dtype) -> float:
    """Processor seconds of the first layer, forward and its weights' gradient, and of the head by
    chunks, forward and both gradients."""
    own = features.to(dtype)
    weight = torch.randn(2 * HIDDEN, features.shape[1], dtype=dtype)
    upstream = torch.randn(len(features), 2 * HIDDEN, dtype=dtype)
    difference = torch.randn(CHUNK, HIDDEN, dtype=dtype)
    head = torch.randn(2 * (ATTRIBUTES + 1), HIDDEN, dtype=dtype)
    gradient = torch.randn(CHUNK, len(head), dtype=dtype)
    began = time.process_time()
    own @ weight.T
    upstream.T @ own
    for _ in range(-(-pairs // CHUNK)):
        difference @ head.T
        gradient @ head
        gradient.T @ difference
    return time.process_time() - began


if __name__ == "__main__":
    main()
