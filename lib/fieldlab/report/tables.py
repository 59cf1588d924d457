"""Finished runs arranged as the tables of their cards: rows, seeds, and what the paper prints beside them.

Numbers stand in one table only where they were measured on the same split of the same images and in one setting: runs of a
card that differ in anything that its rows do not differ in, as another number of epochs, make tables of their own.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from fieldmarks.evaluation.statistics import seed_interval

from fieldlab.cards.card import Card
from fieldlab.cards.finished import FinishedRun


@dataclass(frozen=True)
class Measurement:
    """A mean with its 95 % interval, if there is one, and over what that is: "seeds", "queries" or ""."""

    mean: float
    interval: tuple[float, float] | None
    over: str


@dataclass
class Row:
    """A row of a card, or runs beside it that are alike.

    Attributes:
        name: the card's; `how` tells it from others of this name ("epochs 3").
        runs: one for each seed, in their order; none where only the paper has numbers.
        published: data set -> metric -> fraction.
    """

    name: str
    runs: list[FinishedRun]
    published: dict[str, dict[str, float]] = field(default_factory=dict)
    how: str = ""
    of_card: bool = True

    @property
    def title(self) -> str:
        return f"{self.name} ({self.how})" if self.how else self.name

    @property
    def seeds(self) -> list:
        return [run.seed for run in self.runs]

    def measured(self, metric: str) -> Measurement | None:
        """Mean over seeds with Student's interval; of one seed, or where all give one number, its interval over queries."""
        runs = [run for run in self.runs if metric in run.result["metrics"]]
        values = [run.result["metrics"][metric] for run in runs]
        if not values:
            return None
        if len(set(values)) > 1:
            mean, *interval = seed_interval(values)
            return Measurement(mean, tuple(interval), "seeds")
        interval = runs[0].result["intervals"].get(metric)
        return Measurement(
            values[0], tuple(interval) if interval else None, "queries" if interval else ""
        )


@dataclass
class Table:
    """One card on one data set in one setting; or, without a card, all runs on one data set.

    Attributes:
        columns: data sets whose published numbers stand beside: this one, or all that the paper has where it has not this one.
        superseded: runs with the same parameters and seed as a later one, which do not count.
    """

    card_name: str
    card: Card | None
    dataset: str
    rows: list[Row]
    columns: list[str]
    superseded: list[FinishedRun]

    @property
    def runs(self) -> list[FinishedRun]:
        return [run for row in self.rows for run in row.runs]

    @property
    def in_paper(self) -> bool:
        """Whether the paper has numbers on this data set."""
        return self.columns == [self.dataset]

    @cached_property
    def metrics(self) -> list[str]:
        """Measured ones first, as the runs have them."""
        return list(dict.fromkeys([name for run in self.runs for name in run.result["metrics"]]))

    @cached_property
    def headline(self) -> list[str]:
        """Those of the metrics that the card's paper prints or makes claims on; all of them where that is none."""
        cells = [
            cell
            for columns in (self.card.published if self.card else {}).values()
            for cell in columns.values()
        ]
        asked = {metric for cell in cells for metric in cell} | {
            claim.metric for claim in (self.card.claims if self.card else [])
        }
        return [metric for metric in self.metrics if metric in asked] or self.metrics

    def published_metrics(self, column: str) -> list[str]:
        return list(
            dict.fromkeys(metric for row in self.rows for metric in row.published.get(column, {}))
        )

    @property
    def start(self) -> dict[str, float] | None:
        """What the network scored before training, where it is the same for all runs."""
        starts = [run.result.get("start") for run in self.runs]
        return starts[0] if starts[0] and all(start == starts[0] for start in starts) else None

    def rows_named(self, name: str) -> list[Row]:
        """Of the card, and run."""
        return [row for row in self.rows if row.of_card and row.runs and row.name == name]


def arrange(runs: Sequence[FinishedRun], cards: dict[str, Card | None]) -> list[Table]:
    """Tables in the order of the runs. `cards` holds each card that runs name, None where it was not found."""
    groups: dict[tuple, list[FinishedRun]] = {}
    for run in runs:
        card = cards.get(run.result["card"])
        key = (
            run.result["card"],
            run.dataset,
            run.result.get("data_fingerprint"),
            _shared(run, card),
        )
        groups.setdefault(key, []).append(run)
    return [
        _table(name, cards.get(name), dataset, members)
        for (name, dataset, *_), members in groups.items()
    ]


def row_of(card: Card, run: FinishedRun) -> str | None:
    """The row whose parameters the run has; of several the one with most, as "ADSH: {method: adsh, gamma: 200}" before
    "Baseline: {method: adsh}". None where there is none."""
    fitting = [
        row
        for row, own in card.grid.items()
        if all(run.setting.get(name) == value for name, value in own.items())
    ]
    return max(fitting, key=lambda row: len(card.grid[row]), default=None)


def _varied(card: Card) -> set[str]:
    grids = [card.grid, *(profile.grid for profile in card.profiles.values())]
    return {name for grid in grids for parameters in grid.values() for name in parameters}


def _shared(run: FinishedRun, card: Card | None) -> str:
    """The setting that all runs of a table have. Runs without a card share nothing that could be known."""
    varied = _varied(card) if card else run.setting
    return json.dumps(
        {name: value for name, value in run.setting.items() if name not in varied}, sort_keys=True
    )


def _table(name: str, card: Card | None, dataset: str, runs: list[FinishedRun]) -> Table:
    runs, superseded = _latest(runs)
    published = card.published if card else {}
    printed = list(dict.fromkeys(column for cells in published.values() for column in cells))
    columns = [dataset] if dataset in printed else printed
    alike: dict[tuple, list[FinishedRun]] = {}
    for run in runs:
        row = row_of(card, run) if card else None
        alike.setdefault(
            (row, row or _own_name(run), json.dumps(run.setting, sort_keys=True)), []
        ).append(run)
    rows = []
    for row in card.grid if card else []:
        beside = {
            column: cells for column, cells in published.get(row, {}).items() if column in columns
        }
        measured = [members for (of, *_), members in alike.items() if of == row]
        rows += [Row(row, members, beside, how) for members, how in zip(measured, _how(measured))]
        if not measured and beside:
            rows.append(Row(row, [], beside))
    for own in dict.fromkeys(own for of, own, _ in alike if of is None):
        measured = [
            members for (of, title, _), members in alike.items() if of is None and title == own
        ]
        rows += [
            Row(own, members, {}, how, of_card=False)
            for members, how in zip(measured, _how(measured))
        ]
    return Table(name, card, dataset, rows, columns, superseded)


def _latest(runs: list[FinishedRun]) -> tuple[list[FinishedRun], list[FinishedRun]]:
    """One run for each setting and seed, by seed; and the others. A repeated seed is not another seed."""
    chosen: dict[str, FinishedRun] = {}
    for run in runs:  # in the order in which they ended
        chosen[json.dumps([run.setting, run.seed], sort_keys=True)] = run
    kept = {run.folder for run in chosen.values()}
    by_seed = sorted(chosen.values(), key=lambda run: (run.seed is None, run.seed))
    return by_seed, [run for run in runs if run.folder not in kept]


def _own_name(run: FinishedRun) -> str:
    """Of a run that is no row of a card."""
    bits = run.setting.get("bits")
    return run.result["method"] + (f", {bits} bits" if bits else "")


def _how(rows: list[list[FinishedRun]]) -> list[str]:
    """What tells rows of one name from each other; "" for a single one."""
    settings = [members[0].setting for members in rows]
    names = dict.fromkeys(name for setting in settings for name in setting)
    differing = [
        name for name in names if len({json.dumps(setting.get(name)) for setting in settings}) > 1
    ]
    return [
        ", ".join(f"{name} {in_words(setting.get(name))}" for name in differing)
        for setting in settings
    ]


def in_words(value) -> str:
    """A parameter's value for readers: as "0.005", "true", "[2, 4]"."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(in_words, value))}]"
    return "none" if value is None or value == "" else str(value)
