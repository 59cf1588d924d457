"""NABirds, 555 categories of North American birds.

Source: Van Horn et al., Building a Bird Recognition App and Large Scale Dataset with Citizen
Scientists, 2015."""

from pathlib import Path

from fieldmarks.data.imageset import ImageSet
from fieldmarks.data.layouts.cub import read_lists
from fieldmarks.data.layouts.reading import Copy

TREE = """  nabirds/
    images.txt  image_class_labels.txt  classes.txt  train_test_split.txt
    images/0817/0000139e21dc4d0cbfe14cae3c85c829.jpg ...
    bounding_boxes.txt                                   (optional)"""


def load(root: Path, absent: bool = False) -> ImageSet:
    """Read the folder ``nabirds`` or one above it; it is written as CUB is. classes.txt numbers a
    tree of birds, orders and families too; labels are the classes that have images, in the order of
    their numbers (295 is 0 in a full copy). Raises as `catalog.load`."""
    copy = Copy("nabirds", TREE, root, ["images.txt"], absent)
    return read_lists(copy, lambda place, image: image)[0]  # images are named by any text
