"""Notebooks as papermill runs them: shared by the notebooks' tests."""

import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
from PIL import Image

NOTEBOOKS = Path(__file__).parent.parent.parent / "notebooks"


def papermill(tmp_path, notebook, **parameters):
    """Run a notebook of ../../notebooks; parameters come over those of a run into tmp_path /
    "run"."""
    (tmp_path / "parameters.yaml").write_text(
        json.dumps({"out": str(tmp_path / "run"), **parameters})
    )
    command = [
        sys.executable,
        "-m",
        "papermill",
        str(NOTEBOOKS / notebook),
        str(tmp_path / "executed.ipynb"),
        "-f",
        str(tmp_path / "parameters.yaml"),
        "--no-progress-bar",
    ]
    environment = {
        **os.environ,
        "FIELDMARKS_CACHE": str(tmp_path / "cache"),
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=500)


def check_figures(folder, names):
    """Each figure is there and shows something."""
    for name in names:
        picture = np.asarray(Image.open(folder / name).convert("RGB")).astype(float)
        least = (
            10 if name.endswith(".jpg") else 3
        )  # a plot may hold a single point; a blank one has 0
        assert min(picture.shape[:2]) > 100 and picture.std() > least, name


def check_output(executed, line):
    """The run printed `line`, a plain line an epoch rather than a bar, and left no widget."""
    executed = nbformat.read(executed, 4)
    outputs = [output for cell in executed.cells for output in cell.get("outputs", [])]
    text = "".join(output.get("text", "") for output in outputs)
    assert line in text and "\r" not in text
    assert not any("widget" in mime for output in outputs for mime in output.get("data", {}))
