"""Finished runs below a folder, and the cards they belong to."""

from pathlib import Path
from typing import NamedTuple

from fieldmarks.experiments.result import read_result

from fieldlab.cards.card import Card, load_card

# Runs that differ in these alone are the same experiment.
NOT_SETTING = ("seed", "out", "card", "progress", "device", "baseline", "root")
WRITTEN = (
    "notebook",
    "card",
    "method",
    "dataset",
    "parameters",
    "metrics",
    "intervals",
    "counts",
    "figures",
    "timing",
    "environment",
    "finished",
)


class FinishedRun(NamedTuple):
    """A folder with a complete result.json, and what stands in that."""

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
        return {
            name: value
            for name, value in self.result["parameters"].items()
            if name not in NOT_SETTING
        }


def find_results(folder: Path) -> list[FinishedRun]:
    """The complete runs anywhere below a folder: by card, then in the order in which they ended.

    Raises:
        FileNotFoundError: there is none.
        ValueError: a result.json that no run of this library wrote.
    """
    found = [
        FinishedRun(file.parent, read_result(file.parent))
        for file in Path(folder).rglob("result.json")
    ]
    found = [run for run in found if run.result]
    for run in found:
        if absent := [name for name in WRITTEN if name not in run.result]:
            raise ValueError(
                f"'{run.folder / 'result.json'}' lacks {', '.join(absent)}: remove it, or run its notebook again"
            )
    if not found:
        raise FileNotFoundError(
            f"no finished run below '{folder}': make one with fieldmarks run, or give the folder of its --out"
        )
    return sorted(
        found, key=lambda run: (run.result["card"], run.result["finished"], run.folder.name)
    )


def find_card(name: str, folder: Path) -> Card | None:
    """The card that runs name: in a folder `labs` where the user is or above, above the runs, or in this repository; or None.

    Raises:
        ValueError: it is there and is not sound.
    """
    here, runs, repository = Path.cwd(), Path(folder).absolute(), Path(__file__).parents[3]
    for above in (here, *here.parents, *runs.parents, repository):
        for file in sorted((above / "labs").glob("*/*.yaml")):
            if f"{file.parent.name}-{file.stem}" == name:
                return load_card(file)
    return None
