"""Food-101, photographs of dishes.

Source: Bossard et al., Food-101: Mining Discriminative Components with Random Forests, 2014.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fieldmarks.data.imageset import ImageSet
from fieldmarks.data.layouts.reading import (
    compact,
    find_home,
    missing,
    read_json,
    read_words,
    require_files,
)

TREE = """  food-101/
    meta/classes.txt                                     (or labels.txt)
    meta/train.txt  meta/test.txt                        (or train.json, test.json)
    images/apple_pie/1005649.jpg ..."""


def load(root: Path) -> ImageSet:
    """Read the folder ``food-101`` or its parent. The classes stand in the order of classes.txt.

    Raises:
        FileNotFoundError: a list or an image is missing; the first is named, and the expected tree shown.
        ValueError: an image listed twice or of a class that is not listed; the file, and the line of a .txt, are named.
    """
    home = find_home(
        root, "food101", TREE, ["meta/train.txt", "meta/train.json"], ["food-101", "food101"]
    )
    classes = {name: name for name in _class_names(home / "meta")}
    images, class_ids, split = [], [], []
    seen: set[str] = set()
    for word in ("train", "test"):
        for place, image in _listed(home / "meta", word):
            class_id = image.rpartition("/")[0]
            if class_id not in classes:
                raise ValueError(
                    f"{place}: expected CLASS/IMAGE with one of the {len(classes)} classes, found {image!r}"
                )
            if image in seen:
                raise ValueError(f"{place}: {image} is listed a second time")
            seen.add(image)
            images.append(image)
            class_ids.append(class_id)
            split.append(word)
    paths = [home / "images" / f"{image}.jpg" for image in images]
    require_files("food101", TREE, paths)
    labels, class_names = compact(class_ids, classes)
    return ImageSet(
        name="food101", paths=paths, labels=labels, class_names=class_names, split=split, root=home
    )


def _listed(meta: Path, word: str) -> Iterator[tuple[str, str]]:
    """(where it stands, "class/image") of each image of a part, from its .txt, or from its .json where that is all."""
    text, json = meta / f"{word}.txt", meta / f"{word}.json"
    if text.is_file():
        for line, (image,) in read_words(text, 1):
            yield f"{text} line {line}", image
    elif json.is_file():
        for class_id, images in read_json(json, dict).items():
            for image in images:
                yield f"{json} class {class_id}", str(image)
    else:
        raise missing("food101", TREE, [text])


def _class_names(meta: Path) -> list[str]:
    """classes.txt ("apple_pie"); labels.txt writes the same names as words ("Apple pie")."""
    if (meta / "classes.txt").is_file():
        return [words[0] for _, words in read_words(meta / "classes.txt", 1)]
    if (meta / "labels.txt").is_file():
        return [
            words[0].lower().replace(" ", "_") for _, words in read_words(meta / "labels.txt", 1)
        ]
    raise missing("food101", TREE, [meta / "classes.txt"])
