"""Lab cards: a table or figure of a paper as a YAML file, checked before anything runs.

    title: Which constraint makes the attributes    # shown above the results
    paper: VAPNet
    table: Table 1
    notebook: notebooks/vapnet.ipynb                # in a folder above the card
    experiment: open_set                            # of fieldmarks.experiments, or a dotted module
    parameters: {method: vapnet}                    # the experiment's, for every run
    grid:                                           # the table's rows, and what makes them differ
      L_a:            {classification: true, constraint: none}
      L_a + mean L_c: {classification: true, constraint: mean}
      L_a, as long:   {classification: true, constraint: none, same_time_as: L_a + mean L_c}
    seeds: [0, 1, 2]
    profiles:
      paper:
        note: Learning rate as printed              # optional: what readers of numbers must know
        datasets: [cub, cars]                       # columns; or {cub: {epochs: 30}, cars: {}}
        parameters: {epochs: 200, lr: 1e-5}
        grid: {L_a: {lr: 1e-4}}                     # optional: of single rows in this profile
        only: [L_a]                                 # optional: these rows
        seeds: [0]                                  # optional: these seeds
    published:                                      # row, data set, metric: fractions
      L_a: {cub: {recall@1: 0.695}, cars: {recall@1: 0.893}}
      CEP: {cub: {recall@1: 0.692}, cars: {recall@1: 0.893}}
    not_run: [CEP]                                  # optional: rows that only the paper has
    tune:                                           # optional: what `fieldmarks tune` searches
      space: {lr: {low: 1e-3, high: 0.1, log: true}, views: {choices: [2, 4]}}
      metric: recall@1                              # optional: on validation data; else `metric`
    claims:                                         # optional: datasets: [cub], those it is made on
      - {text: Means help, metric: recall@1, higher: L_a + mean L_c, lower: L_a}
      - {text: As good, metric: recall@1, row: L_c, within: 0.003, of: L_a}   # 0.3 points

A row with `same_time_as` is trained for the time of the row named there: for as many epochs as take
that long in its twin, the row that has the same parameters but for this one.
A row of `not_run` has no program here; it stands after the row that is before it in `published`.
A run takes one row, one data set and one seed. Where two places give the same parameter, the later
counts: the card's `parameters`, the profile's, the data set's, the row's, the row's in the profile.
"""

import dataclasses
import json
import math
import re
from collections.abc import Iterable, Iterator
from functools import cache, cached_property
from itertools import pairwise, product
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import AfterValidator as After
from pydantic import BaseModel, Field, ValidationError, model_validator
from pydantic import BeforeValidator as Before

from fieldlab.cards.notebook import parameters_cell
from fieldlab.cards.space import Searched, Tune
from fieldmarks.checks import nearest_name

TIME = "ms_per_image"  # the one published number that is no fraction; in the runs' `timing`
GENERATED = ("fieldguide", "wardrobe")  # data sets that are drawn where they are given no folder
# The runner sets these in every run, so a card may not.
OF_THE_RUN = dict.fromkeys(("out", "card"), "the runner sets it")
OF_THE_RUN |= {"seed": "give seeds", "dataset": "give datasets"}


def _different(values: list) -> list:
    if twice := [value for value in values if values.count(value) > 1]:
        raise ValueError(f"{twice[0]!r} is there twice")
    return values


def _by_name(value):
    plain = isinstance(value, list) and all(isinstance(name, str) for name in value)
    return {name: {} for name in value} if plain else value


Different, NotEmpty = After(_different), Field(min_length=1)


class _Strict(BaseModel, frozen=True, extra="forbid", strict=True):
    pass


class Claim(_Strict):
    """What the paper says its table shows, in words and as a comparison of two rows: `higher` is
    more than `lower`, or `row` lies within a fraction of `of`."""

    text: str
    metric: str
    higher: str | None = None
    lower: str | None = None
    row: str | None = None
    within: Annotated[float, Field(gt=0, le=1)] | None = None
    of: str | None = None
    datasets: list[str] = []

    @property
    def rows(self) -> tuple[str, str]:
        """The two whose difference, first - second, is tested."""
        return (self.higher, self.lower) if self.within is None else (self.row, self.of)

    @model_validator(mode="after")
    def _compares_two_rows(self):
        forms = (("higher", "lower"), ("row", "within", "of"))
        given = [name for form in forms for name in form if getattr(self, name) is not None]
        if tuple(given) not in forms:
            has = f"it has {', '.join(given) or 'no rows'}"
            raise ValueError(f"{has}: give either higher and lower, or row, within and of")
        if self.rows[0] == self.rows[1]:
            raise ValueError(f"{given[0]} and {given[-1]} are the same row")
        return self


class Profile(_Strict):
    """One way to run a card: the paper's, or smaller ones."""

    note: str = ""
    datasets: Annotated[dict[str, dict], NotEmpty, Before(_by_name)]
    parameters: dict = {}
    grid: dict[str, dict] = {}
    only: Annotated[list[str], Different] = []
    seeds: Annotated[list[int], Different] = []


class Card(_Strict):
    """A card that `load_card` has checked. `file` is where it stands; the rest are its keys."""

    file: Path
    title: str
    paper: str
    table: str
    notebook: str
    experiment: str
    parameters: dict = {}
    grid: Annotated[dict[str, dict], NotEmpty]
    profiles: Annotated[dict[str, Profile], NotEmpty]
    seeds: Annotated[list[int], NotEmpty, Different] = [0]
    published: dict[str, dict[str, dict[str, float]]] = {}
    not_run: Annotated[list[str], Different] = []
    claims: list[Claim] = []
    tune: Tune | None = None

    @property
    def name(self) -> str:
        """The file's name after its folder's, as "vapnet-table1"."""
        return f"{self.file.parent.name}-{self.file.stem}"

    @cached_property
    def notebook_file(self) -> Path:
        """The notebook, in the card's folder or above. Raises ValueError where there is none."""
        files = [folder / self.notebook for folder in self.file.parents]
        if existing := next(filter(Path.is_file, files), None):
            return existing
        beside = [other.name for file in files for other in file.parent.glob("*.ipynb")]
        near = nearest_name(self.notebook, [str(Path(self.notebook).with_name(n)) for n in beside])
        raise ValueError(f"notebook: there is no '{self.notebook}'{near}")

    @cached_property
    def parameters_class(self) -> type:
        """The experiment's; takes seconds to import. Raises ValueError where there is none."""
        from fieldmarks.experiments.experiment import experiment_class

        try:
            return experiment_class(self.experiment).Parameters
        except ValueError as error:
            raise ValueError(f"experiment: {error}") from None

    @property
    def defaults(self) -> dict:
        """The experiment's parameters with their default values."""
        return dataclasses.asdict(self.parameters_class())

    @property
    def datasets(self) -> list[str]:
        """Of all profiles."""
        return list(dict.fromkeys(name for p in self.profiles.values() for name in p.datasets))

    @property
    def rows(self) -> list[str]:
        """The grid's in their order, and those of `not_run` where the paper has them."""
        rows = list(self.grid)
        for before, name in pairwise([None, *self.published]):
            if name in self.not_run:
                rows.insert(rows.index(before) + 1 if before else 0, name)
        return rows

    @property
    def published_metrics(self) -> list[str]:
        return [m for row in self.published.values() for cells in row.values() for m in cells]

    @property
    def metric(self) -> str | None:
        """The one to show where one has room: the first claim's, or the first published."""
        return ([claim.metric for claim in self.claims] + self.published_metrics + [None])[0]

    def merged(self, profile: str, row: str, dataset: str) -> dict:
        """The parameters that the card gives for a run and its data set."""
        p = self.profiles[profile]
        places = (self.parameters, p.parameters, p.datasets.get(dataset, {}), self.grid[row])
        named = {k: v for place in (*places, p.grid.get(row, {})) for k, v in place.items()}
        return named | {"dataset": dataset}

    def twin(self, row: str) -> str:
        """The row with the same parameters, for as many epochs as the others, of one that has
        `same_time_as`. Raises ValueError where there is none."""
        own = {name: value for name, value in self.grid[row].items() if name != "same_time_as"}
        if twins := [name for name, parameters in self.grid.items() if parameters == own]:
            return twins[0]
        lacking = "no row has the same parameters without same_time_as"
        raise ValueError(f"{lacking}: add it, for how long an epoch takes is measured there")

    def searched(self, profile: str, row: str) -> dict[str, Searched]:
        """What tuning searches for a row: all of the space but what the row itself fixes."""
        fixed = self.grid[row] | self.profiles[profile].grid.get(row, {})
        space = self.tune.space if self.tune else {}
        return {name: where for name, where in space.items() if name not in fixed}

    def check_run(self, profile: str, row: str, parameters: dict) -> dict:
        """All parameters of a run, as plain values, with defaults for those that are not given.
        Raises ValueError where they cannot be together."""
        from fieldmarks.experiments.parameters import parse

        try:
            return json.loads(json.dumps(parse(self.parameters_class, parameters).plain()))
        except ValueError as error:
            raise ValueError(f"profile {profile}: row {row}: {error}") from None

    @model_validator(mode="after")
    def _names_exist(self):
        """Rows, data sets and metrics are named in several places."""
        for place, kind, names, known in self._names():
            for name in names:
                if name not in known:
                    near = nearest_name(name, known)
                    raise ValueError(f"{place}: there is no {kind} '{name}'{near}")
        if twice := [row for row in self.not_run if row in self.grid]:
            raise ValueError(f"not_run: the grid has a row '{twice[0]}'")
        return self

    @model_validator(mode="after")
    def _published_are_fractions(self):
        for row, columns in self.published.items():
            for column, cells in columns.items():
                for metric, value in cells.items():
                    if not 0 <= value <= (math.inf if metric == TIME else 1):
                        place = f"published.{row}.{column}.{metric}"
                        raise ValueError(f"{place}: {MESSAGES['less_than_equal']}, not {value}")
        return self

    def _names(self) -> Iterator[tuple[str, str, Iterable[str], Iterable[str]]]:
        """(place, kind, names, known names)"""
        for name, profile in self.profiles.items():
            yield f"profiles.{name}.grid", "row", profile.grid, self.grid
            yield f"profiles.{name}.only", "row", profile.only, self.grid
        yield "not_run", "published row", self.not_run, self.published
        yield "published", "row", self.published, [*self.grid, *self.not_run]
        for row, columns in self.published.items():
            yield f"published.{row}", "data set", columns, self.datasets
        for number, claim in enumerate(self.claims):
            yield f"claims.{number}", "row", claim.rows, self.grid
            yield f"claims.{number}.datasets", "data set", claim.datasets, self.datasets
            if known := self.published_metrics:
                yield f"claims.{number}.metric", "published metric", [claim.metric], known


def load_card(file: Path) -> Card:
    """Read a card and check all of it, with every run that it stands for.

    Raises:
        ValueError: one line with the card, the place, what is wrong and, for a name, the nearest
            right spelling.
    """
    file = Path(file).absolute()
    shown = _short(file)
    try:
        content = yaml.load(_text(file, shown), _Loader)
    except yaml.MarkedYAMLError as error:
        raise ValueError(f"{shown}:{error.problem_mark.line + 1}: {error.problem}") from None
    except yaml.YAMLError as error:  # of characters that no text file holds
        raise ValueError(f"{shown}: {str(error).splitlines()[0]}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{shown}: a card is a mapping with the keys {', '.join(_keys(Card))}")
    try:
        if "file" in content:
            raise ValueError(f"unknown key 'file'{nearest_name('file', _keys(Card))}")
        card = Card.model_validate({**content, "file": file})
        parameters_cell(card.notebook_file)
        _check_parameters(card)
    except ValueError as error:
        known = isinstance(error, ValidationError)
        raise ValueError(f"{shown}: {_message(error) if known else error}") from None
    return card


def _text(file: Path, shown: str) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        known = [_short(path) for path in sorted(file.parent.glob("[!.]*.yaml"))]
        raise ValueError(f"there is no card '{shown}'{nearest_name(shown, known)}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"the card '{shown}' cannot be read: {error}") from None


def _short(file: Path) -> str:
    """As a user would write it: relative to the current folder, where it is below."""
    return str(file.relative_to(Path.cwd())) if file.is_relative_to(Path.cwd()) else str(file)


class _Loader(yaml.SafeLoader):
    """Safe YAML without two surprises: 1e-5 is a number, not text, and no key may stand twice."""

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"'{key.value}' is there twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def read_value(text: str):
    """A value as a card would hold it. Raises ValueError for text that is not YAML."""
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError:
        kinds = "a number, true or false, a list or a mapping"
        raise ValueError(f"'{text}' cannot be read as {kinds}") from None


def check_values(parameters_class: type, values: dict) -> None:
    """Check each by itself, whether or not they can be together. Raises ValueError for an unknown
    parameter or a value of the wrong type."""
    from fieldmarks.experiments.parameters import parse

    parse(_unrelated(parameters_class), values)
    for name, value in values.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"parameter '{name}' is {value}: it must be a number")


@cache
def _unrelated(parameters_class: type) -> type:
    """A class with the same fields, and without checks of what can be together."""
    fields = dataclasses.fields(parameters_class)
    names = [(f.name, f.type, dataclasses.field(default=None)) for f in fields]
    return dataclasses.make_dataclass(parameters_class.__name__, names, frozen=True)


def _check_parameters(card: Card) -> None:
    kind, places = card.parameters_class, {"parameters": card.parameters}
    places |= {f"grid.{row}": own for row, own in card.grid.items()}
    rows = {f"grid.{row}": row for row in card.grid}
    for name, profile in card.profiles.items():
        places[f"profiles.{name}.parameters"] = profile.parameters
        for key, groups in (("grid", profile.grid), ("datasets", profile.datasets)):
            places |= {f"profiles.{name}.{key}.{each}": own for each, own in groups.items()}
    for place, parameters in places.items():
        try:
            for name in OF_THE_RUN.keys() & parameters:
                raise ValueError(f"'{name}' cannot be given here: {OF_THE_RUN[name]}")
            check_values(kind, parameters)
            if other := parameters.get("same_time_as"):
                if place not in rows:
                    raise ValueError("same_time_as can be given in the card's grid only")
                _check_same_time(card, rows[place], other)
        except ValueError as error:
            raise ValueError(f"{place}: {error}") from None
    _check_space(card)
    for name, profile in card.profiles.items():
        for dataset, row in product(profile.datasets, profile.only or card.grid):
            root = "" if dataset in GENERATED else "."
            values = card.merged(name, row, dataset) | {"root": root}
            card.check_run(name, row, values)
            for searched, where in card.searched(name, row).items():
                for end in where.ends:
                    card.check_run(name, row, values | {searched: end})


def _check_same_time(card: Card, row: str, other: str) -> None:
    if other not in card.grid:
        raise ValueError(f"same_time_as: there is no row '{other}'{nearest_name(other, card.grid)}")
    if "same_time_as" in card.grid[other]:
        raise ValueError(f"same_time_as: the time of '{other}' is itself that of another row")
    card.twin(row)


def _check_space(card: Card) -> None:
    for name, where in (card.tune.space if card.tune else {}).items():
        try:
            if name in (*OF_THE_RUN, "tuned", "same_time_as"):
                raise ValueError(f"it cannot be searched: {OF_THE_RUN.get(name, 'tuning sets it')}")
            for end in where.ends:
                check_values(card.parameters_class, {name: end})
            if not any(name in card.searched(p, row) for p in card.profiles for row in card.grid):
                raise ValueError("every row fixes it: leave it out here, or there")
            where.distribution(card.defaults[name])
        except ValueError as error:
            raise ValueError(f"tune.space.{name}: {error}") from None


MESSAGES = {
    "string_type": "it must be text (in quotes where it looks like a number)",
    "int_type": "it must be a whole number",
    "float_type": "it must be a number",
    "dict_type": "it must be a mapping (name: value)",
    "list_type": "it must be a list",
    "too_short": "it must not be empty",
    "greater_than": "it must be above 0",
    "less_than_equal": "it must be a fraction, as 0.695 for 69.5 %",
}


def _keys(model: type[BaseModel]) -> list[str]:
    return [name for name in model.model_fields if name != "file"]


def _message(error: ValidationError) -> str:
    first = error.errors()[0]
    above, kind = first["loc"][:-1], first["type"]
    place = ".".join(str(part) for part in first["loc"] if part != "[key]")
    if kind == "extra_forbidden":
        models = {
            "profiles": Profile,
            "claims": Claim,
            "tune": Tune if len(above) < 2 else Searched,
        }
        model = models.get(above[0] if above else "", Card)
        return f"unknown key '{place}'{nearest_name(str(first['loc'][-1]), _keys(model))}"
    if kind == "missing":
        return f"'{place}' is missing"
    if kind == "value_error":
        return f"{place}: {first['ctx']['error']}".removeprefix(": ")
    return f"{place}: {MESSAGES.get(kind, first['msg'])}, not {first['input']!r}"
