"""In-shop retrieval by pairwise similarity: find other pictures of the same item. PAN on given embeddings, against its baselines.

The similarity is learned on pairs of pictures of training items and ranks the whole gallery for each query, exactly. A notebook
goes through it step by step:

    parameters = inshop.read(globals())
    experiment = inshop.prepare(parameters)
    history = inshop.train(experiment)
    retrieval = inshop.evaluate(experiment)

and `python -m fieldmarks.experiments.inshop name=value ...` goes through it in one go.

Source: Mishra et al. 2021, Sec. 3 and Table 3. NOTE the paper published no code for this data set; it does not tell lambda, nor
how pairs are drawn, nor for how long the head is trained.
"""

import dataclasses
import sys
import warnings
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from fieldmarks.backbones import create_backbone
from fieldmarks.data.augment import TestViews
from fieldmarks.data.imageset import ImageSet
from fieldmarks.data.layouts import inshop as layout
from fieldmarks.data.pixels import PixelCache
from fieldmarks.evaluation.pair_scores import rerank, top_scores
from fieldmarks.evaluation.recall import nearest
from fieldmarks.evaluation.statistics import Interval, bootstrap_interval, paired_bootstrap
from fieldmarks.experiments import parameters as reading
from fieldmarks.experiments.command_line import run_experiment
from fieldmarks.experiments.common import WARDROBE, RunParameters, load_images, siblings
from fieldmarks.experiments.features import check_images, frozen_features
from fieldmarks.experiments.outfit_network import OutfitNetwork
from fieldmarks.experiments.pair_heads import (
    HEADS,
    WITH_ATTRIBUTES,
    check_head,
    create_network,
    fit_on_pairs,
    positive_pairs,
    searchable,
)
from fieldmarks.experiments.result import write_result
from fieldmarks.files import atomic, lock
from fieldmarks.methods.method import Method
from fieldmarks.methods.pairs import pairs_from_labels
from fieldmarks.progress import counter
from fieldmarks.random import seeded
from fieldmarks.training import History, choose_device

COSINE = "cosine"
VALIDATION_SEED = 44  # the same items for every method and seed


@dataclass(frozen=True)
class Parameters(RunParameters):
    """Everything that a run of this experiment depends on. Plain values, as a notebook's parameters cell holds them.

    The defaults suit a laptop and the generated wardrobe; the settings of the paper stand in labs/pan/table3.yaml.
    """

    kind = "inshop"
    monitor = "recall@1"

    # Data
    dataset: str = "wardrobe"  # or "inshop"
    root: str = ""  # its folder; empty: the generated wardrobe, made once and kept in the cache
    wardrobe: str = WARDROBE  # which wardrobe to make when root is empty
    validation: float = (
        0.2  # share of the training items that are held out to choose the best epoch by
    )
    resize: int = 128  # shorter side of the decoded images
    size: int = 128  # pixels a side of what the network sees
    # Network
    embedding: str = ""  # a finished open-set run whose embeddings are compared, such as ProxyNCA++; empty: the backbone's features
    backbone: str = "tf_efficientnet_lite0"  # frozen
    weights: str = "bundled"  # "imagenet" (downloaded), "bundled", "none", or a checkpoint
    encoder: str = "linear"  # of its features, trained with the head: "linear" or "none"
    hidden: int = 256  # units of "linear"
    # Method
    method: str = "pan_supervised"  # or pan_unsupervised, pan_hybrid; multitask, attribute_similarity, plain, cosine
    concepts: int = 50  # free concepts of pan_unsupervised and pan_hybrid
    rule: str = (
        "xnor"  # how the attributes of two images become those of the pair: and, or, xor, xnor
    )
    attribute_weight: float = 1.0  # lambda, of the attribute term of all methods that have one
    # Training
    pairs: int = 0  # positive pairs to learn from, and as many negatives; 0: all positive ones
    epochs: int = 60  # each is one step on all pairs
    lr: float = 0.001
    weight_decay: float = 0.0
    precision: str = "auto"
    evaluate_every: int = 10  # epochs between looks at the validation items, which choose the best
    # Evaluation
    ks: tuple[int, ...] = (1, 10, 20)
    rerank: int = 100  # nearest by cosine that the cheap way scores anew; 0: leave it out
    # The run
    seed: int = 0
    device: str = "auto"
    progress: str = "auto"
    out: str = ""  # output folder; empty: runs/inshop-<hash of the parameters>
    card: str = ""  # the lab card that this run belongs to

    def __post_init__(self):
        _check(self)


read = partial(
    reading.from_notebook, Parameters
)  # the parameters of a notebook, from its globals()


@dataclass
class Experiment:
    """What `prepare` puts together.

    Attributes:
        train, test: image sets; `*_pixels` and `*_embeddings` (N, D) belong to their images in the same order. Embeddings have the
            length sqrt(D), so that their entries are about 1.
        learned: positions in train to learn from; validation: two lists of such positions, queries and their gallery.
        queries, gallery: positions in test.
        embedder: the frozen method that made the embeddings.
        network: encoder and head; None for cosine.
    """

    parameters: Parameters
    train: ImageSet
    test: ImageSet
    train_pixels: PixelCache
    test_pixels: PixelCache
    train_embeddings: Tensor
    test_embeddings: Tensor
    learned: Tensor
    validation: tuple[Tensor, Tensor]
    queries: Tensor
    gallery: Tensor
    embedder: Method
    network: OutfitNetwork | None
    views: TestViews
    device: torch.device
    folder: Path

    def identity(self) -> dict:
        return {
            **self.parameters.identity(),
            "data": f"{self.train.fingerprint} {self.test.fingerprint}",
        }

    def test_images(self, index) -> Tensor:
        """Normalised test views of test images, (B, 3, size, size), on the device."""
        canvas, sizes = self.test_pixels.batch(torch.as_tensor(index))
        return self.views(canvas.to(self.device), sizes)


@dataclass
class Ranking:
    """The best of the gallery for each query: scores (Q, K) and positions in the gallery (Q, K), best first."""

    scores: Tensor
    index: Tensor


@dataclass
class Retrieval:
    """What each way of ranking finds.

    Attributes:
        rankings: the method's name -> all pairs scored; "... of the nearest 100" -> the cheap way; "cosine".
        query_labels, gallery_labels: (Q,), (G,) items.
        metrics, intervals: see `evaluate`.  above_cosine: mean and 95 % interval of recall@1 less that of cosine.
    """

    rankings: dict[str, Ranking]
    query_labels: Tensor
    gallery_labels: Tensor
    metrics: dict[str, float]
    intervals: dict[str, list[float]]
    above_cosine: Interval

    def hits(self, name: str, k: int) -> Tensor:
        """Whether an image of the query's item is among the first k: (Q,) bool."""
        found = self.gallery_labels[self.rankings[name].index[:, :k]]
        return (found == self.query_labels[:, None]).any(1)


def prepare(parameters: Parameters) -> Experiment:
    """Load, split, decode and embed the data, build the network. Everything that can be wrong is found here.

    The output folder is this process's from here on.

    Raises:
        ValueError, OSError, RuntimeError (another run has the folder): one line that says what is wrong and what would be right.
    """
    p = parameters
    device = choose_device(p.device)
    train, test = load_split(p)
    queries, gallery = test.query_gallery()
    learned, validation = hold_out_items(train.labels, p.validation)
    embedder, views, resize = create_embedder(p, device)
    pixels, embeddings = [], []
    for images in (train, test):
        pixels.append(
            PixelCache.open(images.paths, resize, progress=counter("images decoded", p.progress))
        )
        found = frozen_features(
            pixels[-1], embedder, views, device=device, precision=p.precision, progress=p.progress
        ).to(device)
        embeddings.append(scaled(found))
    network = None
    if p.method != COSINE:
        count = 0 if train.attributes is None else train.attributes.shape[1]
        network = create_network(p, embeddings[0].shape[1], count).to(device).eval()
        training_pairs(p, train.labels[learned], 1)
    lock(p.folder())  # last, so that whatever else is wrong leaves no folder behind
    return Experiment(
        p,
        train,
        test,
        *pixels,
        *embeddings,
        learned,
        validation,
        queries,
        gallery,
        embedder,
        network,
        views,
        device,
        p.folder(),
    )


def load_split(p: Parameters) -> tuple[ImageSet, ImageSet]:
    """Training items, and the others with their queries and gallery."""
    images = load_images(p)
    if p.method in WITH_ATTRIBUTES:
        layout.require_attributes(images)
    train, test = images.open_split()
    if test.query_gallery() is None:
        raise ValueError(
            f"{p.dataset}: the test items have no queries or no gallery: give the whole of list_eval_partition.txt"
        )
    return train, test


def hold_out_items(labels: Tensor, share: float) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Positions of the images to learn from, and of validation queries and their gallery, halves of items held out.

    Raises:
        ValueError: fewer than two items of two images or more would be held out, or none to learn from would be left.
    """
    items, sizes = labels.unique(return_counts=True)
    several = items[sizes > 1]
    generator = seeded(VALIDATION_SEED)
    held = several[torch.randperm(len(several), generator=generator)[: round(share * len(several))]]
    if not 2 <= len(held) < len(several):
        raise ValueError(
            f"validation is {share}: of {len(several)} training items with two images or more it holds out {len(held)}, and "
            "at least 2 are needed, and as many to learn from"
        )
    queries, gallery = [], []
    for item in held.tolist():
        own = (labels == item).nonzero().squeeze(1)
        own = own[torch.randperm(len(own), generator=generator)]
        queries.append(own[: len(own) // 2])
        gallery.append(own[len(own) // 2 :])
    return (~torch.isin(labels, held)).nonzero().squeeze(1), (
        torch.cat(queries),
        torch.cat(gallery),
    )


def create_embedder(p: Parameters, device: torch.device) -> tuple[Method, TestViews, int]:
    """The frozen method that makes the embeddings, its views, and the shorter side of the images that it sees."""
    if p.embedding:
        from fieldmarks.experiments.models import load_model

        model = load_model(Path(p.embedding), str(device))
        if model.bits:
            raise ValueError(
                f"embedding '{p.embedding}' is a run that makes codes: give an open-set run, such as one of proxynca++"
            )
        return model.method, model.views, model.resize
    torch.manual_seed(p.seed)
    backbone = create_backbone(p.backbone, p.weights, p.size)
    return (
        Method(backbone).to(device).eval(),
        TestViews(p.size, backbone.mean, backbone.std, p.resize),
        p.resize,
    )


def scaled(embeddings: Tensor) -> Tensor:
    """Embeddings (..., D) brought to the length sqrt(D)."""
    return F.normalize(embeddings, dim=-1) * embeddings.shape[-1] ** 0.5


def training_pairs(p: Parameters, labels: Tensor, epoch: int) -> tuple[Tensor, Tensor]:
    """The pairs of an epoch, drawn anew for each: (2 P, 2) positions and (2 P,) 1. or 0."""
    return pairs_from_labels(labels, p.pairs or positive_pairs(labels), seeded(p.seed, 21, epoch))


def train(experiment: Experiment) -> History:
    """Train the encoder and the head; the network then holds the weights that rank the held out items best. Cosine learns nothing."""
    e, p = experiment, experiment.parameters
    if e.network is None:
        return History()
    queries, gallery = e.validation
    query_labels, gallery_labels = e.train.labels[queries], e.train.labels[gallery]

    def on_validation() -> dict[str, float]:
        found = rank(
            e.network,
            e.train_embeddings[queries.to(e.device)],
            e.train_embeddings[gallery.to(e.device)],
            1,
        ).index
        return {"recall@1": (gallery_labels[found[:, 0]] == query_labels).double().mean().item()}

    attributes = e.train.attributes[e.learned].to(e.device) if p.method in WITH_ATTRIBUTES else None
    embeddings, labels = e.train_embeddings[e.learned.to(e.device)], e.train.labels[e.learned]
    return fit_on_pairs(
        e.network,
        embeddings,
        lambda epoch: training_pairs(p, labels, epoch),
        attributes,
        p,
        on_validation,
    )


def rank(
    network: OutfitNetwork | None,
    query: Tensor,
    gallery: Tensor,
    k: int,
    candidates: Tensor | None = None,
) -> Ranking:
    """The k best of the gallery for each query, exactly; equal scores: lower position first. Without a network by cosine.

    Args:
        query, gallery: (Q, D) and (G, D) embeddings.
        candidates: (Q, C) positions, to score these only.
    """
    if network is None:
        scores, index = nearest(query, gallery, k)
    else:
        similarity, encoded = searchable(network, torch.cat([query, gallery]))
        sides = encoded[: len(query)], encoded[len(query) :]
        if candidates is None:
            scores, index = top_scores(similarity, *sides, k)
        else:
            scores, index = (part[:, :k] for part in rerank(similarity, *sides, candidates))
    return Ranking(scores.cpu(), index.cpu())


def evaluate(experiment: Experiment, resamples: int = 2000) -> Retrieval:
    """Rank the gallery for every query.

    Metrics: "recall@k" with all pairs scored, "recall@k_rerank" where only the nearest by cosine are scored anew, "recall@k_cosine"
    of the embeddings as they came; "tied@1": share of queries whose best score another of the gallery shares, as scores that are
    rounded to 1 do: the order of the gallery decides there.

    Args:
        resamples: of the bootstrap over items, of the 95 % intervals; 0 leaves them out.
    """
    e, p = experiment, experiment.parameters
    query, gallery = (
        e.test_embeddings[e.queries.to(e.device)],
        e.test_embeddings[e.gallery.to(e.device)],
    )
    depth = min(max(*p.ks, 10), len(gallery))
    near = rank(None, query, gallery, min(max(p.rerank, depth), len(gallery)))
    rankings = {p.method: near if e.network is None else rank(e.network, query, gallery, depth)}
    if e.network is not None and p.rerank:
        candidates = near.index[:, : p.rerank].to(e.device)
        rankings[f"{p.method}, nearest {candidates.shape[1]}"] = rank(
            e.network, query, gallery, depth, candidates
        )
    rankings[COSINE] = near
    return measure(rankings, p, e.test.labels[e.queries], e.test.labels[e.gallery], resamples)


def measure(
    rankings: dict[str, Ranking],
    p: Parameters,
    query_labels: Tensor,
    gallery_labels: Tensor,
    resamples: int,
) -> Retrieval:
    """Score rankings; see `evaluate`."""
    found = Retrieval(rankings, query_labels, gallery_labels, {}, {}, Interval(0.0, 0.0, 0.0))
    for name in rankings:
        for k in p.ks:
            hits = found.hits(name, k)
            metric = f"recall@{k}{ending(name, p)}"
            found.metrics[metric] = hits.double().mean().item()
            if resamples:
                found.intervals[metric] = list(
                    bootstrap_interval(hits, groups=query_labels, resamples=resamples)[1:]
                )
    best = rankings[p.method].scores
    found.metrics["tied@1"] = (best[:, 0] == best[:, 1]).double().mean().item()
    found.above_cosine = paired_bootstrap(
        found.hits(p.method, 1),
        found.hits(COSINE, 1),
        groups=query_labels,
        resamples=resamples or 1,
    )
    return found


def ending(name: str, p: Parameters) -> str:
    """What the names of a ranking's metrics and tensors end in."""
    return {COSINE: "_cosine", p.method: ""}.get(name, "_rerank")


def sibling_runs(experiment: Experiment) -> list[tuple[Path, dict]]:
    """Finished in-shop runs on the same images beside this one: (folder, result)."""
    return siblings(experiment.folder, experiment.parameters.kind, experiment.identity()["data"])


def load_hits(folder: Path) -> Tensor:
    """Whether a finished run found the item at first rank, query by query: (Q,) bool."""
    from safetensors.torch import load_file

    saved = load_file(folder / "rankings.safetensors")
    return saved["gallery_labels"][saved["index"][:, 0].long()] == saved["query_labels"]


def finish(
    experiment: Experiment,
    history: History,
    retrieval: Retrieval,
    figures: list[str],
    notebook: str,
) -> Path:
    """Save the rankings and the network, and write result.json; returns its path."""
    from safetensors.torch import save_file

    e, p = experiment, experiment.parameters
    saved = {"query_labels": retrieval.query_labels, "gallery_labels": retrieval.gallery_labels}
    depth = max(*p.ks, 2)
    for name, ranking in retrieval.rankings.items():
        end = ending(name, p)
        saved |= {
            f"index{end}": ranking.index[:, :depth].int().contiguous(),
            f"scores{end}": ranking.scores[:, :depth].contiguous(),
        }
    with atomic(e.folder / "rankings.safetensors") as temporary:
        save_file(saved, temporary)
    if e.network is not None:
        with atomic(e.folder / "network.safetensors") as temporary:
            save_file(
                {name: value.cpu().contiguous() for name, value in e.network.state_dict().items()},
                temporary,
            )
    return write_result(
        e.folder,
        experiment=p.kind,
        notebook=notebook,
        card=p.card,
        method=p.method,
        dataset=e.test.name,
        parameters=dataclasses.asdict(p),
        metrics=retrieval.metrics,
        intervals=retrieval.intervals,
        counts={
            "train": len(e.learned),
            "query": len(e.queries),
            "gallery": len(e.gallery),
            "classes": len(e.test.labels.unique()),
            "train_classes": len(e.train.labels[e.learned].unique()),
        },
        curves={"epochs": history.epochs, "evaluations": history.evaluations},
        figures=figures,
        timing={"train_seconds": history.seconds, "images_per_second": history.images_per_second},
        device=str(e.device),
        data_fingerprint=e.identity()["data"],
        attribute_names=e.train.attribute_names or [],
        above_cosine=list(retrieval.above_cosine),
        chosen_epoch=(history.best(p.monitor) or {}).get("epoch"),
    )


def main(arguments: list[str]) -> int:
    """Run all of it from name=value arguments."""

    def whole(p: Parameters, rank: int, world: int):
        experiment = prepare(p)
        history, retrieval = train(experiment), evaluate(experiment)
        return retrieval.metrics, partial(finish, experiment, history, retrieval, [], notebook="")

    return run_experiment(Parameters, arguments, whole)


def _check(p: Parameters) -> None:
    for name, allowed in (("dataset", ("wardrobe", "inshop")), ("method", (*HEADS, COSINE))):
        if getattr(p, name) not in allowed:
            raise ValueError(
                f"{name} is '{getattr(p, name)}': it must be one of {', '.join(allowed)}"
            )
    check_images(p, generated="wardrobe")
    check_head(p)
    if not 0 < p.validation < 1:
        raise ValueError(f"validation is {p.validation}: it is a share, above 0 and below 1")
    if not p.ks or min(p.ks) < 1:
        raise ValueError(f"ks is {list(p.ks)}: give one K or more, each at least 1")
    if p.rerank < 0:
        raise ValueError(f"rerank is {p.rerank}: it must not be negative; 0 leaves it out")


if __name__ == "__main__":
    warnings.simplefilter("default")
    sys.exit(main(sys.argv[1:]))
