"""Food-101, photographs of dishes.

Source: Bossard et al., Food-101: Mining Discriminative Components with Random Forests, 2014."""

from pathlib import Path

from fieldmarks.data.imageset import ImageSet
from fieldmarks.data.layouts.reading import Copy, once, read_json, read_rows, shown

TREE = """  food-101/
    meta/classes.txt                                     (or labels.txt)
    meta/train.txt  meta/test.txt                        (or train.json, test.json)
    images/apple_pie/1005649.jpg ..."""


def load(root: Path, absent: bool = False) -> ImageSet:
    """Read the folder ``food-101`` or one above it. The classes stand in the order of classes.txt.
    Raises as `catalog.load`."""
    copy = Copy("food101", TREE, root, ["meta/train.txt", "meta/train.json"], absent)
    file, class_names = _class_names(copy)
    names = {name: name for name in class_names}
    rows = [(part, *row) for part in ("train", "test") for row in _listed(copy, part)]
    class_ids = [image.rpartition("/")[0] for *_, image in rows]
    for (_, place, image), class_id in zip(rows, class_ids, strict=True):
        if class_id not in names:
            expected = f"expected CLASS/IMAGE with one of the {len(names)} classes of {file.name}"
            raise ValueError(f"{place}: {expected}, found '{shown(image)}'")
    place_of = once((place, image) for _, place, image in rows)
    listed = [(place, image) for image, place in place_of.items()]
    paths = copy.paths(listed, "images", ".jpg")
    copy.require_images(paths, list(place_of.values()), copy.at("meta/train.txt"))
    return copy.images(paths, class_ids, names, split=[part for part, *_ in rows])


def _listed(copy: Copy, part: str) -> list[tuple[str, str]]:
    """(place, "class/image") of a part, from its .txt, or from its .json where that is all."""
    text, json = (copy.at(f"meta/{part}.{suffix}") for suffix in ("txt", "json"))
    if json.exists() and not text.exists():
        listed = []
        for key, images in read_json(json, dict).items():
            place = f"{json} class {shown(key)}"
            if not isinstance(images, list) or not all(isinstance(image, str) for image in images):
                raise ValueError(f"{place}: expected a list of images as CLASS/IMAGE")
            listed += [(place, image) for image in images]
        return listed
    copy.require(text)
    return [(place, image) for place, (image,) in read_rows(text, 1)]


def _class_names(copy: Copy) -> tuple[Path, list[str]]:
    """The file and its names: classes.txt has "apple_pie", labels.txt "Apple pie"."""
    classes, labels = (copy.at(f"meta/{file}.txt") for file in ("classes", "labels"))
    if labels.exists() and not classes.exists():
        return labels, [name.lower().replace(" ", "_") for _, (name,) in read_rows(labels, 1)]
    copy.require(classes)
    return classes, [name for _, (name,) in read_rows(classes, 1)]
