"""Outfits and the two kinds of questions about them, as the files of Polyvore Outfits write them.

Source: Vasileva et al., Learning Type-Aware Embeddings for Fashion Compatibility, 2018.

The files call an item by its place in an outfit, "SET_INDEX", as 224930161_1: a token. Only the
list of outfits says which item that is, and one item may be in many outfits."""

import re
import warnings
from pathlib import Path
from typing import NamedTuple

from fieldmarks.data.layouts.reading import once, read_json, read_rows, shown

is_token = re.compile(r"\S+_[0-9]+").fullmatch


class CompatibilityQuestion(NamedTuple):
    """Do these items make an outfit? `label` is 1 where somebody has put them together, else 0."""

    label: int
    items: list  # positions of items; tokens, where no positions are known


class BlankQuestion(NamedTuple):
    """Which of the choices completes the outfit? choices[answer] does. In all published files that
    is the first: a method that gives all choices one score must not win by taking it."""

    question: list  # positions of items, as `choices`; tokens, where no positions are known
    choices: list
    answer: int
    blank_position: int


def read_outfits(file: Path) -> dict[str, dict[int, str]]:
    """{set: {index: item}} of ``train.json``, ``valid.json`` or ``test.json``, in the file's order.
    Raises ValueError, naming the outfit, where one has fewer than two items or anything twice."""
    outfits = []
    for number, entry in enumerate(read_json(file, list), start=1):
        place = f"{file} outfit {number}"
        try:
            name = _text(entry["set_id"])
            items = [(int(item["index"]), _text(item["item_id"])) for item in entry["items"]]
        except (KeyError, TypeError, ValueError, OverflowError):
            expected = "a set_id and items, each with an item_id and an index"
            raise ValueError(f"{place}: expected {expected}") from None
        if len(items) < 2:
            short = f"set {shown(name)} has {len(items)} items"
            raise ValueError(f"{place}: {short}, and an outfit has at least 2")
        if len(dict(items)) < len(items):
            raise ValueError(f"{place}: set {shown(name)} has two items with one index")
        outfits.append((place, name, dict(items)))
    once((place, f"set {name}") for place, name, _ in outfits)
    return {name: items for _, name, items in outfits}


def read_compatibility(
    file: Path, row_of: dict | None = None, part: str = "its part"
) -> list[CompatibilityQuestion]:
    """The questions of lines "1|0 SET_INDEX SET_INDEX ..." with any white space between. A handful
    of the published ones hold one item twice; they are kept.

    `row_of` gives the position of each token's item, from the outfits of `part`. Raises ValueError,
    naming the line, for a label or token that cannot be, or fewer than two items."""
    questions = []
    for place, (line,) in read_rows(file, 1):
        label, *items = line.split()
        if label not in ("1", "0"):
            raise ValueError(f"{place}: expected 1 or 0 first, found '{shown(label)}'")
        if len(items) < 2:
            raise ValueError(f"{place}: {len(items)} items, and an outfit has at least 2")
        questions.append(CompatibilityQuestion(int(label), _positions(place, items, row_of, part)))
    return questions


def read_blanks(
    file: Path, row_of: dict | None = None, part: str = "its part"
) -> list[BlankQuestion]:
    """The questions of a list of {"question": [...], "answers": [...], "blank_position": ...}.

    The answer is the first choice that is of the question's own outfit. A `blank_position` that is
    not the answer's index is kept, with a warning (question 396 of the published resampled valid
    file has one), and so is a choice listed twice. Else as `read_compatibility`."""
    questions, odd = [], []
    for number, entry in enumerate(read_json(file, list), start=1):
        place = f"{file} question {number}"
        try:
            items, choices = ([_text(t) for t in entry[key]] for key in ("question", "answers"))
            position = int(entry["blank_position"])
        except (KeyError, TypeError, ValueError, OverflowError):
            raise ValueError(f"{place}: expected question, answers and blank_position") from None
        if not items or len(choices) < 2:
            short = f"{len(items)} items and {len(choices)} choices"
            raise ValueError(f"{place}: {short}; it should be at least 1 and 2")
        rows, choice_rows = (_positions(place, tokens, row_of, part) for tokens in (items, choices))
        outfit, *sets = (token.rpartition("_")[0] for token in (items[0], *choices))
        if outfit not in sets:
            none = f"none of which is of outfit {shown(outfit)}"
            raise ValueError(f"{place}: the answer is not among the choices, {none}")
        answer = sets.index(outfit)
        if choices[answer] != f"{outfit}_{position}":
            odd.append(number)
        questions.append(BlankQuestion(rows, choice_rows, answer, position))
    if odd:
        some = f"{len(odd):,} of {len(questions):,} questions, {odd[0]} first, have"
        kept = "a blank_position that is not their answer's; they are kept"
        warnings.warn(f"{file}: {some} {kept}", stacklevel=2)
    return questions


def _text(value) -> str:
    """A name, which some files write as a number."""
    if not isinstance(value, (str, int)):
        raise TypeError
    return str(value)


def _positions(place: str, tokens: list[str], row_of: dict | None, part: str) -> list:
    for token in tokens:
        if not is_token(token):
            raise ValueError(f"{place}: expected SET_INDEX, found '{shown(token)}'")
        if row_of is not None and token not in row_of:
            raise ValueError(f"{place}: {shown(token)} is in none of the outfits of {part}")
    return tokens if row_of is None else [row_of[token] for token in tokens]
