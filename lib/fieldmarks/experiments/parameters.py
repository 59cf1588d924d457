"""An experiment's parameters: composed of the options of what it uses, read strictly."""

import dataclasses
import inspect
import json
import math
from collections.abc import Callable, Mapping
from functools import cache
from typing import Literal, TypeVar, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

from fieldmarks.checks import nearest_name

T = TypeVar("T")
PLAIN = (bool, int, float, str)
WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


@cache
def options(home: Callable) -> dict[str, inspect.Parameter]:
    """The options of a constructor or function: its parameters with a default and a plain type."""
    parameters = inspect.signature(home).parameters
    return {name: p for name, p in parameters.items() if p.default is not p.empty and _plain(p)}


def composed_of(*homes: Callable, **defaults) -> Callable[[type[T]], type[T]]:
    """Makes a frozen dataclass of the class's own fields and of the options of `homes`.

    A parameter has one home, which gives its name, type and default; where an experiment wants
    another default, it stands in `defaults`. Of homes that share an option the first counts."""

    def decorate(cls: type[T]) -> type[T]:
        own = {name for base in cls.__mro__ for name in base.__dict__.get("__annotations__", ())}
        for home in homes:
            for name, option in options(home).items():
                if name not in own:
                    own.add(name)
                    cls.__annotations__[name] = option.annotation
                    setattr(cls, name, option.default)
        for name, value in defaults.items():
            if name not in own:
                raise TypeError(
                    f"{cls.__name__} has no parameter '{name}'{nearest_name(name, own)}"
                )
            cls.__annotations__.setdefault(name, get_type_hints(cls)[name])
            setattr(cls, name, value)
        return dataclasses.dataclass(frozen=True)(cls)

    return decorate


def parse(cls: type[T], values: Mapping) -> T:
    """Make a parameters class from plain values.

    Lists become tuples and whole numbers stand for fractions; nothing else is converted.

    Raises:
        ValueError: one line naming an unknown parameter with the nearest right spelling, a value
            of the wrong type, or values that cannot be together."""
    types = {field.name: field.type for field in dataclasses.fields(cls)}
    for name in values:
        if name not in types:
            raise ValueError(f"unknown parameter '{name}'{nearest_name(name, types)}")
    try:
        return _adapter(cls).validate_json(_as_json(values), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else ""
        if first["type"] == "value_error":  # of the class's own checks, which name the parameter
            raise ValueError(str(first["ctx"]["error"])) from None
        given, wanted = values.get(name), _in_words(types.get(name))
        raise ValueError(f"parameter '{name}' is {given!r}: it must be {wanted}") from None


def from_notebook(cls: type[T], namespace: dict) -> T:
    """Read a notebook's parameters from its `globals()`, in the first cell after its parameters.

    Every plain value that stands there counts as a parameter, so that a misspelt one cannot pass
    unseen; what the cell does not set keeps its default. When the cell runs again in the same
    kernel, scratch variables made since are left alone.

    Raises:
        ValueError: as `parse`."""
    plain = {
        name: value
        for name, value in namespace.items()
        if not name.startswith("_")
        and name not in ("In", "Out")
        and isinstance(value, (*PLAIN, list, dict, tuple))
    }
    names = {field.name for field in dataclasses.fields(cls)}
    known = namespace.setdefault("_parameter_names", frozenset(plain))
    return parse(cls, {k: v for k, v in plain.items() if k in known or k in names})


def from_arguments(cls: type, arguments: list[str]) -> dict:
    """Plain values from name=value arguments, read as JSON where they are that, else as text.

    Raises:
        ValueError: an argument without "="."""
    text = {field.name for field in dataclasses.fields(cls) if field.type is str}
    values = {}
    for argument in arguments:
        name, sign, value = argument.partition("=")
        if not sign:
            raise ValueError(f"'{argument}' is not of the form name=value")
        if name in values:
            raise ValueError(f"{name} is given twice: give it once")
        try:
            values[name] = value if name in text else json.loads(value)
        except ValueError:
            values[name] = value
    return values


_adapter = cache(TypeAdapter)


def _plain(parameter: inspect.Parameter) -> bool:
    kind = parameter.annotation
    members = (kind,) if get_origin(kind) in (None, Literal) else get_args(kind)
    return all(m in (*PLAIN, ..., dict) or get_origin(m) is Literal for m in members)


def _in_words(kind) -> str:
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(map(str, get_args(kind)))
    if get_origin(kind) is tuple:
        return "a list of numbers"
    if members := get_args(kind):
        return " or ".join(map(_in_words, members))
    return WORDS.get(kind, getattr(kind, "__name__", str(kind)))


def _as_json(values: Mapping) -> str:
    try:
        return json.dumps(dict(values), allow_nan=False)
    except (TypeError, ValueError):
        name = next((name for name, value in values.items() if not _is_json(value)), "?")
        wanted = "give numbers, text, true or false, or a list"
        wanted = "it must be a number" if isinstance(values[name], float) else wanted
        raise ValueError(f"parameter '{name}' is {values[name]!r}: {wanted}") from None


def _is_json(value) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_is_json, value))
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, (*PLAIN, dict, type(None)))
