"""Few-shot classification in episodes, on cached features: n ways, k shots, and other queries.

Protocol of Chen et al., "A Closer Look at Few-shot Classification", ICLR 2019, as PAN uses it
(Sec. 3): mean accuracy over 600 random episodes of 5 classes, 5 supports and 16 queries each. Its
interval is `statistics.seed_interval(accuracies)`: 600 episodes make Student's factor 1.964, which
the official code rounds to 1.96. NOTE the paper's intervals are over three trained models."""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fieldmarks.checks import at_least
from fieldmarks.labels import integer_labels

# Of Baseline++'s classifier: the settings of Chen et al.'s program, 5 ways, features as they come.
SCALE, STEPS, RATE, DECAY, MOMENTUM = 2.0, 100, 0.01, 0.001, 0.9
ClassScores = Callable[[Tensor, Tensor], Tensor]  # queries (Q, d), supports (W, S, d) -> (Q, W)


class Episodes(NamedTuple):
    support: Tensor  # (E, ways, shots) positions, each row of one class
    query: Tensor  # (E, ways, queries)


def sample_episodes(
    labels, ways: int, shots: int, queries: int, episodes: int, generator: torch.Generator
) -> Episodes:
    """Episodes of distinct classes and images, all equally likely, of labels (N,). ValueError for
    too few classes, a class that is too small, or a number below 1."""
    labels = integer_labels(labels).cpu()
    at_least(1, ways=ways, shots=shots, queries=queries, episodes=episodes)
    classes, sizes = labels.unique(return_counts=True)
    if len(classes) < ways:
        raise ValueError(f"an episode of {ways} classes cannot be drawn from {len(classes)}")
    needed = shots + queries
    if (small := sizes < needed).any():
        few = f"{int(small.sum())} of {len(classes)} classes have fewer than {needed} images"
        first = f"class {classes[small][0]} has {sizes[small][0]}"
        raise ValueError(f"{few} ({shots} shots + {queries} queries): {first}")
    members = labels.argsort(stable=True).split(sizes.tolist())
    drawn = torch.empty(episodes, ways, needed, dtype=torch.int64)
    for episode in drawn:
        for row, c in enumerate(torch.randperm(len(classes), generator=generator)[:ways].tolist()):
            episode[row] = members[c][torch.randperm(len(members[c]), generator=generator)[:needed]]
    return Episodes(drawn[..., :shots], drawn[..., shots:])


def episode_accuracies(features: Tensor, episodes: Episodes, class_scores: ClassScores) -> Tensor:
    """`accuracies` of `episode_scores`: (E,) float64."""
    return accuracies(episode_scores(features, episodes, class_scores))


@torch.no_grad()
def episode_scores(features: Tensor, episodes: Episodes, class_scores: ClassScores) -> Tensor:
    """Scores of features (N, ...) by episode: (E, W * Q, W), queries by class. ValueError for NaN
    among them, or where those of an episode are not (W * Q, W)."""
    scored, (ways, queries) = [], episodes.query.shape[1:]
    for number, (support, query) in enumerate(zip(*episodes, strict=True)):
        scores = class_scores(features[query.flatten()], features[support])
        if scores.shape != (wanted := (ways * queries, ways)):
            raise ValueError(f"class scores must be {wanted}, got {tuple(scores.shape)}")
        if scores.isnan().any():
            raise ValueError(f"class scores of episode {number} hold NaN")
        scored.append(scores)
    return torch.stack(scored)


def accuracies(scores: Tensor) -> Tensor:
    """Share of queries (by class) that score highest for their own, the first of equal ones, as
    classes come in random order: (E, W * Q, W) -> (E,) float64."""
    ways = scores.shape[2]
    truth = torch.arange(ways, device=scores.device).repeat_interleave(scores.shape[1] // ways)
    return (scores.argmax(2) == truth).double().mean(1)


def mean_pair_score(score: Callable[[Tensor, Tensor], Tensor]) -> ClassScores:
    """PAN's classifier: the mean similarity of a query to a class's supports, by a score of
    features (..., d) twice -> (...,) that broadcasts, as `ConceptSimilarity.score`."""
    return lambda query, support: score(query[:, None, None], support).mean(-1)  # (Q, W)


def prototype_scores(query: Tensor, support: Tensor) -> Tensor:
    """ProtoNet (Snell et al. 2017, eq. 1-2): minus the squared distance to a class's mean."""
    return -(query[:, None] - support.mean(1)).square().sum(-1)


def cosine_scores(query: Tensor, support: Tensor) -> Tensor:
    """The mean cosine of a query to a class's supports."""
    query, support = F.normalize(query, dim=-1), F.normalize(support, dim=-1)
    return torch.einsum("qd,wsd->qws", query, support).mean(-1)


def cosine_classifier_scores(query: Tensor, support: Tensor) -> Tensor:
    """Baseline++ (Chen et al. 2019): a new cosine classifier, trained on an episode's supports.

    Its rows start as the classes' means. NOTE the official program starts from random rows and
    goes through the supports in batches of four: here each of STEPS steps takes all of them, so
    that an episode has one answer. Gradients are written out: they are a tenth of the time."""
    ways, shots, _ = support.shape
    images, rows = F.normalize(support.flatten(0, 1), dim=1), F.normalize(support.mean(1), dim=1)
    truth = torch.eye(ways).to(images).repeat_interleave(shots, dim=0)  # (W * S, W)
    # All rows stay in the span of the supports, whose coordinates are much fewer than d.
    basis = torch.linalg.qr(images.T)[0]  # (d, r)
    images, rows, velocity = images @ basis, rows @ basis, None
    for _ in range(STEPS):
        length = rows.norm(dim=1, keepdim=True).clamp(min=1e-12)
        units = rows / length
        excess = (SCALE * images @ units.T).softmax(1) - truth
        slope = SCALE * excess.T @ images / len(images)  # of the mean cross-entropy, by unit rows
        slope = (slope - (slope * units).sum(1, keepdim=True) * units) / length + DECAY * rows
        fresh = velocity is None  # SGD's first step is not dampened
        velocity = slope if fresh else MOMENTUM * velocity + (1 - MOMENTUM) * slope
        rows = rows - RATE * velocity
    return F.normalize(query, dim=1) @ basis @ F.normalize(rows, dim=1).T
