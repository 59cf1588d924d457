"""What the hashing methods share: a hash layer on a pooled backbone, and codes from its outputs."""
import torch
from torch import Tensor, nn

from .method import Method, pool


class HashMethod(Method):
    """A backbone, global average pooling and a linear hash layer with tanh: the u of FCAENet's eq. 2 and of its deep baselines.

    Args:
        backbone: images -> (B, C, h, w); `channels` is C.
        bits: k, length of a code.
    Raises:
        ValueError: fewer than one bit.
    """

    def __init__(self, backbone: nn.Module, bits: int, freeze_norm: bool = False):
        super().__init__(backbone, freeze_norm)
        if bits < 1:
            raise ValueError(f"bits is {bits}: a code has at least 1 bit")
        self.bits = bits
        self.hash_layer = nn.Linear(backbone.channels, bits)

    def describe(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, k) before the tanh."""
        return self.hash_layer(pool(self.backbone(images))).float()

    def embed(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> u (B, k) in -1 .. 1; `to_codes` of it are the codes."""
        return self.describe(images).tanh()


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
        raise ValueError(f"the hash outputs of {len(broken)} of {len(outputs)} images are not numbers, first image {int(broken[0])}: "
                         "the network has diverged; train with a lower lr")
    return torch.where(outputs >= 0, 1.0, -1.0)
