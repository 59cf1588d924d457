"""A small training run, started by tests in processes of its own: python training_run.py FOLDER
name=value ..."""

import json
import os
import signal
import sys
from pathlib import Path

import torch
from torch import nn

from fieldmarks.data.augment import TestViews, TrainingViews
from fieldmarks.data.batches import SampledStream, TrainingStream
from fieldmarks.evaluation.recall import recall_at_k
from fieldmarks.experiments.pairs import PairStream
from fieldmarks.methods.fcaenet import FCAENet
from fieldmarks.methods.hash_baselines import create_hash_baseline
from fieldmarks.methods.metric_baselines import create_baseline
from fieldmarks.methods.pair_network import PairNetwork
from fieldmarks.methods.pairs import pairs_from_labels
from fieldmarks.methods.vapnet import VAPNet
from fieldmarks.processes import processes
from fieldmarks.random import seeded
from fieldmarks.training import Settings, embed_all, fit

PLAIN = {"mean": (0.5,) * 3, "std": (0.25,) * 3}


class Pictures:
    """Coloured noise: classes differ in colour, so that there is something to learn."""

    def __init__(self, count=42, classes=6):
        generator = torch.Generator().manual_seed(0)
        self.labels = torch.arange(count) % classes
        colours = torch.randint(60, 190, (classes, 3, 1, 1), generator=generator)
        noise = torch.randint(-50, 50, (count, 3, 24, 30), generator=generator)
        self.canvas = (colours[self.labels] + noise).clamp(0, 255).to(torch.uint8)

    def __len__(self):
        return len(self.canvas)

    def batch(self, index):
        return self.canvas[index], torch.tensor([[24, 30]]).expand(len(index), -1)


class SmallBackbone(nn.Module):
    channels, mean, std = 8, PLAIN["mean"], PLAIN["std"]

    def __init__(self, norm="batch", dropout=0.1):
        super().__init__()
        normalise = nn.BatchNorm2d(8) if norm == "batch" else nn.GroupNorm(2, 8)
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2),
            normalise,
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Conv2d(8, 8, 3),
        )

    def forward(self, images):
        return self.layers(images)


def build(method="vapnet", norm="batch", dropout=0.1):
    torch.manual_seed(0)
    backbone = SmallBackbone(norm, dropout)
    if method == "vapnet":
        return VAPNet(backbone, 6, views=2, attributes=7, grids=(2, 4), constraint_weight=0.1)
    if method == "pan":
        return PairNetwork(
            "pan_hybrid", 12, 1, encoder="linear", hidden=(9,), free=3, none_slot=False
        )
    labels = Pictures().labels
    if method == "fcaenet":
        return FCAENet(backbone, 6, labels, regions=5, region_size=4, hash_lr=0.1)
    if method in ("dpsh", "dsh", "hashnet"):
        return create_hash_baseline(method, backbone, 6, labels)
    return create_baseline(method, backbone, 6, proxy_lr=1.0)


def draw_pairs(epoch):
    return pairs_from_labels(Pictures().labels, 30, seeded(0, 21, epoch))


def run(
    folder,
    method="vapnet",
    norm="batch",
    dropout=0.1,
    kill_at=0,
    stop_at=0,
    rank=0,
    world=1,
    progress="none",
    **settings,
):
    settings = Settings(**{"epochs": 4, "lr": 0.1, "warmup_steps": 3, "clip_norm": 5.0, **settings})
    pictures, model = Pictures(), build(method, norm, dropout)
    views = TrainingViews(16, **PLAIN)
    shared = {"seed": settings.seed, "rank": rank, "world": world}
    if method == "fcaenet":
        stream = SampledStream(pictures, pictures.labels, views, 8, sample=20, passes=2, **shared)
    elif method == "pan":
        features = pictures.canvas.flatten(1).float()[:, ::180] / 255
        stream = PairStream(features, draw_pairs, pictures.labels[:, None].eq(0).float(), (0, 20))
    else:
        draws = (
            {"boxes": lambda n, g: model.sample_boxes(n, 16, 16, g)} if method == "vapnet" else {}
        )
        stream = TrainingStream(pictures, pictures.labels, views, 8, draws=draws, **shared)
    steps, after_step = [0], model.after_step

    def counted():
        after_step()
        steps[0] += 1
        if steps[0] == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if steps[0] == stop_at:
            os.kill(os.getpid(), signal.SIGINT)

    model.after_step = counted

    def embed():
        if method == "pan":
            with torch.no_grad():
                return torch.nn.functional.normalize(model.encode(stream.features))
        return embed_all(model, pictures, TestViews(16, resize=24, **PLAIN), batch_size=16)

    def evaluate():
        return {"recall@1": recall_at_k(embed(), pictures.labels, ks=(1,))[1]}

    history = fit(model, stream, settings, folder=folder, evaluate=evaluate, progress=progress)
    return model, history, embed()


def outcome(model, history, embeddings):
    return {
        "method": model.state_dict(),
        "epochs": history.epochs,
        "evaluations": history.evaluations,
        "embeddings": embeddings,
    }


def main(folder, *words):
    options = {name: json.loads(value) for name, value in (word.split("=", 1) for word in words)}
    torch.set_num_threads(1)
    with processes(torch.device("cpu")) as (rank, world):
        for method in options.pop("methods", ["vapnet"]):
            done = run(Path(folder) / method, method, rank=rank, world=world, **options)
            torch.save(outcome(*done), Path(folder) / f"{method}-{rank}.pt")


if __name__ == "__main__":
    main(*sys.argv[1:])
