"""The pictures of the tour (notebooks/tour.ipynb), each made anew for one value of the control above it."""

from collections.abc import Callable
from itertools import groupby

import torch
from fieldguide.birds.attributes import MARKS
from fieldguide.birds.plate import draw_plate
from fieldguide.birds.species import Species, make_species
from fieldmarks.experiments import fewshot, fewshot_figures, hashing, open_set
from fieldmarks.experiments.common_figures import readable, shown
from fieldmarks.explain.attributes import selective_dimensions, top_patches
from fieldmarks.methods.fcaenet import attention, erase_mask
from fieldmarks.methods.hashing import to_codes
from fieldmarks.methods.vapnet import patch_boxes
from fieldmarks.resampling import crop_and_resize
from fieldmarks.show import concepts, galleries, maps
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

COARSE = (2, 4)  # grids whose patches show something that a reader recognises


def with_control(display: Callable, control, draw: Callable) -> None:
    """Show a control of ipywidgets and, below it, draw(its value), drawn anew whenever it changes.

    The picture is a plain output of the cell, so that it stays where there is no kernel to ask: on a page, in print.

    Args:
        display: the notebook's own.
    """
    display(control)
    picture = display(draw(control.value), display_id=True)
    control.observe(lambda change: picture.update(draw(change["new"])), "value")


def families(classes: int, siblings: int = 3) -> dict[str, list[Species]]:
    """The guide's families of so many look-alike species or more, by name."""
    found = {
        family.replace("_", " "): list(group)
        for family, group in groupby(make_species(classes, 0, "standard"), lambda one: one.family)
    }
    return {family: group for family, group in found.items() if len(group) >= siblings}


def plate(classes: int, family: int) -> Image.Image:
    """A page of the guide: a family of look-alikes with their field marks, and photographs of them."""
    return Image.fromarray(
        draw_plate(classes, families=1, siblings=3, photographs=2, first_family=family, width=900)
    )


def marks_that_differ(first: Species, second: Species) -> dict[str, tuple[str, str]]:
    """The attributes that tell two species apart: {"throat color": ("white", "red")}."""
    return {
        mark.replace("_", " "): tuple(one.marks[mark].replace("_", " ") for one in (first, second))
        for mark in MARKS
        if first.marks[mark] != second.marks[mark]
    }


def attribute_boards(
    experiment: open_set.Experiment, count: int = 6, images: int = 24, each: int = 8
) -> list[Figure]:
    """For each of VAPNet's most selective attributes, the patches of unseen species that it responds to most, at most one an image."""
    index = (
        torch.linspace(0, len(experiment.test) - 1, min(images, len(experiment.test)))
        .round()
        .long()
    )
    size, method, responses = experiment.parameters.size, experiment.method.eval(), []
    boxes = patch_boxes(size, size, COARSE)
    with torch.no_grad():
        for part in index.split(8):
            views = crop_and_resize(
                experiment.test_images(part), boxes.expand(len(part), -1, -1), size
            )  # (n, P, 3, H, W)
            responses.append(
                method.attribute_responses(views.flatten(0, 1)).unflatten(0, (len(part), -1)).cpu()
            )
    responses = torch.cat(responses)
    chosen = selective_dimensions(responses, count)
    best = top_patches(responses, chosen, each)
    rows = zip(best.image, boxes[best.patch], best.scores, chosen.tolist())
    return [
        galleries.patch_board(
            [shown(experiment.backbone, experiment.test_images(index[image]))],
            place[None],
            scores[None],
            [f"attribute {d}"],
        )
        for image, place, scores, d in rows
    ]


def birds_to_compare(experiment: fewshot.Experiment) -> dict[str, int]:
    """What to hold the first novel bird against, in words: another of its species, and one of each other species."""
    labels, names = experiment.novel.images.labels, experiment.novel.images.class_names
    others = {}
    for label in labels.unique().tolist():
        rows = (labels == label).nonzero().squeeze(1).tolist()
        own = label == labels[0]
        others[f"{readable(names[label])}{' (the same species)' if own else ''}"] = rows[
            1 if own else 0
        ]
    return others


@torch.no_grad()
def shared_concepts(experiment: fewshot.Experiment, second: int, first: int = 0) -> Figure:
    """Two novel birds, and the concepts that make their similarity."""
    e = experiment
    one, two = e.network.encode(e.novel.features[[first, second]])
    _, scores, relevance = (part[None].cpu() for part in e.network.head(one, two))
    name = readable(e.novel.images.class_names[e.novel.images.labels[second]])
    return concepts.pair_board(
        [e.novel.pixels[first]],
        [e.novel.pixels[second]],
        scores * relevance,
        relevance,
        scores,
        fewshot_figures.names_of(e),
        [f"with {name}"],
        top=8,
    )


class Erasing:
    """Some queries with their hottest regions erased, and how many bits of their codes that changes."""

    def __init__(self, experiment: hashing.Experiment, count: int = 5):
        self.experiment, self.rows = (
            experiment,
            torch.linspace(0, len(experiment.queries) - 1, count).round().long(),
        )
        self.images = experiment.query_images(self.rows)
        with torch.no_grad():
            self.heat = attention(experiment.backbone.eval()(self.images), self.images.shape[-2:])
        self.codes = self.code(self.images)

    @torch.no_grad()
    def code(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, k) of -1/+1."""
        return to_codes(self.experiment.method.eval().embed(images))

    def figure(self, regions: int) -> Figure:
        e = self.experiment
        mask = erase_mask(self.heat, regions, e.parameters.region_size)
        erased = mask * self.images
        changed = (self.code(erased) != self.codes).sum(1).tolist()
        whole, bits = shown(e.backbone, self.images), self.codes.shape[1]
        titles = [f"{number} of {bits} bits change" for number in changed]
        return maps.map_grid(
            [
                ("bird", whole, None),
                ("where the network is hottest", whole, self.heat.clamp(max=1).cpu()),
                (f"erased: {1 - mask.mean():.0%} of the picture", shown(e.backbone, erased), None),
            ],
            titles,
            legend="attention",
        )
