"""Features of a frozen network, computed once and kept in the cache: every head that is trained on them reads the same file."""

import copy
import hashlib
import warnings
from collections.abc import Callable

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fieldmarks.backbones import Backbone
from fieldmarks.data.pixels import PixelCache, _key
from fieldmarks.files import atomic, cache_home
from fieldmarks.methods.method import Method
from fieldmarks.progress import counter
from fieldmarks.training import choose_precision, embed_all

BATCH = 64
CLASS_SORTED_BATCH = 256  # of PAN's official feature extraction


def frozen_features(
    pixels: PixelCache,
    network: Backbone | Method,
    views: Callable,
    *,
    device: str | torch.device = "cpu",
    precision: str = "auto",
    batch_statistics: bool = False,
    progress: str = "none",
) -> Tensor:
    """What a network makes of all images, in order: (N, C) float32 on the CPU.

    It is kept under what it depends on: the image files as they are now, their decoded size, the views, the very weights of the
    network, the precision and the kind of device.

    Args:
        pixels: decoded images.
        network: a backbone, whose features are averaged over the image and not normalised, or a method, whose embeddings are
            taken. It is left as it is, and runs in evaluation mode.
        views: as `augment.TestViews`.
        precision: as `training.choose_precision`.
        batch_statistics: normalise by the statistics of batches of 256 in the order given, as PAN's official code does, which
            never leaves training mode. NOTE where images are sorted by class, features then know which images came together.

    Raises:
        ValueError: a feature is not a number.  OSError: the cache cannot be written.
    """
    device = torch.device(device)
    precision = choose_precision(precision, device, network)
    file = (
        cache_home()
        / "features"
        / f"{_name(pixels, network, views, device, precision, batch_statistics)}.safetensors"
    )
    if file.is_file():
        try:
            return load_file(file)["features"]
        except (OSError, SafetensorError) as error:
            warnings.warn(
                f"the features in {file} are damaged ({error}); they are made again", stacklevel=2
            )
    show, done = counter("images embedded", progress), 0

    def counted(canvas: Tensor, sizes: Tensor) -> Tensor:
        nonlocal done
        show(done := done + len(canvas), len(pixels))
        return views(canvas, sizes)

    network = copy.deepcopy(network)  # statistics of a batch are also added to the running ones
    method = network if isinstance(network, Method) else _Pooled(network)
    if batch_statistics:
        method = _BatchStatistics(method)
    features = embed_all(
        method,
        pixels,
        counted,
        device=device,
        precision=precision,
        batch_size=CLASS_SORTED_BATCH if batch_statistics else BATCH,
    )
    if not features.isfinite().all():
        row = int((~features.isfinite()).any(1).nonzero()[0])
        raise ValueError(
            f"features of {pixels.paths[row]} are not numbers: the network's weights are damaged, or precision "
            f"{precision} is not enough for them"
        )
    with atomic(file) as temporary:
        save_file({"features": features.contiguous()}, temporary)
    return features


def check_images(p, generated: str) -> None:
    """Raises ValueError, one line, where an experiment on frozen features names no data or image sizes that cannot be."""
    if not p.root and p.dataset != generated:
        raise ValueError(
            f"root is empty: give the folder of {p.dataset} (only the generated {generated} needs none)"
        )
    if not 1 <= p.size <= p.resize:
        raise ValueError(
            f"size is {p.size} and resize is {p.resize}: size must be at least 1 and at most resize"
        )


class _Pooled(Method):
    """Global average pooling, not brought to unit length."""

    def embed(self, images: Tensor) -> Tensor:
        return self.describe(images)


class _BatchStatistics(Method):
    """A method whose batch normalisation never leaves training mode."""

    def __init__(self, method: Method):
        super().__init__(method.backbone)
        self.method = method

    def train(self, mode: bool = True):
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.train()
        return self

    def embed(self, images: Tensor) -> Tensor:
        return self.method.embed(images)


def _name(pixels: PixelCache, network: nn.Module, views: Callable, *rest) -> str:
    digest = hashlib.sha256(_key(pixels.paths, pixels.shorter_side).encode())
    device, *others = rest
    name = getattr(network, "backbone", network).name
    digest.update(f"{type(network).__name__} {name} {views} {device.type} {others}".encode())
    for name, value in network.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:32]
