"""Whole batches of decoded images to whole batches of views, on the device.

Random numbers are drawn on the CPU, for the whole batch of all processes: a seed gives the same
views on every machine."""

from dataclasses import dataclass

import torch
from torch import Tensor

from fieldmarks.resampling import crop_and_resize

GREY = (0.299, 0.587, 0.114)  # luma of ITU-R BT.601


@dataclass(frozen=True)
class TrainingViews:
    """Random resized crop, flip, colour jitter, normalisation."""

    size: int  # pixels a side of the views
    mean: tuple[float, float, float]  # as std, from the backbone
    std: tuple[float, float, float]
    crop_scale: tuple[float, float] = (0.2, 1.0)  # of the crop's share of the area
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)  # of its width to its height
    flip: float = 0.5  # probability of mirroring left to right
    jitter: float = 0.4  # brightness, contrast, saturation: by 1 - jitter .. 1 + jitter

    def __call__(self, canvas: Tensor, sizes: Tensor, draw) -> Tensor:
        """canvas (B, 3, H, W) uint8 with images of `sizes` (B, 2) in the upper left -> (B, 3, size,
        size) float, normalised. `draw` returns this process's rows of what a function of (count of
        the whole batch, generator) gives."""
        numbers = draw(lambda n, g: torch.rand(n, 40, generator=g, dtype=torch.float64))
        boxes = random_boxes(sizes, numbers[:, :36], self.crop_scale, self.crop_ratio)
        flip = numbers[:, 36] < self.flip
        images = crop_and_resize(canvas.float().div_(255), boxes, self.size, flip=flip)
        if self.jitter:
            factors = 1 + self.jitter * (2 * numbers[:, 37:] - 1)  # (B, 3)
            images = jitter_colours(images, factors.float().to(images.device))
        return normalise(images, self.mean, self.std)


def check_views(*, crop_scale, crop_ratio, flip: float, jitter: float) -> None:
    """Raises ValueError for what no `TrainingViews` can have."""
    if len(crop_scale) != 2 or not 0 < crop_scale[0] <= crop_scale[1] <= 1:
        right = "give the smallest and the largest share, between 0 and 1"
        raise ValueError(f"crop_scale is {list(crop_scale)}: {right}")
    if len(crop_ratio) != 2 or not 0 < crop_ratio[0] <= crop_ratio[1]:
        right = "give the smallest and the largest width by height, above 0"
        raise ValueError(f"crop_ratio is {list(crop_ratio)}: {right}")
    for name, value in (("flip", flip), ("jitter", jitter)):
        if not 0 <= value <= 1:
            raise ValueError(f"{name} is {value}: it lies between 0 and 1")


@dataclass(frozen=True)
class TestViews:
    """Of images whose shorter side has `resize` pixels, the middle `size` x `size`, normalised."""

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    resize: int
    __test__ = False  # not a test class, whatever its name

    @classmethod
    def of(cls, backbone) -> "TestViews":
        """What the backbone's `preprocess` does, for batches of a pixel cache."""
        return cls(backbone.image_size, backbone.mean, backbone.std, backbone.resize)

    def __call__(self, canvas: Tensor, sizes: Tensor, draw=None) -> Tensor:
        return normalise(self.crop(canvas, sizes), self.mean, self.std)

    def crop(self, canvas: Tensor, sizes: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 and sizes (B, 2) -> (B, 3, size, size) in [0, 1]."""
        side = sizes.min(1).values * self.size / self.resize
        top, left = ((sizes - side[:, None]) / 2).round().unbind(1)
        boxes = torch.stack([left, top, left + side, top + side], dim=1)
        return crop_and_resize(canvas.float().div_(255), boxes, self.size)

    def locate(self, points: Tensor, files: Tensor) -> Tensor:
        """Points (B, P, 2), x y in pixels of files of height and width (B, 2) -> (B, P, 2) where
        they lie in the views, to a pixel, or beside them. Decoding and `crop` cut about middles."""
        middle, scale = files.flip(1)[:, None] / 2, self.resize / files.min(1).values
        return (points - middle) * scale[:, None, None] + self.size / 2


def random_boxes(sizes: Tensor, numbers: Tensor, scale, ratio) -> Tensor:
    """Boxes of random area and aspect inside images of `sizes` (B, 2), in whole pixels (Szegedy et
    al. 2015); `numbers` (B, 36) are uniform on [0, 1). Returns (B, 4) long, x1 y1 x2 y2: of nine
    tries the first that fits; where none does, the largest centred box of allowed aspect."""
    height, width = sizes.double()[:, None].unbind(-1)  # (B, 1)
    area, aspect, top, left = numbers.double().unflatten(1, (4, 9)).unbind(1)  # (B, 9)
    area = height * width * (scale[0] + (scale[1] - scale[0]) * area)
    low, high = torch.tensor(ratio, dtype=torch.float64).log()
    aspect = (low + (high - low) * aspect).exp()
    h, w = (area / aspect).sqrt().round(), (area * aspect).sqrt().round()
    fits = (h >= 1) & (w >= 1) & (h <= height) & (w <= width)
    first = fits.int().argmax(1, keepdim=True)
    h, w, top, left = (value.gather(1, first) for value in (h, w, top, left))  # (B, 1)
    fits = fits.any(1, keepdim=True)
    h = torch.where(fits, h, torch.minimum(height, width / ratio[0]).floor())
    w = torch.where(fits, w, torch.minimum(width, height * ratio[1]).floor())
    y1 = torch.where(fits, (top * (height - h + 1)).floor(), ((height - h) / 2).floor())
    x1 = torch.where(fits, (left * (width - w + 1)).floor(), ((width - w) / 2).floor())
    return torch.cat([x1, y1, x1 + w, y1 + h], dim=1).long()


def jitter_colours(images: Tensor, factors: Tensor) -> Tensor:
    """Multiply brightness, then contrast about the image's mean grey, then saturation about each
    pixel's grey, by `factors` (B, 3). (B, 3, H, W) in [0, 1] -> the same, clamped at the end."""
    brightness, contrast, saturation = factors[:, :, None, None, None].unbind(1)  # (B, 1, 1, 1)
    luma = torch.tensor(GREY, device=images.device).view(1, 3, 1, 1)
    images = images * brightness
    mean_grey = (images.mean((2, 3), keepdim=True) * luma).sum(1, keepdim=True)
    images = mean_grey + contrast * (images - mean_grey)
    grey = (images * luma).sum(1, keepdim=True)
    return torch.lerp(grey, images, saturation).clamp_(0, 1)


def normalise(images: Tensor, mean, std) -> Tensor:
    """(B, 3, H, W) in [0, 1] -> zero mean and unit deviation by the given statistics."""
    mean, std = (torch.tensor(v, device=images.device).view(1, 3, 1, 1) for v in (mean, std))
    return (images - mean) / std


def denormalise(images: Tensor, mean, std) -> Tensor:
    """The inverse of `normalise`, clamped to [0, 1]: for showing what a network saw."""
    mean, std = (torch.tensor(v, device=images.device).view(1, 3, 1, 1) for v in (mean, std))
    return (images * std + mean).clamp(0, 1)
