"""What unnamed attributes tell, in nats: VAPNet's softmax over k as a random draw of one.

Responses (N, M, k) are the distributions that M views of N images give, each row adding up to 1.
Mutual information of the attribute drawn and of whatever else is known about the view it is drawn
for is H(mean of all) - mean H(mean of those alike): 0 where knowing it tells nothing."""

import torch
from torch import Tensor

from fieldmarks.labels import integer_labels
from fieldmarks.random import seeded

SHUFFLES = 8  # how often labels are permuted to see what chance alone would tell


def entropy(distribution: Tensor) -> Tensor:
    """-sum p log p over the last dimension, in nats: (..., k) -> (...) float64."""
    p = distribution.double()
    return -torch.special.xlogy(p, p).sum(-1)


def attribute_information(
    responses: Tensor, labels, attributes: Tensor | None = None, seed: int = 0
) -> dict[str, float]:
    """Entropies and mutual informations of responses (N, M, k), in nats.

    Args:
        labels: (N,) classes of the images.
        attributes: (N, A) what people annotated: 1, 0 or a fraction, NaN unknown; or None.
        seed: of the permutations behind "... by chance": from few images any grouping seems to
            tell something, and what is above chance counts.
    Returns:
        "entropy" of a view's attributes, mean, at most log k; "entropy of all" of their mean;
        "view": mutual information of view and attribute; "class", and "annotated" (mean over the A
        attributes that vary), each with its "... by chance".
    Raises:
        ValueError: wrong shapes, or rows that are no distributions."""
    if responses.ndim != 3 or not responses.numel():
        raise ValueError(f"responses must be (N, M, k), not empty, got {tuple(responses.shape)}")
    each = responses.detach().cpu().double()
    if (each < 0).any() or not torch.allclose(each.sum(-1), torch.ones(()).double(), atol=1e-3):
        raise ValueError("responses must be distributions: at least 0, each row adding up to 1")
    labels = integer_labels(labels, "labels", len(each)).cpu()
    images, everywhere = each.mean(1), entropy(each.mean((0, 1)))
    known = {
        "entropy": entropy(each).mean(),
        "entropy of all": everywhere,
        "view": everywhere - entropy(each).mean(),
    }
    classes = torch.nn.functional.one_hot(labels.unique(return_inverse=True)[1]).double()
    known |= _with_chance("class", lambda rows: told(images, classes[rows]), len(each), seed)
    if attributes is not None:
        given = attributes.detach().cpu().double()
        if given.ndim != 2 or len(given) != len(each):
            raise ValueError(f"attributes must be ({len(each)}, A), got {tuple(given.shape)}")
        known |= _with_chance(
            "annotated", lambda rows: told_by_each(images, given[rows]), len(each), seed
        )
    return {name: float(value) for name, value in known.items()}


def told(images: Tensor, groups: Tensor) -> Tensor:
    """Mutual information of the attribute and the group of an image, of distributions (N, k) and
    how far each image belongs to each group (N, G), rows adding up to 1."""
    share = groups.mean(0)  # (G,)
    means = (groups.T @ images) / groups.sum(0).clamp(min=1e-12)[:, None]  # (G, k)
    return entropy(images.mean(0)) - (share * entropy(means)).sum()


def told_by_each(images: Tensor, attributes: Tensor) -> Tensor:
    """The mean of `told` over annotated attributes (N, A), each from the images where it is known;
    those that never vary are left out. NaN where none is left."""
    values = []
    for column in attributes.T:
        known = ~column.isnan()
        present = column[known]
        if len(present) and present.min() < present.max():
            values.append(told(images[known], torch.stack([present, 1 - present], dim=1)))
    return torch.stack(values).mean() if values else torch.tensor(torch.nan)


def _with_chance(name: str, measure, count: int, seed: int) -> dict[str, Tensor]:
    generator = seeded(seed, 50)
    shuffled = [measure(torch.randperm(count, generator=generator)) for _ in range(SHUFFLES)]
    chance = torch.stack(shuffled).mean()
    return {name: measure(torch.arange(count)), f"{name} by chance": chance}
