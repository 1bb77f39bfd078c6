import itertools

import pytest
import torch

from classification.data import TensorImages, read_images
from classification.loader import TrainBatches, build_test_loader, build_train_loader
from eakd_det.utils.errors import UserError

from .batches import batch_of, data_of


def steps(count, *, num_images=10, batch_size=4, **kwargs):
    batches = TrainBatches(num_images, batch_size, seed=1, **kwargs)
    return list(itertools.islice(batches, count))


def test_an_epoch_has_each_image_once_and_a_smaller_last_step():
    epoch = steps(3)
    assert [len(b.images) for b in epoch] == [4, 4, 2]
    assert sorted([i for b in epoch for i in b.images]) == list(range(10))


def test_epochs_and_seeds_differ():
    first, second = steps(6)[:3], steps(6)[3:]
    assert [b.images for b in first] != [b.images for b in second]
    assert len({b.seed for b in first}) == len({b.seed for b in second}) == 1
    assert first[0].seed != second[0].seed
    other = list(itertools.islice(TrainBatches(10, 4, seed=2), 3))
    assert [b.images for b in first] != [b.images for b in other]


@pytest.mark.parametrize("start", [1, 3, 5, 6])
def test_start_skips_steps(start):
    assert steps(4, start=start) == steps(4 + start)[start:]


@pytest.mark.parametrize(("world_size", "micro_batches"), [(2, 1), (1, 2), (2, 2), (3, 1), (2, 4)])
@pytest.mark.parametrize("num_images", [9, 10, 11])
def test_processes_and_micro_batches_split_every_step(num_images, world_size, micro_batches):
    """The mean over the step is that of the scaled means of the micro-batches."""
    whole = steps(3, num_images=num_images)
    options = {"micro_batches": micro_batches, "world_size": world_size, "num_images": num_images}
    count = micro_batches
    shares = [steps(3 * count, rank=rank, **options) for rank in range(world_size)]
    values = torch.rand(num_images, dtype=torch.float64)
    for i, step in enumerate(whole):
        split = [batch for share in shares for batch in share[i * count : (i + 1) * count]]
        assert {batch.seed for batch in split} == {step.seed} and step.scale == 1
        counted = [i for batch in split if batch.scale for i in batch.images]
        assert sorted(counted) == sorted(step.images)
        assert all(len(batch.images) > 0 for batch in split)
        mean = sum(batch.scale * values[batch.images].mean() for batch in split) / len(split)
        torch.testing.assert_close(mean, values[step.images].mean())


def test_workers_change_neither_batches_nor_the_random_state():
    images = read_images(data_of("digits"), is_train=True, num_views=2)
    batches = []
    for workers in (0, 2):
        torch.manual_seed(3)
        loader = build_train_loader(images, 8, seed=5, num_workers=workers)
        batches.append(list(itertools.islice(loader, 3)))
        assert torch.equal(torch.rand(1), torch.rand(1, generator=torch.manual_seed(3)))
    for one, other in zip(*batches, strict=True):
        assert one["indices"].equal(other["indices"])
        for a, b in zip(one["views"], other["views"], strict=True):
            assert torch.equal(a, b)


def test_the_test_loader_yields_each_image_once_unaugmented():
    images = read_images(data_of("digits"), is_train=False)
    batches = list(build_test_loader(images, 200))
    assert torch.cat([b["indices"] for b in batches]).tolist() == list(range(500))
    again = next(iter(build_test_loader(images, 200)))
    assert torch.equal(batches[0]["views"][0], again["views"][0])


def test_images_are_normalised():
    images = read_images(data_of("digits"), is_train=True)
    images.is_train = False
    (view,) = batch_of(images, list(range(len(images))), 0)["views"]
    assert view.shape == (1297, 3, 8, 8)
    assert abs(view.mean()) < 0.01 and abs(view.std() - 1) < 0.01


def test_train_size_takes_a_fixed_random_subset():
    whole = read_images(data_of("digits"), is_train=True)
    part = read_images(data_of("digits"), is_train=True, size=100)
    assert len(part) == 100
    assert torch.equal(part.pixels, read_images(data_of("digits"), is_train=True, size=100).pixels)
    assert not torch.equal(part.pixels, whole.pixels[:100])
    with pytest.raises(UserError, match="DATASET.TRAIN_SIZE 2000: digits has 1297 images"):
        read_images(data_of("digits"), is_train=True, size=2000)


def test_augmentation_does_not_change_the_set():
    labels = torch.arange(3)
    pixels = torch.randint(256, (3, 3, 8, 8), dtype=torch.uint8)
    source = read_images(data_of("digits"), is_train=True).source
    images = TensorImages(pixels.clone(), labels, source, is_train=True, num_views=2)
    batch_of(images, [0, 1, 2], 4)
    assert torch.equal(images.pixels, pixels)


def test_the_view_of_an_image_does_not_depend_on_its_batch():
    images = read_images(data_of("digits"), is_train=True, num_views=2)
    together = batch_of(images, [3, 8, 5], 7)
    alone = batch_of(images, [5], 7)
    later = batch_of(images, [5], 8)
    for a, b, c in zip(together["views"], alone["views"], later["views"], strict=True):
        assert torch.equal(a[2:], b)
        assert not torch.equal(b, c)
