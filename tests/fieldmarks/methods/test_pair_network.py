"""Against plain autograd through the encoder and the head at once, over all pairs."""

import copy
import math

import pytest
import torch

from fieldmarks.methods import pair_network
from fieldmarks.methods.graph_encoder import Graph, outfit_context
from fieldmarks.methods.pair_network import PairNetwork

WITH_ATTRIBUTES = ("pan_supervised", "pan_hybrid", "multitask", "attribute_similarity")
LEARNED = (*WITH_ATTRIBUTES, "pan_unsupervised", "plain")


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def data(items=12, pairs=23):
    generator = seeded()
    features = torch.randn(items, 5, generator=generator)
    attributes = (torch.rand(items, 4, generator=generator) < 0.4).float()
    attributes[3], attributes[5, 1] = math.nan, math.nan
    drawn = torch.randint(0, items, (pairs, 2), generator=generator)
    return features, drawn, (torch.arange(pairs) % 2).float(), attributes


def network(method, encoder="graph", **options):
    torch.manual_seed(0)
    options = {"hidden": (6, 3), "free": 2, "attribute_weight": 3.0, **options}
    return PairNetwork(method, 5, 4, encoder=encoder, **options)


def naive(model, features, pairs, same, attributes, support, generator):
    """The terms over all pairs at once."""
    encoded = model.encode(features, support, generator)
    a, b = pairs.T
    known = () if attributes is None else (attributes[a], attributes[b])
    return model.head.losses(encoded[a], encoded[b], same, *known)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("encoder", ["graph", "linear", "none"])
@pytest.mark.parametrize("method", LEARNED)
def test_chunks_have_the_terms_and_the_gradients_of_all_pairs(
    monkeypatch, method, encoder, precision
):
    features, pairs, same, attributes = data()
    if method not in WITH_ATTRIBUTES:
        attributes = None
    support = None
    if encoder == "graph":
        graph = Graph.of(torch.tensor([[0, 1], [1, 2], [4, 7]]), 12)
        support = graph.support(0.2, seeded(1))
    chunked = network(method, encoder)
    plain = copy.deepcopy(chunked)
    monkeypatch.setattr(pair_network, "CHUNK", 5)
    with torch.autocast("cpu", dtype=precision, enabled=precision != torch.float32):
        terms = chunked.losses(features, pairs, same, attributes, support, seeded(3))
        full = naive(plain, features, pairs, same, attributes, support, seeded(3))
    sum(terms.values()).backward()
    sum(full.values()).backward()
    close = (
        {"rtol": 1e-5, "atol": 1e-7} if precision == torch.float32 else {"rtol": 0.1, "atol": 0.02}
    )
    assert list(terms) == ["similarity", *["attributes"] * (attributes is not None)]
    for name, value in full.items():
        assert terms[name].shape == () and terms[name].requires_grad == (name == "similarity")
        torch.testing.assert_close(terms[name].detach(), value.detach(), **close)
    for (name, one), other in zip(chunked.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, msg=name, **close)


@pytest.mark.parametrize("chunk", [1, 22, 23, 100])
def test_the_size_of_a_chunk_does_not_matter(monkeypatch, chunk):
    features, pairs, same, attributes = data()
    model = network("pan_hybrid", "linear")
    expected = naive(model, features, pairs, same, attributes, None, None)
    monkeypatch.setattr(pair_network, "CHUNK", chunk)
    for name, value in model.losses(features, pairs, same, attributes).items():
        torch.testing.assert_close(value, expected[name])


def test_gradients_scale_with_the_loss_as_a_loss_scaler_needs():
    features, pairs, same, attributes = data()
    once, scaled = network("multitask", "linear"), network("multitask", "linear")
    sum(once.losses(features, pairs, same, attributes).values()).backward()
    (1024 * sum(scaled.losses(features, pairs, same, attributes).values())).backward()
    for one, other in zip(once.parameters(), scaled.parameters(), strict=True):
        assert torch.equal(1024 * one.grad, other.grad)


def test_without_gradients_there_are_only_terms():
    features, pairs, same, attributes = data()
    model = network("pan_supervised", "linear")
    with torch.no_grad():
        terms = model.losses(features, pairs, same, attributes)
    assert not any(term.requires_grad for term in terms.values())
    again = model.losses(features, pairs, same, attributes)
    assert [t.item() for t in terms.values()] == [t.item() for t in again.values()]


def test_a_frozen_part_gets_no_gradients():
    features, pairs, same, attributes = data()
    model = network("pan_supervised", "linear")
    model.head.similarity.relevance.requires_grad_(False)
    sum(model.losses(features, pairs, same, attributes).values()).backward()
    assert model.head.similarity.relevance.weight.grad is None
    assert model.head.similarity.concept.weight.grad.abs().sum() > 0
    assert model.encoder.weight.grad.abs().sum() > 0


def test_the_dropout_follows_the_generator():
    features, pairs, same, attributes = data()
    model = network("pan_supervised").train()
    one, again, other = (
        model.losses(features, pairs, same, attributes, generator=seeded(seed))["similarity"].item()
        for seed in (1, 1, 2)
    )
    assert one == again != other


@pytest.mark.parametrize("method", [*LEARNED, "cosine"])
def test_scores_are_in_their_range_and_symmetric(method):
    features = data()[0]
    model = network(method).eval()
    assert model.learns == model.trains == (method != "cosine")
    assert model.sees_graph == (method != "cosine")
    encoded = model.encode(features)
    assert encoded.shape == (12, 3 if model.learns else 5)
    score = model.score(encoded[:, None], encoded[None])
    assert score.shape == (12, 12) and torch.equal(score, score.T)
    assert score.min() >= (0 if model.learns else -1) and score.max() <= 1 + 1e-6


def test_contexts_of_an_encoder_that_sees_items_alone_are_rows_of_all_items():
    features = data()[0]
    neighbours = Graph.of(torch.tensor([[0, 1], [1, 2], [4, 7]]), 12).neighbours()
    contexts = [outfit_context(neighbours, outfit, 1) for outfit in ([1, 4, 9], [0, 2])]
    encoded, outfits, choices = (
        network("plain", "linear").eval().encode_contexts(features, contexts)
    )
    assert len(encoded) == 12 and outfits == [[1, 4, 9], [0, 2]] and choices == [[], []]
    model = network("plain").eval()
    encoded, outfits, _ = model.encode_contexts(features, contexts)
    alone = model.encode(features)
    torch.testing.assert_close(encoded[outfits[0]][2], alone[9])  # it has no edges
    assert not torch.allclose(encoded[outfits[0]][0], alone[1])


def test_all_parameters_decay():
    model = network("pan_supervised")
    (group,) = model.parameter_groups(0.1, 0.5)
    assert group["lr"] == 0.1 and group["weight_decay"] == 0.5
    assert len(group["params"]) == len(list(model.parameters()))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"method": "pan"}, "method is 'pan': it must be one of pan_supervised, "),
        ({"encoder": "gcn"}, "encoder is 'gcn': it must be one of graph, linear, none"),
        ({"rule": "nor"}, "rule is 'nor': it must be one of and, or, xor, xnor"),
        ({"dropout": 1.0}, "dropout is 1.0: it is a share"),
    ],
)
def test_impossible_settings_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        network(**{"method": "pan_supervised", **change})


@pytest.mark.parametrize("encoder", ["linear", "none"])
def test_with_a_cosine_items_keep_their_features_beside_what_is_encoded(encoder):
    features, drawn, same, attributes = data()
    model = network("pan_supervised", encoder, cosine_weight=4.0)
    with torch.no_grad():
        encoded, plain = model.encode(features), model.encoder(features)
    assert encoded.shape == (12, plain.shape[1] + 5) and torch.equal(
        encoded[:, : plain.shape[1]], plain
    )
    for row, own in zip(encoded[:, plain.shape[1] :].tolist(), features.tolist(), strict=True):
        length = math.sqrt(sum(x * x for x in own))
        assert row == pytest.approx([x / length for x in own])
    terms = model.losses(features, drawn, same, attributes)
    expected = naive(model, features, drawn, same, attributes, None, None)
    torch.testing.assert_close(terms["similarity"], expected["similarity"])


def test_methods_without_concepts_leave_the_cosine_out_and_a_graph_refuses_it():
    features = data()[0]
    model = network("multitask", "linear", cosine_weight=4.0)
    assert model.encode(features).shape == (12, 3)
    with pytest.raises(ValueError, match="cosine_weight is 4, and the encoder sees a graph: 0"):
        network("pan_supervised", "graph", cosine_weight=4.0)
