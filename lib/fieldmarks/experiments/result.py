"""A run's `result.json`: what was run, on what, with what outcome. Written last; only a complete one counts."""

import json
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from fieldmarks.files import write_json

SCHEMA = 1
PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "pytorch-metric-learning",
    "numpy",
    "pillow",
    "faiss-cpu",
)


def write_result(
    folder: Path,
    *,
    experiment: str,
    notebook: str,
    card: str,
    method: str,
    dataset: str,
    parameters: dict,
    metrics: dict[str, float],
    intervals: dict[str, list[float]],
    counts: dict[str, int],
    curves: dict,
    figures: list[str],
    timing: dict[str, float],
    device: str,
    **more,
) -> Path:
    """Write result.json atomically. `experiment` is its kind; metrics are fractions; figures are paths relative to the folder.

    Raises:
        ValueError: a figure is not there, or a number is not finite.
    """
    folder = Path(folder)
    if missing := [name for name in figures if not (folder / name).is_file()]:
        raise ValueError(
            f"result.json names figures that are not in '{folder}': {', '.join(missing)}"
        )
    result = {
        "schema": SCHEMA,
        "status": "complete",
        "experiment": experiment,
        "notebook": notebook,
        "card": card,
        "method": method,
        "dataset": dataset,
        "parameters": parameters,
        "seed": parameters.get("seed"),
        "metrics": metrics,
        "intervals": intervals,
        "counts": counts,
        "curves": curves,
        "figures": figures,
        "timing": timing,
        "environment": environment(device),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        **more,
    }
    write_json(folder / "result.json", result)
    return folder / "result.json"


def read_result(folder: Path) -> dict | None:
    """The folder's result if it is complete, else None (none there, cut off, or of another schema)."""
    try:
        result = json.loads((Path(folder) / "result.json").read_text())
    except (OSError, ValueError):
        return None
    complete = (
        isinstance(result, dict)
        and result.get("status") == "complete"
        and result.get("schema") == SCHEMA
    )
    return result if complete else None


def environment(device: str) -> dict[str, str]:
    """Where the numbers came from: commit, versions, machine."""
    import torch  # takes seconds, and whoever only reads results does without

    kind = torch.device(device).type
    return {
        "commit": commit(),
        "python": platform.python_version(),
        "platform": platform.platform(terse=True),
        "device": torch.cuda.get_device_name(device)
        if kind == "cuda"
        else f"{kind} ({processor()})",
        "threads": str(torch.get_num_threads()),
        **{name: version(name) for name in PACKAGES},
    }


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(
            line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")
        )
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def commit() -> str:
    """The library's git commit, with "+changes" when the working tree differs from it; "unknown" outside a checkout."""
    here = Path(__file__).resolve().parent

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", *words], cwd=here, capture_output=True, text=True, check=True, timeout=20
        ).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + (
            "+changes" if git("status", "--porcelain", "--untracked-files=no") else ""
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
