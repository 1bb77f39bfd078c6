import itertools

import pytest
import torch
from detectron2.data import build_detection_train_loader
from detectron2.data.samplers import TrainingSampler

from eakd_det.engine.hooks.data_position import skip_batches
from eakd_det.engine.hooks.random_states import preserved_random_state
from eakd_det.utils.errors import UserError

from ..runs import draw

# 13 images; a third is wide, and they come in another order in every epoch.
DICTS = [
    {"image_id": i, "width": 20 if i % 3 else 10, "height": 15, "file_name": f"{i}.png"}
    for i in range(13)
]


def _loader(grouped, workers=0, seed=3, images=DICTS, mapper=dict):
    return build_detection_train_loader(
        images,
        mapper=mapper,
        sampler=TrainingSampler(len(DICTS), seed=seed),
        total_batch_size=4,
        aspect_ratio_grouping=grouped,
        num_workers=workers,
    )


def _ids(loader, first, last):
    return [[x["image_id"] for x in batch] for batch in itertools.islice(loader, first, last)]


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("skipped", [0, 1, 5, 12])
def test_skipped_batches(grouped, workers, skipped):
    expected = _ids(_loader(grouped), skipped, skipped + 6)
    loader = _loader(grouped, workers)
    skip_batches(loader, skipped)
    with preserved_random_state():
        before = draw()
    assert _ids(loader, 0, 6) == expected
    assert draw() == before, "the run's own random numbers are where they were"


def test_a_stream_starts_over(caplog):
    loader = torch.utils.data.DataLoader(_Stream(), batch_size=2)
    skip_batches(loader, 3)
    assert "the training data are a stream" in caplog.text
    assert next(iter(loader)).tolist() == [0, 1]


class _Images(torch.utils.data.Dataset):
    """A dataset of the user's that maps its images itself."""

    def __len__(self):
        return len(DICTS)

    def __getitem__(self, index):
        return dict(DICTS[index])


def test_skipped_batches_of_a_dataset_without_a_mapper():
    expected = _ids(_loader(True), 5, 8)
    loader = _loader(True, images=_Images(), mapper=None)
    skip_batches(loader, 5)
    assert _ids(loader, 0, 3) == expected


class _Stream(torch.utils.data.IterableDataset):
    def __iter__(self):
        return iter(range(10))


def test_a_sampler_without_a_seed_goes_on(tmp_path):
    """The seed that a run's sampler drew by itself is the resumed one's."""
    expected = _ids(_loader(True), 5, 10)
    loader = _loader(True, seed=8)
    skip_batches(loader, 5, seed=3)
    assert _ids(loader, 0, 5) == expected


def test_workers_draw_other_numbers_after_each_resume():
    loaders = [_loader(True) for _ in range(3)]
    for loader, seed, skipped in zip(loaders, (1, 1, 2), (5, 6, 5), strict=True):
        torch.manual_seed(seed)
        skip_batches(loader, skipped)
    assert len({loader.dataset.generator.initial_seed() for loader in loaders}) == 3


def test_images_without_sizes():
    loader = _loader(True)
    loader.dataset.dataset.dataset._dataset = [{"file_name": "a.png"}] * 13
    with pytest.raises(UserError, match=r"--resume: the record of a.png has no width and height"):
        skip_batches(loader, 1)
