"""FCAENet: Feature Consistency Driven Attention Erasing Network, and ADSH, on which it builds.

Zhao et al., "A Feature Consistency Driven Attention Erasing Network for Fine-Grained Image Retrieval", 2021; Jiang & Li, "Asymmetric
Deep Supervised Hashing", AAAI 2018.

The images of the database get codes V that are optimised directly, bit by bit; only queries go through the network, which learns to
give codes U whose inner products with V tell whether two images are of one class. The two are learnt in turn: an iteration trains
the network on r sampled images against fixed V, then renews V for all n images from the outputs of those r. FCAENet adds images
whose most attended places are erased (SREM), and asks that an image, its erased copy and another image of its class get one code
(ESRL). At test time neither costs anything.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fieldmarks.methods.hashing import HashMethod
from fieldmarks.methods.method import gather, pool

EPSILON = 1e-6


class FCAENet(HashMethod):
    """Eq. 1-17. Without `erase` and `relate` it is ADSH, the paper's "Baseline".

    A batch brings, beside images and labels: `index`, positions in the training set, which is the database; `positives`, for each
    image another one of its class; and `last`, true at the end of an iteration.

    Args:
        backbone: images (B, 3, H, W) -> features (B, C, h, w); `channels` is C.
        bits: k, length of a code.
        labels: (n,) long, of the database.
        erase: SREM (Table 2).  regions, region_size: its n and l, l in pixels (Tables 3 and 4).
        relate: ESRL (Table 2).  alpha, beta: weights of its two terms, eq. 9.
        gamma: weight of ADSH's quantisation term |V_sampled - U|^2; FCAENet has none (eq. 12).
        negative: similarity of images of different classes, "balanced" or a number; see `similarity`.
        seed: of the first database codes, which are random.
    Raises:
        ValueError: fewer than one bit, labels of one class only, regions that fit no image, negative weights.

    NOTE terms are means rather than sums, and do not grow with k: J over n images and the batch times 12 / k, ESRL over the batch
    and over k. A learning rate then serves all code lengths. Table 2's variants are not defined in the paper; here SREM alone trains
    on erased images as on any other augmented view (their J is averaged with that of the whole images), and ESRL alone has only the
    term of eq. 8, for there is no erased image.
    """

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
        alpha: float = 1.0,
        beta: float = 1.0,
        gamma: float = 0.0,
        negative: str | float = "balanced",
        seed: int = 0,
        freeze_norm: bool = False,
        hash_lr: float = 1.0,
    ):
        super().__init__(backbone, bits, freeze_norm, hash_lr)
        if min(alpha, beta, gamma) < 0:
            raise ValueError(
                f"alpha ({alpha}), beta ({beta}) and gamma ({gamma}) are weights: none may be negative"
            )
        if regions < 1 or region_size < 1:
            raise ValueError(
                f"regions ({regions}) and region_size ({region_size}) must be at least 1"
            )
        self.erase, self.regions, self.region_size = erase, regions, region_size
        self.relate, self.alpha, self.beta, self.gamma = relate, alpha, beta, gamma
        self.negative = (
            balanced_negative(labels, labels) if negative == "balanced" else float(negative)
        )
        nn.init.zeros_(
            self.hash_layer.weight
        )  # a random layer's first gradients only disturb trained features; V tells bits apart
        nn.init.zeros_(self.hash_layer.bias)
        generator = torch.Generator().manual_seed(seed)
        self.register_buffer("labels", labels.clone(), persistent=False)
        self.register_buffer(
            "codes", torch.randint(2, (len(labels), bits), generator=generator) * 2.0 - 1
        )  # V (n, k)
        self.register_buffer(
            "outputs", torch.zeros(len(labels), bits)
        )  # U, rows of the images sampled in this iteration
        self.register_buffer("sampled", torch.zeros(len(labels), dtype=torch.bool))
        self.iteration_ends = False

    def losses(self, batch) -> dict[str, Tensor]:
        """{"J": eq. 10, "L_self": eq. 7, "L_others": eq. 8}, weighted, those that are in use."""
        images, count = batch.images, len(batch.images)
        features = self.backbone(
            torch.cat([images, batch.positives]) if self.relate else images
        )  # eq. 1
        outputs, *positive = self.hash(features).split(count)  # u and u^P (B, k)
        self.remember(outputs.detach(), batch)
        terms = {"J": self.asymmetric_loss(outputs, batch.labels)}
        if self.relate:
            terms["L_others"] = self.beta * mean_square(outputs, *positive)
        if self.erase:
            mask = erase_mask(
                attention(features[:count].detach(), images.shape[-2:]),
                self.regions,
                self.region_size,
            )
            erased = self.hash(self.backbone(mask.to(images) * images))  # eq. 5: u~ (B, k)
            if self.relate:
                terms["L_self"] = self.alpha * mean_square(outputs, erased)
            else:
                terms["J"] = (terms["J"] + self.asymmetric_loss(erased, batch.labels)) / 2
        return terms

    def hash(self, features: Tensor) -> Tensor:
        """Eq. 2: (B, C, h, w) -> u (B, k)."""
        return self.hash_layer(pool(features)).float().tanh()

    def asymmetric_loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Eq. 10: how far the inner products of u (B, k) and V are from k s."""
        with torch.autocast(
            outputs.device.type, enabled=False
        ):  # the targets of negatives vanish in 16 bits
            wanted = self.bits * similarity(labels, self.labels, self.negative)  # (B, n)
            return (outputs @ self.codes.T - wanted).square().mean() * (12 / self.bits)

    @torch.no_grad()
    def remember(self, outputs: Tensor, batch) -> None:
        index = gather(batch.index.to(outputs.device))
        self.outputs[index] = gather(outputs)
        self.sampled[index] = True
        self.iteration_ends = batch.last

    def after_step(self) -> None:
        """At the end of an iteration: renew the database codes from what the network gave in it (eq. 16)."""
        if self.iteration_ends:
            rows = self.sampled.nonzero().squeeze(1)
            outputs = self.outputs[rows]
            agreement = class_agreement(outputs, self.labels[rows], self.labels, self.negative)
            self.codes.copy_(_renew(self.codes, outputs, agreement, rows, self.gamma))
            self.sampled.zero_()
            self.iteration_ends = False


# SREM


def attention(features: Tensor, size: int | tuple[int, int]) -> Tensor:
    """The attention mask M, eq. 3-4: the mean over channels, enlarged bilinearly and brought to EPSILON .. 1 + EPSILON.

    Args:
        features: (B, C, h, w), the last feature map.  size: H and W of the images, or both at once.
    Returns:
        (B, H, W) float32; EPSILON everywhere for a flat map.
    """
    size = (size, size) if isinstance(size, int) else tuple(size)
    mean = features.float().mean(1, keepdim=True)  # (B, 1, h, w)
    enlarged = F.interpolate(mean, size=size, mode="bilinear", align_corners=False).squeeze(1)
    low, high = enlarged.amin((1, 2), keepdim=True), enlarged.amax((1, 2), keepdim=True)
    return (enlarged - low) / (high - low).clamp(min=torch.finfo(enlarged.dtype).tiny) + EPSILON


def erase_mask(attention: Tensor, regions: int = 50, size: int = 32) -> Tensor:
    """Selective region erasing, Algorithm 1: boxes of size x size whose upper left corners are the hottest pixels.

    Args:
        attention: (B, H, W).  regions: n, how many of the hottest pixels; of equal ones the first, row by row.  size: l, in pixels.
    Returns:
        (B, 1, H, W) float32, 0 where erased, else 1.
    Raises:
        ValueError: boxes larger than the image, more regions than pixels, a map that is not a number.

    NOTE the printed loops run over offsets 1..l, which moves each box by a pixel, and exchange rows and columns when they take out
    the result. Here a box covers rows y .. y + l - 1 and columns x .. x + l - 1, clipped at the border. Since min-max scaling keeps
    the order of pixels, EPSILON cannot change the mask.
    """
    batch, height, width = attention.shape
    if not 1 <= size <= min(height, width):
        raise ValueError(
            f"regions of {size} x {size} px do not fit an image of {height} x {width}: use a size of 1 to "
            f"{min(height, width)}"
        )
    if not 1 <= regions <= height * width:
        raise ValueError(
            f"{regions} regions, but the image has {height * width} pixels: use 1 to {height * width}"
        )
    if attention.isnan().any():
        raise ValueError(
            "the attention map holds values that are not numbers: the network has diverged; train with a lower lr"
        )
    flat = attention.flatten(1)
    values, corners = flat.topk(regions, dim=1)
    coldest = values[:, -1:]  # (B, 1)
    tied = ((flat >= coldest).sum(1) > regions).nonzero().squeeze(1)
    if len(
        tied
    ):  # more pixels are as hot as the last one than there is room for: the first of them, as enlarged maps have plateaus
        hotter, equal = flat[tied] > coldest[tied], flat[tied] == coldest[tied]
        room = regions - hotter.sum(1, keepdim=True)
        chosen = hotter | (equal & (equal.cumsum(1, dtype=torch.int32) <= room))
        corners[tied] = chosen.nonzero()[:, 1].view(-1, regions)
    y, x = corners // width, corners % width
    bottom, right = (y + size).clamp(max=height), (x + size).clamp(max=width)
    # Each box as +1 and -1 at its corners: sums over columns, then over rows, count the boxes that a pixel lies in.
    edges = torch.zeros(batch, (height + 1) * (width + 1), dtype=torch.int32, device=flat.device)
    for at_y, at_x, sign in ((y, x, 1), (y, right, -1), (bottom, x, -1), (bottom, right, 1)):
        edges.scatter_add_(
            1, at_y * (width + 1) + at_x, torch.full_like(corners, sign, dtype=torch.int32)
        )
    boxes = (
        edges.view(batch, height + 1, width + 1)
        .cumsum(2, dtype=torch.int32)
        .cumsum(1, dtype=torch.int32)
    )
    return (boxes[:, :height, :width] == 0).float()[:, None]


def mean_square(outputs: Tensor, others: Tensor) -> Tensor:
    """Eq. 7 and 8, as a mean over B and k: each (B, k) -> ()."""
    return (outputs - others).square().mean()


# The asymmetric codes


def similarity(
    row_labels: Tensor, column_labels: Tensor, negative: str | float = "balanced"
) -> Tensor:
    """S of eq. 10: 1 for two images of one class, `negative` for others.

    Args:
        row_labels: (r,), of sampled images.  column_labels: (n,), of the database.
        negative: "balanced" for -(pairs of one class) / (pairs of two), or a number.
    Returns:
        (r, n) float32.
    Raises:
        ValueError: "balanced" where all pairs are of one class.

    NOTE the papers print -1. With many classes nearly all pairs are negative, and then the best V is one and the same code for every
    image. ADSH's own code balances the two, which no paper says.
    """
    if negative == "balanced":
        negative = balanced_negative(row_labels, column_labels)
    return torch.where(row_labels[:, None] == column_labels, 1.0, float(negative))


def balanced_negative(row_labels: Tensor, column_labels: Tensor) -> float:
    """-(pairs of one class) / (pairs of two classes), counted by class."""
    classes = int(max(row_labels.max(), column_labels.max())) + 1
    same = (
        (
            torch.bincount(row_labels, minlength=classes)
            * torch.bincount(column_labels, minlength=classes)
        )
        .sum()
        .item()
    )
    different = len(row_labels) * len(column_labels) - same
    if not different:
        raise ValueError("all images are of one class: hashing needs at least two classes")
    return -same / different


def update_codes(
    codes: Tensor,
    outputs: Tensor,
    similarity: Tensor,
    sampled: Tensor | None = None,
    gamma: float = 0.0,
) -> Tensor:
    """One pass over the bits of V; each column in turn takes its best value given the others, so that J never rises.

    J = |U V' - k S|^2 + gamma |V_sampled - U|^2 (eq. 16; the second term is ADSH's).

    Args:
        codes: V (n, k).  outputs: U (r, k).  similarity: S (r, n).
        sampled: (r,) positions of U's rows in V; needed where gamma is not 0.
    Returns:
        (n, k) of -1/+1.
    Raises:
        ValueError: shapes that do not fit, gamma without `sampled`, outputs that are not numbers.

    NOTE eq. 17 is misprinted: with its Q the label term counts twice or has the wrong sign, and J rises. The minimum of J over column
    m is sign(k S'U_m + gamma U^_m - V^ U^'U_m), where V^ and U^ lack column m and U^_m is U_m on the sampled rows and 0 elsewhere.
    """
    (images, bits), rows = codes.shape, len(outputs)
    if outputs.shape != (rows, bits) or similarity.shape != (rows, images):
        raise ValueError(
            f"codes {tuple(codes.shape)}, outputs {tuple(outputs.shape)} and similarity {tuple(similarity.shape)} do "
            "not fit: they must be (n, k), (r, k) and (r, n)"
        )
    agreement = torch.zeros(images, bits, dtype=torch.float64, device=codes.device)
    for part, of_part in zip(similarity.split(512), outputs.double().split(512)):
        agreement += part.double().T @ of_part
    return _renew(codes, outputs, agreement, sampled, gamma)


def class_agreement(
    outputs: Tensor, row_labels: Tensor, column_labels: Tensor, negative: float
) -> Tensor:
    """S'U (n, k) float64 without S: sums over classes instead of over all pairs."""
    outputs = outputs.double()
    sums = outputs.new_zeros(int(max(row_labels.max(), column_labels.max())) + 1, outputs.shape[1])
    sums.index_add_(0, row_labels, outputs)
    return ((1 - negative) * sums + negative * outputs.sum(0))[column_labels]


def _renew(
    codes: Tensor, outputs: Tensor, agreement: Tensor, sampled: Tensor | None, gamma: float
) -> Tensor:
    if not outputs.isfinite().all():
        raise ValueError(
            "the hash outputs hold values that are not numbers: the network has diverged; train with a lower lr"
        )
    if gamma and (sampled is None or len(sampled) != len(outputs)):
        raise ValueError(
            "gamma weighs the distance between the outputs and the codes of the same images: give `sampled`, their positions"
        )
    bits = codes.shape[1]
    outputs = outputs.double()
    pull = bits * agreement.T.contiguous()  # (k, n) k S'U
    if gamma:
        pull.index_add_(1, sampled, gamma * outputs.T)
    gram = outputs.T @ outputs  # (k, k)
    columns = codes.double().T.contiguous()  # (k, n)
    for bit in range(bits):
        weights = gram[bit].clone()
        weights[bit] = 0
        columns[bit] = torch.where(pull[bit] - weights @ columns >= 0, 1.0, -1.0)
    return columns.T.to(codes.dtype).contiguous()
