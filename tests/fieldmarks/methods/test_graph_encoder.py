import math

import pytest
import torch

from fieldmarks.methods.graph_encoder import (
    Graph,
    GraphEncoder,
    GraphLayer,
    Standardise,
    embed_contexts,
    kept_features,
    neighbourhood,
    outfit_context,
    outfit_edges,
    question_context,
)


def random_edges(nodes=12, count=18, seed=0):
    generator = torch.Generator().manual_seed(seed)
    edges = torch.randint(
        0, nodes - 2, (count, 2), generator=generator
    )  # the last two nodes stay alone
    return edges[edges[:, 0] != edges[:, 1]]


def naive_support(edges, nodes):
    """D^-1 (A + I), entry by entry."""
    matrix = [[float(i == j) for j in range(nodes)] for i in range(nodes)]
    for i, j in edges:
        matrix[i][j] = matrix[j][i] = 1.0
    return [[value / sum(row) for value in row] for row in matrix]


def test_support_is_the_row_normalised_adjacency_with_self_connections():
    edges = random_edges()
    expected = torch.tensor(naive_support(edges.tolist(), 12))
    for same in (edges, edges.flip(1), torch.cat([edges, edges.flip(1), edges])):
        support = Graph.of(same, 12).support()
        assert support.layout == torch.sparse_csr
        torch.testing.assert_close(support.to_dense(), expected)
    assert torch.equal(
        Graph.of(torch.empty(0, 2, dtype=torch.int64), 4).support().to_dense(), torch.eye(4)
    )


def test_support_dropout_isolates_nodes_then_drops_edges():
    nodes, dropout = 400, 0.15
    generator = torch.Generator().manual_seed(0)
    edges = torch.randint(0, nodes, (4000, 2), generator=generator)
    whole = Graph.of(edges, nodes)
    full = whole.support().to_dense()
    kept_share, empty = [], []
    for seed in range(5):
        support = whole.support(dropout, torch.Generator().manual_seed(seed)).to_dense()
        there = support > 0
        assert (
            torch.equal(there, there.T) and (there <= (full > 0)).all()
        )  # edges go in both directions or not at all
        sums = support.sum(1)
        torch.testing.assert_close(sums, there.any(1).float())  # rows add up to 1, or are empty
        degree = there.sum(1, keepdim=True)
        torch.testing.assert_close(support, there / degree.clamp(min=1))
        empty.append(int((degree == 0).sum()))
        alive = there.any(1)
        between = (full > 0) & alive[:, None] & alive
        kept_share.append((there.sum() / between.sum()).item())
    assert all(
        count == 60 for count in empty
    )  # 15 % of 400; here a node with neighbours left is never empty
    assert sum(kept_share) / 5 == pytest.approx(0.85, abs=0.01)
    first, again = (
        whole.support(dropout, torch.Generator().manual_seed(3)).to_dense() for _ in range(2)
    )
    assert torch.equal(first, again)


def naive_layer(layer, features, support):
    """BN(ReLU(H W_own + S H W_neighbours)) in eval mode, unit by unit."""
    result = []
    for i in range(len(features)):
        mean = [
            sum(support[i][j] * features[j][d] for j in range(len(features)))
            for d in range(len(features[0]))
        ]
        row = []
        for u, (own, other) in enumerate(
            zip(layer.own.weight.tolist(), layer.neighbours.weight.tolist(), strict=True)
        ):
            value = max(
                sum(w * x for w, x in zip(own, features[i], strict=True))
                + sum(w * x for w, x in zip(other, mean, strict=True)),
                0.0,
            )
            norm = layer.norm
            value = (value - norm.running_mean[u].item()) / math.sqrt(
                norm.running_var[u].item() + norm.eps
            )
            row.append(value * norm.weight[u].item() + norm.bias[u].item())
        result.append(row)
    return result


def random_encoder(dim=5, hidden=(4, 3)):
    torch.manual_seed(0)
    encoder = GraphEncoder(dim, hidden).double()
    for layer in encoder.layers:
        for values in (layer.norm.running_mean, layer.norm.weight.data, layer.norm.bias.data):
            values.copy_(torch.randn_like(values))
        layer.norm.running_var.uniform_(0.5, 2)
    return encoder.eval()


def test_encoder_equals_its_formula():
    encoder, edges = random_encoder(), random_edges()
    features = torch.randn(12, 5, dtype=torch.float64)
    support = naive_support(edges.tolist(), 12)
    expected = features.tolist()
    for layer in encoder.layers:
        expected = naive_layer(layer, expected, support)
    encoded = encoder(features, Graph.of(edges, 12).support().double())
    torch.testing.assert_close(encoded, torch.tensor(expected, dtype=torch.float64))
    assert [
        (layer.own.weight.shape, layer.norm.num_features) for layer in GraphEncoder(2048).layers
    ] == [((200, 2048), 200), ((200, 200), 200)]


def test_gradients_through_the_sparse_support():
    encoder = random_encoder()
    support = Graph.of(random_edges(), 12).support().double()
    features = torch.randn(12, 5, dtype=torch.float64, requires_grad=True)
    sparse, dense = (
        torch.autograd.grad(
            encoder(features, matrix).square().sum(), [features, *encoder.parameters()]
        )
        for matrix in (support, support.to_dense())
    )
    for one, other in zip(sparse, dense, strict=True):
        torch.testing.assert_close(one, other)


def test_runs_under_autocast():
    encoder, features, support = (
        random_encoder().float(),
        torch.randn(12, 5),
        Graph.of(random_edges(), 12).support(),
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = encoder(features, support)
    torch.testing.assert_close(result, encoder(features, support), atol=0.1, rtol=0.1)


def test_feature_dropout_keeps_the_mean_and_is_seeded():
    mask = kept_features(torch.Size([1000, 501]), 0.3, torch.Generator().manual_seed(0))
    assert mask.shape == (1000, 501) and mask.double().mean().item() == pytest.approx(
        0.7, abs=0.003
    )
    assert (
        mask.double().mean(0).sub(0.7).abs().max() < 0.07
        and mask.double().mean(1).sub(0.7).abs().max() < 0.1
    )
    assert (
        kept_features(torch.Size([9]), 0.0).all()
        and not kept_features(torch.Size([9]), 1 - 1e-9).any()
    )
    layer = GraphLayer(500, 1, dropout=0.5)
    layer.norm = torch.nn.Identity()
    torch.nn.init.ones_(layer.own.weight), torch.nn.init.zeros_(layer.neighbours.weight)
    features, support = (
        torch.ones(300, 500),
        Graph.of(torch.empty(0, 2, dtype=torch.int64), 300).support(),
    )
    outputs = [layer(features, support, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(outputs[0], outputs[1]) and not torch.equal(outputs[0], outputs[2])
    assert outputs[0].mean().item() == pytest.approx(500, rel=0.01) and outputs[0].std() > 5
    assert torch.equal(layer.eval()(features, support, None), torch.full((300, 1), 500.0))


def test_standardise_learns_from_the_training_set_and_survives_constants():
    features = torch.tensor([[1.0, 7.0], [3.0, 7.0]])
    standardise = Standardise(2).fit(features)
    assert standardise(features).tolist() == [[-1, 0], [1, 0]] and standardise(
        torch.tensor([[5.0, 9.0]])
    ).tolist() == [[3, 2]]
    fresh = Standardise(2)
    fresh.load_state_dict(standardise.state_dict())
    assert torch.equal(fresh(features), standardise(features))


def naive_walk(adjacency, start, count):
    """Level by level, in the order of discovery; an edge is of the end that is visited first."""
    order, i = [start], 0
    while i < len(order):
        order += [other for other in sorted(adjacency[order[i]]) if other not in order]
        i += 1
    rank = {node: place for place, node in enumerate(order)}
    edges = [(u, v) for u in order for v in sorted(adjacency[u]) if rank[v] > rank[u]]
    return edges[:count]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7, 100])
def test_neighbourhood_equals_a_walk_by_hand(count):
    for seed in range(5):
        edges = random_edges(seed=seed)
        adjacency = {i: set() for i in range(12)}
        for u, v in edges.tolist():
            adjacency[u].add(v), adjacency[v].add(u)
        neighbours = Graph.of(edges, 12).neighbours()
        for start in range(12):
            assert neighbourhood(neighbours, start, count) == naive_walk(adjacency, start, count)


def edges_of(context):
    return {frozenset((context.items[u], context.items[v])) for u, v in context.edges}


# 0-1-2 is an outfit; 1 was also worn with 5, 2 with 6 and 7; 8-9 is an outfit; 3 is alone.
LARGE = torch.tensor([[0, 1], [0, 2], [1, 2], [1, 5], [2, 6], [2, 7], [6, 7], [8, 9], [0, 8]])


def test_outfit_context_hides_the_outfits_own_edges():
    neighbours = Graph.of(LARGE, 10).neighbours()
    assert edges_of(outfit_context(neighbours, [2, 1, 3], 0)) == set()
    context = outfit_context(neighbours, [2, 1, 3], 1)
    assert edges_of(context) == {
        frozenset((2, 0)),
        frozenset((1, 0)),
    }  # 0 is not in the outfit asked about
    assert [context.items[i] for i in context.outfit] == [2, 1, 3] and context.choices == []
    context = outfit_context(neighbours, [0, 1, 2], 1)
    assert edges_of(context) == {frozenset((0, 8)), frozenset((1, 5)), frozenset((2, 6))}
    context = outfit_context(neighbours, [0, 1, 2], 3)  # 6-7 and 8-9 lie further on
    assert edges_of(context) == {
        frozenset(e) for e in [(0, 8), (8, 9), (1, 5), (2, 6), (2, 7), (6, 7)]
    }


def test_question_context_shows_the_outfit_and_hides_the_answer():
    neighbours = Graph.of(LARGE, 10).neighbours()
    within = frozenset((0, 1))
    context = question_context(neighbours, [0, 1], [2, 8, 3], 0)
    assert edges_of(context) == {within} and [context.items[i] for i in context.choices] == [
        2,
        8,
        3,
    ]
    context = question_context(neighbours, [0, 1], [2, 8, 3], 1)
    assert edges_of(context) == {
        within,
        frozenset((2, 6)),
        frozenset((8, 9)),
    }  # neither 2-0, 2-1 nor 8-0
    repeated = question_context(neighbours, [0, 1, 0], [1, 8, 8], 1)
    assert edges_of(repeated) == {within, frozenset((1, 2)), frozenset((8, 9))}
    assert [repeated.items[i] for i in repeated.outfit + repeated.choices] == [0, 1, 0, 1, 8, 8]


def test_edges_join_items_of_one_outfit_once():
    result = outfit_edges([[2, 0, 1], [1, 0], [3, 3, 2], [4]])
    assert result.tolist() == [[0, 1], [0, 2], [1, 2], [2, 3]]
    assert outfit_edges([]).shape == (0, 2)


def test_without_a_support_every_item_is_seen_alone():
    encoder, features = random_encoder().float(), torch.randn(12, 5)
    none = Graph.of(torch.empty(0, 2, dtype=torch.int64), 12).support()
    assert torch.equal(encoder(features), encoder(features, none))
    torch.testing.assert_close(encoder(features)[3:4], encoder(features[3:4]))


def test_a_long_walk_from_one_choice_does_not_show_that_another_belongs_to_the_outfit():
    neighbours = Graph.of(torch.tensor([[5, 6], [6, 1], [1, 7], [1, 8]]), 9).neighbours()
    assert edges_of(question_context(neighbours, [1], [5, 7], 10)) == {
        frozenset(e) for e in [(5, 6), (6, 1), (1, 8)]
    }


@pytest.mark.parametrize("batch", [1, 3, 100])
def test_contexts_embed_as_in_a_large_graph_that_has_only_their_edges(batch):
    encoder = random_encoder().float()
    edges, features = random_edges(30, 80, seed=1), torch.randn(30, 5)
    neighbours = Graph.of(edges, 30).neighbours()
    contexts = [
        outfit_context(neighbours, [1, 4, 9], 1),
        question_context(neighbours, [0, 2, 3], [5, 1, 7, 29], 1),
        outfit_context(neighbours, [1, 4, 9], 0),
        question_context(neighbours, [4, 6], [8, 9], 2),
    ] * 2
    embeddings, outfits, choices = embed_contexts(encoder, features, contexts, batch)
    for context, outfit, offered in zip(contexts, outfits, choices, strict=True):
        own = torch.tensor(
            [[context.items[u], context.items[v]] for u, v in context.edges], dtype=torch.int64
        ).reshape(-1, 2)
        whole = encoder(features, Graph.of(own, 30).support())
        torch.testing.assert_close(
            embeddings[outfit], whole[[context.items[i] for i in context.outfit]]
        )
        torch.testing.assert_close(
            embeddings[offered], whole[[context.items[i] for i in context.choices]]
        )


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: Graph.of(torch.tensor([[0, 5]]), 5), "edges must lie between 0 and 4, got 0 to 5"),
        (lambda: Graph.of(torch.tensor([0, 5]), 9), r"edges must be \(E, 2\), got shape \(2,\)"),
        (
            lambda: GraphEncoder(3, dropout=1.0),
            "dropout is 1.0: it is a share, at least 0 and below 1",
        ),
        (
            lambda: embed_contexts(GraphEncoder(3), torch.ones(4, 3), []),
            "training mode: call encoder.eval",
        ),
        (lambda: embed_contexts(GraphEncoder(3).eval(), torch.ones(4, 3), []), "no contexts"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
