"""In-shop retrieval by pairwise similarity: find other pictures of the same item.

PAN on given embeddings, against its baselines: learned on pairs of pictures of training items, it
ranks the whole gallery for each query, exactly. The embeddings are frozen at first, then trained
with it (`end_to_end`). Source: Mishra et al. 2021, Sec. 3 and Table 3.
NOTE the paper published no code for this data set; it does not tell lambda, nor how pairs are
drawn, nor how long the head is trained. The paper's settings: labs/pan/table3.yaml."""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from fieldmarks.checks import at_least, one_of
from fieldmarks.data.imageset import ImageSet
from fieldmarks.data.layouts import inshop as layout
from fieldmarks.data.pixels import PixelCache
from fieldmarks.evaluation.pair_scores import rerank, top_scores
from fieldmarks.evaluation.recall import nearest
from fieldmarks.evaluation.results import RetrievalResults
from fieldmarks.evaluation.statistics import paired_bootstrap
from fieldmarks.experiments import pairs as learned
from fieldmarks.experiments.experiment import run_as_module
from fieldmarks.experiments.open_set import check_ks
from fieldmarks.experiments.pairs import HEADS, EndToEndParameters, PairExperiment
from fieldmarks.experiments.parameters import composed_of
from fieldmarks.experiments.scores import NEIGHBOURS, Scores
from fieldmarks.methods.method import Method
from fieldmarks.methods.pairs import pairs_from_labels
from fieldmarks.random import seeded

COSINE = "cosine"
ENDINGS = ("", "_rerank", "_cosine")  # of metrics
VALIDATION_SEED = 44  # the same items for every method and seed


@composed_of(epochs=60, evaluate_every=10, rule="xnor", attribute_weight=0.1, dataset="wardrobe")
class Parameters(EndToEndParameters):
    """As `EndToEndParameters`, and:"""

    kind = "inshop"

    dataset: Literal["wardrobe", "inshop"] = "wardrobe"
    validation: float = 0.2  # share of the training items held out to choose the best epoch by
    ks: tuple[int, ...] = (1, 10, 20)  # the Ks of Recall@K
    rerank: int = 100  # nearest by cosine that the cheap way scores anew; 0: leave it out

    def __post_init__(self):
        super().__post_init__()
        one_of("method", self.method, (*HEADS, COSINE))
        one_of("encoder", self.encoder, ("linear", "none"))
        if not 0 < self.validation < 1:
            raise ValueError(f"validation is {self.validation}: it is a share, above 0 and below 1")
        check_ks(self.ks)
        at_least(0, rerank=self.rerank)
        if 0 < self.rerank < max(self.ks):
            problem = f"rerank is {self.rerank} and ks go up to {max(self.ks)}: "
            raise ValueError(problem + "score as many anew at least, or none (0)")


class InShop(PairExperiment):
    """In-shop retrieval.

    Attributes:
        train_set, test_set: image sets; `*_pixels` and `*_embeddings` (N, D) in the same order.
            Embeddings have the length sqrt(D), so that their entries are about 1.
        learned: positions in the training set to learn from; held_out: queries and their gallery.
        queries, gallery: positions in the test set.
    """

    Parameters = Parameters
    monitor = "recall@1"
    saved_file = "rankings.safetensors"
    validation_data = "held-out training items"

    def prepare(self) -> None:
        p = self.parameters
        self.train_set, self.test_set = sets = self.split()
        self.queries, self.gallery = self.test_set.query_gallery() or ((), ())
        labels = self.train_set.labels
        self.learned, self.held_out = hold_out_items(labels, p.validation)
        self.create_embedder(self.train_set.fingerprint)
        self.train_pixels, self.test_pixels = self.use(*sets)
        features = map(self.features_of, (self.train_pixels, self.test_pixels))
        self.train_embeddings, self.test_embeddings = map(self.scaled, features)
        self.method = self.create_network(self.train_embeddings.shape[1], self.train_set.attributes)
        if self.learns:
            attributes = self.train_set.attributes
            self.stream = self.pair_stream(
                self.train_embeddings[self.learned.to(self.device)],
                self.training_pairs,
                None if attributes is None else attributes[self.learned],
            )

    def split(self) -> Sequence[ImageSet]:
        """Training items, and the others with their queries and gallery."""
        images = self.load_images()
        if self.parameters.method in learned.WITH_ATTRIBUTES:
            layout.require_attributes(images)
        train, test = images.open_split()
        if test.query_gallery() is None:
            problem = f"{self.parameters.dataset}: the test items have no queries or no gallery: "
            raise ValueError(problem + "give the whole of list_eval_partition.txt")
        if images.attributes is None:
            return train, test
        learning = train.attributes[hold_out_items(train.labels, self.parameters.validation)[0]]
        known = learning, images.attribute_names
        kept, self.constant = learned.varying(*known, images.name)
        return train.with_attributes(kept), test.with_attributes(kept)

    def learned_images(self) -> tuple[PixelCache, Tensor, Tensor | None]:
        rows, images = self.learned, self.train_set
        attributes = None if images.attributes is None else images.attributes[rows]
        return self.train_pixels.subset(rows), images.labels[rows], attributes

    @staticmethod
    def embedding_of(method: Method) -> Method:
        return method

    @staticmethod
    def scaled(features: Tensor) -> Tensor:
        """Embeddings (..., D) brought to the length sqrt(D)."""
        return F.normalize(features, dim=-1) * features.shape[-1] ** 0.5

    def training_pairs(self, epoch: int) -> tuple[Tensor, Tensor]:
        """The pairs of an epoch, drawn anew for each: (2 P, 2) positions and (2 P,) 1. or 0."""
        p, labels = self.parameters, self.train_set.labels[self.learned]
        count = p.pairs or learned.positive_pairs(labels)
        drawn = pairs_from_labels(labels, count, seeded(p.seed, 21, epoch))
        features = self.train_embeddings[self.learned.to(self.device)]
        return self.with_hard(*drawn, features, labels, epoch)

    def test_images(self, index) -> Tensor:
        """Normalised test views of test images, (B, 3, size, size), on the device."""
        return self.pictures(self.test_pixels, index)

    def validate(self) -> dict[str, float]:
        queries, gallery = self.held_out
        labels = self.train_set.labels
        if self.whole:
            held = torch.cat(self.held_out)
            renewed = self.scaled(self.features_of(self.train_pixels.subset(held)))
            self.train_embeddings[held.to(self.device)] = renewed
        asking, searched = (self.train_embeddings[i.to(self.device)] for i in self.held_out)
        found = rank(self.network, asking, searched, 1)[1]
        hits = labels[gallery[found[:, 0]]] == labels[queries]
        return {"recall@1": hits.double().mean().item()}

    def evaluate(self) -> Scores:
        p = self.parameters
        if self.whole:
            parts = self.train_pixels, self.test_pixels
            features = [self.scaled(self.features_of(pixels)) for pixels in parts]
            self.train_embeddings, self.test_embeddings = features
        sides = (i.to(self.device) for i in (self.queries, self.gallery))
        query, gallery = (self.test_embeddings[i] for i in sides)
        depth = min(max(*p.ks, NEIGHBOURS), len(gallery))
        near = rank(None, query, gallery, min(max(p.rerank, depth), len(gallery)))
        rankings = {"": rank(self.network, query, gallery, depth) if self.learns else near}
        if self.learns and p.rerank:
            candidates = near[1][:, : p.rerank].to(self.device)
            rankings["_rerank"] = rank(self.network, query, gallery, depth, candidates)
        if self.learns:
            rankings["_cosine"] = near
        labels = self.test_set.labels
        saved = {"query_labels": labels[self.queries], "gallery_labels": labels[self.gallery]}
        for ending, (scores, index) in rankings.items():
            saved[f"index{ending}"] = index[:, :depth].int()
            saved[f"scores{ending}"] = scores[:, :depth]
        return self.measure(saved, {"ks": p.ks})

    @classmethod
    def measure(cls, saved: Mapping[str, Tensor], parameters: Mapping) -> Scores:
        """Metrics: "recall@k" with all pairs scored, "recall@k_rerank" where only the nearest by
        cosine are scored anew, "recall@k_cosine" of the embeddings as they came; "tied@1": share of
        queries whose best score another of the gallery shares, as scores that are rounded to 1 do:
        the order of the gallery decides there. Intervals are over items.

        `details` has the `RetrievalResults` of each of ENDINGS that is there."""
        labels, gallery_labels = saved["query_labels"], saved["gallery_labels"]
        found = {}
        for ending in (ending for ending in ENDINGS if f"index{ending}" in saved):
            ranked = saved[f"scores{ending}"], saved[f"index{ending}"].long()
            found[ending] = RetrievalResults.from_neighbours(*ranked, labels, gallery_labels)
        ks = parameters["ks"]
        values = {f"recall@{k}{end}": results.hits(k) for end, results in found.items() for k in ks}
        best = saved["scores"]
        tied = (best[:, 0] == best[:, 1]).double().mean().item() if best.shape[1] > 1 else 0.0
        options = {"groups": labels, "results": found[""], "details": {"rankings": found}}
        return Scores(values, {"tied@1": tied}, labels, len(labels), saved=dict(saved), **options)

    def named_rankings(self, scores: Scores) -> dict[str, RetrievalResults]:
        """The rankings under the names that figures give them."""
        p, found = self.parameters, scores.details["rankings"]
        names = {"": p.method, "_cosine": COSINE}
        names["_rerank"] = f"{p.method}, nearest {min(p.rerank, len(self.gallery))}"
        return {names[ending]: results for ending, results in found.items()}

    def counts(self) -> Sequence[int]:
        items = self.test_set.labels, self.train_set.labels[self.learned]
        sizes = (len(self.learned), len(self.queries), len(self.gallery))
        return *sizes, *(len(labels.unique()) for labels in items)

    @property
    def attribute_names(self) -> list[str]:
        return self.train_set.attribute_names or []

    def details(self, scores, history) -> dict:
        found = scores.details["rankings"]
        hits = [found[ending].hits(1) for ending in ("", "_cosine" if self.learns else "")]
        known = ~hits[0].isnan()  # a query whose item is not in the gallery has nothing to find
        above = paired_bootstrap(*(hit[known] for hit in hits), groups=scores.groups[known])
        return super().details(scores, history) | {"above_cosine": list(above)}


def hold_out_items(labels: Tensor, share: float) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Positions of the images to learn from, and of validation queries and their gallery, halves of
    items held out; ValueError where fewer than two would be, or none be left."""
    items, sizes = labels.unique(return_counts=True)
    several = items[sizes > 1]
    generator = seeded(VALIDATION_SEED)
    count = round(share * len(several))
    held = several[torch.randperm(len(several), generator=generator)[:count]]
    if not 2 <= len(held) < len(several):
        raise ValueError(
            f"validation is {share}: of {len(several)} training items with two images or more it "
            f"holds out {len(held)}, and at least 2 are needed, and as many to learn from"
        )
    queries, gallery = [], []
    for item in held.tolist():
        own = (labels == item).nonzero().squeeze(1)
        own = own[torch.randperm(len(own), generator=generator)]
        queries.append(own[: len(own) // 2])
        gallery.append(own[len(own) // 2 :])
    learned = (~torch.isin(labels, held)).nonzero().squeeze(1)
    return learned, (torch.cat(queries), torch.cat(gallery))


def rank(network, query: Tensor, gallery: Tensor, k: int, candidates=None) -> tuple:
    """The k best of the gallery for each query, exactly: scores (Q, k) and positions (Q, k); equal
    scores: lower position first. Without a network by cosine.

    Args:
        query, gallery: (Q, D) and (G, D) embeddings.
        candidates: (Q, C) positions, to score these only."""
    if network is None:
        scores, index = nearest(query, gallery, k)
    else:
        similarity, encoded = learned.searchable(network, torch.cat([query, gallery]))
        sides = encoded[: len(query)], encoded[len(query) :]
        if candidates is None:
            scores, index = top_scores(similarity, *sides, k)
        else:
            scores, index = (part[:, :k] for part in rerank(similarity, *sides, candidates))
    return scores.cpu(), index.cpu()


if __name__ == "__main__":
    run_as_module(InShop)
