"""PAN: Pairwise Attribute-informed similarity Network.

Mishra et al., "Effectively Leveraging Attributes for Visual Similarity", ICCV 2021.

Two images may share an attribute and still differ in it: two birds with yellow breasts, of two yellows. So PAN compares images
before it names attributes. From the difference of two feature vectors it predicts M `concepts`, each a similarity in its own
right, and how much each of them matters for this pair, its `relevance`. Their mean, weighted by relevance, is the similarity of
the pair. Attributes of images, where there are any, tell some or all of the concepts what they stand for.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# From two values of 0 and 1. A NaN in either is a NaN in the result.
RULES = {
    "and": lambda a, b: a * b,
    "or": lambda a, b: a + b - a * b,
    "xor": lambda a, b: (a - b).abs(),
    "xnor": lambda a, b: 1 - (a - b).abs(),
}


class ConceptSimilarity(nn.Module):
    """Eq. 1-3: two linear maps of |a - b|.

    Args:
        dim: d, features of an image.  concepts: M.
    """

    def __init__(self, dim: int, concepts: int):
        super().__init__()
        if dim < 1 or concepts < 1:
            raise ValueError(
                f"a similarity needs features and concepts, got dim {dim} and {concepts} concepts"
            )
        self.concept = nn.Linear(dim, concepts)  # W_1, b_1
        self.relevance = nn.Linear(dim, concepts)  # W_2, b_2
        for linear in (self.concept, self.relevance):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(..., d) twice -> score p (...,), concepts rho (..., M), relevance omega (..., M), all in [0, 1].

        a and b may be swapped. Leading dimensions broadcast: (Q, 1, d) and (1, G, d) give all pairs.

        Raises:
            ValueError: the features do not have d dimensions.
        """
        concept_logits, relevance_logits = self.logits(a, b)
        concepts, relevance = concept_logits.sigmoid(), relevance_logits.softmax(-1)
        score = (
            (concepts * relevance).sum(-1).clamp(max=1)
        )  # M rounded weights may add up to a little more than 1
        return score, concepts, relevance

    def score(self, a: Tensor, b: Tensor) -> Tensor:
        """p of eq. 3 alone: (..., d) twice -> (...,)."""
        return self(a, b)[0]

    def logits(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """What the sigmoid of eq. 1 and the softmax of eq. 2 are taken of: (..., M) twice, at least float32."""
        dim = self.concept.in_features
        if a.shape[-1:] != (dim,) or b.shape[-1:] != (dim,):
            raise ValueError(
                f"features must have {dim} dimensions, got shapes {tuple(a.shape)} and {tuple(b.shape)}"
            )
        difference = (a - b).abs()
        return tuple(
            logits.to(torch.promote_types(logits.dtype, torch.float32))
            for logits in (self.concept(difference), self.relevance(difference))
        )


class SimilarityHead(nn.Module):
    """Concepts, what supervises them, and the loss of eq. 4.

    Concepts come in this order: `attributes` supervised ones, the "none" concept if there is one, then `free` ones that nobody
    tells what they stand for (Sec. 2.1.1). The paper's models: PAN-Unsupervised has free ones only (50 on CUB), PAN-Supervised
    has one to each attribute (312 on CUB; 205 and "none" on Polyvore), the hybrid of the official code has some of both.

    Args:
        dim: d, features of an image.
        attributes: A, annotated attributes; 0 for none.
        free: concepts without supervision.
        none_slot: one more supervised concept, for pairs whose label has no attribute at all.
        rule: f_a, which makes one label of two images: "and", "or", "xor" or "xnor".
        weight: lambda. NOTE the paper does not tell it; the official code has 1e-5 on CUB and 10 on Polyvore.

    Raises:
        ValueError: no concepts, a "none" slot without attributes, or an unknown rule.
    """

    def __init__(
        self,
        dim: int,
        *,
        attributes: int = 0,
        free: int = 0,
        none_slot: bool = False,
        rule: str = "or",
        weight: float = 1.0,
    ):
        super().__init__()
        _check_rule(rule)
        if min(attributes, free) < 0 or attributes + free == 0:
            raise ValueError(
                f"a head needs supervised or free concepts, got {attributes} attributes and {free} free concepts"
            )
        if none_slot and not attributes:
            raise ValueError(
                'a "none" concept stands for pairs without attributes: it needs supervised attributes beside it'
            )
        self.attributes, self.none_slot, self.rule, self.weight = (
            attributes,
            none_slot,
            rule,
            weight,
        )
        self.similarity = ConceptSimilarity(dim, attributes + none_slot + free)

    def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As `ConceptSimilarity`."""
        return self.similarity(a, b)

    def score(self, a: Tensor, b: Tensor) -> Tensor:
        """(..., d) twice -> p (...,) in [0, 1]."""
        return self.similarity.score(a, b)

    def losses(
        self,
        a: Tensor,
        b: Tensor,
        same: Tensor,
        labels_a: Tensor | None = None,
        labels_b: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """The terms of eq. 4, each a mean over P pairs.

        Args:
            a, b: (P, d) features.
            same: (P,) e_ij, 1 or 0.
            labels_a, labels_b: (P, A) of 0, 1 and NaN for unknown; needed if there are supervised concepts.

        Returns:
            {"similarity": BCE of p, "attributes": lambda times BCE of the supervised concepts, if there are any}

        Raises:
            ValueError: labels missing, of another shape, or not of 0, 1 and NaN.
        """
        concept_logits, relevance_logits = self.similarity.logits(a, b)
        terms = {"similarity": similarity_loss(concept_logits, relevance_logits, same)}
        if self.attributes:
            targets = self.targets(labels_a, labels_b)
            supervised = concept_logits[..., : targets.shape[-1]]
            terms["attributes"] = self.weight * attribute_loss(supervised, targets)
        return terms

    def targets(self, labels_a: Tensor, labels_b: Tensor) -> Tensor:
        """a_ij = f_a(a_i, a_j), with the "none" slot where the head has one: (P, A) twice -> (P, A) or (P, A + 1)."""
        check_labels(labels_a, labels_b, self.attributes)
        targets = pair_labels(labels_a, labels_b, self.rule)
        return with_none_slot(targets) if self.none_slot else targets


def pair_labels(a: Tensor, b: Tensor, rule: str) -> Tensor:
    """f_a (Sec. 2.1.1): attributes of two images -> attributes of the pair, elementwise.

    "and": both have it.  "or": either has it.  "xor": one has it, the other not.  "xnor": both or neither.

    NOTE an attribute unknown in either image is unknown for the pair, even where logic would settle it (0 "and" unknown): the
    official code masks such entries.

    Args:
        a, b: of shapes that broadcast, with values 0, 1 and NaN for unknown (booleans and integers too). For fractions, such as
            class-level percentages, see `binarise`.
        rule: one of the four.

    Returns:
        0., 1. and NaN; float32 unless the input is wider.

    Raises:
        ValueError: unknown rule, or values that are not 0, 1 or NaN.
    """
    _check_rule(rule)
    a, b = (values.to(torch.promote_types(values.dtype, torch.float32)) for values in (a, b))
    for values in (a, b):
        wrong = ~((values == 0) | (values == 1) | values.isnan())
        if wrong.any():
            raise ValueError(
                f"attributes must be 0, 1 or NaN for unknown, got {values[wrong][0].item():g}: "
                "binarise(attributes, threshold) makes 0 and 1 of fractions"
            )
    return RULES[rule](a, b)


def binarise(attributes: Tensor, threshold: float = 0.5) -> Tensor:
    """Fractions to 1. where they reach the threshold, else 0.; NaN stays NaN. For class-level percentages, as fractions."""
    return torch.where(
        attributes.isnan(), torch.nan, (attributes >= threshold).to(attributes.dtype)
    )


def with_none_slot(labels: Tensor) -> Tensor:
    """Append the label "none": 1 where a pair has none of the attributes: (..., A) -> (..., A + 1).

    It is unknown (NaN) where no attribute is known to be there and some are unknown.
    """
    unsettled = torch.where(labels.isnan().any(-1), torch.nan, 1.0).to(labels.dtype)
    none = torch.where((labels == 1).any(-1), torch.zeros_like(unsettled), unsettled)
    return torch.cat([labels, none[..., None]], dim=-1)


def similarity_loss(concept_logits: Tensor, relevance_logits: Tensor, same: Tensor) -> Tensor:
    """L^BCE(e, p) of eq. 4, the mean over pairs: logits (P, M) twice, e (P,) -> ().

    p is a mean of sigmoids, so it has no logit of its own, and log p fails where p has been rounded to 0 or 1. But
    1 - p = sum of omega_m sigmoid(-z_m), so both logarithms are sums in the log domain, exact as far as floats go, with
    gradients that neither vanish nor overflow. NOTE the official code clamps p instead.
    """
    log_relevance = relevance_logits.log_softmax(-1)
    log_same = (log_relevance + F.logsigmoid(concept_logits)).logsumexp(-1)  # log p
    log_other = (log_relevance + F.logsigmoid(-concept_logits)).logsumexp(-1)  # log(1 - p)
    same = same.to(log_same.dtype)
    return -(same * log_same + (1 - same) * log_other).mean()


def attribute_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """L_el^BCE of eq. 4: for each pair the mean over its known attributes, then the mean over pairs: (P, A) twice -> ().

    Targets are 0, 1 or NaN for unknown. A pair with nothing known counts as 0; if nothing is known at all, so does the loss.
    """
    known = ~targets.isnan()
    each = F.binary_cross_entropy_with_logits(
        logits, torch.where(known, targets, 0.0).to(logits.dtype), reduction="none"
    )
    return ((each * known).sum(-1) / known.sum(-1).clamp(min=1)).mean()


def check_labels(labels_a: Tensor | None, labels_b: Tensor | None, attributes: int) -> None:
    """Raises ValueError unless both images of every pair have `attributes` labels."""
    for name, labels in (("labels_a", labels_a), ("labels_b", labels_b)):
        if labels is None:
            raise ValueError(f"{name} is missing: {attributes} attributes are supervised")
        if labels.shape[-1] != attributes:
            raise ValueError(
                f"{name} must hold {attributes} attributes of each image, got shape {tuple(labels.shape)}"
            )


def _check_rule(rule: str) -> None:
    if rule not in RULES:
        raise ValueError(f'unknown rule "{rule}": it must be one of {", ".join(RULES)}')
