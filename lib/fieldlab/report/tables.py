"""Finished runs arranged as the tables of their cards: rows, seeds, and what the paper prints.

Numbers stand in one table only where they were measured on the same split of the same images and in
one setting: runs of a card that differ in anything that its rows do not differ in, such as another
number of epochs, make tables of their own.
"""

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from fieldlab.cards.card import TIME, Card
from fieldlab.cards.finished import FinishedRun
from fieldmarks.evaluation.statistics import seed_interval

LENGTHS = ("epochs", "step_epochs", "milestones")  # of a run that takes as long as others


class Measurement(NamedTuple):
    """A mean with its 95 % interval, if any, and over what that is: "seeds", "queries" or ""."""

    mean: float
    interval: tuple[float, float] | None
    over: str


@dataclass
class Row:
    """A row of a card, or runs beside it that are alike.

    Attributes:
        name: the card's; `how` tells it from others of this name ("epochs 3").
        runs: one for each seed, in their order; none where only the paper has numbers.
        published: data set -> metric -> fraction, or milliseconds of TIME.
        only_published: the card has no parameters for it.
    """

    name: str
    runs: list[FinishedRun]
    published: dict[str, dict[str, float]] = field(default_factory=dict)
    how: str = ""
    of_card: bool = True
    only_published: bool = False

    @property
    def title(self) -> str:
        return f"{self.name} ({self.how})" if self.how else self.name

    @property
    def seeds(self) -> list:
        return [run.seed for run in self.runs]

    def measured(self, metric: str) -> Measurement | None:
        """Mean over seeds with Student's interval; of one seed, or where all seeds give one number,
        its interval over queries."""
        results = [run.result for run in self.runs if metric in numbers(run.result)]
        values = [numbers(result)[metric] for result in results]
        if not values:
            return None
        if len(set(values)) > 1:
            mean, *interval = seed_interval(values)
            return Measurement(mean, tuple(interval), "seeds")
        interval = results[0]["intervals"].get(metric)
        return Measurement(values[0], interval and tuple(interval), "queries" if interval else "")


@dataclass
class Table:
    """One card on one data set in one setting; or, without a card, all runs on one data set.

    Attributes:
        columns: data sets whose published numbers stand beside: this one, or all that the paper has
            where it has not this one.
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
        """As the runs have them."""
        return list(dict.fromkeys(name for run in self.runs for name in numbers(run.result)))

    @cached_property
    def headline(self) -> list[str]:
        """The metrics that the card prints or makes claims on; all where it does on none."""
        published = self.card.published.values() if self.card else ()
        named = {metric for row in published for cell in row.values() for metric in cell}
        named |= {claim.metric for claim in (self.card.claims if self.card else ())}
        return [metric for metric in self.metrics if metric in named] or self.metrics

    def published_metrics(self, column: str) -> list[str]:
        return list(dict.fromkeys(m for row in self.rows for m in row.published.get(column, {})))

    @property
    def lines(self) -> list[Row]:
        """All rows; before them what the network scored before training, if all runs agree."""
        start, *others = (run.result.get("start") for run in self.runs)
        if not start or any(other != start for other in others):
            return self.rows
        result = {"metrics": start, "intervals": {}, "parameters": {}}
        return [Row("before training", [FinishedRun(Path(), result)]), *self.rows]

    def rows_named(self, name: str) -> list[Row]:
        """Of the card, and run."""
        return [row for row in self.rows if row.of_card and row.runs and row.name == name]


def arrange(runs: Sequence[FinishedRun], cards: dict[str, Card | None]) -> list[Table]:
    """Tables in the order of the runs. `cards` has each card that runs name; None: not found."""
    groups = defaultdict(list)
    for run in runs:
        name = run.result["card"]
        card = cards.get(name)
        shared = _shared(_as_others(run, runs, card), card)
        groups[name, run.dataset, run.result.get("data_fingerprint"), shared].append(run)
    return [_table(key[0], cards.get(key[0]), key[1], group) for key, group in groups.items()]


def _as_others(run: FinishedRun, runs: Sequence[FinishedRun], card: Card | None) -> dict:
    """A run's setting; where its epochs come from the time of another row, with that row's."""
    if not (card and (name := run.setting.get("same_time_as"))):
        return run.setting
    data = run.result["card"], run.dataset, run.result.get("data_fingerprint")
    alike = [
        other.setting
        for other in runs
        if (other.result["card"], other.dataset, other.result.get("data_fingerprint")) == data
        and row_of(card, other) == name
    ]
    return run.setting | {n: alike[-1][n] for n in LENGTHS if alike and n in alike[-1]}


def row_of(card: Card, run: FinishedRun) -> str | None:
    """The row whose parameters the run has; None where there is none. Of several that with most, as
    "ADSH: {method: adsh, gamma: 200}" before "Baseline: {method: adsh}"."""
    has = lambda own: all(run.setting.get(name) == value for name, value in own.items())
    fitting = [row for row, own in card.grid.items() if has(own)]
    return max(fitting, key=lambda row: len(card.grid[row]), default=None)


def _shared(setting: dict, card: Card | None) -> str:
    """The setting that all runs of a table have. Without a card nothing is known to be shared."""
    varied = set(setting)
    if card:
        grids = [card.grid, *(profile.grid for profile in card.profiles.values())]
        varied = {name for grid in grids for own in grid.values() for name in own}
        if tuned := setting.get("tuned"):
            varied |= set(card.tune.space if card.tune else ())
            # What follows tells of the row alone.
            setting = setting | {"tuned": tuned.partition(";")[0]}
    return _text({name: value for name, value in setting.items() if name not in varied})


def _table(name: str, card: Card | None, dataset: str, runs: list[FinishedRun]) -> Table:
    runs, superseded = _latest(runs)
    published = card.published if card else {}
    printed = dict.fromkeys(column for cells in published.values() for column in cells)
    columns = [dataset] if dataset in printed else list(printed)
    alike = defaultdict(lambda: defaultdict(list))  # (of the card, name) -> setting -> runs
    for run in runs:
        row = row_of(card, run) if card else None
        alike[row is not None, row or run_name(run.result)][_text(run.setting)].append(run)
    rows = []
    for row in card.rows if card else []:
        cells = published.get(row, {})
        beside = {column: cells[column] for column in cells if column in columns}
        absent = Row(row, [], beside, only_published=row in card.not_run)
        rows += _rows(row, alike.pop((True, row), {}), beside) or [absent] * bool(beside)
    for (_, own), settings in alike.items():
        rows += _rows(own, settings, {}, of_card=False)
    return Table(name, card, dataset, rows, columns, superseded)


def _latest(runs: list[FinishedRun]) -> tuple[list[FinishedRun], list[FinishedRun]]:
    """One run for each setting and seed, by seed; and the others: a repeated seed is no other."""
    # Runs come in the order in which they ended.
    chosen = {_text([run.setting, run.seed]): run for run in runs}
    kept = {run.folder for run in chosen.values()}
    by_seed = sorted(chosen.values(), key=lambda run: (run.seed is None, run.seed))
    return by_seed, [run for run in runs if run.folder not in kept]


def _rows(name: str, settings: dict, published: dict, of_card: bool = True) -> list[Row]:
    """A row for each setting of one name, each with what tells it from the others."""
    first = [members[0].setting for members in settings.values()]
    names = dict.fromkeys(name for setting in first for name in setting)
    differing = [n for n in names if len({_text(setting.get(n)) for setting in first}) > 1]
    hows = [", ".join(f"{n} {in_words(s.get(n))}" for n in differing) for s in first]
    groups = zip(settings.values(), hows, strict=True)
    return [Row(name, members, published, how, of_card) for members, how in groups]


def numbers(result: dict) -> dict[str, float]:
    """What a run scored, and how long an image takes it, where that was measured."""
    timing = result.get("timing", {})
    return result["metrics"] | {name: timing[name] for name in (TIME,) if name in timing}


def run_name(result: dict) -> str:
    """The method, with its code length."""
    bits = result["parameters"].get("bits")
    return result["method"] + (f", {bits} bits" if bits else "")


def in_words(value) -> str:
    """A parameter's value for readers: as "0.005", "true", "[2, 4]", "classes 100, seed 0"."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(in_words, value))}]"
    if isinstance(value, dict):
        return ", ".join(f"{name} {in_words(each)}" for name, each in value.items()) or "none"
    return "none" if value is None or value == "" else str(value)


def _text(value) -> str:
    return json.dumps(value, sort_keys=True)
