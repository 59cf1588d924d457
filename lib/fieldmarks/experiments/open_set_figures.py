"""The figures of the open-set experiment: what is drawn from where. How it is drawn is `show`'s business."""

from collections.abc import Mapping

import torch
from matplotlib.figure import Figure
from torch import Tensor

from fieldmarks.experiments.common_figures import (
    classes_at_a_glance,  # noqa: F401, for notebooks
    readable,
    rows_of_many_classes,
    shown,
)
from fieldmarks.experiments.open_set import Experiment, Retrieval
from fieldmarks.explain.attributes import selective_dimensions, top_patches
from fieldmarks.explain.gradcam import pair_map
from fieldmarks.methods.method import Method
from fieldmarks.methods.vapnet import patch_boxes
from fieldmarks.random import seeded
from fieldmarks.resampling import crop_and_resize
from fieldmarks.show import galleries, maps

COARSE = (2, 4)  # grids whose patches show something that a reader recognises


def some_queries(retrieval: Retrieval, count: int = 6, seed: int = 0) -> Tensor:
    """Query rows drawn at random, whatever came of them, from as many classes as there are."""
    return rows_of_many_classes(retrieval.labels[retrieval.queries()], count, seed)


def top_ten(experiment: Experiment, retrievals: Mapping[str, Retrieval], rows: Tensor) -> Figure:
    """The same queries' ten nearest images under each retrieval."""
    first = next(iter(retrievals.values()))
    available = len(first.labels) - 1 if first.gallery is None else len(first.gallery)
    pixels, blocks = experiment.test_pixels, {}
    for name, retrieval in retrievals.items():
        found, scores, correct = retrieval.neighbours(rows, min(10, available))
        blocks[name] = ([[pixels[i] for i in row] for row in found.tolist()], correct, scores)
    queries = first.queries()[rows]
    titles = [readable(experiment.test.class_names[i]) for i in first.labels[queries].tolist()]
    return galleries.before_after([pixels[i] for i in queries.tolist()], blocks, titles)


def sources_of_attributes(
    experiment: Experiment, retrieval: Retrieval, rows: Tensor, views: int = 3
) -> Figure:
    """The paper's Fig. 3: whole views and local views, each with its Grad-CAM for the cosine to the query's nearest match."""
    images, references = _queries_and_matches(experiment, retrieval, rows)
    generator = seeded(experiment.parameters.seed, 8)
    candidates = patch_boxes(*images.shape[-2:], grids=COARSE)
    boxes = candidates[
        torch.randint(len(candidates), (len(images), views), generator=generator)
    ]  # (Q, M, 4)
    local = crop_and_resize(images, boxes, tuple(images.shape[-2:]))  # (Q, M, 3, H, W)
    method, whole = experiment.method.eval(), shown(experiment.backbone, images)
    grid = [
        ("whole view", whole, None),
        ("its response", whole, pair_map(method.describe, method.backbone, images, references)),
    ]
    for number in range(views):
        view = local[:, number]
        grid.append(
            (
                f"local view {number + 1}",
                shown(experiment.backbone, view),
                pair_map(method.describe, method.backbone, view, references),
            )
        )
    return maps.map_grid(grid)


def against_baseline(
    experiment: Experiment, name: str, baseline: Method, rows: Tensor, retrieval: Retrieval
) -> Figure:
    """The paper's Fig. 4: pairs of images of one class; what makes them similar to each other, for a baseline and this method.

    Each image's match is its nearest image of the same class under this method; the target is the cosine to the match's embedding
    under the method that is explained.
    """
    queries = retrieval.queries()[rows]
    partners = _nearest_of_class(retrieval, rows)
    images, others = experiment.test_images(queries), experiment.test_images(partners)
    grid = []
    for title, first, second in (("image", images, others), ("its match", others, images)):
        pictures = shown(experiment.backbone, first)
        grid.append((title, pictures, None))
        for label, method in ((name, baseline), ("this method", experiment.method)):
            method.eval()
            with torch.no_grad():
                references = method.embed(second)
            grid.append(
                (label, pictures, pair_map(method.describe, method.backbone, first, references))
            )
    titles = [readable(experiment.test.class_names[i]) for i in retrieval.labels[queries].tolist()]
    return maps.map_grid(grid, titles)


def attribute_patches(
    experiment: Experiment, dimensions: int = 6, images: int = 100, each: int = 8
) -> Figure | None:
    """The patches of unseen images that fire the most selective attribute dimensions; None for a method without attributes."""
    if not hasattr(experiment.method, "local_encoder"):
        return None
    count = len(experiment.test)
    index = torch.linspace(0, count - 1, min(images, count)).round().long()
    size = experiment.parameters.size
    boxes = patch_boxes(size, size, grids=COARSE)
    method = experiment.method.eval()
    responses = []
    with torch.no_grad():
        for part in index.split(16):
            views = crop_and_resize(
                experiment.test_images(part), boxes.expand(len(part), -1, -1), size
            )  # (n, P, 3, H, W)
            responses.append(
                method.attribute_responses(views.flatten(0, 1)).unflatten(0, (len(part), -1)).cpu()
            )
    responses = torch.cat(responses)
    chosen = selective_dimensions(responses, min(dimensions, responses.shape[2]))
    best = top_patches(responses, chosen, each)
    pictures = [
        list(shown(experiment.backbone, experiment.test_images(index[row]))) for row in best.image
    ]
    return galleries.patch_board(
        pictures, boxes[best.patch], best.scores, [f"dimension {d}" for d in chosen.tolist()]
    )


def unseen_map(experiment: Experiment, retrieval: Retrieval, classes: int = 12) -> Figure:
    """UMAP of the embeddings of some unseen classes."""
    present = retrieval.labels.unique()
    keep = torch.isin(
        retrieval.labels,
        present[torch.linspace(0, len(present) - 1, min(classes, len(present))).round().long()],
    )
    points = maps.project(retrieval.embeddings[keep], seed=experiment.parameters.seed)
    thumbnails = [experiment.test_pixels[i] for i in keep.nonzero().squeeze(1).tolist()]
    names = [readable(name) for name in experiment.test.class_names]
    return maps.embedding_map(points, retrieval.labels[keep], thumbnails, names)


def _queries_and_matches(
    experiment: Experiment, retrieval: Retrieval, rows: Tensor
) -> tuple[Tensor, Tensor]:
    images = experiment.test_images(retrieval.queries()[rows])
    return images, retrieval.embeddings[_nearest_of_class(retrieval, rows)].to(images.device)


def _nearest_of_class(retrieval: Retrieval, rows: Tensor) -> Tensor:
    """Position of each query's nearest image of its own class."""
    queries = retrieval.queries()[rows]
    pool = torch.arange(len(retrieval.labels)) if retrieval.gallery is None else retrieval.gallery
    scores = retrieval.embeddings[queries] @ retrieval.embeddings[pool].T
    same = retrieval.labels[pool] == retrieval.labels[queries][:, None]
    return pool[scores.masked_fill(~same | (pool == queries[:, None]), -2).argmax(1)]
