"""Small pictures on disk."""

from pathlib import Path

import numpy as np
from PIL import Image


def gradient(height: int, width: int) -> np.ndarray:
    """A smooth colour picture in which every corner differs."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    return np.stack([255 * x, 255 * y, 127 * (x + 1 - y)], axis=-1).round().astype(np.uint8)


def save(path: Path, array_or_image, **options) -> Path:
    image = (
        array_or_image
        if isinstance(array_or_image, Image.Image)
        else Image.fromarray(array_or_image)
    )
    image.save(path, **options)
    return path
