"""Lab cards: a table or figure of a paper as a YAML file, checked whole before anything runs.

    title: Which constraint makes the attributes        # shown above the results
    paper: VAPNet
    table: Table 1
    notebook: notebooks/vapnet.ipynb                    # relative to the repository
    parameters: {method: vapnet}                        # of every run, under the notebook's own names

    grid:                                               # the table's rows, each with what makes it differ
      L_a:            {classification: true, constraint: none}
      L_a + mean L_c: {classification: true, constraint: mean}

    seeds: [0, 1, 2]
    profiles:
      paper:
        note: Learning rate as printed                  # optional: what a reader of the numbers must know
        datasets: [cub, cars]                           # the table's columns; or {cub: {epochs: 30}, cars: {}}
        parameters: {epochs: 200, lr: 1e-5}
        grid: {L_a: {lr: 1e-4}}                         # optional: parameters of single rows in this profile
        only: [L_a]                                     # optional: these rows
        seeds: [0]                                      # optional: these seeds

    published:                                          # row, data set, metric: fractions
      L_a: {cub: {recall@1: 0.695}, cars: {recall@1: 0.893}}

    claims:
      - text: Mean encoders help.
        metric: recall@1
        higher: L_a + mean L_c
        lower: L_a
        datasets: [cub]                                 # optional: on these; otherwise on all
      - text: Direct exchange does as well.
        metric: recall@1
        row: L_a + L_c
        within: 0.003                                   # a fraction: 0.3 points
        of: L_a + mean L_c

A run takes one row, one data set and one seed. Where two places give the same parameter, the later of these counts: the
card's `parameters`, the profile's, the data set's, the row's, the row's in the profile.
"""

import difflib
import math
import re
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from fieldlab.sweep.notebook import default_parameters

Fraction = Annotated[float, Field(ge=0, le=1)]
# Every notebook has these; the runner sets them, so a card may not.
OF_THE_RUN = {
    "out": "the runner sets it",
    "card": "the runner sets it",
    "seed": "give seeds",
    "dataset": "give datasets",
}


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Claim(_Strict):
    """What the paper says its table shows, in words and as a comparison of two rows: `higher` scores more than `lower`, or
    `row` lies no further than `within`, a fraction, from `of`."""

    text: str
    metric: str
    higher: str | None = None
    lower: str | None = None
    row: str | None = None
    within: Fraction | None = None
    of: str | None = None
    datasets: list[str] = []

    @property
    def rows(self) -> tuple[str, str]:
        """The two whose difference, first - second, is looked at."""
        return (self.higher, self.lower) if self.within is None else (self.row, self.of)


class Profile(_Strict):
    """One way to run a card: the paper's, or smaller ones."""

    note: str = ""
    datasets: dict[str, dict] = Field(min_length=1)
    parameters: dict = {}
    grid: dict[str, dict] = {}
    only: list[str] = []
    seeds: list[int] = []

    @field_validator("datasets", mode="before")
    @classmethod
    def _plain_names(cls, value):
        plain = isinstance(value, list) and all(isinstance(name, str) for name in value)
        return {name: {} for name in value} if plain else value


class Card(_Strict):
    """A card that `load_card` has checked. `file` is where it stands; the other fields are its keys."""

    file: Path
    title: str
    paper: str
    table: str
    notebook: str
    parameters: dict = {}
    grid: dict[str, dict] = Field(min_length=1)
    profiles: dict[str, Profile] = Field(min_length=1)
    seeds: list[int] = Field(default=[0], min_length=1)
    published: dict[str, dict[str, dict[str, Fraction]]] = {}
    claims: list[Claim] = []

    @property
    def name(self) -> str:
        """The file's name after its folder's, as "vapnet-table1"."""
        return f"{self.file.parent.name}-{self.file.stem}"

    @cached_property
    def notebook_file(self) -> Path:
        """The notebook, looked for in the card's folder and those above.

        Raises:
            ValueError: there is none; names the nearest.
        """
        folders = self.file.parents
        for folder in folders:
            if (folder / self.notebook).is_file():
                return folder / self.notebook
        wanted = Path(self.notebook)
        there = [file for folder in folders for file in (folder / wanted.parent).glob("*.ipynb")]
        known = [str(wanted.parent / file.name) for file in there]
        raise ValueError(f"notebook: there is no '{self.notebook}'{nearest(self.notebook, known)}")

    @cached_property
    def defaults(self) -> dict:
        """The notebook's parameters with their default values."""
        return default_parameters(self.notebook_file)

    @property
    def datasets(self) -> list[str]:
        """Of all profiles."""
        return list(
            dict.fromkeys(name for profile in self.profiles.values() for name in profile.datasets)
        )

    @property
    def metric(self) -> str | None:
        """The one to show where there is room for one: that of the first claim, or the first published one."""
        published = [
            metric for row in self.published.values() for cells in row.values() for metric in cells
        ]
        return next(iter([claim.metric for claim in self.claims] + published), None)


def load_card(file: Path) -> Card:
    """Read a card and check all of it against itself and its notebook.

    Raises:
        ValueError: one line with the card, the field, what is wrong and, for a name, the nearest right spelling.
    """
    file = Path(file).absolute()
    shown = _short(file)
    try:
        content = yaml.load(_text(file, shown), _Loader)
    except yaml.MarkedYAMLError as error:
        raise ValueError(f"{shown}:{error.problem_mark.line + 1}: {error.problem}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{shown}: a card is a mapping with the keys {', '.join(_keys(Card))}")
    try:
        if "file" in content:
            raise ValueError(f"unknown key 'file'{nearest('file', _keys(Card))}")
        card = Card.model_validate({**content, "file": file})
        for check in (_check_claims, _check_parameters, _check_names, _check_repeats):
            check(card)
        return card
    except ValidationError as error:
        raise ValueError(f"{shown}: {_in_words(error.errors()[0])}") from None
    except ValueError as error:
        raise ValueError(f"{shown}: {error}") from None


def _text(file: Path, shown: str) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        known = [_short(path) for path in sorted(file.parent.glob("*.yaml"))]
        raise ValueError(f"there is no card '{shown}'{nearest(shown, known)}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"the card '{shown}' cannot be read: {error}") from None


def _short(file: Path) -> str:
    """As a user would write it: relative to the folder that he is in, where it is below."""
    return str(file.relative_to(Path.cwd())) if file.is_relative_to(Path.cwd()) else str(file)


# ---- YAML


class _Loader(yaml.SafeLoader):
    """Safe YAML, but for two surprises: 1e-5 is a number here, not text, and no key may stand twice."""

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
    """A value as a card would hold it.

    Raises:
        ValueError: text that is not YAML.
    """
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError:
        raise ValueError(f"'{text}' cannot be read as a number, true or false, or a list") from None


# ---- names and types


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of a complaint about `name`: the nearest known spelling, or all of them."""
    known = list(dict.fromkeys(known))
    if near := difflib.get_close_matches(name, known, n=1, cutoff=0.5):
        return f": did you mean '{near[0]}'?"
    return f": there are {', '.join(known)}" if known else ""


def check_parameter(name: str, value, defaults: dict) -> None:
    """Raises:
    ValueError: a parameter that the notebook does not have, or a value of another type than its default.
    """
    if name not in defaults:
        raise ValueError(f"the notebook has no parameter '{name}'{nearest(name, defaults)}")
    if words := _wanted(value, defaults[name]):
        raise ValueError(f"parameter '{name}' is {value!r}: it must be {words}")


def _wanted(value, default) -> str | None:
    """What `value` would have to be to be of the default's type; None if it is."""
    if isinstance(default, bool):
        return None if isinstance(value, bool) else "true or false"
    if isinstance(default, int):
        return None if type(value) is int else "a whole number"
    if isinstance(default, float):
        return None if type(value) in (int, float) and math.isfinite(value) else "a number"
    if isinstance(default, str):
        return None if isinstance(value, str) else "text"
    if isinstance(default, (list, tuple)):
        if not isinstance(value, list):
            return "a list"
        example = next(
            (item for item in default if isinstance(item, float)), default[0] if default else None
        )
        words = next(filter(None, (_wanted(item, example) for item in value)), None)
        return words and f"a list, and in it {words}"
    if isinstance(default, dict):
        return None if isinstance(value, dict) else "a mapping"
    return (
        None
        if isinstance(value, (bool, int, float, str, list, dict, type(None)))
        else "a plain value"
    )


def _check_claims(card: Card) -> None:
    for number, claim in enumerate(card.claims, start=1):
        given = {
            key
            for key in ("higher", "lower", "row", "within", "of")
            if getattr(claim, key) is not None
        }
        if given not in ({"higher", "lower"}, {"row", "within", "of"}):
            raise ValueError(
                f"claim {number}: it has {', '.join(sorted(given)) or 'no rows'}: "
                "give either higher and lower, or row, within and of"
            )
        if claim.within == 0:
            raise ValueError(
                f"claim {number}: within is 0, which no measurement can meet: "
                "give a fraction, as 0.003 for 0.3 points"
            )


def _check_parameters(card: Card) -> None:
    if absent := [name for name in (*OF_THE_RUN, "root") if name not in card.defaults]:
        raise ValueError(
            f"notebook: '{card.notebook}' lacks the parameters {', '.join(absent)}, which every run is given"
        )
    for place, parameters in _all_parameters(card):
        for name, value in parameters.items():
            try:
                if name in OF_THE_RUN:
                    raise ValueError(f"'{name}' cannot be given here: {OF_THE_RUN[name]}")
                check_parameter(name, value, card.defaults)
            except ValueError as error:
                raise ValueError(f"{place}: {error}") from None


def _all_parameters(card: Card) -> Iterator[tuple[str, dict]]:
    yield "parameters", card.parameters
    for row, parameters in card.grid.items():
        yield f"grid.{row}", parameters
    for name, profile in card.profiles.items():
        yield f"profiles.{name}.parameters", profile.parameters
        for row, parameters in profile.grid.items():
            yield f"profiles.{name}.grid.{row}", parameters
        for dataset, parameters in profile.datasets.items():
            yield f"profiles.{name}.datasets.{dataset}", parameters


def _check_names(card: Card) -> None:
    """Rows, data sets and metrics are named in several places; all of them must be ones that exist."""
    metrics = [
        metric for row in card.published.values() for cells in row.values() for metric in cells
    ]
    for place, kind, name, known in _all_names(card, metrics):
        if name not in known:
            raise ValueError(f"{place}: there is no {kind} '{name}'{nearest(name, known)}")


def _all_names(card: Card, metrics: list[str]) -> Iterator[tuple[str, str, str, Iterable[str]]]:
    """(place, kind, name, known names)"""
    for name, profile in card.profiles.items():
        for row in profile.grid:
            yield f"profiles.{name}.grid", "row", row, card.grid
        for row in profile.only:
            yield f"profiles.{name}.only", "row", row, card.grid
    for row, columns in card.published.items():
        yield "published", "row", row, card.grid
        for dataset in columns:
            yield f"published.{row}", "data set", dataset, card.datasets
    for number, claim in enumerate(card.claims, start=1):
        for key, row in zip(
            ("higher", "lower") if claim.within is None else ("row", "of"), claim.rows
        ):
            yield f"claim {number}: {key}", "row", row, card.grid
        for dataset in claim.datasets:
            yield f"claim {number}: datasets", "data set", dataset, card.datasets
        if metrics:
            yield f"claim {number}: metric", "published metric", claim.metric, metrics


def _check_repeats(card: Card) -> None:
    lists = {"seeds": card.seeds}
    for name, profile in card.profiles.items():
        lists[f"profiles.{name}.seeds"], lists[f"profiles.{name}.only"] = (
            profile.seeds,
            profile.only,
        )
    for place, values in lists.items():
        if twice := [value for value in values if values.count(value) > 1]:
            raise ValueError(f"{place}: {twice[0]!r} is there twice")
    for number, claim in enumerate(card.claims, start=1):
        if claim.rows[0] == claim.rows[1]:
            raise ValueError(
                f"claim {number}: {'higher and lower' if claim.within is None else 'row and of'} are the same row"
            )


# ---- pydantic's findings, in our words


def _keys(model: type[BaseModel]) -> list[str]:
    return [name for name in model.model_fields if name != "file"]


def _in_words(error: dict) -> str:
    *above, key = error["loc"]
    place = ".".join(str(part) for part in error["loc"] if part != "[key]")
    if error["type"] == "extra_forbidden":
        model = {"profiles": Profile, "claims": Claim}.get(above[0] if above else "", Card)
        return f"unknown key '{place}'{nearest(str(key), _keys(model))}"
    if error["type"] == "missing":
        return f"'{place}' is missing"
    if error["loc"][0] == "published" and error["type"] in (
        "less_than_equal",
        "greater_than_equal",
    ):
        return f"{place}: {error['input']} must be a fraction, as 0.695 for 69.5 %"
    if key == "within" and error["type"] in ("less_than_equal", "greater_than_equal"):
        return f"{place}: {error['input']} must be a fraction, as 0.003 for 0.3 points"
    return f"{place}: {WORDS.get(error['type'], error['msg'])}, not {error['input']!r}"


WORDS = {
    "string_type": "it must be text (in quotes where it looks like a number)",
    "int_type": "it must be a whole number",
    "float_type": "it must be a number",
    "dict_type": "it must be a mapping (name: value)",
    "list_type": "it must be a list",
    "too_short": "it must not be empty",
}
