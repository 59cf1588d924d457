"""What keeps VAPNet's attributes from collapsing: other targets for the same two pupils.

Nothing in eq. 5-7 asks attributes to differ: outputs that are all alike, or features that vanish,
agree perfectly. The ways out here come from self-supervised learning and keep eq. 6's form, an
encoder that learns from the running mean of the other one. "centred" and "balanced" compare unit
features with unit rows of the encoders (prototypes), and have each place taught by its other view.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fieldmarks.methods.method import gather

Teacher = Literal["printed", "gradients", "centred", "balanced", "variance"]
BY_PROTOTYPES = ("centred", "balanced")
SHARPER = 0.4  # the teacher's temperature as a share of the pupil's: DINO's 0.04 against 0.1
CENTRE_MOMENTUM = 0.9  # DINO's
ROUNDS = 3  # SwAV's


def prototype_scores(encoder: nn.Linear, features: Tensor) -> Tensor:
    """Cosines of features (..., C) to an encoder's k rows: (..., k)."""
    return F.linear(F.normalize(features, dim=-1), F.normalize(encoder.weight, dim=-1))


class Centre(nn.Module):
    """Caron et al., "Emerging Properties in Self-Supervised Vision Transformers" (DINO), ICCV 2021:
    targets are the teacher's scores (..., k) less their running mean, which no attribute can then
    win everywhere, sharpened, so that they cannot all stay alike."""

    def __init__(self, attributes: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(attributes))

    def forward(self, scores: Tensor, temperature: float) -> Tensor:
        """Targets before their softmax; in training the running mean moves afterwards."""
        targets = (scores - self.mean) / (SHARPER * temperature)
        if self.training:
            batch = gather(scores.flatten(0, -2)).mean(0)
            self.mean.lerp_(batch, 1 - CENTRE_MOMENTUM)
        return targets


def balanced_targets(scores: Tensor, temperature: float) -> Tensor:
    """Caron et al., "Unsupervised Learning of Visual Features by Contrasting Cluster Assignments"
    (SwAV), NeurIPS 2020: scores (..., k) of a batch to the logarithms of targets that use all k
    attributes equally, by Sinkhorn and Knopp's rounds: rows and columns in turn add up alike."""
    shape = scores.shape
    own = scores.flatten(0, -2) / (SHARPER * temperature)  # (n, k)
    everywhere = gather(own)
    columns = torch.zeros_like(own[:1])
    for _ in range(ROUNDS):
        rows = (everywhere - columns).logsumexp(1, keepdim=True)
        columns = columns + (everywhere - columns - rows).logsumexp(0, keepdim=True)
    return (own - columns).log_softmax(1).view(shape)


def variance_term(outputs: Tensor) -> Tensor:
    """Bardes et al., "VICReg", ICLR 2022, eq. 1: how far the standard deviation of each attribute
    over the batch's views, of raw outputs (B, M, k), falls short of 1. Mean over k."""
    deviation = (gather(outputs.flatten(0, -2)).var(0) + 1e-4).sqrt()
    return (1 - deviation).clamp(min=0).mean()
