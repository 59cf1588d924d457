"""Outfits follow a rule that can be learned from attributes, not from chance or popularity."""

import json
from collections import Counter

import numpy as np
import pytest

from fieldguide.garments import wardrobe as module
from fieldguide.garments.attributes import VOCABULARY, make_garments
from fieldguide.garments.outfits import compatibility
from helpers.generated import read_lines, read_outfits

VERSIONS = ("nondisjoint", "disjoint")


def roc_auc(scores, labels) -> float:
    positive, negative = scores[labels == 1][:, None], scores[labels == 0][None, :]
    return float((positive > negative).mean() + 0.5 * (positive == negative).mean())


def fitted_scores(train, train_labels, test) -> np.ndarray:
    """Logistic regression by Newton steps with a ridge."""
    mean, scale = train.mean(axis=0), train.std(axis=0) + 1e-6
    x, z = [np.hstack([(each - mean) / scale, np.ones((len(each), 1))]) for each in (train, test)]
    weights = np.zeros(x.shape[1])
    for _ in range(4):
        p = 1 / (1 + np.exp(-x @ weights))
        hessian = x.T @ (x * (p * (1 - p))[:, None]) + 20 * np.eye(x.shape[1])
        weights -= np.linalg.solve(hessian, x.T @ (p - train_labels) + 20 * weights)
    return z @ weights


@pytest.fixture(scope="module")
def outfit_lines(tmp_path_factory):
    """Label and garment numbers of the compatibility lines of a larger wardrobe."""
    root = tmp_path_factory.mktemp("outfits")
    garments = make_garments(600, 0)
    module._write_outfits(root, garments, 1600, 0)
    module._write_items(root, garments)
    number = {
        item: k
        for k, item in enumerate(json.loads((root / "polyvore_item_metadata.json").read_text()))
    }
    lines = {}
    for version in VERSIONS:
        for split, names in (
            ("train", ["compatibility_train"]),
            ("test", ["compatibility_test", "fashion_compatibility_harder_test"]),
        ):
            outfits = read_outfits(root / version, split)
            for name in names:
                if (root / version / f"{name}.txt").exists():
                    entries = read_lines(root / version / f"{name}.txt", outfits)
                    lines[version, name] = (
                        np.array([label for label, *_ in entries]),
                        [[number[item] for item in items] for *_, items in entries],
                    )
    return garments, lines


def pair_features(garments, outfits, shuffled=None) -> np.ndarray:
    """For each outfit, over its pairs: how often two values of a group meet.

    Colours count as neutral or as one of four hues.
    """
    hue = {
        "red": 0,
        "pink": 0,
        "orange": 1,
        "yellow": 1,
        "green": 2,
        "turquoise": 2,
        "blue": 3,
        "purple": 3,
    }
    warm = {"wool": 2, "knitted": 2, "leather": 1, "suede": 1, "denim": 1}
    codes = np.array(
        [
            [
                VOCABULARY["style"].index(one.style),
                hue.get(one.colour, 4),
                min(VOCABULARY["pattern"].index(one.pattern), 1),
                warm.get(one.material, 0),
            ]
            for one in garments
        ]
    )
    if shuffled is not None:
        codes = codes[shuffled]
    rows = []
    for items in outfits:
        counts = np.zeros((4, 5, 5))
        for k, first in enumerate(items):
            for second in items[:k]:
                for group, (a, b) in enumerate(zip(codes[first], codes[second], strict=True)):
                    counts[group, min(a, b), max(a, b)] += 1
        rows.append(counts.ravel() / max(len(items) * (len(items) - 1) / 2, 1))
    return np.array(rows)


def test_the_rule_can_be_learned_from_attributes_but_not_from_chance_or_popularity(outfit_lines):
    garments, lines = outfit_lines
    score = compatibility(garments)
    rng = np.random.default_rng(0)
    for version, name, learned in (
        ("nondisjoint", "compatibility_test", 0.80),
        ("disjoint", "compatibility_test", 0.75),
        ("nondisjoint", "fashion_compatibility_harder_test", 0.70),
    ):
        (train_labels, train), (labels, test) = (
            lines[version, "compatibility_train"],
            lines[version, name],
        )
        hidden = np.array(
            [score[np.ix_(items, items)][np.triu_indices(len(items), 1)].mean() for items in test]
        )
        assert roc_auc(hidden, labels) > learned + 0.05
        by_attributes = fitted_scores(
            pair_features(garments, train), train_labels, pair_features(garments, test)
        )
        assert learned < roc_auc(by_attributes, labels) < roc_auc(hidden, labels) + 0.02
        # Other garments' marks tell nothing, nor does an item: each is as often right as wrong.
        mixed = rng.permutation(len(garments))
        chance = fitted_scores(
            pair_features(garments, train, mixed),
            train_labels,
            pair_features(garments, test, mixed),
        )
        assert abs(roc_auc(chance, labels) - 0.5) < 0.06
        right, wrong = (
            Counter(
                item
                for items, label in zip(test, labels, strict=True)
                if label == wanted
                for item in items
            )
            for wanted in (1, 0)
        )
        assert right == wrong
