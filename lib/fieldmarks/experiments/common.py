"""What the experiments share: how a run is identified, generated data, which data a run uses."""

import dataclasses
import hashlib
import json
from pathlib import Path

from fieldguide.birds.guide import make_fieldguide
from fieldguide.garments.wardrobe import make_wardrobe

from fieldmarks.data import catalog
from fieldmarks.data.imageset import ImageSet
from fieldmarks.experiments.result import read_result
from fieldmarks.files import cache_home
from fieldmarks.progress import counter
from fieldmarks.training import Settings

BIRDS = "100 classes, 20 images, 128 px, seed 0, standard"
WARDROBE = "600 items, 1000 outfits, 128 px, seed 0"
NOT_IDENTITY = ("out", "card", "progress", "device", "baseline")


class RunParameters:
    """What an experiment's frozen dataclass of parameters can do; it names its metric in `monitor` and its folders in `kind`."""

    kind: str
    monitor: str

    def settings(self) -> Settings:
        shared = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(Settings)
            if hasattr(self, field.name)
        }
        return Settings(**shared)

    def identity(self) -> dict:
        """What the training depends on: all but where its output goes and how it is shown."""
        return {k: v for k, v in dataclasses.asdict(self).items() if k not in NOT_IDENTITY}

    def folder(self) -> Path:
        if self.out:
            return Path(self.out)
        digest = hashlib.sha256(json.dumps(self.identity(), sort_keys=True).encode()).hexdigest()[
            :10
        ]
        return Path("runs") / f"{self.kind}-{digest}"

    def check_pictures(self) -> None:
        """Raises ValueError, one line, where data and image sizes cannot be."""
        if not self.root and self.dataset != "fieldguide":
            raise ValueError(
                f"root is empty: give the folder of {self.dataset} (only the generated fieldguide needs none)"
            )
        if not 1 <= self.size <= self.resize:
            raise ValueError(
                f"size is {self.size} and resize is {self.resize}: size must be at least 1 and at most resize"
            )
        if self.batch_size < 2:
            raise ValueError(f"batch_size is {self.batch_size}: it must be at least 2")
        if len(self.crop_scale) != 2 or not 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1:
            raise ValueError(
                f"crop_scale is {list(self.crop_scale)}: give the smallest and the largest share, between 0 and 1"
            )
        if self.max_classes < 0 or self.max_classes == 1:
            raise ValueError(f"max_classes is {self.max_classes}: it must be 0 (all) or at least 2")


def siblings(folder: Path, kind: str, data: str) -> list[tuple[Path, dict]]:
    """Finished runs of a kind of experiment on the same data beside a run's folder: (folder, result)."""
    found = [
        (file.parent, read_result(file.parent))
        for file in sorted(folder.parent.glob("*/result.json"))
        if file.parent != folder
    ]
    return [
        (other, result)
        for other, result in found
        if result and result.get("experiment") == kind and result.get("data_fingerprint") == data
    ]


def named_run(baseline: str, data: str) -> dict:
    """The result of the finished run that the parameter `baseline` names.

    Raises:
        ValueError: it is not finished, or was made on other data.
    """
    result = read_result(baseline)
    if result is None:
        raise ValueError(
            f"baseline '{baseline}' is not a finished run: give the folder of a complete result.json"
        )
    if result.get("data_fingerprint") != data:
        raise ValueError(
            f"baseline '{baseline}' was made on other data: give a run on the same images and split"
        )
    return result


def load_images(p: RunParameters) -> ImageSet:
    """The data set that the parameters name: at `root`, or generated."""
    if p.root:
        return catalog.load(p.dataset, Path(p.root).expanduser())
    made = (
        make_birds(p.fieldguide, p.progress)
        if p.dataset == "fieldguide"
        else draw_wardrobe(p.wardrobe, p.progress)
    )
    return catalog.load(p.dataset, made)


def make_birds(words: str, progress: str = "none") -> Path:
    """The generated birds that `words` describes, made in the cache unless they are there.

    Raises:
        ValueError: words that do not read as the parameter's default does.
    """
    try:
        classes, images, size, seed, difficulty = (part.split() for part in words.split(","))
        numbers = {
            "classes": int(classes[0]),
            "images": int(images[0]),
            "size": int(size[0]),
            "seed": int(seed[1]),
        }
        expected = f"{numbers['classes']} classes, {numbers['images']} images, {numbers['size']} px, seed {numbers['seed']}, "
        if words != expected + difficulty[0]:
            raise ValueError
    except (ValueError, IndexError):
        raise ValueError(
            f"fieldguide is '{words}': write it as '{BIRDS}' (difficulty standard or hard)"
        ) from None
    name = "fieldguide-{classes}x{images}-{size}px-{seed}-".format(**numbers) + difficulty[0]
    return make_fieldguide(
        cache_home() / name,
        **numbers,
        difficulty=difficulty[0],
        progress=counter("birds drawn", progress),
    )


def draw_wardrobe(words: str, progress: str = "none") -> Path:
    """The generated wardrobe that `words` describes, made in the cache unless it is there.

    Raises:
        ValueError: words that do not read as the parameter's default does.
    """
    try:
        items, outfits, size, seed = (part.split() for part in words.split(","))
        numbers = {
            "items": int(items[0]),
            "outfits": int(outfits[0]),
            "size": int(size[0]),
            "seed": int(seed[1]),
        }
        if (
            words
            != f"{numbers['items']} items, {numbers['outfits']} outfits, {numbers['size']} px, seed {numbers['seed']}"
        ):
            raise ValueError
    except (ValueError, IndexError):
        raise ValueError(f"wardrobe is '{words}': write it as '{WARDROBE}'") from None
    folder = cache_home() / "wardrobe-{items}x{outfits}-{size}px-{seed}".format(**numbers)
    return make_wardrobe(folder, **numbers, progress=counter("garments drawn", progress))
