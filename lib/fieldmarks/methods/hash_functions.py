"""Hash functions learned on frozen features: the shallow baselines of FCAENet's Table 1.

codes = create_hash_function("itq", bits=24).fit(training_features)(features)"""

import math
from collections.abc import Callable

import faiss
import torch
import torch.nn.functional as F
from torch import Tensor

from fieldmarks.checks import at_least, one_of
from fieldmarks.labels import integer_labels
from fieldmarks.methods.hashing import to_codes

ROWS = 4096  # features hashed at a time


class HashFunction:
    """From features to codes of k = `bits`; the same seed and features give the same codes."""

    learns = True  # from the features, which must differ
    mean: Tensor | float
    directions: Tensor  # (k, D)

    def __init__(self, bits: int, seed: int = 0):
        at_least(1, bits=bits)
        self.bits, self.seed, self.dimensions = bits, seed, None

    def fit(self, features: Tensor, labels: Tensor | None = None) -> "HashFunction":
        """Learn from features (N, D) and, for SDH, labels (N,); returns itself."""
        features = _checked(features)
        if self.learns and (features == features[0]).all():
            given = f"all {len(features)} are equal"
            raise ValueError(f"{type(self).__name__} needs features that differ, but {given}")
        self._learn(features, labels)
        self.dimensions = features.shape[1]
        return self

    def _learn(self, features: Tensor, labels: Tensor | None) -> None:
        raise NotImplementedError

    def __call__(self, features: Tensor) -> Tensor:
        """Features (N, D) -> codes (N, k) float32 of -1/+1, on the CPU."""
        if self.dimensions is None:
            raise ValueError("this hash function is not fitted: call fit(features) first")
        features = _checked(features)
        if (width := features.shape[1]) != self.dimensions:
            given = f"this function was fitted to {self.dimensions}"
            raise ValueError(f"features have {width} dimensions, {given}")
        return torch.cat([to_codes(self.project(rows.double())) for rows in features.split(ROWS)])

    def project(self, features: Tensor) -> Tensor:
        """(N, D) -> (N, k), whose signs are the bits; float64, so that rows stand alone."""
        return (features - self.mean) @ self.directions.T


class LSH(HashFunction):
    """Locality-sensitive hashing (Charikar 2002; faiss's IndexLSH): sides of random hyperplanes,
    orthogonal while k is at most D. Features at angle a differ in k a / pi bits on average."""

    learns = False

    def _learn(self, features, labels) -> None:
        rotation = faiss.RandomRotationMatrix(features.shape[1], self.bits)
        rotation.init(self.seed)
        self.mean, self.directions = 0.0, _matrix(rotation.A, self.bits)  # (k, D)


class ITQ(HashFunction):
    """Iterative quantisation (Gong & Lazebnik, CVPR 2011): principal directions, rotated to lose
    least by signs. NOTE faiss's ITQTransform learns from centred features of unit length."""

    def _learn(self, features, labels) -> None:
        count, dimensions = features.shape
        if self.bits > (most := min(count - 1, dimensions)):
            given = f"{count} features of {dimensions} dimensions have at most {most}"
            raise ValueError(f"ITQ needs a direction a bit: {given}, too few for {self.bits} bits")
        transform = faiss.ITQTransform(dimensions, self.bits, True)
        transform.itq.seed = self.seed
        transform.train(features.float().numpy())
        self.mean = _matrix(transform.mean, 1)  # (1, D)
        self.directions = _matrix(transform.pca_then_itq.A, self.bits)  # (k, D), orthonormal


class SH(HashFunction):
    """Spectral hashing (Weiss, Torralba & Fergus, NIPS 2008): signs of the smoothest waves,
    cos(m pi z), in a box along the principal directions that features are taken to fill evenly."""

    def _learn(self, features, labels) -> None:
        features = features.double()
        self.mean = features.mean(0, keepdim=True)
        count = min(self.bits, features.shape[1])
        self.directions = principal_directions(features - self.mean, count)
        along = super().project(features)  # (N, d)
        self.low, self.extent = along.amin(0), along.amax(0) - along.amin(0)
        self.direction, self.mode = smoothest_waves(self.extent, self.bits)

    def project(self, features: Tensor) -> Tensor:
        along = super().project(features) - self.low
        side = self.direction
        return torch.cos(math.pi * self.mode * along[:, side] / self.extent[side])


class SDH(HashFunction):
    """Supervised discrete hashing (Shen et al., CVPR 2015): a linear classifier tells its classes.

    Over codes B (N, k) of -1/+1, classifier W (k, C) and projection P (m, k) it lowers, in turn,

        |Y - B W|^2 + |W|^2 + nu (|B - phi P|^2 + 0.01 |P|^2)

    with Y the labels as one-hot rows and phi(x) a Gaussian kernel with random training features,
    the anchors, as wide as their mean distance, and a constant. NOTE training's codes B know the
    labels; here no image gets such a code: those of a database are sign(phi(x) P) too."""

    nu, rounds = 1e-5, 5

    def __init__(self, bits: int, seed: int = 0, *, anchors: int = 1000):
        super().__init__(bits, seed)
        self.anchor_count = anchors

    def _learn(self, features, labels) -> None:
        if labels is None:
            raise ValueError("SDH is supervised: give fit the labels of the features")
        count = len(features)
        labels = integer_labels(labels, count=count).cpu()
        classes, labels = labels.unique(return_inverse=True)
        if len(classes) < 2:
            raise ValueError("all features are of one class: SDH needs at least two classes")
        features, generator = features.double(), torch.Generator().manual_seed(self.seed)
        drawn = torch.randperm(count, generator=generator)[: self.anchor_count]
        self.anchors = features[drawn]  # (m - 1, D)
        self.width = torch.cdist(features, self.anchors).mean()
        kernel = self._kernel(features)  # (N, m)
        target = F.one_hot(labels).double()  # Y (N, C)
        codes = to_codes(torch.randn(count, self.bits, generator=generator)).double()
        fit_projection = ridge_regression(kernel, 0.01)
        for _ in range(self.rounds):
            classifier = ridge_regression(codes, 1.0)(target)
            linear = target @ classifier.T + self.nu * (kernel @ fit_projection(codes))
            codes = discrete_descent(codes, classifier, linear)
        self.projection = fit_projection(codes)

    def project(self, features: Tensor) -> Tensor:
        return self._kernel(features) @ self.projection

    def _kernel(self, features: Tensor) -> Tensor:
        kernel = torch.cdist(features, self.anchors)  # N x m is large: in place from here
        kernel.div_(self.width).square_().div_(-2).exp_()
        return torch.cat([kernel, kernel.new_ones(len(kernel), 1)], dim=1)


def principal_directions(centred: Tensor, count: int) -> Tensor:
    """The `count` orthonormal directions of largest variance, largest first: (N, D) -> (count, D),
    each turned so that its largest component is positive."""
    directions = torch.linalg.eigh(centred.T @ centred).eigenvectors.T.flip(0)[:count]
    largest = directions.gather(1, directions.abs().argmax(1, keepdim=True))
    return directions * largest.sign()


def smoothest_waves(extent: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """The eigenfunctions with the smallest 1 - exp(-(m pi / extent)^2 e^2 / 2), as SH uses.
    Sides (d,) of the box, not all zero -> (k,) side of each wave and (k,) its m. Whatever e is,
    these have the lowest frequencies m / extent; of equal ones the lower m, then the first side."""
    modes = torch.arange(1, bits + 1, dtype=extent.dtype)
    frequency = modes[:, None] / extent  # (k, d), infinite where a side has no extent
    chosen = frequency.flatten().argsort(stable=True)[:bits]
    return chosen % len(extent), modes[chosen // len(extent)]


def ridge_regression(inputs: Tensor, ridge: float) -> Callable[[Tensor], Tensor]:
    """From outputs (N, b) to the X (a, b) of least |inputs X - outputs|^2 + ridge |X|^2."""
    identity = torch.eye(inputs.shape[1], dtype=inputs.dtype)
    factor = torch.linalg.cholesky(inputs.T @ inputs + ridge * identity)
    return lambda outputs: torch.cholesky_solve(inputs.T @ outputs, factor)


def discrete_descent(codes: Tensor, classifier: Tensor, linear: Tensor, sweeps: int = 10) -> Tensor:
    """SDH's discrete cyclic coordinate descent: lower |B W|^2 - 2 <B, linear>, a bit at a time,
    from codes B (N, k) of -1/+1, classifier W (k, C), and linear (N, k), Y W' + nu phi P in SDH.
    The objective never rises; it stops when a sweep changes nothing."""
    codes, coupling = codes.clone(), (classifier @ classifier.T).fill_diagonal_(0)
    for _ in range(sweeps):
        before = codes.clone()
        for bit in range(codes.shape[1]):
            better = linear[:, bit] - codes @ coupling[bit] >= 0
            codes[:, bit] = torch.where(better, 1.0, -1.0).to(codes)
        if torch.equal(codes, before):
            break
    return codes


def create_hash_function(name: str, bits: int, seed: int = 0) -> HashFunction:
    """LSH, ITQ, SH or SDH by name, in lower case."""
    functions = {"lsh": LSH, "itq": ITQ, "sh": SH, "sdh": SDH}
    one_of("hash function", name, functions)
    return functions[name](bits, seed)


def _checked(features: Tensor) -> Tensor:
    features = torch.as_tensor(features).detach().cpu()
    if features.ndim != 2 or 0 in features.shape or not features.is_floating_point():
        shape = f"{features.dtype} of shape {tuple(features.shape)}"
        raise ValueError(f"features must be a non-empty (N, D) matrix of real numbers, got {shape}")
    broken = (~features.isfinite().all(1)).nonzero().flatten().tolist()
    if broken:
        share = f"{len(broken)} of {len(features)} features"
        raise ValueError(f"{share} hold NaN or infinity, first at row {broken[0]}")
    return features


def _matrix(values, rows: int) -> Tensor:
    return torch.from_numpy(faiss.vector_to_array(values)).double().view(rows, -1)
