"""Grad-CAM for retrieval: where in an image lies what makes it similar to its match.

Selvaraju et al., "Grad-CAM", ICCV 2017, eq. 1-2: channels of the feature map are weighted by the mean
gradient of a target over all positions, added, and cut at zero. The target gives the map its meaning.
For an embedding it is the cosine to a reference embedding; its largest dimension, the target of a
classifier's Grad-CAM, means nothing here.

NOTE the grad-cam package computes the same (the tests hold it against this file), but it puts the
model in eval mode and gradients into its parameters, fails on a frozen backbone, whose output asks
for no gradient, swallows an IndexError raised inside its context, and stretches every map from its
own minimum. Here one hook replaces the backbone's output by a leaf that asks for gradients: it is
removed whatever happens, the backbone runs without a graph, and the model is left as it was.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def pair_map(
    embed: Callable[[Tensor], Tensor],
    backbone: nn.Module,
    images: Tensor,
    reference_embeddings: Tensor,
) -> Tensor:
    """What in each image makes it similar to its reference: the target is the cosine to it.

    For a query and its match call it twice, each image with the other's embedding.

    NOTE the embedding's own length is held fixed. The gradient of the full cosine is orthogonal to the
    embedding, so that its map adds up to zero over the image: what two images share most is taken out
    of it, and background lights up instead. With the length held, and global average pooling, the map
    is what each position contributes to the cosine (Stylianou et al. 2019).

    Args:
        embed: (B, 3, H, W) images -> (B, D) embeddings of any length; it must run `backbone` on all B
            images once, with gradients on.
        backbone: the module whose output (B, C, h, w) is explained.
        images: (B, 3, H, W), normalised as the backbone expects.
        reference_embeddings: (B, D), or (D,) for one reference of all images, of any length.

    Returns:
        (B, H, W) float32 in [0, 1], each map divided by its maximum; zero where nothing speaks for
        the target.

    Raises:
        ValueError: shapes do not fit.
        RuntimeError: `embed` does not run the backbone, or not differentiably.
    """

    def target(embeddings: Tensor) -> Tensor:
        shapes = tuple(reference_embeddings.shape), tuple(embeddings.shape)
        if shapes[0] not in (shapes[1], shapes[1][1:]):
            raise ValueError(
                f"reference embeddings {shapes[0]} do not fit embeddings of shape {shapes[1]}"
            )
        reference = reference_embeddings.to(embeddings).detach().expand_as(embeddings)
        return (embeddings * F.normalize(reference, dim=1)).sum(1) / embeddings.norm(dim=1).detach()

    return _explain(embed, backbone, images, target)


def class_map(
    logits: Callable[[Tensor], Tensor], backbone: nn.Module, images: Tensor, classes
) -> Tensor:
    """What in each image speaks for a class: the target is one logit per image.

    Args:
        logits: (B, 3, H, W) -> (B, classes), running `backbone` inside.
        classes: one index, or (B,) indices. Others as `pair_map`, as what it returns and raises.
    """
    return _explain(logits, backbone, images, lambda output: _select(output, classes, "class"))


def dimension_map(
    respond: Callable[[Tensor], Tensor], backbone: nn.Module, images: Tensor, dimensions
) -> Tensor:
    """What in each image fires one output unit, such as one dimension of an attribute encoder:
    `class_map` of `respond` (B, 3, H, W) -> (B, k)."""
    return _explain(respond, backbone, images, lambda out: _select(out, dimensions, "dimension"))


@torch.no_grad()
def activation_maps(backbone: nn.Module, images: Tensor) -> Tensor:
    """Channel mean of the feature map, without any target: (B, 3, H, W) -> (B, H, W) in [0, 1]."""
    features = backbone(images)
    _check_features(features)
    return _scale(features.float().mean(dim=1), images.shape[-2:])


def grad_cam(features: Tensor, gradients: Tensor) -> Tensor:
    """Eq. 1-2: (B, C, h, w) features and gradients of the target -> (B, h, w), not yet scaled."""
    weights = gradients.mean(dim=(2, 3))  # (B, C)
    return torch.einsum("bc,bchw->bhw", weights, features).relu()


def _explain(
    forward: Callable[[Tensor], Tensor],
    backbone: nn.Module,
    images: Tensor,
    target: Callable[[Tensor], Tensor],
) -> Tensor:
    features = []

    def keep(module, inputs, output: Tensor) -> Tensor:
        _check_features(output)
        features.append(output.detach().requires_grad_())
        return features[-1]

    handle = backbone.register_forward_hook(keep)
    try:
        with torch.enable_grad():
            # images do not meet, so the gradient of the sum is each one's own
            score = target(forward(images)).sum()
    finally:
        handle.remove()
    if len(features) != 1 or len(features[0]) != len(images):
        raise RuntimeError(
            f"the backbone must see all {len(images)} images once, "
            f"it saw batches of {[len(batch) for batch in features]}"
        )
    if not score.requires_grad:
        raise RuntimeError(
            "no gradient reaches the backbone's output: is the embedding computed under no_grad?"
        )
    (gradients,) = torch.autograd.grad(score, features)
    return _scale(grad_cam(features[0].detach().float(), gradients.float()), images.shape[-2:])


def _scale(maps: Tensor, size) -> Tensor:
    """(B, h, w) -> (B, H, W) bilinear, each divided by its maximum."""
    maps = F.interpolate(maps[:, None].relu(), tuple(size), mode="bilinear", align_corners=False)
    peak = maps.amax(dim=(2, 3), keepdim=True)
    return torch.where(peak > 0, maps / peak, 0.0)[:, 0]


def _select(output: Tensor, index, what: str) -> Tensor:
    index = torch.as_tensor(index, device=output.device).expand(len(output))
    if index.min() < 0 or index.max() >= output.shape[1]:
        raise ValueError(
            f"{what} must lie between 0 and {output.shape[1] - 1}, "
            f"got {index.min()} to {index.max()}"
        )
    return output.gather(1, index[:, None])[:, 0]


def _check_features(features: Tensor) -> None:
    if not isinstance(features, Tensor) or features.ndim != 4:
        shape = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
        raise ValueError(f"the backbone must return a feature map (B, C, h, w), got {shape}")
