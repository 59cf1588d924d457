"""Checks of arguments, each with one line that says what is wrong and what would be right."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np


def whole_numbers(values: Mapping[str, object], lowest: Mapping[str, int]) -> dict[str, int]:
    """The values named in `lowest`, as int. Raises ValueError for one that is no int or lower."""
    for name, least in lowest.items():
        value = values[name]
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
            raise ValueError(f"{name} must be a whole number of at least {least}, not {value!r}")
    return {name: int(values[name]) for name in lowest}


def one_of(name: str, value: object, allowed: Iterable[str]) -> None:
    allowed = tuple(allowed)
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, not {value!r}")
