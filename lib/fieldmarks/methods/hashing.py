"""What the hashing methods share: a hash layer on a pooled backbone, and codes from its outputs."""

import torch
from torch import Tensor, nn

from fieldmarks.methods.method import Method, pool


class HashMethod(Method):
    """A backbone, global average pooling and a linear hash layer with tanh: the u of FCAENet's eq. 2 and of its deep baselines.

    Args:
        backbone: images -> (B, C, h, w); `channels` is C.
        bits: k, length of a code.
        hash_lr: learning rate of the hash layer as a multiple of the backbone's.
    Raises:
        ValueError: fewer than one bit, a learning rate that is not positive.

    NOTE the loss's curvature in the hash layer grows with the square of the pooled features' length, which is in the thousands:
    a learning rate that suits a trained backbone makes the layer saturate within a few steps, and one that suits the layer leaves
    the backbone as it is.
    """

    def __init__(
        self, backbone: nn.Module, bits: int, freeze_norm: bool = False, hash_lr: float = 1.0
    ):
        super().__init__(backbone, freeze_norm)
        if bits < 1:
            raise ValueError(f"bits is {bits}: a code has at least 1 bit")
        if hash_lr <= 0:
            raise ValueError(f"hash_lr is {hash_lr}: it must be positive")
        self.bits, self.hash_lr = bits, hash_lr
        self.hash_layer = nn.Linear(backbone.channels, bits)

    def describe(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, k) before the tanh."""
        return self.hash_layer(pool(self.backbone(images))).float()

    def embed(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> u (B, k) in -1 .. 1; `to_codes` of it are the codes."""
        return self.describe(images).tanh()

    def parameter_groups(self, lr: float, weight_decay: float) -> list[dict]:
        layer = {id(p) for p in self.hash_layer.parameters()}
        groups = []
        for group in super().parameter_groups(lr, weight_decay):
            inside = [p for p in group["params"] if id(p) in layer]
            groups += [
                group | {"params": [p for p in group["params"] if id(p) not in layer]},
                group | {"params": inside, "lr": lr * self.hash_lr},
            ]
        return groups


def to_codes(outputs: Tensor) -> Tensor:
    """The binary codes of hash outputs: +1 where an output is at least 0, else -1.

    Args:
        outputs: (N, k) real.
    Returns:
        (N, k) float32 of -1/+1.
    Raises:
        ValueError: an output is not a number; the first image is named.

    NOTE sign(0) would be 0, which is no bit: it counts as +1.
    """
    broken = outputs.isnan().any(1).nonzero().flatten()
    if len(broken):
        raise ValueError(
            f"the hash outputs of {len(broken)} of {len(outputs)} images are not numbers, first image {int(broken[0])}: "
            "the network has diverged; train with a lower lr"
        )
    return torch.where(outputs >= 0, 1.0, -1.0)
