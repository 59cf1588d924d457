"""The two ways of using attributes that PAN's Tables 1-3 compare it with, and the plain similarity that they build on.

Features come from an image encoder. NOTE on frozen features the attributes of `MultitaskHead` have nothing to teach: train it
with an encoder, as `graph_encoder.GraphEncoder` (the "-GE" rows) or a backbone.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fieldmarks.methods.pan import attribute_loss, check_labels


class PlainSimilarity(nn.Module):
    """p = sigmoid(w . |a - b| + b), without concepts (Cucurull et al. 2019; with a graph encoder, the CGAE row)."""

    def __init__(self, dim: int):
        super().__init__()
        self.similarity = nn.Linear(dim, 1)

    def logit(self, a: Tensor, b: Tensor) -> Tensor:
        logit = self.similarity((a - b).abs())[..., 0]
        return logit.to(torch.promote_types(logit.dtype, torch.float32))

    def score(self, a: Tensor, b: Tensor) -> Tensor:
        """(..., d) twice -> p (...,) in [0, 1]."""
        return self.logit(a, b).sigmoid()

    def losses(
        self, a: Tensor, b: Tensor, same: Tensor, labels_a=None, labels_b=None
    ) -> dict[str, Tensor]:
        """{"similarity": BCE of p}; (P, d) twice, (P,). Attributes are not looked at."""
        logit = self.logit(a, b)
        return {"similarity": F.binary_cross_entropy_with_logits(logit, same.to(logit.dtype))}


class MultitaskHead(PlainSimilarity):
    """ "X + Attr. Multitask": plain similarity, and beside it a classifier of each image's attributes on the same features.

    Args:
        dim: d.  attributes: A.
        weight: of the attribute term.
    """

    def __init__(self, dim: int, attributes: int, *, weight: float = 1.0):
        super().__init__(dim)
        self.classifier, self.weight = nn.Linear(dim, attributes), weight

    def losses(
        self, a: Tensor, b: Tensor, same: Tensor, labels_a: Tensor, labels_b: Tensor
    ) -> dict[str, Tensor]:
        """{"similarity", "attributes"}: labels are (P, A) of 0, 1 and NaN for unknown; both images of a pair count alike."""
        attributes = _image_attribute_loss(
            self.classifier(a), self.classifier(b), labels_a, labels_b
        )
        return super().losses(a, b, same) | {"attributes": self.weight * attributes}


class AttributeSimilarityHead(nn.Module):
    """ "Attr. Similarity": predict each image's attributes, then the similarity from nothing but these predictions.

    NOTE the paper says "a fully connected layer that predicts similarity" and not what it is given of two images: here the
    absolute difference of the predicted probabilities, which is symmetric as all its other similarities are. Both layers are
    trained together.

    Args:
        dim: d.  attributes: A.
        weight: of the attribute term.
    """

    def __init__(self, dim: int, attributes: int, *, weight: float = 1.0):
        super().__init__()
        self.classifier, self.similarity, self.weight = (
            nn.Linear(dim, attributes),
            PlainSimilarity(attributes),
            weight,
        )

    def score(self, a: Tensor, b: Tensor) -> Tensor:
        """(..., d) twice -> p (...,) in [0, 1]."""
        return self.similarity.score(self.classifier(a).sigmoid(), self.classifier(b).sigmoid())

    def losses(
        self, a: Tensor, b: Tensor, same: Tensor, labels_a: Tensor, labels_b: Tensor
    ) -> dict[str, Tensor]:
        """As `MultitaskHead`."""
        logits_a, logits_b = self.classifier(a), self.classifier(b)
        attributes = _image_attribute_loss(logits_a, logits_b, labels_a, labels_b)
        return self.similarity.losses(logits_a.sigmoid(), logits_b.sigmoid(), same) | {
            "attributes": self.weight * attributes
        }


def _image_attribute_loss(
    logits_a: Tensor, logits_b: Tensor, labels_a: Tensor, labels_b: Tensor
) -> Tensor:
    check_labels(labels_a, labels_b, logits_a.shape[-1])
    return attribute_loss(torch.cat([logits_a, logits_b]), torch.cat([labels_a, labels_b]))
