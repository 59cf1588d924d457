"""Checks of arguments: each raises ValueError with one line that says what is wrong and what would
be right."""

import dataclasses
import difflib
from collections.abc import Iterable
from typing import Literal, get_args, get_origin


def one_of(name: str, value, allowed: Iterable) -> None:
    if value not in (allowed := tuple(allowed)):
        names = ", ".join(repr(choice) if choice == "" else str(choice) for choice in allowed)
        raise ValueError(f"{name} is '{value}': it must be one of {names}")


def choices(parameters) -> None:
    """Raises ValueError where a parameter of a closed choice (a Literal) has another value."""
    for field in dataclasses.fields(parameters):
        members = get_args(field.type) if get_origin(field.type) is not Literal else (field.type,)
        allowed = [v for m in members if get_origin(m) is Literal for v in get_args(m)]
        value = getattr(parameters, field.name)
        if allowed and (isinstance(value, str) or get_origin(field.type) is Literal):
            one_of(field.name, value, allowed)


def at_least(low: float, **values: float) -> None:
    for name, value in values.items():
        if not value >= low:
            raise ValueError(f"{name} is {value}: it must be at least {low}")


def positive(**values: float) -> None:
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"{name} is {value}: it must be positive")


def share(**values: float) -> None:
    for name, value in values.items():
        if not 0 <= value < 1:
            raise ValueError(f"{name} is {value}: it is a share, at least 0 and below 1")


def nearest_name(name: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown `name`: the nearest known spelling, or all of them."""
    known = list(dict.fromkeys(known))
    if near := difflib.get_close_matches(name, known, n=1, cutoff=0.5):
        return f": did you mean '{near[0]}'?"
    return f": there are {', '.join(known)}" if known else ""
