"""From a card to the runs that it stands for."""

import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

from fieldlab.cards.card import OF_THE_RUN, Card, Profile, check_parameter, nearest, read_value
from fieldlab.sweep.notebook import fingerprint

GENERATED = (
    "fieldguide",
    "wardrobe",
)  # data sets that runs make for themselves where they are given no folder


@dataclass(frozen=True)
class Run:
    """One row on one data set with one seed: a notebook, its parameters, and the folder that is this run's alone.

    Attributes:
        parameters: plain values; all but `out` and `card`, on which the outcome does not depend.
        folder: its name ends in a hash of the notebook and the parameters, so that no other run finds its results.
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


@dataclass(frozen=True)
class Setting:
    """`--set name=value`, or `--set name.dataset=value` for one data set only."""

    name: str
    dataset: str
    value: object


def plan(card: Card, profile: str, out: Path, settings: list[str] = ()) -> list[Run]:
    """All runs of a card, in the order of its rows; nothing is written.

    Args:
        settings: words "name=value" or "name.dataset=value", which overrule the card. "dataset=name" runs on that data
            set alone and "seed=3" or "seed=[0, 1]" with these seeds alone.

    Raises:
        ValueError: an unknown profile, a setting that does not fit, or a data set without a folder.
    """
    if profile not in card.profiles:
        raise ValueError(f"{card.name} has no profile '{profile}'{nearest(profile, card.profiles)}")
    chosen = card.profiles[profile]
    given = [_read_setting(word, card) for word in settings]
    fixed = {setting.name: setting.value for setting in given if not setting.dataset}
    datasets = [fixed.pop("dataset")] if "dataset" in fixed else list(chosen.datasets)
    seeds = _as_list(fixed.pop("seed")) if "seed" in fixed else chosen.seeds or card.seeds
    _check_settings(card, given, fixed, datasets)
    content = fingerprint(card.notebook_file)
    runs = []
    for dataset in datasets:
        own = {setting.name: setting.value for setting in given if setting.dataset == dataset}
        for row in chosen.only or card.grid:
            common = merged_parameters(card, chosen, row, dataset) | fixed | own
            common["root"] = _root(dataset, common.get("root", ""))
            for seed in seeds:
                parameters = {**common, "dataset": dataset, "seed": seed}
                name = f"{_slug(row)}-{_slug(dataset)}-{seed}-{_digest(content, parameters)}"
                folder = Path(out).absolute() / card.name / name
                runs.append(
                    Run(
                        card.name,
                        profile,
                        row,
                        dataset,
                        seed,
                        card.notebook_file,
                        parameters,
                        folder,
                        card.metric,
                    )
                )
    return runs


def merged_parameters(card: Card, profile: Profile, row: str, dataset: str) -> dict:
    """What the card gives for a row on a data set; the notebook's defaults hold for the rest."""
    return {
        **card.parameters,
        **profile.parameters,
        **profile.datasets.get(dataset, {}),
        **card.grid[row],
        **profile.grid.get(row, {}),
    }


def _slug(name: str) -> str:
    return re.sub(r"[^\w.+@=]+", "-", re.sub(r" *\+ *", "+", name)).strip("-")


def _digest(content: str, parameters: dict) -> str:
    return hashlib.sha256(json.dumps([content, parameters], sort_keys=True).encode()).hexdigest()[
        :10
    ]


# ---- settings


def _read_setting(word: str, card: Card) -> Setting:
    key, sign, text = word.partition("=")
    if not sign:
        raise ValueError(f"--set '{word}' is not of the form key=value")
    name, _, dataset = key.partition(".")
    try:
        if name in ("out", "card"):
            raise ValueError(f"'{name}' cannot be given: {OF_THE_RUN[name]}")
        value = text if isinstance(card.defaults.get(name), str) else read_value(text)
        for item in _as_list(value) if name == "seed" else [value]:
            check_parameter(name, item, card.defaults)
        if name == "seed" and len(set(_as_list(value))) != max(1, len(_as_list(value))):
            raise ValueError("give one seed or a list of different ones")
    except ValueError as error:
        raise ValueError(f"--set {word}: {error}") from None
    return Setting(name, dataset, value)


def _as_list(value) -> list:
    return value if isinstance(value, list) else [value]


def _check_settings(card: Card, given: list[Setting], fixed: dict, datasets: list[str]) -> None:
    varied = {name for parameters in card.grid.values() for name in parameters}
    for setting in given:
        if setting.name in varied:
            raise ValueError(f"--set {setting.name}: it is what the rows of {card.name} differ in")
        if setting.dataset and setting.name in OF_THE_RUN:
            raise ValueError(
                f"--set {setting.name}.{setting.dataset}: {setting.name} can be set for all data sets only"
            )
        if setting.dataset and setting.dataset not in datasets:
            raise ValueError(
                f"--set {setting.name}.{setting.dataset}: "
                f"there is no data set '{setting.dataset}'{nearest(setting.dataset, datasets)}"
            )
    if "root" in fixed and len(datasets) > 1:
        each = ", ".join(f"root.{name}=DIR" for name in datasets)
        raise ValueError(f"--set root: there are several data sets; give {each}")


def _root(dataset: str, root: str) -> str:
    """The data set's folder as an absolute path; "" for generated ones, which need none."""
    variable = f"FIELDMARKS_{dataset.upper()}"
    root = root or os.environ.get(variable, "")
    if not root and dataset in GENERATED:
        return ""
    if not root:
        raise ValueError(
            f"where is {dataset}? Give its folder by --set root.{dataset}=DIR or in the variable {variable}"
        )
    folder = Path(root).expanduser().absolute()
    if not folder.is_dir():
        raise ValueError(
            f"the folder of {dataset} is not there: '{folder}' (--set root.{dataset}=DIR, or {variable})"
        )
    return str(folder)
