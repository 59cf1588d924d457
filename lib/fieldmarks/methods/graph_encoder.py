"""The graph encoder (GE) of PAN's fashion experiments: an item is seen with what it was worn with.

Cucurull et al., "Context-Aware Visual Compatibility Prediction", CVPR 2019 (CGAE), with the two
layers of 200 units of PAN's official code. The graph of a training set has an edge for every pair
of items that share an outfit; at test time each question has a small graph of its own (`Context`).
"""

import warnings
from collections import deque
from collections.abc import Sequence
from itertools import combinations, pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fieldmarks.checks import share
from fieldmarks.methods.pairs import check_pairs

Neighbours = list[list[int]]  # of every node, itself among them, lowest number first
Items = Sequence[int]
Edges = list[tuple[int, int]]


class Graph(NamedTuple):
    """A + I of an undirected graph in row order: row, column and edge are (n,) long, and both
    directions of an edge have the same number `edge`."""

    nodes: int
    row: Tensor
    column: Tensor
    edge: Tensor

    @classmethod
    def of(cls, edges: Tensor, nodes: int) -> "Graph":
        """From (E, 2) long, each edge in one direction or both, once or more often."""
        check_pairs(edges, nodes, "edges")
        loops = torch.arange(nodes, device=edges.device)[:, None].expand(-1, 2)
        low, high = torch.cat([edges, loops]).sort(dim=1).values.T
        key = (low * nodes + high).unique()
        low, high = key // nodes, key % nodes
        number, single = torch.arange(len(low), device=edges.device), low != high
        row, column = torch.cat([low, high[single]]), torch.cat([high, low[single]])
        order = (row * nodes + column).argsort()
        return cls(nodes, row[order], column[order], torch.cat([number, number[single]])[order])

    def support(self, dropout: float = 0.0, generator: torch.Generator | None = None) -> Tensor:
        """The row-normalised A + I as a sparse CSR matrix (N, N), after support dropout, which
        isolates a share of the nodes, then drops each edge that is left with this probability.
        NOTE as in both official codes the self-connection is an edge like others: where it is
        dropped too, a row is empty, and the node hears only itself, through the other support."""
        row, column = self.row, self.column
        if dropout:
            order = torch.randperm(self.nodes, generator=generator)
            isolated = torch.zeros(self.nodes, dtype=torch.bool)
            isolated[order[: int(self.nodes * dropout)]] = True
            kept = torch.rand(int(self.edge.max()) + 1, generator=generator) >= dropout
            isolated, kept = isolated.to(row.device), kept.to(row.device)
            kept = kept[self.edge] & ~isolated[row] & ~isolated[column]
            row, column = row[kept], column[kept]
        degree = torch.bincount(row, minlength=self.nodes)
        parts = F.pad(degree.cumsum(0), (1, 0)), column, 1 / degree[row], (self.nodes,) * 2
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta state")
            return torch.sparse_csr_tensor(*parts, check_invariants=False)

    def neighbours(self) -> Neighbours:
        degree = torch.bincount(self.row, minlength=self.nodes)
        return [column.tolist() for column in self.column.split(degree.tolist())]


def outfit_edges(outfits: Sequence[Sequence[int]]) -> Tensor:
    """Every two items that share an outfit, once, the lower number first: (E, 2) long."""
    pairs = [pair for outfit in outfits for pair in combinations(outfit, 2)]
    edges = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).sort(dim=1).values
    return edges[edges[:, 0] != edges[:, 1]].unique(dim=0)


class GraphEncoder(nn.Module):
    """Graph convolutions with two supports, the identity and the row-normalised A + I, of features
    with `dim` = d standardised dimensions. Dropout is that of each layer's input features, `hidden`
    the units of each layer (PAN: two of 200; CGAE: three of 350)."""

    def __init__(self, dim: int, hidden: Sequence[int] = (200, 200), dropout: float = 0.5):
        super().__init__()
        share(dropout=dropout)
        sizes = pairwise([dim, *hidden])
        self.layers = nn.ModuleList(GraphLayer(*size, dropout) for size in sizes)

    def forward(self, features: Tensor, support: Tensor | None = None, generator=None) -> Tensor:
        """(N, d) and a sparse (N, N) as of `Graph.support`, or no edges -> (N, hidden[-1])."""
        if support is None:
            alone = torch.empty(0, 2, dtype=torch.int64, device=features.device)
            support = Graph.of(alone, len(features)).support()  # the identity
        for layer in self.layers:
            features = layer(features, support, generator)
        return features


class GraphLayer(nn.Module):
    """BN(ReLU(H W_own + S H W_neighbours)), S being the row-normalised A + I."""

    def __init__(self, dim: int, units: int, dropout: float):
        super().__init__()
        self.own = nn.Linear(dim, units, bias=False)
        self.neighbours = nn.Linear(dim, units, bias=False)
        for linear in (self.own, self.neighbours):
            nn.init.xavier_uniform_(linear.weight)
        self.norm, self.dropout = nn.BatchNorm1d(units), dropout

    def forward(self, features: Tensor, support: Tensor, generator=None) -> Tensor:
        weight = torch.cat([self.own.weight, self.neighbours.weight])
        if self.training and self.dropout:
            kept = kept_features(features.shape, self.dropout, generator)
            features = features * kept.to(features.device)
            weight = weight / (1 - self.dropout)
        own, said = F.linear(features, weight).chunk(2, dim=1)
        with torch.autocast(features.device.type, enabled=False):  # sparse products are in float32
            return self.norm(F.relu(own + support @ said.to(support.dtype).contiguous()))


def kept_features(shape: torch.Size, dropout: float, generator=None) -> Tensor:
    """A random mask, False with probability `dropout` (to 1/65536): bernoulli_ is slow on CPUs."""
    four_each = torch.empty(-(-shape.numel() // 4), dtype=torch.int64)
    four_each.random_(-(2**63), None, generator=generator)
    threshold = min(round(dropout * 2**16), 2**16 - 1) - 2**15
    return (four_each.view(torch.int16)[: shape.numel()] >= threshold).view(shape)


class Standardise(nn.Module):
    """Features (..., d) to mean 0 and deviation 1 over the training set; constants to 0."""

    def __init__(self, dim: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("deviation", torch.ones(dim))

    def fit(self, features: Tensor) -> "Standardise":
        self.mean, deviation = features.mean(0), features.std(0, correction=0)
        self.deviation = torch.where(deviation > 0, deviation, 1.0)
        return self

    def forward(self, features: Tensor) -> Tensor:
        if features.shape[-1] != len(self.mean):
            there = f"features have {features.shape[-1]} dimensions, and this network is for "
            embedding = f"{len(self.mean)}: give it those of the embedding that it has learned from"
            raise ValueError(there + embedding)
        return (features - self.mean) / self.deviation


class Context(NamedTuple):
    """What the encoder may see of the graph for one question: node numbers in the large graph, and
    edges, outfit and choices as positions in this list."""

    items: list[int]
    edges: Edges
    outfit: list[int]
    choices: list[int]


def neighbourhood(neighbours: Neighbours, start: int, count: int, hidden=lambda u, v: False):
    """The first `count` edges of a breadth-first walk from `start`, lower neighbours first; an edge
    is met once, from the end that is visited first, a `hidden` one never."""
    edges, visited, queue = [], set(), deque([start])
    while queue and len(edges) < count:
        node = queue.popleft()
        if node in visited:
            continue
        visited.add(node)
        new = [v for v in neighbours[node] if v not in visited and not hidden(node, v)]
        edges += [(node, other) for other in new]
        queue += new
    return edges[:count]


def outfit_context(neighbours: Neighbours, outfit: Items, count: int) -> Context:
    """For scoring an outfit: `count` (K in the paper's code) edges about each item, none within.
    NOTE items of a made-up outfit keep all edges of the outfits that they come from, so that
    neighbours and degrees may tell which outfits are real: report K = 0 beside K = 1."""
    return _context(neighbours, outfit, [], outfit, count, [])


def question_context(neighbours: Neighbours, outfit: Items, choices: Items, count: int) -> Context:
    """For filling a blank: all edges within the outfit, `count` about each choice, none between."""
    within = [(u, v) for u, v in combinations(outfit, 2) if u != v]
    return _context(neighbours, outfit, choices, choices, count, within)


def _context(neighbours: Neighbours, outfit, choices, explored, count: int, edges) -> Context:
    inside, question = set(outfit), {*outfit, *choices}
    hidden = lambda u, v: (u in inside and v in question) or (v in inside and u in question)
    for item in dict.fromkeys(explored):
        edges = edges + neighbourhood(neighbours, item, count, hidden)
    items = list(dict.fromkeys([*outfit, *choices, *(node for edge in edges for node in edge)]))
    place = {item: position for position, item in enumerate(items)}
    edges = [(place[u], place[v]) for u, v in edges]
    return Context(items, edges, [place[i] for i in outfit], [place[i] for i in choices])


def embed_contexts(
    encoder: GraphEncoder, features: Tensor, contexts: Sequence[Context], batch: int = 1024
) -> tuple[Tensor, list[list[int]], list[list[int]]]:
    """Encode each question in a graph of its own, many in one sparse matrix: features (N, d) of all
    items -> embeddings (n, h) of the contexts' items, and each outfit and choices as rows of it. In
    training mode batch norm would not keep questions apart: a ValueError, as for no contexts."""
    if encoder.training:
        raise ValueError("the encoder is in training mode: call encoder.eval() first")
    if not contexts:
        raise ValueError("there are no contexts to embed")
    embeddings, outfits, choices, start = [], [], [], 0
    for part in (contexts[i : i + batch] for i in range(0, len(contexts), batch)):
        items, edges = [], []
        for context in part:
            edges += [(len(items) + u, len(items) + v) for u, v in context.edges]
            outfits.append([start + len(items) + i for i in context.outfit])
            choices.append([start + len(items) + i for i in context.choices])
            items += context.items
        edges = torch.tensor(edges, dtype=torch.int64).reshape(-1, 2).to(features.device)
        with torch.no_grad():
            embeddings.append(encoder(features[items], Graph.of(edges, len(items)).support()))
        start += len(items)
    return torch.cat(embeddings), outfits, choices
