"""The metric-learning baselines of VAPNet's Table 2, on pytorch-metric-learning's losses, and SCDA, which needs no training."""

import torch
import torch.nn.functional as F
from pytorch_metric_learning import losses, miners
from scipy import ndimage
from torch import Tensor, nn

from fieldmarks.methods.method import Method, gather, pool


class MetricBaseline(Method):
    """A pooled, optionally projected embedding under one of pytorch-metric-learning's losses.

    Args:
        backbone: images -> (B, C, h, w); `channels` is C.
        loss: from pytorch-metric-learning; its proxies, if any, are trained with the network.
        miner: chooses pairs within a batch.
        pooling: "average", "max", or "both" added up.
        normalise: layer normalisation without parameters before the projection (ProxyNCA++).
        dimensions: of a linear projection; 0 keeps the C pooled features.
        proxy_lr: learning rate of the proxies as a multiple of the network's.
    """

    def __init__(
        self,
        backbone: nn.Module,
        loss: nn.Module,
        *,
        miner: nn.Module | None = None,
        pooling: str = "average",
        normalise: bool = False,
        dimensions: int = 0,
        proxy_lr: float = 1.0,
        freeze_norm: bool = False,
    ):
        super().__init__(backbone, freeze_norm)
        if pooling not in ("average", "max", "both"):
            raise ValueError(f"pooling is '{pooling}': it must be 'average', 'max' or 'both'")
        self.loss, self.miner, self.pooling, self.proxy_lr = loss, miner, pooling, proxy_lr
        self.norm = (
            nn.LayerNorm(backbone.channels, elementwise_affine=False)
            if normalise
            else nn.Identity()
        )
        self.project = nn.Linear(backbone.channels, dimensions) if dimensions else nn.Identity()

    def losses(self, batch) -> dict[str, Tensor]:
        embedding, labels = gather(self.describe(batch.images)), gather(batch.labels)
        return {
            "metric": self.loss(
                embedding, labels, self.miner(embedding, labels) if self.miner else None
            )
        }

    def parameter_groups(self, lr: float, weight_decay: float) -> list[dict]:
        groups = super().parameter_groups(lr, weight_decay)
        proxies = {id(p) for p in self.loss.parameters()}
        for group in groups:
            group["params"] = [p for p in group["params"] if id(p) not in proxies]
        return groups + [
            {"params": list(self.loss.parameters()), "lr": lr * self.proxy_lr, "weight_decay": 0.0}
        ]

    def describe(self, images: Tensor) -> Tensor:
        features = self.backbone(images)
        pooled = 0
        if self.pooling != "max":
            pooled = pooled + pool(features)
        if self.pooling != "average":
            pooled = pooled + features.amax((2, 3))
        return self.project(self.norm(pooled)).float()


class SCDA(Method):
    """Selective Convolutional Descriptor Aggregation (Wei et al. 2017): keep the features of the object, drop the background's.

    Descriptors where the activation, summed over channels, exceeds its mean, and which belong to the largest connected region
    of such, are pooled by average and by maximum; both are brought to unit length and set side by side: (B, 2 C).
    """

    trains = False

    def describe(self, images: Tensor) -> Tensor:
        features = self.backbone(images).float()
        kept = object_mask(features.sum(1))[:, None]  # (B, 1, h, w)
        average = (features * kept).sum((2, 3)) / kept.sum((2, 3))
        maximum = features.masked_fill(kept == 0, -torch.inf).amax((2, 3))
        return torch.cat([F.normalize(average, dim=1), F.normalize(maximum, dim=1)], dim=1)


def object_mask(activation: Tensor) -> Tensor:
    """(B, h, w) -> (B, h, w) of 0./1.: the largest 8-connected region above each map's mean; a flat map is kept whole."""
    masks = []
    for above in (activation > activation.mean((1, 2), keepdim=True)).cpu().numpy():
        regions, count = ndimage.label(above, structure=ndimage.generate_binary_structure(2, 2))
        if count == 0:
            regions, count = above == above, 1
        sizes = ndimage.sum_labels(regions > 0, regions, range(1, count + 1))
        masks.append(torch.from_numpy(regions == 1 + int(sizes.argmax())))
    return torch.stack(masks).to(activation)


def create_baseline(
    name: str, backbone: nn.Module, classes: int, freeze_norm: bool = False, proxy_lr: float = 100.0
) -> Method:
    """A baseline by the name that lab cards use, with its authors' settings.

    "normsoftmax": normalised softmax, temperature 0.05 (Zhai & Wu 2019; the CEP row).  "proxynca++": Teh et al. 2020.
    "proxyanchor": Kim et al. 2020, margin 0.1, alpha 32.  "multisimilarity": Wang et al. 2019, alpha 2, beta 50, base 0.5, miner
    0.1.  "scda": Wei et al. 2017, not trained.

    Raises:
        ValueError: unknown name.
    """
    channels = backbone.channels
    if name == "normsoftmax":
        loss = losses.NormalizedSoftmaxLoss(classes, channels, temperature=0.05)
        return MetricBaseline(backbone, loss, proxy_lr=1.0, freeze_norm=freeze_norm)
    if name == "proxynca++":
        loss = losses.ProxyNCALoss(classes, channels, softmax_scale=9)
        return MetricBaseline(
            backbone,
            loss,
            pooling="max",
            normalise=True,
            dimensions=channels,
            proxy_lr=proxy_lr,
            freeze_norm=freeze_norm,
        )
    if name == "proxyanchor":
        loss = losses.ProxyAnchorLoss(classes, 512, margin=0.1, alpha=32)
        return MetricBaseline(
            backbone,
            loss,
            pooling="both",
            dimensions=512,
            proxy_lr=proxy_lr,
            freeze_norm=freeze_norm,
        )
    if name == "multisimilarity":
        loss, miner = (
            losses.MultiSimilarityLoss(alpha=2, beta=50, base=0.5),
            miners.MultiSimilarityMiner(epsilon=0.1),
        )
        return MetricBaseline(
            backbone, loss, miner=miner, pooling="both", dimensions=512, freeze_norm=freeze_norm
        )
    if name == "scda":
        return SCDA(backbone)
    raise ValueError(
        f"unknown baseline '{name}': normsoftmax, proxynca++, proxyanchor, multisimilarity, scda"
    )
