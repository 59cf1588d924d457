"""Pairs to learn a similarity from: as many of things that belong together as of things that do not (PAN, Sec. 2.3).

NOTE the official code differs in what it lets through: on Polyvore negatives may be pairs of an item with itself and may come
twice; on CUB they may come twice. Here no pair has an item twice and no pair comes twice, in either order.
"""

import torch
from torch import Tensor


def pairs_from_labels(
    labels: Tensor, count: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """`count` pairs of one class and `count` pairs of two, each drawn uniformly, without replacement, from all there are.

    Args:
        labels: (N,) integers.
        count: of positives, and of negatives.
        generator: a CPU generator.

    Returns:
        pairs (2 count, 2) long, positives first, and same (2 count,) float32 of 1. and 0.

    Raises:
        ValueError: fewer than `count` pairs of either kind.
    """
    order = labels.argsort(stable=True).cpu()
    sizes = labels.unique(return_counts=True)[1].cpu()
    ends = (sizes * (sizes - 1) // 2).cumsum(0)  # pairs of the classes so far
    positive, nodes = int(ends[-1]) if len(ends) else 0, len(labels)
    _check_count(count, positive, "pairs within a class")
    _check_count(count, nodes * (nodes - 1) // 2 - positive, "pairs across classes")
    number = _distinct(positive, count, generator)
    owner = torch.searchsorted(ends, number, right=True)
    within = _pair_of(
        number - torch.where(owner > 0, ends[owner - 1], 0)
    )  # positions in the owner's class (count, 2)
    together = order[(sizes.cumsum(0) - sizes)[owner, None] + within]
    on_cpu = labels.cpu()
    apart = _negatives(
        nodes, count, generator, lambda pairs: on_cpu[pairs[:, 0]] != on_cpu[pairs[:, 1]]
    )
    return _balanced(together, apart)


def pairs_from_edges(
    edges: Tensor, nodes: int, generator: torch.Generator, known: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """All edges as positives and as many negatives, drawn uniformly, without replacement, from the pairs that are no edges.

    Args:
        edges: (E, 2) long, undirected, between `nodes` items; as many distinct ones as rows.
        generator: a CPU generator.
        known: (K, 2) more edges that negatives must keep clear of, as those set aside for message passing.

    Returns:
        pairs (2 E, 2) long, the edges first, and same (2 E,) float32 of 1. and 0.

    Raises:
        ValueError: edges of an item with itself, twice, or out of range; fewer than E pairs that are no edges.
    """
    taken = _numbers(edges, nodes, "edges")
    if len(taken.unique()) < len(taken):
        raise ValueError(
            f"{len(taken) - len(taken.unique())} of {len(taken)} edges come twice, in one direction or both"
        )
    if known is not None:
        taken = torch.cat([taken, _numbers(known, nodes, "known edges")])
    taken = taken.unique()
    _check_count(len(edges), nodes * (nodes - 1) // 2 - len(taken), "pairs that are no edges")
    apart = _negatives(
        nodes, len(edges), generator, lambda pairs: ~torch.isin(_numbers(pairs, nodes), taken)
    )
    return _balanced(edges.cpu(), apart)


def split_edges(
    edges: Tensor, generator: torch.Generator, share: float = 0.5
) -> tuple[Tensor, Tensor]:
    """(E, 2) -> (messages, targets) at random: `share` of the edges for message passing, the others to be predicted."""
    order = torch.randperm(len(edges), generator=generator)
    cut = int(len(edges) * share)
    return edges[order[:cut]], edges[order[cut:]]


def _negatives(nodes: int, count: int, generator: torch.Generator, accept) -> Tensor:
    return _pair_of(
        _distinct(
            nodes * (nodes - 1) // 2, count, generator, lambda number: accept(_pair_of(number))
        )
    )


def _balanced(together: Tensor, apart: Tensor) -> tuple[Tensor, Tensor]:
    return torch.cat([together, apart]), torch.cat(
        [torch.ones(len(together)), torch.zeros(len(apart))]
    )


def _distinct(total: int, count: int, generator: torch.Generator, accept=None) -> Tensor:
    """`count` distinct numbers below `total` that `accept` lets through, uniformly; there must be as many."""
    if total <= max(8 * count, 2**20):
        number = torch.randperm(total, generator=generator)
        return (number if accept is None else number[accept(number)])[:count]
    found = torch.empty(0, dtype=torch.int64)
    while len(found) < count:
        drawn = torch.randint(total, (2 * count,), generator=generator)
        found = torch.cat([found, drawn if accept is None else drawn[accept(drawn)]])
        value, place = found.sort(stable=True)
        first = torch.ones_like(value, dtype=torch.bool)
        first[1:] = value[1:] != value[:-1]
        found = found[
            place[first].sort().values
        ]  # repeated draws but the first thrown away: uniform without replacement
    return found[:count]


def _pair_of(number: Tensor) -> Tensor:
    """The pairs i > j >= 0 in the order (1, 0), (2, 0), (2, 1), (3, 0) ...: (n,) -> (n, 2)."""
    larger = ((1 + (1 + 8 * number.double()).sqrt()) / 2).long()
    larger -= (
        larger * (larger - 1) // 2 > number
    ).long()  # the root may have been rounded up, never down to the next number
    return torch.stack([larger, number - larger * (larger - 1) // 2], dim=1)


def _numbers(pairs: Tensor, nodes: int, name: str = "pairs") -> Tensor:
    """The inverse of `_pair_of`, whichever end comes first."""
    if pairs.ndim != 2 or pairs.shape[1] != 2:
        raise ValueError(f"{name} must be (E, 2), got shape {tuple(pairs.shape)}")
    low, high = pairs.cpu().long().sort(dim=1).values.T
    if len(pairs) and (low.min() < 0 or high.max() >= nodes):
        raise ValueError(
            f"{name} must lie between 0 and {nodes - 1}, got {low.min()} to {high.max()}"
        )
    if (low == high).any():
        raise ValueError(f"{name}: item {low[low == high][0]} is paired with itself")
    return high * (high - 1) // 2 + low


def _check_count(count: int, available: int, what: str) -> None:
    if not 1 <= count <= available:
        raise ValueError(f"{count} {what} are wanted, there are {available}")
