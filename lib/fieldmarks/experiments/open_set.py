"""Open-set retrieval: train on some classes, find again images of classes never seen. VAPNet against its baselines.

A notebook goes through it step by step:

    parameters = open_set.read(globals())
    experiment = open_set.prepare(parameters)
    before = open_set.evaluate(experiment)
    history = open_set.train(experiment)
    after = open_set.evaluate(experiment)

and `python -m fieldmarks.experiments.open_set name=value ...` (also under torchrun, for several GPUs) goes through it in one go.
"""

import dataclasses
import sys
import warnings
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from fieldmarks.backbones import Backbone, create_backbone
from fieldmarks.checkpoints import load_checkpoint, plain
from fieldmarks.data.augment import TestViews, TrainingViews
from fieldmarks.data.batches import TrainingStream
from fieldmarks.data.imageset import ImageSet
from fieldmarks.data.pixels import PixelCache
from fieldmarks.evaluation.recall import average_precision_at_r, hits_at_k, nearest
from fieldmarks.evaluation.statistics import bootstrap_interval
from fieldmarks.experiments import parameters as reading
from fieldmarks.experiments.command_line import run_experiment
from fieldmarks.experiments.common import BIRDS, RunParameters, load_images, named_run, siblings
from fieldmarks.experiments.result import write_result
from fieldmarks.files import atomic, lock
from fieldmarks.methods.method import Method
from fieldmarks.methods.vapnet import VAPNet, patch_boxes
from fieldmarks.processes import main_first
from fieldmarks.progress import counter
from fieldmarks.training import History, choose_device, choose_precision, embed_all, fit

BASELINES = ("normsoftmax", "proxynca++", "proxyanchor", "multisimilarity", "scda")


@dataclass(frozen=True)
class Parameters(RunParameters):
    """Everything that a run of this experiment depends on. Plain values, as a notebook's parameters cell holds them.

    The defaults suit a laptop and the generated birds; the settings of the paper stand in the cards under labs/vapnet.
    """

    kind = "open_set"

    # Data
    dataset: str = "fieldguide"  # a name of the catalog
    root: str = ""  # its folder; empty: the generated birds, made once and kept in the cache
    fieldguide: str = BIRDS  # which birds to make when root is empty
    split: str = "open"  # "open": by classes; "closed": the official one
    max_classes: int = 0  # keep this many classes on each side; 0: all
    resize: int = 128  # shorter side of the decoded images
    size: int = 112  # pixels a side of what the network sees
    crop_scale: tuple[float, float] = (0.3, 1.0)  # share of the image's area in a training crop
    jitter: float = 0.2
    # Network
    backbone: str = "tf_efficientnet_lite0"
    weights: str = "bundled"  # "imagenet" (downloaded), "bundled", "none", or a checkpoint
    freeze_norm: bool = True  # batch normalisation keeps its statistics
    # Method
    method: str = "vapnet"  # or normsoftmax, proxynca++, proxyanchor, multisimilarity, scda
    classification: bool = True  # L_a
    constraint: str = "mean"  # "mean": eq. 6, "direct": eq. 5, "none": L_a alone
    views: int = 2  # M (the paper: 4)
    attributes: int = 256  # k
    update_ratio: float = 0.2  # alpha
    weight: float = 0.1  # lambda (the paper: 10; with freeze_norm, features vanish from about 1 on)
    grids: tuple[int, ...] = (2, 4)  # the paper, at 224 px: 2, 4, 8, 16
    uniform_over: str = "grids"  # or "patches"
    temperature: float = 1.0
    grad_through_teacher: bool = False
    joint_batch: bool = True
    cosine_head: bool = False
    label_smoothing: float = 0.0
    proxy_lr: float = 100.0  # learning rate of the baselines' proxies, as a multiple
    # Training
    batch_size: int = 32
    per_class: int = 0  # images of each class in a batch; 0: shuffled
    epochs: int = 3
    lr: float = 0.005
    optimizer: str = "sgd"
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 5e-4
    schedule: str = "cosine"  # or "constant", "step"
    step_epochs: int = 5
    gamma: float = 0.9
    warmup_steps: int = 20
    clip_norm: float = 0.0
    precision: str = "auto"
    evaluate_every: int = 1
    # Evaluation
    ks: tuple[int, ...] = (1, 2, 4, 8)
    # The run
    seed: int = 0
    device: str = "auto"
    progress: str = "auto"
    out: str = ""  # output folder; empty: runs/open_set-<hash of the parameters>
    card: str = ""  # the lab card that this run belongs to
    baseline: str = ""  # a finished run to compare with; empty: a run with L_a alone beside this one, else the untrained network

    def __post_init__(self):
        _check(self)

    @property
    def monitor(self) -> str:
        return f"recall@{self.ks[0]}"


read = partial(
    reading.from_notebook, Parameters
)  # the parameters of a notebook, from its globals()


@dataclass
class Experiment:
    """What `prepare` puts together. `train` and `test` are image sets, `*_pixels` their decoded images, in the same order."""

    parameters: Parameters
    train: ImageSet
    test: ImageSet
    train_pixels: PixelCache
    test_pixels: PixelCache
    method: Method
    stream: TrainingStream | None
    training_views: TrainingViews
    test_views: TestViews
    device: torch.device
    precision: str
    folder: Path

    @property
    def backbone(self) -> Backbone:
        return self.method.backbone

    def identity(self) -> dict:
        return {
            **self.parameters.identity(),
            "data": f"{self.train.fingerprint} {self.test.fingerprint}",
        }

    def test_images(self, index) -> Tensor:
        """Normalised test views of images of the test set, (B, 3, size, size), on the device."""
        canvas, sizes = self.test_pixels.batch(torch.as_tensor(index))
        return self.test_views(canvas.to(self.device), sizes)


@dataclass
class Retrieval:
    """The test set embedded, and how well its queries find their class.

    Attributes:
        embeddings: (N, D) of unit length, in the test set's order.  labels: (N,).
        query, gallery: positions in the test set (In-Shop), or None twice: every image queries all others.
        metrics: {"recall@1": fraction, ..., "map@r": fraction}.  intervals: 95 % bootstrap intervals over queries.
        hits: (Q, len(ks)) bool, for paired comparisons.
    """

    embeddings: Tensor
    labels: Tensor
    query: Tensor | None
    gallery: Tensor | None
    metrics: dict[str, float]
    intervals: dict[str, list[float]]
    hits: Tensor

    def queries(self) -> Tensor:
        """(Q,) positions in the test set."""
        return torch.arange(len(self.labels)) if self.query is None else self.query

    def neighbours(self, rows: Tensor, k: int = 10) -> tuple[Tensor, Tensor, Tensor]:
        """For query rows (n,): test set positions (n, k) of the nearest, their cosines (n, k), and whether the class is right."""
        if self.query is None:
            scores, found = nearest(self.embeddings[rows], self.embeddings, k + 1)
            keep = found != rows[:, None]
            keep[keep.all(1), -1] = (
                False  # the query itself was not among the first k + 1, which copies of it can bring about
            )
            scores, found = scores[keep].view(-1, k), found[keep].view(-1, k)
        else:
            scores, found = nearest(
                self.embeddings[self.query[rows]], self.embeddings[self.gallery], k
            )
            found = self.gallery[found]
        return found, scores, self.labels[found] == self.labels[self.queries()[rows]][:, None]


def prepare(parameters: Parameters, rank: int = 0, world: int = 1) -> Experiment:
    """Load, split and decode the data, build the network and the method. Everything that can be wrong is found here.

    The output folder is this process's from here on.

    Raises:
        ValueError, OSError, RuntimeError (another run has the folder): one line that says what is wrong and what would be right.
    """
    p = parameters
    device = choose_device(p.device)
    if p.method == "vapnet" and p.constraint != "none":
        patch_boxes(p.size, p.size, p.grids)
    with main_first():
        train, test = load_split(p)
        pixels = [
            PixelCache.open(part.paths, p.resize, progress=counter("images decoded", p.progress))
            for part in (train, test)
        ]
    class_numbers = train.labels.unique()
    torch.manual_seed(p.seed)
    backbone = create_backbone(p.backbone, p.weights, p.size)
    method = build_method(p, backbone, len(class_numbers))
    training_views = TrainingViews(
        p.size, backbone.mean, backbone.std, scale=p.crop_scale, jitter=p.jitter
    )
    stream = None
    if method.trains:
        stream = TrainingStream(
            pixels[0],
            torch.searchsorted(class_numbers, train.labels),
            training_views,
            p.batch_size,
            per_class=p.per_class,
            seed=p.seed,
            device=device,
            rank=rank,
            world=world,
        )
    method.to(device, memory_format=torch.channels_last)
    if rank == 0:
        lock(p.folder())  # last, so that whatever else is wrong leaves no folder behind
    return Experiment(
        p,
        train,
        test,
        *pixels,
        method,
        stream,
        training_views,
        TestViews(p.size, backbone.mean, backbone.std, p.resize),
        device,
        choose_precision(p.precision, device, method),
        p.folder(),
    )


def load_split(p: Parameters) -> tuple[ImageSet, ImageSet]:
    """The training and test sets that the parameters name."""
    images = load_images(p)
    train, test = images.open_split() if p.split == "open" else images.closed_split()
    if p.max_classes:
        train, test = (
            part.subset(torch.isin(part.labels, part.labels.unique()[: p.max_classes]))
            for part in (train, test)
        )
    check_test_set(test)
    return train, test


def check_test_set(test: ImageSet) -> None:
    """Every query must have something to find.

    Raises:
        ValueError: names the classes with nothing to find.
    """
    parts = test.query_gallery()
    if parts is None:
        lonely = (test.class_counts() == 1).nonzero().squeeze(1)
        cause = "one image only, which has nothing to find"
    else:
        query, gallery = (test.labels[part] for part in parts)
        lonely = query[~torch.isin(query, gallery)].unique()
        cause = "queries but nothing in the gallery"
    if len(lonely):
        names = ", ".join(test.class_names[i] for i in lonely[:5].tolist()) + (
            ", ..." if len(lonely) > 5 else ""
        )
        raise ValueError(
            f"{len(lonely)} test class{'es have' if len(lonely) > 1 else ' has'} {cause} ({names}): "
            "add images to them or leave them out"
        )


def build_method(p: Parameters, backbone: Backbone, classes: int) -> Method:
    if p.method != "vapnet":
        from fieldmarks.methods.metric_baselines import (
            create_baseline,
        )  # its library takes seconds to load

        return create_baseline(
            p.method, backbone, classes, freeze_norm=p.freeze_norm, proxy_lr=p.proxy_lr
        )
    return VAPNet(
        backbone,
        classes,
        classification=p.classification,
        constraint=p.constraint,
        views=p.views,
        attributes=p.attributes,
        update_ratio=p.update_ratio,
        weight=p.weight,
        grids=p.grids,
        uniform_over=p.uniform_over,
        temperature=p.temperature,
        grad_through_teacher=p.grad_through_teacher,
        joint_batch=p.joint_batch,
        cosine_head=p.cosine_head,
        label_smoothing=p.label_smoothing,
        freeze_norm=p.freeze_norm,
    )


def train(experiment: Experiment) -> History:
    """Train, or take up again what is in the output folder; the method then holds the weights of the last epoch.

    NOTE the evaluations on the way are on the test classes, to draw curves with. Nothing is chosen by them: the weights of the
    last epoch are the result, and best.pt is kept for whoever wants the usual, flattering number.
    """
    if not experiment.method.trains:
        return History()
    return fit(
        experiment.method,
        experiment.stream,
        experiment.parameters.settings(),
        folder=experiment.folder,
        evaluate=lambda: evaluate(experiment, resamples=0).metrics,
        identity=experiment.identity(),
        progress=experiment.parameters.progress,
    )


def evaluate(experiment: Experiment, resamples: int = 2000) -> Retrieval:
    """Embed the test set and score its retrieval; `resamples` of the bootstrap, 0 leaves the intervals out."""
    e, ks = experiment, experiment.parameters.ks
    embeddings = embed_all(
        e.method,
        e.test_pixels,
        e.test_views,
        device=e.device,
        precision=e.precision,
        batch_size=4 * e.parameters.batch_size,
    )
    if vanished := int((embeddings.norm(dim=1) == 0).sum()):
        raise RuntimeError(
            f"the network maps {vanished} of {len(embeddings)} images to zero: training has collapsed, for features that vanish "
            "satisfy VAPNet's constraint; use freeze_norm false, or a smaller weight or lr"
        )
    query, gallery = e.test.query_gallery() or (None, None)
    labels = e.test.labels
    sides = (
        (embeddings, labels)
        if query is None
        else (embeddings[query], labels[query], embeddings[gallery], labels[gallery])
    )
    hits = hits_at_k(*sides, ks=ks)
    values = {f"recall@{k}": column.double() for k, column in zip(ks, hits.T)} | {
        "map@r": average_precision_at_r(*sides)
    }
    metrics = {name: value.mean().item() for name, value in values.items()}
    intervals = (
        {
            name: list(bootstrap_interval(value, resamples=resamples)[1:])
            for name, value in values.items()
        }
        if resamples
        else {}
    )
    return Retrieval(embeddings, labels, query, gallery, metrics, intervals, hits)


def compare_with(experiment: Experiment) -> tuple[str, Method]:
    """What the trained method is held against, and its name: see `Parameters.baseline`.

    Raises:
        ValueError: the run named there is not finished, or was made on other data.
    """
    p, data = experiment.parameters, experiment.identity()["data"]
    if p.baseline:
        result = named_run(p.baseline, data)
        return result["method"], load_run(experiment, Path(p.baseline), result)
    wanted = plain(
        dataclasses.asdict(dataclasses.replace(p, constraint="none", classification=True))
    )
    same = (
        "method",
        "constraint",
        "classification",
        "backbone",
        "weights",
        "size",
        "resize",
        "seed",
        "epochs",
    )
    for folder, result in siblings(experiment.folder, p.kind, data):
        if all(result["parameters"].get(name) == wanted[name] for name in same):
            return result["method"], load_run(experiment, folder, result)
    return "untrained", _fresh_method(p, experiment).to(experiment.device)


def load_run(experiment: Experiment, folder: Path, result: dict) -> Method:
    """The trained method of a finished run on the same data, on the experiment's device, in evaluation mode."""
    method = _fresh_method(reading.parse(Parameters, result["parameters"]), experiment)
    method.load_state_dict(load_checkpoint(folder / "last.pt")["method"])
    return method.to(experiment.device, memory_format=torch.channels_last).eval()


def _fresh_method(p: Parameters, experiment: Experiment) -> Method:
    torch.manual_seed(p.seed)
    return build_method(
        p, create_backbone(p.backbone, p.weights, p.size), len(experiment.train.labels.unique())
    ).eval()


def finish(
    experiment: Experiment,
    history: History,
    before: Retrieval | None,
    after: Retrieval,
    figures: list[str],
    notebook: str,
) -> Path:
    """Save the test embeddings and write result.json; returns its path."""
    from safetensors.torch import save_file

    e, p = experiment, experiment.parameters
    with atomic(e.folder / "embeddings.safetensors") as temporary:
        roles = {} if after.query is None else {"query": after.query, "gallery": after.gallery}
        save_file({"embeddings": after.embeddings, "labels": after.labels, **roles}, temporary)
    best = history.best(p.monitor)
    queries = len(after.queries())
    return write_result(
        e.folder,
        experiment=p.kind,
        notebook=notebook,
        card=p.card,
        method=describe(p),
        dataset=e.test.name,
        parameters=dataclasses.asdict(p),
        metrics=after.metrics,
        intervals=after.intervals,
        counts={
            "train": len(e.train),
            "query": queries,
            "gallery": len(after.labels) if after.gallery is None else len(after.gallery),
            "classes": len(e.test.labels.unique()),
            "train_classes": len(e.train.labels.unique()),
        },
        curves={"epochs": history.epochs, "evaluations": history.evaluations},
        figures=figures,
        timing={"train_seconds": history.seconds, "images_per_second": history.images_per_second},
        device=str(e.device),
        start=before.metrics if before else None,
        best_on_test=best,
        data_fingerprint=e.identity()["data"],
        precision=e.precision,
    )


def describe(p: Parameters) -> str:
    """The method's name, with the loss terms that VAPNet uses."""
    if p.method != "vapnet":
        return p.method
    terms = ["L_a"] * p.classification + {"mean": ["mean L_c"], "direct": ["L_c"], "none": []}[
        p.constraint
    ]
    return f"vapnet ({' + '.join(terms)})"


def main(arguments: list[str]) -> int:
    """Run all of it from name=value arguments; under torchrun each process takes its share of every batch."""

    def whole(p: Parameters, rank: int, world: int):
        experiment = prepare(p, rank, world)
        history, after = train(experiment), evaluate(experiment)
        return after.metrics, partial(finish, experiment, history, None, after, [], notebook="")

    return run_experiment(Parameters, arguments, whole)


def _check(p: Parameters) -> None:
    if p.method != "vapnet" and p.method not in BASELINES:
        raise ValueError(
            f"method is '{p.method}': it must be vapnet or a baseline ({', '.join(BASELINES)})"
        )
    if p.split not in ("open", "closed"):
        raise ValueError(
            f"split is '{p.split}': it must be 'open' (by classes) or 'closed' (the official one)"
        )
    if not p.ks or min(p.ks) < 1:
        raise ValueError(f"ks are {list(p.ks)}: give one or more whole numbers of at least 1")
    p.check_pictures()
    p.settings()


if __name__ == "__main__":
    warnings.simplefilter("default")
    sys.exit(main(sys.argv[1:]))
