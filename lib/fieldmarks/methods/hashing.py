"""What the hashing methods share: a hash layer on a pooled backbone, and codes from its outputs."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fieldmarks.checks import at_least, positive
from fieldmarks.methods.method import Method, pool

DIVERGED = "not numbers (the network has diverged: train with a lower lr)"


class HashMethod(Method):
    """Backbone, global average pooling, a linear hash layer and tanh: the u of FCAENet's eq. 2.

    A code has `bits` = k bits; hash_lr is the hash layer's learning rate as a multiple of the
    backbone's. feature_length: pooled features are brought to this length; 0 leaves them as they
    are, which is the paper's layer.
    NOTE the loss's curvature in the layer grows with the square of the pooled features' length,
    which is in the thousands: a learning rate that suits a trained backbone makes the layer
    saturate within a few steps, and one that suits the layer leaves the backbone as it is. And all
    cells gain by growing, the background's too, so that attention leaves the object. With features
    of one length neither happens, and one learning rate serves both."""

    def __init__(
        self,
        backbone: nn.Module,
        bits: int,
        *,
        freeze_norm: bool = False,
        hash_lr: float = 1.0,
        feature_length: float = 0.0,
    ):
        super().__init__(backbone, freeze_norm)
        at_least(1, bits=bits)
        at_least(0, feature_length=feature_length)
        positive(hash_lr=hash_lr)
        self.bits, self.rates = bits, {"hash_layer": (hash_lr, True)}
        self.feature_length = feature_length
        self.hash_layer = nn.Linear(backbone.channels, bits)

    def representation(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, k) before the tanh."""
        return self.hash(self.backbone(images))

    def hash(self, features: Tensor) -> Tensor:
        """The layer of feature maps (B, C, h, w): (B, k) before the tanh."""
        pooled = pool(features)  # (B, C)
        if self.feature_length:
            pooled = self.feature_length * F.normalize(pooled.float(), dim=1)
        return self.hash_layer(pooled).float()

    def embed(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> u (B, k) in -1 .. 1; `to_codes` of it are the codes."""
        return self.representation(images).tanh()


def to_codes(outputs: Tensor) -> Tensor:
    """Codes (N, k) float32 of -1/+1 from hash outputs (N, k), of which 0 counts as +1. Raises
    ValueError where an output is not a number; the first image is named."""
    broken = outputs.isnan().any(1).nonzero().flatten().tolist()
    if broken:
        images = f"{len(broken)} of {len(outputs)} images"
        raise ValueError(f"the hash outputs of {images} are {DIVERGED}, first image {broken[0]}")
    return torch.where(outputs >= 0, 1.0, -1.0)
