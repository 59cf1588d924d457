"""Convolutions that give what timm's give in fewer passes over the features."""

import copy
from itertools import pairwise

import torch
import torch.nn.functional as F
from timm.layers import BatchNormAct2d, Conv2dSame
from timm.layers.padding import get_same_padding, pad_same
from torch import Tensor, nn

from fieldmarks.random import seeded


def pad_kernels(network: nn.Module) -> None:
    """Let convolutions that pad as TensorFlow does, which copies the features, take a kernel with
    a row and a column of zeros more instead, on CPUs and where nothing is learned: backward passes
    of such kernels cost what the copy does."""
    for module in network.modules():
        if type(module) is Conv2dSame:
            module.__class__ = _Conv2dSame


def fold_norms(network: nn.Module, names: list[str], image_size: int) -> None:
    """Compute batch normalisations together with the convolutions whose output they take: one pass
    over the features less, a sixth to a quarter of a forward pass on CPUs. Weights and their
    names stay as they are, and what comes out, but for rounding.

    Args:
        names: modules of the network that are not trained, with the norms among them in evaluation
            mode; in training mode they compute as before.
        image_size: pixels of an image that the network takes."""
    still = {network.get_submodule(name) for name in names}
    places = {module: place for place, module in enumerate(network.modules())}
    pairs = [
        (places[conv], places[norm])
        for parent in network.modules()
        for conv, norm in pairwise(parent.children())
        if type(conv) in CONVOLUTIONS and type(norm) in NORMS and {conv, norm} <= still
        if conv.out_channels == norm.num_features and norm.affine and norm.track_running_stats
    ]
    if _may_be_folded(network, pairs, image_size):
        _fold(network, pairs)


def _with_norm(conv: nn.Conv2d) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of a convolution and of the norm that comes next, where they are folded: in
    its attribute `norm`, which is no submodule."""
    norm = conv.__dict__.get("norm")
    if norm is None or norm.training:
        return conv.weight, conv.bias
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    bias = norm.bias - norm.running_mean * scale
    if conv.bias is not None:
        bias = bias + conv.bias * scale
    return conv.weight * scale[:, None, None, None], bias


class _Conv2d(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, *_with_norm(self))


class _Conv2dSame(Conv2dSame):
    def forward(self, x: Tensor) -> Tensor:
        weight, bias = _with_norm(self)
        axes = zip(x.shape[-2:], self.kernel_size, self.stride, self.dilation, strict=True)
        totals = [get_same_padding(*axis) for axis in axes]
        learns = torch.is_grad_enabled() and (weight.requires_grad or x.requires_grad)
        if learns or x.device.type != "cpu" or self.dilation != (1, 1):
            x, totals = pad_same(x, self.kernel_size, self.stride, self.dilation), [0, 0]
        odd, padding = [total % 2 for total in totals], [(total + 1) // 2 for total in totals]
        if any(odd):
            weight = F.pad(weight, (odd[1], 0, odd[0], 0))
        return F.conv2d(x, weight, bias, self.stride, padding, self.dilation, self.groups)


class _BatchNorm2d(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if self.training else x


class _BatchNormAct2d(BatchNormAct2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if self.training else self.act(self.drop(x))


CONVOLUTIONS = {nn.Conv2d: _Conv2d, _Conv2dSame: _Conv2dSame}
NORMS = {nn.BatchNorm2d: _BatchNorm2d, BatchNormAct2d: _BatchNormAct2d}


def _fold(network: nn.Module, pairs: list[tuple[int, int]]) -> None:
    modules = list(network.modules())
    for conv, norm in ((modules[a], modules[b]) for a, b in pairs):
        conv.__dict__["norm"] = norm
        conv.__class__, norm.__class__ = CONVOLUTIONS[type(conv)], NORMS[type(norm)]


@torch.no_grad()
def _may_be_folded(network: nn.Module, pairs: list[tuple[int, int]], image_size: int) -> bool:
    """Whether each norm takes what its convolution gives, and nothing else does: whether features
    stay as they are whatever the statistics, of which new networks have zeros and ones."""
    trial, generator = copy.deepcopy(network).float().cpu().eval(), seeded(image_size)
    modules = list(trial.modules())
    for _, norm in pairs:
        for values in (modules[norm].running_mean, modules[norm].running_var):
            values.add_(torch.rand(values.shape, generator=generator))
    image = torch.rand(1, 3, image_size, image_size, generator=generator)
    before = trial.forward_features(image)
    _fold(trial, pairs)
    change = (trial.forward_features(image) - before).abs().max()
    return bool(change <= 1e-3 * before.abs().max())
