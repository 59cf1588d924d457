"""Tuning: the same search for every row of a card, with the same number of trials, on validation
data; then final runs of the rows with the best values, under seeds of their own.

Trials are asked for in batches. What a batch tries follows from the batches before it alone, not
from the order in which runs end: so a tuning that was killed, or has more workers, comes to the
same trials. Each trial is a run as any other, in its own folder below `tune/`, and is in Optuna's
storage there once its batch is over: `optuna-dashboard sqlite:///DIR/tune/CARD/trials.db` shows it.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from fieldlab.cards.card import Card
from fieldlab.cards.space import Searched
from fieldlab.sweep.plan import Run, plan, run_planned
from fieldlab.sweep.runner import Outcome
from fieldmarks.checks import nearest_name
from fieldmarks.experiments.experiment import experiment_class
from fieldmarks.experiments.parameters import parse
from fieldmarks.experiments.result import TRIAL, read_result
from fieldmarks.files import lock, write_json

FIRST, BATCH = 10, 5  # trials: at random, as Optuna's TPE begins; and between two looks at results
SEED = 1001  # of all trials; the next one that no final run has
TUNED = "tuned.json"

Sweep = Callable[[list[Run]], list[Outcome]]
optuna.logging.set_verbosity(optuna.logging.ERROR)


@dataclass(frozen=True)
class Search:
    """One row on one data set.

    Attributes:
        run: with the values that the card gives; trials differ from it in what is searched.
        space: what is searched.  fixed: what the card searches, and this row does not.
    """

    run: Run
    space: dict[str, Searched]
    fixed: dict
    distributions: dict[str, BaseDistribution]
    study: optuna.Study

    @property
    def key(self) -> tuple[str, str]:
        return self.run.row, self.run.dataset

    def ask(self, first: int, last: int) -> list[dict]:
        """The values of trials first .. last - 1, as Optuna has them."""
        # In memory, for of what is not over yet nothing is kept.
        draft = optuna.create_study(direction="maximize")
        draft.add_trials(self.study.trials[:first])
        asked = []
        for number in range(first, last):
            draft.sampler = optuna.samplers.TPESampler(n_startup_trials=FIRST, seed=SEED + number)
            asked.append(draft.ask(self.distributions).params)
        return asked

    def values(self, drawn: dict) -> dict:
        return {name: self.space[name].value(drawn[name]) for name in self.space}

    def best(self, trials: int) -> FrozenTrial:
        """Of the first so many; the earliest of equals."""
        done = [t for t in self.study.trials[:trials] if t.state == TrialState.COMPLETE]
        return max(done, key=lambda trial: trial.value)


class Tuning:
    """The tuning of a card: what it will do (`lines`), and `run`.

    Raises:
        ValueError: the card has nothing to search or no data to choose by, a setting does not fit,
            or as `plan`.
    """

    def __init__(
        self, card: Card, profile: str, out: Path, trials: int, settings: Sequence[str] = ()
    ):
        self.card, self.profile, self.out, self.trials = card, profile, Path(out), trials
        self.settings, self.folder = settings, Path(out).absolute() / "tune" / card.name
        self.kind = experiment_class(card.experiment)
        self._check()
        self.metric = card.tune.metric or card.metric
        self.finals = plan(card, profile, out, settings)
        self.seeds = list(dict.fromkeys(run.seed for run in self.finals))
        self.seed = next(seed for seed in count(SEED) if seed not in self.seeds)
        self.searches: list[Search] = []

    def _check(self) -> None:
        card, searched = self.card, self.card.tune.space if self.card.tune else {}
        if not searched:
            right = "give it a key tune, as {space: {lr: {low: 0.001, high: 0.1, log: true}}}"
            raise ValueError(f"{card.name} does not say what to search: {right}")
        if not self.kind.validation_data:
            none = f"{card.experiment} has no validation data, and test data choose nothing"
            raise ValueError(f"{card.name} cannot be tuned: {none}")
        if not (card.tune.metric or card.metric):
            raise ValueError(f"{card.name} names no metric to go by: give tune.metric")
        for text in self.settings:
            if (name := text.partition("=")[0].partition(".")[0]) in (*searched, "tuned"):
                raise ValueError(f"--set {name}: tuning chooses it")

    def open(self, keep: bool = True) -> "Tuning":
        """Look for what earlier calls have done. With `keep`, this process is the only one that
        tunes the card there, and what it does is kept.

        Raises:
            ValueError: the data have too few classes or images to hold some out.
            RuntimeError: another process tunes it there.
        """
        longer = [row for row, own in self.card.grid.items() if "same_time_as" in own]
        keys = [(run.row, run.dataset) for run in self.finals if run.row not in longer]
        runs = self._trials(dict.fromkeys(keys, {}))
        for run in {run.dataset: run for run in runs}.values():
            if self.kind.tuning:
                self.kind.parts(parse(self.kind.Parameters, run.parameters))
        if keep:
            lock(self.folder)
        file = self.folder / "trials.db"
        storage = f"sqlite:///{file}" if keep or file.exists() else None
        self.searches = [self._search(run, storage) for run in runs]
        return self

    def _trials(self, drawn: dict[tuple[str, str], dict]) -> list[Run]:
        """A trial of each row and data set, with these values."""
        chosen = {
            key: {**values, **self.kind.tuning, "tuned": TRIAL} for key, values in drawn.items()
        }
        out = self.folder.parent
        return plan(self.card, self.profile, out, self.settings, chosen, [self.seed])

    def _search(self, run: Run, storage: str | None) -> Search:
        space, all_of_it = self.card.searched(self.profile, run.row), self.card.tune.space
        fixed = {name: run.parameters[name] for name in all_of_it if name not in space}
        defaults = self.card.defaults
        distributions = {n: where.distribution(defaults[n]) for n, where in space.items()}
        # The folder's name has a hash of the notebook and of all parameters but those searched.
        text = json.dumps([self.metric, *map(repr, sorted(distributions.items()))])
        name = f"{run.folder.name}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"
        options = {"storage": storage, "study_name": name, "load_if_exists": True}
        study = optuna.create_study(direction="maximize", **options)
        return Search(run, space, fixed, distributions, study)

    # What it will do

    def lines(self) -> Iterator[str]:
        """The plan, a line for each row and data set."""
        for search in self.searches:
            parts = [f"{name} {where.in_words()}" for name, where in search.space.items()]
            parts += [f"{name}={value} (fixed by the row)" for name, value in search.fixed.items()]
            trials = f"{self.trials} trials" if search.space else "nothing to search"
            done = f", {len(self._done(search))} done" if self._done(search) else ""
            name = f"{search.run.card}  {search.run.row}  {search.run.dataset}"
            yield f"{trials}{done}  {name}  {'  '.join(parts)}"
        by = f"by {self.metric} on {self.kind.validation_data}, seed {self.seed}"
        yield f"chosen {by}; then {len(self.finals)} final runs, seeds {self._seeds}"

    @property
    def _seeds(self) -> str:
        return ", ".join(map(str, self.seeds))

    def _done(self, search: Search) -> list[FrozenTrial]:
        return search.study.trials[: self.trials]

    def left(self) -> list[Run]:
        """A run of the same row and data set for each that is still to be done, to estimate by."""
        searched = [search for search in self.searches if search.space]
        waiting = [s.run for s in searched for _ in range(self.trials - len(self._done(s)))]
        return waiting + self.finals

    # Doing it

    def run(self, sweep: Sweep) -> list[Outcome]:
        """All trials, batch by batch, then tuned.json and the final runs.

        Args:
            sweep: executes runs.

        Returns:
            the outcomes of the last runs: the final ones; those of a batch where it was stopped, or
            where a row's trials have all failed.

        Raises:
            ValueError: a trial has not the metric.
        """
        for first, last in _batches(self.trials):
            outcomes = self._batch(first, last, sweep)
            if outcomes is not None:
                return outcomes
        self._write()
        best = {s.key: s.values(s.best(self.trials).params) for s in self.searches if s.space}
        chosen = {s.key: best.get(s.key, {}) | {"tuned": self._told(s)} for s in self.searches}
        card, twins = self.card, [r for r, own in self.card.grid.items() if "same_time_as" in own]
        for row in twins:  # that take as long as another row have the values of those like them
            chosen |= {(row, d): v for (r, d), v in chosen.items() if r == card.twin(row)}
        again = partial(plan, card, self.profile, self.out, self.settings, chosen)
        return run_planned(again(), again, sweep)

    def _told(self, search: Search) -> str:
        """What a row's final runs say of it; up to ";" the same for all rows, which makes them one
        table in a report."""
        text = f"{self.trials} trials on {self.kind.validation_data}, see {TUNED}"
        return text + "; this row fixes all that is searched" * (not search.space)

    def _batch(self, first: int, last: int, sweep: Sweep) -> list[Outcome] | None:
        """Trials first .. last - 1 of all rows; the outcomes where it cannot go on."""
        searches = [s for s in self.searches if s.space and len(s.study.trials) < last]
        asked = {s.key: s.ask(first, last) for s in searches}
        runs = []  # (search, what Optuna drew, run)
        for number in range(first, last):
            waiting = {s.key: s for s in searches if len(s.study.trials) <= number}
            drawn = {key: asked[key][number - first] for key in waiting}
            planned = self._trials({key: waiting[key].values(drawn[key]) for key in waiting})
            keys = [(run.row, run.dataset) for run in planned]
            runs += [(waiting[k], drawn[k], run) for k, run in zip(keys, planned, strict=True)]
        outcomes = sweep([run for *_, run in runs]) if runs else []
        if any(outcome.state == "stopped" for outcome in outcomes):
            return outcomes
        for search in searches:
            ended = [
                (self._trial(search, drawn, run), outcome)
                for (owner, drawn, run), outcome in zip(runs, outcomes, strict=True)
                if owner is search
            ]
            if all(outcome.state == "failed" for _, outcome in ended):
                return outcomes
            search.study.add_trials([trial for trial, _ in ended])
        return None

    def _trial(self, search: Search, drawn: dict, run: Run) -> FrozenTrial:
        options = {"params": drawn, "distributions": search.distributions}
        options["user_attrs"] = {"folder": run.folder.name}
        if (result := read_result(run.folder)) is None:
            return optuna.trial.create_trial(state=TrialState.FAIL, **options)
        return optuna.trial.create_trial(value=self.score(result), **options)

    def score(self, result: dict) -> float:
        """A finished trial's metric on validation data, a fraction. Raises ValueError where it has
        not that metric."""
        rows = [result["metrics"]] if self.kind.tuning else result["curves"]["evaluations"]
        scores = [row[self.metric] for row in rows if self.metric in row]
        if not scores:
            names = [name for row in rows[:1] for name in row]
            near = nearest_name(self.metric, names) or ": it learns nothing, so let its row fix all"
            where = f"has no '{self.metric}' on {self.kind.validation_data}"
            raise ValueError(f"tune.metric: {result['method']} {where}{near}")
        return max(scores)

    def _write(self) -> None:
        """tuned.json, which has an entry for each card that was tuned in the folder."""
        file, rows = self.out / TUNED, []
        for search in self.searches:
            row = {"row": search.run.row, "dataset": search.run.dataset, "fixed": search.fixed}
            row |= {"trials": len(self._done(search)), "values": {}}
            if search.space:
                best, states = search.best(self.trials), [t.state for t in self._done(search)]
                row["failed"] = states.count(TrialState.FAIL)
                row |= {"values": search.values(best.params), "score": best.value}
            rows.append(row)
        space = {n: w.model_dump(exclude_defaults=True) for n, w in self.card.tune.space.items()}
        entry = {"profile": self.profile, "settings": list(self.settings), "space": space}
        entry |= {"metric": self.metric, "measured_on": self.kind.validation_data}
        entry |= {"trials": self.trials, "seed": self.seed, "seeds": self.seeds, "rows": rows}
        others = json.loads(file.read_text()) if file.is_file() else {}
        write_json(file, others | {self.card.name: entry})


def _batches(trials: int) -> Iterator[tuple[int, int]]:
    """(first, one past the last), the first of FIRST trials and others of BATCH."""
    ends = [0, FIRST]
    while ends[-1] < trials:
        ends.append(ends[-1] + BATCH)
    for first, last in zip(ends, ends[1:], strict=False):
        yield first, min(last, trials)
