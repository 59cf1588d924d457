"""Few-shot classification by pairwise similarity: PAN on features of a network.

Similarities are learned on pairs of base classes, chosen on validation classes and measured in
episodes of novel ones. Protocol: Mishra et al. 2021, Sec. 3, with what its official code adds. That
code trains the network from scratch with triplets first, as embedding_settings {"method":
"triplet"} does; without, features are those of ImageNet weights. The paper's settings:
labs/pan/table2.yaml."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fieldmarks.checks import at_least, one_of
from fieldmarks.data.imageset import ImageSet
from fieldmarks.data.layouts.cub import certain_attributes
from fieldmarks.data.pixels import PixelCache
from fieldmarks.evaluation import episodes as protocol
from fieldmarks.evaluation.episodes import Episodes, accuracies
from fieldmarks.evaluation.outfits import mean_area_under_curves
from fieldmarks.evaluation.statistics import paired_bootstrap, seed_interval
from fieldmarks.experiments import pairs as learned
from fieldmarks.experiments.experiment import run_as_module
from fieldmarks.experiments.pairs import HEADS, EndToEndParameters, PairExperiment
from fieldmarks.experiments.parameters import composed_of
from fieldmarks.experiments.scores import Scores
from fieldmarks.methods.pairs import pairs_from_labels
from fieldmarks.methods.pan import PAN, binarise, pair_labels
from fieldmarks.random import seeded

UNTRAINED = {"protonet": protocol.prototype_scores, "cosine": protocol.cosine_scores}
CLASSIFIERS = UNTRAINED | {"baseline++": protocol.cosine_classifier_scores}
SEEDS = {"validation": 44, "novel": 45}  # the same episodes for every run: paired comparison
PERCENTAGE = 0.5  # of annotators who must see an attribute, where only classes have attributes


@composed_of(epochs=100, evaluate_every=10, attribute_weight=1e-5)
class Parameters(EndToEndParameters):
    """As `EndToEndParameters` (pairs: 0 is half of all positive ones), and:"""

    kind = "fewshot"
    embedding_defaults = {"split": "few_shot"}

    certainty: int = 3  # less certain attributes are unknown (2 guessing, 3 probably, 4 definitely)
    batch_statistics: bool = False  # of class-sorted batches, as the official code: leaks classes
    redraw: bool = True  # pairs anew for every epoch; false: once, as the official code does
    ways: int = 5
    shots: int = 5
    queries: int = 15  # of each class; the paper has 16
    episodes: int = 600
    validation_episodes: int = 100

    def __post_init__(self):
        super().__post_init__()
        one_of("method", self.method, (*HEADS, *CLASSIFIERS))
        one_of("encoder", self.encoder, ("linear", "none"))
        at_least(1, ways=self.ways, shots=self.shots, queries=self.queries)
        if self.batch_statistics and self.end_to_end:
            raise ValueError("batch_statistics are of features that stay: leave out end_to_end")
        if self.certainty not in (1, 2, 3, 4):
            raise ValueError(
                f"certainty is {self.certainty}: it runs from 1 (not visible) to 4 (definitely)"
            )


class Part(NamedTuple):
    """Some classes: images, their pixels in order, and standardised features (N, d)."""

    images: ImageSet
    pixels: PixelCache
    features: Tensor


class FewShot(PairExperiment):
    """Attributes:
    base, validation, novel: the classes to learn from, to choose by and to measure on.
    attribute_source: where the attributes of 0, 1 and NaN come from, in words.
    validation_episodes, episodes: positions in the validation and the novel part."""

    Parameters = Parameters
    monitor = "accuracy"
    saved_file = "episodes.safetensors"
    validation_data = "validation classes"

    def split(self) -> Sequence[ImageSet]:
        """Base, validation and novel classes, with the attributes that are known."""
        p = self.parameters
        images, self.attribute_source = known_attributes(self.load_images(), p.certainty)
        if images.attributes is None and p.method in learned.WITH_ATTRIBUTES:
            problem = f"{p.dataset} has no attributes, and {p.method} learns from them: "
            raise ValueError(problem + "choose pan_unsupervised, protonet or cosine")
        sets = list(few_shot_split(images).values())
        if images.attributes is None:
            return sets
        known = sets[0].attributes, images.attribute_names
        kept, self.constant = learned.varying(*known, p.dataset)
        return [part.with_attributes(kept) for part in sets]

    def prepare(self) -> None:
        p, sets = self.parameters, self.split()
        self.validation_episodes = self._episodes("validation", sets[1], p.validation_episodes)
        self.episodes = self._episodes("novel", sets[2], p.episodes)
        self.create_embedder(sets[0].fingerprint)
        all_pixels, leaky = self.use(*sets), {"batch_statistics": p.batch_statistics}
        features = [self.features_of(pixels, **leaky) for pixels in all_pixels]
        self.method = self.create_network(features[0].shape[1], sets[0].attributes)
        standardise, deviation = self.method.standardise, features[0].std(0)
        standardise.mean = features[0].mean(0)
        standardise.deviation = torch.where(deviation > 0, deviation, 1.0)
        parts = zip(sets, all_pixels, map(standardise, features), strict=True)
        self.base, self.validation, self.novel = (Part(*part) for part in parts)
        if self.learns:
            base = self.base.images
            self.stream = self.pair_stream(self.base.features, self.base_pairs, base.attributes)

    def _episodes(self, name: str, images: ImageSet, count: int) -> Episodes:
        p = self.parameters
        sizes, seed = (p.ways, p.shots, p.queries, count), SEEDS[name]
        try:
            generator = torch.Generator().manual_seed(seed)
            return protocol.sample_episodes(images.labels, *sizes, generator)
        except ValueError as error:
            raise ValueError(f"{name} classes of {p.dataset}: {error}") from None

    def base_pairs(self, epoch: int) -> tuple[Tensor, Tensor]:
        """The pairs of an epoch: (2 P, 2) positions and (2 P,) 1. or 0."""
        p, labels = self.parameters, self.base.images.labels
        count = p.pairs or learned.positive_pairs(labels) // 2
        epoch = epoch if p.redraw else 1
        drawn = pairs_from_labels(labels, count, seeded(p.seed, 21, epoch))
        return self.with_hard(*drawn, self.base.features, labels, epoch)

    def learned_images(self) -> tuple[PixelCache, Tensor, Tensor | None]:
        return self.base.pixels, self.base.images.labels, self.base.images.attributes

    def renew(self, *parts: str) -> None:
        """Take the features of some parts anew where the embedder is trained too."""
        for name in parts if self.whole else ():
            part = getattr(self, name)
            features = self.network.standardise(self.features_of(part.pixels))
            setattr(self, name, part._replace(features=features))

    def novel_images(self, index) -> Tensor:
        """Normalised test views of novel images, (B, 3, size, size), on the device."""
        return self.pictures(self.novel.pixels, index)

    def class_scores(self, part: Part, episodes: Episodes):
        """The method's classifier, and the (N, ...) of which it takes rows: features, or row
        numbers where pairs are scored."""
        if not self.learns:
            return CLASSIFIERS[self.parameters.method], part.features
        with torch.no_grad():
            encoded = self.network.encode(part.features)
        table = learned.pair_table(self.network.score, encoded, episodes)
        return protocol.mean_pair_score(lambda q, s: table[q, s]), torch.arange(len(part.features))

    def method_scores(self, part: Part, episodes: Episodes) -> Tensor:
        """What the method says of a part's episodes: (E, ways * queries, ways)."""
        classify, rows = self.class_scores(part, episodes)
        return protocol.episode_scores(rows.cpu(), episodes, lambda q, s: classify(q, s).cpu())

    def validate(self) -> dict[str, float]:
        self.renew("validation")
        scores = self.method_scores(self.validation, self.validation_episodes)
        return {"accuracy": accuracies(scores).mean().item()}

    def evaluate(self) -> Scores:
        self.renew("base", "validation", "novel")
        features, chosen_by = self.novel.features.cpu(), (self.validation, self.validation_episodes)
        saved = {"support": self.episodes.support, "query": self.episodes.query}
        saved["class_scores"] = self.method_scores(self.novel, self.episodes).float()
        saved["validation_scores"] = self.method_scores(*chosen_by).float()
        for name, classify in UNTRAINED.items():
            found = protocol.episode_accuracies(features, self.episodes, classify)
            saved[f"accuracies_{name}"] = found
        head = self.network.head
        if isinstance(head, PAN) and head.attributes:
            saved |= dict(zip(("concepts", "concept_targets"), self.concept_scores(), strict=True))
        return self.measure(saved, {})

    @classmethod
    def measure(cls, saved: Mapping[str, Tensor], parameters: Mapping) -> Scores:
        """Metrics: "accuracy" in episodes of novel classes; "accuracy_protonet" and
        "accuracy_cosine" of classifiers that learn nothing, on the same features and episodes;
        "accuracy_validation", to choose settings by; "concept_auc": how well supervised concepts
        rank novel pairs by the attribute they stand for (0.5: not at all). Intervals: over
        episodes."""
        values = {"accuracy": accuracies(saved["class_scores"])}
        values |= {f"accuracy_{name}": saved[f"accuracies_{name}"] for name in UNTRAINED}
        others = {"accuracy_validation": accuracies(saved["validation_scores"]).mean().item()}
        if "concepts" in saved:
            sides = saved["concepts"], saved["concept_targets"]
            others["concept_auc"] = mean_area_under_curves(*sides)
        asked = torch.cat([saved[name].flatten() for name in ("support", "query")])
        own = {n: lambda v=v: seed_interval(v)[1:] for n, v in values.items()}
        saved = dict(saved) | {"accuracies": values["accuracy"]}
        count = saved["query"].numel()
        return Scores(values, others, asked, count, own_intervals=own, saved=saved)

    def concept_pairs(self, pairs: int = 2000) -> Tensor:
        """Random pairs of novel images, half of one class: (P, 2) positions."""
        return learned.random_pairs(self.novel.images.labels, pairs, SEEDS["novel"])[0]

    @torch.no_grad()
    def concept_scores(self, pairs: int = 2000) -> tuple[Tensor, Tensor]:
        """Supervised concepts (P, A) of `concept_pairs`, and the attributes that they stand for, of
        0, 1 and NaN (P, A)."""
        images, head = self.novel.images, self.network.head
        first, second = self.concept_pairs(pairs).T
        targets = pair_labels(images.attributes[first], images.attributes[second], head.rule)
        encoded = self.network.encode(self.novel.features)
        chunks = zip(first.split(learned.CHUNK), second.split(learned.CHUNK), strict=True)
        concepts = torch.cat([head(encoded[i], encoded[j])[1].cpu() for i, j in chunks])
        return concepts[:, : targets.shape[1]].contiguous(), targets

    def other_runs(self) -> list[tuple[dict, Tensor]]:
        """Finished runs that learned something, beside this one on the same episodes of the same
        images: (result, accuracies (E,))."""
        from safetensors.torch import load_file

        values = self.parameters.plain()
        same = {name: values[name] for name in ("ways", "shots", "queries", "episodes")}
        return [
            (result, load_file(folder / self.saved_file)["accuracies"])
            for folder, result in self.siblings()
            if result["method"] not in CLASSIFIERS and same.items() <= result["parameters"].items()
        ]

    def counts(self) -> Sequence[int]:
        classes = (len(part.images.labels.unique()) for part in (self.novel, self.base))
        queries, supports = self.episodes.query.numel(), self.episodes.support.numel()
        return len(self.base.images), queries, supports, *classes

    @property
    def attribute_names(self) -> list[str]:
        return self.base.images.attribute_names or []

    def details(self, scores, history) -> dict:
        own, others = scores.values["accuracy"], {n: f"accuracy_{n}" for n in UNTRAINED}
        above = {n: list(paired_bootstrap(own, scores.values[o])) for n, o in others.items()}
        details = super().details(scores, history)
        return details | {"above": above, "attributes": self.attribute_source}


def few_shot_split(images: ImageSet) -> dict[str, ImageSet]:
    """Base, validation and novel classes: of the sorted class names every second, and every fourth
    twice. Source: Chen et al., "A Closer Look at Few-shot Classification", 2019, as PAN uses it: on
    CUB 100, 50 and 50 classes."""
    rank = torch.empty(len(images.class_names), dtype=torch.int64)
    order = sorted(range(len(rank)), key=images.class_names.__getitem__)
    rank[order] = torch.arange(len(rank))
    place = rank[images.labels] % 4
    parts = {"base": place % 2 == 0, "validation": place == 1, "novel": place == 3}
    return {name: images.subset(part) for name, part in parts.items()}


def known_attributes(images: ImageSet, certainty: int) -> tuple[ImageSet, str]:
    """The images with attributes of 0, 1 and NaN for unknown, and where these come from."""
    if images.attributes is None:
        return images, "no attributes"
    count = f"{images.attributes.shape[1]} attributes"
    try:
        single = certain_attributes(images, certainty)
        return single, f"{count} of single images, known where certainty is {certainty} or more"
    except FileNotFoundError:
        of_classes = binarise(images.attributes, PERCENTAGE)
        source = f"{count} of classes: there if seen in {PERCENTAGE:.0%} or more of the answers"
        return dataclasses.replace(images, attributes=of_classes), source


if __name__ == "__main__":
    run_as_module(FewShot)
