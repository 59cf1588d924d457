"""Reading an experiment's parameters from a notebook, a card or a command line: strict, with the right spelling in every complaint."""

import dataclasses
import difflib
import json
from collections.abc import Mapping
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

T = TypeVar("T")


def parse(cls: type[T], values: Mapping) -> T:
    """Make a frozen parameters dataclass from plain values.

    Lists become tuples and whole numbers stand for fractions where the field says so; nothing else is converted.

    Raises:
        ValueError: one line naming an unknown parameter with the nearest right spelling, or a value of the wrong type.
    """
    fields = [field.name for field in dataclasses.fields(cls)]
    for name in values:
        if name not in fields:
            raise ValueError(f"unknown parameter '{name}'{_hint(name, fields)}")
    try:
        return TypeAdapter(cls).validate_json(_as_json(values), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        name = first["loc"][0] if first["loc"] else ""
        if (
            first["type"] == "value_error"
        ):  # raised by the dataclass's own checks, which name the parameter
            raise ValueError(str(first["ctx"]["error"])) from None
        wanted = next((field.type for field in dataclasses.fields(cls) if field.name == name), "")
        wanted = wanted if isinstance(wanted, str) else getattr(wanted, "__name__", str(wanted))
        raise ValueError(
            f"parameter '{name}' is {values.get(name)!r}: it must be {WORDS.get(wanted, wanted)}"
        ) from None


WORDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "text",
    "tuple": "a list of numbers",
}


def from_notebook(cls: type[T], namespace: dict) -> T:
    """Read a notebook's parameters from its `globals()`, in the first cell after the parameters cell.

    Every plain value that stands there is taken for a parameter, so that a misspelt one cannot pass unseen. When the cell is run
    again in the same kernel, scratch variables made since are left alone.

    Raises:
        ValueError: as `parse`, and for a parameter that the notebook does not set.
    """
    plain = {
        name: value
        for name, value in namespace.items()
        if not name.startswith("_")
        and name not in ("In", "Out")
        and isinstance(value, (bool, int, float, str, list, dict, tuple))
    }
    fields = [field.name for field in dataclasses.fields(cls)]
    known = namespace.setdefault("_parameter_names", frozenset(plain))
    parameters = parse(
        cls, {name: value for name, value in plain.items() if name in known or name in fields}
    )
    if missing := [name for name in fields if name not in plain]:
        raise ValueError(f"the parameters cell does not set {', '.join(missing)}")
    return parameters


def from_arguments(cls: type, arguments: list[str]) -> dict:
    """Plain values from name=value words; values are read as JSON where they are that, and are text otherwise.

    Raises:
        ValueError: a word without "=".
    """
    text = {field.name for field in dataclasses.fields(cls) if field.type is str}
    values = {}
    for word in arguments:
        name, sign, value = word.partition("=")
        if not sign:
            raise ValueError(f"'{word}' is not of the form name=value")
        values[name] = value if name in text else _json_or_text(value)
    return values


def _json_or_text(word: str):
    try:
        return json.loads(word)
    except ValueError:
        return word


def _hint(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f": did you mean '{near[0]}'?" if near else f": the parameters are {', '.join(known)}"


def _as_json(values: Mapping) -> str:
    try:
        return json.dumps(dict(values))
    except (TypeError, ValueError) as error:
        name = next((k for k, v in values.items() if not _is_json(v)), "?")
        raise ValueError(
            f"parameter '{name}' is {values[name]!r}: give numbers, text, true or false, or a list of them"
        ) from error


def _is_json(value) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_is_json, value))
    return isinstance(value, (bool, int, float, str, type(None)))
