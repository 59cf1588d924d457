"""Class activation maps of a match, by the grad-cam package (pytorch_grad_cam, Gildenblat et al.).

Each is a weighted sum of the backbone's feature maps; methods differ in the weights. In place of a
class's score stands the cosine to the query.

NOTE the package puts a model in evaluation mode, writes gradients into its parameters, needs
parameters that are not frozen, may leave hooks behind, and stretches every map from its own
minimum. So it never meets the network: it is given a small one with the same features, gradients
and scores at the place that is explained, and its sums are taken before it stretches them."""

from types import SimpleNamespace
from unittest.mock import patch

import torch
from torch import Tensor, nn

from fieldmarks.checks import one_of
from fieldmarks.explain.explainer import (
    CHUNK,
    Explainer,
    Outputs,
    after_backbone,
    cosine,
    evaluating,
    pair_features,
    to_maps,
)

GRADIENTS = {  # what needs the score's gradients only, and the package's class
    "grad_cam": "GradCAM",  # Selvaraju et al., ICCV 2017
    "grad_cam_plus_plus": "GradCAMPlusPlus",  # Chattopadhay et al., WACV 2018
    "grad_cam_elementwise": "GradCAMElementWise",  # the package's: only positive products count
    "xgrad_cam": "XGradCAM",  # Fu et al., BMVC 2020
    "hires_cam": "HiResCAM",  # Draelos & Carin, 2020
    "layer_cam": "LayerCAM",  # Jiang et al., IEEE TIP 2021
    "eigen_cam": "EigenCAM",  # Muhammad & Yeasin, IJCNN 2020: no score at all
    "eigen_grad_cam": "EigenGradCAM",  # the package's: of features times gradients
}
SCORES = {  # what runs the network again for each of C channels
    "score_cam": "ScoreCAM",  # Wang et al., CVPR workshops 2020: masks the image by the channel
    "ablation_cam": "AblationCAM",  # Ramaswamy et al., WACV 2020: leaves the channel out
}
CAMS = (*GRADIENTS, *SCORES)


def cam(name: str, *, hold_length: bool = True) -> Explainer:
    """The explainer of one of CAMS. Those of GRADIENTS and "ablation_cam" need one pass of the
    backbone for the query and one for the match, "score_cam" C + 1 for the match.

    hold_length: for gradients take the match's embedding to be of constant length. The gradient of
        the full cosine is orthogonal to the embedding, which takes out of the map what the two
        images share most (see `gradcam.pair_map`); it is what most published maps show.

    NOTE "grad_cam_plus_plus" and "xgrad_cam" add small constants to denominators, beside which a
    cosine's gradients are nothing: gradients are brought to a root mean square of 1 and features
    down by as much, which changes no other number. The sign of a principal component is arbitrary:
    "eigen..." maps have the one whose extreme is larger (Chung & Ying, Applied Sciences 2025, eq.
    13). "ablation_cam" sets a channel to 0, as its paper does; the package takes a value below all
    others where these are not 0 somewhere. Nor is it divided by the score, which may be negative.
    Behind an average all places of a channel have one gradient, so that with the length held
    "grad_cam", "xgrad_cam" and "hires_cam" are one map, `place_map`; and where neither features nor
    the query are negative, "layer_cam" and "grad_cam_elementwise" are that one too.
    Scores of "score_cam" are cosines, to which its softmax over channels gives nearly one weight,
    so that it is close to the channel mean.

    Raises:
        ValueError: no such map, no pairs, no feature maps, or embeddings that are unit vectors, of
            which the length to be held is not known.
        RuntimeError: `embed` does not run the backbone once, or no gradient reaches it."""
    one_of("name", name, CAMS)

    def explain(embed: Outputs, backbone: nn.Module, query: Tensor, match: Tensor) -> Tensor:
        with evaluating(embed, backbone):
            reference, features = pair_features(embed, backbone, query, match)
            head = after_backbone(embed, backbone, match)
            if name in GRADIENTS:
                held = hold_length and name != "eigen_cam"  # which does not ask for gradients
                score = lambda features: cosine(head(features), reference, held)
                gradients = feature_gradients(score, features)
                heat = _of_gradients(GRADIENTS[name], features.float(), gradients)
            else:
                heat = _of_scores(name, backbone, head, reference, match, features)
        return to_maps(heat, match.shape[-2:]).to(match.device)

    return explain


def feature_gradients(score: Outputs, features: Tensor) -> Tensor:
    """Gradients (B, C, h, w) float32 of scores (B,), of which each depends on its own features.
    RuntimeError: there are none."""
    with torch.enable_grad():
        leaf = features.detach().requires_grad_()
        total = score(leaf).sum()  # images do not meet, so its gradient is each one's own
        if not total.requires_grad:
            raise RuntimeError("no gradient reaches the backbone: is `embed` run under no_grad?")
        return torch.autograd.grad(total, leaf)[0].float()


class _Place(nn.Module):
    """A network that is one place, and what follows from the features there."""

    def __init__(self, before: Outputs, after: Outputs):
        super().__init__()
        self.place, self.ends = nn.Identity(), (before, after)
        self.device = nn.Parameter(torch.zeros(()), requires_grad=False)  # the package asks for one

    def forward(self, inputs: Tensor) -> Tensor:
        before, after = self.ends
        return after(self.place(before(inputs)))


def _of_gradients(method: str, features: Tensor, gradients: Tensor) -> Tensor:
    if eigen := method.startswith("Eigen"):
        features = _turned(features * gradients if method == "EigenGradCAM" else features)
        gradients = torch.ones_like(features)
    unit = gradients.square().mean((1, 2, 3), keepdim=True).sqrt()
    unit = torch.where(unit > 0, unit, 1.0)
    gradients, features = (gradients / unit).cpu(), (features * unit).cpu().requires_grad_()
    network = _Place(nn.Identity(), lambda at_place: (at_place * gradients).sum((1, 2, 3)))
    targets = [lambda score: score] * len(features)
    with torch.enable_grad():
        heat = _run(method, network, features, targets)
    if eigen:
        low, high = heat.amin((1, 2), keepdim=True), heat.amax((1, 2), keepdim=True)
        heat = torch.where(-low > high, -heat, heat)
    return heat


def _turned(features: Tensor) -> Tensor:
    """(B, C, h, w) in a basis of at most h w channels, which leaves principal components as they
    are over places; the package decomposes C x C, at more than a backbone's time."""
    return torch.linalg.qr(features.flatten(2)).R.unflatten(2, features.shape[2:])


def _of_scores(name: str, backbone, head: Outputs, reference, match: Tensor, features) -> Tensor:
    targets = [lambda embedding, r=r: cosine(embedding[None], r)[0] for r in reference]
    with torch.no_grad():
        if name == "score_cam":
            return _run(SCORES[name], _Place(backbone, head), match, targets)
        options = {"ablation_layer": _zero_layer(), "batch_size": CHUNK}
        heat = _run(SCORES[name], _Place(nn.Identity(), head), features, targets, **options)
        score = cosine(head(features), reference).to(heat)  # which the package divides by
        return (heat * score[:, None, None]).nan_to_num()


def _zero_layer() -> nn.Module:
    from pytorch_grad_cam import AblationLayer

    class Zero(AblationLayer):
        def __call__(self, features: Tensor) -> Tensor:
            rows = torch.arange(len(self.activations))
            self.activations[rows, torch.as_tensor(self.indices[: len(rows)]).long()] = 0
            return self.activations

    return Zero()


class _Sums:
    """The package's weighted sums (B, h, w), before it cuts and stretches them."""

    def compute_cam_per_layer(self, inputs, targets, eigen_smooth):
        seen = self.activations_and_grads
        gradients = seen.gradients[0].numpy() if seen.gradients else None
        place, features = self.target_layers[0], seen.activations[0].numpy()
        return self.get_cam_image(inputs, place, targets, features, gradients, eigen_smooth)

    def aggregate_multi_layers(self, maps):
        return maps


def _run(method: str, network: _Place, inputs: Tensor, targets: list[Outputs], **options) -> Tensor:
    import pytorch_grad_cam
    from pytorch_grad_cam import ablation_cam, score_cam

    sums = type(method, (_Sums, getattr(pytorch_grad_cam, method)), {})
    quiet = SimpleNamespace(tqdm=lambda steps: steps)
    network.to(inputs.device)
    with patch.object(ablation_cam, "tqdm", quiet), patch.object(score_cam, "tqdm", quiet):
        maps = sums(network, [network.place], **options)(inputs, targets)
    return torch.as_tensor(maps)
