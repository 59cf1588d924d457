"""The report's notebook as papermill runs it, on runs that take no training."""

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from helpers.runs import make_run

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "report.ipynb"


@pytest.fixture
def papermill(tmp_path):
    def run(*parameters) -> subprocess.CompletedProcess:
        words = [word for name, value in parameters for word in ("-r", name, str(value))]
        command = [
            sys.executable,
            "-m",
            "papermill",
            str(NOTEBOOK),
            str(tmp_path / "executed.ipynb"),
            *words,
            "--no-progress-bar",
        ]
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            cwd=tmp_path,
            timeout=300,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    return run


def test_shows_tables_claims_and_figures_and_writes_the_page(tmp_path, papermill):
    setting = {
        "card": "vapnet-table1",
        "given": {"method": "vapnet", "classification": True, "constraint": "none"},
    }
    make_run(tmp_path / "found" / "a", **setting)
    setting["given"]["constraint"] = "mean"
    make_run(tmp_path / "found" / "b", noise=0.1, **setting)
    done = papermill(("folder", tmp_path / "found"), ("html", tmp_path / "page.html"))
    assert done.returncode == 0, done.stderr[-3000:]
    outputs = [
        output
        for cell in nbformat.read(tmp_path / "executed.ipynb", 4).cells
        for output in cell.get("outputs", [])
    ]
    shown = "\n".join(
        output.get("data", {}).get("text/markdown", "") + output.get("text", "")
        for output in outputs
    )
    for words in (
        "finished runs: 2, tables: 1",
        "## VAPNet, Table 1, on fieldguide",
        "| L_a + mean L_c | ",
        "✓ **supported**",
        "2 of 2 runs verified",
        "page.md",
    ):
        assert words in shown, words
    assert sum("image/jpeg" in output.get("data", {}) for output in outputs) == 1
    assert (tmp_path / "page.html").is_file() and (tmp_path / "page.md").is_file()


def test_a_misspelt_parameter_stops_with_the_right_spelling(papermill):
    done = papermill(("foldr", "x"))
    assert (
        done.returncode != 0 and "unknown parameter 'foldr': did you mean 'folder'?" in done.stderr
    )
