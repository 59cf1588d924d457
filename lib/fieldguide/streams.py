"""Separate random streams: what is drawn from one does not depend on how much others gave."""

from __future__ import annotations

from dataclasses import dataclass, replace
from zlib import crc32

import numpy as np


@dataclass(frozen=True)
class Streams:
    """The named random streams of one thing that is drawn, all of them from its `key`.

    A stream of an exchanged group gives other numbers than before; all others give the same.
    """

    key: tuple[int, ...]  # whole numbers from 0 on: seed, class, image, ...
    exchanged: tuple[str, int] = ("", 0)  # the group of streams, and which others it has

    def __call__(self, name: str) -> np.random.Generator:
        """The stream of that name, from its beginning. The name is "group" or "group/purpose"."""
        group, number = self.exchanged
        version = number if name.split("/")[0] == group else 0
        # The name ends the seed: numpy takes seeds that differ by zeros at the end for the same.
        return np.random.default_rng([*self.key, version, crc32(name.encode())])

    def exchange(self, group: str, number: int = 1) -> Streams:
        """The same streams, but for those of a group."""
        return replace(self, exchanged=(group, number))
