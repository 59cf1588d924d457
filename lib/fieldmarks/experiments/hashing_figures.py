"""The figures of the hashing experiment: what is drawn from where. How it is drawn is `show`'s business."""

from collections.abc import Mapping

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from fieldmarks.backbones import create_backbone
from fieldmarks.evaluation.code_usage import code_usage
from fieldmarks.evaluation.hamming import precision_recall_by_radius
from fieldmarks.experiments.common_figures import (
    classes_at_a_glance,  # noqa: F401, for notebooks
    readable,
    rows_of_many_classes,
    shown,
)
from fieldmarks.experiments.hashing import Experiment, Retrieval, sibling_runs
from fieldmarks.explain.gradcam import activation_maps
from fieldmarks.methods.fcaenet import attention, erase_mask
from fieldmarks.show import codes, galleries, maps

DISCRIMINATIVE = (0.79, 0.19, 0.12)  # the paper's red frames


def some_queries(retrieval: Retrieval, count: int = 6, seed: int = 0) -> Tensor:
    """Query rows drawn at random, whatever came of them, from as many classes as there are."""
    return rows_of_many_classes(retrieval.query_labels, count, seed)


def top_ten(experiment: Experiment, retrievals: Mapping[str, Retrieval], rows: Tensor) -> Figure:
    """The paper's Fig. 6: the same queries' ten nearest database images under each method, by Hamming distance."""
    blocks = {}
    for name, retrieval in retrievals.items():
        found, distances, correct = retrieval.neighbours(
            rows, min(10, len(experiment.database)), experiment.parameters.seed
        )
        blocks[name] = (
            [[experiment.database_pixels[i] for i in row] for row in found.tolist()],
            correct,
            distances,
        )
    titles = [
        readable(experiment.queries.class_names[label])
        for label in experiment.queries.labels[rows].tolist()
    ]
    return galleries.before_after(
        [experiment.query_pixels[i] for i in rows.tolist()],
        blocks,
        titles,
        score="Hamming distance to the query; equal ones in random order",
    )


def erased_regions(experiment: Experiment, rows: Tensor, boxes: int = 3) -> Figure:
    """The paper's Fig. 8: images, their attention, what SREM erases, and the most attended boxes that do not overlap."""
    p, images = experiment.parameters, experiment.query_images(rows)
    heat = attention_of(experiment, images)
    mask = erase_mask(heat, p.regions, p.region_size)
    framed = [
        frame(picture, hottest_boxes(one, p.region_size, boxes))
        for picture, one in zip(shown(experiment.backbone, images), heat)
    ]
    whole = shown(experiment.backbone, images)
    share = 100 * (1 - mask.mean().item())
    return maps.map_grid(
        [
            ("image", whole, None),
            ("attention", whole, heat.clamp(max=1).cpu()),
            (f"erased, {share:.0f} %", shown(experiment.backbone, mask * images), None),
            ("hottest boxes", framed, None),
        ],
        _titles(experiment, rows),
        legend="attention, eq. 4",
    )


def attention_maps(experiment: Experiment, rows: Tensor) -> Figure:
    """The paper's Fig. 9: where the network looks, as it came and as it was trained."""
    p, images = experiment.parameters, experiment.query_images(rows)
    torch.manual_seed(p.seed)
    fresh = create_backbone(p.backbone, p.weights, p.size).to(images.device).eval()
    whole = shown(experiment.backbone, images)
    return maps.map_grid(
        [
            ("image", whole, None),
            ("before training", whole, activation_maps(fresh, images).cpu()),
            ("trained", whole, activation_maps(experiment.backbone.eval(), images).cpu()),
        ],
        _titles(experiment, rows),
        legend="mean activation, share of each map's maximum",
    )


def class_distances(retrievals: Mapping[str, Retrieval]) -> Figure:
    """How far query codes lie from their class's database codes (mean), and from the nearest other class's (its mean)."""
    methods, bits = {}, 0
    for name, retrieval in retrievals.items():
        bits = retrieval.query_codes.shape[1]
        methods[name] = own_and_other(retrieval)
    return codes.distance_histograms(methods, bits)


def own_and_other(retrieval: Retrieval) -> tuple[Tensor, Tensor]:
    """Mean Hamming distance of each query to the database codes of its class, and to those of the class nearest to it else: (Q,) each."""
    labels, bits = retrieval.database_labels, retrieval.query_codes.shape[1]
    classes = int(labels.max()) + 1
    sums = torch.zeros(classes, bits).index_add_(0, labels, retrieval.database_codes)
    means = (
        sums / torch.bincount(labels, minlength=classes)[:, None]
    )  # NaN for a class without images
    distances = (
        bits - retrieval.query_codes @ means.T
    ) / 2  # the distance is linear in the code: (Q, C)
    own = distances.gather(1, retrieval.query_labels[:, None]).squeeze(1)
    others = (
        distances.nan_to_num(torch.inf)
        .scatter(1, retrieval.query_labels[:, None], torch.inf)
        .amin(1)
    )
    known = ~own.isnan()
    return own[known], others[known]


def radius(retrievals: Mapping[str, Retrieval]) -> Figure:
    """Precision and recall of lookups within each Hamming radius."""
    return codes.radius_curves(
        {
            name: precision_recall_by_radius(
                r.query_codes, r.query_labels, r.database_codes, r.database_labels
            )
            for name, r in retrievals.items()
        }
    )


def usage(retrievals: Mapping[str, Retrieval]) -> Figure:
    """How the database codes use their bits."""
    methods, notes = {}, []
    for name, retrieval in retrievals.items():
        found = code_usage(retrieval.database_codes)
        methods[name] = (found.balance, found.correlation)
        notes.append(
            f"{found.distinct:,} distinct codes, {len(retrieval.database_labels.unique()):,} classes"
        )
    return codes.usage_board(methods, notes)


def map_by_length(experiment: Experiment, method: str, retrieval: Retrieval) -> Figure:
    """mAP by code length: this run, and the finished runs on the same data with this seed that lie beside it."""
    scores: dict[str, dict[int, float]] = {}
    for _, result in sibling_runs(experiment):
        if result["seed"] == experiment.parameters.seed:
            scores.setdefault(result["method"], {})[result["parameters"]["bits"]] = result[
                "metrics"
            ]["map"]
    scores.setdefault(method, {})[experiment.parameters.bits] = retrieval.metrics["map"]
    return codes.length_curves(scores)


@torch.no_grad()
def attention_of(experiment: Experiment, images: Tensor) -> Tensor:
    """Eq. 3-4 for normalised images: (B, 3, H, W) -> (B, H, W)."""
    return attention(experiment.backbone.eval()(images), images.shape[-2:])


def hottest_boxes(heat: Tensor, size: int, count: int) -> list[tuple[int, int, int, int]]:
    """Boxes x1 y1 x2 y2 of size x size with their upper left corner at the hottest pixel, then at the hottest that leaves them apart.

    The n hottest pixels lie in one blob (the paper, Sec. 4.5.3): drawn all, their boxes would be one smear.
    """
    heat, (height, width) = heat.clone(), heat.shape
    found = []
    while len(found) < count and heat.max() > 0:
        y, x = divmod(int(heat.argmax()), width)
        found.append((x, y, min(x + size, width), min(y + size, height)))
        heat[max(0, y - size + 1) : y + size, max(0, x - size + 1) : x + size] = 0
    return found


def frame(picture, boxes: list[tuple[int, int, int, int]], scale: int = 4) -> np.ndarray:
    """A picture (H, W, 3) enlarged, with frames around boxes given in its own pixels."""
    large = np.asarray(picture).repeat(scale, 0).repeat(scale, 1)
    for x1, y1, x2, y2 in boxes:
        for colour, inset, width in ((1.0, 0, 10), (DISCRIMINATIVE, 2, 6)):
            edges = np.zeros(large.shape[:2], bool)
            top, bottom, left, right = (
                scale * y1 + inset,
                scale * y2 - inset,
                scale * x1 + inset,
                scale * x2 - inset,
            )
            edges[top:bottom, left:right] = True
            edges[top + width : bottom - width, left + width : right - width] = False
            large[edges] = colour
    return large


def _titles(experiment: Experiment, rows: Tensor) -> list[str]:
    return [
        readable(experiment.queries.class_names[label])
        for label in experiment.queries.labels[rows].tolist()
    ]
