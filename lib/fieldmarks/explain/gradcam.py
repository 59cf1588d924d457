"""Grad-CAM for retrieval: where in an image lies what makes it similar to its match.

Selvaraju et al., "Grad-CAM", ICCV 2017, eq. 1-2: channels of the feature map are weighted by the
mean gradient of a target over all positions, added, and cut at zero. For an embedding the target is
the cosine to a reference; its largest dimension, a classifier's target, means nothing here.

NOTE the grad-cam package computes the same, but puts the model in eval mode and gradients into its
parameters, fails on a frozen backbone, swallows an IndexError, and stretches every map from its own
minimum. Here one hook makes the backbone's output a leaf, and the model is left as it was."""

import torch
from torch import Tensor, nn

from fieldmarks.explain.explainer import Outputs, check_features, cosine, to_maps


def pair_map(
    embed: Outputs, backbone: nn.Module, images: Tensor, reference_embeddings: Tensor
) -> Tensor:
    """What in each image makes it similar to its reference: the target is the cosine to it.

    NOTE the embedding's own length is held fixed. The gradient of the full cosine is orthogonal to
    the embedding, so that its map adds up to zero: what two images share most is taken out of it.
    With the length held, and global average pooling, the map is what each position contributes to
    the cosine (Stylianou et al. 2019).

    embed: (B, 3, H, W) -> (B, D) before normalisation; must run `backbone` once, with gradients on.
    backbone: the module whose output (B, C, h, w) is explained.  images: (B, 3, H, W), normalised.
    reference_embeddings: (B, D), or (D,) for one reference of all images, of any length.

    Returns (B, H, W) float32 in [0, 1], each divided by its maximum; 0 where nothing speaks for it.
    ValueError: shapes do not fit, or all embeddings are unit vectors.  RuntimeError: no gradient
    reaches the backbone."""
    target = lambda embeddings: cosine(embeddings, reference_embeddings, hold_length=True)
    return _explain(embed, backbone, images, target)


def class_map(logits: Outputs, backbone: nn.Module, images: Tensor, classes) -> Tensor:
    """What in each image speaks for a class, one index or (B,) of them: the target is its logit.
    `logits` is (B, 3, H, W) -> (B, classes), otherwise as `embed` of `pair_map`."""

    def target(output: Tensor) -> Tensor:
        index = torch.as_tensor(classes, device=output.device).expand(len(output))
        if index.min() < 0 or index.max() >= output.shape[1]:
            ends = f"{output.shape[1] - 1}, got {index.min()} to {index.max()}"
            raise ValueError(f"what is explained must lie between 0 and {ends}")
        return output.gather(1, index[:, None])[:, 0]

    return _explain(logits, backbone, images, target)


dimension_map = class_map  # of responses (B, k), such as those of an attribute encoder


@torch.no_grad()
def activation_maps(backbone: nn.Module, images: Tensor) -> Tensor:
    """Channel mean of the feature map, without any target: (B, 3, H, W) -> (B, H, W) in [0, 1]."""
    features = backbone(images)
    check_features(features)
    return to_maps(features.mean(dim=1), images.shape[-2:])


def _explain(forward: Outputs, backbone: nn.Module, images: Tensor, target: Outputs) -> Tensor:
    features = []

    def keep(module, inputs, output: Tensor) -> Tensor:
        check_features(output)
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
        seen = f"it saw batches of {[len(batch) for batch in features]}"
        raise RuntimeError(f"the backbone must see all {len(images)} images once, {seen}")
    if not score.requires_grad:
        raise RuntimeError("no gradient reaches the backbone: is `embed` run under no_grad?")
    (gradients,) = torch.autograd.grad(score, features)
    weights = gradients.float().mean(dim=(2, 3))  # eq. 1, (B, C)
    maps = torch.einsum("bc,bchw->bhw", weights, features[0].detach().float())  # eq. 2
    return to_maps(maps, images.shape[-2:])
