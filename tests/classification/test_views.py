import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from classification.data import Indices, TensorImages, read_images
from classification.loader import build_test_loader, build_train_loader
from classification.sources import DATASETS
from classification.views import Views

from .batches import data_of


def random_images(name="cifar100", number=9, **options):
    source = DATASETS[name]
    generator = torch.Generator().manual_seed(0)
    size = source.image_size
    shape = (number, 3, size, size)
    pixels = torch.randint(256, shape, dtype=torch.uint8, generator=generator)
    labels = torch.randint(source.num_classes, (number,), generator=generator)
    return TensorImages(pixels, labels, source, **{"is_train": True, **options})


def slow_view(image, draws, source):
    """Crop, flip and normalise one image, channel by channel."""
    padding, size = source.crop_padding, source.image_size
    top, left = (int(draw * (2 * padding + 1)) for draw in draws[:2])
    view = F.pad(image, [padding] * 4)[:, top : top + size, left : left + size]
    if source.flip and draws[2] < 0.5:
        view = view.flip(2)
    channels = zip(view, source.mean, source.std, strict=True)
    return torch.stack([(x.float() - 255 * m) / (255 * s) for x, m, s in channels])


class Transfers(TorchDispatchMode):
    """Records the shape and type of tensors copied to another device, and reads from it."""

    def __init__(self):
        super().__init__()
        self.copied, self.read = [], []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = str(function)
        if "_to_copy" in name and (kwargs or {}).get("device") is not None:
            assert kwargs["non_blocking"]
            self.copied.append((tuple(args[0].shape), args[0].dtype))
        if "_local_scalar_dense" in name or "nonzero" in name:
            self.read.append(name)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ["cifar100", "digits"])
def test_views_match_the_draws(name):
    images = random_images(name)
    chosen = [7, 2, 3]
    batch = Views(images, "cpu")(images.__getitems__(Indices(chosen, 5, 0.5)))
    table = torch.rand(9, 1, 4, generator=torch.Generator().manual_seed(5))
    expected = [slow_view(images.pixels[i], table[i, 0], images.source) for i in chosen]
    torch.testing.assert_close(batch["views"], [torch.stack(expected)], rtol=1e-6, atol=1e-6)
    assert batch["labels"].equal(images.labels[chosen])
    assert batch["indices"].tolist() == chosen and batch["scale"] == 0.5


@pytest.mark.parametrize(("num_views", "is_train"), [(1, True), (2, True), (1, False)])
def test_only_uint8_images_are_copied_and_nothing_is_read_back(num_views, is_train):
    """The meta device stands for a GPU."""
    images = random_images(num_views=num_views, is_train=is_train)
    views = Views(images, "meta")
    raw = images.__getitems__(Indices([4, 1], 5))
    with Transfers() as transfers:
        batch = views(raw)
    assert all(view.is_meta and view.dtype == torch.float32 for view in batch["views"])
    assert [tuple(view.shape) for view in batch["views"]] == [(2, 3, 32, 32)] * num_views
    assert batch["labels"].is_meta and not batch["indices"].is_meta
    expected = [((2,), torch.int64)] * 2  # indices and labels
    expected += [((2, 3), torch.float32)] * is_train
    expected += [((2, 3, 32, 32), torch.uint8)] * (num_views - 1)
    assert sorted(transfers.copied, key=str) == sorted(expected, key=str)
    assert not transfers.read


def test_loaders_compute_views_on_their_device():
    images = random_images(number=6)
    for loader in (
        build_train_loader(images, 4, seed=1, device="meta"),
        build_test_loader(images, 4, device="meta"),
    ):
        batch = next(iter(loader))
        assert batch["views"][0].is_meta and loader.views.pixels.is_meta
        assert not loader.pin_memory


def test_views_on_the_cpu_do_not_copy_the_set():
    images = read_images(data_of("digits"), is_train=True)
    assert Views(images, "cpu").pixels.data_ptr() == images.pixels.data_ptr()
