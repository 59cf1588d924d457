"""Colours, sizes and text of all figures."""

from collections.abc import Sequence

INK, MUTED, HAIRLINE = "#1d2433", "#666e7b", "#d5d9e0"
RIGHT, WRONG, NEUTRAL, ACCENT = "#0f8a5f", "#c9311f", "#4a5568", "#ffb000"
SIGNS = {True: ("\u2713", RIGHT), False: ("\u2717", WRONG), None: ("", NEUTRAL)}
# Okabe & Ito's palette, without its yellow (too pale on white)
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LINES = ("-", "--", "-.", ":")
WIDTH = 10.0  # inches: the width of a notebook
GAP, MARGIN, LINE = 0.07, 0.12, 0.15  # inches: between cells, around the figure, of small text
TEXT, SMALL = 8.5, 7.0  # points
CENTRED = {"ha": "center", "va": "top"}


def line(place: int) -> dict:
    """How a plot draws one of several lines: told apart without colour too."""
    return {"color": COLOURS[place % len(COLOURS)], "ls": LINES[place % len(LINES)], "lw": 1.8}


def wrap(text: str, width: float, size: float, lines: int) -> str:
    """Text on at most `lines` lines of a width in inches, with an ellipsis where it is cut."""
    room = max(int(width * 72 / (0.6 * size)), 2)  # DejaVu is about 0.6 em wide
    wrapped: list[str] = []
    for word in text.split():
        if wrapped and len(f"{wrapped[-1]} {word}") <= room:
            wrapped[-1] += f" {word}"
        else:
            wrapped.append(word)
    if len(wrapped) > lines:
        wrapped[lines - 1 :] = [" ".join(wrapped[lines - 1 :])]
    cut = [line if len(line) <= room else line[: room - 1].rstrip() + "\u2026" for line in wrapped]
    return "\n".join(cut)


def height_of(texts: Sequence[str]) -> float:
    """Inches that the tallest of some small texts takes."""
    return max((LINE + 0.12 * text.count("\n") for text in texts), default=0.0)
