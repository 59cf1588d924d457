"""Food-101, photographs of dishes.

Source: Bossard et al., Food-101: Mining Discriminative Components with Random Forests, 2014."""

from pathlib import Path

from fieldmarks.data.imageset import ImageSet
from fieldmarks.data.layouts.reading import Copy, once, read_json, read_rows

TREE = """  food-101/
    meta/classes.txt                                     (or labels.txt)
    meta/train.txt  meta/test.txt                        (or train.json, test.json)
    images/apple_pie/1005649.jpg ..."""


def load(root: Path) -> ImageSet:
    """Read the folder ``food-101`` or its parent. The classes stand in the order of classes.txt.
    Raises as `catalog.load`."""
    markers = ["meta/train.txt", "meta/train.json"]
    copy = Copy("food101", TREE, root, markers, ["food-101", "food101"])
    names = {name: name for name in _class_names(copy)}
    rows = [(part, *row) for part in ("train", "test") for row in _listed(copy, part)]
    class_ids = [image.rpartition("/")[0] for *_, image in rows]
    for (_, place, image), class_id in zip(rows, class_ids, strict=True):
        if class_id not in names:
            expected = f"expected CLASS/IMAGE with one of the {len(names)} classes"
            raise ValueError(f"{place}: {expected}, found {image!r}")
    images = once((place, image) for _, place, image in rows)
    paths = [copy.home / "images" / f"{image}.jpg" for image in images]
    return copy.images(paths, class_ids, names, split=[part for part, *_ in rows])


def _listed(copy: Copy, part: str) -> list[tuple[str, str]]:
    """(place, "class/image") of a part, from its .txt, or from its .json where that is all."""
    text, json = (copy.home / "meta" / f"{part}.{suffix}" for suffix in ("txt", "json"))
    if json.is_file() and not text.is_file():
        content = read_json(json, dict)
        return [(f"{json} class {key}", str(image)) for key in content for image in content[key]]
    copy.require([text])
    return [(place, image) for place, (image,) in read_rows(text, 1)]


def _class_names(copy: Copy) -> list[str]:
    """classes.txt ("apple_pie"); labels.txt writes the same names as words ("Apple pie")."""
    classes, labels = (copy.home / "meta" / f"{file}.txt" for file in ("classes", "labels"))
    if labels.is_file() and not classes.is_file():
        return [name.lower().replace(" ", "_") for _, (name,) in read_rows(labels, 1)]
    copy.require([classes])
    return [name for _, (name,) in read_rows(classes, 1)]
