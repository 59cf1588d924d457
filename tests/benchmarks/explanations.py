"""Which explanation of a match points at what makes it: explainers scored on counterfactual twins.

    python tests/benchmarks/explanations.py RUN [--frozen] [--pictures 60] [--explainers NAME ...]

RUN is a finished open-set run on generated birds. For pictures of its unseen species every colour
that can be exchanged is, one at a time, and the network says how far the cosine to another picture
of the species falls. Pointing and mass are asked of the part whose exchange costs most; correctness
of all parts. Beside them stand maps that no network made. --frozen: the network before training.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch

import fieldmarks as fm
from fieldguide.birds.photographs import field_photograph
from fieldguide.birds.species import make_species
from fieldguide.birds.twins import EXCHANGEABLE, other_values, twin
from fieldguide.twins import NoTwin
from fieldmarks.evaluation.explanations import (
    compare,
    correctness,
    mass,
    painted,
    pointing,
    references,
    similarity_changes,
    summarise,
)
from fieldmarks.experiments.result import finished_run
from fieldmarks.explain.explainer import remembering
from fieldmarks.explain.explainers import EXPLAINERS
from fieldmarks.memory import keep_freed_memory

# One of each kind: behind an average, most of the package's maps are `place_map`.
USUAL = ("channel_mean", "place_map", "grad_cam_full_cosine", "eigen_grad_cam", "occlusion")
MARKS = [mark for mark in EXCHANGEABLE if mark.endswith("color")]
FIRST = 2_000_000  # number of the first picture within its species: none of the run's


def load(run: Path, frozen: bool):
    """The run's backbone, what gives its embeddings' representation, and its unseen species."""
    _, result = finished_run(run, "run")
    parameters = result["parameters"]
    method = fm.load_run(run)
    if frozen:
        size, resize = method.backbone.image_size, method.backbone.resize
        method.backbone = fm.create_backbone(parameters["backbone"], parameters["weights"], size)
        method.backbone.resize = resize
    given = parameters["generated"]
    _, unseen = fm.load("fieldguide", generated=given).open_split()
    species = make_species(given["classes"], given["seed"], given["difficulty"])
    return method.eval(), [(i, species[i]) for i in unseen.labels.unique().tolist()]


def explained(names, method, query, match, seconds: dict) -> dict[str, torch.Tensor]:
    """The explainers' maps (B, H, W) by name; what each took is added to `seconds`."""
    maps = {}
    with remembering(method.backbone):
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


def exchanged(picture, rng) -> list:
    """Twins of a picture, each with another colour of one mark."""
    found = []
    for mark in MARKS:
        for value in other_values(picture, mark, [], rng):
            try:
                found.append(twin(picture, mark, value))
                break
            except NoTwin:
                continue
    return found


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--frozen", action="store_true")
    parser.add_argument("--pictures", type=int, default=60)
    parser.add_argument("--explainers", nargs="+", default=USUAL, choices=list(EXPLAINERS))
    given = parser.parse_args()
    keep_freed_memory()
    method, species = load(given.run, given.frozen)
    backbone, embed, rng = method.backbone, method.representation, np.random.default_rng(0)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (backbone.mean, backbone.std))
    pixels = lambda images: torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2) / 255
    views = lambda images: (pixels(images) - mean) / std
    scores, seconds, counts = {}, dict.fromkeys(given.explainers, 0.0), []
    for number in range(given.pictures):
        index, one = species[number % len(species)]
        query, match = (
            field_photograph(one, (0, index, FIRST + 2 * number + side), backbone.image_size)
            for side in range(2)
        )
        twins = exchanged(match, rng)
        if len(twins) < 3:
            continue
        asked, found = views([query.image]), views([match.image])
        others = embed(views([each.second.image for each in twins]))[None]
        falls = similarity_changes(embed(asked), embed(found), others)  # (1, P)
        parts = torch.from_numpy(np.stack([each.part for each in twins]))[None]
        most = falls[0].argmax()
        changed = torch.from_numpy(twins[most].changed)[None]
        bird = torch.from_numpy(match.mask | twins[most].second.mask)[None]
        maps = references(changed, bird) | {"painted": painted(parts, falls).relu().float()}
        maps |= explained(given.explainers, method, asked, found, seconds)
        for name, heat in maps.items():
            signed = painted(parts, falls) if name == "painted" else heat
            row = {"pointing": pointing(heat, changed), "mass": mass(heat, changed, bird)}
            row["correctness"] = correctness(signed, parts, falls)
            collect(scores, name, row)
        counts.append(len(twins))
    print(f"{given.run.name}{', frozen' * given.frozen}: {len(counts)} pictures of unseen species, "
          f"{np.median(counts):.0f} exchanges each, {backbone.image_size} px")  # fmt: skip
    print_scores(scores, seconds, ("pointing", "correctness"))


if __name__ == "__main__":
    main()
