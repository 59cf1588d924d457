"""Similarities learned on pairs, from features of a network that is frozen, or then trained with
them end to end: what PAN's experiments share."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fieldmarks.checkpoints import load_checkpoint
from fieldmarks.checks import at_least, positive, share
from fieldmarks.data.augment import TestViews, TrainingViews, check_views
from fieldmarks.data.batches import TrainingStream
from fieldmarks.data.pixels import PixelCache
from fieldmarks.experiments import parameters as reading
from fieldmarks.experiments.experiment import (
    Experiment,
    RunParameters,
    backbone_of,
    experiment_class,
    inner_parameters,
    load_run,
    measured_file,
)
from fieldmarks.experiments.features import Unscaled, frozen_features
from fieldmarks.experiments.parameters import composed_of
from fieldmarks.experiments.result import EMBEDDINGS, finished_run
from fieldmarks.files import lock, release
from fieldmarks.methods.attribute_baselines import AttributeSimilarityHead
from fieldmarks.methods.hashing import HashMethod
from fieldmarks.methods.method import Method
from fieldmarks.methods.pair_network import PairNetwork
from fieldmarks.methods.pairs import pairs_from_labels, with_hard_negatives
from fieldmarks.methods.pan import PAN, ConceptSimilarity
from fieldmarks.random import seeded
from fieldmarks.training import History, choose_device, choose_precision, embed_all

WITH_ATTRIBUTES = ("pan_supervised", "pan_hybrid", "multitask", "attribute_similarity")
HEADS = (*WITH_ATTRIBUTES, "pan_unsupervised", "plain")
END_TO_END, MEAN = "end_to_end", "standardise.mean"
CHUNK = 4096  # pairs scored at a time: with 2048 features and 463 concepts some 100 MB
HEAD = {"encoder": "linear", "hidden": (256,), "none_slot": False}
ADAM = {"optimizer": "adam", "schedule": "constant", "warmup_steps": 0, "weight_decay": 0.0}


@composed_of(PairNetwork, **HEAD, **ADAM, lr=0.001, restore_best=True)
class PairParameters(RunParameters):
    """Options of `PairNetwork` and the loop, whose epoch is one step on all pairs, and:"""

    method: str = "pan_supervised"  # see HEADS; and what an experiment has besides
    embedding: str = ""  # a finished run whose network gives the features; empty: `backbone`
    # Or parameters of a run that trains it first, beside this run and once for all that give the
    # same: {"method": "triplet", "epochs": 20}.
    embedding_settings: dict = dataclasses.field(default_factory=dict)
    embedding_kind: ClassVar[str] = "open_set"  # the experiment of that run
    embedding_defaults: ClassVar[dict] = {}  # of its parameters
    pairs: int = 0  # positive ones of an epoch, and as many negatives; 0: as many as there are
    hard_negatives: float = 0.0  # share of negatives that the network itself takes for alike

    def __post_init__(self):
        super().__post_init__()
        at_least(1, epochs=self.epochs, evaluate_every=self.evaluate_every, free=self.free)
        at_least(0, attribute_weight=self.attribute_weight, pairs=self.pairs)
        share(dropout=self.dropout)
        if self.embedding and self.embedding_settings:
            raise ValueError("give embedding or embedding_settings, not both")
        if self.embedding_settings:
            self.of_embedding(Path())
        at_least(0, cosine_weight=self.cosine_weight, relevance_weight=self.relevance_weight)
        if not 0 <= self.hard_negatives <= 1:
            raise ValueError(f"hard_negatives is {self.hard_negatives}: a share, from 0 to 1")
        if not self.hidden or min(self.hidden) < 1:
            problem = f"hidden is {list(self.hidden)}: "
            raise ValueError(problem + "give the units of one layer or more, each at least 1")

    def of_embedding(self, beside: Path) -> Any:
        """The parameters of the run that `embedding_settings` ask for, in a folder of its own
        beside others. ValueError: these cannot be."""
        settings = self.embedding_defaults | self.embedding_settings
        arguments = (self, self.embedding_kind, settings, "embedding_settings")
        name = inner_parameters(*arguments, "").folder().name
        return inner_parameters(*arguments, str(beside / EMBEDDINGS / name))


@composed_of(TrainingViews, crop_scale=(0.3, 1.0), jitter=0.2)
class EndToEndParameters(PairParameters):
    """As `PairParameters`, with the options of `TrainingViews`, and:"""

    # Epochs in which the network below is trained too, on images, after `epochs` of the head.
    end_to_end: int = 0
    encoder_lr: float = 1e-4  # of that network
    freeze_stages: int = 0  # of it, stem included, that stay as they are
    freeze_norm: bool = True  # its batch normalisation keeps its statistics
    batch_size: int = 32  # images, of all processes together
    per_class: int = 4  # of them of each class

    def __post_init__(self):
        super().__post_init__()
        at_least(0, end_to_end=self.end_to_end)
        positive(encoder_lr=self.encoder_lr)
        check_views(**self.options(TrainingViews))
        at_least(2, per_class=self.per_class, batch_size=self.batch_size)
        if self.end_to_end and self.method not in HEADS:
            raise ValueError(
                f"end_to_end is {self.end_to_end}: {self.method} trains nothing: give 0"
            )
        classes, rest = divmod(self.batch_size, self.per_class)
        if self.end_to_end and (rest or classes < 2):
            problem = f"per_class is {self.per_class} and batch_size is {self.batch_size}: "
            raise ValueError(
                problem + "a batch needs two classes or more, of per_class images each"
            )


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
    network: a `PairNetwork`.  learns: whether it has anything to learn.
    embedder: the method that gives its features.
    method: what is trained: the network, then a `PairMethod` of both where `end_to_end` asks.
    embedding: what the embedder's run says of itself; {} of a backbone as it comes.
    constant: names of the attributes that never vary among what is learned from: left out."""

    embedder: Method
    embedding: dict
    network: PairNetwork
    whole: "PairMethod | None"
    attribute_names: Any
    constant: Sequence[str] = ()

    @property
    def backbone(self) -> Any:
        return self.embedder.backbone

    @property
    def learns(self) -> bool:
        return self.network.learns

    def create_embedder(self, learned_from: str) -> None:
        """The embedder, trained first where that is asked for. `learned_from` is the fingerprint of
        what this run learns from; ValueError where the embedder has seen other images of its data.
        """
        p, self.whole, self.embedding = self.parameters, None, {}
        if self.constant and p.progress != "none":
            shown = ", ".join(self.constant[:5]) + ", ..." * (len(self.constant) > 5)
            print(f"{len(self.constant)} attributes never vary here and are left out: {shown}")
        if p.embedding_settings:
            inner = p.of_embedding(p.folder().parent)
            if self.rank == 0:
                lock(inner.folder(), wait=True)  # another run may be training it
            try:
                trainer = experiment_class(p.embedding_kind)(inner, self.rank, self.world)
                self._check_images(inner.dataset, trainer.data, learned_from)
                self.embedding = trainer.complete()
            finally:
                release(inner.folder())
        elif p.embedding:
            self.embedding = finished_run(p.embedding, "embedding")[1]
            given = self.embedding["dataset"], self.embedding["data_fingerprint"]
            self._check_images(*given, learned_from)
        self.embedder = self.embedder_of(p, p.folder(), self.device)
        self.test_views = TestViews.of(self.embedder.backbone)

    def _check_images(self, dataset: str, fingerprint: str, learned_from: str) -> None:
        p = self.parameters
        if dataset == p.dataset and fingerprint.split()[0] != learned_from:
            raise ValueError(
                f"embedding '{p.embedding or 'embedding_settings'}' has learned from other "
                f"images of {p.dataset} than this run does, and may know those that it is "
                "measured on: give a run that has learned from the same images"
            )

    def identity(self) -> dict:
        """With what the embedder's run was: another one in its place is not gone on with."""
        return super().identity() | {"embedder": self.embedding.get("metrics")}

    def features_of(self, pixels: PixelCache, **options) -> Tensor:
        """(N, d) on the device of training, as the embedder is now."""
        p, arguments = self.parameters, (self.embedder, self.test_views)
        if self.whole:
            precision = choose_precision(p.precision, self.device, self.embedder)
            given = {"device": self.device, "precision": precision}
            features = embed_all(arguments[0], pixels, arguments[1], **given)
        else:
            options |= {n: getattr(p, n) for n in ("precision", "progress")}
            features = frozen_features(pixels, *arguments, device=self.device, **options)
        return features.to(self.device)

    def create_network(self, dim: int, attributes: Tensor | None) -> PairNetwork:
        """The network that the parameters name, for (N, d) features and (N, A) attributes."""
        p, known = self.parameters, 0 if attributes is None else attributes.shape[1]
        torch.manual_seed(p.seed)
        method = p.method if p.method in HEADS else "cosine"
        self.network = PairNetwork(method, dim, known, **p.options(PairNetwork))
        return self.network.to(self.device).eval()

    def pair_stream(self, features, draw, attributes, number: int = 20, **options) -> PairStream:
        """Pairs with the attributes (N, A) of their items, where the method takes such."""
        draw(1)  # too few pairs say so before anything runs
        taken = self.taken(attributes)
        return PairStream(features, draw, taken, (self.parameters.seed, number), **options)

    def taken(self, attributes: Tensor | None) -> Tensor | None:
        """The attributes (N, A) on the device, where the method learns from such."""
        if attributes is None or self.parameters.method not in WITH_ATTRIBUTES:
            return None
        return attributes.to(self.device)

    def with_hard(self, pairs: Tensor, same: Tensor, features, labels, epoch: int) -> tuple:
        """The pairs of an epoch, with the share of hard negatives that the parameters ask for."""
        p = self.parameters
        if not p.hard_negatives:
            return pairs, same
        with torch.no_grad():
            encoded = self.network.encode(features)
        score = partial(score_pairs, self.network.score, encoded)
        share, generator = p.hard_negatives, seeded(p.seed, 22, epoch)
        return with_hard_negatives(pairs, same, labels, score, share, generator)

    def train(self) -> History:
        p = self.parameters
        if not getattr(p, "end_to_end", 0):
            return super().train()
        pixels, labels, attributes = self.learned_images()  # what does not fit says so at once
        images = self.training_stream(TrainingStream, pixels, labels, per_class=p.per_class)
        history = super().train()
        self.method = self.whole = PairMethod(
            self.embedder, self.network, self.attribute_names, self.scaled, p.freeze_norm
        )
        self.whole.learn_from(self.taken(attributes), p.encoder_lr / p.lr)
        settings = dataclasses.replace(p.settings(), epochs=p.end_to_end, evaluate_every=1)
        self.stream = images
        return joined(history, self.fit(settings, self.folder / END_TO_END))

    def learned_images(self) -> tuple[PixelCache, Tensor, Tensor | None]:
        """What is learned from end to end: pixels, labels (N,) and attributes (N, A)."""
        raise NotImplementedError

    def details(self, scores, history) -> dict:
        embedding = {n: self.embedding[n] for n in ("method", "metrics") if self.embedding}
        if embedding:
            embedding["train_seconds"] = self.embedding["timing"]["train_seconds"]
        named = {"attribute_names": self.attribute_names, "constant_attributes": self.constant}
        return named | {"embedding": embedding}

    @classmethod
    def load(cls, folder: Path, result: dict, device: str = "auto") -> "PairMethod":
        p = reading.parse(cls.Parameters, result["parameters"])
        if p.method not in HEADS:
            raise ValueError(f"'{folder}' is a run of {p.method}, which has no trained network")
        if known := result.get("embedding", {}).get("metrics"):
            given = cls.embedding_folder(p, folder)
            if finished_run(given, "embedding")[1]["metrics"] != known:
                raise ValueError(
                    f"embedding '{given}' has been trained anew since '{folder}' was: run that "
                    "again, in a new folder"
                )
        trained = folder / END_TO_END if getattr(p, "end_to_end", 0) else folder
        state, names = (
            load_checkpoint(measured_file(p, trained))["method"],
            result["attribute_names"],
        )
        prefix = "network." if f"network.{MEAN}" in state else ""
        sizes = len(state[prefix + MEAN]), len(names)
        network = PairNetwork(p.method, *sizes, **p.options(PairNetwork))
        names, chosen = names * (p.method != "pan_unsupervised"), choose_device(device)
        method = PairMethod(cls.embedder_of(p, folder, chosen), network, names, cls.scaled)
        (method if prefix else network).load_state_dict(state)
        return method.to(chosen).eval()

    @staticmethod
    def embedding_folder(p: PairParameters, folder: Path) -> Path:
        """Of the run that trained the embedder of a run in a folder, where one did."""
        return Path(p.embedding) if p.embedding else p.of_embedding(folder.parent).folder()

    @classmethod
    def embedder_of(cls, p: PairParameters, folder: Path, device: torch.device) -> Method:
        """What gives the features of a run with these parameters in a folder."""
        if not (p.embedding or p.embedding_settings):
            return cls.embedding_of(Method(backbone_of(p))).to(device).eval()
        given = cls.embedding_folder(p, folder)
        method = load_run(given, str(device))
        if isinstance(method, (HashMethod, PairMethod)):
            kind = "makes codes" if isinstance(method, HashMethod) else "compares pairs"
            problem = f"embedding '{given}' is a run that {kind}: "
            raise ValueError(problem + "give an open-set run, such as one of proxynca++")
        return cls.embedding_of(method)

    @staticmethod
    def embedding_of(method: Method) -> Method:
        """What of a trained method gives the features: its embedding of any length."""
        return Unscaled(method)

    @staticmethod
    def scaled(features: Tensor) -> Tensor:
        """What is done to features (..., d) before the network standardises them."""
        return features


class PairMethod(Method):
    """What compares pictures: a frozen embedder, and the network of a PAN run above it.

    Attributes:
        attribute_names: of its supervised concepts."""

    def __init__(
        self,
        embedder: Method,
        network: PairNetwork,
        attribute_names,
        scaled: Callable,
        freeze_norm: bool = False,
    ):
        super().__init__(embedder.backbone, freeze_norm)
        self.embedder, self.network, self.scaled = embedder, network, scaled
        self.attribute_names, self.attributes = attribute_names, None

    def learn_from(self, attributes: Tensor | None, rate: float) -> None:
        """Before training end to end: attributes (N, A) of the images to come, and the embedder's
        learning rate as a multiple of the network's. What of the embedder's run made no embeddings,
        as its classifier, stays as it is."""
        self.attributes, self.rates = (
            attributes,
            {n: (rate, True) for n in ("backbone", "embedder")},
        )
        within = getattr(self.embedder, "method", self.embedder)
        for name, part in within.named_children():
            if name not in ("backbone", "norm", "project"):
                part.requires_grad_(False)

    def losses(self, images: Tensor, labels: Tensor, index: Tensor) -> dict[str, Tensor]:
        """The network's terms over all pairs of a batch, those of one class and those of two
        weighing alike: images (B, 3, H, W), labels (B,), their places `index` (B,)."""
        features = self.features(images)
        pairs = torch.combinations(torch.arange(len(labels), device=labels.device))
        same = labels[pairs[:, 0]] == labels[pairs[:, 1]]
        known = None if self.attributes is None else self.attributes[index].to(labels.device)
        with torch.autocast(features.device.type, enabled=False):
            kinds = [
                self.network.losses(features, pairs[kind], same[kind].float(), known)
                for kind in (same, ~same)
            ]
        return {name: sum(terms[name] for terms in kinds) / 2 for name in kinds[0]}

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


def joined(first: History, then: History) -> History:
    """Of two parts of a training, one after the other."""
    last = len(first.epochs)
    later = [
        [row | {"epoch": row["epoch"] + last} for row in rows]
        for rows in (then.epochs, then.evaluations)
    ]
    rows = first.epochs + later[0], first.evaluations + later[1]
    return History(*rows, first.seconds + then.seconds, first.images + then.images)


def varying(attributes: Tensor, names: Sequence[str], data: str) -> tuple[Tensor, list[str]]:
    """Which of the attributes (N, A) of what is learned from are there in one and known not to be
    in another, as positions (B,), and the names of the others, which teach nothing. ValueError
    where none varies."""
    kept = (attributes == 1).any(0) & (attributes == 0).any(0)
    constant = [name for name, varies in zip(names, kept.tolist(), strict=True) if not varies]
    if len(constant) == len(kept):
        raise ValueError(f"{data}: no attribute varies among what is learned from")
    return kept.nonzero().flatten(), constant


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
