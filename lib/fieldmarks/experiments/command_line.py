"""`python -m fieldmarks.experiments.NAME name=value ...`: an experiment in one go, also under torchrun."""

import sys
from collections.abc import Callable
from pathlib import Path

from fieldmarks.experiments import parameters as reading
from fieldmarks.experiments.common import RunParameters
from fieldmarks.processes import is_main, processes
from fieldmarks.training import choose_device


def run_experiment(
    parameters: type[RunParameters],
    arguments: list[str],
    whole: Callable[[RunParameters, int, int], tuple[dict, Callable[[], Path]]],
) -> int:
    """Run all of an experiment from name=value words and print what it came to; returns the exit code.

    Args:
        whole: (parameters, rank, world) -> metrics, and what writes the result and returns its path, which one process does.
    """
    try:
        p = reading.parse(parameters, reading.from_arguments(parameters, arguments))
        with processes(choose_device(p.device)) as (rank, world):
            metrics, finish = whole(p, rank, world)
            if is_main():
                print(
                    "  ".join(f"{name} {value:.4f}" for name, value in metrics.items()),
                    f"-> {finish()}",
                )
    except (ValueError, OSError, RuntimeError) as error:
        print(f"{parameters.kind}: {error}", file=sys.stderr)
        return 2 if isinstance(error, ValueError) else 1
    return 0
