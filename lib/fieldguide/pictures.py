"""What birds' and garments' pictures have in common: how they are encoded, and lettering."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np
from PIL import ImageFont

JPEG_QUALITY = 92
SMALLEST = 32  # pixels of a side
SIZE = 224  # of a side where nothing is said: what networks crop from it is not an enlargement


def jpeg(image: np.ndarray) -> bytes:
    """A (height, width, 3) uint8 RGB picture as a JPEG file."""
    return _encoded(".jpg", image[..., ::-1], cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY)


def png(picture: np.ndarray) -> bytes:
    """A PNG file of a (height, width) bool mask, as 0 and 255, or a (height, width, 3) RGB picture,
    to the bit."""
    if picture.dtype == bool:
        return _encoded(".png", picture.view(np.uint8) * 255, cv2.IMWRITE_PNG_COMPRESSION, 3)
    return _encoded(".png", picture[..., ::-1], cv2.IMWRITE_PNG_COMPRESSION, 1)


def _encoded(extension: str, image: np.ndarray, *settings: int) -> bytes:
    done, data = cv2.imencode(extension, image, settings)
    if not done:
        raise RuntimeError(f"OpenCV could not encode a {image.shape} picture as {extension}")
    return data.tobytes()


@cache
def font(size: float) -> ImageFont.FreeTypeFont:
    """Pillow's own scalable font; size: pixels."""
    return ImageFont.load_default(max(6, round(size)))


def fitting_font(text: str, size: float, room: float) -> ImageFont.FreeTypeFont:
    """The font of that size, or a smaller one in which the text is no wider than `room` pixels."""
    return font(min(size, int(size * room / font(size).getlength(text))))
