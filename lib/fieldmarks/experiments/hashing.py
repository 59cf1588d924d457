"""Hashing: short binary codes under which images of one class lie close.

FCAENet against its baselines. The training part of the official split is the database, the test
part asks. The settings of the paper stand in the cards under labs/fcaenet."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from fieldmarks.backbones import Backbone
from fieldmarks.checks import at_least, one_of, share
from fieldmarks.data.batches import SampledStream, TrainingStream
from fieldmarks.data.imageset import ImageSet
from fieldmarks.evaluation import hamming
from fieldmarks.evaluation.code_usage import distinct_class_codes
from fieldmarks.experiments.experiment import Experiment, ImageParameters, run_as_module
from fieldmarks.experiments.parameters import composed_of
from fieldmarks.experiments.scores import NEIGHBOURS, Scores
from fieldmarks.methods.fcaenet import FCAENet, attention, erase_mask
from fieldmarks.methods.hash_baselines import create_hash_baseline
from fieldmarks.methods.hash_functions import create_hash_function
from fieldmarks.methods.hashing import to_codes
from fieldmarks.methods.method import Method
from fieldmarks.random import seeded
from fieldmarks.search.codes import CodeIndex

ASYMMETRIC = ("fcaenet", "adsh")  # database codes are optimised, not computed by the network
BATCHWISE = ("dpsh", "dsh", "hashnet", "orthohash")
SHALLOW = ("lsh", "itq", "sh", "sdh")  # on the frozen network's features
DEFAULTS = {"regions": 400, "region_size": 32, "freeze_norm": True, "first_codes": "class"}
DEFAULTS |= {"feature_length": 8.0, "hash_lr": 2.5}
LOOP = {"epochs": 4, "lr": 0.004, "lr_decay": 0.1, "clip_norm": 5.0}


@composed_of(FCAENet, create_hash_baseline, **DEFAULTS, **LOOP)
class Parameters(ImageParameters):
    """Options of FCAENet and its baselines, and:"""

    kind = "hashing"

    validation: float = 0.0  # share of each class's training images that ask instead of the test's
    method: str = "fcaenet"  # or adsh; dpsh, dsh, hashnet, orthohash; lsh, itq, sh, sdh
    bits: int = 24  # k, length of a code
    sample: int = 0  # r, images in an iteration (an epoch) of fcaenet and adsh; 0: all
    passes: int = 3  # times that an iteration goes through them
    batch_size: int = 16
    top: int = 0  # mAP over the first so many of the ranking; 0: all of it

    def __post_init__(self):
        super().__post_init__()
        one_of("method", self.method, (*ASYMMETRIC, *BATCHWISE, *SHALLOW))
        at_least(2, bits=self.bits)  # mAP within Hamming radius 2 is measured too
        at_least(0, top=self.top, sample=self.sample)
        share(validation=self.validation)
        if self.method == "fcaenet" and self.erase:
            for name, most in (("region_size", self.size), ("regions", self.size**2)):
                if (given := getattr(self, name)) > most:
                    problem = f"{name} is {given}, but images are {self.size} px a side: "
                    raise ValueError(problem + f"use {name} of at most {most}")


class Hashing(Experiment):
    """`database_set` and `query_set` are image sets, `*_pixels` their decoded images."""

    Parameters = Parameters
    monitor = "map"
    saved_file = "codes.safetensors"
    alike = ("bits", *Experiment.alike)
    validation_data = "held-out training images"
    tuning: ClassVar[dict] = {"validation": 0.25}
    rival = {"method": "adsh"}

    def prepare(self) -> None:
        p = self.parameters
        self.database_set, self.query_set = sets = self.split()
        backbone = self.create_backbone()
        self.database_pixels, self.query_pixels = self.use(*sets)
        self.method = build(p, backbone, self.database_set.labels)
        data = (self.database_pixels, self.database_set.labels)
        if p.method in ASYMMETRIC:
            options = {"sample": p.sample or len(self.database_set), "passes": p.passes}
            options["positives"] = self.method.relate
            self.stream = self.training_stream(SampledStream, *data, **options)
        elif p.method in BATCHWISE:
            self.stream = self.training_stream(TrainingStream, *data, per_class=p.per_class)

    def split(self) -> Sequence[ImageSet]:
        """Database and queries: the two sides of the official split, or of a split of its training
        side for validation. Labels are numbered anew over the classes that are there."""
        p = self.parameters
        database, queries = self.load_images().closed_split()
        if p.validation:
            database, queries = hold_out(database, p.validation, p.seed)
        classes = database.labels.unique()
        if p.max_classes:
            classes = classes[: p.max_classes]
            kept = [s.subset(torch.isin(s.labels, classes)) for s in (database, queries)]
            database, queries = kept
        missing = sorted(set(queries.labels.unique().tolist()) - set(classes.tolist()))
        if missing:
            problem = f"{len(missing)} classes of the queries have nothing in the database (first: "
            raise ValueError(problem + f"{queries.class_names[missing[0]]}): leave them out")
        names = [database.class_names[label] for label in classes.tolist()]
        parts = [(s, torch.searchsorted(classes, s.labels)) for s in (database, queries)]
        return [dataclasses.replace(s, labels=new, class_names=names) for s, new in parts]

    def query_images(self, index) -> Tensor:
        """Normalised test views of query images, (B, 3, size, size), on the device."""
        return self.pictures(self.query_pixels, index)

    def evaluate(self) -> Scores:
        queries, database = self.encode()
        saved = {
            "query_codes": queries.to(torch.int8),
            "query_labels": self.query_set.labels,
            "database_codes": database.to(torch.int8),
            "database_labels": self.database_set.labels,
        }
        saved |= self.attention(self.query_set, self.query_pixels) | self.erasing()
        return self.measure(saved, dataclasses.asdict(self.parameters))

    @torch.no_grad()
    def erasing(self) -> dict[str, Tensor]:
        """What SREM asks of FCAENet: of queries with masks (n, 3), the share of the image erased,
        how much of that is the object, and the share of the code's bits that change."""
        p, found = self.parameters, []
        if p.method != "fcaenet" or not p.erase:
            return {}
        method = self.method.eval()
        for views, there in self.views_with_masks(self.query_set, self.query_pixels):
            heat = attention(self.backbone(views), views.shape[-2:])
            mask = erase_mask(heat, p.regions, p.region_size).to(views)  # (b, 1, size, size)
            codes, others = (to_codes(method.embed(seen)) for seen in (views, mask * views))
            gone = (mask[:, 0] == 0).cpu()
            of_object = (gone & there).sum((1, 2)) / gone.sum((1, 2))
            changed = (codes != others).float().mean(1).cpu()
            found.append(torch.stack([gone.float().mean((1, 2)), of_object, changed], dim=1))
        return {"erasing": torch.cat(found)} if found else {}

    def encode(self) -> tuple[Tensor, Tensor]:
        """Codes (Q, k) and (G, k) of queries and database, of -1/+1.

        Of fcaenet and adsh the database codes are those that were optimised, as in the papers;
        other methods compute both alike."""
        p, queries = self.parameters, self.embed(self.query_pixels)
        if p.method in ASYMMETRIC:
            return to_codes(queries), self.method.codes.cpu()
        database = self.embed(self.database_pixels)
        if p.method in BATCHWISE:
            return to_codes(queries), to_codes(database)
        coder = create_hash_function(p.method, p.bits, p.seed)
        coder = coder.fit(database, self.database_set.labels)
        return coder(queries), coder(database)

    @classmethod
    def measure(cls, saved: Mapping[str, Tensor], parameters: Mapping) -> Scores:
        """Metrics of codes against codes.

        "map", ties at their expectation; "map_stable", ties in the order of the lists, which are
        sorted by class: for comparison with published numbers, which are made so; "precision@r2",
        "recall@r2" and "found@r2": lookup within Hamming radius 2, and the share of queries that
        found anything there; "class_codes": how many different codes the majorities of the classes'
        database codes make, as a share of the classes: near 0 where the codes have collapsed; and
        means of what `attention` and `erasing` gave, "erased", "erased_object", "erased_bits"."""
        names = ("query_codes", "query_labels", "database_codes", "database_labels")
        sides = [saved[n].float() if n.endswith("codes") else saved[n] for n in names]
        top = parameters.get("top") or None
        results = hamming.retrieve(*sides, k=NEIGHBOURS, seed=parameters["seed"], top=top)
        stable = hamming.average_precision(*sides, ties="stable", top=top)
        near = hamming.lookup(*sides, radius=2)
        others = {
            "precision@r2": near.precision,
            "recall@r2": near.recall,
            "found@r2": 1 - near.empty,
            "class_codes": distinct_class_codes(*sides[2:]),
            **cls.attention_metrics(saved),
        }
        if "erasing" in saved:
            parts = ("erased", "erased_object", "erased_bits")
            others |= dict(zip(parts, saved["erasing"].mean(0).tolist(), strict=True))
        values = {"map": results.average_precision, "map_stable": stable}
        asked = saved["query_labels"]
        options = {"reported": ("map",), "results": results, "saved": dict(saved)}
        return Scores(values, others, asked, len(asked), **options)

    def counts(self) -> Sequence[int]:
        database, classes = len(self.database_set), len(self.database_set.class_names)
        return database, len(self.query_set), database, classes, classes

    def details(self, scores, history) -> dict:
        """Leaves a searchable index of the database in the folder."""
        codes = scores.saved["database_codes"].float()
        CodeIndex.build(codes).save(self.folder / "database.index")
        return {}

    @property
    def name(self) -> str:
        """The method; fcaenet with the parts that it uses. Without any it is adsh."""
        p = self.parameters
        if p.method != "fcaenet":
            return p.method
        parts = ["SREM"] * p.erase + ["ESRL"] * p.relate
        return "fcaenet" if len(parts) == 2 else " + ".join(["adsh", *parts])

    @classmethod
    def rebuild(cls, p: ImageParameters, backbone: Backbone, result: dict, folder: Path) -> Method:
        from safetensors.torch import load_file

        if p.method in SHALLOW:
            problem = f"'{folder}' is a run of {p.method}, which has no trained network: "
            raise ValueError(problem + "give one of fcaenet, adsh or an open-set method")
        return build(p, backbone, load_file(folder / cls.saved_file)["database_labels"])


def build(p: ImageParameters, backbone: Backbone, labels: Tensor) -> Method:
    if p.method in SHALLOW:
        return Method(backbone)
    if p.method in BATCHWISE:
        options = p.options(create_hash_baseline)
        return create_hash_baseline(p.method, backbone, p.bits, labels, **options)
    options = p.options(FCAENet)
    if p.method == "adsh":
        options |= {"erase": False, "relate": False}
    return FCAENet(backbone, p.bits, labels, **options)


def hold_out(images: ImageSet, part: float, seed: int) -> tuple[ImageSet, ImageSet]:
    """(rest, held out): a share of each class, rounded; at least one image where two or more
    stay."""
    held = torch.zeros(len(images), dtype=torch.bool)
    generator = seeded(seed, 10)
    for label in images.labels.unique():
        members = (images.labels == label).nonzero().squeeze(1)
        count = min(max(1, round(part * len(members))), max(0, len(members) - 2))
        held[members[torch.randperm(len(members), generator=generator)[:count]]] = True
    if not held.any():
        raise ValueError(
            f"validation needs classes of at least 3 images, and {images.name} has none"
        )
    return images.subset(~held), images.subset(held)


if __name__ == "__main__":
    run_as_module(Hashing)
