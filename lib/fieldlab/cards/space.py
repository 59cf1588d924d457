"""The key `tune` of a card: where `fieldmarks tune` looks for values, and what it goes by."""

import json
import math
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, Field, model_validator

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution


class Searched(BaseModel, frozen=True, extra="forbid", strict=True):
    """Where one parameter's value is looked for: from `low` to `high`, both included, evenly or
    (`log`) in proportion; or among `choices`."""

    low: Any = None  # not float, which would make fractions of whole numbers
    high: Any = None
    log: bool = False
    choices: list | None = None

    @model_validator(mode="after")
    def _is_a_range_or_choices(self):
        given = [n for n in ("low", "high", "choices") if getattr(self, n) is not None]
        if given not in (["low", "high"], ["choices"]) or (self.log and self.choices):
            given += ["log"] * self.log
            raise ValueError(
                f"it has {', '.join(given) or 'nothing'}: give either low and high, or choices"
            )
        if self.choices is not None:
            texts = [json.dumps(choice) for choice in self.choices]
            if len(set(texts)) < len(texts) or len(texts) < 2:
                raise ValueError(f"choices is {self.choices}: give two or more different values")
        elif wrong := [v for v in (self.low, self.high) if not _is_number(v)]:
            raise ValueError(f"low and high must be numbers, not {wrong[0]!r}")
        elif not self.low < self.high:
            raise ValueError(f"low is {self.low} and high is {self.high}: low must be below high")
        elif self.log and self.low <= 0:
            raise ValueError(f"low is {self.low}: with log it must be above 0")
        return self

    @property
    def ends(self) -> list:
        """Values that stand for all: those of an experiment must take them."""
        return [self.low, self.high] if self.choices is None else self.choices

    def distribution(self, default) -> "BaseDistribution":
        """As Optuna has it; `default` is the parameter's. Raises ValueError for a range of
        something else than numbers."""
        from optuna import distributions

        if self.choices is not None:  # as text, for Optuna takes no lists
            return distributions.CategoricalDistribution([json.dumps(c) for c in self.choices])
        if isinstance(default, bool) or not isinstance(default, int | float):
            raise ValueError("it has no range of numbers: give choices")
        whole = isinstance(default, int)
        kind = distributions.IntDistribution if whole else distributions.FloatDistribution
        return kind(self.low, self.high, log=self.log)

    def value(self, drawn):
        """A parameter's value of what Optuna drew."""
        return drawn if self.choices is None else json.loads(drawn)

    def in_words(self) -> str:
        """As "0.001 to 0.1 (log)", "16, 32 or 64"."""
        if self.choices is None:
            return f"{self.low:g} to {self.high:g}{' (log)' * self.log}"
        *others, last = map(json.dumps, self.choices)
        return f"{', '.join(others)} or {last}"


def _is_number(value) -> bool:
    whole_or_not = isinstance(value, int | float) and not isinstance(value, bool)
    return whole_or_not and math.isfinite(value)


class Tune(BaseModel, frozen=True, extra="forbid", strict=True):
    """What is searched, by the name of the experiment's parameter, and the metric to go by."""

    space: Annotated[dict[str, Searched], Field(min_length=1)]
    metric: str | None = None
