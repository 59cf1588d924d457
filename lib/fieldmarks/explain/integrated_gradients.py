"""Integrated gradients (Sundararajan et al., "Axiomatic Attribution for Deep Networks", ICML 2017):
what each pixel adds to the cosine on the straight way from a baseline to the match."""

import torch
from torch import Tensor, nn

from fieldmarks.checks import at_least
from fieldmarks.explain.explainer import Outputs, check_pairs, cosine, evaluating, to_maps


def integrated_gradients(
    embed: Outputs,
    backbone: nn.Module,
    query: Tensor,
    match: Tensor,
    *,
    baseline: Tensor | float = 0.0,
    steps: int = 16,
) -> Tensor:
    """The sum over channels of `attributions`, as an explainer (see `explainer`): a pass of the
    network with gradients for each step."""
    signed = attributions(embed, backbone, query, match, baseline=baseline, steps=steps)
    return to_maps(signed.sum(1), match.shape[-2:])


def attributions(
    embed: Outputs,
    backbone: nn.Module,
    query: Tensor,
    match: Tensor,
    *,
    baseline: Tensor | float = 0.0,
    steps: int = 16,
) -> Tensor:
    """Eq. 1 and 3, by the midpoints of `steps` intervals: (B, 3, H, W) float32 of either sign. With
    steps enough each adds up to the cosine of the match less that of the baseline (completeness).

    baseline: an image that says nothing, of a shape that broadcasts to the matches'; 0 of
    normalised images is the mean colour of the data that the weights were trained on.
    ValueError: no pairs, a baseline that does not fit, or steps below 1.
    RuntimeError: no gradient reaches the image."""
    check_pairs(query, match)
    at_least(1, steps=steps)
    start = torch.as_tensor(baseline).to(match)
    try:
        start = start.expand_as(match)
    except RuntimeError as error:
        shapes = f"{tuple(start.shape)} does not fit images {tuple(match.shape)}"
        cure = "give one image or one colour (3, 1, 1)"
        raise ValueError(f"a baseline of shape {shapes}: {cure}") from error
    total = torch.zeros_like(match, dtype=torch.float32)
    with evaluating(embed, backbone):
        with torch.no_grad():
            reference = embed(query).float()
        for step in range(steps):
            point = (start + (step + 0.5) / steps * (match - start)).detach().requires_grad_()
            with torch.enable_grad():
                score = cosine(embed(point).float(), reference).sum()
                if not score.requires_grad:
                    raise RuntimeError("no gradient reaches the image: is `embed` under no_grad?")
                total += torch.autograd.grad(score, point)[0].float() / steps
    return total * (match - start).float()
