"""Marked code blocks of docs/, run as they stand: `<!-- test: NAME -->` before a fenced block."""

import json
import os
import re
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from detectron2.modeling import build_model
from PIL import Image

from eakd_det.checkpoint.checkpointer import load_strictly
from eakd_det.config.defaults import stock_config
from eakd_det.evaluation.predictor import Predictor
from eakd_det.export import export_graph
from eakd_det.model_zoo import get_config_file
from tests.conftest import save_teacher
from tests.export.runs import NAMES as STUDENT_NAMES
from tests.export.runs import save_run as save_student

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"<!-- test: (\w+) -->\s*```\w+\n(.*?)```", re.DOTALL)
BLOCKS = dict(
    pair
    for path in sorted((ROOT / "docs").glob("*.md"))
    for pair in BLOCK.findall(path.read_text())
)
USED = set()


def uses(*names):
    """Give a test the text of the blocks with these names."""
    USED.update(names)
    return pytest.mark.parametrize("names", [names], ids=["-".join(names)])


def test_every_marked_block_is_run():
    marks = re.findall(
        r"<!-- test:.*", "".join(p.read_text() for p in (ROOT / "docs").glob("*.md"))
    )
    assert len(marks) == len(BLOCKS) and set(BLOCKS) == USED


@pytest.fixture
def run(call_code, tool_environment, cli_cfg, tmp_path):
    """Run a script in tmp_path with the config `cli_cfg`, but for some keys, as tiny.yaml."""

    def run(code, *arguments, without=()):
        tiny = yaml.safe_load(cli_cfg.dump())
        for key in without:
            *nodes, leaf = key.split(".")
            node = tiny
            for name in nodes:
                node = node[name]
            del node[leaf]
        (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny))
        result, out, err = call_code(code, *arguments, environment=tool_environment())
        assert result == 0, out + err
        return out

    return run


@pytest.fixture
def config(tmp_path):
    """Write a config beside those of COCO-Detection, on which it is based; its path."""
    folder = Path(get_config_file("COCO-Detection/Base.yaml")).parent

    def config(text):
        shutil.copytree(folder, tmp_path / "configs")
        (tmp_path / "configs" / "block.yaml").write_text(text)
        return tmp_path / "configs" / "block.yaml"

    return config


TRAIN = """
import sys
from eakd_det.config import load_config
from eakd_det.engine import DistillTrainer
cfg = load_config(sys.argv[1])
cfg.merge_from_file("tiny.yaml")
cfg.SOLVER.MAX_ITER = 2
trainer = DistillTrainer(cfg)
trainer.resume_or_load(resume=False)
trainer.train()
"""


@uses("own_train_net")
def test_own_train_net(names, run, cli_cfg):
    """The script of a user trains, evaluates and saves a stock student."""
    cli_cfg.DATASETS.TEST = ("digits_det_val",)
    words = ("--config-file", "tiny.yaml", "SOLVER.MAX_ITER", "2")
    out = run(BLOCKS[names[0]], *words)
    assert "copypaste: AP,AP50,AP75" in out
    metrics = (Path(cli_cfg.OUTPUT_DIR) / "metrics.json").read_text()
    assert "loss_dkd" in metrics
    student = build_model(stock_config(cli_cfg))
    load_strictly(student, f"{cli_cfg.OUTPUT_DIR}/model_final.pth", key="MODEL.WEIGHTS")


PYTEST = """
import sys
del sys.path[0]  # the folder of this file, whose name is that of a standard module
import pytest
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "test_block.py"]))
"""


@uses("method_loss", "method_distiller", "method_config", "method_test")
def test_a_method(names, run, config, tmp_path):
    """Passes the contract of losses, and is trained by its config."""
    loss, distiller, text, test = (BLOCKS[name] for name in names)
    (tmp_path / "test_block.py").write_text(loss + test)
    out = run(PYTEST)
    assert re.search(r"\d+ passed", out)
    run(loss + distiller + TRAIN, config(text), without=["DISTILL", "OUTPUT_DIR"])
    folder = tmp_path / "output" / "COCO-Detection" / "RKL-R18-R101"
    assert "loss_rkl" in (folder / "metrics.json").read_text()


PANOPTIC = """
import sys, torch
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage
from eakd_det.config import load_config, stock_config
cfg = load_config(sys.argv[1])
cfg.merge_from_file("tiny.yaml")
heads = cfg.MODEL.SEM_SEG_HEAD
heads.IN_FEATURES, heads.NUM_CLASSES, heads.CONVS_DIM = ["p2", "p3", "p4", "p5"], 3, 32
assert stock_config(cfg).MODEL.META_ARCHITECTURE == "PanopticFPN"
batch = torch.load("batch.pth", weights_only=False)
for x in batch:
    x["sem_seg"] = torch.zeros(x["image"].shape[1:], dtype=torch.int64)
with EventStorage():
    losses = build_model(cfg).train()(batch)
assert {"loss_sem_seg", "loss_cls", "loss_dkd"} <= set(losses), losses
sum(losses.values()).backward()
"""


@uses("meta_architecture", "meta_architecture_config")
def test_a_meta_architecture(names, run, config, batch, tmp_path):
    """Has the stock losses and the distillation's."""
    code, text = (BLOCKS[name] for name in names)
    torch.save(batch, tmp_path / "batch.pth")
    run(code + PANOPTIC, config(text), without=["DISTILL", "MODEL.META_ARCHITECTURE"])


@uses("dataset", "dataset_config")
def test_a_dataset(names, run, config, teacher_cfg, tmp_path):
    """Is trained and evaluated on."""
    code, text = (BLOCKS[name] for name in names)
    for split in ("train", "val"):
        folder = tmp_path / "datasets" / "parts" / split
        folder.mkdir(parents=True)
        lines = ["file,width,height,x1,y1,x2,y2,label"]
        for number in range(4):
            Image.new("RGB", (128, 96)).save(folder / f"{number}.png")
            lines += [
                f"{number}.png,128,96,10,10,60,50,bolt",
                f"{number}.png,128,96,60,30,99,90,nut",
            ]
        folder.with_suffix(".csv").write_text("\n".join(lines))
    teacher = teacher_cfg.clone()
    teacher.MODEL.ROI_HEADS.NUM_CLASSES = 2
    (tmp_path / "parts" / "teacher").mkdir(parents=True)
    files = save_teacher(teacher, tmp_path / "parts" / "teacher")
    for path, name in zip(files, ("config.yaml", "model_final.pth"), strict=True):
        Path(path).rename(tmp_path / "parts" / "teacher" / name)
    own = ["DATASETS", "DISTILL", "MODEL.ROI_HEADS.NUM_CLASSES", "OUTPUT_DIR", "TEACHER"]
    out = run(code + TRAIN, config(text), without=own)
    assert "copypaste: AP,AP50,AP75" in out
    assert (tmp_path / "output" / "parts" / "model_final.pth").exists()


@uses("onnx_runtime", "torchscript")
def test_exported_students(names, distill_cfg, batch, monkeypatch, capsys, tmp_path):
    """Give the detections of the run, in pixels of the photo, and the names of their classes."""
    pytest.importorskip("onnxruntime", reason="requirements/export.txt is not installed")
    pytest.importorskip("onnx", reason="requirements/export.txt is not installed")
    monkeypatch.chdir(tmp_path)
    distill_cfg.INPUT.FORMAT = "BGR"
    run = save_student(distill_cfg, tmp_path / "run")
    photo = batch[0]["image"].permute(1, 2, 0).numpy()
    Image.fromarray(photo).save("photo.jpg", quality=95)
    for format in ("onnx", "torchscript"):
        export_graph(run, "exported", format)
    scope = {}
    exec(BLOCKS[names[0]], scope)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    found = Predictor(run, score=0.05)("photo.jpg")
    assert len(lines) == len(found) > 5
    for line, box, c in zip(lines, found.pred_boxes.tensor, found.pred_classes, strict=True):
        assert line[0] == STUDENT_NAMES[c]
        assert torch.allclose(torch.tensor([*map(float, line[2:])]), box, atol=0.02)
    exec(BLOCKS[names[1]], scope)
    assert scope["names"] == list(STUDENT_NAMES) and scope["about"]["input_format"] == b"BGR"
    assert scope["boxes"].shape == (len(scope["scores"]), 4)


NOTEBOOK = ROOT / "docs" / "quickstart.ipynb"


def test_the_notebook_is_stored_without_outputs():
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    for cell in cells:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None
            compile("".join(cell["source"]), cell["id"], "exec")


@pytest.mark.slow
def test_the_notebook(tmp_path):
    """Runs from the data to the predictions, in an empty folder."""
    pytest.importorskip("nbclient", reason="nbclient of requirements/test.txt is not installed")
    pytest.importorskip("ipykernel", reason="ipykernel of requirements/test.txt is not installed")
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    place = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=1200, resources=place).execute()
    outputs = {cell["id"]: cell.get("outputs", []) for cell in notebook.cells}
    table = outputs["metrics"][0]["text"]
    scores = dict(re.findall(r"(teacher|student) +([0-9.]+)", table))
    assert scores.keys() == {"teacher", "student"} and min(map(float, scores.values())) > 5
    assert "image/png" in outputs["predictions"][-1]["data"]
    for run in ("teacher", "student"):
        folder = tmp_path / "output" / "quickstart" / run
        assert {"student.yaml", "model_best.pth"} <= set(os.listdir(folder))
