"""Finished runs below a folder, and the cards they belong to."""

import json
import warnings
from pathlib import Path
from typing import NamedTuple

from fieldlab.cards.card import Card, load_card
from fieldmarks.experiments.result import EMBEDDINGS, SCHEMA, TRIAL, read_result

# Runs that differ in these alone are the same experiment.
NOT_SETTING = ("seed", "out", "card", "progress", "device", "baseline", "root", "tensorboard")
# What every run writes, and of which kind.
KINDS: dict[str, type] = dict.fromkeys(("notebook", "card", "method", "dataset", "finished"), str)
KINDS |= dict.fromkeys(("parameters", "environment", "metrics", "intervals"), dict)
KINDS |= dict.fromkeys(("counts", "timing"), dict) | {"figures": list}
EARLIER_EDITION = "was made by an earlier edition: run it again, or use a new folder"


class FinishedRun(NamedTuple):
    """A folder with a complete result.json, and the content of that."""

    folder: Path
    result: dict

    @property
    def dataset(self) -> str:
        """Under the name that cards use."""
        return self.result["parameters"].get("dataset", self.result["dataset"])

    @property
    def seed(self) -> int | None:
        return self.result["parameters"].get("seed")

    @property
    def setting(self) -> dict:
        """The parameters that make the experiment what it is."""
        return {k: v for k, v in self.result["parameters"].items() if k not in NOT_SETTING}


def find_results(folder: Path) -> list[FinishedRun]:
    """The complete runs anywhere below a folder: by card, then in the order in which they ended.
    Trials of a tuning are passed over: they say nothing of test data.

    Raises:
        FileNotFoundError: there is none.
        ValueError: a result.json that no run of this edition wrote.
    """
    found = {file.parent for file in Path(folder).rglob("result.json")}
    # What lies inside another run's folder is a part of that run, and what trained an encoder one
    # of those beside it.
    folders = [
        each
        for each in found
        if found.isdisjoint(each.parents) and EMBEDDINGS not in each.relative_to(folder).parts[:-1]
    ]
    results = {each: read_result(each) for each in folders}
    runs = [FinishedRun(each, result) for each, result in results.items() if result]
    runs = [run for run in runs if run.result.get("parameters", {}).get("tuned") != TRIAL]
    for run in runs:
        if absent := [n for n, kind in KINDS.items() if not isinstance(run.result.get(n), kind)]:
            lacks = f"'{run.folder / 'result.json'}' lacks {', '.join(absent)}"
            raise ValueError(f"{lacks}: remove it, or run its notebook again")
    unread = [each for each, result in results.items() if not result]
    old = [each for each in unread if of_earlier_edition(each)]
    if unread := [each for each in unread if each not in old]:
        named = f"'{unread[0] / 'result.json'}' is cut off or damaged"
        message = f"{len(unread)} of the runs do not count: {named}: run it again"
        warnings.warn(message, stacklevel=2)
    if old:
        message = f"'{old[0]}' {EARLIER_EDITION}"
        if not runs:
            raise ValueError(message)
        warnings.warn(f"{len(old)} of the runs do not count, as {message}", stacklevel=2)
    if not runs:
        right = "make one with fieldmarks run, or give the folder of its --out"
        raise FileNotFoundError(f"no finished run below '{folder}': {right}")
    return sorted(runs, key=lambda run: (*map(run.result.get, ("card", "finished")), run.folder))


def of_earlier_edition(folder: Path) -> bool:
    """Whether a complete result.json is there that this edition would misread."""
    try:
        result = json.loads((folder / "result.json").read_text())
        return result["status"] == "complete" and result["schema"] < SCHEMA
    except (OSError, ValueError, KeyError, TypeError):
        return False


def find_card(name: str, folder: Path) -> Card | None:
    """The card that runs name: in a folder `labs` here or above, above the runs, or in this
    repository; or None.

    Raises:
        ValueError: it is there and has a mistake.
    """
    here, runs, repository = Path.cwd(), Path(folder).absolute(), Path(__file__).parents[3]
    for above in (here, *here.parents, *runs.parents, repository):
        for file in sorted((above / "labs").glob("*/*.yaml")):
            if f"{file.parent.name}-{file.stem}" == name:
                return load_card(file)
    return None
