"""What a finished run has learnt, to be used on other pictures: its network, its views, and what it makes of an image or of two.

`load_model` gives what looks at one picture (VAPNet, FCAENet, baselines): an embedding or a code. `load_pair_model` gives what
compares two (PAN): their similarity, and the concepts that it consists of.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from fieldmarks.backbones import Backbone, create_backbone
from fieldmarks.checkpoints import load_checkpoint
from fieldmarks.data.augment import TestViews
from fieldmarks.experiments import fewshot, hashing, inshop, open_set
from fieldmarks.experiments import parameters as reading
from fieldmarks.experiments.features import _Pooled
from fieldmarks.experiments.outfit_network import OutfitNetwork
from fieldmarks.experiments.pair_heads import create_network, score_pairs
from fieldmarks.experiments.result import read_result
from fieldmarks.methods.hashing import to_codes
from fieldmarks.methods.method import Method
from fieldmarks.training import choose_device, choose_precision, embed_all

SINGLE, PAIRS = {"open_set": open_set, "hashing": hashing}, {"fewshot": fewshot, "inshop": inshop}


@dataclass
class Model:
    """A run's method on a device, in evaluation mode.

    Attributes:
        run: the run's folder.  result: its result.json.
        bits: length of its codes; 0 for a method that gives embeddings.
        resize: shorter side of the pictures that it reads.
    """

    run: Path
    result: dict
    method: Method
    views: TestViews
    device: torch.device
    precision: str
    bits: int
    resize: int

    @property
    def identity(self) -> str:
        """What tells this model from another: what was run, on which data, and when it ended."""
        return _identity(self.result)

    def describe(self, pixels, batch_size: int = 64) -> Tensor:
        """Embeddings (N, D) of unit length, or codes (N, k) of -1/+1, of pictures with `batch(index)` and a length."""
        outputs = embed_all(
            self.method,
            pixels,
            self.views,
            batch_size=batch_size,
            device=self.device,
            precision=self.precision,
        )
        return to_codes(outputs) if self.bits else outputs


@dataclass
class PairModel:
    """PAN of a few-shot or an in-shop run on a device, in evaluation mode.

    Attributes:
        run: the run's folder.  result: its result.json.
        network: encoder and head; what it takes is what `describe` gives.
        names: of its M concepts: the attributes' names for supervised ones, "concept 1" and so on for free ones.
        embedder: the frozen method below it.  prepare: its output (..., C) -> what the network was trained on (..., C).
        resize: shorter side of the pictures that it reads.
    """

    run: Path
    result: dict
    network: OutfitNetwork
    names: list[str]
    embedder: Method
    prepare: Callable[[Tensor], Tensor]
    views: TestViews
    device: torch.device
    precision: str
    resize: int

    @property
    def identity(self) -> str:
        """What tells this model from another: what was run, on which data, and when it ended."""
        return _identity(self.result)

    @property
    def backbone(self) -> Backbone:
        """The frozen network whose feature map Grad-CAM explains."""
        return self.embedder.backbone

    def describe(self, images: Tensor) -> Tensor:
        """Normalised images (B, 3, size, size) -> what the network encodes (B, C), with gradients."""
        return self.prepare(self.embedder.embed(images).float())

    @torch.no_grad()
    def encode(self, pixels, batch_size: int = 64) -> Tensor:
        """Pictures with `batch(index)` and a length, as they are compared: (N, h), on the device."""
        rows = embed_all(
            self.embedder,
            pixels,
            self.views,
            batch_size=batch_size,
            device=self.device,
            precision=self.precision,
        )
        return self.network.encode(self.prepare(rows.to(self.device)))

    def scores(self, query: Tensor, gallery: Tensor) -> Tensor:
        """Similarity, 0 .. 1, of one encoded picture (h,) with each of others (N, h): (N,), on the device."""
        both = torch.cat([query[None], gallery])
        others = torch.arange(1, len(both))
        return score_pairs(
            self.network.score, both, torch.stack([torch.zeros_like(others), others], dim=1)
        )

    @torch.no_grad()
    def concepts(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """Concept scores (..., M) and their relevance (..., M), which adds up to 1, of pairs of encoded pictures (..., h).

        The similarity is the sum of relevance times concept score (Mishra et al. 2021, eq. 3).
        """
        _, concepts, relevance = self.network.head(a, b)
        return concepts, relevance


def load_model(run: Path, device: str = "auto") -> Model:
    """The model of a finished run of the open-set or the hashing experiment.

    Raises:
        ValueError: the folder holds no finished run, one of another experiment, or one whose method is no network (ITQ and the like).
    """
    run, result, kind = _finished(
        run,
        SINGLE,
        "which gives a picture no embedding of its own: give one of an open-set or a hashing method",
    )
    p = reading.parse(kind.Parameters, result["parameters"])
    if kind is hashing and p.method in hashing.SHALLOW:
        raise ValueError(
            f"'{run}' is a run of {p.method}, which learnt no network: give one of fcaenet, adsh or an open-set method"
        )
    trained = (run / "last.pt").is_file()
    backbone = create_backbone(p.backbone, "none" if trained else p.weights, p.size)
    if kind is hashing:
        from safetensors.torch import load_file

        method = hashing.build_method(
            p, backbone, load_file(run / "codes.safetensors")["database_labels"]
        )
    else:
        method = open_set.build_method(p, backbone, result["counts"]["train_classes"])
    if trained:
        state = load_checkpoint(run / "last.pt")
        method.load_state_dict(state["method"])
        # Normalisation belongs to the weights, which the checkpoint replaces.
        backbone.mean, backbone.std = tuple(state["mean"]), tuple(state["std"])
    chosen = choose_device(device)
    method.to(chosen, memory_format=torch.channels_last).eval()
    return Model(
        run,
        result,
        method,
        TestViews(p.size, backbone.mean, backbone.std, p.resize),
        chosen,
        choose_precision(p.precision, chosen, method),
        p.bits if kind is hashing else 0,
        p.resize,
    )


def load_pair_model(run: Path, device: str = "auto") -> PairModel:
    """The model of a finished PAN run of the few-shot or the in-shop experiment.

    Raises:
        ValueError: the folder holds no finished run, one of another experiment, of a method without concepts, or on the statistics
            of class-sorted batches, which other pictures do not have.
    """
    from safetensors.torch import load_file

    from fieldmarks.experiments.pair_figures import concept_names

    run, result, kind = _finished(
        run,
        PAIRS,
        "which does not compare pictures in pairs: give a few-shot or an in-shop run of pan_supervised",
    )
    p = reading.parse(kind.Parameters, result["parameters"])
    if not p.method.startswith("pan_"):
        raise ValueError(
            f"'{run}' is a run of {p.method}, which has no concepts: give one of pan_supervised, pan_hybrid or pan_unsupervised"
        )
    if getattr(p, "batch_statistics", False):
        raise ValueError(
            f"'{run}' normalises by the statistics of batches sorted by class, which other pictures do not have: "
            "give a run with batch_statistics false"
        )
    if "attribute_names" not in result:
        raise ValueError(
            f"'{run}' was made by an earlier version, which did not keep the names of attributes: make it anew"
        )
    chosen = choose_device(device)
    saved = {
        name: value.to(chosen) for name, value in load_file(run / "network.safetensors").items()
    }
    if kind is inshop:
        embedder, views, resize = inshop.create_embedder(p, chosen)
        prepare = inshop.scaled
    else:
        torch.manual_seed(p.seed)
        backbone = create_backbone(p.backbone, p.weights, p.size)
        embedder, views, resize = (
            _Pooled(backbone),
            TestViews(p.size, backbone.mean, backbone.std, p.resize),
            p.resize,
        )
        prepare = _Standardised(saved.pop("feature_mean"), saved.pop("feature_deviation"))
    dim = saved["head.similarity.concept.weight"].shape[1]
    attributes = result["attribute_names"] if p.method != "pan_unsupervised" else []
    network = create_network(
        p, saved["encoder.weight"].shape[1] if p.encoder == "linear" else dim, len(attributes)
    )
    network.load_state_dict(saved)
    embedder.to(chosen, memory_format=torch.channels_last).eval()
    return PairModel(
        run,
        result,
        network.to(chosen).eval(),
        concept_names(network.head, attributes),
        embedder,
        prepare,
        views,
        chosen,
        choose_precision(p.precision, chosen, embedder),
        resize,
    )


@dataclass(frozen=True)
class _Standardised:
    mean: Tensor
    deviation: Tensor

    def __call__(self, features: Tensor) -> Tensor:
        return (features - self.mean) / self.deviation


def _finished(run: Path, kinds: dict, otherwise: str):
    """The run's folder, its result, and the module of its experiment, which must be one of these kinds."""
    run = Path(run).expanduser().absolute()
    result = read_result(run)
    if result is None:
        raise ValueError(
            f"'{run}' is not a finished run: give the folder of a complete result.json (make one with fieldmarks run)"
        )
    kind = result.get("experiment")
    if kind not in kinds:
        raise ValueError(f"'{run}' is a run of the experiment {kind}, {otherwise}")
    return run, result, kinds[kind]


def _identity(result: dict) -> str:
    return f"{result['method']} {result['data_fingerprint']} {result['finished']}"
