"""Cut boxes out of a batch of images and resize them all at once.

Resizing is linear and separable, so a crop-and-resize is two matrix products, rows then columns.
One pair of batched products serves a whole batch with a different box for every image, on any
device, with gradients and with antialiasing. Random resized crops, centre crops and VAPNet's local
views are all this one operation."""

import torch
from torch import Tensor


def crop_and_resize(images: Tensor, boxes: Tensor, size, flip: Tensor | None = None) -> Tensor:
    """Cut boxes from every image and resize them bilinearly, antialiased where they shrink.

    Equal to ``F.interpolate(images[b:b+1, :, y1:y2, x1:x2], size, mode="bilinear",
    antialias=True)`` for whole-pixel boxes: pixels outside a box never bleed into its view.

    Args:
        images: (B, C, H, W) floating point.
        boxes: (B, 4) or (B, M, 4) as x1 y1 x2 y2 in pixels, x2 and y2 exclusive.
        size: height and width of the views, or one number for both.
        flip: (B,) or (B, M) bool, mirror these views left to right.
    Returns:
        (B, C, h, w) or (B, M, C, h, w), of the images' dtype.
    Raises:
        ValueError: a box holds no pixel centre."""
    height, width = (size, size) if isinstance(size, int) else size
    x1, y1, x2, y2 = boxes.to(images.device, torch.float32).unbind(-1)
    rows = resize_weights(y1, y2, height, images.shape[-2])  # (B, [M,] h, H)
    columns = resize_weights(x1, x2, width, images.shape[-1])  # (B, [M,] w, W)
    if flip is not None:
        columns = torch.where(flip.to(images.device)[..., None, None], columns.flip(-2), columns)
    source = images if boxes.dim() == 2 else images[:, None]
    # Mixed precision would round pixels to 8 bits of mantissa here, for an operation that costs
    # next to nothing.
    with torch.autocast(images.device.type, enabled=False):
        views = rows[..., None, :, :] @ source.float() @ columns[..., None, :, :].transpose(-1, -2)
    return views.to(images.dtype)


def resize_weights(start: Tensor, stop: Tensor, size: int, length: int) -> Tensor:
    """Weights (..., size, length) float32 that resample stretches [start, stop) (...,) of an axis
    of `length` pixels to `size` pixels; rows sum to one.

    A triangle filter one output pixel wide (never narrower than one input pixel), cut at the
    stretch's ends and normalised: what Pillow calls BILINEAR, and for enlargements the usual
    bilinear interpolation with half-pixel centres. Raises ValueError as `crop_and_resize`."""
    start, stop = start[..., None, None], stop[..., None, None]
    scale = (stop - start) / size
    outputs = torch.arange(size, device=start.device, dtype=torch.float32)[:, None] + 0.5
    inputs = torch.arange(length, device=start.device, dtype=torch.float32) + 0.5
    inside = (inputs > start) & (inputs < stop)
    distance = (start + outputs * scale - inputs).abs() / scale.clamp(min=1)
    weights = (1 - distance).clamp(min=0) * inside
    total = weights.sum(-1, keepdim=True)
    if not bool(torch.all(total > 0)):
        right = "x1 y1 x2 y2 in pixels, at least one pixel wide and inside the image"
        raise ValueError(f"a box holds no pixel: boxes are {right}")
    return weights / total
