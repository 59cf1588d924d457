"""What finished runs saved, measured again: from embeddings or codes come the metrics, and one value for each query.

This is what claims are tested on, and what `fieldmarks report --verify` holds the written numbers against.
"""
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ..evaluation.code_usage import distinct_class_codes
from ..evaluation.hamming import average_precision, lookup
from ..evaluation.recall import average_precision_at_r, hits_at_k


@dataclass(frozen=True)
class Measured:
    """A run's retrieval, scored from what it saved.

    Attributes:
        labels: (Q,) of the queries.
        values: of metrics that are means over queries, (Q,) float64, NaN for a query that does not count.
        others: the other metrics, fractions.
    """

    labels: Tensor
    values: dict[str, Tensor]
    others: dict[str, float]

    @property
    def metrics(self) -> dict[str, float]:
        return {name: value.nanmean().item() for name, value in self.values.items()} | self.others


@dataclass(frozen=True)
class Saved:
    """What a kind of experiment leaves in its folder, and how its metrics come from it: (tensors, result) -> Measured."""

    file: str
    measure: Callable[[dict[str, Tensor], dict], Measured]


def measure_again(folder: Path, result: dict) -> Measured:
    """Score what a finished run saved.

    Raises:
        ValueError: it cannot be done; one line that says why, without the folder.
        NothingSaved: runs of this kind save nothing that could be scored.
    """
    kind = result.get("experiment")
    if kind not in KINDS:
        raise NothingSaved(f"{kind or 'a run of unknown kind'} saves no embeddings or codes that are known here")
    saved = KINDS[kind]
    try:
        return saved.measure(_load(Path(folder) / saved.file), result)
    except KeyError as error:
        raise ValueError(f"{saved.file} lacks {error.args[0]!r}") from None


class NothingSaved(ValueError):
    """Not a fault of the run."""


def _load(file: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except FileNotFoundError:
        raise ValueError(f"{file.name} is not there") from None
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{file.name} cannot be read: {error}") from None


# ---- kinds of experiments


def _open_set(saved: dict[str, Tensor], result: dict) -> Measured:
    embeddings, labels, counts = saved["embeddings"], saved["labels"], result["counts"]
    if "query" in saved:
        query, gallery = saved["query"], saved["gallery"]
        sides = embeddings[query], labels[query], embeddings[gallery], labels[gallery]
    elif counts["query"] == counts["gallery"] == len(labels):
        sides = embeddings, labels
    else:
        raise ValueError("embeddings.safetensors does not say which images are queries and which the gallery")
    ks = [int(name.removeprefix("recall@")) for name in result["metrics"] if name.startswith("recall@")]
    hits = hits_at_k(*sides, ks=ks or [1])
    values = {f"recall@{k}": column.double() for k, column in zip(ks, hits.T)}
    return Measured(sides[1], values | {"map@r": average_precision_at_r(*sides)}, {})


def _hashing(saved: dict[str, Tensor], result: dict) -> Measured:
    codes, labels = saved["query_codes"].float(), saved["query_labels"]
    database, database_labels = saved["database_codes"].float(), saved["database_labels"]
    sides, top = (codes, labels, database, database_labels), result["parameters"].get("top") or None
    near = lookup(*sides, radius=2)
    values = {"map": average_precision(*sides, top=top), "map_stable": average_precision(*sides, ties="stable", top=top)}
    return Measured(labels, values, {
        "precision@r2": near.precision, "recall@r2": near.recall, "found@r2": 1 - near.empty,
        "class_codes": distinct_class_codes(database, database_labels)})


KINDS = {
    "open_set": Saved("embeddings.safetensors", _open_set),
    "hashing": Saved("codes.safetensors", _hashing),
}
