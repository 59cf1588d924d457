"""Hashing: short binary codes under which images of one class lie close. FCAENet against its baselines.

The training part of the official split is the database, the test part asks. A notebook goes through it step by step:

    parameters = hashing.read(globals())
    experiment = hashing.prepare(parameters)
    history = hashing.train(experiment)
    retrieval = hashing.evaluate(experiment)

and `python -m fieldmarks.experiments.hashing name=value ...` (also under torchrun, for several GPUs) goes through it in one go.
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
from fieldmarks.data.augment import TestViews, TrainingViews
from fieldmarks.data.batches import SampledStream, TrainingStream
from fieldmarks.data.imageset import ImageSet
from fieldmarks.data.pixels import PixelCache
from fieldmarks.evaluation.code_usage import distinct_class_codes
from fieldmarks.evaluation.hamming import average_precision, lookup
from fieldmarks.evaluation.statistics import bootstrap_interval
from fieldmarks.experiments import parameters as reading
from fieldmarks.experiments.command_line import run_experiment
from fieldmarks.experiments.common import BIRDS, RunParameters, load_images, named_run, siblings
from fieldmarks.experiments.result import write_result
from fieldmarks.files import atomic, lock
from fieldmarks.methods.fcaenet import FCAENet
from fieldmarks.methods.hash_baselines import create_hash_baseline
from fieldmarks.methods.hash_functions import create_hash_function
from fieldmarks.methods.hashing import to_codes
from fieldmarks.methods.method import Method
from fieldmarks.processes import main_first
from fieldmarks.progress import counter
from fieldmarks.random import seeded
from fieldmarks.search.codes import CodeIndex
from fieldmarks.training import History, choose_device, choose_precision, embed_all, fit

ASYMMETRIC = ("fcaenet", "adsh")  # database codes are optimised, not computed by the network
PAIRWISE = ("dpsh", "dsh", "hashnet")
SHALLOW = ("lsh", "itq", "sh", "sdh")  # on the frozen network's features
NEGATIVE = {"balanced": "balanced", "literal": -1.0}


@dataclass(frozen=True)
class Parameters(RunParameters):
    """Everything that a run of this experiment depends on. Plain values, as a notebook's parameters cell holds them.

    The defaults suit a laptop and the generated birds; the settings of the paper stand in the cards under labs/fcaenet.
    """

    kind = "hashing"
    monitor = "map"

    # Data
    dataset: str = "fieldguide"  # a name of the catalog
    root: str = ""  # its folder; empty: the generated birds, made once and kept in the cache
    fieldguide: str = BIRDS  # which birds to make when root is empty
    max_classes: int = 0  # keep this many classes; 0: all
    validation: float = 0.0  # share of each class's training images that ask in place of the test images: for choosing settings
    resize: int = 128  # shorter side of the decoded images
    size: int = 112  # pixels a side of what the network sees
    crop_scale: tuple[float, float] = (0.3, 1.0)  # share of the image's area in a training crop
    jitter: float = 0.2
    # Network
    backbone: str = "tf_efficientnet_lite0"
    weights: str = "bundled"  # "imagenet" (downloaded), "bundled", "none", or a checkpoint
    freeze_norm: bool = True  # batch normalisation keeps its statistics
    # Method
    method: str = "fcaenet"  # or adsh; dpsh, dsh, hashnet; lsh, itq, sh, sdh
    bits: int = 24  # k, length of a code
    erase: bool = True  # SREM
    regions: int = 50  # n, erased regions
    region_size: int = 16  # l, pixels a side of each (the paper, at 224 px: 32)
    relate: bool = True  # ESRL
    alpha: float = 1.0  # weight of L_self
    beta: float = 1.0  # weight of L_others
    quantisation: float = (
        0.0  # gamma, weight of ADSH's quantisation term in the code update (ADSH: 200)
    )
    negative: str = "balanced"  # similarity of images of different classes; "literal": -1, as printed, which collapses the codes
    # Training
    sample: int = 0  # r, images in an iteration of fcaenet and adsh; 0: all
    passes: int = 3  # times that an iteration goes through them
    batch_size: int = 16
    per_class: int = 0  # dpsh, dsh, hashnet: images of each class in a batch; 0: shuffled
    epochs: int = 4  # of fcaenet and adsh: iterations
    lr: float = 0.004
    hash_lr: float = 0.015  # learning rate of the hash layer as a multiple of the backbone's
    optimizer: str = "sgd"
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 5e-4
    schedule: str = "cosine"  # or "constant", "step", "milestones"
    step_epochs: int = 5
    gamma: float = 0.1  # "step" and "milestones" multiply the learning rate by it
    milestones: tuple[int, ...] = ()  # epochs after which they do
    warmup_steps: int = 20
    clip_norm: float = 0.0
    precision: str = "auto"
    evaluate_every: int = 1
    # Evaluation
    top: int = 0  # mAP over the first so many of the ranking; 0: all of it
    # The run
    seed: int = 0
    device: str = "auto"
    progress: str = "auto"
    out: str = ""  # output folder; empty: runs/hashing-<hash of the parameters>
    card: str = ""  # the lab card that this run belongs to
    baseline: str = (
        ""  # a finished run to compare with; empty: adsh of as many bits beside this one, else none
    )

    def __post_init__(self):
        _check(self)


read = partial(
    reading.from_notebook, Parameters
)  # the parameters of a notebook, from its globals()


@dataclass
class Experiment:
    """What `prepare` puts together. `database` and `queries` are image sets, `*_pixels` their decoded images, in the same order."""

    parameters: Parameters
    database: ImageSet
    queries: ImageSet
    database_pixels: PixelCache
    query_pixels: PixelCache
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
            "data": f"{self.database.fingerprint} {self.queries.fingerprint}",
        }

    def query_images(self, index) -> Tensor:
        """Normalised test views of query images, (B, 3, size, size), on the device."""
        canvas, sizes = self.query_pixels.batch(torch.as_tensor(index))
        return self.test_views(canvas.to(self.device), sizes)


@dataclass
class Retrieval:
    """Codes of queries and database, and how well the ones find the others.

    Attributes:
        query_codes: (Q, k), database_codes: (G, k), of -1/+1.  query_labels: (Q,), database_labels: (G,).
        metrics: {"map": fraction, ...}, see `measure`.  intervals: 95 % bootstrap intervals over queries.
        average_precision: (Q,) of each query, for paired comparisons; NaN where the database holds nothing of its class.
    """

    query_codes: Tensor
    query_labels: Tensor
    database_codes: Tensor
    database_labels: Tensor
    metrics: dict[str, float]
    intervals: dict[str, list[float]]
    average_precision: Tensor

    def distances(self, rows: Tensor) -> Tensor:
        """Hamming distances of query rows (n,) to the whole database: (n, G) long."""
        codes = self.query_codes[rows]
        return ((codes.shape[1] - codes @ self.database_codes.T) / 2).round().long()

    def neighbours(self, rows: Tensor, k: int = 10, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
        """For query rows (n,): database positions (n, k) of the nearest, their Hamming distances, and whether the class is right.

        Equal distances stand in random order, drawn by the seed: lists are sorted by class, and their order would show whole classes
        in a row.
        """
        distances = self.distances(rows)
        order = torch.randperm(distances.shape[1], generator=seeded(seed, 9))
        nearest = order[distances[:, order].argsort(dim=1, stable=True)[:, :k]]
        return (
            nearest,
            distances.gather(1, nearest),
            self.database_labels[nearest] == self.query_labels[rows][:, None],
        )


def prepare(parameters: Parameters, rank: int = 0, world: int = 1) -> Experiment:
    """Load, split and decode the data, build the network and the method. Everything that can be wrong is found here.

    The output folder is this process's from here on.

    Raises:
        ValueError, OSError, RuntimeError (another run has the folder): one line that says what is wrong and what would be right.
    """
    p = parameters
    device = choose_device(p.device)
    with main_first():
        database, queries = load_split(p)
        pixels = [
            PixelCache.open(part.paths, p.resize, progress=counter("images decoded", p.progress))
            for part in (database, queries)
        ]
    torch.manual_seed(p.seed)
    backbone = create_backbone(p.backbone, p.weights, p.size)
    method = build_method(p, backbone, database.labels)
    training_views = TrainingViews(
        p.size, backbone.mean, backbone.std, scale=p.crop_scale, jitter=p.jitter
    )
    shared = {"seed": p.seed, "device": device, "rank": rank, "world": world}
    if p.method in ASYMMETRIC:
        stream = SampledStream(
            pixels[0],
            database.labels,
            training_views,
            p.batch_size,
            sample=p.sample or len(database),
            passes=p.passes,
            positives=method.relate,
            **shared,
        )
    elif p.method in PAIRWISE:
        stream = TrainingStream(
            pixels[0],
            database.labels,
            training_views,
            p.batch_size,
            per_class=p.per_class,
            **shared,
        )
    else:
        stream = None
    method.to(device, memory_format=torch.channels_last)
    if rank == 0:
        lock(p.folder())  # last, so that whatever else is wrong leaves no folder behind
    return Experiment(
        p,
        database,
        queries,
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
    """The database and the queries: the two sides of the official split, or of a split of its training side for validation.

    Labels are numbered anew over the classes that are there.
    """
    database, queries = load_images(p).closed_split()
    if p.validation:
        database, queries = hold_out(database, p.validation, p.seed)
    classes = database.labels.unique()
    if p.max_classes:
        classes = classes[: p.max_classes]
        database, queries = (
            part.subset(torch.isin(part.labels, classes)) for part in (database, queries)
        )
    if strangers := sorted(set(queries.labels.unique().tolist()) - set(classes.tolist())):
        raise ValueError(
            f"{len(strangers)} classes of the queries have nothing in the database (first: "
            f"{queries.class_names[strangers[0]]}): leave them out"
        )
    names = [database.class_names[label] for label in classes.tolist()]
    return tuple(
        dataclasses.replace(
            part, labels=torch.searchsorted(classes, part.labels), class_names=names
        )
        for part in (database, queries)
    )


def hold_out(images: ImageSet, share: float, seed: int) -> tuple[ImageSet, ImageSet]:
    """(rest, held out): a share of each class, rounded, at least one image where two or more stay."""
    held = torch.zeros(len(images), dtype=torch.bool)
    generator = seeded(seed, 10)
    for label in images.labels.unique():
        members = (images.labels == label).nonzero().squeeze(1)
        count = min(max(1, round(share * len(members))), max(0, len(members) - 2))
        held[members[torch.randperm(len(members), generator=generator)[:count]]] = True
    if not held.any():
        raise ValueError(
            f"validation needs classes of at least 3 images, and {images.name} has none"
        )
    return images.subset(~held), images.subset(held)


def build_method(p: Parameters, backbone: Backbone, labels: Tensor) -> Method:
    if p.method in SHALLOW:
        return Method(backbone)
    if p.method in PAIRWISE:
        method = create_hash_baseline(p.method, backbone, p.bits, labels, freeze_norm=p.freeze_norm)
        method.hash_lr = p.hash_lr
        return method
    whole = p.method == "fcaenet"
    if whole and p.erase and p.region_size > p.size:
        raise ValueError(
            f"region_size is {p.region_size}, but images are {p.size} px a side: use a region_size of at most {p.size}"
        )
    return FCAENet(
        backbone,
        p.bits,
        labels,
        erase=whole and p.erase,
        regions=p.regions,
        region_size=p.region_size,
        relate=whole and p.relate,
        alpha=p.alpha,
        beta=p.beta,
        gamma=p.quantisation,
        negative=NEGATIVE[p.negative],
        seed=p.seed,
        freeze_norm=p.freeze_norm,
        hash_lr=p.hash_lr,
    )


def train(experiment: Experiment) -> History:
    """Train, or take up again what is in the output folder; the method then holds the weights and codes of the last epoch.

    NOTE the evaluations on the way are on the queries, to draw curves with. Nothing is chosen by them: the last epoch is the
    result, and the best one, which papers report, is named beside it. To choose settings, set `validation`.
    """
    if experiment.stream is None:
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
    """Code both sides and score the retrieval; `resamples` of the bootstrap, 0 leaves the intervals out."""
    query_codes, database_codes = encode(experiment)
    return measure(
        query_codes,
        experiment.queries.labels,
        database_codes,
        experiment.database.labels,
        top=experiment.parameters.top,
        resamples=resamples,
    )


def encode(experiment: Experiment) -> tuple[Tensor, Tensor]:
    """Codes (Q, k) and (G, k) of queries and database, of -1/+1.

    Of fcaenet and adsh the database codes are those that were optimised, as in the papers; other methods compute both alike.
    """
    e, p = experiment, experiment.parameters

    def outputs(pixels: PixelCache) -> Tensor:
        return embed_all(
            e.method,
            pixels,
            e.test_views,
            device=e.device,
            precision=e.precision,
            batch_size=4 * p.batch_size,
        )

    if p.method in ASYMMETRIC:
        return to_codes(outputs(e.query_pixels)), e.method.codes.cpu()
    queries, database = outputs(e.query_pixels), outputs(e.database_pixels)
    if p.method in PAIRWISE:
        return to_codes(queries), to_codes(database)
    coder = create_hash_function(p.method, p.bits, p.seed).fit(database, e.database.labels)
    return coder(queries), coder(database)


def measure(
    query_codes: Tensor,
    query_labels: Tensor,
    database_codes: Tensor,
    database_labels: Tensor,
    top: int = 0,
    resamples: int = 0,
) -> Retrieval:
    """Score codes against codes.

    Metrics: "map", ties at their expectation; "map_stable", ties in the order of the lists, which are sorted by class: for comparison
    with published numbers, which are made so; "precision@r2", "recall@r2" and "found@r2": lookup within Hamming radius 2, and the
    share of queries that found anything there; "class_codes": how many different codes the majorities of the classes' database codes
    make, as a share of the classes: 1 where each class has its own, near 0 where the codes have collapsed.
    """
    sides = query_codes, query_labels, database_codes, database_labels
    values = average_precision(*sides, top=top or None)
    known = values[~values.isnan()]
    if not len(known):
        raise ValueError(
            "no query has anything of its class in the database: there is nothing to measure"
        )
    stable = average_precision(*sides, ties="stable", top=top or None)
    near = lookup(*sides, radius=2)
    metrics = {
        "map": known.mean().item(),
        "map_stable": stable[~stable.isnan()].mean().item(),
        "precision@r2": near.precision,
        "recall@r2": near.recall,
        "found@r2": 1 - near.empty,
        "class_codes": distinct_class_codes(database_codes, database_labels),
    }
    intervals = (
        {"map": list(bootstrap_interval(known, resamples=resamples)[1:])} if resamples else {}
    )
    return Retrieval(*sides, metrics, intervals, values)


def compare_with(experiment: Experiment) -> tuple[str, Retrieval] | None:
    """The finished run that this one is held against (see `Parameters.baseline`) by name, with its codes; None where there is none.

    Raises:
        ValueError: the run named there is not finished, or was made on other data.
    """
    p, data = experiment.parameters, experiment.identity()["data"]
    if p.baseline:
        result = named_run(p.baseline, data)
        return result["method"], load_codes(experiment, Path(p.baseline))
    for folder, result in sibling_runs(experiment):
        same = ("bits", "backbone", "weights", "size", "resize", "seed")
        if result["method"] == "adsh" and all(
            result["parameters"][name] == getattr(p, name) for name in same
        ):
            return "adsh", load_codes(experiment, folder)
    return None


def sibling_runs(experiment: Experiment) -> list[tuple[Path, dict]]:
    """Finished hashing runs on the same data beside this one: (folder, result)."""
    return siblings(experiment.folder, experiment.parameters.kind, experiment.identity()["data"])


def load_codes(experiment: Experiment, folder: Path) -> Retrieval:
    """The codes that a finished run on the same data saved, measured."""
    from safetensors.torch import load_file

    saved = {
        name: value.float() for name, value in load_file(Path(folder) / "codes.safetensors").items()
    }
    return measure(
        saved["query_codes"],
        experiment.queries.labels,
        saved["database_codes"],
        experiment.database.labels,
    )


def finish(
    experiment: Experiment,
    history: History,
    retrieval: Retrieval,
    figures: list[str],
    notebook: str,
) -> Path:
    """Save the codes and a searchable index of the database, and write result.json; returns its path."""
    from safetensors.torch import save_file

    e, p = experiment, experiment.parameters
    with atomic(e.folder / "codes.safetensors") as temporary:
        save_file(
            {
                "query_codes": retrieval.query_codes.to(torch.int8),
                "query_labels": retrieval.query_labels,
                "database_codes": retrieval.database_codes.to(torch.int8),
                "database_labels": retrieval.database_labels,
            },
            temporary,
        )
    CodeIndex.build(retrieval.database_codes).save(e.folder / "database.index")
    return write_result(
        e.folder,
        experiment=p.kind,
        notebook=notebook,
        card=p.card,
        method=describe(p),
        dataset=e.queries.name,
        parameters=dataclasses.asdict(p),
        metrics=retrieval.metrics,
        intervals=retrieval.intervals,
        counts={
            "train": len(e.database),
            "query": len(e.queries),
            "gallery": len(e.database),
            "classes": len(e.database.class_names),
            "train_classes": len(e.database.class_names),
        },
        curves={"epochs": history.epochs, "evaluations": history.evaluations},
        figures=figures,
        timing={"train_seconds": history.seconds, "images_per_second": history.images_per_second},
        device=str(e.device),
        best_on_test=history.best(p.monitor),
        data_fingerprint=e.identity()["data"],
        precision=e.precision,
    )


def describe(p: Parameters) -> str:
    """The method's name; fcaenet with the parts that it uses. Without any it is adsh."""
    if p.method != "fcaenet":
        return p.method
    parts = ["SREM"] * p.erase + ["ESRL"] * p.relate
    return "fcaenet" if len(parts) == 2 else " + ".join(["adsh", *parts])


def main(arguments: list[str]) -> int:
    """Run all of it from name=value arguments; under torchrun each process takes its share of every batch."""

    def whole(p: Parameters, rank: int, world: int):
        experiment = prepare(p, rank, world)
        history, retrieval = train(experiment), evaluate(experiment)
        return retrieval.metrics, partial(finish, experiment, history, retrieval, [], notebook="")

    return run_experiment(Parameters, arguments, whole)


def _check(p: Parameters) -> None:
    methods = ("fcaenet", *ASYMMETRIC[1:], *PAIRWISE, *SHALLOW)
    if p.method not in methods:
        raise ValueError(f"method is '{p.method}': it must be one of {', '.join(methods)}")
    if p.bits < 1:
        raise ValueError(f"bits is {p.bits}: a code has at least 1 bit")
    if p.negative not in NEGATIVE:
        raise ValueError(f"negative is '{p.negative}': it must be 'balanced' or 'literal'")
    if not 0 <= p.validation < 1:
        raise ValueError(f"validation is {p.validation}: it is a share, at least 0 and below 1")
    if p.top < 0 or p.sample < 0:
        raise ValueError(
            f"top ({p.top}) and sample ({p.sample}) must not be negative; 0 stands for all"
        )
    p.check_pictures()
    p.settings()


if __name__ == "__main__":
    warnings.simplefilter("default")
    sys.exit(main(sys.argv[1:]))
