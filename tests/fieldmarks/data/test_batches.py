import pytest
import torch

from fieldmarks.data.batches import Batch, TrainingStream, class_balanced, shuffled
from fieldmarks.random import seeded


class Pixels:
    """Each image is its own index, so that a batch can be recognised."""

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def batch(self, index):
        return index.to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 4, 4).clone(), torch.tensor([[4, 4]]).expand(len(index), -1)


def noise_views(canvas, sizes, draw):
    return canvas.float() + draw(lambda n, generator: torch.rand(n, generator=generator))[:, None, None, None]


def stream(**options):
    options = {"batch_size": 6, "seed": 3, **options}
    return TrainingStream(Pixels(40), torch.arange(40) % 5, noise_views, **options)


def test_an_epoch_holds_every_image_at_most_once_and_leaves_out_an_incomplete_batch():
    batches = shuffled(40, 6, seed=0, epoch=0)
    assert [len(b) for b in batches] == [6] * 6 and len(torch.cat(batches).unique()) == 36


def test_epochs_differ_and_seeds_differ_and_the_same_is_the_same():
    first = torch.cat(shuffled(40, 6, 0, 0))
    assert torch.equal(first, torch.cat(shuffled(40, 6, 0, 0)))
    assert not torch.equal(first, torch.cat(shuffled(40, 6, 0, 1))) and not torch.equal(first, torch.cat(shuffled(40, 6, 1, 0)))


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


@pytest.mark.parametrize("call, message", [
    (lambda: shuffled(5, 6, 0, 0), "5 training images do not fill a batch of 6"),
    (lambda: class_balanced(torch.arange(20) % 2, 9, 3, 0, 0), "needs 3 classes, there are 2: use a batch size of at most 6"),
    (lambda: class_balanced(torch.arange(20) % 2, 8, 3, 0, 0), "use a multiple of 3"),
    (lambda: stream(world=4), "cannot be shared by 4 processes"),
])
def test_batches_that_the_data_cannot_fill_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_stream_taken_up_within_an_epoch_goes_on_as_it_would_have():
    whole = list(stream().epoch(2))
    rest = list(stream().epoch(2, start=4))
    assert len(rest) == 2
    for a, b in zip(whole[4:], rest):
        assert torch.equal(a.images, b.images) and torch.equal(a.index, b.index) and torch.equal(a.labels, b.labels)


def test_processes_share_every_batch_each_image_once():
    whole = list(stream().epoch(1))
    shares = [list(stream(rank=rank, world=2).epoch(1)) for rank in (0, 1)]
    for batch, *parts in zip(whole, *shares):
        assert torch.equal(torch.cat([part.index for part in parts]), batch.index)
        assert torch.equal(torch.cat([part.images for part in parts]), batch.images)


def test_labels_belong_to_their_images():
    for batch in stream(per_class=2).epoch(0):
        assert torch.equal(batch.labels, batch.index % 5)
        assert torch.equal(batch.images[:, 0, 0, 0].floor().long(), batch.index)


def test_draw_gives_this_processes_rows():
    rows = [Batch(None, None, None, 6, part, seeded(1)).draw(lambda n, g: torch.rand(n, 2, generator=g)) for part in
            (slice(0, 6), slice(0, 3), slice(3, 6))]
    assert torch.equal(rows[0], torch.cat(rows[1:]))


def test_seeds_are_unrelated():
    values = {seeded(a, b).initial_seed() for a in range(30) for b in range(30)}
    assert len(values) == 900
    assert seeded(1, 2).initial_seed() == seeded(1, 2).initial_seed()
