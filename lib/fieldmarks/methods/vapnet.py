"""VAPNet: Visual Attribute Parameterization Network.

Wang et al., "Learning to Parameterize Visual Attributes for Open-set Fine-grained Retrieval", NeurIPS 2023.

Cross-entropy makes a network look at the few places that separate the classes it was shown. VAPNet also shows it magnified patches
of every image, where it notices what it overlooks in the whole, and asks that the whole image's features at a patch and the
features of the magnified patch tell the same `attributes`: k numbers that nobody annotated. At test time only the backbone is left.
"""

from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fieldmarks.methods.method import Method, pool
from fieldmarks.resampling import crop_and_resize

GRIDS = (2, 4, 8, 16)


class VAPNet(Method):
    """Eq. 1-9.

    Args:
        backbone: images (B, 3, H, W) -> features (B, C, h, w); `channels` is C.
        classes: number of training classes N.
        classification: use L_a, the cross-entropy (eq. 8).
        constraint: "mean" for eq. 6 with mean encoders, "direct" for eq. 5 without, "none" for L_a alone.
        views: M, local views to an image (Table 4).
        attributes: k, attribute dimensions (Table 5).
        update_ratio: alpha, share of the current encoder in the mean encoder at each step (Table 6, eq. 7).
        weight: lambda, weight of the constraint (Table 7, eq. 9).
        grids: the n of the n x n grids that patches come from.
        uniform_over: "patches" draws each of the sum(n^2) patches alike, so that three in four come from the finest grid; "grids"
            draws a grid first.
        temperature: divides attributes before their softmax.
        grad_through_teacher: let gradients reach the features through the mean encoders.
        joint_batch: one backbone call for whole images and views; otherwise one for each, with batch statistics of their own.
        cosine_head: classify by scaled cosine rather than by inner product.
        label_smoothing: of the cross-entropy.
    """

    def __init__(
        self,
        backbone: nn.Module,
        classes: int,
        *,
        classification: bool = True,
        constraint: str = "mean",
        views: int = 4,
        attributes: int = 256,
        update_ratio: float = 0.2,
        weight: float = 10.0,
        grids: tuple[int, ...] = GRIDS,
        uniform_over: str = "patches",
        temperature: float = 1.0,
        grad_through_teacher: bool = False,
        joint_batch: bool = True,
        cosine_head: bool = False,
        label_smoothing: float = 0.0,
        freeze_norm: bool = False,
    ):
        super().__init__(backbone, freeze_norm)
        _check(
            classification,
            constraint,
            views,
            attributes,
            update_ratio,
            grids,
            uniform_over,
            temperature,
        )
        self.classification, self.constraint = classification, constraint
        self.views, self.weight, self.update_ratio = views, weight, update_ratio
        self.grids, self.uniform_over, self.temperature = tuple(grids), uniform_over, temperature
        self.grad_through_teacher, self.joint_batch = grad_through_teacher, joint_batch
        self.cosine_head, self.label_smoothing = cosine_head, label_smoothing
        if classification:
            self.classifier = nn.Linear(backbone.channels, classes, bias=False)
            if not cosine_head:
                nn.init.zeros_(
                    self.classifier.weight
                )  # a random head's first gradients only disturb trained features
        if constraint != "none":
            self.local_encoder = nn.Linear(backbone.channels, attributes)  # T_L
            self.global_encoder = nn.Linear(backbone.channels, attributes)  # T_G
        if (
            constraint == "mean"
        ):  # E[T_L] and E[T_G]; they start as their encoders do, E^(0)[T](theta) = theta
            self.mean_local_encoder = deepcopy(self.local_encoder).requires_grad_(False)
            self.mean_global_encoder = deepcopy(self.global_encoder).requires_grad_(False)

    def losses(self, batch) -> dict[str, Tensor]:
        """{"L_a": eq. 8, "L_c": lambda times eq. 5 or 6}, those that are in use."""
        if self.constraint == "none":
            return {"L_a": self.classification_loss(self.backbone(batch.images), batch.labels)}
        boxes = self.sample_patches(batch)  # (B, M, 4)
        features, local_features = self.look(batch.images, boxes)
        local = pool(local_features).unflatten(0, (-1, self.views)).float()  # g(F_L) (B, M, C)
        in_whole = roi_average(features, boxes, batch.images.shape[-2:]).float()  # g(F_G) (B, M, C)
        terms = (
            {"L_a": self.classification_loss(features, batch.labels)} if self.classification else {}
        )
        return terms | {"L_c": self.weight * self.constrain(local, in_whole)}

    def look(self, images: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """F (B, C, h, w) and F_L (B*M, C, h, w): whole images and their magnified patches through one backbone (eq. 1)."""
        local_views = crop_and_resize(images, boxes, tuple(images.shape[-2:])).flatten(
            0, 1
        )  # (B*M, 3, H, W)
        if not self.joint_batch:
            return self.backbone(images), self.backbone(local_views)
        return self.backbone(torch.cat([images, local_views])).split(
            [len(images), len(local_views)]
        )

    def classification_loss(self, features: Tensor, labels: Tensor) -> Tensor:
        """Eq. 8. NOTE the print lacks its minus sign."""
        return F.cross_entropy(
            self.logits(pool(features)), labels, label_smoothing=self.label_smoothing
        )

    def logits(self, embedding: Tensor) -> Tensor:
        """(B, C) -> (B, N)."""
        if self.cosine_head:
            return 20 * F.linear(
                F.normalize(embedding.float(), dim=1), F.normalize(self.classifier.weight, dim=1)
            )
        return self.classifier(embedding).float()

    def constrain(self, local: Tensor, in_whole: Tensor) -> Tensor:
        """Eq. 5 or 6 from g(F_L) and g(F_G), each (B, M, C).

        NOTE eq. 6 says that mean encoders have no parameters to learn and leaves open whether gradients pass through them to the
        features. They do not here unless `grad_through_teacher`: a teacher that moves towards its pupil teaches less.
        """
        own_local, own_global = self.local_encoder(local), self.global_encoder(in_whole)
        if self.constraint == "direct":
            return attribute_constraint(
                *self._cooled(
                    own_local, own_global, self.global_encoder(local), self.local_encoder(in_whole)
                )
            )
        with torch.set_grad_enabled(self.grad_through_teacher and torch.is_grad_enabled()):
            mean_of_local, mean_of_global = (
                self.mean_global_encoder(local),
                self.mean_local_encoder(in_whole),
            )
        return attribute_constraint(
            *self._cooled(own_local, own_global, mean_of_local, mean_of_global)
        )

    def attribute_responses(self, images: Tensor) -> Tensor:
        """softmax T_L of whole images taken as views: (B, 3, H, W) -> (B, k). For looking at what attributes mean."""
        return (self.local_encoder(pool(self.backbone(images)).float()) / self.temperature).softmax(
            -1
        )

    def sample_patches(self, batch) -> Tensor:
        """M boxes for every image (B, M, 4), in pixels of the images."""
        height, width = batch.images.shape[-2:]
        chosen = batch.draw(
            lambda n, generator: sample_patch_index(
                n, self.views, self.grids, self.uniform_over, generator
            )
        )
        return patch_boxes(height, width, self.grids)[chosen].to(batch.images.device)

    @torch.no_grad()
    def after_step(self) -> None:
        """Eq. 7. Averaging after a step is averaging before the next one: at the first, mean and encoder are the same."""
        if self.constraint == "mean":
            for mean, own in (
                (self.mean_local_encoder, self.local_encoder),
                (self.mean_global_encoder, self.global_encoder),
            ):
                for average, current in zip(mean.parameters(), own.parameters()):
                    average.lerp_(current, self.update_ratio)

    def _cooled(self, *attributes: Tensor) -> list[Tensor]:
        return [a.float() / self.temperature for a in attributes]


def attribute_constraint(
    own_local: Tensor, own_global: Tensor, mean_of_local: Tensor, mean_of_global: Tensor
) -> Tensor:
    """The attribute parameterisation constraint, eq. 6 (and eq. 5, when encoders stand in for mean encoders).

    Args:
        own_local: T_L(F_L).  own_global: T_G(F_G).  mean_of_local: E[T_G](F_L).  mean_of_global: E[T_L](F_G).
        Each (B, M, k), before the softmax.
    Returns:
        () mean over B of the sum over M of KL(mean_of_local || own_local) + KL(mean_of_global || own_global).

    NOTE the print takes logarithms of raw encoder outputs, which may be negative; a softmax over k makes them distributions.
    """

    def divergence(teacher: Tensor, pupil: Tensor) -> Tensor:
        teacher, pupil = teacher.log_softmax(-1), pupil.log_softmax(-1)
        return (teacher.exp() * (teacher - pupil)).sum(-1)  # (B, M)

    return (
        (divergence(mean_of_local, own_local) + divergence(mean_of_global, own_global))
        .sum(1)
        .mean()
    )


def patch_boxes(height: int, width: int, grids: tuple[int, ...] = GRIDS) -> Tensor:
    """All patches of all grids (Sec. 3.2, input sampling): n x n cells of floor(H/n) x floor(W/n) pixels for each n.

    Returns:
        (sum of n^2, 4) long, x1 y1 x2 y2 in pixels, x2 and y2 exclusive; grid by grid, row by row.
    Raises:
        ValueError: the image has fewer pixels a side than a grid has cells.
    """
    boxes = []
    for n in grids:
        if min(height, width) < n:
            raise ValueError(
                f"an image of {height} x {width} px cannot be cut into {n} x {n} patches: use larger images or grids up to "
                f"{min(height, width)}"
            )
        rows, columns = torch.meshgrid(torch.arange(n), torch.arange(n), indexing="ij")
        y, x = rows.flatten() * (height // n), columns.flatten() * (width // n)
        boxes.append(torch.stack([x, y, x + width // n, y + height // n], dim=1))
    return torch.cat(boxes)


def sample_patch_index(
    n: int, views: int, grids: tuple[int, ...], uniform_over: str, generator: torch.Generator
) -> Tensor:
    """Which patches each of n images is looked at through: (n, views) rows of `patch_boxes`, drawn with replacement."""
    cells = torch.tensor([g * g for g in grids])
    if uniform_over == "patches":
        return torch.randint(int(cells.sum()), (n, views), generator=generator)
    grid = torch.randint(len(grids), (n, views), generator=generator)
    within = (torch.rand(n, views, generator=generator, dtype=torch.float64) * cells[grid]).long()
    return (cells.cumsum(0) - cells)[grid] + within


def roi_average(
    features: Tensor, boxes: Tensor, image_size: tuple[int, int], bins: int = 7, samples: int = 2
) -> Tensor:
    """g(F_G): RoIAlign (He et al. 2017, aligned) of every box to bins x bins cells, then global average pooling.

    Bilinear sampling on a regular lattice and averaging are linear and separable, so both together are one weight for each row
    times one for each column of the map: a matrix product instead of a lattice of samples.

    Args:
        features: (B, C, h, w).  boxes: (B, M, 4) x1 y1 x2 y2 in pixels of images of image_size (H, W).
    Returns:
        (B, M, C), of the features' dtype; equal to torchvision's roi_align(..., aligned=True, sampling_ratio=samples).mean((2, 3)).
    """
    boxes = boxes.float()
    height, width = features.shape[-2:]
    rows = _sampling_weights(
        boxes[..., 1], boxes[..., 3], height / image_size[0], height, bins * samples
    )  # (B, M, h)
    columns = _sampling_weights(
        boxes[..., 0], boxes[..., 2], width / image_size[1], width, bins * samples
    )  # (B, M, w)
    weights = (rows[..., :, None] * columns[..., None, :]).flatten(2)  # (B, M, h*w)
    return weights.to(features.dtype) @ features.flatten(2).transpose(1, 2)


def _sampling_weights(
    start: Tensor, stop: Tensor, scale: float, length: int, points: int
) -> Tensor:
    start, stop = (
        start * scale - 0.5,
        stop * scale - 0.5,
    )  # half a cell, so that cell centres are whole numbers
    steps = (torch.arange(points, device=start.device) + 0.5) / points
    positions = (start[..., None] + (stop - start)[..., None] * steps).clamp(
        0, length - 1
    )  # (B, M, points)
    cells = torch.arange(length, device=start.device)
    return (1 - (positions[..., None] - cells).abs()).clamp(min=0).mean(-2)


def _check(
    classification, constraint, views, attributes, update_ratio, grids, uniform_over, temperature
) -> None:
    if constraint not in ("mean", "direct", "none"):
        raise ValueError(
            f"constraint is '{constraint}': it must be 'mean' (eq. 6), 'direct' (eq. 5) or 'none' (L_a alone)"
        )
    if constraint == "none" and not classification:
        raise ValueError(
            "no loss is left: use classification, or constraint 'mean' or 'direct', or both"
        )
    if uniform_over not in ("patches", "grids"):
        raise ValueError(f"uniform_over is '{uniform_over}': it must be 'patches' or 'grids'")
    if views < 1 or attributes < 1:
        raise ValueError(f"views ({views}) and attributes ({attributes}) must be at least 1")
    if not 0 <= update_ratio < 1:
        raise ValueError(f"update_ratio is {update_ratio}: it must be at least 0 and below 1")
    if not grids or min(grids) < 1:
        raise ValueError(f"grids are {tuple(grids)}: give one or more whole numbers of at least 1")
    if temperature <= 0:
        raise ValueError(f"temperature is {temperature}: it must be positive")
