"""The figures of the few-shot experiment: what is drawn from where. How it is drawn is `show`'s business."""

import torch
from matplotlib.figure import Figure
from torch import Tensor

from fieldmarks.evaluation.statistics import Interval, paired_bootstrap
from fieldmarks.experiments.common_figures import (
    classes_at_a_glance,  # noqa: F401, for notebooks
    readable,
    rows_of_many_classes,
)
from fieldmarks.experiments.fewshot import TEST_SEED, Classification, Experiment, sibling_runs
from fieldmarks.experiments.pair_figures import concept_groups, concept_names, has_concepts
from fieldmarks.experiments.pair_figures import pair_board as draw_pairs
from fieldmarks.experiments.pair_heads import concept_means, random_pairs, score_pairs
from fieldmarks.methods.method import pool
from fieldmarks.show import concepts, episodes, tables

SCORES = {"accuracy": "accuracy", "accuracy_validation": "on validation classes"}


def against_others(experiment: Experiment, classification: Classification) -> Figure:
    """The accuracies of this run, of what learns nothing on the same features, and of finished runs on the same episodes beside it."""
    p = experiment.parameters
    rows = {
        f"{name}, learns nothing": {"accuracy": values.mean().item()}
        for name, values in classification.others.items()
    }
    for result, _ in sibling_runs(experiment):
        rows[run_name(result["method"], result["parameters"])] = result["metrics"]
    this = run_name(p.method, vars(p))
    rows[this] = classification.metrics
    columns = {
        name: {title: metrics[key] for key, title in SCORES.items() if key in metrics}
        for name, metrics in rows.items()
    }
    return tables.score_table(
        columns,
        this=this,
        title=f"{experiment.novel.images.name}: {p.ways}-way {p.shots}-shot accuracy, per cent",
    )


def differences(experiment: Experiment, classification: Classification) -> dict[str, Interval]:
    """This run's accuracy less that of others on the same episodes, with 95 % intervals of the paired difference, by name."""
    found = {f"{name}, learns nothing": interval for name, interval in classification.above.items()}
    for result, accuracies in sibling_runs(experiment):
        found[run_name(result["method"], result["parameters"])] = paired_bootstrap(
            classification.accuracies, accuracies
        )
    return found


def run_name(method: str, parameters: dict) -> str:
    """What tells a run from others in a table."""
    words = [method]
    if method not in ("protonet", "cosine", "pan_unsupervised"):
        words.append(f"lambda {parameters['attribute_weight']:g}")
    if parameters["batch_statistics"]:
        words.append("batch statistics")
    return ", ".join([*words, f"seed {parameters['seed']}"])


def episode(
    experiment: Experiment, classification: Classification, number: int, queries: int = 6
) -> Figure:
    """One test episode: the supports of each class and its first queries, right or wrong."""
    e = experiment
    support, query = e.episodes.support[number], e.episodes.query[number]
    chosen = classification.class_scores[number].argmax(1).view(query.shape)[:, :queries]
    names = [
        readable(e.novel.images.class_names[label])
        for label in e.novel.images.labels[support[:, 0]].tolist()
    ]
    pictures = [
        [[e.novel.pixels[i] for i in row] for row in rows.tolist()]
        for rows in (support, query[:, :queries])
    ]
    accuracy = classification.accuracies[number].item()
    return episodes.episode_board(
        *pictures,
        chosen,
        names,
        f"episode {number + 1}: {accuracy:.1%} of its {query.numel()} queries right",
    )


def some_episodes(classification: Classification) -> list[int]:
    """An episode of middling accuracy, and the hardest one."""
    order = classification.accuracies.argsort(stable=True)
    return [int(order[len(order) // 2]), int(order[0])]


def some_pairs(experiment: Experiment, count: int = 2) -> tuple[Tensor, list[str]]:
    """Random novel images, each with the most similar one of its class, then others with the most similar of another class:
    (2 count, 2) positions and what they are."""
    e, labels = experiment, experiment.novel.images.labels
    rows = rows_of_many_classes(labels, 2 * count, e.parameters.seed)
    with torch.no_grad():
        encoded = e.network.encode(e.novel.features)
    pairs, captions = [], []
    for number, row in enumerate(rows.tolist()):
        everyone = torch.arange(len(labels))
        scores = score_pairs(
            e.network.score, encoded, torch.stack([torch.full_like(everyone, row), everyone], dim=1)
        ).cpu()
        same = labels == labels[row]
        wanted = same & (everyone != row) if number < count else ~same
        partner = int(scores.masked_fill(~wanted, -1).argmax())
        names = [readable(e.novel.images.class_names[labels[i]]) for i in (row, partner)]
        pairs.append((row, partner))
        captions.append(f"both {names[0]}" if number < count else f"{names[0]}, and {names[1]}")
    return torch.tensor(pairs), captions


def pair_board(experiment: Experiment, pairs: Tensor, captions: list[str]) -> Figure:
    """Pairs (n, 2) of novel images with the concepts that make their similarity and Grad-CAM maps.

    NOTE the maps, and the scores beside them, are of the backbone in evaluation mode, also where features were embedded with batch
    statistics.
    """
    e = experiment
    return draw_pairs(
        e.network,
        e.backbone,
        lambda images: e.standardise(pool(e.backbone(images)).float()),
        *(e.novel_images(side) for side in pairs.T),
        names_of(e),
        captions,
        e.backbone,
    )


def concept_importance(experiment: Experiment, pairs: int = 4000) -> Figure | None:
    """Which concepts matter in the similarity of novel images of one class; None for a method without concepts."""
    e = experiment
    if not has_concepts(e.network):
        return None
    drawn, same = random_pairs(e.novel.images.labels, pairs, TEST_SEED)
    with torch.no_grad():
        means = concept_means(e.network.head, e.network.encode(e.novel.features), drawn[same == 1])
    names = names_of(e)
    return concepts.importance(names, *means, groups=concept_groups(names))


def names_of(experiment: Experiment) -> list[str]:
    e = experiment
    return (
        concept_names(e.network.head, e.novel.images.attribute_names)
        if has_concepts(e.network)
        else []
    )


def look_alikes(
    experiment: Experiment, classification: Classification
) -> dict[tuple[str, str], int]:
    """How often queries of one class were taken for another, the most frequent first."""
    e, counts = experiment, {}
    labels = e.novel.images.labels[e.episodes.support[:, :, 0]]  # (E, W)
    chosen = classification.class_scores.argmax(2).view(
        len(labels), labels.shape[1], -1
    )  # (E, W, Q)
    for own, given in zip(labels, chosen):
        for way, row in enumerate(given.tolist()):
            for choice in row:
                if choice != way:
                    pair = tuple(
                        readable(e.novel.images.class_names[own[place]]) for place in (way, choice)
                    )
                    counts[pair] = counts.get(pair, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
