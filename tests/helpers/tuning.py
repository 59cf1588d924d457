"""A lab whose notebook trains an open-set run without figures, in the seconds that papermill and a
small network take; or, by the stand-in for papermill, in none."""

from pathlib import Path

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


class TuningLab(Lab):
    def __init__(self, folder: Path):
        super().__init__(folder)
        self.write_notebook(self.notebook, PARAMETERS, TRAINS)
        small = {"generated": {"classes": 16, "images": 4, "size": 64}, "resize": 48, "size": 32}
        small |= {"backbone": "resnet10t", "weights": "none", "epochs": 1, "freeze_norm": False}
        self.card |= {
            "experiment": "open_set",
            "grid": {"one": {"method": "proxynca++"}, "two": {"method": "normsoftmax", "batch_size": 4}},
            "profiles": {"demo": {"datasets": ["fieldguide"], "seeds": [0], "parameters": small}},
            "published": {},
            "claims": [{"text": "More", "metric": "recall@1", "higher": "one", "lower": "two"}],
            "tune": {"space": SPACE},
        }
