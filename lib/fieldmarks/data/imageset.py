"""A set of labelled images, names and numbers only, and the ways that papers split it."""

import hashlib
import os
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor

PER_IMAGE = ("paths", "labels", "attributes", "boxes", "parts", "masks", "split")


@dataclass(frozen=True, eq=False, repr=False)
class ImageSet:
    """Images with labels and whatever else the data set says about them.

    Raises ValueError for lengths or shapes that do not agree, labels outside 0 .. C-1, a relative
    path."""

    name: str  # the data set's name, for messages and provenance
    paths: list[Path]  # N absolute image files
    labels: Tensor  # LongTensor (N,), 0 .. C-1
    class_names: list[str]  # C
    # Float (N, A): 0 absent, 1 present, a fraction where people disagree, NaN unknown.
    attributes: Tensor | None = None
    attribute_names: list[str] | None = None  # A
    # Float (N, 4): x y width height of the object in pixels of the file, x and y the upper left
    # corner counted from 0; NaN for an image without one.
    boxes: Tensor | None = None
    # Float (N, P, 3): x y in pixels of the file, and visible 1 or 0 (x = y = 0 where not).
    parts: Tensor | None = None
    part_names: list[str] | None = None  # P
    masks: list[Path] | None = None  # of N image files, white where the object is
    # Each image's "train" or "test" ("val" too for Aircraft and VegFru; "train" "query" "gallery"
    # for In-Shop); None where there is no official split.
    split: list[str] | None = None
    root: Path | None = None  # of the paths in `fingerprint`; None: the deepest folder with all

    def __post_init__(self) -> None:
        if fault := self._fault():
            raise ValueError(f"{self.name}: {fault}")

    def _fault(self) -> str | None:
        labels, classes = self.labels, len(self.class_names)
        for field in PER_IMAGE:
            value = getattr(self, field)
            if value is not None and len(value) != len(self):
                return f"{len(self)} paths but {len(value)} {field}"
        if not isinstance(labels, Tensor) or labels.dtype != torch.long or labels.dim() != 1:
            found = getattr(labels, "dtype", type(labels).__name__), tuple(np.shape(labels))
            return f"labels must be a LongTensor (N,), not {found[0]} {found[1]}"
        low, high = (int(labels.min()), int(labels.max())) if len(labels) else (0, -1)
        if not 0 <= low or not high < classes:
            return f"labels run from {low} to {high}, but there are {classes} class names"
        for field, names in (("attributes", self.attribute_names), ("parts", self.part_names)):
            value = getattr(self, field)
            if value is not None and names is not None and value.shape[1] != len(names):
                return f"{field} {tuple(value.shape)} but {len(names)} names"
        if self.boxes is not None and tuple(self.boxes.shape) != (len(self), 4):
            return f"boxes must be (N, 4), not {tuple(self.boxes.shape)}"
        relative = next((path for path in self.paths if not os.path.isabs(path)), None)
        return f"{relative} is not an absolute path" if relative else None

    def __len__(self) -> int:
        return len(self.paths)

    def __repr__(self) -> str:
        text = f"{len(self):,} images, {len(self.labels.unique()):,} classes"
        if self.attributes is not None:
            text += f", {self.attributes.shape[1]} attributes"
        if self.boxes is not None:
            text += ", boxes"
        if self.parts is not None:
            text += f", {self.parts.shape[1]} parts"
        if self.masks is not None:
            text += ", masks"
        if self.split is not None:
            counts = Counter(self.split).items()
            text += ", split " + ", ".join(f"{part} {count:,}" for part, count in counts)
        return f"<ImageSet {self.name}: {text}>"

    def subset(self, index) -> Self:
        """The images at `index`, in that order; labels and `class_names` stay as they are.

        `index` has whole numbers (list, range, array or tensor) or is a mask of N booleans; others
        raise ValueError, numbers outside the set IndexError."""
        index = torch.as_tensor(list(index) if isinstance(index, range) else index).flatten()
        if index.dtype == torch.bool:
            if len(index) != len(self):
                raise ValueError(f"{self.name}: a mask of {len(index)} for {len(self)} images")
            index = index.nonzero().flatten()
        elif len(index) and (index.is_floating_point() or index.is_complex()):
            right = "an index holds whole numbers or booleans"
            raise ValueError(f"{self.name}: {right}, not {index.dtype}")
        index, fields = index.long(), {field: getattr(self, field) for field in PER_IMAGE}
        for field, value in fields.items():
            if isinstance(value, Tensor):
                fields[field] = value[index]
            elif value is not None:
                fields[field] = [value[row] for row in index.tolist()]
        return replace(self, **fields)

    def spread(self, count: int) -> Tensor:
        """LongTensor of positions: `count` images, or all, spread evenly over the set."""
        return torch.linspace(0, len(self) - 1, min(count, len(self))).round().long()

    def with_attributes(self, index: Tensor) -> Self:
        """With the attributes at these positions only."""
        names = self.attribute_names and [self.attribute_names[i] for i in index.tolist()]
        return replace(self, attributes=self.attributes[:, index], attribute_names=names)

    def open_split(self) -> tuple[Self, Self]:
        """Split by classes: (train, test) share no class. Raises ValueError for fewer than two.

        The first half of the classes that have images (C // 2, in class order) trains, the rest
        tests. Where the official split itself keeps the classes apart, that split is used: In-Shop
        (train against query and gallery together), or a folder with ``train/`` and ``unseen/``."""
        classes = self.labels.unique()
        if len(classes) < 2:
            there = f"there {'is' if len(classes) == 1 else 'are'} {len(classes)}"
            raise ValueError(f"{self.name}: an open split needs at least 2 classes, and {there}")
        train = torch.isin(self.labels, classes[: len(classes) // 2])
        if self._split_separates_classes():
            train = self._is("train", "val")
        return self.subset(train), self.subset(~train)

    def closed_split(self) -> tuple[Self, Self]:
        """The official split by images, (train, test), of the same classes. "val" is part of train
        (Aircraft), but in VegFru, whose papers leave it out. Raises ValueError where there is no
        such split, one side is empty, or it keeps the classes apart (In-Shop)."""
        if self.split is None:
            none = "there is no official split into train and test; use open_split()"
            raise ValueError(f"{self.name}: {none}")
        train = self._is("train", "val")
        if train.all() or not train.any():
            one_side = f"all {len(self):,} images are on one side of the official split"
            raise ValueError(f"{self.name}: {one_side}")
        if self._split_separates_classes():
            apart = "there is no closed split, for the official train and test parts share no class"
            raise ValueError(f"{self.name}: {apart}; use open_split()")
        return self.subset(train), self.subset(~train)

    def query_gallery(self) -> tuple[Tensor, Tensor] | None:
        """(query, gallery) of In-Shop, LongTensors of positions; None without queries."""
        if self.split is None or not {"query", "gallery"} <= set(self.split):
            return None
        return self._is("query").nonzero().flatten(), self._is("gallery").nonzero().flatten()

    def _is(self, *parts: str) -> Tensor:
        return torch.tensor([part in parts for part in self.split], dtype=torch.bool)

    def _split_separates_classes(self) -> bool:
        if self.split is None:
            return False
        train = self._is("train", "val")
        seen, unseen = self.labels[train], self.labels[~train]
        return len(seen) > 0 and len(unseen) > 0 and not torch.isin(unseen, seen).any()

    def class_counts(self) -> Tensor:
        """LongTensor (C,): images of each class; 0 for a class that this subset leaves out."""
        return torch.bincount(self.labels, minlength=len(self.class_names))

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits of sha256 over the set's name, classes, relative paths, labels."""
        folders = [os.path.dirname(path) for path in self.paths]
        root = self.root or (os.path.commonpath(folders) if folders else "/")
        digest = hashlib.sha256(
            "\0".join([self.name, *self.class_names]).encode("utf-8", "surrogatepass")
        )
        for path, label in zip(self.paths, self.labels.tolist(), strict=True):
            name = Path(os.path.relpath(path, root)).as_posix()
            digest.update(f"\0{name}\0{label}".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()[:16]
