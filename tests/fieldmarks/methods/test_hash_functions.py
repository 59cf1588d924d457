import math

import faiss
import numpy as np
import pytest
import torch

from fieldmarks.methods.hash_functions import (
    SDH,
    create_hash_function,
    discrete_descent,
    principal_directions,
    ridge_regression,
    smoothest_waves,
)

NAMES = ["lsh", "itq", "sh", "sdh"]


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads(), faiss.omp_get_max_threads()
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    yield
    torch.set_num_threads(before[0])
    faiss.omp_set_num_threads(before[1])


def clusters(count=240, classes=6, dimensions=16, seed=0, spread=1.0):
    """Classes around means that lie close together and far from the origin."""
    generator = torch.Generator().manual_seed(seed)
    means = 10 + 2 * torch.randn(classes, dimensions, generator=torch.Generator().manual_seed(99))
    labels = torch.arange(count) % classes
    return means[labels] + spread * torch.randn(count, dimensions, generator=generator), labels


def hamming(a, b):
    return (a[:, None] != b[None]).sum(-1)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bits", [1, 7, 16])
def test_codes_have_their_shape_and_two_values(name, bits):
    features, labels = clusters()
    codes = create_hash_function(name, bits).fit(features, labels)(features[:50])
    assert codes.shape == (50, bits) and codes.dtype == torch.float32
    assert set(codes.unique().tolist()) == {-1.0, 1.0}


@pytest.mark.parametrize("name", NAMES)
def test_a_code_depends_on_its_own_features_only(name):
    features, labels = clusters(count=5000, dimensions=8)
    function = create_hash_function(name, 8).fit(features[:300], labels[:300])
    codes, order = (
        function(features),
        torch.randperm(5000, generator=torch.Generator().manual_seed(0)),
    )
    assert torch.equal(function(features[order]), codes[order])
    assert torch.equal(
        torch.cat([function(row[None]) for row in features[4090:4100]]), codes[4090:4100]
    )
    assert torch.equal(function(features.double()), codes)


@pytest.mark.parametrize("name", NAMES)
def test_same_seed_same_codes(name):
    features, labels = clusters()
    first, again, other = (
        create_hash_function(name, 12, seed).fit(features, labels)(features) for seed in (3, 3, 4)
    )
    assert torch.equal(first, again)
    assert torch.equal(first, other) == (name == "sh")  # which draws nothing


def test_hamming_distance_of_lsh_is_the_angle():
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(8, 8, generator=generator)).Q
    angles = torch.tensor([15.0, 45, 60, 90, 120, 170]).deg2rad()
    query = basis[:1] * 3.0
    others = torch.cos(angles)[:, None] * basis[0] + torch.sin(angles)[:, None] * basis[1]
    for bits in (8, 20):  # as many as dimensions, and more
        functions = [create_hash_function("lsh", bits, seed).fit(others) for seed in range(400)]
        share = torch.stack([hamming(f(query), f(others))[0] / bits for f in functions]).mean(0)
        torch.testing.assert_close(share, angles / math.pi, atol=0.03, rtol=0)


def test_lsh_gives_the_codes_of_faiss():
    features, _ = clusters(dimensions=20)
    features = features - 10
    theirs = faiss.IndexLSH(20, 16, True, False)  # its rotation has seed 5
    bits = np.unpackbits(theirs.sa_encode(features.numpy()), axis=1, bitorder="little")
    ours = create_hash_function("lsh", 16, seed=5).fit(features)(features)
    assert torch.equal(ours, torch.from_numpy(bits) * 2.0 - 1)


def principal_components(features, bits):
    """By numpy's singular value decomposition, of centred features of unit length."""
    centred = features.double().numpy() - features.double().numpy().mean(0)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    return centred, np.linalg.svd(centred, full_matrices=False)[2][:bits]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("bits", [4, 12])
def test_itq_rotates_the_principal_subspace_and_loses_less_than_pca(seed, bits):
    features, _ = clusters(seed=seed)
    function = create_hash_function("itq", bits, seed).fit(features)
    units, components = principal_components(features, bits)
    directions = function.directions.numpy()
    np.testing.assert_allclose(directions @ directions.T, np.eye(bits), atol=1e-5)
    rotation = directions @ components.T
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(bits), atol=1e-4)

    def loss(projected):
        return sum((math.copysign(1, x) - x) ** 2 for row in projected.tolist() for x in row)

    assert loss(units @ directions.T) < loss(units @ components.T)
    expected = torch.from_numpy(units @ directions.T)
    clear = expected.abs() > 1e-5  # faiss computes the mean in single precision
    assert torch.equal(function(features)[clear], expected.sign().float()[clear])


def naive_waves(extent, bits, width=0.5):
    """Every eigenvalue of every side, sorted."""
    result = []
    for side, length in enumerate(extent):
        for mode in range(1, bits + 1):
            result.append(
                (1 - math.exp(-(width**2) / 2 * abs(mode * math.pi / length) ** 2), mode, side)
            )
    return [(side, mode) for _, mode, side in sorted(result)[:bits]]


@pytest.mark.parametrize("extent", [(2.0, 1.1), (1.0, 1.0), (9.7, 1.3, 4.1)])
@pytest.mark.parametrize("bits", [1, 2, 5, 14])
def test_waves_have_the_smallest_eigenvalues(extent, bits):
    side, mode = smoothest_waves(torch.tensor(extent, dtype=torch.float64), bits)
    assert list(zip(side.tolist(), mode.tolist(), strict=True)) == naive_waves(extent, bits)


def test_a_side_without_extent_has_no_wave():
    assert smoothest_waves(torch.tensor([0.0, 0.5, 0.0]), 3)[0].tolist() == [1, 1, 1]


@pytest.mark.parametrize("bits", [2, 9])
def test_spectral_hashing_of_a_rectangle_is_the_sine_formula(bits):
    x, y = torch.meshgrid(torch.linspace(-3, 5, 41), torch.linspace(1, 4.1, 30), indexing="ij")
    grid = torch.stack(
        [x.flatten(), y.flatten()], dim=1
    ).double()  # its principal directions are the axes
    function = create_hash_function("sh", bits).fit(grid)
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(300, 2, generator=generator).double() * 12 - torch.tensor(
        [4.0, 3.0]
    )  # some lie outside the rectangle
    for point, code in zip(points.tolist(), function(points).tolist(), strict=True):
        expected = []
        for side, mode in naive_waves((8.0, 3.1), bits):
            along = point[side] - (-3, 1)[side]
            expected.append(math.sin(math.pi / 2 + mode * math.pi / (8.0, 3.1)[side] * along))
        assert code == [math.copysign(1, value) for value in expected]


def test_spectral_hashing_does_not_see_where_features_lie():
    features = clusters()[0].double()
    turn = torch.linalg.qr(
        torch.randn(16, 16, generator=torch.Generator().manual_seed(1)).double()
    ).Q
    moved = features @ turn + 5
    codes, moved_codes = (create_hash_function("sh", 24).fit(x)(x) for x in (features, moved))
    assert torch.equal(hamming(moved_codes, moved_codes), hamming(codes, codes))


def test_principal_directions_are_those_of_numpy_and_point_one_way():
    features = clusters()[0].double()
    centred = features - features.mean(0)
    result = principal_directions(centred, 5)
    expected = torch.from_numpy(np.linalg.svd(centred.numpy(), full_matrices=False)[2][:5])
    torch.testing.assert_close((result * expected).sum(1).abs(), torch.ones(5).double())
    assert all(row[row.abs().argmax()] > 0 for row in result)


def test_ridge_regression_is_least_squares_with_extra_rows():
    generator = torch.Generator().manual_seed(0)
    inputs, outputs = (
        torch.randn(20, 4, generator=generator).double(),
        torch.randn(20, 3, generator=generator).double(),
    )
    extended = np.concatenate([inputs.numpy(), math.sqrt(0.3) * np.eye(4)])
    expected = np.linalg.lstsq(
        extended, np.concatenate([outputs.numpy(), np.zeros((4, 3))]), rcond=None
    )[0]
    np.testing.assert_allclose(ridge_regression(inputs, 0.3)(outputs).numpy(), expected, atol=1e-10)


def sdh_objective(codes, classifier, target, projected, nu):
    """Entry by entry, without |W|^2 and |P|^2, which do not depend on the codes."""
    total = 0.0
    for code, wanted, guess in zip(
        codes.tolist(), target.tolist(), projected.tolist(), strict=True
    ):
        for c, y in enumerate(wanted):
            total += (
                y - sum(b * w[c] for b, w in zip(code, classifier.tolist(), strict=True))
            ) ** 2
        total += nu * sum((b - f) ** 2 for b, f in zip(code, guess, strict=True))
    return total


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("nu", [1e-5, 0.5])
def test_discrete_descent_never_raises_the_objective_and_ends_where_no_bit_can_improve(seed, nu):
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=generator).double()
    codes, classifier, projected = draw(12, 6).sign(), draw(6, 4), draw(12, 6)
    target = torch.eye(4).double()[torch.arange(12) % 4]
    linear = target @ classifier.T + nu * projected
    before = sdh_objective(codes, classifier, target, projected, nu)
    for _ in range(4):
        codes = discrete_descent(codes, classifier, linear, sweeps=1)
        after = sdh_objective(codes, classifier, target, projected, nu)
        assert after <= before + 1e-9
        before = after
    codes = discrete_descent(codes, classifier, linear, sweeps=50)
    best = sdh_objective(codes, classifier, target, projected, nu)
    for i in range(12):
        for bit in range(6):
            flipped = codes.clone()
            flipped[i, bit] *= -1
            assert sdh_objective(flipped, classifier, target, projected, nu) >= best - 1e-9


def same_class_first(codes, labels, others, other_labels):
    """The share of queries whose nearest codes, ties included, are of their class; naive."""
    score = 0.0
    for row, label in zip(hamming(codes, others), labels, strict=True):
        nearest = row == row.min()
        score += (other_labels[nearest] == label).float().mean().item()
    return score / len(codes)


@pytest.mark.parametrize("seed", range(3))
def test_sdh_separates_classes_that_lsh_cannot(seed):
    features, labels = clusters(count=240, seed=1, spread=1.5)
    queries, query_labels = clusters(count=120, seed=2, spread=1.5)
    score = {}
    for name in ("sdh", "lsh"):
        function = create_hash_function(name, 12, seed).fit(features, labels)
        score[name] = same_class_first(function(queries), query_labels, function(features), labels)
    assert score["sdh"] > 0.95 and score["sdh"] > score["lsh"] + 0.3


def test_sdh_separates_classes_that_no_plane_does():
    generator = torch.Generator().manual_seed(0)
    features = torch.rand(600, 2, generator=generator) * 2 - 1
    labels = (
        features[:, 0] * features[:, 1] > 0
    ).long() * 7 - 3  # chequered, and labels need not count from 0
    function = SDH(4, anchors=100).fit(features[:400], labels[:400])
    assert len(function.anchors) == 100
    assert (
        same_class_first(
            function(features[400:]), labels[400:], function(features[:400]), labels[:400]
        )
        > 0.85
    )


def test_sdh_uses_all_features_as_anchors_when_there_are_few():
    features, labels = clusters(count=30)
    anchors = create_hash_function("sdh", 8).fit(features, labels).anchors
    assert sorted(map(tuple, anchors.tolist())) == sorted(map(tuple, features.double().tolist()))


def broken(row, value):
    features = clusters()[0].clone()
    features[row, 2] = value
    return features


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "features, message",
    [
        (broken(7, math.nan), "1 of 240 features hold NaN or infinity, first at row 7"),
        (broken(0, math.inf), "first at row 0"),
        (torch.ones(5), r"\(N, D\) matrix"),
        (torch.ones(0, 4), r"\(N, D\) matrix"),
        (torch.ones(5, 4, dtype=torch.long), "real numbers"),
    ],
)
def test_bad_features_are_refused(name, features, message):
    with pytest.raises(ValueError, match=message):
        create_hash_function(name, 4).fit(features, torch.zeros(len(features)))
    with pytest.raises(ValueError, match=message):
        create_hash_function(name, 4).fit(*clusters())(features)


@pytest.mark.parametrize("name", NAMES)
def test_other_refusals(name):
    features, labels = clusters()
    with pytest.raises(ValueError, match="bits is 0"):
        create_hash_function(name, 0)
    with pytest.raises(
        ValueError, match="features have 9 dimensions, this function was fitted to 16"
    ):
        create_hash_function(name, 4).fit(features, labels)(features[:, :9])
    with pytest.raises(ValueError, match="fit"):
        create_hash_function(name, 4)(features)
    if name != "lsh":  # which learns nothing from them
        with pytest.raises(ValueError, match="all 30 are equal"):
            create_hash_function(name, 4).fit(features[:1].expand(30, -1), labels[:30])


def test_unknown_hash_function_is_refused_with_the_list():
    with pytest.raises(
        ValueError, match="hash function is 'ksh': it must be one of lsh, itq, sh, sdh"
    ):
        create_hash_function("ksh", 8)


def test_itq_needs_a_principal_direction_for_each_bit():
    features, _ = clusters()
    with pytest.raises(
        ValueError, match="240 features of 16 dimensions have at most 16, too few for 17 bits"
    ):
        create_hash_function("itq", 17).fit(features)
    with pytest.raises(
        ValueError, match="8 features of 16 dimensions have at most 7, too few for 8 bits"
    ):
        create_hash_function("itq", 8).fit(features[:8])
    assert create_hash_function("itq", 7).fit(features[:8])(features).shape == (240, 7)


def test_spectral_hashing_can_have_more_bits_than_dimensions():
    features = torch.rand(500, 3, generator=torch.Generator().manual_seed(0))
    codes = create_hash_function("sh", 40).fit(features)(features)
    assert len({tuple(column) for column in codes.T.tolist()}) == 40  # no bit twice


@pytest.mark.parametrize(
    "labels, message",
    [(None, "supervised"), (torch.zeros(240).long(), "one class"), (torch.arange(239), "shape")],
)
def test_sdh_needs_labels_of_several_classes(labels, message):
    with pytest.raises(ValueError, match=message):
        create_hash_function("sdh", 8).fit(clusters()[0], labels)
