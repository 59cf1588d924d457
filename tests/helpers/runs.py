"""Finished runs of the small lab's card, with embeddings that can be measured again."""

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from fieldlab.cards.finished import FinishedRun
from fieldmarks.evaluation.statistics import bootstrap_interval
from fieldmarks.experiments.result import read_result, write_result
from fieldmarks.experiments.scores import Scores

ROWS = {"one": {"steps": 1}, "one + two": {"steps": 2}}
LABELS = torch.arange(20) // 4


def parameters(row="one", dataset="fieldguide", seed=0, **others) -> dict:
    return {
        "dataset": dataset,
        "root": "",
        "lr": 0.5,
        "grids": [2, 4],
        "flag": True,
        "behaviour": "good",
        "seed": seed,
        "out": "/x",
        "card": "paper-table1",
        **ROWS[row],
        **others,
    }


def naive_hits(embeddings, labels, k) -> list[bool]:
    """Whether any of the k nearest others by cosine has the query's label."""

    def dot(one, other):
        return sum(a * b for a, b in zip(one, other, strict=True))

    hits, rows = [], embeddings.tolist()
    for i, one in enumerate(rows):
        lengths = [(dot(one, one) * dot(other, other)) ** 0.5 for other in rows]
        cosine = [(dot(one, other) / lengths[j], -j) for j, other in enumerate(rows)]
        order = [-j for _, j in sorted(cosine, reverse=True) if -j != i]
        hits.append(any(labels[j] == labels[i] for j in order[:k]))
    return hits


def make_run(folder, row="one", dataset="fieldguide", seed=0, noise=1.0, given=None, **changes):
    """A run whose embeddings are class centres with noise; its metrics are theirs unless given."""
    folder.mkdir(parents=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8)).save(
        folder / "top_ten.jpg"
    )
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.eye(5)[LABELS] + noise * torch.randn(20, 5, generator=generator)
    save_file({"embeddings": embeddings, "labels": LABELS}, folder / "embeddings.safetensors")
    hits = torch.tensor(naive_hits(embeddings, LABELS, 1)).double()
    result = {
        "notebook": "notebooks/work.ipynb",
        "card": "paper-table1",
        "method": f"method {row}",
        "dataset": dataset,
        "parameters": parameters(row, dataset, seed, ks=[1], **(given or {})),
        "metrics": {"recall@1": hits.mean().item()},
        "intervals": {"recall@1": list(bootstrap_interval(hits)[1:])},
        "counts": {"train": 1000, "query": 20, "gallery": 20, "classes": 5, "train_classes": 50},
        "curves": {},
        "figures": ["top_ten.jpg"],
        "timing": {"train_seconds": 12.0, "images_per_second": 99.6},
        "device": "cpu",
        "experiment": "open_set",
        "module": "fieldmarks.experiments.open_set",
        "data_fingerprint": "abc",
    }
    write_result(folder, **{**result, **changes})
    return folder


def finished(folder) -> FinishedRun:
    return FinishedRun(folder, read_result(folder))


def bare(row="one", metrics=None, seed=0, dataset="fieldguide", name=None, **given) -> FinishedRun:
    """A run that is nowhere."""
    from pathlib import Path

    result = {
        "card": "paper-table1",
        "method": f"method {row}",
        "dataset": dataset,
        "parameters": parameters(row, dataset, seed, **given),
        "metrics": metrics or {"recall@1": 0.5},
        "intervals": {"recall@1": [0.4, 0.6]},
        "data_fingerprint": "abc",
        "counts": {"train": 1000, "query": 20, "gallery": 20, "classes": 5, "train_classes": 50},
        "environment": {"commit": "c", "device": "cpu"},
        "notebook": "notebooks/work.ipynb",
        "experiment": "open_set",
        "module": "fieldmarks.experiments.open_set",
    }
    return FinishedRun(Path(name or f"{row}-{dataset}-{seed}-{sorted(given.items())}"), result)


def measured(values, labels=None) -> Scores:
    values = torch.as_tensor(values, dtype=torch.float64)
    asked = torch.zeros(len(values)) if labels is None else torch.as_tensor(labels)
    return Scores({"recall@1": values}, {}, asked, len(values))
