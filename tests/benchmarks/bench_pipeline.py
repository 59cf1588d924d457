"""Images a second that the input pipeline feeds from the cache, and that a network trains on.

    python tests/benchmarks/bench_pipeline.py FOLDER [--network resnet10t] [--size 112]
        [--resize 128] [--batch 32]

FOLDER holds class folders of images (a Fieldguide's images/, say). Both are measured in the same
run, with the same threads.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch

from fieldmarks.backbones import create_backbone
from fieldmarks.data import catalog
from fieldmarks.data.augment import TrainingViews
from fieldmarks.data.batches import TrainingStream
from fieldmarks.data.pixels import PixelCache
from fieldmarks.methods.vapnet import VAPNet
from fieldmarks.training import DTYPES, Settings, build_optimizer, choose_precision


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--network", default="resnet10t")
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--resize", type=int, default=128)
    parser.add_argument("--batch", type=int, default=32)
    options = parser.parse_args()
    images = catalog.load("folder", options.folder)
    backbone = create_backbone(options.network, "none", options.size)
    method = VAPNet(backbone, len(images.class_names), constraint="none")
    method.to(memory_format=torch.channels_last).train()
    precision = choose_precision("auto", torch.device("cpu"), method)
    optimizer = build_optimizer(method, Settings(lr=1e-3))
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        pixels = PixelCache.open(images.paths, options.resize, Path(folder))
        print(f"decoding once: {len(images) / (time.perf_counter() - started):.0f} images/s")
        views = TrainingViews(options.size, backbone.mean, backbone.std)
        stream = TrainingStream(pixels, images.labels, views, options.batch)

        def feed(epoch: int) -> float:
            started, count = time.perf_counter(), 0
            for batch in stream.epoch(epoch):
                count += len(batch["images"])
            return count / (time.perf_counter() - started)

        def train(epoch: int, steps: int = 12) -> float:
            batch = next(stream.epoch(epoch))
            started = time.perf_counter()
            for _ in range(steps):
                with torch.autocast("cpu", dtype=DTYPES[precision], enabled=precision != "fp32"):
                    loss = sum(method.losses(batch["images"], batch["labels"]).values())
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
            return steps * options.batch / (time.perf_counter() - started)

        feed(0), train(0)
        pairs = [(feed(round), train(round)) for round in range(1, 6)]
    feeding, training = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = statistics.median(a / b for a, b in pairs)
    print(
        f"{options.network} {options.size} px, {precision}, {torch.get_num_threads()} threads: "
        f"pipeline {feeding:.0f} images/s, training {training:.0f} images/s, "
        f"ratio {ratio:.1f} (at least 5)"
    )


if __name__ == "__main__":
    main()
