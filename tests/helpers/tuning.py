"""A lab whose notebook trains an open-set run without figures, in the seconds that papermill and a
small network take; and a stand-in for papermill, which takes a tenth of one."""

import io
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from fieldlab.cli import main
from fieldmarks.files import release
from helpers.lab import Lab

PARAMETERS = """
    dataset = "fieldguide"
    root = ""
    seed = 0
    out = ""
    card = ""
"""
TRAINS = """
    from fieldmarks.experiments.open_set import OpenSet
    experiment = OpenSet.from_notebook(globals())
    experiment.finish(experiment.train(), experiment.evaluate())
"""
SPACE = {"lr": {"low": 0.001, "high": 0.1, "log": True}, "batch_size": {"choices": [4, 8]}}
# recall@1 is highest at a learning rate of 0.01 and a batch size of 8; "breaks" fails above 0.03,
# and "broken" always. An epoch of proxynca++ takes 3.1 seconds, of others 1.
STAND_IN = """
import json, math, os, pathlib, sys, time, yaml
p = {"batch_size": 32, "lr": 0.01, "tuned": "", "validation": 0, "same_time_as": ""}
p |= {"schedule": "cosine", **yaml.safe_load(open(sys.argv[4]))}
folder = pathlib.Path(p["out"])
with open(folder.parent / "executed", "a") as log:
    log.write(f"{folder.name} {'again' if (folder / 'result.json').exists() else 'first'}\\n")
time.sleep(0.1)
behaviour = p["weights"]
if behaviour == "broken" or (behaviour == "breaks" and p["lr"] > 0.03):
    sys.exit("Diverged: the loss is inf")
score = 0.9 - 0.1 * abs(math.log10(p["lr"]) + 2) - 0.01 * (p["batch_size"] != 8)
seconds = p["epochs"] * (3.1 if p["method"] == "proxynca++" else 1.0)
counts = dict.fromkeys(("train", "query", "gallery", "classes", "train_classes"), 8)
result = {"schema": 2, "status": "complete", "notebook": "", "card": p["card"], "method": "m",
    "dataset": "fieldguide", "parameters": p, "metrics": {"recall@1": score}, "intervals": {},
    "counts": counts, "figures": [], "timing": {"train_seconds": seconds, "images_per_second": 9.0},
    "environment": {"commit": "c", "device": "cpu"}, "finished": "2026-11-26",
    "data_fingerprint": str(p["validation"]), "curves": {"evaluations": []}}
(folder / "part").write_text(json.dumps(result))
os.replace(folder / "part", folder / "result.json")
"""


class TuningLab(Lab):
    def __init__(self, folder: Path):
        super().__init__(folder)
        self.write_notebook(self.notebook, PARAMETERS, TRAINS)
        small = {"generated": {"classes": 16, "images": 4, "size": 64}, "resize": 48, "size": 32}
        small |= {"backbone": "resnet10t", "weights": "none", "epochs": 1, "freeze_norm": False}
        self.parameters, self.out = small, folder / "out"
        self.card |= {
            "experiment": "open_set",
            "grid": {
                "one": {"method": "proxynca++"},
                "two": {"method": "normsoftmax", "batch_size": 4},
            },
            "profiles": {
                "demo": {"datasets": ["fieldguide"], "seeds": [0, 1], "parameters": small}
            },
            "published": {},
            "claims": [{"text": "More", "metric": "recall@1", "higher": "one", "lower": "two"}],
            "tune": {"space": SPACE},
        }

    def start(self, *words: str, command: str = "tune") -> subprocess.Popen:
        """`fieldmarks tune` on the card as it is now, or another command."""
        command = [sys.executable, "-m", "fieldlab", command, str(self.write()), *words]
        return subprocess.Popen(
            [*command, "--out", str(self.out)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.folder,
        )

    def tune(self, *words: str, command: str = "tune") -> subprocess.CompletedProcess:
        """The same in this process, which has torch already."""
        out, errors = io.StringIO(), io.StringIO()
        arguments = [command, str(self.write()), *words, "--out", str(self.out)]
        with redirect_stdout(out), redirect_stderr(errors):
            code = main(arguments)
        release(self.trials)
        return subprocess.CompletedProcess(words, code, out.getvalue(), errors.getvalue())

    @property
    def trials(self) -> Path:
        return self.out / "tune" / "paper-table1"


def stand_in(folder: Path) -> str:
    """A PYTHONPATH with the stand-in first, and what was there."""
    package = folder / "stand_in" / "papermill"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(STAND_IN)
    return os.pathsep.join([str(package.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
