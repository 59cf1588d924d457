"""What the indexes of codes and of embeddings share: lists that a search looks into, and two files."""

from collections.abc import Callable
from pathlib import Path

from fieldmarks.files import atomic, write_json


class Lists:
    """A faiss index whose items lie in lists around centres, or all in one."""

    def __init__(self, index):
        self._index = index

    def __len__(self) -> int:
        return self._index.ntotal

    @property
    def lists(self) -> int:
        """How many lists the items lie in; 1 for a flat index."""
        return getattr(self._index, "nlist", 1)

    @property
    def probes(self) -> int:
        """How many lists a query looks into, 1 .. lists: more find more and take longer. Settable;
        saved with the index."""
        return getattr(self._index, "nprobe", 1)

    @probes.setter
    def probes(self, value: int) -> None:
        if not 1 <= value <= self.lists:
            raise ValueError(
                f"probes is {value}: it must lie between 1 and the {self.lists} lists of this index"
            )
        if hasattr(self._index, "nprobe"):
            self._index.nprobe = value

    def _write(self, path: Path, write: Callable, **note) -> None:
        """The index at `path`, and then beside it `path`.json with the note and the file's size."""
        with atomic(path) as temporary:
            write(self._index, str(temporary))
        write_json(note_of(path), note | {"bytes": Path(path).stat().st_size})


def note_of(path: Path) -> Path:
    return Path(f"{path}.json")
