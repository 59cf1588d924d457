"""Why PAN or one of its baselines finds two images alike: concepts, and Grad-CAM of both images."""

from collections.abc import Callable, Sequence

import torch
from matplotlib.figure import Figure
from torch import Tensor

from fieldmarks.explain.gradcam import dimension_map
from fieldmarks.methods.pan import PAN
from fieldmarks.show import concepts, maps
from fieldmarks.show.examples import shown
from fieldmarks.show.names import names_of_concepts


def pair_board(method, first: Tensor, second: Tensor, captions: Sequence[str]) -> Figure:
    """Pairs of images with their concepts and Grad-CAM: what speaks for the similarity, against it,
    and for the concept that contributes most. Of a method without concepts the maps alone.

    Args:
        method: a `PairMethod`.
        first, second: (n, 3, H, W) each, normalised.  captions: n.
    """
    head, pictures = method.network.head, [shown(method.backbone, side) for side in (first, second)]
    speaks_for = pair_maps(method, method.score, first, second)
    against = pair_maps(method, lambda a, b: -method.score(a, b), first, second)
    if not isinstance(head, PAN):  # no concepts to name
        rows = []
        for side, title in enumerate(("one", "the other")):
            responses = None, speaks_for[side], against[side]
            titles = title, "for the similarity", "against it"
            rows += [(t, pictures[side], r) for t, r in zip(titles, responses, strict=True)]
        return maps.map_grid(rows, captions)
    with torch.no_grad():
        _, scores, relevance = head(method.embed(first), method.embed(second))
    strongest, each = (scores * relevance).argmax(1), torch.arange(len(first))
    target = lambda a, b: head.similarity.logits(a, b)[0][each, strongest]
    concept = pair_maps(method, target, first, second)
    names = names_of_concepts(head, method.attribute_names)
    titles = [names[number] for number in strongest.tolist()]
    columns = [("for", *speaks_for), ("against", *against), (titles, *concept)]
    numbers = scores * relevance, relevance, scores
    return concepts.pair_board(pictures[0], pictures[1], *numbers, names, captions, columns)


def pair_maps(
    method, target: Callable[[Tensor, Tensor], Tensor], first: Tensor, second: Tensor
) -> tuple[Tensor, Tensor]:
    """Grad-CAM of pairs of images (n, 3, H, W): where lies what raises a target?

    Args:
        method: a `PairMethod`.  target: embeddings of images and of their partners -> (n,).

    Returns:
        maps of the first images and of the second, (n, H, W) in [0, 1] on the CPU.
    """

    def maps_of(images: Tensor, partners: Tensor) -> Tensor:
        with torch.no_grad():
            others = method.embed(partners)
        respond = lambda images: target(method.embed(images), others)[:, None]
        return dimension_map(respond, method.backbone, images, 0).cpu()

    return maps_of(first, second), maps_of(second, first)
