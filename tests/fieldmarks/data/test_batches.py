import pytest
import torch

from fieldmarks.data.batches import (
    SampledStream,
    TrainingStream,
    TripletStream,
    class_balanced,
    shuffled,
)
from fieldmarks.random import seeded


class Pixels:
    """Each image is its own index, so that a batch can be recognised."""

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def batch(self, index):
        canvas = index.to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 4, 4).clone()
        return canvas, torch.tensor([[4, 4]]).expand(len(index), -1)


def noise_views(canvas, sizes, draw):
    noise = draw(lambda n, generator: torch.rand(n, generator=generator))
    return canvas.float() + noise[:, None, None, None]


def stream(cls=TrainingStream, **options):
    options = {"batch_size": 6, "seed": 3, **options}
    return cls(Pixels(40), torch.arange(40) % 5, noise_views, **options)


def numbers(count, generator):
    return torch.rand(count, 2, generator=generator)


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


def test_an_epoch_holds_every_image_at_most_once_and_leaves_out_an_incomplete_batch():
    batches = shuffled(40, 6, seed=0, epoch=0)
    assert [len(b) for b in batches] == [6] * 6 and len(torch.cat(batches).unique()) == 36


def test_epochs_differ_and_seeds_differ_and_the_same_is_the_same():
    first = torch.cat(shuffled(40, 6, 0, 0))
    assert torch.equal(first, torch.cat(shuffled(40, 6, 0, 0)))
    assert not torch.equal(first, torch.cat(shuffled(40, 6, 0, 1)))
    assert not torch.equal(first, torch.cat(shuffled(40, 6, 1, 0)))


def test_balanced_batches_hold_so_many_classes_of_so_many_images():
    labels = torch.arange(100) % 10
    batches = class_balanced(labels, 12, 3, seed=0, epoch=0)
    assert len(batches) == 8
    for batch in batches:
        classes, counts = labels[batch].unique(return_counts=True)
        assert len(classes) == 4 and set(counts.tolist()) == {3} and len(batch.unique()) == 12
    used = torch.stack([torch.bincount(labels[b], minlength=10) for b in batches]).sum(0)
    assert used.max() - used.min() <= 6  # dealt out evenly


def test_balanced_batches_repeat_images_of_small_classes():
    labels = torch.tensor([0, 1, 1, 1, 1, 1])
    for batch in class_balanced(labels, 4, 2, seed=0, epoch=0):
        assert torch.bincount(labels[batch], minlength=2).tolist() == [2, 2]


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: shuffled(5, 6, 0, 0), "5 training images do not fill a batch of 6"),
        (
            lambda: class_balanced(torch.arange(20) % 2, 9, 3, 0, 0),
            "needs 3 classes, there are 2: use a batch size of at most 6",
        ),
        (lambda: class_balanced(torch.arange(20) % 2, 8, 3, 0, 0), "use a multiple of 3"),
        (lambda: stream(world=4), "cannot be shared by 4 processes"),
    ],
)
def test_batches_that_the_data_cannot_fill_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_batch_is_the_arguments_of_the_losses():
    plain, drawn = stream(), stream(draws={"boxes": numbers})
    sampled = stream(SampledStream, sample=14, passes=2)
    unrelated = stream(SampledStream, sample=14, passes=2, positives=False)
    shapes = {
        (name, tuple(value.shape))
        for one in (plain, drawn, sampled, unrelated)
        for name, value in next(iter(one.epoch(0))).items()
    }
    pictures = (6, 3, 4, 4)
    assert shapes == {
        ("images", pictures),
        ("positives", pictures),
        ("labels", (6,)),
        ("index", (6,)),
        ("boxes", (6, 2)),
    }
    assert [set(next(iter(one.epoch(0)))) for one in (plain, drawn, sampled, unrelated)] == [
        {"images", "labels", "index"},
        {"images", "labels", "index", "boxes"},
        {"images", "labels", "index", "positives"},
        {"images", "labels", "index"},
    ]


def test_a_stream_resumed_within_an_epoch_goes_on_as_it_would_have():
    for options in ({"draws": {"boxes": numbers}}, {"per_class": 2}):
        straight = list(stream(**options).epoch(2))
        rest = list(stream(**options).epoch(2, start=4))
        assert len(rest) == 2
        for a, b in zip(straight[4:], rest, strict=True):
            assert_same(a, b)


@pytest.mark.parametrize(
    "cls, options",
    [(TrainingStream, {}), (SampledStream, {"sample": 16}), (TripletStream, {"triplets": 30})],
)
def test_processes_share_every_batch_each_image_once(cls, options):
    if cls is SampledStream:
        options = {**options, "passes": 2}
    options = {**options, "draws": {"boxes": numbers, "others": numbers}}
    shares = [list(stream(cls, rank=rank, world=2, **options).epoch(1)) for rank in (0, 1)]
    for batch, *parts in zip(stream(cls, **options).epoch(1), *shares, strict=True):
        together = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        assert_same(together, batch)


def test_labels_belong_to_their_images():
    for batch in stream(per_class=2).epoch(0):
        assert torch.equal(batch["labels"], batch["index"] % 5)
        assert torch.equal(batch["images"][:, 0, 0, 0].floor().long(), batch["index"])


def test_a_positive_is_another_image_of_the_same_class():
    for batch in stream(SampledStream, sample=14, passes=2).epoch(0):
        positives = batch["positives"][:, 0, 0, 0].floor().long()
        assert torch.equal(positives % 5, batch["labels"])
        assert (positives != batch["index"]).all()


def shown(images):
    return images[:, 0, 0, 0].floor().long()


def test_triplets_of_an_epoch_are_all_pairs_of_one_class_with_images_of_others():
    triplets = stream(TripletStream, batch_size=7)  # 5 classes of 8: 140 pairs
    pairs, negatives = [], torch.zeros(5, 40)
    for epoch in range(30):
        for batch in triplets.epoch(epoch):
            anchor, positive, negative = (
                shown(batch[n]) for n in ("images", "positives", "negatives")
            )
            assert torch.equal(anchor, batch["index"])
            assert torch.equal(positive % 5, batch["labels"]) and (positive != anchor).all()
            assert (negative % 5 != batch["labels"]).all()
            negatives.index_put_((batch["labels"], negative), torch.ones(()), accumulate=True)
            if epoch == 0:
                pairs += [
                    tuple(sorted(p)) for p in zip(anchor.tolist(), positive.tolist(), strict=True)
                ]
    assert len(pairs) == len(set(pairs)) == 140
    for label, counts in enumerate(negatives):  # 840 draws among 32, 26.25 expected of each
        others = counts[torch.arange(40) % 5 != label]
        assert counts.sum() == others.sum() == 840
        assert ((others - 26.25) ** 2 / 26.25).sum() < 61.1  # chi-square, 31 degrees: p = 0.001


def test_an_epoch_of_so_many_triplets_is_another_part_of_the_pairs_each_time():
    few = stream(TripletStream, triplets=12)
    epochs = [torch.cat([batch["index"] for batch in few.epoch(n)]) for n in (0, 1, 0)]
    assert [len(epoch) for epoch in epochs] == [12] * 3
    assert torch.equal(epochs[0], epochs[2]) and not torch.equal(epochs[0], epochs[1])


def test_triplets_need_two_classes_and_a_batch_of_pairs():
    data = Pixels(6), torch.zeros(6, dtype=torch.long), noise_views, 4
    with pytest.raises(ValueError, match="all training images are of one class"):
        TripletStream(*data)
    with pytest.raises(ValueError, match="140 training images do not fill a batch of 150"):
        stream(TripletStream, batch_size=150)


def test_what_is_drawn_follows_the_views_in_the_generator_of_the_step():
    (batch, *_), plan = stream(draws={"boxes": numbers}).epoch(2), stream().plan(2)
    generator = seeded(3, 1, 2 * len(plan))
    noise = torch.rand(6, generator=generator)
    assert torch.equal(batch["images"][:, 0, 0, 0], batch["index"].float() + noise)
    assert torch.equal(batch["boxes"], numbers(6, generator))


def test_draws_give_each_process_its_own_rows():
    drawn = [
        next(iter(stream(draws={"boxes": numbers}, **share).epoch(0)))["boxes"]
        for share in ({}, {"rank": 0, "world": 2}, {"rank": 1, "world": 2})
    ]
    assert torch.equal(drawn[0], torch.cat(drawn[1:]))


def test_seeds_are_unrelated():
    values = {seeded(a, b).initial_seed() for a in range(30) for b in range(30)}
    assert len(values) == 900
    assert seeded(1, 2).initial_seed() == seeded(1, 2).initial_seed()
