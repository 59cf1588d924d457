"""How long `import fieldmarks`, `fieldmarks --help` and a mistyped command take.

    python tests/benchmarks/bench_start.py [--rounds 15]

Each is started afresh, in alternating rounds, beside Python alone; the median counts. What takes
longest to import is named.
"""

import argparse
import subprocess
import sys
import time
from statistics import median

COMMANDS = {
    "python alone": ["-c", "pass"],
    "import fieldmarks": ["-c", "import fieldmarks"],
    "fieldmarks --help": ["-m", "fieldlab", "--help"],
    "fieldmarks search --help": ["-m", "fieldlab", "search", "--help"],
    "fieldmarks serach": ["-m", "fieldlab", "serach"],
}
LIMIT = 0.3


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    seconds = {name: [] for name in COMMANDS}
    for number in range(options.rounds + 1):  # the first fills the disk cache
        for name, command in COMMANDS.items():
            began = time.perf_counter()
            subprocess.run([sys.executable, *command], capture_output=True)
            if number:
                seconds[name].append(time.perf_counter() - began)
    alone = median(seconds["python alone"])
    for name, times in seconds.items():
        ratio = f"{median(times) / alone:5.1f} x python alone"
        print(f"{name:26}{median(times):7.3f} s   {ratio}   (limit {LIMIT} s)")
    trace = subprocess.run(
        [sys.executable, "-X", "importtime", *COMMANDS["fieldmarks --help"]],
        capture_output=True,
        text=True,
    ).stderr
    rows = [
        line.removeprefix("import time:").split("|")
        for line in trace.splitlines()
        if "|" in line and "cumulative" not in line
    ]
    print(
        "slowest imports of --help: "
        + ", ".join(
            f"{name.strip()} {int(own) / 1000:.0f} ms"
            for own, _, name in sorted(rows, key=lambda row: -int(row[0]))[:4]
        )
    )


if __name__ == "__main__":
    main()
