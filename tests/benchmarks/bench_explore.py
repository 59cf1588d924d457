"""Explore at 10,000 pictures: from a query to the drawn gallery, from a slider to the mask; and a query among a million codes.

    python tests/benchmarks/bench_explore.py [--pictures 10000] [--threads 2]

The kernel's share, with the message to the browser put in words; tests/browser/test_explore.py prints what a browser sees in all,
for a small gallery. Runs of VAPNet, FCAENet and PAN are made first, in a temporary folder, with the default network.
"""

import argparse
import io
import json
import statistics
import tempfile
import time
from pathlib import Path

import torch
from fieldlab.explorer.exploring import CodeFinder, Gallery
from fieldlab.explorer.panels import Explorer
from fieldmarks.experiments import fewshot, hashing, open_set
from PIL import Image

BIRDS = "24 classes, 8 images, 128 px, seed 0, standard"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pictures", type=int, default=10_000)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        make_runs(Path(folder))
        explorer = Explorer(Path(folder), device="cpu")
        enlarge(explorer, options.pictures)
        rows = [
            f"{finder.name} {tuple(finder.rows.shape)}"
            for finder in [*explorer.finders, explorer.baseline]
        ]
        print(f"{len(explorer.gallery):,} pictures; {', '.join(rows)}")
        report(
            "query to drawn gallery, picture of the gallery",
            300,
            [until_drawn(explorer, lambda: explorer.ask(97 * turn)) for turn in range(1, 12)],
        )
        report(
            "query to drawn gallery, uploaded picture",
            300,
            [
                until_drawn(explorer, lambda: explorer._received("own.jpg", photograph(turn)))
                for turn in range(7)
            ],
        )
        explorer.ask(0)
        report(
            "slider to redrawn mask",
            100,
            [timed(lambda: slide(explorer, n)) for n in range(60, 80)],
        )
        names = [finder.name for finder, _ in explorer._shown]
        for number, name in enumerate(names):
            report(
                f"why, {name}",
                None,
                [timed(lambda: explain(explorer, number, place)) for place in range(5)],
            )
    codes = torch.where(torch.rand(1_000_000, 48) > 0.5, 1.0, -1.0)
    finder = CodeFinder("codes", None, None, codes, "")
    report(
        "query among 1,000,000 codes of 48 bits",
        1000,
        [timed(lambda: finder.find(codes[turn], 10, turn)) for turn in range(5)],
    )


def make_runs(folder: Path) -> None:
    shared = [f"fieldguide={BIRDS}", "progress=none", "device=cpu"]
    assert open_set.main([*shared, "epochs=1", f"out={folder / 'vapnet'}"]) == 0
    assert (
        hashing.main(
            [
                *shared,
                "epochs=1",
                "passes=1",
                "max_classes=6",
                "bits=48",
                f"out={folder / 'fcaenet'}",
            ]
        )
        == 0
    )
    few = ["ways=3", "shots=2", "queries=6", "episodes=20", "validation_episodes=10", "epochs=10"]
    assert fewshot.main([*shared, *few, f"out={folder / 'pan'}"]) == 0


def enlarge(explorer: Explorer, count: int) -> None:
    """The same pictures again and again, their rows a little different each time."""
    small = explorer.gallery
    places = torch.arange(count) % len(small)
    gallery = Gallery(
        "",
        [small.paths[place] for place in places.tolist()],
        small.labels[places],
        small.class_names,
        small.learnt,
    )
    torch.manual_seed(0)
    for finder in [*explorer.finders, explorer.baseline]:
        rows, finder.gallery = finder.rows[places], gallery
        if isinstance(finder, CodeFinder):
            finder.rows = rows * torch.where(torch.rand(rows.shape) > 0.05, 1.0, -1.0)
            finder.__post_init__()
        else:
            finder.rows, finder._units = rows + 0.05 * rows.std() * torch.randn(rows.shape), None
    explorer.gallery = gallery
    explorer._thumbnails.clear()
    gallery.pixels(explorer.finders[0].model.resize)


def photograph(number: int) -> bytes:
    with io.BytesIO() as stream:
        Image.effect_noise((400 + number, 300), 60).convert("RGB").save(stream, "JPEG")
        return stream.getvalue()


def until_drawn(explorer: Explorer, work) -> float:
    """Milliseconds until the last row of results is on its way to the browser; panels further down follow."""
    drawn = []

    def note(change) -> None:
        json.dumps(change["new"])
        drawn.append(time.perf_counter())

    for row in explorer._rows:
        row.observe(note, "items")
    began = time.perf_counter()
    work()
    for row in explorer._rows:
        row.unobserve(note, "items")
    assert drawn, explorer._query_message.value
    return 1000 * (drawn[-1] - began)


def slide(explorer: Explorer, regions: int) -> None:
    explorer._regions.value = regions


def explain(explorer: Explorer, number: int, place: int) -> None:
    explorer._rows[number].chosen = place


def timed(work) -> float:
    began = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - began)


def report(what: str, limit: float | None, milliseconds: list[float]) -> None:
    """The median after a first time to warm up."""
    measured = statistics.median(milliseconds[1:])
    words = f"  (limit {limit} ms)" if limit else ""
    print(
        f"{what}: {measured:.0f} ms, worst {max(milliseconds[1:]):.0f}, first {milliseconds[0]:.0f}{words}"
    )


if __name__ == "__main__":
    main()
