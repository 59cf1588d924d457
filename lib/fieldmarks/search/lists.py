"""What indexes of codes and of embeddings share: inverted lists, and how they are saved."""

from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np

from fieldmarks.files import atomic, write_json


class Lists:
    """A faiss index whose items lie in lists around centres, or all in one."""

    def __init__(self, index):
        self._index = index

    def __len__(self) -> int:
        return self._index.ntotal

    @property
    def lists(self) -> int:
        return getattr(self._index, "nlist", 1)

    @property
    def probes(self) -> int:
        """How many lists a query probes, 1 .. lists; settable, and saved with the index."""
        return getattr(self._index, "nprobe", 1)

    @probes.setter
    def probes(self, value: int) -> None:
        if not 1 <= value <= self.lists:
            raise ValueError(f"probes is {value}: it must lie between 1 and the {self.lists} lists")
        if self.lists > 1:
            self._index.nprobe = value

    def _find(self, queries: np.ndarray, depth: int, k: int) -> tuple[np.ndarray, np.ndarray]:
        """faiss's distances and positions, (Q, depth) each, -1 where the lists hold fewer; from all
        lists for a query that else finds fewer than k."""
        # no `params` here: faiss.contrib.torch_utils, which others import, cannot take them
        distances, places = self._index.search(queries, depth)
        short = (places >= 0).sum(axis=1) < k
        if short.any():
            probes, self.probes = self.probes, self.lists
            try:
                distances[short], places[short] = self._index.search(queries[short], depth)
            finally:
                self.probes = probes
        return distances, places

    def _write(self, path: Path, write: Callable, **note) -> None:
        """The index at `path`, then beside it `path`.json with the note; OSError if it cannot."""
        with atomic(path) as temporary, open(temporary, "wb") as stream:
            writer = faiss.PyCallbackIOWriter(stream.write)  # type: ignore[attr-defined]
            write(self._index, writer)
        write_json(Path(f"{path}.json"), note | {"bytes": Path(path).stat().st_size})
