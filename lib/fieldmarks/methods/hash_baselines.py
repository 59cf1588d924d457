"""Deep hashing baselines: DPSH, DSH and HashNet of FCAENet's Table 1, and OrthoHash.

The first three learn codes from the similarity s_ij (1 or 0) of pairs alone, and differ in what
they ask of the real outputs u whose signs become the codes. OrthoHash, which came later and needs
no pairs, gives each class a code beforehand. FCAENet's Baseline, ADSH, is in fcaenet.py."""

import torch
import torch.nn.functional as F
from scipy.linalg import hadamard
from torch import Tensor, nn
from torch.nn import Module

from fieldmarks.checks import at_least, one_of, positive
from fieldmarks.labels import integer_labels
from fieldmarks.methods.hashing import HashMethod
from fieldmarks.methods.method import gather
from fieldmarks.random import seeded

CODE_DRAWS = 1000  # sets of random class codes to choose from


class DSH(HashMethod):
    """Deep supervised hashing (Liu et al., CVPR 2016): `contrastive_loss` over a batch's pairs.

    `quantisation` weighs the outputs' mean distance from -1 or +1. NOTE the paper's weight is 0.01,
    but of a sum over both images' bits: 0.24 to 0.96 times the mean, for 12 to 48 bits. Later
    comparisons weigh a mean by 0.1 or 0.01. Other arguments as of `HashMethod`."""

    def __init__(self, backbone: Module, bits: int, *, quantisation: float = 0.1, **shared):
        super().__init__(backbone, bits, **shared)
        self.quantisation = quantisation

    embed = HashMethod.representation  # u is not bounded

    def losses(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        outputs, labels = gather(self.representation(images)), gather(labels)
        contrast = contrastive_loss(outputs, labels, margin=2 * self.bits)
        quantisation = self.quantisation * (outputs.abs() - 1).abs().mean()
        return {"contrastive": contrast, "quantisation": quantisation}


class MemoryHashing(HashMethod):
    """What DPSH and HashNet share: a batch, by `index` (B,), is paired with all training images,
    with labels (n,), by the outputs that the network last gave for them.

    NOTE recorded outputs lag behind by up to an epoch. At a high learning rate outputs chase them
    to and fro, the loss rises, and codes grow worse than untrained ones: these methods, DPSH above
    all, want lower rates than DSH."""

    def __init__(self, backbone: Module, bits: int, labels: Tensor, **shared):
        super().__init__(backbone, bits, **shared)
        if labels.ndim != 1 or not len(labels) or labels.is_floating_point():
            given = f"got {labels.dtype} of shape {tuple(labels.shape)}"
            raise ValueError(f"labels must be whole numbers (n,), of the training set, {given}")
        self.register_buffer("labels", labels.clone(), persistent=False)
        self.register_buffer("outputs", torch.full((len(labels), bits), torch.nan))  # NaN: unseen

    def pair(self, outputs: Tensor, labels: Tensor, index: Tensor) -> tuple[Tensor, ...]:
        """Outputs of the whole batch (B, k) from this process's, their inner products (B, m) with
        the latest of all training images seen so far, which pass no gradients, and s (B, m).
        NOTE an image is also paired with itself, as in the authors' programs."""
        index = gather(index.to(outputs.device))
        outputs, labels = gather(outputs), gather(labels)
        if index.max() >= len(self.labels) or not torch.equal(self.labels[index], labels):
            cure = "give it those of the training images, in the order that index counts them"
            raise ValueError(f"labels differ from those that the method was made with: {cure}")
        self.outputs[index] = outputs.detach()
        seen = ~self.outputs[:, 0].isnan()
        with torch.autocast(outputs.device.type, enabled=False):  # 16 bits are few for sums over k
            products = outputs @ self.outputs[seen].T
            return outputs, products, (labels[:, None] == self.labels[seen]).float()


class DPSH(MemoryHashing):
    """Deep pairwise-supervised hashing (Li, Wang & Kang, IJCAI 2016): p(s = 1) = sigmoid(u'u / 2).

    `quantisation` weighs the mean of (u - sign u)^2; other arguments as of `MemoryHashing`. NOTE
    all pairs count alike, and with many classes nearly all are of two classes: outputs settle well
    below 1 and tell the classes apart slowly. That is the method; HashNet balances."""

    def __init__(self, backbone: Module, bits: int, labels: Tensor, *, quantisation=0.1, **shared):
        super().__init__(backbone, bits, labels, **shared)
        self.quantisation = quantisation

    embed = HashMethod.representation  # u is not bounded

    def losses(self, images: Tensor, labels: Tensor, index: Tensor) -> dict[str, Tensor]:
        outputs, products, similar = self.pair(self.representation(images), labels, index)
        likelihood = pair_likelihood(products / 2, similar).mean()
        quantisation = self.quantisation * (outputs - outputs.sign()).square().mean()
        return {"likelihood": likelihood, "quantisation": quantisation}


class HashNet(MemoryHashing):
    """HashNet (Cao et al., ICCV 2017): balanced likelihood of tanh(scale u), which becomes a sign.

    `sharpness` is alpha, p(s_ij = 1) = sigmoid(alpha u_i'u_j); the scale after t steps is
    sqrt(1 + growth t), with the authors' growth. Other arguments as of `MemoryHashing`.
    NOTE sharpness 0.1 is that of later comparisons and serves many classes best. The authors' is
    10 / k; with few classes, 0.1 makes all bits of a short code tell the same two groups of classes
    apart. The authors' scale grows every 200 steps, here at each. They pair images within a batch,
    weighed by the data set's counts; here pairs with all images seen are weighed by their own."""

    def __init__(self, backbone, bits: int, labels, *, sharpness=0.1, growth=0.005, **shared):
        super().__init__(backbone, bits, labels, **shared)
        at_least(0, growth=growth)
        self.sharpness, self.growth = sharpness, growth
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    @property
    def scale(self) -> Tensor:
        return (1 + self.growth * self.steps).sqrt()

    def embed(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> tanh(scale u) (B, k)."""
        return (self.scale * self.representation(images)).tanh()

    def losses(self, images: Tensor, labels: Tensor, index: Tensor) -> dict[str, Tensor]:
        _, products, similar = self.pair(self.embed(images), labels, index)
        likelihood = pair_likelihood(self.sharpness * products, similar)
        return {"likelihood": balanced_mean(likelihood, similar)}

    def after_step(self) -> None:
        self.steps += 1


class OrthoHash(HashMethod):
    """Hoe et al., "One Loss for All: Deep Hashing with a Single Cosine Similarity based Learning
    Objective", NeurIPS 2021: cross-entropy of the cosines of u to the classes' codes.

    The codes are fixed, `class_codes` of the seed; batch normalisation of the outputs balances the
    bits; `margin` is taken from the cosine to the own class's code, all are times `scale`. Both are
    the authors'. Other arguments as of `HashMethod`."""

    def __init__(
        self, backbone: Module, bits: int, classes: int, *, margin=0.2, scale=8.0, seed=0, **shared
    ):
        super().__init__(backbone, bits, **shared)
        at_least(0, margin=margin)
        positive(scale=scale)
        self.margin, self.scale = margin, scale
        self.balance = nn.BatchNorm1d(bits)
        self.register_buffer("class_codes", class_codes(classes, bits, seed))  # (C, k)

    def representation(self, images: Tensor) -> Tensor:
        return self.balance(super().representation(images))

    def losses(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        cosines = F.normalize(self.representation(images), dim=1) @ self.class_codes.T
        cosines = cosines / self.bits**0.5  # (B, C)
        own = F.one_hot(labels, len(self.class_codes))
        return {"cosine": F.cross_entropy(self.scale * (cosines - self.margin * own), labels)}


def class_codes(classes: int, bits: int, seed: int = 0) -> Tensor:
    """Codes of -1/+1 for classes, (classes, bits) float32, far from each other: as in CSQ (Yuan et
    al., CVPR 2020) rows of a Hadamard matrix and their opposites, which differ in half the bits or
    in all, where the bits are a power of two and these are enough; else, as OrthoHash draws them,
    of many random ones (here with each bit +1 in half the classes) the set whose nearest two are
    farthest apart."""
    generator = seeded(seed, 60)
    if bits & (bits - 1) == 0 and classes <= 2 * bits:
        rows = torch.from_numpy(hadamard(bits)).float()
        return torch.cat([rows, -rows])[:classes]
    best, farthest = torch.empty(0), -1.0
    half = torch.arange(classes) < classes // 2
    for _ in range(CODE_DRAWS):
        columns = [half[torch.randperm(classes, generator=generator)] for _ in range(bits)]
        codes = torch.stack(columns, dim=1).float() * 2 - 1
        distances = (bits - codes @ codes.T) / 2 + bits * torch.eye(classes)
        nearest = distances.min().item() + distances.amin(1).mean().item() / (bits + 1)
        if nearest > farthest:
            best, farthest = codes, nearest
    return best


def pair_likelihood(theta: Tensor, similar: Tensor) -> Tensor:
    """-log p(s | theta) for p(s = 1) = sigmoid(theta): log(1 + exp theta) - s theta."""
    return F.softplus(theta) - similar * theta


def balanced_mean(values: Tensor, similar: Tensor) -> Tensor:
    """The mean over similar pairs, if any, plus that over others: HashNet's weights."""
    alike, others = ((values * s).sum() / s.sum().clamp(min=1) for s in (similar, 1 - similar))
    return alike + others


def contrastive_loss(outputs: Tensor, labels: Tensor, margin: float) -> Tensor:
    """DSH's loss: half the mean over pairs i < j of d within a class, else of max(margin - d, 0);
    d is the squared distance, of codes four times the Hamming distance: a margin of 2k asks that
    half the bits differ."""
    first, second = torch.triu_indices(len(outputs), len(outputs), offset=1, device=outputs.device)
    distance = (outputs[first] - outputs[second]).square().sum(1)
    loss = torch.where(labels[first] == labels[second], distance, (margin - distance).clamp(min=0))
    return loss.sum() / max(2 * len(loss), 1)


def create_hash_baseline(
    name,
    backbone: Module,
    bits: int,
    labels,
    *,
    freeze_norm: bool = False,
    hash_lr: float = 1.0,
    feature_length: float = 0.0,
) -> HashMethod:
    """One of these by name with its usual settings, for training labels (n,) long, from 0 on."""
    methods = {"dpsh": DPSH, "dsh": DSH, "hashnet": HashNet, "orthohash": OrthoHash}
    one_of("hashing baseline", name, methods)
    data: tuple = () if name == "dsh" else (labels,)
    if name == "orthohash":
        data = (int(integer_labels(labels).max()) + 1,)
    shared = {"freeze_norm": freeze_norm, "hash_lr": hash_lr, "feature_length": feature_length}
    return methods[name](backbone, bits, *data, **shared)
