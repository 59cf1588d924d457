"""FCAENet: Feature Consistency Driven Attention Erasing Network, and ADSH, on which it builds:
Zhao et al., "A Feature Consistency Driven Attention Erasing Network for Fine-Grained Image
Retrieval", 2021; Jiang & Li, "Asymmetric Deep Supervised Hashing", AAAI 2018.

The database's codes V are optimised directly, bit by bit; only queries go through the network,
whose codes U have inner products with V that tell whether two images are of one class. In turn it
trains on r sampled images against fixed V and computes V of all n from their outputs. FCAENet also
erases the most attended places (SREM), and wants one code for a class's images, erased too (ESRL).
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fieldmarks.checks import at_least, one_of
from fieldmarks.labels import integer_labels
from fieldmarks.methods.hash_baselines import class_codes
from fieldmarks.methods.hashing import DIVERGED, HashMethod
from fieldmarks.methods.method import gather

EPSILON = 1e-6
Negative = Literal["balanced"] | float


class FCAENet(HashMethod):
    """Eq. 1-17. Without `erase` and `relate` it is ADSH, the paper's "Baseline".

    Args:
        labels: (n,) long, of the training images, which are the database.
        erase: SREM (Table 2).  regions, region_size: its n and l, l in pixels (Tables 3 and 4).
        relate: ESRL (Table 2).  self_weight, others_weight: alpha and beta, of its terms (eq. 9).
        quantisation: gamma, weight of ADSH's |V_sampled - U|^2; FCAENet has none (eq. 12).
        negative: as `similarity`.  seed: of the first codes V.  Else as `HashMethod`.
        first_codes: random ones, for each "image" its own; or those of `class_codes`, so that a
            "class" starts with one code and the network is asked from the first step for codes that
            agree within a class, where it learns noise until V has been computed once.

    NOTE terms are means, and do not grow with k: J over n images and the batch, times 12 / k, ESRL
    over the batch and k. A learning rate then serves all code lengths. Table 2's variants are not
    defined; here SREM alone averages the J of erased and full images, ESRL alone has only eq. 8."""

    def __init__(
        self,
        backbone: nn.Module,
        bits: int,
        labels: Tensor,
        *,
        erase: bool = True,
        regions: int = 50,
        region_size: int = 32,
        relate: bool = True,
        self_weight: float = 1.0,
        others_weight: float = 1.0,
        quantisation: float = 0.0,
        negative: Negative = "balanced",
        first_codes: Literal["image", "class"] = "image",
        seed: int = 0,
        freeze_norm: bool = False,
        hash_lr: float = 1.0,
        feature_length: float = 0.0,
    ):
        shared = {"freeze_norm": freeze_norm, "hash_lr": hash_lr, "feature_length": feature_length}
        super().__init__(backbone, bits, **shared)
        labels = integer_labels(labels)
        at_least(0, self_weight=self_weight, others_weight=others_weight, quantisation=quantisation)
        at_least(1, regions=regions, region_size=region_size)
        self.erase, self.regions, self.region_size = erase, regions, region_size
        self.relate, self.self_weight, self.others_weight = relate, self_weight, others_weight
        self.quantisation, self.negative = quantisation, negative_value(negative, labels, labels)
        # A random layer's first gradients only disturb trained features; V tells bits apart.
        nn.init.zeros_(self.hash_layer.weight)
        nn.init.zeros_(self.hash_layer.bias)
        one_of("first_codes", first_codes, ("image", "class"))
        if first_codes == "class":
            first = class_codes(int(labels.max()) + 1, bits, seed)[labels]
        else:
            generator = torch.Generator().manual_seed(seed)
            first = torch.randint(2, (len(labels), bits), generator=generator) * 2.0 - 1
        self.register_buffer("labels", labels.clone(), persistent=False)
        self.register_buffer("codes", first)  # V (n, k)
        self.register_buffer("outputs", torch.zeros(len(labels), bits))  # U, its sampled rows
        self.register_buffer("sampled", torch.zeros(len(labels), dtype=torch.bool))

    def losses(self, images: Tensor, labels: Tensor, index: Tensor, positives=None):
        """{"J": eq. 10, "L_self": eq. 7, "L_others": eq. 8}, weighted, those that are in use; index
        (B,): the images' positions in the database; positives (B, 3, H, W): for each image another
        one of its class, which `relate` needs."""
        if self.relate and positives is None:
            raise ValueError("positives are missing: relate compares each image with another")
        features = self.backbone(torch.cat((images, positives)) if self.relate else images)  # eq. 1
        outputs = self.hash(features).tanh()  # eq. 2
        outputs, *positive = outputs.split(len(images))  # u and u^P (B, k)
        rows = gather(index.to(outputs.device))
        self.outputs[rows] = gather(outputs.detach())
        self.sampled[rows] = True
        terms = {"J": self.asymmetric_loss(outputs, labels)}
        if self.relate:
            terms["L_others"] = self.others_weight * (outputs - positive[0]).square().mean()
        if self.erase:
            heat = attention(features[: len(images)].detach(), images.shape[-2:])
            mask = erase_mask(heat, self.regions, self.region_size)
            erased = self.embed(mask.to(images) * images)  # eq. 5: u~ (B, k)
            if self.relate:
                terms["L_self"] = self.self_weight * (outputs - erased).square().mean()
            else:
                terms["J"] = (terms["J"] + self.asymmetric_loss(erased, labels)) / 2
        return terms

    def asymmetric_loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Eq. 10: how far the inner products of u (B, k) and V are from k s."""
        with torch.autocast(outputs.device.type, enabled=False):  # 16 bits lose negatives' targets
            wanted = self.bits * similarity(labels, self.labels, self.negative)  # (B, n)
            return (outputs @ self.codes.T - wanted).square().mean() * (12 / self.bits)

    def renew_codes(self) -> None:
        """Eq. 16: database codes from the outputs since the last time, if there are any."""
        rows = self.sampled.nonzero().squeeze(1)
        if len(rows):
            outputs = self.outputs[rows]
            agreement = class_agreement(outputs, self.labels[rows], self.labels, self.negative)
            self.codes.copy_(_descent(self.codes, outputs, agreement, rows, self.quantisation))
            self.sampled.zero_()

    after_epoch = renew_codes


def attention(features: Tensor, size: int | tuple[int, int]) -> Tensor:
    """The attention mask M, eq. 3-4, of feature maps (B, C, h, w): the mean over channels, enlarged
    to (B, H, W) of `size` and scaled to EPSILON .. 1 + EPSILON; EPSILON where a map is flat."""
    mean = features.float().mean(1, keepdim=True)  # (B, 1, h, w)
    enlarged = F.interpolate(mean, size=size, mode="bilinear", align_corners=False).squeeze(1)
    low, high = enlarged.amin((1, 2), keepdim=True), enlarged.amax((1, 2), keepdim=True)
    return (enlarged - low) / (high - low).clamp(min=torch.finfo(enlarged.dtype).tiny) + EPSILON


def erase_mask(attention: Tensor, regions: int = 50, size: int = 32) -> Tensor:
    """Selective region erasing, Algorithm 1: boxes whose upper left corners are the hottest pixels.

    Attention (B, H, W) -> (B, 1, H, W) float32, 0 where erased, else 1. `regions` is n, `size` l,
    in pixels; of equally hot pixels the first count, row by row. ValueError where they do not fit
    the image, or the network has diverged. NOTE the printed loops run over offsets 1..l and
    exchange rows and columns at the end. Here a box covers rows y .. y + l - 1 and columns
    x .. x + l - 1, clipped at the border."""
    (height, width), pixels = attention.shape[1:], attention[0].numel()
    if not 1 <= size <= min(height, width):
        cure = f"{height} x {width}: use a size of 1 to {min(height, width)}"
        raise ValueError(f"regions of {size} x {size} px do not fit an image of {cure}")
    if not 1 <= regions <= pixels:
        raise ValueError(f"{regions} regions, but the image has {pixels} pixels: use 1 to {pixels}")
    if attention.isnan().any():
        raise ValueError(f"the attention map holds values that are {DIVERGED}")
    flat = attention.flatten(1)
    coldest = flat.topk(regions, dim=1).values[:, -1:]  # (B, 1)
    hotter, equal = flat > coldest, flat == coldest  # enlarged maps have plateaus
    room = regions - hotter.sum(1, keepdim=True)
    corners = hotter | (equal & (equal.cumsum(1, dtype=torch.int32) <= room))
    erased = corners.view(attention.shape)
    for _ in range(2):  # along each axis: is there one among the l pixels that end here?
        counts = F.pad(erased.mT.int(), (size, 0)).cumsum(2, dtype=torch.int32)
        erased = counts[..., size:] > counts[..., :-size]
    return 1 - erased.float()[:, None]


def similarity(row_labels: Tensor, column_labels: Tensor, negative="balanced") -> Tensor:
    """S of eq. 10 (r, n) float32: 1 for two images of one class, else `negative`: a number, or
    "balanced", -(pairs of one class) / (pairs of two), a ValueError where there are none of two.

    NOTE the papers print -1. With many classes nearly all pairs are negative, and then the best V
    is one and the same code for every image. ADSH's own code balances the two; no paper says so."""
    row_labels, column_labels = integer_labels(row_labels), integer_labels(column_labels)
    negative = negative_value(negative, row_labels, column_labels)
    return torch.where(row_labels[:, None] == column_labels, 1.0, negative)


def negative_value(negative: Negative, row_labels: Tensor, column_labels: Tensor) -> float:
    """The `negative` of `similarity` as a number; "balanced" is counted class by class."""
    if negative != "balanced":
        if isinstance(negative, str):
            raise ValueError(f"negative is '{negative}': it must be 'balanced' or a number")
        return float(negative)
    classes = int(max(row_labels.max(), column_labels.max())) + 1
    rows, columns = (torch.bincount(x, minlength=classes) for x in (row_labels, column_labels))
    same = (rows * columns).sum().item()
    different = len(row_labels) * len(column_labels) - same
    if not different:
        raise ValueError("all images are of one class: hashing needs at least two classes")
    return -same / different


def update_codes(
    codes: Tensor, outputs: Tensor, similarity: Tensor, sampled: Tensor | None = None, gamma=0.0
) -> Tensor:
    """One pass over V's bits: each column takes its best value given the others, so that
    J = |U V' - k S|^2 + gamma |V_sampled - U|^2 never rises (eq. 16; the second term is ADSH's).

    Codes V (n, k), outputs U (r, k), similarity S (r, n) and, unless gamma is 0, the positions of
    U's rows in V, sampled (r,) -> V (n, k) of -1/+1. ValueError where they do not fit.
    NOTE eq. 17 is misprinted: with its Q the label term counts twice or has the wrong sign, and J
    rises. The minimum of J over column m is sign(k S'U_m + gamma U^_m - V^ U^'U_m), where V^ and U^
    lack column m and U^_m is U_m on the sampled rows and 0 elsewhere."""
    (images, bits), count = codes.shape, len(outputs)
    if outputs.shape != (count, bits) or similarity.shape != (count, images):
        shapes = ", ".join(str(tuple(x.shape)) for x in (codes, outputs, similarity))
        raise ValueError(f"shapes {shapes} do not fit: they must be (n, k), (r, k), (r, n)")
    agreement = torch.zeros(images, bits, dtype=torch.float64, device=codes.device)
    for part, rows in zip(similarity.split(512), outputs.double().split(512), strict=True):
        agreement += part.double().T @ rows
    return _descent(codes, outputs, agreement, sampled, gamma)


def class_agreement(outputs: Tensor, row_labels: Tensor, column_labels: Tensor, negative) -> Tensor:
    """S'U (n, k) float64 without S: sums over classes instead of over all pairs."""
    outputs = outputs.double()
    sums = outputs.new_zeros(int(max(row_labels.max(), column_labels.max())) + 1, outputs.shape[1])
    sums.index_add_(0, row_labels, outputs)
    return ((1 - negative) * sums + negative * outputs.sum(0))[column_labels]


def _descent(codes: Tensor, outputs: Tensor, agreement: Tensor, sampled, gamma: float) -> Tensor:
    """`update_codes` from S'U, the agreement (n, k)."""
    if not outputs.isfinite().all():
        raise ValueError(f"the hash outputs hold values that are {DIVERGED}")
    if gamma and (sampled is None or len(sampled) != len(outputs)):
        raise ValueError("gamma compares outputs with codes: give `sampled`, their positions in V")
    outputs = outputs.double()
    linear = codes.shape[1] * agreement.T.contiguous()  # (k, n) k S'U
    if gamma:
        linear.index_add_(1, sampled, gamma * outputs.T)
    gram = outputs.T @ outputs  # (k, k)
    columns = codes.double().T.contiguous()  # (k, n)
    for bit, weights in enumerate(gram.fill_diagonal_(0)):
        columns[bit] = torch.where(linear[bit] - weights @ columns >= 0, 1.0, -1.0)
    return columns.T.to(codes.dtype).contiguous()
