"""Features of a frozen network, computed once and kept in the cache: all heads read the same
file."""

import copy
import hashlib
import warnings
from collections.abc import Callable

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from fieldmarks.checkpoints import save_tensors
from fieldmarks.data.pixels import PixelCache, cache_key
from fieldmarks.files import cache_home
from fieldmarks.methods.method import Method
from fieldmarks.progress import counter
from fieldmarks.training import choose_precision, embed_all

BATCH = 64
CLASS_SORTED_BATCH = 256  # of PAN's official feature extraction


def frozen_features(
    pixels: PixelCache,
    method: Method,
    views: Callable,
    *,
    device="cpu",
    precision="auto",
    batch_statistics=False,
    progress="none",
) -> Tensor:
    """A method's embeddings of all images, in order: (N, D) float32 on the CPU.

    They are kept under what they depend on: the image files as they are now, their decoded size,
    the views, the very weights of the network, the precision and the kind of device.

    Args:
        method: any, such as an `Unscaled` one. It is left as it is, and runs in evaluation
            mode.
        views: as `augment.TestViews`.
        batch_statistics: normalise by the statistics of batches of 256 in the order given, as PAN's
            official code does, which never leaves training mode. NOTE where images are sorted by
            class, features then know which images came together.
    Raises:
        ValueError: a feature is not a number.  OSError: the cache cannot be written."""
    device = torch.device(device)
    precision = choose_precision(precision, device, method)
    name = _name(pixels, method, views, device.type, precision, batch_statistics)
    file = cache_home() / "features" / f"{name}.safetensors"
    if file.is_file():
        try:
            return load_file(file)["features"]
        except (OSError, SafetensorError) as error:
            warnings.warn(f"{file} is damaged ({error}); it is made again", stacklevel=2)
    show, done = counter("images embedded", progress), 0

    def counted(canvas: Tensor, sizes: Tensor) -> Tensor:
        nonlocal done
        show(done := done + len(canvas), len(pixels))
        return views(canvas, sizes)

    method = copy.deepcopy(method)  # statistics of a batch are also added to the running ones
    features = embed_all(
        _BatchStatistics(method) if batch_statistics else method,
        pixels,
        counted,
        device=device,
        precision=precision,
        batch_size=CLASS_SORTED_BATCH if batch_statistics else BATCH,
    )
    if not features.isfinite().all():
        row = int((~features.isfinite()).any(1).nonzero()[0])
        raise ValueError(
            f"features of {pixels.paths[row]} are not numbers: the network's weights are damaged, "
            f"or precision {precision} is not enough for them"
        )
    save_tensors(file, {"features": features})
    return features


class Unscaled(Method):
    """A method's embeddings before they are brought to unit length."""

    def __init__(self, method: Method):
        super().__init__(method.backbone)
        self.method = method

    def embed(self, images: Tensor) -> Tensor:
        return self.method.representation(images)


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


def _name(pixels: PixelCache, method: Method, *rest) -> str:
    digest = hashlib.sha256(cache_key(pixels.paths, pixels.shorter_side).encode())
    digest.update(f"{_kind(method)} {method.backbone.name} {rest}".encode())
    for name, value in method.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:32]


def _kind(module: nn.Module) -> str:
    """What neither a method's weights nor its backbone tell: classes and options."""
    plain = {n: v for n, v in vars(module).items() if isinstance(v, (int, float, str, tuple))}
    options = {n: v for n, v in plain.items() if n != "training" and not n.startswith("_")}
    parts = [_kind(part) for name, part in module.named_children() if name != "backbone"]
    return f"{type(module).__name__} {options} {parts}"
