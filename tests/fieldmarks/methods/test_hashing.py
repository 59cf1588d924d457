import pytest
import torch
from torch import nn

from fieldmarks.methods.hashing import HashMethod, to_codes


class Backbone(nn.Module):
    channels = 6

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(3, 6, 4, stride=4)

    def forward(self, images):
        return self.convolution(images).relu()


def test_codes_are_the_signs_and_zero_is_plus():
    assert to_codes(torch.tensor([[0.0, -0.0, -1e-9, 3.0]])).tolist() == [[1, 1, -1, 1]]
    with pytest.raises(ValueError, match="1 of 2 images are not numbers .*, first image 1"):
        to_codes(torch.tensor([[0.0], [torch.nan]]))


def test_outputs_are_tanh_of_a_linear_map_of_pooled_features():
    torch.manual_seed(0)
    method, images = HashMethod(Backbone(), 5), 30 * torch.randn(4, 3, 16, 16)
    pooled = method.backbone(images).mean((2, 3))
    layer = method.hash_layer
    expected = (pooled @ layer.weight.T + layer.bias).tanh()
    torch.testing.assert_close(method.embed(images), expected)
    assert method(images).abs().max() <= 1


def test_the_hash_layer_has_its_own_learning_rate():
    method = HashMethod(Backbone(), 5, hash_lr=0.01)
    rates = {
        id(p): group["lr"] for group in method.parameter_groups(0.5, 1e-4) for p in group["params"]
    }
    assert {rates[id(p)] for p in method.hash_layer.parameters()} == {0.005}
    assert {rates[id(p)] for p in method.backbone.parameters()} == {0.5} and len(rates) == 4


@pytest.mark.parametrize(
    "change, message",
    [
        ({"bits": 0}, "bits is 0: it must be at least 1"),
        ({"hash_lr": 0.0}, "hash_lr is 0.0: it must be positive"),
    ],
)
def test_impossible_settings_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        HashMethod(Backbone(), **{"bits": 5, **change})
