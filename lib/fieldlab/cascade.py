"""A search in stages, each slower than the one before and on fewer pictures.

    answer = search("bird.jpg", index_of_codes, model, rank=(index, its_model), explain=pair_model)
    answer.hits, answer.stages, answer.reasons

Codes make a shortlist of all pictures, embeddings rank it, PAN says of the first ten why they are
alike. Every stage but the first can be left out.
"""

from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import numpy as np
from torch import Tensor

from fieldlab.models import Model, PairModel
from fieldlab.own_pictures import DecodedPictures, Hit, PictureIndex
from fieldmarks.decoding import ImageError, decode

EXPLAINED = 10  # pictures
SHORTLIST = 200
STRONGEST = 3  # concepts


class Stage(NamedTuple):
    words: str  # what it did
    seconds: float  # reading the query included


class Reason(NamedTuple):
    """Why PAN finds two pictures alike."""

    similarity: float  # 0 .. 1
    concepts: list[tuple[str, float]]  # that contribute most: (name, contribution)


@dataclass
class Answer:
    """What was found, best first.

    Attributes:
        bits: length of the codes whose distances the scores are; 0 where they are cosines.
        hits: pictures, and the score of the last stage that ordered them.
        stages: in the order in which they ran.
        reasons: of the first ten; empty without an explanation. None for a picture that cannot be
            read any more, and for the very same one, which PAN has not learned to compare.
        unranked: pictures of the shortlist that the ranking does not know, which are left out.
    """

    bits: int
    hits: list[Hit] = field(default_factory=list)
    stages: list[Stage] = field(default_factory=list)
    reasons: list[Reason | None] = field(default_factory=list)
    unranked: list = field(default_factory=list)

    def scores_in_words(self) -> list[str]:
        form = f"{{:.0f}} of {self.bits} bits differ" if self.bits else "cosine {:.3f}"
        return [form.format(hit.score) for hit in self.hits]

    @property
    def gone(self) -> list[Path]:
        """Hits that have been moved or removed since they were indexed."""
        return [hit.path for hit in self.hits if not hit.path.is_file()]


def in_stages(
    query, first, ranking=None, explain=None, *, k: int = 10, shortlist: int = SHORTLIST
) -> Answer:
    """Find the k pictures most like one; what names pictures may be paths or positions.

    Args:
        first: makes the shortlist, or the answer if nothing ranks it. It has a length, `bits`, in
            words `how` it compares, and nearest(query, k) -> list[Hit].
        ranking: has `how` and cosines(query, pictures), NaN for a picture that it does not know.
        explain: has `name` and reasons(query, pictures) -> list[Reason | None].
        shortlist: pictures that are ranked, at least k.
    """
    answer, began = Answer(0 if ranking else first.bits), perf_counter()

    def done(text: str) -> None:
        nonlocal began
        answer.stages.append(Stage(text, perf_counter() - began))
        began = perf_counter()

    hits = first.nearest(query, min(max(shortlist, k) if ranking else k, len(first)))
    text = f"{len(hits):,} of {len(first):,} pictures by {first.how}"
    done(f"shortlist: {text}" if ranking else text)
    if ranking:
        cosines = ranking.cosines(query, [hit.path for hit in hits])
        order = np.argsort(-cosines, kind="stable")  # NaN come last
        ranked = [Hit(hits[place].path, cosines[place].item()) for place in order]
        answer.unranked = [hit.path for hit in ranked if np.isnan(hit.score)]
        hits = ranked[: len(ranked) - len(answer.unranked)]
        done(f"ranking: {len(hits):,} by {ranking.how}")
    answer.hits = hits[:k]
    if explain:
        answer.reasons = explain.reasons(query, [hit.path for hit in answer.hits[:EXPLAINED]])
        done(f"explanation: the first {len(answer.reasons)} by concepts ({explain.name})")
    return answer


def strongest_concepts(model: PairModel, one: Tensor, others: Tensor) -> list[Reason]:
    """Why an encoded picture (h,) is like each of others (N, h)."""
    concepts, relevance = model.concepts(one.expand_as(others), others)
    reasons, names = [], model.names
    for contributions in concepts * relevance:
        strongest = contributions.argsort(descending=True, stable=True)[:STRONGEST].tolist()
        parts = [(names[m], contributions[m].item()) for m in strongest]
        reasons.append(Reason(contributions.sum().item(), parts))
    return reasons


# ---- among the pictures of an index


def search(
    picture: Path,
    index: PictureIndex,
    model: Model,
    *,
    rank: tuple[PictureIndex, Model] | None = None,
    explain: PairModel | None = None,
    k: int = 10,
    shortlist: int = SHORTLIST,
) -> Answer:
    """Find the k pictures of an index most like one, as `in_stages`.

    Args:
        rank: an index of embeddings over the same folder, and its model.

    Raises:
        ImageError: the picture cannot be read.
        ValueError: an index of another model than the one given; to rank by, an index of codes, of
            another folder or without any picture of the shortlist.
    """
    if rank is not None:
        _check(index, rank[0])
    first, ranking = _Indexed(index, model), rank and _Indexed(*rank)
    explaining = explain and _Explaining(explain)
    return in_stages(picture, first, ranking, explaining, k=k, shortlist=shortlist)


class _Indexed:
    def __init__(self, index: PictureIndex, model: Model):
        self.index, self.model, self.bits = index, model, index.bits
        missed = f", which finds {index.recall:.1%} of the ten nearest" if index.recall < 1 else ""
        by = f"{index.bits} bits" if index.bits else "cosine"
        self.how = f"{by} ({model.result['method']}{missed})"

    def __len__(self) -> int:
        return len(self.index)

    def nearest(self, picture: Path, k: int) -> list[Hit]:
        return self.index.search(self.model, picture, k)

    def cosines(self, picture: Path, others: list[Path]) -> np.ndarray:
        index = self.index
        rows = [index.row_of.get(path.relative_to(index.pictures).as_posix()) for path in others]
        known = [row for row in rows if row is not None]
        if not known:
            raise ValueError(
                f"'{index.folder}' knows none of the {len(rows)} pictures of the shortlist: "
                "bring both indexes up to date with fieldmarks index"
            )
        cosines = np.full(len(rows), np.nan, np.float32)
        there = [row is not None for row in rows]
        cosines[there] = index.vectors[known] @ index.row(self.model, picture)
        return cosines


class _Explaining:
    def __init__(self, model: PairModel):
        self.model, self.name = model, model.result["method"]

    def reasons(self, picture: Path, others: list[Path]) -> list[Reason | None]:
        side = self.model.resize
        pixels, there = [decode(picture, side)], []
        for place, path in enumerate(others):
            try:
                other = decode(path, side)
            except ImageError:
                continue
            if not np.array_equal(other, pixels[0]):
                pixels.append(other)
                there.append(place)
        encoded = self.model.encode(DecodedPictures(pixels))
        reasons = strongest_concepts(self.model, encoded[0], encoded[1:])
        by_place = dict(zip(there, reasons, strict=True))
        return [by_place.get(place) for place in range(len(others))]


def _check(index: PictureIndex, other: PictureIndex) -> None:
    if other.bits:
        raise ValueError(
            f"'{other.folder}' holds codes, which are too coarse to rank by: make the shortlist by "
            "it, and rank by an index of an open-set run"
        )
    if other.pictures != index.pictures:
        raise ValueError(
            f"'{other.folder}' is an index of '{other.pictures}' and '{index.folder}' of "
            f"'{index.pictures}': give two of the same folder"
        )
