"""The figures of the outfits experiment: what is drawn from where. How it is drawn is `show`'s business."""

from itertools import combinations

import torch
from fieldguide.garments.attributes import VOCABULARY
from matplotlib.figure import Figure
from torch import Tensor

from fieldmarks.experiments.common_figures import shown
from fieldmarks.experiments.outfits import TESTS, Answers, Experiment, blank_hits, sibling_runs
from fieldmarks.experiments.pair_heads import concept_means
from fieldmarks.explain.gradcam import dimension_map
from fieldmarks.methods.method import pool
from fieldmarks.methods.pan import SimilarityHead
from fieldmarks.random import seeded
from fieldmarks.show import concepts, galleries, maps, tables

SCORES = {
    "fitb": "FITB original",
    "auc": "AUC original",
    "fitb_resampled": "FITB resampled",
    "auc_resampled": "AUC resampled",
}
TITLES = {"test": "original questions", "test resampled": "resampled questions"}


def outfits_at_a_glance(experiment: Experiment, count: int = 12) -> Figure:
    """Training outfits drawn at random."""
    outfits = experiment.outfits.outfits["train"]
    rows = torch.randperm(len(outfits), generator=seeded(experiment.parameters.seed, 8))[
        :count
    ].tolist()
    strips = [[experiment.pixels[item] for item in outfits[row][:6]] for row in rows]
    return galleries.class_board(strips, [f"training outfit {row + 1}" for row in rows], columns=2)


def against_others(experiment: Experiment, name: str, answers: Answers) -> Figure:
    """The metrics of this run, and of the finished runs with its seed and K on the same outfits beside it."""
    p, rows = experiment.parameters, {}
    for _, result in sibling_runs(experiment):
        if all(result["parameters"][key] == getattr(p, key) for key in ("seed", "neighbours")):
            rows[result["method"]] = result["metrics"]
    rows[name] = answers.metrics
    return tables.score_table(
        {method: _columns(metrics) for method, metrics in rows.items()},
        this=name,
        title=f"{experiment.outfits.name}, seed {p.seed}, K = {p.neighbours}, in per cent",
    )


def what_the_graph_tells(name: str, answers: Answers) -> Figure:
    """The same metrics with nothing but the question in sight, with an edge about each item, and of the edges' number alone."""
    rows = {
        f"{name}, K = 0": "_k0",
        f"{name}, K = 1": "_k1",
        "number of edges alone, K = 1": "_degree",
    }
    return tables.score_table(
        {row: _columns(answers.metrics, end) for row, end in rows.items()},
        title="what neighbours tell, in per cent",
    )


def k_agreement(experiment: Experiment, answers: Answers) -> Figure:
    """Blanks filled rightly with K = 0 and with K = 1; of equal scores at the top none is right."""
    panels = {}
    for part in TESTS:
        if (part, 0) in answers.choices:
            panels[TITLES[part]] = tuple(
                blank_hits(experiment, part, answers.choices[part, k]) > 0.5 for k in (0, 1)
            )
    return tables.agreement(panels, "K = 0", "K = 1")


def filled_blanks(
    experiment: Experiment, answers: Answers, part: str = "test", right: int = 3, wrong: int = 3
) -> Figure:
    """Questions drawn at random among those answered rightly and those answered wrongly."""
    e, k = experiment, experiment.parameters.neighbours
    scores = answers.choices[part, k]
    hits = blank_hits(e, part, scores) > 0.5
    order = torch.randperm(len(hits), generator=seeded(e.parameters.seed, 9))
    rows, titles = [], []
    for kind, count, word in ((True, right, "right"), (False, wrong, "wrong")):
        for row in order[hits[order] == kind][:count].tolist():
            q = e.outfits.blanks[part][row]
            rows.append(
                concepts.Blank(
                    [e.pixels[i] for i in q.question],
                    min(max(q.blank_position - 1, 0), len(q.question)),
                    [e.pixels[i] for i in q.choices],
                    scores[row].tolist(),
                    q.answer,
                )
            )
            titles.append(f"question {row + 1}, answered {word}")
    return concepts.question_rows(rows, titles)


def some_pairs(experiment: Experiment, count: int = 2) -> tuple[Tensor, list[str]]:
    """Pairs of items drawn at random from true test outfits, then as many from made-up ones: (2 count, 2) and what they are."""
    generator, pairs, captions = seeded(experiment.parameters.seed, 10), [], []
    for label, words in ((1, "from one outfit"), (0, "from a made-up outfit")):
        asked = [q.items for q in experiment.outfits.compatibility["test"] if q.label == label]
        for row in torch.randperm(len(asked), generator=generator)[:count].tolist():
            both = list(combinations(asked[row], 2))
            pairs.append(both[int(torch.randint(len(both), (), generator=generator))])
            captions.append(words)
    return torch.tensor(pairs), captions


def pair_board(experiment: Experiment, pairs: Tensor, captions: list[str]) -> Figure:
    """Pairs (n, 2) of items with the concepts that make their similarity, each item seen alone (K = 0), and two Grad-CAM maps:
    for the similarity, and for the concept that contributes most to it. Of a method without concepts the first maps alone."""
    e = experiment
    first, second = (shown(e.backbone, e.images(side)) for side in pairs.T)
    if not isinstance(e.network.head, SimilarityHead):
        titles = [
            f"{caption} {number // 2 + 1}"
            for number, caption in enumerate(sum([[c, c] for c in captions], []))
        ]
        images = [image for both in zip(first, second) for image in both]
        heat = torch.stack(pair_maps(e, pairs), dim=1).flatten(0, 1)
        return maps.map_grid(
            [("item", images, None), ("what speaks for the pair", images, heat)], titles
        )
    with torch.no_grad():
        _, scores, relevance = e.network.head(
            *(e.network.encode(e.features[side.to(e.device)]) for side in pairs.T)
        )
    contributions, names = scores * relevance, concept_names(e)
    strongest = contributions.argmax(1).cpu()
    columns = [
        ("similarity", *pair_maps(e, pairs)),
        ([names[m] for m in strongest.tolist()], *pair_maps(e, pairs, strongest)),
    ]
    return concepts.pair_board(
        first, second, contributions, relevance, scores, names, captions, columns
    )


def pair_maps(
    experiment: Experiment, pairs: Tensor, concept: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Grad-CAM of pairs (n, 2) of items through the backbone, the encoder and the head, each item seen alone (K = 0).

    Args:
        concept: (n,) of a concept each; without it the target is the similarity.

    Returns:
        maps of the first items and of the second, (n, H, W) on the CPU: where what lies there raises the target.
    """
    e, found = experiment, []
    for own, other in ((0, 1), (1, 0)):
        with torch.no_grad():
            reference = e.network.encode(e.features[pairs[:, other].to(e.device)])

        def respond(images: Tensor) -> Tensor:
            encoded = e.network.encode(e.network.standardise(pool(e.backbone(images)).float()))
            if concept is None:
                return e.network.score(encoded, reference)[:, None]
            return e.network.head.similarity.logits(encoded, reference)[0]

        target = 0 if concept is None else concept
        found.append(dimension_map(respond, e.backbone, e.images(pairs[:, own]), target).cpu())
    return tuple(found)


def concept_importance(experiment: Experiment, part: str = "test") -> Figure:
    """Which concepts matter in the similarity of items that share a true outfit of a part, each item seen alone (K = 0)."""
    e = experiment
    pairs = [pair for outfit in e.outfits.outfits[part] for pair in combinations(outfit, 2)]
    items, place = torch.tensor(pairs).unique(return_inverse=True)
    with torch.no_grad():
        encoded = e.network.encode(e.features[items.to(e.device)])
    means = concept_means(e.network.head, encoded, place)
    names = concept_names(e)
    return concepts.importance(names, *means, groups=groups_of(names))


def concept_names(experiment: Experiment) -> list[str]:
    head = experiment.network.head
    free = head.similarity.concept.out_features - head.attributes - head.none_slot
    return concepts.concept_names(
        (experiment.outfits.attribute_names or [])[: head.attributes], head.none_slot, free
    )


def groups_of(names: list[str]) -> list[str] | None:
    """What the generated wardrobe's attributes are about; None for other vocabularies."""
    known = {name: group for group, members in VOCABULARY.items() for name in members}
    if not known.keys() & set(names):
        return None
    return [known.get(name, "free" if name.startswith("concept ") else "other") for name in names]


def _columns(metrics: dict[str, float], end: str = "") -> dict[str, float]:
    return {title: metrics[name + end] for name, title in SCORES.items() if name + end in metrics}
