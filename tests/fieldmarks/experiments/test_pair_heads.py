import dataclasses
from types import SimpleNamespace

import pytest
import torch
from fieldmarks.evaluation.pair_scores import top_scores
from fieldmarks.experiments import pair_heads
from fieldmarks.experiments.fewshot import Parameters
from fieldmarks.experiments.pair_heads import (
    HEADS,
    concept_means,
    create_network,
    fit_on_pairs,
    positive_pairs,
    random_pairs,
    score_pairs,
    searchable,
)


def network_of(method, encoder="linear", dim=6, attributes=4):
    network = create_network(
        Parameters(method=method, encoder=encoder, hidden=5, concepts=3), dim, attributes
    ).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(1))
    return network


@pytest.mark.parametrize("encoder", ["linear", "none"])
@pytest.mark.parametrize("method", HEADS)
def test_what_is_searched_with_gives_each_pair_the_score_of_the_network(method, encoder):
    network, features = (
        network_of(method, encoder),
        torch.randn(9, 6, generator=torch.Generator().manual_seed(0)),
    )
    similarity, compared = searchable(network, features)
    scores, index = top_scores(similarity, compared[:4], compared[4:], 5)
    with torch.no_grad():
        encoded = network.encode(features)
        for query in range(4):
            for score, place in zip(scores[query], index[query]):
                torch.testing.assert_close(
                    score, network.score(encoded[query], encoded[4 + place]), rtol=1e-4, atol=1e-5
                )


def test_pairs_are_scored_alike_however_many_go_at_a_time(monkeypatch):
    network, encoded = (
        network_of("pan_hybrid", "none"),
        torch.randn(8, 6, generator=torch.Generator().manual_seed(0)),
    )
    pairs = torch.combinations(torch.arange(8))
    expected = torch.stack([network.score(encoded[i], encoded[j]) for i, j in pairs.tolist()])
    for chunk in (1, 5, 28, 100):
        monkeypatch.setattr(pair_heads, "CHUNK", chunk)
        torch.testing.assert_close(score_pairs(network.score, encoded, pairs), expected.detach())
    assert len(score_pairs(network.score, encoded, pairs[:0])) == 0


def test_concept_means_are_those_of_naive_loops(monkeypatch):
    monkeypatch.setattr(pair_heads, "CHUNK", 4)
    head, encoded = (
        network_of("pan_supervised", "none").head,
        torch.randn(5, 6, generator=torch.Generator().manual_seed(0)),
    )
    pairs = torch.combinations(torch.arange(5))
    relevance_mean, contribution_mean = concept_means(head, encoded, pairs)
    with torch.no_grad():
        for m in range(4):
            relevance, contribution = 0.0, 0.0
            for i, j in pairs.tolist():
                logits = head.similarity.relevance((encoded[i] - encoded[j]).abs())
                share = (logits[m].exp() / sum(value.exp() for value in logits)).item()
                concept = (
                    head.similarity.concept((encoded[i] - encoded[j]).abs())[m].sigmoid().item()
                )
                relevance, contribution = relevance + share, contribution + share * concept
            assert relevance_mean[m].item() == pytest.approx(relevance / 10, abs=1e-5)
            assert contribution_mean[m].item() == pytest.approx(contribution / 10, abs=1e-5)


def test_positive_pairs_are_counted():
    labels = torch.tensor([3, 3, 7, 3, 7, 1])
    assert positive_pairs(labels) == sum(labels[i] == labels[j] for i in range(6) for j in range(i))
    pairs, same = random_pairs(labels, 100, 5)
    assert (
        len(pairs) == 8
        and (labels[pairs[:, 0]] == labels[pairs[:, 1]]).tolist() == (same == 1).tolist()
    )


def settings(**changes):
    return SimpleNamespace(
        **{
            "epochs": 6,
            "lr": 0.01,
            "weight_decay": 0.0,
            "evaluate_every": 2,
            "monitor": "accuracy",
            "seed": 0,
            "precision": "fp32",
            "progress": "none",
            **changes,
        }
    )


def data():
    labels = torch.arange(12) // 3
    return torch.randn(
        12, 6, generator=torch.Generator().manual_seed(0)
    ), lambda epoch: random_pairs(labels, 24, epoch)


@pytest.mark.parametrize(
    "scores, best", [((0.1, 0.5, 0.2), 1), ((0.5, 0.5, 0.5), 0), ((0.1, 0.2, 0.3), 2)]
)
def test_the_best_weights_on_validation_data_are_kept_the_earliest_of_equals(scores, best):
    network, (features, draw), seen = network_of("pan_unsupervised"), data(), []

    def evaluate():
        assert not network.training
        seen.append({name: value.clone() for name, value in network.state_dict().items()})
        return {"accuracy": scores[len(seen) - 1]}

    history = fit_on_pairs(network, features, draw, None, settings(), evaluate)
    assert (
        [row["epoch"] for row in history.evaluations]
        == [row["epoch"] for row in history.epochs]
        == [2, 4, 6]
    )
    assert [row["accuracy"] for row in history.evaluations] == list(scores)
    assert all(torch.equal(value, seen[best][name]) for name, value in network.state_dict().items())
    assert not all(
        torch.equal(value, seen[(best + 1) % 3][name])
        for name, value in network.state_dict().items()
    )


def test_training_lowers_the_loss_and_asks_for_the_pairs_of_each_epoch():
    network, (features, draw), asked = network_of("plain"), data(), []

    def counted(epoch):
        asked.append(epoch)
        return draw(1)

    history = fit_on_pairs(
        network,
        features,
        counted,
        None,
        settings(epochs=60, evaluate_every=20),
        lambda: {"accuracy": 0.0},
    )
    assert asked == list(range(1, 61)) and history.images == 60 * 12
    assert history.epochs[-1]["similarity"] < 0.5 * history.epochs[0]["similarity"]


def test_an_epoch_is_one_step_on_all_pairs():
    """Against plain Adam on the whole batch, which does not go chunk by chunk."""
    network, reference, (features, draw) = (
        network_of("pan_unsupervised"),
        network_of("pan_unsupervised"),
        data(),
    )
    fit_on_pairs(
        network, features, draw, None, settings(epochs=3), lambda: {"accuracy": 0.0, "epoch": 0}
    )
    optimizer, after = torch.optim.Adam(reference.parameters(), lr=0.01), None
    for epoch in (1, 2):  # evaluations after epochs 2 and 3 are equal, and the earlier one is kept
        optimizer.zero_grad()
        pairs, same = draw(epoch)
        encoded = reference.encode(features)
        sum(
            reference.head.losses(encoded[pairs[:, 0]], encoded[pairs[:, 1]], same).values()
        ).backward()
        optimizer.step()
        after = reference.state_dict()
    for name, value in network.state_dict().items():
        if (
            name != "encoder.bias"
        ):  # it cancels in every difference: its gradient is nothing but rounding
            torch.testing.assert_close(value, after[name], rtol=1e-4, atol=1e-5)


def test_the_same_seed_gives_the_same_network():
    first, second = (
        create_network(Parameters(method="pan_hybrid"), 8, 5).state_dict() for _ in range(2)
    )
    other = create_network(Parameters(method="pan_hybrid", seed=1), 8, 5).state_dict()
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert not torch.equal(first["encoder.weight"], other["encoder.weight"])


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"encoder": "graph"}, "encoder is 'graph': it must be one of linear, none"),
        ({"rule": "nor"}, "rule is 'nor'"),
        ({"hidden": 0}, "hidden is 0"),
        ({"concepts": 0}, "concepts is 0"),
        ({"epochs": 0}, "epochs is 0"),
        ({"evaluate_every": 0}, "evaluate_every is 0"),
        ({"pairs": -1}, "pairs is -1"),
        ({"attribute_weight": -0.5}, "attribute_weight is -0.5"),
        ({"attribute_weight": float("nan")}, "attribute_weight is nan"),
        ({"lr": 0.0}, "lr is 0.0"),
    ],
)
def test_impossible_parameters_are_refused(changes, message):
    with pytest.raises(ValueError, match=message) as caught:
        dataclasses.replace(Parameters(), **changes)
    assert "\n" not in str(caught.value)
