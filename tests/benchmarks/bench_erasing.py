"""FCAENet beside its network: masks against a literal loop over Algorithm 1 and a bare step; codes.

python tests/benchmarks/bench_erasing.py [--network resnet18] [--size 224] [--batch 64]
    [--device cpu]
"""

import argparse
import statistics
import time

import torch

from fieldmarks.backbones import create_backbone
from fieldmarks.methods.fcaenet import (
    attention,
    class_agreement,
    erase_mask,
    similarity,
    update_codes,
)
from fieldmarks.training import DTYPES, choose_precision, synchronise


def literal_loop(attention: torch.Tensor, regions: int, size: int) -> torch.Tensor:
    """Algorithm 1 as it is printed, with boxes that include their corners, as in the tests."""
    height, width = attention.shape
    ranked = sorted(
        ((y, x) for y in range(height) for x in range(width)),
        key=lambda at: (-attention[at].item(), at),
    )
    padded = torch.ones(height + size, width + size)
    for y, x in ranked[:regions]:
        for j in range(size):
            for k in range(size):
                padded[y + j, x + k] = 0
    return padded[:height, :width]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--network", default="resnet18")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    device, size = torch.device(options.device), options.size // 7
    torch.manual_seed(0)
    backbone = (
        create_backbone(options.network, "none", options.size)
        .to(device, memory_format=torch.channels_last)
        .train()
    )
    precision = choose_precision("auto", device, backbone)
    images = torch.randn(
        3 * options.batch, 3, options.size, options.size, device=device
    ).contiguous(memory_format=torch.channels_last)

    def timed(run) -> float:
        synchronise(device)
        started = time.perf_counter()
        run()
        synchronise(device)
        return time.perf_counter() - started

    def bare_step() -> None:
        with torch.autocast(device.type, dtype=DTYPES[precision], enabled=precision != "fp32"):
            backbone(images).float().mean().backward()

    with torch.no_grad():
        features = backbone(images[: options.batch])

    def masks() -> torch.Tensor:
        return erase_mask(attention(features, images.shape[-2:]), 50, size)

    masks(), bare_step()
    step, mask = timed(bare_step), statistics.median(timed(masks) for _ in range(9))
    heat = attention(features, images.shape[-2:])
    few = heat[:2].cpu()
    loop = timed(lambda: [literal_loop(one, 50, size) for one in few]) / len(few) * options.batch
    assert torch.equal(erase_mask(heat, 50, size)[0, 0].cpu(), literal_loop(few[0], 50, size))
    print(
        f"masks of {options.batch} images of {options.size} px: {mask * 1e3:.0f} ms, "
        f"{100 * mask / step:.2f} % of three bare passes of {options.network} ({step:.1f} s, "
        f"{precision}; at most 2 %); literal loop over Algorithm 1 {loop / mask:.0f} x slower "
        "(at least 100)"
    )

    images_in_all, sampled, bits = 30_000, 4_000, 48
    labels = torch.arange(images_in_all, device=device) % 292
    rows = torch.randperm(images_in_all, device=device)[:sampled]
    outputs = torch.randn(sampled, bits, device=device).tanh()
    codes = torch.randint(2, (images_in_all, bits), device=device) * 2.0 - 1
    full = similarity(labels[rows], labels)
    seconds = statistics.median(timed(lambda: update_codes(codes, outputs, full)) for _ in range(3))
    negative = full.min().item()
    by_class = statistics.median(
        timed(lambda: class_agreement(outputs, labels[rows], labels, negative)) for _ in range(3)
    )
    print(
        f"update of {images_in_all:,} x {bits} codes from {sampled:,} samples: {seconds:.2f} s "
        "with a full similarity (at most 1 s), of which a training run replaces the greater part "
        f"by sums over classes, {by_class * 1e3:.0f} ms"
    )


if __name__ == "__main__":
    main()
