"""Which images make a batch, and the stream of batches that a training loop reads.

Everything random follows from (seed, epoch) or (seed, step) alone. A run that is taken up again at step s sees the batches and
views that it would have seen, and so do the processes of a distributed run, each its own rows of every batch.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from fieldmarks.random import seeded

AHEAD = 3  # batches assembled in the background while the device works


@dataclass
class Batch:
    """One process's share of a batch.

    Attributes:
        images: (b, 3, H, W) normalised views.  labels: (b,) long.  index: (b,) positions in the data set.
        total: images in the whole batch.  rows: this process's rows of it.  generator: seeded for this step, the same everywhere.
        positives: (b, 3, H, W) another image of each one's class, where the stream brings them.
        last: whether it ends an epoch.
    """

    images: Tensor
    labels: Tensor
    index: Tensor
    total: int
    rows: slice
    generator: torch.Generator
    positives: Tensor | None = None
    last: bool = False

    def draw(self, sample: Callable[[int, torch.Generator], Tensor]) -> Tensor:
        """sample(total, generator), of which this process keeps its rows."""
        return sample(self.total, self.generator)[self.rows]


def shuffled(count: int, batch_size: int, seed: int, epoch: int) -> list[Tensor]:
    """Every image once in random order; a last incomplete batch is left out.

    Raises:
        ValueError: fewer images than one batch.
    """
    if count < batch_size:
        raise ValueError(
            f"{count} training images do not fill a batch of {batch_size}: use a batch size of at most {count}"
        )
    order = torch.randperm(count, generator=seeded(seed, epoch))
    return list(order[: count // batch_size * batch_size].split(batch_size))


def class_balanced(
    labels: Tensor, batch_size: int, per_class: int, seed: int, epoch: int
) -> list[Tensor]:
    """Batches of batch_size / per_class classes with per_class images each, as many batches as a shuffled epoch has.

    Classes are dealt out in random order until all have been used, then again; a class with too few images repeats some.

    Raises:
        ValueError: per_class does not divide the batch size, fewer classes than a batch needs, or fewer images than one batch.
    """
    if per_class < 1 or batch_size % per_class:
        raise ValueError(
            f"a batch of {batch_size} cannot hold classes of {per_class} images each: use a multiple of {per_class}"
        )
    classes, wanted = labels.unique(), batch_size // per_class
    if len(classes) < wanted:
        raise ValueError(
            f"a batch of {batch_size} with {per_class} images a class needs {wanted} classes, there are {len(classes)}: "
            f"use a batch size of at most {len(classes) * per_class}"
        )
    if len(labels) < batch_size:
        raise ValueError(
            f"{len(labels)} training images do not fill a batch of {batch_size}: use at most {len(labels)}"
        )
    generator = seeded(seed, epoch)
    members = {int(c): (labels == c).nonzero().squeeze(1) for c in classes}
    queue, batches = [], []
    for _ in range(len(labels) // batch_size):
        chosen = []
        while len(chosen) < wanted:
            if not queue:
                queue = [
                    c
                    for c in classes[torch.randperm(len(classes), generator=generator)].tolist()
                    if c not in chosen
                ]
            chosen.append(queue.pop())
        picks = []
        for c in chosen:
            order = torch.randperm(len(members[c]), generator=generator)
            picks.append(members[c][order.repeat(-(-per_class // len(order)))[:per_class]])
        batches.append(torch.cat(picks))
    return batches


class TrainingStream:
    """Batches of augmented views of the images of a pixel cache.

    Args:
        pixels: has `batch(index) -> (canvas uint8 (B, 3, H, W), sizes (B, 2))`, as `pixels.PixelCache`.
        labels: (N,) long.  views: as `augment.TrainingViews`.
        batch_size: of the whole batch over all processes.  per_class: images of each class in a batch; 0 shuffles all.
        rank, world: of this process.
    Raises:
        ValueError: the batch size cannot be shared equally by the processes, or does not fit the data.
    """

    def __init__(
        self,
        pixels,
        labels: Tensor,
        views: Callable,
        batch_size: int,
        *,
        per_class: int = 0,
        seed: int = 0,
        device: str | torch.device = "cpu",
        rank: int = 0,
        world: int = 1,
    ):
        if batch_size % world:
            raise ValueError(
                f"a batch of {batch_size} cannot be shared by {world} processes: use a multiple of {world}"
            )
        self.pixels, self.labels, self.views, self.device = (
            pixels,
            labels,
            views,
            torch.device(device),
        )
        self.batch_size, self.per_class, self.seed, self.rank, self.world = (
            batch_size,
            per_class,
            seed,
            rank,
            world,
        )
        self.steps_per_epoch = len(self.plan(0))

    def plan(self, epoch: int) -> list[Tensor]:
        """The whole batches of an epoch, as positions in the data set."""
        if self.per_class:
            return class_balanced(self.labels, self.batch_size, self.per_class, self.seed, epoch)
        return shuffled(len(self.labels), self.batch_size, self.seed, epoch)

    def rows(self, batch: Tensor) -> slice:
        """This process's rows of a whole batch."""
        share = len(batch) // self.world
        return slice(self.rank * share, (self.rank + 1) * share)

    def pictures(self, batch: Tensor, step: int) -> Tensor:
        """Which images a whole batch (b,) needs, as positions in the data set: (b, 1), or (b, 2) where positives come with it."""
        return batch[:, None]

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from position `start` on; the next ones are assembled in the background meanwhile."""
        plan = self.plan(epoch)
        needed = [
            self.pictures(whole, epoch * len(plan) + position)[self.rows(whole)]
            for position, whole in enumerate(plan)
        ]
        for position, _, (canvas, sizes) in read_ahead(
            self.pixels, [pictures.T.flatten() for pictures in needed], start
        ):
            whole, index = plan[position], needed[position][:, 0]
            batch = Batch(
                None,
                self.labels[index].to(self.device),
                index,
                len(whole),
                self.rows(whole),
                seeded(self.seed, 1, epoch * len(plan) + position),
                last=position + 1 == len(plan),
            )
            canvas = canvas.to(self.device, non_blocking=True)
            batch.images, *positives = (
                self.views(part, part_sizes, batch.draw)
                for part, part_sizes in zip(canvas.split(len(index)), sizes.split(len(index)))
            )
            batch.positives = positives[0] if positives else None
            yield batch


class SampledStream(TrainingStream):
    """Iterations of asymmetric hashing (FCAENet, Sec. 4.2): in each, r images drawn anew are gone through several times.

    What the loop calls an epoch is one iteration. A last incomplete batch is used too, so that all r images are.

    Args:
        sample: r, images in an iteration, drawn without replacement.  passes: times that an iteration goes through them.
        positives: bring with each image another one of its class, drawn from all training images.
        Else as `TrainingStream`.
    Raises:
        ValueError: r beyond the training set, batches that the processes cannot share, classes of one image (with positives).
    """

    def __init__(
        self,
        pixels,
        labels: Tensor,
        views: Callable,
        batch_size: int,
        *,
        sample: int,
        passes: int,
        positives: bool = True,
        **shared,
    ):
        self.sample, self.passes = sample, passes
        if not 1 <= sample <= len(labels):
            raise ValueError(
                f"{sample} images are to be sampled in each iteration, but there are {len(labels)} training images: "
                f"use a sample of 1 to {len(labels)}"
            )
        if passes < 1:
            raise ValueError(
                f"passes is {passes}: an iteration goes through its images at least once"
            )
        counts = torch.bincount(labels)
        lonely = (counts == 1).nonzero().flatten().tolist()
        if positives and lonely:
            raise ValueError(
                f"{len(lonely)} training class{'es have' if len(lonely) > 1 else ' has'} one image only, which has no positive "
                f"(first: number {lonely[0]}): add images to them or leave them out"
            )
        super().__init__(pixels, labels, views, min(batch_size, sample), **shared)
        if sample % self.batch_size % self.world:
            raise ValueError(
                f"the last batch of an iteration, {sample % self.batch_size} images, cannot be shared by {self.world} "
                f"processes: use a sample that is a multiple of {self.world}"
            )
        self.members = None
        if positives:
            order = labels.argsort(stable=True)
            place = torch.empty_like(order)
            place[order] = torch.arange(len(order)) - (counts.cumsum(0) - counts)[labels[order]]
            # Images class by class, where each class begins, how many it has, and each image's place within its class.
            self.members = order, counts.cumsum(0) - counts, counts, place

    def plan(self, epoch: int) -> list[Tensor]:
        """The whole batches of an iteration, as positions in the data set."""
        generator = seeded(self.seed, 3, epoch)
        chosen = torch.randperm(len(self.labels), generator=generator)[: self.sample]
        return [
            batch
            for _ in range(self.passes)
            for batch in chosen[torch.randperm(self.sample, generator=generator)].split(
                self.batch_size
            )
        ]

    def pictures(self, batch: Tensor, step: int) -> Tensor:
        if self.members is None:
            return batch[:, None]
        order, first, counts, place = self.members
        labels = self.labels[batch]
        random = torch.rand(len(batch), generator=seeded(self.seed, 4, step), dtype=torch.float64)
        further = (
            1 + (random * (counts[labels] - 1)).long()
        )  # 1 .. count - 1 places on, round the class: never the image itself
        return torch.stack(
            [batch, order[first[labels] + (place[batch] + further) % counts[labels]]], dim=1
        )


def read_ahead(
    pixels, batches: list[Tensor], start: int = 0
) -> Iterator[tuple[int, Tensor, tuple[Tensor, Tensor]]]:
    """(position, index, pixels.batch(index)) for each batch from `start` on, read by a background thread."""
    with ThreadPoolExecutor(1) as background:
        waiting = [
            background.submit(pixels.batch, index) for index in batches[start : start + AHEAD]
        ]
        for position in range(start, len(batches)):
            ready = waiting.pop(0).result()
            if position + AHEAD < len(batches):
                waiting.append(background.submit(pixels.batch, batches[position + AHEAD]))
            yield position, batches[position], ready
