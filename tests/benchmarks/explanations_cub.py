"""Whether explanations of a match of photographs point at parts that people marked, a weak check:

    python tests/benchmarks/explanations_cub.py CUB_200_2011 [RUN] [--pictures 100] [--twins FILE]

RUN is a finished open-set run on CUB; without one it is the bundled network before training. Query
and match are two photographs of one unseen species, no photograph is in two pairs. Beside the maps
stand a random place in the picture, one in the bird's box, and the picture's middle. FILE is the
result.json of a run of `explanations` on the same kind of network: how alike the two order
explainers.
"""

import argparse
import json
import time
from itertools import islice
from pathlib import Path

import torch
from PIL import Image
from scipy.stats import spearmanr

import fieldmarks as fm
from fieldmarks.data.augment import TestViews
from fieldmarks.data.imageset import ImageSet
from fieldmarks.evaluation.explanations import compare, near_parts, references, summarise
from fieldmarks.experiments.explanations import USUAL
from fieldmarks.experiments.features import Unscaled
from fieldmarks.explain.explainer import remembering
from fieldmarks.explain.explainers import EXPLAINERS
from fieldmarks.memory import keep_freed_memory
from fieldmarks.methods.method import Method
from fieldmarks.random import seeded


def pairs(images: ImageSet):
    """(query, match), positions of two photographs of a class, the classes in turn."""
    order = torch.randperm(len(images), generator=seeded(0, 53))
    of_class = [order[images.labels[order] == one].tolist() for one in images.labels.unique()]
    for turn in range(0, max(map(len, of_class)), 2):
        yield from (rows[turn : turn + 2] for rows in of_class if len(rows) > turn + 1)


def located(images: ImageSet, row: int, views: TestViews) -> tuple[torch.Tensor, torch.Tensor]:
    """Visible parts (1, P, 2) and the box (1, 4) of a photograph in its view."""
    with Image.open(images.paths[row]) as file:
        size = torch.tensor([[file.height, file.width]])
    x, y, width, height = images.boxes[row]
    box = views.locate(torch.tensor([[[x, y], [x + width, y + height]]]), size)  # (1, 2, 2)
    parts = images.parts[row, images.parts[row, :, 2] == 1, :2]
    return views.locate(parts[None], size), torch.cat([box[:, 0], box[:, 1] - box[:, 0]], dim=1)


def explained(names, method, query, match, seconds: dict) -> dict[str, torch.Tensor]:
    """The explainers' maps (B, H, W) by name; what each took is added to `seconds`."""
    maps = {}
    with remembering(method.backbone, query, match):
        for name in names:
            began = time.perf_counter()
            maps[name] = EXPLAINERS[name](method.representation, method.backbone, query, match)
            seconds[name] += time.perf_counter() - began
    return maps


def collect(scores: dict, name: str, row: dict) -> None:
    for score, value in row.items():
        scores.setdefault(name, {}).setdefault(score, []).append(value)


def print_scores(scores: dict, seconds: dict, tested: tuple[str, ...]) -> None:
    """A row for each map, then the explainers against a blob in the middle in some of the scores;
    `scores` holds lists of (n,) by score by name."""
    scores = {n: {k: torch.cat(v) for k, v in row.items()} for n, row in scores.items()}
    for name, row in scores.items():
        cells = [f"{k} {s.mean:.2f} [{s.low:.2f}, {s.high:.2f}]"
                 for k, s in ((k, summarise(v)) for k, v in row.items())]  # fmt: skip
        count = len(next(iter(row.values())))
        cost = f" {1000 * seconds[name] / count:.0f} ms" if name in seconds else ""
        print(f"{name:22}", *cells, cost, sep=" | ")
    for score in tested:
        asked = {n: scores[n][score] for n in (*seconds, "middle")}
        lines = [f"{d.first} {d.mean:+.2f} [{d.low:+.2f}, {d.high:+.2f}] p {d.p:.3f}"
                 for d in compare(asked, "middle")]  # fmt: skip
        print(f"{score} against a blob in the middle (Holm):", *lines, sep="\n  ")


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path)
    parser.add_argument("run", type=Path, nargs="?")
    parser.add_argument("--pictures", type=int, default=100)
    parser.add_argument("--size", type=int, default=192, help="pixels, without a run")
    parser.add_argument(
        "--explainers", nargs="+", default=(*USUAL, "occlusion"), choices=list(EXPLAINERS)
    )
    parser.add_argument("--twins", type=Path)
    given = parser.parse_args()
    keep_freed_memory()
    if given.run:
        method = fm.load_run(given.run)
    else:
        method = Unscaled(Method(fm.create_backbone(image_size=given.size)))
    backbone, views = method.eval().backbone, TestViews.of(method.backbone)
    _, unseen = fm.load("cub", given.root).open_split()
    scores, seconds, seen = {}, dict.fromkeys(given.explainers, 0.0), []
    for query, match in islice(pairs(unseen), given.pictures):
        asked, found = (backbone.preprocess([unseen.paths[row]]) for row in (query, match))
        parts, box = located(unseen, match, views)
        x1, y1, x2, y2 = (*box[0, :2], *(box[0, :2] + box[0, 2:]))
        middles = torch.arange(views.size) + 0.5
        there = ((middles >= y1) & (middles <= y2))[:, None] & (middles >= x1) & (middles <= x2)
        floors = references(there[None], there[None])
        maps = {"uniform": floors["uniform"], "box": floors["outline"], "middle": floors["middle"]}
        maps |= explained(given.explainers, method, asked, found, seconds)
        for name, heat in maps.items():
            collect(scores, name, near_parts(heat, parts, box)._asdict())
        seen.append(int(((parts >= 0) & (parts <= views.size)).all(2).sum()))
    title, species = given.run.name if given.run else "bundled network", len(unseen.labels.unique())
    print(f"{title}: {len(seen)} pictures of {species} unseen species, {sum(seen) / len(seen):.1f} "
          f"of {unseen.parts.shape[1]} parts visible, {views.size} px")  # fmt: skip
    print_scores(scores, seconds, ("hit", "distance"))
    if given.twins:
        metrics = json.loads(given.twins.read_text())["metrics"]
        twins = {name: metrics.get(f"pointing: {name}, 192 px") for name in given.explainers}
        shared = [name for name, value in twins.items() if value is not None]
        hits = [torch.cat(scores[name]["hit"]).nanmean().item() for name in shared]
        order = spearmanr(hits, [twins[name] for name in shared]).statistic
        print(f"{len(shared)} explainers' order, hit against pointing on twins: {order:+.2f}")


if __name__ == "__main__":
    main()
