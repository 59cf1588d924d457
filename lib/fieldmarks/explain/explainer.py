"""What all explanations of a match share: one signature, and a network left as it was found.

An explainer is a function

    explain(embed, backbone, query, match) -> maps

of a network's `embed`, (B, 3, H, W) -> (B, D) before it is brought to unit length, which runs the
module `backbone` once; of its `backbone`, (B, 3, H, W) -> (B, C, h, w); and of B pairs of
normalised images. Its maps,
(B, H, W) float32 in [0, 1] over the match, show where lies what makes it similar to its query: each
is cut at zero and divided by its maximum, and is 0 where nothing speaks for the similarity.
Exchange the two for a map over the query. Explanations are those of the network in evaluation mode,
as far as it can be reached: the backbone, and `embed` where it is a module or a method of one."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fieldmarks.memory import keep_freed_memory

Outputs = Callable[[Tensor], Tensor]
Explainer = Callable[[Outputs, nn.Module, Tensor, Tensor], Tensor]

CHUNK = 32  # images that go through a network at a time, where an explanation needs many


@contextmanager
def evaluating(embed: Outputs, backbone: nn.Module) -> Iterator[None]:
    """Evaluation mode for the time being; afterwards every module has its own mode again."""
    keep_freed_memory()
    parts = [embed, getattr(embed, "__self__", None), backbone]
    modules = [m for part in parts if isinstance(part, nn.Module) for m in part.modules()]
    modes = [module.training for module in modules]
    for module in modules:
        module.training = False
    try:
        yield
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode


@contextmanager
def remembering(backbone: nn.Module, *images: Tensor) -> Iterator[None]:
    """For the time being, the backbone runs once for each of these tensors of images where it is
    given it without gradients, so that many explainers of the same pairs cost what one does. NOTE
    they are told from others by identity: do not write into them, and leave the weights and the
    mode as they are."""
    forward, known = backbone.forward, {}

    def recall(given: Tensor, *args, **kwargs):
        key = (id(given), backbone.training)
        if torch.is_grad_enabled() or not any(given is each for each in images):
            return forward(given, *args, **kwargs)
        if key not in known:
            known[key] = forward(given, *args, **kwargs)
        return known[key]

    with _forward(backbone, recall):
        yield


def pair_features(embed: Outputs, backbone: nn.Module, query: Tensor, match: Tensor):
    """The queries' embeddings (B, D) and the matches' feature maps (B, C, h, w), without gradients.
    ValueError where the images are not as many pairs, or the backbone gives no feature maps."""
    check_pairs(query, match)
    with torch.no_grad():
        features = backbone(match)
        check_features(features)
        return embed(query).float(), features


@contextmanager
def _forward(module: nn.Module, function: Callable) -> Iterator[None]:
    """Another `forward` for the time being."""
    own = vars(module).get("forward")
    module.forward = function
    try:
        yield
    finally:
        del module.forward
        if own is not None:
            module.forward = own


def after_backbone(embed: Outputs, backbone: nn.Module, images: Tensor) -> Outputs:
    """What `embed` makes of feature maps: a function (n, C, h, w) -> (n, D), which runs `embed`
    with these in the place of what the backbone gives, at no cost of the backbone. images: (B, 3,
    H, W), of which only shape and type matter. RuntimeError: `embed` does not run it once."""

    def run(features: Tensor) -> Tensor:
        seen = []

        def given(inputs, *args, **kwargs):
            seen.append(len(inputs))
            return features

        with _forward(backbone, given):
            embeddings = embed(images[:1].expand(len(features), -1, -1, -1))
        if seen != [len(features)]:
            batches = f"it saw batches of {seen}"
            raise RuntimeError(f"the backbone must see all {len(features)} images once, {batches}")
        return embeddings.float()

    return run


def cosine(embeddings: Tensor, reference: Tensor, hold_length: bool = False) -> Tensor:
    """Cosines (B,) of embeddings (B, D) to references (B, D), (1, D) or (D,); 0 for one of length
    0. hold_length: take the embedding's own length for a constant, see `gradcam.pair_map`; a
    ValueError where all are of unit length, for then it is not known."""
    given, wanted = tuple(reference.shape), tuple(embeddings.shape)
    if given not in (wanted, wanted[1:], (1, *wanted[1:])):
        raise ValueError(f"reference embeddings {given} do not fit embeddings {wanted}")
    reference = reference.to(embeddings).detach().expand_as(embeddings)
    if not hold_length:
        return F.cosine_similarity(embeddings, reference, dim=1)
    length = embeddings.norm(dim=1).detach().clamp(min=torch.finfo(embeddings.dtype).tiny)
    if ((length - 1).abs() < 1e-3).all():
        problem = "`embed` gives unit vectors, so their length cannot be held: "
        raise ValueError(f"{problem}give it before normalisation (`representation` of a method)")
    return (embeddings * F.normalize(reference, dim=1)).sum(1) / length


def to_maps(heat: Tensor, size) -> Tensor:
    """(B, h, w) -> (B, H, W): cut at zero, bilinear, each divided by its maximum."""
    heat = heat.float()[:, None].relu()
    maps = F.interpolate(heat, tuple(size), mode="bilinear", align_corners=False)
    peak = maps.amax(dim=(2, 3), keepdim=True)
    return torch.where(peak > 0, maps / peak, 0.0)[:, 0]


def check_pairs(query: Tensor, match: Tensor) -> None:
    if query.ndim != 4 or match.ndim != 4 or len(query) != len(match) or not len(query):
        shapes = f"{tuple(query.shape)} and {tuple(match.shape)}"
        raise ValueError(f"query and match must be as many images (B, 3, H, W), got {shapes}")


def check_features(features: Tensor) -> None:
    if not isinstance(features, Tensor) or features.ndim != 4:
        shape = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
        raise ValueError(f"the backbone must return a feature map (B, C, h, w), got {shape}")
