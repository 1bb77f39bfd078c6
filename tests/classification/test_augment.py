import pytest
import torch

from classification.augment import crop_and_flip, strong_view


def images(number=6, size=9):
    return torch.randint(1, 256, (number, 3, size, size), dtype=torch.uint8)


def is_crop(view, image, padding):
    """Return whether `view` is a crop of the padded image, mirrored or not."""
    padded = torch.nn.functional.pad(image, [padding] * 4)
    size = image.shape[-1]
    crops = [
        padded[:, i : i + size, j : j + size]
        for i in range(2 * padding + 1)
        for j in range(2 * padding + 1)
    ]
    return any(torch.equal(view, c) or torch.equal(view, c.flip(2)) for c in crops)


def test_images_are_cropped_and_flipped_independently():
    torch.manual_seed(0)
    x = images(32)
    views = crop_and_flip(x, torch.rand(32, 3), padding=2)
    assert views.dtype == torch.uint8 and views.shape == x.shape
    assert all(is_crop(view, image, 2) for view, image in zip(views, x, strict=True))
    same = images(1).expand(32, -1, -1, -1)
    assert (
        len({view.numpy().tobytes() for view in crop_and_flip(same, torch.rand(32, 3), padding=2)})
        > 10
    )


def test_flip_is_optional_and_half_of_the_images():
    torch.manual_seed(0)
    x = images(1).expand(400, -1, -1, -1)
    draws = torch.rand(400, 3)
    assert torch.equal(crop_and_flip(x, draws, padding=0, flip=False), x)
    flipped = (crop_and_flip(x, draws, padding=0) != x).flatten(1).any(dim=1)
    assert 150 < flipped.sum() < 250


@pytest.mark.parametrize("size", [8, 28, 32, 33])
def test_strong_view_keeps_shape_and_type_and_changes_most_images(size):
    torch.manual_seed(0)
    x = images(20, size)
    before = x.clone()
    views = strong_view(x, torch.rand(20))
    assert views.dtype == torch.uint8 and views.shape == x.shape
    assert torch.equal(x, before)
    assert (views != x).flatten(1).any(dim=1).sum() > 15


def test_views_depend_on_the_draws_of_their_image_alone():
    x, draws = images(), torch.rand(6, 4)

    def view(order):
        cropped = crop_and_flip(x[order], draws[order])
        return strong_view(cropped, draws[order][:, 3])

    before = torch.get_rng_state()
    one = view([0, 1, 2, 3, 4, 5])
    assert torch.equal(torch.get_rng_state(), before)
    other = view([5, 2])
    assert torch.equal(one[[5, 2]], other)
    draws = torch.rand(6, 4)
    assert not torch.equal(view([5, 2]), other)
