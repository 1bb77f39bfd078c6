"""Safe loading of configs: no tool runs code that a tag names."""

import json
import logging
import os
import pickle
import runpy
import signal
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from detectron2 import model_zoo
from detectron2.config import CfgNode, get_cfg

from eakd_det.config.merge import load_config
from eakd_det.config.safe_yaml import merge_file, read_yaml
from eakd_det.demo.demo import run_demo
from eakd_det.modeling.teacher.build import make_teacher
from eakd_det.utils.errors import UserError

ROOT = Path(__file__).parents[2]
ZOO = Path(model_zoo.get_config_file("COCO-Detection/faster_rcnn_R_50_FPN_3x.yaml")).parents[1]
KINDS = {
    "detector": "VERSION: 2\nDATASETS: {TEST: [digits_det_val]}\n",
    "classifier": "VERSION: 2\nMODEL: {NAME: resnet8}\nDATASET: {NAME: digits}\n",
    "language-model": "VERSION: 2\nDATASET: {TRAIN: tiny_train}\nTEST: {SETS: [a=tiny_sort]}\n",
}
DISTILLED = 'TEACHER: {CONFIG_FILE: planted.yaml}\nDISTILL: {METHODS: ["KD"]}\n'


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working folder, with files that make the file `mark` where they are read unsafely."""
    monkeypatch.chdir(tmp_path)
    planted = '    - !!python/object/apply:os.system ["touch mark"]\n'
    for name in ("run/config.yaml", "run/student.yaml", "planted.yaml"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(f"VERSION: 2\nDATASET:\n{planted}")
    Path("run/model_final.pth").touch()
    Path("run/metrics.json").write_text(json.dumps({"iteration": 0, "total_loss": 1.0}) + "\n")
    for kind, text in KINDS.items():
        Path(f"{kind}-with-a-base.yaml").write_text(f"_BASE_: planted.yaml\n{text}")
        Path(f"distilled-{kind}.yaml").write_text(text + DISTILLED)
    return tmp_path


@pytest.fixture
def call(monkeypatch, capsys):
    """Calls a script of tools/ in this process; what it ends with, or prints."""
    signals = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    loggers = [logging.getLogger(name) for name in ("", "eakd_det", "eakd_det.sweep", "llm")]
    states = [(logger, logger.level, logger.handlers[:]) for logger in loggers]

    def run(tool, *arguments):
        monkeypatch.setattr(sys, "argv", [tool, *arguments])
        try:
            runpy.run_path(str(ROOT / "tools" / tool), run_name="__main__")
        except SystemExit as end:
            return end.code
        return capsys.readouterr().out

    yield run
    for number, handler in signals.items():
        signal.signal(number, handler)
    for logger, level, handlers in states:
        logger.setLevel(level)
        logger.handlers[:] = handlers


def test_the_planted_file_works(folder):
    with suppress(yaml.YAMLError):
        yaml.unsafe_load(Path("planted.yaml").read_text())
    assert Path("mark").exists()


@pytest.mark.parametrize(
    "command",
    [
        "train_net.py --config-file FILE",
        "visualize.py --config-file FILE",
        "train_classifier.py --config-file FILE",
        "train_lm.py --config-file FILE",
        "evaluate_lm.py --config-file FILE",
        "sweep.py --seeds 1 --configs FILE",
        "sweep_lm.py --seeds 1 --configs FILE",
        "benchmark.py --only losses detection --output benchmark --config-file FILE",
        "train_net.py --config-file detector-with-a-base.yaml",
        "sweep.py --seeds 1 --configs detector-with-a-base.yaml",
        "train_classifier.py --config-file classifier-with-a-base.yaml",
        "train_lm.py --config-file language-model-with-a-base.yaml",
        "train_classifier.py --config-file distilled-classifier.yaml",
        "sweep.py --seeds 1 --configs distilled-classifier.yaml",
        "sweep.py --seeds 1 --configs distilled-detector.yaml TEACHER.WEIGHTS teacher.pth",
        "train_lm.py --config-file distilled-language-model.yaml",
        "sweep_lm.py --seeds 1 --configs distilled-language-model.yaml",
        "analyze.py entropy-segments run",
        "analyze.py detection run",
        "visualize.py --config-file run/config.yaml",
        "export_student.py run exported",
    ],
)
def test_every_tool_refuses_it_in_a_sentence(folder, call, command):
    words = command.replace("FILE", "planted.yaml").split()
    end = str(call(*words))
    assert end.startswith("error: ") and len(end.splitlines()) == 1
    assert "holds !!python/object/apply:os.system in line 3: a config may only have" in end
    assert any(f"{name}.yaml" in end for name in ("planted", "config", "student"))
    assert not Path("mark").exists()


def test_a_report_shows_it_and_runs_nothing(folder, call):
    call("report.py", "run", "--output", "report.html")
    assert not Path("mark").exists()


def test_a_detector_s_teacher_and_the_demo(folder, monkeypatch):
    with pytest.raises(UserError, match=r"planted\.yaml holds !!python/object/apply:os\.system"):
        make_teacher("planted.yaml", "teacher.pth")
    monkeypatch.setattr("eakd_det.demo.demo.get_config_file", lambda name: "planted.yaml")
    with pytest.raises(UserError, match=r"\.yaml holds !!python/object/apply:os\.system"):
        run_demo("output", [])
    assert not Path("mark").exists()


def test_files_of_proposals_run_nothing(folder, call):
    class Attack:
        def __reduce__(self):
            return os.system, ("touch mark",)

    Path("proposals.pkl").write_bytes(pickle.dumps({"boxes": Attack()}))
    Path("run.yaml").write_text(
        "VERSION: 2\nMODEL: {LOAD_PROPOSALS: True, META_ARCHITECTURE: DistillRCNN}\n"
        'DATASETS: {TRAIN: [digits_det_train], PROPOSAL_FILES_TRAIN: ["proposals.pkl"]}\n'
    )
    end = call("train_net.py", "--config-file", "run.yaml")
    assert end.startswith("error: proposals.pkl holds ") and "could run code" in end
    assert not Path("mark").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "x.yaml is not a config of keys and values"),
        ("- 1", "x.yaml is not a config of keys and values"),
        ("_BASE_: 5", "x.yaml is not a config of keys and values"),
        ("A: [", "x.yaml is not valid YAML"),
        ("A: !unknown 1", "x.yaml is not valid YAML"),
        ("_BASE_: none.yaml", "none.yaml cannot be read"),
        ("_BASE_: x.yaml", "x.yaml: its _BASE_ files form a cycle"),
        ("_BASE_: base.yaml\nA: {B: 1}", "x.yaml: Cannot inherit key 'A'"),
        ("A: !!python/object/apply:eval ['1 + 1']", "x.yaml holds !!python/object/apply:eval in"),
        ("A: !!python/name:os.system", "x.yaml holds !!python/name:os.system in line 1"),
        ("VERSION: 7", "x.yaml: VERSION 7 of configs is unknown"),
    ],
)
def test_files_that_are_no_configs(tmp_path, text, words):
    (tmp_path / "x.yaml").write_text(text)
    (tmp_path / "base.yaml").write_text("A: 1")
    with pytest.raises(UserError, match=words):
        load_config(str(tmp_path / "x.yaml"))


@pytest.mark.parametrize("name", ["Base-RetinaNet", "COCO-Detection/retinanet_R_101_FPN_3x"])
def test_the_model_zoo_s_retinanets_are_read_as_detectron2_does(name):
    """Its base config has an expression for the sizes of anchors."""
    path = str(ZOO / f"{name}.yaml")
    assert read_yaml(path) == CfgNode.load_yaml_with_base(path, allow_unsafe=True)


def test_the_rest_of_the_model_zoo_needs_nothing_unsafe():
    paths = sorted(ZOO.rglob("*.yaml"))
    unsafe = [p.name for p in paths if "!!" in p.read_text() and p.name != "Base-RetinaNet.yaml"]
    assert len(paths) > 50 and not unsafe


def test_other_sizes_of_anchors_are_read(tmp_path):
    text = (ZOO / "Base-RetinaNet.yaml").read_text()
    (tmp_path / "mine.yaml").write_text(text.replace("[32, 64, 128, 256, 512 ]", "[16, 24.5]"))
    sizes = read_yaml(str(tmp_path / "mine.yaml"))["MODEL"]["ANCHOR_GENERATOR"]["SIZES"]
    assert sizes == [[x, x * 2 ** (1.0 / 3), x * 2 ** (2.0 / 3)] for x in (16, 24.5)]


@pytest.mark.parametrize("text", ["VERSION: 1\nMODEL: {WEIGHT: a.pkl}", "MODEL: {WEIGHT: a.pkl}"])
def test_configs_of_detectron2_s_first_version(tmp_path, text):
    (tmp_path / "old.yaml").write_text(text)
    cfg, stock = get_cfg(), get_cfg()
    merge_file(cfg, str(tmp_path / "old.yaml"))
    stock.merge_from_file(str(tmp_path / "old.yaml"))
    assert cfg.dump() == stock.dump() and cfg.MODEL.WEIGHTS == "a.pkl"
