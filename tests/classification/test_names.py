from classification.config import classification_config
from classification.names import data_name, default_output_dir, model_name

from .batches import data_of


def test_own_images_are_called_by_their_folder():
    assert data_name(data_of("folder", "data/parts/")) == "parts"
    assert data_name(data_of("csv", TRAIN_CSV="data/parts/a.csv")) == "parts"
    assert data_name(data_of("torchvision:Food101")) == "Food101"
    assert data_name(data_of("digits", "data")) == "digits"


def test_models_are_called_without_their_library():
    assert model_name("timm:convnext_tiny") == "convnext_tiny"
    assert model_name("timm:hf-hub:a/b") == "a-b"


def test_runs_on_own_images_have_folders_of_their_own():
    cfg = classification_config()
    cfg.MODEL.NAME, cfg.TEACHER.NAME = "resnet8", "timm:resnet18"
    assert default_output_dir(cfg, "a/Student.yaml") == "output"
    cfg.DATASET.NAME, cfg.DATASET.ROOT = "folder", "data/parts"
    assert default_output_dir(cfg, "a/Student.yaml") == "output/parts/Student/resnet8"
    assert default_output_dir(cfg, "a/Teacher.yaml") == "output/parts/Teacher/resnet8"
    cfg.DISTILL.METHODS, cfg.DISTILL.EA.ENABLED = ("KD",), True
    assert default_output_dir(cfg, "a/b.yaml") == "output/parts/EA-KD/resnet18_resnet8"
