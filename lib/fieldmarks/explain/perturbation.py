"""What a match's similarity loses when parts of it are hidden: explanations without gradients.

Hidden pixels become the image's mean colour, or "grey": 0 of normalised images, which is the mean
of the data that the weights were trained on. The cosine is the full one."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fieldmarks.checks import at_least, one_of
from fieldmarks.explain.explainer import CHUNK, Outputs, check_pairs, cosine, evaluating, to_maps
from fieldmarks.random import seeded

Fill = Literal["mean", "grey"]


def occlusion(
    embed: Outputs,
    backbone: nn.Module,
    query: Tensor,
    match: Tensor,
    *,
    patch: int | None = None,
    stride: int | None = None,
    fill: Fill = "mean",
) -> Tensor:
    """How far the cosine falls when a patch that slides over the match hides it (Zeiler & Fergus,
    ECCV 2014, Sec. 4.2): at each pixel the mean over the patches that cover it. An explainer, see
    `explainer`; a pass of the network for each patch.

    patch: its side in pixels, by default a seventh of the image's shorter side; stride: pixels
    between two, by default half a patch. The last row and column lie at the border.
    ValueError: a patch larger than the image, or numbers below 1."""
    check_pairs(query, match)
    height, width = match.shape[-2:]
    patch = max(min(height, width) // 7, 1) if patch is None else patch
    stride = max(patch // 2, 1) if stride is None else stride
    at_least(1, patch=patch, stride=stride)
    if patch > min(height, width):
        size = f"{height} x {width}: give one of at most {min(height, width)}"
        raise ValueError(f"a patch of {patch} px does not fit an image of {size}")
    corners = [
        (y, x) for y in _starts(height, patch, stride) for x in _starts(width, patch, stride)
    ]

    total, covered = torch.zeros(len(match), height, width), torch.zeros(height, width)
    with evaluating(embed, backbone), torch.no_grad():
        reference = embed(query).float()
        before = cosine(embed(match).float(), reference)[:, None]
        for start in range(0, len(corners), CHUNK):
            part = corners[start : start + CHUNK]
            hidden = torch.zeros(len(part), height, width)
            for mask, (y, x) in zip(hidden, part, strict=True):
                mask[y : y + patch, x : x + patch] = 1
            lost = before - _cosines(embed, match, reference, hidden, fill)  # (B, p)
            total += torch.einsum("bp,phw->bhw", lost.cpu(), hidden)
            covered += hidden.sum(0)
    return to_maps(total / covered.clamp(min=1), (height, width)).to(match.device)


def random_masks(
    embed: Outputs,
    backbone: nn.Module,
    query: Tensor,
    match: Tensor,
    *,
    masks: int = 500,
    cells: int = 7,
    visible: float = 0.5,
    fill: Fill = "mean",
    seed: int = 0,
) -> Tensor:
    """How similar the match stays under random masks that show a pixel: RISE (Petsiuk et al., BMVC
    2018, eq. 6) with the similarity to the query for a class's score, as SANE does (Plummer et al.,
    "Why do These Match?", ECCV 2020, Sec. 3.1). An explainer, see `explainer`; a pass of the
    network for each of `masks`. The masks, cells x cells random fields of which the share `visible`
    is shown, enlarged and shifted, follow from the seed, and are the same for all pairs.

    NOTE eq. 6 weighs masks by their scores, of which the greater part is the same for all and only
    lifts the map; here by what they are above their mean.
    ValueError: numbers below 1, or a share outside (0, 1)."""
    check_pairs(query, match)
    at_least(1, masks=masks, cells=cells)
    if not 0 < visible < 1:
        raise ValueError(f"visible is {visible}: it is a share, above 0 and below 1")
    size, generator = match.shape[-2:], seeded(seed, 51)
    total, covered, mean = torch.zeros(len(match), *size), torch.zeros(size), 0.0
    with evaluating(embed, backbone), torch.no_grad():
        reference = embed(query).float()
        for start in range(0, masks, CHUNK):
            shown = _fields(min(CHUNK, masks - start), cells, visible, size, generator)
            scores = _cosines(embed, match, reference, 1 - shown, fill).cpu()  # (B, p)
            total += torch.einsum("bp,phw->bhw", scores, shown)
            covered += shown.sum(0)
            mean = mean + scores.sum(1) / masks
    heat = total / covered.clamp(min=1e-6) - mean[:, None, None] * (covered > 0)
    return to_maps(heat, size).to(match.device)


def _cosines(embed: Outputs, match: Tensor, reference: Tensor, hidden: Tensor, fill: Fill):
    """Of every match (B, 3, H, W) under every mask (p, H, W), 1 where hidden: (B, p)."""
    one_of("fill", fill, ("mean", "grey"))
    hidden, rows = hidden[:, None].to(match), []
    for image, target in zip(match, reference, strict=True):
        colour = image.mean((1, 2), keepdim=True) if fill == "mean" else 0.0
        rows.append(cosine(embed(image + hidden * (colour - image)).float(), target))
    return torch.stack(rows)


def _starts(length: int, patch: int, stride: int) -> list[int]:
    starts = list(range(0, length - patch + 1, stride))
    return starts if starts[-1] == length - patch else [*starts, length - patch]


def _fields(count: int, cells: int, visible: float, size, generator) -> Tensor:
    """RISE's masks, (count, H, W) in [0, 1]: small random fields enlarged to a cell more than the
    image, and cut out at a random place."""
    height, width = size
    cell = -(-height // cells), -(-width // cells)
    small = (torch.rand(count, 1, cells, cells, generator=generator) < visible).float()
    whole = ((cells + 1) * cell[0], (cells + 1) * cell[1])
    large = F.interpolate(small, whole, mode="bilinear", align_corners=False)[:, 0].clamp(0, 1)
    tops, lefts = (torch.randint(side, (count,), generator=generator).tolist() for side in cell)
    views = zip(large, tops, lefts, strict=True)
    return torch.stack([one[y : y + height, x : x + width] for one, y, x in views])
