"""Which place of the query speaks for which place of the match: a cosine taken apart, exactly.

Where an embedding is the average of its feature map, the cosine of two of them is a sum over pairs
of places with nothing left over (Stylianou et al., "Visualizing Deep Similarity Networks", WACV
2019; Zhu et al., "Visual Explanation for Deep Metric Learning", 2019):

    cos = sum over i, j of  <a_i, b_j> / (h w h' w' |a| |b|),   a and b the averages"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fieldmarks.explain.explainer import (
    Outputs,
    after_backbone,
    check_features,
    check_pairs,
    evaluating,
    to_maps,
)

TOLERANCE = 1e-3  # of cosines: enough for half precision


def point_to_point(query_features: Tensor, match_features: Tensor) -> Tensor:
    """What each pair of places contributes to the cosine of the averaged features.

    Args:
        query_features: (B, C, h, w), match_features: (B, C, h', w').
    Returns:
        (B, h, w, h', w') float32, of either sign; each adds up to its pair's cosine, and is 0 where
        an average is 0. Sums over h, w are a map over the match, the others over the query.
    Raises:
        ValueError: shapes do not fit."""
    _check_fit(query_features, match_features)
    query, match = _units(query_features), _units(match_features)
    return torch.einsum("bchw,bcyx->bhwyx", query, match)


def place_map(embed: Outputs, backbone: nn.Module, query: Tensor, match: Tensor) -> Tensor:
    """What each place of the match contributes to the cosine, over all places of the query: an
    explainer (see `explainer`), with one pass of the backbone for each image.

    Raises:
        ValueError: the embedding is no average of its features, so that nothing adds up to it."""
    with evaluating(embed, backbone), torch.no_grad():
        query_features, match_features = exact_features(embed, backbone, query, match)
    at_query = _units(query_features).sum((2, 3))  # (B, C)
    heat = torch.einsum("bc,bcyx->byx", at_query, _units(match_features))
    return to_maps(heat, match.shape[-2:])


@torch.no_grad()
def exact_features(
    embed: Outputs, backbone: nn.Module, query: Tensor, match: Tensor
) -> tuple[Tensor, Tensor]:
    """Feature maps (B, C, h, w) of queries and of matches, whose averages have the cosines that
    their embeddings have. That is tested on these features and on the same with their channels
    exchanged, since two equal images have the cosine 1 in any network.

    Raises:
        ValueError: they have others, as tanh codes do, and embeddings behind a further layer."""
    check_pairs(query, match)
    features = backbone(query), backbone(match)
    embeddings, averages = [], []
    for images, maps in zip((query, match), features, strict=True):
        check_features(maps)
        for of_channels in (maps, maps.roll(1, dims=1)):
            embeddings.append(after_backbone(embed, backbone, images)(of_channels))
            averages.append(of_channels.float().mean((2, 3)))
    ours, wanted = (_cosines(torch.cat(parts)) for parts in (averages, embeddings))
    if not torch.allclose(ours, wanted, rtol=0, atol=TOLERANCE):
        off = f"its cosines are off by up to {(ours - wanted).abs().max():.2g}"
        problem = f"this embedding is not its averaged features ({off}), so its cosine has no "
        raise ValueError(f"{problem}exact decomposition: take grad_cam or occlusion instead")
    return features


def _units(features: Tensor) -> Tensor:
    """Divided so that they add up, over places, to the average brought to unit length."""
    features = features.float()
    length = features.mean((2, 3)).norm(dim=1)[:, None, None, None]
    places = features.shape[2] * features.shape[3]
    return torch.where(length > 0, features / (places * length), 0.0)


def _cosines(vectors: Tensor) -> Tensor:
    unit = F.normalize(vectors.flatten(1), dim=1)
    return unit @ unit.T


def _check_fit(query: Tensor, match: Tensor) -> None:
    if query.ndim != 4 or match.ndim != 4 or query.shape[:2] != match.shape[:2]:
        shapes = f"{tuple(query.shape)} and {tuple(match.shape)}"
        raise ValueError(f"features must be (B, C, h, w) and (B, C, h', w'), got {shapes}")
