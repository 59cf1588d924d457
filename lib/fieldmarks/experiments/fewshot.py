"""Few-shot classification of birds by pairwise similarity: PAN on the features of a frozen network, against its baselines.

Similarities are learned on pairs of base classes, chosen on validation classes and measured in episodes of novel ones. A notebook
goes through it step by step:

    parameters = fewshot.read(globals())
    experiment = fewshot.prepare(parameters)
    history = fewshot.train(experiment)
    classification = fewshot.evaluate(experiment)

and `python -m fieldmarks.experiments.fewshot name=value ...` goes through it in one go.

Protocol: Mishra et al. 2021, Sec. 3, with what its official code adds. NOTE that code trains a network from scratch with triplets
first; here features come from ImageNet weights or from a checkpoint, so numbers compare methods with each other.
"""

import dataclasses
import sys
import warnings
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from fieldmarks.backbones import Backbone, create_backbone
from fieldmarks.data.augment import TestViews
from fieldmarks.data.imageset import ImageSet
from fieldmarks.data.layouts.cub import certain_attributes
from fieldmarks.data.pixels import PixelCache
from fieldmarks.evaluation.episodes import (
    ClassScores,
    Episodes,
    accuracies,
    cosine_scores,
    episode_accuracies,
    episode_scores,
    mean_pair_score,
    prototype_scores,
    sample_episodes,
)
from fieldmarks.evaluation.outfits import mean_area_under_curves
from fieldmarks.evaluation.statistics import Interval, paired_bootstrap, seed_interval
from fieldmarks.experiments import parameters as reading
from fieldmarks.experiments.command_line import run_experiment
from fieldmarks.experiments.common import BIRDS, RunParameters, load_images, siblings
from fieldmarks.experiments.features import check_images, frozen_features
from fieldmarks.experiments.outfit_network import OutfitNetwork
from fieldmarks.experiments.pair_heads import (
    CHUNK,
    HEADS,
    WITH_ATTRIBUTES,
    check_head,
    create_network,
    fit_on_pairs,
    positive_pairs,
    random_pairs,
    score_pairs,
)
from fieldmarks.experiments.result import write_result
from fieldmarks.files import atomic, lock
from fieldmarks.methods.pairs import pairs_from_labels
from fieldmarks.methods.pan import SimilarityHead, binarise, pair_labels
from fieldmarks.progress import counter
from fieldmarks.random import seeded
from fieldmarks.training import History, choose_device

UNTRAINED = {"protonet": prototype_scores, "cosine": cosine_scores}
VALIDATION_SEED, TEST_SEED = (
    44,
    45,
)  # episodes are the same for every method and seed, so that they can be compared in pairs
PERCENTAGE = 0.5  # of annotators who must see an attribute, where only classes have attributes


@dataclass(frozen=True)
class Parameters(RunParameters):
    """Everything that a run of this experiment depends on. Plain values, as a notebook's parameters cell holds them.

    The defaults suit a laptop and the generated birds; the settings of the paper stand in labs/pan/table2.yaml.
    """

    kind = "fewshot"
    monitor = "accuracy"

    # Data
    dataset: str = "fieldguide"  # a name of the catalog
    root: str = ""  # its folder; empty: the generated birds, made once and kept in the cache
    fieldguide: str = BIRDS  # which birds to make when root is empty
    certainty: int = 3  # attributes of which annotators were less certain are unknown (2 guessing, 3 probably, 4 definitely)
    resize: int = 128  # shorter side of the decoded images
    size: int = 112  # pixels a side of what the network sees
    # Network
    backbone: str = "tf_efficientnet_lite0"
    weights: str = "bundled"  # "imagenet" (downloaded), "bundled", "none", or a checkpoint
    batch_statistics: bool = False  # embed with the statistics of class-sorted batches, as the official code does: this leaks classes
    encoder: str = "linear"  # of its features, trained with the head: "linear", or "none" as in the official code
    hidden: int = 256  # units of "linear"
    # Method
    method: str = "pan_supervised"  # or pan_unsupervised, pan_hybrid; multitask, attribute_similarity, plain; protonet, cosine
    concepts: int = 50  # M of pan_unsupervised, and the free concepts of pan_hybrid
    rule: str = (
        "or"  # how the attributes of two images become those of the pair: and, or, xor, xnor
    )
    attribute_weight: float = 1e-5  # lambda, of the attribute term of all methods that have one
    # Training
    pairs: int = (
        0  # positive pairs to learn from, and as many negatives; 0: half of all positive ones
    )
    redraw: bool = True  # draw pairs anew for every epoch; false: once, as the official code does
    epochs: int = 100  # each is one step on all pairs
    lr: float = 0.001
    weight_decay: float = 0.0
    precision: str = "auto"
    evaluate_every: int = (
        10  # epochs between looks at the validation classes, which choose the best
    )
    # Evaluation
    ways: int = 5
    shots: int = 5
    queries: int = 15  # of each class (the paper: 16)
    episodes: int = 600
    validation_episodes: int = 100
    # The run
    seed: int = 0
    device: str = "auto"
    progress: str = "auto"
    out: str = ""  # output folder; empty: runs/fewshot-<hash of the parameters>
    card: str = ""  # the lab card that this run belongs to

    def __post_init__(self):
        _check(self)


read = partial(
    reading.from_notebook, Parameters
)  # the parameters of a notebook, from its globals()


class Part(NamedTuple):
    """Base, validation or novel classes: images, their pixels in the same order, and their standardised features (N, C)."""

    images: ImageSet
    pixels: PixelCache
    features: Tensor


@dataclass
class Experiment:
    """What `prepare` puts together.

    Attributes:
        base, validation, novel: the classes to learn from, to choose by and to measure on.
        mean, deviation: (C,) of the base features, which standardise all.
        attribute_source: where the attributes of 0, 1 and NaN that the images have come from, in words.
        network: encoder and head; None for a method that is not trained.
        validation_episodes, episodes: positions in the validation and the novel part.
    """

    parameters: Parameters
    base: Part
    validation: Part
    novel: Part
    mean: Tensor
    deviation: Tensor
    attribute_source: str
    backbone: Backbone
    network: OutfitNetwork | None
    views: TestViews
    validation_episodes: Episodes
    episodes: Episodes
    device: torch.device
    folder: Path

    def identity(self) -> dict:
        data = " ".join(
            part.images.fingerprint for part in (self.base, self.validation, self.novel)
        )
        return {**self.parameters.identity(), "data": data}

    def novel_images(self, index) -> Tensor:
        """Normalised test views of novel images, (B, 3, size, size), on the device."""
        canvas, sizes = self.novel.pixels.batch(torch.as_tensor(index))
        return self.views(canvas.to(self.device), sizes)

    def standardise(self, features: Tensor) -> Tensor:
        return (features - self.mean.to(features)) / self.deviation.to(features)

    def class_scores(self, part: Part, episodes: Episodes) -> tuple[ClassScores, Tensor]:
        """The method's classifier, and the (N, ...) of which it takes rows: features, or row numbers where pairs are scored."""
        if self.network is None:
            return UNTRAINED[self.parameters.method], part.features
        with torch.no_grad():
            table = pair_table(self.network.score, self.network.encode(part.features), episodes)
        return mean_pair_score(lambda query, support: table[query, support]), torch.arange(
            len(part.features)
        )


@dataclass
class Classification:
    """What became of the episodes.

    Attributes:
        class_scores: (E, ways * queries, ways); validation_scores: the same of the validation episodes.
        accuracies: (E,) of the method; others: name -> (E,), on the same features.
        concepts: of supervised concepts, see `concept_scores`; else None.
        metrics, intervals: see `evaluate`.  above: name -> mean and 95 % interval of the method's accuracy less the other's.
    """

    class_scores: Tensor
    validation_scores: Tensor
    accuracies: Tensor
    others: dict[str, Tensor]
    concepts: tuple[Tensor, Tensor] | None
    metrics: dict[str, float]
    intervals: dict[str, list[float]]
    above: dict[str, Interval]


def prepare(parameters: Parameters) -> Experiment:
    """Load, split, decode and embed the data, build the head. Everything that can be wrong is found here.

    The output folder is this process's from here on.

    Raises:
        ValueError, OSError, RuntimeError (another run has the folder): one line that says what is wrong and what would be right.
    """
    p = parameters
    device = choose_device(p.device)
    images, source = settled_attributes(load_images(p), p.certainty)
    if images.attributes is None and p.method in WITH_ATTRIBUTES:
        raise ValueError(
            f"{p.dataset} has no attributes, and {p.method} learns from them: choose pan_unsupervised, protonet or cosine"
        )
    sets = few_shot_split(images)
    draws = {
        "validation": (VALIDATION_SEED, p.validation_episodes),
        "novel": (TEST_SEED, p.episodes),
    }
    episodes = {
        name: _episodes(name, sets[name], p, count, seed) for name, (seed, count) in draws.items()
    }
    torch.manual_seed(p.seed)
    backbone = create_backbone(p.backbone, p.weights, p.size).to(device).eval()
    views = TestViews(p.size, backbone.mean, backbone.std, p.resize)
    parts = {}
    for name, images in sets.items():
        pixels = PixelCache.open(
            images.paths, p.resize, progress=counter("images decoded", p.progress)
        )
        features = frozen_features(
            pixels,
            backbone,
            views,
            device=device,
            precision=p.precision,
            batch_statistics=p.batch_statistics,
            progress=p.progress,
        )
        parts[name] = Part(images, pixels, features.to(device))
    mean, deviation = parts["base"].features.mean(0), parts["base"].features.std(0)
    deviation = torch.where(
        deviation > 0, deviation, 1.0
    )  # a feature that never changes tells nothing
    parts = {
        name: part._replace(features=(part.features - mean) / deviation)
        for name, part in parts.items()
    }
    network = None
    if p.method in HEADS:
        count = 0 if images.attributes is None else images.attributes.shape[1]
        network = create_network(p, backbone.channels, count).to(device).eval()
        base_pairs(p, sets["base"].labels)
    lock(p.folder())  # last, so that whatever else is wrong leaves no folder behind
    return Experiment(
        p,
        **parts,
        mean=mean,
        deviation=deviation,
        attribute_source=source,
        backbone=backbone,
        network=network,
        views=views,
        validation_episodes=episodes["validation"],
        episodes=episodes["novel"],
        device=device,
        folder=p.folder(),
    )


def few_shot_split(images: ImageSet) -> dict[str, ImageSet]:
    """Base, validation and novel classes: of the sorted class names every second, and every fourth twice.

    Source: Chen et al., "A Closer Look at Few-shot Classification", 2019, as PAN uses it: on CUB 100, 50 and 50 classes.
    """
    rank = torch.empty(len(images.class_names), dtype=torch.int64)
    rank[sorted(range(len(rank)), key=images.class_names.__getitem__)] = torch.arange(len(rank))
    place = rank[images.labels] % 4
    return {
        "base": images.subset(place % 2 == 0),
        "validation": images.subset(place == 1),
        "novel": images.subset(place == 3),
    }


def settled_attributes(images: ImageSet, certainty: int) -> tuple[ImageSet, str]:
    """The images with attributes of 0, 1 and NaN for unknown, and in words where these come from."""
    if images.attributes is None:
        return images, "no attributes"
    count = f"{images.attributes.shape[1]} attributes"
    try:
        return certain_attributes(
            images, certainty
        ), f"{count} of single images, known where certainty is {certainty} or more"
    except FileNotFoundError:
        whole = dataclasses.replace(images, attributes=binarise(images.attributes, PERCENTAGE))
        return (
            whole,
            f"{count} of whole classes: there if seen in {PERCENTAGE:.0%} or more of the answers",
        )


def _episodes(name: str, images: ImageSet, p: Parameters, count: int, seed: int) -> Episodes:
    try:
        return sample_episodes(
            images.labels, p.ways, p.shots, p.queries, count, torch.Generator().manual_seed(seed)
        )
    except ValueError as error:
        raise ValueError(f"{name} classes of {p.dataset}: {error}") from None


def base_pairs(p: Parameters, labels: Tensor, epoch: int = 1) -> tuple[Tensor, Tensor]:
    """The pairs that an epoch learns from: (2 P, 2) positions and (2 P,) 1. or 0."""
    return pairs_from_labels(
        labels, p.pairs or positive_pairs(labels) // 2, seeded(p.seed, 21, epoch if p.redraw else 1)
    )


def train(experiment: Experiment) -> History:
    """Train the encoder and the head; the network then holds the weights that were best on the validation classes."""
    e, p = experiment, experiment.parameters
    if e.network is None:
        return History()
    attributes = e.base.images.attributes.to(e.device) if p.method in WITH_ATTRIBUTES else None

    def on_validation() -> dict[str, float]:
        return {
            "accuracy": accuracies(method_scores(e, e.validation, e.validation_episodes))
            .mean()
            .item()
        }

    labels = e.base.images.labels
    return fit_on_pairs(
        e.network,
        e.base.features,
        lambda epoch: base_pairs(p, labels, epoch),
        attributes,
        p,
        on_validation,
    )


def evaluate(experiment: Experiment) -> Classification:
    """Classify the episodes of novel classes.

    Metrics: "accuracy", and "accuracy_protonet" and "accuracy_cosine" of classifiers that learn nothing, on the same features and
    episodes; "accuracy_validation" on the validation classes, to choose settings by; "concept_auc" of supervised concepts: how well
    they rank novel pairs by the attribute they stand for, averaged over attributes (0.5: not at all). Intervals are over episodes.
    """
    e = experiment
    scores, validation = (
        method_scores(e, *each)
        for each in ((e.novel, e.episodes), (e.validation, e.validation_episodes))
    )
    features = e.novel.features.cpu()
    episode_values = {"accuracy": accuracies(scores)}
    episode_values |= {
        f"accuracy_{name}": episode_accuracies(features, e.episodes, classify)
        for name, classify in UNTRAINED.items()
    }
    metrics = {name: values.mean().item() for name, values in episode_values.items()}
    metrics["accuracy_validation"] = accuracies(validation).mean().item()
    concepts = None
    if (
        e.network is not None
        and isinstance(e.network.head, SimilarityHead)
        and e.network.head.attributes
    ):
        concepts = concept_scores(e)
        metrics["concept_auc"] = mean_area_under_curves(*concepts)
    own = episode_values["accuracy"]
    others = {name: episode_values[f"accuracy_{name}"] for name in UNTRAINED}
    return Classification(
        scores,
        validation,
        own,
        others,
        concepts,
        metrics,
        {name: list(seed_interval(values)[1:]) for name, values in episode_values.items()},
        {name: paired_bootstrap(own, values) for name, values in others.items()},
    )


def method_scores(experiment: Experiment, part: Part, episodes: Episodes) -> Tensor:
    """What the method says of a part's episodes: (E, ways * queries, ways)."""
    classify, rows = experiment.class_scores(part, episodes)
    return episode_scores(
        rows.cpu(), episodes, lambda query, support: classify(query, support).cpu()
    )


def pair_table(score, encoded: Tensor, episodes: Episodes) -> Tensor:
    """Symmetric similarity of all pairs of rows (N, h) that a query of the episodes meets, each scored once: (N, N), NaN elsewhere."""
    needed = torch.zeros(len(encoded), len(encoded), dtype=torch.bool)
    for support, query in zip(*episodes):
        needed[query.flatten()[:, None], support.flatten()] = True
    pairs = (needed | needed.T).triu().nonzero()
    scores = score_pairs(score, encoded, pairs).cpu()
    table = torch.full(needed.shape, torch.nan)
    first, second = pairs.T
    table[first, second] = table[second, first] = scores
    return table


@torch.no_grad()
def concept_scores(experiment: Experiment, pairs: int = 2000) -> tuple[Tensor, Tensor]:
    """Supervised concepts (P, A) of random novel pairs of both kinds, and the attributes that they stand for, of 0, 1 and NaN (P, A)."""
    e, head = experiment, experiment.network.head
    first, second = random_pairs(e.novel.images.labels, pairs, TEST_SEED)[0].T
    targets = pair_labels(
        e.novel.images.attributes[first], e.novel.images.attributes[second], head.rule
    )
    encoded = e.network.encode(e.novel.features)
    concepts = torch.cat(
        [
            head(encoded[i], encoded[j])[1].cpu()
            for i, j in zip(first.split(CHUNK), second.split(CHUNK))
        ]
    )
    return concepts[:, : targets.shape[1]], targets


def sibling_runs(experiment: Experiment) -> list[tuple[dict, Tensor]]:
    """Finished few-shot runs that learnt something, beside this one on the same episodes of the same images: (result, accuracies (E,))."""
    from safetensors.torch import load_file

    p = experiment.parameters
    same = ("ways", "shots", "queries", "episodes")
    return [
        (result, load_file(folder / "episodes.safetensors")["accuracies"])
        for folder, result in siblings(experiment.folder, p.kind, experiment.identity()["data"])
        if result["method"] not in UNTRAINED
        and all(result["parameters"][name] == getattr(p, name) for name in same)
    ]


def finish(
    experiment: Experiment,
    history: History,
    classification: Classification,
    figures: list[str],
    notebook: str,
) -> Path:
    """Save what the metrics can be computed from anew and the network, and write result.json; returns its path."""
    from safetensors.torch import save_file

    e, p, c = experiment, experiment.parameters, classification
    saved = {
        "support": e.episodes.support,
        "query": e.episodes.query,
        "class_scores": c.class_scores.float(),
        "validation_scores": c.validation_scores.float(),
        "accuracies": c.accuracies,
        **{f"accuracies_{name}": values for name, values in c.others.items()},
    }
    if c.concepts:
        saved |= dict(zip(("concepts", "concept_targets"), c.concepts))
    with atomic(e.folder / "episodes.safetensors") as temporary:
        save_file({name: value.contiguous() for name, value in saved.items()}, temporary)
    if e.network is not None:
        with atomic(e.folder / "network.safetensors") as temporary:
            save_file(
                {
                    **{
                        name: value.cpu().contiguous()
                        for name, value in e.network.state_dict().items()
                    },
                    "feature_mean": e.mean.cpu(),
                    "feature_deviation": e.deviation.cpu(),
                },
                temporary,
            )
    return write_result(
        e.folder,
        experiment=p.kind,
        notebook=notebook,
        card=p.card,
        method=p.method,
        dataset=e.novel.images.name,
        parameters=dataclasses.asdict(p),
        metrics=c.metrics,
        intervals=c.intervals,
        counts={
            "train": len(e.base.images),
            "query": int(e.episodes.query.numel()),
            "gallery": int(e.episodes.support.numel()),
            "classes": len(e.novel.images.labels.unique()),
            "train_classes": len(e.base.images.labels.unique()),
        },
        curves={"epochs": history.epochs, "evaluations": history.evaluations},
        figures=figures,
        timing={"train_seconds": history.seconds, "images_per_second": history.images_per_second},
        device=str(e.device),
        data_fingerprint=e.identity()["data"],
        attributes=e.attribute_source,
        attribute_names=e.base.images.attribute_names or [],
        above={name: list(values) for name, values in c.above.items()},
        chosen_epoch=(history.best(p.monitor) or {}).get("epoch"),
    )


def main(arguments: list[str]) -> int:
    """Run all of it from name=value arguments."""

    def whole(p: Parameters, rank: int, world: int):
        experiment = prepare(p)
        history, classification = train(experiment), evaluate(experiment)
        return classification.metrics, partial(
            finish, experiment, history, classification, [], notebook=""
        )

    return run_experiment(Parameters, arguments, whole)


def _check(p: Parameters) -> None:
    check_images(p, generated="fieldguide")
    methods = (*HEADS, *UNTRAINED)
    if p.method not in methods:
        raise ValueError(f"method is '{p.method}': it must be one of {', '.join(methods)}")
    check_head(p)
    if p.certainty not in (1, 2, 3, 4):
        raise ValueError(
            f"certainty is {p.certainty}: it runs from 1 (not visible) to 4 (definitely)"
        )


if __name__ == "__main__":
    warnings.simplefilter("default")
    sys.exit(main(sys.argv[1:]))
