import json
import os
from pathlib import Path

import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog

from eakd_det.engine import DistillTrainer, evaluate
from eakd_det.utils.errors import UserError

from .runs import train

ROOT = Path(__file__).parents[2]


@pytest.fixture
def run(run_cfg):
    """The finished run: its config and its trainer."""
    trainer = DistillTrainer(run_cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()
    return run_cfg, trainer


def _metrics(cfg):
    """All that metrics.json holds, a later line over an earlier one."""
    lines = (Path(cfg.OUTPUT_DIR) / "metrics.json").read_text().splitlines()
    return {key: value for line in lines for key, value in json.loads(line).items()}


def test_what_a_run_leaves_behind(run):
    cfg, trainer = run
    folder = Path(cfg.OUTPUT_DIR)
    names = {path.name.split(".")[0] for path in folder.iterdir()}
    assert {"student", "model_final", "metrics", "events", "inference"} <= names
    metrics = _metrics(cfg)
    assert metrics["loss_dkd"] > 0
    assert metrics["bbox/AP"] >= 0
    checkpoint = torch.load(folder / "model_final.pth", weights_only=True)
    assert list(checkpoint["model"]) == list(trainer.model.state_dict())
    in_optimizer = checkpoint["trainer"]["_trainer"]["optimizer"]["param_groups"]
    trained = [p for p in trainer.model.parameters() if p.requires_grad]
    assert sum(len(group["params"]) for group in in_optimizer) == len(trained)


@pytest.mark.parametrize(("prefetch", "look_ahead"), [(True, None), (False, False)])
def test_prefetch(run_cfg, prefetch, look_ahead):
    """Its step looks ahead on a GPU alone, or nowhere."""
    run_cfg.DATALOADER.PREFETCH = prefetch
    assert DistillTrainer(run_cfg)._trainer.looks_ahead is look_ahead


def test_statistics_are_written(run_cfg):
    run_cfg.SOLVER.MAX_ITER = 20
    run_cfg.DATASETS.TEST = ()
    trainer = DistillTrainer(run_cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()
    for column in ("teacher_entropy", "student_entropy", "w_ea", "w_ea_p10", "w_ea_p90"):
        assert _metrics(run_cfg)[f"distill/background/{column}"] > 0


def test_boxes_that_are_not_finite_stop_the_run_in_words(run_cfg):
    """Detectron2's RPN raises before there is a loss."""
    trainer = DistillTrainer(run_cfg)
    trainer.resume_or_load(resume=False)
    with torch.no_grad():
        trainer.model.proposal_generator.rpn_head.anchor_deltas.bias.fill_(torch.nan)
    with pytest.raises(
        UserError, match="At iteration 0 the model says .Predicted boxes .* images "
    ):
        trainer.train()
    assert (Path(run_cfg.OUTPUT_DIR) / "non_finite_rank0.pth").exists()


STOCK_PROCESS = """
import sys
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import get_cfg
from detectron2.modeling import build_model

cfg = get_cfg()
cfg.merge_from_file(sys.argv[1])
model = build_model(cfg).eval()
assert type(model).__name__ == "GeneralizedRCNN"
state = torch.load(cfg.MODEL.WEIGHTS, weights_only=True)["model"]
model.load_state_dict(state, strict=True)
image = torch.load(sys.argv[2])
torch.set_num_threads(1)
with torch.no_grad():
    found = model([{"image": image}])[0]["instances"]
assert not any(name.startswith("eakd_det") for name in sys.modules)
torch.save([found.pred_boxes.tensor, found.scores, found.pred_classes], sys.argv[3])
"""


def test_stock_process_loads_the_student(run, call_code, tmp_path):
    cfg, trainer = run
    image = torch.randint(0, 256, (3, 96, 96), dtype=torch.uint8)
    torch.save(image, tmp_path / "image.pt")
    student, output = os.path.join(cfg.OUTPUT_DIR, "student.yaml"), str(tmp_path / "found.pt")
    code, _, err = call_code(STOCK_PROCESS, student, tmp_path / "image.pt", output)
    assert code == 0, err
    trainer.model.eval()
    with torch.no_grad():
        mine = trainer.model([{"image": image}])[0]["instances"]
    theirs = torch.load(output)
    assert len(theirs[0]) > 0
    for ours, value in zip(
        [mine.pred_boxes.tensor, mine.scores, mine.pred_classes], theirs, strict=True
    ):
        assert torch.equal(ours, value)


def test_evaluation_goes_through_the_stock_model(run):
    cfg, trainer = run
    results = evaluate(cfg, os.path.join(cfg.OUTPUT_DIR, "model_final.pth"))
    in_training = trainer.test(cfg, trainer.model)
    assert results["bbox"]["AP"] == in_training["bbox"]["AP"]
    assert results["bbox"].keys() >= {"AP", "AP50", "AP75"}


def test_evaluation_refuses_other_weights(run_cfg, tmp_path):
    with pytest.raises(ValueError, match="MODEL.WEIGHTS does not fit its model"):
        evaluate(run_cfg, str(tmp_path / "teacher.pth"))


def test_no_image_to_train_on(run_cfg, scenes):
    name = "scenes_without_objects"
    images = [{**x, "annotations": []} for x in DatasetCatalog.get(scenes[0])]
    DatasetCatalog.register(name, lambda: images)
    MetadataCatalog.get(name).set(thing_classes=list("0123456789"))
    run_cfg.DATASETS.TRAIN = (name,)
    with pytest.raises(
        UserError, match=f"none of the 6 images of {name} can be trained on .6 without"
    ):
        DistillTrainer(run_cfg)
    run_cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS = False
    DistillTrainer(run_cfg)


def test_evaluation_refuses_other_datasets(run_cfg):
    MetadataCatalog.get("some_lvis").set(evaluator_type="lvis")
    with pytest.raises(ValueError, match="some_lvis cannot be evaluated"):
        DistillTrainer.build_evaluator(run_cfg, "some_lvis")


def test_resume_goes_on(run_cfg):
    run_cfg.DATASETS.TEST = ()
    run_cfg.SOLVER.MAX_ITER = 2
    first = DistillTrainer(run_cfg)
    first.resume_or_load(resume=False)
    first.train()
    run_cfg.SOLVER.MAX_ITER = 4
    second = DistillTrainer(run_cfg)
    second.resume_or_load(resume=True)
    assert second.start_iter == 2
    for (name, before), after in zip(
        first.model.state_dict().items(), second.model.state_dict().values(), strict=True
    ):
        assert torch.equal(before, after), name
    second.train()
    assert (Path(run_cfg.OUTPUT_DIR) / "last_checkpoint").read_text() == "model_final.pth"


def _layouts(model):
    weights = [p for p in model.parameters() if p.dim() == 4 and min(p.shape[1:]) > 1]
    return {p.is_contiguous(memory_format=torch.channels_last) for p in weights}


def test_channels_last(run_cfg, tmp_path):
    """Trains a student alike, whichever format its checkpoint has."""
    cfg, saved = run_cfg, []
    cfg.DATASETS.TEST, cfg.MODEL.RESNETS.NORM, cfg.MODEL.BACKBONE.FREEZE_AT = (), "BN", 0
    for formats in [(False, False), (False, True), (True, False)]:
        folder = tmp_path / "-".join(map(str, formats))
        for is_last, stop in zip(formats, (1, 2), strict=True):
            cfg.MODEL.CHANNELS_LAST = is_last
            assert _layouts(train(cfg, folder, [stop], resume=stop > 1).model) == {is_last}
        saved.append(torch.load(folder / "model_final.pth", weights_only=True)["model"])
    for state in saved[1:]:
        torch.testing.assert_close(state, saved[0], rtol=1e-3, atol=1e-4)


def test_channels_last_of_stock_models(run_cfg):
    run_cfg.MODEL.CHANNELS_LAST = True
    for name in ("GeneralizedRCNN", "DistillRCNN"):
        run_cfg.MODEL.META_ARCHITECTURE = name
        model = DistillTrainer.build_model(run_cfg)
        assert type(model).__name__ == name and _layouts(model) == {True}
    assert _layouts(model.teacher.model) == {True}, "also before it is prepared"


@pytest.mark.parametrize("methods", [("DKD",), ("DKD", "REVIEWKD")])
def test_another_method_is_refused_in_words(run_cfg, tmp_path, methods):
    """The fusion modules of ReviewKD train too, and the optimizer knows them."""
    cfg = run_cfg
    cfg.DATASETS.TEST = ()
    cfg.DISTILL.METHODS = methods
    train(cfg, tmp_path / "run", [1])
    cfg.DISTILL.METHODS = ("REVIEWKD",) if methods == ("DKD",) else ("DKD",)
    path = tmp_path / "run" / "model_final.pth"
    with pytest.raises(UserError, match=f"{path} cannot be resumed: .* another DISTILL.METHODS"):
        train(cfg, tmp_path / "run", [2], resume=True)


def test_the_losses_of_the_methods_are_compared_with_the_task_s(run_cfg, tmp_path, caplog):
    """Once a run: at the end of a short one, and not again when it goes on."""
    run_cfg.DATASETS.TEST, run_cfg.SOLVER.MAX_ITER = (), 2
    run_cfg.DISTILL.METHODS, run_cfg.DISTILL.REVIEWKD.WEIGHT = ("DKD", "REVIEWKD"), 0.5
    starts = "Methods: ", "Losses relative to the task's own, "
    for resume, iterations in ((False, 2), (True, 3)):
        caplog.clear()
        run_cfg.SOLVER.MAX_ITER = iterations
        with caplog.at_level("INFO"):
            train(run_cfg, tmp_path / "run", [iterations], resume=resume)
        settings, *lines = [text for text in caplog.messages if text.startswith(starts)]
        assert settings == (
            "Methods: DKD with WEIGHT 1, REVIEWKD with WEIGHT 0.5; EA weight full, temperature 3"
        )
        assert len(lines) == (0 if resume else 1)
        assert all(": loss_dkd " in line and ", loss_reviewkd " in line for line in lines)


def test_a_resumed_run_says_that_it_reads_no_other_weights(run_cfg, tmp_path, caplog):
    run_cfg.DATASETS.TEST = ()
    train(run_cfg, tmp_path / "run", [1])
    run_cfg.MODEL.WEIGHTS = "elsewhere.pth"
    with caplog.at_level("INFO"):
        train(run_cfg, tmp_path / "run", [2], resume=True)
    newest = tmp_path / "run" / "model_final.pth"
    assert f"--resume: continuing from {newest}; elsewhere.pth is not read" in caplog.text


def test_checkpoints_hold_the_student_alone(run_cfg, tmp_path):
    run_cfg.DISTILL.METHODS = ("REVIEWKD",)
    run_cfg.DATASETS.TEST = ()
    trainer = train(run_cfg, tmp_path / "run", [2])
    saved = torch.load(tmp_path / "run" / "model_final.pth", weights_only=True)
    assert not [key for key in saved["model"] if key.startswith("adapters")]
    assert saved["helpers"].keys() == trainer.model.adapters.state_dict().keys()
    assert "adapters.REVIEWKD.abfs.0.conv1.0.weight" in trainer.model.state_dict()
