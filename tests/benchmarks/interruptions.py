"""What a sweep of all five experiments withstands: its processes are killed (-9) at random moments
and the same command is started again until all is done; then every number is compared with those
of a sweep that nothing interrupted.

    PYTHONPATH=tests python tests/benchmarks/interruptions.py [--kills 50] [--seed 0]
        [--epochs 12] [--keep DIR]
"""

import argparse
import shutil
import tempfile
import time
from pathlib import Path

from helpers.interruptions import KINDS, Killer, Sweep, differences, left_behind

LABS = Path(__file__).parents[2] / "labs"
CARDS = [
    LABS / name
    for name in (
        "vapnet/figure4.yaml",
        "fcaenet/figure6.yaml",
        "pan/table1.yaml",
        "pan/table2.yaml",
        "pan/table3.yaml",
    )
]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--keep", type=Path, help="a new folder, in which all is kept")
    options = parser.parse_args()
    folder = options.keep or Path(tempfile.mkdtemp())
    sweep, straight = (
        Sweep(CARDS, folder / name, [f"epochs={options.epochs}"])
        for name in ("interrupted", "straight")
    )
    began = time.monotonic()
    killer = Killer(sweep, options.kills, options.seed)
    killer.run()
    seconds = time.monotonic() - began
    for each in KINDS:
        print(f"{each:10}{killer.killed[each]:3} killed, {killer.writing[each]} half-way in a file")
    counts = f"{sum(killer.killed.values())} kills, {killer.starts} starts"
    print(f"{counts}, {len(sweep.results())} runs finished, {seconds:.0f} s", flush=True)
    for count in range(1, len(sweep.seeds) + 1):
        straight.seeds = sweep.seeds[:count]
        if straight.run().wait() or straight.report().wait():
            raise SystemExit(f"the uninterrupted sweep failed: {straight.folder / 'log'}")
    for title, found in (
        ("made twice, lost or cut off on the way", killer.faults),
        ("left behind, half written or alive", left_behind(sweep)),
        ("left behind by the uninterrupted sweep", left_behind(straight)),
        ("numbers that differ from the uninterrupted sweep's", differences(sweep, straight)),
    ):
        print(f"{len(found)} {title}", *found, sep="\n  ", flush=True)
    if not options.keep:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
