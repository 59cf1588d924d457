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
    and for the concept that contributes most. Of a `PairMethod` without concepts the maps alone.
    Images are (n, 3, H, W), normalised, with n captions."""
    head, pictures = method.network.head, [shown(method.backbone, side) for side in (first, second)]
    favour = pair_maps(method, method.score, first, second)
    against = pair_maps(method, lambda a, b: -method.score(a, b), first, second)
    if not isinstance(head, PAN):  # no concepts to name
        rows = []
        for side, title in enumerate(("one", "the other")):
            views = {title: None, "for the similarity": favour[side], "against it": against[side]}
            rows += [(name, pictures[side], response) for name, response in views.items()]
        return maps.map_grid(rows, captions)
    with torch.no_grad():
        _, scores, relevance = head(method.embed(first), method.embed(second))
    strongest, each = (scores * relevance).argmax(1), torch.arange(len(first))
    target = lambda a, b: head.similarity.logits(a, b)[0][each, strongest]
    concept = pair_maps(method, target, first, second)
    names = names_of_concepts(head, method.attribute_names)
    titles = [names[number] for number in strongest.tolist()]
    columns = [("for", *favour), ("against", *against), (titles, *concept)]
    numbers = scores * relevance, relevance, scores
    return concepts.pair_board(pictures[0], pictures[1], *numbers, names, captions, columns)


def pair_maps(method, target: Callable, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Grad-CAM of pairs of images (n, 3, H, W): what raises a target, a function of the embeddings
    of images and of their partners to (n,). Returns maps of the first images and of the second,
    (n, H, W) in [0, 1] on the CPU."""

    def maps_of(images: Tensor, partners: Tensor) -> Tensor:
        with torch.no_grad():
            others = method.embed(partners)
        respond = lambda images: target(method.embed(images), others)[:, None]
        return dimension_map(respond, method.backbone, images, 0).cpu()

    return maps_of(first, second), maps_of(second, first)
