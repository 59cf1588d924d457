"""Fashion compatibility: scores of outfits, their AUC, and filling the blank in an outfit.

Protocols of Vasileva et al., "Learning Type-Aware Embeddings for Fashion Compatibility", ECCV 2018,
as PAN uses them (Sec. 3): an outfit is as good as the mean similarity over all pairs of its items.

What scores pairs is a function of item numbers (P,) and (P,) that returns (P,) similarities, such
as `lambda i, j: head.score(features[i], features[j])`. Every distinct pair is scored once, so what
is offered twice ties with itself. ValueError for NaN or what does not fit."""

from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

Score = Callable[[Tensor, Tensor], Tensor]
BATCH = 4096  # pairs scored at a time: with 2048 features and 463 concepts some 100 MB


def outfit_scores(outfits: Sequence, score: Score, batch: int = BATCH) -> Tensor:
    """Mean similarity over all pairs of items, i before j, of O sequences of two or more item
    numbers: (O,) float64. `score` takes `batch` pairs at a time."""
    pairs, groups = {}, _by_length(_items(outfits, "outfit", least=2))
    for length, (_, items) in groups.items():
        first, second = torch.triu_indices(length, length, offset=1)
        pairs[length] = torch.stack([items[:, first], items[:, second]])  # (2, n, pairs)
    return _means(groups, pairs, score, batch, ())


def choice_scores(questions: Sequence, choices, score: Score, batch: int = BATCH) -> Tensor:
    """Mean similarity of each of the choices, (Q, C) item numbers, to the items of its question, an
    outfit without the blank: (Q, C) float64. `score` takes the question's item first."""
    questions = _items(questions, "question", least=1)
    choices = _items(choices, "list of choices", least=1)
    if len(questions) != len(choices):
        raise ValueError(f"{len(questions)} questions and {len(choices)} lists of choices")
    if len(lengths := sorted({len(each) for each in choices})) > 1:
        raise ValueError(f"every question must have as many choices, got {lengths}")
    choices, pairs, groups = torch.stack(choices), {}, _by_length(questions)
    for length, (rows, items) in groups.items():
        sides = torch.broadcast_tensors(items[:, None], choices[rows][:, :, None])
        pairs[length] = torch.stack(sides)  # (2, n, C, length)
    return _means(groups, pairs, score, batch, (choices.shape[1],))


def fill_in_blank_hits(scores: Tensor, answers) -> Tensor:
    """Chance that the best choice is right: (Q, C), positions (Q,) -> (Q,) float64; 1/t where it is
    one of t with the highest score. NOTE in the public question files the right choice always comes
    first, so argmax would credit every tie: a constant score would earn 100 %."""
    answers = torch.as_tensor(answers, device=scores.device)
    if scores.ndim != 2 or answers.shape != scores.shape[:1]:
        shapes = f"{tuple(scores.shape)} and {tuple(answers.shape)}"
        raise ValueError(f"scores (Q, C) need answers (Q,), got shapes {shapes}")
    if len(bad := scores.isnan().any(1).nonzero()):
        raise ValueError(f"scores hold NaN, first at question {int(bad[0])}")
    last = scores.shape[1] - 1
    if len(answers) and (answers.min() < 0 or answers.max() > last):
        ends = f"{answers.min()} to {answers.max()}"
        raise ValueError(f"answers must lie between 0 and {last}, got {ends}")
    best = scores == scores.amax(dim=1, keepdim=True)
    return best.gather(1, answers[:, None])[:, 0].double() / best.sum(dim=1)


def area_under_curve(scores, labels) -> float:
    """Area under the ROC curve of scores (N,) and labels (N,) of 1 and 0, from ranks (Mann &
    Whitney 1947): the chance that a positive scores above a negative, a tie counting half."""
    scores = torch.as_tensor(scores)
    labels = labels if isinstance(labels, Tensor) else np.asarray(labels)
    if scores.ndim != 1 or tuple(scores.shape) != tuple(labels.shape):
        shapes = f"{tuple(scores.shape)} and {tuple(labels.shape)}"
        raise ValueError(f"scores and labels must both be (N,), got {shapes}")
    if len(bad := scores.isnan().nonzero()):
        raise ValueError(f"{len(bad)} of {len(scores)} scores are NaN, first at {int(bad[0])}")
    if ((labels != 0) & (labels != 1)).any():
        raise ValueError("labels must be 1 (positive) or 0 (negative)")
    labels = torch.as_tensor(labels, device=scores.device)
    positive = labels == 1
    positives, negatives = int(positive.sum()), int((~positive).sum())
    if not positives or not negatives:
        counts = f"{positives} positives and {negatives} negatives"
        raise ValueError(f"the area needs both kinds, got {counts}")
    _, place, counts = scores.unique(return_inverse=True, return_counts=True)
    doubled_rank = 2 * counts.cumsum(0) - counts + 1  # twice each value's mean rank, whole numbers
    above = int(doubled_rank[place[positive]].sum()) - positives * (positives + 1)
    return above / (2 * positives * negatives)


def areas_under_curves(scores: Tensor, labels: Tensor) -> Tensor:
    """`area_under_curve` of each column of (N, M) scores, on rows whose label (N, M) is 1 or 0, not
    NaN: (M,) float64, NaN for columns that lack either."""
    areas = torch.full(scores.shape[1:], torch.nan, dtype=torch.float64)
    for number, (column, label) in enumerate(zip(scores.T, labels.T, strict=True)):
        known = ~label.isnan()
        if 0 < label[known].sum() < known.sum():
            areas[number] = area_under_curve(column[known], label[known])
    return areas


def mean_area_under_curves(scores: Tensor, labels: Tensor) -> float:
    """Mean of `areas_under_curves`; columns that lack either are left out."""
    areas = areas_under_curves(scores, labels)
    if areas.isnan().all():
        raise ValueError("no column has positives and negatives: there is no area")
    return areas.nanmean().item()


def auc_interval(
    scores: Tensor, labels: Tensor, resamples: int = 2000, level: float = 0.95, seed: int = 0
) -> list[float]:
    """Both ends of the percentile bootstrap interval of the area, positives and negatives apart."""
    rng, areas = np.random.default_rng(seed), np.empty(resamples)
    values, place = np.unique(scores.numpy(), return_inverse=True)
    sides = [place[labels.numpy() == kind] for kind in (1, 0)]
    for number in range(resamples):
        drawn = [rng.choice(side, len(side)) for side in sides]
        positive, negative = (np.bincount(side, minlength=len(values)) for side in drawn)
        below = negative.cumsum() - negative / 2  # negatives beneath a value, its own counting half
        areas[number] = (positive * below).sum() / (len(sides[0]) * len(sides[1]))
    return np.quantile(areas, [(1 - level) / 2, (1 + level) / 2]).tolist()


def _items(groups: Sequence, what: str, least: int) -> list[Tensor]:
    groups = [torch.as_tensor(group) for group in groups]
    if not groups:
        raise ValueError(f"there is no {what}")
    for number, group in enumerate(groups):
        if group.ndim != 1 or len(group) < least or group.is_floating_point():
            given = f"{least} or more item numbers, got {group.tolist()}"
            raise ValueError(f"{what} {number} must be a row of {given}")
    return groups


def _by_length(groups: list[Tensor]) -> dict[int, tuple[Tensor, Tensor]]:
    """{length: (which groups (n,), their items (n, length))}."""
    rows = defaultdict(list)
    for row, group in enumerate(groups):
        rows[len(group)].append(row)
    items = {n: torch.stack([groups[row] for row in which]) for n, which in rows.items()}
    return {n: (torch.tensor(which), items[n]) for n, which in rows.items()}


def _means(groups: dict, pairs: dict, score: Score, batch: int, shape: tuple) -> Tensor:
    """Score all pairs and average over the last dimension: (rows in all groups, *shape)."""
    flat = torch.cat([each.flatten(1) for each in pairs.values()], dim=1)  # (2, P)
    if flat.min() < 0:
        raise ValueError(f"item numbers count from 0, got {int(flat.min())}")
    items = int(flat.max()) + 1
    number, place = (flat[0] * items + flat[1]).unique(return_inverse=True)
    scores = torch.empty(len(number), dtype=torch.float64)
    with torch.no_grad():
        for part, out in zip(number.split(batch), scores.split(batch), strict=True):
            scored = score(part // items, part % items)
            if scored.shape != part.shape:
                given = f"{len(part)} pairs, got shape {tuple(scored.shape)}"
                raise ValueError(f"score must return one number for each of {given}")
            out.copy_(scored)
    if len(bad := number[scores.isnan()]):
        first = f"first items {int(bad[0]) // items} and {int(bad[0]) % items}"
        raise ValueError(f"{len(bad)} of {len(scores)} pairs score NaN, {first}")
    means = torch.empty(sum(len(rows) for rows, _ in groups.values()), *shape, dtype=torch.float64)
    values = scores[place].split([each[0].numel() for each in pairs.values()])
    for (rows, _), each, value in zip(groups.values(), pairs.values(), values, strict=True):
        means[rows] = value.view(each.shape[1:]).mean(-1)
    return means
