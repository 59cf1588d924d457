import pytest
import torch

from fieldmarks.explain.attributes import selective_dimensions, top_patches


@pytest.fixture
def responses():
    return torch.randn(40, 9, 6, generator=torch.Generator().manual_seed(0)).round(
        decimals=1
    )  # with ties


def naive(responses, dimension, count):
    best = []
    for image in range(len(responses)):
        values = responses[image, :, dimension].tolist()
        best.append((-max(values), image, values.index(max(values))))
    return [(image, patch, -score) for score, image, patch in sorted(best)[:count]]


def test_top_patches_equal_the_definition_at_most_one_per_image(responses):
    for given in (responses, responses.split(7), lambda: iter(responses.split(13))):
        top = top_patches(given, [4, 0], count=12)
        assert top.scores.shape == top.image.shape == top.patch.shape == (2, 12)
        for row, dimension in enumerate((4, 0)):
            actual = list(
                zip(
                    top.image[row].tolist(),
                    top.patch[row].tolist(),
                    top.scores[row].tolist(),
                    strict=True,
                )
            )
            assert (
                actual == naive(responses, dimension, 12)
                and len(set(top.image[row].tolist())) == 12
            )
    assert top_patches(responses[:3], [1], count=8).scores.shape == (1, 3)


def test_the_loud_and_rare_dimension_is_the_selective_one(responses):
    responses[:, :, 2] = 0.5  # dead
    responses[5, 3, 4] = 30.0  # rare and loud
    responses[:, :, 1] *= 20  # always loud
    for given in (responses, responses.split(11), lambda: iter(responses.split(7))):
        assert selective_dimensions(given, 6)[[0, -1]].tolist() == [4, 2]
        assert selective_dimensions(given, 6, by="variance")[[0, 1, -1]].tolist() == [1, 4, 2]
    flat = responses.flatten(0, 1).double()
    peak = (flat.amax(0) - flat.mean(0)) / flat.std(0, correction=0)
    expected = peak.nan_to_num(-1).sort(descending=True, stable=True).indices
    assert torch.equal(selective_dimensions(responses.split(3), 6), expected)


def test_bad_input(responses):
    with pytest.raises(ValueError, match=r"\(images, patches, dimensions\), got \(40, 9\)"):
        top_patches(responses[:, :, 0], [0])
    with pytest.raises(ValueError, match=r"between 0 and 5, got \[6\]"):
        top_patches(responses, [6])
    with pytest.raises(ValueError, match="no images"):
        top_patches([], [0])
    with pytest.raises(ValueError, match="no images"):
        selective_dimensions(responses[:0], 1)
    with pytest.raises(ValueError, match="the 6 dimensions, got 7"):
        selective_dimensions(responses, 7)
    with pytest.raises(ValueError, match="by is 'mean': it must be one of peak, variance"):
        selective_dimensions(responses, 2, by="mean")
    responses[30, 0, 1] = torch.nan
    with pytest.raises(ValueError, match="NaN, in the batch that starts at image 28"):
        top_patches(responses.split(14), [1])
