"""What all experiments share: parameters, preparing, training, comparing, result.json.

An experiment is a class with a `Parameters`, `prepare`, `evaluate`, `measure`, `counts` and
`rebuild`. A notebook goes through it step by step:

    experiment = OpenSet.from_notebook(globals())
    before = experiment.evaluate()
    history = experiment.train()
    after = experiment.evaluate()
    experiment.finish(history, after, start=before)

and `python -m fieldmarks.experiments.open_set name=value ...` (also under torchrun, for several
GPUs) goes through it in one go. CONTRIBUTING.md tells how to add one."""

import dataclasses
import hashlib
import importlib
import json
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor

from fieldmarks.backbones import Backbone, create_backbone
from fieldmarks.busy_kernel import answer_reloaded_pages
from fieldmarks.checkpoints import load_checkpoint, save_tensors
from fieldmarks.checks import at_least, choices
from fieldmarks.data import catalog
from fieldmarks.data.augment import TestViews, TrainingViews, check_views
from fieldmarks.data.imageset import ImageSet
from fieldmarks.data.pixels import PixelCache
from fieldmarks.data.readable import without_unreadable
from fieldmarks.experiments import parameters as reading
from fieldmarks.experiments.parameters import composed_of
from fieldmarks.experiments.result import finished_run, read_result, write_result
from fieldmarks.experiments.scores import Scores
from fieldmarks.explain.gradcam import activation_maps
from fieldmarks.explain.on_object import on_object
from fieldmarks.files import lock
from fieldmarks.methods.method import Method
from fieldmarks.processes import is_main, main_first, processes
from fieldmarks.progress import counter, in_jupyterlab
from fieldmarks.training import History, Settings, choose_device, choose_precision, embed_all, fit

NOT_IDENTITY = (
    "out",
    "card",
    "progress",
    "device",
    "baseline",
    "tuned",
    "same_time_as",
    "tensorboard",
)
ATTENDED = 100  # images whose attention is compared with masks
COUNTS = ("train", "query", "gallery", "classes", "train_classes")  # of result.json


@dataclasses.dataclass(frozen=True)
class DataParameters:
    """What every run depends on: data, network and where its output goes."""

    dataset: str = "fieldguide"  # a name of the catalogue
    root: str = ""  # its folder; empty: generated, kept in the cache
    # Options of the generator: classes, images, size, seed ...; see `fieldguide`.
    generated: dict = dataclasses.field(default_factory=dict)
    # Images that cannot be read: refuse the data, or leave those out and say how many.
    unreadable: Literal["refuse", "leave_out"] = "refuse"
    resize: int = 224  # shorter side of the decoded images
    size: int = 192  # pixels a side of what the network sees; below, attention leaves the object
    backbone: str = "tf_efficientnet_lite0"  # this and weights: as `create_backbone`
    weights: str = "bundled"
    device: str = "auto"  # this and progress: as in `training`
    progress: str = "auto"
    out: str = ""  # output folder; empty: runs/<kind>-<hash of the parameters>
    card: str = ""  # the lab card that the run belongs to
    baseline: str = ""  # a finished run to compare with; empty: a fitting one beside this
    tuned: str = ""  # how values were chosen, as "20 trials ..."; empty: as given
    same_time_as: str = ""  # the row of the card whose training time set the epochs; empty: none
    kind: ClassVar[str]  # the module's name, and what run folders are called

    if TYPE_CHECKING:  # the options that `composed_of` adds

        def __getattr__(self, name: str) -> Any: ...

    def __post_init__(self):
        choices(self)
        if not self.root:  # only generated sets need none
            catalog.generated_parameters(self.dataset, self.generated)
        if not 1 <= self.size <= self.resize:
            problem = f"size is {self.size} and resize is {self.resize}: "
            raise ValueError(problem + "size must be at least 1 and at most resize")

    def options(self, home) -> dict:
        """The values of the parameters that are options of `home`, a constructor or function."""
        return {n: getattr(self, n) for n in reading.options(home) if hasattr(self, n)}

    def plain(self) -> dict:
        """All parameters, with all options of the generator where data are generated."""
        values = dataclasses.asdict(self)
        if not self.root:
            values["generated"] = catalog.generated_parameters(self.dataset, self.generated)
        return values

    def identity(self) -> dict:
        """What the training depends on: all but where its output goes and how it is shown."""
        return {name: value for name, value in self.plain().items() if name not in NOT_IDENTITY}

    def folder(self) -> Path:
        text = json.dumps(self.identity(), sort_keys=True).encode()
        return Path(self.out or f"runs/{self.kind}-{hashlib.sha256(text).hexdigest()[:10]}")


@composed_of(Settings, lr=0.005, weight_decay=5e-4, warmup_steps=20)
class RunParameters(DataParameters):
    """Of runs that train, with the options of the loop, and:"""

    tensorboard: bool = False  # as `fit`: tensorboard --logdir <output folder> shows the curves

    def __post_init__(self):
        super().__post_init__()
        self.settings()

    def settings(self) -> Settings:
        return Settings(**self.options(Settings))


@composed_of(TrainingViews, crop_scale=(0.3, 1.0), jitter=0.2)
class ImageParameters(RunParameters):
    """Of experiments that train a network on images; with the options of `TrainingViews`."""

    freeze_stages: int = 0  # of the network, stem included, that are not trained
    batch_size: int = 32  # of all processes together
    per_class: int = 0  # images of each class in a batch, for methods that take it; 0: shuffled
    max_classes: int = 0  # keep this many classes; 0: all

    def __post_init__(self):
        super().__post_init__()
        at_least(2, batch_size=self.batch_size)
        check_views(**self.options(TrainingViews))
        if self.max_classes < 0 or self.max_classes == 1:
            raise ValueError(f"max_classes is {self.max_classes}: it must be 0 (all) or at least 2")


class Experiment:
    """One run. Making it loads, splits and decodes the data and builds the method: everything that
    can be wrong is found here. The output folder is this process's from then on.

    Attributes:
        parameters, device, precision, folder.
        method: what is trained.  stream: its batches; None where nothing is trained.
        data: the fingerprint of images and split, equal for runs that can be compared.
        left_out: what cannot be read and was left out: {class: images}.
        figures: names of the figures kept so far.
    Raises:
        ValueError, OSError, RuntimeError (another run has the folder): one line that says what is
        wrong and what would be right."""

    Parameters: Any
    monitor: str  # the metric that curves follow and the best epoch is chosen by
    saved_file: str  # holds what `measure` reads
    alike: tuple[str, ...] = ("backbone", "weights", "size", "resize", "seed")  # of runs to compare
    # What values may be chosen by, in words; empty: there is no such data. With the parameters
    # `tuning`, if any, a run's metrics are on these; else what `validate` gives while it trains is.
    validation_data: ClassVar[str] = ""
    tuning: ClassVar[dict] = {}
    rival: ClassVar[dict] = {}  # parameters of the run to compare with, where there is one

    parameters: Any
    method: Any
    stream: Any = None
    test_views: TestViews
    data: str
    embedding_time: dict[str, float]  # of `embed`, for result.json

    def __init__(self, parameters: DataParameters, rank: int = 0, world: int = 1):
        p = self.parameters = parameters
        self.rank, self.world, self.figures, self.left_out = rank, world, [], {}
        self.embedding_time = {}
        self.device = choose_device(p.device)
        self.prepare()
        self.method.to(self.device, memory_format=torch.channels_last)
        self.precision = choose_precision(p.precision, self.device, self.method)
        self.folder = p.folder()
        if p.baseline:
            self.comparison({})  # one that is gone, or of other data, is named before any training
        if rank == 0:
            lock(self.folder)  # last, so that whatever else is wrong leaves no folder behind

    @classmethod
    def from_notebook(cls, namespace: dict) -> "Experiment":
        """The experiment of a notebook's parameters, from its `globals()`. What is wrong with these
        is said in a line, without the frames of the library that found it."""
        if in_jupyterlab():
            answer_reloaded_pages()
        try:
            return cls(reading.from_notebook(cls.Parameters, namespace))
        except (ValueError, OSError) as error:
            *_, (last, _) = traceback.walk_tb(error.__traceback__)
            if last.f_globals["__name__"].startswith(("fieldmarks.", "fieldguide.")):
                line = f"{type(error).__name__}: {error}"
                error._render_traceback_ = lambda: [line]  # JupyterLab asks for it
            raise

    # What an experiment is made of

    @classmethod
    def parts(cls, parameters: DataParameters) -> Sequence[ImageSet]:
        """`split` of these parameters, without decoding an image or making a folder."""
        experiment = cls.__new__(cls)
        experiment.parameters, experiment.left_out = parameters, {}
        return experiment.split()

    def prepare(self) -> None:
        """Set `method`, `stream`, `data` and whatever else the experiment needs."""
        raise NotImplementedError

    def split(self) -> Sequence[ImageSet]:
        """The parts of the data that the parameters name."""
        raise NotImplementedError

    def evaluate(self) -> Scores:
        """Compute what a run saves, and `measure` it."""
        raise NotImplementedError

    @classmethod
    def measure(cls, saved: Mapping[str, Tensor], parameters: Mapping) -> Scores:
        """Score what a run saved; `parameters` are those of its result.json."""
        raise NotImplementedError

    @classmethod
    def rebuild(cls, p: DataParameters, backbone: Backbone, result: dict, folder: Path) -> Method:
        """The method of a finished run, before its weights are loaded."""
        raise NotImplementedError

    def counts(self) -> Sequence[int]:
        """How many there are of each of COUNTS."""
        raise NotImplementedError

    def details(self, scores: Scores, history: History) -> dict:
        """Further entries of result.json."""
        return {}

    @property
    def name(self) -> str:
        """The method's name in tables."""
        return getattr(self.parameters, "method", self.parameters.kind)

    # Pieces to prepare with

    @property
    def leaves_out(self) -> bool:
        """Whether images that cannot be read are left out."""
        return self.parameters.unreadable == "leave_out"

    def use(self, *sets: ImageSet) -> list[PixelCache]:
        """Take these parts for the run's `data`, and decode them for the `test_views`."""
        self.data = " ".join(part.fingerprint for part in sets)
        mode, resize = self.parameters.progress, self.test_views.resize
        with main_first():
            return [
                PixelCache.open(s.paths, resize, progress=counter("images decoded", mode))
                for s in sets
            ]

    def load_images(self) -> ImageSet:
        """The data set that the parameters name."""
        p = self.parameters
        with main_first():
            progress = counter("images drawn", p.progress)
            root = p.root and Path(p.root).expanduser()
            options = {"progress": progress, "absent": self.leaves_out}
            images = catalog.load(p.dataset, root, p.generated, **options)
            if self.leaves_out:
                checked = counter("images checked", p.progress)
                images, self.left_out = without_unreadable(images, p.resize, progress=checked)
        return images

    def create_backbone(self) -> Backbone:
        """The network that the parameters name, which `test_views` are for from here on."""
        backbone = backbone_of(self.parameters)
        self.test_views = TestViews.of(backbone)
        return backbone

    def training_stream(self, kind: Callable, pixels: PixelCache, labels: Tensor, **options):
        """Batches of augmented views, for this process: `TrainingStream` or another of its kind."""
        p, backbone = self.parameters, self.backbone
        views = TrainingViews(p.size, backbone.mean, backbone.std, **p.options(TrainingViews))
        shared = {"seed": p.seed, "device": self.device, "rank": self.rank, "world": self.world}
        return kind(pixels, labels, views, p.batch_size, **shared, **options)

    @property
    def backbone(self) -> Backbone:
        return self.method.backbone

    def pictures(self, pixels: PixelCache, index) -> Tensor:
        """Normalised test views of some of the images, (B, 3, size, size), on the device."""
        canvas, sizes = pixels.batch(torch.as_tensor(index))
        return self.test_views(canvas.to(self.device), sizes)

    @torch.no_grad()
    def attention(self, images: ImageSet, pixels: PixelCache) -> dict[str, Tensor]:
        """How far the network's attention lies on the object, (n, 3) as `on_object` has it, in up
        to ATTENDED images; {} where the data have no masks of it."""
        self.method.eval()
        found = [
            torch.stack(on_object(activation_maps(self.backbone, views).cpu(), there), dim=1)
            for views, there in self.views_with_masks(images, pixels)
        ]
        return {"attention": torch.cat(found)} if found else {}

    def views_with_masks(self, images: ImageSet, pixels: PixelCache) -> Iterator:
        """Test views (b, 3, size, size) of up to ATTENDED images, spread over the set, on the
        device, with the masks (b, size, size) of their objects; none where the data have none."""
        if images.masks is None:
            return
        rows = images.spread(ATTENDED)
        masks = PixelCache.open([images.masks[r] for r in rows.tolist()], self.test_views.resize)
        for places in torch.arange(len(rows)).split(16):
            there = self.test_views.crop(*masks.batch(places))[:, 0] > 0.5
            yield self.pictures(pixels, rows[places]), there

    @staticmethod
    def attention_metrics(saved: Mapping[str, Tensor]) -> dict[str, float]:
        """Of what `attention` gave: "attention", the share of images in which its maximum lies on
        the object, "attention_centre", in which the picture's centre does, the floor; and
        "attention_share", its mean on the object over the sum of that and its mean beside it, in
        the median: 0.5 where both are alike, 0.75 where it is three times as high."""
        known = saved["attention"] if "attention" in saved else torch.empty(0, 3)
        known = known[~known.isnan().any(1)]
        if not len(known):
            return {}
        maximum, centre, ratio = known.unbind(1)
        means = {"attention": maximum.mean(), "attention_centre": centre.mean()}
        means["attention_share"] = 1 - 1 / (1 + ratio.median())
        return {name: value.item() for name, value in means.items()}

    def embed(self, pixels: PixelCache) -> Tensor:
        """The method's embeddings of all images, (N, D) on the CPU. What an image took, in batches
        and decoded before, is kept as `embedding_time`."""
        options = {"device": self.device, "precision": self.precision}
        options["batch_size"] = self.parameters.batch_size  # more only takes more memory
        started = time.perf_counter()
        embeddings = embed_all(self.method, pixels, self.test_views, **options)
        taken = time.perf_counter() - started
        self.embedding_time = {"ms_per_image": 1000 * taken / len(pixels)}
        return embeddings

    # A run

    def identity(self) -> dict:
        return {**self.parameters.identity(), "data": self.data}

    def validate(self) -> dict[str, float]:
        """What is evaluated while training.

        NOTE where it is `evaluate`, that is on the test data, to draw curves with. Nothing is
        chosen by it: the last epoch is the result, and the best one, which papers report, stands
        beside it."""
        return self.evaluate().metrics

    def train(self) -> History:
        """Train, or resume from what is in the output folder; ends in evaluation mode."""
        return History() if self.stream is None else self.fit(self.parameters.settings())

    def fit(self, settings: Settings, folder: Path | None = None) -> History:
        """Train the method on the stream, with checkpoints in the run's folder or one within it."""
        options = {"monitor": self.monitor, "identity": self.identity(), "device": self.device}
        options |= {"evaluate": self.validate, "progress": self.parameters.progress}
        options |= {"tensorboard": self.parameters.tensorboard, "folder": folder or self.folder}
        history = fit(self.method, self.stream, settings, **options)
        self.method.eval()
        return history

    def keep(self, figure, name: str):
        """Save a figure for result.json; returns it."""
        if figure is not None:
            from fieldmarks.show.picture import save

            save(figure, self.folder / name)
            self.figures.append(name)
        return figure

    def complete(self) -> dict:
        """Train, evaluate and finish, unless that is done; what result.json says."""
        if not read_result(self.folder):
            history = self.train()
            scores = self.evaluate()
            if is_main():
                self.finish(history, scores)
        with main_first():
            return finished_run(self.folder)[1]

    def finish(
        self, history: History, scores: Scores, start: Scores | Mapping | None = None, notebook=""
    ) -> Path:
        """Save what the metrics can be computed from anew and write result.json; its path. `start`:
        what was measured before training, or only those metrics that were."""
        save_tensors(self.folder / self.saved_file, scores.saved)
        p = self.parameters
        entries = {"experiment": p.kind, "module": type(self).__module__, "notebook": notebook}
        entries |= {"card": p.card, "method": self.name, "dataset": p.dataset}
        entries |= {"metrics": scores.metrics, "intervals": scores.intervals}
        entries["counts"] = dict(zip(COUNTS, self.counts(), strict=True))
        entries["left_out"] = self.left_out
        entries["curves"] = {"epochs": history.epochs, "evaluations": history.evaluations}
        rate, seconds = history.images_per_second, history.seconds
        entries["timing"] = {"train_seconds": seconds, "images_per_second": rate}
        entries["timing"] |= self.embedding_time
        entries |= {"precision": self.precision, "data_fingerprint": self.data}
        entries["start"] = start.metrics if isinstance(start, Scores) else start and dict(start)
        entries["best"] = history.best(self.monitor)
        entries |= self.details(scores, history)
        run = {"parameters": p.plain(), "figures": self.figures, "device": str(self.device)}
        return write_result(self.folder, **run, **entries)

    # Other runs

    def siblings(self) -> list[tuple[Path, dict]]:
        """Finished runs of this experiment on the same data beside this one: (folder, result)."""
        folders = [file.parent for file in sorted(self.folder.parent.glob("*/result.json"))]
        runs = [(other, read_result(other)) for other in folders if other != self.folder]
        return [(folder, result) for folder, result in runs if result and self._like(result)]

    def comparison(self, wanted: Mapping) -> tuple[Path, dict] | None:
        """The run that `baseline` names, or the first beside this one with the wanted parameters.

        Raises:
            ValueError: the run named there is not finished, or was made on other data."""
        p = self.parameters
        if p.baseline:
            folder, result = finished_run(p.baseline, "baseline")
            if not self._like(result):
                problem = f"baseline '{p.baseline}' was made on other data: "
                raise ValueError(problem + "give a run on the same images and split")
            return folder, result
        values = p.plain()
        wanted = {**{name: values[name] for name in self.alike}, **wanted}
        wanted = json.loads(json.dumps(wanted))
        return next(
            (run for run in self.siblings() if wanted.items() <= run[1]["parameters"].items()), None
        )

    def compare_with(self) -> tuple[str, Any] | None:
        """The name and the scores of the run that `baseline` names, or of a `rival` beside this
        one; None where there is none."""
        found = self.comparison(self.rival) if self.rival else None
        return found and (found[1]["method"], self.measure_run(*found))

    def measure_run(self, folder: Path, result: dict) -> Scores:
        """The scores of another finished run of this experiment."""
        from safetensors.torch import load_file

        return self.measure(load_file(folder / self.saved_file), result["parameters"])

    def _like(self, result: dict) -> bool:
        mine = (self.parameters.kind, self.data)
        return (result.get("experiment"), result.get("data_fingerprint")) == mine

    @classmethod
    def load(cls, folder: Path, result: dict, device: str = "auto") -> Method:
        """The trained method of a finished run, on a device, in evaluation mode."""
        p, trained = reading.parse(cls.Parameters, result["parameters"]), result["curves"]["epochs"]
        method = cls.rebuild(p, backbone_of(p, "none" if trained else p.weights), result, folder)
        if trained:
            restore(method, load_checkpoint(measured_file(p, folder)))
        return method.to(choose_device(device), memory_format=torch.channels_last).eval()

    @classmethod
    def main(cls, arguments: list[str] | None = None) -> int:
        """Run all of it from name=value arguments and print the metrics; returns the exit code."""
        arguments = sys.argv[1:] if arguments is None else arguments
        warnings.simplefilter("default")
        try:
            values = reading.from_arguments(cls.Parameters, arguments)
            p = reading.parse(cls.Parameters, values)
            with processes(choose_device(p.device)) as (rank, world):
                experiment = cls(p, rank, world)
                history, scores = experiment.train(), experiment.evaluate()
                if is_main():
                    shown = "  ".join(f"{n} {v:.4f}" for n, v in scores.metrics.items())
                    print(shown, f"-> {experiment.finish(history, scores)}")
        except (ValueError, OSError, RuntimeError) as error:
            print(f"{cls.Parameters.kind}: {error}", file=sys.stderr)
            return 2 if isinstance(error, ValueError) else 1
        except KeyboardInterrupt as stopped:  # an `Interrupted` says what it has saved
            print(f"{cls.Parameters.kind}: {stopped or 'stopped'}", file=sys.stderr)
            return 130
        return 0


def backbone_of(p: DataParameters, weights: str | None = None) -> Backbone:
    """The network that parameters name, from its seed."""
    torch.manual_seed(p.seed)
    weights, frozen = p.weights if weights is None else weights, getattr(p, "freeze_stages", 0)
    backbone = create_backbone(p.backbone, weights, p.size, frozen)
    backbone.resize = p.resize
    return backbone


def measured_file(p: Any, folder: Path) -> Path:
    """The checkpoint with the weights that a run of these parameters in a folder ends with."""
    return folder / ("best.pt" if p.restore_best else "last.pt")


def restore(method: Method, state: dict) -> None:
    """A checkpoint's weights, and the normalisation of images that belongs to them."""
    method.load_state_dict(state["method"])
    method.backbone.mean, method.backbone.std = tuple(state["mean"]), tuple(state["std"])


OF_ONE_RUN = ("out", "card", "baseline", "tuned", "same_time_as")


def inner_parameters(p: DataParameters, module: str, settings: Mapping, name: str, out: str) -> Any:
    """The parameters of another experiment's run on the data and with the network and the seed of
    these, in the folder `out`; `name` is what a message calls the settings.

    Raises:
        ValueError: the settings cannot be, or belong beside them."""
    shared = {field.name for field in dataclasses.fields(DataParameters)} | {"seed"}
    if twice := sorted(shared & set(settings)):
        raise ValueError(f"{name}: {', '.join(twice)} belongs beside {name}, not in it")
    values = {n: getattr(p, n) for n in sorted(shared) if n not in OF_ONE_RUN}
    try:
        return reading.parse(experiment_class(module).Parameters, values | {"out": out} | settings)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def experiment_class(name: str) -> type[Experiment]:
    """The experiment in a module: a short name of this package ("open_set"), or a dotted module.

    Raises:
        ValueError: there is no such module, or no experiment in it."""
    module = name if "." in name else f"{__package__}.{name}"
    try:
        names = vars(importlib.import_module(module))
    except ModuleNotFoundError as error:
        raise ValueError(f"there is no experiment '{name}': {error}") from None
    for found in names.values():
        if isinstance(found, type) and issubclass(found, Experiment):
            if found.__module__ == module:
                return found
    raise ValueError(f"the module '{module}' holds no experiment (a subclass of Experiment)")


def load_run(folder: Path | str, device: str = "auto") -> Method:
    """The method of a finished run, in evaluation mode; `.backbone.preprocess` prepares pictures.

    Raises:
        ValueError: the folder holds no finished run, or its method is no network."""
    folder, result = finished_run(folder)
    return experiment_class(result["module"]).load(folder, result, device)


def run_as_module(cls: type[Experiment]) -> None:
    """For `if __name__ == "__main__"`: the class's own module, under its real name."""
    name = sys.modules["__main__"].__spec__.name
    sys.exit(experiment_class(name).main())
