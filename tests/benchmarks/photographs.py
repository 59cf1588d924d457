"""Methods on the photographs that tests use too, trained and compared over seeds: python
tests/benchmarks/photographs.py SHARED_DATA OUT [--rows NAME ...] [--seeds 0 1 2] [--workers 2].

Cars: 30 classes to learn from, 20 to retrieve; CUB-200-2011: classes 1-25 and 26-50; hashing: the
official split of CUB's classes 1-50. Finished runs are not run again, others resume."""

import argparse
import itertools
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fieldmarks.evaluation.statistics import seed_interval
from fieldmarks.experiments.result import read_result

ROOTS: dict[str, dict] = {
    "cars": {"dataset": "folder", "root": "cars_folder"},
    "cub": {"dataset": "cub", "root": "CUB_200_2011"},
    "fieldguide": {"generated": {"classes": 60, "images": 16}},
}
COMMON = {"freeze_stages": 5, "evaluate_every": 0, "weights": "bundled", "progress": "none"}

# Three epochs of VAPNet with two views take as long as seven of L_a, and three iterations of
# FCAENet as eight of ADSH.
L_A = {"constraint": "none", "epochs": 3}
CENTRED = {"teacher": "centred", "attributes": 64, "temperature": 0.05, "constraint_weight": 0.03}
OPEN_SET = {
    "L_a, linear head": L_A | {"cosine_head": False},
    "L_a": L_A,
    "L_a, as long": L_A | {"epochs": 7},
    "VAPNet": {"epochs": 3},
    "VAPNet, centred": CENTRED | {"epochs": 3},
}
ADSH = {"method": "adsh", "epochs": 3, "passes": 1}
LINEAR = {"feature_length": 0.0, "hash_lr": 0.05, "first_codes": "image"}
HASHING = {
    "ADSH, layer as printed": ADSH | LINEAR,
    "ADSH": ADSH,
    "ADSH, as long": ADSH | {"epochs": 8},
    "FCAENet": ADSH | {"method": "fcaenet"},
    "OrthoHash": {"method": "orthohash", "epochs": 3},
}
ROWS = {
    f"{data}: {name}": ("open_set", place | row)
    for (data, place), (name, row) in itertools.product(ROOTS.items(), OPEN_SET.items())
    if data != "fieldguide" or name in ("L_a", "L_a, linear head")
}
ROWS |= {f"hashing: {name}": ("hashing", ROOTS["cub"] | row) for name, row in HASHING.items()}
CLAIMS = [
    (f"{data}: {name}", f"{data}: {other}", metric)
    for data in ROOTS
    for name, other in (
        ("L_a", "L_a, linear head"),
        ("VAPNet", "L_a"),
        ("VAPNet", "L_a, as long"),
        ("VAPNet, centred", "L_a"),
        ("VAPNet, centred", "L_a, as long"),
    )
    for metric in ("recall@1", "map@r")
]
CLAIMS += [
    ("hashing: ADSH", "hashing: ADSH, layer as printed", "map"),
    ("hashing: FCAENet", "hashing: ADSH", "map"),
    ("hashing: FCAENet", "hashing: ADSH, as long", "map"),
]
SHOWN = ("recall@1", "map@r", "map", "attention", "attention_share", "erased", "erased_bits")


def train(module: str, values: dict, shared: Path) -> str:
    if "root" in values:
        values = values | {"root": (shared / values["root"]).resolve()}
    command = [sys.executable, "-m", f"fieldmarks.experiments.{module}"]
    plain = lambda v: v if isinstance(v, (str, Path)) else json.dumps(v)
    command += [f"{name}={plain(value)}" for name, value in values.items()]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    return "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["failed"])[-1]


def measure(
    description: str, rows: dict, common: dict, shown: tuple[str, ...], claims: tuple = ()
) -> None:
    """Run rows, {name: (module of the experiment, its parameters)}, under each seed, and print
    their metrics over seeds, then claims, (higher row, lower row, metric), as differences seed by
    seed."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("shared", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument(
        "--rows", nargs="*", default=list(rows), help="names, or what several begin with"
    )
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    named = lambda name, wanted: name == wanted if wanted in rows else name.startswith(wanted)
    chosen = [name for name in rows if any(named(name, wanted) for wanted in given.rows)]
    folder = lambda name: "".join(c if c.isalnum() else "-" for c in name)
    with ThreadPoolExecutor(given.workers) as pool:
        waiting = {}
        for seed, name in itertools.product(given.seeds, chosen):
            module, row = rows[name]
            values = common | row | {"seed": seed, "out": given.out / f"{folder(name)}-{seed}"}
            waiting[name, seed] = pool.submit(train, module, values, given.shared)
        for (name, seed), outcome in waiting.items():
            print(name, seed, outcome.result() or "done", flush=True)

    def spanned(values: list[float]) -> str:
        mean, low, high = seed_interval(values)
        return f"{100 * mean:.1f}" + f" [{100 * low:.1f}, {100 * high:.1f}]" * (len(values) > 1)

    found = {}
    for name, seed in itertools.product(chosen, given.seeds):
        out = given.out / f"{folder(name)}-{seed}"
        if (out / "result.json").is_file():
            found[name, seed] = read_result(out)
    for name in chosen:
        own = [found[name, seed] for seed in given.seeds if (name, seed) in found]
        line = [f"{run['timing']['train_seconds']:.0f} s" for run in own[:1]]
        for metric in shown:
            values = [run["metrics"][metric] for run in own if metric in run["metrics"]]
            line += [f"{metric} {spanned(values)}"] if values else []
        print(name, *line, sep=" | ")
    for higher, lower, metric in claims:
        both = [s for s in given.seeds if (higher, s) in found and (lower, s) in found]
        gains = [
            found[higher, s]["metrics"][metric] - found[lower, s]["metrics"][metric] for s in both
        ]
        if gains:
            print(f"{higher} - {lower}, {metric}: {spanned(gains)}")


if __name__ == "__main__":
    measure(__doc__, ROWS, COMMON, SHOWN, CLAIMS)
