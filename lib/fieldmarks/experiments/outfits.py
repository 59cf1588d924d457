"""What goes with what: PAN on outfits, with its attribute baselines (Table 1 of the paper).

Two questions are asked of a similarity of garments: is this an outfit or a mere collection (AUC), and which of these fills the
blank in that outfit (FITB). A notebook goes through it step by step:

    parameters = outfits.read(globals())
    experiment = outfits.prepare(parameters)
    history = outfits.train(experiment)
    answers = outfits.evaluate(experiment)

and `python -m fieldmarks.experiments.outfits name=value ...` goes through it in one go.
"""

import dataclasses
import hashlib
import sys
import warnings
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fieldmarks.backbones import Backbone, create_backbone
from fieldmarks.data.augment import TestViews
from fieldmarks.data.layouts import polyvore
from fieldmarks.data.pixels import PixelCache
from fieldmarks.evaluation.outfits import (
    area_under_curve,
    auc_interval,
    choice_scores,
    fill_in_blank_hits,
    outfit_scores,
)
from fieldmarks.evaluation.statistics import bootstrap_interval
from fieldmarks.experiments import parameters as reading
from fieldmarks.experiments.command_line import run_experiment
from fieldmarks.experiments.common import (
    WARDROBE,
    RunParameters,
    draw_wardrobe,
    named_run,
    siblings,
)
from fieldmarks.experiments.features import frozen_features
from fieldmarks.experiments.outfit_network import (
    ENCODERS,
    METHODS,
    WITH_ATTRIBUTES,
    OutfitNetwork,
    fit,
    outfit_edges,
)
from fieldmarks.experiments.result import write_result
from fieldmarks.files import atomic, lock
from fieldmarks.methods.graph_encoder import (
    Context,
    Graph,
    Neighbours,
    outfit_context,
    question_context,
)
from fieldmarks.methods.pan import RULES
from fieldmarks.progress import counter
from fieldmarks.training import History, choose_device, choose_precision

DATASETS = ("wardrobe", "polyvore")
VALIDATION, TESTS = (
    "valid",
    {"test": "", "test resampled": "_resampled"},
)  # parts, and what their metrics' names end in
DEGREE = -1  # stands where K does for answers by the number of edges


@dataclass(frozen=True)
class Parameters(RunParameters):
    """Everything that a run of this experiment depends on. Plain values, as a notebook's parameters cell holds them.

    The defaults suit a laptop and the generated wardrobe; the settings of the paper stand in labs/pan/table1.yaml.
    """

    kind = "outfits"
    monitor = "validation"

    # Data
    dataset: str = "wardrobe"  # or "polyvore"
    root: str = ""  # the folder polyvore_outfits; empty: the generated wardrobe, made once and kept in the cache
    wardrobe: str = WARDROBE  # which wardrobe to make when root is empty
    outfits_split: str = "nondisjoint"  # or "disjoint", which has no resampled questions
    resize: int = 128  # shorter side of the decoded images
    size: int = 128  # pixels a side of what the network sees
    # Network
    backbone: str = "tf_efficientnet_lite0"  # frozen
    weights: str = "bundled"  # "imagenet" (downloaded), "bundled", "none", or a checkpoint
    encoder: str = "graph"  # of its features: "graph", "linear" or "none"
    hidden: tuple[int, ...] = (
        200,
        200,
    )  # units of the graph encoder's layers; "linear" has one, the last of these
    dropout: float = 0.5  # of the features that enter each of its layers
    support_dropout: float = 0.15  # of the graph's nodes, then of its edges
    # Method
    method: str = "pan_supervised"  # or pan_unsupervised, pan_hybrid; multitask, attribute_similarity, plain, cosine
    concepts: int = 50  # free concepts of pan_unsupervised and pan_hybrid
    none_slot: bool = True  # one supervised concept more, for pairs without any of the attributes
    rule: str = "and"  # what makes one label of two images: "and", "or", "xor" or "xnor"; the paper chooses it by the task
    attribute_weight: float = 10.0  # lambda, of the attribute term of all methods that have one
    # Training
    message_share: float = 0.5  # of the training edges, those that the graph encoder is shown; the others are learnt from
    steps: int = 150  # each on the whole graph
    lr: float = 0.003
    weight_decay: float = 0.0
    evaluate_every: int = 15
    precision: str = "auto"
    # Evaluation
    neighbours: int = 1  # K, edges that the graph encoder sees about each item asked about; 0 and 1 are always measured too
    # The run
    seed: int = 0
    device: str = "auto"
    progress: str = "auto"
    out: str = ""  # output folder; empty: runs/outfits-<hash of the parameters>
    card: str = ""  # the lab card that this run belongs to
    baseline: str = (
        ""  # a finished run to compare with; empty: multitask beside this one, else none
    )

    def __post_init__(self):
        _check(self)


read = partial(
    reading.from_notebook, Parameters
)  # the parameters of a notebook, from its globals()


@dataclass
class Experiment:
    """What `prepare` puts together.

    Attributes:
        outfits: items, outfits of them, and questions; `pixels` the items' images, in the same order.
        features: (I, d) of the frozen backbone, standardised by the training items', on the device.
        training_items: (T,) long, `edges` (E, 2) those that share a training outfit, as positions in it.
        data: the fingerprint of the outfits.
    """

    parameters: Parameters
    outfits: polyvore.Outfits
    pixels: PixelCache
    backbone: Backbone
    views: TestViews
    features: Tensor
    training_items: Tensor
    edges: Tensor
    network: OutfitNetwork
    device: torch.device
    precision: str
    folder: Path
    data: str
    contexts: dict = field(default_factory=dict)

    def images(self, items) -> Tensor:
        """Normalised test views of items, (B, 3, size, size), on the device."""
        canvas, sizes = self.pixels.batch(torch.as_tensor(items))
        return self.views(canvas.to(self.device), sizes)


@dataclass
class Answers:
    """What the network says to the questions of the test outfits.

    Attributes:
        choices: {(part, K): (Q, C) score of each choice}, outfits: {(part, K): (O,) score of each outfit}; K is DEGREE for those
            of `degree_answers`.
        metrics, intervals: see `evaluate`.
    """

    choices: dict[tuple[str, int], Tensor]
    outfits: dict[tuple[str, int], Tensor]
    metrics: dict[str, float]
    intervals: dict[str, list[float]]


def prepare(parameters: Parameters) -> Experiment:
    """Read and embed the items, build the network. Everything that can be wrong is found here.

    The output folder is this process's from here on.

    Raises:
        ValueError, OSError, RuntimeError (another run has the folder): one line that says what is wrong and would be right.
    """
    p = parameters
    device = choose_device(p.device)
    data = load_outfits(p)
    for part in (VALIDATION, "test"):
        data.blanks[part], data.compatibility[part]  # what is missing says so itself
    if p.method in WITH_ATTRIBUTES:
        polyvore.require_attributes(data)
    pixels = PixelCache.open(data.paths, p.resize, progress=counter("images decoded", p.progress))
    torch.manual_seed(p.seed)
    backbone = create_backbone(p.backbone, p.weights, p.size).to(device).eval()
    views = TestViews(p.size, backbone.mean, backbone.std, p.resize)
    features = frozen_features(
        pixels, backbone, views, device=device, precision=p.precision, progress=p.progress
    )
    training_items = torch.tensor(
        sorted({item for outfit in data.outfits["train"] for item in outfit})
    )
    place = {item: row for row, item in enumerate(training_items.tolist())}
    edges = outfit_edges([[place[item] for item in outfit] for outfit in data.outfits["train"]])
    torch.manual_seed(p.seed)
    network = OutfitNetwork(
        p.method,
        features.shape[1],
        len(data.attribute_names or []),
        encoder=p.encoder,
        hidden=p.hidden,
        dropout=p.dropout,
        concepts=p.concepts,
        none_slot=p.none_slot,
        rule=p.rule,
        weight=p.attribute_weight,
    )
    network.standardise.fit(features[training_items])
    network.to(device).eval()
    lock(p.folder())  # last, so that whatever else is wrong leaves no folder behind
    return Experiment(
        p,
        data,
        pixels,
        backbone,
        views,
        network.standardise(features.to(device)),
        training_items,
        edges,
        network,
        device,
        choose_precision(p.precision, device, network),
        p.folder(),
        fingerprint(data),
    )


def load_outfits(p: Parameters) -> polyvore.Outfits:
    """The outfits that the parameters name: at `root`, or the generated wardrobe's."""
    root = Path(p.root).expanduser() if p.root else draw_wardrobe(p.wardrobe, p.progress)
    return polyvore.load(root, p.outfits_split, name=p.dataset)


def fingerprint(data: polyvore.Outfits) -> str:
    """16 hexadecimal digits of the sha256 over items, outfits, questions and attributes."""
    digest = hashlib.sha256(f"{data.name} {data.item_ids} {data.attribute_names}".encode())
    for parts in (data.outfits, data.compatibility, data.blanks):
        digest.update(repr(dict(parts)).encode())
    if data.attributes is not None:
        digest.update(data.attributes.numpy().tobytes())
    return digest.hexdigest()[:16]


def train(experiment: Experiment) -> History:
    """Train the encoder and the head; the network then holds the weights that answer the validation questions best.

    They are chosen by the mean of accuracy and AUC on the validation outfits, at the K of `neighbours`. Cosine learns nothing.

    NOTE the official code chooses by the accuracy on pairs of the validation graph.
    """
    e, p = experiment, experiment.parameters
    if not e.network.learns:
        return History()
    labels = (
        e.outfits.attributes[e.training_items].to(e.device) if p.method in WITH_ATTRIBUTES else None
    )
    return fit(
        e.network,
        e.features[e.training_items.to(e.device)],
        e.edges,
        labels,
        steps=p.steps,
        lr=p.lr,
        weight_decay=p.weight_decay,
        message_share=p.message_share,
        support_dropout=p.support_dropout,
        evaluate=lambda: validate(e),
        evaluate_every=p.evaluate_every,
        monitor=p.monitor,
        seed=p.seed,
        precision=e.precision,
        progress=p.progress,
    )


def validate(experiment: Experiment) -> dict[str, float]:
    """Accuracy and AUC on the validation outfits, and their mean."""
    choices, scores = answer(experiment, VALIDATION, experiment.parameters.neighbours)
    fitb = blank_hits(experiment, VALIDATION, choices).mean().item()
    auc = area_under_curve(scores, outfit_labels(experiment, VALIDATION))
    return {"fitb": fitb, "auc": auc, "validation": (fitb + auc) / 2}


def evaluate(experiment: Experiment, resamples: int = 2000) -> Answers:
    """Answer all test questions.

    Metrics: "fitb", the share of blanks filled rightly, a tie counting what a random choice among the best would win, and "auc"
    of true outfits against made-up ones, both with K edges in sight, the parameter `neighbours`; "fitb_resampled" and
    "auc_resampled" on the harder questions, where there are any; the same again with "_k0" and "_k1"; and with "_degree" what
    an item's number of visible edges says by itself at K = 1, fewer being better: the edges of a true outfit are hidden, while
    items of a made-up one keep those of the outfits that they come from.

    Args:
        resamples: of the bootstrap over questions, of the 95 % intervals; 0 leaves them out.
    """
    e, metrics, intervals = experiment, {}, {}
    choices, outfits = {}, {}
    asked = {
        part: end
        for part, end in TESTS.items()
        if part in e.outfits.blanks and part in e.outfits.compatibility
    }
    for part, end in asked.items():
        labels = outfit_labels(e, part)
        for k in sorted({0, 1, e.parameters.neighbours}):
            choices[part, k], outfits[part, k] = answer(e, part, k)
            hits = blank_hits(e, part, choices[part, k])
            found = {
                f"fitb{end}": hits.mean().item(),
                f"auc{end}": area_under_curve(outfits[part, k], labels),
            }
            metrics |= {f"{name}_k{k}": value for name, value in found.items()}
            if k != e.parameters.neighbours:
                continue
            metrics |= found
            if resamples:
                intervals[f"fitb{end}"] = list(bootstrap_interval(hits, resamples=resamples)[1:])
                intervals[f"auc{end}"] = auc_interval(outfits[part, k], labels, resamples)
        choices[part, DEGREE], outfits[part, DEGREE] = degree_answers(e, part)
        metrics[f"fitb{end}_degree"] = blank_hits(e, part, choices[part, DEGREE]).mean().item()
        metrics[f"auc{end}_degree"] = area_under_curve(outfits[part, DEGREE], labels)
    order = [f"{name}{end}" for name in ("fitb", "auc") for end in asked.values()]
    return Answers(
        choices,
        outfits,
        {name: metrics[name] for name in [*order, *sorted(set(metrics) - set(order))]},
        intervals,
    )


def answer(experiment: Experiment, part: str, k: int) -> tuple[Tensor, Tensor]:
    """The choices' scores (Q, C) and the outfits' scores (O,) for a part's questions, with k edges in sight."""
    e = experiment
    blanks, whole = contexts(e, part, k if e.network.sees_graph else 0)
    e.network.eval()
    rows, outfits, choices = e.network.encode_contexts(e.features, blanks)
    filled = choice_scores(outfits, choices, lambda i, j: e.network.score(rows[i], rows[j]).cpu())
    rows, outfits, _ = e.network.encode_contexts(e.features, whole)
    return filled, outfit_scores(outfits, lambda i, j: e.network.score(rows[i], rows[j]).cpu())


def contexts(experiment: Experiment, part: str, k: int) -> tuple[list[Context], list[Context]]:
    """What a graph encoder may see for each blank and for each outfit of a part; built once."""
    e = experiment
    if (part, k) not in e.contexts:
        neighbours = graph_of(e, part)
        e.contexts[part, k] = (
            [
                question_context(neighbours, q.question, q.choices, k)
                for q in e.outfits.blanks[part]
            ],
            [outfit_context(neighbours, q.items, k) for q in e.outfits.compatibility[part]],
        )
    return e.contexts[part, k]


def graph_of(experiment: Experiment, part: str) -> Neighbours:
    """The graph of the part's own outfits, over all items."""
    return Graph.of(
        outfit_edges(experiment.outfits.outfits[part.split()[0]]), len(experiment.outfits)
    ).neighbours()


def degree_answers(experiment: Experiment, part: str) -> tuple[Tensor, Tensor]:
    """Scores as of `answer`, of nothing but the visible edges at K = 1: minus the mean number of them."""
    blanks, whole = contexts(experiment, part, 1)

    def edges_at(context: Context, rows: list[int]) -> list[float]:
        ends = Counter(
            end for edge in {tuple(sorted(edge)) for edge in context.edges} for end in edge
        )
        return [-float(ends[row]) for row in rows]

    outfits = [np.mean(edges_at(context, context.outfit)) for context in whole]
    return torch.tensor([edges_at(context, context.choices) for context in blanks]), torch.tensor(
        outfits
    )


def blank_hits(experiment: Experiment, part: str, scores: Tensor) -> Tensor:
    """Chance that each blank is filled rightly: scores (Q, C) -> (Q,)."""
    return fill_in_blank_hits(
        scores, [question.answer for question in experiment.outfits.blanks[part]]
    )


def outfit_labels(experiment: Experiment, part: str) -> Tensor:
    """1 for outfits that somebody has put together, 0 for made-up ones: (O,) long."""
    return torch.tensor([question.label for question in experiment.outfits.compatibility[part]])


def compare_with(experiment: Experiment) -> tuple[str, Answers] | None:
    """The finished run that this one is held against (see `Parameters.baseline`) by name, with its answers; None without one.

    Raises:
        ValueError: the run named there is not finished, or was made on other data.
    """
    p = experiment.parameters
    if p.baseline:
        result = named_run(p.baseline, experiment.data)
        return result["method"], load_answers(Path(p.baseline), result)
    for folder, result in sibling_runs(experiment):
        same = ("encoder", "backbone", "weights", "size", "resize", "neighbours", "seed")
        if result["method"].startswith("multitask") and all(
            result["parameters"][name] == getattr(p, name) for name in same
        ):
            return result["method"], load_answers(folder, result)
    return None


def sibling_runs(experiment: Experiment) -> list[tuple[Path, dict]]:
    """Finished runs on the same outfits beside this one: (folder, result)."""
    return siblings(experiment.folder, experiment.parameters.kind, experiment.data)


def load_answers(folder: Path, result: dict) -> Answers:
    """The answers that a finished run saved."""
    from safetensors.torch import load_file

    found: dict[str, dict] = {"choices": {}, "outfits": {}}
    for name, scores in load_file(Path(folder) / "scores.safetensors").items():
        kind, part, *k = name.split("/")
        if kind in found:
            found[kind][part, int(k[0])] = scores
    return Answers(**found, metrics=result["metrics"], intervals=result["intervals"])


def finish(
    experiment: Experiment, history: History, answers: Answers, figures: list[str], notebook: str
) -> Path:
    """Save the scores of all questions and the network, and write result.json; returns its path."""
    from safetensors.torch import save_file

    e, p, data = experiment, experiment.parameters, experiment.outfits
    scores = {
        f"{kind}/{part}/{k}": value
        for kind in ("choices", "outfits")
        for (part, k), value in getattr(answers, kind).items()
    }
    for part in {part for part, _ in answers.choices}:
        scores[f"right/{part}"] = torch.tensor([question.answer for question in data.blanks[part]])
        scores[f"true/{part}"] = outfit_labels(e, part)
    for name, tensors in (("scores", scores), ("network", e.network.state_dict())):
        with atomic(e.folder / f"{name}.safetensors") as temporary:
            save_file({key: value.contiguous().cpu() for key, value in tensors.items()}, temporary)
    return write_result(
        e.folder,
        experiment=p.kind,
        notebook=notebook,
        card=p.card,
        method=describe(p),
        dataset=data.name,
        parameters=dataclasses.asdict(p),
        metrics=answers.metrics,
        intervals=answers.intervals,
        counts={  # here a class is an outfit, of things that go together
            "train": len(e.training_items),
            "query": len(data.blanks["test"]) + len(data.compatibility["test"]),
            "gallery": len({item for outfit in data.outfits["test"] for item in outfit}),
            "classes": len(data.outfits["test"]),
            "train_classes": len(data.outfits["train"]),
        },
        curves={"epochs": history.epochs, "evaluations": history.evaluations},
        figures=figures,
        timing={"train_seconds": history.seconds, "images_per_second": history.images_per_second},
        device=str(e.device),
        best_on_validation=history.best(p.monitor),
        data_fingerprint=e.data,
        precision=e.precision,
    )


def describe(p: Parameters) -> str:
    """The method's name, with the graph encoder's "-GE" of the paper's tables."""
    return f"{p.method}-GE" if p.encoder == "graph" and p.method != "cosine" else p.method


def main(arguments: list[str]) -> int:
    """Run all of it from name=value arguments."""

    def whole(p: Parameters, rank: int, world: int):
        experiment = prepare(p)
        history, answers = train(experiment), evaluate(experiment)
        return answers.metrics, partial(finish, experiment, history, answers, [], notebook="")

    return run_experiment(Parameters, arguments, whole)


def _check(p: Parameters) -> None:
    for name, allowed in (
        ("dataset", DATASETS),
        ("outfits_split", ("nondisjoint", "disjoint")),
        ("method", METHODS),
        ("encoder", ENCODERS),
        ("rule", tuple(RULES)),
    ):
        if getattr(p, name) not in allowed:
            raise ValueError(
                f"{name} is '{getattr(p, name)}': it must be one of {', '.join(allowed)}"
            )
    if not p.root and p.dataset != "wardrobe":
        raise ValueError(
            f"root is empty: give the folder of {p.dataset} (only the generated wardrobe needs none)"
        )
    if not 1 <= p.size <= p.resize:
        raise ValueError(
            f"size is {p.size} and resize is {p.resize}: size must be at least 1 and at most resize"
        )
    if not p.hidden or min(p.hidden) < 1:
        raise ValueError(
            f"hidden is {list(p.hidden)}: give the units of one layer or more, each at least 1"
        )
    for name in ("dropout", "support_dropout", "message_share"):
        if not 0 <= getattr(p, name) < 1:
            raise ValueError(f"{name} is {getattr(p, name)}: it is a share, at least 0 and below 1")
    for name in ("concepts", "steps", "evaluate_every"):
        if getattr(p, name) < 1:
            raise ValueError(f"{name} is {getattr(p, name)}: it must be at least 1")
    for name in ("neighbours", "attribute_weight"):
        if getattr(p, name) < 0:
            raise ValueError(f"{name} is {getattr(p, name)}: it must not be negative")
    p.settings()


if __name__ == "__main__":
    warnings.simplefilter("default")
    sys.exit(main(sys.argv[1:]))
