"""Similarities learned on pairs, from features of a frozen network: what PAN's experiments
share."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fieldmarks.checkpoints import load_checkpoint
from fieldmarks.checks import at_least, share
from fieldmarks.data.augment import TestViews
from fieldmarks.data.pixels import PixelCache
from fieldmarks.experiments import parameters as reading
from fieldmarks.experiments.experiment import Experiment, RunParameters, backbone_of
from fieldmarks.experiments.features import Pooled, frozen_features
from fieldmarks.experiments.parameters import composed_of
from fieldmarks.methods.attribute_baselines import AttributeSimilarityHead
from fieldmarks.methods.method import Method
from fieldmarks.methods.pair_network import PairNetwork
from fieldmarks.methods.pairs import pairs_from_labels, with_hard_negatives
from fieldmarks.methods.pan import PAN, ConceptSimilarity
from fieldmarks.random import seeded
from fieldmarks.training import choose_device

WITH_ATTRIBUTES = ("pan_supervised", "pan_hybrid", "multitask", "attribute_similarity")
HEADS = (*WITH_ATTRIBUTES, "pan_unsupervised", "plain")
CHUNK = 4096  # pairs scored at a time: with 2048 features and 463 concepts some 100 MB
HEAD = {"encoder": "linear", "hidden": (256,), "none_slot": False}
ADAM = {"optimizer": "adam", "schedule": "constant", "warmup_steps": 0, "weight_decay": 0.0}


@composed_of(PairNetwork, **HEAD, **ADAM, lr=0.001, restore_best=True)
class PairParameters(RunParameters):
    """Options of `PairNetwork` and the loop, whose epoch is one step on all pairs, and:"""

    method: str = "pan_supervised"  # see HEADS; and what an experiment has besides
    pairs: int = 0  # positive ones of an epoch, and as many negatives; 0: as many as there are
    hard_negatives: float = 0.0  # share of negatives that the network itself takes for alike

    def __post_init__(self):
        super().__post_init__()
        at_least(1, epochs=self.epochs, evaluate_every=self.evaluate_every, free=self.free)
        at_least(0, attribute_weight=self.attribute_weight, pairs=self.pairs)
        share(dropout=self.dropout)
        at_least(0, cosine_weight=self.cosine_weight, relevance_weight=self.relevance_weight)
        if not 0 <= self.hard_negatives <= 1:
            raise ValueError(f"hard_negatives is {self.hard_negatives}: a share, from 0 to 1")
        if not self.hidden or min(self.hidden) < 1:
            problem = f"hidden is {list(self.hidden)}: "
            raise ValueError(problem + "give the units of one layer or more, each at least 1")


class PairStream:
    """One step an epoch, on all pairs of items with features.

    Args:
        features: (N, d), on the device of training.
        draw: the pairs of an epoch, which counts from 1: (P, 2) positions and (P,) 1 or 0.
        attributes: (N, A) of 0, 1 and NaN; None where the method takes none.
        seed: two or more whole numbers, of the step's generator.
        graph: that a graph encoder sees, with `support_dropout`."""

    steps_per_epoch = 1

    def __init__(self, features, draw, attributes, seed, graph=None, support_dropout=0.0):
        self.features, self.draw, self.attributes, self.seed = features, draw, attributes, seed
        self.graph, self.support_dropout = graph, support_dropout
        self.device, self.batch_size = features.device, len(features)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[dict[str, Any]]:
        pairs, same = (part.to(self.device) for part in self.draw(epoch + 1))
        generator = seeded(*self.seed, epoch + 1)
        support = self.graph and self.graph.support(self.support_dropout, generator)
        batch: dict[str, Any] = {"features": self.features, "pairs": pairs, "same": same}
        batch |= {"attributes": self.attributes, "support": support, "generator": generator}
        yield batch


class PairExperiment(Experiment):
    """Attributes:
    method: a `PairNetwork`.  learns: whether it has anything to learn.
    embedder: the frozen method that gives its features."""

    embedder: Method
    attribute_names: Any

    def __init__(self, parameters: PairParameters, rank: int = 0, world: int = 1):
        if world > 1:
            raise ValueError(
                f"{parameters.kind} trains on features in one process: run it without torchrun"
            )
        super().__init__(parameters, rank, world)

    @property
    def backbone(self) -> Any:
        return self.embedder.backbone

    @property
    def learns(self) -> bool:
        return self.method.learns

    def create_embedder(self) -> None:
        self.embedder = self.embedder_of(self.parameters, self.device)
        self.test_views = TestViews.of(self.embedder.backbone)

    def features_of(self, pixels: PixelCache, **options) -> Tensor:
        """(N, d) on the device of training."""
        options |= {n: getattr(self.parameters, n) for n in ("precision", "progress")}
        arguments = (pixels, self.embedder, self.test_views)
        return frozen_features(*arguments, device=self.device, **options).to(self.device)

    def create_network(self, dim: int, attributes: Tensor | None) -> PairNetwork:
        """The network that the parameters name, for (N, d) features and (N, A) attributes."""
        p, known = self.parameters, 0 if attributes is None else attributes.shape[1]
        torch.manual_seed(p.seed)
        method = p.method if p.method in HEADS else "cosine"
        network = PairNetwork(method, dim, known, **p.options(PairNetwork))
        return network.to(self.device).eval()

    def pair_stream(self, features, draw, attributes, number: int = 20, **options) -> PairStream:
        """Pairs with the attributes (N, A) of their items, where the method takes such."""
        draw(1)  # too few pairs say so before anything runs
        taken = attributes if self.parameters.method in WITH_ATTRIBUTES else None
        taken = None if taken is None else taken.to(self.device)
        return PairStream(features, draw, taken, (self.parameters.seed, number), **options)

    def with_hard(self, pairs: Tensor, same: Tensor, features, labels, epoch: int) -> tuple:
        """The pairs of an epoch, with the share of hard negatives that the parameters ask for."""
        p = self.parameters
        if not p.hard_negatives:
            return pairs, same
        with torch.no_grad():
            encoded = self.method.encode(features)
        score = partial(score_pairs, self.method.score, encoded)
        share, generator = p.hard_negatives, seeded(p.seed, 22, epoch)
        return with_hard_negatives(pairs, same, labels, score, share, generator)

    def details(self, scores, history) -> dict:
        return {"attribute_names": self.attribute_names}

    @classmethod
    def load(cls, folder: Path, result: dict, device: str = "auto") -> "PairMethod":
        p = reading.parse(cls.Parameters, result["parameters"])
        if p.method not in HEADS:
            raise ValueError(f"'{folder}' is a run of {p.method}, which has no trained network")
        state, names = load_checkpoint(folder / "best.pt")["method"], result["attribute_names"]
        sizes = len(state["standardise.mean"]), len(names)
        network = PairNetwork(p.method, *sizes, **p.options(PairNetwork))
        network.load_state_dict(state)
        names, chosen = names * (p.method != "pan_unsupervised"), choose_device(device)
        return PairMethod(cls.embedder_of(p, chosen), network, names, cls.scaled).to(chosen).eval()

    @classmethod
    def embedder_of(cls, p: PairParameters, device: torch.device) -> Method:
        return Pooled(backbone_of(p)).to(device).eval()

    @staticmethod
    def scaled(features: Tensor) -> Tensor:
        """What is done to features (..., d) before the network standardises them."""
        return features


class PairMethod(Method):
    """What compares pictures: a frozen embedder, and the network of a PAN run above it.

    Attributes:
        attribute_names: of its supervised concepts."""

    def __init__(self, embedder: Method, network: PairNetwork, attribute_names, scaled: Callable):
        super().__init__(embedder.backbone)
        self.embedder, self.network, self.scaled = embedder, network, scaled
        self.attribute_names = attribute_names

    def features(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> what the network encodes (B, d), with gradients."""
        return self.network.standardise(self.scaled(self.embedder.embed(images).float()))

    def embed(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> what pairs are compared by (B, h), of any length."""
        features = self.features(images)
        with torch.autocast(features.device.type, enabled=False):  # as experiments score pairs
            return self.network.encode(features)

    def score(self, a: Tensor, b: Tensor) -> Tensor:
        """Similarity in [0, 1] of embedded pictures (..., h) twice: (...,)."""
        return self.network.score(a, b)


def positive_pairs(labels: Tensor) -> int:
    """How many pairs of one class there are: (N,) -> a number."""
    sizes = labels.unique(return_counts=True)[1]
    return int((sizes * (sizes - 1) // 2).sum())


def random_pairs(labels: Tensor, count: int, *seed: int) -> tuple[Tensor, Tensor]:
    """About `count` pairs, half of one class: (P, 2) positions and (P,) 1. or 0."""
    return pairs_from_labels(labels, min(count // 2, positive_pairs(labels)), seeded(*seed))


@torch.no_grad()
def score_pairs(
    score: Callable[[Tensor, Tensor], Tensor], encoded: Tensor, pairs: Tensor
) -> Tensor:
    """Similarity of each pair of rows, a chunk at a time: (N, h), (P, 2) -> (P,) on their
    device."""
    chunks = pairs.to(encoded.device).split(CHUNK)
    parts = [score(encoded[part[:, 0]], encoded[part[:, 1]]) for part in chunks]
    return torch.cat(parts) if parts else encoded.new_empty(0)


def pair_table(score, encoded: Tensor, episodes) -> Tensor:
    """Similarity of all pairs of rows (N, h) that meet in episodes, each scored once: symmetric
    (N, N), NaN elsewhere."""
    needed = torch.zeros(len(encoded), len(encoded), dtype=torch.bool)
    for support, query in zip(episodes.support, episodes.query, strict=True):
        needed[query.flatten()[:, None], support.flatten()] = True
    pairs = (needed | needed.T).triu().nonzero()
    table = torch.full(needed.shape, torch.nan)
    first, second = pairs.T
    table[first, second] = table[second, first] = score_pairs(score, encoded, pairs).cpu()
    return table


@torch.no_grad()
def searchable(network: PairNetwork, features: Tensor) -> tuple[nn.Module, Tensor]:
    """What `evaluation.pair_scores` searches with: two linear maps of |a - b|, and the images as
    they are compared, (N, h). A plain similarity is one of a single concept, whose relevance is
    1."""
    encoded, head = network.encode(features), network.head
    if isinstance(head, PAN):
        return head.similarity, encoded
    plain = head
    if isinstance(head, AttributeSimilarityHead):  # it compares predicted attributes
        encoded, plain = head.classifier(encoded).sigmoid(), head.similarity
    similarity = ConceptSimilarity(encoded.shape[1], 1).to(encoded.device)
    similarity.concept.load_state_dict(plain.similarity.state_dict())
    return similarity, encoded


@torch.no_grad()
def concept_means(head: PAN, encoded: Tensor, pairs: Tensor) -> tuple[Tensor, Tensor]:
    """Mean relevance of each concept, and mean contribution (relevance times concept score), over
    pairs (P, 2): (M,) twice."""
    relevance_sum = contribution_sum = torch.zeros((), dtype=torch.float64)
    for part in pairs.to(encoded.device).split(CHUNK):
        _, concepts, relevance = head(encoded[part[:, 0]], encoded[part[:, 1]])
        relevance_sum = relevance_sum + relevance.double().sum(0)
        contribution_sum = contribution_sum + (relevance * concepts).double().sum(0)
    return relevance_sum.cpu() / len(pairs), contribution_sum.cpu() / len(pairs)
