"""VAPNet: Visual Attribute Parameterization Network (Wang et al., "Learning to Parameterize Visual
Attributes for Open-set Fine-grained Retrieval", NeurIPS 2023).

Cross-entropy makes a network look at the few places that separate the classes it was shown. VAPNet
also shows it magnified patches of every image, and asks that the full image's features at a patch
and the features of the magnified patch tell the same `attributes`: k numbers that nobody annotated.
At test time only the backbone is left."""

from copy import deepcopy
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fieldmarks.checks import at_least, one_of, positive, share
from fieldmarks.methods.attribute_teachers import (
    BY_PROTOTYPES,
    Centre,
    Teacher,
    balanced_targets,
    prototype_scores,
    variance_term,
)
from fieldmarks.methods.method import Method, pool
from fieldmarks.resampling import crop_and_resize

GRIDS = (2, 4, 8, 16)


class VAPNet(Method):
    """Eq. 1-9.

    Args:
        classes: N, of the training images.  classification: use L_a, the cross-entropy (eq. 8).
        constraint: "mean": eq. 6 with mean encoders; "direct": eq. 5 without; "none": L_a alone.
        views: M, local views (Table 4).  attributes: k, their dimensions (Table 5).
        update_ratio: alpha, the current encoder's share in its mean at each step (Table 6, eq. 7).
        constraint_weight: lambda (Table 7, eq. 9).  grids: the n of the n x n grids of patches.
        uniform_over: draw each of the sum(n^2) "patches" alike, or first one of the "grids".
        temperature: divides attributes before their softmax.
        teacher: what eq. 6's pupils learn from: mean encoders as "printed"; with "gradients" to the
            features through them; or what cannot collapse: "centred", "balanced" or, added to the
            printed, a "variance" term (see `attribute_teachers`). temperature 0.05 suits the first
            two, attributes 64, constraint_weight 0.03.
        joint_batch: one backbone call for images and views, which then share batch statistics.
        cosine_head: classify by scaled cosine, not inner product.  label_smoothing: of eq. 8."""

    def __init__(
        self,
        backbone: nn.Module,
        classes: int,
        *,
        classification: bool = True,
        constraint: Literal["mean", "direct", "none"] = "mean",
        views: int = 4,
        attributes: int = 256,
        update_ratio: float = 0.2,
        constraint_weight: float = 10.0,
        grids: tuple[int, ...] = GRIDS,
        uniform_over: Literal["patches", "grids"] = "patches",
        temperature: float = 1.0,
        teacher: Teacher = "printed",
        joint_batch: bool = True,
        cosine_head: bool = False,
        label_smoothing: float = 0.0,
        freeze_norm: bool = False,
    ):
        super().__init__(backbone, freeze_norm)
        one_of("constraint", constraint, ("mean", "direct", "none"))
        one_of("uniform_over", uniform_over, ("patches", "grids"))
        one_of("teacher", teacher, get_args(Teacher))
        if teacher != "printed" and constraint != "mean":
            raise ValueError(f"teacher '{teacher}' is of mean encoders: use constraint 'mean'")
        at_least(1, views=views, attributes=attributes, grids=min(grids, default=0))
        at_least(0, constraint_weight=constraint_weight)
        share(update_ratio=update_ratio, label_smoothing=label_smoothing)
        positive(temperature=temperature)
        if constraint == "none" and not classification:
            raise ValueError("no loss is left: use classification, or constraint mean or direct")
        self.classification, self.constraint = classification, constraint
        self.views, self.grids, self.uniform_over = views, tuple(grids), uniform_over
        self.constraint_weight, self.temperature = constraint_weight, temperature
        self.teacher, self.joint_batch = teacher, joint_batch
        self.cosine_head, self.label_smoothing = cosine_head, label_smoothing
        self.update_ratio, channels = update_ratio, backbone.channels
        if classification:
            self.classifier = nn.Linear(channels, classes, bias=False)
            if not cosine_head:  # a random head's first gradients only disturb trained features
                nn.init.zeros_(self.classifier.weight)
        if constraint != "none":
            biased = teacher not in BY_PROTOTYPES
            if not biased and constraint_weight:  # its weight is for the features: prototypes have
                alone = (1 / constraint_weight, False)  # no other term, and would hardly turn
                self.rates = dict.fromkeys(("local_encoder", "global_encoder"), alone)
            self.local_encoder = nn.Linear(channels, attributes, bias=biased)  # T_L
            self.global_encoder = nn.Linear(channels, attributes, bias=biased)  # T_G
        if constraint == "mean":  # E[T_L] and E[T_G] start as their encoders do
            self.mean_local_encoder = deepcopy(self.local_encoder).requires_grad_(False)
            self.mean_global_encoder = deepcopy(self.global_encoder).requires_grad_(False)
        if teacher == "centred":
            self.centres = nn.ModuleList([Centre(attributes), Centre(attributes)])

    def losses(self, images: Tensor, labels: Tensor, boxes: Tensor | None = None, generator=None):
        """{"L_a": eq. 8, "L_c": lambda times eq. 5 or 6}, those that are in use, of (B, 3, H, W),
        (B,) and the views' boxes (B, M, 4); None: `sample_boxes` with `generator`."""
        if self.constraint == "none":
            return {"L_a": self.classification_loss(self.backbone(images), labels)}
        count, size = len(images), (images.shape[-2], images.shape[-1])
        if boxes is None:
            boxes = self.sample_boxes(count, *size, generator)
        boxes = boxes.to(images.device)
        views = crop_and_resize(images, boxes, size).flatten(0, 1)  # (B*M, 3, H, W)
        if self.joint_batch:  # eq. 1
            features, zoomed = self.backbone(torch.cat([images, views])).split([count, len(views)])
        else:
            features, zoomed = self.backbone(images), self.backbone(views)
        local = pool(zoomed).unflatten(0, boxes.shape[:2]).float()  # g(F_L) (B, M, C)
        at_boxes = roi_average(features, boxes, size).float()  # g(F_G) (B, M, C)
        terms = {"L_a": self.classification_loss(features, labels)} if self.classification else {}
        return terms | {"L_c": self.constraint_weight * self.constrain(local, at_boxes)}

    def sample_boxes(self, count: int, height: int, width: int, generator=None) -> Tensor:
        """Views of `count` images, (count, M, 4) in pixels; the generator is on the CPU."""
        index = sample_patch_index(count, self.views, self.grids, self.uniform_over, generator)
        return patch_boxes(height, width, self.grids)[index]

    def classification_loss(self, features: Tensor, labels: Tensor) -> Tensor:
        """Eq. 8 of feature maps (B, C, h, w). NOTE the print lacks its minus sign."""
        embedding, weight = pool(features), self.classifier.weight
        if self.cosine_head:
            unit = F.normalize(embedding.float(), dim=1)
            logits = 20 * F.linear(unit, F.normalize(weight, dim=1))  # (B, N)
        else:
            logits = self.classifier(embedding).float()
        return F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)

    @property
    def unit_rows(self) -> Tensor | None:
        """Of a cosine head, the rows (N, C) whose directions stand for classes."""
        return self.classifier.weight if self.classification and self.cosine_head else None

    def constrain(self, local: Tensor, at_boxes: Tensor) -> Tensor:
        """Eq. 5 or 6 from g(F_L) and g(F_G), each (B, M, C).
        NOTE eq. 6 leaves open whether gradients pass through mean encoders to the features. They do
        not here unless `teacher` is "gradients": a teacher that moves to its pupil teaches less."""
        if self.teacher in BY_PROTOTYPES:
            return self.constrain_prototypes(local, at_boxes)
        pupils = self.local_encoder(local), self.global_encoder(at_boxes)
        if self.constraint == "direct":
            teachers = self.global_encoder(local), self.local_encoder(at_boxes)
        else:
            with torch.set_grad_enabled(self.teacher == "gradients" and torch.is_grad_enabled()):
                teachers = self.mean_global_encoder(local), self.mean_local_encoder(at_boxes)
        outputs = [x.float() / self.temperature for x in (*pupils, *teachers)]
        term = attribute_constraint(*outputs)
        if self.teacher == "variance":
            term = term + sum(map(variance_term, outputs[:2]))
        return term

    def constrain_prototypes(self, local: Tensor, at_boxes: Tensor) -> Tensor:
        """Eq. 6 with unit features and rows, and targets that cannot collapse. Each place is taught
        by its other view: T_L of the magnified patch by E[T_G] of the same place in the image."""
        own = prototype_scores(self.local_encoder, local)  # (B, M, k)
        others = prototype_scores(self.global_encoder, at_boxes)
        with torch.no_grad():
            targets = [
                prototype_scores(self.mean_global_encoder, at_boxes),
                prototype_scores(self.mean_local_encoder, local),
            ]
            if self.teacher == "centred":
                pairs = zip(self.centres, targets, strict=True)
                targets = [centre(scores, self.temperature) for centre, scores in pairs]
            else:
                targets = [balanced_targets(scores, self.temperature) for scores in targets]
        return attribute_constraint(own / self.temperature, others / self.temperature, *targets)

    def attribute_responses(self, images: Tensor) -> Tensor:
        """softmax T_L of images taken as views, (B, k): for seeing what attributes mean."""
        features = pool(self.backbone(images)).float()
        if self.teacher in BY_PROTOTYPES:
            return (prototype_scores(self.local_encoder, features) / self.temperature).softmax(-1)
        return (self.local_encoder(features) / self.temperature).softmax(-1)

    @torch.no_grad()
    def after_step(self) -> None:
        """Eq. 7. After a step is before the next one: at the first, both are the same."""
        if self.constraint == "mean":
            means = [*self.mean_local_encoder.parameters(), *self.mean_global_encoder.parameters()]
            current = [*self.local_encoder.parameters(), *self.global_encoder.parameters()]
            for mean, parameter in zip(means, current, strict=True):
                mean.lerp_(parameter, self.update_ratio)


def attribute_constraint(
    own_local: Tensor, own_global: Tensor, mean_of_local: Tensor, mean_of_global: Tensor
) -> Tensor:
    """Eq. 6, or eq. 5 where encoders stand for their means: KL(mean_of_local || own_local) +
    KL(mean_of_global || own_global), summed over M, mean over B, of (B, M, k) before the softmax:
    own_local T_L(F_L), own_global T_G(F_G), mean_of_local E[T_G](F_L), mean_of_global E[T_L](F_G).
    NOTE the print takes logarithms of raw outputs, which may be negative: hence the softmax."""
    divergences = []
    for teacher, pupil in ((mean_of_local, own_local), (mean_of_global, own_global)):
        teacher, pupil = teacher.log_softmax(-1), pupil.log_softmax(-1)
        divergences.append((teacher.exp() * (teacher - pupil)).sum(-1))  # (B, M)
    return (divergences[0] + divergences[1]).sum(1).mean()


def patch_boxes(height: int, width: int, grids: tuple[int, ...] = GRIDS) -> Tensor:
    """All patches of all grids (Sec. 3.2): for each n, n x n cells of floor(H/n) x floor(W/n) px:
    (sum of n^2, 4) long, x1 y1 x2 y2 in pixels, x2 and y2 exclusive; by grid, then row by row.
    ValueError where an image has fewer pixels a side than a grid has cells."""
    boxes, most = [], min(height, width)
    for n in grids:
        if n > most:
            cut = f"an image of {height} x {width} px cannot be cut into {n} x {n} patches"
            raise ValueError(f"{cut}: use larger images or grids up to {most}")
        rows, columns = torch.meshgrid(torch.arange(n), torch.arange(n), indexing="ij")
        y, x = rows.flatten() * (height // n), columns.flatten() * (width // n)
        boxes.append(torch.stack([x, y, x + width // n, y + height // n], dim=1))
    return torch.cat(boxes)


def sample_patch_index(count: int, views: int, grids, uniform_over: str, generator=None) -> Tensor:
    """Rows of `patch_boxes` for the views of each image: (count, views), drawn with replacement."""
    cells = torch.tensor([n * n for n in grids])
    if uniform_over == "patches":
        return torch.randint(int(cells.sum()), (count, views), generator=generator)
    grid = torch.randint(len(grids), (count, views), generator=generator)
    place = torch.rand(count, views, generator=generator, dtype=torch.float64)
    return (cells.cumsum(0) - cells)[grid] + (place * cells[grid]).long()


def roi_average(features: Tensor, boxes: Tensor, image_size: tuple[int, int]) -> Tensor:
    """g(F_G): RoIAlign (He et al. 2017, aligned) of every box to 7 x 7 cells, then their average.
    Features (B, C, h, w), boxes (B, M, 4) in pixels of images of image_size -> (B, M, C), equal to
    torchvision's roi_align with 2 x 2 samples a cell. Sampling on a regular lattice and averaging
    are linear and separable: together one weight for each row times one for each column."""
    x1, y1, x2, y2 = boxes.float().unbind(-1)
    rows = _sampling_weights(y1, y2, image_size[0], features.shape[-2])  # (B, M, h)
    columns = _sampling_weights(x1, x2, image_size[1], features.shape[-1])  # (B, M, w)
    weights = (rows[..., :, None] * columns[..., None, :]).flatten(2)  # (B, M, h*w)
    return weights.to(features.dtype) @ features.flatten(2).transpose(1, 2)


def _sampling_weights(start: Tensor, stop: Tensor, pixels: int, cells: int) -> Tensor:
    """What each cell counts in the mean over stretches (B, M), 14 samples each: (B, M, cells)."""
    scale, device = cells / pixels, start.device
    start, stop = start * scale - 0.5, stop * scale - 0.5  # centres of cells are whole numbers
    steps = (torch.arange(14, device=device) + 0.5) / 14
    positions = (start[..., None] + (stop - start)[..., None] * steps).clamp(0, cells - 1)
    away = (positions[..., None] - torch.arange(cells, device=device)).abs()
    return (1 - away).clamp(min=0).mean(-2)
