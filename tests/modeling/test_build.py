import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.build import get_detection_dataset_dicts
from detectron2.modeling import build_model

from eakd_det.config.defaults import stock_config
from eakd_det.data.registered import check_datasets, explain_no_images
from eakd_det.modeling.build import load_student, load_teacher, num_classes
from eakd_det.utils.errors import UserError
from tests.modeling.teacher.test_lazy import VITDET


@pytest.mark.parametrize("key", ["TRAIN", "TEST"])
def test_unknown_datasets(stock_cfg, scenes, key):
    stock_cfg.DATASETS[key] = (scenes[0], "nowhere_val")
    with pytest.raises(UserError, match=rf"DATASETS\.{key}: no dataset 'nowhere_val' is reg"):
        check_datasets(stock_cfg)
    stock_cfg.DATASETS[key] = (scenes[0],)
    check_datasets(stock_cfg)


@pytest.fixture
def dataset():
    """Registers a dataset of images with so many objects each, -1 for a crowd; its name."""
    name = "images_without_objects"

    def register(objects):
        of = {0: [], -1: [{"iscrowd": 1, "category_id": 0}], 1: [{"category_id": 0}]}
        images = [{"file_name": "a.png", "annotations": of[number]} for number in objects]
        DatasetCatalog.register(name, lambda: images)
        MetadataCatalog.get(name).set(thing_classes=["bolt"])
        return name

    yield register
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)


@pytest.mark.parametrize(
    ("objects", "cause"),
    [
        ([0, 0, -1], "(2 without annotations, 1 with only crowds (iscrowd 1))"),
        ([-1], "(1 with only crowds (iscrowd 1))"),
        ([1], "(1 with fewer than MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE key"),
        ([], "(the file lists none)"),
    ],
)
def test_data_without_a_trainable_image(dataset, objects, cause):
    name = dataset(objects)
    keypoints = 1 if objects == [1] else 0
    with pytest.raises(UserError) as error, explain_no_images():
        get_detection_dataset_dicts(name, min_keypoints=keypoints)
    number = len(DatasetCatalog.get(name))
    start = f"DATASETS.TRAIN: none of the {number} images of {name} can be trained on {cause}"
    assert str(error.value).startswith(start)


def test_other_errors_of_a_loader_are_left_alone():
    with pytest.raises(AssertionError, match="another"), explain_no_images():
        raise AssertionError("another")


def test_number_of_classes(stock_cfg):
    assert num_classes(stock_cfg) == ("MODEL.ROI_HEADS.NUM_CLASSES", 5)


def test_number_of_classes_of_a_retinanet(retina_cfg):
    assert num_classes(retina_cfg) == ("MODEL.RETINANET.NUM_CLASSES", 10)


def test_the_teacher_as_a_detector(distill_cfg, teacher_files):
    cfg, model = load_teacher(distill_cfg)
    assert cfg.INPUT.FORMAT == "BGR"
    weights = torch.load(teacher_files[1], weights_only=True)["model"]
    assert all(torch.equal(model.state_dict()[name], weights[name]) for name in weights)
    distill_cfg.MODEL.ROI_HEADS.NUM_CLASSES = 3
    with pytest.raises(UserError, match="The teacher has 5 classes and the student 3"):
        load_teacher(distill_cfg)


@pytest.fixture
def of_two():
    """Registers a dataset of two classes and one of the teacher's five."""
    MetadataCatalog.get("of_student").thing_classes = ["e", "new"]
    MetadataCatalog.get("of_teacher").thing_classes = list("abcde")
    yield
    MetadataCatalog.remove("of_student")
    MetadataCatalog.remove("of_teacher")


def test_the_teacher_detects_the_classes_in_common(
    distill_cfg, teacher_cfg, tmp_path, of_two, batch
):
    """With the student's numbers; its other classes are left out, before the limit of an image."""
    _, model = load_teacher(distill_cfg)
    most = model.roi_heads.box_predictor.test_topk_per_image
    model.roi_heads.box_predictor.test_topk_per_image = -1
    with torch.no_grad():
        expected = model(batch)[0]["instances"]
    teacher_cfg = teacher_cfg.clone()
    teacher_cfg.DATASETS.TRAIN = ("of_teacher",)
    (tmp_path / "teacher.yaml").write_text(teacher_cfg.dump())
    distill_cfg.TEACHER.CONFIG_FILE = str(tmp_path / "teacher.yaml")
    distill_cfg.MODEL.ROI_HEADS.NUM_CLASSES = 2
    distill_cfg.DATASETS.TRAIN = ("of_student",)
    distill_cfg.DISTILL.CLASSES = (("new", "b"), "e")
    cfg, model = load_teacher(distill_cfg)
    assert num_classes(cfg) == ("MODEL.ROI_HEADS.NUM_CLASSES", 2)
    with torch.no_grad():
        found = model(batch)[0]["instances"]
    common = (expected.pred_classes == 1) | (expected.pred_classes == 4)
    assert 0 < len(found) < len(expected)
    assert len(found) == min(most, common.sum())
    assert torch.equal(found.scores, expected.scores[common][:most])
    assert torch.equal(found.pred_classes, (expected.pred_classes[common] == 1).long()[:most])


def test_a_teacher_without_a_yaml_config(distill_cfg, tmp_path):
    """It has the student's input sizes, and its own channel order."""
    path = tmp_path / "teacher.py"
    path.write_text(VITDET)
    model = instantiate(LazyConfig.load(str(path)).model)
    torch.save(model.state_dict(), tmp_path / "teacher.pth")
    distill_cfg.TEACHER.CONFIG_FILE = str(path)
    distill_cfg.TEACHER.WEIGHTS = str(tmp_path / "teacher.pth")
    distill_cfg.INPUT.MIN_SIZE_TEST, distill_cfg.INPUT.FORMAT = 123, "BGR"
    cfg, model = load_teacher(distill_cfg)
    assert (cfg.INPUT.FORMAT, cfg.INPUT.MIN_SIZE_TEST) == ("RGB", 123)
    assert not model.training and type(model.backbone).__name__ == "SimpleFeaturePyramid"
    distill_cfg.MODEL.ROI_HEADS.NUM_CLASSES = 3
    with pytest.raises(UserError, match="The student has 3 classes and the teacher 5"):
        load_teacher(distill_cfg)


def test_the_student_as_a_detector(distill_cfg, tmp_path):
    state = build_model(stock_config(distill_cfg)).state_dict()
    torch.save({"model": state}, tmp_path / "student.pth")
    cfg, model = load_student(distill_cfg, str(tmp_path / "student.pth"))
    assert type(model).__name__ == cfg.MODEL.META_ARCHITECTURE == "GeneralizedRCNN"
    assert all(torch.equal(model.state_dict()[name], state[name]) for name in state)
