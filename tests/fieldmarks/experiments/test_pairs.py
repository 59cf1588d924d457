import copy
import dataclasses
import math

import pytest
import torch

from fieldmarks import training
from fieldmarks.evaluation.pair_scores import top_scores
from fieldmarks.experiments import pairs as module
from fieldmarks.experiments.fewshot import FewShot, Parameters
from fieldmarks.experiments.pairs import (
    HEADS,
    WITH_ATTRIBUTES,
    PairMethod,
    PairStream,
    concept_means,
    positive_pairs,
    random_pairs,
    score_pairs,
    searchable,
)
from fieldmarks.methods import pair_network
from fieldmarks.methods.graph_encoder import Graph
from fieldmarks.methods.method import Method
from fieldmarks.methods.pair_network import PairNetwork
from fieldmarks.random import seeded
from fieldmarks.training import Settings, fit
from helpers.experiments import assert_same_weights


def network_of(method, encoder="linear", dim=6, attributes=4, **options):
    torch.manual_seed(0)
    options = {"hidden": (5,), "free": 3, "none_slot": False, **options}
    network = PairNetwork(method, dim, attributes, encoder=encoder, **options).eval()
    generator = torch.Generator().manual_seed(1)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, generator=generator)
    return network


def random(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("cosine_weight", [0.0, 3.0])
@pytest.mark.parametrize("encoder", ["linear", "none"])
@pytest.mark.parametrize("method", HEADS)
def test_what_is_searched_with_gives_each_pair_the_score_of_the_network(
    method, encoder, cosine_weight
):
    network = network_of(method, encoder, cosine_weight=cosine_weight)
    features = random(9, 6)
    similarity, compared = searchable(network, features)
    scores, index = top_scores(similarity, compared[:4], compared[4:], 5)
    with torch.no_grad():
        encoded = network.encode(features)
        for query in range(4):
            for score, place in zip(scores[query], index[query], strict=True):
                expected = network.score(encoded[query], encoded[4 + place])
                torch.testing.assert_close(score, expected, rtol=1e-4, atol=1e-5)


def test_pairs_are_scored_alike_however_many_go_at_a_time(monkeypatch):
    network, encoded = network_of("pan_hybrid", "none"), random(8, 6)
    pairs = torch.combinations(torch.arange(8))
    expected = torch.stack([network.score(encoded[i], encoded[j]) for i, j in pairs.tolist()])
    for chunk in (1, 5, 28, 100):
        monkeypatch.setattr(module, "CHUNK", chunk)
        torch.testing.assert_close(score_pairs(network.score, encoded, pairs), expected.detach())
    assert len(score_pairs(network.score, encoded, pairs[:0])) == 0


def test_concept_means_are_those_of_naive_loops(monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 4)
    head, encoded = network_of("pan_supervised", "none").head, random(5, 6)
    pairs = torch.combinations(torch.arange(5))
    relevance_mean, contribution_mean = concept_means(head, encoded, pairs)
    with torch.no_grad():
        for m in range(4):
            relevance, contribution = 0.0, 0.0
            for i, j in pairs.tolist():
                difference = (encoded[i] - encoded[j]).abs()
                logits = head.similarity.relevance(difference)
                share = (logits[m].exp() / sum(value.exp() for value in logits)).item()
                concept = head.similarity.concept(difference)[m].sigmoid().item()
                relevance, contribution = relevance + share, contribution + share * concept
            assert relevance_mean[m].item() == pytest.approx(relevance / 10, abs=1e-5)
            assert contribution_mean[m].item() == pytest.approx(contribution / 10, abs=1e-5)


def test_positive_pairs_are_counted():
    labels = torch.tensor([3, 3, 7, 3, 7, 1])
    assert positive_pairs(labels) == sum(labels[i] == labels[j] for i in range(6) for j in range(i))
    pairs, same = random_pairs(labels, 100, 5)
    first, second = labels[pairs].T
    assert len(pairs) == 8 and (first == second).tolist() == (same == 1).tolist()


# Training: a PairStream through the loop


def settings(**changes):
    return Settings(
        **{
            "epochs": 6,
            "lr": 0.01,
            "optimizer": "adam",
            "schedule": "constant",
            "weight_decay": 0.0,
            "evaluate_every": 2,
            "precision": "fp32",
            "restore_best": True,
            **changes,
        }
    )


def draw(epoch):
    return random_pairs(torch.arange(12) // 3, 24, epoch)


def train(network, stream, evaluate=None, folder=None, **changes):
    evaluate = evaluate or (lambda: {"accuracy": 0.0})
    options = {"evaluate": evaluate, "monitor": "accuracy", "progress": "none", "folder": folder}
    return fit(network, stream, settings(**changes), **options)


def stream_of(draw=draw, attributes=None):
    return PairStream(random(12, 6), draw, attributes, (0, 20))


@pytest.mark.parametrize("kept_in_a_folder", [True, False])
@pytest.mark.parametrize(
    "scores, best", [((0.1, 0.5, 0.2), 1), ((0.5, 0.5, 0.5), 0), ((0.1, 0.2, 0.3), 2)]
)
def test_the_best_weights_on_validation_data_are_kept_the_earliest_of_equals(
    scores, best, kept_in_a_folder, tmp_path
):
    network, seen = network_of("pan_unsupervised"), []

    def evaluate():
        assert not network.training
        seen.append(copy.deepcopy(network.state_dict()))
        return {"accuracy": scores[len(seen) - 1]}

    folder = tmp_path if kept_in_a_folder else None
    history = train(network, stream_of(), evaluate, folder)
    assert [row["epoch"] for row in history.epochs] == [1, 2, 3, 4, 5, 6]
    assert [row["epoch"] for row in history.evaluations] == [2, 4, 6]
    assert [row["accuracy"] for row in history.evaluations] == list(scores)
    state = network.state_dict()
    assert all(torch.equal(value, seen[best][name]) for name, value in state.items())
    other = seen[(best + 1) % 3]
    assert not all(torch.equal(value, other[name]) for name, value in state.items())


@pytest.mark.parametrize("writes", [1, 2, 3, 4, 5])
def test_whoever_is_killed_while_checkpoints_are_written_loses_no_best(
    writes, tmp_path, monkeypatch
):
    """last.pt and best.pt are two files, and the end may come between them."""
    drawn, save, saved = [], training.save_checkpoint, []

    def counted(epoch):
        drawn.append(epoch)
        return draw(epoch)

    def run(folder):
        network, scores = network_of("pan_unsupervised"), {2: 0.1, 4: 0.5, 6: 0.2}
        train(network, stream_of(counted), lambda: {"accuracy": scores[drawn[-1]]}, folder)
        return network

    def dying(path, state):
        save(path, state)
        saved.append(path)
        if len(saved) == writes:
            raise RuntimeError("killed")

    straight = run(tmp_path / "straight")
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="killed"):
        patch.setattr(training, "save_checkpoint", dying)
        run(tmp_path / "killed")
    assert_same_weights(run(tmp_path / "killed"), straight)


def test_training_lowers_the_loss_and_asks_for_the_pairs_of_each_epoch():
    drawn = []

    def counted(epoch):
        drawn.append(epoch)
        return draw(1)

    history = train(network_of("plain"), stream_of(counted), epochs=60, evaluate_every=20)
    assert drawn == list(range(1, 61)) and history.images == 60 * 12
    assert history.epochs[-1]["similarity"] < 0.5 * history.epochs[0]["similarity"]


def test_an_epoch_is_one_step_on_all_pairs(monkeypatch):
    """Against plain Adam on all pairs at once, where the network goes chunk by chunk."""
    monkeypatch.setattr(pair_network, "CHUNK", 7)
    network, reference = network_of("pan_unsupervised"), network_of("pan_unsupervised")
    train(network, stream_of(), epochs=3)
    optimizer, features = torch.optim.Adam(reference.parameters(), lr=0.01), random(12, 6)
    for epoch in (1, 2):  # evaluations after epochs 2 and 3 are equal, and the earlier one is kept
        optimizer.zero_grad()
        pairs, same = draw(epoch)
        a, b = (reference.encode(features)[side] for side in pairs.T)
        sum(reference.head.losses(a, b, same).values()).backward()
        optimizer.step()
    after = reference.state_dict()
    for name, value in network.state_dict().items():
        # The bias cancels in every difference: its gradient is nothing but rounding.
        if name != "encoder.bias":
            torch.testing.assert_close(value, after[name], rtol=1e-4, atol=1e-5)


def test_one_step_over_chunks_is_one_step_over_all_pairs(monkeypatch):
    """With a graph, dropout and unknown attributes: against autograd through all of it at once."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(12, 5, generator=generator)
    labels = (torch.rand(12, 4, generator=generator) < 0.4).float()
    labels[3], labels[5, 1] = math.nan, math.nan
    pairs = torch.randint(0, 12, (23, 2), generator=generator)
    same, graph = (
        (torch.arange(23) % 2).float(),
        Graph.of(torch.tensor([[0, 1], [1, 2], [4, 7]]), 12),
    )
    torch.manual_seed(0)
    network = PairNetwork(
        "pan_hybrid", 5, 4, hidden=(6, 3), dropout=0.5, free=2, attribute_weight=3.0
    )
    plain = copy.deepcopy(network)
    monkeypatch.setattr(pair_network, "CHUNK", 5)
    stream = PairStream(features, lambda epoch: (pairs, same), labels, (0, 32), graph, 0.2)
    options = {"optimizer": "sgd", "momentum": 0.0, "lr": 0.1}
    history = train(network, stream, epochs=1, **options)

    draws = seeded(0, 32, 1)
    encoded = plain.encode(features, graph.support(0.2, draws), draws)
    a, b = pairs.T
    terms = plain.head.losses(encoded[a], encoded[b], same, labels[a], labels[b])
    sum(terms.values()).backward()
    assert terms.keys() == history.epochs[0].keys() - {"epoch", "lr", "images_per_second"}
    for name, value in terms.items():
        assert history.epochs[0][name] == pytest.approx(value.item(), rel=1e-5)
    for (name, one), other in zip(network.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one, other - 0.1 * other.grad, rtol=1e-4, atol=1e-6, msg=name)


def test_the_pairs_of_an_epoch_and_what_is_dropped_follow_from_its_number_alone():
    graph = Graph.of(torch.tensor([[0, 1], [1, 2], [4, 7]]), 12)
    one, two = (PairStream(random(12, 6), draw, None, (3, 20), graph, 0.5) for _ in range(2))
    (first,), (_,), (again,) = one.epoch(4), two.epoch(0), two.epoch(4)
    assert first.keys() == again.keys()
    for name in ("features", "pairs", "same"):
        assert torch.equal(first[name], again[name])
    dense = [batch["support"].to_dense() for batch in (first, again)]
    assert torch.equal(*dense) and not torch.equal(dense[0], graph.support().to_dense())
    draws = [torch.rand(3, generator=batch["generator"]) for batch in (first, again)]
    assert torch.equal(*draws)
    assert torch.equal(first["pairs"], draw(5)[0])  # epochs of pairs count from 1


# The network of an experiment


class Shape(FewShot):
    """A few-shot experiment without its data: what makes its network is left."""

    def __init__(self, parameters):
        self.parameters, self.device = parameters, torch.device("cpu")


def created(dim=8, attributes=5, **changes):
    return Shape(Parameters(**changes)).create_network(dim, torch.zeros(1, attributes))


def test_the_same_seed_gives_the_same_network():
    first, second = (created(method="pan_hybrid").state_dict() for _ in range(2))
    other = created(method="pan_hybrid", seed=1).state_dict()
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert not torch.equal(first["encoder.weight"], other["encoder.weight"])


@pytest.mark.parametrize("method", [*HEADS, "protonet", "cosine"])
def test_parameters_name_the_network(method):
    network = created(method=method, hidden=(7, 6), free=3, attribute_weight=2.0, rule="xor")
    assert network.learns == (method in HEADS) and not network.training
    if network.learns:
        assert network.encoder.weight.shape == (6, 8)
    if method in WITH_ATTRIBUTES:
        assert network.head.attribute_weight == 2.0
    if method.startswith("pan_"):
        concepts = {"pan_supervised": 5, "pan_hybrid": 8, "pan_unsupervised": 3}
        assert network.head.similarity.concept.out_features == concepts[method]
        assert network.head.rule == ("or" if method == "pan_unsupervised" else "xor")


def test_hard_negatives_are_what_the_network_takes_for_alike():
    labels, features = torch.arange(24) // 4, random(24, 8)
    experiment = Shape(Parameters(method="pan_unsupervised", hard_negatives=0.5))
    experiment.network = created(method="pan_unsupervised")
    drawn = random_pairs(labels, 40, 1)
    pairs, same = experiment.with_hard(*drawn, features, labels, 3)
    assert torch.equal(same, drawn[1]) and torch.equal(pairs[:30], drawn[0][:30])
    assert (labels[pairs[30:, 0]] != labels[pairs[30:, 1]]).all()
    with torch.no_grad():
        encoded = experiment.network.encode(features)
        hard, uniform = (experiment.network.score(*encoded[p[30:].T]) for p in (pairs, drawn[0]))
    assert hard.min() >= uniform.median() and hard.mean() > uniform.mean()
    assert torch.equal(pairs, experiment.with_hard(*drawn, features, labels, 3)[0])
    assert not torch.equal(pairs, experiment.with_hard(*drawn, features, labels, 4)[0])


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"encoder": "graph"}, "encoder is 'graph': it must be one of linear, none"),
        ({"rule": "nor"}, "rule is 'nor': it must be one of and, or, xor, xnor"),
        ({"hidden": (0,)}, r"hidden is \[0\]: give the units of one layer or more"),
        ({"free": 0}, "free is 0"),
        ({"epochs": 0}, "epochs is 0"),
        ({"evaluate_every": 0}, "evaluate_every is 0"),
        ({"pairs": -1}, "pairs is -1"),
        ({"attribute_weight": -0.5}, "attribute_weight is -0.5"),
        ({"attribute_weight": float("nan")}, "attribute_weight is nan"),
        ({"dropout": 1.0}, "dropout is 1.0: it is a share"),
        ({"cosine_weight": -1.0}, "cosine_weight is -1.0"),
        ({"relevance_weight": -1.0}, "relevance_weight is -1.0"),
        ({"hard_negatives": 1.5}, "hard_negatives is 1.5: a share, from 0 to 1"),
        ({"lr": 0.0}, "lr is 0.0"),
    ],
)
def test_impossible_parameters_are_refused(changes, message):
    with pytest.raises(ValueError, match=message) as caught:
        dataclasses.replace(Parameters(), **changes)
    assert "\n" not in str(caught.value)


# End to end


class Embedder(Method):
    def __init__(self, dim=6):
        super().__init__(torch.nn.Conv2d(3, dim, 3))
        self.loss = torch.nn.Linear(dim, 4)  # of the run that it comes from

    def embed(self, images):
        return self.representation(images)


@pytest.mark.parametrize("method", ["pan_supervised", "plain"])
def test_a_batch_is_learned_from_by_all_its_pairs_both_kinds_weighing_alike(method):
    network, attributes = network_of(method), (random(10, 4) > 0).float()
    whole = PairMethod(Embedder(), network, [], lambda features: 2 * features)
    whole.learn_from(attributes, 0.1)
    images, labels, index = (
        random(6, 3, 8, 8),
        torch.tensor([0, 0, 1, 1, 1, 2]),
        torch.arange(4, 10),
    )
    terms = whole.losses(images, labels, index)
    encoded, naive = network.encode(network.standardise(2 * whole.embedder.embed(images))), {}
    for kind in (True, False):
        of_kind = [
            network.head.losses(
                encoded[i : i + 1],
                encoded[j : j + 1],
                torch.tensor([float(kind)]),
                attributes[index[i]][None],
                attributes[index[j]][None],
            )
            for i in range(6)
            for j in range(i)
            if (labels[i] == labels[j]).item() == kind
        ]
        for name in of_kind[0]:
            mean = sum(pair[name] for pair in of_kind) / len(of_kind)
            naive[name] = naive.get(name, 0) + mean / 2
    assert {n: v.item() for n, v in terms.items()} == pytest.approx(
        {n: v.item() for n, v in naive.items()}, rel=1e-4
    )
    learned = [p for p in whole.parameters() if p.requires_grad]
    assert not any(p is q for p in whole.embedder.loss.parameters() for q in learned)
    gradients = torch.autograd.grad(sum(terms.values()), learned)
    for actual, expected in zip(
        gradients, torch.autograd.grad(sum(naive.values()), learned), strict=True
    ):
        torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-6)
    rates = {id(p): g["lr"] for g in whole.parameter_groups(1.0, 0.0) for p in g["params"]}
    assert {rates.pop(id(p)) for p in whole.backbone.parameters()} == {0.1}
    assert set(rates.values()) == {1.0}


# Attributes that teach nothing


def test_attributes_that_never_vary_are_named_and_left_out():
    nan = math.nan
    attributes = torch.tensor(
        [[1, 0, 1, nan, 0, 1], [0, 0, 1, nan, nan, 0], [1, 0, nan, nan, 1, 1]]
    )
    kept, constant = module.varying(attributes, list("abcdef"), "birds")
    assert kept.tolist() == [0, 4, 5] and constant == ["b", "c", "d"]
    assert module.varying(attributes[:, kept], list("aef"), "birds")[1] == []
    with pytest.raises(ValueError, match="birds: no attribute varies among what is learned from"):
        module.varying(attributes[:, 1:4], list("bcd"), "birds")


def test_features_of_another_network_do_not_fit():
    with pytest.raises(ValueError, match="features have 5 dimensions, and this network is for 6: "):
        network_of("plain").standardise(random(2, 5))
