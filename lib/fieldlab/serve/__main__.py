"""`python -m fieldlab.serve notebooks/explore.ipynb`: the explorer, for a classroom."""

import argparse
import sys
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m fieldlab.serve",
        description="Show notebooks/explore.ipynb to a classroom: read-only, with a token.",
    )
    parser.add_argument("notebook", type=Path)
    parser.add_argument("--address", default="127.0.0.1", help="0.0.0.0: for other machines, too")
    parser.add_argument("--port", type=int, default=8866)
    parser.add_argument("--visitors", type=int, default=20, help="at a time; others are told so")
    parser.add_argument(
        "--idle", type=int, default=1800, help="seconds after which an unused place comes free"
    )
    options = parser.parse_args()
    if not options.notebook.is_file():
        parser.error(f"there is no notebook '{options.notebook}'")
    if options.visitors < 1 or options.idle < 1:
        parser.error("--visitors and --idle must be at least 1")
    if sys.platform == "win32":  # there a process cannot be forked
        parser.error("serving needs Linux or macOS; on Windows open the notebook in JupyterLab")

    from fieldlab.serve.server import serve

    serve(**vars(options))


if __name__ == "__main__":
    main()
