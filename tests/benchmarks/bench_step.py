"""One training step of VAPNet or FCAENet against as many bare backbone passes, with gradients.

    python tests/benchmarks/bench_step.py [--method vapnet] [--network resnet10t] [--size 96]
        [--batch 32] [--views 4] [--precision auto] [--device cpu]

The two are timed in turn, at the same batch and precision, so that a machine whose speed drifts
slows both; the median of the ratios pair by pair is what counts.
"""

import argparse
import statistics
import time

import torch

from fieldmarks.backbones import create_backbone
from fieldmarks.data.augment import TrainingViews
from fieldmarks.memory import keep_freed_memory
from fieldmarks.methods.fcaenet import FCAENet
from fieldmarks.methods.vapnet import VAPNet
from fieldmarks.random import seeded
from fieldmarks.training import DTYPES, choose_precision, synchronise


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--method", default="vapnet", choices=("vapnet", "fcaenet"))
    parser.add_argument("--network", default="resnet10t")
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--views", type=int, default=4)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--frozen", type=int, default=0, help="stages, in the step and the passes")
    options = parser.parse_args()
    device = torch.device(options.device)
    torch.manual_seed(0)
    keep_freed_memory()
    backbone = create_backbone(options.network, "none", options.size)
    backbone.freeze(options.frozen)
    if options.method == "vapnet":
        method, images_each = VAPNet(backbone, 100, views=options.views), 1 + options.views
    else:  # as for CUB: 5,994 database images
        database = torch.arange(5994) % 200
        method, images_each = FCAENet(backbone, 48, database, region_size=options.size // 7), 3
    method.to(device, memory_format=torch.channels_last).train()
    precision = choose_precision(options.precision, device, method)
    optimizer = torch.optim.SGD(method.parameter_groups(1e-4, 0.0), momentum=0.9)
    side, channels_last = options.size * 8 // 7, {"memory_format": torch.channels_last}
    canvas = torch.randint(0, 256, (options.batch, 3, side, side), dtype=torch.uint8)
    sizes = torch.tensor([canvas.shape[-2:]]).expand(options.batch, -1)
    views = TrainingViews(options.size, method.backbone.mean, method.backbone.std)
    index = torch.arange(options.batch)
    labels = index.to(device)
    shape = (options.batch * images_each, 3, options.size, options.size)
    passes = torch.randn(shape, device=device).contiguous(**channels_last)

    def autocast():
        return torch.autocast(device.type, dtype=DTYPES[precision], enabled=precision != "fp32")

    def full_step(step: int) -> None:
        generator = seeded(step)

        def augmented() -> torch.Tensor:
            draw = lambda sample: sample(options.batch, generator)
            return views(canvas.to(device), sizes, draw)

        images = augmented()
        if options.method == "fcaenet":
            further = {"index": index, "positives": augmented()}
        else:
            further = {"generator": generator}
        with autocast():
            terms = method.losses(images, labels, **further)
        optimizer.zero_grad(set_to_none=True)
        sum(terms.values()).backward()
        optimizer.step()
        method.after_step()

    def bare_passes(step: int) -> None:
        with autocast():
            features = method.backbone(passes)
        method.zero_grad(set_to_none=True)
        features.float().mean().backward()

    def timed(run, step: int) -> float:
        synchronise(device)
        started = time.perf_counter()
        run(step)
        synchronise(device)
        return time.perf_counter() - started

    for run in (full_step, bare_passes) * 2:
        timed(run, 0)
    pairs = [(timed(full_step, step), timed(bare_passes, step)) for step in range(options.pairs)]
    steps, bare = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = statistics.median(a / b for a, b in pairs)
    gpu = device.type == "cuda"
    name = torch.cuda.get_device_name(device) if gpu else f"{torch.get_num_threads()} threads"
    print(
        f"{options.method}, {options.network} {options.size} px, batch {options.batch}, "
        f"{precision}, {name}: step with augmentation and optimiser {steps * 1e3:.0f} ms, "
        f"{images_each} bare passes {bare * 1e3:.0f} ms, ratio {ratio:.3f} (at most 1.15), "
        f"{options.batch / steps:.0f} images/s"
    )


if __name__ == "__main__":
    main()
