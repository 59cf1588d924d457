"""VegFru, 292 kinds of vegetables and fruit.

Source: Hou et al., VegFru: A Domain-Specific Dataset for Fine-grained Visual Categorization, 2017.
"""

from pathlib import Path

from fieldmarks.data.imageset import ImageSet
from fieldmarks.data.layouts.reading import Copy, once, read_rows, shown, to_int

TREE = """  vegfru/
    vegfru_list/vegfru_train.txt  vegfru_val.txt  vegfru_test.txt
    veg200_images/Chinese_artichoke/v_14_01_0001.jpg ...
    fru92_images/Chinese_chestnut/*.jpg ..."""

CLASSES = 292


class VegFru(ImageSet):
    """An ImageSet whose closed split leaves the validation images out of both sides: papers on
    hashing train on the 29,200 images of the train list, query with the 116,931 of the test list,
    and use the 14,600 of the validation list nowhere. All else keeps those."""

    def closed_split(self) -> tuple[ImageSet, ImageSet]:
        """The official (train, test) without "val". Raises ValueError where one side is empty."""
        return ImageSet.closed_split(self.subset([part != "val" for part in self.split]))


def load(root: Path, absent: bool = False) -> VegFru:
    """Read the folder that holds ``vegfru_list``, or one above it. All three lists are pooled, and
    a class bears the name of its folder, which holds no other's images. Raises as `catalog.load`.
    """
    copy = Copy("vegfru", TREE, root, ["vegfru_list/vegfru_train.txt"], absent)
    lists = {p: copy.at(f"vegfru_list/vegfru_{p}.txt") for p in ("train", "val", "test")}
    copy.require(*lists.values())
    rows = [(part, *row) for part, file in lists.items() for row in read_rows(file, 2)]
    class_ids, folder_of, first = [], {}, {}
    for _, place, (image, text) in rows:
        number, top = to_int(place, text), image.rpartition("/")[0]
        if not 0 <= number < CLASSES:
            raise ValueError(f"{place}: class {number} is not one of 0 .. {CLASSES - 1}")
        for key in (number, top):  # a class is one folder, and a folder one class
            pair, earlier = first.setdefault(key, ((number, top), place))
            if pair != (number, top):
                other = f"{earlier} has class {pair[0]} in {shown(pair[1])}; a class is one folder"
                raise ValueError(f"{place}: {shown(top)} is class {number}, but {other}")
        folder_of[number] = top
        class_ids.append(number)
    place_of = once((place, image) for _, place, (image, _) in rows)
    paths = copy.paths((place, image) for image, place in place_of.items())
    copy.require_images(paths, list(place_of.values()), lists["train"])
    names = {number: folder_of[number].rpartition("/")[2] for number in sorted(folder_of)}
    return copy.images(paths, class_ids, names, VegFru, split=[part for part, *_ in rows])
