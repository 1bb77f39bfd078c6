import argparse
import json
from pathlib import Path

import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.data import MetadataCatalog
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage
from omegaconf import OmegaConf

from eakd_det.config.defaults import stock_config
from eakd_det.config.lazy import distillation, load_lazy_config
from eakd_det.config.merge import load_config
from eakd_det.data.datasets.digits import NAMES
from eakd_det.engine import lazy as lazy_run
from eakd_det.engine.lazy import _dataset_name
from eakd_det.utils.errors import UserError
from tests.conftest import save_teacher

ROOT = Path(__file__).parents[2]
LAZY = ROOT / "configs" / "COCO-Detection" / "lazy"


def _use(cfg, teacher_files):
    """The lazy config with a small teacher of its classes in place of the model zoo's."""
    teacher = cfg.model.distillation.teacher
    teacher.config_file, teacher.weights = teacher_files
    return cfg


@pytest.fixture(scope="module")
def teacher_of_80(teacher_cfg, tmp_path_factory):
    cfg = teacher_cfg.clone()
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 80
    return save_teacher(cfg, tmp_path_factory.mktemp("teacher"))


def test_the_python_config_is_the_yaml_s_model(teacher_of_80, batch):
    """The same keys, and with the same weights and random state the same losses."""
    lazy = _use(load_lazy_config(str(LAZY / "ea_dkd_r18_r101.py"), []), teacher_of_80)
    cfg = load_config(str(ROOT / "configs" / "COCO-Detection" / "EA-DKD-R18-R101.yaml"))
    cfg.MODEL.DEVICE = "cpu"
    cfg.TEACHER.CONFIG_FILE, cfg.TEACHER.WEIGHTS = teacher_of_80
    ours, theirs = instantiate(lazy.model), build_model(cfg)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    theirs.load_state_dict(ours.state_dict())
    trained = [[n for n, p in m.named_parameters() if p.requires_grad] for m in (ours, theirs)]
    assert trained[0] == trained[1]
    losses = []
    for model in (ours, theirs):
        torch.manual_seed(0)
        with EventStorage():
            losses.append(model(batch))
    assert losses[0] == losses[1]
    assert "loss_dkd" in losses[0]


def test_the_python_student_is_stock():
    lazy = load_lazy_config(str(LAZY / "student_r18.py"), [])
    cfg = load_config(str(ROOT / "configs" / "COCO-Detection" / "Student-R18.yaml"))
    cfg.MODEL.DEVICE = "cpu"
    theirs = build_model(stock_config(cfg)).state_dict()
    assert instantiate(lazy.model).state_dict().keys() == theirs.keys()


def test_options_that_are_not_given_have_their_defaults():
    lazy = distillation(config_file="a", weights="b", methods={"DKD": {"beta": 0.5}})
    options = dict(lazy.methods.DKD)
    assert options == {
        "weight": 1.0,
        "alpha": 1.0,
        "beta": 0.5,
        "temperature": 4.0,
        "standardize": False,
    }
    assert not lazy.ea.enabled
    ea = {"mode": "normalized", "background": "ignored"}
    lazy = distillation(config_file="a", weights="b", methods={"KD": {}}, ea=ea)
    expected = {"enabled": True, "temperature": 3.0, "bound": 0.0, **ea}
    assert dict(lazy.ea) == expected


def test_classes_in_common(teacher_of_80, batch):
    """COCO's names of both: the student has them in another order."""
    cfg = _use(load_lazy_config(str(LAZY / "ea_dkd_r18_r101.py"), []), teacher_of_80)
    classes = distillation(
        config_file="a", weights="b", methods={}, classes=["cat", ("dog", "cow")]
    )
    MetadataCatalog.get("pets").thing_classes = ["dog", "cat"]
    cfg.model.distillation.classes, cfg.model.distillation.dataset = classes.classes, "pets"
    cfg.model.roi_heads.num_classes = 2
    coco = list(MetadataCatalog.get("coco_2017_train").thing_classes)
    torch.save({**torch.load(teacher_of_80[1]), "class_names": coco}, teacher_of_80[1])
    try:
        class_map = instantiate(cfg.model).class_map
    finally:
        MetadataCatalog.remove("pets")
    assert class_map.student == (1, 0)
    assert class_map.teacher == (coco.index("cat"), coco.index("cow"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"methods": {"DKT": {}}}, "methods: 'DKT' is unknown; choose from KD, DKD, "),
        ({"methods": {"KD": {"temprature": 1.0}}}, "methods, KD: 'temprature' is unknown"),
        ({"methods": {"KD": {}}, "ea": {"temprature": 1.0}}, "ea: 'temprature' is unknown"),
    ],
)
def test_mistakes_are_told(options, message):
    with pytest.raises(UserError, match=message):
        distillation(config_file="a", weights="b", **options)


def test_levels(teacher_of_80):
    lazy = _use(load_lazy_config(str(LAZY / "ea_dkd_r18_r101.py"), []), teacher_of_80)
    teacher = {"config_file": teacher_of_80[0], "weights": teacher_of_80[1]}
    methods = {"CWD": {"weight": 10.0}}
    lazy.model.distillation = distillation(**teacher, methods=methods, levels=("p2", "p4"))
    assert [name for name, _ in instantiate(lazy.model).maps.levels] == ["p2", "p4"]


def test_every_python_config_loads():
    files = sorted(LAZY.glob("*.py"))
    assert len(files) > 1
    for path in files:
        cfg = LazyConfig.load(str(path))
        assert path.stem in cfg.train.output_dir
        expected = {"model", "dataloader", "train", "optimizer", "lr_multiplier"}
        assert cfg.keys() == expected


@pytest.mark.parametrize(
    ("dataset", "expected"),
    [
        ({"names": "digits_det_train"}, "digits_det_train"),
        ({"names": ["digits_det_train"]}, "digits_det_train"),
        ([{"file_name": "a.png"}], ""),
        ({"root": "images"}, ""),
    ],
)
def test_the_name_of_a_dataset(dataset, expected):
    assert _dataset_name(OmegaConf.create({"dataset": dataset})) == expected
    assert _dataset_name(None) == ""


STOCK_PROCESS = """
import sys
import torch
from detectron2.config import LazyConfig, instantiate

cfg = LazyConfig.load(sys.argv[1])
assert cfg.keys() == {"model", "dataloader", "train", "optimizer", "lr_multiplier"}
assert "eakd_det" not in str(cfg), cfg
assert not {"accumulate", "best_metric", "channels_last", "fused"} & cfg.train.keys()
assert cfg.dataloader.evaluator.dataset_name == "digits_det_val"
assert cfg.dataloader.train.total_batch_size == 2
model = instantiate(cfg.model).eval()
assert type(model).__name__ == "GeneralizedRCNN"
state = torch.load(cfg.train.init_checkpoint, weights_only=True)["model"]
model.load_state_dict(state, strict=True)
torch.set_num_threads(1)
with torch.no_grad():
    found = model([{"image": torch.load(sys.argv[2])}])[0]["instances"]
assert not any(name.startswith("eakd_det") for name in sys.modules)
torch.save([found.pred_boxes.tensor, found.scores], sys.argv[3])
"""


def test_trained_by_the_tool(cli_cfg, call_tool, call_code, tmp_path):
    """Trains, resumes and evaluates, on the tiny scenes; stock Detectron2 loads the student."""
    config = f"""
from detectron2.config import LazyConfig
from eakd_det.utils.errors import UserError
from eakd_det.config.lazy import distillation
import eakd_det.data

base = LazyConfig.load({str(LAZY / "ea_dkd_r18_r101.py")!r})
model, dataloader, train = base.model, base.dataloader, base.train
optimizer, lr_multiplier = base.optimizer, base.lr_multiplier
model.roi_heads.num_classes = 10
model.roi_heads.batch_size_per_image = 16
model.distillation = distillation(
    config_file={cli_cfg.TEACHER.CONFIG_FILE!r}, weights={cli_cfg.TEACHER.WEIGHTS!r},
    methods={{"DKD": {{}}, "REVIEWKD": {{}}}}, ea={{}},
    dataset="digits_det_train",
)
dataloader.train.dataset.names = "digits_det_train"
dataloader.test.dataset.names = "digits_det_val"
for _mapper in (dataloader.train.mapper, dataloader.test.mapper):
    _mapper.augmentations[0].short_edge_length = 96
dataloader.train.total_batch_size, train.accumulate = 1, 2
dataloader.train.num_workers = dataloader.test.num_workers = 0
train.init_checkpoint = ""
train.output_dir = {str(tmp_path / "lazy")!r}
train.max_iter = train.eval_period = 2
train.channels_last, train.fused = True, False
train.seed = 5
model.roi_heads.box_predictor.test_score_thresh = 0.0  # an untrained student is sure of nothing
"""
    path = tmp_path / "lazy.py"
    path.write_text(config)

    def call(*arguments):
        return call_tool("train_net.py", "--config-file", str(path), *arguments)

    code, out, err = call()
    assert code == 0, out + err
    assert "loss_dkd" in out
    assert "Methods: DKD with WEIGHT 1, REVIEWKD with WEIGHT 1; EA weight full" in out
    assert "medians of the first 2 iterations: loss_dkd " in out
    assert "FrozenBN layers, " in out[out.index("What to look at:") :]
    saved = torch.load(tmp_path / "lazy" / "model_final.pth", weights_only=True)
    assert "helpers" in saved
    name = "backbone.bottom_up.res2.0.conv1.weight"
    assert saved["model"][name].is_contiguous(memory_format=torch.channels_last)
    assert not [key for key in saved["model"] if key.startswith("adapters")]
    result = json.loads((tmp_path / "lazy" / "result.json").read_text())
    assert result.keys() == {"AP", "AP50", "AP75", "test_set", "teacher_AP"}
    best = torch.load(tmp_path / "lazy" / "model_best.pth", weights_only=True)
    assert best["model"].keys() == saved["model"].keys()
    assert best["metric"] == result["AP"]
    assert saved["class_names"] == best["class_names"] == NAMES
    student = instantiate(load_lazy_config(str(path), []).model).eval()
    student.load_state_dict(saved["model"], strict=False)
    record = json.loads((tmp_path / "lazy" / "run.json").read_text())
    own = [p for name, p in student.named_parameters() if not name.startswith("adapters.")]
    assert record["parameters"] == sum(p.numel() for p in own)
    image = torch.randint(0, 256, (3, 96, 96), dtype=torch.uint8)
    with torch.no_grad():
        expected = student([{"image": image}])[0]["instances"]
    torch.save(image, tmp_path / "image.pt")
    files = tmp_path / "lazy" / "student.yaml", tmp_path / "image.pt", tmp_path / "found.pt"
    code, _, err = call_code(STOCK_PROCESS, *map(str, files))
    assert code == 0, err
    found = torch.load(tmp_path / "found.pt")
    assert torch.equal(found[0], expected.pred_boxes.tensor) and len(found[0]) > 0
    assert torch.equal(found[1], expected.scores)
    code, out, err = call(
        "--resume", "train.max_iter=4", "train.eval_period=0", "optimizer.lr=0.004"
    )
    assert code == 0, out + err
    assert "Starting training from iteration 2" in out
    assert "--resume: BASE_LR 0.01 -> 0.004 from iteration 2 on" in out
    saved = torch.load(tmp_path / "lazy" / "model_final.pth", weights_only=True)
    assert saved["trainer"]["optimizer"]["param_groups"][0]["initial_lr"] == 0.004
    code, out, err = call("--resume", "--eval-only")
    assert code == 0, out + err
    assert "copypaste: AP,AP50,AP75" in out
    code, _, err = call("--check")
    assert code == 1
    assert "error: A Python config names data, teacher, student and schedule itself" in err


@pytest.mark.parametrize(
    ("processes", "overrides", "images", "accumulate", "rate"),
    [(1, [], 4, 4, 0.02), (3, [], 3, 5, 0.02 * 15 / 16), (1, ["train.accumulate=2"], 16, 2, 0.02)],
)
def test_a_step_keeps_its_images(
    processes, overrides, images, accumulate, rate, tmp_path, monkeypatch
):
    """A run of 4 processes that is resumed; train.accumulate= has the last word."""
    monkeypatch.setattr(lazy_run.comm, "get_world_size", lambda: processes)
    monkeypatch.setattr(lazy_run.comm, "all_gather", lambda mine: [mine])
    (tmp_path / "run.json").write_text('{"starts": [{"processes": 4, "accumulate": 1}]}')
    sizes = ["dataloader.train.total_batch_size=16", "optimizer.lr=0.02"]
    options = [f"train.output_dir={tmp_path}", *sizes, *overrides]
    cfg = load_lazy_config(str(LAZY / "ea_dkd_r18_r101.py"), options)
    note = lazy_run._keep_step(cfg, argparse.Namespace(resume=True, opts=options))
    assert cfg.dataloader.train.total_batch_size == images
    assert (cfg.train.get("accumulate"), cfg.optimizer.lr) == (accumulate, pytest.approx(rate))
    assert f"train.accumulate is {accumulate}, not 1" in note or overrides
