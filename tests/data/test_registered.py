import pytest
from detectron2.data import DatasetCatalog, build_detection_train_loader
from detectron2.data.datasets import register_coco_instances

from eakd_det.config.defaults import detection_config
from eakd_det.data.datasets.digits import NAMES, generate_digits
from eakd_det.data.datasets.generated import register_generated
from eakd_det.data.registered import check_datasets, count_training_images
from eakd_det.utils.errors import UserError


@pytest.fixture
def cfg():
    return detection_config()


def test_a_name_that_is_not_registered(cfg):
    cfg.DATASETS.TRAIN = ("nothing",)
    with pytest.raises(UserError, match="DATASETS.TRAIN: no dataset 'nothing' is registered"):
        check_datasets(cfg)


def test_missing_annotations(cfg, tmp_path):
    register_coco_instances("lost_val", {}, str(tmp_path / "lost.json"), str(tmp_path))
    cfg.DATASETS.TEST = ("lost_val",)
    with pytest.raises(UserError, match=r"DATASETS.TEST: lost_val has no file \S+lost.json"):
        check_datasets(cfg)
    check_datasets(cfg, ("TRAIN",))
    DatasetCatalog.remove("lost_val")


def test_a_generated_dataset_is_there_afterwards(cfg, tmp_path, monkeypatch):
    """Its annotations are read by an evaluator before any loader is built."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    counts = {"train": 1, "val": 1}
    register_generated("few_scenes", NAMES, lambda root: generate_digits(root, num_scenes=counts))
    cfg.DATASETS.TEST = ("few_scenes_val",)
    check_datasets(cfg)
    assert (tmp_path / "few_scenes/annotations/val.json").exists()
    for split in ("train", "val"):
        DatasetCatalog.remove(f"few_scenes_{split}")


def test_training_images_are_counted_as_the_loader_takes_them(cfg, caplog):
    def scene(*crowd):
        return {"annotations": [{"iscrowd": flag, "category_id": 0} for flag in crowd]}

    DatasetCatalog.register("scenes_to_count", lambda: [scene(0, 1), scene(), scene(1), scene(0)])
    cfg.DATASETS.TRAIN = ("scenes_to_count",) * 2
    cfg.DATALOADER.NUM_WORKERS, cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS = 0, True
    try:
        assert count_training_images(cfg) == 4
        assert not caplog.records, "the loader logs them"
        loader = build_detection_train_loader(cfg, mapper=lambda x: x)
        assert len(loader.dataset.dataset.dataset) == 4
        cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS = False
        assert count_training_images(cfg) == 8
    finally:
        DatasetCatalog.remove("scenes_to_count")


def test_no_training_image_is_explained(cfg):
    DatasetCatalog.register("nothing_to_count", lambda: [{"annotations": []}])
    cfg.DATASETS.TRAIN = ("nothing_to_count",)
    try:
        with pytest.raises(UserError, match="none of the 1 images of nothing_to_count can be"):
            count_training_images(cfg)
    finally:
        DatasetCatalog.remove("nothing_to_count")
