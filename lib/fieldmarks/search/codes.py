"""Search among hash codes by Hamming distance, packed eight bits to a byte, in faiss's files.

    index = CodeIndex.build(gallery_codes)
    index.save(folder / "codes.faiss")
    distances, positions = CodeIndex.load(folder / "codes.faiss").search(query_codes, k=10)

Codes are (N, k) of -1/+1. ValueError for other values, no codes, or codes of another length."""

import json
from pathlib import Path

import faiss
import numpy as np
import torch
from torch import Tensor

from fieldmarks.checks import one_of
from fieldmarks.codes import as_bits
from fieldmarks.search.lists import Lists

FLAT_UP_TO = 1_000_000  # an exact search of 48 bits takes about 5 ms a query on one core
CODES_PER_LIST = 39  # fewer distinct ones are too few to place a centre (faiss's own limit)
SAMPLE_PER_LIST = 256  # more add nothing to it
SEED = 0


def pack(codes) -> np.ndarray:
    """(N, k) of -1/+1 -> (N, ceil(k / 8)) uint8: +1 is a set bit, the first highest, then zeros."""
    return np.packbits(as_bits(codes), axis=1)


class CodeIndex(Lists):
    """A gallery of codes to search; make one with `build` or `load`. "flat" compares a query with
    every code: exact. "ivf" keeps codes in lists around centres, and compares it with the `probes`
    nearest lists alone; see `recall_against_exact`."""

    def __init__(self, index: faiss.IndexBinary, bits: int):
        super().__init__(index)
        self.bits = bits

    @classmethod
    def build(cls, codes, kind: str = "auto") -> "CodeIndex":
        """Of codes (N, k), named by their position. "auto": "flat" up to a million, else "ivf"."""
        one_of("kind", kind, ("auto", "flat", "ivf"))
        packed, bits = pack(codes), np.shape(codes)[1]
        if kind == "flat" or kind == "auto" and len(packed) <= FLAT_UP_TO:
            return cls.of_packed(packed, bits)
        return cls(_ivf(packed), bits)

    @classmethod
    def of_packed(cls, packed: np.ndarray, bits: int) -> "CodeIndex":
        """A flat index of codes as `pack` gives them, which may be mapped into memory."""
        _check_packed(packed, bits)
        index = faiss.IndexBinaryFlat(8 * packed.shape[1])
        index.add(np.ascontiguousarray(packed))
        return cls(index, bits)

    @property
    def kind(self) -> str:
        return "ivf" if isinstance(self._index, faiss.IndexBinaryIVF) else "flat"

    def search(self, codes, k: int) -> tuple[Tensor, Tensor]:
        """Distances and positions of the k nearest of each query (Q, bits), (Q, k) int64, nearest
        first; ties: lower position first. NOTE faiss chooses among ties at the k-th distance."""
        distances, positions = self._search(self._pack_queries(codes), k)
        return torch.from_numpy(distances), torch.from_numpy(positions)

    def search_packed(self, packed: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """As `search`, of packed queries (Q, ceil(bits / 8)), in arrays."""
        _check_packed(packed, self.bits)
        return self._search(packed, k)

    def recall_against_exact(self, codes, k: int) -> float:
        """The share of the results of `search` as near as the exact k-th nearest; 1 if flat."""
        queries = self._pack_queries(codes)
        flat = CodeIndex.of_packed(self._index.reconstruct_n(0, len(self)), self.bits)
        (exact, _), (distances, _) = flat._search(queries, k), self._search(queries, k)
        return float((distances <= exact[:, -1:]).mean())

    def save(self, path: Path) -> None:
        """A faiss binary index, and beside it `path`.json with the length of the codes."""
        self._write(path, faiss.write_index_binary, bits=self.bits, codes=len(self))

    @classmethod
    def load(cls, path: Path) -> "CodeIndex":
        """What `save` wrote: FileNotFoundError where a file is missing, ValueError where one cannot
        be read or they do not belong together."""
        note = Path(f"{path}.json")
        for file in (Path(path), note):
            if not file.is_file():
                files = f"'{path}' and '{note}'"
                raise FileNotFoundError(f"there is no '{file}': an index is two files, {files}")
        try:
            index = faiss.read_index_binary(str(path))
        except RuntimeError as error:
            raise ValueError(f"'{path}' is not a faiss index of binary codes") from error
        try:
            content = json.loads(note.read_text())
            bits, size = int(content["bits"]), int(content["codes"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f'\'{note}\' must hold "bits" and "codes", whole numbers') from error
        if index.d != -(-bits // 8) * 8 or index.ntotal != size:
            counts = f"{size} codes of {bits} bits, but '{path}' holds {index.ntotal} of {index.d}"
            raise ValueError(f"'{note}' tells of {counts}: these files do not belong together")
        return cls(index, bits)

    def _pack_queries(self, codes) -> np.ndarray:
        packed = pack(codes)
        if (bits := np.shape(codes)[1]) != self.bits:
            raise ValueError(f"the codes have {bits} bits, those in the index have {self.bits}")
        return packed

    def _search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        if not 1 <= k <= len(self):
            raise ValueError(f"k must lie between 1 and {len(self)}, got {k}")
        distances, positions = self._find(queries, k, k)
        order = np.lexsort((positions, distances), axis=1)
        distances = np.take_along_axis(distances, order, axis=1)
        return distances.astype(np.int64), np.take_along_axis(positions, order, axis=1)


def _check_packed(packed: np.ndarray, bits: int) -> None:
    width = -(-bits // 8)
    if bits < 1 or packed.dtype != np.uint8 or packed.shape[1:] != (width,):
        given = f"{packed.shape} {packed.dtype}"
        raise ValueError(f"packed codes of {bits} bits are (N, {width}) uint8, got {given}")


def _ivf(packed: np.ndarray) -> faiss.IndexBinary:
    """About sqrt(N) lists, centres fitted to distinct codes, for trained codes repeat; an eighth of
    the lists finds 98 % even of random codes of 48 bits."""
    lists = round(len(packed) ** 0.5)
    sample = min(len(packed), SAMPLE_PER_LIST * lists)
    chosen = np.random.default_rng(SEED).choice(len(packed), sample, replace=False)
    distinct = np.unique(packed[chosen], axis=0)
    lists = max(min(lists, len(distinct) // CODES_PER_LIST), 1)
    index: faiss.IndexBinaryIVF = faiss.index_binary_factory(8 * packed.shape[1], f"BIVF{lists}")
    index.cp.min_points_per_centroid = 1  # a single list of very few codes is no reason to warn
    index.train(distinct)
    index.nprobe = -(-lists // 8)
    index.add(packed)
    return index
