"""How right explanations of matches are: a network's maps, scored on counterfactual twins.

Drawn birds of species that none of the networks has learnt, in pairs of one species. In the match
the colour of one part at a time is exchanged, with nothing else moving, and the network says how
far the similarity to the query falls. What is scored, and by what right: `evaluation.explanations`.
Pointing and mass are asked of the part whose exchange costs most, correctness and spread of all."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from fieldmarks.checks import at_least, one_of
from fieldmarks.data import catalog
from fieldmarks.data.augment import TestViews
from fieldmarks.evaluation import explanations as scoring
from fieldmarks.experiments.experiment import (
    DataParameters,
    Experiment,
    experiment_class,
    inner_parameters,
    load_run,
    run_as_module,
)
from fieldmarks.experiments.fewshot import few_shot_split
from fieldmarks.experiments.pairs import PairMethod
from fieldmarks.experiments.result import finished_run, read_result
from fieldmarks.experiments.scores import Scores
from fieldmarks.explain.explainer import remembering
from fieldmarks.explain.explainers import COSTLY, EXPLAINERS
from fieldmarks.explain.shared_attributes import attribute_explainer, concept_explainer
from fieldmarks.memory import keep_freed_memory
from fieldmarks.methods.method import Method
from fieldmarks.methods.vapnet import VAPNet
from fieldmarks.progress import counter
from fieldmarks.training import History

NETWORKS = ("frozen", "open_set", "hashing", "fewshot", "inshop")
# One of each kind: behind an average, most maps of the grad-cam package are `place_map`.
USUAL = ("channel_mean", "place_map", "grad_cam", "grad_cam_full_cosine", "eigen_grad_cam")
SCORES = ("pointing", "mass", "correctness", "spread")
FEWEST = 3  # parts that must be exchangeable for `correctness`
BATCH = 12
NAMED = 5  # concepts, among which the exchanged one should be


@dataclasses.dataclass(frozen=True)
class Parameters(DataParameters):
    """Which network's explanations are scored, and on what:"""

    kind = "explanations"
    precision: ClassVar[str] = "fp32"

    network: str = "frozen"  # the experiment that trains it, or "frozen" as it comes
    settings: dict = dataclasses.field(default_factory=dict)  # of that experiment, as {"epochs": 4}
    run: str = ""  # a finished run whose network is explained instead
    pictures: int = 60
    exchanges: int = 12  # parts exchanged in a picture, at most
    looked_at: tuple[int, ...] = (192,)  # px a side; COSTLY explainers, contrast and sanity: first
    explainers: tuple[str, ...] = (*USUAL, "occlusion")
    sane: int = 12  # pictures whose maps are compared with those of randomised weights; 0: none
    seed: int = 0  # of the network; pictures are the same for all

    def __post_init__(self):
        super().__post_init__()
        one_of("dataset", self.dataset, ("fieldguide",))
        one_of("network", self.network, NETWORKS)
        at_least(1, pictures=self.pictures)
        at_least(FEWEST, exchanges=self.exchanges)
        at_least(0, sane=self.sane)
        if not self.looked_at or min(self.looked_at) < 32:
            sizes = f"looked_at is {list(self.looked_at)}: "
            raise ValueError(sizes + "give one or more sizes of at least 32 px")
        if not self.explainers:
            raise ValueError("explainers is empty: name one or more")
        for name in self.explainers:
            one_of("explainers", name, EXPLAINERS)
        if self.network != "frozen":
            self.of_network()

    def of_network(self) -> Any:
        """The parameters of the experiment that trains the network. ValueError: these cannot be."""
        out = str(self.folder() / "network") if self.out else ""
        return inner_parameters(self, self.network, self.settings, "settings", out)


class Pictures(NamedTuple):
    """N pairs and their exchanges, S px a side; at most P parts are exchanged in one."""

    queries: Tensor  # (N, 3, S, S) uint8
    matches: Tensor  # (N, 3, S, S) uint8
    others: list[Tensor]  # N of (P, 3, S, S) uint8: the match with one part exchanged
    parts: Tensor  # (N, P, S, S) bool: what of the match shows the part; none where padded
    birds: Tensor  # (N, S, S) bool


class Explanations(Experiment):
    """Attributes:
    species: positions of the species that are pictured.
    reasons: explainers of which there are no maps, each with the cause."""

    Parameters = Parameters
    monitor = "pointing"
    saved_file = "scores.safetensors"

    def split(self) -> Sequence:
        """Pictures of the guide that the species come from."""
        return [self.load_images()]

    def prepare(self) -> None:
        p = self.parameters
        if p.run:
            _, result = finished_run(p.run, "run")
            self.method, self.trainer = load_run(p.run, p.device), None
            self.network_name = result["method"]
        else:
            self.method = Method(self.create_backbone()).eval()
            training = p.network != "frozen"
            self.trainer = experiment_class(p.network)(p.of_network()) if training else None
            self.network_name = self.trainer.name if self.trainer else f"frozen {p.backbone}"
        self.test_views = TestViews.of(self.method.backbone)
        (images,) = self.split()
        self.species = unlearnt_species(images)
        self.data = f"twins {p.plain()['generated']} {p.pictures} {p.exchanges} {p.looked_at}"
        self.reasons: dict[str, str] = {}

    @property
    def name(self) -> str:
        return self.network_name

    def train(self) -> History:
        if self.trainer is None:
            return History()
        learnt = self.trainer.complete()
        self.method = load_run(self.trainer.folder, self.parameters.device)
        return History(learnt["curves"]["epochs"], seconds=learnt["timing"]["train_seconds"])

    # ---- pictures

    @cached_property
    def drawn(self) -> tuple[Pictures, list]:
        """At the largest size, and the exchanges of each picture."""
        p = self.parameters
        given = catalog.generated_parameters(p.dataset, p.generated)
        counted = counter("pictures exchanged", p.progress)
        return draw(self.species, given, p.pictures, p.exchanges, max(p.looked_at), counted)

    def views(self, images: Tensor) -> Tensor:
        """(n, 3, S, S) uint8 -> normalised, on the device."""
        backbone = self.method.backbone
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in (backbone.mean, backbone.std))
        return ((images / 255 - mean) / std).to(self.device)

    # ---- what the network says

    @property
    def representation(self) -> Callable[[Tensor], Tensor]:
        """(B, 3, S, S) -> (B, D), what `similarity` compares."""
        pairs = isinstance(self.method, PairMethod)
        return self.method.embed if pairs else self.method.representation

    def similarity(self, a: Tensor, b: Tensor) -> Tensor:
        """Of embeddings (n, D) twice: (n,). PAN's own, else the cosine."""
        if isinstance(self.method, PairMethod):
            return self.method.score(a, b)
        return F.cosine_similarity(a.double(), b.double(), dim=1)

    def contributions(self, a: Tensor, b: Tensor) -> Tensor:
        """Of PAN's concepts to the similarity of embeddings (n, h) twice: (n, M)."""
        _, concepts, relevance = self.method.network.head(a, b)
        return concepts * relevance

    def explainers(self) -> dict[str, Callable]:
        """Those that the parameters name, and the method's own; of PAN's similarity, which is no
        cosine, only those that do not ask for one."""
        chosen = {name: EXPLAINERS[name] for name in self.parameters.explainers}
        if isinstance(self.method, PairMethod):
            cause = "it explains a cosine, and PAN compares by concepts"
            self.reasons |= {name: cause for name in chosen if name != "channel_mean"}
            chosen = {n: e for n, e in chosen.items() if n == "channel_mean"}
            total = lambda a, b: self.contributions(a, b).sum(1, keepdim=True)
            own = {"shared_concept": self.contributions, "pan_score": total}
            chosen |= {name: concept_explainer(of_pair) for name, of_pair in own.items()}
        if isinstance(self.method, VAPNet) and self.method.constraint != "none":
            chosen["shared_attribute"] = attribute_explainer(self.method.attribute_responses)
        return chosen

    def maps(self, explain: Callable, queries: Tensor, matches: Tensor) -> Tensor:
        return explain(self.representation, self.method.backbone, queries, matches).cpu()

    def embedded(self, pictures: Pictures) -> Iterator[tuple[Tensor, Tensor]]:
        """Of each of the N: its query, as often as follows, and its match with each part exchanged,
        the match itself first, (1 + P, D) twice."""
        for query, match, others in zip(*pictures[:3], strict=True):
            all_of_it = self.views(torch.stack([query, match, *others]))
            asked, found = self.representation(all_of_it).float().tensor_split([1])
            yield asked.expand_as(found), found

    @torch.no_grad()
    def falls(self, pictures: Pictures) -> Tensor:
        """How far the similarity falls when a part is exchanged: (N, P), NaN where padded."""
        similar = [self.similarity(*pair).double().cpu() for pair in self.embedded(pictures)]
        rows = [row[0] - row[1:] for row in similar]
        return pad_sequence(rows, batch_first=True, padding_value=torch.nan)

    @torch.no_grad()
    def named(self, pictures: Pictures) -> dict[str, Tensor]:
        """Of a PAN with named concepts, (N,): the share of exchanges whose attribute is among the
        first NAMED by how much its contribution changed, and what lots would give."""
        names = getattr(self.method, "attribute_names", None)
        if not names:
            return {}
        places, found = {name: place for place, name in enumerate(names)}, []
        for pair, row in zip(self.embedded(pictures), self.drawn[1], strict=True):
            before, *after = self.contributions(*pair)[:, : len(names)].cpu()
            exchanged = torch.zeros(len(after), len(names), dtype=torch.bool)
            for flags, each in zip(exchanged, row, strict=True):
                known = (f"has_{each.mark}::{value}" for value in (each.value, each.other_value))
                flags[[places[name] for name in known if name in places]] = True
            ranks = scoring.named(before.expand(len(after), -1), torch.stack(after), exchanged)
            known, wanted = ~ranks.isnan(), exchanged.sum(1)
            lots = 1 - (1 - NAMED / len(names)) ** wanted[known]
            found.append([(ranks[known] <= NAMED).double().mean(), lots.double().mean()])
        first, lots = torch.tensor(found, dtype=torch.float64).T
        return {f"named@{NAMED}": first, f"named@{NAMED}: by lot": lots}

    # ---- scores

    def evaluate(self) -> Scores:
        p, saved, self.reasons = self.parameters, {}, {}
        keep_freed_memory()
        self.method.eval()
        largest, exchanges = self.drawn
        first = resized(largest, p.looked_at[0])
        for size in p.looked_at:
            pictures = first if size == p.looked_at[0] else resized(largest, size)
            falls = self.falls(pictures)
            left_out = COSTLY if size != p.looked_at[0] else ()
            for name, heat, target in self.all_maps(pictures, falls, left_out):
                for score, values in scored(name, heat, target).items():
                    saved.setdefault(f"{score}: {name}, {size} px", []).append(values)
        saved = {name: torch.cat(values) for name, values in saved.items()}
        saved |= self.contrast_and_sanity(first) | self.named(first)
        # The same in all runs that can be compared.
        saved["asked"] = torch.tensor([len(row) for row in exchanges])
        return self.measure(saved, {})

    def all_maps(self, pictures: Pictures, falls: Tensor, left_out: Sequence[str] = ()) -> Iterator:
        """(explainer, maps, `Target`), a batch at a time, those of `references` among them."""
        explainers = {n: e for n, e in self.explainers().items() if n not in left_out}
        backbone = self.method.backbone
        for rows in torch.arange(len(falls)).split(BATCH):
            target = Target.of(pictures, falls, rows)
            yield from ((name, heat, target) for name, heat in target.references().items())
            sides = [self.views(each[rows]) for each in (pictures.queries, pictures.matches)]
            with remembering(backbone, *sides):
                for name in [n for n in explainers if n not in self.reasons]:
                    try:
                        yield name, self.maps(explainers[name], *sides), target
                    except ValueError as cause:  # of what cannot be had of this network
                        self.reasons[name] = str(cause)

    def contrast_and_sanity(self, pictures: Pictures) -> dict[str, Tensor]:
        """Of the explainers that are not COSTLY, of the first `sane` pictures: how far the map of a
        match differs from its map for the query of another species, and how like maps stay when all
        weights are shuffled."""
        backbone, found = self.method.backbone, {}
        queries, matches = (self.views(x[: self.parameters.sane]) for x in pictures[:2])
        if len(queries) < 2:
            return {}
        explainers = {n: e for n, e in self.explainers().items() if n not in self.reasons}
        for name in [n for n in explainers if n not in COSTLY]:
            again = lambda asked=queries, explain=explainers[name]: self.maps(
                explain, asked, matches
            )
            found[f"contrast: {name}"] = scoring.contrast(again(), again(queries.roll(1, 0)))
            found[f"sanity: {name}"] = scoring.sanity(again, backbone, steps=1)[-1]
        return {name: values for name, values in found.items() if not values.isnan().all()}

    @classmethod
    def measure(cls, saved: Mapping[str, Tensor], parameters: Mapping) -> Scores:
        """Means over pictures: "pointing: <explainer>, <size> px" and so on of SCORES; "contrast:
        <explainer>", "sanity: <explainer>"; of PAN "named@5"."""

        def place(name: str) -> tuple:
            score, _, explainer = name.partition(": ")
            number = SCORES.index(score) if score in SCORES else len(SCORES)
            return number, explainer.partition(",")[0] in REFERENCES, name

        names = sorted(saved, key=place)
        values = {n: saved[n] for n in names if n != "asked" and not saved[n].isnan().all()}
        asked = saved["asked"]
        return Scores(values, {}, asked, len(asked), saved=dict(saved))

    def comparisons(self, scores: Scores) -> dict[str, list[dict]]:
        """By score, every explainer at the first size against the blob in the middle, Holm's
        correction over them."""
        found = {}
        for score, values in by_score(scores.values, self.parameters.looked_at[0]).items():
            if score != "spread":
                asked = {n: v for n, v in values.items() if n not in REFERENCES - {"middle"}}
                found[score] = [d._asdict() for d in scoring.compare(asked, "middle")]
        return found

    def counts(self) -> Sequence[int]:
        pictures = len(self.drawn[1])
        learnt = read_result(self.trainer.folder) if self.trainer else None
        train, classes = (learnt["counts"][n] if learnt else 0 for n in ("train", "train_classes"))
        return train, pictures, pictures, len(self.species), classes

    def details(self, scores: Scores, history: History) -> dict:
        exchanged = sum(len(row) for row in self.drawn[1])
        details = {"reasons": self.reasons, "exchanges": exchanged}
        return details | {"against_middle": self.comparisons(scores)}

    @classmethod
    def load(cls, folder: Path, result: dict, device: str = "auto") -> Method:
        p = result["parameters"]
        if p["run"] or p["network"] != "frozen":
            return load_run(p["run"] or folder / "network", device)
        return super().load(folder, result, device)

    @classmethod
    def rebuild(cls, p, backbone, result: dict, folder: Path) -> Method:
        return Method(backbone)


class Target(NamedTuple):
    """What maps of n pictures are scored against."""

    changed: Tensor  # (n, S, S) bool: the part whose exchange costs most
    birds: Tensor  # (n, S, S) bool
    parts: Tensor  # (n, P, S, S) bool
    falls: Tensor  # (n, P)

    @classmethod
    def of(cls, pictures: Pictures, falls: Tensor, rows: Tensor) -> "Target":
        most = falls[rows].nan_to_num(-torch.inf).argmax(1)
        pairs = zip(rows.tolist(), most.tolist(), strict=True)
        apart = [pictures.others[n][m] != pictures.matches[n] for n, m in pairs]
        changed = torch.stack(apart).any(1)
        return cls(changed, pictures.birds[rows] | changed, pictures.parts[rows], falls[rows])

    def references(self) -> dict[str, Tensor]:
        return scoring.references(self.changed, self.birds) | {
            "painted": scoring.painted(self.parts, self.falls)
        }


REFERENCES = {"uniform", "middle", "outline", "changed", "painted"}


def by_score(values: Mapping[str, Any], size: int) -> dict[str, dict[str, Any]]:
    """{score: {explainer: value}} of what is named "<score>: <explainer>, <size> px"."""
    found: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        score, _, rest = name.partition(": ")
        if rest.endswith(end := f", {size} px"):
            found.setdefault(score, {})[rest.removesuffix(end)] = value
    return found


def scored(name: str, heat: Tensor, target: Target) -> dict[str, Tensor]:
    """SCORES of maps (n, S, S): (n,) each."""
    positive = heat.relu() if name == "painted" else heat
    return {
        "pointing": scoring.pointing(positive, target.changed),
        "mass": scoring.mass(positive, target.changed, target.birds),
        "correctness": scoring.correctness(heat, target.parts, target.falls),
        "spread": scoring.spread(positive, target.parts),
    }


def unlearnt_species(images) -> Tensor:
    """Labels of classes that neither open-set retrieval nor few-shot classification learns from."""
    unseen = images.open_split()[1].labels.unique()
    base = few_shot_split(images)["base"].labels.unique()
    return unseen[~torch.isin(unseen, base)]


def draw(species: Tensor, given: Mapping, count: int, most: int, size: int, progress: Callable):
    """`Pictures` of species in turn, and the exchanges of each: lists of fieldguide's twins.
    Pictures with fewer than FEWEST parts that can be exchanged are passed over."""
    from fieldguide.birds.twins import matches_exchanged

    guide = {name: given[name] for name in ("classes", "seed", "difficulty")}
    found: list[tuple] = []
    for query, exchanges in matches_exchanged(species.tolist(), **guide, most=most, size=size):
        if len(exchanges) >= FEWEST:
            found.append((query, exchanges))
            progress(len(found), count)
        if len(found) == count:
            break
    pixels = lambda images: torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
    masks = [torch.from_numpy(np.stack([one.shown for one in row])) for _, row in found]
    pictures = Pictures(
        pixels([query.image for query, _ in found]),
        pixels([row[0].image for _, row in found]),
        [pixels([one.other for one in row]) for _, row in found],
        pad_sequence(masks, batch_first=True),
        torch.from_numpy(np.stack([row[0].first.mask for _, row in found])),
    )
    return pictures, [row for _, row in found]


def resized(pictures: Pictures, size: int) -> Pictures:
    """At another size; a part's pixels are those of which it has more than half."""
    if size == pictures.matches.shape[-1]:
        return pictures
    scale = lambda x: F.interpolate(
        x.float(), (size, size), mode="bilinear", antialias=True, align_corners=False
    )
    image = lambda x: scale(x).round().clamp(0, 255).to(torch.uint8)
    mask = lambda x: scale(x[None] if x.ndim == 3 else x).view(*x.shape[:-2], size, size) > 0.5
    queries, matches, others, parts, birds = pictures
    others = [image(each) for each in others]
    return Pictures(image(queries), image(matches), others, mask(parts), mask(birds))


if __name__ == "__main__":
    run_as_module(Explanations)
