"""Two pictures that differ in one thing: what twins of birds and of garments have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import cv2
import numpy as np

SEEN = 16  # grey levels by which a pixel differs visibly


class Picture(Protocol):
    @property
    def image(self) -> np.ndarray: ...  # (side, side, 3) uint8 RGB

    @property
    def mask(self) -> np.ndarray: ...  # (side, side) bool: the visible bird or garment


P = TypeVar("P", bound=Picture)


class NoTwin(ValueError):
    """This cannot be exchanged for that in this picture."""


@dataclass(frozen=True)
class Twin(Generic[P]):
    """Two pictures that differ in one thing. Masks are (side, side) bool."""

    first: P
    second: P
    mark: str  # the field mark or attribute, or "scene" or "backdrop"
    value: str  # in the first picture; "" for a scene
    other_value: str
    changed: np.ndarray  # where the pictures differ at all
    shown: np.ndarray  # what shows the mark, as far as it is visible in either picture
    part: str = ""  # names of the parts that show it, for birds: "left wing; right wing"
    base: int = 0  # twins of one base picture share it
    left_out: int = 0  # exchanges of it that nobody would see, tried since the twin before

    @property
    def image(self) -> np.ndarray:  # (side, side, 3) uint8 RGB
        return self.first.image

    @property
    def other(self) -> np.ndarray:
        return self.second.image

    @property
    def bird(self) -> np.ndarray:
        """The visible bird, or garment, of either picture."""
        return self.first.mask | self.second.mask


def difference(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(side, side) uint8: of the channel of two RGB pictures that differs most."""
    return cv2.absdiff(first, second).max(axis=2)


def seen(apart: np.ndarray, share: float) -> bool:
    """Whether a difference is large enough to be seen in at least this share of the pixels."""
    return bool((apart >= SEEN).sum() >= max(2, share * apart.size))
