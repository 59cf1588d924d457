"""From a card to the runs that it stands for."""

import hashlib
import json
import os
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from fieldlab.cards.card import GENERATED, OF_THE_RUN, Card, check_values, read_value
from fieldlab.cards.notebook import fingerprint
from fieldmarks.checks import nearest_name
from fieldmarks.experiments.result import read_result


@dataclass(frozen=True)
class Run:
    """One row on one data set with one seed: a notebook, its parameters, and a folder of its own.

    Attributes:
        parameters: plain values; those that the card gives, without `out` and `card`.
        folder: its name ends in a hash of the notebook and of all parameters, so that no other run
            finds its results.
        metric: the one to show where there is room for one.
    """

    card: str
    profile: str
    row: str
    dataset: str
    seed: int
    notebook: Path
    parameters: dict
    folder: Path
    metric: str | None

    @property
    def name(self) -> str:
        return f"{self.card}  {self.row}  {self.dataset}  seed {self.seed}"


def plan(
    card: Card,
    profile: str,
    out: Path,
    settings: Sequence[str] = (),
    chosen: Mapping[tuple[str, str], dict] | None = None,
    seeds: Sequence[int] | None = None,
) -> list[Run]:
    """All runs of a card, in the order of its rows; nothing is written.

    Rows that take as long as another are left out, with a warning, while it is not known how long
    that is: until the other and the row's twin have been run with the first of the seeds.

    Args:
        chosen: further parameters by (row, data set), which overrule all others; if given, these
            alone are planned.
        seeds: in place of all others.
        settings: "name=value" or "name.dataset=value", which overrule the card. "dataset=name" runs
            on that data set alone, and "seed=3" or "seed=[0, 1]" with these seeds alone.

    Raises:
        ValueError: an unknown profile, a setting that does not fit, parameters that cannot be
            together, or a data set without a folder.
    """
    if profile not in card.profiles:
        near = nearest_name(profile, card.profiles)
        raise ValueError(f"{card.name} has no profile '{profile}'{near}")
    of_profile = card.profiles[profile]
    given = [_read_setting(text, card) for text in settings]
    common = {name: value for name, only, value in given if not only}
    datasets = [common.pop("dataset")] if "dataset" in common else list(of_profile.datasets)
    given_seeds = _as_list(common.pop("seed", [])) or of_profile.seeds or card.seeds
    _check_settings(card, given, common, datasets)
    content, folder, runs = fingerprint(card.notebook_file), Path(out).absolute() / card.name, []
    seeds = seeds or given_seeds

    def run(row: str, dataset: str, seed: int, **lengths) -> Run:
        own = {name: value for name, only, value in given if only == dataset}
        values = card.merged(profile, row, dataset) | common | own | lengths
        values |= (chosen or {}).get((row, dataset), {})
        values |= {"root": _root(dataset, values.get("root", "")), "seed": seed}
        full = card.check_run(profile, row, values)
        digest = hashlib.sha256(json.dumps([content, full], sort_keys=True).encode())
        name = f"{_slug(row)}-{_slug(dataset)}-{seed}-{digest.hexdigest()[:10]}"
        parameters = {name: full[name] for name in values}
        place = (card.notebook_file, parameters, folder / name, card.metric)
        return Run(card.name, profile, row, dataset, seed, *place)

    for dataset, row in product(datasets, of_profile.only or card.grid):
        if chosen is not None and (row, dataset) not in chosen:
            continue
        lengths: dict | None = {}
        if other := card.grid[row].get("same_time_as"):
            both = [run(each, dataset, seeds[0]) for each in (card.twin(row), other)]
            lengths = _same_time(*both)
        if lengths is None:
            known = f"known once {both[0].row} and {other} have been run with seed {seeds[0]}"
            warnings.warn(f"{card.name}  {row}  {dataset}: its epochs are {known}", stacklevel=2)
            continue
        runs += [run(row, dataset, seed, **lengths) for seed in seeds]
    return runs


def _same_time(twin: Run, other: Run) -> dict | None:
    """The epochs, and what else is counted in them, in which a row like `twin` trains for the time
    of `other`, as far as whole epochs come to that; None where one of both has no result yet."""
    results = [read_result(run.folder) for run in (twin, other)]
    if None in results:
        return None
    own, wanted = (result["timing"]["train_seconds"] for result in results)
    if not (own > 0 and wanted > 0):
        raise ValueError(f"{twin.row} or {other.row} learns nothing: it takes no time to compare")
    given, longer = results[0]["parameters"], wanted / own
    lengths = {"epochs": max(1, round(longer * given["epochs"]))}
    if given.get("schedule") == "step":
        lengths["step_epochs"] = max(1, round(longer * given["step_epochs"]))
    if given.get("schedule") == "milestones":
        lengths["milestones"] = [round(longer * epoch) for epoch in given["milestones"]]
    return lengths


def run_planned(
    runs: list[Run], plan_again: Callable[[], list[Run]], sweep: Callable[[list[Run]], list]
) -> list:
    """Execute runs, and then those that could only be planned when these were done; the outcomes of
    all."""
    outcomes, folders = sweep(runs), {run.folder for run in runs}
    if not any(outcome.state == "stopped" for outcome in outcomes):
        later = [run for run in plan_again() if run.folder not in folders]
        outcomes += sweep(later) if later else []
    return outcomes


def _slug(name: str) -> str:
    return re.sub(r"[^\w.+@=]+", "-", re.sub(r" *\+ *", "+", name)).strip("-")


def _as_list(value) -> list:
    return value if isinstance(value, list) else [value]


def _read_setting(text: str, card: Card) -> tuple[str, str, object]:
    """(name, the data set that it is for or "", value) of name=value or name.dataset=value."""
    key, sign, value = text.partition("=")
    if not sign:
        raise ValueError(f"--set '{text}' is not of the form key=value")
    name, _, dataset = key.partition(".")
    try:
        if name in ("out", "card"):
            raise ValueError(f"'{name}' cannot be given: {OF_THE_RUN[name]}")
        value = value if isinstance(card.defaults.get(name), str) else read_value(value)
        items = _as_list(value) if name == "seed" else [value]
        for item in items:
            check_values(card.parameters_class, {name: item})
        if not items or any(items.count(item) > 1 for item in items):
            raise ValueError("give one seed or a list of different ones")
    except ValueError as error:
        raise ValueError(f"--set {text}: {error}") from None
    return name, dataset, value


def _check_settings(card: Card, given: list[tuple], common: dict, datasets: list[str]) -> None:
    varied = {name for parameters in card.grid.values() for name in parameters}
    for name, dataset, _ in given:
        place = f"--set {name}.{dataset}"
        if name in varied:
            raise ValueError(f"--set {name}: it is what the rows of {card.name} differ in")
        if dataset and name in OF_THE_RUN:
            raise ValueError(f"{place}: {name} can be set for all data sets only")
        if dataset and dataset not in datasets:
            near = nearest_name(dataset, datasets)
            raise ValueError(f"{place}: there is no data set '{dataset}'{near}")
    if "root" in common and len(datasets) > 1:
        each = ", ".join(f"root.{name}=DIR" for name in datasets)
        raise ValueError(f"--set root: there are several data sets; give {each}")


def _root(dataset: str, root: str) -> str:
    """The data set's folder as an absolute path; "" for generated ones, which need none."""
    option, variable = f"--set root.{dataset}=DIR", f"FIELDMARKS_{dataset.upper()}"
    root = root or os.environ.get(variable, "")
    if not root and dataset in GENERATED:
        return ""
    if not root:
        right = f"Give its folder by {option} or in the variable {variable}"
        raise ValueError(f"where is {dataset}? {right}")
    folder = Path(root).expanduser().absolute()
    if not folder.is_dir():
        absent = f"the folder of {dataset} does not exist: '{folder}'"
        raise ValueError(f"{absent} ({option}, or {variable})")
    return str(folder)
