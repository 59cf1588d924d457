"""Which garments go together, outfits made by that rule, and the questions asked about them.

The rule is about pairs: style, harmony of colours, prints that clash, warmth. Attributes explain
it; none spells it out. Wrong outfits are made by exchanging items between outfits, so how often an
item occurs says nothing about right and wrong.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import numpy as np

from fieldguide.garments.attributes import NEUTRALS, STYLES, Garment
from fieldguide.garments.fabrics import PALETTE

#                       casual formal sporty boho
STYLE_MATCH = np.array(
    [[0.8, -0.1, 0.2, 0.3], [-0.1, 1.0, -1.2, -0.5], [0.2, -1.2, 1.0, -0.9], [0.3, -0.5, -0.9, 1.0]]
)
WARMTH = {
    "wool": 0.9,
    "knitted": 0.7,
    "leather": 0.3,
    "suede": 0.3,
    "denim": 0.1,
    "cotton": -0.2,
    "canvas": -0.3,
    "silk": -0.4,
    "longsleeve": 0.3,
    "shortsleeve": -0.3,
    "sleeveless": -0.6,
    "turtleneck": 0.3,
    "mini": -0.3,
    "kneehigh": 0.4,
    "coat": 0.7,
    "boots": 0.5,
    "sandals": -1.0,
    "shorts": -0.7,
    "tank": -0.4,
    "quilted": 0.3,
}
CHOOSINESS = 4.0  # how much likelier a garment is chosen that scores 1 higher
TEMPLATES = (
    (0.24, ("tops", "bottoms", "shoes")),
    (0.22, ("tops", "bottoms", "shoes", "bags")),
    (0.24, ("tops", "bottoms", "shoes", "bags", "outerwear")),
    (0.16, ("all-body", "shoes", "bags")),
    (0.14, ("all-body", "shoes", "bags", "outerwear")),
)
TOO_FEW = (
    "too few outfits or items for questions with wrong answers: ask for more outfits and items"
)


@dataclass(frozen=True)
class Outfit:
    set_id: str
    items: tuple[int, ...]  # numbers of garments, in the order of the outfit

    def tokens(self) -> list[str]:
        return [f"{self.set_id}_{index}" for index in range(1, len(self.items) + 1)]


def compatibility(garments: list[Garment]) -> np.ndarray:
    """(n, n) symmetric: how well each two garments go together, about -2 to 2."""
    style = np.array([STYLES.index(one.style) for one in garments])
    warmth = np.array(
        [
            np.clip(sum(WARMTH.get(mark, 0.0) for mark in (one.kind, *one.attributes())), -1.2, 1.2)
            for one in garments
        ]
    )
    printed = np.array([one.pattern != "plain" for one in garments], int)
    colours = list(PALETTE)
    table = np.array([[_harmony(first, second) for second in colours] for first in colours])
    colour = np.array([colours.index(one.colour) for one in garments])
    both = printed[:, None] + printed[None, :]
    clash = np.array([0.0, 0.15, -0.7])[both]
    return (
        STYLE_MATCH[style[:, None], style[None, :]]
        + table[colour[:, None], colour[None, :]]
        + clash
        + 0.4
        - 0.9 * np.abs(warmth[:, None] - warmth[None, :])
    )


def _harmony(first: str, second: str) -> float:
    """Above 0 with a neutral, and for neighbours and opposites on the colour wheel; else below."""
    if first in NEUTRALS or second in NEUTRALS:
        return 0.25 if first in NEUTRALS and second in NEUTRALS else 0.4
    hues = [
        colorsys.rgb_to_hsv(*(channel / 255 for channel in PALETTE[name]))[0] * 360
        for name in (first, second)
    ]
    apart = abs(hues[0] - hues[1])
    apart = min(apart, 360 - apart)
    return 0.5 if apart < 45 else 0.4 if apart > 150 else -0.8


def make_outfits(
    garments: list[Garment], members: list[int], count: int, first_id: int, rng
) -> list[Outfit]:
    """`count` outfits of the garments numbered in `members`.

    Garments of one category are in about as many outfits as each other.
    """
    score = compatibility(garments)
    of = {
        semantic: np.array([number for number in members if garments[number].semantic == semantic])
        for semantic in ("tops", "bottoms", "shoes", "bags", "outerwear", "all-body")
    }
    uses = np.zeros(len(garments))
    weights = np.array([weight for weight, _ in TEMPLATES])
    outfits = []
    for number in range(count):
        template = TEMPLATES[int(rng.choice(len(TEMPLATES), p=weights / weights.sum()))][1]
        chosen: list[int] = []
        for semantic in rng.permutation(template):
            candidates = of[str(semantic)]
            liking = (
                CHOOSINESS * score[np.ix_(chosen, candidates)].mean(axis=0)
                if chosen
                else np.zeros(len(candidates))
            )
            chance = np.exp(
                liking - liking.max() - 2.0 * (uses[candidates] - uses[candidates].min())
            )
            picked = int(
                candidates[
                    np.searchsorted(np.cumsum(chance), rng.random() * chance.sum(), side="right")
                ]
            )
            chosen.append(picked)
            uses[picked] += 1
        order = rng.permutation(len(chosen))
        outfits.append(Outfit(str(first_id + number), tuple(chosen[place] for place in order)))
    return outfits


def compatibility_lines(
    garments: list[Garment], outfits: list[Outfit], rng, partial: bool = False
) -> list[str]:
    """The outfits, labelled 1, and as many wrong ones, labelled 0: all items exchanged, or some.

    partial: some items of each outfit are exchanged, not all. Outfits exchange items of one
    category with each other, so each item is as often in the wrong outfits as in the right ones.
    Raises ValueError when there are too few outfits for that.
    """
    tokens = [outfit.tokens() for outfit in outfits]
    for _ in range(200):
        places = _places_to_exchange(garments, outfits, rng, partial)
        orders = [
            _exchange([outfits[number].items[place] for number, place in category], rng)
            for category in places
        ]
        if all(order is not None for order in orders):
            break
    else:
        raise ValueError(TOO_FEW)
    wrong = [list(own) for own in tokens]
    for category, order in zip(places, orders, strict=True):
        for (number, place), source in zip(category, order, strict=True):
            giver, given = category[source]
            wrong[number][place] = tokens[giver][given]
    gap = " " if partial else "  "  # as in the official files
    return [f"1 {' '.join(own)}" for own in tokens] + [f"0{gap}{' '.join(own)}" for own in wrong]


def _places_to_exchange(
    garments, outfits: list[Outfit], rng, partial: bool
) -> list[list[tuple[int, int]]]:
    """By category: (outfit, place) of each item that leaves its outfit; `partial`: not all do."""
    places: dict[str, list[tuple[int, int]]] = {}
    for number, outfit in enumerate(outfits):
        size = len(outfit.items)
        for place in rng.permutation(size)[: int(rng.integers(1, size)) if partial else size]:
            places.setdefault(garments[outfit.items[place]].semantic, []).append(
                (number, int(place))
            )
    return list(places.values())


def _exchange(items: list[int], rng) -> np.ndarray | None:
    """A random permutation that gives no place its own item back.

    None where one item has more than half of the places.
    """
    items = np.array(items)
    if 2 * np.bincount(items).max() > len(items):
        return None
    order = rng.permutation(len(items))
    while len(kept := np.flatnonzero(items[order] == items)):
        for place in kept:
            other = int(rng.integers(len(items)))
            order[[place, other]] = order[[other, place]]
    return order


def questions(garments: list[Garment], outfits: list[Outfit], rng, choices: int) -> list[dict]:
    """For each outfit one blank and `choices` answers of its category.

    The right answer is first, as in the official files. Raises ValueError when there are too few
    items to choose from.
    """
    shelves: dict[str, list[tuple[str, int]]] = {}
    for outfit in outfits:
        for token, item in zip(outfit.tokens(), outfit.items, strict=True):
            shelves.setdefault(garments[item].semantic, []).append((token, item))
    entries = []
    for outfit in outfits:
        tokens = outfit.tokens()
        for blank in rng.permutation(len(tokens)):
            item = outfit.items[blank]
            wrong = _others(shelves[garments[item].semantic], item, choices - 1, rng)
            if len(wrong) == choices - 1:
                break
        else:
            raise ValueError(TOO_FEW)
        entries.append(
            {
                "question": [token for place, token in enumerate(tokens) if place != blank],
                "answers": [tokens[blank], *wrong],
                "blank_position": int(blank) + 1,
            }
        )
    return entries


def _others(shelf: list[tuple[str, int]], item: int, count: int, rng) -> list[str]:
    """Tokens of up to `count` different items other than `item`, by how often each is worn."""
    taken, tokens = {item}, []
    for place in rng.permutation(len(shelf)):
        token, other = shelf[place]
        if len(tokens) < count and other not in taken:
            taken.add(other)
            tokens.append(token)
    return tokens
