"""PAN: Pairwise Attribute-informed similarity Network.
Mishra et al., "Effectively Leveraging Attributes for Visual Similarity", ICCV 2021.

Two images may share an attribute and still differ in it, as two yellow breasts do. So PAN compares
images before it names attributes. From the difference of two feature vectors it predicts M
`concepts`, each a similarity in its own right, and the `relevance` of each for this pair. Their
mean, weighted by relevance, is the pair's similarity. Attributes tell concepts what they mean."""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fieldmarks.checks import one_of

# From two values of 0 and 1. A NaN in either is a NaN in the result.
RULES = {
    "and": lambda a, b: a * b,
    "or": lambda a, b: a + b - a * b,
    "xor": lambda a, b: (a - b).abs(),
    "xnor": lambda a, b: 1 - (a - b).abs(),
}
Rule = Literal["and", "or", "xor", "xnor"]


class ConceptSimilarity(nn.Module):
    """Eq. 1-3: two linear maps of |a - b|, from d = `dim` dimensions to M `concepts`.

    With a `cosine_weight` s above 0 a concept also falls with the angle between x and y, the last
    `cosine_dim` dimensions of a and b, of unit length, which |a - b| then leaves out:

        rho = sigmoid(W_1 |a - b| + b_1 + s (x . y - 1/2))

    NOTE this is not in the paper, whose s is 0. W_1 has either sign, so that a concept may rise
    with the difference, without bound; docs/measured.md, "PAN: why"."""

    def __init__(self, dim: int, concepts: int, *, cosine_weight: float = 0.0, cosine_dim: int = 0):
        super().__init__()
        if dim < 1 or concepts < 1:
            raise ValueError(f"a similarity needs both, got dim {dim} and {concepts} concepts")
        if cosine_weight < 0 or (cosine_weight > 0) != (cosine_dim > 0):
            given = f"got cosine_weight {cosine_weight:g} and cosine_dim {cosine_dim}"
            raise ValueError(f"a cosine needs a weight above 0 and dimensions, {given}")
        self.cosine_weight, self.cosine_dim = cosine_weight, cosine_dim
        self.concept = nn.Linear(dim, concepts)  # W_1, b_1
        self.relevance = nn.Linear(dim, concepts)  # W_2, b_2
        for linear in (self.concept, self.relevance):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(..., d) twice -> score p (...,), concepts rho (..., M), relevance omega (..., M).
        All lie in [0, 1], and a and b may be swapped. Leading dimensions broadcast: (Q, 1, d) and
        (1, G, d) give all pairs. Raises ValueError for features of other than d dimensions."""
        concept_logits, relevance_logits = self.logits(a, b)
        concepts, relevance = concept_logits.sigmoid(), relevance_logits.softmax(-1)
        score = (concepts * relevance).sum(-1).clamp(max=1)  # M rounded weights may exceed 1
        return score, concepts, relevance

    def score(self, a: Tensor, b: Tensor) -> Tensor:
        """p of eq. 3 alone: (..., d) twice -> (...,)."""
        return self(a, b)[0]

    def logits(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """Before the sigmoid of eq. 1 and the softmax of eq. 2: (..., M) twice."""
        dim = self.concept.in_features + self.cosine_dim
        if a.shape[-1:] != (dim,) or b.shape[-1:] != (dim,):
            shapes = f"{tuple(a.shape)} and {tuple(b.shape)}"
            raise ValueError(f"features must have {dim} dimensions, got shapes {shapes}")
        (a, x), (b, y) = (
            side.split([dim - self.cosine_dim, self.cosine_dim], -1) for side in (a, b)
        )
        apart = (a - b).abs()
        concepts, relevance = (at_least_float32(f(apart)) for f in (self.concept, self.relevance))
        if self.cosine_weight:
            cosine = at_least_float32(x * y).sum(-1, keepdim=True)
            concepts = concepts + self.cosine_weight * (cosine - 0.5)
        return concepts, relevance


class PAN(nn.Module):
    """Concepts, what supervises them, and the loss of eq. 4.

    Concepts come in this order: `attributes` supervised ones, the "none" concept if there is one,
    then `free` ones that nobody gives a meaning (Sec. 2.1.1). The paper's PAN-Unsupervised has free
    ones only (50 on CUB), PAN-Supervised one to each attribute (312 on CUB; 205 and "none" on
    Polyvore), the hybrid of the official code some of both.

    Args:
        dim: d, features of an image.  attributes: A, annotated ones.  rule: f_a, as `pair_labels`.
        none_slot: one more supervised concept, for pairs whose label has no attribute at all.
        attribute_weight: lambda. NOTE only in the official code: 1e-5 on CUB, 10 on Polyvore.
        relevance_weight: eta, of `relevance_loss`. NOTE not in the paper, which has 0.
        cosine_weight, cosine_dim: as `ConceptSimilarity`; items have dim + cosine_dim features."""

    def __init__(
        self,
        dim: int,
        *,
        attributes: int = 0,
        free: int = 0,
        none_slot: bool = False,
        rule: Rule = "or",
        attribute_weight: float = 1.0,
        relevance_weight: float = 0.0,
        cosine_weight: float = 0.0,
        cosine_dim: int = 0,
    ):
        super().__init__()
        one_of("rule", rule, RULES)
        if min(attributes, free) < 0 or attributes + free == 0:
            counts = f"{attributes} attributes and {free} free concepts"
            raise ValueError(f"a head needs supervised or free concepts, got {counts}")
        if none_slot and not attributes:
            raise ValueError('a "none" concept needs supervised attributes beside it')
        self.attributes, self.none_slot, self.rule = attributes, none_slot, rule
        self.attribute_weight, self.relevance_weight = attribute_weight, relevance_weight
        nearness = {"cosine_weight": cosine_weight, "cosine_dim": cosine_dim}
        self.similarity = ConceptSimilarity(dim, attributes + none_slot + free, **nearness)

    def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As `ConceptSimilarity`: score, concepts, relevance."""
        return self.similarity(a, b)

    score = ConceptSimilarity.score

    def losses(self, a: Tensor, b: Tensor, same: Tensor, attributes_a=None, attributes_b=None):
        """Eq. 4: {"similarity": BCE of p, "attributes": lambda times that of supervised concepts},
        of features (P, d) twice, e_ij (P,) of 1 and 0, and, where concepts are supervised,
        attributes (P, A) twice, of 0, 1 and NaN for unknown: ValueError for anything else. With a
        `relevance_weight` above 0 "relevance" too."""
        concept_logits, relevance_logits = self.similarity.logits(a, b)
        terms = {"similarity": similarity_loss(concept_logits, relevance_logits, same)}
        if self.attributes:
            check_attributes(attributes_a, attributes_b, self.attributes)
            targets = pair_labels(attributes_a, attributes_b, self.rule)
            targets = with_none_slot(targets) if self.none_slot else targets
            loss = attribute_loss(concept_logits[..., : targets.shape[-1]], targets)
            terms["attributes"] = self.attribute_weight * loss
        if self.relevance_weight:
            terms["relevance"] = self.relevance_weight * relevance_loss(relevance_logits)
        return terms


def pair_labels(a: Tensor, b: Tensor, rule: Rule) -> Tensor:
    """f_a (Sec. 2.1.1): attributes of two images -> attributes of the pair, elementwise.

    "and": both have it.  "or": either.  "xor": one, the other not.  "xnor": both or neither.
    Values are 0, 1 and NaN for unknown, of any type (ValueError for others; see `binarise`); the
    result is float32 unless the input is wider. NOTE an attribute unknown in either image is
    unknown for the pair, even where logic would settle it: the official code masks such entries."""
    one_of("rule", rule, RULES)
    a, b = at_least_float32(a), at_least_float32(b)
    for values in (a, b):
        wrong = values[~((values == 0) | (values == 1) | values.isnan())]
        if len(wrong):
            given = f"got {wrong[0]:g}: binarise(attributes) first"
            raise ValueError(f"attributes must be 0, 1 or NaN for unknown, {given}")
    return RULES[rule](a, b)


def binarise(attributes: Tensor, threshold: float = 0.5) -> Tensor:
    """Fractions to 1. where they reach the threshold, else 0.; NaN stays NaN."""
    reached = (attributes >= threshold).to(attributes.dtype)
    return torch.where(attributes.isnan(), torch.nan, reached)


def with_none_slot(labels: Tensor) -> Tensor:
    """Append the label "none", 1 where a pair has none of the attributes: (..., A) -> (..., A + 1);
    NaN where no attribute is known to be there and some are unknown."""
    none = torch.where(labels.isnan().any(-1), torch.nan, 1.0).to(labels.dtype)
    none = none.masked_fill((labels == 1).any(-1), 0.0)
    return torch.cat([labels, none[..., None]], dim=-1)


def similarity_loss(concept_logits: Tensor, relevance_logits: Tensor, same: Tensor) -> Tensor:
    """L^BCE(e, p) of eq. 4, the mean over pairs: logits (P, M) twice, e (P,) -> ().
    p is a mean of sigmoids, so it has no logit of its own, and log p fails where p has been rounded
    to 0 or 1. But 1 - p = sum of omega_m sigmoid(-z_m), so both logarithms are sums in the log
    domain, with gradients that neither vanish nor overflow. NOTE the official code clamps p."""
    log_relevance = relevance_logits.log_softmax(-1)
    log_same = (log_relevance + F.logsigmoid(concept_logits)).logsumexp(-1)  # log p
    log_other = (log_relevance + F.logsigmoid(-concept_logits)).logsumexp(-1)  # log(1 - p)
    same = same.to(log_same.dtype)
    return -(same * log_same + (1 - same) * log_other).mean()


def attribute_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """L_el^BCE of eq. 4, (P, A) twice -> (): for each pair the mean over its known attributes, 0 if
    there are none, then the mean over pairs."""
    known = ~targets.isnan()
    targets = torch.where(known, targets, 0.0).to(logits.dtype)
    each = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return ((each * known).sum(-1) / known.sum(-1).clamp(min=1)).mean()


def relevance_loss(relevance_logits: Tensor) -> Tensor:
    """How far relevance is from uniform, in nats, the mean over pairs: (P, M) -> (). It is log M
    minus the entropy, 0 where all M concepts count alike and log M where one has it all. That one
    is then free of its attribute: of the mean over A attributes in eq. 4 it is 1/A."""
    log_relevance = relevance_logits.log_softmax(-1)
    entropy = -(log_relevance.exp() * log_relevance).sum(-1)
    return math.log(relevance_logits.shape[-1]) - entropy.mean()


def check_attributes(a: Tensor | None, b: Tensor | None, attributes: int) -> None:
    """Raises ValueError unless both images of every pair have so many attributes."""
    for name, values in (("attributes_a", a), ("attributes_b", b)):
        if values is None:
            raise ValueError(f"{name} is missing: {attributes} attributes are supervised")
        if values.shape[-1] != attributes:
            wanted = f"{attributes} attributes of each image"
            raise ValueError(f"{name} must hold {wanted}, got shape {tuple(values.shape)}")


def at_least_float32(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))
