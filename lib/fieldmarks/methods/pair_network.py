"""Similarity of two items from their features: an encoder, a head on pairs, and their loss."""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fieldmarks.checks import one_of
from fieldmarks.methods import attribute_baselines as baselines
from fieldmarks.methods.graph_encoder import Context, GraphEncoder, Standardise, embed_contexts
from fieldmarks.methods.method import Method
from fieldmarks.methods.pan import PAN, Rule

CHUNK = 4096  # pairs at a time: what the head makes of them stays in the cache


class PairNetwork(Method):
    """Standardised features -> encoder -> similarity of two items. It has no backbone.

    Args:
        method: "pan_supervised", "pan_unsupervised", "pan_hybrid", "multitask",
            "attribute_similarity", "plain", or "cosine", which has nothing to learn.
        dim: d, features of an item.  attributes: A.  hidden, dropout: as `GraphEncoder`.
        encoder: "linear" is one layer, which sees the item alone, of the last of `hidden` units.
        free, none_slot, rule, attribute_weight: as `PAN`; the weight is that of every method.
        relevance_weight: as `PAN`.
        cosine_weight: as `PAN`, of the cosine of two items' features as they come to the encoder,
            which stand after the encoded ones. ValueError with the graph encoder: what goes well
            together need not be alike. Methods without concepts leave it out."""

    def __init__(
        self,
        method: str,
        dim: int,
        attributes: int,
        *,
        encoder: Literal["graph", "linear", "none"] = "graph",
        hidden: tuple[int, ...] = (200, 200),
        dropout: float = 0.5,
        free: int = 50,
        none_slot: bool = True,
        rule: Rule = "or",
        attribute_weight: float = 1.0,
        relevance_weight: float = 0.0,
        cosine_weight: float = 0.0,
    ):
        super().__init__(backbone=None)
        self.by_cosine = cosine_weight > 0 and method.startswith("pan_")
        if self.by_cosine and encoder == "graph":
            raise ValueError(f"cosine_weight is {cosine_weight:g}, and the encoder sees a graph: 0")
        mended = {"cosine_weight": cosine_weight, "cosine_dim": dim} if self.by_cosine else {}
        mended |= {"relevance_weight": relevance_weight}
        weighted = {"attributes": attributes, "attribute_weight": attribute_weight}
        supervised = {"none_slot": none_slot, "rule": rule, **weighted}
        heads = {
            "pan_supervised": lambda: PAN(dim, **supervised, **mended),
            "pan_unsupervised": lambda: PAN(dim, free=free, **mended),
            "pan_hybrid": lambda: PAN(dim, free=free, **supervised, **mended),
            "multitask": lambda: baselines.MultitaskHead(dim, **weighted),
            "attribute_similarity": lambda: baselines.AttributeSimilarityHead(dim, **weighted),
            "plain": lambda: baselines.PlainSimilarity(dim),
            "cosine": lambda: nn.CosineSimilarity(dim=-1),
        }
        one_of("method", method, heads)
        one_of("encoder", encoder, ("graph", "linear", "none"))
        self.trains = self.learns = method != "cosine"
        self.sees_graph = self.learns and encoder == "graph"
        self.standardise, self.encoder = Standardise(dim), nn.Identity()
        if self.sees_graph:
            self.encoder, dim = GraphEncoder(dim, hidden, dropout), hidden[-1]
        elif self.learns and encoder == "linear":
            self.encoder, dim = nn.Linear(dim, hidden[-1]), hidden[-1]
        self.head = heads[method]()

    def encode(self, features: Tensor, support: Tensor | None = None, generator=None) -> Tensor:
        """Standardised features (N, d) -> (N, h). Without a support every item is seen alone. With
        a `cosine_weight` the features themselves, of unit length, follow: h + d."""
        encoded = self.encoder(features, *([support, generator] if self.sees_graph else []))
        if not self.by_cosine:
            return encoded
        return torch.cat([encoded, F.normalize(features, dim=-1).to(encoded.dtype)], dim=-1)

    embed = encode

    def score(self, a: Tensor, b: Tensor) -> Tensor:
        """Encoded items (..., h) twice -> similarity (...,)."""
        return self.head.score(a, b) if self.learns else self.head(a, b)

    @torch.no_grad()
    def encode_contexts(self, features: Tensor, contexts: Sequence[Context]) -> tuple:
        """`embed_contexts`; an encoder that sees items alone encodes each of them once."""
        if self.sees_graph:
            return embed_contexts(self.encoder, features, contexts)
        outfits = [[c.items[i] for i in c.outfit] for c in contexts]
        return self.encode(features), outfits, [[c.items[i] for i in c.choices] for c in contexts]

    def losses(self, features: Tensor, pairs, same, attributes=None, support=None, generator=None):
        """The head's terms, means over all P pairs, of standardised features (N, d), pairs (P, 2)
        of items, same (P,) of 1 and 0, attributes (N, A) of 0, 1 and NaN for unknown.
        The encoder runs once, the head on CHUNK pairs at a time, whose gradients are taken there
        and then, so that memory is that of one chunk. NOTE they are those of the terms' sum, which
        the first term carries: minimise the sum, and weigh terms by `attribute_weight` only."""
        encoded, learning = self.encode(features, support, generator), torch.is_grad_enabled()
        parameters = [p for p in self.head.parameters() if p.requires_grad]
        items, terms = encoded.detach(), {}
        gradients = [torch.zeros_like(tensor) for tensor in (items, *parameters)]
        for part, target in zip(pairs.split(CHUNK), same.split(CHUNK), strict=True):
            ends, share = part.T.flatten(), len(part) / len(pairs)
            both = items[ends].requires_grad_(learning)
            known = () if attributes is None else attributes[ends].chunk(2)
            of_part = self.head.losses(*both.chunk(2), target, *known)
            for name, value in of_part.items():
                terms[name] = terms.get(name, 0.0) + share * value.detach()
            if learning:
                total = share * sum(of_part.values())
                of_ends, *of_head = torch.autograd.grad(total, [both, *parameters])
                gradients[0].index_add_(0, ends, of_ends)
                for gradient, more in zip(gradients[1:], of_head, strict=True):
                    gradient += more
        if learning:  # adds zero, whose gradients are these
            held = zip([encoded, *parameters], gradients, strict=True)
            carrier = sum((tensor * gradient).sum() for tensor, gradient in held)
            first = next(iter(terms))
            terms[first] = terms[first] + (carrier - carrier.detach())
        return terms

    def parameter_groups(self, lr: float, weight_decay: float) -> list[dict]:  # all decay
        return [{"params": list(self.parameters()), "lr": lr, "weight_decay": weight_decay}]
