"""Explore at 10,000 pictures: from a query to the drawn gallery, from a slider to the mask.

    PYTHONPATH=tests python tests/benchmarks/bench_explore.py [--pictures 10000]
        [--codes 1000000] [--threads 2] [--backbone tf_efficientnet_lite0]

The kernel's share, with the message to the browser written as JSON; tests/fieldlab/browser prints
what a browser sees, for a small gallery. Runs of VAPNet, FCAENet and PAN are made first, in a
temporary folder. Last, a query among a million codes.
"""

import argparse
import io
import json
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

import torch
from PIL import Image

from fieldlab.explorer.exploring import CodeFinder
from fieldlab.explorer.gallery import Gallery
from fieldlab.explorer.panels import Explorer
from fieldmarks.experiments.fewshot import FewShot
from fieldmarks.experiments.hashing import Hashing
from fieldmarks.experiments.open_set import OpenSet
from helpers.experiments import arguments

BIRDS = {"classes": 24, "images": 8}
FEW = {"ways": 3, "shots": 2, "queries": 6, "episodes": 20, "validation_episodes": 10}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pictures", type=int, default=10_000)
    parser.add_argument("--codes", type=int, default=1_000_000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--backbone", default="tf_efficientnet_lite0")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        make_runs(Path(folder), options.backbone)
        explorer = Explorer(Path(folder), device="cpu")
        enlarge(explorer, options.pictures)
        rows = [
            f"{finder.name} {tuple(finder.rows.shape)}"
            for finder in [*explorer.finders, explorer.baseline]
        ]
        print(f"{len(explorer.gallery):,} pictures; {', '.join(rows)}")
        search, count = explorer.search_with, options.pictures
        gallery = [partial(search, 97 * turn % count) for turn in range(1, 12)]
        own = [partial(explorer._received, "own.jpg", photograph(turn)) for turn in range(7)]
        for where, queries in (("picture of the gallery", gallery), ("uploaded picture", own)):
            times = [until_drawn(explorer, query) for query in queries]
            report(f"query to drawn gallery, {where}", 300, times)
        search(0)
        slides = [partial(slide, explorer, regions) for regions in range(60, 80)]
        report("slider to redrawn mask", 100, [timed(work) for work in slides])
        names = [finder.name for finder, _ in explorer._shown]
        for number, name in enumerate(names):
            clicks = [partial(explain, explorer, number, place) for place in range(5)]
            report(f"why, {name}", None, [timed(work) for work in clicks])
    codes = torch.where(torch.rand(options.codes, 48) > 0.5, 1.0, -1.0)
    finder = CodeFinder("codes", None, Gallery("codes", []), codes)
    times = [timed(partial(finder.find, turn)) for turn in range(5)]
    report(f"query among {options.codes:,} codes of 48 bits", 1000, times)


def make_runs(folder: Path, backbone: str) -> None:
    bundled = "bundled" if backbone == "tf_efficientnet_lite0" else "none"
    network = {"backbone": backbone, "weights": bundled, "device": "cpu"}
    shared = {"generated": BIRDS, "progress": "none", "epochs": 1, **network}
    for name, kind, values in (
        ("vapnet", OpenSet, {}),
        ("fcaenet", Hashing, {"passes": 1, "max_classes": 6, "bits": 48}),
        ("pan", FewShot, {**FEW, "epochs": 10}),
    ):
        out = {"out": str(folder / name)}
        assert kind.main(arguments({**shared, **values, **out})) == 0


def enlarge(explorer: Explorer, count: int) -> None:
    """The same pictures again and again, their rows a little different each time."""
    small = explorer.gallery
    places = torch.arange(count) % len(small)
    gallery = Gallery(
        "",
        [small.paths[place] for place in places.tolist()],
        small.labels[places],
        small.class_names,
        small.learned,
    )
    torch.manual_seed(0)
    for finder in [*explorer.finders, explorer.baseline]:
        rows, finder.gallery = finder.rows[places], gallery
        if isinstance(finder, CodeFinder):
            finder.rows = rows * torch.where(torch.rand(rows.shape) > 0.05, 1.0, -1.0)
            finder.__post_init__()
        else:
            finder.rows = rows + 0.05 * rows.std() * torch.randn(rows.shape)
            vars(finder).pop("_units", None)  # kept for the rows before
            vars(finder).pop("plane", None)
    explorer.gallery = gallery
    explorer._thumbnails.clear()
    gallery.pixels(explorer.finders[0].model.resize)


def photograph(number: int) -> bytes:
    with io.BytesIO() as stream:
        Image.effect_noise((400 + number, 300), 60).convert("RGB").save(stream, "JPEG")
        return stream.getvalue()


def until_drawn(explorer: Explorer, work) -> float:
    """Milliseconds until the last row of results is on its way to the browser."""
    drawn = []

    def note(change) -> None:
        json.dumps(change["new"])
        drawn.append(time.perf_counter())

    for row in explorer._rows:
        row.items = []  # what is found may be the same again
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
    limit = f"  (limit {limit} ms)" if limit else ""
    others = f"worst {max(milliseconds[1:]):.0f}, first {milliseconds[0]:.0f}"
    print(f"{what}: {measured:.0f} ms, {others}{limit}")


if __name__ == "__main__":
    main()
