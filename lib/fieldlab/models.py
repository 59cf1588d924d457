"""A finished run at work on other pictures: its method, views, and what identifies it."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from fieldmarks.backbones import Backbone
from fieldmarks.data.augment import TestViews
from fieldmarks.experiments.experiment import load_run
from fieldmarks.experiments.pairs import PairMethod, score_pairs
from fieldmarks.experiments.result import finished_run
from fieldmarks.methods.hashing import HashMethod, to_codes
from fieldmarks.methods.method import Method
from fieldmarks.show.names import names_of_concepts
from fieldmarks.training import choose_precision, embed_all


@dataclass
class Model:
    """A run's method on a device, in evaluation mode.

    Attributes:
        run: the run's folder.  result: its result.json.
    """

    run: Path
    result: dict
    method: Method

    @property
    def identity(self) -> str:
        """What was run, on which data, and when it ended."""
        return "{method} {data_fingerprint} {finished}".format(**self.result)

    @property
    def backbone(self) -> Backbone:
        return self.method.backbone

    @property
    def bits(self) -> int:
        """Length of its codes; 0 for a method that gives embeddings."""
        return self.method.bits if isinstance(self.method, HashMethod) else 0

    @property
    def resize(self) -> int:
        """Shorter side of the pictures that it reads."""
        return self.backbone.resize

    @property
    def views(self) -> TestViews:
        return TestViews.of(self.backbone)

    @property
    def device(self) -> torch.device:
        return next(self.method.parameters()).device

    @property
    def precision(self) -> str:
        wanted = self.result["parameters"]["precision"]
        return choose_precision(wanted, self.device, self.method)

    def embed(self, pixels, batch_size: int = 64) -> Tensor:
        """Embeddings (N, D) of unit length, codes (N, k) of -1/+1, or what pairs are compared by,
        of pictures with `batch(index)` and a length."""
        options = {"device": self.device, "precision": self.precision}
        outputs = embed_all(self.method, pixels, self.views, batch_size=batch_size, **options)
        return to_codes(outputs) if self.bits else outputs


class PairModel(Model):
    """A PAN run: what compares two pictures."""

    method: PairMethod

    @property
    def network(self):
        return self.method.network

    @property
    def names(self) -> list[str]:
        """Of its M concepts: the attributes' for supervised ones, "concept 1" ... for free ones."""
        return names_of_concepts(self.network.head, self.method.attribute_names)

    def representation(self, images: Tensor) -> Tensor:
        """Normalised images (B, 3, size, size) -> what the network encodes (B, d)."""
        return self.method.features(images)

    @torch.no_grad()
    def encode(self, pixels, batch_size: int = 64) -> Tensor:
        """Pictures with `batch(index)` and a length, as they are compared: (N, h)."""
        return self.embed(pixels, batch_size).to(self.device)

    def scores(self, query: Tensor, gallery: Tensor) -> Tensor:
        """Similarity, 0 .. 1, of one encoded picture (h,) with each of others (N, h): (N,)."""
        both = torch.cat([query[None], gallery])
        others = torch.arange(1, len(both))
        pairs = torch.stack([torch.zeros_like(others), others], dim=1)
        return score_pairs(self.network.score, both, pairs)

    @torch.no_grad()
    def concepts(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """Concept scores (..., M) and their relevance (..., M), which adds up to 1, of encoded
        pictures (..., h) twice (Mishra et al. 2021, eq. 3)."""
        _, concepts, relevance = self.network.head(a, b)
        return concepts, relevance


def load_model(run: Path, device: str = "auto") -> Model:
    """The model of a finished run whose method embeds single pictures (VAPNet, FCAENet, baselines).

    Raises:
        ValueError: no finished run, one whose method compares pairs, or no network (ITQ and
            others).
    """
    folder, result = finished_run(run)
    method = load_run(folder, device)
    if isinstance(method, PairMethod):
        raise ValueError(
            f"'{folder}' is a run of the experiment {result['experiment']}, which gives a picture "
            "no embedding of its own: give one of an open-set or a hashing method"
        )
    return Model(folder, result, method)


def load_pair_model(run: Path, device: str = "auto") -> PairModel:
    """The model of a finished PAN run of the few-shot or the in-shop experiment.

    Raises:
        ValueError: no finished run, one of another experiment or without concepts, or on the
            statistics of class-sorted batches, which other pictures do not have.
    """
    folder, result = finished_run(run)
    method, parameters = result["parameters"]["method"], result["parameters"]
    if result["experiment"] not in ("fewshot", "inshop"):
        raise ValueError(
            f"'{folder}' is a run of the experiment {result['experiment']}, which does not compare "
            "pictures in pairs: give a few-shot or an in-shop run of pan_supervised"
        )
    if not method.startswith("pan_"):
        raise ValueError(
            f"'{folder}' is a run of {method}, which has no concepts: "
            "give one of pan_supervised, pan_hybrid or pan_unsupervised"
        )
    if parameters.get("batch_statistics"):
        raise ValueError(
            f"'{folder}' normalises by the statistics of batches sorted by class, which other "
            "pictures do not have: give a run with batch_statistics false"
        )
    return PairModel(folder, result, load_run(folder, device))
