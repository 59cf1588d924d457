"""What finished runs saved, measured again: from embeddings or codes come the metrics, and one value for each query.

This is what claims are tested on, and what `fieldmarks report --verify` holds the written numbers against.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from fieldmarks.evaluation.code_usage import distinct_class_codes
from fieldmarks.evaluation.episodes import accuracies
from fieldmarks.evaluation.hamming import average_precision, lookup
from fieldmarks.evaluation.outfits import (
    area_under_curve,
    auc_interval,
    fill_in_blank_hits,
    mean_area_under_curves,
)
from fieldmarks.evaluation.recall import average_precision_at_r, hits_at_k
from fieldmarks.evaluation.statistics import bootstrap_interval, seed_interval
from torch import Tensor


@dataclass(frozen=True)
class Measured:
    """A run's answers, scored from what it saved.

    Attributes:
        asked: what tells the queries from those of other runs: their labels, or which images an episode holds.
        queries: how many there are.
        values: of metrics that are means over queries (or over episodes), (Q,) float64, NaN for a query that does not count.
        others: the other metrics, fractions.
        groups: (Q,), queries that a bootstrap draws together; None: each by itself.
        intervals: of metrics whose interval is no bootstrap over queries, its two ends, computed when asked for.
    """

    asked: Tensor
    queries: int
    values: dict[str, Tensor]
    others: dict[str, float]
    groups: Tensor | None = None
    intervals: dict[str, Callable[[], Sequence[float]]] = field(default_factory=dict)

    @property
    def metrics(self) -> dict[str, float]:
        return {name: value.nanmean().item() for name, value in self.values.items()} | self.others

    def interval(self, metric: str) -> Sequence[float] | None:
        """The two ends of a metric's 95 % interval; None for one that has none."""
        if metric in self.intervals:
            return self.intervals[metric]()
        if metric not in self.values:
            return None
        known = ~self.values[metric].isnan()
        return bootstrap_interval(
            self.values[metric][known], groups=None if self.groups is None else self.groups[known]
        )[1:]


@dataclass(frozen=True)
class Saved:
    """What a kind of experiment leaves in its folder, how its metrics come from it: (tensors, result) -> Measured, and what they are
    means over."""

    file: str
    measure: Callable[[dict[str, Tensor], dict], Measured]
    over: str = "queries"


def measure_again(folder: Path, result: dict) -> Measured:
    """Score what a finished run saved.

    Raises:
        ValueError: it cannot be done; one line that says why, without the folder.
        NothingSaved: runs of this kind save nothing that could be scored.
    """
    kind = result.get("experiment")
    if kind not in KINDS:
        raise NothingSaved(
            f"{kind or 'a run of unknown kind'} saves no embeddings or codes that are known here"
        )
    saved = KINDS[kind]
    try:
        return saved.measure(_load(Path(folder) / saved.file), result)
    except KeyError as error:
        raise ValueError(f"{saved.file} lacks {error.args[0]!r}") from None


def means_over(result: dict) -> str:
    """What a run's metrics are means over, in a word."""
    kind = KINDS.get(result.get("experiment"))
    return kind.over if kind else "queries"


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
        raise ValueError(
            "embeddings.safetensors does not say which images are queries and which the gallery"
        )
    ks = [
        int(name.removeprefix("recall@"))
        for name in result["metrics"]
        if name.startswith("recall@")
    ]
    hits = hits_at_k(*sides, ks=ks or [1])
    values = {f"recall@{k}": column.double() for k, column in zip(ks, hits.T)}
    return Measured(sides[1], len(sides[1]), values | {"map@r": average_precision_at_r(*sides)}, {})


def _hashing(saved: dict[str, Tensor], result: dict) -> Measured:
    codes, labels = saved["query_codes"].float(), saved["query_labels"]
    database, database_labels = saved["database_codes"].float(), saved["database_labels"]
    sides, top = (codes, labels, database, database_labels), result["parameters"].get("top") or None
    near = lookup(*sides, radius=2)
    values = {
        "map": average_precision(*sides, top=top),
        "map_stable": average_precision(*sides, ties="stable", top=top),
    }
    return Measured(
        labels,
        len(labels),
        values,
        {
            "precision@r2": near.precision,
            "recall@r2": near.recall,
            "found@r2": 1 - near.empty,
            "class_codes": distinct_class_codes(database, database_labels),
        },
    )


def _outfits(saved: dict[str, Tensor], result: dict) -> Measured:
    shown, values, others, intervals, asked = result["parameters"]["neighbours"], {}, {}, {}, []
    for name, scores in saved.items():
        kind, part, *k = name.split("/")
        if kind not in ("choices", "outfits"):
            asked += [scores.flatten()]
            continue
        end = {"test": ""}.get(part, "_resampled")
        for which in (
            ("_degree",) if int(k[0]) < 0 else (f"_k{k[0]}", *([""] if int(k[0]) == shown else []))
        ):
            if kind == "choices":
                values[f"fitb{end}{which}"] = fill_in_blank_hits(scores, saved[f"right/{part}"])
            else:
                labels = saved[f"true/{part}"]
                others[f"auc{end}{which}"] = area_under_curve(scores, labels)
                intervals[f"auc{end}{which}"] = partial(auc_interval, scores, labels)
    queries = sum(len(saved[f"{kind}/test"]) for kind in ("right", "true"))
    return Measured(torch.cat(asked), queries, values, others, intervals=intervals)


def _fewshot(saved: dict[str, Tensor], result: dict) -> Measured:
    values = {"accuracy": accuracies(saved["class_scores"])}
    values |= {
        name.replace("accuracies", "accuracy"): value
        for name, value in saved.items()
        if name.startswith("accuracies_")
    }
    others = {"accuracy_validation": accuracies(saved["validation_scores"]).mean().item()}
    if "concepts" in saved:
        others["concept_auc"] = mean_area_under_curves(saved["concepts"], saved["concept_targets"])
    asked = torch.cat([saved[name].flatten() for name in ("support", "query")])
    intervals = {
        name: lambda value=value: seed_interval(value)[1:] for name, value in values.items()
    }
    return Measured(asked, saved["query"].numel(), values, others, intervals=intervals)


def _inshop(saved: dict[str, Tensor], result: dict) -> Measured:
    labels, values = saved["query_labels"], {}
    for name, index in saved.items():
        if name.startswith("index"):
            right = saved["gallery_labels"][index.long()] == labels[:, None]
            values |= {
                f"recall@{k}{name.removeprefix('index')}": right[:, :k].any(1).double()
                for k in result["parameters"]["ks"]
            }
    tied = (saved["scores"][:, 0] == saved["scores"][:, 1]).double().mean().item()
    return Measured(labels, len(labels), values, {"tied@1": tied}, groups=labels)


KINDS = {
    "open_set": Saved("embeddings.safetensors", _open_set),
    "hashing": Saved("codes.safetensors", _hashing),
    "outfits": Saved("scores.safetensors", _outfits),
    "fewshot": Saved("episodes.safetensors", _fewshot, "episodes"),
    "inshop": Saved("rankings.safetensors", _inshop),
}
