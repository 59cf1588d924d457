"""What the training loop sees of a method."""

import torch
import torch.distributed
import torch.distributed.nn
import torch.nn.functional as F
from torch import Tensor, nn


class Method(nn.Module):
    """A backbone, what is trained on top of it, and the terms of its loss. The backbone turns
    normalised images (B, 3, H, W) into features (B, C, h, w); its `channels` is C. freeze_norm: its
    batch normalisation keeps its statistics in training."""

    trains = True
    rates: dict[str, tuple[float, bool]] = {}  # of its parts: factor of lr, whether they decay

    def __init__(self, backbone: nn.Module, freeze_norm: bool = False):
        super().__init__()
        self.backbone, self.freeze_norm = backbone, freeze_norm

    def losses(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Named scalar terms, whose sum is minimised; methods add arguments of their own."""
        raise NotImplementedError

    def representation(self, images: Tensor) -> Tensor:
        """The embedding before it is brought to unit length: (B, 3, H, W) -> (B, D)."""
        return pool(self.backbone(images)).float()

    def embed(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, D) of unit length. All that runs at test time."""
        return F.normalize(self.representation(images), dim=1)

    def forward(self, images: Tensor) -> Tensor:
        return self.embed(images)

    def after_step(self) -> None:
        """Called after each optimiser step: running means, schedules."""

    def after_epoch(self) -> None:
        """Called after the last step of an epoch."""

    def train(self, mode: bool = True):
        super().train(mode)
        if self.freeze_norm:
            for module in self.backbone.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    def parameter_groups(self, lr: float, weight_decay: float) -> list[dict]:
        """For an optimiser; one-dimensional parameters (biases, normalisation) do not decay."""
        groups = {}
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                factor, decays = self.rates.get(name.split(".")[0], (1.0, True))
                groups.setdefault((factor, decays and parameter.dim() > 1), []).append(parameter)
        return [
            {"params": parameters, "lr": lr * factor, "weight_decay": weight_decay * decays}
            for (factor, decays), parameters in groups.items()
        ]


def pool(features: Tensor) -> Tensor:
    """g in the papers, global average pooling: (..., C, h, w) -> (..., C)."""
    return features.mean((-2, -1))


def gather(values: Tensor) -> Tensor:
    """The rows of every process, in order of rank, with gradients: for losses over pairs, for which
    DistributedDataParallel's averaging is right: the gather's backward adds up over processes."""
    if not torch.distributed.is_initialized():
        return values
    return torch.cat(torch.distributed.nn.functional.all_gather(values.contiguous()))
