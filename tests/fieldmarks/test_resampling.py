import pytest
import torch
import torch.nn.functional as F

from fieldmarks.resampling import crop_and_resize


@pytest.mark.parametrize("size", [5, 16, 64, (20, 9)])
def test_equals_cutting_then_resizing_one_image_at_a_time(size):
    torch.manual_seed(0)
    images = torch.rand(3, 3, 37, 50)
    boxes = torch.tensor([[3, 4, 40, 30], [0, 0, 50, 37], [49, 36, 50, 37]])
    views = crop_and_resize(images, boxes, size)
    for image, (x1, y1, x2, y2), view in zip(images, boxes.tolist(), views, strict=True):
        expected = F.interpolate(
            image[None, :, y1:y2, x1:x2], size, mode="bilinear", antialias=True
        )[0]
        torch.testing.assert_close(view, expected)


def test_several_boxes_an_image_are_the_same_as_one_at_a_time():
    torch.manual_seed(0)
    images, boxes = (
        torch.rand(2, 3, 24, 32),
        torch.tensor([[[0, 0, 8, 8], [4, 6, 20, 22]], [[1, 2, 30, 20], [0, 0, 32, 24]]]),
    )
    views = crop_and_resize(images, boxes, 12)
    assert views.shape == (2, 2, 3, 12, 12)
    for m in range(2):
        torch.testing.assert_close(views[:, m], crop_and_resize(images, boxes[:, m], 12))


def test_flip_mirrors_only_the_views_it_names():
    images, boxes = torch.rand(2, 3, 10, 10), torch.tensor([[1, 1, 9, 9]] * 2)
    plain = crop_and_resize(images, boxes, 8)
    flipped = crop_and_resize(images, boxes, 8, flip=torch.tensor([False, True]))
    torch.testing.assert_close(flipped[0], plain[0])
    torch.testing.assert_close(flipped[1], plain[1].flip(-1))


def test_the_whole_image_at_its_own_size_is_itself():
    images = torch.rand(2, 3, 9, 11)
    torch.testing.assert_close(
        crop_and_resize(images, torch.tensor([[0, 0, 11, 9]] * 2), (9, 11)), images
    )


def test_pixels_outside_the_box_never_show():
    images = torch.zeros(1, 1, 16, 16)
    images[:, :, 4:8, 4:8] = 1
    assert crop_and_resize(images, torch.tensor([[4, 4, 8, 8]]), 32).min() == 1


def test_gradients_reach_the_pixels():
    images = torch.rand(1, 1, 6, 6, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda x: crop_and_resize(x.float(), torch.tensor([[1, 1, 5, 5]]), 3).double(),
        images,
        eps=1e-3,
        atol=1e-2,
    )


def test_an_empty_box_is_refused():
    with pytest.raises(ValueError, match="at least one pixel wide"):
        crop_and_resize(torch.rand(1, 3, 8, 8), torch.tensor([[4, 4, 4, 8]]), 4)
