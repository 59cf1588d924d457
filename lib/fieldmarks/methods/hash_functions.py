"""Hash functions learnt on frozen features: LSH, ITQ, SH and SDH, the shallow baselines of FCAENet's Table 1.

    codes = create_hash_function("itq", bits=24).fit(training_features)(features)

None of them trains a network. What they are given is up to the experiment: usually a pretrained backbone's pooled features.
"""

import math
from collections.abc import Callable

import faiss
import torch
import torch.nn.functional as F
from torch import Tensor

from fieldmarks.methods.hashing import to_codes

ROWS = 4096  # features hashed at a time


class HashFunction:
    """A function from features to codes, fitted to training features.

    Args:
        bits: k, length of a code.  seed: of everything random, so that the same seed and features give the same codes.
    Raises:
        ValueError: fewer than one bit.
    """

    def __init__(self, bits: int, seed: int = 0):
        if bits < 1:
            raise ValueError(f"bits is {bits}: a code has at least 1 bit")
        self.bits, self.seed = bits, seed
        self.dimensions = None

    def fit(self, features: Tensor, labels: Tensor | None = None) -> "HashFunction":
        """Learn from features (N, D) and, where the function is a supervised one, labels (N,); returns itself.

        Raises:
            ValueError: features that are no (N, D) matrix of finite numbers, too few for so many bits, or labels missing.
        """
        features = _checked(features)
        self._learn(features, labels)
        self.dimensions = features.shape[1]
        return self

    def __call__(self, features: Tensor) -> Tensor:
        """Features (N, D) -> codes (N, k) float32 of -1/+1, on the CPU.

        Raises:
            ValueError: not fitted yet, features of another width than those fitted to, or not finite.
        """
        if self.dimensions is None:
            raise ValueError("this hash function has learnt nothing yet: call fit(features) first")
        features = _checked(features)
        if features.shape[1] != self.dimensions:
            raise ValueError(
                f"features have {features.shape[1]} dimensions, this function was fitted to {self.dimensions}"
            )
        return torch.cat([to_codes(self.project(rows.double())) for rows in features.split(ROWS)])

    def project(self, features: Tensor) -> Tensor:
        """The real numbers whose signs are the bits: (N, D) float64 -> (N, k) float64.

        In double precision, so that what an image is hashed together with does not decide a bit by rounding.
        """
        raise NotImplementedError

    def _learn(self, features: Tensor, labels: Tensor | None) -> None:
        raise NotImplementedError


class LSH(HashFunction):
    """Locality-sensitive hashing (Charikar 2002; faiss's IndexLSH): the sides of k random hyperplanes through the origin.

    The hyperplanes are orthogonal while k is at most D. Two features at angle a differ in k a / pi bits on average.
    """

    def _learn(self, features, labels) -> None:
        rotation = faiss.RandomRotationMatrix(features.shape[1], self.bits)
        rotation.init(self.seed)
        self.directions = _matrix(rotation.A, self.bits)  # (k, D)

    def project(self, features: Tensor) -> Tensor:
        return features @ self.directions.T


class ITQ(HashFunction):
    """Iterative quantisation (Gong & Lazebnik, CVPR 2011): principal directions, rotated to lose least by taking signs.

    NOTE it is faiss's ITQTransform, which learns from centred features brought to unit length.
    """

    def _learn(self, features, labels) -> None:
        _require_variety(features, "ITQ")
        count, dimensions = features.shape
        most = min(count - 1, dimensions)
        if self.bits > most:
            raise ValueError(
                f"ITQ needs a principal direction for each bit: {count} features of {dimensions} dimensions have "
                f"at most {most}, too few for {self.bits} bits"
            )
        transform = faiss.ITQTransform(dimensions, self.bits, True)
        transform.itq.seed = self.seed
        transform.train(features.float().numpy())
        self.mean = _matrix(transform.mean, 1)  # (1, D)
        self.directions = _matrix(transform.pca_then_itq.A, self.bits)  # (k, D), orthonormal

    def project(self, features: Tensor) -> Tensor:
        return (features - self.mean) @ self.directions.T


class SH(HashFunction):
    """Spectral hashing (Weiss, Torralba & Fergus, NIPS 2008): the signs of the smoothest waves over the features' box.

    Features are taken to be uniform in a box along their principal directions. The eigenfunctions of its graph Laplacian are
    known, cos(m pi z) with z from 0 to 1 along a side, and so are their values for new features. See `smoothest_waves`.
    """

    def _learn(self, features, labels) -> None:
        _require_variety(features, "SH")
        features = features.double()
        self.mean = features.mean(0, keepdim=True)
        self.directions = principal_directions(
            features - self.mean, min(self.bits, features.shape[1])
        )
        along = (features - self.mean) @ self.directions.T  # (N, d)
        self.low, self.extent = along.amin(0), along.amax(0) - along.amin(0)
        self.direction, self.mode = smoothest_waves(self.extent, self.bits)

    def project(self, features: Tensor) -> Tensor:
        along = (features - self.mean) @ self.directions.T - self.low
        return torch.cos(
            math.pi * self.mode * along[:, self.direction] / self.extent[self.direction]
        )


class SDH(HashFunction):
    """Supervised discrete hashing (Shen et al., CVPR 2015): codes from which a linear classifier tells the classes.

    Over codes B (N, k) of -1/+1, classifier W (k, C) and projection P (m, k) it lowers, each in turn,

        |Y - B W|^2 + |W|^2 + nu (|B - phi P|^2 + 0.01 |P|^2)

    with Y the labels as one-hot rows and phi(x) the Gaussian kernel of x with anchors, which are training features drawn at
    random, and a constant. The settings are the authors': 1000 anchors, or all features if they are fewer, nu 1e-5, five rounds
    of at most ten sweeps over the bits. The kernel's width is the mean distance to the anchors.

    NOTE the codes B that training ends with know the labels. Here no image is given such a code: those of a database too are
    sign(phi(x) P), as those of queries are.
    """

    nu, rounds = 1e-5, 5

    def __init__(self, bits: int, seed: int = 0, *, anchors: int = 1000):
        super().__init__(bits, seed)
        self.anchor_count = anchors

    def _learn(self, features, labels) -> None:
        if labels is None:
            raise ValueError("SDH is supervised: give fit the labels of the features")
        labels = torch.as_tensor(labels).cpu()
        if labels.shape != (len(features),):
            raise ValueError(
                f"{len(features)} features need as many labels, got shape {tuple(labels.shape)}"
            )
        classes, labels = labels.unique(return_inverse=True)
        if len(classes) < 2:
            raise ValueError("all features are of one class: SDH needs at least two classes")
        _require_variety(features, "SDH")
        features, generator = features.double(), torch.Generator().manual_seed(self.seed)
        self.anchors = features[
            torch.randperm(len(features), generator=generator)[: self.anchor_count]
        ]  # (m - 1, D)
        self.width = torch.cdist(features, self.anchors).mean()
        kernel = self._kernel(features)  # (N, m)
        target = F.one_hot(labels).double()  # Y (N, C)
        codes = to_codes(torch.randn(len(features), self.bits, generator=generator)).double()
        fit_projection = ridge_regression(kernel, 0.01)
        for _ in range(self.rounds):
            classifier = ridge_regression(codes, 1.0)(target)
            codes = discrete_descent(
                codes,
                classifier,
                target @ classifier.T + self.nu * (kernel @ fit_projection(codes)),
            )
        self.projection = fit_projection(codes)

    def project(self, features: Tensor) -> Tensor:
        return self._kernel(features) @ self.projection

    def _kernel(self, features: Tensor) -> Tensor:
        kernel = (
            torch.cdist(features, self.anchors).div_(self.width).square_().div_(-2).exp_()
        )  # in place: N x m is large
        return torch.cat([kernel, kernel.new_ones(len(kernel), 1)], dim=1)


def principal_directions(centred: Tensor, count: int) -> Tensor:
    """The `count` orthonormal directions of largest variance, largest first: (N, D) -> (count, D).

    A direction and its opposite are equally good: here the largest component is positive.
    """
    directions = torch.linalg.eigh(centred.T @ centred).eigenvectors.T.flip(0)[:count]
    largest = directions.gather(1, directions.abs().argmax(1, keepdim=True))
    return directions * largest.sign()


def smoothest_waves(extent: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """The eigenfunctions of a box that spectral hashing uses: those with the smallest 1 - exp(-(m pi / extent)^2 e^2 / 2).

    Whatever e is, these have the lowest frequencies m / extent. A long side of the box gives several, m = 1, 2, ...; a side
    without extent gives none.

    Args:
        extent: (d,) sides of the box, not all zero.  bits: k.
    Returns:
        (k,) side of each wave and (k,) its m, lowest frequency first; of equal ones the lower m, then the first side.
    """
    modes = torch.arange(1, bits + 1, dtype=extent.dtype)
    frequency = modes[:, None] / extent  # (k, d), infinite where a side has no extent
    chosen = frequency.flatten().argsort(stable=True)[:bits]
    return chosen % len(extent), modes[chosen // len(extent)]


def ridge_regression(inputs: Tensor, ridge: float) -> Callable[[Tensor], Tensor]:
    """A function from outputs (N, b) to the X (a, b) that minimises |inputs X - outputs|^2 + ridge |X|^2; inputs are (N, a)."""
    factor = torch.linalg.cholesky(
        inputs.T @ inputs + ridge * torch.eye(inputs.shape[1], dtype=inputs.dtype)
    )
    return lambda outputs: torch.cholesky_solve(inputs.T @ outputs, factor)


def discrete_descent(codes: Tensor, classifier: Tensor, pull: Tensor, sweeps: int = 10) -> Tensor:
    """SDH's discrete cyclic coordinate descent: lower |B W|^2 - 2 <B, pull> over B of -1/+1, one bit of all codes at a time.

    Each bit takes its best value given the others, so that the objective never rises; it stops when a sweep changes nothing.

    Args:
        codes: B (N, k) to start from.  classifier: W (k, C).  pull: (N, k), Y W' + nu phi P in SDH.
    Returns:
        (N, k) of -1/+1.
    """
    codes, coupling = codes.clone(), (classifier @ classifier.T).fill_diagonal_(0)
    for _ in range(sweeps):
        before = codes.clone()
        for bit in range(codes.shape[1]):
            codes[:, bit] = torch.where(pull[:, bit] - codes @ coupling[bit] >= 0, 1.0, -1.0).to(
                codes
            )
        if torch.equal(codes, before):
            break
    return codes


def create_hash_function(name: str, bits: int, seed: int = 0) -> HashFunction:
    """A hash function by the name that lab cards use: "lsh", "itq", "sh" or "sdh".

    Raises:
        ValueError: unknown name, or fewer than one bit.
    """
    functions = {"lsh": LSH, "itq": ITQ, "sh": SH, "sdh": SDH}
    if name not in functions:
        raise ValueError(f"unknown hash function '{name}': {', '.join(functions)}")
    return functions[name](bits, seed)


def _checked(features: Tensor) -> Tensor:
    features = torch.as_tensor(features).detach().cpu()
    if features.ndim != 2 or 0 in features.shape or not features.is_floating_point():
        raise ValueError(
            f"features must be a non-empty (N, D) matrix of real numbers, got {features.dtype} of shape "
            f"{tuple(features.shape)}"
        )
    broken = (~features.isfinite().all(1)).nonzero().flatten()
    if len(broken):
        raise ValueError(
            f"{len(broken)} of {len(features)} features hold NaN or infinity, first at row {int(broken[0])}"
        )
    return features


def _require_variety(features: Tensor, name: str) -> None:
    if (features == features[0]).all():
        raise ValueError(f"{name} needs features that differ, but all {len(features)} are equal")


def _matrix(values, rows: int) -> Tensor:
    return torch.from_numpy(faiss.vector_to_array(values)).double().view(rows, -1)
