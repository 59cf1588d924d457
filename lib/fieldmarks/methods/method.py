"""What the training loop sees of a method."""

import torch
import torch.distributed
import torch.distributed.nn
import torch.nn.functional as F
from torch import Tensor, nn


class Method(nn.Module):
    """A backbone, what is trained on top of it, and the terms of its loss.

    A batch has `images` (B, 3, H, W) normalised, `labels` (B,) and `draw(sample)`, which calls `sample(n, generator)` for the whole
    batch and returns this process's rows of it: all of a method's randomness, so that resumed and distributed runs agree.
    """

    trains = True

    def __init__(self, backbone: nn.Module, freeze_norm: bool = False):
        super().__init__()
        self.backbone, self.freeze_norm = backbone, freeze_norm

    def losses(self, batch) -> dict[str, Tensor]:
        """Named scalar terms; their sum is minimised."""
        raise NotImplementedError

    def embed(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, D), of unit length. All that runs at test time."""
        return F.normalize(self.describe(images), dim=1)

    def describe(self, images: Tensor) -> Tensor:
        """The embedding before it is brought to unit length: global average pooling of the feature map."""
        return pool(self.backbone(images)).float()

    def after_step(self) -> None:
        """Called after each optimiser step: running means, schedules."""

    def forward(self, batch) -> dict[str, Tensor]:
        # DistributedDataParallel averages gradients of what goes through forward().
        return self.losses(batch)

    def train(self, mode: bool = True):
        super().train(mode)
        if self.freeze_norm:
            for module in self.backbone.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    def parameter_groups(self, lr: float, weight_decay: float) -> list[dict]:
        """Parameters with their learning rate and decay; one-dimensional ones (biases, normalisation) do not decay."""
        trained = [p for p in self.parameters() if p.requires_grad]
        return [
            {"params": [p for p in trained if p.dim() > 1], "lr": lr, "weight_decay": weight_decay},
            {"params": [p for p in trained if p.dim() <= 1], "lr": lr, "weight_decay": 0.0},
        ]


def pool(features: Tensor) -> Tensor:
    """g in the papers, global average pooling: (..., C, h, w) -> (..., C)."""
    return features.mean((-2, -1))


def gather(values: Tensor) -> Tensor:
    """The rows of every process, in order of rank, with gradients; unchanged in a single process.

    For losses over pairs, which must see the whole batch. DistributedDataParallel's averaging is right for them: the gather's
    backward adds up what every process's copy of the loss says about a row.
    """
    if not torch.distributed.is_initialized():
        return values
    return torch.cat(torch.distributed.nn.functional.all_gather(values.contiguous()))
