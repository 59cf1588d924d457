"""VegFru, 292 kinds of vegetables and fruit.

Source: Hou et al., VegFru: A Domain-Specific Dataset for Fine-grained Visual Categorization, 2017.
"""

from __future__ import annotations

from pathlib import Path

from fieldmarks.data.imageset import ImageSet
from fieldmarks.data.layouts.reading import compact, find_home, read_words, require_files, whole

TREE = """  vegfru/
    vegfru_list/vegfru_train.txt  vegfru_val.txt  vegfru_test.txt
    veg200_images/Chinese_artichoke/v_14_01_0001.jpg ...
    fru92_images/Chinese_chestnut/*.jpg ..."""

SPLITS = ("train", "val", "test")
CLASSES = 292


class VegFru(ImageSet):
    """An ImageSet whose closed split leaves the validation images out of both sides.

    Papers on hashing train on the 29,200 images of the train list and query with the 116,931 of the test list, and use
    the 14,600 of the validation list nowhere; those of FGVC-Aircraft train on train and val together. All else,
    `open_split` too, keeps the validation images.
    """

    def closed_split(self) -> tuple[ImageSet, ImageSet]:
        """The official (train, test) without "val".

        Raises:
            ValueError: one side is empty.
        """
        published = self.subset([word != "val" for word in self.split])
        return ImageSet.closed_split(published)


def load(root: Path) -> VegFru:
    """Read the folder that holds ``vegfru_list``, or its parent. All three lists are pooled.

    A class bears the name of its folder.

    Raises:
        FileNotFoundError: a list or an image is missing; the first is named, and the expected tree shown.
        ValueError: an image listed twice, a class number outside 0 .. 291, or one whose images lie in the folder of
            another; the file and line are named.
    """
    home = find_home(root, "vegfru", TREE, "vegfru_list/vegfru_train.txt", ["vegfru", "VegFru"])
    lists = {word: home / "vegfru_list" / f"vegfru_{word}.txt" for word in SPLITS}
    require_files("vegfru", TREE, list(lists.values()))
    files, class_ids, split = [], [], []
    seen: set[str] = set()
    folder_of: dict[int, str] = {}
    class_of: dict[str, int] = {}
    for word, file in lists.items():
        for line, (image, number) in read_words(file, 2):
            class_id, folder = whole(file, line, number), image.rpartition("/")[0]
            if not 0 <= class_id < CLASSES:
                raise ValueError(
                    f"{file} line {line}: class {class_id} is not one of 0 .. {CLASSES - 1}"
                )
            if image in seen:
                raise ValueError(f"{file} line {line}: {image} is listed a second time")
            if (
                folder_of.setdefault(class_id, folder) != folder
                or class_of.setdefault(folder, class_id) != class_id
            ):
                raise ValueError(
                    f"{file} line {line}: {folder} is class {class_id}, but an earlier line gives that "
                    f"folder or that class another; a class is one folder"
                )
            seen.add(image)
            files.append(image)
            class_ids.append(class_id)
            split.append(word)
    paths = [home / file for file in files]
    require_files("vegfru", TREE, paths)
    names = {class_id: folder_of[class_id].rpartition("/")[2] for class_id in sorted(folder_of)}
    labels, class_names = compact(class_ids, names)
    return VegFru(
        name="vegfru", paths=paths, labels=labels, class_names=class_names, split=split, root=home
    )
