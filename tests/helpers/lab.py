"""A small lab: a notebook that takes a second, its card and its experiment, helpers.work."""

import json
import textwrap
from pathlib import Path

import yaml

PARAMETERS = """
    dataset = "fieldguide"
    root = ""
    generated = {}
    lr = 0.1
    steps = -1
    grids = [2, 4]
    flag: bool = True
    behaviour = "good"  # what the notebook, or the stand-in for papermill, is to do
    seed = 0
    out = ""
    card = ""
"""
WORK = """
    import json, pathlib, subprocess, sys, time
    folder = pathlib.Path(out)
    print("epoch   1/2  loss 0.5", flush=True)
    if behaviour == "raises":
        raise FileNotFoundError("weights.pt is missing. Expected:\\n  a tree")
    if behaviour == "hangs":
        sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
        subprocess.Popen(sleep, start_new_session=True)
        (folder / "hanging").touch()
        time.sleep(600)
    names = "dataset root generated lr steps grids flag behaviour seed out card".split()
    used = {name: globals()[name] for name in names}
    metrics = {"recall@2": 0.75, "recall@1": 0.5}
    result = {"schema": 2, "status": "complete", "parameters": used, "metrics": metrics}
    (folder / "result.json").write_text(json.dumps(result))
"""


def write_notebook(file: Path, *sources: str, tags=("parameters",)) -> Path:
    cells = [
        {
            "cell_type": "code",
            "id": f"cell{number}",
            "execution_count": None,
            "outputs": [],
            "metadata": {"tags": list(tags)} if number == 0 else {},
            "source": textwrap.dedent(source).strip(),
        }
        for number, source in enumerate(sources)
    ]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(
        json.dumps({"cells": cells, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5})
    )
    return file


class Lab:
    def __init__(self, folder: Path):
        self.folder = folder
        self.notebook = write_notebook(folder / "notebooks" / "work.ipynb", PARAMETERS, WORK)
        self.card = {
            "title": "A table",
            "paper": "None",
            "table": "Table 1",
            "notebook": "notebooks/work.ipynb",
            "experiment": "helpers.work",
            "grid": {"one": {"steps": 1}, "one + two": {"steps": 2}},
            "profiles": {
                "paper": {"datasets": ["cub", "cars"]},
                "demo": {"datasets": ["fieldguide"], "parameters": {"lr": 0.5}},
            },
            "published": {"one": {"cub": {"recall@1": 0.695}}},
            "claims": [
                {
                    "text": "More is better",
                    "metric": "recall@1",
                    "higher": "one + two",
                    "lower": "one",
                }
            ],
        }

    def write(self, text: str | None = None) -> Path:
        file = self.folder / "labs" / "paper" / "table1.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(yaml.safe_dump(self.card, sort_keys=False) if text is None else text)
        return file

    write_notebook = staticmethod(write_notebook)
