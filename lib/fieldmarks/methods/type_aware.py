"""Type-aware embeddings (the TAN row of PAN's Table 1): whether a top goes with shoes is asked in
another subspace than whether it goes with a bag.

Vasileva et al., Learning Type-Aware Embeddings for Fashion Compatibility, ECCV 2018. NOTE without
the paper's losses on the texts of items, which the data sets here need not have."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fieldmarks.methods.graph_encoder import Context
from fieldmarks.methods.method import Method, pool

MARGIN, NORMS = 0.3, 5e-4  # of triplets, and the weight of the norms: of the official program
EPSILON = 1e-12  # under the root of a distance, whose gradient at 0 is none


class TypeAware(Method):
    """A general embedding, and for each pair of types a mask that is multiplied with it.

    Args:
        types: T, kinds of items.  dimensions: of the embedding."""

    learns, sees_graph = True, False
    rates = {"masks": (1.0, False)}

    def __init__(self, backbone: nn.Module, types: int, *, dimensions: int = 64):
        super().__init__(backbone)
        self.project = nn.Linear(backbone.channels, dimensions)
        self.types = types
        self.masks = nn.Parameter(0.9 + 0.7 * torch.randn(types, types, dimensions))

    def representation(self, images: Tensor) -> Tensor:
        return self.project(pool(self.backbone(images))).float()

    def masks_of(self, types: Tensor) -> Tensor:
        """Of pairs of types (..., 2), the same for both orders: (..., D)."""
        low, high = types.sort(dim=-1).values.unbind(-1)
        return self.masks[low, high]

    def apart(self, a: Tensor, b: Tensor, types: Tensor) -> Tensor:
        """Distance in [0, 2] of embeddings (..., D) twice in the subspaces of their types (..., 2):
        masked, brought to unit length. (...,)"""
        mask = self.masks_of(types)
        sides = (F.normalize(side * mask, dim=-1) for side in (a, b))
        return torch.sub(*sides).square().sum(-1).clamp(min=EPSILON).sqrt()

    def losses(self, images: Tensor, positives: Tensor, negatives: Tensor, types: Tensor) -> dict:
        """Of items (B, 3, H, W), others that they are worn with, others still of these types, and
        the types (B, 2) of the first two: a triplet's hinge, the L1 norm of the masks and the L2
        norm of the embeddings."""
        embedded = self.representation(torch.cat([images, positives, negatives]))
        item, worn, other = embedded.chunk(3)
        hinge = self.apart(item, worn, types) - self.apart(item, other, types) + MARGIN
        masks = self.masks_of(types).abs().sum(1).mean() / len(images)
        lengths = embedded.norm(dim=1).mean()
        return {"triplet": hinge.relu().mean(), "norms": NORMS * (masks + lengths)}

    # What outfits are scored with: items as (n, D + 1), the embedding and, last, the type.

    def encode_contexts(self, items: Tensor, contexts: Sequence[Context]) -> tuple:
        """As `PairNetwork.encode_contexts`: items as they are, for each is seen alone."""
        outfits = [[c.items[i] for i in c.outfit] for c in contexts]
        return items, outfits, [[c.items[i] for i in c.choices] for c in contexts]

    def score(self, a: Tensor, b: Tensor) -> Tensor:
        """Similarity in [0, 1] of items (..., D + 1) twice: 1 - half the distance, so that a mean
        over pairs ranks as the mean distance does. (...,)"""
        types = torch.stack([a[..., -1], b[..., -1]], dim=-1).long()
        return 1 - self.apart(a[..., :-1], b[..., :-1], types) / 2
