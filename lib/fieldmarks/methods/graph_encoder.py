"""The graph encoder (GE) of PAN's fashion experiments: items are seen together with the items that they have been worn with.

Cucurull et al., "Context-Aware Visual Compatibility Prediction", CVPR 2019 (CGAE), with the two layers of 200 units of PAN's
official code. A layer adds up what an item says itself and the mean of what its neighbours and it say. The graph of a training
set has an edge for every pair of items that share an outfit; at test time each question comes with a small graph of its own
(`Context`).
"""

import warnings
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Graph(NamedTuple):
    """An undirected graph with a self-connection at every node: A + I, as coordinates in row order.

    row, column, edge: (n,) long; `edge` numbers the undirected edges, so that both directions of one bear the same number.
    """

    nodes: int
    row: Tensor
    column: Tensor
    edge: Tensor

    @classmethod
    def of(cls, edges: Tensor, nodes: int) -> "Graph":
        """(E, 2) long, each edge in one direction or both, once or more often -> the graph.

        Raises:
            ValueError: not (E, 2), or a node out of range.
        """
        if edges.ndim != 2 or edges.shape[1] != 2:
            raise ValueError(f"edges must be (E, 2), got shape {tuple(edges.shape)}")
        if len(edges) and (edges.min() < 0 or edges.max() >= nodes):
            raise ValueError(
                f"edges must lie between nodes 0 and {nodes - 1}, got {edges.min()} to {edges.max()}"
            )
        loops = torch.arange(nodes, device=edges.device)[:, None].expand(-1, 2)
        low, high = torch.cat([edges, loops]).sort(dim=1).values.T
        key = (low * nodes + high).unique()
        low, high = key // nodes, key % nodes
        number, single = torch.arange(len(low), device=edges.device), low != high
        row, column = torch.cat([low, high[single]]), torch.cat([high, low[single]])
        order = (row * nodes + column).argsort()
        return cls(nodes, row[order], column[order], torch.cat([number, number[single]])[order])

    def support(self, dropout: float = 0.0, generator: torch.Generator | None = None) -> Tensor:
        """The row-normalised A + I as a sparse CSR matrix (N, N), after support dropout.

        Support dropout isolates a share `dropout` of the nodes, then drops each edge that is left with that probability. NOTE
        as in both official codes the self-connection is an edge like others: where it is dropped too, a row stays empty, and
        the node hears only what it says itself through the other support, the identity.
        """
        row, column = self.row, self.column
        if dropout:
            isolated = torch.zeros(self.nodes, dtype=torch.bool)
            isolated[
                torch.randperm(self.nodes, generator=generator)[: int(self.nodes * dropout)]
            ] = True
            kept = torch.rand(int(self.edge.max()) + 1, generator=generator) >= dropout
            isolated, kept = isolated.to(row.device), kept.to(row.device)
            kept = kept[self.edge] & ~isolated[row] & ~isolated[column]
            row, column = row[kept], column[kept]
        degree = torch.bincount(row, minlength=self.nodes)
        starts = F.pad(degree.cumsum(0), (1, 0))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta state")
            return torch.sparse_csr_tensor(
                starts, column, 1 / degree[row], (self.nodes, self.nodes), check_invariants=False
            )

    def neighbours(self) -> "Neighbours":
        ends = torch.bincount(self.row, minlength=self.nodes).cumsum(0)
        return Neighbours([0, *ends.tolist()], self.column.tolist())


class Neighbours(NamedTuple):
    """A graph for walking: node i has the neighbours column[start[i]:start[i + 1]], itself among them, lowest first."""

    start: list[int]
    column: list[int]

    def of(self, node: int) -> list[int]:
        return self.column[self.start[node] : self.start[node + 1]]


class GraphEncoder(nn.Module):
    """Graph convolutions with two supports, the identity and the row-normalised A + I, each followed by ReLU, then batch norm.

    Args:
        dim: of the input features, standardised (`Standardise`).
        hidden: units of each layer. PAN: two of 200; CGAE: three of 350.
        dropout: of each layer's input features, in training.
    """

    def __init__(self, dim: int, hidden: Sequence[int] = (200, 200), dropout: float = 0.5):
        super().__init__()
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout is {dropout}: it must lie between 0 and 1, as 0.5")
        self.layers = nn.ModuleList(
            GraphLayer(*size, dropout) for size in zip([dim, *hidden], hidden)
        )

    def forward(
        self, features: Tensor, support: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """(N, d) and a sparse (N, N) as of `Graph.support` -> (N, hidden[-1]). `generator`: of the dropout, on the CPU."""
        for layer in self.layers:
            features = layer(features, support, generator)
        return features


class GraphLayer(nn.Module):
    """BN(ReLU(H W_own + S H W_neighbours)), S being the row-normalised A + I."""

    def __init__(self, dim: int, units: int, dropout: float):
        super().__init__()
        self.own, self.neighbours = (
            nn.Linear(dim, units, bias=False),
            nn.Linear(dim, units, bias=False),
        )
        for linear in (self.own, self.neighbours):
            nn.init.xavier_uniform_(linear.weight)
        self.norm, self.dropout = nn.BatchNorm1d(units), dropout

    def forward(
        self, features: Tensor, support: Tensor, generator: torch.Generator | None
    ) -> Tensor:
        weight = torch.cat([self.own.weight, self.neighbours.weight])
        if self.training and self.dropout:
            features = features * kept_features(features.shape, self.dropout, generator).to(
                features.device
            )
            weight = weight / (1 - self.dropout)
        own, said = F.linear(features, weight).chunk(2, dim=1)
        with torch.autocast(features.device.type, enabled=False):  # sparse products are in float32
            return self.norm(F.relu(own + support @ said.to(support.dtype).contiguous()))


def kept_features(
    shape: torch.Size, dropout: float, generator: torch.Generator | None = None
) -> Tensor:
    """A random mask, each value False with probability `dropout` (to 1/65536). Five times as fast as bernoulli_ on CPUs."""
    words = torch.empty(-(-shape.numel() // 4), dtype=torch.int64).random_(
        -(2**63), None, generator=generator
    )
    threshold = min(round(dropout * 2**16), 2**16 - 1) - 2**15
    return (words.view(torch.int16)[: shape.numel()] >= threshold).view(shape)


class Standardise(nn.Module):
    """Features to mean 0 and deviation 1 in every dimension of the training set; a constant dimension only loses its mean."""

    def __init__(self, dim: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("deviation", torch.ones(dim))

    def fit(self, features: Tensor) -> "Standardise":
        self.mean, deviation = features.mean(0), features.std(0, correction=0)
        self.deviation = torch.where(deviation > 0, deviation, 1.0)
        return self

    def forward(self, features: Tensor) -> Tensor:
        return (features - self.mean) / self.deviation


# --- the graphs of test questions -------------------------------------------------------------------------------------


class Context(NamedTuple):
    """What the encoder may see of the graph for one question.

    items: node numbers in the large graph; the other fields are positions in this list.
    edges: pairs of positions.  outfit, choices: positions of the question's items.
    """

    items: list[int]
    edges: list[tuple[int, int]]
    outfit: list[int]
    choices: list[int]


def neighbourhood(
    neighbours: Neighbours,
    start: int,
    count: int,
    hidden: Callable[[int, int], bool] = lambda u, v: False,
) -> list[tuple[int, int]]:
    """The first `count` edges that a breadth-first walk from `start` meets, neighbours of lower number first.

    An edge is met once, from the end that is visited first; edges that `hidden` names are not there.
    """
    found, visited, queue = [], set(), deque([start])
    while queue and len(found) < count:
        node = queue.popleft()
        if node in visited:
            continue
        visited.add(node)
        for other in neighbours.of(node):
            if other not in visited and not hidden(node, other) and len(found) < count:
                found.append((node, other))
                queue.append(other)
    return found


def outfit_context(neighbours: Neighbours, outfit: Sequence[int], count: int) -> Context:
    """For scoring a whole outfit: `count` edges about each of its items (K in the paper's code), none within the outfit.

    NOTE only edges within this outfit are hidden. Items of a made-up outfit keep all edges of the outfits that they come from,
    so that neighbours and degrees may tell which outfits are real: report K = 0, where nothing is seen, beside K = 1.
    """
    return _context(neighbours, outfit, [], outfit, count, [])


def question_context(
    neighbours: Neighbours, outfit: Sequence[int], choices: Sequence[int], count: int
) -> Context:
    """For filling a blank: all edges within the outfit, and `count` edges about each choice, none to the outfit."""
    within = [(u, v) for i, u in enumerate(outfit) for v in outfit[i + 1 :] if u != v]
    return _context(neighbours, outfit, choices, choices, count, within)


def _context(
    neighbours: Neighbours, outfit, choices, explored, count: int, edges: list[tuple[int, int]]
) -> Context:
    inside, asked = set(outfit), {*outfit, *choices}

    def hidden(u: int, v: int) -> bool:
        return (u in inside and v in asked) or (v in inside and u in asked)

    for item in dict.fromkeys(explored):
        edges = edges + neighbourhood(neighbours, item, count, hidden)
    items = list(dict.fromkeys([*outfit, *choices, *(node for edge in edges for node in edge)]))
    place = {item: position for position, item in enumerate(items)}
    return Context(
        items,
        [(place[u], place[v]) for u, v in edges],
        [place[i] for i in outfit],
        [place[i] for i in choices],
    )


def embed_contexts(
    encoder: GraphEncoder, features: Tensor, contexts: Sequence[Context], batch: int = 1024
) -> tuple[Tensor, list[list[int]], list[list[int]]]:
    """Encode every question in a graph of its own, many questions in one sparse matrix.

    Args:
        encoder: in eval mode, where batch norm keeps questions apart.
        features: (N, d), of all items.

    Returns:
        embeddings (n, h) of the items of one context after another, and the outfit and the choices of each as rows of it.

    Raises:
        ValueError: the encoder is in training mode, or there are no contexts.
    """
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
        graph = Graph.of(
            torch.tensor(edges, dtype=torch.int64).reshape(-1, 2).to(features.device), len(items)
        )
        with torch.no_grad():
            embeddings.append(encoder(features[items], graph.support()))
        start += len(items)
    return torch.cat(embeddings), outfits, choices
