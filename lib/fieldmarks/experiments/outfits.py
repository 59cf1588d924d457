"""What goes with what: PAN on outfits, with its attribute baselines (labs/pan/table1.yaml).

Two questions are asked of a similarity of garments: is this an outfit or a mere collection (AUC),
and which of these fills the blank in that outfit (FITB)."""

import dataclasses
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from fieldmarks.checkpoints import load_checkpoint
from fieldmarks.checks import at_least, one_of, share
from fieldmarks.data import catalog
from fieldmarks.data.batches import TripletStream
from fieldmarks.data.layouts import polyvore
from fieldmarks.data.pixels import PixelCache
from fieldmarks.data.readable import find_unreadable
from fieldmarks.evaluation import outfits as scoring
from fieldmarks.evaluation.outfits import area_under_curve, fill_in_blank_hits
from fieldmarks.experiments import pairs as learned
from fieldmarks.experiments import parameters as reading
from fieldmarks.experiments.experiment import backbone_of, measured_file, restore, run_as_module
from fieldmarks.experiments.features import Unscaled
from fieldmarks.experiments.pairs import HEADS, EndToEndParameters, PairExperiment
from fieldmarks.experiments.parameters import composed_of
from fieldmarks.experiments.scores import Scores
from fieldmarks.methods import graph_encoder as graphs
from fieldmarks.methods.graph_encoder import Context, Graph, outfit_edges
from fieldmarks.methods.method import Method
from fieldmarks.methods.pairs import pair_numbers, pairs_from_edges, split_edges
from fieldmarks.methods.type_aware import TypeAware
from fieldmarks.progress import counter
from fieldmarks.random import seeded
from fieldmarks.training import choose_device, embed_all

VALIDATION, TYPE_AWARE = "valid", "type_aware"
TRIES = 20  # to draw an item that another is not worn with
TESTS = {"test": "", "test resampled": "_resampled"}  # parts, and what their metrics' names end in
DEGREE = -1  # stands where K does for answers by the number of edges
HEAD = {"encoder": "graph", "hidden": (200, 200), "none_slot": True, "rule": "and"}
LOOP = {"epochs": 150, "evaluate_every": 15, "lr": 0.003}


@composed_of(**HEAD, **LOOP, attribute_weight=10.0, dataset="wardrobe")
class Parameters(EndToEndParameters):
    """As `EndToEndParameters`, whose epoch is one step on the whole graph, but for "type_aware",
    which is trained on images; and:"""

    kind = "outfits"
    embedding_kind = "outfits"
    embedding_defaults = {"method": TYPE_AWARE, "epochs": 5, "evaluate_every": 1, "lr": 5e-5}

    dataset: Literal["wardrobe", "polyvore"] = "wardrobe"
    # disjoint has no resampled questions
    outfits_split: Literal["nondisjoint", "disjoint"] = "nondisjoint"
    support_dropout: float = 0.15  # of the graph's nodes, then of its edges
    message_share: float = 0.5  # of the training edges: shown to the graph encoder, not learned
    triplets: int = 0  # of an epoch of "type_aware"; 0: one for every two items worn together
    neighbours: int = 1  # K, edges in sight of each item asked about; 0 and 1 are measured too

    def __post_init__(self):
        super().__post_init__()
        one_of("method", self.method, (*HEADS, "cosine", TYPE_AWARE))
        share(support_dropout=self.support_dropout, message_share=self.message_share)
        at_least(0, neighbours=self.neighbours, triplets=self.triplets)
        different = "what goes well together need not be alike"
        reasons = {"hard_negatives": different, "cosine_weight": different}
        reasons |= {"end_to_end": "what graph encoders see are other items too"}
        reasons |= {"pairs": "a step learns from all edges"}
        for name, why in reasons.items():
            if value := getattr(self, name):
                raise ValueError(f"{name} is {value}: {why}, so outfits take 0 alone")


class OutfitMatching(PairExperiment):
    """Attributes:
    outfits: items, outfits of them, and questions; `pixels` the items' images, in the same order.
    features: (I, d) of the network below, standardised by the training items', on the device.
    training_items: (T,) long; `edges` (E, 2) positions in it of those that share an outfit."""

    Parameters = Parameters
    monitor = "validation"
    saved_file = "scores.safetensors"
    validation_data = "validation outfits"
    alike = ("encoder", "neighbours", *PairExperiment.alike)
    rival = {"method": "multitask"}

    def prepare(self) -> None:
        p, self.contexts_built = self.parameters, {}
        self.outfits = data = self.readable(self.load_outfits())
        for part in (VALIDATION, "test"):
            data.blanks[part], data.compatibility[part]  # what is missing says so itself
        if p.method in learned.WITH_ATTRIBUTES:
            polyvore.require_attributes(data)
        self.data = data.fingerprint
        progress = counter("images decoded", p.progress)
        self.pixels = PixelCache.open(data.paths, p.resize, progress=progress)
        items = sorted({item for outfit in data.outfits["train"] for item in outfit})
        place = {item: row for row, item in enumerate(items)}
        self.training_items = torch.tensor(items)
        if data.attributes is not None:
            known = data.attributes[self.training_items]
            kept, self.constant = learned.varying(known, data.attribute_names, data.name)
            names = [data.attribute_names[i] for i in kept.tolist()]
            options = {"attributes": data.attributes[:, kept], "attribute_names": names}
            self.outfits = data = dataclasses.replace(data, **options)
        self.edges = outfit_edges([[place[i] for i in o] for o in data.outfits["train"]])
        self.create_embedder(self.data)
        if p.method == TYPE_AWARE:
            self.prepare_types()
            return
        features = self.features_of(self.pixels)
        self.method = self.create_network(features.shape[1], data.attributes)
        self.network.standardise.fit(features[self.training_items])
        self.method.to(self.device)
        self.features = self.network.standardise(features.to(self.device))
        if self.learns:
            self.stream = self._stream()

    def prepare_types(self) -> None:
        """The type-aware network, its triplets, and what its items are scored by."""
        p, data = self.parameters, self.outfits
        self.types = types_of(data)
        torch.manual_seed(p.seed)
        self.method = self.network = TypeAware(self.embedder.backbone, 1 + int(self.types.max()))
        options = {"edges": self.training_items[self.edges], "types": self.types}
        options |= {"triplets": p.triplets}
        self.stream = self.training_stream(OutfitTriplets, self.pixels, self.types, **options)
        self.features = torch.zeros(len(data), self.network.project.out_features + 1)
        self.features[:, -1] = self.types

    def renew(self, parts: Sequence[str]) -> None:
        """Embed the items of some parts' questions anew, where the network is trained on images."""
        if self.parameters.method != TYPE_AWARE:
            return
        asked = {
            item for part in parts for q in self.outfits.compatibility[part] for item in q.items
        }
        blanks = [q for part in parts for q in self.outfits.blanks[part]]
        asked |= {item for q in blanks for item in (*q.question, *q.choices)}
        rows, method = torch.tensor(sorted(asked)), Unscaled(self.method)
        options = {"device": self.device, "batch_size": self.parameters.batch_size}
        found = embed_all(method, self.pixels.subset(rows), self.test_views, **options)
        self.features = self.features.cpu()
        self.features[rows, :-1] = found
        self.features = self.features.to(self.device)

    @classmethod
    def load(cls, folder: Path, result: dict, device: str = "auto") -> Method:
        p = reading.parse(cls.Parameters, result["parameters"])
        if p.method != TYPE_AWARE:
            return super().load(folder, result, device)
        state, chosen = load_checkpoint(measured_file(p, folder)), choose_device(device)
        method = TypeAware(backbone_of(p, "none"), len(state["method"]["masks"]))
        restore(method, state)
        return method.to(chosen).eval()

    def load_outfits(self) -> polyvore.Outfits:
        p = self.parameters
        progress = counter("images drawn", p.progress)
        root = p.root or catalog.generate(p.dataset, p.generated, progress)
        options = {"name": p.dataset, "absent": self.leaves_out}
        return polyvore.load(Path(root).expanduser(), p.outfits_split, **options)

    def readable(self, outfits: polyvore.Outfits) -> polyvore.Outfits:
        """Without the items that cannot be read, and what needs them, where that is asked for."""
        p = self.parameters
        if not self.leaves_out:
            return outfits
        progress = counter("images checked", p.progress)
        faults = find_unreadable(outfits.paths, p.resize, progress=progress)
        if not faults:
            return outfits
        left = outfits.without(list(faults))
        self.left_out = {"items": len(faults)}
        for field in ("outfits", "compatibility", "blanks"):
            before, after = getattr(outfits, field), getattr(left, field)
            self.left_out |= {
                f"{field} {part}": len(before[part]) - len(after[part]) for part in before
            }
        counts = ", ".join(f"{n:,} {name}" for name, n in self.left_out.items() if n)
        why = f"left out, for images cannot be read: {counts}; first {next(iter(faults.values()))}"
        warnings.warn(f"{outfits.name}: {why}", stacklevel=2)
        return left

    def _stream(self) -> learned.PairStream:
        """`message_share` of the edges, drawn once, are what a graph encoder sees and what is not
        learned from; other encoders learn from all edges."""
        p, nodes = self.parameters, len(self.training_items)
        shown = p.message_share if self.network.sees_graph else 0.0
        messages, targets = split_edges(self.edges, seeded(p.seed, 30), shown)
        if not len(targets):
            problem = f"{len(self.edges)} edges, a share of {p.message_share} of which are shown, "
            raise ValueError(problem + "leave none to learn from")
        pairs = pairs_from_edges(targets, nodes, seeded(p.seed, 31), known=messages)
        graph = Graph.of(messages.to(self.device), nodes) if self.network.sees_graph else None
        attributes = self.outfits.attributes
        return self.pair_stream(
            self.features[self.training_items.to(self.device)],
            lambda epoch: pairs,
            None if attributes is None else attributes[self.training_items],
            32,
            graph=graph,
            support_dropout=p.support_dropout,
        )

    def images(self, items) -> Tensor:
        """Normalised test views of items, (B, 3, size, size), on the device."""
        return self.pictures(self.pixels, items)

    def validate(self) -> dict[str, float]:
        """Accuracy and AUC on the validation outfits at the K of `neighbours`, and their mean, by
        which weights are chosen. NOTE the official code chooses by the accuracy on pairs of the
        validation graph."""
        self.renew([VALIDATION])
        choices, scores = self.answer(VALIDATION, self.parameters.neighbours)
        fitb = fill_in_blank_hits(choices, self.right_choices(VALIDATION)).mean().item()
        auc = area_under_curve(scores, self.outfit_labels(VALIDATION))
        return {"fitb": fitb, "auc": auc, "validation": (fitb + auc) / 2}

    def evaluate(self) -> Scores:
        saved, shown, data = {}, self.parameters.neighbours, self.outfits
        there = [part for part in TESTS if part in data.blanks and part in data.compatibility]
        self.renew(there)
        for part in there:
            for k in sorted({0, 1, shown}):
                saved[f"choices/{part}/{k}"], saved[f"outfits/{part}/{k}"] = self.answer(part, k)
            choices, outfits = self.degree_answers(part)
            saved |= {f"choices/{part}/{DEGREE}": choices, f"outfits/{part}/{DEGREE}": outfits}
            saved[f"right/{part}"] = torch.tensor(self.right_choices(part))
            saved[f"true/{part}"] = self.outfit_labels(part)
        return self.measure(saved, {"neighbours": shown})

    @classmethod
    def measure(cls, saved: Mapping[str, Tensor], parameters: Mapping) -> Scores:
        """Metrics: "fitb", the share of blanks filled rightly, a tie counting what a random choice
        among the best would win, and "auc" of true outfits against made-up ones, both with K edges
        in sight, the parameter `neighbours`; "fitb_resampled" and "auc_resampled" on the harder
        questions, where there are any; the same again with "_k0" and "_k1"; and with "_degree" what
        an item's number of visible edges says by itself at K = 1, fewer being better: the edges of
        a true outfit are hidden, while items of a made-up one keep those of the outfits they are
        from."""
        values, others, own = {}, {}, {}
        for name, scores in sorted(saved.items()):
            kind, part, *k = name.split("/")
            if not k:
                continue
            endings = ["_degree"] if int(k[0]) == DEGREE else [f"_k{k[0]}"]
            endings += [""] * (int(k[0]) == parameters["neighbours"])
            for ending in (TESTS[part] + e for e in endings):
                if kind == "choices":
                    values[f"fitb{ending}"] = fill_in_blank_hits(scores, saved[f"right/{part}"])
                else:
                    truth = saved[f"true/{part}"]
                    others[f"auc{ending}"] = area_under_curve(scores, truth)
                    own[f"auc{ending}"] = partial(scoring.auc_interval, scores, truth)
        there = [ending for ending in TESTS.values() if f"fitb{ending}" in values]
        reported = [f"{name}{ending}" for name in ("fitb", "auc") for ending in there]
        asked = [v.flatten() for n, v in sorted(saved.items()) if n.count("/") == 1]
        queries = len(saved["right/test"]) + len(saved["true/test"])
        options = {"own_intervals": own, "reported": reported, "saved": dict(saved)}
        return Scores(values, others, torch.cat(asked), queries, **options)

    def answer(self, part: str, k: int) -> tuple[Tensor, Tensor]:
        """Scores of a part's choices (Q, C) and outfits (O,), with k edges in sight."""
        blanks, outfits = self.contexts(part, k if self.network.sees_graph else 0)
        self.network.eval()
        with torch.no_grad():
            rows, given, choices = self.network.encode_contexts(self.features, blanks)
            filled = scoring.choice_scores(given, choices, self._score(rows))
            rows, given, _ = self.network.encode_contexts(self.features, outfits)
            return filled, scoring.outfit_scores(given, self._score(rows))

    def _score(self, rows: Tensor):
        return lambda i, j: self.network.score(rows[i], rows[j]).cpu()

    def contexts(self, part: str, k: int) -> tuple[list[Context], list[Context]]:
        """What a graph encoder may see for each blank and each outfit of a part; built once."""
        built = self.contexts_built
        if (part, k) not in built:
            graph, data = self.graph_of(part), self.outfits
            blanks = [(q.question, q.choices) for q in data.blanks[part]]
            built[part, k] = (
                [graphs.question_context(graph, *blank, k) for blank in blanks],
                [graphs.outfit_context(graph, q.items, k) for q in data.compatibility[part]],
            )
        return built[part, k]

    def graph_of(self, part: str) -> graphs.Neighbours:
        """The graph of the part's own outfits, over all items."""
        edges = outfit_edges(self.outfits.outfits[part.split()[0]])
        return Graph.of(edges, len(self.outfits)).neighbours()

    def degree_answers(self, part: str) -> tuple[Tensor, Tensor]:
        """Scores as of `answer`, of nothing but the visible edges at K = 1: minus their number."""
        blanks, outfits = self.contexts(part, 1)

        def edges_at(context: Context, rows: list[int]) -> list[float]:
            edges = {tuple(sorted(edge)) for edge in context.edges}
            ends = Counter(end for edge in edges for end in edge)
            return [-float(ends[row]) for row in rows]

        means = [np.mean(edges_at(context, context.outfit)) for context in outfits]
        choices = [edges_at(context, context.choices) for context in blanks]
        return torch.tensor(choices), torch.tensor(means)

    def right_choices(self, part: str) -> list[int]:
        return [question.answer for question in self.outfits.blanks[part]]

    def outfit_labels(self, part: str) -> Tensor:
        """1 for outfits that somebody has put together, 0 for made-up ones: (O,) long."""
        return torch.tensor([question.label for question in self.outfits.compatibility[part]])

    def counts(self) -> Sequence[int]:
        """Here a class is an outfit, of things that go together."""
        data = self.outfits
        questions = len(data.blanks["test"]) + len(data.compatibility["test"])
        worn = len({item for outfit in data.outfits["test"] for item in outfit})
        outfits = (len(data.outfits[part]) for part in ("test", "train"))
        return len(self.training_items), questions, worn, *outfits

    @property
    def attribute_names(self) -> list[str]:
        return self.outfits.attribute_names or []

    @property
    def name(self) -> str:
        """The method, with the graph encoder's "-GE" of the paper's tables."""
        p = self.parameters
        graph = p.encoder == "graph" and p.method not in ("cosine", TYPE_AWARE)
        return f"{p.method}-GE" if graph else p.method


def types_of(outfits: polyvore.Outfits) -> Tensor:
    """The type of each item, (I,) long: its category, all without one being of one type. ValueError
    where no item has a category."""
    if not outfits.categories or not any(outfits.categories):
        needed = "type_aware needs the items' categories, and there are none"
        raise ValueError(f"{outfits.name}: {needed}: add polyvore_item_metadata.json")
    names = sorted({str(name) for name in outfits.categories})
    return torch.tensor([names.index(str(name)) for name in outfits.categories])


@dataclasses.dataclass(eq=False, repr=False, kw_only=True)
class OutfitTriplets(TripletStream):
    """Items, `positives` that they are worn with, `negatives` of the positive's type that they are
    not worn with, drawn uniformly, and the `types` (b, 2) of the first two. An epoch goes through
    all edges in random order, each in either direction, or through so many of them."""

    edges: Tensor  # (E, 2) positions of items worn together
    types: Tensor  # (I,) long, of all items

    def pairs(self) -> Tensor:
        self.worn = pair_numbers(self.edges).unique()
        items = self.edges.unique()
        # Items type by type, how many of each there are, and where each begins.
        self.sorted, self.counts = items[self.types[items].argsort()], self.types[items].bincount()
        self.first = self.counts.cumsum(0) - self.counts
        return self.edges

    def negatives(self, pairs: Tensor, generator: torch.Generator) -> Tensor:
        random = torch.rand(len(pairs), TRIES, generator=generator, dtype=torch.float64)
        kind = self.types[pairs[:, 1]][:, None]
        drawn = self.sorted[self.first[kind] + (random * self.counts[kind]).long()]
        item = pairs[:, :1].expand_as(drawn)
        ends = torch.stack([item, drawn], dim=-1).flatten(0, 1)
        free = ~torch.isin(pair_numbers(ends), self.worn).view_as(drawn)
        free &= drawn != item
        best = free.int().argmax(1, keepdim=True)  # the first that is free, else the first
        return drawn.gather(1, best)[:, 0]

    def arguments(self, pictures: Tensor) -> dict[str, Tensor]:
        return super().arguments(pictures) | {"types": self.types[pictures[:, :2]].to(self.device)}


if __name__ == "__main__":
    run_as_module(OutfitMatching)
