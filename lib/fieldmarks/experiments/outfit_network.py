"""Similarity of garments worn together: an encoder of frozen features, a head, and how both are trained on a graph."""

import copy
from collections.abc import Callable, Sequence
from itertools import combinations
from time import perf_counter

import torch
from torch import Tensor, nn

from fieldmarks.methods.attribute_baselines import (
    AttributeSimilarityHead,
    MultitaskHead,
    PlainSimilarity,
)
from fieldmarks.methods.graph_encoder import (
    Context,
    Graph,
    GraphEncoder,
    Standardise,
    embed_contexts,
)
from fieldmarks.methods.pairs import pairs_from_edges, split_edges
from fieldmarks.methods.pan import SimilarityHead
from fieldmarks.progress import choose_mode, counter
from fieldmarks.random import seeded
from fieldmarks.training import DTYPES, History, LossWatch

METHODS = (
    "pan_unsupervised",
    "pan_supervised",
    "pan_hybrid",
    "multitask",
    "attribute_similarity",
    "plain",
    "cosine",
)
WITH_ATTRIBUTES = ("pan_supervised", "pan_hybrid", "multitask", "attribute_similarity")
ENCODERS = ("graph", "linear", "none")
CHUNK = 2**12  # pairs at a time: what the head makes of them stays in the cache


class OutfitNetwork(nn.Module):
    """Standardised features -> encoder -> similarity of two items.

    Args:
        method: one of METHODS; "plain" is Cucurull et al.'s one similarity without concepts or attributes, "cosine" has no
            encoder and nothing to learn.
        dim: d, features of an item.  attributes: A.
        encoder: "graph", "linear" (one layer, which sees the item alone) or "none".
        hidden, dropout: of the graph encoder; "linear" has the last of `hidden` units.
        concepts: free ones of pan_unsupervised and pan_hybrid.
        none_slot, rule, weight: as `SimilarityHead`; the weight is that of the attribute term of every method.
    """

    def __init__(
        self,
        method: str,
        dim: int,
        attributes: int,
        *,
        encoder: str = "graph",
        hidden: Sequence[int] = (200, 200),
        dropout: float = 0.5,
        concepts: int = 50,
        none_slot: bool = True,
        rule: str = "or",
        weight: float = 1.0,
    ):
        super().__init__()
        self.standardise, self.encoder, self.head = (
            Standardise(dim),
            nn.Identity(),
            nn.CosineSimilarity(dim=-1),
        )
        if method == "cosine":
            return
        if encoder == "graph":
            self.encoder, dim = GraphEncoder(dim, hidden, dropout), hidden[-1]
        elif encoder == "linear":
            self.encoder, dim = nn.Linear(dim, hidden[-1]), hidden[-1]
        if method == "multitask":
            self.head = MultitaskHead(dim, attributes, weight=weight)
        elif method == "attribute_similarity":
            self.head = AttributeSimilarityHead(dim, attributes, weight=weight)
        elif method == "plain":
            self.head = PlainSimilarity(dim)
        elif method == "pan_unsupervised":
            self.head = SimilarityHead(dim, free=concepts)
        else:
            self.head = SimilarityHead(
                dim,
                attributes=attributes,
                free=concepts if method == "pan_hybrid" else 0,
                none_slot=none_slot,
                rule=rule,
                weight=weight,
            )

    @property
    def sees_graph(self) -> bool:
        return isinstance(self.encoder, GraphEncoder)

    @property
    def learns(self) -> bool:
        return not isinstance(self.head, nn.CosineSimilarity)

    def encode(
        self,
        features: Tensor,
        support: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Standardised features (N, d) -> (N, h). Without a support every item is seen alone."""
        if not self.sees_graph:
            return self.encoder(features)
        return self.encoder(
            features,
            no_edges(len(features), features.device) if support is None else support,
            generator,
        )

    def score(self, a: Tensor, b: Tensor) -> Tensor:
        """Encoded items (..., h) twice -> similarity (...,)."""
        return self.head.score(a, b) if self.learns else self.head(a, b)

    @torch.no_grad()
    def encode_contexts(
        self, features: Tensor, contexts: Sequence[Context]
    ) -> tuple[Tensor, list[list[int]], list[list[int]]]:
        """Encoded items of questions, and each question's outfit and choices as rows of them; see `embed_contexts`."""
        if self.sees_graph:
            return embed_contexts(self.encoder, features, contexts)
        at = [([c.items[i] for i in c.outfit], [c.items[i] for i in c.choices]) for c in contexts]
        return self.encode(features), *map(list, zip(*at))


def no_edges(nodes: int, device: torch.device | str = "cpu") -> Tensor:
    """The support of a graph without edges: the identity."""
    return Graph.of(torch.empty(0, 2, dtype=torch.int64, device=device), nodes).support()


def outfit_edges(outfits: Sequence[Sequence[int]]) -> Tensor:
    """Every two items that share an outfit, once, the lower number first: (E, 2) long."""
    pairs = [pair for outfit in outfits for pair in combinations(outfit, 2)]
    edges = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).sort(dim=1).values
    return edges[edges[:, 0] != edges[:, 1]].unique(dim=0)


def fit(
    network: OutfitNetwork,
    features: Tensor,
    edges: Tensor,
    labels: Tensor | None,
    *,
    steps: int,
    lr: float,
    weight_decay: float = 0.0,
    message_share: float = 0.5,
    support_dropout: float = 0.15,
    evaluate: Callable[[], dict[str, float]],
    evaluate_every: int,
    monitor: str,
    seed: int,
    precision: str = "fp32",
    progress: str = "none",
) -> History:
    """Train in place, every step on the whole graph; the network then holds the weights that were best by `monitor`, the
    earliest of equals.

    Args:
        features: (N, d), standardised, of the training items, on the device of the network.
        edges: (E, 2) of them that share an outfit, as `outfit_edges`.
        labels: (N, A) attributes of 0, 1 and NaN, or None where the method looks at none.
        message_share: of the edges, drawn once, that a graph encoder is shown and that are not learnt from; other encoders
            learn from all edges.
        evaluate: metrics of the network as it is, on validation data.

    Raises:
        Diverged: the loss is no longer a number.  ValueError: too few edges.
    """
    device, nodes = features.device, len(features)
    messages, targets = split_edges(
        edges, seeded(seed, 30), message_share if network.sees_graph else 0.0
    )
    if not len(targets):
        raise ValueError(
            f"{len(edges)} edges, a share of {message_share} of which are shown, leave none to learn from"
        )
    pairs, same = pairs_from_edges(targets, nodes, seeded(seed, 31), known=messages)
    pairs, same = pairs.to(device), same.to(device)
    graph = Graph.of(messages.to(device), nodes) if network.sees_graph else None
    optimizer = torch.optim.Adam(network.parameters(), lr=lr, weight_decay=weight_decay)
    history, watch, best, mode = History(), LossWatch(), None, choose_mode(progress)
    count = counter("steps", "bar" if mode == "bar" else "none")
    for number in range(1, steps + 1):
        began = perf_counter()
        watch.add(
            number,
            step(
                network,
                optimizer,
                features,
                graph,
                pairs,
                same,
                labels,
                seeded(seed, 32, number),
                support_dropout,
                precision,
            ),
        )
        history.seconds += perf_counter() - began
        history.images += nodes
        count(number, steps)
        if number % evaluate_every and number < steps:
            continue
        watch.check()
        row, watch = {"epoch": number, **watch.means(), "lr": lr}, LossWatch(first=watch.first)
        measured = evaluate()
        history.epochs.append(row)
        history.evaluations.append({"epoch": number, **measured})
        if best is None or measured[monitor] > best[0]:
            best = measured[monitor], copy.deepcopy(network.state_dict())
        if mode == "lines":
            shown = {
                name: value
                for name, value in {**row, **measured}.items()
                if name not in ("epoch", "lr")
            }
            print(
                f"step {number:5d}/{steps}  "
                + "  ".join(f"{name} {value:.4f}" for name, value in shown.items()),
                flush=True,
            )
    if best is not None:
        network.load_state_dict(best[1])
    network.eval()
    return history


def step(
    network: OutfitNetwork,
    optimizer: torch.optim.Optimizer,
    features: Tensor,
    graph: Graph | None,
    pairs: Tensor,
    same: Tensor,
    labels: Tensor | None,
    generator: torch.Generator,
    support_dropout: float,
    precision: str = "fp32",
) -> dict[str, Tensor]:
    """One step on all pairs, CHUNK at a time: the encoder runs once, and the head's gradients are added up behind it.

    Returns:
        the terms of the loss, means over all pairs.
    """
    network.train()
    optimizer.zero_grad(set_to_none=True)
    autocast = {
        "device_type": features.device.type,
        "dtype": DTYPES[precision],
        "enabled": precision != "fp32",
    }
    with torch.autocast(**autocast):
        encoded = network.encode(
            features, graph and graph.support(support_dropout, generator), generator
        )
    items, terms = encoded.detach(), {}
    gradient = torch.zeros_like(items)
    for part, target in zip(pairs.split(CHUNK), same.split(CHUNK)):
        ends = part.T.flatten()
        both = items[ends].requires_grad_()
        seen = () if labels is None else labels[ends].chunk(2)
        with torch.autocast(**autocast):
            found = network.head.losses(*both.chunk(2), target, *seen)
        share = len(part) / len(
            pairs
        )  # every term is a mean over pairs, so those of the chunks add up to that of all
        (share * sum(found.values())).backward()
        gradient.index_add_(0, ends, both.grad)
        for name, value in found.items():
            terms[name] = terms.get(name, 0.0) + share * value.detach()
    if encoded.requires_grad:
        encoded.backward(gradient)
    optimizer.step()
    return terms
