"""The figures of the in-shop experiment: what is drawn from where. How it is drawn is `show`'s business."""

import torch
from fieldguide.garments.attributes import VOCABULARY
from matplotlib.figure import Figure
from torch import Tensor

from fieldmarks.evaluation.statistics import Interval, paired_bootstrap
from fieldmarks.experiments.common_figures import (
    classes_at_a_glance,  # noqa: F401, for notebooks
    rows_of_many_classes,
)
from fieldmarks.experiments.inshop import (
    COSINE,
    Experiment,
    Retrieval,
    load_hits,
    scaled,
    sibling_runs,
)
from fieldmarks.experiments.pair_figures import concept_groups, concept_names, has_concepts
from fieldmarks.experiments.pair_figures import pair_board as draw_pairs
from fieldmarks.experiments.pair_heads import concept_means
from fieldmarks.show import concepts, galleries, tables


def some_queries(retrieval: Retrieval, count: int = 6, seed: int = 0) -> Tensor:
    """Query rows drawn at random, whatever came of them, of as many items as there are."""
    return rows_of_many_classes(retrieval.query_labels, count, seed)


def changed_queries(experiment: Experiment, retrieval: Retrieval, count: int = 2) -> Tensor:
    """The first queries that only the method, and the first that only cosine answers rightly: (up to 2 count,)."""
    method, cosine = (retrieval.hits(name, 1) for name in (experiment.parameters.method, COSINE))
    return torch.cat(
        [(method & ~cosine).nonzero()[:count, 0], (cosine & ~method).nonzero()[:count, 0]]
    )


def top_ten(experiment: Experiment, retrieval: Retrieval, rows: Tensor) -> Figure:
    """The ten best of the gallery by cosine, and by the method that scores pairs."""
    e, blocks = experiment, {}
    for name in dict.fromkeys([COSINE, e.parameters.method]):
        ranking = retrieval.rankings[name]
        index = ranking.index[rows, :10]
        correct = retrieval.gallery_labels[index] == retrieval.query_labels[rows][:, None]
        blocks[name.replace("_", " ")] = (
            [[e.test_pixels[i] for i in e.gallery[row].tolist()] for row in index],
            correct,
            ranking.scores[rows, :10],
        )
    titles = [e.test.class_names[label] for label in retrieval.query_labels[rows].tolist()]
    return galleries.before_after(
        [e.test_pixels[i] for i in e.queries[rows].tolist()],
        blocks,
        titles,
        score="cosine, or the similarity that the method gives the pair",
    )


def against_others(experiment: Experiment, retrieval: Retrieval) -> Figure:
    """Recall of this run, of cosine on the same embeddings, and of finished runs on the same images beside it."""
    p, rows = experiment.parameters, {}
    if p.method != COSINE:
        rows["cosine, learns nothing"] = {
            f"recall@{k}": retrieval.metrics[f"recall@{k}_cosine"] for k in p.ks
        }
    for _, result in others_beside(experiment):
        rows[run_name(result["method"], result["parameters"])] = result["metrics"]
    this = run_name(p.method, vars(p))
    rows[this] = retrieval.metrics
    columns = {f"recall@{k}": f"Recall@{k}" for k in p.ks} | {
        "recall@1_rerank": f"Recall@1, nearest {p.rerank} scored anew"
    }
    return tables.score_table(
        {
            name: {title: metrics[key] for key, title in columns.items() if key in metrics}
            for name, metrics in rows.items()
        },
        this=this,
        title=f"{experiment.test.name}, per cent",
    )


def differences(experiment: Experiment, retrieval: Retrieval) -> dict[str, Interval]:
    """This run's recall@1 less that of others for the same queries, with 95 % intervals of the paired difference over items, by name."""
    p, found = experiment.parameters, {}
    if p.method != COSINE:
        found["cosine, learns nothing"] = retrieval.above_cosine
    for folder, result in others_beside(experiment):
        found[run_name(result["method"], result["parameters"])] = paired_bootstrap(
            retrieval.hits(p.method, 1), load_hits(folder), groups=retrieval.query_labels
        )
    return found


def others_beside(experiment: Experiment) -> list:
    """Finished runs beside this one, without another row for cosine, which learns nothing."""
    return [found for found in sibling_runs(experiment) if found[1]["method"] != COSINE]


def run_name(method: str, parameters: dict) -> str:
    """What tells a run from others in a table."""
    weighed = method not in (COSINE, "pan_unsupervised")
    return ", ".join(
        [
            method,
            *[f"lambda {parameters['attribute_weight']:g}"] * weighed,
            f"seed {parameters['seed']}",
        ]
    )


def agreement(experiment: Experiment, retrieval: Retrieval) -> Figure:
    """Queries answered rightly by cosine and by the method."""
    name = experiment.parameters.method
    return tables.agreement(
        {"first result": (retrieval.hits(COSINE, 1), retrieval.hits(name, 1))},
        COSINE,
        name.replace("_", " "),
    )


def some_pairs(
    experiment: Experiment, retrieval: Retrieval, rows: Tensor
) -> tuple[Tensor, list[str]]:
    """Each query (n,) with the best of the gallery under the method: (n, 2) positions in the test part, and what they are."""
    best = retrieval.rankings[experiment.parameters.method].index[rows, 0]
    same = retrieval.gallery_labels[best] == retrieval.query_labels[rows]
    captions = [
        "its best match, the same item" if right else "its best match, another item"
        for right in same.tolist()
    ]
    return torch.stack([experiment.queries[rows], experiment.gallery[best]], dim=1), captions


def pair_board(experiment: Experiment, pairs: Tensor, captions: list[str]) -> Figure:
    """Pairs (n, 2) of test images with the concepts that make their similarity and Grad-CAM maps."""
    e = experiment
    return draw_pairs(
        e.network,
        e.embedder.backbone,
        lambda images: scaled(e.embedder.embed(images)),
        *(e.test_images(side) for side in pairs.T),
        names_of(e),
        captions,
        e.embedder.backbone,
    )


def concept_importance(experiment: Experiment) -> Figure | None:
    """Which concepts matter in the similarity of queries and the gallery's images of the same item; None without concepts."""
    e = experiment
    if not has_concepts(e.network):
        return None
    pairs = (e.test.labels[e.queries][:, None] == e.test.labels[e.gallery]).nonzero()
    pairs = torch.stack([e.queries[pairs[:, 0]], e.gallery[pairs[:, 1]]], dim=1)
    with torch.no_grad():
        means = concept_means(e.network.head, e.network.encode(e.test_embeddings), pairs)
    names = names_of(e)
    group_of = {name: group for group, members in VOCABULARY.items() for name in members}
    groups = (
        [group_of.get(name, "free") for name in names]
        if group_of.keys() & set(names)
        else concept_groups(names)
    )
    return concepts.importance(names, *means, groups=groups)


def names_of(experiment: Experiment) -> list[str]:
    e = experiment
    return concept_names(e.network.head, e.test.attribute_names) if has_concepts(e.network) else []
