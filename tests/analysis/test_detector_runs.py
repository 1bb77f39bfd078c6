"""eakd_det.analysis.detector_runs."""

import json
import os

import pytest
import torch
from detectron2.modeling import build_model

from eakd_det.analysis.detector_runs import analyze_detectors, detector_configs, load_detectors
from eakd_det.analysis.runs import find_runs
from eakd_det.config.defaults import stock_config
from eakd_det.utils.errors import UserError


@pytest.fixture
def run(run_cfg):
    """A run's folder, as training leaves it but for the training."""

    def make(name, cfg=run_cfg, options=()):
        cfg = cfg.clone()
        cfg.merge_from_list(list(options))
        cfg.OUTPUT_DIR = os.path.join(os.path.dirname(run_cfg.OUTPUT_DIR), name)
        os.makedirs(cfg.OUTPUT_DIR)
        torch.manual_seed(len(name))
        model = build_model(stock_config(cfg))
        torch.save({"model": model.state_dict()}, os.path.join(cfg.OUTPUT_DIR, "model_final.pth"))
        with open(os.path.join(cfg.OUTPUT_DIR, "config.yaml"), "w") as f:
            f.write(cfg.dump())
        return cfg.OUTPUT_DIR

    return make


def _analyze(paths, **options):
    return analyze_detectors(find_runs(paths), num_points=10, seed=0, **options)


def test_runs_are_analysed_beside_their_teacher(run, run_cfg, tmp_path):
    first, report = _analyze([run("KD"), f"EA={run('other')}"])
    assert [row[0] for row in report.rows] == ["teacher", "KD", "EA"]
    _, numbers = first.figures["ap_segments"]
    assert numbers["temperature"] == run_cfg.DISTILL.EA.TEMPERATURE
    report.write(str(tmp_path / "analysis"))
    assert json.loads((tmp_path / "analysis" / "tsne.json").read_text())["samples"] == 10


def test_the_teacher_can_be_a_run(run, teacher_cfg):
    plain = run("plain", options=["TEACHER.CONFIG_FILE", ""])
    with pytest.raises(UserError, match="None of the runs has a teacher: name one with --teacher"):
        _analyze([plain])
    (teacher,), runs = find_runs([run("bigger")]), find_runs([plain])
    configs = detector_configs(runs)
    detectors = load_detectors(runs, configs, (teacher, configs[0]))
    assert list(detectors) == ["plain", "teacher"]
    weights = [model.roi_heads.box_predictor.cls_score.weight for _, model in detectors.values()]
    assert not torch.equal(*weights)


def test_other_classes_are_refused(run):
    other = run("other", options=["MODEL.ROI_HEADS.NUM_CLASSES", 3])
    with pytest.raises(UserError, match="other has 3 classes .* and the teacher 10"):
        _analyze([run("KD"), other])


def test_mistakes_name_the_run(run):
    path = run("KD")
    with pytest.raises(UserError, match="called 'teacher'"):
        _analyze([f"teacher={path}"])
    os.remove(os.path.join(path, "model_final.pth"))
    with pytest.raises(UserError, match="KD holds no model_final.pth"):
        _analyze([path])
    nothing = run("nothing", options=["DATASETS.TEST", ()])
    with pytest.raises(UserError, match="nothing has no DATASETS.TEST"):
        _analyze([nothing])
