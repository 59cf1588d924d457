"""The two ways of using attributes that PAN's Tables 1-3 compare it with, and a plain similarity.
Heads take features (..., d) twice, and in `losses` the arguments of `PAN`'s. NOTE on frozen
features the attributes of `MultitaskHead` have nothing to teach: train it with an encoder."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fieldmarks.methods.pan import at_least_float32, attribute_loss, check_attributes


class PlainSimilarity(nn.Module):
    """p = sigmoid(w . |a - b| + b) (Cucurull et al. 2019; with a graph encoder, the CGAE row)."""

    def __init__(self, dim: int):
        super().__init__()
        self.similarity = nn.Linear(dim, 1)

    def logit(self, a: Tensor, b: Tensor) -> Tensor:
        return at_least_float32(self.similarity((a - b).abs())[..., 0])

    def score(self, a: Tensor, b: Tensor) -> Tensor:
        """(..., d) twice -> p (...,) in [0, 1]."""
        return self.logit(a, b).sigmoid()

    def losses(self, a: Tensor, b: Tensor, same: Tensor, attributes_a=None, attributes_b=None):
        """{"similarity": BCE of p}. Attributes are ignored."""
        logit = self.logit(a, b)
        return {"similarity": F.binary_cross_entropy_with_logits(logit, same.to(logit.dtype))}


class MultitaskHead(PlainSimilarity):
    """ "X + Attr. Multitask": plain similarity, and a classifier of each image's A attributes."""

    def __init__(self, dim: int, attributes: int, *, attribute_weight: float = 1.0):
        super().__init__(dim)
        self.classifier, self.attribute_weight = nn.Linear(dim, attributes), attribute_weight

    def losses(self, a: Tensor, b: Tensor, same: Tensor, attributes_a=None, attributes_b=None):
        """{"similarity", "attributes"}; both images of a pair count alike."""
        logits = self.classifier(a), self.classifier(b)
        loss = self.attribute_weight * _of_images(*logits, attributes_a, attributes_b)
        return super().losses(a, b, same) | {"attributes": loss}


class AttributeSimilarityHead(nn.Module):
    """ "Attr. Similarity": each image's attributes, then the similarity from nothing but these.

    NOTE the paper says "a fully connected layer that predicts similarity" and not what it is given
    of two images: here the absolute difference of the predicted probabilities, symmetric as all its
    other similarities are. Both layers are trained together. Arguments as of `MultitaskHead`. NOTE
    nothing but the attribute_weight teaches its attributes: held-out data choose 1 to 10, at PAN's
    1e-5 it is up to 15 points worse (docs/measured.md)."""

    def __init__(self, dim: int, attributes: int, *, attribute_weight: float = 1.0):
        super().__init__()
        self.classifier, self.attribute_weight = nn.Linear(dim, attributes), attribute_weight
        self.similarity = PlainSimilarity(attributes)

    def score(self, a: Tensor, b: Tensor) -> Tensor:
        return self.similarity.score(self.classifier(a).sigmoid(), self.classifier(b).sigmoid())

    def losses(self, a: Tensor, b: Tensor, same: Tensor, attributes_a=None, attributes_b=None):
        logits = own, other = self.classifier(a), self.classifier(b)
        loss = self.attribute_weight * _of_images(*logits, attributes_a, attributes_b)
        return self.similarity.losses(own.sigmoid(), other.sigmoid(), same) | {"attributes": loss}


def _of_images(logits_a: Tensor, logits_b: Tensor, attributes_a, attributes_b) -> Tensor:
    check_attributes(attributes_a, attributes_b, logits_a.shape[-1])
    logits = torch.cat([logits_a, logits_b])
    return attribute_loss(logits, torch.cat([attributes_a, attributes_b]))
