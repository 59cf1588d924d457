"""Outfits and the two kinds of questions about them, as the files of Polyvore Outfits write them.

Sources: Vasileva et al., Learning Type-Aware Embeddings for Fashion Compatibility, 2018.

The files call an item by its place in an outfit, "SET_INDEX", as 224930161_1: a token. Only the list of outfits says which
item that is, and one item may be in many outfits. What is read here needs no photographs and none of the other files.
"""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import NamedTuple

from fieldmarks.data.layouts.reading import read_json, read_words

is_token = re.compile(r"\S+_[0-9]+").fullmatch


class CompatibilityQuestion(NamedTuple):
    """Do these items make an outfit? `label` is 1 where somebody has put them together, else 0."""

    label: int
    items: list  # tokens; once resolved, positions of items


class BlankQuestion(NamedTuple):
    """Which of the choices completes the outfit? choices[answer] does.

    In all published files `answer` is 0: a method that gives all choices one score must not win by taking the first.
    """

    question: list  # tokens, as `choices`; once resolved, positions of items
    choices: list
    answer: int
    blank_position: int


def read_outfits(file: Path) -> dict[str, dict[int, str]]:
    """{set: {index: item}} of ``train.json``, ``valid.json`` or ``test.json``, in the order of the file.

    Raises:
        ValueError: no such JSON, a set or an index in a set listed twice, or fewer than two items; the outfit is named.
    """
    outfits: dict[str, dict[int, str]] = {}
    for number, entry in enumerate(read_json(file, list), start=1):
        place = f"{file} outfit {number}"
        try:
            name = str(entry["set_id"])
            items = [(int(item["index"]), str(item["item_id"])) for item in entry["items"]]
        except (KeyError, TypeError, ValueError):
            raise ValueError(
                f"{place}: expected a set_id and items, each with an item_id and an index"
            ) from None
        if name in outfits:
            raise ValueError(f"{place}: set {name} is listed a second time")
        if len(items) < 2:
            raise ValueError(
                f"{place}: set {name} has {len(items)} items, and an outfit has at least 2"
            )
        outfits[name] = dict(items)
        if len(outfits[name]) < len(items):
            raise ValueError(f"{place}: set {name} has two items with one index")
    return outfits


def read_compatibility(file: Path) -> list[CompatibilityQuestion]:
    """Questions about tokens, of lines "1|0 SET_INDEX SET_INDEX ..." with any white space between.

    A handful of the published questions hold one item twice; they are kept.

    Raises:
        ValueError: a label that is neither 1 nor 0, fewer than two items or a malformed token; the line is named.
    """
    questions = []
    for number, (line,) in read_words(file, 1):
        place = f"{file} line {number}"
        label, *items = line.split()
        if label not in ("1", "0"):
            raise ValueError(f"{place}: expected 1 or 0 first, found {label!r}")
        if len(items) < 2:
            raise ValueError(f"{place}: {len(items)} items, and an outfit has at least 2")
        _check_tokens(items, place)
        questions.append(CompatibilityQuestion(int(label), items))
    return questions


def read_blanks(file: Path) -> list[BlankQuestion]:
    """Questions about tokens, of a list of {"question": [...], "answers": [...], "blank_position": ...}.

    The answer is the first choice that is of the question's own outfit. A `blank_position` that is not the answer's index
    is kept, with a warning (question 396 of the published resampled valid file has one), and so is a choice listed twice.

    Raises:
        ValueError: no such JSON, fewer than two choices, none of the question's outfit, or a malformed token; the
            question is named.
    """
    questions, odd = [], []
    for number, entry in enumerate(read_json(file, list), start=1):
        place = f"{file} question {number}"
        try:
            items, choices = [
                [str(token) for token in entry[field]] for field in ("question", "answers")
            ]
            position = int(entry["blank_position"])
        except (KeyError, TypeError, ValueError):
            raise ValueError(f"{place}: expected question, answers and blank_position") from None
        if not items or len(choices) < 2:
            raise ValueError(
                f"{place}: {len(items)} items and {len(choices)} choices; it should be at least 1 and 2"
            )
        _check_tokens(items + choices, place)
        outfit = _set_of(items[0])
        answer = next((at for at, choice in enumerate(choices) if _set_of(choice) == outfit), None)
        if answer is None:
            raise ValueError(
                f"{place}: the answer is not among the choices, none of which is of outfit {outfit}"
            )
        if choices[answer] != f"{outfit}_{position}":
            odd.append(number)
        questions.append(BlankQuestion(items, choices, answer, position))
    if odd:
        warnings.warn(
            f"{file}: {len(odd):,} of {len(questions):,} questions, {odd[0]} first, have a blank_position that is "
            f"not their answer's; they are kept",
            stacklevel=2,
        )
    return questions


def resolved(questions: list, row_of_token: dict[str, int], file: Path) -> list:
    """The questions with positions of items in place of tokens.

    Raises:
        ValueError: a token that `row_of_token` lacks; the question is named.
    """
    found = []
    for number, question in enumerate(questions, start=1):
        try:
            rows = {
                field: [row_of_token[token] for token in value]
                for field, value in question._asdict().items()
                if isinstance(value, list)
            }
        except KeyError as error:
            raise ValueError(
                f"{file} question {number}: {error.args[0]} is in none of the outfits of its part"
            ) from None
        found.append(question._replace(**rows))
    return found


def _set_of(token: str) -> str:
    return token.rpartition("_")[0]


def _check_tokens(tokens: list[str], place: str) -> None:
    for token in tokens:
        if not is_token(token):
            raise ValueError(f"{place}: expected SET_INDEX, found {token!r}")
