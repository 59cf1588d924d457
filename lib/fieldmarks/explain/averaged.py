"""What makes a map finer than the places of its feature map: other explainers, averaged over views
of the match. Both make explainers (see `explainer`) out of explainers."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fieldmarks.checks import at_least, positive
from fieldmarks.explain.explainer import Explainer, Outputs, check_pairs, to_maps


def averaged(explain: Explainer, shifts: int = 3, step: int = 10) -> Explainer:
    """Mean over shifts x shifts views of the match, `step` pixels apart and half of them mirrored,
    each map moved back; the border is repeated where a view reaches beyond the image. A feature
    map's places are 32 px wide: views between them tell more. shifts x shifts times the cost.

    As test-time augmentation of class activation maps: Gildenblat et al., the grad-cam package's
    `aug_smooth`, which mirrors and changes the contrast."""
    at_least(1, shifts=shifts, step=step)

    def of_views(embed: Outputs, backbone: nn.Module, query: Tensor, match: Tensor) -> Tensor:
        check_pairs(query, match)
        height, width = match.shape[-2:]
        reach = step * (shifts // 2)
        wide = F.pad(match, (reach,) * 4, mode="replicate") if reach else match
        total = torch.zeros(len(match), height + 2 * reach, width + 2 * reach)
        covered = torch.zeros_like(total)
        for number in range(shifts * shifts):
            y, x = (step * place for place in divmod(number, shifts))
            view = wide[..., y : y + height, x : x + width]
            mirrored = view.flip(-1) if number % 2 else view
            heat = explain(embed, backbone, query, mirrored.contiguous()).cpu()
            total[:, y : y + height, x : x + width] += heat.flip(-1) if number % 2 else heat
            covered[:, y : y + height, x : x + width] += 1
        mean = total / covered.clamp(min=1)
        inside = slice(reach, reach + height), slice(reach, reach + width)
        return to_maps(mean[(slice(None), *inside)], (height, width)).to(match.device)

    return of_views


def enlarged(explain: Explainer, factor: float = 1.5) -> Explainer:
    """The map of both images enlarged, which a network averages over more places. factor ** 2 times
    the cost."""
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
