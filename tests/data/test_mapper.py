import logging

import numpy as np
import pytest
import torch
from detectron2.data import build_detection_train_loader
from PIL import Image

from eakd_det.data.mapper import CheckingMapper
from eakd_det.utils.errors import UserError

from .test_coco_check import save_image


@pytest.fixture
def scene(tmp_path):
    save_image(tmp_path / "a.png")
    return {
        "file_name": str(tmp_path / "a.png"),
        "width": 60,
        "height": 40,
        "image_id": 1,
        "annotations": [],
    }


@pytest.fixture
def mapper(stock_cfg):
    return CheckingMapper(stock_cfg, is_train=False)


def test_a_sound_image(mapper, scene):
    assert mapper(scene)["image"].dtype == torch.uint8


@pytest.mark.parametrize("kind", ["cut off", "missing", "16 bits", "another size"])
def test_an_image_that_cannot_be_read(mapper, scene, tmp_path, kind):
    path = tmp_path / "a.png"
    if kind == "cut off":
        path.write_bytes(path.read_bytes()[:500])
        message = "a.png cannot be read: image file is truncated.*then continue with --resume"
    elif kind == "missing":
        path.unlink()
        message = "no file .*a.png"
    elif kind == "16 bits":
        Image.fromarray(np.full((40, 60), 999, np.uint16)).save(path)
        message = "a.png has values from 999 to 999"
    else:
        scene["width"] = 61
        message = "Mismatched image shape for image .*a.png"
    with pytest.raises(UserError, match=message):
        mapper(scene)


def test_a_worker_s_error_is_one_sentence(stock_cfg, scene, tmp_path):
    (tmp_path / "a.png").write_bytes(b"no image")
    loader = build_detection_train_loader(
        [scene],
        mapper=CheckingMapper(stock_cfg, is_train=True),
        total_batch_size=1,
        num_workers=1,
    )
    with pytest.raises(UserError) as info:
        next(iter(loader))
    assert str(info.value).startswith(f"{scene['file_name']} cannot be read: cannot identify")
    assert len(str(info.value).splitlines()) == 1


def test_other_errors_are_not_user_errors(mapper, scene, caplog):
    mapper.augmentations = None
    with caplog.at_level(logging.ERROR), pytest.raises(TypeError):
        mapper(scene)
