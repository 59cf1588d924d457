"""Search among hash codes: packed eight bits to a byte, searched by faiss, saved in a file that anyone
can load.

    index = CodeIndex.build(gallery_codes)
    index.save(folder / "codes.faiss")
    distances, positions = CodeIndex.load(folder / "codes.faiss").search(query_codes, k=10)

Codes are (N, k) of -1/+1, as `to_codes` gives them; distances are Hamming distances, 0 .. k.
"""

import json
from pathlib import Path

import faiss
import numpy as np
import torch
from torch import Tensor

from fieldmarks.checks import one_of
from fieldmarks.codes import as_bits
from fieldmarks.search.lists import Lists, note_of

FLAT_UP_TO = 1_000_000  # an exact search of 48 bits takes about 5 ms a query on one core
CODES_PER_LIST = 39  # fewer distinct ones are too few to place a centre (faiss's own limit)
SAMPLE_PER_LIST = 256  # more add nothing to it
SEED = 0


def pack(codes) -> np.ndarray:
    """(N, k) of -1/+1 -> (N, ceil(k / 8)) uint8: +1 is a set bit, the first highest, then zeros.

    Raises:
        ValueError: no codes, or a value other than -1 and +1.
    """
    return np.packbits(as_bits(codes), axis=1)


def unpack(packed: np.ndarray, bits: int) -> Tensor:
    """The codes that were packed: (N, ceil(bits / 8)) uint8 -> (N, bits) float32 of -1/+1.

    Raises:
        ValueError: these cannot be packed codes of that length.
    """
    _check_packed(packed, bits)
    unpacked = np.unpackbits(packed, axis=1)
    if unpacked[:, bits:].any():
        raise ValueError(f"these codes are longer than {bits} bits: the padding is not zero")
    return torch.from_numpy(unpacked[:, :bits]).float() * 2 - 1


class CodeIndex(Lists):
    """A gallery of codes to search; make one with `build` or `load`.

    "flat" compares a query with every code: exact. "ivf" keeps the codes in lists around centres, and
    compares a query only with the `probes` lists nearest to it; see `recall_against_exact`.
    """

    def __init__(self, index: faiss.IndexBinary, bits: int):
        super().__init__(index)
        self.bits = bits

    @classmethod
    def build(cls, codes, kind: str = "auto") -> "CodeIndex":
        """Args:
            codes: (N, k) of -1/+1; results name them by their position here.
            kind: "flat", "ivf", or "auto": flat up to a million codes, ivf beyond.

        Raises:
            ValueError: no codes, a value other than -1 and +1, or an unknown kind.
        """
        one_of("kind", kind, ("auto", "flat", "ivf"))
        bits = as_bits(codes)
        if kind == "auto":
            kind = "flat" if len(bits) <= FLAT_UP_TO else "ivf"
        packed = np.packbits(bits, axis=1)
        index = _flat(packed) if kind == "flat" else _ivf(packed)
        index.add(packed)
        return cls(index, bits.shape[1])

    @classmethod
    def of_packed(cls, packed: np.ndarray, bits: int) -> "CodeIndex":
        """A flat index of codes as `pack` gives them, which may be mapped into memory.

        Raises:
            ValueError: no codes, or of another length.
        """
        _check_packed(packed, bits)
        index = _flat(packed)
        index.add(np.ascontiguousarray(packed))
        return cls(index, bits)

    @property
    def kind(self) -> str:
        return "ivf" if isinstance(self._index, faiss.IndexBinaryIVF) else "flat"

    def search(self, codes, k: int) -> tuple[Tensor, Tensor]:
        """The k nearest codes of each query, nearest first; at equal distances lower position first.

        NOTE where more codes lie at the k-th distance than there is room for, faiss chooses which.

        Args:
            codes: (Q, bits) of -1/+1.  k: 1 .. len(self).

        Returns:
            distances (Q, k) and positions (Q, k), int64.

        Raises:
            ValueError: k out of range, codes of another length, or a value other than -1 and +1.
        """
        distances, positions = self._search(self._pack_queries(codes), k)
        return torch.from_numpy(distances), torch.from_numpy(positions)

    def search_packed(self, packed: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """As `search`, of packed queries (Q, ceil(bits / 8)), in arrays."""
        _check_packed(packed, self.bits)
        return self._search(packed, k)

    def recall_against_exact(self, codes, k: int) -> float:
        """The share of results as near as the exact k-th nearest; 1 if flat. Arguments of `search`."""
        queries = self._pack_queries(codes)
        flat = faiss.IndexBinaryFlat(self._index.d)
        flat.add(self._index.reconstruct_n(0, len(self)))
        exact, _ = CodeIndex(flat, self.bits)._search(queries, k)
        found, _ = self._search(queries, k)
        return float((found <= exact[:, -1:]).mean())

    def save(self, path: Path) -> None:
        """Write a faiss binary index, and beside it `path`.json with the length of the codes.

        Raises:
            OSError: one of them cannot be written.
        """
        self._write(path, faiss.write_index_binary, bits=self.bits, codes=len(self))

    @classmethod
    def load(cls, path: Path) -> "CodeIndex":
        """What `save` wrote.

        Raises:
            FileNotFoundError: the index or its .json is missing.
            ValueError: one of them cannot be read, or they do not belong together.
        """
        note = note_of(path)
        for file in (Path(path), note):
            if not file.is_file():
                raise FileNotFoundError(
                    f"there is no '{file}': an index is two files, '{path}' and '{note}'"
                )
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
            raise ValueError(
                f"'{note}' tells of {size} codes of {bits} bits, but '{path}' holds {index.ntotal} "
                f"of up to {index.d}: these files do not belong together; save the index again"
            )
        return cls(index, bits)

    def _pack_queries(self, codes) -> np.ndarray:
        bits = as_bits(codes)
        if bits.shape[1] != self.bits:
            raise ValueError(
                f"the codes have {bits.shape[1]} bits, those in the index have {self.bits}: "
                "they must be equal"
            )
        return np.packbits(bits, axis=1)

    def _search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        if not 1 <= k <= len(self):
            raise ValueError(
                f"k must lie between 1 and the {len(self)} codes of the index, got {k}"
            )
        distances, positions = self._index.search(queries, k)
        short = (positions < 0).any(axis=1)  # the lists looked into held fewer than k
        if short.any():
            probes, self.probes = self.probes, self.lists
            try:
                distances[short], positions[short] = self._index.search(queries[short], k)
            finally:
                self.probes = probes
        order = np.lexsort((positions, distances), axis=1)
        distances = np.take_along_axis(distances, order, axis=1)
        return distances.astype(np.int64), np.take_along_axis(positions, order, axis=1)


def _check_packed(packed: np.ndarray, bits: int) -> None:
    width = -(-bits // 8)
    if bits < 1 or packed.dtype != np.uint8 or packed.ndim != 2 or packed.shape[1] != width:
        raise ValueError(
            f"packed codes of {bits} bits are (N, {width}) uint8, got {packed.shape} {packed.dtype}"
        )


def _flat(packed: np.ndarray) -> faiss.IndexBinary:
    return faiss.IndexBinaryFlat(8 * packed.shape[1])


def _ivf(packed: np.ndarray) -> faiss.IndexBinary:
    """About sqrt(N) inverted lists; an eighth of them finds 98 % even of random codes of 48 bits.

    Centres are fitted to distinct codes: trained codes repeat, and k-means cannot place more centres
    than there are points.
    """
    lists = round(len(packed) ** 0.5)
    sample = min(len(packed), SAMPLE_PER_LIST * lists)
    chosen = np.random.default_rng(SEED).choice(len(packed), sample, replace=False)
    distinct = np.unique(packed[chosen], axis=0)
    lists = max(min(lists, len(distinct) // CODES_PER_LIST), 1)
    index = faiss.index_binary_factory(8 * packed.shape[1], f"BIVF{lists}")
    index.cp.min_points_per_centroid = 1  # a single list of very few codes is no reason to warn
    index.train(distinct)
    index.nprobe = -(-lists // 8)
    return index
