"""Retrieval by PAN's similarity: every query against every gallery item, exactly.

The score of a pair (Mishra et al. 2021, eq. 1-3) is no product of two embeddings, so no index can
search it: it needs two linear maps of |q - g|,

    score(q, g) = sum over m of  softmax(W_r |q - g| + b_r)_m  sigmoid(W_c |q - g| + b_c)_m

They are computed in tiles: the differences of some queries and items fit into the cache, and one
matrix product with [W_c; W_r] does nearly all the work. Tiles are padded with zeros, so that copies
of an item score the same to the last bit wherever they lie. `head` has two linear maps `concept`
and `relevance`, and its concepts may have a cosine in them, as `ConceptSimilarity`; features (Q, d)
and (G, d) lie on its device. ValueError for shapes that do not fit, NaN or infinity."""

import torch
from torch import Tensor, nn

from fieldmarks.checks import one_of
from fieldmarks.evaluation.nearest import full_float32, merge_best, stable_topk

TILE = (16, 64)  # queries x gallery items: 1024 differences of 2048 features take 4 MiB in bf16
GPU_TILE = (64, 512)
CHUNK = 2**16  # gallery items whose scores are kept at a time
SHORTLIST = 4  # candidates for each place that are scored again after a search in bf16
Found = tuple[Tensor, Tensor]  # scores and index


@torch.no_grad()
def top_scores(
    head: nn.Module, query: Tensor, gallery: Tensor, k: int, *, dtype: torch.dtype = torch.float32
) -> Found:
    """Scores (Q, k) float32 and index (Q, k) int64 of the k best gallery items of every query, best
    first; equal scores: lower index first. Memory does not grow with Q x G.

    dtype: of the matrix product. torch.bfloat16 is faster where the processor multiplies in it; the
    4 k best (at least 32) are then scored again in float32, so that scores are exact, and ranks
    unless bf16 has lost one of the k best."""
    _check(head, query, gallery)
    if not 1 <= k <= len(gallery):
        raise ValueError(f"k must lie between 1 and the {len(gallery)} gallery items, got {k}")
    one_of("dtype", dtype, (torch.float32, torch.bfloat16))
    exact = dtype == torch.float32
    depth = k if exact else min(max(SHORTLIST * k, 32), len(gallery))
    with full_float32(query.device):
        tiles, parts = _Tiles(head, dtype), []
        for rows in query.split(tiles.shape[0]):
            best = None
            for left in range(0, len(gallery), CHUNK):
                strip = tiles.strip(rows, gallery[left : left + CHUNK])
                values, place = stable_topk(strip, depth)
                best = merge_best(best, (values, left + place), depth) if best else (values, place)
            parts.append(best)
    scores, index = (torch.cat(part) for part in zip(*parts, strict=True))
    if not exact:
        scores, index = rerank(head, query, gallery, index)
    return scores[:, :k], index[:, :k]


@torch.no_grad()
def rerank(head: nn.Module, query: Tensor, gallery: Tensor, candidates: Tensor) -> Found:
    """Each query's candidates, positions in the gallery (Q, C), in order of their score in float32,
    and returned as by `top_scores`."""
    _check(head, query, gallery)
    if candidates.ndim != 2 or len(candidates) != len(query) or candidates.is_floating_point():
        given = f"{candidates.dtype} {tuple(candidates.shape)}"
        raise ValueError(f"candidates must be ({len(query)}, C) positions, got {given}")
    if candidates.numel() and (candidates.min() < 0 or candidates.max() >= len(gallery)):
        ends = f"{candidates.min()} to {candidates.max()}"
        raise ValueError(f"candidates must lie between 0 and {len(gallery) - 1}, got {ends}")
    candidates = candidates.sort(dim=1).values
    with full_float32(query.device):
        scores = _Tiles(head, torch.float32).listed(query, gallery, candidates.flatten())
    scores, order = scores.view(candidates.shape).sort(dim=1, descending=True, stable=True)
    return scores, candidates.gather(1, order)


class _Tiles:
    """The fused weights and the memory of one tile, used again and again."""

    def __init__(self, head: nn.Module, dtype: torch.dtype):
        concept, relevance = head.concept, head.relevance
        device = concept.weight.device
        self.shape = TILE if device.type == "cpu" else GPU_TILE
        pairs, dim = self.shape[0] * self.shape[1], concept.in_features
        self.dim, self.cosine_weight, along = dim, *_cosine(head)
        self.along = torch.zeros(pairs, along, device=device)  # products, whose sum is the cosine
        self.weight = torch.cat((concept.weight, relevance.weight)).to(dtype)  # (2 M, d)
        self.bias = torch.cat((concept.bias, relevance.bias)).float()[:, None]
        self.difference = torch.zeros(pairs, dim, device=device)
        self.factor = self.difference
        if dtype != torch.float32:
            self.factor = torch.empty(pairs, dim, dtype=dtype, device=device)
        self.product = torch.empty(len(self.weight), pairs, dtype=dtype, device=device)
        self.logits = torch.empty(len(self.weight), pairs, device=device)

    def strip(self, query: Tensor, gallery: Tensor) -> Tensor:
        """All pairs of up to a tile's height of queries with items: (q, d), (G, d) -> (q, G)."""
        height, width = self.shape
        scores = torch.empty(height, -(-len(gallery) // width) * width, device=query.device)
        block, along = (part.view(height, width, -1) for part in (self.difference, self.along))
        rows = _padded(query, height)[:, None].float()
        for left in range(0, len(gallery), width):
            items = _padded(gallery[left : left + width], width).float()
            torch.sub(rows[..., : self.dim], items[:, : self.dim], out=block)
            if self.cosine_weight:
                torch.mul(rows[..., self.dim :], items[:, self.dim :], out=along)
            scores[:, left : left + width] = self._score().view(height, width)
        return scores[: len(query), : len(gallery)]

    def listed(self, query: Tensor, gallery: Tensor, candidates: Tensor) -> Tensor:
        """Pairs one by one, as many candidates for each query: (Q, d), (G, d), (Q * C,) -> same."""
        scores = torch.empty(len(candidates), device=query.device)
        each = len(candidates) // len(query)
        owner = torch.arange(len(candidates), device=query.device) // max(each, 1)
        for start in range(0, len(candidates), len(self.difference)):
            part = slice(start, start + len(self.difference))
            filled = self.difference[: len(candidates[part])]
            rows, items = query[owner[part]].float(), gallery[candidates[part]].float()
            torch.sub(rows[:, : self.dim], items[:, : self.dim], out=filled)
            if self.cosine_weight:
                torch.mul(rows[:, self.dim :], items[:, self.dim :], out=self.along[: len(filled)])
            scores[part] = self._score()[: len(filled)]
        return scores

    def _score(self) -> Tensor:
        """Of the differences in the tile: (pairs,). NOTE the difference is rounded to bf16, not the
        features: where two images are alike, that is far less of an error."""
        self.difference.abs_()
        if self.factor is not self.difference:
            self.factor.copy_(self.difference)
        torch.mm(self.weight, self.factor.T, out=self.product)  # (2 M, pairs): halves in one piece
        torch.add(self.product, self.bias, out=self.logits)
        concepts, relevance = self.logits.chunk(2)
        if self.cosine_weight:
            concepts.add_(self.along.sum(1).sub_(0.5), alpha=self.cosine_weight)
        relevance.sub_(relevance.amax(0)).exp_()
        return concepts.sigmoid_().mul_(relevance).sum(0).div_(relevance.sum(0)).clamp_(max=1)


def _padded(rows: Tensor, count: int) -> Tensor:
    return nn.functional.pad(rows, (0, 0, 0, count - len(rows)))


def _cosine(head: nn.Module) -> tuple[float, int]:
    return getattr(head, "cosine_weight", 0.0), getattr(head, "cosine_dim", 0)


def _check(head: nn.Module, query: Tensor, gallery: Tensor) -> None:
    dim = head.concept.in_features + _cosine(head)[1]
    for name, features in (("query", query), ("gallery", gallery)):
        if features.ndim != 2 or len(features) == 0 or features.shape[1] != dim:
            fits = f"a non-empty (N, {dim}) matrix, as the head"
            raise ValueError(f"{name} must be {fits}, got shape {tuple(features.shape)}")
        for start in range(0, len(features), CHUNK):
            if not features[start : start + CHUNK].isfinite().all():
                raise ValueError(f"{name}: features hold NaN or infinity, from row {start} on")
