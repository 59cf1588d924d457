"""Pairs of images and the concepts that make their similarity: the figures that few-shot classification and in-shop retrieval share."""

from collections.abc import Callable, Sequence

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from fieldmarks.backbones import Backbone
from fieldmarks.experiments.common_figures import shown
from fieldmarks.experiments.outfit_network import OutfitNetwork
from fieldmarks.explain.gradcam import dimension_map
from fieldmarks.methods.pan import SimilarityHead
from fieldmarks.show import concepts, maps


def has_concepts(network: OutfitNetwork | None) -> bool:
    """Whether a method says which concepts make a pair's similarity."""
    return network is not None and isinstance(network.head, SimilarityHead)


def pair_board(
    network: OutfitNetwork,
    backbone: nn.Module,
    describe: Callable[[Tensor], Tensor],
    first: Tensor,
    second: Tensor,
    names: Sequence[str],
    captions: Sequence[str],
    source: Backbone,
) -> Figure:
    """Pairs with their concepts and Grad-CAM maps: for the similarity, against it, and for the concept that contributes most.

    Of a method without concepts, the maps alone.

    Args:
        backbone: the module whose feature map is explained; `describe` runs it.
        describe: images (B, 3, H, W) -> what the network encodes (B, d), with gradients.
        first, second: n normalised images each.  names: of concepts.  captions: n.
        source: tells how the images were normalised.
    """
    sides = first, second
    with torch.no_grad():
        encoded = [network.encode(describe(side)) for side in sides]
    pictures = [shown(source, side) for side in sides]

    def explained(target: Callable[[Tensor, Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """Maps of both sides of each pair; `target` gives (n, 1) of encoded images and their partners'."""
        return tuple(
            dimension_map(
                lambda images, other=other: target(
                    network.encode(describe(images)), encoded[other]
                ),
                backbone,
                sides[own],
                0,
            ).cpu()
            for own, other in ((0, 1), (1, 0))
        )

    speaks_for = explained(lambda own, other: network.score(own, other)[:, None])
    against = explained(lambda own, other: -network.score(own, other)[:, None])
    if not has_concepts(network):
        return maps.map_grid(
            [
                ("one", pictures[0], None),
                ("for the similarity", pictures[0], speaks_for[0]),
                ("against it", pictures[0], against[0]),
                ("the other", pictures[1], None),
                ("for the similarity", pictures[1], speaks_for[1]),
                ("against it", pictures[1], against[1]),
            ],
            captions,
        )
    with torch.no_grad():
        _, scores, relevance = (part.cpu() for part in network.head(*encoded))
    strongest = (scores * relevance).argmax(1).to(first.device)
    concept = explained(
        lambda own, other: network.head.similarity.logits(own, other)[0].gather(
            1, strongest[:, None]
        )
    )
    columns = [
        ("for", *speaks_for),
        ("against", *against),
        ([names[m] for m in strongest.tolist()], *concept),
    ]
    return concepts.pair_board(
        *pictures, scores * relevance, relevance, scores, names, captions, columns
    )


def concept_names(head: SimilarityHead, attributes: Sequence[str] | None) -> list[str]:
    """Names of the head's concepts: its attributes' (of "has_bill_shape::dagger" the words "bill shape: dagger"), then free ones."""
    free = head.similarity.concept.out_features - head.attributes
    return concepts.concept_names(
        [readable_attribute(name) for name in (attributes or [])[: head.attributes]], False, free
    )


def readable_attribute(name: str) -> str:
    group, sign, value = name.removeprefix("has_").partition("::")
    return (f"{group}: {value}" if sign else name).replace("_", " ")


def concept_groups(names: Sequence[str]) -> list[str] | None:
    """What concepts named "group: value" are about; None where no name is such."""
    if not any(": " in name for name in names):
        return None
    return [name.partition(": ")[0] if ": " in name else "free" for name in names]
