"""eakd_det.evaluation.predictor."""

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.modeling import build_model
from detectron2.structures import Instances
from PIL import ExifTags, Image

from eakd_det.checkpoint.run_folder import find_run
from eakd_det.config.defaults import stock_config
from eakd_det.config.merge import load_config
from eakd_det.evaluation.detections import detect
from eakd_det.evaluation.predictor import Predictor, read_rgb
from eakd_det.modeling.build import load_student
from eakd_det.utils.errors import UserError

from .runs import save_run

NAMES = ("ant", "bee", "cat", "dog", "elk")


@pytest.fixture
def folder(stock_cfg, tmp_path):
    """A run on RGB images."""
    stock_cfg.INPUT.MIN_SIZE_TEST, stock_cfg.INPUT.MAX_SIZE_TEST = 120, 400
    return save_run(tmp_path / "run", stock_cfg, NAMES)


@pytest.fixture
def image(batch):
    """(96, 128, 3) RGB whose channels differ."""
    return batch[0]["image"].permute(1, 2, 0).numpy()


def same(one, other):
    one, other = (
        [torch.as_tensor(x) for x in (of.pred_boxes.tensor, of.scores, of.pred_classes)]
        for of in (one, other)
    )
    return len(one[0]) and all(map(torch.equal, one, other))


@pytest.mark.parametrize("channels", ["RGB", "BGR"])
def test_detections_are_those_of_an_evaluation(stock_cfg, teacher_cfg, scenes, tmp_path, channels):
    """With the channel order and the test-time resize of the run's config."""
    cfg = (stock_cfg if channels == "RGB" else teacher_cfg).clone()
    cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST = 120, 400
    predictor = Predictor(save_run(tmp_path / "run", cfg), score=0.05)
    assert predictor.cfg.INPUT.FORMAT == channels
    records = DatasetCatalog.get(scenes[1])
    cfg.DATALOADER.NUM_WORKERS = 0
    expected = detect(*load_student(cfg, str(tmp_path / "run" / "model_final.pth")), records)
    for record in records:
        found = predictor(record["file_name"])
        assert isinstance(found, Instances) and found.image_size == (96, 96)
        assert same(found, expected[record["image_id"]])


def test_an_array_is_rgb(folder, image, tmp_path):
    Image.fromarray(image).save(tmp_path / "image.png")
    predictor = Predictor(find_run(folder), "cpu", 0.05)
    found = predictor(image)
    assert same(found, predictor(tmp_path / "image.png"))
    assert not same(found, predictor(image[:, :, ::-1].copy()))
    assert found.image_size == (96, 128)


@pytest.mark.parametrize("wrong", ["float", "gray"])
def test_another_array(folder, image, wrong):
    other = image / 255 if wrong == "float" else image[:, :, 0]
    with pytest.raises(UserError, match=r"shape \(H, W, 3\) and type uint8.* this one has shape"):
        Predictor(folder)(other)


def test_the_least_score(folder, image):
    everything = Predictor(folder, score=0.0)(image)
    least = float(everything.scores.median())
    some = Predictor(folder, score=least)(image)
    assert 0 < len(some) < len(everything)
    assert same(some, everything[everything.scores > least])
    with pytest.raises(UserError, match="score of a detection is 50: name one from 0 to 1"):
        Predictor(folder, score=50)


def test_the_least_score_of_a_retinanet(retina_cfg, image, tmp_path):
    cfg = stock_config(retina_cfg)
    (tmp_path / "config.yaml").write_text(cfg.dump())
    torch.save({"model": build_model(cfg).state_dict()}, tmp_path / "model_final.pth")
    assert 0 < len(Predictor(str(tmp_path), score=0.001)(image))
    assert not len(Predictor(str(tmp_path), score=0.9)(image))


def test_class_names(folder, stock_cfg, tmp_path):
    """Those in the checkpoint, of a dataset of the config, or numbers."""
    assert Predictor(folder).class_names == NAMES
    stock_cfg.DATASETS.TRAIN = ("coco_2017_train",)  # of a config's base
    numbers = tuple(f"class {i}" for i in range(5))
    assert Predictor(save_run(tmp_path / "stock", stock_cfg)).class_names == numbers
    stock_cfg.MODEL.ROI_HEADS.NUM_CLASSES = 80
    names = Predictor(save_run(tmp_path / "coco", stock_cfg)).class_names
    assert len(names) == 80 and names[0] == "person"


def test_a_device_that_does_not_exist(folder):
    with pytest.raises(UserError, match=r"The device 'nonsense' cannot be used: .*\."):
        Predictor(folder, "nonsense")


def test_a_device_of_another_machine(folder, monkeypatch):
    """A config that names a GPU runs on a CPU where there is none."""
    path = find_run(folder).config_file
    cfg = load_config(path)
    cfg.MODEL.DEVICE = "cuda"
    with open(path, "w") as f:
        f.write(cfg.dump())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert Predictor(folder).cfg.MODEL.DEVICE == "cpu"


def test_weights_that_do_not_fit(folder):
    path = find_run(folder).weights
    torch.save({"model": {"backbone.weight": torch.zeros(1)}}, path)
    with pytest.raises(UserError, match=path):
        Predictor(folder)


def test_read_rgb(tmp_path):
    """Any mode, upright."""
    Image.new("LA", (4, 2), (9, 255)).save(tmp_path / "gray.png")
    assert read_rgb(str(tmp_path / "gray.png")).tolist() == [[[9, 9, 9]] * 4] * 2
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.new("RGB", (4, 2)).save(tmp_path / "rotated.jpg", exif=exif)
    assert read_rgb(str(tmp_path / "rotated.jpg")).shape == (4, 2, 3)


def test_files_that_cannot_be_read(tmp_path):
    path = str(tmp_path / "image.png")
    with pytest.raises(UserError, match=f"no file {path}"):
        read_rgb(path)
    Image.fromarray(np.full((4, 4), 3000, np.uint16)).save(path)
    with pytest.raises(UserError, match=f"{path} has values from 3000 to 3000"):
        read_rgb(path)
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    with open(path, "r+b") as f:
        f.truncate(2000)
    with pytest.raises(UserError, match=f"{path} cannot be read"):
        read_rgb(path)
