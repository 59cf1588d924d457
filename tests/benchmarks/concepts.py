"""Why PAN falls below what learns nothing, what mends it, and whether concepts mean their names:

    python tests/benchmarks/concepts.py SHARED_DATA OUT [--rows NAME ...] [--seeds 0 1 2] [--twins]

Heads on frozen features, the data drawn or CUB-200-2011's first 50 classes. Finished runs are not
run again, others resume; seconds to a minute each, once features are in the cache. With --twins the
concepts that the rows "concepts: ..." have learnt are asked about pictures of which one colour at a
time is exchanged."""

import argparse
import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from fieldmarks import load_run
from fieldmarks.evaluation.explanations import named
from fieldmarks.evaluation.outfits import area_under_curve, areas_under_curves
from fieldmarks.evaluation.statistics import seed_interval
from fieldmarks.experiments import explanations
from fieldmarks.experiments.fewshot import FewShot
from fieldmarks.experiments.inshop import InShop
from fieldmarks.experiments.pairs import score_pairs
from fieldmarks.experiments.result import read_result
from fieldmarks.files import atomic
from fieldmarks.memory import keep_freed_memory
from fieldmarks.methods.attribute_baselines import AttributeSimilarityHead
from fieldmarks.methods.pairs import with_hard_negatives
from fieldmarks.methods.pan import pair_labels
from fieldmarks.random import seeded

PLAIN, HALF, COSINE = (
    {"method": "pan_unsupervised"},
    {"hard_negatives": 0.5},
    {"cosine_weight": 13.0},
)
FREE = {
    "as printed": {},
    "one concept, no relevance": {"method": "plain"},
    "10 concepts": {"free": 10},
    "relevance uniform": {"change": "uniform"},
    "concepts that only fall with |a - b|": {"change": "falling"},
    "encoded items of one length": {"change": "one_length"},
    "hard negatives by the cosine": HALF | {"change": "by_cosine"},
    "hard negatives": HALF,
    "cosine": COSINE,
    "cosine of the encoded items": COSINE | {"change": "of_encoded"},
    "cosine, weight 5": {"cosine_weight": 5.0},
    "cosine, weight 30": {"cosine_weight": 30.0},
    "cosine and hard negatives": COSINE | HALF,
}
LEFT_OUT = ("relevance uniform", "hard negatives by the cosine", "cosine of the encoded items")
PARTS = {"in-shop": (), "cub": LEFT_OUT}
ROWS = {f"{data}: {name}": PLAIN | row for data, left in PARTS.items()
        for name, row in FREE.items() if name not in left}  # fmt: skip
ROWS["cub: features of one length, not standardised"] = PLAIN | {"change": "unstandardised"}
ROWS |= {f"fieldguide: {name}": PLAIN | FREE[name]
         for name in ("as printed", "hard negatives", "cosine")}  # fmt: skip
ROWS |= {f"in-shop, supervised: {name}": FREE[name] | {"method": "pan_supervised"}
         for name in ("as printed", "cosine", "hard negatives")}  # fmt: skip
# The curve over base classes, of which there are 25.
ROWS |= {f"cub, {count} classes: {name}": PLAIN | FREE[name] | {"base": count}
         for count in (6, 12)
         for name in ("as printed", "cosine", "cosine and hard negatives")}  # fmt: skip
NAMED = {f"lambda {weight:g}": {"attribute_weight": weight}
         for weight in (1e-5, 1e-3, 0.1, 1.0, 10.0, 100.0)}  # fmt: skip
NAMED |= {
    "lambda 10, eta 0.01": {"attribute_weight": 10.0, "relevance_weight": 0.01},
    "lambda 10, eta 0.03": {"attribute_weight": 10.0, "relevance_weight": 0.03},
    "lambda 10, eta 0.1": {"attribute_weight": 10.0, "relevance_weight": 0.1},
    "lambda 10, concepts learn attributes alone": {"attribute_weight": 10.0, "change": "detached"},
    "lambda 10, rule xor": {"attribute_weight": 10.0, "rule": "xor"},
    "of each picture, then or": {"method": "attribute_similarity", "attribute_weight": 10.0},
    "lambda 10, eta 0.1, cosine": COSINE | {"attribute_weight": 10.0, "relevance_weight": 0.1},
}  # fmt: skip
ROWS |= {f"concepts: {name}": {"method": "pan_supervised"} | row for name, row in NAMED.items()}
SHORT = {"epochs": 60, "progress": "none"}
FEW = SHORT | {"pairs": 1500, "evaluate_every": 20}
SHOWN = ("recall@1", "recall@1_rerank", "accuracy", "accuracy_validation", "concept_auc")


# ---- what is changed in a network to find the cause; what mends it is an option of the library


class Falling(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return -weight.abs()


class OneLength(nn.Module):
    def forward(self, items: Tensor) -> Tensor:
        return F.normalize(items, dim=-1) * items.shape[-1] ** 0.5


def falling(experiment, network) -> None:
    parametrize.register_parametrization(network.head.similarity.concept, "weight", Falling())


def one_length(experiment, network) -> None:
    network.encoder = nn.Sequential(network.encoder, OneLength())


def of_encoded(experiment, network) -> None:
    encoder, similarity = network.encoder, network.head.similarity
    similarity.cosine_dim = encoder.out_features
    beside = lambda items: torch.cat([items, F.normalize(items, dim=-1)], dim=-1)
    network.encode = lambda features, *support: beside(encoder(features))


def uniform(experiment, network) -> None:
    for parameter in network.head.similarity.relevance.parameters():
        nn.init.zeros_(parameter.requires_grad_(False))


def unstandardised(experiment, network) -> None:
    network.standardise.forward = OneLength().forward


def detached(experiment, network) -> None:
    """The loss of the pair's similarity reaches relevance alone: concepts learn attributes only."""
    similarity = network.head.similarity
    plain, losses = similarity.logits, network.head.losses

    def of_pair(a, b, same, *known):
        concepts, relevance = plain(a, b)
        similarity.logits = lambda a, b: (concepts.detach(), plain(a.detach(), b.detach())[1])
        terms = losses(a, b, same, *known)
        similarity.logits = lambda a, b: (concepts, relevance)
        terms["attributes"] = losses(a, b, same, *known)["attributes"]
        del similarity.logits
        return terms

    network.head.losses = of_pair


def by_cosine(experiment, network) -> None:
    def with_hard(pairs_, same, features, labels, epoch):
        unit, p = F.normalize(features, dim=1), experiment.parameters
        score = lambda drawn: (unit[drawn[:, 0]] * unit[drawn[:, 1]]).sum(1)
        share, generator = p.hard_negatives, seeded(p.seed, 22, epoch)
        return with_hard_negatives(pairs_, same, labels, score, share, generator)

    experiment.with_hard = with_hard


CHANGES = (falling, one_length, of_encoded, uniform, unstandardised, detached, by_cosine)


def changed(kind: type, change: Callable | None, base: int) -> type:
    if not change and not base:
        return kind

    class Changed(kind):
        def split(self):
            """With the first so many base classes alone; 0: all."""
            learnt, *others = super().split()
            if not base:
                return [learnt, *others]
            return [learnt.subset(learnt.labels <= learnt.labels.unique()[base - 1]), *others]

        def create_network(self, *sizes):
            network = super().create_network(*sizes)
            if change:
                change(self, network)
            return network

    return Changed


# ---- what is looked at in a trained network


@torch.no_grad()
def tail(experiment: InShop, scores) -> dict[str, float]:
    """Where in the order by cosine the first ranks that are wrong lie, and the relevance of pairs
    by how far apart they are."""
    queries, gallery = (i.to(experiment.device) for i in (experiment.queries, experiment.gallery))
    embeddings = experiment.test_embeddings
    places = F.normalize(embeddings[queries], dim=1) @ F.normalize(embeddings[gallery], dim=1).T
    places = places.argsort(dim=1, descending=True).argsort(dim=1)
    first = scores.saved["index"][:, 0].long()
    labels = experiment.test_set.labels
    wrong = labels[experiment.gallery[first]] != labels[experiment.queries]
    place = places.gather(1, first[:, None])[:, 0][wrong].double()
    found = {"wrong: median place": place.median().item()}
    found["wrong: beyond 100"] = (place >= 100).double().mean().item()
    head, encoded = experiment.method.head, experiment.method.encode(embeddings)
    pairs = torch.cartesian_prod(queries, gallery)
    p = score_pairs(experiment.method.score, encoded, pairs).view(places.shape).double()
    same = labels[experiment.queries][:, None] == labels[experiment.gallery]
    found["right: median log odds"] = p[same].median().logit().item()
    for low, high in ((0, 5), (20, 50), (100, 200), (400, 600)):
        band = p[(low <= places) & (places < high) & ~same]
        found[f"wrong, place {low} to {high}: mean p"] = band.mean().item()
        found[f"wrong, place {low} to {high}: largest log odds"] = band.max().logit().item()
    if hasattr(head.similarity, "relevance"):
        for name, low, high in (("near", 0, 20), ("far", 400, 600)):
            q, g = ((low <= places) & (places < high)).nonzero()[::50].T
            a, b = encoded[queries[q]], encoded[gallery[g]]
            found[f"entropy {name}"] = entropy(head(a, b)[2]).mean().item()
        found["weights above 0"] = (head.similarity.concept.weight > 0).double().mean().item()
    return found


@torch.no_grad()
def meaning(experiment: FewShot, scores) -> dict:
    """Where the relevance is, and what the concept that has most of it means. Of a head that knows
    attributes of single pictures: how well these, put together, rank pairs."""
    positions, head = experiment.concept_pairs(), experiment.method.head
    labels, encoded = (
        experiment.novel.images.labels,
        experiment.method.encode(experiment.novel.features),
    )
    if isinstance(head, AttributeSimilarityHead):
        known = (experiment.novel.images.attributes[i] for i in positions.T)
        a, b = (head.classifier(encoded[i]).sigmoid() for i in positions.T)
        areas = areas_under_curves(a + b - a * b, pair_labels(*known, "or"))
        return {"AUC": areas.nanmean().item(), "areas": as_list(areas)}
    _, concepts, relevance = head(*(encoded[i] for i in positions.T))
    mean, areas = (
        relevance.mean(0),
        areas_under_curves(scores.saved["concepts"], scores.saved["concept_targets"]),
    )
    most, known = int(mean.argmax()), ~areas.isnan()
    same = labels[positions[:, 0]] == labels[positions[:, 1]]
    return {
        "entropy": entropy(relevance).mean().item(),
        "share of the most relevant of a pair": relevance.amax(1).mean().item(),
        "most relevant": experiment.attribute_names[most],
        "its share": mean[most].item(),
        "its AUC": areas[most].item() if known[most] else None,
        "its AUC of one class": area_under_curve(concepts[:, most], same),
        "AUC by relevance": ((areas * mean)[known].sum() / mean[known].sum()).item(),
        "areas": as_list(areas),
    }


def as_list(areas: Tensor) -> list[float | None]:
    return [None if area.isnan() else round(area.item(), 4) for area in areas]


def entropy(relevance: Tensor) -> Tensor:
    return torch.special.entr(relevance).sum(-1)


# ---- twins


@torch.no_grad()
def of_twins(folders: Sequence[Path], size: int = 192, pictures: int = 60) -> dict[Path, dict]:
    """Of each run: how often the exchanged mark is among the first five concepts by how much they
    change, by score and by contribution. (query, match) against (query, twin of the match), and
    (match, match) against (match, its twin). All runs have one frozen backbone."""
    given = {"pictures": pictures, "size": size, "progress": "none", "run": str(folders[0])}
    asked = explanations.Explanations(explanations.Parameters(**given))
    drawn, exchanges = asked.drawn
    embed = lambda images: asked.method.embedder.embed(asked.views(images)).float()
    rows = [embed(torch.stack([q, m, *o])) for q, m, o in zip(*drawn[:3], strict=True)]
    found = {}
    for folder in folders:
        method = load_run(folder)
        network, names = method.network, {n: i for i, n in enumerate(method.attribute_names)}
        ranks: dict[str, list[float]] = {}
        lots = []
        for row, parts in zip(rows, exchanges, strict=True):
            items = network.encode(network.standardise(method.scaled(row)))
            query, match, twins = items[:1], items[1:2], items[2:]
            flags = torch.zeros(len(parts), len(names), dtype=torch.bool)
            for flag, each in zip(flags, parts, strict=True):
                values = (f"has_{each.mark}::{value}" for value in (each.value, each.other_value))
                flag[[names[name] for name in values if name in names]] = True
            lots += [1 - (1 - 5 / len(names)) ** int(n) for n in flags.sum(1) if n]
            for kind, a in (("query", query), ("match", match)):
                sides = [network.head(a.expand_as(b), b) for b in (match.expand_as(twins), twins)]
                for what, of_pair in (
                    ("score", lambda p: p[1]), ("contribution", lambda p: p[1] * p[2])
                ):  # fmt: skip
                    before, after = (of_pair(side)[:, : len(names)] for side in sides)
                    rank = named(before, after, flags)
                    ranks.setdefault(f"{kind}, {what}", []).extend(rank[~rank.isnan()].tolist())
        found[folder] = {"by lot": sum(lots) / len(lots)}
        for kind, of_kind in ranks.items():
            values = torch.tensor(of_kind)
            found[folder][f"{kind}: first five"] = (values <= 5).double().mean().item()
            found[folder][f"{kind}: median rank"] = values.median().item()
    return found


# ---- running


def run(name: str, row: dict, seed: int, shared: Path, out: Path) -> None:
    data, values = name.partition(":")[0], dict(row)
    change, base = values.pop("change", None), values.pop("base", 0)
    change = next((each for each in CHANGES if each.__name__ == change), None)
    values |= {"seed": seed, "out": str(out)}
    if data.startswith("in-shop"):
        kind, look = InShop, tail
        values |= SHORT | {"size": 128, "resize": 128}
    else:
        kind, look = FewShot, meaning if data == "concepts" else None
        values |= FEW
        if data.startswith("cub"):
            root = str((shared / "CUB_200_2011").resolve())
            values |= {"dataset": "cub", "root": root, "size": 224, "resize": 256}
    experiment = changed(kind, change, base)(kind.Parameters(**values))
    history = experiment.train()
    scores = experiment.evaluate()
    if look:
        with atomic(out / "looked.json") as unfinished:
            unfinished.write_text(json.dumps(look(experiment, scores)))
    experiment.finish(history, scores)


def line(values: Sequence[float], percent: bool = True) -> str:
    mean, low, high = (value * (100 if percent else 1) for value in seed_interval(values))
    return f"{mean:.1f} [{low:.1f}, {high:.1f}]" if len(values) > 1 else f"{mean:.1f}"


def table(name: str, folders: Sequence[Path], baseline: Sequence[Path]) -> str:
    found, cells = [read_result(folder) for folder in folders], []
    for metric in SHOWN:
        if metric in found[0]["metrics"]:
            values = [each["metrics"][metric] for each in found]
            cells.append(f"{metric} {line(values)}")
            first = [read_result(folder) for folder in baseline]
            if len(values) > 1 and len(first) == len(found) and metric in first[0]["metrics"]:
                apart = [v - f["metrics"][metric] for v, f in zip(values, first, strict=True)]
                cells[-1] += f" ({line(apart)})" * (folders != baseline)
    looked = [
        json.loads(f.read_text()) for folder in folders if (f := folder / "looked.json").is_file()
    ]
    for key, value in (looked[0] if looked else {}).items():
        of_seeds = [each[key] for each in looked]
        if isinstance(value, float) and None not in of_seeds:
            cells.append(f"{key} {sum(of_seeds) / len(of_seeds):.3f}")
        elif key != "areas":
            cells.append(f"{key} {of_seeds}")
    return " | ".join([name, *cells])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shared", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--rows", nargs="*", default=list(ROWS), help="names or their beginnings")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--twins", action="store_true", help="of the runs that are there")
    given = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(1)
    chosen = [name for name in ROWS if name.startswith(tuple(given.rows))]
    plain = lambda name: "".join(c if c.isalnum() else "-" for c in name)
    folder = lambda name, seed: given.out / f"{plain(name)}-{seed}"
    if not given.twins:
        for seed, name in itertools.product(given.seeds, chosen):
            if not read_result(folder(name, seed)):
                run(name, ROWS[name], seed, given.shared, folder(name, seed))
                print(table(f"{name}, seed {seed}", [folder(name, seed)], []), flush=True)
    there = {
        name: [f for seed in given.seeds if read_result(f := folder(name, seed))] for name in chosen
    }
    there = {name: folders for name, folders in there.items() if folders}
    if given.twins:
        there = {n: f for n, f in there.items() if n.startswith("concepts")}
    for name, folders in there.items():
        part = name.partition(":")[0]
        first = "concepts: lambda 1e-05" if part == "concepts" else f"{part}: as printed"
        print(table(name, folders, there.get(first, [])))
    if given.twins:  # of networks that are the library's own
        own = lambda row: "change" not in row and row["method"] == "pan_supervised"
        asked = {name: folders for name, folders in there.items() if own(ROWS[name])}
        found = of_twins([folder for folders in asked.values() for folder in folders])
        for name, folders in asked.items():
            keys = found[folders[0]]
            means = [sum(found[folder][key] for folder in folders) / len(folders) for key in keys]
            cells = [f"{key} {mean:.3f}" for key, mean in zip(keys, means, strict=True)]
            print(name, len(folders), *cells, sep=" | ")


if __name__ == "__main__":
    main()
