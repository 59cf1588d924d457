"""The deep hashing baselines of FCAENet's Table 1 that learn from pairs of images: DPSH, DSH and HashNet.

All three learn codes whose Hamming distances say which images share a class, from the similarity s_ij (1 or 0) of pairs alone.
They differ in what they ask of the real outputs u whose signs become the codes. FCAENet's own Baseline, ADSH, is in fcaenet.py.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fieldmarks.methods.hashing import HashMethod
from fieldmarks.methods.method import gather


class DSH(HashMethod):
    """Deep supervised hashing (Liu et al., CVPR 2016): contrastive loss over the pairs of a batch. See `contrastive_loss`.

    Args:
        backbone: images -> (B, C, h, w); `channels` is C.  bits: k.
        quantisation: weight of the distance of outputs from -1 or +1, a mean over B and k.

    NOTE the paper weighs that distance by 0.01, but summed over the bits of both images of a pair: 0.24 to 0.96 times the mean,
    for 12 to 48 bits. In later comparisons it is a mean, weighted by 0.1 or 0.01.
    """

    def __init__(
        self,
        backbone: nn.Module,
        bits: int,
        *,
        quantisation: float = 0.1,
        freeze_norm: bool = False,
    ):
        super().__init__(backbone, bits, freeze_norm)
        self.quantisation = quantisation

    def embed(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> u (B, k), not bounded; `to_codes` of it are the codes."""
        return self.describe(images)

    def losses(self, batch) -> dict[str, Tensor]:
        """{"contrastive": ..., "quantisation": ...}."""
        outputs, labels = gather(self.describe(batch.images)), gather(batch.labels)
        return {
            "contrastive": contrastive_loss(outputs, labels, margin=2 * self.bits),
            "quantisation": self.quantisation * (outputs.abs() - 1).abs().mean(),
        }


class MemoryHashing(HashMethod):
    """What DPSH and HashNet share: a batch is paired with all training images, by what the network last gave for each.

    A batch has, beside images and labels, `index`: positions in the training set.

    Args:
        labels: (n,) long, of the training set in its order.

    NOTE what is remembered lags behind by up to an epoch. At a high learning rate outputs chase it to and fro together, the
    loss rises, and codes grow worse than untrained ones: these methods, DPSH above all, want lower rates than DSH.
    """

    def __init__(self, backbone: nn.Module, bits: int, labels: Tensor, freeze_norm: bool = False):
        super().__init__(backbone, bits, freeze_norm)
        if labels.ndim != 1 or not len(labels) or labels.is_floating_point():
            raise ValueError(
                f"labels must be those of the training images, whole numbers (n,), got {labels.dtype} of "
                f"shape {tuple(labels.shape)}"
            )
        self.register_buffer("labels", labels.clone(), persistent=False)
        self.register_buffer(
            "outputs", torch.full((len(labels), bits), torch.nan)
        )  # NaN: not seen yet

    def pair(self, outputs: Tensor, batch) -> tuple[Tensor, Tensor, Tensor]:
        """Pairs of the batch with the training images seen so far, of which the batch itself is the latest.

        Args:
            outputs: (b, k), of this process's rows of the batch.
        Returns:
            outputs of the whole batch (B, k), their inner products (B, m) with those remembered, which pass no gradients, and
            s (B, m).
        Raises:
            ValueError: the batch's labels are not those that the method was given for these positions.

        NOTE an image is also paired with itself, as in the authors' programs.
        """
        outputs, labels, index = (
            gather(outputs),
            gather(batch.labels),
            gather(batch.index.to(outputs.device)),
        )
        if index.max() >= len(self.labels) or not torch.equal(self.labels[index], labels):
            raise ValueError(
                "a batch's labels differ from those that the method was made with: give it the labels of the "
                "training images, in the order that the batches' index counts them"
            )
        self.outputs[index] = outputs.detach()
        seen = ~self.outputs[:, 0].isnan()
        with torch.autocast(
            outputs.device.type, enabled=False
        ):  # 8 bits of mantissa are too few for sums over k
            return (
                outputs,
                outputs @ self.outputs[seen].T,
                (labels[:, None] == self.labels[seen]).float(),
            )


class DPSH(MemoryHashing):
    """Deep pairwise-supervised hashing (Li, Wang & Kang, IJCAI 2016): p(s_ij = 1) = sigmoid(u_i'u_j / 2), as likely as can be.

    Args:
        backbone: images -> (B, C, h, w); `channels` is C.  bits: k.  labels: (n,) long, of the training set.
        quantisation: weight of (u - sign u)^2, a mean over B and k.

    NOTE all pairs count alike, and with many classes nearly all are of two classes. Outputs then settle well below 1 and tell
    the classes apart slowly. That is the method; HashNet balances the pairs.
    """

    def __init__(
        self,
        backbone: nn.Module,
        bits: int,
        labels: Tensor,
        *,
        quantisation: float = 0.1,
        freeze_norm: bool = False,
    ):
        super().__init__(backbone, bits, labels, freeze_norm)
        self.quantisation = quantisation

    def embed(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> u (B, k), not bounded; `to_codes` of it are the codes."""
        return self.describe(images)

    def losses(self, batch) -> dict[str, Tensor]:
        """{"likelihood": ..., "quantisation": ...}."""
        outputs, products, similar = self.pair(self.describe(batch.images), batch)
        return {
            "likelihood": pair_likelihood(products / 2, similar).mean(),
            "quantisation": self.quantisation * (outputs - outputs.sign()).square().mean(),
        }


class HashNet(MemoryHashing):
    """HashNet (Cao et al., ICCV 2017): balanced pairwise likelihood of tanh(scale u), whose scale grows until tanh is a sign.

    Args:
        backbone: images -> (B, C, h, w); `channels` is C.  bits: k.  labels: (n,) long, of the training set.
        sharpness: alpha, p(s_ij = 1) = sigmoid(alpha u_i'u_j).
        growth: the scale after t steps is sqrt(1 + growth t): at the authors' 0.005, 7.1 after their 10,000 steps.
    Raises:
        ValueError: negative growth.

    NOTE sharpness 0.1 is that of later comparisons and serves many classes best. The authors' is 10 / k; with few classes, 0.1
    makes all bits of a short code tell the same two groups of classes apart. The authors renew the scale every 200 steps, here
    it grows at each. They pair images within a batch, and weigh pairs by how common their kind is in the data set; here the
    batch is paired with all images seen, and the two kinds are counted there.
    """

    def __init__(
        self,
        backbone: nn.Module,
        bits: int,
        labels: Tensor,
        *,
        sharpness: float = 0.1,
        growth: float = 0.005,
        freeze_norm: bool = False,
    ):
        super().__init__(backbone, bits, labels, freeze_norm)
        if growth < 0:
            raise ValueError(f"growth is {growth}: the scale of tanh must not shrink")
        self.sharpness, self.growth = sharpness, growth
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    @property
    def scale(self) -> Tensor:
        return (1 + self.growth * self.steps).sqrt()

    def embed(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> tanh(scale u) (B, k); `to_codes` of it are the codes."""
        return (self.scale * self.describe(images)).tanh()

    def losses(self, batch) -> dict[str, Tensor]:
        """{"likelihood": ...}."""
        _, products, similar = self.pair(self.embed(batch.images), batch)
        return {
            "likelihood": balanced_mean(
                pair_likelihood(self.sharpness * products, similar), similar
            )
        }

    def after_step(self) -> None:
        self.steps += 1


def pair_likelihood(theta: Tensor, similar: Tensor) -> Tensor:
    """-log p(s | theta) for p(s = 1) = sigmoid(theta), that is log(1 + exp theta) - s theta; any shapes that broadcast.

    `softplus` is log(1 + exp theta) without overflow.
    """
    return F.softplus(theta) - similar * theta


def balanced_mean(values: Tensor, similar: Tensor) -> Tensor:
    """The mean where similar pairs weigh |S| / |S_1| and others |S| / |S_0|, HashNet's weights: (B, m) twice -> ().

    Which is the mean over similar pairs plus the mean over others; a kind that does not occur adds nothing.
    """
    others = 1 - similar
    return sum((values * kind).sum() / kind.sum().clamp(min=1) for kind in (similar, others))


def contrastive_loss(outputs: Tensor, labels: Tensor, margin: float) -> Tensor:
    """DSH's loss over pairs: half the mean over i < j of d where the two are of one class, else of max(margin - d, 0).

    d is the squared distance, of codes four times the Hamming distance: a margin of 2k asks that half the bits differ.

    Args:
        outputs: (B, k).  labels: (B,).
    Returns:
        (), zero for a single image.
    """
    first, second = torch.triu_indices(len(outputs), len(outputs), offset=1, device=outputs.device)
    distance = (outputs[first] - outputs[second]).square().sum(1)
    loss = torch.where(labels[first] == labels[second], distance, (margin - distance).clamp(min=0))
    return loss.sum() / max(2 * len(loss), 1)


def create_hash_baseline(
    name: str, backbone: nn.Module, bits: int, labels: Tensor, freeze_norm: bool = False
) -> HashMethod:
    """A deep hashing baseline by the name that lab cards use: "dpsh", "dsh" or "hashnet", with its usual settings.

    Args:
        labels: (n,) long, of the training set in its order.
    Raises:
        ValueError: unknown name.
    """
    if name == "dpsh":
        return DPSH(backbone, bits, labels, freeze_norm=freeze_norm)
    if name == "dsh":
        return DSH(backbone, bits, freeze_norm=freeze_norm)
    if name == "hashnet":
        return HashNet(backbone, bits, labels, freeze_norm=freeze_norm)
    raise ValueError(f"unknown hashing baseline '{name}': dpsh, dsh, hashnet")
