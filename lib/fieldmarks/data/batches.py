"""Which images make a batch, and the stream of batches that the training loop reads.

Everything random follows from (seed, epoch) or (seed, step) alone: a run that resumes at step s
sees the batches and views that it would have seen, and so do the processes of a distributed run,
each its own rows of every batch."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import KW_ONLY, dataclass, field
from functools import partial

import torch
from torch import Tensor

from fieldmarks.random import seeded

AHEAD = 3  # batches assembled in the background while the device works


def shuffled(count: int, batch_size: int, seed: int, epoch: int) -> list[Tensor]:
    """Every image once in random order; a last incomplete batch is left out. Raises ValueError for
    fewer images than one batch."""
    _check_fill(count, batch_size)
    order = torch.randperm(count, generator=seeded(seed, epoch))
    return list(order[: count // batch_size * batch_size].split(batch_size))


def class_balanced(labels: Tensor, batch_size: int, per_class: int, seed: int, epoch: int) -> list:
    """Batches of batch_size / per_class classes with per_class images each, as many as `shuffled`.

    Classes are dealt out in random order until all have been used, then again; a class with too few
    images repeats some. Raises ValueError where per_class does not divide the batch size, and for
    too few classes or images."""
    batch = f"a batch of {batch_size}"
    if per_class < 1 or batch_size % per_class:
        each = f"classes of {per_class} images each: use a multiple of {per_class}"
        raise ValueError(f"{batch} cannot hold {each}")
    classes, wanted = labels.unique(), batch_size // per_class
    if len(classes) < wanted:
        most = f"there are {len(classes)}: use a batch size of at most {len(classes) * per_class}"
        raise ValueError(f"{batch} with {per_class} images a class needs {wanted} classes, {most}")
    _check_fill(len(labels), batch_size)
    generator = seeded(seed, epoch)
    members = {int(c): (labels == c).nonzero().squeeze(1) for c in classes}
    queue, batches = [], []
    for _ in range(len(labels) // batch_size):
        chosen = []
        while len(chosen) < wanted:
            if not queue:
                order = classes[torch.randperm(len(classes), generator=generator)].tolist()
                queue = [c for c in order if c not in chosen]
            chosen.append(queue.pop())
        picks = []
        for c in chosen:
            order = torch.randperm(len(members[c]), generator=generator)
            picks.append(members[c][order.repeat(-(-per_class // len(order)))[:per_class]])
        batches.append(torch.cat(picks))
    return batches


def _check_fill(count: int, batch_size: int) -> None:
    if count < batch_size:
        smaller = f"use a batch size of at most {count}"
        raise ValueError(f"{count} training images do not fill a batch of {batch_size}: {smaller}")


@dataclass(eq=False, repr=False)
class TrainingStream:
    """Batches of augmented views of the images of a pixel cache. Raises ValueError where the
    processes cannot share a batch equally, or the batch size does not fit the data."""

    pixels: object  # has `batch(index) -> (canvas uint8 (B, 3, H, W), sizes (B, 2))`: a PixelCache
    labels: Tensor  # (N,) long
    views: Callable  # as `augment.TrainingViews`
    batch_size: int  # of the whole batch over all processes
    _: KW_ONLY
    per_class: int = 0  # images of each class in a batch; 0 shuffles all
    seed: int = 0
    device: str | torch.device = "cpu"
    rank: int = 0  # of this process, among `world`
    world: int = 1
    # Further arguments of the losses by name, each (count, generator) -> (count, ...): drawn for
    # the whole batch, of which each process keeps its rows. VAPNet's `boxes` are one.
    draws: dict[str, Callable[[int, torch.Generator], Tensor]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.batch_size % self.world:
            shared = f"shared by {self.world} processes: use a multiple of {self.world}"
            raise ValueError(f"a batch of {self.batch_size} cannot be {shared}")
        self.device = torch.device(self.device)
        self.steps_per_epoch = len(self.plan(0))

    def plan(self, epoch: int) -> list[Tensor]:
        """The whole batches of an epoch, as positions in the data set."""
        if self.per_class:
            return class_balanced(self.labels, self.batch_size, self.per_class, self.seed, epoch)
        return shuffled(len(self.labels), self.batch_size, self.seed, epoch)

    def rows(self, batch: Tensor) -> slice:  # of this process, in a whole batch
        share = len(batch) // self.world
        return slice(self.rank * share, (self.rank + 1) * share)

    def pictures(self, batch: Tensor, step: int) -> Tensor:
        """The images that a batch (b,) needs, as positions: (b, 1), (b, 2) with positives, or
        (b, 3) with negatives besides."""
        return batch[:, None]

    def arguments(self, pictures: Tensor) -> dict[str, Tensor]:
        """What losses get besides the views of a batch's pictures (b, n), as positions."""
        return {"labels": self.labels[pictures[:, 0]].to(self.device), "index": pictures[:, 0]}

    def _draw(self, whole: Tensor, generator: torch.Generator, sample: Callable) -> Tensor:
        """sample(count, generator) for a whole batch, of which this process keeps its rows."""
        return sample(len(whole), generator)[self.rows(whole)]

    def epoch(self, epoch: int, start: int = 0) -> Iterator[dict[str, Tensor]]:
        """The batches of an epoch from position `start` on, as arguments of a method's losses:
        images (b, 3, H, W) normalised, labels (b,), index (b,) into the data set, and what
        positives, negatives and `draws` add. The next ones are assembled in the background
        meanwhile."""
        plan = self.plan(epoch)
        steps = range(epoch * len(plan), (epoch + 1) * len(plan))
        pairs = zip(plan, steps, strict=True)
        needed = [self.pictures(whole, step)[self.rows(whole)] for whole, step in pairs]
        parts = [pictures.T.flatten() for pictures in needed]
        for position, _, (canvas, sizes) in read_ahead(self.pixels, parts, start):
            whole, pictures = plan[position], needed[position]
            generator = seeded(self.seed, 1, steps[position])
            draw = partial(self._draw, whole, generator)

            canvas = canvas.to(self.device, non_blocking=True)
            sides = zip(canvas.split(len(pictures)), sizes.split(len(pictures)), strict=True)
            views = [self.views(part, part_sizes, draw) for part, part_sizes in sides]
            batch = dict(zip(("images", "positives", "negatives"), views, strict=False))
            batch |= self.arguments(pictures)
            yield batch | {name: draw(s).to(self.device) for name, s in self.draws.items()}


@dataclass(eq=False, repr=False, kw_only=True)
class SampledStream(TrainingStream):
    """Iterations of asymmetric hashing (FCAENet, Sec. 4.2): each goes several times through r
    images drawn anew. The loop's epoch is one iteration. A last incomplete batch is used too.
    Raises ValueError for r beyond the training set, batches that the processes cannot share, and
    classes of one image (with positives)."""

    sample: int  # r, images in an iteration, drawn without replacement
    passes: int  # times that an iteration goes through them
    positives: bool = True  # bring with each image another of its class, from all training images

    def __post_init__(self) -> None:
        count, counts, sample = len(self.labels), self.labels.bincount(), self.sample
        if not 1 <= sample <= count:
            there = f"there are {count} training images: use a sample of 1 to {count}"
            raise ValueError(f"{sample} images are to be sampled in each iteration, but {there}")
        if self.passes < 1:
            once = "an iteration goes through its images at least once"
            raise ValueError(f"passes is {self.passes}: {once}")
        single = (counts == 1).nonzero().flatten().tolist()
        if self.positives and single:
            classes = f"{len(single)} training class{'es have' if len(single) > 1 else ' has'}"
            none = f"which has no positive (first: number {single[0]})"
            raise ValueError(f"{classes} one image only, {none}: add images or leave them out")
        self.batch_size = min(self.batch_size, sample)
        super().__post_init__()
        if rest := sample % self.batch_size % self.world:
            last = f"the last batch of an iteration cannot be shared by {self.world} processes"
            use = f"use a sample that is a multiple of {self.world}"
            raise ValueError(f"{last}, {rest} images are left over: {use}")
        self.members = None
        if self.positives:
            order, first = self.labels.argsort(stable=True), counts.cumsum(0) - counts
            place = torch.empty_like(order)
            place[order] = torch.arange(count) - first[self.labels[order]]
            # Images class by class, where each class begins, its size, each image's place in it.
            self.members = order, first, counts, place

    def plan(self, epoch: int) -> list[Tensor]:
        """The whole batches of an iteration, as positions in the data set."""
        generator = seeded(self.seed, 3, epoch)
        chosen = torch.randperm(len(self.labels), generator=generator)[: self.sample]
        orders = [torch.randperm(self.sample, generator=generator) for _ in range(self.passes)]
        return [batch for order in orders for batch in chosen[order].split(self.batch_size)]

    def pictures(self, batch: Tensor, step: int) -> Tensor:
        if self.members is None:
            return batch[:, None]
        order, first, counts, place = self.members
        labels = self.labels[batch]
        random = torch.rand(len(batch), generator=seeded(self.seed, 4, step), dtype=torch.float64)
        # 1 .. count - 1 places on, round the class: never the image itself.
        further = 1 + (random * (counts[labels] - 1)).long()
        partner = order[first[labels] + (place[batch] + further) % counts[labels]]
        return torch.stack([batch, partner], dim=1)


@dataclass(eq=False, repr=False, kw_only=True)
class TripletStream(TrainingStream):
    """Triplets: images, `positives` of their class and `negatives` of another, drawn uniformly. An
    epoch goes through all pairs of images of one class in random order, each in either direction,
    as PAN's official code does, or through so many of them. A batch holds batch_size triplets.
    Raises ValueError for fewer pairs than that, and for images of one class."""

    triplets: int = 0  # of an epoch; 0: one for every pair of images of one class

    def __post_init__(self) -> None:
        self.together = self.pairs()
        super().__post_init__()

    def pairs(self) -> Tensor:
        """All pairs of images of one class: (P, 2) positions."""
        classes = self.labels.unique()
        members = [(self.labels == c).nonzero().flatten() for c in classes]
        if len(members) < 2:
            raise ValueError("triplets need negatives, and all training images are of one class")
        sizes = torch.tensor([len(own) for own in members])
        # Images class by class, and where each image's class begins and ends among them.
        self.sorted, ends = torch.cat(members), sizes.cumsum(0)
        place = torch.searchsorted(classes, self.labels)
        self.own = (ends - sizes)[place], ends[place]
        return torch.cat([torch.combinations(own) for own in members])

    def plan(self, epoch: int) -> list[Tensor]:
        """The whole batches of an epoch, as positions among the pairs."""
        pairs = shuffled(len(self.together), self.batch_size, self.seed, epoch)
        return pairs[: max(1, self.triplets // self.batch_size)] if self.triplets else pairs

    def pictures(self, batch: Tensor, step: int) -> Tensor:
        generator = seeded(self.seed, 4, step)
        turned = torch.rand(len(batch), generator=generator) < 0.5
        pairs = torch.where(turned[:, None], self.together[batch].flip(1), self.together[batch])
        return torch.cat([pairs, self.negatives(pairs, generator)[:, None]], dim=1)

    def negatives(self, pairs: Tensor, generator: torch.Generator) -> Tensor:
        """An image of another class for each pair (b, 2): (b,)."""
        first, end = (ends[pairs[:, 0]] for ends in self.own)
        random = torch.rand(len(pairs), generator=generator, dtype=torch.float64)
        other = (random * (len(self.labels) - (end - first))).long()
        return self.sorted[other + torch.where(other >= first, end - first, 0)]


def read_ahead(pixels, batches: list[Tensor], start: int = 0) -> Iterator[tuple]:
    """(position, index, pixels.batch(index)) for each batch from `start` on, read by a thread."""
    with ThreadPoolExecutor(1) as background:
        waiting = [background.submit(pixels.batch, i) for i in batches[start : start + AHEAD]]
        for position in range(start, len(batches)):
            ready = waiting.pop(0).result()
            if position + AHEAD < len(batches):
                waiting.append(background.submit(pixels.batch, batches[position + AHEAD]))
            yield position, batches[position], ready
