"""What the batch runner costs and what it withstands, on a notebook that does next to nothing.

    PYTHONPATH=tests python tests/benchmarks/bench_sweep.py [--runs 100] [--kills 18]
        [--overhead 6] [--scaling 8]

Overhead: a run by the runner against `python -m papermill` alone, in turns; the median difference.
Scaling: a sweep on two embedded workers against one, by the command line; the faster of two counts.
Kills: a sweep on two Dask workers, while these and the driver are killed (-9) at random.
"""

import argparse
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from fieldlab.cards.card import load_card
from fieldlab.sweep.plan import plan
from fieldlab.sweep.runner import PAPERMILL, execute, finished, processes_of
from helpers.lab import PARAMETERS, Lab
from helpers.sweeping import Workers, drive, sweep_with_kills

# Writes atomically, as the experiments do, and leaves a line that tells whether the run was done.
WORK = """
    import json, os, pathlib
    folder = pathlib.Path(out)
    with open(folder.parent / "executed", "a") as log:
        log.write(f"{folder.name} {'again' if (folder / 'result.json').exists() else 'first'}\\n")
    print("epoch   1/1  loss 0.5", flush=True)
    names = "dataset root generated lr steps grids flag behaviour seed out card".split()
    used = {name: globals()[name] for name in names}
    result = {"schema": 2, "status": "complete", "parameters": used, "metrics": {"recall@1": 0.5}}
    (folder / "part").write_text(json.dumps(result))
    os.replace(folder / "part", folder / "result.json")
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--kills", type=int, default=18)
    parser.add_argument("--overhead", type=int, default=6, help="runs of each kind")
    parser.add_argument("--scaling", type=int, default=8, help="runs of each sweep")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        lab = Lab(Path(folder) / "lab")
        lab.write_notebook(lab.notebook, PARAMETERS, WORK)
        for measure, count in ((overhead, options.overhead), (scaling, options.scaling)):
            if count:
                measure(lab, Path(folder), count)
        if options.kills:
            kills(lab, Path(folder), options.runs, options.kills)


def card_of(lab: Lab, runs: int) -> Path:
    lab.card["grid"] = {"one": {"steps": 1}}
    lab.card |= {"seeds": list(range(runs)), "published": {}, "claims": []}
    return lab.write()


def overhead(lab: Lab, folder: Path, count: int) -> None:
    alone, ours = [], []
    for run in plan(load_card(card_of(lab, count)), "demo", folder / "overhead"):
        plain = folder / "plain" / run.folder.name
        plain.mkdir(parents=True)
        files = [str(run.notebook), str(plain / "work.ipynb")]
        options = ["-p", "out", str(plain), "--no-progress-bar", "--log-output"]
        began = time.perf_counter()
        subprocess.run([*PAPERMILL, *files, *options], check=True, capture_output=True)
        alone.append(time.perf_counter() - began)
        began = time.perf_counter()
        assert execute(run, 600).state == "done"
        ours.append(time.perf_counter() - began)
    more = statistics.median(us - them for us, them in zip(ours, alone, strict=True))
    medians = statistics.median(alone), statistics.median(ours)
    print("overhead  papermill alone {:.2f} s   by the runner {:.2f} s".format(*medians), end="   ")
    print(f"more {more:+.2f} s a run (limit: 0.5)", flush=True)


def scaling(lab: Lab, folder: Path, count: int) -> None:
    seconds = {1: float("inf"), 2: float("inf")}
    for attempt, workers in enumerate((1, 2, 2, 1)):
        began = time.perf_counter()
        driver = drive(card_of(lab, count), folder / f"scaling{attempt}", "--workers", str(workers))
        driver.communicate()
        assert driver.returncode == 0
        seconds[workers] = min(seconds[workers], time.perf_counter() - began)
    print(
        f"scaling   {count} runs   1 worker {seconds[1]:.1f} s   2 workers {seconds[2]:.1f} s   "
        f"ratio {seconds[2] / seconds[1]:.2f} (limit: 0.7)",
        flush=True,
    )


def kills(lab: Lab, folder: Path, count: int, number: int) -> None:
    card, out = card_of(lab, count), folder / "kills"
    executed, workers = out / "paper-table1" / "executed", Workers(folder / "dask", 2)

    def lines() -> list[str]:
        return executed.read_text().splitlines() if executed.exists() else []

    try:
        began = time.perf_counter()
        code, killed = sweep_with_kills(
            lambda: drive(card, out, "--scheduler", workers.address),
            workers,
            lambda: len(lines()),
            number,
            pause=3,
            seed=0,
        )
        seconds = time.perf_counter() - began
    finally:
        workers.close()
    runs = plan(load_card(card), "demo", out)
    complete = sum(finished(run) is not None for run in runs)
    left = sum(len(processes_of(run.folder)) for run in runs)
    again = sum(line.endswith("again") for line in lines())
    lost = f"{killed.count('worker')} workers and {killed.count('driver')} drivers"
    print(
        f"kills     {count} runs, killed {lost}: exit {code}, {complete} complete results, "
        f"{len(lines())} executions, {again} of a run that was complete, {left} processes left, "
        f"{seconds:.0f} s",
        flush=True,
    )


if __name__ == "__main__":
    main()
