"""Search indexes over hash codes: packed eight bits to a byte, searched by faiss, saved in a file that anyone can load.

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

from fieldmarks.codes import as_bits
from fieldmarks.files import atomic, write_json

FLAT_UP_TO = (
    1_000_000  # an exact search of 48 bits among these takes about 5 ms a query on one core
)
CODES_PER_LIST = 39  # fewer distinct ones are too few to place a centre (faiss's own limit)
SAMPLE_PER_LIST = 256  # more add nothing to it
SEED = 0


def pack(codes) -> np.ndarray:
    """(N, k) of -1/+1 -> (N, ceil(k / 8)) uint8: +1 is a set bit, the first one highest; the last byte is filled up with zeros.

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
        raise ValueError(
            f"these codes are longer than {bits} bits: what should be padding is not zero"
        )
    return torch.from_numpy(unpacked[:, :bits]).float() * 2 - 1


class CodeIndex:
    """A gallery of codes to search; make one with `build` or `load`.

    "flat" compares a query with every code: exact. "ivf" keeps the codes in lists around centres, and compares a query only
    with the `probes` lists nearest to it: `recall_against_exact` says what that misses.
    """

    def __init__(self, index: faiss.IndexBinary, bits: int):
        self._index, self.bits = index, bits

    @classmethod
    def build(cls, codes, kind: str = "auto") -> "CodeIndex":
        """Args:
            codes: (N, k) of -1/+1; results name them by their position here.
            kind: "flat", "ivf", or "auto": flat up to a million codes, ivf beyond.

        Raises:
            ValueError: no codes, a value other than -1 and +1, or an unknown kind.
        """
        bits = as_bits(codes)
        if kind == "auto":
            kind = "flat" if len(bits) <= FLAT_UP_TO else "ivf"
        if kind not in _BUILDERS:
            raise ValueError(f"kind is {kind!r}: it must be 'auto', 'flat' or 'ivf'")
        packed = np.packbits(bits, axis=1)
        index = _BUILDERS[kind](packed)
        index.add(packed)
        return cls(index, bits.shape[1])

    @classmethod
    def of_packed(cls, packed: np.ndarray, bits: int) -> "CodeIndex":
        """A flat index of codes as `pack` gives them, (N, ceil(bits / 8)) uint8, which may be mapped into memory.

        Raises:
            ValueError: no codes, or of another length.
        """
        _check_packed(packed, bits)
        index = _flat(packed)
        index.add(np.ascontiguousarray(packed))
        return cls(index, bits)

    def __len__(self) -> int:
        return self._index.ntotal

    @property
    def kind(self) -> str:
        return "ivf" if isinstance(self._index, faiss.IndexBinaryIVF) else "flat"

    @property
    def lists(self) -> int:
        """How many lists the codes lie in; 1 for a flat index."""
        return self._index.nlist if self.kind == "ivf" else 1

    @property
    def probes(self) -> int:
        """How many lists a query looks into, 1 .. lists: more find more and take longer. Settable; saved with the index."""
        return self._index.nprobe if self.kind == "ivf" else 1

    @probes.setter
    def probes(self, value: int) -> None:
        if not 1 <= value <= self.lists:
            raise ValueError(
                f"probes is {value}: it must lie between 1 and the {self.lists} lists of this {self.kind} index"
            )
        if self.kind == "ivf":
            self._index.nprobe = value

    def search(self, codes, k: int) -> tuple[Tensor, Tensor]:
        """The k nearest codes of each query, nearest first; at equal distances the lower position first.

        NOTE where more codes lie at the k-th distance than there is room for, faiss chooses which of them to return.

        Args:
            codes: (Q, bits) of -1/+1.
            k: 1 .. len(self).

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
        """What share of each query's k results is as near as the exact k-th nearest; 1 if flat. Arguments as in `search`."""
        queries = self._pack_queries(codes)
        flat = faiss.IndexBinaryFlat(self._index.d)
        flat.add(self._index.reconstruct_n(0, len(self)))
        exact, _ = CodeIndex(flat, self.bits)._search(queries, k)
        found, _ = self._search(queries, k)
        return float((found <= exact[:, -1:]).mean())

    def save(self, path: Path) -> None:
        """Write a faiss binary index at `path`, and then beside it `path`.json with the length of the codes.

        Raises:
            OSError: one of them cannot be written.
        """
        with atomic(path) as temporary:
            faiss.write_index_binary(self._index, str(temporary))
        write_json(_note(path), {"bits": self.bits, "codes": len(self)})

    @classmethod
    def load(cls, path: Path) -> "CodeIndex":
        """What `save` wrote.

        Raises:
            FileNotFoundError: the index or its .json is missing.
            ValueError: one of them cannot be read, or they do not belong together.
        """
        for file in (Path(path), _note(path)):
            if not file.is_file():
                raise FileNotFoundError(
                    f"there is no '{file}': an index is two files, '{path}' and '{_note(path)}'"
                )
        try:
            index = faiss.read_index_binary(str(path))
        except RuntimeError as error:
            raise ValueError(f"'{path}' is not a faiss index of binary codes") from error
        try:
            note = json.loads(_note(path).read_text())
            bits, size = int(note["bits"]), int(note["codes"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f'\'{_note(path)}\' must hold "bits" and "codes", whole numbers'
            ) from error
        if index.d != -(-bits // 8) * 8 or index.ntotal != size:
            raise ValueError(
                f"'{_note(path)}' tells of {size} codes of {bits} bits, but '{path}' holds {index.ntotal} of up "
                f"to {index.d}: these two files do not belong together; save the index again"
            )
        return cls(index, bits)

    def _pack_queries(self, codes) -> np.ndarray:
        bits = as_bits(codes)
        if bits.shape[1] != self.bits:
            raise ValueError(
                f"the codes have {bits.shape[1]} bits, those in the index have {self.bits}: they must be equal"
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
        distances, positions = (
            np.take_along_axis(part, order, axis=1) for part in (distances, positions)
        )
        return distances.astype(np.int64), positions


def _check_packed(packed: np.ndarray, bits: int) -> None:
    if bits < 1 or packed.dtype != np.uint8 or packed.ndim != 2 or packed.shape[1] != -(-bits // 8):
        raise ValueError(
            f"packed codes of {bits} bits are (N, {-(-bits // 8)}) uint8, got {packed.shape} {packed.dtype}"
        )


def _flat(packed: np.ndarray) -> faiss.IndexBinary:
    return faiss.IndexBinaryFlat(8 * packed.shape[1])


def _ivf(packed: np.ndarray) -> faiss.IndexBinary:
    """Inverted lists, about sqrt(N) of them; looking into an eighth finds 98 % even among a million random codes of 48 bits.

    Centres are fitted to distinct codes: trained codes repeat, and k-means cannot place more centres than there are points.
    """
    lists = round(len(packed) ** 0.5)
    sample = min(len(packed), SAMPLE_PER_LIST * lists)
    distinct = np.unique(
        packed[np.random.default_rng(SEED).choice(len(packed), sample, replace=False)], axis=0
    )
    lists = max(min(lists, len(distinct) // CODES_PER_LIST), 1)
    index = faiss.index_binary_factory(8 * packed.shape[1], f"BIVF{lists}")
    index.cp.min_points_per_centroid = 1  # a single list of very few codes is no reason to warn
    index.train(distinct)
    index.nprobe = -(-lists // 8)
    return index


_BUILDERS = {"flat": _flat, "ivf": _ivf}


def _note(path: Path) -> Path:
    return Path(f"{path}.json")
