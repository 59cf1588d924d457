"""A search in stages, each slower than the one before and looking at fewer pictures: codes for a shortlist of all, embeddings to
rank it, PAN to say of the first ten why they are alike.

    answer = search("bird.jpg", index_of_codes, model, rank=(index_of_embeddings, its_model), explain=load_pair_model(run))
    answer.hits, answer.stages, answer.reasons

Every stage but the first can be left out.
"""

from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

import numpy as np
from fieldmarks.data.decoding import ImageError, decode
from fieldmarks.experiments.models import Model, PairModel

from fieldlab.own_pictures import DecodedPictures, Hit, PictureIndex

EXPLAINED = 10  # pictures
SHORTLIST = 200
STRONGEST = 3  # concepts


@dataclass(frozen=True)
class Stage:
    """What a stage did, in words, and how long it took, looking at the query included."""

    words: str
    seconds: float


@dataclass(frozen=True)
class Reason:
    """Why PAN finds two pictures alike: their similarity (0 .. 1), and the concepts that contribute most to it, as (name, contribution)."""

    similarity: float
    concepts: list[tuple[str, float]]


@dataclass
class Answer:
    """What was found, best first.

    Attributes:
        hits: scores are those of the last stage that ordered them.
        stages: in the order in which they ran.
        reasons: one for each of the first ten hits; None for a picture that cannot be read any more, and for the very same one,
            which PAN has not learnt to compare. Empty without an explanation.
        bits: length of the codes whose distances the scores are; 0 where they are cosines.
        unranked: pictures of the shortlist that the index of embeddings does not know, which are left out.
    """

    hits: list[Hit]
    stages: list[Stage]
    bits: int
    reasons: list[Reason | None] = field(default_factory=list)
    unranked: list[Path] = field(default_factory=list)

    def scores_in_words(self) -> list[str]:
        return [
            f"{hit.score:.0f} of {self.bits} bits differ"
            if self.bits
            else f"cosine {hit.score:.3f}"
            for hit in self.hits
        ]

    @property
    def gone(self) -> list[Path]:
        """Hits that have been moved or removed since they were indexed."""
        return [hit.path for hit in self.hits if not hit.path.is_file()]


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
    """Find the k pictures most like one.

    Args:
        index, model: what makes the shortlist, or the answer if nothing ranks it.
        rank: an index of embeddings over the same folder, and its model: orders the shortlist by cosine.
        shortlist: pictures that are ranked, at least k.

    Raises:
        ImageError: the picture cannot be read.
        ValueError: an index of another model than the one given; to rank by, an index of codes, of another folder or without any
            picture of the shortlist.
    """
    if rank is not None:
        _check(index, rank[0])
    began = perf_counter()
    size = min(max(shortlist, k) if rank else k, len(index))
    scores, rows = index.nearest(index.look(model, picture), size)
    names, bits = [index.names[row] for row in rows], index.bits
    how = f"{bits} bits" if bits else "cosine"
    words = (
        f"{size:,} of {len(index):,} pictures by {how} ({model.result['method']}{_missed(index)})"
    )
    answer = Answer(
        [], [Stage(f"shortlist: {words}" if rank else words, perf_counter() - began)], bits
    )
    if rank:
        began = perf_counter()
        scores, names, answer.unranked = _ranked(*rank, picture, index, names)
        answer.stages.append(
            Stage(
                f"ranking: {len(names):,} by cosine ({rank[1].result['method']})",
                perf_counter() - began,
            )
        )
        answer.bits = 0
    answer.hits = [
        Hit(index.pictures / name, float(score)) for name, score in list(zip(names, scores))[:k]
    ]
    if explain:
        began = perf_counter()
        answer.reasons = reasons(explain, picture, [hit.path for hit in answer.hits[:EXPLAINED]])
        words = (
            f"explanation: the first {len(answer.reasons)} by concepts ({explain.result['method']})"
        )
        answer.stages.append(Stage(words, perf_counter() - began))
    return answer


def reasons(
    model: PairModel, picture: Path, others: list[Path], count: int = STRONGEST
) -> list[Reason | None]:
    """Why a picture is like each of others: `count` concepts by contribution; None for those that cannot be read or are the very same.

    Raises:
        ImageError: the picture cannot be read.
    """
    pixels, there = [decode(picture, model.resize)], []
    for place, path in enumerate(others):
        try:
            other = decode(path, model.resize)
        except ImageError:
            continue
        if not np.array_equal(other, pixels[0]):
            pixels.append(other)
            there.append(place)
    encoded = model.encode(DecodedPictures(pixels))
    found: list[Reason | None] = [None] * len(others)
    for place, other in zip(there, encoded[1:]):
        concepts, relevance = model.concepts(encoded[0], other)
        contributions = concepts * relevance
        strongest = contributions.argsort(descending=True, stable=True)[:count].tolist()
        found[place] = Reason(
            contributions.sum().item(),
            [(model.names[m], contributions[m].item()) for m in strongest],
        )
    return found


def _check(index: PictureIndex, other: PictureIndex) -> None:
    if other.bits:
        raise ValueError(
            f"'{other.folder}' holds codes, which are too coarse to rank by: make the shortlist by it, and rank by an index "
            "of an open-set run"
        )
    if other.pictures != index.pictures:
        raise ValueError(
            f"'{other.folder}' is an index of '{other.pictures}' and '{index.folder}' of '{index.pictures}': give two of the "
            "same folder"
        )


def _ranked(
    index: PictureIndex, model: Model, picture: Path, before: PictureIndex, names: list[str]
) -> tuple[np.ndarray, list[str], list[Path]]:
    """Cosines and names in their order, equal ones as they came; and what the index does not know."""
    known = [name for name in names if name in index.row_of]
    unknown = [index.pictures / name for name in names if name not in index.row_of]
    if not known:
        raise ValueError(
            f"'{index.folder}' knows none of the {len(names)} pictures that '{before.folder}' found: bring both up to date with "
            "fieldmarks index"
        )
    cosines = index.vectors[[index.row_of[name] for name in known]] @ index.look(model, picture)
    order = np.argsort(-cosines, kind="stable")
    return cosines[order], [known[place] for place in order], unknown


def _missed(index: PictureIndex) -> str:
    return f", which finds {index.recall:.1%} of the ten nearest" if index.recall < 1 else ""
