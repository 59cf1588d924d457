"""Explainers out of explainers (see `explainer`)."""

import torch.nn.functional as F
from torch import Tensor, nn

from fieldmarks.checks import positive
from fieldmarks.explain.explainer import Explainer, Outputs, check_pairs, to_maps


def enlarged(explain: Explainer, factor: float = 1.5) -> Explainer:
    """The map of both images enlarged, which have more places: the map is finer, and on drawn birds
    more of it lies in the part that counts, though its maximum does no more often (see
    `fieldmarks.explain.trust`). factor ** 2 times the cost."""
    positive(factor=factor)

    def of_larger(embed: Outputs, backbone: nn.Module, query: Tensor, match: Tensor) -> Tensor:
        check_pairs(query, match)
        options = {"mode": "bilinear", "antialias": True, "align_corners": False}
        scale = lambda images: F.interpolate(
            images, [round(factor * side) for side in images.shape[-2:]], **options
        )
        heat = explain(embed, backbone, scale(query), scale(match))
        return to_maps(heat, match.shape[-2:])

    return of_larger
