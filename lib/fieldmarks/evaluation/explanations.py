"""How right explanations are, against pairs of pictures of which it is known what differs.

A counterfactual twin is a picture again with one part of the bird exchanged. Which pixels changed
is known, and by how much a network's similarity to the query falls. Maps (N, H, W) of what makes N
pictures similar to their queries are scored picture by picture, so that scores (N,) float64 can be
averaged with intervals and compared in pairs. A score is NaN where a picture cannot tell, and such
pictures are left out and counted. Beside every score belong those of `references`. Where pictures
are photographs, and have no twins, `near_parts` asks for less.

As in Hesse et al., "FunnyBirds", ICCV 2023 (correctness, contrastivity), Williford et al.,
"Explainable Face Recognition", ECCV 2020 (maps on edited pictures), Zhang et al., "Top-Down Neural
Attention by Excitation Backprop", ECCV 2016 (pointing) and Adebayo et al., "Sanity Checks for
Saliency Maps", NeurIPS 2018 (`sanity`). ValueError for shapes that do not fit, and maps that hold
NaN or infinity, or, for shares of a map, values below 0."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain, combinations
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fieldmarks.checks import at_least, one_of, positive
from fieldmarks.evaluation.statistics import bootstrap_interval, bootstrap_p, holm
from fieldmarks.random import seeded

DIGITS = 9  # to which means over parts are compared: beyond lies what rounding leaves of a tie


# ---- against what changed


def pointing(maps: Tensor, changed: Tensor) -> Tensor:
    """The pointing game: 1 where the map's maximum lies in what changed, else 0; both (N, H, W).
    Of tied maxima each counts its share, so that a flat or empty map scores what a random place
    would. NaN where nothing changed."""
    heat, there = _rows(maps, changed)
    peaks = heat == heat.amax(1, keepdim=True)
    hits = (peaks * there).sum(1) / peaks.sum(1)
    return torch.where(there.sum(1) > 0, hits, torch.nan)


def mass(maps: Tensor, changed: Tensor, bird: Tensor) -> Tensor:
    """The share of the map that lies in what changed, over what changed as a share of the bird, all
    (N, H, W): 1 for a map that is flat on the bird and 0 beside it. NaN for an empty map, and where
    nothing changed or there is no bird."""
    heat, there, of_bird = _rows(maps, changed, bird)
    if (heat < 0).any():
        raise ValueError("maps must be at least 0 everywhere: a share of them is asked for")
    inside = (heat * there).sum(1) / heat.sum(1)
    area = there.sum(1) / of_bird.sum(1)
    known = (heat.sum(1) > 0) & (area > 0) & area.isfinite()
    return torch.where(known, inside / area, torch.nan)


def correctness(maps: Tensor, parts: Tensor, changes: Tensor) -> Tensor:
    """Spearman's correlation, over parts of a picture, of the map's mean in a part with how far the
    similarity falls when the part is exchanged, for each of its pixels.

    maps: (N, H, W), of either sign.  parts: (N, P, H, W) bool.  changes: (N, P), see
    `similarity_changes`. Parts without a pixel and those whose change is NaN are left out. Equal
    values share their ranks. 0 for a map that tells no part from another; NaN with fewer than 3
    parts, and where all changes are equal."""
    if parts.ndim != 4 or parts.shape[:1] + parts.shape[2:] != maps.shape:
        shapes = f"{tuple(maps.shape)} and {tuple(parts.shape)}"
        raise ValueError(f"maps must be (N, H, W) and parts (N, P, H, W), got {shapes}")
    if changes.shape != parts.shape[:2]:
        given = f"got {tuple(changes.shape)}"
        raise ValueError(f"changes must be {tuple(parts.shape[:2])}, one for each part, {given}")
    (heat,), scores = _rows(maps), []
    for row, masks, change in zip(heat, parts.cpu(), changes.detach().cpu().double(), strict=True):
        masks = masks.flatten(1).double()  # (P, H*W)
        pixels = masks.sum(1)
        seen = (pixels > 0) & ~change.isnan()
        density, fall = (x[seen] / pixels[seen] for x in (masks @ row, change))
        if len(fall) < 3 or _flat(fall):
            scores.append(torch.nan)
        else:
            scores.append(0.0 if _flat(density) else _spearman(density[None], fall[None])[0])
    return torch.tensor(scores, dtype=torch.float64)


def spread(maps: Tensor, parts: Tensor) -> Tensor:
    """Over how many parts of a picture a map is spread, as a share of those that are there: the
    exponential of the entropy of its means in them, (N, H, W) and (N, P, H, W) bool -> (N,) in
    (0, 1], 1 where all are equal. NaN where the map is 0 in every part, or there is none."""
    if (maps < 0).any():
        raise ValueError("maps must be at least 0 everywhere: a share of them is asked for")
    heat, masks = maps.detach().cpu().double(), parts.cpu().double()
    pixels = masks.sum((2, 3))  # (N, P)
    density = torch.einsum("nyx,npyx->np", heat, masks) / pixels.clamp(min=1)
    shares = density / density.sum(1, keepdim=True)
    entropy = torch.special.entr(shares).sum(1)
    return entropy.exp() / (pixels > 0).sum(1)


def similarity_changes(query: Tensor, match: Tensor, exchanged: Tensor) -> Tensor:
    """How far the cosine to the query falls when a part of the match is exchanged, (N, P), from
    embeddings of queries (N, D), matches (N, D) and matches with each part exchanged (N, P, D)."""
    before = F.cosine_similarity(query.double(), match.double(), dim=1)
    after = F.cosine_similarity(query[:, None].double(), exchanged.double(), dim=2)
    return before[:, None] - after


def named(before: Tensor, after: Tensor, exchanged: Tensor) -> Tensor:
    """The rank, from 1, of the exchanged attribute among concepts by how much their contribution to
    the similarity changed. Contributions before and after are (N, M), exchanged (N, M) bool; of
    several (the value that left and the one that came) the first counts, and equal changes share
    their rank. NaN where no concept stands for what was exchanged, or nothing changed."""
    if not before.shape == after.shape == exchanged.shape or before.ndim != 2:
        shapes = ", ".join(str(tuple(x.shape)) for x in (before, after, exchanged))
        raise ValueError(f"before, after and exchanged must be (N, M), got {shapes}")
    change = (after.double() - before.double()).abs()
    if change.isnan().any():
        raise ValueError("contributions hold NaN: give those of concepts that are known")
    exchanged = exchanged.bool()
    best = change.masked_fill(~exchanged, -1).amax(1, keepdim=True)
    above, equal = (change > best) & ~exchanged, (change == best) & ~exchanged
    rank = 1 + above.sum(1) + equal.sum(1) / 2
    known = exchanged.any(1) & (change.amax(1) > 0)
    return torch.where(known, rank.double(), torch.nan)


# ---- against parts that people marked


class NearParts(NamedTuple):
    """Each (N,) float64, NaN for a picture without a visible part or without a box."""

    hit: Tensor  # 1 where the map's maximum is near a part, else 0
    distance: Tensor  # of the maximum to the nearest part, in longer sides of the box


def near_parts(maps: Tensor, parts: Tensor, boxes: Tensor, *, within: float = 0.1) -> NearParts:
    """Whether maps point at parts, for photographs, of which nobody knows what an exchange would
    change. A weak check: a part is marked whether or not it tells the species apart, and parts lie
    so close on a bird that many places are near one.

    maps: (N, H, W).  parts: (N, P, 2), x y in pixels of the map from its upper left corner; one
    that is NaN or outside the map is not visible.  boxes: (N, 4) of the objects, x y width height
    as in `ImageSet`, of which only the longer side matters.  within: how near is near, in longer
    sides. Tied maxima count their share and their mean, so that a flat map scores what a random
    place would."""
    positive(within=within)
    (heat,) = _rows(maps)
    count, height, width = maps.shape
    if parts.ndim != 3 or len(parts) != count or parts.shape[2] != 2 or boxes.shape != (count, 4):
        shapes = f"{tuple(parts.shape)} and {tuple(boxes.shape)}"
        raise ValueError(f"parts must be ({count}, P, 2) and boxes ({count}, 4), got {shapes}")
    parts, sides = parts.detach().cpu().double(), boxes.detach().cpu()[:, 2:].double().amax(1)
    # NaN is never inside
    inside = ((parts >= 0) & (parts <= torch.tensor([width, height]))).all(2)  # (N, P)
    scores = torch.full((count, 2), torch.nan, dtype=torch.float64)
    for row in (inside.any(1) & (sides > 0)).nonzero()[:, 0].tolist():
        peaks = (heat[row] == heat[row].max()).nonzero()[:, 0]
        middles = torch.stack([peaks % width, peaks // width], dim=1) + 0.5  # (K, 2), of the pixels
        apart = (middles[:, None] - parts[row, inside[row]]).norm(dim=2).amin(1) / sides[row]
        scores[row] = torch.stack([(apart <= within).double().mean(), apart.mean()])
    return NearParts(*scores.unbind(1))


# ---- of maps alone


def contrast(maps: Tensor, others: Tensor) -> Tensor:
    """1 - Pearson's correlation of the maps of one picture for two matches, (N, H, W) twice, in
    [0, 2]: 0 where a map does not ask what it explains. NaN where only one of two is flat."""
    heat, other = _rows(maps, others)
    same = (heat == other).all(1)
    return torch.where(same, 0.0, 1 - _pearson(heat, other))


def sanity(
    explain: Callable[[], Tensor], network: nn.Module, *, steps: int = 5, seed: int = 0
) -> Tensor:
    """Spearman's correlation over pixels of the maps with those of the network randomised layer by
    layer, from its output down (Adebayo et al. 2018, cascading): (steps, N), the last with all
    layers. Near 1, a map shows the picture and not what the network has learnt.

    explain: gives maps (N, H, W) of the network as it is when called.  network: all that they run
    through; its weights and buffers are put back, also when `explain` raises.  steps: stages of
    about as many layers.  A map that has become flat or NaN counts 0; NaN where the first is flat.

    NOTE a layer's weights are shuffled within each of its tensors, where the paper draws them anew:
    that works for layers of any kind and keeps the scale of what follows.
    ValueError: fewer than 1 step, or more than there are layers."""
    layers = [module for module in network.modules() if any(True for _ in module.parameters(False))]
    at_least(1, steps=steps)
    if steps > len(layers):
        raise ValueError(f"{steps} steps, but the network has {len(layers)} layers with weights")
    generator, correlations, done = seeded(seed, 52), [], 0
    with _kept(network):
        (first,) = _rows(explain())
        for step in range(1, steps + 1):
            upto = round(step * len(layers) / steps)
            for layer in layers[::-1][done:upto]:
                for weights in layer.parameters(recurse=False):
                    _shuffle(weights, generator)
            done = upto
            now = explain().detach().cpu().flatten(1).double()
            correlation = _spearman(first, now.nan_to_num()).nan_to_num()
            correlations.append(torch.where(_flat(first), torch.nan, correlation))
    return torch.stack(correlations)


# ---- what stands beside a score


def references(changed: Tensor, bird: Tensor, *, width: float = 0.2) -> dict[str, Tensor]:
    """Maps (N, H, W) float32 that no network made, from masks (N, H, W). Floors: "uniform";
    "middle", a Gaussian in the middle of the picture (width: its standard deviation over the
    shorter side); "outline", all of the bird. Ceiling: "changed"; of `correctness` it is `painted`.
    """
    positive(width=width)
    _same_shape(changed, bird)
    height, sides = changed.shape[1], torch.tensor(changed.shape[1:])
    lines = [
        torch.exp(-0.5 * ((torch.arange(n) - (n - 1) / 2) / (width * sides.min())) ** 2)
        for n in sides.tolist()
    ]
    middle = (lines[0].view(height, 1) * lines[1]).expand(changed.shape)
    return {
        "uniform": torch.ones(changed.shape),
        "middle": middle,
        "outline": bird.cpu().float(),
        "changed": changed.cpu().float(),
    }


def painted(parts: Tensor, changes: Tensor) -> Tensor:
    """Each part (N, P, H, W) in the change for each of its pixels (N, P): (N, H, W) of either sign,
    the map whose `correctness` is 1 where parts do not overlap. Unknown changes are left blank."""
    pixels = parts.flatten(2).sum(2).clamp(min=1)
    return torch.einsum("npyx,np->nyx", parts.double(), (changes.double() / pixels).nan_to_num())


class Score(NamedTuple):
    mean: float
    low: float
    high: float
    pairs: int  # that the score is of
    left_out: int  # of which the score is NaN


class Difference(NamedTuple):
    first: str
    second: str
    mean: float  # of first - second
    low: float
    high: float
    p: float  # two-sided, corrected for the number of comparisons by Holm's step-down
    pairs: int


def summarise(values, *, groups=None, level: float = 0.95, **drawing) -> Score:
    """The mean of scores (N,) and its bootstrap interval over pictures, as `bootstrap_interval`;
    groups (N,) where twins share a picture. Without any score all three are NaN."""
    (kept,), groups, left_out = _known([values], groups)
    if not len(kept):
        return Score(torch.nan, torch.nan, torch.nan, 0, left_out)
    interval = bootstrap_interval(kept, groups=groups, level=level, **drawing)
    return Score(*interval, len(kept), left_out)


def compare(
    scores: Mapping[str, Tensor],
    against: str | None = None,
    *,
    groups=None,
    level: float = 0.95,
    **drawing,
) -> list[Difference]:
    """Paired bootstrap tests, of every explainer with every other, or of all with one: scores (N,)
    of the same pictures by name, of which those count that both have. The rest as `summarise`;
    without any such picture a difference is NaN and p is 1."""
    if against is None:
        pairs = list(combinations(scores, 2))
    else:
        one_of("against", against, scores)
        pairs = [(name, against) for name in scores if name != against]
    found, p_values = [], []
    for pair in pairs:
        (first, second), shared, _ = _known([scores[name] for name in pair], groups)
        interval, p = (torch.nan, torch.nan, torch.nan), 1.0
        if len(first):
            interval = bootstrap_interval(first - second, groups=shared, level=level, **drawing)
            p = min(2 * min(bootstrap_p(first - second, groups=shared, **drawing)), 1.0)
        found.append((*pair, *interval, len(first)))
        p_values.append(p)
    corrected = holm(p_values) if pairs else []
    return [Difference(*row[:5], p, row[5]) for row, p in zip(found, corrected, strict=True)]


# ---- details


def _known(scores: list, groups) -> tuple[list[Tensor], np.ndarray | None, int]:
    """Scores (N,), and groups, of the pictures that have all of them, and how many have not."""
    scores = [torch.as_tensor(values).double().cpu() for values in scores]
    if any(values.shape != scores[0].shape or values.ndim != 1 for values in scores):
        shapes = ", ".join(str(tuple(values.shape)) for values in scores)
        raise ValueError(f"scores must be (N,), of the same pictures, got {shapes}")
    known = ~torch.stack(scores).isnan().any(0)
    if groups is not None:
        groups = np.asarray(groups)
        if groups.shape != known.shape:
            raise ValueError(f"there are {groups.size} groups for {len(known)} pictures")
        groups = groups[known.numpy()]
    return [values[known] for values in scores], groups, int((~known).sum())


def _rows(maps: Tensor, *others: Tensor) -> list[Tensor]:
    """(N, H, W) each -> (N, H*W) float64 on the CPU."""
    if maps.ndim != 3 or 0 in maps.shape:
        raise ValueError(f"maps must be (N, H, W), not empty, got {tuple(maps.shape)}")
    for other in others:
        _same_shape(maps, other)
    rows = [values.detach().cpu().flatten(1).double() for values in (maps, *others)]
    for values in rows:
        if not values.isfinite().all():
            raise ValueError("maps hold NaN or infinity: explain a network that gives finite maps")
    return rows


def _same_shape(maps: Tensor, masks: Tensor) -> None:
    if maps.ndim != 3 or maps.shape != masks.shape:
        shapes = f"{tuple(maps.shape)} and {tuple(masks.shape)}"
        raise ValueError(f"maps and masks must be of one shape (N, H, W), got {shapes}")


def _flat(values: Tensor) -> Tensor:
    """Whether all values along the last dimension are the same, but for rounding."""
    spread = values.amax(-1) - values.amin(-1)
    return spread <= 10.0**-DIGITS * values.abs().amax(-1)


def _pearson(a: Tensor, b: Tensor) -> Tensor:
    """Row by row, (N, K) twice -> (N,); NaN where one is flat."""
    correlation = F.cosine_similarity(
        a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True), dim=1, eps=0
    )
    return torch.where(_flat(a) | _flat(b), torch.nan, correlation)


def _spearman(a: Tensor, b: Tensor) -> Tensor:
    """Row by row, (N, K) twice -> (N,), equal values sharing their ranks; NaN where one is flat."""
    from scipy.stats import rankdata  # takes half a second, which few need

    scale = [values / values.abs().amax(1, keepdim=True).clamp(min=1e-300) for values in (a, b)]
    ranks = [torch.from_numpy(rankdata(x.numpy().round(DIGITS), axis=1)) for x in scale]
    return _pearson(*ranks)


def _shuffle(weights: Tensor, generator: torch.Generator) -> None:
    with torch.no_grad():
        order = torch.randperm(weights.numel(), generator=generator).to(weights.device)
        weights.copy_(weights.flatten()[order].view_as(weights))


@contextmanager
def _kept(network: nn.Module) -> Iterator[None]:
    """Weights and buffers are what they were when this ends."""
    tensors = list(chain(network.parameters(), network.buffers()))
    before = [tensor.detach().clone() for tensor in tensors]
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, value in zip(tensors, before, strict=True):
                tensor.copy_(value)
