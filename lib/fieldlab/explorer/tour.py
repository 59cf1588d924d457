"""The pictures of notebooks/tour.ipynb, each drawn anew for a value of the control above it."""

from collections.abc import Callable
from itertools import groupby

import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from fieldguide.birds.attributes import MARKS
from fieldguide.birds.plate import draw_plate
from fieldguide.birds.species import Species, make_species
from fieldlab.explorer.controls import undisturbed
from fieldmarks.experiments.fewshot import FewShot
from fieldmarks.experiments.hashing import Hashing
from fieldmarks.experiments.open_set import OpenSet
from fieldmarks.explain.attributes import selective_dimensions, top_patches
from fieldmarks.methods.fcaenet import attention, erase_mask
from fieldmarks.methods.hashing import to_codes
from fieldmarks.methods.vapnet import patch_boxes
from fieldmarks.resampling import crop_and_resize
from fieldmarks.show import concepts, galleries, maps
from fieldmarks.show.examples import shown
from fieldmarks.show.names import names_of_concepts, readable

COARSE = (2, 4)  # grids whose patches show something that a reader recognises


def with_control(display: Callable, control, draw: Callable) -> None:
    """Show a control of ipywidgets and, below it, draw(its value), again whenever it changes.

    The picture is a plain output, which stays where there is no kernel: on a page, in print.

    Args:
        display: the notebook's own.
    """
    display(control)
    picture = display(draw(control.value), display_id=True)
    answer = undisturbed()(lambda change: picture.update(draw(change["new"])))
    control.observe(answer, "value")


def families(classes: int, siblings: int = 3) -> dict[str, list[Species]]:
    """The guide's families of so many look-alike species or more, by name."""
    species = make_species(classes, 0, "standard")
    groups = {name: list(group) for name, group in groupby(species, lambda one: one.family)}
    return {n.replace("_", " "): group for n, group in groups.items() if len(group) >= siblings}


def plate(classes: int, family: int) -> Image.Image:
    """A page of the guide: a family with its field marks, and photographs of it."""
    options = {"families": 1, "siblings": 3, "photographs": 2, "width": 900}
    return Image.fromarray(draw_plate(classes, first_family=family, **options))


def marks_that_differ(first: Species, second: Species) -> dict[str, tuple[str, str]]:
    """The attributes that tell two species apart: {"throat color": ("white", "red")}."""
    return {
        mark.replace("_", " "): tuple(one.marks[mark].replace("_", " ") for one in (first, second))
        for mark in MARKS
        if first.marks[mark] != second.marks[mark]
    }


def attribute_boards(
    experiment: OpenSet, count: int = 6, images: int = 24, each: int = 8
) -> list[Figure]:
    """For each of VAPNet's most selective attributes, the patches of unseen species to which it
    responds most, at most one an image."""
    size, method = experiment.parameters.size, experiment.method.eval()
    rows, boxes = experiment.test_set.spread(images), patch_boxes(size, size, COARSE)
    responses = []
    with torch.no_grad():
        for part in rows.split(8):
            places = boxes.expand(len(part), -1, -1)
            views = crop_and_resize(experiment.test_images(part), places, size)  # (n, P, 3, H, W)
            of_views = method.attribute_responses(views.flatten(0, 1))
            responses.append(of_views.unflatten(0, (len(part), -1)).cpu())
    chosen = selective_dimensions(responses, count)
    best = top_patches(responses, chosen, each)
    boards = []
    for scores, image, patch, number in zip(*best, chosen.tolist(), strict=True):
        pictures = shown(experiment.backbone, experiment.test_images(rows[image]))
        of_one = [pictures], boxes[patch][None], scores[None], [f"attribute {number}"]
        boards.append(galleries.patch_board(*of_one))
    return boards


def birds_to_compare(experiment: FewShot) -> dict[str, int]:
    """What to compare the first novel bird with, in words: another of its species, and one of each
    other species."""
    labels, names = experiment.novel.images.labels, experiment.novel.images.class_names
    others = {}
    for label in labels.unique().tolist():
        rows = (labels == label).nonzero().squeeze(1).tolist()
        own = label == int(labels[0])
        others[readable(names[label]) + " (the same species)" * own] = rows[own]
    return others


@torch.no_grad()
def shared_concepts(experiment: FewShot, second: int, first: int = 0) -> Figure:
    """Two novel birds, and the concepts that make their similarity."""
    novel, network = experiment.novel, experiment.method
    one, two = network.encode(novel.features[[first, second]]).split(1)
    _, scores, relevance = (part.cpu() for part in network.head(one, two))
    name = readable(novel.images.class_names[novel.images.labels[second]])
    names = names_of_concepts(network.head, experiment.attribute_names)
    birds = [novel.pixels[first]], [novel.pixels[second]]
    numbers = scores * relevance, relevance, scores
    return concepts.pair_board(*birds, *numbers, names, [f"with {name}"], top=8)


class Erasing:
    """Some queries with their hottest regions erased, and how many bits of their codes change."""

    def __init__(self, experiment: Hashing, count: int = 5):
        self.experiment = experiment
        self.images = experiment.query_images(experiment.query_set.spread(count))
        with torch.no_grad():
            self.heat = attention(experiment.backbone.eval()(self.images), self.images.shape[-2:])
        self.codes = self.code(self.images)

    @torch.no_grad()
    def code(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, k) of -1/+1."""
        return to_codes(self.experiment.method.eval().embed(images))

    def figure(self, regions: int) -> Figure:
        backbone = self.experiment.backbone
        mask = erase_mask(self.heat, regions, self.experiment.parameters.region_size)
        erased, birds = mask * self.images, shown(backbone, self.images)
        changed = (self.code(erased) != self.codes).sum(1).tolist()
        columns = [
            ("bird", birds, None),
            ("where the network is hottest", birds, self.heat.clamp(max=1).cpu()),
            (f"erased: {1 - mask.mean():.0%} of the picture", shown(backbone, erased), None),
        ]
        titles = [f"{number} of {self.codes.shape[1]} bits change" for number in changed]
        return maps.map_grid(columns, titles, legend="attention")
