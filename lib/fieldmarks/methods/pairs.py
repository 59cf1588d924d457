"""Pairs to learn a similarity from: as many that belong together as that do not (PAN, Sec. 2.3).
NOTE in the official code negatives may come twice, and on Polyvore be pairs of an item with itself.
Here no pair has an item twice and no pair comes twice, in either order."""

from collections.abc import Callable

import torch
from torch import Generator, Tensor

from fieldmarks.labels import integer_labels

AMONG = 5  # pairs drawn for each hard one
Score = Callable[[Tensor], Tensor]


def pairs_from_labels(labels: Tensor, count: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """`count` pairs of one class and `count` of two, drawn uniformly, without replacement: labels
    (N,) -> pairs (2 count, 2) long, positives first, and same (2 count,) float32 of 1. and 0. The
    generator is on the CPU. Raises ValueError where there are fewer pairs of either kind."""
    labels, nodes = integer_labels(labels).cpu(), len(labels)
    order, sizes = labels.argsort(stable=True), labels.unique(return_counts=True)[1]
    ends = (sizes * (sizes - 1) // 2).cumsum(0)  # pairs of the classes so far
    positive = int(ends[-1]) if nodes else 0
    _check_count(count, positive, "pairs within a class")
    _check_count(count, nodes * (nodes - 1) // 2 - positive, "pairs across classes")
    number = _distinct(positive, count, generator)
    owner = torch.searchsorted(ends, number, right=True)
    within = _pair_of(number - torch.where(owner > 0, ends[owner - 1], 0))  # places in the class
    together = order[(sizes.cumsum(0) - sizes)[owner, None] + within]
    return _with_negatives(together, nodes, generator, lambda n: torch.ne(*labels[_pair_of(n)].T))


def pairs_from_edges(
    edges: Tensor, nodes: int, generator: Generator, known: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """All edges as positives and as many negatives, drawn uniformly, without replacement.
    Undirected edges (E, 2) between `nodes` items -> pairs (2 E, 2) long, the edges first, and same
    (2 E,) float32 of 1. and 0. Negatives avoid the edges `known` (K, 2) too. Raises ValueError for
    edges of an item with itself, twice or out of range, and where too few pairs are no edges."""
    taken = _checked_numbers(edges, nodes, "edges")
    if twice := len(taken) - len(taken.unique()):
        raise ValueError(f"{twice} of {len(taken)} edges come twice, in one direction or both")
    if known is not None:
        taken = torch.cat([taken, _checked_numbers(known, nodes, "known edges")])
    taken = taken.unique()
    _check_count(len(edges), nodes * (nodes - 1) // 2 - len(taken), "pairs that are no edges")
    return _with_negatives(edges.cpu(), nodes, generator, lambda n: ~torch.isin(n, taken))


def with_hard_negatives(
    pairs: Tensor, same: Tensor, labels: Tensor, score: Score, share: float, generator: Generator
) -> tuple[Tensor, Tensor]:
    """Pairs and same, as `pairs_from_labels` gives them, with a share of the negatives, the last
    ones, exchanged for those that score highest, of AMONG times as many drawn uniformly, or all
    there are. NOTE not in the paper, whose negatives are uniform: these are mostly far apart.

    score: pairs (P, 2) of items -> similarity (P,), of which equal ones count as drawn."""
    labels, nodes = integer_labels(labels).cpu(), len(labels)
    apart = (same == 0).nonzero()[:, 0]
    hard = apart[len(apart) - round(share * len(apart)) :]
    if not len(hard):
        return pairs, same
    staying = _checked_numbers(pairs[apart[: len(apart) - len(hard)]], nodes).sort().values
    sizes = labels.unique(return_counts=True)[1]
    total = nodes * (nodes - 1) // 2
    others = total - int((sizes * (sizes - 1) // 2).sum()) - len(staying)
    accept = lambda n: torch.ne(*labels[_pair_of(n)].T) & ~torch.isin(n, staying)
    drawn = _pair_of(_distinct(total, min(AMONG * len(hard), others), generator, accept))
    order = score(drawn).cpu().sort(descending=True, stable=True).indices
    exchanged = pairs.clone()
    exchanged[hard] = drawn[order[: len(hard)]]
    return exchanged, same


def split_edges(edges: Tensor, generator: Generator, share: float = 0.5) -> tuple[Tensor, Tensor]:
    """(E, 2) -> (messages, targets) at random: a share for message passing, the rest to predict."""
    order = torch.randperm(len(edges), generator=generator)
    cut = int(len(edges) * share)
    return edges[order[:cut]], edges[order[cut:]]


def _with_negatives(together: Tensor, nodes: int, generator, accept) -> tuple[Tensor, Tensor]:
    count = len(together)
    apart = _distinct(nodes * (nodes - 1) // 2, count, generator, accept)
    same = torch.cat([torch.ones(count), torch.zeros(count)])
    return torch.cat([together, _pair_of(apart)]), same


def _distinct(total: int, count: int, generator: Generator, accept=lambda n: n >= 0) -> Tensor:
    """`count` distinct numbers below `total` that `accept` lets through; there must be as many."""
    if total <= max(8 * count, 2**20):
        number = torch.randperm(total, generator=generator)
        return number[accept(number)][:count]
    kept = torch.empty(0, dtype=torch.int64)
    while len(kept) < count:
        drawn = torch.randint(total, (2 * count,), generator=generator)
        kept = torch.cat([kept, drawn[accept(drawn)]])
        value, place = kept.sort(stable=True)
        first = torch.ones_like(value, dtype=torch.bool)
        first[1:] = value[1:] != value[:-1]
        kept = kept[place[first].sort().values]  # of repeated draws the first: stays uniform
    return kept[:count]


def _pair_of(number: Tensor) -> Tensor:
    """The pairs i > j >= 0 in the order (1, 0), (2, 0), (2, 1), (3, 0) ...: (n,) -> (n, 2)."""
    larger = ((1 + (1 + 8 * number.double()).sqrt()) / 2).long()
    larger -= (larger * (larger - 1) // 2 > number).long()  # the root may have been rounded up
    return torch.stack([larger, number - larger * (larger - 1) // 2], dim=1)


def pair_numbers(pairs: Tensor) -> Tensor:
    """A number for each pair (P, 2) of two different items, whichever comes first: (P,), the
    inverse of `_pair_of`."""
    low, high = pairs.sort(dim=1).values.T
    return high * (high - 1) // 2 + low


def _checked_numbers(pairs: Tensor, nodes: int, name: str = "pairs") -> Tensor:
    check_pairs(pairs, nodes, name)
    twice = pairs[:, 0] == pairs[:, 1]
    if twice.any():
        raise ValueError(f"{name}: item {pairs[twice][0, 0]} is paired with itself")
    return pair_numbers(pairs.cpu().long())


def check_pairs(pairs: Tensor, nodes: int, name: str) -> None:
    """Raises ValueError unless they are (E, 2), numbers of so many nodes."""
    if pairs.ndim != 2 or pairs.shape[1] != 2:
        raise ValueError(f"{name} must be (E, 2), got shape {tuple(pairs.shape)}")
    if len(pairs) and (pairs.min() < 0 or pairs.max() >= nodes):
        given = f"got {pairs.min()} to {pairs.max()}"
        raise ValueError(f"{name} must lie between 0 and {nodes - 1}, {given}")


def _check_count(count: int, available: int, what: str) -> None:
    if not 1 <= count <= available:
        raise ValueError(f"{count} {what} are wanted, there are {available}")
