"""Open-set retrieval: train on some classes, find again images of classes never seen.

VAPNet against its baselines. The settings of the paper stand in the cards under labs/vapnet."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from fieldmarks.backbones import Backbone
from fieldmarks.checks import at_least, one_of, share
from fieldmarks.data.batches import TrainingStream, TripletStream
from fieldmarks.data.imageset import ImageSet
from fieldmarks.evaluation.information import attribute_information
from fieldmarks.evaluation.results import retrieve
from fieldmarks.experiments.experiment import Experiment, ImageParameters, run_as_module
from fieldmarks.experiments.features import frozen_features
from fieldmarks.experiments.fewshot import few_shot_split
from fieldmarks.experiments.parameters import composed_of
from fieldmarks.experiments.scores import NEIGHBOURS, Scores
from fieldmarks.methods.method import Method
from fieldmarks.methods.metric_baselines import BASELINES, create_baseline
from fieldmarks.methods.vapnet import VAPNet, patch_boxes
from fieldmarks.random import seeded
from fieldmarks.resampling import crop_and_resize

INFORMED = 100  # images whose attributes are looked at
DEFAULTS = {"views": 2, "constraint_weight": 0.1, "grids": (2, 4), "uniform_over": "grids"}
DEFAULTS |= {"cosine_head": True, "freeze_norm": True, "epochs": 4, "lr": 0.01}


@composed_of(VAPNet, create_baseline, **DEFAULTS)
class Parameters(ImageParameters):
    """Options of VAPNet (NOTE with frozen batch statistics features vanish from a constraint_weight
    of about 1 on), of its baselines, and:"""

    kind = "open_set"

    # By classes; the official one; or the base and the validation classes of few-shot protocols.
    split: Literal["open", "closed", "few_shot"] = "open"
    validation: float = 0.0  # share of the training classes searched instead of the test classes
    method: str = "vapnet"  # vapnet or one of BASELINES
    triplets: int = 0  # of an epoch of "triplet"; 0: one for every pair of images of a class
    ks: tuple[int, ...] = (1, 2, 4, 8)  # the Ks of Recall@K

    def __post_init__(self):
        super().__post_init__()
        one_of("method", self.method, ("vapnet", *BASELINES))
        check_ks(self.ks)
        share(validation=self.validation)
        at_least(0, triplets=self.triplets)
        at_least(1, shots=self.shots)
        if self.method == "protonet" and self.per_class <= self.shots:
            problem = f"per_class is {self.per_class} and shots is {self.shots}: "
            raise ValueError(problem + "an episode needs more images of a class than its shots")
        if self.method == "vapnet" and self.constraint != "none":
            patch_boxes(self.size, self.size, self.grids)


def check_ks(ks: tuple[int, ...]) -> None:
    if not ks or min(ks) < 1:
        raise ValueError(f"ks is {list(ks)}: give one or more whole numbers of at least 1")


class OpenSet(Experiment):
    """`train_set` and `test_set` are image sets, `*_pixels` their decoded images."""

    Parameters = Parameters
    saved_file = "embeddings.safetensors"
    validation_data = "held-out training classes"
    tuning: ClassVar[dict] = {"validation": 0.25}

    @property
    def monitor(self) -> str:
        return f"recall@{self.parameters.ks[0]}"

    def split(self) -> Sequence[ImageSet]:
        """Classes to learn from and classes to retrieve: for validation, some of those to learn
        from, and then no image of a test class is looked at."""
        p, images = self.parameters, self.load_images()
        if p.split == "few_shot":
            sets: Sequence[ImageSet] = list(few_shot_split(images).values())[:2]
        else:
            sets = images.open_split() if p.split == "open" else images.closed_split()
        if p.max_classes:
            kept = [s.labels.unique()[: p.max_classes] for s in sets]
            sets = [s.subset(torch.isin(s.labels, k)) for s, k in zip(sets, kept, strict=True)]
        return hold_out_classes(sets[0], p.validation) if p.validation else sets

    def prepare(self) -> None:
        p = self.parameters
        self.train_set, self.test_set = sets = self.split()
        check_test_set(self.test_set)
        classes, backbone = self.train_set.labels.unique(), self.create_backbone()
        self.train_pixels, self.test_pixels = self.use(*sets)
        self.method = build(p, backbone, len(classes))
        if self.method.trains:
            labels = torch.searchsorted(classes, self.train_set.labels)
            kind, options = TrainingStream, {"per_class": p.per_class, "draws": self._draws()}
            if p.method == "triplet":
                kind, options = TripletStream, {"triplets": p.triplets}
            self.stream = self.training_stream(kind, self.train_pixels, labels, **options)
            rows = getattr(self.method, "unit_rows", None)
            if rows is not None and p.weights != "none":
                self.imprint(rows, labels)

    @torch.no_grad()
    def imprint(self, rows: Tensor, labels: Tensor) -> None:
        """Turn rows (N, C) to the mean embeddings of the classes 0 .. N-1 (Qi et al., Low-Shot
        Learning with Imprinted Weights, 2018): the first gradients of random ones only disturb
        features that are trained already, as those of a linear head would, which starts at zero."""
        p = self.parameters
        options = {"device": self.device, "precision": p.precision, "progress": p.progress}
        embeddings = frozen_features(self.train_pixels, self.method, self.test_views, **options)
        means = torch.zeros_like(embeddings[: len(rows)]).index_add_(0, labels, embeddings)
        lengths = rows.norm(dim=1, keepdim=True)
        rows.copy_(F.normalize(means, dim=1).to(rows.device) * lengths)

    def _draws(self) -> dict:
        p = self.parameters
        if not isinstance(self.method, VAPNet) or p.constraint == "none":
            return {}
        return {"boxes": lambda n, g: self.method.sample_boxes(n, p.size, p.size, g)}

    def test_images(self, index) -> Tensor:
        """Normalised test views of images of the test set, (B, 3, size, size), on the device."""
        return self.pictures(self.test_pixels, index)

    def evaluate(self) -> Scores:
        embeddings = self.embed(self.test_pixels)
        if vanished := int((embeddings.norm(dim=1) == 0).sum()):
            raise RuntimeError(
                f"the network maps {vanished} of {len(embeddings)} images to zero: training has "
                "collapsed, for features that vanish satisfy VAPNet's constraint; use freeze_norm "
                "false, or a smaller constraint_weight or lr"
            )
        saved = {"embeddings": embeddings, "labels": self.test_set.labels}
        if parts := self.test_set.query_gallery():
            saved |= dict(zip(("query", "gallery"), parts, strict=True))
        saved |= self.attention(self.test_set, self.test_pixels)
        return self.measure(saved, {"ks": self.parameters.ks})

    def validate(self) -> dict[str, float]:
        return self.evaluate().metrics | self.information()

    @torch.no_grad()
    def information(self) -> dict[str, float]:
        """What VAPNet's attributes tell of unseen classes, in nats, as `attribute_information` has
        it, of INFORMED images and M views of each; {} of a method without attributes."""
        p, method = self.parameters, self.method.eval()
        if not isinstance(method, VAPNet) or p.constraint == "none":
            return {}
        rows = self.test_set.spread(INFORMED)
        boxes = method.sample_boxes(len(rows), p.size, p.size, seeded(0, 51)).to(self.device)
        responses = []
        for part, places in zip(rows.split(16), boxes.split(16), strict=True):
            views = crop_and_resize(self.test_images(part), places, p.size)  # (n, M, 3, H, W)
            of_views = method.attribute_responses(views.flatten(0, 1))
            responses.append(of_views.unflatten(0, (len(part), -1)).cpu())
        known = self.test_set.attributes
        labels, known = self.test_set.labels[rows], None if known is None else known[rows]
        found = attribute_information(torch.cat(responses), labels, known)
        return {f"attributes: {n}": value for n, value in found.items() if math.isfinite(value)}

    @classmethod
    def measure(cls, saved: Mapping[str, Tensor], parameters: Mapping) -> Scores:
        """Recall@K and mAP@R: every test image queries all others, or queries the gallery."""
        embeddings, labels, ks = saved["embeddings"], saved["labels"], parameters["ks"]
        sides = [(embeddings, labels)]
        if "query" in saved:
            sides = [(embeddings[saved[n]], labels[saved[n]]) for n in ("query", "gallery")]
        results = retrieve(*(part for side in sides for part in side), k=max(*ks, NEIGHBOURS))
        values = {f"recall@{k}": results.hits(k) for k in ks}
        values["map@r"] = results.average_precision
        asked = sides[0][1]
        options = {"results": results, "saved": dict(saved)}
        return Scores(values, cls.attention_metrics(saved), asked, len(asked), **options)

    def counts(self) -> Sequence[int]:
        train, test = self.train_set.labels, self.test_set.labels
        query, gallery = self.test_set.query_gallery() or (test, test)
        return len(train), len(query), len(gallery), len(test.unique()), len(train.unique())

    @property
    def name(self) -> str:
        """The method, with the loss terms that VAPNet uses."""
        p = self.parameters
        if p.method != "vapnet":
            return p.method
        terms = ["L_a"] * p.classification
        terms += {"mean": ["mean L_c"], "direct": ["L_c"], "none": []}[p.constraint]
        taught = "" if p.teacher == "printed" else f", {p.teacher}"
        return f"vapnet ({' + '.join(terms)}{taught})"

    def compare_with(self) -> tuple[str, Method]:
        """The name and the method of a run with L_a alone beside this one, or of the run that
        `baseline` names; else of the untrained network."""
        p = self.parameters
        wanted = {"method": p.method, "constraint": "none", "classification": True}
        if found := self.comparison({**wanted, "epochs": p.epochs}):
            return found[1]["method"], self.load(*found, str(self.device))
        classes = len(self.train_set.labels.unique())
        return "untrained", build(p, self.create_backbone(), classes).to(self.device).eval()

    @classmethod
    def rebuild(cls, p: ImageParameters, backbone: Backbone, result: dict, folder: Path) -> Method:
        return build(p, backbone, result["counts"]["train_classes"])


def build(p: ImageParameters, backbone: Backbone, classes: int) -> Method:
    if p.method == "vapnet":
        return VAPNet(backbone, classes, **p.options(VAPNet))
    return create_baseline(p.method, backbone, classes, **p.options(create_baseline))


def hold_out_classes(images: ImageSet, part: float) -> tuple[ImageSet, ImageSet]:
    """(rest, held out): a share of the classes, rounded, at least two on each side; the same for
    every method and seed. Held-out classes have two images or more, so that each finds something.

    Raises:
        ValueError: fewer than four classes, or fewer than two of several images."""
    classes, several = images.labels.unique(), (images.class_counts() > 1).nonzero().squeeze(1)
    if len(classes) < 4 or len(several) < 2:
        there = f"{len(classes)} training classes, {len(several)} of them with several images"
        needed = "validation needs at least 4 training classes, 2 of them with several images"
        raise ValueError(f"{needed}, and {images.name} has {there}")
    count = min(max(2, round(part * len(classes))), len(classes) - 2)
    chosen = several[torch.randperm(len(several), generator=seeded(0, 52))[:count]]
    held = torch.isin(images.labels, chosen)
    return images.subset(~held), images.subset(held)


def check_test_set(test: ImageSet) -> None:
    """Every query must have something to find.

    Raises:
        ValueError: names the classes with nothing to find."""
    parts = test.query_gallery()
    if parts is None:
        alone = (test.class_counts() == 1).nonzero().squeeze(1)
        cause = "one image only, which has nothing to find"
    else:
        query, gallery = (test.labels[part] for part in parts)
        alone = query[~torch.isin(query, gallery)].unique()
        cause = "queries but nothing in the gallery"
    if len(alone):
        names = ", ".join(test.class_names[i] for i in alone[:5].tolist())
        names += ", ..." * (len(alone) > 5)
        raise ValueError(
            f"{len(alone)} test class{'es have' if len(alone) > 1 else ' has'} {cause} ({names}): "
            "add images to them or leave them out"
        )


if __name__ == "__main__":
    run_as_module(OpenSet)
