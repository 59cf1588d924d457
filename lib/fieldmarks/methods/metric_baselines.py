"""The metric-learning baselines of VAPNet's Table 2, on pytorch-metric-learning's losses; SCDA;
triplets and ProtoNet, which train the encoders of few-shot classification."""

from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor, nn

from fieldmarks.checks import one_of, positive
from fieldmarks.methods.method import Method, gather, pool

BASELINES = ("normsoftmax", "proxynca++", "proxyanchor", "multisimilarity", "scda")
BASELINES += ("triplet", "protonet")
MARGIN = 0.2  # of triplets, in PAN's official code


class MetricBaseline(Method):
    """A pooled, optionally projected embedding under one of pytorch-metric-learning's losses.

    Args:
        loss: its proxies, if any, are trained too.  miner: chooses pairs within a batch.
        pooling: "both" adds up average and maximum.  normalise: by LayerNorm (ProxyNCA++).
        dimensions: of a linear projection after these; 0 keeps the C pooled features.
        proxy_lr: learning rate of the proxies as a multiple of the network's."""

    def __init__(
        self,
        backbone: nn.Module,
        loss: nn.Module,
        *,
        miner: nn.Module | None = None,
        pooling: Literal["average", "max", "both"] = "average",
        normalise: bool = False,
        dimensions: int = 0,
        proxy_lr: float = 1.0,
        freeze_norm: bool = False,
    ):
        super().__init__(backbone, freeze_norm)
        one_of("pooling", pooling, ("average", "max", "both"))
        self.loss, self.miner, self.pooling = loss, miner, pooling
        self.rates = {"loss": (proxy_lr, False)}
        channels, same = backbone.channels, nn.Identity()
        self.norm = nn.LayerNorm(channels, elementwise_affine=False) if normalise else same
        self.project = nn.Linear(channels, dimensions) if dimensions else same

    @property
    def unit_rows(self) -> Tensor | None:
        """Of a softmax over classes, the rows (N, D) whose directions stand for these. NOTE
        Proxy-Anchor's proxies are none: it compares cosines with its margin, and those of means of
        features that are not centred are all high (Recall@1 2 % on Fieldguide; random ones 74 %).
        """
        from pytorch_metric_learning import losses

        if isinstance(self.loss, losses.NormalizedSoftmaxLoss):
            return self.loss.W.T
        return self.loss.proxies if isinstance(self.loss, losses.ProxyNCALoss) else None

    def losses(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        embedding, labels = gather(self.representation(images)), gather(labels)
        mined = self.miner(embedding, labels) if self.miner else None
        return {"metric": self.loss(embedding, labels, mined)}

    def representation(self, images: Tensor) -> Tensor:
        features, pooled = self.backbone(images), 0
        if self.pooling != "max":
            pooled = pooled + pool(features)
        if self.pooling != "average":
            pooled = pooled + features.amax((2, 3))
        return self.project(self.norm(pooled)).float()


class SCDA(Method):
    """Selective Convolutional Descriptor Aggregation (Wei et al. 2017), which needs no training:
    descriptors in the `object_mask` of the activation, summed over channels, are pooled by average
    and by maximum; both are brought to unit length and set side by side: (B, 2 C)."""

    trains = False

    def representation(self, images: Tensor) -> Tensor:
        features = self.backbone(images).float()
        kept = object_mask(features.sum(1))[:, None]  # (B, 1, h, w)
        average = (features * kept).sum((2, 3)) / kept.sum((2, 3))
        maximum = features.masked_fill(kept == 0, -torch.inf).amax((2, 3))
        return torch.cat([F.normalize(average, dim=1), F.normalize(maximum, dim=1)], dim=1)


class Triplet(Method):
    """Triplets of the squared Euclidean distance of pooled features, with MARGIN: the encoder of
    PAN's official few-shot code. Its batches are those of a `TripletStream`."""

    def losses(self, images: Tensor, positives: Tensor, negatives: Tensor) -> dict[str, Tensor]:
        sides = self.representation(torch.cat([images, positives, negatives])).chunk(3)
        options = {"distance_function": squared_distance, "margin": MARGIN}
        return {"triplet": F.triplet_margin_with_distance_loss(*sides, **options)}


class ProtoNet(Method):
    """Prototypical networks (Snell et al. 2017), trained by episodes: of each class of a batch the
    first `shots` images give the prototype, by which the others are told apart, eq. 1-2."""

    def __init__(self, backbone: nn.Module, shots: int, freeze_norm: bool = False):
        super().__init__(backbone, freeze_norm)
        self.shots = shots

    def losses(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Of (B, 3, H, W) and (B,), more than `shots` of each class, else ValueError."""
        classes, place = labels.unique(return_inverse=True)
        of_class = F.one_hot(place)  # (B, W)
        asked = of_class.cumsum(0).gather(1, place[:, None])[:, 0] > self.shots
        if int(of_class[asked].sum(0).min()) == 0:
            needed = f"an episode needs more than {self.shots} images of each class"
            raise ValueError(f"{needed}: set per_class above shots")
        features, given = self.representation(images), of_class[~asked].T.float()
        prototypes = given @ features[~asked] / given.sum(1, keepdim=True)
        apart = squared_distance(features[asked][:, None], prototypes)  # (Q, W)
        return {"episodes": F.cross_entropy(-apart, place[asked])}


def squared_distance(a: Tensor, b: Tensor) -> Tensor:
    """(..., D) twice, which broadcast -> (...,)."""
    return (a - b).square().sum(-1)


def object_mask(activation: Tensor) -> Tensor:
    """The largest 8-connected region above each map's mean, all of a flat map: (B, h, w), 0./1."""
    masks = []
    for above in (activation > activation.mean((1, 2), keepdim=True)).cpu().numpy():
        regions, count = ndimage.label(above, structure=ndimage.generate_binary_structure(2, 2))
        if count == 0:
            regions, count = above == above, 1
        sizes = ndimage.sum_labels(regions > 0, regions, range(1, count + 1))
        masks.append(torch.from_numpy(regions == 1 + int(sizes.argmax())))
    return torch.stack(masks).to(activation)


def create_baseline(
    name,
    backbone: nn.Module,
    classes: int,
    *,
    freeze_norm: bool = False,
    proxy_lr: float = 1e2,
    shots: int = 5,
) -> Method:
    """One of BASELINES with its authors' settings: Zhai & Wu 2019 (the CEP row), Teh et al. 2020,
    Kim et al. 2020, Wang et al. 2019, SCDA, `Triplet`, `ProtoNet`. `proxy_lr` is for the two with
    proxies, `shots` for the last. NOTE at SGD 0.01, which suits the others, Proxy-Anchor ends below
    the frozen network where classes have few images (Wardrobe), with clipped gradients too."""
    one_of("baseline", name, BASELINES)
    positive(proxy_lr=proxy_lr)
    channels, both = backbone.channels, dict(pooling="both", dimensions=512)
    if name in ("scda", "triplet", "protonet"):
        of_name = {"scda": SCDA, "triplet": Triplet, "protonet": partial(ProtoNet, shots=shots)}
        return of_name[name](backbone, freeze_norm=freeze_norm)
    from pytorch_metric_learning import losses, miners  # take most of a second, which few need

    if name == "normsoftmax":
        loss, options = losses.NormalizedSoftmaxLoss(classes, channels, temperature=0.05), {}
        # Only the direction of a proxy counts, and the longer it is the slower it turns: those of
        # the library start some 36 long, at which SGD of any usual rate leaves them as they are.
        loss.W.data = F.normalize(loss.W.data, dim=0)
    elif name == "proxynca++":
        loss = losses.ProxyNCALoss(classes, channels, softmax_scale=9)
        options = dict(pooling="max", dimensions=channels, normalise=True, proxy_lr=proxy_lr)
    elif name == "proxyanchor":
        loss = losses.ProxyAnchorLoss(classes, 512, margin=0.1, alpha=32)
        options = both | {"proxy_lr": proxy_lr}
    else:
        loss = losses.MultiSimilarityLoss(alpha=2, beta=50, base=0.5)
        options = both | {"miner": miners.MultiSimilarityMiner(epsilon=0.1)}
    return MetricBaseline(backbone, loss, freeze_norm=freeze_norm, **options)
