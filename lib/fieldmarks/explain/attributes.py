"""Which patches fire each attribute dimension most: the numbers behind the board of patches.

A dimension that stands for a visible attribute is quiet on most patches and loud on a few, so they
are chosen by how far their loudest patch rises above the rest. ValueError for wrong shapes, no
images, or what is out of range."""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from fieldmarks.checks import one_of

# All responses (N, P, k), or batches (n, P, k) in order, or a function that gives such batches.
Responses = Tensor | Iterable[Tensor] | Callable[[], Iterable[Tensor]]


class TopPatches(NamedTuple):
    scores: Tensor  # (dimensions, count) as the others, best first
    image: Tensor  # index of the image
    patch: Tensor  # index of the patch within it


def top_patches(responses: Responses, dimensions, count: int = 8) -> TopPatches:
    """The `count` patches that fire each dimension (indices into k) most, at most one per image;
    equal scores: lower image, then lower patch. ValueError for NaN among their responses."""
    best: tuple[Tensor, ...] = ()
    dimensions, seen = torch.as_tensor(dimensions), 0
    for batch in _batches(responses):
        if int(dimensions.min()) < 0 or int(dimensions.max()) >= batch.shape[2]:
            given = f"{batch.shape[2] - 1}, got {dimensions.tolist()}"
            raise ValueError(f"dimensions must lie between 0 and {given}")
        chosen = batch[:, :, dimensions.to(batch.device)]  # (n, P, d)
        if chosen.isnan().any():
            raise ValueError(f"responses hold NaN, in the batch that starts at image {seen}")
        scores, patch = (part.T.cpu() for part in chosen.max(dim=1))  # of each image, (d, n)
        parts = scores, torch.arange(seen, seen + len(batch)).expand_as(patch), patch
        if best:
            parts = [torch.cat(pair, dim=1) for pair in zip(best, parts, strict=True)]
        order = parts[0].sort(dim=1, descending=True, stable=True).indices[:, :count]
        best = tuple(part.gather(1, order) for part in parts)
        seen += len(batch)
    return TopPatches(*best)


def selective_dimensions(responses: Responses, count: int, *, by: str = "peak") -> Tensor:
    """The `count` dimensions that tell patches apart best, most selective first: (count,) int64;
    by the "peak", the largest response in standard deviations above the mean, or "variance"."""
    one_of("by", by, ("peak", "variance"))
    number, mean, squares, peak = 0, *torch.zeros(2), None  # squares: of distances from the mean
    for batch in _batches(responses):
        flat = batch.flatten(0, 1).double().cpu()  # (n * P, k)
        # Chan et al. 1979: merge two means and two sums of squares without losing digits
        shift, share = flat.mean(dim=0) - mean, len(flat) / (number + len(flat))
        squares = squares + flat.var(dim=0, correction=0) * len(flat) + shift**2 * number * share
        mean, number = mean + shift * share, number + len(flat)
        peak = flat.amax(dim=0) if peak is None else torch.maximum(peak, flat.amax(dim=0))
    if not 1 <= count <= len(peak):
        raise ValueError(f"count must lie between 1 and the {len(peak)} dimensions, got {count}")
    variance = squares / number
    score = variance if by == "variance" else (peak - mean) / variance.sqrt()
    score = torch.where(variance > 0, score, -torch.inf)  # a dead dimension is never selective
    return score.sort(descending=True, stable=True).indices[:count]


def _batches(responses: Responses) -> Iterator[Tensor]:
    if isinstance(responses, Tensor):
        responses = responses.split(256)
    elif callable(responses):
        responses = responses()
    seen = 0
    for batch in responses:
        if batch.ndim != 3 or 0 in batch.shape[1:]:
            shape = tuple(batch.shape)
            raise ValueError(f"responses must be (images, patches, dimensions), got {shape}")
        seen += len(batch)
        if len(batch):
            yield batch.detach()
    if not seen:
        raise ValueError("there are no images, so there are no responses")
