"""A set of labelled images and the ways of splitting it that fine-grained papers use.

An :class:`ImageSet` holds names and numbers, never pixels: it is made by a layout (``fieldmarks.data.layouts``), cut by
the splits below, and read by ``fieldmarks.data.pixels``.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False, repr=False)
class ImageSet:
    """Images with labels and whatever else the data set says about them.

    Attributes:
        name: the data set's name, for messages and provenance.
        paths: N absolute image files.
        labels: LongTensor (N,), 0 .. C-1.
        class_names: C names; the label is the index.
        attributes: float Tensor (N, A): 0 absent, 1 present, a fraction where people disagree, NaN unknown; or None.
        attribute_names: A names, or None.
        boxes: float Tensor (N, 4): x y width height of the object, in pixels of the file, x and y the upper left
            corner counted from 0, as CUB writes them (not two corners); NaN for an image without one; or None.
        parts: float Tensor (N, P, 3): x y in pixels of the file, and visible 1 or 0 (x = y = 0 where not); or None.
        part_names: P names, or None.
        split: N words of the official split, or None: "train" "test" ("val" too for Aircraft and VegFru; "train" "query" "gallery"
            for In-Shop).
        root: the folder that the paths are compared from in `fingerprint`; by default the deepest folder holding all.

    Raises:
        ValueError: lengths or shapes that do not agree, labels outside 0 .. C-1, a relative path.
    """

    name: str
    paths: list[Path]
    labels: Tensor
    class_names: list[str]
    attributes: Tensor | None = None
    attribute_names: list[str] | None = None
    boxes: Tensor | None = None
    parts: Tensor | None = None
    part_names: list[str] | None = None
    split: list[str] | None = None
    root: Path | None = None

    def __post_init__(self) -> None:
        count = len(self.paths)
        for field in ("labels", "attributes", "boxes", "parts", "split"):
            value = getattr(self, field)
            if value is not None and len(value) != count:
                raise ValueError(f"{self.name}: {count} paths but {len(value)} {field}")
        if self.labels.dtype != torch.long or self.labels.dim() != 1:
            raise ValueError(
                f"{self.name}: labels must be a LongTensor (N,), not {self.labels.dtype} "
                f"{tuple(self.labels.shape)}"
            )
        if count and not 0 <= int(self.labels.min()) <= int(self.labels.max()) < len(
            self.class_names
        ):
            raise ValueError(
                f"{self.name}: labels run from {int(self.labels.min())} to {int(self.labels.max())}, "
                f"but there are {len(self.class_names)} class names"
            )
        self._check_shape("attributes", self.attribute_names, 1)
        self._check_shape("parts", self.part_names, 1)
        if self.boxes is not None and tuple(self.boxes.shape) != (count, 4):
            raise ValueError(f"{self.name}: boxes must be (N, 4), not {tuple(self.boxes.shape)}")
        relative = next((path for path in self.paths if not os.path.isabs(path)), None)
        if relative is not None:
            raise ValueError(f"{self.name}: {relative} is not an absolute path")

    def _check_shape(self, field: str, names: list[str] | None, dim: int) -> None:
        value = getattr(self, field)
        if value is not None and names is not None and value.shape[dim] != len(names):
            raise ValueError(f"{self.name}: {field} {tuple(value.shape)} but {len(names)} names")

    def __len__(self) -> int:
        return len(self.paths)

    def __repr__(self) -> str:
        words = [f"{len(self):,} images", f"{len(self.labels.unique()):,} classes"]
        if self.attributes is not None:
            words.append(f"{self.attributes.shape[1]} attributes")
        if self.boxes is not None:
            words.append("boxes")
        if self.parts is not None:
            words.append(f"{self.parts.shape[1]} parts")
        if self.split is not None:
            words.append(
                "split "
                + ", ".join(f"{word} {count:,}" for word, count in Counter(self.split).items())
            )
        return f"<ImageSet {self.name}: {', '.join(words)}>"

    # ---- parts of the set

    def subset(self, index) -> ImageSet:
        """The images at `index`, in that order; labels keep their numbers and `class_names` stays whole.

        Args:
            index: whole numbers (list, range, array or tensor) or a mask of N booleans.

        Raises:
            ValueError: a mask of another length, or an index that is neither whole numbers nor booleans.
            IndexError: a number outside the set.
        """
        index = self._positions(index)
        rows = index.tolist()
        return replace(
            self,
            paths=[self.paths[row] for row in rows],
            labels=self.labels[index],
            attributes=None if self.attributes is None else self.attributes[index],
            boxes=None if self.boxes is None else self.boxes[index],
            parts=None if self.parts is None else self.parts[index],
            split=None if self.split is None else [self.split[row] for row in rows],
        )

    def _positions(self, index) -> Tensor:
        index = torch.as_tensor(list(index) if isinstance(index, range) else index).flatten()
        if index.dtype == torch.bool:
            if len(index) != len(self):
                raise ValueError(f"{self.name}: a mask of {len(index)} for {len(self)} images")
            return index.nonzero().flatten()
        if len(index) == 0:
            return index.long()
        if index.is_floating_point() or index.is_complex():
            raise ValueError(
                f"{self.name}: an index holds whole numbers or booleans, not {index.dtype}"
            )
        return index.long()

    def open_split(self) -> tuple[ImageSet, ImageSet]:
        """Split by classes: (train, test) share no class.

        The first half of the classes that have images (C // 2, in class order) trains, the rest tests. Where the
        official split itself keeps the classes apart, that split is used: In-Shop (train against query and gallery
        together), or a folder with ``train/`` and ``unseen/``.

        Raises:
            ValueError: fewer than two classes.
        """
        classes = self.labels.unique()
        if len(classes) < 2:
            raise ValueError(
                f"{self.name}: an open split needs at least 2 classes, and there "
                f"{'is' if len(classes) == 1 else 'are'} {len(classes)}"
            )
        if self._split_separates_classes():
            train = self._is("train", "val")
        else:
            train = torch.isin(self.labels, classes[: len(classes) // 2])
        return self.subset(train), self.subset(~train)

    def closed_split(self) -> tuple[ImageSet, ImageSet]:
        """The official split by images, (train, test), of the same classes. "val" is part of train (Aircraft), but in
        VegFru, whose papers leave it out.

        Raises:
            ValueError: no official split, one side of it empty, or one that keeps the classes apart (In-Shop).
        """
        if self.split is None:
            raise ValueError(
                f"{self.name}: there is no official split into train and test; use open_split()"
            )
        train = self._is("train", "val")
        if train.all() or not train.any():
            raise ValueError(
                f"{self.name}: all {len(self):,} images are on one side of the official split"
            )
        if self._split_separates_classes():
            raise ValueError(
                f"{self.name}: there is no closed split, for the official train and test parts share no "
                f"class; use open_split()"
            )
        return self.subset(train), self.subset(~train)

    def query_gallery(self) -> tuple[Tensor, Tensor] | None:
        """(query, gallery): LongTensors of positions in this set, for In-Shop; None where there are no queries."""
        if self.split is None or not {"query", "gallery"} <= set(self.split):
            return None
        return self._is("query").nonzero().flatten(), self._is("gallery").nonzero().flatten()

    def _is(self, *words: str) -> Tensor:
        return torch.tensor([word in words for word in self.split], dtype=torch.bool)

    def _split_separates_classes(self) -> bool:
        if self.split is None:
            return False
        train = self._is("train", "val")
        seen, unseen = self.labels[train], self.labels[~train]
        return len(seen) > 0 and len(unseen) > 0 and not torch.isin(unseen, seen).any()

    # ---- numbers

    def class_counts(self) -> Tensor:
        """LongTensor (C,): images of each class; 0 for a class that this subset leaves out."""
        return torch.bincount(self.labels, minlength=len(self.class_names))

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits of the sha256 over the set's name, class names, relative paths and labels."""
        root = self.root or (
            os.path.commonpath([os.path.dirname(path) for path in self.paths])
            if self.paths
            else "/"
        )
        digest = hashlib.sha256("\0".join([self.name, *self.class_names]).encode())
        for path, label in zip(self.paths, self.labels.tolist()):
            name = Path(os.path.relpath(path, root)).as_posix()
            digest.update(f"\0{name}\0{label}".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()[:16]
