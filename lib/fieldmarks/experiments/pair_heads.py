"""Similarities learned on pairs of images of one class and of two, from cached features: what few-shot and in-shop share."""

import copy
from collections.abc import Callable
from time import perf_counter

import torch
from torch import Tensor, nn

from fieldmarks.experiments.outfit_network import OutfitNetwork, step
from fieldmarks.methods.attribute_baselines import AttributeSimilarityHead
from fieldmarks.methods.pairs import pairs_from_labels
from fieldmarks.methods.pan import RULES, ConceptSimilarity, SimilarityHead
from fieldmarks.progress import choose_mode, counter
from fieldmarks.random import seeded
from fieldmarks.training import History, LossWatch, choose_precision

WITH_ATTRIBUTES = ("pan_supervised", "pan_hybrid", "multitask", "attribute_similarity")
HEADS = (*WITH_ATTRIBUTES, "pan_unsupervised", "plain")
ENCODERS = ("linear", "none")
CHUNK = 4096  # pairs scored at a time: with 2048 features and 463 concepts some 100 MB


def check_head(p) -> None:
    """Raises ValueError, one line, where parameters of a head or of its training cannot be."""
    for name, allowed in (("encoder", ENCODERS), ("rule", tuple(RULES))):
        if getattr(p, name) not in allowed:
            raise ValueError(
                f"{name} is '{getattr(p, name)}': it must be one of {', '.join(allowed)}"
            )
    for name in ("hidden", "concepts", "epochs", "evaluate_every"):
        if getattr(p, name) < 1:
            raise ValueError(f"{name} is {getattr(p, name)}: it must be at least 1")
    for name in ("pairs", "attribute_weight"):
        if not getattr(p, name) >= 0:
            raise ValueError(f"{name} is {getattr(p, name)}: it must not be negative")
    p.settings()


def create_network(p, dim: int, attributes: int) -> OutfitNetwork:
    """The encoder and the head that the parameters name, for features of `dim` dimensions and so many attributes."""
    torch.manual_seed(p.seed)
    return OutfitNetwork(
        p.method,
        dim,
        attributes,
        encoder=p.encoder,
        hidden=(p.hidden,),
        concepts=p.concepts,
        none_slot=False,
        rule=p.rule,
        weight=p.attribute_weight,
    )


def positive_pairs(labels: Tensor) -> int:
    """How many pairs of one class there are: (N,) -> a number."""
    sizes = labels.unique(return_counts=True)[1]
    return int((sizes * (sizes - 1) // 2).sum())


def fit_on_pairs(
    network: OutfitNetwork,
    features: Tensor,
    draw: Callable[[int], tuple[Tensor, Tensor]],
    attributes: Tensor | None,
    p,
    evaluate: Callable[[], dict[str, float]],
) -> History:
    """Train in place with Adam, every step (which is an epoch) on all pairs; the network then holds the weights that were best by
    `p.monitor`, the earliest of equals.

    Args:
        features: (N, d), on the device of the network.
        draw: the pairs of an epoch, which counts from 1: (P, 2) positions and (P,) 1 or 0.
        attributes: (N, A) of 0, 1 and NaN; None where the method looks at none.
        p: has epochs, lr, weight_decay, evaluate_every, monitor, seed, precision, progress.
        evaluate: metrics of the network as it is, on data to choose by; called every `evaluate_every` epochs and after the last.

    Raises:
        Diverged: the loss is no longer a number.
    """
    device = features.device
    precision = choose_precision(p.precision, device, network)
    optimizer = torch.optim.Adam(network.parameters(), lr=p.lr, weight_decay=p.weight_decay)
    history, watch, best, mode = History(), LossWatch(), None, choose_mode(p.progress)
    count = counter("epochs", "bar" if mode == "bar" else "none")
    for epoch in range(1, p.epochs + 1):
        began = perf_counter()
        pairs, same = (part.to(device) for part in draw(epoch))
        watch.add(
            epoch,
            step(
                network,
                optimizer,
                features,
                None,
                pairs,
                same,
                attributes,
                seeded(p.seed, 20, epoch),
                0.0,
                precision,
            ),
        )
        watch.check()
        history.seconds += perf_counter() - began
        history.images += len(features)
        count(epoch, p.epochs)
        if epoch % p.evaluate_every and epoch < p.epochs:
            continue
        row = {
            "epoch": epoch,
            **watch.means(),
            "lr": p.lr,
            "images_per_second": history.images_per_second,
        }
        watch = LossWatch(first=watch.first)
        network.eval()
        measured = evaluate()
        history.epochs.append(row)
        history.evaluations.append({"epoch": epoch, **measured})
        if best is None or measured[p.monitor] > best[0]:
            best = measured[p.monitor], copy.deepcopy(network.state_dict())
        if mode == "lines":
            shown = {
                name: value
                for name, value in {**row, **measured}.items()
                if name not in ("epoch", "lr", "images_per_second")
            }
            print(
                f"epoch {epoch:3d}/{p.epochs}  "
                + "  ".join(f"{name} {value:.4f}" for name, value in shown.items()),
                flush=True,
            )
    network.load_state_dict(best[1])
    network.eval()
    return history


@torch.no_grad()
def score_pairs(
    score: Callable[[Tensor, Tensor], Tensor], encoded: Tensor, pairs: Tensor
) -> Tensor:
    """Similarity of each pair of rows, a chunk at a time: encoded images (N, h), pairs (P, 2) -> (P,) on their device."""
    parts = [
        score(encoded[part[:, 0]], encoded[part[:, 1]])
        for part in pairs.to(encoded.device).split(CHUNK)
    ]
    return torch.cat(parts) if parts else encoded.new_empty(0)


@torch.no_grad()
def searchable(network: OutfitNetwork, features: Tensor) -> tuple[nn.Module, Tensor]:
    """What `evaluation.pair_scores` searches with: two linear maps of |a - b|, and the images as they are compared, (N, h).

    A plain similarity is one of a single concept, whose relevance is 1.
    """
    encoded, head = network.encode(features), network.head
    if isinstance(head, SimilarityHead):
        return head.similarity, encoded
    plain = head
    if isinstance(head, AttributeSimilarityHead):  # it compares predicted attributes
        encoded, plain = head.classifier(encoded).sigmoid(), head.similarity
    similarity = ConceptSimilarity(encoded.shape[1], 1).to(encoded.device)
    similarity.concept.load_state_dict(plain.similarity.state_dict())
    return similarity, encoded


@torch.no_grad()
def concept_means(head: SimilarityHead, encoded: Tensor, pairs: Tensor) -> tuple[Tensor, Tensor]:
    """Mean relevance of each concept, and mean contribution (relevance times concept score), over pairs (P, 2): (M,) twice."""
    relevance_sum = contribution_sum = 0.0
    for part in pairs.to(encoded.device).split(CHUNK):
        _, concepts, relevance = head(encoded[part[:, 0]], encoded[part[:, 1]])
        relevance_sum = relevance_sum + relevance.double().sum(0)
        contribution_sum = contribution_sum + (relevance * concepts).double().sum(0)
    return relevance_sum.cpu() / len(pairs), contribution_sum.cpu() / len(pairs)


def random_pairs(labels: Tensor, count: int, *seed: int) -> tuple[Tensor, Tensor]:
    """About `count` pairs, half of one class: (P, 2) positions and (P,) 1. or 0."""
    return pairs_from_labels(labels, min(count // 2, positive_pairs(labels)), seeded(*seed))
