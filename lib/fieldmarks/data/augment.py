"""Whole batches of decoded images to whole batches of views, on the device.

Random numbers are drawn on the CPU, for the whole batch of all processes, whatever the device: a seed gives the same views on
every machine. Crop, resize and flip are one operation (`resampling`), colour jitter is one affine map of RGB for each image.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from fieldmarks.resampling import crop_and_resize

GREY = (0.299, 0.587, 0.114)  # luma of ITU-R BT.601


@dataclass(frozen=True)
class TrainingViews:
    """Random resized crop, flip, colour jitter, normalisation.

    Attributes:
        size: pixels a side of the views.  mean, std: three numbers each, from the backbone.
        scale: range of the crop's area as a share of the image's.  ratio: range of its width to height.
        jitter: brightness, contrast and saturation are each multiplied by a number from [1 - jitter, 1 + jitter].
    """

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    scale: tuple[float, float] = (0.2, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    jitter: float = 0.4

    def __call__(self, canvas: Tensor, sizes: Tensor, draw) -> Tensor:
        """canvas (B, 3, H, W) uint8 with images of `sizes` (B, 2) in its upper left -> (B, 3, size, size) float, normalised."""
        # One call to draw for each kind of number, so that each process of a distributed run gets its own rows of the same draw.
        numbers = draw(
            lambda n, generator: torch.rand(n, 40, generator=generator, dtype=torch.float64)
        )
        boxes = random_boxes(sizes, numbers[:, :36], self.scale, self.ratio)
        images = crop_and_resize(
            canvas.float().div_(255), boxes, self.size, flip=numbers[:, 36] < self.flip
        )
        factors = (1 + self.jitter * (2 * numbers[:, 37:] - 1)).float().to(images.device)  # (B, 3)
        return normalise(
            jitter_colours(images, factors) if self.jitter else images, self.mean, self.std
        )


@dataclass(frozen=True)
class TestViews:
    """The centre crop: of images whose shorter side has `resize` pixels, the middle `size` x `size`, normalised."""

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    resize: int
    __test__ = False  # not a test class, whatever its name

    def __call__(self, canvas: Tensor, sizes: Tensor, draw=None) -> Tensor:
        side = sizes.min(1).values * self.size / self.resize
        top, left = ((sizes - side[:, None]) / 2).round().unbind(1)
        boxes = torch.stack([left, top, left + side, top + side], dim=1)
        return normalise(
            crop_and_resize(canvas.float().div_(255), boxes, self.size), self.mean, self.std
        )


def random_boxes(
    sizes: Tensor, numbers: Tensor, scale: tuple[float, float], ratio: tuple[float, float]
) -> Tensor:
    """Boxes of random area and aspect that lie inside the images, in whole pixels (Szegedy et al. 2015).

    Nine tries for each image, the first that fits is taken; where none does, the largest centred box of allowed aspect.

    Args:
        sizes: (B, 2) height and width.  numbers: (B, 36), uniform on [0, 1).
    Returns:
        (B, 4) long, x1 y1 x2 y2.
    """
    height, width = sizes.double()[:, None].unbind(-1)  # (B, 1)
    area, aspect, top, left = numbers.double().unflatten(1, (4, 9)).unbind(1)  # (B, 9)
    area = height * width * (scale[0] + (scale[1] - scale[0]) * area)
    low, high = torch.tensor(ratio, dtype=torch.float64).log()
    aspect = (low + (high - low) * aspect).exp()
    h, w = (area / aspect).sqrt().round(), (area * aspect).sqrt().round()
    fits = (h >= 1) & (w >= 1) & (h <= height) & (w <= width)
    first = fits.int().argmax(1, keepdim=True)
    h, w, top, left = (value.gather(1, first) for value in (h, w, top, left))  # (B, 1)
    whole_h, whole_w = (
        torch.minimum(height, width / ratio[0]).floor(),
        torch.minimum(width, height * ratio[1]).floor(),
    )
    found = fits.any(1, keepdim=True)
    h, w = torch.where(found, h, whole_h), torch.where(found, w, whole_w)
    y1 = torch.where(found, (top * (height - h + 1)).floor(), ((height - h) / 2).floor())
    x1 = torch.where(found, (left * (width - w + 1)).floor(), ((width - w) / 2).floor())
    return torch.cat([x1, y1, x1 + w, y1 + h], dim=1).long()


def jitter_colours(images: Tensor, factors: Tensor) -> Tensor:
    """Multiply brightness, then contrast about the image's mean grey, then saturation about each pixel's grey.

    Args:
        images: (B, 3, H, W) in [0, 1].  factors: (B, 3) brightness, contrast, saturation.
    Returns:
        (B, 3, H, W), clamped to [0, 1] at the end.
    """
    brightness, contrast, saturation = factors[:, :, None, None, None].unbind(1)  # (B, 1, 1, 1)
    luma = torch.tensor(GREY, device=images.device).view(1, 3, 1, 1)
    images = images * brightness
    mean_grey = (images.mean((2, 3), keepdim=True) * luma).sum(1, keepdim=True)
    images = mean_grey + contrast * (images - mean_grey)
    grey = (images * luma).sum(1, keepdim=True)
    return torch.lerp(grey, images, saturation).clamp_(0, 1)


def normalise(images: Tensor, mean, std) -> Tensor:
    """(B, 3, H, W) in [0, 1] -> zero mean and unit deviation by the given statistics."""
    mean, std = (
        torch.tensor(value, device=images.device).view(1, 3, 1, 1) for value in (mean, std)
    )
    return (images - mean) / std


def denormalise(images: Tensor, mean, std) -> Tensor:
    """The inverse of `normalise`, clamped to [0, 1]: for looking at what a network saw."""
    mean, std = (
        torch.tensor(value, device=images.device).view(1, 3, 1, 1) for value in (mean, std)
    )
    return (images * std + mean).clamp(0, 1)
