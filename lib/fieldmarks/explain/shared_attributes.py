"""A match explained by one attribute or concept that both images share, after SANE (Plummer et al.,
"Why do These Match?", ECCV 2020), which gives a map together with the attribute that explains it.

Both functions make explainers (see `explainer`): Grad-CAM of whatever speaks most for the pair."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from fieldmarks.explain.explainer import Explainer, Outputs, check_pairs, evaluating
from fieldmarks.explain.gradcam import dimension_map


def attribute_explainer(respond: Outputs) -> Explainer:
    """By the attribute to which both images respond most, the largest product of the two.

    respond: (B, 3, H, W) -> (B, k), at least 0, such as `VAPNet.attribute_responses`; it runs the
    backbone once. The explainer makes no use of `embed`."""

    def explain(embed: Outputs, backbone: nn.Module, query: Tensor, match: Tensor) -> Tensor:
        check_pairs(query, match)
        with evaluating(respond, backbone):
            with torch.no_grad():
                strongest = (respond(query) * respond(match)).argmax(1)
            return dimension_map(respond, backbone, match, strongest)

    return explain


def concept_explainer(contributions: Callable[[Tensor, Tensor], Tensor]) -> Explainer:
    """By the concept that contributes most to the similarity of the pair.

    contributions: embeddings (B, D) of queries and of matches -> (B, M), such as concepts times
    relevance of PAN's head (eq. 3)."""

    def explain(embed: Outputs, backbone: nn.Module, query: Tensor, match: Tensor) -> Tensor:
        check_pairs(query, match)
        with evaluating(embed, backbone):
            with torch.no_grad():
                queries = embed(query)
                strongest = contributions(queries, embed(match)).argmax(1)
            respond = lambda images: contributions(queries, embed(images))
            return dimension_map(respond, backbone, match, strongest)

    return explain
