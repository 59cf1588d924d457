"""A run's `result.json`: what was run and what came out. Only a complete one counts."""

import json
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from fieldmarks.files import write_json

SCHEMA = 2  # raised where results of an earlier edition would be misread
EMBEDDINGS = "embeddings"  # the folder beside runs that holds those which trained their encoders
TRIAL = "trial"  # the parameter `tuned` of runs that values are chosen by: no results
PACKAGES = "torch torchvision timm pytorch-metric-learning numpy pillow faiss-cpu".split()


def write_result(
    folder: Path, *, parameters: dict, figures: list[str], device: str, **entries
) -> Path:
    """Write result.json atomically; its path.

    Args:
        figures: paths relative to the folder.  device: as torch names it.
        entries: experiment, module, notebook, card, method, dataset, metrics (fractions),
            intervals, counts, curves, timing, and what an experiment has besides.
    Raises:
        ValueError: a figure is not there, or a number is not finite."""
    folder = Path(folder)
    if missing := [name for name in figures if not (folder / name).is_file()]:
        names = ", ".join(missing)
        raise ValueError(f"result.json names figures that are not in '{folder}': {names}")
    result = {"schema": SCHEMA, "status": "complete", **entries}
    result |= {"parameters": parameters, "seed": parameters.get("seed"), "figures": figures}
    result["environment"] = environment(device)
    result["finished"] = datetime.now(UTC).isoformat(timespec="seconds")
    write_json(folder / "result.json", result)
    return folder / "result.json"


def read_result(folder: Path) -> dict | None:
    """The folder's result if it is complete, else None (none there, cut off, or an older
    schema)."""
    result = _read(folder)
    return result if result.get("schema") == SCHEMA else None


def finished_run(folder: Path | str, name: str = "") -> tuple[Path, dict]:
    """A finished run's folder and its result. `name` is what a message calls the folder.

    Raises:
        ValueError: it holds no complete result.json, or one of an earlier edition."""
    folder = Path(folder).expanduser().absolute()
    result, shown = _read(folder), f"{name} '{folder}'".strip()
    if result.get("schema", SCHEMA) != SCHEMA:
        raise ValueError(f"{shown} was made by an earlier edition: run it again, in a new folder")
    if not result:
        raise ValueError(
            f"{shown} is not a finished run: give the folder of a complete result.json"
        )
    return folder, result


def _read(folder: Path) -> dict:
    try:
        result = json.loads((Path(folder) / "result.json").read_text())
    except (OSError, ValueError):
        return {}
    return result if isinstance(result, dict) and result.get("status") == "complete" else {}


def environment(device: str) -> dict[str, str]:
    """Where the numbers came from: commit, versions, machine."""
    import torch  # takes seconds, and whoever only reads results does without

    kind = torch.device(device).type
    hardware = torch.cuda.get_device_name(device) if kind == "cuda" else f"{kind} ({processor()})"
    return {
        "commit": commit(),
        "python": platform.python_version(),
        "platform": platform.platform(terse=True),
        "device": hardware,
        "threads": str(torch.get_num_threads()),
        **{name: version(name) for name in PACKAGES},
    }


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(": ", 1)[1] for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def commit() -> str:
    """The library's git commit, with "+changes" where the working tree differs from it; "unknown"
    outside a checkout."""

    def git(*words: str) -> str:
        command, here = ["git", *words], Path(__file__).resolve().parent
        done = subprocess.run(
            command, cwd=here, capture_output=True, text=True, check=True, timeout=20
        )
        return done.stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "HEAD") + "+changes" * bool(changed)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
